"""Tables of predictions have Kaggle's format and optional columns, and never replace somebody else's file."""

import csv
import errno
import os
import re
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import random_votes
from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.errors import ConfigError, RunError, SettingError
from tfrecords.treefile import parse_tree
from trainer.images.cutouts import UnreadableImage
from trainer.run import Run
from trainer.tables import (
    ExtraColumns,
    Predictions,
    concentration_columns,
    extra_columns,
    hubble_classes,
    hubble_details,
    read_csv,
    refuse_other_table,
    write_csv,
    write_rejected,
)

if TYPE_CHECKING:
    from tfrecords.reader import SplitVotes

TREE, DECALS = builtin_tree(), builtin_tree("decals5")
PREDICTIONS = Predictions(
    np.array([3, 20, 2**62]), np.linspace(0, 1, 3 * 37, dtype=np.float32).reshape(3, 37), np.full((3, 37), np.nan, np.float32)
)
NAMES = np.array(["a\rb", "=HYPERLINK(1)", "\x1b[31mred\n"], object)

THRESHOLDS = st.floats(0.5, 1, exclude_min=True)
SEEDS = st.integers(0, 2**32 - 1)


def _stored(predictions: Predictions, order: list[int] | None = None) -> "SplitVotes":
    """The votes of the galaxies of a table as the records hold them, in this order."""
    from tfrecords.reader import SplitVotes

    columns = (predictions.galaxy_ids, predictions.targets, predictions.asked, predictions.names)
    return SplitVotes(*(column if column is None or order is None else column[order] for column in columns))


def _votes(**columns: float) -> np.ndarray:
    """One galaxy, (1, 37): _votes(Class1_1=0.9)."""
    votes = np.zeros((1, 37), np.float32)
    for name, value in columns.items():
        votes[0, TREE.index[name.replace("_", ".")]] = value
    return votes


def _on_the_tree(seed: int) -> np.ndarray:
    """20 galaxies whose votes obey the tree, including clear answers."""
    generator = np.random.default_rng(seed)
    votes = np.zeros((20, 37))
    for question in TREE.questions:
        answers = generator.dirichlet(np.full(question.stop - question.start, 0.2), 20)
        votes[:, question.columns] = answers * TREE.reached(votes, question)[:, None]
    return votes


ELLIPTICAL = {"Class1_1": 0.8, "Class7_1": 0.1, "Class7_2": 0.6, "Class7_3": 0.1}
SPIRAL = {"Class4_1": 0.9, "Class3_2": 0.7, "Class10_1": 0.6, "Class11_2": 0.5}
BARRED = {"Class4_1": 0.9, "Class3_1": 0.7, "Class10_3": 0.6, "Class11_6": 0.5}


@pytest.mark.parametrize(
    ("columns", "name", "detail"),
    [
        (ELLIPTICAL, "elliptical", "in between"),
        ({"Class1_1": 0.8, "Class7_3": 0.8}, "elliptical", "cigar"),
        (SPIRAL, "spiral", "tight, 2 arms"),
        ({**SPIRAL, "Class11_1": 0.6}, "spiral", "tight, 1 arm"),
        ({**SPIRAL, "Class10_2": 0.7, "Class11_5": 0.6}, "spiral", "medium, more than 4 arms"),
        (BARRED, "barred spiral", "loose, can't tell how many arms"),
        ({"Class1_1": 0.59, "Class7_1": 0.59}, "uncertain", ""),
        ({"Class4_1": 0.9, "Class3_1": 0.45, "Class3_2": 0.45, "Class10_1": 0.9}, "uncertain", ""),
    ],
)
def test_a_galaxy_is_named_by_its_class_and_its_most_voted_details(columns: dict[str, float], name: str, detail: str) -> None:
    votes = _votes(**columns)
    assert hubble_classes(votes, 0.6, TREE) == [name]
    assert hubble_details(votes, [name], TREE) == [detail]


