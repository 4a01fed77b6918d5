"""Files of a dataset or a run whose hashes are right are refused all the same if they hold odd names, numbers or models."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tfrecords.dataset import Dataset, open_dataset, sha256_text, to_json
from tfrecords.errors import DatasetError, RunError
from trainer.run import Run, open_run
from trainer.sealing import seal, unseal


@pytest.fixture
def copy(plain_dataset: Dataset, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain_dataset.folder, tmp_path / "data"))


def _signed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest, and give it its right hash."""
    content = json.loads((folder / "manifest.json").read_text())
    del content["sha256"]
    change(content)
    (folder / "manifest.json").write_text(to_json({**content, "sha256": sha256_text(to_json(content))}))


def _shard(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["shards"][0].update(values)


def _setting(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["settings"].update(values)


NAME = "galaxy_zoo-train.tfrecord-00000-of-00001"
CHANGES = {
    "a shard above": _shard(name=f"../{NAME}"),
    "a shard elsewhere": _shard(name=f"/tmp/{NAME}"),
    "a shard below": _shard(name=f"below/{NAME}"),
    "another file as shard": _shard(name="manifest.json"),
    "a name that is no text": _shard(name=7),
    "a shard of another split": _shard(split="test"),
    "an unknown split": _shard(split="../train"),
    "fewer galaxies than none": _shard(examples=-1),
    "half a galaxy": _shard(examples=0.5),
    "true galaxies": _shard(examples=True),
    "bytes as text": _shard(bytes="12"),
    "no hash": _shard(sha256="x"),
    "an argument more": _shard(extra=1),
    "shards that are none": lambda content: content.update(shards=[1]),
    "shards as text": lambda content: content.update(shards="abc"),
    "a shard twice": lambda content: content["shards"].append(content["shards"][0]),
    "a file above": lambda content: content["files"].update({"../tree.toml": "0" * 64}),
    "a file elsewhere": lambda content: content["files"].update({"/etc/passwd": "0" * 64}),
    "a file's hash": lambda content: content["files"].update({"tree.toml": 1}),
    "files as a list": lambda content: content.update(files=[]),
    "no size": lambda content: content["settings"].pop("size"),
    "a size of nothing": _setting(size=0),
    "an endless size": _setting(size=10**9),
    "a size as text": _setting(size="32"),
    "a fraction above one": _setting(crop_fraction=1.5),
    "a fraction without end": _setting(crop_fraction=10**400),
    "a fraction that is no number": _setting(crop_fraction=None),
    "an unknown encoding": _setting(encoding="gif"),
    "a stretch of nothing": _setting(fits_stretch=0, fits_q=10.0),
    "settings as a list": lambda content: content.update(settings=[]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_signed_manifest_with_odd_values_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], object], copy: Path
) -> None:
    _signed(copy, change)
    with pytest.raises(DatasetError, match=r"manifest\.json: not a complete manifest of preprocess \(.+\): build") as caught:
        open_dataset(copy)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_manifest_that_is_signed_again_without_a_change_is_read(copy: Path, plain_dataset: Dataset) -> None:
    _signed(copy, lambda content: None)
    assert open_dataset(copy).fingerprint == plain_dataset.fingerprint


@pytest.fixture
def run(tiny_run: Run, tmp_path: Path) -> Run:
    """A copy of a run to change; without its marker, as somebody else would send it."""
    shutil.copytree(tiny_run.folder, tmp_path / "run", ignore=shutil.ignore_patterns(".galaxy-zoo", "evaluations", "report"))
    return open_run(tmp_path / "run")


def _sealed(run: Run, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the config.json of a run, and give it its right hash."""
    path = run.folder / "config.json"
    content = unseal(path.read_text())
    change(content)
    path.write_text(seal(content))


def _of_dataset(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["dataset"].update(values)


CONFIGS = {
    "an endless size": _of_dataset(size=10**9),
    "a size as text": _of_dataset(size="32"),
    "a fraction above one": _of_dataset(crop_fraction=2),
    "a fingerprint that is no text": _of_dataset(fingerprint=1),
    "galaxies of an unknown split": _of_dataset(galaxies={"../train": 1}),
    "galaxies that are none": _of_dataset(galaxies={"train": -1}),
    "galaxies as a list": _of_dataset(galaxies=[1]),
    "a stretch of nothing": _of_dataset(fits_stretch=0, fits_q=10),
    "an unknown head": lambda content: content["settings"].update(head="hydra"),
    "settings as a list": lambda content: content.update(settings=[]),
    "a radius of one end": lambda content: content.update(half_light_radius=[1.0]),
    "a radius of text": lambda content: content.update(half_light_radius=["a", "b"]),
    "a falling radius": lambda content: content.update(half_light_radius=[2.0, 1.0]),
    "brightness as a list": lambda content: content.update(brightness=[1]),
    "brightness without end": lambda content: content.update(brightness={"median": [0.0, 1.0, float("inf")]}),
}


@pytest.mark.parametrize("change", CONFIGS.values(), ids=CONFIGS)
def test_a_sealed_description_with_odd_values_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], object], run: Run
) -> None:
    _sealed(run, change)
    with pytest.raises(RunError, match=r"config\.json: not the intact config\.json of a run \(.+\): restore it") as caught:
        open_run(run.folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_an_unknown_backbone_is_named(run: Run) -> None:
    _sealed(run, lambda content: content["settings"].update(backbone="vgg99"))
    with pytest.raises(RunError, match=r"config\.json: unknown backbone 'vgg99': use the version that trained this run"):
        assert open_run(run.folder).backbone


def _model(size: int, channels: int, outputs: int) -> Any:
    from keras import Sequential, layers

    dense = layers.Dense(outputs)
    return Sequential([layers.Input((size, size, channels)), layers.GlobalAveragePooling2D(), dense])


@pytest.mark.parametrize(("channels", "more"), [(3, -36), (3, -1), (3, 1), (1, 0)])
def test_a_model_of_other_outputs_or_images_is_refused_and_not_stretched(channels: int, more: int, run: Run) -> None:
    size, outputs = run.config["dataset"]["size"], len(run.tree.columns)
    _model(size, channels, outputs + more).save(run.model_path)
    with pytest.raises(RunError, match=r"model\.keras: cannot be loaded \(images and outputs are .*\): train again") as caught:
        run.load_model()
    assert "\n" not in str(caught.value)


def test_a_model_of_the_same_shapes_is_loaded(run: Run) -> None:
    _model(run.config["dataset"]["size"], 3, len(run.tree.columns)).save(run.model_path)
    assert run.load_model().output_shape == (None, len(run.tree.columns))


def test_another_line_end_in_a_signed_file_is_noticed(run: Run, copy: Path) -> None:
    for path, opened in ((copy / "manifest.json", open_dataset), (run.folder / "config.json", open_run)):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n", 1))
        with pytest.raises((DatasetError, RunError), match=r"edited|not the intact"):
            opened(path.parent)
