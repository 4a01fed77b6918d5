"""Commands with a time limit, and the memory, load and power of the GPU while they run."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import REPOSITORY


@dataclass(frozen=True)
class Ended:
    """How a command ended. rc: exit status, negative for a signal; tail: the end of its output, empty on success."""

    seconds: float
    rc: int
    timed_out: bool
    tail: str


def python(*arguments: object) -> list[str]:
    return [sys.executable, *map(str, arguments)]


def start(command: list[str], log: Path, own_group: bool = False, stderr: int | None = None) -> subprocess.Popen[bytes]:
    """Start a command in the checkout, where all modules can be imported; append its output to `log`.

    stderr: the descriptor of a terminal for it, instead of the log.
    """
    with log.open("ab") as file:
        errors = file if stderr is None else stderr
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=file, stderr=errors, start_new_session=own_group)


def end(process: subprocess.Popen[bytes], group: bool = False) -> int:
    """Kill a command if it still runs, with `group` its child processes too; return its exit status."""
    with contextlib.suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    return process.wait()


def run(command: list[str], log: Path, seconds: float, grace: float = 0.0, own_group: bool = False) -> Ended:
    """Run a command to its end. It gets SIGTERM `grace` seconds before the limit `seconds`, and is killed at the limit."""
    began, before, timed_out = time.monotonic(), log.stat().st_size if log.exists() else 0, False
    process = start(command, log, own_group)
    try:
        process.wait(max(0.1, seconds - grace))
    except subprocess.TimeoutExpired:
        timed_out = True
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    finally:
        rc = end(process, own_group)
    tail = log.read_bytes()[before:][-1500:].decode(errors="replace") if rc else ""
    return Ended(round(time.monotonic() - began, 1), rc, timed_out, tail)


def must_run(command: list[str], log: Path, seconds: float) -> float:
    """Run a command; return its seconds. Exits with the end of its output if it fails or exceeds `seconds`."""
    ended = run(command, log, seconds)
    if ended.rc:
        raise SystemExit(f"{' '.join(command)}: exit status {ended.rc} after {ended.seconds} s\n{ended.tail}")
    return ended.seconds


@contextlib.contextmanager
def gpu_watched() -> Iterator[dict[str, float]]:
    """Yield a dict that holds, after the block, the first GPU's highest memory and power, and its mean load while busy.

    They are read twice a second. Empty without nvidia-smi.
    """
    found: dict[str, float] = {}
    query = ("--query-gpu=memory.used,utilization.gpu,power.draw", "--format=csv,noheader,nounits", "--loop-ms=500")
    with tempfile.TemporaryFile("w+") as file:
        try:
            process = subprocess.Popen(("nvidia-smi", "--id=0", *query), stdout=file, stderr=subprocess.DEVNULL)
        except OSError:
            yield found
            return
        try:
            yield found
        finally:
            end(process)
        file.seek(0)
        rows = [row for line in file if len(row := re.findall(r"[\d.]+", line)) == 3]
    if rows:
        memory, load, watts = ([float(value) for value in column] for column in zip(*rows, strict=True))
        busy = [value for value in load if value] or [0.0]
        found |= {"gpu_mib": max(memory), "gpu_watts": max(watts), "gpu_load_when_busy": round(sum(busy) / len(busy), 1)}
