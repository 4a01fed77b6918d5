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
from preprocess.sources import PLAIN, SOLUTIONS_NAMES, ImageReader, Listing, Source, find_source, solutions_table
from tfrecords.dataset import SPLITS
from tfrecords.errors import SourceError
from tfrecords.images import MAX_BYTES

log = logging.getLogger("preprocess")


@dataclass(frozen=True)
class Survey:
    """A source that was read and checked: its images, their votes, and the input of the plan."""

    source: Source
    votes: Votes
    galaxies: plan.Galaxies

    @property
    def images(self) -> Listing:
        return self.source.images


def survey_of(src: Path, scratch: Path, solutions_file: Path | None = None) -> Survey:
    """Read the listing and the votes of a source, and check that they match. No image is read.

    `scratch`: a folder for copies of zips inside a zip. Raises SourceError for a source that cannot be used.
    """
    source = find_source(src, scratch)
    table = solutions_table(source, solutions_file)
    votes = solutions.read_votes(table.path, table.read()) if table else solutions.no_votes()
    images = source.images
    labelled = votes.rows(images.galaxy_id) >= 0
    if table and images.named.any():
        first = images.shown(int(np.argmax(images.named)))
        raise SourceError(
            f"{first}: the name is not a GalaxyID, but there is a table of votes ({table.path}): "
            "name each image by its GalaxyID, like 100008.jpg"
        )
    if table and not labelled.any():
        raise SourceError(f"{src}: no image has a row in {table.path}: check that they belong together")
    kept = np.array([SPLITS.index(place.split) if place.split else -1 for place in images.places], np.int8)
    return Survey(source, votes, plan.Galaxies(images.galaxy_id, labelled, kept[images.place]))


def summarise(survey: Survey) -> dict[str, Any]:
    """The manifest's entries about the source. `listing`: hash of ids, sizes, kept splits and votes, without image contents."""
    digest = hashlib.sha256(survey.votes.sha256.encode("ascii"))
    for column, kind in ((survey.images.galaxy_id, "<i8"), (survey.images.size, "<u4"), (survey.galaxies.kept, "<i1")):
        digest.update(column.astype(kind).tobytes())
    labelled = int(survey.galaxies.labelled.sum())
    return {
        "listing": digest.hexdigest(),
        "images": len(survey.images),
        "votes": len(survey.votes.galaxy_ids),
        "votes_without_image": len(survey.votes.galaxy_ids) - labelled,
        "images_without_votes": len(survey.images) - labelled,
        "kept_splits": int((survey.galaxies.kept >= 0).sum()),
    }


def warn(survey: Survey, shards: list[plan.ShardPlan]) -> None:
    """Log one warning for each oddity of a source."""
    for warning in survey.votes.warnings:
        log.warning("%s", warning)
    images, unlabelled = survey.images, ~survey.galaxies.labelled
    if not survey.votes.sha256:
        log.warning(
            "%s: no table of votes (%s): all %s galaxies are unlabelled; if you have one, give it with --solutions FILE",
            survey.source.path, " or ".join(SOLUTIONS_NAMES), f"{len(images):,}",
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
