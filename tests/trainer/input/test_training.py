"""Which galaxies training and evaluation get, and in which order, for every cache and number of processes."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.job import BuildSettings, build_dataset
from tfrecords import framing, schema
from tfrecords.dataset import Dataset, open_dataset
from tfrecords.errors import RunError

CACHES = ["none", "stored", "decoded"]


class Batch(NamedTuple):
    galaxies: list[int]
    images: np.ndarray
    targets: np.ndarray
    draws: np.ndarray

    def content(self) -> tuple[Any, ...]:
        """All bytes of the batch, for comparisons."""
        arrays = (self.images, self.targets, self.draws)
        return tuple((array.dtype.str, array.shape, array.tobytes()) for array in arrays)


@cache
def _stored(folder: Path, split: str) -> tuple[schema.Example, ...]:
    """The galaxies of a split as stored, read without TensorFlow."""
    paths = open_dataset(folder).paths(split)
    return tuple(schema.parse(data) for path in paths for data in framing.read_records(path))


@cache
def _places(folder: Path, split: str) -> dict[bytes, int]:
    """The place of each galaxy in a split as stored, by its votes: no two galaxies have the same."""
    stored = _stored(folder, split)
    places = {np.asarray(example.targets, np.float32).tobytes(): place for place, example in enumerate(stored)}
    assert len(places) == len(stored)
    return places


def _galaxies(dataset: Dataset, split: str, targets: np.ndarray) -> list[int]:
    """The places, in the split as stored, of the galaxies with these votes."""
    places = _places(dataset.folder, split)
    return [places[row.tobytes()] for row in targets]


def _input(dataset: Dataset, batch_size: int, seed: int = 0, process: tuple[int, int] = (1, 0), **more: Any) -> Any:
    """A TrainingInput; process: the number of processes, and which of them this is."""
    from trainer.backends.base import Share
    from trainer.input.training import TrainingInput

    return TrainingInput(dataset, batch_size, seed, share=Share(*process), **more)


def _batches(source: Any, first: int, epochs: int, skip: int = 0) -> list[Batch]:
    return [
        Batch(_galaxies(source.dataset, "train", targets), images, targets, draws)
        for images, targets, draws in source.batches(first, epochs, skip).as_numpy_iterator()
    ]


def _epochs(source: Any, first: int, last: int) -> list[list[list[int]]]:
    """What each epoch trains on: a list of batches, each a list of galaxies."""
    from trainer.input.training import steps_per_epoch

    steps, _ = steps_per_epoch(source.dataset, source.batch_size, source.limit)
    batches = [batch.galaxies for batch in _batches(source, first, last)]
    assert len(batches) == steps * (last - first)
    return [batches[start : start + steps] for start in range(0, len(batches), steps)]


def _flat(epoch: list[list[int]]) -> list[int]:
    return [galaxy for batch in epoch for galaxy in batch]


@pytest.fixture(scope="module")
def raw_dataset(
    small_survey: Path, build_settings: Callable[..., BuildSettings], tmp_path_factory: pytest.TempPathFactory
) -> Dataset:
    """The galaxies of `small_dataset` as raw pixels."""
    out = tmp_path_factory.mktemp("raw_dataset") / "data"
    return build_dataset(small_survey, out, build_settings(seed=1, encoding="raw"), workers=1).dataset


@pytest.fixture(scope="module")
def jpeg_dataset(
    small_survey: Path, build_settings: Callable[..., BuildSettings], tmp_path_factory: pytest.TempPathFactory
) -> Dataset:
    """The galaxies of `small_dataset` as JPEGs."""
    out = tmp_path_factory.mktemp("jpeg_dataset") / "data"
    return build_dataset(small_survey, out, build_settings(seed=1, encoding="jpeg"), workers=1).dataset


@pytest.fixture(params=["png", "jpeg", "raw"])
def dataset(request: pytest.FixtureRequest) -> Dataset:
    """The same galaxies in each encoding."""
    names = {"png": "small_dataset", "jpeg": "jpeg_dataset", "raw": "raw_dataset"}
    found: Dataset = request.getfixturevalue(names[request.param])
    assert found.encoding == request.param and len(found.paths("train")) >= 4
    return found


# Steps


@given(batch_size=st.integers(1, 100), limit=st.integers(0, 100))
def test_an_epoch_is_as_many_whole_batches_as_fit(small_dataset: Dataset, batch_size: int, limit: int) -> None:
    from trainer.input.training import steps_per_epoch

    galaxies = small_dataset.galaxies("train")
    used = min(galaxies, limit or galaxies)
    steps, size = steps_per_epoch(small_dataset, batch_size, limit)
    assert size == min(batch_size, used)
    assert steps >= 1 and steps * size <= used < (steps + 1) * size


@given(each=st.integers(1, 20), limit=st.integers(0, 100), replicas=st.integers(1, 50))
def test_replicas_share_every_batch_equally(small_dataset: Dataset, each: int, limit: int, replicas: int) -> None:
    from trainer.input.training import steps_per_epoch

    galaxies = small_dataset.galaxies("train")
    used = min(galaxies, limit or galaxies)
    if used < replicas:
        with pytest.raises(RunError, match="fewer galaxies than there are devices"):
            steps_per_epoch(small_dataset, each * replicas, limit, replicas)
        return
    steps, size = steps_per_epoch(small_dataset, each * replicas, limit, replicas)
    assert size % replicas == 0 and 0 < size <= each * replicas
    assert steps >= 1 and steps * size <= used < (steps + 1) * size
    if size < each * replicas:  # the split is smaller than a batch: all that can be shared equally
        assert steps == 1 and used - size < replicas


# Training: one process


@pytest.mark.slow
def test_training_gives_images_votes_and_draws_of_the_same_galaxy(dataset: Dataset) -> None:
    import tensorflow as tf

    from tfrecords import reader
    from trainer.input.augmentation import draws

    pixels = [reader.decode_example(example, dataset.encoding, 32).numpy() for example in reader.in_order(dataset, "train")]
    ids = [example.galaxy_id for example in _stored(dataset.folder, "train")]
    steps = dataset.galaxies("train") // 8
    for number, batch in enumerate(_batches(_input(dataset, 8, seed=9), 3, 5)):
        assert batch.images.shape == (8, 32, 32, 3) and batch.images.dtype == np.uint8
        assert batch.targets.shape == (8, 37) and batch.targets.dtype == np.float32
        np.testing.assert_array_equal(batch.images, [pixels[galaxy] for galaxy in batch.galaxies])
        epoch = tf.constant(3 + number // steps, tf.int64)
        np.testing.assert_array_equal(batch.draws, draws(9, epoch, [ids[galaxy] for galaxy in batch.galaxies]))


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "limit"), [(8, 0), (7, 20), (4, 9), (1000, 0), (1000, 5), (1, 0)])
def test_every_batch_is_whole_and_no_epoch_has_a_galaxy_twice(small_dataset: Dataset, batch_size: int, limit: int) -> None:
    used = limit or small_dataset.galaxies("train")
    for epoch in _epochs(_input(small_dataset, batch_size, limit=limit), 0, 3):
        assert {len(batch) for batch in epoch} == {min(batch_size, used)}
        assert len(set(_flat(epoch))) == len(_flat(epoch)) > used - min(batch_size, used)
        assert max(_flat(epoch)) < used


@pytest.mark.slow
@given(batch_size=st.integers(1, 40), limit=st.integers(1, 40), seed=st.integers(0, 2**63 - 1), kept=st.sampled_from(CACHES))
@settings(max_examples=15)
def test_no_epoch_has_a_galaxy_twice_whatever_the_settings(
    small_dataset: Dataset, batch_size: int, limit: int, seed: int, kept: str
) -> None:
    used = min(limit, small_dataset.galaxies("train"))
    (epoch,) = _epochs(_input(small_dataset, batch_size, seed, limit=limit, cache=kept), 0, 1)
    assert {len(batch) for batch in epoch} == {min(batch_size, used)}
    assert len(set(_flat(epoch))) == len(_flat(epoch)) and max(_flat(epoch)) < used


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [24, 25])
def test_the_galaxies_left_over_differ_from_epoch_to_epoch(small_dataset: Dataset, batch_size: int) -> None:
    assert small_dataset.galaxies("train") % batch_size >= 8
    epochs = _epochs(_input(small_dataset, batch_size), 0, 20)
    assert set().union(*map(_flat, epochs)) == set(range(small_dataset.galaxies("train")))


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [7, 8])
def test_the_order_follows_from_seed_and_epoch(small_dataset: Dataset, batch_size: int) -> None:
    epochs = _epochs(_input(small_dataset, batch_size, 4), 0, 3)
    assert _epochs(_input(small_dataset, batch_size, 4), 0, 3) == epochs
    others = _epochs(_input(small_dataset, batch_size, 5), 0, 3)
    assert len({tuple(_flat(epoch)) for epoch in [*epochs, *others]}) == 6


@pytest.mark.slow
@pytest.mark.parametrize("kept", CACHES)
def test_iterating_again_gives_the_same_batches(small_dataset: Dataset, kept: str) -> None:
    batches = _input(small_dataset, 8, cache=kept).batches(0, 2)
    once, again = ([targets for _, targets, _ in batches.as_numpy_iterator()] for _ in range(2))
    np.testing.assert_array_equal(once, again)


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "limit"), [(7, 0), (8, 0), (5, 22), (8, 24)])
def test_any_galaxy_may_come_in_the_first_batch(small_dataset: Dataset, batch_size: int, limit: int) -> None:
    """The shuffle spans all shards: galaxies stored last come first as often as others."""
    used = limit or small_dataset.galaxies("train")
    epochs = _epochs(_input(small_dataset, batch_size, limit=limit, cache="decoded"), 0, 80)
    assert set().union(*(epoch[0] for epoch in epochs)) == set(range(used))
    assert all(_flat(epoch) != sorted(_flat(epoch)) for epoch in epochs)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [7, 8])
def test_no_shard_is_read_as_one_block(dataset: Dataset, batch_size: int) -> None:
    shard = [index for index, one in enumerate(s for s in dataset.shards if s.split == "train") for _ in range(one.examples)]
    for epoch in _epochs(_input(dataset, batch_size), 0, 4):
        order = [shard[galaxy] for galaxy in _flat(epoch)]
        changes = sum(one != other for one, other in pairwise(order))
        assert changes > 2 * len(set(shard))


@pytest.mark.slow
@pytest.mark.parametrize("kept", CACHES)
@pytest.mark.parametrize("batch_size", [6, 7])
def test_a_shuffle_buffer_below_the_split_loses_no_galaxy_and_takes_the_pieces_in_a_new_order(
    small_dataset: Dataset, kept: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.input import training

    monkeypatch.setattr(training, "SHUFFLE_RECORDS", 4)
    galaxies = small_dataset.galaxies("train")
    epochs = _epochs(_input(small_dataset, batch_size, cache=kept), 0, 4)
    assert epochs == _epochs(_input(small_dataset, batch_size), 0, 4)
    assert all(len(set(_flat(epoch))) == galaxies // batch_size * batch_size for epoch in epochs)
    assert len({tuple(_flat(epoch)) for epoch in epochs}) == 4
    assert len({epoch[0][0] for epoch in epochs}) > 1


@given(batch_size=st.integers(1, 64), records=st.integers(8, 2**14), room=st.integers(2**15, 2**27))
@settings(max_examples=30)
def test_the_shuffle_buffers_hold_no_more_than_they_may(
    small_dataset: Dataset, batch_size: int, records: int, room: int
) -> None:
    from trainer.backends.base import WHOLE
    from trainer.input import training

    shards = [shard for shard in small_dataset.shards if shard.split == "train"]
    largest = max(shard.bytes / shard.examples for shard in shards)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "SHUFFLE_RECORDS", records)
        patch.setattr(training, "SHUFFLE_BYTES", room)
        streams = training._streams(small_dataset, training.stream_count(batch_size, 1), 0, WHOLE)
    together = streams.buffer * (len(streams.bounds) - 1)
    assert 1 <= together <= records
    assert together * largest <= room * 1.1  # it is computed from the mean over all shards


@pytest.mark.slow
@given(seed=st.integers(0, 2**63 - 1), first=st.integers(1, 2))
@settings(max_examples=4)
def test_a_resumed_pipeline_gives_what_an_undisturbed_one_gives(small_dataset: Dataset, seed: int, first: int) -> None:
    source = _input(small_dataset, 8, seed)
    assert _epochs(source, first, 3) == _epochs(source, 0, 3)[first:]


@pytest.mark.slow
@pytest.mark.parametrize("kept", CACHES)
def test_batches_skipped_in_the_first_epoch_leave_exactly_the_rest(dataset: Dataset, kept: str) -> None:
    source = _input(dataset, 8, 2, cache=kept)
    steps = dataset.galaxies("train") // 8
    undisturbed = [batch.content() for batch in _batches(source, 1, 4)]
    for skip in (1, steps - 1, steps):
        assert [batch.content() for batch in _batches(source, 1, 4, skip)] == undisturbed[skip:]
    assert [batch.content() for batch in _batches(source, 2, 4, 1)] == undisturbed[steps + 1 :]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "limit", "process"), [(24, 0, (1, 0)), (6, 0, (2, 1)), (12, 25, (3, 1)), (7, 0, (1, 0))]
)
def test_the_cache_changes_no_byte_of_any_batch(
    dataset: Dataset, batch_size: int, limit: int, process: tuple[int, int]
) -> None:
    without, stored, decoded = (
        [batch.content() for batch in _batches(_input(dataset, batch_size, 1, process, limit=limit, cache=kept), 0, 3)]
        for kept in CACHES
    )
    used = limit or dataset.galaxies("train")
    assert len(without) == used // batch_size * 3 == len(set(without))
    assert stored == without
    assert decoded == without


@pytest.mark.slow
def test_encodings_without_loss_give_the_same_batches(small_dataset: Dataset, raw_dataset: Dataset) -> None:
    batches = [[batch.content() for batch in _batches(_input(one, 8, 1), 0, 2)] for one in (small_dataset, raw_dataset)]
    assert batches[0] == batches[1]


@pytest.mark.parametrize("kept", CACHES)
@pytest.mark.parametrize("batch_size", [7, 8])
def test_a_shard_that_lost_a_record_stops_the_training(
    small_dataset: Dataset, batch_size: int, kept: str, tmp_path: Path
) -> None:
    import tensorflow as tf

    damaged = replace(small_dataset, folder=tmp_path / "data")
    shutil.copytree(small_dataset.folder, damaged.folder)
    path = damaged.paths("train")[2]
    path.write_bytes(b"".join(map(framing.frame, list(framing.read_records(path))[:-1])))
    with pytest.raises(tf.errors.OpError):
        for _ in _input(damaged, batch_size, cache=kept).batches(0, 1):
            pass


# Training: several processes


def _shared_out(dataset: Dataset, batch_size: int, processes: int, **more: Any) -> list[list[Batch]]:
    """The batches of three epochs, for each process."""
    return [_batches(_input(dataset, batch_size, 6, (processes, index), **more), 0, 3) for index in range(processes)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "processes", "limit"),
    [(2, 2, 0), (4, 4, 0), (6, 2, 0), (8, 2, 0), (8, 4, 0), (8, 8, 0), (6, 2, 27), (24, 4, 27)],
)
def test_processes_together_train_on_the_batches_of_one(
    small_dataset: Dataset, batch_size: int, processes: int, limit: int
) -> None:
    assert math.gcd(batch_size, 8) % processes == 0
    alone = _batches(_input(small_dataset, batch_size, 6, limit=limit), 0, 3)
    shared = _shared_out(small_dataset, batch_size, processes, limit=limit)
    assert {len(batches) for batches in shared} == {len(alone)}
    for whole, *parts in zip(alone, *shared, strict=True):
        assert {len(part.galaxies) for part in parts} == {batch_size // processes}
        rows = {galaxy: (whole.images[row], whole.draws[row]) for row, galaxy in enumerate(whole.galaxies)}
        assert sorted(galaxy for part in parts for galaxy in part.galaxies) == sorted(rows)
        for part in parts:
            for galaxy, image, draws in zip(part.galaxies, part.images, part.draws, strict=True):
                np.testing.assert_array_equal(image, rows[galaxy][0])
                np.testing.assert_array_equal(draws, rows[galaxy][1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "processes", "kept"),
    [(8, 2, "none"), (24, 8, "none"), (6, 3, "none"), (12, 3, "decoded"), (10, 5, "stored"), (8, 8, "none")],
)
def test_processes_get_equal_parts_from_ranges_of_their_own_and_no_galaxy_twice(
    small_dataset: Dataset, batch_size: int, processes: int, kept: str
) -> None:
    galaxies = small_dataset.galaxies("train")
    steps = galaxies // batch_size
    assert steps
    shared = _shared_out(small_dataset, batch_size, processes, cache=kept)
    for batches in shared:
        assert len(batches) == 3 * steps
        assert {batch.images.shape for batch in batches} == {(batch_size // processes, 32, 32, 3)}
    for epoch in range(3):
        seen = [galaxy for batches in shared for batch in batches[epoch * steps :][:steps] for galaxy in batch.galaxies]
        assert len(set(seen)) == len(seen) == steps * batch_size
    read = [[galaxy for batch in batches for galaxy in batch.galaxies] for batches in shared]
    for one, following in pairwise(read):
        assert max(one) < min(following)
    for index, own in enumerate(read):
        assert galaxies * index // processes <= min(own) and max(own) < galaxies * (index + 1) // processes


@pytest.mark.parametrize(
    ("batch_size", "processes", "kept", "expected"),
    [
        (32, 1, 0, 8),  # a new run, or one of an earlier version
        (12, 2, 0, 4),
        (7, 1, 0, 1),
        (24, 3, 0, 3),
        (32, 16, 0, 16),
        (24, 1, 3, 3),  # kept
        (48, 2, 6, 6),
        (32, 8, 16, 16),
        (24, 2, 3, 8),  # cannot be divided
        (24, 3, 8, 3),
        (10, 1, 4, 2),  # a batch of a small split, on other devices
    ],
)
def test_the_number_of_streams_is_kept_if_the_processes_can_divide_it(
    batch_size: int, processes: int, kept: int, expected: int
) -> None:
    from trainer.input.training import stream_count

    assert stream_count(batch_size, processes, kept) == expected


def test_one_process_continues_the_batches_of_three(small_dataset: Dataset) -> None:
    shared = _shared_out(small_dataset, 24, 3)
    together = [sorted(galaxy for part in parts for galaxy in part.galaxies) for parts in zip(*shared, strict=True)]
    alone = [[sorted(batch.galaxies) for batch in _batches(_input(small_dataset, 24, 6, streams=n), 0, 3)] for n in (3, 0)]
    assert alone[0] == together != alone[1]


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "processes"), [(8, 2), (6, 3)])
def test_a_process_needs_the_shards_of_its_own_range_alone(
    small_dataset: Dataset, batch_size: int, processes: int, tmp_path: Path
) -> None:
    from tfrecords import reader

    galaxies = small_dataset.galaxies("train")
    for index in range(processes):
        part = replace(small_dataset, folder=tmp_path / str(index))
        part.folder.mkdir()
        for piece in reader.pieces(small_dataset, "train", galaxies * index // processes, galaxies * (index + 1) // processes):
            shutil.copy(piece.path, part.folder)
        assert len(list(part.folder.iterdir())) < len(small_dataset.paths("train"))
        there = list(_input(small_dataset, batch_size, 0, (processes, index)).batches(0, 1).as_numpy_iterator())
        for batch, same in zip(_input(part, batch_size, 0, (processes, index)).batches(0, 1), there, strict=True):
            np.testing.assert_array_equal(batch[1], same[1])


# Evaluation


@pytest.mark.parametrize(("batch_size", "limit"), [(5, 0), (4, 6), (1000, 0), (3, 1000), (6, 6)])
def test_evaluation_covers_each_galaxy_exactly_once_with_a_smaller_last_batch(
    dataset: Dataset, batch_size: int, limit: int
) -> None:
    from tfrecords import reader
    from trainer.input import evaluation

    galaxies = dataset.galaxies("test")
    used = min(galaxies, limit or galaxies)
    batches = list(evaluation.evaluation_batches(dataset, "test", batch_size, limit).as_numpy_iterator())
    seen = [_galaxies(dataset, "test", targets) for _, _, targets in batches]
    assert _flat(seen) == list(range(used))
    assert [len(batch) for batch in seen[:-1]] == [batch_size] * (len(seen) - 1)
    assert len(seen[-1]) == used - batch_size * (len(seen) - 1) > 0
    ids, images = (np.concatenate([batch[column] for batch in batches]) for column in (0, 1))
    assert ids.tolist() == [example.galaxy_id for example in _stored(dataset.folder, "test")[:used]]
    pixels = [
        reader.decode_example(example, dataset.encoding, 32).numpy() for example in reader.in_order(dataset, "test", limit)
    ]
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, pixels)


def test_evaluation_of_a_split_without_votes_gives_every_galaxy(small_dataset: Dataset) -> None:
    from trainer.input import evaluation

    batches = list(evaluation.evaluation_batches(small_dataset, "unlabelled", 3).as_numpy_iterator())
    stored = [example.galaxy_id for example in _stored(small_dataset.folder, "unlabelled")]
    assert np.concatenate([ids for ids, _, _ in batches]).tolist() == stored
    assert all(np.isnan(targets).all() for _, _, targets in batches)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "processes", "limit"),
    # The last batch: whole; a part for each; nothing for the last process; one row for the first only; one small batch.
    [(6, 2, 12), (6, 2, 11), (6, 2, 15), (8, 4, 17), (8, 4, 1)],
)
def test_processes_together_evaluate_every_row_once(dataset: Dataset, batch_size: int, processes: int, limit: int) -> None:
    from trainer.backends.base import Share
    from trainer.input.evaluation import evaluation_batches

    alone = list(evaluation_batches(dataset, "train", batch_size, limit).as_numpy_iterator())
    used = limit or dataset.galaxies("train")
    assert sum(len(ids) for ids, _, _ in alone) == used
    shared = [
        list(evaluation_batches(dataset, "train", batch_size, limit, Share(processes, index)).as_numpy_iterator())
        for index in range(processes)
    ]
    rows = batch_size // processes
    for whole, *parts in zip(alone, *shared, strict=True):
        for index, (ids, images, targets) in enumerate(parts):
            np.testing.assert_array_equal(ids, whole[0])
            np.testing.assert_array_equal(targets, whole[2])
            assert images.shape[1:] == (32, 32, 3) and images.dtype == np.uint8
            np.testing.assert_array_equal(images, whole[1][rows * index : rows * (index + 1)])
        np.testing.assert_array_equal(np.concatenate([images for _, images, _ in parts]), whole[1])
