"""A folder that one process works in: its lock, which ends with the process however that ends, and its removal.

The lock is `flock` on a file `lock` in the folder. File systems without `flock` (Lustre, some NFS and FUSE mounts) get one
warning, and the work continues without it.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from tfrecords.errors import ConfigError
from tfrecords.files import real_folder, warn_once

_LOCK = "lock"
# Stands in every lock file, so that a folder of somebody else with a file of that name is never taken for ours.
_OURS = b"galaxy-zoo-vgg16\n"
_ATTEMPTS = 1000
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_DOOMED = re.compile(r"-[0-9a-f]{16}")


def is_ours(work: Path) -> bool:
    """Whether the folder `work` is one that `locked` made, or an empty one. Raises FileNotFoundError where there is none."""
    if not stat.S_ISDIR(work.lstat().st_mode):
        return False
    entries = os.listdir(work)
    if _LOCK not in entries:
        return not entries
    lock = work / _LOCK
    status = lock.lstat()
    # Empty: killed between the two steps that make it.
    return stat.S_ISREG(status.st_mode) and status.st_size <= len(_OURS) and lock.read_bytes() in (b"", _OURS)


def _is_here(descriptor: int, work: Path) -> bool:
    """Whether an open lock is that of the folder, and not of an earlier one that was removed."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(work / _LOCK))
    except FileNotFoundError:
        return False


def _open(work: Path, keep: tuple[str, ...]) -> int:
    real_folder(work)
    lost_its_lock = not os.path.lexists(work / _LOCK) and any((work / name).is_file() for name in keep)
    if not is_ours(work) and not lost_its_lock:
        raise ConfigError(f"{work}: is not a folder of this program: move it elsewhere, or choose another --out")
    descriptor = os.open(work / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    if not os.fstat(descriptor).st_size:
        os.write(descriptor, _OURS)
    return descriptor


def _acquire(work: Path, busy: str, keep: tuple[str, ...]) -> int:
    """The open lock of a work folder, which is made where it is missing.

    Another process may finish and remove its work folder between any two steps here; then the steps are repeated.
    """
    for attempt in itertools.count(1):
        try:
            work.parent.mkdir(parents=True, exist_ok=True)
            descriptor = _open(work, keep)
        except FileNotFoundError:
            if attempt == _ATTEMPTS:  # no other process: a folder cannot be made there
                raise
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise ConfigError(f"{work.parent}: {busy}") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            warn_once(
                "lock",
                f"{work.parent}: this file system has no locks ({error.strerror}): "
                "make sure that only one command at a time writes here",
            )
        if _is_here(descriptor, work):
            return descriptor
        os.close(descriptor)
    raise AssertionError("itertools.count does not end")


def remove(work: Path) -> None:
    """Remove a work folder at once for all other processes, which might else make their lock in what is left of it.

    Its lock goes last: should this process be killed on the way, the rest is still recognised as ours.
    """
    doomed = work.with_name(f"{work.name}-{secrets.token_hex(8)}")
    work.rename(doomed)
    _empty(doomed)


def _empty(doomed: Path) -> None:
    """Another process may be removing it too, as a leftover."""
    with contextlib.suppress(FileNotFoundError):
        for path in doomed.iterdir():
            if path.name != _LOCK:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
    (doomed / _LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        doomed.rmdir()


def leftovers(work: Path) -> Iterator[Path]:
    """What `remove` left of this work folder when it was killed."""
    for path in work.parent.glob(f"{work.name}-*"):
        with contextlib.suppress(FileNotFoundError):
            if _DOOMED.fullmatch(path.name.removeprefix(work.name)) and is_ours(path):
                yield path


@contextlib.contextmanager
def locked(work: Path, busy: str, keep: tuple[str, ...]) -> Iterator[None]:
    """Hold the work folder `work` alone while the block runs. It stays behind where it then holds one of the files `keep`.

    Raises ConfigError, with `busy` as what to do, where another process holds it, and where a folder of somebody else lies
    there.
    """
    new = [path for path in (work.parent, *work.parent.parents) if not path.exists()]
    descriptor = _acquire(work, busy, keep)
    try:
        for leftover in leftovers(work):
            _empty(leftover)
        yield
    finally:
        # Refused before it began: leave no trace. A finished job's folder is gone, or another's by now.
        if _is_here(descriptor, work) and not any((work / name).exists() for name in keep):
            remove(work)
            with contextlib.suppress(OSError):
                for path in new:
                    path.rmdir()
        os.close(descriptor)
