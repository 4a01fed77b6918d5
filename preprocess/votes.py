"""Votes of galaxies, from the numbers of a table: cumulative fractions along a decision tree, and how many answered.

Whatever the table holds (cumulative fractions, fractions of those asked, counts), all of it is checked first. Fractions and
counts become shares of each question's answers, and shares are multiplied along the tree.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from preprocess.likeness import ROUNDING, Likeness
from tfrecords.errors import SourceError
from tfrecords.tree import Layout, Question, Tree, for_answers

_NEGLIGIBLE = 1e-6
_NAMED = 3
_EXCEED = "the counts of question {} exceed their total"


@dataclass(frozen=True)
class Numbers:
    """The numbers of a table: `ids` (n,) of its rows, `values` float64 (n, answers), NaN if blank or the rest of the others.

    path: the table in messages. totals: float64 (n, questions), how many answered each question, NaN if blank; None without
    such columns.
    """

    path: str
    ids: np.ndarray
    values: np.ndarray
    totals: np.ndarray | None = None


@dataclass(frozen=True)
class Oddity:
    """Something odd that does not prevent the use of some votes: what a sentence says before and after it names the galaxies.

    first: the first of these galaxies. number: how many there are. place: of the check among all, in their order.
    """

    before: str
    after: str
    first: tuple[Any, ...]
    number: int
    place: int = 0

    def __str__(self) -> str:
        return f"{self.before} for {_in_words(self.first, self.number)}{self.after}"

    def joined(self, other: "Oddity") -> "Oddity":
        """The same, of the galaxies of both."""
        return replace(self, first=(*self.first, *other.first)[:_NAMED], number=self.number + other.number)


class Refusal(SourceError):
    """Votes that cannot be used.

    place: of the check that refuses them among all, in their order. fault: what is wrong with which galaxies. late: whether a
    `Likeness` is judged before this check. above: whether fractions are above 1. text: the message if it names no galaxies.
    """

    def __init__(self, place: int, fault: Oddity, late: bool = False, above: bool = False, text: str = "") -> None:
        super().__init__(text or str(fault))
        self.place, self.fault, self.late, self.above = place, fault, late, above

    def joined(self, later: "Refusal") -> "Refusal":
        """The refusal of all rows, given that of later ones: by the first check that refuses any."""
        if later.place != self.place:
            return min(self, later, key=lambda refusal: refusal.place)
        return Refusal(self.place, self.fault.joined(later.fault), self.late, self.above or later.above)


@dataclass(frozen=True)
class Fractions:
    """Votes in the order of a tree: `targets` float64 (n, answers), `asked` float64 (n, questions) or None.

    empty: bool (n,), galaxies on which nobody voted. estimated: whether `asked` follows from an assumed number of volunteers.
    unknown: whether it must, because a question is blank which volunteers were asked.
    """

    targets: np.ndarray
    asked: np.ndarray | None
    empty: np.ndarray
    estimated: bool
    oddities: tuple[Oddity, ...]
    unknown: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each oddity."""
        return tuple(map(str, self.oddities))


def _in_words(shown: Sequence[object], number: int) -> str:
    """So many galaxies in words, of which the first are shown."""
    more = f" and {number - _NAMED} more" if number > _NAMED else ""
    return f"{'galaxy' if number == 1 else 'galaxies'} {', '.join(map(str, shown))}{more}"


def named(ids: Sequence[object] | np.ndarray) -> str:
    """Up to three galaxies in words: 'galaxies 1, 2, 3 and 4 more'."""
    return _in_words([*ids[:_NAMED]], len(ids))


def rounded(values: np.ndarray, layout: Layout) -> np.ndarray:
    """Values below 0 by no more than rounding as 0."""
    return np.where((values < 0) & (values >= -layout.error), 0, values)


def _first_sums(values: np.ndarray, tree: Tree) -> np.ndarray:
    return np.asarray(values[:, tree.questions[0].columns].sum(axis=1))


def first_sums(values: np.ndarray, tree: Tree, layout: Layout) -> np.ndarray:
    """The sums of the first question's answers, float64 (n,), of values as in `Numbers`: for `likely_kind`."""
    return _first_sums(np.nan_to_num(rounded(values, layout)), tree)


