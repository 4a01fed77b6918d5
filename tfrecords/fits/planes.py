"""A FITS file -> its image planes, with the band of each, north up and east left.

FITS rows begin at the bottom (FITS standard 4.0, section 3.3.2, as displays apply it). Reading needs astropy, the extra `fits`.
"""

import bz2
import contextlib
import gzip
import io
import re
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrecords.decoding import MAX_BYTES, MAX_PIXELS, unpacked_limit
from tfrecords.errors import ConfigError, ImageError, install_extra, lacks_memory, squeezed
from tfrecords.fits.bands import band_of, band_of_hdu, bands_of
from tfrecords.fits.units import nanomaggies
from tfrecords.mistaken import START, mistaken
from tfrecords.symmetries import COUNT, steps, transformed

_UPSIDE_DOWN = 2  # the symmetry that reverses the rows, so that they begin at the top
# astropy's coordinates fill their tables on first use, and are not safe for several threads.
_COORDINATES = threading.Lock()
_MOST_PLANES = 32
_COLOURS_LAST = (3, 4)
# HDUs that are about an image, by words in their names.
_ABOUT = {
    "background", "bkg", "bpm", "chi2", "con", "cov", "coverage", "ctx", "dq", "err", "error", "exp", "expmap",
    "exposure", "exptime", "flag", "flags", "flg", "invvar", "ivar", "mask", "maskbits", "masks", "model", "nexp",
    "noise", "psf", "psfsize", "resid", "residual", "rms", "seg", "segm", "segmap", "sigma", "std", "unc", "var",
    "variance", "weight", "weightmap", "weights", "wht", "wt",
}  # fmt: skip
_SCIENCE = {"sci", "science", "image", "img", "flux", "data"}
_NOTHING: dict[str, Any] = {}


@dataclass(frozen=True)
class Planes:
    """The planes of one galaxy's image.

    values: (height, width, n), uint8 or float64, first row at the top. bands: the name of each, empty if unknown.
    scales: nanomaggies per pixel in one unit of each, None if its header does not tell.
    """

    values: np.ndarray
    bands: tuple[str, ...]
    scales: tuple[float | None, ...]


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


def _unpacked(data: bytes) -> bytes:
    """The bytes of a file that may be packed with gzip or bzip2, whatever its name."""
    most = min(MAX_BYTES, unpacked_limit(len(data)))
    try:
        if data.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(most + 1)
        elif data.startswith(b"BZh"):
            with bz2.BZ2File(io.BytesIO(data)) as file:
                data = file.read(most + 1)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ImageError(f"is packed and damaged ({squeezed(error)})") from error
    if len(data) > most:
        raise ImageError(f"the unpacked file has more than {most:,} bytes")
    return data


def read_planes(data: bytes, given: Sequence[str] = ()) -> Planes:
    """The planes of a FITS file.

    Uses the images of 2 or 3 axes, not counting those of length 1: a cube, with its planes first or last; the 2-dimensional
    images of several HDUs whose headers or names give their bands; or else the first image. Weights, masks and models are left
    out by the names of their HDUs. given: the bands, in the order of the file, of which the header may know nothing.

    Raises ImageError, with the reason, for any other file, and if a plane holds nothing.
    """
    from astropy.io import fits

    data = _unpacked(data)
    if not data.startswith((b"SIMPLE", b"XTENSION")) and (kind := mistaken(data[:START])):
        raise ImageError(f"is {kind}")
    try:
        with fits.open(io.BytesIO(data), memmap=False) as hdus:
            chosen = _chosen(hdus, len(given))
            # Keywords of the first HDU count for all if it holds no image: the unit, and the filter of a single image.
            common = hdus[0].header if not hdus[0].shape else {}
            parts = [_part(hdu, hdus, common, len(chosen) == 1, len(given)) for hdu in chosen]
    except ImageError:
        raise
    except Exception as error:  # astropy raises many kinds for damaged files: OSError, TypeError, VerifyError, ...
        if lacks_memory(error):
            raise MemoryError("decoding FITS") from error
        reason = squeezed(error, None).split(". ")[0].rstrip(".")
        raise ImageError(f"not a readable FITS image ({reason[:120]})") from error
    return together(parts)


