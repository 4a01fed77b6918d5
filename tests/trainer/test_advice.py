"""Warnings of a run, with what to change: constant predictions, and settings that are too long for the run."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.advice import (
    CONSTANT_SPREAD,
    collapse_warning,
    guarded_epoch,
    no_effect,
    spread,
    time_to_end,
    too_long,
    what_to_change,
)
from trainer.config import RECIPES, TrainConfig

SETTINGS = {**RECIPES["best"](), "weights": "imagenet"}


def test_the_spread_over_batches_is_that_over_all() -> None:
    predicted = np.random.default_rng(0).random((12, 5), np.float32)
    assert spread([predicted[:5], predicted[5:]]) == pytest.approx(predicted.std(axis=0).mean(), rel=1e-6)


def test_predictions_that_vary_are_no_reason_for_words() -> None:
    assert collapse_warning(CONSTANT_SPREAD, SETTINGS) == collapse_warning(float("nan"), SETTINGS) == ""
    said = collapse_warning(0.0012, SETTINGS)
    assert said.startswith(
        "warning: the predictions are nearly the same for all galaxies (standard deviation 0.0012 per column)"
    )
    assert "a smaller --batch_size" in said


@pytest.mark.parametrize(
    ("warmup_steps", "steps", "epochs", "expected"),
    [(0, 10, 5, 1), (10, 10, 5, 1), (11, 10, 5, 2), (60, 10, 9, 6), (60, 10, 5, 5), (60, 1000, 5, 1)],
)
def test_predictions_are_checked_after_the_first_epoch_past_the_warm_up_or_the_last(
    warmup_steps: int, steps: int, epochs: int, expected: int
) -> None:
    assert guarded_epoch(TrainConfig(Path(), warmup_steps=warmup_steps, epochs=epochs), steps) == expected


def test_the_advice_is_what_the_settings_do_not_have_yet() -> None:
    bad = {**RECIPES["article"](), "weights": "none", "batch_size": 64}
    assert what_to_change(bad) == (
        "--initialisation means, --weights imagenet, --warmup_steps 60, a higher --learning_rate than 1e-05 or a smaller "
        "--batch_size than 64"
    )
    assert "--input_scaling auto" in what_to_change({**bad, "weights": "imagenet"})
    good = {**SETTINGS, "initialisation": "means", "warmup_steps": 100, "input_scaling": "auto"}
    assert what_to_change({**good, "learning_rate": 1e-2, "batch_size": 1}) == "a lower --learning_rate than 0.01"


@pytest.mark.parametrize(
    ("changes", "steps", "expected"),
    [
        ({"warmup_steps": 60, "epochs": 2}, 31, ""),
        ({"warmup_steps": 60, "epochs": 2}, 30, "--warmup_steps 60: the run has 60 steps in total, .* use 6 or fewer, or more"),
        (
            {"warmup_steps": 60, "epochs": 1},
            3,
            "--warmup_steps 60: the run has 3 steps in total, .* never reaches 0.0001: use 0,",
        ),
        ({"warmup_steps": 0, "ema": 0.999, "epochs": 10}, 300, ""),
        (
            {"warmup_steps": 0, "ema": 0.999, "epochs": 10},
            77,
            r"--ema 0.999: the run has 770 steps in total, so 46% .* is still the initial weights: use 0.99 or less",
        ),
        ({"warmup_steps": 0, "ema": 0.99, "epochs": 1}, 3, r"the run has 3 steps in total, so 98% .* use 0 \(no average\), or"),
        ({"warmup_steps": 0, "ema": 0.99, "epochs": 1}, 1, ""),
    ],
)
def test_a_warm_up_or_an_average_longer_than_the_run_is_told_with_what_fits(
    changes: dict[str, Any], steps: int, expected: str
) -> None:
    said = too_long(TrainConfig(Path(), **changes), steps)
    assert len(said) == bool(expected)
    assert not expected or re.search(expected, said[0])


@pytest.mark.parametrize(
    ("rate", "decay"), [(1e-4, 1e-4), (1e-4, 2.9e-4), (1e-5, 2.9e-3), (1e-4, 3.1e-4), (1e-4, 6e-4), (1e-3, 1e-4)]
)
def test_a_weight_decay_that_float32_rounds_away_is_told_with_what_has_an_effect(rate: float, decay: float) -> None:
    weights = np.random.default_rng(0).uniform(1, 2, 100_000).astype(np.float32)
    has_effect = bool((weights - weights * np.float32(decay * rate) != weights).any())  # as AdamW of Keras subtracts it
    [*said] = no_effect(TrainConfig(Path(), learning_rate=rate, weight_decay=decay))
    assert len(said) == (not has_effect)
    if said:
        enough = float(re.search(r"changes no weight: use (\S+) or more, or 0", said[0])[1])  # type: ignore[index]
        changed = weights - weights * np.float32(enough * rate) != weights
        assert changed.mean() > 0.9


def test_no_weight_decay_is_no_mistake() -> None:
    assert no_effect(TrainConfig(Path(), weight_decay=0)) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "1 s"), (89, "89 s"), (90, "2 min"), (5340, "89 min"), (5400, "1.5 h"), (12 * 3600, "12.0 h")],
)
def test_the_expected_time_is_in_seconds_minutes_or_hours(seconds: float, text: str) -> None:
    assert time_to_end(seconds / 100, 100, 212, has_gpu=False) == (
        f"expected time to the end: {text} ({seconds / 100:.2f} s per step, at most 100 steps left)"
    )


def test_above_12_hours_the_advice_fits_the_hardware_and_the_images() -> None:
    first, advice = time_to_end(23.0, 87_500, 212, has_gpu=False).splitlines()
    assert first == "expected time to the end: 559.0 h (23.00 s per step, at most 87,500 steps left)"
    assert advice == (
        "that is more than 12 hours: use a machine with a GPU, smaller images (`preprocess --size 70`: about a ninth of "
        "the time), fewer --epochs, or --limit"
    )
    small = time_to_end(1.0, 87_500, 64, has_gpu=True).splitlines()[1]
    assert small == "that is more than 12 hours: use a faster GPU, fewer --epochs, or --limit"


@given(st.floats(1e-6, 1e3), st.integers(0, 10**7), st.integers(32, 1000), st.booleans())
def test_advice_comes_exactly_above_12_hours(per_step: float, steps: int, size: int, has_gpu: bool) -> None:
    lines = time_to_end(per_step, steps, size, has_gpu).splitlines()
    assert len(lines) == 1 + (per_step * steps > 12 * 3600)
