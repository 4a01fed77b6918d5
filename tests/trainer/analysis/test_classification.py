"""Accuracy, precision, recall and F1 against scikit-learn; errors of fractions against pandas."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from tfrecords.builtin import builtin_tree
from tfrecords.tree import Tree
from trainer.analysis.classification import CONFIDENT, answer_errors, classified, is_confident, scores_of
from trainer.analysis.questions import Questions
from trainer.analysis.votes import asked

KAGGLE, DECALS = builtin_tree(), builtin_tree("decals5")


def _votes(tree: Tree, galaxies: int, seed: int, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Votes that obey a tree, and predictions that resemble them: (galaxies, n) each, float32."""
    draws = np.random.default_rng(seed)
    votes = tree.project(draws.gamma(0.4, size=(galaxies, len(tree.columns))) + 1e-9)
    return votes.astype(np.float32), np.abs(votes + noise * draws.normal(size=votes.shape) * votes).astype(np.float32)


def _answered(tree: Tree, votes: np.ndarray, seed: int) -> np.ndarray:
    """Numbers of answers that agree with the votes; nobody answered some of the questions."""
    draws = np.random.default_rng(seed)
    volunteers = draws.integers(5, 60, (len(votes), 1))
    reached = np.stack([tree.reached(votes, question) for question in tree.questions], axis=1)
    return np.where(draws.random(reached.shape) < 0.1, 0, np.round(reached * volunteers)).astype(np.uint16)


@pytest.mark.parametrize("tree", [KAGGLE, DECALS], ids=["kaggle", "decals5"])
@pytest.mark.parametrize("counts", [False, True], ids=["fractions", "counts"])
@pytest.mark.parametrize("galaxies", [1, 7, 400])
def test_the_scores_are_those_of_scikit_learn(tree: Tree, counts: bool, galaxies: int) -> None:
    votes, predicted = _votes(tree, galaxies, seed=galaxies)
    answered = _answered(tree, votes, 3) if counts else None
    everyone, confident = classified(predicted, votes, tree, answered)
    measured = 0
    for question in tree.questions:
        reached = votes[:, list(question.parents)].sum(axis=1) if question.parents else np.ones(galaxies, np.float32)
        counted = reached >= 0.5
        if answered is not None:
            counted &= answered[:, question.index] > 0
        shares = pd.DataFrame(votes[:, question.columns].astype(np.float64))
        sure = shares.div(shares.sum(axis=1), axis=0).max(axis=1).to_numpy() >= 0.8
        for scores, rows in ((everyone, counted), (confident, counted & sure)):
            score = scores[question.index]
            voted, guessed = (table[rows, question.columns].argmax(axis=1) for table in (votes, predicted))
            assert score.galaxies == rows.sum()
            if not rows.any():
                assert math.isnan(score.accuracy.value) and all(math.isnan(part.value) for part in score.macro)
                continue
            measured += 1
            labels = range(len(question.answers))
            assert (score.counts == sklearn_metrics.confusion_matrix(voted, guessed, labels=labels)).all()
            assert score.accuracy.value == pytest.approx(sklearn_metrics.accuracy_score(voted, guessed))
            of_each = sklearn_metrics.precision_recall_fscore_support(voted, guessed, labels=labels, zero_division=np.nan)[:3]
            for ours, theirs in zip((score.precision, score.recall), of_each[:2], strict=True):
                assert [part.value for part in ours] == pytest.approx(theirs.tolist(), nan_ok=True)
            of_f1 = [part.value for part in score.f1]
            occurs = np.isin(labels, [*voted, *guessed])
            assert [math.isnan(value) for value in of_f1] == (~occurs).tolist()
            assert np.nan_to_num(of_f1).tolist() == pytest.approx(np.nan_to_num(of_each[2]).tolist())
            macro = sklearn_metrics.precision_recall_fscore_support(voted, guessed, average="macro", zero_division=0)[:3]
            assert [part.value for part in score.macro] == pytest.approx(macro)
    assert measured >= 1


