"""The names of bands: as headers, HDUs and files spell them, their wavelengths, and which three become the colours."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from tfrecords.errors import ImageError, SettingError

# Effective wavelengths in nm, rounded: only their order matters. Sources: SVO Filter Profile Service (SDSS, Johnson-Cousins,
# 2MASS, GALEX, WISE, Euclid VIS); red, green and blue are the colours of cameras.
_WAVELENGTHS = {
    "fuv": 154, "nuv": 231, "u": 355, "b": 440, "blue": 450, "g": 475, "green": 530, "v": 550, "r": 620, "red": 640, "vis": 715,
    "i": 760, "z": 905, "y": 1000, "j": 1250, "h": 1650, "k": 2180, "ks": 2160, "w1": 3370, "w2": 4620, "w3": 12080,
    "w4": 22190,
}  # fmt: skip
# Other spellings: SDSS' primes, Las Cumbres, the second r and i filters of Hyper Suprime-Cam.
_SPELLINGS = {f"{band}{mark}": band for band in "ugriz" for mark in "'ps"} | {"r2": "r", "i2": "i"}
_WORD = re.compile(r"[a-z]+(?:\d+[a-z]*2?)?'?")
# Filters of the Hubble and James Webb telescopes, named by their wavelengths.
_SPACE = re.compile(r"f(\d{3,4})(?:[wmnx]2?|(lp))")
# Webb's filters beyond 2 micrometres, in units of 10 nm. Hubble has none of these names, and its F435W is at 435 nm.
_WEBB = {
    "f200w", "f210m", "f212n", "f250m", "f277w", "f300m", "f322w2", "f323n", "f335m", "f356w", "f360m", "f405n", "f410m",
    "f430m", "f444w", "f460m", "f466n", "f470n", "f480m", "f560w", "f770w",
}  # fmt: skip
# What the name of an HDU may contain besides that of its band.
_GENERIC = {"band", "coadd", "compressed", "data", "filter", "flux", "image", "img", "primary", "sci", "science"}
_RED, _GREEN, _BLUE = ("i", "z"), "r", "g"
_SAME = 0.08


class Colours(NamedTuple):
    """Which planes become red, green and blue, by index; of two planes, green is the mean, and `green` is None."""

    red: int
    green: int | None
    blue: int


def wavelength(band: str) -> float:
    """The wavelength of a band, in nm. band: as `band_of` returns it."""
    if (space := _SPACE.fullmatch(band)) is not None:
        number, is_long_pass = int(space[1]), bool(space[2])
        # Infrared filters give it in units of 10 nm, like Hubble's F160W and Webb's F090W, F444W and F1000W.
        return float(number * 10 if band in _WEBB or number >= 1000 or (number < 200 and not is_long_pass) else number)
    return float(_WAVELENGTHS[band])


def is_same(band: str, other: str) -> bool:
    """Whether two names may stand for one band, as "i" and "f814w": their wavelengths differ by at most 8 %."""
    return abs(math.log(wavelength(band) / wavelength(other))) < _SAME


def band_of(text: str) -> str:
    """The band in the text of a header, as in "g DECam SDSS c0001", "HSC-R2" or "NIR_Y"; empty if none or several are there."""
    words = _WORD.findall(text.lower())
    bands = {_SPELLINGS.get(word, word) for word in words}
    bands = {band for band in bands if _is_band(band)}
    return bands.pop() if len(bands) == 1 else ""


def _is_band(name: str) -> bool:
    return name in _WAVELENGTHS or _SPACE.fullmatch(name) is not None


def band_of_hdu(name: str) -> str:
    """The band in the name of an HDU, as in "g", "SCI_R" or "IMAGE-z"; empty if the name is about anything else."""
    words = [word for word in re.split(r"[\s_.:-]+", name.lower()) if word and word not in _GENERIC]
    return band_of(words[0]) if len(words) == 1 else ""


def bands_of(text: str) -> tuple[str, ...]:
    """The bands in a list like "grz", "g,r,z" or "F814W F606W F435W", in its order. Raises ValueError for any other text."""
    words = [word for word in re.split(r"[\s,;|/+]+", text.strip()) if word]
    if len(words) == 1 and not band_of(words[0]):
        words = [*words[0]]
    bands = tuple(map(band_of, words))
    if not bands or not all(bands):
        raise ValueError(f"{text!r} is no list of bands")
    return bands


def given_bands(text: str) -> tuple[str, ...]:
    """The value of --bands; none for an empty text. Raises SettingError if it is no list of different bands."""
    if not text:
        return ()
    try:
        bands = bands_of(text)
    except ValueError as error:
        raise SettingError(f"--bands {text}: give bands in the order of the file, like grz or F814W,F606W,F435W") from error
    if len({*bands}) < len(bands):
        raise SettingError(f"--bands {text}: names a band twice")
    return bands


def colours_of(bands: Sequence[str]) -> Colours:
    """Which of these bands become red, green and blue, from the longest wavelength to the shortest.

    Of more than three: i (else z), r and g if they are there, else the longest, the middle and the shortest. Raises ImageError
    for a band that comes twice, and for a single one.
    """
    if len(bands) < 2:
        raise ImageError("one band makes no colours")
    if twice := sorted({band for band in bands if list(bands).count(band) > 1}):
        raise ImageError(f"band {twice[0]} comes twice ({', '.join(bands)})")
    order = sorted(range(len(bands)), key=lambda place: -wavelength(bands[place]))
    if len(bands) == 2:
        return Colours(order[0], None, order[1])
    if len(bands) > 3:
        red = next((band for band in _RED if band in bands), "")
        if red and _GREEN in bands and _BLUE in bands:
            return Colours(bands.index(red), bands.index(_GREEN), bands.index(_BLUE))
    return Colours(order[0], order[len(order) // 2], order[-1])


def drawn_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """Those of at least two bands that become colours; none of none."""
    return tuple(bands[place] for place in colours_of(bands) if place is not None) if bands else ()


# NAME_g.fits, NAME-r.fits, NAME.z.fits: one file per band of a galaxy.
_OF_FILE = re.compile(r"(?P<name>.+)[_.-](?P<band>[A-Za-z]\w{0,6})")


def band_of_file(stem: str) -> tuple[str, str]:
    """The name of the galaxy and the band in the name of a file without its suffix; the whole stem if it names no band."""
    match = _OF_FILE.fullmatch(stem)
    word = match["band"].lower() if match else ""
    band = _SPELLINGS.get(word, word)
    if match is None or not _is_band(band):
        return stem, ""
    return match["name"], band
