"""Tables of predictions have Kaggle's format and optional columns, and never replace somebody else's file."""

import csv
import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrecords.errors import ConfigError, RunError, SettingError
from tfrecords.taxonomy import COLUMN_INDEX, COLUMNS, HUBBLE_CLASSES, QUESTIONS, hubble_score
from trainer.images.cutouts import UnreadableImage
from trainer.run import Run
from trainer.tables import (
    ExtraColumns,
    Predictions,
    extra_columns,
    hubble_classes,
    hubble_details,
    read_csv,
    refuse_other_table,
    write_csv,
    write_rejected,
)

PREDICTIONS = Predictions(
    np.array([3, 20, 2**62]), np.linspace(0, 1, 3 * 37, dtype=np.float32).reshape(3, 37), np.full((3, 37), np.nan, np.float32)
)
NAMES = {3: "a\rb.jpg", 20: "=HYPERLINK(1).jpg", 2**62: "\x1b[31mred\n.jpg"}

THRESHOLDS = st.floats(0.5, 1, exclude_min=True)
SEEDS = st.integers(0, 2**32 - 1)


def _votes(**columns: float) -> np.ndarray:
    """One galaxy, (1, 37): _votes(Class1_1=0.9)."""
    votes = np.zeros((1, 37), np.float32)
    for name, value in columns.items():
        votes[0, COLUMN_INDEX[name.replace("_", ".")]] = value
    return votes


def _on_the_tree(seed: int) -> np.ndarray:
    """20 galaxies whose votes obey the tree, including clear answers."""
    generator = np.random.default_rng(seed)
    votes = np.zeros((20, 37))
    for question in QUESTIONS:
        answers = generator.dirichlet(np.full(question.stop - question.start, 0.2), 20)
        votes[:, question.columns] = answers * (1 if question.parent is None else votes[:, question.parent, None])
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
    assert hubble_classes(votes, 0.6) == [name]
    assert hubble_details(votes, [name]) == [detail]


def test_a_column_at_the_threshold_is_in_the_class() -> None:
    for threshold in (0.51, 0.6, 0.9, 1.0):  # as float32 some are a little less than in float64
        assert hubble_classes(_votes(Class1_1=threshold), threshold) == ["elliptical"]
        assert hubble_classes(_votes(Class1_1=threshold - 1e-4), threshold) == ["uncertain"]


@given(SEEDS, THRESHOLDS)
def test_of_votes_on_the_tree_no_galaxy_is_in_two_classes(seed: int, threshold: float) -> None:
    votes = _on_the_tree(seed)
    inside = np.stack([hubble_score(votes, name) >= threshold for name in HUBBLE_CLASSES], axis=1)
    assert inside.sum(axis=1).max() <= 1
    expected = [list(HUBBLE_CLASSES)[row.argmax()] if row.any() else "uncertain" for row in inside]
    assert hubble_classes(votes, threshold) == expected


def test_of_two_classes_that_pass_off_the_tree_the_higher_score_counts() -> None:
    assert hubble_classes(_votes(**{**SPIRAL, "Class1_1": 0.65}), 0.6) == ["spiral"]
    assert hubble_classes(_votes(**{**SPIRAL, "Class1_1": 0.75}), 0.6) == ["elliptical"]


@pytest.mark.parametrize("threshold", [0.5, 0.4, 0.0, -1.0, 1.01, float("nan")])
def test_a_threshold_at_which_classes_could_overlap_is_refused(threshold: float) -> None:
    with pytest.raises(SettingError, match=r"--threshold .*: must be above 0\.5, so that classes exclude one another"):
        hubble_classes(_votes(), threshold)


def test_no_columns_are_added_that_were_not_asked_for() -> None:
    extra = extra_columns(_votes(**SPIRAL), None, False)
    assert (extra.names, extra.rows) == ((), ())


def test_both_kinds_of_columns_stand_side_by_side() -> None:
    votes = np.concatenate([_votes(**SPIRAL), _votes(**ELLIPTICAL)])
    extra = extra_columns(votes, 0.6, True)
    assert extra.names == ("hubble", "hubble_detail", *(name.replace("Class", "Conditional") for name in COLUMNS))
    assert [row[:2] for row in extra.rows] == [("spiral", "tight, 2 arms"), ("elliptical", "in between")]
    assert {len(row) for row in extra.rows} == {39}


@given(SEEDS)
def test_a_conditional_column_is_the_share_of_those_asked_and_empty_below_5_percent(seed: int) -> None:
    votes = _on_the_tree(seed)
    extra = extra_columns(votes, None, True)
    for galaxy, row in zip(votes, extra.rows, strict=True):
        for question in QUESTIONS:
            asked = 1.0 if question.parent is None else galaxy[question.parent]
            if abs(asked - 0.05) < 1e-9:
                continue
            given = row[question.columns]
            assert {value == "" for value in given} == {bool(asked < 0.05)}
            if asked >= 0.05:
                np.testing.assert_allclose(np.array(given, float), galaxy[question.columns] / asked, atol=2e-9)


