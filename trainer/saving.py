"""Saving a run after its epochs: at once, or on a GPU in a thread beside the next epochs.

With VGG16 at 212 x 212, checkpoint and model have 0.56 GB and take two to three seconds, in which an H200 trains on more than
10,000 galaxies (benchmarks/README.md, "On a GPU"). So an epoch that ends while an earlier one is being saved is saved together
with the next one. After a kill or an error, the epochs that were not saved are repeated.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from trainer.history import Epoch


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

    def __init__(self, beside: bool) -> None:
        """beside: save in a thread."""
        self._pool = ThreadPoolExecutor(1) if beside else None
        self._running: Future[None] | None = None
        self._lines: Sequence[str] = ()

    @property
    def beside(self) -> bool:
        """Whether it saves in a thread."""
        return self._pool is not None

    def is_busy(self) -> bool:
        return self._running is not None and not self._running.done()

    def start(self, save: Callable[[], None], lines: Sequence[str]) -> None:
        """Save. No save may be running; arrays that `save` uses must no longer change if it runs in a thread."""
        assert not self.is_busy()
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
