"""Read and check a source of images in folders or zips: their votes, and the splits that its folders give."""

import hashlib
import itertools
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from preprocess import plan, solutions
from preprocess.catalogue import is_catalogue
from preprocess.catalogues import catalogue_survey
from preprocess.dialects import header_of
from preprocess.fitting import ANYTHING, ID_COLUMNS, Header, Wanted, choose_fit, fits, wanted_of
from preprocess.joining import Images
from preprocess.solutions import Ballots, Ids, Votes
from preprocess.sources import (
    SOLUTIONS_NAMES,
    Listing,
    Source,
    VotesTable,
    find_source,
    refuse_several,
    sample_of_fits,
    solutions_table,
)
from preprocess.survey import Part, Survey
from preprocess.tablefile import head_of
from preprocess.tables import open_table, schema_of_parquet
from preprocess.tablestream import bytes_of
from tfrecords.builtin import is_kaggle
from tfrecords.dataset import SPLITS, Dataset
from tfrecords.errors import SourceError
from tfrecords.tree import Tree

_CURE = "give it with --solutions FILE"
# Images without a number in their names that are left out beside a table of numbers, as a fraction of all images.
_STRAYS = 0.1
# Images with rows, as a fraction of the images and of the rows; below both, they match by chance.
_FEW = 0.2
_SHOWN = 3


@dataclass(frozen=True)
class _Files(Survey):
    """Images in folders and zips, and the votes of a table.

    unused: if it has no table of votes, why its nearest table is none; else empty. strays: paths of images left out because
    their names are not numbers. others: paths of tables that were not used. apart: keys of the table that were not joined with
    an image because of its folders alone, each with the image.
    """

    source: Source
    votes: Votes
    unused: str
    strays: tuple[str, ...]
    others: tuple[str, ...]
    apart: tuple[tuple[str, str], ...]

    def prepare(self, shards: Sequence[plan.ShardPlan]) -> None:
        pass

    def part(self, rows: np.ndarray) -> Part:
        images = self.source.images.part(rows)
        return Part(images, *self.votes.of(images.galaxy_id))

    def fits_images(self) -> Listing:
        return sample_of_fits(self.source.images)

    def summary(self) -> dict[str, Any]:
        images, votes, galaxies = self.source.images, self.votes, self.galaxies
        digest = hashlib.sha256(votes.sha256.encode("ascii"))
        for column, kind in ((images.galaxy_id, "<i8"), (images.size, "<u4"), (galaxies.kept, "<i1")):
            digest.update(column.astype(kind).tobytes())
        if self.tree.files is not None:  # which image has which votes follows from a second table
            digest.update(votes.galaxy_ids.astype("<i8").tobytes())
        labelled, rows = int(galaxies.labelled.sum()), len(votes.galaxy_ids) + votes.unmatched
        return {
            **({"asked": "assumed" if votes.estimated else "counted"} if self.asked else {}),
            **({"named": True} if self.named else {}),
            "listing": digest.hexdigest(),
            "images": len(images),
            "votes": rows,
            "votes_without_image": rows - labelled,
            "images_without_votes": len(images) - labelled,
            "kept_splits": int((galaxies.kept >= 0).sum()),
        }

    def warnings(self) -> Iterator[str]:
        yield from self.votes.warnings
        yield from self.source.left.lines()
        images = self.source.images
        if not self.layout:
            there = f"; {self.unused}" if self.unused else ""
            names = " or ".join(self.tree.tables or SOLUTIONS_NAMES)
            unlabelled = f"all {len(images):,} galaxies are unlabelled; if you have one, {_CURE}"
            yield f"{self.path}: no table of votes ({names}{there}): {unlabelled}"
            return
        if self.strays:
            number = len(self.strays)
            names = "its name is not a number" if number == 1 else "their names are not numbers"
            images_were = "1 image was" if number == 1 else f"{number:,} images were"
            yield f"{images_were} left out, because {names}, unlike the ids in the table, first {self.strays[0]}"
        if self.others:
            yield f"{_listed(self.others)} not used"
        if self.apart:
            key, path = self.apart[0]
            rows = "1 row of the table was" if len(self.apart) == 1 else f"{len(self.apart):,} rows of the table were"
            yield f"{rows} not joined, because the image of that name is in another folder, first {key}: the image is {path}"
        training = np.array([place.training for place in images.places])[images.place]
        if (odd := ~self.galaxies.labelled & training).any():
            first = images.shown(int(np.argmax(odd)))
            yield f"{odd.sum():,} images in training folders have no votes and are unlabelled, first {first}"


