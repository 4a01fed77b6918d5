"""What augmentation does to the pixels of a galaxy, and what it depends on."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

_64 = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15
IDS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**63 - 1)
KEEP = 0.5  # a draw that changes nothing, for all but the angle


def _mixed(bits: int) -> int:
    """The finalizer of SplitMix64, in Python's unbounded integers."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _64
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _64
    return bits ^ (bits >> 31)


def _expected_draws(seed: int, epoch: int, galaxy_id: int) -> list[float]:
    """SplitMix64 from a state made of seed, epoch and id: the upper 24 bits of its first seven numbers."""
    state = _mixed(galaxy_id ^ _mixed((seed * _STEP + epoch) & _64))
    return [(_mixed((state + count * _STEP) & _64) >> 40) / 2**24 for count in range(1, 8)]


def _draws(seed: int, epoch: int, ids: Any) -> np.ndarray:
    import tensorflow as tf

    from trainer.input.augmentation import draws

    drawn: np.ndarray = draws(seed, tf.constant(epoch, tf.int64), tf.constant(ids, tf.int64)).numpy()
    return drawn


def _augmented(images: np.ndarray, drawn: np.ndarray, kind: str) -> np.ndarray:
    from keras import ops

    from trainer.input.augmentation import augment

    given = ops.convert_to_tensor(images), ops.convert_to_tensor(np.asarray(drawn, np.float32))
    result: np.ndarray = np.asarray(ops.convert_to_numpy(augment(*given, kind)))
    return result


def _noise(batch: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, side, side, 3), np.uint8)


def _smooth(side: int) -> np.ndarray:
    """A tilted blob in three colours without symmetry, uint8 (side, side, 3)."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    light = [np.exp(-(((x - 0.4) / 0.3) ** 2) - ((y - 0.55) / 0.15) ** 2), 0.5 + 0.5 * np.sin(5 * x + 3 * y), x * (1 - y)]
    return np.round(np.stack(light, axis=-1) * 255).astype(np.uint8)


def _only(angle: float = 0.0, zoom: float = KEEP, rows: float = KEEP, columns: float = KEEP) -> np.ndarray:
    """Draws (1, 7) for one galaxy, which apply no symmetry."""
    return np.array([[0.9, 0.9, 0.9, angle, zoom, rows, columns]], np.float32)


def _bilinear(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The image interpolated between its pixels, in float64; outside it is mirrored at its outer edges."""
    side = len(image)
    wide = np.pad(image.astype(np.float64), ((side, side), (side, side), (0, 0)), mode="symmetric")
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    top, left = top + side, left + side
    return (
        wide[top, left] * (1 - down) * (1 - right)
        + wide[top, left + 1] * (1 - down) * right
        + wide[top + 1, left] * down * (1 - right)
        + wide[top + 1, left + 1] * down * right
    )


