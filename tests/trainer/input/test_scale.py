"""A run stores how large and how bright its training galaxies are when it is created."""

import numpy as np
import pytest

from tfrecords.dataset import Dataset
from tfrecords.fits.look import Brightness
from tfrecords.reader import decode_example, in_order
from trainer import beginning
from trainer.images.photometry import brightness, photometry
from trainer.images.ranges import Ranges, ranges_of
from trainer.input.scale import training_ranges
from trainer.run import Run, open_run


def _images(dataset: Dataset, limit: int) -> np.ndarray:
    return np.stack(
        [decode_example(example, dataset.encoding, dataset.size).numpy() for example in in_order(dataset, "train", limit)]
    )


@pytest.mark.parametrize("limit", [0, 10, 10_000])
def test_the_ranges_hold_98_percent_of_the_first_training_galaxies(plain_dataset: Dataset, limit: int) -> None:
    images = _images(plain_dataset, min(limit, plain_dataset.galaxies("train")))
    assert len(images) == (10 if limit == 10 else plain_dataset.galaxies("train"))
    ranges = training_ranges(plain_dataset, limit)
    assert ranges.radius == pytest.approx(np.quantile(photometry(images).half_light_radius, (0.01, 0.99)))
    assert ranges.radius is not None and ranges.radius[0] < ranges.radius[1]
    for measured, values in zip((ranges.median, ranges.bright), brightness(images), strict=True):
        assert isinstance(measured, Brightness)
        assert measured == pytest.approx(np.quantile(values, (0.01, 0.5, 0.99)))


def test_a_trained_run_holds_the_ranges_of_its_training_set(tiny_run: Run, plain_dataset: Dataset) -> None:
    expected = training_ranges(plain_dataset)
    config = open_run(tiny_run.folder).config
    assert tiny_run.ranges.radius == pytest.approx(expected.radius) == config["half_light_radius"]
    assert config["brightness"] == {"median": list(expected.median or ()), "bright": list(expected.bright or ())}
    assert tiny_run.ranges == expected


def test_ranges_survive_the_config_of_a_run() -> None:
    ranges = Ranges((1.0, 2.5), Brightness(1.0, 2.0, 3.0), Brightness(60.0, 140.0, 220.0))
    assert ranges_of(ranges.config()) == ranges
    assert ranges_of(Ranges(None, None, None).config()) == Ranges(None, None, None)


def test_the_ranges_do_not_make_it_another_run(tiny_run: Run, plain_dataset: Dataset) -> None:
    found, is_new = beginning.start(tiny_run.folder, tiny_run.settings, plain_dataset, overwrite=False)
    assert (found, is_new) == (tiny_run, False)


def test_a_run_of_before_a_range_was_kept_has_none(tiny_run: Run) -> None:
    without = {name: value for name, value in tiny_run.config.items() if name not in ("half_light_radius", "brightness")}
    assert Run(tiny_run.folder, without).ranges == Ranges(None, None, None)
    sized = {**without, "half_light_radius": [1.0, 2.0]}
    assert Run(tiny_run.folder, sized).ranges == Ranges((1.0, 2.0), None, None)
