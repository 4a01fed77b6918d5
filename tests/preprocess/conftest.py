"""The program as its users run it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def command() -> list[str]:
    """`preprocess`, by this Python."""
    return [sys.executable, "-m", "preprocess"]


@pytest.fixture
def run(command: list[str], tmp_path: Path) -> Run:
    """A function that runs `preprocess` with arguments in a folder of its own, and gives status, stdout and stderr."""

    def run(*arguments: Any, before: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*before, *command, *map(str, arguments)], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
        )

    return run


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """A function that gives every file below a folder, hidden ones too: relative path -> bytes."""

    def contents(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    return contents
