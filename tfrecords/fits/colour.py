"""The planes of a galaxy -> an 8-bit colour picture, as survey cutouts are drawn.

The stretch is that of Lupton et al. 2004 (PASP 116, 133), which SDSS uses for its colour images; astropy computes it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfrecords.errors import ImageError, lacks_memory, squeezed
from tfrecords.fits.bands import colours_of, drawn_bands, is_same
from tfrecords.fits.look import BRIGHT, Look, Stretch
from tfrecords.fits.planes import Planes, read_planes, together

# A border brighter than this share of the galaxy's brightest parts is a sky that was left in, or seems to be: measured by
# `benchmarks.emptiness`.
_SKY, _SOME_SKY = 0.7, 0.3
_MOST_LACKING = 0.1  # of the centre, without a value in one of the colours
_LOOK = Look()
_BORDER = 0.05


class Flux(NamedTuple):
    """The colours of a galaxy before the stretch.

    colours: (height, width, 3) in the order R, G, B, float64, or uint8 for a picture that is not stretched. note: what
    was done with the planes, in words. units: the colours are in nanomaggies.
    remarks: sentences about what seems wrong: a sky that was left in, units of some planes only, bands that are not used.
    """

    colours: np.ndarray
    note: str
    units: bool
    remarks: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """All that is to be said about it."""
        return (self.note, *self.remarks)


def flux_of(files: Sequence[tuple[str, bytes]], look: Look = _LOOK, usual: tuple[str, ...] = ()) -> Flux:
    """The colours of a galaxy from its FITS files.

    files: the band that the name of each gives, and its bytes; an empty band for a file that holds all. usual: the bands of
    most galaxies with one file per band, so that all have the same colours. A pixel without a finite value in one of the
    colours is 0 in all of them. Raises ImageError, with the reason, for files without an image of known bands, for planes that
    lack values in their centre, and for images whose sky was left in.
    """
    mean_green, bands = False, look.bands
    is_whole = not files[0][0]
    planes = read_planes(files[0][1], bands) if is_whole else _of_files(files, bands, usual)
    names, number = planes.bands, planes.values.shape[2]
    if bands and is_whole:
        if len(bands) != number:
            raise ImageError(f"its number of planes is {number}, but --bands names {len(bands)}")
        names = bands
    elif is_whole and not all(names) and len(look.otherwise) == number:
        names = look.otherwise
    if number == 1:
        places, note = (0, 0, 0), "one plane, drawn in grey; give three bands if possible"
    elif not all(names):
        if number != 3:
            raise ImageError(f"its header does not name the bands of its {number} planes: give --bands")
        places, note = (0, 1, 2), "no names of bands, so the planes are red, green and blue in this order; if not, give --bands"
    else:
        red, green, blue = colours_of(names)
        places = (red, blue if green is None else green, blue)
        shown = "their mean" if green is None else names[green]
        choice = f", of the bands {', '.join(names)}" if number > 3 else ""
        note = f"red, green and blue are {names[red]}, {shown} and {names[blue]}{choice}"
        mean_green = green is None
    colours, units = _colours(planes, places)
    if mean_green:
        colours = _mean_green(colours)
    remarks = [] if colours.dtype == np.uint8 else [_sky(colours)]
    if not units and any(planes.scales[place] is not None for place in places):
        remarks.append("only some of the planes have units, so none is used")
    if unused := [band for band, _ in files if band and band not in names]:
        remarks.append(f"files of band {', '.join(unused)} are not used" + ("" if bands else ", as most galaxies have none"))
    return Flux(colours, note, units, tuple(filter(None, remarks)))


def _of_files(files: Sequence[tuple[str, bytes]], bands: tuple[str, ...], usual: tuple[str, ...]) -> Planes:
    """The planes of a galaxy that has one file per band."""
    there = {band for band, _ in files}
    if lacking := [band for band in bands if band not in there]:
        raise ImageError(f"it has no file of band {lacking[0]}")
    if not bands and (lacking := [band for band in drawn_bands(usual) if band not in there]):
        raise ImageError(f"it has no file of band {lacking[0]}, unlike most: add the file, or choose other bands with --bands")
    parts = []
    for band, data in files:
        if band not in (bands or usual or there):
            continue
        try:
            part = read_planes(data)
        except ImageError as error:
            raise ImageError(f"band {band}: {error}") from error
        if len(part.bands) != 1:
            raise ImageError(f"band {band}: its file has {len(part.bands)} planes")
        if part.bands[0] and not is_same(part.bands[0], band):
            raise ImageError(f"the file named after band {band} is of band {part.bands[0]}, by its header")
        parts.append(Planes(part.values, (band,), part.scales))
    return together(parts)


def _colours(planes: Planes, places: Sequence[int]) -> tuple[np.ndarray, bool]:
    """Three planes as colours, and whether they are in nanomaggies: if all of them have units, and are no picture."""
    colours = planes.values[..., list(places)]
    if colours.dtype == np.uint8:
        return colours, False
    scales = [scale for place in places if (scale := planes.scales[place]) is not None]
    units = len(scales) == len(places)
    colours = colours * scales if units else colours
    lacking = ~np.isfinite(colours)
    height, width = lacking.shape[:2]
    centre = lacking[height // 4 : height - height // 4, width // 4 : width - width // 4].any(axis=2)
    if centre.mean() > _MOST_LACKING:
        raise ImageError(f"{centre.mean():.0%} of its centre has no finite value in one of the colours")
    return np.where(lacking.any(axis=2, keepdims=True), 0, colours), units


def _mean_green(colours: np.ndarray) -> np.ndarray:
    mean = colours[..., [0, 2]].mean(axis=2)
    colours = colours.copy()
    colours[..., 1] = np.rint(mean) if colours.dtype == np.uint8 else mean
    return colours


def drawn(flux: Flux, stretch: Stretch) -> np.ndarray:
    """The picture, uint8 (height, width, 3)."""
    if flux.colours.dtype == np.uint8:
        return np.ascontiguousarray(flux.colours)
    return stretched(flux.colours, stretch)


def stretched(colours: np.ndarray, stretch: Stretch) -> np.ndarray:
    """Colours, float64 (..., 3) of two axes of pixels, in Lupton's stretch, uint8 of the same shape."""
    from astropy.visualization import make_lupton_rgb

    assert stretch.stretch is not None  # chosen before anything is drawn
    try:
        with np.errstate(all="ignore"):
            picture = make_lupton_rgb(*np.moveaxis(colours, -1, 0), stretch=stretch.stretch, Q=stretch.q)
    except Exception as error:
        if lacks_memory(error):
            raise MemoryError("drawing FITS") from error
        raise ImageError(f"cannot be drawn ({squeezed(error)})") from error
    return np.ascontiguousarray(picture)


def border_and_bright(colours: np.ndarray) -> tuple[float, float]:
    """The median flux of an image's border, and the level that 99.5 % of its pixels do not exceed. colours: (h, w, 3)."""
    light = colours.mean(axis=2)
    edge = max(1, round(_BORDER * min(light.shape)))
    inner = np.zeros(light.shape, bool)
    inner[edge:-edge, edge:-edge] = True
    return float(np.median(light[~inner])), float(np.percentile(light, BRIGHT))


def _sky(colours: np.ndarray) -> str:
    """A sentence about a sky that was left in, empty without one. Raises ImageError if with it all would be white."""
    sky, bright = border_and_bright(colours)
    if sky > _SKY * bright > 0:
        shown, brightest = (f"{level:,.0f}" if level >= 1000 else f"{level:.3g}" for level in (sky, bright))
        raise ImageError(f"a sky of {shown} was left in, against {brightest} in its brightest parts: subtract it first")
    return "a sky seems to be left in: subtract it" if sky > _SOME_SKY * bright > 0 else ""
