"""Keras on TensorFlow: one device, or a MirroredStrategy over all devices of this machine."""

import contextlib
import functools
import subprocess
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrecords.symmetries import transformed
from trainer.backends.base import (
    STEPS_IN_FLIGHT,
    Devices,
    Hardware,
    Objective,
    Result,
    check_shapes,
    keeps_average,
    variables_of,
)
from trainer.backends.startup import without_native_notes

# Under a strategy, an overflow on any device but the first would reach the weights.
UNSAFE_ON_SEVERAL = "mixed_float16"


def _nvidia_memory() -> int:
    """Bytes of the smallest GPU according to nvidia-smi (TensorFlow does not report them); 0 if unknown."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return min(int(line) for line in printed.split()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def find_hardware() -> Hardware:
    """The hardware that TensorFlow finds on this machine."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    names = tuple(str(detail.get("device_name", gpu.name)) for detail, gpu in zip(details, gpus, strict=True))
    with without_native_notes():
        logical = tf.config.list_logical_devices("GPU" if gpus else "CPU")
    capability = min((detail.get("compute_capability", (0, 0)) for detail in details), default=(0, 0))
    return Hardware(names, _nvidia_memory() if gpus else 0, capability, len(logical))


@dataclass(frozen=True)
class TensorFlowDevices(Devices):
    """The devices of this machine."""

    backend = "tensorflow"

    @property
    def splits_batches(self) -> bool:
        return self.replicas > 1

    @property
    def parallelism(self) -> str:
        return "MirroredStrategy"

    @functools.cached_property
    def strategy(self) -> Any:
        """A MirroredStrategy over the devices of this machine; None for one device."""
        if self.replicas == 1:
            return None
        import tensorflow as tf

        with without_native_notes():
            return tf.distribute.MirroredStrategy([f"{'GPU' if self.gpus else 'CPU'}:{index}" for index in range(self.local)])

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        return self.strategy.scope() if self.strategy is not None else contextlib.nullcontext()

    def steps(self, model: Any, optimizer: Any, objective: Objective) -> "TensorFlowSteps":
        return TensorFlowSteps(model, optimizer, self, objective)

    def predictor(self, model: Any) -> "TensorFlowPredictor":
        return TensorFlowPredictor(model, self)


class TensorFlowSteps:
    """See `base.Steps`."""

    def __init__(self, model: Any, optimizer: Any, devices: TensorFlowDevices, objective: Objective) -> None:
        import tensorflow as tf

        self._devices = devices
        self._model = model
        self._optimizer = optimizer
        self._variables = variables_of(model, optimizer)
        self._sum = tf.Variable(0.0, trainable=False)
        self._running: deque[Any] = deque()
        self._predictor = TensorFlowPredictor(model, devices)
        strategy = devices.strategy

        @tf.autograph.experimental.do_not_convert
        def replica(images: Any, targets: Any, drawn: Any) -> Any:
            with tf.GradientTape() as tape:
                predicted = model(objective.augment(images, drawn), training=True)
                # The optimizer adds up the gradients of the replicas, each of which gets an equal part of the batch.
                error = objective.error(predicted, targets) / devices.replicas
                same = objective.loss is objective.error
                loss = error if same else objective.loss(predicted, targets) / devices.replicas
                scaled = optimizer.scale_loss(loss)
            optimizer.apply(tape.gradient(scaled, model.trainable_variables), model.trainable_variables)
            return error

        replica = tf.function(replica, jit_compile=devices.xla)

        @tf.function
        @tf.autograph.experimental.do_not_convert
        def step(images: Any, targets: Any, drawn: Any) -> Any:
            if strategy is None:
                error = replica(images, targets, drawn)
            else:
                error = strategy.reduce("SUM", strategy.run(replica, args=(images, targets, drawn)), axis=None)
            self._sum.assign_add(error)
            return error

        self._step = step

    def ready(self, batches: Any) -> Iterator[Any]:
        import tensorflow as tf

        if self._devices.strategy is not None:
            batches = self._devices.strategy.experimental_distribute_dataset(batches)
        elif self._devices.gpus:
            batches = batches.apply(tf.data.experimental.prefetch_to_device("/GPU:0", STEPS_IN_FLIGHT))
        return iter(batches)

    def train(self, batch: Any, stop: bool = False) -> bool:
        self._running.append(self._step(*batch))
        if len(self._running) > STEPS_IN_FLIGHT:
            self._running.popleft().numpy()
        return stop

    def error_sum(self) -> float:
        return float(self._sum.numpy())

    def start_epoch(self) -> None:
        self._sum.assign(0.0)

    def state(self) -> list[np.ndarray]:
        return [*(np.asarray(variable) for variable in self._variables), self._sum.numpy()]

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        every = [*self._variables, self._sum]
        check_shapes(every, arrays)
        for variable, array in zip(every, arrays, strict=True):
            variable.assign(array)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        if not keeps_average(self._optimizer):
            yield
            return
        variables = self._model.trainable_variables
        kept = [np.asarray(variable) for variable in variables]
        try:
            self._optimizer.finalize_variable_values(variables)
            yield
        finally:
            for variable, value in zip(variables, kept, strict=True):
                variable.assign(value)

    def weights(self) -> list[np.ndarray]:
        return list(self._model.get_weights())

    def predict(self, images: np.ndarray) -> Result:
        return self._predictor(images)


class TensorFlowPredictor:
    """See `base.Predictor`. It always uses the current weights of the model; the steps above rely on that."""

    def __init__(self, model: Any, devices: TensorFlowDevices) -> None:
        import tensorflow as tf

        @tf.autograph.experimental.do_not_convert
        def replica(images: Any) -> Any:
            return model(images, training=False)

        self._devices = devices
        self._call: Any = tf.function(replica, jit_compile=devices.xla)

    def __call__(self, images: np.ndarray, symmetry: int = 0) -> Result:
        images = np.ascontiguousarray(transformed(images, symmetry))
        strategy = self._devices.strategy
        if strategy is None:
            return functools.partial(np.asarray, self._call(images))
        parts = np.split(images, self._devices.replicas)
        split = strategy.experimental_distribute_values_from_function(lambda context: parts[context.replica_id_in_sync_group])
        results = strategy.experimental_local_results(strategy.run(self._call, args=(split,)))
        return lambda: np.concatenate([np.asarray(result) for result in results])
