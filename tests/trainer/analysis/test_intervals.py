"""Intervals are those of the distributions that the model predicts, and their coverage is that of scipy's quantiles."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.trainer.network.woods import FORK, SINGLE, counts_on, votes_from, votes_on
from tfrecords.builtin import builtin_tree
from tfrecords.tree import Tree
from trainer.analysis import intervals as module
from trainer.analysis.intervals import coverage, intervals

KAGGLE = builtin_tree()


def _predicted(tree: Tree, galaxies: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Any fractions and concentrations, float32 as a model's."""
    generator = np.random.default_rng(seed)
    concentrations = 1 + generator.exponential(20, (galaxies, len(tree.questions)))
    return votes_on(tree, galaxies, generator).astype(np.float32), concentrations.astype(np.float32)


def test_coverage_is_that_of_the_quantiles_of_scipy() -> None:
    predicted, concentrations = _predicted(FORK, 60)
    counts, asked = counts_on(FORK, 60, np.random.default_rng(0))
    covered = coverage(FORK, predicted, concentrations, votes_from(FORK, counts, asked)[:, : len(FORK.columns)], asked)
    for question in FORK.questions:
        held, mass = [], []
        for row in np.flatnonzero(asked[:, question.index]):
            fractions = predicted[row, question.columns].astype(float)
            concentration = concentrations[row, question.index]
            alphas = fractions / fractions.sum() * concentration
            for count, alpha in zip(counts[row, question.columns], alphas, strict=True):
                answers = stats.betabinom(asked[row, question.index], alpha, concentration - alpha)
                low, high = answers.ppf(0.05), answers.ppf(0.95)
                held.append(low <= count <= high)
                mass.append(answers.cdf(high) - answers.cdf(low - 1))
        assert covered.held[question.index] == np.mean(held)
        assert covered.expected[question.index] == pytest.approx(np.mean(mass), abs=1e-6)
        assert covered.galaxies[question.index] == (asked[:, question.index] > 0).sum()
    assert covered.held.min() < 0.8  # the votes are not those of this model


@pytest.mark.parametrize("tree", [FORK, KAGGLE], ids=["fork", "kaggle"])
def test_votes_drawn_from_the_model_are_held_as_often_as_it_expects(tree: Tree) -> None:
    generator = np.random.default_rng(0)
    predicted, concentrations = _predicted(tree, 4000)
    targets, asked = np.zeros(predicted.shape), np.zeros(concentrations.shape)
    for question in tree.questions:
        fractions = predicted[:, question.columns].astype(float)
        alphas = fractions / fractions.sum(axis=1, keepdims=True) * concentrations[:, question.index, None]
        asked[:, question.index] = generator.integers(1, 41, 4000)
        for row in range(4000):
            counts = generator.multinomial(asked[row, question.index], generator.dirichlet(alphas[row]))
            targets[row, question.columns] = counts / asked[row, question.index]
    covered = coverage(tree, predicted, concentrations, targets, asked)
    np.testing.assert_allclose(covered.held, covered.expected, atol=0.015)
    assert covered.expected.min() > 0.9 and (covered.galaxies == 4000).all()
    too_sure = coverage(tree, predicted, 100 * concentrations, targets, asked)
    assert (too_sure.held < too_sure.expected - 0.05).all()


def test_questions_that_nobody_answered_do_not_count() -> None:
    predicted, concentrations = _predicted(FORK, 30)
    counts, asked = counts_on(FORK, 30, np.random.default_rng(0))
    counts[:, FORK.questions[1].columns] = asked[:, 1] = 0
    targets = votes_from(FORK, counts, asked)[:, : len(FORK.columns)]
    covered = coverage(FORK, predicted, concentrations, targets, asked)
    assert covered.galaxies[1] == 0 and np.isnan(covered.held[1]) and np.isnan(covered.expected[1])
    some = asked[:, 2] > 0
    alone = coverage(FORK, predicted[some], concentrations[some], targets[some], asked[some])
    assert (alone.held[2], alone.galaxies[2]) == (covered.held[2], covered.galaxies[2])


def test_overall_every_galaxy_and_answer_counts_the_same() -> None:
    predicted, concentrations = _predicted(FORK, 30)
    counts, asked = counts_on(FORK, 30, np.random.default_rng(0))
    asked[:, 1] = 0  # a question without any answers, whose share is NaN
    covered = coverage(FORK, predicted, concentrations, votes_from(FORK, counts, asked)[:, : len(FORK.columns)], asked)
    pairs = [int((asked[:, q.index] > 0).sum()) * len(q.answers) for q in FORK.questions]
    assert pairs[1] == 0 and np.isnan(covered.held[1])
    for overall, shares in zip(covered.overall(FORK), (covered.held, covered.expected), strict=True):
        expected = sum(share * number for share, number in zip(shares, pairs, strict=True) if number) / sum(pairs)
        assert overall == pytest.approx(expected)


