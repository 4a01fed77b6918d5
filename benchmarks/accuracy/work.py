"""The folder that stores datasets, finished runs and their predictions, so that days of training can be interrupted."""

import csv
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.trials import CONFIRM, Trial
from benchmarks.children import REPOSITORY

SOLUTIONS = "training_solutions_rev1.csv"
SIZE = 64
SPLIT_FLAGS = ("--validation_fraction", "0.25", "--test_fraction", "0.1", "--seed", "0")
VIEWS = (1, 8)
_PLAIN_LOOP = ("-m", "benchmarks.accuracy.plain_keras")


def run_command(*arguments: object) -> None:
    """Run a Python program; if it fails, print its output and exit."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")


def _cpu_seconds() -> float:
    """CPU seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _commit() -> str:
    """The commit of this code, marked if the checkout has changed since."""
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


def _views(trial: Trial) -> tuple[int, ...]:
    """The numbers of views in which its model predicts, each to a separate table."""
    return VIEWS[:1] if trial.plain else VIEWS


class Work:
    """The folder of datasets, finished runs and predictions.

    splits/, train/      the datasets: with all splits, and with only the galaxies of `train`
    inputs.json          fingerprints of both and of the weights; other inputs need another folder
    NAME.json            a finished run: flags, wall and CPU seconds of its training, commit, inputs
    NAME-SPLIT-VIEWS.csv its predictions
    test.json            when `test` was scored, and for which runs, with hashes of their predictions
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.splits, self.train = self.folder / "splits", self.folder / "train"
        self._votes: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def prepare(self, source: Path, weights: Path) -> None:
        """Build the datasets, unless they exist. Exits with a message if the folder was made from other inputs."""
        from tfrecords.dataset import open_dataset
        from tfrecords.files import sha256_file, write_text
        from tfrecords.reader import votes_of

        solutions = next(source.rglob(SOLUTIONS), None)
        if solutions is None:
            sys.exit(f"{source}: contains no {SOLUTIONS}: give --src the folder of Kaggle's galaxies, unpacked")
        if not weights.is_file():
            sys.exit(f"{weights}: no such file: give --weights the ImageNet weights of VGG16's backbone")
        self.folder.mkdir(parents=True, exist_ok=True)
        common = ("-m", "preprocess", "--src", source.resolve(), "--size", SIZE)
        run_command(*common, "--out", self.splits, *SPLIT_FLAGS)
        table = self.folder / "train.csv"
        chosen = {str(number) for number in votes_of(open_dataset(self.splits), "train")[0].tolist()}
        with solutions.open(newline="") as file:
            header, *rows = csv.reader(file)
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([header, *(row for row in rows if row[0] in chosen)])
        none = ("--validation_fraction", "0", "--test_fraction", "0")
        run_command(*common, "--out", self.train, "--solutions", table, *none)
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

            ids, votes, *_ = votes_of(open_dataset(self.splits), split)
            order = np.argsort(ids)
            self._votes[split] = ids[order], votes[order].astype(np.float64)
        return self._votes[split]

    def predictions_path(self, trial: Trial, split: str, views: int = 1) -> Path:
        return self.folder / f"{trial.name}-{split}-{views}.csv"

    def result(self, trial: Trial) -> dict[str, Any] | None:
        """The stored result of a finished run; None if it has not finished."""
        path = self.folder / f"{trial.name}.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def run(self, trial: Trial, weights: Path) -> None:
        """Train and predict, unless that is done. A killed run is not resumed but repeated: its training time is unknown."""
        from tfrecords.files import write_text

        if self.result(trial) is not None:
            return
        print(f"{trial.label}, {trial.epochs} epochs, seed {trial.seed}", file=sys.stderr, flush=True)
        folder = self.folder / "runs" / trial.name
        shutil.rmtree(folder, ignore_errors=True)
        commit, began, used = _commit(), time.monotonic(), _cpu_seconds()
        where = ("--out", folder, "--weights", weights.resolve())
        if trial.plain:
            run_command(*_PLAIN_LOOP, "train", *where, "--train", self.train, *trial.flags())
        else:
            run_command("-m", "trainer", *where, "--tfrecords", self.train, *trial.flags())
        seconds = {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(_cpu_seconds() - used, 1)}
        for split in ("validation", "test") if trial in CONFIRM else ("validation",):
            for views in _views(trial):
                program = (*_PLAIN_LOOP, "predict") if trial.plain else ("-m", "trainer", "predict", "--tta", views)
                out = self.predictions_path(trial, split, views)
                run_command(*program, "--run", folder, "--tfrecords", self.splits, "--split", split, "--out", out)
        result = {"flags": " ".join(trial.flags()), **seconds, "commit": commit, "inputs": self.inputs()}
        write_text(self.folder / f"{trial.name}.json", json.dumps(result))
        shutil.rmtree(folder)

    def predicted(self, trial: Trial, split: str, views: int = 1) -> np.ndarray:
        """Predictions, float64 (n, 37), in the order of `votes`."""
        ids, predicted = _rows(self.predictions_path(trial, split, views))
        assert np.array_equal(ids, self.votes(split)[0])
        return predicted

    def errors(self, predicted: np.ndarray, split: str) -> np.ndarray:
        """The mean squared error of each galaxy over its columns, (n,)."""
        return np.asarray(((predicted - self.votes(split)[1]) ** 2).mean(axis=1))

    def groups(self, trials: tuple[Trial, ...]) -> dict[str, list[Trial]]:
        """The finished trials, by label."""
        groups: dict[str, list[Trial]] = {}
        for trial in trials:
            if self.result(trial):
                groups.setdefault(trial.label, []).append(trial)
        return groups

    def score_test(self) -> None:
        """Record when `test` is first scored, and print it. Exits with a message if a run is missing."""
        from tfrecords.files import sha256_file, write_text

        missing = [f"{trial.label}, seed {trial.seed}" for trial in CONFIRM if not self.result(trial)]
        if missing:
            sys.exit(f"test is scored once, after all runs have finished: {len(missing)} missing ({'; '.join(missing)})")
        path = self.folder / "test.json"
        tables = [self.predictions_path(trial, "test", views) for trial in CONFIRM for views in _views(trial)]
        digests = {path.name: sha256_file(path) for path in tables}
        if not path.is_file():
            write_text(path, json.dumps({"scored": time.strftime("%Y-%m-%d %H:%M"), "commit": _commit(), "runs": digests}))
        first = json.loads(path.read_text())
        same = "for these runs" if first["runs"] == digests else "FOR OTHER RUNS: these were chosen after test was scored"
        print(f"`test` was first scored on {first['scored']}, {same}.\n")
