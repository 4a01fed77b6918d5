"""Interrupted steps resume bit for bit, and several devices give the results of one."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer import small
from tests.trainer.objective import objective
from tfrecords.dataset import Dataset
from tfrecords.reader import votes_of
from trainer.backends.base import Steps
from trainer.backends.choose import choose
from trainer.input.training import TrainingInput
from trainer.network import model
from trainer.network.optimizer import Rate, build_optimizer

CHILDREN = Path(__file__).parents[1] / "children.py"
# Compile without optimisation, which would take most of the time of these tests.
XLA_FLAGS = "--xla_backend_optimization_level=1"
TWO = {
    "tensorflow": {"TENSORFLOW_DEVICES": "2"},
    "jax": {"XLA_FLAGS": f"{XLA_FLAGS} --xla_force_host_platform_device_count=2"},
}


def _child(backend: str, devices: int, *arguments: object) -> str:
    """What a function of `children` prints in a process with this number of virtual devices."""
    more = TWO[backend] if devices == 2 else {}
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2", "XLA_FLAGS": XLA_FLAGS, **more}
    command = [sys.executable, str(CHILDREN), *map(str, arguments)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def _bits(arrays: list[np.ndarray]) -> list[tuple[Any, Any, bytes]]:
    return [(array.dtype, array.shape, array.tobytes()) for array in arrays]


@pytest.fixture(scope="module")
def fresh(plain_dataset: Dataset) -> Callable[..., tuple[Steps, Any]]:
    """A function that returns steps as at the start of a run, and their optimizer."""

    def make(precision: str, ema: float = 0.0) -> tuple[Steps, Any]:
        devices = choose(precision, require_gpu=False)
        means = votes_of(plain_dataset, "train", 0).targets.mean(axis=0)
        network = model.build_model(model.Design(32, small.SMALL, scaling="random"), "none", means, precision, seed=3)
        adam = build_optimizer(network.trainable_variables, Rate(3e-4, 4), precision, ema=ema)
        return devices.steps(network, adam, objective("dihedral")), adam

    return make


@pytest.fixture(scope="module")
def six_batches(plain_dataset: Dataset) -> list[Any]:
    return list(TrainingInput(plain_dataset, 8, 3).batches(0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_restored_steps_go_on_bit_for_bit(
    fresh: Callable[..., tuple[Steps, Any]], six_batches: list[Any], precision: str
) -> None:
    undisturbed, adam = fresh(precision)
    for batch in six_batches[:3]:
        undisturbed.train(batch)
    if precision == "mixed_float16":
        adam.dynamic_scale.assign(512.0)
    between = undisturbed.state()
    for batch in six_batches[3:]:
        undisturbed.train(batch)
    disturbed, other = fresh(precision)
    disturbed.restore(between)
    if precision == "mixed_float16":
        assert float(other.dynamic_scale) == 512.0
    assert _bits(disturbed.state()) == _bits(between)
    for batch in six_batches[3:]:
        disturbed.train(batch)
    assert disturbed.error_sum() == undisturbed.error_sum()
    assert _bits(disturbed.state()) == _bits(undisturbed.state())
    assert _bits(undisturbed.state()) != _bits(between)
    # Arrays of another model are refused, and none of them is used.
    state = _bits(disturbed.state())
    for wrong in (between[:-1], [*between, between[0]], [*between[1:], between[0]]):
        with pytest.raises(ValueError, match="do not fit this model"):
            disturbed.restore(wrong)
    assert _bits(disturbed.state()) == state


@pytest.mark.slow
def test_the_sum_of_losses_begins_anew_with_an_epoch(fresh: Callable[..., tuple[Steps, Any]], six_batches: list[Any]) -> None:
    steps, _ = fresh("float32")
    assert steps.error_sum() == 0.0
    steps.train(six_batches[0])
    first = steps.error_sum()
    steps.train(six_batches[1])
    assert 0 < first < steps.error_sum()
    before = steps.state()
    steps.start_epoch()
    assert steps.error_sum() == 0.0
    assert _bits(steps.state())[:-1] == _bits(before)[:-1]


def check_average(steps: Steps, batches: Iterator[Any], momentum: float) -> None:
    """After three steps, weights and predictions are those of the moving average in `averaged`, and unchanged outside."""
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    seen = []
    for _ in range(3):
        steps.train(next(batches))
        seen.append(steps.weights())
    plain, state = steps.predict(images)(), steps.state()
    with steps.averaged():
        average, predicted = steps.weights(), steps.predict(images)()
    for first, second, third, mean in zip(*seen, average, strict=True):
        expected = momentum * (momentum * first + (1 - momentum) * second) + (1 - momentum) * third
        np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-7)
    assert any(not np.array_equal(one, two) for one, two in zip(average, seen[-1], strict=True))
    assert abs(predicted - plain).max() > 1e-6
    assert _bits(steps.state()) == _bits(state) and _bits([steps.predict(images)()]) == _bits([plain])


@pytest.mark.slow
def test_the_moving_average_is_what_is_validated_and_kept(
    fresh: Callable[..., tuple[Steps, Any]], six_batches: list[Any]
) -> None:
    check_average(fresh("float32", ema=0.75)[0], iter(six_batches), 0.75)
    steps, _ = fresh("float32")
    steps.train(six_batches[0])
    plain = steps.weights()
    with steps.averaged():
        assert _bits(steps.weights()) == _bits(plain)


def _saved(path: Path) -> list[np.ndarray]:
    with np.load(path) as arrays:
        return [arrays[name] for name in sorted(arrays.files)]


@pytest.mark.slow
def test_batch_normalization_on_two_devices_looks_at_the_whole_batch() -> None:
    assert _child("tensorflow", 2, "statistics") == "the same\n"


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "dropout"), [("tensorflow", 0.0), ("jax", 0.5)])
def test_two_devices_take_the_step_and_give_the_predictions_of_one_and_can_be_restored(
    plain_dataset: Dataset, tmp_path: Path, backend: str, dropout: float
) -> None:
    """15 galaxies in batches of 8: the last is padded. TensorFlow draws dropout on each device, so it is off for it."""
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        said = _child(backend, devices, "gradient", plain_dataset.folder, folder, dropout)
        assert said == f"{devices} devices\n"
    before, one, two = (_saved(tmp_path / name) for name in ("1/before.npz", "1/after.npz", "2/after.npz"))
    assert _bits(before) == _bits(_saved(tmp_path / "2" / "before.npz"))
    moved = 0
    for start, first, second in zip(before, one, two, strict=True):
        if start.dtype == np.float32:
            gradient = np.abs(first - start).max()
            moved += gradient > 0
            np.testing.assert_allclose(second, first, rtol=1e-6, atol=1e-4 * gradient + 1e-7)
    assert moved == 13  # 12 weights, and the sum of the errors
    with np.load(tmp_path / "1" / "predicted.npz") as alone, np.load(tmp_path / "2" / "predicted.npz") as shared:
        assert alone["ids"].tolist() == shared["ids"].tolist()
        assert len(set(alone["ids"].tolist())) == len(alone["ids"]) == plain_dataset.galaxies("test")
        np.testing.assert_allclose(shared["votes"], alone["votes"], rtol=1e-5, atol=1e-6)
