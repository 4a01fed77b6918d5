"""The facts that sentences about a run are checked against: plain loops over its predictions, votes and history."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tfrecords.dataset import Dataset
from tfrecords.tree import Question, Tree
from trainer.history import Epoch
from trainer.run import Run
from trainer.tables import Predictions

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

    def guessing(self, fractions: np.ndarray) -> "Facts":
        """The facts of a model that predicts the same fractions (n,) for every galaxy."""
        return replace(self, predicted=np.broadcast_to(fractions, self.targets.shape))

    @cached_property
    def counts(self) -> np.ndarray:
        """Whether each vote fraction counts: bool (galaxies, n)."""
        counts = np.ones(self.targets.shape, bool)
        for question in self.tree.questions if self.asked is not None else ():
            counts[:, question.columns] = (np.asarray(self.asked)[:, question.index] > 0)[:, None]
        return counts

    def columns(self, value: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
        """A number for each column, from its predictions and votes that count; NaN if there are none."""
        numbers = np.full(len(self.tree.columns), np.nan)
        for column in range(len(numbers)):
            rows = self.counts[:, column]
            if rows.any():
                numbers[column] = value(*(table[rows, column].astype(np.float64) for table in (self.predicted, self.targets)))
        return numbers

    @cached_property
    def mse(self) -> np.ndarray:
        return self.columns(lambda predicted, voted: ((predicted - voted) ** 2).mean())

    @cached_property
    def variance(self) -> np.ndarray:
        return self.columns(lambda _, voted: voted.var())

    @cached_property
    def mean(self) -> np.ndarray:
        return self.columns(lambda _, voted: voted.mean())

    @cached_property
    def largest(self) -> tuple[np.ndarray, np.ndarray]:
        """The largest value of each column in the predictions and in the votes."""
        return self.columns(lambda predicted, _: predicted.max()), self.columns(lambda _, voted: voted.max())

    @cached_property
    def by_question(self) -> np.ndarray:
        """The RMSE of each question: (questions,)."""
        return np.array([np.sqrt(self.mse[question.columns].mean()) for question in self.tree.questions])

    @cached_property
    def squares(self) -> np.ndarray:
        """The squared errors: (galaxies, n)."""
        return (self.predicted.astype(np.float64) - self.targets) ** 2

    @cached_property
    def rmse(self) -> float:
        return float(np.sqrt(self.squares[self.counts].mean()))

    @cached_property
    def baselines(self) -> dict[str, float]:
        """The RMSE of each baseline."""
        guesses = {"zeros": np.zeros(len(self.tree.columns)), "train_mean": self.means}
        return {LABELS[name]: self.guessing(guess).rmse for name, guess in guesses.items() if guess is not None}

    def shares_of_asked(self, question: Question) -> Iterator[tuple[int, np.ndarray]]:
        """Each galaxy of which half of the volunteers were asked a question, with the shares of its answers: (answers,)."""
        for galaxy, votes in enumerate(self.targets):
            reached = sum(votes[parent] for parent in question.parents) if question.parents else 1.0
            if reached >= 0.5 and (self.asked is None or self.asked[galaxy, question.index] > 0):
                voted = votes[question.columns].astype(np.float64)
                yield galaxy, voted / voted.sum() if voted.sum() > 0 else np.full(len(voted), 1 / len(voted))

    @cached_property
    def agreements(self) -> list[tuple[int, float, bool]]:
        """For each question and galaxy that counts: the question, the agreement, whether the most voted answer is predicted."""
        rows = []
        for question in self.tree.questions:
            for galaxy, shares in self.shares_of_asked(question):
                entropy = -sum(share * np.log(share) for share in shares if share > 0)
                right = self.predicted[galaxy, question.columns].argmax() == shares.argmax()
                rows.append((question.index, float(1 - entropy / np.log(len(shares))), bool(right)))
        return rows

    @cached_property
    def dots(self) -> list[np.ndarray]:
        """For each question, (predicted, voted) fractions of those asked, in order of the prediction: (answers, 2)."""
        guessed = self.tree.conditional(self.predicted, 0.0)
        tables = []
        for question in self.tree.questions:
            asked = self.shares_of_asked(question)
            pairs = [pair for n, shares in asked for pair in zip(guessed[n, question.columns], shares, strict=True)]
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
            rows = []
            for galaxy in range(len(self.targets)):
                votes = self.targets[galaxy, question.columns].astype(np.float64)
                assumed = self.tree.volunteers * votes.sum()
                answers = assumed if self.asked is None else float(self.asked[galaxy, question.index])
                if round(answers) >= 1 and votes.sum() > 0:
                    guessed = self.predicted[galaxy, question.columns].astype(np.float64)
                    alphas = guessed / guessed.sum() * self.concentrations[galaxy, question.index]
                    given = [round(answers * vote / votes.sum()) for vote in votes]
                    rows += [(round(answers), *pair, alphas.sum()) for pair in zip(given, alphas, strict=True)]
            if rows:
                number, count, alpha, total = np.array(rows).T
                model = betabinom(number.astype(int), alpha, total - alpha)
                low, high = model.ppf(0.05), model.ppf(0.95)
                held, expected = (low <= count) & (count <= high), model.cdf(high) - model.cdf(low - 1)
                shares[question.index], sizes[question.index] = (held.mean(), expected.mean()), len(rows)
        return shares, sizes

    @cached_property
    def best(self) -> Epoch | None:
        """The epoch with the lowest validation MSE; None without validation."""
        measured = sorted((row for row in self.history if row.val_mse == row.val_mse), key=lambda row: row.val_mse)
        return measured[0] if measured else None


def facts_of(
    run: Run, dataset: Dataset, predictions: Predictions, means: np.ndarray | None, content: Mapping[str, Any]
) -> Facts:
    """The facts of a run's predictions for a dataset. means: column means of train (n,); content: that of metrics.json."""
    return Facts(
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
