"""The arithmetic of a decision tree: Kaggle's is that of the challenge, and the laws hold for every tree that we bring."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.errors import ConfigError
from tfrecords.tree import Tree, column_means, drawing, for_answers
from tfrecords.treefile import parse_tree

KAGGLE = builtin_tree()
# Facts of the challenge, written down independently of the file: question -> (first column, last + 1, parent's name).
TREE = {
    1: (0, 3, None), 2: (3, 5, "Class1.2"), 3: (5, 7, "Class2.2"), 4: (7, 9, "Class2.2"), 5: (9, 13, "Class2.2"),
    6: (13, 15, None), 7: (15, 18, "Class1.1"), 8: (18, 25, "Class6.1"), 9: (25, 28, "Class2.1"),
    10: (28, 31, "Class4.1"), 11: (31, 37, "Class4.1"),
}  # fmt: skip

# Three questions; the last one is asked after two answers of the first.
MERGING = """
name = "small"
[[question]]
key = "shape"
answers = { smooth = "smooth", disk = "disk", artifact = "artifact" }
[[question]]
key = "edge-on"
after = ["disk"]
answers = { yes = "edge-on_yes", no = "edge-on_no" }
[[question]]
key = "merging"
after = ["smooth", "disk"]
answers = { yes = "merging_yes", no = "merging_no" }
"""
trees = st.sampled_from([*map(builtin_tree, builtin_names()), parse_tree(MERGING, "small.toml", "small")])
SEEDS = st.integers(0, 2**32 - 1)


def _small() -> Tree:
    return parse_tree(MERGING, "small.toml", "small")


def _rows(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", skiprows=1)[:, 1:]


def _votes(tree: Tree, seed: int, galaxies: int = 10) -> np.ndarray:
    """Votes (galaxies, n) that obey a tree, from the meaning of its parents; some answers have no votes."""
    generator = np.random.default_rng(seed)
    votes = np.zeros((galaxies, len(tree.columns)))
    for question in tree.questions:
        size = question.stop - question.start
        answers = generator.dirichlet(np.ones(size), galaxies) * (generator.random((galaxies, size)) < 0.8)
        answers[answers.sum(axis=1) == 0, 0] = 1
        answers /= answers.sum(axis=1, keepdims=True)
        asked = sum(votes[:, parent] for parent in question.parents) if question.parents else np.ones(galaxies)
        votes[:, question.start : question.stop] = answers * np.reshape(asked, (galaxies, 1))
    return votes


# Kaggle's tree


def test_the_37_columns_are_those_of_the_real_table_in_its_order(kaggle: Path) -> None:
    header = (kaggle / "training_solutions_rev1.csv").open().readline().strip()
    assert header == ",".join(["GalaxyID", *KAGGLE.columns])
    assert len(KAGGLE.columns) == 37


@pytest.mark.parametrize("number", TREE)
def test_a_question_holds_its_columns_and_its_parent(number: int) -> None:
    question = KAGGLE.questions[number - 1]
    start, stop, parent = TREE[number]
    assert (question.key, question.index) == (str(number), number - 1)
    assert (question.columns, question.start, question.stop) == (slice(start, stop), start, stop)
    assert [KAGGLE.columns[column] for column in question.parents] == ([] if parent is None else [parent])
    assert len(question.answers) == len(question.phrases) == stop - start
    assert KAGGLE.columns[question.columns] == tuple(f"Class{number}.{i}" for i in range(1, stop - start + 1))


@pytest.mark.parametrize("name", builtin_names())
def test_every_parent_lies_to_the_left_of_its_question(name: str) -> None:
    assert all(parent < question.start for question in builtin_tree(name).questions for parent in question.parents)


@pytest.mark.parametrize("name", builtin_names())
def test_the_questions_divide_the_columns_and_their_index_is_their_place(name: str) -> None:
    tree = builtin_tree(name)
    assert [column for question in tree.questions for column in range(question.start, question.stop)] == [
        *range(len(tree.columns))
    ]
    assert [tree.index[column] for column in tree.columns] == [*range(len(tree.columns))]
    assert [tree.question_of(column).index for column in range(len(tree.columns))] == [
        question.index for question in tree.questions for _ in question.answers
    ]


def test_real_votes_deviate_from_the_tree_by_no_more_than_their_rounding(kaggle: Path) -> None:
    deviation = KAGGLE.deviation(_rows(kaggle / "training_solutions_rev1.csv"))
    assert deviation.shape == (3064, 11)
    assert 0 < deviation.max() <= 2e-6 < KAGGLE.layouts[0].warning


def test_all_real_votes_at_hand_obey_the_tree(kaggle: Path) -> None:
    tail = kaggle.parent / "solutions_tail.csv"
    if not tail.exists():
        pytest.skip(f"{tail} is missing")
    assert KAGGLE.deviation(_rows(tail)).max() <= 2e-6


@pytest.mark.parametrize("number", TREE)
def test_a_vote_too_many_shows_in_its_own_question(number: int) -> None:
    votes = _votes(KAGGLE, 0)
    assert KAGGLE.deviation(votes).max() < 1e-12
    question = KAGGLE.questions[number - 1]
    votes[0, question.stop - 1] += 0.25
    deviation = KAGGLE.deviation(votes)
    np.testing.assert_allclose(deviation[0, number - 1], 0.25, atol=1e-12)
    # Of the last answers only that of question 2 (edge-on: no) leads on: it is the parent of 3, 4 and 5.
    wrong = {2: [2, 3, 4, 5]}.get(number, [number])
    assert (np.flatnonzero(deviation[0] > 1e-6) + 1).tolist() == wrong
    assert deviation[1:].max() < 1e-12


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
    assert KAGGLE.describe(KAGGLE.index[name]) == words


@pytest.mark.parametrize("name", builtin_names())
def test_every_column_has_a_description_of_its_own(name: str) -> None:
    tree = builtin_tree(name)
    assert len({tree.describe(column) for column in range(len(tree.columns))}) == len(tree.columns)


def test_only_a_numbered_question_is_called_by_its_number() -> None:
    odd, merging = KAGGLE.questions[5], builtin_tree("decals5").questions[-1]
    assert (odd.called(), odd.answer_called(14)) == ("6, odd", "6.2")
    assert (merging.called(), merging.answer_called(merging.start + 1)) == ("merging", "minor disturbance")
    assert (KAGGLE.short(0), builtin_tree("decals5").short(0)) == ("1.1", "smooth-or-featured_smooth")


def test_a_galaxy_is_in_a_class_when_all_its_columns_reach_the_threshold() -> None:
    votes = np.zeros((3, 37), np.float32)
    votes[0, KAGGLE.index["Class1.1"]] = 0.95
    votes[1, [KAGGLE.index[name] for name in ("Class4.1", "Class3.2", "Class3.1")]] = 0.8, 0.7, 0.1
    votes[2, [KAGGLE.index[name] for name in ("Class4.1", "Class3.2", "Class3.1")]] = 0.8, 0.2, 0.6
    assert KAGGLE.thresholds == (0.9, 0.6)
    assert {member.name: KAGGLE.class_score(votes, member).tolist() for member in KAGGLE.classes} == {
        "elliptical": [np.float32(0.95), 0, 0],
        "spiral": [0, np.float32(0.7), np.float32(0.2)],
        "barred spiral": [0, np.float32(0.1), np.float32(0.6)],
    }


@pytest.mark.parametrize("member", KAGGLE.classes, ids=lambda member: member.name)
def test_a_galaxy_at_the_threshold_is_in_its_class_and_one_below_is_not(member) -> None:
    votes = np.zeros((2, 37))
    votes[:, member.columns] = 0.6
    votes[1, member.columns[-1]] = 0.6 - 1e-9
    assert KAGGLE.in_class(votes, member, 0.6).tolist() == [True, False]


# Questions asked after several answers, and questions that nobody answered


def test_a_question_after_several_answers_is_asked_of_all_who_gave_one_of_them() -> None:
    tree = _small()
    votes = np.array([[0.5, 0.3, 0.2, 0.1, 0.2, 0.6, 0.2]])
    assert tree.leads(tree.questions[2]) == "smooth + disk"
    assert tree.leads(tree.questions[0]) == "1"
    np.testing.assert_allclose(tree.reached(votes, tree.questions[2]), 0.8)
    assert tree.deviation(votes).max() < 1e-12
    votes[0, 0] += 0.1  # now 0.9 saw a galaxy, and 1.1 answered
    np.testing.assert_allclose(tree.deviation(votes), [[0.1, 0, 0.1]], atol=1e-12)
    np.testing.assert_allclose(tree.conditional(np.array([[0.5, 0.3, 0.2, 0.1, 0.2, 0.6, 0.2]]), 0)[0, 5:], [0.75, 0.25])


def test_the_sum_of_a_question_that_nobody_answered_does_not_count() -> None:
    tree = _small()
    votes = np.array([[0.5, 0.5, 0, 0, 0, 0.4, 0.6]] * 2)  # nobody answered whether it is edge-on
    np.testing.assert_allclose(tree.deviation(votes), [[0, 0.5, 0]] * 2)
    np.testing.assert_allclose(tree.deviation(votes, np.array([[10, 0, 10], [10, 5, 10]])), [[0, 0, 0], [0, 0.5, 0]])


def test_a_value_of_each_question_is_spread_over_its_answers() -> None:
    asked = np.array([[3, 0, 2]]) > 0
    assert for_answers(asked, _small().questions).tolist() == [[True] * 3 + [False] * 2 + [True] * 2]


def test_reached_keeps_the_precision_of_the_votes() -> None:
    tree = _small()
    votes = _votes(tree, 1).astype(np.float32)
    assert {tree.reached(votes, question).dtype for question in tree.questions} == {np.dtype(np.float32)}


def test_trees_fit_each_other_if_questions_and_columns_are_the_same_whatever_their_words() -> None:
    tree = _small()
    reworded = parse_tree(MERGING.replace('key = "merging"', 'key = "merging"\ntext = "Is it merging?"\ntitle = "m"'), "a", "b")
    tree.refuse_other(reworded, "run", "data")
    assert reworded.structure == tree.structure
    rule = "use a dataset of the same tree, or train on this one"
    for old, new, what in (
        ('"merging_yes"', '"m_yes"', "column m_yes"),
        ('["smooth", "disk"]', '["disk"]', "question merging"),
        ('key = "edge-on"', 'key = "edge"', "question edge"),
        (MERGING[MERGING.rindex("[[question]]") :], "", "question merging"),
        ('yes = "merging_yes"', 'maybe = "merging_maybe", yes = "merging_yes"', "column merging_maybe"),
    ):
        assert old in MERGING
        other = parse_tree(MERGING.replace(old, new), "other.toml", "other")
        assert other.structure != tree.structure
        with pytest.raises(ConfigError) as caught:
            tree.refuse_other(other, "run", "data")
        where = f"small (they differ in {what})"
        assert str(caught.value) == f"data: its decision tree, small, is not that of run, {where}: {rule}"
    with pytest.raises(ConfigError) as caught:
        tree.refuse_other(KAGGLE, "run", "data")
    assert str(caught.value) == f"data: its decision tree, kaggle, is not that of run, small: {rule}"


def test_our_trees_differ_from_one_another() -> None:
    assert len({builtin_tree(name).structure for name in builtin_names()}) == len(builtin_names()) == 6


# Projection onto the tree, and fractions of those asked


@st.composite
def _outputs(draw: st.DrawFn) -> tuple[Tree, np.ndarray]:
    tree = draw(trees)
    return tree, draw(arrays(np.float64, (4, len(tree.columns)), elements=st.floats(-1, 2, allow_subnormal=False)))


@given(_outputs())
def test_what_is_projected_obeys_the_tree_whatever_it_was(drawn: tuple[Tree, np.ndarray]) -> None:
    tree, outputs = drawn
    projected = tree.project(outputs)
    assert projected.shape == outputs.shape and projected.min() >= 0 and projected.max() <= 1 + 1e-12
    assert tree.deviation(projected).max() < 1e-12


@given(_outputs())
def test_projecting_again_changes_nothing(drawn: tuple[Tree, np.ndarray]) -> None:
    tree, outputs = drawn
    once = tree.project(outputs)
    twice = tree.project(once)
    # Answers to a question that nobody was asked are all 0, and remain so.
    np.testing.assert_allclose(twice, once, atol=1e-12)


@given(_outputs())
def test_projection_keeps_the_order_of_the_answers_and_who_has_none(drawn: tuple[Tree, np.ndarray]) -> None:
    tree, outputs = drawn
    projected = tree.project(outputs)
    for question in tree.questions:
        before, after = np.maximum(outputs[:, question.columns], 0), projected[:, question.columns]
        for row, kept in zip(before, after, strict=True):
            if row.any():
                assert (kept[row == 0] == 0).all()
                assert (np.diff(kept[np.argsort(row)]) >= -1e-15).all()
            else:
                np.testing.assert_allclose(kept, kept.mean(), rtol=1e-12)


@given(trees, SEEDS)
def test_projection_leaves_votes_that_obey_the_tree_as_they_are(tree: Tree, seed: int) -> None:
    votes = _votes(tree, seed)
    assert tree.deviation(votes).max() < 1e-12
    np.testing.assert_allclose(tree.project(votes), votes, atol=1e-12)


def test_projection_leaves_real_votes_as_they_are_but_for_their_rounding(kaggle: Path) -> None:
    votes = _rows(kaggle / "training_solutions_rev1.csv")
    # A column may be off by 2e-6, and a question passes such an error on in full, even if few were asked.
    np.testing.assert_allclose(KAGGLE.project(votes), votes, atol=5e-6)


@given(trees, SEEDS, st.sampled_from([0.0, 0.05, 0.3]))
def test_a_conditional_fraction_is_a_column_over_those_asked_where_enough_were(tree: Tree, seed: int, minimum: float) -> None:
    votes = _votes(tree, seed)
    fractions = tree.conditional(votes, minimum)
    for question in tree.questions:
        asked = votes[:, list(question.parents)].sum(axis=1) if question.parents else np.ones(len(votes))
        clear = np.abs(asked - minimum) > 1e-9
        enough = (asked > minimum)[clear]
        group = fractions[clear, question.columns]
        assert (np.isnan(group) == ~enough[:, None]).all()
        np.testing.assert_allclose(group[enough].sum(axis=1), 1, atol=1e-9)
        np.testing.assert_allclose(
            group[enough] * asked[clear][enough, None], votes[clear, question.columns][enough], atol=1e-9
        )


def test_of_a_question_that_nobody_was_asked_there_is_no_fraction_even_without_a_minimum() -> None:
    votes = np.zeros((1, 37))
    votes[0, [0, 14, 15]] = 1  # smooth, not odd, completely round
    missing = np.flatnonzero(np.isnan(KAGGLE.conditional(votes, 0.0)[0]))
    assert missing.tolist() == [*range(3, 13), *range(18, 37)]


@pytest.mark.parametrize("rows", [49_000, 3_000_000])
def test_the_mean_of_a_column_does_not_drift_with_the_number_of_galaxies(rows: int) -> None:
    votes = np.full((rows, 37), 0.7, np.float32) if rows < 100_000 else np.broadcast_to(np.float32(0.7), (rows, 37))
    means = column_means(votes)
    assert means.dtype == np.float64 and means.shape == (37,)
    np.testing.assert_allclose(means, np.float64(np.float32(0.7)), rtol=1e-9)
    assert abs(float(np.add.accumulate(votes[:, 0])[-1] / rows) - 0.7) > 1e-4  # what a sum in float32 gives


def test_the_mean_of_a_column_is_that_of_the_galaxies_that_count() -> None:
    votes = np.array([[0.2, 0.9, 0.5], [0.4, 0.1, 0.5]], np.float32)
    counted = np.array([[True, False, False], [True, True, False]])
    np.testing.assert_allclose(column_means(votes, counted), [0.3, 0.1, 0], rtol=1e-7)
    np.testing.assert_array_equal(column_means(votes, np.ones((2, 3), bool)), column_means(votes))


# The drawing


@pytest.mark.parametrize("name", builtin_names())
def test_a_drawing_names_every_column_once_and_every_question(name: str) -> None:
    tree = builtin_tree(name)
    lines = drawing(tree).splitlines()
    named = [line.split()[-1] for line in lines if "├─" in line or "└─" in line]
    assert sorted(named) == sorted(tree.columns)
    assert max(map(len, lines)) <= 128
    for question in tree.questions:
        assert sum(line.lstrip(" │").startswith(f"{question.called('{} {}')}: {question.words}") for line in lines) == 1
    assert {tree.citation, tree.url} < {*lines}


def test_a_question_after_several_answers_is_drawn_below_the_first_and_the_others_point_to_it() -> None:
    assert drawing(_small()).splitlines() == [
        "small",
        "id: found by its name; votes: fractions; 7 answers:",
        "",
        "shape",
        "├─ smooth    smooth",
        "│    merging",
        "│    ├─ yes  merging_yes",
        "│    └─ no   merging_no",
        "├─ disk      disk",
        "│    edge on",
        "│    ├─ yes  edge-on_yes",
        "│    └─ no   edge-on_no",
        "│    -> merging, drawn after shape: smooth",
        "└─ artifact  artifact",
    ]
