"""The learning rate follows its schedule, weight decay applies to kernels only, and only float16 scales the loss."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainer.config import TrainConfig
from trainer.network.optimizer import Rate, build_optimizer

pytestmark = pytest.mark.usefixtures("loaded_backend")


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("steps", [0, 20])
def test_the_rate_that_is_told_is_the_one_that_is_used(warmup: int, steps: int) -> None:
    import keras

    rate = Rate(0.01, warmup, steps)
    weight = keras.Variable(np.zeros(1, np.float32))
    adam = build_optimizer([weight], rate, "float32")
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
    adam = build_optimizer(weights, Rate(0.1), "float32", weight_decay=0.5)
    adam.apply([np.zeros(weight.shape, np.float32) for weight in weights], weights)
    shrunk = [weight for weight in weights if not np.array_equal(weight, np.ones(weight.shape))]
    assert shrunk == [dense.kernel]
    np.testing.assert_allclose(dense.kernel, 1 - 0.1 * 0.5, rtol=1e-6)


def test_only_float16_scales_the_loss() -> None:
    import keras

    for precision in ("float32", "mixed_bfloat16", "mixed_float16"):
        made = build_optimizer([], Rate(1e-4), precision, ema=0.9)
        assert isinstance(made, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")


def test_it_grows_to_the_peak_and_falls_to_zero_along_a_cosine() -> None:
    rate = Rate(1.0, warmup=10, steps=110)
    assert [rate.after(step) for step in (0, 5, 10)] == pytest.approx([1 / 11, (1 / 11 + 1) / 2, 1])
    assert [rate.after(step) for step in (35, 60, 110, 200)] == pytest.approx([(1 + 0.5**0.5) / 2, 0.5, 0, 0], abs=1e-12)
    assert Rate(1.0, warmup=10).after(10_000) == 1.0
    assert Rate(1.0, warmup=10, steps=5).after(4) < Rate(1.0, warmup=10, steps=5).after(9) < 1


def test_a_config_gives_the_rate_of_its_schedule() -> None:
    config = TrainConfig(Path(), epochs=10, learning_rate=1e-4, warmup_steps=60)
    assert config.rate(50) == Rate(1e-4, 60, 500)
    assert replace(config, schedule="constant").rate(50) == Rate(1e-4, 60, 0)
