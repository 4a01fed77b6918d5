"""The heads: from a feature vector to the vote fractions of a decision tree.

sigmoid    each column by itself
tree       a softmax over the answers of each question, times the columns that lead to it: the fractions obey the decision tree,
           and the logits of a question describe the answers of those who were asked
dirichlet  the fractions of `tree`, then a concentration for each question: how sure the model is of the shares of its answers

The votes on a question are then Dirichlet-multinomial: alpha of an answer is its share of the question times the concentration.
At the smallest concentration, 1, the shares may be anything; as it grows, the votes become multinomial.

All consist of stock Keras layers alone, so that a saved model opens without this package and in older versions of Keras: the
saved form of `keras.ops` is young. Logits and outputs are float32
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


def _part(vector: Any, start: int, stop: int, name: str) -> Any:
    """Columns `start` to `stop` of a KerasTensor (batch, columns), by stock layers."""
    from keras import layers

    width = vector.shape[-1]
    if (start, stop) == (0, width):
        return vector
    tall = layers.Reshape((width, 1), dtype="float32", name=f"{name}_column")(vector)
    cut = layers.Cropping1D((start, width - stop), dtype="float32", name=f"{name}_cut")(tall)
    return layers.Reshape((stop - start,), dtype="float32", name=name)(cut)


def _tree(logits: Any, tree: Tree) -> Any:
    from keras import layers

    fractions: list[Any] = []

    def reaching(parent: int, name: str) -> Any:
        """The column of an answer, from the fractions of its question."""
        question = tree.question_of(parent)
        start = parent - question.start
        return _part(fractions[question.index], start, start + 1, name)

    for number, question in enumerate(tree.questions):
        part = _part(logits, question.start, question.stop, f"logits_{number}")
        shares = layers.Softmax(dtype="float32", name=f"shares_{number}")(part)
        if question.parents:
            reached = [reaching(parent, f"reached_{number}_{parent}") for parent in question.parents]
            total = layers.Add(dtype="float32", name=f"reached_{number}")(reached) if len(reached) > 1 else reached[0]
            shares = layers.Multiply(dtype="float32", name=f"fractions_{number}")([shares, total])
        fractions.append(shares)
    if len(fractions) == 1:
        return fractions[0]
    return layers.Concatenate(dtype="float32", name="fractions")(fractions)


def vote_fractions(features: Any, head: str, tree: Tree) -> Any:
    """Features (batch, any) -> outputs (batch, output_width), both KerasTensors, by a dense layer named vote_fractions.

    The first n outputs are cumulative fractions in 0..1, in the order of `tree.columns`. With head dirichlet the concentrations
    follow, at least 1, in the order of `tree.questions`.
    """
    import keras

    activation = "sigmoid" if head == "sigmoid" else None
    dense = keras.layers.Dense(
        output_width(head, tree), activation, kernel_initializer="zeros", dtype="float32", name="vote_fractions"
    )(features)
    if head == "sigmoid":
        return dense
    if head == "tree":
        return _tree(dense, tree)
    columns = len(tree.columns)
    logits = _part(dense, 0, columns, "logits")
    sureness = _part(dense, columns, output_width(head, tree), "sureness")
    above = keras.layers.Activation("softplus", dtype="float32", name="sureness_above_least")(sureness)
    concentrations = keras.layers.Rescaling(1.0, _LEAST_CONCENTRATION, dtype="float32", name="concentrations")(above)
    return keras.layers.Concatenate(dtype="float32", name="outputs")([_tree(logits, tree), concentrations])


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
