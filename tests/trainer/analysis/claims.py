"""The sentences that may stand beside a chart of a run, each with the check that compares it with the facts.

`check_texts` splits texts into sentences. Each must match exactly one pattern of CLAIMS, so a new sentence needs a check.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from tests.trainer.analysis.facts import Facts

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
            try:
                check(facts, *match.groups())
            except AssertionError as error:
                error.add_note(f"{name}: {sentence}")
                raise


def assert_rounded(text: str | None, value: float, decimals: int) -> None:
    """A text is a value rounded to so many decimals."""
    assert text is not None and abs(float(text) - value) <= 0.51 * 10**-decimals, f"{text}: {value}"


def _assert_percent(text: str | None, share: float) -> None:
    """A text in per cent is that of a share; 0% and 100% stand for none and all."""
    if text in ("under 1%", "over 99%"):
        assert 0 < share < 0.01 if text == "under 1%" else 0.99 < share < 1, f"{text}: {share}"
        return
    assert text is not None and abs(float(text.removesuffix("%")) - 100 * share) <= 0.5001, f"{text}: {share}"
    assert (text == "0%") <= (share == 0) and (text == "100%") <= (share == 1), f"{text}: {share}"


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
    assert _places(facts, called) in (largest, len(largest)), f"{called}: {largest}"


def _assert_number_measured(facts: Facts, text: str) -> None:
    """A text is the number of columns whose votes count."""
    assert int(text) == (~np.isnan(facts.mse)).sum(), text


def _number_lower(facts: Facts) -> int:
    """Of how many columns the largest prediction is lower than the largest vote."""
    predicted, voted = facts.largest
    return int((predicted < voted).sum())


# Ladder of scores.


@claim(r"Ladder of scores: RMSE ([\d.]+)( of a single galaxy)?, (.+)")
def _(facts: Facts, rmse: str, alone: str | None, rest: str) -> None:
    assert_rounded(rmse, facts.rmse, 4)
    assert bool(alone) == (len(facts.targets) == 1)
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
    r"Root mean squared error over all galaxies and (columns|the questions that somebody answered)(, the challenge's measure)?"
    r"(, with its 95 % interval from 1,000 resamples of the galaxies; a baseline outside it is clearly better or worse)?"
)
def _(facts: Facts, over: str, challenge: str | None, interval: str | None) -> None:
    assert (over == "columns") == facts.counts.all()
    assert bool(challenge) == (facts.tree.name == "kaggle" and facts.asked is None)
    assert bool(interval) == (len(facts.targets) > 1)
    draws, number, resampled = np.random.default_rng(99), len(facts.targets), []
    for _resample in range(1000):
        rows = draws.integers(0, number, number)
        resampled.append(np.sqrt(facts.squares[rows][facts.counts[rows]].mean()))
    ends = np.percentile(resampled, (2.5, 97.5))
    np.testing.assert_allclose(facts.interval, ends, atol=0.15 * (ends[1] - ends[0]) + 1e-6)


# Errors of questions and answers.


@claim(r"Decision tree coloured by RMSE: highest for (.+) \(([\d.]+)\), lowest for (.+) \(([\d.]+)\)")
def _(facts: Facts, hardest: str, highest: str, clearest: str, lowest: str) -> None:
    for called, text, sign in ((hardest, highest, 1), (clearest, lowest, -1)):
        _assert_largest(facts, called, sign * facts.by_question)
        assert_rounded(text, sign * np.nanmax(sign * facts.by_question), 3)
    assert np.nanmin(facts.by_question) < np.nanmax(facts.by_question)


@claim(r"Decision tree coloured by RMSE: ([\d.]+) for (.+)")
def _(facts: Facts, rmse: str, called: str) -> None:
    measured = facts.by_question[~np.isnan(facts.by_question)]
    assert np.ptp(measured) < 1e-6
    assert_rounded(rmse, measured[0], 3)
    _assert_largest(facts, called, facts.by_question)


@claim(r"RMSE of each answer: (none is predicted better than by its mean|highest skill for (.+) \(([\d.e-]+)\))")
def _(facts: Facts, _said: str, column: str | None, skill: str | None) -> None:
    varies = facts.variance > 1e-15
    skills = 1 - facts.mse[varies] / facts.variance[varies]
    assert len(skills) and (column is None) == (skills.max() <= 0)
    if column is not None:
        assert_rounded(skill, skills.max(), 2)
        names = np.array(facts.tree.columns)[varies][skills >= skills.max() - 1e-6]
        assert column == f"{len(names)} answers" or {*re.split(", | and ", column)} == {*names}


@claim(r"The blue bar is shorter than the open one, of the column means of train, for (\d+) of (\d+) answers")
def _(facts: Facts, shorter: str, number: str) -> None:
    assert facts.means is not None
    assert int(shorter) == (facts.mse < facts.guessing(facts.means).mse).sum()
    _assert_number_measured(facts, number)


# Extremes and errors.


@claim(
    r"(?:Maximum agreement: lower in the predictions than in the votes for|The largest value of each column in the votes and "
    r"in the predictions; the predicted one is lower for) (\d+) of (\d+)(?: columns)?"
)
def _(facts: Facts, lower: str, number: str) -> None:
    assert int(lower) == _number_lower(facts)
    _assert_number_measured(facts, number)


@claim(
    r"The model was trained on (.+), which is minimised by the mean of all galaxies that look alike to it(, where somebody "
    r"answered the question|, each weighted by how many volunteers (answered|are assumed to have answered) each question)?"
)
def _(facts: Facts, loss: str, weighted: str | None, answered: str | None) -> None:
    """What minimises the losses: test_truth.py."""
    assert loss == {"mse": "squared error", "cross_entropy": "cross-entropy"}[facts.settings["loss"]]
    assert bool(weighted) == bool(facts.trained) and bool(answered) == bool(facts.trained and loss == "cross-entropy")
    assert answered is None or ("assumed" in answered) == (facts.trained == "assumed")


@claim(
    r"(The error of an answer follows|Here the error of an answer does not follow) the spread of its votes(?: closely)? "
    r"\(correlation ([\d.-]+) with the variance, ([\d.-]+) with the mean\)"
)
def _(facts: Facts, said: str, with_variance: str, with_mean: str) -> None:
    measured = ~np.isnan(facts.mse)
    for text, other in ((with_variance, facts.variance), (with_mean, facts.mean)):
        first, second = (values[measured] - values[measured].mean() for values in (facts.mse, other))
        assert_rounded(text, (first @ second) / np.sqrt((first @ first) * (second @ second)), 2)
    assert ("does not" in said) == (float(with_variance) <= 0.7)


@claim(
    r"The dashes are the errors of a model that predicts only the means of these galaxies; the dots of this model are lower "
    r"for (\d+) of (\d+) answers"
)
def _(facts: Facts, lower: str, number: str) -> None:
    margin = 1e-12  # rounding decides about equal numbers
    least, most = ((facts.mse < facts.variance + sign * margin).sum() for sign in (-1, 1))
    assert least <= int(lower) <= most
    _assert_number_measured(facts, number)


# Trust.


@claim(r"Calibration per question: furthest from the diagonal for (.+), by ([\d.]+) on average")
def _(facts: Facts, called: str, gap: str) -> None:
    assert_rounded(gap, np.nanmax(facts.gaps), 3)
    _assert_largest(facts, called, facts.gaps)


@claim(
    r"At an agreement of 0.8 or more, the most voted answer is predicted in ((?:over |under )?\d+%) of cases"
    r"(?:, below in ((?:over |under )?\d+%))?"
)
def _(facts: Facts, clear: str, unclear: str | None) -> None:
    for text, chosen in ((clear, True), (unclear, False)):
        right = [hit for _, agreement, hit in facts.agreements if (agreement >= 0.8) == chosen]
        assert bool(right) == (text is not None)
        if right:
            _assert_percent(text, float(np.mean(right)))


@claim("Grey bars hold fewer than 20 galaxies")
def _(facts: Facts) -> None:
    bars = Counter((question, min(int(10 * max(agreement, 0)), 9)) for question, agreement, _ in facts.agreements)
    assert min(bars.values()) < 20


@claim(r"Violation of the tree: highest median for (.+), ([\d.e-]+)")
def _(facts: Facts, called: str, median: str) -> None:
    medians = np.median(facts.violations(facts.predicted), axis=0)
    assert float(median) == pytest.approx(medians.max(), rel=0.051)
    _assert_largest(facts, called, medians)


@claim(r"Those of the votes do, (?:exactly|to within ([\d.e-]+))")
def _(facts: Facts, bound: str | None) -> None:
    off = facts.violations(facts.targets, used=True).max()
    assert off == 0 if bound is None else off <= float(bound) <= 2 * off


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
    _assert_percent(held, float(np.nansum(shares[:, 0] * sizes) / sizes.sum()))
    if called is not None:
        off = np.abs(shares[:, 0] - shares[:, 1])
        _assert_largest(facts, called, off)
        for text, share in zip((measured, expected), shares[int(np.nanargmax(off))], strict=True):
            _assert_percent(text, float(share))


# History.


def _assert_epochs(facts: Facts, number: str, noun: str) -> None:
    assert int(number) == len(facts.history) and noun == ("epoch" if number == "1" else "epochs")


def _assert_best(facts: Facts, mse: str | None, epoch: str | None) -> None:
    assert facts.best is not None and int(epoch or 0) == facts.best.epoch
    assert_rounded(mse, facts.best.val_mse, 5)


@claim(r"Training history over (\d+) (epochs?)(?:: lowest validation MSE ([\d.]+) in epoch (\d+))?")
def _(facts: Facts, number: str, noun: str, mse: str | None, epoch: str | None) -> None:
    _assert_epochs(facts, number, noun)
    assert (mse is None) == (facts.best is None)
    if mse is not None:
        _assert_best(facts, mse, epoch)


@claim(
    r"(\d+) (epochs?) in ([\d.e-]+) (seconds|minutes), counting neither saving nor the part of an epoch before an interruption"
)
def _(facts: Facts, number: str, noun: str, time: str, unit: str) -> None:
    _assert_epochs(facts, number, noun)
    seconds = sum(row.seconds for row in facts.history)
    assert (unit == "minutes") == (seconds >= 60)
    assert float(time) == pytest.approx(seconds / 60 if unit == "minutes" else seconds, rel=0.051)


@claim(
    r"Lowest validation MSE ([\d.]+) \(RMSE ([\d.]+)\) in epoch (\d+), whose (weights were|moving average of the weights was) "
    r"kept"
)
def _(facts: Facts, mse: str, rmse: str, epoch: str, kept: str) -> None:
    _assert_best(facts, mse, epoch)
    assert_rounded(rmse, np.sqrt(facts.best.val_mse) if facts.best else np.nan, 4)
    assert ("average" in kept) == bool(facts.settings["ema"])


@claim(
    r"The MSE on train is measured during an epoch, with dropout( and augmentation)?(; that on validation after it, without)?"
    r"(, and with the moving average of the weights)?"
)
def _(facts: Facts, augmented: str | None, validation: str | None, average: str | None) -> None:
    assert bool(augmented) == (facts.settings["augment"] != "none") and bool(validation) == (facts.best is not None)
    assert bool(average) == (bool(facts.settings["ema"]) and facts.best is not None)


# Sentences whose check is one condition, which gets the facts and the groups of the pattern.

CONDITIONS: dict[str, Callable[..., object]] = {
    r"Filled bars were measured on the same galax(y|ies)": lambda facts, ending: (ending == "y") == (len(facts.targets) == 1),
    r"Open bars were published for other test sets of real galaxies and are shown for reference only": lambda facts: (
        facts.tree.scores
    ),
    # Kaggle's boxes show "1.1: smooth", others the answers alone.
    r"Each box is a question that volunteers were asked, with its answers( and their columns)?; brighter boxes have larger "
    r"errors": lambda facts, columns: bool(columns) == (facts.tree.name == "kaggle"),
    r"Boxes without colour are questions that nobody answered": lambda facts: (
        facts.asked is not None and (facts.asked.max(axis=0) == 0).any()
    ),
    r"RMSE of each answer: the votes on each are all equal here, so skill is undefined": lambda facts: (
        not (facts.variance > 1e-15).any()
    ),
    r"RMSE of each answer( with its 95 % interval)?": lambda facts, interval: bool(interval) == (len(facts.targets) > 1),
    r"The model was trained on the likelihood of the votes, Dirichlet-multinomial with its predictions as means: galaxies that "
    r"look alike to it get the same prediction": lambda facts: facts.settings["loss"] == "dirichlet_multinomial",
    # Of a model that learns a mean, and where it explains what the chart shows.
    r"A mean is never more extreme than the most extreme galaxy behind it": lambda facts: (
        facts.settings["loss"] in ("mse", "cross_entropy") and _number_lower(facts) > (~np.isnan(facts.mse)).sum() / 2
    ),
    r"The errors or the spreads of all answers are equal here, so they cannot be related": lambda facts: (
        min(np.nanmax(values) - np.nanmin(values) for values in (facts.mse, facts.variance)) < 1e-15
    ),
    r"Answers with a mean near 0 or 1 have little room to spread": lambda facts: (
        not (facts.variance > facts.mean * (1 - facts.mean) + 1e-7).any()
    ),
    r"Calibration per question: of no galaxy were half of the volunteers asked": lambda facts: np.isnan(facts.gaps).all(),
    r"Fractions are of the volunteers who were asked; galaxies count if at least half were( and somebody answered)?": (
        lambda facts, answered: bool(answered) == (facts.asked is not None)
    ),
    r"Each dot is a tenth of a question's answers(, or one of fewer than ten)?": lambda facts, few: (
        bool(few) == any(0 < len(table) < 10 for table in facts.dots)
    ),
    r"No galaxy has an agreement of 0.8 or more": lambda facts: all(agreement < 0.8 for _, agreement, _ in facts.agreements),
    r"Violation of the tree: rounding errors only, at most ([\d.e-]+)": lambda facts, bound: (
        facts.settings["head"] != "sigmoid" and facts.violations(facts.predicted).max() <= float(bound) <= 2e-5
    ),
    r"This model predicts each column independently; the chart shows how far its sums are off": lambda facts: (
        facts.settings["head"] == "sigmoid"
    ),
    r"The strokes are the shares that it expects, above 90 % because votes are whole numbers": lambda facts: (
        not (facts.coverage[0][:, 1] <= 0.9).any()
    ),
    r"A dot to the left of its stroke is a question of which the model is too sure": lambda facts: (
        facts.settings["head"] == "dirichlet"
    ),
    r"As the votes have no counts, (\d+) volunteers are assumed": lambda facts, volunteers: (
        (facts.asked is None or facts.assumed) and int(volunteers) == facts.tree.volunteers
    ),
    r"Without a validation split, the (weights|moving average of the weights) after the last epoch (?:were|was) kept": (
        lambda facts, kept: facts.best is None and ("average" in kept) == bool(facts.settings["ema"])
    ),
}
# Sentences that are true of every run.
ALWAYS_TRUE = (
    "Each box links to the section of its question",
    "Skill, listed with each question, is 1 - MSE / variance of its votes",
    "Voted against predicted fraction: on the diagonal, answers with a predicted 0.7 have 0.7 of the votes on average",
    "The more the volunteers agree, the easier their most voted answer should be to predict",
    r"Agreement is 1 - entropy / maximum entropy \(Dieleman et al. 2015\)",
    "The columns of a question must add up to 1, or to the columns that lead to it",
)


def _checked(condition: Callable[..., object]) -> Check:
    def check(facts: Facts, *groups: str | None) -> None:
        assert condition(facts, *groups)

    return check


CLAIMS += [(re.compile(pattern), _checked(condition)) for pattern, condition in CONDITIONS.items()]
CLAIMS += [(re.compile(pattern), _checked(lambda facts: True)) for pattern in ALWAYS_TRUE]
