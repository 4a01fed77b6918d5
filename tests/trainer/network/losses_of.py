"""Losses and their gradients on the backend of the environment: `python losses_of.py FOLDER`, for test_losses.py.

FOLDER/cases.npz holds, for each case NAME, NAME.logits (galaxies, outputs) and NAME.votes; a NAME is TREE-HEAD-LOSS-ASKED. The
loss and its gradient with respect to the logits are written as NAME.loss and NAME.gradient to FOLDER/results.npz.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path[0] = str(Path(__file__).parents[3])


def _case(name: str, logits: np.ndarray, votes: np.ndarray) -> tuple[Any, Any]:
    import keras

    from tests.trainer.network.woods import TREES
    from trainer.network import heads, losses

    tree, head, loss, asked = name.split("-")
    features = keras.Input((logits.shape[1],))
    model = keras.Model(features, heads.vote_fractions(features, head, TREES[tree]))
    model.get_layer("vote_fractions").kernel.assign(np.eye(logits.shape[1]))
    function = losses.loss_function(loss, TREES[tree], asked == "True")
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(jax.value_and_grad(lambda given: function(model(given), votes)))(logits)
    import tensorflow as tf

    @tf.function
    def both(given: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(given)
            value = function(model(given), tf.constant(votes))
        return value, tape.gradient(value, given)

    return both(tf.constant(logits))  # type: ignore[no-any-return]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    cases = np.load(folder / "cases.npz")
    results = {}
    for name in sorted({key.partition(".")[0] for key in cases.files}):
        loss, gradient = _case(name, cases[f"{name}.logits"], cases[f"{name}.votes"])
        results[f"{name}.loss"], results[f"{name}.gradient"] = np.asarray(loss), np.asarray(gradient)
    np.savez(folder / "results.npz", **results)
