"""The benchmarks exist only in the checkout and are never installed, so the checkout is put on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
