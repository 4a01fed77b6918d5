"""The trees that we bring are those of the papers that they name and of the real tables at hand."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tfrecords.builtin import FOLDER, builtin_names, builtin_tree
from tfrecords.tree import Layout, Tree

SHARED = Path(__file__).parents[3] / "shared"
# The tables of which we have real rows.
TABLES = {
    "gz2": "surveys/gz2/gz2_hart16.csv",
    "decals5": "surveys/decals/gz_decals_volunteers_5.csv",
    "kaggle": "kaggle/training_solutions_rev1.csv",
}


def test_every_tree_of_ours_names_its_paper_and_where_it_was_read() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == {*builtin_names()}
    assert builtin_names()[0] == "kaggle"
    for name in builtin_names():
        tree = builtin_tree(name)
        comment = tree.text.partition("\nname")[0]
        assert tree.name == name and tree.title and tree.id and tree.url.startswith("https://")
        assert "et al. 20" in tree.citation and "# Read from " in comment
        assert all(line.startswith("#") for line in comment.splitlines())
        # The paper that is cited first is one of those that the comment names.
        assert tree.citation.split(",")[0] in comment


def test_only_trees_with_published_classes_and_scores_have_any() -> None:
    assert {name for name in builtin_names() if builtin_tree(name).classes} == {"kaggle", "gz2"}
    assert {name for name in builtin_names() if builtin_tree(name).scores} == {"kaggle"}
    gz2, kaggle = builtin_tree("gz2"), builtin_tree("kaggle")
    assert [(m.name, m.columns, m.describe) for m in gz2.classes] == [(m.name, m.columns, m.describe) for m in kaggle.classes]


def test_gz2_asks_kaggles_questions_in_kaggles_order_but_nothing_more_after_a_star() -> None:
    gz2, kaggle = builtin_tree("gz2"), builtin_tree("kaggle")
    assert [(q.key, q.title, q.words, q.answers, q.phrases) for q in gz2.questions] == [
        (q.key, q.title, q.words, q.answers, q.phrases) for q in kaggle.questions
    ]
    differing = [q.key for q, other in zip(gz2.questions, kaggle.questions, strict=True) if q.parents != other.parents]
    assert differing == ["6"] and gz2.questions[5].parents == (0, 1)


@pytest.mark.parametrize("name", ["decals12", "decals5", "desi", "euclid"])
def test_later_surveys_ask_whether_a_galaxy_merges_of_all_who_see_a_galaxy(name: str) -> None:
    tree = builtin_tree(name)
    merging = next(question for question in tree.questions if question.title == "merging")
    assert [tree.questions[0].answers[parent] for parent in merging.parents] == ["smooth", "featured or disk"]


def test_no_two_trees_of_ours_fit_the_same_table() -> None:
    for name in builtin_names():
        for other in builtin_names():
            if other != name:
                needed = [_needed(builtin_tree(name), layout) for layout in builtin_tree(name).layouts]
                offered = set().union(*(_needed(builtin_tree(other), layout) for layout in builtin_tree(other).layouts))
                assert not any(columns <= offered for columns in needed), (name, other)


def _needed(tree: Tree, layout: Layout) -> set[str]:
    return {tree.id, *(f"{column}{layout.suffix}" for column in tree.columns)}


def _table(name: str) -> list[dict[str, str]]:
    path = SHARED / TABLES[name]
    if not path.exists():
        pytest.skip(f"{path} is missing: real tables are not part of the repository")
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _values(rows: list[dict[str, str]], columns: list[str]) -> np.ndarray:
    """(rows, columns), NaN if blank."""
    return np.array([[float(row[column] or "nan") for column in columns] for row in rows])


@pytest.mark.parametrize("name", TABLES)
def test_the_real_table_has_every_column_of_every_layout_and_no_answer_more(name: str) -> None:
    tree, rows = builtin_tree(name), _table(name)
    header = list(rows[0])
    assert (SHARED / TABLES[name]).name in tree.tables
    for layout in tree.layouts:
        assert {tree.id, *(f"{column}{layout.suffix}" for column in tree.columns)} <= {*header}
        if layout.total:
            assert [f"{question.key}{layout.total}" for question in tree.questions] == [
                c for c in header if c.endswith(layout.total)
            ]
    # All columns of answers, in the order of the table.
    suffix = {"gz2": "_count", "decals5": "_fraction", "kaggle": ""}[name]
    prefix = {"gz2": "t", "decals5": "", "kaggle": "Class"}[name]
    answers = [column for column in header if column.startswith(prefix) and column.endswith(suffix)]
    assert [f"{column}{suffix}" for column in tree.columns] == answers


def test_the_second_table_of_gz2_maps_its_galaxies_to_files() -> None:
    files = builtin_tree("gz2").files
    assert files is not None
    path = SHARED / "surveys/gz2" / files.table
    if not path.exists():
        pytest.skip(f"{path} is missing: real tables are not part of the repository")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row[files.id] for row in rows} == {row["dr7objid"] for row in _table("gz2")}
    assert {row[files.file] for row in rows} == {image.stem for image in (path.parent / "images").iterdir()}


def _led(tree: Tree, counts: np.ndarray) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    """For each question that not everyone is asked: how many answered, and how many gave an answer that leads to it."""
    return {
        question.key: (counts[:, question.columns].sum(axis=1), counts[:, list(question.parents)].sum(axis=1))
        for question in tree.questions
        if question.parents
    }


def test_in_real_rows_of_gz2_whoever_is_led_to_a_question_answers_it() -> None:
    tree, rows = builtin_tree("gz2"), _table("gz2")
    counts = _values(rows, [f"{column}_count" for column in tree.columns])
    for key, (answered, led) in _led(tree, counts).items():
        assert answered.tolist() == led.tolist(), key
    assert counts[:, tree.questions[0].columns].sum(axis=1).tolist() == [float(row["total_classifications"]) for row in rows]
    # The third galaxy was a star for one of 34: with Kaggle's tree its 33 answers to question 6 would not add up.
    assert counts[2, tree.questions[5].columns].sum() == 33 != counts[2, tree.questions[0].columns].sum()


def test_in_real_rows_of_decals_the_total_of_a_question_is_how_many_were_led_to_it() -> None:
    tree, rows = builtin_tree("decals5"), _table("decals5")
    counts = _values(rows, list(tree.columns))
    totals = _values(rows, [f"{question.key}_total-votes" for question in tree.questions])
    for key, (answered, led) in _led(tree, counts).items():
        place = next(question.index for question in tree.questions if question.key == key)
        assert totals[:, place].tolist() == led.tolist(), key
        assert (answered <= led).all()
        # Early galaxies were shown other answers to the question on merging, which the table does not list.
        fewer = (np.flatnonzero(answered < led) + 1).tolist()
        assert fewer == ([3, 6] if key == "merging" else []), key


@pytest.mark.parametrize(("name", "layout"), [("gz2", "fractions"), ("gz2", "debiased"), ("decals5", "fractions")])
def test_real_fractions_of_a_question_add_up_to_1_within_the_tolerance_of_their_layout(name: str, layout: str) -> None:
    tree, rows = builtin_tree(name), _table(name)
    (kind,) = [one for one in tree.layouts if one.name == layout]
    values = _values(rows, [f"{column}{kind.suffix}" for column in tree.columns])
    sums = np.stack([values[:, question.columns].sum(axis=1) for question in tree.questions], axis=1)
    answered = np.nan_to_num(sums) > 0
    if name == "decals5":
        answered[[2, 5], -1] = False  # merging
    if kind.normalise:
        assert np.abs(sums[answered] - 1).max() > 0.25
    else:
        assert np.abs(sums[answered] - 1).max() < kind.warning
