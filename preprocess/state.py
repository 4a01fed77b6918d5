"""What a job under way leaves on disk: its lock, its settings, a receipt per finished shard.

All of it is in the folder `.preprocess/` of the dataset, which goes when the dataset is complete. The same settings
and source go on from there, others are refused.
"""

import fcntl
import itertools
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TextIO

from preprocess.shard import Receipt, Rejected
from tfrecords import dataset
from tfrecords.dataset import Shard
from tfrecords.errors import ConfigError
from tfrecords.files import PARTIAL_SUFFIX, sha256_file, write_text

WORK = ".preprocess"
_JOB = "job.json"
_RECEIPTS = "receipts"
_UNFINISHED = "unfinished-"
_ATTEMPTS = 1000
_METADATA = (dataset.MANIFEST, dataset.DATASET_INFO, dataset.FEATURES, dataset.REJECTED, dataset.NAMES)


def _ours(name: str) -> bool:
    return name.removesuffix(PARTIAL_SUFFIX) in _METADATA or name.startswith((WORK, f"{dataset.NAME}-"))


def _is_here(lock: TextIO, work: Path) -> bool:
    """Whether the lock is that of the work folder, and not of an earlier one that was removed."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), os.stat(work / "lock"))
    except FileNotFoundError:
        return False


def _open_lock(work: Path) -> TextIO:
    """The lock file of a work folder, which is made where it is missing, and this process' alone.

    Another job may finish and remove its work folder between any two steps here; then the steps are taken again.
    """
    for attempt in itertools.count(1):
        try:
            work.mkdir(parents=True, exist_ok=True)
            lock = (work / "lock").open("w")
        except (FileNotFoundError, FileExistsError):
            if attempt == _ATTEMPTS:  # no other job: a folder cannot be made there
                raise
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_here(lock, work):
                return lock
        except BlockingIOError as error:
            lock.close()
            raise ConfigError(
                f"{work.parent}: another preprocess job is writing here: wait for it, or choose another --out"
            ) from error
        lock.close()
    raise AssertionError("itertools.count does not end")


def remove(work: Path) -> None:
    """Remove the work folder at once for all other jobs, which might else make their lock in what is left of it."""
    doomed = work.with_name(f"{WORK}-{secrets.token_hex(8)}")
    work.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)  # another job may be removing it too, as a leftover


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """The job's work folder, held by this process alone; the lock ends with the process, however that ends.

    Raises ConfigError where `folder` is a file, holds files of somebody else, or another job is at work in it.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file: choose another --out")
    foreign: list[str] = []
    with suppress(FileNotFoundError):
        foreign = [name for name in os.listdir(folder) if not _ours(name)]
    if foreign:
        raise ConfigError(f"{folder}: holds other files ({sorted(foreign)[0]}): choose an --out that is empty or new")
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    work = folder / WORK
    with _open_lock(work) as lock:
        for leftover in folder.glob(f"{WORK}-*"):  # of a job that was killed at its very end
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            yield work
        finally:
            # Refused before it began: leave no trace. A finished job's folder is gone, or another's by now.
            if _is_here(lock, work) and not (work / _JOB).exists():
                remove(work)
                with suppress(OSError):
                    for path in new:
                        path.rmdir()


def begin(work: Path, job: dict[str, Any]) -> Path:
    """Write down what the job is: from here on it can be resumed. Gives a new folder for unfinished shards.

    A worker of a killed job that is still at work, as one of a cluster may be, thus never writes where we do.
    """
    if not (work / _JOB).exists():
        write_text(work / _JOB, dataset.to_json(job))
    (work / _RECEIPTS).mkdir(exist_ok=True)
    for leftover in work.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover)
    return Path(mkdtemp(prefix=_UNFINISHED, dir=work))


def begun(work: Path) -> dict[str, Any] | None:
    """What an interrupted job was, None where there is none."""
    if not (work / _JOB).exists():
        return None
    job: dict[str, Any] = json.loads((work / _JOB).read_text("utf-8"))
    return job


def unchanged_since(work: Path, src: Path) -> int:
    """Files of the source that last changed before this time, in ns since 1970, are as they were when the job began.

    0, which none is before, where the job began with a source at another path. Two seconds are left to file systems
    that count time coarsely.
    """
    if json.loads((work / _JOB).read_text("utf-8"))["path"] != str(src.resolve()):
        return 0
    return (work / _JOB).stat().st_mtime_ns - 2_000_000_000


def difference(before: dict[str, Any], now: dict[str, Any], parts: tuple[str, ...] = ("settings", "tool")) -> str:
    """What differs between two jobs in these parts and the source, in words; empty if nothing does."""
    changed = [
        f"{name} was {before[part].get(name)}, now {now[part].get(name)}"
        for part in parts
        for name in sorted({*before[part], *now[part]})
        if before[part].get(name) != now[part].get(name)
    ]
    if before["source"].get("listing") != now["source"]["listing"]:
        counts = [
            f"{name} were {before['source'].get(name)}, now {now['source'][name]}"
            for name in ("images", "votes")
            if before["source"].get(name) != now["source"][name]
        ]
        changed.append("the source has changed" + (f": {', '.join(counts)}" if counts else ""))
    return "; ".join(changed)


def refuse(folder: Path, state: str, what: str) -> None:
    """Raise ConfigError if anything differs."""
    if what:
        raise ConfigError(f"{folder}: holds {state} ({what}): choose another --out, or replace it with --overwrite")


def clear(folder: Path, work: Path) -> None:
    """Remove a dataset or unfinished job: first what makes it count as complete; never a file of somebody else."""
    for name in _METADATA:
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob(dataset.SHARD_PATTERN):
        path.unlink()
    (work / _JOB).unlink(missing_ok=True)
    shutil.rmtree(work / _RECEIPTS, ignore_errors=True)


def save_receipt(work: Path, receipt: Receipt) -> None:
    """Note that a shard is complete."""
    write_text(work / _RECEIPTS / f"{receipt.shard.name}.json", dataset.to_json(asdict(receipt)))


def receipts(folder: Path, work: Path) -> dict[str, Receipt]:
    """The finished shards of an interrupted job that are still as they were written, by name."""
    found: dict[str, Receipt] = {}
    for path in sorted((work / _RECEIPTS).glob("*.json")):
        content = json.loads(path.read_text("utf-8"))
        shard = Shard(**content["shard"])
        if (folder / shard.name).is_file() and sha256_file(folder / shard.name) == shard.sha256:
            shape = tuple(content["shape"]) if content["shape"] else None
            rejected = tuple(Rejected(**entry) for entry in content["rejected"])
            found[shard.name] = Receipt(shard, content["enlarged"], shape, rejected, content["crc"])
    return found
