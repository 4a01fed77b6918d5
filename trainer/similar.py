"""The galaxies most like some others, by the cosine distance of their features: a page of galleries and a table.

index.html, figures/, data/     the page: see analysis/page.py
similar.csv                     query, rank, galaxy, distance
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfrecords.dataset import Dataset, csv_line
from tfrecords.errors import ConfigError, RunError, SettingError, require_setting
from tfrecords.files import local_path, sha256_file
from tfrecords.fits.bands import given_bands
from tfrecords.fits.look import Look, Stretch
from tfrecords.outputs import Output
from tfrecords.text import cell, printable
from trainer.analysis import wording
from trainer.analysis.nearest import Near, nearest
from trainer.analysis.page import Card, Gallery, Page, Section, safe_names, write_page
from trainer.analysis.table import Table
from trainer.backends.startup import explained, load_backend
from trainer.featurefile import StoredFeatures
from trainer.features import FeatureBlock, FeatureModel, GalaxySource, Labels, galaxies_of
from trainer.run import Run

# With the galaxy itself, two rows of a page.
COUNT = 11
PAGE, TABLE = "index.html", "similar.csv"
_HEADER = ("query", "rank", "galaxy", "distance")
# Galaxies of each gallery, and names in the headline.
_SHOWN, _NAMED = 59, 3
_BUSY = "another trainer similar is writing here: wait for it, or choose another --out"
_STRETCH = Stretch()


class Neighbour(NamedTuple):
    """A row of the table: `galaxy` is number `rank`, from 1, of those nearest to `query`. Both by name, else by number."""

    query: str
    rank: int
    galaxy: str
    distance: float


class _Query(NamedTuple):
    """A galaxy to compare the others with. features: (dimension,), None if they are not known yet."""

    galaxy_id: int
    called: str
    split: str | None
    features: np.ndarray | None


def _wanted(names: Sequence[str], where: str, parts: Iterable[tuple[Labels, np.ndarray | None]]) -> list[_Query]:
    """The galaxies of these names or numbers, in this order. parts: all galaxies, and their features if these are known.

    Raises SettingError, with some that there are, if one is missing.
    """
    queries: dict[str, _Query] = {}
    examples: list[str] = []
    total = 0
    for labels, features in parts:
        called = labels.called()
        examples += called[: 3 - len(examples)]
        total += len(called)
        for row in (row for row, name in enumerate(called) if name in names):
            split = None if labels.splits is None else labels.splits[row]
            own = None if features is None else features[row]
            queries[called[row]] = _Query(int(labels.galaxy_ids[row]), called[row], split, own)
        if len(queries) == len(names):
            return [queries[name] for name in names]
    missing = next(name for name in names if name not in queries)
    raise SettingError(
        f"--to {missing}: is none of the {total:,} galaxies of {where}: give a number or name as tables show it, such as "
        f"{', '.join(examples)}"
    )


def _stored(path: Path, run: Run, galaxies: GalaxySource) -> StoredFeatures:
    """A file of features. Raises ConfigError unless it is of this run's model and of the same dataset, or also of images."""
    stored = StoredFeatures(path)
    if stored.metadata.get("model") != sha256_file(run.model_path):
        raise ConfigError(f"{path}: was made with another model than that of {run.folder}: give its own run, or embed again")
    if stored.metadata.get("dataset") != galaxies.origin.get("dataset"):
        raise ConfigError(f"{path}: was made of other galaxies than {galaxies.name}: give those, or embed again")
    return stored


def _in_split(blocks: Iterable[FeatureBlock], split: str | None) -> Iterator[FeatureBlock]:
    """The galaxies of a split; of all if it is None."""
    for labels, features in blocks:
        if split is None or labels.splits is None:
            yield FeatureBlock(labels, features)
        elif (rows := labels.splits == split).any():
            ids, names, splits = (None if column is None else column[rows] for column in labels)
            assert ids is not None
            yield FeatureBlock(Labels(ids, names, splits), features[rows])


