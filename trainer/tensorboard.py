"""The history as TensorBoard shows it: a curve for train, one for validation, over the epochs."""

import math
from typing import Any

from trainer.run import Epoch, Run

_FOLDER = "tensorboard"


class Curves:
    """The event files of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._writers: dict[str, Any] = {}

    def _writer(self, name: str) -> Any:
        """A new event file, whose name TensorFlow chooses: it is listed as ours as soon as it is there."""
        import tensorflow as tf

        output, folder = self._run.output, f"{_FOLDER}/{name}"
        output.make_folders(f"{folder}/events")
        before = {*self._run.path(folder).iterdir()}
        writer = tf.summary.create_file_writer(str(self._run.path(folder)))
        writer.flush()
        output.adopt(*(f"{folder}/{path.name}" for path in {*self._run.path(folder).iterdir()} - before))
        return writer

    def write(self, row: Epoch) -> None:
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