def test_without_counts_as_many_volunteers_are_asked_as_the_tree_assumes() -> None:
    predicted, concentrations = _predicted(FORK, 50)
    votes = votes_on(FORK, 50, np.random.default_rng(0))
    asked = FORK.volunteers * np.stack([FORK.reached(votes, question) for question in FORK.questions], axis=1)
    one, other = (coverage(FORK, predicted, concentrations, votes, given) for given in (None, asked))
    for name in ("held", "expected", "galaxies"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12)


def test_coverage_does_not_depend_on_the_size_of_the_working_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, asked = counts_on(FORK, 40, np.random.default_rng(0))
    asked[0], counts[0] = asked[0] * 500, counts[0] * 500
    given: Any = (FORK, *_predicted(FORK, 40), votes_from(FORK, counts, asked)[:, : len(FORK.columns)], asked)
    whole = coverage(*given)
    monkeypatch.setattr(module, "_WORKING", 100)
    parts = coverage(*given)
    np.testing.assert_array_equal(whole.held, parts.held)
    np.testing.assert_allclose(whole.expected, parts.expected, rtol=1e-9)


def test_shares_that_underflowed_and_concentrations_without_bound_have_intervals() -> None:
    predicted = np.tile(np.array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], np.float32), (4, 1))
    concentrations = np.full((4, 4), 1, np.float32)
    concentrations[2:] = 1e12
    asked = np.full((4, 4), 40)
    covered = coverage(FORK, predicted, concentrations, np.tile(predicted[0], (4, 1)), asked)
    assert covered.held[[0, 2]].tolist() == [1, 1]
    low, high = intervals(FORK, predicted, concentrations)
    assert np.isfinite(low).all() and np.isfinite(high).all()
    np.testing.assert_allclose((low[2, 0], high[2, 0], high[2, 1]), (1, 1, 0), atol=1e-5)


def test_the_interval_of_a_question_for_all_is_that_of_its_beta_distribution() -> None:
    predicted, concentrations = _predicted(SINGLE, 40)
    low, high = intervals(SINGLE, predicted, concentrations, draws=20_000)
    alphas = predicted.astype(float) * concentrations
    for ends, level in ((low, 0.05), (high, 0.95)):
        assert ends.dtype == np.float64 and ends.shape == (40, 2)
        reached = stats.beta.cdf(ends, alphas, concentrations - alphas)
        np.testing.assert_allclose(reached, level, atol=4 * np.sqrt(0.05 * 0.95 / 20_000))


def test_intervals_widen_down_the_tree_and_narrow_with_concentration() -> None:
    predicted, concentrations = _predicted(FORK, 100)
    low, high = intervals(FORK, predicted, concentrations, draws=200)
    assert (low >= 0).all() and (low <= high).all() and (high <= 1 + 1e-12).all()
    narrow_low, narrow_high = intervals(FORK, predicted, 100 * concentrations, draws=200)
    assert ((narrow_high - narrow_low).mean(axis=0) < 0.3 * (high - low).mean(axis=0)).all()
    sure = concentrations.copy()
    sure[:, 2:] = 1e9  # certain shares: what stays is how uncertain the question before is
    low, high = intervals(FORK, predicted, sure, draws=200)
    shares = predicted[:, FORK.questions[2].columns] / FORK.reached(predicted, FORK.questions[2])[:, None]
    alphas = FORK.reached(predicted, FORK.questions[2]).astype(float) * sure[:, 0]  # two parents: all but `star`
    expected = stats.beta.ppf(0.95, alphas, sure[:, 0] - alphas)[:, None] * shares
    assert abs(high[:, FORK.questions[2].columns] - expected).mean() < 0.01


def test_an_interval_depends_on_the_seed_and_its_own_galaxy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, concentrations = _predicted(FORK, 30)
    low, high = intervals(FORK, predicted, concentrations, draws=100)
    some = intervals(FORK, predicted[7:12], concentrations[7:12], draws=100)
    monkeypatch.setattr(module, "_BLOCK", 4)
    blocks = intervals(FORK, predicted, concentrations, draws=100)
    np.testing.assert_array_equal(some, (low[7:12], high[7:12]))
    np.testing.assert_array_equal(blocks, (low, high))
    assert (intervals(FORK, predicted, concentrations, seed=1, draws=100)[0] != low).any()
    assert intervals(FORK, predicted[:0], concentrations[:0])[0].shape == (0, len(FORK.columns))
