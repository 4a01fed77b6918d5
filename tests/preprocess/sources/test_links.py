"""A link that leads nowhere is skipped and counted where one file is missing, and refused where more may be."""

import errno
import os
from pathlib import Path

import pytest

from preprocess.sources import LeftAlone, find_images, find_source
from tfrecords.errors import SourceError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("7.jpg", "a/9.jpg"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(name.encode())
    return tmp_path / "folder"


def _of_source(folder: Path) -> LeftAlone:
    source = find_source(folder, folder)
    assert source.images.galaxy_id.tolist() == [7, 9]
    return source.left


def _of_images(folder: Path) -> LeftAlone:
    images, left = find_images(folder, folder)
    assert images.galaxy_id.tolist() == [7, 9]
    return left


def _refused(folder: Path) -> str:
    with pytest.raises(SourceError) as caught:
        find_source(folder, folder)
    with pytest.raises(SourceError) as again:
        find_images(folder, folder)
    assert str(again.value) == str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("target", ["gone.jpg", "7.jpg/8.jpg", "{}"], ids=["nothing", "below a file", "itself"])
@pytest.mark.parametrize("name", ["8.jpg", "a/NGC 7.JPG", "notes.txt", "a/cutout.fits"])
def test_every_broken_link_to_a_file_is_skipped_and_counted(folder: Path, name: str, target: str) -> None:
    (folder / name).symlink_to(target.format(folder / name))
    for left in (_of_source(folder), _of_images(folder)):
        assert [*left.lines()] == [f"1 link leads nowhere and was skipped, first {folder}/{name}"]
    (folder / "0.txt").symlink_to("gone.jpg")
    for left in (_of_source(folder), _of_images(folder)):
        assert [*left.lines()] == [f"2 links lead nowhere and were skipped, first {folder}/0.txt"]


@pytest.mark.parametrize("name", ["images_training_rev1", "a/spiral", "dr7.training_images", "images.zip"])
def test_a_broken_link_that_may_stand_for_many_images_is_refused(folder: Path, name: str) -> None:
    (folder / name).symlink_to("/nonexistent")
    assert _refused(folder) == f"{folder}/{name}: is a link that leads nowhere: repair or remove the link"


@pytest.mark.parametrize("name", ["training_solutions_rev1.csv", "votes.parquet", "votes.tsv.gz"])
def test_a_broken_link_to_a_table_is_refused_only_where_tables_matter(folder: Path, name: str) -> None:
    (folder / name).symlink_to("gone")
    with pytest.raises(SourceError) as caught:
        find_source(folder, folder)
    assert str(caught.value) == f"{folder}/{name}: is a link that leads nowhere: repair or remove the link"
    assert [*_of_images(folder).lines()] == [f"1 link leads nowhere and was skipped, first {folder}/{name}"]


def test_a_link_to_what_cannot_be_reached_is_not_said_to_lead_nowhere(folder: Path) -> None:
    (folder / "8.jpg").symlink_to("x" * (os.pathconf(folder, "PC_NAME_MAX") + 1))
    with pytest.raises(OSError) as caught:
        find_source(folder, folder)
    assert caught.value.errno == errno.ENAMETOOLONG
