"""The table of votes is read exactly to the last bit, and refused as a whole if it cannot be right."""

import csv
import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess import solutions
from tfrecords.builtin import builtin_tree
from tfrecords.errors import SourceError
from tfrecords.files import sha256_file

COLUMNS = builtin_tree().columns
Table = list[dict[str, str]]
Write = Callable[..., Path]


@pytest.fixture
def table(survey: Path) -> Table:
    with (survey / "training_solutions_rev1.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes a table of votes: write(rows, header=None)."""

    def write(rows: Table, header: list[str] | None = None) -> Path:
        path = tmp_path / "votes.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, header or list(rows[0]), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


def _votes(path: str, content: bytes) -> solutions.Votes:
    """The votes of a table whose ids are numbers, with an image for each row."""
    ballots = solutions.read_table(path, content)
    assert ballots.ids.dtype == np.int64
    return ballots.votes(ballots.ids)


def _read(path: Path) -> solutions.Votes:
    return _votes(str(path), path.read_bytes())


def _refused(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        _read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_every_target_is_the_float32_nearest_to_its_text(kaggle: Path) -> None:
    path = kaggle / "training_solutions_rev1.csv"
    with path.open() as file:
        rows = list(csv.reader(file))[1:]
    votes = _read(path)
    rows.sort(key=lambda row: int(row[0]))
    assert votes.galaxy_ids.tolist() == [int(row[0]) for row in rows]
    assert votes.galaxy_ids.dtype == np.int64
    assert votes.targets.dtype == np.float32
    expected = np.array([[np.float32(text) for text in row[1:]] for row in rows])
    np.testing.assert_array_equal(votes.targets, expected)
    assert votes.warnings == ()
    assert votes.sha256 == sha256_file(path)


def test_even_texts_halfway_between_two_float32_give_the_nearest(table: Table, write: Write) -> None:
    # The hardest case: the last digit of the float64 in between decides.
    for row in table:
        for name in COLUMNS:
            below = np.float32(row[name])
            row[name] = repr((float(below) + float(np.nextafter(below, np.float32(0)))) / 2)
    votes = _read(write(table))
    np.testing.assert_array_equal(votes.targets, [[np.float32(row[name]) for name in COLUMNS] for row in table])


def test_columns_are_matched_by_name_in_any_order(table: Table, write: Write) -> None:
    expected = _read(write(table))
    shuffled = random.Random(0).sample(list(table[0]), len(table[0]))
    assert shuffled != list(table[0])
    votes = _read(write(table, shuffled))
    np.testing.assert_array_equal(votes.targets, expected.targets)
    np.testing.assert_array_equal(votes.galaxy_ids, expected.galaxy_ids)


def test_kaggles_other_spelling_and_columns_of_ones_own_are_taken(table: Table, write: Write) -> None:
    rows = [{"GalaxyId" if name == "GalaxyID" else name: value for name, value in row.items()} for row in table]
    votes = _read(write([{**row, "redshift": "", "note": "good"} for row in rows]))
    assert votes.galaxy_ids.tolist() == [int(row["GalaxyID"]) for row in table]
    assert votes.targets.shape == (24, 37)


def test_missing_columns_are_named(table: Table, write: Write) -> None:
    rule = (
        "it must have GalaxyID and the 37 columns Class1.1 to Class11.6 of tree kaggle, the nearest; "
        "for a survey of your own give --tree FILE"
    )
    without = [name for name in table[0] if name not in ("GalaxyID", "Class3.2")]
    assert _refused(write(table, without)) == f"lacks GalaxyID, Class3.2: {rule}"
    most = _refused(write(table, ["GalaxyID", "Class1.1"]))
    assert most == f"lacks Class1.2, Class1.3, Class2.1, Class2.2 and 32 more: {rule}"


def test_two_rows_for_one_galaxy_are_refused_with_the_galaxy(table: Table, write: Write) -> None:
    assert _refused(write([*table, table[3]])) == "more than one row for galaxy 100021: keep one row per galaxy"
    assert _refused(write(table + table)) == (
        "more than one row for galaxies 100000, 100007, 100014 and 21 more: keep one row per galaxy"
    )


@pytest.mark.parametrize("text", ["", "nan", "NA", "inf", "-inf"])
def test_a_value_that_is_blank_or_infinite_is_refused_with_galaxy_and_column(table: Table, write: Write, text: str) -> None:
    table[2]["Class4.1"] = text
    assert _refused(write(table)) == "values missing or not finite for galaxy 100014, first in Class4.1: correct them"


@pytest.mark.parametrize("text", ["-0.01", "-2e-3", "1.01", "57"])
def test_a_value_outside_0_to_1_is_refused_with_galaxy_and_column(table: Table, write: Write, text: str) -> None:
    table[2]["Class4.1"] = text
    assert _refused(write(table)) == "values outside 0 to 1 for galaxy 100014, first in Class4.1: correct them"


@pytest.mark.parametrize("text", ["-1e-9", "-1e-3"])
def test_a_value_below_0_by_no_more_than_rounding_counts_as_0(table: Table, write: Write, text: str) -> None:
    row = table[2]
    row["Class8.1"], row["Class8.2"] = text, repr(float(row["Class8.1"]) + float(row["Class8.2"]))
    targets = _read(write(table)).targets[2]
    assert targets[COLUMNS.index("Class8.1")] == 0 and not np.signbit(targets).any()
    assert targets[COLUMNS.index("Class8.2")] == np.float32(row["Class8.2"])


def _add(row: dict[str, str], column: str, change: float) -> None:
    """Add `change` to a column, or subtract it if the value is close to 1."""
    value = float(row[column])
    row[column] = repr(value + change if value < 0.9 else value - change)


@pytest.mark.parametrize(("column", "question", "parent"), [("Class3.1", 3, "Class2.2"), ("Class6.2", 6, "1")])
def test_broken_sums_are_refused_with_galaxy_and_question(
    table: Table, write: Write, column: str, question: int, parent: str
) -> None:
    _add(table[2], column, 0.002)
    expected = f"the columns of question {question} do not add up to {parent} for galaxy 100014: correct the table"
    assert _refused(write(table)) == expected


def test_sums_that_are_slightly_off_are_taken_with_a_warning(table: Table, write: Write) -> None:
    for row in table[:5]:
        _add(row, "Class11.6", 0.0005)
    path = write(table)
    votes = _read(path)
    galaxies = "galaxies 100000, 100007, 100014 and 2 more"
    rule = "the columns of question 11 do not add up to Class4.1"
    assert votes.warnings == (f"{path}: {rule} within 1e-05 for {galaxies}",)
    assert votes.targets[0, -1] == np.float32(table[0]["Class11.6"])


NOT_WHOLE = "which is not a whole number: correct it"
NOT_LIKE_OTHERS = "which is not a whole number as others are: correct it"
LOST = (
    "whose last digits are lost, as in a spreadsheet or a float: export the table again with this column as text or as "
    "whole numbers"
)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("100014.5", NOT_WHOLE), ("100014,5", NOT_WHOLE), ("spiral", NOT_LIKE_OTHERS), ("True", NOT_LIKE_OTHERS),
        ("1e5", LOST), ("5.87723E+17", LOST), ("5,87723E+17", LOST), ("587722984435351614.0", LOST),
        ("-9007199254740993.0", LOST),
    ],
)  # fmt: skip
def test_an_id_that_is_no_whole_number_or_has_lost_digits_is_refused_with_its_row(
    table: Table, write: Write, text: str, what: str
) -> None:
    table[2]["GalaxyID"] = text
    assert _refused(write(table)) == f"GalaxyID holds {text} in row 3 below the header, {what}"


