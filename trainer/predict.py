"""Predictions of one or more runs, for records or images.

Several runs, and several views of each galaxy, act as one model: their predictions are averaged in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfrecords import symmetries
from tfrecords.dataset import Dataset
from tfrecords.errors import SettingError
from tfrecords.files import local_path
from tfrecords.fits.bands import given_bands
from tfrecords.fits.look import Look
from tfrecords.fits.look import Stretch as Stretch
from tfrecords.integrity import check_shards, read_shards
from tfrecords.progress import progress_bar
from trainer.backends.base import WHOLE, Devices, Result
from trainer.backends.choose import choose
from trainer.backends.startup import explained
from trainer.images.cutouts import UnreadableImage
from trainer.inference import BATCH_SIZE, crop_of, crops_of, image_files
from trainer.run import Run
from trainer.tables import Predictions, table_order

_STRETCH = Stretch()


@dataclass(frozen=True)
class ImagePredictions(Predictions):
    """Predictions for image files.

    outside: str (galaxies,), how each is unlike the training galaxies: "empty", "brightness", "scale", "brightness scale" or
    nothing. rejected: images that could not be read, or show no galaxy. stretch: that of FITS images; None without any.
    """

    outside: np.ndarray = field(kw_only=True)
    rejected: tuple[UnreadableImage, ...] = field(kw_only=True)
    stretch: float | None = field(kw_only=True)


class _Ensemble:
    """The mean over the models of several runs, each with its own crop, and over `views` symmetries of the square."""

    def __init__(self, runs: Sequence[Run], views: int, devices: Devices) -> None:
        self.tree = runs[0].tree
        for run in runs[1:]:
            self.tree.refuse_other(run.tree, runs[0].folder, run.folder)
        self._sure = all(run.settings["head"] == "dirichlet" for run in runs)
        self._views = views
        self.crops = crops_of(runs)
        with devices.scope():
            models = [run.load_model() for run in runs]
        self._models = [
            (self.crops.index(crop_of(run)), devices.predictor(model)) for run, model in zip(runs, models, strict=True)
        ]

    def __call__(self, crops: Sequence[np.ndarray]) -> Result:
        """Start predicting float64 (rows, outputs): the fractions and, if all models have them, the concentrations.

        crops: uint8 (rows, size, size, 3), one array for each of `self.crops`.
        """
        width = len(self.tree.columns) + (len(self.tree.questions) if self._sure else 0)
        results = [predictor(crops[place], view) for view in range(self._views) for place, predictor in self._models]

        def mean() -> np.ndarray:
            total = np.zeros((len(crops[0]), width))
            for result in results:
                total += result()[:, :width]
            return total / len(results)

        return mean

    def apart(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Outputs (rows, outputs) as fractions (rows, n) and concentrations (rows, questions), None if a model has none."""
        answers = len(self.tree.columns)
        return outputs[:, :answers], outputs[:, answers:] if self._sure else None


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
def predict_images(
    runs: Run | Sequence[Run], path: str | Path, tta: int = 1, stretch: Stretch = _STRETCH, bands: str = ""
) -> ImagePredictions:
    """Predict the vote fractions of the galaxies in image files.

    Each image is cropped and resized as the run's training images were. Images are streamed, so memory does not grow with their
    number. Warnings are logged for images that cannot be read or show no galaxy, for FITS images without colours, for images
    with fewer pixels than the crop, and for galaxies that are larger, smaller, brighter or darker than those of training.

    Parameters
    ----------
    runs : Run or sequence of Run
        Of several runs, the mean is predicted.
    path : str or Path
        File, folder or zip of JPEG, PNG, TIFF, WebP, BMP or FITS images.
    tta : int
        Number of views, 1 to 8, as in `predict_split`.
    stretch : Stretch
        Brightness scale of FITS images; by default it is chosen so that they are as bright as the training images.
    bands : str
        Bands of the planes of FITS images, in the order of the file, like "grz". By default those in their headers.

    Returns
    -------
    ImagePredictions
        `galaxy_ids` (galaxies,), `predicted` float32 (galaxies, answers), `names` as in `predict_split`, `outside` str
        (galaxies,), how each is unlike the training galaxies, and the `rejected` images.

    Raises
    ------
    SourceError
        If there are no images, or none of them can be read.
    ConfigError
        If FITS images need a package that is not installed.
    SettingError
        If `tta` is out of range, there is no run, or `bands` are none.
    RunError
        If a run has no model, or it is damaged.

    Examples
    --------
    >>> from trainer import open_run, predict_images
    >>> predictions = predict_images(open_run("runs/demo"), "demo/images_test_rev1", tta=2)
    >>> len(predictions.galaxy_ids), predictions.rejected
    (6, ())
    """
    several, asked = _several(runs, tta), Look(given_bands(bands), stretch)
    with image_files(several, local_path(path), asked) as images:
        devices = choose("float32", require_gpu=False)
        ensemble = _Ensemble(several, tta, devices)
        ids, outputs = (np.concatenate(part) for part in zip(*images.through(ensemble, devices, "predicting"), strict=True))
        names = images.names(ids)
    order = table_order(ids, names)
    predicted, concentrations = ensemble.apart(outputs[order])
    names = None if names is None else names[order]
    without = np.full_like(predicted, np.nan)
    return ImagePredictions(
        ids[order], predicted, without, None, concentrations, ensemble.tree, names, outside=images.outside[order],
        rejected=tuple(images.rejected), stretch=images.stretch,
    )  # fmt: skip
