"""Statistics of the votes alone. Pure functions; votes are (galaxies, 37), cumulative fractions in 0..1."""

from dataclasses import dataclass

import numpy as np

from tfrecords.taxonomy import QUESTIONS, column_means, hubble_score

# A question counts for a galaxy if at least half of its volunteers were asked.
ASKED = 0.5
# With fewer passing galaxies, a gallery shows the highest scores instead.
_FEW = 4


def asked(votes: np.ndarray) -> np.ndarray:
    """Whether each question counts for each galaxy: its parent column is at least 0.5, or all are asked. bool (n, 11)."""
    return np.stack([np.ones(len(votes), bool) if q.parent is None else votes[:, q.parent] >= ASKED for q in QUESTIONS], axis=1)


def maximum_agreement(votes: np.ndarray) -> np.ndarray:
    """The largest value of each column, the article's measure of how far volunteers agree on an answer: (37,)."""
    return np.asarray(votes).max(axis=0)


def agreement(votes: np.ndarray) -> np.ndarray:
    """Agreement of the volunteers on each question, (n, 11): 1 unanimous, 0 evenly divided, NaN if it does not count.

    1 - entropy / ln(answers) of the fractions given that the question was asked. Source: Dieleman, Willett & Dambre 2015
    (MNRAS 450, 1441).
    """
    votes = np.asarray(votes, np.float64)
    agreements = np.full((len(votes), len(QUESTIONS)), np.nan)
    for place, (question, counts) in enumerate(zip(QUESTIONS, asked(votes).T, strict=True)):
        group = votes[counts, question.columns]
        total = group.sum(axis=1, keepdims=True)
        shares = np.divide(group, total, out=np.full_like(group, 1 / group.shape[1]), where=total > 0)
        entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)
        agreements[counts, place] = np.clip(1 - entropy / np.log(group.shape[1]), 0, 1)
    return agreements


def reach(votes: np.ndarray) -> np.ndarray:
    """The mean share of votes that reach each question: (11,), 1 if all are asked."""
    means = column_means(votes)
    return np.array([1.0 if question.parent is None else means[question.parent] for question in QUESTIONS])


@dataclass(frozen=True)
class Pick:
    """Galaxies of a Hubble class: `rows` of the votes to show, how many pass in all, and whether the rows are a fallback."""

    rows: np.ndarray
    passing: int
    fallback: bool


def hubble_pick(galaxy_ids: np.ndarray, votes: np.ndarray, name: str, threshold: float, count: int) -> Pick:
    """The first `count` galaxies by GalaxyID in a Hubble class; if fewer than 4 are, those with the highest scores."""
    score = hubble_score(votes, name)
    passing = np.flatnonzero(score >= threshold)
    if len(passing) >= _FEW:
        return Pick(passing[np.argsort(galaxy_ids[passing], kind="stable")][:count], len(passing), False)
    return Pick(np.lexsort((galaxy_ids, -score))[:count], len(passing), True)


def differing_means(train: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The column means of `other` minus those of `train` (37,), and the same in standard errors (37,).

    The standard error is that of the difference of two means, with the pooled variance: that of a small split alone would be
    too small. A difference of 0 is 0 standard errors; any other difference is infinite if nothing varies.
    """
    train, other = np.asarray(train, np.float64), np.asarray(other, np.float64)
    difference = column_means(other) - column_means(train)
    spread = np.concatenate([train - column_means(train), other - column_means(other)])
    error = np.sqrt(spread.var(axis=0) * (1 / len(train) + 1 / len(other)))
    with np.errstate(divide="ignore"):
        return difference, np.divide(difference, error, out=np.zeros_like(error), where=difference != 0)
