"""Read and check a source: its images, their votes, the splits that its folders give, and the hashes that identify it."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from preprocess import plan, solutions
from preprocess.solutions import Votes
from preprocess.sources import (
    PLAIN,
    SOLUTIONS_NAMES,
    ImageReader,
    Listing,
    Source,
    VotesTable,
    find_source,
    refuse_several,
    solutions_table,
)
from tfrecords.builtin import builtin_names, builtin_tree, is_kaggle
from tfrecords.dataset import SPLITS, sha256_text
from tfrecords.errors import SourceError
from tfrecords.images import MAX_BYTES
from tfrecords.tree import Tree

log = logging.getLogger("preprocess")
_CURE = "give it with --solutions FILE"


@dataclass(frozen=True)
class Survey:
    """A source that was read and checked: its images, their votes, and the input of the plan.

    unused: if it has no table of votes, why its first CSV file is none; else empty.
    """

    source: Source
    votes: Votes
    galaxies: plan.Galaxies
    unused: str = ""

    @property
    def tree_name(self) -> str:
        """The name of the tree, with the start of its hash if it is not one of ours."""
        tree = self.votes.tree
        ours = tree.name in builtin_names() and tree.text == builtin_tree(tree.name).text
        return tree.name if ours else f"{tree.name} ({sha256_text(tree.text)[:12]})"

    @property
    def images(self) -> Listing:
        return self.source.images


def _names_of(images: Listing) -> tuple[dict[str, int], set[str]]:
    """Path and stem of the file -> galaxy id, of images whose names are not numbers; and the stems that several have."""
    paths: dict[str, int] = {}
    stems: dict[str, int] = {}
    twice: set[str] = set()
    for row in np.flatnonzero(images.named).tolist():
        path = images.path(row)
        stem = path.rpartition("/")[2].rpartition(".")[0]
        if stem in stems:
            twice.add(stem)
        paths[path] = stems[stem] = int(images.galaxy_id[row])
    return {stem: galaxy_id for stem, galaxy_id in stems.items() if stem not in twice} | paths, twice


def _mapping(source: Source, tree: Tree, names: dict[str, int]) -> dict[str, str] | None:
    """Id -> name of the image file, if the tree has a second table for it. Of several files, the first that is there."""
    if tree.files is None:
        return None
    tables = [table for table in source.others if table.is_called([tree.files.table])]
    if not tables:
        raise SourceError(
            f"{source.path}: lacks {tree.files.table}, which maps the votes of tree {tree.name} to image files: "
            "put it beside the images"
        )
    refuse_several(source, tables, f"table {tree.files.table}", "remove all but one")
    pairs = solutions.read_files(tables[0].path, tables[0].read(), tree)
    galaxies = np.array([solutions.galaxy_of(file, names) for _, file in pairs], np.int64)
    there = np.isin(galaxies, source.images.galaxy_id)
    return {key: file for (key, file), is_there in zip(reversed(pairs), reversed(there.tolist()), strict=True) if is_there}


def _votes_of(source: Source, table: VotesTable, tree: Tree | None, layout: str) -> Votes:
    content = solutions.read_table(table.path, table.read(), tree, layout)
    names, twice = _names_of(source.images)
    if twice and content.ids.dtype != np.int64:
        for key in content.ids.tolist():
            if key not in names and solutions.stem_of(key) in twice:
                raise SourceError(
                    f"{table.path}: {key} is the name of several images: write their paths in {source.path} into column "
                    f"{content.fit.id}, or remove all but one"
                )
    return content.votes(names, _mapping(source, content.fit.tree, names))


def _not_votes(source: Source, tree: Tree | None, layout: str) -> str:
    """Why the CSV files of a source are no tables of votes, in words: what the nearest lacks of the nearest tree.

    Raises SourceError if a tree or a layout was asked for.
    """
    headers = [(table, solutions.header_of(table.first_line())) for table in source.others]
    nearest = [(fit, table, header) for table, header in headers for fit in solutions.fits(header, tree, layout)[:1]]
    if not nearest:
        return ""
    # Of equals the one with most columns: a table of votes rather than, say, one of file names.
    fit, table, header = min(nearest, key=lambda one: (one[0].share, -len(one[2]), one[1].path))
    if tree is not None or layout:
        solutions.choose_fit(table.path, header, tree, layout)
    if is_kaggle(fit.tree) and not fit.missing:
        return f"{table.path} has Kaggle's columns, but not the name of its table: {_CURE}"
    if not is_kaggle(fit.tree) and 2 * len(fit.missing) < len(fit.columns):
        return f"{table.path} {fit.lacks} of tree {fit.tree.name}, the nearest"
    return f"{table.path} has no columns of a tree"


def survey_of(
    src: Path, scratch: Path, solutions_file: Path | None = None, tree: Tree | None = None, layout: str = ""
) -> Survey:
    """Read the listing and the votes of a source, and check that they match. No image is read.

    `scratch`: a folder for copies of zips inside a zip. tree: the decision tree, None to find it by the columns of the table;
    layout: which of the table's votes, empty for the tree's first. Raises SourceError for a source that cannot be used.
    """
    source = find_source(src, scratch)

    def holds_votes(line: bytes) -> bool:
        # Predictions have Kaggle's columns too: without --tree its tables are found by name alone.
        whole = (fit for fit in solutions.fits(solutions.header_of(line), tree, layout) if not fit.missing)
        return any(tree is not None or not is_kaggle(fit.tree) for fit in whole)

    table = solutions_table(source, solutions_file, tree.tables if tree else (), holds_votes)
    votes = _votes_of(source, table, tree, layout) if table else solutions.no_votes(tree)
    unused = "" if table else _not_votes(source, tree, layout)
    images = source.images
    labelled = votes.rows(images.galaxy_id) >= 0
    if table and images.named.any() and votes.tree.id == solutions.KAGGLE_ID:
        first = images.shown(int(np.argmax(images.named)))
        raise SourceError(
            f"{first}: the name is not a GalaxyID, but there is a table of votes ({table.path}): "
            "name each image by its GalaxyID, like 100008.jpg"
        )
    if table and not labelled.any():
        raise SourceError(f"{src}: no image has a row in {table.path}: check that they belong together")
    kept = np.array([SPLITS.index(place.split) if place.split else -1 for place in images.places], np.int8)
    return Survey(source, votes, plan.Galaxies(images.galaxy_id, labelled, kept[images.place]), unused)


def summarise(survey: Survey) -> dict[str, Any]:
    """The manifest's entries about the source. `listing`: hash of ids, sizes, kept splits and votes, without image contents."""
    digest = hashlib.sha256(survey.votes.sha256.encode("ascii"))
    for column, kind in ((survey.images.galaxy_id, "<i8"), (survey.images.size, "<u4"), (survey.galaxies.kept, "<i1")):
        digest.update(column.astype(kind).tobytes())
    labelled = int(survey.galaxies.labelled.sum())
    votes = survey.votes
    rows = len(votes.galaxy_ids) + votes.unmatched
    if votes.tree.files is not None:  # which image has which votes follows from a second table
        digest.update(votes.galaxy_ids.astype("<i8").tobytes())
    return {
        **({"asked": "assumed" if votes.estimated else "counted"} if votes.asked is not None else {}),
        "listing": digest.hexdigest(),
        "images": len(survey.images),
        "votes": rows,
        "votes_without_image": rows - labelled,
        "images_without_votes": len(survey.images) - labelled,
        "kept_splits": int((survey.galaxies.kept >= 0).sum()),
    }


