"""One step of training and one of prediction, on either backend and any number of devices.

Keras' own `fit` is not used: it forgets where inside an epoch it was, on JAX it waits for every step's loss unless its
callbacks run in threads, and on several devices it does not send the next batch ahead. Here the host runs two steps ahead
of the accelerator, and everything that the next step depends on can be taken out and put back bit for bit.

Loss and mean squared error, which may be the same, are those over galaxies and columns, in float32. The sum of the squared
errors of an epoch's steps is part of the state, so an epoch that was interrupted ends with that of one that was not.
"""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from trainer.augmentation import augment
from trainer.devices import Devices
from trainer.heads import LOSS_FUNCTIONS, squared_error

_STEPS_IN_FLIGHT = 2


class Steps(Protocol):
    """Training of a model that was built, with its optimizer, under `devices.scope()`."""

    def ready(self, batches: Any) -> Iterator[Any]:
        """A tf.data.Dataset of `pipeline` as batches for `train`, sent to the devices ahead of their use."""

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
        """float32 (batch, 37) for this process' part of a batch, as `Predictor` gives it, by the weights of now."""


def _variables(model: Any, optimizer: Any) -> list[Any]:
    """Model and optimizer list them in the order of their making, the same for the same architecture; each once."""
    return list({id(variable): variable for variable in (*model.variables, *optimizer.variables)}.values())


def _check(old: Sequence[Any], new: Sequence[np.ndarray]) -> None:
    shapes = [[tuple(array.shape) for array in arrays] for arrays in (old, new)]
    if shapes[0] != shapes[1]:
        raise ValueError("its arrays are not those of this model, optimizer and precision")


def _keeps_average(optimizer: Any) -> bool:
    return bool(getattr(optimizer, "inner_optimizer", optimizer).use_ema)


def training_steps(model: Any, optimizer: Any, devices: Devices, kind: str, loss: str = "mse") -> Steps:
    """The steps of the backend in use; `kind`: of augmentation; `loss`: one of heads.LOSS_FUNCTIONS."""
    return (_JaxSteps if devices.backend == "jax" else _TensorFlowSteps)(model, optimizer, devices, kind, loss)


class _TensorFlowSteps:
    def __init__(self, model: Any, optimizer: Any, devices: Devices, kind: str, loss_name: str) -> None:
        import tensorflow as tf

        self._devices = devices
        self._model = model
        self._optimizer = optimizer
        self._variables = _variables(model, optimizer)
        self._sum = tf.Variable(0.0, trainable=False)
        self._running: deque[Any] = deque()
        self._predictor = Predictor(model, devices)
        strategy = devices.strategy

        @tf.autograph.experimental.do_not_convert
        def replica(images: Any, targets: Any, drawn: Any) -> Any:
            with tf.GradientTape() as tape:
                predicted = model(augment(images, drawn, kind), training=True)
                # The optimizer adds up the gradients of the replicas, each of which sees an equal part of the batch.
                error = squared_error(predicted, targets) / devices.replicas
                loss = error if loss_name == "mse" else LOSS_FUNCTIONS[loss_name](predicted, targets) / devices.replicas
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
            batches = batches.apply(tf.data.experimental.prefetch_to_device("/GPU:0", _STEPS_IN_FLIGHT))
        return iter(batches)

    def train(self, batch: Any, stop: bool = False) -> bool:
        self._running.append(self._step(*batch))
        if len(self._running) > _STEPS_IN_FLIGHT:
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
        _check(every, arrays)
        for variable, array in zip(every, arrays, strict=True):
            variable.assign(array)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        if not _keeps_average(self._optimizer):
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

    def predict(self, images: np.ndarray) -> np.ndarray:
        return self._predictor(images)


