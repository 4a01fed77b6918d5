"""A run that was stopped, in whatever way, ends as if nothing had happened."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tfrecords.dataset import Dataset
from trainer.config import TrainConfig
from trainer.run import Run, open_run
from trainer.train import train

Main = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Stopped:
    """How a process ended, and what it had said until then."""

    status: int
    said: str
    complained: str


def _flags(dataset: Dataset, out: Path, settings: dict[str, Any]) -> list[str]:
    return [f"--tfrecords={dataset.folder}", f"--out={out}", *(f"--{name}={value}" for name, value in settings.items())]


def _stop_at(line: str, number: signal.Signals, flags: list[str]) -> Stopped:
    """Run `trainer` and send it a signal as soon as it has said a line that begins so."""
    command = [sys.executable, "-m", "trainer", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        said = ""
        for got in process.stdout:
            said += got
            if got.startswith(line):
                process.send_signal(number)
                break
        rest, complained = process.communicate(timeout=120)
    return Stopped(process.returncode, said + rest, complained)


@dataclass(frozen=True)
class Disturbed:
    """A run that was terminated in its first process, killed in its second, and finished in a third."""

    run: Run
    terminated: Stopped
    killed: Stopped


@pytest.fixture(scope="module")
def disturbed(
    plain_dataset: Dataset, tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Disturbed]:
    out = tmp_path_factory.mktemp("disturbed") / "run"
    flags = _flags(plain_dataset, out, tiny_settings)
    terminated = _stop_at("epoch 1/3", signal.SIGTERM, flags)
    killed = _stop_at("epoch 2/3", signal.SIGKILL, flags)
    run = train(TrainConfig(plain_dataset.folder, out, **tiny_settings))
    yield Disturbed(run, terminated, killed)
    shutil.rmtree(out)


def test_sigterm_ends_with_143_and_says_how_to_go_on(disturbed: Disturbed) -> None:
    assert disturbed.terminated.status == 143
    assert disturbed.terminated.complained.splitlines()[-1] == (
        "interrupted by SIGTERM: run the same command again to go on after the last finished epoch"
    )
    assert "Traceback" not in disturbed.terminated.complained


def test_nothing_but_progress_and_that_line_goes_to_stderr(disturbed: Disturbed) -> None:
    lines = disturbed.terminated.complained.replace("\r", "\n").splitlines()
    others = [line for line in lines if line.strip() and not line.startswith(("epoch ", "interrupted by "))]
    assert others == []


def test_the_next_command_goes_on_after_the_last_finished_epoch(disturbed: Disturbed) -> None:
    assert disturbed.killed.status == -signal.SIGKILL
    assert f"{disturbed.run.folder}: going on after epoch 1 of 3\n" in disturbed.killed.said
    assert "epoch 1/3" not in disturbed.killed.said


def test_a_stopped_run_ends_with_the_history_of_an_undisturbed_one_bit_for_bit(disturbed: Disturbed, tiny_run: Run) -> None:
    rows = [(row.epoch, row.mse, row.val_mse, row.learning_rate) for row in disturbed.run.history()]
    assert rows == [(row.epoch, row.mse, row.val_mse, row.learning_rate) for row in tiny_run.history()]


def test_a_stopped_run_ends_with_the_predictions_of_an_undisturbed_one_bit_for_bit(disturbed: Disturbed, tiny_run: Run) -> None:
    name = "predictions-test.csv"
    assert (disturbed.run.folder / name).read_bytes() == (tiny_run.folder / name).read_bytes()


def test_a_stopped_run_leaves_no_other_files_than_an_undisturbed_one(disturbed: Disturbed, tiny_run: Run) -> None:
    def names(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if "tfevents" not in path.name}

    assert names(disturbed.run.folder) == names(tiny_run.folder)


def test_a_finished_run_prints_its_metrics_again_and_changes_no_file(
    tiny_run: Run, plain_dataset: Dataset, tiny_settings: dict[str, Any], tiny_metrics: dict[str, Any], run_main: Main
) -> None:
    def state() -> dict[Path, tuple[int, int, int]]:
        stats = {path: path.stat() for path in tiny_run.folder.rglob("*")}
        return {path: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}

    before = state()
    code, out, err = run_main(*_flags(plain_dataset, tiny_run.folder, tiny_settings))
    assert (code, err) == (0, "")
    assert out.startswith(f"{tiny_run.folder}: training is complete after 3 epochs\n")
    assert f"this model             {tiny_metrics['rmse']:.4f} " in out
    assert f"report:  {tiny_run.folder / 'report' / 'index.html'}" in out
    assert state() == before


def test_a_run_that_was_stopped_before_its_metrics_evaluates_without_training(
    disturbed: Disturbed, plain_dataset: Dataset, tiny_settings: dict[str, Any], run_main: Main
) -> None:
    folder = disturbed.run.folder
    before = (folder / "metrics.json").read_bytes()
    (folder / "metrics.json").unlink()
    shutil.rmtree(folder / "report")
    code, out, _ = run_main(*_flags(plain_dataset, folder, tiny_settings))
    assert code == 0 and "training is complete after 3 epochs" in out and "epoch 1/3" not in out
    assert (folder / "metrics.json").read_bytes() == before
    assert (folder / "report" / "index.html").is_file()
    assert open_run(folder) == disturbed.run


def test_a_resumed_run_does_not_need_the_weights_it_started_from(
    plain_dataset: Dataset, imagenet_weights: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "base.weights.h5"
    shutil.copy(imagenet_weights, weights)
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 8, "limit": 8, "weights": str(weights)}
    _stop_at("epoch 1/4:", signal.SIGKILL, _flags(plain_dataset, tmp_path / "run", settings))
    weights.unlink()
    run = train(TrainConfig(plain_dataset.folder, tmp_path / "run", **settings))
    assert [row.epoch for row in run.history()] == [1, 2, 3, 4]
    shutil.rmtree(run.folder)
