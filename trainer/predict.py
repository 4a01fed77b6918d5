"""Runs + records or images -> a table of predictions.

Several runs, and several views of each galaxy, count as one model: their mean, taken in float64.
"""

import csv
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from preprocess.sources import SOLUTIONS_NAMES
from tfrecords.dataset import Dataset, csv_line
from tfrecords.errors import ConfigError, RunError, SettingError, SourceError
from tfrecords.files import atomic_file, local_path
from tfrecords.integrity import check_shards, read_shards
from tfrecords.outputs import listed_files
from tfrecords.taxonomy import COLUMNS
from tfrecords.text import cell
from trainer import scale, symmetries
from trainer.classes import ExtraColumns
from trainer.cutouts import Crop, Rejected, listed, stream
from trainer.devices import WHOLE, Devices, Share, choose, explained
from trainer.fits import Stretch
from trainer.run import Run

log = logging.getLogger("trainer")
BATCH_SIZE = 64
_NAMED_REJECTED = 3
# 37 numbers of nine decimals after the first column.
_PREDICTED = re.compile(rb",\d\.\d{9}" * len(COLUMNS))
_REJECTED_HEADER = csv_line(("GalaxyID", "path", "reason"))
_NO_COLUMNS = ExtraColumns()
_STRETCH = Stretch()


@dataclass(frozen=True)
class Predictions:
    """One row per galaxy, sorted by id: `galaxy_ids` int64 (n,), `predicted` and `targets` float32 (n, 37).

    `targets` is NaN for galaxies without votes.
    """

    galaxy_ids: np.ndarray
    predicted: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class ImagePredictions(Predictions):
    """Predictions for image files. names: by id, of those whose file names are no numbers; rejected: could not be read."""

    names: Mapping[int, str]
    rejected: tuple[Rejected, ...]


