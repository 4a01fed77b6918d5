"""A row belongs to the image that its id or path names, with or without suffix and folders, and never to another."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.joining import Images, stem_of
from preprocess.sources import find_source
from tfrecords.errors import SourceError

Make = Callable[..., Images]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function that returns the images of these paths, each with bytes of its own."""

    def make(*paths: str) -> Images:
        for path in paths:
            (tmp_path / "images" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "images" / path).write_bytes(path.encode())
        return Images(find_source(tmp_path / "images", tmp_path).images)

    return make


def _paths(images: Images, keys: list[str]) -> list[str]:
    """The path of the image of each key; empty without one."""
    galaxies = images.galaxies("votes.csv", "name", np.array(keys, object))
    path_of = {int(galaxy): images.listing.path(row) for row, galaxy in enumerate(images.listing.galaxy_id)}
    return [path_of.get(galaxy, "") for galaxy in galaxies.tolist()]


def _refused(images: Images, key: str) -> str:
    with pytest.raises(SourceError) as caught:
        images.galaxies("votes.csv", "name", ["nothing", key])
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("M 51", "a/M 51.jpg"), ("M 51.jpg", "a/M 51.jpg"), ("M 51.PNG", "a/M 51.jpg"), ("a/M 51", "a/M 51.jpg"),
        ("./a/M 51.jpg", "a/M 51.jpg"), ("a\\M 51.jpg", "a/M 51.jpg"), ("elsewhere/M 51.jpg", ""),
        ("/data/2019/a/M 51.jpg", "a/M 51.jpg"), ("J081412.47+220853.0", "J081412.47+220853.0.jpg"),
        ("J081412.47+220853.0.jpeg", "J081412.47+220853.0.jpg"), ("J081412.47+220853", ""), ("100008", "100008.jpg"),
        ("000042.jpeg", ""), ("42", "b/42.png"), ("0", "0.jpg"), ("007", "007.jpg"), ("7", ""), ("0007", ""), ("7.5", ""),
        ("-7", ""), ("\u0667", ""), ("9" * 5000, ""),
        (str(2**63 - 1), f"{2**63 - 1}.jpg"), (str(2**63), f"{2**63}.jpg"), (str(2**63 + 1), ""), ("", ""), ("m 51", ""),
        ("1000123_4567", "1000123_4567.png"), ("1000123_4568", ""),
    ],
)  # fmt: skip
def test_a_row_belongs_to_the_image_of_its_name_or_path_with_or_without_suffix(make: Make, key: str, path: str) -> None:
    images = make(
        "a/M 51.jpg", "J081412.47+220853.0.jpg", "100008.jpg", "b/42.png", "0.jpg", "007.jpg", f"{2**63 - 1}.jpg",
        f"{2**63}.jpg", "1000123_4567.png",
    )  # fmt: skip
    assert images.listing.parts == 1
    assert _paths(images, [key, "M 51"]) == [path, "a/M 51.jpg"]


@pytest.mark.parametrize("stray", [[], ["notes.jpg"]], ids=["numbers", "a name too"])
@pytest.mark.parametrize(
    "keys",
    [np.array([7, 42, 8]), ["data7", "42", "8"], ["7", "42.jpg", "007"], ["./train_images/7.jpg", "/data/b/42.png", "b/8"]],
)
def test_the_number_of_an_image_is_found_with_and_without_the_articles_word(
    make: Make, stray: list[str], keys: np.ndarray | list[str]
) -> None:
    images = make("train_images/data7.jpg", "b/42.png", *stray)
    assert images.galaxies("votes.csv", "name", keys).tolist()[:2] == [7, 42]
    assert images.galaxies("votes.csv", "name", keys)[2] not in images.listing.galaxy_id


@pytest.mark.parametrize("names", [["1.jpg", "2.jpg"], ["1.jpg", "a.jpg"]], ids=["numbers", "a name too"])
def test_numbers_are_joined_with_numbers(make: Make, names: list[str]) -> None:
    images = make(*names)
    joined = images.galaxies("votes.csv", "GalaxyID", np.array([2**53 + 1, 1]))
    assert joined.dtype == np.int64 and joined[1] == 1
    assert joined[0] not in images.listing.galaxy_id


