"""The state of a job on disk: its lock, its settings, the list of its files, and a receipt for each finished shard.

It is kept in the folder `.preprocess/` of the dataset, which is removed when the dataset is complete. A job with the same
settings and source resumes from it; any other job is refused. In the dataset's folder, only files that are listed in the
manifest or in `.preprocess/` are ever overwritten or removed.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from preprocess.records import METADATA, listed_in, parse_job, parse_receipt, receipt_text
from preprocess.shard import Receipt
from tfrecords import dataset, locks
from tfrecords.errors import ConfigError, DatasetError
from tfrecords.files import files_of_users, local_path, real_folder, sha256_file, write_text
from tfrecords.integrity import unchanged_shards
from tfrecords.shares import JobShare

WORK = ".preprocess"
_JOB = "job.json"
_FILES = "files.json"
_RECEIPTS = "receipts"
_UNFINISHED = "unfinished-"
_PLANNING = "planning"
# The names in the work folder, including those of copied zips and unfinished files.
_SHARE = re.compile(r"share-\d+-of-\d+")
_KNOWN = re.compile(
    rf"{re.escape(_JOB)}|{re.escape(_FILES)}|{_RECEIPTS}|{_UNFINISHED}.*|inner-.*|rows-.*|plan\.json|plan-.*|{_PLANNING}|"
    rf"{_SHARE.pattern}(-.*)?|\..*\.partial"
)
_BUSY = "another preprocess job is writing here: wait for it, or choose another --out"


def _listed(folder: Path) -> set[str]:
    """The files that a manifest or an unfinished job in the folder lists, restricted to names that this program gives.

    An edited manifest still counts; an unreadable one lists nothing.
    """
    # In this order: a job that ends in the meantime writes its manifest before it removes the work folder.
    files = _text(folder / WORK / _FILES)
    return listed_in(files, _text(folder / dataset.MANIFEST))


def _text(path: Path) -> str:
    """The text of a file; empty if it cannot be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return ""


def _refuse_others(folder: Path) -> None:
    """Raise ConfigError if `folder` is a file, or holds anything that this program did not write."""
    if local_path(folder).exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file: choose another --out")
    if not folder.is_dir():
        return
    there = files_of_users(folder)
    ours = {WORK, *(path.name for path in locks.leftovers(folder / WORK))}
    others = sorted(there - ours - _listed(folder))
    others = [name for name in others if os.path.lexists(folder / name)]  # some may have gone, with a job that has just ended
    if others:
        raise ConfigError(f"{folder}: holds other files ({others[0]}): choose an --out that is empty or new")


@contextmanager
def locked_job(folder: Path, shared: bool = False) -> Iterator[Path]:
    """Yield the job's work folder, locked for this process alone; the lock ends with the process, however it ends.

    shared: locked for the processes of a job array. Raises ConfigError if `folder` is a file, holds other files, or is in use
    by another job.
    """
    _refuse_others(folder)
    with locks.locked(folder / WORK, _BUSY, _KNOWN, keep=(_JOB, _FILES), shared=shared):
        _refuse_others(folder)
        yield folder / WORK


@contextmanager
def planning(folder: Path, work: Path) -> Iterator[bool]:
    """Wait until no other process of a job array plans, and keep them from it; yields whether that is so, as without locks."""
    with locks.one_at_a_time(work / _PLANNING, f"{folder}: waiting while another part lists the source") as is_alone:
        yield is_alone


@contextmanager
def locked_share(work: Path, share: JobShare) -> Iterator[Path]:
    """Yield a folder for the unfinished files of a share, locked for this process alone, and removed afterwards.

    Raises ConfigError if another process is at work on this share.
    """
    private = work / f"share-{share.number}-of-{share.total}"
    with locks.locked(private, f"part {share} is running already: wait until it ends", _KNOWN):
        locks.clear(private, _KNOWN)  # left by a process that was killed
        yield Path(mkdtemp(prefix=_UNFINISHED, dir=private))


def _list(folder: Path, work: Path, names: set[str]) -> None:
    """List files as ours before they are written, or before the manifest that lists them is removed."""
    write_text(work / _FILES, dataset.to_json(sorted(names | _listed(folder))))


def begin(folder: Path, work: Path, job: dict[str, Any], shards: Iterable[str]) -> None:
    """Record the job and the files that it writes, so that it can be resumed."""
    if not (work / _JOB).exists():
        _list(folder, work, {*shards, *METADATA})
        write_text(work / _JOB, dataset.to_json(job))
    real_folder(work / _RECEIPTS)


