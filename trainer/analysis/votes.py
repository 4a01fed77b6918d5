"""Statistics of the votes alone. Pure functions; votes are (galaxies, n), cumulative fractions in 0..1.

In a survey with counts, questions that nobody answered do not count. `answered` (galaxies, questions) is how many volunteers
answered; `counted`, bool (galaxies, n), marks the values that count; None: all count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfrecords.tree import GalaxyClass, Tree, column_means

# A question counts for a galaxy if at least half of its volunteers were asked.
ASKED = 0.5
# With fewer passing galaxies, a gallery shows the highest scores instead.
_FEW = 4


def asked(votes: np.ndarray, tree: Tree, answered: np.ndarray | None = None) -> np.ndarray:
    """Whether each question counts for each galaxy: at least half of its volunteers were asked it, and somebody answered.

    bool (galaxies, questions).
    """
    reached = np.stack([tree.reached(votes, question) >= ASKED for question in tree.questions], axis=1)
    return reached if answered is None else reached & (np.asarray(answered) > 0)


def maximum_agreement(votes: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """The largest value of each column, the article's measure of how far volunteers agree on an answer: (n,).

    0 for a column of which no value counts.
    """
    votes = np.asarray(votes)
    return votes.max(axis=0) if counted is None else votes.max(axis=0, where=counted, initial=0)


def quantiles(votes: np.ndarray, percents: Sequence[float], counted: np.ndarray | None = None) -> np.ndarray:
    """Percentiles of each column: (percents, n); NaN for a column of which no value counts."""
    if counted is None:
        return np.percentile(votes, percents, axis=0)
    columns = [column[counts] for column, counts in zip(np.asarray(votes).T, counted.T, strict=True)]
    return np.stack(
        [np.percentile(part, percents) if len(part) else np.full(len(percents), np.nan) for part in columns], axis=1
    )


def means(votes: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """The mean of each column, float64 (n,); NaN for a column of which no value counts."""
    counts = np.ones(np.shape(votes), bool) if counted is None else counted
    return np.where(counts.any(axis=0), column_means(votes, counted), np.nan)


def agreement(votes: np.ndarray, tree: Tree, answered: np.ndarray | None = None) -> np.ndarray:
    """Agreement of the volunteers on each question, (galaxies, questions): 1 unanimous, 0 evenly divided.

    NaN if a question does not count for a galaxy. 1 - entropy / ln(answers) of the fractions given that the question
    was asked. Source: Dieleman, Willett & Dambre 2015 (MNRAS 450, 1441).
    """
    agreements = np.full((len(votes), len(tree.questions)), np.nan)
    for question, counts in zip(tree.questions, asked(votes, tree, answered).T, strict=True):
        shares = tree.shares(votes[counts], question)
        entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)
        agreements[counts, question.index] = np.clip(1 - entropy / np.log(shares.shape[1]), 0, 1)
    return agreements


def reach(votes: np.ndarray, tree: Tree) -> np.ndarray:
    """The mean share of votes that reach each question: (questions,), 1 if all are asked."""
    means = column_means(votes)
    return np.array([means[list(question.parents)].sum() if question.parents else 1.0 for question in tree.questions])


@dataclass(frozen=True)
class Pick:
    """Galaxies of a class: `rows` of the votes to show, how many pass in all, and whether the rows are a fallback."""

    rows: np.ndarray
    passing: int
    fallback: bool


def class_pick(ranks: np.ndarray, votes: np.ndarray, tree: Tree, member: GalaxyClass, threshold: float, count: int) -> Pick:
    """The first `count` galaxies of a class of the tree; if fewer than 4 are in it, those with the highest scores.

    ranks: the place of each galaxy in the order to follow, or its id, int (galaxies,).
    """
    score = tree.class_score(votes, member)
    passing = np.flatnonzero(score >= threshold)
    if len(passing) >= _FEW:
        return Pick(passing[np.argsort(ranks[passing], kind="stable")][:count], len(passing), False)
    return Pick(np.lexsort((ranks, -score))[:count], len(passing), True)


def differing_means(
    train: np.ndarray, other: np.ndarray, counted: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The column means of `other` minus those of `train` (n,), and the same in standard errors (n,).

    counted: which values of both count. A column of which no value counts in one of them differs by 0.

    The standard error is that of the difference of two means, with the pooled variance: that of a small split alone would be
    too small. A difference of 0 is 0 standard errors; any other difference is infinite if nothing varies.
    """
    train, other = np.asarray(train, np.float64), np.asarray(other, np.float64)
    if counted is None:
        difference = column_means(other) - column_means(train)
        deviations = np.concatenate([train - column_means(train), other - column_means(other)])
        error = np.sqrt(deviations.var(axis=0) * (1 / len(train) + 1 / len(other)))
    else:
        numbers = np.stack([part.sum(axis=0) for part in counted])
        means = [column_means(values, part) for values, part in zip((train, other), counted, strict=True)]
        squares = [
            np.square(values - mean).sum(axis=0, where=part)
            for values, mean, part in zip((train, other), means, counted, strict=True)
        ]
        difference = np.where((numbers > 0).all(axis=0), means[1] - means[0], 0)
        variance = np.sum(squares, axis=0) / np.maximum(numbers.sum(axis=0), 1)
        error = np.sqrt(variance * (1 / np.maximum(numbers, 1)).sum(axis=0))
    with np.errstate(divide="ignore"):
        return difference, np.divide(difference, error, out=np.zeros_like(error), where=difference != 0)
