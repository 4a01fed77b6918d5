"""What a report states about all galaxies, from arrays in memory or added up block by block, and a sample for the rest. Pure.

Added up, everything equals what arrays in memory give, except the intervals: these resample GROUPS groups of galaxies in place
of single galaxies, and so need the sums of groups alone. A galaxy's group is a hash of its number, so that neighbours in a
catalogue are in different groups. If many galaxies share a group, their sums scatter as single galaxies do, times the square
root of their number; if few count for an answer, nearly each has a group of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfrecords.tree import Tree
from trainer.analysis import classification, metrics, votes
from trainer.analysis.classification import Errors, QuestionScores
from trainer.analysis.metrics import ClassCount, Scores
from trainer.tables import Predictions

# With 10,000, a standard error is off by 1 %, less than by the chance of 1,000 resamples; their sums take 8 MB.
GROUPS = 10_000
# The arrays of `Predictions`.
_COLUMNS = ("galaxy_ids", "predicted", "targets", "asked", "concentrations", "names")


@dataclass(frozen=True)
class Totals:
    """Numbers about all galaxies; arrays are float64, (n,) unless stated otherwise, and NaN where nothing counts.

    spread: the standard deviation of the predictions, mean over the columns. means, variances, largest_voted: of the votes that
    count. largest_predicted: of the predictions whose votes count. reach (questions,): the mean share of the volunteers who
    were asked. train_errors: the MSE of the column means of train, None without these. all_counted: whether all votes count.
    agreement: as `metrics.agreement_bins`. deviation: the largest of the votes from the tree.
    """

    galaxies: int
    baselines: dict[str, float]
    spread: float
    means: np.ndarray
    variances: np.ndarray
    largest_voted: np.ndarray
    largest_predicted: np.ndarray
    reach: np.ndarray
    train_errors: np.ndarray | None
    all_counted: bool
    everyone: list[QuestionScores]
    confident: list[QuestionScores]
    errors: Errors
    agreement: np.ndarray
    classes: list[ClassCount]
    deviation: float


def totals_in_memory(predictions: Predictions, train_means: np.ndarray | None) -> Totals:
    """The totals of galaxies in memory. train_means (n,): the column means of train, if there are any."""
    tree, predicted, targets, asked = predictions.tree, predictions.predicted, predictions.targets, predictions.asked
    counted = tree.counted(asked)
    everyone, confident = classification.classified(predicted, targets, tree, asked)
    train_errors = None
    if train_means is not None:
        train_errors = metrics.mean_counted(metrics.squared_errors(train_means, targets), counted, 0)
    return Totals(
        galaxies=len(predictions.galaxy_ids),
        baselines=metrics.baselines(targets, train_means, counted),
        spread=float(predicted.std(axis=0, dtype=np.float64).mean()),
        means=votes.means(targets, counted),
        variances=metrics.variances(targets, counted),
        largest_voted=votes.maximum_agreement(targets, counted),
        largest_predicted=votes.maximum_agreement(predicted, counted),
        reach=np.array([tree.reached(targets, question).mean(dtype=np.float64) for question in tree.questions]),
        train_errors=train_errors,
        all_counted=counted is None or bool(counted.all()),
        everyone=everyone,
        confident=confident,
        errors=classification.answer_errors(predicted, targets, tree, asked),
        agreement=metrics.agreement_bins(predicted, targets, tree, asked),
        classes=metrics.class_counts(predicted, targets, tree),
        deviation=float(tree.deviation(targets, asked).max()),
    )


class _Sum:
    """A sum of arrays with what each addition rounds off (Neumaier 1974), so that it hardly depends on how many there are."""

    def __init__(self) -> None:
        self._sum: Any = 0.0
        self._rest: Any = 0.0

    def add(self, values: np.ndarray) -> None:
        before, self._sum = self._sum, self._sum + values
        larger = np.abs(before) >= np.abs(values)
        self._rest += np.where(larger, (before - self._sum) + values, (values - self._sum) + before)

    @property
    def value(self) -> np.ndarray:
        return np.asarray(self._sum + self._rest)


class Tally:
    """Adds up blocks of galaxies to their scores and totals, in memory that does not depend on their number.

    train_means (n,): the column means of train, if there are any.
    """

    def __init__(self, tree: Tree, train_means: np.ndarray | None = None) -> None:
        self._tree, self._train_means = tree, train_means
        self._errors, self._numbers = np.zeros((2, GROUPS, 1 + len(tree.columns) + len(tree.questions)))
        self._sums: dict[str, _Sum] = {}
        self._largest: dict[str, np.ndarray] = {}
        self._matrices: tuple[list[np.ndarray], ...] = ()
        self._classes: list[ClassCount] = []
        self._centres: tuple[np.ndarray, np.ndarray] | None = None
        self._galaxies, self._all_counted = 0, True

    def add(self, block: Predictions) -> None:
        """Add a block of at least one galaxy."""
        tree, predicted, targets, asked = self._tree, block.predicted, block.targets, block.asked
        some = tree.counted(asked)
        counted = np.ones(targets.shape, bool) if some is None else some
        self._galaxies += len(predicted)
        self._all_counted &= bool(counted.all())
        parts, weights = metrics.error_parts(metrics.squared_errors(predicted, targets), tree, counted)
        groups = _groups(block.galaxy_ids)
        self._errors += _by_group(parts, groups)
        self._numbers += _by_group(weights, groups)
        self._add_moments(predicted.astype(np.float64), targets.astype(np.float64), counted)
        self._add("reach", np.stack([tree.reached(targets, question) for question in tree.questions], axis=1))
        self._add("errors", classification.error_sums(predicted, targets, tree, asked)[None])
        self._add("agreement", metrics.agreement_hits(predicted, targets, tree, asked)[None])
        self._raise("voted", votes.maximum_agreement(targets, some))
        self._raise("predicted", votes.maximum_agreement(predicted, some))
        self._raise("highest", targets.max(axis=0, where=counted, initial=-1))
        self._raise("lowest", -targets.min(axis=0, where=counted, initial=2))
        self._raise("deviation", tree.deviation(targets, asked).max())
        matrices = classification.confusions(predicted, targets, tree, asked)
        self._matrices = tuple(_together(*both) for both in zip(self._matrices or ([], []), matrices, strict=True))
        self._classes = _counted_together(self._classes, metrics.class_counts(predicted, targets, tree))

    def _add(self, name: str, values: np.ndarray) -> None:
        """Add `values` (rows, ...) to the sum of this name; NumPy adds along the last axis in pairs, which rounds less."""
        last = np.ascontiguousarray(np.moveaxis(values, 0, -1), np.float64)
        self._sums.setdefault(name, _Sum()).add(last.sum(axis=-1))

    def _raise(self, name: str, values: np.ndarray) -> None:
        self._largest[name] = np.maximum(self._largest.get(name, values), values)

    def _add_moments(self, predicted: np.ndarray, targets: np.ndarray, counted: np.ndarray) -> None:
        # Squares of the distances from a value near the mean: a variance that is small beside it keeps its digits.
        if self._centres is None:
            self._centres = predicted.mean(axis=0), np.nan_to_num(metrics.mean_counted(targets, counted, 0))
        near, apart = predicted - self._centres[0], (targets - self._centres[1]) * counted
        self._add("counted", counted)
        self._add("predicted", near)
        self._add("predicted squares", near**2)
        self._add("targets", apart)
        self._add("targets squares", apart**2)
        self._add("zeros", targets**2 * counted)
        if self._train_means is not None:
            self._add("train_mean", (targets - self._train_means) ** 2 * counted)

    def _mean(self, name: str) -> np.ndarray:
        return _divided(self._sums[name].value, self._sums["counted"].value)

    def _variances(self) -> np.ndarray:
        return np.maximum(self._mean("targets squares") - self._mean("targets") ** 2, 0)

    def scores(self) -> Scores:
        """The scores, whose intervals resample groups."""
        answers = len(self._tree.columns)
        sums, numbers = (np.array([math.fsum(column) for column in table.T]) for table in (self._errors, self._numbers))
        means = _divided(sums, numbers)
        intervals = metrics.bootstrap_intervals(self._errors, weights=self._numbers)
        varies = self._largest["highest"] > -self._largest["lowest"]
        return Scores(
            mse=float(means[0]),
            per_class=means[1 : 1 + answers],
            per_question=means[1 + answers :],
            interval=(float(intervals[0, 0]), float(intervals[0, 1])),
            class_intervals=intervals[1 : 1 + answers],
            question_intervals=intervals[1 + answers :],
            skill=metrics.skill_of(means[1 : 1 + answers], self._variances(), varies),
        )

    def totals(self) -> Totals:
        """The totals of all galaxies added."""
        assert self._centres is not None
        sums, galaxies = {name: part.value for name, part in self._sums.items()}, self._galaxies
        predicted = sums["predicted squares"] / galaxies - (sums["predicted"] / galaxies) ** 2
        guesses = [name for name in ("zeros", "train_mean") if name in sums]
        everyone, confident = ([*map(classification.scores_of, matrices)] for matrices in self._matrices)
        return Totals(
            galaxies=galaxies,
            baselines={name: math.sqrt(math.fsum(sums[name]) / math.fsum(sums["counted"])) for name in guesses},
            spread=float(np.sqrt(np.maximum(predicted, 0)).mean()),
            means=self._centres[1] + self._mean("targets"),
            variances=self._variances(),
            largest_voted=self._largest["voted"],
            largest_predicted=self._largest["predicted"],
            reach=sums["reach"] / galaxies,
            train_errors=self._mean("train_mean") if "train_mean" in sums else None,
            all_counted=self._all_counted,
            everyone=everyone,
            confident=confident,
            errors=classification.errors_of_sums(sums["errors"]),
            agreement=metrics.shares_of_hits(sums["agreement"]),
            classes=self._classes,
            deviation=float(self._largest["deviation"]),
        )


def _groups(galaxy_ids: np.ndarray) -> np.ndarray:
    """The group of each galaxy, by SplitMix64 (Steele et al. 2014): int64 (galaxies,)."""
    mixed = np.asarray(galaxy_ids).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(GROUPS)).astype(np.int64)


def _by_group(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The sums of rows (galaxies, k) with the same group: (GROUPS, k)."""
    width = values.shape[1]
    places = groups[:, None] * width + np.arange(width)
    return np.bincount(places.ravel(), values.ravel(), GROUPS * width).reshape(GROUPS, width)


