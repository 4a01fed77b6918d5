"""The table of votes is read exactly to the last bit, and refused as a whole if it cannot be right."""

import csv
import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess import solutions
from preprocess.fitting import ANYTHING, ID_COLUMNS, Wanted
from tests.conftest import random_counts
from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.errors import SourceError
from tfrecords.files import sha256_file
from tfrecords.tree import Tree
from tfrecords.treefile import parse_tree

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
    rows = [[*row.values(), row[column]] for row in table]
    path.write_bytes(_csv([[*table[0], column], *rows]))
    assert _refused(path) == f"has the column {column} more than once: remove all but one"


# Tables of any tree


def _csv(rows: list[list[object]]) -> bytes:
    return "".join(f"{','.join(map(str, row))}\n" for row in rows).encode()


def _counts_of(name: str, galaxies: int = 5) -> list[list[object]]:
    """A table of counts with the columns of one of our trees: header and rows."""
    tree = builtin_tree(name)
    layout = next(one for one in tree.layouts if one.kind == "counts")
    counts = random_counts(galaxies, np.random.default_rng(0), tree)
    ids = [100 + row if name == "gz2" else f"J{row}" for row in range(galaxies)]
    rows = [[galaxy_id, *row] for galaxy_id, row in zip(ids, counts.tolist(), strict=True)]
    return [[tree.id, *(f"{column}{layout.suffix}" for column in tree.columns)], *rows]


def _rings(text: str = "") -> Tree:
    return parse_tree(f'{text}\n[[question]]\nkey = "ring"\nanswers = {{ yes = "ring" }}\nrest = "no"\n', "rings.toml", "rings")


def _refused_table(rows: list[list[object]], tree: Tree | None = None, layout: str = "") -> str:
    with pytest.raises(SourceError) as caught:
        solutions.read_table("votes.csv", _csv(rows), Wanted(tree, layout))
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix("votes.csv: ")


@pytest.mark.parametrize("name", [name for name in builtin_names() if name != "kaggle"])
def test_the_tree_of_a_table_is_recognised_by_its_columns(name: str) -> None:
    rows = _counts_of(name)
    if name not in ("desi", "euclid", "gz2"):
        assert any(layout.total for layout in builtin_tree(name).layouts)  # totals are optional
    table = solutions.read_table("votes.csv", _csv(rows))
    assert (table.fit.tree, table.fit.layout.kind, table.fit.id) == (builtin_tree(name), "counts", builtin_tree(name).id)
    np.testing.assert_array_equal(
        table.asked[:, 0], [sum(row[1 : 1 + len(table.fit.tree.questions[0].answers)]) for row in rows[1:]]
    )  # type: ignore[arg-type,index]
    named = solutions.read_table("votes.csv", _csv(rows), Wanted(builtin_tree(name), "counts"))
    np.testing.assert_array_equal(named.targets, table.targets)


def test_a_table_of_kaggle_has_no_numbers_of_answers(survey: Path) -> None:
    votes = _read(survey / "training_solutions_rev1.csv")
    assert votes.asked is None and votes.tree == builtin_tree() and votes.layout == "cumulative"


def test_a_table_that_fits_no_tree_is_refused_with_what_it_lacks_of_the_nearest() -> None:
    rows = _counts_of("decals5")
    bar = rows[0].index("bar_weak")
    rows = [[*row[:bar], *row[bar + 1 :]] for row in rows]
    rule = "it must have iauname and the 34 columns smooth-or-featured_smooth to merging_merger"
    assert _refused_table(rows) == (
        f"lacks bar_weak: {rule} of tree decals5, the nearest; for a survey of your own give --tree FILE"
    )
    assert _refused_table(rows, builtin_tree("decals5")) == f"lacks bar_weak: {rule}"
    assert _refused_table(rows, builtin_tree("decals5"), "debiased").startswith(
        "lacks smooth-or-featured_smooth_debiased, smooth-or-featured_featured-or-disk_debiased, "
    )
    assert _refused_table([["iauname", "ring"], ["J1", 0.5]], builtin_tree("gz2")).startswith("lacks t01_")


