"""Every galaxy of a split once, in stored order: as batches of images, and as predictions for them."""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from tfrecords import reader
from tfrecords.dataset import Dataset
from trainer.backends.base import WHOLE, Result, Share, in_turn

PREFETCH_BATCHES = 2


def evaluation_batches(
    dataset: Dataset, split: str, batch_size: int, limit: int = 0, share: Share = WHOLE, start: int = 0
) -> tf.data.Dataset:
    """Batches (galaxy_id int64 (n,), image uint8 (rows, size, size, 3), votes float32 (n, width)), every galaxy exactly once.

    In stored order, from number `start` on; the last batch may be smaller. With several processes, each gets the ids and votes
    of the whole batch, but only the images of its own rows, of which the last batch may have none.
    """
    parts = reader.pieces(dataset, split, start, dataset.galaxies(split, limit))
    records = reader.stored_order(parts, dataset.encoding)
    if share.processes == 1:
        return reader.decoded(records, dataset, batch_size).prefetch(PREFETCH_BATCHES)
    rows = batch_size // share.processes
    first = rows * share.index
    own = records.batch(batch_size).map(lambda batch: batch[first : first + rows]).unbatch()
    images = reader.decoded(own, dataset, rows).map(lambda ids, images, votes: images)
    nothing = tf.data.Dataset.from_tensors(tf.zeros((0, dataset.size, dataset.size, 3), tf.uint8))
    examples = records.map(lambda record: reader.parse_record(record, dataset))
    labels = examples.map(lambda example: (example["galaxy_id"], example["votes"])).batch(batch_size)
    both = tf.data.Dataset.zip(labels, images.concatenate(nothing))
    return both.map(lambda labels, images: (labels[0], images, labels[1])).prefetch(PREFETCH_BATCHES)


def padded(batch: np.ndarray, rows: int) -> np.ndarray:
    """The batch, padded with zeros to `rows` rows."""
    missing = rows - len(batch)
    return np.pad(batch, ((0, missing), *((0, 0),) * (batch.ndim - 1))) if missing else batch


def predicted_batches(
    predictor: Callable[[np.ndarray], Result], dataset: Dataset, split: str, batch_size: int, limit: int, share: Share
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches (galaxy_id int64 (n,), predicted float32 (n, outputs), votes float32 (n, width)) of a split, every galaxy once.

    `predictor`: a `backends.base.Predictor`; it always gets the same number of rows, because devices need equal parts and
    XLA compiles for each shape. With several processes, each decodes its own rows and gets all predictions.
    """
    rows = batch_size // share.processes
    batches = evaluation_batches(dataset, split, batch_size, limit, share).as_numpy_iterator()
    started = (((ids, votes), predictor(padded(images, rows))) for ids, images, votes in batches)
    for (ids, votes), predicted in in_turn(started):
        yield ids, predicted[: len(ids)].astype(np.float32), votes
