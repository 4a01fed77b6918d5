"""A listing that was saved is the same listing, and a damaged file is no listing."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from preprocess.sources import ImageReader, Listing, find_images, load_listing, save_listing
from tests.preprocess.sources.packing import packed
from tests.tfrecords.fits.files import galaxy, write_bands
from tfrecords.errors import ConfigError


def _assert_same(one: Listing, other: Listing) -> None:
    for field in fields(Listing):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("places", "place"):
            continue
        if field.name == "files" and first is not None:
            _assert_same(first, second)
        elif isinstance(first, np.ndarray):
            assert first.dtype == second.dtype and (first == second).all(), field.name
        else:
            assert first == second, field.name
    assert [one.places[row] for row in one.place] == [other.places[row] for row in other.place]


def _images_in(path: Path) -> Listing:
    return find_images(path, path.parent)[0]


def _folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    for name in ("a/NGC 1.jpg", "b/NGC 1.jpg", "b/Ä\udcff.png"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    return source


def _zip(tmp_path: Path) -> Path:
    (tmp_path / "source.zip").write_bytes(packed({f"images/{number}.jpg": b"%d" % number for number in range(20)}))
    return tmp_path / "source.zip"


def _bands(tmp_path: Path) -> Path:
    write_bands(tmp_path / "bands", "NGC 1", galaxy())
    write_bands(tmp_path / "bands", "NGC 2", galaxy())
    return tmp_path / "bands"


@pytest.mark.parametrize("make", [_folder, _zip, _bands])
def test_a_saved_listing_is_the_same_and_so_are_the_bytes_of_its_images(make: Callable[[Path], Path], tmp_path: Path) -> None:
    listing = _images_in(make(tmp_path))
    save_listing(tmp_path / "listing.npz", listing)
    again = load_listing(tmp_path / "listing.npz")
    _assert_same(listing, again)
    with ImageReader() as reader:
        for row in range(len(listing)):
            assert reader.read(again, row).data == reader.read(listing, row).data
            assert again.shown(row) == listing.shown(row)


def test_a_part_keeps_only_its_own_places(tmp_path: Path) -> None:
    listing = _images_in(_folder(tmp_path))
    rows = np.array([len(listing) - 1])
    save_listing(tmp_path / "listing.npz", listing.part(rows))
    again = load_listing(tmp_path / "listing.npz")
    assert len(again.places) == 1 < len(listing.places)
    assert again.path(0) == listing.path(int(rows[0]))


def test_a_damaged_file_is_no_listing(tmp_path: Path) -> None:
    path = tmp_path / "listing.npz"
    save_listing(path, _images_in(_zip(tmp_path)))
    whole = path.read_bytes()
    for damaged in (b"", whole[:200], whole[:-30], b"nonsense"):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"listing\.npz: damaged .*: remove the folder"):
            load_listing(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(ConfigError, match="damaged"):
        load_listing(path)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "listing.npz", galaxy_id=np.array([{1: 2}], object))
    with pytest.raises(ConfigError, match="damaged"):
        load_listing(tmp_path / "listing.npz")
