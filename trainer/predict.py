"""A run + records -> a table of predictions."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfrecords.dataset import Dataset, csv_line
from tfrecords.files import atomic_file
from tfrecords.taxonomy import COLUMNS
from trainer.devices import WHOLE, Devices, Share, choose, explained
from trainer.run import Run

BATCH_SIZE = 64


@dataclass(frozen=True)
class Predictions:
    """One row per galaxy, sorted by id: `galaxy_ids` int64 (n,), `predicted` and `targets` float32 (n, 37).

    `targets` is NaN for galaxies without votes.
    """

    galaxy_ids: np.ndarray
    predicted: np.ndarray
    targets: np.ndarray


def rounded_batch(batch_size: int, devices: Devices) -> int:
    """The next batch size that the devices can share equally."""
    return -(-batch_size // devices.replicas) * devices.replicas


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
        padded = np.pad(images, ((0, rows - len(images)), (0, 0), (0, 0), (0, 0))) if len(images) < rows else images
        yield ids, predictor(padded)[: len(ids)].astype(np.float32), targets


@explained
def predict(run: Run, dataset: Dataset, split: str, limit: int = 0) -> Predictions:
    """Run the model of a run over a split, every galaxy once. Raises ConfigError for a dataset of another crop or size."""
    from tqdm import tqdm

    run.check_dataset(dataset)
    dataset.paths(split)  # complains before anything slow begins
    devices = choose("float32", require_gpu=False)
    from trainer.steps import Predictor

    with devices.scope():
        model = run.load_model()
    total = min(dataset.galaxies(split), limit) if limit else dataset.galaxies(split)
    batches = predicted_batches(Predictor(model, devices), dataset, split, rounded_batch(BATCH_SIZE, devices), limit, WHOLE)
    parts = []
    with tqdm(total=total, desc=f"predicting {split}", unit=" galaxies") as bar:
        for part in batches:
            parts.append(part)
            bar.update(len(part[0]))
    ids, predicted, targets = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(ids, kind="stable")
    return Predictions(ids[order], predicted[order], targets[order])


def write_csv(predictions: Predictions, path: Path, names: Mapping[int, str]) -> None:
    """Kaggle's submission format: GalaxyID,Class1.1,...,Class11.6, nine decimals, sorted by GalaxyID; atomic.

    names: what stands in the first column in place of the id, for galaxies whose file names were no numbers.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(csv_line(("GalaxyID", *COLUMNS)))
        for galaxy_id, row in zip(predictions.galaxy_ids.tolist(), predictions.predicted, strict=True):
            file.write(csv_line((names.get(galaxy_id, galaxy_id), *(f"{value:.9f}" for value in row))))
