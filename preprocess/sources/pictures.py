"""The bytes of a galaxy's image, whatever its format -> its picture."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import PurePosixPath

import numpy as np

from preprocess.sources.layers import is_fits
from preprocess.sources.listing import Content, without_suffix
from tfrecords.decoding import Picture, read_picture
from tfrecords.errors import ImageError
from tfrecords.fits.bands import band_of_file
from tfrecords.fits.colour import Flux, drawn, flux_of
from tfrecords.fits.look import Look
from tfrecords.fits.planes import quiet, require_astropy
from tfrecords.images import CropSettings, StoredImage, check_galaxy, store, store_picture


def warnings_of_fits(look: Look | None) -> AbstractContextManager[None]:
    """A block without the warnings of astropy, which is imported only if there is a look, so FITS images.

    Raises ConfigError if it is missing then.
    """
    if look is None:
        return nullcontext()
    require_astropy()
    return quiet()


def flux_in(content: Content, look: Look) -> Flux:
    """The colours of a FITS image before its stretch. Raises ImageError as `colour.flux_of` does."""
    files = [(band_of_file(without_suffix(PurePosixPath(name).name))[1], data) for name, data in content.files]
    return flux_of(files or [("", content.data)], look, content.usual)


def picture_in(path: str, content: Content, look: Look | None = None) -> tuple[Picture, Flux | None]:
    """The picture of a galaxy and, of a FITS image, its colours before the stretch. look: how FITS images are drawn.

    Raises ImageError, with the reason, for an image that cannot be read, or is FITS without a look.
    """
    if not is_fits(path):
        return read_picture(content.data), None
    if look is None:
        raise ImageError("is a FITS image, for which this command has no stretch")
    flux = flux_in(content, look)
    return Picture(drawn(flux, look.stretch)), flux


def check_drawn(picture: Picture, flux: Flux | None, crop_fraction: float, look: Look | None) -> None:
    """Raise ImageError as `check_galaxy` does; of a FITS image with its stretch, and what seems wrong with it."""
    try:
        check_galaxy(picture, crop_fraction)
    except ImageError as error:
        if flux is None or flux.colours.dtype == np.uint8 or look is None:
            raise
        raise ImageError("; ".join((f"{error} at --fits_stretch {look.stretch.stretch:g}", *flux.remarks))) from error


def stored_in(
    path: str, content: Content, crop: CropSettings, look: Look | None = None, check: bool = True
) -> tuple[StoredImage, tuple[str, ...]]:
    """The crop of an image as it is stored, and what is to be said about a FITS image, in words.

    check: whether the crop must show a galaxy. Raises ImageError as `picture_in` does.
    """
    if not is_fits(path):
        return store(content.data, crop, check), ()
    picture, flux = picture_in(path, content, look)
    if check:
        check_drawn(picture, flux, crop.crop_fraction, look)
    return store_picture(picture, crop, check=False), flux.notes if flux else ()
