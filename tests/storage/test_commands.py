"""Commands read a dataset from a store as they read it from a folder."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess import verify_dataset
from preprocess.job import BuildSettings, build_dataset
from tests.storage import servers
from tests.trainer import small
from tfrecords.dataset import Dataset
from tfrecords.integrity import check_shards
from tfrecords.objects import Store
from tfrecords.storage import open_anywhere
from trainer.config import TrainConfig
from trainer.run import Run
from trainer.train import train_model

small.register()


@pytest.fixture(scope="module")
def dataset(
    make_survey: Callable[..., Path], build_settings: Callable[..., BuildSettings], tmp_path_factory: pytest.TempPathFactory
) -> Dataset:
    """A dataset with galaxies in all four splits."""
    folder = tmp_path_factory.mktemp("commands")
    survey = make_survey(folder / "survey", labelled=48, unlabelled=5, side=40, seed=2)
    return build_dataset(survey, folder / "data", build_settings(seed=3, encoding="jpeg")).dataset


@pytest.fixture
def url(store_url: str, dataset: Dataset) -> str:
    servers.copy_into(dataset.folder, store_url)
    return store_url


def _config(where: str | Path, out: Path, cache: Path, **more: Any) -> TrainConfig:
    settings: dict[str, Any] = {"backbone": small.SMALL, "weights": "none", "epochs": 2, "batch_size": 8, "warmup_steps": 2}
    return TrainConfig(where, out, cache_dir=cache, **{**settings, **more})


def _train(config: TrainConfig) -> tuple[Run, str]:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        return train_model(config), printed.getvalue()


@pytest.mark.slow
def test_a_run_from_a_store_is_that_from_a_folder_and_resumes_on_another_machine(
    url: str, dataset: Dataset, tmp_path: Path, cache: Path
) -> None:
    local, _ = _train(_config(dataset.folder, tmp_path / "local", cache))
    assert not cache.exists()
    run, _ = _train(_config(url, tmp_path / "run", cache))
    for name in ("predictions-test.csv", "tree.toml"):
        assert run.path(name).read_bytes() == local.path(name).read_bytes()
    assert [row.val_mse for row in run.history()] == [row.val_mse for row in local.history()]
    config = json.loads(run.path("config.json").read_text("utf-8"))
    assert config["dataset"]["folder"] == url
    assert servers.secret(servers.WRITER) not in "".join(
        path.read_text("utf-8", "replace") for path in run.folder.rglob("*") if path.is_file()
    )
    # The same command again, by another machine, whose cache is empty.
    _, printed = _train(_config(url, tmp_path / "run", cache.with_name("another")))
    assert "training is complete after 2 epochs" in printed
    _follow(run, local, url, dataset, tmp_path)


def _follow(run: Run, local: Run, url: str, dataset: Dataset, tmp_path: Path) -> None:
    """Predictions of a split, with a cache of their own: they fetch no other."""
    from trainer.streaming import tabulate_split

    predicted = open_anywhere(url, tmp_path / "predicted")
    tabulate_split([run], predicted, "unlabelled", tmp_path / "stored.csv")
    tabulate_split([local], dataset, "unlabelled", tmp_path / "local.csv")
    assert (tmp_path / "stored.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()
    fetched = {path.name for path in predicted.folder.glob("*.tfrecord-*")}
    assert fetched == {shard.name for shard in dataset.shards if shard.split == "unlabelled"}


def test_whatever_reads_a_split_fetches_it(url: str, dataset: Dataset, cache: Path) -> None:
    from tfrecords.reader import cutouts, votes_of

    stored = open_anywhere(url, cache)
    votes = votes_of(stored, "validation", 1)
    assert (votes.targets == votes_of(dataset, "validation", 1).targets).all()
    fetched = {path.name for path in stored.folder.glob("*.tfrecord-*")}
    assert fetched == {next(shard.name for shard in dataset.shards if shard.split == "validation")}
    [galaxy] = votes.galaxy_ids.tolist()
    assert (cutouts(stored, "validation", [galaxy])[galaxy] == cutouts(dataset, "validation", [galaxy])[galaxy]).all()


def test_the_commands_accept_urls_and_a_cache() -> None:
    from tests.test_documents import parse

    galaxies = ("predict --run r --out o.csv", "embed --run r --out o.parquet", "similar --run r --to 1 --out o")
    for command in ("", "evaluate --run r", "compare --run r --out o", "explore --out o", "benchmark", *galaxies):
        words = f"trainer {command} --tfrecords s3://bucket/data --cache_dir here".split()
        _, _, args = parse(words)
        assert (args.tfrecords, args.cache_dir) == ("s3://bucket/data", Path("here"))


@pytest.mark.slow
def test_verify_names_what_is_wrong_in_a_store(url: str, dataset: Dataset, cache: Path) -> None:
    assert verify_dataset(url, cache_dir=cache).findings == ()
    store = Store(url)
    store.write("notes.txt", b"ours")
    store.write(".preprocess/receipts/x.json", b"{}")
    check_shards(open_anywhere(url, cache), dataset.shards)  # intact copies in the cache hide nothing
    [work, notes] = verify_dataset(url, cache_dir=cache).findings
    assert (work.where, notes.where) == (".preprocess", "notes.txt")
    shard = dataset.shards[-1]
    store.write(shard.name, store.read(shard.name)[:-1] + b"\0")
    report = verify_dataset(url, cache_dir=cache)
    assert [(finding.level, finding.where) for finding in report.findings] == [("error", shard.name)]
    assert report.findings[0].what.startswith("differs from the shard that preprocess wrote")
    assert [path.name for path in cache.iterdir()] == [dataset.fingerprint]
