"""Processes that this program starts: they never import a module from the current folder, whatever it is called."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_SAFE, _PATH = "PYTHONSAFEPATH", "PYTHONPATH"


@contextlib.contextmanager
def safe_children() -> Iterator[None]:
    """Within the block Python starts children without the current folder in their path.

    `multiprocessing` starts its helpers by `python -c`, which would import a signal.py or random.py from there.
    """
    before = os.environ.get(_SAFE)
    os.environ[_SAFE] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_SAFE, None)
        else:
            os.environ[_SAFE] = before


def of_module(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command that runs one of our modules in a process of its own, and its environment.

    Our own folder is named: the program may run from a checkout that is not installed.
    """
    ours = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join([ours, *filter(None, [os.environ.get(_PATH)])])
    return [sys.executable, "-P", "-m", module, *arguments], {**os.environ, _SAFE: "1", _PATH: paths}
