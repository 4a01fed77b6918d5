"""Run a plan: skip what is done, write, commit, sum up."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from preprocess import plan, state, surveys, versions
from preprocess.engines import require_dask, run_dask, run_local
from preprocess.shard import Receipt, Rejected, ShardTask, write_shard
from preprocess.sources import PLAIN, Listing
from preprocess.surveys import Survey
from tfrecords import dataset
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, SettingError, SourceError
from tfrecords.files import atomic_file, local_path, sha256_file, write_text
from tfrecords.images import CropSettings, require_codec
from tfrecords.integrity import check_shards
from tfrecords.progress import progress_bar
from tfrecords.text import cell

log = logging.getLogger("preprocess")


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
class BadImages:
    """What to do with unreadable images: leave them out (`skip`), up to a fraction of all in 0..1, or stop at the first."""

    skip: bool = True
    max_fraction: float = 0.01


@dataclass(frozen=True)
class Result:
    """The dataset, and whether this call found it already complete."""

    dataset: Dataset
    already_complete: bool


def _seen_by_a_worker(work: Path) -> dict[str, Any]:
    """What must be the same for every worker of a cluster: versions, and the files."""
    return {**versions.tool(), str(work): "there" if work.is_dir() else "missing"}


def _complete(folder: Path, work: Path, job: dict[str, Any], images: Listing, shards: list[plan.ShardPlan]) -> Dataset:
    """The finished dataset in `folder`; refused where it was made from anything else.

    A dataset stays good when a codec is upgraded; only shards of one job must not mix versions.
    """
    complete = dataset.open_dataset(folder)
    before = {"settings": complete.settings, "source": complete.source}
    state.refuse(folder, "a dataset made differently", state.difference_of_jobs(before, job, ("settings",)))
    rows = plan.planned_rows(shards)
    crcs = np.fromiter(
        progress_bar(len(rows), "checking the source", "images", iterable=surveys.content_crcs(images, rows)), np.uint32
    )
    changed = surveys.fingerprint(job["source"]["listing"], crcs) != complete.source.get("fingerprint")
    state.refuse(folder, "a dataset made differently", "an image of the source has changed" if changed else "")
    check_shards(complete, complete.shards)
    state.remove_work(work)
    return complete


def _changed(images: Listing, shard: plan.ShardPlan, receipt: Receipt, same_place: bool) -> str:
    """The first image of a finished shard that is another than when it was read; empty where none is.

    Files whose time of change is the one that was read are as they were: of one clock, the file system's, so that it does not
    matter whether it agrees with ours. All others are read again, and those at another place than before, and those whose file
    system counts whole seconds, within which there may have been another change. (Sizes are part of the listing, which is
    compared first.)
    """
    times = images.position[shard.rows]
    unsure = (images.method[shard.rows] != PLAIN) | (times != receipt.times()) | (times % 1_000_000_000 == 0)
    place = np.flatnonzero(unsure | (not same_place))
    touched = shard.rows[place]
    for row, crc, before in zip(touched.tolist(), surveys.content_crcs(images, touched), receipt.crcs()[place], strict=True):
        if crc != before:
            return images.shown(row)
    return ""


def _task(shard: plan.ShardPlan, survey: Survey, folder: Path, work: Path, crop: CropSettings, skip_bad: bool) -> ShardTask:
    images = survey.images.part(shard.rows)
    return ShardTask(shard.name, shard.split, images, survey.votes.of(images.galaxy_id), folder, work, crop, skip_bad)


def _too_many(rejected: list[Rejected], total: int, bad: BadImages) -> None:
    """Raise SourceError where more images are unreadable than may be."""
    if rejected and (not bad.skip or len(rejected) > bad.max_fraction * total):
        limit = f"above --max_bad_fraction {bad.max_fraction:g}" if bad.skip else "and --on_bad_image is fail"
        raise SourceError(
            f"{len(rejected):,} of {total:,} images could not be used, {limit}; first {rejected[0].path}: "
            f"{rejected[0].reason}: replace these images and run again with --overwrite, or allow for more of them"
        )


def _refuse_other_versions(receipt: Receipt) -> None:
    """Raise ConfigError for a shard that a worker of another version wrote: a cluster's workers may join at any time."""
    there = getattr(receipt, "tool", None)  # an older version has no such field
    if there != versions.tool():
        host = getattr(receipt, "host", "another machine")
        raise ConfigError(
            f"a worker on {host} has {versions.difference(there, versions.tool())}, so {receipt.shard.name} is left out: "
            "make all workers the same and run the same command again"
        )


