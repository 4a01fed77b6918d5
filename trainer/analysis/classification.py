"""How well the most voted answers are predicted, and the fractions of those asked. Pure functions.

The measures are those of the papers of this field: accuracy, precision, recall and F1 per question (Euclid Collaboration 2024,
A&A 689, A274, table 3), the same where volunteers are confident (Walmsley et al. 2022, MNRAS 509, 3966), and the error of each
vote fraction (Walmsley et al. 2023, MNRAS 526, 4768). Votes and predictions are (galaxies, n), cumulative fractions in 0..1, in
the order of the tree; `answered` (galaxies, questions) is how many volunteers answered, None without counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrecords.tree import Question, Tree, for_answers
from trainer.analysis import votes
from trainer.analysis.metrics import RESAMPLES
from trainer.analysis.table import Measured

# Volunteers are confident if at least this share of those asked gave the same answer.
CONFIDENT = 0.8
# Fractions of a whole number of votes are exact to float32 only: 0.56 / 0.7 may be 0.79999995.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Measures:
    """QuestionScores of a question, each with its 95 % bootstrap interval; or differences of them. NaN: nothing to measure.

    precision, recall, f1: for each answer. macro: their means over the answers that occur in votes or predictions (in a
    resample, those that occur there); an undefined precision or recall is 0 there, as in scikit-learn.
    """

    accuracy: Measured
    precision: tuple[Measured, ...]
    recall: tuple[Measured, ...]
    f1: tuple[Measured, ...]
    macro: tuple[Measured, Measured, Measured]


@dataclass(frozen=True)
class QuestionScores(Measures):
    """The scores of a question.

    counts: int64 (answers, answers), galaxies by their most voted answer (row) and their predicted one (column); of several
    with the same fraction, the first.
    """

    counts: np.ndarray

    @property
    def galaxies(self) -> int:
        return int(self.counts.sum())


def is_confident(targets: np.ndarray, tree: Tree, question: Question) -> np.ndarray:
    """Whether volunteers are confident about a question: bool (galaxies,)."""
    return tree.shares(targets, question).max(axis=1) >= CONFIDENT - _TOLERANCE


def confusion(predicted: np.ndarray, targets: np.ndarray, question: Question, rows: np.ndarray) -> np.ndarray:
    """Galaxies, those of `rows`, by most voted and by predicted answer of a question: int64 (answers, answers)."""
    number = len(question.answers)
    voted, guessed = (np.asarray(table)[rows, question.columns].argmax(axis=1) for table in (targets, predicted))
    return np.bincount(voted * number + guessed, minlength=number**2).reshape(number, number)


def scores_of(counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> QuestionScores:
    """The scores of a confusion matrix, int (answers, answers).

    A resample of the galaxies changes nothing but the counts, which then follow a multinomial distribution; so intervals cost
    the same for any number of galaxies.
    """
    total, number = int(counts.sum()), len(counts)
    if total > 1:  # resamples of a single galaxy are all the same
        drawn = np.random.default_rng(seed).multinomial(total, counts.ravel() / total, resamples)
        several = np.concatenate([counts.reshape(1, -1), drawn]).reshape(-1, number, number)
    else:
        several = counts[None]
    accuracy, precision, recall, f1, macro = _measures(_derived(several))
    return QuestionScores(accuracy, precision, recall, f1, macro, counts)


def _derived(several: np.ndarray) -> tuple[np.ndarray, ...]:
    """Accuracy (s,), then precision, recall and F1 (s, answers), then their means (s,), of matrices (s, answers, answers).

    The first matrix is that of the galaxies, the others are resamples.
    """
    right = np.diagonal(several, axis1=1, axis2=2).astype(np.float64)
    voted, guessed = several.sum(axis=2), several.sum(axis=1)
    occurs = voted + guessed > 0
    accuracy = _divided(right.sum(axis=1), several.sum(axis=(1, 2)))
    each = [_divided(right, guessed), _divided(right, voted), _divided(2 * right, voted + guessed)]
    macro = [_divided(np.where(occurs, np.nan_to_num(part), 0).sum(axis=1), occurs.sum(axis=1)) for part in each]
    return accuracy, *each, *macro


def _measures(values: Sequence[np.ndarray]) -> tuple[Any, ...]:
    """The fields of `Measures` from what `_derived` returns, or from differences of that."""
    accuracy, precision, recall, f1, *macro = values
    each = (tuple(_measured(part[:, answer]) for answer in range(part.shape[1])) for part in (precision, recall, f1))
    return _measured(accuracy), *each, tuple(map(_measured, macro))


def differences_of(
    voted: np.ndarray, guessed: np.ndarray, base: np.ndarray, number: int, resamples: int = RESAMPLES, seed: int = 0
) -> Measures:
    """The scores of `guessed` minus those of `base`, with 95 % intervals over the same resamples of the galaxies.

    voted, guessed, base: int (galaxies,), places of answers of a question that has `number` of them.
    """
    cells = np.bincount((voted * number + guessed) * number + base, minlength=number**3)
    several = cells[None]
    if len(voted) > 1:
        drawn = np.random.default_rng(seed).multinomial(len(voted), cells / len(voted), resamples)
        several = np.concatenate([several, drawn])
    joint = several.reshape(-1, number, number, number)
    ours, theirs = _derived(joint.sum(axis=3)), _derived(joint.sum(axis=2))
    return Measures(*_measures([one - other for one, other in zip(ours, theirs, strict=True)]))


def _divided(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _measured(values: np.ndarray) -> Measured:
    """The first value, with the interval of the others, if there are any; resamples without a value are omitted."""
    rest = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or not len(rest):
        return Measured(float(values[0]), np.nan, np.nan)
    low, high = np.percentile(rest, (2.5, 97.5))
    return Measured(float(values[0]), float(low), float(high))


def classified(
    predicted: np.ndarray, targets: np.ndarray, tree: Tree, answered: np.ndarray | None = None
) -> tuple[list[QuestionScores], list[QuestionScores]]:
    """The scores of each question, over the galaxies for which at least half of the volunteers were asked it.

    The second list is that of the galaxies whose volunteers are also confident.
    """
    everyone, confident = confusions(predicted, targets, tree, answered)
    return [*map(scores_of, everyone)], [*map(scores_of, confident)]


def confusions(
    predicted: np.ndarray, targets: np.ndarray, tree: Tree, answered: np.ndarray | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The confusion matrices behind `classified`. Those of several blocks of galaxies add up."""
    everyone: list[np.ndarray] = []
    confident: list[np.ndarray] = []
    for question, asked in zip(tree.questions, votes.asked(targets, tree, answered).T, strict=True):
        for matrices, rows in ((everyone, asked), (confident, asked & is_confident(targets, tree, question))):
            matrices.append(confusion(predicted, targets, question, rows))
    return everyone, confident


