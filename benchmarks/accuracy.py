"""What each choice of a recipe is worth, measured on real galaxies.

The galaxies of --src are cut to 64 x 64 and split as `preprocess --validation_fraction 0.25 --test_fraction 0.1 --seed 0` does.
Models train on a dataset that holds those of `train` alone, so no epoch is chosen and nothing stops early; choices are made on
`validation`, and `test` is scored once, at the end.

    .venv/bin/python benchmarks/accuracy.py --src ../shared/kaggle --weights ../shared/weights/vgg16_imagenet_notop.weights.h5

Finished runs are kept as JSON in --work and skipped next time: the whole takes hours on two cores and can be spread over days.
`--stage screen` tries one change at a time from a base, `--stage confirm` trains the article's recipe, the base, `best`
and a plain Keras loop for longer, `--stage tables` prints what is there as Markdown. `--stage test`, never part of the others,
scores the longer runs on `test` once all of them are there, and writes down when it did.
"""

import argparse
import csv
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
PLAIN = Path(__file__).resolve().parent / "plain_keras.py"
SOLUTIONS = "training_solutions_rev1.csv"
SIZE = 64
SPLIT_FLAGS = ("--validation_fraction", "0.25", "--test_fraction", "0.1", "--seed", "0")
VIEWS = (1, 8)
SCREEN_EPOCHS, CONFIRM_EPOCHS = 4, 10
SEEDS, CONFIRM_SEEDS = (0, 1, 2), (0, 1)

# What a screened change is a change of: the plain loop's choices, with outputs that start at the column means.
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


@dataclass(frozen=True)
class Trial:
    """One run: what differs from the base, in words and in flags. `plain`: the plain Keras loop instead of the trainer."""

    label: str
    changes: Mapping[str, object] = field(default_factory=dict)
    epochs: int = SCREEN_EPOCHS
    seed: int = 0
    plain: bool = False

    def flags(self) -> list[str]:
        values = {"epochs": self.epochs} if self.plain else {**BASE, "epochs": self.epochs, **self.changes}
        return [f"--{name}={value}" for name, value in {**values, "seed": self.seed}.items()]

    @property
    def name(self) -> str:
        """Of its files: it changes with the flags, and with the plain loop, so that an edited trial is run again."""
        words = " ".join([str(self.plain), *self.flags(), *([PLAIN.read_text()] if self.plain else [])])
        digest = hashlib.sha256(words.encode()).hexdigest()[:8]
        label = "".join(letter if letter.isalnum() else "-" for letter in self.label)
        return f"{label}-{self.epochs}-{self.seed}-{digest}"


def recipe(name: str) -> dict[str, Any]:
    """What the trainer takes for a recipe; how long and where from is the trial's."""
    from trainer.config import RECIPES

    return {name: value for name, value in RECIPES[name]().items() if name in BASE}


def _views(trial: Trial) -> tuple[int, ...]:
    """In how many views its model predicts, each in a table of its own."""
    return VIEWS[:1] if trial.plain else VIEWS


def _seeds(trial: Trial, seeds: tuple[int, ...] = SEEDS) -> list[Trial]:
    return [replace(trial, seed=seed) for seed in seeds]


def _changed(label: str, **changes: object) -> Trial:
    return Trial(label, changes)


_TREE: dict[str, object] = {"head": "tree", "loss": "cross_entropy"}
SCREEN = (
    *_seeds(Trial("base")),
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
    # What is to enter `best` needs more than one seed.
    *_seeds(_changed("tree head, cross-entropy", **_TREE)),
    _changed("tree head, cross-entropy, batch 16", **_TREE, batch_size=16, warmup_steps=120),
    _changed("warm-up twice as long", warmup_steps=120),
    _changed("the output layer as Keras starts it", initialisation="he"),
    _changed("full augmentation", augment="full"),
)
CONFIRM = (
    *_seeds(Trial("article, batch 32", {**recipe("article"), "batch_size": 32}, CONFIRM_EPOCHS), CONFIRM_SEEDS),
    *_seeds(Trial("base", {}, CONFIRM_EPOCHS), CONFIRM_SEEDS),
    *_seeds(Trial("best", recipe("best"), CONFIRM_EPOCHS), CONFIRM_SEEDS),
    *_seeds(Trial("plain Keras loop", {}, CONFIRM_EPOCHS, plain=True), CONFIRM_SEEDS),
    Trial("article, batch 1", recipe("article"), CONFIRM_EPOCHS),
)