def test_a_column_at_the_threshold_is_in_the_class() -> None:
    for threshold in (0.51, 0.6, 0.9, 1.0):  # as float32 some are a little less than in float64
        assert hubble_classes(_votes(Class1_1=threshold), threshold, TREE) == ["elliptical"]
        assert hubble_classes(_votes(Class1_1=threshold - 1e-4), threshold, TREE) == ["uncertain"]


@given(SEEDS, THRESHOLDS)
def test_of_votes_on_the_tree_no_galaxy_is_in_two_classes(seed: int, threshold: float) -> None:
    votes = _on_the_tree(seed)
    inside = np.stack([TREE.in_class(votes, member, threshold) for member in TREE.classes], axis=1)
    assert inside.sum(axis=1).max() <= 1
    expected = [TREE.classes[row.argmax()].name if row.any() else "uncertain" for row in inside]
    assert hubble_classes(votes, threshold, TREE) == expected


def test_of_two_classes_that_pass_off_the_tree_the_higher_score_counts() -> None:
    assert hubble_classes(_votes(**{**SPIRAL, "Class1_1": 0.65}), 0.6, TREE) == ["spiral"]
    assert hubble_classes(_votes(**{**SPIRAL, "Class1_1": 0.75}), 0.6, TREE) == ["elliptical"]


@pytest.mark.parametrize("threshold", [0.5, 0.4, 0.0, -1.0, 1.01, float("nan")])
def test_a_threshold_at_which_classes_could_overlap_is_refused(threshold: float) -> None:
    with pytest.raises(SettingError, match=r"--threshold .*: must be above 0\.5, so that classes exclude one another"):
        hubble_classes(_votes(), threshold, TREE)


def test_no_columns_are_added_that_were_not_asked_for() -> None:
    extra = extra_columns(_votes(**SPIRAL), None, False, TREE)
    assert (extra.names, extra.rows) == ((), ())


def test_both_kinds_of_columns_stand_side_by_side() -> None:
    votes = np.concatenate([_votes(**SPIRAL), _votes(**ELLIPTICAL)])
    extra = extra_columns(votes, 0.6, True, TREE)
    assert extra.names == ("hubble", "hubble_detail", *(name.replace("Class", "Conditional") for name in TREE.columns))
    assert [row[:2] for row in extra.rows] == [("spiral", "tight, 2 arms"), ("elliptical", "in between")]
    assert {len(row) for row in extra.rows} == {39}


@given(SEEDS)
def test_a_conditional_column_is_the_share_of_those_asked_and_empty_below_5_percent(seed: int) -> None:
    votes = _on_the_tree(seed)
    extra = extra_columns(votes, None, True, TREE)
    for galaxy, row in zip(votes, extra.rows, strict=True):
        for question in TREE.questions:
            asked = TREE.reached(galaxy[None], question)[0]
            if abs(asked - 0.05) < 1e-9:
                continue
            given = row[question.columns]
            assert {value == "" for value in given} == {bool(asked < 0.05)}
            if asked >= 0.05:
                np.testing.assert_allclose(np.array(given, float), galaxy[question.columns] / asked, atol=2e-9)


def test_no_conditional_column_of_a_prediction_off_the_tree_is_above_1() -> None:
    votes = np.random.default_rng(0).uniform(0, 1, (50, 37))
    values = [float(value) for row in extra_columns(votes, None, True, TREE).rows for value in row if value]
    assert min(values) >= 0 and max(values) <= 1


def test_the_table_is_kaggles_submission_format(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "table.csv"
    write_csv(PREDICTIONS, path)
    lines = path.read_text("ascii").split("\n")
    assert lines[0] == "GalaxyID," + ",".join(TREE.columns) and lines[-1] == ""
    assert [line.split(",")[0] for line in lines[1:-1]] == ["3", "20", str(2**62)]
    assert all(re.fullmatch(r"\d+(,[01]\.\d{9}){37}", line) for line in lines[1:-1])
    values = np.array([line.split(",")[1:] for line in lines[1:-1]], np.float64)
    np.testing.assert_allclose(values, PREDICTIONS.predicted, atol=5e-10)
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]


