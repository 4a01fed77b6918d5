"""Nothing about a FITS image is settled in silence: what is left out, lacking or contradictory is refused or said."""

import re
import sys

import numpy as np
import pytest
from astropy.io import fits as astrofits

import preprocess
from preprocess.sources import warnings_of_fits
from tests.tfrecords.fits.files import RED_FIRST, STRETCH, cube, extensions, file_of, flux, galaxy, header, lupton, picture
from tfrecords.errors import ConfigError, ImageError
from tfrecords.fits.colour import flux_of
from tfrecords.fits.look import Look
from tfrecords.fits.planes import quiet

FLUX = galaxy()
RED, GREEN, BLUE = FLUX


@pytest.mark.parametrize("names", [("DES_G", "DES_R", "DES_Z"), ("SCI", "R", "Z"), ("2MASS-G", "r", "IMAGE_z")])
def test_bands_in_the_names_of_hdus_are_all_used(names: tuple[str, ...]) -> None:
    hdus = [astrofits.ImageHDU(plane, name=name) for plane, name in zip((BLUE, GREEN, RED), names, strict=True)]
    hdus[0].header["FILTER"] = "g"
    np.testing.assert_array_equal(picture(file_of(astrofits.PrimaryHDU(), *hdus)), lupton(FLUX))


def test_the_only_image_of_a_known_band_comes_before_those_of_none() -> None:
    other = galaxy(seed=1)[0]
    drawn = picture(extensions(UNKNOWN=other, COADD_R=GREEN))
    np.testing.assert_array_equal(drawn, lupton(np.stack([GREEN] * 3)))
    np.testing.assert_array_equal(picture(extensions(WEIGHTMAP=other, FIRST=GREEN)), lupton(np.stack([GREEN] * 3)))


def test_three_images_without_names_are_no_grey_one() -> None:
    data = extensions(A1=RED, A2=GREEN, A3=BLUE)
    with pytest.raises(ImageError, match=r"^its headers do not name the bands of its 3 images: give --bands$"):
        picture(data)
    np.testing.assert_array_equal(picture(data, bands=RED_FIRST), lupton(FLUX))


@pytest.mark.parametrize("first", [0, 1])
def test_a_header_that_names_a_part_of_the_bands_is_refused(first: int) -> None:
    cards = {f"BAND{first + place}": name for place, name in enumerate(("g", "r", "clear"))}
    with pytest.raises(ImageError, match=r"^its header names the bands of 2 of its 3 planes: give --bands$"):
        picture(cube(FLUX, **cards))


def test_a_pixel_that_lacks_a_colour_is_black_and_not_of_another_colour() -> None:
    holed = FLUX.copy()
    holed[2, 20:24, 20:24] = np.nan
    drawn = picture(cube(holed))
    assert (drawn[::-1][20:24, 20:24] == 0).all()
    whole = np.ones((48, 48), bool)
    whole[20:24, 20:24] = False
    np.testing.assert_array_equal(drawn[::-1][whole], lupton(FLUX)[::-1][whole])


def test_a_colour_that_lacks_more_than_a_tenth_of_the_centre_is_refused() -> None:
    holed = FLUX.copy()
    holed[0, 16:32, 16:32] = np.nan
    with pytest.raises(ImageError, match=r"^44% of its centre has no finite value in one of the colours$"):
        picture(cube(holed))


def test_units_of_some_planes_are_not_used_and_it_is_said() -> None:
    hdus = [astrofits.ImageHDU(plane, header(FILTER=band)) for plane, band in zip(FLUX, RED_FIRST, strict=True)]
    hdus[1].header["BUNIT"] = "nanomaggy"
    mixed = flux(file_of(astrofits.PrimaryHDU(), *hdus))
    assert mixed.remarks == ("only some of the planes have units, so none is used",) and not mixed.units


def test_a_file_of_an_unusual_band_is_not_used_and_it_is_said() -> None:
    files = [(band, cube(plane)) for band, plane in zip(("z", "r", "g"), FLUX, strict=True)]
    with quiet():
        read = flux_of(files, usual=("g", "r"))
        asked = flux_of(files, Look(("g", "r")))
    assert read.remarks == ("files of band z are not used, as most galaxies have none",)
    assert asked.remarks == ("files of band z are not used",)


def test_bands_of_training_count_only_where_a_header_names_none() -> None:
    look = Look(otherwise=("g", "r", "z"))
    with quiet():
        assert flux_of([("", cube(FLUX[::-1].copy()))], look).note == "red, green and blue are z, r and g"
        named = flux_of([("", cube(FLUX, BANDS="zrg"))], look)
        assert named.note == "red, green and blue are z, r and g"
        np.testing.assert_array_equal(named.colours, flux_of([("", cube(FLUX[::-1].copy()))], look).colours)
        assert "give --bands" in flux_of([("", cube(FLUX))], Look(otherwise=("g", "r"))).note


def test_where_astropy_is_missing_a_block_for_fits_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "astropy.io.fits", None)
    with warnings_of_fits(None):
        pass
    with pytest.raises(ConfigError, match=re.escape("pip install 'galaxy-zoo-vgg16[fits]'")):
        warnings_of_fits(Look(stretch=STRETCH))


def test_the_look_is_part_of_the_python_functions() -> None:
    assert preprocess.Look is Look and preprocess.Stretch is type(STRETCH)
    assert all(getattr(preprocess, name) for name in preprocess.__all__)
