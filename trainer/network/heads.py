"""The heads, from a feature vector to 37 vote fractions, and the losses that compare these with the votes.

sigmoid  each column by itself
tree     a softmax over the answers of each question, times the column that leads to it: the fractions obey the decision
         tree, and the logits of a question describe the answers of those who were asked

Both consist of stock Keras layers and `keras.ops`, so a saved model loads without this package. Logits and fractions are
float32 under any precision. Source of the tree: Willett et al. 2013 (MNRAS 435, 2835), figure 1.
"""

from typing import Any

import numpy as np

from tfrecords.taxonomy import COLUMNS, QUESTIONS

# The smallest fraction in a logarithm: a softmax gives smaller ones only if it underflows.
_SMALLEST = 1e-30
# Fractions of answers that nobody or everybody chose would need infinite logits.
_CLIP = 1e-4


def _tree(logits: Any) -> Any:
    from keras import ops

    parts = ops.split(logits, [question.start for question in QUESTIONS[1:]], axis=-1)
    columns: list[Any] = []
    fractions = []
    for question, part in zip(QUESTIONS, parts, strict=True):
        shares = ops.softmax(part, axis=-1)
        if question.parent is not None:
            shares = ops.multiply(shares, columns[question.parent])
        fractions.append(shares)
        columns += ops.split(shares, len(question.answers), axis=-1)
    return ops.concatenate(fractions, axis=-1)


def vote_fractions(features: Any, head: str) -> Any:
    """Features (batch, n) -> fractions (batch, 37) in 0..1, both KerasTensors, by a dense layer named vote_fractions."""
    import keras

    activation = "sigmoid" if head == "sigmoid" else None
    dense = keras.layers.Dense(len(COLUMNS), activation, kernel_initializer="zeros", dtype="float32", name="vote_fractions")(
        features
    )
    return dense if head == "sigmoid" else _tree(dense)


def bias_at(means: np.ndarray, head: str) -> np.ndarray:
    """The bias of the dense layer, float64 (37,), that gives these fractions if its kernel is zero.

    means: (37,), means of valid votes. Fractions of 0 and 1 become 0.0001 and 0.9999 (tree: as shares of those who were asked).
    """
    means = np.asarray(means, np.float64)
    if head == "sigmoid":
        means = np.clip(means, _CLIP, 1 - _CLIP)
        return np.log(means / (1 - means))
    bias = np.empty(len(COLUMNS))
    for question in QUESTIONS:
        asked = 1.0 if question.parent is None else means[question.parent]
        bias[question.columns] = np.log(np.clip(means[question.columns] / max(asked, _CLIP), _CLIP, 1))
    return bias


def _own_share() -> np.ndarray:
    """A matrix (37, 37): votes @ matrix is each column less the fractions voted in the questions that it leads to."""
    matrix = np.eye(len(COLUMNS), dtype=np.float32)
    for question in QUESTIONS:
        if question.parent is not None:
            matrix[question.columns, question.parent] -= 1
    return matrix


def squared_error(predicted: Any, targets: Any) -> Any:
    """The mean over galaxies and columns of the squared error, a scalar."""
    from keras import ops

    return ops.mean(ops.square(predicted - targets))


def cross_entropy(predicted: Any, targets: Any) -> Any:
    """The mean over galaxies of the cross-entropies of all questions, each weighted by the fraction that was asked.

    For fractions that obey the tree. A question contributes -sum(t log(p / parent of p)) over its answers; the sum over
    questions equals -sum(w log p) over columns, where w is t less the fractions voted in the questions that follow.
    """
    from keras import ops

    weights = ops.matmul(targets, _own_share())
    logs = ops.log(ops.maximum(predicted, _SMALLEST))
    return -ops.mean(ops.sum(weights * logs, axis=-1))


HEADS = ("sigmoid", "tree")
LOSSES = {"mse": squared_error, "cross_entropy": cross_entropy}
