"""Compare a dataset with its source: every galaxy is stored in its planned place or rejected, and every pixel agrees."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from preprocess import plan, surveys
from preprocess.engines import run_local
from preprocess.fitting import wanted_of
from preprocess.survey import Survey, fingerprint
from preprocess.verify.shard import Compared, Contents, Faults, Finding, SourceTask, check_against_source
from tfrecords import dataset
from tfrecords.dataset import Dataset
from tfrecords.errors import DatasetError, SourceError
from tfrecords.fits.look import from_settings
from tfrecords.images import CropSettings
from tfrecords.progress import progress_bar


def _rejected_ids(data: Dataset) -> list[int]:
    """The galaxies in rejected.csv; none if the file is damaged, which is a separate finding."""
    try:
        return [*data.rejected()]
    except DatasetError:
        return []


def _check_members(data: Dataset, contents: list[Contents], survey: Survey, shards: list[plan.ShardPlan]) -> Iterator[Finding]:
    """Check that every galaxy of the source is stored in its planned place or rejected, and that there are no others."""
    rejected = _rejected_ids(data)
    planned = {shard.name: survey.galaxies.ids[shard.rows] for shard in shards}
    for content in contents:
        expected = planned.pop(content.shard.name, np.zeros(0, np.int64))
        expected = expected[~np.isin(expected, rejected)]
        faults = Faults(content.shard.name)
        for galaxy_id in np.setdiff1d(expected, content.ids):
            faults.add("galaxies of the source neither stored here nor rejected", galaxy_id)
        for galaxy_id in np.setdiff1d(content.ids, expected):
            faults.add("galaxies that do not belong here according to the source", galaxy_id)
        if not len(np.setxor1d(expected, content.ids)) and not np.array_equal(expected, content.ids):
            faults.add("its galaxies are not in the planned order")
        yield from faults.findings()
    for name, ids in planned.items():
        if len(ids := ids[~np.isin(ids, rejected)]):
            yield Finding("error", name, f"is missing: the source has {len(ids):,} galaxies for it, first {ids[0]}")


def _source_tasks(
    data: Dataset, crop: CropSettings, contents: list[Contents], survey: Survey, shards: list[plan.ShardPlan]
) -> Iterator[SourceTask]:
    """Yield a comparison for every intact shard; damaged ones cannot be compared."""
    rejected = _rejected_ids(data)
    rows_of = {shard.name: shard.rows for shard in shards}
    everywhere = plan.planned_rows(shards)
    ids = survey.galaxies.ids
    for content in contents:
        if content.findings:
            continue
        rows = np.searchsorted(ids, content.ids).clip(max=len(ids) - 1)
        there = survey.part(rows[(ids[rows] == content.ids) & np.isin(rows, everywhere)])
        planned = rows_of.get(content.shard.name, np.zeros(0, np.int64))
        left_out = survey.part(planned[np.isin(ids[planned], rejected)]).images
        path = data.folder / content.shard.name
        look = from_settings(data.settings)
        yield SourceTask(
            path, content.shard, crop, data.tree, there.images, there.targets, there.asked, left_out, data.named, look
        )


def _check_listed(data: Dataset, survey: Survey, shards: list[plan.ShardPlan]) -> Iterator[Finding]:
    """Check that names and rejected images are those of the source."""
    rows = plan.planned_rows(shards)
    rejected = survey.part(rows[np.isin(survey.galaxies.ids[rows], _rejected_ids(data))]).images
    expected = {dataset.REJECTED: (data.rejected, rejected)}
    if dataset.NAMES in data.files:
        whole = survey.part(rows).images
        expected[dataset.NAMES] = (data.paths_of_names, whole.rows(np.flatnonzero(whole.named)))
    for name, (listed, images) in expected.items():
        with suppress(DatasetError):  # damaged: a separate finding
            if listed() != {int(images.galaxy_id[row]): images.path(row) for row in range(len(images))}:
                yield Finding("error", name, "does not agree with the source")


def _check_provenance(
    data: Dataset, survey: Survey, shards: list[plan.ShardPlan], compared: list[Compared]
) -> Iterator[Finding]:
    """Check the manifest's entries about the source."""
    expected = survey.summary()
    if dataset.NAMES in data.files:  # made before records held names
        expected.pop("named", None)
    ids = np.concatenate([result.ids for result in compared]) if compared else np.zeros(0, np.int64)
    planned = survey.galaxies.ids[plan.planned_rows(shards)]
    order = np.argsort(ids)
    if np.array_equal(ids[order], planned):  # else galaxies are missing, which is a separate finding
        crcs = np.concatenate([result.crcs for result in compared])[order]
        expected["fingerprint"] = fingerprint(expected["listing"], crcs)
    for name, value in expected.items():
        if data.source.get(name) != value:
            what = f"states {name} of the source as {data.source.get(name)} instead of {value}"
            yield Finding("error", dataset.MANIFEST, what)


def compare(
    data: Dataset,
    crop: CropSettings,
    settings: plan.PlanSettings,
    contents: list[Contents],
    src: Path,
    solutions: Path | None,
    workers: int,
) -> Iterator[Finding]:
    """Yield the differences between `data`, whose shards hold `contents`, and what `src` gives with these settings.

    solutions: the table of votes, if it is not in the source. Raises SourceError if the source cannot be read.
    """
    with TemporaryDirectory(prefix="preprocess-verify-") as scratch:
        survey = surveys.survey_of(src, Path(scratch), solutions, wanted_of(data))
        if data.source.get("votes") and not survey.layout:
            raise SourceError(
                f"{src}: has no table of votes, but the dataset was built with one: give it with --solutions FILE"
            )
        if survey.asked != data.asked:
            there = "counts" if survey.asked else "no counts"
            raise SourceError(
                f"{src}: its table of votes has {there}, unlike that of the dataset: give the same table with --solutions FILE"
            )
        shards = plan.make(survey.galaxies, settings)
        survey.prepare(shards)
        yield from _check_members(data, contents, survey, shards)
        total = sum(len(content.ids) for content in contents if not content.findings)
        with progress_bar(total, "comparing with the source", "galaxies") as bar:
            tasks = _source_tasks(data, crop, contents, survey, shards)
            compared = list(run_local(check_against_source, tasks, workers, bar.update))
        for result in compared:
            yield from result.findings
        yield from _check_listed(data, survey, shards)
        yield from _check_provenance(data, survey, shards, compared)
