"""Fixtures for the tests of all three packages: real galaxies if available, and tiny synthetic surveys."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from PIL import Image

from preprocess.job import BuildSettings, build_dataset
from preprocess.plan import PlanSettings
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from tfrecords.images import CropSettings
from tfrecords.tree import Tree

# No deadline: a shared machine may be slow. The same examples every time: a failure can be reproduced.
hypothesis_settings.register_profile("galaxy_zoo", deadline=None, derandomize=True, database=None)
hypothesis_settings.load_profile("galaxy_zoo")

# A script's background processes ignore Ctrl-C, and so would the processes that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Files that take minutes. They run first: one that ran last would leave the other process idle.
_SLOW = (
    *("test_resume.py", "test_hosts.py", "test_precision.py", "test_faults.py", "test_backends.py", "test_steps.py"),
    *("test_export.py", "test_train.py", "test_evaluate_streamed.py", "test_meeting.py", "test_injected.py"),
    *("test_no_connections.py", "test_truth_of_runs.py", "test_job_array.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _SLOW.index(item.path.name) if item.path.name in _SLOW else len(_SLOW))


SHARED = Path(__file__).parents[2] / "shared"
SurveyMaker = Callable[..., Path]


def _shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is missing: real galaxies and weights are not part of the repository")
    return path


@pytest.fixture(scope="session")
def kaggle() -> Path:
    """3,064 real galaxies with votes and 1,197 without, in Kaggle's layout. Read-only."""
    return _shared("kaggle")


@pytest.fixture(scope="session")
def imagenet_weights() -> Path:
    """The ImageNet weights of the VGG16 backbone. Read-only."""
    return _shared("weights/vgg16_imagenet_notop.weights.h5")


def random_votes(galaxies: int, generator: np.random.Generator, tree: Tree | None = None) -> np.ndarray:
    """Votes that obey a tree (None: Kaggle's), float64 (galaxies, n), rounded to 9 decimals as Kaggle's are."""
    tree = tree or builtin_tree()
    votes = np.zeros((galaxies, len(tree.columns)))
    for question in tree.questions:
        answers = generator.dirichlet(np.ones(question.stop - question.start), galaxies)
        votes[:, question.columns] = answers * tree.reached(votes, question)[:, None]
    return votes.round(9)


def random_counts(galaxies: int, generator: np.random.Generator, tree: Tree, volunteers: int = 40) -> np.ndarray:
    """Volunteers who gave each answer, int64 (galaxies, n): 1 to `volunteers`, who answer all that they are asked."""
    counts = np.zeros((galaxies, len(tree.columns)), np.int64)
    everyone = generator.integers(1, volunteers + 1, galaxies)
    for question in tree.questions:
        shares = generator.dirichlet(np.ones(question.stop - question.start), galaxies)
        counts[:, question.columns] = generator.multinomial(
            tree.reached(counts, question) if question.parents else everyone, shares
        )
    return counts


def galaxy_image(generator: np.random.Generator, side: int) -> Image.Image:
    """A tilted Gaussian blob on a noisy sky, RGB."""
    y, x = np.mgrid[:side, :side] - side / 2 + generator.normal(0, side / 40, (2, 1, 1))
    angle, long = generator.uniform(0, np.pi), generator.uniform(side / 12, side / 6)
    short = long * generator.uniform(0.3, 1)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    light = np.exp(-((along / long) ** 2) - (across / short) ** 2)
    colour = generator.uniform(120, 230, 3)
    pixels = light[..., None] * colour + generator.normal(12, 6, (side, side, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_votes(path: Path, galaxy_ids: list[int], votes: np.ndarray) -> None:
    """Write a table of votes in Kaggle's format: GalaxyID and the 37 columns, one row per galaxy."""
    rows = [",".join([str(galaxy_id), *map(repr, row)]) for galaxy_id, row in zip(galaxy_ids, votes.tolist(), strict=True)]
    path.write_text("\n".join([",".join(["GalaxyID", *builtin_tree().columns]), *rows]) + "\n")


@pytest.fixture(scope="session")
def make_survey() -> SurveyMaker:
    """A function that writes a survey in Kaggle's layout: make_survey(folder, labelled=24, unlabelled=4, side=64, seed=0).

    Labelled galaxies are 100000, 100007, ... in images_training_rev1, the others 900000, 900011, ... in images_test_rev1.
    """

    def make(folder: Path, labelled: int = 24, unlabelled: int = 4, side: int = 64, seed: int = 0) -> Path:
        generator = np.random.default_rng(seed)
        with_votes = [100_000 + 7 * index for index in range(labelled)]
        without = [900_000 + 11 * index for index in range(unlabelled)]
        for name, galaxy_ids in (("images_training_rev1", with_votes), ("images_test_rev1", without)):
            (folder / name).mkdir(parents=True)
            for galaxy_id in galaxy_ids:
                galaxy_image(generator, side).save(folder / name / f"{galaxy_id}.jpg", quality=95)
        write_votes(folder / "training_solutions_rev1.csv", with_votes, random_votes(labelled, generator))
        return folder

    return make


@pytest.fixture(scope="session")
def survey(make_survey: SurveyMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 galaxies with votes and 4 without, 64 x 64 pixels. Read-only: a test that changes a survey makes its own."""
    return make_survey(tmp_path_factory.mktemp("survey") / "kaggle")


@pytest.fixture(scope="session")
def build_settings() -> Callable[..., BuildSettings]:
    """A function that returns settings for 64 x 64 galaxies; keyword arguments change them."""

    def make(**changes: Any) -> BuildSettings:
        values = {
            "crop_fraction": 0.5, "size": 32, "encoding": "png", "jpeg_quality": 95, "validation_fraction": 0.2,
            "test_fraction": 0.2, "seed": 0, "examples_per_shard": 8, "limit": 0, **changes,
        }  # fmt: skip
        of_crop = {name: values.pop(name) for name in ("crop_fraction", "size", "encoding", "jpeg_quality")}
        return BuildSettings(CropSettings(**of_crop), PlanSettings(**values))

    return make


@pytest.fixture(scope="session")
def small_survey(make_survey: SurveyMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of `small_dataset`: 60 galaxies with votes and 4 without. Read-only."""
    return make_survey(tmp_path_factory.mktemp("small") / "kaggle", labelled=60, seed=1)


@pytest.fixture(scope="session")
def small_dataset(
    small_survey: Path, build_settings: Callable[..., BuildSettings], tmp_path_factory: pytest.TempPathFactory
) -> Dataset:
    """A finished dataset of 32 x 32 PNGs: at least 6 galaxies in each split, `train` in several shards. Read-only."""
    out = tmp_path_factory.mktemp("small_dataset") / "data" / "galaxy_zoo" / "1.0.0"
    dataset = build_dataset(small_survey, out, build_settings(seed=1), workers=1).dataset
    assert min(dataset.galaxies(split) for split in ("train", "validation", "test")) >= 6
    return dataset
