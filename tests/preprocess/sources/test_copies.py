"""Copies of an image count once, and different images of a galaxy are never mixed up."""

import io
import os
import re
import shutil
import zipfile
import zlib
from pathlib import Path

import pytest

from preprocess import sources
from preprocess.sources.listing import ImageReader
from preprocess.surveys import survey_of
from tests.preprocess.sources.finding import (
    DEFLATED,
    JPEG,
    OTHER,
    STORED,
    Find,
    contents_of,
    ids_and_paths,
    keep,
    named_by_path,
    refusal,
    splits_in,
    write_files,
)
from tests.preprocess.sources.packing import packed
from tfrecords.decoding import MAX_BYTES
from tfrecords.errors import SourceError

# Copies


@pytest.mark.parametrize("twin", ["b/7.jpg", "a/7.jpeg"])
def test_the_same_galaxy_twice_with_the_same_bytes_counts_once(tmp_path: Path, find: Find, twin: str) -> None:
    files = {"a/7.jpg": JPEG, twin: JPEG, "a/8.jpg": OTHER}
    for path in (keep(tmp_path / "folder", files), keep(tmp_path / "zip.zip", files)):
        assert ids_and_paths(find(path)) == [(7, min("a/7.jpg", twin)), (8, "a/8.jpg")]


def test_a_galaxy_many_times_with_the_same_bytes_counts_once(tmp_path: Path, find: Find) -> None:
    write_files(tmp_path, *(f"{folder}/{galaxy_id}.jpg" for folder in "edcba" for galaxy_id in (9, 8, 7)))
    assert ids_and_paths(find(tmp_path)) == [(7, "a/7.jpg"), (8, "a/8.jpg"), (9, "a/9.jpg")]


@pytest.mark.parametrize("twin", ["b/7.jpg", "a/7.png"])
@pytest.mark.parametrize("other", [OTHER, JPEG[:-1] + b"Y", b""], ids=["another", "same size", "empty"])
def test_different_images_of_one_number_are_two_galaxies_and_it_is_said_which(
    tmp_path: Path, find: Find, twin: str, other: bytes
) -> None:
    files = {"a/7.jpg": JPEG, twin: other, "8.jpg": JPEG}
    for path in (keep(tmp_path / "folder", files), keep(tmp_path / "zip.zip", files)):
        source = find(path)
        first, second = sorted((f"{path}/a/7.jpg", f"{path}/{twin}"))
        assert source.clash == f"{path}: galaxy 7 has two different images, {first} and {second}: remove one of them"
        assert ids_and_paths(source) == [(8, "8.jpg"), *named_by_path("a/7.jpg", twin)]
        assert source.images.named.tolist() == [0, 1, 1]


def _refused_survey(folder: Path) -> str:
    with pytest.raises(SourceError) as caught:
        survey_of(folder, folder.parent)
    return str(caught.value)


def test_different_images_of_one_number_are_refused_beside_a_table_of_numbers(survey: Path, tmp_path: Path) -> None:
    folder = write_files(Path(shutil.copytree(survey, tmp_path / "kaggle")), "more/900000.jpg")
    both = f"{folder}/images_test_rev1/900000.jpg and {folder}/more/900000.jpg"
    assert _refused_survey(folder) == f"{folder}: galaxy 900000 has two different images, {both}: remove one of them"


def test_different_images_of_a_row_are_refused_with_both(survey: Path, tmp_path: Path) -> None:
    folder = write_files(Path(shutil.copytree(survey, tmp_path / "kaggle")), "more/100000.jpg")
    message = _refused_survey(folder)
    what = f"{folder}/training_solutions_rev1.csv: 100000 is the name of several images ("
    assert message.startswith(what) and message.endswith("): remove all but one, or write their paths into column GalaxyID")
    both = message.removeprefix(what).partition(")")[0].split(", ")
    assert {*both} == {f"{folder}/images_training_rev1/100000.jpg", f"{folder}/more/100000.jpg"}


