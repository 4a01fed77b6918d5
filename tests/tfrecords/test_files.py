"""A finished file appears at once and complete, or not at all."""

import errno
import hashlib
import os
import resource
import secrets
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tfrecords import files
from tfrecords.errors import ConfigError, one_line

AGAIN = "and run the same command again"
NEEDS_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")


class Killed(BaseException):
    """Like KeyboardInterrupt: not an Exception."""


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
        (unfinished,) = work.iterdir()
        assert unfinished.name.startswith(".shard.") and unfinished.name.endswith(".partial")
        assert list(out.iterdir()) == []
    assert list(work.iterdir()) == []
    assert (out / "shard").read_bytes() == b"spiral"


def test_no_two_attempts_at_a_file_share_an_unfinished_one(tmp_path: Path) -> None:
    """Even if they overlap: the last to finish wins, and the contents are not mixed."""
    path = tmp_path / "shard"
    with files.atomic_file(path) as first, files.atomic_file(path) as second:
        first.write(b"first")
        second.write(b"second, and longer")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_place_of_an_unfinished_file_is_never_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither under the names of earlier versions, nor under a correctly guessed new name."""
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("years of work")
    (tmp_path / "shard.partial").symlink_to(thesis)
    files.write_bytes(tmp_path / "shard", b"new")
    monkeypatch.setattr(secrets, "token_hex", lambda length: "0" * 2 * length)
    files.partial_path(tmp_path / "shard").symlink_to(thesis)
    with pytest.raises(FileExistsError):
        files.write_bytes(tmp_path / "shard", b"newer")
    assert thesis.read_text() == "years of work"
    assert (tmp_path / "shard").read_bytes() == b"new"


def test_a_link_in_place_of_the_finished_file_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("years of work")
    (tmp_path / "shard").symlink_to(thesis)
    files.write_bytes(tmp_path / "shard", b"new")
    assert thesis.read_text() == "years of work" and (tmp_path / "shard").read_bytes() == b"new"
    assert not (tmp_path / "shard").is_symlink()


def test_a_folder_that_is_a_link_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").touch()
    for name, what in (("link", "is a link to another folder: remove the link"), ("file", "is a file, not a folder")):
        with pytest.raises(ConfigError, match=f"{name}: {what}"):
            files.real_folder(tmp_path / name)
    files.real_folder(tmp_path / "new")
    files.real_folder(tmp_path / "new")
    assert (tmp_path / "new").is_dir()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_flush_a_folder_costs_one_warning_and_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    flush = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(files, "_warned", set())
    for name in ("first", "second"):
        files.write_bytes(tmp_path / name, b"spiral")
        assert (tmp_path / name).read_bytes() == b"spiral"
    (warning,) = caplog.messages
    assert warning.startswith(f"{tmp_path}: this file system cannot flush a folder to disk ({os.strerror(number)})")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_folder_that_fails_to_flush_for_another_reason_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError):
        files.sync_folder(tmp_path)


@pytest.mark.parametrize("address", ["gs://bucket/ds", "s3://bucket/ds", "https://zenodo.org/ds.zip", "hdfs://host:9/ds"])
def test_an_address_is_no_path(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (address, Path(address)):
        with pytest.raises(ConfigError, match=r"is an address, .* copy or mount it"):
            files.local_path(given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["data/galaxy_zoo", "a:b/c", "C:/data", "./gs:/x", "/gs://x", "12:30/x", "x"])
def test_a_path_with_a_colon_is_a_path(path: str) -> None:
    assert files.local_path(path) == Path(path) or path == "./gs:/x"


def test_a_folder_named_like_the_beginning_of_an_address_can_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gs:").mkdir()
    assert files.local_path("./gs:/bucket") == files.local_path(Path("gs:/bucket")) == Path("gs:/bucket")


@NEEDS_FULL
def test_a_full_disk_is_told_with_the_file_and_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    # A Linux device on which every write fails as on a full disk; the error names no file.
    full = Path("/dev/full")
    with pytest.raises(OSError) as caught, files.atomic_file(path), full.open("wb", buffering=0) as file:
        file.write(b"spiral")
    assert caught.value.errno == errno.ENOSPC
    assert one_line(caught.value) == (
        f"the disk is full while writing {path}: free some space, or choose another --out, and run the same command again"
    )
    assert not path.exists()


@NEEDS_FULL
@pytest.mark.parametrize("size", [10, 5_000_000])
def test_a_disk_that_is_full_before_the_last_bytes_are_out_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Small writes are buffered: a full disk may not be noticed until they are flushed."""
    path = tmp_path / "shard"
    # In place of the unfinished file, open a Linux device on which every write fails as on a full disk.
    create, opened = os.open, os.open
    monkeypatch.setattr(os, "open", lambda name, flags, mode=0o777: create("/dev/full", os.O_WRONLY) if flags & os.O_CREAT
                        else opened(name, flags, mode))  # fmt: skip
    with pytest.raises(OSError) as caught, files.atomic_file(path) as file:
        file.write(bytes(size))
    assert one_line(caught.value).startswith(f"the disk is full while writing {path}: free some space")
    assert list(tmp_path.rglob("*")) == []


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
            "no permission for /data/x: choose another path, or change its permissions",
        ),
        (OSError(errno.EIO, "Input/output error", "/data/x"), "/data/x: Input/output error: check the path and try again"),
        (OSError("no name"), "no name"),
        (ConfigError("one\n  two\tthree"), "one two three"),
        (ConfigError("NGC\x1b[31m 4321\u202e.jpg: damaged"), "NGC\\x1b[31m 4321\\u202e.jpg: damaged"),
        (
            MemoryError("kaggle/1.png: 9000 x 9000 pixels"),
            "not enough memory (kaggle/1.png: 9000 x 9000 pixels): close other programs, use fewer --workers or a smaller "
            "--batch_size, or a machine with more memory, and run the same command again",
        ),
        (ValueError(), "ValueError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "line",
)
def test_an_error_is_told_in_one_line_that_says_what_to_do(error: BaseException, line: str) -> None:
    assert one_line(error) == line


@pytest.mark.parametrize(
    ("number", "limit", "line"),
    [
        (
            errno.EFBIG,
            100,
            f"x.bin: too large a file (the limit is 100 bytes): raise it (ulimit -f) {AGAIN}",
        ),
        (
            errno.EFBIG,
            resource.RLIM_INFINITY,
            f"x.bin: too large a file (the file system allows no more): choose an --out elsewhere {AGAIN}",
        ),
        (errno.EMFILE, 64, f"x.bin: too many open files (the limit is 64): raise it (ulimit -n) {AGAIN}"),
        (
            errno.ENFILE,
            64,
            f"x.bin: this machine has too many open files: close other programs {AGAIN}",
        ),
    ],
)
def test_a_limit_of_the_system_is_named_with_the_file_and_the_way_out(
    number: int, limit: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, limit))
    assert one_line(OSError(number, "", "x.bin")) == line
    assert one_line(OSError(number, "")) == line.removeprefix("x.bin: ")


def test_a_file_that_outgrows_the_limit_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from tfrecords import files, errors\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: files.write_bytes(Path(sys.argv[1]), bytes(5000))\n"
        "except OSError as error: print(errors.one_line(error))"
    )
    path = tmp_path / "large.bin"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: too large a file (the limit is 1,000 bytes): raise it (ulimit -f)")
    assert list(tmp_path.iterdir()) == []
