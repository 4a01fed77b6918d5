"""What a galaxy run is worth as a start for another survey with few labelled galaxies, compared with ImageNet.

    .venv/bin/python -m benchmarks.warm_start --src ../shared/kaggle --weights FILE

Half of the galaxies of --src train the first run, on Kaggle's tree. The other half is a survey of its own, with another tree
of seven columns: 50, 200 or 1,000 of its galaxies train, and the same others are the test. The recipe is `best` with the
epochs below, the model that of the last epoch. Finished runs in --work are kept. Prints a table with differences on the same
test galaxies and paired bootstrap intervals.
"""

import argparse
import csv
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.accuracy.tables import difference
from benchmarks.children import REPOSITORY, run_child
from benchmarks.galaxies import IMAGES, SEED, TABLE

_TREE = """id = "GalaxyID"

[[votes]]
kind = "cumulative"
warning = 1e-3
error = 2e-3

[[question]]
key = "shape"
answers = { smooth = "shape_smooth", disk = "shape_disk", star = "shape_star" }

[[question]]
key = "edge"
after = ["shape_disk"]
answers = { yes = "edge_yes", no = "edge_no" }

[[question]]
key = "spiral"
after = ["edge_no"]
answers = { yes = "spiral_yes", no = "spiral_no" }
"""
_FROM_KAGGLE = {
    "shape_smooth": "Class1.1", "shape_disk": "Class1.2", "shape_star": "Class1.3", "edge_yes": "Class2.1",
    "edge_no": "Class2.2", "spiral_yes": "Class4.1", "spiral_no": "Class4.2",
}  # fmt: skip
_TEST = 532
# Labelled galaxies: batch size, epochs, steps of warm-up.
_SIZES = {50: (10, 30, 15), 200: (20, 20, 30), 1000: (32, 10, 60)}
_FIRST_EPOCHS = 8
_STARTS = ("ImageNet", "galaxy run", "galaxy run, 3 blocks frozen")


def _lay_out(src: Path, rows: Sequence[dict[str, str]], columns: dict[str, str], folder: Path) -> None:
    """Copy galaxies with the votes of these columns, renamed."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / IMAGES).mkdir(parents=True)
    with (folder / TABLE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["GalaxyID", *columns])
        for row in rows:
            shutil.copyfile(src / IMAGES / f"{row['GalaxyID']}.jpg", folder / IMAGES / f"{row['GalaxyID']}.jpg")
            writer.writerow([row["GalaxyID"], *(row[name] for name in columns.values())])


def _run(work: Path, name: str, *arguments: object) -> None:
    command = [sys.executable, "-m", *map(str, arguments)]
    (work / "logs").mkdir(exist_ok=True)
    run_child(command, work / "logs" / f"{name}.log")


def prepare(work: Path, src: Path, size: int) -> None:
    """Build the datasets `first`, `train-N` and `test` in `work`."""
    with (src / TABLE).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (src / IMAGES / f"{row['GalaxyID']}.jpg").is_file()]
    random.Random(SEED).shuffle(rows)
    half = len(rows) // 2
    kaggle = {name: name for name in rows[0] if name != "GalaxyID"}
    (work / "tree.toml").write_text(_TREE)
    parts = {"first": (rows[:half], kaggle), "test": (rows[half : half + _TEST], _FROM_KAGGLE)}
    for count in _SIZES:
        parts[f"train-{count}"] = rows[half + _TEST : half + _TEST + count], _FROM_KAGGLE
    for name, (chosen, columns) in parts.items():
        if (work / name).exists():
            continue
        source = work / "sources" / name
        _lay_out(src, chosen, columns, source)
        tree = () if columns is kaggle else ("--tree", work / "tree.toml")
        flags = ("--size", size, "--validation_fraction", 0, "--test_fraction", 0, *tree)
        _run(work, f"preprocess-{name}", "preprocess", "--src", source, "--out", work / name, *flags)


def train(work: Path, weights: Path, seeds: Sequence[int]) -> None:
    """Train the first run, then one for each number of galaxies, start and seed."""
    first = work / "runs" / "first"
    common = ("trainer", "--tfrecords", work / "first", "--out", first)
    _run(work, "first", *common, "--weights", weights, "--epochs", _FIRST_EPOCHS)
    for count, (batch_size, epochs, warmup) in _SIZES.items():
        for seed in seeds:
            for start in _STARTS:
                flags = ("--weights", weights if start == "ImageNet" else first, "--freeze", 3 if "frozen" in start else 0)
                learning = ("--batch_size", batch_size, "--epochs", epochs, "--warmup_steps", warmup, "--seed", seed)
                out = work / "runs" / _name(count, start, seed)
                if (out / "model.keras").exists() and not (out / "checkpoint").exists():  # finished
                    continue
                _run(work, out.name, "trainer", "--tfrecords", work / f"train-{count}", "--out", out, *flags, *learning)
                shutil.rmtree(out / "checkpoint", ignore_errors=True)


def _name(count: int, start: str, seed: int) -> str:
    return f"{count}-{start.replace(' ', '-').replace(',', '')}-{seed}"


def print_table(work: Path, seeds: Sequence[int]) -> None:
    """Print RMSE on the test galaxies for each number and start, the mean over the seeds, as Markdown."""
    from tfrecords.dataset import open_dataset
    from trainer.predict import predict_split
    from trainer.run import open_run

    test = open_dataset(work / "test")

    def errors(count: int, start: str) -> np.ndarray:
        """The mean squared error of each galaxy, over columns and seeds."""
        of_seeds = []
        for seed in seeds:
            predictions = predict_split(open_run(work / "runs" / _name(count, start, seed)), test, "train")
            squared = np.square(predictions.predicted.astype(np.float64) - predictions.targets)
            of_seeds.append(squared.mean(axis=1))
        return np.asarray(np.mean(of_seeds, axis=0))

    print("| labelled galaxies | start | RMSE | minus ImageNet (95 %) |\n| --- | --- | --- | --- |")
    for count in _SIZES:
        base = errors(count, "ImageNet")
        for start in _STARTS:
            own = errors(count, start)
            value, low, high = difference(own, base)
            beside = "" if start == "ImageNet" else f"{value:+.4f} ({low:+.4f} to {high:+.4f})"
            print(f"| {count:,} | {start} | {np.sqrt(own.mean()):.4f} | {beside} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.warm_start", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--src", type=Path, required=True, help="Kaggle's galaxies, unpacked")
    add("--weights", type=Path, required=True, help="ImageNet weights of VGG16's backbone")
    add("--work", type=Path, default=REPOSITORY / "runs" / "warm_start", help="folder for runs (default: %(default)s)")
    add("--size", type=int, default=64, help="side of the images in pixels (default: %(default)s)")
    add("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of the runs (default: 0 1)")
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    prepare(work, args.src, args.size)
    train(work, args.weights.resolve(), args.seeds)
    print_table(work, args.seeds)


if __name__ == "__main__":
    main()
