"""The scale of a run's galaxies: the half-light radii of its training set, and a warning if images lie outside them."""

from collections.abc import Sequence

import numpy as np

from tfrecords.dataset import Dataset
from trainer.backends.startup import explained
from trainer.images.photometry import photometry, scale_range

_SAMPLE = 2048  # galaxies: enough for the 1 % quantile, and read in a second or two
_BATCH = 256

Range = tuple[float, float]


@explained
def training_range(dataset: Dataset, limit: int = 0) -> Range:
    """The 1 and 99 % quantiles of the half-light radii in `train`, in pixels of the stored images.

    Measured on the first galaxies as stored, which is a random order: at most 2,048, and at most `limit`.
    """
    from trainer.input.evaluation import evaluation_batches

    galaxies = min(dataset.galaxies("train", limit), _SAMPLE)
    batches = evaluation_batches(dataset, "train", _BATCH, galaxies).as_numpy_iterator()
    return scale_range(np.concatenate([photometry(images).half_light_radius for _, images, _ in batches]))


def outside(crops: Sequence[np.ndarray], ranges: Sequence[tuple[int, Range]]) -> np.ndarray:
    """Whether each galaxy is outside any of the ranges, bool (n,).

    crops: of the same n galaxies, uint8 (n, side, side, 3) each; ranges: (index into crops, range of half-light radii).
    """
    is_outside = np.zeros(len(crops[0]), bool)
    if not len(is_outside):
        return is_outside
    radii = {place: photometry(crops[place]).half_light_radius for place in {place for place, _ in ranges}}
    for place, (low, high) in ranges:
        is_outside |= ~((radii[place] >= low) & (radii[place] <= high))  # a radius that is not a number is outside
    return is_outside


def warning(count: int, images: int, ranges: Sequence[Range]) -> str:
    """The warning that `count` of this number of images lie outside the ranges."""
    limits = " and ".join(f"{low:.1f} to {high:.1f}" for low, high in dict.fromkeys(ranges))
    return (
        f"{count:,} of {images:,} images ({count / images * 100:.1f} %, against 2 % of the training galaxies) have a "
        f"half-light radius outside {limits} pixels of the crop, so they are at another scale than the training galaxies: "
        "crop or resize the cutouts so that galaxies appear as large as in training"
    )
