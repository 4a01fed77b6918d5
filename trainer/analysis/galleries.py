"""Galaxies worth a look, as the cards of a page: those of the Hubble classes, or any chosen ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrecords.dataset import Dataset
from tfrecords.taxonomy import COLUMN_INDEX, COLUMNS, HUBBLE_CLASSES, HUBBLE_THRESHOLDS, describe, hubble_score
from trainer.analysis import votes
from trainer.analysis.page import Bar, Card, Gallery

CARDS = 12
PLURAL = {"elliptical": "ellipticals", "spiral": "spirals", "barred spiral": "barred spirals"}


def _label(column: int) -> str:
    """A column as a card names it; short answers say nothing without their question: 'smooth (1.1)', 'bar: no (3.2)'."""
    words = describe(column)
    answer = words.partition(": ")[2]
    return f"{answer if len(answer) > 4 else words} ({COLUMNS[column].removeprefix('Class')})"


@dataclass(frozen=True)
class Candidates:
    """What a gallery chooses from: ids (n,) of some splits of a dataset, their votes (n, 37), and predictions or None."""

    dataset: Dataset
    splits: tuple[str, ...]
    galaxy_ids: np.ndarray
    voted: np.ndarray
    predicted: np.ndarray | None = None

    def pictures(self, rows: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
        """The stored crops of some rows by GalaxyID, whichever of the splits they are in."""
        from tfrecords import reader

        wanted = {int(galaxy_id) for part in rows for galaxy_id in self.galaxy_ids[part]}
        pictures: dict[int, np.ndarray] = {}
        for split in self.splits:
            if missing := sorted(wanted - pictures.keys()):
                pictures |= reader.cutouts(self.dataset, split, missing)
        return pictures

    def card(self, row: int, columns: Sequence[int], note: str, pictures: dict[int, np.ndarray]) -> Card:
        """The galaxy of a row with bars for some columns."""
        galaxy_id = int(self.galaxy_ids[row])
        bars = tuple(
            Bar(
                _label(column),
                float(self.voted[row, column]),
                None if self.predicted is None else float(self.predicted[row, column]),
            )
            for column in columns
        )
        return Card(galaxy_id, (pictures[galaxy_id],), note, bars)


@dataclass(frozen=True)
class Choice:
    """A gallery to be made: its texts, its rows, and for a row the columns that matter and a note."""

    name: str
    title: str
    caption: str
    alt: str
    rows: np.ndarray
    columns: Callable[[int], Sequence[int]]
    note: Callable[[int], str]


def galleries(galaxies: Candidates, choices: Sequence[Choice]) -> tuple[Gallery, ...]:
    """The galleries of some choices; the shards are read once."""
    pictures = galaxies.pictures([choice.rows for choice in choices])
    return tuple(
        Gallery(
            choice.name,
            choice.title,
            choice.caption,
            (choice.alt,),
            tuple(galaxies.card(row, choice.columns(row), choice.note(row), pictures) for row in map(int, choice.rows)),
        )
        for choice in choices
    )


def _always(value: Any) -> Callable[[int], Any]:
    return lambda _: value


def _score_of(scores: np.ndarray) -> Callable[[int], str]:
    return lambda row: f"score {scores[row]:.2f}"


def hubble_choices(galaxies: Candidates) -> list[Choice]:
    """Each Hubble class at each of the article's thresholds, by the predictions where there are any, else by the votes.

    The first 12 galaxies that pass, in GalaxyID order; where fewer than 4 pass, the 12 with the highest score instead, and
    the title says so.
    """
    chosen = galaxies.voted if galaxies.predicted is None else galaxies.predicted
    said = "voted" if galaxies.predicted is None else "predicted"
    choices = []
    for name, names in HUBBLE_CLASSES.items():
        columns = [COLUMN_INDEX[column] for column in names]
        scores = hubble_score(chosen, name)
        for threshold in HUBBLE_THRESHOLDS:
            pick = votes.hubble_pick(galaxies.galaxy_ids, chosen, name, threshold, CARDS)
            rule = " and ".join(f"{column} ≥ {threshold}" for column in names)
            plural = PLURAL[name].capitalize()
            if pick.fallback:
                score = "value" if len(columns) == 1 else "score (the smaller of the columns)"
                title = f"{plural} at {threshold}: {pick.passing} pass, so the {len(pick.rows)} highest scores"
                caption = f"Fewer than 4 galaxies are {said} {rule}: these have the highest {score}."
            else:
                title = f"{plural} at {threshold}: {len(pick.rows)} of {pick.passing:,}"
                caption = f"The first by GalaxyID of those that are {said} {rule}."
            choices.append(
                Choice(
                    f"{name.replace(' ', '-')}-{round(100 * threshold)}",
                    title,
                    caption,
                    f"among the highest scores for {name}" if pick.fallback else f"{said} {name}",
                    pick.rows,
                    _always(columns),
                    _score_of(scores) if pick.fallback else _always(""),
                )
            )
    return choices
