"""Each sentence beside a chart of a run is true of the run's settings and numbers, whatever these are.

Every alternative text and caption is split into sentences, each sentence must be one that claims.py lists, and its check
compares it with numbers that facts.py computes, by plain loops, from predictions, votes and history.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import random_votes
from tests.trainer.analysis.claims import check_texts
from tests.trainer.analysis.evaluations import DECALS, KAGGLE, KINDS, LOSSES, charts_of, evaluation_of, texts_of, with_shares
from tests.trainer.analysis.facts import Facts, facts_of
from tfrecords.dataset import Dataset
from tfrecords.tree import Tree
from trainer.analysis import findings, report, wording
from trainer.analysis.subject import Evaluation
from trainer.config import RECIPES

RUNS = [
    {**RECIPES[recipe](), "weights": weights, "epochs": epochs}
    for recipe, weights, epochs in itertools.product(RECIPES, ("none", "imagenet", "runs/other"), (1, 30))
]


def _facts(evaluation: Evaluation) -> Facts:
    return facts_of(evaluation.run, evaluation.dataset, evaluation.predictions, evaluation.means, evaluation.content)


def check(evaluation: Evaluation) -> None:
    check_texts(_facts(evaluation), texts_of(charts_of(evaluation)))


@pytest.mark.parametrize("settings", RUNS, ids=lambda each: f"{each['head']}-{each['weights'].split('/')[0]}-{each['epochs']}")
@pytest.mark.parametrize(("tree", "asked"), [(KAGGLE, ""), (DECALS, "counted")], ids=["kaggle", "decals5"])
def test_every_sentence_of_a_run_of_either_recipe_is_true(
    plain_dataset: Dataset, tmp_path: Path, settings: dict[str, Any], tree: Tree, asked: str
) -> None:
    history = (settings["epochs"], True, 12.3)
    check(evaluation_of(tmp_path / "run", plain_dataset, "good", tree, asked, history=history, **settings))


@pytest.mark.parametrize(("head", "model"), KINDS)
@pytest.mark.parametrize(
    ("tree", "asked"),
    [(KAGGLE, ""), (DECALS, "counted"), (DECALS, "assumed"), (DECALS, "")],
    ids=["kaggle", "counted", "assumed", "fractions"],
)
def test_every_sentence_is_true_however_good_a_model_is(
    plain_dataset: Dataset, tmp_path: Path, head: str, model: str, tree: Tree, asked: str
) -> None:
    check(evaluation_of(tmp_path / "run", plain_dataset, model, tree, asked, 15, head=head, loss=LOSSES[head]))


@pytest.mark.parametrize("galaxies", [1, 2, 3])
@pytest.mark.parametrize(("tree", "asked"), [(KAGGLE, ""), (DECALS, "counted")], ids=["kaggle", "decals5"])
@pytest.mark.parametrize("head", LOSSES)
def test_every_sentence_is_true_of_very_few_galaxies(
    plain_dataset: Dataset, tmp_path: Path, galaxies: int, tree: Tree, asked: str, head: str
) -> None:
    for model in (each for of_head, each in KINDS if of_head == head):
        settings: dict[str, Any] = {"head": head, "loss": LOSSES[head]}
        check(evaluation_of(tmp_path / model, plain_dataset, model, tree, asked, galaxies, has_train=False, **settings))


@pytest.mark.parametrize("ema", [0.0, 0.99])
@pytest.mark.parametrize("history", [(1, False, 0.31), (1, True, 3.0), (12, False, 700.0), (12, True, 59.0)])
def test_every_sentence_about_the_history_is_true(
    plain_dataset: Dataset, tmp_path: Path, history: tuple[int, bool, float], ema: float
) -> None:
    evaluation = evaluation_of(tmp_path / "run", plain_dataset, galaxies=2, history=history, ema=ema, augment="none")
    check_texts(_facts(evaluation), texts_of([findings.history(evaluation.run)]))


def test_equal_questions_are_all_called_by_name(plain_dataset: Dataset, tmp_path: Path) -> None:
    perfect = charts_of(evaluation_of(tmp_path / "perfect", plain_dataset, "perfect"))
    alts = {chart.name: chart.alt for chart in perfect}
    assert alts["tree"] == "Decision tree coloured by RMSE: 0.000 for 11 questions"
    evaluation = evaluation_of(tmp_path / "run", plain_dataset)
    errors = np.linspace(0.01, 0.02, 11)
    errors[[2, 5]] = 0.04
    alt = findings.tree_map(replace(evaluation, scores=replace(evaluation.scores, per_question=errors))).alt
    assert alt == (
        f"Decision tree coloured by RMSE: highest for questions 3 and 6 (0.200), lowest for question 1, "
        f"{KAGGLE.questions[0].title} (0.100)"
    )


def test_a_model_that_breaks_a_tree_which_it_should_obey_is_reported(plain_dataset: Dataset, tmp_path: Path) -> None:
    evaluation = evaluation_of(tmp_path / "run", plain_dataset, "noisy")
    violation = next(chart for chart in findings.trust(evaluation) if chart.name == "violation")
    assert "should obey the tree by construction, but these predictions are off by up to" in violation.caption
    assert "rounding" not in violation.alt + violation.caption


def _wrong_numbers(text: str) -> Iterator[str]:
    """The text with each of its numbers changed, one at a time."""
    for number in re.finditer(r"\d+(\.\d+)?(e-\d+)?", text):
        if number[0] not in ("95", "90", "0.7", "0.8", "2015", "1", "1,000", "000", "20", "0", "100"):
            changed = f"{float(number[0]) * 1.5 + 0.3:.4f}" if "." in number[0] or "e" in number[0] else str(int(number[0]) + 7)
            yield text[: number.start()] + changed + text[number.end() :]


def test_the_checks_notice_a_wrong_number_and_a_sentence_without_a_check(plain_dataset: Dataset, tmp_path: Path) -> None:
    evaluation = evaluation_of(tmp_path / "run", plain_dataset, "good", DECALS, "counted", **RECIPES["best"]())
    facts, changed = _facts(evaluation), 0
    for name, texts in texts_of(charts_of(evaluation)).items():
        for text in texts:
            for wrong in _wrong_numbers(text):
                with pytest.raises(AssertionError):
                    check_texts(facts, {wrong: (wrong, "")})
                changed += 1
            check_texts(facts, {name: (text, "")})
    assert changed > 20
    with pytest.raises(AssertionError, match="0 checks for the sentence 'This is a very good model'"):
        check_texts(facts, {"ladder": ("This is a very good model.", "")})


@pytest.mark.parametrize("change", [{"head": "sigmoid"}, {"loss": "mse"}, {"augment": "none"}, {"ema": 0.9}], ids=str)
def test_the_checks_notice_sentences_of_other_settings(plain_dataset: Dataset, tmp_path: Path, change: dict[str, Any]) -> None:
    evaluation = evaluation_of(tmp_path / "run", plain_dataset)
    facts, texts = _facts(evaluation), texts_of(charts_of(evaluation))
    check_texts(facts, texts)
    with pytest.raises(AssertionError):
        check_texts(replace(facts, settings={**facts.settings, **change}), texts)


# What the sentences on losses say.


@pytest.mark.slow
@pytest.mark.parametrize("tree", [KAGGLE, DECALS], ids=["kaggle", "decals5"])
@pytest.mark.parametrize(("loss", "with_counts"), [("mse", False), ("cross_entropy", False), ("cross_entropy", True)])
def test_a_loss_is_minimised_by_the_mean_that_the_page_states(
    loaded_backend: None, tree: Tree, loss: str, with_counts: bool
) -> None:
    """For galaxies that get the same prediction, no other prediction that obeys the tree has a smaller loss."""
    from trainer.network.losses import loss_function

    draws = np.random.default_rng(1)
    votes = random_votes(12, draws, tree)
    answered = draws.integers(1, 60, (12, len(tree.questions)))
    mean = votes.mean(axis=0, keepdims=True)
    best, batch = mean, votes
    if with_counts:
        weights = answered[:, [tree.question_of(column).index for column in range(len(tree.columns))]]
        weighted = (tree.conditional(votes, 0.0) * weights).sum(axis=0, keepdims=True) / weights.sum(axis=0)
        best, batch = with_shares(tree, weighted), np.concatenate([votes, answered], axis=1)
    measured = loss_function(loss, tree, with_counts)

    def loss_of(fractions: np.ndarray) -> float:
        return float(np.asarray(measured(np.repeat(fractions, 12, axis=0).astype(np.float32), batch.astype(np.float32))))

    least = loss_of(best)
    shares = tree.conditional(best, 0.0)
    for _ in range(20):
        moved = shares * np.exp(draws.normal(0, 0.3, shares.shape))
        for question in tree.questions:
            moved[:, question.columns] /= moved[:, question.columns].sum()
        assert loss_of(with_shares(tree, moved)) > least
    if with_counts:
        assert loss_of(mean) > least


@pytest.mark.slow
def test_a_dirichlet_multinomial_likelihood_weighs_a_question_by_its_answers_less_than_in_proportion(
    loaded_backend: None,
) -> None:
    from trainer.network.losses import loss_function

    said = "In training, each question of a galaxy was weighted by the number of its answers, less than in proportion."
    assert wording.weighting(None, DECALS, "counted", "dirichlet_multinomial") == said
    measured = loss_function("dirichlet_multinomial", DECALS, True)
    votes = random_votes(1, np.random.default_rng(2), DECALS)
    concentrations = np.full((1, len(DECALS.questions)), 10.0)

    def gain(answers: int) -> float:
        """By how much the loss of the right fractions is lower than that of wrong ones."""
        batch = np.concatenate([votes, np.full((1, len(DECALS.questions)), answers)], axis=1).astype(np.float32)
        wrong = random_votes(1, np.random.default_rng(3), DECALS)
        right, other = (np.concatenate([part, concentrations], axis=1).astype(np.float32) for part in (votes, wrong))
        return float(np.asarray(measured(other, batch)) - np.asarray(measured(right, batch)))

    gains = [gain(answers) for answers in (5, 10, 20, 40)]
    assert all(less < more < 2 * less for less, more in itertools.pairwise(gains))


# Words that stand for numbers, and headlines.


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0149, "0.02"), (0.02, "0.02"), (0.00999, "0.01"), (1e-9, "1e-09"), (0.3, "0.3"), (0.7, "0.7")],
)
def test_an_upper_bound_is_one(value: float, text: str) -> None:
    assert wording.upper_bound(value) == text and float(text) >= value


def test_an_upper_bound_is_never_below_the_value() -> None:
    values = 10.0 ** np.random.default_rng(0).uniform(-12, 0, 2000)
    bounds = np.array([float(wording.upper_bound(value)) for value in values])
    assert (bounds >= values).all() and (bounds <= 2.0001 * values).all()


def test_no_share_is_rounded_to_none_or_all() -> None:
    assert [wording.percent(share) for share in (0, 0.001, 0.014, 0.5, 0.994, 0.9951, 1)] == [
        *("0%", "under 1%", "1%", "50%", "99%", "over 99%", "100%"),
    ]


def test_a_headline_counts_one_galaxy(plain_dataset: Dataset, tmp_path: Path) -> None:
    assert report.headline(evaluation_of(tmp_path / "run", plain_dataset, galaxies=1)).startswith("On 1 unseen galaxy, ")
