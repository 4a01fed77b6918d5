"""The work folder of a table of predictions, `FILE.csv.parts` beside it, from which the same command resumes after a kill.

    job.json              what is predicted with which models, sealed
    part-00000.parquet    the predictions for the first galaxies of the source, as tables list them, and so on: see `rowfile`

The metadata of a part hold `job`, a hash of job.json, the number of its rows, the images that it leaves out, and what was
noticed about them. Parts are written atomically. The folder is removed once the table is there.
"""

import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tfrecords.dataset import to_json
from tfrecords.errors import ConfigError, RunError
from tfrecords.files import write_text
from tfrecords.locks import locked
from trainer.blocks import PredictedBlock, PredictedRows, rows_together
from trainer.images.cutouts import UnreadableImage
from trainer.inference import Noticed
from trainer.rowfile import merged_files, metadata_of, read_rows, sliced, write_rows
from trainer.sealing import seal, unseal

SUFFIX = ".parts"
_JOB = "job.json"
_KNOWN = re.compile(r"job\.json|part-\d{5,}\.parquet|merged-\d+-\d{5,}\.parquet|\..*\.partial")
_ADVICE = "repeat the command that began it, or remove this folder, or choose another"


class TableParts:
    """The parts of a table, in a folder that is locked by this process.

    width: the outputs for each galaxy. job: what is predicted with which models, as JSON. `flag`: the flag of the table.
    """

    def __init__(self, folder: Path, width: int, job: dict[str, Any], flag: str = "--out") -> None:
        """Raises ConfigError if the folder holds parts of another job."""
        self.folder = folder
        self._width = width
        self._text = seal(job)
        self._digest = hashlib.sha256(self._text.encode("utf-8")).hexdigest()
        path = folder / _JOB
        if not path.is_file():
            return
        try:
            other = unseal(path.read_text("utf-8"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: damaged ({error}): remove the folder {folder}, or choose another {flag}") from error
        if changed := [name for name in sorted({*job, *other}) if to_json(job.get(name)) != to_json(other.get(name))]:
            what = ", ".join(changed)
            raise ConfigError(f"{folder}: holds unfinished predictions of another command (other {what}): {_ADVICE} {flag}")

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    def write(self, number: int, blocks: Sequence[PredictedBlock]) -> None:
        """Write a part."""
        if not (self.folder / _JOB).is_file():
            write_text(self.folder / _JOB, self._text)
        rows = rows_together(block.rows for block in blocks).in_table_order()
        rejected = [image for block in blocks for image in block.rejected]
        noticed = sum((block.noticed for block in blocks), Noticed())
        metadata = {
            "job": self._digest,
            "rows": len(rows.galaxy_ids),
            "rejected": rejected,
            "marks": noticed.marks,
            "notes": noticed.notes,
            "enlarged": noticed.enlarged,
        }
        write_rows(self._path(number), sliced(rows), self._width, metadata)

    def finished(self, number: int, galaxies: int) -> bool:
        """Whether a part is there, of this job, undamaged, and accounts for this number of galaxies of the source."""
        path = self._path(number)
        metadata = metadata_of(path)
        if metadata.get("job") != self._digest or metadata["rows"] + len(metadata["rejected"]) != galaxies:
            return False
        try:
            return sum(len(rows.galaxy_ids) for rows in read_rows(path)) == metadata["rows"]
        except RunError:
            return False

    def rejected(self, parts: int) -> Iterator[UnreadableImage]:
        """The images that the first `parts` parts leave out."""
        for number in range(parts):
            for image in metadata_of(self._path(number))["rejected"]:
                yield UnreadableImage(*image)

    def noticed(self, parts: int) -> Noticed:
        """What was noticed about the images of the first `parts` parts."""
        total = Noticed()
        for number in range(parts):
            metadata = metadata_of(self._path(number))
            images = tuple(UnreadableImage(*image) for image in metadata["rejected"])
            marks, notes = Counter(metadata["marks"]), Counter(metadata["notes"])
            total += Noticed(marks, notes, metadata["enlarged"], len(images), images)
        return total

    def joined_rows(self, parts: int, ordered: bool) -> Iterator[PredictedRows]:
        """The rows of the first `parts` parts as tables list them, a block at a time.

        ordered: the parts follow one another so. Raises RunError if a part is damaged.
        """
        paths = [self._path(number) for number in range(parts)]
        if ordered:
            for path in paths:
                yield from read_rows(path)
        else:
            yield from merged_files(paths, self.folder, self._width)

    def forget(self) -> None:
        """Let the folder be removed when its lock ends."""
        (self.folder / _JOB).unlink(missing_ok=True)


@contextlib.contextmanager
def locked_parts(table: Path, width: int, job: dict[str, Any], flag: str = "--out") -> Iterator[TableParts]:
    """The parts of the table at this path, which no other process uses within the block.

    An interrupted block leaves them. Raises ConfigError if another process uses them, they are of another job, or the folder is
    not ours.
    """
    folder = table.with_name(f"{table.name}{SUFFIX}")
    busy = f"another command writes {table.name}: wait until it ends, or choose another {flag}"
    with locked(folder, busy, _KNOWN, keep=(_JOB,)):
        yield TableParts(folder, width, job, flag)
