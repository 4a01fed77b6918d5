"""Train a run from its first epoch or its checkpoint to its last epoch, then evaluate it on `test`.

In order: dataset, run folder, devices, column means, model, resuming, epochs, evaluation. Each epoch ends by committing the
best model, history.csv and the checkpoint, in this order; on a GPU beside the next epochs (see `saving`). If the process is
killed between them, the epoch is repeated, which on a CPU gives the same model again. Ctrl-C and SIGTERM save a checkpoint
after the current step, --checkpoint_minutes in its intervals, and the same command resumes with the next step.
"""

import contextlib
import functools
import logging
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from tfrecords.commandline import say
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, RunError
from tfrecords.integrity import check_shards, fetch_shards, read_shards
from tfrecords.interrupts import Interruption, deferred_interrupts
from tfrecords.progress import progress_bar
from tfrecords.storage import open_anywhere
from trainer import advice, beginning
from trainer.backends import hosts
from trainer.backends.base import Devices, Objective, Share, Steps
from trainer.backends.choose import choose
from trainer.backends.startup import explained
from trainer.config import TrainConfig
from trainer.history import HISTORY, Curves, Epoch, best_epoch, stops_early
from trainer.input.augmentation import augment
from trainer.input.scale import training_ranges
from trainer.network.backbones import freeze_blocks
from trainer.network.losses import error_function, loss_function
from trainer.network.model import architecture, build_model, for_inference
from trainer.network.optimizer import Rate, build_optimizer
from trainer.resuming import resume_point
from trainer.run import OWN, Run
from trainer.saving import NOTHING_YET, Progress, Saver, Unsaved
from trainer.warm import open_start, transfer

log = logging.getLogger("trainer")
# Number of galaxies of `train` whose predictions are checked for variation once the warm-up is over.
_GUARD_GALAXIES = 256
ESTIMATE_AFTER_STEPS = 20


def train_model(config: TrainConfig, overwrite: bool = False) -> Run:
    """Train a model, or resume its run, and evaluate the best epoch on split `test`.

    A finished run is returned unchanged. Ctrl-C and SIGTERM save a checkpoint. Of several processes (`TrainConfig.hosts`)
    only the first one writes and evaluates.

    Parameters
    ----------
    config : TrainConfig
        Dataset, run folder and settings.
    overwrite : bool
        Replace the run in `config.out`.

    Returns
    -------
    Run
        The run folder, with the model and its metrics.

    Raises
    ------
    DatasetError
        If the dataset is damaged.
    ConfigError
        If `config.out` holds another run or something else, or the settings do not fit the dataset or the devices.
    SettingError
        If the settings of several machines contradict each other.
    RunError
        If training fails, the weights or a required GPU are missing, or a file of the run is damaged.

    Examples
    --------
    >>> import io
    >>> from contextlib import redirect_stdout
    >>> from trainer import TrainConfig, train_model
    >>> with redirect_stdout(io.StringIO()):  # it prints its progress
    ...     run = train_model(TrainConfig("data/demo", "runs/first", weights="none", epochs=1))
    >>> [epoch.epoch for epoch in run.history()]
    [1]
    """
    # Imported now, so that an incomplete install fails at once and not after the last epoch.
    from trainer.evaluate import is_current, record_run, summary

    dataset = open_for_training(config)
    with contextlib.ExitStack() as held:
        with hosts.joined(config.hosts, config.host_index, config.out, config.hosts_secret) as share:
            first = share.index == 0
            if first:
                beginning.refuse_lost_marker(Run(config.out, {}).output)
                held.enter_context(Run(config.out, {}).locked())
            run, is_new = beginning.start(config.out, config.settings(), dataset, overwrite)
            if is_new and (start := open_start(config)):
                run = replace(run, config={**run.config, **start.config()})
            _check_shards(run, config, dataset, share)
            progress = NOTHING_YET if is_new else run.progress()
            if first and progress.finished:
                run.check_model()
            place = {"dataset": dataset.fingerprint, "epochs done": progress.finished, "steps done": progress.steps}
            hosts.agree(share, "settings", {**config.settings(), **place})
            if progress.finished == config.epochs or stops_early(progress.history, config.patience):
                interruption = Interruption()
                if first:
                    _complete_history(run, progress)
                    say(f"{run.folder}: training is complete after {progress.finished} epochs")
            else:
                if first:
                    beginning.refuse_in_the_way(run)
                devices = choose(config.precision, config.require_gpu, share)
                hosts.agree(share, "devices", {"devices of a process": devices.local, "precision": devices.precision})
                if first:
                    print(devices.describe(config.batch_size), flush=True)
                if first and is_new:
                    run = replace(run, config={**run.config, **training_ranges(dataset, config.limit).config()})
                interruption = _fit(run, is_new, config, dataset, devices)
        if interruption.signal is not None:  # in the last epoch, which is saved
            interruption.raise_now()
        if first:
            if not is_current(run, dataset, config.limit):
                record_run(run, dataset, config.limit)
            if run.path(OWN.metrics).is_file():
                say(summary(run, OWN))
    return run


