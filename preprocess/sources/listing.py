"""The images of a source as columns of numbers: some 50 bytes per image, so that millions fit in memory.

A place is a folder of images, on disk or in a zip. An image is a row: its place, its file name, and the position of its
bytes. Any part of a listing is a listing too: each worker receives such a part.
"""

import os
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from preprocess.sources import archives
from tfrecords.decoding import MAX_BYTES
from tfrecords.errors import ChangedError, ImageError

# The method of a file outside zips.
PLAIN = 255
# A file that a table names but that is not there, and an image in an Arrow file.
MISSING, EMBEDDED = 254, 253
# A galaxy that has one file per band.
BANDS = 252
# The images whose bytes must be read to know their CRC-32.
READ = (PLAIN, EMBEDDED, BANDS)
WHOLE = -1
# The column of an Arrow file that holds images.
IMAGE = "image"
_UINT32_MAX = 2**32 - 1
# The longest first, as one is the end of another.
FITS_SUFFIXES = tuple(f"{suffix}{packed}" for packed in (".gz", ".bz2", ".fz", "") for suffix in (".fits", ".fit", ".fts"))
_OPEN_ZIPS = 16


@dataclass(frozen=True)
class Place:
    """A folder of images.

    container: the folder that the user named, or the zip on disk that holds the bytes. shown: its name in messages.
    folder: path within it as bytes, empty or with a trailing slash. split: the split that its name stands for, or empty.
    training: whether its name implies that its galaxies have votes.
    """

    container: Path
    shown: str
    folder: bytes
    split: str
    training: bool

    @cached_property
    def prefix(self) -> bytes:
        """The folder on disk, with a trailing slash."""
        return b"%b/%b" % (os.fsencode(self.container), self.folder)


@dataclass(frozen=True)
class Listing:
    """Columns of n images: galaxy_id int64, place uint32 (row of `places`), and the position of the bytes.

    position: of the local header in a zip, or the change time of a file (int64, ns since 1970);
    stored, size, crc: bytes in the zip, bytes unpacked, CRC-32 (uint32; 0 for files outside zips); method: uint8;
    named: whether the id is not the number in the name; name_start, name_length: of the file's name in `names`.
    parts: how many parts of a path, from its end, make the name of a galaxy; 0 if all galaxies are numbers, WHOLE for all parts
    with the suffix. called: names of galaxies that do not follow from their paths, str (n,).
    files: those of galaxies with one file per band, a listing; each image of method BANDS has `count` of them from `first` on.
    usual: the bands that at least half of those galaxies have.
    """

    places: tuple[Place, ...]
    names: bytes
    galaxy_id: np.ndarray
    place: np.ndarray
    position: np.ndarray
    stored: np.ndarray
    size: np.ndarray
    crc: np.ndarray
    method: np.ndarray
    named: np.ndarray
    name_start: np.ndarray
    name_length: np.ndarray
    parts: int = 0
    called: np.ndarray | None = None
    files: "Listing | None" = None
    first: np.ndarray | None = None
    count: np.ndarray | None = None
    usual: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.galaxy_id)

    def nbytes(self) -> int:
        """Bytes held in memory, without the places."""
        columns = [*(getattr(self, column) for column in COLUMNS), self.first, self.count]
        files = 0 if self.files is None else self.files.nbytes()
        return len(self.names) + files + sum(column.nbytes for column in columns if column is not None)

    def _with_files(self, rows: np.ndarray, only: bool) -> dict[str, Any]:
        """The files of these rows, as arguments. only: leave out those of other rows."""
        if self.files is None or self.first is None or self.count is None:
            return {}
        first, count = self.first[rows], self.count[rows]
        if not only:
            return {"files": self.files, "first": first, "count": count, "usual": self.usual}
        theirs = [np.arange(start, start + number) for start, number in zip(first.tolist(), count.tolist(), strict=True)]
        files = self.files.part(np.concatenate([np.zeros(0, np.int64), *theirs]).astype(np.int64))
        return {"files": files, "first": np.cumsum(count, dtype=np.int64) - count, "count": count, "usual": self.usual}

    def files_of(self, row: int) -> tuple["Listing", range]:
        """The listing of the files of an image with method BANDS, and their rows in it."""
        assert self.files is not None and self.first is not None and self.count is not None
        start = int(self.first[row])
        return self.files, range(start, start + int(self.count[row]))

    def rows(self, rows: np.ndarray) -> "Listing":
        """These rows in this order; the names are shared."""
        columns = {column: getattr(self, column)[rows] for column in COLUMNS}
        files = self._with_files(rows, only=False)
        return Listing(self.places, self.names, **columns, parts=self.parts, called=self._called(rows), **files)

    def part(self, rows: np.ndarray) -> "Listing":
        """These rows in this order, with only their own names: what a worker receives."""
        names = [self._name(row) for row in rows]
        lengths = np.array([len(name) for name in names], np.uint16)
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        columns = {column: getattr(self, column)[rows] for column in COLUMNS}
        columns |= {"name_start": starts, "name_length": lengths}
        files = self._with_files(rows, only=True)
        return Listing(self.places, b"".join(names), **columns, parts=self.parts, called=self._called(rows), **files)

    def _called(self, rows: np.ndarray) -> np.ndarray | None:
        return None if self.called is None else self.called[rows]

    def _name(self, row: int) -> bytes:
        start = int(self.name_start[row])
        return self.names[start : start + int(self.name_length[row])]

    def path(self, row: int) -> str:
        """Path of an image relative to the zip that holds it or else to the given folder, as written to files."""
        return self.path_bytes(row).decode("utf-8", "backslashreplace")

    def path_bytes(self, row: int) -> bytes:
        """The same path as the file system or the zip has it."""
        return self.places[self.place[row]].folder + self._name(row)

    def galaxy(self, row: int) -> int | str:
        """An image's galaxy in messages and tables: its name, or its number in a listing without names."""
        return self.name(row) if self.parts else int(self.galaxy_id[row])

    def name(self, row: int) -> str:
        """The name of a galaxy: the stem of its file, with folders before it if stems repeat."""
        return name_of(self.path(row), self.parts) if self.called is None else str(self.called[row])

    def shown(self, row: int) -> str:
        """Path of an image in messages: with the given folder, or the zips that hold it; of several files, the first."""
        if self.method[row] == BANDS:
            files, rows = self.files_of(row)
            others = f" (and {len(rows) - 1} of other bands)" if len(rows) > 1 else ""
            return f"{files.shown(rows[0])}{others}"
        return f"{self.places[self.place[row]].shown}/{self.path(row)}"

    def known_crcs(self) -> np.ndarray:
        """CRC-32 of the images in zips, uint32; 0 for others, and for those too large to be read."""
        return np.where(self.size > MAX_BYTES, np.uint32(0), self.crc)

    def file(self, row: int) -> str:
        """Path on disk of an image outside zips."""
        return os.fsdecode(self.places[self.place[row]].prefix + self._name(row))


