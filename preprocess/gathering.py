"""Gather the votes of a table that is read in parts: in arrays of their own width, and checked as if read at once."""

from array import array
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from preprocess.votes import Fractions, Oddity, Refusal


def _named(oddity: Oddity, ids: np.ndarray) -> Oddity:
    """An oddity of rows as one of galaxies. ids: of all rows."""
    return replace(oddity, first=tuple(ids[[*oddity.first]].tolist()))


class Gathered:
    """The votes of rows that come in parts. Only rows with votes are kept: float32, in buffers that grow in place.

    read: from row numbers and values to votes, as `Columns.fractions` with `assume` and `judged`. A part that is refused is
    remembered, since an earlier check may refuse a later part, and the message names galaxies of all parts.
    """

    def __init__(self, read: Callable[[np.ndarray, np.ndarray], Fractions]) -> None:
        self._read = read
        self.refusal: Refusal | None = None
        self.rows = 0
        self._targets, self._asked, self._empty = array("f"), array("f"), array("b")
        self._oddities: dict[int, Oddity] = {}
        self._counted = self._assumed = self._unknown = False

    def add(self, values: np.ndarray) -> None:
        """The next rows: their values, as `Columns.fractions` takes them."""
        rows = np.arange(self.rows, self.rows + len(values))
        self.rows += len(values)
        try:
            fractions = self._read(rows, values)
        except Refusal as refusal:
            self.refusal = refusal if self.refusal is None else self.refusal.joined(refusal)
            self._targets, self._asked = array("f"), array("f")  # they are not needed any more
            return
        if self.refusal is not None:
            return
        for odd in fractions.oddities:
            self._oddities[odd.place] = self._oddities[odd.place].joined(odd) if odd.place in self._oddities else odd
        voted = ~fractions.empty
        self._empty.frombytes(fractions.empty.astype(np.int8).tobytes())
        self._targets.frombytes(fractions.targets[voted].astype(np.float32).tobytes())
        if fractions.asked is not None:
            self._asked.frombytes(fractions.asked[voted].astype(np.float32).tobytes())
            self._counted, self._assumed = not fractions.estimated, fractions.estimated
        self._unknown |= fractions.unknown

    @property
    def empty(self) -> np.ndarray:
        """Rows on which nobody voted, bool (rows,)."""
        return np.frombuffer(self._empty, np.int8).astype(bool)

    @property
    def targets(self) -> np.ndarray:
        """The votes of the other rows, float32 (voted rows, answers)."""
        return self._by_row(self._targets)

    @property
    def asked(self) -> np.ndarray | None:
        """How many answered each question, float32 (voted rows, questions). None if the table does not need it."""
        return self._by_row(self._asked) if self._counted or self.estimated else None

    @property
    def estimated(self) -> bool:
        """Whether `asked` follows from an assumed number of volunteers."""
        return self._assumed and self._unknown

    def _by_row(self, numbers: "array[float]") -> np.ndarray:
        voted = int((~self.empty).sum())
        return np.frombuffer(numbers, np.float32).reshape(voted, -1 if voted else 0)

    def warnings(self, ids: np.ndarray) -> list[str]:
        """A sentence for each oddity, in the order of the checks. ids: of all rows."""
        return [str(_named(self._oddities[place], ids)) for place in sorted(self._oddities)]

    def refusal_of(self, ids: np.ndarray) -> Refusal | None:
        """The first check that refuses rows, with the galaxies of all parts. ids: of all rows."""
        if self.refusal is None:
            return None
        refusal = self.refusal
        return Refusal(refusal.place, _named(refusal.fault, ids), refusal.late, refusal.above)