def test_no_conditional_column_of_a_prediction_off_the_tree_is_above_1() -> None:
    votes = np.random.default_rng(0).uniform(0, 1, (50, 37))
    values = [float(value) for row in extra_columns(votes, None, True).rows for value in row if value]
    assert min(values) >= 0 and max(values) <= 1


def test_the_table_is_kaggles_submission_format(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "table.csv"
    write_csv(PREDICTIONS, path, {})
    lines = path.read_text("ascii").split("\n")
    assert lines[0] == "GalaxyID," + ",".join(COLUMNS) and lines[-1] == ""
    assert [line.split(",")[0] for line in lines[1:-1]] == ["3", "20", str(2**62)]
    assert all(re.fullmatch(r"\d+(,[01]\.\d{9}){37}", line) for line in lines[1:-1])
    values = np.array([line.split(",")[1:] for line in lines[1:-1]], np.float64)
    np.testing.assert_allclose(values, PREDICTIONS.predicted, atol=5e-10)
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]


def test_galaxies_whose_names_were_no_numbers_are_shown_by_name(tmp_path: Path) -> None:
    write_csv(PREDICTIONS, tmp_path / "table.csv", {20: "spirals, old/NGC 4321.jpg"})
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["GalaxyID", "3", "spirals, old/NGC 4321.jpg", str(2**62)]


def test_a_table_that_cannot_be_written_whole_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_csv(PREDICTIONS, path, {})
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_names_break_no_line_and_are_no_formula(tmp_path: Path) -> None:
    write_csv(PREDICTIONS, tmp_path / "table.csv", NAMES)
    content = (tmp_path / "table.csv").read_bytes().decode()
    assert len(content.splitlines()) == 4 and "\r" not in content and "\x1b" not in content
    assert [row[0] for row in csv.reader(content.splitlines())][1:] == [
        "a\\rb.jpg",
        "'=HYPERLINK(1).jpg",
        "\\x1b[31mred\\n.jpg",
    ]
    write_rejected([UnreadableImage("+1.jpg", "+1.jpg", "is\x1b[2J empty")], tmp_path / "table.csv")
    listing = (tmp_path / "table-rejected.csv").read_text()
    assert listing == "GalaxyID,path,reason\n'+1.jpg,'+1.jpg,is\\x1b[2J empty\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("thesis.csv", "chapter,words\n1,4000\n"),
        ("empty.csv", ""),
        ("votes.csv", "GalaxyID," + ",".join(COLUMNS) + "\n100008" + ",0.383147" * 37 + "\n"),
        ("training_solutions_rev1.csv", "GalaxyID," + ",".join(COLUMNS) + "\n100008" + ",0.383147000" * 37 + "\n"),
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
        write_csv(PREDICTIONS, tmp_path / "table.csv", {}, more)
    write_rejected([UnreadableImage(1, "1.jpg", "is empty")], tmp_path / "table.csv")
    refuse_other_table(tmp_path / "table.csv")


def test_a_table_is_read_back_with_the_votes_in_any_order(tmp_path: Path) -> None:
    write_csv(PREDICTIONS, tmp_path / "table.csv", {})
    targets = np.arange(3 * 37, dtype=np.float32).reshape(3, 37)
    found = read_csv(tmp_path / "table.csv", PREDICTIONS.galaxy_ids[[2, 0, 1]], targets[[2, 0, 1]])
    np.testing.assert_array_equal(found.galaxy_ids, PREDICTIONS.galaxy_ids)
    np.testing.assert_allclose(found.predicted, PREDICTIONS.predicted, atol=6e-10)
    np.testing.assert_array_equal(found.targets, targets)
    assert found.predicted.dtype == np.float32


@pytest.mark.parametrize("change", [("20,", "21,"), ("Class1.1", "Class1,1"), ("20,", "NGC,"), ("0.", "x"), ("3,", "3")])
def test_a_table_that_is_damaged_or_of_other_galaxies_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    path = tmp_path / "table.csv"
    write_csv(PREDICTIONS, path, {})
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(RunError, match=r"table\.csv: .*: remove it, and run the same command again"):
        read_csv(path, PREDICTIONS.galaxy_ids, PREDICTIONS.targets)
    path.unlink()
    with pytest.raises(RunError, match=r"table\.csv: damaged"):
        read_csv(path, PREDICTIONS.galaxy_ids, PREDICTIONS.targets)


def test_added_columns_stand_behind_those_of_kaggle_which_stay_as_they_are(tmp_path: Path) -> None:
    write_csv(PREDICTIONS, tmp_path / "plain.csv", {})
    write_csv(PREDICTIONS, tmp_path / "more.csv", {}, extra_columns(PREDICTIONS.predicted, 0.6, True))
    plain, more = ([*csv.reader((tmp_path / name).open(newline=""))] for name in ("plain.csv", "more.csv"))
    assert [row[:38] for row in more] == plain
    assert more[0][38:42] == ["hubble", "hubble_detail", "Conditional1.1", "Conditional1.2"]
    assert {len(row) for row in more} == {38 + 2 + 37}
