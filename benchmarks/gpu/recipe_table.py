"""The table of `recipes`: the RMSE of each trial on `test`, and how it differs from `best` on the same galaxies.

    .venv/bin/python -m benchmarks.gpu.recipe_table OUT/runs DATASET

OUT: of `benchmarks.gpu --only recipes`. Seeds of a trial are averaged galaxy by galaxy.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.accuracy.tables import difference
from benchmarks.gpu.recipes import TRIALS, folder_name
from tfrecords.dataset import open_dataset
from trainer.backends.startup import load_backend
from trainer.history import best_epoch
from trainer.run import Run, open_run
from trainer.tables import read_csv


def _row(label: str, runs: list[Run], errors: np.ndarray, base: np.ndarray) -> str:
    best = [best_epoch(run.history()) for run in runs]
    validation = " ".join(f"{each.val_mse**0.5:.4f}" for each in best)
    scores = " ".join(f"{score:.4f}" for score in np.sqrt(errors.mean(axis=1)))
    value, low, high = difference(errors.mean(axis=0), base)
    compared = f"{value:+.4f} ({low:+.4f} to {high:+.4f})" if label != "best" else ""
    epochs = " ".join(f"{each.epoch} of {len(run.history())}" for each, run in zip(best, runs, strict=True))
    return f"| {label} | {epochs} | {validation} | {scores} | {compared} |"


def main() -> None:
    folder, dataset = Path(sys.argv[1]), open_dataset(sys.argv[2])
    load_backend()
    from tfrecords.reader import votes_of

    runs: dict[str, list[Run]] = defaultdict(list)
    errors: dict[str, list[np.ndarray]] = defaultdict(list)
    for trial in TRIALS:
        run = folder / folder_name(trial)
        if (run / "predictions-test.csv").exists():
            label = trial.partition(", seed")[0]
            predictions = read_csv(run / "predictions-test.csv", dataset.tree, votes_of(dataset, "test"))
            runs[label].append(open_run(run))
            errors[label].append(np.square(predictions.predicted.astype(np.float64) - predictions.targets).mean(axis=1))
    means = {label: np.stack(each) for label, each in errors.items()}
    print("| trial | best epoch | validation RMSE | test RMSE | minus best (95 %) |\n|---|---|---|---|---|")
    for label, each in means.items():
        print(_row(label, runs[label], each, means["best"].mean(axis=0)))


if __name__ == "__main__":
    main()
