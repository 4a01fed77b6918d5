"""Whether predictions have collapsed to constants, which a network like VGG16 easily learns and hardly leaves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Below this mean standard deviation per column predictions are as good as constant; that of votes is about 0.16.
CONSTANT_SPREAD = 0.01


def spread(batches: Sequence[np.ndarray]) -> float:
    """The mean over columns of the standard deviation over galaxies; batches: (n, columns)."""
    return float(np.concatenate(batches).astype(np.float64).std(axis=0).mean())


def what_to_change(settings: Mapping[str, Any], head_alone: bool = False) -> str:
    """Of a run's settings, in the order in which it helps; head_alone: in the epochs of `--head_epochs`."""
    changes = []
    if settings["initialisation"] != "means":
        changes.append("--initialisation means")
    if settings["weights"] == "none":
        changes.append("--weights imagenet")
    elif settings["input_scaling"] != "auto":
        changes.append("--input_scaling auto")
    if head_alone:
        changes.append("--head_epochs 0")
    elif not settings["warmup_steps"]:
        changes.append("--warmup_steps 60")
    other = "lower" if settings["learning_rate"] > 3e-4 else "higher"
    changes.append(f"a {other} --learning_rate than {settings['learning_rate']:g}")
    if settings["batch_size"] > 1:
        changes.append(f"a smaller --batch_size than {settings['batch_size']}")
    return ", ".join(changes[:-1]) + f" or {changes[-1]}" if len(changes) > 1 else changes[0]


def warning(spread: float, settings: Mapping[str, Any], head_alone: bool = False) -> str:
    """What to say after a first epoch whose predictions spread so little; empty where they do not."""
    if not spread < CONSTANT_SPREAD:  # or it is no number, which another message tells
        return ""
    return (
        f"warning: the predictions are nearly the same for all galaxies (standard deviation {spread:.4f} per column): if "
        f"they stay so, start again (--overwrite) with {what_to_change(settings, head_alone)}"
    )
