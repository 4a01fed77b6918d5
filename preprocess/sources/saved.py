"""Listings on disk, so that the processes of a job array share one: NumPy's .npz, without pickled objects."""

import json
import os
import zlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from preprocess.sources.listing import COLUMNS, Listing, Place
from tfrecords.errors import ConfigError, squeezed
from tfrecords.files import atomic_file

# The name of the array with all that is no array, as JSON.
_REST = "listing.json"
_FILES = "files/"
_DAMAGED = (OSError, ValueError, KeyError, TypeError, BadZipFile, zlib.error, EOFError)


def arrays_of(listing: Listing) -> dict[str, np.ndarray]:
    """A listing as arrays by name, none of them of objects. Only the places of its images are kept."""
    used, place = np.unique(listing.place, return_inverse=True)
    rest = {
        "places": [_as_json(listing.places[row]) for row in used.tolist()],
        "parts": listing.parts,
        "called": None if listing.called is None else listing.called.tolist(),
        "usual": [*listing.usual],
    }
    arrays = {column: getattr(listing, column) for column in COLUMNS} | {"place": place.astype(np.uint32)}
    arrays |= {"names": _bytes(listing.names), _REST: _bytes(json.dumps(rest).encode("ascii"))}
    if listing.files is not None and listing.first is not None and listing.count is not None:
        arrays |= {"first": listing.first, "count": listing.count}
        arrays |= {f"{_FILES}{name}": array for name, array in arrays_of(listing.files).items()}
    return arrays


def listing_of(arrays: Mapping[str, np.ndarray]) -> Listing:
    """The inverse of `arrays_of`. Raises KeyError, ValueError or TypeError if they are no listing."""
    rest = json.loads(arrays[_REST].tobytes())
    called = None if rest["called"] is None else np.array(rest["called"], object)
    columns: dict[str, Any] = {column: arrays[column] for column in COLUMNS}
    places = tuple(map(_place, rest["places"]))
    listing = Listing(places, arrays["names"].tobytes(), **columns, parts=rest["parts"], called=called)
    if "first" not in arrays:
        return listing
    files = {name.removeprefix(_FILES): array for name, array in arrays.items() if name.startswith(_FILES)}
    first, count = arrays["first"], arrays["count"]
    return replace(listing, files=listing_of(files), first=first, count=count, usual=tuple(rest["usual"]))


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name to a file, atomically."""
    with atomic_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_arrays(path: Path, names: Collection[str] = (), advice: str = "") -> dict[str, np.ndarray]:
    """The arrays of a file, or those of these names alone. Raises ConfigError, with the advice, if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names or file.files}
    except _DAMAGED as error:
        raise _damaged(path, error, advice) from error


def save_listing(path: Path, listing: Listing) -> None:
    """Write a listing to a file, atomically."""
    save_arrays(path, arrays_of(listing))


def load_listing(path: Path) -> Listing:
    """The listing that `save_listing` wrote. Raises ConfigError if the file is damaged."""
    try:
        return listing_of(load_arrays(path))
    except _DAMAGED as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception, advice: str = "") -> ConfigError:
    cure = advice or f"remove the folder {path.parent} and run the same command again"
    return ConfigError(f"{path}: damaged ({squeezed(error)}): {cure}")


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


def _as_json(place: Place) -> list[Any]:
    """A place as JSON; latin-1 keeps the bytes of paths."""
    return [
        *(text.decode("latin-1") for text in (os.fsencode(place.container), place.folder)),
        place.shown,
        place.split,
        place.training,
    ]


def _place(value: list[Any]) -> Place:
    container, folder, shown, split, training = value
    return Place(Path(os.fsdecode(container.encode("latin-1"))), shown, folder.encode("latin-1"), split, training)
