"""Read a table of votes: the ids of its rows, and the votes of each."""

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.fitting import ANYTHING, Fit, Header, Wanted, choose_fit
from preprocess.gathering import Gathered
from preprocess.joining import stem_of
from preprocess.likeness import Likeness
from preprocess.tablefile import LOST, Opener, cell_of
from preprocess.tables import open_table
from preprocess.votes import Fractions, Numbers, first_sums, fractions_of, likely_kind, named, rounded
from tfrecords.builtin import builtin_tree
from tfrecords.errors import SourceError
from tfrecords.tree import Tree

KAGGLE_ID = "GalaxyID"
_WHOLE = re.compile(r"[+-]?(?:0|[1-9]\d*)")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d*)?(?:[eE][+-]?\d+)?")
_PADDED = re.compile(r"0\d+")
# This may be a name among names, like the start of a hash; programs write a number with a sign or a decimal point, as 1E+05.
_BARE_EXPONENT = re.compile(r"\d+[eE]\d+")
_EXACT = 2**53
# Characters of an id, which may be a path: Linux opens none that is longer.
_LONGEST_ID = 4_096
_LARGEST = 2**63 - 1
# Rows of a table in memory at a time. While it reads CSV, pandas needs two kilobytes for each.
_ROWS = 2_048


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
        # Most tables are in this order, and need not be in memory twice.
        taken = slice(None) if np.array_equal(order, np.arange(len(galaxy_ids))) else order
        return Votes(
            galaxy_ids[order], self.targets[taken], self.sha256, self.warnings, self.fit.tree,
            None if self.asked is None else self.asked[taken], self.estimated, self.fit.layout.name,
            len(galaxy_ids) - len(kept), self.fit.id,
        )  # fmt: skip


def _are_digits_lost(text: str) -> bool:
    """Whether a number was rounded by a spreadsheet or a float, or may have been."""
    try:
        number = Decimal(text.replace(",", "."))
    except InvalidOperation:  # its exponent has more than 18 digits
        return True
    exponent = number.as_tuple().exponent
    rounded = isinstance(exponent, int) and exponent > 0
    return rounded or (abs(number) > _EXACT and number == number.to_integral_value() and not _WHOLE.fullmatch(text))


def _whole(where: str, text: str) -> int:
    """A number as a whole one. Raises SourceError if it is none, or if its last digits may be lost. where: in messages."""
    if _are_digits_lost(text):
        raise SourceError(f"{where}, {LOST}")
    number = Decimal(text.replace(",", "."))
    if number != number.to_integral_value():
        raise SourceError(f"{where}, which is not a whole number: correct it")
    return int(number)


def _compact(texts: list[str]) -> "array[int] | list[str]":
    """Texts as 64-bit numbers, if that loses nothing of how they are written."""
    try:
        numbers = array("q", map(int, texts))
    except (ValueError, OverflowError):
        return texts
    return numbers if [*map(str, numbers)] == texts else texts


