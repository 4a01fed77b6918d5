"""What is not read is counted and named, and what is no source is refused by name."""

from pathlib import Path

import pytest

from preprocess import sources
from tests.preprocess.sources.finding import (
    BENCHMARKS,
    DEFLATED,
    JPEG,
    KINDS,
    STORED,
    TABLE,
    TEST,
    TRAINING,
    Find,
    ids_and_paths,
    keep,
    refusal,
    write_files,
)
from tests.preprocess.sources.packing import packed

# Suffixes


@pytest.mark.parametrize(
    "suffix", [".jpg", ".JPG", ".jpeg", ".jpe", ".Jpe", ".jfif", ".png", ".tif", ".TIFF", ".tiff", ".webp", ".WebP", ".bmp"]
)
def test_a_picture_of_any_suffix_is_an_image_named_without_it(tmp_path: Path, find: Find, suffix: str) -> None:
    names = (f"7{suffix}", f"a/NGC 4321{suffix}")
    for path in (write_files(tmp_path / "folder", *names), keep(tmp_path / "zip.zip", dict.fromkeys(names, JPEG))):
        source = find(path)
        assert [source.images.galaxy(row) for row in range(2)] in (["7", "NGC 4321"], ["NGC 4321", "7"])
        assert {path for _, path in ids_and_paths(source)} == {*names}
        assert [*source.left.lines()] == []
    assert len(sources.find_images(tmp_path / "folder" / names[0], tmp_path)[0]) == 1


# What is left alone


def test_files_that_are_not_read_are_counted_by_suffix(tmp_path: Path, find: Find) -> None:
    names = ("1.gif", "2.GIF", "a/3.gif", "a/b/4.gif", "5.avif", "6.avif", "7.avif", "8.jpg.gz", "9.jpg.GZ", "10.jpg.1")
    files = {"10.jpg": JPEG, **dict.fromkeys(names, b"?")}
    for path in (keep(tmp_path / "folder", files), keep(tmp_path / "zip.zip", files)):
        assert [*find(path).left.lines()] == ["10 files left alone: 4 .gif, 3 .avif, 2 .jpg.gz, 1 .1"]


def test_of_many_suffixes_the_most_frequent_are_shown(tmp_path: Path, find: Find) -> None:
    names = ("a.txt", "b.txt", "README", "a.b", "a.c", "a.d", "a.e", "a.f", "a.very_long_suffix")
    (line,) = find(write_files(tmp_path, "7.jpg", *names)).left.lines()
    assert line == "9 files left alone: 2 .txt, 1 .b, 1 .c, 1 .d, 1 .e, 3 others"
    (line,) = find(write_files(tmp_path / "two", "7.jpg", "README", "a.very_long_suffix")).left.lines()
    assert line == "2 files left alone: 1 with a long suffix, 1 without a suffix"


def test_what_is_read_or_hidden_is_not_left_alone(tmp_path: Path, find: Find) -> None:
    files = {"7.jpg": JPEG, **TABLE, **BENCHMARKS, "more.zip": packed({"8.png": JPEG, "my.csv": b"a"})}
    folder = write_files(keep(tmp_path / "folder", files), ".DS_Store", ".ipynb_checkpoints/7.gif", "__MACOSX/x.gif")
    assert [*find(folder).left.lines()] == []


ARCHIVES = {
    "a.tar": "tar xf",
    "b.tar.gz": "tar xf",
    "c.TGZ": "tar xf",
    "d.tar.bz2": "tar xf",
    "e.7z": "7z x",
    "f.rar": "unrar x",
}


def test_archives_that_are_no_zip_are_named_with_what_to_do(tmp_path: Path, find: Find) -> None:
    files = {"7.jpg": JPEG, **dict.fromkeys(ARCHIVES, b"?")}
    for path in (keep(tmp_path / "folder", files), keep(tmp_path / "zip.zip", files)):
        assert [*find(path).left.lines()] == [
            f"{path}/{name}: this archive is not read: unpack it with `{unpack}`, and give the folder"
            for name, unpack in ARCHIVES.items()
        ]


def test_a_source_without_images_is_refused_with_what_there_is_instead(tmp_path: Path, find: Find) -> None:
    path = write_files(tmp_path / "folder", "1.gif", "2.gif", "images.tar.gz")
    unpack = f"{path}/images.tar.gz: this archive is not read: unpack it with `tar xf`, and give the folder"
    rule = f"holds no images ({KINDS}): give --src the folder or zip with them"
    assert refusal(find, path) == f"{path}: {rule} (2 files left alone: 2 .gif; {unpack})"


# What is not a source


def test_a_missing_source_is_refused(tmp_path: Path, find: Find) -> None:
    assert refusal(find, tmp_path / "kagle") == (
        f"{tmp_path}/kagle: no such folder or zip: give --src the folder or zip that holds the images and the table of votes"
    )


def test_a_file_that_is_no_zip_is_refused_as_source(tmp_path: Path, find: Find) -> None:
    write_files(tmp_path, "images.tar.gz", "images.zip", "images.jpg")
    assert refusal(find, tmp_path / "images.jpg").startswith(f"{tmp_path}/images.jpg: not a folder or zip: give --src")
    unpack = "this archive is not read: unpack it with `tar xf`, and give the folder"
    assert refusal(find, tmp_path / "images.tar.gz") == f"{tmp_path}/images.tar.gz: {unpack}"
    (tmp_path / "images.tar.gz").unlink()
    text = f"{tmp_path}/images.zip: not a zip, or cut off: copy or download it again"
    assert refusal(find, tmp_path / "images.zip") == refusal(find, tmp_path) == text


def test_a_source_without_images_is_refused(tmp_path: Path, find: Find) -> None:
    for path in (keep(tmp_path / "folder", TABLE), keep(tmp_path / "zip.zip", TABLE), keep(tmp_path / "empty", {})):
        rule = f"holds no images ({KINDS}): give --src the folder or zip with them"
        assert refusal(find, path) == f"{path}: {rule}"


def test_a_zip_that_is_cut_off_is_refused_by_name_wherever_it_lies(tmp_path: Path, find: Find) -> None:
    half = packed(TRAINING)[:-60]
    files = TEST | {"downloads/images_training_rev1.zip": half}
    for path in (keep(tmp_path / "folder", files), keep(tmp_path / "zip.zip", files)):
        text = f"{path}/downloads/images_training_rev1.zip: not a zip, or cut off: copy or download it again"
        assert refusal(find, path) == text
    path = write_files(tmp_path, "half.zip", content=half) / "half.zip"
    assert refusal(find, path) == f"{path}: not a zip, or cut off: copy or download it again"


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_zips_are_read_four_deep_and_refused_below(tmp_path: Path, find: Find, method: int) -> None:
    content = packed({"7.jpg": JPEG})
    for depth in range(2, 5):
        content = packed({f"{depth}.zip": content}, method)
    path = write_files(tmp_path, "outer.zip", content=content) / "outer.zip"
    assert ids_and_paths(find(path)) == ids_and_paths(find(tmp_path)) == [(7, "7.jpg")]
    write_files(tmp_path, "outer.zip", content=packed({"5.zip": content}, method))
    inner = f"{path}/5.zip/4.zip/3.zip/2.zip"
    assert refusal(find, path) == f"{inner}: zips within zips, 5 deep: unzip the outer ones first"
