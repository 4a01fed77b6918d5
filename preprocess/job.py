"""Build a dataset: write the planned shards that are not finished yet, then the metadata."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from preprocess import plan, state, surveys, times, versions
from preprocess.engines import require_dask, run_dask, run_local
from preprocess.fitting import Wanted
from preprocess.plan import PlanSettings, ShardPlan
from preprocess.shard import Receipt, Rejected, ShardTask, write_shard
from preprocess.sources import PLAIN, Listing, chosen_look
from preprocess.survey import Survey, content_crcs, fingerprint, in_order_of_ids
from tfrecords import dataset
from tfrecords.builtin import find_tree
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, SettingError, SourceError, require_setting
from tfrecords.files import atomic_file, local_path, sha256_file, write_text
from tfrecords.fits.look import SDSS, Look, as_settings
from tfrecords.fits.look import Stretch as Stretch
from tfrecords.images import CropSettings, require_codec
from tfrecords.integrity import check_shards
from tfrecords.progress import progress_bar
from tfrecords.sums import TargetSums, add_up
from tfrecords.text import cell
from tfrecords.tree import Tree

log = logging.getLogger("preprocess")
_LOOK = Look()


@dataclass(frozen=True)
class BuildSettings:
    """The settings that determine a dataset's bytes, together with its source and the codec versions."""

    crop: CropSettings = field(default_factory=CropSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)

    def __post_init__(self) -> None:
        if self.plan.validation_fraction + self.plan.test_fraction > 1:
            raise SettingError(
                f"--validation_fraction {self.plan.validation_fraction} and --test_fraction {self.plan.test_fraction}: "
                "together they must be at most 1"
            )

    def flat(self) -> dict[str, Any]:
        return {**asdict(self.crop), **asdict(self.plan)}


@dataclass(frozen=True)
class BadImages:
    """What to do with unreadable images: omit them (`skip`), up to `max_fraction` of all (0..1), or stop at the first."""

    skip: bool = True
    max_fraction: float = 0.01

    def __post_init__(self) -> None:
        require_setting(0 <= self.max_fraction <= 1, "max_bad_fraction", self.max_fraction, "from 0 to 1")


@dataclass(frozen=True)
class Result:
    """The dataset, and whether this call found it already complete.

    id_column: the column by which the table of votes was joined with images, empty without one.
    """

    dataset: Dataset
    already_complete: bool
    id_column: str = ""


def _seen_by_a_worker(work: Path) -> dict[str, Any]:
    """What must be the same for every worker of a cluster: the versions, and access to the files."""
    return {**versions.tool(), str(work): "found" if work.is_dir() else "missing"}


def _complete(folder: Path, work: Path, job: dict[str, Any], survey: Survey, shards: list[ShardPlan]) -> Dataset:
    """Return the finished dataset in `folder`. Raises ConfigError if it was built with other settings or another source.

    Images are read again only if one of their files has changed since. A finished dataset stays valid when a codec is upgraded:
    only the shards of one build must not mix versions.
    """
    complete = dataset.open_dataset(folder)
    before = {"settings": complete.settings, "source": complete.source}
    state.refuse(folder, "a dataset with other settings or source", state.difference_of_jobs(before, job, ("settings",)))
    survey.prepare(shards)
    now = times.stamp(times.times_of(survey.part(shard.rows).images) for shard in shards)
    if not times.has_time(folder / dataset.MANIFEST, now):
        total = sum(len(shard.rows) for shard in shards)
        crcs = np.fromiter(progress_bar(total, "checking the source", "images", iterable=survey.crcs(shards)), np.uint32)
        changed = fingerprint(job["source"]["listing"], in_order_of_ids(shards, crcs)) != complete.source.get("fingerprint")
        what = "an image of the source has changed" if changed else ""
        state.refuse(folder, "a dataset with other settings or source", what)
        times.set_time(folder / dataset.MANIFEST, now)
    check_shards(complete, complete.shards)
    state.remove_work(work)
    return complete


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


def _look_of(survey: Survey, settings: CropSettings, asked: Look) -> tuple[Look | None, str]:
    """How the FITS images of a survey are drawn, None if it has none; and a sentence about the stretch that was chosen.

    Raises SettingError for a look that was asked for without FITS images.
    """
    sample = survey.fits_images()
    if not len(sample):
        asked.refuse_without_fits(survey.path)
        return None, ""
    look, choice = chosen_look(sample, settings.crop_fraction, SDSS, asked, "those of SDSS")
    return look, f"FITS images: --fits_stretch {look.stretch.stretch:g} chosen, as {choice.reason}" if choice.reason else ""


def _task(
    shard: ShardPlan, survey: Survey, folder: Path, work: Path, crop: CropSettings, skip_bad: bool, look: Look | None
) -> ShardTask:
    part = survey.part(shard.rows)
    votes = part.targets, part.asked, survey.tree
    return ShardTask(shard.name, shard.split, part.images, *votes, folder, work, crop, skip_bad, look)


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


