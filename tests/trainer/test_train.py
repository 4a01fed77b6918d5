"""Training learns, writes exactly the promised files, and reports what it does."""

import contextlib
import dataclasses
import io
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer import small
from tfrecords import framing, schema
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, DatasetError, RunError
from tfrecords.outputs import NEVER, Output
from trainer.config import TrainConfig
from trainer.evaluate import evaluate_run
from trainer.predict import predict_split
from trainer.run import Run, open_run
from trainer.train import train_model

MakeDataset = Callable[..., Dataset]


@pytest.fixture
def run_folder(tmp_path: Path) -> Iterator[Path]:
    """A run folder for one test, removed afterwards: a checkpoint of VGG16 has 200 MB."""
    yield tmp_path / "run"
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


def test_a_run_leaves_exactly_what_the_contract_names(tiny_run: Run) -> None:
    assert sorted(path.name for path in tiny_run.folder.iterdir()) == [
        ".galaxy-zoo", "README.md", "checkpoint", "config.json", "history.csv", "metrics.json", "model.keras",
        "predictions-test.csv", "report", "tensorboard", "tree.toml",
    ]  # fmt: skip
    assert [path.name for path in (tiny_run.folder / "checkpoint").iterdir()] == ["epoch-00003"]
    assert {path.name for path in (tiny_run.folder / "tensorboard").iterdir()} == {"train", "validation"}
    assert (tiny_run.folder / "report" / "index.html").is_file()


def test_every_file_of_a_run_is_listed_as_ours_and_no_other(tiny_run: Run) -> None:
    there = {path.relative_to(tiny_run.folder).as_posix() for path in tiny_run.folder.rglob("*") if path.is_file()}
    private = {name for name in there if name.startswith(".galaxy-zoo/")}
    assert private == {f".galaxy-zoo/{name}" for name in ("lock", "marker.json", "shards.json")}
    assert tiny_run.output.files.keys() == there - private
    unhashed = {name for name, digest in tiny_run.output.files.items() if digest == NEVER}
    assert {name.split("/")[0] for name in unhashed} == {"checkpoint", "tensorboard"}
    assert all(tiny_run.output.is_intact(name) for name in there - private)


def test_a_second_trainer_and_evaluate_are_refused_while_a_run_is_under_way(
    tiny_run: Run, plain_dataset: Dataset, tiny_settings: dict[str, Any]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_run.folder.rglob("*")}
    config = TrainConfig(plain_dataset.folder, tiny_run.folder, **tiny_settings)
    uses: tuple[Callable[[], object], ...] = (
        lambda: train_model(config),
        lambda: train_model(dataclasses.replace(config, epochs=2), overwrite=True),
        lambda: evaluate_run(tiny_run, plain_dataset, "train"),
    )
    with tiny_run.locked():
        for use in uses:
            with pytest.raises(ConfigError, match=f"{tiny_run.folder}: another trainer command is writing here: wait for it"):
                use()
        predict_split(tiny_run, plain_dataset, "test")  # commands that only read are allowed
    assert {path: path.stat().st_mtime_ns for path in tiny_run.folder.rglob("*")} == before


def test_it_learns_what_anyone_can_see(tiny_metrics: dict[str, Any]) -> None:
    assert tiny_metrics["rmse"] < 0.9 * tiny_metrics["baselines"]["train_mean"]
    assert tiny_metrics["spread"] > 0.01


def test_the_config_holds_all_that_prediction_needs(
    tiny_run: Run, plain_dataset: Dataset, tiny_settings: dict[str, Any]
) -> None:
    content = json.loads((tiny_run.folder / "config.json").read_text("utf-8"))
    assert tiny_settings.items() <= content["settings"].items()
    assert content["dataset"]["fingerprint"] == plain_dataset.fingerprint
    assert (content["dataset"]["size"], content["dataset"]["crop_fraction"]) == (32, 1.0)


