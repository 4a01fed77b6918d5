"""A page and the files beside it: sections of charts, galleries and tables become one self-contained HTML file.

    index.html            self-contained: charts and images are embedded as data URIs, no JavaScript
    figures/NAME.svg      each chart, on white
    figures/NAME.jpg      each gallery, with the credit line in the image
    data/NAME.csv         the numbers of each chart, gallery and named table
    data/NAME.tex         each named table in LaTeX

Every chart is embedded four times: for a screen and for a phone, in light and in dark. Paper gets the light one for a screen.
"""

import base64
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrecords import __version__, images
from tfrecords.outputs import Output
from tfrecords.text import cell, printable
from trainer.analysis import style
from trainer.analysis.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_JPEG_QUALITY = 88
GENERATOR = "galaxy-zoo-vgg16"
QUESTION = "question-"
# A page with fewer sections has no table of contents.
_CONTENTS = 4
CREDIT = (
    "Credit for Kaggle's galaxies: images by the Sloan Digital Sky Survey (CC BY, sdss.org), votes by the Galaxy Zoo "
    "volunteers (Willett et al. 2013, MNRAS 435, 2835; Lintott et al. 2008, 2011)."
)


@dataclass(frozen=True)
class Link:
    """An area of a chart that links to `anchor`: left, top, width and height as fractions of the chart."""

    anchor: str
    title: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Chart:
    """A chart: `draw(width in inches)` returns a figure of that width. alt: the finding in words; caption: how to read it.

    data: the numbers it shows. links: its linked areas, for a drawing of the same width.
    """

    name: str
    alt: str
    caption: str
    draw: "Callable[[float], Figure]"
    data: Table
    links: Callable[[float], Sequence[Link]] | None = None
    kind: ClassVar[str] = "chart"


@dataclass(frozen=True)
class Bar:
    """One vote fraction of a galaxy on a card, voted and predicted: 0..1 or None."""

    label: str
    voted: float | None
    predicted: float | None = None


@dataclass(frozen=True)
class Card:
    """A galaxy in a gallery: its GalaxyID, images (uint8 (side, side, 3) each), a note, and bars for some columns.

    name: if it is not a number, shown in place of the GalaxyID.
    """

    galaxy_id: int
    pictures: tuple[np.ndarray, ...]
    note: str = ""
    bars: tuple[Bar, ...] = ()
    name: str = ""

    @property
    def title(self) -> str:
        """What to call it: its name, or the GalaxyID."""
        return printable(self.name) if self.name else str(self.galaxy_id)


@dataclass(frozen=True)
class Gallery:
    """Cards under a title. alt: the start of the alternative text, one for each image of a card.

    id: header of the column that names the galaxies, in `data`. table: `data` of a gallery without votes.
    """

    name: str
    title: str
    caption: str
    alt: tuple[str, ...]
    cards: tuple[Card, ...]
    id: str = "GalaxyID"
    table: Table | None = None
    kind: ClassVar[str] = "gallery"

    @property
    def has_votes(self) -> bool:
        return any(bar.voted is not None for card in self.cards for bar in card.bars)

    @property
    def has_predictions(self) -> bool:
        return any(bar.predicted is not None for card in self.cards for bar in card.bars)

    @property
    def data(self) -> Table:
        """One row for each galaxy and bar, unless it has a table."""
        if self.table is not None:
            return self.table
        rows = [
            (
                cell(card.name) if card.name else card.galaxy_id,
                bar.label,
                *("" if value is None else value for value in (bar.voted, bar.predicted)),
            )
            for card in self.cards
            for bar in card.bars or (Bar("", None),)
        ]
        return Table((self.id, "column", "voted", "predicted"), tuple(rows))


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, and charts, galleries or tables under them. tone: of the background, 0 or 1.

    anchor: sections whose anchors begin with `QUESTION` are one entry of the contents.
    """

    anchor: str
    title: str
    paragraphs: tuple[str, ...] = ()
    parts: tuple[Chart | Gallery | Table, ...] = ()
    tone: int = 0


@dataclass(frozen=True)
class Page:
    """title: for the browser tab; headline: the opening sentence; facts: a line under it; opening: the first chart.

    credit: the line on images and votes, below the page and each gallery.
    """

    title: str
    headline: str
    facts: str
    sections: tuple[Section, ...]
    opening: Chart | None = None
    footer: tuple[str, ...] = ()
    credit: str = CREDIT


def safe_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names as anchors and names of files: ASCII letters, digits, dots, hyphens and underscores; no two alike."""
    safe: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]
        taken = {other.lower() for other in safe}
        numbered = itertools.chain([plain], (f"{plain}-{number}" for number in itertools.count(2)))
        safe.append(next(one for one in numbered if one.lower() not in taken))
    return tuple(safe)


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _svg_uri(drawn: str) -> str:
    """An SVG as data URI, escaped for an attribute in double quotes; a quarter shorter than base64."""
    return f"data:image/svg+xml,{style.slim(drawn).replace('%', '%25').replace('#', '%23').replace('&', '&amp;')}"