def rounded_batch(batch_size: int, devices: Devices) -> int:
    """The next batch size that the devices can share equally."""
    return -(-batch_size // devices.replicas) * devices.replicas


def padded(batch: np.ndarray, rows: int) -> np.ndarray:
    """The batch with zeros after it, so that it has `rows` rows."""
    missing = rows - len(batch)
    return np.pad(batch, ((0, missing), *((0, 0),) * (batch.ndim - 1))) if missing else batch


def predicted_batches(
    predictor: Callable[[np.ndarray], np.ndarray], dataset: Dataset, split: str, batch_size: int, limit: int, share: Share
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches (galaxy_id int64 (n,), predicted float32 (n, 37), targets float32 (n, 37)) of a split, every galaxy once.

    `predictor`: as steps.Predictor; it always gets as many rows, since devices want equal parts and XLA compiles for each
    shape. Of several processes each decodes its own rows, and all get all predictions.
    """
    from trainer.pipeline import evaluation_batches

    rows = batch_size // share.processes
    for ids, images, targets in evaluation_batches(dataset, split, batch_size, limit, share).as_numpy_iterator():
        yield ids, predictor(padded(images, rows))[: len(ids)].astype(np.float32), targets


class _Ensemble:
    """The models of several runs, each seeing its own crop in `views` symmetries of the square, as one model."""

    def __init__(self, runs: Sequence[Run], views: int, devices: Devices) -> None:
        from trainer.steps import Predictor

        self._views = views
        self.crops = tuple(dict.fromkeys(map(_crop, runs)))
        with devices.scope():
            models: list[Any] = [run.load_model() for run in runs]
        self._models = [
            (self.crops.index(_crop(run)), Predictor(model, devices)) for run, model in zip(runs, models, strict=True)
        ]

    def __call__(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """crops: one for each of `self.crops`, uint8 (rows, size, size, 3). float64 (rows, 37)."""
        total = np.zeros((len(crops[0]), len(COLUMNS)))
        for number in range(self._views):
            turned = [np.ascontiguousarray(symmetries.transformed(images, number)) for images in crops]
            for place, predictor in self._models:
                total += predictor(turned[place])
        return total / (self._views * len(self._models))


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
def predict(runs: Run | Sequence[Run], dataset: Dataset, split: str, limit: int = 0, tta: int = 1) -> Predictions:
    """The predictions of a run, or the mean of several, for a split, every galaxy once.

    tta: the mean over so many of the 8 symmetries of the square, the first of them the image as it is. Raises ConfigError for
    a dataset of another crop or size than one of the runs, SettingError for an illegal `tta`, DatasetError for a shard that is
    not the one that was written.
    """
    from tqdm import tqdm

    several = _several(runs, tta)
    for run in several:
        run.check_dataset(dataset)
    dataset.paths(split)  # complains before anything slow begins
    check_shards(dataset, read_shards(dataset, split, limit))
    devices = choose("float32", require_gpu=False)
    ensemble = _Ensemble(several, tta, devices)
    total = min(dataset.galaxies(split), limit) if limit else dataset.galaxies(split)
    batches = predicted_batches(
        lambda images: ensemble([images]), dataset, split, rounded_batch(BATCH_SIZE, devices), limit, WHOLE
    )
    parts = []
    with tqdm(total=total, desc=f"predicting {split}", unit=" galaxies") as bar:
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
    from tqdm import tqdm

    several = _several(runs, tta)
    with listed(path) as images:
        devices = choose("float32", require_gpu=False)
        ensemble = _Ensemble(several, tta, devices)
        ranges = [(ensemble.crops.index(_crop(run)), run.half_light_radius) for run in several]
        known = [(place, radii) for place, radii in ranges if radii is not None]
        for run in several:
            if run.half_light_radius is None:
                log.info("%s: does not know the scale of its galaxies: images at another scale are not told", run.folder)
        rows = rounded_batch(min(BATCH_SIZE, len(images)), devices)
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        rejected: list[Rejected] = []
        grey = enlarged = outside = 0
        with tqdm(total=len(images), desc="predicting", unit=" images") as bar:
            for batch in stream(images, ensemble.crops, rows, stretch, known):
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
        first = ", ".join(map(_reason, rejected[:_NAMED_REJECTED])) + (", ..." if len(rejected) > _NAMED_REJECTED else "")
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


def _reason(image: Rejected) -> str:
    return f"{image.path} ({image.reason})"


def _is_rejected_list(path: Path) -> bool:
    """Whether a file is a list of unreadable images as `write_rejected` writes it, with nothing added."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
        rows = list(csv.reader(text.splitlines()))
    except (OSError, ValueError, csv.Error):
        return False
    whole = "".join(csv_line(row).decode("utf-8") for row in rows)
    return not path.is_symlink() and text == whole and text.startswith(_REJECTED_HEADER.decode()) and {*map(len, rows)} == {3}


def refuse_other_table(path: Path) -> None:
    """Raise ConfigError where a file lies at `path` that is no table of predictions, or that holds the votes of a survey.

    A table of votes has the same columns. But predictions have nine decimals, and never the name under which votes are found.
    """
    for folder in local_path(path).absolute().parents:
        if path.absolute().relative_to(folder).as_posix() in listed_files(folder):
            raise ConfigError(f"{path}: is a file of {folder} itself: choose another --out")
    listing = rejected_path(path)
    if os.path.lexists(listing) and not _is_rejected_list(listing):
        raise ConfigError(
            f"{listing}: is in the way of a list of unreadable images: move it elsewhere, or choose another --out"
        )
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder: give --out a file, like {path / 'submission.csv'}")
    votes = {PurePosixPath(name).name for name in SOLUTIONS_NAMES}
    ours = False
    if path.is_file() and path.name not in votes:
        with path.open("rb") as file:
            head, first = file.readline(), file.readline().rstrip(b"\r\n")
        ours = head.startswith(csv_line(("GalaxyID", *COLUMNS)).rstrip()) and (not first or bool(_PREDICTED.search(first)))
    if not ours:
        raise ConfigError(f"{path}: exists and is no table of predictions: choose another --out, or move this file elsewhere")


def write_csv(
    predictions: Predictions,
    path: Path,
    names: Mapping[int, str],
    extra: ExtraColumns = _NO_COLUMNS,
    beside: Path | None = None,
) -> None:
    """Kaggle's submission format: GalaxyID,Class1.1,...,Class11.6, nine decimals, sorted by GalaxyID; atomic.

    names: what stands in the first column in place of the id, for galaxies whose file names were no numbers: escaped, where a
    name would break the table or be run by a spreadsheet (`text.cell`). extra: columns beside the 37, which make it no
    submission. beside: as in `atomic_file`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, beside) as file:
        file.write(csv_line(("GalaxyID", *COLUMNS, *extra.names)))
        more = extra.rows or ((),) * len(predictions.galaxy_ids)
        for galaxy_id, row, added in zip(predictions.galaxy_ids.tolist(), predictions.predicted, more, strict=True):
            shown = cell(names[galaxy_id]) if galaxy_id in names else galaxy_id
            file.write(csv_line((shown, *(f"{value:.9f}" for value in row), *added)))


def rejected_path(path: Path) -> Path:
    """Where the images are listed that the table of predictions at `path` lacks: table-rejected.csv beside table.csv."""
    return path.with_name(f"{path.stem}-rejected.csv")


def write_rejected(rejected: Sequence[Rejected], path: Path) -> None:
    """The images that could not be read, beside the table of predictions at `path`; where there are none, no such file."""
    listing = rejected_path(path)
    if not rejected:
        if _is_rejected_list(listing):  # of an earlier command
            listing.unlink()
        return
    listing.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(listing) as file:
        file.write(_REJECTED_HEADER)
        for image in rejected:
            galaxy = cell(image.galaxy) if isinstance(image.galaxy, str) else image.galaxy
            file.write(csv_line((galaxy, cell(image.path), cell(image.reason))))


def read_csv(path: Path, galaxy_ids: np.ndarray, targets: np.ndarray) -> Predictions:
    """The table that `write_csv` wrote, beside the votes of its galaxies: int64 (n,) and float32 (n, 37), in any order.

    Raises RunError where it is damaged, or of other galaxies.
    """
    order = np.argsort(galaxy_ids, kind="stable")
    galaxy_ids, targets = galaxy_ids[order], targets[order]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        found = np.array([int(row[0]) for row in rows], np.int64)
        predicted = np.array([row[1:] for row in rows], np.float32).reshape(len(rows), len(COLUMNS))
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise RunError(f"{path}: damaged ({error}): remove it, and run the same command again") from error
    if header != ["GalaxyID", *COLUMNS] or not np.array_equal(found, galaxy_ids):
        raise RunError(f"{path}: is not of these galaxies: remove it, and run the same command again")
    return Predictions(galaxy_ids, predicted, targets)
