"""Which image is which galaxy: its id, its name, and one image per galaxy.

A galaxy's id is the number in the name of its file. Images that share a number without being copies, and images whose names
are not numbers, are galaxies of their own: their ids are hashes of their paths. If a listing has one such galaxy, all its
galaxies have names: the stem of the file or, if stems repeat, with as many folders before it as tell them apart.
"""

import hashlib
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from preprocess.sources.listing import PLAIN, WHOLE, ImageReader, Listing, name_of, without_suffix
from tfrecords.decoding import MAX_BYTES
from tfrecords.errors import ImageError, SourceError

# Leading zeros make a name: 007 is not 7.
_NUMBER = re.compile(r"0|[1-9]\d{0,18}", re.ASCII)
_ARTICLES_NUMBER = re.compile(r"(?:data)?0*(\d{1,19})", re.ASCII)


def plain_number(name: str) -> int:
    """The number that a name is, below 2^63; -1 if it is something else. Everything that asks for a number asks this."""
    number = int(name) if _NUMBER.fullmatch(name) else -1
    return number if number < 2**63 else -1


def number_of(name: bytes, split: str) -> int:
    """The number in the name of an image, below 2^63; -1 if its name is something else. split: that of its folder."""
    stem = without_suffix(name.decode("latin-1"))
    number = _ARTICLES_NUMBER.fullmatch(stem) if split else None
    return plain_number(str(int(number[1])) if number else stem)


def hashed_id(path: bytes) -> int:
    """The id of an image whose name is not a number: the top 63 bits of the SHA-256 of its relative path."""
    return int.from_bytes(hashlib.sha256(path).digest()[:8], "big") >> 1


def _same_bytes(images: Listing, first: int, second: int, reader: ImageReader) -> bool:
    """Whether two images have the same bytes; images with the same CRC-32 may still differ."""
    if images.size[first] != images.size[second] or images.size[first] > MAX_BYTES:
        return False
    try:
        return reader.read(images, first).data == reader.read(images, second).data
    except ImageError:  # one is damaged in its zip, whose list still holds the CRC-32 of the intact image
        first_crc, second_crc = (
            reader.read(images, row).crc if images.method[row] == PLAIN else int(images.crc[row]) for row in (first, second)
        )
        return first_crc == second_crc


def _groups(ids: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each id that comes more than once, int64."""
    order = np.argsort(ids, kind="stable")
    arranged = ids[order]
    again = np.flatnonzero(arranged[1:] == arranged[:-1]) + 1
    for start in np.unique(np.searchsorted(arranged, arranged[again])):
        yield order[start : int(np.searchsorted(arranged, arranged[start], "right"))]


def _with_clashes_apart(source: Path, images: Listing) -> tuple[Listing, str]:
    """Give images that share a number without being copies ids of their own; return a sentence about the first two."""
    ids, named, clash = images.galaxy_id.copy(), images.named.copy(), ""
    with ImageReader() as reader:
        for rows in _groups(np.where(images.named == 1, -1 - np.arange(len(ids)), ids)):
            other = next((row for row in rows[1:].tolist() if not _same_bytes(images, int(rows[0]), row, reader)), None)
            if other is None:
                continue
            clash = clash or _two_images(source, images, int(rows[0]), other)
            for row in rows.tolist():
                ids[row], named[row] = hashed_id(images.path_bytes(row)), 1
    return replace(images, galaxy_id=ids, named=named), clash


def _two_images(source: Path, images: Listing, first: int, second: int) -> str:
    both = sorted((images.shown(first), images.shown(second)))
    galaxy = images.path(first) if images.named[first] else images.galaxy_id[first]
    return f"{source}: galaxy {galaxy} has two different images, {both[0]} and {both[1]}: remove one of them"


def _one_each(source: Path, images: Listing) -> Listing:
    """Return the images sorted by galaxy, one per galaxy.

    Of copies with the same bytes one is kept: in a split folder rather than elsewhere, outside zips rather than in one.
    Raises SourceError, naming both, for different images of one galaxy and for copies in two splits.
    """

    def split_of(row: int) -> str:
        return images.places[images.place[row]].split

    dropped: list[int] = []
    with ImageReader() as reader:
        for rows in _groups(images.galaxy_id):
            best, *others = sorted(
                rows.tolist(), key=lambda row: (not split_of(row), images.method[row] != PLAIN, images.path(row))
            )
            for other in others:
                if not _same_bytes(images, best, other, reader):
                    raise SourceError(_two_images(source, images, best, other))
                if split_of(other) not in ("", split_of(best)):
                    both = " and ".join(sorted((images.shown(best), images.shown(other))))
                    raise SourceError(f"{source}: galaxy {images.galaxy_id[best]} is in two splits, {both}: remove one of them")
            dropped += others
    kept = np.ones(len(images), bool)
    kept[dropped] = False
    order = np.argsort(images.galaxy_id, kind="stable")
    return images.rows(order[kept[order]])


def _parts(images: Listing) -> int:
    """How many parts of a path, from its end, make names that differ; WHOLE if none do without their suffixes."""

    def differ(parts: int) -> bool:
        hashes = np.fromiter((hash(name_of(images.path(row), parts)) for row in range(len(images))), np.int64, len(images))
        hashes.sort()
        return bool((hashes[1:] != hashes[:-1]).all())

    deepest = max(place.folder.count(b"/") for place in images.places) + 1
    if differ(1):
        return 1
    # Names that differ still do with more folders before them: the number is bisected, as paths may have thousands.
    parts = bisect_left(range(deepest + 1), True, lo=2, key=differ)
    return parts if parts <= deepest else WHOLE


def identified(source: Path, images: Listing) -> tuple[Listing, str]:
    """Return the images of a source sorted by galaxy, one per galaxy, with their names if they need any.

    Also returns a sentence about the first two images that share a number and are not the same; empty if there are none. Raises
    SourceError for two different images of one path, and for copies in two splits.
    """
    images, clash = _with_clashes_apart(source, images)
    images = _one_each(source, images)
    return replace(images, parts=_parts(images) if images.named.any() else 0), clash
