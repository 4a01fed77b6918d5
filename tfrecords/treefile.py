"""Read a decision tree from its file, TOML: one of ours in `trees/`, or a user's own.

    name = "rings"                      # default: the name of the file
    title = "Rings in my survey"        # default: the name
    citation = "Author et al. 2026"     # cited by the dataset and on pages
    url = "https://example.org"
    id = "iauname"                      # column of the table that identifies a galaxy; default: found
    tables = ["votes.csv"]              # usual names of the table in a source
    prefix = "Class"                    # start of all column names that charts omit
    volunteers = 40                     # number per galaxy, assumed if the table has fractions alone

    [files]                             # only if a second table maps ids to names of image files
    table = "mapping.csv"
    id = "objid"
    file = "asset_id"

    [[votes]]                           # a way in which tables hold the votes; several are tried in turn
    kind = "fractions"                  # of those asked (default); or "cumulative" fractions, or "counts" of volunteers
    name = "debiased"                   # for --votes; default: the kind
    suffix = "_debiased"                # follows each column named below
    total = "_total-votes"              # follows the key of each question: column with the number of its answers
    normalise = true                    # the fractions of a question need not add up to 1
    warning = 0.01                      # a sum that deviates further gives a warning
    error = 0.02                        # ... is an error

    [[question]]                        # in the order of the targets; parents first
    key = "ring"
    title = "ring"                      # short, for charts; default: the key, with spaces
    text = "Is there a ring?"           # what volunteers were asked
    after = ["features_yes"]            # columns after which it is asked; default: every volunteer is asked
    answers = { yes = "ring_yes", no = "ring_no" }    # answer = column
    rest = "no"                         # an answer without a column: what the others leave; its column is named ring_no
    phrases = ["ring", "no ring"]       # the answers as parts of a description; default: the answers

    [classes]                           # for galleries and --hubble
    thresholds = [0.9, 0.6]
    [classes."barred spiral"]
    plural = "barred spirals"
    columns = ["spiral_yes", "bar_yes"]
    note = "how tightly wound"
    describe = ["winding"]

    [[reading]]                         # a sentence of `explore`: what a majority for the first column means
    columns = ["odd_no"]
    text = "find nothing odd"

    [scores]                            # published RMSEs to compare with
    "the article" = 0.0970

Only `[[question]]` with key and answers is required.
"""

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfrecords.errors import TreeError, squeezed
from tfrecords.text import printable
from tfrecords.tree import FileNames, GalaxyClass, Layout, Question, Reading, Tree

KINDS = ("fractions", "cumulative", "counts")
_LONGEST = 100
_LARGEST = 1e9
_TOP = ("name", "title", "citation", "url", "id", "tables", "prefix", "volunteers", "files", "votes", "question", "classes",
        "reading", "scores")  # fmt: skip
_FILES = ("table", "id", "file")
_VOTES = ("kind", "name", "suffix", "total", "normalise", "warning", "error")
_QUESTION = ("key", "title", "text", "after", "answers", "rest", "phrases")
_CLASS = ("plural", "columns", "note", "describe")


