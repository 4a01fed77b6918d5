"""Scores of predictions and baselines against the votes, with intervals. Pure functions.

Arrays are (galaxies, n), vote fractions in 0..1, in the order of the tree. RMSE is the root of the mean of all squared
differences over galaxies and columns: each value weighs the same, whatever the number of volunteers behind it. In a survey
with counts, values of questions that nobody answered do not count.
`counted`, bool (galaxies, n), marks those that do; `answered` (galaxies, questions) is how many volunteers answered; None: all
count. The mean is NaN if none counts.
"""

from dataclasses import dataclass

import numpy as np

from tfrecords.tree import Tree
from trainer.analysis import votes

RESAMPLES = 1000
BINS = 10
# Resamples per batch: their counts take 50 x 8 bytes per galaxy.
_TOGETHER = 50


@dataclass(frozen=True)
class Scores:
    """The errors of predictions. mse: of all galaxies and columns; per_class: per column (n,); per_question: (questions,).

    interval, class_intervals (n, 2), question_intervals (questions, 2): 95 % bootstrap intervals of the RMSE, resampling
    galaxies. skill (n,): 1 - MSE / variance of the votes, 0 for a model that predicts the mean; NaN without variance.
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


def mean_counted(values: np.ndarray, counted: np.ndarray | None, axis: int | None = None) -> np.ndarray:
    """The mean of the values that count, along an axis or of all; NaN if none does."""
    if counted is None:
        return np.asarray(values.mean(axis=axis))
    number = np.asarray(counted.sum(axis=axis))
    sums = np.asarray(values.sum(axis=axis, where=counted))
    return np.divide(sums, number, out=np.full(sums.shape, np.nan), where=number > 0)


def bootstrap_intervals(
    errors: np.ndarray, resamples: int = RESAMPLES, seed: int = 0, weights: np.ndarray | None = None
) -> np.ndarray:
    """95 % percentile intervals of sqrt(mean) of each column of `errors` (rows, k), under resampling of rows: (k, 2).

    weights (rows, k): `errors` are then sums of so many values each, and the mean is over all values; resamples without any
    are omitted.
    """
    means = _resampled_means(errors, resamples, seed, weights)
    if weights is None:
        return np.sqrt(np.percentile(means, (2.5, 97.5), axis=0).T)
    return np.sqrt(_intervals(means))


def paired_differences(
    errors: np.ndarray,
    base: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
    weights: np.ndarray | None = None,
    root: bool = True,
) -> np.ndarray:
    """sqrt(mean) of each column of `errors` minus that of `base`, of the same rows, with its 95 % interval: (k, 3).

    errors, base, weights: (rows, k), as in `bootstrap_intervals`. Without `root`, means are compared, not their roots. Both are
    resampled together, so that what is hard for both does not widen the interval. NaN where there is nothing to measure.
    """
    both = np.concatenate([errors, base], axis=1)
    twice = None if weights is None else np.concatenate([weights, weights], axis=1)
    ends = _resampled_means(both, resamples, seed, twice)
    whole = np.full(both.shape[1], len(both)) if twice is None else twice.sum(axis=0)
    means = np.divide(both.sum(axis=0), whole, out=np.full(both.shape[1], np.nan), where=whole > 0)
    values = np.concatenate([means[None], ends])
    first, second = np.split(np.sqrt(values) if root else values, 2, axis=1)
    differences = first - second
    if len(both) == 1:  # resamples of a single galaxy are all the same
        return np.concatenate([differences[:1].T, np.full((differences.shape[1], 2), np.nan)], axis=1)
    return np.concatenate([differences[:1].T, _intervals(differences[1:])], axis=1)


def _resampled_means(errors: np.ndarray, resamples: int, seed: int, weights: np.ndarray | None) -> np.ndarray:
    """The mean of each column in each resample of the rows: (resamples, k); NaN for a resample without weights.

    A resample is stored as the count of each row, so that the means of all columns are one matrix product.
    """
    draws = np.random.default_rng(seed)
    rows = len(errors)
    means = []
    for begin in range(0, resamples, _TOGETHER):
        together = min(_TOGETHER, resamples - begin)
        counts = np.stack([np.bincount(draws.integers(0, rows, rows), minlength=rows) for _ in range(together)])
        if weights is None:
            means.append(counts @ errors / rows)
        else:
            sums, numbers = counts @ errors, counts @ weights
            means.append(np.divide(sums, numbers, out=np.full_like(sums, np.nan), where=numbers > 0))
    return np.concatenate(means)


def _intervals(resampled: np.ndarray) -> np.ndarray:
    """The 2.5 and 97.5 % percentiles of each column, without NaN: (k, 2)."""
    measured = [column[~np.isnan(column)] for column in resampled.T]
    return np.stack([np.percentile(column, (2.5, 97.5)) if len(column) else np.full(2, np.nan) for column in measured])


def score(predicted: np.ndarray, targets: np.ndarray, tree: Tree, counted: np.ndarray | None = None) -> Scores:
    """All scores of predictions against the votes. Each value that counts weighs the same, however many volunteers voted."""
    errors = squared_errors(predicted, targets)
    starts = [question.start for question in tree.questions]
    by_question = _by_question(errors, tree)
    if counted is None:
        everything = errors.mean(axis=1, keepdims=True)
        intervals = bootstrap_intervals(np.concatenate([everything, errors, by_question], axis=1))
    else:
        parts, weights = error_parts(errors, tree, counted)
        intervals = bootstrap_intervals(parts, weights=weights)
    per_class = mean_counted(errors, counted, 0)
    return Scores(
        mse=float(mean_counted(errors, counted)),
        per_class=per_class,
        per_question=mean_counted(by_question, None if counted is None else counted[:, starts], 0),
        interval=(float(intervals[0, 0]), float(intervals[0, 1])),
        class_intervals=intervals[1 : 1 + len(tree.columns)],
        question_intervals=intervals[1 + len(tree.columns) :],
        skill=_skill(per_class, targets, counted),
    )


def _by_question(errors: np.ndarray, tree: Tree) -> np.ndarray:
    """The mean over the columns of each question, (galaxies, questions)."""
    return np.stack([errors[:, question.columns].mean(axis=1) for question in tree.questions], axis=1)


def error_parts(errors: np.ndarray, tree: Tree, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the scores are means of: sums of squared errors (galaxies, 1 + n + questions), and of how many values each is.

    First over all columns, then for each column, then for each question.
    """
    starts = [question.start for question in tree.questions]
    everything = errors.sum(axis=1, keepdims=True, where=counted)
    weights = np.concatenate([counted.sum(axis=1, keepdims=True), counted, counted[:, starts]], axis=1, dtype=np.float64)
    return np.concatenate([everything, errors * counted, _by_question(errors, tree) * counted[:, starts]], axis=1), weights