@pytest.mark.parametrize("other", [OTHER, JPEG[:-1] + b"Y"], ids=["another", "same size"])
def test_another_image_of_the_same_path_in_the_zip_beside_is_refused_with_both(
    tmp_path: Path, find: Find, other: bytes
) -> None:
    keep(tmp_path, {"images/7.jpg": JPEG, "old.zip": packed({"images/7.jpg": other})})
    both = f"{tmp_path}/images/7.jpg and {tmp_path}/old.zip/images/7.jpg"
    assert refusal(find, tmp_path) == f"{tmp_path}: galaxy images/7.jpg has two different images, {both}: remove one of them"


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_two_zips_of_one_name_in_a_zip_keep_their_own_images(tmp_path: Path, find: Find, method: int) -> None:
    path = tmp_path / "outer.zip"
    with zipfile.ZipFile(path, "w", method) as file, pytest.warns(UserWarning, match="Duplicate name"):
        for galaxy_id in (7, 8):
            file.writestr("images.zip", packed({"a.txt": b"text" * galaxy_id, f"{galaxy_id}.jpg": b"galaxy %d" % galaxy_id}))
    assert contents_of(find(path)) == [(7, "7.jpg", b"galaxy 7"), (8, "8.jpg", b"galaxy 8")]


def test_two_absurdly_large_images_of_one_number_are_no_copies(tmp_path: Path, find: Find) -> None:
    for name in ("7.jpg", "7.png"):
        write_files(tmp_path, name)
        os.truncate(tmp_path / name, MAX_BYTES + 1)  # a hole, which takes no room on disk
    assert f"{tmp_path}/7.jpg and {tmp_path}/7.png" in find(tmp_path).clash


def test_loops_of_links_end(tmp_path: Path, find: Find) -> None:
    write_files(tmp_path / "kaggle", "a/b/7.jpg", "c/8.jpg")
    (tmp_path / "kaggle" / "a" / "b" / "up").symlink_to(tmp_path / "kaggle", target_is_directory=True)
    (tmp_path / "kaggle" / "c" / "self").symlink_to(".", target_is_directory=True)
    (tmp_path / "kaggle" / "c" / "other").symlink_to("../a", target_is_directory=True)
    assert ids_and_paths(find(tmp_path / "kaggle")) == [(7, "a/b/7.jpg"), (8, "c/8.jpg")]


def test_links_to_folders_files_and_zips_are_followed(tmp_path: Path, find: Find) -> None:
    write_files(tmp_path / "elsewhere", "images/7.jpg", "8.jpg")
    keep(tmp_path / "elsewhere" / "more.zip", {"9.jpg": JPEG})
    (tmp_path / "kaggle").mkdir()
    (tmp_path / "kaggle" / "a").symlink_to(tmp_path / "elsewhere" / "images", target_is_directory=True)
    (tmp_path / "kaggle" / "8.jpg").symlink_to(tmp_path / "elsewhere" / "8.jpg")
    (tmp_path / "kaggle" / "b.zip").symlink_to(tmp_path / "elsewhere" / "more.zip")
    assert ids_and_paths(find(tmp_path / "kaggle")) == [(7, "a/7.jpg"), (8, "8.jpg"), (9, "9.jpg")]


def test_of_copies_the_one_in_a_split_folder_gives_the_split(tmp_path: Path) -> None:
    write_files(tmp_path, "train_images/data7.jpg")
    (tmp_path / "images_training_rev1.zip").write_bytes(packed({"images_training_rev1/7.jpg": JPEG}))
    images = sources.find_source(tmp_path, tmp_path).images
    assert images.galaxy_id.tolist() == [7] and splits_in(images) == {7: "train"}


