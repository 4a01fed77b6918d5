"""Run `python building.py SECONDS ARGUMENTS` instead of `preprocess ARGUMENTS`: its lease ends after so many seconds."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])
    from preprocess import lease
    from preprocess.cli import main

    lease.SECONDS = float(sys.argv.pop(1))
    main()
