"""Losses match their definitions on any tree, with and without counts, on both backends."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.network.woods import FORK, TREES, counts_on, votes_from, votes_on
from tfrecords.builtin import builtin_tree
from tfrecords.tree import Tree, for_answers
from trainer.network import heads
from trainer.network.losses import LOSSES, error_function, loss_function

pytestmark = pytest.mark.usefixtures("loaded_backend")

KAGGLE = builtin_tree()
PROGRAM = Path(__file__).with_name("losses_of.py")
every_tree = pytest.mark.parametrize("tree", TREES.values(), ids=TREES)


def _outputs(logits: np.ndarray, tree: Tree) -> np.ndarray:
    """What head dirichlet gives for its dense layer's outputs, in float64."""
    columns = len(tree.columns)
    fractions = np.empty((len(logits), columns))
    for question in tree.questions:
        part = np.exp(logits[:, question.columns] - logits[:, question.columns].max(axis=1, keepdims=True))
        shares = part / part.sum(axis=1, keepdims=True)
        fractions[:, question.columns] = shares * tree.reached(fractions, question)[:, None]
    return np.concatenate([fractions, 1 + np.logaddexp(0, logits[:, columns:])], axis=1)


def _likelihood(outputs: np.ndarray, counts: np.ndarray, asked: np.ndarray, tree: Tree) -> float:
    """The mean over galaxies of -log probability of all counts by scipy, per volunteer of the tree."""
    from scipy.stats import dirichlet_multinomial

    total = 0.0
    for question in tree.questions:
        fractions = outputs[:, question.columns]
        shares = fractions / fractions.sum(axis=1, keepdims=True)
        alphas = shares * outputs[:, len(tree.columns) + question.index, None]
        for row in np.flatnonzero(asked[:, question.index]):
            total -= dirichlet_multinomial.logpmf(counts[row, question.columns], alphas[row], asked[row, question.index])
    return total / len(outputs) / tree.volunteers


def _with_sure(fractions: np.ndarray, tree: Tree, concentration: float = 10.0) -> np.ndarray:
    """Fractions as outputs of head dirichlet, float32."""
    sure = np.full((len(fractions), len(tree.questions)), concentration)
    return np.concatenate([fractions, sure], axis=1).astype(np.float32)


def _predicted(loss: str, fractions: np.ndarray, tree: Tree) -> np.ndarray:
    return _with_sure(fractions, tree) if loss == "dirichlet_multinomial" else fractions.astype(np.float32)


@every_tree
def test_cross_entropy_is_the_sum_over_questions_weighted_by_those_who_were_asked(tree: Tree) -> None:
    votes = votes_on(tree, 50, np.random.default_rng(0))
    predicted = votes_on(tree, 50, np.random.default_rng(1)).clip(1e-12)
    expected = 0.0
    for question in tree.questions:
        shares = predicted[:, question.columns] / tree.reached(predicted, question)[:, None]
        expected -= (votes[:, question.columns] * np.log(shares)).sum(axis=1).mean()
    given = loss_function("cross_entropy", tree, asked=False)(predicted.astype(np.float32), votes.astype(np.float32))
    assert float(given) == pytest.approx(expected, rel=1e-4)


@every_tree
def test_with_counts_cross_entropy_is_the_multinomial_likelihood_of_the_answers(tree: Tree) -> None:
    counts, asked = counts_on(tree, 200, np.random.default_rng(0))
    assert len(tree.questions) == 1 or (asked == 0).any()
    predicted = votes_on(tree, 200, np.random.default_rng(1)).clip(1e-12)
    expected = 0.0
    for question in tree.questions:
        shares = predicted[:, question.columns] / predicted[:, question.columns].sum(axis=1, keepdims=True)
        expected -= (counts[:, question.columns] * np.log(shares)).sum() / (200 * tree.volunteers)
    given = loss_function("cross_entropy", tree, asked=True)(predicted.astype(np.float32), votes_from(tree, counts, asked))
    assert float(given) == pytest.approx(expected, rel=1e-4)


