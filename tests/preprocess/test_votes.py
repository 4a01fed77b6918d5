"""Votes follow from whatever a table holds, and a table that cannot be right is refused in one line."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.votes import Fractions, Numbers, fractions_of
from tests.conftest import random_counts, random_votes
from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.errors import SourceError
from tfrecords.tree import Layout, Tree
from tfrecords.treefile import parse_tree

NAN = float("nan")
# `merging` is asked of all who do not see a star: the sum of two columns leads to it.
QUESTIONS = """
[[question]]
key = "shape"
answers = { smooth = "smooth", featured = "featured", star = "star" }
[[question]]
key = "bar"
after = ["featured"]
answers = { yes = "bar", no = "plain" }
[[question]]
key = "merging"
after = ["smooth", "featured"]
answers = { yes = "merger", no = "alone" }
"""
# 10 and 4 volunteers; of the second galaxy nobody sees features.
COUNTS = [[5, 4, 1, 1, 3, 3, 6], [4, 0, 0, 0, 0, 1, 3]]
TARGETS = [[0.5, 0.4, 0.1, 0.1, 0.3, 0.3, 0.6], [1, 0, 0, 0, 0, 0.25, 0.75]]
ASKED = [[10, 4, 9], [4, 0, 4]]
FRACTIONS = [[0.5, 0.4, 0.1, 0.25, 0.75, 1 / 3, 2 / 3], [1, 0, 0, 0, 0, 0.25, 0.75]]
NONE = [0.0] * 7
CUMULATIVE, OF_ASKED, OF_COUNTS = (
    Layout("cumulative", "cumulative"),
    Layout("fractions", "fractions"),
    Layout("counts", "counts"),
)


@pytest.fixture(scope="module")
def tree() -> Tree:
    return parse_tree(QUESTIONS, "small.toml", "small")


@pytest.fixture(scope="module")
def rings() -> Tree:
    """One question, of which the table holds one answer only."""
    text = '[[votes]]\nkind = "fractions"\n[[question]]\nkey = "ring"\nanswers = { yes = "ring" }\nrest = "no"\n'
    return parse_tree(text, "rings.toml", "rings")


def _read(tree: Tree, layout: Layout, values: list[list[float]], totals: list[list[float]] | None = None) -> Fractions:
    ids = np.array([f"J{row}" for row in range(len(values))], object)
    of_questions = None if totals is None else np.array(totals, np.float64)
    return fractions_of(Numbers("votes.csv", ids, np.array(values, np.float64), of_questions), tree, layout)


def _refused(tree: Tree, layout: Layout, values: list[list[float]], totals: list[list[float]] | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        _read(tree, layout, values, totals)
    text = str(caught.value)
    assert text.startswith("votes.csv: ") and "\n" not in text
    return text.removeprefix("votes.csv: ")


def _changed(table: list[list[float]], row: int, place: int, value: float) -> list[list[float]]:
    return [[value if (row, place) == (i, j) else old for j, old in enumerate(line)] for i, line in enumerate(table)]


def test_counts_become_cumulative_fractions_and_the_number_of_answers_to_each_question(tree: Tree) -> None:
    votes = _read(tree, OF_COUNTS, COUNTS)
    np.testing.assert_allclose(votes.targets, TARGETS, atol=1e-15)
    assert votes.asked is not None and votes.asked.tolist() == ASKED
    assert (votes.empty.tolist(), votes.estimated, votes.warnings) == ([False, False], False, ())


def test_fractions_of_those_asked_give_the_targets_of_the_counts_that_they_come_from(tree: Tree) -> None:
    votes = _read(tree, OF_ASKED, FRACTIONS)
    np.testing.assert_allclose(votes.targets, TARGETS, atol=1e-15)
    # A question that nobody was asked is no reason to assume a number of volunteers.
    assert votes.asked is None and not votes.estimated


def test_cumulative_fractions_are_kept_as_they_are(tree: Tree) -> None:
    votes = _read(tree, CUMULATIVE, TARGETS)
    assert votes.targets.tolist() == TARGETS and votes.asked is None
    nearly = _changed(TARGETS, 0, 0, 0.501)
    assert _read(tree, CUMULATIVE, nearly).targets.tolist() == nearly


@pytest.mark.parametrize("blank", [NAN, 0.0])
@pytest.mark.parametrize("layout", [OF_ASKED, OF_COUNTS], ids=["fractions", "counts"])
def test_a_question_that_nobody_was_asked_may_be_blank_or_all_0(tree: Tree, layout: Layout, blank: float) -> None:
    values = [list(row) for row in (COUNTS if layout is OF_COUNTS else FRACTIONS)]
    values[1][3:5] = [blank, blank]
    votes = _read(tree, layout, values)
    np.testing.assert_allclose(votes.targets, TARGETS, atol=1e-15)
    assert votes.warnings == ()


@pytest.mark.parametrize("layout", [OF_ASKED, OF_COUNTS], ids=["fractions", "counts"])
@pytest.mark.parametrize("blank", [NAN, 0.0])
def test_a_galaxy_without_any_votes_is_empty_and_changes_nothing_for_the_others(
    tree: Tree, layout: Layout, blank: float
) -> None:
    values = COUNTS if layout is OF_COUNTS else FRACTIONS
    votes = _read(tree, layout, [*values, [blank] * 7])
    assert votes.empty.tolist() == [False, False, True]
    alone = _read(tree, layout, values)
    np.testing.assert_array_equal(votes.targets[:2], alone.targets)
    assert (votes.asked is None) == (alone.asked is None) == (layout is OF_ASKED)


def test_of_fractions_that_lack_a_question_that_was_asked_the_numbers_of_answers_are_estimated(tree: Tree) -> None:
    values = [list(row) for row in FRACTIONS]
    values[0][5:7] = [NAN, NAN]
    votes = _read(tree, OF_ASKED, values)
    assert votes.estimated and votes.asked is not None
    # Of 40 volunteers, the number that a tree assumes, 16 are asked for a bar; nobody answers `merging`.
    np.testing.assert_allclose(votes.asked, [[40, 16, 0], [40, 0, 40]])
    assert votes.targets[0, 5:].tolist() == [0, 0]
    assert votes.warnings == (
        "votes.csv: question merging is blank for galaxy J0: as the table gives no numbers of answers, "
        "40 volunteers are assumed for each galaxy",
    )


def test_with_totals_fractions_give_the_numbers_of_answers_too(tree: Tree) -> None:
    votes = _read(tree, OF_ASKED, FRACTIONS, ASKED)
    np.testing.assert_allclose(votes.targets, TARGETS, atol=1e-15)
    np.testing.assert_allclose(votes.asked, ASKED)
    # Three decimals, as Galaxy Zoo 2 publishes them, do not change how many answered.
    rounded = np.round(FRACTIONS, 3).tolist()
    votes = _read(tree, OF_ASKED, rounded, ASKED)
    np.testing.assert_allclose(votes.asked, ASKED, rtol=1e-12)
    np.testing.assert_allclose(votes.targets, TARGETS, atol=1e-3)


def test_cumulative_fractions_with_totals_keep_both(tree: Tree) -> None:
    votes = _read(tree, CUMULATIVE, [*TARGETS, NONE][:2], ASKED)
    assert votes.asked is not None and votes.asked.tolist() == ASKED
    assert votes.targets.tolist() == TARGETS


@pytest.mark.parametrize("layout", [CUMULATIVE, OF_ASKED, Layout("debiased", "fractions", normalise=True)], ids=str)
@pytest.mark.parametrize("total", [NAN, 0.0])
def test_votes_without_a_total_are_refused_and_not_dropped(tree: Tree, layout: Layout, total: float) -> None:
    what = "question bar has votes, but its total is 0 for galaxy J0: correct the table"
    values = TARGETS if layout is CUMULATIVE else FRACTIONS
    assert _refused(tree, layout, values, _changed(ASKED, 0, 1, total)) == what


def test_a_question_that_was_reached_and_that_nobody_answered_may_have_a_total_of_0(tree: Tree, rings: Tree) -> None:
    values, asked = [list(row) for row in TARGETS], _changed(ASKED, 0, 1, 0)
    values[0][3:5] = [0.0, 0.0]
    votes = _read(tree, CUMULATIVE, values, asked)
    assert votes.targets.tolist() == values and votes.asked is not None and votes.asked.tolist() == asked
    assert "do not add up to featured for galaxy J0" in _refused(tree, CUMULATIVE, values)
    assert "do not add up to featured for galaxy J0" in _refused(tree, CUMULATIVE, values, ASKED)
    # Then nobody gave the rest of the answers either.
    for layout in (CUMULATIVE, OF_ASKED, Layout("debiased", "fractions", normalise=True)):
        votes = _read(rings, layout, [[0.25, NAN], [0.0, NAN]], [[8], [0]])
        assert votes.targets.tolist() == [[0.25, 0.75], [0, 0]] and votes.empty.tolist() == [False, True]


def test_answers_without_a_column_are_left_out_with_a_warning(tree: Tree) -> None:
    """As in GZ DECaLS, whose early galaxies were shown other answers to the question on merging."""
    totals = _changed(ASKED, 0, 2, 9)
    counts = _changed(COUNTS, 0, 6, 1)
    votes = _read(tree, OF_COUNTS, counts, totals)
    np.testing.assert_allclose(votes.targets[0, 5:], [0.9 * 3 / 4, 0.9 / 4])
    assert votes.asked is not None and votes.asked[0].tolist() == [10, 4, 4]
    only = "question merging has fewer answers with a column than its total; the others are ignored, for galaxy J0"
    assert votes.warnings == (f"votes.csv: {only}",)
    fractions = _changed(FRACTIONS, 0, 6, 1 / 9)
    same = _read(tree, OF_ASKED, fractions, totals)
    np.testing.assert_allclose(same.targets, votes.targets, atol=1e-12)
    np.testing.assert_allclose(same.asked, votes.asked)
    assert same.warnings == votes.warnings


def test_debiased_fractions_that_do_not_add_up_are_normalised(tree: Tree) -> None:
    layout = Layout("debiased", "fractions", "_debiased", normalise=True)
    raw = [[0.6, 0.6, 0.0, 0.3, 0.1, 0.5, 0.5]]
    expected = [[0.5, 0.5, 0, 0.375, 0.125, 0.5, 0.5]]
    np.testing.assert_allclose(_read(tree, layout, raw).targets, expected)
    votes = _read(tree, layout, raw, [[10, 4, 9]])
    np.testing.assert_allclose(votes.targets, expected)
    assert votes.asked is not None and votes.asked.tolist() == [[10, 4, 9]]
    assert "do not add up to 1 for galaxy J0" in _refused(tree, OF_ASKED, raw)


def test_the_rest_is_what_the_other_answers_leave(rings: Tree) -> None:
    votes = _read(rings, OF_ASKED, [[0.3, NAN], [0.0, NAN], [1.0, NAN], [1.01, NAN], [NAN, NAN]])
    np.testing.assert_allclose(votes.targets[:4], [[0.3, 0.7], [0, 1], [1, 0], [1, 0]])
    assert votes.asked is None and votes.empty.tolist() == [False] * 4 + [True]
    counted = _read(rings, Layout("counts", "counts", total="_total"), [[3, NAN], [0, NAN], [0, NAN]], [[10], [5], [0]])
    np.testing.assert_allclose(counted.targets, [[0.3, 0.7], [0, 1], [0, 0]])
    assert counted.asked is not None and counted.asked.tolist() == [[10], [5], [0]]
    assert counted.empty.tolist() == [False, False, True]
    np.testing.assert_allclose(_read(rings, CUMULATIVE, [[0.3, NAN]]).targets, [[0.3, 0.7]])
    both = _read(rings, Layout("fractions", "fractions", total="_total"), [[0.3, NAN]], [[10]])
    np.testing.assert_allclose(both.targets, [[0.3, 0.7]])
    np.testing.assert_allclose(both.asked, [[10]])


@pytest.mark.parametrize("name", builtin_names())
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_of_counts_drawn_along_any_tree_targets_obey_it_and_give_the_counts_back(name: str, seed: int) -> None:
    one = builtin_tree(name)
    counts = random_counts(12, np.random.default_rng(seed), one)
    numbers = Numbers("votes.csv", np.arange(12), counts.astype(np.float64))
    votes = fractions_of(numbers, one, OF_COUNTS)
    assert votes.asked is not None and votes.warnings == () and not votes.empty.any()
    sums = np.stack([counts[:, question.columns].sum(axis=1) for question in one.questions], axis=1)
    np.testing.assert_array_equal(votes.asked, sums)
    targets, asked = votes.targets.astype(np.float32), votes.asked.astype(np.float32)
    assert one.deviation(targets, asked).max() < 1e-6
    assert ((targets >= 0) & (targets <= 1)).all()
    for question in one.questions:
        reached = one.reached(votes.targets, question)[:, None]
        shares = np.divide(
            votes.targets[:, question.columns], reached, out=np.zeros((12, question.stop - question.start)), where=reached > 0
        )
        np.testing.assert_allclose(shares * votes.asked[:, [question.index]], counts[:, question.columns], atol=1e-9)
    # Fractions of the same volunteers give the same targets; with totals, the same number of answers.
    whole = np.repeat(np.maximum(sums, 1), [q.stop - q.start for q in one.questions], axis=1)
    for totals in (None, sums.astype(np.float64)):
        again = fractions_of(Numbers("votes.csv", np.arange(12), (counts / whole).round(6), totals), one, OF_ASKED)
        np.testing.assert_allclose(again.targets, votes.targets, atol=2e-5)
        if totals is None:
            assert again.asked is None
        else:
            np.testing.assert_allclose(again.asked, votes.asked, rtol=1e-12)


@pytest.mark.parametrize("name", builtin_names())
def test_cumulative_fractions_of_any_tree_are_read_as_written(name: str) -> None:
    one = builtin_tree(name)
    values = random_votes(50, np.random.default_rng(0), one)
    votes = fractions_of(Numbers("votes.csv", np.arange(50), values), one, CUMULATIVE)
    np.testing.assert_array_equal(votes.targets, values)
    assert votes.warnings == ()


_PERCENT = (
    "the columns of question shape add up to 100 for most galaxies, not to 1: these look like percentages: divide them by 100"
)
_MORE = (
    "more volunteers answered question bar than gave the answers that lead to it (featured) for galaxy J0: "
    "correct the table, or after in the tree"
)
BAD: dict[str, tuple[Layout, Callable[[], list[list[float]]], str]] = {
    "more asked than led to it": (
        OF_COUNTS, lambda: _changed(COUNTS, 0, 4, 4),
        _MORE,
    ),
    "more asked than the sum of two answers": (
        OF_COUNTS, lambda: _changed(COUNTS, 1, 6, 4),
        "more volunteers answered question merging than gave the answers that lead to it (smooth + featured) for galaxy J1: "
        "correct the table, or after in the tree",
    ),
    "a count below 0": (
        OF_COUNTS, lambda: _changed(COUNTS, 0, 3, -1), "values below 0 for galaxy J0, first in bar: correct them"
    ),
    "a count without end": (
        OF_COUNTS, lambda: _changed(COUNTS, 0, 3, float("inf")),
        "values missing or not finite for galaxy J0, first in bar: correct them",
    ),
    "a count that is missing": (
        OF_COUNTS, lambda: _changed(COUNTS, 0, 3, NAN), "values missing or not finite for galaxy J0, first in bar: correct them"
    ),
    "a fraction that is missing": (
        OF_ASKED, lambda: _changed(FRACTIONS, 1, 5, NAN),
        "values missing or not finite for galaxy J1, first in merger: correct them",
    ),
    "a fraction without end": (
        OF_ASKED, lambda: _changed(FRACTIONS, 1, 5, -float("inf")),
        "values missing or not finite for galaxy J1, first in merger: correct them",
    ),
    "a cumulative fraction that is missing": (
        CUMULATIVE, lambda: _changed(TARGETS, 1, 3, NAN),
        "values missing or not finite for galaxy J1, first in bar: correct them",
    ),
    "fractions for counts": (
        OF_COUNTS, lambda: FRACTIONS,
        "holds fractions, but tree small expects counts of volunteers: choose other columns with --votes, or describe the "
        "table in a tree file",
    ),
    "counts for fractions": (
        OF_ASKED, lambda: COUNTS,
        'the columns of question shape add up to 7 for most galaxies, not to 1: these look like counts: use a tree file with '
        'kind = "counts"',
    ),
    "counts for cumulative fractions": (
        CUMULATIVE, lambda: COUNTS,
        'the columns of question shape add up to 7 for most galaxies, not to 1: these look like counts: use a tree file with '
        'kind = "counts"',
    ),
    "fractions in percent": (
        OF_ASKED, lambda: (100 * np.array(FRACTIONS)).tolist(),
        _PERCENT,
    ),
    "cumulative fractions in percent": (
        CUMULATIVE, lambda: (100 * np.array(TARGETS)).round(6).tolist(),
        _PERCENT,
    ),
    "counts in percent": (
        OF_COUNTS, lambda: (100 * np.array(FRACTIONS)).tolist(),
        "not all values are whole, and the columns of question shape add up to 100 for all galaxies: these look like "
        'percentages: divide them by 100 and use kind = "fractions"',
    ),
    "a fraction below 0": (
        OF_ASKED, lambda: _changed(FRACTIONS, 0, 2, -0.1), "values outside 0 to 1 for galaxy J0, first in star: correct them"
    ),
    "a fraction above 1": (
        OF_ASKED, lambda: _changed(FRACTIONS, 0, 2, 1.1), "values outside 0 to 1 for galaxy J0, first in star: correct them"
    ),
    "fractions that do not add up": (
        OF_ASKED, lambda: _changed(FRACTIONS, 1, 6, 0.7),
        "the columns of question merging do not add up to 1 for galaxy J1: correct the table",
    ),
    "cumulative fractions that do not add up": (
        CUMULATIVE, lambda: _changed(TARGETS, 0, 6, 0.7),
        "the columns of question merging do not add up to smooth + featured for galaxy J0: correct the table",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_cannot_be_right_is_refused_with_question_or_column_and_galaxy(tree: Tree, name: str) -> None:
    layout, values, message = BAD[name]
    assert _refused(tree, layout, values()) == message


@pytest.mark.parametrize(("total", "what"), [
    (-1.0, "the total of question bar is below 0 or not finite for galaxy J0: correct it"),
    (float("inf"), "the total of question bar is below 0 or not finite for galaxy J0: correct it"),
    (3.0, "the counts of question bar exceed their total for galaxy J0: correct the table"),
    (NAN, "the counts of question bar exceed their total for galaxy J0: correct the table"),
    (5.0, _MORE),
])  # fmt: skip
def test_a_total_that_cannot_be_right_is_refused_with_question_and_galaxy(tree: Tree, total: float, what: str) -> None:
    assert _refused(tree, OF_COUNTS, COUNTS, _changed(ASKED, 0, 1, total)) == what


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        (6, NAN, "values missing or not finite for galaxy J0, first in alone: correct them"),
        (6, 0.9, "the columns of question merging add up to more than 1 for galaxy J0: correct the table"),
        (6, -0.2, "values outside 0 to 1 for galaxy J0, first in alone: correct them"),
    ],
)
def test_with_totals_fractions_are_checked_no_less(tree: Tree, place: int, value: float, what: str) -> None:
    assert _refused(tree, OF_ASKED, _changed(FRACTIONS, 0, place, value), ASKED) == what


def test_a_rest_below_0_is_refused(rings: Tree) -> None:
    two = parse_tree(
        '[[question]]\nkey = "ring"\nanswers = { inner = "inner", outer = "outer" }\nrest = "no"\n', "rings.toml", "rings"
    )
    more = "the columns of question ring add up to more than 1 for galaxy J0: correct the table"
    assert _refused(two, OF_ASKED, [[0.6, 0.5, NAN]]) == more
    assert _refused(two, OF_ASKED, [[0.6, 0.5, NAN]], [[20]]) == more
    assert _refused(two, CUMULATIVE, [[0.6, 0.5, NAN]]) == more
    counts = Layout("counts", "counts", total="_total")
    exceed = "the counts of question ring exceed their total for galaxy J0: correct the table"
    assert _refused(two, counts, [[6, 5, NAN]], [[10]]) == exceed
    assert "holds fractions, but tree rings expects counts" in _refused(two, counts, [[0.5, 0.25, NAN]], [[10]])
    # With one answer of two, percentages look like counts.
    either = "these look like percentages: divide them by 100; or counts: use a tree file with kind = "
    assert either in _refused(rings, OF_ASKED, [[30, NAN], [40, NAN]])


def test_at_most_three_galaxies_are_named_and_the_others_counted(tree: Tree) -> None:
    assert "for galaxies J0, J1, J2 and 4 more, first in bar" in _refused(tree, OF_COUNTS, [_changed(COUNTS, 0, 3, -1)[0]] * 7)


def test_rounding_of_counts_and_sums_is_accepted_and_larger_deviations_of_sums_are_named(tree: Tree) -> None:
    assert _read(tree, OF_COUNTS, _changed(COUNTS, 0, 4, 3.5)).warnings == ()
    votes = _read(tree, OF_ASKED, _changed(FRACTIONS, 0, 4, 0.765))
    assert votes.warnings == ("votes.csv: the columns of question bar do not add up to 1 within 0.01 for galaxy J0",)
    np.testing.assert_allclose(votes.targets[0, 3:5].sum(), 0.4)  # scaled, so that targets obey the tree


def test_counts_that_add_up_to_100_are_percentages_only_if_they_do_for_all_and_some_are_not_whole(tree: Tree) -> None:
    percent = [[50.0, 40, 10, 15, 25, 40, 50], [60.5, 39.5, 0, 10, 29.5, 50, 50]]
    assert "these look like percentages" in _refused(tree, OF_COUNTS, percent)
    assert "these look like percentages" in _refused(tree, OF_COUNTS, [*percent, NONE])  # nor has an empty galaxy others
    assert "these look like percentages" in _refused(tree, OF_COUNTS, percent[1:])
    assert _read(tree, OF_COUNTS, percent[:1]).warnings == ()  # a hundred volunteers
    assert _read(tree, OF_COUNTS, [*percent, *COUNTS]).warnings == ()  # weighted counts


def test_a_suffix_is_part_of_the_column_in_messages(tree: Tree) -> None:
    layout = Layout("fractions", "fractions", suffix="_fraction")
    assert "first in star_fraction" in _refused(tree, layout, _changed(FRACTIONS, 0, 2, -0.1))
