"""The 37 columns and the decision tree are those of the challenge."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

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
        pytest.skip(f"{tail} is missing")
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
    # Of the last answers only that of question 2 (edge-on: no) leads on: it is the parent of 3, 4 and 5.
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


# Projection onto the tree, and fractions of those asked

OUTPUTS = arrays(np.float64, (4, 37), elements=st.floats(-1, 2, allow_subnormal=False))
SEEDS = st.integers(0, 2**32 - 1)


def _votes(seed: int) -> np.ndarray:
    """Votes (10, 37) that obey the tree; some answers have no votes."""
    generator = np.random.default_rng(seed)
    votes = np.zeros((10, 37))
    for start, stop, parent in TREE.values():
        answers = generator.dirichlet(np.ones(stop - start), 10) * (generator.random((10, stop - start)) < 0.8)
        answers[answers.sum(axis=1) == 0, 0] = 1
        answers /= answers.sum(axis=1, keepdims=True)
        asked = 1 if parent is None else votes[:, taxonomy.COLUMNS.index(parent), None]
        votes[:, start:stop] = answers * asked
    return votes


@given(OUTPUTS)
def test_what_is_projected_obeys_the_tree_whatever_it_was(outputs: np.ndarray) -> None:
    projected = taxonomy.project(outputs)
    assert projected.shape == (4, 37) and projected.min() >= 0 and projected.max() <= 1 + 1e-12
    assert taxonomy.tree_deviation(projected).max() < 1e-12


@given(OUTPUTS)
def test_projection_keeps_the_order_of_the_answers_and_who_has_none(outputs: np.ndarray) -> None:
    projected = taxonomy.project(outputs)
    for start, stop, _ in TREE.values():
        before, after = np.maximum(outputs[:, start:stop], 0), projected[:, start:stop]
        for row, kept in zip(before, after, strict=True):
            if row.any():
                assert (kept[row == 0] == 0).all()
                assert (np.diff(kept[np.argsort(row)]) >= -1e-15).all()
            else:
                np.testing.assert_allclose(kept, kept.mean(), rtol=1e-12)


@given(SEEDS)
def test_projection_leaves_votes_that_obey_the_tree_as_they_are(seed: int) -> None:
    votes = _votes(seed)
    np.testing.assert_allclose(taxonomy.project(votes), votes, atol=1e-12)


def test_projection_leaves_real_votes_as_they_are_but_for_their_rounding(kaggle: Path) -> None:
    votes = _rows(kaggle / "training_solutions_rev1.csv")
    # A column may be off by 2e-6, and a question passes such an error on in full, even if few were asked.
    np.testing.assert_allclose(taxonomy.project(votes), votes, atol=5e-6)


@given(SEEDS, st.sampled_from([0.0, 0.05, 0.3]))
def test_a_conditional_fraction_is_a_column_over_its_parent_where_enough_were_asked(seed: int, minimum: float) -> None:
    votes = _votes(seed)
    fractions = taxonomy.conditional(votes, minimum)
    for start, stop, parent in TREE.values():
        asked = np.ones(10) if parent is None else votes[:, taxonomy.COLUMNS.index(parent)]
        clear = np.abs(asked - minimum) > 1e-9
        enough = (asked > minimum)[clear]
        group = fractions[clear, start:stop]
        assert (np.isnan(group) == ~enough[:, None]).all()
        np.testing.assert_allclose(group[enough].sum(axis=1), 1, atol=1e-9)
        np.testing.assert_allclose(group[enough] * asked[clear][enough, None], votes[clear, start:stop][enough], atol=1e-9)


def test_of_a_question_that_nobody_was_asked_there_is_no_fraction_even_without_a_minimum() -> None:
    votes = np.zeros((1, 37))
    votes[0, [0, 14, 15]] = 1  # smooth, not odd, completely round
    missing = np.flatnonzero(np.isnan(taxonomy.conditional(votes, 0.0)[0]))
    assert missing.tolist() == [*range(3, 13), *range(18, 37)]


@pytest.mark.parametrize("name", taxonomy.HUBBLE_CLASSES)
def test_a_galaxy_at_the_threshold_is_in_its_class_and_one_below_is_not(name: str) -> None:
    votes = np.zeros((2, 37))
    columns = [taxonomy.COLUMN_INDEX[column] for column in taxonomy.HUBBLE_CLASSES[name]]
    votes[:, columns] = 0.6
    votes[1, columns[-1]] = 0.6 - 1e-9
    assert taxonomy.in_hubble_class(votes, name, 0.6).tolist() == [True, False]


@pytest.mark.parametrize("rows", [49_000, 3_000_000])
def test_the_mean_of_a_column_does_not_drift_with_the_number_of_galaxies(rows: int) -> None:
    votes = np.full((rows, 37), 0.7, np.float32) if rows < 100_000 else np.broadcast_to(np.float32(0.7), (rows, 37))
    means = taxonomy.column_means(votes)
    assert means.dtype == np.float64 and means.shape == (37,)
    np.testing.assert_allclose(means, np.float64(np.float32(0.7)), rtol=1e-9)
    assert abs(float(np.add.accumulate(votes[:, 0])[-1] / rows) - 0.7) > 1e-4  # what a sum in float32 gives