def together(parts: Sequence[Planes]) -> Planes:
    """The planes of several images of one galaxy. Raises ImageError if their sizes differ."""
    if len(sizes := {part.values.shape[:2] for part in parts}) > 1:
        shown = " and ".join(sorted(f"{width} x {height}" for height, width in sizes))
        raise ImageError(f"its planes have different sizes: {shown} pixels")
    values = parts[0].values if len(parts) == 1 else np.concatenate([part.values for part in parts], axis=2)
    bands, scales = (tuple(one for part in parts for one in getattr(part, name)) for name in ("bands", "scales"))
    return Planes(values, bands, scales)


def _axes(hdu: Any) -> tuple[int, ...]:
    """The axes of an HDU's image without those of length 1; none for tables."""
    return tuple(side for side in hdu.shape if side != 1) if hdu.is_image and hdu.shape else ()


def _words(hdu: Any) -> set[str]:
    kind = str(hdu.header.get("IMAGETYP", ""))
    return {word for word in re.split(r"[\W_]+", f"{hdu.name} {kind}".lower()) if word}


def _chosen(hdus: Any, given: int) -> list[Any]:
    """The HDUs that hold a galaxy: a cube, one for each band, or the first image. given: the number of bands asked for."""
    there = [hdu for hdu in hdus if len(_axes(hdu)) in (2, 3)]
    images = [hdu for hdu in there if _words(hdu).isdisjoint(_ABOUT)]
    if not images:
        if there:
            raise ImageError("all its images are weights, masks or models, by their names")
        raise ImageError("no image of 2 or 3 axes in any of its HDUs")
    science = [hdu for hdu in images if not _words(hdu).isdisjoint(_SCIENCE)]
    if science and not any(_band(hdu) for hdu in images if hdu not in science):
        images = science
    if len(_axes(images[0])) == 3:
        return images[:1]
    flat = [hdu for hdu in images if len(_axes(hdu)) == 2]
    alike = [hdu for hdu in flat if _axes(hdu) == _axes(images[0])]
    if 1 < given == len(alike):
        return alike
    labelled = [hdu for hdu in flat if _band(hdu)]
    if len(labelled) > 1 or (labelled and len(alike) < 3):
        return labelled
    if len(alike) > 2:
        raise ImageError(f"its headers do not name the bands of its {len(alike)} images: give --bands")
    return images[:1]


def _band(hdu: Any, common: Any = _NOTHING) -> str:
    """The band of an image of one plane, from its header, the name of its HDU or `common` keywords; empty if none tells."""
    return _band_in(hdu.header) or band_of_hdu(hdu.name) or band_of(hdu.name) or _band_in(common)


def _band_in(header: Any) -> str:
    keys = ("BAND", "FILTER", "FILTNAM", "FILTNAME", "FILTER1", "FILTER2", "BANDS", "BAND0")
    return next(filter(None, (band_of(str(header.get(key, ""))) for key in keys)), "")


def _bands(header: Any, number: int) -> tuple[str, ...]:
    """The bands of several planes, empty names if their header does not tell. Raises ImageError if it contradicts them."""
    for key in ("BANDS", "FILTERS", "FILTER", "BAND"):
        if text := str(header.get(key, "")).strip():
            try:
                bands = bands_of(text)
            except ValueError as error:
                if key == "BANDS":
                    raise ImageError(f"its header names the bands {text!r}, which are not known: give --bands") from error
                continue
            if len(bands) == number:
                return bands
            if key == "BANDS":
                count = "1 band" if len(bands) == 1 else f"{len(bands)} bands"
                raise ImageError(f"its header names {count} ({text}) for {number} planes: give --bands")
    for key in ("BAND", "FILTER"):
        for first in (0, 1):
            bands = tuple(band_of(str(header.get(f"{key}{first + place}", ""))) for place in range(number))
            if all(bands):
                return bands
            if any(bands) and all(f"{key}{first + place}" in header for place in range(number)):
                named = sum(map(bool, bands))
                raise ImageError(f"its header names the bands of {named} of its {number} planes: give --bands")
    return ("",) * number


