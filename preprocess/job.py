"""Run a plan: skip what is done, write, commit, sum up.

While a job is under way its folder `.preprocess/` holds the lock, the settings and a receipt per finished shard;
the same settings go on from there, others are refused. The folder goes when the dataset is complete.
"""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import __version__ as pillow_version
from PIL import features as pillow_features
from tqdm import tqdm

from preprocess import plan, solutions, sources
from preprocess.engines import run_local
from preprocess.shard import Receipt, ShardTask
from tfrecords import __version__, dataset
from tfrecords.dataset import Dataset, Shard
from tfrecords.errors import ConfigError, SettingError, SourceError
from tfrecords.files import PARTIAL_SUFFIX, sha256_file, write_text
from tfrecords.images import CropSettings
from tfrecords.taxonomy import COLUMNS

log = logging.getLogger("preprocess")
_WORK = ".preprocess"
_JOB = "job.json"


@dataclass(frozen=True)
class BuildSettings:
    """What decides the bytes of a dataset, beside its source and the versions of the codecs."""

    crop: CropSettings
    plan: plan.PlanSettings

    def __post_init__(self) -> None:
        if not 0 < self.crop.crop_fraction <= 1:
            raise SettingError(f"--crop_fraction {self.crop.crop_fraction}: must be above 0 and at most 1")
        if self.plan.validation_fraction + self.plan.test_fraction > 1:
            raise SettingError(
                f"--validation_fraction {self.plan.validation_fraction} and --test_fraction {self.plan.test_fraction}: "
                "together they must be at most 1"
            )

    def flat(self) -> dict[str, Any]:
        return {**asdict(self.crop), **asdict(self.plan)}


@dataclass(frozen=True)
class Result:
    """The dataset, and whether this call found it already complete."""

    dataset: Dataset
    already_complete: bool


def _tool_versions() -> dict[str, str]:
    return {
        "galaxy-zoo-vgg16": __version__,
        "pillow": pillow_version,
        "jpeg": str(pillow_features.version("libjpeg_turbo") or pillow_features.version("jpg")),
        "zlib": str(pillow_features.version("zlib")),
    }


def _source_summary(source: sources.Source, votes: solutions.Votes) -> dict[str, Any]:
    listing = "".join(f"{image.path}\t{image.bytes}\n" for image in source.images)
    with_image = np.isin(votes.galaxy_ids, [image.galaxy_id for image in source.images])
    return {
        "fingerprint": dataset.sha256_text(f"{listing}votes\t{votes.sha256}\n"),
        "images": len(source.images),
        "votes": len(votes.galaxy_ids),
        "votes_without_image": int((~with_image).sum()),
        "images_without_votes": len(source.images) - int(with_image.sum()),
    }


def _difference(before: dict[str, Any], now: dict[str, Any], parts: tuple[str, ...] = ("settings", "tool")) -> str:
    """What differs between two jobs in these parts and the source, in words; empty if nothing does."""
    changed = [
        f"{name} was {before[part].get(name)}, now {now[part].get(name)}"
        for part in parts
        for name in sorted({*before[part], *now[part]})
        if before[part].get(name) != now[part].get(name)
    ]
    if before["source"]["fingerprint"] != now["source"]["fingerprint"]:
        changed.append("the source has changed")
    return "; ".join(changed)


def _refuse(folder: Path, state: str, difference: str) -> None:
    if difference:
        raise ConfigError(f"{folder}: holds {state} ({difference}): choose another --out, or replace it with --overwrite")


@contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """The job's work folder, held by this process alone; the lock ends with the process, however that ends."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file: choose another --out")
    foreign = [] if not folder.is_dir() else [name for name in os.listdir(folder) if not _ours(name)]
    if foreign:
        raise ConfigError(f"{folder}: holds other files ({sorted(foreign)[0]}): choose an --out that is empty or new")
    work = folder / _WORK
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{folder}: another preprocess job is writing here: wait for it, or choose another --out"
            ) from error
        try:
            yield work
        finally:
            if work.exists() and not (work / _JOB).exists():  # refused before it began: leave no trace
                shutil.rmtree(work)
                with suppress(OSError):
                    folder.rmdir()


def _ours(name: str) -> bool:
    known = {_WORK, dataset.DATASET_INFO, dataset.FEATURES, dataset.MANIFEST, dataset.REJECTED}
    return name.removesuffix(PARTIAL_SUFFIX) in known or name.startswith(f"{dataset.NAME}-")


def _clear(folder: Path, work: Path) -> None:
    """Remove a dataset or unfinished job: first what makes it count as complete; never a file of somebody else."""
    for name in (dataset.MANIFEST, dataset.DATASET_INFO, dataset.FEATURES, dataset.REJECTED):
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob(dataset.SHARD_PATTERN):
        path.unlink()
    for path in work.iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _receipts(folder: Path, work: Path) -> dict[str, Receipt]:
    """The finished shards of an interrupted job that are still intact."""
    found: dict[str, Receipt] = {}
    for path in sorted((work / "receipts").glob("*.json")):
        content = json.loads(path.read_text("utf-8"))
        shard = Shard(**content["shard"])
        if (folder / shard.name).is_file() and sha256_file(folder / shard.name) == shard.sha256:
            found[shard.name] = Receipt(shard, content["enlarged"])
    return found


def _tasks(
    folder: Path, work: Path, source: sources.Source, votes: solutions.Votes, settings: BuildSettings
) -> list[ShardTask]:
    paths = {image.galaxy_id: image.path for image in source.images}
    rows = {int(galaxy_id): row for row, galaxy_id in enumerate(votes.galaxy_ids)}
    targets = np.concatenate([votes.targets, np.full((1, len(COLUMNS)), np.nan, np.float32)])
    return [
        ShardTask(
            name=shard.name,
            split=shard.split,
            source=source.folder,
            folder=folder,
            work=work,
            galaxy_ids=shard.galaxy_ids,
            paths=tuple(paths[galaxy_id] for galaxy_id in shard.galaxy_ids),
            targets=targets[[rows.get(galaxy_id, -1) for galaxy_id in shard.galaxy_ids]],
            crop=settings.crop,
        )
        for shard in plan.make(paths, rows.keys(), settings.plan)
    ]


def _write_shards(folder: Path, work: Path, tasks: list[ShardTask], workers: int) -> list[Receipt]:
    receipts = _receipts(folder, work)
    todo = [task for task in tasks if task.name not in receipts]
    total = sum(len(task.galaxy_ids) for task in tasks)
    done = total - sum(len(task.galaxy_ids) for task in todo)
    (work / "receipts").mkdir(exist_ok=True)
    with tqdm(total=total, initial=done, unit=" galaxies", desc="writing shards", dynamic_ncols=True) as bar:
        for receipt in run_local(todo, workers, bar.update):
            write_text(work / "receipts" / f"{receipt.shard.name}.json", dataset.to_json(asdict(receipt)))
            receipts[receipt.shard.name] = receipt
    return [receipts[task.name] for task in tasks]


def _commit(folder: Path, job: dict[str, Any], shards: list[Shard]) -> None:
    """Write the metadata, each file atomically, those that make the folder a dataset last."""
    size = int(job["settings"]["size"])
    files = {
        dataset.REJECTED: "galaxy_id,source path,reason\n",
        dataset.FEATURES: dataset.features_json(job["settings"]["encoding"], (size, size)),
        dataset.DATASET_INFO: dataset.dataset_info_json(shards),
    }
    for name, text in files.items():
        write_text(folder / name, text)
    hashes = {name: dataset.sha256_text(text) for name, text in files.items()}
    write_text(
        folder / dataset.MANIFEST,
        dataset.manifest_json(job["settings"], job["source"], job["tool"], shards, hashes),
    )


def build(
    src: Path, out: Path, settings: BuildSettings, solutions_file: Path | None = None, workers: int = 1, overwrite: bool = False
) -> Result:
    """Turn the images and votes in `src` into a dataset in `out`, or go on where an interrupted job stopped.

    Raises SourceError for images or votes that cannot be used, and ConfigError where `out` holds something else.
    The output's bytes follow from the source's content and the settings alone, not from `workers`.
    """
    source = sources.find(src)
    votes = solutions.read(sources.solutions_path(source, solutions_file))
    job = {"settings": settings.flat(), "source": _source_summary(source, votes), "tool": _tool_versions()}
    if job["source"]["images_without_votes"] == len(source.images):
        raise SourceError(f"{src}: no image has a row in the table of votes: check that both belong together")
    with _locked(out) as work:
        begun = json.loads((work / _JOB).read_text("utf-8")) if (work / _JOB).exists() else None
        if overwrite and (begun is None or _difference(begun, job)):  # an interrupted job of the same kind goes on
            _clear(out, work)
            begun = None
        if (out / dataset.MANIFEST).exists():
            complete = dataset.open_dataset(out)
            before = {"settings": complete.settings, "source": complete.source, "tool": complete.tool}
            # A finished dataset stays good when a codec is upgraded; only shards of one job must not mix versions.
            _refuse(out, "a dataset made differently", _difference(before, job, ("settings",)))
            shutil.rmtree(work)
            return Result(complete, already_complete=True)
        if begun is not None:
            _refuse(out, "an unfinished job with other settings or source", _difference(begun, job))
        elif any(out.glob(dataset.SHARD_PATTERN)):
            raise ConfigError(f"{out}: holds shards without a manifest: choose another --out, or replace them with --overwrite")
        write_text(work / _JOB, dataset.to_json(job))
        for warning in votes.warnings:
            log.warning("%s", warning)
        tasks = _tasks(out, work, source, votes, settings)
        if not any(task.split == "train" for task in tasks):
            log.warning("split 'train' is empty: a model needs labelled galaxies in it")
        receipts = _write_shards(out, work, tasks, workers)
        if enlarged := sum(receipt.enlarged for receipt in receipts):
            log.warning("%d crops had fewer pixels than --size %d and were enlarged", enlarged, settings.crop.size)
        _commit(out, job, [receipt.shard for receipt in receipts])
        shutil.rmtree(work)
    return Result(dataset.open_dataset(out), already_complete=False)
