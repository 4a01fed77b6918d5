"""Which stretch a set of FITS images needs, so that its galaxies are as bright as those of training.

Surveys differ in units, depth and size of pixels: at one stretch for all of them, the galaxies of one are black and those of
another white. Brightness is that of photometry: the mean of R, G and B in the crop, 0..255.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfrecords.fits.colour import Flux, stretched
from tfrecords.fits.look import BRIGHT, DEFAULT_STRETCH, Brightness, Stretch

_SIDE = 64  # pixels along each side of a crop that are measured
_FACTORS = (1e-7, 1e7)
_STEPS = 60
_MANY = 8
# How far the median of so many galaxies may be from that of training, as a part of the way to the faintest and brightest 1 %.
_MEDIANS = 0.5


class StretchChoice(NamedTuple):
    """A stretch with the reason for it, in words; the reason is empty if there was nothing to choose."""

    stretch: Stretch
    reason: str


def thinned(flux: Flux, box: tuple[int, int, int]) -> np.ndarray:
    """A part of the pixels of a crop, evenly spaced: float64 (rows, columns, 3). box: row, column and side of the crop."""
    row, column, side = box
    step = max(1, side // _SIDE)
    return flux.colours[row : row + side : step, column : column + side : step].astype(np.float64)


def bright(samples: Sequence[np.ndarray], stretch: Stretch) -> float:
    """The median over samples of the brightness that 99.5 % of their pixels do not exceed."""
    return float(np.median([np.percentile(stretched(sample, stretch).mean(axis=2), BRIGHT) for sample in samples]))


def _near(level: float, samples: int, wanted: Brightness, units: bool) -> bool:
    """Whether the median of so many galaxies is as bright as in training: of a few, it may be as far off as single ones are."""
    part = 1.0 if units or samples < _MANY else _MEDIANS
    low, high = wanted.middle - part * (wanted.middle - wanted.low), wanted.middle + part * (wanted.high - wanted.middle)
    return bool(low <= level <= high)


def choose_stretch(
    samples: Sequence[np.ndarray], wanted: Brightness, given: Stretch, units: bool = False, like: str = "in training"
) -> StretchChoice:
    """The stretch of a set of images, from samples as `thinned` returns them.

    given: its `q` counts, and its `stretch` if it is not None. Else the default, if galaxies are then as bright as in training,
    or the one with which their median brightness is that of training, to two digits. units: they are in nanomaggies, for which
    the default was made, so it is kept while single galaxies of training are as dark or as bright. like: what they are compared
    with, in words.
    """
    default = Stretch(DEFAULT_STRETCH, given.q)
    if given.stretch is not None:
        return StretchChoice(given, "")
    if not samples:
        return StretchChoice(default, "")
    level = bright(samples, default)
    if _near(level, len(samples), wanted, units):
        return StretchChoice(default, f"their galaxies are as bright as {like} ({level:.0f} of 255)")
    low, high = (np.log(DEFAULT_STRETCH * factor) for factor in _FACTORS)
    for _ in range(_STEPS):  # brightness falls as the stretch grows
        middle = (low + high) / 2
        if bright(samples, Stretch(float(np.exp(middle)), given.q)) > wanted.middle:
            low = middle
        else:
            high = middle
        if high - low < 1e-3:
            break
    value = float(f"{np.exp((low + high) / 2):.2g}")
    chosen = Stretch(value, given.q)
    reached = bright(samples, chosen)
    if not _near(reached, len(samples), wanted, units):
        return StretchChoice(default, f"no stretch makes their galaxies as bright as {like} ({level:.0f} of 255 at this one)")
    was = "dark" if level < wanted.middle else "bright"
    return StretchChoice(
        chosen, f"at {DEFAULT_STRETCH:g} their galaxies are too {was}: {level:.0f} of 255, at this one {reached:.0f}"
    )
