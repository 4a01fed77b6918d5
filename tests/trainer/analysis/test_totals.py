"""Added up block by block, scores are those of arrays in memory; intervals of groups agree with those of galaxies."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from tests.conftest import random_counts, random_votes
from tests.trainer.analysis.evaluations import with_shares
from tfrecords.builtin import builtin_tree
from tfrecords.tree import Tree
from trainer.analysis import metrics, totals
from trainer.analysis.classification import Measures
from trainer.analysis.table import Measured
from trainer.analysis.totals import Sample, Tally, totals_in_memory
from trainer.tables import Predictions

KAGGLE, DECALS = builtin_tree(), builtin_tree("decals5")
# Two bootstraps of 1,000 resamples each: the ends of their intervals scatter by 0.12 standard errors, the widths by 4 %.
ENDS, WIDTHS = 0.5, 0.15


def _predictions(galaxies: int, tree: Tree, seed: int = 0) -> Predictions:
    """Predictions of made-up galaxies, in a survey with counts unless the tree is Kaggle's; of one question nobody answered."""
    draws = np.random.default_rng(seed)
    answered = None
    targets = random_votes(galaxies, draws, tree).astype(np.float32)
    if tree is not KAGGLE:
        counts = random_counts(galaxies, draws, tree, 6)
        counts[:, tree.questions[-1].columns] = 0
        answered = np.stack([counts[:, question.columns].sum(axis=1) for question in tree.questions], axis=1)
        each = np.repeat(answered, [len(question.answers) for question in tree.questions], axis=1)
        targets = with_shares(tree, counts / np.maximum(each, 1)).astype(np.float32)
    # Few galaxies have large errors, as of real models.
    noise = draws.normal(0, 0.03, targets.shape) * draws.lognormal(0, 1, (galaxies, 1))
    predicted = np.clip(targets + noise, 0, 1).astype(np.float32)
    ids = np.sort(draws.choice(10 * galaxies, galaxies, replace=False))
    return Predictions(ids, predicted, targets, answered, None, tree)


def _taken(predictions: Predictions, rows: Any) -> Predictions:
    asked = None if predictions.asked is None else predictions.asked[rows]
    columns = (predictions.galaxy_ids[rows], predictions.predicted[rows], predictions.targets[rows], asked)
    return Predictions(*columns, None, predictions.tree)


def _blocks(predictions: Predictions, length: int) -> Iterator[Predictions]:
    for start in range(0, len(predictions.galaxy_ids), length):
        yield _taken(predictions, slice(start, start + length))


def _tallied(predictions: Predictions, means: np.ndarray | None, length: int) -> Tally:
    tally = Tally(predictions.tree, means)
    for block in _blocks(predictions, length):
        tally.add(block)
    return tally


