"""Check that a dataset's shards are those in its manifest, by their SHA-256.

TensorFlow checks the CRC of each record, but not that a shard is the right one: it would silently read two swapped shards of
equal size, or a shard of another build. `benchmarks.checks` measures the cost of hashing.
"""

import contextlib
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tfrecords.dataset import Dataset, Shard
from tfrecords.errors import BUILD_AGAIN, DatasetError
from tfrecords.files import sha256_file
from tfrecords.progress import progress_bar

# Size, time of last change of content and of status (ns), inode: while these are unchanged, so is the file.
Stamp = tuple[int, int, int, int]
# Hashing fewer bytes ends before a progress bar could be read.
_BAR_BYTES = 2_000_000_000


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def read_shards(dataset: Dataset, split: str, limit: int = 0) -> list[Shard]:
    """The shards that hold the first `limit` galaxies of a split (0: all)."""
    shards, galaxies = [], 0
    for shard in dataset.shards:
        if shard.split == split and (not limit or galaxies < limit):
            shards.append(shard)
            galaxies += shard.examples
    return shards


def unchanged_shards(folder: Path, shards: Sequence[Shard]) -> set[str]:
    """The names of those shards in a folder that have the SHA-256 they were written with; several are hashed at a time."""
    return {shard.name for shard, is_intact in _hashed(folder, shards) if is_intact}


def _cores() -> int:
    """The cores that this process may use: in a container or a cluster job, fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _hashed(folder: Path, shards: Sequence[Shard]) -> Generator[tuple[Shard, bool], None, None]:
    """Each shard, and whether its SHA-256 is the one that it was written with."""
    size = sum(shard.bytes for shard in shards)
    bar = progress_bar(size, "checking shards", "B", unit_scale=True, leave=False, disable=size < _BAR_BYTES)
    with bar, ThreadPoolExecutor(_cores()) as pool:
        try:
            hashes = pool.map(sha256_file, (folder / shard.name for shard in shards))
            for shard, digest in zip(shards, hashes, strict=True):
                yield shard, digest == shard.sha256
                bar.update(shard.bytes)
        finally:
            pool.shutdown(cancel_futures=True)


def fetch_shards(dataset: Dataset, shards: Sequence[Shard]) -> dict[str, Stamp]:
    """Bring shards of an object store into the dataset's folder and return their stamps; nothing if the dataset is local.

    Raises DatasetError, naming the shard, if a shard differs from the one in the manifest.
    """
    if dataset.fetch is None:
        return {}
    dataset.fetch(shards)
    return {shard.name: _stamp(dataset.folder / shard.name) for shard in shards}


def check_shards(dataset: Dataset, shards: Iterable[Shard], checked: Mapping[str, Stamp] | None = None) -> dict[str, Stamp]:
    """Hash shards, several at a time, and return their stamps: pass these as `checked` next time to hash only changed shards.

    Shards of an object store are fetched first. Raises DatasetError, naming the shard, if one differs from its hash.
    """
    shards = list(shards)
    checked = {**(checked or {}), **fetch_shards(dataset, shards)}
    stamps = {shard.name: _stamp(dataset.folder / shard.name) for shard in shards}
    unknown = [shard for shard in dataset.shards if shard.name in stamps and checked.get(shard.name) != stamps[shard.name]]
    with contextlib.closing(_hashed(dataset.folder, unknown)) as hashed:
        for shard, is_intact in hashed:
            if not is_intact:
                raise DatasetError(
                    f"{dataset.folder / shard.name}: differs from the shard that preprocess wrote: "
                    f"move it elsewhere, and {BUILD_AGAIN}"
                )
    return stamps
