"""Adam, and the schedule of its learning rate.

The rate grows linearly over the first steps, because the first gradients from the head are large; then it stays constant, or
falls to zero along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983). With float16 the loss is scaled, because many
gradients are smaller than its smallest numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Rate:
    """The learning rate over a run.

    peak: the rate after `warmup` steps; steps: the steps after which it is zero, warm-up included; 0: it stays constant.
    """

    peak: float
    warmup: int = 0
    steps: int = 0

    def after(self, steps: int) -> float:
        """The rate after this number of steps, as in the optimizer."""
        if steps < self.warmup:
            start = self.peak / (self.warmup + 1)
            return start + (self.peak - start) * steps / self.warmup
        if not self.steps:
            return self.peak
        done = min(1.0, (steps - self.warmup) / max(1, self.steps - self.warmup))
        return self.peak * 0.5 * (1 + math.cos(math.pi * done))

    def for_keras(self) -> Any:
        """The learning rate or schedule for a Keras optimizer."""
        from keras.optimizers import schedules

        start = self.peak / (self.warmup + 1)
        if self.steps:
            falling = max(1, self.steps - self.warmup)
            if not self.warmup:
                return schedules.CosineDecay(self.peak, falling)
            return schedules.CosineDecay(start, falling, warmup_target=self.peak, warmup_steps=self.warmup)
        return schedules.PolynomialDecay(start, self.warmup, self.peak) if self.warmup else self.peak


def build_optimizer(variables: Sequence[Any], rate: Rate, precision: str, weight_decay: float = 0.0, ema: float = 0.0) -> Any:
    """Adam or, with weight decay, AdamW, built for these variables.

    weight_decay: applies to kernels only; ema: momentum of the moving average of the weights, 0 for none.
    """
    import keras

    averaged = {"use_ema": True, "ema_momentum": ema} if ema else {}
    if weight_decay:
        adam = keras.optimizers.AdamW(rate.for_keras(), weight_decay=weight_decay, **averaged)
        adam.exclude_from_weight_decay([each for each in variables if each.name != "kernel" or "layer_scale" in each.path])
    else:
        adam = keras.optimizers.Adam(rate.for_keras(), **averaged)
    if precision == "mixed_float16":
        adam = keras.optimizers.LossScaleOptimizer(adam)
    adam.build(variables)
    return adam
