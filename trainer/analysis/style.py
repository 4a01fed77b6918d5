"""The style of charts: sizes, colours for colour-blind readers too, small multiples, SVG on white and on dark."""

import io
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tfrecords.tree import Question, Tree

# Width of a chart in inches, on a screen and on a phone; a page shows 96 pixels per inch.
WIDE, NARROW = 9.6, 3.8
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
# Mean width of a letter in inches per point of its size, regular and bold, on the safe side.
_LETTER, _BOLD = 0.0084, 0.0092
_RC: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
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
    buffer = io.StringIO()
    with used():
        drawn.savefig(buffer, format="svg", metadata=_no_date())
    return buffer.getvalue()


def on_dark(drawn: str) -> str:
    """An SVG from `svg` in the colours of a dark page, with a transparent background."""
    for light, dark in _ON_DARK.items():
        drawn = drawn.replace(light, dark)
    return drawn


def _panel(made: Figure, left: float, top: float, width: float, height: float, question: Question) -> Axes:
    """The axes of a question at a place in inches from the left and the top of a figure."""
    across, down = made.get_size_inches()
    axes = made.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.set_facecolor(TONES[(question.index + 1) % 2])
    size = 7.5 if is_narrow(across) else 8.5
    title = shortened(question.called("{}  {}"), int((width + 0.15) / (_BOLD * size)))
    axes.set_title(title, loc="left", fontweight="bold", fontsize=size, pad=4)
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
    names = min(max(1.2, _LETTER * 8 * longest + 0.1), width / len(columns) / 2)
    letters = int((names - 0.1) / (_LETTER * 8))
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
                axes = _panel(made, left, top + title, width / len(columns) - names - 0.15, tall, question)
                axes.set_yticks(range(len(question.answers)), [shortened(answer, letters) for answer in question.answers])
                axes.set_ylim(len(question.answers) - 0.4, -0.6)
                axes.tick_params(axis="y", length=0)
                axes.grid(False, axis="y")
                draw(axes, question)
                panels.append(axes)
                top += title + tall + 0.1
            axes.set_xlabel(label)
        limits = np.array([axes.get_xlim() for axes in panels])
        for axes in panels:
            axes.set_xlim(limits[:, 0].min(), limits[:, 1].max())
            axes.tick_params(axis="x", labelbottom=bool(axes.get_xlabel()))
        if legend:
            handles, texts = panels[0].get_legend_handles_labels()
            made.legend(handles, texts, loc="upper left", ncols=len(texts))
    return made


def by_question(tree: Tree, width: float, draw: Callable[[Axes, Question], None], labels: tuple[str, str]) -> Figure:
    """A square panel for each question, then the legend. draw: must set the same axes in each; labels: of x and y."""
    columns = 2 if is_narrow(width) else 4
    rows = -(-(len(tree.questions) + 1) // columns)  # so the last cell is free for the legend
    left, below, title, gap = 0.6, 0.5, 0.24, 0.16
    side = (width - left) / columns - gap
    with used():
        made = Figure(figsize=(width, rows * (side + title + gap) + below))
        for place, question in enumerate(tree.questions):
            across, down = place % columns, place // columns
            axes = _panel(made, left + across * (side + gap), title + down * (side + title + gap), side, side, question)
            draw(axes, question)
            axes.tick_params(axis="x", labelbottom=place + columns >= len(tree.questions))
            axes.tick_params(axis="y", labelleft=across == 0)
        handles, texts = made.axes[0].get_legend_handles_labels()
        corner = (left + (columns - 1) * (side + gap)) / width, (below + side / 2) / made.get_figheight()
        made.legend(handles, texts, loc="center left", bbox_to_anchor=corner)
        made.supxlabel(labels[0], fontsize=9, y=0.08 / made.get_figheight())
        made.supylabel(labels[1], fontsize=9, x=0.08 / width)
    return made


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
