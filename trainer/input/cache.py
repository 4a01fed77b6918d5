"""Galaxies kept in memory between epochs, decoded or as stored: faster, with the same results.

auto     decoded if that needs at most a quarter of the free memory, else as stored if that does, else nothing
memory   the same with nine tenths, and an error if not even the stored records fit
none     nothing: every epoch reads the shards again

Several processes of a run on one machine divide its free memory equally.
"""

import math
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrecords import reader
from tfrecords.dataset import Dataset
from tfrecords.errors import RunError

AUTO_SHARE = 0.25
MEMORY_SHARE = 0.9
# Bytes of one galaxy besides its image and votes: its id, and the header of a string tensor.
_OVERHEAD = 8 + 24
_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def _number(path: Path) -> int | None:
    """The number in a file of the kernel; None if the file is missing or contains "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _inactive_files(path: Path) -> int:
    """Bytes of the page cache that are freed first, from memory.stat; 0 if the file is missing."""
    try:
        lines = dict(line.split() for line in path.read_text().splitlines())
        return int(lines.get("total_inactive_file", lines.get("inactive_file", 0)))
    except (OSError, ValueError):
        return 0


def _left_in_cgroups(own: str, root: Path) -> list[int]:
    """Bytes left under each limit set by a container or Slurm; `own`: the text of /proc/self/cgroup.

    Lines are "0::/path" for version 2 and "4:memory:/path" for version 1; a limit applies to all folders below.
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
                used -= _inactive_files(place / "memory.stat")  # recently read files count as used
                left.append(max(0, limit - used))
            if place == top:
                break
    return left


def available_memory() -> int:
    """Bytes of free memory, the page cache included; less if a container or Slurm sets a limit."""
    import psutil

    own = _OWN.read_text() if _OWN.is_file() else ""
    return min([int(psutil.virtual_memory().available), *_left_in_cgroups(own, _CGROUPS)])


def plan(cache: str, dataset: Dataset, galaxies: int, available: int, processes: int = 1) -> str:
    """What to keep of this number of galaxies with `available` bytes of memory: "decoded", "stored" or "none".

    processes: those of the run on this machine, each of which keeps as many galaxies, in an equal part of the memory.
    Raises RunError if `cache` is "memory" and nothing fits.
    """
    if cache == "none":
        return "none"
    shards = [shard for shard in dataset.shards if shard.examples]
    stored = sum(shard.bytes for shard in shards) / sum(shard.examples for shard in shards)
    room = available * (AUTO_SHARE if cache == "auto" else MEMORY_SHARE) / processes
    overhead = dataset.votes_width * 4 + _OVERHEAD
    for kind, each in (("decoded", dataset.size**2 * 3), ("stored", stored)):
        if galaxies * (each + overhead) <= room:
            return kind
    if cache == "auto":
        return "none"
    galaxies *= processes
    raise RunError(
        f"--cache memory: {galaxies:,} galaxies need {galaxies * (stored + overhead) / 1e9:.1f} GB as stored, "
        f"more than nine tenths of the free {available / 1e9:.1f} GB: use --cache none, --limit, or a machine with more memory"
    )


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An empty uint8 array, aligned in memory as TensorFlow needs it."""
    size, step = math.prod(shape), 64
    room = np.empty(size + step, np.uint8)
    start = -room.ctypes.data % step
    return room[start : start + size].reshape(shape)


class Cache:
    """The examples `start` up to `stop` of a split in memory, indexed by their place in the split.

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
        ids, votes = np.empty(galaxies, np.int64), np.empty((galaxies, dataset.votes_width), np.float32)
        first = 0
        for part in reader.decoded(records, dataset, 32):
            rows = slice(first, first + len(part[0]))
            ids[rows], images[rows], votes[rows] = (column.numpy() for column in part)
            first = rows.stop
        # tf.constant would copy the images, and need twice their memory.
        self._columns = (tf.constant(ids), tf.experimental.dlpack.from_dlpack(images.__dlpack__()), tf.constant(votes))

    def gather(self, places: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The kept data of the galaxies at these places (int64 (batch,)) in the split.

        decoded: galaxy ids (batch,), images (batch, size, size, 3), votes (batch, width); stored: records (batch,).
        """
        return tuple(tf.gather(column, places - self._start) for column in self._columns)
