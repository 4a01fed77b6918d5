"""A catalogue: a table whose rows name image files, or hold the images, perhaps with their votes. Which column holds what."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from preprocess.fitting import ID_COLUMNS, PATH_COLUMNS, Fit, Header, Wanted, choose_fit, fits
from preprocess.joining import stem_of
from preprocess.solutions import Columns, ids_of
from preprocess.sources import IMAGE, IMAGE_SUFFIXES, archive_advice, name_of
from preprocess.tablefile import TableFile
from preprocess.tables import TypedFile, open_file, open_parts, schema_of_parquet
from preprocess.votes import Fractions
from tfrecords.builtin import builtin_tree
from tfrecords.errors import SourceError
from tfrecords.tree import Tree

# Rows in memory at a time, without and with their images.
_ROWS, _IMAGES = 16_384, 1_024


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
        """The name of a galaxy: its id or, without one, the last parts of its path."""
        return stem_of(str(self.ids[row])) if self.ids is not None else name_of(str(given(self.paths)[row]), parts)


def given(column: np.ndarray | None) -> np.ndarray:
    assert column is not None
    return column


@dataclass(frozen=True)
class Catalogue:
    """A table that was opened, and its columns: empty or None where it lacks one.

    id, path, image: as the table writes them. root: the folder to which paths are relative.
    """

    table: TableFile
    votes: tuple[Fit, Columns] | None
    id: str
    path: str
    image: str
    root: str

    @property
    def tree(self) -> Tree:
        return self.votes[0].tree if self.votes else builtin_tree()

    def rows(self, votes: bool = True, images: bool = False) -> Iterator[Rows]:
        """All rows, in parts. votes, images: whether to read them."""
        texts = [*dict.fromkeys(column for column in (self.id, self.path) if column)]
        numbers = self.votes[1].written if self.votes and votes else []
        for frame, pictures in self._frames(texts, numbers, images):
            ids = ids_of(self.table.path, self.id, frame[self.id]) if self.id else None
            paths = self._relative(frame[self.path]) if self.path else None
            yield Rows(frame.index.to_numpy(), ids, paths, frame[numbers].to_numpy(np.float64), pictures)

    def _frames(self, texts: list[str], numbers: list[str], images: bool) -> Iterator[tuple[Any, Any]]:
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
        there = np.isfinite(rows.votes).any(axis=1)
        if self.votes is None or not there.any():
            return there, None
        names = np.array([f"in row {number}" for number in rows.numbers]) if rows.ids is None else rows.ids
        fractions = self.votes[1].fractions(names[there], rows.votes[there], assume)
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
    """Whether a source is a table: a file that is neither archive nor image, or a folder of Parquet files that hold images."""
    if src.is_dir():
        parts = _parts_of(src)
        return bool(parts) and bool(_image_column(schema_of_parquet(parts[0])))
    return src.is_file() and not src.name.lower().endswith((".zip", *IMAGE_SUFFIXES)) and not archive_advice(src.name)


def _parts_of(folder: Path) -> list[Path]:
    """The Parquet files of a folder, as Hugging Face's datasets have them."""
    return sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))


def _image_column(schema: Any) -> str:
    """The column that holds images: bytes, or a struct with bytes; empty if there is none, or no schema."""
    if schema is None:
        return ""
    import pyarrow as pa

    def holds_bytes(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(kind.field(place).name == "bytes" and holds_bytes(kind.field(place).type) for place in range(len(kind)))
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    names = [name for name, kind in zip(schema.names, schema.types, strict=True) if holds_bytes(kind)]
    return next((name for name in names if name.lower() == IMAGE), names[0] if names else "")


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
    table = open_parts(src, _parts_of(src)) if src.is_dir() else open_file(src)
    header = Header(table.header)
    for flag, column in (("--id_column", wanted.id_column), ("--path_column", wanted.path_column)):
        if column and column not in header:
            raise SourceError(f"{src}: has no column {column}: give {flag} one of {', '.join(table.header[:8])}")
    votes = _votes_of(table, wanted)
    image = "" if wanted.path_column else _image_column(table.schema if isinstance(table, TypedFile) else None)
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
    catalogue = Catalogue(table, votes, written[0], written[1], written[2], "/")
    return replace(catalogue, root=_root(catalogue)) if path else catalogue


def _root(catalogue: Catalogue) -> str:
    """The folder to which paths are relative: that of the table or, if files lie elsewhere, the deepest that holds them all."""
    here, common = _folder(catalogue.table), ""
    inside = False
    for frame in catalogue.table.frames([catalogue.path], [], _ROWS):
        for path in frame[catalogue.path]:
            folder = here if _is_plain(path) else os.path.dirname(_absolute(here, path))
            if folder == here or f"{folder}/".startswith(f"{here.rstrip('/')}/"):
                inside = True
            else:
                common = os.path.commonpath([common, folder]) if common else folder
    return os.path.commonpath([here, common]) if inside and common else common or here
