"""Datasets in an object store are read through a cache: nothing differs from a local one, and every failure is one line."""

import errno
import logging
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tfrecords import storage
from tfrecords.dataset import DATASET_INFO, MANIFEST, Dataset, open_dataset
from tfrecords.errors import ConfigError, DatasetError
from tfrecords.integrity import check_shards, read_shards
from tfrecords.objects import Store
from tfrecords.outputs import PRIVATE
from tfrecords.storage import open_anywhere


def _copies(cache: Path, dataset: Dataset) -> set[str]:
    return {path.name for path in (cache / dataset.fingerprint).iterdir()} - {PRIVATE}


def test_a_dataset_is_the_same_from_a_store_and_shards_follow_when_they_are_read(
    stored: str, small_dataset: Dataset, cache: Path
) -> None:
    dataset = open_anywhere(stored, cache)
    assert replace(dataset, folder=small_dataset.folder, url="") == small_dataset
    assert _copies(cache, dataset) == {MANIFEST, *small_dataset.files}
    check_shards(dataset, read_shards(dataset, "test"))
    test = {shard.name for shard in dataset.shards if shard.split == "test"}
    assert _copies(cache, dataset) == {MANIFEST, *small_dataset.files, *test}
    check_shards(dataset, dataset.shards)
    assert replace(open_dataset(dataset.folder), folder=small_dataset.folder) == small_dataset


def test_no_more_shards_are_fetched_than_a_limit_needs(stored: str, cache: Path) -> None:
    dataset = open_anywhere(stored, cache)
    shards = read_shards(dataset, "train", 9)
    assert 0 < len(shards) < len(read_shards(dataset, "train"))
    check_shards(dataset, shards)
    assert {name for name in _copies(cache, dataset) if "tfrecord" in name} == {shard.name for shard in shards}


def test_a_local_folder_is_opened_as_it_is(small_dataset: Dataset, cache: Path) -> None:
    assert open_anywhere(small_dataset.folder, cache) == small_dataset
    assert not cache.exists()


def _fetched(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards that a command fetches now."""
    names: list[str] = []
    chunks = Store.chunks

    def counted(self: Store, name: str) -> Any:
        names.append(name)
        return chunks(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "chunks", counted)
        check_shards(dataset, dataset.shards)
    return names


def test_a_flipped_byte_in_the_cache_is_noticed_and_the_shard_fetched_again(
    stored: str, small_dataset: Dataset, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_anywhere(stored, cache)
    assert len(_fetched(dataset, monkeypatch)) == len(dataset.shards)
    assert _fetched(open_anywhere(stored, cache), monkeypatch) == []
    name = dataset.shards[0].name
    content = bytearray((dataset.folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (dataset.folder / name).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert _fetched(open_anywhere(stored, cache), monkeypatch) == [name]
    assert "has changed since it was fetched" in caplog.text and name in caplog.text
    assert (dataset.folder / name).read_bytes() == (small_dataset.folder / name).read_bytes()


def test_a_copy_without_its_time_is_hashed_and_kept(stored: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_anywhere(stored, cache)
    check_shards(dataset, dataset.shards)
    for shard in dataset.shards:
        os.utime(dataset.folder / shard.name)
    assert _fetched(dataset, monkeypatch) == []


def test_a_changed_small_file_in_the_cache_is_fetched_again(stored: str, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = open_anywhere(stored, cache)
    (dataset.folder / DATASET_INFO).write_text("{}")
    with caplog.at_level(logging.WARNING):
        assert open_anywhere(stored, cache) == dataset
    assert f"{DATASET_INFO}: has changed" in caplog.text
    assert open_anywhere(stored, cache).files[DATASET_INFO] == dataset.files[DATASET_INFO]


def test_a_changed_shard_of_the_store_is_refused_and_never_kept(stored: str, cache: Path) -> None:
    dataset = open_anywhere(stored, cache)
    shard = dataset.shards[0]
    content = bytearray(Store(stored).read(shard.name))
    content[-1] ^= 1
    Store(stored).write(shard.name, bytes(content))
    with pytest.raises(DatasetError, match=rf"^{stored}/{shard.name}: differs from the shard"):
        check_shards(dataset, [shard])
    Store(stored).remove([shard.name])
    with pytest.raises(DatasetError, match=rf"^{stored}/{shard.name}: this shard is missing"):
        check_shards(dataset, [shard])
    assert _copies(cache, dataset) == {MANIFEST, *dataset.files}
    assert not list((dataset.folder / PRIVATE).glob(".*"))


def test_an_edited_manifest_of_the_store_is_refused(stored: str, cache: Path) -> None:
    text = Store(stored).read(MANIFEST).decode()
    Store(stored).write(MANIFEST, text.replace('"seed": 1', '"seed": 2').encode())
    with pytest.raises(DatasetError, match=rf"^{stored}/manifest.json: has been edited"):
        open_anywhere(stored, cache)


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", ".hidden", "a/b"])
def test_a_manifest_that_lists_files_elsewhere_writes_nothing_there(
    stored: str, small_dataset: Dataset, cache: Path, name: str
) -> None:
    from tfrecords.dataset import manifest_json

    changed = replace(small_dataset, files={**small_dataset.files, name: "0" * 64})
    text = manifest_json(changed.settings, changed.source, changed.tool, changed.shards, changed.files, changed.targets)
    Store(stored).write(MANIFEST, text.encode())
    with pytest.raises(DatasetError, match="no file of a dataset"):
        open_anywhere(stored, cache)
    assert list(cache.iterdir()) == []


def _read_everything(url: str, cache: Path, start: Any) -> None:
    start.wait()
    dataset = open_anywhere(url, cache)
    check_shards(dataset, dataset.shards)


@pytest.mark.slow
def test_several_processes_fill_one_cache(stored: str, small_dataset: Dataset, cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    processes = [context.Process(target=_read_everything, args=(stored, cache, start)) for _ in range(3)]
    for process in processes:
        process.start()
    time.sleep(1)
    start.set()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert replace(open_dataset(cache / small_dataset.fingerprint), folder=small_dataset.folder) == small_dataset
    assert not list((cache / small_dataset.fingerprint / PRIVATE).glob(".*"))


def test_remains_of_a_killed_process_are_removed_once_nobody_writes_them(stored: str, cache: Path) -> None:
    dataset = open_anywhere(stored, cache)
    private = dataset.folder / PRIVATE
    for name, age in ((".old.partial", 7200), (".new.partial", 5)):
        (private / name).write_bytes(b"x")
        os.utime(private / name, (time.time() - age,) * 2)
    check_shards(dataset, dataset.shards)
    assert [path.name for path in private.glob(".*")] == [".new.partial"]


def test_a_full_disk_is_seen_before_anything_is_fetched(stored: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_anywhere(stored, cache)
    usage = storage.shutil.disk_usage(cache)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ConfigError, match=r"need .* GB, but the disk has 0\.0 GB: .*--cache_dir"):
        check_shards(dataset, dataset.shards)


def test_a_disk_that_fills_up_while_a_shard_is_fetched_leaves_nothing(
    stored: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_anywhere(stored, cache)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match=r"tfrecord.*: the disk is full: free space, or choose another --cache_dir"):
            check_shards(dataset, dataset.shards)
    assert not [*dataset.folder.glob("*.tfrecord-*"), *(dataset.folder / PRIVATE).glob(".*")]
    check_shards(dataset, dataset.shards)
