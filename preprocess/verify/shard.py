"""Check one shard, on its own and against its source: the work of `verify`'s worker processes."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.sources import Content, ImageReader, Listing, picture_in, stored_in, warnings_of_fits
from tfrecords import dataset, framing, images, schema
from tfrecords.dataset import Shard
from tfrecords.decoding import decode
from tfrecords.emptiness import light_of, no_galaxy
from tfrecords.errors import ImageError, RecordError
from tfrecords.files import sha256_file
from tfrecords.fits.look import Look
from tfrecords.sums import TargetSums, target_sums
from tfrecords.tree import Tree

# How many faults of one kind are named per file; the rest are counted.
NAMED = 3
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Finding:
    """An `error` or a `warning`: the file that it concerns, and what was found."""

    level: str
    where: str
    what: str


class Faults:
    """The faults of one file, grouped by kind."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._kinds: dict[str, list[str]] = {}

    def add(self, kind: str, which: object = "") -> None:
        self._kinds.setdefault(kind, []).append(str(which))

    def findings(self) -> Iterator[Finding]:
        for kind, which in self._kinds.items():
            named = ", ".join(filter(None, which[:NAMED])) + (f" and {len(which) - NAMED:,} more" if len(which) > NAMED else "")
            yield Finding("error", self._where, f"{kind}: {named}" if named else kind)


@dataclass(frozen=True)
class CheckTask:
    """A shard to check on its own. asked, named: whether its records hold numbers of answers, and names."""

    path: Path
    shard: Shard
    crop: images.CropSettings
    tree: Tree
    asked: bool
    named: bool


@dataclass(frozen=True)
class Contents:
    """The contents of a shard: ids (int64), the first 8 bytes of each image's SHA-256 (uint64), shapes of the images.

    empty: ids of galaxies whose images show none, each with the reason. Versions before images were checked stored such.
    targets: their sums, None in split unlabelled, and if there are none.
    """

    shard: Shard
    findings: tuple[Finding, ...]
    ids: np.ndarray
    images: np.ndarray
    shapes: frozenset[tuple[int, int]]
    empty: tuple[tuple[int, str], ...]
    targets: TargetSums | None


def _check_example(example: schema.Example, task: CheckTask, faults: Faults) -> np.ndarray | None:
    """Check one example; return its stored image, if it can be decoded."""
    size, encoding = task.crop.size, task.crop.encoding
    stored = None
    try:
        if encoding == "raw":
            stored = images.decode_stored(example.image, encoding, size)
        else:
            stored = decode(example.image)
            height, width = stored.shape[:2]
            row, column = example.crop_offset
            if min(row, column) < 0 or row + size > height or column + size > width:
                faults.add(f"images without a whole crop of {size} x {size} at crop_offset, galaxies", example.galaxy_id)
    except ImageError as error:
        faults.add("images that cannot be decoded, galaxies", f"{example.galaxy_id} ({error})")
    _check_votes(example, task, faults)
    return stored


def _check_votes(example: schema.Example, task: CheckTask, faults: Faults) -> None:
    targets, asked = example.targets, example.asked
    # Cumulative fractions are stored as they are in the table, with its rounding.
    tolerance = max((layout.error for layout in task.tree.layouts if layout.kind == "cumulative"), default=_TOLERANCE)
    if asked is not None and not (np.isfinite(asked) & (asked >= 0)).all():
        faults.add("numbers of answers that are missing or below 0, galaxies", example.galaxy_id)
    if task.shard.split == "unlabelled":
        if not np.isnan(targets).all() or (asked is not None and asked.any()):
            faults.add("targets in split unlabelled, galaxies", example.galaxy_id)
    elif not np.isfinite(targets).all() or targets.min() < 0 or targets.max() > 1 + tolerance:
        faults.add("targets missing or outside 0 to 1, galaxies", example.galaxy_id)
    elif task.tree.deviation(targets[None], None if asked is None else asked[None]).max() > tolerance:
        faults.add("targets that break the decision tree, galaxies", example.galaxy_id)


