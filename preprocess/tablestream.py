"""Read a table of a source without holding all its bytes: in its file, or unpacked from a zip while it is read."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from preprocess.sources import VotesTable
from preprocess.tablefile import Opener
from tfrecords.errors import SourceError, lacks_memory

_LOCAL = 30  # bytes of a local header before its name


def bytes_of(table: VotesTable) -> Path | Opener:
    """The file of a table, or what opens its bytes in a zip, which raises SourceError if they are damaged or too many."""
    return table.archive.path if table.entry is None else partial(_opened, table)


@contextmanager
def _opened(table: VotesTable) -> Iterator[Any]:
    entry = table.entry
    assert entry is not None
    table.check_size()
    info = zipfile.ZipInfo()
    info.compress_type, info.compress_size, info.file_size, info.CRC = entry.method, entry.stored, entry.size, entry.crc
    with table.archive.path.open("rb") as file:
        file.seek(entry.header)
        local = file.read(_LOCAL)
        if len(local) < _LOCAL or not local.startswith(b"PK\x03\x04"):
            raise _damaged(table)
        file.seek(int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little"), io.SEEK_CUR)
        with zipfile.ZipExtFile(file, "r", info) as unpacked:
            yield io.BufferedReader(_Unpacked(table, unpacked))


def _damaged(table: VotesTable) -> SourceError:
    assert table.entry is not None
    return SourceError(f"{table.archive.name}: {table.entry.name} is damaged: copy or download it again")


class _Unpacked(io.RawIOBase):
    """The bytes of a table in a zip, with our errors: those of a table that is packed again are others."""

    def __init__(self, table: VotesTable, unpacked: zipfile.ZipExtFile) -> None:
        self._table, self._unpacked = table, unpacked

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as `io.RawIOBase.readinto`."""
        try:
            return self._unpacked.readinto(buffer)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            if lacks_memory(error):
                raise MemoryError("unpacking it") from error
            raise _damaged(self._table) from error
