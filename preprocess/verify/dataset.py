"""Check a dataset folder from end to end, and optionally against its source.

No metadata is trusted: every byte is hashed, every record parsed, every image decoded, and the metadata is derived again
from what was found.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from preprocess import plan
from preprocess.engines import run_local
from preprocess.state import WORK
from preprocess.verify.shard import NAMED, CheckTask, Contents, Faults, Finding, check_shard
from preprocess.verify.source import compare
from tfrecords import dataset
from tfrecords.dataset import SPLITS, Dataset
from tfrecords.errors import DatasetError, SettingError, require_setting
from tfrecords.files import files_of_users, local_or_store, local_path, sha256_file
from tfrecords.images import CropSettings
from tfrecords.integrity import fetch_shards
from tfrecords.objects import Store
from tfrecords.progress import progress_bar
from tfrecords.storage import CACHE_DIR, cache_folder, open_anywhere
from tfrecords.sums import TargetSums, add_up


@dataclass(frozen=True)
class Report:
    """All findings, errors first; `dataset` is None if not even the manifest can be trusted."""

    dataset: Dataset | None
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        return sum(finding.level == "error" for finding in self.findings)


def _check_files(data: Dataset) -> Iterator[Finding]:
    """Find files of the folder that are missing, have been edited, or do not belong to the dataset."""
    for name in (dataset.DATASET_INFO, dataset.FEATURES, dataset.REJECTED):
        if name not in data.files:
            yield Finding("error", name, f"is not in {dataset.MANIFEST}")
    for name, digest in data.files.items():
        if not (data.folder / name).is_file():
            yield Finding("error", name, "is missing")
        elif sha256_file(data.folder / name) != digest:
            yield Finding("error", name, "has changed since it was written")
    try:
        if (data.folder / dataset.REJECTED).is_file() and len(data.rejected()) != data.source.get("rejected"):
            yield Finding("error", dataset.REJECTED, f"does not list {data.source.get('rejected')} rejected images")
    except DatasetError as error:
        yield Finding("error", dataset.REJECTED, str(error))
    known = {dataset.MANIFEST, *data.files, *(shard.name for shard in data.shards)}
    there = {name.split("/")[0] for name in Store(data.url).sizes()} if data.url else files_of_users(data.folder)
    for name in sorted(there - known):
        if name == WORK:
            yield Finding("warning", name, "left by an interrupted job: run the same preprocess command again")
        elif name.startswith(f"{dataset.NAME}-"):
            yield Finding("error", name, "a shard that does not belong to this dataset")
        else:
            yield Finding("warning", name, "does not belong to the dataset")
    for split in SPLITS:
        shards = [shard for shard in data.shards if shard.split == split]
        for index, shard in enumerate(shards):
            if shard.name != dataset.shard_name(split, index, len(shards)):
                yield Finding("error", dataset.MANIFEST, f"{shard.name} is not shard {index} of {len(shards)} of split {split}")


def _check_tfds(data: Dataset, contents: list[Contents]) -> Iterator[Finding]:
    """Compare TFDS' metadata with those that follow from the shards found."""
    shapes = frozenset().union(*(content.shapes for content in contents))
    shape = next(iter(shapes)) if len(shapes) == 1 else None
    written = [replace(content.shard, examples=len(content.ids)) for content in contents]
    described = dataset.TREE in data.files
    features = dataset.features_json(data.encoding, shape, data.tree, data.asked, data.named, described)
    for name, expected in (
        (dataset.DATASET_INFO, dataset.dataset_info_json(written, data.tree)),
        (dataset.FEATURES, features),
    ):
        path = data.folder / name
        if path.is_file() and path.read_bytes() != expected.encode("utf-8"):
            yield Finding("error", name, "does not agree with the shards")


def _check_sums(data: Dataset, contents: list[Contents]) -> Iterator[Finding]:
    """Compare the sums of targets in the manifest, if it has any, with those of the shards."""
    of_split: dict[str, list[TargetSums]] = {}
    for content in contents:
        if content.targets:
            of_split.setdefault(content.shard.split, []).append(content.targets)
    if data.targets and data.targets != {split: add_up(sums) for split, sums in of_split.items()}:
        yield Finding("error", dataset.MANIFEST, "its sums of targets do not agree with the shards")


def _check_across(contents: list[Contents]) -> Iterator[Finding]:
    """Find galaxies stored twice, and warn of identical images in two splits, which weaken every test of a model."""
    ids = np.concatenate([content.ids for content in contents])
    keys = np.concatenate([content.images for content in contents])
    shard = np.repeat(np.arange(len(contents)), [len(content.ids) for content in contents])
    split = np.array([SPLITS.index(content.shard.split) for content in contents])[shard]
    order = np.argsort(ids, kind="stable")
    again = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    faults: dict[str, Faults] = {}
    for one, other in zip(order[again], order[again + 1], strict=True):
        names = [contents[shard[row]].shard.name for row in (one, other)]
        faults.setdefault(names[1], Faults(names[1])).add("galaxies stored twice", f"{ids[one]} (also in {names[0]})")
    for of_shard in faults.values():
        yield from of_shard.findings()
    order = np.lexsort((split, keys))
    twins = np.flatnonzero((keys[order][1:] == keys[order][:-1]) & (split[order][1:] != split[order][:-1]))
    if len(twins):
        shown = ", ".join(
            f"{ids[order[twin]]} ({SPLITS[split[order[twin]]]}) and {ids[order[twin + 1]]} ({SPLITS[split[order[twin + 1]]]})"
            for twin in twins[:NAMED]
        )
        yield Finding("warning", "all splits", f"{len(twins):,} identical images in two splits: {shown}")


