"""Galleries of galaxies, as cards on a page: the classes of the tree, or any selection."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tfrecords.dataset import Dataset
from tfrecords.tree import GalaxyClass, Tree
from trainer.analysis import votes, wording
from trainer.analysis.page import Bar, Card, Gallery, safe_names
from trainer.analysis.selection import Selection

CARDS = 12
# The cards in one row on a screen.
ROW = 6


def label(tree: Tree, column: int) -> str:
    """The name of a column on a card: 'bar: no', or if names are numbers 'smooth (1.1)', 'bar: no (3.2)' for short answers."""
    words, question = tree.describe(column), tree.question_of(column)
    if not tree.prefix:
        return words
    answer = question.answers[column - question.start]
    return f"{answer if len(answer) > 4 else words} ({tree.short(column)})"


@dataclass(frozen=True)
class Candidates:
    """The galaxies of some splits to choose from: GalaxyIDs (galaxies,), votes (galaxies, n), and predictions or None.

    If there are predictions, galaxies are chosen by them.

    counted: which votes count, bool (galaxies, n); None: all. names: str (galaxies,); None if they are numbers.
    """

    dataset: Dataset
    splits: tuple[str, ...]
    galaxy_ids: np.ndarray
    voted: np.ndarray
    predicted: np.ndarray | None = None
    counted: np.ndarray | None = None
    names: np.ndarray | None = None

    @property
    def tree(self) -> Tree:
        return self.dataset.tree

    @property
    def fractions(self) -> np.ndarray:
        """What galaxies are chosen by, (galaxies, n): the predictions or, without predictions, the votes."""
        return self.voted if self.predicted is None else self.predicted

    @cached_property
    def ranks(self) -> np.ndarray:
        """The place of each row in the order of their names, or of their ids if they have none: int (galaxies,)."""
        order = np.argsort(self.galaxy_ids if self.names is None else self.names, kind="stable")
        return np.argsort(order, kind="stable")

    @property
    def ordered_by(self) -> str:
        """What `ranks` follow, in words."""
        return wording.id_name(self.tree) if self.names is None else "name"

    def pictures(self, rows: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
        """The stored crops of some rows by GalaxyID, from any of the splits."""
        from tfrecords.reader import stored_pictures

        return stored_pictures(self.dataset, self.splits, (int(one) for part in rows for one in self.galaxy_ids[part]))

    def card(self, row: int, columns: Sequence[int], note: str, pictures: dict[int, np.ndarray], name: str) -> Card:
        """The card of a row, with bars for some columns. name: empty if it is a number."""
        galaxy_id = int(self.galaxy_ids[row])
        bars = tuple(
            Bar(
                label(self.tree, column),
                float(self.voted[row, column]) if self.counted is None or self.counted[row, column] else None,
                None if self.predicted is None else float(self.predicted[row, column]),
            )
            for column in columns
        )
        return Card(galaxy_id, (pictures[galaxy_id],), note, bars, name)


@dataclass(frozen=True)
class Choice:
    """A gallery to make: its texts, its rows, and for each row the columns to show and a note."""

    name: str
    title: str
    caption: str
    alt: str
    rows: np.ndarray
    columns: Callable[[int], Sequence[int]]
    note: Callable[[int], str]


def galleries(galaxies: Candidates, choices: Sequence[Choice]) -> tuple[Gallery, ...]:
    """The galleries of `choices`; the shards are read once."""
    pictures = galaxies.pictures([choice.rows for choice in choices])

    def card(choice: Choice, row: int) -> Card:
        name = "" if galaxies.names is None else galaxies.names[row]
        return galaxies.card(row, choice.columns(row), choice.note(row), pictures, name)

    return tuple(
        Gallery(
            choice.name,
            choice.title,
            choice.caption,
            (choice.alt,),
            tuple(card(choice, row) for row in map(int, choice.rows)),
            wording.id_name(galaxies.tree),
        )
        for choice in choices
    )


def selected_choice(galaxies: Candidates, selection: Selection) -> Choice:
    """The first galaxies that match a selection, with the columns that it names."""
    by_votes = galaxies.predicted is None
    rows = np.flatnonzero(selection.matches(galaxies.fractions, galaxies.counted if by_votes else None))
    columns = [galaxies.tree.index[name] for name in selection.columns]
    number = f"{len(rows):,} of {len(galaxies.galaxy_ids):,} galaxies"
    return Choice(
        "where",
        number if by_votes else f"{number} by their predictions",
        f"The first galaxies by {galaxies.ordered_by}." if len(rows) else "No galaxy matches: relax the expression.",
        "selected" if by_votes else "selected by its predictions",
        rows[np.argsort(galaxies.ranks[rows], kind="stable")][:CARDS],
        _always(columns),
        _always(""),
    )


def highest_choices(galaxies: Candidates) -> list[Choice]:
    """For each column, in the order of the tree, the galaxies with its highest values."""
    tree, choices = galaxies.tree, []
    what = "votes" if galaxies.predicted is None else "predictions"
    for column, safe in enumerate(safe_names([f"highest-{name}" for name in tree.columns])):
        values = galaxies.fractions[:, column]
        rows = np.lexsort((galaxies.ranks, -values))[:ROW]
        choices.append(
            Choice(
                safe,
                f"Highest {what} of {tree.columns[column]} ({tree.describe(column)})",
                f"From {values[rows[0]]:.2f} down to {values[rows[-1]]:.2f}.",
                f"highest {what} of {tree.describe(column)}",
                rows,
                _always([column]),
                _always(""),
            )
        )
    return choices


def _always(value: Any) -> Callable[[int], Any]:
    return lambda _: value


def _score_of(scores: np.ndarray) -> Callable[[int], str]:
    return lambda row: f"score {scores[row]:.2f}"


def class_choices(galaxies: Candidates) -> list[Choice]:
    """Each class of the tree at each of its thresholds.

    The first 12 galaxies that pass, by id or name. If fewer than 4 pass, the 12 with the highest scores, as the title states:
    one gallery for all such thresholds of a class, as they would show the same galaxies.
    """
    chosen, tree, choices = galaxies.fractions, galaxies.tree, []
    for member, safe in zip(tree.classes, safe_names([member.name for member in tree.classes]), strict=True):
        picks = {
            threshold: votes.class_pick(galaxies.ranks, chosen, tree, member, threshold, CARDS) for threshold in tree.thresholds
        }
        few = [threshold for threshold, pick in picks.items() if pick.fallback]
        for threshold, pick in picks.items():
            if not pick.fallback:
                choices.append(_passing(galaxies, member, f"{safe}-{100 * threshold:g}", threshold, pick))
            elif threshold == few[0]:
                choices.append(_highest(galaxies, member, f"{safe}-{100 * threshold:g}", {at: picks[at] for at in few}))
    return choices


def _verb(galaxies: Candidates) -> str:
    return "voted" if galaxies.predicted is None else "predicted"


def _plural(galaxies: Candidates, member: GalaxyClass) -> str:
    plural = member.plural if galaxies.predicted is None else f"predicted {member.plural}"
    return plural[:1].upper() + plural[1:]


def _rule(galaxies: Candidates, member: GalaxyClass, threshold: float) -> str:
    of_columns = " and ".join(f"{galaxies.tree.columns[column]} ≥ {threshold}" for column in member.columns)
    return f"{of_columns} ({_verb(galaxies)})"


def _passing(galaxies: Candidates, member: GalaxyClass, name: str, threshold: float, pick: votes.Pick) -> Choice:
    """Galaxies of a class at a threshold."""
    return Choice(
        name,
        f"{_plural(galaxies, member)} at {threshold}: {len(pick.rows)} of {pick.passing:,}",
        f"The first galaxies by {galaxies.ordered_by} with {_rule(galaxies, member, threshold)}.",
        f"{_verb(galaxies)} {member.name}",
        pick.rows,
        _always(member.columns),
        _always(""),
    )


def _highest(galaxies: Candidates, member: GalaxyClass, name: str, few: Mapping[float, votes.Pick]) -> Choice:
    """The highest scores for a class, in place of its galaxies at thresholds at which it has too few."""
    rows = next(iter(few.values())).rows
    thresholds = wording.enumerated([str(threshold) for threshold in few])
    passing = wording.enumerated([str(pick.passing) for pick in few.values()])
    amount = wording.amount(len(rows), "highest score")
    passing += " passes" if passing == "1" else " pass"
    columns = member.columns
    least = "smaller of the two" if len(columns) == 2 else f"smallest of the {len(columns)}"
    score = "value" if len(columns) == 1 else f"score (the {least} columns)"
    return Choice(
        name,
        f"{_plural(galaxies, member)} at {thresholds}: {passing}, {amount} shown",
        f"Fewer than 4 galaxies have {_rule(galaxies, member, min(few))}. These have the highest {score}.",
        f"among the highest scores for {member.name}",
        rows,
        _always(columns),
        _score_of(galaxies.tree.class_score(galaxies.fractions, member)),
    )
