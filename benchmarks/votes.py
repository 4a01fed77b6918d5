"""Memory and time of a table of votes, beside its number of rows and its format. No image is read.

Tables with Kaggle's columns are written as CSV, as a zip of that and as Parquet; the votes of each row are those of a row of
--solutions, drawn with a seed. A child process then reads one of them, as `preprocess` does before it writes the first shard.

    .venv/bin/python -m benchmarks.votes --solutions ../shared/kaggle/training_solutions_rev1.csv

Memory is the peak of the child above that after it read a table of a hundred rows, which loads its libraries: divided by all
rows, and its growth divided by the rows beyond the first size.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.children import REPOSITORY

ROWS = (10_000, 100_000, 1_000_000)
FORMATS = ("csv", "zip", "parquet")
_STEP = 50_000
_SMALL = 100
_NAME = "training_solutions_rev1.csv"


def write_tables(folder: Path, solutions: Path, rows: int) -> None:
    """`rows` galaxies with votes drawn from a table, in each of the formats."""
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    votes = pd.read_csv(solutions, index_col="GalaxyID")
    generator = np.random.default_rng(0)
    writer = None
    with (folder / _NAME).open("w") as file:
        for start in range(0, rows, _STEP):
            ids = np.arange(start, min(start + _STEP, rows))
            drawn = votes.iloc[generator.integers(0, len(votes), len(ids))].set_axis(pd.Index(ids, name="GalaxyID"))
            drawn.to_csv(file, header=start == 0)
            table = pa.Table.from_pandas(drawn.reset_index(), preserve_index=False)
            writer = writer or parquet.ParquetWriter(folder / "votes.parquet", table.schema)
            writer.write_table(table)
    assert writer is not None
    writer.close()
    with zipfile.ZipFile(folder / "votes.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / _NAME, _NAME)
    (folder / _NAME).rename(folder / "votes.csv")


def _peak() -> int:
    """The peak memory of this process in bytes. On Linux getrusage may give that of the process which started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(small: Path, path: Path, images: Path) -> dict[str, float]:
    """What reading a table costs in this process: seconds, and bytes above those after a small one was read.

    images: a folder with a few images whose numbers are in both.
    """
    from preprocess.fitting import ANYTHING
    from preprocess.surveys import survey_of

    with TemporaryDirectory() as scratch:
        survey_of(images, Path(scratch), small, ANYTHING)
        before, begin = _peak(), time.monotonic()
        survey_of(images, Path(scratch), path, ANYTHING)
    return {"seconds": time.monotonic() - begin, "bytes": _peak() - before}


def _in_child(small: Path, path: Path, images: Path, repeats: int) -> tuple[float, float]:
    """The medians of a few fresh processes: bytes and seconds."""
    command = [sys.executable, "-m", "benchmarks.votes", "--measure", *map(str, (small, path, images))]
    runs = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout)
        for _ in range(repeats)
    ]
    return median(run["bytes"] for run in runs), median(run["seconds"] for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.votes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--solutions", type=Path, help="table of votes with Kaggle's columns, to draw from")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="sizes of the tables (default: %(default)s)")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS, help="of the tables (default: all)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each, of which the median counts (default: %(default)s)"
    )
    parser.add_argument("--measure", type=Path, nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure)))
        return
    if args.solutions is None:
        parser.error("--solutions is required")
    print("| rows | format | MB of the file | peak memory, MB | bytes per row | above the first size | s |")
    print("|---|---|---|---|---|---|---|")
    first: dict[str, tuple[int, float]] = {}
    with TemporaryDirectory() as name:
        folder, smallest = Path(name), Path(name) / "small"
        images = folder / "images"
        images.mkdir()
        smallest.mkdir()
        write_tables(smallest, args.solutions, _SMALL)
        for galaxy in range(_SMALL):  # only their names are read
            (images / f"{galaxy}.jpg").write_bytes(b"\xff\xd8\xff")
        for rows in args.rows:
            write_tables(folder, args.solutions, rows)
            for form in args.formats:
                path = folder / f"votes.{form}"
                peak, seconds = _in_child(smallest / path.name, path, images, args.repeats)
                fewest, least = first.setdefault(form, (rows, peak))
                beyond = f"{(peak - least) / (rows - fewest):.0f}" if rows > fewest else ""
                cells = (f"{rows:,}", form, f"{path.stat().st_size / 1e6:.1f}", f"{peak / 1e6:.1f}", f"{peak / rows:.0f}")
                print(f"| {' | '.join(cells)} | {beyond} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
