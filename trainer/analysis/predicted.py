"""The page about a table of predictions: which galaxies of a dataset a model calls what, with or without votes."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfrecords.dataset import SPLITS, Dataset
from tfrecords.errors import ConfigError
from tfrecords.files import sha256_file
from tfrecords.integrity import check_shards, read_shards
from tfrecords.tree import Tree
from trainer.analysis import galleries, tree, votes, wording
from trainer.analysis.columns import ColumnValues, box_chart, class_table, how_to_read, sentence, tree_chart
from trainer.analysis.galleries import Candidates
from trainer.analysis.page import Gallery, Page, Section
from trainer.analysis.selection import Selection
from trainer.analysis.table import Table
from trainer.predictedtable import read_predicted
from trainer.tables import first_column

log = logging.getLogger("trainer")
_NAMED = 3


@dataclass(frozen=True)
class PredictedGalaxies:
    """The galaxies of a table that are in a dataset, by GalaxyID: `split` (galaxies,) indexes `splits`.

    galaxy_ids (galaxies,); predicted and voted (galaxies, n), NaN without votes; counted: which votes count, bool
    (galaxies, n); names: str (galaxies,), None if they are numbers. missing: the galaxies of the table that are not in the
    dataset. others: the table's other columns.
    """

    dataset: Dataset
    table: Path
    splits: tuple[str, ...]
    split: np.ndarray
    galaxy_ids: np.ndarray
    predicted: np.ndarray
    voted: np.ndarray
    counted: np.ndarray
    names: np.ndarray | None
    missing: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def tree(self) -> Tree:
        return self.dataset.tree

    @property
    def has_votes(self) -> np.ndarray:
        """Which galaxies have votes: bool (galaxies,)."""
        return np.asarray(self.counted.any(axis=1))

    @property
    def fractions(self) -> ColumnValues:
        return ColumnValues(self.tree, self.predicted, predicted=True)

    @property
    def candidates(self) -> Candidates:
        return Candidates(
            self.dataset, self.splits, self.galaxy_ids, self.voted, self.predicted, counted=self.counted, names=self.names
        )


def predicted_galaxies(dataset: Dataset, path: Path) -> PredictedGalaxies:
    """Read a table of predictions, and find its galaxies in the splits of a dataset.

    Raises ConfigError if the table is not one of predictions for this tree, or none of its galaxies is in the dataset, and
    DatasetError if a shard is damaged.
    """
    from tfrecords.reader import votes_of

    table = read_predicted(path, dataset.tree)
    place = {name: row for row, name in enumerate(table.galaxies)}
    splits: list[str] = []
    parts: list[tuple[np.ndarray | None, ...]] = []
    # Tables are mostly of split unlabelled: then no other shard is read.
    for split in sorted(SPLITS, key=lambda name: name != "unlabelled"):
        if not place or not dataset.galaxies(split):
            continue
        check_shards(dataset, read_shards(dataset, split))
        stored = votes_of(dataset, split)
        named = np.array([place.pop(name, -1) for name in first_column(stored.galaxy_ids, stored.names)])
        if (inside := named >= 0).any():
            columns = (named, np.full(len(named), len(splits)), *stored)
            parts.append(tuple(None if column is None else column[inside] for column in columns))
            splits.append(split)
    if not parts:
        raise ConfigError(
            f"{path}: none of its {len(table.galaxies):,} galaxies, such as {table.galaxies[0]}, is in {dataset.folder}: give "
            "the dataset that was predicted, or predict this one with trainer predict --tfrecords"
        )
    order = np.argsort(np.concatenate([galaxy_ids for _, _, galaxy_ids, *_ in parts if galaxy_ids is not None]))
    rows, of_split, galaxy_ids, voted, asked, names = (
        np.concatenate([part for part in column if part is not None])[order] if column[0] is not None else None
        for column in zip(*parts, strict=True)
    )
    assert rows is not None and of_split is not None and galaxy_ids is not None and voted is not None
    predicted, counted, answered = table.predicted[rows], ~np.isnan(voted), dataset.tree.counted(asked)
    counted = counted if answered is None else counted & answered
    if counted.any() and np.allclose(predicted[counted], voted[counted], rtol=0, atol=1e-6):
        raise ConfigError(f"{path}: holds votes, not predictions: give a table that trainer predict wrote")
    return PredictedGalaxies(
        dataset, path, tuple(splits), of_split, galaxy_ids, predicted, voted, counted, names, tuple(place), table.others
    )


def _left_out(galaxies: PredictedGalaxies) -> str:
    """A sentence on the rows of the table that are not shown; empty if all are."""
    if not (number := len(galaxies.missing)):
        return ""
    named = ", ".join(galaxies.missing[:_NAMED]) + (", ..." if number > _NAMED else "")
    left = wording.some_galaxies(number)
    return f"{left} of the table ({named}) {'is' if number == 1 else 'are'} not in the dataset and left out."


def _source(galaxies: PredictedGalaxies) -> Section:
    voted = int(galaxies.has_votes.sum())
    rows = len(galaxies.galaxy_ids) + len(galaxies.missing)
    name = galaxies.table.name
    predicted = "Everything on this page is predicted by a model: none of these galaxies has votes."
    if voted:
        learnt = "train" in galaxies.splits
        predicted = wording.sentences(
            "This page is about predictions of a model: galaxies are chosen and counted by them.",
            f"{wording.some_galaxies(voted)} also {'has' if voted == 1 else 'have'} votes; their cards show these (orange) "
            "above the prediction (blue).",
            "A model predicts the galaxies of train that it learnt from better than new ones." if learnt else "",
        )
    more = f" and {len(galaxies.others) - _NAMED} more" if len(galaxies.others) > _NAMED else ""
    others = f"Its other columns, {', '.join(galaxies.others[:_NAMED])}{more}, are not shown." if galaxies.others else ""
    counts = [int((galaxies.split == place).sum()) for place in range(len(galaxies.splits))]
    return Section(
        "source",
        "Where the predictions come from",
        (predicted, wording.sentences(f"The table {name} has {rows:,} rows.", _left_out(galaxies), others)),
        (
            Table(
                ("split", "galaxies in the dataset", "predicted in the table"),
                tuple(
                    (split, galaxies.dataset.galaxies(split), count)
                    for split, count in zip(galaxies.splits, counts, strict=True)
                ),
            ),
        ),
    )


def _questions(galaxies: PredictedGalaxies, highest: Sequence[Gallery]) -> list[Section]:
    """The predictions of each question. highest: a gallery for each column."""
    of_tree, predicted = galaxies.tree, galaxies.predicted
    quantiles, means, largest = votes.quantiles(predicted, (25, 50, 75)), votes.means(predicted), predicted.max(axis=0)
    header = ("column", "answer", "predicted mean", "1st quartile", "median", "3rd quartile", "maximum")
    sections = []
    for question, anchor in zip(of_tree.questions, tree.anchors(of_tree), strict=True):
        rows = tuple(
            (
                of_tree.columns[column],
                question.answers[column - question.start],
                f"{means[column]:.3f}",
                *(f"{value:.2f}" for value in (*quantiles[:, column], largest[column])),
            )
            for column in range(question.start, question.stop)
        )
        text = wording.sentences(question.words, "The numbers and the order of the galaxies are predictions.")
        title, shown = question.called("{}  {}"), highest[question.columns]
        sections.append(Section(anchor, title, (text,), (Table(header, rows), *shown), (question.index + 1) % 2))
    return sections


def predictions_page(galaxies: PredictedGalaxies, selection: Selection | None) -> Page:
    """The page: a gallery of a selection, if given, the classes, how the columns are distributed, and each question."""
    of_tree, fractions, candidates = galaxies.tree, galaxies.fractions, galaxies.candidates
    dataset = galaxies.dataset
    if left_out := _left_out(galaxies):
        log.warning("%s: %s", galaxies.table, left_out)
    selected = [galleries.selected_choice(candidates, selection)] if selection else []
    classes = galleries.class_choices(candidates)
    shown = galleries.galleries(candidates, [*selected, *classes, *galleries.highest_choices(candidates)])
    of_classes, highest = shown[len(selected) : len(selected) + len(classes)], shown[len(selected) + len(classes) :]
    where = [Section("where", f"Predicted {selection}", (), shown[: len(selected)])] if selection else []
    hubble = []
    if of_tree.classes:
        title = f"Predicted {wording.enumerated([member.plural for member in of_tree.classes])}"
        hubble.append(Section("hubble", title, (), (class_table(fractions), *of_classes)))
    reading = Section(
        "reading",
        "How to read the predictions",
        ("Predictions follow the same rules as the votes that the model learnt from.", *how_to_read(of_tree)),
        (tree_chart(fractions), box_chart(fractions)),
    )
    digest = sha256_file(galaxies.table)[:12]
    facts = (
        f"predictions {galaxies.table} (SHA-256 {digest}) · dataset {dataset.folder} · "
        f"{dataset.size} × {dataset.size} pixels · fingerprint {dataset.fingerprint[:12]}"
    )
    kind = "galaxy" if len(fractions.values) == 1 else "galaxies"
    without = "" if galaxies.has_votes.any() else " and without votes"
    return Page(
        f"{wording.survey(of_tree)}: exploring predictions",
        sentence(fractions, f"{kind} with predictions{without}"),
        facts,
        (*where, _source(galaxies), *hubble, reading, *_questions(galaxies, highest)),
        credit=wording.credit(of_tree),
    )
