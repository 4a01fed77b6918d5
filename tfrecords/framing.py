"""TFRecord framing: write, read and check records. No TensorFlow.

A file is a sequence of records, without a header or an index. Each record consists of

    length   uint64, little endian
    crc      uint32, masked CRC-32C of the 8 length bytes
    data     `length` bytes
    crc      uint32, masked CRC-32C of the data

masked(crc) = ((crc >> 15 | crc << 17) + 0xA282EAD8) mod 2^32.
Source: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from tfrecords.errors import BUILD_AGAIN, RecordError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
RECORD_OVERHEAD = _HEADER.size + _FOOTER.size


def masked_crc(data: bytes) -> int:
    """The masked CRC-32C that TFRecord files store."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """`data` as one framed record, ready to be appended to a file."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _FOOTER.pack(masked_crc(length)), data, _FOOTER.pack(masked_crc(data))))


def _exactly(file: BinaryIO, size: int, path: Path, number: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise RecordError(f"{path}: record {number} is cut off: {BUILD_AGAIN}")
    return data


def read_records(path: Path) -> Iterator[bytes]:
    """The data of each record, in file order.

    Raises RecordError, naming the record, if the file is cut off or a checksum does not match.
    """
    with path.open("rb") as file:
        number = 0
        remaining = path.stat().st_size
        while header := file.read(_HEADER.size):
            if len(header) != _HEADER.size:
                raise RecordError(f"{path}: record {number} is cut off: {BUILD_AGAIN}")
            length, crc = _HEADER.unpack(header)
            if crc != masked_crc(header[:8]):
                raise RecordError(f"{path}: record {number} has a damaged length: {BUILD_AGAIN}")
            remaining -= RECORD_OVERHEAD + length
            if remaining < 0:
                raise RecordError(f"{path}: record {number} is cut off: {BUILD_AGAIN}")
            data = _exactly(file, length, path, number)
            (crc,) = _FOOTER.unpack(_exactly(file, _FOOTER.size, path, number))
            if crc != masked_crc(data):
                raise RecordError(f"{path}: record {number} has damaged data: {BUILD_AGAIN}")
            yield data
            number += 1
