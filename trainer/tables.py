"""Write and read tables of predictions: the answers' columns, and optionally classes, fractions of those asked and intervals.

Smooth galaxies are called elliptical by convention: volunteers cannot tell an S0 without a visible disk from an elliptical.
"""

import csv
import itertools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.dataset import csv_line
from tfrecords.errors import ConfigError, RunError, SettingError
from tfrecords.files import atomic_file, local_path
from tfrecords.outputs import listed_files
from tfrecords.text import cell
from tfrecords.tree import Question, Tree
from trainer.images.cutouts import UnreadableImage

if TYPE_CHECKING:
    from tfrecords.reader import SplitVotes  # imports TensorFlow

UNCERTAIN = "uncertain"
DEFAULT_THRESHOLD = 0.6
# Below this share of volunteers who were asked, the predicted fractions among them are meaningless.
MINIMUM_ASKED = 0.05
_CONCENTRATION = "_concentration"
# The table of `preprocess demo` for a survey whose own is no CSV file.
_DEMO = "votes.csv"
_REJECTED_HEADER = csv_line(("GalaxyID", "path", "reason"))


@dataclass(frozen=True)
class Predictions:
    """One row per galaxy: `galaxy_ids` int64 (galaxies,), `predicted` and `targets` float32 (galaxies, n).

    `names`: str (galaxies,), if galaxies have names; then rows are sorted by them, else (None) by id.
    `targets` is NaN for galaxies without votes. `asked` (galaxies, questions): how many volunteers answered each question; None
    without counts. `concentrations` (galaxies, questions): of the Dirichlet distributions whose means are predicted; None for
    other heads. `tree`: the decision tree whose n columns are predicted.
    """

    galaxy_ids: np.ndarray
    predicted: np.ndarray
    targets: np.ndarray
    asked: np.ndarray | None = None
    concentrations: np.ndarray | None = None
    tree: Tree = field(default_factory=builtin_tree)
    names: np.ndarray | None = None


def table_order(galaxy_ids: np.ndarray, names: np.ndarray | None) -> np.ndarray:
    """The rows of galaxies in the order in which tables list them: by name if they have names, else by id."""
    return np.argsort(galaxy_ids if names is None else names, kind="stable")


@dataclass(frozen=True)
class ExtraColumns:
    """Columns in addition to the predicted fractions: their names, and for each galaxy their values as text.

    numbers: the names of those that hold numbers, or nothing; in Parquet they are float64, others string.
    """

    names: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    numbers: tuple[str, ...] = ()


_NO_COLUMNS = ExtraColumns()


def table_header(tree: Tree) -> tuple[str, ...]:
    """The names of the columns."""
    return (tree.table_id, *tree.columns)


def first_column(galaxy_ids: np.ndarray, names: np.ndarray | None) -> list[str]:
    """The galaxies as the first column shows them: by name if they have names, else by number."""
    return [*map(str, galaxy_ids.tolist())] if names is None else [*map(cell, names)]


def check_classes(tree: Tree) -> None:
    """Raise SettingError unless the tree has classes for --hubble."""
    if not tree.classes:
        raise SettingError(
            f"--hubble: the decision tree {tree.name} has no classes: remove the flag, or use --where or --conditional"
        )


def check_threshold(threshold: float) -> None:
    """Raise SettingError unless `threshold` is above 0.5, so that classes exclude one another, and at most 1."""
    if not 0.5 < threshold <= 1:
        raise SettingError(f"--threshold {threshold}: must be above 0.5, so that classes exclude one another, and at most 1")


def hubble_classes(votes: np.ndarray, threshold: float, tree: Tree) -> list[str]:
    """The class of each galaxy: the class of the tree whose columns are all >= threshold, else "uncertain".

    votes: (galaxies, n). Votes that obey Kaggle's tree are in at most one class. Predictions that do not may be in two; then
    the class with the higher score counts. Raises SettingError unless the threshold is above 0.5 and at most 1, and the tree
    has classes.
    """
    check_classes(tree)
    check_threshold(threshold)
    names = [member.name for member in tree.classes]
    scores = np.stack([tree.class_score(votes, member) for member in tree.classes], axis=1)
    best = scores.argmax(axis=1)
    return [names[column] if row[column] >= threshold else UNCERTAIN for column, row in zip(best.tolist(), scores, strict=True)]


def _most_voted(row: np.ndarray, question: Question) -> str:
    return question.phrases[int(row[question.columns].argmax())]


