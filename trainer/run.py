"""The run folder: its files, and the settings, history, checkpoint and best model of a run.

config.json     settings; the dataset's fingerprint, crop and size; half_light_radius, the range of 98 % of its galaxies;
                start, the run whose weights it started with
tree.toml       the decision tree of the dataset, whose SHA-256 is in config.json
history.csv     one row per epoch
checkpoint/     epoch-00007/{arrays.npz, progress.json}: all that training needs to resume exactly after 7 epochs;
                beside it epoch-00007-step-0000012 if it was interrupted, or saved, 12 steps later
model.keras     the best model so far, for inference
metrics.json, predictions-test.csv, report/, README.md    the run's own evaluation on `test`, after training
evaluations/    NAME/{metrics.json, predictions-SPLIT.csv, report/}: other evaluations of the model
.galaxy-zoo/    the lock, and the list of all these files (see tfrecords/outputs.py)

config.json and progress.json contain their own SHA-256, and progress.json also that of arrays.npz. The list contains those of
the other files.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset, to_json
from tfrecords.errors import ConfigError, RunError, SettingError, lacks_memory, squeezed
from tfrecords.files import (
    PARTIAL_SUFFIX,
    atomic_file,
    exact_text,
    local_path,
    real_folder,
    sha256_file,
    sync_folder,
    write_text,
)
from tfrecords.fits.look import Look, from_settings
from tfrecords.integrity import Stamp
from tfrecords.outputs import NEVER, Output
from tfrecords.tree import Tree
from trainer.history import Epoch, read_history, write_history
from trainer.images.ranges import Ranges, ranges_of
from trainer.metadata import KEY, model_metadata
from trainer.network.archive import require_shapes, write_portable
from trainer.network.backbones import BACKBONES, Backbone
from trainer.network.heads import HEADS, output_width
from trainer.origin import require_origin, tree_of
from trainer.saving import NOTHING_YET, Progress
from trainer.sealing import seal, unseal

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
class Record:
    """The files of one evaluation of a run on a split, named relative to the run folder.

    folder: empty for the run's own evaluation, else a folder, with a slash at the end.
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


# Written by training; every other evaluation has its own folder.
OWN = Record("test")


