"""Write beside, fsync, rename: the only way a finished file appears."""

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
# Records of a few kilobytes each: a call of the system for every one would cost as much as its checksum.
_BUFFER_BYTES = 1 << 20
# What file systems answer that cannot flush a folder: FUSE, CIFS, some NFS. The open of one may be refused too.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES, errno.EISDIR)
_warned: set[str] = set()

log = logging.getLogger("tfrecords")


def leave_warnings_to_parent() -> None:
    """Log none of `warn_once`'s warnings in this process: its parent writes to the same folders, and logs them."""
    _warned.update(("sync", "lock"))


def warn_once(kind: str, message: str) -> None:
    """Log a warning of this kind the first time it is needed in this process."""
    if kind not in _warned:
        _warned.add(kind)
        log.warning("%s", message)


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?:/|$)")


def local_path(path: str | Path) -> Path:
    """`path`, which must name a file or folder of this machine. Raises ConfigError for an address like gs://bucket/data.

    Path("gs://bucket") has one slash left; what begins so is an address too, unless there is a folder of that name.
    """
    text = str(path)
    if _ADDRESS.match(text) and ("://" in text or not Path(Path(text).parts[0]).is_dir()):
        raise ConfigError(
            f"{text}: is an address, and this program reads and writes files of this machine alone: "
            "copy or mount it (gcsfuse, s3fs, rclone) and give the path here"
        )
    return Path(path)


def sync_folder(folder: Path) -> None:
    """Flush the folder's entries to disk, so that a rename in it survives a power cut.

    Where the file system cannot do that, one warning is logged and the work continues.
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
    """A new name for the unfinished `path`, in the folder `beside` (default: its own), that no other attempt uses."""
    return (beside or path.parent) / f".{path.name[:40]}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}"


def _create(path: Path) -> BinaryIO:
    """A new file for writing. An existing one, or a link, is an error and never followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return open(os.open(path, flags, 0o666), "wb", buffering=_BUFFER_BYTES)  # noqa: PTH123 (a descriptor)


@contextlib.contextmanager
def atomic_file(path: Path, beside: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file for writing that becomes `path` when the block ends, and leaves nothing when it raises.

    `beside` is the folder of the unfinished file (default: that of `path`); it must be on the same file system,
    or the rename would not be atomic.
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
        if isinstance(error, OSError) and error.filename is None and error.errno in FULL_DISK:
            error.filename = str(path)  # a failed write() does not know its file
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, content: bytes, beside: Path | None = None) -> None:
    """Put `content` under `path` in one atomic step; `beside` as in `atomic_file`."""
    with atomic_file(path, beside) as file:
        file.write(content)


def write_text(path: Path, text: str, beside: Path | None = None) -> None:
    """Put `text` as UTF-8 under `path` in one atomic step; `beside` as in `atomic_file`."""
    write_bytes(path, text.encode("utf-8"), beside)


def real_folder(folder: Path) -> None:
    """Make `folder`, whose parent exists. Raises ConfigError where it is a link or a file: what lies behind is not ours."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    mode = folder.lstat().st_mode
    if stat.S_ISLNK(mode):
        raise ConfigError(f"{folder}: is a link to another folder: remove the link, or choose another one")
    if not stat.S_ISDIR(mode):
        raise ConfigError(f"{folder}: is a file where a folder belongs: move it elsewhere, or choose another folder")


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
