"""Scores equal their definitions, computed here independently."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import random_counts, random_votes
from tfrecords.builtin import builtin_tree
from tfrecords.tree import column_means
from trainer.analysis import metrics, votes

TREE = builtin_tree()
GENERATOR = np.random.default_rng(0)
PREDICTED = GENERATOR.random((50, 37), np.float32)
VOTES = GENERATOR.random((50, 37), np.float32)


def test_scores_equal_their_definitions() -> None:
    scores = metrics.score(PREDICTED, VOTES, TREE)
    errors = [[(float(p) - float(v)) ** 2 for p, v in zip(*rows, strict=True)] for rows in zip(PREDICTED, VOTES, strict=True)]
    everything = math.fsum(math.fsum(row) for row in errors) / (50 * 37)
    assert scores.mse == pytest.approx(everything, rel=1e-12)
    assert scores.rmse == pytest.approx(math.sqrt(everything), rel=1e-12)
    for column in range(37):
        assert scores.per_class[column] == pytest.approx(math.fsum(row[column] for row in errors) / 50, rel=1e-12)
    for question, mse in zip(TREE.questions, scores.per_question, strict=True):
        answers = range(question.start, question.stop)
        expected = math.fsum(row[column] for row in errors for column in answers) / (50 * len(answers))
        assert mse == pytest.approx(expected, rel=1e-12)


def test_perfect_predictions_score_zero() -> None:
    scores = metrics.score(VOTES, VOTES, TREE)
    assert scores.rmse == 0 and scores.interval == (0, 0) and not scores.per_class.any() and not scores.per_question.any()


@given(st.floats(-1, 1, width=32))
def test_a_constant_distance_is_the_rmse_of_every_part(distance: float) -> None:
    scores = metrics.score(np.full((3, 37), distance, np.float32), np.zeros((3, 37)), TREE)
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
    np.testing.assert_allclose(metrics.score(PREDICTED, VOTES, TREE).class_intervals, expected, rtol=1e-12)
    assert not np.allclose(metrics.bootstrap_intervals(errors, seed=1), expected, rtol=1e-6)


def test_every_interval_contains_its_rmse() -> None:
    scores = metrics.score(PREDICTED, VOTES, TREE)
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
    np.testing.assert_array_equal(metrics.score(table, table, TREE).skill, 1)
    np.testing.assert_allclose(
        metrics.score(np.broadcast_to(table.mean(axis=0), table.shape), table, TREE).skill, 0, atol=1e-12
    )
    same = np.broadcast_to(table[0], table.shape)
    assert np.isnan(metrics.score(table, same, TREE).skill).all()


def test_calibration_counts_every_answer_of_those_asked_in_bins_of_equal_size() -> None:
    predicted, table = random_votes(300, GENERATOR), random_votes(300, GENERATOR)
    for question, rows in zip(TREE.questions, metrics.calibration(predicted, table, TREE), strict=True):
        asked = TREE.reached(table, question) >= 0.5
        counts = rows[:, 2]
        assert counts.sum() == asked.sum() * len(question.answers)
        assert counts.max() - counts.min() <= 1 and len(rows) == min(10, counts.sum())
        assert (np.diff(rows[:, 0]) >= 0).all()  # bins by predicted fraction
        voted = table[asked, question.columns] / TREE.reached(table, question)[asked, None]
        assert (rows[:, 1] * counts).sum() == pytest.approx(voted.sum())


def test_the_votes_themselves_are_calibrated_agree_and_are_pure_and_complete() -> None:
    table = random_votes(300, GENERATOR)
    table[:30, 0], table[30:60, [7, 6]], table[60:90, [7, 5]] = 0.95, 0.95, 0.95  # some in each class
    for rows in metrics.calibration(table, table, TREE):
        np.testing.assert_allclose(rows[:, 0], rows[:, 1])
    bins = metrics.agreement_bins(table, table, TREE)
    assert (bins[..., 0][bins[..., 1] > 0] == 1).all() and np.isnan(bins[..., 0][bins[..., 1] == 0]).all()
    for count in metrics.class_counts(table, table, TREE):
        assert count.predicted == count.true == count.both >= 30 and count.purity == count.completeness == 1


def test_agreement_bins_hold_the_share_whose_most_voted_answer_is_predicted() -> None:
    table, predicted = random_votes(500, GENERATOR), random_votes(500, GENERATOR)
    bins, agreement = metrics.agreement_bins(predicted, table, TREE), votes.agreement(table, TREE)
    for question in TREE.questions:
        right = predicted[:, question.columns].argmax(axis=1) == table[:, question.columns].argmax(axis=1)
        for tenth in range(10):
            inside = (agreement[:, question.index] >= tenth / 10) & (agreement[:, question.index] < (tenth + 1) / 10)
            share, count = bins[question.index, tenth]
            assert count == inside.sum() and (not count or share == pytest.approx(right[inside].mean()))


def test_purity_and_completeness_are_shares_of_the_predicted_and_of_the_voted() -> None:
    predicted, table = np.zeros((10, 37)), np.zeros((10, 37))
    predicted[:4, 0], table[3:9, 0] = 0.7, 0.95
    ninety, sixty, *others = metrics.class_counts(predicted, table, TREE)
    assert (ninety.predicted, ninety.true, ninety.both, ninety.completeness) == (0, 6, 0, 0) and math.isnan(ninety.purity)
    assert (sixty.name, sixty.threshold, sixty.purity, sixty.completeness) == ("elliptical", 0.6, 1 / 4, 1 / 6)
    assert [(count.name, count.threshold) for count in others] == [
        ("spiral", 0.9), ("spiral", 0.6), ("barred spiral", 0.9), ("barred spiral", 0.6),
    ]  # fmt: skip
    assert all(math.isnan(count.completeness) for count in others)


def test_violation_of_the_tree_is_none_for_votes_and_the_distance_for_others() -> None:
    table = random_votes(50, GENERATOR)
    assert metrics.tree_violation(table, TREE).max() < 1e-6
    table[:, 4] += 0.25  # Class2.2: question 2 and those below it
    broken = metrics.tree_violation(table, TREE)
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


DECALS = builtin_tree("decals5")


def _with_counts(galaxies: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fractions (galaxies, n), how many answered each question, and predictions. Few volunteers, so many have none."""
    generator = np.random.default_rng(seed)
    counts = random_counts(galaxies, generator, DECALS, 6)
    answered = np.stack([counts[:, question.columns].sum(axis=1) for question in DECALS.questions], axis=1)
    fractions = counts / counts[:, DECALS.questions[0].columns].sum(axis=1, keepdims=True)
    assert (answered == 0).any() and (answered > 0).any(axis=0).all()
    return fractions, answered, random_votes(galaxies, generator, DECALS)


