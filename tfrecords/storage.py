"""Datasets in an object store, read through a cache on this machine.

    CACHE/FINGERPRINT/              a folder for each dataset, with its files under their own names
    CACHE/FINGERPRINT/.galaxy-zoo/  unfinished files, and locks between processes that fetch the same shard

A shard is fetched when a command is about to read it: streamed to an unfinished file, compared with the SHA-256 in the manifest
and renamed. Its time of modification then stands for its content: the seconds are those of the clock, the rest a checksum of
them and the SHA-256. A copy without that time, because somebody changed it or the file system rounds times, is hashed again.
"""

import hashlib
import logging
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tfrecords.dataset import DATASET_INFO, MANIFEST, SHARD_PATTERN, TREE, Dataset, Shard, open_dataset, read_manifest
from tfrecords.errors import BUILD_AGAIN, FULL_DISK, ConfigError, DatasetError
from tfrecords.files import PARTIAL_SUFFIX, atomic_file, local_or_store, local_path, real_folder, sha256_file, write_bytes
from tfrecords.locks import one_at_a_time
from tfrecords.objects import MissingObjectError, Store
from tfrecords.outputs import PRIVATE
from tfrecords.progress import progress_bar

CACHE_DIR = "~/.cache/galaxy-zoo-vgg16/datasets"
CACHE_HELP = "folder for copies of the shards that are read from an object store"
PLACE_HELP = "or its URL in an object store, s3://, gs:// or az://"
# Connections at a time: one rarely fills the network.
_CONNECTIONS = 8
# Fetching fewer bytes ends before a progress bar could be read.
_BAR_BYTES = 50_000_000
# An unfinished file that has not grown for so long is no longer written: a read that stalls fails after a minute.
_ABANDONED_SECONDS = 3600
_SECOND = 1_000_000_000
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
log = logging.getLogger("tfrecords")


class _Stopped(Exception):
    """Another shard could not be fetched, or the user stopped the command."""


def open_anywhere(place: str | Path, cache_dir: str | Path = CACHE_DIR) -> Dataset:
    """Open a finished dataset in a folder or in an object store.

    Of a dataset in a store, only its small files are fetched; shards follow when a command is about to read them.

    Parameters
    ----------
    place : str or Path
        Dataset folder, or its URL: ``s3://``, ``gs://`` or ``az://``. Credentials are read from the environment.
    cache_dir : str or Path
        Folder for copies of what is read from an object store. Several processes may share it.

    Returns
    -------
    Dataset
        Its settings, shards and fingerprint.

    Raises
    ------
    DatasetError
        If there is no dataset, it is unfinished, or a file differs from its manifest.
    ConfigError
        If `place` is an address of another kind, obstore is not installed, or the cache has no space.
    GalaxyZooError
        If the store cannot be reached or refuses the request.

    Examples
    --------
    >>> from tfrecords import open_anywhere
    >>> open_anywhere("data/demo").galaxies("train")
    51
    """
    where = local_or_store(place)
    if isinstance(where, Path):
        return open_dataset(where)
    cache = cache_folder(cache_dir)
    with _full_disk_explained():
        return _open(Store(where), cache)


def cache_folder(cache_dir: str | Path) -> Path:
    """The folder of a --cache_dir. Raises ConfigError if it is in the home folder of a user who has none."""
    try:
        return local_path(cache_dir).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"--cache_dir {cache_dir}: this user has no home folder: give another --cache_dir") from error


@contextmanager
def _full_disk_explained() -> Any:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise ConfigError(
            f"{error.filename}: the disk is full: free space, or choose another --cache_dir, and run the same command again"
        ) from error


def _open(store: Store, cache: Path) -> Dataset:
    """The dataset of a store, with its small files in the cache."""
    contents = {}
    for name in (MANIFEST, DATASET_INFO, TREE):
        try:
            contents[name] = store.read(name)
        except MissingObjectError as error:
            if name != TREE:  # datasets of earlier versions have none
                raise DatasetError(
                    f"{store.url}: not a finished dataset ({name} is missing): check the URL, or make one with "
                    f"`preprocess --src IMAGES --out {store.url}`"
                ) from error
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".manifest-", dir=cache) as temporary:
        scratch = Path(temporary)
        for name, content in contents.items():
            write_bytes(scratch / name, content)
        try:
            dataset = read_manifest(scratch)
        except DatasetError as error:
            raise DatasetError(str(error).replace(str(scratch), store.url)) from error
        _refuse_odd_names(dataset, store)
        folder = cache / dataset.fingerprint
        real_folder(folder)
        real_folder(folder / PRIVATE)
        copies = _Copies(store, folder)
        for each, digest in dataset.files.items():
            copies.copy(each, digest)
        copies.copy(MANIFEST, hashlib.sha256(contents[MANIFEST]).hexdigest())
    return replace(dataset, folder=folder, url=store.url, fetch=copies.fetch)


