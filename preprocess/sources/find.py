"""Find the images and the table of votes: in a folder, a zip, zips in a zip, or any mixture of them.

A galaxy's id is the name of its file. Its path is relative to the zip that holds it or else to the given folder, so that
a dataset does not depend on where its source lay or whether it was packed.
"""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from preprocess.sources import archives
from preprocess.sources.listing import PLAIN, ImageReader, Listing, ListingBuilder, Place
from tfrecords.errors import ImageError, SourceError
from tfrecords.files import local_path
from tfrecords.images import MAX_BYTES

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
SOLUTIONS_NAMES = ("training_solutions_rev1.csv", "target_data/targets.csv")
# A source that is already split, like the article's: its galaxies keep their splits.
SPLIT_FOLDERS = {"train_images": "train", "validation_images": "validation", "test_images": "test"}
TRAINING_FOLDERS = ("train_images", "validation_images", "images_training_rev1", "images_train_rev1")
_NUMBER = re.compile(rb"0*(\d{1,19})")
_ARTICLES_NUMBER = re.compile(rb"(?:data)?0*(\d{1,19})")
_MAX_DEPTH = 4
_LONGEST_HEADER = 1_000_000
# Files of Kaggle's challenge with the columns of votes that are no votes.
_BENCHMARKS = ("all_zeros_benchmark.csv", "all_ones_benchmark.csv", "central_pixel_benchmark.csv")


@dataclass(frozen=True)
class VotesTable:
    """A table of votes: a file, or an `entry` of the zip `archive`.

    path: its path in messages. place: its path in the source, as if each zip were a folder.
    """

    path: str
    archive: archives.Zip
    entry: archives.Entry | None = None
    place: str = ""

    @property
    def name(self) -> str:
        """Its file name."""
        return PurePosixPath(self.path).name

    def is_called(self, names: Iterable[str]) -> bool:
        """Whether its place ends with one of these names, which may start with folders."""
        return any(f"/{self.place}".endswith(f"/{name}") for name in names)

    def first_line(self) -> bytes:
        """The names of its columns: of a file on disk only the start is read."""
        if self.entry is not None:
            return self.read().split(b"\n", 1)[0]
        with self.archive.path.open("rb") as file:
            return file.readline(_LONGEST_HEADER)

    def read(self) -> bytes:
        """Return its bytes, unpacked. Raises SourceError if it is damaged in its zip."""
        if self.entry is None:
            return self.archive.path.read_bytes()
        return archives.read_entry(self.archive, self.entry)


@dataclass(frozen=True)
class Source:
    """The images, sorted by galaxy and one per galaxy, and the tables. `path`: as the user gave it.

    solutions: tables of votes by their names. others: all other CSV files.
    """

    path: Path
    images: Listing
    solutions: tuple[VotesTable, ...]
    others: tuple[VotesTable, ...] = ()


def hashed_id(path: bytes) -> int:
    """The id of an image whose name is not a number: the top 63 bits of the SHA-256 of its relative path."""
    return int.from_bytes(hashlib.sha256(path).digest()[:8], "big") >> 1


def _visible(part: str) -> bool:
    return not part.startswith(".") and part != "__MACOSX"