@every_tree
@pytest.mark.parametrize("loss", LOSSES)
def test_with_as_many_answers_as_the_tree_assumes_the_loss_is_that_without_counts(loss: str, tree: Tree) -> None:
    votes = votes_on(tree, 50, np.random.default_rng(0))
    asked = tree.volunteers * np.stack([tree.reached(votes, question) for question in tree.questions], axis=1)
    predicted = _predicted(loss, votes_on(tree, 50, np.random.default_rng(1)), tree)
    without = loss_function(loss, tree, asked=False)(predicted, votes.astype(np.float32))
    counted = loss_function(loss, tree, asked=True)(predicted, np.concatenate([votes, asked], axis=1).astype(np.float32))
    assert float(without) > 0 and float(counted) == pytest.approx(float(without), rel=1e-5)


@every_tree
def test_the_reported_error_is_over_the_answers_to_questions_that_somebody_answered(tree: Tree) -> None:
    counts, asked = counts_on(tree, 200, np.random.default_rng(0))
    votes = votes_from(tree, counts, asked)
    predicted = votes_on(tree, 200, np.random.default_rng(1)).astype(np.float32)
    squares = (predicted - votes[:, : len(tree.columns)]) ** 2
    error = error_function(tree, asked=True)
    expected = squares[for_answers(asked > 0, tree.questions)].mean()
    assert float(error(predicted, votes)) == pytest.approx(float(expected), rel=1e-5)
    assert float(error(_with_sure(predicted, tree), votes)) == pytest.approx(float(expected), rel=1e-5)
    assert float(error(predicted, 0 * votes)) == 0
    assert loss_function("mse", tree, asked=True) is error  # steps then compute it once


@every_tree
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_no_fractions_have_a_lower_loss_than_the_votes_themselves(loss: str, asked: bool, tree: Tree) -> None:
    votes = votes_on(tree, 50, np.random.default_rng(0))
    reached = np.stack([tree.reached(votes, question) for question in tree.questions], axis=1)
    number = np.random.default_rng(2).integers(3, 40, (50, 1))
    batch = (np.concatenate([votes, number * reached], axis=1) if asked else votes).astype(np.float32)
    function = loss_function(loss, tree, asked)
    sure = 1e6 if loss == "dirichlet_multinomial" else 10.0  # for a low concentration others are more probable

    def at(fractions: np.ndarray) -> float:
        return float(function(_with_sure(fractions, tree, sure) if loss == "dirichlet_multinomial" else fractions, batch))

    least = at(votes.astype(np.float32))
    for seed in range(1, 6):
        other = 0.9 * votes + 0.1 * votes_on(tree, 50, np.random.default_rng(seed))
        assert at(other.astype(np.float32)) > least + 1e-4
    assert least == pytest.approx(0, abs=1e-12) if loss == "mse" else least > 0


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_even_where_the_model_is_sure_and_wrong(loss: str, asked: bool) -> None:
    import keras
    import tensorflow as tf

    head = "dirichlet" if loss == "dirichlet_multinomial" else "tree"
    votes = votes_from(FORK, *counts_on(FORK, 50, np.random.default_rng(0)))
    features = keras.Input((8,))
    model = keras.Model(features, heads.vote_fractions(features, head, FORK))
    model.get_layer("vote_fractions").kernel.assign(np.random.default_rng(0).normal(0, 30, (8, model.output_shape[1])))
    given = tf.constant(np.random.default_rng(1).normal(0, 1, (50, 8)), tf.float32)
    with tf.GradientTape() as tape:
        value = loss_function(loss, FORK, asked)(model(given), tf.constant(votes if asked else votes[:, : len(FORK.columns)]))
    gradients = tape.gradient(value, model.trainable_variables)
    assert np.isfinite(float(value)) and all(np.isfinite(gradient.numpy()).all() for gradient in gradients)
    assert abs(gradients[0].numpy()).max() > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("head", "loss"), [("tree", "cross_entropy"), ("dirichlet", "dirichlet_multinomial")])
def test_it_teaches_a_head_the_votes(head: str, loss: str) -> None:
    import keras
    import tensorflow as tf

    votes = votes_on(FORK, 8, np.random.default_rng(0))
    features = keras.Input((8,))
    model = keras.Model(features, heads.vote_fractions(features, head, FORK))
    adam, function = keras.optimizers.Adam(0.1), loss_function(loss, FORK, asked=False)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            value = function(model(tf.eye(8)), tf.constant(votes, tf.float32))
        adam.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)

    for _ in range(1000):
        step()
    outputs = model(tf.eye(8)).numpy()
    np.testing.assert_allclose(outputs[:, : len(FORK.columns)], votes, atol=0.03)
    assert head == "tree" or outputs[:, len(FORK.columns)].min() > 30  # votes that it can predict: almost multinomial


