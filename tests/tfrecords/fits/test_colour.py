"""Planes become a colour picture by Lupton's stretch; a sky that was left in is refused or said."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tfrecords.fits.files import STRETCH, cube, flux, galaxy, lupton, picture
from tfrecords.errors import ImageError, SettingError
from tfrecords.fits.look import Look, Stretch, as_settings, from_settings

FLUX = galaxy()


@pytest.mark.parametrize("stretch", [STRETCH, Stretch(5, 8), Stretch(0.1, 1)])
def test_three_planes_are_red_green_and_blue_in_luptons_stretch(stretch: Stretch) -> None:
    image = picture(cube(FLUX), stretch)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, lupton(FLUX, stretch))
    assert image[..., 0].mean() > image[..., 1].mean() > image[..., 2].mean()


def test_a_smaller_stretch_is_brighter() -> None:
    levels = [picture(cube(FLUX), Stretch(value)).mean() for value in (50, 5, 0.5, 0.05)]
    assert levels == sorted(levels) and levels[0] < 5 < 20 < levels[-1]


@pytest.mark.parametrize("values", [(0, 10), (-1, 10), (0.5, 0), (float("nan"), 10), (0.5, float("inf"))])
def test_a_stretch_that_is_none_is_refused_by_its_flag(values: tuple[float, float]) -> None:
    with pytest.raises(SettingError, match=r"--fits_(stretch|q) .*: must be above 0"):
        Stretch(*values)


@pytest.mark.parametrize(
    "look", [Look((), Stretch(0.5)), Look(("g", "r", "z"), Stretch(0.013, 8)), Look(("f814w", "r"), STRETCH)]
)
def test_a_look_survives_the_settings_of_a_dataset(look: Look) -> None:
    assert from_settings(as_settings(look)) == look
    assert as_settings(None) == {} and from_settings({"size": 3}) is None


def test_the_flags_of_a_look_are_those_with_another_value_than_the_default() -> None:
    assert Look().flags() == {}
    assert Look(("g", "r"), Stretch(0.25, 8)).flags() == {"bands": "g,r", "fits_stretch": "0.25", "fits_q": "8"}


@pytest.mark.parametrize("sky", [4.0, 20.0, 2000.0])
def test_a_sky_as_bright_as_the_galaxy_is_refused_with_both_levels(sky: float) -> None:
    with pytest.raises(ImageError, match=r"^a sky of [\d.,]+ was left in, against [\d.,]+ in its brightest parts: subtract it"):
        flux(cube(FLUX + np.float32(sky)))


def test_a_fainter_sky_is_drawn_and_said() -> None:
    assert flux(cube(FLUX)).remarks == ()
    assert flux(cube(FLUX + np.float32(0.7))).remarks == ("a sky seems to be left in: subtract it",)


def test_a_sky_below_zero_is_none() -> None:
    assert flux(cube(FLUX - np.float32(0.3))).remarks == ()
    assert flux(cube(-FLUX - np.float32(3))).remarks == ()


def test_eight_bits_have_no_sky() -> None:
    bright = np.random.default_rng(0).integers(200, 240, (3, 20, 24), dtype=np.uint8)
    assert flux(cube(bright)).remarks == () and picture(cube(bright)).min() == bright.min()


def test_a_real_galaxy_as_fits_looks_as_its_picture(kaggle: Path) -> None:
    path = sorted((kaggle / "images_test_rev1").iterdir())[0]
    pixels = np.asarray(Image.open(path))
    # Flux that is stretched to this image: Lupton's formula, solved for the flux.
    light = pixels.astype(np.float64)
    mean = light.mean(axis=2, keepdims=True)
    flux_of_mean = np.sinh(mean / 255 * np.arcsinh(0.1 * STRETCH.q) / 0.1) * 0.5 / STRETCH.q
    planes = light * np.divide(flux_of_mean, mean, out=np.zeros_like(mean), where=mean > 0)
    image = picture(cube(np.moveaxis(planes, 2, 0)[:, ::-1]))
    unclipped = pixels.max(axis=2) < 250
    assert np.abs(image[unclipped].astype(int) - pixels[unclipped]).max() <= 1


def test_a_reason_is_one_line() -> None:
    with pytest.raises(ImageError) as caught:
        flux(cube(FLUX + 9))
    assert re.fullmatch(r"[^\n]{20,120}", str(caught.value))
