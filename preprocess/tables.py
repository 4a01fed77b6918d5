"""Read a table in whatever dialect it comes: CSV, Parquet or FITS, packed with gzip or zip or not.

The format follows from the bytes, not from the name. Of a CSV file so do its encoding (UTF-8, UTF-16, with or without a byte
order mark), its separator (comma, semicolon, tab, vertical bar) and, unless that is a comma, its decimal sign.
"""

import codecs
import contextlib
import csv
import gzip
import hashlib
import io
import re
import warnings
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tfrecords.errors import ConfigError, SourceError, install_extra, lacks_memory, squeezed
from tfrecords.files import sha256_file

_HEAD = 1_000_000
_SPACES = r"\s+"
_SEPARATORS = (",", ";", "\t", "|", _SPACES)
_GZIP, _ZIP, _PARQUET, _FITS = b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"SIMPLE  ="
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\0\0", "utf-32-le"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
# What a file with the name of a table may be in truth: how it begins, and the message.
_OTHERS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"),
    (b"<", "is a web page or XML, not a table: download it again, perhaps after signing in"),
    (b"{", "is JSON, not a table: save it as CSV or Parquet"),
    (b"BZh", "is packed with bzip2: unpack it first"),
    (b"\xfd7zXZ", "is packed with xz: unpack it first"),
    (b"(\xb5/\xfd", "is packed with zstd: unpack it first"),
    (b"\xd0\xcf\x11\xe0", "is an Excel workbook: save it as CSV"),
    (b"\x89HDF", "is an HDF5 file: save it as CSV or Parquet"),
)
# A cell that holds a number with a decimal sign.
_DECIMAL = re.compile(r'(?:^|[;\t |"])[+-]?\d*([.,])\d+(?:[eE][+-]?\d+)?(?=["; \t|\r\n]|$)', re.MULTILINE)
# Excel's own first line, which names the separator.
_SPREADSHEETS_LINE = re.compile(r'"?sep=.{0,1}"?(?:\r\n|\r|\n)')
_NO_TEXT = "is neither UTF-8 nor UTF-16 text: save it as CSV in UTF-8"
_ALL = 2**31 - 1
_BLANK = ["", "NA", "N/A", "nan", "NaN", "null", "NULL", "None"]


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


def _unpacked(path: str, content: bytes) -> bytes:
    """The bytes of a table that may be packed with gzip, or alone in a zip."""
    try:
        if content.startswith(_GZIP):
            return _unpacked(path, gzip.decompress(content))
        if content.startswith(_ZIP):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
                if any(name.startswith("xl/") for name in names):
                    raise SourceError(f"{path}: is an Excel workbook: save it as CSV")
                if len(names) != 1:
                    raise SourceError(f"{path}: is a zip of {len(names)} files: unzip it, and give the table of votes")
                return _unpacked(path, archive.read(names[0]))
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        if lacks_memory(error):
            raise MemoryError(path) from error
        raise SourceError(f"{path}: is packed and damaged ({squeezed(error)}): copy or download it again") from error
    return content


def _head(source: bytes | Path) -> bytes:
    """The start of a table that may be packed with gzip, or cut off anywhere."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            content = file.read(_HEAD)
    else:
        content = source
    if content.startswith(_GZIP):
        try:
            return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(content, _HEAD)
        except zlib.error:
            return b""
    return content[:_HEAD]


def _encoding(content: bytes) -> tuple[str, int]:
    """The encoding of a text, and the length of its byte order mark."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return encoding, len(mark)
    if len(content) > 1 and 0 in content[:2]:
        return ("utf-16-be" if content[0] == 0 else "utf-16-le"), 0
    return "utf-8", 0


