"""The survey that a catalogue is: the galaxies of its rows.

The table is read several times, in parts: to see what its ids and paths are, to keep some 24 bytes of each row (its id, its
split, whether it has votes), and to find names that differ. When the shards are planned, it is read once more, and its rows are
scattered into Arrow files, of which each shard reads its own rows.
"""

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from preprocess import plan
from preprocess.catalogue import Catalogue, Rows, given, open_catalogue
from preprocess.fitting import Wanted
from preprocess.joining import stem_of
from preprocess.scatter import GROUPS, Scatter, Scattered, nowhere, path_of, take
from preprocess.sources import (
    EMBEDDED,
    IMAGE,
    MISSING,
    PLAIN,
    WHOLE,
    Listing,
    ListingBuilder,
    evenly_spaced,
    hashed_id,
    is_fits,
    number_of,
    place_of,
    plain_number,
)
from preprocess.survey import Part, Survey
from preprocess.votes import Oddity
from tfrecords.dataset import SPLITS
from tfrecords.errors import SourceError


@dataclass
class _First:
    """What the first pass gathers: for each row its id, whether it is a number, whether it has votes, and its kept split.

    depth: of the deepest path, in folders. oddities: of the votes of all rows.
    """

    ids: np.ndarray
    numbers: np.ndarray
    labelled: np.ndarray
    kept: np.ndarray
    asked: bool
    estimated: bool
    depth: int
    oddities: tuple[Oddity, ...]


def _number(catalogue: Catalogue, rows: Rows, row: int, split: str) -> int:
    """The number that a galaxy is called by, -1 if its name is something else."""
    if rows.ids is None:
        return number_of(os.fsencode(given(rows.paths)[row].rpartition("/")[2]), split)
    if rows.ids.dtype == np.int64:
        return int(rows.ids[row])
    return plain_number(stem_of(str(rows.ids[row])))


def _first_pass(catalogue: Catalogue, shared: frozenset[int] = frozenset()) -> _First:
    """Read every row but its image. shared: numbers that are the names of several galaxies, whose ids are hashes then."""
    parts: list[tuple[np.ndarray, ...]] = []
    asked = estimated = False
    depth = 0
    oddities: dict[tuple[str, str], Oddity] = {}
    splits: dict[str, str] = {}
    for rows in catalogue.rows():
        ids, numbers = np.zeros(len(rows.numbers), np.int64), np.ones(len(rows.numbers), bool)
        kept = np.full(len(rows.numbers), -1, np.int8)
        for row in range(len(ids)):
            split = ""
            if rows.paths is not None:
                folder = rows.paths[row].rpartition("/")[0]
                depth = max(depth, rows.paths[row].count("/"))
                if folder not in splits:
                    splits[folder] = place_of(Path(), "", os.fsencode(folder)).split
                split = splits[folder]
                kept[row] = SPLITS.index(split) if split else -1
            number = _number(catalogue, rows, row, split)
            numbers[row] = number >= 0 and number not in shared
            key = rows.name(row, 1) if rows.paths is None else rows.paths[row]
            ids[row] = number if numbers[row] else hashed_id(os.fsencode(key))
        labelled, fractions = catalogue.fractions(rows, False)
        if fractions is not None:
            asked |= fractions.asked is not None
            estimated |= fractions.estimated
            for odd in fractions.oddities:
                key_of_odd = (odd.before, odd.after)
                oddities[key_of_odd] = oddities[key_of_odd].joined(odd) if key_of_odd in oddities else odd
        parts.append((ids, numbers, labelled, kept))
    if not parts:
        raise SourceError(f"{catalogue.table.path}: has no rows: it must have one per galaxy")
    ids, numbers, labelled, kept = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _First(ids, numbers, labelled, kept, asked, estimated, depth, tuple(oddities.values()))


def _shared(ids: np.ndarray) -> frozenset[int]:
    """The ids that several rows have."""
    arranged = np.sort(ids)
    return frozenset(arranged[1:][arranged[1:] == arranged[:-1]].tolist())


def _twice(catalogue: Catalogue, keys: np.ndarray) -> SourceError:
    """An error that names two rows with one key: they are one galaxy, or have one image. keys: int64, one for each row."""
    order = np.argsort(keys, kind="stable")
    again = int(np.flatnonzero(keys[order][1:] == keys[order][:-1])[0])
    start, pair = 0, []
    places = sorted(order[again : again + 2].tolist())
    for rows in catalogue.rows(votes=False):
        for place in places:
            if start <= place < start + len(rows.numbers):
                path = "" if rows.paths is None else str(rows.paths[place - start])
                pair.append((int(rows.numbers[place - start]), rows.name(place - start, 1), path))
        start += len(rows.numbers)
    (one, name, path), (other, second, _) = pair
    both = f"{catalogue.table.path}: rows {one} and {other} below the header"
    if not catalogue.id:
        return SourceError(f"{both} have one image, {path}: remove one")
    if name != second:
        return SourceError(f"{both}, galaxies {name} and {second}, have one image, {path}: correct or remove one")
    by = f"by column {catalogue.id}: remove one, or name another column with --id_column"
    return SourceError(f"{both} are both galaxy {name} {by}")


