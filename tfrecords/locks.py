"""A work folder, used by one process at a time or by several that share it: its lock and its removal.

The lock is `flock` on a file `lock` in the folder, and ends with the process, even if that is killed. On file systems without
`flock` (Lustre, some NFS and FUSE mounts) one warning is logged, and work continues without a lock.
"""

import contextlib
import errno
import fcntl
import itertools
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from tfrecords.errors import ConfigError
from tfrecords.files import PARTIAL_SUFFIX, real_folder, warn_once, write_bytes

_LOCK = "lock"
# The content of every lock file, so that somebody else's folder with a file of that name is never mistaken for ours.
_OURS = b"galaxy-zoo-vgg16\n"
_ATTEMPTS = 1000
_MOMENT = 1.0
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
log = logging.getLogger("tfrecords")
_DOOMED = re.compile(r"-[0-9a-f]{16}")
_PARTIAL = re.compile(rf"\..*{re.escape(PARTIAL_SUFFIX)}")


def is_ours(work: Path) -> bool:
    """Whether the folder `work` is empty, or was made by `locked`. Raises FileNotFoundError if it is missing."""
    if not stat.S_ISDIR(work.lstat().st_mode):
        return False
    entries = os.listdir(work)
    if _LOCK not in entries:
        return not entries
    lock = work / _LOCK
    status = lock.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > len(_OURS):
        return False
    content = lock.read_bytes()
    return content == _OURS or (not content and entries == [_LOCK])  # its process was killed before writing to it


def _is_here(descriptor: int, work: Path) -> bool:
    """Whether an open lock is the one now in the folder, and not that of an earlier folder that was removed."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(work / _LOCK))
    except FileNotFoundError:
        return False


def make_lock(work: Path) -> None:
    """Write a lock file into a folder that is known to be ours."""
    write_bytes(work / _LOCK, _OURS)


def _open(work: Path, known: re.Pattern[str]) -> int:
    real_folder(work)
    if not is_ours(work):
        raise ConfigError(f"{work}: was not created by this program: move it elsewhere, or choose another --out")
    for name in os.listdir(work):
        if name != _LOCK and not known.fullmatch(name):
            raise ConfigError(f"{work / name}: was not written by this program: move it elsewhere, or choose another --out")
    descriptor = os.open(work / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        if not os.fstat(descriptor).st_size:
            os.write(descriptor, _OURS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _flock(descriptor: int, kind: int, folder: Path) -> bool:
    """Take a lock of this kind; return whether there are locks, and warn if not.

    Raises BlockingIOError if another process holds it.
    """
    try:
        fcntl.flock(descriptor, kind)
        return True
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warn_once(
            "lock",
            f"{folder}: this file system has no locks ({error.strerror}): "
            "make sure that only one command at a time writes here",
        )
        return False


def _acquire(work: Path, busy: str, known: re.Pattern[str], shared: bool) -> int:
    """Lock a work folder, created if missing, and return the open lock.

    Another process may finish and remove the folder between any two steps; then the steps are repeated.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    until = time.monotonic() + _MOMENT
    for attempt in itertools.count(1):
        try:
            work.parent.mkdir(parents=True, exist_ok=True)
            descriptor = _open(work, known)
        except FileNotFoundError:
            if attempt == _ATTEMPTS:  # no other process is the cause: the folder cannot be created
                raise
            continue
        try:
            _flock(descriptor, kind | fcntl.LOCK_NB, work.parent)
        except BlockingIOError as error:
            os.close(descriptor)
            # One that shares it may be about to remove the folder, and holds it alone for a moment.
            if shared and time.monotonic() < until:
                time.sleep(0.05)
                continue
            raise ConfigError(f"{work.parent}: {busy}") from error
        except OSError:
            os.close(descriptor)
            raise
        if _is_here(descriptor, work):
            return descriptor
        os.close(descriptor)
    raise AssertionError("itertools.count does not end")


def remove(work: Path, known: re.Pattern[str]) -> None:
    """Remove a work folder. It is renamed first, so that no other process can create its lock in the remains.

    known: names of our files; other files are kept. The lock is removed last: if this process is killed before, the remains
    are still recognised as ours.
    """
    doomed = work.with_name(f"{work.name}-{secrets.token_hex(8)}")
    work.rename(doomed)
    _empty(doomed, known)


def _empty(doomed: Path, known: re.Pattern[str]) -> None:
    """Remove a renamed work folder. Another process may be removing it too, as a leftover."""
    clear(doomed, known)
    with contextlib.suppress(FileNotFoundError):
        if os.listdir(doomed) == [_LOCK]:
            (doomed / _LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        doomed.rmdir()


def clear(work: Path, known: re.Pattern[str]) -> None:
    """Remove everything with a known name from a work folder, but never the lock, nor the target of a link."""
    with contextlib.suppress(FileNotFoundError):
        for path in work.iterdir():
            if path.name != _LOCK and known.fullmatch(path.name):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def leftovers(work: Path) -> Iterator[Path]:
    """Remains of this work folder, from processes that were killed in `remove`."""
    for path in work.parent.glob(f"{work.name}-*"):
        with contextlib.suppress(FileNotFoundError):
            if _DOOMED.fullmatch(path.name.removeprefix(work.name)) and is_ours(path):
                yield path


def _is_last(descriptor: int) -> bool:
    """Whether no other process shares a lock that this one shares."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def locked(work: Path, busy: str, known: re.Pattern[str], keep: tuple[str, ...] = (), shared: bool = False) -> Iterator[None]:
    """Lock the work folder `work` while the block runs. Afterwards it is removed, unless it contains one of the files `keep`.

    known: names of our files. shared: several processes may hold the lock that share it, but none beside one that does not; the
    last of them removes the folder. Raises ConfigError, with the advice `busy`, if another process holds the lock, and if the
    folder or a file in it is not ours.
    """
    new = [path for path in (work.parent, *work.parent.parents) if not path.exists()]
    descriptor = _acquire(work, busy, known, shared)
    try:
        for leftover in leftovers(work):
            _empty(leftover, known)
        if not shared:
            clear(work, _PARTIAL)  # left by a process that was killed
        yield
    finally:
        # A command that was refused leaves no trace. A finished build has removed its folder, which may be another's by now.
        try:
            unused = _is_here(descriptor, work) and not any((work / name).exists() for name in keep)
            if unused and (not shared or _is_last(descriptor)):
                remove(work, known)
                with contextlib.suppress(OSError):
                    for path in new:
                        path.rmdir()
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def one_at_a_time(path: Path, waiting: str) -> Iterator[bool]:
    """Lock the file at `path`, created if missing, while the block runs; wait while another process holds it.

    Yields whether it is locked: there are file systems without locks. waiting: logged if this has to wait. The folder of the
    file is one that is `locked`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        try:
            is_locked = _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, path.parent)
        except BlockingIOError:
            log.info("%s", waiting)
            is_locked = _flock(descriptor, fcntl.LOCK_EX, path.parent)
        yield is_locked
    finally:
        os.close(descriptor)
