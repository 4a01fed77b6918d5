"""Predicted vote fractions in words: the Hubble class of a galaxy, and what those who were asked answered.

Smooth galaxies are called elliptical by convention: volunteers cannot tell an S0 without visible disk from an elliptical.
"""

from dataclasses import dataclass

import numpy as np

from tfrecords.errors import SettingError
from tfrecords.taxonomy import COLUMNS, HUBBLE_CLASSES, QUESTIONS, conditional, hubble_score

UNCERTAIN = "uncertain"
DEFAULT_THRESHOLD = 0.6
# Below this share of volunteers who were asked, the predicted fractions among them say nothing.
MINIMUM_ASKED = 0.05
_ARMS = {"1": "1 arm", "more than 4": "more than 4 arms", "can't tell": "can't tell how many arms"}


@dataclass(frozen=True)
class ExtraColumns:
    """Columns beside the 37: their names, and for each galaxy their values as text."""

    names: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def check_threshold(threshold: float) -> None:
    """Raise SettingError unless it is above 0.5, so that classes exclude one another, and at most 1."""
    if not 0.5 < threshold <= 1:
        raise SettingError(f"--threshold {threshold}: must be above 0.5, so that classes exclude one another, and at most 1")


def hubble_classes(votes: np.ndarray, threshold: float) -> list[str]:
    """The Hubble class of each galaxy, whose columns are all >= threshold; "uncertain" where there is none.

    votes: (galaxies, 37). Votes that obey the tree are in one class at most; of predictions that do not and are in two, the one
    with the higher score counts. Raises SettingError for a threshold that is not above 0.5 and at most 1.
    """
    check_threshold(threshold)
    names = list(HUBBLE_CLASSES)
    scores = np.stack([hubble_score(votes, name) for name in names], axis=1)
    best = scores.argmax(axis=1)
    return [names[column] if row[column] >= threshold else UNCERTAIN for column, row in zip(best.tolist(), scores, strict=True)]


def _most_voted(row: np.ndarray, number: int) -> str:
    question = QUESTIONS[number - 1]
    return question.answers[int(row[question.columns].argmax())]


def hubble_details(votes: np.ndarray, classes: list[str]) -> list[str]:
    """Of ellipticals the most voted roundness, of spirals that of their arms, like "tight, 2 arms"; else nothing."""
    details = []
    for row, name in zip(votes, classes, strict=True):
        if name == UNCERTAIN:
            details.append("")
        elif name == "elliptical":
            details.append(_most_voted(row, 7))
        else:
            arms = _most_voted(row, 11)
            details.append(f"{_most_voted(row, 10)}, {_ARMS.get(arms, f'{arms} arms')}")
    return details


def extra_columns(votes: np.ndarray, hubble: float | None, with_conditional: bool) -> ExtraColumns:
    """What --hubble and --conditional add. votes: (galaxies, 37); hubble: the threshold, or None for no such columns.

    Conditional1.1 ... are the fractions of those asked who gave each answer, after projection onto the tree, with nine
    decimals, empty where fewer than 5 % were asked.
    """
    names: list[str] = []
    columns: list[list[str]] = []
    if hubble is not None:
        classes = hubble_classes(votes, hubble)
        names += ["hubble", "hubble_detail"]
        columns += [classes, hubble_details(votes, classes)]
    if with_conditional:
        names += [name.replace("Class", "Conditional") for name in COLUMNS]
        fractions = conditional(votes, MINIMUM_ASKED)
        columns += [["" if np.isnan(value) else f"{value:.9f}" for value in column] for column in fractions.T.tolist()]
    return ExtraColumns(tuple(names), tuple(zip(*columns, strict=True)) if columns else ())