class _Reader:
    """Reads the parts of one file. Each method raises TreeError, naming file, question and answer."""

    def __init__(self, where: str) -> None:
        self.where = where

    def error(self, what: str) -> TreeError:
        return TreeError(printable(f"{self.where}: {what}"))

    def keys(self, table: Mapping[str, Any], known: Iterable[str], part: str) -> None:
        for name in table:
            if name not in known:
                near = difflib.get_close_matches(name, list(known), 1)
                hint = f"did you mean {near[0]}?" if near else f"it may have {', '.join(known)}"
                raise self.error(f"{part} has '{name}', which is not part of a tree: {hint}")

    def table(self, value: Any, part: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.error(f"{part} must be a table of names and values")
        return value

    def text(self, table: Mapping[str, Any], name: str, part: str, default: str | None = None) -> str:
        value = table.get(name, default)
        if value is None:
            raise self.error(f"{part} lacks {name}: add it")
        if not isinstance(value, str) or not value.isprintable() or (default != "" and not value.strip()):
            raise self.error(f"{part}: {name} must be a text on one line, in quotes")
        return value

    def texts(self, table: Mapping[str, Any], name: str, part: str) -> tuple[str, ...]:
        value = table.get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, str) and one.isprintable() and one.strip() for one in value):
            raise self.error(f'{part}: {name} must be a list of texts, as in {name} = ["a", "b"]')
        return tuple(value)

    def number(self, table: Mapping[str, Any], name: str, part: str, default: float) -> float:
        value = table.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST:
            raise self.error(f"{part}: {name} must be a number of at least 0, and at most {_LARGEST:g}")
        return value

    def listed(self, top: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
        value = top.get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.error(f"{name} must be written as [[{name}]], once for each")
        return value


def _layouts(read: _Reader, top: Mapping[str, Any]) -> tuple[Layout, ...]:
    layouts = []
    for number, table in enumerate(read.listed(top, "votes"), 1):
        part = f"[[votes]] {number}"
        read.keys(table, _VOTES, part)
        kind = read.text(table, "kind", part, "fractions")
        if kind not in KINDS:
            raise read.error(f"{part}: kind '{kind}' must be one of {', '.join(KINDS)}")
        normalise = table.get("normalise", False)
        if not isinstance(normalise, bool):
            raise read.error(f"{part}: normalise must be true or false")
        suffix, total = read.text(table, "suffix", part, ""), read.text(table, "total", part, "")
        warning = read.number(table, "warning", part, Layout.warning)
        error = read.number(table, "error", part, max(Layout.error, warning))
        if not warning <= error < 1:
            raise read.error(f"{part}: warning and error are fractions below 1, warning not above error")
        layouts.append(Layout(read.text(table, "name", part, kind), kind, suffix, total, normalise, warning, error))
    names = [layout.name for layout in layouts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise read.error(f"[[votes]]: two are named '{twice[0]}': give each a name")
    return tuple(layouts) or (Layout("fractions", "fractions"),)


def _given(column: int, questions: list[Question], before: list[dict[int, set[int]]]) -> dict[int, set[int]]:
    """What a volunteer who gives an answer has certainly answered: question -> the answers that are possible there.

    before: the same for each question, of those who are asked it.
    """
    question = next(q for q in questions if q.start <= column < q.stop)
    return {**before[question.index], question.index: {column}}


def _common(ways: list[dict[int, set[int]]]) -> dict[int, set[int]]:
    """What a volunteer has certainly answered who came along one of several ways."""
    shared = set.intersection(*(set(way) for way in ways)) if ways else set()
    return {question: set().union(*(way[question] for way in ways)) for question in shared}


def _exclusive(one: dict[int, set[int]], other: dict[int, set[int]]) -> bool:
    """Whether no volunteer can go both ways: they part at some question."""
    return any(not one[question] & other[question] for question in one.keys() & other.keys())


def _circle(asked_after: Mapping[str, tuple[str, ...]], question_of: Mapping[str, str], key: str) -> list[str]:
    """The keys of questions from `key` back to itself, each asked after the next; empty if there is no such circle."""
    pending = [[key]]
    seen: set[str] = set()
    while pending:
        path = pending.pop()
        for above in sorted({question_of[column] for column in asked_after[path[-1]]} - seen):
            if above == key:
                return [*path, key]
            seen.add(above)
            pending.append([*path, above])
    return []


def _short(value: object) -> bool:
    """Whether a value is a text of one line, neither blank nor long."""
    return isinstance(value, str) and value.isprintable() and bool(value.strip()) and len(value) <= _LONGEST


def _questions(read: _Reader, top: Mapping[str, Any]) -> tuple[tuple[Question, ...], tuple[str, ...], frozenset[str]]:
    """The questions, all columns in order, and those that are the rest of the others."""
    tables = read.listed(top, "question")
    question_of: dict[str, str] = {}
    answers_of: dict[str, dict[str, str]] = {}
    rest: set[str] = set()
    for number, table in enumerate(tables, 1):
        part = f"[[question]] {number}"
        read.keys(table, _QUESTION, part)
        key = read.text(table, "key", part)
        part = f"question '{key}'"
        if key in answers_of:
            raise read.error(f"{part} appears twice: give each question its own key")
        answers = dict(read.table(table.get("answers", {}), f"{part}: answers"))
        if "rest" in table:
            answer = read.text(table, "rest", part)
            if answer in answers:
                raise read.error(f"{part}: answer '{answer}' is both in answers and the rest: remove one of them")
            answers[answer] = f"{key}_{answer}"
            rest.add(answers[answer])
        if len(answers) < 2:
            raise read.error(f'{part} needs at least two answers: add one, or rest = "..." for what the first leaves')
        for answer, column in answers.items():
            if not (_short(answer) and _short(column) and "," not in column):
                raise read.error(f"{part}, answer '{answer}': write answer = \"column\", short texts without commas")
            if column in question_of:
                raise read.error(f"{part}, answer '{answer}': column {column} already belongs to question "
                                 f"'{question_of[column]}': each answer has a column of its own")  # fmt: skip
            question_of[column] = key
        answers_of[key] = answers
    asked_after = {table["key"]: read.texts(table, "after", f"question '{table['key']}'") for table in tables}
    for key, after in asked_after.items():
        for column in after:
            if column not in question_of:
                near = difflib.get_close_matches(column, list(question_of), 1)
                hint = f"did you mean {near[0]}?" if near else "name a column of an earlier question"
                raise read.error(f"question '{key}' is asked after {column}, which no answer has as its column: {hint}")
        if len(set(after)) < len(after):
            raise read.error(f"question '{key}': after names a column twice: remove one")
    columns = tuple(question_of)
    places = {column: place for place, column in enumerate(columns)}
    questions: list[Question] = []
    before: list[dict[int, set[int]]] = []
    start = 0
    for index, table in enumerate(tables):
        key = table["key"]
        part, answers = f"question '{key}'", answers_of[key]
        parents = tuple(places[column] for column in asked_after[key])
        for column in parents:
            if column >= start:
                if around := _circle(asked_after, question_of, key):
                    raise read.error(f"questions {' -> '.join(map(repr, around))} are asked after one another in a circle: "
                                     "correct their after")  # fmt: skip
                raise read.error(f"{part} is asked after {columns[column]} of question '{question_of[columns[column]]}', which "
                                 "comes later: list questions in the order in which they are asked")  # fmt: skip
        given = [_given(column, questions, before) for column in parents]
        for place, column in enumerate(parents):
            for other in range(place):
                if not _exclusive(given[other], given[place]):
                    raise read.error(f"{part} is asked after {columns[parents[other]]} and {columns[column]}, which one "
                                     "volunteer may both give: they would count twice: remove one from after")  # fmt: skip
        before.append(_common(given))
        phrases = read.texts(table, "phrases", part) or tuple(answers)
        if len(phrases) != len(answers):
            raise read.error(f"{part}: phrases has {len(phrases)} texts for {len(answers)} answers: give one for each answer")
        title = read.text(table, "title", part, key.replace("-", " ").replace("_", " "))
        stop = start + len(answers)
        words = read.text(table, "text", part, "")
        questions.append(Question(index, key, title, words, tuple(answers), phrases, start, stop, parents))
        start = stop
    return tuple(questions), columns, frozenset(rest)


def _classes(
    read: _Reader, top: Mapping[str, Any], columns: tuple[str, ...], questions: tuple[Question, ...]
) -> tuple[tuple[float, ...], tuple[GalaxyClass, ...]]:
    content = dict(read.table(top.get("classes", {}), "[classes]"))
    if not content:
        return (), ()
    thresholds = content.pop("thresholds", [0.9, 0.6])
    if not isinstance(thresholds, list) or not thresholds or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1 for value in thresholds
    ):  # fmt: skip
        raise read.error("[classes]: thresholds must be a list of fractions above 0, at most 1, as in [0.9, 0.6]")
    keys = [question.key for question in questions]
    classes = []
    for name, value in content.items():
        part = f"class '{name}'"
        if not _short(name):
            raise read.error(f"{part}: a name is a short text on one line")
        table = read.table(value, part)
        read.keys(table, _CLASS, part)
        members = tuple(_place(read, part, column, columns) for column in read.texts(table, "columns", part))
        if not members:
            raise read.error(f"{part} lacks columns: name those that must reach the threshold")
        describe = tuple(_place(read, part, key, keys) for key in read.texts(table, "describe", part))
        plural = read.text(table, "plural", part, name)
        classes.append(GalaxyClass(name, plural, members, read.text(table, "note", part, ""), describe))
    return tuple(float(value) for value in thresholds), tuple(classes)


def _place(read: _Reader, part: str, name: str, names: Sequence[str]) -> int:
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(names[:5])}{' ...' * (len(names) > 5)}"
        raise read.error(f"{part} names {name}, which the questions do not have: {hint}")
    return names.index(name)


