"""Join the rows of a table with images: by the names of their files, or by their paths where folders are given."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np

from preprocess.sources import FITS_SUFFIXES, IMAGE_SUFFIXES, WHOLE, Listing, plain_number, without_suffix
from tfrecords.errors import SourceError

NONE, SEVERAL = -1, -2


def stem_of(key: str) -> str:
    """A key without the suffix of an image, if it has one."""
    return without_suffix(key) if key.lower().endswith((*IMAGE_SUFFIXES, *FITS_SUFFIXES)) else key


def _parts_of(key: str) -> list[str]:
    """The folders and the name in a key."""
    return [part for part in key.replace("\\", "/").split("/") if part not in ("", ".")]


def _agree(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two rows of folders are the same as far as both go, from their ends."""
    return all(first == second for first, second in zip(reversed(one), reversed(other), strict=False))


class _Names:
    """The images of a listing by the last parts of their paths, in 12 bytes each: hashes of these names, and rows."""

    def __init__(self, images: Listing, parts: int, suffix: bool) -> None:
        self._images, self._parts, self._suffix = images, parts, suffix
        hashes = np.fromiter((hash(self._name(row)) for row in range(len(images))), np.int64, len(images))
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._rows = array("q", hashes[order].tobytes()), array("I", order.astype(np.uintc).tobytes())

    def _name(self, row: int) -> str:
        path = self._images.path(row)
        return "/".join((path if self._suffix else without_suffix(path)).split("/")[-self._parts :])

    def row(self, name: str) -> int:
        """The row of the image of this name; NONE or SEVERAL."""
        key, row = hash(name), NONE
        place = bisect_left(self._hashes, key)
        while place < len(self._hashes) and self._hashes[place] == key:
            if self._name(self._rows[place]) == name:
                if row != NONE:
                    return SEVERAL
                row = self._rows[place]
            place += 1
        return row


class Images:
    """The images of a listing, sorted by galaxy, to be found by what a table calls them.

    A key is a name or a path, with or without the suffix of an image. Its folders and those of the image must agree as far as
    both go: train/1.jpg is the image of 1, train/1 and data/train/1, but not of test/1.
    """

    def __init__(self, images: Listing) -> None:
        self.listing = images
        self._depth = max((place.folder.count(b"/") for place in images.places), default=0) + 1
        self._by_name: dict[tuple[int, bool], _Names] = {}
        self._elsewhere: dict[int, str] = {}

    def _names(self, parts: int, suffix: bool = False) -> _Names:
        """Images by so many parts of their paths. suffix: whether names are written with it."""
        which = (min(parts, self._depth), suffix)
        if which not in self._by_name:
            self._by_name[which] = _Names(self.listing, *which)
        return self._by_name[which]

    def _row(self, key: str) -> int:
        """The row of the image that a key names; NONE or SEVERAL."""
        parts = _parts_of(key)
        if not parts:
            return NONE
        *folders, last = parts
        # Where only suffixes tell images apart, names have them.
        ends = ((last, True), (stem_of(last), False)) if self.listing.parts == WHOLE else ((stem_of(last), False),)
        for start in range(len(parts)):
            for end, suffix in ends:
                name = "/".join((*folders[start:], end))
                # A whole path comes before part of another, and what is dropped from a key must lie above the source.
                row = self._names(self._depth if start else len(parts), suffix).row(name)
                if row == SEVERAL and (whole := self._names(self._depth, suffix).row(name)) != NONE:
                    row = whole
                if row != NONE:
                    return row
        row = self._row_of_number(stem_of(last))
        if row != NONE and _agree(folders, self._folders(row)):
            return row
        if folders:
            row = self._names(1).row(stem_of(last)) if row == NONE else row
            if row >= 0:
                self._elsewhere.setdefault(row, key)
        return NONE

    def _folders(self, row: int) -> list[str]:
        return self.listing.path(row).split("/")[:-1]

    def _row_of_number(self, name: str) -> int:
        """The row of the image of a number, NONE if there is none. The article's names are no numbers: data7.jpg is 7."""
        number, ids = plain_number(name), self.listing.galaxy_id
        if number < 0:
            return NONE
        row = int(np.searchsorted(ids, number))
        return row if row < len(ids) and ids[row] == number and not self.listing.named[row] else NONE

    def galaxies(self, path: str, column: str, ids: np.ndarray | Sequence[str]) -> np.ndarray:
        """The galaxy of each id, int64; -1 for ids without an image.

        ids: int64, or paths or names of files, with or without suffix. path, column: the table and its column in messages.
        Raises SourceError for an id that is the name of several images.
        """
        numbers = isinstance(ids, np.ndarray) and ids.dtype == np.int64
        if numbers and not self.listing.parts:
            return np.asarray(ids)  # those without an image are no galaxy of the listing either
        keys: Iterable[str] = (str(each) for each in ids)
        rows = np.fromiter((self._row(key) for key in keys), np.int64, len(ids))
        if (rows == SEVERAL).any():
            key = str(ids[int(np.argmax(rows == SEVERAL))])
            raise SourceError(
                f"{path}: {key} is the name of several images ({', '.join(self._called(key))}): remove all but one, or write "
                f"their paths into column {column}"
            )
        there = rows >= 0
        return np.where(there, self.listing.galaxy_id[np.where(there, rows, 0)], -1)

    def _called(self, key: str) -> list[str]:
        """Two images that a key names."""
        *folders, last = _parts_of(key)

        def is_alike(row: int) -> bool:
            *others, name = self.listing.path(row).split("/")
            return stem_of(last) in (name, without_suffix(name)) and _agree(folders, others)

        alike = [row for row in range(len(self.listing)) if is_alike(row)]
        alike.sort(key=lambda row: -min(len(folders), len(self._folders(row))))
        return [self.listing.shown(row) for row in alike[:2]]

    def in_other_folders(self, galaxies: np.ndarray) -> list[tuple[str, str]]:
        """Keys that were not joined because of their folders alone, each with the image, unless it is one of these galaxies."""
        apart = ~np.isin(self.listing.galaxy_id[[*self._elsewhere]], galaxies)
        pairs = zip(self._elsewhere.items(), apart.tolist(), strict=True)
        return [(key, self.listing.path(row)) for (row, key), is_apart in pairs if is_apart]
