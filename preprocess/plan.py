"""Pure: which galaxy goes to which split and shard, in which order.

Everything follows from SHA-256 of seed and GalaxyID, so adding galaxies never moves one to another split.
"""

import hashlib
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tfrecords.dataset import SPLITS, shard_name


@dataclass(frozen=True)
class PlanSettings:
    """Fractions of the labelled galaxies in 0..1, at most 1 together; `limit`: 0 takes all galaxies."""

    validation_fraction: float
    test_fraction: float
    seed: int
    examples_per_shard: int
    limit: int


@dataclass(frozen=True)
class ShardPlan:
    """The galaxies of one shard in the order in which they are written."""

    name: str
    split: str
    galaxy_ids: tuple[int, ...]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("ascii")).digest()


def split_of(galaxy_id: int, settings: PlanSettings) -> str:
    """The split of a labelled galaxy.

    u = the first 8 bytes of sha256("SEED:GalaxyID") as a fraction of 2^64; test below test_fraction, then
    validation below test_fraction + validation_fraction, else train.
    """
    u = int.from_bytes(_digest(f"{settings.seed}:{galaxy_id}")[:8], "big") / 2**64
    if u < settings.test_fraction:
        return "test"
    return "validation" if u < settings.test_fraction + settings.validation_fraction else "train"


def choose(galaxy_ids: Collection[int], labelled: Collection[int], settings: PlanSettings) -> list[int]:
    """All galaxies, or with a limit N those of smallest sha256("limit:SEED:GalaxyID"), labelled ones if there are any."""
    if not settings.limit:
        return list(galaxy_ids)
    pool = [galaxy_id for galaxy_id in galaxy_ids if galaxy_id in labelled] or list(galaxy_ids)
    return sorted(pool, key=lambda galaxy_id: _digest(f"limit:{settings.seed}:{galaxy_id}"))[: settings.limit]


def _shards(split: str, galaxy_ids: Sequence[int], settings: PlanSettings) -> list[ShardPlan]:
    """Shuffle a split by sha256("order:SEED:GalaxyID") and cut it into shards of nearly equal length."""
    ordered = sorted(galaxy_ids, key=lambda galaxy_id: _digest(f"order:{settings.seed}:{galaxy_id}"))
    count = -(-len(ordered) // settings.examples_per_shard)
    cuts = [len(ordered) * index // count for index in range(count + 1)] if count else [0]
    return [
        ShardPlan(shard_name(split, index, count), split, tuple(ordered[start:stop]))
        for index, (start, stop) in enumerate(itertools.pairwise(cuts))
    ]


def make(galaxy_ids: Collection[int], labelled: Collection[int], settings: PlanSettings) -> list[ShardPlan]:
    """The shards of a dataset in the order of SPLITS. `labelled`: the galaxies with votes (a set or a dict's keys)."""
    members: Mapping[str, list[int]] = {split: [] for split in SPLITS}
    for galaxy_id in choose(galaxy_ids, labelled, settings):
        members[split_of(galaxy_id, settings) if galaxy_id in labelled else "unlabelled"].append(galaxy_id)
    return [shard for split in SPLITS for shard in _shards(split, members[split], settings)]
