"""Reruns, resuming and means of targets, measured on builds of real files.

A dataset of 32 x 32 is built from so many files; galaxies recur under new ids. Each time is the median of several rounds.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
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


def measure_builds(src: Path, sizes: Sequence[int], rounds: int) -> None:
    """Print a table of seconds, by the number of galaxies.

    src: Kaggle's galaxies. sizes: ascending.
    """
    columns = []
    with tempfile.TemporaryDirectory() as scratch:
        for galaxies in sizes:
            source = Path(scratch) / f"source-{galaxies}"
            lay_out(src, source, galaxies)
            columns.append(_measured(source, Path(scratch), galaxies, rounds))
            shutil.rmtree(source)
    shown = [f"{galaxies:,}" for galaxies in sizes]
    print(f"| s | {' | '.join(shown)} | us more per galaxy |\n|{'---|' * (len(shown) + 2)}")
    for name in columns[0]:
        values = [column[name] for column in columns]
        more = 1e6 * (values[-1] - values[0]) / max(sizes[-1] - sizes[0], 1)
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} | {more:.1f} |")
