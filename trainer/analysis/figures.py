"""The charts: numbers in, matplotlib figures of a given width in inches out. No files, no state."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfrecords.tree import Question, Tree
from trainer.analysis import style, wording
from trainer.analysis.style import INK, PREDICTED, QUIET, VOTED
from trainer.history import Epoch, best_epoch

# Shares of fewer galaxies than this are mostly chance.
FEW = 20
# Names of columns of so many letters are written beside points; else the answer in words, with the width of a letter in inches.
_SHORT, _LONG = 6, 0.0725


@dataclass(frozen=True)
class Rung:
    """A score on the ladder: its label, its RMSE, and whether it was published for another test set, not measured here."""

    label: str
    rmse: float
    published: bool = False


def draw_ladder(width: float, rungs: Sequence[Rung], ours: str, interval: tuple[float, float]) -> Figure:
    """RMSE of each rung, worst first; the one labelled `ours` has its 95 % interval."""
    with style.used():
        figure = style.figure(width, 0.36 * len(rungs) + 0.6)
        axes = figure.subplots()
        rows = sorted(rungs, key=lambda rung: -rung.rmse)
        other = "  other set" if style.is_narrow(width) else "  other test set"
        for place, rung in enumerate(rows):
            mine = rung.label == ours
            colour = PREDICTED if mine else QUIET
            axes.barh(place, rung.rmse, 0.62, color="none" if rung.published else colour, edgecolor=colour, linewidth=1)
            end = max(rung.rmse, interval[1]) if mine else rung.rmse
            text = f"{rung.rmse:.4f}" + (other if rung.published else "")
            weight = "bold" if mine else "normal"
            axes.annotate(
                text,
                (end, place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontweight=weight,
                fontsize=style.SMALL,
            )
            if mine:
                error = [[rung.rmse - interval[0]], [interval[1] - rung.rmse]]
                axes.errorbar(rung.rmse, place, xerr=error, color=INK, capsize=3, linewidth=1.2)
        axes.set_yticks(range(len(rows)), [rung.label for rung in rows])
        axes.get_yticklabels()[[rung.label for rung in rows].index(ours)].set_fontweight("bold")
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.invert_yaxis()
        room = 1.9 if style.is_narrow(width) else 1.25
        axes.set_xlim(0, room * max(rung.rmse for rung in rows))
        axes.set_xlabel("RMSE (lower is better)")
    return figure


def draw_history(width: float, epochs: Sequence[Epoch]) -> Figure:
    """MSE per epoch on train and validation, with the kept epoch marked."""
    with style.used():
        figure = style.figure(width, 3.4 if not style.is_narrow(width) else 3.0)
        axes = figure.subplots()
        numbers = [row.epoch for row in epochs]
        axes.plot(numbers, [row.mse for row in epochs], "o-", color=QUIET, label="train (while learning, with dropout)", ms=3.5)
        best = best_epoch(epochs)
        if not np.isnan(best.val_mse):
            axes.plot(numbers, [row.val_mse for row in epochs], "s-", color=PREDICTED, label="validation", ms=3.5)
            axes.plot([best.epoch], [best.val_mse], "o", ms=11, mfc="none", color=VOTED, label=f"kept: epoch {best.epoch}")
        axes.set_xlabel("epoch")
        axes.set_ylabel("mean squared error")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        axes.legend()
    return figure


def draw_per_class(
    tree: Tree, width: float, rmse: np.ndarray, intervals: np.ndarray, mean_rmse: np.ndarray | None, galaxies: int
) -> Figure:
    """RMSE (n,) of each answer with its interval (n, 2), in front of the RMSE of the column means of train."""

    def draw(axes: Axes, question: Question) -> None:
        places, columns = np.arange(len(question.answers)), question.columns
        if mean_rmse is not None:
            axes.barh(places, mean_rmse[columns], 0.74, color="none", edgecolor=QUIET, label="column means of train")
        axes.barh(places, rmse[columns], 0.42, color=PREDICTED, label="this model")
        sides = np.abs(intervals[columns].T - rmse[columns])
        axes.errorbar(rmse[columns], places, xerr=sides, fmt="none", ecolor=INK, elinewidth=1)

    return style.by_answer(tree, width, draw, f"RMSE ({wording.some_galaxies(galaxies)})", legend=True)


def draw_maximum_agreement(
    tree: Tree, width: float, galaxies: int, voted: np.ndarray, predicted: np.ndarray | None = None
) -> Figure:
    """The largest value (n,) of each column of the votes, beside that of the predictions if given."""

    def draw(axes: Axes, question: Question) -> None:
        places, columns = np.arange(len(question.answers)), question.columns
        if predicted is None:
            axes.barh(places, voted[columns], 0.6, color=VOTED)
        else:
            axes.barh(places - 0.19, voted[columns], 0.36, color=VOTED, label="votes")
            axes.barh(places + 0.19, predicted[columns], 0.36, color=PREDICTED, label="predicted")
        axes.set_xlim(0, 1.02)

    both = predicted is not None
    return style.by_answer(
        tree, width, draw, f"maximum of {wording.some_galaxies(galaxies)}", row=0.24 if both else 0.2, legend=both
    )


def draw_error_against_mean(tree: Tree, width: float, mse: np.ndarray, means: np.ndarray, variances: np.ndarray) -> Figure:
    """MSE (n,) of each column against its mean, with the variance of its votes.

    Of the ten largest, those are labelled whose names do not overlap.
    """
    with style.used():
        figure = style.figure(width, 4.2 if not style.is_narrow(width) else 3.6)
        axes = figure.subplots()
        axes.vlines(means, mse, variances, color=QUIET, linewidth=0.7)
        axes.scatter(means, variances, color=QUIET, s=26, marker="_", label="variance of the votes")
        axes.scatter(means, mse, color=PREDICTED, s=22, label="this model")
        largest = [column for column in np.argsort(np.nan_to_num(mse, nan=-1.0))[-10:] if not np.isnan(mse[column])]
        axes.set_xlabel("mean vote fraction of the column")
        axes.set_ylabel("mean squared error")
        axes.set_ylim(bottom=0)
        axes.set_xlim(-0.02, 1)
        short = all(len(tree.short(column)) <= _SHORT for column in largest)
        names = {
            column: tree.short(column) if short else style.shortened(tree.describe(column), 32) for column in largest[::-1]
        }
        _label(axes, names, np.stack([means, mse], axis=1))
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def _label(axes: Axes, names: Mapping[int, str], points: np.ndarray) -> None:
    """Write the names of some columns beside their points (n, 2), the first first, except those that would cover another."""
    across, down = axes.get_figure().get_size_inches() - (0.8, 0.6)  # type: ignore[union-attr]
    low, high = axes.get_ylim()
    taken: list[tuple[float, float, float]] = []  # left, right and height of a label in inches
    for column, text in names.items():
        x, y = (points[column, 0] + 0.02) / 1.02 * across, (points[column, 1] - low) / (high - low) * down
        size = _LONG * len(text)
        for left, side in ((x + 0.07, "left"), (x - 0.07 - size, "right")):
            inside = left >= 0 and left + size <= across
            if inside and not any(left < b and a < left + size and abs(y - other) < 0.15 for a, b, other in taken):
                taken.append((left, left + size, y))
                shift = (5 if side == "left" else -5, -3)
                place = (float(points[column, 0]), float(points[column, 1]))
                axes.annotate(text, place, xytext=shift, textcoords="offset points", ha=side, fontsize=style.SMALL, color=INK)
                break


def draw_calibration(tree: Tree, width: float, tables: Sequence[np.ndarray]) -> Figure:
    """Mean voted against mean predicted fraction of those asked, per question and bin: rows of (predicted, voted, count)."""

    def draw(axes: Axes, question: Question) -> None:
        table = tables[question.index]
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, label="perfectly calibrated")
        axes.plot(table[:, 0], table[:, 1], "o-", color=PREDICTED, ms=3.5, linewidth=1, label="tenth of answers, or one")
        axes.text(
            0.97, 0.04, f"n = {int(table[:, 2].sum()):,}", ha="right", fontsize=style.SMALL, color=INK, transform=axes.transAxes
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), xticklabels=("0", "0.5", "1"), yticks=(0, 0.5, 1))

    return style.by_question(tree, width, draw, ("predicted fraction of those asked", "voted fraction"))


def draw_agreement(tree: Tree, width: float, bins: np.ndarray) -> Figure:
    """Share of galaxies whose most voted answer is predicted, and counts, per question and bin of agreement.

    bins: (questions, 10, 2).
    """
    middles = (np.arange(bins.shape[1]) + 0.5) / bins.shape[1]

    def draw(axes: Axes, question: Question) -> None:
        share, count = bins[question.index].T
        for enough, colour, label in ((count >= FEW, PREDICTED, "share"), (count < FEW, QUIET, f"under {FEW} galaxies")):
            axes.bar(middles, np.where(enough, np.nan_to_num(share), 0), 0.085, color=colour, label=label)
        axes.axhline(1 / len(question.answers), color=INK, linewidth=0.8, linestyle=":", label="by chance")
        for middle, number in zip(middles, count, strict=True):
            axes.text(middle, 1.04, f"{int(number):,}", fontsize=style.SMALL, ha="center", va="bottom", rotation=90, color=INK)
        axes.set(xlim=(0, 1), xticks=(0, 0.5, 1), xticklabels=("0", "0.5", "1"), yticks=(0, 0.5, 1))

    room = 0.12 + 0.08 * len(f"{int(bins[..., 1].max(initial=0)):,}")
    return style.by_question(tree, width, draw, ("agreement of the volunteers", "most voted answer predicted"), room)


def draw_confusion(tree: Tree, width: float, counts: Sequence[np.ndarray]) -> Figure:
    """A confusion matrix for each question: the percentage of each voted answer (row) that got each predicted one (column).

    counts: (answers, answers) of each question, galaxies. Beside each row is its number of galaxies.
    """
    title, gap, letter, letters = 0.3, 0.22, 0.075, 15
    largest = max(int(matrix.sum(axis=1).max(initial=0)) for matrix in counts)
    numbers = 0.15 + letter * len(f"{largest:,}")  # room for galaxies on the right
    answers = [[style.shortened(answer, letters) for answer in question.answers] for question in tree.questions]
    names = [0.12 + letter * max(map(len, texts)) for texts in answers]  # room for the voted answers on the left
    sides = [
        len(matrix) * min(0.28, (width - room - numbers) / len(matrix)) for room, matrix in zip(names, counts, strict=True)
    ]
    titles = [min(0.15 + 0.0805 * len(question.called("{}  {}")), 2) for question in tree.questions]
    rooms = [max(needed, room + side + numbers) for needed, room, side in zip(titles, names, sides, strict=True)]
    rows: list[list[int]] = [[]]
    for place, room in enumerate(rooms):
        if rows[-1] and sum(rooms[other] for other in rows[-1]) + room > width:
            rows.append([])
        rows[-1].append(place)
    heights = [title + max(sides[n] for n in row) + max(names[n] for n in row) + gap for row in rows]
    ends = [*itertools.accumulate(heights)]
    with style.used():
        figure = style.Stack(width, ends[-1], ends[:-1])
        for row, end, height in zip(rows, ends, heights, strict=True):
            left = 0.05
            for place in row:
                question, side = tree.questions[place], sides[place]
                top = end - height + title
                axes = style.panel(figure, left + names[place], top, side, side, question, rooms[place] - 0.1, left)
                _fill_matrix(axes, counts[place])
                axes.set_yticks(range(len(counts[place])), answers[place])
                axes.set_xticks(range(len(counts[place])), answers[place], rotation=90)
                left += rooms[place]
    return figure


def _fill_matrix(axes: Axes, counts: np.ndarray) -> None:
    """Fill the axes with a matrix of counts, as percentages of its rows; beside each row is its sum."""
    from matplotlib import colormaps

    of_row = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, of_row, out=np.full(counts.shape, np.nan), where=of_row > 0)
    axes.imshow(np.ma.masked_invalid(shares), cmap=colormaps["cividis"], vmin=0, vmax=1, aspect="auto")
    for (voted, guessed), share in np.ndenumerate(shares):
        if not np.isnan(share):
            ink = "#111111" if share > 0.45 else "#fefefe"
            axes.text(guessed, voted, f"{100 * share:.0f}", ha="center", va="center", color=ink, fontsize=style.SMALL)
    for voted, number in enumerate(of_row[:, 0]):
        axes.text(len(counts) - 0.4, voted, f"{int(number):,}", ha="left", va="center", color=INK, fontsize=style.SMALL)
    axes.tick_params(length=0)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_violation(tree: Tree, width: float, table: np.ndarray) -> Figure:
    """Median, 95 % quantile and largest distance from the tree's sums, per question: (questions, 3)."""
    with style.used():
        figure = style.figure(width, max(3.4 + 0.24 * (len(tree.questions) - 11), 1.6))
        axes = figure.subplots()
        places = np.arange(len(tree.questions))
        for column, (name, marker, colour) in enumerate(
            (("median", "o", PREDICTED), ("95 %", "s", VOTED), ("largest", "x", QUIET))
        ):
            axes.plot(table[:, column], places, marker, color=colour, ms=5, label=name)
        axes.hlines(places, table[:, 0], table[:, 2], color=style.GRID, zorder=0)
        axes.set_yticks(places, [style.shortened(question.called("{}  {}"), 28) for question in tree.questions])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(left=0)
        axes.set_xlabel("distance from what leads to it")
        figure.legend(loc="outside upper right", ncols=3)
    return figure


