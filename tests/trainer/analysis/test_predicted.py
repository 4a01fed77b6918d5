"""The page about a table of predictions shows the galaxies that the model calls what, and calls nothing a vote that is none."""

import csv
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import random_votes
from tests.trainer.analysis.browser import Look
from tests.trainer.analysis.pages import Read
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, SettingError
from tfrecords.treefile import parse_tree
from trainer.explore import explore_dataset, explore_predictions
from trainer.predict import predict_split
from trainer.predictedtable import read_predicted
from trainer.run import Run
from trainer.tables import Predictions, extra_columns, write_csv

Main = Callable[..., tuple[int, str, str]]
TREE = builtin_tree()
COLUMNS = [*TREE.columns]
WHERE = "Class2.2 > 0.3 and not Class1.1 >= 0.9"
SPLITS = ("unlabelled", "train", "validation", "test")


@pytest.fixture(scope="module")
def table(tiny_run: Run, plain_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions of all splits in one table, with added columns and, last, a galaxy that the dataset does not have."""
    folder = tmp_path_factory.mktemp("table")
    frames = []
    for split in SPLITS:
        predictions = predict_split(tiny_run, plain_dataset, split)
        write_csv(predictions, folder / f"{split}.csv", extra_columns(predictions.predicted, 0.6, True, TREE))
        frames.append(pd.read_csv(folder / f"{split}.csv", dtype=str, keep_default_na=False))
    rows = pd.concat([*frames, frames[0].tail(1).assign(GalaxyID="999999")])
    rows.to_csv(folder / "all.csv", index=False)
    return folder / "all.csv"


@pytest.fixture(scope="module")
def explored(plain_dataset: Dataset, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page about all these predictions."""
    return explore_predictions(plain_dataset, table, tmp_path_factory.mktemp("explored") / "page", WHERE).parent


@pytest.fixture(scope="module")
def predicted(table: Path) -> pd.DataFrame:
    """The predictions of the galaxies of the dataset, by GalaxyID, read by pandas alone."""
    frame = pd.read_csv(table, float_precision="round_trip").set_index("GalaxyID").sort_index()
    return frame.drop(999999)[COLUMNS]


def _shown(folder: Path, name: str) -> list[int]:
    """The galaxies of a gallery, in its order."""
    with (folder / "data" / f"{name}.csv").open(newline="") as file:
        return list(dict.fromkeys(int(row["GalaxyID"]) for row in csv.DictReader(file)))


def test_the_page_says_what_it_is_about_and_where_it_comes_from(explored: Path, predicted: pd.DataFrame) -> None:
    page = Read((explored / "index.html").read_text("utf-8"))
    assert page.ids >= {"where", "source", "hubble", "reading", "tree", "predicted-fractions", "highest-Class11.6"}
    assert page.ids >= {f"question-{number}" for number in range(1, 12)}
    classes = {
        "ellipticals": predicted["Class1.1"] >= 0.6,
        "spirals": predicted[["Class4.1", "Class3.2"]].min(axis=1) >= 0.6,
        "barred spirals": predicted[["Class4.1", "Class3.1"]].min(axis=1) >= 0.6,
    }
    first, second, third = (f"{inside.sum()} {name}" for name, inside in classes.items())
    rest = (~np.logical_or.reduce([*classes.values()])).sum()
    number = f"85 galaxies with predictions: {first}, {second} and {third}"
    for said in (
        f"{number} by predictions of at least 60 %, and {rest} others.",
        "The table all.csv has 86 rows. 1 galaxy of the table (999999) is not in the dataset and left out.",
        "Its other columns, hubble, hubble_detail, Conditional1.1 and 36 more, are not shown.",
        "80 galaxies also have votes; their cards show these (orange) above the prediction (blue).",
        "A model predicts the galaxies of train that it learnt from better than new ones.",
    ):
        assert said in page.text
    inside = {link["href"] for link in page.links if link["href"].startswith("#")}
    assert inside >= {f"#question-{number}" for number in range(1, 12)} and {href[1:] for href in inside} <= page.ids
    assert "nan" not in page.text.lower().split()


@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_finds_nothing_wrong_with_the_page(explored: Path, look: Any, width: int) -> None:
    assert look(explored / "index.html", width) == Look((), (), (), (), ())


def test_the_selection_is_that_of_pandas(explored: Path, predicted: pd.DataFrame) -> None:
    selected = predicted.query("`Class2.2` > 0.3 and not `Class1.1` >= 0.9")
    assert 0 < len(selected) < 85
    assert _shown(explored, "where") == selected.index[:12].tolist()
    assert f"{len(selected)} of 85 galaxies by their predictions" in Read((explored / "index.html").read_text("utf-8")).text


def test_the_galleries_of_classes_and_answers_are_those_of_pandas(explored: Path, predicted: pd.DataFrame) -> None:
    for name, columns in (("elliptical", ["Class1.1"]), ("barred-spiral", ["Class4.1", "Class3.1"])):
        score = predicted[columns].min(axis=1)
        fallen_back = False
        for percent in (90, 60):
            passing = score[score >= percent / 100].index
            highest = score.sort_values(ascending=False, kind="stable").index
            if fallen_back and len(passing) < 4:  # the same galaxies again
                assert not (explored / "data" / f"{name}-{percent}.csv").exists()
                continue
            fallen_back = len(passing) < 4
            assert _shown(explored, f"{name}-{percent}") == (passing if len(passing) >= 4 else highest)[:12].tolist()
    for column in COLUMNS:
        highest = predicted[column].sort_values(ascending=False, kind="stable").index
        assert _shown(explored, f"highest-{column}") == highest[:6].tolist()


def test_cards_show_predictions_and_votes_only_of_galaxies_that_have_them(
    explored: Path, predicted: pd.DataFrame, plain_dataset: Dataset
) -> None:
    from tfrecords.reader import votes_of

    parts = [votes_of(plain_dataset, split) for split in SPLITS[1:]]
    voted = {int(galaxy): row for part in parts for galaxy, row in zip(part.galaxy_ids, part.targets, strict=True)}
    kinds = set()
    for path in (explored / "data").glob("highest-*.csv"):
        column = path.stem.removeprefix("highest-")
        for row in pd.read_csv(path).to_dict("records"):
            galaxy = int(row["GalaxyID"])
            assert row["predicted"] == predicted.loc[galaxy, column]
            kinds.add(galaxy in voted)
            if galaxy in voted:
                assert row["voted"] == pytest.approx(voted[galaxy][COLUMNS.index(column)], abs=1e-7)
            else:
                assert np.isnan(row["voted"])
    assert kinds == {True, False}


def test_the_numbers_of_the_charts_are_those_of_the_predictions(explored: Path, predicted: pd.DataFrame) -> None:
    boxes = pd.read_csv(explored / "data" / "predicted-fractions.csv", index_col="column")
    assert [*boxes.index] == COLUMNS
    for percent in (5, 25, 50, 75, 95):
        np.testing.assert_allclose(boxes[f"quantile_{percent}"], predicted.quantile(percent / 100))
    np.testing.assert_allclose(boxes["mean"], predicted.mean())
    reach = pd.read_csv(explored / "data" / "tree.csv", index_col="question")["predicted_to_be_reached"]
    assert reach[2] == pytest.approx(predicted["Class1.2"].mean()) and reach[1] == 1


@pytest.mark.slow
def test_a_dataset_without_any_votes_is_explored_by_its_predictions(
    plain_survey: Path, tiny_run: Run, tmp_path: Path, build_settings: Any, run_main: Main, look: Any
) -> None:
    from preprocess.job import build_dataset

    settings = build_settings(crop_fraction=1.0)
    dataset = build_dataset(plain_survey / "images_test_rev1", tmp_path / "data", settings, workers=1).dataset
    table, out = tmp_path / "predictions.csv", tmp_path / "page"
    assert run_main("predict", "--run", tiny_run.folder, "--tfrecords", dataset.folder, "--out", table)[0] == 0
    flags = ("--tfrecords", dataset.folder, "--predictions", table, "--out", out, "--where", "class3.1 >= 0")
    code, said, err = run_main("explore", *flags)
    assert (code, said) == (0, f"page: {out / 'index.html'}\n"), err
    page = Read((out / "index.html").read_text("utf-8"))
    for words in (
        "5 galaxies with predictions and without votes: ",
        "Everything on this page is predicted by a model: none of these galaxies has votes.",
        "5 of 5 galaxies by their predictions",
    ):
        assert words in page.text
    assert "orange" not in page.text and "votes prediction" not in " ".join(page.text.split())
    assert _shown(out, "where") == [*range(300_000, 300_005)]
    assert {row for path in (out / "data").glob("*-60.csv") for row in pd.read_csv(path)["voted"].dropna()} == set()
    assert look(out / "index.html", 390) == Look((), (), (), (), ())


@pytest.fixture(scope="module")
def decals(build_settings: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Predictions]:
    """60 synthetic galaxies with names, classified by DECaLS' tree, with counts, and predictions of all of them."""
    from preprocess.demo import make_demo
    from preprocess.job import build_dataset
    from tfrecords.reader import votes_of

    source, out = (tmp_path_factory.mktemp("decals") / name for name in ("source", "data"))
    make_demo(source, 60, tree="decals5")
    dataset = build_dataset(source, out, build_settings(), workers=1).dataset
    parts = [votes_of(dataset, split) for split in SPLITS if dataset.galaxies(split)]
    ids, targets = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    names = np.concatenate([part.names for part in parts if part.names is not None])
    values = random_votes(len(ids), np.random.default_rng(3), dataset.tree).astype(np.float32)
    order = np.argsort(names)
    return dataset, Predictions(ids[order], values[order], targets[order], tree=dataset.tree, names=names[order])


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1400])
def test_a_page_about_another_survey_has_its_names_and_answers(
    decals: tuple[Dataset, Predictions], look: Any, tmp_path: Path, width: int
) -> None:
    dataset, predictions = decals
    tree = dataset.tree
    write_csv(predictions, tmp_path / "table.csv")
    page = explore_predictions(dataset, tmp_path / "table.csv", tmp_path / "page", "bar_strong > 0.2")
    read = Read(page.read_text("utf-8"))
    everything = " ".join([read.text, *(image["alt"] for image in read.images)])
    for of_kaggle in ("Class1", "Hubble", "elliptical", "Kaggle", "GalaxyID"):
        assert of_kaggle not in everything
    strong = predictions.predicted[:, tree.index["bar_strong"]] > 0.2
    shown = {*pd.read_csv(page.parent / "data" / "where.csv", dtype=str)["id"]}
    assert predictions.names is not None and shown <= {*predictions.names[strong]} and len(shown) == min(12, strong.sum())
    first = tree.questions[0]
    likeliest = np.bincount(predictions.predicted[:, first.columns].argmax(axis=1), minlength=3)
    assert f"{len(predictions.galaxy_ids)} galaxies with predictions; by the answer with the highest prediction to" in read.text
    assert all(f"{number} {answer}" in read.text for number, answer in zip(likeliest, first.answers, strict=True))
    assert read.ids >= {f"highest-{column}" for column in tree.columns}
    assert look(page, width) == Look((), (), (), (), ())


