"""A terminal for programs that tests and benchmarks start: progress bars are drawn in it, but not in a pipe or a file."""

import contextlib
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Terminal:
    """`theirs`: the descriptor to start a program with, as its stderr; it is closed by `started`."""

    ours: int
    theirs: int

    def started(self) -> None:
        """The program has its copy: from now on the terminal ends with the program."""
        os.close(self.theirs)
        self.theirs = -1

    def read(self) -> bytes:
        """What was written next; empty once the program has ended."""
        try:
            return os.read(self.ours, 65_536)
        except OSError:  # EIO: no program has the terminal open
            return b""

    def read_all(self) -> bytes:
        """Everything that is written until the program ends."""
        return b"".join(iter(self.read, b""))


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal of 24 lines and 100 columns that is closed at the end."""
    opened = Terminal(*pty.openpty())
    fcntl.ioctl(opened.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    try:
        yield opened
    finally:
        for descriptor in (opened.ours, opened.theirs):
            if descriptor >= 0:
                os.close(descriptor)
