"""Galaxies whose names are not numbers are trained on, measured, predicted and shown by name, from shards and from images."""

import csv
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.job import BuildSettings, build_dataset
from tests.tfrecords.earlier import with_table_of_names
from tests.trainer import small
from tfrecords.dataset import Dataset, open_dataset
from trainer.config import TrainConfig
from trainer.evaluate import evaluate_run
from trainer.explore import explore_dataset
from trainer.predict import predict_images, predict_split
from trainer.run import Run
from trainer.tables import Predictions
from trainer.train import train_model

Main = Callable[..., tuple[int, str, str]]
SPLITS = ("train", "validation", "test", "unlabelled")
# How people name their images: a name for each image of the plain survey, and the column of the table of votes.
KINDS: dict[str, tuple[Callable[[int], str], str]] = {
    "coordinates": (lambda place: f"J{112953 + place}.88-{427 + place:06d}.4", "iauname"),
    "padded": (lambda place: f"{place:03d}", "id_str"),
    "class folders": (lambda place: f"{'disk' if place % 2 else 'spiral'}/{place // 2:03d}", "path"),
}


@dataclass(frozen=True)
class Named:
    """The plain survey under other names: its folder, its dataset, and the name of each galaxy by its number."""

    source: Path
    dataset: Dataset
    names: dict[int, str]


