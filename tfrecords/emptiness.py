"""Whether a picture shows no galaxy: it is black, white or of one colour.

The limits lie far from any galaxy: `benchmarks.emptiness` measures how near real and synthetic ones come.
"""

import numpy as np

from tfrecords.brightness import colour_sum

# In levels 0..255. Percentiles, so that neither hot pixels nor a few letters make a galaxy.
DARK, BRIGHT = 0.005, 0.995
LEAST_CONTRAST = 10
LEAST_LIGHT = 20
WHITE, MOST_WHITE = 250, 0.25
NO_GALAXY = "no galaxy"  # reasons begin with it
_PIXELS = 96  # along each side: enough for these quantiles


def light_of(pixels: np.ndarray) -> np.ndarray:
    """The brightness of some of the pixels of an image (height, width, 3), evenly spaced: the mean of R, G and B, uint8."""
    return (colour_sum(_thinned(pixels)) // 3).astype(np.uint8)


def _thinned(pixels: np.ndarray) -> np.ndarray:
    step = max(1, min(pixels.shape[:2]) // _PIXELS)
    return pixels[::step, ::step]


def levels_of(light: np.ndarray) -> tuple[int, int, float]:
    """The dark and the bright quantile of the brightness, uint8 (height, width), and the share of white pixels."""
    counts = np.bincount(_thinned(light).ravel(), minlength=256)
    grown = np.cumsum(counts)
    dark, bright = np.searchsorted(grown, (DARK * grown[-1], BRIGHT * grown[-1])).tolist()
    return dark, bright, float(counts[WHITE:].sum() / grown[-1])


def no_galaxy(light: np.ndarray) -> str:
    """Why an image shows no galaxy, in words; empty for others. light: its brightness, uint8 (height, width)."""
    dark, bright, white = levels_of(light)
    if white > MOST_WHITE:
        return f"{NO_GALAXY}: {white:.0%} of its crop is white"
    if bright < LEAST_LIGHT:
        return f"{NO_GALAXY}: its crop is nearly black, with brightest parts at {bright} of 255"
    if bright - dark < LEAST_CONTRAST:
        return f"{NO_GALAXY}: its crop is of one brightness, {dark} to {bright} of 255"
    return ""
