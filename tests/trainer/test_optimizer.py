"""The learning rate goes as it is said to, and decay and averages touch what they should."""

import numpy as np
import pytest

from trainer.optimizer import optimizer
from trainer.schedule import Rate

pytestmark = pytest.mark.usefixtures("loaded_backend")


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("steps", [0, 20])
def test_the_rate_that_is_told_is_the_one_that_is_used(warmup: int, steps: int) -> None:
    import keras

    rate = Rate(0.01, warmup, steps)
    weight = keras.Variable(np.zeros(1, np.float32))
    adam = optimizer([weight], rate, "float32")
    for step in range(25):
        assert float(adam.learning_rate) == pytest.approx(rate.after(step), rel=1e-5, abs=1e-9)
        adam.apply([np.ones(1, np.float32)], [weight])


def test_weight_decay_shrinks_kernels_and_nothing_else() -> None:
    import keras

    dense, normalization = keras.layers.Dense(3), keras.layers.BatchNormalization()
    layers = [dense, normalization, keras.layers.DepthwiseConv2D(1, use_bias=False, name="stage_0_block_0_layer_scale")]
    for layer in layers:
        layer.build((None, 4, 4, 3) if layer is layers[2] else (None, 3))
        for weight in layer.trainable_weights:
            weight.assign(np.ones(weight.shape, np.float32))
    weights = [weight for layer in layers for weight in layer.trainable_weights]
    adam = optimizer(weights, Rate(0.1), "float32", weight_decay=0.5)
    adam.apply([np.zeros(weight.shape, np.float32) for weight in weights], weights)
    shrunk = [weight for weight in weights if not np.array_equal(weight, np.ones(weight.shape))]
    assert shrunk == [dense.kernel]
    np.testing.assert_allclose(dense.kernel, 1 - 0.1 * 0.5, rtol=1e-6)


def test_only_float16_scales_the_loss() -> None:
    import keras

    for precision in ("float32", "mixed_bfloat16", "mixed_float16"):
        made = optimizer([], Rate(1e-4), precision, ema=0.9)
        assert isinstance(made, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")
