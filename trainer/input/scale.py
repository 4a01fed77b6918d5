"""At which scale a run knows galaxies: the half-light radii of its training set, and how many images lie outside them."""

from collections.abc import Sequence

import numpy as np

from tfrecords.dataset import Dataset
from trainer.backends.startup import explained
from trainer.images.photometry import photometry, scale_range

_SAMPLE = 2048  # of the training set: enough for a quantile of 1 %, read in a second or two
_BATCH = 256

Range = tuple[float, float]


@explained
def training_range(dataset: Dataset, limit: int = 0) -> Range:
    """The 1 and 99 % quantiles of the half-light radii of `train`, in pixels of the stored images.

    Of the first galaxies as stored, which is a random order, up to 2,048 and up to `limit`.
    """
    from trainer.input.evaluation import evaluation_batches

    galaxies = min(dataset.galaxies("train", limit), _SAMPLE)
    batches = evaluation_batches(dataset, "train", _BATCH, galaxies).as_numpy_iterator()
    return scale_range(np.concatenate([photometry(images).half_light_radius for _, images, _ in batches]))


def outside(crops: Sequence[np.ndarray], ranges: Sequence[tuple[int, Range]]) -> np.ndarray:
    """Which galaxies are outside any of the ranges, bool (n,).

    crops: of the same n galaxies, uint8 (n, side, side, 3) each; ranges: of half-light radii, with the place of their crop.
    """
    is_outside = np.zeros(len(crops[0]), bool)
    if not len(is_outside):
        return is_outside
    radii = {place: photometry(crops[place]).half_light_radius for place in {place for place, _ in ranges}}
    for place, (low, high) in ranges:
        is_outside |= ~((radii[place] >= low) & (radii[place] <= high))  # one that cannot be measured is outside
    return is_outside


def warning(count: int, images: int, ranges: Sequence[Range]) -> str:
    """What to say of `count` of so many images that lie outside."""
    limits = " and ".join(f"{low:.1f} to {high:.1f}" for low, high in dict.fromkeys(ranges))
    return (
        f"{count:,} of {images:,} images ({count / images * 100:.1f} %, of the training galaxies 2 %) have a half-light radius "
        f"outside {limits} pixels of the crop: they are at another scale than the model was trained at; "
        "crop or resize the cutouts so that galaxies appear as large as in training"
    )
