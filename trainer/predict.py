"""Predictions of one or more runs, for records or images, in memory: for use from Python. `streaming` writes tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfrecords.dataset import Dataset
from tfrecords.files import local_path
from tfrecords.fits.bands import given_bands
from tfrecords.fits.look import Look
from tfrecords.fits.look import Stretch as Stretch
from tfrecords.progress import progress_bar
from trainer.backends.choose import choose
from trainer.backends.startup import explained
from trainer.blocks import BlockSource, Ensemble, ImageBlocks, PredictedBlock, SplitBlocks, rows_together, several_runs
from trainer.images.cutouts import UnreadableImage
from trainer.inference import Noticed, image_files
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


def _in_memory(source: BlockSource, ensemble: Ensemble) -> PredictedBlock:
    """The predictions for all galaxies of a source, in its order."""
    blocks = []
    with progress_bar(len(source), source.doing, source.unit) as bar:
        for block in source.blocks(ensemble):
            blocks.append(block)
            bar.update(len(block))
    noticed = sum((block.noticed for block in blocks), Noticed())
    source.conclude(noticed)
    votes = [block.votes for block in blocks if block.votes is not None]
    rejected = tuple(image for block in blocks for image in block.rejected)
    rows = rows_together(block.rows for block in blocks)
    return PredictedBlock(rows, np.concatenate(votes) if votes else None, rejected, noticed)


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
    several = several_runs(runs, tta)
    source = SplitBlocks(several, dataset, split, limit)
    ensemble = Ensemble(several, tta, choose("float32", require_gpu=False))
    from tfrecords.reader import apart  # TensorFlow, which `choose` has loaded quietly

    block = _in_memory(source, ensemble)
    assert block.votes is not None
    order = table_order(block.rows.galaxy_ids, block.rows.names)
    rows = block.rows.take(order)
    targets, asked = apart(block.votes[order], dataset)
    predicted, concentrations = ensemble.apart(rows.outputs)
    return Predictions(rows.galaxy_ids, predicted, targets, asked, concentrations, dataset.tree, rows.names)


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
    several, asked = several_runs(runs, tta), Look(given_bands(bands), stretch)
    with image_files(several, local_path(path), asked) as images:
        ensemble = Ensemble(several, tta, choose("float32", require_gpu=False))
        block = _in_memory(ImageBlocks(images), ensemble)
    rows = block.rows.in_table_order()
    predicted, concentrations = ensemble.apart(rows.outputs)
    without = np.full_like(predicted, np.nan)
    assert rows.outside is not None
    return ImagePredictions(
        rows.galaxy_ids, predicted, without, None, concentrations, ensemble.tree, rows.names, outside=rows.outside,
        rejected=block.rejected, stretch=images.stretch(block.noticed),
    )  # fmt: skip
