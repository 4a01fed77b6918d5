"""What a manifest and the description of a run must hold: types and ranges of the values that are used.

Their hashes show that nobody has edited them. They may still have been written by somebody else, hash included: names that lead
to other folders, and sizes that no memory holds, are refused here.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

_HEX = re.compile(r"[0-9a-f]{64}")
MAX_SIZE = 10_000
ENCODINGS = ("jpeg", "png", "raw")
_SHARD_KEYS = {"name", "split", "examples", "bytes", "sha256"}


def _require(holds: bool, what: str, value: object) -> None:
    """Raise ValueError unless a value is as it must be."""
    if not holds:
        raise ValueError(f"{what}: {str(value)[:80]!r}")


def is_number(value: object, low: float, high: float) -> bool:
    """Whether a value is a finite number from `low` to `high`."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high and value < math.inf


def is_count(value: object, high: float = math.inf) -> bool:
    """Whether a value is a whole number from 0 to `high`."""
    return type(value) is int and 0 <= value <= high


def require_crop(size: object, crop_fraction: object) -> None:
    """Raise ValueError if these are no crop."""
    _require(is_count(size, MAX_SIZE) and size != 0, "no size in pixels", size)
    _require(is_number(crop_fraction, 0, 1) and crop_fraction != 0, "no crop_fraction", crop_fraction)


def _require_shards(shards: Any, name: re.Pattern[str]) -> None:
    names = set()
    for shard in shards:
        _require(shard.keys() == _SHARD_KEYS, "no shard", sorted(shard))
        match = name.fullmatch(shard["name"])
        _require(match is not None and match[1] == shard["split"], "no name of a shard of its split", shard["name"])
        _require(is_count(shard["examples"]) and is_count(shard["bytes"]), "no numbers of a shard", shard)
        _require(_HEX.fullmatch(shard["sha256"]) is not None, "no SHA-256", shard["sha256"])
        names.add(shard["name"])
    _require(len(names) == len(shards), "a shard is listed twice", len(shards) - len(names))


def _require_files(files: Any, names: set[str]) -> None:
    for name, digest in files.items():
        _require(name in names, "no file of a dataset", name)
        _require(_HEX.fullmatch(digest) is not None, "no SHA-256", digest)


def _require_settings(settings: Mapping[str, Any]) -> None:
    require_crop(settings["size"], settings["crop_fraction"])
    _require(settings["encoding"] in ENCODINGS, "no encoding", settings["encoding"])
    for name in ("fits_stretch", "fits_q"):
        if name in settings:
            _require(is_number(settings[name], 0, math.inf) and settings[name] > 0, f"no {name}", settings[name])


def require_ascending(values: Any, length: int, what: str) -> None:
    """Raise ValueError unless these are so many finite numbers of at least 0, each at least as large as the one before."""
    numbers = isinstance(values, list) and len(values) == length and all(is_number(value, 0, math.inf) for value in values)
    _require(numbers and values == sorted(values), f"no {what}", values)


def require_manifest(content: Mapping[str, Any], shard_name: re.Pattern[str], files: set[str]) -> None:
    """Raise ValueError, TypeError, KeyError or AttributeError if the content of a manifest is none.

    shard_name: the names of shards, with the split as its first group. files: the names of all other files.
    """
    _require_shards(content["shards"], shard_name)
    _require_files(content["files"], files)
    _require_settings(content["settings"])
