"""Folders in a table and those of the images agree as far as both go; other rows are not joined, and it is said."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.job import BuildSettings, build_dataset
from preprocess.joining import Images
from preprocess.sources import find_source
from preprocess.surveys import survey_of
from tests.preprocess.people import TABLE, People, build_and_verify
from tests.preprocess.surveys import examples_by_name, refused
from tfrecords.dataset import Dataset
from tfrecords.errors import SourceError

NUMBERS = range(1, 21)


def _images(folder: Path, *paths: str) -> Images:
    for path in paths:
        (folder / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / path).write_bytes(path.encode())
    return Images(find_source(folder / "images", folder).images)


def _joined(images: Images, *keys: str) -> list[str]:
    """The path of the image of each key; empty without one."""
    galaxies = images.galaxies("votes.csv", "file", np.array(keys, object))
    path_of = {int(galaxy): images.listing.path(row) for row, galaxy in enumerate(images.listing.galaxy_id)}
    return [path_of.get(galaxy, "") for galaxy in galaxies.tolist()]


@pytest.mark.parametrize("stray", [[], ["train/a.jpg"], ["train/a.jpg", "other/a.png", "other/a.jpg"]])
def test_a_row_of_another_folder_is_not_joined_even_if_its_name_is_that_of_one_image_alone(
    tmp_path: Path, stray: list[str]
) -> None:
    images = _images(tmp_path, "train/1.jpg", "train/2.jpg", "0.jpg", *stray)
    assert _joined(images, "train/1.jpg", "test/1.jpg", "test/2.png", "pf/train/2.jpg", "/pf/train/0.jpg", "a/0") == [
        "train/1.jpg", "", "", "train/2.jpg", "0.jpg", "0.jpg",
    ]  # fmt: skip
    joined = images.galaxies("votes.csv", "file", ["train/1.jpg"])
    assert images.in_other_folders(joined) == [("test/2.png", "train/2.jpg")]


def test_the_folders_of_an_image_may_be_more_or_fewer_than_those_of_its_row(tmp_path: Path) -> None:
    images = _images(tmp_path, "kaggle/train/1.jpg", "kaggle/test/1.jpg", "kaggle/test/NGC 7.jpg")
    keys = ("train/1", "test/1.jpg", "/data/kaggle/train/1.png", "NGC 7", "test/NGC 7", "x/kaggle/test/NGC 7", "x/test/NGC 7")
    assert _joined(images, *keys) == [
        "kaggle/train/1.jpg", "kaggle/test/1.jpg", "kaggle/train/1.jpg", *["kaggle/test/NGC 7.jpg"] * 3, "",
    ]  # fmt: skip


@pytest.mark.parametrize("prefix", ["pf/", "/home/me/pf/", "C:\\data\\", "./pf/./", "pf//"])
@pytest.mark.parametrize("twin", [[], ["x/1.png", "x/7.jpg", "y/7.png"]], ids=["stems differ", "only suffixes differ"])
def test_a_longer_prefix_loses_no_image_at_the_top(tmp_path: Path, prefix: str, twin: list[str]) -> None:
    paths = ["1.jpg", "5.jpg", "x/1.jpg", "x/6.jpg", *twin]
    images = _images(tmp_path, *paths)
    assert images.listing.parts == (-1 if twin else 2)
    assert _joined(images, *(f"{prefix}{path}" for path in paths)) == paths
    assert _joined(images, f"{prefix}x/5.jpg", f"{prefix}y/6.jpg") == ["5.jpg", ""]


def test_where_only_suffixes_differ_a_part_of_a_path_with_its_suffix_is_enough(tmp_path: Path) -> None:
    images = _images(tmp_path, "deep/a/x.jpg", "deep/a/x.png", "deep/b/x.jpg", "c/y.jpg")
    keys = ("a/x.jpg", "a/x.png", "b/x", "b/x.jpg", "y.png", "/data/deep/a/x.png")
    assert _joined(images, *keys) == [
        "deep/a/x.jpg", "deep/a/x.png", "deep/b/x.jpg", "deep/b/x.jpg", "c/y.jpg", "deep/a/x.png",
    ]  # fmt: skip
    for key in ("a/x", "/data/deep/a/x", "x.jpg"):
        with pytest.raises(SourceError, match=f"{key} is the name of several images"):
            _joined(images, key)


@pytest.mark.parametrize("key", ["train/7", "data/train/007", "train/data7.jpg"])
def test_the_articles_numbers_are_joined_in_their_folder_alone(tmp_path: Path, key: str) -> None:
    images = _images(tmp_path, "train_images/data7.jpg")
    assert _joined(images, key, key.replace("train/", "train_images/")) == ["", "" if "00" in key else "train_images/data7.jpg"]


def _survey(people: People, folder: Path, images: str, *rows: str) -> Path:
    """Images in a folder, and a table with their votes under each of several other folders."""
    source = people.named(folder, [f"{images}{number}" for number in NUMBERS])
    ids = [f"{row}{number}.jpg" for row in rows for number in NUMBERS]
    (source / TABLE).write_bytes(people.by("file", ids, [*people.rows] * len(rows)))
    return source


def test_a_table_whose_folders_are_all_others_is_refused_with_a_row_and_its_image(
    people: People, tiny: BuildSettings, tmp_path: Path
) -> None:
    source = _survey(people, tmp_path / "mine", "train/", "test/")
    message = refused(source, tiny, tmp_path / "out")
    assert message.startswith(
        f"{source}: no image has a row in {source / TABLE} (images: 20, such as 1, 2, 3; rows: 20, such as "
    )
    assert message.endswith(
        "): the table names test/1.jpg, but the image is train/1.jpg: correct the folders in the table, or remove them from it"
    )


def _targets(data: Dataset) -> dict[str, Any]:
    return {name: one.targets.tolist() for name, one in examples_by_name(data).items()}


def test_a_table_of_two_folders_gives_the_votes_of_the_one_that_is_there(
    people: People, tiny: BuildSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = _survey(people, tmp_path / "mine", "train/", "test/", "train/")
    data = build_and_verify(source, tiny)
    alone = _survey(people, tmp_path / "b" / "mine", "train/", "train/")
    assert _targets(data) == _targets(build_and_verify(alone, tiny)) and data.galaxies("unlabelled") == 0
    assert (data.source["votes"], data.source["votes_without_image"], caplog.messages) == (40, 20, [])


def test_images_whose_rows_are_of_other_folders_alone_are_unlabelled_and_it_is_said(
    people: People, tiny: BuildSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = _survey(people, tmp_path / "mine", "train/", "train/")
    table = (source / TABLE).read_text()
    (source / TABLE).write_text(table.replace("train/19.jpg", "test/19.jpg").replace("train/20.jpg", "test/20.jpg"))
    data = build_and_verify(source, tiny)
    assert data.galaxies("unlabelled") == 2
    assert caplog.messages[0] == (
        "2 rows of the table were not joined, because the image of that name is in another folder, first test/19.jpg: the "
        "image is train/19.jpg"
    )


@pytest.mark.parametrize("deeper", [False, True])
def test_a_source_above_or_below_the_folders_of_the_table_is_joined(
    people: People, tiny: BuildSettings, tmp_path: Path, deeper: bool
) -> None:
    source = _survey(people, tmp_path / "mine", "galaxies/train/", "/data/galaxies/train/" if deeper else "train/")
    survey = survey_of(source, tmp_path)
    assert survey.summary()["votes_without_image"] == survey.summary()["images_without_votes"] == 0
    table = shutil.copy(source / TABLE, tmp_path / "votes.csv")
    below = build_dataset(source / "galaxies" / "train", tmp_path / "out", tiny, table).dataset
    assert _targets(below) == _targets(build_and_verify(source, tiny))