@pytest.mark.slow
def test_galaxies_that_the_dataset_lacks_are_counted_in_a_warning(
    plain_dataset: Dataset, table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "trainer"):
        explore_predictions(plain_dataset, table, tmp_path / "page")
    [warning] = [record.getMessage() for record in caplog.records if record.name == "trainer"]
    assert warning == f"{table}: 1 galaxy of the table (999999) is not in the dataset and left out."


def _changed(table: Path, out: Path, change: Callable[[list[list[str]]], Any]) -> Path:
    """A copy of a table after a change of its rows; the first is the header."""
    rows = [*csv.reader(io.StringIO(table.read_text("utf-8")))]
    change(rows)
    with out.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return out


def _set(row: int, column: int, value: str) -> Callable[[list[list[str]]], None]:
    return lambda rows: rows[row].__setitem__(column, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.append(rows[2]), r"has several rows for galaxy 300001"),
        (_set(2, 6, "nan"), r"galaxy 300001 has no value in column Class3\.1"),
        (_set(2, 6, ""), r"galaxy 300001 has no value in column Class3\.1"),
        (_set(2, 6, "1.25"), r"galaxy 300001 has 1\.25, which is not from 0 to 1, in column Class3\.1"),
        (_set(2, 6, "-0.25"), r"galaxy 300001 has -0\.25, which is not from 0 to 1, in column Class3\.1"),
        (_set(2, 6, "inf"), r"galaxy 300001 has inf, which is not from 0 to 1, in column Class3\.1"),
        (_set(2, 6, "much"), r"has no rows, or is damaged \(.*Row #3: .*'much'\)"),
        (lambda rows: rows[2].pop(), r"has no rows, or is damaged \(.*Row #3: Expected 77 columns, got 76"),
        (lambda rows: rows[2].append("0"), r"has no rows, or is damaged \(.*Row #3: Expected 77 columns, got 78"),
        (lambda rows: rows.__delitem__(slice(1, None)), r"has no rows, or is damaged"),
        (_set(0, 6, "Class9"), r"lacks the column Class3\.1 of the decision tree kaggle"),
        (lambda rows: rows.clear(), r"lacks the column Class1\.1 and 36 more of the decision tree kaggle"),
        (_set(0, 50, "Class3.1"), r"has more than one column Class3\.1"),
        (lambda rows: [row.pop(0) for row in rows], r"its first column, Class1\.1, does not name the galaxies"),
    ],
)
def test_a_table_that_is_not_one_of_predictions_is_refused_with_the_place(
    plain_dataset: Dataset, table: Path, tmp_path: Path, change: Callable[[list[list[str]]], Any], message: str
) -> None:
    path = _changed(table.parent / "unlabelled.csv", tmp_path / "table.csv", change)
    with pytest.raises(ConfigError, match=rf"table\.csv: {message}.*: give a table that trainer predict wrote") as caught:
        explore_predictions(plain_dataset, path, tmp_path / "page")
    assert "\n" not in str(caught.value) and not (tmp_path / "page").exists()


