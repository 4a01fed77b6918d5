"""The dataset folder: shard names, manifest, TFDS metadata, and opening a finished dataset. No TensorFlow.

    dataset_info.json  features.json                        metadata for tensorflow-datasets
    galaxy_zoo-train.tfrecord-00000-of-00024 ...            shards of train, validation, test, unlabelled
    manifest.json                                           settings, source, checksums: for this project
    tree.toml                                               the decision tree that the targets follow
    rejected.csv                                            galaxy_id, source path, reason

Datasets from before records held names have a names.csv (galaxy_id, name) if some names were not numbers.

The metadata is written here as plain JSON, because tfds.folder_dataset.write_metadata imports TensorFlow,
decodes a record, and does not write atomically. The format is that of tensorflow_datasets 4.9
(proto/dataset_info.proto and proto/feature.proto in that package).
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tfrecords.builtin import KAGGLE, builtin_tree
from tfrecords.checks import require_manifest
from tfrecords.errors import BUILD_AGAIN, DatasetError, TreeError
from tfrecords.files import exact_text, local_path, sha256_file
from tfrecords.sums import TargetSums, parse_sums
from tfrecords.text import from_cell
from tfrecords.tree import Tree
from tfrecords.treefile import parse_tree

NAME = "galaxy_zoo"
VERSION = "1.0.0"
SPLITS = ("train", "validation", "test", "unlabelled")
DATASET_INFO = "dataset_info.json"
FEATURES = "features.json"
MANIFEST = "manifest.json"
REJECTED = "rejected.csv"
NAMES = "names.csv"
TREE = "tree.toml"
NAMES_HEADER = ("galaxy_id", "name")
REJECTED_HEADER = ("galaxy_id", "source path", "reason")
# Ids that are numbers, and columns whose values are whole names of files.
_NAMES_FILES = ("", "GalaxyID", "filename", "file", "path", "image")
SHARD_PATTERN = f"{NAME}-*.tfrecord-*-of-*"
_SHARD_NAME = re.compile(rf"{NAME}-({'|'.join(SPLITS)})\.tfrecord-\d{{5,}}-of-\d{{5,}}")
_FILES = {DATASET_INFO, FEATURES, REJECTED, NAMES, TREE}


@dataclass(frozen=True)
class Shard:
    """One file of a split: its name, number of examples, size in bytes and SHA-256 (hex)."""

    name: str
    split: str
    examples: int
    bytes: int
    sha256: str


def shard_name(split: str, index: int, count: int) -> str:
    """The name of a shard in TFDS' format: galaxy_zoo-train.tfrecord-00000-of-00024."""
    return f"{NAME}-{split}.tfrecord-{index:05d}-of-{count:05d}"


def to_json(value: Any) -> str:
    """JSON whose bytes depend only on the value: sorted keys, fixed indent, one newline at the end."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def csv_line(values: Sequence[object]) -> bytes:
    """One line of a CSV file, ending in a bare newline. Text from outside must be escaped by `text.cell` first.

    A value with a semicolon is quoted too: in many countries spreadsheets split at it, and a formula may follow.
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    line = buffer.getvalue()
    if ";" in line:
        line = ",".join(_quoted(str(value)) for value in values) + "\n"
    return line.encode("utf-8")


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"' if any(character in value for character in ',;"') else value


