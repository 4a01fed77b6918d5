"""A plain survey of a few galaxies, and what people make of it."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocess.job import BuildSettings, build_dataset
from preprocess.verify.dataset import verify_dataset
from tests.preprocess.dialects import Dialect
from tfrecords.dataset import Dataset

TABLE = "training_solutions_rev1.csv"


@dataclass(frozen=True)
class People:
    """A plain survey of 20 galaxies, its table as texts, its images, and the dataset that it gives."""

    folder: Path
    header: list[str]
    rows: list[list[str]]
    dataset: Dataset

    @property
    def images(self) -> list[Path]:
        return [self.folder / "images_training_rev1" / f"{row[0]}.jpg" for row in self.rows]

    def bring(self, folder: Path) -> Path:
        """A copy without the table."""
        shutil.copytree(self.folder, folder)
        (folder / TABLE).unlink()
        return folder

    def named(self, folder: Path, names: list[str]) -> Path:
        """The first images under other names, without a table."""
        for name, image in zip(names, self.images, strict=False):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, folder / f"{name}.jpg")
        return folder

    def by(self, column: str, ids: list[str], rows: list[list[str]] | None = None) -> bytes:
        """A table with these ids in this column."""
        values = [[name, *row[1:]] for name, row in zip(ids, rows or self.rows, strict=False)]
        return Dialect().written([column, *self.header[1:]], values, ())


def build_and_verify(source: Path, tiny: BuildSettings, **options: Any) -> Dataset:
    """A dataset with which its source agrees."""
    data = build_dataset(source, source.parent / "out", tiny, workers=1, **options).dataset
    assert verify_dataset(data.folder, source, options.get("solutions_file")).findings == ()
    return data


def assert_plain(data: Dataset, people: People) -> None:
    assert [(shard.name, shard.sha256) for shard in data.shards] == [
        (shard.name, shard.sha256) for shard in people.dataset.shards
    ]
    assert (data.galaxies("unlabelled"), data.named) == (0, False)