def _picture(pixels: np.ndarray) -> str:
    return _uri(images.encode(pixels, "jpeg", _JPEG_QUALITY), "jpeg")


@dataclass(frozen=True)
class _Drawing:
    """A chart as embedded: CSS classes, the data URIs of its rows, and its linked areas."""

    classes: str
    rows: tuple[str, ...]
    links: Sequence[Link]


@dataclass(frozen=True)
class _Entry:
    """An entry of the contents: a section, or all sections of questions."""

    sections: tuple[Section, ...]
    is_questions: bool


def _contents(sections: Sequence[Section]) -> list[_Entry]:
    """The entries of the contents; none for a short page."""
    grouped = itertools.groupby(sections, lambda section: section.anchor.startswith(QUESTION))
    entries = []
    for is_questions, part in grouped:
        chosen = tuple(part)
        entries += [_Entry(chosen, True)] if is_questions else [_Entry((section,), False) for section in chosen]
    return entries if len(sections) >= _CONTENTS else []


class _Writer:
    """Collects the files beside a page, and supplies the template with the images to embed."""

    def __init__(self, folder: str, prefix: str, credit: str) -> None:
        self._folder, self._prefix, self._credit = folder, prefix, credit
        self.files: dict[str, bytes] = {}

    def _add(self, folder: str, name: str, content: bytes) -> None:
        self.files[f"{self._folder}{folder}/{self._prefix}{name}"] = content

    def beside(self, part: Chart | Gallery | Table) -> list[tuple[str, str]]:
        """(kind, address relative to the page) of the files of a part; those written so far."""
        kinds = (("figures", "svg"), ("figures", "jpg"), ("data", "csv"), ("data", "tex"))
        names = {"svg": "SVG", "jpg": "JPEG", "csv": "CSV", "tex": "LaTeX"}
        addresses = [(names[ending], f"{folder}/{self._prefix}{part.name}.{ending}") for folder, ending in kinds if part.name]
        return [(kind, address) for kind, address in addresses if f"{self._folder}{address}" in self.files]

    def chart(self, chart: Chart) -> list[_Drawing]:
        """The drawings of a chart: for a screen and a phone, in light and in dark."""
        drawings = []
        for name, width in (("wide", style.WIDE), ("narrow", style.NARROW)):
            figure = chart.draw(width)
            light = style.svg(figure)
            if name == "wide":
                self._add("figures", f"{chart.name}.svg", light.encode("utf-8"))
                self._add("data", f"{chart.name}.csv", chart.data.csv().encode("utf-8"))
            links = chart.links(width) if chart.links else ()
            # Only the drawing for paper is in parts.
            rows = style.parts(figure) if name == "wide" else [light]
            for tone, toned in (("light", rows), ("dark", [style.on_dark(light)])):
                drawings.append(_Drawing(f"{name} {tone}", tuple(map(_svg_uri, toned)), links))
        return drawings

    def table(self, table: Table) -> Table:
        """Write the files of a table, if it has a name."""
        if table.name:
            for ending, text in (("csv", table.csv()), ("tex", table.latex())):
                self._add("data", f"{table.name}.{ending}", text.encode("utf-8"))
        return table

    def gallery(self, gallery: Gallery) -> list[tuple[Card, list[tuple[str, str]]]]:
        """Each card with (alternative text, data URI) of its images."""
        if gallery.cards:
            cells = [(card.pictures, style.shortened(card.title, 30)) for card in gallery.cards]
            self._add("figures", f"{gallery.name}.jpg", style.sheet(gallery.title, cells, self._credit))
            self._add("data", f"{gallery.name}.csv", gallery.data.csv().encode("utf-8"))
        return [
            (card, [(alt, _picture(pixels)) for alt, pixels in zip(gallery.alt, card.pictures, strict=False)])
            for card in gallery.cards
        ]


def write_page(page: Page, output: Output, name: str, prefix: str = "") -> None:
    """Write a page as file `name` of an output folder, and its charts, galleries and numbers to figures/ and data/ beside it.

    The names of the files there begin with `prefix`; those left from an earlier page are removed. Raises ConfigError, before
    anything is written, if a file that is not ours already exists.
    """
    import jinja2

    folder = name[: name.rfind("/") + 1]
    writer = _Writer(folder, prefix, page.credit)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer.analysis", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html").render(
        page=page,
        contents=_contents(page.sections),
        chart=writer.chart,
        gallery=writer.gallery,
        table=writer.table,
        beside=writer.beside,
        credit=page.credit,
        version=__version__,
        generator=GENERATOR,
    )
    earlier = [
        listed
        for listed in output.files
        if listed.startswith((f"{folder}figures/{prefix}", f"{folder}data/{prefix}")) and listed not in writer.files
    ]
    output.refuse_others([*writer.files, name, *earlier])
    output.remove(earlier)
    output.write({**writer.files, name: html.encode("utf-8")})