class _Search:
    """The queries and their pictures, and the galaxies nearest to each.

    total: how many galaxies were compared. layer, dimension: of the features.
    """

    def __init__(
        self, run: Run, galaxies: GalaxySource, names: Sequence[str], features: Path | None, split: str | None
    ) -> None:
        self._galaxies, self._run, self._split = galaxies, run, split
        self._stored = None if features is None else _stored(features, run, galaxies)
        load_backend()  # quietly, before the reader imports TensorFlow
        self._model: FeatureModel | None = None
        if self._stored is None:
            self.queries = _wanted(names, galaxies.name, ((labels, None) for labels in galaxies.labels()))
            self._model = FeatureModel(run)
            self.layer, self.dimension = self._model.layer, self._model.dimension
        else:
            self.queries = _wanted(names, str(features), _in_split(self._stored.blocks(), split))
            self.layer, self.dimension = str(self._stored.metadata["layer"]), int(self._stored.metadata["dimension"])
        self.pictures: dict[int, np.ndarray] = {}
        self._add_pictures([(query.galaxy_id, query.called) for query in self.queries])
        self.total = 0

    def _add_pictures(self, galaxies: Iterable[tuple[int, str]]) -> None:
        called = {galaxy_id: name for galaxy_id, name in galaxies if galaxy_id not in self.pictures}
        self.pictures |= self._galaxies.pictures(np.array([*called], np.int64))
        for galaxy_id, name in called.items():
            if galaxy_id not in self.pictures:
                raise ConfigError(f"{self._galaxies.name}: has no galaxy {name}, which the file of features lists: embed again")

    def _vectors(self) -> np.ndarray:
        """The features of the queries, (q, dimension). Raises RunError if those of one are all zero."""
        if self._model is None:
            vectors = np.stack([query.features for query in self.queries if query.features is not None])
        else:
            vectors = self._model.of_pictures([self.pictures[query.galaxy_id] for query in self.queries])
        for query, vector in zip(self.queries, vectors, strict=True):
            if not vector.any():
                raise RunError(f"{self._run.folder}: all features of galaxy {query.called} are zero: train the run for longer")
        return vectors

    def _blocks(self) -> Iterator[tuple[np.ndarray, list[str], np.ndarray]]:
        if self._stored is not None:
            blocks = _in_split(self._stored.blocks(), self._split)
        else:
            assert self._model is not None
            blocks = self._galaxies.blocks(self._model)
        for labels, features in blocks:
            self.total += len(features)
            yield labels.galaxy_ids, labels.called(), features

    def nearest(self, count: int) -> list[list[Near]]:
        """For each query the nearest galaxies; adds the pictures of those that the page shows."""
        near = nearest(self._vectors(), [query.galaxy_id for query in self.queries], self._blocks(), count)
        self._add_pictures((galaxy_id, called) for several in near for _, galaxy_id, called in several[:_SHOWN])
        return near


def _section(search: _Search, number: int, anchor: str, near: Sequence[Near], header: str) -> Section:
    query = search.queries[number]
    of_split = "" if query.split is None else f" (split {query.split})"
    cards = [Card(query.galaxy_id, (search.pictures[query.galaxy_id],), "the galaxy itself", name=query.called)]
    cards += [
        Card(galaxy_id, (search.pictures[galaxy_id],), f"distance {distance:.4f}", name=called)
        for distance, galaxy_id, called in near[:_SHOWN]
    ]
    shown = f", of which the first {_SHOWN} are shown" if len(near) > _SHOWN else ""
    gallery = Gallery(
        anchor,
        f"The {len(near):,} nearest of {search.total - 1:,} galaxies" if near else "There is no other galaxy",
        f"Nearest first{shown}; data/{anchor}.csv has their distances." if near else "",
        ("similar",),
        tuple(cards),
        header,
        Table(_HEADER, tuple(map(_row, _rows(query, near)))),
    )
    return Section(anchor, f"Galaxy {printable(query.called)}{of_split}", (), (gallery,), number % 2)


def _rows(query: _Query, near: Sequence[Near]) -> list[Neighbour]:
    return [Neighbour(query.called, rank, called, distance) for rank, (distance, _, called) in enumerate(near, 1)]


def _row(row: Neighbour) -> tuple[object, ...]:
    """A row as tables show it."""
    return cell(row.query), row.rank, cell(row.galaxy), f"{row.distance:.9f}"


