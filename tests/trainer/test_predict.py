"""A table of predictions: every galaxy once, in Kaggle's format, whatever the batches."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, DatasetError
from tfrecords.taxonomy import COLUMNS
from trainer import predict as predicting
from trainer.predict import Predictions, predict, write_csv
from trainer.run import Run

Main = Callable[..., tuple[int, str, str]]
PREDICTIONS = Predictions(
    np.array([3, 20, 2**62]), np.linspace(0, 1, 3 * 37, dtype=np.float32).reshape(3, 37), np.full((3, 37), np.nan, np.float32)
)


def test_the_table_is_kaggles_submission_format(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "table.csv"
    write_csv(PREDICTIONS, path, {})
    lines = path.read_text("ascii").split("\n")
    assert lines[0] == "GalaxyID," + ",".join(COLUMNS) and lines[-1] == ""
    assert [line.split(",")[0] for line in lines[1:-1]] == ["3", "20", str(2**62)]
    assert all(re.fullmatch(r"\d+(,[01]\.\d{9}){37}", line) for line in lines[1:-1])
    values = np.array([line.split(",")[1:] for line in lines[1:-1]], np.float64)
    np.testing.assert_allclose(values, PREDICTIONS.predicted, atol=5e-10)
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]


def test_galaxies_whose_names_were_no_numbers_are_shown_by_name(tmp_path: Path) -> None:
    write_csv(PREDICTIONS, tmp_path / "table.csv", {20: "spirals, old/NGC 4321.jpg"})
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["GalaxyID", "3", "spirals, old/NGC 4321.jpg", str(2**62)]


def test_a_table_that_cannot_be_written_whole_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    (tmp_path / "table.csv.partial").mkdir()  # where the new one would be written
    with pytest.raises(OSError):
        write_csv(PREDICTIONS, path, {})
    assert path.read_text() == "old"


@pytest.mark.parametrize("split", ["train", "validation", "test", "unlabelled"])
def test_every_galaxy_of_a_split_comes_once_sorted_with_its_own_votes(
    tiny_run: Run, plain_dataset: Dataset, split: str
) -> None:
    from tfrecords import reader

    predictions = predict(tiny_run, plain_dataset, split)
    votes = {int(example["galaxy_id"]): example["targets"].numpy() for example in reader.in_order(plain_dataset, split)}
    assert predictions.galaxy_ids.tolist() == sorted(votes)
    assert predictions.predicted.shape == (len(votes), 37) and predictions.predicted.dtype == np.float32
    np.testing.assert_array_equal(predictions.targets, [votes[galaxy_id] for galaxy_id in sorted(votes)])
    assert np.isnan(predictions.targets).all() == (split == "unlabelled")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_predictions_do_not_depend_on_the_batches(
    tiny_run: Run, plain_dataset: Dataset, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predict(tiny_run, plain_dataset, "test")
    monkeypatch.setattr(predicting, "BATCH_SIZE", batch_size)
    predictions = predict(tiny_run, plain_dataset, "test")
    np.testing.assert_array_equal(predictions.galaxy_ids, expected.galaxy_ids)
    np.testing.assert_allclose(predictions.predicted, expected.predicted, atol=1e-6)
    assert expected.predicted.std(axis=0).max() > 1e-3


def test_a_limit_takes_the_first_galaxies_as_stored(tiny_run: Run, plain_dataset: Dataset) -> None:
    from tfrecords import reader

    first = [int(example["galaxy_id"]) for example in reader.in_order(plain_dataset, "test", 4)]
    assert predict(tiny_run, plain_dataset, "test", limit=4).galaxy_ids.tolist() == sorted(first)
    assert len(predict(tiny_run, plain_dataset, "test", limit=1000).galaxy_ids) == plain_dataset.galaxies("test")


@pytest.mark.parametrize("changes", [{"crop_fraction": 0.5}, {"size": 45}])
def test_a_dataset_of_another_size_or_crop_is_refused(tiny_run: Run, make_dataset: Any, changes: dict[str, float]) -> None:
    ((name, value),) = changes.items()
    with pytest.raises(ConfigError, match=f"its {name} is {value}, but .* was trained with "):
        predict(tiny_run, make_dataset(**changes), "test")


def test_a_dataset_without_the_split_is_refused_with_those_it_has(tiny_run: Run, make_dataset: Any) -> None:
    with pytest.raises(DatasetError, match="no galaxies in split 'validation': it has train, test, unlabelled"):
        predict(tiny_run, make_dataset(validation_fraction=0.0), "validation")


def test_the_command_writes_a_table_for_galaxies_without_votes(
    tiny_run: Run, plain_dataset: Dataset, tmp_path: Path, run_main: Main
) -> None:
    out = tmp_path / "table.csv"
    code, said, _ = run_main("predict", "--run", tiny_run.folder, "--tfrecords", plain_dataset.folder, "--out", out)
    assert (code, said) == (0, f"{out}: predictions for 5 galaxies of split 'unlabelled'\n")
    with out.open(newline="") as file:
        assert [int(row["GalaxyID"]) for row in csv.DictReader(file)] == list(range(300_000, 300_005))


def test_the_table_of_the_test_split_is_what_training_left(
    tiny_run: Run, plain_dataset: Dataset, tmp_path: Path, run_main: Main
) -> None:
    out = tmp_path / "table.csv"
    flags = ["--run", tiny_run.folder, "--tfrecords", plain_dataset.folder, "--split=test"]
    assert run_main("predict", *flags, "--out", out)[0] == 0
    assert out.read_bytes() == (tiny_run.folder / "predictions-test.csv").read_bytes()