def sha256_text(text: str) -> str:
    """The SHA-256 of a text's UTF-8 bytes, in lower-case hex."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _tensor(dtype: str, shape: Sequence[int], encoding: str = "none", description: str = "") -> dict[str, Any]:
    kind = "tensor_feature.Tensor" if shape else "scalar.Scalar"
    dimensions = {"dimensions": [str(side) for side in shape]} if shape else {}
    return {
        **({"description": description} if description else {}),
        "pythonClassName": f"tensorflow_datasets.core.features.{kind}",
        "tensor": {"dtype": dtype, "encoding": encoding, "shape": dimensions},
    }


def features_json(
    encoding: str, shape: tuple[int, int] | None, tree: Tree, asked: bool, name: bool = False, described: bool = True
) -> str:
    """TFDS' features.json. `shape`: height and width of the stored images if all have the same, else None.

    asked, name: whether records hold it. described: describe each target; datasets made before trees were data do not.
    """
    height, width = shape or (-1, -1)
    image: dict[str, Any]
    if encoding == "raw":
        image = _tensor("uint8", (height, width, 3), "bytes")
    else:
        dimensions = [str(side) for side in (height, width, 3)]
        image = {
            "image": {"dtype": "uint8", "encodingFormat": encoding, "shape": {"dimensions": dimensions}},
            "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
        }
    features = {
        "crop_offset": _tensor("int64", (2,)),
        "galaxy_id": _tensor("int64", ()),
        "image": image,
        "targets": _tensor("float32", (len(tree.columns),), description=_targets_described(tree) if described else ""),
    }
    if asked:
        questions = ", ".join(question.key for question in tree.questions)
        what = f"How many volunteers answered each question, in this order: {questions}"
        features["asked"] = _tensor("float32", (len(tree.questions),), description=what)
    if name:
        kind = "tensorflow_datasets.core.features.text_feature.Text"
        features["name"] = {"description": "The name of the galaxy", "pythonClassName": kind, "text": {}}
    return to_json(
        {
            "featuresDict": {"features": features},
            "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        }
    )


def _targets_described(tree: Tree) -> str:
    names = ", ".join(f"{name} ({tree.describe(place)})" for place, name in enumerate(tree.columns))
    return f"Cumulative vote fractions, in this order: {names}"


def dataset_info_json(shards: Sequence[Shard], tree: Tree) -> str:
    """TFDS' dataset_info.json for these shards, which must be sorted by name within each split."""
    splits = [
        {
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "name": split,
            "numBytes": str(sum(shard.bytes for shard in shards if shard.split == split)),
            "shardLengths": [str(shard.examples) for shard in shards if shard.split == split],
        }
        for split in SPLITS
        if any(shard.split == split for shard in shards)
    ]
    return to_json(
        {
            "citation": tree.citation,
            "description": "Galaxy cutouts, cropped to their centre, with the "
            f"{len(tree.columns)} vote fractions of the {tree.title} decision tree. "
            "crop_offset is the row and column at which the crop begins in the stored image.",
            "fileFormat": "tfrecord",
            "location": {"urls": [tree.url] if tree.url else []},
            "name": NAME,
            "splits": splits,
            "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "targets"}]}},
            "version": VERSION,
        }
    )


def manifest_json(
    settings: Mapping[str, Any],
    source: Mapping[str, Any],
    tool: Mapping[str, str],
    shards: Sequence[Shard],
    files: Mapping[str, str],
    targets: Mapping[str, TargetSums],
) -> str:
    """The text of manifest.json: provenance, checksums, and the sums of targets.

    `files`: SHA-256 of each other file. `targets`: the sums of each split with votes.
    The manifest's own hash, "sha256", is that of `to_json` of its other keys.
    """
    content: dict[str, Any] = {
        "dataset": NAME,
        "version": VERSION,
        "settings": dict(settings),
        "source": dict(source),
        "tool": dict(tool),
        "shards": [asdict(shard) for shard in shards],
        "files": dict(files),
        "targets": {split: asdict(sums) for split, sums in targets.items()},
    }
    return to_json({**content, "sha256": sha256_text(to_json(content))})