def check_shard(task: CheckTask, on_image: Callable[[], None]) -> Contents:
    """Check a shard on its own: size, hash, every record, image and target."""
    shard = task.shard
    faults = Faults(shard.name)
    ids: list[int] = []
    keys: list[int] = []
    shapes: set[tuple[int, int]] = set()
    empty: list[tuple[int, str]] = []
    targets: list[np.ndarray] = []
    asked: list[np.ndarray] = []
    if not task.path.is_file():
        faults.add("is missing")
    else:
        if (size := task.path.stat().st_size) != shard.bytes:
            faults.add(f"has {size:,} bytes instead of {shard.bytes:,}")
        if sha256_file(task.path) != shard.sha256:
            faults.add("its SHA-256 differs from that in the manifest")
        try:
            for number, record in enumerate(framing.read_records(task.path)):
                try:
                    example = schema.parse(record, task.tree, task.asked, task.named)
                except RecordError:
                    faults.add("records that are not examples of galaxies, numbers", number)
                    continue
                ids.append(example.galaxy_id)
                targets.append(example.targets)
                if example.asked is not None:
                    asked.append(example.asked)
                keys.append(int.from_bytes(hashlib.sha256(example.image).digest()[:8], "big"))
                stored = _check_example(example, task, faults)
                if stored is not None:
                    shapes.add((stored.shape[0], stored.shape[1]))
                    row, column = example.crop_offset
                    crop = stored[row : row + task.crop.size, column : column + task.crop.size]
                    if crop.size and (reason := no_galaxy(light_of(crop))):
                        empty.append((example.galaxy_id, reason))
                on_image()
        except RecordError as error:  # names the record; after it, the start of the next cannot be trusted
            faults.add(str(error).removeprefix(f"{task.path}: ").split(":")[0])
        else:
            if len(ids) != shard.examples:
                faults.add(f"holds {len(ids):,} galaxies instead of {shard.examples:,}")
    findings = tuple(faults.findings())
    sums = None
    if targets and shard.split != "unlabelled":
        sums = target_sums(np.stack(targets), task.tree.counted(np.stack(asked) if asked else None))
    keys_and_ids = np.array(ids, np.int64), np.array(keys, np.uint64)
    return Contents(shard, findings, *keys_and_ids, frozenset(shapes), tuple(empty), sums)


@dataclass(frozen=True)
class SourceTask:
    """A shard to compare with its source: the source images and votes of its galaxies, and the images rejected from it.

    named: whether its records hold names. look: how FITS images were drawn, None without any.
    """

    path: Path
    shard: Shard
    crop: images.CropSettings
    tree: Tree
    images: Listing
    targets: np.ndarray
    asked: np.ndarray | None
    rejected: Listing
    named: bool
    look: Look | None


def _agree(path: str, content: Content, example: schema.Example, task: SourceTask) -> bool:
    """Whether a stored image is the crop of a source image: equal in every pixel, or within one level on average if a JPEG
    had to be re-encoded, perhaps by another version of the codec."""
    crop = task.crop
    stored = images.decode_stored(example.image, crop.encoding, crop.size, example.crop_offset)
    # Older versions stored images without a galaxy too: `verify.dataset` counts them.
    expected, _ = stored_in(path, content, crop, task.look, check=False)
    if crop.encoding == "jpeg" and not expected.lossless:
        again = images.decode_stored(expected.data, crop.encoding, crop.size, expected.offset)
        return bool(np.abs(again.astype(np.int16) - stored).mean() <= 1)
    picture, _ = picture_in(path, content, task.look)
    return np.array_equal(stored, images.crop(picture.pixels, crop.crop_fraction, crop.size))


@dataclass(frozen=True)
class Compared:
    """The result of a comparison: findings, and id (int64) and CRC-32 (uint32) of each source image that was read."""

    findings: tuple[Finding, ...]
    ids: np.ndarray
    crcs: np.ndarray


def check_against_source(task: SourceTask, on_image: Callable[[], None]) -> Compared:
    """Compare the images and targets of an intact shard with those of its source."""
    faults = Faults(task.shard.name)
    crcs: dict[int, int] = {}
    for listed in (task.images, task.rejected):
        crcs |= zip(listed.galaxy_id.tolist(), listed.known_crcs().tolist(), strict=True)
    rows = {galaxy_id: row for row, galaxy_id in enumerate(task.images.galaxy_id.tolist())}
    with ImageReader() as reader, warnings_of_fits(task.look):
        for record in framing.read_records(task.path):
            example = schema.parse(record, task.tree, task.asked is not None, task.named)
            row = rows.get(example.galaxy_id)
            if row is not None:
                try:
                    content = reader.read(task.images, row)
                    crcs[example.galaxy_id] = content.crc
                    if not _agree(task.images.path(row), content, example, task):
                        faults.add("pixels that differ from the source, galaxies", example.galaxy_id)
                except ImageError as error:
                    faults.add("images that cannot be compared with the source, galaxies", f"{example.galaxy_id} ({error})")
                expected = None if task.asked is None else task.asked[row]
                if not np.array_equal(task.targets[row], example.targets, equal_nan=True) or (
                    expected is not None and (example.asked is None or not np.array_equal(expected, example.asked))
                ):
                    faults.add("targets that differ from the source, galaxies", example.galaxy_id)
                if task.named and example.name != task.images.name(row):
                    faults.add("names that differ from the source, galaxies", example.galaxy_id)
            on_image()
        for row, galaxy_id in enumerate(task.rejected.galaxy_id.tolist()):
            try:
                content = reader.read(task.rejected, row)
                crcs[galaxy_id] = content.crc
                stored_in(task.rejected.path(row), content, task.crop, task.look)
                faults.add(f"galaxies in {dataset.REJECTED} whose images are readable", galaxy_id)
            except ImageError:
                pass
    ids = np.fromiter(crcs, np.int64, len(crcs))
    return Compared(tuple(faults.findings()), ids, np.fromiter(crcs.values(), np.uint32, len(crcs)))
