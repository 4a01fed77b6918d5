"""Examples -> shuffled, decoded, batched, prefetched tensors.

Training shuffles examples as stored: 8,192 crops of 212 x 212 are 90 MB as JPEG, 1.1 GB decoded or stored raw.
Prefetching is bounded for the same reason: two batches of 32 at 212 x 212 are 9 MB, while AUTOTUNE may hold as many
as fit in memory.
"""

import tensorflow as tf

from tfrecords import reader
from tfrecords.dataset import Dataset

SHUFFLE_BUFFER = 8192
_PREFETCH_BATCHES = 2


def steps_per_epoch(dataset: Dataset, batch_size: int, limit: int = 0) -> tuple[int, int]:
    """Steps of an epoch and galaxies of a batch: whole batches only, so a split below `batch_size` is one batch."""
    galaxies = dataset.galaxies("train")
    galaxies = min(galaxies, limit) if limit else galaxies
    batch_size = min(batch_size, galaxies)
    return galaxies // batch_size, batch_size


def _image_and_targets(dataset: Dataset, examples: tf.data.Dataset) -> tf.data.Dataset:
    @tf.autograph.experimental.do_not_convert
    def decode(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return reader.decode(example, dataset.encoding, dataset.size), example["targets"]

    return examples.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def training_batches(
    dataset: Dataset, batch_size: int, seed: int, first_epoch: int, epochs: int, limit: int = 0
) -> tf.data.Dataset:
    """Batches (uint8 (batch, size, size, 3), float32 (batch, 37)) of the epochs `first_epoch` up to `epochs`.

    An epoch's order follows from seed and epoch alone, so a resumed run sees what an undisturbed one would. Each
    epoch gives whole batches; the few galaxies left over differ from epoch to epoch. Leave TensorFlow's global seed
    unset: it would enter the order, and a global seed of 0 makes tf.data refuse seeds that are tensors.
    """
    steps, batch_size = steps_per_epoch(dataset, batch_size, limit)

    @tf.autograph.experimental.do_not_convert
    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.random.stateless_uniform([], [tf.constant(seed, tf.int64), epoch], minval=None, maxval=None, dtype=tf.int64)
        examples = reader.shuffled(dataset, "train", key, SHUFFLE_BUFFER, limit)
        batches = _image_and_targets(dataset, examples).batch(batch_size, drop_remainder=True)
        return batches.take(steps)

    return tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch).prefetch(_PREFETCH_BATCHES)


def evaluation_batches(dataset: Dataset, split: str, batch_size: int, limit: int = 0) -> tf.data.Dataset:
    """Batches of a split in stored order, every galaxy exactly once; the last batch may be smaller."""
    galaxies = dataset.galaxies(split)
    galaxies = min(galaxies, limit) if limit else galaxies
    batches = _image_and_targets(dataset, reader.in_order(dataset, split, limit)).batch(batch_size)
    # Keras warns of a dataset that "ran out" where it does not know the length beforehand.
    return batches.apply(tf.data.experimental.assert_cardinality(-(-galaxies // batch_size))).prefetch(_PREFETCH_BATCHES)