@dataclass(frozen=True)
class Dataset:
    """A finished dataset: its folder, how it was built (`settings`), its shards, and its fingerprint.

    files: SHA-256 of every file except the shards and the manifest. tree: the decision tree of its votes. targets: their sums
    in each split with votes; empty if an earlier version wrote it.
    url: where it was read from, if it is in an object store; `fetch` then brings shards into `folder`.
    """

    folder: Path
    settings: dict[str, Any]
    source: dict[str, Any]
    tool: dict[str, str]
    files: dict[str, str]
    shards: tuple[Shard, ...]
    fingerprint: str
    tree: Tree = field(default_factory=builtin_tree)
    targets: Mapping[str, TargetSums] = field(default_factory=dict)
    url: str = ""
    fetch: Callable[[Sequence[Shard]], None] | None = field(default=None, compare=False, repr=False)

    @property
    def asked(self) -> bool:
        """Whether its records hold how many volunteers answered each question."""
        return bool(self.source.get("asked"))

    @property
    def named(self) -> bool:
        """Whether its records hold the names of galaxies."""
        return bool(self.source.get("named"))

    @property
    def votes_width(self) -> int:
        """Length of a galaxy's votes in the input pipeline: its targets and, if the dataset has them, its `asked`."""
        return len(self.tree.columns) + (len(self.tree.questions) if self.asked else 0)

    @property
    def size(self) -> int:
        """Side in pixels of the crops that the reader returns."""
        return int(self.settings["size"])

    @property
    def encoding(self) -> str:
        return str(self.settings["encoding"])

    def galaxies(self, split: str, limit: int = 0) -> int:
        """Number of galaxies in a split, at most `limit` (0: all); 0 if the split does not exist."""
        galaxies = sum(shard.examples for shard in self.shards if shard.split == split)
        return min(galaxies, limit) if limit else galaxies

    def has_means(self, split: str, limit: int = 0) -> bool:
        """Whether `targets` has the means of the first `limit` galaxies of a split (0: all), which is so for all of them."""
        return split in self.targets and self.galaxies(split, limit) == self.galaxies(split)

    def _table(self, name: str, header: tuple[str, ...]) -> list[list[str]]:
        """The rows of a CSV file of the dataset. Raises DatasetError if it is missing or damaged."""
        try:
            with (self.folder / name).open(encoding="utf-8", newline="") as file:
                first, *rows = csv.reader(file)
        except (OSError, ValueError, csv.Error) as error:
            raise DatasetError(f"{self.folder / name}: damaged ({error}): {BUILD_AGAIN}") from error
        usual = all(len(row) == len(header) and row[0].isdecimal() and len(row[0]) < 20 and int(row[0]) < 2**63 for row in rows)
        if tuple(first) != header or not usual:
            raise DatasetError(f"{self.folder / name}: not a table of {', '.join(header)}: {BUILD_AGAIN}")
        return rows

    def paths_of_names(self) -> dict[int, str]:
        """Galaxy id -> path of the image, from the names.csv of an earlier dataset. Raises DatasetError if it is damaged."""
        rows = self._table(NAMES, NAMES_HEADER) if NAMES in self.files else []
        return {int(galaxy_id): from_cell(name) for galaxy_id, name in rows}

    def names(self) -> dict[int, str]:
        """Galaxy id -> name, for galaxies whose names are not numbers, of a dataset whose records do not hold them.

        A name is the path of an image, or its stem if no two are the same and the survey has names for ids. Raises DatasetError
        if the table is damaged.
        """
        names = self.paths_of_names()
        if self.tree.id in _NAMES_FILES:
            return names
        stems = {galaxy_id: name.rpartition("/")[2].rpartition(".")[0] or name for galaxy_id, name in names.items()}
        return stems if len({*stems.values()}) == len(stems) else names

    def rejected(self) -> dict[int, str]:
        """Galaxy id -> path in the source, for images that could not be used. Raises DatasetError if the table is damaged."""
        return {int(galaxy_id): from_cell(path) for galaxy_id, path, _ in self._table(REJECTED, REJECTED_HEADER)}

    def reasons(self) -> list[str]:
        """Why images could not be used, one for each in the order of their ids. Raises DatasetError as `rejected` does."""
        return [from_cell(reason) for _, _, reason in self._table(REJECTED, REJECTED_HEADER)]

    def paths(self, split: str) -> list[Path]:
        """The paths of a split's shards in order. Raises DatasetError, listing the existing splits, if there are none."""
        paths = [self.folder / shard.name for shard in self.shards if shard.split == split]
        if not paths:
            there = ", ".join(name for name in SPLITS if self.galaxies(name))
            raise DatasetError(f"{self.folder}: has no galaxies in split '{split}': choose from {there}")
        return paths


