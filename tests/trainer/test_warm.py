"""A run can start with the weights of another one: of another tree, size, pooling or head; and blocks can be frozen."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.job import BuildSettings, build_dataset
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, RunError, SettingError
from tfrecords.images import CropSettings
from tfrecords.reader import votes_of
from tfrecords.tree import column_means
from trainer.config import TrainConfig
from trainer.network import backbones
from trainer.network.model import Design, build_model
from trainer.run import Run, open_run
from trainer.train import train_model
from trainer.warm import open_start, trained_scaling, transfer

MakeDataset = Callable[..., Dataset]


@pytest.fixture(scope="module")
def question(plain_survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The plain survey with one question of its own. Read-only."""
    folder = tmp_path_factory.mktemp("question")
    (folder / "smooth.toml").write_text(
        'id = "GalaxyID"\n[[question]]\nkey = "smooth"\nanswers = { yes = "Class1.1" }\nrest = "no"\n'
    )
    rows = (plain_survey / "training_solutions_rev1.csv").read_text().splitlines()
    (folder / "votes.csv").write_text("\n".join(",".join(row.split(",")[:2]) for row in rows) + "\n")
    settings = BuildSettings(CropSettings(crop_fraction=1.0, size=32, encoding="png"))
    return build_dataset(plain_survey, folder / "data", settings, folder / "votes.csv", tree=folder / "smooth.toml").dataset


def _warm(tiny_settings: dict[str, Any], dataset: Dataset, run: Run, out: Path, **changes: Any) -> TrainConfig:
    """The config of a run that starts with the weights of `run`; a rate of almost nothing leaves them as they were."""
    still = {"learning_rate": 1e-12, "schedule": "constant", "warmup_steps": 0, "epochs": 1}
    return TrainConfig(dataset.folder, out, **{**tiny_settings, **still, "weights": run.folder, **changes})


def _arrays(run: Run) -> dict[str, np.ndarray]:
    return {weight.path: np.asarray(weight) for weight in run.load_model().weights}


