"""Images are measured as the definitions require."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords import images
from tfrecords.brightness import colour_sum, mean_of_colours
from trainer.images.photometry import brightness, light_kept, photometry, scale_range


def _disk(side: int, radius: float, sky: int = 10, light: int = 200) -> np.ndarray:
    offsets = np.arange(side) - (side - 1) / 2
    inside = np.hypot(offsets[:, None], offsets[None, :]) <= radius
    return np.repeat(np.where(inside, light, sky).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("radius", [10, 20, 40, 60])
def test_half_of_an_even_disk_lies_within_its_radius_over_root_two(radius: float) -> None:
    measured = photometry(_disk(212, radius)[None])
    assert measured.half_light_radius[0] == pytest.approx(radius / np.sqrt(2), rel=0.04)
    assert (measured.background[0], measured.peak[0]) == (10, 200)


@given(st.integers(6, 20), st.integers(0, 60), st.integers(61, 255))
def test_the_radius_depends_on_neither_sky_nor_brightness_and_doubles_with_the_picture(
    radius: int, sky: int, light: int
) -> None:
    small, other = _disk(64, radius), _disk(64, radius, sky, light)
    twice = small.repeat(2, axis=0).repeat(2, axis=1)
    first, second = (photometry(picture[None]).half_light_radius[0] for picture in (small, other))
    assert first == pytest.approx(second)
    assert photometry(twice[None]).half_light_radius[0] == pytest.approx(2 * first, rel=0.1)


@pytest.mark.parametrize("side", [1, 2, 3, 32])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_picture_has_no_radius(side: int, level: int) -> None:
    measured = photometry(np.full((2, side, side, 3), level, np.uint8))
    assert measured.half_light_radius.tolist() == [0, 0]
    assert measured.background.tolist() == measured.peak.tolist() == [level, level]


def test_pictures_are_measured_each_by_itself() -> None:
    pictures = np.stack([_disk(64, 5), _disk(64, 12), _disk(64, 20)])
    together = photometry(pictures).half_light_radius
    assert together.tolist() == [photometry(picture[None]).half_light_radius[0] for picture in pictures]
    assert len(photometry(pictures[:0]).half_light_radius) == 0


def test_a_crop_keeps_all_the_light_within_it_and_none_from_outside() -> None:
    assert light_kept(_disk(100, 20), 0.5) == 1
    assert light_kept(_disk(100, 40), 0.2) == pytest.approx(400 / (np.pi * 1600), rel=0.02)
    corner = np.full((100, 100, 3), 10, np.uint8)
    corner[10:20, 10:20] = 200
    assert light_kept(corner, 0.5) == 0
    assert light_kept(np.zeros((50, 70, 3), np.uint8), 0.5) == 1  # nothing to lose


def test_the_range_of_scales_leaves_out_one_in_a_hundred_on_either_side() -> None:
    assert scale_range(np.arange(101)) == (1, 99)


def test_real_galaxies_have_plausible_sizes_and_the_crop_keeps_most_of_their_light(kaggle: Path) -> None:
    wholes = [images.decode(path.read_bytes()) for path in sorted((kaggle / "images_training_rev1").glob("*.jpg"))[:60]]
    measured = photometry(np.stack([images.crop(whole, 0.5, 212) for whole in wholes]))
    assert 25 < np.median(measured.half_light_radius) < 60 and measured.half_light_radius.min() > 10
    assert np.median(measured.background) < 20 < 100 < np.median(measured.peak)
    assert 0.6 < np.median([light_kept(whole, 0.5) for whole in wholes]) < 1


@pytest.mark.parametrize("side", [32, 33, 212])
@pytest.mark.parametrize("levels", [2, 30, 256])
def test_brightness_is_that_of_numpy_to_the_last_bit(side: int, levels: int) -> None:
    images = np.random.default_rng(side).integers(0, levels, (3, side, side, 3), np.uint8)
    light = images.mean(axis=3, dtype=np.float32)
    assert mean_of_colours(colour_sum(images)).tobytes() == light.tobytes()
    expected = np.percentile(light.reshape(3, -1), (50, 99.5), axis=1)
    assert np.array_equal(brightness(images), expected)
    assert brightness(images[:0]).shape == (2, 0)
