"""Keras on JAX: the devices of one or several machines as one mesh, over which each batch is divided."""

import contextlib
import functools
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.errors import RunError, install_extra, squeezed
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
from trainer.backends.pooling import with_fast_gradients
from trainer.backends.startup import without_native_notes

_MEMORY_FRACTION = 0.75  # JAX's default


def _keep_compiled() -> None:
    """Keep compiled programs in the user's cache, unless JAX has been given another folder.

    Compiling takes up to half a minute. Only on GPUs: a program for one CPU may not run on another that shares the folder.
    """
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    with contextlib.suppress(OSError, RuntimeError):  # no home, or one that cannot be written: compile again next time
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "galaxy-zoo-vgg16" / "jax"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))


def find_hardware() -> Hardware:
    """The hardware that JAX finds on this machine. Raises RunError if JAX cannot start."""
    import jax

    try:
        with without_native_notes():
            devices = jax.local_devices()
    except MemoryError:
        raise
    except Exception as error:  # of many kinds, including AssertionError
        raise RunError(
            f"JAX cannot initialise its devices ({squeezed(error)}): check nvidia-smi and JAX_PLATFORMS, or run "
            f"{install_extra('jax-gpu')}"
        ) from error
    gpus = [device for device in devices if device.platform == "gpu"]
    if gpus:
        _keep_compiled()
    # JAX reports the memory that it may use, a fraction of the GPU's.
    usable = os.environ.get("XLA_CLIENT_MEM_FRACTION") or os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION") or _MEMORY_FRACTION
    memory = [round((gpu.memory_stats() or {}).get("bytes_limit", 0) / float(usable)) for gpu in gpus]
    # AMD GPUs report theirs in another form; all that JAX supports have bfloat16.
    versions = [re.fullmatch(r"(\d+)\.(\d+)", str(getattr(gpu, "compute_capability", ""))) for gpu in gpus]
    capability = min(((int(match[1]), int(match[2])) if match else (99, 0) for match in versions), default=(0, 0))
    return Hardware(tuple(gpu.device_kind for gpu in gpus), min(memory, default=0), capability, len(devices))


@dataclass(frozen=True)
class JaxDevices(Devices):
    """The devices of this machine, and of the other processes of the run."""

    backend = "jax"

    @property
    def parallelism(self) -> str:
        return "data parallel"

    @functools.cached_property
    def _mesh(self) -> Any:
        import jax

        devices = jax.devices() if self.share.processes > 1 else jax.local_devices()
        return jax.sharding.Mesh(np.array(devices), ("batch",))

    @property
    def everywhere(self) -> Any:
        """The sharding of arrays that every device holds in full."""
        import jax

        return jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec())

    def replicate(self, values: Any) -> Any:
        """Copy nested lists of arrays in full to every device; if processes differ, each keeps its own."""
        import jax

        def everywhere(value: Any) -> Any:
            return jax.make_array_from_process_local_data(self.everywhere, np.asarray(value))

        return jax.tree.map(everywhere, values)

    def send(self, rows: np.ndarray) -> Any:
        """The whole batch, divided among all devices, of which `rows` is this process' part."""
        import jax

        sharding = jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec("batch"))
        return jax.make_array_from_process_local_data(sharding, rows)

    def steps(self, model: Any, optimizer: Any, objective: Objective) -> "JaxSteps":
        return JaxSteps(model, optimizer, self, objective)

    def predictor(self, model: Any) -> "JaxPredictor":
        return JaxPredictor(model, self)


