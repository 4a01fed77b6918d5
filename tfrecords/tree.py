"""A survey's decision tree: its questions, the columns of their answers, and arithmetic on vote fractions along it.

Vote fractions are cumulative: the fraction of the volunteers asked who gave an answer, times the fraction who were asked
the question. So the columns of a question add up to the columns that lead to it: to 1 if every volunteer is asked, to one
column, or to the sum of several columns that exclude one another.

Arrays of votes are (galaxies, n), in the order of `Tree.columns`. Source: Willett et al. 2013 (MNRAS 435, 2835), section 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest

import numpy as np

from tfrecords.errors import ConfigError


@dataclass(frozen=True)
class Question:
    """One question of a tree.

    `index`: its place, from 0; `start`, `stop`: its columns as a slice of all; `parents`: the columns after which it is
    asked, empty if every volunteer is asked; `words`: the question as a sentence, may be empty; `phrases`: its answers as
    parts of a description ("2 arms").
    """

    index: int
    key: str
    title: str
    words: str
    answers: tuple[str, ...]
    phrases: tuple[str, ...]
    start: int
    stop: int
    parents: tuple[int, ...]

    @property
    def columns(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def numbered(self) -> bool:
        """Whether the survey calls its questions by number."""
        return self.key.isdecimal()

    def called(self, pattern: str = "{}, {}") -> str:
        """Its name in a sentence, after "question": "6, odd" if it is numbered, else its title."""
        return pattern.format(self.key, self.title) if self.numbered else self.title

    def answer_called(self, column: int) -> str:
        """One of its answers in a diagram: "6.1" if the question is numbered, else the answer."""
        place = column - self.start
        return f"{self.key}.{place + 1}" if self.numbered else self.answers[place]


@dataclass(frozen=True)
class Layout:
    """One way in which a survey's tables hold votes.

    name: for the flag --votes. kind: "cumulative" fractions, "fractions" of those asked, or "counts" of volunteers. suffix:
    follows the name of each answer's column in the table. total: if not empty, follows the key of each question in the name of
    a column with the number of its answers. normalise: the fractions of a question need not add up to 1. warning, error: how
    far the sums of a question may deviate, as a fraction.
    """

    name: str
    kind: str
    suffix: str = ""
    total: str = ""
    normalise: bool = False
    warning: float = 1e-2
    error: float = 2e-2


@dataclass(frozen=True)
class GalaxyClass:
    """A class of galaxies: those for which all of `columns` reach a threshold.

    plural: its name for several galaxies. note: the subclasses in words. describe: places of the questions whose most voted
    answers describe a member.
    """

    name: str
    plural: str
    columns: tuple[int, ...]
    note: str
    describe: tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """A sentence about the votes: what a majority for the first of `columns` means, "find nothing odd"."""

    columns: tuple[int, ...]
    words: str


@dataclass(frozen=True)
class FileNames:
    """A second table that maps the ids of the votes to names of image files: its file name and its two columns."""

    table: str
    id: str
    file: str


@dataclass(frozen=True)
class Tree:
    """A decision tree, as read from its file by `treefile`.

    id: column of the table that identifies a galaxy. rest: columns that the table lacks; each is what the other answers of its
    question leave. prefix: a start of all column names that charts omit. volunteers: assumed number per galaxy if the table has
    fractions alone. thresholds: of the classes. scores: published RMSEs to compare with. text: the file.
    """

    name: str
    title: str
    citation: str
    url: str
    id: str
    questions: tuple[Question, ...]
    columns: tuple[str, ...]
    layouts: tuple[Layout, ...]
    rest: frozenset[str] = frozenset()
    prefix: str = ""
    volunteers: int = 40
    files: FileNames | None = None
    tables: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    classes: tuple[GalaxyClass, ...] = ()
    readings: tuple[Reading, ...] = ()
    scores: tuple[tuple[str, float], ...] = ()
    text: str = field(default="", repr=False, compare=False)

    @cached_property
    def index(self) -> dict[str, int]:
        """The place of each column."""
        return {name: place for place, name in enumerate(self.columns)}

    @property
    def table_id(self) -> str:
        """The first column of a table of predictions: as in the survey's own table, or in that which maps images to its ids."""
        return self.files.file if self.files else self.id or "GalaxyID"

    @property
    def structure(self) -> tuple[tuple[object, ...], ...]:
        """What two trees must have in common so that a model of one fits votes of the other."""
        return tuple((q.key, q.answers, self.columns[q.columns], q.parents) for q in self.questions)

    def question_of(self, column: int) -> Question:
        """The question that a column answers."""
        return next(q for q in self.questions if q.start <= column < q.stop)

    def short(self, column: int) -> str:
        """The name of a column in a chart: without the prefix."""
        return self.columns[column].removeprefix(self.prefix)

    def describe(self, column: int) -> str:
        """A column in words: 'bar: no' for Kaggle's Class3.2."""
        question = self.question_of(column)
        return f"{question.title}: {question.answers[column - question.start]}"

    def leads(self, question: Question) -> str:
        """The columns after which a question is asked, in words: 'Class2.2', 'a + b'; '1' if all are asked."""
        return " + ".join(self.columns[parent] for parent in question.parents) or "1"

    def reached(self, votes: np.ndarray, question: Question) -> np.ndarray:
        """The fraction of volunteers who were asked a question: (galaxies, n) -> (galaxies,), in the type of the votes."""
        if not question.parents:
            return np.ones(len(votes), votes.dtype)
        return np.asarray(votes[:, list(question.parents)].sum(axis=1, dtype=votes.dtype))

    def deviation(self, votes: np.ndarray, asked: np.ndarray | None = None) -> np.ndarray:
        """How far the sum of each question's columns deviates from the columns that lead to it.

        votes: (galaxies, n), any float; asked: (galaxies, questions), answers to each question: without any, its deviation is
        0. Returns (galaxies, questions), the absolute differences, computed in float64.
        """
        votes = np.asarray(votes, np.float64)
        sums = [np.abs(votes[:, q.columns].sum(axis=1) - self.reached(votes, q)) for q in self.questions]
        deviations = np.stack(sums, axis=1)
        return deviations if asked is None else np.where(np.asarray(asked) > 0, deviations, 0.0)

    def counted(self, asked: np.ndarray | None) -> np.ndarray | None:
        """Which votes count, bool (galaxies, n): those on questions that somebody answered. None, for all, without `asked`."""
        return None if asked is None else for_answers(np.asarray(asked) > 0, self.questions)

    def project(self, votes: np.ndarray) -> np.ndarray:
        """Votes made to obey the tree: negative values become 0, and each question's columns are scaled to add up.

        (galaxies, n) -> float64 (galaxies, n); valid votes are unchanged. If a question's columns are all 0, its answers share
        equally. Source: Dieleman, Willett & Dambre 2015 (MNRAS 450, 1441).
        """
        projected = np.empty(np.shape(votes))
        for q in self.questions:
            shares = self.shares(votes, q)
            projected[:, q.columns] = shares * self.reached(projected, q)[:, None] if q.parents else shares
        return projected

    def shares(self, votes: np.ndarray, question: Question) -> np.ndarray:
        """A question's columns scaled to add up to 1, negative values as 0: (galaxies, n) -> float64 (galaxies, answers).

        If the columns are all 0, the answers share equally.
        """
        group = np.maximum(np.asarray(votes)[:, question.columns].astype(np.float64), 0)
        total = group.sum(axis=1, keepdims=True)
        return np.divide(group, total, out=np.full_like(group, 1 / group.shape[1]), where=total > 0)

    def conditional(self, votes: np.ndarray, minimum: float) -> np.ndarray:
        """The fraction of those asked who gave each answer, after projection: (galaxies, n) -> float64 (galaxies, n).

        NaN if a fraction below `minimum` was asked: a small error of the columns that lead there could then give any value.
        """
        projected = self.project(votes)
        fractions = np.empty_like(projected)
        for q in self.questions:
            asked = self.reached(projected, q)
            enough = (asked >= minimum) & (asked > 0)
            whole = np.where(enough, asked, 1)[:, None]
            fractions[:, q.columns] = np.where(enough[:, None], projected[:, q.columns] / whole, np.nan)
        return fractions

    def class_score(self, votes: np.ndarray, member: GalaxyClass) -> np.ndarray:
        """The smallest column of a class, per galaxy: (galaxies, n) -> (galaxies,)."""
        return np.asarray(votes)[:, list(member.columns)].min(axis=1)

    def in_class(self, votes: np.ndarray, member: GalaxyClass, threshold: float) -> np.ndarray:
        """Whether each galaxy is in a class: all its columns >= threshold. (galaxies, n) -> bool (galaxies,)."""
        return self.class_score(votes, member) >= threshold

    def refuse_other(self, other: "Tree", ours: object, theirs: object) -> None:
        """Raise ConfigError unless `other`, the tree of `theirs`, has the same questions and columns as this one, of `ours`."""
        if self.structure != other.structure:
            where = f" (they differ in {self._difference(other)})" if self.name == other.name else ""
            raise ConfigError(
                f"{theirs}: its decision tree, {other.name}, is not that of {ours}, {self.name}{where}: "
                "use a dataset of the same tree, or train on this one"
            )

    def _difference(self, other: "Tree") -> str:
        """The first column or question, in words, in which a tree with another structure differs."""
        parts = zip_longest(self.questions, other.questions, self.structure, other.structure)
        mine, theirs = next((one, another) for one, another, this, that in parts if this != that)
        if mine is None or theirs is None or mine.key != theirs.key:
            return f"question {(theirs or mine).key}"
        columns = zip_longest(self.columns[mine.columns], other.columns[theirs.columns])
        column = next((that or this for this, that in columns if this != that), "")
        return f"column {column}" if column else f"question {mine.key}"


