"""Write beside, fsync, rename: the only way a finished file appears."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tfrecords.errors import FULL_DISK

PARTIAL_SUFFIX = ".partial"
# Records of a few kilobytes each: a call of the system for every one would cost as much as its checksum.
_BUFFER_BYTES = 1 << 20


def sync_folder(folder: Path) -> None:
    """Flush the folder's entries to disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_file(path: Path, beside: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file for writing that becomes `path` when the block ends, and leaves nothing when it raises.

    `beside` is the folder of the unfinished file (default: that of `path`); it must be on the same file system,
    or the rename would not be atomic.
    """
    partial = (beside or path.parent) / (path.name + PARTIAL_SUFFIX)
    try:
        with partial.open("wb", buffering=_BUFFER_BYTES) as file:
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


def write_bytes(path: Path, content: bytes) -> None:
    """Put `content` under `path` in one atomic step."""
    with atomic_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Put `text` as UTF-8 under `path` in one atomic step."""
    write_bytes(path, text.encode("utf-8"))


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
