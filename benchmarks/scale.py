"""What a job costs besides images and training steps, by the number of galaxies: reruns, resuming, means of targets.

    .venv/bin/python -m benchmarks.scale --src ../shared/kaggle --galaxies 4000 40000

A dataset of 32 x 32 is built from so many files; galaxies recur under new ids. Each time is the median of --rounds.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.galaxies import lay_out
from preprocess import BuildSettings, CropSettings, build_dataset
from preprocess.plan import PlanSettings
from tfrecords.dataset import MANIFEST, Dataset, open_dataset
from tfrecords.integrity import unchanged_shards
from tfrecords.tree import column_means


def _seconds(call: Callable[[], object], rounds: int, before: Callable[[], object] = lambda: None) -> float:
    taken = []
    for _ in range(rounds):
        before()
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return median(taken)


def _measured(source: Path, folder: Path, galaxies: int, rounds: int) -> dict[str, float]:
    """Seconds of each part for a source of so many files, by its name."""
    from tfrecords.reader import target_means, votes_of

    settings = BuildSettings(CropSettings(size=32), PlanSettings())
    out = folder / f"dataset-{galaxies}"
    began = time.perf_counter()
    dataset = build_dataset(source, out, settings, workers=os.cpu_count() or 1).dataset
    built = time.perf_counter() - began

    def again() -> None:
        if not build_dataset(source, out, settings).already_complete:
            raise SystemExit("the finished job was built again")

    def means_of_shards(dataset: Dataset) -> None:
        votes = votes_of(dataset, "train")
        column_means(votes.targets, dataset.tree.counted(votes.asked))

    return {
        "first build": built,
        "rerun, by times of files": _seconds(again, rounds),
        "rerun, by contents of files": _seconds(again, rounds, lambda: os.utime(out / MANIFEST)),
        "hashing finished shards": _seconds(lambda: unchanged_shards(out, dataset.shards), rounds),
        "means of `train`, from the manifest": _seconds(lambda: target_means(open_dataset(out), "train"), rounds),
        "means of `train`, from its shards": _seconds(lambda: means_of_shards(open_dataset(out)), rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--src", type=Path, default=Path("../shared/kaggle"), help="Kaggle's galaxies (default: %(default)s)")
    parser.add_argument("--galaxies", type=int, nargs="+", default=[4000, 40_000], metavar="N", help="sizes, ascending")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    args = parser.parse_args()
    columns = []
    with tempfile.TemporaryDirectory() as scratch:
        for galaxies in args.galaxies:
            source = Path(scratch) / f"source-{galaxies}"
            lay_out(args.src, source, galaxies)
            columns.append(_measured(source, Path(scratch), galaxies, args.rounds))
            shutil.rmtree(source)
    sizes = [f"{galaxies:,}" for galaxies in args.galaxies]
    print(f"| s | {' | '.join(sizes)} | us more per galaxy |\n|{'---|' * (len(sizes) + 2)}")
    for name in columns[0]:
        values = [column[name] for column in columns]
        more = 1e6 * (values[-1] - values[0]) / max(args.galaxies[-1] - args.galaxies[0], 1)
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} | {more:.1f} |")


if __name__ == "__main__":
    main()
