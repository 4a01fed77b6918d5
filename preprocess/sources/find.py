"""Find the images and the table of votes: in a folder, a zip, zips in a zip, or any mixture of them.

A galaxy's id is the number in the name of its file, or else a hash of its path. The path is relative to the zip that holds it
or else to the given folder, so that a dataset does not depend on where its source lay or whether it was packed.
"""

import errno
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from preprocess.sources import archives
from preprocess.sources.identity import hashed_id, identified, number_of
from preprocess.sources.layers import grouped, is_fits
from preprocess.sources.left import ARCHIVES, NOTHING_LEFT, LeftAlone, archive_advice, suffix_of
from preprocess.sources.listing import FITS_SUFFIXES, PLAIN, Listing, ListingBuilder, Place
from tfrecords.decoding import MOST_UNPACKED, unpacked_limit
from tfrecords.errors import SourceError
from tfrecords.files import local_path

# Pictures of 8 bits; those of FITS are in `listing`.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".webp", ".bmp")
IMAGE_KINDS = "JPEG, PNG, TIFF, WebP, BMP or FITS"
_SUFFIXES = (*IMAGE_SUFFIXES, *FITS_SUFFIXES)
_FITS = (b".fit", b".fts")
SOLUTIONS_NAMES = ("training_solutions_rev1.csv", "target_data/targets.csv")
# A source that is already split, like the article's: its galaxies keep their splits.
SPLIT_FOLDERS = {"train_images": "train", "validation_images": "validation", "test_images": "test"}
TRAINING_FOLDERS = ("train_images", "validation_images", "images_training_rev1", "images_train_rev1")
_MAX_DEPTH = 4
_LONGEST_HEADER = 1_000_000
TABLE_SUFFIXES = tuple(f"{suffix}{packed}" for suffix in (".csv", ".tsv", ".parquet") for packed in ("", ".gz"))
# A given zip may hold tables that in folders are taken for images.
_GIVEN_SUFFIXES = (*TABLE_SUFFIXES, *(f"{suffix}{packed}" for suffix in (".fits", ".fit") for packed in ("", ".gz")))
_BROKEN = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_TABLES_SHOWN = 3
_SPECIAL = "special (pipe, socket or device)"
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

    @property
    def size(self) -> int:
        """The number of its bytes, unpacked."""
        return self.archive.path.stat().st_size if self.entry is None else self.entry.size

    def is_called(self, names: Iterable[str]) -> bool:
        """Whether its place ends with one of these names, packed or not; they may start with folders."""
        place = f"/{self.place}"
        return any(place.endswith((f"/{name}", f"/{name}.gz")) for name in names)

    def check_size(self) -> None:
        """Raise SourceError for a table in a zip that is far larger than its packed bytes."""
        if self.entry is not None and self.entry.size > unpacked_limit(self.entry.stored):
            raise SourceError(
                f"{self.path}: has {self.entry.size / 1e6:,.0f} MB unpacked, more than {MOST_UNPACKED} times its "
                "packed size, as in a zip bomb: check it, and unzip it"
            )

    def start(self) -> bytes:
        """The first bytes, with the names of its columns, as they are in the file."""
        if self.entry is not None:
            return self.read()
        with self.archive.path.open("rb") as file:
            return file.read(_LONGEST_HEADER)

    def read(self) -> bytes:
        """Return its bytes, unpacked. Raises SourceError if it is damaged in its zip, or as `check_size` does."""
        if self.entry is None:
            return self.archive.path.read_bytes()
        self.check_size()
        return archives.read_entry(self.archive, self.entry)


@dataclass(frozen=True)
class Source:
    """The images, sorted by galaxy and one per galaxy, and the tables. `path`: as the user gave it.

    solutions: tables of votes by their names. others: all other tables. left: files that are neither. clash: a sentence about
    the first two images that have the same number in their names and are not the same; empty if there are none.
    """

    path: Path
    images: Listing
    solutions: tuple[VotesTable, ...]
    others: tuple[VotesTable, ...] = ()
    left: LeftAlone = NOTHING_LEFT
    clash: str = ""


def _visible(part: str) -> bool:
    return not part.startswith(".") and part != "__MACOSX"


def place_of(container: Path, shown: str, folder: bytes, above: tuple[str, ...] = ()) -> Place:
    """A folder of images. above: names of the enclosing folders and zips, as if each were a folder."""
    parts = {*above, *PurePosixPath(os.fsdecode(folder)).parts}
    split = next((SPLIT_FOLDERS[part] for part in SPLIT_FOLDERS if part in parts), "")
    return Place(container, shown, folder, split, not parts.isdisjoint(TRAINING_FOLDERS))


