"""The losses, which compare a model's outputs with votes.

mse                    the squared error of the vote fractions
cross_entropy          -log likelihood of the answers if they are multinomial
dirichlet_multinomial  -log likelihood of the answers if they are Dirichlet-multinomial, for head dirichlet

A batch of votes is (batch, n), cumulative fractions, or for a dataset with counts (batch, n + questions): how many volunteers
answered each question follows. Likelihoods are divided by the number of galaxies and by `tree.volunteers`. A question that
nobody answered adds exactly 0. Without counts, `tree.volunteers` are assumed for every galaxy: a question then has as many
answers as the fraction of them that reached it, which need not be whole.

Only `keras.ops` are used, the same on every backend. Sources: the multinomial and Dirichlet-multinomial likelihoods of votes on
a decision tree: Walmsley et al. 2020 (MNRAS 491, 1554), equation 5, and 2022 (MNRAS 509, 3966), section 4.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tfrecords.tree import Tree

LOSSES = ("mse", "cross_entropy", "dirichlet_multinomial")
Loss = Callable[[Any, Any], Any]

# The smallest fraction in a logarithm: a softmax gives smaller ones only if it underflows.
_SMALLEST = 1e-30
# The smallest alpha: its square, in a gradient, must not underflow.
_LEAST_ALPHA = 1e-15
# Stirling's series has an error below 1e-8 from here on.
_STIRLING = 5


def loss_function(name: str, tree: Tree, asked: bool) -> Loss:
    """The loss that a run minimises: outputs (batch, width of the head), votes (batch, n or n + questions) -> scalar.

    name: one of LOSSES. asked: whether the votes have counts. Loss mse is the same object as `error_function`.
    """
    if name == "mse":
        return error_function(tree, asked)
    return functools.partial(_cross_entropy if name == "cross_entropy" else _dirichlet_multinomial, tree=tree, asked=asked)


def error_function(tree: Tree, asked: bool) -> Loss:
    """The error that a run reports, as `loss_function`: the mean squared error of the fractions.

    With counts it is the mean over the answers to questions that somebody answered: each of these weighs the same.
    """
    return _only_one(tree, asked)


@functools.cache
def _only_one(tree: Tree, asked: bool) -> Loss:
    """One object for equal arguments, by which a step recognises that its loss is its error."""
    return functools.partial(_squared_error, tree=tree, asked=asked)


def _squared_error(predicted: Any, votes: Any, tree: Tree, asked: bool) -> Any:
    from keras import ops

    columns = len(tree.columns)
    if predicted.shape[-1] != columns:  # concentrations follow
        predicted = predicted[:, :columns]
    if not asked:
        return ops.mean(ops.square(predicted - votes))
    counted = ops.cast(_by_answer(votes[:, columns:], tree) > 0, "float32")
    squares = counted * ops.square(predicted - votes[:, :columns])
    return ops.sum(squares) / ops.maximum(ops.sum(counted), 1.0)


def _by_answer(by_question: Any, tree: Tree) -> Any:
    """Repeat the columns of (batch, questions) for each answer: (batch, n)."""
    from keras import ops

    return ops.concatenate([ops.repeat(by_question[:, q.index : q.index + 1], len(q.answers), -1) for q in tree.questions], -1)


def _by_question(values: Any, tree: Tree) -> Any:
    """The sum of the answers of each question: (batch, n) -> (batch, questions)."""
    from keras import ops

    return ops.concatenate([ops.sum(values[:, q.columns], axis=-1, keepdims=True) for q in tree.questions], axis=-1)


def _answered(votes: Any, tree: Tree, asked: bool) -> Any:
    """How many volunteers gave each answer, (batch, n), as a fraction of `tree.volunteers`."""
    from keras import ops

    if not asked:
        return votes
    columns = len(tree.columns)
    targets = votes[:, :columns]
    shares = targets / ops.maximum(_by_answer(_by_question(targets, tree), tree), _SMALLEST)
    return shares * _by_answer(votes[:, columns:], tree) / tree.volunteers


def _own_share(tree: Tree) -> np.ndarray:
    """A matrix (n, n): votes @ matrix is each column less the votes on the questions asked after it alone."""
    matrix = np.eye(len(tree.columns), dtype=np.float32)
    for question in tree.questions:
        if len(question.parents) == 1:
            matrix[question.columns, question.parents[0]] -= 1
    return matrix


def _cross_entropy(predicted: Any, votes: Any, tree: Tree, asked: bool) -> Any:
    """The mean over galaxies of the cross-entropies of all questions, each weighted by the number of its answers.

    For fractions that obey the tree. A question contributes -sum(t log(p / reached)) over its answers, where `reached` is the
    sum of the p that lead to it. If that is one column, its logarithm joins the other terms of that column: the sum over
    questions equals -sum(w log p) over columns, where w is t less the t of the questions that follow.
    """
    from keras import ops

    answered = _answered(votes, tree, asked)
    weights = ops.matmul(answered, _own_share(tree))
    logs = ops.log(ops.maximum(predicted, _SMALLEST))
    loss = -ops.mean(ops.sum(weights * logs, axis=-1))
    for question in tree.questions:
        if len(question.parents) > 1:
            reached = sum(predicted[:, parent] for parent in question.parents)
            answers = ops.sum(answered[:, question.columns], axis=-1)
            loss = loss + ops.mean(answers * ops.log(ops.maximum(reached, _SMALLEST)))
    return loss


def _log_rising(alpha: Any, count: Any) -> Any:
    """log(gamma(alpha + count) / gamma(alpha)), for alpha > 0 and count >= 0, elementwise.

    The difference of two log-gammas of alpha = 10,000 has an error of 0.01 in float32; here it is relative to the result. The
    recurrence of gamma moves alpha up to where Stirling's series holds.
    """
    from keras import ops

    shifted = alpha + _STIRLING

    def series(x: Any) -> Any:
        inverse = 1 / x
        square = inverse * inverse
        return inverse * (1 / 12 - square * (1 / 360 - square / 1260))

    total = count * ops.log(shifted + count) + (shifted - 0.5) * ops.log1p(count / shifted) - count
    total = total + series(shifted + count) - series(shifted)
    for step in range(_STIRLING):
        total = total - ops.log1p(count / (alpha + step))
    return ops.where(count > 0, total, 0.0)  # its gradient is then 0 too, not a remainder of rounding


def _dirichlet_multinomial(predicted: Any, votes: Any, tree: Tree, asked: bool) -> Any:
    """The mean over galaxies of -log probability of the answers to all questions, divided by `tree.volunteers`.

    predicted: (batch, n + questions), as of head dirichlet. Of k answers among K, with alphas that add up to A, the probability
    is K! / (A)_K times the product of (alpha)_k / k!, where (x)_k is gamma(x + k) / gamma(x).
    """
    from keras import ops

    columns = len(tree.columns)
    # Logarithms, because a gradient of a quotient would square a denominator that may be tiny.
    fractions = ops.maximum(predicted[:, :columns], _SMALLEST)
    logs = ops.log(fractions) - _by_answer(ops.log(_by_question(fractions, tree)), tree)
    totals = predicted[:, columns:]
    alphas = ops.maximum(ops.exp(logs) * _by_answer(totals, tree), _LEAST_ALPHA)
    counts = ops.maximum(_answered(votes, tree, asked), 0.0) * tree.volunteers
    answers = _by_question(counts, tree)
    of_answers = _log_rising(alphas, counts) - _log_rising(ops.ones_like(counts), counts)
    of_questions = _log_rising(totals, answers) - _log_rising(ops.ones_like(answers), answers)
    likelihoods = ops.sum(of_answers, axis=-1) - ops.sum(of_questions, axis=-1)
    return -ops.mean(likelihoods) / tree.volunteers
