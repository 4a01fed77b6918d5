"""Build a dataset in an object store. Only copies of inner zips and scattered rows need space on this machine.

    galaxy_zoo-train.tfrecord-00000-of-00024 ...   each written once, in one request, by the worker that packed it
    .preprocess/lease.json                         the lock: see `lease`
    .preprocess/job.json  files.json               what is built, and the objects that are ours
    .preprocess/receipts/SHARD.json                written after the shard
    manifest.json                                  the last of the other files, written only if there is none

A process that is killed at any moment leaves whole objects or none. What it left is listed in files.json, so that the same
command resumes, and no object of others is overwritten or removed. `.preprocess/` is removed when the dataset is complete.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from preprocess import state
from preprocess.commit import commit
from preprocess.engines import run_local
from preprocess.lease import Lease, leased
from preprocess.opening import Job, Request, open_job, survey_for
from preprocess.records import METADATA, listed_in, parse_job, parse_receipt, receipt_text
from preprocess.settings import BadImages
from preprocess.shard import Receipt, ShardTask, write_shard
from preprocess.survey import fingerprint, in_order_of_ids
from preprocess.writing import write_shards
from tfrecords import dataset
from tfrecords.dataset import Dataset
from tfrecords.errors import BUILD_AGAIN, ConfigError, DatasetError
from tfrecords.images import CropSettings
from tfrecords.objects import ConditionError, MissingObjectError, Store
from tfrecords.progress import progress_bar
from tfrecords.storage import open_anywhere

_WORK = f"{state.WORK}/"
_JOB, _FILES, _RECEIPTS = f"{_WORK}job.json", f"{_WORK}files.json", f"{_WORK}receipts/"
_PROBE = f"{_WORK}probe-"
_KNOWN = re.compile(rf"{re.escape(_WORK)}(lease\.json|job\.json|files\.json|receipts/[^/]+\.json|probe-[0-9a-f]+)")
# Requests at a time for small objects.
_CONNECTIONS = 16
log = logging.getLogger("preprocess")


class StoredPlace:
    """The folder of a store that a job writes, by a process that holds its lease. sizes: its objects when the job began."""

    def __init__(self, store: Store, lease: Lease) -> None:
        self.store, self.lease = store, lease
        self.sizes = store.sizes()
        _refuse_others(store, self.sizes)

    def __str__(self) -> str:
        return self.store.url

    @property
    def target(self) -> Store:
        """Where workers write shards."""
        return self.store

    def begun(self) -> dict[str, Any] | None:
        """The record of an interrupted job; None if there is none."""
        if _JOB not in self.sizes:
            return None
        return parse_job(self.store.read(_JOB).decode("utf-8", "replace"), self.store.where(_JOB))

    def begin(self, job: dict[str, Any], shards: Iterable[str]) -> None:
        """Record the job and the objects that it writes, so that it can be resumed."""
        if _JOB not in self.sizes:
            self._list({*shards, *METADATA})
            self._write(_JOB, dataset.to_json(job).encode())

    def _write(self, name: str, content: bytes) -> None:
        self.lease.check()
        self.store.write(name, content)
        self.sizes[name] = len(content)

    def _remove(self, names: Iterable[str]) -> None:
        self.lease.check()
        there = [name for name in names if name in self.sizes]
        self.store.remove(there)
        for name in there:
            del self.sizes[name]

    def _list(self, names: set[str]) -> None:
        self._write(_FILES, dataset.to_json(sorted(names | _listed(self.store, self.sizes))).encode())

    def receipts(self, shards: Iterable[str]) -> dict[str, Receipt]:
        """The receipts of these shards whose objects are there with the size that they were written with, by name."""
        names = [name for name in shards if name in self.sizes and f"{_RECEIPTS}{name}.json" in self.sizes]
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            texts = pool.map(lambda name: self.store.read(f"{_RECEIPTS}{name}.json"), names)
            held = [parse_receipt(text.decode("utf-8", "replace")) for text in texts]
        return {each.shard.name: each for each in held if each is not None and self.sizes[each.shard.name] == each.shard.bytes}

    def save_receipt(self, receipt: Receipt) -> None:
        """Record that a shard is complete."""
        self._write(f"{_RECEIPTS}{receipt.shard.name}.json", receipt_text(receipt).encode())
        self.sizes[receipt.shard.name] = receipt.shard.bytes

    def cleared(self, tasks: Iterable[ShardTask]) -> Iterator[ShardTask]:
        """The tasks, each when what an interrupted job left in place of its shard is removed."""
        for task in tasks:
            self._remove([task.name])
            yield task

    def remove_dataset(self, scratch: Path) -> None:
        """Remove a dataset or unfinished job, first the manifest, and never an object of others.

        Raises ConfigError, before anything is removed, if a metadata file has changed since it was written.
        """
        if dataset.MANIFEST in self.sizes:
            try:
                open_anywhere(self.store.url, scratch)
            except DatasetError as error:
                what = str(error).removesuffix(f": {BUILD_AGAIN}")
                if dataset.MANIFEST not in what:  # an edited manifest, whose hashes cannot be trusted
                    raise ConfigError(f"{what}: move it elsewhere, or choose another --out") from error
        self._list(set())
        ours = _listed(self.store, self.sizes)
        self._remove([dataset.MANIFEST])
        self._remove([dataset.DATASET_INFO])
        self._remove(sorted(ours))
        self._remove([_JOB, *(name for name in self.sizes if name.startswith(_RECEIPTS))])

    def publish(self, folder: Path, shards: Iterable[str]) -> None:
        """Write the metadata in a local folder, last the manifest, only if there is none. shards: those that are to go."""
        self._remove(shards)
        for name in METADATA:
            if (folder / name).is_file() and name != dataset.MANIFEST:
                self._write(name, (folder / name).read_bytes())
        self.lease.check()
        try:
            self.store.create_or_confirm(dataset.MANIFEST, (folder / dataset.MANIFEST).read_bytes())
        except ConditionError as error:
            raise ConfigError(f"{self}: another job has finished a dataset here: choose another --out") from error

    def remove_work(self) -> None:
        """Remove the objects that only a job needs; the lease is removed when it ends."""
        self._remove([name for name in self.sizes if name.startswith((_JOB, _RECEIPTS, _PROBE))])
        self._remove([_FILES])


def _json(store: Store, sizes: dict[str, int], name: str) -> str:
    with suppress(MissingObjectError):
        return store.read(name).decode("utf-8", "replace") if name in sizes else ""
    return ""


def _listed(store: Store, sizes: dict[str, int]) -> set[str]:
    """The objects that a manifest or an unfinished job lists, restricted to names that this program gives."""
    return listed_in(_json(store, sizes, _FILES), _json(store, sizes, dataset.MANIFEST))


def _refuse_others(store: Store, sizes: dict[str, int]) -> None:
    """Raise ConfigError if the folder holds anything that this program did not write."""
    others = {name for name in sizes if not _KNOWN.fullmatch(name)}
    if others:
        others -= _listed(store, sizes)
    if others:
        raise ConfigError(f"{store.url}: holds other objects ({min(others)}): choose an --out that is empty or new")


@contextmanager
def _locked(url: str) -> Iterator[StoredPlace]:
    store = Store(url)
    _refuse_others(store, store.sizes())
    with leased(store) as lease:
        yield StoredPlace(store, lease)


def _complete(place: StoredPlace, job: Job, scratch: Path) -> Dataset:
    """The finished dataset. Raises ConfigError if it was built otherwise, DatasetError if an object is missing or has changed.

    The source is read again, since the store keeps no times of files.
    """
    complete = open_anywhere(place.store.url, scratch)
    before = {"settings": complete.settings, "source": complete.source}
    what = state.difference_of_jobs(before, job.record, ("settings",))
    if not what:
        job.survey.prepare(job.shards)
        bar = progress_bar(job.images, "checking the source", "images", iterable=job.survey.crcs(job.shards))
        crcs = in_order_of_ids(job.shards, np.fromiter(bar, np.uint32))
        if fingerprint(job.record["source"]["listing"], crcs) != complete.source.get("fingerprint"):
            what = "an image of the source has changed"
    state.refuse(place, "a dataset with other settings or source", what)
    for shard in complete.shards:
        if (size := place.sizes.get(shard.name)) != shard.bytes:
            there = "is missing" if size is None else f"has {size} bytes instead of {shard.bytes}"
            raise DatasetError(f"{place.store.where(shard.name)}: {there}: {BUILD_AGAIN}")
    place.remove_work()
    return complete


def build_in_store(
    request: Request,
    url: str,
    workers: int,
    overwrite: bool,
    bad: BadImages,
    report: Callable[[object, Job, list[Receipt], CropSettings], None],
) -> tuple[Dataset, bool, str]:
    """Build a dataset in the store at `url`, or resume; return it, whether it was complete, and the column of ids.

    report: called with the place, the job, all receipts and the crop once the dataset is complete. The dataset's folder, with
    copies of its small files, is gone afterwards.
    """
    with TemporaryDirectory(prefix="preprocess-") as temporary, _locked(url) as place, ExitStack() as at_the_end:
        scratch = Path(temporary)
        survey = survey_for(request, scratch)
        at_the_end.callback(survey.close)
        job = open_job(request, survey)
        begun = place.begun()
        # An unfinished build of the same kind resumes even with `overwrite`.
        if overwrite and (begun is None or state.difference_of_jobs(begun, job.record)):
            place.remove_dataset(scratch / "before")
            begun = None
        if dataset.MANIFEST in place.sizes:
            return _complete(place, job, scratch / "complete"), True, survey.id_column
        if begun is not None:
            what = state.difference_of_jobs(begun, job.record)
            state.refuse(place, "an unfinished build with other settings or source", what)
        place.begin(job.record, (shard.name for shard in job.shards))
        for warning in [*job.warnings()]:
            log.warning("%s", warning)

        def run(tasks: Iterator[ShardTask], on_images: Callable[[int], object]) -> Iterator[Receipt]:
            def checked(images: int) -> None:
                place.lease.check()
                on_images(images)

            return run_local(write_shard, place.cleared(tasks), workers, checked)

        receipts = write_shards(place, job, request.settings.crop, bad, scratch, overwrite, run, job.images)
        metadata = scratch / "metadata"
        metadata.mkdir()
        commit(metadata, job, receipts, scratch)
        written = {shard.name for shard in dataset.read_manifest(metadata).shards}
        place.publish(metadata, [receipt.shard.name for receipt in receipts if receipt.shard.name not in written])
        report(place, job, receipts, request.settings.crop)
        place.remove_work()
        return open_anywhere(url, scratch / "complete"), False, survey.id_column
