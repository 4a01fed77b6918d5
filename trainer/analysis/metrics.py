"""Scores of predictions and baselines against the votes, with intervals. Pure functions.

Arrays are (galaxies, 37), vote fractions in 0..1. RMSE is the challenge's measure: the root of the mean of all
squared differences over galaxies and columns.
"""

from dataclasses import dataclass

import numpy as np

from tfrecords.taxonomy import (
    COLUMNS,
    HUBBLE_CLASSES,
    HUBBLE_THRESHOLDS,
    QUESTIONS,
    conditional,
    in_hubble_class,
    tree_deviation,
)
from trainer.analysis import votes

RESAMPLES = 1000
BINS = 10
# Resamples per batch: their counts take 50 x 8 bytes per galaxy.
_TOGETHER = 50


@dataclass(frozen=True)
class Scores:
    """The errors of predictions. mse: of all galaxies and columns; per_class: per column (37,); per_question: (11,).

    interval, class_intervals (37, 2), question_intervals (11, 2): 95 % bootstrap intervals of the RMSE, resampling
    galaxies. skill (37,): 1 - MSE / variance of the votes, 0 for a model that predicts the mean; NaN without variance.
    """

    mse: float
    per_class: np.ndarray
    per_question: np.ndarray
    interval: tuple[float, float]
    class_intervals: np.ndarray
    question_intervals: np.ndarray
    skill: np.ndarray

    @property
    def rmse(self) -> float:
        return float(np.sqrt(self.mse))


