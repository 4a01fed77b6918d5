"""Ctrl-C and SIGTERM: as exceptions, and deferred while something must be finished first."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import NoReturn


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt it is not an Exception, so that no `except Exception` swallows it."""


class Interruption:
    """A deferred Ctrl-C or SIGTERM: see `deferred_interrupts`."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def raise_now(self) -> NoReturn:
        """Raise what the signal would have raised at once; Terminated if another process of the same run received it."""
        raise KeyboardInterrupt if self.signal == signal.SIGINT else Terminated


@contextlib.contextmanager
def deferred_interrupts(notice: str) -> Iterator[Interruption]:
    """Within the block the first Ctrl-C or SIGTERM only prints `notice` and is remembered; the next ends the block.

    Has no effect outside the main thread, because Python handles signals only there.
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
