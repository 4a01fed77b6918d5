"""The head learns from features that are what the base makes, the base stays, and a stop in between costs nothing."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.test_resume import _bits, _rows
from tests.trainer.test_steps import CHILDREN
from tfrecords.commandline import Interruption, Terminated
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, RunError
from trainer import features, schedule, symmetries
from trainer import run as runs
from trainer.config import TrainConfig
from trainer.devices import Devices, Share, choose
from trainer.head_first import HeadFirst
from trainer.model import Design, build, features_and_head
from trainer.run import Run
from trainer.train import _Training, train

SETTINGS: dict[str, Any] = {
    "epochs": 3, "head_epochs": 2, "batch_size": 8, "limit": 24, "weights": "none", "augment": "dihedral", "warmup_steps": 2,
    "schedule": "cosine", "head": "tree", "loss": "cross_entropy", "ema": 0.5, "seed": 5,
}  # fmt: skip


class _After(Interruption):
    """A signal that is noticed when it has been asked for so many times."""

    def __init__(self, times: int) -> None:
        self._left = times

    @property
    def signal(self) -> int | None:
        self._left -= 1
        return signal.SIGTERM if self._left < 0 else None

    @signal.setter
    def signal(self, value: int | None) -> None:
        raise AssertionError


def _begun(config: TrainConfig, dataset: Dataset) -> _Training:
    run, is_new = runs.start(config.out, config.settings(), dataset, overwrite=False)
    return _Training(run, is_new, config, dataset, choose("float32", require_gpu=False))


@pytest.fixture(scope="module")
def alone(unmeasured_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """An undisturbed run: two epochs of the head alone, one of all layers. Read-only."""
    folder = tmp_path_factory.mktemp("head_first") / "alone"
    yield train(TrainConfig(unmeasured_dataset.folder, folder, **SETTINGS))
    shutil.rmtree(folder)


def test_features_are_what_the_base_makes_of_every_galaxy_in_every_symmetry(
    unmeasured_dataset: Dataset, tmp_path: Path
) -> None:
    from trainer.pipeline import evaluation_batches
    from trainer.steps import Predictor

    design = Design(32, scaling="random")
    net = build(design, "none", np.full(37, 0.3), "float32", 0)
    base = features_and_head(net, design)[0]
    predictor = Predictor(base, choose("float32", require_gpu=False))
    arguments = (predictor, 512, unmeasured_dataset, "train", 8, 8, 20)
    whole = features.compute(tmp_path / "whole", *arguments, Interruption())
    assert whole is not None and whole.values.shape == (8, 20, 512) and whole.values.dtype == np.float16
    [(_, images, targets)] = evaluation_batches(unmeasured_dataset, "train", 20, 20).as_numpy_iterator()
    np.testing.assert_array_equal(whole.targets, targets)
    for view in (0, 3, 6):
        expected = base.predict_on_batch(np.ascontiguousarray(symmetries.transformed(images, view)))
        np.testing.assert_allclose(whole.values[view], expected, rtol=2e-3, atol=1e-3 * expected.max())
    # Stopped in the third view, with a torn row at the end: what is there stays, the rest is the same.
    assert features.compute(tmp_path / "torn", *arguments, _After(7)) is None
    with (tmp_path / "torn").open("ab") as file:
        assert file.tell() == (2 * 20 + 8) * 1024
        file.write(b"torn")
    again = features.compute(tmp_path / "torn", *arguments, _After(17))  # 24 batches less the 7 that are there
    assert again is not None and (tmp_path / "torn").read_bytes() == (tmp_path / "whole").read_bytes()


def test_batches_hold_each_galaxy_once_an_epoch_with_its_votes_in_an_order_and_views_that_follow_from_the_seed(
    unmeasured_dataset: Dataset,
) -> None:
    values = (np.arange(8)[:, None, None] * 100 + np.arange(24)[None, :, None]).astype(np.float16)
    targets = np.tile(np.arange(24, dtype=np.float32)[:, None], (1, 37))
    made = features.Features(Path("none"), values, targets)

    def rows(seed: int, epochs: range, skip: int = 0) -> list[tuple[list[float], list[float]]]:
        batches = features.batches(made, unmeasured_dataset, 8, seed, 24, epochs, skip)
        return [(values[:, 0].tolist(), votes[:, 0].tolist()) for values, votes, _ in batches.as_numpy_iterator()]

    both = rows(0, range(2))
    assert len(both) == 6
    for epoch in (both[:3], both[3:]):
        shown = np.concatenate([batch[0] for batch in epoch])
        assert sorted(shown % 100) == list(range(24)) and len(set(shown // 100)) > 3
        np.testing.assert_array_equal(shown % 100, np.concatenate([batch[1] for batch in epoch]))
    assert both[:3] != both[3:] and rows(1, range(2)) != both
    assert rows(0, range(1, 2)) == both[3:] and rows(0, range(2), skip=2) == both[2:]


def test_the_first_epochs_leave_the_base_as_it_was_and_the_others_do_not(unmeasured_dataset: Dataset, tmp_path: Path) -> None:
    training = _begun(TrainConfig(unmeasured_dataset.folder, tmp_path / "run", **SETTINGS), unmeasured_dataset)
    training.prepare(Interruption())
    base, head = (part.weights for part in features_and_head(training.model, training._design))

    def state() -> list[list[np.ndarray]]:
        return [[np.array(weight) for weight in weights] for weights in (base, head)]

    states = [state()]
    for _ in range(3):
        training.epoch(Interruption())
        states.append(state())
        assert training.run.features_path("train").exists() == (len(states) < 3)
    of_base, of_head = ([_bits(both[part]) for both in states] for part in (0, 1))
    assert of_base[0] == of_base[1] == of_base[2] != of_base[3]
    assert all(one != two for one, two in itertools.pairwise(of_head))
    shutil.rmtree(tmp_path / "run")


def test_the_history_tells_the_rates_of_both_parts(alone: Run) -> None:
    assert [row.learning_rate for row in alone.history()] == pytest.approx([5e-4, 0.0, 0.0])  # half of 10 times 1e-4; its end
    assert all(np.isfinite([row.mse, row.val_mse]).all() for row in alone.history())


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_run_that_trains_the_head_alone_ends_without_features(
    precision: str, unmeasured_dataset: Dataset, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "epochs": 1, "head_epochs": 1, "pooling": "average", "augment": "none", "precision": precision}
    run = train(TrainConfig(unmeasured_dataset.folder, tmp_path / "run", **settings))
    [row] = run.history()
    assert np.isfinite([row.mse, row.val_mse]).all() and not run.features_path("train").exists()
    shutil.rmtree(run.folder)


def test_constant_predictions_are_told_of_the_head_alone_and_again_of_all_layers(
    unmeasured_dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**SETTINGS, "epochs": 4, "limit": 8, "learning_rate": 1e-30, "warmup_steps": 0, "patience": 9}
    run = train(TrainConfig(unmeasured_dataset.folder, tmp_path / "run", **settings))
    said = capsys.readouterr().out.splitlines()
    told = [line.startswith("warning: the predictions are nearly the same") for line in said]
    epochs = [line.startswith("epoch ") for line in said]
    assert [sum(epochs[:place]) for place, warned in enumerate(told) if warned] == [0, 2]
    first, second = (line for line, warned in zip(said, told, strict=True) if warned)
    assert "--head_epochs 0" in first and "--head_epochs" not in second
    assert any(line.startswith("--ema 0.5: 2 steps train all layers, so 50%") for line in said)
    shutil.rmtree(run.folder)


def test_a_run_stopped_everywhere_ends_as_an_undisturbed_one_bit_for_bit(
    alone: Run, unmeasured_dataset: Dataset, tmp_path: Path
) -> None:
    config = TrainConfig(unmeasured_dataset.folder, tmp_path / "run", **SETTINGS)
    reached = []
    for _ in ("features", "first epoch", "second epoch", "all layers"):
        training = _begun(config, unmeasured_dataset)
        reached.append((training.progress.finished, training.progress.steps))
        with pytest.raises(Terminated):
            training.prepare(_After(5) if len(reached) == 1 else Interruption())
            training.epoch(Interruption() if reached[-1][1] else _After(2))
            training.epoch(_After(2))
    run = train(config)
    assert reached == [(0, 0), (0, 0), (0, 3), (1, 3)]
    assert _rows(run) == _rows(alone)
    assert _bits(run.checkpoint_arrays()) == _bits(alone.checkpoint_arrays())
    assert _bits(run.load_model().get_weights()) == _bits(alone.load_model().get_weights())
    assert not run.features_path("train").exists()
    shutil.rmtree(run.folder)


def test_a_disk_without_room_is_one_error_with_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5_000_000))
    features._needed(tmp_path / "features", 4_000_000)
    with pytest.raises(RunError, match=r"need 0\.1 GB, and 0\.0 GB are free there: .*--pooling average"):
        features._needed(tmp_path / "features", 60_000_000)


def test_several_machines_are_refused(unmeasured_dataset: Dataset, tmp_path: Path) -> None:
    hosts = Devices("jax", (), 0, "float32", hosts=Share(2, 0))
    config = TrainConfig(unmeasured_dataset.folder, tmp_path, **SETTINGS)
    with pytest.raises(ConfigError, match="--head_epochs: works on one machine"):
        HeadFirst(None, Design(32), config, unmeasured_dataset, hosts, Run(tmp_path, {}), schedule.of_head(config, 3))


def test_on_jax_too_a_stopped_run_ends_as_an_undisturbed_one(unmeasured_dataset: Dataset, tmp_path: Path) -> None:
    """In a process of its own, with XLA's quicker compilation."""
    quick = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_backend_optimization_level=1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, str(CHILDREN), "head_first", str(unmeasured_dataset.folder), str(tmp_path)]
    ended = subprocess.run(command, env={**os.environ, **quick}, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_features_are_not_written_through_a_link(unmeasured_dataset: Dataset, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("years of work")
    training = _begun(TrainConfig(unmeasured_dataset.folder, tmp_path / "run", **SETTINGS), unmeasured_dataset)
    training.run.features_path("train").symlink_to(thesis)
    with pytest.raises(OSError, match=r"features-train"):
        training.prepare(Interruption())
    assert thesis.read_text() == "years of work"
    shutil.rmtree(tmp_path / "run")
