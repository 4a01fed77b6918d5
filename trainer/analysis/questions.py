"""The tables that papers print, question by question and answer by answer, and the confusion matrices."""

import itertools
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np

from tfrecords.tree import Question, Tree
from trainer.analysis import figures, wording
from trainer.analysis.classification import CONFIDENT, Errors, QuestionScores, answer_errors, answers_of, classified
from trainer.analysis.metrics import RESAMPLES
from trainer.analysis.page import Chart, Section
from trainer.analysis.table import Table
from trainer.analysis.totals import Totals
from trainer.analysis.votes import ASKED

_Shown = TypeVar("_Shown")
_SCORES = ("accuracy", "precision", "recall", "F1")
CONFIDENT_RULE = f"The volunteers are confident if at least {100 * CONFIDENT:g} % of those asked gave the same answer."
_RANGES = f"Ranges are 95 % intervals from {RESAMPLES:,} resamples of the galaxies."
MACRO_RULE = (
    "Precision, recall and F1 are means over the answers that occur, each with the same weight; where undefined, they count "
    "as 0."
)
FRACTIONS_RULE = f"Fractions of those asked are over galaxies of which at least {100 * ASKED:g} % of the volunteers were asked."


def asked_rule(asked: object) -> str:
    """Which galaxies count for a question. asked: that entry of a dataset's `source`, falsy without counts."""
    answered = " and somebody answered it" if asked else ""
    return (
        f"A galaxy counts for a question if at least {100 * ASKED:g} % of its volunteers were asked it{answered}; of answers "
        "with equal votes, the first counts as the most voted."
    )


def weighting_rule(asked: object) -> str:
    """How errors of fractions weigh galaxies. asked: as in `asked_rule`."""
    if not asked:
        return "Each galaxy counts the same."
    number = "assumed number" if wording.is_assumed(asked) else "number"
    return f"Each galaxy weighs as much as the {number} of volunteers who answered the question."


