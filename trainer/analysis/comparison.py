"""Runs measured on the same galaxies: their scores, and the differences with their intervals. Numbers only."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tfrecords.dataset import Dataset
from tfrecords.tree import Question, Tree
from trainer.analysis import metrics, votes
from trainer.analysis.classification import Measures, confusion, differences_of, is_confident, scores_of
from trainer.analysis.table import Measured
from trainer.run import Run
from trainer.tables import Predictions


@dataclass(frozen=True)
class Measurement:
    """A run, what to call it, and its predictions."""

    label: str
    run: Run
    predictions: Predictions


class Comparison:
    """Runs that were measured on the same galaxies. The first is the base with which the others are compared.

    Raises ValueError if the predictions are of other galaxies, or in another order.
    """

    def __init__(self, dataset: Dataset, split: str, several: Sequence[Measurement]) -> None:
        self.dataset, self.split, self.several = dataset, split, tuple(several)
        first = several[0].predictions
        if not all(np.array_equal(one.predictions.galaxy_ids, first.galaxy_ids) for one in several):
            raise ValueError("the predictions are not of the same galaxies in the same order")
        self.targets, self.answered = first.targets, first.asked
        self.counted = dataset.tree.counted(first.asked)

    @property
    def tree(self) -> Tree:
        return self.dataset.tree

    @property
    def asked(self) -> object:
        """How the dataset came to have numbers of answers; falsy without any."""
        return self.dataset.source.get("asked")

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(one.label for one in self.several)

    @property
    def base(self) -> Measurement:
        return self.several[0]

    @property
    def others(self) -> tuple[Measurement, ...]:
        return self.several[1:]

    @cached_property
    def scores(self) -> tuple[metrics.Scores, ...]:
        """The errors of each run."""
        return tuple(metrics.score(one.predictions.predicted, self.targets, self.tree, self.counted) for one in self.several)

    def errors_of(self, one: Measurement) -> np.ndarray:
        """Squared errors (galaxies, n); 0 where they do not count."""
        errors = metrics.squared_errors(one.predictions.predicted, self.targets)
        return errors if self.counted is None else errors * self.counted

    def _sums(self, one: Measurement) -> tuple[np.ndarray, np.ndarray]:
        """Sums of squared errors and their numbers: of all, then of each question, then of each column; (galaxies, k) each."""
        errors = self.errors_of(one)
        weights = np.ones(errors.shape) if self.counted is None else self.counted.astype(np.float64)
        of_questions = [q.columns for q in self.tree.questions]

        def parts(table: np.ndarray) -> np.ndarray:
            sums = [table.sum(axis=1), *(table[:, columns].sum(axis=1) for columns in of_questions)]
            return np.concatenate([np.stack(sums, axis=1), table], axis=1)

        return parts(errors), parts(weights)

    def difference(self, one: Measurement, other: Measurement) -> list[Measured]:
        """RMSE of a run minus that of another: over all galaxies and columns, of each question, of each column."""
        sums, weights = self._sums(one)
        changes = metrics.paired_differences(sums, self._sums(other)[0], weights=weights)
        return [Measured(*map(float, row)) for row in changes]

    @cached_property
    def differences(self) -> tuple[list[Measured], ...]:
        """For each run but the base, its RMSE minus that of the base, as in `difference`."""
        return tuple(self.difference(one, self.base) for one in self.others)

    def rows(self, question: Question, confident: bool) -> np.ndarray:
        """The galaxies that count for a question, bool (galaxies,)."""
        asked = votes.asked(self.targets, self.tree, self.answered)[:, question.index]
        return asked & is_confident(self.targets, self.tree, question) if confident else asked

    def voted(self, question: Question, confident: bool) -> np.ndarray:
        """The most voted answers of the galaxies that count for a question, int (rows,)."""
        return np.asarray(self.targets[self.rows(question, confident), question.columns].argmax(axis=1))

    @cached_property
    def everyone(self) -> list[tuple[list[Measures], list[Measures]]]:
        """For each question the scores of each run, and those of each but the base minus the base's."""
        return [self._classified(question, confident=False) for question in self.tree.questions]

    @cached_property
    def confident(self) -> list[tuple[list[Measures], list[Measures]]]:
        """The same where the volunteers are confident."""
        return [self._classified(question, confident=True) for question in self.tree.questions]

    def _classified(self, question: Question, confident: bool) -> tuple[list[Measures], list[Measures]]:
        rows = self.rows(question, confident)
        answers = [one.predictions.predicted[rows, question.columns].argmax(axis=1) for one in self.several]
        voted = self.voted(question, confident)
        scores: list[Measures] = [
            scores_of(confusion(one.predictions.predicted, self.targets, question, rows)) for one in self.several
        ]
        number = len(question.answers)
        return scores, [differences_of(voted, guessed, answers[0], number) for guessed in answers[1:]]

    def distances(self) -> np.ndarray:
        """How far the predictions differ: the largest RMS difference of a run from the base, (galaxies,)."""
        base = self.base.predictions.predicted
        each = [metrics.squared_errors(one.predictions.predicted, base) for one in self.others]
        return np.sqrt(np.max([metrics.mean_counted(errors, self.counted, 1) for errors in each], axis=0))
