"""The plan of a job on disk, made once and shared by the processes of a job array.

    plan.json               what was asked for, the job's record, its shards and their tree, with a hash
    plan-RANDOM/SHARD.npz   the images of a shard as a listing, their rows and votes

They stand in the work folder of the job, and are removed with it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar

import numpy as np

from preprocess import plan, versions
from preprocess.opening import Job
from preprocess.plan import ShardPlan
from preprocess.sources import Listing, arrays_of, listing_of, load_arrays, save_arrays
from preprocess.survey import Part, Survey
from tfrecords import locks
from tfrecords.dataset import sha256_text, to_json
from tfrecords.errors import ConfigError, TreeError, squeezed
from tfrecords.files import exact_text, sync_folder, write_text
from tfrecords.fits.look import Look, Stretch
from tfrecords.progress import progress_bar
from tfrecords.treefile import parse_tree

PLAN = "plan.json"
_FOLDER = "plan-"
START_AGAIN = "build with --overwrite and without --part, or choose another --out"
# What a process may have left that was killed while it planned.
_LEFT = re.compile(rf"{_FOLDER}.*|rows-.*|\..*\.partial")


@dataclass(frozen=True)
class _Shared(Survey):
    """A survey as a plan on disk holds it. folder: that of its shards."""

    folder: Path
    source: Mapping[str, Any]
    sentences: Sequence[str]

    current: ClassVar[bool] = False

    def prepare(self, shards: Sequence[ShardPlan]) -> None:
        pass

    def part(self, rows: np.ndarray) -> Part:
        raise NotImplementedError("a shared plan is read shard by shard")

    def part_of(self, shard: ShardPlan) -> Part:
        arrays = load_arrays(_file(self.folder, shard.name), advice=START_AGAIN)
        votes = [
            arrays.get(name, np.full((len(shard.rows), width), empty, np.float32))
            for name, width, empty in (("targets", len(self.tree.columns), np.nan), ("asked", len(self.tree.questions), 0))
        ]
        try:
            images = listing_of(arrays)
        except (KeyError, ValueError, TypeError) as error:
            raise _damaged(_file(self.folder, shard.name), error) from error
        return Part(images, votes[0], votes[1] if self.asked else None)

    def fits_images(self) -> Listing:
        raise NotImplementedError("a shared plan has chosen how FITS images are drawn")

    def summary(self) -> dict[str, Any]:
        return dict(self.source)

    def warnings(self) -> Iterator[str]:
        yield from self.sentences

    def all_warnings(self, shards: Sequence[ShardPlan]) -> Iterator[str]:
        yield from self.sentences


@dataclass(frozen=True)
class SharedPlan:
    """A plan on disk, in the file `path`. shards: the split and the number of images of each, by name."""

    path: Path
    content: Mapping[str, Any]
    shards: Mapping[str, tuple[str, int]]

    @property
    def images(self) -> int:
        """The number of images of all shards."""
        return sum(images for _, images in self.shards.values())

    def difference(self, asked: Mapping[str, Any]) -> str:
        """How what was asked for, and the versions, differ from those of now, in words; empty if they do not."""
        before = self.content["asked"]
        changed = [
            f"{name} was {before.get(name)}, now {asked.get(name)}"
            for name in sorted({*before, *asked})
            if before.get(name) != asked.get(name)
        ]
        other = versions.difference(self.content["record"]["tool"], versions.tool(self.content["look"] is not None))
        return "; ".join([*changed, *([other] if other else [])])

    def job(self, names: Sequence[str]) -> Job:
        """The job with these shards alone. Raises ConfigError if a file of the plan is damaged."""
        content, folder = self.content, self.path.parent / self.content["folder"]
        none = plan.Galaxies(np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0, np.int8))
        try:
            tree = parse_tree(content["tree"]["text"], str(self.path), content["tree"]["name"])
        except TreeError as error:
            raise _damaged(self.path, error) from error
        of_votes = (tree, content["layout"], content["counted"], content["named"], content["id_column"])
        record, look = content["record"], content["look"]
        survey = _Shared(Path(record["path"]), none, *of_votes, folder, record["source"], content["warnings"])
        shards = [self._shard(folder, name) for name in names]
        return Job(survey, shards, record, None if look is None else _look(look))

    def _shard(self, folder: Path, name: str) -> ShardPlan:
        split, images = self.shards[name]
        rows = load_arrays(_file(folder, name), ("rows",), START_AGAIN)["rows"]
        if len(rows) != images:
            raise _damaged(_file(folder, name), ValueError(f"{len(rows)} rows instead of {images}"))
        return ShardPlan(name, split, rows)


def clear_unfinished(work: Path) -> None:
    """Remove what was left in a work folder without a plan by a process that was killed while it planned."""
    locks.clear(work, _LEFT)


def write_plan(work: Path, asked: Mapping[str, Any], job: Job) -> SharedPlan:
    """Write the plan of a job into its work folder. The survey is left open: its images may lie in that folder."""
    folder = Path(mkdtemp(prefix=_FOLDER, dir=work))
    job.survey.prepare(job.shards)
    for shard in progress_bar(len(job.shards), "writing the plan", "shards", iterable=job.shards):
        part = job.survey.part_of(shard)
        arrays = {**arrays_of(part.images), "rows": shard.rows}
        if not np.isnan(part.targets).all():
            arrays["targets"] = part.targets
        if part.asked is not None and part.asked.any():
            arrays["asked"] = part.asked
        save_arrays(_file(folder, shard.name), arrays)
    sync_folder(work)
    survey, look = job.survey, job.look
    content = {
        "asked": dict(asked),
        "record": job.record,
        "folder": folder.name,
        "tree": {"name": survey.tree.name, "text": survey.tree.text},
        "layout": survey.layout,
        "counted": survey.asked,
        "named": survey.named,
        "id_column": survey.id_column,
        "look": None if look is None else [look.bands, [look.stretch.stretch, look.stretch.q], look.otherwise],
        "warnings": [*job.warnings()],
        "shards": [[shard.name, shard.split, len(shard.rows)] for shard in job.shards],
    }
    if there := shared_plan(work):  # without locks another process may have been faster
        return there
    write_text(work / PLAN, to_json({**content, "sha256": sha256_text(to_json(content))}))
    return _parsed(work / PLAN)


def shared_plan(work: Path) -> SharedPlan | None:
    """The plan in a work folder; None if there is none. Raises ConfigError if it is damaged."""
    path = work / PLAN
    return _parsed(path) if path.is_file() else None


def _parsed(path: Path) -> SharedPlan:
    try:
        content = json.loads(text := exact_text(path))
        digest = content.pop("sha256")
        if digest != sha256_text(to_json(content)) or text != to_json({**content, "sha256": digest}):
            raise ValueError("it has been edited")
        return SharedPlan(path, content, {name: (split, images) for name, split, images in content["shards"]})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _look(value: Sequence[Any]) -> Look:
    bands, stretch, otherwise = value
    return Look(tuple(bands), Stretch(*stretch), tuple(otherwise))


def _file(folder: Path, shard: str) -> Path:
    return folder / f"{shard}.npz"


def _damaged(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path}: damaged ({squeezed(error)}): {START_AGAIN}")
