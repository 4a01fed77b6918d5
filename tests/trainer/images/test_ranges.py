"""Images unlike the training galaxies are marked: brightness, scale, empty; what helps is said."""

import numpy as np
import pytest

from tfrecords.fits.look import Brightness
from trainer.images.photometry import brightness, photometry
from trainer.images.ranges import Ranges, Trained, count_of, outside, summary_of, warnings_of

ANY = Ranges(None, None, None)


def _disks(*disks: tuple[float, int]) -> np.ndarray:
    """Images of 32 x 32 pixels of disks of these radii and levels on black."""
    y, x = np.mgrid[:32, :32] - 15.5
    distance = np.hypot(x, y)
    return np.stack([np.repeat(np.where(distance < radius, level, 0)[..., None], 3, axis=2) for radius, level in disks]).astype(
        np.uint8
    )


DISKS = _disks((4, 100), (8, 100), (12, 100), (8, 30), (8, 250), (12, 250), (0, 0))


def _marks(*ranges: Ranges) -> list[str]:
    return list(map(str, outside([DISKS], [Trained(0, one) for one in ranges])))


def test_an_image_without_light_is_empty_whatever_the_ranges() -> None:
    assert _marks(ANY) == ["", "", "", "", "", "", "empty"]
    assert _marks() == [""] * 7  # no run has seen it


def test_the_radius_and_the_brightness_are_each_compared_with_their_range() -> None:
    radii = photometry(DISKS).half_light_radius
    medians, levels = brightness(DISKS)
    sized = Ranges((float(radii[1]), float(radii[1])), None, None)
    assert _marks(sized) == ["scale", "", "scale", "", "", "scale", "empty"]
    bright = Ranges(None, None, Brightness(100, 100, 100))
    assert _marks(bright) == ["", "", "", "brightness", "brightness", "brightness", "empty"]
    assert levels.tolist() == [100, 100, 100, 30, 250, 250, 0]
    both = Ranges(sized.radius, None, bright.bright)
    assert _marks(both) == ["scale", "", "scale", "brightness", "brightness", "brightness scale", "empty"]
    median = Ranges(None, Brightness(0, 0, 10), None)
    assert _marks(median) == ["brightness" if value > 10 else "" for value in medians[:-1]] + ["empty"]


def test_an_image_is_outside_if_it_is_for_any_run_each_by_its_own_crop() -> None:
    small, large = Ranges((0.1, 5.0), None, None), Ranges((5.0, 20.0), None, None)
    assert _marks(small, large)[:6] == ["scale"] * 6
    radii = photometry(DISKS).half_light_radius
    crops = [DISKS, DISKS[:, 8:24, 8:24]]
    inner = photometry(crops[1]).half_light_radius
    ranges = Ranges((0.1, float(inner.max())), None, None)
    marks = outside(crops, [Trained(1, ranges)])
    assert radii[2] > inner.max() and count_of(marks, "scale") == 0


def test_of_no_images_there_are_no_marks() -> None:
    assert outside([DISKS[:0]], [Trained(0, ANY)]).shape == (0,)


MARKS = np.array(["", "scale", "brightness scale", "brightness", "empty", "", "", ""], object)
TRAINED = Ranges((1.0, 2.5), Brightness(1, 2, 3), Brightness(60, 140, 220))


def test_each_kind_has_one_warning_that_names_every_range_once() -> None:
    other = Ranges((4.0, 10.04), None, Brightness(80, 140, 200.4))
    scale, bright, empty = warnings_of(MARKS, [TRAINED, TRAINED, other])
    assert scale.startswith(
        "2 of 8 images (25.0 %, against 2 % of the training galaxies) have a half-light radius outside 1.0 to"
    )
    assert "outside 1.0 to 2.5 and 4.0 to 10.0 pixels of the crop" in scale
    assert bright.startswith("2 of 8 images (25.0 %") and "reach 60 to 220 and 80 to 200 of 255" in bright
    assert empty.startswith("1 of 8 images have no light above the background")
    assert all("\n" not in line for line in (scale, bright, empty))
    assert warnings_of(MARKS[[0, 5]], [TRAINED]) == []


def test_the_summary_counts_each_image_once_and_each_kind_and_names_the_flag_that_helps() -> None:
    line = summary_of(MARKS, 0.5)
    assert line.startswith("; 4 unlike the training galaxies (column outside: 2 brightness, 2 scale, 1 empty): ")
    assert line.endswith("try another --fits_stretch than 0.5, crop or resize the images, look at those without light")
    assert "--fits_stretch" not in summary_of(MARKS, None)
    assert "--fits_stretch" not in summary_of(MARKS[[1]], 0.5)
    assert summary_of(MARKS[[0, 5]], 0.5) == ""


@pytest.mark.parametrize(("word", "count"), [("scale", 2), ("brightness", 2), ("empty", 1)])
def test_an_image_counts_for_each_of_its_words(word: str, count: int) -> None:
    assert count_of(MARKS, word) == count
