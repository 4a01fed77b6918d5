"""Each galaxy goes to one place, by its own hash, whatever the other galaxies are."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess import plan
from preprocess.plan import Galaxies, PlanSettings, ShardPlan
from tfrecords.dataset import SPLITS

IDS = st.sets(st.integers(0, 2**63 - 1), max_size=60)
KEPT = st.dictionaries(st.integers(0, 2**63 - 1), st.sampled_from(["train", "validation", "test"]), max_size=60)
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


def _galaxies(ids: Iterable[int], labelled: Iterable[int], kept: Mapping[int, str] | None = None) -> Galaxies:
    """Galaxies in the order of `ids`; `kept`: the split of those whose folder gives them one."""
    order, votes, kept = [*ids], {*labelled}, kept or {}
    splits = [SPLITS.index(kept[galaxy_id]) if galaxy_id in kept else -1 for galaxy_id in order]
    return Galaxies(
        np.array(order, np.int64), np.array([galaxy_id in votes for galaxy_id in order], bool), np.array(splits, np.int8)
    )


def _split_of(galaxy_id: int, settings: PlanSettings) -> str:
    (split,) = plan.splits_of(np.array([galaxy_id]), settings)
    return SPLITS[split]


def _shards(galaxies: Galaxies, settings: PlanSettings) -> list[tuple[str, str, list[int]]]:
    """Name, split, and the ids in their order."""
    return [(shard.name, shard.split, galaxies.ids[shard.rows].tolist()) for shard in plan.make(galaxies, settings)]


def _place(galaxies: Galaxies, settings: PlanSettings) -> dict[int, str]:
    return {galaxy_id: split for _, split, ids in _shards(galaxies, settings) for galaxy_id in ids}


def _chosen(galaxies: Galaxies, limit: int) -> set[int]:
    return {*_place(galaxies, _settings(limit=limit))}


@given(st.integers(0, 2**63 - 1), st.integers(-5, 1000), FRACTIONS, FRACTIONS)
def test_the_split_is_the_hash_of_seed_and_galaxy_as_a_fraction(
    galaxy_id: int, seed: int, validation: float, test: float
) -> None:
    hexadecimal = hashlib.sha256(f"{seed}:{galaxy_id}".encode()).hexdigest()[:16]
    u = Fraction(int(hexadecimal, 16), 2**64)
    expected = "test" if u < test else "validation" if u < Fraction(test) + Fraction(validation) else "train"
    got = _split_of(galaxy_id, _settings(seed=seed, validation_fraction=validation, test_fraction=test))
    assert got == expected


def test_the_split_of_known_galaxies_never_changes() -> None:
    # u = 0.074, 0.604, 0.338, 0.153: computed once from sha256("0:GalaxyID"). A change would mix test into train.
    expected = {100008: "test", 100023: "train", 100053: "train", 100113: "validation"}
    assert {galaxy_id: _split_of(galaxy_id, _settings()) for galaxy_id in expected} == expected
    assert _place(_galaxies(expected, expected), _settings()) == expected


@given(IDS, SETTINGS)
def test_the_splits_of_many_galaxies_are_those_of_each(ids: set[int], settings: PlanSettings) -> None:
    splits = plan.splits_of(np.array([*ids], np.int64), settings)
    assert splits.dtype == np.int8
    assert [SPLITS[split] for split in splits] == [_split_of(galaxy_id, settings) for galaxy_id in ids]


def test_the_fractions_are_met_on_the_whole() -> None:
    counts = Counter(plan.splits_of(np.arange(20_000), _settings(test_fraction=0.3)).tolist())
    assert abs(counts[SPLITS.index("test")] / 20_000 - 0.3) < 0.015
    assert abs(counts[SPLITS.index("validation")] / 20_000 - 0.1) < 0.01


@given(IDS, IDS, KEPT, SETTINGS)
def test_every_galaxy_is_planned_exactly_once(
    labelled: set[int], others: set[int], kept: dict[int, str], settings: PlanSettings
) -> None:
    galaxy_ids = labelled | others | {*kept}
    galaxies = _galaxies(galaxy_ids, labelled, kept)
    planned = [galaxy_id for _, _, ids in _shards(galaxies, settings) for galaxy_id in ids]
    assert len(planned) == len(set(planned))
    if not settings.limit:
        assert set(planned) == galaxy_ids
    else:
        pool = labelled or galaxy_ids
        assert set(planned) <= pool
        assert len(planned) == min(settings.limit, len(pool))


@given(IDS, IDS, KEPT, st.integers(0, 60), SETTINGS)
def test_a_kept_split_wins_over_the_hash_and_no_votes_over_both(
    labelled: set[int], others: set[int], kept: dict[int, str], without_votes: int, settings: PlanSettings
) -> None:
    labelled = labelled | {*sorted(kept)[without_votes:]}
    for galaxy_id, split in _place(_galaxies(labelled | others | {*kept}, labelled, kept), settings).items():
        if galaxy_id not in labelled:
            assert split == "unlabelled"
        else:
            assert split == kept.get(galaxy_id, _split_of(galaxy_id, settings))


def test_a_source_that_is_split_whole_keeps_every_split() -> None:
    kept = {galaxy_id: ("train", "validation", "test")[galaxy_id % 3] for galaxy_id in range(300)}
    assert _place(_galaxies(kept, kept, kept), _settings()) == kept
    assert _place(_galaxies(kept, kept, kept), _settings(seed=9, test_fraction=0.9)) == kept
    no_votes = {galaxy_id for galaxy_id in kept if galaxy_id % 3 == 2}
    place = _place(_galaxies(kept, set(kept) - no_votes, kept), _settings())
    assert place == kept | dict.fromkeys(no_votes, "unlabelled")


@given(IDS, IDS, KEPT, SETTINGS)
def test_shards_are_nearly_equal_and_none_is_too_long_or_empty(
    labelled: set[int], others: set[int], kept: dict[int, str], settings: PlanSettings
) -> None:
    shards = _shards(_galaxies(labelled | others | {*kept}, labelled | {*kept}, kept), settings)
    assert [split for _, split, _ in shards] == sorted((split for _, split, _ in shards), key=SPLITS.index)
    for split in SPLITS:
        sizes = [len(ids) for _, its, ids in shards if its == split]
        if not sizes:
            continue
        assert min(sizes) >= 1 and max(sizes) <= min(settings.examples_per_shard, min(sizes) + 1)
        assert len(sizes) == -(-sum(sizes) // settings.examples_per_shard)
        names = [name for name, its, _ in shards if its == split]
        assert names == [f"galaxy_zoo-{split}.tfrecord-{i:05d}-of-{len(sizes):05d}" for i in range(len(sizes))]


@given(IDS, IDS, IDS, KEPT, SETTINGS)
def test_adding_galaxies_moves_none(
    labelled: set[int], others: set[int], new: set[int], kept: dict[int, str], settings: PlanSettings
) -> None:
    settings, labelled = replace(settings, limit=0), labelled | {*kept}
    before = _place(_galaxies(labelled | others, labelled, kept), settings)
    after = _place(_galaxies(labelled | others | new, labelled | (new - others), kept), settings)
    assert {galaxy_id: after[galaxy_id] for galaxy_id in before} == before


@given(IDS, IDS, KEPT, SETTINGS)
def test_the_plan_does_not_depend_on_the_order_of_the_galaxies(
    labelled: set[int], others: set[int], kept: dict[int, str], settings: PlanSettings
) -> None:
    ordered, labelled = sorted(labelled | others | {*kept}), labelled | {*kept}
    forwards, backwards = _galaxies(ordered, labelled, kept), _galaxies(ordered[::-1], labelled, kept)
    assert _shards(forwards, settings) == _shards(backwards, settings)


@given(st.integers(1, 40))
def test_a_larger_limit_keeps_the_galaxies_of_a_smaller_one(limit: int) -> None:
    galaxies = _galaxies(range(50), range(50))
    smaller = _chosen(galaxies, limit)
    assert smaller < _chosen(galaxies, limit + 10)
    by_hash = sorted(range(50), key=lambda galaxy_id: hashlib.sha256(f"limit:0:{galaxy_id}".encode()).hexdigest())
    assert smaller == {*by_hash[:limit]}


@given(st.integers(1, 50))
def test_a_limit_leaves_the_splits_of_the_galaxies_it_takes_as_they_are(limit: int) -> None:
    kept = {galaxy_id: ("train", "validation", "test")[galaxy_id % 3] for galaxy_id in range(40)}
    galaxies = _galaxies(range(60), range(0, 60, 2), kept)
    everything, some = _place(galaxies, _settings()), _place(galaxies, _settings(limit=limit))
    assert some.items() <= everything.items()
    # The folder of a galaxy has no influence on whether it is chosen.
    assert {*some} == _chosen(_galaxies(range(60), range(0, 60, 2)), limit)


def test_a_limit_takes_galaxies_without_votes_only_where_none_has_votes() -> None:
    assert _chosen(_galaxies(range(10), {1, 2, 3}), 8) == {1, 2, 3}
    assert len(_chosen(_galaxies(range(10), ()), 8)) == 8
    assert {*_place(_galaxies(range(10), ()), _settings(limit=8)).values()} == {"unlabelled"}
    # In a training folder they still have no votes.
    assert _chosen(_galaxies(range(10), {1, 2, 3}, dict.fromkeys(range(10), "train")), 8) == {1, 2, 3}


def test_the_order_is_a_shuffle_by_the_seed() -> None:
    galaxies = _galaxies(range(500), ())

    def order(seed: int) -> list[int]:
        ((_, _, ids),) = _shards(galaxies, _settings(seed=seed))
        return ids

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2)) == list(range(500)) != order(1)
    assert order(1) == sorted(range(500), key=lambda number: hashlib.sha256(f"order:1:{number}".encode()).digest())
    # A shuffle over the whole split: each shard holds galaxies from the whole range.
    shards = _shards(galaxies, _settings(examples_per_shard=100))
    assert all(min(ids) < 50 and max(ids) > 450 for _, _, ids in shards)


def test_rows_are_positions_among_the_galaxies() -> None:
    galaxies = _galaxies([30, 10, 20], [10], {10: "test"})
    of_test, unlabelled = plan.make(galaxies, _settings())
    assert isinstance(of_test, ShardPlan) and of_test.rows.tolist() == [1]
    assert (sorted(unlabelled.rows.tolist()), unlabelled.rows.dtype) == ([0, 2], np.dtype(np.int64))


def test_no_galaxies_give_no_shards() -> None:
    assert plan.make(_galaxies((), ()), _settings()) == []
    assert plan.make(_galaxies((), ()), _settings(limit=3)) == []


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_fraction_of_nothing_leaves_the_split_out(split: str) -> None:
    galaxies = _galaxies(range(200), range(200))
    assert split not in _place(galaxies, _settings(**{f"{split}_fraction": 0})).values()
    everything = {"validation_fraction": 0, "test_fraction": 0, f"{split}_fraction": 1}
    assert {*_place(galaxies, _settings(**everything)).values()} == {split}
