"""Read the table of votes, and check all of it before any work starts."""

import csv
import hashlib
import io
from dataclasses import dataclass

import numpy as np

from tfrecords.errors import SourceError, lacks_memory, squeezed
from tfrecords.taxonomy import COLUMNS, QUESTIONS, SUM_TOLERANCE_ERROR, SUM_TOLERANCE_WARNING, tree_deviation


@dataclass(frozen=True)
class Votes:
    """The table: `galaxy_ids` int64 (n,), ascending; `targets` float32 (n, 37) in the order of taxonomy.COLUMNS.

    `sha256`: of the CSV file. `warnings`: a sentence for each oddity that does not prevent its use.
    """

    galaxy_ids: np.ndarray
    targets: np.ndarray
    sha256: str
    warnings: tuple[str, ...]

    def rows(self, galaxy_ids: np.ndarray) -> np.ndarray:
        """Row of each galaxy in the table, int64 (n,); -1 if it has none."""
        if not len(self.galaxy_ids):
            return np.full(len(galaxy_ids), -1)
        rows = np.searchsorted(self.galaxy_ids, galaxy_ids).clip(max=len(self.galaxy_ids) - 1)
        return np.where(self.galaxy_ids[rows] == galaxy_ids, rows, -1)

    def of(self, galaxy_ids: np.ndarray) -> np.ndarray:
        """The targets of these galaxies, float32 (n, 37); NaN without votes."""
        rows = self.rows(galaxy_ids)
        targets = np.full((len(rows), len(COLUMNS)), np.nan, np.float32)
        targets[rows >= 0] = self.targets[rows[rows >= 0]]
        return targets


def no_votes() -> Votes:
    """The table of a source without votes."""
    return Votes(np.zeros(0, np.int64), np.zeros((0, len(COLUMNS)), np.float32), "", ())


def _galaxies(ids: np.ndarray) -> str:
    shown = ", ".join(str(galaxy_id) for galaxy_id in ids[:3])
    return f"{'galaxy' if len(ids) == 1 else 'galaxies'} {shown}" + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")


def _check_values(path: str, ids: np.ndarray, values: np.ndarray) -> tuple[str, ...]:
    """Return the warnings. Raises SourceError for the first kind of fault found, naming galaxies."""
    unique, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise SourceError(f"{path}: more than one row for {_galaxies(unique[counts > 1])}: keep one row per galaxy")
    for fault, bad in (
        ("missing or not finite", ~np.isfinite(values)),
        ("outside 0 to 1", (values < 0) | (values > 1 + SUM_TOLERANCE_ERROR)),
    ):
        if bad.any():
            column = COLUMNS[int(np.argwhere(bad)[0, 1])]
            raise SourceError(f"{path}: values {fault} for {_galaxies(ids[bad.any(axis=1)])}, first in {column}: correct them")
    warnings = []
    deviation = tree_deviation(values)
    for index, question in enumerate(QUESTIONS):
        parent = "1" if question.parent is None else COLUMNS[question.parent]
        rule = f"the columns of question {question.number} do not add up to {parent}"
        if (wrong := deviation[:, index] > SUM_TOLERANCE_ERROR).any():
            raise SourceError(f"{path}: {rule} for {_galaxies(ids[wrong])}: correct the table")
        if (odd := deviation[:, index] > SUM_TOLERANCE_WARNING).any():
            warnings.append(f"{path}: {rule} within {SUM_TOLERANCE_WARNING:g} for {_galaxies(ids[odd])}")
    return tuple(warnings)


def read_votes(path: str, content: bytes) -> Votes:
    """The table of votes in a CSV file: a column GalaxyID and the 37 of the decision tree, in any order.

    path: the name of the file in messages; content: its bytes.

    Raises SourceError, naming columns or galaxies, for missing columns, ids that are not whole numbers, duplicates,
    values that are missing, not finite or outside 0 to 1, and sums that break the decision tree by more than 1e-3.
    """
    import pandas as pd

    try:
        # The only parser that guarantees the nearest float64.
        table = pd.read_csv(io.BytesIO(content), float_precision="round_trip")
    except (ValueError, UnicodeDecodeError) as error:
        if lacks_memory(error):  # pandas reports it as an error in the table
            raise MemoryError(path) from error
        raise SourceError(f"{path}: not a readable CSV file ({squeezed(error, None)}): check it") from error
    header = next(csv.reader([content.split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip()]), [])
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise SourceError(f"{path}: has the column {twice[0]} more than once: remove all but one")
    if {"GalaxyId", "GalaxyID"} <= {*table.columns}:
        raise SourceError(f"{path}: has both a column GalaxyID and a column GalaxyId: remove one")
    table = table.rename(columns={"GalaxyId": "GalaxyID"})
    missing = [name for name in ("GalaxyID", *COLUMNS) if name not in table.columns]
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        raise SourceError(f"{path}: lacks {shown}: it must have GalaxyID and the 37 columns {COLUMNS[0]} to {COLUMNS[-1]}")
    if not len(table):
        raise SourceError(f"{path}: has no rows: it must have one per galaxy")
    if table["GalaxyID"].dtype != np.int64:
        raise SourceError(f"{path}: GalaxyID holds values that are not whole numbers below 2^63: correct them")
    values = table[list(COLUMNS)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    ids = table["GalaxyID"].to_numpy(np.int64)
    warnings = _check_values(path, ids, values)
    order = np.argsort(ids)
    return Votes(ids[order], values[order].astype(np.float32), hashlib.sha256(content).hexdigest(), warnings)
