"""Shards are written by processes that count what they do, stop when told, and never outlive the job."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from preprocess import engines
from preprocess.engines import run_local
from preprocess.shard import ShardTask, write_shard
from tfrecords.errors import GalaxyZooError, SourceError
from tfrecords.images import CropSettings

Make = Callable[..., list[ShardTask]]


@pytest.fixture
def make_tasks(survey: Path, tmp_path: Path) -> Make:
    """A function that gives `count` tasks of 1, 2, 3, ... galaxies."""

    def make(count: int, size: int = 32) -> list[ShardTask]:
        folder, work = tmp_path / "out", tmp_path / "work"
        folder.mkdir(exist_ok=True)
        work.mkdir(exist_ok=True)
        crop = CropSettings(0.5, size, "png", 95)
        tasks = []
        for index in range(count):
            ids = tuple(100_000 + 7 * number for number in range(index + 1))
            paths = tuple(f"images_training_rev1/{galaxy_id}.jpg" for galaxy_id in ids)
            targets = np.zeros((len(ids), 37), np.float32)
            tasks.append(ShardTask(f"shard-{index}", "train", survey, folder, work, ids, paths, targets, crop))
        return tasks

    return make


@pytest.fixture
def as_worker() -> Iterator[Callable[[int], multiprocessing.Value]]:  # type: ignore[valid-type]
    """A function that makes this process a worker, told to stop or not, and gives its counter of images."""
    before = signal.getsignal(signal.SIGINT)

    def start(stop: int) -> multiprocessing.Value:  # type: ignore[valid-type]
        context = multiprocessing.get_context("spawn")
        counter = context.Value("q", 0)
        engines._start_worker(counter, context.Value("b", stop, lock=False))
        return counter

    yield start
    signal.signal(signal.SIGINT, before)
    engines._link = None


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_every_task_gives_the_receipt_of_its_shard_and_every_image_is_counted(make_tasks: Make, workers: int) -> None:
    tasks = make_tasks(4)
    counts: list[int] = []
    receipts = {receipt.shard.name: receipt for receipt in run_local(tasks, workers, counts.append)}
    assert sum(counts) == 1 + 2 + 3 + 4 and min(counts) >= 0
    for task in tasks:
        assert receipts.pop(task.name) == write_shard(task, lambda: None)
    assert not receipts


def test_no_tasks_start_no_process() -> None:
    assert list(run_local([], 4, lambda images: None)) == []
    assert multiprocessing.active_children() == []


def test_what_a_worker_raises_reaches_the_caller_and_stops_the_others(make_tasks: Make) -> None:
    tasks = make_tasks(6, size=300)
    tasks[5] = replace(tasks[5], paths=("training_solutions_rev1.csv",) * 6)  # the longest: it goes first
    with pytest.raises(SourceError, match=r"training_solutions_rev1\.csv: not a readable JPEG or PNG"):
        list(run_local(tasks, 2, lambda images: None))
    assert not list(tasks[0].work.iterdir())
    assert multiprocessing.active_children() == []


def test_a_caller_that_stops_listening_ends_the_workers_without_partial_files(make_tasks: Make) -> None:
    tasks = make_tasks(8, size=300)
    receipts = run_local(tasks, 2, lambda images: None)
    next(receipts)
    receipts.close()  # type: ignore[attr-defined]
    assert not list(tasks[0].work.iterdir())
    assert len(list(tasks[0].folder.iterdir())) < 8
    assert multiprocessing.active_children() == []


def test_a_killed_worker_is_told_with_the_way_out(make_tasks: Make) -> None:
    def kill(images: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(
        GalaxyZooError, match=r"a worker process was killed, .* run the same command again with fewer --workers"
    ):
        list(run_local(make_tasks(8, size=300), 2, kill))
    assert multiprocessing.active_children() == []


def test_a_worker_counts_its_images(make_tasks: Make, as_worker: Callable) -> None:
    counter = as_worker(0)
    engines._work(make_tasks(3)[2])
    assert counter.value == 3


def test_a_worker_that_is_told_to_stop_leaves_nothing(make_tasks: Make, as_worker: Callable) -> None:
    counter = as_worker(1)
    task = make_tasks(3)[2]
    with pytest.raises(engines._Stopped):
        engines._work(task)
    assert counter.value == 1
    assert list(task.folder.iterdir()) == list(task.work.iterdir()) == []


def test_a_worker_leaves_ctrl_c_to_its_parent(as_worker: Callable) -> None:
    as_worker(0)
    os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