def parse_tree(text: str, where: str, name: str) -> Tree:
    """The tree that a file holds.

    where: the file in messages; name: the tree's name if the file gives none. Raises TreeError, naming file, question and
    answer, for anything that is not a tree.
    """
    read = _Reader(where)
    try:
        top = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # tomllib raises others for endless numbers and for brackets in brackets
        raise read.error(f"not a TOML file ({squeezed(error)}): see the format in tfrecords/treefile.py") from error
    if not top.get("question"):
        raise read.error("holds no decision tree: add [[question]] with key and answers")
    read.keys(top, _TOP, "the file")
    questions, columns, rest = _questions(read, top)
    layouts = _layouts(read, top)
    for column in columns:
        if any(top.get("id") == f"{column}{layout.suffix}" for layout in layouts):
            raise read.error(f"{top['id']} is both the id of the galaxies and the column of an answer: correct one of them")
    if rest and any(layout.kind == "counts" and not layout.total for layout in layouts):
        raise read.error("rest needs fractions, or counts with a total: nothing else tells how many gave the other answers")
    thresholds, classes = _classes(read, top, columns, questions)
    readings = []
    for number, table in enumerate(read.listed(top, "reading"), 1):
        part = f"[[reading]] {number}"
        read.keys(table, ("columns", "text"), part)
        places = tuple(_place(read, part, column, columns) for column in read.texts(table, "columns", part))
        if not places:
            raise read.error(f"{part} lacks columns: name one")
        readings.append(Reading(places, read.text(table, "text", part)))
    scores = read.table(top.get("scores", {}), "[scores]")
    files = None
    if "files" in top:
        table = read.table(top["files"], "[files]")
        read.keys(table, _FILES, "[files]")
        files = FileNames(*(read.text(table, key, "[files]") for key in _FILES))
    if "name" not in top:  # a copy of the file under another name must be the same tree
        text = f"name = {json.dumps(name, ensure_ascii=False)}\n{text}"
    name = read.text(top, "name", "the file", name)
    volunteers = read.number(top, "volunteers", "the file", Tree.volunteers)
    if volunteers < 1 or volunteers != int(volunteers):
        raise read.error("volunteers must be a whole number of at least 1")
    return Tree(
        name,
        read.text(top, "title", "the file", name),
        read.text(top, "citation", "the file", ""),
        read.text(top, "url", "the file", ""),
        read.text(top, "id", "the file", ""),
        questions,
        columns,
        layouts,
        rest,
        read.text(top, "prefix", "the file", ""),
        int(volunteers),
        files,
        read.texts(top, "tables", "the file"),
        thresholds,
        classes,
        tuple(readings),
        tuple((label, float(read.number(scores, label, "[scores]", 0))) for label in scores),
        text,
    )
