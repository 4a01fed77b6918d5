"""Run the steps in processes of their own, and show what they took, beside what follows for sizes that were not run."""

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from benchmarks.children import run_child
from benchmarks.scale.meter import Phase

FIGURES = Path(__file__).parent / "steps.json"
# The step whose files a step needs.
_AFTER = {"share": "plan", "commit": "plan", "train": "commit", "evaluate": "predict"}
# Files that a folder of the disk at hand can hold.
_MOST = {"list-folder": 1_000_000}


@dataclass(frozen=True)
class Limits:
    """Beyond which a step is not run: seconds, and bytes of memory."""

    seconds: float
    memory: float


@dataclass(frozen=True)
class Line:
    """The figures of a phase as a straight line through its two largest measured sizes.

    seconds, peak, disk: of the largest size; per_galaxy: how they grow, in s and bytes for one galaxy more.
    """

    name: str
    galaxies: int
    seconds: float
    peak: float
    disk: float
    per_galaxy: tuple[float, float, float]

    def at(self, galaxies: float) -> tuple[float, float, float]:
        """Seconds, peak memory in bytes and bytes on disk for so many galaxies."""
        more = galaxies - self.galaxies
        seconds, peak, disk = (
            value + more * max(slope, 0)
            for value, slope in zip((self.seconds, self.peak, self.disk), self.per_galaxy, strict=True)
        )
        return seconds, peak, disk


def line_through(phases: Sequence[Phase]) -> Line:
    """The line of a phase. Of a single size: all time and bytes on disk grow with the galaxies, and memory does not."""
    last, *smaller = sorted(phases, key=lambda phase: -phase.galaxies)
    first = smaller[0] if smaller else Phase(last.name, 0, 0, last.peak)
    number = last.galaxies - first.galaxies
    slopes = tuple((getattr(last, name) - getattr(first, name)) / number for name in ("seconds", "peak", "disk"))
    return Line(last.name, last.galaxies, last.seconds, last.peak, last.disk, (slopes[0], slopes[1], slopes[2]))


def lines(phases: Iterable[Phase]) -> dict[str, Line]:
    """The line of each phase, by its name."""
    by_name: dict[str, list[Phase]] = {}
    for phase in phases:
        by_name.setdefault(phase.name, []).append(phase)
    return {name: line_through(several) for name, several in by_name.items()}


def _is_too_much(took: list[tuple[int, float, float]], galaxies: int, limits: Limits) -> bool:
    """Whether a step would exceed the limits. took: galaxies, seconds and peak memory of smaller sizes, ascending.

    The two smallest sizes always run: with one alone, what a process always needs would count as if it grew.
    """
    if len(took) < 2:
        return False
    (before, *first), (number, *last) = took[-2:]
    times = (galaxies - number) / (number - before)
    seconds, memory = (end + times * (end - begin) for begin, end in zip(first, last, strict=True))
    return seconds > limits.seconds or memory > limits.memory


def measure_steps(names: Sequence[str], sizes: Sequence[int], limits: Limits, scratch: Path | None) -> list[Phase]:
    """Run these steps for these sizes, ascending, each in a process of its own; beyond the two smallest, limits hold."""
    phases: list[Phase] = []
    took: dict[str, list[tuple[int, float, float]]] = {name: [] for name in names}
    for galaxies in sizes:
        with tempfile.TemporaryDirectory(prefix="scale-benchmark-", dir=scratch) as folder:
            done: set[str] = set()
            for name in names:
                if _AFTER.get(name, name) not in {name, *done} or galaxies > _MOST.get(name, galaxies):
                    continue
                if _is_too_much(took[name], galaxies, limits):
                    continue
                command = [sys.executable, "-m", "benchmarks.scale", "child", name, folder, str(galaxies)]
                began = time.monotonic()
                _, peak, _, said = run_child(command, Path(folder) / "log.txt")
                took[name].append((galaxies, time.monotonic() - began, peak))
                done.add(name)
                phases += [Phase(**phase) for phase in json.loads(said)]
                print(f"{name}, {galaxies:,} galaxies: {took[name][-1][1]:.0f} s", file=sys.stderr, flush=True)
    return phases


def tables(phases: Sequence[Phase]) -> str:
    """Two tables in Markdown: seconds, and memory with bytes on disk. A figure in italics is extrapolated."""
    sizes = sorted({phase.galaxies for phase in phases})
    at = {(phase.name, phase.galaxies): phase for phase in phases}
    of_all = lines(phases)
    seconds, memory = [], []
    for name, line in of_all.items():
        slope, bytes_more, bytes_on_disk = line.per_galaxy
        cells = [(at.get((name, size)), line.at(size)) for size in sizes]
        times = [f"{phase.seconds:,.2f}" if phase else f"*{guess[0]:,.0f}*" for phase, guess in cells]
        peaks = [f"{phase.peak / 1e6:,.0f}" if phase else f"*{guess[1] / 1e6:,.0f}*" for phase, guess in cells]
        seconds.append([name, *times, f"{1e6 * slope:.3g}"])
        memory.append([name, *peaks, f"{max(bytes_more, 0):.3g}", f"{bytes_on_disk:.3g}" if line.disk else ""])
    shown = [f"{size:,}" for size in sizes]
    of_time = markdown(["s", *shown, "us more per galaxy"], seconds)
    of_memory = markdown(["peak memory, MB", *shown, "bytes more per galaxy", "on disk, bytes per galaxy"], memory)
    return f"{of_time}\n\n{of_memory}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def save(path: Path, machine: str, phases: Sequence[Phase]) -> None:
    """Write the figures to a file; those of other phases and sizes that it holds stay."""
    before = load(path) if path.is_file() else []
    new = {(phase.name, phase.galaxies) for phase in phases}
    names = [*dict.fromkeys(phase.name for phase in (*before, *phases))]
    every = [*(phase for phase in before if (phase.name, phase.galaxies) not in new), *phases]
    every.sort(key=lambda phase: (names.index(phase.name), phase.galaxies))
    content = {"date": date.today().isoformat(), "machine": machine, "phases": [asdict(phase) for phase in every]}
    path.write_text(json.dumps(content, indent=1) + "\n")


def load(path: Path = FIGURES) -> list[Phase]:
    """The figures in a file."""
    return [Phase(**phase) for phase in json.loads(path.read_text("utf-8"))["phases"]]
