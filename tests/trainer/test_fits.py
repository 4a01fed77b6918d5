"""FITS cutouts are predicted as the galaxies that they show, or refused by name: whatever the bands, packing and unit."""

import bz2
import csv
import gzip
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits as astrofits
from PIL import Image

from preprocess.job import BuildSettings, build_dataset
from tests.conftest import random_votes, write_votes
from tests.tfrecords.fits.files import cube, file_of, galaxy, header, write, write_bands
from tfrecords.errors import ConfigError, SettingError
from tfrecords.fits.look import DEFAULT_STRETCH, SDSS, Brightness, Look, Stretch
from tfrecords.fits.planes import quiet
from trainer.config import TrainConfig
from trainer.images.ranges import Ranges
from trainer.predict import ImagePredictions, predict_images, predict_split
from trainer.run import Run, open_run
from trainer.sealing import seal
from trainer.train import train_model

Main = Callable[..., tuple[int, str, str]]
RGB = galaxy(64)
GRZ = RGB[::-1]
# Half precision of a prediction and less: the images are the same.
EXACT = 1e-6


def _predicted(run: Run, path: Path, **settings: Any) -> np.ndarray:
    predictions = predict_images(run, path, **settings)
    assert predictions.rejected == ()
    return predictions.predicted


@pytest.fixture(scope="module")
def sdss_run(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny run, as if its galaxies had been as bright as those of SDSS. Read-only."""
    folder = Path(shutil.copytree(tiny_run.folder, tmp_path_factory.mktemp("sdss") / "run"))
    ranges = Ranges((0.0, 100.0), Brightness(0.0, 5.0, 60.0), SDSS)
    (folder / "config.json").write_text(seal({**tiny_run.config, **ranges.config()}), "utf-8")
    return open_run(folder)


@pytest.fixture
def expected(tiny_run: Run, tmp_path: Path) -> np.ndarray:
    """The prediction for the planes in the order red, green, blue, without names."""
    return _predicted(tiny_run, write(tmp_path / "rgb" / "rgb.fits", RGB))


# Bands and packing


@pytest.mark.parametrize(
    "cards", [{"BANDS": "grz", "BAND0": "g", "BAND1": "r", "BAND2": "z"}, {"BANDS": "grz"}, {"FILTERS": "g,r,i"}]
)
def test_a_cube_from_the_shortest_wavelength_on_is_predicted_as_red_green_and_blue(
    tiny_run: Run, tmp_path: Path, expected: np.ndarray, cards: dict[str, str]
) -> None:
    np.testing.assert_allclose(_predicted(tiny_run, write(tmp_path / "1.fits", GRZ, **cards)), expected, atol=EXACT)
    reversed_colours = _predicted(tiny_run, write(tmp_path / "2.fits", GRZ))
    assert np.abs(reversed_colours - expected).max() > 1e-3


def test_bands_can_be_given(tiny_run: Run, tmp_path: Path, expected: np.ndarray) -> None:
    path = write(tmp_path / "1.fits", GRZ)
    np.testing.assert_allclose(_predicted(tiny_run, path, bands="grz"), expected, atol=EXACT)
    np.testing.assert_allclose(_predicted(tiny_run, path, bands="F435W,F606W,F814W"), expected, atol=EXACT)
    with pytest.raises(SettingError, match="--bands grx: give bands in the order of the file"):
        predict_images(tiny_run, path, bands="grx")


def test_files_packed_in_any_way_are_predicted_as_plain_ones(tiny_run: Run, tmp_path: Path, expected: np.ndarray) -> None:
    plain, folder = cube(RGB), tmp_path / "packed"
    folder.mkdir()
    for name, data in {"a.fits.gz": gzip.compress(plain), "b.fits": gzip.compress(plain), "c.fit.bz2": bz2.compress(plain),
                       "d.FTS": plain, "e.fit": plain}.items():  # fmt: skip
        (folder / name).write_bytes(data)
    lossless = astrofits.CompImageHDU(RGB, compression_type="GZIP_2", quantize_level=0)
    (folder / "f.fits.fz").write_bytes(file_of(astrofits.PrimaryHDU(), lossless))
    predictions = predict_images(tiny_run, folder)
    assert predictions.names is not None and predictions.names.tolist() == [*"abcdef"]
    np.testing.assert_allclose(predictions.predicted, expected.repeat(6, axis=0), atol=EXACT)
    fpacked = astrofits.CompImageHDU(RGB, compression_type="RICE_1")  # quantised by a quarter of the noise: with loss
    (tmp_path / "g.fits.fz").write_bytes(file_of(astrofits.PrimaryHDU(), fpacked))
    np.testing.assert_allclose(_predicted(tiny_run, tmp_path / "g.fits.fz"), expected, atol=0.02)


def test_three_files_of_bands_are_one_row(tiny_run: Run, tmp_path: Path, expected: np.ndarray, run_main: Main) -> None:
    write_bands(tmp_path / "bands", "J100023.5+021653", RGB)
    out = tmp_path / "table.csv"
    code, said, _ = run_main("predict", "--run", tiny_run.folder, "--images", tmp_path / "bands", "--out", out)
    assert (code, said.partition("\n")[0].startswith(f"{out}: predictions for 1 galaxy of")) == (0, True)
    (row,) = _rows(out)
    assert row["GalaxyID"] == "J100023.5+021653"
    np.testing.assert_allclose([float(row[name]) for name in tiny_run.tree.columns], expected[0], atol=EXACT)


def test_eight_bits_are_predicted_as_the_picture_that_they_are(tiny_run: Run, plain_survey: Path, tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(plain_survey / "images_test_rev1" / "300000.jpg").convert("RGB"))
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    write(tmp_path / "cube.fits", pixels[::-1].transpose(2, 0, 1).copy())
    expected = _predicted(tiny_run, tmp_path / "picture.png")
    np.testing.assert_allclose(_predicted(tiny_run, tmp_path / "cube.fits"), expected, atol=EXACT)


# The stretch


def _lines(caplog: pytest.LogCaptureFixture, run: Run, path: Path, **settings: Any) -> tuple[ImagePredictions, list[str]]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "trainer"):
        predictions = predict_images(run, path, **settings)
    return predictions, [record.getMessage() for record in caplog.records if "--fits_stretch" in record.getMessage()]


@pytest.mark.parametrize("factor", [0.001, 0.05, 200, 1000])
def test_a_set_in_another_unit_is_predicted_nearly_alike_by_the_stretch_that_is_chosen_and_said(
    sdss_run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, factor: float
) -> None:
    for number in range(4):
        planes = galaxy(64, number)
        write(tmp_path / "one" / f"{number}.fits", planes)
        write(tmp_path / "other" / f"{number}.fits", (planes * factor).astype(np.float32))
    one, _ = _lines(caplog, sdss_run, tmp_path / "one", stretch=Stretch(0.5))
    other, (line,) = _lines(caplog, sdss_run, tmp_path / "other")
    assert other.stretch is not None and line.startswith(
        f"FITS images: --fits_stretch {other.stretch:g} chosen, as at 0.5 their"
    )
    assert ("too dark" in line) == (factor < 1)
    given, nothing = _lines(caplog, sdss_run, tmp_path / "other", stretch=Stretch(other.stretch))
    assert nothing == []
    np.testing.assert_array_equal(given.predicted, other.predicted)
    assert list(other.outside) == list(given.outside) and not any("brightness" in mark for mark in other.outside)
    np.testing.assert_allclose(other.predicted, one.predicted, atol=0.1)


def test_headers_with_units_need_no_other_stretch(sdss_run: Run, tmp_path: Path) -> None:
    sdss = write(tmp_path / "sdss.fits", RGB, BUNIT="nanomaggy")
    hsc = write(tmp_path / "hsc.fits", (RGB * 63.095734448).astype(np.float32), FLUXMAG0=63095734448.0194)
    expected, predictions = predict_images(sdss_run, sdss), predict_images(sdss_run, hsc)
    assert predictions.stretch == expected.stretch == DEFAULT_STRETCH
    np.testing.assert_allclose(predictions.predicted, expected.predicted, atol=1e-3)


def test_the_flags_of_the_stretch_change_the_predictions(sdss_run: Run, tmp_path: Path, run_main: Main) -> None:
    write(tmp_path / "images" / "1.fits", RGB)
    tables = []
    for flags in ([], ["--fits_stretch=auto"], ["--fits_stretch=5"], ["--fits_stretch=5", "--fits_q=3"], ["--bands=grz"]):
        out = tmp_path / f"{len(tables)}.csv"
        assert run_main("predict", "--run", sdss_run.folder, "--images", tmp_path / "images", "--out", out, *flags)[0] == 0
        tables.append(out.read_text())
    assert tables[0] == tables[1] and len({*tables}) == 4


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--fits_stretch=bright", "argument --fits_stretch: bright is neither auto nor a number"),
        ("--fits_stretch=0", "error: --fits_stretch 0.0: must be above 0"),
        ("--fits_stretch=nan", "error: --fits_stretch nan: must be above 0"),
        ("--fits_q=0", "error: --fits_q 0.0: must be above 0"),
        ("--bands=xq", "error: --bands xq: give bands in the order of the file, like grz or F814W,F606W,F435W"),
        ("--bands=grg", "error: --bands grg: names a band twice"),
    ],
)
def test_nonsense_is_refused_before_a_run_is_opened(flag: str, reason: str, tmp_path: Path, run_main: Main) -> None:
    code, said, err = run_main("predict", "--run=gone", f"--images={tmp_path}", f"--out={tmp_path}/table.csv", flag)
    assert (code, said) == (2, "") and reason in err.splitlines()[-1]


@pytest.mark.parametrize("flag", ["--bands=grz", "--fits_stretch=0.5", "--fits_q=3"])
def test_flags_of_fits_are_refused_without_fits_images(
    flag: str, sdss_run: Run, plain_survey: Path, tmp_path: Path, run_main: Main
) -> None:
    images = plain_survey / "images_test_rev1"
    code, said, err = run_main("predict", "--run", sdss_run.folder, "--images", images, f"--out={tmp_path}/table.csv", flag)
    assert (code, said) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {flag.split('=')[0]} ") and "holds no FITS images: omit the flag" in err


@pytest.mark.slow
def test_a_run_trained_on_fits_files_predicts_others_with_their_stretch_and_bands(
    tmp_path: Path,
    tiny_settings: dict[str, Any],
    build_settings: Callable[..., BuildSettings],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ids = list(range(40))
    for galaxy_id in ids:
        write(tmp_path / "survey" / f"{galaxy_id}.fits", galaxy(48, galaxy_id)[::-1] * np.float32(1000))
    write_votes(tmp_path / "survey" / "training_solutions_rev1.csv", ids, random_votes(len(ids), np.random.default_rng(0)))
    look = Look(("g", "r", "z"))
    dataset = build_dataset(tmp_path / "survey", tmp_path / "data", build_settings(crop_fraction=1.0), look=look).dataset
    train_model(TrainConfig(dataset.folder, tmp_path / "run", **{**tiny_settings, "epochs": 1}))
    run = open_run(tmp_path / "run")
    assert run.look is not None and run.look.bands == look.bands and run.look.stretch.stretch != DEFAULT_STRETCH
    # One galaxy of another brightness would choose another stretch by itself.
    faint = write(tmp_path / "faint" / "1.fits", galaxy(48, 1)[::-1] * np.float32(200))
    predictions, (line,) = _lines(caplog, run, faint.parent)
    stretch = run.look.stretch.stretch
    assert line == f"FITS images: --fits_stretch {stretch:g}, as for the training images"
    assert "FITS images: bands g,r,z, as for the training images, unless a header names others" in caplog.text
    assert predictions.stretch == stretch
    given, _ = _lines(caplog, run, faint.parent, stretch=run.look.stretch, bands="grz")
    np.testing.assert_array_equal(given.predicted, predictions.predicted)
    split = predict_split(run, dataset, "train")
    of_files = predict_images(run, tmp_path / "survey")
    rows = np.isin(of_files.galaxy_ids, split.galaxy_ids)
    np.testing.assert_allclose(of_files.predicted[rows], split.predicted, atol=1e-5)
    other, _ = _lines(caplog, run, faint.parent, stretch=Stretch(50.0))
    assert other.stretch == 50 and np.abs(other.predicted - predictions.predicted).max() > 1e-4
    trained = {**run.config["dataset"], "fits_stretch": 7.0}
    unlike = replace(run, folder=tmp_path / "unlike", config={**run.config, "dataset": trained})
    with pytest.raises(ConfigError, match=r"were trained on FITS images of different stretches: predict with each alone$"):
        predict_images([run, unlike], faint.parent)


# What is refused, and what is marked


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_shows_no_galaxy_is_refused_by_name_and_the_others_are_predicted(
    sdss_run: Run, tmp_path: Path, run_main: Main, caplog: pytest.LogCaptureFixture
) -> None:
    folder, out = tmp_path / "images", tmp_path / "table.csv"
    for number in range(4):
        write(folder / f"good-{number}.fits", galaxy(64, number))
    write(folder / "sky.fits", RGB * 500 + np.float32(3000))
    write(folder / "some-sky.fits", RGB * 500 + np.float32(700))
    write(folder / "zeros.fits", RGB * 0)
    holed = RGB.copy()
    holed[2] = np.nan
    write(folder / "blue.fits", holed, BANDS="zrg")
    write(folder / "four.fits", np.concatenate([RGB, RGB[:1]]))
    (folder / "page.fits.gz").write_bytes(b"<!DOCTYPE html><html>try later</html>")
    code, said, _ = run_main("predict", "--run", sdss_run.folder, "--images", folder, "--out", out)
    assert code == 0 and f"predictions for 4 galaxies of {folder}; 6 that cannot be used are listed in" in said
    assert [row["GalaxyID"] for row in _rows(out)] == [f"good-{number}" for number in range(4)]
    reasons = {row["path"]: row["reason"] for row in _rows(tmp_path / "table-rejected.csv")}
    assert reasons["sky.fits"].startswith("a sky of 3,00")
    assert reasons["some-sky.fits"].startswith("no galaxy: ")
    assert reasons["some-sky.fits"].endswith(
        "of its crop is white at --fits_stretch 0.5; a sky seems to be left in: subtract it"
    )
    assert reasons["zeros.fits"] == "plane 1 of 3 is empty: all its pixels are 0"
    assert reasons["blue.fits"] == "band g is empty: none of its pixels has a finite value"
    assert reasons["four.fits"] == "its header does not name the bands of its 4 planes: give --bands"
    assert reasons["page.fits.gz"].startswith("is a web page")
    assert "6 of 10 images cannot be used and are skipped" in caplog.text


def test_electrons_per_second_are_bright_enough(sdss_run: Run, tmp_path: Path) -> None:
    predictions = predict_images(sdss_run, write(tmp_path / "1.fits", RGB * np.float32(0.01)))
    assert predictions.stretch is not None and predictions.stretch < 0.1
    assert "brightness" not in predictions.outside[0] and predictions.rejected == ()


def test_images_unlike_those_of_training_are_marked_in_a_column_and_counted_with_the_flag_that_helps(
    sdss_run: Run, tmp_path: Path, run_main: Main, caplog: pytest.LogCaptureFixture
) -> None:
    folder, out = tmp_path / "images", tmp_path / "table.csv"
    for number in range(5):
        write(folder / f"{number}.fits", galaxy(64, number))
    flags = "predict", "--run", sdss_run.folder, "--images", folder, "--out", out
    code, said, _ = run_main(*flags)
    kept = [row["outside"] for row in _rows(out)]
    assert code == 0 and not any("brightness" in mark for mark in kept) and "--fits_stretch" not in said
    code, said, _ = run_main(*flags, "--fits_stretch=2")
    marks = [row["outside"] for row in _rows(out)]
    assert code == 0 and len(marks) == 5 and all("brightness" in mark for mark in marks)
    assert "; 5 unlike the training galaxies (column outside: 5 brightness" in said
    assert "try another --fits_stretch than 2" in said
    assert (
        "5 of 5 images (100.0 %, against 2 % of the training galaxies) are darker or brighter than the training" in caplog.text
    )


def test_pictures_are_marked_too_and_their_table_has_the_column(
    tiny_run: Run, plain_survey: Path, tmp_path: Path, run_main: Main
) -> None:
    folder, out = tmp_path / "images", tmp_path / "table.csv"
    folder.mkdir()
    pixels = np.asarray(Image.open(plain_survey / "images_test_rev1" / "300000.jpg").convert("RGB"))
    Image.fromarray(pixels).save(folder / "1.png")
    Image.fromarray((pixels // 5).astype(np.uint8)).save(folder / "2.png")
    code, said, _ = run_main("predict", "--run", tiny_run.folder, "--images", folder, "--out", out)
    assert code == 0 and [("brightness" in row["outside"]) for row in _rows(out)] == [False, True]
    assert "draw the images as those of training were" in said and "--fits_stretch" not in said


def test_astropys_warnings_about_odd_headers_do_not_reach_the_user(sdss_run: Run, tmp_path: Path, run_main: Main) -> None:
    cards = header(**{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "MJD-OBS": 55_000.0, "DATE-OBS": "2000-01-01"})
    with quiet():
        astrofits.PrimaryHDU(RGB, cards).writeto(tmp_path / "1.fits")
    code, _, err = run_main("predict", "--run", sdss_run.folder, "--images", tmp_path, "--out", tmp_path / "table.csv")
    assert code == 0 and "FITSFixedWarning" not in err
