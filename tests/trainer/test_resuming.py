"""Where a run resumes on other machines: in its epoch if they can continue it, else before it, and never in silence."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrecords.dataset import Dataset
from tfrecords.errors import RunError
from trainer import train
from trainer.backends.base import Share
from trainer.backends.on_jax import JaxDevices
from trainer.config import TrainConfig
from trainer.history import Epoch
from trainer.input import training
from trainer.resuming import ResumePoint, resume_point
from trainer.run import Run, open_run
from trainer.saving import Progress
from trainer.train import train_model

pytestmark = pytest.mark.usefixtures("loaded_backend")

BEFORE = Progress((Epoch(1, 0.1, 0.2, 1e-4, 1.5, 20.0),), 0, "float32", "jax", 8)


def _point(run: Run, processes: int, batch_size: int = 24) -> ResumePoint:
    devices = JaxDevices((), 0, "float32", share=Share(processes, 0))
    return resume_point(run, False, "auto", devices, 10, batch_size)


def _saved(folder: Path, *states: Progress) -> Run:
    run = Run(folder, {})
    for progress in states:
        run.save_checkpoint([np.zeros(1)], progress)
    return run


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_machines_that_divide_the_streams_continue_with_the_next_step(tmp_path: Path, processes: int) -> None:
    within = dataclasses.replace(BEFORE, steps=7)
    assert _point(_saved(tmp_path, BEFORE, within), processes) == ResumePoint(within, 8)


def test_machines_that_cannot_divide_the_streams_begin_the_epoch_again_and_say_so(tmp_path: Path) -> None:
    point = _point(_saved(tmp_path, BEFORE, dataclasses.replace(BEFORE, steps=7)), 3)
    assert point.progress == dataclasses.replace(BEFORE, streams=3)
    assert (point.streams, point.within, point.has_state) == (3, False, True)
    assert point.line == (
        f"{tmp_path}: epoch 2 begins again: 3 processes cannot divide the 8 streams of galaxies that its first 7 steps read"
    )


def test_in_the_first_epoch_they_begin_the_run_again(tmp_path: Path) -> None:
    point = _point(_saved(tmp_path, Progress((), 7, "float32", "jax", 8)), 3)
    assert point.progress == Progress((), 0, "float32", "jax", 3) and not point.has_state
    assert "epoch 1 begins again" in point.line


@pytest.mark.parametrize("steps", [0, 10])
def test_between_epochs_other_machines_change_the_order_of_the_next_one(tmp_path: Path, steps: int) -> None:
    point = _point(_saved(tmp_path, dataclasses.replace(BEFORE, steps=steps)), 3)
    assert point == ResumePoint(dataclasses.replace(BEFORE, steps=steps, streams=3), 3)


@pytest.mark.parametrize("processes", [1, 3])
def test_an_epoch_that_an_earlier_version_began_resumes_as_before(tmp_path: Path, processes: int) -> None:
    within = dataclasses.replace(BEFORE, steps=7, streams=0)
    point = _point(_saved(tmp_path, within), processes)
    assert point == ResumePoint(within, {1: 8, 3: 3}[processes])


def test_without_the_checkpoint_before_the_epoch_the_way_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"epoch 2 would have to begin again.*8 streams.*resume with as many processes as before"
    ):
        _point(_saved(tmp_path, dataclasses.replace(BEFORE, steps=7)), 3)


def _one_stream(batch_size: int, processes: int, kept: int = 0) -> int:
    return 1


def _stop_in_epoch_2(monkeypatch: pytest.MonkeyPatch, config: TrainConfig, after: int) -> None:
    """Train until `after` steps of the second epoch; 0: until the end of the first."""
    train_epoch = train._Training._train

    def stopped(trained: Any, interruption: Any) -> tuple[float, float]:
        if trained.progress.finished == 1:
            for _ in range(after):
                trained.steps.train(next(trained._batches))
            if after:
                trained._stop(interruption, after)
            raise KeyboardInterrupt
        return train_epoch(trained, interruption)

    with monkeypatch.context() as patched:
        patched.setattr(train._Training, "_train", stopped)
        with pytest.raises(BaseException, match=r"^$") as ended:
            train_model(config)
    assert ended.typename in ("KeyboardInterrupt", "Terminated")


@pytest.mark.slow
def test_an_epoch_that_begins_again_is_that_of_machines_that_began_it(
    plain_dataset: Dataset,
    tiny_settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {**tiny_settings, "epochs": 2, "limit": 40}
    runs = []
    for name, steps in (("within", 3), ("between", 0)):
        config = TrainConfig(plain_dataset.folder, tmp_path / name, **settings)
        _stop_in_epoch_2(monkeypatch, config, steps)
        assert open_run(config.out).progress().steps == steps
        with monkeypatch.context() as patched:
            patched.setattr(training, "stream_count", _one_stream)  # as if other machines could not divide the eight
            train_model(config)
        lines = re.findall(r"epoch 2 begins again: .* its first 3 steps read", capsys.readouterr().out)
        assert len(lines) == (1 if steps else 0)
        runs.append(open_run(config.out))
    assert [array.tobytes() for array in runs[0].checkpoint_arrays()] == [
        array.tobytes() for array in runs[1].checkpoint_arrays()
    ]
    assert [[row.mse, row.val_mse] for row in runs[0].history()] == [[row.mse, row.val_mse] for row in runs[1].history()]
    assert runs[0].progress().streams == 1