class _JaxSteps:
    def __init__(self, model: Any, optimizer: Any, devices: Devices, kind: str, loss_name: str) -> None:
        import jax
        import keras

        self._model = model
        self._optimizer = optimizer
        self._devices = devices
        self._running: deque[Any] = deque()
        self._predictor = Predictor(model, devices)
        values = ([variable.value for variable in group] for group in self._groups())
        self._state: Any = devices.replicate((*values, np.float32(0)))
        self._average: Any = None

        def step(state: Any, flags: Any, images: Any, targets: Any, drawn: Any) -> Any:
            trainable, other, of_optimizer, total = state

            def scaled_loss(trainable: Any) -> Any:
                predicted, updated = model.stateless_call(trainable, other, augment(images, drawn, kind), training=True)
                error = squared_error(predicted, targets)
                loss = error if loss_name == "mse" else LOSS_FUNCTIONS[loss_name](predicted, targets)
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
        if len(self._running) <= _STEPS_IN_FLIGHT:
            return stop and self._devices.hosts.processes == 1
        agreed = bool(self._running.popleft())
        return stop if self._devices.hosts.processes == 1 else agreed

    def error_sum(self) -> float:
        return float(self._state[-1])

    def start_epoch(self) -> None:
        self._state = (*self._state[:-1], self._devices.replicate(np.float32(0)))

    def _flat(self) -> dict[int, Any]:
        """Variable -> its value, in the order of `_variables`, so that checkpoints fit both backends."""
        held = {
            id(variable): value
            for group, values in zip(self._groups(), self._state[:3], strict=True)
            for variable, value in zip(group, values, strict=True)
        }
        return {id(variable): held[id(variable)] for variable in _variables(self._model, self._optimizer)}

    def state(self) -> list[np.ndarray]:
        return [np.asarray(value) for value in (*self._flat().values(), self._state[-1])]

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        flat = self._flat()
        _check([*flat.values(), self._state[-1]], arrays)
        new = dict(zip(flat, arrays, strict=False))
        groups = ([new[id(variable)] for variable in group] for group in self._groups())
        self._state = self._devices.replicate((*groups, arrays[-1]))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        import keras

        if not _keeps_average(self._optimizer):
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
        """The values of the trainable variables, or what stands for them, and of the others."""
        return self._state[0] if self._average is None else self._average, self._state[1]

    def weights(self) -> list[np.ndarray]:
        held = {
            id(variable): value
            for group, values in zip(self._groups()[:2], self._shown(), strict=True)
            for variable, value in zip(group, values, strict=True)
        }
        return [np.asarray(held[id(variable)]) for variable in self._model.weights]

    def predict(self, images: np.ndarray) -> np.ndarray:
        return self._predictor(images, self._shown())


def _one_ahead(batches: Iterable[Any]) -> Iterator[Any]:
    waiting: deque[Any] = deque()
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


class Predictor:
    """A model's predictions for batches of one shape, on all devices.

    Called with this process' part of a batch, uint8 (rows, size, size, 3); gives float32 (rows of all processes, 37).
    The rows must be as many in every call: pad the last ones. On JAX `values` are those of the variables, where they are
    not the model's own.
    """

    def __init__(self, model: Any, devices: Devices) -> None:
        self._devices = devices
        if devices.backend == "jax":
            import jax

            self._model = model
            self._values: Any = None

            def call(values: Any, images: Any) -> Any:
                return model.stateless_call(*values, images, training=False)[0]

            self._call: Any = jax.jit(call, out_shardings=devices.everywhere)
        else:
            import tensorflow as tf

            @tf.autograph.experimental.do_not_convert
            def replica(images: Any) -> Any:
                return model(images, training=False)

            self._call = tf.function(replica, jit_compile=devices.xla)

    def __call__(self, images: np.ndarray, values: Any = None) -> np.ndarray:
        if self._devices.backend == "jax":
            if values is None and self._values is None:
                groups = (self._model.trainable_variables, self._model.non_trainable_variables)
                self._values = self._devices.replicate([[variable.value for variable in group] for group in groups])
            return np.asarray(self._call(values or self._values, self._devices.send(images)))
        strategy = self._devices.strategy
        if strategy is None:
            return np.asarray(self._call(images))
        parts = np.split(images, self._devices.replicas)
        split = strategy.experimental_distribute_values_from_function(lambda context: parts[context.replica_id_in_sync_group])
        results = strategy.experimental_local_results(strategy.run(self._call, args=(split,)))
        return np.concatenate([np.asarray(result) for result in results])
