"""One small trained run that many tests share, and the program as users run it."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from preprocess.job import BuildSettings, build_dataset
from tests.trainer import small, streamed
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from trainer.config import RECIPES, TrainConfig
from trainer.run import Run, open_run

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def loaded_backend() -> Iterator[None]:
    """Keras' backend, loaded quietly; its models are released after the module."""
    from trainer.backends.startup import load_backend

    load_backend()
    yield
    import keras

    keras.backend.clear_session()


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Processes on JAX share compiled programs: compiling is a third of their time. The results are the same without."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path_factory.mktemp("compiled"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def _votes(smooth: bool, generator: np.random.Generator) -> np.ndarray:
    """Votes (37,) that obey the tree: each question has a favourite answer, the first for smooth galaxies, else the second."""
    tree = builtin_tree()
    votes = np.zeros(len(tree.columns))
    for question in tree.questions:
        wishes = np.full(question.stop - question.start, 1.0)
        wishes[0 if smooth else min(1, len(wishes) - 1)] = 12.0
        asked = votes[question.parents[0]] if question.parents else 1.0
        votes[question.columns] = generator.dirichlet(wishes) * asked
    return votes.round(9)


def _picture(smooth: bool, generator: np.random.Generator) -> Image.Image:
    """An image of 32 x 32 pixels: a large bright disk if smooth, else a faint dot, on a noisy sky."""
    y, x = np.mgrid[:32, :32] - 15.5
    light = np.where(np.hypot(x, y) < (13 if smooth else 3), 220.0 if smooth else 60.0, 10.0)
    return Image.fromarray((light[..., None] + generator.normal(0, 6, (32, 32, 3))).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def plain_survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 galaxies of two clearly different kinds with matching votes, and 5 without votes. Read-only."""
    folder = tmp_path_factory.mktemp("plain") / "kaggle"
    generator = np.random.default_rng(0)
    rows = [",".join(["GalaxyID", *builtin_tree().columns])]
    (folder / "images_training_rev1").mkdir(parents=True)
    (folder / "images_test_rev1").mkdir()
    for galaxy_id in range(200_000, 200_080):
        smooth = galaxy_id % 2 == 0
        _picture(smooth, generator).save(folder / "images_training_rev1" / f"{galaxy_id}.jpg", quality=95)
        rows.append(",".join([str(galaxy_id), *map(repr, _votes(smooth, generator).tolist())]))
    for galaxy_id in range(300_000, 300_005):
        _picture(galaxy_id % 2 == 0, generator).save(folder / "images_test_rev1" / f"{galaxy_id}.jpg", quality=95)
    (folder / "training_solutions_rev1.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def plain_dataset(
    plain_survey: Path, build_settings: Callable[..., BuildSettings], tmp_path_factory: pytest.TempPathFactory
) -> Dataset:
    """The plain survey as shards: 32 x 32 PNGs in four splits. Read-only."""
    settings = build_settings(crop_fraction=1.0, examples_per_shard=16)
    return build_dataset(plain_survey, tmp_path_factory.mktemp("plain_dataset") / "data", settings, workers=1).dataset


small.register()
# Spelt out, so that this run does not change with a recipe.
TINY = {
    **RECIPES["article"](),
    **{
        "backbone": small.SMALL,
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "warmup_steps": 4,
        "weights": "none",
        "seed": 3,
    },
    **{"initialisation": "means", "input_scaling": "auto", "augment": "dihedral"},
}


@pytest.fixture(scope="session")
def tiny_settings() -> dict[str, Any]:
    """The settings of `tiny_run` that are not the defaults."""
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny_run(plain_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run on the plain dataset, from its first epoch to its report, undisturbed. Read-only."""
    from trainer.train import train_model

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train_model(TrainConfig(plain_dataset.folder, folder, **TINY))
    yield open_run(folder)
    shutil.rmtree(folder)  # pytest keeps the folders of three sessions


@pytest.fixture(scope="session")
def tiny_metrics(tiny_run: Run) -> dict[str, Any]:
    """The metrics.json of `tiny_run`."""
    content: dict[str, Any] = json.loads((tiny_run.folder / "metrics.json").read_text("utf-8"))
    return content


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Main:
    """A function that runs `trainer` in this process and returns its exit status, stdout and stderr."""
    from trainer.backends.startup import load_backend
    from trainer.cli import main

    # If TensorFlow is imported before `main`, it searches for GPUs while absl starts the program, and reports on stderr.
    load_backend()

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["trainer", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, output.out, output.err

    return run


@pytest.fixture(scope="session")
def look() -> Any:
    """The function that opens a page in headless Chromium and returns what is wrong with it: see browser.py."""
    from tests.trainer.analysis import browser

    if browser.CHROMIUM is None:
        pytest.skip("chromium is not installed: on Debian, apt-get install chromium")
    return browser.look


@pytest.fixture(scope="session")
def make_dataset(
    plain_survey: Path, build_settings: Callable[..., BuildSettings], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A function that builds the plain survey with other settings."""

    def make(**changes: Any) -> Dataset:
        settings = build_settings(**{"crop_fraction": 1.0, **changes})
        return build_dataset(plain_survey, tmp_path_factory.mktemp("other") / "data", settings, workers=1).dataset

    return make


@pytest.fixture(scope="session")
def unmeasured_dataset(make_dataset: Any) -> Dataset:
    """The plain survey without a test split, for tests of training only. Read-only."""
    dataset: Dataset = make_dataset(test_fraction=0.0, validation_fraction=0.3, examples_per_shard=16)
    return dataset


@pytest.fixture
def mixed_images(plain_survey: Path, tmp_path: Path) -> Path:
    """21 images, some with names and three that cannot be read."""
    folder = tmp_path / "images"
    folder.mkdir()
    paths = sorted((plain_survey / "images_training_rev1").iterdir())[:18]
    for number, path in enumerate(paths):
        shutil.copy(path, folder / (f"NGC {99 - number}.jpg" if number % 3 else path.name))
    for name in ("7.jpg", "broken.jpg", "IC 1.jpg"):
        (folder / name).write_text("nothing to see")
    return folder


@pytest.fixture
def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of eight galaxies, batches of four."""
    streamed.shrink(monkeypatch.setattr)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by an element for each batch."""
    from trainer.blocks import Ensemble

    batches: list[int] = []
    call = Ensemble.__call__

    def counting(self: Ensemble, crops: Any) -> Any:
        batches.append(len(crops[0]))
        return call(self, crops)

    monkeypatch.setattr(Ensemble, "__call__", counting)
    return batches
