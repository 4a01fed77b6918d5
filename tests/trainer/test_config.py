"""Settings are checked before anything slow starts, and recipes are as documented."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords.errors import SettingError
from trainer.config import GROUPS, RECIPES, SETTINGS, TrainConfig

CHOICES = {name: tuple(setting.choices) for name, setting in SETTINGS.items() if setting.choices is not None}
MAX_SEED = 2**32 - 1


def _config(**changes: Any) -> TrainConfig:
    return TrainConfig(Path("data"), Path("run"), **changes)


def test_the_recipe_of_the_article_is_what_its_code_has() -> None:
    config = _config(**RECIPES["article"]())
    assert (config.batch_size, config.learning_rate, config.schedule, config.warmup_steps) == (1, 1e-5, "constant", 0)
    assert (config.input_scaling, config.initialisation, config.head, config.pooling) == ("unit", "keras", "sigmoid", "flatten")
    assert (config.epochs, config.augment, config.loss) == (50, "none", "mse")
    assert (config.backbone, config.weights, config.weight_decay, config.ema) == ("vgg16", "imagenet", 0, 0)


def test_the_defaults_are_those_of_the_best_recipe_and_every_recipe_makes_the_same_choices() -> None:
    assert _config(**RECIPES["best"]()) == _config()
    assert set(RECIPES["best"]()) == set(RECIPES["article"]())
    with_no_recipe = {
        "tfrecords",
        "cache_dir",
        "out",
        "weights",
        "freeze",
        "precision",
        "seed",
        "limit",
        "cache",
        "checkpoint_minutes",
        "require_gpu",
        "hosts",
        "host_index",
        "hosts_secret",
    }
    assert set(RECIPES["best"]()) == {field.name for field in fields(TrainConfig)} - with_no_recipe


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_says_what_it_is(recipe: str) -> None:
    assert len(RECIPES[recipe].__doc__ or "") > 100


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
        ("weight_decay", -0.1),
        ("weight_decay", float("nan")),
        ("ema", 1.0),
        ("ema", -0.1),
        ("checkpoint_minutes", -1.0),
        ("checkpoint_minutes", float("nan")),
        *((name, "float64") for name in CHOICES),
    ],
)
def test_an_impossible_value_is_refused_with_its_flag_and_value(name: str, value: Any) -> None:
    with pytest.raises(SettingError) as caught:
        _config(**{"epochs": 50, name: value})
    assert str(caught.value).startswith(f"--{name} {value}: ")


def test_cross_entropy_needs_the_tree() -> None:
    with pytest.raises(SettingError, match=r"--loss cross_entropy: .*add --head tree"):
        _config(loss="cross_entropy", head="sigmoid")
    assert _config(loss="cross_entropy", head="tree").loss == "cross_entropy"


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_concentrations_and_the_loss_that_needs_them_go_together(loss: str) -> None:
    with pytest.raises(SettingError, match=rf"--head dirichlet: --loss {loss} ignores .*add --loss dirichlet_multinomial"):
        _config(loss=loss, head="dirichlet")
    for head in ("tree", "sigmoid"):
        with pytest.raises(SettingError, match=r"--loss dirichlet_multinomial: .*add --head dirichlet"):
            _config(loss="dirichlet_multinomial", head=head)
    assert _config(loss="dirichlet_multinomial", head="dirichlet").head == "dirichlet"


@given(
    st.fixed_dictionaries(
        {
            "epochs": st.integers(9), "batch_size": st.integers(1), "warmup_steps": st.integers(0), "patience": st.integers(1),
            "seed": st.integers(0, MAX_SEED), "limit": st.integers(0), "learning_rate": st.floats(0, 1, exclude_min=True),
            "weights": st.sampled_from(("imagenet", "none", "base.weights.h5")), "loss": st.just("mse"), "freeze": st.just(0),
            "weight_decay": st.floats(0, 1, exclude_max=True), "ema": st.floats(0, 1, exclude_max=True),
            **{name: st.sampled_from(choices) for name, choices in CHOICES.items() if name not in ("loss", "cache")},
        }
    )
)  # fmt: skip
def test_the_settings_hold_every_choice_but_the_places_and_the_hardware(values: dict[str, Any]) -> None:
    values["loss"] = "dirichlet_multinomial" if values["head"] == "dirichlet" else "mse"
    assert _config(**values, require_gpu=True, cache="none", checkpoint_minutes=0.5, hosts="auto").settings() == values
    where = {
        "tfrecords",
        "cache_dir",
        "out",
        "cache",
        "checkpoint_minutes",
        "require_gpu",
        "hosts",
        "host_index",
        "hosts_secret",
    }
    assert set(values) == {field.name for field in fields(TrainConfig)} - where


def test_every_field_is_described_and_its_default_is_legal() -> None:
    assert [field.name for field in fields(TrainConfig)] == list(SETTINGS)
    for setting in SETTINGS.values():
        assert setting.group in GROUPS and len(setting.help) > 15
        assert setting.unit or setting.choices or setting.kind is bool
    _config()


def test_the_documented_table_of_settings_is_that_of_the_fields() -> None:
    script = Path(__file__).parents[2] / ".ci" / "settings_table.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
