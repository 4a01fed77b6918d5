"""How FITS images become pictures: what was asked for, what a dataset keeps of it, and how bright pictures should be."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tfrecords.errors import SettingError

BRIGHT = 99.5  # percentile: the brightest parts of a galaxy, whatever a few hot pixels hold
DEFAULT_STRETCH = 0.5  # nanomaggies per pixel: SDSS frames
LOOK_SETTINGS = ("fits_stretch", "fits_q", "bands")


class Brightness(NamedTuple):
    """The 1, 50 and 99 % quantiles over galaxies of the brightness that 99.5 % of a crop's pixels do not exceed, 0..255."""

    low: float
    middle: float
    high: float


# Of the central half of the 4,261 images of SDSS in ../shared/kaggle, by `benchmarks.emptiness`.
SDSS = Brightness(94.7, 145.0, 205.4)


@dataclass(frozen=True)
class Stretch:
    """How flux becomes brightness: linear up to about `stretch`, above it an asinh softened by `q`; black is 0.

    stretch: in nanomaggies per pixel where headers give units, else in the unit of the images; None to choose it so that
    galaxies are as bright as in training. 0.5 suits SDSS frames with the sky subtracted. Raises SettingError for values that
    are not above 0.
    """

    stretch: float | None = None
    q: float = 10.0

    def __post_init__(self) -> None:
        for name, value in (("fits_stretch", self.stretch), ("fits_q", self.q)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise SettingError(f"--{name} {value}: must be above 0")


@dataclass(frozen=True)
class Look:
    """How FITS images become pictures.

    bands: of the planes, in the order of the file; empty to read them from the headers. otherwise: bands of files whose headers
    name none.
    """

    bands: tuple[str, ...] = ()
    stretch: Stretch = field(default_factory=Stretch)
    otherwise: tuple[str, ...] = ()

    def refuse_without_fits(self, where: object) -> None:
        """Raise SettingError if anything was asked for: there are no FITS images in `where`."""
        for name, value in self.flags().items():
            raise SettingError(f"--{name} {value}: {where} holds no FITS images: omit the flag")

    def flags(self) -> dict[str, str]:
        """The flags and values with which it is not the default."""
        stretch, q = self.stretch.stretch, "" if self.stretch.q == Stretch.q else f"{self.stretch.q:g}"
        values = {"bands": ",".join(self.bands), "fits_stretch": "" if stretch is None else f"{stretch:g}", "fits_q": q}
        return {name: value for name, value in values.items() if value}


def as_settings(look: Look | None) -> dict[str, Any]:
    """A look with its stretch as settings of a dataset; none for None."""
    if look is None:
        return {}
    stretch = {"fits_stretch": look.stretch.stretch, "fits_q": look.stretch.q}
    return {**stretch, **({"bands": ",".join(look.bands)} if look.bands else {})}


def from_settings(settings: Mapping[str, Any]) -> Look | None:
    """The look that a dataset was made with; None if it was not made of FITS images."""
    if "fits_stretch" not in settings:
        return None
    bands = tuple(filter(None, str(settings.get("bands", "")).split(",")))
    return Look(bands, Stretch(float(settings["fits_stretch"]), float(settings["fits_q"])))
