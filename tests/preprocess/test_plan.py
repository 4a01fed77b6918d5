"""Each galaxy goes to one place, by its own hash, whatever the other galaxies are."""

import hashlib
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess import plan
from preprocess.plan import PlanSettings
from tfrecords.dataset import SPLITS

IDS = st.sets(st.integers(0, 2**63 - 1), max_size=60)
FRACTIONS = st.sampled_from([0, 0.1, 0.25, 0.5])
SETTINGS = st.builds(
    lambda validation, test, seed, size, limit: PlanSettings(validation, test * (1 - validation), seed, size, limit),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(-5, 10**12),
    st.integers(1, 70),
    st.integers(0, 70),
)


def _settings(**changes: float) -> PlanSettings:
    values = {"validation_fraction": 0.1, "test_fraction": 0.1, "seed": 0, "examples_per_shard": 2048, "limit": 0, **changes}
    return PlanSettings(**values)  # type: ignore[arg-type]


def _place(shards: list[plan.ShardPlan]) -> dict[int, str]:
    return {galaxy_id: shard.split for shard in shards for galaxy_id in shard.galaxy_ids}


@given(st.integers(0, 2**63 - 1), st.integers(0, 1000), FRACTIONS, FRACTIONS)
def test_the_split_is_the_hash_of_seed_and_galaxy_as_a_fraction(
    galaxy_id: int, seed: int, validation: float, test: float
) -> None:
    hexadecimal = hashlib.sha256(f"{seed}:{galaxy_id}".encode()).hexdigest()[:16]
    u = Fraction(int(hexadecimal, 16), 2**64)
    expected = "test" if u < test else "validation" if u < Fraction(test) + Fraction(validation) else "train"
    got = plan.split_of(galaxy_id, _settings(seed=seed, validation_fraction=validation, test_fraction=test))
    assert got == expected


def test_the_split_of_known_galaxies_never_changes() -> None:
    # u = 0.074, 0.604, 0.338, 0.153: worked out once from sha256("0:GalaxyID"). A change would mix test into train.
    expected = {100008: "test", 100023: "train", 100053: "train", 100113: "validation"}
    assert {galaxy_id: plan.split_of(galaxy_id, _settings()) for galaxy_id in expected} == expected


def test_the_fractions_are_met_on_the_whole() -> None:
    counts = Counter(plan.split_of(galaxy_id, _settings(test_fraction=0.3)) for galaxy_id in range(20_000))
    assert abs(counts["test"] / 20_000 - 0.3) < 0.015
    assert abs(counts["validation"] / 20_000 - 0.1) < 0.01


@given(IDS, IDS, SETTINGS)
def test_every_galaxy_is_planned_exactly_once(labelled: set[int], others: set[int], settings: PlanSettings) -> None:
    galaxy_ids = labelled | others
    shards = plan.make(galaxy_ids, labelled, settings)
    planned = [galaxy_id for shard in shards for galaxy_id in shard.galaxy_ids]
    assert len(planned) == len(set(planned))
    if not settings.limit:
        assert set(planned) == galaxy_ids
    else:
        pool = labelled or galaxy_ids
        assert set(planned) <= pool
        assert len(planned) == min(settings.limit, len(pool))
    for galaxy_id, split in _place(shards).items():
        assert split == (plan.split_of(galaxy_id, settings) if galaxy_id in labelled else "unlabelled")


@given(IDS, IDS, SETTINGS)
def test_shards_are_nearly_equal_and_none_is_too_long_or_empty(
    labelled: set[int], others: set[int], settings: PlanSettings
) -> None:
    shards = plan.make(labelled | others, labelled, settings)
    assert [shard.split for shard in shards] == sorted((shard.split for shard in shards), key=SPLITS.index)
    for split in SPLITS:
        sizes = [len(shard.galaxy_ids) for shard in shards if shard.split == split]
        if not sizes:
            continue
        assert min(sizes) >= 1 and max(sizes) <= min(settings.examples_per_shard, min(sizes) + 1)
        assert len(sizes) == -(-sum(sizes) // settings.examples_per_shard)
        names = [shard.name for shard in shards if shard.split == split]
        assert names == [f"galaxy_zoo-{split}.tfrecord-{i:05d}-of-{len(sizes):05d}" for i in range(len(sizes))]


@given(IDS, IDS, IDS, SETTINGS)
def test_adding_galaxies_moves_none(labelled: set[int], others: set[int], new: set[int], settings: PlanSettings) -> None:
    settings = PlanSettings(settings.validation_fraction, settings.test_fraction, settings.seed, settings.examples_per_shard, 0)
    before = _place(plan.make(labelled | others, labelled, settings))
    after = _place(plan.make(labelled | others | new, labelled | (new - others), settings))
    assert {galaxy_id: after[galaxy_id] for galaxy_id in before} == before


@given(IDS, SETTINGS)
def test_the_plan_does_not_depend_on_the_order_of_the_galaxies(labelled: set[int], settings: PlanSettings) -> None:
    ordered = sorted(labelled)
    assert plan.make(ordered, ordered, settings) == plan.make(ordered[::-1], set(labelled), settings)


@given(st.integers(1, 40))
def test_a_larger_limit_keeps_the_galaxies_of_a_smaller_one(limit: int) -> None:
    ids = range(50)
    smaller = plan.choose(ids, ids, _settings(limit=limit))
    assert smaller == plan.choose(ids, ids, _settings(limit=limit + 10))[:limit]
    by_hash = sorted(ids, key=lambda galaxy_id: hashlib.sha256(f"limit:0:{galaxy_id}".encode()).hexdigest())
    assert smaller == by_hash[:limit]


def test_a_limit_takes_galaxies_without_votes_only_where_none_has_votes() -> None:
    assert set(plan.choose(range(10), {1, 2, 3}, _settings(limit=8))) == {1, 2, 3}
    assert len(plan.choose(range(10), set(), _settings(limit=8))) == 8
    assert {shard.split for shard in plan.make(range(10), set(), _settings(limit=8))} == {"unlabelled"}


def test_the_order_is_a_shuffle_by_the_seed() -> None:
    def order(seed: int) -> tuple[int, ...]:
        (shard,) = plan.make(range(500), set(), _settings(seed=seed))
        return shard.galaxy_ids

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2)) == list(range(500)) != list(order(1))
    assert list(order(1)) == sorted(range(500), key=lambda number: hashlib.sha256(f"order:1:{number}".encode()).digest())
    # A shuffle over the whole split: each shard holds galaxies of the whole range.
    shards = plan.make(range(500), set(), _settings(examples_per_shard=100))
    assert all(min(shard.galaxy_ids) < 50 and max(shard.galaxy_ids) > 450 for shard in shards)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_fraction_of_nothing_leaves_the_split_out(split: str) -> None:
    shards = plan.make(range(200), range(200), _settings(**{f"{split}_fraction": 0}))
    assert split not in {shard.split for shard in shards}
    everything = {"validation_fraction": 0, "test_fraction": 0, f"{split}_fraction": 1}
    assert {shard.split for shard in plan.make(range(200), range(200), _settings(**everything))} == {split}
