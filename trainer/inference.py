"""Image files on their way through the models of runs: drawn as the training images were, and streamed."""

import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from preprocess.sources import Listing, chosen_look, sample_of_fits
from tfrecords.errors import ConfigError, SourceError
from tfrecords.fits.look import DEFAULT_STRETCH, SDSS, Look, Stretch
from tfrecords.progress import progress_bar
from trainer.backends.base import Devices, Result, in_turn
from trainer.images.cutouts import Crop, UnreadableImage, listed, stream
from trainer.images.ranges import Trained, outside, warnings_of
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


class ImageFiles:
    """The images of a listing for the models of runs, and what was noticed about those that `through` has passed.

    crops: those of the runs. look: how FITS images are drawn. rejected: images that could not be read, or show no galaxy.
    """

    def __init__(self, runs: Sequence[Run], path: Path, images: Listing, look: Look) -> None:
        self.crops = crops_of(runs)
        self.look = look
        self.rejected: list[UnreadableImage] = []
        self._runs, self._path, self._images = tuple(runs), path, images
        self._outside: list[np.ndarray] = []
        self._notes: Counter[str] = Counter()
        self._enlarged = 0

    def __len__(self) -> int:
        return len(self._images)

    @property
    def galaxy_ids(self) -> np.ndarray:
        """The galaxies of all images, int64 (n,), sorted."""
        return self._images.galaxy_id

    @property
    def outside(self) -> np.ndarray:
        """How each galaxy that came through is unlike the training galaxies, as `ranges.outside` returns it: str (n,)."""
        return np.concatenate(self._outside)

    @property
    def stretch(self) -> float | None:
        """The stretch of the FITS images; None without any."""
        return self.look.stretch.stretch if self._notes else None

    def names(self, galaxy_ids: np.ndarray) -> np.ndarray | None:
        """The names of some galaxies, str (n,); None if all of the listing are numbers."""
        if not self._images.parts:
            return None
        rows = np.searchsorted(self._images.galaxy_id, galaxy_ids)  # a listing is sorted by them
        return np.array([self._images.name(row) for row in rows.tolist()], object)

    def pictures(self, galaxy_ids: np.ndarray) -> dict[int, np.ndarray]:
        """The crops of some galaxies for the first run by GalaxyID, all in memory. Raises SourceError if one cannot be used."""
        some = self._images.rows(np.flatnonzero(np.isin(self._images.galaxy_id, galaxy_ids)))
        pictures: dict[int, np.ndarray] = {}
        for batch in stream(some, self.crops[:1], BATCH_SIZE, self.look):
            if batch.rejected:
                raise SourceError(f"{self._path}: cannot use {_reason(batch.rejected[0])}: choose another galaxy")
            pictures |= zip(batch.galaxy_ids.tolist(), batch.crops[0], strict=True)
        return pictures

    def through(self, function: Function, devices: Devices, doing: str) -> Iterator[ImageOutputs]:
        """The outputs of a function for all images that can be used, in the order of their ids, a batch at a time.

        The function always gets the same number of rows, of which the last may be zeros. At the end, warnings are logged for
        images that cannot be used or are unlike the training images. Raises SourceError if none can be used. doing: for the
        progress bar.
        """
        from trainer.input.evaluation import padded  # TensorFlow, which `choose` has loaded quietly

        trained = [Trained(self.crops.index(crop_of(run)), run.ranges) for run in self._runs]
        for run in self._runs:
            lacking = [("scale", run.ranges.radius), ("brightness", run.ranges.bright)]
            if words := " and ".join(word for word, ends in lacking if ends is None):
                log.info(
                    "%s: has no record of the %s of its galaxies: no warning about images of another one", run.folder, words
                )
        is_outside = functools.partial(outside, trained=trained)
        rows = devices.rounded(min(BATCH_SIZE, len(self._images)))
        with progress_bar(len(self._images), doing, "images") as bar:

            def started() -> Iterator[tuple[np.ndarray, Result]]:
                for batch in stream(self._images, self.crops, rows, self.look, is_outside):
                    self.rejected += batch.rejected
                    bar.update(len(batch.rejected))
                    if len(batch.galaxy_ids):
                        self._outside.append(batch.outside)
                        self._notes += batch.notes
                        self._enlarged += int(batch.enlarged.sum())
                        yield batch.galaxy_ids, function([padded(crops, rows) for crops in batch.crops])

            for galaxy_ids, outputs in in_turn(started()):
                yield ImageOutputs(galaxy_ids, outputs[: len(galaxy_ids)].astype(np.float32))
                bar.update(len(galaxy_ids))
        if not self._outside:
            first = _reason(self.rejected[0])
            raise SourceError(f"{self._path}: none of its {len(self.rejected):,} images can be used; the first is {first}")
        self._warn(trained)

    def _warn(self, trained: Sequence[Trained]) -> None:
        marks, rejected = self.outside, self.rejected
        if rejected:
            first = ", ".join(map(_reason, rejected[:_NAMED_UNREADABLE]))
            more = ", ..." if len(rejected) > _NAMED_UNREADABLE else ""
            log.warning(f"{len(rejected):,} of {len(self):,} images cannot be used and are skipped: {first}{more}")
        share = f"of {len(marks):,} images"
        for note, number in self._notes.most_common():
            log.warning("%s %s, FITS: %s", f"{number:,}", share, note)
        if self._enlarged:
            log.warning(
                f"{self._enlarged:,} {share} have fewer pixels in the crop than the model expects and were enlarged: "
                "use larger images if possible"
            )
        for line in warnings_of(marks, [one.ranges for one in trained]):
            log.warning(line)


def _reason(image: UnreadableImage) -> str:
    return f"{image.path} ({image.reason})"


@contextlib.contextmanager
def image_files(runs: Sequence[Run], path: Path, asked: Look) -> Iterator[ImageFiles]:
    """The images of a file, a folder or a zip for the models of runs, readable within the block.

    asked: how FITS images are to be drawn. By default as those of training, or as bright as them; what was chosen is logged.
    Raises SourceError if there are no images, and ConfigError if FITS images need a package that is not installed.
    """
    with listed(path) as images:
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
