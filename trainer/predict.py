"""A run + records -> a table of predictions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.dataset import Dataset, csv_line
from tfrecords.files import atomic_file
from tfrecords.taxonomy import COLUMNS
from trainer.devices import explained
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


@explained
def predict(run: Run, dataset: Dataset, split: str, limit: int = 0) -> Predictions:
    """Run the model of a run over a split, every galaxy once. Raises ConfigError for a dataset of another crop or size."""
    from tqdm import tqdm

    from trainer import devices

    run.check_dataset(dataset)
    dataset.paths(split)  # complains before anything slow begins
    devices.load_tensorflow()
    import tensorflow as tf

    from tfrecords import reader

    model = run.load_model()
    total = min(dataset.galaxies(split), limit) if limit else dataset.galaxies(split)

    @tf.autograph.experimental.do_not_convert
    def unpack(example: dict[str, Any]) -> tuple[Any, Any, Any]:
        return example["galaxy_id"], reader.decode(example, dataset.encoding, dataset.size), example["targets"]

    batches = reader.in_order(dataset, split, limit).map(unpack, num_parallel_calls=-1).batch(BATCH_SIZE).prefetch(2)
    parts = []
    with tqdm(total=total, desc=f"predicting {split}", unit=" galaxies") as bar:
        for ids, images, targets in batches:
            parts.append((ids.numpy(), np.asarray(model.predict_on_batch(images)), targets.numpy()))
            bar.update(len(parts[-1][0]))
    ids, predicted, targets = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(ids, kind="stable")
    return Predictions(ids[order], predicted[order].astype(np.float32), targets[order])


def write_csv(predictions: Predictions, path: Path, names: Mapping[int, str]) -> None:
    """Kaggle's submission format: GalaxyID,Class1.1,...,Class11.6, nine decimals, sorted by GalaxyID; atomic.

    names: what stands in the first column in place of the id, for galaxies whose file names were no numbers.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(csv_line(("GalaxyID", *COLUMNS)))
        for galaxy_id, row in zip(predictions.galaxy_ids.tolist(), predictions.predicted, strict=True):
            file.write(csv_line((names.get(galaxy_id, galaxy_id), *(f"{value:.9f}" for value in row))))