def test_galaxies_that_have_names_are_shown_by_them(tmp_path: Path) -> None:
    names = ["007", "J112953.88-000427.4", "spirals, old/003"]
    write_csv(replace(PREDICTIONS, names=np.array(names, object)), tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["GalaxyID", *names]


def test_a_table_that_cannot_be_written_whole_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_csv(PREDICTIONS, path)
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_names_break_no_line_and_are_no_formula(tmp_path: Path) -> None:
    write_csv(replace(PREDICTIONS, names=NAMES), tmp_path / "table.csv")
    content = (tmp_path / "table.csv").read_bytes().decode()
    assert len(content.splitlines()) == 4 and "\r" not in content and "\x1b" not in content
    assert [row[0] for row in csv.reader(content.splitlines())][1:] == [
        "a\\rb",
        "'=HYPERLINK(1)",
        "\\x1b[31mred\\n",
    ]
    write_rejected([UnreadableImage("+1.jpg", "+1.jpg", "is\x1b[2J empty")], tmp_path / "table.csv")
    listing = (tmp_path / "table-rejected.csv").read_text()
    assert listing == "GalaxyID,path,reason\n'+1.jpg,'+1.jpg,is\\x1b[2J empty\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("thesis.csv", "chapter,words\n1,4000\n"),
        ("empty.csv", ""),
        ("votes.csv", "GalaxyID," + ",".join(TREE.columns) + "\n100008" + ",0.383147" * 37 + "\n"),
        ("training_solutions_rev1.csv", "GalaxyID," + ",".join(TREE.columns) + "\n100008" + ",0.383147000" * 37 + "\n"),
        ("submission-rejected.csv", "mine"),
    ],
)
def test_a_table_that_predict_did_not_write_is_never_replaced(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    out = tmp_path / name.replace("-rejected", "")
    with pytest.raises(ConfigError, match=rf"{name}: .*choose another --out"):
        refuse_other_table(out)
    assert (tmp_path / name).read_text() == content


def test_a_table_that_a_run_keeps_for_itself_is_never_replaced(tiny_run: Run) -> None:
    with pytest.raises(ConfigError, match=r"predictions-test\.csv: belongs to .*/tiny: choose another --out"):
        refuse_other_table(tiny_run.folder / "predictions-test.csv")


def test_a_table_of_predictions_is_replaced(tmp_path: Path) -> None:
    extra = ExtraColumns(("hubble",), (("spiral",), ("",), ("elliptical",)))
    for more in (ExtraColumns(), extra):
        refuse_other_table(tmp_path / "table.csv")
        write_csv(PREDICTIONS, tmp_path / "table.csv", more)
    write_rejected([UnreadableImage(1, "1.jpg", "is empty")], tmp_path / "table.csv")
    refuse_other_table(tmp_path / "table.csv")


def test_a_table_is_read_back_with_the_votes_in_any_order(tmp_path: Path) -> None:
    write_csv(PREDICTIONS, tmp_path / "table.csv")
    targets = np.arange(3 * 37, dtype=np.float32).reshape(3, 37)
    again = read_csv(tmp_path / "table.csv", TREE, _stored(replace(PREDICTIONS, targets=targets), [2, 0, 1]))
    np.testing.assert_array_equal(again.galaxy_ids, PREDICTIONS.galaxy_ids)
    np.testing.assert_allclose(again.predicted, PREDICTIONS.predicted, atol=6e-10)
    np.testing.assert_array_equal(again.targets, targets)
    assert again.predicted.dtype == np.float32


@pytest.mark.parametrize("change", [("20,", "21,"), ("Class1.1", "Class1,1"), ("20,", "NGC,"), ("0.", "x"), ("3,", "3")])
def test_a_table_that_is_damaged_or_of_other_galaxies_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    path = tmp_path / "table.csv"
    write_csv(PREDICTIONS, path)
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(RunError, match=r"table\.csv: .*: remove it, and run the same command again"):
        read_csv(path, TREE, _stored(PREDICTIONS))
    path.unlink()
    with pytest.raises(RunError, match=r"table\.csv: damaged"):
        read_csv(path, TREE, _stored(PREDICTIONS))


def test_added_columns_stand_behind_those_of_kaggle_which_stay_as_they_are(tmp_path: Path) -> None:
    write_csv(PREDICTIONS, tmp_path / "plain.csv")
    write_csv(PREDICTIONS, tmp_path / "more.csv", extra_columns(PREDICTIONS.predicted, 0.6, True, TREE))
    plain, more = ([*csv.reader((tmp_path / name).open(newline=""))] for name in ("plain.csv", "more.csv"))
    assert [row[:38] for row in more] == plain
    assert more[0][38:42] == ["hubble", "hubble_detail", "Conditional1.1", "Conditional1.2"]
    assert {len(row) for row in more} == {38 + 2 + 37}


def _of_decals(galaxies: int = 3) -> Predictions:
    generator = np.random.default_rng(5)
    concentrations = generator.gamma(2, 20, (galaxies, len(DECALS.questions))).astype(np.float32)
    predicted = random_votes(galaxies, generator, DECALS).astype(np.float32)
    return Predictions(np.arange(galaxies) + 10, predicted, np.full_like(predicted, np.nan), None, concentrations, DECALS)


def test_a_table_has_the_columns_of_its_tree(tmp_path: Path) -> None:
    predictions = _of_decals()
    write_csv(predictions, tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text("ascii").splitlines()
    assert lines[0] == ",".join([DECALS.id, *DECALS.columns])
    assert all(re.fullmatch(r"\d+(,[01]\.\d{9}){34}", line) for line in lines[1:])
    nameless = parse_tree('question = [{key = "q", answers = {a = "q_a", b = "q_b"}}]', "t", "t")
    write_csv(Predictions(np.array([1]), np.full((1, 2), 0.5), np.full((1, 2), 0.5), tree=nameless), tmp_path / "own.csv")
    assert (tmp_path / "own.csv").read_text() == "GalaxyID,q_a,q_b\n1,0.500000000,0.500000000\n"


def test_added_columns_are_named_after_those_of_the_tree(tmp_path: Path) -> None:
    predictions = _of_decals()
    low, high = predictions.predicted - np.float32(0.1), predictions.predicted + np.float32(0.1)
    extra = extra_columns(predictions.predicted, None, True, DECALS, (low, high))
    columns = DECALS.columns
    assert extra.names[:34] == tuple(f"{column}_conditional" for column in columns)
    assert extra.names[34:] == tuple(f"{column}_{end}" for column in columns for end in ("low", "high"))
    for row, of_low, of_high in zip(extra.rows, low, high, strict=True):
        assert list(row[34:]) == [f"{value:.9f}" for both in zip(of_low, of_high, strict=True) for value in both]
    write_csv(predictions, tmp_path / "table.csv", extra)
    refuse_other_table(tmp_path / "table.csv")


def test_a_tree_without_classes_has_no_hubble_columns() -> None:
    with pytest.raises(SettingError, match=r"--hubble: the decision tree decals5 has no classes: remove the flag") as caught:
        extra_columns(_of_decals().predicted, 0.6, False, DECALS)
    assert "\n" not in str(caught.value)


def test_a_galaxy_of_gz2_is_named_as_one_of_kaggle() -> None:
    gz2 = builtin_tree("gz2")
    votes = np.concatenate([_votes(**SPIRAL), _votes(**ELLIPTICAL), _votes(**BARRED)])
    assert [question.answers for question in gz2.questions] == [question.answers for question in TREE.questions]
    classes = hubble_classes(votes, 0.6, gz2)
    assert classes == ["spiral", "elliptical", "barred spiral"]
    assert hubble_details(votes, classes, gz2) == hubble_details(votes, classes, TREE)


def test_concentrations_and_names_and_counts_are_read_back(tmp_path: Path) -> None:
    names = np.array(["=1+1", "J1000.5+1", "\\'"], object)
    asked = np.arange(30, dtype=np.float32).reshape(3, 10)
    predictions, path = replace(_of_decals(), asked=asked, names=names), tmp_path / "table.csv"
    assert predictions.concentrations is not None
    write_csv(predictions, path, concentration_columns(predictions.concentrations, DECALS))
    shown = [row[0] for row in csv.reader(path.open(newline=""))]
    assert shown == ["iauname", "'=1+1", "J1000.5+1", "\\\\'"]
    again = read_csv(path, DECALS, _stored(predictions, [2, 0, 1]))
    np.testing.assert_array_equal(again.concentrations, predictions.concentrations)
    np.testing.assert_allclose(again.predicted, predictions.predicted, atol=6e-10)
    np.testing.assert_array_equal(again.asked, asked)
    assert again.galaxy_ids.tolist() == [10, 11, 12] and again.names is not None and again.names.tolist() == names.tolist()
    write_csv(predictions, path)
    assert read_csv(path, DECALS, _stored(predictions)).concentrations is None


def test_a_table_of_other_names_or_of_another_tree_is_refused(tmp_path: Path) -> None:
    names = np.array(["a", "b", "c"], object)
    predictions, path = replace(_of_decals(), names=names), tmp_path / "table.csv"
    write_csv(predictions, path)
    read_csv(path, DECALS, _stored(predictions))
    others = (None, np.array(["a", "b", "d"], object), np.array(["a", "b", "b"], object))
    for tree, other in ((builtin_tree("desi"), names), *((DECALS, other) for other in others)):
        with pytest.raises(RunError, match=r"table\.csv: lists other galaxies"):
            read_csv(path, tree, _stored(replace(predictions, names=other)))


@given(st.lists(st.text(max_size=8), min_size=1, max_size=6, unique=True), st.randoms())
def test_any_names_are_read_back_from_a_table_in_the_order_of_the_table(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], random: Random
) -> None:
    """An evaluation of an earlier version is sorted by id; the records come in an order of their own."""
    path, several = tmp_path_factory.mktemp("names") / "table.csv", _of_decals(len(texts))
    predictions = replace(several, names=np.array(texts, object), concentrations=None)
    write_csv(predictions, path)
    order = random.sample(range(len(texts)), len(texts))
    again = read_csv(path, DECALS, _stored(predictions, order))
    assert again.names is not None and again.names.tolist() == texts
    np.testing.assert_array_equal(again.galaxy_ids, predictions.galaxy_ids)
    np.testing.assert_allclose(again.predicted, predictions.predicted, atol=6e-10)


@pytest.mark.parametrize("name", [name for name in builtin_names() if name != "kaggle"])
def test_a_table_of_votes_of_any_survey_is_never_replaced(tmp_path: Path, name: str) -> None:
    tree = builtin_tree(name)
    row = "1" + ",0.250000000" * len(tree.columns)
    header = ",".join([tree.files.file if tree.files else tree.id, *tree.columns])
    (tmp_path / "table.csv").write_text(f"{header}\n{row}\n")
    refuse_other_table(tmp_path / "table.csv")  # predictions
    for usual in (*tree.tables, "votes.csv"):
        path = tmp_path / Path(usual).name
        path.write_text(f"{header}\n{row}\n")
        with pytest.raises(ConfigError, match="exists and is not a table of predictions"):
            refuse_other_table(path)
    for content in (f"{header}\n{row.replace('0.250000000', '0.25')}\n", f"{header}_more\n{row}\n", f"x{header}\n{row}\n"):
        (tmp_path / "table.csv").write_text(content)
        with pytest.raises(ConfigError, match="exists and is not a table of predictions"):
            refuse_other_table(tmp_path / "table.csv")


def test_predictions_for_a_tree_of_ones_own_are_replaced_if_the_run_has_that_tree(tmp_path: Path) -> None:
    own = parse_tree('tables = ["mine.csv"]\nquestion = [{key = "q", answers = {a = "q_a", b = "q_b"}}]', "t", "t")
    for name in ("table.csv", "mine.csv"):
        (tmp_path / name).write_text("GalaxyID,q_a,q_b\n1,0.500000000,0.500000000\n")
    refuse_other_table(tmp_path / "table.csv", own)
    for path, tree in ((tmp_path / "table.csv", None), (tmp_path / "mine.csv", own)):
        with pytest.raises(ConfigError, match="exists and is not a table of predictions"):
            refuse_other_table(path, tree)
