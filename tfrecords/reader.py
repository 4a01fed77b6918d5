"""Dataset folder -> tf.data.Dataset of records, parsed examples, decoded images.

The only module of this package that imports TensorFlow. An example is a dict of tensors: galaxy_id int64 (),
image string (), crop_offset int64 (2,), votes float32 (width,): the targets and, if the dataset has them, the numbers of
answers to each question after these (`Dataset.votes_width`). Datasets whose galaxies have names also give name string ().
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrecords.dataset import Dataset
from tfrecords.integrity import fetch_shards
from tfrecords.tree import column_means

# Batches of raw images that are parsed in parallel, and the number of images in other encodings that one call decodes.
_RAW_BATCHES = 4
_DECODED = 32


@dataclass(frozen=True)
class Piece:
    """Consecutive examples of one shard: `take` of them, after the first `skip`."""

    path: str
    skip: int
    take: int


def _features(dataset: Dataset) -> dict[str, tf.io.FixedLenFeature]:
    features = {
        "galaxy_id": tf.io.FixedLenFeature([], tf.int64),
        "image": tf.io.FixedLenFeature([], tf.string),
        "crop_offset": tf.io.FixedLenFeature([2], tf.int64),
        "targets": tf.io.FixedLenFeature([len(dataset.tree.columns)], tf.float32),
    }
    if dataset.asked:
        features["asked"] = tf.io.FixedLenFeature([len(dataset.tree.questions)], tf.float32)
    if dataset.named:
        features["name"] = tf.io.FixedLenFeature([], tf.string)
    return features


def _with_votes(examples: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Targets and asked, if there, as one tensor."""
    targets, asked = examples.pop("targets"), examples.pop("asked", None)
    return {**examples, "votes": targets if asked is None else tf.concat([targets, asked], axis=-1)}


def parse_record(record: tf.Tensor, dataset: Dataset) -> dict[str, tf.Tensor]:
    """One serialised record of a dataset as an example."""
    return _with_votes(tf.io.parse_single_example(record, _features(dataset)))


def decode_example(example: dict[str, tf.Tensor], encoding: str, size: int) -> tf.Tensor:
    """The crop of an example as uint8 (size, size, 3), pixel for pixel as Pillow decodes it."""
    if encoding == "raw":
        image = tf.reshape(tf.io.decode_raw(example["image"], tf.uint8), (size, size, 3))
    elif encoding == "png":
        image = tf.io.decode_png(example["image"], channels=3)
    else:
        # The default method is faster by a few per cent, but differs from Pillow by up to 3 levels.
        image = tf.io.decode_jpeg(example["image"], channels=3, dct_method="INTEGER_ACCURATE")
    begin = tf.concat([example["crop_offset"], [0]], axis=0)
    return tf.ensure_shape(tf.slice(image, begin, (size, size, 3)), (size, size, 3))


def pieces(dataset: Dataset, split: str, start: int, stop: int) -> list[Piece]:
    """The pieces that hold the examples `start` to `stop - 1` of a split, counted from 0 in stored order.

    Their shards are fetched if the dataset is in an object store.
    """
    parts, needed, first = [], [], 0
    for path, shard in zip(dataset.paths(split), (shard for shard in dataset.shards if shard.split == split), strict=True):
        begin, end = max(start - first, 0), min(stop - first, shard.examples)
        if begin < end:
            parts.append(Piece(str(path), begin, end - begin))
            needed.append(shard)
        first += shard.examples
    fetch_shards(dataset, needed)
    return parts


def records(path: str | tf.Tensor, skip: int | tf.Tensor, take: int | tf.Tensor, encoding: str) -> tf.data.Dataset:
    """The serialised records of a piece. Reading raises an error if the shard has too few."""
    # Raw records are large: without a buffer, reading is a third faster.
    every = tf.data.TFRecordDataset(path, buffer_size=0 if encoding == "raw" else 2**20)
    return every.skip(skip).take(take).apply(tf.data.experimental.assert_cardinality(take))


def stored_order(parts: Sequence[Piece], encoding: str) -> tf.data.Dataset:
    """The serialised records of pieces, one piece after another."""
    table = ([part.path for part in parts], [part.skip for part in parts], [part.take for part in parts])
    types = (tf.string, tf.int64, tf.int64)
    rows = tuple(tf.constant(column, dtype) for column, dtype in zip(table, types, strict=True))
    return tf.data.Dataset.from_tensor_slices(rows).flat_map(lambda path, skip, take: records(path, skip, take, encoding))


