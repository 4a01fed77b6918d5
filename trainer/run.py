"""The run folder: what a run is, its history, its checkpoint, its best model; what is saved where.

config.json     settings; the dataset's fingerprint, crop and size; half_light_radius, between which 98 % of its galaxies are
history.csv     one row per epoch
checkpoint/     epoch-00007/{arrays.npz, progress.json}: all that training needs to go on exactly after 7 epochs;
                epoch-00007-step-0000012 where it was interrupted 12 steps later
model.keras     the best model so far, for inference
README.md       the model card, once it is measured
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords import __version__
from tfrecords.dataset import Dataset, to_json
from tfrecords.errors import ConfigError, RunError
from tfrecords.files import PARTIAL_SUFFIX, atomic_file, sync_folder, write_text
from trainer.backbones import BACKBONES, Backbone

CONFIG = "config.json"
MODEL = "model.keras"
HISTORY = "history.csv"
CHECKPOINT = "checkpoint"
_PARTIAL_MODEL = f"partial-{MODEL}"  # Keras insists on the ending
# What --overwrite removes; config.json last, because without it the folder is no run.
_OURS = (
    *("metrics*.json", "predictions-*.csv", MODEL, HISTORY, CHECKPOINT, "tensorboard", "report", "README.md"),
    *(f"*{PARTIAL_SUFFIX}", _PARTIAL_MODEL, CONFIG),
)

# What runs did before these choices could be made, and their config.json does not say.
_EARLIER = {
    **{"backbone": "vgg16", "pooling": "flatten", "head": "sigmoid", "input_scaling": "auto", "initialisation": "means"},
    **{"loss": "mse", "schedule": "constant", "augment": "none", "head_epochs": 0, "weight_decay": 0.0, "ema": 0.0},
}


@dataclass(frozen=True)
class Epoch:
    """One row of the history. Epochs count from 1; mse: over the epoch's steps, as training saw the galaxies (val_mse: after
    it; NaN without validation).

    seconds: wall time with validation, without saving; images_per_second: of the training part alone.
    """

    epoch: int
    mse: float
    val_mse: float
    learning_rate: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Progress:
    """How far a run has come: its finished epochs, the steps done of the next, and what it trains with."""

    history: tuple[Epoch, ...]
    steps: int
    precision: str
    backend: str = ""

    @property
    def finished(self) -> int:
        return len(self.history)


NOTHING_YET = Progress((), 0, "")


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch whose model is kept: the lowest validation MSE, the first of equals; without validation the last."""
    measured = [row for row in history if not np.isnan(row.val_mse)]
    return min(measured, key=lambda row: row.val_mse) if measured else history[-1]


def stops_early(history: Sequence[Epoch], patience: int, not_before: int = 0) -> bool:
    """Whether `patience` epochs have passed since the best one and since epoch `not_before`; never without validation."""
    return bool(history) and history[-1].epoch - max(best_epoch(history).epoch, not_before) >= patience


def _dataset_summary(dataset: Dataset) -> dict[str, Any]:
    return {
        "fingerprint": dataset.fingerprint,
        "crop_fraction": dataset.settings["crop_fraction"],
        "size": dataset.size,
        "encoding": dataset.encoding,
    }


