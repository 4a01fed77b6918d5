"""The 37 answers, the 11 questions they belong to, the decision tree, and the Hubble classes read off it.

Source: Willett et al. 2013 (MNRAS 435, 2835), figure 1 and table 2; column names as in the Kaggle challenge.
A column is cumulative: the fraction of volunteers who gave an answer once asked, times the column that led to
the question. So the columns of a question add up to its parent column (to 1 where there is no parent).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Question:
    """One question of the decision tree.

    `start`, `stop`: its columns as a slice of the 37; `parent`: the column that leads to it, None if all are asked.
    """

    number: int
    title: str
    answers: tuple[str, ...]
    start: int
    stop: int
    parent: int | None

    @property
    def columns(self) -> slice:
        return slice(self.start, self.stop)


def _tree() -> tuple[Question, ...]:
    """Number the columns from left to right; a parent is given as (question, answer), both from 1."""
    asked: list[tuple[str, tuple[int, int] | None, tuple[str, ...]]] = [
        ("smooth or featured", None, ("smooth", "features or disk", "star or artifact")),
        ("edge-on", (1, 2), ("yes", "no")),
        ("bar", (2, 2), ("yes", "no")),
        ("spiral", (2, 2), ("yes", "no")),
        ("bulge", (2, 2), ("none", "just noticeable", "obvious", "dominant")),
        ("odd", None, ("yes", "no")),
        ("roundness", (1, 1), ("completely round", "in between", "cigar")),
        ("odd feature", (6, 1), ("ring", "lens or arc", "disturbed", "irregular", "other", "merger", "dust lane")),
        ("bulge shape, edge-on", (2, 1), ("rounded", "boxy", "none")),
        ("winding", (4, 1), ("tight", "medium", "loose")),
        ("arms", (4, 1), ("1", "2", "3", "4", "more than 4", "can't tell")),
    ]
    questions: list[Question] = []
    start = 0
    for number, (title, parent, answers) in enumerate(asked, 1):
        column = None if parent is None else questions[parent[0] - 1].start + parent[1] - 1
        questions.append(Question(number, title, answers, start, start + len(answers), column))
        start += len(answers)
    return tuple(questions)


QUESTIONS = _tree()
COLUMNS = tuple(f"Class{q.number}.{i}" for q in QUESTIONS for i in range(1, len(q.answers) + 1))
COLUMN_INDEX = {name: index for index, name in enumerate(COLUMNS)}
# The article's three classes: a galaxy is in one at threshold t when all its columns are >= t.
HUBBLE_CLASSES = {
    "elliptical": ("Class1.1",),
    "spiral": ("Class4.1", "Class3.2"),
    "barred spiral": ("Class4.1", "Class3.1"),
}
# Real votes deviate by at most 2e-6 (rounding in the published table); the rest is a broken table.
SUM_TOLERANCE_WARNING = 1e-5
SUM_TOLERANCE_ERROR = 1e-3


def describe(column: int) -> str:
    """A column in words: 'bar: no' for Class3.2."""
    question = next(q for q in QUESTIONS if q.start <= column < q.stop)
    return f"{question.title}: {question.answers[column - question.start]}"


def tree_deviation(votes: np.ndarray) -> np.ndarray:
    """How far each question's columns are from adding up to their parent.

    votes: (galaxies, 37), any float. Returns (galaxies, 11), the absolute differences, computed in float64.
    """
    votes = np.asarray(votes, np.float64)
    deviations = [
        np.abs(votes[:, q.columns].sum(axis=1) - (1.0 if q.parent is None else votes[:, q.parent])) for q in QUESTIONS
    ]
    return np.stack(deviations, axis=1)


def hubble_score(votes: np.ndarray, name: str) -> np.ndarray:
    """The smallest of the columns of a Hubble class, per galaxy: (galaxies, 37) -> (galaxies,)."""
    return np.asarray(votes)[:, [COLUMN_INDEX[column] for column in HUBBLE_CLASSES[name]]].min(axis=1)
