"""The run folder: what is kept, what it is restored to, and that no run is mixed up with another."""

import dataclasses
import itertools
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, RunError
from trainer import run
from trainer.config import RECIPES
from trainer.run import NOTHING_YET, Epoch, Progress, Run, best_epoch, open_run, stops_early

SETTINGS = {"epochs": 3, "learning_rate": 1e-5, "weights": "none"}
NUMBERS = st.floats(allow_nan=True, allow_infinity=False)
MSE = st.integers(0, 5).map(lambda level: level / 64)  # few levels: equals must occur


def _history(validation: list[float]) -> list[Epoch]:
    return [Epoch(number, 0.1, mse, 1e-5, 1.5, 20.0) for number, mse in enumerate(validation, 1)]


@given(st.lists(MSE, min_size=1, max_size=12))
def test_the_best_epoch_is_the_first_of_the_lowest_validation_mse(validation: list[float]) -> None:
    best = best_epoch(_history(validation))
    assert best.val_mse == min(validation)
    assert best.epoch == 1 + validation.index(min(validation))


@given(st.lists(MSE, min_size=1, max_size=12), st.integers(1, 6))
def test_training_stops_exactly_when_patience_epochs_brought_nothing_better(validation: list[float], patience: int) -> None:
    before = validation[:-patience]
    nothing_better = bool(before) and min(validation[-patience:]) >= min(before)
    assert stops_early(_history(validation), patience) == nothing_better


@given(st.integers(1, 12), st.integers(1, 6))
def test_without_validation_the_last_epoch_is_kept_and_nothing_stops_early(epochs: int, patience: int) -> None:
    history = _history([math.nan] * epochs)
    assert best_epoch(history) is history[-1]
    assert not stops_early(history, patience)
    assert not stops_early([], patience)


@given(st.lists(st.builds(Epoch, st.integers(1, 999), *[NUMBERS] * 5), max_size=5))
@settings(max_examples=40)
def test_a_history_is_read_back_bit_for_bit(history: list[Epoch]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        a_run = Run(Path(folder), {})
        assert a_run.history() == []
        a_run.write_history(history)
        assert repr(a_run.history()) == repr(history)  # repr: NaN equals itself, -0.0 differs from 0.0


def _progress(val_mses: list[float], steps: int = 0) -> Progress:
    return Progress(tuple(_history(val_mses)), steps, "float32")


ARRAYS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2], np.uint32), np.float32(0.25)]


def test_a_checkpoint_gives_back_every_array_bit_for_bit_and_how_far_the_run_had_come(tmp_path: Path) -> None:
    a_run = Run(tmp_path, {})
    a_run.save_checkpoint(ARRAYS, _progress([0.5, 0.4], steps=7))
    assert a_run.progress() == _progress([0.5, 0.4], steps=7) and a_run.progress().finished == 2
    for got, expected in zip(a_run.checkpoint_arrays(), ARRAYS, strict=True):
        assert got.dtype == expected.dtype and got.shape == expected.shape
        np.testing.assert_array_equal(got, expected)


def test_only_the_latest_checkpoint_is_kept_and_an_unfinished_one_counts_for_nothing(tmp_path: Path) -> None:
    a_run = Run(tmp_path, {})
    assert a_run.progress() == NOTHING_YET
    a_run.save_checkpoint(ARRAYS, _progress([0.5]))
    unfinished = tmp_path / "checkpoint" / "epoch-00002.partial"
    unfinished.mkdir()
    (unfinished / "progress.json").write_text("[")
    assert a_run.progress() == _progress([0.5])
    assert len(a_run.checkpoint_arrays()) == len(ARRAYS)
    a_run.save_checkpoint(ARRAYS, _progress([0.5], steps=3))
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["epoch-00001-step-0000003"]
    a_run.save_checkpoint(ARRAYS, _progress([0.5], steps=11))
    a_run.save_checkpoint(ARRAYS, _progress([0.5, 0.4]))
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["epoch-00002"]
    assert a_run.progress() == _progress([0.5, 0.4])


def test_of_two_checkpoints_the_later_one_counts(tmp_path: Path) -> None:
    """As a kill between the commit of a checkpoint and the removal of the one before leaves them."""
    a_run = Run(tmp_path, {})
    states = [_progress([0.5]), _progress([0.5], 9), _progress([0.5], 10), _progress([0.5, 0.4])]
    for earlier, later in itertools.pairwise(states):
        a_run.save_checkpoint(ARRAYS, earlier)
        (kept,) = (tmp_path / "checkpoint").iterdir()
        shutil.copytree(kept, tmp_path / "copy")
        a_run.save_checkpoint(ARRAYS, later)
        shutil.move(tmp_path / "copy", kept)
        assert a_run.progress() == later
        shutil.rmtree(tmp_path / "checkpoint")


@pytest.mark.parametrize("name", ["arrays.npz", "progress.json"])
@pytest.mark.parametrize("content", [b"", b"damaged", b"{}"])
def test_a_damaged_checkpoint_is_an_error_that_names_it(name: str, content: bytes, tmp_path: Path) -> None:
    a_run = Run(tmp_path, {})
    a_run.save_checkpoint(ARRAYS, _progress([0.5]))
    (tmp_path / "checkpoint" / "epoch-00001" / name).write_bytes(content)
    with pytest.raises(RunError, match=r"epoch-00001: damaged.*--overwrite"):
        a_run.checkpoint_arrays() if name == "arrays.npz" else a_run.progress()


