"""The galaxies nearest to some others, by the cosine distance of their features: exact, from blocks of any size (pure)."""

from collections.abc import Iterable, Sequence
from heapq import nsmallest

import numpy as np


def units(features: np.ndarray) -> np.ndarray:
    """Features (n, dimension) scaled to length 1, float64; those that are all zero stay zero."""
    wide = features.astype(np.float64)
    lengths = np.sqrt((wide**2).sum(axis=1, keepdims=True))
    return wide / np.where(lengths > 0, lengths, 1)


def cosine_distances(query: np.ndarray, block: np.ndarray) -> np.ndarray:
    """1 minus the cosine between a vector (dimension,) and each of some others (n, dimension), all of length 1: (n,), 0 to 2.

    Without BLAS, whose last digits depend on the number of rows: so the block that a galaxy is in makes no difference. To a
    vector of zeros the distance is 1.
    """
    return np.clip(1 - (block * query).sum(axis=1), 0, 2)


# Distance, GalaxyID, and what the galaxy is called.
Near = tuple[float, int, str]


def nearest(
    queries: np.ndarray,
    query_ids: Sequence[int],
    blocks: Iterable[tuple[np.ndarray, Sequence[str], np.ndarray]],
    count: int,
) -> list[list[Near]]:
    """For each query, the `count` nearest galaxies, nearest first; of several at the same distance, by their ids.

    queries: features (q, dimension) of the galaxies query_ids (q,), which are left out of their own lists. blocks: ids int64
    (n,), what the galaxies are called, and features (n, dimension). In memory are one block and q x count galaxies.
    """
    best: list[list[Near]] = [[] for _ in query_ids]
    vectors = units(queries)
    for ids, called, features in blocks:
        block = units(features)
        for place, (query_id, vector) in enumerate(zip(query_ids, vectors, strict=True)):
            distances = cosine_distances(vector, block)
            rows = np.lexsort((ids, distances))[: count + 1]  # one of them may be the query
            near = [(float(distances[row]), int(ids[row]), called[row]) for row in rows.tolist() if ids[row] != query_id]
            best[place] = nsmallest(count, best[place] + near)
    return best
