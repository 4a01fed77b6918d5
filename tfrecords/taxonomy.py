"""The 37 answers, the 11 questions they belong to, the decision tree, and the Hubble classes derived from it.

Source: Willett et al. 2013 (MNRAS 435, 2835), figure 1 and table 2; column names as in the Kaggle challenge.
Columns are cumulative: the fraction of the volunteers asked who gave the answer, times the column that leads to
the question. So the columns of a question add up to its parent column (to 1 if it has no parent).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Question:
    """One question of the decision tree.

    `start`, `stop`: its columns as a slice of the 37; `parent`: the column that leads to it, None if every volunteer is asked.
    `words`: the question, in our words.
    """

    number: int
    title: str
    words: str
    answers: tuple[str, ...]
    start: int
    stop: int
    parent: int | None

    @property
    def columns(self) -> slice:
        return slice(self.start, self.stop)


def _tree() -> tuple[Question, ...]:
    """Number the columns from left to right; a parent is given as (question, answer), both counted from 1."""
    asked: list[tuple[str, str, tuple[int, int] | None, tuple[str, ...]]] = [
        ("smooth or featured", "Smooth and round, or with features?", None, ("smooth", "features or disk", "star or artifact")),
        ("edge-on", "Is it a disk seen edge-on?", (1, 2), ("yes", "no")),
        ("bar", "Does a bar cross its centre?", (2, 2), ("yes", "no")),
        ("spiral", "Are there spiral arms?", (2, 2), ("yes", "no")),
        ("bulge", "How strong is the central bulge?", (2, 2), ("none", "just noticeable", "obvious", "dominant")),
        ("odd", "Is anything odd about it?", None, ("yes", "no")),
        ("roundness", "How round is it?", (1, 1), ("completely round", "in between", "cigar")),
        (
            "odd feature",
            "What is odd about it?",
            (6, 1),
            ("ring", "lens or arc", "disturbed", "irregular", "other", "merger", "dust lane"),
        ),
        ("bulge shape, edge-on", "What shape is the bulge, seen edge-on?", (2, 1), ("rounded", "boxy", "none")),
        ("winding", "How tightly are the arms wound?", (4, 1), ("tight", "medium", "loose")),
        ("arms", "How many arms are there?", (4, 1), ("1", "2", "3", "4", "more than 4", "can't tell")),
    ]
    questions: list[Question] = []
    start = 0
    for number, (title, words, parent, answers) in enumerate(asked, 1):
        column = None if parent is None else questions[parent[0] - 1].start + parent[1] - 1
        questions.append(Question(number, title, words, answers, start, start + len(answers), column))
        start += len(answers)
    return tuple(questions)


QUESTIONS = _tree()
COLUMNS = tuple(f"Class{q.number}.{i}" for q in QUESTIONS for i in range(1, len(q.answers) + 1))
COLUMN_INDEX = {name: index for index, name in enumerate(COLUMNS)}
# The article's three classes and its thresholds: a galaxy is in a class at threshold t if all columns of the class are >= t.
HUBBLE_THRESHOLDS = (0.9, 0.6)
HUBBLE_CLASSES = {
    "elliptical": ("Class1.1",),
    "spiral": ("Class4.1", "Class3.2"),
    "barred spiral": ("Class4.1", "Class3.1"),
}
# Real votes deviate by at most 2e-6 (rounding in the published table); larger deviations mean a faulty table.
SUM_TOLERANCE_WARNING = 1e-5
SUM_TOLERANCE_ERROR = 1e-3


def describe(column: int) -> str:
    """A column in words: 'bar: no' for Class3.2."""
    question = next(q for q in QUESTIONS if q.start <= column < q.stop)
    return f"{question.title}: {question.answers[column - question.start]}"


def tree_deviation(votes: np.ndarray) -> np.ndarray:
    """How far the sum of each question's columns deviates from its parent column.

    votes: (galaxies, 37), any float. Returns (galaxies, 11), the absolute differences, computed in float64.
    """
    votes = np.asarray(votes, np.float64)
    deviations = [
        np.abs(votes[:, q.columns].sum(axis=1) - (1.0 if q.parent is None else votes[:, q.parent])) for q in QUESTIONS
    ]
    return np.stack(deviations, axis=1)


def hubble_score(votes: np.ndarray, name: str) -> np.ndarray:
    """The smallest column of a Hubble class, per galaxy: (galaxies, 37) -> (galaxies,)."""
    return np.asarray(votes)[:, [COLUMN_INDEX[column] for column in HUBBLE_CLASSES[name]]].min(axis=1)


def project(votes: np.ndarray) -> np.ndarray:
    """Votes made to obey the tree: negative values become 0, and each question's columns are scaled to add up to the parent.

    (galaxies, 37) -> float64 (galaxies, 37); valid votes are unchanged. If a question's columns are all 0, its answers
    share the parent equally. Source: Dieleman, Willett & Dambre 2015 (MNRAS 450, 1441).
    """
    votes = np.maximum(np.asarray(votes, np.float64), 0)
    projected = np.empty_like(votes)
    for q in QUESTIONS:
        group = votes[:, q.columns]
        total = group.sum(axis=1, keepdims=True)
        shares = np.divide(group, total, out=np.full_like(group, 1 / group.shape[1]), where=total > 0)
        projected[:, q.columns] = shares if q.parent is None else shares * projected[:, q.parent, None]
    return projected


def conditional(votes: np.ndarray, minimum: float) -> np.ndarray:
    """The fraction of those asked who gave each answer, after projection: (galaxies, 37) -> float64 (galaxies, 37).

    NaN if a fraction below `minimum` was asked: a small error of the parent could then give any value.
    """
    projected = project(votes)
    fractions = np.empty_like(projected)
    for q in QUESTIONS:
        asked = np.ones(len(projected)) if q.parent is None else projected[:, q.parent]
        enough = (asked >= minimum) & (asked > 0)
        whole = np.where(enough, asked, 1)[:, None]
        fractions[:, q.columns] = np.where(enough[:, None], projected[:, q.columns] / whole, np.nan)
    return fractions


def in_hubble_class(votes: np.ndarray, name: str, threshold: float) -> np.ndarray:
    """Whether each galaxy is in a Hubble class: all its columns >= threshold. (galaxies, 37) -> bool (galaxies,)."""
    return hubble_score(votes, name) >= threshold


def column_means(votes: np.ndarray) -> np.ndarray:
    """The mean of each column of `votes` (n, 37), float64 (37,).

    Summed in float64: in float32 the mean of 49,000 values of 0.7 is 0.69966, and that of 6 x 10^7 values is 0.28.
    """
    return np.asarray(np.asarray(votes).mean(axis=0, dtype=np.float64))
