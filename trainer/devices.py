"""Backend, GPUs, precision: what hardware there is and how it is used."""

import contextlib
import functools
import logging as python_logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import numpy as np
from absl import logging

from tfrecords.errors import DatasetError, GalaxyZooError, RunError

P = ParamSpec("P")
R = TypeVar("R")

BACKENDS = ("tensorflow", "jax")
# The first NVIDIA generation with bfloat16 arithmetic (Ampere); older ones have float16 alone.
_BFLOAT16_CAPABILITY = (8, 0)
# Under TensorFlow's strategies an overflow on any device but the first would go into the weights.
_UNSAFE = "mixed_float16"


@dataclass(frozen=True)
class Share:
    """Which part of every batch this process has: the `index`-th of `processes` equal ones."""

    processes: int = 1
    index: int = 0


WHOLE = Share()


@dataclass(frozen=True)
class Devices:
    """The hardware of a run and how it is used.

    backend: "tensorflow" or "jax". gpus: of this machine, a name each. memory: bytes of the smallest GPU, 0 where unknown.
    precision: a Keras dtype policy. xla: whether XLA compiles the steps. local: devices of this process; replicas: of all.
    """

    backend: str
    gpus: tuple[str, ...]
    memory: int
    precision: str
    xla: bool = False
    local: int = 1
    hosts: Share = WHOLE

    @property
    def replicas(self) -> int:
        return self.local * self.hosts.processes

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
        name = "MirroredStrategy" if self.backend == "tensorflow" else "data parallel"
        machines = f" of {self.hosts.processes} processes" if self.hosts.processes > 1 else ""
        return f"{name} over {self.replicas} devices{machines}, {batch_size // self.replicas} images each a step"

    @functools.cached_property
    def strategy(self) -> Any:
        """TensorFlow's MirroredStrategy over the devices of this machine; None for one device and on JAX."""
        if self.backend == "jax" or self.replicas == 1:
            return None
        import tensorflow as tf

        with without_native_notes():
            return tf.distribute.MirroredStrategy([f"{'GPU' if self.gpus else 'CPU'}:{index}" for index in range(self.local)])

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Where model and optimizer are made."""
        return self.strategy.scope() if self.strategy is not None else contextlib.nullcontext()

    @functools.cached_property
    def _mesh(self) -> Any:
        import jax

        devices = jax.devices() if self.hosts.processes > 1 else jax.local_devices()
        return jax.sharding.Mesh(np.array(devices), ("batch",))

    @property
    def everywhere(self) -> Any:
        """JAX: the sharding of what every device holds whole."""
        import jax

        return jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec())

    def replicate(self, values: Any) -> Any:
        """JAX: nested lists of arrays, whole on every device; where processes differ, each keeps its own."""
        import jax

        def everywhere(value: Any) -> Any:
            return jax.make_array_from_process_local_data(self.everywhere, np.asarray(value))

        return jax.tree.map(everywhere, values)

    def send(self, rows: np.ndarray) -> Any:
        """JAX: this process' rows of a batch as a part of the whole batch, shared out among the devices."""
        import jax

        sharding = jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec("batch"))
        return jax.make_array_from_process_local_data(sharding, rows)


@contextlib.contextmanager
def without_native_notes() -> Iterator[None]:
    """Hold back what native code writes to stdout and stderr; it is shown only where the block raises or --verbosity is 1.

    TensorFlow's start-up notes come before its own log level counts, a screenful that would bury our lines.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held, contextlib.ExitStack() as on_exit:
        kept = {stream: os.dup(stream) for stream in (1, 2)}
        for copy in kept.values():
            on_exit.callback(os.close, copy)
        for stream in kept:
            os.dup2(held.fileno(), stream)
        try:
            yield
        except BaseException:
            on_exit.callback(_replay, held)
            raise
        finally:
            for stream, copy in kept.items():
                os.dup2(copy, stream)
        if logging.get_verbosity() >= logging.DEBUG:
            _replay(held)


def _replay(held: Any) -> None:
    held.seek(0)
    with os.fdopen(os.dup(2), "wb") as stderr:
        shutil.copyfileobj(held, stderr)


def load_backend() -> str:
    """Import Keras, its backend and TensorFlow without their start-up notes; returns the backend's name.

    TensorFlow reads the records for both backends; with JAX it is kept off the GPUs. Neither takes more of a GPU's
    memory than it needs. Raises RunError where an import fails, or Keras is set to another backend.
    """
    with without_native_notes():
        # Read when JAX starts: else it takes three quarters of the GPU's memory at once.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        if logging.get_verbosity() < logging.DEBUG:
            python_logging.getLogger("jax").setLevel(python_logging.WARNING)
        try:
            import keras
            import tensorflow as tf
        except (ImportError, ValueError) as error:  # ValueError for a name that Keras does not know
            raise RunError(
                f"Keras or its backend cannot be imported ({error}): install again, for JAX with the extra jax or jax-gpu, "
                "or unset KERAS_BACKEND"
            ) from error
        backend = str(keras.backend.backend())
        gpus = tf.config.list_physical_devices("GPU")
        with contextlib.suppress(RuntimeError):  # TensorFlow has begun its work: this was done before
            if backend == "jax":
                tf.config.set_visible_devices([], "GPU")
            for gpu in gpus if backend == "tensorflow" else ():
                tf.config.experimental.set_memory_growth(gpu, True)
        if backend == "jax" or not gpus:
            tf.zeros(1)  # the first tensor sets up the devices, with more notes
    if backend not in BACKENDS:
        raise RunError(f"Keras is set to the {backend} backend: take {' or '.join(BACKENDS)}, or unset KERAS_BACKEND")
    return backend


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """Turn what TensorFlow and JAX raise in `function` into the project's errors, one line with the next step."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if (explanation := _explanation(error)) is None:
                raise
            raise explanation from error

    return inner


