"""Saving beside training, as on a GPU, changes nothing but the time: same files, same lines, errors not swallowed."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError
from trainer import train
from trainer.config import TrainConfig
from trainer.run import Run, open_run
from trainer.saving import Saver
from trainer.train import train_model


def _beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save in a thread, as on a GPU."""
    monkeypatch.setattr(train, "Saver", lambda beside, minutes: Saver(True, minutes))


def _slowed(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[int]:
    """Make each checkpoint wait; return the list of the epochs saved."""
    saved: list[int] = []
    save_checkpoint = Run.save_checkpoint

    def slow(run: Run, arrays: Any, progress: Any) -> None:
        time.sleep(seconds)
        save_checkpoint(run, arrays, progress)
        saved.append(progress.finished)

    monkeypatch.setattr(Run, "save_checkpoint", slow)
    return saved


def _contents(folder: Path) -> dict[str, Any]:
    """What two runs of the same seed have in common."""
    run = open_run(folder)
    names = ("epoch", "mse", "val_mse", "learning_rate")
    return {
        "history": [[getattr(row, name) for name in names] for row in run.history()],
        "checkpoint": [path.name for path in (folder / "checkpoint").iterdir()],
        "arrays": [array.tolist() for array in run.checkpoint_arrays()],
        "predictions": (folder / "predictions-test.csv").read_bytes(),
        "listed": {name for name in run.output.files if "tensorboard" not in name},
    }


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_a_run_saved_in_a_thread_is_the_run_saved_at_once(
    seconds: float, tiny_run: Run, plain_dataset: Dataset, tiny_settings: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    _beside(monkeypatch)
    saved = _slowed(monkeypatch, seconds)
    train_model(TrainConfig(plain_dataset.folder, tmp_path / "run", **tiny_settings))
    assert _contents(tmp_path / "run") == _contents(tiny_run.folder)
    epochs = len(tiny_run.history())
    assert saved[-1] == epochs
    if seconds:  # an epoch takes less than a second, so the second one waits for the third
        assert saved == [1, epochs]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in lines] == [f"epoch {number}/{epochs}" for number in range(1, epochs + 1)]


@pytest.mark.parametrize("beside", [False, True])
def test_checkpoints_within_epochs_change_nothing_but_the_time(
    beside: bool, tiny_run: Run, plain_dataset: Dataset, tiny_settings: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if beside:
        _beside(monkeypatch)
    steps: list[int] = []
    save_checkpoint = Run.save_checkpoint

    def noted(run: Run, arrays: Any, progress: Any) -> None:
        save_checkpoint(run, arrays, progress)
        steps.append(progress.steps)

    monkeypatch.setattr(Run, "save_checkpoint", noted)
    train_model(TrainConfig(plain_dataset.folder, tmp_path / "run", checkpoint_minutes=1e-9, **tiny_settings))
    assert _contents(tmp_path / "run") == _contents(tiny_run.folder)
    if beside:  # as often as the saves before have ended
        assert any(steps) and steps[-1] == 0
    else:  # after every step, and after the validation
        assert steps == [1, 2, 3, 4, 5, 6, 0] * len(tiny_run.history())


def test_an_interrupted_run_saved_in_a_thread_resumes_with_the_same_result(
    tiny_run: Run, plain_dataset: Dataset, tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _beside(monkeypatch)
    _slowed(monkeypatch, 1.0)
    config = TrainConfig(plain_dataset.folder, tmp_path / "run", **tiny_settings)
    validate = train._Training._validate

    def interrupted(training: Any, interruption: Any) -> float:
        if training.progress.finished == 1:  # the first epoch is still being saved
            training._stop(interruption, training.steps_per_epoch)
        return validate(training, interruption)

    with monkeypatch.context() as patched:
        patched.setattr(train._Training, "_validate", interrupted)
        with pytest.raises(BaseException) as stopped:
            train_model(config)
    assert stopped.typename == "Terminated"
    names = sorted(path.name[:16] for path in (tmp_path / "run" / "checkpoint").iterdir())
    assert names == ["epoch-00001", "epoch-00001-step"]
    train_model(config)
    assert _contents(tmp_path / "run") == _contents(tiny_run.folder)


def test_a_save_that_fails_in_a_thread_ends_the_run(
    plain_dataset: Dataset, tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _beside(monkeypatch)

    def fails(run: Run, model: Any) -> None:
        raise ConfigError("the disk is full")

    monkeypatch.setattr(Run, "save_model", fails)
    with pytest.raises(ConfigError, match="the disk is full"):
        train_model(TrainConfig(plain_dataset.folder, tmp_path / "run", **tiny_settings))


@pytest.mark.parametrize("beside", [False, True])
def test_lines_come_once_and_only_after_their_save(beside: bool) -> None:
    go_on = threading.Event()
    if not beside:
        go_on.set()
    with Saver(beside) as saver:
        saver.start(lambda: _wait(go_on), ["one", "two"])
        if beside:
            assert saver.is_busy() and not saver.saved_lines()
        go_on.set()
        assert saver.saved_lines(wait=True) == ["one", "two"]
        assert not saver.is_busy() and not saver.saved_lines()


def test_a_save_is_due_once_its_time_has_passed_since_the_last_and_that_is_done() -> None:
    assert not Saver(beside=False).is_due() and not Saver(beside=False, minutes=60).is_due()
    go_on = threading.Event()
    with Saver(True, minutes=0.3 / 60) as saver:
        assert not saver.is_due()
        time.sleep(0.4)
        assert saver.is_due()
        saver.start(lambda: _wait(go_on), [])
        time.sleep(0.4)
        assert not saver.is_due()
        go_on.set()
        saver.saved_lines(wait=True)
        assert saver.is_due()


def _wait(event: threading.Event) -> None:
    assert event.wait(30)


def test_the_context_ends_only_after_the_save(tmp_path: Path) -> None:
    def save() -> None:
        time.sleep(0.5)
        (tmp_path / "saved").touch()

    with pytest.raises(ValueError, match="elsewhere"), Saver(True) as saver:
        saver.start(save, [])
        raise ValueError("elsewhere")
    assert (tmp_path / "saved").exists()
