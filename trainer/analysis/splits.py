"""How the splits of a dataset compare."""

import numpy as np

from tfrecords.dataset import SPLITS
from tfrecords.tree import column_means
from trainer.analysis import figures, votes
from trainer.analysis.labelled import LabelledGalaxies
from trainer.analysis.page import Chart, Section
from trainer.analysis.table import Table

# A larger difference between column means is hardly chance; with fewer than _FEWEST galaxies, skewed columns often have it.
STANDARD_ERRORS = 4.0
_FEWEST = 10


def compare_splits(labelled: LabelledGalaxies) -> Section:
    """The section on the splits: their sizes, their column means against those of train, and the sums of the tree."""
    tree = labelled.tree
    train = labelled.voted_in("train") if "train" in labelled.splits else None
    means = {split: column_means(labelled.voted_in(split), labelled.counted_in(split)) for split in labelled.splits}
    others = [split for split in labelled.splits if split != "train" and len(labelled.voted_in(split)) >= _FEWEST]
    if train is None or len(train) < _FEWEST:
        others = []
    errors = {}
    if train is not None:
        counted = labelled.counted_in("train")
        for split in others:
            of_split = labelled.counted_in(split)
            both = None if counted is None or of_split is None else (counted, of_split)
            errors[split] = votes.differing_means(train, labelled.voted_in(split), both)[1]
    flagged = [
        f"{tree.columns[column]} in {split} ({means[split][column]:.3f} against {means['train'][column]:.3f})"
        for split in others
        for column in np.flatnonzero(np.abs(errors[split]) > STANDARD_ERRORS)
    ]
    if not others:
        said = (
            "There is nothing to compare: that needs train and another split, each with at least "
            f"{_FEWEST} galaxies with votes."
        )
    elif flagged:
        said = f"More than {STANDARD_ERRORS:.0f} standard errors from train, unlikely to be chance: {'; '.join(flagged)}."
    else:
        said = f"No column mean is more than {STANDARD_ERRORS:.0f} standard errors from that in train: no sign of a difference."
    deviation = tree.deviation(labelled.voted, labelled.asked).max(axis=0)
    worst = int(np.argmax(deviation))
    sums = (
        "Each question's columns must add up to the column that leads to it; the largest violation is "
        f"{deviation[worst]:.1e}, in question {tree.questions[worst].called('{} ({})')}."
    )
    parts: list[Chart | Table] = [
        Table(
            ("split", "galaxies", "share"),
            tuple(
                (
                    split,
                    labelled.dataset.galaxies(split),
                    f"{labelled.dataset.galaxies(split) / sum(map(labelled.dataset.galaxies, SPLITS)):.1%}",
                )
                for split in SPLITS
                if labelled.dataset.galaxies(split)
            ),
        )
    ]
    if others:
        parts.append(
            Chart(
                "splits",
                f"Column means of each split: {len(flagged)} differ from train by more than {STANDARD_ERRORS:.0f} "
                "standard errors",
                "Each mark compares the mean of a column in a split with that in train. Differences within the band of "
                f"{STANDARD_ERRORS:.0f} standard errors may be chance.",
                lambda width: figures.draw_split_differences(tree, width, errors, STANDARD_ERRORS),
                Table(
                    ("split", "column", "mean", "train_mean", "difference_in_standard_errors", "flagged"),
                    tuple(
                        (
                            split,
                            name,
                            means[split][n],
                            means["train"][n],
                            errors[split][n],
                            bool(abs(errors[split][n]) > STANDARD_ERRORS),
                        )
                        for split in others
                        for n, name in enumerate(tree.columns)
                    ),
                ),
            )
        )
    return Section("splits", "The splits", (said, sums), tuple(parts))
