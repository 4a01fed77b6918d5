"""The galaxies of a dataset that have votes, for `trainer explore`."""

from dataclasses import dataclass

import numpy as np

from tfrecords.dataset import SPLITS, Dataset
from tfrecords.errors import DatasetError
from trainer.analysis.galleries import Candidates


@dataclass(frozen=True)
class LabelledGalaxies:
    """The labelled galaxies of a dataset: `split` (n,) indexes `splits`, galaxy_ids (n,), voted float32 (n, 37)."""

    dataset: Dataset
    splits: tuple[str, ...]
    split: np.ndarray
    galaxy_ids: np.ndarray
    voted: np.ndarray

    def voted_in(self, split: str) -> np.ndarray:
        """The votes of a split."""
        return self.voted[self.split == self.splits.index(split)]

    @property
    def candidates(self) -> Candidates:
        return Candidates(self.dataset, self.splits, self.galaxy_ids, self.voted)


def labelled_galaxies(dataset: Dataset) -> LabelledGalaxies:
    """The galaxies of all splits with votes, by GalaxyID. Raises DatasetError if there are none."""
    from tfrecords.reader import votes_of

    splits = tuple(split for split in SPLITS if split != "unlabelled" and dataset.galaxies(split))
    if not splits:
        raise DatasetError(f"{dataset.folder}: has no galaxies with votes: preprocess images together with their votes")
    parts = [votes_of(dataset, split) for split in splits]
    split = np.repeat(np.arange(len(splits)), [len(ids) for ids, _ in parts])
    ids, voted = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(ids, kind="stable")
    return LabelledGalaxies(dataset, splits, split[order], ids[order], voted[order])