class JaxSteps:
    """See `base.Steps`. The state is in this object; the variables of model and optimizer stay unchanged."""

    def __init__(self, model: Any, optimizer: Any, devices: JaxDevices, objective: Objective) -> None:
        import jax
        import keras

        self._model = model
        self._optimizer = optimizer
        self._devices = devices
        self._running: deque[Any] = deque()
        self._predictor = JaxPredictor(model, devices)
        values = ([variable.value for variable in group] for group in self._groups())
        self._state: Any = devices.replicate((*values, np.float32(0)))
        self._average: Any = None
        trained = with_fast_gradients(model)

        def step(state: Any, flags: Any, images: Any, targets: Any, drawn: Any) -> Any:
            trainable, other, of_optimizer, total = state

            def scaled_loss(trainable: Any) -> Any:
                predicted, updated = trained.stateless_call(trainable, other, objective.augment(images, drawn), training=True)
                error = objective.error(predicted, targets)
                loss = error if objective.loss is objective.error else objective.loss(predicted, targets)
                with keras.StatelessScope(state_mapping=list(zip(optimizer.variables, of_optimizer, strict=True))):
                    return optimizer.scale_loss(loss), (error, updated)

            gradients, (error, updated) = jax.grad(scaled_loss, has_aux=True)(trainable)
            trainable, of_optimizer = optimizer.stateless_apply(of_optimizer, gradients, trainable)
            return (trainable, updated, of_optimizer, total + error), flags.any()

        self._step = jax.jit(step, donate_argnums=0, out_shardings=devices.everywhere)

    def _groups(self) -> tuple[list[Any], list[Any], list[Any]]:
        return self._model.trainable_variables, self._model.non_trainable_variables, self._optimizer.variables

    def ready(self, batches: Any) -> Iterator[Any]:
        return _one_ahead(tuple(map(self._devices.send, batch)) for batch in batches.as_numpy_iterator())

    def train(self, batch: Any, stop: bool = False) -> bool:
        flags = self._devices.send(np.full(self._devices.local, stop))
        self._state, stops = self._step(self._state, flags, *batch)
        self._running.append(stops)
        if len(self._running) <= STEPS_IN_FLIGHT:
            return stop and self._devices.share.processes == 1
        agreed = bool(self._running.popleft())
        return stop if self._devices.share.processes == 1 else agreed

    def error_sum(self) -> float:
        return float(self._state[-1])

    def start_epoch(self) -> None:
        self._state = (*self._state[:-1], self._devices.replicate(np.float32(0)))

    def _flat(self) -> dict[int, Any]:
        """Variable -> its value, in the order of `variables_of`, so that checkpoints fit both backends."""
        held = {
            id(variable): value
            for group, values in zip(self._groups(), self._state[:3], strict=True)
            for variable, value in zip(group, values, strict=True)
        }
        return {id(variable): held[id(variable)] for variable in variables_of(self._model, self._optimizer)}

    def state(self) -> list[np.ndarray]:
        return [np.asarray(value) for value in (*self._flat().values(), self._state[-1])]

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        flat = self._flat()
        check_shapes([*flat.values(), self._state[-1]], arrays)
        new = dict(zip(flat, arrays, strict=False))
        groups = ([new[id(variable)] for variable in group] for group in self._groups())
        self._state = self._devices.replicate((*groups, arrays[-1]))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        import keras

        if not keeps_average(self._optimizer):
            yield
            return
        variables = self._model.trainable_variables
        held = [*zip(variables, self._state[0], strict=True), *zip(self._optimizer.variables, self._state[2], strict=True)]
        with keras.StatelessScope(state_mapping=held) as scope:
            self._optimizer.finalize_variable_values(variables)
        self._average = [scope.get_current_value(variable) for variable in variables]
        try:
            yield
        finally:
            self._average = None

    def _shown(self) -> tuple[Any, Any]:
        """The values of the trainable variables, within `averaged` their moving averages, and of the other variables."""
        return self._state[0] if self._average is None else self._average, self._state[1]

    def weights(self) -> list[np.ndarray]:
        held = {
            id(variable): value
            for group, values in zip(self._groups()[:2], self._shown(), strict=True)
            for variable, value in zip(group, values, strict=True)
        }
        return [np.asarray(held[id(variable)]) for variable in self._model.weights]

    def predict(self, images: np.ndarray) -> Result:
        return self._predictor.by(self._shown(), images)


def _one_ahead(batches: Iterable[Any]) -> Iterator[Any]:
    waiting: deque[Any] = deque()
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


class JaxPredictor:
    """See `base.Predictor`."""

    def __init__(self, model: Any, devices: JaxDevices) -> None:
        import jax

        def call(values: Any, images: Any) -> Any:
            return model.stateless_call(*values, images, training=False)[0]

        self._model = model
        self._devices = devices
        self._call: Any = jax.jit(call, out_shardings=devices.everywhere)
        self._turned: Any = jax.jit(transformed, static_argnums=1)
        self._values: Any = None

    def __call__(self, images: np.ndarray, symmetry: int = 0) -> Result:
        if self._values is None:
            groups = (self._model.trainable_variables, self._model.non_trainable_variables)
            self._values = self._devices.replicate([[variable.value for variable in group] for group in groups])
        return self.by(self._values, images, symmetry)

    def by(self, values: Any, images: np.ndarray, symmetry: int = 0) -> Result:
        """The same with other values of the variables: (trainable, non-trainable)."""
        sent = self._devices.send(images)
        predicted = self._call(values, self._turned(sent, symmetry) if symmetry else sent)
        return functools.partial(np.asarray, predicted if self._devices.gpus else predicted.block_until_ready())
