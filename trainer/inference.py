"""Image files on their way through the models of runs: drawn as the training images were, and streamed."""

import contextlib
import functools
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from preprocess.sources import Listing, chosen_look, sample_of_fits
from tfrecords.errors import ConfigError, SourceError
from tfrecords.fits.look import DEFAULT_STRETCH, SDSS, Look, Stretch
from tfrecords.progress import progress_bar
from trainer.backends.base import Devices, Result, in_turn
from trainer.images.cutouts import Crop, Cutouts, UnreadableImage, listed, stream
from trainer.images.ranges import Trained, outside, warnings_of
from trainer.listings import listed_once
from trainer.run import Run

log = logging.getLogger("trainer")
BATCH_SIZE = 64
_NAMED_UNREADABLE = 3
_STRETCH = Stretch()

# Starts: the crops of a batch, uint8 (rows, size, size, 3) for each crop of the runs -> float (rows, outputs).
Function = Callable[[Sequence[np.ndarray]], Result]


def crop_of(run: Run) -> Crop:
    """The crop of a run's training images."""
    return Crop(run.config["dataset"]["crop_fraction"], run.config["dataset"]["size"])


def crops_of(runs: Sequence[Run]) -> tuple[Crop, ...]:
    """The crops of several runs, each once."""
    return tuple(dict.fromkeys(map(crop_of, runs)))


class ImageOutputs(NamedTuple):
    """What came out for the images of a batch: galaxy_ids int64 (n,), outputs float32 (n, outputs)."""

    galaxy_ids: np.ndarray
    outputs: np.ndarray


@dataclass(frozen=True)
class Noticed:
    """What was noticed about images on their way: numbers, so that those of several batches add up.

    marks: of galaxies, as `ranges.outside` returns them. notes: what was done with the planes of FITS images. enlarged: images
    of few pixels. rejected: images that cannot be used; first: the first of these.
    """

    marks: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    enlarged: int = 0
    rejected: int = 0
    first: tuple[UnreadableImage, ...] = ()

    def __add__(self, other: "Noticed") -> "Noticed":
        return Noticed(
            self.marks + other.marks,
            self.notes + other.notes,
            self.enlarged + other.enlarged,
            self.rejected + other.rejected,
            (*self.first, *other.first)[:_NAMED_UNREADABLE],
        )

    @property
    def outside(self) -> np.ndarray:
        """The marks of all galaxies, str (n,), in any order."""
        return np.repeat(np.array([*self.marks], object), [*self.marks.values()])


class ImageBatch(NamedTuple):
    """The images of a batch: those that can be used, in the order of their ids, and those that cannot.

    galaxy_ids: int64 (n,). outputs: float32 (n, outputs). outside: str (n,), as `ranges.outside` returns it.
    """

    galaxy_ids: np.ndarray
    outputs: np.ndarray
    outside: np.ndarray
    rejected: tuple[UnreadableImage, ...]
    noticed: Noticed


