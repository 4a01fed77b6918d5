"""A backbone of a few layers, for tests of everything but the backbone: its runs take a tenth of the time of VGG16.

It is registered only here. To use it in a separate process, tests run `python small.py ARGUMENTS` instead of
`python -m trainer`. If a signal must arrive between two steps, the environment variable STEP_SECONDS delays each step.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

SMALL = "small"
PROGRAM = (sys.executable, str(Path(__file__).resolve()))


def _build(weights: None, input_tensor: Any) -> Any:
    import keras

    assert weights is None
    x = input_tensor
    for number, filters in enumerate((8, 16, 16), 1):
        x = keras.layers.Conv2D(filters, 3, 2, "same", activation="relu", name=f"conv{number}")(x)
    return keras.Model(keras.utils.get_source_inputs(input_tensor), keras.layers.MaxPooling2D(name="pool")(x))


def register() -> None:
    """Make it a choice of --backbone in this process."""
    from trainer.network.backbones import BACKBONES, Backbone

    ones, zeros = (1.0,) * 3, (0.0,) * 3
    BACKBONES[SMALL] = Backbone("SmallNet", "tests", ones, zeros, bgr=False, plain=True, build=_build)


def _slow_down(seconds: float) -> None:
    """Wait before each training step, on both backends."""
    from trainer.backends.on_jax import JaxSteps
    from trainer.backends.on_tensorflow import TensorFlowSteps

    def slower(train: Any) -> Any:
        def wait_and_train(*arguments: Any) -> bool:
            time.sleep(seconds)
            stops: bool = train(*arguments)
            return stops

        return wait_and_train

    for steps in (TensorFlowSteps, JaxSteps):
        steps.train = slower(steps.train)  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])
    register()
    if "STEP_SECONDS" in os.environ:
        _slow_down(float(os.environ["STEP_SECONDS"]))
    from trainer.cli import main

    main()
