"""Worker processes count their images, stop when told, and never outlive the job.

A task is made only when one of them is about to be free for it.
"""

import errno
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import synchronize
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess import engines, sources
from preprocess.engines import run_local
from preprocess.shard import Receipt, ShardTask, write_shard
from tfrecords.builtin import builtin_tree
from tfrecords.errors import ConfigError, GalaxyZooError, SourceError
from tfrecords.images import CropSettings

# Enlarging 24 crops to this takes a second or more: far longer than a worker runs between checks for a stop.
SLOW = 1500
Make = Callable[..., Iterator[ShardTask]]


@pytest.fixture
def make_tasks(survey: Path, tmp_path: Path) -> Make:
    """A function that yields endless tasks: make_tasks(galaxies=(1, 2, 3), size=32) has 1, 2, 3, 1, 2, ... galaxies."""
    for name in ("out", "work", "scratch"):
        (tmp_path / name).mkdir()

    def make(galaxies: tuple[int, ...] = (1,), size: int = 32, source: Path = survey) -> Iterator[ShardTask]:
        images = sources.find_source(source, tmp_path / "scratch").images
        crop = CropSettings(0.5, size, "png", 95)
        for index, count in enumerate(itertools.cycle(galaxies)):
            listed, targets = images.part(np.arange(count)), np.zeros((count, 37), np.float32)
            where, votes = (tmp_path / "out", tmp_path / "work"), (targets, None, builtin_tree())
            yield ShardTask(f"shard-{index}", "train", listed, *votes, *where, crop, skip_bad=False)

    return make


@pytest.fixture
def unreadable(tmp_path: Path) -> Path:
    """A survey whose only file is not an image."""
    folder = tmp_path / "unreadable"
    folder.mkdir()
    (folder / "100000.jpg").write_bytes(b"GalaxyID,Class1.1\n")
    return folder


@pytest.fixture
def as_worker() -> Iterator[Callable[[int], Any]]:
    """A function that makes this process a worker, told to stop or not, and returns its counter of images."""
    before = signal.getsignal(signal.SIGINT)

    def start(stop: int) -> Any:
        context = multiprocessing.get_context("spawn")
        counter = context.Value("q", 0)
        engines._start_worker(counter, context.Value("b", stop, lock=False))
        return counter

    yield start
    signal.signal(signal.SIGINT, before)
    engines._link = None


def _ignore(images: int) -> None:
    pass


def _assert_nothing_goes_on(tmp_path: Path) -> None:
    assert list((tmp_path / "work").iterdir()) == []
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_task_gives_the_receipt_of_its_shard_and_every_image_is_counted(
    make_tasks: Make, tmp_path: Path, workers: int
) -> None:
    tasks = list(itertools.islice(make_tasks((1, 2, 3, 4)), 4))
    counts: list[int] = []
    receipts = {receipt.shard.name: receipt for receipt in run_local(write_shard, tasks, workers, counts.append)}
    assert sum(counts) == 1 + 2 + 3 + 4 and min(counts) >= 0
    for task in tasks:
        assert receipts.pop(task.name) == write_shard(task, lambda: None)
    assert not receipts
    _assert_nothing_goes_on(tmp_path)


def test_many_small_tasks_are_counted_to_the_last_image(make_tasks: Make) -> None:
    counts: list[int] = []
    images = 0
    for receipt in run_local(write_shard, itertools.islice(make_tasks((1, 3, 0, 2)), 120), 2, counts.append):
        images += receipt.shard.examples
    assert sum(counts) == images == 30 * (1 + 3 + 0 + 2)
    assert min(counts) >= 0


@pytest.mark.slow
def test_a_long_task_is_counted_while_it_runs(make_tasks: Make) -> None:
    counts: list[int] = []
    assert len(list(run_local(write_shard, itertools.islice(make_tasks((12,), SLOW), 1), 1, counts.append))) == 1
    assert sum(counts) == 12
    assert len([count for count in counts if count]) > 1


def test_no_tasks_start_no_process() -> None:
    nothing: list[ShardTask] = []
    for tasks in (nothing, iter(nothing)):
        assert list(run_local(write_shard, tasks, 4, _ignore)) == []
        assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_is_made_only_when_a_worker_is_about_to_be_free(make_tasks: Make, tmp_path: Path, workers: int) -> None:
    made: list[int] = []
    received: list[Receipt] = []

    def tasks() -> Iterator[ShardTask]:
        for task in make_tasks():  # endless
            made.append(len(received))
            assert len(made) - len(received) <= workers + 1
            yield task

    results = run_local(write_shard, tasks(), workers, _ignore)
    assert made == []
    for receipt in results:
        received.append(receipt)
        if len(received) == 30:
            break
    results.close()  # type: ignore[attr-defined]
    assert 30 <= len(made) <= 30 + workers + 1
    _assert_nothing_goes_on(tmp_path)


