"""A run stores the scale of its training galaxies when it is created."""

import numpy as np
import pytest

from tfrecords.dataset import Dataset
from tfrecords.reader import decode_example, in_order
from trainer import run as runs
from trainer.images.photometry import photometry
from trainer.input.scale import training_range, warning
from trainer.run import Run, open_run


def _radii(dataset: Dataset, limit: int) -> np.ndarray:
    images = [decode_example(example, dataset.encoding, dataset.size).numpy() for example in in_order(dataset, "train", limit)]
    return photometry(np.stack(images)).half_light_radius


@pytest.mark.parametrize("limit", [0, 10, 10_000])
def test_the_range_holds_98_percent_of_the_first_training_galaxies(plain_dataset: Dataset, limit: int) -> None:
    radii = _radii(plain_dataset, min(limit, plain_dataset.galaxies("train")))
    assert len(radii) == (10 if limit == 10 else plain_dataset.galaxies("train"))
    low, high = training_range(plain_dataset, limit)
    assert (low, high) == (pytest.approx(np.quantile(radii, 0.01)), pytest.approx(np.quantile(radii, 0.99)))
    assert low < high


def test_a_trained_run_knows_the_range_of_its_training_set(tiny_run: Run, plain_dataset: Dataset) -> None:
    assert tiny_run.half_light_radius == pytest.approx(training_range(plain_dataset))
    assert open_run(tiny_run.folder).config["half_light_radius"] == list(tiny_run.half_light_radius or ())


def test_the_range_does_not_make_it_another_run(tiny_run: Run, plain_dataset: Dataset) -> None:
    found, is_new = runs.start(tiny_run.folder, tiny_run.settings, plain_dataset, overwrite=False)
    assert (found, is_new) == (tiny_run, False)


def test_a_run_of_before_the_range_was_kept_has_none(tiny_run: Run) -> None:
    config = {name: value for name, value in tiny_run.config.items() if name != "half_light_radius"}
    assert Run(tiny_run.folder, config).half_light_radius is None


def test_the_warning_names_every_range_once() -> None:
    line = warning(3, 40, [(1.0, 2.5), (1.0, 2.5), (4.0, 10.04)])
    assert line.startswith("3 of 40 images (7.5 %, against 2 % of the training galaxies)") and "\n" not in line
    assert "outside 1.0 to 2.5 and 4.0 to 10.0 pixels" in line
