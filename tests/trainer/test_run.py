"""The run folder: what is saved and restored, and that runs are never mixed up."""

import dataclasses
import itertools
import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.dataset import SPLITS, Dataset
from tfrecords.errors import ConfigError, RunError
from tfrecords.files import sha256_file
from trainer import beginning
from trainer.analysis.card import command
from trainer.history import Curves, Epoch, best_epoch, stops_early
from trainer.run import Run, open_run
from trainer.saving import NOTHING_YET, Progress
from trainer.sealing import seal, unseal

SETTINGS = {"epochs": 3, "learning_rate": 1e-5, "weights": "none"}
NUMBERS = st.floats(allow_nan=True, allow_infinity=False)
MSE = st.integers(0, 5).map(lambda level: level / 64)  # few levels, so that equal values occur


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


def _listed(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoint").iterdir())


def test_only_the_latest_checkpoint_and_that_before_its_epoch_are_kept_and_an_unfinished_one_counts_for_nothing(
    tmp_path: Path,
) -> None:
    a_run = Run(tmp_path, {})
    assert a_run.progress() == NOTHING_YET
    a_run.save_checkpoint(ARRAYS, _progress([0.5]))
    mine = tmp_path / "checkpoint" / "epoch-00002.of-the-better-run"
    mine.mkdir()
    (mine / "progress.json").write_text("[")
    assert a_run.progress() == _progress([0.5])
    assert len(a_run.checkpoint_arrays()) == len(ARRAYS)
    a_run.save_checkpoint(ARRAYS, _progress([0.5], steps=3))
    assert _listed(tmp_path) == ["epoch-00001", "epoch-00001-step-0000003", mine.name]
    assert a_run.progress() == _progress([0.5], steps=3)
    assert a_run.progress(within=False) == _progress([0.5])
    a_run.save_checkpoint(ARRAYS, _progress([0.5], steps=11))
    assert _listed(tmp_path) == ["epoch-00001", "epoch-00001-step-0000011", mine.name]
    a_run.save_checkpoint(ARRAYS, _progress([0.5, 0.4]))
    assert _listed(tmp_path) == ["epoch-00002", mine.name]
    assert a_run.progress() == _progress([0.5, 0.4])
    assert (mine / "progress.json").read_text() == "["


def test_a_step_that_was_trained_again_in_another_order_replaces_its_checkpoint(tmp_path: Path) -> None:
    a_run = Run(tmp_path, {})
    first, again = (dataclasses.replace(_progress([0.5], steps=3), streams=streams) for streams in (8, 3))
    a_run.save_checkpoint(ARRAYS, first)
    a_run.save_checkpoint([*ARRAYS[:2], np.float32(0.5)], first)  # the same steps: nothing to save
    assert a_run.checkpoint_arrays()[2] == 0.25
    a_run.save_checkpoint([*ARRAYS[:2], np.float32(0.5)], again)
    assert a_run.progress() == again and a_run.checkpoint_arrays()[2] == 0.5
    assert _listed(tmp_path) == ["epoch-00001-step-0000003"]


def test_a_checkpoint_of_an_earlier_version_has_no_number_of_streams(tmp_path: Path) -> None:
    a_run = Run(tmp_path, {})
    a_run.save_checkpoint(ARRAYS, dataclasses.replace(_progress([0.5], steps=3), streams=8))
    [path] = (tmp_path / "checkpoint").glob("*/progress.json")
    content = unseal(path.read_text("utf-8"))
    del content["streams"]
    path.write_text(seal(content), "utf-8")
    assert a_run.progress() == _progress([0.5], steps=3)


def test_of_two_checkpoints_the_later_one_counts(tmp_path: Path) -> None:
    """A kill between committing a checkpoint and removing the previous one leaves both."""
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


def _edited(text: str) -> str:
    """A valid progress.json with another number of steps."""
    return text.replace('"steps": 0', '"steps": 7')


@pytest.mark.parametrize("name", ["arrays.npz", "progress.json"])
@pytest.mark.parametrize("content", [b"", b"damaged", b"{}"])
def test_a_damaged_checkpoint_is_an_error_that_names_it(name: str, content: bytes, tmp_path: Path) -> None:
    a_run = Run(tmp_path, {})
    a_run.save_checkpoint(ARRAYS, _progress([0.5]))
    (tmp_path / "checkpoint" / "epoch-00001" / name).write_bytes(content)
    with pytest.raises(RunError, match=r"epoch-00001: damaged.*--overwrite"):
        a_run.checkpoint_arrays() if name == "arrays.npz" else a_run.progress()


def test_a_checkpoint_that_was_edited_or_is_another_runs_is_an_error(tmp_path: Path) -> None:
    a_run = Run(tmp_path / "one", {"settings": SETTINGS, "dataset": {"fingerprint": "a"}})
    a_run.save_checkpoint(ARRAYS, _progress([0.5]))
    path = a_run.folder / "checkpoint" / "epoch-00001" / "progress.json"
    whole = path.read_text()
    assert _edited(whole) != whole
    path.write_text(_edited(whole))
    with pytest.raises(RunError, match=r"epoch-00001: damaged \(it has changed since it was written\): start again"):
        a_run.progress()
    path.write_text(whole)
    with pytest.raises(RunError, match=r"epoch-00001: damaged \(it belongs to another run\): start again"):
        Run(a_run.folder, {"settings": {**SETTINGS, "epochs": 2}, "dataset": {"fingerprint": "a"}}).progress()
    other = Run(tmp_path / "other", a_run.config)
    other.save_checkpoint([ARRAYS[0] + 1, *ARRAYS[1:]], _progress([0.5]))
    shutil.copy(other.folder / "checkpoint" / "epoch-00001" / "arrays.npz", path.parent)
    with pytest.raises(RunError, match=r"epoch-00001: damaged \(it has changed since it was written\): start again"):
        a_run.checkpoint_arrays()


def _start(folder: Path, dataset: Dataset, overwrite: bool = False, **changes: Any) -> Run:
    """The run in `folder`, created if it is new."""
    started, is_new = beginning.start(folder, {**SETTINGS, **changes}, dataset, overwrite)
    if is_new:
        beginning.create(started)
    return started


def _contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_the_same_settings_go_on_with_the_same_run(small_dataset: Dataset, tmp_path: Path) -> None:
    first = _start(tmp_path / "deep" / "run", small_dataset)
    before = _contents(first.folder)
    assert _start(first.folder, small_dataset) == first == open_run(first.folder)
    assert _contents(first.folder) == before
    assert first.config["settings"] == SETTINGS
    assert first.config["dataset"] == {
        "folder": str(small_dataset.folder), "fingerprint": small_dataset.fingerprint, "crop_fraction": 0.5, "size": 32,
        "encoding": "png", "galaxies": {name: small_dataset.galaxies(name) for name in SPLITS},
        "tree": sha256_file(first.folder / "tree.toml"), "asked": False,
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
    with pytest.raises(ConfigError, match=r"holds another run \(the dataset is a different one\)"):
        _start(tmp_path, plain_dataset)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_files_is_refused_and_left_untouched(small_dataset: Dataset, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    before = _contents(tmp_path)
    with pytest.raises(ConfigError, match=r"holds other files \(thesis\.tex\) and is not a training run: choose an --out"):
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
    started, is_new = beginning.start(tmp_path / "run", {**SETTINGS, "epochs": 4}, small_dataset, overwrite)
    assert is_new and started.settings["epochs"] == 4
    assert _contents(tmp_path) == before and (tmp_path / "run").exists() == overwrite


def _mine(folder: Path) -> list[str]:
    return sorted(name for name in _contents(folder) if not name.startswith(".galaxy-zoo"))


def test_overwrite_replaces_the_run_and_nothing_else(small_dataset: Dataset, tmp_path: Path) -> None:
    old = _start(tmp_path, small_dataset)
    old.write_history(_history([0.1]))
    old.save_checkpoint(ARRAYS, _progress([0.1]))
    ours = ("model.keras", "metrics.json", "predictions-test.csv", "README.md", "report/index.html",
            "report/figures/test-tree.svg", "evaluations/train/metrics.json")  # fmt: skip
    old.output.write({name: b"old" for name in ours})
    mine = ("notes.txt", "report/figures/thesis.svg", "checkpoint/backup/arrays.npz", "tensorboard/notes", "metrics-mine.json")
    for name in mine:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    new = _start(tmp_path, small_dataset, overwrite=True, epochs=4)
    assert _mine(tmp_path) == sorted(["config.json", "tree.toml", *mine])
    assert new.settings["epochs"] == 4 and new.progress() == NOTHING_YET and new.history() == []


def test_overwrite_takes_no_folder_of_another_program_for_a_run(small_dataset: Dataset, tmp_path: Path) -> None:
    """A model of the transformers library has a config.json too."""
    for name in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / name).write_text('{"architectures": ["ViTModel"]}')
    before = _contents(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(ConfigError) as caught:
            _start(tmp_path, small_dataset, overwrite)
        assert str(caught.value) == (
            f"{tmp_path}: holds other files (README.md) and is not a training run: choose an --out that is empty or new"
        )
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("name", ["README.md", "metrics.json", "report/index.html"])
def test_a_file_that_is_in_the_way_is_refused_before_any_training(small_dataset: Dataset, tmp_path: Path, name: str) -> None:
    a_run = _start(tmp_path, small_dataset)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = _contents(tmp_path)
    uses = (lambda: beginning.refuse_in_the_way(a_run), lambda: _start(tmp_path, small_dataset, overwrite=True))
    for use in uses:
        with pytest.raises(ConfigError, match=f"{name}: was not written by this program: move it elsewhere"):
            use()
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("name", ["checkpoint", "report", "tensorboard"])
def test_a_folder_of_the_run_that_is_a_link_is_refused(small_dataset: Dataset, tmp_path: Path, name: str) -> None:
    a_run = _start(tmp_path / "run", small_dataset)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "epoch-00001").mkdir()
    (a_run.folder / name).symlink_to(tmp_path / "elsewhere")
    uses = {
        "checkpoint": lambda: a_run.save_checkpoint(ARRAYS, _progress([0.5])),
        "report": lambda: a_run.output.write({"report/index.html": b""}),
        "tensorboard": lambda: Curves(a_run.folder).write(_history([0.5])[0]),
    }
    with pytest.raises(ConfigError, match=f"{name}: is a link to another folder"):
        uses[name]()
    assert [path.name for path in (tmp_path / "elsewhere").rglob("*")] == ["epoch-00001"]


def test_the_event_files_of_tensorboard_are_listed_as_ours(small_dataset: Dataset, tmp_path: Path) -> None:
    a_run = _start(tmp_path, small_dataset)
    curves = Curves(a_run.folder)
    for row in _history([0.5, 0.4]):
        curves.write(row)
    events = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "tensorboard").rglob("events*")}
    assert len(events) == 2 and events <= a_run.output.files.keys()


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"settings": {}, "dataset": 3}', "\udcff"])
def test_a_damaged_config_is_an_error_that_names_it(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content, errors="surrogateescape")
    with pytest.raises(
        RunError, match=r"config\.json: not the intact config\.json of a run .*: restore it, or set --run to the --out"
    ) as caught:
        open_run(tmp_path)
    assert "--overwrite" not in str(caught.value)


