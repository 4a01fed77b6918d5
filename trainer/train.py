"""Train a run from its first epoch or its checkpoint to its last epoch, then evaluate it on `test`.

Reads like the recipe: dataset, run folder, devices, column means, model, resume, epochs, evaluate. After each epoch, in
this order, the best model, history.csv, and the checkpoint are committed; a kill between them repeats the epoch, which on a
CPU gives the same model again. Ctrl-C and SIGTERM save a checkpoint after the step under way, and the same command goes on
with the next one.
"""

import contextlib
import logging
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tfrecords import dataset as datasets
from tfrecords.commandline import Interruption, deferred_interrupts, say
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, RunError
from tfrecords.integrity import check_shards, read_shards
from tfrecords.taxonomy import column_means
from trainer import collapse, hosts, memory, schedule
from trainer import run as runs
from trainer.config import TrainConfig
from trainer.devices import Devices, Share, choose, explained
from trainer.head_first import HeadFirst, forget_features
from trainer.model import architecture, build, design, for_inference
from trainer.optimizer import optimizer
from trainer.predict import predicted_batches, rounded_batch
from trainer.run import OWN, Epoch, Progress, Run
from trainer.scale import training_range
from trainer.steps import Steps
from trainer.tensorboard import Curves

log = logging.getLogger("trainer")
# The first ones of `train`, whose predictions tell after the first epoch whether they vary.
_GUARD_GALAXIES = 256
ESTIMATE_AFTER_STEPS = 20
LONG_HOURS = 12


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def time_to_end(seconds_per_step: float, steps: int, size: int, has_gpu: bool) -> str:
    """What to expect, in a line; above 12 hours a second line with what to change.

    `steps`: still to do, in all epochs. Early stopping may end sooner; validation adds a little.
    """
    seconds = seconds_per_step * steps
    line = f"expected time to the end: {_duration(seconds)} ({seconds_per_step:.2f} s a step, {steps:,} steps to go at most)"
    if seconds <= LONG_HOURS * 3600:
        return line
    hardware = "a machine with a GPU" if not has_gpu else "a faster GPU"
    smaller = f", smaller images (`preprocess --size {max(32, size // 3)}` takes about a ninth)" if size >= 96 else ""
    return f"{line}\nthat is more than {LONG_HOURS} hours: use {hardware}{smaller}, fewer --epochs, or --limit"


def shared_batch(config: TrainConfig, dataset: Dataset, devices: Devices) -> tuple[int, int]:
    """Steps of an epoch and galaxies of a batch. Raises ConfigError where the devices cannot share a batch equally."""
    from trainer.pipeline import steps_per_epoch

    replicas = devices.replicas
    if config.batch_size % replicas:
        below = config.batch_size // replicas * replicas
        better = f"{below} or {below + replicas}" if below else str(replicas)
        raise ConfigError(f"--batch_size {config.batch_size}: {replicas} devices cannot share it equally: take {better}")
    steps, batch_size = steps_per_epoch(dataset, config.batch_size, config.limit, replicas)
    if not steps:
        raise RunError(
            f"{dataset.folder}: split 'train' has fewer galaxies than there are devices ({replicas}): use fewer devices"
        )
    return steps, batch_size


def _check_precision(config: TrainConfig, progress: Progress, devices: Devices, folder: Path) -> None:
    """Raise ConfigError where the checkpoint is of another precision: `auto` may mean another one on this machine."""
    if progress.backend and progress.backend != devices.backend:
        raise ConfigError(
            f"{folder}: was begun on the {progress.backend} backend, and this is {devices.backend}: go on with "
            f"KERAS_BACKEND={progress.backend}, or start again with --overwrite"
        )
    if progress.precision and progress.precision != devices.precision:
        raise ConfigError(
            f"{folder}: was begun with precision {progress.precision}, and --precision {config.precision} takes "
            f"{devices.precision} on this machine: go on where it was begun, or start again with --overwrite"
        )


def _stops_early(config: TrainConfig, progress: Progress) -> bool:
    """The head alone may stop getting better, and all layers still come."""
    head_epochs = config.head_epochs if config.head_epochs < config.epochs else 0
    return runs.stops_early(progress.history, config.patience, head_epochs)


