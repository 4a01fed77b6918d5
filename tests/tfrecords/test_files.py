"""A finished file appears at once and complete, or not at all."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from tfrecords import files
from tfrecords.errors import ConfigError, one_line


class Killed(BaseException):
    """Like KeyboardInterrupt: no Exception."""


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, Killed, OSError])
def test_nothing_is_left_when_writing_raises(tmp_path: Path, kind: type[BaseException]) -> None:
    with pytest.raises(kind), files.atomic_file(tmp_path / "shard") as file:
        file.write(b"half")
        raise kind
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text("old")
    with pytest.raises(ValueError), files.atomic_file(path) as file:
        file.write(b"new")
        raise ValueError
    assert path.read_text() == "old"
    with files.atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_unfinished_file_lies_in_the_folder_beside(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    out.mkdir()
    with files.atomic_file(out / "shard", beside=work) as file:
        file.write(b"spiral")
        assert [path.name for path in work.iterdir()] == ["shard.partial"]
        assert list(out.iterdir()) == []
    assert list(work.iterdir()) == []
    assert (out / "shard").read_bytes() == b"spiral"


def test_what_a_killed_writer_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "shard.partial").write_bytes(b"left over and longer than the new content")
    files.write_bytes(tmp_path / "shard", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("shard", b"new")]


def test_a_full_disk_is_told_with_the_file_and_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    # A device of Linux that answers every write as a full disk does, with no name of a file.
    full = Path("/dev/full")
    with pytest.raises(OSError) as caught, files.atomic_file(path), full.open("wb", buffering=0) as file:
        file.write(b"spiral")
    assert caught.value.errno == errno.ENOSPC
    assert one_line(caught.value) == (
        f"the disk is full while writing {path}: free some space, or choose another --out, and run the same command again"
    )
    assert not path.exists()


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_a_disk_that_is_full_before_the_last_bytes_are_out_leaves_no_file(tmp_path: Path, size: int) -> None:
    """Small writes wait in memory: a full disk may show when they are flushed, and not before."""
    work, path = tmp_path / "work", tmp_path / "shard"
    work.mkdir()
    (work / "shard.partial").symlink_to("/dev/full")
    with pytest.raises(OSError) as caught, files.atomic_file(path, beside=work) as file:
        file.write(bytes(size))
    assert one_line(caught.value).startswith(f"the disk is full while writing {path}: free some space")
    assert list(tmp_path.rglob("shard*")) == []


def test_the_name_of_another_file_that_failed_is_kept(tmp_path: Path) -> None:
    missing = tmp_path / "100008.jpg"
    with pytest.raises(FileNotFoundError) as caught, files.atomic_file(tmp_path / "shard"):
        missing.read_bytes()
    assert one_line(caught.value) == f"{missing}: No such file or directory: check the path and try again"


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        files.write_bytes(tmp_path / "missing" / "shard", b"")


def test_text_is_written_as_utf_8_without_changed_line_ends(tmp_path: Path) -> None:
    files.write_text(tmp_path / "names.csv", "galaxy_id,name\n7,Möwe\r\n")
    assert (tmp_path / "names.csv").read_bytes() == "galaxy_id,name\n7,Möwe\r\n".encode()


def test_a_files_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "shard").write_bytes(content)
    assert files.sha256_file(tmp_path / "shard") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            "the disk is full: free some space, or choose another --out, and run the same command again",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/data/x"),
            "no permission for /data/x: choose a path you may use, or change its permissions",
        ),
        (OSError(errno.EIO, "Input/output error", "/data/x"), "/data/x: Input/output error: check the path and try again"),
        (OSError("no name"), "no name"),
        (ConfigError("one\n  two\tthree"), "one two three"),
        (ValueError(), "ValueError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "line",
)
def test_an_error_is_told_in_one_line_that_says_what_to_do(error: BaseException, line: str) -> None:
    assert one_line(error) == line
