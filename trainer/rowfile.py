"""Files of predicted galaxies: Parquet, read in row groups, and merged so that memory does not grow with their number.

    galaxy_id  int64
    name       string                      null if galaxies are numbers
    outside    string                      null for records
    outputs    fixed_size_list<float32>    as `blocks.Ensemble` gives them

The metadata of the schema hold JSON under the key galaxy-zoo-vgg16. Every page has a checksum.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.errors import RunError, squeezed
from tfrecords.files import atomic_file
from trainer.blocks import PredictedRows, rows_together

# Galaxies in a row group, 0.4 MB.
GROUP = 2048
# Files that are merged at a time: each needs a row group in memory, and an open file.
FAN = 64
_KEY = b"galaxy-zoo-vgg16"
_COMPRESSION = {"compression": "zstd", "use_dictionary": ["outside"], "write_page_checksum": True}


def _schema(width: int, metadata: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    types = {
        "galaxy_id": pa.int64(),
        "name": pa.string(),
        "outside": pa.string(),
        "outputs": pa.list_(pa.float32(), width),
    }
    return pa.schema([*types.items()], {_KEY: json.dumps(metadata)})


def write_rows(
    path: Path, blocks: Iterable[PredictedRows], width: int, metadata: Mapping[str, Any], beside: Path | None = None
) -> None:
    """Write rows, a row group for each block. The file appears when it is complete. beside: as for `atomic_file`."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(width, metadata)
    with atomic_file(path, beside) as file, parquet.ParquetWriter(file, schema, **_COMPRESSION) as writer:
        for ids, outputs, *words in blocks:
            values = pa.array(np.ascontiguousarray(outputs, np.float32).ravel())
            columns = [
                pa.array(ids),
                *(pa.nulls(len(ids), pa.string()) if some is None else pa.array(some, pa.string()) for some in words),
                pa.FixedSizeListArray.from_arrays(values, type=schema.field("outputs").type),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=max(len(ids), 1))


def sliced(rows: PredictedRows) -> Iterator[PredictedRows]:
    """Rows in blocks of at most GROUP."""
    for start in range(0, len(rows.galaxy_ids), GROUP):
        yield rows.take(slice(start, start + GROUP))


def metadata_of(path: Path) -> dict[str, Any]:
    """The metadata of a file of rows; empty if it is none."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        content: dict[str, Any] = json.loads(parquet.read_schema(path).metadata[_KEY])
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return {}
    return content


def read_rows(path: Path) -> Iterator[PredictedRows]:
    """The rows of a file, a row group at a time. Raises RunError if the file is damaged."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                yield _rows(file.read_row_group(group, use_threads=False).combine_chunks())
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{path}: damaged ({squeezed(error)}): run the same command again") from error


def _rows(table: Any) -> PredictedRows:
    ids = table["galaxy_id"].to_numpy()
    names, marks = (table[name].to_numpy() if table[name].null_count == 0 else None for name in ("name", "outside"))
    outputs = np.concatenate([chunk.flatten().to_numpy() for chunk in table["outputs"].chunks] or [np.zeros(0, np.float32)])
    return PredictedRows(ids, outputs.reshape(len(ids), table.schema.field("outputs").type.list_size), names, marks)


def merged_rows(sources: Sequence[Iterator[PredictedRows]]) -> Iterator[PredictedRows]:
    """The rows of several sources, each in the order of tables, in that order. In memory: a block of each source."""
    waiting = dict(enumerate(sources))
    blocks: dict[int, PredictedRows] = {}
    while True:
        for number in [number for number in waiting if number not in blocks]:
            block = next(waiting[number], None)
            if block is None:
                del waiting[number]
            elif len(block.galaxy_ids):
                blocks[number] = block
        if waiting.keys() - blocks.keys():  # a block was empty
            continue
        if not blocks:
            return
        # No source has rows before this one that are not in `blocks`.
        last = min(block.keys[-1] for block in blocks.values())
        ready = []
        for number, block in sorted(blocks.items()):
            if stop := int(np.searchsorted(block.keys, last, side="right")):
                ready.append(block.take(slice(0, stop)))
                blocks[number] = block.take(slice(stop, None))
                if stop == len(block.galaxy_ids):
                    del blocks[number]
        yield from sliced(rows_together(ready).in_table_order())


def merged_files(paths: Sequence[Path], folder: Path, width: int) -> Iterator[PredictedRows]:
    """The rows of files, each in the order of tables, in that order.

    More than FAN files are first merged, FAN at a time, into files of `folder`, `merged-LEVEL-NUMBER.parquet`.
    """
    level, paths = 0, [*paths]
    while len(paths) > FAN:
        longer = []
        for number, first in enumerate(range(0, len(paths), FAN)):
            longer.append(folder / f"merged-{level}-{number:05d}.parquet")
            write_rows(longer[-1], merged_rows([*map(read_rows, paths[first : first + FAN])]), width, {})
            if level:
                for path in paths[first : first + FAN]:
                    path.unlink()
        level, paths = level + 1, longer
    yield from merged_rows([*map(read_rows, paths)])
