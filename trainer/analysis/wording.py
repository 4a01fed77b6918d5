"""The words of pages that depend on the decision tree: what holds for Kaggle's galaxies alone, and what for any survey."""

from collections.abc import Sequence

import numpy as np

from tfrecords.builtin import is_kaggle
from tfrecords.tree import Tree
from trainer.analysis.page import CREDIT


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


def id_name(tree: Tree) -> str:
    """What galaxies are ordered by, in captions, and the header of the column that names them."""
    return "GalaxyID" if tree.id == "GalaxyID" else "id"


def is_assumed(asked: object) -> bool:
    """Whether numbers of answers follow from an assumed number of volunteers. asked: that entry of a dataset's `source`."""
    return asked == "assumed"


def assumption(asked: object, tree: Tree) -> str:
    """A sentence about numbers of answers that are not those of the table; empty if they are, or if there are none."""
    if not is_assumed(asked):
        return ""
    return f"The numbers of answers were not counted: {tree.volunteers} volunteers are assumed for each galaxy."


def weighting(asked: object, tree: Tree, trained: object = None, loss: str = "") -> str:
    """How scores weigh vote fractions, and how training weighed questions; empty without numbers of answers.

    asked: the entry in `source` of the dataset that was measured; trained: that of the dataset of a run with this loss.
    """
    same = "Each vote fraction counts the same, whatever the number of volunteers behind it; questions that nobody answered do "
    number = "assumed number" if is_assumed(trained) else "number"
    by_answers = trained and loss in ("cross_entropy", "dirichlet_multinomial")
    return sentences(
        f"{same}not count." if asked else "",
        assumption(asked, tree),
        f"In training, each question of a galaxy was weighted by the {number} of its answers." if by_answers else "",
    )
