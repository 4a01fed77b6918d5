"""Atomic files: every finished file is first written under another name, then synced and renamed."""

import contextlib
import errno
import hashlib
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tfrecords.errors import FULL_DISK, ConfigError

PARTIAL_SUFFIX = ".partial"
# Records have a few kilobytes each: a system call for every record would cost as much as its checksum.
_BUFFER_BYTES = 1 << 20
# Errors of file systems that cannot flush a folder: FUSE, CIFS, some NFS. Opening a folder may fail too.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES, errno.EISDIR)
_warned: set[str] = set()

log = logging.getLogger("tfrecords")


def leave_warnings_to_parent() -> None:
    """Silence `warn_once` in this process: its parent writes to the same folders, and logs the warnings."""
    _warned.update(("sync", "lock"))


def warn_once(kind: str, message: str) -> None:
    """Log `message` as a warning, unless this process has already logged one of this kind."""
    if kind not in _warned:
        _warned.add(kind)
        log.warning("%s", message)


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?:/|$)")


def local_path(path: str | Path) -> Path:
    """`path` as a Path, which must be a local one. Raises ConfigError for an address such as gs://bucket/data.

    Path("gs://bucket") keeps only one slash: gs:/bucket counts as an address too, unless there is a folder named `gs:`.
    """
    text = str(path)
    if _ADDRESS.match(text) and ("://" in text or not Path(Path(text).parts[0]).is_dir()):
        raise ConfigError(
            f"{text}: is an address, but this program reads and writes only local files: "
            "copy or mount it (gcsfuse, s3fs, rclone) and give the local path"
        )
    return Path(path)


_STORE = re.compile(r"(s3|gs|az)://")


def local_or_store(path: str | Path) -> Path | str:
    """`path` as a Path, or as text if it is the URL of a folder in an object store: s3://, gs:// or az://.

    Raises ConfigError for any other address, and for a URL that is more than a bucket and a folder. Its text is shown only if
    it can hold no credentials.
    """
    if isinstance(path, Path) or not (scheme := _STORE.match(path)):
        return local_path(path)
    bucket, *folders = path[scheme.end() :].rstrip("/").split("/")
    if re.search(r"[@?#%\\\x00-\x1f]", path) or not re.fullmatch(r"[\w.-]+", bucket, re.ASCII):
        raise ConfigError(
            f"{scheme[0]}...: is not {scheme[0]}BUCKET/FOLDER, without the characters @ ? # % \\: credentials are read from "
            "the environment, not from an address"
        )
    if {"", ".", ".."} & {*folders}:
        raise ConfigError(f"{path}: has a folder without a name: write {scheme[0]}BUCKET/FOLDER")
    return path.rstrip("/")


# What desktops, notebooks and file systems leave in any folder, in lower case.
_DESKTOPS = {".ds_store", ".localized", ".spotlight-v100", ".trashes", ".fseventsd", "__macosx", "thumbs.db", "desktop.ini",
             ".directory", "lost+found", "@eadir", ".snapshot", ".ipynb_checkpoints"}  # fmt: skip


def files_of_users(folder: Path) -> set[str]:
    """The names in a folder, without those that desktops, notebooks and file systems leave there."""
    names = os.listdir(folder)
    return {name for name in names if name.lower() not in _DESKTOPS and not name.startswith(("._", ".nfs", ".fuse_hidden"))}


def sync_folder(folder: Path) -> None:
    """Flush the folder's entries to disk, so that a rename in it survives a power cut.

    If the file system cannot do that, one warning is logged and work continues.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
        warn_once(
            "sync",
            f"{folder}: this file system cannot flush a folder to disk ({error.strerror}): "
            "after a power cut the newest files may be missing",
        )


def partial_path(path: Path, beside: Path | None = None) -> Path:
    """A new, unique name for the unfinished `path`, in the folder `beside` (default: the folder of `path`)."""
    return (beside or path.parent) / f".{path.name[:40]}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}"


def _create(path: Path) -> BinaryIO:
    """Create a file for writing. Raises FileExistsError if a file or a link exists; links are never followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return open(os.open(path, flags, 0o666), "wb", buffering=_BUFFER_BYTES)  # noqa: PTH123 (a descriptor)


@contextlib.contextmanager
def atomic_file(path: Path, beside: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file for writing that becomes `path` when the block ends; if the block raises, nothing is left.

    `beside` is the folder of the unfinished file (default: that of `path`). It must be on the same file system
    as `path`, or the rename would not be atomic.
    """
    partial = partial_path(path, beside)
    try:
        with _create(partial) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None and error.errno in (*FULL_DISK, errno.EFBIG):
            error.filename = str(path)  # the error of a failed write() names no file
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, content: bytes, beside: Path | None = None) -> None:
    """Write `content` to `path` atomically; `beside` as in `atomic_file`."""
    with atomic_file(path, beside) as file:
        file.write(content)


def write_text(path: Path, text: str, beside: Path | None = None) -> None:
    """Write `text` to `path` as UTF-8, atomically; `beside` as in `atomic_file`."""
    write_bytes(path, text.encode("utf-8"), beside)


def exact_text(path: Path) -> str:
    """The text of a UTF-8 file with its line ends as they are, so that each changed byte shows. Raises UnicodeDecodeError."""
    return path.read_bytes().decode("utf-8")


def real_folder(folder: Path) -> None:
    """Create `folder` if missing; its parent must exist. Raises ConfigError for a file or a link, whose target is not ours."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    mode = folder.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise ConfigError(f"{folder}: is a link to another folder: remove the link, or choose another folder")
    if not stat.S_ISDIR(mode):
        raise ConfigError(f"{folder}: is a file, not a folder: move it elsewhere, or choose another folder")


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