_NOT_COLUMNS = ("places", "names", "parts", "called", "files", "first", "count", "usual")
COLUMNS = tuple(field.name for field in fields(Listing) if field.name not in _NOT_COLUMNS)


def name_of(path: str, parts: int) -> str:
    """The last parts of a path without its suffix; the path as it is if `parts` is WHOLE."""
    return path if parts == WHOLE else "/".join(without_suffix(path).split("/")[-parts:])


def without_suffix(path: str) -> str:
    """A path without what follows the last full stop of its file name; of a packed FITS file, without both suffixes."""
    folder, slash, name = path.rpartition("/")
    packed = next((suffix for suffix in FITS_SUFFIXES if name.lower().endswith(suffix)), "")
    stem = name[: -len(packed)] if packed else name.rpartition(".")[0]
    return f"{folder}{slash}{stem or name}"


class ListingBuilder:
    """Collects images one by one, without an object for each."""

    def __init__(self) -> None:
        self._places: dict[Place, int] = {}
        self._place = 0
        self._names = bytearray()
        # Type codes of array: q int64, I uint32, B uint8, H uint16.
        codes = {"galaxy_id": "q", "position": "q", "name_start": "q", "method": "B", "named": "B", "name_length": "H"}
        self._columns = {column: array(codes.get(column, "I")) for column in COLUMNS}
        self._append = [self._columns[column].append for column in COLUMNS]

    def enter(self, place: Place) -> None:
        """Set the place of the images that follow."""
        self._place = self._places.setdefault(place, len(self._places))

    def add(
        self, galaxy_id: int, name: bytes, position: int, stored: int, size: int, crc: int, method: int, named: bool
    ) -> None:
        """Add an image. A file of 4 GB or more is listed as 4 GB: it is refused unread."""
        row = (
            galaxy_id, self._place, position, min(stored, _UINT32_MAX), min(size, _UINT32_MAX), crc, method, named,
            len(self._names), len(name),
        )  # fmt: skip
        for append, value in zip(self._append, row, strict=True):
            append(value)
        self._names += name

    def listing(self, parts: int = 0, called: Sequence[str] | None = None) -> Listing:
        """Return all images so far, in the order in which they were added. parts, called: as in `Listing`."""
        columns: dict[str, Any] = {name: np.asarray(column) for name, column in self._columns.items()}
        given = None if called is None else np.array(called, object)
        return Listing(tuple(self._places), bytes(self._names), **columns, parts=parts, called=given)