class _Finder:
    """Collects images and tables in one walk through a source."""

    def __init__(self, scratch: Path, suffixes: tuple[str, ...]) -> None:
        self.images = ListingBuilder()
        self.tables: list[VotesTable] = []
        self.others: list[VotesTable] = []
        self._scratch = scratch
        self._suffixes = suffixes
        self._here: tuple[Path, str, bytes] = (Path(), "", b"")
        self._numbers = _NUMBER

    def _place(self, container: Path, shown: str, above: tuple[str, ...], folder: bytes) -> None:
        """Set the place of the next images. `above`: names of the enclosing folders and zips, as if each were a folder."""
        if (container, shown, folder) == self._here:
            return
        self._here = (container, shown, folder)
        parts = {*above, *PurePosixPath(os.fsdecode(folder)).parts}
        split = next((SPLIT_FOLDERS[part] for part in SPLIT_FOLDERS if part in parts), "")
        self._numbers = _ARTICLES_NUMBER if split else _NUMBER
        self.images.enter(Place(container, shown, folder, split, not parts.isdisjoint(TRAINING_FOLDERS)))

    def _add(self, name: bytes, position: int, stored: int, size: int, crc: int, method: int) -> None:
        number = self._numbers.fullmatch(name.rpartition(b".")[0])
        galaxy_id = int(number[1]) if number else 2**63
        named = galaxy_id >= 2**63
        if named:
            galaxy_id = hashed_id(self._here[2] + name)
        self.images.add(galaxy_id, name, position, stored, size, crc, method, named)

    def folder(self, root: Path) -> None:
        """Collect everything below a folder on disk."""
        for folder, name, status in _walk(root, self._suffixes):
            if name.lower().endswith(self._suffixes):
                self._place(root, str(root), (), os.fsencode(folder))
                self._add(os.fsencode(name), status.st_ctime_ns, 0, status.st_size, 0, PLAIN)
            elif name.lower().endswith(".zip"):
                archive = archives.Zip(root / folder / name, f"{root}/{folder}{name}", 0, status.st_size)
                self.zip(archive, (*PurePosixPath(folder).parts, name[:-4]))
            elif name.lower().endswith(".csv"):
                archive = archives.Zip(root / folder / name, name, 0, status.st_size)
                self._table(VotesTable(f"{root}/{folder}{name}", archive, place=f"{folder}{name}"))

    def _table(self, table: VotesTable) -> None:
        if table.is_called(SOLUTIONS_NAMES):
            self.tables.append(table)
        elif table.name not in _BENCHMARKS:
            self.others.append(table)

    def file(self, path: Path) -> None:
        """Collect one image on disk."""
        status = path.stat()
        self._place(path.parent, str(path.parent), (), b"")
        self._add(os.fsencode(path.name), status.st_ctime_ns, 0, status.st_size, 0, PLAIN)

    def zip(self, archive: archives.Zip, above: tuple[str, ...], depth: int = 1) -> None:
        """Collect everything in a zip, and in the zips inside it."""
        if depth > _MAX_DEPTH:
            raise SourceError(f"{archive.name}: zips within zips, {depth} deep: unzip the outer ones first")
        for entry in archives.entries(archive):
            path = entry.name.removeprefix("./")
            if not all(map(_visible, path.split("/"))):
                continue
            folder, slash, name = path.rpartition("/")
            if name.lower().endswith(self._suffixes):
                self._place(archive.path, archive.name, above, _in_zip(folder + slash))
                self._add(_in_zip(name), entry.header, entry.stored, entry.size, entry.crc, entry.method)
            elif name.lower().endswith(".zip"):
                inner = (
                    archives.window(archive, entry)
                    if entry.method == archives.STORED
                    else archives.unpack(archive, entry, self._scratch)
                )
                self.zip(inner, (*above, *PurePosixPath(path).with_suffix("").parts), depth + 1)
            elif name.lower().endswith(".csv"):
                self._table(VotesTable(f"{archive.name}/{path}", archive, entry, "/".join((*above, path))))


def _in_zip(name: str) -> bytes:
    """A name in a zip as bytes that do not depend on the machine's locale."""
    return name.encode("utf-8", "surrogateescape")


def _walk(root: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, str, os.stat_result]]:
    """Yield folder (relative to `root`, with a trailing slash), name and status of every file that is not hidden.

    Files come one at a time, however many a folder holds. Links to folders are followed, except to an enclosing folder.
    """
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while pending:
        folder, around = pending.pop()
        status = os.stat(root / folder)
        here = (status.st_dev, status.st_ino)
        if here in around:
            continue
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if not _visible(entry.name):
                    continue
                try:
                    status_of_entry = entry.stat()
                except OSError:
                    if entry.is_symlink() and not entry.name.lower().endswith((*suffixes, ".zip", ".csv")):
                        continue  # a dangling link that is not named like an image, zip or table
                    raise
                if stat.S_ISDIR(status_of_entry.st_mode):
                    pending.append((f"{folder}{entry.name}/", (*around, here)))
                elif stat.S_ISREG(status_of_entry.st_mode):
                    yield folder, entry.name, status_of_entry


def _same_bytes(images: Listing, first: int, second: int, reader: ImageReader) -> bool:
    """Whether two images have the same bytes; images with the same CRC-32 may still differ."""
    if images.size[first] != images.size[second] or images.size[first] > MAX_BYTES:
        return False
    try:
        return reader.read(images, first).data == reader.read(images, second).data
    except ImageError:  # one is damaged in its zip, whose list still holds the CRC-32 of the intact image
        first_crc, second_crc = (
            reader.read(images, row).crc if images.method[row] == PLAIN else int(images.crc[row]) for row in (first, second)
        )
        return first_crc == second_crc


def _one_each(source: Path, images: Listing) -> Listing:
    """Return the images sorted by galaxy, one per galaxy.

    Of copies with the same bytes one is kept: in a split folder rather than elsewhere, outside zips rather than in one.
    Raises SourceError, naming both, for different images of one galaxy and for copies in two splits.
    """

    def split_of(row: int) -> str:
        return images.places[images.place[row]].split

    order = np.argsort(images.galaxy_id, kind="stable")
    ids = images.galaxy_id[order]
    again = np.flatnonzero(ids[1:] == ids[:-1]) + 1
    if not len(again):
        return images.rows(order)
    drop = np.zeros(len(order), bool)
    starts = np.unique(np.searchsorted(ids, ids[again]))
    with ImageReader() as reader:
        for start in starts:
            stop = int(np.searchsorted(ids, ids[start], "right"))
            group = sorted(
                map(int, order[start:stop]), key=lambda row: (not split_of(row), images.method[row] != PLAIN, images.path(row))
            )
            for other in group[1:]:
                both = sorted((images.shown(group[0]), images.shown(other)))
                if not _same_bytes(images, group[0], other, reader):
                    raise SourceError(
                        f"{source}: galaxy {ids[start]} has two different images, {both[0]} and {both[1]}: remove one of them"
                    )
                if split_of(other) not in ("", split_of(group[0])):
                    raise SourceError(
                        f"{source}: galaxy {ids[start]} is in two splits, {both[0]} and {both[1]}: remove one of them"
                    )
            order[start] = group[0]
            drop[start + 1 : stop] = True
    return images.rows(order[~drop])