def squared_errors(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(predicted - targets)^2 in float64."""
    return (np.asarray(predicted, np.float64) - np.asarray(targets, np.float64)) ** 2


def bootstrap_intervals(errors: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """95 % percentile intervals of sqrt(mean) of each column of `errors` (n, k), under resampling of rows: (k, 2).

    A resample is stored as the count of each row, so that the means of all columns are one matrix product.
    """
    draws = np.random.default_rng(seed)
    rows = len(errors)
    means = []
    for begin in range(0, resamples, _TOGETHER):
        together = min(_TOGETHER, resamples - begin)
        counts = np.stack([np.bincount(draws.integers(0, rows, rows), minlength=rows) for _ in range(together)])
        means.append(counts @ errors / rows)
    return np.sqrt(np.percentile(np.concatenate(means), (2.5, 97.5), axis=0).T)


def score(predicted: np.ndarray, targets: np.ndarray) -> Scores:
    """All scores of predictions against the votes."""
    errors = squared_errors(predicted, targets)
    by_question = np.stack([errors[:, question.columns].mean(axis=1) for question in QUESTIONS], axis=1)
    everything = errors.mean(axis=1, keepdims=True)
    intervals = bootstrap_intervals(np.concatenate([everything, errors, by_question], axis=1))
    per_class, variance = errors.mean(axis=0), np.asarray(targets, np.float64).var(axis=0)
    varies = np.ptp(targets, axis=0) > 0  # rounding gives equal votes a variance of 1e-33
    return Scores(
        mse=float(errors.mean()),
        per_class=per_class,
        per_question=by_question.mean(axis=0),
        interval=(float(intervals[0, 0]), float(intervals[0, 1])),
        class_intervals=intervals[1 : 1 + len(COLUMNS)],
        question_intervals=intervals[1 + len(COLUMNS) :],
        skill=1 - np.divide(per_class, variance, out=np.full_like(variance, np.nan), where=varies),
    )


def baselines(targets: np.ndarray, train_means: np.ndarray | None) -> dict[str, float]:
    """RMSE of predicting zeros, and of predicting the column means of `train` (37,), for every galaxy."""
    values = {"zeros": float(np.sqrt(squared_errors(np.zeros(len(COLUMNS)), targets).mean()))}
    if train_means is not None:
        values["train_mean"] = float(np.sqrt(squared_errors(train_means, targets).mean()))
    return values


def calibration(predicted: np.ndarray, targets: np.ndarray) -> list[np.ndarray]:
    """Per question up to ten rows: mean predicted and mean voted fraction of those asked, and number of answers.

    A question's answers are pooled, over galaxies for which at least half of the volunteers were asked it, and binned by
    predicted fraction into equal counts (within 1). No rows if no galaxy counts.
    """
    guessed, voted, counts = conditional(predicted, 0.0), conditional(targets, 0.0), votes.asked(targets)
    tables = []
    for question, rows in zip(QUESTIONS, counts.T, strict=True):
        pairs = np.stack([guessed[rows, question.columns].ravel(), voted[rows, question.columns].ravel()], axis=1)
        pairs = pairs[~np.isnan(pairs).any(axis=1)]  # NaN if the predicted parent is exactly 0
        ordered = pairs[np.argsort(pairs[:, 0], kind="stable")]
        bins = [part for part in np.array_split(ordered, BINS) if len(part)]
        tables.append(np.array([[*part.mean(axis=0), len(part)] for part in bins]).reshape(-1, 3))
    return tables


def agreement_bins(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Per question and tenth of agreement: share of galaxies whose most voted answer is predicted, and count: (11, 10, 2).

    A galaxy counts for a question if at least half of the volunteers were asked it. The share of an empty bin is NaN.
    """
    agreement = votes.agreement(targets)
    bins = np.full((len(QUESTIONS), BINS, 2), np.nan)
    for place, question in enumerate(QUESTIONS):
        right = predicted[:, question.columns].argmax(axis=1) == targets[:, question.columns].argmax(axis=1)
        counts = ~np.isnan(agreement[:, place])
        tenth = np.minimum((agreement[counts, place] * BINS).astype(int), BINS - 1)
        galaxies = np.bincount(tenth, minlength=BINS)
        hits = np.bincount(tenth, right[counts], BINS)
        bins[place, :, 0] = np.divide(hits, galaxies, out=np.full(BINS, np.nan), where=galaxies > 0)
        bins[place, :, 1] = galaxies
    return bins


def tree_violation(predicted: np.ndarray) -> np.ndarray:
    """How far predictions are from the tree's sums: median, 95 % quantile and largest per question, (11, 3)."""
    return np.percentile(tree_deviation(predicted), (50, 95, 100), axis=0).T


@dataclass(frozen=True)
class HubbleCount:
    """Numbers of galaxies in a Hubble class at a threshold: by the predictions, by the votes, and by both."""

    name: str
    threshold: float
    predicted: int
    true: int
    both: int

    @property
    def purity(self) -> float:
        """The share of the predicted galaxies that were also voted into the class; NaN if none is predicted."""
        return self.both / self.predicted if self.predicted else float("nan")

    @property
    def completeness(self) -> float:
        """The share of the galaxies voted into the class that were also predicted; NaN if there are none."""
        return self.both / self.true if self.true else float("nan")


def hubble_counts(predicted: np.ndarray, targets: np.ndarray) -> list[HubbleCount]:
    """The counts of each Hubble class at each of the article's thresholds."""
    counts = []
    for name in HUBBLE_CLASSES:
        for threshold in HUBBLE_THRESHOLDS:
            guessed, true = (in_hubble_class(table, name, threshold) for table in (predicted, targets))
            counts.append(HubbleCount(name, threshold, int(guessed.sum()), int(true.sum()), int((guessed & true).sum())))
    return counts


def best_worst(predicted: np.ndarray, targets: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the galaxies with the lowest RMSE, best first, and with the highest, worst first; ties by row."""
    errors = squared_errors(predicted, targets).mean(axis=1)
    return np.argsort(errors, kind="stable")[:count], np.argsort(-errors, kind="stable")[:count]


def surprising(predicted: np.ndarray, targets: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the galaxies with the largest difference in a single column, and these columns."""
    difference = np.abs(np.asarray(predicted, np.float64) - targets)
    rows = np.argsort(-difference.max(axis=1), kind="stable")[:count]
    return rows, difference[rows].argmax(axis=1)
