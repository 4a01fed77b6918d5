"""Ctrl-C and SIGTERM: as exceptions, and held back while something must be finished first."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import NoReturn


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt no Exception, so that nothing swallows it."""


class Interruption:
    """A Ctrl-C or SIGTERM that waits for a good moment: see `deferred_interrupts`."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def raise_now(self) -> NoReturn:
        """What the signal would have raised when it came; Terminated where it came to another process of the same run."""
        raise KeyboardInterrupt if self.signal == signal.SIGINT else Terminated


@contextlib.contextmanager
def deferred_interrupts(notice: str) -> Iterator[Interruption]:
    """Within the block the first Ctrl-C or SIGTERM prints `notice` and is only remembered; the next ends the block.

    Outside the main thread, where Python takes no signals, nothing changes.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    def remember(signum: int, frame: object) -> None:
        again = interruption.signal is not None
        interruption.signal = signum
        if again:
            interruption.raise_now()
        os.write(2, f"\n{notice}\n".encode())

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
