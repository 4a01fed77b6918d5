"""Read a table of predictions of any galaxies, in either form that `trainer predict` writes, also with columns of others."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfrecords.errors import ConfigError, squeezed
from tfrecords.text import cell
from tfrecords.tree import Tree
from trainer.tablefolder import is_folder_of_tables

# How far rounding may take a predicted fraction beyond 0 and 1.
_ROUNDING = 1e-6
_PREDICT = "give a table that trainer predict wrote for this dataset"


@dataclass(frozen=True)
class PredictedTable:
    """A table of predictions of any galaxies: their names as its first column shows them, and `predicted` float64 (rows, n).

    others: the columns that are not of the tree.
    """

    galaxies: list[str]
    predicted: np.ndarray
    others: tuple[str, ...]


def _check_header(path: Path, header: list[str], tree: Tree) -> None:
    if missing := [column for column in tree.columns if column not in header]:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConfigError(f"{path}: lacks the column {missing[0]}{others} of the decision tree {tree.name}: {_PREDICT}")
    if repeated := [column for column in tree.columns if header.count(column) > 1]:
        raise ConfigError(f"{path}: has more than one column {repeated[0]}: {_PREDICT}")
    if header[0] in tree.index:
        raise ConfigError(f"{path}: its first column, {header[0]}, does not name the galaxies: {_PREDICT}")


def _read_rows(path: Path, tree: Tree) -> tuple[list[str], np.ndarray, list[str]]:
    """The galaxies, their fractions and the names of all columns of a CSV file."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: is not a table in CSV ({squeezed(error)}): {_PREDICT}") from error
    _check_header(path, header, tree)
    names = [f"f{place}" for place in (0, *map(header.index, tree.columns))]  # as Arrow calls columns without a header
    try:
        table = arrow_csv.read_csv(
            path,
            arrow_csv.ReadOptions(skip_rows=1, autogenerate_column_names=True, use_threads=False),  # so that errors name a row
            convert_options=arrow_csv.ConvertOptions(
                column_types={name: pa.float64() if place else pa.string() for place, name in enumerate(names)},
                include_columns=names,
                null_values=[""],
            ),
        )
    except (pa.ArrowException, KeyError) as error:
        raise ConfigError(f"{path}: has no rows, or is damaged ({squeezed(error)}): {_PREDICT}") from error
    columns = [column.to_numpy() for column in table.columns[1:]]
    return table.column(0).to_pylist(), np.stack(columns, axis=1), header


def _read_folder(path: Path, tree: Tree) -> tuple[list[str], np.ndarray, list[str]]:
    """The same of a folder of Parquet files, as the CSV would show it."""
    import pyarrow as pa
    import pyarrow.dataset as arrow_dataset

    try:
        files = arrow_dataset.dataset(path)
        _check_header(path, files.schema.names or [""], tree)
        table = files.to_table([files.schema.names[0], *tree.columns])
        columns = [np.round(column.to_numpy().astype(np.float64), 9) for column in table.columns[1:]]
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: is not a folder of predictions, or is damaged ({squeezed(error)}): {_PREDICT}") from error
    galaxies = table.column(0).to_pylist()
    return (
        [cell(name) if isinstance(name, str) else str(name) for name in galaxies],
        np.stack(columns, axis=1),
        files.schema.names,
    )


def read_predicted(path: Path, tree: Tree) -> PredictedTable:
    """Read a table that `trainer predict` wrote, CSV or a folder, with any added columns. The first column names the galaxies.

    Raises ConfigError unless it has all columns of the tree, one row for each galaxy, and values from 0 to 1.
    """
    read = _read_folder if path.exists() and is_folder_of_tables(path) else _read_rows
    galaxies, predicted, header = read(path, tree)
    if repeated := [name for name, count in Counter(galaxies).items() if count > 1][:1]:
        raise ConfigError(f"{path}: has several rows for galaxy {repeated[0]}: {_PREDICT}")
    for row, column in np.argwhere(~((predicted >= -_ROUNDING) & (predicted <= 1 + _ROUNDING)))[:1].tolist():
        value = "no value" if np.isnan(predicted[row, column]) else f"{predicted[row, column]:g}, which is not from 0 to 1,"
        raise ConfigError(f"{path}: galaxy {galaxies[row]} has {value} in column {tree.columns[column]}: {_PREDICT}")
    return PredictedTable(galaxies, predicted, tuple(name for name in header[1:] if name not in tree.index))
