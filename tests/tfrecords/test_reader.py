"""The reader returns every galaxy once, with exactly the pixels that Pillow decodes."""

import csv
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocess.job import BadImages, BuildSettings, build_dataset
from tests.conftest import galaxy_image, random_counts
from tfrecords import framing, schema
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from tfrecords.errors import DatasetError

GALAXIES = 24
COLUMNS = builtin_tree().columns
VOTES = np.linspace(0, 1, 37, dtype=np.float32)


def _stored(dataset: Dataset, split: str) -> list[schema.Example]:
    """The records of a split in the order of the shards, read without TensorFlow."""
    return [schema.parse(data) for path in dataset.paths(split) for data in framing.read_records(path)]


def _shards(dataset: Dataset) -> list[Path]:
    return [dataset.folder / shard.name for shard in dataset.shards]


def _ids(examples: Any) -> list[int]:
    return [int(example["galaxy_id"]) for example in examples]


def _as_pillow_sees(example: schema.Example, encoding: str, size: int) -> np.ndarray:
    if encoding == "raw":
        return np.asarray(Image.frombytes("RGB", (size, size), example.image))
    row, column = example.crop_offset
    return np.asarray(Image.open(io.BytesIO(example.image)).convert("RGB"))[row : row + size, column : column + size]


