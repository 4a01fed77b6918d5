"""Image files in a file, a folder or a zip -> a stream of crops like those that runs were trained on."""

import contextlib
import errno
import logging
import os
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from preprocess.sources import ImageReader, Listing, check_drawn, find_images, is_fits, picture_in
from tfrecords.errors import ImageError, SourceError, one_line
from tfrecords.fits.look import Look
from tfrecords.fits.planes import quiet, require_astropy
from tfrecords.images import crop, crop_box

log = logging.getLogger("trainer")
_AHEAD_BATCHES = 2
# Errors that are not the fault of an image: out of memory, too many open files.
_OF_THE_MACHINE = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
_PIECE = 8  # images in a task of a thread, which opens their zip once


class Crop(NamedTuple):
    """The crop of a run: side of the centred square over the image's shorter side, and the size it is scaled to in pixels."""

    crop_fraction: float
    size: int


class UnreadableImage(NamedTuple):
    """An image that could not be read: its galaxy (a number, or a name), its path, and the reason."""

    galaxy: int | str
    path: str
    reason: str


@dataclass(frozen=True)
class Cutouts:
    """The images of a listing that could be read, in its order.

    galaxy_ids: int64 (n,). crops: for each requested Crop, uint8 (n, size, size, 3). enlarged: bool (n,), one of the crops had
    fewer pixels than its size. outside: str (n,), how each is unlike the training galaxies, as `ranges.outside` returns it.
    notes: what was done with the planes of FITS images, in words, and the number of images. rejected: the images that could
    not be read, or show no galaxy.
    """

    galaxy_ids: np.ndarray
    crops: tuple[np.ndarray, ...]
    enlarged: np.ndarray
    outside: np.ndarray
    notes: Counter[str]
    rejected: tuple[UnreadableImage, ...]


# Crops of n galaxies, uint8 (n, size, size, 3) each -> str (n,).
Outside = Callable[[Sequence[np.ndarray]], np.ndarray]


def _nowhere(crops: Sequence[np.ndarray]) -> np.ndarray:
    return np.full(len(crops[0]), "", object)


@contextlib.contextmanager
def listed(path: Path) -> Iterator[Listing]:
    """The images in a file, a folder or a zip, one per GalaxyID, sorted by it, and readable within the block.

    Zips that are compressed inside a zip are copied to the system's folder for temporary files until the block ends. Raises
    SourceError as `sources.find_images` does, and ConfigError if there are FITS images but astropy is missing.
    """
    with tempfile.TemporaryDirectory(prefix="galaxy-zoo-") as scratch, contextlib.ExitStack() as on_exit:
        images, left = find_images(path, Path(scratch))
        for line in left.lines():
            log.warning("%s", line)
        if any(is_fits(images.path(row)) for row in range(len(images))):
            require_astropy()
            on_exit.enter_context(quiet())
        yield images


def _read(images: Listing, rows: np.ndarray, crops: Sequence[Crop], look: Look, outside: Outside) -> Cutouts:
    """These rows of a listing: the work of one thread."""
    targets = [np.empty((len(rows), size, size, 3), np.uint8) for _, size in crops]
    enlarged, kept, rejected = np.zeros(len(rows), bool), [], []
    notes: Counter[str] = Counter()
    with ImageReader() as reader:
        for place, row in enumerate(rows.tolist()):
            path = images.path(row)
            try:
                picture, flux = picture_in(path, reader.read(images, row), look)
                image = picture.pixels
                for target, (fraction, size) in zip(targets, crops, strict=True):
                    check_drawn(picture, flux, fraction, look)
                    target[place] = crop(image, fraction, size)
                    enlarged[place] |= crop_box(image.shape[0], image.shape[1], fraction)[2] < size
            except (ImageError, SourceError, OSError) as error:  # SourceError: it has changed or gone since it was listed
                if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
                    raise
                rejected.append(UnreadableImage(images.galaxy(row), path, one_line(error)))
            else:
                kept.append(place)
                notes.update(flux.notes if flux else ())
    good = tuple(part[kept] for part in targets)
    return Cutouts(images.galaxy_id[rows[kept]], good, enlarged[kept], outside(good), notes, tuple(rejected))


def _together(parts: Sequence[Cutouts]) -> Cutouts:
    return Cutouts(
        np.concatenate([part.galaxy_ids for part in parts]),
        tuple(np.concatenate(of_crop) for of_crop in zip(*(part.crops for part in parts), strict=True)),
        np.concatenate([part.enlarged for part in parts]),
        np.concatenate([part.outside for part in parts]),
        sum((part.notes for part in parts), Counter()),
        tuple(image for part in parts for image in part.rejected),
    )


def stream(
    images: Listing,
    crops: Sequence[Crop],
    batch_size: int,
    look: Look,
    outside: Outside = _nowhere,
) -> Iterator[Cutouts]:
    """All images of a listing in its order, `batch_size` at a time, fewer if some cannot be read.

    look: how FITS images are drawn. outside: from the crops, how galaxies are unlike those of training; called in the threads.

    A thread for each core decodes ahead. In memory at any time: the crops of at most three batches, the current one and two
    ahead (64 images at 212 x 212 are 9 MB per batch and crop; twice that while a batch is assembled), and for each core one
    whole image with the bytes of its file.
    """
    rows = np.arange(len(images))
    starts = iter(range(0, len(rows), batch_size))
    waiting: deque[list[Future[Cutouts]]] = deque()
    pool = ThreadPoolExecutor(os.cpu_count() or 1, "decode")

    def submit() -> None:
        if (start := next(starts, None)) is not None:
            batch = rows[start : start + batch_size]
            pieces = [batch[first : first + _PIECE] for first in range(0, len(batch), _PIECE)]
            waiting.append([pool.submit(_read, images, piece, crops, look, outside) for piece in pieces])

    try:
        for _ in range(_AHEAD_BATCHES):
            submit()
        while waiting:
            submit()
            yield _together([future.result() for future in waiting.popleft()])
    finally:
        pool.shutdown(cancel_futures=True)
