"""Backend, number of devices and cache change only the speed: models and their metrics are the same with all of them."""

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer import small
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError
from trainer.config import TrainConfig
from trainer.input.training import steps_per_epoch
from trainer.run import Run, open_run
from trainer.train import train_model

Main = Callable[..., tuple[int, str, str]]
# Compile without optimisation, which would take most of the time of these tests.
XLA_FLAGS = "--xla_backend_optimization_level=1"
TWO_DEVICES = {"XLA_FLAGS": f"{XLA_FLAGS} --xla_force_host_platform_device_count=2"}


def _trainer_on_jax(*arguments: object, **environment: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `trainer` on Keras' JAX backend."""
    command = [*small.PROGRAM, *map(str, arguments)]
    ended = subprocess.run(
        command,
        env={**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": XLA_FLAGS, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return ended.returncode, ended.stdout, ended.stderr


def _metrics(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text("utf-8"))
    return content


def _table(path: Path) -> dict[int, np.ndarray]:
    """GalaxyID -> predictions; fails if a galaxy is listed twice."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    table = {int(row[0]): np.array(row[1:], float) for row in rows}
    assert len(table) == len(rows)
    return table


@pytest.fixture(scope="module")
def jax_run(plain_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Trained and evaluated on JAX, on two devices; 15 test galaxies, so that the last batch is smaller. Read-only."""
    folder = tmp_path_factory.mktemp("jax") / "run"
    flags = (
        f"--tfrecords={plain_dataset.folder}",
        f"--out={folder}",
        "--weights=none",
        "--epochs=1",
        "--batch_size=8",
    )
    code, out, err = _trainer_on_jax(*flags, "--limit=16", "--learning_rate=3e-4", "--warmup_steps=1", **TWO_DEVICES)
    assert code == 0, err
    assert "jax, precision float32, XLA on, data parallel over 2 devices, 4 images each per step" in out
    assert "RMSE on test (15 galaxies)" in out
    yield open_run(folder)
    shutil.rmtree(folder)


def _copied(run: Run, folder: Path) -> Path:
    """A run folder with the model of another run, but not its evaluation."""
    folder.mkdir()
    for name in ("config.json", "model.keras", "history.csv"):
        shutil.copy(run.folder / name, folder / name)
    return folder


def _assert_same_measures(one: Path, run: Path, plain_dataset: Dataset) -> None:
    """Compare the measures from training with those from `evaluate` on a copy."""
    two = run / "evaluations" / "test"
    assert _metrics(one)["rmse"] == pytest.approx(_metrics(two)["rmse"], abs=1e-4)
    tables = [_table(folder / "predictions-test.csv") for folder in (one, two)]
    assert list(tables[0]) == list(tables[1])
    assert len(tables[0]) == plain_dataset.galaxies("test")
    for galaxy_id, predicted in tables[0].items():
        np.testing.assert_allclose(tables[1][galaxy_id], predicted, atol=1e-4)


@pytest.mark.slow
def test_a_model_from_jax_has_the_same_measures_on_tensorflow(
    jax_run: Run, plain_dataset: Dataset, tmp_path: Path, run_main: Main
) -> None:
    folder = _copied(jax_run, tmp_path / "run")
    code, _, err = run_main("evaluate", f"--run={folder}", f"--tfrecords={plain_dataset.folder}")
    assert code == 0, err
    _assert_same_measures(jax_run.folder, folder, plain_dataset)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_model_from_tensorflow_has_the_same_measures_on_two_devices_of_jax(
    tiny_run: Run, plain_dataset: Dataset, tmp_path: Path
) -> None:
    folder = _copied(tiny_run, tmp_path / "run")
    code, out, err = _trainer_on_jax("evaluate", f"--run={folder}", f"--tfrecords={plain_dataset.folder}", **TWO_DEVICES)
    assert code == 0, err
    assert "RMSE on test (15 galaxies)" in out
    _assert_same_measures(tiny_run.folder, folder, plain_dataset)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_jax_predicts_galaxies_without_votes(jax_run: Run, plain_dataset: Dataset, tmp_path: Path, run_main: Main) -> None:
    flags = "predict", f"--run={jax_run.folder}", f"--tfrecords={plain_dataset.folder}"
    code, out, err = _trainer_on_jax(*flags, f"--out={tmp_path / 'jax.csv'}")
    assert code == 0, err
    assert out == f"{tmp_path / 'jax.csv'}: predictions for 5 galaxies of split 'unlabelled'\n"
    code, _, err = run_main(*flags, f"--out={tmp_path / 'tensorflow.csv'}")
    assert code == 0, err
    jax, tensorflow = _table(tmp_path / "jax.csv"), _table(tmp_path / "tensorflow.csv")
    assert list(jax) == list(tensorflow) == [300_000, 300_001, 300_002, 300_003, 300_004]
    for galaxy_id, predicted in jax.items():
        np.testing.assert_allclose(tensorflow[galaxy_id], predicted, atol=1e-4)


@pytest.mark.slow
def test_a_batch_that_two_devices_cannot_share_is_one_line_with_what_to_take(plain_dataset: Dataset, tmp_path: Path) -> None:
    flags = f"--tfrecords={plain_dataset.folder}", f"--out={tmp_path / 'run'}", "--weights=none", "--batch_size=7"
    code, _, err = _trainer_on_jax(*flags, **TWO_DEVICES)
    assert (code, err) == (1, "error: --batch_size 7: 2 devices cannot share it equally: use 6 or 8\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("batch_size", "advice"), [(1, "use 4"), (3, "use 4"), (6, "use 4 or 8"), (33, "use 32 or 36")])
def test_what_to_take_is_the_nearest_batch_that_can_be_shared(plain_dataset: Dataset, batch_size: int, advice: str) -> None:
    with pytest.raises(ConfigError, match=f"--batch_size {batch_size}: 4 devices cannot share it equally: {advice}$"):
        steps_per_epoch(plain_dataset, batch_size, replicas=4)


@pytest.mark.slow
def test_a_cache_changes_no_bit_of_a_run(unmeasured_dataset: Dataset, tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    settings = {**tiny_settings, "epochs": 1, "limit": 16, "augment": "full"}
    without, cached = (
        train_model(TrainConfig(unmeasured_dataset.folder, tmp_path / cache, cache=cache, **settings))
        for cache in ("none", "memory")
    )
    rows = [[(row.epoch, row.mse, row.val_mse) for row in run.history()] for run in (without, cached)]
    assert rows[0] == rows[1]
    for one, other in zip(without.checkpoint_arrays(), cached.checkpoint_arrays(), strict=True):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    for run in (without, cached):
        shutil.rmtree(run.folder)
