"""Read a table in whatever format it comes: CSV, Parquet or FITS, packed with gzip or zip or not. It follows from the bytes."""

import gzip
import hashlib
import io
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.dialects import csv_table
from preprocess.sources import IMAGE_SUFFIXES, TABLE_SUFFIXES, archive_advice
from preprocess.tablefile import (
    GZIP,
    HEAD,
    LOST,
    Bounded,
    Opener,
    TableFile,
    blocks_of,
    cell_of,
    floats,
    head_of,
    refuse_columns,
    without_blank_rows,
)
from tfrecords.decoding import unpacked_limit
from tfrecords.errors import ConfigError, SourceError, install_extra, lacks_memory, squeezed
from tfrecords.files import sha256_file
from tfrecords.mistaken import START, mistaken

_ZIP, _PARQUET, _FITS = b"PK\x03\x04", b"PAR1", b"SIMPLE  ="
# What a file with the name of a table may be in truth, besides what downloads leave: how it begins, and what it is.
_OTHERS = (
    (b"{", "JSON, not a table: save it as CSV or Parquet"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook: save it as CSV"),
    (b"\x89HDF", "an HDF5 file: save it as CSV or Parquet"),
)

# The largest number up to which a column of floats holds every whole number, by Arrow's name of its type.
_EXACT = {"halffloat": 2**11, "float": 2**24}
# A zip with more entries than this is no packed table; its list is not read.
_MOST_ENTRIES = 100
_END_OF_ZIP = b"PK\x05\x06"
_FEW = 16
# How often a table may be packed, as a .csv.gz in a zip. Some files unpack to themselves.
_LAYERS = 2
# Rows of a Parquet file for each of its bytes, beyond the first ten million. Only consecutive numbers take less than a bit
# each; names and votes do not.
_ROWS_PER_BYTE, _FEW_ROWS = 8, 10_000_000
# Bytes read ahead of each column of a Parquet file; without a buffer it would be all those of a row group.
_BUFFER = 1 << 16


def _visible_files(names: Iterable[str]) -> list[str]:
    """The files of a zip without those that macOS adds."""
    return [name for name in names if not name.endswith("/") and not name.startswith("__MACOSX")]


def _only_table(names: Sequence[str]) -> str:
    """The only file of a zip, or the only table among files that are no images; empty if there is none."""
    if len(names) == 1:
        return names[0]
    if any(name.lower().endswith((".zip", *IMAGE_SUFFIXES)) for name in names):
        return ""
    tables = [name for name in names if name.lower().endswith(TABLE_SUFFIXES)]
    return tables[0] if len(tables) == 1 else ""


def is_packed_table(path: Path) -> bool:
    """Whether a zip holds one table and no images. One that cannot be read does not."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 2**16), io.SEEK_END)
        tail = file.read()
    end = tail.rfind(_END_OF_ZIP)
    if end < 0 or int.from_bytes(tail[end + 10 : end + 12], "little") > _MOST_ENTRIES:
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            name = _only_table(_visible_files(archive.namelist()))
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    return bool(name) and not name.lower().endswith((".zip", *IMAGE_SUFFIXES)) and not archive_advice(name)


def _read(opener: Opener, length: int = -1) -> bytes:
    """The first bytes of a table, or all."""
    with opener() as file:
        return bytes(file.read(length))


@contextmanager
def _from_gzip(path: str, opener: Opener, most: int) -> Iterator[Any]:
    with opener() as packed, gzip.GzipFile(fileobj=packed, mode="rb") as file:
        yield io.BufferedReader(Bounded(path, file, most))


@contextmanager
def _from_zip(path: str, opener: Opener, most: int, name: str) -> Iterator[Any]:
    with opener() as packed, zipfile.ZipFile(packed) as archive, archive.open(name) as file:
        yield io.BufferedReader(Bounded(path, file, most))


def _unpacked(path: str, opener: Opener, most: int, layers: int = _LAYERS) -> Opener:
    """What opens a table that may be packed with gzip, or the only one in a zip. Its bytes are unpacked while they are read.

    most: how many they may be. layers: how often the table may be packed.
    """
    start = _read(opener, len(_ZIP))
    if not start.startswith((GZIP, _ZIP)):
        return opener
    if not layers:
        raise SourceError(f"{path}: is packed more than {_LAYERS} times: unpack it")
    if start.startswith(GZIP):
        return _unpacked(path, partial(_from_gzip, path, opener, most), most, layers - 1)
    with opener() as packed:
        seekable = packed.seekable()
    if not seekable:  # packed twice
        return _unpacked(path, partial(io.BytesIO, _read(opener)), most, layers)
    with opener() as packed, zipfile.ZipFile(packed) as archive:
        names = _visible_files(archive.namelist())
    if any(name.startswith("xl/") for name in names):
        raise SourceError(f"{path}: is an Excel workbook: save it as CSV")
    if not (name := _only_table(names)):
        raise SourceError(f"{path}: is a zip of {len(names)} files: unzip it, and give the table of votes")
    return _unpacked(path, partial(_from_zip, path, opener, most, name), most, layers - 1)


@contextmanager
def _refusing_damage(path: str) -> Iterator[None]:
    """Raise SourceError for errors while a packed table is unpacked."""
    try:
        yield
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        if lacks_memory(error):
            raise MemoryError(path) from error
        raise SourceError(f"{path}: is packed and damaged ({squeezed(error)}): copy or download it again") from error


def glance_at_parquet(path: Path) -> "TypedFile | None":
    """A Parquet file without its hash, for a look at its columns; None if it cannot be read."""
    try:
        return _parquet_table(str(path), path, "")
    except SourceError:
        return None


def schema_of_parquet(path: Path) -> Any:
    """The names and types of the columns of a Parquet file, as a pyarrow.Schema; None if it is not one."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_schema(path)
    except (pa.ArrowException, OSError):
        return None


@dataclass(frozen=True)
class TypedFile(TableFile):
    """A table whose columns have types.

    schema: that of a Parquet file, else None. batches(columns, rows): pyarrow tables of these columns, of so many rows at most
    (None: all in one).
    """

    schema: Any
    batches: Callable[[Sequence[str], int | None], Iterator[Any]]

    def frames(self, texts: Sequence[str], numbers: Sequence[str], rows: int | None = None) -> Iterator[Any]:
        first = 1
        for batch in self.batches([*dict.fromkeys((*texts, *numbers))], rows):
            yield without_blank_rows(self.frame_of(batch, texts, numbers, first))
            first += len(batch)

    def frame_of(self, batch: Any, texts: Sequence[str], numbers: Sequence[str], first: int) -> Any:
        """A batch as one of `frames`, with its blank rows. first: the row of the table with which it begins."""
        import pandas as pd

        columns: dict[str, Any] = {name: self._texts(batch, name, first) for name in texts}
        for name in numbers:
            columns[name] = floats(self.path, name, self._flat(batch, name, first).to_pandas(), first)
        return pd.DataFrame(columns, pd.RangeIndex(first, first + len(batch)))

    def first_value(self, column: str) -> Any:
        """The first value of a column that is not missing; None if there is none."""
        for batch in self.batches([column], _FEW):
            if len(there := batch.column(column).drop_null()):
                return there[0].as_py()
        return None

    def _texts(self, batch: Any, name: str, first: int) -> list[str]:
        """A column as texts. Raises SourceError for a number that may be another one, rounded to a short float."""
        column = self._flat(batch, name, first)
        values = column.to_pylist()
        if exact := _EXACT.get(str(column.type)):
            for place, value in enumerate(values):
                if value is not None and abs(value) > exact:
                    raise SourceError(f"{cell_of(self.path, name, value, first + place)}, {LOST}")
        return [*map(_text, values)]

    def _flat(self, batch: Any, name: str, first: int) -> Any:
        """A column of values. Raises SourceError if it is nested, or if a text is not UTF-8."""
        import pyarrow as pa

        column = batch.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_nested(column.type):
            raise SourceError(f"{self.path}: column {name} holds {column.type}, not names or numbers: choose another column")
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as error:
                large = pa.types.is_large_string(column.type)
                raw = column.cast(pa.large_binary() if large else pa.binary()).to_pylist()
                place = next((place for place, value in enumerate(raw) if _is_garbled(value)), 0)
                shown = (raw[place] or b"").decode("utf-8", "backslashreplace")
                where = cell_of(self.path, name, shown, first + place)
                raise SourceError(f"{where}, which is not UTF-8 text: write the table again in UTF-8") from error
        return column


def _is_garbled(value: bytes | None) -> bool:
    """Whether bytes are not UTF-8."""
    try:
        (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _text(value: Any) -> str:
    """A value as text: bytes as UTF-8, numbers to the last digit, and nothing for missing values."""
    if value is None or value != value:  # NaN
        return ""
    return (value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)).strip()


def _parquet_table(path: str, source: bytes | Path, sha256: str) -> TypedFile:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(
            pa.BufferReader(source) if isinstance(source, bytes) else source, pre_buffer=False, buffer_size=_BUFFER
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not a readable Parquet file ({squeezed(error)}): copy or download it again") from error
    refuse_columns(path, file.metadata.num_columns)
    size, rows_there = len(source) if isinstance(source, bytes) else source.stat().st_size, file.metadata.num_rows
    if rows_there > max(_FEW_ROWS, _ROWS_PER_BYTE * size):
        raise SourceError(f"{path}: has {rows_there:,} rows in {size:,} bytes, too many for votes: check the table")

    def batches(columns: Sequence[str], rows: int | None) -> Iterator[Any]:
        try:
            if rows is None:
                yield file.read([*columns])
                return
            for batch in file.iter_batches(rows, columns=[*columns], use_threads=False):  # each thread keeps memory
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


def _opener_of(source: bytes | Path | Opener) -> Opener:
    if isinstance(source, bytes):
        return partial(io.BytesIO, source)
    if not isinstance(source, Path):
        return source
    path = source
    return lambda: path.open("rb")


def open_table(path: str, content: bytes | Path | Opener) -> TableFile:
    """Recognise the format of a table, which is read whole once to check it. `path`: its name in messages.

    content: its bytes, its file, or what opens its bytes. CSV stays there, packed or not, while `TableFile.frames` reads it in
    parts, and so does Parquet in a file of its own.
    Raises SourceError, with what it is, for bytes that are no table; ConfigError if a package is missing.
    """
    opener = _opener_of(content)
    digest, size = hashlib.sha256(), 0
    for block in blocks_of(opener):
        digest.update(block)
        size += len(block)
    with _refusing_damage(path):
        unpacked = _unpacked(path, opener, unpacked_limit(size))
    if unpacked is opener:
        return _recognised(path, content if isinstance(content, Path) else opener, digest.hexdigest())
    with _refusing_damage(path):
        return _recognised(path, unpacked, digest.hexdigest())


def open_file(path: Path) -> TableFile:
    """Recognise the format of a table in a file, which `TableFile.frames` reads in parts. Raises as `open_table` does.

    As `open_table`, but the dialect of CSV follows from its start, and CSV and FITS outside zips are not checked.
    """
    with path.open("rb") as file:
        start = file.read(len(_ZIP))
    if start.startswith(_ZIP) or (start.startswith(GZIP) and head_of(path).startswith((GZIP, _ZIP, _PARQUET))):
        return open_table(str(path), path)
    return _recognised(str(path), path, sha256_file(path), head_of(path))


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


def _recognised(path: str, source: Path | Opener, sha256: str, head: bytes | None = None) -> TableFile:
    """A table that is not packed. head: its start, if that alone is looked at; then a file may be packed with gzip."""
    opener = _opener_of(source)
    if head is not None and _read(opener, len(GZIP)) == GZIP:
        assert isinstance(source, Path)
        opener = partial(_from_gzip, path, opener, unpacked_limit(source.stat().st_size))
    start = _read(opener, HEAD) if head is None else head
    if start.startswith(_PARQUET):
        return _parquet_table(path, source if isinstance(source, Path) else _read(opener), sha256)
    if start.startswith(_FITS):
        return _fits_table(path, source if isinstance(source, Path) and head is not None else _read(opener), sha256)
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise SourceError(f"{path}: is empty: copy or download it again")
    own = next((kind for beginning, kind in _OTHERS if start.startswith(beginning)), "")
    if kind := own or mistaken(start[:START]):
        raise SourceError(f"{path}: is {kind}")
    return csv_table(path, opener, sha256, head)
