"""The progress of a run, and saving it: at once, or on a GPU in a thread beside the next steps.

With VGG16 at 212 x 212, checkpoint and model have 0.56 GB and take two to three seconds, in which an H200 trains on more than
10,000 galaxies (benchmarks/README.md, "On a GPU"). So an epoch that ends while an earlier one is being saved is saved together
with the next one. After a kill or an error, the steps that were not saved are repeated.
"""

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from trainer.history import Epoch


@dataclass(frozen=True)
class Progress:
    """The progress of a run: its finished epochs, the steps done in the next one, its precision and its backend.

    streams: the number of streams, see `input.training`, that gave these steps their galaxies; 0 in earlier versions.
    """

    history: tuple[Epoch, ...]
    steps: int
    precision: str
    backend: str = ""
    streams: int = 0

    @property
    def finished(self) -> int:
        return len(self.history)


NOTHING_YET = Progress((), 0, "")


@dataclass
class Unsaved:
    """What the epochs since the last save have left to write.

    lines: to print about each epoch; weights: those of the best epoch, if it is one of them.
    """

    epochs: list[Epoch] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    weights: list[np.ndarray] | None = None


class Saver:
    """Runs one save at a time. As a context it ends after the last one."""

    def __init__(self, beside: bool, minutes: float = 0) -> None:
        """beside: save in a thread. minutes: time after which another save is due; 0: never."""
        self._pool = ThreadPoolExecutor(1) if beside else None
        self._seconds = minutes * 60 or math.inf
        self._started = time.monotonic()
        self._running: Future[None] | None = None
        self._lines: Sequence[str] = ()

    @property
    def beside(self) -> bool:
        """Whether it saves in a thread."""
        return self._pool is not None

    def is_due(self) -> bool:
        """Whether a save within an epoch should start now.

        Of several processes only the first has to ask: each holds the whole state, and reads it without the others.
        """
        return time.monotonic() - self._started >= self._seconds and not self.is_busy()

    def is_busy(self) -> bool:
        return self._running is not None and not self._running.done()

    def start(self, save: Callable[[], None], lines: Sequence[str]) -> None:
        """Save. No save may be running; arrays that `save` uses must no longer change if it runs in a thread."""
        assert not self.is_busy()
        self._started = time.monotonic()
        if self._pool is None:
            save()
        else:
            self._running = self._pool.submit(save)
        self._lines = lines

    def saved_lines(self, wait: bool = False) -> Sequence[str]:
        """The lines of the last save, once it is done; `wait` for it. Raises what it raised."""
        if self.is_busy() and not wait:
            return ()
        if self._running is not None:
            running, self._running = self._running, None
            running.result()
        lines, self._lines = self._lines, ()
        return lines

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown()
