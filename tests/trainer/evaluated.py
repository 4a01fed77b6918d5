"""`trainer` that keeps five galaxies of an evaluation in memory, for tests that interrupt it: `python evaluated.py ARGUMENTS`.

Parts are small, and batches are counted and may end the process, as in `streamed`.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROGRAM = (sys.executable, str(Path(__file__).resolve()))
IN_MEMORY = 5


def evaluate(flags: Sequence[object], predicted: Path, killed_after: int = 0) -> tuple[int, str]:
    """Run `trainer evaluate` with these flags; return its exit status and stderr."""
    variables = {"PREDICTED": str(predicted), "KILLED_AFTER": str(killed_after), "KERAS_BACKEND": "tensorflow"}
    command = [*PROGRAM, "evaluate", *map(str, flags)]
    ended = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)
    return ended.returncode, ended.stderr


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])
    from tests.trainer import small, streamed
    from trainer import evaluate as command

    small.register()
    streamed.shrink(setattr)
    streamed._count_batches()
    command.IN_MEMORY = IN_MEMORY
    from trainer.cli import main

    main()
