"""Build a dataset, or a share of its shards: list the source, write what is not finished yet, then the metadata."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from preprocess import sharing, state, times, versions
from preprocess.commit import commit
from preprocess.engines import require_dask, run_dask, run_local
from preprocess.instore import build_in_store
from preprocess.opening import Job, Request, open_job, survey_for
from preprocess.place import LocalPlace
from preprocess.settings import BadImages, BuildSettings
from preprocess.shard import Receipt, ShardTask, write_shard
from preprocess.sharing import SharedPlan
from preprocess.survey import fingerprint, in_order_of_ids
from preprocess.writing import write_shards
from tfrecords import dataset
from tfrecords.builtin import find_tree
from tfrecords.dataset import Dataset
from tfrecords.errors import ChangedError, SettingError, SourceError, require_setting
from tfrecords.files import local_or_store, local_path
from tfrecords.fits.look import Look as Look
from tfrecords.fits.look import Stretch as Stretch
from tfrecords.images import CropSettings, require_codec
from tfrecords.integrity import check_shards
from tfrecords.progress import progress_bar
from tfrecords.shares import JobShare as JobShare
from tfrecords.tree import Tree

log = logging.getLogger("preprocess")
_SETTINGS, _BAD, _LOOK = BuildSettings(), BadImages(), Look()
_OTHERS = "a dataset with other settings or source"
_UNFINISHED = "an unfinished build with other settings or source"


@dataclass(frozen=True)
class Result:
    """The dataset, and whether this call found it already complete.

    id_column: the column by which the table of votes was joined with images, empty without one.
    """

    dataset: Dataset
    already_complete: bool
    id_column: str = ""


@dataclass(frozen=True)
class ShareResult:
    """A share that is complete: its shards and galaxies, the shards of the whole job, and how many of these are missing.

    already_complete: whether the whole dataset was already complete.
    """

    shards: int
    galaxies: int
    all_shards: int
    missing: int
    already_complete: bool = False


def _seen_by_a_worker(work: Path) -> dict[str, Any]:
    """What must be the same for every worker of a cluster: the versions, and access to the files."""
    return {**versions.tool(), str(work): "found" if work.is_dir() else "missing"}


def _complete(folder: Path, work: Path, job: Job) -> Dataset:
    """Return the finished dataset in `folder`. Raises ConfigError if it was built with other settings or another source.

    Images are read again only if one of their files has changed since. A finished dataset stays valid when a codec is upgraded:
    only the shards of one build must not mix versions.
    """
    complete = dataset.open_dataset(folder)
    before = {"settings": complete.settings, "source": complete.source}
    state.refuse(folder, _OTHERS, state.difference_of_jobs(before, job.record, ("settings",)))
    survey, shards = job.survey, job.shards
    survey.prepare(shards)
    now = times.stamp(times.times_of(survey.part_of(shard).images) for shard in shards)
    if not times.has_time(folder / dataset.MANIFEST, now):
        crcs = np.fromiter(progress_bar(job.images, "checking the source", "images", iterable=survey.crcs(shards)), np.uint32)
        content = fingerprint(job.record["source"]["listing"], in_order_of_ids(shards, crcs))
        changed = "an image of the source has changed" if content != complete.source.get("fingerprint") else ""
        state.refuse(folder, _OTHERS, changed)
        times.set_time(folder / dataset.MANIFEST, now)
    check_shards(complete, complete.shards)
    state.remove_work(work)
    return complete


def _warn_of_images(place: object, job: Job, receipts: list[Receipt], crop: CropSettings) -> None:
    """Log what was noticed about the images of some shards. place: the dataset's folder or URL."""
    rejected = sorted((entry for receipt in receipts for entry in receipt.rejected), key=lambda entry: entry.galaxy_id)
    if rejected:
        log.warning(
            "%s of %s images could not be used and are listed in %s; first %s: %s",
            f"{len(rejected):,}", f"{job.images:,}", f"{place}/{dataset.REJECTED}", rejected[0].path, rejected[0].reason,
        )  # fmt: skip
    for note, images in sum((Counter(receipt.notes) for receipt in receipts), Counter()).most_common():
        log.warning("%s FITS images: %s", f"{images:,}", note)
    if enlarged := sum(receipt.enlarged for receipt in receipts):
        log.warning("%d crops had fewer pixels than --size %d and were enlarged", enlarged, crop.size)