def _first_line(text: str, separator: str) -> list[str]:
    """The first line of a CSV file as cells, without the spaces around them and the comment sign before them."""
    lines = io.StringIO(text, newline=None)
    try:
        cells = lines.readline().split() if separator == _SPACES else next(csv.reader(lines, delimiter=separator), [])
    except csv.Error:
        return []
    cells = [cell.strip() for cell in cells]
    return [cells[0].lstrip("#").strip(), *cells[1:]] if cells else []


def _separator(text: str) -> str:
    """The separator that gives the first line most cells; spaces only if no other one is there."""
    cells = {separator: len(_first_line(text[:_HEAD], separator)) for separator in _SEPARATORS}
    best = max(_SEPARATORS[:-1], key=lambda separator: cells[separator])
    return best if cells[best] > 1 else max(best, _SPACES, key=lambda separator: cells[separator])


def header_of(content: bytes) -> list[str]:
    """The names of the columns of a table, from its first bytes; none if it is not text. Nothing is checked."""
    head = _head(content)
    encoding, mark = _encoding(head)
    text = head[mark:].decode(encoding, "replace")
    if line := _SPREADSHEETS_LINE.match(text):
        text = text[line.end() :]
    return _first_line(text, _separator(text))


def schema_of_parquet(path: Path) -> Any:
    """The names and types of the columns of a Parquet file, as a pyarrow.Schema; None if it is not one."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_schema(path)
    except (pa.ArrowException, OSError):
        return None


@dataclass(frozen=True)
class _Csv(TableFile):
    """A CSV file whose dialect is known. `source`: its bytes, or the file itself, perhaps packed with gzip."""

    source: bytes | Path
    encoding: str
    mark: int
    separator: str
    decimal: str

    @contextmanager
    def _body(self) -> Iterator[TextIO]:
        """The text below the header."""
        with contextlib.ExitStack() as stack:
            raw: Any = (
                io.BytesIO(self.source) if isinstance(self.source, bytes) else stack.enter_context(self.source.open("rb"))
            )
            if raw.read(2) == _GZIP:
                raw.seek(0)
                raw = gzip.GzipFile(fileobj=raw)
            else:
                raw.seek(0)
            raw.read(self.mark)
            text = stack.enter_context(io.TextIOWrapper(raw, self.encoding, newline=""))
            if _SPREADSHEETS_LINE.match(first := text.readline()):
                first = text.readline()
            while first.count('"') % 2 and (more := text.readline()):  # a quoted name may hold a line break
                first += more
            yield text

    def frames(self, texts: Sequence[str], numbers: Sequence[str], rows: int | None = None) -> Iterator[Any]:
        import pandas as pd

        place = {name: number for number, name in reversed([*enumerate(self.header)])}
        written, values = [place[name] for name in texts], [place[name] for name in numbers]
        beyond = len(self.header)
        # A first row with one cell more than the header, so that longer rows can be noticed; it is dropped again.
        between = " " if self.separator == _SPACES else self.separator
        first = between.join(["nan"] * (beyond + 1)) + "\n"
        start = 0
        try:
            with self._body() as body:
                for part in pd.read_csv(
                    _After(first, body), sep=self.separator, decimal=self.decimal, header=None, names=range(beyond + 1),
                    usecols=sorted({*written, *values, beyond}), skip_blank_lines=False, low_memory=False,
                    dtype={column: str for column in (*written, beyond)}, keep_default_na=False,
                    na_values={column: _BLANK for column in values}, float_precision="round_trip", chunksize=rows or _ALL,
                ):  # fmt: skip
                    frame = part[1:] if start == 0 else part
                    self._refuse_longer(frame[beyond], max(start, 1))
                    columns = {name: frame[column].str.strip() for name, column in zip(texts, written, strict=True)}
                    for name, column in zip(numbers, values, strict=True):
                        columns[name] = _floats(frame[column], self.decimal)
                    index = pd.RangeIndex(max(start, 1), max(start, 1) + len(frame))
                    yield _without_blank_rows(pd.DataFrame(columns).set_axis(index))
                    start += len(part)
        except (ValueError, UnicodeError, OSError, EOFError, zlib.error) as error:
            if lacks_memory(error):  # pandas reports it as an error in the table
                raise MemoryError(self.path) from error
            if isinstance(error, UnicodeError):
                raise SourceError(f"{self.path}: {_NO_TEXT}") from error
            raise SourceError(f"{self.path}: not a readable table ({squeezed(error)}): check it") from error

    def _refuse_longer(self, beyond: Any, first: int) -> None:
        longer = beyond.str.strip().astype(bool)
        if longer.any():
            raise SourceError(
                f"{self.path}: row {first + int(np.argmax(longer))} below the header has more values than the header has "
                "columns: check the separators"
            )


class _After:
    """A text stream that begins with another text."""

    def __init__(self, first: str, stream: TextIO) -> None:
        self._first, self._stream = first, stream

    def read(self, size: int = -1) -> str:
        """The next characters."""
        first, self._first = self._first, ""
        return first or self._stream.read(size)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)


def _floats(column: Any, decimal: str = ".") -> np.ndarray:
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


def _without_blank_rows(frame: Any) -> Any:
    """A data frame without the rows that hold nothing."""
    return frame[~((frame == "") | frame.isna()).all(axis=1)]


def _csv_table(path: str, source: bytes | Path, sha256: str) -> TableFile:
    """A CSV file; its dialect follows from its start, in memory from all of it."""
    content = _head(source) if isinstance(source, Path) else source
    encoding, mark = _encoding(content)
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(content[mark:], final=not isinstance(source, Path))
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: {_NO_TEXT}") from error
    if "\0" in text:
        raise SourceError(f"{path}: not a readable table (it holds zero bytes): check it")
    if line := _SPREADSHEETS_LINE.match(text):
        text = text[line.end() :]
    separator = _separator(text)
    signs = Counter(_DECIMAL.findall(text)) if separator != "," else Counter()
    decimal = "," if signs[","] > signs["."] else "."
    header = tuple(_first_line(text[:_HEAD], separator))
    return _Csv(path, header, sha256, source, encoding, mark, separator, decimal)


@dataclass(frozen=True)
class TypedFile(TableFile):
    """A table whose columns have types.

    schema: that of a Parquet file, else None. batches(columns, rows): pyarrow tables of these columns, of so many rows at most.
    """

    schema: Any
    batches: Callable[[Sequence[str], int | None], Iterator[Any]]

    def frames(self, texts: Sequence[str], numbers: Sequence[str], rows: int | None = None) -> Iterator[Any]:
        first = 1
        for batch in self.batches([*dict.fromkeys((*texts, *numbers))], rows):
            yield _without_blank_rows(self.frame_of(batch, texts, numbers, first))
            first += len(batch)

    def frame_of(self, batch: Any, texts: Sequence[str], numbers: Sequence[str], first: int) -> Any:
        """A batch as one of `frames`, with its blank rows. first: the row of the table with which it begins."""
        import pandas as pd

        columns: dict[str, Any] = {name: [*map(_text, self._flat(batch, name).to_pylist())] for name in texts}
        for name in numbers:
            columns[name] = _floats(self._flat(batch, name).to_pandas())
        return pd.DataFrame(columns, pd.RangeIndex(first, first + len(batch)))

    def _flat(self, batch: Any, name: str) -> Any:
        import pyarrow as pa

        column = batch.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_nested(column.type):
            raise SourceError(f"{self.path}: column {name} holds {column.type}, not names or numbers: choose another column")
        return column


def _text(value: Any) -> str:
    """A value as text: bytes as UTF-8, numbers to the last digit, and nothing for missing values."""
    if value is None or value != value:  # NaN
        return ""
    return (value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)).strip()


def _parquet_table(path: str, source: bytes | Path, sha256: str) -> TypedFile:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: not a readable Parquet file ({squeezed(error)}): copy or download it again") from error

    def batches(columns: Sequence[str], rows: int | None) -> Iterator[Any]:
        try:
            if rows is None:
                yield file.read([*columns])
                return
            for batch in file.iter_batches(rows, columns=[*columns]):
                yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{path}: is damaged ({squeezed(error)}): copy or download it again") from error

    return TypedFile(path, tuple(file.schema_arrow.names), sha256, file.schema_arrow, batches)


def _fits_table(path: str, source: bytes | Path, sha256: str) -> TableFile:
    try:
        from astropy import table
        from astropy.io import fits
    except ImportError as error:
        raise ConfigError(f"{path}: FITS needs the package astropy, which is not installed: {install_extra('fits')}") from error
    import pyarrow as pa

    try:
        with (
            warnings.catch_warnings(action="ignore"),
            fits.open(io.BytesIO(source) if isinstance(source, bytes) else source, memmap=False) as extensions,
        ):
            if not any(isinstance(one, (fits.BinTableHDU, fits.TableHDU)) for one in extensions):
                raise SourceError(f"{path}: holds an image, not a table: give a table of votes")
            whole = table.Table.read(extensions)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SourceError(f"{path}: not a readable FITS table ({squeezed(error)}): copy or download it again") from error

    def column(name: str, start: int, stop: int) -> Any:
        values = np.ma.asarray(whole[name][start:stop])
        native = np.asarray(values.data).astype(values.dtype.newbyteorder("="))
        # A blank number is marked in its header; of floats NaN is blank, of texts spaces.
        return pa.array(native, mask=np.ma.getmaskarray(values))

    def batches(columns: Sequence[str], rows: int | None) -> Iterator[Any]:
        step = rows or max(len(whole), 1)
        for start in range(0, max(len(whole), 1), step):
            yield pa.table({name: column(name, start, start + step) for name in columns})

    names = tuple(name for name in whole.colnames if whole[name].ndim == 1)
    return TypedFile(path, names, sha256, None, batches)


def open_table(path: str, content: bytes) -> TableFile:
    """Recognise the format of a table in memory. `path`: its name in messages.

    Raises SourceError, with what it is, for bytes that are no table; ConfigError if a package is missing.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    return _recognised(path, _unpacked(path, content), sha256)


