"""Rows scattered into Arrow files, one for each group of shards, so that a shard's rows can be read without the others."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, Self

import numpy as np

# At most so many files are written at a time.
GROUPS = 128
_NOWHERE = np.iinfo(np.uint16).max
PREFIX = "rows-"


class Scatter:
    """Writes the rows of a stream to the files of their groups. Use it in a `with` statement, which completes the files, or
    removes them after an error.

    group: uint16 (rows,), the group of each row in the order of the stream, from `nowhere` for rows that no shard needs. When
    all is written, `slot`, uint32 (rows,), is the place of each row in its file.
    """

    def __init__(self, scratch: Path, group: np.ndarray) -> None:
        self.folder = Path(mkdtemp(prefix=PREFIX, dir=scratch))
        self.slot = np.zeros(len(group), np.uint32)
        self._group = group
        self._written = np.zeros(GROUPS, np.int64)
        self._writers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        complete = False
        try:
            for writer in self._writers.values():
                writer.close()
            complete = error is None
        finally:
            if not complete:
                shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, first: int, columns: Mapping[str, Any]) -> None:
        """Write consecutive rows, from row `first` of the stream on. columns: name -> pyarrow array, in every call the same."""
        import pyarrow as pa

        batch = pa.table(dict(columns))
        here = self._group[first : first + len(batch)]
        order = np.argsort(here, kind="stable")
        starts = np.flatnonzero(np.diff(here[order], prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
            group, rows = int(here[order[start]]), order[start:stop]
            if group == _NOWHERE:
                continue
            self.slot[first + rows] = self._written[group] + np.arange(len(rows))
            self._written[group] += len(rows)
            self._writer(group, batch.schema).write_table(batch.take(pa.array(rows)).combine_chunks())

    def _writer(self, group: int, schema: Any) -> Any:
        import pyarrow as pa

        if group not in self._writers:
            self._writers[group] = pa.ipc.new_file(str(path_of(self.folder, group)), schema)
        return self._writers[group]


@dataclass
class Scattered:
    """Where rows lie that were scattered: the folder, None if there is none, and the group and slot of each galaxy."""

    folder: Path | None = None
    group: np.ndarray = field(default_factory=lambda: nowhere(0))
    slot: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))

    def place(self, folder: Path, group: np.ndarray, slot: np.ndarray) -> None:
        """Set all of it."""
        self.folder, self.group, self.slot = folder, group, slot

    def remove(self) -> None:
        """Remove the files."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None


def nowhere(rows: int) -> np.ndarray:
    """A `group` in which no row is needed yet."""
    return np.full(rows, _NOWHERE, np.uint16)


def path_of(folder: Path, group: int) -> Path:
    """The file of a group."""
    return folder / f"{group:05d}.arrow"


def take(path: Path, slots: np.ndarray, without: str) -> Any:
    """The rows in these places of a file as a pyarrow Table, without one column, which is not read."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        names = pa.ipc.open_file(source).schema.names
        fields = [place for place, name in enumerate(names) if name != without]
        file = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=fields))
        return file.read_all().take(pa.array(slots)).combine_chunks()
