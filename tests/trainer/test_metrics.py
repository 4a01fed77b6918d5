"""Scores are what their definitions say, computed here a second time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords.taxonomy import QUESTIONS
from trainer.analysis import metrics

GENERATOR = np.random.default_rng(0)
PREDICTED = GENERATOR.random((50, 37), np.float32)
VOTES = GENERATOR.random((50, 37), np.float32)


def test_scores_equal_their_definitions() -> None:
    scores = metrics.score(PREDICTED, VOTES)
    errors = [[(float(p) - float(v)) ** 2 for p, v in zip(*rows, strict=True)] for rows in zip(PREDICTED, VOTES, strict=True)]
    everything = math.fsum(math.fsum(row) for row in errors) / (50 * 37)
    assert scores.mse == pytest.approx(everything, rel=1e-12)
    assert scores.rmse == pytest.approx(math.sqrt(everything), rel=1e-12)
    for column in range(37):
        assert scores.per_class[column] == pytest.approx(math.fsum(row[column] for row in errors) / 50, rel=1e-12)
    for question, mse in zip(QUESTIONS, scores.per_question, strict=True):
        answers = range(question.start, question.stop)
        expected = math.fsum(row[column] for row in errors for column in answers) / (50 * len(answers))
        assert mse == pytest.approx(expected, rel=1e-12)


def test_perfect_predictions_score_zero() -> None:
    scores = metrics.score(VOTES, VOTES)
    assert scores.rmse == 0 and scores.interval == (0, 0) and not scores.per_class.any() and not scores.per_question.any()


@given(st.floats(-1, 1, width=32))
def test_a_constant_distance_is_the_rmse_of_every_part(distance: float) -> None:
    scores = metrics.score(np.full((3, 37), distance, np.float32), np.zeros((3, 37)))
    np.testing.assert_allclose(np.sqrt(scores.per_class), abs(distance), atol=1e-12)
    np.testing.assert_allclose([scores.rmse, *scores.interval], abs(distance), atol=1e-12)


def test_small_errors_are_not_lost_to_float32() -> None:
    one = np.ones((1, 37), np.float32)
    assert metrics.squared_errors(one, np.nextafter(one, 2)).min() == pytest.approx((2.0**-23) ** 2)


def test_baselines_are_the_rmse_of_zeros_and_of_the_means_of_train() -> None:
    means = np.linspace(0, 1, 37)
    values = metrics.baselines(VOTES, means)
    assert values == {
        "zeros": pytest.approx(float(np.sqrt(np.mean(np.square(VOTES, dtype=np.float64))))),
        "train_mean": pytest.approx(float(np.sqrt(np.mean((VOTES.astype(np.float64) - means) ** 2)))),
    }
    assert list(metrics.baselines(VOTES, None)) == ["zeros"]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60), st.integers(0, 5))
def test_the_interval_lies_in_order_within_the_extremes_and_follows_from_the_seed(errors: list[float], seed: int) -> None:
    per_galaxy = np.array(errors)
    low, high = metrics.bootstrap_interval(per_galaxy, 100, seed)
    assert np.sqrt(per_galaxy.min()) - 1e-12 <= low <= high <= np.sqrt(per_galaxy.max()) + 1e-12
    assert metrics.bootstrap_interval(per_galaxy, 100, seed) == (low, high)


def test_the_interval_contains_the_rmse_and_another_seed_gives_another() -> None:
    scores = metrics.score(PREDICTED, VOTES)
    assert scores.interval[0] < scores.rmse < scores.interval[1]
    per_galaxy = metrics.squared_errors(PREDICTED, VOTES).mean(axis=1)
    assert metrics.bootstrap_interval(per_galaxy) == scores.interval != metrics.bootstrap_interval(per_galaxy, seed=1)


def test_the_interval_covers_the_truth_about_95_times_of_100() -> None:
    truth, covered = math.sqrt(0.5), 0
    for trial in range(200):
        low, high = metrics.bootstrap_interval(np.random.default_rng(trial).random(100), 200, seed=trial)
        covered += low <= truth <= high
    assert 180 <= covered <= 198