def test_a_missing_id_is_refused_with_its_row(table: Table, write: Write) -> None:
    table[2]["GalaxyID"] = ""
    assert _refused(write(table)) == "GalaxyID is missing in row 3 below the header: correct it"


@pytest.mark.parametrize("text", ["100014.0", "100014.000", "100014.jpg", "100014.PNG", "1.00014e+05", "1.00014E5", " 100014 "])
def test_a_number_written_in_another_way_is_the_number(table: Table, write: Write, text: str) -> None:
    expected = _read(write(table))
    table[2]["GalaxyID"] = text
    votes = _read(write(table))
    np.testing.assert_array_equal(votes.galaxy_ids, expected.galaxy_ids)
    np.testing.assert_array_equal(votes.targets, expected.targets)


@pytest.mark.parametrize("number", [2**53, 2**53 + 1, 587722984435351614, 2**63 - 1])
def test_whole_numbers_are_read_to_the_last_digit(table: Table, write: Write, number: int) -> None:
    table[2]["GalaxyID"] = str(number)
    assert _read(write(table)).galaxy_ids[-1] == number


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64])
def test_ids_beyond_63_bits_are_texts(table: Table, write: Write, number: int) -> None:
    table[0]["GalaxyID"] = str(number)
    assert solutions.read_table("votes.csv", write(table[:2]).read_bytes()).ids.tolist() == [str(number), "100007"]


def test_leading_zeros_make_all_ids_names(table: Table, write: Write) -> None:
    table[0]["GalaxyID"] = "0100000"
    assert solutions.read_table("votes.csv", write(table[:2]).read_bytes()).ids.tolist() == ["0100000", "100007"]


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(",".join(["GalaxyID", *COLUMNS]) + "\n")
    assert _refused(path) == "has no rows: it must have one per galaxy"


