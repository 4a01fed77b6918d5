"""The predictions of runs for records or image files, a block at a time: what `trainer predict` keeps in memory or streams.

Several runs, and several views of each galaxy, act as one model: their predictions are averaged in float64.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from tfrecords import symmetries
from tfrecords.dataset import Dataset, Shard
from tfrecords.errors import SettingError
from tfrecords.integrity import Stamp, check_shards
from trainer.backends.base import Devices, Result, in_turn
from trainer.images.cutouts import UnreadableImage
from trainer.inference import BATCH_SIZE, ImageFiles, Noticed, crop_of, crops_of
from trainer.run import Run
from trainer.tables import table_order

# Names read at a time.
_LABELS = 1024


class PredictedRows(NamedTuple):
    """Predicted galaxies: galaxy_ids int64 (n,), outputs float32 (n, outputs) as `Ensemble` gives them.

    names: str (n,); None if galaxies are numbers. outside: of images, how each is unlike the training galaxies, str (n,).
    """

    galaxy_ids: np.ndarray
    outputs: np.ndarray
    names: np.ndarray | None = None
    outside: np.ndarray | None = None

    @property
    def keys(self) -> np.ndarray:
        """What tables are sorted by."""
        return self.galaxy_ids if self.names is None else self.names

    def take(self, rows: np.ndarray | slice) -> "PredictedRows":
        """Some rows, in this order."""
        names, outside = (None if words is None else words[rows] for words in (self.names, self.outside))
        return PredictedRows(self.galaxy_ids[rows], self.outputs[rows], names, outside)

    def in_table_order(self) -> "PredictedRows":
        """The same rows as tables list them."""
        return self.take(table_order(self.galaxy_ids, self.names))


def rows_together(parts: Iterable[PredictedRows]) -> PredictedRows:
    """Rows one after another; `parts` has at least one element."""
    ids, outputs, names, outside = zip(*parts, strict=True)
    words = (None if some[0] is None else np.concatenate(some) for some in (names, outside))
    return PredictedRows(np.concatenate(ids), np.concatenate(outputs), *words)


@dataclass(frozen=True)
class PredictedBlock:
    """Some predicted galaxies in the order of their source. votes: float32 (n, width) of records. rejected: images left out."""

    rows: PredictedRows
    votes: np.ndarray | None = None
    rejected: tuple[UnreadableImage, ...] = ()
    noticed: Noticed = field(default_factory=Noticed)

    def __len__(self) -> int:
        """The galaxies of the source that it accounts for."""
        return len(self.rows.galaxy_ids) + len(self.rejected)


class Ensemble:
    """The mean over the models of several runs, each with its own crop, and over `views` symmetries of the square."""

    def __init__(self, runs: Sequence[Run], views: int, devices: Devices) -> None:
        self.tree = runs[0].tree
        for run in runs[1:]:
            self.tree.refuse_other(run.tree, runs[0].folder, run.folder)
        self._sure = all(run.settings["head"] == "dirichlet" for run in runs)
        self._views = views
        self.devices = devices
        self.width = len(self.tree.columns) + (len(self.tree.questions) if self._sure else 0)
        self.crops = crops_of(runs)
        with devices.scope():
            models = [run.load_model() for run in runs]
        self._models = [
            (self.crops.index(crop_of(run)), devices.predictor(model)) for run, model in zip(runs, models, strict=True)
        ]

    def __call__(self, crops: Sequence[np.ndarray]) -> Result:
        """Start predicting float64 (rows, width): the fractions and, if all models have them, the concentrations.

        crops: uint8 (rows, size, size, 3), one array for each of `self.crops`.
        """
        results = [predictor(crops[place], view) for view in range(self._views) for place, predictor in self._models]

        def mean() -> np.ndarray:
            total = np.zeros((len(crops[0]), self.width))
            for result in results:
                total += result()[:, : self.width]
            return total / len(results)

        return mean

    def apart(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Outputs (rows, width) as fractions (rows, n) and concentrations (rows, questions), None if a model has none."""
        answers = len(self.tree.columns)
        return outputs[:, :answers], outputs[:, answers:] if self._sure else None


def several_runs(runs: Run | Sequence[Run], tta: int) -> tuple[Run, ...]:
    """The runs as a tuple. Raises SettingError, before anything slow starts, if there is none or `tta` is illegal."""
    if not 1 <= tta <= symmetries.COUNT:
        raise SettingError(f"--tta {tta}: must be from 1 to {symmetries.COUNT}")
    several = (runs,) if isinstance(runs, Run) else tuple(runs)
    if not several:
        raise SettingError("no run to predict with: give at least one --run")
    return several