def likely_kind(path: str, tree: Tree, sums: np.ndarray) -> str:
    """What fractions above 1 are, as a message; empty if they are fractions. sums: as in `first_sums`, of all rows."""
    first, whole = tree.questions[0], float(np.median(sums))
    if whole <= 2:
        return ""
    percent, counts = "percentages: divide them by 100", 'counts: use a tree file with kind = "counts"'
    kind = percent if 99 <= whole <= 101 else counts
    if tree.rest & {*tree.columns[first.columns]}:  # the sum of all answers is unknown
        kind = f"{percent}; or {counts}"
    return (
        f"{path}: the columns of question {first.key} add up to {whole:g} for most galaxies, not to 1: these look like {kind}"
    )


class _Checks:
    """Checks of one table that name its path, columns and galaxies."""

    def __init__(self, numbers: Numbers, tree: Tree, layout: Layout) -> None:
        self.numbers, self.tree, self.layout = numbers, tree, layout
        self.oddities: list[Oddity] = []
        self.late = False
        self._places = itertools.count()  # the same checks follow one another, whatever the rows hold

    def column(self, place: int) -> str:
        return f"{self.tree.columns[place]}{self.layout.suffix}"

    def _oddity(self, odd: np.ndarray, what: str, after: str, place: int) -> Oddity:
        ids = self.numbers.ids[odd]
        return Oddity(f"{self.numbers.path}: {what}", after, tuple(ids[:_NAMED].tolist()), len(ids), place)

    def refuse(self, bad: np.ndarray, fault: str, cure: str, above: bool = False, text: str = "") -> None:
        """Raise Refusal if any of `bad`, bool (n, answers), is true. above, text: as in `Refusal`."""
        place = next(self._places)
        if bad.any():
            column = self.column(int(np.argwhere(bad)[0, 1]))
            odd = self._oddity(np.asarray(bad.any(axis=1)), f"values {fault}", f", first in {column}: {cure}", place)
            raise Refusal(place, odd, self.late, above, text)

    def refuse_question(self, bad: np.ndarray, what: str, cure: str) -> None:
        """Raise Refusal if any of `bad`, bool (n,), is true."""
        place = next(self._places)
        if bad.any():
            raise Refusal(place, self._oddity(bad, what, f": {cure}", place), self.late)

    def warn(self, odd: np.ndarray, what: str, after: str = "") -> None:
        """Note an oddity if any of `odd`, bool (n,), is true. after: what follows the names of the galaxies."""
        place = next(self._places)
        if odd.any():
            self.oddities.append(self._oddity(odd, what, after, place))

    def sums(self, deviation: np.ndarray, question: Question, expected: str) -> None:
        """Compare (n,), the absolute deviations of a question's sums, with the tolerances of the layout."""
        rule = f"the columns of question {question.key} do not add up to {expected}"
        self.refuse_question(deviation > self.layout.error, rule, "correct the table")
        odd = deviation > self.layout.warning
        self.warn(odd, f"{rule} within {self.layout.warning:g}")

    def fractions(self, values: np.ndarray) -> None:
        """Raise SourceError for fractions outside 0 to 1, rounding errors aside."""
        above = values > 1 + self.layout.error
        text = ""
        if above.any():
            text = likely_kind(self.numbers.path, self.tree, _first_sums(values, self.tree))
        self.refuse((values < 0) | above, "outside 0 to 1", "correct them", bool(above.any()), text)

    def blank(self, question: Question) -> np.ndarray:
        """Galaxies for which a question has no values, bool (n,). Raises SourceError if only some of its answers have one."""
        there = np.zeros(len(self.tree.columns), bool)
        there[question.columns] = True
        there &= ~_is_rest(self.tree)
        missing = np.isnan(self.numbers.values) & there
        nothing = np.asarray(missing[:, there].all(axis=1))
        self.refuse(missing & ~nothing[:, None], "missing or not finite", "correct them")
        return nothing

    def totals(self) -> np.ndarray | None:
        """How many answered each question, float64 (n, questions), 0 if blank; None if the table does not state it."""
        if self.numbers.totals is None:
            return None
        for question in self.tree.questions:
            total = self.numbers.totals[:, question.index]
            wrong = np.isinf(total) | (total < 0)
            self.refuse_question(wrong, f"the total of question {question.key} is below 0 or not finite", "correct it")
        return np.asarray(np.nan_to_num(self.numbers.totals))

    def lacks_total(self, question: Question, totals: np.ndarray) -> None:
        """Raise SourceError if the table has votes on a question whose total, of (n, questions), is 0."""
        stated = np.nan_to_num(self.numbers.values[:, question.columns]).max(axis=1)  # the rest of the others is NaN
        bad = (stated > 0) & (totals[:, question.index] == 0)
        self.refuse_question(bad, f"question {question.key} has votes, but its total is 0", "correct the table")

    def more_than_whole(self, group: np.ndarray, question: Question, whole: str = "1") -> np.ndarray:
        """Answers of a question (n, answers), the rest at least 0. Raises SourceError if it is below by more than rounding."""
        if not self.tree.rest & {*self.tree.columns[question.columns]}:
            return group
        excess = np.asarray((group < -self.layout.error).any(axis=1))
        self.refuse_question(excess, f"the columns of question {question.key} add up to more than {whole}", "correct the table")
        return np.maximum(group, 0)