def _write_shards(
    folder: Path,
    work: Path,
    survey: Survey,
    shards: list[ShardPlan],
    crop: CropSettings,
    bad: BadImages,
    unfinished: Path,
    overwrite: bool,
    look: Look | None,
    run: Callable[[Iterator[ShardTask], Callable[[int], object]], Iterator[Receipt]],
) -> list[Receipt]:
    """Write the shards that have no receipt yet with the engine `run`; return the receipts of all shards."""
    receipts = state.receipts(folder, work)
    begun = state.begun(work)
    same_place = begun is not None and begun["path"] == str(survey.path.resolve())
    survey.prepare(shards)
    for shard in shards:
        if shard.name not in receipts:
            continue
        if changed := _changed(survey.part(shard.rows).images, receipts[shard.name], same_place):
            if not overwrite:
                state.refuse(folder, "an unfinished build", f"{changed} has changed since its shard was written")
            del receipts[shard.name]
    total = sum(len(shard.rows) for shard in shards)
    rejected = [entry for receipt in receipts.values() for entry in receipt.rejected]
    _too_many(rejected, total, bad)
    # Longest first: else one worker may still be writing a long shard when all others have finished.
    todo = sorted((shard for shard in shards if shard.name not in receipts), key=lambda shard: -len(shard.rows))
    tasks = (_task(shard, survey, folder, unfinished, crop, bad.skip, look) for shard in todo)
    done = total - sum(len(shard.rows) for shard in todo)
    with progress_bar(total, "writing shards", "galaxies", done) as bar:
        for receipt in run(tasks, bar.update):
            _refuse_other_versions(receipt, versions.tool(look is not None))
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
    shards: list[ShardPlan],
    receipts: list[Receipt],
    unfinished: Path,
) -> list[Rejected]:
    """Write the metadata, each file atomically, and last those that make the folder a dataset; return the rejected images."""
    rejected = sorted((entry for receipt in receipts for entry in receipt.rejected), key=lambda entry: entry.galaxy_id)
    there = {receipt.shard.split for receipt in receipts if receipt.shard.examples}
    if not there:
        raise SourceError(f"{survey.path}: no image could be used; first {rejected[0].path}: {rejected[0].reason}")
    for receipt in receipts:
        if receipt.shard.split not in there:  # every image of the split was rejected: a split without galaxies is absent
            (folder / receipt.shard.name).unlink(missing_ok=True)
    written = [receipt.shard for receipt in receipts if receipt.shard.split in there]
    shapes = {receipt.shape for receipt in receipts if receipt.shard.examples}
    crcs = in_order_of_ids(shards, np.concatenate([receipt.crcs() for receipt in receipts]))
    _write_csv(
        folder / dataset.REJECTED,
        [dataset.REJECTED_HEADER, *((entry.galaxy_id, cell(entry.path), cell(entry.reason)) for entry in rejected)],
        unfinished,
    )
    names = [dataset.REJECTED, dataset.TREE, dataset.FEATURES, dataset.DATASET_INFO]
    tree = survey.tree
    shape = shapes.pop() if len(shapes) == 1 else None
    write_text(folder / dataset.TREE, tree.text, unfinished)
    features = dataset.features_json(job["settings"]["encoding"], shape, tree, survey.asked, survey.named)
    write_text(folder / dataset.FEATURES, features, unfinished)
    write_text(folder / dataset.DATASET_INFO, dataset.dataset_info_json(written, tree), unfinished)
    source = {
        **job["source"],
        "fingerprint": fingerprint(job["source"]["listing"], crcs),
        "rejected": len(rejected),
        "enlarged": sum(receipt.enlarged for receipt in receipts),
    }
    hashes = {name: sha256_file(folder / name) for name in names}
    of_split: dict[str, list[TargetSums]] = defaultdict(list)
    for receipt in receipts:
        if receipt.targets and receipt.shard.split in there:
            of_split[receipt.shard.split].append(receipt.targets)
    targets = {split: add_up(sums) for split, sums in of_split.items()}
    manifest = dataset.manifest_json(job["settings"], source, job["tool"], written, hashes, targets)
    write_text(folder / dataset.MANIFEST, manifest, unfinished)
    times.set_time(folder / dataset.MANIFEST, times.stamp(receipt.times() for receipt in receipts))
    return rejected


