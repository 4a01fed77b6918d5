"""The names of bands: as headers, HDUs and files spell them, their wavelengths, and which three become the colours."""

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
_WORD = re.compile(r"[a-z]+(?:\d+[a-z]*)?'?")
# Filters of the Hubble and James Webb telescopes, named by their wavelengths.
_SPACE = re.compile(r"f(\d{3,4})(?:[wmnx]2?|lp)")
# What the name of an HDU may contain besides that of its band.
_GENERIC = {"band", "coadd", "compressed", "data", "filter", "flux", "image", "img", "primary", "sci", "science"}
_RED, _GREEN, _BLUE = ("i", "z"), "r", "g"


class Colours(NamedTuple):
    """Which planes become red, green and blue, by index; of two planes, green is the mean, and `green` is None."""

    red: int
    green: int | None
    blue: int


def wavelength(band: str) -> float:
    """The wavelength of a band, in nm. band: as `band_of` returns it."""
    if (space := _SPACE.fullmatch(band)) is not None:
        # Infrared filters give it in units of 10 nm: F160W of Hubble's camera, F090W to F480M of Webb's.
        number = int(space[1])
        return float(number * 10 if number < 200 else number)
    return float(_WAVELENGTHS[band])


def band_of(text: str, webb: bool = False) -> str:
    """The band in the text of a header, as in "g DECam SDSS c0001", "HSC-R2" or "NIR_Y"; empty if none or several are there.

    webb: the image is of the James Webb telescope, whose F444W is at 4.44 micrometres, unlike Hubble's F435W.
    """
    words = _WORD.findall(text.lower())
    bands = {_SPELLINGS.get(word, word) for word in words}
    bands = {_webb(band) if webb else band for band in bands if band in _WAVELENGTHS or _SPACE.fullmatch(band)}
    return bands.pop() if len(bands) == 1 else ""


def _webb(band: str) -> str:
    space = _SPACE.fullmatch(band)
    return f"f{int(space[1]) * 10:04d}w" if space and 200 <= int(space[1]) < 1000 else band


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


# NAME_g.fits, NAME-r.fits, NAME.z.fits: one file per band of a galaxy.
_OF_FILE = re.compile(r"(?P<name>.+)[_.-](?P<band>[A-Za-z]\w{0,6})")


def band_of_file(stem: str) -> tuple[str, str]:
    """The name of the galaxy and the band in the name of a file without its suffix; the whole stem if it names no band."""
    match = _OF_FILE.fullmatch(stem)
    word = match["band"].lower() if match else ""
    band = _SPELLINGS.get(word, word)
    if match is None or not (band in _WAVELENGTHS or _SPACE.fullmatch(band)):
        return stem, ""
    return match["name"], band
