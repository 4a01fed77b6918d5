"""Predictions list every galaxy once, whatever the batches, from shards and from image files; the command writes a table."""

import csv
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from preprocess.job import BuildSettings, build_dataset
from tests.tfrecords.fits.files import galaxy, write
from tests.trainer import small
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, DatasetError, SettingError, SourceError
from trainer import blocks
from trainer.config import TrainConfig
from trainer.predict import predict_images, predict_split
from trainer.run import Run, open_run
from trainer.tables import (
    extra_columns,
    rejected_path,
)

Main = Callable[..., tuple[int, str, str]]
_RANGES = ("half_light_radius", "brightness")


@pytest.mark.parametrize("split", ["train", "validation", "test", "unlabelled"])
def test_every_galaxy_of_a_split_comes_once_sorted_with_its_own_votes(
    tiny_run: Run, plain_dataset: Dataset, split: str
) -> None:
    from tfrecords import reader

    predictions = predict_split(tiny_run, plain_dataset, split)
    votes = {int(example["galaxy_id"]): example["votes"].numpy() for example in reader.in_order(plain_dataset, split)}
    assert predictions.galaxy_ids.tolist() == sorted(votes)
    assert predictions.predicted.shape == (len(votes), 37) and predictions.predicted.dtype == np.float32
    np.testing.assert_array_equal(predictions.targets, [votes[galaxy_id] for galaxy_id in sorted(votes)])
    assert np.isnan(predictions.targets).all() == (split == "unlabelled")


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test_predictions_do_not_depend_on_the_batches(
    tiny_run: Run, plain_dataset: Dataset, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = predict_split(tiny_run, plain_dataset, "test")
    monkeypatch.setattr(blocks, "BATCH_SIZE", batch_size)
    predictions = predict_split(tiny_run, plain_dataset, "test")
    np.testing.assert_array_equal(predictions.galaxy_ids, expected.galaxy_ids)
    np.testing.assert_allclose(predictions.predicted, expected.predicted, atol=1e-6)
    assert expected.predicted.std(axis=0).max() > 1e-3


def test_a_limit_takes_the_first_galaxies_as_stored(tiny_run: Run, plain_dataset: Dataset) -> None:
    from tfrecords import reader

    first = [int(example["galaxy_id"]) for example in reader.in_order(plain_dataset, "test", 4)]
    assert predict_split(tiny_run, plain_dataset, "test", limit=4).galaxy_ids.tolist() == sorted(first)
    assert len(predict_split(tiny_run, plain_dataset, "test", limit=1000).galaxy_ids) == plain_dataset.galaxies("test")


@pytest.mark.parametrize("changes", [{"crop_fraction": 0.5}, {"size": 45}])
def test_a_dataset_of_another_size_or_crop_is_refused(tiny_run: Run, make_dataset: Any, changes: dict[str, float]) -> None:
    ((name, value),) = changes.items()
    with pytest.raises(ConfigError, match=f"its {name} is {value}, but .* was trained with "):
        predict_split(tiny_run, make_dataset(**changes), "test")


def test_a_dataset_without_the_split_is_refused_with_those_it_has(tiny_run: Run, make_dataset: Any) -> None:
    with pytest.raises(DatasetError, match="no galaxies in split 'validation': choose from train, test, unlabelled"):
        predict_split(tiny_run, make_dataset(validation_fraction=0.0), "validation")


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


# Image files


@pytest.fixture(scope="module")
def other_run(make_dataset: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run with another crop and size: half of the images, enlarged to 40 x 40."""
    from trainer.train import train_model

    folder = tmp_path_factory.mktemp("runs") / "other"
    dataset = make_dataset(crop_fraction=0.5, size=40)
    train_model(
        TrainConfig(
            dataset.folder,
            folder,
            epochs=1,
            batch_size=8,
            learning_rate=1e-3,
            warmup_steps=0,
            weights="none",
            limit=16,
            backbone=small.SMALL,
        )
    )
    yield open_run(folder)
    shutil.rmtree(folder)


def _saved(folder: Path, pictures: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / name)
    return folder


def _pictures(survey: Path, count: int) -> list[np.ndarray]:
    paths = sorted((survey / "images_training_rev1").iterdir())[:count]
    return [np.asarray(Image.open(path)) for path in paths]


@pytest.mark.slow
def test_images_and_shards_of_the_same_galaxies_give_the_same_predictions(
    tiny_run: Run, plain_survey: Path, plain_dataset: Dataset
) -> None:
    found = predict_images(tiny_run, plain_survey)
    assert found.galaxy_ids.tolist() == [*range(200_000, 200_080), *range(300_000, 300_005)]
    assert np.isnan(found.targets).all() and not found.names and not found.rejected
    for split in ("train", "validation", "test", "unlabelled"):
        expected = predict_split(tiny_run, plain_dataset, split)
        rows = np.searchsorted(found.galaxy_ids, expected.galaxy_ids)
        np.testing.assert_allclose(found.predicted[rows], expected.predicted, atol=1e-5)
    assert found.predicted.std(axis=0).max() > 1e-3


def test_real_galaxies_cut_losslessly_give_the_same_predictions_from_both(
    tiny_run: Run, kaggle: Path, build_settings: Callable[..., BuildSettings], tmp_path: Path
) -> None:
    (tmp_path / "images_test_rev1").mkdir()
    for path in sorted((kaggle / "images_test_rev1").iterdir())[:24]:
        shutil.copy(path, tmp_path / "images_test_rev1")
    fraction = 32 / 424  # needs no resizing for a model of 32 x 32
    settings = build_settings(crop_fraction=fraction, size=32, encoding="jpeg")
    dataset = build_dataset(tmp_path / "images_test_rev1", tmp_path / "data", settings, workers=1).dataset
    run = replace(tiny_run, config={**tiny_run.config, "dataset": {**tiny_run.config["dataset"], "crop_fraction": fraction}})
    found, expected = predict_images(run, tmp_path / "images_test_rev1"), predict_split(run, dataset, "unlabelled")
    np.testing.assert_array_equal(found.galaxy_ids, expected.galaxy_ids)
    np.testing.assert_allclose(found.predicted, expected.predicted, atol=1e-5)
    assert len(found.galaxy_ids) == 24 and found.predicted.std(axis=0).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_tta_is_the_mean_over_the_first_symmetries_of_the_square(
    tiny_run: Run, plain_survey: Path, tmp_path: Path, count: int
) -> None:
    pictures = _pictures(plain_survey, 3)
    views: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda x: x,
        np.fliplr,
        np.flipud,
        lambda x: np.rot90(x, 2),
        lambda x: np.transpose(x, (1, 0, 2)),
        lambda x: np.rot90(x, -1),
        lambda x: np.rot90(x, 1),
        lambda x: np.rot90(np.transpose(x, (1, 0, 2)), 2),
    ]
    each = []
    for number, view in enumerate(views[:count]):
        folder = _saved(tmp_path / str(number), {f"{index}.png": view(picture) for index, picture in enumerate(pictures)})
        each.append(predict_images(tiny_run, folder).predicted)
    found = predict_images(tiny_run, tmp_path / "0", tta=count)
    np.testing.assert_allclose(found.predicted, np.mean(each, axis=0), atol=1e-6)
    if count > 1:
        assert np.abs(found.predicted - each[0]).max() > 1e-5


def test_eight_views_see_no_difference_between_an_image_and_the_same_turned(
    tiny_run: Run, plain_survey: Path, tmp_path: Path
) -> None:
    pictures = _pictures(plain_survey, 4)
    upright = _saved(tmp_path / "upright", {f"{index}.png": picture for index, picture in enumerate(pictures)})
    turned = _saved(tmp_path / "turned", {f"{index}.png": np.rot90(picture, index) for index, picture in enumerate(pictures)})
    mirrored = _saved(tmp_path / "mirrored", {f"{index}.png": picture[:, ::-1] for index, picture in enumerate(pictures)})
    eight = [predict_images(tiny_run, folder, tta=8).predicted for folder in (upright, turned, mirrored)]
    np.testing.assert_allclose(eight[1], eight[0], atol=1e-6)
    np.testing.assert_allclose(eight[2], eight[0], atol=1e-6)
    assert np.abs(predict_images(tiny_run, turned).predicted - predict_images(tiny_run, upright).predicted).max() > 1e-5


def test_tta_is_the_same_from_shards(tiny_run: Run, plain_dataset: Dataset, plain_survey: Path) -> None:
    expected = predict_images(tiny_run, plain_survey / "images_test_rev1", tta=8)
    found = predict_split(tiny_run, plain_dataset, "unlabelled", tta=8)
    np.testing.assert_allclose(found.predicted, expected.predicted, atol=1e-5)
    assert np.abs(found.predicted - predict_split(tiny_run, plain_dataset, "unlabelled").predicted).max() > 1e-5


@pytest.mark.parametrize("tta", [0, 9, -1])
def test_more_symmetries_than_the_square_has_are_refused(
    tiny_run: Run, plain_dataset: Dataset, plain_survey: Path, tta: int
) -> None:
    for predicted in (
        lambda: predict_images(tiny_run, plain_survey, tta=tta),
        lambda: predict_split(tiny_run, plain_dataset, "test", tta=tta),
    ):
        with pytest.raises(SettingError, match=f"--tta {tta}: must be from 1 to 8"):
            predicted()


@pytest.mark.slow
def test_several_runs_are_averaged_each_seeing_its_own_crop_and_size(tiny_run: Run, other_run: Run, plain_survey: Path) -> None:
    images = plain_survey / "images_test_rev1"
    runs = [tiny_run, other_run, tiny_run]
    for tta in (1, 2):
        each = [predict_images(run, images, tta).predicted for run in runs]
        np.testing.assert_allclose(predict_images(runs, images, tta).predicted, np.mean(each, axis=0), atol=1e-6)
    assert np.abs(each[0] - each[1]).max() > 1e-3


@pytest.mark.slow
def test_several_runs_on_shards_are_averaged_and_each_must_fit(tiny_run: Run, other_run: Run, plain_dataset: Dataset) -> None:
    alone = predict_split(tiny_run, plain_dataset, "test")
    np.testing.assert_allclose(predict_split([tiny_run, tiny_run], plain_dataset, "test").predicted, alone.predicted, atol=1e-6)
    with pytest.raises(ConfigError, match=f"its crop_fraction is 1.0, but {other_run.folder} was trained with 0.5"):
        predict_split([tiny_run, other_run], plain_dataset, "test")
    with pytest.raises(SettingError, match="give at least one --run"):
        predict_split([], plain_dataset, "test")


def test_images_are_predicted_by_name_and_in_its_order_if_not_all_names_are_numbers(
    tiny_run: Run, plain_survey: Path, tmp_path: Path, run_main: Main
) -> None:
    names = ["NGC 4321.png", "a, b.png", "7.png", "0012.png"]
    pictures = dict(zip(names, _pictures(plain_survey, 4), strict=True))
    predictions = predict_images(tiny_run, _saved(tmp_path / "images", pictures))
    assert predictions.names is not None and predictions.names.tolist() == ["0012", "7", "NGC 4321", "a, b"]
    assert predictions.galaxy_ids[1] == 7
    for row, name in enumerate(predictions.names):
        alone = predict_images(tiny_run, tmp_path / "images" / f"{name}.png")
        np.testing.assert_allclose(alone.predicted[0], predictions.predicted[row], atol=1e-6)
    out = tmp_path / "table.csv"
    assert run_main("predict", "--run", tiny_run.folder, "--images", tmp_path / "images", "--out", out)[0] == 0
    with out.open(newline="") as file:
        assert [row["GalaxyID"] for row in csv.DictReader(file)] == predictions.names.tolist()


def _warnings(caplog: pytest.LogCaptureFixture, run: Run, path: Path) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "trainer"):
        predict_images(run, path)
    return [record.getMessage() for record in caplog.records if record.name == "trainer"]


def _without_ranges(run: Run) -> Run:
    """The run as of a version that kept no record of its galaxies."""
    return replace(run, config={name: value for name, value in run.config.items() if name not in _RANGES})


def test_one_warning_counts_the_galaxies_at_another_scale(
    tiny_run: Run, plain_survey: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The survey alternates between large and small galaxies; one run here is given the range of the large ones only."""
    images = plain_survey / "images_test_rev1"
    old = _without_ranges(tiny_run)
    wide = replace(old, config={**old.config, "half_light_radius": [0.0, 100.0]})
    large = replace(old, config={**old.config, "half_light_radius": [8.0, 11.0]})
    assert _warnings(caplog, wide, images) == _warnings(caplog, old, images) == []
    (line,) = _warnings(caplog, large, images)
    assert line.startswith("2 of 5 images (40.0 %, against 2 % of the training galaxies) have a half-light radius outside 8.0 ")
    assert "outside 8.0 to 11.0 pixels" in line
    assert "crop or resize the cutouts" in line


def test_one_warning_says_what_was_done_with_the_planes_of_fits_images_and_one_counts_those_of_few_pixels(
    tiny_run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = _without_ranges(tiny_run)
    large, small = galaxy(40), galaxy(20)
    for galaxy_id, planes in enumerate([large[0], large[:1], large, small, large]):
        write(tmp_path / f"{galaxy_id}.fits", planes)
    unnamed, grey, enlarged = _warnings(caplog, run, tmp_path)
    assert unnamed.startswith("3 of 5 images, FITS: no names of bands, so the planes are red, green and blue in this order")
    assert grey == "2 of 5 images, FITS: one plane, drawn in grey; give three bands if possible"
    assert enlarged.startswith("1 of 5 images have fewer pixels in the crop than the model expects and were enlarged")


# The command


def _broken(survey: Path, folder: Path) -> Path:
    """3 good images and 5 that cannot be read."""
    _saved(folder, {f"{galaxy_id}.png": picture for galaxy_id, picture in enumerate(_pictures(survey, 3))})
    for name in ("11.jpg", "12.png", "13.fits", "NGC 1.jpg", "NGC 2.jpg"):
        (folder / name).write_text("nothing to see")
    return folder


def test_images_that_cannot_be_read_are_counted_listed_and_left_out(
    tiny_run: Run, plain_survey: Path, tmp_path: Path, run_main: Main, caplog: pytest.LogCaptureFixture
) -> None:
    images, out = _broken(plain_survey, tmp_path / "images"), tmp_path / "out" / "table.csv"
    flags = "predict", "--run", tiny_run.folder, "--images", images, "--out", out
    code, said, _ = run_main(*flags)
    listing = tmp_path / "out" / "table-rejected.csv"
    assert listing == rejected_path(out)
    assert code == 0
    assert said == f"{out}: predictions for 3 galaxies of {images}; 5 that cannot be used are listed in {listing}\n"
    (line,) = [line for line in caplog.messages if "cannot be used" in line]
    assert line.startswith("5 of 8 images cannot be used and are skipped: 11.jpg (is a text, not an image: 'nothing to see')")
    assert "13.fits (not a readable FITS image" in line and line.count("(is a text") == 2 and line.endswith(", ...")
    with listing.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["GalaxyID", "path", "reason"]
    assert {tuple(row[:2]) for row in rows} == {
        ("11", "11.jpg"), ("12", "12.png"), ("13", "13.fits"), ("NGC 1", "NGC 1.jpg"), ("NGC 2", "NGC 2.jpg"),
    }  # fmt: skip
    assert all(row[2].startswith("not a readable FITS" if row[1] == "13.fits" else "is a text") for row in rows)
    for row in rows:
        (images / row[1]).unlink()
    assert run_main(*flags)[:2] == (0, f"{out}: predictions for 3 galaxies of {images}\n")
    assert [path.name for path in out.parent.iterdir()] == ["table.csv"]
    listing.write_text("GalaxyID,path,reason,my notes\n11,11.jpg,is empty,ask the archive\n")
    code, _, err = run_main(*flags)
    assert code == 1 and f"{listing}: exists and is not a list of unreadable images: move it elsewhere" in err
    assert "ask the archive" in listing.read_text()


def test_where_no_image_can_be_read_there_is_one_line_and_no_table(tiny_run: Run, tmp_path: Path, run_main: Main) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "7.jpg").write_text("nothing to see")
    out = tmp_path / "table.csv"
    code, said, err = run_main("predict", "--run", tiny_run.folder, "--images", tmp_path / "images", "--out", out)
    assert (code, said) == (1, "")
    assert err.splitlines()[-1].startswith(
        f"error: {tmp_path / 'images'}: none of its 1 images can be used; the first is 7.jpg ("
    )
    assert not out.exists() and not rejected_path(out).exists()
    with pytest.raises(SourceError):
        predict_images(tiny_run, tmp_path / "images")


def test_the_command_predicts_a_single_image_with_every_column_that_can_be_added(
    tiny_run: Run, plain_survey: Path, tmp_path: Path, run_main: Main
) -> None:
    image, out = plain_survey / "images_test_rev1" / "300000.jpg", tmp_path / "table.csv"
    flags = "--run", tiny_run.folder, "--run", tiny_run.folder, "--images", image, "--out", out
    code, said, _ = run_main("predict", *flags, "--tta=4", "--hubble", "--threshold=0.51", "--conditional")
    assert (code, said) == (0, f"{out}: predictions for 1 galaxy of {image}\n")
    ((galaxy),) = csv.DictReader(out.open(newline=""))
    expected = predict_images(tiny_run, image, tta=4).predicted
    np.testing.assert_allclose([float(galaxy[name]) for name in builtin_tree().columns], expected[0], atol=1e-6)
    extra = extra_columns(expected, 0.51, True, tiny_run.tree)
    assert [galaxy[name] for name in extra.names[:2]] == [*extra.rows[0][:2]]
    assert galaxy["hubble"] == "elliptical"
    assert float(galaxy["Conditional1.1"]) == pytest.approx(float(extra.rows[0][2]), abs=1e-6)


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ([], "give either --tfrecords DIR (a dataset) or --images PATH (image files)"),
        (["--images=.", "--tfrecords=data"], "give either --tfrecords DIR (a dataset) or --images PATH"),
        (["--images=.", "--split=test"], "--split test: needs --tfrecords"),
        (["--tfrecords=data", "--fits_q=3"], "--fits_q 3.0: needs --images"),
        (["--tfrecords=data", "--fits_stretch=3"], "--fits_stretch 3.0: needs --images"),
        (["--images=.", "--threshold=0.8"], "--threshold 0.8: needs --hubble"),
        (["--images=.", "--hubble", "--threshold=0.4"], "--threshold 0.4: must be above 0.5"),
        (["--images=.", "--hubble", "--threshold=0.5"], "--threshold 0.5: must be above 0.5"),
        (["--images=.", "--fits_stretch=0"], "--fits_stretch 0.0: must be above 0"),
        (["--images=.", "--fits_q=-1"], "--fits_q -1.0: must be above 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_flags_that_contradict_each_other_are_one_line_and_status_2(
    flags: list[str], what: str, run_main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, err = run_main("predict", "--run=run", "--out=table.csv", *flags)
    assert (code, said) == (2, "") and err.startswith(f"error: {what}") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_table_that_could_not_be_written_is_refused_before_anything_is_predicted(
    tiny_run: Run, plain_survey: Path, tmp_path: Path, run_main: Main
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    flags = "predict", "--run", tiny_run.folder, "--images", plain_survey, "--out"
    for out, what in (
        (tmp_path, f"{tmp_path}: is a folder: set --out to a file, such as {tmp_path / 'submission.csv'}"),
        (tmp_path / "notes.txt" / "a" / "table.csv", f"{tmp_path / 'notes.txt'}: is a file: choose another folder for --out"),
    ):
        assert run_main(*flags, out) == (1, "", f"error: {what}\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_where_one_may_not_write_is_refused_before_anything_is_predicted(
    tiny_run: Run, plain_survey: Path, tmp_path: Path, run_main: Main
) -> None:
    tmp_path.chmod(0o500)
    code, _, err = run_main("predict", "--run", tiny_run.folder, "--images", plain_survey, "--out", tmp_path / "table.csv")
    assert code == 1 and "is not writable" in err and err.count("\n") == 1


def test_what_can_be_refused_is_refused_before_tensorflow_is_loaded(tiny_run: Run, tmp_path: Path) -> None:
    """Importing it takes seconds, and its notes are suppressed only if `choose` loads it."""
    script = (
        "import sys; from pathlib import Path; from trainer.predict import predict_images; from trainer.run import open_run\n"
        "try: predict_images(open_run(Path(sys.argv[1])), Path(sys.argv[2]))\n"
        "except Exception as error: print(type(error).__name__, 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tiny_run.folder), str(tmp_path / "gone")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "SourceError False\n"