def test_what_cannot_be_done_is_one_line_with_the_next_step(
    plain_dataset: Dataset, plain_survey: Path, table: Path, tmp_path: Path, run_main: Main
) -> None:
    def refused(path: Path, *flags: object) -> str:
        data = ("--tfrecords", plain_dataset.folder, "--predictions", path, "--out", tmp_path / "page", *flags)
        code, said, err = run_main("explore", *data)
        assert code and not said and err.count("\n") == 1 and not (tmp_path / "page").exists()
        return err

    others = _changed(table, tmp_path / "others.csv", lambda rows: [row.__setitem__(0, f"x{row[0]}") for row in rows[1:]])
    (tmp_path / "picture.csv").write_bytes(b"\xff\xd8\xff\xe0" * 99)
    for path, message in (
        (others, "none of its 86 galaxies, such as x300000, is in "),
        (others, "predict this one with trainer predict --tfrecords"),
        (plain_survey / "training_solutions_rev1.csv", "holds votes, not predictions: give a table that trainer predict wrote"),
        (tmp_path / "picture.csv", "is not a table in CSV"),
        (tmp_path / "absent.csv", "No such file or directory: check the path"),
        (tmp_path, "Is a directory: check the path"),
    ):
        assert message in refused(path)
    assert "there is no column 'Class9.9'" in refused(table, "--where", "Class9.9 > 1")
    assert "--src: a page about --predictions does not use the source: omit one" in refused(table, "--src", plain_survey)


