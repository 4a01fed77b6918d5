"""A galaxy with one file per band is one image, whatever its name; files of other galaxies are left alone."""

import gzip
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from preprocess.sources import ImageReader, Listing, find_images, picture_in, warnings_of_fits
from tests.tfrecords.fits.files import RED_FIRST, STRETCH, cube, galaxy, lupton, write, write_bands
from tfrecords.errors import ImageError, SourceError
from tfrecords.fits.look import Look

FLUX = galaxy()
EXPECTED = lupton(FLUX)
LOOK = Look(stretch=STRETCH)


def _listing(path: Path) -> Listing:
    return find_images(path, path.parent)[0]


def _names(images: Listing) -> list[int | str]:
    return [images.galaxy(row) for row in range(len(images))]


def _picture(images: Listing, name: int | str, look: Look = LOOK) -> np.ndarray:
    row = _names(images).index(name)
    with ImageReader() as reader, warnings_of_fits(look):
        return picture_in(images.path(row), reader.read(images, row), look)[0].pixels


@pytest.mark.parametrize("between", ["_", "-", "."])
@pytest.mark.parametrize("name", ["J100023.5+021653", "NGC 1", "a_b"])
def test_three_files_are_one_galaxy_by_the_name_without_the_band(name: str, between: str, tmp_path: Path) -> None:
    write_bands(tmp_path / "images", name, FLUX, between=between)
    images = _listing(tmp_path / "images")
    assert _names(images) == [name]
    np.testing.assert_array_equal(_picture(images, name), EXPECTED)


def test_a_number_before_the_band_is_the_id_and_other_names_have_that_of_a_single_file(tmp_path: Path) -> None:
    write_bands(tmp_path / "images", "587722981742084144", FLUX)
    images = _listing(tmp_path / "images")
    assert (images.galaxy_id.tolist(), _names(images)) == ([587722981742084144], [587722981742084144])
    write_bands(tmp_path / "named", "NGC 1", FLUX)
    write(tmp_path / "one" / "NGC 1.fits", FLUX)
    assert _listing(tmp_path / "named").galaxy_id.tolist() == _listing(tmp_path / "one").galaxy_id.tolist()


@pytest.mark.parametrize(
    "bands", [("Z", "R", "G"), ("F814W", "F606W", "F435W"), ("F444W", "F277W", "F115W"), ("HSC-Z", "R2", "G")]
)
def test_bands_in_any_case_and_spelling_go_from_the_longest_wavelength_to_the_shortest(
    bands: tuple[str, ...], tmp_path: Path
) -> None:
    bands = tuple(band.removeprefix("HSC-") for band in bands)
    write_bands(tmp_path / "images", "a", FLUX, bands)
    np.testing.assert_array_equal(_picture(_listing(tmp_path / "images"), "a"), EXPECTED)


