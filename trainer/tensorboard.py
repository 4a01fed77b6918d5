"""The history as TensorBoard shows it: a curve for train, one for validation, over the epochs."""

import math
from pathlib import Path
from typing import Any

from trainer.run import Epoch


class Curves:
    """The event files of a run, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def write(self, row: Epoch) -> None:
        import tensorflow as tf

        curves = {
            "train": {"mse": row.mse, "learning_rate": row.learning_rate, "images_per_second": row.images_per_second},
            "validation": {} if math.isnan(row.val_mse) else {"mse": row.val_mse},
        }
        for name, values in curves.items():
            if values and name not in self._writers:
                self._writers[name] = tf.summary.create_file_writer(str(self._folder / name))
            for label, value in values.items():
                with self._writers[name].as_default(row.epoch):
                    tf.summary.scalar(label, value)
        for writer in self._writers.values():
            writer.flush()
