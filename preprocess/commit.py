"""Make the folder of finished shards a dataset: write its metadata."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from preprocess import times
from preprocess.opening import Job
from preprocess.shard import Receipt
from preprocess.survey import fingerprint, in_order_of_ids
from tfrecords import dataset
from tfrecords.errors import SourceError
from tfrecords.files import atomic_file, sha256_file, write_text
from tfrecords.sums import TargetSums, add_up
from tfrecords.text import cell


def _write_csv(path: Path, rows: Iterable[tuple[object, ...]], unfinished: Path) -> None:
    with atomic_file(path, beside=unfinished) as file:
        for row in rows:
            file.write(dataset.csv_line(row))


def commit(folder: Path, job: Job, receipts: list[Receipt], unfinished: Path) -> None:
    """Write the metadata, each file atomically, and last those that make the folder a dataset."""
    survey, record = job.survey, job.record
    rejected = sorted((entry for receipt in receipts for entry in receipt.rejected), key=lambda entry: entry.galaxy_id)
    there = {receipt.shard.split for receipt in receipts if receipt.shard.examples}
    if not there:
        raise SourceError(f"{survey.path}: no image could be used; first {rejected[0].path}: {rejected[0].reason}")
    for receipt in receipts:
        if receipt.shard.split not in there:  # every image of the split was rejected: a split without galaxies is absent
            (folder / receipt.shard.name).unlink(missing_ok=True)
    written = [receipt.shard for receipt in receipts if receipt.shard.split in there]
    shapes = {receipt.shape for receipt in receipts if receipt.shard.examples}
    crcs = in_order_of_ids(job.shards, np.concatenate([receipt.crcs() for receipt in receipts]))
    _write_csv(
        folder / dataset.REJECTED,
        [dataset.REJECTED_HEADER, *((entry.galaxy_id, cell(entry.path), cell(entry.reason)) for entry in rejected)],
        unfinished,
    )
    names = [dataset.REJECTED, dataset.TREE, dataset.FEATURES, dataset.DATASET_INFO]
    tree = survey.tree
    shape = shapes.pop() if len(shapes) == 1 else None
    write_text(folder / dataset.TREE, tree.text, unfinished)
    features = dataset.features_json(record["settings"]["encoding"], shape, tree, survey.asked, survey.named)
    write_text(folder / dataset.FEATURES, features, unfinished)
    write_text(folder / dataset.DATASET_INFO, dataset.dataset_info_json(written, tree), unfinished)
    source = {
        **record["source"],
        "fingerprint": fingerprint(record["source"]["listing"], crcs),
        "rejected": len(rejected),
        "enlarged": sum(receipt.enlarged for receipt in receipts),
    }
    hashes = {name: sha256_file(folder / name) for name in names}
    of_split: dict[str, list[TargetSums]] = defaultdict(list)
    for receipt in receipts:
        if receipt.targets and receipt.shard.split in there:
            of_split[receipt.shard.split].append(receipt.targets)
    targets = {split: add_up(sums) for split, sums in of_split.items()}
    manifest = dataset.manifest_json(record["settings"], source, record["tool"], written, hashes, targets)
    write_text(folder / dataset.MANIFEST, manifest, unfinished)
    times.set_time(folder / dataset.MANIFEST, times.stamp(receipt.times() for receipt in receipts))
