"""The sums of a split's targets, from which their means follow without reading its shards."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class TargetSums:
    """For each answer: the sum of its targets, rounded once to float64, and the number of galaxies whose targets count."""

    sums: tuple[float, ...]
    counts: tuple[int, ...]

    def means(self) -> np.ndarray:
        """float64 (answers,); 0 for an answer that never counts, as in `tree.column_means`."""
        return np.array(self.sums) / np.maximum(self.counts, 1)


def target_sums(targets: np.ndarray, counted: np.ndarray | None) -> TargetSums:
    """The sums of targets, float32 (galaxies, answers), where `counted`, bool of the same shape, or of all if it is None."""
    columns = targets.T.astype(np.float64)
    if counted is None:
        return TargetSums(tuple(math.fsum(column) for column in columns), (len(targets),) * len(columns))
    parts = [column[mask] for column, mask in zip(columns, counted.T, strict=True)]
    return TargetSums(tuple(map(math.fsum, parts)), tuple(map(len, parts)))


def add_up(parts: Iterable[TargetSums]) -> TargetSums:
    """The sums of several shards, of which there is at least one."""
    of_parts = list(parts)
    sums = zip(*(part.sums for part in of_parts), strict=True)
    counts = zip(*(part.counts for part in of_parts), strict=True)
    return TargetSums(tuple(map(math.fsum, sums)), tuple(map(sum, counts)))


def parse_sums(content: Any, answers: int) -> TargetSums:
    """The sums of a split as a manifest holds them. Raises ValueError, TypeError or KeyError if they are others."""
    sums, counts = content["sums"], content["counts"]
    if not (_are(sums, float, answers) and _are(counts, int, answers) and min(counts) >= 0):
        raise ValueError("the sums of its targets are none")
    return TargetSums(tuple(sums), tuple(counts))


def _are(values: Any, kind: type[float], number: int) -> bool:
    if not isinstance(values, list) or len(values) != number:
        return False
    return all(type(value) is kind and abs(value) < math.inf for value in values)