def column_means(votes: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """The mean of each column of `votes` (galaxies, n), float64 (n,); only where `counted`, bool (galaxies, n), if given.

    Summed in float64: in float32 the mean of 49,000 values of 0.7 is 0.69966, and that of 6 x 10^7 values is 0.28. A column
    that never counts has mean 0.
    """
    votes = np.asarray(votes)
    if counted is None:
        return np.asarray(votes.mean(axis=0, dtype=np.float64))
    return votes.sum(axis=0, dtype=np.float64, where=counted) / np.maximum(counted.sum(axis=0), 1)


def for_answers(by_question: np.ndarray, questions: Sequence[Question]) -> np.ndarray:
    """Repeat the columns of (galaxies, questions) for each answer: (galaxies, n)."""
    return np.repeat(by_question, [q.stop - q.start for q in questions], axis=1)


def drawing(tree: Tree) -> str:
    """The tree as text: each question below the answer that leads to it, and the columns of the answers to the right.

    A question asked after several answers is drawn below the first; the others point to it.
    """
    kinds = [layout.name if layout.name == layout.kind else f"{layout.name} ({layout.kind})" for layout in tree.layouts]
    head = [tree.name if tree.title == tree.name else f"{tree.name}: {tree.title}", tree.citation, tree.url]
    head.append(f"id: {tree.id or 'found by its name'}; votes: {', '.join(kinds)}; {len(tree.columns)} answers:")
    rows: list[tuple[str, str]] = []

    def draw(question: Question, indent: str) -> None:
        words = f": {question.words}" if question.words else ""
        rows.append((f"{indent}{question.called('{} {}')}{words}", ""))
        for column in range(question.start, question.stop):
            last = column == question.stop - 1
            rest = " (the rest)" if tree.columns[column] in tree.rest else ""
            answer = question.answers[column - question.start]
            rows.append((f"{indent}{'└─' if last else '├─'} {answer}", f"{tree.columns[column]}{rest}"))
            below = f"{indent}{'  ' if last else '│ '}   "
            for other in tree.questions:
                if column in other.parents[:1]:
                    draw(other, below)
                elif column in other.parents:
                    rows.append((f"{below}-> {other.called('{} {}')}, drawn after {tree.describe(other.parents[0])}", ""))

    for question in tree.questions:
        if not question.parents:
            draw(question, "")
    width = max(len(left) for left, right in rows if right)
    return "\n".join([line for line in head if line] + [""] + [f"{left:{width}}  {right}".rstrip() for left, right in rows])
