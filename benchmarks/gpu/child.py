"""One step in a separate process, started by __main__.py: python -m benchmarks.gpu.child MODULE OUT SECONDS [ARGUMENT ...]

Calls `measure` of benchmarks/gpu/MODULE.py with the settings stored in OUT, its time limit in seconds, and the arguments.
"""

import importlib
import sys
from pathlib import Path

from benchmarks.gpu.settings import Skip, load

SKIPPED = 75  # exit status if the step cannot run here; the last line of output is the reason


def main() -> None:
    name, out, seconds, *arguments = sys.argv[1:]
    try:
        importlib.import_module(f"benchmarks.gpu.{name}").measure(load(Path(out)), float(seconds), *arguments)
    except Skip as reason:
        print(reason, flush=True)
        sys.exit(SKIPPED)


if __name__ == "__main__":
    main()
