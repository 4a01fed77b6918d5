"""The objective that training steps minimise in tests."""

import functools

from tfrecords.builtin import builtin_tree
from tfrecords.tree import Tree
from trainer.backends.base import Objective
from trainer.input.augmentation import augment
from trainer.network.losses import error_function, loss_function


def objective(augmentation: str = "none", loss: str = "mse", tree: Tree | None = None, asked: bool = False) -> Objective:
    """The objective of a run with these settings; tree: Kaggle's by default."""
    tree = tree or builtin_tree()
    return Objective(
        functools.partial(augment, kind=augmentation), loss_function(loss, tree, asked), error_function(tree, asked)
    )
