"""What both backends offer: the hardware of a run, its training steps, its predictions.

Keras' own `fit` is not used: it forgets where inside an epoch it was, on JAX it waits for every step's loss unless its
callbacks run in threads, and on several devices it does not send the next batch ahead. Here the host runs two steps ahead
of the accelerator, and everything that the next step depends on can be taken out and put back bit for bit.

Loss and mean squared error, which may be the same, are those over galaxies and columns, in float32. The sum of the squared
errors of an epoch's steps is part of the state, so an epoch that was interrupted ends with that of one that was not.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

STEPS_IN_FLIGHT = 2


@dataclass(frozen=True)
class Share:
    """Which part of every batch this process has: the `index`-th of `processes` equal ones."""

    processes: int = 1
    index: int = 0


WHOLE = Share()


@dataclass(frozen=True)
class Hardware:
    """The GPUs of this machine (a name each, bytes of the smallest, 0 where unknown), the lowest compute capability, and how
    many devices to use."""

    gpus: tuple[str, ...]
    memory: int
    capability: tuple[int, int]
    local: int


@dataclass(frozen=True)
class Objective:
    """What a step does with a batch, as functions of the backend's tensors.

    augment: images uint8 (batch, size, size, 3), numbers drawn for them (batch, 7) -> images as the model sees them.
    loss: predicted (batch, 37), targets (batch, 37) -> the scalar that is minimised. error: the same, the one that is reported.
    """

    augment: Callable[[Any, Any], Any]
    loss: Callable[[Any, Any], Any]
    error: Callable[[Any, Any], Any]


class Steps(Protocol):
    """Training of a model that was built, with its optimizer, under `devices.scope()`."""

    def ready(self, batches: Any) -> Iterator[Any]:
        """A tf.data.Dataset of `input.training` as batches for `train`, sent to the devices ahead of their use."""

    def train(self, batch: Any, stop: bool = False) -> bool:
        """Start one step, and say whether to stop: that is `stop`, or that of any process two steps ago.

        Returns before the step is done, but not before the second last one is. All processes are told the same.
        """

    def error_sum(self) -> float:
        """The sum of the steps' mean squared errors since `start_epoch`; waits for all steps."""

    def start_epoch(self) -> None:
        """Set the sum of the errors to zero."""

    def state(self) -> list[np.ndarray]:
        """All that the next step depends on, random states and the sum of the errors included."""

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        """Put back what `state` gave. Raises ValueError where number or shapes differ."""

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """In it `weights` and `predict` take the moving average of the weights, where the optimizer keeps one."""

    def weights(self) -> list[np.ndarray]:
        """The model's weights, for `model.set_weights`."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """float32 (batch, 37) for this process' part of a batch, as a `Predictor` gives it, by the weights of now."""


class Predictor(Protocol):
    """A model's predictions for batches of one shape, on all devices."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """This process' part of a batch, uint8 (rows, size, size, 3) -> float32 (rows of all processes, 37).

        The rows must be as many in every call: pad the last ones.
        """


@dataclass(frozen=True)
class Devices:
    """The hardware of a run and how it is used.

    gpus: of this machine, a name each. memory: bytes of the smallest GPU, 0 where unknown.
    precision: a Keras dtype policy. xla: whether XLA compiles the steps. local: devices of this process; replicas: of all.
    """

    backend: ClassVar[str]
    gpus: tuple[str, ...]
    memory: int
    precision: str
    xla: bool = False
    local: int = 1
    share: Share = WHOLE

    @property
    def replicas(self) -> int:
        return self.local * self.share.processes

    def rounded(self, batch_size: int) -> int:
        """The next batch size that the devices can share equally."""
        return -(-batch_size // self.replicas) * self.replicas

    def describe(self, batch_size: int) -> str:
        """What is used for batches of so many galaxies, in a line."""
        if self.gpus:
            size = f" with {self.memory / 2**30:.0f} GiB" if self.memory else ""
            hardware = f"{len(self.gpus)} x GPU {self.gpus[0]}{size}"
        else:
            hardware = f"CPU with {os.cpu_count()} cores, no GPU found"
        xla = "on" if self.xla else "off"
        return f"{hardware}; {self.backend}, precision {self.precision}, XLA {xla}, {self._strategy(batch_size)}"

    def _strategy(self, batch_size: int) -> str:
        if self.replicas == 1:
            return f"one device, {batch_size} images a step"
        machines = f" of {self.share.processes} processes" if self.share.processes > 1 else ""
        return f"{self.parallelism} over {self.replicas} devices{machines}, {batch_size // self.replicas} images each a step"

    @property
    def splits_batches(self) -> bool:
        """Whether a layer sees the part of a batch that is on its device, and not the whole batch."""
        return False

    @property
    def parallelism(self) -> str:
        """How the backend calls its use of several devices."""
        raise NotImplementedError

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Where model and optimizer are made."""
        return contextlib.nullcontext()

    def steps(self, model: Any, optimizer: Any, objective: Objective) -> Steps:
        """Training of a model with its optimizer, both made under `scope`."""
        raise NotImplementedError

    def predictor(self, model: Any) -> Predictor:
        """Predictions of a model whose weights do not change any more."""
        raise NotImplementedError


def variables_of(model: Any, optimizer: Any) -> list[Any]:
    """Model and optimizer list them in the order of their making, the same for the same architecture; each once."""
    return list({id(variable): variable for variable in (*model.variables, *optimizer.variables)}.values())


def check_shapes(old: Sequence[Any], new: Sequence[np.ndarray]) -> None:
    """Raise ValueError where arrays are not those of this model, optimizer and precision."""
    shapes = [[tuple(array.shape) for array in arrays] for arrays in (old, new)]
    if shapes[0] != shapes[1]:
        raise ValueError("its arrays are not those of this model, optimizer and precision")


def keeps_average(optimizer: Any) -> bool:
    """Whether an optimizer keeps a moving average of the weights."""
    return bool(getattr(optimizer, "inner_optimizer", optimizer).use_ema)
