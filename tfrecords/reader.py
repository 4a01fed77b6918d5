"""Dataset folder -> tf.data.Dataset of parsed, still encoded examples; and decode(example).

The only module of this package that imports TensorFlow. An example is a dict of tensors: galaxy_id int64 (),
image string (), crop_offset int64 (2,), targets float32 (37,).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrecords.dataset import Dataset
from tfrecords.taxonomy import COLUMNS

_FEATURES = {
    "galaxy_id": tf.io.FixedLenFeature([], tf.int64),
    "image": tf.io.FixedLenFeature([], tf.string),
    "crop_offset": tf.io.FixedLenFeature([2], tf.int64),
    "targets": tf.io.FixedLenFeature([len(COLUMNS)], tf.float32),
}
# Each open file holds a buffer; a bound keeps memory flat however many shards there are.
_PARALLEL_SHARDS = 16


def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
    """One serialized record as an example."""
    return tf.io.parse_single_example(record, _FEATURES)


def decode(example: dict[str, tf.Tensor], encoding: str, size: int) -> tf.Tensor:
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


def _paths(paths: Sequence[Path]) -> list[str]:
    return [str(path) for path in paths]


def in_order(dataset: Dataset, split: str, limit: int = 0) -> tf.data.Dataset:
    """Every example of a split once, as stored; with `limit` only the first of them."""
    records = tf.data.TFRecordDataset(_paths(dataset.paths(split)))
    records = records.take(limit) if limit else records
    return records.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def shuffled(dataset: Dataset, split: str, seed: tf.Tensor, buffer: int, limit: int = 0) -> tf.data.Dataset:
    """Every example of a split once, in an order that follows from `seed` (int64 scalar tensor).

    Shards are read in parallel in a shuffled order, and their examples, still encoded, pass through a shuffle
    buffer of `buffer` examples: about 5 kB each as JPEG at 212 x 212, 135 kB raw. With `limit`,
    the first examples as stored, shuffled.
    """
    paths = _paths(dataset.paths(split))
    if limit:
        records = tf.data.TFRecordDataset(paths).take(limit)
    else:
        files = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths), seed, reshuffle_each_iteration=False)
        records = files.interleave(
            tf.data.TFRecordDataset,
            cycle_length=min(_PARALLEL_SHARDS, len(paths)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    records = records.shuffle(buffer, seed, reshuffle_each_iteration=False)
    return records.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def targets_of(dataset: Dataset, split: str, limit: int = 0) -> np.ndarray:
    """The vote fractions of a split as float32 (galaxies, 37), in stored order. Images are not decoded."""
    batches = in_order(dataset, split, limit).map(lambda example: example["targets"]).batch(1024)
    return np.concatenate([batch for batch in batches.as_numpy_iterator()])
