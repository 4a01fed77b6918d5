"""Each sentence beside a chart of a run is true of the run's settings and numbers, whatever these are.

Every alternative text and caption is split into sentences, each sentence must be one that CLAIMS lists, and its check compares
it with numbers computed here, by plain loops, from predictions, votes and history. So a new sentence needs a check.
"""

import html
import itertools
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import random_counts, random_votes
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from tfrecords.tree import Question, Tree, column_means
from trainer.analysis import findings, metrics, report, wording
from trainer.analysis.findings import Evaluation
from trainer.analysis.page import Chart
from trainer.config import DEFAULTS, RECIPES, TrainConfig
from trainer.history import Epoch
from trainer.run import OWN, Run
from trainer.tables import Predictions, read_csv

KAGGLE, DECALS = builtin_tree(), builtin_tree("decals5")
LOSSES = {"sigmoid": "mse", "tree": "cross_entropy", "dirichlet": "dirichlet_multinomial"}
LABELS = {"zeros": "all zeros", "train_mean": "column means of train"}


@dataclass(frozen=True)
class Facts:
    """What the sentences are about. interval: of the RMSE, from metrics.json; trained: how the run's votes got their counts."""

    settings: Mapping[str, Any]
    trained: object
    tree: Tree
    predicted: np.ndarray
    targets: np.ndarray
    asked: np.ndarray | None
    assumed: bool
    concentrations: np.ndarray | None
    means: np.ndarray | None
    history: tuple[Epoch, ...]
    interval: tuple[float, float]

    @cached_property
    def counts(self) -> np.ndarray:
        """Whether each vote fraction counts: bool (galaxies, n)."""
        counts = np.ones(self.targets.shape, bool)
        for question in self.tree.questions if self.asked is not None else ():
            counts[:, question.columns] = (np.asarray(self.asked)[:, question.index] > 0)[:, None]
        return counts

    def columns(self, values: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
        """A number for each column, from its predictions and votes that count; NaN if there are none."""
        rows = [self.counts[:, column] for column in range(len(self.tree.columns))]
        return np.array(
            [
                values(self.predicted[row, column].astype(np.float64), self.targets[row, column].astype(np.float64))
                if row.any()
                else np.nan
                for column, row in enumerate(rows)
            ]
        )

    @cached_property
    def mse(self) -> np.ndarray:
        return self.columns(lambda predicted, voted: float(((predicted - voted) ** 2).mean()))

    @cached_property
    def variance(self) -> np.ndarray:
        return self.columns(lambda _, voted: float(voted.var()))

    @cached_property
    def mean(self) -> np.ndarray:
        return self.columns(lambda _, voted: float(voted.mean()))

    @cached_property
    def by_question(self) -> np.ndarray:
        """The RMSE of each question: (questions,)."""
        return np.array([np.sqrt(self.mse[question.columns].mean()) for question in self.tree.questions])

    @cached_property
    def rmse(self) -> float:
        return float(np.sqrt(self.error_of(self.predicted)))

    def error_of(self, predicted: np.ndarray) -> float:
        squares = np.broadcast_to((np.asarray(predicted, np.float64) - self.targets) ** 2, self.targets.shape)
        return float(squares[self.counts].mean())

    @cached_property
    def baselines(self) -> dict[str, float]:
        guesses = {"zeros": np.zeros(len(self.tree.columns)), **({} if self.means is None else {"train_mean": self.means})}
        return {LABELS[name]: float(np.sqrt(self.error_of(guess))) for name, guess in guesses.items()}

    def is_asked(self, galaxy: int, question: Question) -> bool:
        reached = sum(self.targets[galaxy, parent] for parent in question.parents) if question.parents else 1.0
        return bool(reached >= 0.5 and (self.asked is None or self.asked[galaxy, question.index] > 0))

    @cached_property
    def agreements(self) -> list[tuple[int, float, bool]]:
        """For each question and galaxy that counts: the question, the agreement, whether the most voted answer is predicted."""
        pairs = []
        for galaxy, question in itertools.product(range(len(self.targets)), self.tree.questions):
            if self.is_asked(galaxy, question):
                voted = self.targets[galaxy, question.columns].astype(np.float64)
                shares = voted / voted.sum() if voted.sum() > 0 else np.full(len(voted), 1 / len(voted))
                entropy = -sum(share * np.log(share) for share in shares if share > 0)
                right = self.predicted[galaxy, question.columns].argmax() == voted.argmax()
                pairs.append((question.index, float(1 - entropy / np.log(len(voted))), bool(right)))
        return pairs

    @cached_property
    def dots(self) -> list[np.ndarray]:
        """For each question, (predicted, voted) fractions of those asked, in order of the prediction: (answers, 2)."""
        guessed = self.tree.conditional(self.predicted, 0.0)
        tables = []
        for question in self.tree.questions:
            pairs = []
            for galaxy in range(len(self.targets)):
                if self.is_asked(galaxy, question):
                    voted = self.targets[galaxy, question.columns].astype(np.float64)
                    voted = voted / voted.sum() if voted.sum() > 0 else np.full(len(voted), 1 / len(voted))
                    pairs += list(zip(guessed[galaxy, question.columns], voted, strict=True))
            table = np.array(pairs).reshape(-1, 2)
            table = table[~np.isnan(table[:, 0])]
            tables.append(table[np.argsort(table[:, 0], kind="stable")])
        return tables

    @cached_property
    def gaps(self) -> np.ndarray:
        """For each question, the mean distance of the dots from the diagonal, weighted by their answers; NaN without any."""
        gaps = []
        for table in self.dots:
            parts = [part for part in np.array_split(table, 10) if len(part)]
            off = [abs(part[:, 0].mean() - part[:, 1].mean()) * len(part) for part in parts]
            gaps.append(sum(off) / len(table) if len(table) else np.nan)
        return np.array(gaps)

    def violations(self, votes: np.ndarray, used: bool = False) -> np.ndarray:
        """How far sums are from the tree: (galaxies, questions). used: only those of questions that somebody answered."""
        votes = votes.astype(np.float64)
        off = np.zeros((len(votes), len(self.tree.questions)))
        for question in self.tree.questions:
            whole = sum(votes[:, parent] for parent in question.parents) if question.parents else 1.0
            off[:, question.index] = np.abs(votes[:, question.columns].sum(axis=1) - whole)
        return np.where(np.asarray(self.asked) > 0, off, 0) if used and self.asked is not None else off

    @cached_property
    def coverage(self) -> tuple[np.ndarray, np.ndarray]:
        """For each question, the share of intervals that hold the votes and that should, (questions, 2), and their number."""
        from scipy.stats import betabinom

        assert self.concentrations is not None
        shares, sizes = np.full((len(self.tree.questions), 2), np.nan), np.zeros(len(self.tree.questions))
        for question in self.tree.questions:
            pairs = []
            for galaxy in range(len(self.targets)):
                votes = self.targets[galaxy, question.columns].astype(np.float64)
                answers = (
                    self.tree.volunteers * votes.sum() if self.asked is None else float(self.asked[galaxy, question.index])
                )
                if round(answers) >= 1 and votes.sum() > 0:
                    guessed = self.predicted[galaxy, question.columns].astype(np.float64)
                    alphas = guessed / guessed.sum() * self.concentrations[galaxy, question.index]
                    given = [round(answers * vote / votes.sum()) for vote in votes]
                    pairs += [(round(answers), *pair, alphas.sum()) for pair in zip(given, alphas, strict=True)]
            if pairs:
                number, count, alpha, total = np.array(pairs).T
                model = betabinom(number.astype(int), alpha, total - alpha)
                low, high = model.ppf(0.05), model.ppf(0.95)
                shares[question.index] = (
                    ((low <= count) & (count <= high)).mean(),
                    (model.cdf(high) - model.cdf(low - 1)).mean(),
                )
                sizes[question.index] = len(pairs)
        return shares, sizes

    @cached_property
    def best(self) -> Epoch | None:
        """The epoch with the lowest validation MSE; None without validation."""
        measured = sorted((row for row in self.history if row.val_mse == row.val_mse), key=lambda row: row.val_mse)
        return measured[0] if measured else None


Check = Callable[..., None]
CLAIMS: list[tuple[re.Pattern[str], Check]] = []


def claim(pattern: str) -> Callable[[Check], Check]:
    """The check of a sentence: gets the facts and the groups of the pattern."""

    def listed(check: Check) -> Check:
        CLAIMS.append((re.compile(pattern), check))
        return check

    return listed


def sentences(text: str) -> list[str]:
    return [sentence.removesuffix(".") for sentence in re.split(r"(?<=\.) (?=[A-Z“])", text) if sentence]


def check_texts(facts: Facts, texts: Mapping[str, tuple[str, str]]) -> None:
    """Check each sentence of the charts: name -> (alternative text, caption)."""
    for name, parts in texts.items():
        for sentence in (one for part in parts for one in sentences(part)):
            assert not re.search(r"\bnan\b|–", sentence), f"{name}: {sentence}"
            matches = [(match, check) for pattern, check in CLAIMS if (match := pattern.fullmatch(sentence))]
            assert len(matches) == 1, f"{name}: {len(matches)} checks for the sentence {sentence!r}"
            [(match, check)] = matches
            check(facts, *match.groups())


def _places(facts: Facts, called: str) -> set[int] | int:
    """The questions that a text calls by name, or their number."""
    if number := re.fullmatch(r"(\d+) questions?", called):
        return int(number[1])
    questions = facts.tree.questions
    if called.startswith("question "):
        return {question.index for question in questions if f"question {question.called()}" == called}
    names = re.findall(r"“(.+?)”", called) or re.split(r", | and ", called.removeprefix("questions "))
    return {question.index for question in questions if (question.key if question.numbered else question.title) in names}


def _assert_largest(facts: Facts, called: str, values: np.ndarray) -> None:
    """Exactly the questions that a text calls by name have the largest value."""
    largest = {int(place) for place in np.flatnonzero(values >= np.nanmax(values) - 1e-6)}
    places = _places(facts, called)
    assert places in (largest, len(largest)), f"{called}: {largest}"


def _percent(text: str, share: float) -> None:
    """A text in per cent is that of a share; 0% and 100% stand for none and all."""
    if text in ("under 1%", "over 99%"):
        assert 0 < share < 0.01 if text == "under 1%" else 0.99 < share < 1
        return
    assert float(text.removesuffix("%")) == pytest.approx(100 * share, abs=0.5001)
    assert (text == "0%") <= (share == 0) and (text == "100%") <= (share == 1)


@claim(r"Ladder of scores: RMSE ([\d.]+)( of a single galaxy)?, (.+)")
def _(facts: Facts, rmse: str, alone: str | None, rest: str) -> None:
    assert float(rmse) == pytest.approx(facts.rmse, abs=6e-5) and bool(alone) == (len(facts.targets) == 1)
    low, high = facts.interval
    clearly = "" if alone else "clearly "
    told = []
    for part in rest.split("; "):
        words, _, labels = part.partition(" than ")
        for label in labels.split(" and "):
            value = facts.baselines[label]
            expected = f"{clearly}better" if value > high else f"{clearly}worse" if value < low else None
            assert words == (expected or f"neither {clearly}better nor {clearly}worse")
            told.append(label)
    assert sorted(told) == sorted(facts.baselines)


@claim(
    r"Root mean squared error over all galaxies and (columns|the questions that somebody answered)(, the challenge's measure,)?"
    r"( with its 95 % interval from 1,000 resamples of the galaxies; a baseline outside it is clearly better or worse)?"
)
def _(facts: Facts, over: str, challenge: str | None, interval: str | None) -> None:
    assert (over == "columns") == facts.counts.all()
    assert bool(challenge) == (facts.tree.name == "kaggle" and facts.asked is None)
    assert bool(interval) == (len(facts.targets) > 1)
    draws, errors = np.random.default_rng(99), ((facts.predicted.astype(np.float64) - facts.targets) ** 2)
    resampled = []
    for _resample in range(1000):
        rows = draws.integers(0, len(errors), len(errors))
        resampled.append(np.sqrt(errors[rows][facts.counts[rows]].mean()))
    ends = np.percentile(resampled, (2.5, 97.5))
    np.testing.assert_allclose(facts.interval, ends, atol=0.15 * (ends[1] - ends[0]) + 1e-6)


@claim(r"Filled bars were measured on the same galax(y|ies)")
def _(facts: Facts, ending: str) -> None:
    assert (ending == "y") == (len(facts.targets) == 1)


@claim("Open bars were published for other test sets of real galaxies and are shown for reference only")
def _(facts: Facts) -> None:
    assert facts.tree.scores


@claim(r"Decision tree coloured by RMSE: highest for (.+) \(([\d.]+)\), lowest for (.+) \(([\d.]+)\)")
def _(facts: Facts, hardest: str, highest: str, clearest: str, lowest: str) -> None:
    _assert_largest(facts, hardest, facts.by_question)
    _assert_largest(facts, clearest, -facts.by_question)
    assert float(highest) == pytest.approx(np.nanmax(facts.by_question), abs=6e-4)
    assert float(lowest) == pytest.approx(np.nanmin(facts.by_question), abs=6e-4)
    assert np.nanmin(facts.by_question) < np.nanmax(facts.by_question)


@claim(r"Decision tree coloured by RMSE: ([\d.]+) for (.+)")
def _(facts: Facts, rmse: str, called: str) -> None:
    measured = facts.by_question[~np.isnan(facts.by_question)]
    assert np.ptp(measured) < 1e-6 and float(rmse) == pytest.approx(measured[0], abs=6e-4)
    _assert_largest(facts, called, facts.by_question)


@claim(
    r"Each box is a question that volunteers were asked, with its answers( and their columns)?; brighter boxes have larger "
    r"errors"
)
def _(facts: Facts, columns: str | None) -> None:
    assert bool(columns) == (facts.tree.name == "kaggle")  # boxes show "1.1: smooth", or the answers alone


@claim("Boxes without colour are questions that nobody answered")
def _(facts: Facts) -> None:
    assert facts.asked is not None and (facts.asked.max(axis=0) == 0).any()


@claim("Each box links to the section of its question")
def _(facts: Facts) -> None: ...


@claim(r"RMSE of each answer: (none is predicted better than by its mean|highest skill for (.+) \(([\d.e-]+)\))")
def _(facts: Facts, _said: str, column: str | None, skill: str | None) -> None:
    varies = facts.variance > 1e-15
    skills = 1 - facts.mse[varies] / facts.variance[varies]
    if column is None:
        assert len(skills) and skills.max() <= 0
        return
    assert float(skill or "nan") == pytest.approx(skills.max(), abs=5.1e-3) and skills.max() > 0
    names = np.array(facts.tree.columns)[varies][skills >= skills.max() - 1e-6]
    assert column == f"{len(names)} answers" or {*re.split(", | and ", column)} == {*names}


@claim("RMSE of each answer: the votes on each are all equal here, so skill is undefined")
def _(facts: Facts) -> None:
    assert not (facts.variance > 1e-15).any()


@claim("RMSE of each answer( with its 95 % interval)?")
def _(facts: Facts, interval: str | None) -> None:
    assert bool(interval) == (len(facts.targets) > 1)


@claim(r"The blue bar is shorter than the open one, of the column means of train, for (\d+) of (\d+) answers")
def _(facts: Facts, shorter: str, number: str) -> None:
    assert facts.means is not None
    of_means = [
        ((facts.targets[facts.counts[:, column], column].astype(np.float64) - mean) ** 2).mean() if mse == mse else np.nan
        for column, (mean, mse) in enumerate(zip(facts.means, facts.mse, strict=True))
    ]
    assert int(shorter) == (facts.mse < np.array(of_means)).sum() and int(number) == (~np.isnan(facts.mse)).sum()


@claim("Skill, listed with each question, is 1 - MSE / variance of its votes")
def _(facts: Facts) -> None: ...


@claim(
    r"(?:Maximum agreement: lower in the predictions than in the votes for|The largest value of each column in the votes and "
    r"in the predictions; the predicted one is lower for) (\d+) of (\d+)(?: columns)?"
)
def _(facts: Facts, lower: str, number: str) -> None:
    gap = facts.columns(lambda predicted, voted: predicted.max() - voted.max())
    assert int(number) == (~np.isnan(gap)).sum() and int(lower) == (gap < 0).sum()


@claim(
    r"The model was trained on (.+), which is minimised by the mean of all galaxies that look alike to it(, where somebody "
    r"answered the question|, each weighted by how many volunteers (answered|are assumed to have answered) each question)?"
)
def _(facts: Facts, loss: str, weighted: str | None, answered: str | None) -> None:
    """What minimises the losses: below."""
    assert loss == {"mse": "squared error", "cross_entropy": "cross-entropy"}[facts.settings["loss"]]
    assert bool(weighted) == bool(facts.trained) and bool(answered) == bool(facts.trained and loss == "cross-entropy")
    assert answered is None or ("assumed" in answered) == (facts.trained == "assumed")


@claim(
    "The model was trained on the likelihood of the votes, Dirichlet-multinomial with its predictions as means: galaxies that "
    "look alike to it get the same prediction"
)
def _(facts: Facts) -> None:
    assert facts.settings["loss"] == "dirichlet_multinomial"


@claim("A mean is never more extreme than the most extreme galaxy behind it")
def _(facts: Facts) -> None:
    """Of a model that learns a mean, and where it explains what the chart shows."""
    gap = facts.columns(lambda predicted, voted: predicted.max() - voted.max())
    assert facts.settings["loss"] in ("mse", "cross_entropy") and (gap < 0).sum() > (~np.isnan(gap)).sum() / 2


@claim(
    r"(The error of an answer follows|Here the error of an answer does not follow) the spread of its votes(?: closely)? "
    r"\(correlation ([\d.-]+) with the variance, ([\d.-]+) with the mean\)"
)
def _(facts: Facts, said: str, with_variance: str, with_mean: str) -> None:
    measured = ~np.isnan(facts.mse)
    for text, other in ((with_variance, facts.variance), (with_mean, facts.mean)):
        first, second = (values[measured] - values[measured].mean() for values in (facts.mse, other))
        assert float(text) == pytest.approx((first @ second) / np.sqrt((first @ first) * (second @ second)), abs=5.1e-3)
    assert ("does not" in said) == (float(with_variance) <= 0.7)


@claim("The errors or the spreads of all answers are equal here, so they cannot be related")
def _(facts: Facts) -> None:
    measured = ~np.isnan(facts.mse)
    assert min(np.ptp(facts.mse[measured]), np.ptp(facts.variance[measured])) < 1e-15


@claim(
    r"The dashes are the errors of a model that predicts only the means of these galaxies; the dots of this model are lower "
    r"for (\d+) of (\d+) answers"
)
def _(facts: Facts, lower: str, number: str) -> None:
    margin = 1e-12  # rounding decides about equal numbers
    less = [(facts.mse < facts.variance + sign * margin).sum() for sign in (-1, 1)]
    assert less[0] <= int(lower) <= less[1] and int(number) == (~np.isnan(facts.mse)).sum()


@claim("Answers with a mean near 0 or 1 have little room to spread")
def _(facts: Facts) -> None:
    measured = ~np.isnan(facts.mean)
    assert (facts.variance[measured] <= facts.mean[measured] * (1 - facts.mean[measured]) + 1e-7).all()


@claim(r"Calibration per question: furthest from the diagonal for (.+), by ([\d.]+) on average")
def _(facts: Facts, called: str, gap: str) -> None:
    assert float(gap) == pytest.approx(np.nanmax(facts.gaps), abs=6e-4)
    _assert_largest(facts, called, facts.gaps)


@claim("Calibration per question: of no galaxy were half of the volunteers asked")
def _(facts: Facts) -> None:
    assert np.isnan(facts.gaps).all()


@claim(
    "Voted against predicted fraction: on the diagonal, answers with a predicted 0.7 have 0.7 of the votes on average|"
    "The more the volunteers agree, the easier their most voted answer should be to predict|"
    r"Agreement is 1 - entropy / maximum entropy \(Dieleman et al. 2015\)"
)
def _(facts: Facts) -> None: ...


@claim(r"Fractions are of the volunteers who were asked; galaxies count if at least half were( and somebody answered)?")
def _(facts: Facts, answered: str | None) -> None:
    assert bool(answered) == (facts.asked is not None)


@claim("Each dot is a tenth of a question's answers(, or one of fewer than ten)?")
def _(facts: Facts, few: str | None) -> None:
    assert bool(few) == any(0 < len(table) < 10 for table in facts.dots)


@claim(
    r"At an agreement of 0.8 or more, the most voted answer is predicted in ((?:over |under )?\d+%) of cases"
    r"(?:, below in ((?:over |under )?\d+%))?"
)
def _(facts: Facts, clear: str, unclear: str | None) -> None:
    for text, chosen in ((clear, True), (unclear, False)):
        right = [hit for _, agreement, hit in facts.agreements if (agreement >= 0.8) == chosen]
        assert bool(right) == (text is not None)
        if text is not None:
            _percent(text, float(np.mean(right)))


@claim("No galaxy has an agreement of 0.8 or more")
def _(facts: Facts) -> None:
    assert all(agreement < 0.8 for _, agreement, _ in facts.agreements)


@claim("Grey bars hold fewer than 20 galaxies")
def _(facts: Facts) -> None:
    bars = Counter((question, min(int(10 * max(agreement, 0)), 9)) for question, agreement, _ in facts.agreements)
    assert min(bars.values()) < 20


@claim(r"Violation of the tree: highest median for (.+), ([\d.e-]+)")
def _(facts: Facts, called: str, median: str) -> None:
    medians = np.median(facts.violations(facts.predicted), axis=0)
    assert float(median) == pytest.approx(medians.max(), rel=0.051)
    _assert_largest(facts, called, medians)


@claim(r"Violation of the tree: rounding errors only, at most ([\d.e-]+)")
def _(facts: Facts, bound: str) -> None:
    assert facts.settings["head"] != "sigmoid"
    assert facts.violations(facts.predicted).max() <= float(bound) <= 2e-5


@claim("The columns of a question must add up to 1, or to the columns that lead to it")
def _(facts: Facts) -> None: ...


@claim(r"Those of the votes do, (?:exactly|to within ([\d.e-]+))")
def _(facts: Facts, bound: str | None) -> None:
    off = facts.violations(facts.targets, used=True).max()
    assert off == 0 if bound is None else off <= float(bound) <= 2 * off


@claim("This model predicts each column independently; the chart shows how far its sums are off")
def _(facts: Facts) -> None:
    assert facts.settings["head"] == "sigmoid"


@claim(
    r"This model's outputs (obey|should obey) the tree by construction, (?:so its sums are off by rounding errors only, at most"
    r"|but these predictions are off by up to) ([\d.e-]+)"
)
def _(facts: Facts, said: str, bound: str) -> None:
    off = facts.violations(facts.predicted).max()
    assert facts.settings["head"] in ("tree", "dirichlet") and (said == "obey") == (off <= 1e-5)
    assert off <= float(bound) <= 2 * off


@claim(
    r"(?:Intervals: )?((?:over |under )?\d+%) of the 90 % intervals hold the votes(?:; furthest from what the model expects "
    r"for (.+), ((?:over |under )?\d+%) instead of ((?:over |under )?\d+%)|: for each question, the share of galaxies and "
    r"answers whose number of votes lies in the interval that the model predicts)"
)
def _(facts: Facts, held: str, called: str | None, measured: str | None, expected: str | None) -> None:
    shares, sizes = facts.coverage
    _percent(held, float(np.nansum(shares[:, 0] * sizes) / sizes.sum()))
    if called is not None:
        _assert_largest(facts, called, np.abs(shares[:, 0] - shares[:, 1]))
        furthest = int(np.nanargmax(np.abs(shares[:, 0] - shares[:, 1])))
        _percent(str(measured), float(shares[furthest, 0]))
        _percent(str(expected), float(shares[furthest, 1]))


@claim("The strokes are the shares that it expects, above 90 % because votes are whole numbers")
def _(facts: Facts) -> None:
    expected = facts.coverage[0][:, 1]
    assert (expected[~np.isnan(expected)] > 0.9).all()


@claim("A dot to the left of its stroke is a question of which the model is too sure")
def _(facts: Facts) -> None:
    assert facts.settings["head"] == "dirichlet"


@claim(r"As the votes have no counts, (\d+) volunteers are assumed")
def _(facts: Facts, volunteers: str) -> None:
    assert (facts.asked is None or facts.assumed) and int(volunteers) == facts.tree.volunteers


@claim(r"Training history over (\d+) (epochs?)(?:: lowest validation MSE ([\d.]+) in epoch (\d+))?")
def _(facts: Facts, number: str, noun: str, mse: str | None, epoch: str | None) -> None:
    assert int(number) == len(facts.history) and noun == ("epoch" if number == "1" else "epochs")
    assert (mse is None) == (facts.best is None)
    if facts.best is not None:
        assert float(mse or "nan") == pytest.approx(facts.best.val_mse, abs=6e-6) and int(epoch or 0) == facts.best.epoch


@claim(
    r"(\d+) (epochs?) in ([\d.e-]+) (seconds|minutes), counting neither saving nor the part of an epoch before an interruption"
)
def _(facts: Facts, number: str, noun: str, time: str, unit: str) -> None:
    assert int(number) == len(facts.history) and noun == ("epoch" if number == "1" else "epochs")
    seconds = sum(row.seconds for row in facts.history)
    assert (unit == "minutes") == (seconds >= 60)
    assert float(time) == pytest.approx(seconds / 60 if unit == "minutes" else seconds, rel=0.051)


@claim(
    r"Lowest validation MSE ([\d.]+) \(RMSE ([\d.]+)\) in epoch (\d+), whose (weights were|moving average of the weights was) "
    r"kept"
)
def _(facts: Facts, mse: str, rmse: str, epoch: str, kept: str) -> None:
    assert facts.best is not None and int(epoch) == facts.best.epoch
    assert float(mse) == pytest.approx(facts.best.val_mse, abs=6e-6)
    assert float(rmse) == pytest.approx(np.sqrt(facts.best.val_mse), abs=6e-5)
    assert ("average" in kept) == bool(facts.settings["ema"])


@claim(r"Without a validation split, the (weights|moving average of the weights) after the last epoch (?:were|was) kept")
def _(facts: Facts, kept: str) -> None:
    assert facts.best is None and ("average" in kept) == bool(facts.settings["ema"])


@claim(
    r"The MSE on train is measured during an epoch, with dropout( and augmentation)?(; that on validation after it, without)?"
    r"(, and with the moving average of the weights)?"
)
def _(facts: Facts, augmented: str | None, validation: str | None, average: str | None) -> None:
    assert bool(augmented) == (facts.settings["augment"] != "none") and bool(validation) == (facts.best is not None)
    assert bool(average) == (bool(facts.settings["ema"]) and facts.best is not None)


# Synthetic evaluations: each kind of model on votes of each kind, under the settings of each kind of run.

MODELS = ("good", "perfect", "constant", "wrong", "zeros", "noisy")
# The last two do not obey the tree.
KINDS = [(head, model) for head in LOSSES for model in (MODELS if head == "sigmoid" else MODELS[:4])]


def _predicted(kind: str, targets: np.ndarray, means: np.ndarray, tree: Tree, draws: np.random.Generator) -> np.ndarray:
    """The predictions of a kind of model; all but `zeros` and `noisy` obey the tree as well as the votes do."""
    other = random_votes(len(targets), draws, tree)
    values = {
        "good": 0.8 * targets + 0.2 * means,
        "perfect": targets,
        "constant": np.broadcast_to(means, targets.shape),
        "wrong": other,
        "zeros": np.zeros(targets.shape),
        "noisy": np.clip(targets + draws.normal(0, 0.05, targets.shape), 0, 1),
    }[kind]
    return values.astype(np.float32)


def _softened(predicted: np.ndarray, tree: Tree) -> np.ndarray:
    """Predictions as of a softmax: none is 0."""
    return tree.project(np.maximum(predicted, 1e-6)).astype(np.float32)


def _epochs(number: int, has_validation: bool, seconds: float) -> list[Epoch]:
    """A history whose best epoch is in the middle."""
    best = number // 2 + 1
    return [
        Epoch(epoch, 0.05 / epoch, 0.02 + 0.001 * abs(epoch - best) if has_validation else np.nan, 1e-4, seconds, 50.0)
        for epoch in range(1, number + 1)
    ]


def evaluation_of(
    folder: Path,
    dataset: Dataset,
    model: str = "good",
    tree: Tree = KAGGLE,
    asked: str = "",
    galaxies: int = 40,
    history: tuple[int, bool, float] = (3, True, 12.3),
    has_train: bool = True,
    seed: int = 0,
    **settings: Any,
) -> Evaluation:
    """An evaluation of made-up predictions. asked: "counted" or "assumed" numbers of answers; history: see _epochs."""
    draws = np.random.default_rng(seed)
    settings = {**DEFAULTS, **RECIPES["best"](), **settings}
    answered = None
    if asked:
        counts = random_counts(galaxies, draws, tree, 6)
        counts[:, tree.questions[-1].columns] = 0  # nobody answered it
        answered = np.stack([counts[:, question.columns].sum(axis=1) for question in tree.questions], axis=1)
        targets = np.zeros(counts.shape)
        for question in tree.questions:
            shares = counts[:, question.columns] / np.maximum(answered[:, question.index, None], 1)
            targets[:, question.columns] = shares * tree.reached(targets, question)[:, None]
    else:
        targets = random_votes(galaxies, draws, tree)
    targets = targets.astype(np.float32)
    means = column_means(random_votes(60, draws, tree)) if model != "perfect" else column_means(targets)
    predicted = _predicted(model, targets, means, tree, draws)
    concentrations = None
    if settings["head"] == "dirichlet":
        predicted = _softened(predicted, tree)
        concentrations = draws.uniform(1, 60, (galaxies, len(tree.questions))).astype(np.float32)
    ids = np.arange(1, galaxies + 1)
    counted = tree.counted(answered)
    dataset = replace(dataset, tree=tree, source={**dataset.source, "asked": asked})
    of_run = {"fingerprint": dataset.fingerprint, "asked": asked or False, "galaxies": {"train": 60, "test": galaxies}}
    run = Run(folder, {"settings": settings, "dataset": of_run}, tree)
    folder.mkdir(parents=True, exist_ok=True)
    run.write_history(_epochs(*history))
    scores = metrics.score(predicted, targets, tree, counted)
    of_train = means if has_train else None
    content = {
        "rmse": scores.rmse,
        "mse": scores.mse,
        "interval": list(scores.interval),
        "galaxies": galaxies,
        "dataset": dataset.fingerprint,
        "model": "0" * 64,
        "baselines": metrics.baselines(targets, of_train, counted),
    }
    predictions = Predictions(ids, predicted, targets, answered, concentrations, tree)
    return Evaluation(run, dataset, "test", predictions, scores, of_train, content)


def facts_of(evaluation: Evaluation) -> Facts:
    predictions = evaluation.predictions
    return Facts(
        evaluation.run.settings,
        evaluation.run.config["dataset"].get("asked"),
        evaluation.tree,
        predictions.predicted,
        predictions.targets,
        predictions.asked,
        evaluation.dataset.source.get("asked") == "assumed",
        predictions.concentrations,
        evaluation.means,
        tuple(evaluation.run.history()),
        (evaluation.content["interval"][0], evaluation.content["interval"][1]),
    )


def charts_of(evaluation: Evaluation) -> list[Chart]:
    return [
        findings.ladder(evaluation),
        findings.tree_map(evaluation),
        findings.per_class(evaluation),
        *findings.extremes_and_errors(evaluation),
        *findings.trust(evaluation),
        findings.history(evaluation.run),
    ]


def check(evaluation: Evaluation) -> None:
    check_texts(facts_of(evaluation), {chart.name: (chart.alt, chart.caption) for chart in charts_of(evaluation)})


RUNS = [
    {**RECIPES[recipe](), "weights": weights, "epochs": epochs}
    for recipe, weights, epochs in itertools.product(RECIPES, ("none", "imagenet", "runs/other"), (1, 30))
]


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
        check(
            evaluation_of(
                tmp_path / model, plain_dataset, model, tree, asked, galaxies, has_train=False, head=head, loss=LOSSES[head]
            )
        )


@pytest.mark.parametrize("ema", [0.0, 0.99])
@pytest.mark.parametrize("history", [(1, False, 0.31), (1, True, 3.0), (12, False, 700.0), (12, True, 59.0)])
def test_every_sentence_about_the_history_is_true(
    plain_dataset: Dataset, tmp_path: Path, history: tuple[int, bool, float], ema: float
) -> None:
    evaluation = evaluation_of(tmp_path / "run", plain_dataset, galaxies=2, history=history, ema=ema, augment="none")
    chart = findings.history(evaluation.run)
    check_texts(facts_of(evaluation), {"history": (chart.alt, chart.caption)})


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
    facts, changed = facts_of(evaluation), 0
    for chart in charts_of(evaluation):
        for text in (chart.alt, chart.caption):
            for wrong in _wrong_numbers(text):
                with pytest.raises(AssertionError):
                    check_texts(facts, {wrong: (wrong, "")})
                changed += 1
            check_texts(facts, {chart.name: (text, "")})
    assert changed > 20
    with pytest.raises(AssertionError, match="0 checks for the sentence 'This is a very good model'"):
        check_texts(facts, {"ladder": ("This is a very good model.", "")})


@pytest.mark.parametrize("change", [{"head": "sigmoid"}, {"loss": "mse"}, {"augment": "none"}, {"ema": 0.9}], ids=str)
def test_the_checks_notice_sentences_of_other_settings(plain_dataset: Dataset, tmp_path: Path, change: dict[str, Any]) -> None:
    evaluation = evaluation_of(tmp_path / "run", plain_dataset)
    texts = {chart.name: (chart.alt, chart.caption) for chart in charts_of(evaluation)}
    facts = facts_of(evaluation)
    check_texts(facts, texts)
    with pytest.raises(AssertionError):
        check_texts(replace(facts, settings={**facts.settings, **change}), texts)


# What the sentences on losses say.


def _with_shares(tree: Tree, shares: np.ndarray) -> np.ndarray:
    """Cumulative fractions (1, n) of shares of those asked (n,)."""
    fractions = np.zeros((1, len(tree.columns)))
    for question in tree.questions:
        fractions[:, question.columns] = shares[question.columns] * tree.reached(fractions, question)[:, None]
    return fractions


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
    weights = np.ones((12, len(tree.columns)))
    if with_counts:
        weights = np.stack([answered[:, tree.question_of(column).index] for column in range(len(tree.columns))], axis=1)
        conditional = tree.conditional(votes, 0.0)
        shares = (conditional * weights).sum(axis=0) / weights.sum(axis=0)
        best = _with_shares(tree, shares)
    else:
        best = votes.mean(axis=0, keepdims=True)
    batch = np.concatenate([votes, answered], axis=1) if with_counts else votes
    measured = loss_function(loss, tree, with_counts)

    def loss_of(fractions: np.ndarray) -> float:
        return float(np.asarray(measured(np.repeat(fractions, 12, axis=0).astype(np.float32), batch.astype(np.float32))))

    least = loss_of(best)
    shares = tree.conditional(best, 0.0)[0]
    for _ in range(20):
        moved = shares * np.exp(draws.normal(0, 0.3, len(shares)))
        for question in tree.questions:
            moved[question.columns] /= moved[question.columns].sum()
        assert loss_of(_with_shares(tree, moved)) > least
    if with_counts:
        assert loss_of(votes.mean(axis=0, keepdims=True)) > least


@pytest.mark.slow
def test_a_dirichlet_multinomial_likelihood_weighs_a_question_by_its_answers_less_than_in_proportion(
    loaded_backend: None,
) -> None:
    from trainer.network.losses import loss_function

    sentence = wording.weighting(None, DECALS, "counted", "dirichlet_multinomial")
    assert (
        sentence
        == "In training, and less than in proportion, each question of a galaxy was weighted by the number of its answers."
    )
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


# Words that stand for numbers.


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


# Trained runs: the sentences of the finished pages, with the predictions in the run folder.


class Tables(HTMLParser):
    """The tables of a page: rows of cells; the first row is the header."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.tables[-1][-1][-1] += data

    def of(self, *header: str) -> list[list[dict[str, str]]]:
        """The rows of the tables that begin with these columns."""
        chosen = [table for table in self.tables if tuple(table[0][: len(header)]) == header]
        return [[dict(zip(table[0], row, strict=True)) for row in table[1:]] for table in chosen]


@dataclass(frozen=True)
class Trained:
    """A run with its page, its dataset, and the facts of its record."""

    run: Run
    dataset: Dataset
    page: str
    facts: Facts

    @property
    def texts(self) -> dict[str, tuple[str, str]]:
        """Alternative text and caption of each chart on the page."""
        figure = r'<figure id="([^"]+)"[^>]*>.*?<img alt="([^"]+)".*?<figcaption>([^<]*)'
        parts = re.findall(figure, self.page, re.DOTALL)
        return {name: (html.unescape(alt), html.unescape(caption).strip()) for name, alt, caption in parts}


def trained(run: Run, dataset: Dataset) -> Trained:
    from tfrecords.reader import votes_of

    predictions = read_csv(run.path(OWN.predictions), dataset.tree, votes_of(dataset, "test"))
    content = json.loads(run.path(OWN.metrics).read_text("utf-8"))
    train = votes_of(dataset, "train")
    means = np.zeros(len(dataset.tree.columns))
    for column in range(len(means)):
        question = dataset.tree.question_of(column)
        rows = slice(None) if train.asked is None else train.asked[:, question.index] > 0
        means[column] = train.targets[rows, column].mean(dtype=np.float64) if len(train.targets[rows, column]) else 0
    facts = Facts(
        run.settings,
        run.config["dataset"]["asked"],
        dataset.tree,
        predictions.predicted,
        predictions.targets,
        predictions.asked,
        dataset.source.get("asked") == "assumed",
        predictions.concentrations,
        means,
        tuple(run.history()),
        (content["interval"][0], content["interval"][1]),
    )
    return Trained(run, dataset, run.path(OWN.report).read_text("utf-8"), facts)


@pytest.fixture(scope="module")
def runs(
    tiny_run: Run, plain_dataset: Dataset, build_settings: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Trained]]:
    """Trained runs of both recipes, on two trees, from random weights and from another run, for one epoch and several."""
    from preprocess.demo import make_demo
    from preprocess.job import build_dataset
    from trainer.train import train_model

    folder = tmp_path_factory.mktemp("truth")
    make_demo(folder / "source", 60, tree="decals5")
    decals = build_dataset(folder / "source", folder / "data", build_settings(), workers=1).dataset
    small = {"batch_size": 16, "warmup_steps": 0, "backbone": "small", "learning_rate": 1e-3}
    best, article = ({**RECIPES[name](), **small} for name in ("best", "article"))
    plans: dict[str, tuple[Dataset, dict[str, Any]]] = {
        "best from a run, 2 epochs": (plain_dataset, {**best, "weights": str(tiny_run.folder), "epochs": 2, "ema": 0.5}),
        "article, decals5, 1 epoch": (decals, {**article, "weights": "none", "epochs": 1}),
        "best from a run, decals5, 2 epochs": (
            decals,
            {**best, "weights": str(folder / "article, decals5, 1 epoch"), "epochs": 2},
        ),
    }
    yield {
        "article, 3 epochs": trained(tiny_run, plain_dataset),
        **{
            name: trained(train_model(TrainConfig(dataset.folder, folder / name, **settings)), dataset)
            for name, (dataset, settings) in plans.items()
        },
    }
    shutil.rmtree(folder)


@pytest.mark.slow
def test_every_sentence_beside_the_charts_of_a_trained_run_is_true(runs: dict[str, Trained]) -> None:
    for each in runs.values():
        ours = {chart.name for chart in charts_of(evaluation_of(each.run.folder.parent / "made-up", each.dataset))}
        assert ours <= each.texts.keys()
        check_texts(each.facts, {name: parts for name, parts in each.texts.items() if name in ours})


@pytest.mark.slow
def test_the_headline_of_a_trained_run_is_true(runs: dict[str, Trained]) -> None:
    for name, each in runs.items():
        heading = re.search(r"<h1>(.*?)</h1>", each.page, re.DOTALL)
        assert heading is not None
        headline, facts = html.unescape(heading[1]), each.facts
        number = len(facts.targets)
        assert headline.startswith(f"On {number} {'unseen galax' if 'from a run' not in name else 'galax'}")
        low, high = facts.interval
        assert f"RMSE of {facts.rmse:.4f} ({low:.4f} to {high:.4f})" in headline
        mean = facts.baselines["column means of train"]
        lower = re.search(r"(\d+)% lower than that of", headline)
        assert (lower is not None) == (high < mean) != ("not clearly better" in headline or "worse" in headline)
        assert "worse" not in headline or low > mean
        if lower:
            assert float(lower[1]) == pytest.approx(100 * (1 - facts.rmse / mean), abs=0.5001)


@pytest.mark.slow
def test_the_tables_of_a_trained_run_hold_the_numbers_of_its_predictions(runs: dict[str, Trained]) -> None:
    for each in runs.values():
        facts, tables, columns = each.facts, Tables(each.page), each.dataset.tree.columns
        rows = [row for table in tables.of("column", "answer", "mean") for row in table]
        assert [row["column"] for row in rows] == list(columns)
        largest = facts.columns(lambda _, voted: voted.max()), facts.columns(lambda predicted, _: predicted.max())
        for column, row in enumerate(rows):
            if np.isnan(facts.mse[column]):
                assert {row[name] for name in ("mean", "MSE", "RMSE", "skill", "max. voted")} == {"–"}
                continue
            assert float(row["mean"]) == pytest.approx(facts.mean[column], abs=6e-4)
            assert float(row["MSE"]) == pytest.approx(facts.mse[column], abs=6e-6)
            assert float(row["RMSE"]) == pytest.approx(np.sqrt(facts.mse[column]), abs=6e-5)
            assert [float(row[f"max. {name}"]) for name in ("voted", "predicted")] == pytest.approx(
                [part[column] for part in largest], abs=6e-3
            )
            if row["skill"] != "–":
                assert float(row["skill"]) == pytest.approx(1 - facts.mse[column] / facts.variance[column], abs=6e-3)
        _check_classes(facts, [row for table in tables.of("class", "threshold") for row in table])


def _check_classes(facts: Facts, rows: list[dict[str, str]]) -> None:
    """Numbers, purity and completeness of each class at each threshold."""
    members = {member.name: member for member in facts.tree.classes}
    assert len(rows) == len(members) * len(facts.tree.thresholds)
    for row in rows:
        places, threshold = list(members[row["class"]].columns), float(row["threshold"])
        guessed, voted = (table[:, places].min(axis=1) >= threshold for table in (facts.predicted, facts.targets))
        both = (guessed & voted).sum()
        assert [int(row[name].replace(",", "")) for name in ("predicted", "voted", "both")] == [
            guessed.sum(),
            voted.sum(),
            both,
        ]
        for name, whole in (("purity", guessed.sum()), ("completeness", voted.sum())):
            assert (
                row[name] == "–" if not whole else float(row[name].strip("%")) == pytest.approx(100 * both / whole, abs=0.5001)
            )


@pytest.mark.slow
def test_the_sentence_of_each_question_is_true(runs: dict[str, Trained]) -> None:
    for each in runs.values():
        facts, text = each.facts, html.unescape(re.sub(r"<[^>]+>", " ", each.page))
        for question in facts.tree.questions:
            rmse = facts.by_question[question.index]
            if question.parents:
                reached = facts.targets[:, list(question.parents)].sum(axis=1, dtype=np.float64).mean()
                leads = " or ".join(facts.tree.columns[parent] for parent in question.parents)
                assert f"On average, {wording.percent(reached)} of a galaxy's volunteers are asked it, after {leads}." in text
            assert np.isnan(rmse) or f"RMSE {rmse:.4f} (" in text


def test_a_headline_counts_one_galaxy(plain_dataset: Dataset, tmp_path: Path) -> None:
    assert report.headline(evaluation_of(tmp_path / "run", plain_dataset, galaxies=1)).startswith("On 1 unseen galaxy, ")
