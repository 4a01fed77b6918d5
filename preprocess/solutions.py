"""Read a table of votes: the ids of its rows, and the votes of each."""

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from preprocess.fitting import ANYTHING, Fit, Header, Wanted, choose_fit
from preprocess.joining import stem_of
from preprocess.tables import open_table
from preprocess.votes import Fractions, Numbers, fractions_of, named
from tfrecords.builtin import builtin_tree
from tfrecords.errors import SourceError
from tfrecords.tree import Tree

KAGGLE_ID = "GalaxyID"
_WHOLE = re.compile(r"[+-]?(?:0|[1-9]\d*)")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d*)?(?:[eE][+-]?\d+)?")
_PADDED = re.compile(r"0\d+")
_EXACT = 2**53
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Votes:
    """The votes of galaxies: `galaxy_ids` int64 (n,), ascending; `targets` float32 (n, answers) in the order of the tree.

    sha256: of the table; empty without one. warnings: a sentence for each oddity that does not prevent its use. asked: float32
    (n, questions), how many volunteers answered each question; None if the table has no counts. estimated: whether `asked` is
    only assumed. layout: how the table holds the votes. unmatched: rows of the table that belong to no image. id_column: the
    column by which rows were joined with images.
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
    id_column: str = ""

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

    def votes(self, galaxy_ids: np.ndarray) -> Votes:
        """The votes by galaxy. galaxy_ids: int64, the galaxy of each row, -1 for rows without an image.

        Raises SourceError if two rows belong to one image.
        """
        kept = np.flatnonzero(galaxy_ids >= 0)
        unique, counts = np.unique(galaxy_ids[kept], return_counts=True)
        if (counts > 1).any():
            twice = self.ids[kept][np.isin(galaxy_ids[kept], unique[counts > 1])]
            raise SourceError(
                f"{self.path}: {named([*dict.fromkeys(twice.tolist())])} belong to one image: keep one row per galaxy"
            )
        order = kept[np.argsort(galaxy_ids[kept])]
        asked = None if self.asked is None else self.asked[order].astype(np.float32)
        return Votes(
            galaxy_ids[order], self.targets[order].astype(np.float32), self.sha256, self.warnings, self.fit.tree, asked,
            self.estimated, self.fit.layout.name, len(galaxy_ids) - len(kept), self.fit.id,
        )  # fmt: skip


def _whole(where: str, text: str) -> int:
    """A number as a whole one. Raises SourceError if it is none, or if its last digits may be lost. where: in messages."""
    number = Decimal(text.replace(",", "."))
    if number != number.to_integral_value():
        raise SourceError(f"{where}, which is not a whole number: correct it")
    exponent = number.as_tuple().exponent
    rounded = isinstance(exponent, int) and exponent > 0
    if rounded or (abs(number) > _EXACT and not _WHOLE.fullmatch(text)):
        raise SourceError(
            f"{where}, whose last digits are lost, as in a spreadsheet or a float: export the table again with this column as "
            "text or as whole numbers"
        )
    return int(number)


def ids_of(path: str, column: str, texts: Any) -> np.ndarray:
    """The ids of a table: int64 if all are whole numbers, else as they are written. texts: a pandas Series of str, by row.

    Numbers may end in .0 or in the suffix of an image; leading zeros make them names. Raises SourceError for missing ids, for
    numbers that are not whole or whose last digits may be lost, and for a GalaxyID that is not a number among others that are.
    """
    rows, written = [*texts.index], [*map(stem_of, texts)]

    def where(place: int) -> str:
        return f"{path}: {column} holds {texts.iloc[place]} in row {rows[place]} below the header"

    if "" in written:
        raise SourceError(f"{path}: {column} is missing in row {rows[written.index('')]} below the header: correct it")
    if not all(map(_WHOLE.fullmatch, written)):
        numeric = [bool(_NUMBER.fullmatch(text)) for text in written]
        if all(numeric) and not any(map(_PADDED.fullmatch, written)):
            written = [str(_whole(where(place), text)) for place, text in enumerate(written)]
        elif column == KAGGLE_ID and any(numeric) and not all(numeric):
            raise SourceError(f"{where(numeric.index(False))}, which is not a whole number as others are: correct it")
        else:
            return np.array([*texts], object)
    numbers = [*map(int, written)]
    if max(map(abs, numbers)) > _LARGEST:
        return np.array(written, object)
    return np.array(numbers, np.int64)


class Columns:
    """The columns of a table that hold votes. `names`: all that are needed, as the tree and its layout call them."""

    def __init__(self, path: str, header: Header, fit: Fit) -> None:
        """Raises SourceError if one of them, or the id column, comes more than once."""
        self._path, self._header, self._fit = path, header, fit
        tree, layout = fit.tree, fit.layout
        self._places = [place for place, column in enumerate(tree.columns) if column not in tree.rest]
        self._values = [f"{tree.columns[place]}{layout.suffix}" for place in self._places]
        self._totals, self._counted = self._columns_of_totals()
        self.names = [*dict.fromkeys((*self._values, *self._totals))]
        header.refuse_twice(path, (*([fit.id] if fit.id else []), *self.names))

    @property
    def written(self) -> list[str]:
        """The names as the table writes them."""
        return [self._header.written(name) for name in self.names]

    def _columns_of_totals(self) -> tuple[list[str], bool]:
        """The columns with the numbers of answers, and whether they count each answer rather than each question; else none."""
        tree, layout = self._fit.tree, self._fit.layout
        stated = [f"{question.key}{layout.total}" for question in tree.questions]
        if layout.total and all(column in self._header for column in stated):
            return stated, False
        for other in tree.layouts:
            counts = [f"{column}{other.suffix}" for column in tree.columns]
            if layout.kind == "fractions" and other.kind == "counts" and all(column in self._header for column in counts):
                return counts, True
        return [], False

    def fractions(self, ids: np.ndarray, values: np.ndarray, assume: bool = False) -> Fractions:
        """The votes of some rows: `ids` (rows,), for messages, and `values` float64 (rows, names).

        assume: as in `fractions_of`.
        Raises SourceError, naming columns or galaxies, if they cannot be used.
        """
        tree = self._fit.tree
        place = {name: column for column, name in enumerate(self.names)}
        answers = np.full((len(values), len(tree.columns)), np.nan)
        answers[:, self._places] = values[:, [place[name] for name in self._values]]
        totals = values[:, [place[name] for name in self._totals]] if self._totals else None
        if totals is not None and self._counted:
            counts = np.nan_to_num(totals)
            totals = np.stack([counts[:, question.columns].sum(axis=1) for question in tree.questions], axis=1)
        return fractions_of(Numbers(self._path, ids, answers, totals), tree, self._fit.layout, assume)


def read_table(path: str, content: bytes, wanted: Wanted = ANYTHING) -> Ballots:
    """A table of votes: a column of ids and those of a tree, in any order.

    path: the name of the file in messages; content: its bytes.

    Raises SourceError, naming columns or galaxies, for missing columns, ids that are missing, duplicates, values that are
    missing, not finite or out of range, and sums that break the decision tree.
    """
    table = open_table(path, content)
    header = Header(table.header)
    fit = choose_fit(path, table.header, wanted)
    columns = Columns(path, header, fit)
    frame = table.frame([header.written(fit.id)], columns.written)
    if not len(frame):
        raise SourceError(f"{path}: has no rows: it must have one per galaxy")
    ids = ids_of(path, fit.id, frame.iloc[:, 0])
    unique, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise SourceError(f"{path}: more than one row for {named(unique[counts > 1])}: keep one row per galaxy")
    fractions = columns.fractions(ids, frame.iloc[:, 1:].to_numpy(np.float64))
    voted = ~fractions.empty
    warnings = list(fractions.warnings)
    if fractions.empty.any():
        warnings.append(f"{path}: no votes, so unlabelled: {named(ids[fractions.empty])}")
    if not voted.any():
        raise SourceError(f"{path}: no galaxy has any votes: check the table")
    asked = None if fractions.asked is None else fractions.asked[voted]
    return Ballots(path, fit, ids[voted], fractions.targets[voted], asked, fractions.estimated, table.sha256, tuple(warnings))


def read_files(path: str, content: bytes, tree: Tree) -> list[tuple[str, str]]:
    """Ids and names of image files, from the second table of a tree. Raises SourceError if it lacks a column."""
    assert tree.files is not None
    table = open_table(path, content)
    header = Header(table.header)
    for column in (tree.files.id, tree.files.file):
        if column not in header:
            raise SourceError(
                f"{path}: lacks the column {column}, which maps the votes of tree {tree.name} to image files: add it"
            )
    frame = table.frame([header.written(tree.files.id), header.written(tree.files.file)], [])
    return [*frame.itertuples(index=False, name=None)]
