"""The decision tree as a diagram: a box for each question with its answers, and a line from the answer that leads to it.

On a screen the tree grows to the right; on a phone it is a list indented by depth.
"""

import itertools
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from tfrecords.tree import Question, Tree
from trainer.analysis import style
from trainer.analysis.page import QUESTION, Link, safe_names

_LINE, _PAD, _GAP, _INDENT, _BEND = 0.17, 0.08, 0.22, 0.2, 0.42
# Boxes in columns are not wider, and not narrower: a deeper tree is a list on a screen too.
_WIDEST, _NARROWEST = 3.4, 1.5
_LETTER = 0.0735
_LEGEND = 0.65
_NO_COLOUR = style.TONES[1]


@dataclass(frozen=True)
class _Box:
    """A question's place in inches from the left and the top, and its lines of text, the first `headings` its title."""

    question: Question
    left: float
    top: float
    width: float
    headings: int
    lines: tuple[str, ...]

    @property
    def height(self) -> float:
        return len(self.lines) * _LINE + 2 * _PAD


@dataclass(frozen=True)
class _Layout:
    """The boxes, and whether they are a list from top to bottom or columns by depth."""

    boxes: tuple[_Box, ...]
    listed: bool

    @property
    def height(self) -> float:
        return max(box.top + box.height for box in self.boxes) + 0.05


def anchors(tree: Tree) -> tuple[str, ...]:
    """The anchor of each question's section on a page."""
    return safe_names([f"{QUESTION}{question.key}" for question in tree.questions])


def _depths(tree: Tree) -> list[int]:
    """How many questions lead to each question, on the longest way."""
    depths: list[int] = []
    for question in tree.questions:  # parents first
        above = [depths[tree.question_of(parent).index] for parent in question.parents]
        depths.append(max(above, default=-1) + 1)
    return depths


def _top_down(tree: Tree) -> list[Question]:
    """Each question below the answer that leads to it; one that is asked after several, below the last of them."""
    waiting = [len(question.parents) for question in tree.questions]
    after: dict[int, list[Question]] = {}
    for question in tree.questions:
        for parent in question.parents:
            after.setdefault(parent, []).append(question)
    order: list[Question] = []
    pending = [question for question in reversed(tree.questions) if not question.parents]
    while pending:
        question = pending.pop()
        order.append(question)
        below = []
        for other in (other for column in range(question.start, question.stop) for other in after.get(column, [])):
            waiting[other.index] -= 1
            if not waiting[other.index]:
                below.append(other)
        pending += reversed(below)
    return order


def _leading(tree: Tree, question: Question) -> str:
    """The answers after which a question is asked: '2.2', or '“smooth” or “featured”'."""
    answers = [(tree.question_of(parent), parent) for parent in question.parents]
    return " or ".join(q.answer_called(at) if q.numbered else f"“{q.answer_called(at)}”" for q, at in answers)


def _has_label(question: Question) -> bool:
    """Whether the answer that leads to a question fits beside its line; else its box names it."""
    return question.numbered and len(question.parents) == 1


def _box(tree: Tree, question: Question, note: str, left: float, width: float, room: float) -> _Box:
    """The box of a question with its texts wrapped to `room` inches, at the top."""
    letters = max(int(room / _LETTER), 8)
    answers = [
        f"{question.answer_called(question.start + place)}: " if question.numbered else ""
        for place in range(len(question.answers))
    ]
    # No break inside an answer.
    shown = ", ".join(f"{name}{answer}".replace(" ", "\u00a0") for name, answer in zip(answers, question.answers, strict=True))
    after = "" if not question.parents or _has_label(question) else f"after {_leading(tree, question)}"
    title = textwrap.wrap(question.called("{}  {}"), letters - 3)
    lines = [textwrap.wrap(text, letters) for text in (question.words, shown, after, note)]
    return _Box(question, left, 0.05, width, len(title), (*title, *itertools.chain(*lines)))


def _layout(tree: Tree, width: float, notes: Sequence[str]) -> _Layout:
    depths, order = _depths(tree), _top_down(tree)
    number = max(depths) + 1
    across = (width - 0.1 - (number - 1) * _BEND) / number
    boxes: list[_Box] = []
    if style.is_narrow(width) or across < _NARROWEST:
        indent = min(_INDENT, 0.4 * width / number)
        top = 0.05
        for question in order:
            left = 0.05 + indent * depths[question.index]
            box = _box(tree, question, notes[question.index], left, width - left - 0.05, width - left - 0.15)
            boxes.append(replace(box, top=top))
            top += box.height + 0.12
        return _Layout(tuple(boxes), True)
    across = min(across, _WIDEST)
    columns = []
    for depth in range(number):
        left = 0.05 + depth * (across + _BEND)
        chosen = [question for question in order if depths[question.index] == depth]
        columns.append([_box(tree, q, notes[q.index], left, across, across - 0.1) for q in chosen])
    total = max(sum(box.height for box in column) + _GAP * (len(column) - 1) for column in columns)
    for column in columns:
        space = (total - sum(box.height for box in column)) / len(column)
        top = 0.05 + space / 2
        for box in column:
            boxes.append(replace(box, top=top))
            top += box.height + space
    return _Layout(tuple(boxes), False)


