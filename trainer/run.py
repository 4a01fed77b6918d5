"""The run folder: what a run is, its history, its checkpoint, its best model; what is saved where.

config.json     settings; the dataset's fingerprint, crop and size; half_light_radius, between which 98 % of its galaxies are
history.csv     one row per epoch
checkpoint/     epoch-00007/{arrays.npz, progress.json}: all that training needs to resume exactly after 7 epochs;
                epoch-00007-step-0000012 where it was interrupted 12 steps later
model.keras     the best model so far, for inference
metrics.json, predictions-test.csv, report/, README.md    the run's own measurement, once training has ended
evaluations/    NAME/{metrics.json, predictions-SPLIT.csv, report/}: other measurements of the model
.galaxy-zoo/    lock, and the list of all these files (see tfrecords/outputs.py)

config.json and progress.json hold their own SHA-256, progress.json also that of arrays.npz; those of the
others are in the list.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords import __version__
from tfrecords.dataset import SPLITS, Dataset, to_json
from tfrecords.errors import ConfigError, RunError, lacks_memory, squeezed
from tfrecords.files import PARTIAL_SUFFIX, atomic_file, local_path, real_folder, sha256_file, sync_folder, write_text
from tfrecords.integrity import Stamp
from tfrecords.outputs import NEVER, PRIVATE, Output
from trainer.history import HISTORY, Epoch, read_history, write_history
from trainer.network.backbones import BACKBONES, Backbone

CONFIG = "config.json"
MODEL = "model.keras"
CARD = "README.md"
CHECKPOINT = "checkpoint"
EVALUATIONS = "evaluations"
_ARRAYS, _PROGRESS = "arrays.npz", "progress.json"
_SHARDS = "shards.json"
_BUSY = "another trainer command is writing here: wait for it, or choose another folder"
_START_AGAIN = "start again with --overwrite, or choose another --out"


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


@dataclass(frozen=True)
class Record:
    """The files of one measurement of a run on a split, by their names relative to the run folder.

    folder: empty for the run's own, else a folder with a slash at its end.
    """

    split: str
    folder: str = ""

    @property
    def metrics(self) -> str:
        return f"{self.folder}metrics.json"

    @property
    def predictions(self) -> str:
        return f"{self.folder}predictions-{self.split}.csv"

    @property
    def report(self) -> str:
        return f"{self.folder}report/index.html"


# What training itself writes; every other measurement has a folder of its own.
OWN = Record("test")


def sealed(content: Mapping[str, Any]) -> str:
    """JSON with the SHA-256 of all the rest of it as "sha256", as in a dataset's manifest."""
    return to_json({**content, "sha256": hashlib.sha256(to_json(content).encode("utf-8")).hexdigest()})


def unsealed(text: str) -> dict[str, Any]:
    """What `sealed` was given. Raises ValueError, KeyError or TypeError where the text is another."""
    content: dict[str, Any] = json.loads(text)
    if sealed({name: value for name, value in content.items() if name != "sha256"}) != text:
        raise ValueError("it was changed since it was written")
    del content["sha256"]
    return content


