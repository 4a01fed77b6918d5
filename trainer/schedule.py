"""How the learning rate goes over a run, and what in it is too long for the run.

The rate grows linearly over the first steps, because the first gradients from the head are large; then it stays, or falls to
zero along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983). Epochs that train the head alone come first, and have a
rate of their own.
"""

import math
from dataclasses import dataclass
from typing import Any

from trainer.config import TrainConfig

# What starts at random and sees its input as it will stay can learn so many times as fast as all layers together.
FASTER = 10
# A moving average of which more than this is still the model as it began says little of the one that was trained.
_UNTRAINED = 0.05
_MOMENTA = (0.9999, 0.999, 0.99, 0.9, 0.0)


@dataclass(frozen=True)
class Rate:
    """peak: the learning rate after `warmup` steps; steps: at which it is zero, counting the warm-up; 0: it stays."""

    peak: float
    warmup: int = 0
    steps: int = 0

    def after(self, steps: int) -> float:
        """The rate after so many steps, as the optimizer has it."""
        if steps < self.warmup:
            start = self.peak / (self.warmup + 1)
            return start + (self.peak - start) * steps / self.warmup
        if not self.steps:
            return self.peak
        done = min(1.0, (steps - self.warmup) / max(1, self.steps - self.warmup))
        return self.peak * 0.5 * (1 + math.cos(math.pi * done))

    def for_keras(self) -> Any:
        """The same as Keras' optimizers take it."""
        from keras.optimizers import schedules

        start = self.peak / (self.warmup + 1)
        if self.steps:
            falling = max(1, self.steps - self.warmup)
            if not self.warmup:
                return schedules.CosineDecay(self.peak, falling)
            return schedules.CosineDecay(start, falling, warmup_target=self.peak, warmup_steps=self.warmup)
        return schedules.PolynomialDecay(start, self.warmup, self.peak) if self.warmup else self.peak


def of_head(config: TrainConfig, steps: int) -> Rate:
    """Of the epochs that train the head alone, `steps` of each: without warm-up, which spares the base."""
    total = config.head_epochs * steps
    return Rate(FASTER * config.learning_rate, 0, total if config.schedule == "cosine" else 0)


def of_all_layers(config: TrainConfig, steps: int) -> Rate:
    """Of the epochs that train all layers, `steps` of each."""
    total = (config.epochs - config.head_epochs) * steps
    return Rate(config.learning_rate, config.warmup_steps, total if config.schedule == "cosine" else 0)


def too_long(config: TrainConfig, steps: int) -> list[str]:
    """Lines to say where a run of `steps` steps an epoch ends before its warm-up, or before its moving average is trained."""
    lines = []
    head_alone = config.head_epochs == config.epochs
    total = (config.epochs if head_alone else config.epochs - config.head_epochs) * steps
    there_are = (
        f"{total} steps train all layers" if 0 < config.head_epochs < config.epochs else f"there are {total} steps in all"
    )
    if not head_alone and total <= config.warmup_steps:
        fewer = f"{total // 10} or fewer" if total >= 10 else "0"
        lines.append(
            f"--warmup_steps {config.warmup_steps}: {there_are}, so the learning rate never reaches "
            f"{config.learning_rate:g}: take {fewer}, or more --epochs"
        )
    averaged = total - 1  # Keras' average begins with the weights after the first step
    untrained = config.ema**averaged if averaged else 0.0
    if untrained > _UNTRAINED:
        shorter = next(momentum for momentum in _MOMENTA if momentum**averaged <= _UNTRAINED)
        lines.append(
            f"--ema {config.ema:g}: {there_are}, so {untrained:.0%} of the average is still the model as it began: "
            f"take {f'{shorter:g} or less' if shorter else '0, which is none'}, or more --epochs"
        )
    return lines
