"""Pair a table of predictions with the votes of its galaxies, a block at a time: memory does not grow with their number.

The table lists galaxies by name or number, shards hold them in a random order. So votes are sorted first: in files beside the
table, `TABLE.csv.votes/`, that are merged. The folder is removed at the end.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from tfrecords.dataset import Dataset
from tfrecords.errors import RunError, squeezed
from tfrecords.locks import locked
from tfrecords.tree import Tree
from trainer.blocks import PredictedRows, rows_together
from trainer.rowfile import merged_files, sliced, write_rows
from trainer.tables import Predictions, concentration_columns, first_column

# Galaxies whose votes are sorted in memory, 5 MB of votes, and galaxies in a block.
_SORTED, _BLOCK = 32_768, 16_384
_KNOWN = re.compile(r"votes-\d{5,}\.parquet|merged-\d+-\d{5,}\.parquet|\..*\.partial")
_BUSY = "another command reads the votes of these galaxies: wait until it ends"
_AGAIN = "remove it, and run the same command again"


def paired_blocks(path: Path, dataset: Dataset, split: str, limit: int = 0) -> Iterator[Predictions]:
    """The predictions of a table as `read_csv` reads them, with their votes, a block at a time, as the table lists them.

    Raises RunError if the table is damaged, or lists other galaxies than the first `limit` (0: all) of the split.
    """
    work = path.with_name(f"{path.name}.votes")
    with locked(work, _BUSY, _KNOWN):
        width = dataset.votes_width
        files = []
        for number, rows in enumerate(_voted(dataset, split, limit)):
            files.append(work / f"votes-{number:05d}.parquet")
            write_rows(files[-1], sliced(rows.in_table_order()), width, {})
        yield from _paired(path, dataset, merged_files(files, work, width))


def _voted(dataset: Dataset, split: str, limit: int) -> Iterator[PredictedRows]:
    """The votes of a split in stored order, with the numbers of answers, some shards at a time."""
    from tfrecords.reader import votes_of

    left, several = dataset.galaxies(split, limit), []
    shards = [shard for shard in dataset.shards if shard.split == split]
    for place, shard in enumerate(shards, 1):
        several.append(shard)
        examples = min(sum(one.examples for one in several), left)
        if examples and (place == len(shards) or examples == left or examples >= _SORTED):
            ids, targets, asked, names = votes_of(replace(dataset, shards=tuple(several)), split, examples)
            yield PredictedRows(ids, targets if asked is None else np.concatenate([targets, asked], axis=1), names)
            left, several = left - examples, []


def _paired(path: Path, dataset: Dataset, merged: Iterator[PredictedRows]) -> Iterator[Predictions]:
    from tfrecords.reader import apart

    table, answers = _TableRows(path, dataset.tree), len(dataset.tree.columns)
    for rows in _longer(merged):
        listed, values = table.next_rows(len(rows.galaxy_ids))
        if listed != first_column(rows.galaxy_ids, rows.names):
            raise RunError(f"{path}: does not list the galaxies of this split: {_AGAIN}")
        targets, asked = apart(rows.outputs, dataset)
        concentrations = values[:, answers:] if values.shape[1] > answers else None
        yield Predictions(
            rows.galaxy_ids, values[:, :answers], targets, asked, concentrations, dataset.tree, rows.names
        )  # fmt: skip
    if table.next_rows(1)[0]:
        raise RunError(f"{path}: does not list the galaxies of this split: {_AGAIN}")


def _longer(merged: Iterator[PredictedRows]) -> Iterator[PredictedRows]:
    """The same rows in longer blocks."""
    several: list[PredictedRows] = []
    for rows in merged:
        several.append(rows)
        if sum(len(part.galaxy_ids) for part in several) >= _BLOCK:
            yield rows_together(several)
            several = []
    if several:
        yield rows_together(several)


class _TableRows:
    """The rows of a table that `evaluate` wrote, some at a time. Raises RunError if it is damaged."""

    def __init__(self, path: Path, tree: Tree) -> None:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        self._path = path
        columns = [tree.table_id, *tree.columns]
        sure = concentration_columns(np.zeros((0, len(tree.questions))), tree).names
        try:
            with path.open(encoding="utf-8", newline="") as file:
                header = next(csv.reader(file), [])
            if header not in (columns, [*columns, *sure]):
                raise RunError(f"{path}: does not list the galaxies of this split: {_AGAIN}")
            types = {f"f{place}": pa.float64() if place else pa.string() for place in range(len(header))}
            self._reader = arrow_csv.open_csv(
                path,
                arrow_csv.ReadOptions(skip_rows=1, autogenerate_column_names=True, use_threads=False),
                convert_options=arrow_csv.ConvertOptions(column_types=types),
            )
        except (pa.ArrowException, OSError, ValueError, csv.Error) as error:
            raise self._damaged(error) from error
        self._names: list[str] = []
        self._values = np.zeros((0, len(header) - 1), np.float32)

    def _damaged(self, error: Exception) -> RunError:
        return RunError(f"{self._path}: damaged ({squeezed(error)}): {_AGAIN}")

    def next_rows(self, number: int) -> tuple[list[str], np.ndarray]:
        """The first column of the next rows, and their values, float32 (rows, columns); fewer than `number` at the end."""
        import pyarrow as pa

        names, parts = self._names, [self._values]
        while len(names) < number:
            try:
                batch = self._reader.read_next_batch()
            except StopIteration:
                break
            except pa.ArrowException as error:
                raise self._damaged(error) from error
            names = names + batch.column(0).to_pylist()
            columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns[1:]]
            parts.append(np.stack(columns, axis=1).astype(np.float32))
        values = np.concatenate(parts)
        self._names, self._values = names[number:], values[number:].copy()
        return names[:number], values[:number]
