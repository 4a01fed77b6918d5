"""What the frozen base makes of every galaxy, computed once and kept in a file: the first epochs train the head on it alone.

An epoch on features takes seconds where one through the base takes minutes, and every galaxy is there in as many of the 8
symmetries of the square as augmentation may show it. The file in the run folder holds float16, 2 bytes for each
number: 18,432 of them for a view of 212 x 212 through VGG16, or 512 with --pooling average. It is filled front to back, so a
computation that was stopped goes on where it was, and it is gone once these epochs are over.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.commandline import Interruption
from tfrecords.dataset import Dataset
from tfrecords.errors import RunError
from trainer import symmetries
from trainer.predict import padded

_LARGEST = np.finfo(np.float16).max


class Features:
    """Of a split: `values`, a memory map float16 (views, galaxies, length), and `targets` float32 (galaxies, 37)."""

    def __init__(self, path: Path, values: np.ndarray, targets: np.ndarray) -> None:
        self.path = path
        self.values = values
        self.targets = targets


def _needed(path: Path, size: int) -> None:
    """Raise RunError where the disk has no room for a file of `size` bytes."""
    there = path.stat().st_size if path.exists() else 0
    free = shutil.disk_usage(path.parent).free
    if size - there > 0.95 * free:
        raise RunError(
            f"{path}: the features need {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free there: make room, or take "
            "--pooling average, --augment none, --limit, or --head_epochs 0"
        )


def compute(
    path: Path,
    predictor: Any,
    length: int,
    dataset: Dataset,
    split: str,
    views: int,
    batch_size: int,
    limit: int,
    interruption: Interruption,
) -> Features | None:
    """The features of a split in its stored order; None where a signal came before they were complete.

    predictor: uint8 (batch_size, size, size, 3) -> (batch_size, length). What `path` holds already is not computed again.
    """
    from tqdm import tqdm

    from tfrecords.reader import votes_of
    from trainer.pipeline import evaluation_batches

    _, targets = votes_of(dataset, split, limit)
    galaxies = len(targets)
    row = length * np.dtype(np.float16).itemsize
    _needed(path, views * galaxies * row)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with (
        os.fdopen(descriptor, "ab") as file,
        tqdm(total=views * galaxies, desc=f"features of {split}", unit=" views", leave=False) as bar,
    ):
        done = file.tell() // row
        view, start = divmod(done, galaxies)
        start -= start % batch_size
        file.truncate((view * galaxies + start) * row)
        bar.update(view * galaxies + start)
        for number in range(view, views):
            batches = evaluation_batches(dataset, split, batch_size, limit)
            for _, images, _ in batches.skip(start // batch_size).as_numpy_iterator():
                if interruption.signal is not None:
                    return None
                turned = np.ascontiguousarray(symmetries.transformed(images, number))
                made = predictor(padded(turned, batch_size))[: len(images)].astype(np.float32)
                file.write(np.minimum(made, _LARGEST).astype(np.float16).tobytes())
                bar.update(len(images))
            start = 0
    return Features(path, np.memmap(path, np.float16, "r", shape=(views, galaxies, length)), targets)


def batches(features: Features, dataset: Dataset, batch_size: int, seed: int, limit: int, epochs: range, skip: int) -> Any:
    """A tf.data.Dataset of (features float32 (batch, length), targets float32 (batch, 37), unused numbers) of some epochs.

    Whole batches of galaxies in an order and symmetries that follow from seed and epoch; the first `skip` of the first epoch
    are left out.
    """
    import tensorflow as tf

    from trainer.pipeline import steps_per_epoch

    steps, batch_size = steps_per_epoch(dataset, batch_size, limit)
    views, galaxies, length = features.values.shape
    values, targets = features.values, features.targets

    def rows() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for epoch in epochs:
            generator = np.random.default_rng((seed, epoch))
            order = generator.permutation(np.arange(galaxies))
            shown = generator.integers(0, views, size=(galaxies,))
            for step in range(skip if epoch == epochs.start else 0, steps):
                place = order[step * batch_size : (step + 1) * batch_size]
                yield (
                    values[shown[place], place].astype(np.float32),
                    targets[place],
                    np.zeros((batch_size, 1), np.float32),
                )

    shapes = ((batch_size, length), (batch_size, targets.shape[1]), (batch_size, 1))
    signature = tuple(tf.TensorSpec(shape, tf.float32) for shape in shapes)
    return tf.data.Dataset.from_generator(rows, output_signature=signature).prefetch(2)


def predicted(predictor: Any, features: Features, batch_size: int, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches (predicted, targets), float32 (n, 37) each, of the first `limit` galaxies (0: all) as they are stored."""
    stop = min(len(features.targets), limit or len(features.targets))
    for start in range(0, stop, batch_size):
        rows = slice(start, min(start + batch_size, stop))
        part = features.values[0, rows].astype(np.float32)
        yield predictor(padded(part, batch_size))[: len(part)].astype(np.float32), features.targets[rows]