@dataclass(frozen=True)
class Errors:
    """The errors of each answer, float64 (n,) each; NaN if no galaxy counts.

    galaxies, mean_absolute, rms: of the cumulative fractions, over all galaxies that count. asked, asked_mean_absolute,
    asked_rms: of the fractions of those asked, over the galaxies for which at least half of the volunteers were asked.
    """

    galaxies: np.ndarray
    mean_absolute: np.ndarray
    rms: np.ndarray
    asked: np.ndarray
    asked_mean_absolute: np.ndarray
    asked_rms: np.ndarray


@dataclass(frozen=True)
class Weighted:
    """Absolute errors and how much each weighs, float64 (galaxies, n)."""

    errors: np.ndarray
    weights: np.ndarray


def weighted_errors(
    predicted: np.ndarray, targets: np.ndarray, tree: Tree, answered: np.ndarray | None = None
) -> tuple[Weighted, Weighted]:
    """The errors of the cumulative fractions, and of those of the volunteers who were asked.

    With counts, each galaxy weighs as much as the number of volunteers who answered.
    """
    weights = np.ones((len(targets), len(tree.questions))) if answered is None else np.asarray(answered, np.float64)
    asked = np.where(votes.asked(targets, tree, answered), weights, 0)
    cumulative = np.abs(np.asarray(predicted, np.float64) - np.asarray(targets, np.float64))
    given = np.concatenate([np.abs(tree.shares(predicted, q) - tree.shares(targets, q)) for q in tree.questions], axis=1)
    return (
        Weighted(cumulative, for_answers(weights, tree.questions)),
        Weighted(given, for_answers(asked, tree.questions)),
    )


def answer_errors(predicted: np.ndarray, targets: np.ndarray, tree: Tree, answered: np.ndarray | None = None) -> Errors:
    """The errors of each answer, weighted as in `weighted_errors`."""
    return errors_of_sums(error_sums(predicted, targets, tree, answered))


def error_sums(predicted: np.ndarray, targets: np.ndarray, tree: Tree, answered: np.ndarray | None = None) -> np.ndarray:
    """The sums behind `answer_errors`, float64 (2, 4, n), cumulative and of those asked. Those of several blocks add up.

    For each answer: galaxies that count, weights, weighted errors, weighted squares.
    """
    both = weighted_errors(predicted, targets, tree, answered)
    return np.stack([[(part.weights > 0).sum(axis=0), *_weighted_sums(part.errors, part.weights)] for part in both])


def errors_of_sums(sums: np.ndarray) -> Errors:
    """`answer_errors` from `error_sums`."""
    cumulative, asked = ((galaxies.astype(np.int64), *_averages(*rest)) for galaxies, *rest in sums)
    return Errors(*cumulative, *asked)


def _weighted_sums(errors: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return weights.sum(axis=0), (errors * weights).sum(axis=0), (errors**2 * weights).sum(axis=0)


def _averages(whole: np.ndarray, errors: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _divided(errors, whole), np.sqrt(_divided(squares, whole))


def weighted_averages(errors: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weighted mean and root mean square of absolute errors, per column."""
    return _averages(*_weighted_sums(errors, weights))


def answers_of(tree: Tree) -> Sequence[tuple[Question, int, int]]:
    """Each answer: its question, its place there, and its column."""
    return [(question, place, question.start + place) for question in tree.questions for place in range(len(question.answers))]
