"""The charts show the numbers they are given."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from tfrecords.builtin import builtin_tree
from trainer.analysis import figures, style
from trainer.history import Epoch

TREE = builtin_tree()


def test_the_figure_of_the_history_marks_the_kept_epoch() -> None:
    epochs = [Epoch(number, 0.3, mse, 1e-5, 1.0, 1.0) for number, mse in enumerate([0.2, 0.1, 0.15], 1)]
    (axes,) = figures.draw_history(9.6, epochs).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["validation"].get_ydata()) == [0.2, 0.1, 0.15]
    assert list(lines["kept: epoch 2"].get_xdata()) == [2]
    without = [replace(row, val_mse=np.nan) for row in epochs]
    assert [line.get_label() for line in figures.draw_history(3.8, without).axes[0].lines] == [
        "train (while learning, with dropout)"
    ]


def test_the_ladder_stands_in_order_and_tells_published_scores_from_measured_ones() -> None:
    rungs = [figures.Rung("all zeros", 0.28), figures.Rung("ours", 0.1), figures.Rung("theirs", 0.2, published=True)]
    figure = figures.draw_ladder(9.6, rungs, "ours", (0.09, 0.11))
    bars = [bar for bar in figure.axes[0].patches if bar.get_width()]
    assert [bar.get_width() for bar in bars] == [0.28, 0.2, 0.1]
    assert [bar.get_facecolor()[3] for bar in bars] == [1, 0, 1]  # only the published one is open
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert {"ours", "all zeros", "0.1000", "0.2800", "0.2000  other test set"} <= set(texts)


@pytest.mark.parametrize("width", [9.6, 3.8])
def test_the_bars_of_an_answer_are_its_rmse(width: float) -> None:
    rmse = np.linspace(0.1, 0.3, 37)
    intervals = np.stack([rmse - 0.01, rmse + 0.01], axis=1)
    bars = [
        bar.get_width()
        for axes in figures.draw_per_class(TREE, width, rmse, intervals, 2 * rmse, 9).axes
        for bar in axes.patches
    ]
    expected = [value for q in TREE.questions for value in (*2 * rmse[q.columns], *rmse[q.columns])]
    np.testing.assert_allclose(bars, expected)
    assert sum(len(axes.patches) for axes in figures.draw_per_class(TREE, width, rmse, intervals, None, 9).axes) == 37


def test_bins_of_few_galaxies_are_grey() -> None:
    bins = np.zeros((11, 10, 2))
    bins[..., 0], bins[..., 1] = 0.5, [19, 20] * 5
    axes = figures.draw_agreement(TREE, 9.6, bins).axes[0]
    colours = (style.PREDICTED, style.QUIET)
    heights = [[bar.get_height() for bar in axes.patches if to_hex(bar.get_facecolor()) == colour] for colour in colours]
    assert [[height for height in part if height] for part in heights] == [[0.5] * 5] * 2
