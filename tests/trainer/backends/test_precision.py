"""Mixed precision learns what float32 learns."""

from collections.abc import Callable
from pathlib import Path

import pytest

from preprocess.job import BuildSettings, build_dataset
from tests.trainer import small
from tests.trainer.objective import objective
from tfrecords.dataset import Dataset

STEPS, LAST = 100, 20


@pytest.fixture(scope="module")
def real_dataset(
    kaggle: Path, build_settings: Callable[..., BuildSettings], tmp_path_factory: pytest.TempPathFactory
) -> Dataset:
    """600 real galaxies at 32 x 32. Read-only."""
    settings = build_settings(limit=600, validation_fraction=0.0, test_fraction=0.0, examples_per_shard=100)
    return build_dataset(kaggle, tmp_path_factory.mktemp("real") / "data", settings, workers=2).dataset


def _last_losses(dataset: Dataset, precision: str, seed: int) -> float:
    """The mean loss of the last 20 of 100 steps from random weights."""
    from tfrecords.reader import votes_of
    from trainer.backends.choose import choose
    from trainer.input.training import TrainingInput
    from trainer.network import model
    from trainer.network.optimizer import Rate, build_optimizer

    hardware = choose(precision, require_gpu=False)
    with hardware.scope():
        net = model.build_model(
            model.Design(dataset.size, small.SMALL, scaling="random"),
            "none",
            votes_of(dataset, "train").targets.mean(axis=0),
            precision,
            seed,
        )
        adam = build_optimizer(net.trainable_variables, Rate(2e-5, 20), precision)
        training = hardware.steps(net, adam, objective())
    batches = iter(training.ready(TrainingInput(dataset, 2 * hardware.replicas, seed).batches(0, STEPS)))
    for step in range(STEPS):
        if step == STEPS - LAST:
            training.start_epoch()
        training.train(next(batches))
    return training.error_sum() / LAST


@pytest.fixture(scope="module")
def float32_loss(real_dataset: Dataset) -> float:
    return _last_losses(real_dataset, "float32", seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_ends_within_1_percent_of_float32s_loss(
    precision: str, real_dataset: Dataset, float32_loss: float
) -> None:
    """Measured: 0.08 % with bfloat16, 0.06 % with float16, and 5 % between two seeds in float32.

    Seeds differ by more because these 20 steps of two use other galaxies; all precisions use the same ones.
    """
    assert _last_losses(real_dataset, precision, seed=0) == pytest.approx(float32_loss, rel=0.01)
