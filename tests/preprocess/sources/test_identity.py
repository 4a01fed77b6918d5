"""Numbers stay numbers; everything else has a name that no other image of the survey has."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.sources import Listing, find_images, find_source, name_of
from tests.preprocess.sources.packing import packed
from tfrecords.errors import SourceError


def _listing(folder: Path, files: dict[str, bytes]) -> Listing:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return find_source(folder, folder).images


def _different(*names: str) -> dict[str, bytes]:
    return {name: name.encode() for name in names}


def _names(listing: Listing) -> dict[str, str]:
    """Path -> name."""
    return {listing.path(row): listing.name(row) for row in range(len(listing))}


def _hashed(path: str) -> int:
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> 1


def test_a_survey_of_numbers_has_no_names(tmp_path: Path) -> None:
    listing = _listing(tmp_path, _different("a/7.jpg", "b/100008.png", f"{2**63 - 1}.jpg"))
    assert listing.parts == 0 and [listing.galaxy(row) for row in range(3)] == [7, 100008, 2**63 - 1]


@pytest.mark.parametrize(
    "names",
    [
        ["J112953.88-000427.4", "J112953.88-000427"], ["1000123_4567", "1000123_4568"], ["007", "7"], ["00", "0"],
        ["M 51", "M.51", "m 51"], [f"{2**63}", "1"], ["817739 (1)", "817739"],
    ],
)  # fmt: skip
def test_one_name_that_is_no_number_gives_every_galaxy_its_stem_as_name(tmp_path: Path, names: list[str]) -> None:
    listing = _listing(tmp_path, _different(*(f"folder {place}/{name}.jpg" for place, name in enumerate(names))))
    assert listing.parts == 1
    assert _names(listing) == {f"folder {place}/{name}.jpg": name for place, name in enumerate(names)}
    assert [listing.galaxy(row) for row in range(len(listing))] == [listing.name(row) for row in range(len(listing))]


def test_ids_beside_names_are_numbers_or_hashes_of_paths(tmp_path: Path) -> None:
    listing = _listing(tmp_path, _different("a/007.jpg", "a/7.jpg", "a/x.jpg"))
    ids = {listing.path(row): int(listing.galaxy_id[row]) for row in range(3)}
    assert ids == {"a/007.jpg": _hashed("a/007.jpg"), "a/7.jpg": 7, "a/x.jpg": _hashed("a/x.jpg")}
    assert listing.galaxy_id.tolist() == sorted(ids.values())


@pytest.mark.parametrize(
    ("paths", "parts", "names"),
    [
        (["spiral/003.jpg", "disk/003.jpg"], 2, ["spiral/003", "disk/003"]),
        (["spiral/3.jpg", "disk/3.jpg"], 2, ["spiral/3", "disk/3"]),
        (["spiral/3.jpg", "disk/3.jpg", "disk/4.jpg"], 2, ["spiral/3", "disk/3", "disk/4"]),
        (["a/x/1.jpg", "b/x/1.jpg", "2.jpg"], 3, ["a/x/1", "b/x/1", "2"]),
        (["x/1.jpg", "1.jpg"], 2, ["x/1", "1"]),
        (["a/m51.jpg", "a/m51.png"], -1, ["a/m51.jpg", "a/m51.png"]),
        (["7.jpg", "7.png"], -1, ["7.jpg", "7.png"]),
    ],
)
def test_where_stems_repeat_names_have_as_many_folders_as_tell_images_apart(
    tmp_path: Path, paths: list[str], parts: int, names: list[str]
) -> None:
    listing = _listing(tmp_path, _different(*paths))
    assert listing.parts == parts
    assert _names(listing) == dict(zip(paths, names, strict=True))


def test_different_images_of_one_number_are_galaxies_of_their_own_and_said(tmp_path: Path) -> None:
    _listing(tmp_path, _different("spiral/3.jpg", "disk/3.jpg", "disk/4.jpg"))
    source = find_source(tmp_path, tmp_path)
    both = f"{tmp_path}/disk/3.jpg and {tmp_path}/spiral/3.jpg"
    assert source.clash == f"{tmp_path}: galaxy 3 has two different images, {both}: remove one of them"
    assert sorted(source.images.galaxy_id.tolist()) == sorted([4, _hashed("disk/3.jpg"), _hashed("spiral/3.jpg")])


def test_of_three_images_of_one_number_all_are_galaxies_of_their_own_if_one_differs(tmp_path: Path) -> None:
    listing = _listing(tmp_path, {"a/3.jpg": b"same", "b/3.jpg": b"same", "c/3.jpg": b"other"})
    assert sorted(_names(listing).values()) == ["a/3", "b/3", "c/3"]


def test_copies_of_one_number_are_one_galaxy_and_copies_of_one_name_in_two_folders_two(tmp_path: Path) -> None:
    numbers = _listing(tmp_path / "numbers", {"a/3.jpg": b"same", "b/3.jpg": b"same"})
    assert (len(numbers), numbers.parts) == (1, 0)
    names = _listing(tmp_path / "names", {"a/x.jpg": b"same", "b/x.jpg": b"same"})
    assert sorted(_names(names).values()) == ["a/x", "b/x"]


def test_one_path_in_a_folder_and_in_a_zip_beside_it_is_one_galaxy_if_the_bytes_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "old.zip").write_bytes(packed({"a/x.jpg": b"same"}))
    assert _names(_listing(tmp_path, {"a/x.jpg": b"same"})) == {"a/x.jpg": "x"}
    (tmp_path / "old.zip").write_bytes(packed({"a/x.jpg": b"other"}))
    with pytest.raises(SourceError, match=r"galaxy a/x\.jpg has two different images, .*/a/x\.jpg and .*/old\.zip/a/x\.jpg: "):
        find_source(tmp_path, tmp_path)


def test_a_part_of_a_listing_keeps_its_names(tmp_path: Path) -> None:
    listing = _listing(tmp_path, _different("spiral/003.jpg", "disk/003.jpg", "disk/004.jpg"))
    for some in (listing.part(np.array([2, 0])), listing.rows(np.array([2, 0]))):
        assert [some.name(row) for row in range(2)] == [listing.name(2), listing.name(0)]


def test_a_single_image_to_predict_is_named_by_its_stem(tmp_path: Path) -> None:
    _listing(tmp_path, _different("spiral/J112953.88-000427.4.jpg", "disk/7.jpg"))
    named, _ = find_images(tmp_path / "spiral" / "J112953.88-000427.4.jpg", tmp_path)
    number, _ = find_images(tmp_path / "disk" / "7.jpg", tmp_path)
    assert (named.galaxy(0), number.galaxy(0)) == ("J112953.88-000427.4", 7)


@pytest.mark.parametrize(
    ("path", "parts", "name"),
    [("a/b/c.jpg", 1, "c"), ("a/b/c.jpg", 2, "b/c"), ("a/b/c.jpg", 9, "a/b/c"), ("a/b/c.jpg", -1, "a/b/c.jpg"),
     ("a.b/c.d.jpg", 2, "a.b/c.d"), ("a/.jpg", 1, ".jpg")],
)  # fmt: skip
def test_a_name_is_the_last_parts_of_a_path_without_the_suffix(path: str, parts: int, name: str) -> None:
    assert name_of(path, parts) == name


STEMS = st.lists(st.text("ab01.", min_size=1, max_size=3).filter(lambda part: part.strip(".") == part), min_size=1, max_size=3)
FILES = st.dictionaries(
    st.tuples(STEMS.map("/".join), st.sampled_from([".jpg", ".PNG"])).map("".join),
    st.binary(max_size=1),
    min_size=1,
    max_size=8,
)


@given(FILES)
def test_no_two_galaxies_share_an_id_or_a_name_and_packing_changes_neither(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    listing = _listing(folder / "source", files)
    names = _names(listing)
    assert len({*listing.galaxy_id.tolist()}) == len(listing)
    assert bool(listing.parts) == bool(listing.named.any())
    assert not listing.parts or len({*names.values()}) == len(listing)
    (folder / "packed.zip").write_bytes(packed(files))
    zipped = find_source(folder / "packed.zip", folder).images
    assert (_names(zipped), zipped.galaxy_id.tolist(), zipped.parts) == (names, listing.galaxy_id.tolist(), listing.parts)
    shutil.rmtree(folder)