def _part(hdu: Any, hdus: Any, common: Any, is_alone: bool, given: int) -> Planes:
    """The planes of one HDU. common: keywords for all HDUs. is_alone: no other is read. given: the number of bands given."""
    axes = _axes(hdu)
    last = len(axes) == 3 and axes[-1] in _COLOURS_LAST and axes[0] > _COLOURS_LAST[-1]
    height, width = axes[:2] if last else axes[-2:]
    number = 1 if len(axes) == 2 else axes[-1] if last else axes[0]
    if height * width > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels are more than {MAX_PIXELS:,}")
    if number > _MOST_PLANES or number * height * width > MAX_PIXELS:
        raise ImageError(f"its image has {number:,} planes of {width} x {height} pixels: give the planes of a few bands alone")
    if number == 1:
        bands: tuple[str, ...] = (_band(hdu, common if is_alone else _NOTHING),)
    else:
        bands = ("",) * number if given else _bands(hdu.header, number)
    values = np.asarray(hdu.data).reshape(axes)
    values = values if len(axes) == 3 else values[None]
    values = values if last else np.moveaxis(values, 0, 2)
    if values.dtype != np.uint8:
        values = values.astype(np.float64)
    for place, band in enumerate(bands):
        _refuse_empty(values[..., place], f"band {band}" if band else f"plane {place + 1} of {number}")
    with _COORDINATES:
        turn, area = _north_up(hdu.header, hdus)
    scale = nanomaggies(hdu.header, area) or nanomaggies(common, area)
    return Planes(transformed(values, turn), bands, (scale,) * number)


def _refuse_empty(plane: np.ndarray, name: str) -> None:
    """Raise ImageError if a plane holds nothing, as a whole or in its centre."""
    height, width = plane.shape
    centre = plane[height // 4 : height - height // 4, width // 4 : width - width // 4]
    for part, where in ((plane, ""), (centre, " in its centre")):
        finite = part[np.isfinite(part)]
        if not finite.size:
            raise ImageError(f"{name} is empty{where}: none of its pixels has a finite value")
        if part.size > 1 and finite.min() == finite.max():
            raise ImageError(f"{name} is empty{where}: all its pixels are {finite[0]:g}")


def _north_up(header: Any, hdus: Any) -> tuple[int, float]:
    """The symmetry that brings north up and east left most nearly, and the area of a pixel in steradian.

    Without a celestial WCS, the symmetry that reverses the rows, and NaN.
    """
    from astropy.wcs import WCS

    unknown = (_UPSIDE_DOWN, float("nan"))
    try:
        wcs = WCS(header, hdus).celestial
        if wcs.naxis != 2:
            return unknown
        column, row = (header["NAXIS1"] - 1) / 2, (header["NAXIS2"] - 1) / 2
        sky = wcs.pixel_to_world([column, column + 1, column], [row, row, row + 1]).icrs
        east, north = (offset.deg[1:] for offset in sky[0].spherical_offsets_to(sky))
    except Exception as error:  # headers can be wrong in many ways, and the image is usable without them
        if lacks_memory(error):
            raise
        return unknown
    scale = np.hypot(east, north)  # of a pixel along each axis, which may differ
    if not (np.isfinite(scale) & (scale > 0)).all():
        return unknown

    def alignment(number: int) -> float:
        right, down = steps(number)
        return -float(right @ (east / scale)) - float(down @ (north / scale))

    return max(range(COUNT), key=alignment), float(np.prod(np.radians(scale)))
