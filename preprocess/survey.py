"""A source that was read and checked, whatever it is: what the job and `verify` need of it."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from preprocess import plan
from preprocess.sources import BANDS, EMBEDDED, READ, ImageReader, Listing
from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.dataset import sha256_text
from tfrecords.decoding import MAX_BYTES
from tfrecords.errors import ImageError
from tfrecords.tree import Tree


@dataclass(frozen=True)
class Part:
    """Some galaxies: their images and their votes.

    targets: float32 (galaxies, n), NaN without votes. asked: float32 (galaxies, questions), 0 without votes; None if the table
    has no counts.
    """

    images: Listing
    targets: np.ndarray
    asked: np.ndarray | None


@dataclass(frozen=True)
class Survey(ABC):
    """A source that was read and checked. galaxies: sorted by id; the plan refers to them by row.

    tree, layout: of its votes, the layout empty without any. asked: whether there are counts. named: whether galaxies have
    names. id_column: that of the table, empty without one. current: whether the source was listed by this command.
    """

    path: Path
    galaxies: plan.Galaxies
    tree: Tree
    layout: str
    asked: bool
    named: bool
    id_column: str

    current: ClassVar[bool] = True

    @property
    def tree_name(self) -> str:
        """The name of the tree, with the start of its hash if it is not one of ours."""
        ours = self.tree.name in builtin_names() and self.tree.text == builtin_tree(self.tree.name).text
        return self.tree.name if ours else f"{self.tree.name} ({sha256_text(self.tree.text)[:12]})"

    @abstractmethod
    def prepare(self, shards: Sequence[plan.ShardPlan]) -> None:
        """Make ready for `part`, which may then be called for the galaxies of these shards."""

    def close(self) -> None:
        """Remove what `prepare` has written, if anything."""
        return

    @abstractmethod
    def part(self, rows: np.ndarray) -> Part:
        """The galaxies of these rows, in this order."""

    def part_of(self, shard: plan.ShardPlan) -> Part:
        """The galaxies of a shard, in the order in which they are written."""
        return self.part(shard.rows)

    @abstractmethod
    def fits_images(self) -> Listing:
        """A sample of its FITS images, evenly spaced; an empty listing if it has none."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """The manifest's entries about the source. `listing`: a hash of ids, kept splits and votes, without image contents."""

    @abstractmethod
    def warnings(self) -> Iterator[str]:
        """A sentence for each oddity of the source."""

    def all_warnings(self, shards: Sequence[plan.ShardPlan]) -> Iterator[str]:
        """A sentence for each oddity of the source and of the plan."""
        yield from self.warnings()
        if self.layout and not any(shard.split == "train" for shard in shards):
            yield "split 'train' is empty: a model needs labelled galaxies in it"

    def crcs(self, shards: Sequence[plan.ShardPlan]) -> Iterator[int]:
        """The current CRC-32 of every image of these shards, shard by shard; images in zips are not read."""
        for shard in shards:
            images = self.part_of(shard).images
            yield from content_crcs(images, np.arange(len(images)))


def in_order_of_ids(shards: Sequence[plan.ShardPlan], values: np.ndarray) -> np.ndarray:
    """Values of the galaxies of some shards, shard by shard, in the order of the galaxies' ids."""
    return np.asarray(values[np.argsort(np.concatenate([shard.rows for shard in shards]))])


def fingerprint(listing: str, crcs: np.ndarray) -> str:
    """Hash of a source's content: of its listing and the CRC-32 of every planned image in the order of their ids."""
    return hashlib.sha256(listing.encode("ascii") + crcs.astype("<u4").tobytes()).hexdigest()


def content_crcs(images: Listing, rows: np.ndarray) -> Iterator[int]:
    """The current CRC-32 of these images; images in zips are not read, and those that a table lacks have 0."""
    known = images.known_crcs()
    with ImageReader() as reader:
        for row in rows.tolist():
            crc = int(known[row])
            if images.method[row] in READ and images.size[row] <= MAX_BYTES:
                try:
                    crc = reader.read(images, row).crc
                except ImageError:  # a table may hold no image for a row; a file of one band may be damaged in its zip
                    if images.method[row] not in (EMBEDDED, BANDS):
                        raise
            yield crc