def hubble_details(votes: np.ndarray, classes: list[str], tree: Tree) -> list[str]:
    """The most voted answers to the questions that describe a galaxy's class, such as "tight, 2 arms"; empty if uncertain."""
    describing = {member.name: [tree.questions[place] for place in member.describe] for member in tree.classes}
    return [
        ", ".join(_most_voted(row, question) for question in describing.get(name, []))
        for row, name in zip(votes, classes, strict=True)
    ]


def conditional_names(tree: Tree) -> list[str]:
    """The names of the columns of --conditional: Conditional1.1 for Kaggle's Class1.1, else the column with a suffix."""
    if tree.prefix == "Class":
        return [f"Conditional{tree.short(column)}" for column in range(len(tree.columns))]
    return [f"{column}_conditional" for column in tree.columns]


def extra_columns(
    votes: np.ndarray,
    hubble: float | None,
    with_conditional: bool,
    tree: Tree,
    intervals: tuple[np.ndarray, np.ndarray] | None = None,
    outside: np.ndarray | None = None,
) -> ExtraColumns:
    """The columns of --hubble, --conditional and --intervals, with nine decimals, and for images the column `outside`.

    votes: (galaxies, n); hubble: the threshold, or None to omit its columns. Conditional columns are the fractions of those
    asked who gave each answer, after projection onto the tree; empty if fewer than 5 % were asked. intervals: the lower and the
    upper ends for each answer, (galaxies, n) each. outside: how each image is unlike the training galaxies, str (galaxies,).
    """
    names: list[str] = []
    numbers: list[str] = []
    columns: list[list[str]] = []
    if hubble is not None:
        classes = hubble_classes(votes, hubble, tree)
        names += ["hubble", "hubble_detail"]
        columns += [classes, hubble_details(votes, classes, tree)]
    if with_conditional:
        numbers += conditional_names(tree)
        names += conditional_names(tree)
        fractions = tree.conditional(votes, MINIMUM_ASKED)
        columns += [["" if np.isnan(value) else f"{value:.9f}" for value in column] for column in fractions.T.tolist()]
    if intervals is not None:
        numbers += (limits := [f"{column}_{end}" for column in tree.columns for end in ("low", "high")])
        names += limits
        ends = np.stack(intervals, axis=2).reshape(len(votes), -1)
        columns += [[f"{value:.9f}" for value in column] for column in ends.T.tolist()]
    if outside is not None:
        names.append("outside")
        columns.append([*outside])
    return ExtraColumns(tuple(names), tuple(zip(*columns, strict=True)) if columns else (), tuple(numbers))


def concentration_columns(concentrations: np.ndarray, tree: Tree) -> ExtraColumns:
    """The concentrations (galaxies, questions) as columns that `read_csv` restores to the last digit."""
    names = tuple(f"{question.key}{_CONCENTRATION}" for question in tree.questions)
    return ExtraColumns(names, tuple(tuple(f"{value:.9g}" for value in row) for row in concentrations.tolist()), names)


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


def _is_table(path: Path, tree: Tree) -> bool:
    """Whether a file begins as a table of predictions for this tree does: its header, and fractions with nine decimals."""
    with path.open("rb") as file:
        head, first = (file.readline().rstrip(b"\r\n") for _ in range(2))
    start = csv_line(table_header(tree)).rstrip(b"\r\n")
    predicted = re.compile(rb",\d\.\d{9}" * len(tree.columns))
    return (head == start or head.startswith(start + b",")) and (not first or bool(predicted.search(first)))


def refuse_reserved(path: Path, example: str, flag: str = "--out") -> None:
    """Raise ConfigError if `path` is listed by an output folder of ours, is a folder, or has another file beside it where the
    list of unreadable images would be written. example: a name for a file in that folder; empty if `path` may be a folder.
    """
    for folder in local_path(path).absolute().parents:
        if path.absolute().relative_to(folder).as_posix() in listed_files(folder):
            raise ConfigError(f"{path}: belongs to {folder}: choose another {flag}")
    listing = rejected_path(path)
    if os.path.lexists(listing) and not _is_rejected_list(listing):
        raise ConfigError(
            f"{listing}: exists and is not a list of unreadable images: move it elsewhere, or choose another {flag}"
        )
    if example and path.is_dir():
        raise ConfigError(f"{path}: is a folder: set {flag} to a file, such as {path / example}")


