"""Fractions obey the tree, outputs start at the column means, and concentrations are at least 1."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.network.test_model import BLOCKER
from tests.trainer.network.woods import FORK, TREES, votes_on
from tfrecords.builtin import builtin_tree
from tfrecords.tree import Tree
from trainer.network import heads
from trainer.network.heads import HEADS

pytestmark = pytest.mark.usefixtures("loaded_backend")

KAGGLE = builtin_tree()


def _head(head: str, tree: Tree = KAGGLE, precision: str = "float32") -> Any:
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        features = keras.Input((8,))
        return keras.Model(features, heads.vote_fractions(features, head, tree))
    finally:
        keras.config.set_dtype_policy(before)


def _at(means: np.ndarray, head: str, tree: Tree = KAGGLE) -> np.ndarray:
    """The outputs of a head with a kernel of zeros, (width,)."""
    model = _head(head, tree)
    model.get_layer("vote_fractions").bias.assign(heads.bias_at(means, head, tree))
    outputs: np.ndarray = model.predict_on_batch(np.ones((1, 8), np.float32))[0]
    return outputs


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_the_tree_holds_for_any_logits_and_precision(precision: str, tree: Tree) -> None:
    generator = np.random.default_rng(0)
    for head in ("tree", "dirichlet"):
        model = _head(head, tree, precision)
        for size in (0.1, 3.0, 100.0):
            model.get_layer("vote_fractions").kernel.assign(generator.normal(0, size, (8, heads.output_width(head, tree))))
            outputs = model.predict_on_batch(generator.normal(0, 1, (200, 8)).astype(np.float32))
            fractions = outputs[:, : len(tree.columns)]
            assert outputs.dtype == np.float32 and fractions.min() >= 0 and fractions.max() <= 1
            assert tree.deviation(fractions).max() <= 1e-6
            assert size > 10 or fractions.std(axis=0).min() > 0  # with constant columns the sums would prove little


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
@pytest.mark.parametrize("head", HEADS)
def test_with_a_kernel_of_zeros_the_output_is_the_column_means(head: str, tree: Tree) -> None:
    means = votes_on(tree, 50, np.random.default_rng(0)).mean(axis=0)
    np.testing.assert_allclose(_at(means, head, tree)[: len(tree.columns)], means, atol=1e-6)


def test_concentrations_start_at_10() -> None:
    means = votes_on(FORK, 50, np.random.default_rng(0)).mean(axis=0)
    np.testing.assert_allclose(_at(means, "dirichlet", FORK)[len(FORK.columns) :], np.full(4, 10), rtol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_answers_that_nobody_or_everybody_gave_start_at_finite_weights(head: str) -> None:
    votes = np.zeros(37)
    votes[[0, 13]] = 1  # all smooth and odd, nobody asked about disks
    assert np.isfinite(heads.bias_at(votes, head, KAGGLE)).all()
    np.testing.assert_allclose(_at(votes, head)[[0, 1, 2, 13, 14]], [1, 0, 0, 1, 0], atol=3e-4)


@pytest.mark.parametrize("head", ["tree", "dirichlet"])
def test_a_question_that_nobody_answered_starts_with_equal_shares(head: str) -> None:
    means = votes_on(FORK, 50, np.random.default_rng(0)).mean(axis=0)
    means[FORK.questions[1].columns] = 0
    assert np.isfinite(heads.bias_at(means, head, FORK)).all()
    np.testing.assert_allclose(_at(means, head, FORK)[FORK.questions[1].columns], means[1] / 2, rtol=1e-5)


def test_means_over_the_galaxies_with_answers_start_the_question_at_their_shares() -> None:
    means = np.array([0.7, 0.2, 0.1, 0.45, 0.15, 0.5, 0.2, 0.1, 0.1, 0.05, 0.05])  # 60 % of the few with answers saw a disk
    outputs = _at(means, "tree", FORK)
    np.testing.assert_allclose(outputs[FORK.questions[1].columns], [0.2 * 0.75, 0.2 * 0.25], rtol=1e-5)


def test_head_dirichlet_is_head_tree_with_a_concentration_of_at_least_1_for_each_question() -> None:
    generator = np.random.default_rng(0)
    kernel = generator.normal(0, 2, (8, len(FORK.columns) + 4))
    kernel[:, -1] *= 1000  # without an upper bound
    models = {head: _head(head, FORK) for head in ("tree", "dirichlet")}
    for head, model in models.items():
        model.get_layer("vote_fractions").kernel.assign(kernel[:, : heads.output_width(head, FORK)])
    features = generator.normal(0, 1, (100, 8)).astype(np.float32)
    plain, outputs = (models[head].predict_on_batch(features) for head in ("tree", "dirichlet"))
    np.testing.assert_allclose(outputs[:, : len(FORK.columns)], plain, atol=1e-6)
    expected = 1 + np.logaddexp(0, features.astype(float) @ kernel[:, -4:])
    np.testing.assert_allclose(outputs[:, -4:], expected, rtol=1e-4)
    assert outputs[:, -4:].min() >= 1 and outputs.max() > 1000


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_head_on_any_tree_loads_in_safe_mode_where_this_package_is_not_installed(backend: str, tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(0, 1, (5, 8)).astype(np.float32)
    np.save(tmp_path / "features.npy", features)
    outputs = {}
    for name, tree in TREES.items():
        model = _head("dirichlet", tree)
        model.get_layer("vote_fractions").kernel.assign(np.random.default_rng(1).normal(0, 1, (8, model.output_shape[1])))
        model.save(tmp_path / f"{name}.keras")
        outputs[name] = model.predict_on_batch(features)
    script = BLOCKER + (
        "import keras, numpy as np\n"
        "assert keras.backend.backend() == sys.argv[1]\n"
        "for name in sys.argv[2:]:\n"
        "    net = keras.saving.load_model(f'{name}.keras', safe_mode=True)\n"
        "    np.save(f'{name}.npy', net.predict_on_batch(np.load('features.npy')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, backend, *TREES],
        cwd=tmp_path, env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, expected in outputs.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected, rtol=1e-5, atol=1e-6)
