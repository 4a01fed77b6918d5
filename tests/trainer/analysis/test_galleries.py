"""Galleries of classes show those that pass, or state that they show the highest scores."""

import numpy as np
import pytest

from tfrecords.dataset import Dataset
from trainer.analysis.galleries import Candidates, class_choices


@pytest.mark.parametrize(("passing", "fallback"), [(3, True), (4, False), (20, False)])
def test_a_gallery_shows_those_that_pass_or_says_that_it_shows_the_highest(
    plain_dataset: Dataset, passing: int, fallback: bool
) -> None:
    votes = np.full((30, 37), 0.1)
    votes[:passing, 0] = 0.95
    votes[passing:, 0] = np.linspace(0.5, 0.8, 30 - passing)
    ids = np.arange(1000, 1030)[::-1].copy()
    choice = class_choices(Candidates(plain_dataset, ("test",), ids, votes))[0]
    shown = ids[choice.rows].tolist()
    if fallback:
        assert choice.title == "Ellipticals at 0.9: 3 pass, 12 highest scores shown"
        assert sorted(votes[choice.rows, 0], reverse=True) == votes[choice.rows, 0].tolist() and len(shown) == 12
    else:
        assert choice.title == f"Ellipticals at 0.9: {min(passing, 12)} of {passing}"
        assert shown == sorted(ids[:passing].tolist())[:12]


def test_a_class_with_too_few_galaxies_at_both_thresholds_falls_back_once(plain_dataset: Dataset) -> None:
    votes = np.full((30, 37), 0.1)
    votes[:3, 0] = (0.95, 0.7, 0.65)
    names = np.array([f"galaxy {number:02}" for number in range(30)][::-1])
    candidates = Candidates(plain_dataset, ("test",), np.arange(30), votes, names=names)
    of_first = [choice for choice in class_choices(candidates) if choice.name.startswith("elliptical")]
    assert [choice.title for choice in of_first] == ["Ellipticals at 0.9 and 0.6: 1 and 3 pass, 12 highest scores shown"]
    assert of_first[0].caption.startswith("Fewer than 4 galaxies have Class1.1 ≥ 0.6 (voted).")
    assert of_first[0].rows.tolist() == [0, 1, 2, *range(29, 20, -1)]  # of the same score, the first by name
    votes[:4, 0] = 0.7
    passing = [choice for choice in class_choices(candidates) if choice.name == "elliptical-60"]
    assert passing[0].caption == "The first galaxies by name with Class1.1 ≥ 0.6 (voted)."
    assert passing[0].rows.tolist() == [3, 2, 1, 0]


def test_a_gallery_of_the_highest_scores_does_not_call_them_predicted(plain_dataset: Dataset) -> None:
    votes = np.full((30, 37), 0.1)
    choices = class_choices(Candidates(plain_dataset, ("test",), np.arange(30), votes, votes))
    assert {choice.alt for choice in choices} == {
        f"among the highest scores for {name}" for name in ("elliptical", "spiral", "barred spiral")
    }
