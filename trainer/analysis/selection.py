"""Select galaxies by expressions like `Class4.1 > 0.8 and not (Class3.1 > 0.5 or Class6.1 > 0.4)`, never run as Python.

Columns are those of the decision tree, in upper or lower case. Names may hold hyphens and dots: the longest that fits counts.

A comparison with a fraction of a question that nobody answered is neither true nor false, and so is what depends on it alone.

expression = conjunction { "or" conjunction }
conjunction = term { "and" term }
term        = "not" term | "(" expression ")" | column comparison number
comparison  = ">" | ">=" | "<" | "<=" | "==" | "!="
"""

import difflib
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrecords.errors import SettingError
from tfrecords.tree import Tree

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_OPERATOR, _WORD = r">=|<=|==|!=|[<>()]", r"[A-Za-z_][\w.-]*"
_MAX_DEPTH = 100
# Characters of an expression in a message.
_SHOWN = 200
# (votes (galaxies, n), which of them count or None for all) -> whether it is true, and whether it is false: bool (galaxies,).
_Test = Callable[[np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Selection:
    """A parsed expression: its normal form, the columns it names, and the test for galaxies.

    compound: its parts are joined by `and` or `or`.
    """

    text: str
    columns: tuple[str, ...]
    test: _Test
    compound: bool = False

    def matches(self, votes: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
        """Whether it is true for each galaxy, bool (galaxies,). counted: which votes count, bool (galaxies, n); None: all."""
        return self.test(votes, counted)[0]

    @property
    def whole(self) -> str:
        """Its text as part of another expression, in parentheses if compound."""
        return f"({self.text})" if self.compound else self.text

    def __str__(self) -> str:
        return self.text


def _compared(tree: Tree, column: str, comparison: str, number: float) -> Selection:
    index, holds = tree.index[column], _COMPARISONS[comparison]
    text = f"{column} {comparison} {number!r}"

    def test(votes: np.ndarray, counted: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        true = np.asarray(holds(np.asarray(votes)[:, index], number))
        return (true, ~true) if counted is None else (true & counted[:, index], ~true & counted[:, index])

    return Selection(text, (column,), test)


def _joined(word: str, parts: Sequence[Selection]) -> Selection:
    """Parts joined by `and` or `or`. They are tested in a loop: thousands may come from a list of galaxies."""
    if len(parts) == 1:
        return parts[0]
    first, *others = parts
    columns = tuple(dict.fromkeys(column for part in parts for column in part.columns))
    # Each word joins what is before it with what is after it.
    text = "(" * (len(others) - 1) + f"{first.whole} {word} " + f") {word} ".join(part.whole for part in others)

    def test(votes: np.ndarray, counted: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        true, false = first.test(votes, counted)
        for other in others:
            also_true, also_false = other.test(votes, counted)
            if word == "and":
                true, false = true & also_true, false | also_false
            else:
                true, false = true | also_true, false & also_false
        return true, false

    return Selection(text, columns, test, compound=True)


def _negated(inner: Selection) -> Selection:
    def test(votes: np.ndarray, counted: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        true, false = inner.test(votes, counted)
        return false, true

    return Selection(f"not {inner.whole}", inner.columns, test)


class _Parser:
    """Parses an expression from left to right, with a method for each rule of the grammar."""

    def __init__(self, text: str, tree: Tree) -> None:
        self._text, self._tree = text, tree
        self._example = tree.columns[tree.classes[-1].columns[0] if tree.classes else 0]
        columns = "|".join(re.escape(column) for column in sorted(tree.columns, key=len, reverse=True))
        token = re.compile(
            rf"\s*(?:(?P<column>(?i:{columns})(?![\w.-]))|(?P<operator>{_OPERATOR})|(?P<word>{_WORD})|(?P<number>{_NUMBER}))"
        )
        self._tokens: list[tuple[str, str, int]] = []
        place = 0
        while text[place:].strip():
            match = token.match(text, place)
            if match is None:
                raise self._error(f"{text[place:].split()[0][:_SHOWN]!r} is not a column, comparison or number", place)
            kind = str(match.lastgroup)
            self._tokens.append((kind, match[kind], match.start(kind)))
            place = match.end()
        self._next = 0

    def _error(self, problem: str, place: int) -> SettingError:
        before = self._text[:place].strip()
        where = f"after {before[-_SHOWN:]!r}" if before else "at the start"
        whole = self._text if len(self._text) <= _SHOWN else f"{self._text[:_SHOWN]}..."
        return SettingError(
            f'--where "{whole}": {problem}, {where}: write comparisons like {self._example} > 0.8, combined with '
            "and, or, not and parentheses"
        )

    def _peek(self) -> str:
        """The next token, in lower case if it is a word; empty at the end."""
        if self._next == len(self._tokens):
            return ""
        kind, text, _ = self._tokens[self._next]
        return text.lower() if kind == "word" else text

    def _take(self) -> tuple[str, str, int]:
        """Consume the next token and return its kind, text and place; at the end the kind is 'end'."""
        if self._next == len(self._tokens):
            return "end", "", len(self._text)
        self._next += 1
        return self._tokens[self._next - 1]

    def whole(self) -> Selection:
        selection = self._expression(0)
        kind, text, place = self._take()
        if kind != "end":
            raise self._error(f"unexpected {text!r}", place)
        return selection

    def _expression(self, depth: int) -> Selection:
        parts = [self._conjunction(depth)]
        while self._peek() == "or":
            self._take()
            parts.append(self._conjunction(depth))
        return _joined("or", parts)

    def _conjunction(self, depth: int) -> Selection:
        parts = [self._term(depth)]
        while self._peek() == "and":
            self._take()
            parts.append(self._term(depth))
        return _joined("and", parts)

    def _term(self, depth: int) -> Selection:
        kind, text, place = self._take()
        if depth > _MAX_DEPTH:
            raise self._error("too many nested parentheses and nots", place)
        if kind == "word" and text.lower() == "not":
            return _negated(self._term(depth + 1))
        if text == "(":
            selection = self._expression(depth + 1)
            kind, text, place = self._take()
            if text != ")":
                raise self._error("a closing parenthesis is missing", place)
            return selection
        if kind not in ("column", "word") or (kind == "word" and text.lower() in ("and", "or")):
            raise self._error(f"a column like {self._example} is missing{f' before {text!r}' if text else ''}", place)
        return self._comparison(text, place)

    def _comparison(self, name: str, place: int) -> Selection:
        columns = self._tree.columns
        same = [column for column in columns if column.lower() == name.lower()]
        if not same:
            lower = {column.lower(): column for column in columns}
            near = [lower[one] for one in difflib.get_close_matches(name.lower(), lower, 3)]
            hint = f" (did you mean {' or '.join(near)}?)" if near else f" (columns: {columns[0]} to {columns[-1]})"
            raise self._error(f"there is no column {name[:_SHOWN]!r}{hint}", place)
        _, comparison, place = self._take()
        if comparison not in _COMPARISONS:
            raise self._error(f"a comparison (>, >=, <, <=, ==, !=) is missing after {name[:_SHOWN]}", place)
        _, number, place = self._take()
        if not re.fullmatch(_NUMBER, number):
            raise self._error("a number is missing", place)
        return _compared(self._tree, name if name in same else same[0], comparison, float(number))


def parse_selection(text: str, tree: Tree) -> Selection:
    """Return the selection of an expression. Raises SettingError, with the place of the fault, if it is invalid."""
    return _Parser(text, tree).whole()
