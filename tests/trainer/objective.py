"""The objective that training steps minimise in tests."""

import functools

from trainer.backends.base import Objective
from trainer.input.augmentation import augment
from trainer.network.heads import LOSSES, squared_error


def objective(augmentation: str = "none", loss: str = "mse") -> Objective:
    """The objective of a run with these settings."""
    return Objective(functools.partial(augment, kind=augmentation), LOSSES[loss], squared_error)
