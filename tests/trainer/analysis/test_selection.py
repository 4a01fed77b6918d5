"""Selections agree with numpy, and are never run as Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords.errors import SettingError
from tfrecords.taxonomy import COLUMN_INDEX, COLUMNS
from trainer.analysis.selection import parse_selection

VOTES = np.random.default_rng(0).integers(0, 5, (60, 37)) / 4  # many equal a number in an expression


def _comparison(column: str, comparison: str, number: float) -> tuple[str, str]:
    return f"{column} {comparison} {number}", f"(VOTES[:, {COLUMN_INDEX[column]}] {comparison} {number})"


COMPARISONS = st.builds(
    _comparison,
    st.sampled_from(COLUMNS),
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
    selection = parse_selection(text)
    expected = eval(numpys, {"VOTES": VOTES})
    np.testing.assert_array_equal(selection.matches(VOTES), expected)
    again = parse_selection(str(selection))
    assert str(again) == str(selection) and again.columns == selection.columns
    np.testing.assert_array_equal(again.matches(VOTES), expected)


@given(COMPARISONS, COMPARISONS, COMPARISONS)
def test_not_binds_before_and_and_and_before_or(a: tuple[str, str], b: tuple[str, str], c: tuple[str, str]) -> None:
    first, second, third = (eval(one[1], {"VOTES": VOTES}) for one in (a, b, c))
    np.testing.assert_array_equal(parse_selection(f"{a[0]} or {b[0]} and {c[0]}").matches(VOTES), first | (second & third))
    np.testing.assert_array_equal(parse_selection(f"not {a[0]} and {b[0]} or {c[0]}").matches(VOTES), (~first & second) | third)


def test_an_expression_names_its_columns_once_in_order() -> None:
    selection = parse_selection("Class4.1>0.8 and (class3.1<.5 or NOT Class4.1 <= 1e-1)")
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
        parse_selection(text)
    assert problem in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).endswith("write comparisons like Class4.1 > 0.8, combined with and, or, not and parentheses")