def test_values_of_questions_that_nobody_answered_change_no_score() -> None:
    targets, answered, predicted = _with_counts(60, 1)
    counted = DECALS.counted(answered)
    assert counted is not None
    other = np.where(counted, predicted, GENERATOR.random(predicted.shape))  # other predictions where nobody answered
    scores, others = (metrics.score(table, targets, DECALS, counted) for table in (predicted, other))
    for name in ("mse", "per_class", "per_question", "interval", "class_intervals", "question_intervals", "skill"):
        np.testing.assert_array_equal(getattr(scores, name), getattr(others, name))
    assert (
        metrics.best_worst(predicted, targets, 5, counted)[1].tolist()
        == metrics.best_worst(other, targets, 5, counted)[1].tolist()
    )
    np.testing.assert_array_equal(
        metrics.surprising(predicted, targets, 9, counted), metrics.surprising(other, targets, 9, counted)
    )
    assert metrics.baselines(targets, None, counted)["zeros"] == pytest.approx(np.sqrt((targets[counted] ** 2).mean()))


def test_scores_with_counts_equal_their_definitions() -> None:
    targets, answered, predicted = _with_counts(60, 2)
    counted = DECALS.counted(answered)
    assert counted is not None
    scores = metrics.score(predicted, targets, DECALS, counted)
    errors = (predicted - targets) ** 2
    assert scores.mse == pytest.approx(errors[counted].mean(), rel=1e-12)
    for question in DECALS.questions:
        rows = answered[:, question.index] > 0
        assert scores.per_question[question.index] == pytest.approx(errors[rows, question.columns].mean(), rel=1e-12)
        for column in range(question.start, question.stop):
            assert scores.per_class[column] == pytest.approx(errors[rows, column].mean(), rel=1e-12)
            assert scores.skill[column] == pytest.approx(1 - errors[rows, column].mean() / targets[rows, column].var())
    draws = np.random.default_rng(0)
    resampled = [draws.integers(0, 60, 60) for _ in range(metrics.RESAMPLES)]
    means = [errors[rows][counted[rows]].mean() for rows in resampled]
    assert scores.interval == pytest.approx(np.sqrt(np.percentile(means, (2.5, 97.5))), rel=1e-12)
    bars = DECALS.index["bar_strong"]
    means = [errors[rows, bars][counted[rows, bars]].mean() for rows in resampled]
    np.testing.assert_allclose(scores.class_intervals[bars], np.sqrt(np.percentile(means, (2.5, 97.5))), rtol=1e-12)