def _dataset_summary(dataset: Dataset) -> dict[str, Any]:
    return {
        "folder": os.fsencode(dataset.folder).decode("utf-8", "backslashreplace"),
        "galaxies": {split: dataset.galaxies(split) for split in SPLITS if dataset.galaxies(split)},
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
        return dict(self.config["settings"])

    @property
    def backbone(self) -> Backbone:
        """Its convolutional base."""
        return BACKBONES[self.settings["backbone"]]

    @property
    def half_light_radius(self) -> tuple[float, float] | None:
        """1 and 99 % quantiles of its training set, in pixels of the stored image; None of runs that did not measure it."""
        ends = self.config.get("half_light_radius")
        return None if ends is None else (float(ends[0]), float(ends[1]))

    @property
    def output(self) -> Output:
        """The files of the folder that are ours, as its marker lists them now."""
        return Output(self.folder, "run")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder alone while the block runs. Raises ConfigError where another command writes in it.

        A run that was opened may have been copied without its marker; then none of the files that came with it is changed.
        """
        with self.output.locked(_BUSY, beside_others=bool(self.config)):
            yield

    @property
    def model_path(self) -> Path:
        return self.folder / MODEL

    def path(self, name: str) -> Path:
        """Where a file of a `Record` lies."""
        return self.folder / name

    def evaluation(self, dataset: Dataset, split: str) -> Record:
        """Where a measurement that is not training's own goes: named by the split, and for another dataset by that too."""
        other = dataset.fingerprint != self.config["dataset"]["fingerprint"]
        name = f"{split}-of-{dataset.fingerprint[:12]}" if other else split
        return Record(split, f"{EVALUATIONS}/{name}/")

    def load_model(self) -> Any:
        """The best model, ready for prediction. Raises RunError where there is none yet, or it is damaged or another one."""
        import keras

        if not self.model_path.is_file():
            raise RunError(f"{self.folder}: has no {MODEL} yet: train it first with the same trainer command")
        self.output.check(MODEL, "it is not the model of this run: restore it, or train again in another --out")
        try:
            return keras.saving.load_model(self.model_path, compile=False)
        except Exception as error:  # Keras raises many kinds for a damaged file
            if lacks_memory(error):
                raise MemoryError(f"reading {self.model_path}") from error
            reason = squeezed(error)
            raise RunError(f"{self.model_path}: cannot be loaded ({reason}): train again in another --out") from error

    def check_model(self) -> None:
        """Raise RunError where the best model of the finished epochs is gone or another one: no checkpoint holds it."""
        if not (self.model_path.is_file() and self.output.is_intact(MODEL)):
            raise RunError(
                f"{self.model_path}: is missing or was changed since it was written: restore it, or start again "
                "with --overwrite"
            )

    def check_dataset(self, dataset: Dataset) -> None:
        """Raise ConfigError where the dataset's crop or size is not the one the model was trained on."""
        for name, now in (("crop_fraction", dataset.settings["crop_fraction"]), ("size", dataset.size)):
            if self.config["dataset"][name] != now:
                raise ConfigError(
                    f"{dataset.folder}: its {name} is {now}, but {self.folder} was trained with "
                    f"{self.config['dataset'][name]}: preprocess with the same --{name}"
                )

    def history(self) -> list[Epoch]:
        """The finished epochs, from history.csv. Raises RunError where it is damaged or was changed."""
        return read_history(self.output)

    def write_history(self, history: Sequence[Epoch]) -> None:
        write_history(self.output, history)

    def save_model(self, model: Any) -> None:
        """Put a model under model.keras in one atomic step."""
        output = self.output
        output.claim(MODEL)
        partial = output.private / f".{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
        partial.mkdir()
        unfinished = partial / MODEL  # Keras insists on the ending
        try:
            model.save(unfinished)
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, self.model_path)
        finally:
            unfinished.unlink(missing_ok=True)
            partial.rmdir()
        sync_folder(self.folder)
        output.settle(MODEL)

    def save_checkpoint(self, arrays: Sequence[np.ndarray], progress: Progress) -> None:
        """Commit everything that training resumes from as one folder, and drop the one before."""
        step = f"-step-{progress.steps:07d}" if progress.steps else ""
        name = f"{CHECKPOINT}/epoch-{progress.finished:05d}{step}"
        final, output = self.folder / name, self.output
        if (final / _PROGRESS).is_file():  # the same run at the same place: interrupted twice in one validation
            return
        listed = {f"{name}/{_ARRAYS}", f"{name}/{_PROGRESS}"}
        output.claim(*listed, digest=NEVER)
        real_folder(final.parent)
        partial = output.private / f".{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
        partial.mkdir()
        with atomic_file(partial / _ARRAYS) as file:
            np.savez(file, allow_pickle=False, **{f"{index:04d}": array for index, array in enumerate(arrays)})
        content = {**asdict(progress), "arrays": sha256_file(partial / _ARRAYS), "run": self._identity()}
        write_text(partial / _PROGRESS, sealed(content))
        partial.rename(final)
        sync_folder(final.parent)
        output.remove([name for name in output.files if name.startswith(f"{CHECKPOINT}/") and name not in listed])

    def _identity(self) -> str:
        """What ties a checkpoint to the settings and dataset that it is of."""
        parts = {name: self.config.get(name) for name in ("settings", "dataset")}
        parts["dataset"] = (parts["dataset"] or {}).get("fingerprint")
        return hashlib.sha256(to_json(parts).encode("utf-8")).hexdigest()

    def _latest_checkpoint(self) -> Path | None:
        checkpoints = sorted(path.parent for path in (self.folder / CHECKPOINT).glob(f"epoch-*[0-9]/{_PROGRESS}"))
        return checkpoints[-1] if checkpoints else None

    def _read_progress(self, latest: Path) -> dict[str, Any]:
        try:
            content = unsealed((latest / _PROGRESS).read_text("utf-8"))
            if content["run"] != self._identity():
                raise ValueError("it is of another run")
            return content
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise RunError(f"{latest}: damaged ({error}): {_START_AGAIN}") from error

    def progress(self) -> Progress:
        """What the latest checkpoint has behind it. Raises RunError where it is damaged, or of another run."""
        latest = self._latest_checkpoint()
        if latest is None:
            return NOTHING_YET
        content = self._read_progress(latest)
        history = tuple(Epoch(**row) for row in content["history"])
        return Progress(history, content["steps"], content["precision"], content["backend"])

    def checkpoint_arrays(self) -> list[np.ndarray]:
        """The arrays of the latest checkpoint, as they were given. Raises RunError where they are damaged."""
        latest = self._latest_checkpoint()
        assert latest is not None
        digest = self._read_progress(latest)["arrays"]
        try:
            if sha256_file(latest / _ARRAYS) != digest:
                raise ValueError("it was changed since it was written")
            with np.load(latest / _ARRAYS) as arrays:
                return [arrays[f"{index:04d}"] for index in range(len(arrays.files))]
        except Exception as error:  # zip, pickle and shape errors of many kinds
            if lacks_memory(error):
                raise MemoryError(f"reading {latest}") from error
            raise RunError(f"{latest}: damaged ({error}): {_START_AGAIN}") from error

    def checked_shards(self) -> dict[str, Stamp]:
        """The shards that this run has read before, as `integrity.check_shards` found them; empty where that is not known."""
        try:
            content = json.loads((self.output.private / _SHARDS).read_text("utf-8"))
            if content["fingerprint"] == self.config["dataset"]["fingerprint"]:
                return {name: tuple(stamp) for name, stamp in content["stamps"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return {}

    def remember_shards(self, stamps: Mapping[str, Stamp]) -> None:
        """Note which shards need not be hashed again while they stay as they are."""
        if dict(stamps) == self.checked_shards():
            return
        content = {"fingerprint": self.config["dataset"]["fingerprint"], "stamps": dict(stamps)}
        write_text(self.output.private / _SHARDS, to_json(content))


def open_run(folder: Path) -> Run:
    """An existing run. Raises RunError where `folder` is none, or its config.json was changed."""
    path = local_path(folder) / CONFIG
    hint = "give --run the --out of a trainer command"
    if not path.is_file():
        raise RunError(f"{folder}: not a run folder ({CONFIG} is missing): {hint}")
    try:
        text = path.read_text("utf-8")
        if {*json.loads(text)} >= {"settings", "dataset"} and "sha256" not in json.loads(text):
            raise ValueError("it was written by an earlier version of this program")
        config = unsealed(text)
        config["settings"], [config["dataset"][name] for name in ("fingerprint", "crop_fraction", "size", "galaxies", "folder")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: not the intact {CONFIG} of a run ({error}): {hint}, as training left it") from error
    return Run(folder, config)


def _differences(run: Run, new: Run) -> list[str]:
    if head_epochs := run.settings.get("head_epochs"):
        return [f"it was begun with --head_epochs {head_epochs}, which this version no longer has"]
    changed = [
        f"{name} was {run.settings.get(name)}, now {new.settings.get(name)}"
        for name in sorted({*run.settings, *new.settings} - {"head_epochs"})
        if run.settings.get(name) != new.settings.get(name)
    ]
    if run.config["dataset"]["fingerprint"] != new.config["dataset"]["fingerprint"]:
        changed.append("the dataset is another one")
    return changed


def start(folder: Path, settings: dict[str, Any], dataset: Dataset, overwrite: bool) -> tuple[Run, bool]:
    """The run that belongs in `folder`, and whether it is new: then nothing is written before `create`.

    So a run that fails before its first step (weights that do not fit, no GPU) leaves no trace, and with `overwrite`
    takes nothing away. Raises ConfigError, saying what differs, where the folder holds another run, and, naming it, where
    there is anything in the way that no trainer wrote.
    """
    output = Output(folder, "run")
    refuse_lost_marker(output)
    output.refuse_others()
    config = {"settings": settings, "dataset": _dataset_summary(dataset), "tool": {"galaxy-zoo-vgg16": __version__}}
    new = Run(folder, config)
    if overwrite or not (folder / CONFIG).is_file():
        refuse_in_the_way(new)
        output.refuse_others({*output.files, CONFIG})
        return new, True
    run = open_run(folder)
    if changed := _differences(run, new):
        raise ConfigError(
            f"{folder}: holds another run ({'; '.join(changed)}): choose another --out, or replace it with --overwrite"
        )
    return run, False


def refuse_lost_marker(output: Output) -> None:
    """Raise ConfigError for a run that was copied without its marker: nobody could say which of its files are ours."""
    if CONFIG not in output.files and (output.folder / CONFIG).is_file():
        with suppress(RunError):
            open_run(output.folder)
            raise ConfigError(
                f"{output.folder}: is a run without its folder {PRIVATE}, which lists the files that are its own: copy the "
                "whole folder again (`cp -r RUN ELSEWHERE`, not RUN/*), or choose another --out"
            )


def refuse_in_the_way(run: Run) -> None:
    """Raise ConfigError, naming it, for what a run is going to write and is there already, and not as a trainer wrote it."""
    output = run.output
    output.refuse_others([HISTORY, MODEL, OWN.metrics, OWN.predictions, OWN.report, CARD])


def create(run: Run) -> None:
    """Make the folder of a new run, in place of what another run left there."""
    output = run.output
    for path in output.private.glob("features-*"):  # gigabytes, of a run of an earlier version with --head_epochs
        path.unlink()
    # config.json last, because without it the folder is no run.
    output.remove(sorted(output.files, key=lambda name: (name == CONFIG, name)))
    output.write({CONFIG: sealed(run.config).encode("utf-8")})
