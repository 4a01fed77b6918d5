"""FITS files of a made-up galaxy, and how they are read: shared by the tests beside this file."""

import io
from pathlib import Path

import numpy as np
from astropy.io import fits as astrofits
from astropy.visualization import make_lupton_rgb

from tfrecords.fits.colour import Flux, drawn, flux_of
from tfrecords.fits.look import Look, Stretch
from tfrecords.fits.planes import quiet

STRETCH = Stretch(0.5)
# Bands that a galaxy's planes stand for, red first.
RED_FIRST = ("z", "r", "g")


def galaxy(side: int = 48, seed: int = 0, peak: float = 2.0, shape: tuple[float, float, float] = (1.0, 0.7, 0.4)) -> np.ndarray:
    """Flux float32 (3, side, side), red, green and blue: a round galaxy on a noisy sky about 0, its first row at the bottom."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    light = np.exp(-np.hypot(x * 1.5, y) / side * 8)
    planes = np.stack([peak * colour * light for colour in shape]) + generator.normal(0, 0.005 * peak, (3, side, side))
    planes[:, : side // 8, : side // 4] += peak * 0.2  # tells its corners apart
    return planes.astype(np.float32)


def header(**cards: object) -> astrofits.Header:
    """A header with these cards."""
    made = astrofits.Header()
    for key, value in cards.items():
        made[key] = value
    return made


def file_of(*hdus: astrofits.PrimaryHDU | astrofits.ImageHDU | astrofits.BinTableHDU) -> bytes:
    """The bytes of a file of these HDUs."""
    buffer = io.BytesIO()
    with quiet():
        astrofits.HDUList(list(hdus)).writeto(buffer)
    return buffer.getvalue()


def cube(planes: np.ndarray, **cards: object) -> bytes:
    """The bytes of a file of one HDU with these cards."""
    return file_of(astrofits.PrimaryHDU(planes, header(**cards)))


def extensions(**images: np.ndarray) -> bytes:
    """The bytes of a file with an empty first HDU and one for each of these images, by its name."""
    return file_of(astrofits.PrimaryHDU(), *(astrofits.ImageHDU(image, name=name) for name, image in images.items()))


def flux(data: bytes, bands: tuple[str, ...] = ()) -> Flux:
    """The colours in the bytes of a file."""
    with quiet():
        return flux_of([("", data)], Look(bands))


def picture(data: bytes, stretch: Stretch = STRETCH, bands: tuple[str, ...] = ()) -> np.ndarray:
    """The picture in the bytes of a file."""
    with quiet():
        return drawn(flux_of([("", data)], Look(bands)), stretch)


def lupton(planes: np.ndarray, stretch: Stretch = STRETCH) -> np.ndarray:
    """Three planes, red first, as a FITS viewer shows them: the first row at the bottom."""
    with np.errstate(all="ignore"):
        drawn_planes: np.ndarray = make_lupton_rgb(*planes, stretch=stretch.stretch, Q=stretch.q)
    return drawn_planes[::-1]


def write(path: Path, planes: np.ndarray, **cards: object) -> Path:
    """Write a file of one HDU; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cube(planes, **cards))
    return path


def write_bands(folder: Path, name: str, planes: np.ndarray, bands: tuple[str, ...] = RED_FIRST, between: str = "_") -> None:
    """Write one file for each band of a galaxy."""
    for band, plane in zip(bands, planes, strict=True):
        write(folder / f"{name}{between}{band}.fits", plane)
