"""The 37 columns and the decision tree are those of the challenge."""

from pathlib import Path

import numpy as np
import pytest

from tfrecords import taxonomy

# Facts of the challenge, written down independently of the code: question -> (first column, last + 1, parent's name).
TREE = {
    1: (0, 3, None), 2: (3, 5, "Class1.2"), 3: (5, 7, "Class2.2"), 4: (7, 9, "Class2.2"), 5: (9, 13, "Class2.2"),
    6: (13, 15, None), 7: (15, 18, "Class1.1"), 8: (18, 25, "Class6.1"), 9: (25, 28, "Class2.1"),
    10: (28, 31, "Class4.1"), 11: (31, 37, "Class4.1"),
}  # fmt: skip


def _rows(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", skiprows=1)[:, 1:]


def test_the_37_columns_are_those_of_the_real_table_in_its_order(kaggle: Path) -> None:
    header = (kaggle / "training_solutions_rev1.csv").open().readline().strip()
    assert header == ",".join(["GalaxyID", *taxonomy.COLUMNS])
    assert len(taxonomy.COLUMNS) == 37


@pytest.mark.parametrize("number", TREE)
def test_a_question_holds_its_columns_and_knows_its_parent(number: int) -> None:
    question = taxonomy.QUESTIONS[number - 1]
    start, stop, parent = TREE[number]
    assert (question.number, question.columns, question.start, question.stop) == (number, slice(start, stop), start, stop)
    assert (None if question.parent is None else taxonomy.COLUMNS[question.parent]) == parent
    assert len(question.answers) == stop - start
    assert taxonomy.COLUMNS[question.columns] == tuple(f"Class{number}.{i}" for i in range(1, stop - start + 1))


def test_every_parent_lies_to_the_left_of_its_question() -> None:
    assert all(question.parent < question.start for question in taxonomy.QUESTIONS if question.parent is not None)


def test_the_index_of_a_column_is_its_place() -> None:
    assert [taxonomy.COLUMN_INDEX[name] for name in taxonomy.COLUMNS] == list(range(37))


def test_real_votes_deviate_from_the_tree_by_no_more_than_their_rounding(kaggle: Path) -> None:
    deviation = taxonomy.tree_deviation(_rows(kaggle / "training_solutions_rev1.csv"))
    assert deviation.shape == (3064, 11)
    assert 0 < deviation.max() <= 2e-6 < taxonomy.SUM_TOLERANCE_WARNING


def test_all_real_votes_at_hand_obey_the_tree(kaggle: Path) -> None:
    tail = kaggle.parent / "solutions_tail.csv"
    if not tail.exists():
        pytest.skip(f"{tail} is not at hand")
    assert taxonomy.tree_deviation(_rows(tail)).max() <= 2e-6


@pytest.mark.parametrize("number", TREE)
def test_a_vote_too_many_shows_in_its_own_question(small_dataset, number: int) -> None:
    from tfrecords import framing, schema

    records = framing.read_records(small_dataset.paths("train")[0])
    votes = np.stack([schema.parse(record).targets for record in records]).astype(np.float64)
    assert taxonomy.tree_deviation(votes).max() < 1e-6
    question = taxonomy.QUESTIONS[number - 1]
    votes[0, question.stop - 1] += 0.25
    deviation = taxonomy.tree_deviation(votes)
    np.testing.assert_allclose(deviation[0, number - 1], 0.25, atol=1e-6)
    # The last answer of no question leads anywhere but those of question 2 (edge-on: no), the parent of 3, 4 and 5.
    wrong = {2: [2, 3, 4, 5]}.get(number, [number])
    assert (np.flatnonzero(deviation[0] > 1e-6) + 1).tolist() == wrong
    assert deviation[1:].max() < 1e-6


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Class1.1", "smooth or featured: smooth"),
        ("Class3.2", "bar: no"),
        ("Class8.7", "odd feature: dust lane"),
        ("Class11.6", "arms: can't tell"),
    ],
)
def test_a_column_is_described_by_its_question_and_answer(name: str, words: str) -> None:
    assert taxonomy.describe(taxonomy.COLUMN_INDEX[name]) == words


def test_every_column_has_a_description_of_its_own() -> None:
    assert len({taxonomy.describe(column) for column in range(37)}) == 37


def test_a_galaxy_is_in_a_hubble_class_when_all_its_columns_reach_the_threshold() -> None:
    votes = np.zeros((3, 37), np.float32)
    votes[0, taxonomy.COLUMN_INDEX["Class1.1"]] = 0.95
    votes[1, [taxonomy.COLUMN_INDEX[name] for name in ("Class4.1", "Class3.2", "Class3.1")]] = 0.8, 0.7, 0.1
    votes[2, [taxonomy.COLUMN_INDEX[name] for name in ("Class4.1", "Class3.2", "Class3.1")]] = 0.8, 0.2, 0.6
    scores = {name: taxonomy.hubble_score(votes, name).tolist() for name in taxonomy.HUBBLE_CLASSES}
    assert scores == {
        "elliptical": [np.float32(0.95), 0, 0],
        "spiral": [0, np.float32(0.7), np.float32(0.2)],
        "barred spiral": [0, np.float32(0.1), np.float32(0.6)],
    }
