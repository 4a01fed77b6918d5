"""Train a run from its first or latest epoch to its last, then evaluate it on `test`.

Reads like the recipe: dataset, run folder, devices, column means, model, resume, fit, evaluate. One epoch is
the unit of resuming: after each, in this order, the best model, history.csv, and the checkpoint are committed. A
kill between them repeats the epoch, which on a CPU gives the same model again.
"""

import time
from typing import Any

import numpy as np

from tfrecords import dataset as datasets
from tfrecords.dataset import Dataset
from tfrecords.errors import RunError
from trainer import run as runs
from trainer.config import TrainConfig
from trainer.devices import explained
from trainer.run import Epoch, Run

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


def _optimizer(config: TrainConfig) -> Any:
    """Adam; its rate grows linearly over the first steps, because the first gradients from the head are large."""
    import keras

    rate: Any = config.learning_rate
    if config.warmup_steps:
        rate = keras.optimizers.schedules.PolynomialDecay(
            config.learning_rate / (config.warmup_steps + 1), config.warmup_steps, config.learning_rate
        )
    return keras.optimizers.Adam(rate)


def _recorder(run: Run, config: TrainConfig, dataset: Dataset, steps: int, images: int, has_gpu: bool) -> Any:
    """The callback that keeps the run folder and tells the user how it goes."""
    import keras
    from tqdm import tqdm

    class Recorder(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.history = run.progress()
            self.step_seconds: list[float] = []
            self.steps_seen = 0
            self.bar: Any = None

        def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self.started_epoch = self.ended_steps = time.monotonic()
            self.bar = tqdm(total=steps, desc=f"epoch {epoch + 1}/{config.epochs}", unit=" steps", leave=False)

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            self.bar.update()
            before, self.ended_steps = self.ended_steps, time.monotonic()
            self.steps_seen += 1
            if batch > 0 or steps == 1:  # the first of an epoch waits for the pipeline, and once for compilation
                self.step_seconds.append(self.ended_steps - before)
            if self.steps_seen == ESTIMATE_AFTER_STEPS:
                per_step = sum(self.step_seconds) / len(self.step_seconds)
                to_go = (config.epochs - len(self.history)) * steps - (batch + 1)
                self.bar.write(time_to_end(per_step, to_go, dataset.size, has_gpu))

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self.bar.close()
            logs = logs or {}
            if not all(np.isfinite(value) for value in logs.values()):
                raise RunError(
                    f"{run.folder}: loss not finite in epoch {epoch + 1}: lower --learning_rate and start with --overwrite"
                )
            row = Epoch(
                epoch=epoch + 1,
                mse=float(logs["loss"]),
                val_mse=float(logs.get("val_loss", np.nan)),
                learning_rate=float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
                seconds=round(time.monotonic() - self.started_epoch, 3),
                images_per_second=round(images / max(1e-9, self.ended_steps - self.started_epoch), 3),
            )
            self.history.append(row)
            best = runs.best_epoch(self.history)
            if best is row:
                run.save_model(self.model)
            run.write_history(self.history)
            run.save_checkpoint(self.model, self.history)
            kept = "best so far" if best is row else f"best is epoch {best.epoch}"
            validation = "" if np.isnan(row.val_mse) else f", validation MSE {row.val_mse:.5f} ({kept})"
            print(f"epoch {row.epoch}/{config.epochs}: MSE {row.mse:.5f}{validation}, {row.seconds:.0f} s", flush=True)
            if runs.stops_early(self.history, config.patience):
                print(f"stopped early: no better validation MSE for {config.patience} epochs", flush=True)
                self.model.stop_training = True

    return Recorder()


@explained
def _fit(run: Run, is_new: bool, config: TrainConfig, dataset: Dataset) -> None:
    from trainer import devices

    hardware = devices.choose(config.precision, config.require_gpu)
    print(hardware.describe(), flush=True)
    import keras

    from tfrecords.reader import targets_of
    from trainer import model, pipeline

    resumes = not is_new and bool(run.progress())
    if resumes:  # every weight comes from the checkpoint: the file it once started from may be gone
        net = model.architecture(dataset.size, config.weights != "none", hardware.precision, config.seed)
    else:
        means = targets_of(dataset, "train", config.limit).mean(axis=0)
        net = model.build(dataset.size, config.weights, means, hardware.precision, config.seed)
    net.compile(_optimizer(config), "mse")
    net.optimizer.build(net.trainable_variables)
    if is_new:
        runs.create(run)
    done = run.progress()
    if resumes:
        run.restore_checkpoint(net)
        print(f"{run.folder}: going on after epoch {len(done)} of {config.epochs}", flush=True)
    steps, batch_size = pipeline.steps_per_epoch(dataset, config.batch_size, config.limit)
    validation = None
    if dataset.galaxies("validation"):
        validation = pipeline.evaluation_batches(dataset, "validation", batch_size, config.limit)
    else:
        print("no split 'validation': no early stopping, and the last model is kept", flush=True)
    net.fit(
        pipeline.training_batches(dataset, batch_size, config.seed, len(done), config.epochs, config.limit),
        initial_epoch=len(done),
        epochs=config.epochs,
        steps_per_epoch=steps,
        shuffle=False,  # the pipeline has done it
        validation_data=validation,
        callbacks=[
            _recorder(run, config, dataset, steps, steps * batch_size, bool(hardware.gpus)),
            keras.callbacks.TensorBoard(run.folder / "tensorboard"),
        ],
        verbose=0,
    )


def train(config: TrainConfig, overwrite: bool = False) -> Run:
    """Train, or go on with, the run that `config` describes, then evaluate its best model on `test`.

    A finished run is left as it is. Raises DatasetError, ConfigError or RunError with the next step in the message.
    """
    from trainer.analysis.evaluate import evaluate, is_current

    dataset = datasets.open_dataset(config.tfrecords)
    if not dataset.galaxies("train"):
        raise RunError(f"{dataset.folder}: has no galaxies in split 'train': preprocess images together with their votes")
    run, is_new = runs.start(config.out, config.settings(), dataset, overwrite)
    history = [] if is_new else run.progress()
    if len(history) == config.epochs or runs.stops_early(history, config.patience):
        print(f"{run.folder}: training is complete after {len(history)} epochs")
    else:
        _fit(run, is_new, config, dataset)
    if not dataset.galaxies("test"):
        from trainer.analysis.report import write_history_plot

        write_history_plot(run)
        print("no split 'test': no metrics")
    elif not is_current(run, dataset, "test"):
        evaluate(run, dataset, "test", config.limit)
    return run
