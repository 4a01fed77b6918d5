"""A run's best model for other programs: a TensorFlow SavedModel.

Keras exports from its TensorFlow backend alone, so this happens in a process of its own on that backend, whichever one
trained the model; `model.keras` is the same on both.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tfrecords.errors import ConfigError, RunError
from tfrecords.files import PARTIAL_SUFFIX, sync_folder
from trainer.run import Run


def export(run: Run, out: Path) -> None:
    """Write a SavedModel into the new folder `out`; it appears when it is complete.

    Its signature serving_default takes uint8 (any batch, size, size, 3) and gives float32 (batch, 37). Raises ConfigError where
    `out` exists, RunError where the run has no model or the export fails.
    """
    if out.exists():
        raise ConfigError(f"{out}: exists already: give --out a new folder, or remove this one")
    if not run.model_path.is_file():
        raise RunError(f"{run.folder}: has no {run.model_path.name} yet: train it first with the same trainer command")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + PARTIAL_SUFFIX)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "trainer.export", str(run.model_path), str(partial)],
            env={**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["without a word"])[-1][:200]
            raise RunError(f"{run.model_path}: cannot be exported ({reason}): train again with --overwrite")
        partial.rename(out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _export_here(model_path: str, out: str) -> None:
    import keras

    keras.saving.load_model(model_path, compile=False).export(out, format="tf_saved_model", verbose=False)


if __name__ == "__main__":
    _export_here(*sys.argv[1:])
