"""The dataset that a run was trained on: what config.json holds of it, and its decision tree."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.checks import is_count, require_crop
from tfrecords.dataset import SPLITS, TREE, Dataset, sha256_text
from tfrecords.errors import RunError, TreeError, squeezed
from tfrecords.fits.look import LOOK_SETTINGS, from_settings
from tfrecords.tree import Tree
from tfrecords.treefile import parse_tree


def dataset_summary(dataset: Dataset) -> dict[str, Any]:
    """The entry `dataset` of config.json. asked: how its numbers of answers came about, "counted" or "assumed"; else false."""
    return {
        "folder": dataset.url or os.fsencode(dataset.folder).decode("utf-8", "backslashreplace"),
        "galaxies": {split: dataset.galaxies(split) for split in SPLITS if dataset.galaxies(split)},
        "fingerprint": dataset.fingerprint,
        "crop_fraction": dataset.settings["crop_fraction"],
        "size": dataset.size,
        "encoding": dataset.encoding,
        "tree": sha256_text(dataset.tree.text),
        "asked": dataset.source.get("asked", False),
        **{name: value for name, value in dataset.settings.items() if name in LOOK_SETTINGS},
    }


def require_origin(content: Mapping[str, Any]) -> None:
    """Raise ValueError, TypeError or KeyError unless this is the entry `dataset` of a config.json."""
    require_crop(content["size"], content["crop_fraction"])
    for name in ("fingerprint", "folder"):
        if not isinstance(content[name], str):
            raise ValueError(f"{name} is no text")
    if not all(split in SPLITS and is_count(galaxies) for split, galaxies in content["galaxies"].items()):
        raise ValueError("no numbers of galaxies")
    from_settings(content)


def tree_of(folder: Path, config: dict[str, Any]) -> Tree:
    """The tree of a run; Kaggle's for runs from before trees were data. Raises RunError if the file was removed or changed."""
    digest = config["dataset"].get("tree")
    if digest is None:
        return builtin_tree()
    path = folder / TREE
    if not path.exists():  # somebody copied config.json and model.keras alone
        ours = (builtin_tree(name) for name in builtin_names())
        tree = next((tree for tree in ours if sha256_text(tree.text) == digest), None)
        if tree is not None:
            return tree
    try:
        text = path.read_bytes().decode("utf-8")
        if sha256_text(text) != digest:
            raise ValueError("it has changed since it was written")
        return parse_tree(text, str(path), path.stem)
    except (OSError, ValueError, TreeError) as error:
        raise RunError(f"{path}: not the decision tree of this run ({squeezed(error)}): restore it, or train again") from error