def test_a_table_of_another_tree_is_refused(decals: tuple[Dataset, Predictions], table: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"all\.csv: lacks the column .* and 33 more of the decision tree decals5: give"):
        explore_predictions(decals[0], table, tmp_path / "page")


def test_a_fraction_is_compared_as_the_table_shows_it(plain_dataset: Dataset, table: Path, tmp_path: Path) -> None:
    """0.6 in float32 is more than 0.6."""
    path = _changed(table.parent / "unlabelled.csv", tmp_path / "table.csv", _set(1, 6, "0.600000000"))
    page = explore_predictions(plain_dataset, path, tmp_path / "page", "Class3.1 == 0.6")
    assert "1 of 5 galaxies by their predictions" in Read(page.read_text("utf-8")).text


def test_a_table_is_read_with_columns_in_any_order_from_a_spreadsheet_and_with_rounding(tmp_path: Path) -> None:
    tree = parse_tree('question = [{key = "q", answers = {a = "q_a", b = "q_b"}}]', "t", "t")
    text = '\ufeffname,note,q_b,q_a\r\n"a, b","x",1.000000119,-0.000000119\r\n007,,0.25,0.75\r\n'
    (tmp_path / "table.csv").write_bytes(text.encode())
    table = read_predicted(tmp_path / "table.csv", tree)
    assert (table.galaxies, table.others) == (["a, b", "007"], ("note",))
    np.testing.assert_array_equal(table.predicted, [[-0.000000119, 1.000000119], [0.75, 0.25]])


@pytest.mark.slow
def test_pages_about_votes_and_about_predictions_replace_each_other(
    plain_dataset: Dataset, table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page"
    explore_dataset(plain_dataset, out)
    explore_predictions(plain_dataset, table, out)
    assert not (out / "data" / "splits.csv").exists() and (out / "data" / "predicted-fractions.csv").exists()
    explore_dataset(plain_dataset, out)
    assert not [*out.rglob("highest-*")] and (out / "data" / "splits.csv").exists()


def test_an_unparsable_selection_is_refused_before_the_table_is_read(plain_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="a number is missing"):
        explore_predictions(plain_dataset, tmp_path / "absent.csv", tmp_path / "page", "Class1.1 >")
    assert not (tmp_path / "page").exists()