def warn(survey: Survey, shards: list[plan.ShardPlan]) -> None:
    """Log one warning for each oddity of a source."""
    for warning in survey.votes.warnings:
        log.warning("%s", warning)
    images, unlabelled = survey.images, ~survey.galaxies.labelled
    if not survey.votes.sha256:
        there = f"; {survey.unused}" if survey.unused else ""
        cure = "" if survey.unused.endswith(_CURE) else f"; if you have one, {_CURE}"
        log.warning(
            "%s: no table of votes (%s%s): all %s galaxies are unlabelled%s",
            survey.source.path, " or ".join(survey.votes.tree.tables or SOLUTIONS_NAMES), there, f"{len(images):,}", cure,
        )  # fmt: skip
        return
    training = np.array([place.training for place in images.places])[images.place]
    if (odd := unlabelled & training).any():
        first = images.shown(int(np.argmax(odd)))
        log.warning("%s images in training folders have no votes and are unlabelled, first %s", f"{odd.sum():,}", first)
    if not any(shard.split == "train" for shard in shards):
        log.warning("split 'train' is empty: a model needs labelled galaxies in it")


def fingerprint(listing: str, crcs: np.ndarray) -> str:
    """Hash of a source's content: of its listing and the CRC-32 of every planned image in the order of their ids."""
    return hashlib.sha256(listing.encode("ascii") + crcs.astype("<u4").tobytes()).hexdigest()


def content_crcs(images: Listing, rows: np.ndarray) -> Iterator[int]:
    """The current CRC-32 of these images; only images outside zips are read."""
    known = images.known_crcs()
    with ImageReader() as reader:
        for row in rows:
            unread = images.method[row] == PLAIN and images.size[row] <= MAX_BYTES
            yield reader.read(images, row).crc if unread else int(known[row])
