"""Memory and time of a catalogue as source, beside its number of rows. No image is read.

Catalogues with Kaggle's columns and the paths of files that do not exist are written as Parquet; the votes of each row are
those of a row of --solutions, drawn with a seed. A child process then does what `preprocess` does before it writes the first
shard: every pass over the table, the plan, and the galaxies of one shard.

    .venv/bin/python -m benchmarks.catalogue --solutions ../shared/kaggle/training_solutions_rev1.csv

Memory is the peak of the child above that of a catalogue of a thousand rows, in bytes per row.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.children import REPOSITORY

ROWS = (1_000, 100_000, 1_000_000)
_STEP = 50_000


def write_catalogue(path: Path, solutions: Path, rows: int) -> None:
    """A Parquet file of `rows` galaxies with votes drawn from a table, and the paths of their images."""
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    votes = pd.read_csv(solutions).drop(columns="GalaxyID").to_numpy(np.float64)
    names = pd.read_csv(solutions, nrows=0).columns[1:]
    generator = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, _STEP):
        ids = np.arange(start, min(start + _STEP, rows))
        drawn = votes[generator.integers(0, len(votes), len(ids))]
        files = [f"images/{galaxy % 1000:03d}/{galaxy}.jpg" for galaxy in ids.tolist()]
        table = pa.table({"GalaxyID": ids, "file": files, **dict(zip(names, drawn.T, strict=True))})
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def measure(path: Path) -> dict[str, float]:
    """What the first steps of a build cost in this process: seconds, and peak memory in bytes."""
    from preprocess import plan
    from preprocess.catalogues import catalogue_survey
    from preprocess.fitting import ANYTHING

    begin = time.monotonic()
    with TemporaryDirectory() as scratch:
        survey = catalogue_survey(path, Path(scratch), ANYTHING)
        shards = plan.make(survey.galaxies, plan.PlanSettings())
        survey.prepare(shards)
        survey.part(shards[0].rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": time.monotonic() - begin, "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.catalogue", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--solutions", type=Path, help="table of votes with Kaggle's columns, to draw from")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="sizes of the catalogues (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each, of which the median counts (default: %(default)s)"
    )
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    if args.solutions is None:
        parser.error("--solutions is required")
    print("| rows | MB of Parquet | peak memory, MB | more than the first, bytes per row | s | us per row |")
    print("|---|---|---|---|---|---|")
    first = 0.0
    with TemporaryDirectory() as folder:
        for rows in args.rows:
            path = Path(folder) / f"{rows}.parquet"
            write_catalogue(path, args.solutions, rows)
            command = [sys.executable, "-m", "benchmarks.catalogue", "--measure", str(path)]
            runs = [
                json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout)
                for _ in range(args.repeats)
            ]
            peak, seconds = (median(run[name] for run in runs) for name in ("peak", "seconds"))
            first = first or peak
            beyond = f"{(peak - first) / rows:.0f}" if peak > first else ""
            cells = (f"{rows:,}", f"{path.stat().st_size / 1e6:.1f}", f"{peak / 1e6:.0f}", beyond, f"{seconds:.1f}")
            print(f"| {' | '.join(cells)} | {seconds / rows * 1e6:.1f} |", flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
