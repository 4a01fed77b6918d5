"""Which galaxies training and evaluation see, in which order."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.dataset import Dataset, open_dataset


@cache
def _places(folder: Path, split: str) -> dict[bytes, int]:
    """The place of each galaxy in a split as stored, by its votes: no two galaxies have the same."""
    from tfrecords.reader import targets_of

    dataset = open_dataset(folder)
    places = {row.tobytes(): place for place, row in enumerate(targets_of(dataset, split))}
    assert len(places) == dataset.galaxies(split)
    return places


def _galaxies(dataset: Dataset, split: str, targets: Any) -> list[int]:
    """Whose votes these are: the place of each galaxy in the split as stored."""
    places = _places(dataset.folder, split)
    return [places[row.tobytes()] for row in np.asarray(targets)]


def _epochs(dataset: Dataset, batch_size: int, seed: int, first: int, last: int, limit: int = 0) -> list[list[list[int]]]:
    """What each epoch trains on: a list of batches, each a list of galaxies."""
    from trainer import pipeline

    steps, _ = pipeline.steps_per_epoch(dataset, batch_size, limit)
    batches = [
        _galaxies(dataset, "train", targets)
        for _, targets in pipeline.training_batches(dataset, batch_size, seed, first, last, limit)
    ]
    assert len(batches) == steps * (last - first)
    return [batches[start : start + steps] for start in range(0, len(batches), steps)]


def _flat(epoch: list[list[int]]) -> list[int]:
    return [galaxy for batch in epoch for galaxy in batch]


@given(batch_size=st.integers(1, 100), limit=st.integers(0, 100))
def test_an_epoch_is_as_many_whole_batches_as_fit(small_dataset: Dataset, batch_size: int, limit: int) -> None:
    from trainer.pipeline import steps_per_epoch

    galaxies = small_dataset.galaxies("train")
    used = min(galaxies, limit or galaxies)
    steps, size = steps_per_epoch(small_dataset, batch_size, limit)
    assert size == min(batch_size, used)
    assert steps >= 1 and steps * size <= used < (steps + 1) * size


def test_training_images_are_uint8_and_keep_their_votes(small_dataset: Dataset) -> None:
    from tfrecords import reader
    from trainer import pipeline

    stored = [reader.decode(example, "png", 32).numpy() for example in reader.in_order(small_dataset, "train")]
    for images, targets in pipeline.training_batches(small_dataset, 8, 0, 0, 1):
        assert images.shape == (8, 32, 32, 3) and images.dtype == "uint8"
        assert targets.shape == (8, 37) and targets.dtype == "float32"
        for image, galaxy in zip(images.numpy(), _galaxies(small_dataset, "train", targets), strict=True):
            np.testing.assert_array_equal(image, stored[galaxy])


@pytest.mark.parametrize(("batch_size", "limit"), [(8, 0), (7, 20), (1000, 0), (1000, 5)])
def test_every_batch_is_whole_and_no_epoch_has_a_galaxy_twice(small_dataset: Dataset, batch_size: int, limit: int) -> None:
    used = limit or small_dataset.galaxies("train")
    for epoch in _epochs(small_dataset, batch_size, 0, 0, 3, limit):
        assert {len(batch) for batch in epoch} == {min(batch_size, used)}
        assert len(set(_flat(epoch))) == len(_flat(epoch)) > used - min(batch_size, used)
        assert max(_flat(epoch)) < used


def test_the_galaxies_left_over_differ_from_epoch_to_epoch(small_dataset: Dataset) -> None:
    epochs = _epochs(small_dataset, 25, 0, 0, 12)
    assert set().union(*map(_flat, epochs)) == set(range(small_dataset.galaxies("train")))


def test_the_order_follows_from_seed_and_epoch(small_dataset: Dataset) -> None:
    epochs = _epochs(small_dataset, 8, 4, 0, 3)
    assert _epochs(small_dataset, 8, 4, 0, 3) == epochs
    assert len({tuple(_flat(epoch)) for epoch in [*epochs, *_epochs(small_dataset, 8, 5, 0, 3)]}) == 6


@given(seed=st.integers(0, 2**63 - 1), first=st.integers(1, 2))
@settings(max_examples=4)
def test_a_resumed_pipeline_gives_what_an_undisturbed_one_gives(small_dataset: Dataset, seed: int, first: int) -> None:
    assert _epochs(small_dataset, 8, seed, first, 3) == _epochs(small_dataset, 8, seed, 0, 3)[first:]


@pytest.mark.parametrize(("batch_size", "limit"), [(5, 0), (4, 6), (1000, 0), (3, 1000)])
def test_evaluation_covers_each_galaxy_exactly_once_with_a_smaller_last_batch(
    small_dataset: Dataset, batch_size: int, limit: int
) -> None:
    from trainer import pipeline

    galaxies = small_dataset.galaxies("test")
    used = min(galaxies, limit or galaxies)
    batches = pipeline.evaluation_batches(small_dataset, "test", batch_size, limit)
    seen = [_galaxies(small_dataset, "test", targets) for _, targets in batches]
    assert _flat(seen) == list(range(used))
    assert [len(batch) for batch in seen[:-1]] == [batch_size] * (len(seen) - 1)
    assert len(seen[-1]) == used - batch_size * (len(seen) - 1)
    assert int(batches.cardinality()) == len(seen)