def test_a_run_on_the_same_tree_starts_where_the_other_ended(
    tiny_run: Run, plain_dataset: Dataset, tiny_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_model(_warm(tiny_settings, plain_dataset, tiny_run, tmp_path / "run"))
    for path, array in _arrays(tiny_run).items():
        np.testing.assert_allclose(_arrays(run)[path], array, atol=1e-6, err_msg=path)
    printed = capsys.readouterr().out
    layers = "the backbone, hidden layer fc1, hidden layer fc2 and the output layer"
    assert f"{tiny_run.folder}: initial weights of {layers}\n" in printed
    start = open_run(run.folder).config["start"]
    assert start["run"] == str(tiny_run.folder) and start["scaling"] == "random" and len(start["model"]) == 64
    card = (run.folder / "README.md").read_text()
    assert str(tiny_run.folder) in card and start["model"][:16] in card


def test_on_another_tree_the_outputs_start_at_its_column_means(
    tiny_run: Run, question: Dataset, tiny_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_model(_warm(tiny_settings, question, tiny_run, tmp_path / "run"))
    assert "fc2; new: the output layer, because the decision tree differs" in capsys.readouterr().out
    old, new = _arrays(tiny_run), _arrays(run)
    same = {path for path in old if path in new and old[path].shape == new[path].shape}
    assert {path.split("/")[0] for path in same} >= {"conv1", "conv2", "conv3", "fc1", "fc2"}
    for path in same:
        np.testing.assert_allclose(new[path], old[path], atol=1e-6, err_msg=path)
    images = np.zeros((1, 32, 32, 3), np.uint8)
    means = column_means(votes_of(question, "train").targets)
    np.testing.assert_allclose(run.load_model().predict_on_batch(images)[0], means, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "words", "copied"),
    [
        ({"pooling": "average"}, "new: hidden layer fc1 and later layers, because the pooling differs", {"fc2": False}),
        ({"head": "tree", "loss": "mse"}, "new: the output layer, because the head differs", {"fc2": True}),
    ],
)
def test_layers_that_do_not_fit_are_new_and_named(
    changes: dict[str, Any], words: str, copied: dict[str, bool], tiny_run: Run, plain_dataset: Dataset,
    tiny_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = train_model(_warm(tiny_settings, plain_dataset, tiny_run, tmp_path / "run", **changes))
    assert words in capsys.readouterr().out
    old, new = _arrays(tiny_run), _arrays(run)
    np.testing.assert_allclose(new["conv1/kernel"], old["conv1/kernel"], atol=1e-6)
    for layer, is_copied in copied.items():
        assert np.allclose(new[f"{layer}/kernel"], old[f"{layer}/kernel"], atol=1e-6) == is_copied


def test_images_of_another_size_take_the_backbone(
    tiny_run: Run, make_dataset: MakeDataset, tiny_settings: dict[str, Any], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    dataset = make_dataset(size=48)
    run = train_model(_warm(tiny_settings, dataset, tiny_run, tmp_path / "run"))
    assert "new: hidden layer fc1 and later layers, because that run's images have 32 x 32 pixels" in capsys.readouterr().out
    np.testing.assert_allclose(_arrays(run)["conv3/kernel"], _arrays(tiny_run)["conv3/kernel"], atol=1e-6)


def test_it_resumes_without_the_run_it_started_with(
    tiny_run: Run, plain_dataset: Dataset, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_run.folder, source)
    config = _warm(tiny_settings, plain_dataset, open_run(source), tmp_path / "run", epochs=2, learning_rate=1e-3)
    once = train_model(dataclasses.replace(config, out=tmp_path / "once"))
    from trainer import train

    class Stopped(Exception):
        pass

    keep = train._Training._keep

    def stop_after_one(training: Any, row: Any) -> None:
        keep(training, row)
        raise Stopped

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(train._Training, "_keep", stop_after_one)
        train_model(config)
    shutil.rmtree(source)
    resumed = train_model(config)
    for one, other in zip(_arrays(once).values(), _arrays(resumed).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_chain_of_runs_keeps_the_scaling_of_the_first(
    tiny_run: Run, plain_dataset: Dataset, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    second = train_model(_warm(tiny_settings, plain_dataset, tiny_run, tmp_path / "second"))
    third = train_model(_warm(tiny_settings, plain_dataset, second, tmp_path / "third"))
    assert [trained_scaling(run) for run in (tiny_run, second, third)] == ["random"] * 3
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    first, last = (run.load_model().predict_on_batch(images) for run in (tiny_run, third))
    np.testing.assert_allclose(last, first, atol=1e-5)


def test_what_is_no_run_to_start_with_is_named(
    tiny_run: Run, plain_dataset: Dataset, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    def config(weights: Path, **changes: Any) -> TrainConfig:
        return TrainConfig(plain_dataset.folder, tmp_path / "run", **{**tiny_settings, "weights": weights, **changes})

    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match=r"folder: not a run folder.*give --weights imagenet, none, a file, or another run"):
        train_model(config(tmp_path / "folder"))
    with pytest.raises(ConfigError, match="was trained with --backbone small, not vgg16: use the same backbone"):
        train_model(config(tiny_run.folder, backbone="vgg16"))
    with pytest.raises(ConfigError, match="was trained with another input scaling: omit --input_scaling unit"):
        train_model(config(tiny_run.folder, input_scaling="unit"))
    with pytest.raises(ConfigError, match="is the run to be trained"):
        train_model(dataclasses.replace(config(tiny_run.folder), out=tiny_run.folder), overwrite=True)
    shutil.copytree(tiny_run.folder, tmp_path / "without")
    (tmp_path / "without" / "model.keras").unlink()
    with pytest.raises(RunError, match=r"without: has no model\.keras yet: resume its training first"):
        train_model(config(tmp_path / "without"))
    assert not (tmp_path / "run").exists()
    assert open_start(config(Path("none"))) is None
    assert tiny_run.model_path.is_file()


@pytest.mark.parametrize(("changes", "words"), [
    ({"freeze": 1, "weights": "none"}, "random weights would stay random"),
    ({"freeze": 5, "backbone": "convnext_tiny"}, "convnext_tiny has 4 blocks"),
    ({"freeze": 6}, "must be at least 0 and at most 5"),
])  # fmt: skip
def test_blocks_that_cannot_be_frozen_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        TrainConfig("data", **changes)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", backbones.BACKBONES)
def test_the_blocks_of_a_backbone_hold_all_its_weights(backbone: str) -> None:
    if backbone == "small":
        pytest.skip("a backbone of the tests, without blocks")
    count = len(backbones.BACKBONES[backbone].blocks)
    trainable = []
    for frozen in range(count + 1):
        model = build_model(Design(32, backbone, "random"), "none", np.full(37, 0.3), "float32", 0)
        every = len(model.trainable_variables)
        backbones.freeze_blocks(backbone, model, frozen)
        trainable.append(len(model.trainable_variables))
    assert trainable[0] == every and sorted(set(trainable), reverse=True) == trainable
    left = {variable.path.split("/")[-2].rstrip("_0123456789") for variable in model.trainable_variables}
    # ConvNeXt's last normalisation belongs to no block.
    assert left - {"layer_normalization"} == {"fc", "vote_fractions"}, left


@pytest.mark.slow
def test_frozen_blocks_keep_their_weights_and_the_others_learn(plain_dataset: Dataset, tmp_path: Path) -> None:
    shared = {"weights": "none", "learning_rate": 1e-3, "warmup_steps": 0, "epochs": 1, "limit": 16, "batch_size": 8}
    first = train_model(TrainConfig(plain_dataset.folder, tmp_path / "first", **shared))
    second = train_model(
        TrainConfig(plain_dataset.folder, tmp_path / "second", **{**shared, "weights": first.folder, "freeze": 2})
    )
    old, new = _arrays(first), _arrays(second)
    for path, array in old.items():
        assert np.array_equal(array, new[path]) == path.startswith(("block1_", "block2_")), path
    assert all(layer.trainable for layer in second.load_model().layers)
    shutil.rmtree(first.folder)
    shutil.rmtree(second.folder)


def test_transfer_is_exact(tiny_run: Run, plain_dataset: Dataset, tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    config = _warm(tiny_settings, plain_dataset, tiny_run, tmp_path / "run")
    source = open_start(config)
    assert source is not None
    design = config.design(32, plain_dataset.tree, source.scaling)
    model = build_model(design, "none", np.full(37, 0.3), "float32", 0)
    transfer(source, model, design)
    for one, other in zip(model.get_weights(), tiny_run.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
