"""Scores equal their definitions, computed here independently."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import random_votes
from tfrecords.taxonomy import QUESTIONS
from trainer.analysis import metrics, votes

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
    per_galaxy = np.array(errors)[:, None]
    [(low, high)] = metrics.bootstrap_intervals(per_galaxy, 100, seed)
    assert np.sqrt(per_galaxy.min()) - 1e-12 <= low <= high <= np.sqrt(per_galaxy.max()) + 1e-12
    assert metrics.bootstrap_intervals(per_galaxy, 100, seed).tolist() == [[low, high]]


def test_intervals_are_those_of_resampling_galaxies_one_by_one() -> None:
    errors = metrics.squared_errors(PREDICTED, VOTES)
    draws = np.random.default_rng(0)
    means = [errors[draws.integers(0, 50, 50)].mean(axis=0) for _ in range(metrics.RESAMPLES)]
    expected = np.sqrt(np.percentile(means, (2.5, 97.5), axis=0)).T
    np.testing.assert_allclose(metrics.bootstrap_intervals(errors), expected, rtol=1e-12)
    np.testing.assert_allclose(metrics.score(PREDICTED, VOTES).class_intervals, expected, rtol=1e-12)
    assert not np.allclose(metrics.bootstrap_intervals(errors, seed=1), expected, rtol=1e-6)


def test_every_interval_contains_its_rmse() -> None:
    scores = metrics.score(PREDICTED, VOTES)
    assert scores.interval[0] < scores.rmse < scores.interval[1]
    for intervals, mse in ((scores.class_intervals, scores.per_class), (scores.question_intervals, scores.per_question)):
        assert intervals.shape == (len(mse), 2)
        assert (intervals[:, 0] < np.sqrt(mse)).all() and (np.sqrt(mse) < intervals[:, 1]).all()


def test_the_interval_covers_the_truth_about_95_times_of_100() -> None:
    truth, covered = math.sqrt(0.5), 0
    for trial in range(200):
        [(low, high)] = metrics.bootstrap_intervals(np.random.default_rng(trial).random((100, 1)), 200, seed=trial)
        covered += low <= truth <= high
    assert 180 <= covered <= 198


def test_skill_is_one_for_the_votes_nought_for_their_mean_and_none_without_variance() -> None:
    table = random_votes(40, GENERATOR)
    np.testing.assert_array_equal(metrics.score(table, table).skill, 1)
    np.testing.assert_allclose(metrics.score(np.broadcast_to(table.mean(axis=0), table.shape), table).skill, 0, atol=1e-12)
    same = np.broadcast_to(table[0], table.shape)
    assert np.isnan(metrics.score(table, same).skill).all()


def test_calibration_counts_every_answer_of_those_asked_in_bins_of_equal_size() -> None:
    predicted, table = random_votes(300, GENERATOR), random_votes(300, GENERATOR)
    for question, rows in zip(QUESTIONS, metrics.calibration(predicted, table), strict=True):
        asked = np.ones(300, bool) if question.parent is None else table[:, question.parent] >= 0.5
        counts = rows[:, 2]
        assert counts.sum() == asked.sum() * len(question.answers)
        assert counts.max() - counts.min() <= 1 and len(rows) == min(10, counts.sum())
        assert (np.diff(rows[:, 0]) >= 0).all()  # bins by predicted fraction
        parents = 1 if question.parent is None else table[asked, question.parent, None]
        voted = table[asked, question.columns] / parents
        assert (rows[:, 1] * counts).sum() == pytest.approx(voted.sum())


def test_the_votes_themselves_are_calibrated_agree_and_are_pure_and_complete() -> None:
    table = random_votes(300, GENERATOR)
    table[:30, 0], table[30:60, [7, 6]], table[60:90, [7, 5]] = 0.95, 0.95, 0.95  # some in each class
    for rows in metrics.calibration(table, table):
        np.testing.assert_allclose(rows[:, 0], rows[:, 1])
    bins = metrics.agreement_bins(table, table)
    assert (bins[..., 0][bins[..., 1] > 0] == 1).all() and np.isnan(bins[..., 0][bins[..., 1] == 0]).all()
    for count in metrics.hubble_counts(table, table):
        assert count.predicted == count.true == count.both >= 30 and count.purity == count.completeness == 1


def test_agreement_bins_hold_the_share_whose_most_voted_answer_is_predicted() -> None:
    table, predicted = random_votes(500, GENERATOR), random_votes(500, GENERATOR)
    bins, agreement = metrics.agreement_bins(predicted, table), votes.agreement(table)
    for question in QUESTIONS:
        right = predicted[:, question.columns].argmax(axis=1) == table[:, question.columns].argmax(axis=1)
        for tenth in range(10):
            inside = (agreement[:, question.number - 1] >= tenth / 10) & (agreement[:, question.number - 1] < (tenth + 1) / 10)
            share, count = bins[question.number - 1, tenth]
            assert count == inside.sum() and (not count or share == pytest.approx(right[inside].mean()))


def test_purity_and_completeness_are_shares_of_the_predicted_and_of_the_voted() -> None:
    predicted, table = np.zeros((10, 37)), np.zeros((10, 37))
    predicted[:4, 0], table[3:9, 0] = 0.7, 0.95
    ninety, sixty, *others = metrics.hubble_counts(predicted, table)
    assert (ninety.predicted, ninety.true, ninety.both, ninety.completeness) == (0, 6, 0, 0) and math.isnan(ninety.purity)
    assert (sixty.name, sixty.threshold, sixty.purity, sixty.completeness) == ("elliptical", 0.6, 1 / 4, 1 / 6)
    assert [(count.name, count.threshold) for count in others] == [
        ("spiral", 0.9), ("spiral", 0.6), ("barred spiral", 0.9), ("barred spiral", 0.6),
    ]  # fmt: skip
    assert all(math.isnan(count.completeness) for count in others)


def test_violation_of_the_tree_is_none_for_votes_and_the_distance_for_others() -> None:
    table = random_votes(50, GENERATOR)
    assert metrics.tree_violation(table).max() < 1e-6
    table[:, 4] += 0.25  # Class2.2: question 2 and those below it
    broken = metrics.tree_violation(table)
    for number in range(1, 12):
        expected = 0.25 if number in (2, 3, 4, 5) else 0
        assert broken[number - 1] == pytest.approx([expected] * 3, abs=1e-6)


def test_best_worst_and_surprising_are_in_order() -> None:
    predicted = VOTES.copy()
    predicted[7] += 0.5  # far in every column
    predicted[9, 20] += 0.9  # far in one
    best, worst = metrics.best_worst(predicted, VOTES, 3)
    assert worst[:2].tolist() == [7, 9] and not {7, 9} & set(best.tolist())
    rows, columns = metrics.surprising(predicted, VOTES, 2)
    assert rows.tolist() == [9, 7] and columns[0] == 20