class Questions:
    """The scores of predictions against votes, with the tables and charts that show them.

    predicted, targets: (galaxies, n). answered: (galaxies, questions), None without counts. asked: how these came about, that
    entry of a dataset's `source`. galaxies: which these are, in words. totals: holds the scores, if they are known.
    """

    def __init__(
        self,
        tree: Tree,
        predicted: np.ndarray,
        targets: np.ndarray,
        answered: np.ndarray | None = None,
        asked: object = None,
        galaxies: str = "",
        totals: Totals | None = None,
    ) -> None:
        self._tree, self._predicted, self._targets, self._answered = tree, predicted, targets, answered
        self._asked, self._galaxies, self._totals = asked, galaxies, totals

    @cached_property
    def _scores(self) -> tuple[list[QuestionScores], list[QuestionScores]]:
        if self._totals is not None:
            return self._totals.everyone, self._totals.confident
        return classified(self._predicted, self._targets, self._tree, self._answered)

    @property
    def everyone(self) -> list[QuestionScores]:
        """For each question, the scores over all galaxies that count."""
        return self._scores[0]

    @property
    def confident(self) -> list[QuestionScores]:
        """The same where the volunteers are confident."""
        return self._scores[1]

    @cached_property
    def errors(self) -> Errors:
        if self._totals is not None:
            return self._totals.errors
        return answer_errors(self._predicted, self._targets, self._tree, self._answered)

    def _caption(self, *sentences: str) -> str:
        return wording.sentences(*sentences, f"Measured on {self._galaxies}." if self._galaxies else "")

    def _both(self, make: Callable[..., _Shown], name: str, title: str, *sentences: str) -> tuple[_Shown, _Shown]:
        """What `make(name, title, scores, *sentences)` returns for all galaxies that count, and for confident volunteers."""
        rule = asked_rule(self._asked)
        where = f"{title} where the volunteers are confident"
        return (
            make(name, title, self.everyone, rule, *sentences),
            make(f"{name}-confident", where, self.confident, CONFIDENT_RULE, rule, *sentences),
        )

    def by_question(self) -> tuple[Table, Table]:
        """Accuracy and mean precision, recall and F1 of each question; then the same where volunteers are confident."""
        return self._both(self._by_question, "questions", "Most voted answers, per question", MACRO_RULE)

    def _by_question(self, name: str, title: str, scores: Sequence[QuestionScores], *sentences: str) -> Table:
        rows = tuple(
            (question.called("{} {}"), score.galaxies, score.accuracy, *score.macro)
            for question, score in zip(self._tree.questions, scores, strict=True)
        )
        forms = ("", ",", ".3f", ".3f", ".3f", ".3f")
        return Table(("question", "galaxies", *_SCORES), rows, name, title, self._caption(*sentences, _RANGES), forms)

    def by_answer(self) -> tuple[Table, Table]:
        """Precision, recall and F1 of each answer, over all galaxies that count and where volunteers are confident."""
        return self._both(self._answers, "answers", "Most voted answers, one by one")

    def _answers(self, name: str, title: str, scores: Sequence[QuestionScores], *sentences: str) -> Table:
        rows = []
        for question, place, column in answers_of(self._tree):
            score = scores[question.index]
            voted, predicted = int(score.counts[place].sum()), int(score.counts[:, place].sum())
            measured = score.precision[place], score.recall[place], score.f1[place]
            rows.append((self._tree.columns[column], self._tree.describe(column), voted, predicted, *measured))
        header = ("column", "answer", "voted", "predicted", *_SCORES[1:])
        said = (
            "Precision is the share of the galaxies with this predicted answer whose most voted answer it is; recall, the "
            "share of the galaxies with this most voted answer for which it is predicted; F1, their harmonic mean."
        )
        forms = ("", "", ",", ",", ".3f", ".3f", ".3f")
        return Table(header, tuple(rows), name, title, self._caption(said, *sentences, _RANGES), forms)

    def fractions(self) -> Table:
        """The mean absolute and the RMS error of each answer, of those asked and cumulative."""
        errors = self.errors
        parts = (
            (errors.asked, errors.asked_mean_absolute, errors.asked_rms),
            (errors.galaxies, errors.mean_absolute, errors.rms),
        )
        rows = tuple(
            (
                self._tree.columns[column],
                self._tree.describe(column),
                *itertools.chain(*((int(part[0][column]), *(float(value[column]) for value in part[1:])) for part in parts)),
            )
            for column in range(len(self._tree.columns))
        )
        caption = self._caption(
            "Mean absolute error (MAE) and root mean square error (RMSE) of vote fractions: of the volunteers who were asked, "
            f"and cumulative, over all galaxies{' for which somebody answered' if self._asked else ''}.",
            FRACTIONS_RULE,
            weighting_rule(self._asked),
        )
        header = ("column", "answer", "galaxies asked", "MAE of those asked", "RMSE of those asked", "galaxies", "MAE", "RMSE")
        forms = ("", "", ",", ".4f", ".4f", ",", ".4f", ".4f")
        return Table(header, rows, "errors", "Errors of the vote fractions", caption, forms)

    def confusion(self) -> tuple[Chart, Chart]:
        """The confusion matrices of all questions, over all galaxies that count and where volunteers are confident."""
        return self._both(self._confusion, "confusion", "Confusion matrices")

    def _confusion(self, name: str, title: str, scores: Sequence[QuestionScores], *sentences: str) -> Chart:
        counts = [score.counts for score in scores]
        rows = [
            (question.key, question.answers[voted], question.answers[guessed], int(number))
            for question, matrix in zip(self._tree.questions, counts, strict=True)
            for (voted, guessed), number in np.ndenumerate(matrix)
        ]
        return Chart(
            name,
            f"{title}: {_most_confused(self._tree.questions, counts)}",
            self._caption(
                f"{title}: a row for each most voted answer, with its number of galaxies, and a column for each predicted one. "
                "Numbers are percentages of the row; a perfect model has 100 on the diagonal.",
                *sentences,
            ),
            lambda width: figures.draw_confusion(self._tree, width, counts),
            Table(("question", "voted", "predicted", "galaxies"), tuple(rows)),
        )

    def section(self) -> Section:
        """The section of a page with what concerns questions."""
        first, second = self.by_question()
        charts = self.confusion()
        return Section("scores", "Question by question", (), (first, charts[0], second, charts[1]))


def _most_confused(questions: Sequence[Question], counts: Sequence[np.ndarray]) -> str:
    """Which wrong answer is predicted most often."""
    worst = (0, "")
    for question, matrix in zip(questions, counts, strict=True):
        wrong = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
        voted, guessed = np.unravel_index(int(wrong.argmax()), wrong.shape)
        number, answers = int(wrong[voted, guessed]), question.answers
        if number > worst[0]:
            galaxies = wording.some_galaxies(number)
            mistake = f"“{answers[guessed]}” for “{answers[voted]}”, for {galaxies} of question {question.called()}"
            worst = (number, f"no mistake is more frequent than {mistake}")
    return worst[1] or "no answer is mistaken for another"