def _refuse_odd_names(dataset: Dataset, store: Store) -> None:
    """Raise DatasetError if a file would be written outside the cache."""
    names = [*dataset.files, *(shard.name for shard in dataset.shards)]
    for name in names:
        if not _PLAIN_NAME.fullmatch(name):
            raise DatasetError(f"{store.where(MANIFEST)}: lists a file {name!r}, which preprocess would not: {BUILD_AGAIN}")
    if not re.fullmatch("[0-9a-f]{64}", dataset.fingerprint) or not all(
        Path(shard.name).match(SHARD_PATTERN) for shard in dataset.shards
    ):
        raise DatasetError(f"{store.where(MANIFEST)}: lists shards that are not from preprocess: {BUILD_AGAIN}")


def _stamp_of(digest: str, seconds: int) -> int:
    """The time of a copy with this SHA-256 that was fetched in this second, ns since 1970: whole microseconds, never 0."""
    checksum = int.from_bytes(hashlib.sha256(f"{digest} {seconds}".encode()).digest()[:8], "big")
    return seconds * _SECOND + (1 + checksum % 999_999) * 1000


def _set_stamp(path: Path, digest: str) -> None:
    now = _stamp_of(digest, int(time.time()))
    os.utime(path, ns=(now, now))


@dataclass(frozen=True)
class _Copies:
    """The copies of a dataset's files in its folder of the cache."""

    store: Store
    folder: Path

    @property
    def private(self) -> Path:
        return self.folder / PRIVATE

    def copy(self, name: str, digest: str) -> None:
        """Fetch a small file, unless its copy is intact."""
        path = self.folder / name
        if path.is_file() and sha256_file(path) == digest:
            return
        if path.exists():
            self._warn(path)
        try:
            content = self.store.read(name)
        except MissingObjectError as error:
            raise DatasetError(f"{self.store.where(name)}: is missing: {BUILD_AGAIN}") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise DatasetError(f"{self.store.where(name)}: has changed since it was written: {BUILD_AGAIN}")
        write_bytes(path, content, self.private)

    def _warn(self, path: Path) -> None:
        log.warning("%s: has changed since it was fetched: it is fetched again from %s", path, self.store.where(path.name))

    def _is_trusted(self, shard: Shard) -> bool:
        """Whether the copy of a shard has the size and the time of an unchanged one."""
        try:
            status = (self.folder / shard.name).lstat()
        except FileNotFoundError:
            return False
        expected = (shard.bytes, _stamp_of(shard.sha256, status.st_mtime_ns // _SECOND))
        return stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == expected

    def _has(self, shard: Shard) -> bool:
        """Whether the copy of a shard is intact; it is hashed unless its time shows that it is."""
        if self._is_trusted(shard):
            return True
        path = self.folder / shard.name
        if path.is_symlink() or not path.is_file() or sha256_file(path) != shard.sha256:
            return False
        _set_stamp(path, shard.sha256)
        return True

    def fetch(self, shards: Sequence[Shard]) -> None:
        """Bring shards into the folder, unless intact copies are there. Raises DatasetError if one differs from its hash."""
        if all(self._is_trusted(shard) for shard in shards):
            return
        stop = threading.Event()
        with ThreadPoolExecutor(_CONNECTIONS) as pool, _full_disk_explained():
            try:
                missing = [shard for shard, there in zip(shards, pool.map(self._has, shards), strict=True) if not there]
                for shard in missing:
                    if os.path.lexists(self.folder / shard.name):
                        self._warn(self.folder / shard.name)
                self._prepare(missing)
                size = sum(shard.bytes for shard in missing)
                with progress_bar(
                    size, f"fetching {self.store.url}", "B", unit_scale=True, leave=False, disable=size < _BAR_BYTES
                ) as bar:
                    for done in as_completed([pool.submit(self._fetch, shard, stop, bar) for shard in missing]):
                        done.result()
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)

    def _prepare(self, missing: Sequence[Shard]) -> None:
        """Remove what killed processes left. Raises ConfigError if the disk has no space for these shards."""
        for path in self.private.glob(f".*{PARTIAL_SUFFIX}"):
            try:
                if path.lstat().st_mtime < time.time() - _ABANDONED_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue
        needed, free = sum(shard.bytes for shard in missing), shutil.disk_usage(self.folder).free
        if needed > free:
            raise ConfigError(
                f"{self.folder}: {len(missing):,} shards of {self.store.url} need {needed / 1e9:,.1f} GB, but the disk has "
                f"{free / 1e9:,.1f} GB: free some space, or choose another --cache_dir"
            )

    def _fetch(self, shard: Shard, stop: threading.Event, bar: Any) -> None:
        path, where = self.folder / shard.name, self.store.where(shard.name)
        # Few locks rather than one for each shard, of which there may be 100,000.
        with one_at_a_time(self.private / f"lock-{shard.sha256[:2]}", f"{where}: waiting for another download"):
            if self._has(shard):
                bar.update(shard.bytes)
                return
            digest = hashlib.sha256()
            try:
                with atomic_file(path, beside=self.private) as file:
                    for chunk in self.store.chunks(shard.name):
                        if stop.is_set():
                            raise _Stopped
                        file.write(chunk)
                        digest.update(chunk)
                        bar.update(len(chunk))
                    if digest.hexdigest() != shard.sha256:
                        raise DatasetError(f"{where}: differs from the shard that preprocess wrote: {BUILD_AGAIN}")
            except MissingObjectError as error:
                raise DatasetError(f"{where}: this shard is missing: {BUILD_AGAIN}") from error
            _set_stamp(path, shard.sha256)