def _request(
    src: str | Path, settings: BuildSettings, solutions: str | Path | None, tree: str | Path | Tree | None,
    votes: str, id_column: str, path_column: str, look: Look,
) -> Request:  # fmt: skip
    require_codec(settings.crop.encoding)
    table = None if solutions is None else local_path(solutions)
    chosen = find_tree(tree) if isinstance(tree, (str, Path)) else tree
    return Request(local_path(src), settings, table, chosen, votes, id_column, path_column, look)


def build_dataset(
    src: str | Path,
    out: str | Path,
    settings: BuildSettings = _SETTINGS,
    solutions_file: str | Path | None = None,
    workers: int = 1,
    overwrite: bool = False,
    bad: BadImages = _BAD,
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
        Dataset folder to write, or its URL in an object store. The `folder` of the result is then gone: open the dataset with
        `tfrecords.open_anywhere`.
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
    request = _request(src, settings, solutions_file, tree, votes, id_column, path_column, look)
    out = local_or_store(out)
    if isinstance(out, str):
        if dask:
            raise _only_local(f"--dask {dask}", out)
        return Result(*build_in_store(request, out, workers, overwrite, bad, _warn_of_images))
    if dask:
        require_dask(dask)
        # Workers on other machines have another current folder.
        request, out = replace(request, src=request.src.resolve()), out.resolve()
    probe = partial(_seen_by_a_worker, out / state.WORK)

    def run(tasks: Iterator[ShardTask], on_images: Callable[[int], object]) -> Iterator[Receipt]:
        if dask:
            return run_dask(write_shard, tasks, dask, probe, on_images)
        return run_local(write_shard, tasks, workers, on_images)

    with state.locked_job(out) as work, ExitStack() as at_the_end:
        if dask:  # before there is a job to resume, and before a dataset is replaced
            require_dask(dask, probe)
        job = None if overwrite else _shared_job(request, out, work)
        shared = job is not None
        if job is None:
            survey = survey_for(request, work)
            at_the_end.callback(survey.close)
            job = open_job(request, survey)
        begun = state.begun(work)
        # An unfinished build of the same kind resumes even with `overwrite`.
        if overwrite and (begun is None or state.difference_of_jobs(begun, job.record)):
            state.remove_dataset(out, work)
            begun = None
        if (out / dataset.MANIFEST).exists():
            return Result(_complete(out, work, job), True, job.survey.id_column)
        if begun is not None:
            state.refuse(out, _UNFINISHED, state.difference_of_jobs(begun, job.record))
        state.begin(out, work, job.record, (shard.name for shard in job.shards))
        unfinished = state.new_unfinished(work, planned=shared)
        for warning in [*job.warnings()]:
            log.warning("%s", warning)
        if shared:
            log.info("%s: the source is that which the first part listed; what changed since is not looked for", out)
        with _of_a_plan(shared):
            receipts = write_shards(LocalPlace(out, work), job, settings.crop, bad, unfinished, overwrite, run, job.images)
        commit(out, job, receipts, unfinished)
        _warn_of_images(out, job, receipts, settings.crop)
        state.remove_work(work)
    return Result(dataset.open_dataset(out), False, job.survey.id_column)


def _only_local(flag: str, url: str) -> SettingError:
    return SettingError(f"{flag}: cannot write to {url}: omit the flag, or choose an --out in a folder that all processes see")


def _shared_job(request: Request, out: Path, work: Path) -> Job | None:
    """The whole job of an unfinished job array for this request; None if there is none."""
    shared = None if (out / dataset.MANIFEST).exists() else sharing.shared_plan(work)
    if shared is None or shared.difference(request.asked()):
        return None
    return shared.job([*shared.shards])


def _share_plan(request: Request, out: Path, work: Path) -> SharedPlan:
    """The plan of a job array for this request, made unless another process has made it. Raises ConfigError if they differ."""
    asked = request.asked()
    with state.planning(out, work) as is_alone:
        shared = sharing.shared_plan(work)
        if shared is not None:
            state.refuse(out, _UNFINISHED, shared.difference(asked))
            return shared
        begun = state.begun(work)
        if is_alone:
            sharing.clear_unfinished(work)
        job = open_job(request, survey_for(request, work))
        if begun is not None:
            state.refuse(out, _UNFINISHED, state.difference_of_jobs(begun, job.record))
        state.begin(out, work, job.record, (shard.name for shard in job.shards))
        for warning in [*job.warnings()]:
            log.warning("%s", warning)
        shared = sharing.write_plan(work, asked, job)
        state.refuse(out, _UNFINISHED, shared.difference(asked))
        return shared


@contextmanager
def _of_a_plan(is_shared: bool = True) -> Iterator[None]:
    """Explain a change of the source to whoever uses a shared plan, which lists it only once."""
    try:
        yield
    except ChangedError as error:
        if not is_shared:
            raise
        raise SourceError(f"{str(error).rpartition(': ')[0]}: {sharing.START_AGAIN}") from error


def build_share(
    share: JobShare,
    src: str | Path,
    out: str | Path,
    settings: BuildSettings = _SETTINGS,
    solutions_file: str | Path | None = None,
    workers: int = 1,
    bad: BadImages = _BAD,
    tree: str | Path | Tree | None = None,
    votes: str = "",
    id_column: str = "",
    path_column: str = "",
    look: Look = _LOOK,
) -> ShareResult:
    """Write a share of the shards of a dataset, beside other processes that write theirs.

    The first process lists the source and shares the plan with the others in the dataset's folder, which all must see. A share
    that was interrupted resumes when it is called again. When all are complete, `build_dataset` with the same arguments makes
    the folder a dataset; it writes shards that are missing.

    Parameters
    ----------
    share : JobShare
        Which share, as `JobShare(3, 100)`.
    src : str or Path
        Folder or zip, as for `build_dataset`, like all that follows.
    out : str or Path
        Dataset folder, which all processes see.
    settings : BuildSettings
        Crop, size and encoding; splits and shards.
    solutions_file : str or Path, optional
        Table of votes.
    workers : int
        Number of processes of this share.
    bad : BadImages
        What to do with images that cannot be read; the fraction is one of all images.
    tree : str, Path or Tree, optional
        Decision tree of the votes.
    votes : str
        Which votes of the table to use.
    id_column : str
        Column that names the galaxy of each row.
    path_column : str
        Column with the path of each image.
    look : Look
        How FITS images become pictures.

    Returns
    -------
    ShareResult
        Its shards and galaxies, and the number of shards that are still missing from other shares.

    Raises
    ------
    SourceError
        If the images or the votes cannot be used.
    ConfigError
        If `out` holds something else, this share or a whole build is being written, or the plan has other settings or versions.
    SettingError
        If a setting is out of range.
    TreeError
        If `tree` is not a decision tree.
    GalaxyZooError
        If a worker process was killed.

    Examples
    --------
    >>> from preprocess import BuildSettings, CropSettings, JobShare, build_dataset, build_share
    >>> settings = BuildSettings(CropSettings(size=16))
    >>> [build_share(JobShare(number, 2), "demo", "data/shares", settings).missing for number in (1, 2)]
    [2, 0]
    >>> build_dataset("demo", "data/shares", settings).dataset.galaxies("train")
    51
    """
    require_setting(workers >= 1, "workers", workers, "at least 1")
    request = _request(src, settings, solutions_file, tree, votes, id_column, path_column, look)
    out = local_or_store(out)
    if isinstance(out, str):
        raise _only_local(f"--part {share}", out)
    # Processes on other machines may have another current folder.
    request, out = replace(request, src=request.src.resolve()), out.resolve()
    with state.locked_job(out, shared=True) as work:
        if (out / dataset.MANIFEST).exists():
            complete = dataset.open_dataset(out)
            now = {name: value for name, value in settings.flat().items() if complete.settings.get(name) != value}
            changed = "; ".join(f"{name} was {complete.settings.get(name)}, now {value}" for name, value in now.items())
            state.refuse(out, "a dataset with other settings", changed)
            return ShareResult(0, 0, len(complete.shards), 0, already_complete=True)
        shared = _share_plan(request, out, work)
        names = share.spread([*shared.shards])
        job = shared.job(names)

        def run(tasks: Iterator[ShardTask], on_images: Callable[[int], object]) -> Iterator[Receipt]:
            return run_local(write_shard, tasks, workers, on_images)

        with state.locked_share(work, share) as unfinished, _of_a_plan():
            receipts = write_shards(LocalPlace(out, work), job, settings.crop, bad, unfinished, False, run, shared.images)
        galaxies = sum(receipt.shard.examples for receipt in receipts)
        return ShareResult(len(names), galaxies, len(shared.shards), state.missing(work, shared.shards))