def _write_shards(
    folder: Path,
    work: Path,
    survey: Survey,
    shards: list[plan.ShardPlan],
    crop: CropSettings,
    bad: BadImages,
    unfinished: Path,
    overwrite: bool,
    run: Callable[[Iterator[ShardTask], Callable[[int], object]], Iterator[Receipt]],
) -> list[Receipt]:
    """Write the shards that have no receipt yet with `run`, an engine; return the receipts of all."""
    receipts = state.receipts(folder, work)
    begun = state.begun(work)
    same_place = begun is not None and begun["path"] == str(survey.source.path.resolve())
    for shard in shards:
        if shard.name in receipts and (changed := _changed(survey.images, shard, receipts[shard.name], same_place)):
            if not overwrite:
                state.refuse(folder, "an unfinished job", f"{changed} has changed since it was written")
            del receipts[shard.name]
    total = sum(len(shard.rows) for shard in shards)
    rejected = [entry for receipt in receipts.values() for entry in receipt.rejected]
    _too_many(rejected, total, bad)
    # The longest first, so that no worker is left alone with one at the end.
    todo = sorted((shard for shard in shards if shard.name not in receipts), key=lambda shard: -len(shard.rows))
    tasks = (_task(shard, survey, folder, unfinished, crop, bad.skip) for shard in todo)
    done = total - sum(len(shard.rows) for shard in todo)
    with progress_bar(total, "writing shards", "galaxies", done) as bar:
        for receipt in run(tasks, bar.update):
            _refuse_other_versions(receipt)
            state.save_receipt(work, receipt)
            receipts[receipt.shard.name] = receipt
            rejected += receipt.rejected
            _too_many(rejected, total, bad)
    return [receipts[shard.name] for shard in shards]


def _write_csv(path: Path, rows: Iterable[tuple[object, ...]], unfinished: Path) -> None:
    with atomic_file(path, beside=unfinished) as file:
        for row in rows:
            file.write(dataset.csv_line(row))


def _commit(
    folder: Path,
    job: dict[str, Any],
    survey: Survey,
    shards: list[plan.ShardPlan],
    receipts: list[Receipt],
    unfinished: Path,
) -> list[Rejected]:
    """Write the metadata, each file atomically, those that make the folder a dataset last; return the rejected images."""
    rejected = sorted((entry for receipt in receipts for entry in receipt.rejected), key=lambda entry: entry.galaxy_id)
    there = {receipt.shard.split for receipt in receipts if receipt.shard.examples}
    if not there:
        raise SourceError(f"{survey.source.path}: not one image could be used; first {rejected[0].path}: {rejected[0].reason}")
    for receipt in receipts:
        if receipt.shard.split not in there:  # every image of the split was rejected: a split without galaxies is absent
            (folder / receipt.shard.name).unlink(missing_ok=True)
    written = [receipt.shard for receipt in receipts if receipt.shard.split in there]
    shapes = {receipt.shape for receipt in receipts if receipt.shard.examples}
    rows = np.concatenate([shard.rows for shard in shards])
    crcs = np.concatenate([receipt.crcs() for receipt in receipts])[np.argsort(rows)]
    _write_csv(
        folder / dataset.REJECTED,
        [dataset.REJECTED_HEADER, *((entry.galaxy_id, cell(entry.path), cell(entry.reason)) for entry in rejected)],
        unfinished,
    )
    names = [dataset.REJECTED, dataset.FEATURES, dataset.DATASET_INFO]
    images = survey.images
    if len(named := np.sort(rows)[images.named[np.sort(rows)] == 1]):
        names.append(dataset.NAMES)
        lines = ((images.galaxy_id[row], cell(images.path(row))) for row in named)
        _write_csv(folder / dataset.NAMES, itertools.chain([dataset.NAMES_HEADER], lines), unfinished)
    shape = shapes.pop() if len(shapes) == 1 else None
    write_text(folder / dataset.FEATURES, dataset.features_json(job["settings"]["encoding"], shape), unfinished)
    write_text(folder / dataset.DATASET_INFO, dataset.dataset_info_json(written), unfinished)
    source = {
        **job["source"],
        "fingerprint": surveys.fingerprint(job["source"]["listing"], crcs),
        "rejected": len(rejected),
        "enlarged": sum(receipt.enlarged for receipt in receipts),
    }
    hashes = {name: sha256_file(folder / name) for name in names}
    manifest = dataset.manifest_json(job["settings"], source, job["tool"], written, hashes)
    write_text(folder / dataset.MANIFEST, manifest, unfinished)
    return rejected


