"""Measures the scale of a run's galaxies: how large and how bright they are in its training set."""

import numpy as np

from tfrecords.dataset import Dataset
from tfrecords.fits.look import Brightness
from trainer.backends.startup import explained
from trainer.images.photometry import brightness, photometry, scale_range
from trainer.images.ranges import Ranges

_SAMPLE = 2048  # galaxies: enough for the 1 % quantile, and read in a second or two
_BATCH = 256


def _levels(values: np.ndarray) -> Brightness:
    return Brightness(*map(float, np.percentile(values, (1, 50, 99))))


@explained
def training_ranges(dataset: Dataset, limit: int = 0) -> Ranges:
    """The ranges of the galaxies in `train`.

    Measured on the first galaxies as stored, which is a random order: at most 2,048, and at most `limit`.
    """
    from trainer.input.evaluation import evaluation_batches

    galaxies = min(dataset.galaxies("train", limit), _SAMPLE)
    radii, levels = [], []
    for _, images, _ in evaluation_batches(dataset, "train", _BATCH, galaxies).as_numpy_iterator():
        radii.append(photometry(images).half_light_radius)
        levels.append(brightness(images))
    median, bright = np.concatenate(levels, axis=1)
    return Ranges(scale_range(np.concatenate(radii)), _levels(median), _levels(bright))
