"""A catalogue: a table whose rows name image files, or hold the images, perhaps with their votes. Which column holds what."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from preprocess.fitting import ID_COLUMNS, PATH_COLUMNS, Fit, Header, Wanted, choose_fit, fits
from preprocess.joining import stem_of
from preprocess.solutions import Columns, Ids
from preprocess.sources import IMAGE, IMAGE_SUFFIXES, TABLE_SUFFIXES, WHOLE, LeftAlone, archive_advice, name_of, suffix_of
from preprocess.tablefile import TableFile
from preprocess.tables import TypedFile, glance_at_parquet, is_packed_table, open_file, open_parts, schema_of_parquet
from preprocess.votes import Fractions
from tfrecords.builtin import builtin_tree
from tfrecords.errors import SourceError
from tfrecords.tree import Tree

# Rows in memory at a time, without and with their images.
_ROWS, _IMAGES = 16_384, 1_024
# How JPEG and PNG begin.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG")
# The split in the name of a file of Hugging Face's, as in train-00000-of-00004.parquet.
_SPLIT = re.compile(r"([a-z]+)-\d+")


class Rows(NamedTuple):
    """Consecutive rows that hold anything, `numbers` below the header.

    ids: as in the table, int64 or str; None without such a column. paths: of images, relative to the root; None if there are
    none. votes: float64 (rows, columns of votes). images: a pyarrow array, None if they are not read.
    """

    numbers: np.ndarray
    ids: np.ndarray | None
    paths: np.ndarray | None
    votes: np.ndarray
    images: Any

    def name(self, row: int, parts: int) -> str:
        """The name of a galaxy: its id, with the suffix of an image if `parts` is WHOLE; else the last parts of its path."""
        if self.ids is None:
            return name_of(str(given(self.paths)[row]), parts)
        return str(self.ids[row]) if parts == WHOLE else stem_of(str(self.ids[row]))


def given(column: np.ndarray | None) -> np.ndarray:
    assert column is not None
    return column


@dataclass(frozen=True)
class Catalogue:
    """A table that was opened, and its columns: empty or None where it lacks one.

    id, path, image: as the table writes them. root: the folder to which paths are relative. ids: reads the ids. remarks: a
    sentence for each kind of thing beside it that is not read.
    """

    table: TableFile
    votes: tuple[Fit, Columns] | None
    id: str
    path: str
    image: str
    root: str = "/"
    ids: Ids | None = None
    remarks: tuple[str, ...] = ()

    @property
    def texts(self) -> list[str]:
        """The columns of ids and paths."""
        return [*dict.fromkeys(column for column in (self.id, self.path) if column)]

    @property
    def tree(self) -> Tree:
        return self.votes[0].tree if self.votes else builtin_tree()

    def rows(self, votes: bool = True, images: bool = False) -> Iterator[Rows]:
        """All rows, in parts. votes, images: whether to read them."""
        numbers = self.votes[1].written if self.votes and votes else []
        for frame, pictures in self.frames(numbers, images):
            ids = self.ids.read(frame[self.id]) if self.ids is not None else None
            paths = self._relative(frame[self.path]) if self.path else None
            yield Rows(frame.index.to_numpy(), ids, paths, frame[numbers].to_numpy(np.float64), pictures)

    def frames(self, numbers: list[str], images: bool = False) -> Iterator[tuple[Any, Any]]:
        """Ids, paths and these numbers as data frames; and the images as a pyarrow array, None if they are not read."""
        texts = self.texts
        if not self.image:
            yield from ((frame, None) for frame in self.table.frames(texts, numbers, _ROWS) if len(frame))
            return
        assert isinstance(self.table, TypedFile)  # only Parquet holds images
        first = 1
        for batch in self.table.batches([*texts, *numbers, *([self.image] if images else [])], _IMAGES if images else _ROWS):
            pictures = batch.column(self.image) if images else None
            yield self.table.frame_of(batch, texts, numbers, first), pictures
            first += len(batch)

    def _relative(self, paths: Any) -> np.ndarray:
        """Paths relative to the root. Raises SourceError, with the row, if one is missing."""
        if blank := [row for row, path in paths.items() if not path]:
            raise SourceError(f"{self.table.path}: {self.path} is missing in row {blank[0]} below the header: correct it")
        folder, below = _folder(self.table), f"{self.root.rstrip('/')}/"
        inside = self.root == folder
        return np.array(
            [path if inside and _is_plain(path) else _absolute(folder, path).removeprefix(below) for path in paths], object
        )

    def fractions(self, rows: Rows, assume: bool) -> tuple[np.ndarray, Fractions | None]:
        """Which rows have votes, bool (rows,), and the votes of those with values; None if no row has any.

        assume: as in `fractions_of`.
        """
        there = ~np.isnan(rows.votes).all(axis=1)
        if self.votes is None or not there.any():
            return there, None
        names = np.array([f"in row {number}" for number in rows.numbers]) if rows.ids is None else rows.ids
        fractions = self.votes[1].fractions(names[there], rows.votes[there], assume, judged=True)
        there[there] = ~fractions.empty
        return there, fractions


def _folder(table: TableFile) -> str:
    """The folder of a table, as an absolute path."""
    return os.path.dirname(os.path.abspath(table.path))


def _absolute(folder: str, path: str) -> str:
    """A path that is relative to a folder, unless it is absolute; links are not resolved."""
    return os.path.normpath(os.path.join(folder, path))


def _is_plain(path: str) -> bool:
    """Whether a path is relative, and written in the only way that leads below its folder."""
    return not (path.startswith(("/", "./")) or ".." in path or "//" in path or "/./" in path)


def is_catalogue(src: Path) -> bool:
    """Whether a source is a table: no archive and no image, a zip of one table, or a folder of Parquet files with images."""
    if src.is_dir():
        return bool(_parts_of(src))
    if src.is_file() and src.name.lower().endswith(".zip"):
        return is_packed_table(src)
    return src.is_file() and not src.name.lower().endswith(IMAGE_SUFFIXES) and not archive_advice(src.name)


def _parts_of(folder: Path) -> tuple[Path, ...]:
    """The Parquet files with images in a folder or else in its folder `data`, as Hugging Face's datasets have them."""
    for place in (folder, folder / "data"):
        schemas: dict[Path, Any] = {}
        column, header = "", []
        for path in sorted(path for path in place.glob("*.parquet") if _is_visible(path.name)):
            glance = glance_at_parquet(path)
            schemas[path] = None if glance is None else glance.schema
            if glance is not None and not column and (column := _image_column(glance)):
                header = glance.schema.names
        if column:  # a file that cannot be read may be a part too, and is refused later
            return tuple(
                path
                for path, schema in schemas.items()
                if schema is None or schema.names == header or (column in schema.names and _bears(schema.field(column).type))
            )
    return ()


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _bears(kind: Any) -> bool:
    """Whether a column of this type may hold images: bytes, or a struct with bytes."""
    import pyarrow as pa

    if not pa.types.is_struct(kind):
        return _is_bytes(kind)
    return any(kind.field(place).name == "bytes" and _is_bytes(kind.field(place).type) for place in range(kind.num_fields))