def decoded(serialized: tf.data.Dataset, dataset: Dataset, batch_size: int) -> tf.data.Dataset:
    """Records -> batches (galaxy_id int64 (batch,), image uint8 (batch, size, size, 3), votes float32 (batch, width)).

    In the order of the records; the last batch may be smaller. Held in memory: up to four batches of raw images, or up
    to 32 other images per core. A core decodes these in one call, because one call per image costs a quarter more.
    """
    encoding, size, features = dataset.encoding, dataset.size, _features(dataset)
    cores = os.cpu_count() or 1
    together, parallel = (batch_size, min(_RAW_BATCHES, cores)) if encoding == "raw" else (min(batch_size, _DECODED), cores)

    @tf.autograph.experimental.do_not_convert
    def several(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        examples = _with_votes(tf.io.parse_example(batch, features))
        if encoding == "raw":  # half the copies of parsing images one by one
            images = tf.reshape(tf.io.decode_raw(examples["image"], tf.uint8), (-1, size, size, 3))
        else:
            stored = {name: examples[name] for name in ("image", "crop_offset")}
            spec = tf.TensorSpec((size, size, 3), tf.uint8)
            images = tf.map_fn(lambda example: decode_example(example, encoding, size), stored, fn_output_signature=spec)
        return examples["galaxy_id"], images, examples["votes"]

    batches = serialized.batch(together).map(several, num_parallel_calls=parallel, deterministic=True)
    return batches if together == batch_size else batches.rebatch(batch_size)


def in_order(dataset: Dataset, split: str, limit: int = 0) -> tf.data.Dataset:
    """Every example of a split once, in stored order; at most `limit` (0: all)."""
    parts = pieces(dataset, split, 0, dataset.galaxies(split, limit))
    return stored_order(parts, dataset.encoding).map(
        lambda record: parse_record(record, dataset), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


class SplitVotes(NamedTuple):
    """The votes of a split in stored order: `galaxy_ids` int64 (galaxies,), `targets` float32 (galaxies, n).

    asked: float32 (galaxies, questions), how many volunteers answered each question; None if the dataset has no counts. names:
    those of the galaxies as tables show them, str (galaxies,); None if they are numbers.
    """

    galaxy_ids: np.ndarray
    targets: np.ndarray
    asked: np.ndarray | None
    names: np.ndarray | None


def apart(votes: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, np.ndarray | None]:
    """Votes of the pipeline (galaxies, width) as targets (galaxies, n) and asked (galaxies, questions), None without counts."""
    answers = len(dataset.tree.columns)
    return votes[:, :answers], votes[:, answers:] if dataset.asked else None


def votes_of(dataset: Dataset, split: str, limit: int = 0) -> SplitVotes:
    """The votes of a split, read without decoding images."""
    columns = ("galaxy_id", "votes", *(["name"] if dataset.named else []))
    examples = in_order(dataset, split, limit).map(lambda example: tuple(example[column] for column in columns))
    ids, votes, *names = map(np.concatenate, zip(*examples.batch(1024).as_numpy_iterator(), strict=True))
    return SplitVotes(ids, *apart(votes, dataset), _names(dataset.names(), ids, *names))


def target_means(dataset: Dataset, split: str, limit: int = 0) -> np.ndarray:
    """The mean of each answer's targets over the first `limit` galaxies of a split (0: all), float64 (answers,).

    Of a whole split no shard is read, except for a dataset of an earlier version. Only what counts is averaged, as in
    `tree.column_means`.
    """
    if dataset.has_means(split, limit):
        return dataset.targets[split].means()
    votes = votes_of(dataset, split, limit)
    return column_means(votes.targets, dataset.tree.counted(votes.asked))


def labels_of(dataset: Dataset, split: str, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The ids and names of a split's galaxies, as in `SplitVotes`, in stored order and `batch_size` at a time."""
    table, columns = dataset.names(), ("galaxy_id", *(["name"] if dataset.named else []))
    examples = in_order(dataset, split).map(lambda example: tuple(example[column] for column in columns))
    for ids, *names in examples.batch(batch_size).as_numpy_iterator():
        yield ids, _names(table, ids, *names)


def _names(table: Mapping[int, str], galaxy_ids: np.ndarray, names: np.ndarray | None = None) -> np.ndarray | None:
    """The names of galaxies, str (galaxies,): from their records, UTF-8, or from the `table` of an earlier dataset."""
    if names is not None:
        return np.array([name.decode("utf-8", "backslashreplace") for name in names], object)
    return np.array([table.get(galaxy_id, str(galaxy_id)) for galaxy_id in galaxy_ids.tolist()], object) if table else None


def cutouts(dataset: Dataset, split: str, galaxy_ids: Sequence[int]) -> dict[int, np.ndarray]:
    """The crops of some galaxies of a split by GalaxyID, uint8 (size, size, 3); those not in it are omitted."""
    wanted = tf.constant(np.asarray(galaxy_ids, np.int64))
    examples = in_order(dataset, split).filter(lambda example: tf.reduce_any(example["galaxy_id"] == wanted))
    return {
        int(example["galaxy_id"]): decode_example(example, dataset.encoding, dataset.size).numpy()
        for example in examples.take(len(galaxy_ids))
    }


def stored_pictures(dataset: Dataset, splits: Sequence[str], galaxy_ids: Iterable[int]) -> dict[int, np.ndarray]:
    """The crops of some galaxies of several splits, as `cutouts` returns them; shards are read until all are there."""
    wanted = set(galaxy_ids)
    pictures: dict[int, np.ndarray] = {}
    for split in splits:
        if missing := sorted(wanted - pictures.keys()):
            pictures |= cutouts(dataset, split, missing)
    return pictures