def _mapping(source: Source, tree: Tree, images: Images) -> dict[str, int] | None:
    """Id -> galaxy, if the tree has a second table for it. Of several files of an id, the first that is there."""
    if tree.files is None:
        return None
    tables = [table for table in source.others if table.is_called([tree.files.table])]
    if not tables:
        raise SourceError(
            f"{source.path}: lacks {tree.files.table}, which maps the votes of tree {tree.name} to image files: "
            "put it beside the images, or name the column of the files with --path_column"
        )
    refuse_several(source, tables, f"table {tree.files.table}", "remove all but one")
    path = tables[0].path
    pairs = {row: pair for row, pair in enumerate(solutions.read_files(path, tables[0].read(), tree), 1) if all(pair)}
    keys, files = (_ids(path, column, _column(pairs, place)) for place, column in enumerate((tree.files.id, tree.files.file)))
    galaxies = images.galaxies(path, tree.files.file, files)
    there = np.isin(galaxies, source.images.galaxy_id).tolist()
    known = zip(reversed(keys.tolist()), reversed(galaxies.tolist()), reversed(there), strict=True)
    return {str(key): galaxy for key, galaxy, is_there in known if is_there}


def _column(pairs: dict[int, tuple[str, str]], place: int) -> Any:
    """A column of the rows of a table, as `Ids` reads it."""
    import pandas as pd

    return pd.Series([pair[place] for pair in pairs.values()], [*pairs], dtype=object)


def _ids(path: str, column: str, texts: Any) -> np.ndarray:
    """A column as ids: int64 or str. Raises SourceError if they cannot be used."""
    ids = Ids(path, column)
    ids.look(texts)
    return ids.read(texts)


def _joined(source: Source, ballots: Ballots, images: Images) -> np.ndarray:
    """The galaxy of each row of a table, int64; -1 for rows without an image."""
    fit = ballots.fit
    mapping = _mapping(source, fit.tree, images) if fit.id == fit.tree.id else None
    if mapping is not None:
        return np.fromiter((mapping.get(str(key), -1) for key in ballots.ids), np.int64, len(ballots.ids))
    return images.galaxies(ballots.path, fit.id, ballots.ids)


def _header(table: VotesTable) -> list[str]:
    """The names of a table's columns, without checks; of a file on disk only a part is read."""
    try:
        start = table.start()
    except SourceError:  # too large unpacked: it matters only if it is used
        return []
    if not head_of(start).startswith(b"PAR1"):
        return header_of(start)
    if table.entry is None and start.startswith(b"PAR1"):
        schema = schema_of_parquet(table.archive.path)
        return [] if schema is None else [str(name) for name in schema.names]
    try:
        return [*open_table(table.path, table.read()).header]
    except SourceError:  # damaged: it matters only if it is used
        return []


def _better_column(table: VotesTable, ballots: Ballots, images: Images) -> str:
    """Another of the usual columns, in which many images are named; empty if the table has none."""
    opened = open_table(table.path, bytes_of(table))
    header = Header(opened.header)
    usual = dict.fromkeys(header.written(column) for column in ID_COLUMNS if column in header)
    for column in usual:
        if column.casefold() == ballots.fit.id.casefold():
            continue
        try:
            ids = _ids(table.path, column, opened.frame([column], []).iloc[:, 0])
            galaxies = images.galaxies(table.path, column, ids)
        except SourceError:  # a column of something else
            continue
        if np.isin(images.listing.galaxy_id, galaxies).sum() >= _FEW * len(images.listing):
            return column
    return ""