def test_what_the_tasks_iterator_raises_reaches_the_caller_and_ends_the_workers(make_tasks: Make, tmp_path: Path) -> None:
    def tasks() -> Iterator[ShardTask]:
        yield from itertools.islice(make_tasks(size=SLOW), 4)
        raise SourceError("the table of votes is gone")

    with pytest.raises(SourceError, match="the table of votes is gone"):
        list(run_local(write_shard, tasks(), 2, _ignore))
    _assert_nothing_goes_on(tmp_path)


def test_what_a_worker_raises_reaches_the_caller_and_stops_the_others(
    make_tasks: Make, unreadable: Path, tmp_path: Path
) -> None:
    """The tasks are long and endless: without an error this would never return."""
    bad = replace(next(make_tasks(source=unreadable)), name="bad")
    tasks = itertools.chain(itertools.islice(make_tasks((24,), SLOW), 1), [bad], make_tasks((24,), SLOW))
    with pytest.raises(SourceError, match=r"100000\.jpg: is a text, not an image"):
        list(run_local(write_shard, tasks, 2, _ignore))
    assert list((tmp_path / "out").iterdir()) == []
    _assert_nothing_goes_on(tmp_path)


def test_a_caller_that_stops_listening_ends_the_workers_without_partial_files(make_tasks: Make, tmp_path: Path) -> None:
    receipts = run_local(write_shard, make_tasks((1, 24), SLOW), 2, _ignore)
    assert next(receipts).shard.name == "shard-0"
    receipts.close()  # type: ignore[attr-defined]
    assert len(list((tmp_path / "out").iterdir())) < 3
    _assert_nothing_goes_on(tmp_path)


def test_an_error_in_the_callers_progress_ends_the_workers(make_tasks: Make, tmp_path: Path) -> None:
    def stop(images: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_local(write_shard, make_tasks((24,), SLOW), 2, stop))
    assert list((tmp_path / "out").iterdir()) == []
    _assert_nothing_goes_on(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_told_with_the_way_out(make_tasks: Make, workers: int) -> None:
    def kill(images: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(
        GalaxyZooError, match=r"a worker process was killed, .* run the same command again with fewer --workers"
    ):
        list(run_local(write_shard, make_tasks((24,), SLOW), workers, kill))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_without_shared_memory_one_worker_is_this_process_and_several_are_refused(
    make_tasks: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_semaphore(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(synchronize._multiprocessing, "SemLock", no_semaphore)  # type: ignore[attr-defined]
    counts: list[int] = []
    receipts = list(run_local(write_shard, itertools.islice(make_tasks((3, 2)), 2), 1, counts.append))
    assert [receipt.shard.examples for receipt in receipts] == [3, 2] and sum(counts) == 5
    what = rf"no memory that processes can share \({os.strerror(number)}\): free /dev/shm, .* or use --workers 1"
    with pytest.raises(ConfigError, match=what):
        list(run_local(write_shard, make_tasks((3,)), 2, counts.append))
    _assert_nothing_goes_on(tmp_path)


def test_a_worker_counts_its_images(make_tasks: Make, as_worker: Callable[[int], Any]) -> None:
    counter = as_worker(0)
    task = next(make_tasks((3,)))
    assert engines._run(write_shard, task) == write_shard(task, lambda: None)
    assert counter.value == 3


def test_a_worker_that_is_told_to_stop_does_not_finish_its_shard_and_leaves_nothing(
    make_tasks: Make, as_worker: Callable[[int], Any], tmp_path: Path
) -> None:
    counter = as_worker(1)
    with pytest.raises(engines._Stopped):
        engines._run(write_shard, next(make_tasks((24,), SLOW)))
    assert 0 < counter.value < 24
    assert list((tmp_path / "out").iterdir()) == []
    _assert_nothing_goes_on(tmp_path)


def test_a_worker_leaves_ctrl_c_to_its_parent(as_worker: Callable[[int], Any]) -> None:
    as_worker(0)
    os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_ctrl_c_while_workers_start_reaches_the_caller_afterwards() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), engines.starting_workers():
        # To the main thread, as in a process of one thread: pytest-xdist has others, and the system may choose any.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        reached = True
    assert reached
