"""The page about a dataset agrees with its data."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.analysis.browser import Look
from tests.trainer.analysis.pages import Read
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, DatasetError, SettingError
from trainer.analysis.splits import compare_splits
from trainer.explore import explore_dataset, readings, survey_headline

Main = Callable[..., tuple[int, str, str]]
TREE = builtin_tree()
COLUMNS = TREE.columns
CHARTS = {"tree", "vote-fractions", "maximum-agreement", "light", "splits"}
# Too few of these galaxies are spirals at either threshold: one gallery shows the highest scores.
HUBBLE = {"elliptical-90", "elliptical-60", "spiral-90", "barred-spiral-90"}
WHERE = "Class1.1 > 0.3 and not Class6.1 >= 0.9"


@pytest.fixture(scope="module")
def explored(plain_dataset: Dataset, plain_survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page about the plain dataset, with all options."""
    return explore_dataset(plain_dataset, tmp_path_factory.mktemp("explored") / "deep", plain_survey, WHERE).parent


@pytest.fixture(scope="module")
def labelled(plain_dataset: Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    from tfrecords.reader import votes_of

    return {split: votes_of(plain_dataset, split)[:2] for split in ("train", "validation", "test")}


def _rows(explored: Path, name: str) -> list[dict[str, str]]:
    with (explored / "data" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _all(labelled: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    ids, votes = (np.concatenate(parts) for parts in zip(*labelled.values(), strict=True))
    order = np.argsort(ids)
    return ids[order], votes[order]


def test_everything_that_is_promised_is_on_the_page_and_beside_it(explored: Path) -> None:
    page = Read((explored / "index.html").read_text("utf-8"))
    galleries = HUBBLE | {"crop", "where"}
    assert page.ids >= CHARTS | galleries | {f"question-{number}" for number in range(1, 12)}
    assert {path.name for path in (explored / "figures").iterdir()} == {
        *(f"{name}.svg" for name in CHARTS), *(f"{name}.jpg" for name in galleries)
    }  # fmt: skip
    assert {path.stem for path in (explored / "data").iterdir()} == CHARTS | galleries
    assert "80 galaxies with votes" in page.text and "A column is cumulative" in page.text


@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_finds_nothing_wrong_with_the_page(explored: Path, look: Any, width: int) -> None:
    assert look(explored / "index.html", width) == Look((), (), (), (), ())


def test_the_numbers_beside_the_charts_are_those_of_the_votes(
    explored: Path, labelled: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    _, votes = _all(labelled)
    votes = votes.astype(np.float64)  # older versions of NumPy interpolate quantiles in the precision of the values
    for column, (row, largest) in enumerate(
        zip(_rows(explored, "vote-fractions"), _rows(explored, "maximum-agreement"), strict=True)
    ):
        assert row["column"] == largest["column"] == COLUMNS[column]
        for percent in (5, 25, 50, 75, 95):
            assert float(row[f"quantile_{percent}"]) == pytest.approx(np.percentile(votes[:, column], percent), rel=1e-6)
        assert float(largest["maximum_agreement"]) == pytest.approx(votes[:, column].max(), rel=1e-6)
    violations = TREE.deviation(votes).max(axis=0)
    for row, question, violation in zip(_rows(explored, "tree"), TREE.questions, violations, strict=True):
        assert float(row["reached"]) == pytest.approx(TREE.reached(votes, question).mean())
        assert float(row["largest_violation_of_its_sum"]) == pytest.approx(violation)
    train = labelled["train"][1].astype(np.float64)
    for row in _rows(explored, "splits"):
        other = labelled[row["split"]][1][:, COLUMNS.index(row["column"])].astype(np.float64)
        own = train[:, COLUMNS.index(row["column"])]
        spread = np.concatenate([own - own.mean(), other - other.mean()])
        error = spread.std() * np.sqrt(1 / len(own) + 1 / len(other))
        assert float(row["difference_in_standard_errors"]) == pytest.approx((other.mean() - own.mean()) / error, abs=1e-6)
        assert row["flagged"] == str(abs(float(row["difference_in_standard_errors"])) > 4)


def test_the_galleries_are_those_of_the_votes_over_all_splits(
    explored: Path, labelled: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    ids, votes = _all(labelled)
    merged = 0
    for member in TREE.classes:
        fallen_back = False
        for threshold in (0.9, 0.6):
            name = f"{member.name.replace(' ', '-')}-{round(100 * threshold)}"
            score = TREE.class_score(votes, member)
            passing = ids[score >= threshold]
            if fallen_back and len(passing) < 4:  # the same galaxies again
                assert not (explored / "data" / f"{name}.csv").exists()
                merged += 1
                continue
            shown = [int(row["GalaxyID"]) for row in _rows(explored, name)]
            expected = passing[:12] if len(passing) >= 4 else ids[np.argsort(-score, kind="stable")[:12]]
            assert list(dict.fromkeys(shown)) == expected.tolist()
            fallen_back = len(passing) < 4
    assert merged == 2
    selected = ids[(votes[:, 0] > 0.3) & ~(votes[:, 13] >= 0.9)]
    assert list(dict.fromkeys(int(row["GalaxyID"]) for row in _rows(explored, "where"))) == selected[:12].tolist()
    assert f"{len(selected)} of 80 galaxies" in Read((explored / "index.html").read_text("utf-8")).text


def test_every_galaxy_is_measured_once(explored: Path, labelled: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    rows = _rows(explored, "light")
    assert sorted(int(row["GalaxyID"]) for row in rows) == _all(labelled)[0].tolist()
    smooth = [float(row["half_light_radius"]) for row in rows if int(row["GalaxyID"]) % 2 == 0]
    featured = [float(row["peak"]) for row in rows if int(row["GalaxyID"]) % 2]
    assert np.median(smooth) == pytest.approx(13 / np.sqrt(2), rel=0.1) and max(featured) < 150


def test_readings_give_medians_and_quartiles() -> None:
    votes = np.zeros((5, 37))
    votes[:, COLUMNS.index("Class6.2")] = [0.1, 0.4, 0.6, 0.8, 1.0]
    first, *_ = readings(votes, TREE)
    assert first == (
        "In 60% of galaxies, more than half of the volunteers find nothing odd: Class6.2 (odd: no) has a median of 0.60 "
        "(quartiles 0.40 to 0.80) and Class6.1 (odd: yes) has a median of 0.00 (quartiles 0.00 to 0.00)."
    )
    assert len(readings(votes, TREE)) == 4


def test_readings_are_of_the_galaxies_whose_volunteers_were_asked() -> None:
    votes, counted = np.zeros((5, 37)), np.ones((5, 37), bool)
    votes[:, COLUMNS.index("Class6.2")] = [0.1, 0.4, 0.6, 0.8, 0.9]
    counted[:2, TREE.questions[5].columns] = False
    first, *others = readings(votes, TREE, counted)
    assert first.startswith("In 100% of the 3 galaxies whose volunteers were asked, more than half of the volunteers find ")
    assert "has a median of 0.80 (quartiles 0.70 to 0.85)" in first
    assert [other.startswith("In 0% of galaxies, more") for other in others] == [True] * 3
    counted[:, TREE.questions[5].columns] = False
    assert readings(votes, TREE, counted) == others


def test_a_split_that_is_not_alike_is_named(plain_dataset: Dataset) -> None:
    from trainer.analysis.labelled import LabelledGalaxies

    votes = np.random.default_rng(0).uniform(0.2, 0.4, (90, 37))
    votes[60:, 5] += 0.3
    survey = LabelledGalaxies(plain_dataset, ("train", "test"), np.repeat([0, 1], [60, 30]), np.arange(90), votes)
    section = compare_splits(survey)
    assert section.paragraphs[0].startswith(
        "More than 4 standard errors from train, unlikely to be chance: Class3.1 in test (0.6"
    )
    assert section.paragraphs[0].count("Class") == 1


@pytest.mark.slow
def test_without_the_source_the_page_says_how_to_see_what_the_crop_keeps(
    plain_dataset: Dataset, tmp_path: Path, run_main: Main
) -> None:
    code, out, _ = run_main("explore", "--tfrecords", plain_dataset.folder, "--out", tmp_path / "page")
    assert (code, out) == (0, f"page: {tmp_path / 'page' / 'index.html'}\n")
    text = Read((tmp_path / "page" / "index.html").read_text("utf-8")).text
    assert "give --src the folder or zip that was preprocessed" in text
    assert not (tmp_path / "page" / "figures" / "crop.jpg").exists()


def test_whatever_cannot_be_done_is_one_line_and_writes_nothing(
    plain_dataset: Dataset, survey: Path, make_dataset: Any, tmp_path: Path, run_main: Main
) -> None:
    out = tmp_path / "page"
    with pytest.raises(
        ConfigError, match=r"none of its images is a galaxy of .*: give --src the images that were preprocessed"
    ):
        explore_dataset(plain_dataset, out, survey)
    with pytest.raises(SettingError, match=r"there is no column 'Class9\.9'"):
        explore_dataset(plain_dataset, out, where="Class9.9 > 1")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(ConfigError, match=r"holds other files \(chapter\.tex\) and is not a page of explore"):
        explore_dataset(plain_dataset, tmp_path / "thesis")
    with pytest.raises(ConfigError, match="is a file"):
        explore_dataset(plain_dataset, tmp_path / "thesis" / "chapter.tex")
    code, said, err = run_main("explore", "--tfrecords", plain_dataset.folder, "--out", out, "--where", "Class1.1 >")
    assert (code, said) == (2, "") and "a number is missing" in err and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis"]


def test_a_dataset_without_votes_has_nothing_to_explore(survey: Path, tmp_path: Path, build_settings: Any) -> None:
    from preprocess.job import build_dataset

    unlabelled = build_dataset(survey / "images_test_rev1", tmp_path / "data", build_settings(), workers=1).dataset
    with pytest.raises(DatasetError, match="has no galaxies with votes: preprocess images together with their votes"):
        explore_dataset(unlabelled, tmp_path / "page")
    assert not (tmp_path / "page").exists()


@pytest.mark.slow
def test_a_dataset_of_one_split_is_explored_and_compared_with_nothing(make_dataset: Any, tmp_path: Path) -> None:
    dataset = make_dataset(limit=3, validation_fraction=0.0, test_fraction=0.0)
    page = explore_dataset(dataset, tmp_path / "page", where="Class1.1 > 2")
    text = Read(page.read_text("utf-8")).text
    assert "There is nothing to compare" in text and "0 of 3 galaxies" in text and "nan" not in text.lower().split()


def test_columns_that_are_constant_in_both_splits_are_flagged_and_drawn(plain_dataset: Dataset) -> None:
    from trainer.analysis.labelled import LabelledGalaxies
    from trainer.analysis.page import Chart

    votes = np.zeros((30, 37))
    votes[15:, 3] = 0.5
    section = compare_splits(LabelledGalaxies(plain_dataset, ("train", "test"), np.repeat([0, 1], 15), np.arange(30), votes))
    assert "Class2.1 in test (0.500 against 0.000)" in section.paragraphs[0]
    [chart] = [part for part in section.parts if isinstance(part, Chart)]
    assert chart.draw(9.6).axes[0].get_xlim() == pytest.approx((-4.4, 4.4))


@pytest.mark.slow
def test_an_earlier_page_leaves_nothing_and_files_of_somebody_else_stay(plain_dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "page"
    explore_dataset(plain_dataset, out, where="Class1.1 > 0")
    assert (out / "figures" / "where.jpg").is_file()
    mine = [out / "notes.txt", out / "figures" / "thesis_figure_1.svg", out / "data" / "my_galaxy.jpg"]
    for path in mine:
        path.write_text("mine")
    explore_dataset(plain_dataset, out)
    assert not list(out.rglob("where.*"))
    assert [path.read_text() for path in mine] == ["mine"] * 3
    (out / "index.html").write_text("my own home page")
    with pytest.raises(ConfigError, match=r"index\.html: has changed since it was written: move it elsewhere"):
        explore_dataset(plain_dataset, out)
    assert (out / "index.html").read_text() == "my own home page"


def test_a_folder_of_somebody_else_loses_nothing(
    plain_dataset: Dataset, tmp_path: Path, run_main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("data/my_galaxy.jpg", "data/training_solutions_rev1.csv", "figures/thesis_figure_1.svg")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        code, out, err = run_main("explore", "--tfrecords", plain_dataset.folder, "--out", ".")
        assert (code, out) == (1, "")
        assert err == "error: .: holds other files (data) and is not a page of explore: choose an --out that is empty or new\n"
    assert {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == {
        name: name for name in names
    }


@pytest.fixture(scope="module")
def decals(build_settings: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    """120 synthetic galaxies that volunteers classified by DECaLS' tree, with counts, and their source."""
    from preprocess.demo import make_demo
    from preprocess.job import build_dataset

    source, out = (tmp_path_factory.mktemp("decals") / name for name in ("source", "data"))
    make_demo(source, 120, tree="decals5")
    return build_dataset(source, out, build_settings(), workers=1).dataset, source


@pytest.fixture(scope="module")
def explored_decals(decals: tuple[Dataset, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = "smooth-or-featured_smooth > 0.5 and merging_none>=0.5"
    return explore_dataset(decals[0], tmp_path_factory.mktemp("explored_decals") / "page", decals[1], where).parent


def test_a_page_about_another_survey_has_its_questions_and_nothing_of_kaggles(
    explored_decals: Path, decals: tuple[Dataset, Path]
) -> None:
    dataset, tree = decals[0], decals[0].tree
    assert (tree.name, dataset.asked) == ("decals5", True)
    page = Read((explored_decals / "index.html").read_text("utf-8"))
    assert page.ids >= CHARTS | {"crop", "where"} | {f"question-{question.key}" for question in tree.questions}
    inside = {link["href"] for link in page.links if link["href"].startswith("#")}
    assert inside >= {f"#question-{question.key}" for question in tree.questions} and {href[1:] for href in inside} <= page.ids
    everything = " ".join([page.text, *(image["alt"] for image in page.images)])
    for of_kaggle in ("Class1", "Hubble", "elliptical", "spirals", "Kaggle", "37 columns", "of 37", "challenge", "bar: yes"):
        assert of_kaggle not in everything, of_kaggle
    for said in ("Box plots of the 34 columns", "of 34 answers", "questions that nobody answered do not count", tree.citation):
        assert said in everything, said
    assert "nan" not in everything.lower().split()
    shown = {row["id"] for row in _rows(explored_decals, "where")}
    assert shown and all(name in page.text for name in shown)
    measured = {row["id"] for row in _rows(explored_decals, "light")}
    images = {path.stem for path in decals[1].rglob("*.png")} | {path.stem for path in decals[1].rglob("*.jpg")}
    assert len(measured) == 120 and shown < measured < images
    assert (
        "GalaxyID" not in everything and "The first galaxies by name." in everything and "first galaxies by id." in everything
    )


def test_numbers_of_a_survey_with_counts_are_those_of_the_galaxies_that_were_asked(
    explored_decals: Path, decals: tuple[Dataset, Path]
) -> None:
    from tfrecords.reader import votes_of

    dataset = decals[0]
    parts = [votes_of(dataset, split) for split in ("train", "validation", "test")]
    targets, asked = (np.concatenate([part[place] for part in parts]) for place in (1, 2))
    rows = {row["column"]: row for row in _rows(explored_decals, "vote-fractions")}
    assert [*rows] == [*dataset.tree.columns]
    unanswered = 0
    for question in dataset.tree.questions:
        counted = asked[:, question.index] > 0
        unanswered += int((~counted).sum())
        for column in range(question.start, question.stop):
            row = rows[dataset.tree.columns[column]]
            assert float(row["mean"]) == pytest.approx(targets[counted, column].mean(dtype=np.float64), rel=1e-6)
            assert float(row["quantile_50"]) == pytest.approx(np.median(targets[counted, column]), rel=1e-6)
    assert unanswered > 0
    first = dataset.tree.questions[0]
    answers = np.bincount(targets[:, first.columns].argmax(axis=1), minlength=3)
    text = Read((explored_decals / "index.html").read_text("utf-8")).text
    assert "120 galaxies with votes; by the most voted answer to “smooth or featured”:" in text
    assert all(f"{number} {answer}" in text for number, answer in zip(answers, first.answers, strict=True))


def test_galaxies_whose_volunteers_skipped_the_first_question_have_no_most_voted_answer(decals: tuple[Dataset, Path]) -> None:
    from trainer.analysis.labelled import LabelledGalaxies

    dataset = decals[0]
    votes, asked = np.zeros((5, len(dataset.tree.columns))), np.zeros((5, len(dataset.tree.questions)))
    votes[:3, 1] = 1  # featured
    asked[:3, 0] = 40
    survey = LabelledGalaxies(dataset, ("train",), np.zeros(5, int), np.arange(5), votes, asked)
    assert survey_headline(survey) == (
        "5 galaxies with votes; by the most voted answer to “smooth or featured”: "
        f"3 {dataset.tree.questions[0].answers[1]}, 0 {dataset.tree.questions[0].answers[0]} and "
        f"0 {dataset.tree.questions[0].answers[2]}; nobody answered it for 2."
    )


@pytest.mark.slow
def test_the_page_says_that_numbers_of_answers_are_assumed(
    decals: tuple[Dataset, Path], explored_decals: Path, tmp_path: Path
) -> None:
    dataset = decals[0]
    assumed = replace(dataset, source={**dataset.source, "asked": "assumed"})
    page = explore_dataset(assumed, tmp_path / "page")
    said = "not counted: 40 volunteers are assumed for each galaxy."
    assert said in Read(page.read_text("utf-8")).text
    assert said not in Read((explored_decals / "index.html").read_text("utf-8")).text


@pytest.mark.slow
def test_where_selects_no_galaxy_whose_volunteers_were_not_asked(decals: tuple[Dataset, Path], tmp_path: Path) -> None:
    from tfrecords.reader import votes_of

    dataset = decals[0]
    asked = np.concatenate([np.asarray(votes_of(dataset, split).asked) for split in ("train", "validation", "test")])
    question = dataset.tree.questions[int(np.argmin((asked > 0).sum(axis=0)))]
    number = int((asked[:, question.index] > 0).sum())
    page = explore_dataset(dataset, tmp_path / "page", where=f"{dataset.tree.columns[question.start]} <= 1")
    assert number < len(asked) and f"{number:,} of {len(asked):,} galaxies" in Read(page.read_text("utf-8")).text


@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_finds_nothing_wrong_with_the_page_of_another_survey(explored_decals: Path, look: Any, width: int) -> None:
    assert look(explored_decals / "index.html", width) == Look((), (), (), (), ())


@pytest.mark.parametrize("survey", ["decals", "gz2"])
def test_a_few_real_galaxies_of_another_survey_are_explored(
    survey: str, build_settings: Any, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """So few that there are questions that nobody was asked."""
    from preprocess.job import build_dataset

    source = Path(__file__).parents[3] / "shared" / "surveys" / survey
    if not source.exists():
        pytest.skip(f"{source} is missing: real galaxies are not part of the repository")
    dataset = build_dataset(source, tmp_path / "data", build_settings(), workers=1).dataset
    page = explore_dataset(dataset, tmp_path / "page", source)
    text = Read(page.read_text("utf-8")).text
    assert f"{sum(dataset.galaxies(split) for split in ('train', 'validation', 'test'))} galaxies with votes" in text
    assert "nan" not in text.lower().split() and ("Hubble" in text) == (survey == "gz2")
    assert dataset.tree.citation in text
    assert [str(warning.message) for warning in recwarn if warning.category is RuntimeWarning] == []
