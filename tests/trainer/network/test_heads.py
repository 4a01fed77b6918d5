"""Fractions obey the tree, outputs start at the column means, and losses match their definitions."""

from typing import Any

import numpy as np
import pytest

from tests.conftest import random_votes
from tfrecords.taxonomy import QUESTIONS, tree_deviation
from trainer.config import HEADS, LOSSES
from trainer.network import heads

pytestmark = pytest.mark.usefixtures("loaded_backend")


@pytest.fixture
def votes() -> np.ndarray:
    return random_votes(50, np.random.default_rng(0))


def _head(head: str, precision: str = "float32") -> Any:
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        features = keras.Input((8,))
        return keras.Model(features, heads.vote_fractions(features, head))
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_the_tree_holds_for_any_logits_and_precision(precision: str) -> None:
    model = _head("tree", precision)
    generator = np.random.default_rng(0)
    for size in (0.1, 3.0, 100.0):
        model.get_layer("vote_fractions").kernel.assign(generator.normal(0, size, (8, 37)))
        fractions = model.predict_on_batch(generator.normal(0, 1, (200, 8)).astype(np.float32))
        assert fractions.dtype == np.float32 and fractions.min() >= 0 and fractions.max() <= 1
        assert tree_deviation(fractions).max() <= 1e-6
        assert size > 10 or fractions.std(axis=0).min() > 0  # with constant columns the sums would prove little


@pytest.mark.parametrize("head", HEADS)
def test_with_a_kernel_of_zeros_the_output_is_the_column_means(head: str, votes: np.ndarray) -> None:
    model = _head(head)
    model.get_layer("vote_fractions").bias.assign(heads.bias_at(votes.mean(axis=0), head))
    fractions = model.predict_on_batch(np.ones((2, 8), np.float32))
    np.testing.assert_allclose(fractions, np.tile(votes.mean(axis=0), (2, 1)), atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_answers_that_nobody_or_everybody_gave_start_at_finite_weights(head: str) -> None:
    votes = np.zeros(37)
    votes[[0, 13]] = 1  # all smooth and odd, nobody asked about disks
    bias = heads.bias_at(votes, head)
    model = _head(head)
    model.get_layer("vote_fractions").bias.assign(bias)
    assert np.isfinite(bias).all()
    fractions = model.predict_on_batch(np.ones((1, 8), np.float32))[0]
    np.testing.assert_allclose(fractions[[0, 1, 2, 13, 14]], [1, 0, 0, 1, 0], atol=3e-4)


def test_cross_entropy_is_the_sum_over_questions_weighted_by_those_who_were_asked(votes: np.ndarray) -> None:
    predicted = random_votes(50, np.random.default_rng(1)).clip(1e-12)
    expected = 0.0
    for question in QUESTIONS:
        parent = np.ones(50) if question.parent is None else predicted[:, question.parent]
        shares = predicted[:, question.columns] / parent[:, None]
        expected -= (votes[:, question.columns] * np.log(shares)).sum(axis=1).mean()
    given = heads.cross_entropy(predicted.astype(np.float32), votes.astype(np.float32))
    assert float(given) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_no_fractions_have_a_lower_loss_than_the_votes_themselves(loss: str, votes: np.ndarray) -> None:
    function = heads.LOSSES[loss]
    targets = votes.astype(np.float32)
    least = float(function(targets, targets))
    for seed in range(1, 6):
        other = 0.9 * votes + 0.1 * random_votes(50, np.random.default_rng(seed))
        assert float(function(other.astype(np.float32), targets)) > least + 1e-4
    assert least == pytest.approx(0, abs=1e-12) if loss == "mse" else least > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_even_where_the_model_is_sure_and_wrong(loss: str, votes: np.ndarray) -> None:
    import tensorflow as tf

    model = _head("tree")
    model.get_layer("vote_fractions").kernel.assign(np.random.default_rng(0).normal(0, 30, (8, 37)))
    features = tf.constant(np.random.default_rng(1).normal(0, 1, (50, 8)), tf.float32)
    with tf.GradientTape() as tape:
        value = heads.LOSSES[loss](model(features), tf.constant(votes, tf.float32))
    gradients = tape.gradient(value, model.trainable_variables)
    assert np.isfinite(float(value)) and all(np.isfinite(gradient.numpy()).all() for gradient in gradients)
    assert abs(gradients[0].numpy()).max() > 1e-6


@pytest.mark.slow
def test_cross_entropy_teaches_a_head_the_votes(votes: np.ndarray) -> None:
    import keras
    import tensorflow as tf

    model, targets = _head("tree"), tf.constant(votes[:8], tf.float32)
    adam = keras.optimizers.Adam(0.1)
    features = tf.eye(8)
    for _ in range(200):
        with tf.GradientTape() as tape:
            loss = heads.cross_entropy(model(features), targets)
        adam.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    np.testing.assert_allclose(model(features), votes[:8], atol=0.02)