def test_the_intervals_are_those_of_resampled_galaxies() -> None:
    draws = np.random.default_rng(5)
    voted = draws.choice(3, 300, p=(0.7, 0.25, 0.05))
    guessed = np.where(draws.random(300) < 0.75, voted, draws.integers(0, 3, 300))
    scores = scores_of(sklearn_metrics.confusion_matrix(voted, guessed), resamples=4000)
    resampled = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(1500):
            rows = draws.integers(0, 300, 300)
            of_f1 = sklearn_metrics.f1_score(voted[rows], guessed[rows], labels=[0, 1, 2], average=None)
            resampled.append([(voted[rows] == guessed[rows]).mean(), *of_f1])
    ends = np.percentile(resampled, (2.5, 97.5), axis=0).T
    for ours, (low, high) in zip((scores.accuracy, *scores.f1), ends, strict=True):
        width = high - low
        assert ours.low < ours.value < ours.high
        assert abs(ours.low - low) < 0.12 * width and abs(ours.high - high) < 0.12 * width


@pytest.mark.parametrize("mistakes", [0, 30])
def test_the_mean_over_the_answers_of_a_resample_is_that_of_scikit_learn(mistakes: int) -> None:
    """Rare answers are absent from many resamples."""
    counts = np.diag((500, 100, 20, 2, 1))
    counts[0, 1] = counts[1, 0] = mistakes
    cells = np.repeat(np.arange(25), counts.ravel())
    draws = np.random.default_rng(3)
    resampled = []
    for _ in range(1000):
        drawn = cells[draws.integers(0, len(cells), len(cells))]
        resampled.append(sklearn_metrics.f1_score(drawn // 5, drawn % 5, average="macro", zero_division=0))
    low, high = np.percentile(resampled, (2.5, 97.5))
    found = scores_of(counts, resamples=4000).macro[2]
    assert found.low == pytest.approx(low, abs=0.005) and found.high == pytest.approx(high, abs=0.005)
    assert mistakes or (found.low, found.high) == (1, 1)


def test_one_galaxy_has_no_interval() -> None:
    scores = scores_of(np.array([[1, 0], [0, 0]]))
    assert scores.accuracy.value == 1 and math.isnan(scores.accuracy.low) and math.isnan(scores.macro[2].high)


def test_more_galaxies_make_intervals_narrower_and_a_seed_makes_them_repeat() -> None:
    few, many = np.array([[6, 2], [1, 5]]), 100 * np.array([[6, 2], [1, 5]])
    one, other = scores_of(few), scores_of(many)
    assert one.accuracy.value == other.accuracy.value == pytest.approx(11 / 14)
    ratio = (one.accuracy.high - one.accuracy.low) / (other.accuracy.high - other.accuracy.low)
    assert 7 < ratio < 13  # the square root of 100
    assert (scores_of(few).accuracy, scores_of(many, seed=1).accuracy != other.accuracy) == (one.accuracy, True)


def test_an_answer_that_is_never_predicted_has_no_precision_and_lowers_the_mean() -> None:
    scores = scores_of(np.array([[8, 0, 0], [2, 0, 0], [0, 0, 0]]))
    precision, recall, f1 = ([part.value for part in parts] for parts in (scores.precision, scores.recall, scores.f1))
    assert precision[0] == pytest.approx(0.8) and all(map(math.isnan, precision[1:]))
    assert recall[:2] == [1, 0] and math.isnan(recall[2])
    assert f1[1] == 0 and math.isnan(f1[2])
    assert [part.value for part in scores.macro] == pytest.approx([0.4, 0.5, 4 / 9])


def test_volunteers_are_confident_from_a_share_of_exactly_the_limit() -> None:
    """32 of 40, also of those who were asked: as float32, 0.56 / 0.7 is less than 0.8."""
    votes = np.zeros((3, len(KAGGLE.columns)), np.float32)
    votes[:, :3] = [[0.8, 0.2, 0.0], [0.79, 0.21, 0.0], [0.3, 0.7, 0.0]]
    assert is_confident(votes, KAGGLE, KAGGLE.questions[0]).tolist() == [True, False, False]
    votes[:, 3:5] = [[0.16, 0.04], [0.1, 0.11], [0.14, 0.56]]
    assert is_confident(votes, KAGGLE, KAGGLE.questions[1]).tolist() == [True, False, True]
    assert CONFIDENT == 0.8


@pytest.mark.parametrize("counts", [False, True], ids=["fractions", "counts"])
def test_the_errors_of_fractions_are_weighted_by_the_volunteers_who_answered(counts: bool) -> None:
    votes, predicted = _votes(DECALS, 60, seed=2)
    answered = _answered(DECALS, votes, 4) if counts else None
    errors = answer_errors(predicted, votes, DECALS, answered)
    counted = asked(votes, DECALS, answered)
    for question in DECALS.questions:
        for column in range(question.start, question.stop):
            weights = np.ones(60) if answered is None else answered[:, question.index].astype(float)
            difference = np.abs(predicted[:, column].astype(float) - votes[:, column])
            assert errors.galaxies[column] == (weights > 0).sum()
            assert errors.mean_absolute[column] == pytest.approx(np.average(difference, weights=weights))
            assert errors.rms[column] == pytest.approx(np.sqrt(np.average(difference**2, weights=weights)))
            rows = counted[:, question.index]
            assert errors.asked[column] == rows.sum()
            if rows.any():
                mine, theirs = (
                    table[rows, column].astype(float) / table[rows][:, question.columns].astype(float).sum(axis=1)
                    for table in (predicted, votes)
                )
                expected = np.average(np.abs(mine - theirs), weights=weights[rows])
                assert errors.asked_mean_absolute[column] == pytest.approx(expected)
                squared = np.average((mine - theirs) ** 2, weights=weights[rows])
                assert errors.asked_rms[column] == pytest.approx(np.sqrt(squared))
            else:
                assert math.isnan(errors.asked_rms[column])


def test_the_tables_of_a_page_show_the_same_numbers_as_their_files() -> None:
    votes, predicted = _votes(KAGGLE, 200, seed=8)
    questions = Questions(KAGGLE, predicted, votes, galaxies="200 galaxies")
    for table in (*questions.by_question(), *questions.by_answer(), questions.fractions()):
        frame = pd.read_csv(pd.io.common.StringIO(table.csv()))
        assert len(frame) == len(table.rows) and table.caption.endswith("Measured on 200 galaxies.")
        for place, (name, form) in enumerate(zip(table.header, table.forms, strict=True)):
            if form == ",":
                assert [row[place][0] for row in table.cells()] == [f"{n:,}" for n in frame[name.replace(" ", "_")]]
    table, _ = questions.by_question()
    frame = pd.read_csv(pd.io.common.StringIO(table.csv()))
    for row, shown in zip(frame.itertuples(), table.cells(), strict=True):
        assert shown[2][0] == f"{row.accuracy:.3f} ({row.accuracy_low:.3f} to {row.accuracy_high:.3f})"
    matrices, _ = questions.confusion()
    assert [row[3] for row in matrices.data.rows[:9]] == questions.everyone[0].counts.ravel().tolist()
    assert matrices.draw(9.6).axes and matrices.draw(3.6).axes


def test_the_most_frequent_mistake_is_named() -> None:
    votes = np.zeros((5, len(KAGGLE.columns)), np.float32)
    votes[:, 0], predicted = 1, np.zeros((5, len(KAGGLE.columns)), np.float32)
    predicted[:4, 1], predicted[4, 0] = 1, 1
    chart, _ = Questions(KAGGLE, predicted, votes).confusion()
    question = KAGGLE.questions[0]
    mistake = f"“{question.answers[1]}” for “{question.answers[0]}”, for 4 galaxies of question {question.called()}"
    assert chart.alt == f"Confusion matrices: no mistake is more frequent than {mistake}"
    right, _ = Questions(KAGGLE, votes, votes).confusion()
    assert right.alt.endswith("no answer is mistaken for another")