def _reference(image: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The rotation, zoom and shift of `drawn` (4,) as the module's docstring defines them: float64 (side, side, 3)."""
    side = len(image)
    angle, zoom = 2 * math.pi * drawn[0], 1.1 ** (2 * drawn[1] - 1)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    # As complex numbers, columns to the right and rows up: an output pixel z shows the input at z rotated back.
    source = (x - 1j * y) * np.exp(-1j * angle) / zoom
    shift = (2 * drawn[2:] - 1) * 0.04 * side
    return _bilinear(image, -source.imag + (side - 1) / 2 + shift[0], source.real + (side - 1) / 2 + shift[1])


def _assert_within_a_level(pixels: np.ndarray, expected: np.ndarray, border: int = 0) -> None:
    inner = slice(border, len(pixels) - border)
    difference = np.abs(pixels[inner, inner].astype(np.float64) - expected[inner, inner])
    assert difference.max() <= 1.0, f"{difference.max():.2f} levels at {np.argwhere(difference > 1)[:3] + border}"


@given(SEEDS, st.integers(0, 100_000), IDS)
def test_draws_are_splitmix64_of_seed_epoch_and_galaxy(seed: int, epoch: int, ids: list[int]) -> None:
    drawn = _draws(seed, epoch, ids)
    assert drawn.dtype == np.float32 and drawn.shape == (len(ids), 7)
    assert drawn.min() >= 0 and drawn.max() < 1
    np.testing.assert_array_equal(drawn, np.array([_expected_draws(seed, epoch, galaxy) for galaxy in ids], np.float32))


@given(SEEDS, IDS, IDS)
@settings(max_examples=25)
def test_draws_do_not_depend_on_the_place_in_the_batch_nor_on_its_size(seed: int, ids: list[int], others: list[int]) -> None:
    drawn = _draws(seed, 3, ids)
    np.testing.assert_array_equal(_draws(seed, 3, [*others, *reversed(ids)])[len(others) :], drawn[::-1])
    np.testing.assert_array_equal(_draws(seed, 3, ids[:1]), drawn[:1])


def test_draws_change_with_seed_epoch_and_galaxy() -> None:
    ids = list(range(100_000, 100_100))
    drawn = [_draws(seed, epoch, ids) for seed in (0, 1, 2**40) for epoch in (0, 1, 2)]
    galaxies = np.concatenate(drawn)
    assert len(np.unique(galaxies, axis=0)) == len(galaxies)
    for one in drawn:
        for other in drawn:
            assert one is other or np.mean(one == other) < 0.01


@pytest.mark.parametrize("step", [1, 7, 1024])
@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (42, 17)])
def test_draws_are_uniform_and_neighbours_unrelated(seed: int, epoch: int, step: int) -> None:
    drawn = _draws(seed, epoch, np.arange(100_000, 100_000 + 20_000 * step, step)).astype(np.float64)
    next_epoch = _draws(seed, epoch + 1, np.arange(100_000, 100_000 + 20_000 * step, step)).astype(np.float64)
    for column in range(7):
        values = drawn[:, column]
        assert abs(values.mean() - 0.5) < 0.02
        shares = np.histogram(values, 10, (0, 1))[0] / len(values)
        assert shares.min() > 0.08 and shares.max() < 0.12
        assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.05
        assert abs(np.corrcoef(values, next_epoch[:, column])[0, 1]) < 0.05
    between = np.corrcoef(drawn, rowvar=False) - np.eye(7)
    assert np.abs(between).max() < 0.05


def test_draws_in_a_tf_data_pipeline_are_those_of_an_eager_call() -> None:
    import tensorflow as tf

    from trainer.input.augmentation import draws

    ids = np.arange(5, 45, dtype=np.int64)
    batches = tf.data.Dataset.from_tensor_slices(ids).batch(8).map(lambda batch: draws(7, tf.constant(2, tf.int64), batch))
    np.testing.assert_array_equal(np.concatenate(list(batches.as_numpy_iterator())), _draws(7, 2, ids))


@pytest.mark.parametrize("side", [8, 7])
def test_dihedral_gives_each_of_the_8_symmetries_for_one_pattern_of_draws_exactly(side: int) -> None:
    image = _noise(1, side)[0]
    turned = [np.rot90(image, turns) for turns in range(4)]
    symmetries = [*turned, *(np.flip(one, 1) for one in turned)]
    patterns = np.array([[a, b, c] for a in (0.2, 0.7) for b in (0.2, 0.7) for c in (0.2, 0.7)])
    drawn = np.concatenate([patterns, np.full((8, 4), 0.3)], axis=1)
    pixels = _augmented(np.stack([image] * 8), drawn, "dihedral")
    assert pixels.dtype == np.uint8 and pixels.shape == (8, side, side, 3)
    found = [[index for index, one in enumerate(symmetries) if np.array_equal(one, result)] for result in pixels]
    assert all(len(matches) == 1 for matches in found)
    assert sorted(matches[0] for matches in found) == list(range(8))
    assert found[-1] == [0]  # no draw below one half: as stored


def test_dihedral_uses_its_8_symmetries_equally_often() -> None:
    below = _draws(1, 0, np.arange(100_000, 116_000))[:, :3] < 0.5
    counts = np.bincount(below @ [1, 2, 4], minlength=8)
    assert counts.min() > 1_800 and counts.max() < 2_200


def test_dihedral_treats_every_galaxy_of_a_batch_by_its_own_draws() -> None:
    images, drawn = _noise(16, 9), _draws(0, 0, np.arange(16))
    together = _augmented(images, drawn, "dihedral")
    assert not np.array_equal(together, images)
    for index in range(16):
        alone = _augmented(images[index : index + 1], drawn[index : index + 1], "dihedral")
        np.testing.assert_array_equal(together[index], alone[0])


@pytest.mark.parametrize("side", [32, 31])
def test_none_returns_the_images_as_they_are(side: int) -> None:
    images = _noise(4, side)
    pixels = _augmented(images, _draws(0, 0, np.arange(4)), "none")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, images)


