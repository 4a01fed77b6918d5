"""What each choice of a recipe is worth, measured on real galaxies.

The galaxies of --src are cut to 64 x 64 and split as `preprocess --validation_fraction 0.25 --test_fraction 0.1 --seed 0` does.
Models train on a dataset that holds those of `train` alone, so no epoch is chosen and nothing stops early; choices are made on
`validation`, and `test` is scored once, by the last table.

    .venv/bin/python benchmarks/accuracy.py --src ../shared/kaggle --weights ../shared/weights/vgg16_imagenet_notop.weights.h5

Finished runs are kept as JSON in --work and skipped next time: the whole takes hours on two cores and can be spread over days.
`--stage screen` tries one change at a time from a base, `--stage confirm` trains the article's recipe, the base, `best`
and a plain Keras loop for longer, `--stage tables` prints what is there as Markdown.
"""

import argparse
import csv
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
SIZE = 64
SPLIT_FLAGS = ("--validation_fraction", "0.25", "--test_fraction", "0.1", "--seed", "0")
SPLITS = ("validation", "test")
RESAMPLES = 10_000
VIEWS = (1, 8)

# The plain loop that the recipes must beat, with one thing more: its output starts at the column means.
BASE = {
    "batch_size": 32,
    "learning_rate": 1e-4,
    "schedule": "cosine",
    "warmup_steps": 60,
    "head_epochs": 0,
    "loss": "mse",
    "weight_decay": 0.0,
    "ema": 0.0,
    "augment": "dihedral",
    "backbone": "vgg16",
    "input_scaling": "auto",
    "pooling": "flatten",
    "head": "sigmoid",
    "initialisation": "means",
}
ARTICLE = {
    "learning_rate": 1e-5,
    "schedule": "constant",
    "warmup_steps": 0,
    "augment": "none",
    "input_scaling": "unit",
    "initialisation": "keras",
}
BEST: dict[str, object] = {}
SCREEN_EPOCHS, CONFIRM_EPOCHS = 4, 10
BASE_SEEDS, CONFIRM_SEEDS = (0, 1, 2), (0, 1)


@dataclass(frozen=True)
class Trial:
    """One run: what differs from the base, in words and in flags. `plain`: the plain Keras loop instead of the trainer."""

    label: str
    changes: Mapping[str, object] = field(default_factory=dict)
    epochs: int = SCREEN_EPOCHS
    seed: int = 0
    plain: bool = False

    def flags(self) -> list[str]:
        values = {"epochs": self.epochs, "seed": self.seed} if self.plain else {**BASE, "epochs": self.epochs, **self.changes}
        return [f"--{name}={value}" for name, value in {**values, "seed": self.seed}.items()]

    @property
    def name(self) -> str:
        """Of its files: it changes with the flags, so that an edited trial is run again."""
        digest = hashlib.sha256(" ".join([str(self.plain), *self.flags()]).encode()).hexdigest()[:8]
        words = "".join(letter if letter.isalnum() else "-" for letter in self.label)
        return f"{words}-{self.epochs}-{self.seed}-{digest}"


def _changed(label: str, **changes: object) -> Trial:
    return Trial(label, changes)


SCREEN = (
    *(Trial("base", seed=seed) for seed in BASE_SEEDS),
    _changed("Keras' initialisation", initialisation="keras"),
    _changed("learning rate 5e-5", learning_rate=5e-5),
    _changed("learning rate 2e-4", learning_rate=2e-4),
    _changed("learning rate 5e-4", learning_rate=5e-4),
    # As many galaxies of warm-up as the base has.
    _changed("batch 8", batch_size=8, warmup_steps=240),
    _changed("batch 16", batch_size=16, warmup_steps=120),
    _changed("batch 64", batch_size=64, warmup_steps=30),
    _changed("inputs in 0..1", input_scaling="unit"),
    _changed("no warm-up", warmup_steps=0),
    _changed("constant rate after warm-up", schedule="constant"),
    _changed("no augmentation", augment="none"),
    _changed("4 epochs of the head alone before", head_epochs=4, epochs=SCREEN_EPOCHS + 4),
    _changed("20 epochs of the head alone, no others", head_epochs=20, epochs=20),
    _changed("average pooling", pooling="average"),
    _changed("tree head", head="tree"),
    _changed("tree head, cross-entropy", head="tree", loss="cross_entropy"),
)
CONFIRM = (
    *(Trial("article, batch 32", ARTICLE, CONFIRM_EPOCHS, seed) for seed in CONFIRM_SEEDS),
    *(Trial("base", {}, CONFIRM_EPOCHS, seed) for seed in CONFIRM_SEEDS),
    *(Trial("best", BEST, CONFIRM_EPOCHS, seed) for seed in CONFIRM_SEEDS),
    *(Trial("plain Keras loop", {}, CONFIRM_EPOCHS, seed, plain=True) for seed in CONFIRM_SEEDS),
    Trial("article, batch 1", {**ARTICLE, "batch_size": 1}, CONFIRM_EPOCHS),
)