def refuse_other_table(path: Path, tree: Tree | None = None, flag: str = "--out") -> None:
    """Raise ConfigError if `path` exists and is not a table of predictions, for `tree` or one of ours.

    A table of votes may have the same columns, but predictions have nine decimals, and never a name under which votes are
    found.
    """
    refuse_reserved(path, "submission.csv", flag)
    if not os.path.lexists(path):
        return
    trees = [*map(builtin_tree, builtin_names()), *([] if tree is None else [tree])]
    votes = {_DEMO, *(PurePosixPath(name).name for one in trees for name in one.tables)}
    if not path.is_file() or path.name in votes or not any(_is_table(path, one) for one in trees):
        raise ConfigError(f"{path}: exists and is not a table of predictions: choose another {flag}, or move it elsewhere")


def write_csv(
    predictions: Predictions,
    path: str | Path,
    extra: ExtraColumns = _NO_COLUMNS,
    beside: Path | None = None,
) -> None:
    """Write predictions as a table: the galaxy, then the fraction of each answer with nine decimals.

    For Kaggle's tree this is the submission format: GalaxyID,Class1.1,...,Class11.6. Galaxies are shown by their names if they
    have any; characters that would break the table, and formulas of spreadsheets, are escaped.

    Parameters
    ----------
    predictions : Predictions
        From `predict_split` or `predict_images`.
    path : str or Path
        File to write. It appears when it is complete, in place of an earlier file.
    extra : ExtraColumns
        Columns after the fractions, with which the table is no longer a submission.
    beside : Path, optional
        Folder for the unfinished file.

    Examples
    --------
    >>> from trainer import open_run, predict_images, write_csv
    >>> predictions = predict_images(open_run("runs/demo"), "demo/images_test_rev1")
    >>> write_csv(predictions, "predictions.csv")
    >>> open("predictions.csv").readline()[:26]
    'GalaxyID,Class1.1,Class1.2'
    """
    write_blocks(predictions.tree, [(predictions, extra)], local_path(path), beside)


def write_blocks(
    tree: Tree, blocks: Iterable[tuple[Predictions, ExtraColumns]], path: Path, beside: Path | None = None
) -> None:
    """Write a table as `write_csv` does, from at least one block of its rows. All have the same extra columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, beside) as file:
        for number, (predictions, extra) in enumerate(blocks):
            if not number:
                file.write(csv_line((*table_header(tree), *extra.names)))
            more = extra.rows or ((),) * len(predictions.galaxy_ids)
            galaxies = first_column(predictions.galaxy_ids, predictions.names)
            for galaxy, row, added in zip(galaxies, predictions.predicted, more, strict=True):
                file.write(csv_line((galaxy, *(f"{value:.9f}" for value in row), *added)))


def rejected_path(path: Path) -> Path:
    """The list of images that are missing from the table of predictions at `path`: table-rejected.csv beside table.csv."""
    return path.with_name(f"{path.stem}-rejected.csv")


def write_rejected(rejected: Iterable[UnreadableImage], path: Path) -> None:
    """List the unreadable images in a file beside the table of predictions at `path`; remove the file if there are none."""
    listing, rejected = rejected_path(path), iter(rejected)
    first = next(rejected, None)
    if first is None:
        if _is_rejected_list(listing):  # left by an earlier command
            listing.unlink()
        return
    listing.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(listing) as file:
        file.write(_REJECTED_HEADER)
        for image in itertools.chain([first], rejected):
            galaxy = cell(image.galaxy) if isinstance(image.galaxy, str) else image.galaxy
            file.write(csv_line((galaxy, cell(image.path), cell(image.reason))))


def read_csv(path: Path, tree: Tree, galaxies: "SplitVotes") -> Predictions:
    """Read a table that `write_csv` wrote, with `concentration_columns` or none, and add the votes of its galaxies.

    galaxies: those of the table, in any order. Raises RunError if the table is damaged or lists other galaxies.
    """
    extra = [f"{question.key}{_CONCENTRATION}" for question in tree.questions]
    number = len(tree.columns)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        listed = [row[0] for row in rows]
        values = np.array([row[1:] for row in rows], np.float32).reshape(len(rows), len(header) - 1)
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise RunError(f"{path}: damaged ({error}): remove it, and run the same command again") from error
    columns = [*table_header(tree)]
    place = {name: row for row, name in enumerate(first_column(galaxies.galaxy_ids, galaxies.names))}
    if header not in (columns, columns + extra) or len(listed) != len(place) or {*listed} != {*place}:
        raise RunError(f"{path}: lists other galaxies: remove it, and run the same command again")
    concentrations = values[:, number:] if len(header) > len(columns) else None
    order = [place[name] for name in listed]
    galaxy_ids, targets, asked, names = (None if column is None else column[order] for column in galaxies)
    assert galaxy_ids is not None and targets is not None
    return Predictions(galaxy_ids, values[:, :number], targets, asked, concentrations, tree, names)
