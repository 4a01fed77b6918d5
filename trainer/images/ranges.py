"""How large and how bright the galaxies of a run's training set are, and which images lie outside of that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tfrecords.checks import require_ascending
from tfrecords.fits.look import Brightness
from trainer.images.photometry import brightness, photometry

# Words of the column `outside`.
EMPTY, BRIGHTNESS, SCALE = "empty", "brightness", "scale"

Range = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """Where 98 % of a run's training galaxies lie, in their stored crops; None where a run has no record of it.

    radius: the half-light radius, in pixels. median, bright: of the brightness of a crop, 0..255, the median and the level that
    99.5 % of its pixels do not exceed; their 1, 50 and 99 % quantiles.
    """

    radius: Range | None
    median: Brightness | None
    bright: Brightness | None

    def config(self) -> dict[str, Any]:
        """Its entries in config.json."""
        measured = {"median": self.median, "bright": self.bright}
        return {
            "half_light_radius": list(self.radius or ()),
            "brightness": {name: list(ends) for name, ends in measured.items() if ends is not None},
        }


def ranges_of(config: Mapping[str, Any]) -> Ranges:
    """The ranges in a run's config.json. Raises ValueError, TypeError or AttributeError if they are none."""
    radius, levels = config.get("half_light_radius"), config.get("brightness", {})
    if radius:
        require_ascending(radius, 2, "half_light_radius")
    for name, values in levels.items():
        require_ascending(values, 3, f"brightness {name}")
    median, bright = (Brightness(*map(float, levels[name])) if name in levels else None for name in ("median", "bright"))
    return Ranges((float(radius[0]), float(radius[1])) if radius else None, median, bright)


class Trained(NamedTuple):
    """The ranges of a run, and which of the requested crops is that of its training images."""

    crop: int
    ranges: Ranges


def outside(crops: Sequence[np.ndarray], trained: Sequence[Trained]) -> np.ndarray:
    """In what way each galaxy is outside the ranges of any run: str (n,), empty for others.

    crops: of the same n galaxies, uint8 (n, side, side, 3) each. One of "empty" (no light above the background), "brightness",
    "scale", or "brightness scale".
    """
    count = len(crops[0])
    marks = {EMPTY: np.zeros(count, bool), BRIGHTNESS: np.zeros(count, bool), SCALE: np.zeros(count, bool)}
    if count:
        radii, levels = {}, {}
        for place in {one.crop for one in trained}:
            radii[place], levels[place] = photometry(crops[place]).half_light_radius, brightness(crops[place])
            marks[EMPTY] |= radii[place] == 0
        for place, ranges in trained:
            if ranges.radius is not None:
                low, high = ranges.radius
                marks[SCALE] |= ~((radii[place] >= low) & (radii[place] <= high))  # a radius that is not a number is outside
            for values, ends in zip(levels[place], (ranges.median, ranges.bright), strict=True):
                if ends is not None:
                    marks[BRIGHTNESS] |= (values < ends.low) | (values > ends.high)
    return np.array([_words(*row) for row in zip(*marks.values(), strict=True)], object)


def _words(is_empty: bool, is_outside_brightness: bool, is_outside_scale: bool) -> str:
    if is_empty:
        return EMPTY
    return " ".join(word for word, holds in ((BRIGHTNESS, is_outside_brightness), (SCALE, is_outside_scale)) if holds)


def count_of(marks: np.ndarray, word: str) -> int:
    """How many galaxies have this word in the column `outside`."""
    return sum(word in mark.split() for mark in marks)


def warnings_of(marks: np.ndarray, trained: Sequence[Ranges]) -> list[str]:
    """A sentence for each way in which galaxies lie outside the ranges. marks: as `outside` returns them."""
    lines = []
    if number := count_of(marks, SCALE):
        radii = dict.fromkeys(one.radius for one in trained if one.radius is not None)
        limits = " and ".join(f"{low:.1f} to {high:.1f}" for low, high in radii)
        lines.append(
            f"{_share(number, marks)} have a half-light radius outside {limits} pixels of the crop, so they are at another "
            "scale than the training galaxies: crop or resize the cutouts so that galaxies appear as large as in training"
        )
    if number := count_of(marks, BRIGHTNESS):
        levels = dict.fromkeys(one.bright for one in trained if one.bright is not None)
        limits = " and ".join(f"{ends.low:.0f} to {ends.high:.0f}" for ends in levels)
        lines.append(
            f"{_share(number, marks)} are darker or brighter than the training galaxies, whose brightest parts reach {limits} "
            "of 255"
        )
    if number := count_of(marks, EMPTY):
        lines.append(f"{number:,} of {len(marks):,} images have no light above the background: look at them before use")
    return lines


def summary_of(marks: np.ndarray, stretch: float | None) -> str:
    """How many galaxies are outside and what helps, for the end of a sentence; empty if all are inside.

    stretch: that of FITS images, None without any.
    """
    kinds = {word: count_of(marks, word) for word in (BRIGHTNESS, SCALE, EMPTY)}
    if not any(kinds.values()):
        return ""
    number = sum(bool(mark) for mark in marks)
    cures = {
        BRIGHTNESS: f"try another --fits_stretch than {stretch:g}" if stretch else "draw the images as those of training were",
        SCALE: "crop or resize the images",
        EMPTY: "look at those without light",
    }
    shown = ", ".join(f"{count:,} {word}" for word, count in kinds.items() if count)
    what_helps = ", ".join(cures[word] for word, count in kinds.items() if count)
    return f"; {number:,} unlike the training galaxies (column outside: {shown}): {what_helps}"


def _share(number: int, marks: np.ndarray) -> str:
    share = number / len(marks) * 100
    return f"{number:,} of {len(marks):,} images ({share:.1f} %, against 2 % of the training galaxies)"