class _Finder:
    """Collects images and tables in one walk through a source."""

    def __init__(self, scratch: Path, tables: bool = True) -> None:
        """tables: whether tables matter."""
        self.images = ListingBuilder()
        self.tables: list[VotesTable] = []
        self.others: list[VotesTable] = []
        self.left: Counter[str] = Counter()
        self.archives: list[str] = []
        self.links: list[str] = []
        self._scratch = scratch
        self._room = 0
        self._needed = (".zip", *TABLE_SUFFIXES) if tables else (".zip",)
        self._here: tuple[Path, str, bytes] = (Path(), "", b"")
        self._split = ""

    def _place(self, container: Path, shown: str, above: tuple[str, ...], folder: bytes) -> None:
        """Set the place of the next images. `above`: names of the enclosing folders and zips, as if each were a folder."""
        if (container, shown, folder) == self._here:
            return
        self._here = (container, shown, folder)
        place = place_of(container, shown, folder, above)
        self._split = place.split
        self.images.enter(place)

    def _add(self, name: bytes, position: int, stored: int, size: int, crc: int, method: int) -> None:
        number = number_of(name, self._split)
        galaxy_id = hashed_id(self._here[2] + name) if number < 0 else number
        self.images.add(galaxy_id, name, position, stored, size, crc, method, number < 0)

    def folder(self, root: Path) -> None:
        """Collect everything below a folder on disk."""
        for folder, name, status in _walk(root):
            if status is None:
                self._link(root / folder / name)
            elif not stat.S_ISREG(status.st_mode):
                self.left[_SPECIAL] += 1
            elif name.lower().endswith(_SUFFIXES):
                self._place(root, str(root), (), os.fsencode(folder))
                self._add(os.fsencode(name), status.st_ctime_ns, 0, status.st_size, 0, PLAIN)
            elif name.lower().endswith(".zip"):
                archive = archives.Zip(root / folder / name, f"{root}/{folder}{name}", 0, status.st_size)
                self.zip(archive, (*PurePosixPath(folder).parts, name[:-4]))
            elif name.lower().endswith(TABLE_SUFFIXES):
                archive = archives.Zip(root / folder / name, name, 0, status.st_size)
                self._table(VotesTable(f"{root}/{folder}{name}", archive, place=f"{folder}{name}"))
            else:
                self._leave(f"{root}/{folder}{name}")

    def _leave(self, path: str) -> None:
        """Count a file that is not read; name an archive."""
        suffix = suffix_of(path)
        if suffix in ARCHIVES:
            self.archives.append(path)
        else:
            self.left[suffix or ("with a long suffix" if "." in PurePosixPath(path).name else "without a suffix")] += 1

    def _link(self, path: Path) -> None:
        """Count a link that leads nowhere. Raises SourceError if it may stand for a folder, a zip or the votes."""
        name = path.name.lower()
        if name.endswith(self._needed) or not suffix_of(name):
            raise SourceError(f"{path}: is a link that leads nowhere: repair or remove the link")
        self.links.append(str(path))

    def listing(self, fits: bool) -> Listing:
        """The images, those of one galaxy's bands joined. fits: take FITS files beside pictures too, else leave them alone."""
        images = self.images.listing()
        if not any(suffix in images.names.lower() for suffix in _FITS):
            return images
        is_one = np.array([is_fits(images.path(row)) for row in range(len(images))], bool)
        if not fits and is_one.any() and not is_one.all():
            for row in np.flatnonzero(is_one).tolist():
                self._leave(images.path(row))
            return images.rows(np.flatnonzero(~is_one))
        return grouped(images)

    @property
    def left_alone(self) -> LeftAlone:
        return LeftAlone(dict(self.left), tuple(sorted(self.archives)), tuple(sorted(self.links)))

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
        if depth == 1:
            self._room = unpacked_limit(archive.length)
        for entry in archives.entries(archive):
            path = entry.name.removeprefix("./")
            if not all(map(_visible, path.split("/"))):
                continue
            folder, slash, name = path.rpartition("/")
            if name.lower().endswith(_SUFFIXES):
                self._place(archive.path, archive.name, above, _in_zip(folder + slash))
                self._add(_in_zip(name), entry.header, entry.stored, entry.size, entry.crc, entry.method)
            elif name.lower().endswith(".zip"):
                self.zip(self._inner(archive, entry), (*above, *PurePosixPath(path).with_suffix("").parts), depth + 1)
            elif name.lower().endswith(TABLE_SUFFIXES):
                self._table(VotesTable(f"{archive.name}/{path}", archive, entry, "/".join((*above, path))))
            else:
                self._leave(f"{archive.name}/{path}")

    def _inner(self, archive: archives.Zip, entry: archives.Entry) -> archives.Zip:
        """A zip inside a zip. Raises SourceError if too much would have to be unpacked from one file on disk."""
        if entry.method == archives.STORED:
            return archives.window(archive, entry)
        self._room -= entry.size
        if self._room < 0:
            raise SourceError(
                f"{archive.name}/{entry.name}: has {entry.size / 1e6:,.0f} MB unpacked, and the zips inside a zip may have "
                f"{MOST_UNPACKED} times the size of the file that holds them: unzip it, and give the folder"
            )
        return archives.unpack(archive, entry, self._scratch)


def _in_zip(name: str) -> bytes:
    """A name in a zip as bytes that do not depend on the machine's locale."""
    return name.encode("utf-8", "surrogateescape")


