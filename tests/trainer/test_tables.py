"""A galaxy is in one Hubble class at most, and every added column says what the votes say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords.errors import SettingError
from tfrecords.taxonomy import COLUMN_INDEX, COLUMNS, HUBBLE_CLASSES, QUESTIONS, hubble_score
from trainer.tables import extra_columns, hubble_classes, hubble_details

THRESHOLDS = st.floats(0.5, 1, exclude_min=True)
SEEDS = st.integers(0, 2**32 - 1)


def _votes(**columns: float) -> np.ndarray:
    """One galaxy, (1, 37): _votes(Class1_1=0.9)."""
    votes = np.zeros((1, 37), np.float32)
    for name, value in columns.items():
        votes[0, COLUMN_INDEX[name.replace("_", ".")]] = value
    return votes


def _on_the_tree(seed: int) -> np.ndarray:
    """20 galaxies whose votes obey the tree, decided answers among them."""
    generator = np.random.default_rng(seed)
    votes = np.zeros((20, 37))
    for question in QUESTIONS:
        answers = generator.dirichlet(np.full(question.stop - question.start, 0.2), 20)
        votes[:, question.columns] = answers * (1 if question.parent is None else votes[:, question.parent, None])
    return votes


ELLIPTICAL = {"Class1_1": 0.8, "Class7_1": 0.1, "Class7_2": 0.6, "Class7_3": 0.1}
SPIRAL = {"Class4_1": 0.9, "Class3_2": 0.7, "Class10_1": 0.6, "Class11_2": 0.5}
BARRED = {"Class4_1": 0.9, "Class3_1": 0.7, "Class10_3": 0.6, "Class11_6": 0.5}


@pytest.mark.parametrize(
    ("columns", "name", "detail"),
    [
        (ELLIPTICAL, "elliptical", "in between"),
        ({"Class1_1": 0.8, "Class7_3": 0.8}, "elliptical", "cigar"),
        (SPIRAL, "spiral", "tight, 2 arms"),
        ({**SPIRAL, "Class11_1": 0.6}, "spiral", "tight, 1 arm"),
        ({**SPIRAL, "Class10_2": 0.7, "Class11_5": 0.6}, "spiral", "medium, more than 4 arms"),
        (BARRED, "barred spiral", "loose, can't tell how many arms"),
        ({"Class1_1": 0.59, "Class7_1": 0.59}, "uncertain", ""),
        ({"Class4_1": 0.9, "Class3_1": 0.45, "Class3_2": 0.45, "Class10_1": 0.9}, "uncertain", ""),
    ],
)
def test_a_galaxy_is_named_by_its_class_and_its_most_voted_details(columns: dict[str, float], name: str, detail: str) -> None:
    votes = _votes(**columns)
    assert hubble_classes(votes, 0.6) == [name]
    assert hubble_details(votes, [name]) == [detail]


def test_a_column_at_the_threshold_is_in_the_class() -> None:
    for threshold in (0.51, 0.6, 0.9, 1.0):  # as float32 some are a little less than in float64
        assert hubble_classes(_votes(Class1_1=threshold), threshold) == ["elliptical"]
        assert hubble_classes(_votes(Class1_1=threshold - 1e-4), threshold) == ["uncertain"]


@given(SEEDS, THRESHOLDS)
def test_of_votes_on_the_tree_no_galaxy_is_in_two_classes(seed: int, threshold: float) -> None:
    votes = _on_the_tree(seed)
    inside = np.stack([hubble_score(votes, name) >= threshold for name in HUBBLE_CLASSES], axis=1)
    assert inside.sum(axis=1).max() <= 1
    expected = [list(HUBBLE_CLASSES)[row.argmax()] if row.any() else "uncertain" for row in inside]
    assert hubble_classes(votes, threshold) == expected


def test_of_two_classes_that_pass_off_the_tree_the_higher_score_counts() -> None:
    assert hubble_classes(_votes(**{**SPIRAL, "Class1_1": 0.65}), 0.6) == ["spiral"]
    assert hubble_classes(_votes(**{**SPIRAL, "Class1_1": 0.75}), 0.6) == ["elliptical"]


@pytest.mark.parametrize("threshold", [0.5, 0.4, 0.0, -1.0, 1.01, float("nan")])
def test_a_threshold_at_which_classes_could_overlap_is_refused(threshold: float) -> None:
    with pytest.raises(SettingError, match=r"--threshold .*: must be above 0\.5, so that classes exclude one another"):
        hubble_classes(_votes(), threshold)


def test_no_columns_are_added_that_were_not_asked_for() -> None:
    extra = extra_columns(_votes(**SPIRAL), None, False)
    assert (extra.names, extra.rows) == ((), ())


def test_both_kinds_of_columns_stand_side_by_side() -> None:
    votes = np.concatenate([_votes(**SPIRAL), _votes(**ELLIPTICAL)])
    extra = extra_columns(votes, 0.6, True)
    assert extra.names == ("hubble", "hubble_detail", *(name.replace("Class", "Conditional") for name in COLUMNS))
    assert [row[:2] for row in extra.rows] == [("spiral", "tight, 2 arms"), ("elliptical", "in between")]
    assert {len(row) for row in extra.rows} == {39}


@given(SEEDS)
def test_a_conditional_column_is_the_share_of_those_asked_and_empty_below_5_percent(seed: int) -> None:
    votes = _on_the_tree(seed)
    extra = extra_columns(votes, None, True)
    for galaxy, row in zip(votes, extra.rows, strict=True):
        for question in QUESTIONS:
            asked = 1.0 if question.parent is None else galaxy[question.parent]
            if abs(asked - 0.05) < 1e-9:
                continue
            given = row[question.columns]
            assert {value == "" for value in given} == {bool(asked < 0.05)}
            if asked >= 0.05:
                np.testing.assert_allclose(np.array(given, float), galaxy[question.columns] / asked, atol=2e-9)


def test_no_conditional_column_of_a_prediction_off_the_tree_is_above_1() -> None:
    votes = np.random.default_rng(0).uniform(0, 1, (50, 37))
    values = [float(value) for row in extra_columns(votes, None, True).rows for value in row if value]
    assert min(values) >= 0 and max(values) <= 1