def _rest(tree: Tree, values: np.ndarray, question: Question, whole: np.ndarray) -> np.ndarray:
    """The values of a question (n, its answers), the rest filled in: what the others leave of `whole` (n,)."""
    group = values[:, question.columns].copy()
    for place in range(question.start, question.stop):
        if tree.columns[place] in tree.rest:
            group[:, place - question.start] = whole - np.delete(group, place - question.start, axis=1).sum(axis=1)
    return group


def _is_rest(tree: Tree) -> np.ndarray:
    return np.array([column in tree.rest for column in tree.columns])


def _cumulative(checks: _Checks) -> Fractions:
    """Cumulative fractions, taken as they are once their sums are checked."""
    tree, values = checks.tree, checks.numbers.values
    checks.refuse(~np.isfinite(values) & ~_is_rest(tree), "missing or not finite", "correct them")
    checks.fractions(np.nan_to_num(values))
    targets = values.copy()
    asked = checks.totals()
    for question in tree.questions:
        group = _rest(tree, targets, question, tree.reached(targets, question))
        targets[:, question.columns] = checks.more_than_whole(group, question, tree.leads(question))
        if asked is not None:
            checks.lacks_total(question, asked)
            targets[asked[:, question.index] == 0, question.columns] = 0  # nor did anybody give the rest of the answers
    deviation = tree.deviation(targets, asked)
    for question in tree.questions:
        checks.sums(deviation[:, question.index], question, tree.leads(question))
    empty = np.zeros(len(targets), bool) if asked is None else np.asarray(~(asked > 0).any(axis=1))
    return Fractions(targets, asked, empty, False, tuple(checks.oddities))


def _along(tree: Tree, shares: np.ndarray) -> np.ndarray:
    """Shares of each question's answers (n, answers) multiplied along the tree."""
    targets = np.zeros_like(shares)
    for question in tree.questions:
        targets[:, question.columns] = shares[:, question.columns] * tree.reached(targets, question)[:, None]
    return targets


def _of_asked(checks: _Checks, assume: bool) -> Fractions:
    """Fractions of those who were asked each question; a question may be blank or all 0 if nobody answered it."""
    tree, layout, values = checks.tree, checks.layout, checks.numbers.values
    shares = np.zeros_like(values)
    answered = np.zeros((len(values), len(tree.questions)), bool)
    checks.fractions(np.nan_to_num(values))
    for question in tree.questions:
        blank = checks.blank(question)
        group = checks.more_than_whole(_rest(tree, values, question, np.ones(len(values))), question)
        total = np.nan_to_num(group).sum(axis=1)
        answered[:, question.index] = ~blank & (total > 0)
        if not layout.normalise:
            checks.sums(np.where(answered[:, question.index], np.abs(total - 1), 0), question, "1")
        whole = np.where(answered[:, question.index], total, 1)[:, None]
        shares[:, question.columns] = np.where(answered[:, question.index, None], group / whole, 0)
    targets = _along(tree, shares)
    reached = np.stack([tree.reached(targets, question) for question in tree.questions], axis=1)
    # Usually the fractions of a question are blank if nobody was asked it; then its targets are 0 anyway.
    empty = np.asarray(~answered.any(axis=1))
    unknown = ~answered & (reached > _NEGLIGIBLE) & ~empty[:, None]
    asked = np.where(answered, reached * tree.volunteers, 0.0) if unknown.any() or assume else None
    for question in tree.questions if checks.numbers.totals is None else ():
        checks.warn(
            unknown[:, question.index],
            f"question {question.key} is blank",
            f": as the table gives no numbers of answers, {tree.volunteers} volunteers are assumed for each galaxy",
        )
    return Fractions(targets, asked, empty, asked is not None, tuple(checks.oddities), bool(unknown.any()))


