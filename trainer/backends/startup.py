"""Start Keras and its backend quietly, and turn their exceptions into one-line errors with the next step."""

import contextlib
import functools
import logging as python_logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from absl import logging

from tfrecords.errors import BUILD_AGAIN, DatasetError, GalaxyZooError, RunError, install_extra, squeezed

P = ParamSpec("P")
R = TypeVar("R")

BACKENDS = ("tensorflow", "jax")


@contextlib.contextmanager
def without_native_notes() -> Iterator[None]:
    """Hold back what native code writes to stdout and stderr; show it only if the block raises or --verbosity is 1.

    TensorFlow prints its start-up notes before its log level takes effect: a screenful that would bury our lines.
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
    """Import Keras, its backend and TensorFlow without their start-up notes; return the backend's name.

    TensorFlow reads the records for both backends; with JAX it is kept off the GPUs. Neither reserves more GPU memory
    than it needs. Raises RunError if an import fails, or if Keras is set to another backend.
    """
    with without_native_notes():
        # Read when JAX starts; without it JAX reserves three quarters of the GPU's memory at once.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        if logging.get_verbosity() < logging.DEBUG:
            python_logging.getLogger("jax").setLevel(python_logging.WARNING)
        try:
            import keras
            import tensorflow as tf
        except (ImportError, ValueError) as error:  # ValueError: KERAS_BACKEND is not a backend of Keras
            raise RunError(
                f"cannot import Keras or its backend ({error}): install it again (JAX: {install_extra('jax')}), "
                "or unset KERAS_BACKEND"
            ) from error
        backend = str(keras.backend.backend())
        gpus = tf.config.list_physical_devices("GPU")
        with contextlib.suppress(RuntimeError):  # TensorFlow is running already, so this was done before
            if backend == "jax":
                tf.config.set_visible_devices([], "GPU")
            for gpu in gpus if backend == "tensorflow" else ():
                tf.config.experimental.set_memory_growth(gpu, True)
        if backend == "jax" or not gpus:
            tf.zeros(1)  # the first tensor sets up the devices, which prints more notes
    if backend not in BACKENDS:
        raise RunError(f"Keras is set to the {backend} backend: use {' or '.join(BACKENDS)}, or unset KERAS_BACKEND")
    return backend


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """Turn exceptions of TensorFlow and JAX in `function` into the project's one-line errors with the next step."""

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
    """The project's error for an exception of TensorFlow or JAX; None for any other exception."""
    tf, jax = sys.modules.get("tensorflow"), sys.modules.get("jax")
    if tf is not None and isinstance(error, tf.errors.OpError):
        reason = " ".join(error.message.split())[:200] or type(error).__name__
        short = isinstance(error, tf.errors.FailedPreconditionError) and "expected to contain" in reason
        if short or isinstance(error, tf.errors.DataLossError):
            return DatasetError(f"a shard is damaged ({reason}): {BUILD_AGAIN}")
        exhausted = isinstance(error, tf.errors.ResourceExhaustedError)
    elif jax is not None and isinstance(error, jax.errors.JaxRuntimeError):
        reason = squeezed(error, 200)
        exhausted = "RESOURCE_EXHAUSTED" in reason
    else:
        return None
    if exhausted:
        return RunError(f"out of memory or disk space ({reason}): use a smaller --batch_size, or free some disk space")
    return RunError(f"the training library failed ({reason}): run with --verbosity=1 to see the traceback")
