"""A picture without a galaxy is refused by name with the reason, whatever becomes of it; no galaxy is."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from preprocess.demo import make_demo
from tests.conftest import SHARED, galaxy_image
from tfrecords.decoding import read_picture
from tfrecords.emptiness import LEAST_CONTRAST, LEAST_LIGHT, MOST_WHITE, light_of, no_galaxy
from tfrecords.errors import ImageError
from tfrecords.images import CropSettings, crop_box, store

SIDE = 128
SKY = np.random.default_rng(0).normal(0, 1, (SIDE, SIDE, 3))
GALAXY = np.asarray(galaxy_image(np.random.default_rng(3), SIDE))
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE] - SIDE / 2
RADIUS = np.hypot(ROWS, COLUMNS)


def _levels(levels: Any) -> np.ndarray:
    """Levels as a picture, uint8 (SIDE, SIDE, 3)."""
    return np.broadcast_to(np.clip(levels, 0, 255), (SIDE, SIDE, 3)).astype(np.uint8)


def _file(pixels: np.ndarray, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}), **options)
    return buffer.getvalue()


def _with_text(pixels: np.ndarray) -> np.ndarray:
    """White strokes on 0.1 % of the central half, which a JPEG blurs to 0.4 %."""
    pixels = pixels.copy()
    pixels[60:62, 50:52] = 255
    return pixels


BLACK, WHITE, ONE = "its crop is nearly black", "of its crop is white", "its crop is of one brightness"
EMPTY = {
    "black": (_levels(0), f"{BLACK}, with brightest parts at 0 of 255"),
    "a dark sky": (_levels(8 + 2 * SKY), BLACK),
    "black with a few letters": (_with_text(_levels(0)), BLACK),
    "white": (_levels(255), f"100% {WHITE}"),
    "white with noise": (_levels(254 + SKY), WHITE),
    "saturated in its centre": (np.where(RADIUS[..., None] < 22, 255, GALAXY), WHITE),
    "grey": (_levels(127), f"{ONE}, 127 to 127 of 255"),
    "grey with noise": (_levels(127 + 1.5 * SKY), ONE),
    "one colour": (_levels([180, 90, 40]), ONE),
    "a light placeholder with a few letters": (_with_text(_levels(238)), ONE),
}
HALO = np.exp(-RADIUS[..., None] / 9)
GALAXIES = {
    "usual": GALAXY,
    "faint on a dark sky": _levels(6 + 25 * HALO + 2 * SKY),
    "faint on a grey sky": _levels(120 + 20 * HALO + 2 * SKY),
    "on a black sky": _levels(40 * HALO),
    "with a saturated nucleus": _levels(10 + 800 * np.exp(-RADIUS[..., None] / 4)),
    "small": _levels(10 + 200 * np.exp(-((RADIUS[..., None] / 5) ** 2)) + 2 * SKY),
    "grey": np.repeat(GALAXY[..., 1:2], 3, axis=2),
    "red": GALAXY * np.array([1, 0, 0], np.uint8),
    "blue": _levels([0, 0, 10] + 140 * HALO * [0, 0, 1]),  # in grey, with brightest parts at 17
    "as a negative": 255 - np.maximum(GALAXY, 8),
}
# Cropped losslessly, reduced and enlarged.
STORED = [(encoding, size) for encoding in ("jpeg", "png", "raw") for size in (64, 32, 100)]


@pytest.mark.parametrize(("encoding", "size"), STORED)
@pytest.mark.parametrize("kind", EMPTY)
def test_a_picture_without_a_galaxy_is_refused_with_the_reason(kind: str, encoding: str, size: int) -> None:
    pixels, reason = EMPTY[kind]
    for data in (_file(pixels.astype(np.uint8)), _file(pixels.astype(np.uint8), "PNG")):
        with pytest.raises(ImageError) as caught:
            store(data, CropSettings(0.5, size, encoding))
        assert str(caught.value).startswith("no galaxy: ") and reason in str(caught.value)
        assert store(data, CropSettings(0.5, size, encoding), check=False).data


@pytest.mark.parametrize(("encoding", "size"), STORED)
@pytest.mark.parametrize("kind", GALAXIES)
def test_a_galaxy_is_stored_as_without_the_check(kind: str, encoding: str, size: int) -> None:
    settings = CropSettings(0.5, size, encoding)
    for data in (_file(GALAXIES[kind]), _file(GALAXIES[kind], "PNG")):
        assert store(data, settings) == store(data, settings, check=False)


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_only_the_crop_counts(encoding: str) -> None:
    outside = np.maximum(abs(ROWS), abs(COLUMNS))[..., None] > 42  # a colour sample of a JPEG and its block away from the crop
    settings = CropSettings(0.5, 64, encoding)
    for level in (0, 127, 255):
        framed = np.where(outside, level, GALAXY).astype(np.uint8)
        assert store(_file(framed), settings)
        hole = np.where(outside, GALAXY, level).astype(np.uint8)
        with pytest.raises(ImageError, match="no galaxy"):
            store(_file(hole), settings)
    with pytest.raises(ImageError, match="white"):
        store(_file(np.where(outside, 255, GALAXY).astype(np.uint8)), CropSettings(1, 128, encoding))


@pytest.mark.parametrize("side", [1, 2, 7, 40, 95, 96, 191, 192, 500])
def test_a_picture_of_any_size_can_be_judged(side: int) -> None:
    for level in (0, 255, 127):
        assert no_galaxy(light_of(np.full((side, side + 3, 3), level, np.uint8)))
    ramp = np.repeat(np.linspace(0, 240, side * side).reshape(side, side, 1), 3, axis=2).astype(np.uint8)
    assert side == 1 or not no_galaxy(light_of(ramp))


@given(st.integers(0, 255), st.integers(0, 255), st.integers(1, 40), st.integers(1, 40))
def test_two_levels_are_a_galaxy_if_they_differ_enough_and_are_neither_black_nor_white(
    first: int, second: int, height: int, width: int
) -> None:
    dark, bright = sorted((first, second))
    light = np.full((height, 10 * width), dark, np.uint8)
    light[:, :width] = bright  # a tenth
    refused = dark >= 250 or bright < LEAST_LIGHT or bright - dark < LEAST_CONTRAST
    assert bool(no_galaxy(light)) == refused


@pytest.mark.parametrize(("share", "refused"), [(0.24, False), (0.26, True)])
def test_up_to_a_quarter_may_be_white(share: float, refused: bool) -> None:
    light = np.tile(np.linspace(10, 200, 100).astype(np.uint8), (100, 1))
    light[: int(100 * share)] = 255
    assert no_galaxy(light) == ("no galaxy: 26% of its crop is white" if refused else "")


@pytest.mark.parametrize("kind", EMPTY)
def test_a_jpeg_is_refused_in_the_same_words_whether_it_is_cut_or_decoded(kind: str) -> None:
    data = _file(EMPTY[kind][0].astype(np.uint8))
    reasons = set()
    for encoding in ("jpeg", "png"):
        with pytest.raises(ImageError) as caught:
            store(data, CropSettings(0.5, 64, encoding))
        reasons.add(str(caught.value))
    assert len(reasons) == 1


# Transparency


def _clear(share: float, box: tuple[slice, slice] = (slice(32, 96), slice(32, 96))) -> bytes:
    """A galaxy of which the first pixels of a box are transparent, with white hidden below."""
    clear = np.zeros((SIDE, SIDE), bool)
    inside = np.arange(64 * 64).reshape(64, 64) < share * 64 * 64
    clear[box] = inside if clear[box].shape == (64, 64) else True
    pixels = np.where(clear[..., None], 255, GALAXY).astype(np.uint8)
    return _file(np.dstack([pixels, np.where(clear, 0, 255).astype(np.uint8)]), "PNG")


@pytest.mark.parametrize(("encoding", "size"), STORED)
def test_more_than_a_tenth_of_the_crop_transparent_is_refused_with_the_share(encoding: str, size: int) -> None:
    for share, said in ((0.12, "12%"), (0.5, "50%"), (1, "100%")):
        with pytest.raises(ImageError) as caught:
            store(_clear(share), CropSettings(0.5, size, encoding))
        assert str(caught.value) == f"{said} of its crop is transparent: give the whole image, without a mask"
    assert store(_clear(0.099), CropSettings(0.5, size, encoding))


def test_a_tenth_transparent_is_laid_over_black() -> None:
    stored = store(_clear(0.09985), CropSettings(0.5, 64, "raw"))
    pixels = np.frombuffer(stored.data, np.uint8).reshape(-1, 3)
    first = 409  # of 4,096
    assert not pixels[:first].any()
    np.testing.assert_array_equal(pixels[first:], GALAXY[32:96, 32:96].reshape(-1, 3)[first:])


def test_transparency_outside_the_crop_is_no_reason() -> None:
    for encoding in ("jpeg", "png", "raw"):
        settings = CropSettings(0.5, 64, encoding)
        expected = store(_file(GALAXY, "PNG"), settings)
        assert store(_clear(1, (slice(0, 32), slice(None))), settings) == expected
        assert store(_clear(1, (slice(None), slice(96, None))), settings) == expected
    with pytest.raises(ImageError, match="25% of its crop is transparent"):
        store(_clear(1, (slice(0, 32), slice(None))), CropSettings(1, 64, "png"))


# Real and synthetic galaxies


def _assert_far_from_the_limits(data: bytes, fraction: float, factor: float) -> None:
    pixels = read_picture(data).pixels
    row, column, side = crop_box(*pixels.shape[:2], fraction)
    box = pixels[row : row + side, column : column + side]
    light = np.sort(light_of(box), axis=None)
    dark, bright = light[int(0.005 * light.size)], light[int(0.995 * light.size)]
    assert not no_galaxy(light_of(box))
    assert bright >= factor * LEAST_LIGHT and bright - int(dark) >= factor * LEAST_CONTRAST
    assert (light >= 250).mean() <= MOST_WHITE / factor


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_no_real_galaxy_comes_near_the_limits(kaggle: Path, fraction: float) -> None:
    surveys = [path for path in (SHARED / "surveys").rglob("*") if path.suffix in (".jpg", ".png")]
    paths = [*kaggle.glob("images_*/*.jpg"), *surveys]
    assert len(paths) >= 4261
    for path in paths:
        _assert_far_from_the_limits(path.read_bytes(), fraction, factor=3)


@pytest.mark.slow
@pytest.mark.parametrize("tree", ["kaggle", "decals5", "euclid"])
def test_no_galaxy_of_the_demo_comes_near_the_limits(tree: str, tmp_path: Path) -> None:
    make_demo(tmp_path / "demo", galaxies=100, tree=tree)
    paths = sorted((tmp_path / "demo").rglob("*.jpg"))
    assert len(paths) == 110
    for path in paths:
        _assert_far_from_the_limits(path.read_bytes(), 0.5, factor=2)
