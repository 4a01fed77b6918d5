"""The records of a job as text: the receipt of a shard, and the list of the files that are ours."""

import json
import re
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from preprocess.shard import Receipt, Rejected
from tfrecords import dataset
from tfrecords.dataset import Shard
from tfrecords.errors import ConfigError, squeezed
from tfrecords.sums import TargetSums

# In the order in which they are written; the last two make the folder a dataset.
METADATA = (dataset.REJECTED, dataset.NAMES, dataset.TREE, dataset.FEATURES, dataset.DATASET_INFO, dataset.MANIFEST)
_SHARD = re.compile(rf"{dataset.NAME}-[a-z]+\.tfrecord-\d+-of-\d+")


def listed_in(files: str, manifest: str) -> set[str]:
    """The files that a job's list and a manifest name, restricted to names that this program gives; either may be empty.

    An edited manifest still counts; an unreadable one lists nothing.
    """
    names: set[str] = set()
    with suppress(ValueError, TypeError):
        names |= {*json.loads(files)}
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        content = json.loads(manifest)
        if content["dataset"] == dataset.NAME and "galaxy-zoo-vgg16" in content["tool"]:
            names |= {dataset.MANIFEST, *content["files"], *(shard["name"] for shard in content["shards"])}
    return {name for name in names if isinstance(name, str) and (name in METADATA or _SHARD.fullmatch(name))}


def receipt_text(receipt: Receipt) -> str:
    """A receipt as JSON."""
    return dataset.to_json(asdict(receipt))


def parse_receipt(text: str) -> Receipt | None:
    """A receipt; None if an earlier version wrote it, or it is damaged: its shard is then written again."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        return _receipt(json.loads(text))
    return None


def parse_job(text: str, where: object) -> dict[str, Any]:
    """The record of a job. Raises ConfigError if it is damaged. where: its path or URL."""
    try:
        job: dict[str, Any] = json.loads(text)
        if not all(isinstance(job[part], dict) for part in ("settings", "source", "tool")) or not isinstance(job["path"], str):
            raise ValueError("it describes no job")
        return job
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{where}: damaged ({squeezed(error)}): remove the folder that holds it, and build again") from error


def _receipt(content: Any) -> Receipt | None:
    if "targets" not in content:
        return None
    shape = tuple(content["shape"]) if content["shape"] else None
    rejected = tuple(Rejected(**entry) for entry in content["rejected"])
    targets = content["targets"] and TargetSums(*(tuple(content["targets"][name]) for name in ("sums", "counts")))
    shard = Shard(**content["shard"])
    return Receipt(**{**content, "shard": shard, "shape": shape, "rejected": rejected, "targets": targets})
