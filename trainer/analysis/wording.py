"""The words of pages that depend on the decision tree: what holds for Kaggle's galaxies alone, and what for any survey."""

import math
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


def some_galaxies(number: int) -> str:
    """How many galaxies: "1 galaxy", "1,234 galaxies"."""
    return amount(number, "galaxy", "galaxies")


def shown(value: float, form: str) -> str:
    """A number on a page; a dash if nothing was counted."""
    return "–" if np.isnan(value) else format(value, form)


def amount(number: int, one: str, several: str = "") -> str:
    """A number of things: "1 epoch", "12 epochs"; several: the plural, by default with an s."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def percent(share: float) -> str:
    """A share of 0 to 1 in per cent; 0% and 100% stand for none and all alone."""
    if 0 < share < 0.005:
        return "under 1%"
    return "over 99%" if 0.995 <= share < 1 else f"{share:.0%}"


def positive(value: float) -> str:
    """A positive number with two decimals, or more precisely where these would be 0.00."""
    return f"{value:.2f}" if value >= 0.005 else f"{value:.1g}"


def upper_bound(value: float) -> str:
    """The smallest number of one significant digit that a value >= 0 does not exceed: "0.02" for 0.0149."""
    if value <= 0:
        return "0"
    digit = 10.0 ** math.floor(math.log10(value))
    bound = f"{math.ceil(value / digit) * digit:.1g}"
    return bound if float(bound) >= value else f"{(math.ceil(value / digit) + 1) * digit:.1g}"  # rounding took it down


def duration(seconds: float) -> str:
    """A time in words: "34.5 minutes", or below a minute "12 seconds"."""
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.2g} seconds"


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
    same = (
        "Each vote fraction counts the same, however many volunteers are behind it, unless a table states otherwise; questions "
        "that nobody answered do "
    )
    number = "assumed number" if is_assumed(trained) else "number"
    # The answers to a question depend on each other in a Dirichlet-multinomial likelihood: ten weigh less than ten times one.
    growing = ", less than in proportion" if loss == "dirichlet_multinomial" else ""
    by_answers = trained and loss in ("cross_entropy", "dirichlet_multinomial")
    return sentences(
        f"{same}not count." if asked else "",
        assumption(asked, tree),
        f"In training, each question of a galaxy was weighted by the {number} of its answers{growing}." if by_answers else "",
    )
