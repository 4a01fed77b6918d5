"""Intervals of a model with head dirichlet, and whether they hold the votes.

Under such a model the answers to a question are Dirichlet-multinomial: alpha of an answer is its share of the question times
the question's concentration. So the count of one answer is beta-binomial, and its share of those asked is Beta-distributed.

Sources: Walmsley et al. 2020 (MNRAS 491, 1554), sections 3 and 4; 2022 (MNRAS 509, 3966), section 4.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from tfrecords.tree import Question, Tree

LEVEL = 0.9
_LOW, _HIGH = (1 - LEVEL) / 2, (1 + LEVEL) / 2
# Numbers in a working array: 16 MB in float64.
_WORKING = 2_000_000
_BLOCK = 256
# A share that underflowed still needs a distribution.
_LEAST_ALPHA = 1e-12


@dataclass(frozen=True)
class Coverage:
    """How many of the central 90 % intervals hold the votes, for each question of a tree.

    held: the fraction of (galaxy, answer) whose count of votes is in its interval, float64 (questions,). expected: the fraction
    according to the model itself, above 0.9 because a count is a whole number. galaxies: how many have answers to the question,
    int64 (questions,). Without any, held and expected are NaN.
    """

    held: np.ndarray
    expected: np.ndarray
    galaxies: np.ndarray

    def overall(self, tree: Tree) -> tuple[float, float]:
        """The fractions held and expected of all (galaxy, answer) of the tree."""
        pairs = self.galaxies * np.array([len(question.answers) for question in tree.questions])
        number = max(int(pairs.sum()), 1)
        return float(np.nansum(self.held * pairs) / number), float(np.nansum(self.expected * pairs) / number)


def coverage(
    tree: Tree, predicted: np.ndarray, concentrations: np.ndarray, targets: np.ndarray, asked: np.ndarray | None = None
) -> Coverage:
    """Compare the intervals of the predicted counts with the votes.

    predicted, targets: cumulative fractions (galaxies, n). concentrations: (galaxies, questions). asked: (galaxies, questions),
    answers to each question; if None, as many of `tree.volunteers` as the targets of the columns that lead there. Counts are
    rounded to whole numbers; a question counts for a galaxy if it then has an answer.
    """
    held, expected, galaxies = [], [], []
    for question in tree.questions:
        votes = np.asarray(targets[:, question.columns], np.float64)
        total = votes.sum(axis=1)
        answers = tree.volunteers * total if asked is None else np.asarray(asked[:, question.index], np.float64)
        whole = np.rint(answers).astype(np.int64)
        rows = np.flatnonzero((whole >= 1) & (total > 0))
        given = np.rint(answers[rows, None] * votes[rows] / total[rows, None]).astype(np.int64)
        counts = np.repeat(whole[rows], given.shape[1])
        alphas = _alphas(predicted[rows], concentrations[rows], question)
        others = np.maximum(alphas.sum(axis=1, keepdims=True) - alphas, _LEAST_ALPHA)
        inside, mass = _inside(np.minimum(given.ravel(), counts), counts, alphas.ravel(), others.ravel())
        held.append(inside.mean() if len(rows) else np.nan)
        expected.append(mass.mean() if len(rows) else np.nan)
        galaxies.append(len(rows))
    return Coverage(np.array(held), np.array(expected), np.array(galaxies, np.int64))


def _alphas(predicted: np.ndarray, concentrations: np.ndarray, question: Question) -> np.ndarray:
    """The alphas of a question's answers, float64 (galaxies, answers)."""
    fractions = np.maximum(np.asarray(predicted[:, question.columns], np.float64), 1e-300)
    shares = fractions / fractions.sum(axis=1, keepdims=True)
    return np.maximum(shares * np.asarray(concentrations[:, question.index, None], np.float64), _LEAST_ALPHA)


def _inside(given: np.ndarray, counts: np.ndarray, alphas: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each count is in the central interval of its beta-binomial distribution, and the probability of that interval.

    All arrays are (pairs,): `given` of `counts` answers, and the two parameters. The interval is from the smallest count whose
    cumulative probability reaches 5 % to the smallest whose reaches 95 %.
    """
    inside, mass = np.empty(len(given), bool), np.empty(len(given))
    for rows in _by_size(counts):
        cumulative = _cumulative(counts[rows], alphas[rows], betas[rows])
        low, high = ((cumulative < level).sum(axis=1) for level in (_LOW, _HIGH))
        inside[rows] = (low <= given[rows]) & (given[rows] <= high)
        place = np.arange(len(rows))
        mass[rows] = cumulative[place, high] - np.where(low > 0, cumulative[place, np.maximum(low - 1, 0)], 0)
    return inside, mass


def _by_size(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Places of pairs with similar numbers of answers, few enough for a working array."""
    order = np.argsort(counts, kind="stable")
    stop = len(order)
    while stop:
        start = max(0, stop - max(1, _WORKING // (int(counts[order[stop - 1]]) + 1)))
        yield order[start:stop]
        stop = start


def _cumulative(counts: np.ndarray, alphas: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """Cumulative probabilities of 0, 1, ... answers, (pairs, largest count + 1); 1 from each pair's own count on.

    From the ratio of the probabilities of neighbours, p(j + 1) / p(j) = (n - j) (j + alpha) / ((j + 1) (n - j - 1 + beta)).
    """
    steps = np.arange(counts.max())
    left = counts[:, None] - steps
    with np.errstate(divide="ignore"):  # the logarithm of 0 at a pair's own count: what follows has probability 0
        logs = np.log(np.maximum(left, 0)) + np.log(steps + alphas[:, None])
    logs -= np.log(steps + 1.0) + np.log(np.maximum(left - 1, 0) + betas[:, None])
    relative = np.zeros((len(counts), len(steps) + 1))
    np.cumsum(logs, axis=1, out=relative[:, 1:])
    relative -= relative.max(axis=1, keepdims=True)
    cumulative = np.cumsum(np.exp(relative, out=relative), axis=1)
    return np.asarray(cumulative / cumulative[:, -1:])


def intervals(
    tree: Tree, predicted: np.ndarray, concentrations: np.ndarray, seed: int = 0, draws: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """The central 90 % interval of each cumulative fraction: its quantiles of 5 % and 95 %, both float64 (galaxies, n).

    predicted: (galaxies, n); concentrations: (galaxies, questions). Shares are drawn for each question and multiplied along the
    tree, so an interval includes how uncertain the questions before it are. It is that of the fraction in the limit of many
    volunteers, not of the votes of a few. All galaxies use the same random numbers, so an interval depends on nothing but the
    seed and the galaxy's own prediction. A mean may be above the interval if the distribution is very skewed.
    """
    alphas = [_alphas(predicted, concentrations, question) for question in tree.questions]

    def quantiles(row: int) -> np.ndarray:
        generator = np.random.default_rng(seed)
        fractions = np.empty((draws, len(tree.columns)))
        for question, of_question in zip(tree.questions, alphas, strict=True):
            shares = generator.dirichlet(of_question[row], draws)
            fractions[:, question.columns] = shares * tree.reached(fractions, question)[:, None]
        return np.quantile(fractions, (_LOW, _HIGH), axis=0)

    both = np.empty((2, *predicted.shape))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # numpy draws and sorts outside Python's lock
        for start in range(0, len(predicted), _BLOCK):  # Ctrl-C waits for a block at most
            rows = range(start, min(start + _BLOCK, len(predicted)))
            both[:, rows] = np.stack(list(pool.map(quantiles, rows)), axis=1)
    return both[0], both[1]
