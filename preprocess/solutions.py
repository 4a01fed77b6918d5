"""Read a table of votes: which decision tree it follows, which columns hold the votes, and which row is which galaxy."""

import csv
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np

from preprocess.sources import IMAGE_SUFFIXES
from preprocess.votes import Numbers, fractions_of, named
from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.errors import SourceError, lacks_memory, squeezed
from tfrecords.tree import Layout, Tree

# Usual names of the column that identifies a galaxy, if the tree's own is missing.
ID_COLUMNS = (
    "GalaxyID", "id_str", "iauname", "dr7objid", "objid", "asset_id", "galaxy_id",
    "filename", "file", "path", "image", "name", "id",
)  # fmt: skip
KAGGLE_ID = "GalaxyID"
_AN_ID = f'an id ({", ".join(ID_COLUMNS[-6:])}; or name its column in the tree: id = "COLUMN")'
NO_NAMES: Mapping[str, int] = MappingProxyType({})
_LARGEST = 2**63 - 1
_SHOWN = 4


@dataclass(frozen=True)
class Fit:
    """How a table fits a tree: its layout, its id column, the columns that it lacks. columns: all that are needed."""

    tree: Tree
    layout: Layout
    id: str
    columns: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def share(self) -> float:
        """The fraction of the columns that is missing."""
        return len(self.missing) / (len(self.columns) + 1)

    @property
    def lacks(self) -> str:
        """What is missing, in words."""
        more = f" and {len(self.missing) - _SHOWN} more" if len(self.missing) > _SHOWN else ""
        return f"lacks {', '.join(self.missing[:_SHOWN])}{more}"


def _id_column(tree: Tree, header: Sequence[str]) -> str:
    """The column that identifies a galaxy: the tree's own, or for a tree without one the first of the usual names."""
    candidates = (tree.id,) if tree.id else ID_COLUMNS
    return next((name for name in candidates if name in header), "")


def _fit(tree: Tree, layout: Layout, header: Sequence[str]) -> Fit:
    there = {*header}
    columns = tuple(f"{column}{layout.suffix}" for column in tree.columns if column not in tree.rest)
    if tree.rest and layout.total:
        columns += tuple(f"{question.key}{layout.total}" for question in tree.questions)
    identity = _id_column(tree, header)
    missing = (() if identity else (tree.id or _AN_ID,)) + tuple(column for column in columns if column not in there)
    return Fit(tree, layout, identity, columns, missing)


def fits(header: Sequence[str], tree: Tree | None, layout: str = "") -> list[Fit]:
    """Every way in which a header could be read, the best first. tree: that of --tree, None to try ours; layout: --votes.

    Raises SourceError if no tree has such a layout.
    """
    trees = [builtin_tree(name) for name in builtin_names()] if tree is None else [tree]
    several = [_fit(one, way, header) for one in trees for way in one.layouts if layout in ("", way.name)]
    if not several:
        names = sorted({way.name for one in trees for way in one.layouts})
        who = f"tree {tree.name} has" if tree else "our trees have"
        raise SourceError(f"--votes {layout}: {who} no such votes: choose from {', '.join(names)}")
    return sorted(several, key=lambda fit: fit.share)


def choose_fit(path: str, header: Sequence[str], tree: Tree | None, layout: str = "") -> Fit:
    """The tree and the layout of a table. Raises SourceError, naming what the nearest tree misses, if none fits."""
    candidates = fits(header, tree, layout)
    whole = [fit for fit in candidates if not fit.missing]
    if whole:
        several = {fit.tree.name for fit in whole}
        if len(several) > 1:
            raise SourceError(f"{path}: fits more than one tree ({', '.join(sorted(several))}): choose one with --tree")
        return whole[0]
    near = candidates[0]
    columns = f"column {near.columns[0]}"
    if len(near.columns) > 1:
        columns = f"{len(near.columns)} columns {near.columns[0]} to {near.columns[-1]}"
    needed = f"it must have {near.tree.id or 'an id'} and the {columns}"
    if tree is None:
        needed += f" of tree {near.tree.name}, the nearest; for a survey of your own give --tree FILE"
    raise SourceError(f"{path}: {near.lacks}: {needed}")


