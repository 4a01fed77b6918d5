"""The secret by which processes on several machines recognise each other: given, or shared through the run folder.

OUT/.galaxy-zoo/.meeting.partial    64 random hex digits, mode 0600; there only while the processes of the run meet
"""

import contextlib
import hashlib
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tfrecords import locks
from tfrecords.errors import ConfigError, SettingError
from tfrecords.files import partial_path, real_folder
from tfrecords.outputs import PRIVATE, Output

VARIABLE = "GALAXY_ZOO_HOSTS_SECRET"
_SHORTEST, _LONGEST = 16, 4096
_FILE = ".meeting.partial"  # as an unfinished file, so that the next command removes what a killed one left
_DIGITS = re.compile(rb"[0-9a-f]{64}")

log = logging.getLogger("trainer")


def _key(secret: bytes) -> bytes:
    return hashlib.sha256(b"galaxy-zoo-vgg16 --hosts\0" + secret).digest()


def given_key(path: Path | None) -> bytes | None:
    """The key for the secret in a file, or else in the environment; None if there is neither.

    Raises SettingError for a secret that is too short to be one, or too long, and OSError for a file that cannot be read.
    """
    if path is not None:
        with path.open("rb") as file:
            secret, where = file.read(_LONGEST + 1).strip(), f"--hosts_secret {path}"
            if os.fstat(file.fileno()).st_mode & 0o077:
                log.warning("%s: other users may read or write this file: chmod 600 it", where)
    elif os.environ.get(VARIABLE):
        secret, where = os.environb[VARIABLE.encode()].strip(), VARIABLE
    else:
        return None
    if not _SHORTEST <= len(secret) <= _LONGEST:
        raise SettingError(
            f"{where}: has {min(len(secret), _LONGEST + 1):,} characters: give {_SHORTEST} to {_LONGEST:,} random ones, as "
            "`openssl rand -hex 32` prints"
        )
    return _key(secret)


def _read(path: Path) -> bytes:
    """The key for the secret in the run folder. Raises FileNotFoundError until it is there."""
    with contextlib.suppress(OSError):
        os.listdir(path.parent)  # NFS remembers for seconds that a file is missing, unless its folder is read
    try:
        with _open(path) as file:
            secret = file.read(65)
    except PermissionError as error:
        raise ConfigError(
            f"{path}: belongs to another user: start all processes of the run as the same one, or give all --hosts_secret"
        ) from error
    if not _DIGITS.fullmatch(secret):
        raise ConfigError(f"{path}: is not as process 0 writes it: remove it, and start all processes again")
    return _key(secret)


def _open(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")  # noqa: PTH123 (a descriptor)


def _is_private(file: BinaryIO) -> bool:
    """Whether an open file is this user's, and nobody else may read or write it."""
    status = os.fstat(file.fileno())
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _is_there(path: Path) -> bool:
    """Whether a process that was killed while it met the others left its secret."""
    try:
        with _open(path) as file:
            return _is_private(file) and _DIGITS.fullmatch(file.read(65)) is not None
    except OSError:
        return False


def _write(path: Path) -> None:
    """Write a new secret, readable by this user alone; one that a killed process left stays, as others may have read it."""
    if _is_there(path):
        return
    if not path.parent.exists():
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        real_folder(path.parent)
        locks.make_lock(path.parent)
    real_folder(path.parent)
    partial = partial_path(path)
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor)
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(descriptor)
            if not _is_private(file):
                log.warning("%s: this file system lets other users read the secret of the run: give --hosts_secret", path)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def run_key(out: Path, is_first: bool) -> Iterator[Callable[[], bytes]]:
    """A function that reads the key in the run folder `out`. For the block, the first process puts it there.

    The function raises FileNotFoundError until it is there. Whoever may read the file belongs to the run: its user, on the
    machines that share the storage. After the block no trace is left, not even of a folder that was missing.
    """
    path = out / PRIVATE / _FILE
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file: choose another --out")
    if not is_first:
        yield lambda: _read(path)
        return
    new = [folder for folder in path.absolute().parents if not folder.exists()]
    try:
        _write(path)
        yield lambda: _read(path)
    finally:
        path.unlink(missing_ok=True)
        if new:
            with contextlib.suppress(ConfigError, OSError), Output(out, "run").locked("", beside_others=True):
                pass  # removes the private folder, unless it is in use by now
            for folder in new:
                with contextlib.suppress(OSError):
                    folder.rmdir()
