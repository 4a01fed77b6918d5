"""A run that was stopped, in whatever way, resumes and ends like an undisturbed run."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.terminal import terminal
from tests.trainer import small
from tfrecords.dataset import Dataset
from tfrecords.interrupts import Interruption, Terminated
from trainer import beginning
from trainer.backends.choose import choose
from trainer.config import TrainConfig
from trainer.run import Run, open_run
from trainer.train import _Training, train_model

Main = Callable[..., tuple[int, str, str]]
NOTICE = "saving a checkpoint after this step; interrupt again to stop at once"
GO_ON = "run the same command again (without --overwrite) to resume from the last checkpoint"
BAR = re.compile(r"epoch (\d+)/\d+: .*?(\d+)/6 \[")


@dataclass(frozen=True)
class Stop:
    """A signal to send `delay` seconds after the pattern `shown` has appeared on stderr."""

    shown: str
    number: signal.Signals
    delay: float = 0.0


@dataclass(frozen=True)
class Stopped:
    """The exit status of a process, its stdout (`said`) and stderr (`complained`), and the checkpoints that it left."""

    status: int
    said: str
    complained: str
    checkpoints: tuple[str, ...]

    @property
    def first_bar(self) -> tuple[int, int]:
        """The epoch and the step at which its progress bar started."""
        found = BAR.search(self.complained)
        assert found is not None
        return int(found[1]), int(found[2])


def _flags(dataset: Dataset, out: Path, settings: dict[str, Any]) -> list[str]:
    return [f"--tfrecords={dataset.folder}", f"--out={out}", *(f"--{name}={value}" for name, value in settings.items())]


def _trainer(backend: str, dataset: Dataset, out: Path, settings: dict[str, Any], *stops: Stop) -> Stopped:
    """Run `trainer`, and send it signals one after the other."""
    command = [*small.PROGRAM, *_flags(dataset, out, settings)]
    environment = {**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": "--xla_backend_optimization_level=1"}
    if stops:
        environment["STEP_SECONDS"] = "0.2"
    with (
        terminal() as screen,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=screen.theirs, env=environment) as process,
    ):
        screen.started()
        complained = b""
        for stop in stops:
            while not re.search(stop.shown, complained.decode(errors="ignore")):
                got = screen.read()
                assert got, f"ended before it showed {stop.shown}: {complained.decode()}"
                complained += got
            time.sleep(stop.delay)
            process.send_signal(stop.number)
        complained += screen.read_all()
        assert process.stdout is not None
        said = process.stdout.read()
    names = tuple(sorted(path.name for path in (out / "checkpoint").glob("*")))
    return Stopped(process.returncode, said.decode(), complained.decode(), names)


@dataclass(frozen=True)
class Disturbed:
    """A run that was terminated in its first epoch, stopped by Ctrl-C in its second, and later killed at a random moment."""

    run: Run
    undisturbed: Run
    terminated: Stopped
    stopped_by_ctrl_c: Stopped
    killed: Stopped


# Seconds from the first progress bar to the kill: while the process compiles, trains or saves, long before its end.
KILLED_AFTER = round(random.Random(0).uniform(0, 1.5), 2)


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def disturbed(
    request: pytest.FixtureRequest,
    plain_dataset: Dataset,
    tiny_settings: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Disturbed]:
    folder, backend = tmp_path_factory.mktemp("disturbed"), request.param
    settings = tiny_settings
    if backend == "jax":  # as many steps of fewer galaxies: a step takes six times as long as on TensorFlow
        settings = {**tiny_settings, "epochs": 2, "batch_size": 4, "limit": 24, "ema": 0.9, "head": "tree"}
        assert _trainer(backend, plain_dataset, folder / "undisturbed", settings).status == 0
        undisturbed = open_run(folder / "undisturbed")
    else:
        undisturbed = request.getfixturevalue("tiny_run")
    out = folder / "run"
    stops = (Stop(r"epoch 1/.*[123]/6", signal.SIGTERM), Stop(r"epoch 2/.*[123]/6", signal.SIGINT))
    terminated, stopped = (_trainer(backend, plain_dataset, out, settings, stop) for stop in stops)
    killed = _trainer(backend, plain_dataset, out, settings, Stop("epoch", signal.SIGKILL, KILLED_AFTER))
    assert _trainer(backend, plain_dataset, out, settings).status == 0
    yield Disturbed(open_run(out), undisturbed, terminated, stopped, killed)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_sigterm_in_an_epoch_saves_a_checkpoint_and_says_how_to_go_on(disturbed: Disturbed) -> None:
    ended = disturbed.terminated
    assert ended.status == 143
    [name] = ended.checkpoints
    assert re.fullmatch(r"epoch-00000-step-000000[1-6]", name)
    assert ended.complained.splitlines()[-1] == f"interrupted by SIGTERM: {GO_ON}"
    assert ended.complained.count(NOTICE) == 1


@pytest.mark.slow
def test_ctrl_c_in_an_epoch_saves_a_checkpoint_and_says_how_to_go_on(disturbed: Disturbed) -> None:
    ended = disturbed.stopped_by_ctrl_c
    assert ended.status == 130
    before, name = ended.checkpoints  # other machines may have to begin the epoch again
    assert before == "epoch-00001" and re.fullmatch(r"epoch-00001-step-000000[1-6]", name)
    assert ended.complained.splitlines()[-1] == f"interrupted by Ctrl-C: {GO_ON}"
    assert ended.complained.count(NOTICE) == 1


@pytest.mark.slow
def test_nothing_but_progress_and_these_lines_goes_to_stderr(disturbed: Disturbed) -> None:
    for ended in (disturbed.terminated, disturbed.stopped_by_ctrl_c, disturbed.killed):
        lines = ended.complained.replace("\r", "\n").splitlines()
        others = [line for line in lines if line.strip() and not line.startswith(("epoch ", "interrupted by ", NOTICE))]
        assert [line for line in others if not line.startswith("predicting test")] == []


@pytest.mark.slow
def test_the_next_command_goes_on_with_the_very_next_step(disturbed: Disturbed) -> None:
    for before, after in (
        (disturbed.terminated, disturbed.stopped_by_ctrl_c),
        (disturbed.stopped_by_ctrl_c, disturbed.killed),
    ):
        finished, step = (int(number) for number in re.findall(r"\d+", before.checkpoints[-1]))
        epochs = disturbed.run.settings["epochs"]
        assert f"{disturbed.run.folder}: resuming after epoch {finished} of {epochs} and {step} of 6 steps" in after.said
        assert after.first_bar == (finished + 1, step)
    assert disturbed.killed.status == -signal.SIGKILL


def _rows(run: Run) -> list[tuple[float, ...]]:
    return [(row.epoch, row.mse, row.val_mse, row.learning_rate) for row in run.history()]


def _bits(arrays: list[np.ndarray]) -> list[tuple[Any, Any, bytes]]:
    return [(array.dtype, array.shape, array.tobytes()) for array in arrays]


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_history_of_an_undisturbed_one_bit_for_bit(disturbed: Disturbed) -> None:
    assert len(disturbed.run.history()) == disturbed.run.settings["epochs"]
    assert _rows(disturbed.run) == _rows(disturbed.undisturbed)


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_state_of_an_undisturbed_one_bit_for_bit(disturbed: Disturbed) -> None:
    """Weights, moments of the optimizer, random states, and the sum of losses."""
    assert _bits(disturbed.run.checkpoint_arrays()) == _bits(disturbed.undisturbed.checkpoint_arrays())


@pytest.mark.slow
def test_a_stopped_run_keeps_the_model_of_an_undisturbed_one_bit_for_bit(disturbed: Disturbed) -> None:
    kept, other = (run.load_model().get_weights() for run in (disturbed.run, disturbed.undisturbed))
    assert _bits(kept) == _bits(other)


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_predictions_of_an_undisturbed_one_bit_for_bit(disturbed: Disturbed) -> None:
    name = "predictions-test.csv"
    assert (disturbed.run.folder / name).read_bytes() == (disturbed.undisturbed.folder / name).read_bytes()


@pytest.mark.slow
def test_a_stopped_run_leaves_no_other_files_than_an_undisturbed_one(disturbed: Disturbed) -> None:
    def names(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if "tfevents" not in path.name}

    assert names(disturbed.run.folder) == names(disturbed.undisturbed.folder)


@pytest.mark.slow
def test_kill_9_within_an_epoch_loses_no_more_than_the_minutes_between_checkpoints(
    plain_dataset: Dataset, tiny_settings: dict[str, Any], tiny_run: Run, tmp_path: Path
) -> None:
    """Steps of 0.2 seconds, and a checkpoint every 0.1: all steps but the last are saved."""
    often = {**tiny_settings, "checkpoint_minutes": 0.1 / 60}
    killed = _trainer("tensorflow", plain_dataset, tmp_path / "run", often, Stop(r"epoch 2/.*4/6", signal.SIGKILL))
    assert killed.status == -signal.SIGKILL
    assert killed.checkpoints[-1] in ("epoch-00001-step-0000003", "epoch-00001-step-0000004")
    resumed = _trainer("tensorflow", plain_dataset, tmp_path / "run", tiny_settings)  # the flag may change
    assert resumed.status == 0 and resumed.first_bar[1] >= 3
    run = open_run(tmp_path / "run")
    assert _rows(run) == _rows(tiny_run)
    assert _bits(run.checkpoint_arrays()) == _bits(tiny_run.checkpoint_arrays())
    name = "predictions-test.csv"
    assert (run.folder / name).read_bytes() == (tiny_run.folder / name).read_bytes()
    shutil.rmtree(run.folder)


@pytest.mark.slow
def test_a_second_signal_ends_at_once_without_a_checkpoint(
    plain_dataset: Dataset, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    stops = Stop("epoch 1/3: .*0/6", signal.SIGTERM), Stop(NOTICE, signal.SIGTERM)
    ended = _trainer("tensorflow", plain_dataset, tmp_path / "run", tiny_settings, *stops)
    assert (ended.status, ended.checkpoints) == (143, ())
    assert ended.complained.splitlines()[-1] == f"interrupted by SIGTERM: {GO_ON}"
    assert ended.complained.count(NOTICE) == 1


@pytest.mark.slow
def test_sigterm_in_validation_loses_no_training_step(
    plain_dataset: Dataset, tiny_settings: dict[str, Any], tiny_run: Run, tmp_path: Path
) -> None:
    config = TrainConfig(plain_dataset.folder, tmp_path / "run", **tiny_settings)
    run, is_new = beginning.start(config.out, config.settings(), plain_dataset, overwrite=False)
    training = _Training(run, is_new, config, plain_dataset, choose("float32", require_gpu=False))
    training.open_batches()
    training._train(Interruption())
    came = Interruption()
    came.signal = signal.SIGTERM
    with pytest.raises(Terminated):
        training._validate(came)
    assert run.progress().steps == 6
    assert _rows(train_model(config)) == _rows(tiny_run)
    shutil.rmtree(run.folder)


@pytest.mark.slow
def test_a_disturbed_run_stops_early_in_the_same_epoch(
    unmeasured_dataset: Dataset, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    """With full augmentation, whose random numbers depend on the epoch too, and a rate so high that validation gets worse."""
    settings = {
        **tiny_settings,
        "epochs": 8,
        "learning_rate": 1e-2,
        "patience": 1,
        "augment": "full",
        "batch_size": 4,
        "limit": 24,
    }
    alone = train_model(TrainConfig(unmeasured_dataset.folder, tmp_path / "alone", **settings))
    assert len(alone.history()) < 8
    ended = _trainer("tensorflow", unmeasured_dataset, tmp_path / "run", settings, Stop(r"epoch 1/.*[123]/6", signal.SIGTERM))
    assert ended.status == 143
    run = train_model(TrainConfig(unmeasured_dataset.folder, tmp_path / "run", **settings))
    assert _rows(run) == _rows(alone)
    assert _bits(run.checkpoint_arrays()) == _bits(alone.checkpoint_arrays())
    shutil.rmtree(alone.folder)
    shutil.rmtree(run.folder)


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


@pytest.mark.slow
def test_a_run_that_was_stopped_before_its_metrics_evaluates_without_training(
    disturbed: Disturbed, plain_dataset: Dataset, run_main: Main
) -> None:
    """This process uses TensorFlow: a run that was trained on it has the same metrics to the last digit."""
    folder, settings = disturbed.run.folder, disturbed.run.settings
    before = (folder / "metrics.json").read_bytes()
    (folder / "metrics.json").unlink()
    shutil.rmtree(folder / "report")
    given = {name: value for name, value in settings.items() if value or name != "limit"}
    code, out, _ = run_main(*_flags(plain_dataset, folder, given))
    assert code == 0 and f"training is complete after {settings['epochs']} epochs" in out and "epoch 1/" not in out
    if disturbed.undisturbed.folder.parent != folder.parent:
        assert (folder / "metrics.json").read_bytes() == before
    assert (folder / "report" / "index.html").is_file()
    assert open_run(folder) == disturbed.run


@pytest.mark.slow
def test_a_resumed_run_does_not_need_the_weights_it_started_from(
    unmeasured_dataset: Dataset, imagenet_weights: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "base.weights.h5"
    shutil.copy(imagenet_weights, weights)
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 8, "limit": 8, "weights": str(weights)}
    _trainer("tensorflow", unmeasured_dataset, tmp_path / "run", settings, Stop("epoch 2/4:", signal.SIGKILL))
    weights.unlink()
    run = train_model(TrainConfig(unmeasured_dataset.folder, tmp_path / "run", **settings))
    assert [row.epoch for row in run.history()] == [1, 2, 3, 4]
    shutil.rmtree(run.folder)
