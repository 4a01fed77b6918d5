"""A page is self-contained, and everything it shows is also beside it as a file and as numbers."""

import base64
import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from tests.trainer.analysis.browser import Look, printed
from tests.trainer.analysis.pages import Read
from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.outputs import Output
from tfrecords.tree import Tree
from tfrecords.treefile import parse_tree
from trainer.analysis import figures, style, tree
from trainer.analysis.page import Bar, Card, Chart, Gallery, Link, Page, Section, safe_names, write_page
from trainer.analysis.table import Table
from trainer.history import Epoch
from trainer.run import Run


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
NAMED = Table(("answer", "F1"), (("smooth", 0.5),), "scores", "All scores", "Of all galaxies.")
PAGE = Page(
    "Title <script>",
    "A headline.",
    "run a&b",
    (
        Section("one", "First", ("Some text.",), (CHART, GALLERY, Table(("a", "b"), (("<i>", 3),)), NAMED)),
        Section("two", "Second", tone=1),
        Section("question-a", "Is it smooth?"),
        Section("question-b", "Is it odd?"),
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
    assert read.images and all(re.match(r"data:image/(svg\+xml|jpeg;base64),", image["src"]) for image in read.images)
    assert all(re.match(r"#|figures/test-|data/test-", link["href"]) for link in read.links)
    assert not {"script", "link", "iframe", "object", "svg"} & read.tags


def test_whatever_a_text_holds_is_shown_and_not_run(read: Read) -> None:
    for text in ("Title <script>", "run a&b", "Some <b>galaxies</b>", "<i>", "See & believe", "the end"):
        assert text in read.text
    assert "i" in read.tags and "script" not in read.tags  # the bars of a card are i elements


def test_every_link_leads_somewhere(written: Path, read: Read) -> None:
    assert {"one", "two", "line", "some"} <= read.ids
    for address in {link["href"] for link in read.links}:
        assert address[1:] in read.ids if address.startswith("#") else (written.parent / address).is_file()


def test_each_chart_gallery_and_named_table_links_its_files(written: Path, read: Read) -> None:
    files = [link["href"] for link in read.links if not link["href"].startswith("#")]
    assert files == [
        "figures/test-line.svg", "data/test-line.csv", "figures/test-some.jpg", "data/test-some.csv",
        "data/test-scores.csv", "data/test-scores.tex",
    ]  # fmt: skip


def test_a_page_of_several_sections_has_contents_with_the_questions_in_one_entry(read: Read, tmp_path: Path) -> None:
    listed = [link["href"] for link in read.links if link["href"].startswith("#") and "style" not in link]
    assert listed == ["#one", "#two", "#question-a", "#question-b"] and "nav" in read.tags
    assert "Questions:" in read.text
    write_page(replace(PAGE, sections=PAGE.sections[:3]), Output(tmp_path / "p", "page"), "i.html")
    assert "nav" not in Read((tmp_path / "p" / "i.html").read_text("utf-8")).tags


def test_pictures_say_in_words_what_they_show(read: Read) -> None:
    alternatives = [image["alt"] for image in read.images]
    assert alternatives == ["a <line> goes up"] * 4 + ["bright: galaxy 7, near", "bright: galaxy 9", "dark: galaxy 9"]


def test_a_cutout_on_a_page_is_the_cutout(read: Read) -> None:
    data = base64.b64decode(next(image["src"] for image in read.images if "jpeg" in image["src"]).partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG" and image.size == (32, 32)
        assert np.abs(np.asarray(image).astype(int).mean((0, 1)) - CUTOUT.mean((0, 1))).max() < 3


def test_charts_and_galleries_lie_beside_the_page_with_their_numbers(written: Path) -> None:
    folder = written.parent
    assert [path.name for path in folder.glob("[!.]*") if path.is_file()] == ["index.html"]
    assert sorted(path.relative_to(folder).as_posix() for path in folder.glob("[!.]*/*")) == [
        "data/test-line.csv", "data/test-scores.csv", "data/test-scores.tex", "data/test-some.csv",
        "figures/test-line.svg", "figures/test-some.jpg",
    ]  # fmt: skip
    rows = list(csv.reader((written.parent / "data" / "test-line.csv").open(newline="")))
    assert rows[0] == ["x", "y"] and float(rows[2][1]) == 1 / 3
    assert (
        written.parent / "data" / "test-some.csv"
    ).read_text() == "GalaxyID,column,voted,predicted\n7,bar: no,0.25,0.75\n9,,,\n"


def test_an_embedded_chart_is_the_drawing_beside_the_page_without_what_is_not_shown(written: Path, read: Read) -> None:
    whole = (written.parent / "figures" / "test-line.svg").read_text("utf-8")
    embedded = [unquote(image["src"].partition(",")[2]) for image in read.images if "svg" in image["src"]]
    light, dark, *narrow = map(ElementTree.fromstring, embedded)
    assert light.get("width") == "691.2pt" and narrow[0].get("width") == "259.2pt" and len(embedded[0]) < 0.9 * len(whole)
    for one in (light, dark):
        tags = [element.tag for element in one.iter()]
        assert sorted(tags) == sorted(
            e.tag for e in ElementTree.fromstring(whole).iter() if "svg}" in e.tag and "metadata" not in e.tag
        )
    assert style.on_dark(embedded[0]) == embedded[1]


def test_a_figure_of_rows_is_shown_row_by_row_and_saved_as_one() -> None:
    with style.used():
        rows = style.Stack(4, 3, (1.2,))
        for top, text in ((0.2, "first"), (1.4, "second")):
            rows.add_axes((0.2, 1 - (top + 0.8) / 3, 0.5, 0.8 / 3)).set_title(text)
    one, other = style.parts(rows)
    assert 'width="288pt" height="86.4pt"' in one and 'height="129.6pt"' in other
    assert ("first" in one, "second" in one, "first" in other, "second" in other) == (True, False, False, True)
    whole = style.svg(rows)
    assert "first" in whole and "second" in whole and len(style.parts(_draw(4))) == 1


@pytest.mark.parametrize("name", ["kaggle", "decals5"])
def test_no_text_of_a_chart_is_small_or_outside_of_it(name: str) -> None:
    of_tree, generator = builtin_tree(name), np.random.default_rng(0)
    questions, columns = len(of_tree.questions), len(of_tree.columns)
    rmse = generator.random(columns) * 0.2
    sizes = [(len(question.answers),) * 2 for question in of_tree.questions]
    bins = np.stack([generator.random((questions, 10)), generator.integers(0, 9000, (questions, 10))], 2)
    rungs = [
        figures.Rung(label, rmse, label == "central pixel, Kaggle") for label, rmse in (("ours", 0.1), ("all zeros", 0.27))
    ]
    rungs.append(figures.Rung("central pixel, Kaggle", 0.1619, True))
    errors = {split: generator.normal(size=columns) for split in ("validation", "test")}
    epochs = [Epoch(number, 0.1 / number, 0.11 / number, 1e-3, 10.0, 100.0) for number in range(1, 9)]
    for width in (style.WIDE, style.NARROW):
        drawn = {
            "tree": tree.draw(of_tree, width, ["RMSE 0.123"] * questions, rmse[:questions], "RMSE of the question's columns"),
            "per-class": figures.draw_per_class(of_tree, width, rmse, np.stack([rmse, rmse], 1), rmse, 61_578),
            "maximum": figures.draw_maximum_agreement(of_tree, width, 61_578, rmse, rmse),
            "error": figures.draw_error_against_mean(of_tree, width, rmse, rmse * 5, rmse * 1.2),
            "calibration": figures.draw_calibration(of_tree, width, [generator.random((10, 3)) * (1, 1, 9000)] * questions),
            "agreement": figures.draw_agreement(of_tree, width, bins),
            "confusion": figures.draw_confusion(of_tree, width, [generator.integers(0, 9000, size) for size in sizes]),
            "violation": figures.draw_violation(of_tree, width, np.sort(generator.random((questions, 3)))),
            "intervals": figures.draw_intervals(of_tree, width, *np.full((2, questions), 0.9), np.full(questions, 61_578)),
            "boxes": figures.draw_boxes(
                of_tree, width, "vote fraction (61,578 galaxies)", np.sort(generator.random((5, columns)), 0)
            ),
            "differences": figures.draw_split_differences(of_tree, width, errors, 3.0),
            "histograms": figures.draw_histograms(width, [("mean brightness", rmse, (0.1, 0.2))] * 3),
            "ladder": figures.draw_ladder(width, rungs, "ours", (0.09, 0.11)),
            "history": figures.draw_history(width, epochs),
        }
        for kind, figure in drawn.items():
            with style.used():
                FigureCanvasAgg(figure).draw()
                beyond = _ticks_beyond(figure)
                for text in figure.findobj(Text):
                    if text.get_text() and text.get_visible() and text not in beyond:
                        assert text.get_fontsize() >= style.SMALL, kind
                        box = text.get_window_extent()
                        inside = min(box.x0, box.y0) >= -1 and box.x1 <= figure.bbox.width + 1
                        assert inside and box.y1 <= figure.bbox.height + 1, f"{kind}, {width}: {text.get_text()} {box}"


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 390, 1024, 1440])
def test_a_report_has_no_fault_at_any_width(tiny_run: Run, look: Any, width: int) -> None:
    assert look(tiny_run.folder / "report" / "index.html", width) == Look((), (), (), (), ())


@pytest.mark.slow
def test_a_printed_report_is_white_with_full_pages_and_no_heading_at_their_foot(
    tiny_run: Run, look: Any, tmp_path: Path
) -> None:
    sheets = printed(tiny_run.folder / "report" / "index.html", tmp_path / "report.pdf")
    assert len(sheets) > 5 and all(sheet.darkest > 250 and not sheet.heading for sheet in sheets)
    assert min(sheet.filled for sheet in sheets[:-1]) > 0.5


def test_no_colour_of_a_white_ground_is_left_on_a_dark_one() -> None:
    light = style.svg(tree.draw(builtin_tree(), style.WIDE, [""] * 11)) + style.svg(_draw(style.WIDE))
    dark = style.on_dark(light)
    for colour in (style.INK, style.QUIET, style.PREDICTED, style.GROUND):
        assert colour in light and colour not in dark


def _deep(questions: int) -> Tree:
    """A chain of questions, each asked after the first answer of the one before; the last also after another."""
    parts = []
    for place in range(questions):
        after = (
            ""
            if not place
            else f'after = ["q{place - 1}_yes"]'
            if place < questions - 1
            else f'after = ["q{place - 1}_yes", "q0_no"]'
        )
        parts.append(f'[[question]]\nkey = "q{place}"\n{after}\nanswers = {{ yes = "q{place}_yes", no = "q{place}_no" }}')
    return parse_tree("\n".join(parts), "deep.toml", "deep")


ONE = parse_tree('question = [{key = "ring", answers = {yes = "ring_yes", no = "ring_no"}}]', "ring.toml", "ring")
WIDE_ANSWERS = parse_tree(
    'question = [{key = "a b/c", title = "' + "a title of many words " * 3 + '", answers = {"' + "a very long answer " * 4
    + '" = "1", no = "2"}}, {key = "a b c", after = ["2"], answers = {x = "3", y = "4"}}]', "long.toml", "long",
)  # fmt: skip
TREES = [*map(builtin_tree, builtin_names()), ONE, WIDE_ANSWERS, _deep(9)]


def _boxes(figure: Figure) -> list[Bbox]:
    """Where the texts of a figure lie, in pixels."""
    FigureCanvasAgg(figure).draw()
    return [text.get_window_extent() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def _ticks_beyond(figure: Figure) -> set[Text]:
    """The labels of ticks beyond the ends of their axes, which are not drawn."""
    labels = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not low <= tick.get_loc() <= high:
                labels |= {tick.label1, tick.label2}
    return labels


@pytest.mark.parametrize("width", [style.WIDE, style.NARROW])
@pytest.mark.parametrize("coloured", [False, True])
@pytest.mark.parametrize("of_tree", TREES, ids=lambda of_tree: of_tree.name)
def test_the_tree_has_a_box_with_a_link_for_every_question(of_tree: Tree, width: float, coloured: bool) -> None:
    number = len(of_tree.questions)
    values = np.linspace(0.05, 0.2, number) if coloured else None
    notes = [f"note {place}" for place in range(number)]
    links = tree.links(of_tree, notes, coloured)(width)
    assert sorted(link.anchor for link in links) == sorted(tree.anchors(of_tree))
    for link in links:
        assert 0 <= link.left < link.left + link.width <= 1 and 0 <= link.top < link.top + link.height <= 1
    for one in links:  # no box covers another
        for other in links:
            apart = one.left + one.width <= other.left or other.left + other.width <= one.left
            assert one is other or apart or one.top + one.height <= other.top or other.top + other.height <= one.top
    figure = tree.draw(of_tree, width, notes, values)
    words = re.sub(r"\s", "", "".join(text.get_text() for text in figure.axes[0].texts))
    for question in of_tree.questions:
        for text in (question.title, *question.answers, *notes):
            assert re.sub(r"\s", "", text) in words
    with style.used():
        texts = _boxes(figure)
    wide, high = figure.bbox.width, figure.bbox.height
    assert all(box.x0 >= -1 and box.x1 <= wide + 1 and box.y0 >= -1 and box.y1 <= high + 1 for box in texts)
    for place, one_text in enumerate(texts):  # no text covers another by more than a descender
        for other_text in texts[:place]:
            both = Bbox.intersection(one_text, other_text)
            assert both is None or min(both.width, both.height) < 4


def test_kaggles_questions_stand_in_columns_by_depth_and_on_a_phone_below_the_answer_that_leads_to_them() -> None:
    """The order of the article's figure."""
    links = tree.links(builtin_tree(), [""] * 11, False)
    columns: dict[float, list[str]] = {}
    for link in links(style.WIDE):
        columns.setdefault(link.left, []).append(link.anchor.removeprefix("question-"))
    assert [*columns.values()] == [["1", "6"], ["7", "2", "8"], ["9", "3", "4", "5"], ["10", "11"]]
    listed = [link.anchor.removeprefix("question-") for link in sorted(links(style.NARROW), key=lambda link: link.top)]
    assert listed == ["1", "7", "2", "9", "3", "4", "10", "11", "5", "6", "8"]


def test_a_question_stands_below_all_that_lead_to_it_with_a_line_from_each() -> None:
    of_tree = parse_tree(
        """
        [[question]]
        key = "first"
        answers = { a = "first_a", b = "first_b" }
        [[question]]
        key = "second"
        after = ["first_a"]
        answers = { c = "second_c", d = "second_d" }
        [[question]]
        key = "last"
        after = ["first_b", "second_c"]
        answers = { e = "last_e", f = "last_f" }
        """,
        "t",
        "t",
    )
    for width in (style.WIDE, style.NARROW):
        places = {link.anchor: link for link in tree.links(of_tree, [""] * 3, False)(width)}
        assert places["question-last"].left > places["question-second"].left > places["question-first"].left
        figure = tree.draw(of_tree, width, [""] * 3)
        assert len(figure.axes[0].lines) == 3
        assert "after “b” or “c”" in [text.get_text() for text in figure.axes[0].texts]


def test_a_value_that_is_missing_leaves_its_box_without_colour() -> None:
    values = np.linspace(0, 1, 11)
    values[4] = np.nan
    for numbers in (values, np.full(11, np.nan)):
        boxes = tree.draw(builtin_tree(), style.WIDE, [""] * 11, numbers).axes[0].patches
        plain = sum(to_hex(box.get_facecolor()) == style.TONES[1] for box in boxes)
        assert plain == np.isnan(numbers).sum()


@pytest.mark.parametrize("of_tree", TREES, ids=lambda of_tree: of_tree.name)
def test_a_panel_for_each_question_has_a_line_for_each_answer(of_tree: Tree) -> None:
    for width in (style.WIDE, style.NARROW):
        figure = style.by_answer(of_tree, width, lambda axes, question: axes.plot(0, 0), "share")
        answers = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
        assert list(map(len, answers)) == [len(question.answers) for question in of_tree.questions]
        for question, labels in zip(of_tree.questions, answers, strict=True):
            for answer, label in zip(question.answers, labels, strict=True):
                assert label == answer or answer.startswith(label.rstrip("…"))
        assert all(box.x0 >= -1 for box in _boxes(figure))
        assert len(style.by_question(of_tree, width, lambda axes, _: axes.plot(0, 0), ("x", "y")).axes) == len(
            of_tree.questions
        )


def test_kaggles_panels_stand_in_three_columns_of_five_three_and_three() -> None:
    for row in (0.2, 0.24):
        figure = style.by_answer(builtin_tree(), style.WIDE, lambda axes, _: axes.plot(0, 0), "share", row)
        lefts = [axes.get_position().x0 for axes in figure.axes]
        assert [lefts.count(left) for left in dict.fromkeys(lefts)] == [5, 3, 3]


@pytest.mark.parametrize("questions", [1, 2, 3, 4, 7, 8, 12, 20])
def test_charts_for_any_number_of_questions_leave_a_place_for_the_legend(questions: int) -> None:
    text = "\n".join(f'[[question]]\nkey = "q{n}"\nanswers = {{ yes = "q{n}_yes", no = "q{n}_no" }}' for n in range(questions))
    of_tree = parse_tree(text, "many.toml", "many")
    for width in (style.WIDE, style.NARROW):
        figure = style.by_question(of_tree, width, lambda axes, _: axes.plot([0, 1], label="a line"), ("x", "y"))
        FigureCanvasAgg(figure).draw()
        legend = figure.legends[0].get_window_extent()
        assert not any(Bbox.intersection(legend, axes.bbox) for axes in figure.axes)
        columns = {
            round(axes.get_position().x0, 4) for axes in style.by_answer(of_tree, width, lambda axes, _: axes.plot(0), "x").axes
        }
        assert len(columns) == (1 if style.is_narrow(width) else min(3, questions))


@pytest.mark.parametrize("name", ["decals5", "euclid", "kaggle"])
def test_labels_of_errors_do_not_cover_one_another(name: str) -> None:
    of_tree = builtin_tree(name)
    generator = np.random.default_rng(0)
    means, mse = generator.random(len(of_tree.columns)), generator.random(len(of_tree.columns)) * 0.1
    mse[3] = np.nan  # nobody was asked
    for width in (style.WIDE, style.NARROW):
        figure = figures.draw_error_against_mean(of_tree, width, mse, means, mse * 2)
        labels = figure.axes[0].texts
        assert len(labels) >= 2
        if name != "kaggle":
            FigureCanvasAgg(figure).draw()
            boxes = [label.get_window_extent() for label in labels]
            for place, one in enumerate(boxes):
                assert one.x1 <= figure.bbox.width and not any(Bbox.intersection(one, other) for other in boxes[:place])


def test_intervals_are_drawn_for_each_question_with_what_is_expected() -> None:
    of_tree = builtin_tree("decals5")
    held, galaxies = np.linspace(0.6, 1, 10), np.arange(10)
    held[0] = np.nan
    for width in (style.WIDE, style.NARROW):
        axes = figures.draw_intervals(of_tree, width, held, np.full(10, 0.95), galaxies).axes[0]
        np.testing.assert_array_equal(axes.lines[-1].get_xdata(), held)
        assert [label.get_text() for label in axes.get_yticklabels()][3] == "bar (3)"
        assert axes.get_xlim()[0] <= 0.5 and axes.get_xlim()[1] > 1


def test_names_become_anchors_and_files_and_no_two_alike() -> None:
    assert safe_names(["barred spiral", "1", "smooth-or-featured"]) == ("barred-spiral", "1", "smooth-or-featured")
    hostile = ["../../etc", "a b", "a-b", "A b", "a-b-2", "é", "x" * 300, ""]
    safe = safe_names(hostile)
    assert len({name.lower() for name in safe}) == len(hostile)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]*", name) and "/" not in name and len(name) < 90 for name in safe)


def test_a_galaxy_that_has_a_name_is_called_by_all_of_it(tmp_path: Path) -> None:
    card = Card(7, (CUTOUT,), bars=(Bar("bar: no", None, 0.5),), name="J00/<J005.1+2.4>")
    write_page(
        Page("t", "h", "f", (Section("s", "S", (), (Gallery("g", "G", "", ("a",), (card,)),)),)),
        Output(tmp_path / "p", "page"),
        "i.html",
    )
    shown = Read((tmp_path / "p" / "i.html").read_text("utf-8"))
    assert "J00/<J005.1+2.4>" in shown.text
    assert (tmp_path / "p" / "data" / "g.csv").read_text().splitlines()[1] == "J00/<J005.1+2.4>,bar: no,,0.5"


def test_the_credit_of_a_page_is_that_of_its_survey(tmp_path: Path) -> None:
    write_page(Page("t", "h", "f", (), credit="Credit: us."), Output(tmp_path / "p", "page"), "i.html")
    text = Read((tmp_path / "p" / "i.html").read_text("utf-8")).text
    assert "Credit: us." in text and "Kaggle" not in text
