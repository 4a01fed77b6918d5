"""A page is self-contained, and everything it shows is also beside it as a file and as numbers."""

import base64
import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tests.trainer.analysis.pages import Read
from tfrecords.outputs import Output
from tfrecords.taxonomy import COLUMNS, QUESTIONS
from trainer.analysis import style, tree
from trainer.analysis.page import Bar, Card, Chart, Gallery, Link, Page, Section, Table, write_page


def _draw(width: float) -> Figure:
    with style.used():
        figure = style.figure(width, 2)
        figure.subplots().plot([0, 1], color=style.PREDICTED)
    return figure


CUTOUT = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
CHART = Chart(
    "line",
    "a <line> goes up",
    "See & believe",
    _draw,
    Table(("x", "y"), ((0, 0.1), (1, 1 / 3))),
    lambda _: [Link("one", "to one", 0.1, 0.2, 0.3, 0.4)],
)
GALLERY = Gallery(
    "some",
    "Some <b>galaxies</b>",
    "Look.",
    ("bright", "dark"),
    (Card(7, (CUTOUT,), "near", (Bar("bar: no", 0.25, 0.75),)), Card(9, (CUTOUT, CUTOUT))),
)
PAGE = Page(
    "Title <script>",
    "A headline.",
    "run a&b",
    (
        Section("one", "First", ("Some text.",), (CHART, GALLERY, Table(("a", "b"), (("<i>", 3),)))),
        Section("two", "Second", tone=1),
    ),
    None,
    ("the end",),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "deep"
    write_page(PAGE, Output(folder, "page"), "index.html", "test-")
    return folder / "index.html"


@pytest.fixture(scope="module")
def read(written: Path) -> Read:
    return Read(written.read_text("utf-8"))


def test_a_page_loads_nothing_but_itself_and_runs_nothing(read: Read) -> None:
    assert read.images and all(re.match(r"data:image/(svg\+xml|jpeg);base64,", image["src"]) for image in read.images)
    assert all(link["href"].startswith("#") for link in read.links)
    assert not {"script", "link", "iframe", "object", "svg"} & read.tags


def test_whatever_a_text_holds_is_shown_and_not_run(read: Read) -> None:
    for text in ("Title <script>", "run a&b", "Some <b>galaxies</b>", "<i>", "See & believe", "the end"):
        assert text in read.text
    assert "i" in read.tags and "script" not in read.tags  # the bars of a card are i elements


def test_every_link_leads_somewhere(read: Read) -> None:
    assert {link["href"] for link in read.links} == {"#one"}
    assert {"one", "two", "line", "some"} <= read.ids


def test_pictures_say_in_words_what_they_show(read: Read) -> None:
    alternatives = [image["alt"] for image in read.images]
    assert alternatives == ["a <line> goes up"] * 3 + ["bright: galaxy 7, near", "bright: galaxy 9", "dark: galaxy 9"]


def test_a_cutout_on_a_page_is_the_cutout(read: Read) -> None:
    data = base64.b64decode(next(image["src"] for image in read.images if "jpeg" in image["src"]).partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG" and image.size == (32, 32)
        assert np.abs(np.asarray(image).astype(int).mean((0, 1)) - CUTOUT.mean((0, 1))).max() < 3


def test_charts_and_galleries_lie_beside_the_page_with_their_numbers(written: Path) -> None:
    folder = written.parent
    assert [path.name for path in folder.glob("[!.]*") if path.is_file()] == ["index.html"]
    assert sorted(path.relative_to(folder).as_posix() for path in folder.glob("[!.]*/*")) == [
        "data/test-line.csv", "data/test-some.csv", "figures/test-line.svg", "figures/test-some.jpg",
    ]  # fmt: skip
    rows = list(csv.reader((written.parent / "data" / "test-line.csv").open(newline="")))
    assert rows[0] == ["x", "y"] and float(rows[2][1]) == 1 / 3
    assert (
        written.parent / "data" / "test-some.csv"
    ).read_text() == "GalaxyID,column,voted,predicted\n7,bar: no,0.25,0.75\n9,,,\n"


def test_no_colour_of_a_white_ground_is_left_on_a_dark_one() -> None:
    light = style.svg(tree.draw(style.WIDE, [""] * 11)) + style.svg(_draw(style.WIDE))
    dark = style.on_dark(light)
    for colour in (style.INK, style.QUIET, style.PREDICTED, style.GROUND):
        assert colour in light and colour not in dark


@pytest.mark.parametrize("width", [style.WIDE, style.NARROW])
@pytest.mark.parametrize("values", [None, np.linspace(0.05, 0.2, 11)])
def test_the_tree_has_a_box_with_a_link_for_every_question(width: float, values: np.ndarray | None) -> None:
    notes = [f"note {number}" for number in range(11)]
    links = tree.links(notes, values is not None)(width)
    assert sorted(link.anchor for link in links) == sorted(f"question-{q.number}" for q in QUESTIONS)
    for link in links:
        assert 0 <= link.left < link.left + link.width <= 1 and 0 <= link.top < link.top + link.height <= 1
    for one in links:  # no box covers another
        for other in links:
            apart = one.left + one.width <= other.left or other.left + other.width <= one.left
            assert one is other or apart or one.top + one.height <= other.top or other.top + other.height <= one.top
    words = " ".join(text.get_text() for text in tree.draw(width, notes, values).axes[0].texts).replace("\u00a0", " ")
    for question in QUESTIONS:
        assert question.title in words and all(answer in words for answer in question.answers)
    assert all(note in words for note in notes)


def test_a_panel_for_each_question_has_a_line_for_each_answer() -> None:
    for width in (style.WIDE, style.NARROW):
        figure = style.by_answer(width, lambda axes, question: axes.plot(0, 0), "share")
        answers = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
        assert answers == [list(question.answers) for question in QUESTIONS]
        assert sum(map(len, answers)) == len(COLUMNS)
