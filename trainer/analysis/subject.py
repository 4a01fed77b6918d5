"""The subject of a report: a measured run, with its scores, its totals, and the predictions that charts and galleries show."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tfrecords.dataset import Dataset
from tfrecords.tree import Tree
from trainer.analysis import wording
from trainer.analysis.metrics import Scores
from trainer.analysis.totals import GROUPS, Totals, totals_in_memory
from trainer.run import Run
from trainer.tables import Predictions


@dataclass(frozen=True)
class Evaluation:
    """A measured run. means: column means of train (n,), None without train. content: that of metrics.json.

    known: the totals of all galaxies, if they are known already. Of more galaxies than are kept in memory they were added up,
    and `predictions` are those of a sample.
    """

    run: Run
    dataset: Dataset
    split: str
    predictions: Predictions
    scores: Scores
    means: np.ndarray | None
    content: dict[str, Any]
    known: Totals | None = None

    @property
    def tree(self) -> Tree:
        return self.dataset.tree

    @property
    def counted(self) -> np.ndarray | None:
        """Which values of `predictions` count: bool (galaxies, n); None: all."""
        return self.tree.counted(self.predictions.asked)

    @cached_property
    def totals(self) -> Totals:
        """What is stated about all galaxies."""
        return self.known or totals_in_memory(self.predictions, self.means)

    @property
    def resampled(self) -> str:
        """What the intervals of errors resample, in words."""
        return f"{GROUPS:,} random groups of the galaxies" if self.sample else "the galaxies"

    @property
    def sample(self) -> str:
        """Which galaxies `predictions` are, in words, if they are not all."""
        shown, galaxies = len(self.predictions.galaxy_ids), self.totals.galaxies
        return f"a random sample of {shown:,} of the {wording.some_galaxies(galaxies)}" if shown < galaxies else ""

    @property
    def in_sample(self) -> str:
        """Follows the subject of a finding that is about the sample; empty without one."""
        return f" in {self.sample}" if self.sample else ""

    @property
    def drawn(self) -> str:
        """Follows a caption of what shows the sample; empty without one."""
        return f" Drawn from {self.sample}." if self.sample else ""