class _Training:
    """A run under way: its model and steps, how far it has come, and what it does in an epoch.

    steps, batch_size: of an epoch, and the galaxies of a batch over all processes.
    """

    def __init__(self, run: Run, is_new: bool, config: TrainConfig, dataset: Dataset, devices: Devices) -> None:
        """The model as it was when the run was stopped, or as it begins."""
        from tfrecords.reader import targets_of

        self.run, self.config, self.dataset, self.devices = run, config, dataset, devices
        self.steps, self.batch_size = shared_batch(config, dataset, devices)
        self.progress = runs.NOTHING_YET if is_new else run.progress()
        _check_precision(config, self.progress, devices, run.folder)
        resumes = self.progress != runs.NOTHING_YET
        self.rate, self._head_rate = schedule.of_all_layers(config, self.steps), schedule.of_head(config, self.steps)
        self._kept = self._plan_cache()
        self._design = design(config, dataset.size)
        with devices.scope():
            if resumes:  # every weight comes from the checkpoint: the file it once started from may be gone
                self.model = architecture(self._design, devices.precision, config.seed)
            else:
                means = column_means(targets_of(dataset, "train", config.limit))
                start = (config.weights, means, devices.precision, config.seed, config.initialisation)
                self.model = build(self._design, *start)
            self._head_first: HeadFirst | None = None
            if self.progress.finished < config.head_epochs:
                self._head_first = HeadFirst(self.model, self._design, config, dataset, devices, run, self._head_rate)
                self.training = self._head_first.training
            else:
                self.training = self._all_layers()
        if resumes:
            try:
                (self._head_first or self.training).restore(run.checkpoint_arrays())
            except ValueError as error:
                raise RunError(f"{run.folder}: its checkpoint does not fit ({error}): start again with --overwrite") from error
        if is_new and self.writes:
            runs.create(run)
        self.progress = replace(self.progress, precision=devices.precision, backend=devices.backend)
        self.batches: Iterator[Any] = iter(())
        self._tensorboard = Curves(run)
        self._step_seconds: list[float] = []
        self._seen = 0

    def _all_layers(self) -> Steps:
        from trainer.steps import training_steps

        config = self.config
        variables = self.model.trainable_variables
        adam = optimizer(variables, self.rate, self.devices.precision, config.weight_decay, config.ema)
        return training_steps(self.model, adam, self.devices, config.augment, config.loss)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that speaks and keeps the run folder."""
        return self.devices.hosts.index == 0

    def say(self, text: str) -> None:
        if self.writes:
            say(text)

    def save(self) -> None:
        if self.writes:
            self.run.save_checkpoint((self._head_first or self.training).state(), self.progress)

    def _plan_cache(self) -> str:
        from trainer import cache

        galaxies = self.steps * self.batch_size // self.devices.hosts.processes
        if self.config.head_epochs == self.config.epochs:
            return "none"  # all epochs read features
        if self.config.cache == "auto" and self.config.epochs - max(self.progress.finished, self.config.head_epochs) == 1:
            return "none"  # who reads all of them once has nothing to keep
        kept = cache.plan(self.config.cache, self.dataset, galaxies, memory.available())
        if kept != "none":
            self.say(f"keeping the {galaxies:,} galaxies of split 'train' in memory, {kept}")
        return kept

    def prepare(self, interruption: Interruption) -> None:
        """Make `self.batches`: those from here to the last epoch, or to the last one that trains the head alone."""
        from trainer.pipeline import TrainingInput

        config, finished, done = self.config, self.progress.finished, self.progress.steps
        if self._head_first is not None:
            if not self._head_first.prepare(interruption):
                interruption.raise_now()
            self.say(self._head_first.description)
            self.batches = self._head_first.batches(self.batch_size, finished, done)
            return
        if self.writes:
            forget_features(self.run)
        drawn = config.augment != "none"
        source = TrainingInput(
            self.dataset, self.batch_size, config.seed, config.limit, self._kept, self.devices.hosts, augmented=drawn
        )
        self.batches = iter(self.training.ready(source.batches(finished, config.epochs, done)))

    def _unfreeze(self, head_first: HeadFirst, interruption: Interruption) -> None:
        """Go on with all layers."""
        head_first.weights()
        self._head_first = None
        with self.devices.scope():
            self.training = self._all_layers()
        self._step_seconds, self._seen = [], 0
        self.save()  # from here on the features are of no use
        self.prepare(interruption)

    def _stop(self, interruption: Interruption, steps: int) -> NoReturn:
        self.progress = replace(self.progress, steps=steps)
        self.save()
        hosts.leave(self.devices.hosts)
        interruption.raise_now()

    def _train(self, interruption: Interruption) -> tuple[float, float]:
        """The rest of an epoch; returns the mean of its steps' squared errors, and images per second."""
        from tqdm import tqdm

        began = ended = time.monotonic()
        done, finished = self.progress.steps, self.progress.finished
        label = f"epoch {finished + 1}/{self.config.epochs}"
        bar = tqdm(total=self.steps, initial=done, desc=label, unit=" steps", leave=False, disable=not self.writes)
        with bar:
            while done < self.steps:
                stop = self.training.train(next(self.batches), interruption.signal is not None)
                before, ended = ended, time.monotonic()
                if done > self.progress.steps or self.steps == 1:  # the first waits for the pipeline, and for compilation
                    self._step_seconds.append(ended - before)
                done += 1
                self._seen += 1
                bar.update()
                if self._seen == ESTIMATE_AFTER_STEPS and self.writes and self._head_first is None:
                    to_go = (self.config.epochs - finished) * self.steps - done
                    per_step = statistics.fmean(self._step_seconds)
                    bar.write(time_to_end(per_step, to_go, self.dataset.size, bool(self.devices.gpus)))
                if stop:
                    self._stop(interruption, done)
            error = self.training.error_sum() / self.steps
        images = (done - self.progress.steps) * self.batch_size
        return error, images / max(time.monotonic() - began, 1e-9) if images else math.nan

    def _predicted(self, split: str, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches (predicted, targets) of a split by the weights of now."""
        if self._head_first is not None:
            yield from self._head_first.predicted(split, limit)
            return
        size = rounded_batch(self.batch_size, self.devices)
        share = self.devices.hosts
        for _, predicted, targets in predicted_batches(self.training.predict, self.dataset, split, size, limit, share):
            yield predicted, targets

    def _validate(self, interruption: Interruption) -> float:
        """The MSE over split `validation`, NaN without one."""
        if not self.dataset.galaxies("validation"):
            return math.nan
        alone = self.devices.hosts.processes == 1
        total, count = 0.0, 0
        with self.training.averaged():
            for predicted, targets in self._predicted("validation", self.config.limit):
                total += float(np.square(predicted.astype(np.float64) - targets).sum())
                count += targets.size
                if alone and interruption.signal is not None:
                    break
        if alone and interruption.signal is not None:
            self._stop(interruption, self.steps)
        return total / count

    def _warn_of_constants(self) -> None:
        """Say so if the predictions are the same for all galaxies, by the weights as they are: an average of them lags."""
        limit = min(self.config.limit or _GUARD_GALAXIES, _GUARD_GALAXIES)
        spread = collapse.spread([predicted for predicted, _ in self._predicted("train", limit)])
        if warning := collapse.warning(spread, self.config.settings(), self._head_first is not None):
            self.say(warning)

    def _rate_after(self, epochs: int) -> float:
        if epochs <= self.config.head_epochs:
            return self._head_rate.after(epochs * self.steps)
        return self.rate.after((epochs - self.config.head_epochs) * self.steps)

    def epoch(self, interruption: Interruption) -> None:
        """One epoch, or what was left of it, and everything that is kept of it."""
        began = time.monotonic()
        config, finished = self.config, self.progress.finished
        if not self.progress.steps:
            self.training.start_epoch()
        mse, images_per_second = self._train(interruption)
        val_mse = self._validate(interruption)
        if finished in (0, config.head_epochs):  # the first epoch of the head alone, and that of all layers
            self._warn_of_constants()
        if not math.isfinite(mse) or (not math.isfinite(val_mse) and self.dataset.galaxies("validation")):
            raise RunError(
                f"{self.run.folder}: loss not finite in epoch {finished + 1}: lower --learning_rate and start with --overwrite"
            )
        row = Epoch(
            epoch=finished + 1,
            mse=mse,
            val_mse=val_mse,
            learning_rate=self._rate_after(finished + 1),
            seconds=round(time.monotonic() - began, 3),
            images_per_second=round(images_per_second, 3),
        )
        history = (*self.progress.history, row)
        self.progress = replace(self.progress, history=history, steps=0)
        best = runs.best_epoch(history)
        if self.writes:
            if best is row:
                with self.training.averaged():
                    weights = (self._head_first or self.training).weights()
                self.run.save_model(for_inference(self._design, weights))
            try:
                self.run.write_history(history)
            except ConfigError as error:  # somebody edited it: the checkpoint holds its rows too
                log.warning("%s", error)
            self._tensorboard.write(row)
        if self._head_first is not None and row.epoch == config.head_epochs < config.epochs:
            self._unfreeze(self._head_first, interruption)
        else:
            self.save()
        kept = "best so far" if best is row else f"best is epoch {best.epoch}"
        validation = "" if math.isnan(val_mse) else f", validation MSE {val_mse:.5f} ({kept})"
        self.say(f"epoch {row.epoch}/{config.epochs}: MSE {mse:.5f}{validation}, {row.seconds:.0f} s")


@explained
def _fit(run: Run, is_new: bool, config: TrainConfig, dataset: Dataset, devices: Devices) -> Interruption:
    training = _Training(run, is_new, config, dataset, devices)
    if training.progress.finished or training.progress.steps:
        inside = f" and {training.progress.steps} of {training.steps} steps" if training.progress.steps else ""
        training.say(f"{run.folder}: going on after epoch {training.progress.finished} of {config.epochs}{inside}")
    for line in schedule.too_long(config, training.steps):
        training.say(line)
    if not dataset.galaxies("validation"):
        training.say("no split 'validation': no early stopping, and the last model is kept")
    with deferred_interrupts("saving a checkpoint after this step; once more to stop at once") as interruption:
        training.prepare(interruption)
        while training.progress.finished < config.epochs:
            training.epoch(interruption)
            if _stops_early(config, training.progress):
                training.say(f"stopped early: no better validation MSE for {config.patience} epochs")
                break
        if training.writes:
            forget_features(run)
    return interruption


def _check_shards(run: Run, config: TrainConfig, dataset: Dataset, share: Share) -> None:
    """Hash this process' part of the shards that are read, except those that this run has read before."""
    shards = [shard for split in ("train", "validation", "test") for shard in read_shards(dataset, split, config.limit)]
    checked = check_shards(dataset, shards[share.index :: share.processes], run.checked_shards())
    if share.index == 0:
        run.remember_shards(checked)


def train(config: TrainConfig, overwrite: bool = False) -> Run:
    """Train, or resume, the run that `config` describes, then evaluate its best model on `test`.

    A finished run is left as it is. Of several processes only the first writes and evaluates; it holds the run folder alone
    until the end. Raises DatasetError, ConfigError or RunError with the next step in the message.
    """
    from trainer.analysis.card import write_card
    from trainer.analysis.evaluate import is_current, other_evaluations, record_run, summary

    dataset = datasets.open_dataset(config.tfrecords)
    if not dataset.galaxies("train"):
        raise RunError(f"{dataset.folder}: has no galaxies in split 'train': preprocess images together with their votes")
    with contextlib.ExitStack() as held:
        with hosts.joined(config.hosts, config.host_index) as share:
            if share.index == 0:
                runs.refuse_lost_marker(Run(config.out, {}).output)
                held.enter_context(Run(config.out, {}).locked())
            run, is_new = runs.start(config.out, config.settings(), dataset, overwrite)
            _check_shards(run, config, dataset, share)
            progress = runs.NOTHING_YET if is_new else run.progress()
            if share.index == 0 and progress.finished:
                run.check_model()
            place = {"dataset": dataset.fingerprint, "epochs done": progress.finished, "steps done": progress.steps}
            hosts.agree(share, "settings", {**config.settings(), **place})
            interrupted = False
            if progress.finished == config.epochs or _stops_early(config, progress):
                if share.index == 0:
                    if not (run.folder / runs.HISTORY).is_file():
                        run.write_history(progress.history)
                    say(f"{run.folder}: training is complete after {progress.finished} epochs")
            else:
                if share.index == 0:
                    runs.refuse_in_the_way(run)
                devices = choose(config.precision, config.require_gpu, share)
                hosts.agree(share, "devices", {"devices of a process": devices.local, "precision": devices.precision})
                if share.index == 0:
                    print(devices.describe(config.batch_size), flush=True)
                    if is_new:
                        scale = training_range(dataset, config.limit)
                        run = replace(run, config={**run.config, "half_light_radius": list(scale)})
                interruption = _fit(run, is_new, config, dataset, devices)
                interrupted = interruption.signal is not None
        if interrupted:  # in the last epoch, which is saved
            interruption.raise_now()
        if share.index:
            return run
        if not dataset.galaxies("test"):
            from trainer.analysis.report import write_history_plot

            write_history_plot(run)
            write_card(run, None, other_evaluations(run))
            print("no split 'test': no metrics")
        elif not is_current(run, dataset):
            record_run(run, dataset, config.limit)
        if run.path(OWN.metrics).is_file():
            say(summary(run, OWN))
    return run