def _tree_of(folder: Path, files: Mapping[str, str]) -> Tree:
    """The tree of a dataset; Kaggle's for datasets that were made before trees were data."""
    if TREE not in files:
        return builtin_tree(KAGGLE)
    path = folder / TREE
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: is missing or damaged: {BUILD_AGAIN}") from error
    if sha256_text(text) != files[TREE]:
        raise DatasetError(f"{path}: has changed since it was written: move it elsewhere, and {BUILD_AGAIN}")
    try:
        return parse_tree(text, str(path), path.stem)
    except TreeError as error:
        raise DatasetError(f"{error}; it was written by another version of preprocess: {BUILD_AGAIN}") from error


def read_manifest(folder: Path) -> Dataset:
    """The dataset as the manifest in `folder` describes it; of the other files only the tree is read and compared with it.

    Raises DatasetError if the folder is missing, unfinished or not a dataset, or if the manifest has been edited.
    """
    advice = "make one with `preprocess --src IMAGES --out FOLDER`"
    local_path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder: {advice}")
    for name in (MANIFEST, DATASET_INFO):
        if not (folder / name).is_file():
            below = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}")) + sorted(
                path.parent for path in folder.glob(f"*/*/{MANIFEST}")
            )
            hint = f"did you mean {below[0]}? Otherwise {advice}" if below else advice
            raise DatasetError(f"{folder}: not a finished dataset ({name} is missing): {hint}")
    try:
        text = exact_text(folder / MANIFEST)
        content = json.loads(text)
        intact = text == to_json(content)
        fingerprint = content.pop("sha256")
        intact &= fingerprint == sha256_text(to_json(content))
        parts = (content["settings"], content["source"], content["tool"], content["files"])
        if not intact:
            raise DatasetError(f"{folder / MANIFEST}: has been edited since it was written: {BUILD_AGAIN}")
        require_manifest(content, _SHARD_NAME, _FILES)
        shards = tuple(Shard(**shard) for shard in content["shards"])
        tree = _tree_of(folder, content["files"])
        sums = content.get("targets", {})  # earlier versions kept none
        targets = {split: parse_sums(sums[split], len(tree.columns)) for split in SPLITS if split in sums}
        return Dataset(folder, *parts, shards, fingerprint, tree, targets)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{folder / MANIFEST}: not a complete manifest of preprocess ({error}): build the dataset again in another folder"
        ) from error


def _check_files(dataset: Dataset) -> None:
    """Raise DatasetError if a file other than the shards is missing or has changed since it was written."""
    for name, digest in dataset.files.items():
        path = dataset.folder / name
        if not path.is_file():
            raise DatasetError(f"{path}: is missing: {BUILD_AGAIN}")
        if sha256_file(path) != digest:
            raise DatasetError(f"{path}: has changed since it was written: move it elsewhere, and {BUILD_AGAIN}")


def open_dataset(folder: str | Path) -> Dataset:
    """Open a finished dataset.

    The shards are not read; `preprocess.verify_dataset` does that.

    Parameters
    ----------
    folder : str or Path
        Dataset folder, as `preprocess` wrote it.

    Returns
    -------
    Dataset
        Its settings, shards and fingerprint.

    Raises
    ------
    DatasetError
        If the folder is missing, unfinished or not a dataset, if a file was edited, or if a shard is missing or has another
        size.

    Examples
    --------
    >>> from tfrecords import open_dataset
    >>> dataset = open_dataset("data/demo")
    >>> {split: dataset.galaxies(split) for split in ("train", "validation", "test", "unlabelled")}
    {'train': 51, 'validation': 4, 'test': 5, 'unlabelled': 6}
    """
    folder = local_path(folder)
    dataset = read_manifest(folder)
    _check_files(dataset)
    for shard in dataset.shards:
        path = folder / shard.name
        if not path.is_file():
            raise DatasetError(f"{path}: this shard is missing: {BUILD_AGAIN}")
        if (size := path.stat().st_size) != shard.bytes:
            raise DatasetError(f"{path}: has {size} bytes instead of {shard.bytes}: {BUILD_AGAIN}")
    return dataset