def _command(*arguments: object) -> None:
    """Run a program in Python; on failure show what it said and stop."""
    command = [sys.executable, "-P", *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")


def _cpu_seconds() -> float:
    """Of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _commit() -> str:
    """Of the code that runs, with a word where it was changed since."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """GalaxyIDs (n,) and the 37 columns (n, 37) of a table, sorted by id."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    ids = np.array([int(row[0]) for row in rows])
    values = np.array([[float(value) for value in row[1:]] for row in rows])
    order = np.argsort(ids)
    return ids[order], values[order]


class Work:
    """The folder of datasets, finished runs and predictions.

    splits/, train/      the datasets: with all splits, and with the galaxies of `train` alone
    inputs.json          fingerprints of both and of the weights: another source needs another folder
    NAME.json            of a finished run: flags, wall and CPU seconds of its training, commit, inputs
    NAME-SPLIT-VIEWS.csv its predictions
    test.json            when `test` was scored, and for which runs, with digests of their predictions
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.splits, self.train = self.folder / "splits", self.folder / "train"
        self._votes: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def prepare(self, source: Path, weights: Path) -> None:
        """Make the datasets, unless they are there. Exits with a line where the folder holds another source's."""
        from tfrecords.dataset import open_dataset
        from tfrecords.files import sha256_file, write_text
        from tfrecords.reader import votes_of

        solutions = next(source.rglob(SOLUTIONS), None)
        if solutions is None:
            sys.exit(f"{source}: holds no {SOLUTIONS}: give --src the folder of Kaggle's galaxies, unpacked")
        if not weights.is_file():
            sys.exit(f"{weights}: no such file: give --weights the ImageNet weights of VGG16's base")
        self.folder.mkdir(parents=True, exist_ok=True)
        common = ("-m", "preprocess", "--src", source.resolve(), "--size", SIZE)
        _command(*common, "--out", self.splits, *SPLIT_FLAGS)
        table = self.folder / "train.csv"
        chosen = {str(number) for number in votes_of(open_dataset(self.splits), "train")[0].tolist()}
        with solutions.open(newline="") as file:
            header, *rows = csv.reader(file)
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([header, *(row for row in rows if row[0] in chosen)])
        none = ("--validation_fraction", "0", "--test_fraction", "0")
        _command(*common, "--out", self.train, "--solutions", table, *none)
        inputs = {name: open_dataset(path).fingerprint for name, path in (("splits", self.splits), ("train", self.train))}
        inputs["weights"] = sha256_file(weights)
        record = self.folder / "inputs.json"
        if not record.is_file():
            write_text(record, json.dumps(inputs))
        elif self.inputs() != inputs:
            sys.exit(f"{self.folder}: holds runs on other galaxies or from other weights: give another --work")

    def inputs(self) -> dict[str, str]:
        content: dict[str, str] = json.loads((self.folder / "inputs.json").read_text())
        return content

    def votes(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """GalaxyIDs (n,), sorted, and votes float64 (n, 37)."""
        if split not in self._votes:
            from tfrecords.dataset import open_dataset
            from tfrecords.reader import votes_of

            ids, votes = votes_of(open_dataset(self.splits), split)
            order = np.argsort(ids)
            self._votes[split] = ids[order], votes[order].astype(np.float64)
        return self._votes[split]

    def predictions_path(self, trial: Trial, split: str, views: int = 1) -> Path:
        return self.folder / f"{trial.name}-{split}-{views}.csv"

    def result(self, trial: Trial) -> dict[str, Any] | None:
        """What is kept of a finished run."""
        path = self.folder / f"{trial.name}.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def run(self, trial: Trial, weights: Path) -> None:
        """Train and predict, unless that is done already. What a killed run left is not gone on with: its time is not known."""
        from tfrecords.files import write_text

        if self.result(trial) is not None:
            return
        print(f"{trial.label}, {trial.epochs} epochs, seed {trial.seed}", file=sys.stderr, flush=True)
        folder = self.folder / "runs" / trial.name
        shutil.rmtree(folder, ignore_errors=True)
        commit, began, used = _commit(), time.monotonic(), _cpu_seconds()
        where = ("--out", folder, "--weights", weights.resolve())
        if trial.plain:
            _command(PLAIN, "train", *where, "--train", self.train, *trial.flags())
        else:
            _command("-m", "trainer", *where, "--tfrecords", self.train, *trial.flags())
        seconds = {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(_cpu_seconds() - used, 1)}
        for split in ("validation", "test") if trial in CONFIRM else ("validation",):
            for views in _views(trial):
                program = (PLAIN, "predict") if trial.plain else ("-m", "trainer", "predict", "--tta", views)
                out = self.predictions_path(trial, split, views)
                _command(*program, "--run", folder, "--tfrecords", self.splits, "--split", split, "--out", out)
        result = {"flags": " ".join(trial.flags()), **seconds, "commit": commit, "inputs": self.inputs()}
        write_text(self.folder / f"{trial.name}.json", json.dumps(result))
        shutil.rmtree(folder)

    def predicted(self, trial: Trial, split: str, views: int = 1) -> np.ndarray:
        """float64 (n, 37) in the order of `votes`."""
        ids, predicted = _rows(self.predictions_path(trial, split, views))
        assert np.array_equal(ids, self.votes(split)[0])
        return predicted

    def errors(self, predicted: np.ndarray, split: str) -> np.ndarray:
        """The mean squared error of each galaxy over its columns, (n,)."""
        return np.asarray(((predicted - self.votes(split)[1]) ** 2).mean(axis=1))

    def groups(self, trials: tuple[Trial, ...]) -> dict[str, list[Trial]]:
        """The finished ones, by label."""
        groups: dict[str, list[Trial]] = {}
        for trial in trials:
            if self.result(trial):
                groups.setdefault(trial.label, []).append(trial)
        return groups

    def score_test(self) -> None:
        """Allow the tables of `test`, from now on. Exits with a line where a run of them is missing."""
        from tfrecords.files import sha256_file, write_text

        missing = [f"{trial.label}, seed {trial.seed}" for trial in CONFIRM if not self.result(trial)]
        if missing:
            sys.exit(f"test is scored once, when all runs are there: {len(missing)} are not ({'; '.join(missing)})")
        path = self.folder / "test.json"
        tables = [self.predictions_path(trial, "test", views) for trial in CONFIRM for views in _views(trial)]
        digests = {path.name: sha256_file(path) for path in tables}
        if not path.is_file():
            write_text(path, json.dumps({"scored": time.strftime("%Y-%m-%d %H:%M"), "commit": _commit(), "runs": digests}))
        first = json.loads(path.read_text())
        same = "for these runs" if first["runs"] == digests else "FOR OTHER RUNS: these were chosen after test was seen"
        print(f"`test` was first scored on {first['scored']}, {same}.\n")


def main() -> None:
    from accuracy_tables import print_confirmed, print_screen

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--src", type=Path, required=True, help="Kaggle's galaxies, unpacked")
    parser.add_argument("--weights", type=Path, required=True, help="file of the ImageNet weights of VGG16's base")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "accuracy", help="(default: %(default)s)")
    stages = {"screen": SCREEN, "confirm": CONFIRM, "tables": (), "test": (), None: SCREEN + CONFIRM}
    parser.add_argument("--stage", choices=[stage for stage in stages if stage], help="(default: all but test)")
    args = parser.parse_args()
    work = Work(args.work)
    work.prepare(args.src, args.weights)
    for trial in stages[args.stage]:
        work.run(trial, args.weights)
    if args.stage == "test":
        work.score_test()
        print_confirmed(work, CONFIRM, "test")
    else:
        print_screen(work, SCREEN)
        print_confirmed(work, CONFIRM, "validation")


if __name__ == "__main__":
    main()
