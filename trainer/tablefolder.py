"""A table of predictions as a folder of Parquet files, `--out NAME.parquet`: a data set for pyarrow, pandas, DuckDB or Spark.

    part-00000.parquet    the first 1,048,576 galaxies of the table, and so on

The columns are those of the CSV, in its order: the galaxy (int64, or string if galaxies have names), the fractions (float32),
and any others: float64 with the nine decimals of the CSV, or string. The metadata of each schema hold, as JSON under the key
galaxy-zoo-vgg16, what was predicted with which models and `columns`. By these, files of others are recognised.
"""

import itertools
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tfrecords.dataset import to_json
from tfrecords.errors import ConfigError
from tfrecords.files import atomic_file, real_folder, sync_folder
from tfrecords.tree import Tree
from trainer.tables import ExtraColumns, Predictions, refuse_other_table, refuse_reserved, table_header

SUFFIX = ".parquet"
# Galaxies in a file: 160 MB, of which a hundred hold a survey of 10^8.
FILE = 1 << 20
# Galaxies in a row group: 5 MB, or 34 MB with the columns of every flag.
GROUP = 1 << 15
KIND = "predictions"
# In the work folder: the new table, and an earlier one that it has replaced.
NEW, REPLACED = "table", "replaced"
_NAME = re.compile(r"part-\d{5,}\.parquet")
_KEY = b"galaxy-zoo-vgg16"


def is_folder_of_tables(path: Path) -> bool:
    """Whether a table at this path is a folder of Parquet files, and not a CSV file."""
    return path.suffix.lower() == SUFFIX


def _is_ours(path: Path) -> bool:
    """Whether a file was written by `write_folder`, with the columns that it has now."""
    import pyarrow as pa
    from pyarrow import parquet

    if not _NAME.fullmatch(path.name) or path.is_symlink() or not path.is_file():
        return False
    try:
        schema = parquet.read_schema(path)
        about = json.loads((schema.metadata or {})[_KEY])
        return bool(about["kind"] == KIND and about["columns"] == schema.names)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return False


def refuse_other_predictions(path: Path, tree: Tree | None = None, flag: str = "--out") -> None:
    """Raise ConfigError if `path` exists and is not a table of predictions, in either form, or is reserved for other files."""
    if not is_folder_of_tables(path):
        refuse_other_table(path, tree, flag)
        return
    refuse_reserved(path, "", flag)
    if not os.path.lexists(path):
        return
    advice = f"choose another {flag}, or move it elsewhere"
    if path.is_symlink() or not path.is_dir():
        raise ConfigError(f"{path}: exists and is not a folder of predictions: {advice}")
    for name in sorted(os.listdir(path)):
        if not _is_ours(path / name):
            raise ConfigError(f"{path / name}: is not a table of predictions that this program wrote: {advice}")


def _schema(tree: Tree, named: bool, extra: ExtraColumns, about: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    galaxy, *answers = table_header(tree)
    types = [(galaxy, pa.string() if named else pa.int64()), *((name, pa.float32()) for name in answers)]
    types += [(name, pa.float64() if name in extra.numbers else pa.string()) for name in extra.names]
    return pa.schema(types, {_KEY: to_json({**about, "kind": KIND, "columns": [name for name, _ in types]})})


def _table(schema: Any, predictions: Predictions, extra: ExtraColumns) -> Any:
    import pyarrow as pa

    galaxies = predictions.galaxy_ids if predictions.names is None else predictions.names
    columns = [pa.array(galaxies, schema.field(0).type), *map(pa.array, predictions.predicted.T)]
    for name, words in zip(extra.names, zip(*extra.rows, strict=True), strict=True):
        values = [float(word) if word else None for word in words] if name in extra.numbers else words
        columns.append(pa.array(values, schema.field(len(columns)).type))
    return pa.Table.from_arrays(columns, schema=schema)


def _grouped(tables: Iterable[Any]) -> Iterator[Any]:
    """The same rows in tables of GROUP rows; the last may have fewer."""
    import pyarrow as pa

    waiting: list[Any] = []
    rows = 0
    for table in tables:
        while table.num_rows:
            some = table.slice(0, GROUP - rows)
            table = table.slice(some.num_rows)
            waiting.append(some)
            rows += some.num_rows
            if rows == GROUP:
                yield pa.concat_tables(waiting)
                waiting, rows = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def write_folder(
    tree: Tree, blocks: Iterable[tuple[Predictions, ExtraColumns]], path: Path, work: Path, about: Mapping[str, Any]
) -> None:
    """Write a table as a folder, from at least one block of its rows, all with the same extra columns.

    The folder appears when it is complete, in place of an earlier one. work: a locked folder beside it, for the unfinished one.
    about: what the metadata hold, as JSON. Raises ConfigError if `path` holds anything that this function did not write.
    """
    from pyarrow import parquet

    for name in (NEW, REPLACED):
        shutil.rmtree(work / name, ignore_errors=True)  # of a command that was killed
    real_folder(work / NEW)
    first, blocks = _peeked(blocks)
    schema = _schema(tree, first[0].names is not None, first[1], about)
    groups = _grouped(_table(schema, predictions, extra) for predictions, extra in blocks)
    options = {"compression": "zstd", "use_dictionary": _words(schema), "write_page_checksum": True}
    for number in itertools.count():
        several = itertools.islice(groups, FILE // GROUP)
        group = next(several, None)
        if group is None:
            break
        with (
            atomic_file(work / NEW / f"part-{number:05d}{SUFFIX}") as file,
            parquet.ParquetWriter(file, schema, **options) as writer,
        ):
            for rows in itertools.chain([group], several):
                writer.write_table(rows, row_group_size=GROUP)
    _install(path, work, tree)


def _peeked(blocks: Iterable[tuple[Predictions, ExtraColumns]]) -> tuple[Any, Iterator[tuple[Predictions, ExtraColumns]]]:
    """The first block, and all blocks."""
    following = iter(blocks)
    first = next(following)
    return first, itertools.chain([first], following)


def _words(schema: Any) -> list[str]:
    """The columns of words that repeat, for which a dictionary saves space: all but the galaxies."""
    return [column.name for column in schema if str(column.type) == "string" and column.name != schema.names[0]]


def _install(path: Path, work: Path, tree: Tree) -> None:
    """Put the new folder in its place. A kill between the two steps leaves both in the work folder, for the same command."""
    refuse_other_predictions(path, tree)  # hours may have passed
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.rename(work / REPLACED)
    (work / NEW).rename(path)
    sync_folder(path.parent)