def build_dataset(
    src: str | Path,
    out: str | Path,
    settings: BuildSettings = BuildSettings(),
    solutions_file: str | Path | None = None,
    workers: int = 1,
    overwrite: bool = False,
    bad: BadImages = BadImages(),
    dask: str = "",
    tree: str | Path | Tree | None = None,
    votes: str = "",
    id_column: str = "",
    path_column: str = "",
    look: Look = _LOOK,
) -> Result:
    """Build a dataset from a survey's images and votes, or resume an interrupted build.

    The bytes of the dataset depend on the content of the source and on `settings`, not on the number of workers.

    Parameters
    ----------
    src : str or Path
        Folder or zip with the images and the table of votes.
    out : str or Path
        Dataset folder to write.
    settings : BuildSettings
        Crop, size and encoding of the images; splits and shards.
    solutions_file : str or Path, optional
        Table of votes, if it is not in `src` under a usual name.
    workers : int
        Number of processes. They are spawned: in a script, call this below `if __name__ == "__main__":`.
    overwrite : bool
        Replace a dataset that was built with other settings or from another source.
    bad : BadImages
        What to do with images that cannot be read.
    dask : str
        Address of a Dask cluster whose workers see the same files, in place of `workers`.
    tree : str, Path or Tree, optional
        Decision tree of the votes: the name of one of ours, a TOML file, or from `tfrecords.find_tree`. By default it is found
        by the columns of the table.
    votes : str
        Which votes of the table to use, if its tree describes several, such as "debiased". By default the first that are there.
    id_column : str
        Column of the table that names the galaxy of each row: the number or the name of its image. By default that of the tree,
        else the first of the usual ones.
    path_column : str
        Column of the table with the path of each image, by which to join them instead.
    look : Look
        How FITS images become pictures: their bands, and the stretch.

    Returns
    -------
    Result
        `dataset`, whether it was `already_complete`, and the `id_column` of the table.

    Raises
    ------
    SourceError
        If the images or the votes cannot be used.
    ConfigError
        If `out` holds something else, another build is writing there, or a package or the cluster is missing.
    DatasetError
        If the finished dataset in `out` is damaged.
    SettingError
        If a setting is out of range.
    TreeError
        If `tree` is not a decision tree.
    GalaxyZooError
        If a worker process was killed.

    Examples
    --------
    >>> from preprocess import BuildSettings, CropSettings, build_dataset
    >>> result = build_dataset("demo", "data/png", BuildSettings(CropSettings(size=32, encoding="png")))
    >>> result.dataset.galaxies("train"), result.dataset.size
    (51, 32)
    """
    require_setting(workers >= 1, "workers", workers, "at least 1")
    require_codec(settings.crop.encoding)
    src, out = local_path(src), local_path(out)
    solutions_file = None if solutions_file is None else local_path(solutions_file)
    tree = find_tree(tree) if isinstance(tree, (str, Path)) else tree
    if dask:
        require_dask(dask)
        src, out = src.resolve(), out.resolve()  # workers on other machines have another current folder

    probe = partial(_seen_by_a_worker, out / state.WORK)

    def run(tasks: Iterator[ShardTask], on_images: Callable[[int], object]) -> Iterator[Receipt]:
        if dask:
            return run_dask(write_shard, tasks, dask, probe, on_images)
        return run_local(write_shard, tasks, workers, on_images)

    with state.locked_job(out) as work, ExitStack() as at_the_end:
        if dask:  # before there is a job to resume, and before a dataset is replaced
            require_dask(dask, probe)
        survey = surveys.survey_of(src, work, solutions_file, Wanted(tree, votes, id_column, path_column))
        at_the_end.callback(survey.close)
        columns = {"id_column": id_column, "path_column": path_column}
        chosen = {name: column for name, column in columns.items() if column}
        drawn, stretched = _look_of(survey, settings.crop, look)
        job = {
            "settings": {**settings.flat(), "tree": survey.tree_name, "votes": survey.layout, **chosen, **as_settings(drawn)},
            "source": survey.summary(),
            "tool": versions.tool(drawn is not None),
            "path": str(src.resolve()),
        }
        shards = plan.make(survey.galaxies, settings.plan)
        begun = state.begun(work)
        # An unfinished build of the same kind resumes even with `overwrite`.
        if overwrite and (begun is None or state.difference_of_jobs(begun, job)):
            state.remove_dataset(out, work)
            begun = None
        if (out / dataset.MANIFEST).exists():
            return Result(_complete(out, work, job, survey, shards), True, survey.id_column)
        if begun is not None:
            state.refuse(out, "an unfinished build with other settings or source", state.difference_of_jobs(begun, job))
        unfinished = state.begin(out, work, job, (shard.name for shard in shards))
        for warning in [*survey.all_warnings(shards), *([stretched] if stretched else [])]:
            log.warning("%s", warning)
        receipts = _write_shards(out, work, survey, shards, settings.crop, bad, unfinished, overwrite, drawn, run)
        rejected = _commit(out, job, survey, shards, receipts, unfinished)
        if rejected:
            log.warning(
                "%s of %s images could not be used and are listed in %s; first %s: %s",
                f"{len(rejected):,}", f"{sum(len(shard.rows) for shard in shards):,}", out / dataset.REJECTED,
                rejected[0].path, rejected[0].reason,
            )  # fmt: skip
        for note, images in sum((Counter(receipt.notes) for receipt in receipts), Counter()).most_common():
            log.warning("%s FITS images: %s", f"{images:,}", note)
        if enlarged := sum(receipt.enlarged for receipt in receipts):
            log.warning("%d crops had fewer pixels than --size %d and were enlarged", enlarged, settings.crop.size)
        state.remove_work(work)
    return Result(dataset.open_dataset(out), False, survey.id_column)
