"""Read zips in place: list a zip that may lie inside another one, and read its files by their position.

Python's zipfile keeps an object for every file, and rereads a zip inside a zip from its start at every step back.
Here a listing is a stream, and a stored inner zip is a window on the outer file: random access costs the same in
both. Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.4.
"""

import hashlib
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tfrecords.errors import ImageError, SourceError, lacks_memory
from tfrecords.files import atomic_file
from tfrecords.text import printable

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
# Linux opens paths of 4,096 bytes. Listings hold the length of a name in 16 bits, and in UTF-8 one of the old code page may be
# three times as long.
LONGEST_PATH = 20_000
_SHOWN = 60
NO_FILE = "is a pipe, socket or device, not a file: copy its contents to a file first"


@dataclass(frozen=True)
class Zip:
    """A zip file, or one stored inside another: the file on disk, the name in messages, and start and length in bytes."""

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


def open_regular(path: Path | str) -> int:
    """A descriptor of a file, for reading. Raises SourceError for a pipe or a device, which might never end, or never begin."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # else a pipe without a writer is waited for; files do not heed it
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise SourceError(f"{os.fsdecode(path)}: {NO_FILE}")


def open_zip(path: Path) -> Zip:
    """Return a zip file on disk, not yet read."""
    return Zip(path, str(path), 0, path.stat().st_size)


def _damaged(archive: Zip, what: str) -> SourceError:
    return SourceError(f"{archive.name}: {what}: copy or download it again")


def _directory(fd: int, archive: Zip) -> tuple[int, int, int, int]:
    """The list of files: its start in the file on disk, its length, the origin of its positions, its number of entries."""
    tail_length = min(archive.length, _END.size + _MAX_COMMENT)
    tail_start = archive.start + archive.length - tail_length
    tail = os.pread(fd, tail_length, tail_start)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise _damaged(archive, "not a zip, or cut off")
    _, disk, _, _, count, length, offset, _ = _END.unpack_from(tail, at)
    end = tail_start + at
    if at >= _LOCATOR64.size and tail[at - _LOCATOR64.size :].startswith(b"PK\x06\x07"):
        _, disk, relative, _ = _LOCATOR64.unpack_from(tail, at - _LOCATOR64.size)
        # Directly before the locator, else where the locator points: bytes before the zip shift the latter.
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
        raise SourceError(f"{archive.name}: is one part of a split zip: join the parts first, with `zip -s 0 PART --out WHOLE`")
    start = end - length
    shift = start - offset
    if start < archive.start or shift < archive.start:
        raise _damaged(archive, "its list of files is cut off")
    # If a zip begins with a file, its positions count from there. If they do not, this is the list of an inner zip, and
    # the rest of the outer one, with its own list, is missing.
    if shift > archive.start and os.pread(fd, 4, archive.start) == b"PK\x03\x04":
        raise _damaged(archive, "not a zip, or cut off")
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
    """A file's name. Info-ZIP writes UTF-8 without its flag; a name that is not UTF-8 is in the old code page."""
    if not flags & _UTF8:
        try:
            return encoded.decode("utf-8")
        except UnicodeDecodeError:
            return encoded.decode("cp437")
    return encoded.decode("utf-8", "surrogateescape")


def _pread(fd: int, length: int, position: int) -> bytes:
    """Read bytes of a file, fewer only at its end; a network file system may return them in parts."""
    data = os.pread(fd, length, position)
    while data and len(data) < length and (more := os.pread(fd, length - len(data), position + len(data))):
        data += more
    return data


def entries(archive: Zip) -> Iterator[Entry]:
    """Yield the files of a zip in the order of its list, without folders. Needs a few megabytes, however many there are.

    Raises SourceError for a file that is not a zip, is cut off, encrypted or one part of a split zip, or is compressed
    with a method other than deflate. Files that share bytes are refused, so that all of them together hold no more than the
    zip does, at any depth.
    """
    fd = open_regular(archive.path)
    try:
        position, remaining, shift, count = _directory(fd, archive)
        room = position - archive.start
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
            if n_name > LONGEST_PATH:
                raise SourceError(
                    f"{archive.name}: {printable(name[:_SHOWN])}... is a name of {n_name:,} bytes, more than "
                    f"{LONGEST_PATH:,}: give it a shorter name, and zip it again"
                )
            room -= _LOCAL.size + n_name + stored
            if room < 0:
                raise SourceError(
                    f"{archive.name}: its files share their bytes, as in a zip bomb: unzip what is needed, and zip it again"
                )
            if name.endswith("/"):
                continue
            if flags & _ENCRYPTED:
                raise SourceError(f"{archive.name}: {name} is encrypted: unzip it first")
            if method not in (STORED, DEFLATED):
                raise SourceError(
                    f"{archive.name}: {name} is compressed with method {method}, which is not supported: unzip it first"
                )
            if shift + offset + _LOCAL.size + stored > archive.start + archive.length or (method == STORED and stored != size):
                raise _damaged(archive, "its list of files is damaged")
            yield Entry(name, shift + offset, stored, size, crc, method)
        if found & 0xFFFF != count & 0xFFFF:  # old tools count in 16 bits
            raise _damaged(archive, "its list of files is damaged")
    finally:
        os.close(fd)


