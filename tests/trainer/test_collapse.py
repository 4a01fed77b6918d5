"""A run whose predictions are constant is told from one that learns, and told what to change."""

import numpy as np
import pytest

from trainer.collapse import CONSTANT_SPREAD, spread, warning, what_to_change
from trainer.config import RECIPES

SETTINGS = {**RECIPES["best"](), "weights": "imagenet"}


def test_the_spread_over_batches_is_that_over_all() -> None:
    predicted = np.random.default_rng(0).random((12, 5), np.float32)
    assert spread([predicted[:5], predicted[5:]]) == pytest.approx(predicted.std(axis=0).mean(), rel=1e-6)


def test_predictions_that_vary_are_no_reason_for_words() -> None:
    assert warning(CONSTANT_SPREAD, SETTINGS) == warning(float("nan"), SETTINGS) == ""
    said = warning(0.0012, SETTINGS)
    assert said.startswith(
        "warning: the predictions are nearly the same for all galaxies (standard deviation 0.0012 per column)"
    )
    assert "a smaller --batch_size" in said


def test_the_advice_is_what_the_settings_do_not_have_yet() -> None:
    bad = {**RECIPES["article"](), "weights": "none", "batch_size": 64}
    assert what_to_change(bad) == (
        "--initialisation means, --weights imagenet, --warmup_steps 60, a higher --learning_rate than 1e-05 or a smaller "
        "--batch_size than 64"
    )
    assert "--input_scaling auto" in what_to_change({**bad, "weights": "imagenet"})
    good = {**SETTINGS, "initialisation": "means", "warmup_steps": 100, "input_scaling": "auto"}
    assert what_to_change({**good, "learning_rate": 1e-2, "batch_size": 1}) == "a lower --learning_rate than 0.01"


def test_the_head_alone_is_not_advised_a_warm_up_that_it_does_not_have() -> None:
    cold = {**SETTINGS, "warmup_steps": 0}
    assert what_to_change(cold).startswith("--warmup_steps 60, ")
    assert what_to_change(cold, head_alone=True).startswith("--head_epochs 0, a higher --learning_rate than 0.0001")
    assert "(--overwrite) with --head_epochs 0" in warning(0.0012, cold, head_alone=True)
