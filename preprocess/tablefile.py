"""What a table is, whatever its format: columns as texts or as numbers, and its first bytes."""

import io
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.errors import SourceError
from tfrecords.text import printable

# What opens the bytes of a table as a binary stream, to be read from their start, as often as it is called.
Opener = Callable[[], AbstractContextManager[Any]]

HEAD = 1_000_000
_BLOCK = 1 << 20
GZIP = b"\x1f\x8b"
_SHOWN = 60
# The widest tables of surveys have some hundreds of columns, and features of images some thousands.
MOST_COLUMNS = 10_000
# How people and programs write that a value is missing.
BLANK = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "nan", "NaN", "null", "NULL", "None", "--")
LOST = (
    "whose last digits are lost, as in a spreadsheet or a float: export the table again with this column as text or as "
    "whole numbers"
)


@dataclass(frozen=True)
class TableFile(ABC):
    """A table: its `path` in messages, its `header` as it is written, and the `sha256` of its bytes."""

    path: str
    header: tuple[str, ...]
    sha256: str

    def __post_init__(self) -> None:
        refuse_columns(self.path, len(self.header))

    @abstractmethod
    def frames(self, texts: Sequence[str], numbers: Sequence[str], rows: int | None = None) -> Iterator[Any]:
        """These columns as pandas DataFrames of at most so many rows each (None: all in one), without blank rows.

        The index of a frame is the row below the header, from 1.

        texts: str as it is written, without spaces around it, empty if blank. numbers: float64, the nearest, NaN if blank.
        Raises SourceError for a table that cannot be read, and for a text among its numbers.
        """

    def frame(self, texts: Sequence[str], numbers: Sequence[str]) -> Any:
        """All rows of `frames`."""
        return next(iter(self.frames(texts, numbers)))


def refuse_columns(path: str, number: int) -> None:
    """Raise SourceError for a table with more columns than any table of a survey has."""
    if number > MOST_COLUMNS:
        raise SourceError(f"{path}: has {number:,} columns, more than {MOST_COLUMNS:,}: keep the id and the votes alone")


class Bounded(io.RawIOBase):
    """The bytes of a packed table while they are unpacked. Raises SourceError after the first `most` of them."""

    def __init__(self, path: str, unpacked: Any, most: int) -> None:
        self._path, self._unpacked, self._most = path, unpacked, most
        self._left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as `io.RawIOBase.readinto`."""
        number = int(self._unpacked.readinto(buffer))
        self._left -= number
        if self._left < 0:
            raise SourceError(
                f"{self._path}: has more than {self._most / 1e6:,.0f} MB unpacked, far more than its packed size, as in a zip "
                "bomb: check it, and unpack it"
            )
        return number


def head_of(source: bytes | Path) -> bytes:
    """The start of a table that may be packed with gzip, or cut off anywhere."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            content = file.read(HEAD)
    else:
        content = source
    if content.startswith(GZIP):
        try:
            return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(content, HEAD)
        except zlib.error:
            return b""
    return content[:HEAD]


def blocks_of(opener: Opener) -> Iterator[bytes]:
    """The bytes of a table, a megabyte at a time."""
    with opener() as file:
        while block := file.read(_BLOCK):
            yield block


def cell_of(path: str, column: str, value: object, row: int) -> str:
    """The start of a message about one value of a table, of which it shows the start. row: below the header, from 1."""
    text = printable(str(value))
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return f"{path}: {column} holds {shown} in row {row} below the header"


def floats(path: str, name: str, column: Any, first: int, decimal: str = ".") -> np.ndarray:
    """A pandas Series as float64, NaN for what is blank. Texts among its values are read to the nearest float64.

    path, name: the table and the column in messages. first: the row below the header with which it begins. Raises SourceError,
    with the value and its row, for what is neither blank nor a number.
    """
    if column.dtype.kind in "iufb":
        return np.asarray(column.to_numpy(np.float64, na_value=np.nan))
    numbers = np.zeros(len(column))
    for place, value in enumerate(column.tolist()):
        try:
            numbers[place] = _float(value, decimal)
        except (ValueError, TypeError) as error:
            shown = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
            where = cell_of(path, name, shown.strip(), first + place)
            raise SourceError(f"{where}, which is not a number: correct it, or leave it blank") from error
    return numbers


def _float(value: Any, decimal: str) -> float:
    """A value as a number, NaN if it is blank. Raises ValueError or TypeError if it is neither."""
    text = value.decode() if isinstance(value, bytes) else value
    if text is None or (isinstance(text, str) and text.strip() in BLANK):
        return float("nan")
    if not isinstance(text, str):
        return float(text)
    if "_" in text:
        raise ValueError(text)
    return float(text.replace(",", ".") if decimal == "," else text)


def without_blank_rows(frame: Any) -> Any:
    """A data frame without the rows that hold nothing."""
    return frame[~((frame == "") | frame.isna()).all(axis=1)]
