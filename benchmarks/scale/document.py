"""The tables of benchmarks/scale.md, from the figures on disk: nothing in them is typed by hand."""

import json
from pathlib import Path

from benchmarks.scale.measured import FIGURES, lines, load, markdown, tables
from benchmarks.scale.plan import plan_rows
from benchmarks.scale.rates import known_rates

PAGE = Path(__file__).parent.parent / "scale.md"


def rates_table() -> str:
    """The rates, and where each was measured, in Markdown."""
    rows = [
        (f"{rate.value:,.4g}" if rate.value < 10 else f"{rate.value:,.0f}", rate.unit, rate.where or "assumed")
        for rate in known_rates().values()
    ]
    return markdown(("figure", "unit", "measured by, or assumed"), rows)


def plan_table() -> str:
    """The plan, in Markdown."""
    rows = plan_rows(known_rates(), lines(load()))
    header = ("", "one dataset, a part on each node", "a dataset on each node", "where it follows from")
    return markdown(header, [(row.what, row.one, row.each, row.how) for row in rows])


def steps_table() -> str:
    """The figures of the steps, with date and machine, in Markdown."""
    about = json.loads(FIGURES.read_text("utf-8"))
    return f"{about['date']}, {about['machine']}:\n\n{tables(load())}"


def filled(text: str) -> str:
    """The page with its tables, which stand between comments that name them."""
    for name, table in (("steps", steps_table()), ("rates", rates_table()), ("plan", plan_table())):
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            raise SystemExit(f"error: {PAGE}: has no place for the table {name}: restore its two comments")
        text = f"{before}{start}{table}\n{end}{after}"
    return text


def write_page() -> None:
    """Put the tables into the page."""
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
