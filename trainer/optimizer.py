"""Adam. Under float16, whose smallest numbers are too large for many gradients, the loss is scaled."""

from collections.abc import Sequence
from typing import Any

from trainer.schedule import Rate


def optimizer(variables: Sequence[Any], rate: Rate, precision: str, weight_decay: float = 0.0, ema: float = 0.0) -> Any:
    """Built for these variables. weight_decay: that of AdamW, of kernels alone; ema: momentum of the moving average of the
    weights, 0 for none."""
    import keras

    averaged = {"use_ema": True, "ema_momentum": ema} if ema else {}
    if weight_decay:
        adam = keras.optimizers.AdamW(rate.for_keras(), weight_decay=weight_decay, **averaged)
        adam.exclude_from_weight_decay([each for each in variables if each.name != "kernel" or "layer_scale" in each.path])
    else:
        adam = keras.optimizers.Adam(rate.for_keras(), **averaged)
    made = keras.optimizers.LossScaleOptimizer(adam) if precision == "mixed_float16" else adam
    made.build(variables)
    return made
