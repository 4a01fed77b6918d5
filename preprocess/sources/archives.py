"""Read zips in place: list a zip that may lie inside another one, and read its files by their position.

Python's zipfile keeps an object for every file, and reads a zip inside a zip from its start again at every step back.
Here a listing is a stream, and a stored inner zip is a window of the outer file: reading at random costs the same
in both. Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.4.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tfrecords.errors import ImageError, SourceError, lacks_memory
from tfrecords.files import atomic_file

STORED, DEFLATED = 0, 8
_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_MAX_COMMENT = 65_535
_ENCRYPTED, _UTF8 = 0x1, 0x800
_CHUNK = 1 << 22
_MOST = (1 << 62) - 1


@dataclass(frozen=True)
class Zip:
    """A zip file, or one stored inside another: the file on disk, where it begins and how long it is, and what to call it."""

    path: Path
    name: str
    start: int
    length: int


class Entry(NamedTuple):
    """A file in a zip: `header` is the position of its local header in the file on disk.

    `stored`, `size`: bytes in the zip and unpacked; `crc`: CRC-32 unpacked; `method`: STORED or DEFLATED.
    """

    name: str
    header: int
    stored: int
    size: int
    crc: int
    method: int


def open_zip(path: Path) -> Zip:
    """A zip file on disk, not yet read."""
    return Zip(path, str(path), 0, path.stat().st_size)


def _damaged(archive: Zip, what: str) -> SourceError:
    return SourceError(f"{archive.name}: {what}: copy or download it again")


def _directory(fd: int, archive: Zip) -> tuple[int, int, int, int]:
    """The list of files: its start in the file on disk, its length, what the positions in it count from, its entries."""
    tail_length = min(archive.length, _END.size + _MAX_COMMENT)
    tail_start = archive.start + archive.length - tail_length
    tail = os.pread(fd, tail_length, tail_start)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise _damaged(archive, "no zip, or one that is cut off")
    _, disk, _, _, count, length, offset, _ = _END.unpack_from(tail, at)
    end = tail_start + at
    if at >= _LOCATOR64.size and tail[at - _LOCATOR64.size :].startswith(b"PK\x06\x07"):
        _, disk, relative, _ = _LOCATOR64.unpack_from(tail, at - _LOCATOR64.size)
        # Where it lies if nothing stands between, else where the locator says: bytes before the zip shift the latter.
        for end64 in (end - _LOCATOR64.size - _END64.size, archive.start + relative):
            inside = archive.start <= end64 < archive.start + archive.length
            record = os.pread(fd, _END64.size, end64) if inside else b""
            if len(record) == _END64.size and record.startswith(b"PK\x06\x06"):
                *_, count, length, offset = _END64.unpack(record)
                end = end64
                break
        else:
            raise _damaged(archive, "its end is damaged")
    if disk not in (0, 0xFFFF):
        raise SourceError(
            f"{archive.name}: is one part of a zip in several parts: join them first, with `zip -s 0 PART --out WHOLE`"
        )
    start = end - length
    shift = start - offset
    if start < archive.start or shift < archive.start:
        raise _damaged(archive, "its list of files is cut off")
    # Where a zip begins with a file, its positions count from there. Else this is the end of a zip stored in it,
    # and the rest, with its own list, is missing.
    if shift > archive.start and os.pread(fd, 4, archive.start) == b"PK\x03\x04":
        raise _damaged(archive, "no zip, or one that is cut off")
    return start, length, shift, count


def _wide(extra: bytes, values: list[int], archive: Zip) -> list[int]:
    """Replace each of size, stored and offset that is too large for 32 bits by its 64-bit value."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1 and at + 4 + length <= len(extra):
            fields = iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            try:
                return [next(fields) if value == 0xFFFFFFFF else value for value in values]
            except StopIteration:
                break
        at += 4 + length
    raise _damaged(archive, "its list of files is damaged")


def _name(encoded: bytes, flags: int) -> str:
    """A file's name. Info-ZIP writes UTF-8 without the flag that says so; what is none is the old code page."""
    if not flags & _UTF8:
        try:
            return encoded.decode("utf-8")
        except UnicodeDecodeError:
            return encoded.decode("cp437")
    return encoded.decode("utf-8", "surrogateescape")


def _pread(fd: int, length: int, position: int) -> bytes:
    """Bytes of a file, fewer only at its end; a network file system may give them in parts."""
    data = os.pread(fd, length, position)
    while data and len(data) < length and (more := os.pread(fd, length - len(data), position + len(data))):
        data += more
    return data


def entries(archive: Zip) -> Iterator[Entry]:
    """The files of a zip in the order of its list, without folders. Holds a few megabytes, however many there are.

    Raises SourceError for a file that is no zip, is cut off, encrypted, one of several parts, or packed by a method
    other than stored and deflated.
    """
    fd = os.open(archive.path, os.O_RDONLY)
    try:
        position, remaining, shift, count = _directory(fd, archive)
        buffer, at, found = b"", 0, 0
        while at < len(buffer) or remaining:
            if remaining and len(buffer) - at < _ENTRY.size + 3 * 65_535:  # the longest an entry can be
                more = os.pread(fd, min(_CHUNK, remaining), position)
                if not more:
                    raise _damaged(archive, "its list of files is cut off")
                buffer, at = buffer[at:] + more, 0
                position, remaining = position + len(more), remaining - len(more)
            if len(buffer) - at < _ENTRY.size or not buffer.startswith(b"PK\x01\x02", at):
                raise _damaged(archive, "its list of files is damaged")
            _, _, _, flags, method, _, _, crc, stored, size, n_name, n_extra, n_comment, _, _, _, offset = _ENTRY.unpack_from(
                buffer, at
            )
            at += _ENTRY.size
            encoded, extra = buffer[at : at + n_name], buffer[at + n_name : at + n_name + n_extra]
            at += n_name + n_extra + n_comment
            found += 1
            if 0xFFFFFFFF in (size, stored, offset):
                size, stored, offset = _wide(extra, [size, stored, offset], archive)
            name = _name(encoded, flags).replace("\\", "/")
            if name.endswith("/"):
                continue
            if flags & _ENCRYPTED:
                raise SourceError(f"{archive.name}: {name} is encrypted: unzip it first")
            if method not in (STORED, DEFLATED):
                raise SourceError(
                    f"{archive.name}: {name} is packed by method {method}, which is not supported: unzip it first"
                )
            if shift + offset + _LOCAL.size + stored > archive.start + archive.length:
                raise _damaged(archive, "its list of files is damaged")
            yield Entry(name, shift + offset, stored, size, crc, method)
        if found & 0xFFFF != count & 0xFFFF:  # old tools count no further
            raise _damaged(archive, "its list of files is damaged")
    finally:
        os.close(fd)