@dataclass(frozen=True)
class Run:
    """A run folder: its path, the content of its config.json, and the decision tree whose votes it predicts."""

    folder: Path
    config: dict[str, Any]
    tree: Tree = field(default_factory=builtin_tree)

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.config["settings"])

    @property
    def backbone(self) -> Backbone:
        """Its backbone. Raises RunError if this version has none of that name."""
        name = self.settings.get("backbone")
        if name not in BACKBONES:
            raise RunError(
                f"{self.folder / CONFIG}: unknown backbone {str(name)[:80]!r}: use the version that trained this run"
            )
        return BACKBONES[name]

    @property
    def ranges(self) -> Ranges:
        """The size and brightness of its training galaxies."""
        return ranges_of(self.config)

    @property
    def look(self) -> Look | None:
        """How its dataset's FITS images were drawn; None if it was not made of such."""
        return from_settings(self.config["dataset"])

    @property
    def output(self) -> Output:
        """Our files in the folder, as its marker lists them now."""
        return Output(self.folder, "run")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder while the block runs. Raises ConfigError if another command is writing in it.

        An opened run may have been copied without its marker; the files that came with it are then left unchanged.
        """
        with self.output.locked(_BUSY, beside_others=bool(self.config)):
            yield

    @property
    def model_path(self) -> Path:
        return self.folder / MODEL

    def path(self, name: str) -> Path:
        """The path of a file of a `Record`."""
        return self.folder / name

    def evaluation(self, dataset: Dataset, split: str) -> Record:
        """The record of an evaluation after training, named after the split and, for another dataset, its fingerprint."""
        other = dataset.fingerprint != self.config["dataset"]["fingerprint"]
        name = f"{split}-of-{dataset.fingerprint[:12]}" if other else split
        return Record(split, f"{EVALUATIONS}/{name}/")

    def load_model(self) -> Any:
        """The best model, ready for prediction. Raises RunError if it does not exist yet, has changed, or cannot be read."""
        import keras

        if not self.model_path.is_file():
            raise RunError(f"{self.folder}: has no {MODEL} yet: resume its training first")
        self.output.check(MODEL, "restore the model of this run, or train again in another --out")
        try:
            model = keras.saving.load_model(self.model_path, compile=False)
            require_shapes(model, self.config["dataset"]["size"], output_width(self.settings["head"], self.tree))
            return model
        except Exception as error:  # Keras raises many kinds of error for a damaged file
            if lacks_memory(error):
                raise MemoryError(f"reading {self.model_path}") from error
            reason = squeezed(error)
            raise RunError(f"{self.model_path}: cannot be loaded ({reason}): train again in another --out") from error

    def metadata(self) -> dict[str, Any]:
        """What its model needs to be used elsewhere, see `trainer.metadata`."""
        folder = os.fsencode(self.folder).decode("utf-8", "backslashreplace")
        return model_metadata(folder, self.config, self.tree)

    def check_model(self) -> None:
        """Raise RunError if the best model of the finished epochs is missing or has changed: no checkpoint holds it."""
        if not (self.model_path.is_file() and self.output.is_intact(MODEL)):
            raise RunError(
                f"{self.model_path}: is missing or has changed since it was written: restore it, or start again "
                "with --overwrite"
            )

    def check_dataset(self, dataset: Dataset) -> None:
        """Raise ConfigError if the dataset's tree, crop or size differs from that the model was trained on."""
        self.tree.refuse_other(dataset.tree, self.folder, dataset.folder)
        for name, now in (("crop_fraction", dataset.settings["crop_fraction"]), ("size", dataset.size)):
            if self.config["dataset"][name] != now:
                raise ConfigError(
                    f"{dataset.folder}: its {name} is {now}, but {self.folder} was trained with "
                    f"{self.config['dataset'][name]}: preprocess with the same --{name}"
                )

    def history(self) -> list[Epoch]:
        """The finished epochs, from history.csv. Raises RunError if it is damaged or was changed."""
        return read_history(self.output)

    def write_history(self, history: Sequence[Epoch]) -> None:
        write_history(self.output, history)

    def save_model(self, model: Any) -> None:
        """Save a model as model.keras, atomically."""
        output = self.output
        output.claim(MODEL)
        partial = output.private / f".{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
        partial.mkdir()
        saved, unfinished = partial / f"saved-{MODEL}", partial / MODEL  # Keras requires the suffix .keras
        try:
            model.save(saved)
            write_portable(saved, unfinished, {KEY: self.metadata()})
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, self.model_path)
        except OSError as error:
            error.filename = error.filename or str(self.model_path)  # Keras writes through h5py, which names no file
            raise
        finally:
            for path in (saved, unfinished):
                path.unlink(missing_ok=True)
            partial.rmdir()
        sync_folder(self.folder)
        output.settle(MODEL)

    def save_checkpoint(self, arrays: Sequence[np.ndarray], progress: Progress) -> None:
        """Commit everything that training resumes from as one folder, and remove the previous one.

        Within an epoch, the one from its beginning is kept: other machines may have to begin the epoch again.
        """
        step = f"-step-{progress.steps:07d}" if progress.steps else ""
        name = f"{CHECKPOINT}/epoch-{progress.finished:05d}{step}"
        final, output = self.folder / name, self.output
        listed = {f"{name}/{_ARRAYS}", f"{name}/{_PROGRESS}"}
        if (final / _PROGRESS).is_file():
            if self._read_progress(final).get("streams", 0) == progress.streams:
                return  # saved already: the same validation was interrupted twice
            output.remove(sorted(listed))  # of an epoch that has begun again
        output.claim(*listed, digest=NEVER)
        real_folder(final.parent)
        partial = output.private / f".{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
        partial.mkdir()
        named: dict[str, Any] = {f"{index:04d}": array for index, array in enumerate(arrays)}
        with atomic_file(partial / _ARRAYS) as file:
            np.savez(file, **named)  # NumPy 2.1 would store allow_pickle=False as an array
        content = {**asdict(progress), "arrays": sha256_file(partial / _ARRAYS), "run": self._identity()}
        write_text(partial / _PROGRESS, seal(content))
        partial.rename(final)
        sync_folder(final.parent)
        kept = (f"{name}/", f"{CHECKPOINT}/epoch-{progress.finished:05d}/")
        output.remove([old for old in output.files if old.startswith(f"{CHECKPOINT}/") and not old.startswith(kept)])

    def _identity(self) -> str:
        """A hash that ties a checkpoint to its settings and dataset."""
        parts = {name: self.config.get(name) for name in ("settings", "dataset")}
        parts["dataset"] = (parts["dataset"] or {}).get("fingerprint")
        return hashlib.sha256(to_json(parts).encode("utf-8")).hexdigest()

    def _latest_checkpoint(self, within: bool) -> Path | None:
        checkpoints = sorted(path.parent for path in (self.folder / CHECKPOINT).glob(f"epoch-*[0-9]/{_PROGRESS}"))
        return next((latest for latest in reversed(checkpoints) if within or "-step-" not in latest.name), None)

    def _read_progress(self, latest: Path) -> dict[str, Any]:
        try:
            content = unseal(exact_text(latest / _PROGRESS))
            if content["run"] != self._identity():
                raise ValueError("it belongs to another run")
            return content
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise RunError(f"{latest}: damaged ({error}): {_START_AGAIN}") from error

    def progress(self, within: bool = True) -> Progress:
        """The progress in the latest checkpoint, or the latest that is not within an epoch.

        Raises RunError if it is damaged or belongs to another run.
        """
        latest = self._latest_checkpoint(within)
        if latest is None:
            return NOTHING_YET
        content = self._read_progress(latest)
        history = tuple(Epoch(**row) for row in content["history"])
        return Progress(history, content["steps"], content["precision"], content["backend"], content.get("streams", 0))

    def checkpoint_arrays(self, within: bool = True) -> list[np.ndarray]:
        """The arrays of the same checkpoint as `progress`, as saved. Raises RunError if they are damaged."""
        latest = self._latest_checkpoint(within)
        assert latest is not None
        digest = self._read_progress(latest)["arrays"]
        try:
            if sha256_file(latest / _ARRAYS) != digest:
                raise ValueError("it has changed since it was written")
            with np.load(latest / _ARRAYS) as arrays:
                return [arrays[f"{index:04d}"] for index in range(len(arrays.files))]
        except Exception as error:  # zip, pickle and shape errors of many kinds
            if lacks_memory(error):
                raise MemoryError(f"reading {latest}") from error
            raise RunError(f"{latest}: damaged ({error}): {_START_AGAIN}") from error

    def checked_shards(self) -> dict[str, Stamp]:
        """The shards that this run has hashed before, as `integrity.check_shards` returned them; empty if unknown."""
        try:
            content = json.loads((self.output.private / _SHARDS).read_text("utf-8"))
            if content["fingerprint"] == self.config["dataset"]["fingerprint"]:
                return {name: tuple(stamp) for name, stamp in content["stamps"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return {}

    def remember_shards(self, stamps: Mapping[str, Stamp]) -> None:
        """Save which shards need not be hashed again while they do not change."""
        if dict(stamps) == self.checked_shards():
            return
        content = {"fingerprint": self.config["dataset"]["fingerprint"], "stamps": dict(stamps)}
        write_text(self.output.private / _SHARDS, to_json(content))


def open_run(folder: str | Path) -> Run:
    """Open a run.

    Parameters
    ----------
    folder : str or Path
        Run folder, the `out` of a training run.

    Returns
    -------
    Run
        Its settings, history, model and files.

    Raises
    ------
    RunError
        If the folder is not a run, or its config.json was changed.

    Examples
    --------
    >>> from trainer import open_run
    >>> run = open_run("runs/demo")
    >>> run.settings["backbone"], len(run.history())
    ('vgg16', 1)
    """
    folder = local_path(folder)
    path = folder / CONFIG
    hint = "set --run to the --out folder of a trainer command"
    if not path.is_file():
        raise RunError(f"{folder}: not a run folder ({CONFIG} is missing): {hint}")
    try:
        text = exact_text(path)
        if {*json.loads(text)} >= {"settings", "dataset"} and "sha256" not in json.loads(text):
            raise ValueError("it was written by an earlier version of this program")
        config = unseal(text)
        if (head := config["settings"].get("head", HEADS[0])) not in HEADS:
            raise ValueError(f"unknown head {head!r}")
        require_origin(config["dataset"])
        ranges_of(config)
    except (ValueError, KeyError, TypeError, AttributeError, SettingError) as error:
        raise RunError(f"{path}: not the intact {CONFIG} of a run ({error}): restore it, or {hint}") from error
    return Run(folder, config, tree_of(folder, config))