@dataclass(frozen=True)
class Votes:
    """The votes of galaxies: `galaxy_ids` int64 (n,), ascending; `targets` float32 (n, answers) in the order of the tree.

    sha256: of the table; empty without one. warnings: a sentence for each oddity that does not prevent its use. asked: float32
    (n, questions), how many volunteers answered each question; None if the table has no counts. estimated: whether `asked` is
    only assumed. layout: how the table holds the votes. unmatched: rows of the table that belong to no image.
    """

    galaxy_ids: np.ndarray
    targets: np.ndarray
    sha256: str
    warnings: tuple[str, ...]
    tree: Tree = field(default_factory=builtin_tree)
    asked: np.ndarray | None = None
    estimated: bool = False
    layout: str = ""
    unmatched: int = 0

    def rows(self, galaxy_ids: np.ndarray) -> np.ndarray:
        """Row of each galaxy in the table, int64 (n,); -1 if it has none."""
        if not len(self.galaxy_ids):
            return np.full(len(galaxy_ids), -1)
        rows = np.searchsorted(self.galaxy_ids, galaxy_ids).clip(max=len(self.galaxy_ids) - 1)
        return np.where(self.galaxy_ids[rows] == galaxy_ids, rows, -1)

    def of(self, galaxy_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The targets of these galaxies, float32 (n, answers), NaN without votes; and `asked`, 0 without votes."""
        rows = self.rows(galaxy_ids)
        voted = rows >= 0
        targets = np.full((len(rows), len(self.tree.columns)), np.nan, np.float32)
        targets[voted] = self.targets[rows[voted]]
        if self.asked is None:
            return targets, None
        asked = np.zeros((len(rows), len(self.tree.questions)), np.float32)
        asked[voted] = self.asked[rows[voted]]
        return targets, asked


def no_votes(tree: Tree | None = None) -> Votes:
    """The votes of a source without a table."""
    tree = tree or builtin_tree()
    return Votes(np.zeros(0, np.int64), np.zeros((0, len(tree.columns)), np.float32), "", (), tree)


@dataclass(frozen=True)
class Ballots:
    """A table that was read: the id of each row, as int64 or text, and its votes, as in `Votes`."""

    path: str
    fit: Fit
    ids: np.ndarray
    targets: np.ndarray
    asked: np.ndarray | None
    estimated: bool
    sha256: str
    warnings: tuple[str, ...]

    def votes(self, names: Mapping[str, int] = NO_NAMES, files: Mapping[str, str] | None = None) -> Votes:
        """The votes by galaxy.

        names: path and stem of the file -> galaxy id, of images whose names are not numbers. files: id -> name of the file,
        if a second table maps one to the other. Raises SourceError if two rows belong to one image.
        """
        ids = self.ids
        if files is not None or ids.dtype != np.int64:
            keys = ids.astype(str).tolist()
            if files is not None:
                keys = [files.get(key, "") for key in keys]
            ids = np.fromiter((galaxy_of(key, names) for key in keys), np.int64, len(keys))
        kept = np.flatnonzero(ids >= 0)
        unique, counts = np.unique(ids[kept], return_counts=True)
        if (counts > 1).any():
            twice = self.ids[kept][np.isin(ids[kept], unique[counts > 1])]
            raise SourceError(
                f"{self.path}: {named([*dict.fromkeys(twice.tolist())])} belong to one image: keep one row per galaxy"
            )
        order = kept[np.argsort(ids[kept])]
        asked = None if self.asked is None else self.asked[order].astype(np.float32)
        return Votes(
            ids[order], self.targets[order].astype(np.float32), self.sha256, self.warnings, self.fit.tree, asked,
            self.estimated, self.fit.layout.name, len(ids) - len(kept),
        )  # fmt: skip


def stem_of(key: str) -> str:
    """The stem of an image file: a key without its folder and suffix, or as it is if it has no suffix of images."""
    return PurePosixPath(key).stem if key.lower().endswith(IMAGE_SUFFIXES) else key


def galaxy_of(key: str, names: Mapping[str, int]) -> int:
    """The galaxy id of a row: that of the image with this path or name, else the number itself; -1 if it is neither.

    key: the path of a file, or its name with or without suffix. names: as in `Ballots.votes`.
    """
    stem = stem_of(key)
    for name in (key, stem):
        if name in names:
            return names[name]
    number = stem.lstrip("0") or stem[:1]
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 20 and int(number) <= _LARGEST else -1


def header_of(content: bytes) -> list[str]:
    """The names of the columns in the first line of a CSV file."""
    return next(csv.reader([content.split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip()]), [])


def _read_csv(path: str, content: bytes, **options: Any) -> Any:
    import pandas as pd

    try:
        # The only parser that guarantees the nearest float64.
        return pd.read_csv(io.BytesIO(content), float_precision="round_trip", **options)
    except (ValueError, UnicodeDecodeError) as error:
        if lacks_memory(error):  # pandas reports it as an error in the table
            raise MemoryError(path) from error
        raise SourceError(f"{path}: not a readable CSV file ({squeezed(error, None)}): check it") from error


def _ids(path: str, column: str, frame: Any, again: Callable[..., Any]) -> np.ndarray:
    """The ids of a table, int64 or text. Raises SourceError for missing ids, and for a GalaxyID that is not a whole number.

    again: reads the table once more, with other options.
    """
    values = frame[column]
    if values.dtype == np.int64:
        return np.asarray(values.to_numpy(np.int64))
    if column == KAGGLE_ID:
        raise SourceError(f"{path}: GalaxyID holds values that are not whole numbers below 2^63: correct them")
    # As they are written: a blank one would make numbers of all others, and a galaxy may be called NA.
    values = again(usecols=[column], dtype=str, keep_default_na=False)[column]
    texts = np.array([value.strip() if isinstance(value, str) else "" for value in values], object)
    if (blank := texts == "").any():
        raise SourceError(f"{path}: {column} is missing in row {int(np.argmax(blank)) + 1} below the header: correct it")
    return texts


def _floats(frame: Any, columns: Iterable[str]) -> np.ndarray:
    import pandas as pd

    return np.asarray(frame[list(columns)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64))


def _totals(frame: Any, fit: Fit) -> np.ndarray | None:
    """How many volunteers answered each question, float64 (rows, questions), if the table states it or has the counts."""
    there, tree = {*frame.columns}, fit.tree
    stated = [f"{question.key}{fit.layout.total}" for question in tree.questions]
    if fit.layout.total and there.issuperset(stated):
        return _floats(frame, stated)
    for layout in tree.layouts:
        counts = [f"{column}{layout.suffix}" for column in tree.columns]
        if fit.layout.kind == "fractions" and layout.kind == "counts" and there.issuperset(counts):
            counted = np.nan_to_num(_floats(frame, counts))
            return np.stack([counted[:, question.columns].sum(axis=1) for question in tree.questions], axis=1)
    return None


def read_table(path: str, content: bytes, tree: Tree | None = None, layout: str = "") -> Ballots:
    """A table of votes in a CSV file: a column of ids and those of a tree, in any order.

    path: the name of the file in messages; content: its bytes; tree: that of --tree, None to find it; layout: that of --votes.

    Raises SourceError, naming columns or galaxies, for missing columns, ids that are missing, duplicates, values that are
    missing, not finite or out of range, and sums that break the decision tree.
    """
    header = header_of(content)
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise SourceError(f"{path}: has the column {twice[0]} more than once: remove all but one")
    frame = _read_csv(path, content)
    if {"GalaxyId", KAGGLE_ID} <= {*frame.columns}:
        raise SourceError(f"{path}: has both a column GalaxyID and a column GalaxyId: remove one")
    frame = frame.rename(columns={"GalaxyId": KAGGLE_ID})  # Kaggle's page once wrote it so
    fit = choose_fit(path, [str(name) for name in frame.columns], tree, layout)
    if not len(frame):
        raise SourceError(f"{path}: has no rows: it must have one per galaxy")
    ids = _ids(path, fit.id, frame, partial(_read_csv, path, content))
    unique, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise SourceError(f"{path}: more than one row for {named(unique[counts > 1])}: keep one row per galaxy")
    values = np.full((len(frame), len(fit.tree.columns)), np.nan)
    there = [place for place, column in enumerate(fit.tree.columns) if column not in fit.tree.rest]
    values[:, there] = _floats(frame, (f"{fit.tree.columns[place]}{fit.layout.suffix}" for place in there))
    totals = _totals(frame, fit)
    fractions = fractions_of(Numbers(path, ids, values, totals), fit.tree, fit.layout)
    voted = ~fractions.empty
    warnings = list(fractions.warnings)
    if fractions.empty.any():
        warnings.append(f"{path}: no votes, so unlabelled: {named(ids[fractions.empty])}")
    if not voted.any():
        raise SourceError(f"{path}: no galaxy has any votes: check the table")
    asked = None if fractions.asked is None else fractions.asked[voted]
    return Ballots(
        path, fit, ids[voted], fractions.targets[voted], asked, fractions.estimated,
        hashlib.sha256(content).hexdigest(), tuple(warnings),
    )  # fmt: skip


def read_votes(path: str, content: bytes, tree: Tree | None = None, layout: str = "") -> Votes:
    """The votes of a table whose ids are numbers, as `read_table` reads them."""
    return read_table(path, content, tree, layout).votes()


def read_files(path: str, content: bytes, tree: Tree) -> list[tuple[str, str]]:
    """Ids and names of image files, from the second table of a tree. Raises SourceError if it lacks a column."""
    assert tree.files is not None
    header = header_of(content)
    for column in (tree.files.id, tree.files.file):
        if column not in header:
            raise SourceError(
                f"{path}: lacks the column {column}, which maps the votes of tree {tree.name} to image files: add it"
            )
    frame = _read_csv(path, content, dtype=str, usecols=[tree.files.id, tree.files.file], keep_default_na=False)
    return [(key.strip(), file.strip()) for key, file in zip(frame[tree.files.id], frame[tree.files.file], strict=True)]