def draw(tree: Tree, width: float, notes: Sequence[str], values: np.ndarray | None = None, label: str = "") -> Figure:
    """Draw the tree `width` inches wide. notes: a line for each question.

    values: numbers (questions,) that colour the boxes, from dark (small) to bright (large), none if NaN; label: what they are.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    layout = _layout(tree, width, notes)
    boxes, height = layout.boxes, layout.height
    legend = _LEGEND if values is not None else 0.0
    colours = colormaps["cividis"]
    scale = Normalize(
        *((0, 1) if values is None or np.isnan(values).all() else (float(np.nanmin(values)), float(np.nanmax(values))))
    )
    with style.used():
        figure = Figure(figsize=(width, height + legend))
        axes = figure.add_axes((0, legend / (height + legend), 1, height / (height + legend)))
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.axis("off")
        box_of = {box.question.index: box for box in boxes}
        for box in boxes:
            for above in dict.fromkeys(tree.question_of(parent).index for parent in box.question.parents):
                _connect(axes, box_of[above], box, layout.listed)
            if _has_label(box.question) and not layout.listed:
                middle = box.top + box.height / 2
                axes.text(
                    box.left - 0.02,
                    middle - 0.09,
                    _leading(tree, box.question),
                    fontsize=style.SMALL,
                    ha="right",
                    color=style.QUIET,
                )
        for box in boxes:
            value = None if values is None or np.isnan(values[box.question.index]) else float(values[box.question.index])
            fill = _NO_COLOUR if value is None else colours(scale(value))
            ink = style.INK if value is None else ("#111111" if scale(value) > 0.45 else "#fefefe")
            axes.add_patch(
                FancyBboxPatch(
                    (box.left + 0.04, box.top + 0.04),
                    box.width - 0.08,
                    box.height - 0.08,
                    boxstyle="round,pad=0.04",
                    facecolor=fill,
                    edgecolor=style.QUIET,
                    linewidth=0.8,
                    zorder=2,
                )
            )
            for number, line in enumerate(box.lines):
                heading = number < box.headings
                axes.text(
                    box.left + 0.1,
                    box.top + _PAD + (number + 0.5) * _LINE,
                    line,
                    va="center_baseline",
                    fontsize=style.SMALL,
                    fontweight="bold" if heading else "normal",
                    color=ink,
                    zorder=3,
                )
        if values is not None:
            from matplotlib.cm import ScalarMappable

            bar = figure.add_axes((0.3, 0.44 / (height + legend), 0.4, 0.1 / (height + legend)))
            figure.colorbar(ScalarMappable(scale, colours), cax=bar, orientation="horizontal", label=label)
    return figure


def _connect(axes: Axes, above: _Box, box: _Box, listed: bool) -> None:
    """Draw a bent line from the box of a question to that of one that is asked after it."""
    middle = box.top + box.height / 2
    if listed:
        x = above.left + 0.1
        places = ([x, x, box.left], [above.top + above.height, middle, middle])
    else:
        start = above.top + above.height / 2
        bend = box.left - 0.75 * _BEND  # left of the answer that leads to it
        places = ([above.left + above.width, bend, bend, box.left], [start, start, middle, middle])
    axes.plot(*places, color=style.QUIET, linewidth=1, zorder=1, solid_joinstyle="round")


def links(tree: Tree, notes: Sequence[str], has_values: bool) -> Callable[[float], list[Link]]:
    """Return a function of the width that lists the links of the boxes `draw` makes with these notes, to their sections."""

    def boxes_at(width: float) -> list[Link]:
        layout = _layout(tree, width, notes)
        height = layout.height + (_LEGEND if has_values else 0.0)
        names = anchors(tree)
        return [
            Link(
                names[box.question.index],
                f"question {box.question.called('{}: {}')}",
                box.left / width,
                box.top / height,
                box.width / width,
                box.height / height,
            )
            for box in layout.boxes
        ]

    return boxes_at
