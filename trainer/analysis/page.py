"""A page and the files beside it: sections of charts, galleries and tables become one self-contained HTML file.

    index.html            self-contained: charts and images are embedded as data URIs, no JavaScript
    figures/NAME.svg      each chart, on white
    figures/NAME.jpg      each gallery, with the credit line in the image
    data/NAME.csv         the numbers of each chart and gallery

Every chart is embedded three times: for a screen, for a phone, and on white for paper.
"""

import base64
import csv
import io
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

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_JPEG_QUALITY = 88
GENERATOR = "galaxy-zoo-vgg16"
CREDIT = (
    "Credit for Kaggle's galaxies: images by the Sloan Digital Sky Survey (CC BY, sdss.org), votes by the Galaxy Zoo "
    "volunteers (Willett et al. 2013, MNRAS 435, 2835; Lintott et al. 2008, 2011)."
)


@dataclass(frozen=True)
class Table:
    """Rows under a header, for a page or a CSV file; a CSV file holds floats in full precision."""

    header: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    kind: ClassVar[str] = "table"

    def csv(self) -> str:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows((self.header, *self.rows))
        return buffer.getvalue()


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
    """A heading, paragraphs, and charts, galleries or tables under them. tone: of the background, 0 or 1."""

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


def _picture(pixels: np.ndarray) -> str:
    return _uri(images.encode(pixels, "jpeg", _JPEG_QUALITY), "jpeg")


class _Writer:
    """Collects the files beside a page, and supplies the template with the images to embed."""

    def __init__(self, folder: str, prefix: str, credit: str) -> None:
        self._folder, self._prefix, self._credit = folder, prefix, credit
        self.files: dict[str, bytes] = {}

    def _beside(self, part: Chart | Gallery, picture: bytes, ending: str) -> None:
        self.files[f"{self._folder}figures/{self._prefix}{part.name}.{ending}"] = picture
        self.files[f"{self._folder}data/{self._prefix}{part.name}.csv"] = part.data.csv().encode("utf-8")

    def chart(self, chart: Chart) -> list[tuple[str, str, Sequence[Link]]]:
        """(CSS class, data URI, links) of each drawing of a chart: for a screen, a phone, and paper."""
        wide, narrow = (style.svg(chart.draw(width)) for width in (style.WIDE, style.NARROW))
        self._beside(chart, wide.encode("utf-8"), "svg")
        wide_links, narrow_links = (chart.links(width) if chart.links else () for width in (style.WIDE, style.NARROW))
        dark_wide, dark_narrow = style.on_dark(wide), style.on_dark(narrow)
        drawn = (("wide", dark_wide, wide_links), ("narrow", dark_narrow, narrow_links), ("paper", wide, ()))
        return [(name, _uri(svg.encode("utf-8"), "svg+xml"), links) for name, svg, links in drawn]

    def gallery(self, gallery: Gallery) -> list[tuple[Card, list[tuple[str, str]]]]:
        """Each card with (alternative text, data URI) of its images."""
        if gallery.cards:
            cells = [(card.pictures, style.shortened(card.title, 30)) for card in gallery.cards]
            self._beside(gallery, style.sheet(gallery.title, cells, self._credit), "jpg")
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
        page=page, chart=writer.chart, gallery=writer.gallery, credit=page.credit, version=__version__, generator=GENERATOR
    )
    earlier = [
        listed
        for listed in output.files
        if listed.startswith((f"{folder}figures/{prefix}", f"{folder}data/{prefix}")) and listed not in writer.files
    ]
    output.refuse_others([*writer.files, name, *earlier])
    output.remove(earlier)
    output.write({**writer.files, name: html.encode("utf-8")})
