"""Write and read tables of predictions: Kaggle's columns, and optionally Hubble classes and fractions of those asked.

Smooth galaxies are called elliptical by convention: volunteers cannot tell an S0 without a visible disk from an elliptical.
"""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np

from preprocess.sources import SOLUTIONS_NAMES
from tfrecords.dataset import csv_line
from tfrecords.errors import ConfigError, RunError, SettingError
from tfrecords.files import atomic_file, local_path
from tfrecords.outputs import listed_files
from tfrecords.taxonomy import COLUMNS, HUBBLE_CLASSES, QUESTIONS, conditional, hubble_score
from tfrecords.text import cell
from trainer.images.cutouts import UnreadableImage

UNCERTAIN = "uncertain"
DEFAULT_THRESHOLD = 0.6
# Below this share of volunteers who were asked, the predicted fractions among them are meaningless.
MINIMUM_ASKED = 0.05
_ARMS = {"1": "1 arm", "more than 4": "more than 4 arms", "can't tell": "can't tell how many arms"}
# 37 numbers with nine decimals, after the first column.
_PREDICTED = re.compile(rb",\d\.\d{9}" * len(COLUMNS))
_HEADER = ("GalaxyID", *COLUMNS)
_REJECTED_HEADER = csv_line(("GalaxyID", "path", "reason"))


@dataclass(frozen=True)
class Predictions:
    """One row per galaxy, sorted by id: `galaxy_ids` int64 (n,), `predicted` and `targets` float32 (n, 37).

    `targets` is NaN for galaxies without votes.
    """

    galaxy_ids: np.ndarray
    predicted: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class ExtraColumns:
    """Columns in addition to the 37: their names, and for each galaxy their values as text."""

    names: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


_NO_COLUMNS = ExtraColumns()
_NO_NAMES: Mapping[int, str] = MappingProxyType({})


def check_threshold(threshold: float) -> None:
    """Raise SettingError unless `threshold` is above 0.5, so that classes exclude one another, and at most 1."""
    if not 0.5 < threshold <= 1:
        raise SettingError(f"--threshold {threshold}: must be above 0.5, so that classes exclude one another, and at most 1")


def hubble_classes(votes: np.ndarray, threshold: float) -> list[str]:
    """The Hubble class of each galaxy: the class whose columns are all >= threshold, else "uncertain".

    votes: (galaxies, 37). Votes that obey the tree are in at most one class. Predictions that do not may be in two; then the
    class with the higher score counts. Raises SettingError unless the threshold is above 0.5 and at most 1.
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
    """The most voted roundness of ellipticals, and arms of spirals, such as "tight, 2 arms"; empty for uncertain galaxies."""
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
    """The columns of --hubble and --conditional. votes: (galaxies, 37); hubble: the threshold, or None to omit its columns.

    Conditional1.1 ... are the fractions of those asked who gave each answer, after projection onto the tree, with nine
    decimals; empty if fewer than 5 % were asked.
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


