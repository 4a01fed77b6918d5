"""The state of a job on disk: its lock, its settings, the list of its files, and a receipt for each finished shard.

It is kept in the folder `.preprocess/` of the dataset, which is removed when the dataset is complete. A job with the same
settings and source resumes from it; any other job is refused. In the dataset's folder, only files that are listed in the
manifest or in `.preprocess/` are ever overwritten or removed.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from preprocess.shard import Receipt, Rejected
from tfrecords import dataset, locks
from tfrecords.dataset import Shard
from tfrecords.errors import ConfigError, DatasetError
from tfrecords.files import files_of_users, local_path, real_folder, sha256_file, write_text
from tfrecords.integrity import unchanged_shards
from tfrecords.shares import JobShare
from tfrecords.sums import TargetSums

WORK = ".preprocess"
_JOB = "job.json"
_FILES = "files.json"
_RECEIPTS = "receipts"
_UNFINISHED = "unfinished-"
_PLANNING = "planning"
# In the order in which they are written; the last two make the folder a dataset.
METADATA = (dataset.REJECTED, dataset.NAMES, dataset.TREE, dataset.FEATURES, dataset.DATASET_INFO, dataset.MANIFEST)
_SHARD = re.compile(rf"{dataset.NAME}-[a-z]+\.tfrecord-\d+-of-\d+")
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
    names: set[str] = set()
    # In this order: a job that ends in the meantime writes its manifest before it removes the work folder.
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        names |= {*json.loads((folder / WORK / _FILES).read_text("utf-8"))}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        content = json.loads((folder / dataset.MANIFEST).read_text("utf-8"))
        if content["dataset"] == dataset.NAME and "galaxy-zoo-vgg16" in content["tool"]:
            names |= {dataset.MANIFEST, *content["files"], *(shard["name"] for shard in content["shards"])}
    return {name for name in names if isinstance(name, str) and (name in METADATA or _SHARD.fullmatch(name))}


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
def planning(folder: Path, work: Path) -> Iterator[None]:
    """Wait until no other process of a job array plans, and keep them from it."""
    with locks.one_at_a_time(work / _PLANNING, f"{folder}: waits while another part lists the source"):
        yield


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
    job: dict[str, Any] = json.loads((work / _JOB).read_text("utf-8"))
    return job


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


def refuse(folder: Path, state: str, what: str) -> None:
    """Raise ConfigError if `what`, a difference in words, is not empty."""
    if what:
        raise ConfigError(f"{folder}: holds {state} ({what}): choose another --out, or replace it with --overwrite")


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
    write_text(work / _RECEIPTS / f"{receipt.shard.name}.json", dataset.to_json(asdict(receipt)))


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
        content = json.loads(path.read_text("utf-8"))
        shard = Shard(**content["shard"])
        if "targets" not in content:  # an earlier version wrote it
            continue
        shape = tuple(content["shape"]) if content["shape"] else None
        rejected = tuple(Rejected(**entry) for entry in content["rejected"])
        targets = content["targets"] and TargetSums(*(tuple(content["targets"][name]) for name in ("sums", "counts")))
        held.append(Receipt(**{**content, "shard": shard, "shape": shape, "rejected": rejected, "targets": targets}))
    unchanged = unchanged_shards(folder, [receipt.shard for receipt in held])
    return {receipt.shard.name: receipt for receipt in held if receipt.shard.name in unchanged}
