"""Runs + records or images -> predictions.

Several runs, and several views of each galaxy, count as one model: their mean, taken in float64.
"""

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfrecords.dataset import Dataset
from tfrecords.errors import SettingError, SourceError
from tfrecords.integrity import check_shards, read_shards
from tfrecords.progress import progress_bar
from tfrecords.taxonomy import COLUMNS
from trainer.backends.base import WHOLE, Devices
from trainer.backends.choose import choose
from trainer.backends.startup import explained
from trainer.images import symmetries
from trainer.images.cutouts import Crop, UnreadableImage, listed, stream
from trainer.images.fits import Stretch
from trainer.input import scale
from trainer.run import Run
from trainer.tables import Predictions

log = logging.getLogger("trainer")
BATCH_SIZE = 64
_NAMED_UNREADABLE = 3
_STRETCH = Stretch()


@dataclass(frozen=True)
class ImagePredictions(Predictions):
    """Predictions for image files. names: by id, of those whose file names are no numbers; rejected: could not be read."""

    names: Mapping[int, str]
    rejected: tuple[UnreadableImage, ...]


class _Ensemble:
    """The models of several runs, each seeing its own crop in `views` symmetries of the square, as one model."""

    def __init__(self, runs: Sequence[Run], views: int, devices: Devices) -> None:
        self._views = [functools.partial(symmetries.transformed, number=number) for number in range(views)]
        self.crops = tuple(dict.fromkeys(map(_crop, runs)))
        with devices.scope():
            models = [run.load_model() for run in runs]
        self._models = [
            (self.crops.index(_crop(run)), devices.predictor(model)) for run, model in zip(runs, models, strict=True)
        ]

    def __call__(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """crops: one for each of `self.crops`, uint8 (rows, size, size, 3). float64 (rows, 37)."""
        total = np.zeros((len(crops[0]), len(COLUMNS)))
        for view in self._views:
            turned = [np.ascontiguousarray(view(images)) for images in crops]
            for place, predictor in self._models:
                total += predictor(turned[place])
        return total / (len(self._views) * len(self._models))


def _crop(run: Run) -> Crop:
    return Crop(run.config["dataset"]["crop_fraction"], run.config["dataset"]["size"])


def _several(runs: Run | Sequence[Run], tta: int) -> tuple[Run, ...]:
    """The runs, checked together with the number of views before anything slow begins."""
    if not 1 <= tta <= symmetries.COUNT:
        raise SettingError(f"--tta {tta}: must be from 1 to {symmetries.COUNT}")
    several = (runs,) if isinstance(runs, Run) else tuple(runs)
    if not several:
        raise SettingError("no run to predict with: give at least one --run")
    return several


@explained
def predict_split(runs: Run | Sequence[Run], dataset: Dataset, split: str, limit: int = 0, tta: int = 1) -> Predictions:
    """The predictions of a run, or the mean of several, for a split, every galaxy once.

    tta: the mean over so many of the 8 symmetries of the square, the first of them the image as it is. Raises ConfigError for
    a dataset of another crop or size than one of the runs, SettingError for an illegal `tta`, DatasetError for a shard that is
    not the one that was written.
    """
    several = _several(runs, tta)
    for run in several:
        run.check_dataset(dataset)
    dataset.paths(split)  # complains before anything slow begins
    check_shards(dataset, read_shards(dataset, split, limit))
    devices = choose("float32", require_gpu=False)
    from trainer.input.evaluation import predicted_batches  # TensorFlow, which `choose` has loaded quietly

    ensemble = _Ensemble(several, tta, devices)
    batches = predicted_batches(lambda images: ensemble([images]), dataset, split, devices.rounded(BATCH_SIZE), limit, WHOLE)
    parts = []
    with progress_bar(dataset.galaxies(split, limit), f"predicting {split}", "galaxies") as bar:
        for part in batches:
            parts.append(part)
            bar.update(len(part[0]))
    ids, predicted, targets = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(ids, kind="stable")
    return Predictions(ids[order], predicted[order], targets[order])


@explained
def predict_images(runs: Run | Sequence[Run], path: Path, tta: int = 1, stretch: Stretch = _STRETCH) -> ImagePredictions:
    """The predictions of a run, or the mean of several, for the images in a file, a folder or a zip.

    Each run gets the crop and size that it was trained on; `tta` as in `predict`; stretch: of FITS images. The images are
    streamed (`cutouts.stream` says what is held of them). Those that cannot be read are in `rejected`; a warning is logged for
    them, for FITS images without colours, for images of fewer pixels than the crop, and for galaxies at another scale than
    those of training. Raises SourceError where there are no images, or none can be read; SettingError for an illegal `tta`.
    """
    several = _several(runs, tta)
    with listed(path) as images:
        devices = choose("float32", require_gpu=False)
        from trainer.input.evaluation import padded

        ensemble = _Ensemble(several, tta, devices)
        ranges = [(ensemble.crops.index(_crop(run)), run.half_light_radius) for run in several]
        known = [(place, radii) for place, radii in ranges if radii is not None]
        for run in several:
            if run.half_light_radius is None:
                log.info("%s: does not know the scale of its galaxies: images at another scale are not told", run.folder)
        is_outside = functools.partial(scale.outside, ranges=known)
        rows = devices.rounded(min(BATCH_SIZE, len(images)))
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        rejected: list[UnreadableImage] = []
        grey = enlarged = outside = 0
        with progress_bar(len(images), "predicting", "images") as bar:
            for batch in stream(images, ensemble.crops, rows, stretch, is_outside):
                rejected += batch.rejected
                if count := len(batch.galaxy_ids):
                    filled = [padded(crops, rows) for crops in batch.crops]
                    parts.append((batch.galaxy_ids, ensemble(filled)[:count].astype(np.float32)))
                    grey += int(batch.grey.sum())
                    enlarged += int(batch.enlarged.sum())
                    outside += int(batch.outside.sum())
                bar.update(count + len(batch.rejected))
        names = {int(images.galaxy_id[row]): images.path(row) for row in np.flatnonzero(images.named).tolist()}
    if not parts:
        raise SourceError(f"{path}: none of its {len(rejected):,} images can be read, the first is {_reason(rejected[0])}")
    ids, predicted = (np.concatenate(column) for column in zip(*parts, strict=True))
    if rejected:
        first = ", ".join(map(_reason, rejected[:_NAMED_UNREADABLE])) + (", ..." if len(rejected) > _NAMED_UNREADABLE else "")
        log.warning(f"{len(rejected):,} of {len(images):,} images cannot be read and are left out: {first}")
    share = f"of {len(ids):,} images"
    if grey:
        log.warning(
            f"{grey:,} {share} are FITS of one plane, without the colours that the model learnt from: give three if you can"
        )
    if enlarged:
        log.warning(
            f"{enlarged:,} {share} have fewer pixels in the crop than the model sees and were enlarged: give larger if you can"
        )
    if outside:
        log.warning(scale.warning(outside, len(ids), [radii for _, radii in known]))
    return ImagePredictions(ids, predicted, np.full_like(predicted, np.nan), names, tuple(rejected))


def _reason(image: UnreadableImage) -> str:
    return f"{image.path} ({image.reason})"