@pytest.mark.parametrize("side", [1, 2, 31, 32, 211, 212])
def test_full_without_angle_zoom_and_shift_changes_no_pixel(side: int) -> None:
    images = _noise(2, side)
    pixels = _augmented(images, np.repeat(_only(), 2, axis=0), "full")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, images)


@pytest.mark.parametrize("side", [31, 32, 212])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_full_turns_by_quarters_as_rot90_does(side: int, turns: int) -> None:
    image = _noise(1, side)[0]
    pixels = _augmented(image[None], _only(angle=turns / 4), "full")[0]
    _assert_within_a_level(pixels, np.rot90(image, turns))


@pytest.mark.parametrize("side", [63, 64])
@pytest.mark.parametrize("angle", [0.04, 0.11, 0.37, 0.62, 0.99])
def test_full_turns_by_any_angle_as_bilinear_interpolation_does(side: int, angle: float) -> None:
    image, drawn = _smooth(side), _only(angle=angle)
    pixels = _augmented(image[None], drawn, "full")[0]
    expected = _reference(image, drawn[0, 3:].astype(np.float64))
    _assert_within_a_level(pixels, expected, border=side // 5)  # no sky from outside the image there
    _assert_within_a_level(pixels, expected)  # and the corners show the mirrored sky


@given(st.sampled_from([20, 33]), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_full_is_one_bilinear_interpolation_for_any_draws(side: int, seed: int) -> None:
    image = _smooth(side)
    drawn = np.random.default_rng(seed).random((1, 7), np.float32)
    drawn[:, :3] = 0.9
    _assert_within_a_level(_augmented(image[None], drawn, "full")[0], _reference(image, drawn[0, 3:].astype(np.float64)))


@pytest.mark.parametrize("side", [40, 41])
def test_full_applies_the_symmetry_first(side: int) -> None:
    image = _smooth(side)
    drawn = np.array([[0.1, 0.9, 0.3, 0.2, 0.8, 0.1, 0.7]], np.float32)
    symmetric = _augmented(image[None], drawn, "dihedral")[0]
    assert not np.array_equal(symmetric, image)
    _assert_within_a_level(_augmented(image[None], drawn, "full")[0], _reference(symmetric, drawn[0, 3:].astype(np.float64)))


@pytest.mark.parametrize(("drawn", "zoom"), [(1.0, 1.1), (0.0, 1 / 1.1)])
@pytest.mark.parametrize("side", [64, 65])
def test_the_zoom_goes_from_one_over_1_1_to_1_1(side: int, drawn: float, zoom: float) -> None:
    """A disk's area grows with the square of the zoom."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    edge = np.clip(0.3 * side - np.hypot(x, y) + 0.5, 0, 1)[..., None] * np.full(3, 255)
    disk = edge.round().astype(np.uint8)
    pixels = _augmented(disk[None], _only(zoom=drawn), "full")[0]
    assert pixels.sum(dtype=np.int64) / disk.sum(dtype=np.int64) == pytest.approx(zoom**2, rel=0.01)


@pytest.mark.parametrize("side", [50, 75, 100])
@pytest.mark.parametrize(("axis", "drawn", "sign"), [(0, 0.0, 1), (0, 1.0, -1), (1, 0.0, 1), (1, 1.0, -1)])
def test_the_shift_goes_up_to_4_percent_of_the_side_along_each_axis(side: int, axis: int, drawn: float, sign: int) -> None:
    """4 % of these sides is a whole number of pixels: the image moves, and the rest is mirrored at its edge."""
    image, pixels_moved = _noise(1, side)[0], side // 25
    moved = _augmented(image[None], _only(rows=drawn) if axis == 0 else _only(columns=drawn), "full")[0]
    widths = [(pixels_moved, pixels_moved) if axis == index else (0, 0) for index in range(3)]
    wide = np.pad(image, widths, mode="symmetric")
    start = pixels_moved - sign * pixels_moved
    expected = wide[start : start + side] if axis == 0 else wide[:, start : start + side]
    _assert_within_a_level(moved, expected)


def test_full_treats_every_galaxy_of_a_batch_by_its_own_draws() -> None:
    images, drawn = np.stack([_smooth(32)] * 6), _draws(5, 0, np.arange(6))
    together = _augmented(images, drawn, "full")
    assert len({image.tobytes() for image in together}) == 6
    for index in range(6):
        alone = _augmented(images[index : index + 1], drawn[index : index + 1], "full")[0]
        _assert_within_a_level(together[index], alone)