@dataclass(frozen=True)
class Run:
    """A run folder: its path and the content of its config.json."""

    folder: Path
    config: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        return {**_EARLIER, **self.config["settings"]}

    @property
    def backbone(self) -> Backbone:
        """Its convolutional base."""
        return BACKBONES[self.settings["backbone"]]

    @property
    def half_light_radius(self) -> tuple[float, float] | None:
        """1 and 99 % quantiles of its training set, in pixels of the stored image; None of runs that did not measure it."""
        found = self.config.get("half_light_radius")
        return None if found is None else (float(found[0]), float(found[1]))

    @property
    def model_path(self) -> Path:
        return self.folder / MODEL

    def metrics_path(self, split: str) -> Path:
        """metrics.json for the test split, metrics-SPLIT.json for others."""
        return self.folder / ("metrics.json" if split == "test" else f"metrics-{split}.json")

    def predictions_path(self, split: str) -> Path:
        return self.folder / f"predictions-{split}.csv"

    def report_path(self, split: str) -> Path:
        """report/index.html for the test split, report/SPLIT.html for others."""
        return self.folder / "report" / ("index.html" if split == "test" else f"{split}.html")

    def features_path(self, split: str) -> Path:
        """Where the features of a split are kept while the head trains on them."""
        return self.folder / f"features-{split}{PARTIAL_SUFFIX}"

    def load_model(self) -> Any:
        """The best model, ready for prediction. Raises RunError where there is none yet or it is damaged."""
        import keras

        if not self.model_path.is_file():
            raise RunError(f"{self.folder}: has no {MODEL} yet: train it first with the same trainer command")
        try:
            return keras.saving.load_model(self.model_path, compile=False)
        except Exception as error:  # Keras raises many kinds for a damaged file
            reason = " ".join(str(error).split())[:160]
            raise RunError(f"{self.model_path}: cannot be loaded ({reason}): train again with --overwrite") from error

    def check_dataset(self, dataset: Dataset) -> None:
        """Raise ConfigError where the dataset's crop or size is not the one the model was trained on."""
        for name, now in (("crop_fraction", dataset.settings["crop_fraction"]), ("size", dataset.size)):
            if self.config["dataset"][name] != now:
                raise ConfigError(
                    f"{dataset.folder}: its {name} is {now}, but {self.folder} was trained with "
                    f"{self.config['dataset'][name]}: preprocess with the same --{name}"
                )

    def history(self) -> list[Epoch]:
        """The finished epochs, from history.csv."""
        import csv

        path = self.folder / HISTORY
        if not path.is_file():
            return []
        try:
            text = path.read_text("utf-8")
            table = csv.DictReader(text.splitlines())
            rows = list(table)
            if table.fieldnames != [field.name for field in fields(Epoch)] or not text.endswith("\n"):
                raise ValueError("it is not whole")
            return [Epoch(int(row["epoch"]), *(float(row[field.name]) for field in fields(Epoch)[1:])) for row in rows]
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise RunError(f"{path}: damaged ({error}): remove it, and the pages are made without it") from error

    def write_history(self, history: Sequence[Epoch]) -> None:
        lines = [",".join(field.name for field in fields(Epoch))]
        lines += [",".join(repr(value) for value in asdict(row).values()) for row in history]
        write_text(self.folder / HISTORY, "\n".join(lines) + "\n")

    def save_model(self, model: Any) -> None:
        """Put a model under model.keras in one atomic step."""
        partial = self.folder / _PARTIAL_MODEL
        try:
            model.save(partial)
            os.replace(partial, self.model_path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(self.folder)

    def save_checkpoint(self, arrays: Sequence[np.ndarray], progress: Progress) -> None:
        """Commit everything that training goes on from as one folder, and drop the one before."""
        parent = self.folder / CHECKPOINT
        parent.mkdir(exist_ok=True)
        final = parent / (f"epoch-{progress.finished:05d}" + (f"-step-{progress.steps:07d}" if progress.steps else ""))
        if final.exists():  # the same run at the same place: interrupted twice in one validation
            return
        partial = parent / (final.name + PARTIAL_SUFFIX)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        with atomic_file(partial / "arrays.npz") as file:
            np.savez(file, allow_pickle=False, **{f"{index:04d}": array for index, array in enumerate(arrays)})
        write_text(partial / "progress.json", to_json(asdict(progress)))
        partial.rename(final)
        sync_folder(parent)
        for old in parent.iterdir():
            if old != final:
                shutil.rmtree(old)

    def _latest_checkpoint(self) -> Path | None:
        found = sorted((self.folder / CHECKPOINT).glob("epoch-*[0-9]"))
        return found[-1] if found else None

    def progress(self) -> Progress:
        """What the latest checkpoint has behind it. Raises RunError where it is damaged."""
        latest = self._latest_checkpoint()
        if latest is None:
            return NOTHING_YET
        try:
            content = json.loads((latest / "progress.json").read_text("utf-8"))
            return Progress(
                tuple(Epoch(**row) for row in content["history"]), content["steps"], content["precision"], content["backend"]
            )
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise RunError(f"{latest}: damaged ({error}): start again with --overwrite") from error

    def checkpoint_arrays(self) -> list[np.ndarray]:
        """The arrays of the latest checkpoint, as they were given. Raises RunError where they are damaged."""
        latest = self._latest_checkpoint()
        assert latest is not None
        try:
            with np.load(latest / "arrays.npz") as arrays:
                return [arrays[f"{index:04d}"] for index in range(len(arrays.files))]
        except Exception as error:  # zip, pickle and shape errors of many kinds
            raise RunError(f"{latest}: damaged ({error}): start again with --overwrite") from error


def open_run(folder: Path) -> Run:
    """An existing run. Raises RunError where `folder` is none."""
    path = folder / CONFIG
    if not path.is_file():
        raise RunError(f"{folder}: not a run folder ({CONFIG} is missing): give --run the --out of a trainer command")
    try:
        config = json.loads(path.read_text("utf-8"))
        config["settings"], [config["dataset"][name] for name in ("fingerprint", "crop_fraction", "size")]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: damaged ({error}): train again with --overwrite") from error
    return Run(folder, config)


def _clear(folder: Path) -> None:
    for path in [path for pattern in _OURS for path in folder.glob(pattern)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def start(folder: Path, settings: dict[str, Any], dataset: Dataset, overwrite: bool) -> tuple[Run, bool]:
    """The run that belongs in `folder`, and whether it is new: then nothing is written before `create`.

    So a run that fails before its first step (weights that do not fit, no GPU) leaves no trace, and with `overwrite`
    takes nothing away. Raises ConfigError, saying what differs, where the folder holds another run or is no run.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file: choose another --out")
    config = {"settings": settings, "dataset": _dataset_summary(dataset), "tool": {"galaxy-zoo-vgg16": __version__}}
    new = Run(folder, config)
    if not (folder / CONFIG).is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise ConfigError(f"{folder}: is not empty and no run: choose an --out that is empty or new")
        return new, True
    if overwrite:
        return new, True
    run = open_run(folder)
    changed = [
        f"{name} was {run.settings.get(name)}, now {new.settings.get(name)}"
        for name in sorted({*run.settings, *new.settings})
        if run.settings.get(name) != new.settings.get(name)
    ]
    if run.config["dataset"]["fingerprint"] != dataset.fingerprint:
        changed.append("the dataset is another one")
    if changed:
        raise ConfigError(
            f"{folder}: holds another run ({'; '.join(changed)}): choose another --out, or replace it with --overwrite"
        )
    return run, False


def create(run: Run) -> None:
    """Make the folder of a new run, in place of what another run left there."""
    _clear(run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    write_text(run.folder / CONFIG, to_json(run.config))