def test_the_history_has_a_row_per_epoch_that_agrees_with_the_checkpoint(tiny_run: Run) -> None:
    history = tiny_run.history()
    assert [row.epoch for row in history] == [1, 2, 3]
    assert tuple(history) == tiny_run.progress().history
    for row in history:
        assert 0 < row.mse < 1 and 0 < row.val_mse < 1 and row.seconds > 0 and row.images_per_second > 0
        assert row.learning_rate == pytest.approx(1e-3)  # after four steps of warm-up


def test_the_kept_model_is_that_of_the_best_epoch(tiny_run: Run, plain_dataset: Dataset) -> None:
    from trainer.analysis.metrics import score
    from trainer.predict import predict_split

    predictions = predict_split(tiny_run, plain_dataset, "validation")
    best = min(row.val_mse for row in tiny_run.history())
    assert score(predictions.predicted, predictions.targets, plain_dataset.tree).mse == pytest.approx(best, rel=1e-4)


@dataclasses.dataclass(frozen=True)
class Bare:
    """A run of 2 epochs of 12 steps on a dataset without validation and test splits, and its stdout."""

    run: Run
    said: str


@pytest.fixture(scope="module")
def bare(make_dataset: MakeDataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    dataset = make_dataset(validation_fraction=0.0, test_fraction=0.0)
    folder = tmp_path_factory.mktemp("bare") / "run"
    settings: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 1,
        "limit": 12,
        "weights": "none",
        "patience": 1,
        "ema": 0.99999,
        "backbone": small.SMALL,
    }
    with contextlib.redirect_stdout(io.StringIO()) as said:
        run = train_model(TrainConfig(dataset.folder, folder, **settings))
    yield Bare(run, said.getvalue())
    shutil.rmtree(folder)


@pytest.mark.slow
def test_without_validation_there_is_no_early_stopping_and_the_last_model_is_kept(bare: Bare) -> None:
    assert "no split 'validation': no early stopping, and the last model is kept" in bare.said
    assert [math.isnan(row.val_mse) for row in bare.run.history()] == [True, True]
    assert "epoch 2/2: MSE " in bare.said and "validation MSE" not in bare.said
    assert bare.run.model_path.is_file()


@pytest.mark.slow
def test_without_test_there_are_no_metrics_and_that_is_said(bare: Bare) -> None:
    assert "no split 'test': no metrics" in bare.said
    assert not [path.name for path in bare.run.folder.iterdir() if path.name.startswith(("metrics", "predictions"))]
    assert [path.name for path in bare.run.folder.glob("report/**/*.*")] == ["history.svg"]
    card = (bare.run.folder / "README.md").read_text("utf-8")
    assert "**Not measured**: its dataset has no `test` split" in card and "{" not in card and "None" not in card


@pytest.mark.slow
def test_whether_predictions_vary_is_told_by_the_weights_as_they_are_not_by_their_average(bare: Bare) -> None:
    spread = re.search(r"nearly the same for all galaxies \(standard deviation (\d\.\d{4}) per column\)", bare.said)
    assert spread is None or float(spread[1]) > 0.0005  # the average is still at the start, where they are all the same


@pytest.mark.slow
def test_the_expected_time_counts_the_steps_that_are_really_left(bare: Bare) -> None:
    line = next(line for line in bare.said.splitlines() if line.startswith("expected time to the end:"))
    assert line.endswith(" s per step, at most 4 steps left)")  # printed after 20 of 24 steps


@pytest.mark.slow
def test_vgg16_itself_is_trained_measured_and_shown(plain_dataset: Dataset, run_folder: Path) -> None:
    """On JAX: test_backends.py."""
    settings = {"epochs": 1, "batch_size": 8, "limit": 16, "warmup_steps": 1, "weights": "none"}
    run = train_model(TrainConfig(plain_dataset.folder, run_folder, **settings))
    assert run.settings["backbone"] == "vgg16"
    assert sum(weight.size for weight in run.load_model().get_weights()) == 16_327_525
    page = (run_folder / "report" / "index.html").read_text("utf-8")
    assert "VGG16 reaches an RMSE of" in page and (run_folder / "metrics.json").is_file()


