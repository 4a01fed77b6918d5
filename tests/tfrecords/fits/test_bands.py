"""Which plane is which colour is read from headers or --bands: red is the longest wavelength. Nothing is guessed in silence."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tfrecords.fits.files import RED_FIRST, cube, extensions, flux, galaxy
from tfrecords.errors import ImageError, SettingError
from tfrecords.fits.bands import band_of, band_of_file, band_of_hdu, bands_of, colours_of, given_bands, is_same, wavelength

RGB = galaxy()
EXPECTED = flux(cube(RGB)).colours
# Of the bands that are known, each at its own wavelength.
ORDER = ("fuv", "nuv", "u", "g", "r", "vis", "i", "z", "y", "j", "h", "k", "w1", "w2", "w3", "w4")


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("g", "g"), ("R", "r"), (" i ", "i"), ("g'", "g"), ("rp", "r"), ("zs", "z"), ("HSC-G", "g"), ("HSC-R2", "r"),
        ("HSC-I2", "i"), ("g DECam SDSS c0001 4720.0 1520.0", "g"), ("SDSS r", "r"), ("Bessell V", "v"), ("NIR_Y", "y"),
        ("NISP-H", "h"), ("VIS", "vis"), ("F814W", "f814w"), ("F850LP", "f850lp"), ("F606W; CLEAR2L", "f606w"),
        ("CLEAR1L", ""), ("Ks", "ks"), ("W1", "w1"), ("NUV", "nuv"), ("red", "red"), ("F444W", "f444w"), ("F322W2", "f322w2"),
        ("", ""), ("g r", ""), ("none", ""), ("1", ""), ("Halpha", ""), ("F8", ""),
    ],
)  # fmt: skip
def test_a_band_is_known_however_a_header_spells_it(text: str, band: str) -> None:
    assert band_of(text) == band


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("g", "g"), ("SCI_R", "r"), ("IMAGE-z", "z"), ("FLUX_I", "i"), ("SCI", ""), ("COMPRESSED_IMAGE", ""), ("PRIMARY", ""),
        ("MASK_R", ""), ("R_VAR", ""), ("", ""), ("F814W_SCI", "f814w"),
    ],
)  # fmt: skip
def test_the_name_of_an_hdu_is_a_band_only_if_it_is_about_nothing_else(name: str, band: str) -> None:
    assert band_of_hdu(name) == band


@pytest.mark.parametrize(
    ("stem", "name", "band"),
    [
        ("J100023.5+021653_g", "J100023.5+021653", "g"), ("NGC 1-r", "NGC 1", "r"), ("12.z", "12", "z"), ("a_b_I", "a_b", "i"),
        ("M51_F814W", "M51", "f814w"), ("x-HSC-R2", "x-HSC", "r"), ("M51", "M51", ""), ("_g", "_g", ""), ("a_bc", "a_bc", ""),
        ("galaxy", "galaxy", ""), ("J1000-0216", "J1000-0216", ""), ("jw_f444w", "jw", "f444w"),
    ],
)  # fmt: skip
def test_the_band_is_the_last_part_of_a_files_name(stem: str, name: str, band: str) -> None:
    assert band_of_file(stem) == ((name, band) if band else (stem, ""))


@pytest.mark.parametrize(
    ("text", "bands"),
    [
        ("grz", ("g", "r", "z")), ("g,r,z", ("g", "r", "z")), ("ugriz", ("u", "g", "r", "i", "z")),
        ("F814W,F606W,F435W", ("f814w", "f606w", "f435w")), ("F814W F606W", ("f814w", "f606w")), ("VIS, NIR_Y", ("vis", "y")),
        ("HSC-G/HSC-R/HSC-I", ("g", "r", "i")), ("r", ("r",)), ("red,green,blue", ("red", "green", "blue")),
    ],
)  # fmt: skip
def test_a_list_of_bands_is_read_with_or_without_commas(text: str, bands: tuple[str, ...]) -> None:
    assert bands_of(text) == bands == given_bands(text)


@pytest.mark.parametrize("text", ["xyq", "g,,", "3", "gr?", "rgb!", "F99W"])
def test_a_list_of_other_words_is_refused_with_an_example(text: str) -> None:
    if text == "g,,":
        assert given_bands(text) == ("g",)
        return
    with pytest.raises(SettingError, match=rf"^--bands {re.escape(text)}: give bands in the order of the file, like grz or F"):
        given_bands(text)


def test_a_band_given_twice_is_refused_and_none_is_none() -> None:
    assert given_bands("") == ()
    with pytest.raises(SettingError, match=r"^--bands grg: names a band twice$"):
        given_bands("grg")


def test_known_bands_are_in_the_order_of_their_wavelengths() -> None:
    assert sorted(ORDER, key=wavelength) == list(ORDER)


@pytest.mark.parametrize(
    ("name", "nanometres"),
    [
        ("f435w", 435), ("f606w", 606), ("f850lp", 850), ("f225w", 225), ("f300w", 300), ("f160w", 1600), ("f098m", 980),
        ("f090w", 900), ("f115w", 1150), ("f150w2", 1500), ("f200w", 2000), ("f277w", 2770), ("f322w2", 3220), ("f444w", 4440),
        ("f770w", 7700), ("f1000w", 10000), ("f2550w", 25500), ("f140lp", 140),
    ],
)  # fmt: skip
def test_filters_of_hubble_and_webb_are_named_by_their_wavelengths_in_their_own_units(name: str, nanometres: int) -> None:
    assert wavelength(name) == nanometres


@pytest.mark.parametrize(
    ("band", "other", "same"),
    [("i", "f814w", True), ("r", "f606w", True), ("red", "r", True), ("g", "r", False), ("r", "i", False), ("z", "y", False)],
)
def test_names_of_about_the_same_wavelength_may_be_one_band(band: str, other: str, same: bool) -> None:
    assert is_same(band, other) == is_same(other, band) == same


@given(st.lists(st.sampled_from(ORDER), min_size=3, max_size=3, unique=True))
def test_of_three_bands_red_is_the_longest_and_blue_the_shortest_in_any_order(bands: list[str]) -> None:
    red, green, blue = colours_of(bands)
    assert green is not None
    assert wavelength(bands[red]) > wavelength(bands[green]) > wavelength(bands[blue])


@pytest.mark.parametrize(
    ("bands", "colours"),
    [
        ("griz", "irg"), ("ugriz", "irg"), ("grizy", "irg"), ("zgrj", "zrg"), ("urzy", "yru"), ("ugrz", "zrg"),
        ("f435w,f606w,f814w,f850lp", "f850lp,f606w,f435w"), ("f115w,f150w,f277w,f444w", "f444w,f150w,f115w"),
    ],
)  # fmt: skip
def test_of_more_than_three_i_or_z_r_and_g_are_taken_else_the_longest_middle_and_shortest(bands: str, colours: str) -> None:
    names = bands_of(bands)
    red, green, blue = colours_of(names)
    assert green is not None and (names[red], names[green], names[blue]) == bands_of(colours)


def test_a_band_that_comes_twice_and_a_single_one_make_no_colours() -> None:
    with pytest.raises(ImageError, match=r"^band g comes twice \(g, r, g\)$"):
        colours_of(("g", "r", "g"))
    with pytest.raises(ImageError, match=r"^one band makes no colours$"):
        colours_of(("g",))


# In files


def _in_order(order: str) -> np.ndarray:
    """The planes of the galaxy in this order of its bands z, r and g."""
    return RGB[[RED_FIRST.index(band) for band in order]]


@pytest.mark.parametrize(
    "cards",
    [
        {"BANDS": "grz"},
        {"BANDS": "g,r,z"},
        {"BANDS": "grz", "BAND0": "g", "BAND1": "r", "BAND2": "z"},
        {"BAND0": "g", "BAND1": "r", "BAND2": "z"},
        {"BAND1": "g", "BAND2": "r", "BAND3": "z"},
        {"FILTERS": "g r z"},
        {"FILTER": "g,r,z"},
        {"FILTER1": "HSC-G", "FILTER2": "HSC-R2", "FILTER3": "HSC-Z"},
        {"BANDS": "F435W F606W F850LP"},
        {"BANDS": "F115W F277W F444W", "TELESCOP": "JWST"},
    ],
)
def test_the_bands_of_a_cube_are_read_from_its_header(cards: dict[str, str]) -> None:
    read = flux(cube(_in_order("grz"), **cards))
    np.testing.assert_array_equal(read.colours, EXPECTED)
    assert read.note.startswith("red, green and blue are ")


def test_the_note_names_the_bands_that_were_chosen_and_those_there_were() -> None:
    assert flux(cube(_in_order("grz"), BANDS="grz")).note == "red, green and blue are z, r and g"
    four = flux(cube(np.concatenate([_in_order("grz"), 5 * RGB[:1]]), BANDS="grzy"))
    assert four.note == "red, green and blue are z, r and g, of the bands g, r, z, y"
    np.testing.assert_array_equal(four.colours, EXPECTED)


@pytest.mark.parametrize("names", ["g,r,z", "SCI_G,SCI_R,SCI_Z", "IMAGE-G,IMAGE-R,IMAGE-Z"])
def test_one_band_per_hdu_is_one_galaxy_by_the_names_of_its_hdus(names: str) -> None:
    data = extensions(**dict(zip(names.split(","), _in_order("grz"), strict=True)))
    np.testing.assert_array_equal(flux(data).colours, EXPECTED)


def test_three_planes_without_names_are_red_green_and_blue_and_it_is_said() -> None:
    read = flux(cube(RGB))
    np.testing.assert_array_equal(read.colours, np.moveaxis(RGB[:, ::-1], 0, 2).astype(float))
    assert read.note == "no names of bands, so the planes are red, green and blue in this order; if not, give --bands"


@pytest.mark.parametrize("number", [2, 4, 5])
def test_another_number_of_planes_without_names_is_refused(number: int) -> None:
    planes = np.concatenate([RGB, RGB])[:number]
    with pytest.raises(ImageError, match=rf"^its header does not name the bands of its {number} planes: give --bands$"):
        flux(cube(planes))
    assert flux(cube(planes), bands_of("ugrizy"[:number])).colours.shape == EXPECTED.shape


def test_given_bands_count_before_those_of_the_header_and_must_be_as_many_as_planes() -> None:
    np.testing.assert_array_equal(flux(cube(_in_order("grz")), ("g", "r", "z")).colours, EXPECTED)
    np.testing.assert_array_equal(flux(cube(_in_order("rgz"), BANDS="grz"), ("r", "g", "z")).colours, EXPECTED)
    for cards in ({}, {"BANDS": "grz"}):
        with pytest.raises(ImageError, match=r"^its number of planes is 3, but --bands names 2$"):
            flux(cube(RGB, **cards), ("g", "r"))


def test_given_bands_help_where_the_header_is_of_no_use() -> None:
    for text, reason in (
        ("xyw", "its header names the bands 'xyw', which are not known: give --bands"),
        ("gr", "its header names 2 bands (gr) for 3 planes: give --bands"),
    ):
        data = cube(_in_order("grz"), BANDS=text)
        with pytest.raises(ImageError, match=re.escape(reason)):
            flux(data)
        np.testing.assert_array_equal(flux(data, ("g", "r", "z")).colours, EXPECTED)


def test_given_bands_name_several_hdus_too() -> None:
    data = extensions(A=RGB[2], B=RGB[1], C=RGB[0])
    with pytest.raises(ImageError, match=r"^its headers do not name the bands of its 3 images: give --bands$"):
        flux(data)
    np.testing.assert_array_equal(flux(data, ("g", "r", "z")).colours, EXPECTED)
    np.testing.assert_array_equal(flux(extensions(G=RGB[2], B2=RGB[1], R=RGB[0]), ("g", "r", "z")).colours, EXPECTED)


def test_of_two_bands_green_is_the_mean() -> None:
    read = flux(cube(RGB[[2, 0]], BANDS="gz"))
    np.testing.assert_array_equal(read.colours[..., [0, 2]], EXPECTED[..., [0, 2]])
    np.testing.assert_allclose(read.colours[..., 1], EXPECTED[..., [0, 2]].mean(axis=2))
    assert read.note == "red, green and blue are z, their mean and g"


def test_a_band_that_comes_twice_is_refused_by_its_name() -> None:
    with pytest.raises(ImageError, match=r"^band r comes twice \(r, r, z\)$"):
        flux(cube(RGB, BANDS="rrz"))
    with pytest.raises(ImageError, match=r"^band g comes twice"):
        flux(extensions(SCI_G=RGB[0], IMAGE_G=RGB[1]))
