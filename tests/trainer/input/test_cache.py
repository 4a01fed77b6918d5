"""What is kept in memory depends on how much is free, and equals the content of the shards."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords import framing, schema
from tfrecords.dataset import Dataset, Shard
from tfrecords.errors import RunError

OVERHEAD = 180  # bytes of a galaxy besides its image: 37 float32, an int64, and the 24 of a string tensor


def _dataset(size: int, shards: list[tuple[str, int, int]]) -> Dataset:
    """A dataset with only a manifest: its shards as (split, examples, bytes)."""
    made = tuple(Shard(f"shard-{index}", *shard, sha256="") for index, shard in enumerate(shards))
    return Dataset(Path("nowhere"), {"size": size, "encoding": "jpeg"}, {}, {}, {}, made, "")


JPEGS = _dataset(100, [("train", 30, 30 * 4820), ("train", 0, 0), ("test", 10, 10 * 4820)])
STORED, DECODED = 4820 + OVERHEAD, 30_000 + OVERHEAD
KINDS = ["none", "stored", "decoded"]  # from slow to fast


@pytest.mark.parametrize(("cache", "tenths"), [("auto", 2.5), ("memory", 9)])
@pytest.mark.parametrize("galaxies", [1, 40, 61_578])
def test_the_fastest_kind_that_fits_its_share_of_the_memory_is_kept(cache: str, tenths: float, galaxies: int) -> None:
    from trainer.input.cache import plan

    for kind, each, otherwise in (("decoded", DECODED, "stored"), ("stored", STORED, "none")):
        just_enough = round(galaxies * each * 10 / tenths)
        assert plan(cache, JPEGS, galaxies, just_enough + 2) == kind
        if (cache, otherwise) == ("memory", "none"):
            with pytest.raises(RunError):
                plan(cache, JPEGS, galaxies, just_enough - 2)
        else:
            assert plan(cache, JPEGS, galaxies, just_enough - 2) == otherwise


def test_auto_takes_exactly_a_quarter_and_not_a_byte_more() -> None:
    from trainer.input.cache import plan

    assert plan("auto", JPEGS, 40, 4 * 40 * DECODED) == "decoded"
    assert plan("auto", JPEGS, 40, 4 * 40 * DECODED - 1) == "stored"
    assert plan("auto", JPEGS, 40, 4 * 40 * STORED) == "stored"
    assert plan("auto", JPEGS, 40, 4 * 40 * STORED - 1) == "none"
    assert plan("auto", JPEGS, 40, 0) == "none"


def test_the_error_says_what_is_needed_what_is_free_and_what_to_do() -> None:
    from trainer.input.cache import plan

    message = (
        r"--cache memory: 2,000,000 galaxies need 10\.0 GB as stored, more than nine tenths of the free 3\.2 GB: "
        r"use --cache none, --limit, or a machine with more memory"
    )
    with pytest.raises(RunError, match=message):
        plan("memory", JPEGS, 2_000_000, 3_200_000_000)


def test_processes_on_one_machine_divide_its_free_memory() -> None:
    from trainer.input.cache import plan

    for processes in (2, 3, 8):
        available = processes * 4 * 40 * DECODED
        assert plan("auto", JPEGS, 40, available, processes) == "decoded"
        assert plan("auto", JPEGS, 40, available - processes, processes) == "stored"
    with pytest.raises(
        RunError, match=r"2,000,000 galaxies need 10\.0 GB as stored, more than nine tenths of the free 3\.2 GB"
    ):
        plan("memory", JPEGS, 1_000_000, 3_200_000_000, 2)


def test_none_keeps_nothing_however_much_memory_there_is() -> None:
    from trainer.input.cache import plan

    assert plan("none", JPEGS, 1, 2**60) == "none"


def test_records_that_are_larger_than_their_images_are_kept_decoded() -> None:
    """PNGs of whole images of which the crop is a small part: decoded, they need less memory."""
    from trainer.input.cache import plan

    whole = _dataset(10, [("train", 10, 10 * 9_820)])
    assert plan("auto", whole, 100, 4 * 100 * (300 + OVERHEAD)) == "decoded"
    assert plan("auto", whole, 100, 4 * 100 * (300 + OVERHEAD) - 1) == "none"


@given(
    cache=st.sampled_from(["auto", "memory"]),
    size=st.integers(1, 512),
    record=st.integers(1, 10**6),
    galaxies=st.integers(1, 10**6),
    available=st.integers(0, 2**40),
)
def test_what_is_kept_fits_and_more_memory_never_gives_a_slower_kind(
    cache: str, size: int, record: int, galaxies: int, available: int
) -> None:
    from trainer.input.cache import plan

    dataset = _dataset(size, [("train", 3, 3 * record)])

    def kind(memory: int) -> str:
        try:
            return plan(cache, dataset, galaxies, memory)
        except RunError:
            return "none"

    needs = {"none": 0, "stored": galaxies * (record + OVERHEAD), "decoded": galaxies * (size**2 * 3 + OVERHEAD)}
    chosen = kind(available)
    assert needs[chosen] <= available * (0.25 if cache == "auto" else 0.9)
    assert KINDS.index(kind(2 * available)) >= KINDS.index(chosen)


@pytest.fixture(scope="module", params=["jpeg", "png", "raw"])
def wide_dataset(request: pytest.FixtureRequest, make_dataset: Any) -> Dataset:
    """80 galaxies in `train`, more than are decoded at a time, in 10 shards."""
    dataset: Dataset = make_dataset(encoding=request.param, validation_fraction=0.0, test_fraction=0.0)
    assert dataset.galaxies("train") == 80 and len(dataset.paths("train")) == 10
    return dataset


def _stored(dataset: Dataset) -> list[bytes]:
    return [data for path in dataset.paths("train") for data in framing.read_records(path)]


RANGES = [(0, 80), (0, 1), (13, 80), (8, 16), (5, 77)]


@pytest.mark.parametrize(("start", "stop"), RANGES)
def test_the_cache_gives_the_stored_records_of_any_places(wide_dataset: Dataset, start: int, stop: int) -> None:
    import tensorflow as tf

    from trainer.input.cache import Cache

    cache, stored = Cache(wide_dataset, "train", start, stop, "stored"), _stored(wide_dataset)
    assert cache.kind == "stored"
    places = np.random.default_rng(0).integers(start, stop, 40)
    (records,) = cache.gather(tf.constant(places))
    assert records.numpy().tolist() == [stored[place] for place in places]


@pytest.mark.parametrize(("start", "stop"), RANGES)
def test_the_cache_gives_the_decoded_galaxies_of_any_places(wide_dataset: Dataset, start: int, stop: int) -> None:
    import tensorflow as tf

    from tfrecords import reader
    from trainer.input.cache import Cache

    cache, stored = Cache(wide_dataset, "train", start, stop, "decoded"), _stored(wide_dataset)
    assert cache.kind == "decoded"
    places = np.random.default_rng(0).permutation(np.arange(start, stop))
    ids, images, targets = cache.gather(tf.constant(places))
    assert (ids.dtype, images.dtype, targets.dtype) == (tf.int64, tf.uint8, tf.float32)
    for place, galaxy_id, image, votes in zip(places, ids, images, targets, strict=True):
        example = schema.parse(stored[place])
        assert int(galaxy_id) == example.galaxy_id
        expected = reader.decode_example(
            reader.parse_record(tf.constant(stored[place]), wide_dataset), wide_dataset.encoding, wide_dataset.size
        )
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(votes, example.targets)


@pytest.mark.parametrize("kind", ["stored", "decoded"])
def test_a_shard_that_lost_a_record_is_not_cached(small_dataset: Dataset, kind: str, tmp_path: Path) -> None:
    import tensorflow as tf

    from trainer.input.cache import Cache

    damaged = replace(small_dataset, folder=tmp_path / "data")
    shutil.copytree(small_dataset.folder, damaged.folder)
    path, galaxies = damaged.paths("train")[1], small_dataset.galaxies("train")
    assert Cache(damaged, "train", 0, galaxies, kind).kind == kind
    path.write_bytes(b"".join(map(framing.frame, list(framing.read_records(path))[:-1])))
    with pytest.raises(tf.errors.OpError):
        Cache(damaged, "train", 0, galaxies, kind)