@pytest.mark.slow
def test_training_stops_after_patience_epochs_without_progress(
    unmeasured_dataset: Dataset, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig(
        unmeasured_dataset.folder,
        run_folder,
        epochs=9,
        patience=1,
        limit=8,
        weights="none",
        learning_rate=1e-30,
        backbone=small.SMALL,
        warmup_steps=0,
    )
    history = train_model(config).history()
    assert len(history) == 2 and len({row.val_mse for row in history}) == 1
    said = capsys.readouterr().out
    assert said.count("warning: the predictions are nearly the same for all galaxies (standard deviation 0.0000 per colu") == 1
    assert "stopped early: no better validation MSE for 1 epochs" in said
    assert "epoch 1/9" in said and "(best so far)" in said and "(best is epoch 1)" in said
    train_model(config)
    assert capsys.readouterr().out.startswith(f"{run_folder}: training is complete after 2 epochs\n")


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_with_the_way_out(
    make_dataset: MakeDataset, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.train.check_shards", lambda *_: {})  # it would refuse the shards that are broken here
    dataset = make_dataset(validation_fraction=0.0, test_fraction=0.0)
    for path in dataset.paths("train"):
        examples = map(schema.parse, list(framing.read_records(path)))
        broken = (dataclasses.replace(example, targets=example.targets * np.float32(np.nan)) for example in examples)
        path.write_bytes(b"".join(framing.frame(schema.serialize(example)) for example in broken))
    config = TrainConfig(dataset.folder, run_folder, epochs=2, limit=8, weights="none", backbone=small.SMALL)
    with pytest.raises(RunError, match="loss is not finite in epoch 1: lower --learning_rate and start again with --overwrite"):
        train_model(config)
    assert sorted(path.name for path in run_folder.iterdir() if path.name[0] != ".") == ["config.json", "tree.toml"]


def test_a_first_command_that_failed_does_not_stand_in_the_way_of_the_right_one(
    plain_dataset: Dataset, run_folder: Path
) -> None:
    with pytest.raises(RunError, match="no such file"):
        train_model(TrainConfig(plain_dataset.folder, run_folder, weights=str(run_folder / "typo.h5")))
    with pytest.raises(RunError, match="no such file"):
        train_model(TrainConfig(plain_dataset.folder, run_folder, weights=str(run_folder / "another_typo.h5")))
    assert not run_folder.exists()


def test_overwrite_spares_the_old_run_where_the_new_one_cannot_start(plain_dataset: Dataset, run_folder: Path) -> None:
    Output(run_folder, "run").write({"config.json": b"{}", "model.keras": b"two days of work"})
    with pytest.raises(RunError, match="no such file"):
        train_model(TrainConfig(plain_dataset.folder, run_folder, weights=str(run_folder / "typo.h5")), overwrite=True)
    assert (run_folder / "model.keras").is_file()


def test_other_settings_on_a_finished_run_are_refused(
    tiny_run: Run, plain_dataset: Dataset, tiny_settings: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"holds another run \(batch_size was 8, now 4\)"):
        train_model(TrainConfig(plain_dataset.folder, tiny_run.folder, **{**tiny_settings, "batch_size": 4}))
    assert open_run(tiny_run.folder) == tiny_run


def test_a_dataset_without_galaxies_to_train_on_is_refused(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset(validation_fraction=0.0, test_fraction=1.0)
    with pytest.raises(RunError, match="has no galaxies in split 'train': preprocess images together with their votes"):
        train_model(TrainConfig(dataset.folder, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_dataset_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        train_model(TrainConfig(tmp_path / "nowhere", tmp_path / "run"))
    assert not (tmp_path / "run").exists()