def _centre(path: Path, size: int) -> np.ndarray:
    """The centre of an image as Pillow decodes it."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    row, column = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[row : row + size, column : column + size]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
@pytest.mark.parametrize(("source", "size"), [("survey", 32), ("kaggle", 212), ("kaggle", 45)])
def test_decoded_pixels_are_pillows_in_every_pixel(
    source: str,
    size: int,
    encoding: str,
    request: pytest.FixtureRequest,
    build_settings: Callable[..., BuildSettings],
    tmp_path: Path,
) -> None:
    from tfrecords import reader

    folder: Path = request.getfixturevalue(source)
    plan = build_settings(encoding=encoding, size=size, limit=GALAXIES, validation_fraction=0.0, test_fraction=0.0)
    dataset = build_dataset(folder, tmp_path / "data", plan, workers=1).dataset
    decoded = {
        int(example["galaxy_id"]): reader.decode_example(example, encoding, size).numpy()
        for example in reader.in_order(dataset, "train")
    }
    assert len(decoded) == GALAXIES
    for example in _stored(dataset, "train"):
        pixels = decoded[example.galaxy_id]
        assert pixels.dtype == np.uint8 and pixels.shape == (size, size, 3)
        np.testing.assert_array_equal(pixels, _as_pillow_sees(example, encoding, size))
        if size in (32, 212):  # not resized, so lossless: the pixels of the source
            original = folder / "images_training_rev1" / f"{example.galaxy_id}.jpg"
            np.testing.assert_array_equal(pixels, _centre(original, size))


KINDS: list[dict[str, Any]] = [
    {"mode": "L"}, {"mode": "L", "progressive": True}, {"mode": "L", "restart_marker_rows": 1},
    {"subsampling": 2}, {"subsampling": 2, "progressive": True}, {"subsampling": 2, "restart_marker_blocks": 3},
    {"subsampling": 1}, {"subsampling": 1, "progressive": True}, {"subsampling": 1, "quality": 20},
    {"subsampling": 0}, {"subsampling": 0, "progressive": True}, {"subsampling": 0, "optimize": True},
]  # fmt: skip


def test_tensorflow_gives_any_kind_of_jpeg_the_pixels_that_pillow_gives_it(
    make_survey: Callable[..., Path], build_settings: Callable[..., BuildSettings], tmp_path: Path
) -> None:
    """Lossless from end to end: source, record, and TensorFlow's decoder."""
    from tfrecords import reader

    source = make_survey(tmp_path / "kaggle", labelled=2 * len(KINDS), unlabelled=0, side=96)
    folder = source / "images_training_rev1"
    for index, path in enumerate(sorted(folder.iterdir())):
        options = dict(KINDS[index // 2])
        image = Image.open(path).convert(options.pop("mode", "RGB")).crop((0, 0, 81, (81, 96)[index % 2]))
        image.save(path, **{"quality": 88, **options})
    plan = build_settings(encoding="jpeg", size=41, validation_fraction=0.0, test_fraction=0.0)
    dataset = build_dataset(source, tmp_path / "data", plan, workers=1).dataset
    galaxies = list(reader.in_order(dataset, "train"))
    assert len(galaxies) == 2 * len(KINDS)
    for example in galaxies:
        original = folder / f"{int(example['galaxy_id'])}.jpg"
        np.testing.assert_array_equal(reader.decode_example(example, "jpeg", 41), _centre(original, 41))


def test_a_shard_without_examples_is_no_obstacle(
    make_survey: Callable[..., Path], build_settings: Callable[..., BuildSettings], tmp_path: Path
) -> None:
    from tfrecords import reader

    source = make_survey(tmp_path / "kaggle", labelled=6, unlabelled=0)
    for galaxy_id in (100000, 100021, 100035):
        (source / f"images_training_rev1/{galaxy_id}.jpg").write_bytes(b"no image")
    plan = build_settings(encoding="jpeg", validation_fraction=0.0, test_fraction=0.0, examples_per_shard=1)
    dataset = build_dataset(source, tmp_path / "data", plan, workers=1, bad=BadImages(True, 1.0)).dataset
    assert sorted(shard.examples for shard in dataset.shards) == [0, 0, 0, 1, 1, 1]
    stored = _ids(reader.in_order(dataset, "train"))
    assert sorted(stored) == [100007, 100014, 100028]
    assert _ids(reader.in_order(dataset, "train", 2)) == stored[:2]
    assert sum(piece.take for piece in reader.pieces(dataset, "train", 0, 3)) == 3
    assert all(piece.take for piece in reader.pieces(dataset, "train", 0, 3))
    assert reader.votes_of(dataset, "train").targets.shape == (3, 37)


@given(st.integers(0, 12), st.integers(0, 12), st.sampled_from(["png", "jpeg"]))
@settings(max_examples=25)
def test_a_crop_offset_says_where_in_the_stored_image_the_crop_begins(
    small_dataset: Dataset, row: int, column: int, encoding: str
) -> None:
    import tensorflow as tf

    from tfrecords import reader

    buffer = io.BytesIO()
    whole = np.random.default_rng(0).integers(0, 256, (44, 44, 3), np.uint8)
    Image.fromarray(whole).save(buffer, encoding)
    record = schema.serialize(schema.Example(7, buffer.getvalue(), (row, column), VOTES))
    example = reader.parse_record(tf.constant(record), small_dataset)
    expected = np.asarray(Image.open(buffer))[row : row + 32, column : column + 32]
    np.testing.assert_array_equal(reader.decode_example(example, encoding, 32), expected)
    assert int(example["galaxy_id"]) == 7
    np.testing.assert_array_equal(example["votes"], VOTES)


@pytest.mark.parametrize("split", ["train", "validation", "test", "unlabelled"])
def test_in_order_gives_each_galaxy_once_as_stored(small_dataset: Dataset, split: str) -> None:
    from tfrecords import reader

    stored = [example.galaxy_id for example in _stored(small_dataset, split)]
    assert len(set(stored)) == len(stored) == small_dataset.galaxies(split) > 0
    assert _ids(reader.in_order(small_dataset, split)) == stored
    assert _ids(reader.in_order(small_dataset, split)) == stored


@pytest.mark.parametrize("limit", [1, 9, 10_000])
def test_a_limit_takes_the_first_galaxies_as_stored(small_dataset: Dataset, limit: int) -> None:
    from tfrecords import reader

    stored = [example.galaxy_id for example in _stored(small_dataset, "train")]
    assert _ids(reader.in_order(small_dataset, "train", limit)) == stored[:limit]
    assert len(reader.votes_of(small_dataset, "train", limit).targets) == min(limit, len(stored))


@given(start=st.integers(0, 40), length=st.integers(0, 40), split=st.sampled_from(["train", "validation"]))
def test_pieces_of_any_range_cover_exactly_its_examples_in_order(
    small_dataset: Dataset, start: int, length: int, split: str
) -> None:
    from tfrecords import reader

    expected = [example.galaxy_id for example in _stored(small_dataset, split)][start : start + length]
    shards = {
        str(path): [schema.parse(data).galaxy_id for data in framing.read_records(path)] for path in _shards(small_dataset)
    }
    pieces = reader.pieces(small_dataset, split, start, start + length)
    found = [shards[piece.path][piece.skip : piece.skip + piece.take] for piece in pieces]
    assert [galaxy_id for galaxy_ids in found for galaxy_id in galaxy_ids] == expected
    assert [len(galaxy_ids) for galaxy_ids in found] == [piece.take for piece in pieces]
    assert all(piece.take > 0 for piece in pieces)
    assert len({piece.path for piece in pieces}) == len(pieces)


@pytest.mark.parametrize(("start", "stop"), [(0, 36), (3, 4), (5, 21), (8, 16), (20, 10_000), (7, 7)])
@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_the_records_of_pieces_are_those_of_the_shards_byte_for_byte(
    small_dataset: Dataset, start: int, stop: int, encoding: str
) -> None:
    """With and without a buffer: raw images are read without one."""
    from tfrecords import reader

    stored = [data for path in small_dataset.paths("train") for data in framing.read_records(path)]
    pieces = reader.pieces(small_dataset, "train", start, stop)
    assert list(reader.stored_order(pieces, encoding).as_numpy_iterator()) == stored[start:stop]
    one_by_one = [reader.records(piece.path, piece.skip, piece.take, encoding).as_numpy_iterator() for piece in pieces]
    assert [record for records in one_by_one for record in records] == stored[start:stop]


def test_a_shard_with_fewer_records_than_the_manifest_says_is_an_error(small_dataset: Dataset, tmp_path: Path) -> None:
    import tensorflow as tf

    from tfrecords import reader

    damaged = replace(small_dataset, folder=tmp_path / "data")
    shutil.copytree(small_dataset.folder, damaged.folder)
    path, galaxies = damaged.paths("train")[1], damaged.galaxies("train")
    assert len(_ids(reader.in_order(damaged, "train"))) == galaxies
    path.write_bytes(b"".join(map(framing.frame, list(framing.read_records(path))[:-1])))
    with pytest.raises(tf.errors.OpError):
        _ids(reader.in_order(damaged, "train"))
    with pytest.raises(tf.errors.OpError):
        reader.votes_of(damaged, "train")
    for piece in reader.pieces(damaged, "train", 0, galaxies):
        records = reader.records(piece.path, piece.skip, piece.take, damaged.encoding)
        if piece.path == str(path):
            with pytest.raises(tf.errors.OpError):
                list(records)
        else:
            assert len(list(records)) == piece.take


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
@pytest.mark.parametrize("batch_size", [1, 7, 8, 24, 100])
def test_decoded_batches_are_what_decode_gives_galaxy_by_galaxy(
    encoding: str, batch_size: int, survey: Path, build_settings: Callable[..., BuildSettings], tmp_path: Path
) -> None:
    from tfrecords import reader

    plan = build_settings(encoding=encoding, validation_fraction=0.0, test_fraction=0.0)
    dataset = build_dataset(survey, tmp_path / "data", plan, workers=1).dataset
    records = reader.stored_order(reader.pieces(dataset, "train", 0, GALAXIES), encoding)
    batches = list(reader.decoded(records, dataset, batch_size).as_numpy_iterator())
    whole, rest = divmod(GALAXIES, batch_size)
    assert [len(ids) for ids, _, _ in batches] == [batch_size] * whole + [rest] * (rest > 0)
    for ids, images, targets in batches:
        assert (ids.dtype, images.dtype, targets.dtype) == (np.int64, np.uint8, np.float32)
        assert images.shape == (len(ids), 32, 32, 3) and targets.shape == (len(ids), 37)
    ids, images, targets = (np.concatenate(column) for column in zip(*batches, strict=True))
    examples = list(reader.in_order(dataset, "train"))
    np.testing.assert_array_equal(ids, _ids(examples))
    np.testing.assert_array_equal(images, [reader.decode_example(example, encoding, 32) for example in examples])
    np.testing.assert_array_equal(targets, [example["votes"] for example in examples])


def test_targets_are_those_of_the_table_of_votes(small_dataset: Dataset, small_survey: Path) -> None:
    from tfrecords import reader

    with (small_survey / "training_solutions_rev1.csv").open(newline="") as file:
        table = {int(row["GalaxyID"]): [float(row[name]) for name in COLUMNS] for row in csv.DictReader(file)}
    for split in ("train", "validation", "test"):
        expected = np.array([table[example.galaxy_id] for example in _stored(small_dataset, split)], np.float32)
        targets = reader.votes_of(small_dataset, split).targets
        assert targets.dtype == np.float32
        np.testing.assert_array_equal(targets, expected)
    assert np.isnan(reader.votes_of(small_dataset, "unlabelled").targets).all()


def test_numbers_of_answers_follow_the_targets_in_the_pipeline_and_lie_apart_outside(
    build_settings: Callable[..., BuildSettings], tmp_path: Path
) -> None:
    from tfrecords import reader

    generator, tree = np.random.default_rng(0), builtin_tree("decals5")
    counts = random_counts(9, generator, tree)
    (tmp_path / "decals").mkdir()
    rows = [[f"J{number}", *row] for number, row in enumerate(counts.tolist())]
    for name, *_ in rows[:-1]:
        galaxy_image(generator, 64).save(tmp_path / "decals" / f"{name}.jpg")
    galaxy_image(generator, 64).save(tmp_path / "decals" / "bare.jpg")
    lines = [",".join(map(str, row)) for row in (["iauname", *tree.columns], *rows)]
    (tmp_path / "decals" / "votes.csv").write_text("\n".join(lines))
    plan = build_settings(validation_fraction=0.0, test_fraction=0.0)
    dataset = build_dataset(tmp_path / "decals", tmp_path / "data", plan, workers=1).dataset
    assert dataset.asked and dataset.votes_width == 34 + 10
    votes = reader.votes_of(dataset, "train")
    assert votes.names is not None
    order = [int(name[1:]) for name in votes.names]
    assert sorted(order) == [*range(8)] and votes.asked is not None
    sums = np.stack([counts[order][:, question.columns].sum(axis=1) for question in tree.questions], axis=1)
    np.testing.assert_array_equal(votes.asked, sums)
    shape = tree.questions[0].columns
    np.testing.assert_allclose(votes.targets[:, shape] * votes.asked[:, :1], counts[order][:, shape], rtol=1e-6)
    (example,) = reader.in_order(dataset, "train", 1)
    np.testing.assert_array_equal(example["votes"], [*votes.targets[0], *votes.asked[0]])
    records = reader.stored_order(reader.pieces(dataset, "train", 0, 8), "png")
    ((_, _, batch),) = reader.decoded(records, dataset, 8).as_numpy_iterator()
    for whole, part in zip(reader.apart(batch, dataset), votes[1:3], strict=True):
        np.testing.assert_array_equal(whole, part)
    bare = reader.votes_of(dataset, "unlabelled")
    assert bare.names is not None and bare.names.tolist() == ["bare"]
    assert np.isnan(bare.targets).all() and bare.asked is not None and not bare.asked.any()


def test_galaxies_of_a_dataset_of_numbers_have_no_names(small_dataset: Dataset) -> None:
    from tfrecords import reader

    assert reader.votes_of(small_dataset, "unlabelled").names is None
    (example,) = reader.in_order(small_dataset, "unlabelled", 1)
    assert "name" not in example and not small_dataset.named


def test_a_split_that_is_absent_is_refused_by_name(
    survey: Path, build_settings: Callable[..., BuildSettings], tmp_path: Path
) -> None:
    from tfrecords import reader

    dataset = build_dataset(survey, tmp_path / "data", build_settings(validation_fraction=0.0), workers=1).dataset
    with pytest.raises(DatasetError, match="no galaxies in split 'validation': choose from train, test, unlabelled"):
        reader.in_order(dataset, "validation")
