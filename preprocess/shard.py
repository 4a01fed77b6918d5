"""Write one shard: the unit of work, of resuming, and of distribution."""

import hashlib
import io
import platform
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from preprocess import versions
from preprocess.sources import ImageReader, Listing, stored_in, warnings_of_fits
from tfrecords import framing, schema
from tfrecords.dataset import Shard
from tfrecords.errors import ImageError, SourceError
from tfrecords.files import atomic_file
from tfrecords.fits.look import Look
from tfrecords.images import CropSettings
from tfrecords.objects import Store
from tfrecords.sums import TargetSums, target_sums
from tfrecords.tree import Tree


@dataclass(frozen=True)
class ShardTask:
    """Everything that a worker needs to write one shard.

    `images`: in the order in which they are written; `targets`: float32 (images, answers), NaN without votes;
    `asked`: float32 (images, questions), 0 without votes, or None if the table has no counts; `tree`: that of the targets;
    `folder`: folder of the finished shard, or its store; `work`: folder of the unfinished one, on the same file system;
    `skip_bad`: omit unreadable images and list them, else stop at the first.
    `look`: how FITS images are drawn, None without any.
    """

    name: str
    split: str
    images: Listing
    targets: np.ndarray
    asked: np.ndarray | None
    tree: Tree
    folder: Path | Store
    work: Path
    crop: CropSettings
    skip_bad: bool
    look: Look | None = None


@dataclass(frozen=True)
class Rejected:
    """An image that could not be used: its galaxy, its path in the source, and why."""

    galaxy_id: int
    path: str
    reason: str


@dataclass(frozen=True)
class Receipt:
    """The record of a written shard.

    enlarged: number of crops with fewer pixels than the stored size. shape: height and width of the stored images, None if
    they differ or there are none. crc: CRC-32 of every image of the task, as 8 hex digits each, concatenated. changed: change
    time of each, ns since 1970 by the clock of its file system, as 16 hex digits each; 0 in a zip. tool: the worker's
    versions, as returned by `versions.tool`; host: the machine it ran on. targets: their sums, None for a shard without votes.
    notes: what was done with the planes of FITS images, in words, and the number of images.
    """

    shard: Shard
    enlarged: int
    shape: tuple[int, int] | None
    rejected: tuple[Rejected, ...]
    crc: str
    changed: str
    tool: dict[str, str]
    host: str
    targets: TargetSums | None
    notes: dict[str, int] = field(default_factory=dict)

    def crcs(self) -> np.ndarray:
        """CRC-32 of every image of the task, uint32, in its order."""
        return np.frombuffer(bytes.fromhex(self.crc), ">u4").astype(np.uint32)

    def times(self) -> np.ndarray:
        """Change time of every image of the task, int64, in its order; 0 in a zip."""
        return np.frombuffer(bytes.fromhex(self.changed), ">i8").astype(np.int64)


@contextmanager
def _file_of(task: ShardTask) -> Iterator[BinaryIO]:
    """The file of a shard, for writing; in a store, it is in memory until the block ends, and then written in one request."""
    if isinstance(task.folder, Store):
        memory = io.BytesIO()
        yield memory
        task.folder.create_or_confirm(task.name, memory.getbuffer())
    else:
        with atomic_file(task.folder / task.name, beside=task.work) as file:
            yield file


def write_shard(task: ShardTask, on_image: Callable[[], None]) -> Receipt:
    """Write the shard in one atomic step; `on_image` is called after each image and may raise to stop the work.

    Raises SourceError, naming the image, if one is unreadable and must not be skipped.
    """
    digest = hashlib.sha256()
    size = enlarged = 0
    rejected: list[Rejected] = []
    shapes: set[tuple[int, int]] = set()
    stored_rows: list[int] = []
    notes: Counter[str] = Counter()
    crcs = task.images.known_crcs().astype(">u4")
    times = np.zeros(len(task.images), ">i8")
    with _file_of(task) as file, ImageReader() as reader, warnings_of_fits(task.look):
        for row, (galaxy_id, targets) in enumerate(zip(task.images.galaxy_id.tolist(), task.targets, strict=True)):
            try:
                content = reader.read(task.images, row)
                crcs[row], times[row] = content.crc, content.changed
                stored, said = stored_in(task.images.path(row), content, task.crop, task.look)
            except MemoryError as error:
                raise MemoryError(f"{task.images.shown(row)}: {error}") from error
            except ImageError as error:
                if not task.skip_bad:
                    raise SourceError(
                        f"{task.images.shown(row)}: {error}: replace or remove this image, "
                        "then run again with --overwrite, or omit such images with --on_bad_image skip"
                    ) from error
                rejected.append(Rejected(galaxy_id, task.images.path(row), str(error)))
            else:
                asked = None if task.asked is None else task.asked[row]
                name = task.images.name(row) if task.images.parts else None
                example = schema.Example(galaxy_id, stored.data, stored.offset, targets, asked, name)
                record = framing.frame(schema.serialize(example))
                file.write(record)
                digest.update(record)
                size += len(record)
                enlarged += stored.enlarged
                stored_rows.append(row)
                notes.update(said)
                shapes.add(stored.shape)
            on_image()
    shard = Shard(task.name, task.split, len(task.images) - len(rejected), size, digest.hexdigest())
    shape = shapes.pop() if len(shapes) == 1 else None
    of_images = (crcs.tobytes().hex(), times.tobytes().hex())
    by_whom = versions.tool(task.look is not None), platform.node()
    return Receipt(shard, enlarged, shape, tuple(rejected), *of_images, *by_whom, _sums(task, stored_rows), dict(notes))


def _sums(task: ShardTask, rows: list[int]) -> TargetSums | None:
    """The sums of the targets of these rows; None in split unlabelled."""
    if task.split == "unlabelled":
        return None
    return target_sums(task.targets[rows], task.tree.counted(None if task.asked is None else task.asked[rows]))
