"""The report, the card and the export of a survey with numbers of answers, GZ DECaLS."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.analysis.browser import Look
from tests.trainer.analysis.pages import CHARTS, Read, rows_of
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from trainer.analysis import wording
from trainer.config import RECIPES, TrainConfig
from trainer.evaluate import evaluate_run
from trainer.origin import dataset_summary
from trainer.predict import predict_split
from trainer.run import Run

TREE = builtin_tree()
Main = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def of_decals(build_settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Dataset]]:
    """A measured run with head dirichlet on 80 synthetic galaxies with votes as in DECaLS, and its dataset. Read-only."""
    from preprocess.demo import make_demo
    from preprocess.job import build_dataset
    from trainer.train import train_model

    folder = tmp_path_factory.mktemp("of_decals")
    make_demo(folder / "source", 80, tree="decals5")
    dataset = build_dataset(folder / "source", folder / "data", build_settings(), workers=1).dataset
    settings = {**RECIPES["best"](), "epochs": 1, "batch_size": 16, "warmup_steps": 0, "weights": "none", "backbone": "small"}
    dirichlet = {"head": "dirichlet", "loss": "dirichlet_multinomial"}
    yield train_model(TrainConfig(dataset.folder, folder / "run", **{**settings, **dirichlet})), dataset
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_report_on_another_survey_has_its_questions_and_nothing_of_kaggles(of_decals: tuple[Run, Dataset], look: Any) -> None:
    run, dataset = of_decals
    tree = dataset.tree
    path = run.folder / "report" / "index.html"
    page = Read(path.read_text("utf-8"))
    assert page.ids >= CHARTS | {"intervals", "best", "worst", "surprising"} | {f"question-{q.key}" for q in tree.questions}
    everything = " ".join([page.text, *(image["alt"] for image in page.images)])
    card = (run.folder / "README.md").read_text("utf-8")
    for text in (everything, card):
        for of_kaggle in ("Class1", "Hubble", "elliptical", "Kaggle", "37 columns", "of 37", "challenge", "Galaxy Zoo 2"):
            assert of_kaggle not in text, of_kaggle
        assert tree.citation in text
    assert "each question of a galaxy was weighted by the number of its answers" in everything
    assert "Each vote fraction counts the same, however many volunteers are behind it, unless a table" in everything
    assert "are assumed" not in everything and "assumed" not in card and "GalaxyID" not in everything
    assert "Dirichlet-multinomial" in everything and "obey the tree by construction" in everything
    assert "nan" not in re.split(r"\W+", everything)
    assert "Dense 44 and a softmax for each question" in card and "Output: 34 fractions" in card
    assert [name for name in dataset.tree.index if f"| {name} |" in card] == []
    for width in (390, 1400):
        assert look(path, width) == Look((), (), (), (), ())


@pytest.mark.slow
def test_the_scores_of_a_survey_with_counts_are_over_the_questions_that_were_answered(of_decals: tuple[Run, Dataset]) -> None:
    from tfrecords.reader import votes_of
    from trainer.analysis.intervals import coverage

    run, dataset = of_decals
    content = json.loads((run.folder / "metrics.json").read_text())
    predictions = predict_split(run, dataset, "test")
    asked = predictions.asked
    assert asked is not None and predictions.concentrations is not None and (asked == 0).any()
    counted = np.repeat(asked > 0, [len(question.answers) for question in dataset.tree.questions], axis=1)
    errors = (predictions.predicted.astype(np.float64) - predictions.targets) ** 2
    assert content["mse"] == pytest.approx(errors[counted].mean(), rel=1e-6)
    assert content["best_validation"]["mse"] > 0
    assert [*content["per_question"]] == sorted(question.key for question in dataset.tree.questions)
    train = votes_of(dataset, "train")
    assert train.asked is not None
    of_train = np.repeat(train.asked > 0, [len(question.answers) for question in dataset.tree.questions], axis=1)
    means = (train.targets * of_train).sum(axis=0) / of_train.sum(axis=0)
    expected = np.sqrt(((means - predictions.targets) ** 2)[counted].mean())
    assert content["baselines"]["train_mean"] == pytest.approx(expected, rel=1e-5)
    covered = coverage(dataset.tree, predictions.predicted, predictions.concentrations, predictions.targets, asked)
    rows = rows_of(run, "intervals")
    assert [row["question"] for row in rows] == [question.key for question in dataset.tree.questions]
    np.testing.assert_allclose([float(row["held"]) for row in rows], covered.held, atol=0.02)
    assert [int(row["galaxies"]) for row in rows] == covered.galaxies.tolist()


@pytest.mark.slow
def test_the_page_and_the_card_say_that_numbers_of_answers_are_assumed(of_decals: tuple[Run, Dataset], tmp_path: Path) -> None:
    run, dataset = of_decals
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint"))
    assumed = replace(dataset, source={**dataset.source, "asked": "assumed"})
    copy = replace(run, folder=tmp_path / "run", config={**run.config, "dataset": dataset_summary(assumed)})
    record, _ = evaluate_run(copy, assumed, "validation")
    page = Read((copy.folder / record.report).read_text("utf-8"))
    said = "The numbers of answers were not counted: 40 volunteers are assumed for each galaxy."
    assert f"questions that nobody answered do not count. {said} In training" in page.text
    assert "was weighted by the assumed number of its answers, less than in proportion." in page.text
    assert "As the votes have no counts, 40 volunteers are assumed." in page.text
    card = (copy.folder / "README.md").read_text("utf-8")
    assert said in card and "Dirichlet-multinomial, for an assumed number of volunteers" in card


def test_the_sentence_on_training_follows_the_dataset_of_the_run() -> None:
    scores = "Each vote fraction counts the same, however many volunteers are behind it, unless a table states otherwise; "
    scores += "questions that nobody answered "
    trained = "In training, each question of a galaxy was weighted by the number of its answers."
    decals = builtin_tree("decals5")
    assert wording.weighting("counted", decals, False, "cross_entropy") == f"{scores}do not count."
    assert wording.weighting(None, decals, "counted", "cross_entropy") == trained
    assert wording.weighting("counted", decals, "counted", "mse") == f"{scores}do not count."
    assert wording.weighting(None, TREE, False, "cross_entropy") == ""


@pytest.mark.slow
def test_an_export_of_the_dirichlet_head_says_what_the_model_gives(
    of_decals: tuple[Run, Dataset], tmp_path: Path, run_main: Main
) -> None:
    code, out, error = run_main("export", "--run", of_decals[0].folder, "--out", tmp_path / "model")
    assert code == 0, error
    assert "in, 34 vote fractions and a concentration for each of its 10 questions out\n" in out


@pytest.mark.slow
def test_few_real_galaxies_of_decals_are_measured_without_noise(
    build_settings: Any, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """A test split of one or two galaxies, in which nobody was asked some questions."""
    from preprocess.job import build_dataset
    from trainer.train import train_model

    source = Path(__file__).parents[4] / "shared" / "surveys" / "decals"
    if not source.exists():
        pytest.skip(f"{source} is missing: real galaxies are not part of the repository")
    dataset = build_dataset(
        source, tmp_path / "data", build_settings(test_fraction=0.5, validation_fraction=0.0), workers=1
    ).dataset
    assert dataset.galaxies("train") and dataset.galaxies("test")
    settings = {**RECIPES["best"](), "epochs": 1, "batch_size": 2, "warmup_steps": 0, "weights": "none", "backbone": "small"}
    run = train_model(TrainConfig(dataset.folder, tmp_path / "run", **settings))
    page = Read((run.folder / "report" / "index.html").read_text("utf-8"))
    everything = [page.text, *(image["alt"] for image in page.images), (run.folder / "README.md").read_text()]
    assert "nan" not in re.split(r"\W+", " ".join(everything))
    questions = json.loads((run.folder / "metrics.json").read_text())["per_question"].values()
    unanswered = sum(question["rmse"] is None for question in questions)
    assert everything[0].count("Nobody answered this question for these galaxies.") == unanswered
    assert "NaN" not in (run.folder / "metrics.json").read_text()
    assert [str(warning.message) for warning in recwarn if warning.category is RuntimeWarning] == []