def _plain(value: Any) -> Any:
    """A value without its dataclasses, so that it can be compared number by number."""
    if isinstance(value, Measured):
        return [value.value, value.low, value.high]
    if isinstance(value, (Measures, totals.Errors, totals.ClassCount)):
        return [_plain(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return [[name, _plain(one)] for name, one in value.items()]
    return value


def _same(one: Any, other: Any) -> None:
    if isinstance(one, list):
        for part, another in zip(one, other, strict=True):
            _same(part, another)
    elif isinstance(one, (np.ndarray, float, np.floating)):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)
    else:
        assert one == other


@pytest.mark.parametrize("tree", [KAGGLE, DECALS], ids=["without counts", "with counts"])
@pytest.mark.parametrize("length", [1, 7, 1000], ids=["one by one", "of seven", "all at once"])
def test_scores_and_totals_of_blocks_are_those_in_memory(tree: Tree, length: int) -> None:
    predictions = _predictions(100, tree)
    means = np.random.default_rng(5).random(len(tree.columns))
    tally, expected = _tallied(predictions, means, length), totals_in_memory(predictions, means)
    result = tally.totals()
    for field in fields(expected):
        _same(_plain(getattr(result, field.name)), _plain(getattr(expected, field.name)))
    counted = tree.counted(predictions.asked)
    scores, exact = tally.scores(), metrics.score(predictions.predicted, predictions.targets, tree, counted)
    for name in ("mse", "per_class", "per_question", "skill"):
        np.testing.assert_allclose(getattr(scores, name), getattr(exact, name), rtol=1e-12)


def test_without_a_train_split_there_is_no_baseline_of_it() -> None:
    predictions = _predictions(50, KAGGLE)
    result = _tallied(predictions, None, 20).totals()
    assert result.train_errors is None and [*result.baselines] == ["zeros"]


def test_equal_votes_have_no_skill_and_no_variance() -> None:
    predictions = _predictions(40, KAGGLE)
    predictions = replace(predictions, targets=np.full_like(predictions.targets, 0.3))
    tally = _tallied(predictions, None, 7)
    assert np.isnan(tally.scores().skill).all() and not tally.totals().variances.any()


def test_a_small_variance_keeps_its_digits() -> None:
    predictions = _predictions(1000, KAGGLE)
    targets = (0.9 + 1e-5 * np.random.default_rng(1).random(predictions.targets.shape)).astype(np.float32)
    predictions = replace(predictions, targets=targets)
    expected = metrics.variances(targets.astype(np.float64))
    np.testing.assert_allclose(_tallied(predictions, None, 100).totals().variances, expected, rtol=1e-9)


def _errors(scores: metrics.Scores) -> tuple[np.ndarray, np.ndarray]:
    """All intervals (k, 2) of scores, and the numbers (k,) that they are of."""
    ends = np.concatenate([[scores.interval], scores.class_intervals, scores.question_intervals])
    return ends, np.sqrt([scores.mse, *scores.per_class, *scores.per_question])


@pytest.mark.slow
@pytest.mark.parametrize("tree", [KAGGLE, DECALS], ids=["without counts", "with counts"])
@pytest.mark.parametrize("galaxies", [2_000, 40_000], ids=["fewer galaxies than groups", "several galaxies in each group"])
def test_intervals_of_groups_agree_with_those_of_galaxies(tree: Tree, galaxies: int) -> None:
    """To within half a standard error at each end, and 15 % of the width."""
    predictions = _predictions(galaxies, tree)
    counted = tree.counted(predictions.asked)
    exact, _ = _errors(metrics.score(predictions.predicted, predictions.targets, tree, counted))
    groups, _ = _errors(_tallied(predictions, None, 5_000).scores())
    np.testing.assert_array_equal(np.isnan(groups), np.isnan(exact))
    there = ~np.isnan(exact).any(axis=1)
    width = (exact[there, 1] - exact[there, 0])[:, None]
    assert np.abs(groups[there] - exact[there]).max() < np.inf and there.sum() > 30
    assert (np.abs(groups[there] - exact[there]) / width * 3.92).max() < ENDS
    assert np.abs((groups[there, 1] - groups[there, 0]) / width[:, 0] - 1).max() < WIDTHS


def test_intervals_of_groups_have_the_width_that_theory_gives_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an MSE whose standard error is known, also if neighbours in the table are alike: groups ignore the order."""
    predictions = _predictions(60_000, KAGGLE, seed=3)
    order = np.argsort(metrics.squared_errors(predictions.predicted, predictions.targets).mean(axis=1))
    alike = replace(_taken(predictions, order), galaxy_ids=np.arange(60_000))
    errors = metrics.squared_errors(alike.predicted, alike.targets).mean(axis=1)
    standard = errors.std() / np.sqrt(len(errors))
    low, high = _tallied(alike, None, 10_000).scores().interval
    assert (high**2 - low**2) / (2 * 1.96 * standard) == pytest.approx(1, abs=0.1)
    assert low < np.sqrt(errors.mean()) < high


def test_groups_are_alike_in_size_whatever_the_numbers_of_the_galaxies() -> None:
    for ids in (np.arange(1_000_000), np.arange(1_000_000) * 4096, -np.arange(1_000_000), 2**62 + np.arange(1_000_000)):
        sizes = np.bincount(totals._groups(ids), minlength=totals.GROUPS)
        assert len(sizes) == totals.GROUPS and sizes.var() == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize("length", [1, 13, 500])
def test_a_sample_is_the_same_for_blocks_of_any_length_and_spread_over_all_galaxies(length: int) -> None:
    predictions = replace(_predictions(500, DECALS), names=np.array([f"g{number:03d}" for number in range(500)], object))
    sample = Sample(500, 60)
    for start in range(0, 500, length):
        rows = slice(start, start + length)
        sample.add(replace(_taken(predictions, rows), names=predictions.names[rows]))  # type: ignore[index]
    drawn = sample.predictions()
    assert len(drawn.galaxy_ids) == 60 == len({*drawn.galaxy_ids.tolist()})
    rows = np.searchsorted(predictions.galaxy_ids, drawn.galaxy_ids)
    assert (np.diff(rows) > 0).all() and (np.abs(rows - (np.arange(60) + 0.5) * 500 / 60) <= 500 / 60 / 2 + 1).all()
    for name in ("predicted", "targets", "asked", "names"):
        np.testing.assert_array_equal(getattr(drawn, name), getattr(predictions, name)[rows])
    assert drawn.concentrations is None and rows.tolist() == Sample(500, 60)._rows.tolist()
    assert rows.tolist() != Sample(500, 60, seed=1)._rows.tolist()


def test_a_sample_of_all_galaxies_is_all_of_them() -> None:
    predictions = _predictions(30, KAGGLE)
    sample = Sample(30, 30)
    sample.add(predictions)
    np.testing.assert_array_equal(sample.predictions().galaxy_ids, predictions.galaxy_ids)
