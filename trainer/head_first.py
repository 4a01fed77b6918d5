"""The first epochs of a run with --head_epochs: the base is frozen, and what follows it learns from its features.

Random layers behind a pretrained base send it large, meaningless gradients at first; this spares it them, and most of the time.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfrecords.commandline import Interruption
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError
from trainer import features, symmetries
from trainer.config import TrainConfig
from trainer.devices import Devices
from trainer.model import Design, features_and_head
from trainer.optimizer import optimizer
from trainer.predict import rounded_batch
from trainer.run import Run
from trainer.schedule import Rate
from trainer.steps import Predictor, training_steps

# Galaxies that the base takes at a time, at most.
_ROWS = 64


class HeadFirst:
    """Training of the head on the features of a frozen base, as `steps.Steps` is that of all layers.

    `training`: its steps. The features are there after `prepare`.
    """

    def __init__(
        self, model: Any, design: Design, config: TrainConfig, dataset: Dataset, devices: Devices, run: Run, rate: Rate
    ) -> None:
        """Built under `devices.scope()`. Raises ConfigError for several machines."""
        if devices.hosts.processes > 1:
            raise ConfigError(
                "--head_epochs: works on one machine: train them there first, or leave them out with --head_epochs 0"
            )
        self._model, self._config, self._dataset, self._devices, self._run = model, config, dataset, devices, run
        self._base, self._head = features_and_head(model, design)
        adam = optimizer(self._head.trainable_variables, rate, devices.precision, config.weight_decay, config.ema)
        self.training = training_steps(self._head, adam, devices, "none", config.loss)
        self._predictor = Predictor(self._base, devices)
        self._features: dict[str, features.Features] = {}

    @property
    def description(self) -> str:
        """Of the features, for the terminal, once they are there."""
        values = self._features["train"].values
        size = sum(part.values.nbytes for part in self._features.values())
        views = "as they are" if len(values) == 1 else f"in {len(values)} symmetries"
        return f"features of the {values.shape[1]:,} galaxies of split 'train', {views}: {size / 1e6:,.0f} MB on disk"

    def prepare(self, interruption: Interruption) -> bool:
        """Compute the features of `train` and `validation`; False where a signal came first."""
        config = self._config
        length = int(self._base.output_shape[1])
        for split, views in (("train", symmetries.COUNT if config.augment != "none" else 1), ("validation", 1)):
            if galaxies := self._dataset.galaxies(split):
                rows = rounded_batch(min(_ROWS, galaxies, config.limit or galaxies), self._devices)
                path = self._run.features_path(split)
                made = features.compute(
                    path, self._predictor, length, self._dataset, split, views, rows, config.limit, interruption
                )
                if made is None:
                    return False
                self._features[split] = made
        return True

    def batches(self, batch_size: int, first_epoch: int, skip: int) -> Iterator[Any]:
        """The batches from here to the last epoch on features."""
        config = self._config
        epochs = range(first_epoch, config.head_epochs)
        source = features.batches(self._features["train"], self._dataset, batch_size, config.seed, config.limit, epochs, skip)
        return iter(self.training.ready(source))

    def predicted(self, split: str, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches (predicted, targets) of `validation` or `train`."""
        rows = rounded_batch(self._config.batch_size, self._devices)
        return features.predicted(self.training.predict, self._features[split], rows, limit)

    def weights(self) -> list[np.ndarray]:
        """Those of the whole model, which takes over the head's."""
        self._head.set_weights(self.training.weights())
        return list(self._model.get_weights())

    def state(self) -> list[np.ndarray]:
        """The base's weights, which the file that they came from may not outlive, and what the next step depends on."""
        return [*self._base.get_weights(), *self.training.state()]

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        """Put back what `state` gave. Raises ValueError where number or shapes differ."""
        count = len(self._base.weights)
        self._base.set_weights(list(arrays[:count]))
        self.training.restore(arrays[count:])


def forget_features(run: Run) -> None:
    """Remove them, where there are any: all layers train now, or the run is over."""
    for split in ("train", "validation"):
        run.features_path(split).unlink(missing_ok=True)
