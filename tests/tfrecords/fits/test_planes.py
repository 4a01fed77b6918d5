"""The planes of a galaxy are found in a FITS file whatever its layout; one that holds nothing is refused by name."""

import re
import sys
import warnings

import numpy as np
import pytest
from astropy.io import fits as astrofits

from tests.tfrecords.fits.files import cube, extensions, file_of, flux, galaxy, header, lupton, picture
from tfrecords.decoding import MAX_PIXELS
from tfrecords.errors import ConfigError, ImageError
from tfrecords.fits import planes as reading
from tfrecords.fits.planes import quiet, read_planes, require_astropy

FLUX = galaxy()
EXPECTED = lupton(FLUX)
OTHER = galaxy(seed=1)


@pytest.mark.parametrize("kind", ["i2", "i4", "i8", "f4", "f8"])
def test_any_kind_of_number_is_flux(kind: str) -> None:
    counts = (FLUX * 30).astype(kind)
    np.testing.assert_array_equal(picture(cube(counts)), lupton(counts.astype(float)))


def test_numbers_with_a_scale_and_a_zero_in_their_header_are_flux() -> None:
    hdu = astrofits.PrimaryHDU(FLUX.copy())  # `scale` changes it
    hdu.scale("int16", bscale=0.001, bzero=1.0)
    np.testing.assert_allclose(flux(file_of(hdu)).colours, np.moveaxis(FLUX[:, ::-1], 0, 2), atol=6e-4)
    eight_bits = astrofits.PrimaryHDU(FLUX.copy())
    eight_bits.scale("uint8", bscale=0.01, bzero=-0.1)
    assert flux(file_of(eight_bits)).colours.dtype == np.float64
    unsigned = (FLUX.clip(0) * 30_000).astype(np.uint16)
    assert flux(cube(unsigned)).colours.max() == unsigned.max()


def test_eight_bits_of_three_planes_are_a_picture_and_are_not_stretched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 24), dtype=np.uint8)
    for data in (cube(pixels), cube(np.moveaxis(pixels, 0, 2).copy()), cube(pixels[None])):
        np.testing.assert_array_equal(picture(data), np.moveaxis(pixels[:, ::-1], 0, 2))
    np.testing.assert_array_equal(picture(cube(pixels, BANDS="grz")), np.moveaxis(pixels[::-1, ::-1], 0, 2))


@pytest.mark.parametrize("shape", [(48, 48), (1, 48, 48), (1, 1, 48, 48)])
def test_one_plane_is_all_three_colours_and_it_is_said(shape: tuple[int, ...]) -> None:
    data = cube(FLUX[1].reshape(shape))
    assert flux(data).note == "one plane, drawn in grey; give three bands if possible"
    np.testing.assert_array_equal(picture(data), lupton(FLUX[[1, 1, 1]]))