class Ids:
    """A column of ids, read in parts: int64 if all of them are whole numbers, else str as they are written.

    Numbers may end in .0 or in the suffix of an image; leading zeros make them names. What they are follows from all of them:
    either `look` at each part first, then `read` them; or `keep` each part, then ask for what was `kept`. A part is a pandas
    Series of str, by row below the header.
    """

    def __init__(self, path: str, column: str) -> None:
        self._path, self._column = path, column
        self._kept: list[array[int] | list[str]] = []
        self._largest = 0
        self._numbers = self._padded = False
        self._word = ""
        self._fault: SourceError | None = None

    def _where(self, texts: Any, place: int) -> str:
        return cell_of(self._path, self._column, texts.iloc[place], texts.index[place])

    def look(self, texts: Any) -> None:
        """Take note of a part. Raises SourceError for missing ids, and for numbers whose last digits are lost."""
        for place, text in enumerate(map(stem_of, texts)):
            if not text:
                row = texts.index[place]
                raise SourceError(f"{self._path}: {self._column} is missing in row {row} below the header: correct it")
            if len(text) > _LONGEST_ID:
                raise SourceError(f"{self._where(texts, place)}, {len(text):,} characters, which is no id: correct it")
            if _WHOLE.fullmatch(text):
                self._numbers = True
                self._largest = max(self._largest, abs(int(text)))
            elif _NUMBER.fullmatch(text):
                self._numbers = True
                self._look_at_number(texts, place, text)
            else:
                self._word = self._word or self._where(texts, place)

    def _look_at_number(self, texts: Any, place: int, text: str) -> None:
        """Take note of a number in another form than most."""
        if _PADDED.fullmatch(text):
            self._padded = True
            return
        if not _BARE_EXPONENT.fullmatch(text) and _are_digits_lost(text):
            raise SourceError(f"{self._where(texts, place)}, {LOST}")
        try:
            self._largest = max(self._largest, abs(_whole(self._where(texts, place), text)))
        except SourceError as error:  # a name like 1.50, if there are other names
            self._fault = self._fault or error

    def _are_numbers(self) -> bool:
        """Whether all ids are whole numbers. Raises SourceError for some that should be."""
        if self._word and self._numbers and self._column == KAGGLE_ID:
            raise SourceError(f"{self._word}, which is not a whole number as others are: correct it")
        if self._word or self._padded:
            return False
        if self._fault:
            raise self._fault
        return True

    def keep(self, texts: Any) -> None:
        """Take note of a part, which is not empty, and remember it. Raises SourceError as `look` does."""
        part = _compact(texts.tolist())
        if isinstance(part, array):
            self._numbers = True
            self._largest = max(self._largest, -min(part), max(part))
        else:
            self.look(texts)
        self._kept.append(part)

    def kept(self) -> np.ndarray:
        """All parts that were kept, which are forgotten. Raises SourceError as `read` does."""
        short = self._are_numbers() and self._largest <= _LARGEST
        parts, self._kept = self._kept, []
        return np.concatenate(
            [
                np.frombuffer(part, np.int64) if short and isinstance(part, array) else self.read([*map(str, part)])
                for part in parts
            ]
        )

    def read(self, texts: Iterable[str]) -> np.ndarray:
        """A part of the ids, once all parts were looked at.

        Raises SourceError for numbers that are not whole, and for a GalaxyID that is not a number among others that are.
        """
        if not self._are_numbers():
            return np.array([*texts], object)
        stems = [*map(stem_of, texts)]
        whole = [text if _WHOLE.fullmatch(text) else str(_whole("", text)) for text in stems]
        if self._largest > _LARGEST:
            return np.array(whole, object)
        return np.array([*map(int, whole)], np.int64)


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

    def _answers(self, values: np.ndarray) -> np.ndarray:
        """The values of the tree's answers, float64 (rows, answers), NaN for the rest of the others."""
        place = {name: column for column, name in enumerate(self.names)}
        answers = np.full((len(values), len(self._fit.tree.columns)), np.nan)
        answers[:, self._places] = values[:, [place[name] for name in self._values]]
        return answers

    def likeness(self) -> Likeness | None:
        """To judge by all rows of a table, in parts, whether its counts are counts; None if it holds something else."""
        return Likeness(self._path, self._fit.tree) if self._fit.layout.kind == "counts" else None

    def look(self, likeness: Likeness, values: np.ndarray) -> None:
        """Show some rows, `values` as in `fractions`, to a `likeness`."""
        likeness.add(self._answers(values))

    def kind(self, parts: Iterable[np.ndarray]) -> str:
        """What fractions above 1 are, as in `likely_kind`, judged by all rows: `values` as in `fractions`, in parts."""
        tree, layout = self._fit.tree, self._fit.layout
        return likely_kind(
            self._path, tree, np.concatenate([first_sums(self._answers(values), tree, layout) for values in parts])
        )

    def fractions(self, ids: np.ndarray, values: np.ndarray, assume: bool = False, judged: bool = False) -> Fractions:
        """The votes of some rows: `ids` (rows,), for messages, and `values` float64 (rows, names).

        assume, judged: as in `fractions_of`.
        Raises SourceError, naming columns or galaxies, if they cannot be used.
        """
        tree = self._fit.tree
        place = {name: column for column, name in enumerate(self.names)}
        totals = values[:, [place[name] for name in self._totals]] if self._totals else None
        if totals is not None and self._counted:
            counts = np.nan_to_num(totals)
            totals = np.stack([counts[:, question.columns].sum(axis=1) for question in tree.questions], axis=1)
        numbers = Numbers(self._path, ids, self._answers(values), totals)
        return fractions_of(numbers, tree, self._fit.layout, assume, judged)


def read_table(path: str, content: bytes | Path | Opener, wanted: Wanted = ANYTHING) -> Ballots:
    """A table of votes: a column of ids and those of a tree, in any order. Read in parts, to hold its votes alone.

    path: the name of the file in messages; content: as in `open_table`.

    Raises SourceError, naming columns or galaxies, for missing columns, ids that are missing, duplicates, values that are
    missing, not finite or out of range, and sums that break the decision tree.
    """
    table = open_table(path, content)
    header = Header(table.header)
    fit = choose_fit(path, table.header, wanted)
    columns = Columns(path, header, fit)

    def frames() -> Iterator[Any]:
        return (part for part in table.frames([header.written(fit.id)], columns.written, _ROWS) if len(part))

    reader, likeness = Ids(path, fit.id), columns.likeness()
    gathered = Gathered(partial(columns.fractions, assume=True, judged=True))
    fault: SourceError | None = None
    for frame in frames():
        try:
            reader.keep(frame.iloc[:, 0])
        except SourceError as error:  # cells that cannot be read come first, wherever they are
            fault = fault or error
        values = _values(frame)
        if likeness is not None:
            columns.look(likeness, rounded(values, fit.layout))
        gathered.add(values)
    if not gathered.rows:
        raise SourceError(f"{path}: has no rows: it must have one per galaxy")
    if fault is not None:
        raise fault
    ids = reader.kept()
    unique, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise SourceError(f"{path}: more than one row for {named(unique[counts > 1])}: keep one row per galaxy")
    refusal = gathered.refusal_of(ids)
    if likeness is not None and (refusal is None or refusal.late):
        likeness.refuse()
    if refusal is not None:
        kind = columns.kind(map(_values, frames())) if refusal.above else ""
        raise SourceError(kind) if kind else refusal
    warnings, empty = gathered.warnings(ids), gathered.empty
    if empty.any():
        warnings.append(f"{path}: no votes, so unlabelled: {named(ids[empty])}")
    if empty.all():
        raise SourceError(f"{path}: no galaxy has any votes: check the table")
    return Ballots(path, fit, ids[~empty], gathered.targets, gathered.asked, gathered.estimated, table.sha256, tuple(warnings))


def _values(frame: Any) -> np.ndarray:
    """The numbers of a part of a table, below its ids."""
    return np.asarray(frame.iloc[:, 1:].to_numpy(np.float64))


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
