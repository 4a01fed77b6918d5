"""Read a table in whatever format it comes: CSV, Parquet or FITS, packed with gzip or zip or not. It follows from the bytes."""

import gzip
import hashlib
import io
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.dialects import csv_table
from preprocess.tablefile import GZIP, TableFile, floats, head_of, without_blank_rows
from tfrecords.errors import ConfigError, SourceError, install_extra, lacks_memory, squeezed
from tfrecords.files import sha256_file

_ZIP, _PARQUET, _FITS = b"PK\x03\x04", b"PAR1", b"SIMPLE  ="
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


def _unpacked(path: str, content: bytes) -> bytes:
    """The bytes of a table that may be packed with gzip, or alone in a zip."""
    try:
        if content.startswith(GZIP):
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

    schema: that of a Parquet file, else None. batches(columns, rows): pyarrow tables of these columns, of so many rows at most.
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

        columns: dict[str, Any] = {name: [*map(_text, self._flat(batch, name).to_pylist())] for name in texts}
        for name in numbers:
            columns[name] = floats(self._flat(batch, name).to_pandas())
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
    start = head_of(source)
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
    return csv_table(path, source, sha256)