def _is_rejected_list(path: Path) -> bool:
    """Whether a file is a list of unreadable images as `write_rejected` writes it, with nothing added."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
        rows = list(csv.reader(text.splitlines()))
    except (OSError, ValueError, csv.Error):
        return False
    whole = "".join(csv_line(row).decode("utf-8") for row in rows)
    return not path.is_symlink() and text == whole and text.startswith(_REJECTED_HEADER.decode()) and {*map(len, rows)} == {3}


def refuse_other_table(path: Path) -> None:
    """Raise ConfigError if `path` exists and is not a table of predictions; a table of votes is never replaced.

    A table of votes has the same columns, but predictions have nine decimals, and never a name under which votes are found.
    """
    for folder in local_path(path).absolute().parents:
        if path.absolute().relative_to(folder).as_posix() in listed_files(folder):
            raise ConfigError(f"{path}: belongs to {folder}: choose another --out")
    listing = rejected_path(path)
    if os.path.lexists(listing) and not _is_rejected_list(listing):
        raise ConfigError(
            f"{listing}: exists and is not a list of unreadable images: move it elsewhere, or choose another --out"
        )
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder: set --out to a file, such as {path / 'submission.csv'}")
    votes = {PurePosixPath(name).name for name in SOLUTIONS_NAMES}
    ours = False
    if path.is_file() and path.name not in votes:
        with path.open("rb") as file:
            head, first = file.readline(), file.readline().rstrip(b"\r\n")
        ours = head.startswith(csv_line(_HEADER).rstrip()) and (not first or bool(_PREDICTED.search(first)))
    if not ours:
        raise ConfigError(f"{path}: exists and is not a table of predictions: choose another --out, or move it elsewhere")


def write_csv(
    predictions: Predictions,
    path: str | Path,
    names: Mapping[int, str] = _NO_NAMES,
    extra: ExtraColumns = _NO_COLUMNS,
    beside: Path | None = None,
) -> None:
    """Write predictions in Kaggle's submission format: GalaxyID,Class1.1,...,Class11.6, nine decimals, sorted by GalaxyID.

    Parameters
    ----------
    predictions : Predictions
        From `predict_split` or `predict_images`.
    path : str or Path
        File to write. It appears when it is complete, in place of an earlier file.
    names : mapping of int to str
        Names to write in place of ids. Characters that would break the table, and formulas of spreadsheets, are escaped.
    extra : ExtraColumns
        Columns after the 37, with which the table is no longer a submission.
    beside : Path, optional
        Folder for the unfinished file.

    Examples
    --------
    >>> from trainer import open_run, predict_images, write_csv
    >>> predictions = predict_images(open_run("runs/demo"), "demo/images_test_rev1")
    >>> write_csv(predictions, "predictions.csv", predictions.names)
    >>> open("predictions.csv").readline()[:26]
    'GalaxyID,Class1.1,Class1.2'
    """
    path = local_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, beside) as file:
        file.write(csv_line((*_HEADER, *extra.names)))
        more = extra.rows or ((),) * len(predictions.galaxy_ids)
        for galaxy_id, row, added in zip(predictions.galaxy_ids.tolist(), predictions.predicted, more, strict=True):
            shown = cell(names[galaxy_id]) if galaxy_id in names else galaxy_id
            file.write(csv_line((shown, *(f"{value:.9f}" for value in row), *added)))


def rejected_path(path: Path) -> Path:
    """The list of images that are missing from the table of predictions at `path`: table-rejected.csv beside table.csv."""
    return path.with_name(f"{path.stem}-rejected.csv")


def write_rejected(rejected: Sequence[UnreadableImage], path: Path) -> None:
    """List the unreadable images in a file beside the table of predictions at `path`; remove the file if there are none."""
    listing = rejected_path(path)
    if not rejected:
        if _is_rejected_list(listing):  # left by an earlier command
            listing.unlink()
        return
    listing.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(listing) as file:
        file.write(_REJECTED_HEADER)
        for image in rejected:
            galaxy = cell(image.galaxy) if isinstance(image.galaxy, str) else image.galaxy
            file.write(csv_line((galaxy, cell(image.path), cell(image.reason))))


def read_csv(path: Path, galaxy_ids: np.ndarray, targets: np.ndarray) -> Predictions:
    """Read a table that `write_csv` wrote, and add the votes of its galaxies.

    galaxy_ids: int64 (n,); targets: float32 (n, 37); in any order. Raises RunError if the table is damaged or lists other
    galaxies.
    """
    order = np.argsort(galaxy_ids, kind="stable")
    galaxy_ids, targets = galaxy_ids[order], targets[order]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        listed = np.array([int(row[0]) for row in rows], np.int64)
        predicted = np.array([row[1:] for row in rows], np.float32).reshape(len(rows), len(COLUMNS))
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise RunError(f"{path}: damaged ({error}): remove it, and run the same command again") from error
    if header != [*_HEADER] or not np.array_equal(listed, galaxy_ids):
        raise RunError(f"{path}: lists other galaxies: remove it, and run the same command again")
    return Predictions(galaxy_ids, predicted, targets)
