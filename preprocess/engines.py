"""Engines that run the work on shards: this machine's cores, or a Dask cluster."""

import ctypes
import itertools
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any, TypeVar

from tfrecords.children import safe_children
from tfrecords.errors import ConfigError, GalaxyZooError, install_extra
from tfrecords.files import leave_warnings_to_parent

POLL_SECONDS = 0.1
_DASK_SECONDS = 10
_WORKERS_SECONDS = 60  # within which a cluster without workers must get one
_TASKS_AHEAD = 16  # beyond those that can run; each may hold some MB
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
log = logging.getLogger("preprocess")
Task = TypeVar("Task")
Done = TypeVar("Done")
# Work on a shard: it calls its second argument after each image.
Work = Callable[[Task, Callable[[], None]], Done]


class _Stopped(Exception):
    """The parent asked the workers to end."""


# A worker's link to its parent, set once per process by _start_worker: the executor can pass shared memory to a process
# only when that starts, not with a task.
_link: tuple[Any, Any] | None = None


def _die_with_parent() -> None:
    """End this worker when the parent is gone: a killed job must leave no process behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _keep_freed_memory() -> None:
    """Make glibc keep what a codec frees, up to 32 MB, for the next image instead of returning it to the system.

    The system zeroes every page before it hands it out again: lossless crops took 2 to 3 times as long.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only
    if mallopt is not None:
        for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(parameter, 32 << 20)


def guard_worker() -> None:
    """The first step of every worker process: leave Ctrl-C to the parent, and end when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the work
    threading.Thread(target=_die_with_parent, daemon=True).start()


@contextmanager
def starting_workers() -> Iterator[None]:
    """Block Ctrl-C while workers start: they inherit the block, so that it cannot stop them before guard_worker.

    They import nothing from the current folder.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with safe_children():
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(images_done: Any, stop: Any) -> None:
    global _link
    _link = (images_done, stop)
    guard_worker()
    _keep_freed_memory()
    leave_warnings_to_parent()


def worker_killed() -> GalaxyZooError:
    """Return the error for a worker that ended without an exception."""
    return GalaxyZooError(
        "a worker process was killed, most likely for lack of memory: run the same command again with fewer --workers"
    )


def _run(work: Work[Task, Done], task: Task) -> Done:
    """Run one task in a worker; ten times a second, report progress to the parent and check whether to stop."""
    assert _link is not None
    images_done, stop = _link
    waiting, told = 0, time.monotonic()

    def tell() -> None:
        with images_done.get_lock():
            images_done.value += waiting

    def on_image() -> None:
        nonlocal waiting, told
        waiting += 1
        if (now := time.monotonic()) - told > POLL_SECONDS:
            tell()
            waiting, told = 0, now
            if stop.value:
                raise _Stopped

    done = work(task, on_image)
    tell()
    return done


def _run_here(work: Work[Task, Done], tasks: Iterable[Task], on_images: Callable[[int], object]) -> Iterator[Done]:
    """Run tasks in this process, as `run_local` does in others."""
    _keep_freed_memory()

    def on_image() -> None:
        on_images(1)

    for task in tasks:
        yield work(task, on_image)


def run_local(
    work: Work[Task, Done], tasks: Iterable[Task], workers: int, on_images: Callable[[int], object]
) -> Iterator[Done]:
    """Run `work` on each task with `workers` processes; yield each result as soon as it is ready, in any order.

    `on_images` is called several times a second with the number of images handled since the last call. The processes are
    spawned, not forked, so they carry nothing of the parent's memory. A task is made only when one of them is about to be
    free. Raises what a worker raised, GalaxyZooError if a worker died, and ConfigError if processes cannot share memory; the
    work of one alone is then done in this process.
    """
    context = multiprocessing.get_context("spawn")
    try:
        with starting_workers():
            images_done = context.Value("q", 0)
            stop = context.Value("b", 0, lock=False)
    except OSError as error:
        if workers > 1:
            what = f"no memory that processes can share ({error.strerror})"
            raise ConfigError(f"{what}: free /dev/shm, make it writable, or use --workers 1") from error
        yield from _run_here(work, tasks, on_images)
        return
    reported = 0
    remaining = iter(tasks)
    executor = ProcessPoolExecutor(workers, context, _start_worker, (images_done, stop))
    pending: set[Future[Done]] = set()
    try:
        while True:
            with starting_workers():
                # One more than there are workers, so that the next free one does not have to wait.
                for task in itertools.islice(remaining, workers + 1 - len(pending)):
                    pending.add(executor.submit(_run, work, task))
            if not pending:
                return
            done, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
            so_far = images_done.get_obj().value  # without its lock, which a killed worker may still hold
            on_images(so_far - reported)
            reported = so_far
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise worker_killed() from error
    finally:
        stop.value = 1
        executor.shutdown(wait=True, cancel_futures=True)


def _counted_and_checked(work: Work[Task, Done], probe: Callable[[], Any], here: Any) -> Callable[[Task], tuple[Done, int]]:
    """Work for a Dask worker, which refuses it unless `probe()` is `here`, else returns its result and the number of images.

    A worker may join at any time, and no check of all workers can be sooner than its first task. As a function within a
    function this is sent by value: a worker with another version of this module has no say in it.
    """

    def run(task: Task) -> tuple[Done, int]:
        import distributed

        images = 0

        def on_image() -> None:
            nonlocal images
            images += 1

        if (there := probe()) != here:
            raise ConfigError(_differs(distributed.get_worker().address, there, here))
        return work(task, on_image), images

    return run


