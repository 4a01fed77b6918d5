"""The epochs of a run: their rows, history.csv, the epoch whose model is kept, and the curves that TensorBoard shows."""

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.errors import RunError
from tfrecords.outputs import Output

HISTORY = "history.csv"
_TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class Epoch:
    """One row of the history.

    epoch: counted from 1. mse: mean over the epoch's steps, with augmentation and dropout; val_mse: after the epoch, NaN
    without validation. seconds: wall time with validation, without saving; images_per_second: of training only.
    """

    epoch: int
    mse: float
    val_mse: float
    learning_rate: float
    seconds: float
    images_per_second: float


_COLUMNS = [field.name for field in fields(Epoch)]


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch whose model is kept: the first with the lowest validation MSE, or without validation the last."""
    measured = [row for row in history if not np.isnan(row.val_mse)]
    return min(measured, key=lambda row: row.val_mse) if measured else history[-1]


def stops_early(history: Sequence[Epoch], patience: int) -> bool:
    """Whether `patience` epochs have passed since the best one; never without validation."""
    return bool(history) and history[-1].epoch - best_epoch(history).epoch >= patience


def read_history(output: Output) -> list[Epoch]:
    """The finished epochs of a run folder, from history.csv; none if it does not exist.

    Raises RunError if it is damaged or was changed.
    """
    path = output.folder / HISTORY
    if not path.is_file():
        return []
    output.check(HISTORY, "move it elsewhere to make the pages without it")
    try:
        text = path.read_text("utf-8")
        table = csv.DictReader(text.splitlines())
        rows = list(table)
        if table.fieldnames != _COLUMNS or not text.endswith("\n"):
            raise ValueError("it is incomplete")
        return [Epoch(int(row["epoch"]), *(float(row[name]) for name in _COLUMNS[1:])) for row in rows]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"{path}: damaged ({error}): remove it to make the pages without it") from error


def write_history(output: Output, history: Sequence[Epoch]) -> None:
    """Write history.csv into a run folder. Raises ConfigError if somebody edited it."""
    lines = [",".join(_COLUMNS), *(",".join(repr(value) for value in asdict(row).values()) for row in history)]
    output.write({HISTORY: ("\n".join(lines) + "\n").encode("ascii")})


class Curves:
    """TensorBoard's event files of a run: curves over the epochs, for train and for validation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def _writer(self, name: str) -> Any:
        """Open a new event file. TensorFlow chooses its name, so it is listed as ours as soon as it exists."""
        import tensorflow as tf

        output, folder = Output(self._folder, "run"), f"{_TENSORBOARD}/{name}"
        output.make_folders(f"{folder}/events")
        before = {*(self._folder / folder).iterdir()}
        writer = tf.summary.create_file_writer(str(self._folder / folder))
        writer.flush()
        output.adopt(*(f"{folder}/{path.name}" for path in {*(self._folder / folder).iterdir()} - before))
        return writer

    def write(self, row: Epoch) -> None:
        """Add an epoch."""
        import tensorflow as tf

        curves = {
            "train": {"mse": row.mse, "learning_rate": row.learning_rate, "images_per_second": row.images_per_second},
            "validation": {} if math.isnan(row.val_mse) else {"mse": row.val_mse},
        }
        for name, values in curves.items():
            if values and name not in self._writers:
                self._writers[name] = self._writer(name)
            for label, value in values.items():
                with self._writers[name].as_default(row.epoch):
                    tf.summary.scalar(label, value)
        for writer in self._writers.values():
            writer.flush()
