"""Training can end with the table of predictions for the galaxies without votes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from trainer.run import Run

Main = Callable[..., tuple[int, str, str]]
MakeDataset = Callable[..., Dataset]


def _flags(settings: dict[str, Any]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


def test_training_ends_with_the_table_that_predict_writes(
    run_main: Main, plain_dataset: Dataset, tiny_run: Run, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    train = ["--tfrecords", plain_dataset.folder, "--out", tmp_path / "run", *_flags(tiny_settings)]
    table = tmp_path / "submission.csv"
    code, out, _ = run_main(*train, "--submission", table)
    assert code == 0 and out.endswith(f"{table}: predictions for 5 galaxies of split 'unlabelled'\n")
    predict = ["predict", "--run", tiny_run.folder, "--tfrecords", plain_dataset.folder, "--out", tmp_path / "predicted.csv"]
    assert run_main(*predict)[0] == 0
    assert table.read_bytes() == (tmp_path / "predicted.csv").read_bytes()
    content = pd.read_csv(table)
    assert list(content.columns) == ["GalaxyID", *builtin_tree().columns]
    assert content["GalaxyID"].tolist() == [*range(300_000, 300_005)]
    table.unlink()
    code, out, _ = run_main(*train, "--submission", table)  # the run is complete
    assert code == 0 and "training is complete" in out
    assert table.read_bytes() == (tmp_path / "predicted.csv").read_bytes()


def test_what_would_fail_after_the_training_fails_before_it(
    run_main: Main, plain_dataset: Dataset, make_dataset: MakeDataset, plain_survey: Path, tiny_settings: dict[str, Any],
    tmp_path: Path,
) -> None:  # fmt: skip
    mine = tmp_path / "mine.csv"
    mine.write_text("GalaxyID,note\n1,mine\n")
    some = make_dataset(limit=20)
    cases = [
        (plain_dataset, mine, [], "exists and is not a table of predictions: choose another --submission"),
        (plain_dataset, tmp_path, [], "is a folder: set --submission to a file"),
        (plain_dataset, tmp_path / "run" / "history.csv", [], "is in the run folder: choose another --submission"),
        (plain_dataset, mine / "table.csv", [], "is a file: choose another folder for --submission"),
        (plain_dataset, tmp_path / "new.csv", ["--hosts=a:1,b:2", "--host_index=0"], "not with --hosts"),
    ]
    if not some.galaxies("unlabelled"):
        cases.append((some, tmp_path / "new.csv", [], "has no galaxies without votes (split unlabelled) for --submission"))
    for dataset, path, more, words in cases:
        train = ["--tfrecords", dataset.folder, "--out", tmp_path / "run", *_flags(tiny_settings), *more]
        code, out, err = run_main(*train, "--submission", path)
        assert (code, out) == (2 if more else 1, "") and err.startswith("error: ") and words in err and err.count("\n") == 1, (
            err
        )
    assert mine.read_text() == "GalaxyID,note\n1,mine\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


@pytest.mark.parametrize("name", ["votes", "predictions"])
def test_only_a_table_of_predictions_is_replaced(
    name: str, run_main: Main, plain_dataset: Dataset, plain_survey: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    train = ["--tfrecords", plain_dataset.folder, "--out", tmp_path / "run", *_flags({**tiny_settings, "epochs": 1})]
    table = tmp_path / "table.csv"
    if name == "votes":
        table.write_bytes((plain_survey / "training_solutions_rev1.csv").read_bytes())
    before = table.read_bytes() if table.exists() else b""
    code, _, _ = run_main(*train, "--submission", table)
    assert (code == 0) == (name == "predictions")
    if name == "votes":
        assert table.read_bytes() == before
    else:
        assert run_main(*train, "--submission", table)[0] == 0
