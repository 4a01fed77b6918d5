"""Where shards are written: on this machine's cores."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

from preprocess.shard import Receipt, ShardTask, write_shard
from tfrecords.errors import GalaxyZooError

POLL_SECONDS = 0.1


class _Stopped(Exception):
    """The parent asked the workers to end."""


# A worker's link to its parent. Set once per process by _start_worker, as the executor's own way of passing
# shared memory: it cannot travel with a task.
_link: tuple[Any, Any] | None = None


def _die_with_parent() -> None:
    """End this worker when the parent is gone: a killed job must leave no process behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def guard_worker() -> None:
    """What every worker process does first: leave Ctrl-C to its parent, and end when that is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the work
    threading.Thread(target=_die_with_parent, daemon=True).start()


@contextmanager
def starting_workers() -> Iterator[None]:
    """Hold back Ctrl-C while the block starts workers: they inherit that, and so do not see it before guard_worker."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(images_done: Any, stop: Any) -> None:
    global _link
    _link = (images_done, stop)
    guard_worker()


def worker_killed() -> GalaxyZooError:
    """The error for a worker that ended without a word."""
    return GalaxyZooError(
        "a worker process was killed, most likely for lack of memory: run the same command again with fewer --workers"
    )


def _work(task: ShardTask) -> Receipt:
    assert _link is not None
    images_done, stop = _link

    def on_image() -> None:
        with images_done.get_lock():
            images_done.value += 1
        if stop.value:
            raise _Stopped

    return write_shard(task, on_image)


def run_local(tasks: Sequence[ShardTask], workers: int, on_images: Callable[[int], None]) -> Iterator[Receipt]:
    """Write the shards with `workers` processes; yields each receipt as soon as its shard is complete.

    `on_images` is told several times a second how many more images were written. The processes are spawned, not
    forked: they carry nothing of the parent's memory, and the longest shards go first. Raises what a worker
    raised, and GalaxyZooError where a worker died.
    """
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")
    images_done = context.Value("q", 0)
    stop = context.Value("b", 0, lock=False)
    workers = min(workers, len(tasks))
    reported = 0
    executor = ProcessPoolExecutor(workers, context, _start_worker, (images_done, stop))
    try:
        longest_first = sorted(tasks, key=lambda task: -len(task.galaxy_ids))
        with starting_workers():
            pending: set[Future[Receipt]] = {executor.submit(_work, task) for task in longest_first}
        while pending:
            done, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
            so_far = images_done.get_obj().value  # without its lock, which a killed worker may have kept
            on_images(so_far - reported)
            reported = so_far
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise worker_killed() from error
    finally:
        stop.value = 1
        executor.shutdown(wait=True, cancel_futures=True)
