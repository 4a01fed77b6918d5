"""The words of pages that depend on the decision tree: what holds for Kaggle's galaxies alone, and what for any survey."""

from collections.abc import Sequence

import numpy as np

from tfrecords.builtin import KAGGLE
from tfrecords.tree import Tree
from trainer.analysis.page import CREDIT


def is_kaggle(tree: Tree) -> bool:
    return tree.name == KAGGLE


def has_hubble_classes(tree: Tree) -> bool:
    """Whether the classes of a tree are those of Hubble: ellipticals and others."""
    return any(member.name == "elliptical" for member in tree.classes)


def survey(tree: Tree) -> str:
    """The survey in the title of a page."""
    return "Galaxy Zoo" if is_kaggle(tree) else tree.title


def credit(tree: Tree) -> str:
    """The line that credits images and votes."""
    if is_kaggle(tree):
        return CREDIT
    source = "; ".join(part for part in (tree.citation, tree.url) if part)
    return f"Credit for the images and votes: {tree.title}{f' ({source})' if source else ''}."


def enumerated(words: Sequence[str]) -> str:
    """Words as a list in a sentence: "a, b and c"."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def sentences(*parts: str) -> str:
    """Sentences one after another, without the empty ones."""
    return " ".join(part for part in parts if part)


def shown(value: float, form: str) -> str:
    """A number on a page; a dash if nothing was counted."""
    return "–" if np.isnan(value) else format(value, form)


def weighting(asked: bool, loss: str = "") -> str:
    """How scores weigh galaxies, and how training did with a loss, for a survey with counts; else empty."""
    if not asked:
        return ""
    counted = "Each galaxy counts the same, whatever the number of its volunteers; questions that nobody answered do not count."
    trained = "In training, each question of a galaxy was weighted by the number of its answers."
    return sentences(counted, trained if loss in ("cross_entropy", "dirichlet_multinomial") else "")
