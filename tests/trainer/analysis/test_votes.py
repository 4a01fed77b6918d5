"""Statistics of the votes follow from their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import random_counts, random_votes
from tfrecords.builtin import builtin_tree
from trainer.analysis import votes

TREE = builtin_tree()
VOTES = random_votes(200, np.random.default_rng(0))


def test_agreement_is_one_where_all_say_the_same_and_none_where_all_answers_are_alike() -> None:
    unanimous, undecided = np.zeros((1, 37)), np.zeros((1, 37))
    unanimous[0, [TREE.index["Class1.2"], TREE.index["Class2.2"], TREE.index["Class4.1"], TREE.index["Class6.2"]]] = 1
    assert votes.agreement(unanimous, TREE)[0, [0, 1, 3, 5]].tolist() == [1, 1, 1, 1]
    undecided[0, :3], undecided[0, 13:15] = 1 / 3, 1 / 2
    assert votes.agreement(undecided, TREE)[0, [0, 5]] == pytest.approx([0, 0], abs=1e-12)
    assert np.isnan(votes.agreement(undecided, TREE)[0, [1, 2, 3, 4, 6, 8, 9, 10]]).all()  # fewer than half were asked


def test_agreement_is_that_of_those_who_were_asked() -> None:
    table = np.zeros((1, 37))
    table[0, 1], table[0, 3:5] = 0.8, [0.6, 0.2]  # of the eight tenths who were asked, three quarters say yes
    expected = 1 + (0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(2)
    assert votes.agreement(table, TREE)[0, 1] == pytest.approx(expected)


def test_agreement_lies_between_none_and_one_and_counts_where_half_were_asked() -> None:
    agreements = votes.agreement(VOTES, TREE)
    for question in TREE.questions:
        counts = TREE.reached(VOTES, question) >= 0.5
        np.testing.assert_array_equal(np.isnan(agreements[:, question.index]), ~counts)
    assert np.nanmin(agreements) >= 0 and np.nanmax(agreements) <= 1


def test_maximum_agreement_and_reach_are_columns_of_the_table() -> None:
    np.testing.assert_array_equal(votes.maximum_agreement(VOTES), [VOTES[:, column].max() for column in range(37)])
    reach = votes.reach(VOTES, TREE)
    assert reach[0] == reach[5] == 1
    assert reach[9] == pytest.approx(VOTES[:, TREE.index["Class4.1"]].mean())


@given(st.integers(0, 40), st.integers(1, 15), st.sampled_from(["elliptical", "spiral", "barred spiral"]))
def test_a_pick_is_the_first_that_pass_or_the_highest(passing: int, count: int, name: str) -> None:
    generator = np.random.default_rng(passing)
    table = generator.uniform(0, 0.59, (40, 37))
    table[:passing] = generator.uniform(0.6, 1, (passing, 37))
    ids = generator.permutation(1000)[:40]
    member = next(member for member in TREE.classes if member.name == name)
    pick = votes.class_pick(ids, table, TREE, member, 0.6, count)
    assert (pick.passing, pick.fallback) == (passing, passing < 4)
    assert len(set(pick.rows.tolist())) == len(pick.rows) == min(count, 40 if pick.fallback else passing)
    if not pick.fallback:
        assert ids[pick.rows].tolist() == sorted(ids[:passing])[:count]
    else:
        columns = {"elliptical": [0], "spiral": [7, 6], "barred spiral": [7, 5]}[name]
        scores = table[:, columns].min(axis=1)
        assert scores[pick.rows].tolist() == sorted(scores, reverse=True)[:count]


def test_galaxies_of_one_score_are_picked_by_their_id() -> None:
    pick = votes.class_pick(np.array([30, 10, 20]), np.full((3, 37), 0.5), TREE, TREE.classes[1], 0.9, 2)
    assert pick.rows.tolist() == [1, 2]


def test_means_of_one_population_differ_by_few_standard_errors_and_others_by_many() -> None:
    generator = np.random.default_rng(1)
    train, other = generator.random((4000, 37)), generator.random((500, 37))
    difference, errors = votes.differing_means(train, other)
    np.testing.assert_allclose(difference, other.mean(axis=0) - train.mean(axis=0))
    np.testing.assert_allclose(errors, difference / np.sqrt(1 / 12 * (1 / 4000 + 1 / 500)), rtol=0.1)
    assert 0.5 < np.sqrt((errors**2).mean()) < 1.5
    assert votes.differing_means(train, other + 0.1)[1].min() > 4
    for few in (1, 2, 5):  # their own variance would be far too small
        assert np.abs(votes.differing_means(train, generator.random((few, 37)))[1]).max() < 4
    assert np.isposinf(votes.differing_means(np.zeros((5, 37)), np.full((5, 37), 0.1))[1]).all()
    same = np.full((3, 37), 0.25)
    assert not votes.differing_means(same, same)[1].any()


def test_what_nobody_answered_counts_in_no_statistic() -> None:
    tree = builtin_tree("decals5")
    counts = random_counts(90, np.random.default_rng(2), tree, 5)
    answered = np.stack([counts[:, question.columns].sum(axis=1) for question in tree.questions], axis=1)
    table = counts / counts[:, tree.questions[0].columns].sum(axis=1, keepdims=True)
    counted = tree.counted(answered)
    assert counted is not None and tree.counted(None) is None
    spoilt = np.where(counted, table, 0.77)
    np.testing.assert_array_equal(votes.quantiles(table, (25, 50), counted), votes.quantiles(spoilt, (25, 50), counted))
    np.testing.assert_array_equal(votes.maximum_agreement(table, counted), votes.maximum_agreement(spoilt, counted))
    np.testing.assert_array_equal(
        votes.quantiles(table, (25, 50), np.ones_like(counted)), np.percentile(table, (25, 50), axis=0)
    )
    for question in tree.questions:
        rows = answered[:, question.index] > 0
        column = question.start
        assert votes.quantiles(table, (50,), counted)[0, column] == np.median(table[rows, column])
        counts_here = votes.asked(table, tree, answered)[:, question.index]
        np.testing.assert_array_equal(counts_here, rows & (tree.reached(table, question) >= 0.5))
        assert np.isnan(votes.agreement(table, tree, answered)[~counts_here, question.index]).all()
    unanswered = np.zeros_like(counted)
    assert np.isnan(votes.quantiles(table, (50,), unanswered)).all() and not votes.maximum_agreement(table, unanswered).any()


def test_means_differ_by_the_values_that_count() -> None:
    generator = np.random.default_rng(3)
    train, other = generator.random((400, 5)), generator.random((100, 5)) + 0.2
    counted = generator.random((400, 5)) < 0.7, generator.random((100, 5)) < 0.7
    differences, errors = votes.differing_means(train, other, counted)
    for column in range(5):
        own, theirs = train[counted[0][:, column], column], other[counted[1][:, column], column]
        expected = votes.differing_means(own[:, None], theirs[:, None])
        assert (differences[column], errors[column]) == pytest.approx((expected[0][0], expected[1][0]), rel=1e-12)
    everything = np.ones((400, 5), bool), np.ones((100, 5), bool)
    np.testing.assert_allclose(votes.differing_means(train, other, everything), votes.differing_means(train, other), rtol=1e-9)
    nothing = everything[0], np.zeros((100, 5), bool)
    assert not np.any(votes.differing_means(train, other, nothing))
