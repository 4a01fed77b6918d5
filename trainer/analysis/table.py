"""Tables of numbers: as shown on a page, as CSV with every digit, and as LaTeX for a paper."""

import csv
import io
import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

DASH = "–"


@dataclass(frozen=True)
class Measured:
    """A number and the ends of its 95 % interval; all NaN if there was nothing to measure."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Table:
    """Rows under a header, for a page or a CSV file; a CSV file holds floats in full precision.

    name: of its own files beside the page, data/NAME.csv and data/NAME.tex; without a name it has none. title: above it on the
    page. caption: how to read it. forms: for each column the format of its numbers on the page and in LaTeX, "" to leave them.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    name: str = ""
    title: str = ""
    caption: str = ""
    forms: tuple[str, ...] = ()
    kind: ClassVar[str] = "table"

    def _places(self) -> list[tuple[int, str, str]]:
        """Each column: its place, name, and format."""
        forms = self.forms or ("",) * len(self.header)
        return [(place, name, form) for place, (name, form) in enumerate(zip(self.header, forms, strict=True))]

    def _is_measured(self, place: int) -> bool:
        return any(isinstance(row[place], Measured) for row in self.rows)

    def csv(self) -> str:
        """The table as CSV; a measured number takes three columns: NAME, NAME_low, NAME_high. Named tables have snake_case."""
        names = [name.replace(" ", "_") if self.name else name for name in self.header]
        several = [
            (name, f"{name}_low", f"{name}_high") if self._is_measured(place) else (name,) for place, name in enumerate(names)
        ]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(itertools.chain(*several))
        writer.writerows(itertools.chain(*map(_parts, row)) for row in self.rows)
        return buffer.getvalue()

    def cells(self) -> list[list[tuple[str, bool]]]:
        """The rows as a page shows them: each value as text, and whether it is a number. A dash stands for NaN."""
        return [[(_shown(row[place], form), _is_number(row[place])) for place, _, form in self._places()] for row in self.rows]

    def latex(self) -> str:
        """The table in LaTeX, with the rules of the package booktabs; intervals are above and below their numbers."""
        import pandas as pd

        numeric = [all(_is_number(row[place]) for row in self.rows) for place in range(len(self.header))]
        frame = pd.DataFrame(
            [[_latex(row[place], form) for place, _, form in self._places()] for row in self.rows],
            columns=[_escaped(name) for name in self.header],
        )
        body = frame.style.hide(axis="index").to_latex(
            hrules=True,
            column_format="".join("r" if number else "l" for number in numeric),
            position_float="centering",
            caption=_escaped(f"{self.title}. {self.caption}" if self.caption else self.title),
            label=f"tab:{self.name}",
        )
        return f"% Needs \\usepackage{{booktabs}}.\n{body}"


def _parts(value: object) -> tuple[object, ...]:
    return (value.value, value.low, value.high) if isinstance(value, Measured) else (value,)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, Measured)) and not isinstance(value, bool)


def _shown(value: object, form: str) -> str:
    """A value as text: "0.81 (0.79 to 0.83)" with an interval."""
    if isinstance(value, Measured):
        if math.isnan(value.value):
            return DASH
        ends = "" if math.isnan(value.low) else f" ({format(value.low, form)} to {format(value.high, form)})"
        return f"{format(value.value, form)}{ends}"
    if isinstance(value, float) and math.isnan(value):
        return DASH
    return format(value, form) if form and _is_number(value) else str(value)


def _latex(value: object, form: str) -> str:
    """A value in LaTeX: "$0.81^{+0.02}_{-0.02}$" with an interval."""
    if not isinstance(value, Measured):
        return _escaped(_shown(value, form))
    if math.isnan(value.value):
        return _escaped(DASH)
    if math.isnan(value.low):
        return f"${format(value.value, form)}$"
    # The ends, as they are read off, are those of the rounded numbers.
    number, low, high = (float(format(part, form)) for part in (value.value, value.low, value.high))
    above, below = (format(part, form.removeprefix("+")) for part in (high - number, number - low))
    return f"${format(number, form)}^{{+{above}}}_{{-{below}}}$"


# Characters that LaTeX would read as commands, and some that its fonts lack.
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "≥": r"$\geq$",
        "≤": r"$\leq$",
        "×": r"$\times$",
        DASH: "--",
    }
)


def _escaped(text: str) -> str:
    return " ".join(text.translate(_LATEX).split())
