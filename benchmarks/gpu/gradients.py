"""One step's gradients on the GPU compared with those on the CPU, in three precisions.

Adam's first moment after one step is a tenth of the gradient, so the gradients are read from the training state after
augmentation, network, loss and optimizer have run as in any training. The error is the norm of the difference over the
norm of the gradient, for the variable with the largest error. Tolerances:

float32         0.01  every product in full float32; at 212 x 212 moving each weight to the next float32 number gives 0.003
mixed_bfloat16  0.5   sixteen layers amplify its rounding to eight bits
TensorFloat-32  0.1   JAX's default for float32 on GPUs with TensorFloat-32
"""

import contextlib
import os
import statistics
from typing import Any

import numpy as np

from benchmarks.gpu.processes import must_run, python
from benchmarks.gpu.settings import Settings

_TOLERANCES = {"float32": 0.01, "mixed_bfloat16": 0.5, "TensorFloat-32": 0.1}


def _gradients(settings: Settings, how: str) -> dict[str, np.ndarray]:
    """The gradient of each variable by its path; under "error", the mean squared error of the step."""
    import jax

    from benchmarks.gpu.step import draw_batch, make_parts
    from trainer.backends.base import variables_of

    with jax.default_matmul_precision("highest") if how == "float32" else contextlib.nullcontext():
        made = make_parts(settings, how if how == "mixed_bfloat16" else "float32")
        import tensorflow as tf

        training = made.devices.steps(made.model, made.optimizer, made.objective)
        training.train(next(training.ready(tf.data.Dataset.from_tensors(draw_batch(settings, 2 if settings.small else 8)))))
        *state, error = training.state()
    values = dict(zip(map(id, variables_of(made.model, made.optimizer)), state, strict=True))
    # Keras has no public name for the moments.
    moments = zip(made.model.trainable_variables, made.optimizer._momentums, strict=True)
    return {**{variable.path: 10 * values[id(moment)] for variable, moment in moments}, "error": error}


def _is_close(settings: Settings, how: str, reference: dict[str, np.ndarray]) -> bool:
    """Record this device's errors; return whether they are within the tolerance."""
    import jax

    found, off = _gradients(settings, how), {}
    for path, expected in reference.items():
        norm = max(float(np.linalg.norm(expected.astype(np.float64))), 1e-30)
        off[path] = float(np.linalg.norm(found[path].astype(np.float64) - expected)) / norm
    worst = max(off, key=lambda path: off[path])
    good, errors = off[worst] <= _TOLERANCES[how], [float(each["error"]) for each in (found, reference)]
    figures: dict[str, Any] = {"worst": off[worst], "of": worst, "median": statistics.median(off.values()), "errors": errors}
    settings.record("gradients", how=how, device=str(jax.devices()[0]), good=good, tolerance=_TOLERANCES[how], **figures)
    return good


def measure(settings: Settings, seconds: float, only: str = "") -> None:
    """only: "cpu" for the reference alone, which is computed in another process without a GPU."""
    path = settings.out / "data" / "gradients-cpu.npz"
    if only:
        os.environ["JAX_PLATFORMS"] = "cpu"
        gradients = _gradients(settings, "float32")
        np.savez(path, allow_pickle=False, **{name.replace("/", "|"): value for name, value in gradients.items()})
        return
    if not path.exists():
        command = python("-m", "benchmarks.gpu.child", "gradients", settings.out, seconds, "cpu")
        must_run(command, settings.log("gradients-cpu"), seconds)
    with np.load(path) as file:
        reference = {name.replace("|", "/"): file[name] for name in file.files}
    import jax

    gpu = jax.devices()[0].platform == "gpu"
    ways = [how for how in _TOLERANCES if gpu or how != "TensorFloat-32"]  # CPUs have no TensorFloat-32
    if not all([_is_close(settings, how, reference) for how in ways]):
        raise SystemExit("the error of a gradient exceeds its tolerance")
