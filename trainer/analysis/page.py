"""A page and what lies beside it: sections of charts, galleries and tables become one self-contained HTML file.

    index.html            needs nothing but itself: charts and cutouts are in it as data URIs, no JavaScript
    figures/NAME.svg      each chart, on white
    figures/NAME.jpg      each gallery, with the credit line in the picture
    data/NAME.csv         what each chart and gallery shows, in numbers

Every chart is in the page three times: for a screen, for a phone, and on white for paper.
"""

import base64
import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfrecords import __version__, images
from tfrecords.outputs import Output
from trainer.analysis import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_JPEG_QUALITY = 88
GENERATOR = "galaxy-zoo-vgg16"
CREDIT = (
    "Credit where these are Kaggle's galaxies: images Sloan Digital Sky Survey (CC BY, sdss.org), votes the Galaxy Zoo "
    "volunteers (Willett et al. 2013, MNRAS 435, 2835; Lintott et al. 2008, 2011)."
)


@dataclass(frozen=True)
class Table:
    """Rows under a header, as the page shows them or a CSV file holds them; floats are written in full in a CSV."""

    header: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    kind: ClassVar[str] = "table"

    def csv(self) -> str:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows((self.header, *self.rows))
        return buffer.getvalue()


@dataclass(frozen=True)
class Link:
    """A part of a chart that leads to `anchor`: left, top, width and height as fractions of the chart."""

    anchor: str
    title: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Chart:
    """A drawing: `draw(width in inches)` gives a figure that fits that width. alt: the finding in words; caption: what to see.

    data: the numbers it shows. links: parts that lead elsewhere, for a drawing of the same width.
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
    """One vote fraction of a galaxy on a card, 0..1 each; predicted None where nothing was."""

    label: str
    voted: float | None
    predicted: float | None = None


@dataclass(frozen=True)
class Card:
    """A galaxy in a gallery: its GalaxyID, pictures (uint8 (side, side, 3) each), a note, and the votes that matter."""

    galaxy_id: int
    pictures: tuple[np.ndarray, ...]
    note: str = ""
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class Gallery:
    """Cards under a title; `alt` begins the alternative text of each picture, first to last, for the pictures of a card."""

    name: str
    title: str
    caption: str
    alt: tuple[str, ...]
    cards: tuple[Card, ...]
    kind: ClassVar[str] = "gallery"

    @property
    def has_predictions(self) -> bool:
        return any(bar.predicted is not None for card in self.cards for bar in card.bars)

    @property
    def data(self) -> Table:
        """One row for each galaxy and bar."""
        rows = [
            (card.galaxy_id, bar.label, *("" if value is None else value for value in (bar.voted, bar.predicted)))
            for card in self.cards
            for bar in card.bars or (Bar("", None),)
        ]
        return Table(("GalaxyID", "column", "voted", "predicted"), tuple(rows))


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, and charts, galleries or tables under them. tone: 0 or 1, of the ground."""

    anchor: str
    title: str
    paragraphs: tuple[str, ...] = ()
    parts: tuple[Chart | Gallery | Table, ...] = ()
    tone: int = 0


@dataclass(frozen=True)
class Page:
    """title: in the browser's tab; headline: the sentence it opens with; facts: a line under it; opening: the first chart."""

    title: str
    headline: str
    facts: str
    sections: tuple[Section, ...]
    opening: Chart | None = None
    footer: tuple[str, ...] = ()


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _picture(pixels: np.ndarray) -> str:
    return _uri(images.encode(pixels, "jpeg", _JPEG_QUALITY), "jpeg")


class _Writer:
    """Collects what lies beside a page, and gives the template what goes into it."""

    def __init__(self, folder: str, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix
        self.files: dict[str, bytes] = {}

    def _beside(self, part: Chart | Gallery, picture: bytes, ending: str) -> None:
        self.files[f"{self._folder}figures/{self._prefix}{part.name}.{ending}"] = picture
        self.files[f"{self._folder}data/{self._prefix}{part.name}.csv"] = part.data.csv().encode("utf-8")

    def chart(self, chart: Chart) -> list[tuple[str, str, Sequence[Link]]]:
        """(class, data URI, links) of its drawings: for a screen, a phone, and paper."""
        wide, narrow = (style.svg(chart.draw(width)) for width in (style.WIDE, style.NARROW))
        self._beside(chart, wide.encode("utf-8"), "svg")
        wide_links, narrow_links = (chart.links(width) if chart.links else () for width in (style.WIDE, style.NARROW))
        dark_wide, dark_narrow = style.on_dark(wide), style.on_dark(narrow)
        drawn = (("wide", dark_wide, wide_links), ("narrow", dark_narrow, narrow_links), ("paper", wide, ()))
        return [(name, _uri(svg.encode("utf-8"), "svg+xml"), links) for name, svg, links in drawn]

    def gallery(self, gallery: Gallery) -> list[tuple[Card, list[tuple[str, str]]]]:
        """Each card with (what it shows, data URI) of its pictures."""
        if gallery.cards:
            cells = [(card.pictures, f"{card.galaxy_id}") for card in gallery.cards]
            self._beside(gallery, style.sheet(gallery.title, cells, CREDIT), "jpg")
        return [
            (card, [(alt, _picture(pixels)) for alt, pixels in zip(gallery.alt, card.pictures, strict=False)])
            for card in gallery.cards
        ]


def write_page(page: Page, output: Output, name: str, prefix: str = "") -> None:
    """Write the file `name` of an output folder and, in figures/ and data/ beside it, its charts, galleries and their numbers.

    Those begin with `prefix`. Files of an earlier page, which may have shown more, go. Raises ConfigError, before anything is
    written, where a file is in the way that is not ours.
    """
    import jinja2

    folder = name[: name.rfind("/") + 1]
    writer = _Writer(folder, prefix)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer.analysis", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html").render(
        page=page, chart=writer.chart, gallery=writer.gallery, credit=CREDIT, version=__version__, generator=GENERATOR
    )
    earlier = [
        listed
        for listed in output.files
        if listed.startswith((f"{folder}figures/{prefix}", f"{folder}data/{prefix}")) and listed not in writer.files
    ]
    output.refuse_others([*writer.files, name, *earlier])
    output.remove(earlier)
    output.write({**writer.files, name: html.encode("utf-8")})
