"""Counts of votes in place of fractions: `best` beside weighted cross-entropy and the Dirichlet head, on real galaxies.

Forty volunteers are drawn for each of Kaggle's galaxies (seed 0): a question is put to those whose answer leads to it, and
they answer with the published fractions. From the same draws two datasets of 64 x 64 pixels are built: one with cumulative
fractions, as Kaggle publishes them, and one with counts. 35 % of the galaxies are held out as `test`; no best epoch is chosen
and nothing stops early.

    .venv/bin/python -m benchmarks.counts --src ../shared/kaggle --weights ../shared/weights/vgg16_imagenet_notop.weights.h5

Scores are RMSEs against the drawn votes and against the published ones, which are less noisy. A run takes about
13 minutes on two quiet cores. Finished runs are kept in --work, and skipped next time.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.tables import difference
from benchmarks.accuracy.work import SIZE, SOLUTIONS, run_command
from benchmarks.children import REPOSITORY
from tfrecords.builtin import builtin_tree
from tfrecords.tree import Tree
from tfrecords.treefile import parse_tree

VOLUNTEERS, SEED = 40, 0
HELD_OUT = ("--validation_fraction", "0", "--test_fraction", "0.35", "--seed", "0")
_CUMULATIVE, _COUNTS = 'kind = "cumulative"', 'kind = "counts"'
# Label -> dataset, flags of trainer.
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "`best`, fractions": ("fractions", ()),
    "`best`, counts": ("counts", ()),
    "`--head dirichlet`, counts": ("counts", ("--head", "dirichlet")),
}


def draw_counts(fractions: np.ndarray, tree: Tree, generator: np.random.Generator) -> np.ndarray:
    """Counts (galaxies, n) of VOLUNTEERS per galaxy who answer with these cumulative fractions (galaxies, n)."""
    counts = np.zeros(fractions.shape, np.int64)
    shares = tree.project(fractions)
    for question in tree.questions:
        group = shares[:, question.columns]
        total = group.sum(axis=1, keepdims=True)
        chances = np.divide(group, total, out=np.full_like(group, 1 / group.shape[1]), where=total > 0)
        asked = counts[:, list(question.parents)].sum(axis=1) if question.parents else np.full(len(counts), VOLUNTEERS)
        counts[:, question.columns] = generator.multinomial(asked, chances)
    return counts


def prepare(source: Path, work: Path) -> None:
    """Draw the votes and build both datasets, unless that is done."""
    published = next(source.rglob(SOLUTIONS))
    with published.open(newline="") as file:
        header, *rows = csv.reader(file)
    tree = builtin_tree()
    fractions = np.array([[float(value) for value in row[1:]] for row in rows])[:, [header.index(c) - 1 for c in tree.columns]]
    counts = draw_counts(fractions, tree, np.random.default_rng(SEED))
    work.mkdir(parents=True, exist_ok=True)
    (work / "counts.toml").write_text(tree.text.replace(_CUMULATIVE, _COUNTS).replace('name = "kaggle"', 'name = "counts"'))
    for name, values in (("counts", counts), ("fractions", counts / VOLUNTEERS)):
        with (work / f"{name}.csv").open("w", newline="") as file:
            lines = [[row[0], *map(repr, row_values)] for row, row_values in zip(rows, values.tolist(), strict=True)]
            csv.writer(file).writerows([["GalaxyID", *tree.columns], *lines])
        which = work / "counts.toml" if name == "counts" else "kaggle"
        flags = ("--size", SIZE, "--tree", which, "--solutions", work / f"{name}.csv", *HELD_OUT)
        run_command("-m", "preprocess", "--src", source.resolve(), "--out", work / "data" / name, *flags)


def _predictions(run: Path, columns: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    with (run / "predictions-test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["GalaxyID"] for row in rows], np.array([[float(row[column]) for column in columns] for row in rows])


def _table_of(path: Path, ids: list[str], columns: tuple[str, ...]) -> np.ndarray:
    with path.open(newline="") as file:
        rows = {row["GalaxyID"]: row for row in csv.DictReader(file)}
    return np.array([[float(rows[galaxy_id][column]) for column in columns] for galaxy_id in ids])


def _coverage(work: Path, runs: list[Path]) -> str:
    """How many of the 90 % intervals of Dirichlet runs hold the drawn votes, beside the expected share.

    Over all galaxies and answers, as on the page of a run; the mean over the runs.
    """
    from trainer.analysis.intervals import coverage

    tree = parse_tree((work / "counts.toml").read_text(), "counts.toml", "counts")
    overall = []
    for run in runs:
        ids, predicted = _predictions(run, tree.columns)
        _, concentrations = _predictions(run, tuple(f"{question.key}_concentration" for question in tree.questions))
        counts = _table_of(work / "counts.csv", ids, tree.columns)
        asked = np.stack([counts[:, question.columns].sum(axis=1) for question in tree.questions], axis=1)
        overall.append(coverage(tree, predicted, concentrations, counts / VOLUNTEERS, asked).overall(tree))
    held, expected = np.mean(overall, axis=0)
    return f"{held:.1%} ({expected:.1%} expected)"


def print_table(source: Path, work: Path, labels: dict[str, list[Path]]) -> None:
    """Print each kind of run beside the first, the mean over its seeds, as Markdown."""
    columns = builtin_tree().columns
    lines: list[list[str]] = []
    base: dict[str, Any] = {}
    for label, runs in labels.items():
        cells = [label, str(len(runs))]
        for truth, path in (("drawn", work / "fractions.csv"), ("published", next(source.rglob(SOLUTIONS)))):
            errors = []
            for run in runs:
                ids, predicted = _predictions(run, columns)
                errors.append(((predicted - _table_of(path, ids, columns)) ** 2).mean(axis=1))
            mean = np.mean(errors, axis=0)
            shown = difference(mean, base.setdefault(truth, mean))
            beside = "" if base[truth] is mean else f"{shown[0]:+.4f} ({shown[1]:+.4f} to {shown[2]:+.4f})"
            cells += [f"{np.sqrt(mean.mean()):.4f}", beside]
        cells.append(_coverage(work, runs) if "dirichlet" in label else "")
        lines.append(cells)
    header = ["run", "seeds", "RMSE, drawn votes", "minus the first (95 %)", "RMSE, published votes", "minus the first (95 %)",
              "90 % intervals hold"]  # fmt: skip
    for cells in (header, ["---"] * len(header), *lines):
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.counts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--src", type=Path, required=True, help="Kaggle's galaxies, unpacked")
    parser.add_argument("--weights", type=Path, required=True, help="ImageNet weights of VGG16's backbone")
    parser.add_argument(
        "--work", type=Path, default=REPOSITORY / "runs" / "counts", help="folder for runs (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind (default: %(default)s)")
    args = parser.parse_args()
    work = args.work.resolve()
    prepare(args.src, work)
    done: dict[str, list[Path]] = {}
    for seed in range(args.seeds):
        for number, (label, (data, flags)) in enumerate(RUNS.items()):
            run = work / f"run-{number}-{args.epochs}-{seed}"
            common = ("--weights", args.weights.resolve(), "--epochs", args.epochs, "--seed", seed, "--precision", "float32")
            run_command("-m", "trainer", "--tfrecords", work / "data" / data, "--out", run, *common, *flags)
            done.setdefault(label, []).append(run)
    print_table(args.src, work, done)


if __name__ == "__main__":
    main()
