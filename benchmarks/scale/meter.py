"""The time and the peak memory of the phases of a process, each with a peak of its own."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROCESS = Path("/proc/self")


def _peak_of_phase() -> int:
    """The highest resident memory of this process in bytes since `_forget_peak`."""
    lines = (_PROCESS / "status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _forget_peak() -> None:
    """Let the peak begin anew at the present memory. Where the kernel does not allow it, that of earlier phases counts too."""
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")


def bytes_below(*paths: Path) -> int:
    """The bytes of files, and of all files in folders."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return sum(file.lstat().st_size for file in files if file.is_file())


@dataclass(frozen=True)
class Phase:
    """What a phase took for so many galaxies.

    peak: the highest memory of its process in bytes, with all that earlier phases left there. disk: bytes of the files that it
    wrote, 0 if it wrote none.
    """

    name: str
    galaxies: int
    seconds: float
    peak: int
    disk: int = 0


class Meter:
    """Measures the phases of a process for so many galaxies."""

    def __init__(self, galaxies: int) -> None:
        self.galaxies = galaxies
        self.phases: list[Phase] = []

    @contextlib.contextmanager
    def phase(self, name: str, *written: Path) -> Iterator[None]:
        """Measure a block. written: the files and folders that it writes."""
        _forget_peak()
        began = time.perf_counter()
        yield
        seconds, peak = time.perf_counter() - began, _peak_of_phase()
        self.phases.append(Phase(name, self.galaxies, seconds, peak, bytes_below(*written)))
