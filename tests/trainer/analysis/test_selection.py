"""Selections agree with numpy, and are never run as Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords.builtin import builtin_tree
from tfrecords.errors import SettingError
from tfrecords.treefile import parse_tree
from trainer.analysis.selection import parse_selection

TREE = builtin_tree()
VOTES = np.random.default_rng(0).integers(0, 5, (60, 37)) / 4  # many equal a number in an expression


def _comparison(column: str, comparison: str, number: float) -> tuple[str, str]:
    return f"{column} {comparison} {number}", f"(VOTES[:, {TREE.index[column]}] {comparison} {number})"


COMPARISONS = st.builds(
    _comparison,
    st.sampled_from(TREE.columns),
    st.sampled_from([">", ">=", "<", "<=", "==", "!="]),
    st.sampled_from([0, 0.25, 0.5, 1]),
)
# Each with its numpy equivalent: ~, & and | bind like not, and, or.
EXPRESSIONS = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        inner.map(lambda one: (f"not ({one[0]})", f"~({one[1]})")),
        st.tuples(inner, inner).map(lambda two: (f"({two[0][0]}) and ({two[1][0]})", f"({two[0][1]}) & ({two[1][1]})")),
        st.tuples(inner, inner).map(lambda two: (f"({two[0][0]}) OR ({two[1][0]})", f"({two[0][1]}) | ({two[1][1]})")),
    ),
    max_leaves=8,
)


@given(EXPRESSIONS)
def test_an_expression_selects_what_numpy_says_and_so_does_its_normal_form(pair: tuple[str, str]) -> None:
    text, numpys = pair
    selection = parse_selection(text, TREE)
    expected = eval(numpys, {"VOTES": VOTES})
    np.testing.assert_array_equal(selection.matches(VOTES), expected)
    again = parse_selection(str(selection), TREE)
    assert str(again) == str(selection) and again.columns == selection.columns
    np.testing.assert_array_equal(again.matches(VOTES), expected)


@given(COMPARISONS, COMPARISONS, COMPARISONS)
def test_not_binds_before_and_and_and_before_or(a: tuple[str, str], b: tuple[str, str], c: tuple[str, str]) -> None:
    first, second, third = (eval(one[1], {"VOTES": VOTES}) for one in (a, b, c))
    np.testing.assert_array_equal(
        parse_selection(f"{a[0]} or {b[0]} and {c[0]}", TREE).matches(VOTES), first | (second & third)
    )
    np.testing.assert_array_equal(
        parse_selection(f"not {a[0]} and {b[0]} or {c[0]}", TREE).matches(VOTES), (~first & second) | third
    )


def test_an_expression_names_its_columns_once_in_order() -> None:
    selection = parse_selection("Class4.1>0.8 and (class3.1<.5 or NOT Class4.1 <= 1e-1)", TREE)
    assert selection.columns == ("Class4.1", "Class3.1")
    assert str(selection) == "Class4.1 > 0.8 and (Class3.1 < 0.5 or not Class4.1 <= 0.1)"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Class4.9 > 0.5", "there is no column 'Class4.9' (did you mean Class4.2 or Class4.1"),
        ("Class1.1 > 0 and arms > 1", "there is no column 'arms' (columns: Class1.1 to Class11.6), after 'Class1.1 > 0 and'"),
        ("Class1.1 0.5", "a comparison (>, >=, <, <=, ==, !=) is missing after Class1.1"),
        ("Class1.1 > Class1.2", "a number is missing, after 'Class1.1 >'"),
        ("Class1.1 >", "a number is missing"),
        ("Class1.1 > 0.5 and", "a column like Class4.1 is missing, after 'Class1.1 > 0.5 and'"),
        ("and Class1.1 > 0.5", "a column like Class4.1 is missing before 'and', at the start"),
        ("(Class1.1 > 0.5", "a closing parenthesis is missing"),
        ("Class1.1 > 0.5)", "unexpected ')'"),
        ("Class1.1 > 0.5 Class1.2 > 0.5", "unexpected 'Class1.2'"),
        ("Class1.1 > 0.5 & Class1.2 > 0", "'&' is not a column, comparison or number"),
        ("__import__('os').system('true') > 1", "is not a column, comparison or number, after '__import__('"),
        (" ", "a column like Class4.1 is missing"),
        ("(" * 5000 + "Class1.1 > 0" + ")" * 5000, "too many nested parentheses and nots"),
        ("not " * 5000 + "Class1.1 > 0", "too many nested parentheses and nots"),
    ],
)  # fmt: skip
def test_what_is_no_expression_is_one_line_with_the_place(text: str, problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_selection(text, TREE)
    assert problem in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).endswith("write comparisons like Class4.1 > 0.8, combined with and, or, not and parentheses")


DECALS = builtin_tree("decals5")


@given(st.sampled_from(DECALS.columns), st.sampled_from(DECALS.columns), st.sampled_from(["<", " < ", ">=", "!="]))
def test_names_with_hyphens_are_read_whole(first: str, second: str, comparison: str) -> None:
    table = np.random.default_rng(1).integers(0, 5, (60, len(DECALS.columns))) / 4
    selection = parse_selection(f"{first.upper()}{comparison}.5 and not ({second}>0.25)", DECALS)
    assert selection.columns == tuple(dict.fromkeys((first, second)))
    expected = eval(
        f"(a {comparison} 0.5) & ~(b > 0.25)", {"a": table[:, DECALS.index[first]], "b": table[:, DECALS.index[second]]}
    )
    np.testing.assert_array_equal(selection.matches(table), expected)
    assert str(parse_selection(str(selection), DECALS)) == str(selection)


def test_of_names_that_begin_alike_the_longest_counts_and_no_part_of_a_word() -> None:
    tree = parse_tree(
        'question = [{key = "q", answers = {a = "bar", b = "bar-no", c = "bar-no.2", d = "not barred"}}]', "t", "t"
    )
    table = np.eye(4)
    for column in range(4):
        selection = parse_selection(f"{tree.columns[column]}>0.5", tree)
        assert selection.columns == (tree.columns[column],)
        assert selection.matches(table).tolist() == [row == column for row in range(4)]
    with pytest.raises(SettingError, match=r"there is no column 'bars' \(did you mean bar.*write comparisons like bar > 0\.8"):
        parse_selection("bars > 0.5", tree)
    with pytest.raises(SettingError, match=r"there is no column 'bar-none'"):
        parse_selection("bar-none > 0.5", tree)


def test_hints_name_columns_of_the_tree() -> None:
    with pytest.raises(SettingError) as caught:
        parse_selection("bar-strong > 0.5", DECALS)
    assert "there is no column 'bar-strong' (did you mean bar_strong" in str(caught.value)
    assert "write comparisons like smooth-or-featured_smooth > 0.8" in str(caught.value)


@given(EXPRESSIONS)
def test_votes_that_do_not_count_decide_nothing(pair: tuple[str, str]) -> None:
    """A galaxy is selected if the expression is true whatever the volunteers would have answered, as far as that is seen."""
    counted = np.repeat(
        np.random.default_rng(2).random((60, len(TREE.questions))) < 0.5, [3, 2, 2, 2, 4, 2, 3, 7, 3, 3, 6], axis=1
    )
    selection = parse_selection(pair[0], TREE)
    chosen = selection.matches(VOTES, counted)
    for fill in (0, 0.25, 0.3, 0.5, 1, 2):
        other = np.where(counted, VOTES, fill)
        np.testing.assert_array_equal(selection.matches(other, counted), chosen)
        assert (chosen <= selection.matches(other)).all()
    np.testing.assert_array_equal(selection.matches(VOTES, np.ones_like(counted)), selection.matches(VOTES))
    assert not selection.matches(VOTES, np.zeros_like(counted)).any()


def test_a_question_that_nobody_answered_is_neither_reached_nor_missed() -> None:
    table, counted = np.zeros((2, 37)), np.ones((2, 37), bool)
    table[:, TREE.index["Class1.1"]] = 0.9
    counted[1, TREE.index["Class4.1"]] = False
    for text, expected in (
        ("Class4.1 < 0.5", [True, False]),
        ("not Class4.1 > 0.5", [True, False]),
        ("Class1.1 > 0.5 and not Class4.1 > 0.5", [True, False]),
        ("Class1.1 > 0.5 or Class4.1 > 0.5", [True, True]),
        ("not (Class1.1 < 0.5 and Class4.1 < 0.5)", [True, True]),
    ):
        assert parse_selection(text, TREE).matches(table, counted).tolist() == expected, text


@pytest.mark.parametrize("word", ["and", "or"])
def test_a_selection_may_have_thousands_of_parts(word: str) -> None:
    numbers = np.random.default_rng(1).random(3_000) / 4
    selection = parse_selection(f" {word} ".join(f"Class1.1 > {number!r}" for number in numbers.tolist()), TREE)
    above = VOTES[:, :1] > numbers
    expected = above.all(axis=1) if word == "and" else above.any(axis=1)
    assert selection.matches(VOTES).tolist() == expected.tolist()


def test_the_normal_form_joins_what_is_before_a_word_with_what_is_after_it() -> None:
    selection = parse_selection("Class1.1 > 0 or Class1.2 > 0 and Class1.3 > 0 and Class2.1 > 0 or not Class2.2 > 0", TREE)
    assert str(selection) == (
        "(Class1.1 > 0.0 or ((Class1.2 > 0.0 and Class1.3 > 0.0) and Class2.1 > 0.0)) or not Class2.2 > 0.0"
    )
    assert selection.columns == ("Class1.1", "Class1.2", "Class1.3", "Class2.1", "Class2.2")
