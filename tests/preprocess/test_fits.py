"""preprocess builds from FITS files with one stretch for the survey, which the dataset holds and every later command uses."""

import csv
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocess.job import BadImages, BuildSettings, Result, build_dataset
from preprocess.verify.dataset import verify_dataset
from tests.conftest import SurveyMaker, random_votes, write_votes
from tests.preprocess.test_footprint import HEAVY
from tests.tfrecords.fits.files import STRETCH, galaxy, lupton, write, write_bands
from tfrecords import images as pixels
from tfrecords import schema
from tfrecords.dataset import MANIFEST, Dataset, open_dataset
from tfrecords.errors import ConfigError, SettingError
from tfrecords.fits.look import DEFAULT_STRETCH, Look, Stretch, from_settings

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Contents = Callable[[Path], dict[str, bytes]]
Examples = Callable[[Dataset], dict[int, tuple[str, schema.Example]]]
IDS = list(range(101, 113))
ALL = BadImages(max_fraction=1)
AUTO = Look()


def _planes(galaxy_id: int, factor: float = 1.0) -> np.ndarray:
    """A galaxy as bright as those of SDSS if its flux is in nanomaggies, times a factor."""
    return (galaxy(64, galaxy_id, peak=6.0) * factor).astype(np.float32)


def _votes(folder: Path) -> Path:
    write_votes(folder / "training_solutions_rev1.csv", IDS, random_votes(len(IDS), np.random.default_rng(0)))
    return folder


def _survey(folder: Path, factor: float = 1.0, **cards: object) -> Path:
    """Cubes of 64 x 64 pixels, from blue to red, and their votes."""
    for galaxy_id in IDS:
        write(folder / "cutouts" / f"{galaxy_id}.fits", _planes(galaxy_id, factor)[::-1], **(cards or {"BANDS": "grz"}))
    return _votes(folder)


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    return _survey(tmp_path / "survey")


@pytest.fixture
def settings(build_settings: Callable[..., BuildSettings]) -> BuildSettings:
    return build_settings(examples_per_shard=4)


def _build(source: Path, out: Path, settings: BuildSettings, look: Look = AUTO) -> Result:
    return build_dataset(source, out, settings, workers=1, look=look, bad=ALL)


def _stored(dataset: Dataset, examples: Examples, galaxy_id: int) -> np.ndarray:
    example = examples(dataset)[galaxy_id][1]
    return pixels.decode_stored(example.image, dataset.encoding, dataset.size, example.crop_offset)


@pytest.mark.parametrize("encoding", ["png", "raw", "jpeg"])
def test_the_stored_images_are_crops_of_luptons_pictures(
    survey: Path, tmp_path: Path, build_settings: Callable[..., BuildSettings], examples: Examples, encoding: str
) -> None:
    dataset = _build(survey, tmp_path / "out", build_settings(encoding=encoding), Look(stretch=STRETCH)).dataset
    assert sum(shard.examples for shard in dataset.shards) == len(IDS)
    for galaxy_id in IDS[:4]:
        difference = np.abs(_stored(dataset, examples, galaxy_id).astype(int) - lupton(_planes(galaxy_id))[16:48, 16:48])
        assert difference.max() == 0 if encoding != "jpeg" else difference.mean() < 6


@pytest.mark.parametrize("factor", [0.001, 1.0, 300.0])
def test_one_stretch_is_chosen_for_the_whole_survey_and_kept_in_the_manifest(
    tmp_path: Path, settings: BuildSettings, factor: float, caplog: pytest.LogCaptureFixture, examples: Examples
) -> None:
    with caplog.at_level(logging.WARNING, "preprocess"):
        dataset = _build(_survey(tmp_path / "survey", factor), tmp_path / "out", settings).dataset
    look = from_settings(json.loads((tmp_path / "out" / MANIFEST).read_text())["settings"])
    assert look is not None and look.stretch.stretch is not None and look.bands == ()
    (line,) = [line for line in caplog.messages if "--fits_stretch" in line]
    assert line.startswith(f"FITS images: --fits_stretch {look.stretch.stretch:g} chosen, as ")
    assert "12 FITS images: red, green and blue are z, r and g" in caplog.messages
    if factor == 1:
        assert look.stretch.stretch == DEFAULT_STRETCH
    for galaxy_id in IDS[:2]:
        expected = lupton(_planes(galaxy_id, factor), look.stretch)[16:48, 16:48]
        np.testing.assert_array_equal(_stored(dataset, examples, galaxy_id), expected)