def _divided(sums: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    return np.divide(sums, numbers, out=np.full(np.shape(sums), np.nan), where=numbers > 0)


def _together(before: Sequence[np.ndarray], matrices: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [one + other for one, other in zip(before, matrices, strict=True)] if before else [*matrices]


def _counted_together(before: Sequence[ClassCount], counts: Sequence[ClassCount]) -> list[ClassCount]:
    if not before:
        return [*counts]
    return [
        replace(one, predicted=one.predicted + other.predicted, true=one.true + other.true, both=one.both + other.both)
        for one, other in zip(before, counts, strict=True)
    ]


class Sample:
    """Some of `galaxies` galaxies that arrive in blocks: a random one from each of `number` equal parts of them.

    So they are spread evenly, and the same seed draws the same ones, however long the blocks are.
    """

    def __init__(self, galaxies: int, number: int, seed: int = 0) -> None:
        edges = np.arange(number + 1) * galaxies // number
        self._rows = edges[:-1] + np.random.default_rng(seed).integers(0, np.diff(edges))
        self._start = 0
        self._parts: list[Predictions] = []

    def add(self, block: Predictions) -> None:
        """Keep those of the next galaxies that are in the sample."""
        stop = self._start + len(block.galaxy_ids)
        first, last = np.searchsorted(self._rows, (self._start, stop))
        rows, self._start = self._rows[first:last] - self._start, stop
        if len(rows):
            columns = {name: getattr(block, name) for name in _COLUMNS}
            kept: dict[str, Any] = {name: column[rows] for name, column in columns.items() if column is not None}
            self._parts.append(replace(block, **kept))

    def predictions(self) -> Predictions:
        """The sample, in the order of its galaxies."""
        columns = {name: [getattr(part, name) for part in self._parts] for name in _COLUMNS}
        joined: dict[str, Any] = {name: np.concatenate(parts) for name, parts in columns.items() if parts[0] is not None}
        return replace(self._parts[0], **joined)
