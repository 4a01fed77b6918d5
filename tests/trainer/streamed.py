"""`trainer` with small parts and batches, for tests that interrupt predictions: `python streamed.py ARGUMENTS`.

PREDICTED names a file that gets a line for each batch. After KILLED_AFTER batches, the process kills itself.
"""

import os
import signal
import sys
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


def _count_batches() -> None:
    from trainer.blocks import Ensemble

    call, limit = Ensemble.__call__, int(os.environ.get("KILLED_AFTER", "0"))
    batches = 0

    def counted(self: Ensemble, crops: Sequence[Any]) -> Any:
        nonlocal batches
        if limit and batches == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        batches += 1
        with Path(os.environ["PREDICTED"]).open("a") as file:
            file.write("batch\n")
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
