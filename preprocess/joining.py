"""Join the rows of a table with images: by number, by the name of the file, or by its path where names repeat."""

from collections.abc import Iterable, Sequence

import numpy as np

from preprocess.sources import IMAGE_SUFFIXES, Listing, name_of, without_suffix
from tfrecords.errors import SourceError

NONE, SEVERAL = -1, -2
_LARGEST = 2**63 - 1


def stem_of(key: str) -> str:
    """A key without the suffix of an image, if it has one."""
    return without_suffix(key) if key.lower().endswith(IMAGE_SUFFIXES) else key


def _number(name: str) -> int:
    """The number that a name is, with or without leading zeros; NONE if it is none, or above 2^63 - 1."""
    if not (name.isascii() and name.isdecimal()):
        return NONE
    number = int(name) if len(name.lstrip("0")) < 20 else _LARGEST + 1
    return number if number <= _LARGEST else NONE


class Images:
    """The images of a listing, to be found by what a table calls them."""

    def __init__(self, images: Listing) -> None:
        self.listing = images
        self._by_name: dict[int, dict[str, int]] = {}
        self._numbers: dict[int, int] | None = None

    def _names(self, parts: int) -> dict[str, int]:
        """Names of so many parts -> row of the image, or SEVERAL."""
        if parts not in self._by_name:
            rows: dict[str, int] = {}
            for row in range(len(self.listing)):
                name = name_of(self.listing.path(row), parts)
                rows[name] = SEVERAL if name in rows else row
            self._by_name[parts] = rows
        return self._by_name[parts]

    def _row(self, key: str) -> int:
        """The row of the image that a key names; NONE or SEVERAL. Its folders count as far as they tell images apart."""
        key = key.replace("\\", "/").removeprefix("./")
        stem = stem_of(key)
        # A whole name comes before part of one: 1.jpg beside x/1.jpg is 1.
        exact = key if self.listing.parts < 0 else stem
        if self.listing.parts and (row := self._names(self.listing.parts).get(exact, NONE)) >= 0:
            return row
        parts = stem.count("/") + 1
        if self.listing.parts >= 0:
            parts = min(parts, max(self.listing.parts, 1))
        name = "/".join(stem.split("/")[-parts:])
        row = self._names(parts).get(name, NONE)
        return row if row != NONE else self._row_of_number(_number(name))

    def _row_of_number(self, number: int) -> int:
        """The row of the only image of this number, in its name with or without leading zeros; NONE or SEVERAL."""
        if number == NONE:
            return NONE
        if self._numbers is None:
            images, self._numbers = self.listing, {}
            for row in range(len(images)):
                # Numbers need not be names: the article's data7.jpg is galaxy 7.
                other = _number(name_of(images.path(row), 1)) if images.named[row] else int(images.galaxy_id[row])
                if other != NONE:
                    self._numbers[other] = SEVERAL if other in self._numbers else row
        return self._numbers.get(number, NONE)

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
        last = stem_of(key.replace("\\", "/")).rpartition("/")[2]
        alike = (row for row in range(len(self.listing)) if name_of(self.listing.path(row), 1).lstrip("0") == last.lstrip("0"))
        return [self.listing.shown(row) for row, _ in zip(alike, range(2), strict=False)]