def _parts(catalogue: Catalogue, galaxies: int, depth: int) -> int:
    """How many parts of a path, from its end, make names that differ; WHOLE if none do without suffixes.

    Raises SourceError if ids are no such names.
    """
    hashes = np.zeros(galaxies, np.int64)
    for parts in (1, WHOLE) if catalogue.id else (*range(1, depth + 2), WHOLE):
        start = 0
        for rows in catalogue.rows(votes=False):
            for row in range(len(rows.numbers)):
                hashes[start + row] = hash(rows.name(row, parts))
            start += len(rows.numbers)
        arranged = np.sort(hashes)
        if (arranged[1:] != arranged[:-1]).all():
            return parts
    raise _twice(catalogue, hashes)


def catalogue_survey(src: Path, scratch: Path, wanted: Wanted) -> Survey:
    """Read the ids and votes of a catalogue. No image is read. `scratch`: a folder for the scattered rows.

    Raises SourceError for a catalogue that cannot be used.
    """
    catalogue = open_catalogue(src, wanted)
    first = _first_pass(catalogue)
    if shared := _shared(first.ids):
        if catalogue.id or not first.numbers[np.isin(first.ids, [*shared])].all():
            raise _twice(catalogue, first.ids)
        first = _first_pass(catalogue, shared)  # class folders with equal names are different galaxies
        if _shared(first.ids):
            raise _twice(catalogue, first.ids)
    named = not first.numbers.all()
    parts = _parts(catalogue, len(first.ids), first.depth) if named else 0
    order = np.argsort(first.ids, kind="stable").astype(np.uint32)
    galaxies = plan.Galaxies(first.ids[order], first.labelled[order], first.kept[order])
    fit = catalogue.votes[0] if catalogue.votes and first.labelled.any() else None
    layout, id_column = (fit.layout.name, catalogue.id or catalogue.path) if fit else ("", "")
    common = (catalogue.tree, layout, first.asked, named, id_column)
    return _Rowwise(src, galaxies, *common, catalogue, scratch, order, parts, first.estimated, first.oddities)


