"""Galaxies kept in memory over the epochs, decoded or as stored: a choice of speed that changes no result.

auto     decoded where that takes at most a quarter of the memory that is free, else as stored where that does, else none
memory   the same with nine tenths, and an error where not even the stored bytes fit
none     every epoch reads the shards again
"""

import math
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrecords import reader
from tfrecords.dataset import Dataset
from tfrecords.errors import RunError
from tfrecords.taxonomy import COLUMNS

AUTO_SHARE = 0.25
MEMORY_SHARE = 0.9
# What one galaxy takes beside its image: 37 vote fractions, its id, and the head of a string tensor.
_OVERHEAD = 37 * 4 + 8 + 24
_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def _number(path: Path) -> int | None:
    """The number in a file of the kernel; None where there is no such file, or it says "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _inactive_files(path: Path) -> int:
    """Bytes of the page cache that give way first, from memory.stat; 0 where there is no such file."""
    try:
        lines = dict(line.split() for line in path.read_text().splitlines())
        return int(lines.get("total_inactive_file", lines.get("inactive_file", 0)))
    except (OSError, ValueError):
        return 0


def _left_in_cgroups(own: str, root: Path) -> list[int]:
    """Bytes left under each limit that a container or Slurm set; `own`: the text of /proc/self/cgroup.

    Lines are "0::/path" for version 2 and "4:memory:/path" for version 1; a limit holds for all folders below.
    """
    left = []
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, names = root, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = top / path.lstrip("/")
        for place in (folder, *folder.parents):
            limit, used = (_number(place / name) for name in names)
            if limit is not None and used is not None:
                used -= _inactive_files(place / "memory.stat")  # files just read count as used
                left.append(max(0, limit - used))
            if place == top:
                break
    return left


def available_memory() -> int:
    """Bytes: what the machine has free (the page cache gives way), or less where a container or Slurm sets a limit."""
    import psutil

    own = _OWN.read_text() if _OWN.is_file() else ""
    return min([int(psutil.virtual_memory().available), *_left_in_cgroups(own, _CGROUPS)])


def plan(cache: str, dataset: Dataset, galaxies: int, available: int) -> str:
    """ "decoded", "stored" or "none": what is kept of so many galaxies with so many bytes of memory available.

    Raises RunError where `cache` is "memory" and nothing fits.
    """
    if cache == "none":
        return "none"
    shards = [shard for shard in dataset.shards if shard.examples]
    stored = sum(shard.bytes for shard in shards) / sum(shard.examples for shard in shards)
    room = available * (AUTO_SHARE if cache == "auto" else MEMORY_SHARE)
    for kind, each in (("decoded", dataset.size**2 * 3), ("stored", stored)):
        if galaxies * (each + _OVERHEAD) <= room:
            return kind
    if cache == "auto":
        return "none"
    raise RunError(
        f"--cache memory: {galaxies:,} galaxies take {galaxies * (stored + _OVERHEAD) / 1e9:.1f} GB as stored, and "
        f"{available / 1e9:.1f} GB are free: take --cache none, --limit, or a machine with more memory"
    )


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An empty uint8 array that begins where TensorFlow wants its tensors to begin."""
    size, step = math.prod(shape), 64
    room = np.empty(size + step, np.uint8)
    start = -room.ctypes.data % step
    return room[start : start + size].reshape(shape)


class Cache:
    """The examples `start` up to `stop` of a split in memory, found by their place in the split.

    kind "decoded": uint8 images; "stored": serialized records. Made once; each epoch gathers from it.
    """

    def __init__(self, dataset: Dataset, split: str, start: int, stop: int, kind: str) -> None:
        self.kind = kind
        self._start = start
        records = reader.stored_order(reader.pieces(dataset, split, start, stop), dataset.encoding)
        if kind == "stored":
            self._columns: tuple[tf.Tensor, ...] = (tf.concat(list(records.batch(1024)), axis=0),)
            return
        galaxies = stop - start
        images = _aligned((galaxies, dataset.size, dataset.size, 3))
        ids, targets = np.empty(galaxies, np.int64), np.empty((galaxies, len(COLUMNS)), np.float32)
        first = 0
        for part in reader.decoded(records, dataset.encoding, dataset.size, 32):
            rows = slice(first, first + len(part[0]))
            ids[rows], images[rows], targets[rows] = (column.numpy() for column in part)
            first = rows.stop
        # tf.constant would copy the images, and take their memory twice.
        self._columns = (tf.constant(ids), tf.experimental.dlpack.from_dlpack(images.__dlpack__()), tf.constant(targets))

    def gather(self, places: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """What is kept of the galaxies at these places (int64 (batch,)) of the split.

        decoded: galaxy ids (batch,), images (batch, size, size, 3), targets (batch, 37); stored: records (batch,).
        """
        return tuple(tf.gather(column, places - self._start) for column in self._columns)
