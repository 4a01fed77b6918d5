"""The work folder of a table of predictions, `FILE.csv.parts` beside it, from which the same command resumes after a kill.

    job.json              what is predicted with which models, sealed
    part-00000.parquet    the predictions for the first galaxies of the source, as tables list them, and so on: see `rowfile`
    share-3-of-100/       unfinished files of `--part 3/100`, and its lock
    listing-HASH.npz      the images of a source, for the processes that predict shares of them: see `listings`

The metadata of a part hold `job`, a hash of job.json, the number of its rows, the images that it leaves out, and what was
noticed about them. Parts are written atomically. They have the same bytes whoever writes them, so where a file system has no
locks, two processes at worst do the same work. The folder is removed once the table is there.
"""

import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfrecords.dataset import to_json
from tfrecords.errors import ConfigError, RunError
from tfrecords.files import exact_text, write_text
from tfrecords.locks import locked, one_at_a_time
from tfrecords.shares import JobShare
from trainer.blocks import PredictedBlock, PredictedRows, rows_together
from trainer.images.cutouts import UnreadableImage
from trainer.inference import Noticed
from trainer.rowfile import merged_files, metadata_of, read_rows, sliced, write_rows
from trainer.sealing import seal, unseal
from trainer.tablefolder import NEW, REPLACED

SUFFIX = ".parts"
_JOB, _TURN = "job.json", "job.lock"
_PARTIAL = re.compile(r"\..*\.partial")
_KNOWN = re.compile(
    rf"job\.(json|lock)|part-\d{{5,}}\.parquet|merged-\d+-\d{{5,}}\.parquet|share-\d+-of-\d+(-[0-9a-f]{{16}})?|"
    rf"listing-[0-9a-f]{{16}}\.(npz|lock)|{NEW}|{REPLACED}|{_PARTIAL.pattern}"
)
_ADVICE = "repeat the command that began it, or remove this folder, or choose another"


class PartsFolder(NamedTuple):
    """A work folder, locked by this process. flag: that of its table. unfinished: where a share keeps unfinished files."""

    path: Path
    flag: str = "--out"
    unfinished: Path | None = None

    @property
    def shared(self) -> bool:
        """Whether other processes may write other parts to it."""
        return self.unfinished is not None


class TableParts:
    """The parts of a table in a work folder.

    width: the outputs for each galaxy. job: what is predicted with which models, as JSON.
    """

    def __init__(self, folder: PartsFolder, width: int, job: dict[str, Any]) -> None:
        """Raises ConfigError if the folder holds parts of another job."""
        self.folder = folder.path
        self.job = job
        self._unfinished = folder.unfinished
        self._width = width
        self._text = seal(job)
        self._digest = hashlib.sha256(self._text.encode("utf-8")).hexdigest()
        if not folder.shared:
            self._refuse_other_job(folder)
            return
        # Before the first part: else two processes with other settings would both work until then.
        with one_at_a_time(self.folder / _TURN, f"{self.folder}: another part begins: waiting for it"):
            self._refuse_other_job(folder)
            self._begin()

    def _refuse_other_job(self, folder: PartsFolder) -> None:
        path, flag = self.folder / _JOB, folder.flag
        if not path.is_file():
            return
        try:
            other = unseal(exact_text(path))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path}: damaged ({error}): remove the folder {self.folder}, or choose another {flag}"
            ) from error
        names = sorted({*self.job, *other})
        if changed := [name for name in names if to_json(self.job.get(name)) != to_json(other.get(name))]:
            what = ", ".join(changed)
            raise ConfigError(
                f"{self.folder}: holds unfinished predictions of another command (other {what}): {_ADVICE} {flag}"
            )

    def _begin(self) -> None:
        if not (self.folder / _JOB).is_file():
            write_text(self.folder / _JOB, self._text, self._unfinished)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    def write(self, number: int, blocks: Sequence[PredictedBlock]) -> None:
        """Write a part."""
        self._begin()
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
        write_rows(self._path(number), sliced(rows), self._width, metadata, self._unfinished)

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

    def rejected(self, numbers: Iterable[int]) -> Iterator[UnreadableImage]:
        """The images that parts leave out."""
        for number in numbers:
            for image in metadata_of(self._path(number))["rejected"]:
                yield UnreadableImage(*image)

    def noticed(self, numbers: Iterable[int]) -> Noticed:
        """What was noticed about the images of parts."""
        total = Noticed()
        for number in numbers:
            metadata = metadata_of(self._path(number))
            images = tuple(UnreadableImage(*image) for image in metadata["rejected"])
            marks, notes = Counter(metadata["marks"]), Counter(metadata["notes"])
            total += Noticed(marks, notes, metadata["enlarged"], len(images), images)
        return total

    def joined_rows(self, numbers: Iterable[int], ordered: bool) -> Iterator[PredictedRows]:
        """The rows of parts as tables list them, a block at a time.

        ordered: the parts follow one another so. Raises RunError if a part is damaged.
        """
        paths = [*map(self._path, numbers)]
        if ordered:
            for path in paths:
                yield from read_rows(path)
        else:
            yield from merged_files(paths, self.folder, self._width)

    def forget(self) -> None:
        """Let the folder be removed when its lock ends."""
        (self.folder / _JOB).unlink(missing_ok=True)


@contextlib.contextmanager
def locked_parts(table: Path, flag: str = "--out", share: JobShare | None = None) -> Iterator[PartsFolder]:
    """The work folder of the table at this path, which no other process uses within the block.

    share: other processes may use it for other shares, and only for these. An interrupted block leaves its parts. Raises
    ConfigError if another process uses the folder or the share, or the folder is not ours.
    """
    path = table.with_name(f"{table.name}{SUFFIX}")
    busy = f"another command writes {table.name}: wait until it ends, or choose another {flag}"
    with locked(path, busy, _KNOWN, keep=(_JOB,), shared=share is not None):
        if share is None:
            yield PartsFolder(path, flag)
            return
        unfinished = path / f"share-{share.number}-of-{share.total}"
        with locked(unfinished, f"another command predicts part {share}: wait until it ends, or run another part", _PARTIAL):
            yield PartsFolder(path, flag, unfinished)