def _without_strays(
    source: Source, table: VotesTable, ballots: Ballots, votes: Votes, images_by_name: Images
) -> tuple[Source, tuple[str, ...]]:
    """Leave out images whose names are not numbers, if the table has only numbers; return their paths.

    Raises SourceError if they are more than a tenth of all images, or if two different images have the same number.
    """
    images = source.images
    if ballots.ids.dtype != np.int64 or votes.tree.files is not None or not images.parts:
        return source, ()
    named = images.named == 1
    if (votes.rows(images.galaxy_id)[named] >= 0).any():  # 7 is the name of 7.jpg beside another 7.jpg in a folder
        return source, ()
    if source.clash:
        raise SourceError(source.clash)
    if named.sum() > _STRAYS * len(images):
        first = images.shown(int(np.argmax(named)))
        better, identity = _better_column(table, ballots, images_by_name), ballots.fit.id
        cure = f"name each image by its {identity}, like {ballots.ids[0]}.jpg"
        if better:
            cure = f"give --id_column {shlex.quote(better)}, in which the images are named"
        article = "an" if identity[:1].lower() in {*"aeiou"} else "a"
        raise SourceError(
            f"{first}: the name is not {article} {identity}, but there is a table of votes ({ballots.path}): {cure}"
        )
    strays = tuple(images.shown(row) for row in np.flatnonzero(named).tolist())
    return replace(source, images=replace(images.rows(np.flatnonzero(~named)), parts=0)), strays


def _some(names: Iterable[object]) -> str:
    """Up to three names, for messages."""
    return ", ".join(str(name) for name in itertools.islice(names, _SHOWN))


def _listed(tables: Sequence[str]) -> str:
    """Up to three tables and the number of the others, as the start of a sentence."""
    if len(tables) == 1:
        return f"{tables[0]} is"
    others = len(tables) - _SHOWN
    if others > 0:
        return f"{_some(tables)} and {others:,} other table{'s' * (others > 1)} are"
    return f"{', '.join(tables[:-1])} and {tables[-1]} are"


def _refuse_chance(source: Source, table: VotesTable, ballots: Ballots, galaxies: np.ndarray, images_by_name: Images) -> None:
    """Raise SourceError if no images have rows, or so few of both that it may be by chance. galaxies: those of the rows."""
    images = source.images
    has_row = np.isin(images.galaxy_id, galaxies)
    has_image = np.isin(galaxies, images.galaxy_id)
    both = int(has_row.sum())
    if both >= _FEW * len(images) or both >= _FEW * len(galaxies):
        return
    of_images = _some(images.galaxy(int(row)) for row in np.flatnonzero(~has_row))
    of_rows = _some(ballots.ids[~has_image])
    cure = "check that they belong together; if they do, remove the other rows"
    if not both:
        cure = "check that they belong together, or name the column of their names with --id_column or --path_column"
    if apart := images_by_name.in_other_folders(galaxies):
        key, path = apart[0]
        cure = f"the table names {key}, but the image is {path}: correct the folders in the table, or remove them from it"
    elif better := _better_column(table, ballots, images_by_name):
        cure = f"give --id_column {shlex.quote(better)}, in which the images are named"
    if not both:
        raise SourceError(
            f"{source.path}: no image has a row in {ballots.path} (images: {len(images):,}, such as {of_images}; rows: "
            f"{len(galaxies):,}, such as {ballots.fit.id} {of_rows}): {cure}"
        )
    raise SourceError(
        f"{source.path}: only {both:,} of {len(images):,} images have a row in {ballots.path}, and only {both:,} of its "
        f"{len(galaxies):,} rows have an image (without: images {of_images}; {ballots.fit.id} {of_rows}): "
        f"{cure}"
    )


def _not_votes(source: Source, wanted: Wanted) -> str:
    """Why the tables of a source are no tables of votes, in words: what the nearest lacks of the nearest tree.

    Raises SourceError if it lacks nothing but its name, or if something was asked for.
    """
    headers = [(table, _header(table)) for table in source.others]
    nearest = [(fit, table, header) for table, header in headers for fit in fits(header, wanted)[:1]]
    if not nearest:
        return ""
    # Of equals the one with most columns: a table of votes rather than, say, one of file names.
    fit, table, header = min(nearest, key=lambda one: (one[0].share, -len(one[2]), one[1].path))
    if wanted != ANYTHING:
        choose_fit(table.path, header, wanted)
    if is_kaggle(fit.tree) and not fit.missing:
        raise SourceError(
            f"{table.path}: has Kaggle's columns, but not the name of its table: {_CURE}; if it holds no votes, move it "
            "elsewhere"
        )
    if not is_kaggle(fit.tree) and 2 * len(fit.missing) < len(fit.columns):
        return f"{table.path} {fit.lacks} of tree {fit.tree.name}, the nearest"
    return f"{table.path} has no columns of a tree"


