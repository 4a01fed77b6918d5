"""The learning rate goes as it is said to, and what is too long for a run is told with what fits."""

import re
from pathlib import Path
from typing import Any

import pytest

from trainer import schedule
from trainer.config import TrainConfig
from trainer.schedule import Rate


def test_it_grows_to_the_peak_and_falls_to_zero_along_a_cosine() -> None:
    rate = Rate(1.0, warmup=10, steps=110)
    assert [rate.after(step) for step in (0, 5, 10)] == pytest.approx([1 / 11, (1 / 11 + 1) / 2, 1])
    assert [rate.after(step) for step in (35, 60, 110, 200)] == pytest.approx([(1 + 0.5**0.5) / 2, 0.5, 0, 0], abs=1e-12)
    assert Rate(1.0, warmup=10).after(10_000) == 1.0
    assert Rate(1.0, warmup=10, steps=5).after(4) < Rate(1.0, warmup=10, steps=5).after(9) < 1


def _config(**changes: Any) -> TrainConfig:
    return TrainConfig(Path(), Path(), **changes)


def test_the_head_alone_learns_faster_without_warm_up_and_all_layers_begin_anew() -> None:
    config = _config(epochs=10, head_epochs=4, learning_rate=1e-4, warmup_steps=60)
    assert schedule.of_head(config, 50) == Rate(1e-3, 0, 200)
    assert schedule.of_all_layers(config, 50) == Rate(1e-4, 60, 300)
    constant = _config(epochs=10, head_epochs=4, schedule="constant")
    assert schedule.of_head(constant, 50).steps == schedule.of_all_layers(constant, 50).steps == 0


@pytest.mark.parametrize(
    ("changes", "steps", "expected"),
    [
        ({"warmup_steps": 60, "epochs": 2}, 31, ""),
        ({"warmup_steps": 60, "epochs": 2}, 30, "--warmup_steps 60: there are 60 steps in all, .* take 6 or fewer, or more"),
        (
            {"warmup_steps": 60, "epochs": 1},
            3,
            "--warmup_steps 60: there are 3 steps in all, .* never reaches 0.0001: take 0,",
        ),
        ({"warmup_steps": 60, "epochs": 4, "head_epochs": 3}, 30, "--warmup_steps 60: 30 steps train all layers, so"),
        ({"warmup_steps": 60, "epochs": 4, "head_epochs": 4}, 3, ""),
        ({"warmup_steps": 0, "ema": 0.999, "epochs": 10}, 300, ""),
        (
            {"warmup_steps": 0, "ema": 0.999, "epochs": 10},
            77,
            r"--ema 0.999: there are 770 steps in all, so 46% of the average is still the model as it began: take 0.99 or less",
        ),
        ({"warmup_steps": 0, "ema": 0.99, "epochs": 1}, 3, "there are 3 steps in all, so 98% .* take 0, which is none, or"),
        ({"warmup_steps": 0, "ema": 0.99, "epochs": 1}, 1, ""),
        ({"warmup_steps": 0, "ema": 0.99, "epochs": 4, "head_epochs": 4}, 50, "there are 200 steps .* so 14%"),
    ],
)
def test_a_warm_up_or_an_average_longer_than_the_run_is_told_with_what_fits(
    changes: dict[str, Any], steps: int, expected: str
) -> None:
    said = schedule.too_long(_config(**changes), steps)
    assert len(said) == bool(expected)
    assert not expected or re.search(expected, said[0])
