"""`trainer` with small parts and batches, for tests that interrupt predictions: `python streamed.py ARGUMENTS`.

PREDICTED names a file that gets a line for each batch. After KILLED_AFTER batches, the process kills itself. After PAUSED_AFTER
batches, it waits until that file is removed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROGRAM = (sys.executable, str(Path(__file__).resolve()))
BATCH, PART, GROUP, FAN = 4, 8, 3, 2


def shrink(patch: Any) -> None:
    """Make parts, row groups and batches small. patch: sets an attribute of a module."""
    from trainer import blocks, inference, rowfile, streaming

    for module in (blocks, inference):
        patch(module, "BATCH_SIZE", BATCH)
    patch(streaming, "PART", PART)
    patch(rowfile, "GROUP", GROUP)
    patch(rowfile, "FAN", FAN)


def start(flags: Sequence[object], predicted: Path, killed_after: int = 0, paused_after: int = 0) -> subprocess.Popen[str]:
    """Start `trainer predict` with these flags."""
    environment = {
        **os.environ,
        "PREDICTED": str(predicted),
        "KILLED_AFTER": str(killed_after),
        "PAUSED_AFTER": str(paused_after),
        "KERAS_BACKEND": "tensorflow",
    }
    command = [*PROGRAM, "predict", *map(str, flags)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a process; return its exit status, stdout and stderr."""
    said, err = process.communicate()
    return process.returncode, said, err


def batches(predicted: Path) -> int:
    """How many batches were predicted since the last call."""
    number = len(predicted.read_text().splitlines()) if predicted.exists() else 0
    predicted.unlink(missing_ok=True)
    return number


def _count_batches() -> None:
    from trainer.blocks import Ensemble

    call = Ensemble.__call__
    limit, pause = (int(os.environ.get(name, "0")) for name in ("KILLED_AFTER", "PAUSED_AFTER"))
    batches = 0

    def counted(self: Ensemble, crops: Sequence[Any]) -> Any:
        nonlocal batches
        if limit and batches == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        batches += 1
        predicted = Path(os.environ["PREDICTED"])
        with predicted.open("a") as file:
            file.write("batch\n")
        while batches == pause and predicted.exists():
            time.sleep(0.05)
        return call(self, crops)

    Ensemble.__call__ = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])
    from tests.trainer import small

    small.register()
    shrink(setattr)
    _count_batches()
    from trainer.cli import main

    main()