def _open(listing: Listing, row: int, path: Path | str) -> int:
    try:
        return archives.open_regular(path)
    except FileNotFoundError as error:
        raise ChangedError(
            f"{listing.shown(row)}: has disappeared since the source was listed: run the same command again"
        ) from error


class Content(NamedTuple):
    """The bytes of an image, their CRC-32, and the change time of the file (ns since 1970, 0 in a zip).

    files: of a galaxy with one file per band, the path and the bytes of each. usual: the bands of most such galaxies beside it.
    """

    data: bytes
    crc: int
    changed: int
    files: tuple[tuple[str, bytes], ...] = ()
    usual: tuple[str, ...] = ()


class ImageReader:
    """Reads images of listings; keeps the zips open. Use it in a `with` statement."""

    def __init__(self) -> None:
        self._zips: dict[Path, int] = {}
        self._arrow: tuple[Path, Any, np.ndarray] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for fd in self._zips.values():
            os.close(fd)
        self._zips.clear()
        self._arrow = None

    def _embedded(self, path: Path, place: int) -> Content:
        """The image in a place of an Arrow file, whose batches hold different numbers of rows."""
        import pyarrow as pa

        if self._arrow is None or self._arrow[0] != path:
            file = pa.ipc.open_file(pa.memory_map(str(path)))
            ends = np.cumsum([file.get_batch(number).num_rows for number in range(file.num_record_batches)])
            self._arrow = (path, file, ends)
        _, file, ends = self._arrow
        number = int(np.searchsorted(ends, place, "right"))
        batch = file.get_batch(number)
        data = batch.column(IMAGE)[place - int(ends[number]) + batch.num_rows].as_py()
        if not data:
            raise ImageError("the table holds no image for it")
        if len(data) > MAX_BYTES:
            raise ImageError(f"the image has {len(data):,} bytes, above {MAX_BYTES:,}")
        return Content(data, zlib.crc32(data), 0)

    def read(self, listing: Listing, row: int) -> Content:
        """Return the bytes of an image.

        Raises ImageError if it is absurdly large or damaged in its zip, SourceError if a file has changed since it was
        listed.
        """
        if listing.method[row] == MISSING:
            raise ImageError("there is no such file")
        size = int(listing.size[row])
        if size > MAX_BYTES:
            raise ImageError(f"the file has {size:,} bytes or more, above {MAX_BYTES:,}")
        if listing.method[row] == BANDS:
            files, rows = listing.files_of(row)
            parts = tuple((files.path(one), self.read(files, one).data) for one in rows)
            data = b"".join(content for _, content in parts)
            return Content(data, zlib.crc32(data), 0, parts, listing.usual)
        if listing.method[row] == EMBEDDED:
            return self._embedded(listing.places[listing.place[row]].container, int(listing.position[row]))
        if listing.method[row] != PLAIN:
            container = listing.places[listing.place[row]].container
            if container not in self._zips:
                if len(self._zips) == _OPEN_ZIPS:
                    os.close(self._zips.pop(next(iter(self._zips))))
                self._zips[container] = _open(listing, row, container)
            crc = int(listing.crc[row])
            position, stored, method = int(listing.position[row]), int(listing.stored[row]), int(listing.method[row])
            return Content(archives.read(self._zips[container], position, stored, size, crc, method), crc, 0)
        fd = _open(listing, row, listing.file(row))
        try:
            # Read before the bytes: after a change in between, this time is too old, so a resumed job reads the file again.
            changed = os.fstat(fd).st_ctime_ns
            data = os.read(fd, size + 1)
            while 0 < len(data) < size and (more := os.read(fd, size + 1 - len(data))):
                data += more  # a network file system may return a file in parts
        finally:
            os.close(fd)
        if len(data) != size:
            raise ChangedError(f"{listing.shown(row)}: has changed since the source was listed: run the same command again")
        return Content(data, zlib.crc32(data), changed)