class BlockSource(Protocol):
    """Galaxies to predict, in the order of their source.

    doing, unit: for a progress bar. ordered: whether they come as tables list them.
    """

    doing: str
    unit: str
    ordered: bool

    def __len__(self) -> int: ...

    def identity(self) -> dict[str, Any]:
        """What its galaxies are recognised by, as JSON."""

    def rows(self, devices: Devices) -> int:
        """The number of galaxies that are predicted together."""

    def blocks(self, ensemble: Ensemble, start: int = 0, stop: int | None = None) -> Iterator[PredictedBlock]:
        """The predictions for the galaxies from number `start` to `stop` (None: all), `rows` at a time.

        `start` is a multiple of `rows`. So a galaxy has the same neighbours in its batch, and the same bits, for any `start`.
        """

    def conclude(self, noticed: Noticed) -> None:
        """Log warnings about the galaxies. Raises SourceError if none could be used."""

    def stretch(self, noticed: Noticed) -> float | None:
        """The stretch of FITS images; None without any."""


class SplitBlocks:
    """The first `limit` galaxies (0: all) of a split, as stored: see `BlockSource`."""

    unit = "galaxies"
    ordered = False

    def __init__(self, runs: Sequence[Run], dataset: Dataset, split: str, limit: int = 0) -> None:
        """Raises ConfigError if the dataset does not fit a run, DatasetError if the split is absent."""
        for run in runs:
            run.check_dataset(dataset)
        dataset.paths(split)  # raises before anything slow starts
        self.doing = f"predicting {split}"
        self._dataset, self._split, self._total = dataset, split, dataset.galaxies(split, limit)
        self._checked: dict[str, Stamp] = {}

    def __len__(self) -> int:
        return self._total

    def identity(self) -> dict[str, Any]:
        return {"dataset": self._dataset.fingerprint, "split": self._split, "galaxies": self._total}

    def rows(self, devices: Devices) -> int:
        return devices.rounded(BATCH_SIZE)

    def blocks(self, ensemble: Ensemble, start: int = 0, stop: int | None = None) -> Iterator[PredictedBlock]:
        """As in `BlockSource`. Raises DatasetError before the first block if one of their shards is damaged."""
        from trainer.input.evaluation import evaluation_batches, padded  # TensorFlow, which `choose` has loaded quietly

        dataset, rows = self._dataset, self.rows(ensemble.devices)
        self._checked |= check_shards(dataset, self._shards(start, stop or self._total), self._checked)
        batches = evaluation_batches(dataset, self._split, rows, stop or self._total, start=start).as_numpy_iterator()
        started = (((ids, votes), ensemble([padded(images, rows)])) for ids, images, votes in batches)
        next_names = self._next_names(start, stop or self._total)
        for (ids, votes), outputs in in_turn(started):
            outputs = outputs[: len(ids)].astype(np.float32)
            yield PredictedBlock(PredictedRows(ids, outputs, next_names(len(ids))), votes)

    def _shards(self, start: int, stop: int) -> list[Shard]:
        """The shards that hold the galaxies from number `start` to `stop`."""
        shards, first = [], 0
        for shard in self._dataset.shards:
            if shard.split == self._split:
                if first < stop and first + shard.examples > start:
                    shards.append(shard)
                first += shard.examples
        return shards

    def _next_names(self, start: int, stop: int) -> Callable[[int], np.ndarray | None]:
        """A function for the names of the next n galaxies, from number `start` to `stop`; None if they are numbers."""
        from tfrecords.reader import labels_of

        dataset = self._dataset
        if not (dataset.named or dataset.names()):
            return lambda count: None
        before = sum(shard.examples for shard in self._shards(0, start))
        shards = self._shards(start, stop)
        if before > start:  # the shard with number `start` has galaxies before it
            before -= shards[0].examples
        labels = labels_of(replace(dataset, shards=tuple(shards)), self._split, _LABELS)
        every = itertools.chain.from_iterable(some for _, some in labels if some is not None)
        names = itertools.islice(every, start - before, None)
        return lambda count: np.array([*itertools.islice(names, count)], object)

    def conclude(self, noticed: Noticed) -> None:
        """Nothing is noticed about records."""

    def stretch(self, noticed: Noticed) -> float | None:
        return None


class ImageBlocks:
    """Image files in the order of their ids: see `BlockSource`."""

    doing = "predicting"
    unit = "images"

    def __init__(self, files: ImageFiles) -> None:
        self.files = files
        self.ordered = not files.named

    def __len__(self) -> int:
        return len(self.files)

    def identity(self) -> dict[str, Any]:
        look = self.files.look
        return {"images": self.files.digest(), "stretch": [look.stretch.stretch, look.stretch.q], "bands": [*look.bands]}

    def rows(self, devices: Devices) -> int:
        return self.files.rows(devices)

    def blocks(self, ensemble: Ensemble, start: int = 0, stop: int | None = None) -> Iterator[PredictedBlock]:
        for ids, outputs, outside, rejected, noticed in self.files.batches(ensemble, ensemble.devices, start, stop):
            rows = PredictedRows(ids, outputs.reshape(-1, ensemble.width), self.files.names(ids), outside)
            yield PredictedBlock(rows, None, rejected, noticed)

    def conclude(self, noticed: Noticed) -> None:
        self.files.conclude(noticed)

    def stretch(self, noticed: Noticed) -> float | None:
        return self.files.stretch(noticed)
