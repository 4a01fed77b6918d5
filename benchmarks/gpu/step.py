"""The training step of recipe `best` without the input pipeline: model, objective, and a batch of synthetic galaxies."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.settings import Settings

_DRAWN = 16  # different galaxies in a batch; drawing one takes 50 ms


@dataclass(frozen=True)
class Parts:
    """The parts of a training, as in `trainer.train.build_steps`."""

    devices: Any
    model: Any
    optimizer: Any
    objective: Any


def make_parts(settings: Settings, precision: str) -> Parts:
    """Parts with random weights. The output layer is random too: with zeros, no gradient would reach the layers below."""
    from tfrecords.builtin import builtin_tree
    from trainer.backends.base import Objective
    from trainer.backends.choose import choose
    from trainer.config import TrainConfig
    from trainer.input.augmentation import augment
    from trainer.network.losses import error_function, loss_function
    from trainer.network.model import build_model
    from trainer.network.optimizer import build_optimizer

    config, devices = TrainConfig(Path(), weights="none", initialisation="he"), choose(precision, require_gpu=False)
    tree = builtin_tree()
    start = (np.full(len(tree.columns), 0.3), devices.precision, config.seed, config.initialisation)
    model = build_model(config.design(settings.size, tree), config.weights, *start)
    optimizer = build_optimizer(model.trainable_variables, config.rate(steps=100), devices.precision)
    loss, error = loss_function(config.loss, tree, asked=False), error_function(tree, asked=False)
    objective = Objective(functools.partial(augment, kind=config.augment), loss, error)
    return Parts(devices, model, optimizer, objective)


def draw_batch(settings: Settings, galaxies: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 (galaxies, size, size, 3), votes float32 (galaxies, 37), random numbers for augmentation (galaxies, 7)."""
    from preprocess.demo import draw_galaxy
    from preprocess.synthetic import draw_cutout
    from preprocess.volunteers import draw_answers
    from tfrecords.builtin import builtin_tree
    from tfrecords.images import crop
    from trainer.input.augmentation import DRAWS

    generator = np.random.default_rng(0)
    drawn = [draw_galaxy(generator) for _ in range(min(galaxies, _DRAWN))]
    tree = builtin_tree()
    votes = np.stack([draw_answers(galaxy, tree, generator).votes(tree) for galaxy in drawn]).astype(np.float32)
    images = np.stack([crop(np.asarray(draw_cutout(galaxy, generator)), 0.5, settings.size) for galaxy in drawn])
    places = np.arange(galaxies) % len(drawn)
    return images[places], votes[places], generator.random((galaxies, DRAWS), np.float32)