@pytest.fixture(scope="module", params=KINDS)
def named(
    request: pytest.FixtureRequest,
    plain_survey: Path,
    build_settings: Callable[..., BuildSettings],
    tmp_path_factory: pytest.TempPathFactory,
) -> Named:
    """A survey whose names are not numbers, and its dataset, which fits the tiny run. Read-only."""
    name_of, column = KINDS[request.param]
    folder = tmp_path_factory.mktemp("named")
    names = {}
    for place, image in enumerate(sorted(plain_survey.glob("images_*/*.jpg"))):
        name = names[int(image.stem)] = name_of(place)
        (folder / "survey" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder / "survey" / f"{name}.jpg")
    with (plain_survey / "training_solutions_rev1.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    with (folder / "votes.csv").open("w", newline="") as file:
        suffix = ".jpg" if column == "path" else ""
        csv.writer(file).writerows([[column, *header[1:]], *([names[int(row[0])] + suffix, *row[1:]] for row in rows)])
    settings = build_settings(crop_fraction=1.0, examples_per_shard=16)
    dataset = build_dataset(folder / "survey", folder / "data", settings, folder / "votes.csv").dataset
    return Named(folder / "survey", dataset, names)


@pytest.fixture(scope="module")
def earlier(named: Named, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same dataset as it was made before records held names. Read-only."""
    from tfrecords.reader import votes_of

    parts = [votes_of(named.dataset, split) for split in SPLITS]
    paths = {
        galaxy_id: f"{name}.jpg"
        for part in parts
        if part.names is not None
        for galaxy_id, name in zip(part.galaxy_ids.tolist(), part.names, strict=True)
    }
    return with_table_of_names(named.dataset, tmp_path_factory.mktemp("earlier") / "data", paths)


@pytest.fixture
def copied(tiny_run: Run, tmp_path: Path) -> Run:
    """A copy of the tiny run without its checkpoint, for tests that evaluate it."""
    shutil.copytree(tiny_run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint", "tensorboard"))
    return Run(tmp_path / "run", tiny_run.config)


def _names(predictions: Predictions) -> list[str]:
    assert predictions.names is not None
    return [*predictions.names]


def _first_column(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row[0] for row in csv.reader(file)]


def _by_galaxy(several: list[Predictions], names: dict[int, str] | None = None) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """The number that each galaxy has in the plain survey -> its prediction and its votes."""
    rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for one in several:
        numbers = one.galaxy_ids.tolist()
        if names is not None:
            number_of = {name: number for number, name in names.items()}
            numbers = [number_of[name] for name in _names(one)]
        rows |= zip(numbers, zip(one.predicted, one.targets, strict=True), strict=True)
    return rows


def test_predictions_of_a_split_come_in_the_order_of_names_each_with_its_own_votes(
    tiny_run: Run, plain_dataset: Dataset, named: Named
) -> None:
    of_names = [predict_split(tiny_run, named.dataset, split) for split in SPLITS]
    assert all(_names(one) == sorted(_names(one)) for one in of_names)
    assert {name for one in of_names for name in _names(one)} == {*named.names.values()}
    expected = _by_galaxy([predict_split(tiny_run, plain_dataset, split) for split in SPLITS])
    rows = _by_galaxy(of_names, named.names)
    assert {*rows} == {*expected}
    for number, (predicted, targets) in rows.items():
        np.testing.assert_allclose(predicted, expected[number][0], atol=1e-6)
        np.testing.assert_array_equal(targets, expected[number][1])


def test_a_limit_takes_the_names_of_the_galaxies_that_it_takes(tiny_run: Run, named: Named) -> None:
    whole = predict_split(tiny_run, named.dataset, "train")
    name_of = dict(zip(whole.galaxy_ids.tolist(), _names(whole), strict=True))
    part = predict_split(tiny_run, named.dataset, "train", limit=5)
    assert len(_names(part)) == 5 and _names(part) == [name_of[galaxy_id] for galaxy_id in part.galaxy_ids.tolist()]


def test_predictions_of_images_come_in_the_order_of_names_and_are_those_of_the_shards(tiny_run: Run, named: Named) -> None:
    of_images = predict_images(tiny_run, named.source)
    assert _names(of_images) == sorted(named.names.values())
    rows = _by_galaxy([of_images], named.names)
    for number, (predicted, _) in _by_galaxy([predict_split(tiny_run, named.dataset, "test")], named.names).items():
        np.testing.assert_allclose(rows[number][0], predicted, atol=1e-5)


def test_both_tables_of_predictions_show_names_in_their_order(
    tiny_run: Run, named: Named, tmp_path: Path, run_main: Main
) -> None:
    out, run = tmp_path / "table.csv", ("predict", "--run", tiny_run.folder, "--out", tmp_path / "table.csv")
    assert run_main(*run, "--images", named.source)[0] == 0
    assert _first_column(out) == ["GalaxyID", *sorted(named.names.values())]
    assert run_main(*run, "--tfrecords", named.dataset.folder)[0] == 0
    assert _first_column(out) == ["GalaxyID", *sorted(name for number, name in named.names.items() if number >= 300_000)]


@pytest.mark.slow
def test_a_report_shows_whole_names_and_is_made_again_from_its_table(copied: Run, named: Named) -> None:
    record, first = evaluate_run(copied, named.dataset, "test")
    table = copied.path(record.predictions)
    shown = _first_column(table)[1:]
    assert shown == sorted(shown) and {*shown} < {*named.names.values()}
    page = copied.folder / record.folder / "report" / "index.html"
    galleries = [path for path in (page.parent / "data").glob("*.csv") if path.read_text().startswith("GalaxyID,column,")]
    in_galleries = {name for path in galleries for name in _first_column(path)[1:]}
    assert in_galleries and in_galleries <= {*shown}
    assert all(f"<b>{name}</b>" in page.read_text("utf-8") for name in in_galleries)
    written = table.read_bytes()
    assert evaluate_run(copied, named.dataset, "test")[1] == first and table.read_bytes() == written


@pytest.mark.slow
def test_a_page_of_explore_and_its_measurements_show_names(named: Named, tmp_path: Path) -> None:
    page = explore_dataset(named.dataset, tmp_path / "page", named.source, where="Class1.1 > 0.5")
    labelled = {name for number, name in named.names.items() if number < 300_000}
    assert {*_first_column(page.parent / "data" / "light.csv")} == {"GalaxyID", *labelled}
    selected = _first_column(page.parent / "data" / "where.csv")[1:]
    assert selected and {*selected} < labelled and all(f"<b>{name}</b>" in page.read_text("utf-8") for name in selected)


def test_a_dataset_with_a_table_of_names_opens_and_predicts_as_before(
    earlier: Dataset, named: Named, tiny_run: Run, tmp_path: Path, run_main: Main
) -> None:
    assert not earlier.named and named.dataset.named and named.dataset.names() == {}
    assert {*earlier.names().values()} == {f"{name}.jpg" for name in named.names.values()}
    for split in ("train", "test", "unlabelled"):
        before, now = (predict_split(tiny_run, dataset, split) for dataset in (earlier, named.dataset))
        assert _names(before) == [f"{name}.jpg" for name in _names(now)]
        np.testing.assert_array_equal(before.galaxy_ids, now.galaxy_ids)
        np.testing.assert_array_equal(before.predicted, now.predicted)
    flags = ("--tfrecords", earlier.folder, "--split=test", "--out", tmp_path / "table.csv")
    assert run_main("predict", "--run", tiny_run.folder, *flags)[0] == 0
    assert _first_column(tmp_path / "table.csv")[1:] == sorted(_first_column(tmp_path / "table.csv")[1:])


@pytest.mark.slow
def test_a_dataset_with_a_table_of_names_trains_and_is_evaluated_as_before(
    earlier: Dataset, named: Named, tmp_path: Path
) -> None:
    metrics = []
    for name, dataset in (("before", earlier), ("now", named.dataset)):
        settings = {"backbone": small.SMALL, "weights": "none", "epochs": 1, "batch_size": 8, "limit": 8, "warmup_steps": 1}
        run = train_model(TrainConfig(dataset.folder, tmp_path / name, **settings))
        metrics.append(evaluate_run(run, open_dataset(dataset.folder), "validation")[1])
    assert metrics[0]["rmse"] == pytest.approx(metrics[1]["rmse"], rel=1e-6)
    evaluated = [*(tmp_path / "before").rglob("predictions-*.csv")]
    assert len(evaluated) == 2
    assert all(name.endswith(".jpg") for path in evaluated for name in _first_column(path)[1:])


@pytest.mark.parametrize("only_folders", [False, True])
def test_numbers_stay_numbers(tiny_run: Run, plain_survey: Path, tmp_path: Path, only_folders: bool) -> None:
    shutil.copytree(plain_survey / "images_test_rev1", tmp_path / "images" / ("spiral" if only_folders else ""))
    predictions = predict_images(tiny_run, tmp_path / "images")
    assert predictions.names is None and predictions.galaxy_ids.tolist() == [*range(300_000, 300_005)]


def test_files_that_are_not_read_are_counted_by_suffix_before_images_are_predicted(
    tiny_run: Run, plain_survey: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, run_main: Main
) -> None:
    images = Path(shutil.copytree(plain_survey / "images_test_rev1", tmp_path / "images"))
    for name in ("1.heic", "2.heic", "3.gif", "4.jpg.gz", "more.tar.gz", "README"):
        (images / name).write_bytes(b"not read")
    os.symlink(tmp_path / "nothing.jpg", images / "5.jpg")
    flags: list[Any] = ["predict", "--run", tiny_run.folder, "--images", images, "--out", tmp_path / "table.csv"]
    with caplog.at_level(logging.WARNING, "trainer"):
        assert run_main(*flags)[0] == 0
    lines = [record.getMessage() for record in caplog.records if record.name == "trainer"]
    assert "5 files left alone: 2 .heic, 1 .gif, 1 .jpg.gz, 1 without a suffix" in lines
    assert f"{images}/more.tar.gz: this archive is not read: unpack it with `tar xf`, and give the folder" in lines
    assert f"1 link leads nowhere and was skipped, first {images}/5.jpg" in lines
    assert len(_first_column(tmp_path / "table.csv")) == 6