def test_both_spellings_of_the_id_at_once_are_refused(table: Table, write: Write) -> None:
    both = "has both a column GalaxyID and a column GalaxyId: remove one"
    assert _refused(write([{**row, "GalaxyId": row["GalaxyID"]} for row in table])) == both


def test_both_spellings_of_a_column_of_votes_are_refused(table: Table, write: Write) -> None:
    both = "has both a column Class1.1 and a column class1.1: remove one"
    assert _refused(write([{**row, "class1.1": row["Class1.1"]} for row in table])) == both


@pytest.mark.parametrize("change", [str.lower, str.upper, str.swapcase])
def test_columns_are_found_in_other_case(table: Table, write: Write, change: Callable[[str], str]) -> None:
    expected = _read(write(table))
    votes = _read(write([{change(name): value for name, value in row.items()} for row in table]))
    np.testing.assert_array_equal(votes.targets, expected.targets)


def test_a_comma_too_many_in_every_row_is_refused(survey: Path, tmp_path: Path) -> None:
    header, *rows = (survey / "training_solutions_rev1.csv").read_text().splitlines()
    path = tmp_path / "votes.csv"
    path.write_text("\n".join([header, *(f"{row},0" for row in rows)]) + "\n")
    what = "row 1 below the header has more values than the header has columns: check the separators"
    assert _refused(path) == what


def test_rows_are_sorted_by_galaxy_whatever_their_order_in_the_file(table: Table, write: Write) -> None:
    expected = _read(write(table))
    votes = _read(write(random.Random(0).sample(table, len(table))))
    assert votes.galaxy_ids.tolist() == sorted(int(row["GalaxyID"]) for row in table)
    np.testing.assert_array_equal(votes.galaxy_ids, expected.galaxy_ids)
    np.testing.assert_array_equal(votes.targets, expected.targets)


def test_the_messages_call_the_table_by_the_given_name(survey: Path) -> None:
    content = (survey / "training_solutions_rev1.csv").read_bytes()
    name = "kaggle.zip/training_solutions_rev1.csv"
    with pytest.raises(SourceError) as caught:
        _votes(name, content.replace(b"Class1.1", b"Class0.0"))
    assert str(caught.value).startswith(f"{name}: lacks Class1.1: ")
    assert _votes(name, content).sha256 == hashlib.sha256(content).hexdigest()


IDS = st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 30), max_size=40, unique=True)


@given(IDS, IDS)
def test_rows_and_targets_are_those_of_each_galaxy_and_none_for_others(listed: list[int], asked: list[int]) -> None:
    ids = np.array(sorted(listed), np.int64)
    targets = np.random.default_rng(0).random((len(ids), len(COLUMNS)), np.float32)
    votes = solutions.Votes(ids, targets, "", ())
    rows, (of, counts) = votes.rows(np.array(asked, np.int64)), votes.of(np.array(asked, np.int64))
    assert counts is None
    assert rows.tolist() == [sorted(listed).index(galaxy_id) if galaxy_id in listed else -1 for galaxy_id in asked]
    assert of.dtype == np.float32
    assert of.shape == (len(asked), len(COLUMNS))
    for row, found in zip(rows, of, strict=True):
        np.testing.assert_array_equal(found, targets[row] if row >= 0 else np.full(len(COLUMNS), np.nan))


def test_a_galaxy_may_be_asked_for_twice_and_in_any_order(table: Table, write: Write) -> None:
    votes = _read(write(table))
    assert votes.rows(np.array([100021, 100000, 100021, 7])).tolist() == [3, 0, 3, -1]
    np.testing.assert_array_equal(votes.of(np.array([100021, 100000, 100021]))[0], votes.targets[[3, 0, 3]])


def test_the_table_of_a_source_without_votes_knows_no_galaxy() -> None:
    votes = solutions.no_votes()
    assert (len(votes.galaxy_ids), votes.targets.shape, votes.sha256, votes.warnings) == (0, (0, 37), "", ())
    ids = np.array([0, 100008, 2**63 - 1])
    assert votes.rows(ids).tolist() == [-1, -1, -1]
    of, asked = votes.of(ids)
    assert asked is None
    assert of.dtype == np.float32
    assert of.shape == (3, 37) and np.isnan(of).all()
    assert votes.of(ids[:0])[0].shape == (0, 37)


@pytest.mark.parametrize("column", ["GalaxyID", "Class1.1", "Class11.6"])
def test_a_column_that_comes_twice_is_refused_by_name(table: Table, tmp_path: Path, column: str) -> None:
    path = tmp_path / "votes.csv"
    rows = [[*table[0], column], *([*row.values(), row[column]] for row in table)]
    path.write_text("".join(f"{','.join(row)}\n" for row in rows))
    assert _refused(path) == f"has the column {column} more than once: remove all but one"