def new_unfinished(work: Path, planned: bool) -> Path:
    """A new folder for the unfinished files of a job that no other process works on; those of earlier ones are removed.

    It is new because a worker of a killed job may still be running on a cluster: it must not write where we do. planned: the
    images may lie in what was scattered for a shared plan.
    """
    scattered = "" if planned else "|rows-.*"
    locks.clear(work, re.compile(rf"{_UNFINISHED}.*|{_SHARE.pattern}(-.*)?{scattered}"))
    return Path(mkdtemp(prefix=_UNFINISHED, dir=work))


def begun(work: Path) -> dict[str, Any] | None:
    """The record of an interrupted job; None if there is none."""
    if not (work / _JOB).exists():
        return None
    return parse_job((work / _JOB).read_text("utf-8", "replace"), work / _JOB)


# Of jobs that were begun before trees were data.
_BEFORE = {"tree": "kaggle", "votes": "cumulative"}


def _of(job: dict[str, Any], part: str, name: str, other: dict[str, Any]) -> Any:
    """A value of a job; for a job that lacks it, the value that it had before it could be chosen."""
    if part == "settings" and name in _BEFORE and name not in job[part]:
        return _BEFORE[name] if other["source"].get("votes") else other[part].get(name)
    return job[part].get(name)


def difference_of_jobs(before: dict[str, Any], now: dict[str, Any], parts: tuple[str, ...] = ("settings", "tool")) -> str:
    """The differences between two jobs in these parts and the source, in words; empty if there are none."""
    changed = [
        f"{name} was {_of(before, part, name, now)}, now {now[part].get(name)}"
        for part in parts
        for name in sorted({*before[part], *now[part]})
        if _of(before, part, name, now) != now[part].get(name)
    ]
    if before["source"].get("listing") != now["source"]["listing"]:
        counts = [
            f"{name} were {before['source'].get(name)}, now {now['source'][name]}"
            for name in ("images", "votes")
            if before["source"].get(name) != now["source"][name]
        ]
        changed.append("the source has changed" + (f": {', '.join(counts)}" if counts else ""))
    return "; ".join(changed)


def refuse(place: object, state: str, what: str) -> None:
    """Raise ConfigError if `what`, a difference in words, is not empty."""
    if what:
        raise ConfigError(f"{place}: holds {state} ({what}): choose another --out, or replace it with --overwrite")


def remove_dataset(folder: Path, work: Path) -> None:
    """Remove a dataset or unfinished job, first the files that make it count as complete, and never any other file.

    Raises ConfigError, before anything is removed, if a metadata file has changed since it was written.
    """
    with suppress(DatasetError):  # no manifest, or an edited one, whose hashes cannot be trusted
        for name, digest in dataset.read_manifest(folder).files.items():
            if (folder / name).is_file() and sha256_file(folder / name) != digest:
                raise ConfigError(
                    f"{folder / name}: has changed since it was written: move it elsewhere, or choose another --out"
                )
    _list(folder, work, set())
    for name in sorted(_listed(folder), key=lambda name: (name not in METADATA, name != dataset.MANIFEST, name)):
        (folder / name).unlink(missing_ok=True)
    (work / _JOB).unlink(missing_ok=True)
    locks.clear(work, re.compile(rf"{_RECEIPTS}|plan\.json|plan-.*"))


def remove_work(work: Path) -> None:
    """Remove the work folder of a complete dataset."""
    locks.remove(work, _KNOWN)


def save_receipt(work: Path, receipt: Receipt) -> None:
    """Record that a shard is complete."""
    write_text(work / _RECEIPTS / f"{receipt.shard.name}.json", receipt_text(receipt))


def missing(work: Path, shards: Iterable[str]) -> int:
    """How many of these shards have no receipt yet."""
    held = {*os.listdir(work / _RECEIPTS)}
    return sum(f"{name}.json" not in held for name in shards)


def receipts(folder: Path, work: Path, shards: Iterable[str]) -> dict[str, Receipt]:
    """The receipts of these shards that are there and unchanged since they were written, by name."""
    held: list[Receipt] = []
    for name in sorted(shards):
        path = work / _RECEIPTS / f"{name}.json"
        if not path.is_file() or not (folder / name).is_file():
            continue
        if (receipt := parse_receipt(path.read_text("utf-8", "replace"))) is not None:
            held.append(receipt)
    unchanged = unchanged_shards(folder, [receipt.shard for receipt in held])
    return {receipt.shard.name: receipt for receipt in held if receipt.shard.name in unchanged}