def test_the_files_of_a_galaxy_may_be_packed_and_named_in_several_ways(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name, plane in zip(("7_z.fits.gz", "7-R.FIT", "7.g.fts"), FLUX, strict=True):
        data = cube(plane)
        (tmp_path / "images" / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    np.testing.assert_array_equal(_picture(_listing(tmp_path / "images"), 7), EXPECTED)


def test_other_files_are_galaxies_of_their_own(tmp_path: Path) -> None:
    write_bands(tmp_path / "images", "a", FLUX)
    for name in ("a.b_c", "b", "galaxy_1", "J1000-0216", "12"):
        write(tmp_path / "images" / f"{name}.fits", FLUX)
    images = _listing(tmp_path / "images")
    assert sorted(map(str, _names(images))) == ["12", "J1000-0216", "a", "a.b_c", "b", "galaxy_1"]
    for name in _names(images):
        np.testing.assert_array_equal(_picture(images, name), EXPECTED)


def test_single_files_that_end_like_a_band_are_left_alone(tmp_path: Path) -> None:
    for name in ("a_g", "b_r", "c_z"):
        write(tmp_path / "images" / f"{name}.fits", FLUX)
    images = _listing(tmp_path / "images")
    assert sorted(_names(images)) == ["a_g", "b_r", "c_z"] and images.files is None


def test_folders_and_zips_are_apart_and_names_that_repeat_have_their_folders(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        write_bands(tmp_path / "images" / folder, "a", FLUX)
    write(tmp_path / "images" / "z" / "a_g.fits", FLUX[2])
    with zipfile.ZipFile(tmp_path / "images" / "all.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted((tmp_path / "images" / "x").iterdir()):
            file.write(path, f"in/{path.name}")
    images = _listing(tmp_path / "images")
    assert sorted(map(str, _names(images))) == ["in/a", "x/a", "y/a", "z/a"]
    for name in ("in/a", "x/a", "y/a"):
        np.testing.assert_array_equal(_picture(images, name), EXPECTED)


def test_a_part_of_a_listing_reads_the_same_and_holds_no_other_files(tmp_path: Path) -> None:
    for number in range(6):
        write_bands(tmp_path / "images", str(number), galaxy(seed=number), between="_-."[number % 3])
    write(tmp_path / "images" / "6.fits", galaxy(seed=6))
    images = _listing(tmp_path / "images")
    assert _names(images) == list(range(7))
    rows = np.array([5, 6, 1])
    for part in (
        images.rows(rows),
        images.part(rows),
        images.part(rows).part(np.arange(3)),
        images.rows(rows).part(np.arange(3)),
    ):
        assert _names(part) == [5, 6, 1]
        for number in (5, 6, 1):
            np.testing.assert_array_equal(_picture(part, number), lupton(galaxy(seed=number)))
    files = images.part(rows).files
    assert files is not None and len(files) == 6
    assert images.part(np.array([6])).nbytes() < images.part(rows).nbytes() < images.nbytes()
    assert len(images.part(np.zeros(0, np.int64))) == 0


def test_its_files_take_50_bytes_each_and_their_names(tmp_path: Path) -> None:
    write_bands(tmp_path / "images", "12345678", FLUX)
    images = _listing(tmp_path / "images")
    assert images.nbytes() < 4 * (60 + len("12345678_g.fits"))


# What a galaxy lacks


def _rejected(images: Listing, name: int | str, look: Look = LOOK) -> str:
    with pytest.raises(ImageError) as caught:
        _picture(images, name, look)
    return str(caught.value)


def test_a_galaxy_that_lacks_a_band_of_most_is_refused_with_the_band_and_not_drawn_without_it(tmp_path: Path) -> None:
    for name in "abcd":
        write_bands(tmp_path / "images", name, FLUX)
    (tmp_path / "images" / "b_g.fits").unlink()
    for band in "rz":
        (tmp_path / "images" / f"c_{band}.fits").unlink()
    images = _listing(tmp_path / "images")
    assert sorted(_names(images)) == ["a", "b", "c", "d"]
    advice = ", unlike most: add the file, or choose other bands with --bands"
    assert _rejected(images, "b") == f"it has no file of band g{advice}"
    assert _rejected(images, "c") == f"it has no file of band z{advice}"
    for name in "ad":
        np.testing.assert_array_equal(_picture(images, name), EXPECTED)
    two = Look(("r", "z"), STRETCH)
    np.testing.assert_array_equal(_picture(images, "b", two), _picture(images, "a", two))
    rows = np.array([_names(images).index("b")])
    assert _rejected(images.part(rows), "b") == f"it has no file of band g{advice}"  # a worker sees this row alone


def test_a_set_of_two_bands_is_drawn_with_their_mean_as_green(tmp_path: Path) -> None:
    for name in "ab":
        write_bands(tmp_path / "images", name, FLUX[[0, 2]], ("z", "g"))
    assert (
        np.abs(
            _picture(_listing(tmp_path / "images"), "a").astype(int) - lupton([FLUX[0], FLUX[[0, 2]].mean(0), FLUX[2]])
        ).max()
        <= 1
    )


def test_all_galaxies_have_the_same_colours_though_some_have_more_bands(tmp_path: Path) -> None:
    for name in "abc":
        write_bands(tmp_path / "images", name, FLUX)
    write(tmp_path / "images" / "c_i.fits", FLUX[2])
    images = _listing(tmp_path / "images")
    np.testing.assert_array_equal(_picture(images, "c"), EXPECTED)


def test_a_band_that_is_not_drawn_may_be_lacking(tmp_path: Path) -> None:
    for name in "abc":
        write_bands(tmp_path / "images", name, np.stack([FLUX[2], *FLUX]), ("z", "i", "r", "g"))
    (tmp_path / "images" / "b_z.fits").unlink()
    images = _listing(tmp_path / "images")
    for name in "abc":
        np.testing.assert_array_equal(_picture(images, name), EXPECTED)


def test_given_bands_are_taken_from_the_files_by_name(tmp_path: Path) -> None:
    write_bands(tmp_path / "images", "a", np.stack([*FLUX, FLUX[0]]), (*RED_FIRST, "i"))
    images = _listing(tmp_path / "images")
    np.testing.assert_array_equal(_picture(images, "a", Look(("g", "r", "z"), STRETCH)), EXPECTED)
    assert _rejected(images, "a", Look(("g", "r", "y"), STRETCH)) == "it has no file of band y"


@pytest.mark.parametrize(
    ("cards", "reason"),
    [
        ({"FILTER": "r"}, "the file named after band g is of band r, by its header"),
        ({"FILTER": "F814W"}, "the file named after band g is of band f814w, by its header"),
    ],
)
def test_a_header_that_contradicts_the_name_is_refused(cards: dict[str, str], reason: str, tmp_path: Path) -> None:
    write_bands(tmp_path / "images", "a", FLUX)
    write(tmp_path / "images" / "a_g.fits", FLUX[2], **cards)
    assert _rejected(_listing(tmp_path / "images"), "a") == reason


@pytest.mark.parametrize("text", ["g", "g DECam SDSS c0001", "F475W", "HSC-G", "CLEAR"])
def test_a_header_that_agrees_with_the_name_or_tells_nothing_is_fine(text: str, tmp_path: Path) -> None:
    write_bands(tmp_path / "images", "a", FLUX)
    write(tmp_path / "images" / "a_g.fits", FLUX[2], FILTER=text)
    np.testing.assert_array_equal(_picture(_listing(tmp_path / "images"), "a"), EXPECTED)


def test_an_empty_or_damaged_file_of_one_band_is_refused_by_the_band(tmp_path: Path) -> None:
    for name in "abcd":
        write_bands(tmp_path / "images", name, FLUX)
    folder = tmp_path / "images"
    write(folder / "a_r.fits", FLUX[1] * np.nan)
    (folder / "b_g.fits").write_bytes(b"<html>busy</html>")
    write(folder / "c_z.fits", FLUX)
    write(folder / "d_z.fits", FLUX[0, :24])
    images = _listing(folder)
    assert _rejected(images, "a") == "band r: plane 1 of 1 is empty: none of its pixels has a finite value"
    assert _rejected(images, "b").startswith("band g: is a web page")
    assert _rejected(images, "c") == "band z: its file has 3 planes"
    assert _rejected(images, "d") == "its planes have different sizes: 48 x 24 and 48 x 48 pixels"


def test_two_files_of_one_band_are_refused(tmp_path: Path) -> None:
    write_bands(tmp_path / "images", "a", FLUX)
    write(tmp_path / "images" / "a-g.fits", FLUX[2])
    assert _rejected(_listing(tmp_path / "images"), "a").startswith("band g comes twice")


def test_a_cube_beside_the_bands_of_its_name_is_refused_with_the_path(tmp_path: Path) -> None:
    write_bands(tmp_path / "images", "a", FLUX)
    write(tmp_path / "images" / "a.fits", FLUX)
    both = f"{tmp_path}/images/a.fits and {tmp_path}/images/a_g.fits (and 2 of other bands)"
    with pytest.raises(SourceError, match=re.escape(f"galaxy a.fits has two different images, {both}: remove one of them")):
        _listing(tmp_path / "images")
