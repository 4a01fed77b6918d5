"""What the numbers of a table look like: whether its counts of volunteers are counts."""

import numpy as np

from tfrecords.errors import SourceError
from tfrecords.tree import Tree

# A count may exceed those that lead to it by rounding, if it was made from a fraction.
ROUNDING = 0.5
_PERCENT = 100


class Likeness:
    """Whether what should be counts of volunteers looks like fractions or percentages: judged by all rows, in parts."""

    def __init__(self, path: str, tree: Tree) -> None:
        self._path, self._tree = path, tree
        self._largest = 0.0
        self._voted = self._broken = False
        self._hundreds = True

    def add(self, values: np.ndarray) -> None:
        """Take note of some rows: float64 (rows, answers), NaN if blank."""
        counts = np.nan_to_num(values)
        self._largest = max(self._largest, float(counts.max(initial=0)))
        self._broken |= bool((counts % 1 > 0).any())
        sums = counts[:, self._tree.questions[0].columns].sum(axis=1)
        voted = sums > 0
        self._voted |= bool(voted.any())
        self._hundreds &= bool((np.abs(sums[voted] - _PERCENT) <= ROUNDING).all())

    def refuse(self) -> None:
        """Raise SourceError if they are no counts."""
        if self._broken and self._largest <= 1:
            raise SourceError(
                f"{self._path}: holds fractions, but tree {self._tree.name} expects counts of volunteers: choose other columns "
                "with --votes, or describe the table in a tree file"
            )
        if self._broken and self._voted and self._hundreds:
            raise SourceError(
                f"{self._path}: not all values are whole, and the columns of question {self._tree.questions[0].key} add up to "
                f'{_PERCENT} for all galaxies: these look like percentages: divide them by 100 and use kind = "fractions"'
            )