def data_start(fd: int, header: int) -> int:
    """Where the bytes of a file begin, behind its local header. Raises ImageError where there is none."""
    local = os.pread(fd, _LOCAL.size, header)
    if len(local) != _LOCAL.size or not local.startswith(b"PK\x03\x04"):
        raise ImageError("its place in the zip is damaged")
    return header + _LOCAL.size + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")


def read(fd: int, header: int, stored: int, size: int, crc: int, method: int) -> bytes:
    """One file of a zip, unpacked and checked. Raises ImageError where it is damaged."""
    # Name and extra fields mostly take less than 128 bytes, so that one read brings all.
    block = _pread(fd, _LOCAL.size + 128 + stored, header)
    if len(block) < _LOCAL.size or not block.startswith(b"PK\x03\x04"):
        raise ImageError("its place in the zip is damaged")
    begin = _LOCAL.size + int.from_bytes(block[26:28], "little") + int.from_bytes(block[28:30], "little")
    data = block[begin : begin + stored]
    if len(data) < stored:
        data = _pread(fd, stored, header + begin)
    if method == DEFLATED:
        try:
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            data = unpacker.decompress(data, min(size, _MOST) + 1)  # no more than it says, whatever it holds
        except zlib.error as error:
            if lacks_memory(error):
                raise MemoryError("unpacking it") from error
            raise ImageError("is damaged in its zip") from error
    if len(data) != size or zlib.crc32(data) != crc:
        raise ImageError("is damaged in its zip")
    return data


def read_entry(archive: Zip, entry: Entry) -> bytes:
    """One file of a zip, unpacked and checked. Raises SourceError where it is damaged."""
    fd = os.open(archive.path, os.O_RDONLY)
    try:
        return read(fd, entry.header, entry.stored, entry.size, entry.crc, entry.method)
    except ImageError as error:
        raise _damaged(archive, f"{entry.name} is damaged") from error
    finally:
        os.close(fd)


def window(archive: Zip, entry: Entry) -> Zip:
    """A stored zip inside another, read where it lies."""
    fd = os.open(archive.path, os.O_RDONLY)
    try:
        start = data_start(fd, entry.header)
    except ImageError as error:
        raise _damaged(archive, f"{entry.name} is damaged") from error
    finally:
        os.close(fd)
    return Zip(archive.path, f"{archive.name}/{entry.name}", start, entry.size)


def _unpacked(fd: int, entry: Entry) -> Iterator[bytes]:
    """A deflated file in pieces of at most a few megabytes, and not much more of it than its entry says."""
    position = data_start(fd, entry.header)
    stop, size = position + entry.stored, 0
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    while not unpacker.eof and size <= entry.size:
        packed = unpacker.unconsumed_tail or os.pread(fd, min(_CHUNK, stop - position), position)
        if not unpacker.unconsumed_tail:
            position += len(packed)
        data = unpacker.decompress(packed, _CHUNK)
        if not packed and not data:  # some may still come when all has been read
            return
        size += len(data)
        yield data


def unpack(archive: Zip, entry: Entry, folder: Path) -> Zip:
    """A deflated zip inside another, copied once into `folder`.

    An earlier copy serves again if the zip around it has not changed since: its name stands for where the inner zip lies.
    Raises SourceError where the disk has no room for it, and where it is damaged.
    """
    status = archive.path.stat()
    place = (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns, entry.header, entry.size)
    target = folder / f"inner-{hashlib.sha256(repr(place).encode('ascii')).hexdigest()[:32]}.zip"
    name = f"{archive.name}/{entry.name}"
    if not target.exists():
        free = os.statvfs(folder)
        if (room := free.f_bavail * free.f_frsize) < entry.size:
            raise SourceError(
                f"{name}: is packed inside a zip and needs {entry.size / 1e6:,.0f} MB for a copy in {folder}, where "
                f"{room / 1e6:,.0f} MB are free: free some space, or unzip {archive.name} elsewhere and give that folder"
            )
        fd = os.open(archive.path, os.O_RDONLY)
        try:
            with atomic_file(target) as file:
                crc = size = 0
                for data in _unpacked(fd, entry):
                    file.write(data)
                    crc, size = zlib.crc32(data, crc), size + len(data)
                if (crc, size) != (entry.crc, entry.size):
                    raise _damaged(archive, f"{entry.name} is damaged")
        except (ImageError, zlib.error) as error:
            if lacks_memory(error):
                raise MemoryError(name) from error
            raise _damaged(archive, f"{entry.name} is damaged") from error
        finally:
            os.close(fd)
    return Zip(target, name, 0, entry.size)