@pytest.fixture
def on_backend(tmp_path: Path) -> Callable[..., Any]:
    """A function that computes losses and gradients on a backend, in a process of its own: see losses_of.py."""

    def compute(backend: str, cases: dict[str, np.ndarray]) -> Any:
        np.savez(tmp_path / "cases.npz", **cases)  # type: ignore[arg-type]
        done = subprocess.run(
            [sys.executable, str(PROGRAM), str(tmp_path)],
            env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return dict(np.load(tmp_path / "results.npz"))  # all at once: the next call writes it anew

    return compute


def _slopes(function: Callable[[np.ndarray], float], at: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Derivatives of a function by some of its inputs, from finite differences."""
    slopes = []
    for row, column in places:
        step = np.zeros_like(at)
        step[row, column] = 1e-4
        slopes.append((function(at + step) - function(at - step)) / 2e-4)
    return np.array(slopes)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_dirichlet_multinomial_and_its_gradients_are_those_of_scipy(backend: str, on_backend: Callable[..., Any]) -> None:
    """With concentrations from 1 to 10,000, counts of 0 and questions without answers."""
    cases, counted, generator = {}, {}, np.random.default_rng(0)
    for name, tree in TREES.items():
        counted[name] = counts_on(tree, 24, generator)
        logits = generator.normal(0, 3, (24, heads.output_width("dirichlet", tree)))
        logits[:, len(tree.columns) :] = 10 ** generator.uniform(0, 4, (24, len(tree.questions))) - 1
        cases[f"{name}-dirichlet-dirichlet_multinomial-True.logits"] = logits.astype(np.float32)
        cases[f"{name}-dirichlet-dirichlet_multinomial-True.votes"] = votes_from(tree, *counted[name])
    results = on_backend(backend, cases)
    for name, tree in TREES.items():
        key = f"{name}-dirichlet-dirichlet_multinomial-True"
        logits = cases[f"{key}.logits"].astype(np.float64)

        def expected(at: np.ndarray, name: str = name, tree: Tree = tree) -> float:
            return _likelihood(_outputs(at, tree), *counted[name], tree)

        assert float(results[f"{key}.loss"]) == pytest.approx(expected(logits), rel=1e-4)
        places = np.stack([generator.integers(0, size, 40) for size in logits.shape], axis=1)
        slopes = _slopes(expected, logits, places)
        assert abs(slopes).max() > 1e-3
        np.testing.assert_allclose(results[f"{key}.gradient"][tuple(places.T)], slopes, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_both_backends_agree_and_questions_without_answers_give_no_gradient(on_backend: Callable[..., Any]) -> None:
    """Also for logits so large that shares underflow, at concentrations of 1 and of 10^8."""
    cases, trees = {}, {name: TREES[name] for name in ("kaggle", "fork")}
    for name, tree in trees.items():
        for head, loss in (("tree", "mse"), ("tree", "cross_entropy"), ("dirichlet", "dirichlet_multinomial")):
            for asked in (False, True):
                generator = np.random.default_rng(1)
                votes = votes_from(tree, *counts_on(tree, 40, generator))
                votes[:20, len(tree.columns) + len(tree.questions) - 1] = 0
                votes[:20, tree.questions[-1].columns] = 0
                logits = generator.normal(0, 1, (40, heads.output_width(head, tree)))
                logits[::2] *= 200
                if head == "dirichlet":
                    logits[:, len(tree.columns) :] = generator.choice([-100, 0, 10, 1e8], (40, len(tree.questions)))
                key = f"{name}-{head}-{loss}-{asked}"
                cases[f"{key}.logits"] = logits.astype(np.float32)
                cases[f"{key}.votes"] = votes if asked else votes[:, : len(tree.columns)]
    both = [on_backend(backend, cases) for backend in ("tensorflow", "jax")]
    for results in both:
        for key in results:
            assert np.isfinite(results[key]).all(), key
        for name, tree in trees.items():
            last = tree.questions[-1]
            for case in ("tree-mse", "tree-cross_entropy", "dirichlet-dirichlet_multinomial"):
                gradient = results[f"{name}-{case}-True.gradient"]
                assert not gradient[:20, last.columns].any() and gradient[20:, last.columns].any(), (name, case)
            assert not gradient[:20, len(tree.columns) + last.index].any()
    for key in both[0]:
        one, other = (results[key] for results in both)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * abs(one).max(), err_msg=key)
