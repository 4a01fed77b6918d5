"""The look of all FITS images of a set: one stretch for them, chosen from a sample."""

from dataclasses import replace

import numpy as np

from preprocess.sources.layers import is_fits
from preprocess.sources.listing import ImageReader, Listing
from preprocess.sources.pictures import flux_in
from tfrecords.errors import ImageError, SourceError
from tfrecords.fits.choice import StretchChoice, choose_stretch, thinned
from tfrecords.fits.look import Brightness, Look
from tfrecords.fits.planes import quiet, require_astropy
from tfrecords.images import crop_box

SAMPLE = 64  # images, evenly spaced


def evenly_spaced(rows: np.ndarray) -> np.ndarray:
    """Up to 64 of these rows, evenly spaced."""
    return np.asarray(rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE)).astype(int))])


def sample_of_fits(images: Listing) -> Listing:
    """Up to 64 FITS images of a listing, evenly spaced; empty if it has none."""
    return images.part(evenly_spaced(np.array([row for row in range(len(images)) if is_fits(images.path(row))], np.int64)))


def chosen_look(
    sample: Listing, crop_fraction: float, wanted: Brightness, look: Look, like: str = "in training"
) -> tuple[Look, StretchChoice]:
    """The look with a stretch, and why it was chosen; unreadable images do not count.

    sample: FITS images. look: what was asked for. like: whose brightness is wanted, in words. Raises ConfigError if astropy is
    missing.
    """
    require_astropy()
    if look.stretch.stretch is not None:
        return look, StretchChoice(look.stretch, "")
    samples, units = [], True
    with ImageReader() as reader, quiet():
        for row in range(len(sample)):
            try:
                flux = flux_in(reader.read(sample, row), look)
                height, width = flux.colours.shape[:2]
                if flux.colours.dtype != np.uint8:
                    samples.append(thinned(flux, crop_box(height, width, crop_fraction)))
                    units &= flux.units
            except (ImageError, SourceError):  # rejected with the reason where all images are read
                continue
    choice = choose_stretch(samples, wanted, look.stretch, units, like)
    return replace(look, stretch=choice.stretch), choice