def data_start(fd: int, header: int) -> int:
    """The start of a file's bytes, after its local header. Raises ImageError if there is none."""
    local = os.pread(fd, _LOCAL.size, header)
    if len(local) != _LOCAL.size or not local.startswith(b"PK\x03\x04"):
        raise ImageError("its place in the zip is damaged")
    return header + _LOCAL.size + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")


def read(fd: int, header: int, stored: int, size: int, crc: int, method: int) -> bytes:
    """Read one file of a zip, unpacked and checked. Raises ImageError if it is damaged."""
    # Name and extra fields rarely take more than 128 bytes, so one read usually suffices.
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
            data = unpacker.decompress(data, min(size, _MOST) + 1)  # no more than the list states, whatever it holds
        except zlib.error as error:
            if lacks_memory(error):
                raise MemoryError("unpacking it") from error
            raise ImageError("is damaged in its zip") from error
    if len(data) != size or zlib.crc32(data) != crc:
        raise ImageError("is damaged in its zip")
    return data


def read_entry(archive: Zip, entry: Entry) -> bytes:
    """Read one file of a zip, unpacked and checked. Raises SourceError if it is damaged."""
    fd = open_regular(archive.path)
    try:
        return read(fd, entry.header, entry.stored, entry.size, entry.crc, entry.method)
    except ImageError as error:
        raise _damaged(archive, f"{entry.name} is damaged") from error
    finally:
        os.close(fd)


def window(archive: Zip, entry: Entry) -> Zip:
    """Return a stored zip inside another, to be read in place."""
    fd = open_regular(archive.path)
    try:
        start = data_start(fd, entry.header)
    except ImageError as error:
        raise _damaged(archive, f"{entry.name} is damaged") from error
    finally:
        os.close(fd)
    return Zip(archive.path, f"{archive.name}/{entry.name}", start, entry.size)


def _unpacked(fd: int, entry: Entry) -> Iterator[bytes]:
    """Unpack a deflated file in pieces of a few megabytes, and stop soon after the size that its entry states."""
    position = data_start(fd, entry.header)
    stop, size = position + entry.stored, 0
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    while not unpacker.eof and size <= entry.size:
        packed = unpacker.unconsumed_tail or os.pread(fd, min(_CHUNK, stop - position), position)
        if not unpacker.unconsumed_tail:
            position += len(packed)
        data = unpacker.decompress(packed, _CHUNK)
        if not packed and not data:  # some output may remain when all input has been read
            return
        size += len(data)
        yield data


def unpack(archive: Zip, entry: Entry, folder: Path) -> Zip:
    """Return a deflated zip inside another, copied once into `folder`.

    An earlier copy is used again if the outer zip has not changed since: its name is a hash of the outer file's status and
    the position of the inner zip. Raises SourceError if the disk has no room for it, or it is damaged.
    """
    status = archive.path.stat()
    place = (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns, entry.header, entry.size)
    target = folder / f"inner-{hashlib.sha256(repr(place).encode('ascii')).hexdigest()[:32]}.zip"
    name = f"{archive.name}/{entry.name}"
    if not target.exists():
        free = os.statvfs(folder)
        if (room := free.f_bavail * free.f_frsize) < entry.size:
            raise SourceError(
                f"{name}: is compressed inside a zip and needs {entry.size / 1e6:,.0f} MB for a copy in {folder}, which "
                f"has {room / 1e6:,.0f} MB free: free some space, or unzip {archive.name} elsewhere and give that folder"
            )
        fd = open_regular(archive.path)
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
