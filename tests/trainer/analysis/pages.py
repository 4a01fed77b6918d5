"""The content of a page, read without a browser."""

import csv
from html.parser import HTMLParser

from trainer.run import Run

# In every report.
CHARTS = {
    *("confusion", "confusion-confident"),
    *("ladder", "tree", "per-class", "maximum-agreement", "error-against-mean", "calibration", "agreement", "violation"),
    "history",
}


class Read(HTMLParser):
    """What a browser would load, show, run and link to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.images: list[dict[str, str]] = []
        self.links: list[dict[str, str]] = []
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.ids |= {found["id"]} if "id" in found else set()
        if tag == "img":
            self.images.append(found)
        elif tag == "a":
            self.links.append(found)
        else:
            assert not {"src", "href", "srcset", "data", "onclick"} & found.keys()

    def handle_data(self, data: str) -> None:
        self.text += data


def rows_of(run: Run, name: str) -> list[dict[str, str]]:
    with (run.folder / "report" / "data" / f"test-{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))