def open_for_training(config: TrainConfig) -> Dataset:
    """The dataset of a run. Raises DatasetError if the folder is not a dataset, RunError if split `train` is empty."""
    dataset = open_anywhere(config.tfrecords, config.cache_dir)
    if not dataset.galaxies("train"):
        raise RunError(
            f"{dataset.url or dataset.folder}: has no galaxies in split 'train': preprocess images together with their votes"
        )
    return dataset


def _check_shards(run: Run, config: TrainConfig, dataset: Dataset, share: Share) -> None:
    """Hash this process' part of the shards to read, except those that this run has hashed before."""
    shards = [shard for split in ("train", "validation", "test") for shard in read_shards(dataset, split, config.limit)]
    fetch_shards(dataset, shards)  # all of them, since the others may be on other machines
    checked = check_shards(dataset, shards[share.index :: share.processes], run.checked_shards())
    if share.index == 0:
        run.remember_shards(checked)


def _complete_history(run: Run, progress: Progress) -> None:
    """Restore a history.csv that somebody moved away, from the checkpoint."""
    if not (run.folder / HISTORY).is_file():
        run.write_history(progress.history)


@explained
def _fit(run: Run, is_new: bool, config: TrainConfig, dataset: Dataset, devices: Devices) -> Interruption:
    """Train the remaining epochs; return the signal that arrived in the last one, if any."""
    training = _Training(run, is_new, config, dataset, devices)
    if training.progress.finished or training.progress.steps:
        inside = f" and {training.progress.steps} of {training.steps_per_epoch} steps" if training.progress.steps else ""
        training.say(f"{run.folder}: resuming after epoch {training.progress.finished} of {config.epochs}{inside}")
    for line in (*advice.too_long(config, training.steps_per_epoch), *advice.no_effect(config)):
        training.say(line)
    if not dataset.galaxies("validation"):
        training.say("no split 'validation': no early stopping, and the last model is kept")
    notice = "saving a checkpoint after this step; interrupt again to stop at once"
    with deferred_interrupts(notice) as interruption, training.saver:
        training.open_batches()
        try:
            while training.progress.finished < config.epochs:
                training.epoch(interruption)
                if stops_early(training.progress.history, config.patience):
                    training.say(f"stopped early: no better validation MSE for {config.patience} epochs")
                    break
        except Exception:
            training.say_saved(wait=True)
            raise
    return interruption