def survey_of(src: Path, scratch: Path, solutions_file: Path | None = None, wanted: Wanted = ANYTHING) -> Survey:
    """Read the listing and the votes of a source, and check that they match. No image is read.

    `scratch`: a folder for copies of zips inside a zip, and for the rows of a catalogue. Raises SourceError for a source that
    cannot be used.
    """
    if is_catalogue(src):
        if solutions_file is not None:
            raise SourceError(f"{src}: is a catalogue, which must hold the votes itself: add them to it, and omit --solutions")
        return catalogue_survey(src, scratch, wanted)
    if wanted.id_column and wanted.path_column:
        raise SourceError(
            f"{src}: is joined with its table by one column: give --id_column or --path_column, not both, which are for a "
            "catalogue"
        )
    source = find_source(src, scratch)

    def holds_votes(table: VotesTable) -> bool:
        # Predictions have Kaggle's columns too: without --tree its tables are found by name alone.
        whole = (fit for fit in fits(_header(table), wanted) if not fit.missing)
        return any(wanted.tree is not None or not is_kaggle(fit.tree) for fit in whole)

    table = solutions_table(source, solutions_file, wanted.tree.tables if wanted.tree else (), holds_votes)
    if table is None:
        unused = _not_votes(source, wanted)
        return _survey(source, solutions.no_votes(wanted.tree), unused)
    ballots = solutions.read_table(table.path, bytes_of(table), wanted)
    images = Images(source.images)
    galaxies = _joined(source, ballots, images)
    votes = ballots.votes(galaxies)
    source, strays = _without_strays(source, table, ballots, votes, images)
    _refuse_chance(source, table, ballots, galaxies, images)
    others = sorted(other.path for other in (*source.solutions, *source.others) if not _is_used(other, table, ballots))
    return _survey(source, votes, "", strays, tuple(others), tuple(images.in_other_folders(galaxies)))


def _is_used(other: VotesTable, table: VotesTable, ballots: Ballots) -> bool:
    """Whether a table of the source is the one with the votes, a copy of it, or the tree's second table."""
    files = ballots.fit.tree.files
    if files is not None and other.is_called([files.table]):
        return True
    if os.path.realpath(other.path) == os.path.realpath(table.path):
        return True
    return other.size == table.size and hashlib.sha256(other.read()).hexdigest() == ballots.sha256


def _survey(
    source: Source,
    votes: Votes,
    unused: str = "",
    strays: tuple[str, ...] = (),
    others: tuple[str, ...] = (),
    apart: tuple[tuple[str, str], ...] = (),
) -> Survey:
    images = source.images
    kept = np.array([SPLITS.index(place.split) if place.split else -1 for place in images.places], np.int8)
    galaxies = plan.Galaxies(images.galaxy_id, votes.rows(images.galaxy_id) >= 0, kept[images.place])
    common = (votes.tree, votes.layout, votes.asked is not None, images.parts != 0, votes.id_column)
    return _Files(source.path, galaxies, *common, source, votes, unused, strays, others, apart)


def images_of(src: Path, scratch: Path, data: Dataset, pick: Callable[[np.ndarray], np.ndarray]) -> Listing:
    """Some images of a dataset's source, a catalogue or any other, in the order picked; its votes are not needed.

    pick: from the ids of all its galaxies to the rows of those wanted. scratch: as in `survey_of`; the images may lie in it.
    Raises SourceError for a source that cannot be used.
    """
    if is_catalogue(src):
        survey = catalogue_survey(src, scratch, wanted_of(data))
        rows = pick(survey.galaxies.ids)
        survey.prepare([plan.ShardPlan("", "", rows)])
        return survey.part(rows).images
    images = find_source(src, scratch).images
    return images.rows(pick(images.galaxy_id))