def _image_column(table: TableFile) -> str:
    """The column that holds images; empty if there is none.

    Bytes may also be texts, as astropy writes them: then the first value decides.
    """
    schema = table.schema if isinstance(table, TypedFile) else None
    if schema is None:
        return ""
    assert isinstance(table, TypedFile)
    kinds = {name: kind for name, kind in zip(schema.names, schema.types, strict=True) if _bears(kind)}
    for name in sorted(kinds, key=lambda name: name.lower() != IMAGE):
        if not _is_bytes(kinds[name]):
            return name
        value = table.first_value(name)
        if value is not None and value.startswith(_BEGINNINGS):
            return name
        is_path = value is not None and value.lower().rstrip().endswith(tuple(suffix.encode() for suffix in IMAGE_SUFFIXES))
        if name.lower() == IMAGE and not is_path:
            return name
    return ""


def _refuse_other_types(parts: Sequence[Path], image: str) -> None:
    """Raise SourceError if a part holds something else in its column of images."""
    import pyarrow as pa

    for path in parts:
        kind = schema_of_parquet(path).field(image).type
        if not _bears(kind) and not pa.types.is_null(kind):
            raise SourceError(f"{path}: column {image} holds {kind}, not images: give a folder whose files are one table")


def _remarks(folder: Path, parts: Sequence[Path]) -> Iterator[str]:
    """A sentence for each kind of file of a folder that is not read, and one if its files have several splits."""
    splits = Counter(name[1] if (name := _SPLIT.match(path.name)) else "others" for path in parts)
    if len(splits) > 1:
        counts = ", ".join(f"{split} ({number} file{'s' * (number > 1)})" for split, number in splits.items())
        yield f"{folder}: all its files are one table, whose galaxies are split anew: {counts}"
    left: Counter[str] = Counter()
    tables, archives = [], []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(filter(_is_visible, folders))
        for path in sorted(Path(place, name) for name in names if _is_visible(name)):
            if path in parts:
                continue
            if path.name.lower().endswith(TABLE_SUFFIXES):
                tables.append(path)
            elif archive_advice(path.name):
                archives.append(str(path))
            else:
                left[suffix_of(path.name) or "without a suffix"] += 1
    if tables:
        others = len(tables) - 1
        more = f" and {others} other table{'s' * (others > 1)} are" if others else " is"
        yield f"{tables[0]}{more} not used"
    yield from LeftAlone(left, tuple(archives), ()).lines()


