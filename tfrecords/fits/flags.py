"""The flags for FITS images, which `preprocess` and `trainer predict` share."""

from argparse import ArgumentTypeError
from typing import Any

from tfrecords.fits.bands import given_bands
from tfrecords.fits.look import DEFAULT_STRETCH, Look, Stretch

_AUTO = "auto"


def _stretch(text: str) -> float | None:
    """The value of --fits_stretch; None for auto."""
    if text == _AUTO:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text} is neither {_AUTO} nor a number") from error


def add_fits_flags(parser: Any, like: str) -> None:
    """Add the group of flags for FITS images. like: what they are made as bright as, in words."""
    add = parser.add_argument_group("FITS images", "Flux on a linear scale, with the sky subtracted.").add_argument
    add(
        "--bands",
        default=None,
        metavar="BANDS",
        help="bands of the planes, in the order of the file, like grz or F814W,F606W,F435W; red is the longest wavelength and "
        "blue the shortest, of more than three i or z, r and g (default: as the headers name them)",
    )
    add(
        "--fits_stretch",
        type=_stretch,
        default=None,
        metavar="FLUX",
        help="flux per pixel up to which brightness grows linearly (Lupton et al. 2004), in nanomaggies where headers give "
        f"units; {DEFAULT_STRETCH} suits SDSS (default: {_AUTO}, one for all files, with which they are as bright as {like})",
    )
    add(
        "--fits_q",
        type=float,
        default=None,
        metavar="Q",
        help=f"softening of brighter flux, Q of Lupton et al. 2004 (default: {Stretch.q:g})",
    )


def look_of(args: Any) -> Look:
    """The look that the flags ask for. Raises SettingError for a value that is none."""
    return Look(given_bands(args.bands or ""), Stretch(args.fits_stretch, Stretch.q if args.fits_q is None else args.fits_q))