def test_if_everything_counts_the_scores_are_those_without_counts() -> None:
    everything = np.ones(VOTES.shape, bool)
    with_counts, without = metrics.score(PREDICTED, VOTES, TREE, everything), metrics.score(PREDICTED, VOTES, TREE)
    for name in ("mse", "per_class", "per_question", "interval", "class_intervals", "question_intervals", "skill"):
        np.testing.assert_allclose(getattr(with_counts, name), getattr(without, name), rtol=1e-12)


def test_a_question_that_no_galaxy_was_asked_has_no_score_and_spoils_no_other() -> None:
    targets, answered, predicted = _with_counts(60, 3)
    bar = next(question for question in DECALS.questions if question.key == "bar")
    answered[:, bar.index] = 0
    scores = metrics.score(predicted, targets, DECALS, DECALS.counted(answered))
    assert np.isnan(scores.per_question[bar.index]) and np.isnan(scores.question_intervals[bar.index]).all()
    assert np.flatnonzero(np.isnan(scores.per_class)).tolist() == list(range(bar.start, bar.stop))
    assert np.isfinite([scores.mse, *scores.interval]).all()
    assert len(metrics.calibration(predicted, targets, DECALS, answered)[bar.index]) == 0
    assert metrics.agreement_bins(predicted, targets, DECALS, answered)[bar.index, :, 1].sum() == 0


def test_a_question_after_two_answers_is_reached_by_both() -> None:
    """DECaLS asks about merging after smooth, and after featured."""
    table = random_votes(200, GENERATOR, DECALS)
    merging = DECALS.questions[-1]
    assert merging.key == "merging" and len(merging.parents) == 2
    both = table[:, :2].sum(axis=1)
    rows = metrics.calibration(table, table, DECALS)[merging.index]
    assert rows[:, 2].sum() == (both >= 0.5).sum() * len(merging.answers) > 0
    np.testing.assert_allclose(rows[:, 0], rows[:, 1])
    assert metrics.tree_violation(table, DECALS).max() < 1e-6
    table[:, merging.start] += 0.25
    assert metrics.tree_violation(table, DECALS)[merging.index] == pytest.approx([0.25] * 3, abs=1e-6)
    assert votes.reach(table, DECALS)[merging.index] == pytest.approx(column_means(table)[:2].sum())


def test_a_tree_without_classes_has_no_galaxies_in_classes() -> None:
    table = random_votes(5, GENERATOR, DECALS)
    assert not DECALS.classes and metrics.class_counts(table, table, DECALS) == []