def test_a_table_that_fits_two_trees_is_refused_until_one_is_chosen() -> None:
    first, second = _counts_of("decals5"), _counts_of("desi")
    both = [[*one, *other] for one, other in zip(first, second, strict=True)]
    assert _refused_table(both) == "fits more than one tree (decals5, desi): choose one with --tree"
    chosen = solutions.read_table("votes.csv", _csv(both), Wanted(builtin_tree("desi")))
    np.testing.assert_array_equal(chosen.targets, solutions.read_table("votes.csv", _csv(second)).targets)


def test_votes_that_no_tree_describes_are_refused_with_those_there_are() -> None:
    rows = _counts_of("gz2")
    assert _refused_table(rows, builtin_tree("gz2"), "biased") == (
        "--votes biased: tree gz2 has no such votes: choose from counts, debiased, fractions"
    )
    assert _refused_table(rows, None, "biased") == (
        "--votes biased: our trees have no such votes: choose from counts, cumulative, debiased, fractions"
    )


def test_a_table_without_ids_is_refused_with_their_usual_names_or_that_of_its_tree() -> None:
    assert _refused_table([["ring"], [0.5]], _rings()) == (
        f"lacks an id ({', '.join(ID_COLUMNS)}; or name its column with --id_column): it must have an id and the column ring"
    )
    assert _refused_table([["nom", "ring"], ["a", 0.5]], _rings('id = "objid"')) == (
        "lacks objid: it must have objid and the column ring"
    )


@pytest.mark.parametrize("blank", ["", "  "])
@pytest.mark.parametrize("other", ["M 51", "7"], ids=["names", "numbers"])
def test_a_blank_id_is_refused_with_its_row(blank: str, other: str) -> None:
    rows: list[list[object]] = [["name", "ring"], [other, 0.5], [blank, 0.25], ["9", 0.25]]
    assert _refused_table(rows, _rings()) == "name is missing in row 2 below the header: correct it"


def test_ids_are_texts_as_they_are_written_unless_all_are_whole_numbers() -> None:
    rows: list[list[object]] = [["name", "ring"], ["NA", 0.5], ["007", 0.25], ["1.50", 0.75], [" nan ", 1]]
    assert solutions.read_table("votes.csv", _csv(rows), Wanted(_rings())).ids.tolist() == ["NA", "007", "1.50", "nan"]
    assert solutions.read_table("votes.csv", _csv([["name", "ring"], ["7", 0.5]]), Wanted(_rings())).ids.tolist() == [7]
    zeros = _csv([["name", "ring"], ["007", 0.5], ["8", 0.5]])
    assert solutions.read_table("votes.csv", zeros, Wanted(_rings())).ids.tolist() == ["007", "8"]


def test_two_rows_for_one_name_are_refused_with_the_name() -> None:
    rows: list[list[object]] = [["name", "ring"], ["M 51", 0.5], ["M 31", 0.25], ["M 51", 0.25]]
    assert _refused_table(rows, _rings()) == "more than one row for galaxy M 51: keep one row per galaxy"


def test_two_rows_of_one_image_are_refused_with_both_ids() -> None:
    rows: list[list[object]] = [["name", "ring"], ["M51.jpg", 0.5], ["b/M51.jpg", 0.25], ["M31", 1]]
    table = solutions.read_table("votes.csv", _csv(rows), Wanted(_rings()))
    with pytest.raises(SourceError) as caught:
        table.votes(np.array([5, 5, 6]))
    rule = "keep one row per galaxy"
    assert str(caught.value) == f"votes.csv: galaxies M51.jpg, b/M51.jpg belong to one image: {rule}"


def test_rows_without_an_image_are_counted_and_left_out() -> None:
    rows: list[list[object]] = [["name", "ring"], ["a", 0.5], ["b", 0.25], ["c", 1], ["d", 0]]
    votes = solutions.read_table("votes.csv", _csv(rows), Wanted(_rings())).votes(np.array([9, -1, 4, -1]))
    assert (votes.galaxy_ids.tolist(), votes.unmatched, votes.id_column) == ([4, 9], 2, "name")
    np.testing.assert_array_equal(votes.targets, [[1, 0], [0.5, 0.5]])


