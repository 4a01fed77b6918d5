"""FITS images as 8-bit RGB like that of the training images: stretched as in survey cutouts, north up and east left.

The stretch is that of Lupton et al. 2004 (PASP 116, 133), which SDSS uses for its colour images; astropy computes it. FITS
rows begin at the bottom (FITS standard 4.0, section 3.3.2, as displays apply it). Reading needs astropy, the extra `fits`.
"""

import contextlib
import io
import math
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrecords.errors import ConfigError, ImageError, SettingError, install_extra, lacks_memory, squeezed
from tfrecords.images import MAX_PIXELS
from trainer.images.symmetries import COUNT, steps, transformed

SUFFIXES = (".fits", ".fit")
_UPSIDE_DOWN = 2  # the symmetry that reverses the rows, so that they begin at the top
# astropy's coordinates fill their tables on first use, and are not safe for several threads.
_COORDINATES = threading.Lock()


@dataclass(frozen=True)
class Stretch:
    """How flux becomes brightness: linear up to about `stretch` (in the image's units), above it an asinh softened by `q`.

    The defaults suit SDSS frames, which are in nanomaggies per pixel with the sky subtracted; black is 0. Raises SettingError
    for values that are not above 0.
    """

    stretch: float = 0.5
    q: float = 10.0

    def __post_init__(self) -> None:
        for name, value in (("fits_stretch", self.stretch), ("fits_q", self.q)):
            if not (value > 0 and math.isfinite(value)):
                raise SettingError(f"--{name} {value}: must be above 0")


def require_astropy() -> None:
    """Raise ConfigError, with what to install, if astropy is missing."""
    try:
        import astropy.io.fits  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"FITS images need the package astropy, which is not installed: {install_extra('fits')}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress astropy's warnings within the block: a single odd keyword would cause one for every image of a survey.

    Enter it in the main thread, around all decoding: warning filters apply to the whole process.
    """
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        yield


def decode_fits(data: bytes, stretch: Stretch) -> tuple[np.ndarray, bool]:
    """A FITS file as uint8 (height, width, 3), north up and east left, and whether it has one plane for all three colours.

    Uses the first HDU with an image of 2 or 3 axes: one plane (height, width) or (1, height, width), or three planes
    (3, height, width) in the order R, G, B (for SDSS: i, r, g). Values that are not finite become 0. Raises ImageError, with
    the reason, for any other file.
    """
    from astropy.io import fits
    from astropy.visualization import make_lupton_rgb

    try:
        with fits.open(io.BytesIO(data), memmap=False) as hdus:
            hdu = next((hdu for hdu in hdus if hdu.is_image and len(hdu.shape) in (2, 3)), None)
            if hdu is None:
                raise ImageError("no image of 2 or 3 axes in any of its HDUs")
            planes = _planes(hdu)
            with _COORDINATES:
                turn = _north_up(hdu.header, hdus)
        finite = np.isfinite(planes)
        if not finite.any():
            raise ImageError("none of its pixels has a finite value")
        planes[~finite] = 0
        red, green, blue = planes if len(planes) == 3 else (planes[0],) * 3
        with np.errstate(all="ignore"):
            image = make_lupton_rgb(red, green, blue, stretch=stretch.stretch, Q=stretch.q)
    except ImageError:
        raise
    except Exception as error:  # astropy raises many kinds for damaged files: OSError, TypeError, VerifyError, ...
        if lacks_memory(error):
            raise MemoryError("decoding FITS") from error
        reason = squeezed(error, None).split(". ")[0].rstrip(".")
        raise ImageError(f"not a readable FITS image ({reason[:120]})") from error
    return np.ascontiguousarray(transformed(image, turn)), len(planes) == 1


def _planes(hdu: Any) -> np.ndarray:
    """The planes of an HDU, float64 (1 or 3, height, width)."""
    shape = hdu.shape
    if shape[-1] * shape[-2] > MAX_PIXELS:
        raise ImageError(f"{shape[-1]} x {shape[-2]} pixels are more than {MAX_PIXELS:,}")
    if len(shape) == 3 and shape[0] not in (1, 3):
        axes = " x ".join(map(str, shape[::-1]))
        raise ImageError(f"its image has the axes {axes}: give width x height, or width x height x 3 in the order R, G, B")
    return np.array(hdu.data, np.float64).reshape(-1, *shape[-2:])


def _north_up(header: Any, hdus: Any) -> int:
    """The symmetry that brings north up and east left most nearly; without a celestial WCS, the one that reverses the rows."""
    from astropy.wcs import WCS

    try:
        wcs = WCS(header, hdus).celestial
        if wcs.naxis != 2:
            return _UPSIDE_DOWN
        column, row = (header["NAXIS1"] - 1) / 2, (header["NAXIS2"] - 1) / 2
        sky = wcs.pixel_to_world([column, column + 1, column], [row, row, row + 1]).icrs
        east, north = (offset.deg[1:] for offset in sky[0].spherical_offsets_to(sky))
    except Exception as error:  # headers can be wrong in many ways, and the image is usable without them
        if lacks_memory(error):
            raise
        return _UPSIDE_DOWN
    scale = np.hypot(east, north)  # of a pixel along each axis, which may differ
    if not (np.isfinite(scale) & (scale > 0)).all():
        return _UPSIDE_DOWN

    def alignment(number: int) -> float:
        right, down = steps(number)
        return -float(right @ (east / scale)) - float(down @ (north / scale))

    return max(range(COUNT), key=alignment)