def build_dataset(
    src: Path,
    out: Path,
    settings: BuildSettings,
    solutions_file: Path | None = None,
    workers: int = 1,
    overwrite: bool = False,
    bad: BadImages = BadImages(),
    dask: str = "",
) -> Result:
    """Turn the images and votes in `src` into a dataset in `out`, or resume where an interrupted job stopped.

    workers: processes on this machine; or dask: the address of a cluster whose workers see the same files. Raises
    SourceError for images or votes that cannot be used, and ConfigError where `out` holds something else. The
    output's bytes follow from the source's content and the settings alone, not from how it is run. As processes are
    spawned, a script must call this below `if __name__ == "__main__":`.
    """
    require_codec(settings.crop.encoding)
    local_path(out)
    if dask:
        require_dask(dask)
        src, out = src.resolve(), out.resolve()  # workers elsewhere have another current folder

    def run(tasks: Iterator[ShardTask], on_images: Callable[[int], object]) -> Iterator[Receipt]:
        if dask:
            return run_dask(write_shard, tasks, dask, partial(_seen_by_a_worker, out / state.WORK), on_images)
        return run_local(write_shard, tasks, workers, on_images)

    with state.locked_job(out) as work:
        survey = surveys.survey_of(src, work, solutions_file)
        job = {
            "settings": settings.flat(),
            "source": surveys.summarise(survey),
            "tool": versions.tool(),
            "path": str(src.resolve()),
        }
        shards = plan.make(survey.galaxies, settings.plan)
        begun = state.begun(work)
        if overwrite and (begun is None or state.difference_of_jobs(begun, job)):  # an interrupted job of the same kind resumes
            state.remove_dataset(out, work)
            begun = None
        if (out / dataset.MANIFEST).exists():
            return Result(_complete(out, work, job, survey.images, shards), already_complete=True)
        if begun is not None:
            state.refuse(out, "an unfinished job with other settings or source", state.difference_of_jobs(begun, job))
        unfinished = state.begin(out, work, job, (shard.name for shard in shards))
        surveys.warn(survey, shards)
        receipts = _write_shards(out, work, survey, shards, settings.crop, bad, unfinished, overwrite, run)
        rejected = _commit(out, job, survey, shards, receipts, unfinished)
        if rejected:
            log.warning(
                "%s of %s images could not be used and are listed in %s; first %s: %s",
                f"{len(rejected):,}", f"{sum(len(shard.rows) for shard in shards):,}", out / dataset.REJECTED,
                rejected[0].path, rejected[0].reason,
            )  # fmt: skip
        if enlarged := sum(receipt.enlarged for receipt in receipts):
            log.warning("%d crops had fewer pixels than --size %d and were enlarged", enlarged, settings.crop.size)
        state.remove_work(work)
    return Result(dataset.open_dataset(out), already_complete=False)