def _start(folder: Path, dataset: Dataset, overwrite: bool = False, **changes: Any) -> Run:
    """The run in `folder`, made where it is new."""
    started, is_new = run.start(folder, {**SETTINGS, **changes}, dataset, overwrite)
    if is_new:
        run.create(started)
    return started


def _contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_the_same_settings_go_on_with_the_same_run(small_dataset: Dataset, tmp_path: Path) -> None:
    first = _start(tmp_path / "deep" / "run", small_dataset)
    before = _contents(first.folder)
    assert _start(first.folder, small_dataset) == first == run.open_run(first.folder)
    assert _contents(first.folder) == before
    assert first.config["settings"] == SETTINGS
    assert first.config["dataset"] == {
        "fingerprint": small_dataset.fingerprint, "crop_fraction": 0.5, "size": 32, "encoding": "png",
    }  # fmt: skip


def test_other_settings_are_refused_with_what_differs_and_the_run_stays_as_it_is(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    _start(tmp_path, small_dataset)
    before = _contents(tmp_path)
    with pytest.raises(ConfigError) as caught:
        _start(tmp_path, small_dataset, epochs=4, weights="imagenet")
    assert str(caught.value) == (
        f"{tmp_path}: holds another run (epochs was 3, now 4; weights was none, now imagenet): "
        "choose another --out, or replace it with --overwrite"
    )
    assert _contents(tmp_path) == before


def test_another_dataset_is_refused(small_dataset: Dataset, plain_dataset: Dataset, tmp_path: Path) -> None:
    _start(tmp_path, small_dataset)
    with pytest.raises(ConfigError, match=r"holds another run \(the dataset is another one\)"):
        _start(tmp_path, plain_dataset)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_files_is_refused_and_left_untouched(small_dataset: Dataset, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    before = _contents(tmp_path)
    with pytest.raises(ConfigError, match="is not empty and no run: choose an --out that is empty or new"):
        _start(tmp_path, small_dataset, overwrite)
    with pytest.raises(ConfigError, match=r"thesis\.tex: is a file: choose another --out"):
        _start(tmp_path / "thesis.tex", small_dataset, overwrite)
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_written_or_taken_away_before_a_new_run_is_created(
    small_dataset: Dataset, tmp_path: Path, overwrite: bool
) -> None:
    if overwrite:
        _start(tmp_path / "run", small_dataset)
    before = _contents(tmp_path)
    started, is_new = run.start(tmp_path / "run", {**SETTINGS, "epochs": 4}, small_dataset, overwrite)
    assert is_new and started.settings["epochs"] == 4
    assert _contents(tmp_path) == before and (tmp_path / "run").exists() == overwrite


def test_overwrite_replaces_the_run_and_nothing_else(small_dataset: Dataset, tmp_path: Path) -> None:
    old = _start(tmp_path, small_dataset)
    old.write_history(_history([0.1]))
    old.save_checkpoint(ARRAYS, _progress([0.1]))
    files = ("model.keras", "metrics.json", "metrics-train.json", "predictions-test.csv", "README.md", "config.json.partial")
    for name in files:
        (tmp_path / name).write_text("old")
    for name in ("report", "tensorboard"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    new = _start(tmp_path, small_dataset, overwrite=True, epochs=4)
    assert sorted(_contents(tmp_path)) == ["config.json", "notes.txt"]
    assert new.settings["epochs"] == 4 and new.progress() == NOTHING_YET and new.history() == []


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"settings": {}, "dataset": 3}', "\udcff"])
def test_a_damaged_config_is_an_error_that_names_it(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content, errors="surrogateescape")
    with pytest.raises(RunError, match=r"config\.json: damaged.*--overwrite"):
        run.open_run(tmp_path)


def test_a_folder_that_is_no_run_and_a_run_without_model_are_told_apart(small_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run folder \(config\.json is missing\)"):
        run.open_run(tmp_path)
    with pytest.raises(RunError, match=r"has no model\.keras yet: train it first"):
        _start(tmp_path, small_dataset).load_model()


def test_a_damaged_model_is_an_error_that_names_it(small_dataset: Dataset, tmp_path: Path) -> None:
    a_run = _start(tmp_path, small_dataset)
    a_run.model_path.write_bytes(b"no model")
    with pytest.raises(RunError, match=r"model\.keras: cannot be loaded"):
        a_run.load_model()


@pytest.mark.parametrize(("name", "value"), [("size", 64), ("crop_fraction", 0.75)])
def test_a_dataset_of_another_size_or_crop_is_refused_naming_both(
    small_dataset: Dataset, tmp_path: Path, name: str, value: float
) -> None:
    a_run = _start(tmp_path, small_dataset)
    a_run.check_dataset(small_dataset)
    other = dataclasses.replace(small_dataset, settings={**small_dataset.settings, name: value})
    with pytest.raises(ConfigError) as caught:
        a_run.check_dataset(other)
    message = str(caught.value)
    assert f"its {name} is {value}" in message and f"trained with {small_dataset.settings[name]}" in message
    assert str(tmp_path) in message and f"--{name}" in message


def test_a_run_of_an_earlier_version_has_the_settings_that_it_did_not_say(tmp_path: Path) -> None:
    config = {"settings": {"epochs": 3}, "dataset": {"fingerprint": "", "crop_fraction": 0.5, "size": 32}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = open_run(tmp_path).settings
    assert found.keys() >= RECIPES["article"]().keys() - {"batch_size", "learning_rate", "warmup_steps", "patience"}
    assert (found["epochs"], found["head"], found["schedule"], found["augment"]) == (3, "sigmoid", "constant", "none")