def _check_empty(contents: list[Contents]) -> Iterator[Finding]:
    """Warn of images that show no galaxy."""
    empty = [(galaxy_id, reason) for content in contents for galaxy_id, reason in content.empty]
    if empty:
        shown = ", ".join(f"{galaxy_id} ({reason})" for galaxy_id, reason in empty[:NAMED])
        yield Finding(
            "warning",
            "all splits",
            f"{'1 image shows' if len(empty) == 1 else f'{len(empty):,} images show'} no galaxy: {shown}",
        )


def _settings(data: Dataset) -> tuple[CropSettings, plan.PlanSettings]:
    """Return the settings of the dataset. Raises DatasetError if a setting is missing or invalid, or no shards are listed."""
    kinds = {"crop_fraction": float, "encoding": str, "validation_fraction": float, "test_fraction": float}
    values: dict[str, Any] = {}
    for field in (*fields(CropSettings), *fields(plan.PlanSettings)):
        value = values[field.name] = data.settings.get(field.name)
        kind = kinds.get(field.name, int)
        too_small = field.name in ("size", "examples_per_shard") and isinstance(value, int) and value < 1
        if too_small or not isinstance(value, (int, float) if kind is float else kind):
            raise DatasetError(f"setting {field.name} has the invalid value {value!r}")
    if not data.shards:
        raise DatasetError("lists no shards")
    of_crop = {field.name: values.pop(field.name) for field in fields(CropSettings)}
    try:
        return CropSettings(**of_crop), plan.PlanSettings(**values)
    except SettingError as error:
        raise DatasetError(f"holds an illegal setting ({error})") from error


def _fetched(data: Dataset) -> Iterator[Finding]:
    """Fetch the shards of an object store; find those that are missing there, or differ from the manifest."""
    with suppress(DatasetError):
        fetch_shards(data, data.shards)
        return
    for shard in data.shards:
        try:
            fetch_shards(data, [shard])
        except DatasetError as error:
            yield Finding("error", shard.name, str(error).removeprefix(f"{data.url}/{shard.name}: "))


def verify_dataset(
    folder: str | Path,
    src: str | Path | None = None,
    solutions: str | Path | None = None,
    workers: int = 1,
    cache_dir: str | Path = CACHE_DIR,
) -> Report:
    """Check every byte of a dataset, and compare it with its source.

    Parameters
    ----------
    folder : str or Path
        Dataset folder, or its URL in an object store.
    src : str or Path, optional
        The source, to compare every galaxy with, pixel by pixel.
    solutions : str or Path, optional
        Table of votes, if it is not in `src` under a usual name.
    workers : int
        Number of processes. They are spawned: in a script, call this below `if __name__ == "__main__":`.
    cache_dir : str or Path
        Folder in which there is space for a copy of a dataset in an object store. The copy is removed.

    Returns
    -------
    Report
        `findings`, errors first, the number of `errors`, and the `dataset`, which is None if its manifest is damaged.

    Raises
    ------
    DatasetError
        If `folder` holds no dataset.
    SourceError
        If the source cannot be read.
    SettingError
        If `workers` is out of range.
    GalaxyZooError
        If a worker process was killed.

    Examples
    --------
    >>> from preprocess import verify_dataset
    >>> verify_dataset("data/demo", src="demo").findings
    ()
    """
    require_setting(workers >= 1, "workers", workers, "at least 1")
    src, solutions = (None if path is None else local_path(path) for path in (src, solutions))
    where = local_or_store(folder)
    if isinstance(where, Path):
        return _verified(where, None, src, solutions, workers)
    cache = cache_folder(cache_dir)
    cache.mkdir(parents=True, exist_ok=True)
    # Not the copies in the cache, which would hide that an object has changed since.
    with TemporaryDirectory(prefix=".verify-", dir=cache) as fresh:
        stored = open_anywhere(where, fresh)
        return _verified(stored.folder, stored, src, solutions, workers)


def _verified(folder: Path, stored: Dataset | None, src: Path | None, solutions: Path | None, workers: int) -> Report:
    """The report about the dataset in a folder. stored: the same, if it was opened in an object store."""
    if not (folder / dataset.MANIFEST).is_file():
        dataset.read_manifest(folder)  # raises the error that names what is missing
    try:
        data = stored or dataset.read_manifest(folder)
        crop, planned = _settings(data)
    except DatasetError as error:
        # Without its tree, no record of a dataset can be read.
        where = dataset.TREE if str(error).startswith(f"{folder / dataset.TREE}: ") else dataset.MANIFEST
        return Report(None, (Finding("error", where, str(error).removeprefix(f"{folder / where}: ")),))
    if lost := list(_fetched(data)):
        return Report(data, tuple(lost))
    findings = list(_check_files(data))
    longest_first = sorted(data.shards, key=lambda shard: -shard.examples)
    tasks = (CheckTask(folder / shard.name, shard, crop, data.tree, data.asked, data.named) for shard in longest_first)
    by_name: dict[str, Contents] = {}
    with progress_bar(sum(shard.examples for shard in data.shards), "verifying shards", "galaxies") as bar:
        for result in run_local(check_shard, tasks, min(workers, len(data.shards)), bar.update):
            by_name[result.shard.name] = result
    contents = [by_name[shard.name] for shard in data.shards]
    for result in contents:
        findings += result.findings
    findings += _check_across(contents)
    findings += _check_empty(contents)
    if not any(result.findings for result in contents):
        findings += [*_check_tfds(data, contents), *_check_sums(data, contents)]
    if src is not None:
        findings += compare(data, crop, planned, contents, src, solutions, workers)
    return Report(data, tuple(sorted(findings, key=lambda finding: (finding.level, finding.where))))
