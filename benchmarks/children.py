"""Run a command to its end, and measure the memory of all its processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS, SAMPLES_PER_LISTING = 0.05, 5  # listing the processes takes 2 ms, reading one's memory 0.02 ms
CHILD_LIMIT_SECONDS = 1800


class ChildError(Exception):
    """A candidate's process failed; the message is the last line it wrote."""


def _watch(process: subprocess.Popen[bytes], ended: threading.Event, peaks: list[float]) -> None:
    """Append the highest memory of the process tree in bytes to `peaks`; kill the tree past the time limit."""
    began, samples, peak = time.monotonic(), 0, 0
    tree: list[psutil.Process] = []
    while not ended.wait(SAMPLE_SECONDS):
        if time.monotonic() - began > CHILD_LIMIT_SECONDS:
            os.killpg(process.pid, signal.SIGKILL)
            break
        total = 0
        try:
            if samples % SAMPLES_PER_LISTING == 0:
                root = psutil.Process(process.pid)
                tree = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for member in tree:
            try:
                total += member.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        samples, peak = samples + 1, max(peak, total)
    peaks.append(peak)


def run_child(command: Sequence[str], log: Path) -> tuple[float, float, float, str]:
    """Run a command to its end: seconds, peak bytes, Unix time of its start, last line of stdout. Raises ChildError."""
    ended = threading.Event()
    peaks: list[float] = []
    with log.open("wb") as stdout, log.with_suffix(".err").open("wb") as stderr:
        began_at, began = time.time(), time.perf_counter()
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=stdout, stderr=stderr, start_new_session=True)
        watcher = threading.Thread(target=_watch, args=(process, ended, peaks))
        watcher.start()
        try:
            # Without a timeout: with one, Popen polls only every 50 ms, which is a tenth of a quick run.
            status = process.wait()
            seconds = time.perf_counter() - began
        finally:
            ended.set()
            watcher.join()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    lines = [path.read_text(errors="replace").strip().splitlines() for path in (log, log.with_suffix(".err"))]
    if seconds > CHILD_LIMIT_SECONDS:
        raise ChildError(f"killed after {CHILD_LIMIT_SECONDS} s: use fewer --images")
    if status:
        said = (lines[1] or lines[0] or ["no output"])[-1]
        raise ChildError(f"exit status {status}: {said}")
    return seconds, peaks[0], began_at, (lines[0] or [""])[-1]


def interruptible(work: Callable[[], int]) -> int:
    """Return the exit status of `work`. Ctrl-C and SIGTERM both end it with status 130, its temporary folders removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return work()
    except KeyboardInterrupt:
        print("interrupted: temporary folders have been removed", file=sys.stderr)
        return 130
