"""The interface of both backends: the hardware of a run, its training steps and its predictions.

Keras' own `fit` is not used: it cannot resume within an epoch, on JAX it waits for every step's loss unless its callbacks
run in threads, and on several devices it does not send the next batch ahead. Here the host runs two steps ahead of the
accelerator, and everything that the next step depends on can be saved and restored bit for bit.

Loss and mean squared error, which may be the same, are computed over galaxies and columns in float32. The state includes
the sum of the errors of an epoch's steps, so an interrupted epoch ends with the same sum as an uninterrupted one.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

STEPS_IN_FLIGHT = 2

T = TypeVar("T")
# Waits for the predictions of a batch: float32 (rows of all processes, outputs).
Result = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Share:
    """This process' part of every batch: number `index`, from 0, of `processes` equal parts."""

    processes: int = 1
    index: int = 0


WHOLE = Share()


@dataclass(frozen=True)
class Hardware:
    """What a backend finds on this machine.

    gpus: one name per GPU. memory: bytes of the smallest GPU, 0 if unknown. capability: the lowest compute capability.
    local: number of devices to use.
    """

    gpus: tuple[str, ...]
    memory: int
    capability: tuple[int, int]
    local: int


@dataclass(frozen=True)
class Objective:
    """What a step computes from a batch, as functions of the backend's tensors.

    augment: images uint8 (batch, size, size, 3), numbers drawn for them (batch, 7) -> images for the model.
    loss: predicted (batch, outputs), votes (batch, width) -> the scalar to minimise. error: likewise, the scalar to report.
    """

    augment: Callable[[Any, Any], Any]
    loss: Callable[[Any, Any], Any]
    error: Callable[[Any, Any], Any]


class Steps(Protocol):
    """Training of a model that was built together with its optimizer under `devices.scope()`."""

    def ready(self, batches: Any) -> Iterator[Any]:
        """Batches for `train` from a tf.data.Dataset of `input.training`, sent to the devices ahead of time."""

    def train(self, batch: Any, stop: bool = False) -> bool:
        """Start one step; return whether to stop: `stop`, or for several processes whether any passed it two steps ago.

        Returns before the step is done, but not before the step two earlier is. All processes get the same answer.
        """

    def error_sum(self) -> float:
        """The sum of the steps' mean squared errors since `start_epoch`; waits for all steps."""

    def start_epoch(self) -> None:
        """Set the sum of the errors to zero."""

    def state(self) -> list[np.ndarray]:
        """Everything that the next step depends on, including random states and the sum of the errors."""

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        """Restore what `state` returned. Raises ValueError if the number of arrays or their shapes differ."""

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """A context in which `weights` and `predict` use the moving average of the weights, if the optimizer keeps one."""

    def weights(self) -> list[np.ndarray]:
        """The model's weights, for `model.set_weights`."""

    def predict(self, images: np.ndarray) -> Result:
        """Predict with the current weights, as a `Predictor` does."""


class Predictor(Protocol):
    """A model's predictions for batches of one shape, on all devices."""

    def __call__(self, images: np.ndarray, symmetry: int = 0) -> Result:
        """Start predicting this process' part of a batch, uint8 (rows, size, size, 3); call what is returned for the result.

        The images are predicted under a symmetry of `tfrecords.symmetries`, on GPUs turned there: NumPy is too slow for them.
        Every call must have the same number of rows: pad the last batch.
        """


@dataclass(frozen=True)
class Devices:
    """The hardware of a run and how it is used.

    gpus: one name per GPU of this machine. memory: bytes of the smallest GPU, 0 if unknown. precision: a Keras dtype policy.
    xla: whether XLA compiles the steps. local: number of devices of this process; replicas: of all processes.
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
        """The batch size, rounded up to one that the devices can share equally."""
        return -(-batch_size // self.replicas) * self.replicas

    def describe(self, batch_size: int) -> str:
        """One line about the hardware and its use for this batch size."""
        if self.gpus:
            size = f" with {self.memory / 2**30:.0f} GiB" if self.memory else ""
            hardware = f"{len(self.gpus)} x GPU {self.gpus[0]}{size}"
        else:
            hardware = f"CPU with {os.cpu_count()} cores, no GPU found"
        xla = "on" if self.xla else "off"
        return f"{hardware}; {self.backend}, precision {self.precision}, XLA {xla}, {self._strategy(batch_size)}"

    def _strategy(self, batch_size: int) -> str:
        if self.replicas == 1:
            return f"one device, {batch_size} images per step"
        machines = f" of {self.share.processes} processes" if self.share.processes > 1 else ""
        return f"{self.parallelism} over {self.replicas} devices{machines}, {batch_size // self.replicas} images each per step"

    @property
    def splits_batches(self) -> bool:
        """Whether a layer gets only the part of a batch on its device, not the whole batch."""
        return False

    @property
    def parallelism(self) -> str:
        """The backend's name for its use of several devices."""
        raise NotImplementedError

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which model and optimizer are built."""
        return contextlib.nullcontext()

    def steps(self, model: Any, optimizer: Any, objective: Objective) -> Steps:
        """Training of a model with its optimizer, both built under `scope`."""
        raise NotImplementedError

    def predictor(self, model: Any) -> Predictor:
        """Predictions of a model whose weights no longer change."""
        raise NotImplementedError


def variables_of(model: Any, optimizer: Any) -> list[Any]:
    """The variables of both, each once, in order of creation: the same order for the same architecture."""
    return list({id(variable): variable for variable in (*model.variables, *optimizer.variables)}.values())


def check_shapes(old: Sequence[Any], new: Sequence[np.ndarray]) -> None:
    """Raise ValueError if the arrays do not fit this model, optimizer and precision."""
    shapes = [[tuple(array.shape) for array in arrays] for arrays in (old, new)]
    if shapes[0] != shapes[1]:
        raise ValueError("its arrays do not fit this model, optimizer and precision")


def keeps_average(optimizer: Any) -> bool:
    """Whether an optimizer keeps a moving average of the weights."""
    return bool(getattr(optimizer, "inner_optimizer", optimizer).use_ema)


def in_turn(started: Iterable[tuple[T, Result]]) -> Iterator[tuple[T, np.ndarray]]:
    """Each item with its result, once the next one has been started: it is sent to a GPU that still computes."""
    waiting: deque[tuple[T, Result]] = deque()
    for each in started:
        waiting.append(each)
        if len(waiting) > 1:
            item, result = waiting.popleft()
            yield item, result()
    for item, result in waiting:
        yield item, result()