def _command(module: str, *arguments: object) -> None:
    """Run one of the project's programs; on failure show what it said and stop."""
    command = [sys.executable, "-P", *module.split(), *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")


def _rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """GalaxyIDs (n,) and the 37 columns (n, 37) of a table, sorted by id."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    ids = np.array([int(row[0]) for row in rows])
    values = np.array([[float(value) for value in row[1:]] for row in rows])
    order = np.argsort(ids)
    return ids[order], values[order]


class Work:
    """The folder of datasets, finished runs and predictions."""

    def __init__(self, folder: Path, source: Path, weights: Path) -> None:
        self.folder, self.source, self.weights = folder.resolve(), source.resolve(), weights.resolve()
        self.splits, self.train = self.folder / "splits", self.folder / "train"
        self._votes: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def prepare(self) -> None:
        """The dataset with all splits, and the one that holds its `train` alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _command("-m preprocess", "--src", self.source, "--out", self.splits, "--size", SIZE, *SPLIT_FLAGS)
        table = self.folder / "train.csv"
        from tfrecords.dataset import open_dataset
        from tfrecords.reader import votes_of

        chosen = {str(number) for number in votes_of(open_dataset(self.splits), "train")[0].tolist()}
        with next(self.source.rglob("training_solutions_rev1.csv")).open(newline="") as file:
            header, *rows = csv.reader(file)
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([header, *(row for row in rows if row[0] in chosen)])
        none = ("--validation_fraction", "0", "--test_fraction", "0")
        _command("-m preprocess", "--src", self.source, "--solutions", table, "--out", self.train, "--size", SIZE, *none)

    def votes(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        if split not in self._votes:
            from tfrecords.dataset import open_dataset
            from tfrecords.reader import votes_of

            ids, votes = votes_of(open_dataset(self.splits), split)
            order = np.argsort(ids)
            self._votes[split] = ids[order], votes[order].astype(np.float64)
        return self._votes[split]

    def predictions_path(self, trial: Trial, split: str, views: int) -> Path:
        return self.folder / f"{trial.name}-{split}-{views}.csv"

    def result(self, trial: Trial) -> dict[str, float] | None:
        """What is kept of a finished run."""
        path = self.folder / f"{trial.name}.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def run(self, trial: Trial) -> None:
        """Train and predict, unless that is done already."""
        if self.result(trial) is not None:
            return
        print(f"{trial.label}, {trial.epochs} epochs, seed {trial.seed}", file=sys.stderr, flush=True)
        folder = self.folder / "runs" / trial.name
        began = time.monotonic()
        if trial.plain:
            program = REPOSITORY / "benchmarks" / "plain_keras.py"
            paths = ("--train", self.train, "--splits", self.splits, "--weights", self.weights)
            _command(str(program), *paths, "--out", self.folder / trial.name, *trial.flags())
            seconds = time.monotonic() - began
        else:
            where = ("--tfrecords", self.train, "--out", folder, "--weights", self.weights)
            _command("-m trainer", *where, *trial.flags())
            seconds = time.monotonic() - began
            for split in SPLITS:
                for views in VIEWS:
                    out = self.predictions_path(trial, split, views)
                    where = ("--tfrecords", self.splits, "--split", split, "--out", out)
                    _command("-m trainer predict", "--run", folder, *where, "--tta", views)
            shutil.rmtree(folder)
        result = {"flags": " ".join(trial.flags()), "seconds": round(seconds, 1)}
        (self.folder / f"{trial.name}.json").write_text(json.dumps(result))

    def predicted(self, trial: Trial, split: str = "validation", views: int = 1) -> np.ndarray:
        ids, predicted = _rows(self.predictions_path(trial, split, views))
        assert np.array_equal(ids, self.votes(split)[0])
        return predicted

    def errors(self, predicted: np.ndarray, split: str = "validation") -> np.ndarray:
        """The mean squared error of each galaxy over its columns, (n,)."""
        return np.asarray(((predicted - self.votes(split)[1]) ** 2).mean(axis=1))


def difference(errors: np.ndarray, base: np.ndarray) -> tuple[float, float, float]:
    """RMSE less that of the base on the same galaxies, and its 95 % interval under resampling of galaxies."""
    generator = np.random.default_rng(0)
    both = np.stack([errors, base], axis=1)
    made = []
    for _ in range(RESAMPLES // 100):
        drawn = generator.integers(0, len(both), (100, len(both)))
        means = np.sqrt(both[drawn].mean(axis=1))
        made.append(means[:, 0] - means[:, 1])
    low, high = np.percentile(np.concatenate(made), (2.5, 97.5))
    means = np.sqrt(both.mean(axis=0))
    return float(means[0] - means[1]), float(low), float(high)


def _interval(values: tuple[float, float, float]) -> str:
    return f"{values[0]:+.4f} ({values[1]:+.4f} to {values[2]:+.4f})"


def screen_table(work: Work) -> list[str]:
    """One change at a time, beside the base."""
    bases = [trial for trial in SCREEN if trial.label == "base" and work.result(trial)]
    errors = [work.errors(work.predicted(trial)) for trial in bases]
    base = np.mean(errors, axis=0)
    scores = [float(np.sqrt(one.mean())) for one in errors]
    spread = max(scores) - min(scores)
    low, high = min(scores), max(scores)
    lines = [
        f"Base: RMSE {np.sqrt(base.mean()):.4f} on {len(base):,} galaxies of `validation` ({len(bases)} seeds: {low:.4f} to "
        f"{high:.4f}, a spread of {spread:.4f}).",
        "",
        "| change | RMSE | less the base (95 %) | verdict | s |",
        "|---|---|---|---|---|",
    ]
    for trial in SCREEN:
        result = work.result(trial)
        if trial.label == "base" or result is None:
            continue
        those = work.errors(work.predicted(trial))
        found = difference(those, base)
        exceeds = abs(found[0]) > spread and not found[1] <= 0 <= found[2]
        verdict = ("helps" if found[0] < 0 else "harms") if exceeds else "no difference shown"
        row = (trial.label, f"{np.sqrt(those.mean()):.4f}", _interval(found), verdict, f"{result['seconds']:,.0f}")
        lines.append(f"| {' | '.join(row)} |")
    return lines


def _groups(work: Work) -> dict[str, list[Trial]]:
    groups: dict[str, list[Trial]] = {}
    for trial in CONFIRM:
        if work.result(trial):
            groups.setdefault(trial.label, []).append(trial)
    return groups


def confirm_table(work: Work, split: str) -> list[str]:
    """The longer runs beside `best`, each the mean of its seeds."""
    groups = _groups(work)
    errors = {
        label: np.mean([work.errors(work.predicted(trial, split), split) for trial in trials], axis=0)
        for label, trials in groups.items()
    }
    lines = ["| recipe | seeds | RMSE | `best` less it (95 %) | in % | s a run |", "|---|---|---|---|---|---|"]
    for label, trials in groups.items():
        seconds = np.mean([(work.result(trial) or {})["seconds"] for trial in trials])
        score = np.sqrt(errors[label].mean())
        beside, share = "", ""
        if label != "best" and "best" in errors:
            found = difference(errors["best"], errors[label])
            beside, share = _interval(found), f"{found[0] / score:+.1%}"
        lines.append(f"| {label} | {len(trials)} | {score:.4f} | {beside} | {share} | {seconds:,.0f} |")
    return lines


def without_training_table(work: Work, split: str) -> list[str]:
    """Views, projection onto the tree, and averages of the longer runs."""
    from tfrecords.taxonomy import project

    lines = ["| runs | what is done | RMSE | less one view of each (95 %) |", "|---|---|---|---|"]
    for label, trials in _groups(work).items():
        single = [work.predicted(trial, split) for trial in trials]
        plain = np.mean([work.errors(one, split) for one in single], axis=0)
        ways = {"projected onto the tree": [project(one) for one in single]}
        if not trials[0].plain:
            eight = [work.predicted(trial, split, 8) for trial in trials]
            ways["8 views"] = eight
            if len(trials) > 1:
                ways["8 views, mean of the seeds"] = [np.mean(eight, axis=0)]
        if len(trials) > 1:
            ways["mean of the seeds"] = [np.mean(single, axis=0)]
        for way, made in sorted(ways.items()):
            errors = np.mean([work.errors(one, split) for one in made], axis=0)
            lines.append(f"| {label} | {way} | {np.sqrt(errors.mean()):.4f} | {_interval(difference(errors, plain))} |")
    return lines


def _print(title: str, lines: Sequence[str]) -> None:
    print(f"### {title}\n", *lines, "", sep="\n")


def tables(work: Work) -> None:
    """Everything that is there; `test` only where the last run is in."""
    if any(work.result(trial) for trial in SCREEN if trial.label == "base"):
        _print(f"One change at a time, {SCREEN_EPOCHS} epochs", screen_table(work))
    if _groups(work):
        whole = all(work.result(trial) for trial in CONFIRM)
        for split in SPLITS if whole else SPLITS[:1]:
            _print(f"{CONFIRM_EPOCHS} epochs, {len(work.votes(split)[0]):,} galaxies of {split}", confirm_table(work, split))
            _print(f"Without training, {split}", without_training_table(work, split))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--src", type=Path, required=True, help="Kaggle's galaxies")
    parser.add_argument("--weights", type=Path, required=True, help="file of the ImageNet weights of VGG16's base")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "accuracy", help="(default: %(default)s)")
    parser.add_argument("--stage", choices=("screen", "confirm", "tables"), default=None, help="(default: all of them)")
    args = parser.parse_args()
    work = Work(args.work, args.src, args.weights)
    if args.stage != "tables":
        work.prepare()
        trials = {"screen": SCREEN, "confirm": CONFIRM, None: SCREEN + CONFIRM}[args.stage]
        for trial in trials:
            work.run(trial)
    tables(work)


if __name__ == "__main__":
    main()
