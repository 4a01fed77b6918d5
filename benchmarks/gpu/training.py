"""Training: the RMSE that a recipe reaches in --epochs, and whether a killed run ends like an undisturbed one."""

import json
import re
import shutil
import statistics
import time
from pathlib import Path

from benchmarks.gpu.processes import end, must_run, python, run, start
from benchmarks.gpu.settings import Settings
from benchmarks.terminal import terminal
from trainer.history import Epoch, best_epoch
from trainer.run import open_run

_RECIPES: dict[str, tuple[object, ...]] = {
    "best": (),
    "article": ("--recipe", "article"),
    "article-32": ("--recipe", "article", "--batch_size", 32),
}
_TO_EVALUATE, _TO_SAVE = 60.0, 20.0  # seconds reserved for each if training does not end in time


def _flags(settings: Settings, folder: Path) -> tuple[object, ...]:
    common = ("--tfrecords", settings.dataset, "--weights", settings.weights, "--out", folder)
    return (*common, "--batch_size", 8, "--limit", 48) if settings.small else (*common, "--require_gpu")


def _history(folder: Path) -> list[Epoch]:
    return open_run(folder).history() if (folder / "history.csv").exists() else []


def _train(settings: Settings, seconds: float, name: str) -> None:
    """Train a recipe; a run stopped by the time limit is evaluated with its best model so far."""
    folder, epochs = settings.run(name), 2 if settings.small else settings.epochs
    training = python("-m", "trainer", *_RECIPES[name], *_flags(settings, folder), "--epochs", epochs)
    patient = max(seconds - _TO_EVALUATE, seconds / 2)
    log = settings.log(f"train-{name}-command")
    ended = run(training, log, patient, grace=min(_TO_SAVE, patient / 4))
    if ended.timed_out and (folder / "model.keras").exists():
        evaluation = ("evaluate", "--run", folder, "--tfrecords", settings.dataset)
        must_run(python("-m", "trainer", *evaluation), log, seconds - ended.seconds)
    elif ended.rc:
        raise SystemExit(f"training failed: exit status {ended.rc}\n{ended.tail}")
    rows = _history(folder)
    later, best = rows[1:] or rows, best_epoch(rows)
    # The metrics of a stopped run are in evaluations/, which sorts before the run's own.
    metrics = sorted(folder.glob("**/metrics.json"))
    scores = json.loads(metrics[-1].read_text()) if metrics else {}
    settings.record(
        f"train-{name}",
        epochs=len(rows),
        of=epochs,
        command_seconds=ended.seconds,
        first_epoch_seconds=rows[0].seconds,
        epoch_seconds=statistics.median(row.seconds for row in later),
        images_per_second=statistics.median(row.images_per_second for row in later),
        best_epoch=best.epoch,
        best_validation_rmse=round(best.val_mse**0.5, 5),
        test={name: scores[name] for name in ("rmse", "interval", "galaxies", "baselines") if name in scores},
    )


def _kill(command: list[str], folder: Path, epochs: int, log: Path, seconds: float) -> tuple[int, int]:
    """Start a run and kill it within an epoch, once an earlier one is saved; return its number, and the percentage it had done.

    On a GPU a save takes as long as several epochs. Zeros if the run ended before.
    """
    ends, shown, at = time.monotonic() + seconds, "", (0, 0)
    with terminal() as screen:  # in which the progress bar is drawn
        process = start(command, log, stderr=screen.theirs)
        screen.started()
        while not any(at) and time.monotonic() < ends and (drawn := screen.read()):
            shown += drawn.decode(errors="replace")
            bars = re.findall(rf"epoch (\d+)/{epochs}:\s+(\d+)%", shown)
            epoch, percentage = map(int, bars[-1]) if bars else (0, 0)
            if percentage >= 20 and _history(folder):
                at = epoch, percentage
        end(process)
    with log.open("a", encoding="utf-8") as file:
        file.write(shown.replace("\r", "\n"))
    return at


def _kill_and_resume(settings: Settings, seconds: float) -> None:
    """kill -9 within an epoch, then the same command again, then an undisturbed run."""
    ends, log = time.monotonic() + seconds, settings.log("kill-and-resume-command")
    folders, epochs = (settings.run("killed"), settings.run("undisturbed")), 3 if settings.small else 12
    commands = [python("-m", "trainer", *_flags(settings, folder), "--epochs", epochs) for folder in folders]
    shutil.rmtree(folders[0], ignore_errors=True)
    killed_in, percentage = _kill(commands[0], folders[0], epochs, log, seconds / 2)
    before = _history(folders[0])
    if not killed_in or len(before) >= epochs:
        raise SystemExit(f"the run was not killed within an epoch: see {log}")
    took = must_run(commands[0], log, ends - time.monotonic())
    must_run([*commands[1], "--overwrite"], log, ends - time.monotonic())
    kept = _history(folders[0])[: len(before)] == before
    resumed, undisturbed = ([row.val_mse for row in _history(folder)] for folder in folders)
    settings.record(
        "kill-and-resume",
        killed_in_epoch=killed_in,
        percentage_of_it=percentage,
        saved_epochs=len(before),
        saved_epochs_kept=kept,
        resumed_seconds=took,
        resumed_validation_mse=resumed,
        undisturbed_validation_mse=undisturbed,
        largest_difference=max(abs(one - other) for one, other in zip(resumed, undisturbed, strict=True)),
    )
    if not kept:
        raise SystemExit("a saved epoch was lost or repeated")


def measure(settings: Settings, seconds: float, name: str) -> None:
    """name: a recipe, or "kill-and-resume"."""
    _train(settings, seconds, name) if name in _RECIPES else _kill_and_resume(settings, seconds)
