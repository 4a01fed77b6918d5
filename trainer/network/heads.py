"""The heads: from a feature vector to the vote fractions of a decision tree.

sigmoid    each column by itself
tree       a softmax over the answers of each question, times the columns that lead to it: the fractions obey the decision tree,
           and the logits of a question describe the answers of those who were asked
dirichlet  the fractions of `tree`, then a concentration for each question: how sure the model is of the shares of its answers

The votes on a question are then Dirichlet-multinomial: alpha of an answer is its share of the question times the concentration.
At the smallest concentration, 1, the shares may be anything; as it grows, the votes become multinomial.

All consist of stock Keras layers and `keras.ops`, so a saved model loads without this package. Logits and outputs are float32
under any precision. Sources: Willett et al. 2013 (MNRAS 435, 2835), figure 1; concentrations: Walmsley et al. 2020 (MNRAS 491,
1554) and 2022 (MNRAS 509, 3966).
"""

from typing import Any

import numpy as np

from tfrecords.tree import Tree

HEADS = ("sigmoid", "tree", "dirichlet")
# Fractions of answers that nobody or everybody chose would need infinite logits.
_CLIP = 1e-4
# How far the means of a question may deviate from the mean that leads to it, as an error of rounding.
_ROUNDING = 1e-3
_FIRST_CONCENTRATION = 10.0
_LEAST_CONCENTRATION = 1.0


def output_width(head: str, tree: Tree) -> int:
    """The number of a model's outputs: n fractions, and for head dirichlet a concentration per question."""
    return len(tree.columns) + (len(tree.questions) if head == "dirichlet" else 0)


def _tree(logits: Any, tree: Tree) -> Any:
    from keras import ops

    starts = [question.start for question in tree.questions[1:]]
    parts = ops.split(logits, starts, axis=-1) if starts else [logits]
    columns: list[Any] = []
    fractions = []
    for question, part in zip(tree.questions, parts, strict=True):
        shares = ops.softmax(part, axis=-1)
        if question.parents:
            reached = columns[question.parents[0]]
            for parent in question.parents[1:]:
                reached = ops.add(reached, columns[parent])
            shares = ops.multiply(shares, reached)
        fractions.append(shares)
        columns += ops.split(shares, len(question.answers), axis=-1)
    return ops.concatenate(fractions, axis=-1)


def vote_fractions(features: Any, head: str, tree: Tree) -> Any:
    """Features (batch, any) -> outputs (batch, output_width), both KerasTensors, by a dense layer named vote_fractions.

    The first n outputs are cumulative fractions in 0..1, in the order of `tree.columns`. With head dirichlet the concentrations
    follow, at least 1, in the order of `tree.questions`.
    """
    import keras
    from keras import ops

    activation = "sigmoid" if head == "sigmoid" else None
    dense = keras.layers.Dense(
        output_width(head, tree), activation, kernel_initializer="zeros", dtype="float32", name="vote_fractions"
    )(features)
    if head == "sigmoid":
        return dense
    if head == "tree":
        return _tree(dense, tree)
    logits, sureness = ops.split(dense, [len(tree.columns)], axis=-1)
    concentrations = ops.add(ops.softplus(sureness), _LEAST_CONCENTRATION)
    return ops.concatenate([_tree(logits, tree), concentrations], axis=-1)


def bias_at(means: np.ndarray, head: str, tree: Tree) -> np.ndarray:
    """The bias of the dense layer, float64 (output_width,), that gives these fractions if its kernel is zero.

    means: (n,), means of valid votes; those of a question that nobody answered are 0, and its answers share equally. Fractions
    of 0 and 1 become 0.0001 and 0.9999 (tree: as shares of those who were asked). Concentrations start at 10.
    """
    means = np.asarray(means, np.float64)
    if head == "sigmoid":
        means = np.clip(means, _CLIP, 1 - _CLIP)
        return np.log(means / (1 - means))
    bias = np.empty(len(tree.columns))
    for question in tree.questions:
        asked = means[list(question.parents)].sum() if question.parents else 1.0
        total = means[question.columns].sum()
        # With counts, the mean of a question is over the galaxies for which somebody answered it, and that which leads to it is
        # not. A softmax needs the shares alone.
        if abs(total - asked) > _ROUNDING:
            asked = total
        bias[question.columns] = np.log(np.clip(means[question.columns] / max(asked, _CLIP), _CLIP, 1))
    if head == "tree":
        return bias
    first = np.log(np.expm1(_FIRST_CONCENTRATION - _LEAST_CONCENTRATION))
    return np.concatenate([bias, np.full(len(tree.questions), first)])
