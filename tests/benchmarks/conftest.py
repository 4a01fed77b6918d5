"""The benchmarks belong to the checkout alone: no install puts them on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
