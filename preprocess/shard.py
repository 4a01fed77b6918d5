"""Write one shard: the unit of work, of resuming, and of distribution."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfrecords import framing, images, schema
from tfrecords.dataset import Shard
from tfrecords.errors import ImageError, SourceError
from tfrecords.files import atomic_file


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to write one shard.

    `paths`: images relative to `source`, one per galaxy; `targets`: float32 (galaxies, 37), NaN without votes;
    `folder`: where the shard appears when complete; `work`: where it lies until then, on the same file system.
    """

    name: str
    split: str
    source: Path
    folder: Path
    work: Path
    galaxy_ids: tuple[int, ...]
    paths: tuple[str, ...]
    targets: np.ndarray
    crop: images.CropSettings


@dataclass(frozen=True)
class Receipt:
    """What was written: the shard, and how many of its images had fewer pixels than the stored size."""

    shard: Shard
    enlarged: int


def write_shard(task: ShardTask, on_image: Callable[[], None]) -> Receipt:
    """Write the shard in one atomic step; `on_image` is called after each image and may raise to stop the work.

    Raises SourceError, naming the image, where one is unreadable.
    """
    digest = hashlib.sha256()
    size = enlarged = 0
    with atomic_file(task.folder / task.name, beside=task.work) as file:
        for galaxy_id, path, targets in zip(task.galaxy_ids, task.paths, task.targets, strict=True):
            try:
                stored = images.store((task.source / path).read_bytes(), task.crop)
            except ImageError as error:
                raise SourceError(
                    f"{task.source / path}: {error}: replace or remove this image, then run again with --overwrite"
                ) from error
            record = framing.frame(schema.serialize(schema.Example(galaxy_id, stored.data, stored.offset, targets)))
            file.write(record)
            digest.update(record)
            size += len(record)
            enlarged += stored.enlarged
            on_image()
    return Receipt(Shard(task.name, task.split, len(task.galaxy_ids), size, digest.hexdigest()), enlarged)