def variances(targets: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """The variance of the values of each column that count, float64 (n,)."""
    targets = np.asarray(targets)
    if counted is None:
        return np.asarray(targets.var(axis=0, dtype=np.float64))
    centred = targets.astype(np.float64) - np.nan_to_num(mean_counted(targets.astype(np.float64), counted, 0))
    return mean_counted(centred**2, counted, 0)


def _skill(per_class: np.ndarray, targets: np.ndarray, counted: np.ndarray | None) -> np.ndarray:
    if counted is None:
        variance, varies = np.asarray(targets, np.float64).var(axis=0), np.ptp(targets, axis=0) > 0
    else:
        variance = variances(targets, counted)
        varies = targets.max(axis=0, where=counted, initial=-1) > targets.min(axis=0, where=counted, initial=2)
    return skill_of(per_class, variance, varies)


def skill_of(per_class: np.ndarray, variance: np.ndarray, varies: np.ndarray) -> np.ndarray:
    """1 - MSE / variance (n,); NaN unless the votes vary: rounding would give equal votes a variance of 1e-33."""
    return 1 - np.divide(per_class, variance, out=np.full_like(variance, np.nan), where=varies)


def baselines(targets: np.ndarray, train_means: np.ndarray | None, counted: np.ndarray | None = None) -> dict[str, float]:
    """RMSE of predicting zeros, and of predicting the column means of `train` (n,), for every galaxy."""
    guesses = {"zeros": np.zeros(targets.shape[1])}
    if train_means is not None:
        guesses["train_mean"] = train_means
    return {name: float(np.sqrt(mean_counted(squared_errors(guess, targets), counted))) for name, guess in guesses.items()}


def calibration(predicted: np.ndarray, targets: np.ndarray, tree: Tree, answered: np.ndarray | None = None) -> list[np.ndarray]:
    """Per question up to ten rows: mean predicted and mean voted fraction of those asked, and number of answers.

    A question's answers are pooled, over galaxies for which at least half of the volunteers were asked it, and binned by
    predicted fraction into equal counts (within 1). No rows if no galaxy counts.
    """
    guessed, voted = tree.conditional(predicted, 0.0), tree.conditional(targets, 0.0)
    counts = votes.asked(targets, tree, answered)
    tables = []
    for question, rows in zip(tree.questions, counts.T, strict=True):
        pairs = np.stack([guessed[rows, question.columns].ravel(), voted[rows, question.columns].ravel()], axis=1)
        pairs = pairs[~np.isnan(pairs).any(axis=1)]  # NaN if the predicted parent is exactly 0
        ordered = pairs[np.argsort(pairs[:, 0], kind="stable")]
        bins = [part for part in np.array_split(ordered, BINS) if len(part)]
        tables.append(np.array([[*part.mean(axis=0), len(part)] for part in bins]).reshape(-1, 3))
    return tables


def agreement_bins(predicted: np.ndarray, targets: np.ndarray, tree: Tree, answered: np.ndarray | None = None) -> np.ndarray:
    """Per question and tenth of agreement: share of galaxies whose most voted answer is predicted, and count.

    (questions, 10, 2). A galaxy counts for a question if at least half of the volunteers were asked it. The share of an empty
    bin is NaN.
    """
    return shares_of_hits(agreement_hits(predicted, targets, tree, answered))


def agreement_hits(predicted: np.ndarray, targets: np.ndarray, tree: Tree, answered: np.ndarray | None = None) -> np.ndarray:
    """As `agreement_bins`, with the number of galaxies whose most voted answer is predicted in place of their share."""
    agreement = votes.agreement(targets, tree, answered)
    bins = np.zeros((len(tree.questions), BINS, 2))
    for place, question in enumerate(tree.questions):
        right = predicted[:, question.columns].argmax(axis=1) == targets[:, question.columns].argmax(axis=1)
        counts = ~np.isnan(agreement[:, place])
        tenth = np.minimum((agreement[counts, place] * BINS).astype(int), BINS - 1)
        bins[place, :, 0] = np.bincount(tenth, right[counts], BINS)
        bins[place, :, 1] = np.bincount(tenth, minlength=BINS)
    return bins


def shares_of_hits(bins: np.ndarray) -> np.ndarray:
    """`agreement_bins` from `agreement_hits`, also from the sum of those of several blocks."""
    hits, galaxies = bins[..., 0], bins[..., 1]
    return np.stack([np.divide(hits, galaxies, out=np.full(hits.shape, np.nan), where=galaxies > 0), galaxies], axis=-1)


def tree_violation(predicted: np.ndarray, tree: Tree) -> np.ndarray:
    """How far predictions are from the tree's sums: median, 95 % quantile and largest per question, (questions, 3)."""
    return np.percentile(tree.deviation(predicted), (50, 95, 100), axis=0).T


@dataclass(frozen=True)
class ClassCount:
    """Numbers of galaxies in a class at a threshold: by the predictions, by the votes, and by both."""

    name: str
    columns: tuple[str, ...]
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


def class_counts(predicted: np.ndarray, targets: np.ndarray, tree: Tree) -> list[ClassCount]:
    """The counts of each class of the tree at each of its thresholds."""
    counts = []
    for member in tree.classes:
        columns = tuple(tree.columns[column] for column in member.columns)
        for threshold in tree.thresholds:
            guessed, true = (tree.in_class(table, member, threshold) for table in (predicted, targets))
            numbers = (int(part.sum()) for part in (guessed, true, guessed & true))
            counts.append(ClassCount(member.name, columns, threshold, *numbers))
    return counts


def best_worst(
    predicted: np.ndarray, targets: np.ndarray, count: int, counted: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the galaxies with the lowest RMSE, best first, and with the highest, worst first; ties by row."""
    errors = mean_counted(squared_errors(predicted, targets), counted, 1)
    return np.argsort(errors, kind="stable")[:count], np.argsort(-errors, kind="stable")[:count]


def surprising(
    predicted: np.ndarray, targets: np.ndarray, count: int, counted: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the galaxies with the largest difference in a single column that counts, and these columns."""
    difference = np.abs(np.asarray(predicted, np.float64) - targets)
    if counted is not None:
        difference = np.where(counted, difference, 0)
    rows = np.argsort(-difference.max(axis=1), kind="stable")[:count]
    return rows, difference[rows].argmax(axis=1)