def _counted(checks: _Checks, counts: np.ndarray) -> Fractions:
    """Counts of volunteers (n, answers); totals may exceed the sum of the counts, if some answers have no column."""
    tree, totals = checks.tree, checks.totals()
    targets = np.zeros_like(counts)
    asked = np.zeros((len(counts), len(tree.questions)))
    for question in tree.questions:
        group = counts[:, question.columns]
        given = group.sum(axis=1)
        everyone = given
        if totals is not None:
            total = totals[:, question.index]
            checks.refuse_question(given > total + ROUNDING, _EXCEED.format(question.key),
                                   "correct the table")  # fmt: skip
            checks.warn(
                given < total - ROUNDING,
                f"question {question.key} has fewer answers with a column than its total; the others are ignored,",
            )
            everyone = np.maximum(total, given)
        if question.parents:
            leading = counts[:, list(question.parents)].sum(axis=1)
            checks.refuse_question(
                everyone > leading + ROUNDING,
                f"more volunteers answered question {question.key} than gave the answers that lead to it "
                f"({tree.leads(question)})",
                "correct the table, or after in the tree",
            )
        shares = np.divide(group, given[:, None], out=np.zeros_like(group), where=given[:, None] > 0)
        targets[:, question.columns] = shares * tree.reached(targets, question)[:, None]
        asked[:, question.index] = given
    return Fractions(targets, asked, np.asarray(~(asked > 0).any(axis=1)), False, tuple(checks.oddities))


def _counts(checks: _Checks, judged: bool) -> Fractions:
    tree, numbers = checks.tree, checks.numbers
    values, is_rest = numbers.values, _is_rest(checks.tree)
    for question in tree.questions:
        checks.blank(question)
    counts = np.asarray(np.nan_to_num(values))
    checks.refuse(counts < 0, "below 0", "correct them")
    checks.late = True
    if not judged:
        likeness = Likeness(numbers.path, tree)
        likeness.add(values)
        likeness.refuse()
    for question in tree.questions:
        if is_rest[question.columns].any():
            totals = checks.totals()
            assert totals is not None  # a tree with such an answer has a total
            group = _rest(tree, counts, question, totals[:, question.index])
            exceeding = np.asarray((group < -ROUNDING).any(axis=1))
            checks.refuse_question(exceeding, _EXCEED.format(question.key), "correct the table")
            counts[:, question.columns] = np.maximum(group, 0)
    return _counted(checks, counts)


def _counts_of(checks: _Checks, totals: np.ndarray) -> np.ndarray:
    """Counts (n, answers) from fractions of those asked and totals (n, questions), which may count more answers."""
    tree, values = checks.tree, checks.numbers.values
    checks.fractions(np.nan_to_num(values))
    counts = np.zeros_like(values)
    for question in tree.questions:
        checks.blank(question)
        checks.lacks_total(question, totals)
        group = checks.more_than_whole(_rest(tree, values, question, np.ones(len(values))), question)
        whole = np.nan_to_num(group).sum(axis=1)
        above = np.asarray(whole > 1 + checks.layout.error)
        checks.refuse_question(above, f"the columns of question {question.key} add up to more than 1", "correct the table")
        # Rounded fractions must not change how many answered.
        scale = np.where(np.abs(whole - 1) <= checks.layout.error, whole, 1)[:, None]
        counts[:, question.columns] = np.nan_to_num(group) / scale * totals[:, [question.index]]
    return counts


def fractions_of(numbers: Numbers, tree: Tree, layout: Layout, assume: bool = False, judged: bool = False) -> Fractions:
    """The votes of a table's galaxies; values below 0 by no more than rounding count as 0.

    assume: numbers of answers, if the table has none, even if no question is blank. judged: these are only a part of a table,
    all of whose rows a `Likeness` has judged.
    Raises Refusal, naming columns or galaxies, if they cannot be used.
    """
    numbers = replace(numbers, values=rounded(numbers.values, layout))
    checks = _Checks(numbers, tree, layout)
    infinite = np.isinf(numbers.values)
    checks.refuse(infinite, "missing or not finite", "correct them")
    if layout.kind == "cumulative":
        return _cumulative(checks)
    if layout.kind == "counts":
        return _counts(checks, judged)
    totals = checks.totals()
    if totals is not None and not layout.normalise:
        return _counted(checks, _counts_of(checks, totals))
    result = _of_asked(checks, assume)
    if totals is None:
        return result
    for question in tree.questions:
        checks.lacks_total(question, totals)
    answered = np.stack([result.targets[:, q.columns].sum(axis=1) > 0 for q in tree.questions], axis=1)
    asked = np.where(answered, totals, 0)
    targets = np.where(for_answers(asked > 0, tree.questions), result.targets, 0)
    return Fractions(targets, asked, np.asarray(~(asked > 0).any(axis=1)), False, result.oddities)