def _walk(root: Path) -> Iterator[tuple[str, str, os.stat_result | None]]:
    """Yield folder (relative to `root`, with a trailing slash), name and status of all that is not hidden and no folder.

    Files come one at a time, however many a folder holds. Links to folders are followed, except to an enclosing folder. The
    status of a link that leads nowhere is None; one that leads to what cannot be reached or read raises OSError.
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
                except OSError as error:
                    if error.errno not in _BROKEN or not entry.is_symlink():
                        raise
                    yield folder, entry.name, None
                    continue
                if stat.S_ISDIR(status_of_entry.st_mode):
                    pending.append((f"{folder}{entry.name}/", (*around, here)))
                else:
                    yield folder, entry.name, status_of_entry


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


def _instead(left: LeftAlone) -> str:
    """What there is instead of images, for the end of a sentence."""
    lines = [*left.lines()]
    return f" ({'; '.join(lines)})" if lines else ""


def find_source(path: Path, scratch: Path) -> Source:
    """Find the images and tables of votes in a folder or zip, at any depth, including zips inside it.

    FITS files are images where there are no others; beside pictures they are tables, or something else, and left alone.
    `scratch`: a folder for copies of zips that are compressed inside another zip; all others are read in place.
    Raises SourceError if `path` is missing or has no images, a zip cannot be read, two different images have the same path, or
    copies of an image lie in two splits.
    """
    finder = _Finder(scratch)
    if not _walked(finder, path):
        if path.exists() and (advice := archive_advice(path.name)):
            raise SourceError(f"{path}: {advice}")
        what = "not a folder or zip" if path.exists() else "no such folder or zip"
        raise SourceError(f"{path}: {what}: give --src the folder or zip that holds the images and the table of votes")
    images = finder.listing(fits=False)
    if not len(images):
        raise SourceError(
            f"{path}: holds no images ({IMAGE_KINDS}): give --src the folder or zip with them{_instead(finder.left_alone)}"
        )
    images, clash = identified(path, images)
    return Source(path, images, tuple(finder.tables), tuple(finder.others), finder.left_alone, clash)


def find_images(path: Path, scratch: Path) -> tuple[Listing, LeftAlone]:
    """Find the images to predict: one file, or those in a folder or zip as in `find_source`, sorted by galaxy, one per galaxy.

    Also returns what was left alone. Raises SourceError as `find_source` does.
    """
    finder = _Finder(scratch, tables=False)
    if not _walked(finder, path):
        if path.exists() and (advice := archive_advice(path.name)):
            raise SourceError(f"{path}: {advice}")
        if not path.exists():
            raise SourceError(f"{path}: no such file or folder: give --images an image, or a folder or zip of images")
        if not path.is_file() or not path.name.lower().endswith(_SUFFIXES):
            raise SourceError(
                f"{path}: not an image ({IMAGE_KINDS}), folder or zip: give --images an image, or a folder or zip of images"
            )
        finder.file(path)
    images = finder.listing(fits=True)
    if not len(images):
        raise SourceError(
            f"{path}: holds no images ({IMAGE_KINDS}): give --images the folder or zip with them{_instead(finder.left_alone)}"
        )
    return identified(path, images)[0], finder.left_alone


def solutions_table(
    source: Source, given: Path | None, usual: tuple[str, ...], holds_votes: Callable[[VotesTable], bool]
) -> VotesTable | None:
    """Return the table of votes: the one `given`, else the only one in the source, else None.

    usual: the tree's own names of its table, which count before Kaggle's; they may start with folders. holds_votes: whether a
    table has the columns of a table of votes: asked of all tables if none has a usual name. Copies with the same bytes count
    once. Raises SourceError if several differ, or the given one is not a table.
    """
    if given is not None:
        return _given(given)
    tables = tuple(table for table in source.others if table.is_called(usual)) or source.solutions
    tables = tables or tuple(table for table in source.others if holds_votes(table))
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
        what = "is a folder" if path.is_dir() else "is a pipe or device" if path.exists() else "no such file"
        raise SourceError(f"{path}: {what}: give --solutions the table of votes: CSV, Parquet or FITS, zipped or not")
    archive = archives.open_zip(path)
    if path.suffix.lower() != ".zip":
        return VotesTable(str(path), archive)
    tables = [
        VotesTable(f"{path}/{entry.name}", archive, entry, f"{path.stem}/{entry.name}")
        for entry in archives.entries(archive)
        if entry.name.lower().endswith(_GIVEN_SUFFIXES) and all(map(_visible, entry.name.split("/")))
    ]
    if not tables:
        raise SourceError(f"{path}: holds no table (.csv, .tsv, .parquet or .fits): give --solutions the table of votes")
    named = [table for table in tables if table.is_called(SOLUTIONS_NAMES)] or tables
    if len(named) > 1:
        several = ", ".join(table.name for table in named[:_TABLES_SHOWN]) + ", ..." * (len(named) > _TABLES_SHOWN)
        raise SourceError(
            f"{path}: holds {len(named)} tables ({several}): unzip it, and give --solutions the one with the votes"
        )
    return named[0]