def test_a_given_look_is_kept_and_another_one_is_another_dataset(survey: Path, tmp_path: Path, settings: BuildSettings) -> None:
    out, look = tmp_path / "out", Look(("g", "r", "z"), Stretch(0.2, 8))
    dataset = _build(survey, out, settings, look).dataset
    kept = {name: dataset.settings[name] for name in ("fits_stretch", "fits_q", "bands")}
    assert kept == {"fits_stretch": 0.2, "fits_q": 8, "bands": "g,r,z"}
    assert _build(survey, out, settings, look).already_complete
    for other in (
        Look(("g", "r", "z"), Stretch(0.3, 8)),
        Look(("z", "r", "g"), Stretch(0.2, 8)),
        Look(stretch=Stretch(0.2, 8)),
    ):
        with pytest.raises(ConfigError, match=r"a dataset with other settings or source \((fits_stretch|bands)"):
            _build(survey, out, settings, other)


def test_a_finished_dataset_is_complete_and_verified_against_its_source(
    survey: Path, tmp_path: Path, settings: BuildSettings
) -> None:
    out = tmp_path / "out"
    assert not _build(survey, out, settings).already_complete
    assert _build(survey, out, settings).already_complete
    report = verify_dataset(out, survey, workers=1)
    assert (report.errors, [finding.what for finding in report.findings]) == (0, [])
    write(survey / "cutouts" / "105.fits", _planes(7)[::-1], BANDS="grz")
    assert verify_dataset(out, survey, workers=1).errors > 0
    with pytest.raises(ConfigError, match="an image of the source has changed"):
        _build(survey, out, settings)


def test_one_worker_and_two_write_the_same_bytes_and_a_stopped_build_resumes_to_them(
    survey: Path, tmp_path: Path, contents: Contents, run: Run
) -> None:
    flags = "--src", survey, "--size=32", "--encoding=png", "--examples_per_shard=4"
    for workers in (1, 2):
        ended = run(*flags, "--out", tmp_path / f"out{workers}", f"--workers={workers}")
        assert ended.returncode == 0, ended.stderr
        assert "FITSFixedWarning" not in ended.stderr and "--fits_stretch" in ended.stderr
    expected = contents(tmp_path / "out1")
    assert contents(tmp_path / "out2") == expected
    # A build that stops at an image that cannot be used has finished shards before it.
    path = survey / "cutouts" / f"{IDS[-1]}.fits"
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    stopped = run(*flags, "--out", tmp_path / "out3", "--workers=1", "--on_bad_image=fail")
    assert stopped.returncode == 1 and f"{IDS[-1]}.fits" in stopped.stderr
    path.write_bytes(whole)
    resumed = run(*flags, "--out", tmp_path / "out3", "--workers=1", "--overwrite")
    assert resumed.returncode == 0, resumed.stderr
    assert {name: data for name, data in contents(tmp_path / "out3").items() if "tfrecord" in name} == {
        name: data for name, data in expected.items() if "tfrecord" in name
    }


def test_a_survey_with_one_file_per_band_is_the_same_galaxies(
    survey: Path, tmp_path: Path, settings: BuildSettings, examples: Examples
) -> None:
    for galaxy_id in IDS:
        write_bands(tmp_path / "bands" / "cutouts", str(galaxy_id), _planes(galaxy_id))
    dataset = _build(_votes(tmp_path / "bands"), tmp_path / "out", settings).dataset
    expected = _build(survey, tmp_path / "expected", settings).dataset
    for galaxy_id, (split, example) in examples(expected).items():
        assert examples(dataset)[galaxy_id][0] == split
        assert examples(dataset)[galaxy_id][1].image == example.image
    assert _build(tmp_path / "bands", tmp_path / "out", settings).already_complete
    assert verify_dataset(tmp_path / "out", tmp_path / "bands", workers=1).errors == 0
    write(tmp_path / "bands" / "cutouts" / "105_g.fits", _planes(7)[2])
    assert verify_dataset(tmp_path / "out", tmp_path / "bands", workers=1).errors > 0


def test_a_catalogue_may_name_fits_files(survey: Path, tmp_path: Path, settings: BuildSettings, examples: Examples) -> None:
    expected = _build(survey, tmp_path / "expected", settings).dataset
    with (survey / "training_solutions_rev1.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    with (survey / "catalogue.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["filename", *header], *([f"cutouts/{row[0]}.fits", *row] for row in rows)])
    dataset = _build(survey / "catalogue.csv", tmp_path / "out", settings).dataset
    assert dataset.settings["fits_stretch"] == expected.settings["fits_stretch"]
    assert {example.image for _, example in examples(dataset).values()} == {
        example.image for _, example in examples(expected).values()
    }
    assert verify_dataset(tmp_path / "out", survey / "catalogue.csv", workers=1).errors == 0