class ImageFiles:
    """The images of a listing for the models of runs.

    crops: those of the runs. look: how FITS images are drawn. rejected: images that could not be read, or show no galaxy, of
    those that `through` has passed.
    """

    def __init__(self, runs: Sequence[Run], path: Path, images: Listing, look: Look) -> None:
        self.crops = crops_of(runs)
        self.look = look
        self.rejected: list[UnreadableImage] = []
        self._runs, self._path, self._images = tuple(runs), path, images

    def __len__(self) -> int:
        return len(self._images)

    @property
    def galaxy_ids(self) -> np.ndarray:
        """The galaxies of all images, int64 (n,), sorted."""
        return self._images.galaxy_id

    @property
    def named(self) -> bool:
        """Whether galaxies have names, because not all of them are numbers."""
        return bool(self._images.parts)

    def names(self, galaxy_ids: np.ndarray) -> np.ndarray | None:
        """The names of some galaxies, str (n,); None if all of the listing are numbers."""
        if not self.named:
            return None
        rows = np.searchsorted(self._images.galaxy_id, galaxy_ids)  # a listing is sorted by them
        return np.array([self._images.name(row) for row in rows.tolist()], object)

    def stretch(self, noticed: Noticed) -> float | None:
        """The stretch of the FITS images; None if none was noticed."""
        return self.look.stretch.stretch if noticed.notes else None

    def digest(self) -> str:
        """A hash of the galaxies and their files: sizes, CRC-32s in zips, positions in zips or else times of change."""
        digest = hashlib.sha256()
        for images in (self._images, self._images.files):
            if images is not None:
                for column in (images.galaxy_id, images.size, images.crc, images.position):
                    digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()

    def pictures(self, galaxy_ids: np.ndarray) -> dict[int, np.ndarray]:
        """The crops of some galaxies for the first run by GalaxyID, all in memory. Raises SourceError if one cannot be used."""
        some = self._images.rows(np.flatnonzero(np.isin(self._images.galaxy_id, galaxy_ids)))
        pictures: dict[int, np.ndarray] = {}
        for batch in stream(some, self.crops[:1], BATCH_SIZE, self.look):
            if batch.rejected:
                raise SourceError(f"{self._path}: cannot use {_reason(batch.rejected[0])}: choose another galaxy")
            pictures |= zip(batch.galaxy_ids.tolist(), batch.crops[0], strict=True)
        return pictures

    @functools.cached_property
    def _trained(self) -> list[Trained]:
        """What the runs were trained on; logs what is not known of it."""
        for run in self._runs:
            lacking = [("scale", run.ranges.radius), ("brightness", run.ranges.bright)]
            if words := " and ".join(word for word, ends in lacking if ends is None):
                log.info(
                    "%s: has no record of the %s of its galaxies: no warning about images of another one", run.folder, words
                )
        return [Trained(self.crops.index(crop_of(run)), run.ranges) for run in self._runs]

    def rows(self, devices: Devices) -> int:
        """The number of images in a batch."""
        return devices.rounded(min(BATCH_SIZE, len(self)))

    def batches(self, function: Function, devices: Devices, start: int = 0, stop: int | None = None) -> Iterator[ImageBatch]:
        """The outputs of a function for the images from number `start` to `stop` (None: all), in the order of their ids.

        The function always gets the same number of rows, of which the last may be zeros. If `start` is a multiple of `rows`,
        an image comes in the same batch for any `start`. A batch may have no image that can be used.
        """
        from trainer.input.evaluation import padded  # TensorFlow, which `choose` has loaded quietly

        images, rows = self._images, self.rows(devices)
        if (start, stop or len(self)) != (0, len(self)):
            images = images.rows(np.arange(start, len(self) if stop is None else stop))
        is_outside = functools.partial(outside, trained=self._trained)

        def started() -> Iterator[tuple[Cutouts, Result]]:
            for batch in stream(images, self.crops, rows, self.look, is_outside):
                usable = len(batch.galaxy_ids) > 0
                yield batch, function([padded(crops, rows) for crops in batch.crops]) if usable else _no_rows

        for batch, outputs in in_turn(started()):
            noticed = Noticed(
                Counter(batch.outside.tolist()),
                batch.notes,
                int(batch.enlarged.sum()),
                len(batch.rejected),
                batch.rejected[:_NAMED_UNREADABLE],
            )
            outputs = outputs[: len(batch.galaxy_ids)].astype(np.float32)
            yield ImageBatch(batch.galaxy_ids, outputs, batch.outside, batch.rejected, noticed)

    def through(self, function: Function, devices: Devices, doing: str) -> Iterator[ImageOutputs]:
        """The outputs of a function for all images that can be used, in the order of their ids, a batch at a time.

        At the end, warnings are logged as by `conclude`, which may raise SourceError. doing: for the progress bar.
        """
        noticed = Noticed()
        with progress_bar(len(self), doing, "images") as bar:
            for batch in self.batches(function, devices):
                self.rejected += batch.rejected
                noticed += batch.noticed
                if len(batch.galaxy_ids):
                    yield ImageOutputs(batch.galaxy_ids, batch.outputs)
                bar.update(len(batch.galaxy_ids) + len(batch.rejected))
        self.conclude(noticed)

    def conclude(self, noticed: Noticed) -> None:
        """Log warnings for images that cannot be used or are unlike the training images.

        noticed: about all images. Raises SourceError if none can be used.
        """
        marks = noticed.outside
        if not len(marks):
            first = _reason(noticed.first[0])
            raise SourceError(f"{self._path}: none of its {noticed.rejected:,} images can be used; the first is {first}")
        if noticed.rejected:
            first = ", ".join(map(_reason, noticed.first))
            more = ", ..." if noticed.rejected > _NAMED_UNREADABLE else ""
            log.warning(f"{noticed.rejected:,} of {len(self):,} images cannot be used and are skipped: {first}{more}")
        share = f"of {len(marks):,} images"
        for note, number in noticed.notes.most_common():
            log.warning("%s %s, FITS: %s", f"{number:,}", share, note)
        if noticed.enlarged:
            log.warning(
                f"{noticed.enlarged:,} {share} have fewer pixels in the crop than the model expects and were enlarged: "
                "use larger images if possible"
            )
        for line in warnings_of(marks, [one.ranges for one in self._trained]):
            log.warning(line)


