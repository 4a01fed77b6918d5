"""Galleries of galaxies, as cards on a page: the Hubble classes, or any selection."""

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
    """The name of a column on a card, with the question if the answer is short: 'smooth (1.1)', 'bar: no (3.2)'."""
    words = describe(column)
    answer = words.partition(": ")[2]
    return f"{answer if len(answer) > 4 else words} ({COLUMNS[column].removeprefix('Class')})"


@dataclass(frozen=True)
class Candidates:
    """The galaxies of some splits to choose from: GalaxyIDs (n,), votes (n, 37), and predictions (n, 37) or None."""

    dataset: Dataset
    splits: tuple[str, ...]
    galaxy_ids: np.ndarray
    voted: np.ndarray
    predicted: np.ndarray | None = None

    def pictures(self, rows: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
        """The stored crops of some rows by GalaxyID, from any of the splits."""
        from tfrecords import reader

        wanted = {int(galaxy_id) for part in rows for galaxy_id in self.galaxy_ids[part]}
        pictures: dict[int, np.ndarray] = {}
        for split in self.splits:
            if missing := sorted(wanted - pictures.keys()):
                pictures |= reader.cutouts(self.dataset, split, missing)
        return pictures

    def card(self, row: int, columns: Sequence[int], note: str, pictures: dict[int, np.ndarray]) -> Card:
        """The card of a row, with bars for some columns."""
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
    """Each Hubble class at each of the article's thresholds, by the predictions or, without predictions, by the votes.

    The first 12 galaxies that pass, by GalaxyID; if fewer than 4 pass, the 12 with the highest scores, as the title states.
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
                score = "value" if len(columns) == 1 else "score (the smaller of the two columns)"
                title = f"{plural} at {threshold}: {pick.passing} pass, {len(pick.rows)} highest scores shown"
                caption = f"Fewer than 4 galaxies have {rule} ({said}). These have the highest {score}."
            else:
                title = f"{plural} at {threshold}: {len(pick.rows)} of {pick.passing:,}"
                caption = f"The first galaxies by GalaxyID with {rule} ({said})."
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
