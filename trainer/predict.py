"""Predictions of one or more runs, for records or images.

Several runs, and several views of each galaxy, act as one model: their predictions are averaged in float64.
"""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfrecords.dataset import Dataset
from tfrecords.errors import SettingError, SourceError
from tfrecords.files import local_path
from tfrecords.integrity import check_shards, read_shards
from tfrecords.progress import progress_bar
from trainer.backends.base import WHOLE, Devices
from trainer.backends.choose import choose
from trainer.backends.startup import explained
from trainer.images import symmetries
from trainer.images.cutouts import Crop, UnreadableImage, listed, stream
from trainer.images.fits import Stretch
from trainer.input import scale
from trainer.run import Run
from trainer.tables import Predictions, table_order

log = logging.getLogger("trainer")
BATCH_SIZE = 64
_NAMED_UNREADABLE = 3
_STRETCH = Stretch()


@dataclass(frozen=True)
class ImagePredictions(Predictions):
    """Predictions for image files. rejected: images that could not be read."""

    rejected: tuple[UnreadableImage, ...] = field(kw_only=True)


class _Ensemble:
    """The mean over the models of several runs, each with its own crop, and over `views` symmetries of the square."""

    def __init__(self, runs: Sequence[Run], views: int, devices: Devices) -> None:
        self.tree = runs[0].tree
        for run in runs[1:]:
            self.tree.refuse_other(run.tree, runs[0].folder, run.folder)
        self._sure = all(run.settings["head"] == "dirichlet" for run in runs)
        self._views = [functools.partial(symmetries.transformed, number=number) for number in range(views)]
        self.crops = tuple(dict.fromkeys(map(_crop, runs)))
        with devices.scope():
            models = [run.load_model() for run in runs]
        self._models = [
            (self.crops.index(_crop(run)), devices.predictor(model)) for run, model in zip(runs, models, strict=True)
        ]

    def __call__(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Predict float64 (rows, outputs): the fractions and, if all models have them, the concentrations.

        crops: uint8 (rows, size, size, 3), one array for each of `self.crops`.
        """
        width = len(self.tree.columns) + (len(self.tree.questions) if self._sure else 0)
        total = np.zeros((len(crops[0]), width))
        for view in self._views:
            turned = [np.ascontiguousarray(view(images)) for images in crops]
            for place, predictor in self._models:
                total += predictor(turned[place])[:, :width]
        return total / (len(self._views) * len(self._models))

    def apart(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Outputs (rows, outputs) as fractions (rows, n) and concentrations (rows, questions), None if a model has none."""
        answers = len(self.tree.columns)
        return outputs[:, :answers], outputs[:, answers:] if self._sure else None


def _crop(run: Run) -> Crop:
    return Crop(run.config["dataset"]["crop_fraction"], run.config["dataset"]["size"])


def _several(runs: Run | Sequence[Run], tta: int) -> tuple[Run, ...]:
    """The runs as a tuple. Raises SettingError, before anything slow starts, if there is none or `tta` is illegal."""
    if not 1 <= tta <= symmetries.COUNT:
        raise SettingError(f"--tta {tta}: must be from 1 to {symmetries.COUNT}")
    several = (runs,) if isinstance(runs, Run) else tuple(runs)
    if not several:
        raise SettingError("no run to predict with: give at least one --run")
    return several


@explained
def predict_split(runs: Run | Sequence[Run], dataset: Dataset, split: str, limit: int = 0, tta: int = 1) -> Predictions:
    """Predict the vote fractions of all galaxies in a split.

    Parameters
    ----------
    runs : Run or sequence of Run
        Of several runs, the mean is predicted.
    dataset : Dataset
        A dataset, from `tfrecords.open_dataset`.
    split : str
        train, validation, test or unlabelled.
    limit : int
        Use only the first `limit` galaxies, as stored; 0 for all.
    tta : int
        Number of views, 1 to 8: each galaxy is predicted in this many of the square's 8 symmetries, and the mean is returned.

    Returns
    -------
    Predictions
        `galaxy_ids` (galaxies,), `predicted` and `targets` float32 (galaxies, answers), in the order of the tree, and `names`,
        str (galaxies,), by which rows are sorted; None if galaxies are numbers, by which they are sorted then. `targets` is NaN
        without votes. `asked` and `concentrations` are float32 (galaxies, questions), or None if the dataset has no counts and
        the run has another head than dirichlet.

    Raises
    ------
    ConfigError
        If the dataset has another tree, crop or size than one of the runs.
    SettingError
        If `tta` is out of range, or there is no run.
    DatasetError
        If the split is absent, or a shard is damaged.
    RunError
        If a run has no model, or it is damaged.

    Examples
    --------
    >>> from tfrecords import open_dataset
    >>> from trainer import open_run, predict_split
    >>> predictions = predict_split(open_run("runs/demo"), open_dataset("data/demo"), "unlabelled")
    >>> predictions.predicted.shape
    (6, 37)
    """
    several = _several(runs, tta)
    for run in several:
        run.check_dataset(dataset)
    dataset.paths(split)  # raises before anything slow starts
    check_shards(dataset, read_shards(dataset, split, limit))
    devices = choose("float32", require_gpu=False)
    from tfrecords.reader import apart, votes_of  # TensorFlow, which `choose` has loaded quietly
    from trainer.input.evaluation import predicted_batches

    ensemble = _Ensemble(several, tta, devices)
    batches = predicted_batches(lambda images: ensemble([images]), dataset, split, devices.rounded(BATCH_SIZE), limit, WHOLE)
    parts = []
    with progress_bar(dataset.galaxies(split, limit), f"predicting {split}", "galaxies") as bar:
        for part in batches:
            parts.append(part)
            bar.update(len(part[0]))
    ids, outputs, votes = (np.concatenate(column) for column in zip(*parts, strict=True))
    names = votes_of(dataset, split, limit).names if dataset.named or dataset.names() else None
    order = table_order(ids, names)
    targets, asked = apart(votes[order], dataset)
    predicted, concentrations = ensemble.apart(outputs[order])
    names = None if names is None else names[order]
    return Predictions(ids[order], predicted, targets, asked, concentrations, dataset.tree, names)


@explained
def predict_images(runs: Run | Sequence[Run], path: str | Path, tta: int = 1, stretch: Stretch = _STRETCH) -> ImagePredictions:
    """Predict the vote fractions of the galaxies in image files.

    Each image is cropped and resized as the run's training images were. Images are streamed, so memory does not grow with their
    number. Warnings are logged for images that cannot be read, for FITS images without colours, for images with fewer pixels
    than the crop, and for galaxies at another scale than those of training.

    Parameters
    ----------
    runs : Run or sequence of Run
        Of several runs, the mean is predicted.
    path : str or Path
        File, folder or zip of JPEG, PNG or FITS images.
    tta : int
        Number of views, 1 to 8, as in `predict_split`.
    stretch : Stretch
        Brightness scale of FITS images.

    Returns
    -------
    ImagePredictions
        `galaxy_ids` (galaxies,), `predicted` float32 (galaxies, answers), `names` as in `predict_split`, and the `rejected`
        images.

    Raises
    ------
    SourceError
        If there are no images, or none of them can be read.
    ConfigError
        If FITS images need a package that is not installed.
    SettingError
        If `tta` is out of range, or there is no run.
    RunError
        If a run has no model, or it is damaged.

    Examples
    --------
    >>> from trainer import open_run, predict_images
    >>> predictions = predict_images(open_run("runs/demo"), "demo/images_test_rev1", tta=2)
    >>> len(predictions.galaxy_ids), predictions.rejected
    (6, ())
    """
    path = local_path(path)
    several = _several(runs, tta)
    with listed(path) as images:
        devices = choose("float32", require_gpu=False)
        from trainer.input.evaluation import padded

        ensemble = _Ensemble(several, tta, devices)
        ranges = [(ensemble.crops.index(_crop(run)), run.half_light_radius) for run in several]
        known = [(place, radii) for place, radii in ranges if radii is not None]
        for run in several:
            if run.half_light_radius is None:
                log.info("%s: has no record of the scale of its galaxies: no warning about images at another scale", run.folder)
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
        known_names = {int(images.galaxy_id[row]): images.name(row) for row in range(len(images))} if images.parts else {}
    if not parts:
        raise SourceError(f"{path}: none of its {len(rejected):,} images can be read; the first is {_reason(rejected[0])}")
    ids, outputs = (np.concatenate(column) for column in zip(*parts, strict=True))
    names = np.array([known_names[galaxy_id] for galaxy_id in ids.tolist()], object) if known_names else None
    order = table_order(ids, names)
    ids, outputs, names = ids[order], outputs[order], None if names is None else names[order]
    predicted, concentrations = ensemble.apart(outputs)
    if rejected:
        first = ", ".join(map(_reason, rejected[:_NAMED_UNREADABLE])) + (", ..." if len(rejected) > _NAMED_UNREADABLE else "")
        log.warning(f"{len(rejected):,} of {len(images):,} images cannot be read and are skipped: {first}")
    share = f"of {len(ids):,} images"
    if grey:
        log.warning(
            f"{grey:,} {share} are FITS images of one plane, without the colours that the model was trained on: "
            "use three planes if possible"
        )
    if enlarged:
        log.warning(
            f"{enlarged:,} {share} have fewer pixels in the crop than the model expects and were enlarged: "
            "use larger images if possible"
        )
    if outside:
        log.warning(scale.warning(outside, len(ids), [radii for _, radii in known]))
    without = np.full_like(predicted, np.nan)
    return ImagePredictions(ids, predicted, without, None, concentrations, ensemble.tree, names, rejected=tuple(rejected))


def _reason(image: UnreadableImage) -> str:
    return f"{image.path} ({image.reason})"
