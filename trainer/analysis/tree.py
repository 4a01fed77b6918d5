"""The decision tree as a diagram: a box for each question with its answers, and a line from the answer that leads to it.

On a screen the tree grows to the right; on a phone it is a list indented by depth.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from tfrecords.taxonomy import QUESTIONS, Question
from trainer.analysis import style
from trainer.analysis.page import Link

# Questions from top to bottom, in columns by depth.
_BY_DEPTH = ((1, 6), (7, 2, 8), (9, 3, 4, 5), (10, 11))
_TOP_DOWN = (1, 7, 2, 9, 3, 4, 10, 11, 5, 6, 8)
_LINE, _PAD, _GAP, _INDENT = 0.155, 0.08, 0.22, 0.2
_LEGEND = 0.65
_NO_COLOUR = style.TONES[1]


@dataclass(frozen=True)
class _Box:
    """A question's place in inches from the left and the top, and its lines of text, the first a title."""

    question: Question
    left: float
    top: float
    width: float
    lines: tuple[str, ...]

    @property
    def height(self) -> float:
        return len(self.lines) * _LINE + 2 * _PAD


def _parent(question: Question) -> Question | None:
    return None if question.parent is None else next(q for q in QUESTIONS if q.start <= question.parent < q.stop)


def _depth(question: Question) -> int:
    above = _parent(question)
    return 0 if above is None else _depth(above) + 1


def _lines(question: Question, note: str, width: float) -> tuple[str, ...]:
    letters = int(width / 0.064)
    # No break inside an answer.
    answers = [
        f"{question.number}.{number}: {answer}".replace(" ", "\u00a0") for number, answer in enumerate(question.answers, 1)
    ]
    return (
        *textwrap.wrap(f"{question.number}  {question.title}", letters - 3),
        *textwrap.wrap(question.words, letters),
        *textwrap.wrap(", ".join(answers), letters),
        *textwrap.wrap(note, letters),
    )


def _layout(width: float, notes: Sequence[str]) -> list[_Box]:
    boxes = []
    if style.is_narrow(width):
        top = 0.05
        for number in _TOP_DOWN:
            question = QUESTIONS[number - 1]
            left = 0.05 + _INDENT * _depth(question)
            box = _Box(question, left, top, width - left - 0.05, _lines(question, notes[number - 1], width - left - 0.15))
            boxes.append(box)
            top += box.height + 0.12
        return boxes
    across = (width - 0.1 - 3 * 0.42) / 4
    columns = []
    for depth, numbers in enumerate(_BY_DEPTH):
        left = 0.05 + depth * (across + 0.42)
        columns.append(
            [_Box(QUESTIONS[n - 1], left, 0.0, across, _lines(QUESTIONS[n - 1], notes[n - 1], across - 0.1)) for n in numbers]
        )
    total = max(sum(box.height for box in column) + _GAP * (len(column) - 1) for column in columns)
    for column in columns:
        space = (total - sum(box.height for box in column)) / len(column)
        top = 0.05 + space / 2
        for box in column:
            boxes.append(_Box(box.question, box.left, top, box.width, box.lines))
            top += box.height + space
    return boxes


def _size(boxes: Sequence[_Box], width: float) -> tuple[float, float]:
    return width, max(box.top + box.height for box in boxes) + 0.05


def draw(width: float, notes: Sequence[str], values: np.ndarray | None = None, label: str = "") -> Figure:
    """Draw the tree `width` inches wide. notes: a line for each of the 11 questions.

    values: numbers (11,) that colour the boxes, from dark (small) to bright (large); label: what they are.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    boxes = _layout(width, notes)
    width, height = _size(boxes, width)
    legend = _LEGEND if values is not None else 0.0
    colours = colormaps["cividis"]
    scale = Normalize(*((0, 1) if values is None else (float(np.min(values)), float(np.max(values)))))
    with style.used():
        figure = Figure(figsize=(width, height + legend))
        axes = figure.add_axes((0, legend / (height + legend), 1, height / (height + legend)))
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.axis("off")
        box_of = {box.question.number: box for box in boxes}
        for box in boxes:
            above = _parent(box.question)
            if above is not None:
                _connect(axes, box_of[above.number], box, style.is_narrow(width))
        for box in boxes:
            value = None if values is None else float(values[box.question.number - 1])
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
                heading = line if number == 0 else None
                axes.text(
                    box.left + 0.1,
                    box.top + _PAD + (number + 0.5) * _LINE,
                    line,
                    va="center_baseline",
                    fontsize=8.5 if heading else 7.5,
                    fontweight="bold" if heading else "normal",
                    color=ink,
                    zorder=3,
                )
        if values is not None:
            from matplotlib.cm import ScalarMappable

            bar = figure.add_axes((0.3, 0.44 / (height + legend), 0.4, 0.1 / (height + legend)))
            figure.colorbar(ScalarMappable(scale, colours), cax=bar, orientation="horizontal", label=label)
    return figure


def _connect(axes: Axes, above: _Box, box: _Box, narrow: bool) -> None:
    """Draw a bent line from the parent's box to the question, on a screen labelled with the answer that leads to it."""
    assert box.question.parent is not None
    answer = f"{above.question.number}.{box.question.parent - above.question.start + 1}"
    middle = box.top + box.height / 2
    if narrow:
        x = above.left + 0.1
        places = ([x, x, box.left], [above.top + above.height, middle, middle])
        text = None
    else:
        start = above.top + above.height / 2
        bend = box.left - 0.21
        places = ([above.left + above.width, bend, bend, box.left], [start, start, middle, middle])
        text = (box.left - 0.02, middle - 0.09)
    axes.plot(*places, color=style.QUIET, linewidth=1, zorder=1, solid_joinstyle="round")
    if text is not None:
        axes.text(*text, answer, fontsize=7.5, ha="right", color=style.QUIET)


def links(notes: Sequence[str], has_values: bool) -> Callable[[float], list[Link]]:
    """Return a function of the width that lists the links of the boxes `draw` makes with these notes, to question-N."""

    def boxes_at(width: float) -> list[Link]:
        boxes = _layout(width, notes)
        _, height = _size(boxes, width)
        height += _LEGEND if has_values else 0.0
        return [
            Link(
                f"question-{box.question.number}",
                f"question {box.question.number}: {box.question.title}",
                box.left / width,
                box.top / height,
                box.width / width,
                box.height / height,
            )
            for box in boxes
        ]

    return boxes_at
