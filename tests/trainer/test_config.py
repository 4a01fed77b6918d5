"""A run's settings are checked before anything slow begins."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords.errors import SettingError
from trainer.config import AUGMENTATIONS, MAX_SEED, PRECISIONS, TrainConfig


def _config(**changes: Any) -> TrainConfig:
    return TrainConfig(Path("data"), Path("run"), **changes)


def test_the_defaults_are_the_articles() -> None:
    config = _config()
    assert (config.epochs, config.learning_rate, config.weights) == (50, 1e-5, "imagenet")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("warmup_steps", -1),
        ("patience", 0),
        ("seed", -1),
        ("seed", MAX_SEED + 1),
        ("limit", -1),
        ("learning_rate", 0.0),
        ("learning_rate", -1e-5),
        ("learning_rate", 1.1),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("precision", "float64"),
    ],
)
def test_an_impossible_value_is_refused_with_its_flag_and_value(name: str, value: Any) -> None:
    with pytest.raises(SettingError) as caught:
        _config(**{name: value})
    assert str(caught.value).startswith(f"--{name} {value}: ")


@given(
    st.fixed_dictionaries(
        {
            "epochs": st.integers(1), "batch_size": st.integers(1), "warmup_steps": st.integers(0), "patience": st.integers(1),
            "seed": st.integers(0, MAX_SEED), "limit": st.integers(0), "learning_rate": st.floats(0, 1, exclude_min=True),
            "precision": st.sampled_from(PRECISIONS), "augment": st.sampled_from(AUGMENTATIONS), "weights": st.text(),
        }
    )
)  # fmt: skip
def test_the_settings_hold_every_choice_but_the_places_and_the_hardware(values: dict[str, Any]) -> None:
    assert _config(**values, require_gpu=True, cache="none", hosts="auto").settings() == values
    where = {"tfrecords", "out", "cache", "require_gpu", "hosts", "host_index"}
    assert set(values) == {field.name for field in fields(TrainConfig)} - where