def draw_intervals(tree: Tree, width: float, held: np.ndarray, expected: np.ndarray, galaxies: np.ndarray) -> Figure:
    """The share of 90 % intervals that hold the votes, and that expected, per question.

    held, expected, galaxies: (questions,); NaN for a question without galaxies.
    """
    with style.used():
        figure = style.figure(width, max(3.4 + 0.24 * (len(tree.questions) - 11), 1.6))
        axes = figure.subplots()
        places = np.arange(len(tree.questions))
        axes.axvline(0.9, color=style.GRID, linewidth=3, zorder=0)
        axes.plot(expected, places, "|", color=INK, ms=12, mew=1.6, label="expected")
        axes.plot(held, places, "o", color=PREDICTED, ms=5, label="measured")
        titles = [style.shortened(question.called("{}  {}"), 28) for question in tree.questions]
        axes.set_yticks(places, [f"{title} ({int(number):,})" for title, number in zip(titles, galaxies, strict=True)])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(min(0.5, 0.95 * float(np.nanmin([*held, *expected, 1]))), 1.005)
        axes.set_xlabel("share of intervals that hold", loc="right" if style.is_narrow(width) else "center")
        figure.legend(loc="outside upper right", ncols=2)
    return figure


def draw_boxes(tree: Tree, width: float, label: str, quantiles: np.ndarray, colour: str = VOTED) -> Figure:
    """Box plots of all columns: quantiles (5, n) at 5, 25, 50, 75 and 95 %, in `colour`, over an axis with this label."""

    def draw(axes: Axes, question: Question) -> None:
        low, first, median, third, high = quantiles[:, question.columns]
        places = np.arange(len(question.answers))
        axes.hlines(places, low, high, color=QUIET, linewidth=1)
        axes.barh(places, third - first, 0.5, left=first, color=colour, alpha=0.75)
        axes.vlines(median, places - 0.32, places + 0.32, color=INK, linewidth=1.6)
        axes.set_xlim(-0.02, 1.02)

    return style.by_answer(tree, width, draw, label)


