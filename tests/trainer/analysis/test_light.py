"""The section on images counts those without a galaxy, and reads a source whatever it is: a folder, a catalogue, FITS files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from PIL import Image

from preprocess import BuildSettings, CropSettings, build_dataset, make_demo
from preprocess.job import BadImages
from trainer.analysis.labelled import labelled_galaxies
from trainer.analysis.light import light
from trainer.analysis.page import Gallery
from trainer.images import photometry

pytestmark = pytest.mark.slow
SETTINGS = BuildSettings(CropSettings(size=32, encoding="png"))
FOLDER = "images_training_rev1"


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty demo galaxies with votes, of which two are black and white pictures."""
    folder = tmp_path_factory.mktemp("light") / "sky"
    make_demo(folder, galaxies=40)
    for path, level in zip(sorted((folder / FOLDER).iterdir()), (0, 255), strict=False):
        Image.new("RGB", (424, 424), (level,) * 3).save(path)
    return folder


def test_images_left_out_are_counted_and_a_catalogue_is_read_as_its_folder(sky: Path, tmp_path: Path) -> None:
    votes = pd.read_csv(sky / "training_solutions_rev1.csv")
    votes.assign(file=[f"{FOLDER}/{galaxy}.jpg" for galaxy in votes.GalaxyID]).to_parquet(sky / "catalogue.parquet")
    sections = []
    for number, source in enumerate((sky / "catalogue.parquet", sky)):
        dataset = build_dataset(source, tmp_path / str(number), SETTINGS, bad=BadImages(max_fraction=0.1)).dataset
        sections.append(light(labelled_galaxies(dataset), source))
    of_catalogue, of_folder = (section.paragraphs for section in sections)
    assert of_catalogue == of_folder and "; 38 images)" in of_folder[0]
    assert of_folder[1] == "2 images were left out when the dataset was built, 2 for showing no galaxy; see rejected.csv."


def test_stored_images_without_a_galaxy_are_counted(sky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build_dataset(sky, tmp_path / "data", SETTINGS, bad=BadImages(max_fraction=0.1)).dataset
    labelled = labelled_galaxies(dataset)
    assert len(light(labelled, None).paragraphs) == 2  # and no sentence about stored ones
    monkeypatch.setattr("tfrecords.emptiness.LEAST_LIGHT", 256)  # as if all of them were black
    assert light(labelled, None).paragraphs[2].startswith("38 stored images show no galaxy, first ")


def test_fits_files_are_drawn_as_they_were_stored(sky: Path, tmp_path: Path) -> None:
    (tmp_path / "cutouts").mkdir()
    for path in sorted((sky / FOLDER).iterdir())[2:]:
        flux = (np.asarray(Image.open(path), np.float32)[::-1] / 255) ** 2 * 2
        planes = np.ascontiguousarray(flux.transpose(2, 0, 1))
        fits.PrimaryHDU(planes, fits.Header({"BANDS": "zrg"})).writeto(tmp_path / "cutouts" / f"{path.stem}.fits")
    votes = sky / "training_solutions_rev1.csv"
    dataset = build_dataset(tmp_path / "cutouts", tmp_path / "data", SETTINGS, solutions_file=votes).dataset
    section = light(labelled_galaxies(dataset), tmp_path / "cutouts")
    assert "; 38 images)" in section.paragraphs[0]
    (gallery,) = [part for part in section.parts if isinstance(part, Gallery)]
    assert photometry.photometry(np.stack([card.pictures[1] for card in gallery.cards])).peak.min() > 20
