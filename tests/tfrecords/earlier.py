"""Datasets as they were made before records held names: with a table names.csv, in which each image has its path."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tfrecords import dataset, framing, schema
from tfrecords.dataset import Dataset, Shard, csv_line
from tfrecords.text import cell


def _without_names(shard: Shard, path: Path, data: Dataset) -> Shard:
    """Write a shard again without the names in its records."""
    content = b""
    for record in framing.read_records(path):
        example = schema.parse(record, data.tree, data.asked, data.named)
        content += framing.frame(schema.serialize(replace(example, name=None)))
    path.write_bytes(content)
    return replace(shard, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def with_table_of_names(data: Dataset, folder: Path, paths: Mapping[int, str]) -> Dataset:
    """Copy a dataset to `folder` as the code before wrote it. paths: galaxy id -> path in the source, of names."""
    shutil.copytree(data.folder, folder)
    shards = [_without_names(shard, folder / shard.name, data) for shard in data.shards]
    lines = [dataset.NAMES_HEADER, *((number, cell(path)) for number, path in sorted(paths.items()))]
    (folder / dataset.NAMES).write_bytes(b"".join(map(csv_line, lines)))
    features = json.loads((folder / dataset.FEATURES).read_text("utf-8"))
    features["featuresDict"]["features"].pop("name", None)
    (folder / dataset.FEATURES).write_text(dataset.to_json(features), "utf-8")
    (folder / dataset.DATASET_INFO).write_text(dataset.dataset_info_json(shards, data.tree), "utf-8")
    source = {name: value for name, value in data.source.items() if name != "named"}
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (*data.files, dataset.NAMES)}
    manifest = dataset.manifest_json(data.settings, source, data.tool, shards, files, {})
    (folder / dataset.MANIFEST).write_text(manifest, "utf-8")
    return dataset.open_dataset(folder)
