"""Run a target on many inputs in a process of its own, with limits of time and memory for each input.

    python -m tests.fuzz.runner TARGET SEED FIRST SECONDS COUNTER

writes the number of each input to the file COUNTER before it is checked, and prints a finding as a line of JSON. So the parent
knows which input a crash or a hang is due to.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.mutate import mutated

# An input is at most some 100 kB: what takes longer, or more memory, is a finding.
SECONDS, MEMORY = 10.0, 3_000_000_000
_DIGITS = 12
PROGRAM = ["-m", "tests.fuzz.runner"]


@dataclass(frozen=True)
class Finding:
    """Input `number` of a seed and what went wrong with it."""

    target: str
    seed: int
    number: int
    what: str

    def __str__(self) -> str:
        again = f"python -m tests.fuzz --again {self.target!r} {self.seed} {self.number}"
        return f"{self.target}: {self.what}; again: {again}"


def _limit_memory() -> None:
    """Allow as much memory as there is now and MEMORY more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _child(name: str, seed: int, first: int, seconds: float, counter: Path) -> None:
    from tests.fuzz.targets import targets

    with TemporaryDirectory() as scratch, counter.open("r+b") as numbers:
        target = targets(Path(scratch))[name]()
        target.check(target.originals[0])  # imports what it needs
        _limit_memory()
        until, number = time.monotonic() + seconds, first
        while time.monotonic() < until:
            numbers.seek(0)
            numbers.write(b"%0*d" % (_DIGITS, number))
            numbers.flush()
            began, data = time.monotonic(), mutated(seed, number, target.originals)
            try:
                target.check(data)
                if time.monotonic() - began > SECONDS:
                    raise AssertionError(f"took {time.monotonic() - began:.0f} s for {len(data):,} bytes")
            except AssertionError as error:
                print(json.dumps([number, str(error)[:500]]), flush=True)
            except Exception as error:  # what no command prints as one line
                print(json.dumps([number, f"{type(error).__name__}: {str(error)[:500]}"]), flush=True)
            number += 1
        numbers.seek(0)
        numbers.write(b"%0*d" % (_DIGITS, number))


def _number(counter: Path) -> int:
    return int(counter.read_bytes() or b"0")


def attack(name: str, seed: int, seconds: float, scratch: Path) -> Iterator[Finding | int]:
    """Attack a target for some seconds; yield findings, and at last the number of inputs."""
    counter, first, left = scratch / f"{name}.counter", 0, seconds
    while left > 0:
        counter.write_bytes(b"%0*d" % (_DIGITS, first))
        began = time.monotonic()
        command = [sys.executable, *PROGRAM, name, str(seed), str(first), str(left), str(counter)]
        with (scratch / f"{name}.out").open("w+") as out, (scratch / f"{name}.err").open("w+") as err:
            process = subprocess.Popen(command, stdout=out, stderr=err, text=True)
            ended = _wait(process, counter)
            out.seek(0)
            err.seek(0)
            for line in out:
                number, what = json.loads(line)
                yield Finding(name, seed, number, what)
            last = _number(counter)
            if ended:
                yield Finding(name, seed, last, f"{ended} {err.read()[-300:]}".strip())
                first = last + 1
            elif process.returncode:
                raise RuntimeError(f"{name}: the runner failed: {err.read()[-2000:]}")
            else:
                first, left = last, 0
        left -= time.monotonic() - began
    yield first


def _wait(process: "subprocess.Popen[str]", counter: Path) -> str:
    """Wait for a child; return how it ended if an input ended it: by a signal, or without an end."""
    last, since = -1, time.monotonic()
    while process.poll() is None:
        time.sleep(0.1)
        if (now := _number(counter)) != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > 3 * SECONDS + 60 * (last <= 0):  # the first needs imports
            process.kill()
            process.wait()
            return f"no end after {3 * SECONDS:.0f} s"
    return f"killed by signal {-process.returncode}" if process.returncode < 0 else ""


if __name__ == "__main__":
    name, seed, first, seconds, counter = sys.argv[1:]
    _child(name, int(seed), int(first), float(seconds), Path(counter))
