"""How large and how bright galaxies appear in their images.

Brightness is the mean of R, G and B, 0..255. The images are stretched, not linear in light, so these are measures of images,
not of galaxies. They show whether two sets of images have galaxies at the same scale.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tfrecords.brightness import COLOUR_SUMS, colour_sum, mean_of_colours
from tfrecords.fits.look import BRIGHT

_BORDER = 0.05


@dataclass(frozen=True)
class Photometry:
    """Measures of n images, float64 (n,) each: half_light_radius in pixels, background and peak in levels 0..255."""

    half_light_radius: np.ndarray
    background: np.ndarray
    peak: np.ndarray


@lru_cache(maxsize=8)
def _rings(side: int) -> tuple[np.ndarray, int]:
    """Each pixel's distance from the centre as an integer (flat), capped just outside the inscribed circle; and that cap."""
    offsets = np.arange(side) - (side - 1) / 2
    radius = np.hypot(offsets[:, None], offsets[None, :])
    inside = max(1, side // 2)
    return np.minimum(radius.astype(np.int64), inside).ravel(), inside


@lru_cache(maxsize=8)
def _border(height: int, width: int) -> np.ndarray:
    """The pixels within 5 % of the shorter side, at least one pixel, from the edge: bool (height, width)."""
    edge = max(1, round(_BORDER * min(height, width)))
    inner = np.zeros((height, width), bool)
    inner[edge : height - edge, edge : width - edge] = True
    return ~inner


def photometry(images: np.ndarray) -> Photometry:
    """Measure images, uint8 (n, side, side, 3), with the galaxy in the centre.

    background: the median of the border. half_light_radius: of the circle about the centre with half of the light above the
    background inside the inscribed circle, interpolated between whole pixels; 0 for an image without such light.
    """
    light = mean_of_colours(colour_sum(images))
    count, side = light.shape[0], light.shape[1]
    background = np.median(light[:, _border(side, side)], axis=1)
    above = np.maximum(light - background[:, None, None], 0).reshape(count, side * side)
    rings, inside = _rings(side)
    profiles = np.stack([np.bincount(rings, row, inside + 1)[:inside] for row in above]) if count else np.zeros((0, inside))
    grown = np.cumsum(profiles, axis=1)
    half = grown[:, -1:] / 2
    ring = np.argmax(grown >= half, axis=1)
    rows = np.arange(count)
    before = np.where(ring > 0, grown[rows, np.maximum(ring - 1, 0)], 0)
    step = profiles[rows, ring]
    part = np.divide(half[:, 0] - before, step, out=np.zeros(count), where=step > 0)
    return Photometry(
        np.where(half[:, 0] > 0, ring + part, 0.0), background.astype(np.float64), light.max(axis=(1, 2)).astype(np.float64)
    )


def brightness(images: np.ndarray) -> np.ndarray:
    """The median of the brightness of images, uint8 (n, side, side, 3), and the level that 99.5 % of its pixels do not exceed.

    float64 (2, n), in levels 0..255.
    """
    if not len(images):
        return np.zeros((2, 0))
    sums = colour_sum(images).reshape(len(images), -1)
    grown = np.cumsum([np.bincount(row, minlength=COLOUR_SUMS) for row in sums], axis=1)
    values = mean_of_colours(np.arange(COLOUR_SUMS, dtype=np.uint16)).astype(np.float64)
    percentiles = []
    for percentage in (50, BRIGHT):
        place = (sums.shape[1] - 1) * (percentage / 100)
        below, above = (values[(grown > whole).argmax(axis=1)] for whole in (math.floor(place), math.ceil(place)))
        step, part = above - below, place % 1  # linear between two of the sorted pixels, in the order of np.percentile's sums
        percentiles.append(below + step * part if part < 0.5 else above - step * (1 - part))
    return np.array(percentiles)


def light_kept(image: np.ndarray, crop_fraction: float) -> float:
    """The share of an image's light above its background that the centred crop keeps, 0..1; 1 if the image has no such light.

    image: uint8 (height, width, 3). Light less than three times the border's noise above the background does not count, or
    the sky would outshine faint galaxies.
    """
    from tfrecords.images import crop_box

    light = mean_of_colours(colour_sum(image))
    sky = light[_border(light.shape[0], light.shape[1])]
    background = np.median(sky)
    noise = 1.4826 * np.median(np.abs(sky - background))
    above = np.where(light > background + 3 * noise, light - background, 0)
    row, column, side = crop_box(light.shape[0], light.shape[1], crop_fraction)
    whole = float(above.sum())
    return float(above[row : row + side, column : column + side].sum()) / whole if whole > 0 else 1.0


def scale_range(values: np.ndarray) -> tuple[float, float]:
    """The 1 and 99 % quantiles of the values."""
    low, high = np.percentile(values, (1, 99))
    return float(low), float(high)
