"""Advice from a run: how long it takes, which settings are too long for it, and whether its predictions collapsed to constants.

A network like VGG16 easily collapses to constants, and rarely recovers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.config import TrainConfig

# Below this mean standard deviation per column, predictions are practically constant; that of votes is about 0.16.
CONSTANT_SPREAD = 0.01
LONG_HOURS = 12
# If more than this share of a moving average is the initial weights, it is hardly a trained model.
_UNTRAINED = 0.05
# Half the distance between float32 numbers just below 1, relative to them.
_SMALLEST_STEP = 2.0**-24
_MOMENTA = (0.9999, 0.999, 0.99, 0.9, 0.0)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def time_to_end(seconds_per_step: float, steps: int, size: int, has_gpu: bool) -> str:
    """A line with the expected time; above 12 hours, a second line with what to change.

    steps: steps left, over all epochs. Early stopping may end the run sooner; validation adds a little.
    """
    seconds = seconds_per_step * steps
    line = f"expected time to the end: {_duration(seconds)} ({seconds_per_step:.2f} s per step, at most {steps:,} steps left)"
    if seconds <= LONG_HOURS * 3600:
        return line
    hardware = "a machine with a GPU" if not has_gpu else "a faster GPU"
    smaller = f", smaller images (`preprocess --size {max(32, size // 3)}`: about a ninth of the time)" if size >= 96 else ""
    return f"{line}\nthat is more than {LONG_HOURS} hours: use {hardware}{smaller}, fewer --epochs, or --limit"


def too_long(config: TrainConfig, steps: int) -> list[str]:
    """Warnings if a run of `steps` steps per epoch is too short for its warm-up or its moving average."""
    lines = []
    total = config.epochs * steps
    if total <= config.warmup_steps:
        fewer = f"{total // 10} or fewer" if total >= 10 else "0"
        lines.append(
            f"--warmup_steps {config.warmup_steps}: the run has {total} steps in total, so the learning rate never reaches "
            f"{config.learning_rate:g}: use {fewer}, or more --epochs"
        )
    averaged = total - 1  # Keras' average begins with the weights after the first step
    untrained = config.ema**averaged if averaged else 0.0
    if untrained > _UNTRAINED:
        shorter = next(momentum for momentum in _MOMENTA if momentum**averaged <= _UNTRAINED)
        lines.append(
            f"--ema {config.ema:g}: the run has {total} steps in total, so {untrained:.0%} of the average is still the initial "
            f"weights: use {f'{shorter:g} or less' if shorter else '0 (no average)'}, or more --epochs"
        )
    return lines


def no_effect(config: TrainConfig) -> list[str]:
    """A warning if the weight decay is too small to change a weight.

    AdamW multiplies weights by 1 - learning rate * decay, and float32 rounds this to 1 below half of its smallest step.
    """
    if not 0 < config.learning_rate * config.weight_decay < _SMALLEST_STEP / 2:
        return []
    return [
        f"--weight_decay {config.weight_decay:g}: with a learning rate of {config.learning_rate:g} it is rounded away and "
        f"changes no weight: use {_SMALLEST_STEP / config.learning_rate:.2g} or more, or 0"
    ]


def spread(batches: Sequence[np.ndarray]) -> float:
    """The mean over columns of the standard deviation over galaxies; batches: (n, columns)."""
    return float(np.concatenate(batches).astype(np.float64).std(axis=0).mean())


def what_to_change(settings: Mapping[str, Any]) -> str:
    """Changes to the settings of a run, the most helpful first."""
    changes = []
    if settings["initialisation"] != "means":
        changes.append("--initialisation means")
    if settings["weights"] == "none":
        changes.append("--weights imagenet")
    elif settings["input_scaling"] != "auto":
        changes.append("--input_scaling auto")
    if not settings["warmup_steps"]:
        changes.append("--warmup_steps 60")
    other = "lower" if settings["learning_rate"] > 3e-4 else "higher"
    changes.append(f"a {other} --learning_rate than {settings['learning_rate']:g}")
    if settings["batch_size"] > 1:
        changes.append(f"a smaller --batch_size than {settings['batch_size']}")
    return ", ".join(changes[:-1]) + f" or {changes[-1]}" if len(changes) > 1 else changes[0]


def guarded_epoch(config: TrainConfig, steps: int) -> int:
    """The epoch after which to check whether predictions vary: the first that ends past the warm-up, or else the last one.

    steps: per epoch. Earlier, predictions are still close to the column means, at which the outputs start.
    """
    return max(1, min(math.ceil(config.warmup_steps / steps), config.epochs))


def collapse_warning(spread: float, settings: Mapping[str, Any]) -> str:
    """The warning if the predictions hardly vary, else an empty text."""
    if not spread < CONSTANT_SPREAD:  # or it is NaN, which another message reports
        return ""
    return (
        f"warning: the predictions are nearly the same for all galaxies (standard deviation {spread:.4f} per column): if "
        f"this persists, start again (--overwrite) with {what_to_change(settings)}"
    )
