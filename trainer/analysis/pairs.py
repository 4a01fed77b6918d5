"""The charts that compare runs: numbers in, matplotlib figures of a given width in inches out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfrecords.tree import Tree
from trainer.analysis import style
from trainer.analysis.style import INK, PREDICTED, QUIET, VOTED
from trainer.analysis.table import Measured


@dataclass(frozen=True)
class Curve:
    """A learning curve: its label, and a value for each epoch. validated: of the validation split, else of training."""

    label: str
    epochs: Sequence[int]
    values: Sequence[float]
    validated: bool


# Marks and colours that tell several runs apart, also without colour.
_MARKS = tuple(zip(("o", "s", "^", "D"), (PREDICTED, VOTED, INK, QUIET), strict=True))


def _mark(number: int) -> dict[str, Any]:
    """The mark of a run in a chart of several: hollow from the fifth on."""
    marker, colour = _MARKS[number % len(_MARKS)]
    return {"marker": marker, "color": colour, "mfc": colour if number < len(_MARKS) else style.GROUND}


def _names(labels: Sequence[str], letters: int) -> list[str]:
    """Labels for a chart with at most so many letters. Long ones lose their middle: names of runs often differ at the end."""

    def cut(label: str) -> str:
        kept = letters // 3
        return label if len(label) <= letters else f"{label[:kept]}…{label[kept + 1 - letters :]}"

    return [cut(label) for label in labels]


def draw_curves(width: float, curves: Sequence[Curve]) -> Figure:
    """Mean squared error per epoch of several runs."""
    with style.used():
        figure = style.figure(width, 3.2 + 0.2 * len(curves))
        axes = figure.subplots()
        names = _names([f"{curve.label}{'' if curve.validated else ' (train)'}" for curve in curves], 32)
        for number, (curve, name) in enumerate(zip(curves, names, strict=True)):
            line = "-" if number < len(_MARKS) else "--"
            axes.plot(curve.epochs, curve.values, line, label=name, ms=4, **_mark(number))
        axes.set_xlabel("epoch")
        axes.set_ylabel("mean squared error")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper left", ncols=1 if style.is_narrow(width) else 2)
    return figure


def draw_runs(
    width: float,
    labels: Sequence[str],
    rmse: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    differences: Sequence[Measured],
) -> Figure:
    """RMSE of each run with its interval; then the difference of each but the first from the first, with its interval."""
    with style.used():
        figure = style.figure(width, 0.36 * (2 * len(labels) - 1) + 1.5)
        above, below = figure.subplots(2, 1, height_ratios=(len(labels) + 0.5, len(differences) + 0.5))
        ends = [Measured(value, *both) for value, both in zip(rmse, intervals, strict=True)]
        for axes, names, values, form in ((above, labels, ends, ".4f"), (below, labels[1:], differences, "+.4f")):
            for place, one in enumerate(values):
                axes.plot([one.low, one.high], [place, place], color=INK, linewidth=1.2)
                axes.plot([one.value], [place], "o", color=PREDICTED, ms=6)
                text = format(one.value, form)
                end = one.value if np.isnan(one.high) else one.high
                axes.annotate(text, (end, place), (6, 0), textcoords="offset points", va="center", fontsize=style.SMALL)
            axes.set_yticks(range(len(names)), _names(names, 20))
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.margins(x=0.2)
            axes.tick_params(axis="y", length=0)
            axes.grid(False, axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(4 if style.is_narrow(width) else 7))
        above.set_xlabel("RMSE (lower is better)")
        below.axvline(0, color=QUIET, linewidth=1)
        below.set_xlabel("minus the first run's RMSE")
    return figure


def draw_differences(tree: Tree, width: float, labels: Sequence[str], differences: Sequence[Sequence[Measured]]) -> Figure:
    """The difference of the RMSE of each question from that of the base, with its interval: one mark for each other run."""
    with style.used():
        across = 0.8 / len(labels)
        figure = style.figure(width, max(0.3 * len(tree.questions) * max(1, len(labels) / 2) + 1.1, 1.8))
        axes = figure.subplots()
        axes.axvline(0, color=QUIET, linewidth=1)
        for number, (label, changes) in enumerate(zip(_names(labels, 40), differences, strict=True)):
            mark = _mark(number)
            places = np.arange(len(changes)) + (number - (len(labels) - 1) / 2) * across
            axes.hlines(places, [one.low for one in changes], [one.high for one in changes], color=mark["color"], linewidth=1.2)
            axes.plot([one.value for one in changes], places, linestyle="none", ms=5, label=label, **mark)
        letters = 18 if style.is_narrow(width) else 28
        axes.set_yticks(range(len(tree.questions)), [style.shortened(q.called("{}  {}"), letters) for q in tree.questions])
        axes.set_ylim(len(tree.questions) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(4 if style.is_narrow(width) else 7))
        axes.set_xlabel("minus the first run's RMSE")
        figure.legend(loc="outside upper left", ncols=1 if style.is_narrow(width) else 2)
    return figure