def _page(run: Run, galaxies: GalaxySource, search: _Search, near: Sequence[Sequence[Near]]) -> Page:
    header = wording.id_name(run.tree)
    anchors = safe_names([f"nearest-{query.called}" for query in search.queries])
    sections = [
        _section(search, number, anchor, several, header)
        for number, (anchor, several) in enumerate(zip(anchors, near, strict=True))
    ]
    several = wording.enumerated([printable(query.called) for query in search.queries[:_NAMED]])
    others = f" and {len(near) - _NAMED:,} more" if len(near) > _NAMED else ""
    reading = (
        f"The model describes a galaxy by {search.dimension:,} features, from which its last layer predicts the votes. The "
        "distance of two galaxies is 1 minus the cosine of the angle between their features: 0 if these are proportional, 1 if "
        "they have nothing in common."
    )
    sections[0] = replace(sections[0], paragraphs=(reading,))
    kind = "dataset" if "dataset" in galaxies.origin else "images"
    return Page(
        "Similar galaxies",
        f"The galaxies most like {several}{others}, among {search.total:,}.",
        f"run {run.folder} · {kind} {galaxies.name} · {search.dimension:,} features of layer {search.layer}",
        tuple(sections),
        credit=wording.credit(run.tree) if kind == "dataset" else f"Images: {printable(galaxies.name)}.",
    )


@explained
def find_similar(
    run: Run,
    source: Dataset | str | Path,
    galaxies: Sequence[str | int],
    out: str | Path,
    count: int = COUNT,
    split: str | None = None,
    features: str | Path | None = None,
    stretch: Stretch = _STRETCH,
    bands: str = "",
) -> list[Neighbour]:
    """Find the galaxies most like some others, and write a page that shows them and a table of their distances.

    The distance is 1 minus the cosine of the angle between the features of two galaxies, from 0 to 2. It is computed for every
    galaxy, block by block, so memory does not grow with their number.

    Parameters
    ----------
    run : Run
        A run, from `open_run` or `train_model`.
    source : Dataset, str or Path
        Where to search: a dataset, from `tfrecords.open_dataset`, or a file, folder or zip of images as in `predict_images`.
    galaxies : sequence of str or int
        Galaxies of the source, by name, or by number if they have no names.
    out : str or Path
        Folder for `index.html`, `figures/`, `data/` and `similar.csv`.
    count : int
        Number of galaxies to find for each.
    split : str, optional
        train, validation, test or unlabelled; by default all splits of the dataset.
    features : str or Path, optional
        File of features of the source, from `embed_galaxies` with the same run; then they are not computed again.
    stretch : Stretch
        Brightness scale of FITS images, as in `predict_images`.
    bands : str
        Bands of the planes of FITS images, as in `predict_images`.

    Returns
    -------
    list of Neighbour
        The rows of the table: query, rank from 1, galaxy, distance.

    Raises
    ------
    SettingError
        If one of the galaxies is not in the source, `count` is below 1, or `bands` are none.
    ConfigError
        If the dataset does not fit the run, `features` are of another model or dataset, or `out` holds something else.
    DatasetError
        If the split is absent, or a shard is damaged.
    SourceError
        If there are no images, or one of the galaxies cannot be used.
    RunError
        If the run has no model, or it is damaged.

    Examples
    --------
    >>> from tfrecords import open_dataset
    >>> from trainer import find_similar, open_run
    >>> demo = open_dataset("data/demo")
    >>> [first, *others] = find_similar(open_run("runs/demo"), demo, [112026], "similar", count=5)
    >>> first.query, first.rank, len(others)
    ('112026', 1, 4)
    """
    names = list(dict.fromkeys(map(str, galaxies)))
    require_setting(count >= 1, "count", count, "at least 1")
    if not names:
        raise SettingError("no galaxy to compare others with: give at least one with --to")
    out = local_path(out)
    output = Output(out, "similar")
    output.refuse_others()
    output.refuse_others([PAGE, TABLE, *output.files])
    given = None if features is None else local_path(features)
    with galaxies_of(run, source, split, Look(given_bands(bands), stretch)) as searched, output.locked(_BUSY):
        search = _Search(run, searched, names, given, split)
        near = search.nearest(count)
        write_page(_page(run, searched, search, near), output, PAGE)
        rows = [row for query, several in zip(search.queries, near, strict=True) for row in _rows(query, several)]
        output.write({TABLE: b"".join(map(csv_line, (_HEADER, *map(_row, rows))))})
    return rows
