"""Draw figures: numbers and cutouts in, matplotlib figures out. No files, no state."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfrecords.taxonomy import COLUMN_INDEX, COLUMNS, QUESTIONS, describe
from trainer.run import Epoch, best_epoch

PREDICTED, VOTED, QUIET = "#2a6f97", "#e07a5f", "#9aa5b1"
# Published on other test sets (the challenge's; the article's own), so they stand beside our scores only as marks.
PUBLISHED = (("central pixel (Kaggle)", 0.1619), ("the article", 0.0970), ("Kaggle 2014, 1st", 0.0749))


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _axes(figure: Figure) -> Axes:
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return axes


def _columns_axis(axes: Axes) -> None:
    """37 column names under the axis, with a line between questions."""
    axes.set_xticks(range(len(COLUMNS)), [name.removeprefix("Class") for name in COLUMNS], rotation=90, fontsize=8)
    axes.set_xlim(-0.7, len(COLUMNS) - 0.3)
    for question in QUESTIONS[1:]:
        axes.axvline(question.start - 0.5, color="#d8dde2", linewidth=0.8, zorder=0)
    axes.set_xlabel("column (question.answer)")


def history(epochs: Sequence[Epoch]) -> Figure:
    """MSE per epoch on train and validation, the kept epoch marked."""
    figure = _figure(8, 4)
    axes = _axes(figure)
    numbers = [row.epoch for row in epochs]
    axes.plot(numbers, [row.mse for row in epochs], "o-", color=QUIET, label="train (while learning, with dropout)", ms=4)
    best = best_epoch(epochs)
    if not np.isnan(best.val_mse):
        axes.plot(numbers, [row.val_mse for row in epochs], "o-", color=PREDICTED, label="validation", ms=4)
        axes.plot([best.epoch], [best.val_mse], "o", ms=12, mfc="none", color=VOTED, label=f"kept: epoch {best.epoch}")
    axes.set_xlabel("epoch")
    axes.set_ylabel("mean squared error")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#eceff2")
    axes.legend(frameon=False)
    return figure


def scores(rmse: float, interval: tuple[float, float], baselines: dict[str, float]) -> Figure:
    """This model's RMSE beside the baselines on the same galaxies, and published ones marked as another test set."""
    names = {"zeros": "all zeros", "train_mean": "column means of train"}
    rows = [(names[name], value, QUIET, "") for name, value in baselines.items()]
    rows.append(("this model", rmse, PREDICTED, ""))
    rows += [(name, value, "none", " (other test set)") for name, value in PUBLISHED]
    figure = _figure(8, 3.2)
    axes = _axes(figure)
    for place, (name, value, colour, note) in enumerate(rows):
        axes.barh(place, value, color=colour, edgecolor=QUIET if colour == "none" else colour, linestyle="--" if note else "-")
        end = interval[1] if name == "this model" else value
        axes.text(end + 0.006, place, f"{value:.4f}{note}", va="center", fontsize=9)
    place = len(baselines)
    axes.errorbar(rmse, place, xerr=[[rmse - interval[0]], [interval[1] - rmse]], color="black", capsize=3, linewidth=1)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max(row[1] for row in rows))
    axes.set_xlabel("RMSE (less is better)")
    return figure


def per_class(model_mse: np.ndarray, mean_mse: np.ndarray | None) -> Figure:
    """RMSE per column, the column means of train behind it."""
    figure = _figure(11, 3.8)
    axes = _axes(figure)
    places = np.arange(len(COLUMNS))
    if mean_mse is not None:
        axes.bar(places, np.sqrt(mean_mse), 0.8, color="#dfe4e8", label="column means of train")
    axes.bar(places, np.sqrt(model_mse), 0.5, color=PREDICTED, label="this model")
    _columns_axis(axes)
    axes.set_ylabel("RMSE")
    axes.legend(frameon=False)
    return figure


def maximum_agreement(predicted: np.ndarray, targets: np.ndarray) -> Figure:
    """The largest value of each column, predicted beside voted."""
    figure = _figure(11, 3.8)
    axes = _axes(figure)
    places = np.arange(len(COLUMNS))
    axes.bar(places - 0.2, targets.max(axis=0), 0.4, color=VOTED, label="votes")
    axes.bar(places + 0.2, predicted.max(axis=0), 0.4, color=PREDICTED, label="predicted")
    _columns_axis(axes)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("maximum agreement")
    axes.legend(frameon=False, loc="upper right", ncols=2)
    return figure


def error_against_mean(mse: np.ndarray, targets: np.ndarray) -> Figure:
    """MSE per column over the column's mean, the ten largest named."""
    figure = _figure(8, 4.2)
    axes = _axes(figure)
    means = targets.mean(axis=0)
    axes.scatter(means, mse, color=PREDICTED, s=28, label="this model")
    axes.scatter(means, targets.var(axis=0), color=QUIET, s=18, marker="_", label="variance of the votes")
    for column in np.argsort(mse)[-10:]:
        name = COLUMNS[column].removeprefix("Class")
        axes.annotate(name, (means[column], mse[column]), xytext=(0, 5), textcoords="offset points", fontsize=8, ha="center")
    axes.set_xlabel("mean vote fraction of the column")
    axes.set_ylabel("mean squared error")
    axes.set_ylim(bottom=0)
    axes.set_xlim(-0.02, 1)
    axes.legend(frameon=False)
    return figure


def predicted_against_voted(predicted: np.ndarray, targets: np.ndarray, columns: Sequence[str]) -> Figure:
    """One panel per column: each galaxy's prediction over its votes."""
    figure = _figure(11, 11 / len(columns) + 0.9)
    panels = figure.subplots(1, len(columns), sharex=True, sharey=True)
    for axes, name in zip(np.atleast_1d(panels), columns, strict=True):
        column = COLUMN_INDEX[name]
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, zorder=0)
        axes.scatter(targets[:, column], predicted[:, column], s=9, alpha=0.35, color=PREDICTED, linewidths=0)
        axes.set_title(f"{name}\n{describe(column)}", fontsize=9)
        axes.set_aspect("equal")
        axes.set_xlabel("votes")
    np.atleast_1d(panels)[0].set_ylabel("predicted")
    return figure


def gallery(rows: Sequence[tuple[str, Sequence[tuple[np.ndarray, str]]]], columns: int) -> Figure:
    """Cutouts in titled rows of `columns`: (title, [(uint8 image, caption), ...])."""
    figure = _figure(11, len(rows) * (11 / columns + 0.7))
    figure.set_layout_engine("constrained", h_pad=0.1)
    parts = figure.subfigures(len(rows), 1, squeeze=False)
    for part, (title, cells) in zip(parts[:, 0], rows, strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        grid = np.atleast_1d(part.subplots(1, columns))
        for axes in grid:
            axes.axis("off")
        for axes, (image, caption) in zip(grid, cells, strict=False):
            axes.imshow(image, interpolation="bicubic")
            axes.set_title(caption, fontsize=8)
    return figure
