"""A dataset without votes agrees with its source, whatever other tables and columns that has."""

import shutil
from pathlib import Path

import pytest

from preprocess.job import BuildSettings, build_dataset
from preprocess.verify.dataset import verify_dataset
from tests.preprocess.people import TABLE, People
from tests.preprocess.surveys import named_survey, rows_of, write_rows


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of images beside a table without votes."""
    folder = named_survey(tmp_path / "mine")
    write_rows(folder / "photometry.csv", [{"file": row["file"], "g": 17.5} for row in rows_of(folder / "votes.csv")])
    (folder / "votes.csv").unlink()
    return folder


def _verified(source: Path, out: Path, small: BuildSettings, **options: str) -> None:
    data = build_dataset(source, out, small, **options).dataset
    assert data.galaxies("unlabelled") == 8 and data.settings["votes"] == ""
    assert verify_dataset(data.folder, source).findings == ()


def test_a_folder_of_images_beside_a_table_of_something_else(images: Path, small: BuildSettings, tmp_path: Path) -> None:
    _verified(images, tmp_path / "out", small)


@pytest.mark.parametrize("options", [{}, {"path_column": "file"}], ids=["found", "named"])
def test_a_catalogue_of_images_alone(images: Path, small: BuildSettings, tmp_path: Path, options: dict[str, str]) -> None:
    rows = rows_of(images / "photometry.csv")
    catalogue = tmp_path / "catalogue.csv"
    write_rows(catalogue, [{"file": str(images / "images" / row["file"])} for row in rows])
    _verified(catalogue, tmp_path / "out", small, **options)


def test_a_tree_that_was_named_without_a_table(images: Path, rings: Path, small: BuildSettings, tmp_path: Path) -> None:
    (images / "photometry.csv").unlink()
    _verified(images, tmp_path / "out", small, tree=str(rings))


def test_votes_that_came_later_are_a_difference(people: People, tiny: BuildSettings, tmp_path: Path) -> None:
    source = people.bring(tmp_path / "mine")
    out = build_dataset(source, tmp_path / "out", tiny).dataset.folder
    assert verify_dataset(out, source).findings == ()
    shutil.copy(people.folder / TABLE, source)
    report = verify_dataset(out, source)
    assert report.errors and "states votes of the source as 0 instead of 20" in {one.what for one in report.findings}
