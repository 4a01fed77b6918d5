"""The plan, in pure functions: which galaxy goes to which split and shard, and in which order.

Everything follows from SHA-256 of seed and GalaxyID, so adding galaxies never moves one to another split. A source
that is already split keeps its splits.
"""

import hashlib
import itertools
from dataclasses import dataclass

import numpy as np

from tfrecords.dataset import SPLITS, shard_name
from tfrecords.errors import require_setting


@dataclass(frozen=True)
class PlanSettings:
    """Fractions of the labelled galaxies in 0..1, at most 1 together; `limit`: number of galaxies to use, 0 for all."""

    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    seed: int = 0
    examples_per_shard: int = 2048
    limit: int = 0

    def __post_init__(self) -> None:
        for name in ("validation_fraction", "test_fraction"):
            require_setting(0 <= getattr(self, name) <= 1, name, getattr(self, name), "from 0 to 1")
        require_setting(self.examples_per_shard >= 1, "examples_per_shard", self.examples_per_shard, "at least 1")
        require_setting(self.limit >= 0, "limit", self.limit, "at least 0 (all)")


@dataclass(frozen=True)
class Galaxies:
    """The input of a plan, one row per galaxy: `ids` int64, `labelled` bool, `kept` int8.

    kept: the split (row of SPLITS) that the galaxy's folder gives it, -1 if the hash decides.
    """

    ids: np.ndarray
    labelled: np.ndarray
    kept: np.ndarray


@dataclass(frozen=True)
class ShardPlan:
    """One shard: `rows` of the galaxies, int64, in the order in which they are written."""

    name: str
    split: str
    rows: np.ndarray


def _keys(text: str, ids: np.ndarray) -> np.ndarray:
    """First 8 bytes of sha256("TEXT:GalaxyID") of each galaxy as uint64, big-endian."""
    prefix = hashlib.sha256(f"{text}:".encode("ascii"))

    def key(galaxy_id: int) -> int:
        digest = prefix.copy()
        digest.update(b"%d" % galaxy_id)
        return int.from_bytes(digest.digest()[:8], "big")

    return np.fromiter((key(galaxy_id) for galaxy_id in ids.tolist()), np.uint64, len(ids))


def _in_order(text: str, ids: np.ndarray) -> np.ndarray:
    """The rows of `ids` in the order of their keys, or of their ids for equal keys."""
    return np.lexsort((ids, _keys(text, ids)))


def splits_of(ids: np.ndarray, settings: PlanSettings) -> np.ndarray:
    """The split of each labelled galaxy as its row of SPLITS, int8.

    u = the first 8 bytes of sha256("SEED:GalaxyID") as a fraction of 2^64; test below test_fraction, then
    validation below test_fraction + validation_fraction, else train.
    """
    u = _keys(str(settings.seed), ids) / 2**64
    bounds = (u < settings.test_fraction, u < settings.test_fraction + settings.validation_fraction)
    return np.select(bounds, (SPLITS.index("test"), SPLITS.index("validation")), SPLITS.index("train")).astype(np.int8)


def _chosen(galaxies: Galaxies, settings: PlanSettings) -> np.ndarray:
    """All rows; with a limit N, those of smallest sha256("limit:SEED:GalaxyID"), of labelled galaxies if there are any."""
    rows = np.arange(len(galaxies.ids))
    if not settings.limit:
        return rows
    pool = rows[galaxies.labelled] if galaxies.labelled.any() else rows
    order = _in_order(f"limit:{settings.seed}", galaxies.ids[pool])
    return pool[order[: settings.limit]]


def planned_rows(shards: list[ShardPlan]) -> np.ndarray:
    """The rows of all galaxies that are in a shard, ascending."""
    return np.sort(np.concatenate([shard.rows for shard in shards]))


def make(galaxies: Galaxies, settings: PlanSettings) -> list[ShardPlan]:
    """The shards of a dataset in the order of SPLITS.

    A split is shuffled by sha256("order:SEED:GalaxyID") and divided into shards of nearly equal length.
    """
    rows = _chosen(galaxies, settings)
    split = np.where(galaxies.labelled[rows], galaxies.kept[rows], SPLITS.index("unlabelled")).astype(np.int8)
    hashed = split < 0
    split[hashed] = splits_of(galaxies.ids[rows[hashed]], settings)
    shards: list[ShardPlan] = []
    for index, name in enumerate(SPLITS):
        members = rows[split == index]
        members = members[_in_order(f"order:{settings.seed}", galaxies.ids[members])]
        count = -(-len(members) // settings.examples_per_shard)
        cuts = itertools.pairwise(len(members) * cut // count for cut in range(count + 1)) if count else ()
        shards += [ShardPlan(shard_name(name, i, count), name, members[start:stop]) for i, (start, stop) in enumerate(cuts)]
    return shards