@dataclass(frozen=True)
class _Rowwise(Survey):
    """The galaxies of a catalogue. order: row of the table of each galaxy, of those that hold anything.

    parts: as in `Listing`. scattered: where `prepare` has put the rows.
    """

    catalogue: Catalogue
    scratch: Path
    order: np.ndarray
    parts: int
    estimated: bool
    oddities: tuple[Oddity, ...]
    scattered: Scattered = field(default_factory=Scattered)

    def prepare(self, shards: Sequence[plan.ShardPlan]) -> None:
        group = nowhere(len(self.order))
        for number, shard in enumerate(shards):
            group[shard.rows] = number * GROUPS // max(len(shards), GROUPS)
        by_row = nowhere(len(self.order))
        by_row[self.order] = group
        with Scatter(self.scratch, by_row) as scatter:
            start = 0
            for rows in self.catalogue.rows(images=bool(self.catalogue.image)):
                scatter.write(start, self._columns(rows))
                start += len(rows.numbers)
        self.scattered.place(scatter.folder, group, scatter.slot[self.order])

    def close(self) -> None:
        self.scattered.remove()

    def _columns(self, rows: Rows) -> dict[str, Any]:
        """The columns of a part of the table, as they are scattered."""
        import pyarrow as pa
        from pyarrow import compute as pc

        targets, asked = self._votes(rows)
        columns: dict[str, Any] = {"row": pa.array(rows.numbers), "targets": _lists(targets)}
        if asked is not None:
            columns["asked"] = _lists(asked)
        if self.parts:
            columns["name"] = pa.array([rows.name(row, self.parts) for row in range(len(rows.numbers))], pa.string())
        if rows.paths is not None:
            columns["path"] = pa.array(rows.paths, pa.string())
        if rows.images is not None:
            data = pc.struct_field(rows.images, "bytes") if pa.types.is_struct(rows.images.type) else rows.images
            columns[IMAGE] = data.cast(pa.large_binary())  # files of one table may write it in different ways
        return columns

    def _votes(self, rows: Rows) -> tuple[np.ndarray, np.ndarray | None]:
        targets = np.full((len(rows.numbers), len(self.tree.columns)), np.nan, np.float32)
        asked = np.zeros((len(rows.numbers), len(self.tree.questions)), np.float32) if self.asked else None
        there, fractions = self.catalogue.fractions(rows, self.estimated)
        if fractions is not None:
            voted = ~fractions.empty
            targets[there] = fractions.targets[voted]
            if asked is not None and fractions.asked is not None:
                asked[there] = fractions.asked[voted]
        return targets, asked

    def part(self, rows: np.ndarray) -> Part:
        import pyarrow as pa

        folder, group, slot = self.scattered.folder, self.scattered.group, self.scattered.slot
        assert folder is not None  # `prepare` comes first
        tables, order = [], []
        for number in np.unique(group[rows]).tolist():
            here = np.flatnonzero(group[rows] == number)
            slots = slot[rows[here]]
            table = take(path_of(folder, number), slots, IMAGE)
            tables.append(table.append_column("slot", pa.array(slots)).append_column("group", pa.array([number] * len(here))))
            order.append(here)
        if not tables:
            return Part(ListingBuilder().listing(), np.zeros((0, len(self.tree.columns)), np.float32), self._no_counts())
        whole = pa.concat_tables(tables).take(pa.array(np.argsort(np.concatenate(order))))
        asked = _matrix(whole.column("asked"), len(self.tree.questions)) if self.asked else None
        return Part(self._listing(rows, whole, folder), _matrix(whole.column("targets"), len(self.tree.columns)), asked)

    def _no_counts(self) -> np.ndarray | None:
        return np.zeros((0, len(self.tree.questions)), np.float32) if self.asked else None

    def _listing(self, rows: np.ndarray, whole: Any, folder: Path) -> Listing:
        images, table = ListingBuilder(), self.catalogue.table.path
        ids = self.galaxies.ids[rows].tolist()
        columns = {
            name: whole.column(name).to_pylist()
            for name in ("row", "slot", "group", "path", "name")
            if name in whole.column_names
        }
        for place, galaxy_id in enumerate(ids):
            if self.catalogue.image:
                images.enter(place_of(path_of(folder, columns["group"][place]), table, b""))
                images.add(galaxy_id, b"row %d" % columns["row"][place], columns["slot"][place], 0, 0, 0, EMBEDDED, True)
                continue
            self._add_file(images, galaxy_id, columns["path"][place])
        return images.listing(self.parts, columns.get("name"))

    def _add_file(self, images: ListingBuilder, galaxy_id: int, path: str) -> None:
        """Add the image of a row that names a file."""
        root = self.catalogue.root
        above, slash, name = path.rpartition("/")
        images.enter(place_of(Path(root), root, os.fsencode(above + slash)))
        if os.path.isfile(os.path.join(root, path)):
            status = os.stat(os.path.join(root, path))
            images.add(galaxy_id, os.fsencode(name), status.st_ctime_ns, 0, status.st_size, 0, PLAIN, True)
        else:
            images.add(galaxy_id, os.fsencode(name), 0, 0, 0, 0, MISSING, True)

    def _fits_rows(self) -> np.ndarray:
        """The rows of the table that name FITS files."""
        paths = itertools.chain.from_iterable(given(rows.paths) for rows in self.catalogue.rows(votes=False))
        return np.fromiter((row for row, path in enumerate(paths) if is_fits(path)), np.int64)

    def fits_images(self) -> Listing:
        images = ListingBuilder()
        if self.catalogue.path:
            chosen = {*evenly_spaced(self._fits_rows()).tolist()}
            start = 0
            for rows in self.catalogue.rows(votes=False):
                for row, path in enumerate(given(rows.paths)):
                    if start + row in chosen:
                        self._add_file(images, start + row, path)
                start += len(rows.numbers)
        return images.listing()

    def summary(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.catalogue.table.sha256.encode("ascii"))
        for column, kind in ((self.galaxies.ids, "<i8"), (self.galaxies.kept, "<i1")):
            digest.update(column.astype(kind).tobytes())
        labelled = int(self.galaxies.labelled.sum())
        return {
            **({"asked": "assumed" if self.estimated else "counted"} if self.asked else {}),
            **({"named": True} if self.named else {}),
            "listing": digest.hexdigest(),
            "images": len(self.order),
            "votes": labelled,
            "votes_without_image": 0,
            "images_without_votes": len(self.order) - labelled,
            "kept_splits": int((self.galaxies.kept >= 0).sum()),
        }

    def warnings(self) -> Iterator[str]:
        yield from map(str, self.oddities)
        yield from self.catalogue.remarks
        if not self.layout:
            yield f"{self.path}: no row has votes: all {len(self.order):,} galaxies are unlabelled"


def _lists(values: np.ndarray) -> Any:
    """A matrix, float32 (rows, n), as a pyarrow array of lists."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _matrix(column: Any, width: int) -> np.ndarray:
    """The inverse of `_lists`."""
    flat = column.combine_chunks().flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float32).reshape(-1, width)
