"""One stretch is chosen for a set of images, so that its galaxies are as bright as those of training."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from preprocess.sources import Listing, chosen_look, find_images, sample_of_fits
from preprocess.sources.looks import SAMPLE
from tests.tfrecords.fits.files import galaxy, write
from tfrecords.fits.choice import bright, choose_stretch, thinned
from tfrecords.fits.colour import Flux, stretched
from tfrecords.fits.look import DEFAULT_STRETCH, SDSS, Brightness, Look, Stretch
from tfrecords.images import crop_box

AUTO = Stretch()
# As bright as galaxies of SDSS at the default.
SAMPLES = [np.moveaxis(galaxy(64, seed, peak=6.0), 0, 2).astype(np.float64) for seed in range(12)]
DEFAULT = Stretch(DEFAULT_STRETCH)


def test_galaxies_as_bright_as_those_of_sdss_keep_the_default() -> None:
    choice = choose_stretch(SAMPLES, SDSS, AUTO)
    assert choice.stretch == DEFAULT and choice.reason.startswith("their galaxies are as bright as in training (")


@given(st.floats(-4, 4))
def test_whatever_the_unit_galaxies_become_as_bright_as_in_training_and_look_alike(power: float) -> None:
    factor = 10**power
    samples = [sample * factor for sample in SAMPLES[:4]]
    choice = choose_stretch(samples, SDSS, AUTO)
    assert SDSS.low <= bright(samples, choice.stretch) <= SDSS.high
    assert choice.stretch.stretch is not None
    if choice.stretch != DEFAULT:
        assert bright(samples, choice.stretch) == pytest.approx(SDSS.middle, abs=3)
        assert float(f"{choice.stretch.stretch:.2g}") == choice.stretch.stretch


@pytest.mark.parametrize("factor", [0.001, 0.1, 1e5, 1e6])
def test_the_chosen_stretch_scales_with_the_unit_and_so_the_pictures_are_the_same(factor: float) -> None:
    dim = [sample * 0.01 for sample in SAMPLES]  # not at the default in any unit
    first, second = (choose_stretch([sample * unit for sample in dim], SDSS, AUTO).stretch for unit in (1.0, factor))
    assert first.stretch is not None and second.stretch is not None
    assert second.stretch / first.stretch == pytest.approx(factor, rel=0.06)  # both have two digits
    difference = stretched(dim[0] * factor, second).astype(int) - stretched(dim[0], first)
    assert np.abs(difference).max() <= 6


@pytest.mark.parametrize(("factor", "was"), [(0.001, "dark"), (1000, "bright")])
def test_the_reason_names_the_levels_before_and_after(factor: float, was: str) -> None:
    samples = [sample * factor for sample in SAMPLES]
    choice = choose_stretch(samples, SDSS, AUTO)
    reached = bright(samples, choice.stretch)
    before = bright(samples, DEFAULT)
    assert choice.reason == f"at 0.5 their galaxies are too {was}: {before:.0f} of 255, at this one {reached:.0f}"


def test_a_given_stretch_counts_and_q_is_kept_in_any_case() -> None:
    dark = [sample * 1e-3 for sample in SAMPLES]
    assert choose_stretch(dark, SDSS, Stretch(7.0, 3)) == (Stretch(7.0, 3), "")
    assert choose_stretch(dark, SDSS, Stretch(q=3)).stretch.q == 3
    assert choose_stretch([], SDSS, Stretch(q=3)) == (Stretch(DEFAULT_STRETCH, 3), "")


def test_images_that_no_stretch_helps_keep_the_default_and_it_is_said() -> None:
    for samples in ([np.zeros((8, 8, 3))] * 3, [-np.abs(SAMPLES[0])] * 3):
        choice = choose_stretch(samples, SDSS, AUTO)
        assert choice.stretch == DEFAULT
        assert choice.reason.startswith("no stretch makes their galaxies as bright as in training (")


def test_a_darker_training_set_has_a_darker_stretch() -> None:
    bright_ones = [sample * 100 for sample in SAMPLES]
    dark, usual = (choose_stretch(bright_ones, wanted, AUTO).stretch for wanted in (Brightness(30, 60, 90), SDSS))
    assert dark.stretch is not None and usual.stretch is not None and dark.stretch > usual.stretch


def test_a_few_odd_images_do_not_choose_for_the_others() -> None:
    odd = [*SAMPLES, SAMPLES[0] * 1e5, np.zeros((8, 8, 3)), SAMPLES[1] * 1e-5]
    assert choose_stretch(odd, SDSS, AUTO).stretch == DEFAULT


def test_a_thinned_crop_is_a_part_of_its_pixels() -> None:
    colours = np.moveaxis(galaxy(300), 0, 2)
    part = thinned(Flux(colours, False, "", False), crop_box(300, 300, 0.5))
    assert part.dtype == np.float64 and 64 <= part.shape[0] <= 75
    np.testing.assert_array_equal(part, colours[75:225:2, 75:225:2])


def test_real_galaxies_of_sdss_keep_the_default(kaggle: Path) -> None:
    samples = []
    for path in sorted((kaggle / "images_training_rev1").iterdir())[:40]:
        light = np.asarray(Image.open(path), np.float64)[106:318:3, 106:318:3]
        mean = light.mean(axis=2, keepdims=True)
        # Flux that is stretched to this picture: Lupton's formula, solved for the flux.
        flux_of_mean = np.sinh(mean / 255 * np.arcsinh(1.0) / 0.1) * DEFAULT_STRETCH / 10
        samples.append(light * np.divide(flux_of_mean, mean, out=np.zeros_like(mean), where=mean > 0))
    assert choose_stretch(samples, SDSS, AUTO).stretch == DEFAULT
    other = choose_stretch([sample * 63.1 for sample in samples], SDSS, AUTO).stretch.stretch
    assert other is not None and 0.5 < other / (DEFAULT_STRETCH * 63.1) < 2


# From files


def _listing(path: Path) -> Listing:
    return find_images(path, path.parent)[0]


def _folder(folder: Path, factor: float = 1.0, count: int = 6, **cards: object) -> Path:
    for number in range(count):
        write(folder / f"{number}.fits", (galaxy(64, number, peak=6.0) * factor).astype(np.float32), **cards)
    return folder


def test_a_sample_is_spread_over_all_fits_images_and_holds_no_pictures(tmp_path: Path) -> None:
    _folder(tmp_path / "images", count=SAMPLE + 40)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "500.png")
    sample = sample_of_fits(_listing(tmp_path / "images"))
    ids = sample.galaxy_id.tolist()
    assert len(ids) == SAMPLE and ids[0] == 0 and ids[-1] == SAMPLE + 39 and 500 not in ids
    assert np.diff(ids).max() <= 2


def test_the_unit_in_the_header_counts_and_files_that_cannot_be_used_do_not(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "images", 1000.0, MAGZERO=30.0)
    write(folder / "7.fits", np.zeros((3, 8, 8), np.float32))
    (folder / "8.fits").write_bytes(b"nothing")
    write(folder / "9.fits", np.random.default_rng(0).integers(0, 9, (3, 8, 8), dtype=np.uint8))  # a picture: not stretched
    look, choice = chosen_look(_listing(folder), 0.5, SDSS, Look())
    assert look == Look(stretch=DEFAULT) and choice.reason.startswith("their galaxies are as bright")


def test_files_of_which_none_can_be_used_keep_the_default(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "8.fits").write_bytes(b"nothing")
    look, choice = chosen_look(_listing(tmp_path / "images"), 0.5, SDSS, Look(("g", "r", "z")))
    assert (look, choice.reason) == (Look(("g", "r", "z"), DEFAULT), "")


def test_files_with_a_sky_left_in_do_not_choose_the_stretch_of_the_others(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "images", count=3)
    for number in range(3, 8):
        write(folder / f"{number}.fits", galaxy(64, number) * 500 + np.float32(5000))
    assert chosen_look(_listing(folder), 0.5, SDSS, Look())[0].stretch == DEFAULT