def _walked(finder: _Finder, path: Path) -> bool:
    """Collect the contents of `path`; return whether it is a folder or zip."""
    local_path(path)
    if path.is_dir():
        finder.folder(path)
    elif path.is_file() and path.suffix.lower() == ".zip":
        finder.zip(archives.open_zip(path), ())
    else:
        return False
    return True


def find_source(path: Path, scratch: Path) -> Source:
    """Find the images (JPEG, PNG) and tables of votes in a folder or zip, at any depth, including zips inside it.

    `scratch`: a folder for copies of zips that are compressed inside another zip; all others are read in place.
    Raises SourceError if `path` is missing or has no images, a zip cannot be read, or two different images have the
    same id.
    """
    finder = _Finder(scratch, IMAGE_SUFFIXES)
    if not _walked(finder, path):
        what = "not a folder or zip" if path.exists() else "no such folder or zip"
        raise SourceError(f"{path}: {what}: give --src the folder or zip that holds the images and the table of votes")
    images = finder.images.listing()
    if not len(images):
        raise SourceError(f"{path}: holds no JPEG or PNG images: give --src the folder or zip that holds them")
    return Source(path, _one_each(path, images), tuple(finder.tables), tuple(finder.others))


def find_images(path: Path, scratch: Path, suffixes: tuple[str, ...]) -> Listing:
    """Find the images to predict: one file, or those in a folder or zip as in `find_source`, sorted by galaxy, one per galaxy.

    `suffixes`: those of image names, in lower case, with the dot. Raises SourceError as `find_source` does.
    """
    finder = _Finder(scratch, suffixes)
    known = ", ".join(suffixes)
    if not _walked(finder, path):
        if not path.exists():
            raise SourceError(f"{path}: no such file or folder: give --images an image, or a folder or zip of images")
        if not path.is_file() or not path.name.lower().endswith(suffixes):
            raise SourceError(
                f"{path}: not an image ({known}), folder or zip: give --images an image, or a folder or zip of images"
            )
        finder.file(path)
    images = finder.images.listing()
    if not len(images):
        raise SourceError(f"{path}: holds no images ({known}): give --images the folder or zip that holds them")
    return _one_each(path, images)


def solutions_table(
    source: Source, given: Path | None, usual: tuple[str, ...], holds_votes: Callable[[bytes], bool]
) -> VotesTable | None:
    """Return the table of votes: the one `given`, else the only one in the source, else None.

    usual: the tree's own names of its table, which count before Kaggle's; they may start with folders. holds_votes: whether the
    first line of a CSV file is that of a table of votes: asked of all CSV files if none has a usual name. Copies with the same
    bytes count once. Raises SourceError if several differ, or the given one is not a table.
    """
    if given is not None:
        return _given(given)
    tables = tuple(table for table in source.others if table.is_called(usual)) or source.solutions
    tables = tables or tuple(table for table in source.others if holds_votes(table.first_line()))
    refuse_several(source, tables, "table of votes", "choose one with --solutions FILE")
    return tables[0] if tables else None


def refuse_several(source: Source, tables: Sequence[VotesTable], what: str, cure: str) -> None:
    """Raise SourceError if tables of which a source must have one differ."""
    if len(tables) > 1 and len({hashlib.sha256(table.read()).digest() for table in tables}) > 1:
        several = ", ".join(sorted(table.path for table in tables))
        raise SourceError(f"{source.path}: more than one {what} ({several}): {cure}")


def _given(path: Path) -> VotesTable:
    local_path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise SourceError(f"{path}: {what}: give --solutions the table of votes, a CSV file or a zip of one")
    archive = archives.open_zip(path)
    if path.suffix.lower() != ".zip":
        return VotesTable(str(path), archive)
    tables = [
        VotesTable(f"{path}/{entry.name}", archive, entry, f"{path.stem}/{entry.name}")
        for entry in archives.entries(archive)
        if entry.name.lower().endswith(".csv") and all(map(_visible, entry.name.split("/")))
    ]
    named = [table for table in tables if table.is_called(SOLUTIONS_NAMES)] or tables
    if len(named) != 1:
        raise SourceError(f"{path}: holds {len(named)} CSV files: give --solutions the one with the votes")
    return named[0]