def _no_rows() -> np.ndarray:
    return np.zeros((0, 0), np.float32)


def _reason(image: UnreadableImage) -> str:
    return f"{image.path} ({image.reason})"


@contextlib.contextmanager
def image_files(runs: Sequence[Run], path: Path, asked: Look, folder: Path | None = None) -> Iterator[ImageFiles]:
    """The images of a file, a folder or a zip for the models of runs, readable within the block.

    asked: how FITS images are to be drawn. By default as those of training, or as bright as them; what was chosen is logged.
    folder: a work folder whose processes share a listing. Raises SourceError if there are no images, and ConfigError if FITS
    images need a package that is not installed.
    """
    with listed(path) if folder is None else listed_once(path, folder) as images:
        yield ImageFiles(runs, path, images, _look(runs, path, images, asked))


def _look(runs: Sequence[Run], path: Path, images: Listing, asked: Look) -> Look:
    """How the FITS images of a listing are drawn: as those of training, or as bright as them. Logs what was chosen."""
    sample = sample_of_fits(images)
    if not len(sample):
        asked.refuse_without_fits(path)
        return asked
    looks = {run.look: run for run in runs if run.look is not None}
    if trained := next(iter(looks), None):
        asked = replace(asked, otherwise=trained.bands)
        if trained.bands and not asked.bands:
            log.info("FITS images: bands %s, as for the training images, unless a header names others", ",".join(trained.bands))
        if asked.stretch == _STRETCH:
            if len({look.stretch for look in looks}) > 1:
                both = " and ".join(f"{run.folder} ({look.stretch.stretch:g})" for look, run in [*looks.items()][:2])
                raise ConfigError(f"{both} were trained on FITS images of different stretches: predict with each alone")
            log.info("FITS images: --fits_stretch %g, as for the training images", trained.stretch.stretch)
            return replace(asked, stretch=trained.stretch)
    measured = next((run for run in runs if run.ranges.bright is not None), None)
    if measured is None and asked.stretch.stretch is None:
        log.info("FITS images: --fits_stretch %g, as the run has no record of the brightness of its galaxies", DEFAULT_STRETCH)
        return replace(asked, stretch=Stretch(DEFAULT_STRETCH, asked.stretch.q))
    wanted = SDSS if measured is None or measured.ranges.bright is None else measured.ranges.bright
    look, choice = chosen_look(sample, crop_of(measured or runs[0]).crop_fraction, wanted, asked)
    if choice.reason:
        log.info("FITS images: --fits_stretch %g chosen, as %s", look.stretch.stretch, choice.reason)
    return look
