"""What a run reports is true of its current model, and exceptions of TensorFlow become one line."""

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preprocess.job import BuildSettings, build_dataset
from tests.tfrecords.earlier import with_table_of_names
from tfrecords import integrity
from tfrecords.dataset import Dataset, open_dataset, to_json
from tfrecords.errors import DatasetError, RunError
from trainer.config import TrainConfig
from trainer.evaluate import evaluate_run, is_current, record_run
from trainer.explore import explore_dataset
from trainer.predict import predict_split
from trainer.run import OWN, Run, open_run
from trainer.train import train_model


@pytest.fixture
def copied(tiny_run: Run, tmp_path: Path) -> Run:
    """A copy of the tiny run without its checkpoint, for tests that change it."""
    shutil.copytree(tiny_run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint", "tensorboard"))
    return Run(tmp_path / "run", tiny_run.config)


@pytest.mark.slow
def test_metrics_of_an_earlier_model_or_another_dataset_do_not_count(
    copied: Run, plain_dataset: Dataset, make_dataset: Callable[..., Dataset]
) -> None:
    assert is_current(copied, plain_dataset)
    path = copied.path(OWN.metrics)
    content: dict[str, Any] = json.loads(path.read_text())
    copied.output.write({OWN.metrics: json.dumps({**content, "model": "0" * 64}).encode()})
    assert not is_current(copied, plain_dataset)
    record_run(copied, plain_dataset)
    assert is_current(copied, plain_dataset)
    assert not is_current(copied, make_dataset(seed=1))
    path.write_text(path.read_text().replace("0.", "0.0", 1))
    assert not is_current(copied, plain_dataset)
    path.unlink()
    assert not is_current(copied, plain_dataset)


def test_another_model_in_place_of_the_runs_own_is_refused(copied: Run, plain_dataset: Dataset) -> None:
    model = bytearray(copied.model_path.read_bytes())
    model[len(model) // 2] ^= 1
    copied.model_path.write_bytes(model)
    for use in (lambda: predict_split(copied, plain_dataset, "test"), lambda: evaluate_run(copied, plain_dataset, "train")):
        with pytest.raises(RunError, match=r"model\.keras: has changed since it was written: restore the model of this run"):
            use()


@pytest.mark.parametrize("name", ["settings", "dataset"])
def test_a_config_that_was_edited_is_refused(copied: Run, name: str) -> None:
    path = copied.folder / "config.json"
    content = json.loads(path.read_text())
    content[name] |= {"head": "tree"} if name == "settings" else {"crop_fraction": 0.25}
    path.write_text(to_json(content))
    with pytest.raises(RunError, match=r"config\.json: not the intact config\.json of a run \(it has changed since"):
        open_run(copied.folder)


def _swap(dataset: Dataset, split: str) -> Path:
    """Swap two shards of a split that have the same size; return the first."""
    shards = [shard for shard in dataset.shards if shard.split == split]
    first, second = next(
        (one, other)
        for one, other in itertools.combinations(shards, 2)
        if (one.bytes, one.examples) == (other.bytes, other.examples)
    )
    one, other = dataset.folder / first.name, dataset.folder / second.name
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    return one


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "explore"])
def test_shards_of_equal_size_that_were_swapped_are_noticed(
    command: str, make_dataset: Callable[..., Dataset], tiny_run: Run, copied: Run, tmp_path: Path
) -> None:
    dataset = make_dataset(encoding="raw", examples_per_shard=4)
    split = "test" if command in ("predict", "evaluate") else "train"
    swapped = _swap(dataset, split)
    uses: dict[str, Callable[[], object]] = {
        "train": lambda: train_model(TrainConfig(dataset.folder, tmp_path / "new", weights="none")),
        "predict": lambda: predict_split(tiny_run, dataset, split),
        "evaluate": lambda: evaluate_run(copied, dataset, split),
        "explore": lambda: explore_dataset(dataset, tmp_path / "page"),
    }
    with pytest.raises(DatasetError, match=f"{swapped.name}: differs from the shard that preprocess wrote: move it elsewhere"):
        uses[command]()
    assert not (tmp_path / "new").exists() and not (tmp_path / "page").exists()


@pytest.mark.parametrize("name", ["names.csv", "rejected.csv", "features.json", "dataset_info.json"])
def test_whatever_the_manifest_hashes_is_checked_before_it_is_used(
    name: str, survey: Path, build_settings: Callable[..., BuildSettings], tmp_path: Path
) -> None:
    images = Path(shutil.copytree(survey / "images_test_rev1", tmp_path / "galaxies"))
    dataset = build_dataset(images, tmp_path / "now", build_settings()).dataset
    folder = with_table_of_names(dataset, tmp_path / "data", {900_000: "NGC 4321.jpg"}).folder
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace("NGC 4321", "NGC 1234").replace("900011", "900012") + "\n")
    with pytest.raises(DatasetError, match=f"{name}: has changed since it was written: move it elsewhere, and build"):
        open_dataset(folder)
    (folder / name).unlink()
    with pytest.raises(DatasetError, match=rf"{name}: is missing: build the dataset again|not a finished .*{name} is missing"):
        open_dataset(folder)


def test_a_shard_is_hashed_again_only_when_it_has_changed(
    make_dataset: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset()
    hashed: list[str] = []

    def sha256_file(path: Path) -> str:
        hashed.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(integrity, "sha256_file", sha256_file)
    shards = [shard for shard in dataset.shards if shard.split == "train"]
    checked = integrity.check_shards(dataset, shards)
    assert sorted(hashed) == [shard.name for shard in shards]
    assert integrity.check_shards(dataset, shards, checked) == checked and len(hashed) == len(shards)
    path = dataset.folder / shards[0].name
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)  # the same bytes, but only a hash can tell
    integrity.check_shards(dataset, shards, checked)
    assert hashed[len(shards) :] == [shards[0].name]


def test_a_run_remembers_the_shards_that_it_has_hashed(tiny_run: Run, plain_dataset: Dataset) -> None:
    read = {shard.name for shard in plain_dataset.shards if shard.split != "unlabelled"}
    assert tiny_run.checked_shards().keys() == read
    other = replace(tiny_run, config={**tiny_run.config, "dataset": {**tiny_run.config["dataset"], "fingerprint": "0"}})
    assert other.checked_shards() == {}


def test_a_limit_hashes_no_more_shards_than_are_read(make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset(examples_per_shard=8)
    names = [shard.name for shard in dataset.shards if shard.split == "train"]
    assert [shard.name for shard in integrity.read_shards(dataset, "train", 9)] == names[:2]
    assert [shard.name for shard in integrity.read_shards(dataset, "train")] == names


def test_a_damaged_shard_is_one_error_with_the_way_out(
    tiny_run: Run, make_dataset: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it is damaged after it was hashed."""
    dataset = make_dataset()
    shard = dataset.paths("test")[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DatasetError, match=r"differs from the shard that preprocess wrote: move it elsewhere, and build the"):
        predict_split(tiny_run, dataset, "test")
    monkeypatch.setattr("trainer.blocks.check_shards", lambda *_: {})
    with pytest.raises(DatasetError, match=r"a shard is damaged .*: build the dataset again with --overwrite"):
        predict_split(tiny_run, dataset, "test")