@pytest.mark.parametrize(("wanted", "ids"), [
    (ANYTHING, ["a"]), (Wanted(id_column="file"), ["a.jpg"]), (Wanted(id_column="FILE"), ["a.jpg"]),
    (Wanted(path_column="where"), ["x/a.jpg"]), (Wanted(id_column="file", path_column="where"), ["x/a.jpg"]),
])  # fmt: skip
def test_ids_come_from_the_column_asked_for_else_from_the_first_of_the_usual_names(wanted: Wanted, ids: list[str]) -> None:
    rows: list[list[object]] = [["where", "file", "ring", "name"], ["x/a.jpg", "a.jpg", 0.5, "a"]]
    wanted = replace(wanted, tree=_rings())
    assert solutions.read_table("votes.csv", _csv(rows), wanted).ids.tolist() == ids


def test_a_column_of_ids_that_is_not_there_is_refused_by_name() -> None:
    rows: list[list[object]] = [["name", "ring"], ["a", 0.5]]
    for wanted in (Wanted(_rings(), id_column="nmae"), Wanted(_rings(), path_column="nmae")):
        with pytest.raises(SourceError) as caught:
            solutions.read_table("votes.csv", _csv(rows), wanted)
        assert str(caught.value) == "votes.csv: lacks nmae: it must have nmae and the column ring"


def test_a_table_without_rows_or_without_any_votes_is_refused() -> None:
    header = _counts_of("gz2")[0]
    assert _refused_table([header]) == "has no rows: it must have one per galaxy"
    assert _refused_table([header, [7, *[0] * 37], [8, *[""] * 37]]) == "no galaxy has any votes: check the table"


def test_galaxies_on_which_nobody_voted_have_no_votes() -> None:
    rows = _counts_of("gz2")
    rows[2][1:] = [0] * 37
    rows[4][1:] = [""] * 37
    votes = _votes("votes.csv", _csv(rows))
    assert votes.galaxy_ids.tolist() == [100, 102, 104]
    assert votes.warnings == ("votes.csv: no votes, so unlabelled: galaxies 101, 103",)
    targets, asked = votes.of(np.array([101, 102]))
    assert np.isnan(targets[0]).all() and not np.isnan(targets[1]).any()
    assert asked is not None and asked.dtype == np.float32 and not asked[0].any() and asked[1].any()


@pytest.mark.parametrize(("value", "what"), [
    ("many", "bar_weak holds many in row 3 below the header, which is not a number: correct it, or leave it blank"),
    ("", "values missing or not finite for galaxy J2, first in bar_weak: correct them"),
    ("-1", "values below 0 for galaxy J2, first in bar_weak: correct them"),
    ("inf", "values missing or not finite for galaxy J2, first in bar_weak: correct them"),
    ("1000", "more volunteers answered question bar than gave the answers that lead to it (disk-edge-on_no) for galaxy J2: "
             "correct the table, or after in the tree"),
])  # fmt: skip
def test_a_count_that_cannot_be_right_is_refused_with_its_column(value: str, what: str) -> None:
    rows = _counts_of("decals5")
    rows[3][rows[0].index("bar_weak")] = value
    assert _refused_table(rows) == what


def test_a_second_table_is_read_as_text_and_refused_if_a_column_is_missing() -> None:
    tree = builtin_tree("gz2")
    content = b"objid,sample,asset_id\n587737825678131439,original,0106587\n 8 ,x,\n9,x,NA\n"
    assert solutions.read_files("map.csv", content, tree) == [("587737825678131439", "0106587"), ("8", ""), ("9", "NA")]
    for column in ("objid", "asset_id"):
        with pytest.raises(SourceError) as caught:
            solutions.read_files("map.csv", content.replace(column.encode(), b"other"), tree)
        rule = "which maps the votes of tree gz2 to image files: add it"
        assert str(caught.value) == f"map.csv: lacks the column {column}, {rule}"