def test_a_name_that_a_zip_holds_as_utf_8_without_saying_so_is_that_of_the_folder(tmp_path: Path) -> None:
    name = "galaxi\u00e9.jpg"
    content = packed({name: JPEG})  # zipfile sets the flag of UTF-8 names, bit 11; Info-ZIP does not
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(signature) + flags
        content = (
            content[:at] + (int.from_bytes(content[at : at + 2], "little") & ~0x800).to_bytes(2, "little") + content[at + 2 :]
        )
    (tmp_path / "images.zip").write_bytes(content)
    folder = write_files(tmp_path / "images", name)
    zipped, plain = (sources.find_source(path, tmp_path).images for path in (tmp_path / "images.zip", folder))
    assert zipped.path(0) == plain.path(0) == name
    assert zipped.galaxy_id.tolist() == plain.galaxy_id.tolist()


def _forged(content: bytes, crc: int) -> bytes:
    """`content` and four bytes that give the whole this CRC-32, which is linear in the bits of the four."""
    empty = zlib.crc32(content + bytes(4))
    columns = [zlib.crc32(content + (1 << bit).to_bytes(4, "little")) ^ empty for bit in range(32)]
    wanted, basis = empty ^ crc, {}
    for bit, column in enumerate(columns):
        mask = 1 << bit
        while column:
            top = column.bit_length()
            if top not in basis:
                basis[top] = (column, mask)
                break
            column, mask = column ^ basis[top][0], mask ^ basis[top][1]
    patch = 0
    while wanted:
        column, mask = basis[wanted.bit_length()]
        wanted, patch = wanted ^ column, patch ^ mask
    return content + patch.to_bytes(4, "little")


def _zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(zipfile.ZipInfo(name), content)
        file.comment = b"four"
    return buffer.getvalue()


def test_two_inner_zips_with_the_same_size_and_crc_are_two(tmp_path: Path) -> None:
    """CRC-32 detects damage but does not identify a file: two files can be given the same one."""
    first, second = (_zip_of({f"{galaxy}.jpg": b"galaxy %d" % galaxy}) for galaxy in (7, 8))
    second = _forged(second[:-4], zlib.crc32(first))  # the four bytes of its comment
    assert len(first) == len(second) and zlib.crc32(first) == zlib.crc32(second)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("first.zip", first)
        file.writestr("second.zip", second)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for _ in range(2):  # the second time the copies already exist
        images = sources.find_source(tmp_path / "outer.zip", scratch).images
        with ImageReader() as reader:
            found = {int(images.galaxy_id[row]): reader.read(images, row).data for row in range(len(images))}
        assert found == {7: b"galaxy 7", 8: b"galaxy 8"}
    assert len([*scratch.iterdir()]) == 2


def test_a_copy_of_an_inner_zip_is_made_again_where_the_zip_around_it_changed(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    first = _zip_of({"7.jpg": b"galaxy 7"})
    second = _forged(_zip_of({"8.jpg": b"galaxy 8"})[:-4], zlib.crc32(first))
    for content, galaxy in ((first, 7), (second, 8)):
        with zipfile.ZipFile(tmp_path / "outer.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(zipfile.ZipInfo("inner.zip"), content, zipfile.ZIP_DEFLATED)
        assert sources.find_source(tmp_path / "outer.zip", scratch).images.galaxy_id.tolist() == [galaxy]


@pytest.mark.parametrize("kind", ["folders", "zip"])
def test_two_different_images_of_a_number_with_the_same_crc_are_no_copies(tmp_path: Path, kind: str) -> None:
    first = b"a galaxy as it was"
    second = _forged(b"another galaxy"[: len(first) - 4], zlib.crc32(first))
    assert len(first) == len(second) and zlib.crc32(first) == zlib.crc32(second)
    source = tmp_path / "kaggle"
    for name, content in (("a", first), ("b", second)):
        (source / name).mkdir(parents=True)
        (source / name / "7.jpg").write_bytes(content)
    if kind == "zip":
        (source / "b.zip").write_bytes(_zip_of({"b/7.jpg": second}))
        shutil.rmtree(source / "b")
    clash = sources.find_source(source, tmp_path).clash
    assert re.search(r"galaxy 7 has two different images, .*a/7\.jpg and .*b/7\.jpg: remove one of them", clash)