def open_file(path: Path) -> TableFile:
    """Recognise the format of a table in a file, which `TableFile.frames` reads in parts. Raises as `open_table` does."""
    with path.open("rb") as file:
        packed = file.read(len(_ZIP)) == _ZIP
    return open_table(str(path), path.read_bytes()) if packed else _recognised(str(path), path, sha256_file(path))


def open_parts(folder: Path, paths: Sequence[Path]) -> TypedFile:
    """Parquet files that are parts of one table, in this order. `folder`: its name in messages.

    Raises SourceError for a file that cannot be read, or that has other columns than the first.
    """
    parts = [_parquet_table(str(path), path, sha256_file(path)) for path in paths]
    for part in parts:
        if part.header != parts[0].header:
            raise SourceError(f"{part.path}: has other columns than {parts[0].path}: give a folder whose files are one table")

    def batches(columns: Sequence[str], rows: int | None) -> Iterator[Any]:
        for part in parts:
            yield from part.batches(columns, rows)

    together = hashlib.sha256("".join(part.sha256 for part in parts).encode("ascii")).hexdigest()
    return TypedFile(str(folder), parts[0].header, together, parts[0].schema, batches)


def _recognised(path: str, source: bytes | Path, sha256: str) -> TableFile:
    start = _head(source)
    if start.startswith(_PARQUET):
        return _parquet_table(path, source, sha256)
    if start.startswith(_FITS):
        return _fits_table(path, source, sha256)
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise SourceError(f"{path}: is empty: copy or download it again")
    for beginning, what in _OTHERS:
        if start.startswith(beginning):
            raise SourceError(f"{path}: {what}")
    return _csv_table(path, source, sha256)
