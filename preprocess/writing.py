"""Write the shards of a job that are not finished yet."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from preprocess import state, versions
from preprocess.opening import Job
from preprocess.place import JobPlace
from preprocess.plan import ShardPlan
from preprocess.settings import BadImages
from preprocess.shard import Receipt, Rejected, ShardTask
from preprocess.sources import PLAIN, Listing
from preprocess.survey import content_crcs
from tfrecords.errors import ConfigError, SourceError
from tfrecords.images import CropSettings
from tfrecords.objects import Store
from tfrecords.progress import progress_bar


def _changed(images: Listing, receipt: Receipt, same_place: bool) -> str:
    """The first image of a finished shard that has changed since it was read; empty if none has.

    A file whose change time equals the recorded one is unchanged. Both times come from the file system's clock, so it need
    not agree with ours. All other files are read again. So are all files of a source that has moved, and files whose time is
    a whole number of seconds: a second change may fall within the same second. (Sizes are part of the listing, which is
    compared first.)
    """
    times = images.position
    unsure = (images.method != PLAIN) | (times != receipt.times()) | (times % 1_000_000_000 == 0)
    rows = np.flatnonzero(unsure | (not same_place))
    for row, crc, before in zip(rows.tolist(), content_crcs(images, rows), receipt.crcs()[rows], strict=True):
        if crc != before:
            return images.shown(row)
    return ""


def _task(job: Job, shard: ShardPlan, target: Path | Store, unfinished: Path, crop: CropSettings, skip_bad: bool) -> ShardTask:
    part = job.survey.part_of(shard)
    votes = part.targets, part.asked, job.survey.tree
    return ShardTask(shard.name, shard.split, part.images, *votes, target, unfinished, crop, skip_bad, job.look)


def _too_many(rejected: list[Rejected], total: int, bad: BadImages) -> None:
    """Raise SourceError if more images are unreadable than allowed."""
    if rejected and (not bad.skip or len(rejected) > bad.max_fraction * total):
        limit = f"above --max_bad_fraction {bad.max_fraction:g}" if bad.skip else "and --on_bad_image is fail"
        way_out = "a higher --max_bad_fraction" if bad.skip else "--on_bad_image skip"
        raise SourceError(
            f"{len(rejected):,} of {total:,} images could not be used, {limit}; first {rejected[0].path}: "
            f"{rejected[0].reason}: replace these images and run again with --overwrite, or with {way_out}"
        )


def _refuse_other_versions(receipt: Receipt, here: dict[str, str]) -> None:
    """Raise ConfigError if a worker with other versions wrote the shard: workers may join a cluster at any time."""
    there = getattr(receipt, "tool", None)  # an older version has no such field
    if there != here:
        host = getattr(receipt, "host", "another machine")
        raise ConfigError(
            f"a worker on {host} has {versions.difference(there, here)}, so {receipt.shard.name} is discarded: "
            "install the same versions on all workers and run the same command again"
        )


def write_shards(
    place: JobPlace,
    job: Job,
    crop: CropSettings,
    bad: BadImages,
    unfinished: Path,
    overwrite: bool,
    run: Callable[[Iterator[ShardTask], Callable[[int], object]], Iterator[Receipt]],
    images: int,
) -> list[Receipt]:
    """Write the shards of a job that have no receipt yet with the engine `run`; return the receipts of all of them.

    unfinished: a folder for unfinished files. images: those of the whole source, of which a fraction may be bad.
    """
    shards, survey = job.shards, job.survey
    receipts = place.receipts([shard.name for shard in shards])
    begun = place.begun()
    same_place = begun is not None and begun["path"] == str(survey.path.resolve())
    survey.prepare(shards)
    for shard in shards:
        if shard.name not in receipts or not survey.current:
            continue
        if changed := _changed(survey.part_of(shard).images, receipts[shard.name], same_place):
            if not overwrite:
                state.refuse(place, "an unfinished build", f"{changed} has changed since its shard was written")
            del receipts[shard.name]
    rejected = [entry for receipt in receipts.values() for entry in receipt.rejected]
    _too_many(rejected, images, bad)
    # Longest first: else one worker may still be writing a long shard when all others have finished.
    todo = sorted((shard for shard in shards if shard.name not in receipts), key=lambda shard: -len(shard.rows))
    tasks = (_task(job, shard, place.target, unfinished, crop, bad.skip) for shard in todo)
    done = job.images - sum(len(shard.rows) for shard in todo)
    with progress_bar(job.images, "writing shards", "galaxies", done) as bar:
        for receipt in run(tasks, bar.update):
            _refuse_other_versions(receipt, versions.tool(job.look is not None))
            place.save_receipt(receipt)
            receipts[receipt.shard.name] = receipt
            rejected += receipt.rejected
            _too_many(rejected, images, bad)
    return [receipts[shard.name] for shard in shards]
