"""No source costs more than a stated multiple of its size: zip bombs, pipes, names without end."""

import os
import signal
import socket
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from preprocess import sources
from preprocess.sources.listing import ImageReader
from tests.preprocess.sources.finding import DEFLATED, JPEG, STORED, VOTES, Find, keep, refusal, votes_of, write_files
from tests.preprocess.sources.packing import packed
from tfrecords.decoding import SMALL
from tfrecords.errors import SourceError

LIMIT_S = 60  # what is measured here takes a second, and without its limit minutes or for ever


@contextmanager
def _ending() -> Iterator[None]:
    """Raise TimeoutError if the block does not end."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _with_one_file_listed(data: bytes, suffix: str, times: int) -> bytes:
    """A zip whose list names one stored file many times."""
    name, crc = f"0{suffix}".encode(), zlib.crc32(data)
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 0, crc, len(data), len(data), len(name), 0) + name
    listed = b""
    for number in range(times):
        name = f"{number}{suffix}".encode()
        listed += struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, crc, len(data), len(data), len(name), *(0,) * 6
        ) + name  # fmt: skip
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, times, times, len(listed), len(local) + len(data), 0)
    return local + data + listed + end


# Zips


def test_a_zip_whose_list_names_bytes_twice_is_refused(tmp_path: Path, find: Find) -> None:
    (tmp_path / "bomb.zip").write_bytes(_with_one_file_listed(bytes(1000), ".jpg", 2))
    assert refusal(find, tmp_path / "bomb.zip") == (
        f"{tmp_path}/bomb.zip: its files share their bytes, as in a zip bomb: unzip what is needed, and zip it again"
    )


def test_a_zip_whose_list_names_each_byte_once_is_read(tmp_path: Path, find: Find) -> None:
    (tmp_path / "one.zip").write_bytes(_with_one_file_listed(bytes(1000), ".jpg", 1))
    assert len(find(tmp_path / "one.zip").images) == 1


def test_zips_within_zips_that_share_their_bytes_are_refused(tmp_path: Path, find: Find) -> None:
    bomb = packed({"1.jpg": JPEG})
    for _ in range(3):
        bomb = _with_one_file_listed(bomb, ".zip", 5)
    (tmp_path / "bomb.zip").write_bytes(bomb)
    assert ": its files share their bytes, as in a zip bomb: " in refusal(find, tmp_path / "bomb.zip")


def test_a_stored_file_of_two_sizes_is_refused(tmp_path: Path, find: Find) -> None:
    whole = bytearray(_with_one_file_listed(packed({"1.jpg": JPEG}), ".zip", 1))
    at = whole.rfind(b"PK\x01\x02")
    whole[at + 24 : at + 28] = struct.pack("<I", 1 << 31)
    (tmp_path / "odd.zip").write_bytes(whole)
    assert refusal(find, tmp_path / "odd.zip") == (
        f"{tmp_path}/odd.zip: its list of files is damaged: copy or download it again"
    )


def test_an_inner_zip_is_not_unpacked_to_far_more_than_the_file_on_disk(tmp_path: Path) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    keep(tmp_path / "outer.zip", {"inner.zip": packed({"1.jpg": JPEG, "junk.bin": bytes(SMALL)}, STORED)})
    with pytest.raises(SourceError) as caught:
        sources.find_source(tmp_path / "outer.zip", scratch)
    assert str(caught.value) == (
        f"{tmp_path}/outer.zip/inner.zip: has 67 MB unpacked, and the zips inside a zip may have 100 times the size of the "
        "file that holds them: unzip it, and give the folder"
    )
    assert not [*scratch.iterdir()]


def test_all_inner_zips_of_a_file_are_counted_together(tmp_path: Path, find: Find) -> None:
    half = {f"{number}.zip": packed({f"{number}.jpg": JPEG, "junk.bin": bytes(SMALL // 2)}, STORED) for number in (1, 2)}
    keep(tmp_path / "two.zip", half)
    keep(tmp_path / "one.zip", {"1.zip": half["1.zip"]})
    assert len(find(tmp_path / "one.zip").images) == 1
    assert "/2.zip: has 34 MB unpacked, and the zips inside a zip may have 100 times " in refusal(find, tmp_path / "two.zip")


@pytest.mark.parametrize("way", ["source", "given"])
def test_a_table_in_a_zip_is_not_unpacked_to_far_more_than_its_size(tmp_path: Path, way: str, find: Find) -> None:
    size = SMALL + 1
    path = keep(tmp_path / "votes.zip", {"1.jpg": JPEG, "training_solutions_rev1.csv": VOTES + bytes(size - len(VOTES))})
    with pytest.raises(SourceError) as caught:
        votes_of(find(path), path if way == "given" else None)
    assert str(caught.value) == (
        f"{path}/training_solutions_rev1.csv: has 67 MB unpacked, more than 100 times its packed size, as in a zip bomb: check "
        "it, and unzip it"
    )


# Names


@pytest.mark.parametrize("name", ["9" * 20_000 + ".jpg", "a/" * 10_000 + "1.jpg"], ids=["file", "folders"])
def test_a_name_longer_than_any_path_is_refused(tmp_path: Path, name: str, find: Find) -> None:
    keep(tmp_path / "long.zip", {name: JPEG})
    message = refusal(find, tmp_path / "long.zip")
    assert message == (
        f"{tmp_path}/long.zip: {name[:60]}... is a name of {len(name):,} bytes, more than 20,000: give it a shorter name, and "
        "zip it again"
    )


@pytest.mark.parametrize("letters", [19_990, 30_000])
def test_names_of_the_old_code_page_are_listed_with_their_whole_lengths(tmp_path: Path, letters: int, find: Find) -> None:
    """Each of their bytes has three in UTF-8; a listing holds lengths in 16 bits."""
    whole = packed({"x" * letters + "1.jpg": JPEG}).replace(b"x", b"\xb0")
    (tmp_path / "old.zip").write_bytes(whole)
    if letters > 20_000:
        assert ": \u2591\u2591" in refusal(find, tmp_path / "old.zip")
    else:
        assert find(tmp_path / "old.zip").images.path(0) == "\u2591" * letters + "1.jpg"


def test_names_that_differ_in_the_first_of_thousands_of_folders_are_found(tmp_path: Path, find: Find) -> None:
    deep = "a/" * 9_000
    files = {f"{top}/{deep}x{number}.jpg": f"{top} {number}".encode() for top in "pq" for number in range(100)}
    keep(tmp_path / "deep.zip", files)
    with _ending():
        images = find(tmp_path / "deep.zip").images
    assert len(images) == 200
    assert images.parts == 9_002


# Pipes and devices


def test_pipes_and_sockets_of_a_folder_are_counted_and_never_opened(tmp_path: Path, find: Find) -> None:
    write_files(tmp_path, "1.jpg")
    for name in ("2.jpg", "votes.csv", "training_solutions_rev1.csv", "images.zip"):
        os.mkfifo(tmp_path / name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "3.jpg"))
        with _ending():
            source = find(tmp_path)
    assert source.images.galaxy_id.tolist() == [1]
    assert not source.solutions
    assert [*source.left.lines()] == ["5 files left alone: 5 special (pipe, socket or device)"]


def test_a_file_that_became_a_pipe_is_refused_at_once(tmp_path: Path, find: Find) -> None:
    images = find(write_files(tmp_path, "1.jpg")).images
    (tmp_path / "1.jpg").unlink()
    os.mkfifo(tmp_path / "1.jpg")
    with ImageReader() as reader, _ending(), pytest.raises(SourceError) as caught:
        reader.read(images, 0)
    what = "is a pipe, socket or device, not a file: copy its contents to a file first"
    assert str(caught.value) == f"{tmp_path}/1.jpg: {what}"


def test_a_pipe_is_no_source_and_no_table(tmp_path: Path, find: Find) -> None:
    os.mkfifo(pipe := tmp_path / "pipe.zip")
    write_files(tmp_path / "images", "1.jpg")
    with _ending():
        assert refusal(find, pipe).startswith(f"{pipe}: not a folder or zip: give --src ")
        for given in (pipe, Path("/dev/zero")):
            with pytest.raises(SourceError) as caught:
                votes_of(find(tmp_path / "images"), given)
            assert str(caught.value) == (
                f"{given}: is a pipe or device: give --solutions the table of votes: CSV, Parquet or FITS, zipped or not"
            )
        with pytest.raises(SourceError, match="not an image"):
            sources.find_images(pipe.rename(tmp_path / "pipe.jpg"), tmp_path)


def test_deflated_images_are_no_inner_zips(tmp_path: Path, find: Find) -> None:
    """Images without light may be far larger unpacked than packed: each is read alone."""
    keep(tmp_path / "dark.zip", {f"{number}.bmp": bytes(SMALL // 2 + number) for number in range(3)})
    with zipfile.ZipFile(tmp_path / "dark.zip") as file:
        assert {info.compress_type for info in file.infolist()} == {DEFLATED}
    assert len(find(tmp_path / "dark.zip").images) == 3