def _explanation(error: Exception) -> GalaxyZooError | None:
    """None for what neither library raised."""
    tf, jax = sys.modules.get("tensorflow"), sys.modules.get("jax")
    if tf is not None and isinstance(error, tf.errors.OpError):
        reason = " ".join(str(error.message).split())[:200]
        short = isinstance(error, tf.errors.FailedPreconditionError) and "expected to contain" in reason
        if short or isinstance(error, tf.errors.DataLossError):
            return DatasetError(f"a shard is damaged ({reason}): run preprocess again with --overwrite")
        exhausted = isinstance(error, tf.errors.ResourceExhaustedError)
    elif jax is not None and isinstance(error, jax.errors.JaxRuntimeError):
        reason = " ".join(str(error).split())[:200]
        exhausted = "RESOURCE_EXHAUSTED" in reason
    else:
        return None
    if exhausted:
        return RunError(f"out of memory or disk ({reason}): take a smaller --batch_size, or free some disk")
    return RunError(f"the training library failed ({reason}): see the traceback with --verbosity=1")


@dataclass(frozen=True)
class _Found:
    """The GPUs of this machine (a name each, bytes of the smallest), the lowest compute capability, devices to use."""

    gpus: tuple[str, ...]
    memory: int
    capability: tuple[int, int]
    local: int


def _nvidia_memory() -> int:
    """Bytes of the smallest GPU, of which TensorFlow does not tell; 0 where nvidia-smi does not tell either."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return min(int(line) for line in said.split()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def _found_by_tensorflow() -> _Found:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    names = tuple(str(detail.get("device_name", gpu.name)) for detail, gpu in zip(details, gpus, strict=True))
    with without_native_notes():
        logical = tf.config.list_logical_devices("GPU" if gpus else "CPU")
    capability = min((detail.get("compute_capability", (0, 0)) for detail in details), default=(0, 0))
    return _Found(names, _nvidia_memory() if gpus else 0, capability, len(logical))


def _found_by_jax() -> _Found:
    import jax

    try:
        with without_native_notes():
            devices = jax.local_devices()
    except MemoryError:
        raise
    except Exception as error:  # of many kinds, AssertionError among them
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise RunError(
            f"JAX cannot start its devices ({reason}): check nvidia-smi and JAX_PLATFORMS, or install with the jax-gpu extra"
        ) from error
    gpus = [device for device in devices if device.platform == "gpu"]
    memory = [int((gpu.memory_stats() or {}).get("bytes_limit", 0)) for gpu in gpus]
    # AMD's cards name theirs otherwise; all that JAX supports have bfloat16.
    versions = [re.fullmatch(r"(\d+)\.(\d+)", str(getattr(gpu, "compute_capability", ""))) for gpu in gpus]
    capability = min(((int(found[1]), int(found[2])) if found else (99, 0) for found in versions), default=(0, 0))
    return _Found(tuple(gpu.device_kind for gpu in gpus), min(memory, default=0), capability, len(devices))


def choose(precision: str, require_gpu: bool, hosts: Share = WHOLE) -> Devices:
    """Find the devices and settle the precision; all GPUs of the machine are used, or else its CPU.

    precision "auto": bfloat16 on GPUs that have it, float16 (with loss scaling) on older ones, float32 on CPUs.
    Raises RunError where a GPU is required and none is found.
    """
    backend = load_backend()
    found = _found_by_jax() if backend == "jax" else _found_by_tensorflow()
    if require_gpu and not found.gpus:
        extra = "jax-gpu" if backend == "jax" else "gpu"
        raise RunError(
            f"no GPU found, and --require_gpu was given: check nvidia-smi, install with the {extra} extra "
            f"(pip install '.[{extra}]'), or leave the flag out"
        )
    if precision == "auto":
        mixed = "mixed_bfloat16" if found.capability >= _BFLOAT16_CAPABILITY else "mixed_float16"
        precision = mixed if found.gpus else "float32"
        if precision == _UNSAFE and backend == "tensorflow" and found.local > 1:
            precision = "float32"
    if precision == _UNSAFE and backend == "tensorflow" and found.local > 1:
        raise RunError(
            f"--precision {precision} on several devices needs JAX (Keras' loss scaling looks at the first device's gradients "
            "only): set KERAS_BACKEND=jax, or take --precision float32"
        )
    # JAX knows no other way. TensorFlow's strategies fail with XLA, and on a CPU oneDNN is faster (`benchmarks/steps.py`).
    xla = backend == "jax" or (bool(found.gpus) and found.local == 1)
    return Devices(backend, found.gpus, found.memory, precision, xla, found.local, hosts)
