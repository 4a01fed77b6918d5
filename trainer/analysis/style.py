"""The style of charts: sizes, colours for colour-blind readers too, small multiples, SVG on white and on dark."""

import io
import itertools
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from tfrecords.tree import Question, Tree

# Width of a chart in inches, on a screen and on a phone. At 96 pixels per inch, the narrow one fits a phone of 360 pixels.
WIDE, NARROW = 9.6, 3.6
# Okabe & Ito's blue and orange (jfly.uni-koeln.de/color), darker on white, lighter on dark.
PREDICTED, VOTED = "#0072b2", "#c25d00"
INK, QUIET, GRID, GROUND = "#1b2430", "#5d6b7a", "#dfe5eb", "#fffffe"
TONES = ("#f4f6f9", "#e9eef4")
_ON_DARK = {
    PREDICTED: "#56b4e9",
    VOTED: "#f0a13a",
    INK: "#e6ebf2",
    QUIET: "#a3b0be",
    GRID: "#334155",
    GROUND: "none",
    TONES[0]: "#141c29",
    TONES[1]: "#1a2433",
}
# The smallest text in points: 11 pixels where a chart is shown a little smaller than drawn.
SMALL = 8.75
# Mean width of a letter in inches per point of its size, regular and bold, on the safe side.
_LETTER, _BOLD = 0.0084, 0.0092
_RC: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": GROUND,
    "figure.facecolor": GROUND,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "path",
    "svg.hashsalt": "galaxy_zoo",
}


class Stack(Figure):
    """A figure of rows that may stand on different pages of paper. cuts: places between them, in inches from the top."""

    def __init__(self, width: float, height: float, cuts: Sequence[float]) -> None:
        super().__init__(figsize=(width, height))
        self.cuts = tuple(cuts)


def shortened(text: str, letters: int) -> str:
    """A text for a chart, cut with an ellipsis if it has more letters than fit."""
    return text if len(text) <= letters else f"{text[: max(letters - 1, 1)].rstrip()}…"


def is_narrow(width: float) -> bool:
    return width < 6


@cache
def _no_date() -> dict[str, None]:
    return {"Date": None, "Creator": None}


def figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, whose parts do not overlap. Draw inside `with style.used():`."""
    return Figure(figsize=(width, height), layout="constrained")


def used() -> AbstractContextManager[None]:
    """The context in which charts are drawn."""
    return rc_context(_RC)


def svg(drawn: Figure) -> str:
    """A figure as SVG on white, without a date or random ids."""
    return _saved(drawn, None)


def _saved(drawn: Figure, part: Bbox | None) -> str:
    buffer = io.StringIO()
    with used():
        drawn.savefig(buffer, format="svg", metadata=_no_date(), bbox_inches=part)
    return buffer.getvalue()


def parts(drawn: Figure) -> list[str]:
    """The SVGs of a figure that a page shows below one another: those of its rows, or one of all."""
    if not isinstance(drawn, Stack) or not drawn.cuts:
        return [svg(drawn)]
    width, height = drawn.get_size_inches()
    rows = []
    for top, bottom in itertools.pairwise((0.0, *drawn.cuts, height)):
        for axes in drawn.axes:
            axes.set_visible(top <= height * (1 - axes.get_position().y1) < bottom)
        rows.append(_saved(drawn, Bbox([[0, height - bottom], [width, height - top]])))
    for axes in drawn.axes:
        axes.set_visible(True)
    return rows


def slim(drawn: str) -> str:
    """An SVG from `svg` without what a browser does not need: single quotes, places to a hundredth of a point."""
    drawn = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'<g id="[\w.]+_\d+"', "<g", drawn)  # nothing refers to groups, whose ids end in their number
    places = r' (?:d|x|y)="[^"]*"|translate\([^)]*\)'
    drawn = re.sub(places, lambda place: re.sub(r"(\.\d\d)\d+", r"\1", place[0]), drawn)
    drawn = re.sub(r' d="[^"]*"', lambda path: re.sub(r"\s*([A-Z])\s*", r"\1", path[0]), drawn)
    drawn = drawn.replace("DejaVuSans-", "d")
    drawn = re.sub(r">\s+<", "><", re.sub(r"\s+", " ", drawn)).strip()
    return drawn.replace("'", "&#39;").replace('"', "'")


def on_dark(drawn: str) -> str:
    """An SVG from `svg` in the colours of a dark page, with a transparent background."""
    for light, dark in _ON_DARK.items():
        drawn = drawn.replace(light, dark)
    return drawn


def panel(
    made: Figure,
    left: float,
    top: float,
    width: float,
    height: float,
    question: Question,
    room: float = 0.0,
    start: float = -1.0,
) -> Axes:
    """The axes of a question at a place in inches from the left and the top of a figure.

    room: for its title, in inches; by default about its width. start: of the title from the left; by default where the axes do.
    """
    across, down = made.get_size_inches()
    axes = made.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.set_facecolor(TONES[(question.index + 1) % 2])
    title = shortened(question.called("{}  {}"), int((room or width + 0.15) / (_BOLD * SMALL)))
    x = 0.0 if start < 0 else (start - left) / width
    axes.set_title(title, loc="left", fontweight="bold", fontsize=SMALL, pad=4, x=x)
    return axes


def _divided(heights: Sequence[float], columns: int) -> list[slice]:
    """Consecutive parts, at most `columns`, of which the tallest is as low as possible; of several divisions the most even."""
    columns = min(columns, len(heights))
    ends = [*itertools.accumulate(heights, initial=0.0)]
    best: tuple[tuple[float, float], tuple[int, ...]] | None = None
    for cuts in itertools.combinations(range(1, len(heights)), columns - 1):
        sums = [ends[stop] - ends[start] for start, stop in itertools.pairwise((0, *cuts, len(heights)))]
        rank = (max(sums), sum(value**2 for value in sums))
        if best is None or rank < best[0]:
            best = rank, cuts
    assert best is not None
    return [slice(start, stop) for start, stop in itertools.pairwise((0, *best[1], len(heights)))]


def by_answer(
    tree: Tree, width: float, draw: Callable[[Axes, Question], None], label: str, row: float = 0.2, legend: bool = False
) -> Figure:
    """A panel for each question with a row for each answer, first on top; all with the same horizontal axis.

    draw(axes, question) puts marks at y = 0, 1, ... for the answers. row: height of a row in inches. legend: show that of the
    first panel above all. Positions are fixed: computing them from the texts would take most of the time.
    """
    above, title, below = 0.3 if legend else 0.05, 0.24, 0.5

    def height_of(question: Question) -> float:
        return row * (len(question.answers) + 0.2)

    parts = _divided([height_of(q) + title + 0.1 for q in tree.questions], 1 if is_narrow(width) else 3)
    columns = [tree.questions[part] for part in parts]
    longest = max(len(answer) for question in tree.questions for answer in question.answers)
    names = min(max(1.2, _LETTER * SMALL * longest + 0.1), width / len(columns) / 2)
    letters = int((names - 0.1) / (_LETTER * SMALL))
    height = above + max(sum(height_of(q) + title + 0.1 for q in part) for part in columns) + below
    panels = []
    with used():
        made = Figure(figsize=(width, height))
        for number, part in enumerate(columns):
            left = number * width / len(columns) + names
            # Short columns are stretched to the height of the longest.
            stretched = (height - above - below - len(part) * (title + 0.1)) / sum(map(height_of, part))
            top = above
            for question in part:
                tall = height_of(question) * stretched
                axes = panel(made, left, top + title, width / len(columns) - names - 0.15, tall, question)
                axes.set_yticks(range(len(question.answers)), [shortened(answer, letters) for answer in question.answers])
                axes.set_ylim(len(question.answers) - 0.4, -0.6)
                axes.tick_params(axis="y", length=0)
                axes.grid(False, axis="y")
                draw(axes, question)
                panels.append(axes)
                top += title + tall + 0.1
            # A long label may begin below the names of the answers.
            fits = _LETTER * 9 * len(label) < width / len(columns) - names
            axes.set_xlabel(label, loc="center" if fits else "right")
        limits = np.array([axes.get_xlim() for axes in panels])
        for axes in panels:
            axes.set_xlim(limits[:, 0].min(), limits[:, 1].max())
            axes.tick_params(axis="x", labelbottom=bool(axes.get_xlabel()))
        if legend:
            handles, texts = panels[0].get_legend_handles_labels()
            made.legend(handles, texts, loc="upper left", ncols=len(texts))
    return made


def by_question(
    tree: Tree, width: float, draw: Callable[[Axes, Question], None], labels: tuple[str, str], above: float = 0.0
) -> Figure:
    """A square panel for each question, below the legend. draw: must set the same axes in each; labels: of x and y.

    above: room in inches that each panel has above y = 1.
    """
    number = len(tree.questions)
    columns = 2 if is_narrow(width) else 4 if number <= 4 else 6
    rows = -(-number // columns)
    left, below, title, gap = 0.6, 0.5, 0.24, 0.16
    side = (width - left) / columns - gap
    tall = side + above
    with used():
        # The height of the legend depends on the texts, which the first panel sets.
        made = Figure(figsize=(width, 1))
        draw(made.add_subplot(), tree.questions[0])
        _, texts = made.axes[0].get_legend_handles_labels()
        lines = _lines(texts, width)
        top = 0.08 + 0.2 * lines
        height = top + rows * (tall + title + gap) + below
        made = Figure(figsize=(width, height))
        for place, question in enumerate(tree.questions):
            across, down = left + place % columns * (side + gap), top + title + place // columns * (tall + title + gap)
            axes = panel(made, across, down, side, tall, question)
            draw(axes, question)
            if above:
                axes.set_ylim(0, tall / side)
            axes.tick_params(axis="x", labelbottom=place + columns >= number)
            axes.tick_params(axis="y", labelleft=place % columns == 0)
        if texts:
            made.legend(
                *made.axes[0].get_legend_handles_labels(), loc="upper left", ncols=-(-len(texts) // lines), borderpad=0.2
            )
        made.supxlabel(labels[0], fontsize=9, y=0.08 / height)
        made.supylabel(labels[1], fontsize=9, x=0.08 / width)
    return made


def _lines(texts: Sequence[str], width: float) -> int:
    """How many lines a legend above all needs."""
    return -(-len(texts) // max(1, int((width - 0.1) / (_LETTER * SMALL * max(map(len, texts), default=1) + 0.6))))


def sheet(title: str, cells: Sequence[tuple[Sequence[np.ndarray], str]], credit: str) -> bytes:
    """A JPEG of galaxies on black, six in a row, with the credit line below. cells: (images, caption) of each galaxy."""
    from PIL import Image, ImageDraw, ImageFont

    columns, side, line, gap = 6, 212, 26, 8
    large, small = ImageFont.load_default(20), ImageFont.load_default(13)
    row = max(len(pictures) for pictures, _ in cells) * side + line
    made = Image.new("RGB", (columns * (side + gap) + gap, -(-len(cells) // columns) * (row + gap) + 2 * line + 3 * gap))
    draw = ImageDraw.Draw(made)
    draw.text((gap, gap), title, "white", large)
    for place, (pictures, caption) in enumerate(cells):
        x, y = gap + place % columns * (side + gap), line + 2 * gap + place // columns * (row + gap)
        for part, pixels in enumerate(pictures):
            made.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), (x, y + part * side))
        draw.text((x, y + row - line + 4), caption, "white", small)
    draw.text((gap, made.height - line), credit, "#b8c4cf", small)
    buffer = io.BytesIO()
    made.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