class _Training:
    """A run in progress: its model, its training steps, its progress, and the work of an epoch.

    batch_size: galaxies per step, over all processes.
    """

    def __init__(self, run: Run, is_new: bool, config: TrainConfig, dataset: Dataset, devices: Devices) -> None:
        """Build the model and restore the latest checkpoint, if there is one."""
        from tfrecords.reader import target_means
        from trainer.input.training import steps_per_epoch

        self.run, self.config, self.dataset, self.devices = run, config, dataset, devices
        self.steps_per_epoch, self.batch_size = steps_per_epoch(dataset, config.batch_size, config.limit, devices.replicas)
        point = resume_point(run, is_new, config.precision, devices, self.steps_per_epoch, self.batch_size)
        self.progress, self.streams = point.progress, point.streams
        if point.line:
            self.say(point.line)
        self.rate = config.rate(self.steps_per_epoch)
        self.cached = self._plan_cache()
        self.design = config.design(dataset.size, dataset.tree, (run.config.get("start") or {}).get("scaling", ""))
        with devices.scope():
            if point.has_state:  # all weights come from the checkpoint: the file of initial weights may be gone
                model = architecture(self.design, devices.precision, config.seed, devices.splits_batches)
            else:
                means = target_means(dataset, "train", config.limit)
                source = open_start(config)
                if source and source.config()["start"] != run.config["start"]:
                    raise ConfigError(
                        f"{source.run.folder}: has changed since {run.folder} began: start again with --overwrite"
                    )
                start = ("none" if source else config.weights, means, devices.precision, config.seed, config.initialisation)
                model = build_model(self.design, *start, devices.splits_batches)
                if source:
                    self.say(transfer(source, model, self.design))
            freeze_blocks(config.backbone, model, config.freeze)
            self.steps = build_steps(model, config, devices, self.rate, dataset)
        if point.has_state:
            try:
                self.steps.restore(run.checkpoint_arrays(point.within))
            except ValueError as error:
                raise RunError(f"{run.folder}: its checkpoint does not fit ({error}): start again with --overwrite") from error
        if is_new and self.writes:
            beginning.create(run)
        self.saver = Saver(bool(devices.gpus) and self.writes, config.checkpoint_minutes if self.writes else 0)
        self._unsaved = Unsaved()
        self._batches: Iterator[Any] = iter(())
        self._curves = Curves(run.folder)
        self._step_seconds: list[float] = []
        self._steps_seen = 0

    @property
    def writes(self) -> bool:
        """Whether this process prints messages and writes the run folder."""
        return self.devices.share.index == 0

    def say(self, text: str) -> None:
        if self.writes:
            say(text)

    def _plan_cache(self) -> str:
        from trainer.input import cache

        share, config = self.devices.share, self.config
        galaxies = self.steps_per_epoch * self.batch_size // share.processes
        available = cache.available_memory()  # before any process fills it
        processes = hosts.processes_here(share)
        if config.cache == "auto" and config.epochs - self.progress.finished == 1:
            return "none"  # in a single epoch each galaxy is read only once
        cached = cache.plan(config.cache, self.dataset, galaxies, available, processes)
        if cached != "none":
            self.say(f"keeping the {galaxies:,} galaxies of split 'train' in memory, {cached}")
        return cached

    def open_batches(self) -> None:
        """Start reading the batches, from the current step to the last epoch."""
        from trainer.input.training import TrainingInput

        config, share = self.config, self.devices.share
        drawn = config.augment != "none"
        place = (self.dataset, self.batch_size, config.seed, config.limit, self.cached, share)
        source = TrainingInput(*place, augmented=drawn, streams=self.streams)
        self._batches = iter(self.steps.ready(source.batches(self.progress.finished, config.epochs, self.progress.steps)))

    def epoch(self, interruption: Interruption) -> None:
        """Train one epoch, or the rest of it, then validate and save."""
        began = time.monotonic()
        number = self.progress.finished + 1
        if not self.progress.steps:
            self.steps.start_epoch()
        mse, images_per_second = self._train(interruption)
        val_mse = self._validate(interruption)
        if number == advice.guarded_epoch(self.config, self.steps_per_epoch):
            self._warn_of_constants()
        if not math.isfinite(mse) or (not math.isfinite(val_mse) and self.dataset.galaxies("validation")):
            raise RunError(
                f"{self.run.folder}: the loss is not finite in epoch {number}: lower --learning_rate and start again with "
                "--overwrite"
            )
        row = Epoch(
            epoch=number,
            mse=mse,
            val_mse=val_mse,
            learning_rate=self.rate.after(number * self.steps_per_epoch),
            seconds=round(time.monotonic() - began, 3),
            images_per_second=round(images_per_second, 3),
        )
        self._keep(row)

    def _train(self, interruption: Interruption) -> tuple[float, float]:
        """Train the rest of an epoch; return the mean squared error over all its steps, and images per second."""
        began = ended = time.monotonic()
        first, total = self.progress.steps, self.steps_per_epoch
        done = first
        label = f"epoch {self.progress.finished + 1}/{self.config.epochs}"
        bar = progress_bar(total, label, "steps", done, leave=False, disable=not self.writes)
        with bar:
            while done < total:
                stop = self.steps.train(next(self._batches), interruption.signal is not None)
                before, ended = ended, time.monotonic()
                if done > first or total == 1:  # the first step waits for the pipeline and for compilation
                    self._step_seconds.append(ended - before)
                done += 1
                self._steps_seen += 1
                bar.update()
                for line in self.saver.saved_lines():
                    bar.write(line)
                if self._steps_seen == ESTIMATE_AFTER_STEPS and self.writes:
                    to_go = (self.config.epochs - self.progress.finished) * total - done
                    per_step = statistics.fmean(self._step_seconds)
                    bar.write(advice.time_to_end(per_step, to_go, self.dataset.size, bool(self.devices.gpus)))
                if stop:
                    self._stop(interruption, done)
                if self.saver.is_due():
                    self.progress = replace(self.progress, steps=done)
                    self._save()
            error = self.steps.error_sum() / total
        images = (done - first) * self.batch_size
        return error, images / max(time.monotonic() - began, 1e-9) if images else math.nan

    def _stop(self, interruption: Interruption, done: int) -> NoReturn:
        self.progress = replace(self.progress, steps=done)
        self._save()
        self.say_saved(wait=True)
        hosts.leave(self.devices.share)
        interruption.raise_now()

    def _save(self) -> None:
        """Save the epochs that are not saved yet, the model first if one of them is the best, and a checkpoint."""
        if not self.writes:
            return
        self.say_saved(wait=True)
        unsaved, self._unsaved = self._unsaved, Unsaved()
        model = None if unsaved.weights is None else for_inference(self.design, unsaved.weights)
        state, progress = self.steps.state(), self.progress
        if self.saver.beside:  # the next step must not change what is being saved
            state = [np.array(array) for array in state]

        def save() -> None:
            if model is not None:
                self.run.save_model(model)
            if unsaved.epochs:
                try:
                    self.run.write_history(progress.history)
                except ConfigError as error:  # somebody edited it; the checkpoint holds its rows too
                    log.warning("%s", error)
            for row in unsaved.epochs:
                self._curves.write(row)
            self.run.save_checkpoint(state, progress)

        self.saver.start(save, unsaved.lines)

    def say_saved(self, wait: bool = False) -> None:
        """Print the lines of epochs that are saved by now, or with `wait` of all whose save has begun."""
        for line in self.saver.saved_lines(wait):
            self.say(line)

    def _predicted(self, split: str, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """Batches (fractions, targets, asked or None) of a split, with the current weights."""
        from tfrecords.reader import apart
        from trainer.input.evaluation import predicted_batches

        size, share = self.devices.rounded(self.batch_size), self.devices.share
        for _, predicted, votes in predicted_batches(self.steps.predict, self.dataset, split, size, limit, share):
            yield predicted[:, : len(self.dataset.tree.columns)], *apart(votes, self.dataset)

    def _validate(self, interruption: Interruption) -> float:
        """The MSE on split `validation`; NaN without one."""
        if not self.dataset.galaxies("validation"):
            return math.nan
        alone = self.devices.share.processes == 1
        total, count = 0.0, 0
        with self.steps.averaged():
            for predicted, targets, asked in self._predicted("validation", self.config.limit):
                errors = np.square(predicted.astype(np.float64) - targets)
                counted = self.dataset.tree.counted(asked)
                total += float(errors.sum() if counted is None else errors.sum(where=counted))
                count += targets.size if counted is None else int(counted.sum())
                if alone and interruption.signal is not None:
                    break
        if alone and interruption.signal is not None:
            self._stop(interruption, self.steps_per_epoch)
        return total / count if count else math.nan

    def _warn_of_constants(self) -> None:
        """Warn if the predictions are the same for all galaxies; with the current weights, because their average lags."""
        limit = min(self.dataset.galaxies("train", self.config.limit), _GUARD_GALAXIES)
        spread = advice.spread([predicted for predicted, _, _ in self._predicted("train", limit)])
        if warning := advice.collapse_warning(spread, self.config.settings()):
            self.say(warning)

    def _keep(self, row: Epoch) -> None:
        """Save an epoch: the model if it is the best so far, the history, the checkpoint; later if a save is running."""
        history = (*self.progress.history, row)
        self.progress = replace(self.progress, history=history, steps=0, streams=self.streams)
        best = best_epoch(history)
        kept = "best so far" if best is row else f"best is epoch {best.epoch}"
        validation = "" if math.isnan(row.val_mse) else f", validation MSE {row.val_mse:.5f} ({kept})"
        line = f"epoch {row.epoch}/{self.config.epochs}: MSE {row.mse:.5f}{validation}, {row.seconds:.0f} s"
        if best is row and self.writes:
            with self.steps.averaged():
                self._unsaved.weights = [np.array(array) for array in self.steps.weights()]
        self._unsaved.epochs.append(row)
        self._unsaved.lines.append(line)
        is_last = row.epoch == self.config.epochs or stops_early(history, self.config.patience)
        if is_last or not self.saver.is_busy():
            self._save()
        self.say_saved(wait=is_last)


def build_steps(model: Any, config: TrainConfig, devices: Devices, rate: Rate, dataset: Dataset) -> Steps:
    """The training steps of a model on a dataset, with the optimizer, loss and augmentation of a run."""
    optimizer = build_optimizer(model.trainable_variables, rate, devices.precision, config.weight_decay, config.ema)
    loss, error = loss_function(config.loss, dataset.tree, dataset.asked), error_function(dataset.tree, dataset.asked)
    objective = Objective(functools.partial(augment, kind=config.augment), loss, error)
    return devices.steps(model, optimizer, objective)
