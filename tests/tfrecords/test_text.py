"""Text from outside cannot break a line, a table, a terminal or a page."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords.dataset import csv_line
from tfrecords.text import cell, from_cell, markdown, markdown_code, printable


@pytest.mark.parametrize("text", ["NGC 4321.jpg", "Möwe.png", "銀河.fits", "J112953.88-000427.4", "spiral/003", "it's", 'a"b'])
def test_usual_names_stay_as_they_are(text: str) -> None:
    assert printable(text) == cell(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\rb.jpg", "a\\rb.jpg"),
        ("a\nb.jpg", "a\\nb.jpg"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31mred", "\\x9b31mred"),
        ("line\u2028break", "line\\u2028break"),
        ("gpj.\u202eabc", "gpj.\\u202eabc"),
        ("nul\0", "nul\\x00"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["=1+1.jpg", "+49.jpg", "-12.3.jpg", "@sum.jpg", "\t=1", "\r=1"])
def test_no_cell_begins_a_formula(text: str) -> None:
    assert cell(text)[0] not in "=+-@\t\r"
    assert cell(text).endswith(printable(text))


@pytest.mark.slow
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=8))
def test_a_table_has_a_line_for_each_row_whatever_stands_in_it(names: list[str]) -> None:
    content = b"".join(csv_line((number, cell(name))) for number, name in enumerate(names)).decode("utf-8")
    assert len(content.splitlines()) == len(names)
    rows = list(csv.reader(io.StringIO(content, newline="")))
    assert rows == [[str(number), cell(name)] for number, name in enumerate(names)]
    assert [from_cell(cell(name)) for name in names] == names


def test_names_that_look_alike_once_they_are_escaped_stay_apart() -> None:
    names = ["a\rb.jpg", "a\\rb.jpg", "a\\\\rb.jpg", "=x", "'=x", "''=x"]
    assert len({*map(cell, names)}) == len(names)


def test_a_cell_with_a_semicolon_is_quoted_for_those_who_separate_by_it() -> None:
    assert csv_line((7, 'a;=1+1,"b"', "c")) == b'7,"a;=1+1,""b""",c\n'
    assert csv_line((7, 'a,"b"', "c d")) == b'7,"a,""b""",c d\n'


@given(st.text(max_size=30))
def test_inline_code_cannot_be_left(text: str) -> None:
    code = markdown_code(text)
    assert "\n" not in code
    fence = code[: len(code) - len(code.lstrip("`"))]
    inside = code[len(fence) : -len(fence)]
    assert code.endswith(fence) and fence not in inside.strip("`")


def test_markup_in_words_is_shown_as_it_is() -> None:
    assert markdown("<script>|`a`*b*[c](d)_e_") == r"&lt;script&gt;\|\`a\`\*b\*\[c\](d)\_e\_"