def test_galaxies_that_cannot_be_used_are_listed_by_name_and_a_sample_of_them_chooses_no_stretch(
    survey: Path, tmp_path: Path, settings: BuildSettings
) -> None:
    folder = survey / "cutouts"
    write(folder / "101.fits", _planes(1) * 0, BANDS="grz")
    write(folder / "102.fits", _planes(2) * 500 + np.float32(30000), BANDS="grz")
    (folder / "103.fits").write_bytes(b"<html>busy</html>")
    write(folder / "104.fits", np.stack([*_planes(4), _planes(5)[0]]))
    dataset = _build(survey, tmp_path / "out", settings).dataset
    assert dataset.settings["fits_stretch"] == DEFAULT_STRETCH
    with (tmp_path / "out" / "rejected.csv").open(newline="") as file:
        reasons = {int(row["galaxy_id"]): row["reason"] for row in csv.DictReader(file)}
    assert list(reasons) == [101, 102, 103, 104]
    assert reasons[101] == "band g is empty: all its pixels are 0"
    assert reasons[102].startswith("a sky of 30,")
    assert reasons[103].startswith("is a web page")
    assert reasons[104] == "its header does not name the bands of its 4 planes: give --bands"
    assert verify_dataset(tmp_path / "out", survey, workers=1).errors == 0


@pytest.mark.parametrize(
    ("look", "reason"),
    [
        (Look(("g", "r", "z")), "--bands g,r,z: "),
        (Look(stretch=Stretch(0.3)), "--fits_stretch 0.3: "),
        (Look(stretch=Stretch(q=3)), "--fits_q 3: "),
    ],
)
def test_a_look_is_refused_without_fits_images(
    make_survey: SurveyMaker, tmp_path: Path, settings: BuildSettings, look: Look, reason: str
) -> None:
    source = make_survey(tmp_path / "kaggle", labelled=4, unlabelled=0)
    with pytest.raises(SettingError, match=f"^{reason}{source} holds no FITS images: omit the flag$"):
        _build(source, tmp_path / "out", settings, look)
    assert "fits_stretch" not in _build(source, tmp_path / "out", settings).dataset.settings


def test_fits_files_beside_pictures_are_left_alone_and_counted(
    make_survey: SurveyMaker, tmp_path: Path, settings: BuildSettings, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_survey(tmp_path / "kaggle", labelled=6, unlabelled=0)
    write(source / "table.fits", _planes(1))
    with caplog.at_level(logging.WARNING, "preprocess"):
        dataset = _build(source, tmp_path / "out", settings).dataset
    assert sum(shard.examples for shard in dataset.shards) == 6
    assert any("1 file left alone: 1 .fits" in line for line in caplog.messages)


SPY = """
import sys
from pathlib import Path
from preprocess.engines import run_local
from tfrecords.fits.look import Look, Stretch
from preprocess import plan, surveys
from preprocess.shard import ShardTask, write_shard
from tfrecords.images import CropSettings

def spy(task, on_image):
    write_shard(task, on_image)
    return sorted(sys.modules)

if __name__ == "__main__":
    out = Path(sys.argv[2])
    survey = surveys.survey_of(Path(sys.argv[1]), out)
    (shard,) = plan.make(survey.galaxies, plan.PlanSettings(0, 0, 0, 100, 24))
    part, crop = survey.part(shard.rows), CropSettings(0.5, 32, "png", 95)
    look = Look(stretch=Stretch(0.5)) if len(survey.fits_images()) else None
    task = ShardTask(shard.name, shard.split, part.images, part.targets, part.asked, survey.tree, out, out, crop, True, look)
    (modules,) = run_local(spy, iter([task]), 1, lambda images: None)
    print("\\n".join(modules))
"""


@pytest.mark.slow
def test_a_worker_imports_astropy_for_fits_images_and_nobody_else_does(
    survey: Path, make_survey: SurveyMaker, tmp_path: Path
) -> None:
    (tmp_path / "spy.py").write_text(SPY)
    (tmp_path / "out").mkdir()
    for source, with_astropy in ((survey, True), (make_survey(tmp_path / "kaggle"), False)):
        arguments = [sys.executable, str(tmp_path / "spy.py"), str(source), str(tmp_path / "out")]
        modules = set(subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60).stdout.split())
        assert ("astropy" in modules) == with_astropy and "preprocess.shard" in modules
        assert modules.isdisjoint({*HEAVY} - ({"matplotlib"} if with_astropy else set()))  # astropy draws with it


def test_an_opened_dataset_has_the_look_of_its_images(survey: Path, tmp_path: Path, settings: BuildSettings) -> None:
    _build(survey, tmp_path / "out", settings, Look(stretch=Stretch(0.4)))
    assert from_settings(open_dataset(tmp_path / "out").settings) == Look(stretch=Stretch(0.4))
