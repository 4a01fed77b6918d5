"""Statistics of the votes follow from their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import random_votes
from tfrecords.taxonomy import COLUMN_INDEX, COLUMNS, QUESTIONS
from trainer.analysis import votes

VOTES = random_votes(200, np.random.default_rng(0))


def test_agreement_is_one_where_all_say_the_same_and_none_where_all_answers_are_alike() -> None:
    unanimous, undecided = np.zeros((1, 37)), np.zeros((1, 37))
    unanimous[0, [COLUMN_INDEX["Class1.2"], COLUMN_INDEX["Class2.2"], COLUMN_INDEX["Class4.1"], COLUMN_INDEX["Class6.2"]]] = 1
    assert votes.agreement(unanimous)[0, [0, 1, 3, 5]].tolist() == [1, 1, 1, 1]
    undecided[0, :3], undecided[0, 13:15] = 1 / 3, 1 / 2
    assert votes.agreement(undecided)[0, [0, 5]] == pytest.approx([0, 0], abs=1e-12)
    assert np.isnan(votes.agreement(undecided)[0, [1, 2, 3, 4, 6, 8, 9, 10]]).all()  # fewer than half were asked


def test_agreement_is_that_of_those_who_were_asked() -> None:
    table = np.zeros((1, 37))
    table[0, 1], table[0, 3:5] = 0.8, [0.6, 0.2]  # of the eight tenths who were asked, three quarters say yes
    expected = 1 + (0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(2)
    assert votes.agreement(table)[0, 1] == pytest.approx(expected)


def test_agreement_lies_between_none_and_one_and_counts_where_half_were_asked() -> None:
    found = votes.agreement(VOTES)
    for place, question in enumerate(QUESTIONS):
        counts = np.ones(len(VOTES), bool) if question.parent is None else VOTES[:, question.parent] >= 0.5
        np.testing.assert_array_equal(np.isnan(found[:, place]), ~counts)
    assert np.nanmin(found) >= 0 and np.nanmax(found) <= 1


def test_maximum_agreement_and_reach_are_columns_of_the_table() -> None:
    np.testing.assert_array_equal(votes.maximum_agreement(VOTES), [VOTES[:, column].max() for column in range(37)])
    reach = votes.reach(VOTES)
    assert reach[0] == reach[5] == 1
    assert reach[9] == pytest.approx(VOTES[:, COLUMNS.index("Class4.1")].mean())


@given(st.integers(0, 40), st.integers(1, 15), st.sampled_from(["elliptical", "spiral", "barred spiral"]))
def test_a_pick_is_the_first_that_pass_or_the_highest(passing: int, count: int, name: str) -> None:
    generator = np.random.default_rng(passing)
    table = generator.uniform(0, 0.59, (40, 37))
    table[:passing] = generator.uniform(0.6, 1, (passing, 37))
    ids = generator.permutation(1000)[:40]
    pick = votes.hubble_pick(ids, table, name, 0.6, count)
    assert (pick.passing, pick.fallback) == (passing, passing < 4)
    assert len(set(pick.rows.tolist())) == len(pick.rows) == min(count, 40 if pick.fallback else passing)
    if not pick.fallback:
        assert ids[pick.rows].tolist() == sorted(ids[:passing])[:count]
    else:
        columns = {"elliptical": [0], "spiral": [7, 6], "barred spiral": [7, 5]}[name]
        scores = table[:, columns].min(axis=1)
        assert scores[pick.rows].tolist() == sorted(scores, reverse=True)[:count]


def test_galaxies_of_one_score_are_picked_by_their_id() -> None:
    pick = votes.hubble_pick(np.array([30, 10, 20]), np.full((3, 37), 0.5), "spiral", 0.9, 2)
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
