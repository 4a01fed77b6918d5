"""The features of galaxies, which the head of a run's model reads, in blocks: of records of a dataset, or of image files."""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from tfrecords.dataset import SPLITS, Dataset
from tfrecords.files import local_path
from tfrecords.fits.look import Look
from tfrecords.integrity import check_shards
from tfrecords.progress import progress_bar
from trainer.backends.base import WHOLE, Result
from trainer.backends.choose import choose
from trainer.images.cutouts import UnreadableImage
from trainer.inference import BATCH_SIZE, ImageFiles, image_files
from trainer.network.model import before_head
from trainer.run import Run

_LABELS = 1024  # read at a time


class Labels(NamedTuple):
    """Some galaxies: galaxy_ids int64 (n,), names str (n,), None if they are numbers, splits str (n,), None for images."""

    galaxy_ids: np.ndarray
    names: np.ndarray | None
    splits: np.ndarray | None

    def called(self) -> list[str]:
        """What tables call each: its name, else its number."""
        return [*map(str, self.galaxy_ids.tolist())] if self.names is None else [*self.names]


class FeatureBlock(NamedTuple):
    """Some galaxies and their features, float32 (n, dimension)."""

    labels: Labels
    features: np.ndarray


class FeatureModel:
    """The best model of a run up to its features. layer: that which outputs them; dimension: their number."""

    def __init__(self, run: Run) -> None:
        self.devices = choose("float32", require_gpu=False)
        with self.devices.scope():
            model, self.layer = before_head(run.load_model())
        self.dimension = int(model.output_shape[-1])
        self._predictor = self.devices.predictor(model)

    def __call__(self, crops: Sequence[np.ndarray]) -> Result:
        """Start: crops, uint8 (rows, size, size, 3), as the only element -> features float32 (rows, dimension)."""
        return self._predictor(crops[0])

    def of_pictures(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """The features of some crops, float32 (n, dimension)."""
        from trainer.input.evaluation import padded

        rows = self.devices.rounded(min(BATCH_SIZE, len(pictures)))
        batches = [np.stack(pictures[start : start + rows]) for start in range(0, len(pictures), rows)]
        return np.concatenate([self([padded(batch, rows)])()[: len(batch)] for batch in batches])


class GalaxySource(Protocol):
    """Galaxies for one run: records or image files.

    name: the dataset or the images, in words. origin: what a file of features holds about them. rejected: images that cannot
    be used. Of a `FeatureModel` and the reader of records, `choose` or `load_backend` must have loaded TensorFlow before.
    """

    name: str
    origin: dict[str, Any]

    @property
    def rejected(self) -> Sequence[UnreadableImage]: ...

    def __len__(self) -> int: ...

    def labels(self) -> Iterator[Labels]:
        """All galaxies, without reading their images."""

    def blocks(self, model: FeatureModel) -> Iterator[FeatureBlock]:
        """The features of all galaxies in the same order, a batch at a time."""

    def pictures(self, galaxy_ids: np.ndarray) -> dict[int, np.ndarray]:
        """The crops of some galaxies by GalaxyID, uint8 (size, size, 3); those that are not there are omitted.

        Raises SourceError if an image cannot be used.
        """


class RecordedGalaxies:
    """Records of a dataset, as stored: see `GalaxySource`. All splits, or one."""

    rejected: tuple[UnreadableImage, ...] = ()

    def __init__(self, run: Run, dataset: Dataset, split: str | None) -> None:
        """Raises ConfigError if the dataset does not fit the run, DatasetError if it is damaged or the split is absent."""
        run.check_dataset(dataset)
        if split is not None:
            dataset.paths(split)  # raises
        self.splits = tuple(name for name in SPLITS if dataset.galaxies(name) and split in (None, name))
        check_shards(dataset, [shard for shard in dataset.shards if shard.split in self.splits])
        self.name = f"{dataset.folder}" if split is None else f"{dataset.folder}, split {split}"
        self.origin = {"dataset": dataset.fingerprint}
        self._dataset = dataset

    def __len__(self) -> int:
        return sum(map(self._dataset.galaxies, self.splits))

    def labels(self) -> Iterator[Labels]:
        from tfrecords.reader import labels_of

        for split in self.splits:
            for ids, names in labels_of(self._dataset, split, _LABELS):
                yield Labels(ids, names, np.full(len(ids), split, object))

    def blocks(self, model: FeatureModel) -> Iterator[FeatureBlock]:
        from tfrecords.reader import labels_of
        from trainer.input.evaluation import predicted_batches

        rows = model.devices.rounded(BATCH_SIZE)
        has_names = self._dataset.named or bool(self._dataset.names())
        with progress_bar(len(self), "features", "galaxies") as bar:
            for split in self.splits:
                batches = predicted_batches(lambda images: model([images]), self._dataset, split, rows, 0, WHOLE)
                names = (some for _, some in labels_of(self._dataset, split, rows)) if has_names else itertools.repeat(None)
                for (ids, features, _), some in zip(batches, names, strict=False):
                    yield FeatureBlock(Labels(ids, some, np.full(len(ids), split, object)), features)
                    bar.update(len(ids))

    def pictures(self, galaxy_ids: np.ndarray) -> dict[int, np.ndarray]:
        from tfrecords.reader import stored_pictures

        return stored_pictures(self._dataset, self.splits, galaxy_ids.tolist())


class ImagedGalaxies:
    """Image files in the order of their ids: see `GalaxySource`."""

    def __init__(self, files: ImageFiles, path: Path) -> None:
        self.name = str(path)
        self.origin = {"images": os.fsencode(path).decode("utf-8", "backslashreplace")}
        self._files = files

    @property
    def rejected(self) -> Sequence[UnreadableImage]:
        return self._files.rejected

    def __len__(self) -> int:
        return len(self._files)

    def labels(self) -> Iterator[Labels]:
        ids = self._files.galaxy_ids
        for start in range(0, len(ids), _LABELS):
            some = ids[start : start + _LABELS]
            yield Labels(some, self._files.names(some), None)

    def blocks(self, model: FeatureModel) -> Iterator[FeatureBlock]:
        for ids, features in self._files.through(model, model.devices, "features"):
            yield FeatureBlock(Labels(ids, self._files.names(ids), None), features)

    def pictures(self, galaxy_ids: np.ndarray) -> dict[int, np.ndarray]:
        return self._files.pictures(galaxy_ids)


@contextlib.contextmanager
def galaxies_of(run: Run, source: Dataset | str | Path, split: str | None, asked: Look) -> Iterator[GalaxySource]:
    """The galaxies of a dataset, or of a file, folder or zip of images, readable within the block.

    split: of a dataset; None for all. asked: how FITS images are to be drawn. Raises the errors of `RecordedGalaxies` and
    `image_files`.
    """
    if isinstance(source, Dataset):
        yield RecordedGalaxies(run, source, split)
        return
    path = local_path(source)
    with image_files([run], path, asked) as files:
        yield ImagedGalaxies(files, path)