def _differs(worker: str, there: Any, here: Any) -> str:
    return f"Dask worker {worker} has {there}, but this process has {here}: make both the same"


def _dask_client(address: str) -> Any:
    """Connect to the cluster at `address`. Raises ConfigError if there is none."""
    try:
        import distributed
    except ImportError as error:
        raise ConfigError(f"--dask needs the package distributed, which is not installed: {install_extra('dask')}") from error

    # Errors are reported here, in one line. Some of its loggers have a level of their own.
    for name in [*logging.Logger.manager.loggerDict]:
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return distributed.Client(address, timeout=_DASK_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"no Dask scheduler at {address}: start one with `dask scheduler` and give its address as --dask HOST:8786"
        ) from error


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """A client of the cluster at `address`. Raises ConfigError if there is none, and GalaxyZooError if it is lost."""
    client = _dask_client(address)
    import distributed

    with client:
        try:
            yield client
        except (distributed.KilledWorker, distributed.CancelledError, distributed.comm.CommClosedError, TimeoutError) as error:
            raise GalaxyZooError(
                f"the Dask cluster at {address} lost its workers or its scheduler: check their logs, "
                "and run the same command again"
            ) from error


def require_dask(address: str, probe: Callable[[], Any] | None = None) -> None:
    """Raise ConfigError, with the next step, if no Dask cluster can be reached at `address`.

    probe: as for `run_dask`; it may not differ on a worker.
    """
    with _cluster(address) as client:
        if probe is not None:
            _check_workers(client, address, probe)


def _check_workers(client: Any, address: str, probe: Callable[[], Any]) -> None:
    """Raise ConfigError if there are no workers, after a while, or `probe()` is not the same on all workers as here."""
    here, task = probe(), None
    if not client.nthreads():
        log.warning("the Dask scheduler at %s has no workers yet: waiting for at most %d seconds", address, _WORKERS_SECONDS)
        task = client.submit(probe, pure=False)  # an adaptive cluster starts workers only when a task waits
        try:
            task.exception(_WORKERS_SECONDS)  # which the next check reports, if there is any
        except TimeoutError as error:
            raise ConfigError(
                f"the Dask scheduler at {address} has no workers: start some with `dask worker {address}`, "
                "and run the same command again"
            ) from error
    for worker, there in client.run(probe, on_error="return").items():
        if there != here and not isinstance(there, OSError):  # such a worker has left
            raise ConfigError(_differs(worker, there, here))
    del task  # only now: an adaptive cluster keeps a worker that holds a result


def _threads(client: Any) -> int:
    """The threads of all workers of a cluster. Raises TimeoutError if its scheduler does not answer."""
    try:
        return sum(client.nthreads().values())
    except OSError as error:
        raise TimeoutError from error


def _next_result(client: Any, running: Any) -> Any:
    """Wait for the next result. Raises what its task raised, or TimeoutError if for a while there are no workers."""
    asked = last_seen = time.monotonic()
    while not running.has_ready():
        time.sleep(POLL_SECONDS)
        if (now := time.monotonic()) - asked < 1:
            continue
        # While the client connects again, it cannot ask: if it gives up, all tasks are cancelled, and so done.
        if client.status == "connecting" or (client.status == "running" and _threads(client)):
            last_seen = now
        elif now - last_seen > _WORKERS_SECONDS:
            raise TimeoutError
        asked = time.monotonic()
    _, result = next(running)
    if isinstance(result, BaseException):
        raise result  # the task was cancelled
    return result


def run_dask(
    work: Work[Task, Done], tasks: Iterable[Task], address: str, probe: Callable[[], Any], on_images: Callable[[int], object]
) -> Iterator[Done]:
    """Run `work` on each task on the Dask cluster at `address`; yield each result as soon as it is ready.

    `on_images` is called with a task's number of images when the task is done. `probe()` must return the same on every
    worker as in this process: the same versions, the same files. Workers may come and go. Raises what a worker raised,
    ConfigError if there is no cluster, it has no workers or a probe differs, and GalaxyZooError if the cluster is lost.
    """
    remaining = iter(tasks)
    with _cluster(address) as client:
        import distributed

        _check_workers(client, address, probe)
        checked = _counted_and_checked(work, probe, probe())
        # With results: a task whose result is lost with its worker is not done.
        running = distributed.as_completed(loop=client.loop, with_results=True)
        while True:
            threads = _threads(client)
            # An adaptive cluster starts no more workers than there are tasks, so these are what it can grow by.
            ahead = min(max(threads, 1), _TASKS_AHEAD)
            for task in itertools.islice(remaining, max(0, threads + ahead - running.count())):
                running.add(client.submit(checked, task, pure=False))
            if running.is_empty():
                return
            try:
                done, images = _next_result(client, running)
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"a Dask worker lacks a package ({error}): install the same packages on all workers, "
                    "and run the same command again"
                ) from error
            on_images(images)
            yield done
