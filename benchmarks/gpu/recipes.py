"""The RMSE of recipes at 212 x 212 beside one another: one change of `best` at a time, longer training, two seeds.

Several runs share the GPU, because most of a run with a few thousand galaxies is start-up. So their speed means nothing here.
Compare the validation RMSE; each run is scored on `test` once, at its end.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.processes import end, python, start
from benchmarks.gpu.settings import Settings
from trainer.history import best_epoch
from trainer.run import open_run

_AT_ONCE, _TO_END = 4, 10.0  # seconds reserved to stop what is not finished
_FULL, _AVERAGED, _DECAYED = ("--augment", "full"), ("--ema", 0.99), ("--weight_decay", 0.05)
_LONG = ("--epochs", 100, "--patience", 100)  # no early stopping
TRIALS: dict[str, tuple[object, ...]] = {
    "best, full augmentation, 100 epochs": (*_FULL, *_LONG),
    "best, full augmentation, 100 epochs, seed 1": (*_FULL, *_LONG, "--seed", 1),
    "best": (),
    "best, seed 1": ("--seed", 1),
    "article, batch 32": ("--recipe", "article", "--batch_size", 32),
    "best, full augmentation": _FULL,
    "best, moving average": _AVERAGED,
    "best, weight decay": _DECAYED,
    "best, full augmentation, seed 1": (*_FULL, "--seed", 1),
    "article, batch 32, seed 1": ("--recipe", "article", "--batch_size", 32, "--seed", 1),
    "best, moving average, seed 1": (*_AVERAGED, "--seed", 1),
    "best, weight decay, seed 1": (*_DECAYED, "--seed", 1),
    "best, batch 128, learning rate 2e-4": ("--batch_size", 128, "--learning_rate", 2e-4),
    "best, batch 128": ("--batch_size", 128),
    "best, float32": ("--precision", "float32"),
    "best, 100 epochs": _LONG,
    "best, average pooling": ("--pooling", "average"),
    "best, learning rate 2e-4": ("--learning_rate", 2e-4),
    "best, batch 128, learning rate 2e-4, seed 1": ("--batch_size", 128, "--learning_rate", 2e-4, "--seed", 1),
}
_SMALL = ("best", "best, full augmentation")


def _commands(settings: Settings) -> Iterator[tuple[str, list[str]]]:
    done = {line["recipe"] for line in settings.results() if line["step"] == "recipes" and "recipe" in line}
    for label in _SMALL if settings.small else TRIALS:
        if label not in done:
            common = ("--tfrecords", settings.dataset, "--weights", settings.weights, "--epochs", settings.epochs)
            few = ("--batch_size", 8, "--limit", 48, "--epochs", 2) if settings.small else ("--require_gpu",)
            flags = (*common, *few, *TRIALS[label], "--out", settings.run(folder_name(label)))
            yield label, python("-m", "trainer", *flags)


def folder_name(label: str) -> str:
    """The name of a trial's run folder."""
    return "".join(letter if letter.isalnum() else "-" for letter in label)


def _record(settings: Settings, label: str, rc: int, seconds: float) -> None:
    folder = settings.run(folder_name(label))
    metrics = folder / "metrics.json"
    if rc or not metrics.is_file():
        epochs = len(open_run(folder).history()) if (folder / "history.csv").exists() else 0
        settings.record("recipes", "unfinished", trial=label, rc=rc, epochs=epochs)
        return
    history, scores = open_run(folder).history(), json.loads(metrics.read_text())
    best = best_epoch(history)
    test: dict[str, Any] = {name: scores[name] for name in ("rmse", "interval", "galaxies", "baselines") if name in scores}
    score: dict[str, Any] = {"best_epoch": best.epoch, "validation_rmse": round(best.val_mse**0.5, 5), "test": test}
    settings.record("recipes", recipe=label, epochs=len(history), seconds=round(seconds, 1), **score)


def measure(settings: Settings, seconds: float) -> None:
    """Train as many as the time allows, the most important first. A run that is not finished resumes next time."""
    ends = time.monotonic() + seconds - _TO_END
    waiting = _commands(settings)
    running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
    while time.monotonic() < ends:
        while len(running) < _AT_ONCE and (chosen := next(waiting, None)):
            running[chosen[0]] = start(chosen[1], settings.log(f"recipes-{folder_name(chosen[0])}")), time.monotonic()
        if not running:
            return
        for label in [label for label, (process, _) in running.items() if process.poll() is not None]:
            process, began = running.pop(label)
            _record(settings, label, process.returncode, time.monotonic() - began)
        time.sleep(0.2)
    for label, (process, began) in running.items():
        _record(settings, label, end(process), time.monotonic() - began)