@pytest.mark.parametrize("shape", [(1, 3, 48, 48), (3, 1, 48, 48), (1, 3, 1, 48, 48)])
def test_axes_of_length_one_do_not_count(shape: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(picture(cube(FLUX.reshape(shape))), EXPECTED)


def test_colours_may_be_the_last_axis() -> None:
    np.testing.assert_array_equal(picture(cube(np.moveaxis(FLUX, 0, 2).copy())), EXPECTED)
    four = np.concatenate([FLUX[::-1], OTHER[:1]])
    last = cube(np.moveaxis(four, 0, 2).copy(), BANDS="grzy")
    np.testing.assert_array_equal(picture(last), picture(cube(four, BANDS="grzy")))


def test_an_image_that_is_higher_than_wide_keeps_its_sides() -> None:
    assert picture(cube(FLUX[:, :, :30])).shape == (48, 30, 3)
    assert picture(cube(np.moveaxis(FLUX[:, :, :30], 0, 2).copy())).shape == (48, 30, 3)


# Which HDUs


def test_tables_and_spectra_before_the_image_are_passed_over() -> None:
    table = astrofits.BinTableHDU.from_columns([astrofits.Column("id", "J", array=[1, 2])])
    spectrum, image, other = (astrofits.ImageHDU(data) for data in (FLUX[0, 0], FLUX, OTHER))
    np.testing.assert_array_equal(picture(file_of(astrofits.PrimaryHDU(), table, spectrum, image, other)), EXPECTED)


@pytest.mark.parametrize(
    "names",
    [
        ("SCI", "WHT", "CTX"), ("WHT", "SCI", "CTX"), ("CTX", "WHT", "SCI"), ("MASK", "VARIANCE", "IMAGE"), ("IMAGE", "MASK"),
        ("ERR", "DQ", "SCI"), ("INVVAR", "FLUX"), ("PSF", "DATA"), ("WEIGHT_MAP", "PICTURE"), ("RMS", "anything"),
    ],
)  # fmt: skip
def test_the_science_image_is_taken_wherever_it_stands_among_weights_and_masks(names: tuple[str, ...]) -> None:
    science = next(name for name in names if name in ("SCI", "IMAGE", "FLUX", "DATA", "PICTURE", "anything"))
    images = {name: FLUX if name == science else np.abs(OTHER) for name in names}
    np.testing.assert_array_equal(picture(extensions(**images)), EXPECTED)


def test_the_kind_of_an_image_in_its_header_counts_as_its_name_does() -> None:
    weights = astrofits.PrimaryHDU(OTHER, header(IMAGETYP="invvar"))
    np.testing.assert_array_equal(picture(file_of(weights, astrofits.ImageHDU(FLUX))), EXPECTED)
    with pytest.raises(ImageError, match=r"^all its images are weights, masks or models, by their names$"):
        picture(file_of(weights))


def test_bands_in_hdus_of_different_sizes_are_refused() -> None:
    data = extensions(SCI_G=FLUX[0], SCI_R=FLUX[1], SCI_Z=FLUX[2, :24])
    with pytest.raises(ImageError, match=r"^its planes have different sizes: 48 x 24 and 48 x 48 pixels$"):
        picture(data)


def test_bands_beside_their_weights_make_one_galaxy() -> None:
    images = {"SCI_G": FLUX[2], "WHT_G": OTHER[0], "SCI_R": FLUX[1], "WHT_R": OTHER[1], "SCI_Z": FLUX[0], "MASK": OTHER[2]}
    np.testing.assert_array_equal(picture(extensions(**images)), EXPECTED)


def test_a_tile_compressed_image_is_read() -> None:
    counts = (FLUX[0] * 1000).astype(np.int16)
    packed = file_of(astrofits.PrimaryHDU(), astrofits.CompImageHDU(counts))
    np.testing.assert_array_equal(picture(packed), lupton(np.stack([counts] * 3).astype(float)))


# Planes that hold nothing


@pytest.mark.parametrize(
    ("cards", "name"), [({}, "plane 2 of 3"), ({"BANDS": "zrg"}, "band r"), ({"BANDS": "F814W F606W F435W"}, "band f606w")]
)
@pytest.mark.parametrize(
    ("value", "reason"),
    [(0, "all its pixels are 0"), (7, "all its pixels are 7"), (np.nan, "none of its pixels has a finite value")],
)
def test_an_empty_plane_is_refused_by_name_and_the_galaxy_is_not_drawn_without_it(
    cards: dict[str, str], name: str, value: float, reason: str
) -> None:
    planes = FLUX.copy()
    planes[1] = value
    with pytest.raises(ImageError, match=rf"^{name} is empty: {reason}$"):
        flux(cube(planes, **cards))
    centre = FLUX.copy()
    centre[1, 10:38, 10:38] = value
    with pytest.raises(ImageError, match=rf"^{name} is empty in its centre: {reason}$"):
        flux(cube(centre, **cards))


def test_an_empty_hdu_is_refused_by_its_band() -> None:
    with pytest.raises(ImageError, match=r"^band g is empty: none of its pixels has a finite value$"):
        flux(extensions(SCI_R=FLUX[1], SCI_G=FLUX[2] * np.nan, SCI_Z=FLUX[0]))


def test_an_empty_plane_of_eight_bits_is_refused_too() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 24), dtype=np.uint8)
    pixels[2] = 0
    with pytest.raises(ImageError, match=r"^plane 3 of 3 is empty: all its pixels are 0$"):
        flux(cube(pixels))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_have_no_light(value: float) -> None:
    holed, dark = FLUX.copy(), FLUX.copy()
    holed[:, 3:5, 7], dark[:, 3:5, 7] = value, 0
    np.testing.assert_array_equal(picture(cube(holed)), picture(cube(dark)))


# Files that are no images


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (cube(FLUX)[:-4000], "not a readable FITS image"),
        (cube(FLUX)[:2000], "not a readable FITS image"),
        (file_of(astrofits.PrimaryHDU()), "no image of 2 or 3 axes in any of its HDUs"),
        (cube(FLUX[:, 0, 0].copy()), "no image of 2 or 3 axes in any of its HDUs"),
        (cube(np.stack([FLUX, FLUX])), "no image of 2 or 3 axes in any of its HDUs"),
        (cube(np.zeros((40, 6, 6), np.float32)), "its image has 40 planes of 6 x 6 pixels: give the planes of a few bands"),
    ],
)
def test_what_is_no_image_of_a_galaxy_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy's, which `quiet` suppresses for users
        with pytest.raises(ImageError, match=re.escape(reason)) as caught:
            flux(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 180


@pytest.mark.parametrize("sides", [(MAX_PIXELS, 2, 1), (20_000, 4_000, 3)])
def test_an_absurdly_large_image_is_refused_before_it_is_read(sides: tuple[int, ...]) -> None:
    cards = astrofits.PrimaryHDU(np.zeros((2, 2, 2), np.uint8)).header
    for axis, side in enumerate(sides, 1):
        cards[f"NAXIS{axis}"] = side
    with quiet(), pytest.raises(ImageError, match=r"pixels are more than|has 3 planes of 20000 x 4000 pixels"):
        read_planes(cards.tostring().encode("ascii") + bytes(2880))


def test_a_lack_of_memory_is_not_the_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_little(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(reading, "_part", too_little)
    with pytest.raises(MemoryError, match="decoding FITS"):
        read_planes(cube(FLUX))


# astropy


def test_without_astropy_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    require_astropy()
    monkeypatch.setitem(sys.modules, "astropy.io.fits", None)
    with pytest.raises(
        ConfigError, match=r"astropy, which is not installed: pip install 'galaxy-zoo-vgg16\[fits\]'$"
    ) as caught:
        require_astropy()
    assert "\n" not in str(caught.value)


def test_astropy_does_not_warn_within_quiet_and_does_after_it() -> None:
    data = cube(FLUX[0], **{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "MJD-OBS": 55_000.0, "DATE-OBS": "2000-01-01"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet():
            read_planes(data)
        assert caught == []
        read_planes(data)
        assert caught != []