def draw_split_differences(tree: Tree, width: float, differences: Mapping[str, np.ndarray], limit: float) -> Figure:
    """Difference of each split's column means (n,) from those of train, in standard errors: one mark per split."""
    marks = ("o", "s", "^")
    finite = np.concatenate([values[np.isfinite(values)] for values in differences.values()])
    widest = max(limit, float(np.abs(finite).max(initial=0)))

    def draw(axes: Axes, question: Question) -> None:
        places = np.arange(len(question.answers))
        axes.axvspan(-limit, limit, color=style.GRID, zorder=0)
        for (split, values), marker, colour in zip(differences.items(), marks, (PREDICTED, VOTED, INK), strict=False):
            axes.plot(values[question.columns], places, marker, color=colour, ms=4, label=split)
        axes.set_xlim(-1.1 * widest, 1.1 * widest)

    return style.by_answer(tree, width, draw, "difference from train (standard errors)", legend=True)


def draw_histograms(width: float, panels: Sequence[tuple[str, np.ndarray, tuple[float, float]]]) -> Figure:
    """One histogram per panel: (axis label, values, two quantiles to mark)."""
    with style.used():
        narrow = style.is_narrow(width)
        figure = style.figure(width, 2.3 * len(panels) if narrow else 2.8)
        grid = figure.subplots(*((len(panels), 1) if narrow else (1, len(panels))), squeeze=False)
        for axes, (label, values, marks) in zip(grid.flat, panels, strict=True):
            axes.hist(values, bins=40, color=VOTED, alpha=0.85)
            for mark in marks:
                axes.axvline(mark, color=INK, linewidth=1, linestyle=":")
            axes.set_xlabel(label)
        grid.flat[0].set_ylabel("galaxies")
    return figure
