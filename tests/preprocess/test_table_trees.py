"""The votes of a table of any tree: its tree is recognised, and a table that cannot be right is refused with what is wrong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from preprocess import solutions
from preprocess.fitting import ANYTHING, ID_COLUMNS, Wanted
from tests.conftest import random_counts
from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.errors import SourceError
from tfrecords.tree import Tree
from tfrecords.treefile import parse_tree


def _votes(path: str, content: bytes) -> solutions.Votes:
    """The votes of a table whose ids are numbers, with an image for each row."""
    ballots = solutions.read_table(path, content)
    assert ballots.ids.dtype == np.int64
    return ballots.votes(ballots.ids)


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
    path = survey / "training_solutions_rev1.csv"
    votes = _votes(str(path), path.read_bytes())
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
