"""The time of a training step by part: growing parts of it, each compiled separately, on one batch in GPU memory."""

import statistics
import time
from typing import Any

from benchmarks.gpu.settings import Settings


def measure(settings: Settings, seconds: float) -> None:
    """Record milliseconds for augmentation, forward pass, forward and backward pass, and the whole step with the optimizer."""
    import jax

    from benchmarks.gpu.step import draw_batch, make_parts

    made, galaxies = make_parts(settings, "auto"), 4 if settings.small else 128
    model, optimizer, objective = made.model, made.optimizer, made.objective
    images, targets, drawn = map(jax.numpy.asarray, draw_batch(settings, galaxies))
    groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    trainable, other, state = ([variable.value for variable in group] for group in groups)

    def loss(trainable: Any, images: Any) -> Any:
        return objective.loss(model.stateless_call(trainable, other, images, training=True)[0], targets)

    def whole(trainable: Any, images: Any) -> Any:
        return optimizer.stateless_apply(state, jax.grad(loss)(trainable, objective.augment(images, drawn)), trainable)

    parts = {
        "augmentation": lambda trainable, images: objective.augment(images, drawn),
        "forwards": loss,
        "forwards and backwards": jax.grad(loss),
        "whole step": whole,
    }
    for name, part in parts.items():
        call = jax.jit(part)
        taken = []
        for _ in range(2 if settings.small else 6):
            began, steps = time.perf_counter(), 1 if settings.small else 10
            for _ in range(steps):
                result = call(trainable, images)
            jax.block_until_ready(result)
            taken.append(1e3 * (time.perf_counter() - began) / steps)
        # The first round includes compilation.
        what: dict[str, Any] = {"part": name, "batch_size": galaxies, "precision": made.devices.precision}
        settings.record("parts", **what, milliseconds=round(statistics.median(taken[1:]), 3))
