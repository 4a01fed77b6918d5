"""The galaxies of a dataset that have votes, for `trainer explore`."""

from dataclasses import dataclass

import numpy as np

from tfrecords.dataset import SPLITS, Dataset
from tfrecords.errors import DatasetError
from tfrecords.tree import Tree
from trainer.analysis.columns import ColumnValues
from trainer.analysis.galleries import Candidates


@dataclass(frozen=True)
class LabelledGalaxies:
    """The labelled galaxies of a dataset: `split` (galaxies,) indexes `splits`, galaxy_ids (galaxies,), voted (galaxies, n).

    asked: (galaxies, questions), how many volunteers answered each question; None without counts. names: str (galaxies,); None
    if they are numbers.
    """

    dataset: Dataset
    splits: tuple[str, ...]
    split: np.ndarray
    galaxy_ids: np.ndarray
    voted: np.ndarray
    asked: np.ndarray | None = None
    names: np.ndarray | None = None

    @property
    def tree(self) -> Tree:
        return self.dataset.tree

    @property
    def counted(self) -> np.ndarray | None:
        """Which values count: bool (galaxies, n); None: all."""
        return self.tree.counted(self.asked)

    @property
    def fractions(self) -> ColumnValues:
        return ColumnValues(self.tree, self.voted, self.asked)

    def voted_in(self, split: str) -> np.ndarray:
        """The votes of a split."""
        return self.voted[self.split == self.splits.index(split)]

    def counted_in(self, split: str) -> np.ndarray | None:
        """Which of the votes of a split count; None: all."""
        counted = self.counted
        return None if counted is None else counted[self.split == self.splits.index(split)]

    @property
    def candidates(self) -> Candidates:
        return Candidates(self.dataset, self.splits, self.galaxy_ids, self.voted, counted=self.counted, names=self.names)


def labelled_galaxies(dataset: Dataset) -> LabelledGalaxies:
    """The galaxies of all splits with votes, by GalaxyID. Raises DatasetError if there are none."""
    from tfrecords.reader import votes_of

    splits = tuple(split for split in SPLITS if split != "unlabelled" and dataset.galaxies(split))
    if not splits:
        raise DatasetError(
            f"{dataset.folder}: has no galaxies with votes: preprocess images together with their votes, or give a table of "
            "predictions with --predictions"
        )
    parts = [votes_of(dataset, split) for split in splits]
    split = np.repeat(np.arange(len(splits)), [len(part.galaxy_ids) for part in parts])
    ids, voted = (np.concatenate(column) for column in zip(*((part.galaxy_ids, part.targets) for part in parts), strict=True))
    answered = [part.asked for part in parts if part.asked is not None]
    order = np.argsort(ids, kind="stable")
    asked = np.concatenate(answered)[order] if answered else None
    named = [part.names for part in parts if part.names is not None]
    names = np.concatenate(named)[order] if named else None
    return LabelledGalaxies(dataset, splits, split[order], ids[order], voted[order], asked, names)