def _votes_of(table: TableFile, wanted: Wanted) -> tuple[Fit, Columns] | None:
    """The tree of a catalogue and its columns of votes; None if it has none. Raises SourceError if some were asked for."""
    candidates = fits(table.header, wanted, with_id=False)
    if wanted.tree is not None or wanted.votes or not candidates[0].missing:
        fit = choose_fit(table.path, table.header, wanted, with_id=False)
        return fit, Columns(table.path, Header(table.header), fit)
    near = candidates[0]
    if 2 * len(near.missing) < len(near.columns):
        cure = f"add {'it' if len(near.missing) == 1 else 'them'}, or remove the tree's other columns"
        raise SourceError(f"{table.path}: {near.lacks} of tree {near.tree.name}: {cure}")
    return None


def open_catalogue(src: Path, wanted: Wanted) -> Catalogue:
    """Open a catalogue, and find its columns. Raises SourceError if it names no images."""
    parts = _parts_of(src) if src.is_dir() else ()
    table = open_parts(src, parts) if parts else open_file(src)
    header = Header(table.header)
    for flag, column in (("--id_column", wanted.id_column), ("--path_column", wanted.path_column)):
        if column and column not in header:
            raise SourceError(f"{src}: has no column {column}: give {flag} one of {', '.join(table.header[:8])}")
    votes = _votes_of(table, wanted)
    image = "" if wanted.path_column else _image_column(table)
    if image:
        _refuse_other_types(parts, image)
    path = "" if image else next((name for name in (wanted.path_column, *PATH_COLUMNS) if name and name in header), "")
    if not image and not path:
        raise SourceError(
            f"{src}: names no images: it needs a column with their paths ({', '.join(PATH_COLUMNS)}; or name it with "
            "--path_column), or with the images themselves; if it holds the votes on a folder of images, give --src FOLDER "
            f"--solutions {src}"
        )
    # Images that a second table maps to ids are galaxies by their files, as in folders.
    by_file = bool(path and votes and votes[0].tree.files and not wanted.id_column)
    own = votes[0].tree.id if votes else ""
    usual = [] if by_file else [name for name in (own, *ID_COLUMNS) if name not in PATH_COLUMNS]
    identity = next((name for name in (wanted.id_column, *usual) if name and name in header), "")
    if image and not identity:
        raise SourceError(f"{src}: has no column with the ids of galaxies: name it with --id_column")
    header.refuse_twice(str(src), [name for name in (identity, path) if name])
    written = [header.written(name) if name else "" for name in (identity, path, image)]
    remarks = tuple(_remarks(src, parts)) if parts else ()
    return _looked(Catalogue(table, votes, written[0], written[1], written[2], remarks=remarks))


def _looked(catalogue: Catalogue) -> Catalogue:
    """A catalogue with what follows from all of its rows: its root, and the kind of its ids.

    Raises SourceError if its ids cannot be read, or its counts are none.
    """
    table, columns = catalogue.table, catalogue.votes[1] if catalogue.votes else None
    ids = Ids(table.path, catalogue.id) if catalogue.id else None
    root = _Root(_folder(table))
    likeness = columns.likeness() if columns is not None else None
    numbers = columns.written if columns is not None and likeness is not None else []
    for frame, _ in catalogue.frames(numbers):
        if ids is not None:
            ids.look(frame[catalogue.id])
        if catalogue.path:
            root.look(frame[catalogue.path])
        if columns is not None and likeness is not None:
            columns.look(likeness, frame[numbers].to_numpy(np.float64))
    if likeness is not None:
        likeness.refuse()
    return replace(catalogue, root=root.folder() if catalogue.path else "/", ids=ids)


class _Root:
    """The folder to which paths are relative: that of the table or, if files lie elsewhere, the deepest that holds them all."""

    def __init__(self, here: str) -> None:
        self._here, self._common = here, ""
        self._inside = False

    def look(self, paths: Iterable[str]) -> None:
        """Take note of some paths."""
        below = f"{self._here.rstrip('/')}/"
        for path in paths:
            folder = self._here if _is_plain(path) else os.path.dirname(_absolute(self._here, path))
            if f"{folder}/".startswith(below):
                self._inside = True
            else:
                self._common = os.path.commonpath([self._common, folder]) if self._common else folder

    def folder(self) -> str:
        """The root of all paths so far."""
        both = os.path.commonpath([self._here, self._common]) if self._inside and self._common else self._common
        return both or self._here