def test_leading_zeros_make_a_name(make: Make) -> None:
    images = make("007.jpg", "07.jpg", "8.jpg")
    assert _paths(images, ["007", "07", "7", "8", "008", "9"]) == ["007.jpg", "07.jpg", "", "8.jpg", "", ""]
    assert images.galaxies("votes.csv", "GalaxyID", np.array([7, 8, 9])).tolist() == [-1, 8, -1]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("spiral/003", "spiral/003.jpg"), ("spiral/003.jpg", "spiral/003.jpg"), ("disk/003.png", "disk/003.jpg"),
        ("/home/me/disk/003.jpg", "disk/003.jpg"), ("train\\disk\\003.jpg", "disk/003.jpg"), ("ring/003", ""), ("disk/004", ""),
        ("004", "spiral/004.jpg"), ("ring/004", ""),
    ],
)  # fmt: skip
def test_where_stems_repeat_their_folders_tell_images_apart(make: Make, key: str, path: str) -> None:
    images = make("spiral/003.jpg", "disk/003.jpg", "spiral/004.jpg")
    assert images.listing.parts == 2
    assert _paths(images, [key]) == [path]


def test_a_whole_name_comes_before_part_of_another(make: Make) -> None:
    images = make("x/1.jpg", "1.jpg", "x/2.jpg")
    assert _paths(images, ["1", "1.jpg", "x/1", "2", "y/2.jpg"]) == ["1.jpg", "1.jpg", "x/1.jpg", "x/2.jpg", ""]


@pytest.mark.parametrize("key", ["003", "003.jpg"])
def test_a_name_of_several_images_is_refused_with_two_of_them(make: Make, tmp_path: Path, key: str) -> None:
    message = _refused(make("spiral/003.jpg", "disk/003.jpg", "spiral/004.jpg"), key)
    two = f"{tmp_path}/images/spiral/003.jpg", f"{tmp_path}/images/disk/003.jpg"
    cure = "remove all but one, or write their paths into column name"
    assert message in {
        f"votes.csv: {key} is the name of several images ({first}, {second}): {cure}" for first, second in (two, two[::-1])
    }


def test_where_only_suffixes_differ_the_whole_path_is_the_name(make: Make) -> None:
    images = make("a/x.jpg", "a/x.png", "y.jpg")
    assert images.listing.parts == -1
    assert _paths(images, ["a/x.jpg", "a/x.png", "./a/x.png", "y", "y.jpg"]) == [
        "a/x.jpg",
        "a/x.png",
        "a/x.png",
        "y.jpg",
        "y.jpg",
    ]
    assert _refused(images, "a/x").startswith("votes.csv: a/x is the name of several images (")


@pytest.mark.parametrize(
    ("key", "stem"),
    [("a.jpg", "a"), ("a.JPEG", "a"), ("b/a.png", "b/a"), ("J1.5", "J1.5"), ("a.gif", "a.gif"), ("a.jpg.gz", "a.jpg.gz"),
     ("a.tif", "a"), ("a.WebP", "a"), ("a.jpe", "a"), ("a.jfif", "a"), ("a.bmp", "a"), ("a.fits", "a"), ("b/a.fits.gz", "b/a"),
     ("", ""), (".jpg", ".jpg"), ("100008.0", "100008.0")],
)  # fmt: skip
def test_only_the_suffix_of_an_image_is_taken_from_a_key(key: str, stem: str) -> None:
    assert stem_of(key) == stem


PARTS = st.text("ab01é.", min_size=1, max_size=3).filter(lambda part: part.strip(".") == part)
PATHS = st.lists(st.lists(PARTS, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8, unique=True)


@given(PATHS)
def test_every_image_is_found_by_its_own_name_and_by_its_path(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("images")
    for number, path in enumerate(paths):
        (folder / f"{path}.jpg").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{path}.jpg").write_bytes(b"%d" % number)
    listing = find_source(folder, folder).images
    rows = range(len(listing))
    for keys in ([str(listing.galaxy(row)) for row in rows], [listing.path(row) for row in rows]):
        assert Images(listing).galaxies("votes.csv", "name", keys).tolist() == listing.galaxy_id.tolist()