def test_a_folder_that_is_no_run_and_a_run_without_model_are_told_apart(small_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run folder \(config\.json is missing\)"):
        open_run(tmp_path)
    with pytest.raises(RunError, match=r"has no model\.keras yet: resume its training first"):
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


def test_a_run_of_an_earlier_version_is_named_as_such(tmp_path: Path) -> None:
    dataset = {"fingerprint": "", "crop_fraction": 0.5, "size": 32}
    (tmp_path / "config.json").write_text(json.dumps({"settings": {"epochs": 3}, "dataset": dataset}))
    with pytest.raises(RunError, match="it was written by an earlier version of this program"):
        open_run(tmp_path)


def test_a_run_begun_with_head_epochs_is_refused_in_one_line_and_can_be_replaced(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    old = _start(tmp_path, small_dataset, head_epochs=2)
    (old.output.private / "features-train-0123").write_bytes(b"gigabytes")
    before = _contents(tmp_path)
    with pytest.raises(ConfigError) as caught:
        _start(tmp_path, small_dataset)
    assert str(caught.value) == (
        f"{tmp_path}: holds another run (it was started with --head_epochs 2, which this version no longer has): "
        "choose another --out, or replace it with --overwrite"
    )
    assert _contents(tmp_path) == before
    with _start(tmp_path, small_dataset, overwrite=True).locked():
        assert not list(old.output.private.glob("features-*"))


def test_a_run_begun_without_head_epochs_by_a_version_that_had_them_resumes(small_dataset: Dataset, tmp_path: Path) -> None:
    old = _start(tmp_path, small_dataset, head_epochs=0)
    old.save_checkpoint(ARRAYS, _progress([0.5]))
    resumed = _start(tmp_path, small_dataset)
    assert resumed == old and resumed.progress() == _progress([0.5])
    assert "head_epochs" not in command(resumed)


def test_a_model_that_is_gone_is_told_with_the_ways_out(small_dataset: Dataset, tmp_path: Path) -> None:
    a_run = _start(tmp_path, small_dataset)
    for spoil in (lambda: None, lambda: a_run.model_path.write_bytes(b"another")):
        spoil()
        with pytest.raises(RunError, match=r"model\.keras: is missing or has changed since it was written: restore it"):
            a_run.check_model()
    a_run.model_path.unlink()
    a_run.output.write({"model.keras": b"a model"})
    a_run.check_model()


def test_a_folder_whose_name_is_no_utf_8_can_be_trained_on(small_dataset: Dataset, tmp_path: Path) -> None:
    odd = dataclasses.replace(small_dataset, folder=Path(os.fsdecode(os.fsencode(tmp_path) + b"/data\xff")))
    assert _start(tmp_path / "run", odd).config["dataset"]["folder"].endswith("/data\\xff")
