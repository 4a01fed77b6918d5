"""Backend, GPUs, precision: what hardware there is and how it is used."""

import contextlib
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from absl import logging

from tfrecords.errors import DatasetError, RunError

P = ParamSpec("P")
R = TypeVar("R")

# The first NVIDIA generation with bfloat16 arithmetic (Ampere); older ones have float16 alone.
_BFLOAT16_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Devices:
    """The hardware of a run. gpus: a name each; precision: a Keras dtype policy."""

    gpus: tuple[str, ...]
    precision: str

    def describe(self) -> str:
        """What is used, in a line."""
        hardware = f"GPU {self.gpus[0]}" if self.gpus else f"CPU with {os.cpu_count()} cores, no GPU found"
        idle = f" (of {len(self.gpus)} GPUs the first is used)" if len(self.gpus) > 1 else ""
        return f"{hardware}{idle}; precision {self.precision}"


@contextlib.contextmanager
def _without_native_notes() -> Iterator[None]:
    """Hold back what native code writes to stderr, and show it only where the block raises or --verbosity is 1.

    TensorFlow's start-up notes come before its own log level counts, a screenful that would bury our lines.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held, contextlib.ExitStack() as on_exit:
        stderr = os.dup(2)
        on_exit.callback(os.close, stderr)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            on_exit.callback(_replay, held)
            raise
        finally:
            os.dup2(stderr, 2)
        if logging.get_verbosity() >= logging.DEBUG:
            _replay(held)


def _replay(held: Any) -> None:
    held.seek(0)
    with os.fdopen(os.dup(2), "wb") as stderr:
        shutil.copyfileobj(held, stderr)


def load_tensorflow() -> list[Any]:
    """Import TensorFlow and Keras without their start-up notes; returns the GPUs that TensorFlow finds.

    Raises RunError where they cannot be imported, or Keras is set to another backend.
    """
    with _without_native_notes():
        try:
            import keras
            import tensorflow as tf
        except ImportError as error:
            raise RunError(f"Keras on TensorFlow cannot be imported ({error}): unset KERAS_BACKEND or install again") from error
        found: list[Any] = tf.config.list_physical_devices("GPU")
        if not found:
            tf.zeros(1)  # the first tensor sets up the devices, with more notes
    if (backend := keras.backend.backend()) != "tensorflow":
        raise RunError(f"Keras is set to the {backend} backend, which is not supported: unset KERAS_BACKEND")
    return found


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """Turn what TensorFlow raises in `function` into the project's errors, one line with the next step."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            tf = sys.modules.get("tensorflow")
            if tf is None or not isinstance(error, tf.errors.OpError):
                raise
            reason = " ".join(str(error.message).split())[:200]
            if isinstance(error, tf.errors.DataLossError):
                raise DatasetError(f"a shard is damaged ({reason}): run preprocess again with --overwrite") from error
            if isinstance(error, tf.errors.ResourceExhaustedError):
                raise RunError(f"out of memory or disk ({reason}): take a smaller --batch_size, or free some disk") from error
            raise RunError(f"TensorFlow failed ({reason}): see the traceback with --verbosity=1") from error

    return inner


def choose(precision: str, require_gpu: bool) -> Devices:
    """Find the GPUs, let them share their memory, and settle the precision.

    precision "auto": bfloat16 on GPUs that have it, float16 (with loss scaling) on older ones, float32 on CPUs.
    Raises RunError where a GPU is required and none is found.
    """
    found = load_tensorflow()
    import tensorflow as tf

    if require_gpu and not found:
        raise RunError(
            "no GPU found, and --require_gpu was given: check nvidia-smi, install with the gpu extra "
            "(pip install '.[gpu]'), or leave the flag out"
        )
    for gpu in found:
        tf.config.experimental.set_memory_growth(gpu, True)
    details = [tf.config.experimental.get_device_details(gpu) for gpu in found]
    names = [str(detail.get("device_name", gpu.name)) for detail, gpu in zip(details, found, strict=True)]
    if precision == "auto":
        capability = details[0].get("compute_capability", (0, 0)) if details else (0, 0)
        mixed = "mixed_bfloat16" if capability >= _BFLOAT16_CAPABILITY else "mixed_float16"
        precision = mixed if found else "float32"
    return Devices(tuple(names), precision)
