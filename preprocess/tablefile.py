"""What a table is, whatever its format: columns as texts or as numbers, and its first bytes."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HEAD = 1_000_000
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class TableFile(ABC):
    """A table: its `path` in messages, its `header` as it is written, and the `sha256` of its bytes."""

    path: str
    header: tuple[str, ...]
    sha256: str

    @abstractmethod
    def frames(self, texts: Sequence[str], numbers: Sequence[str], rows: int | None = None) -> Iterator[Any]:
        """These columns as pandas DataFrames of at most so many rows each (None: all in one), without blank rows.

        The index of a frame is the row below the header, from 1.

        texts: str as it is written, without spaces around it, empty if blank. numbers: float64, the nearest, NaN if blank or
        not a number. Raises SourceError for a table that cannot be read.
        """

    def frame(self, texts: Sequence[str], numbers: Sequence[str]) -> Any:
        """All rows of `frames`."""
        return next(iter(self.frames(texts, numbers)))


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


def floats(column: Any, decimal: str = ".") -> np.ndarray:
    """A pandas Series as float64; NaN for what is not a number. Texts among its values are read to the nearest float64."""
    if column.dtype.kind in "iufb":
        return np.asarray(column.to_numpy(np.float64, na_value=np.nan))
    return np.array([_float(value, decimal) for value in column.tolist()], np.float64)


def _float(value: Any, decimal: str) -> float:
    text = str(value)
    try:
        return float("nan" if "_" in text else text.replace(",", ".") if decimal == "," else text)
    except ValueError:
        return float("nan")


def without_blank_rows(frame: Any) -> Any:
    """A data frame without the rows that hold nothing."""
    return frame[~((frame == "") | frame.isna()).all(axis=1)]
