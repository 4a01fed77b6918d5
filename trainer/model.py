"""The VGG16 regressor: cutouts -> 37 vote fractions.

VGG16's convolutional base -> Flatten -> Dense 1024 relu -> Dropout 0.5 -> Dense 1024 relu -> Dense 37 sigmoid:
34,677,605 parameters at 212 x 212. Sources: Simonyan & Zisserman 2015 (arXiv:1409.1556) for the base; "Using a
Convoluted Neural Network to Classify Galaxy Images" (William Miller) for the head.

The model takes uint8 images and scales them itself. ImageNet weights expect BGR with the mean of ImageNet taken off:
the mean is a Rescaling layer, the order is folded into the first kernel. The output layer starts at the
column means of `train` (zero kernel, bias = their logit): from any other start VGG16 easily collapses to a constant.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.errors import RunError
from tfrecords.taxonomy import COLUMNS

_BASE = "keras.applications.VGG16(include_top=False)"
OUTPUTS = len(COLUMNS)
MIN_SIZE = 32  # five poolings by two leave one pixel
_IMAGENET_MEAN_RGB = (123.68, 116.779, 103.939)
# Random weights want inputs of order one. Galaxies are dark: the root of their mean square is 28 levels (synthetic
# ones) to 40 (real ones) of 255.
_SCRATCH_SCALE = 1 / 32


def _pretrained_base(weights: str) -> list[np.ndarray]:
    """The arrays of VGG16's base, for RGB input. Raises RunError where they cannot be had or do not fit."""
    import keras

    if weights != "imagenet" and not Path(weights).is_file():
        raise RunError(f"{weights}: no such file: --weights takes imagenet, none, or a file with the weights of VGG16's base")
    if Path(weights).suffix == ".keras":  # Keras would take its layers, whose first kernel is in RGB order already
        raise RunError(f"{weights}: is a whole model: give --weights the file of {_BASE}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a dozen, one per layer that does not fit, before the error that counts
            arrays = keras.applications.VGG16(include_top=False, weights=weights).get_weights()
    except Exception as error:  # Keras raises bare Exception for downloads, and many kinds for files
        reason = " ".join(str(error).split())[:160]
        if weights == "imagenet":
            raise RunError(
                f"the ImageNet weights cannot be downloaded ({reason}): connect this machine to the internet, fetch "
                "them elsewhere and give --weights FILE, or start from --weights none"
            ) from error
        raise RunError(
            f"{weights}: does not hold the weights of VGG16's base ({reason}): give --weights the file of {_BASE}"
        ) from error
    arrays[0] = arrays[0][:, :, ::-1, :]
    return arrays


def _he_initialised(weights: Sequence[Any], seed: int) -> list[np.ndarray]:
    """Kernels with a normal spread of sqrt(2 / inputs) and zero biases (He et al. 2015, arXiv:1502.01852).

    Drawn by numpy: the same on every backend, where JAX would compile a program for each shape, half a second each.
    """
    generator = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) == 1:
            return np.zeros(shape, np.float32)
        return generator.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[:-1])))

    return [draw(tuple(weight.shape)) for weight in weights]


def architecture(size: int, imagenet_scaling: bool, precision: str, seed: int = 0) -> Any:
    """The keras.Model, its weights not yet set: uint8 (batch, size, size, 3) -> float32 (batch, 37) in 0..1.

    `precision`: a Keras dtype policy; the output layer stays float32 under all of them. `seed`: of the dropout.
    """
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)  # keras.applications takes no policy; put back below
    try:
        images = keras.Input((size, size, 3), dtype="uint8", name="image")
        scale, offset = (1.0, [-mean for mean in _IMAGENET_MEAN_RGB]) if imagenet_scaling else (_SCRATCH_SCALE, 0.0)
        scaled = keras.layers.Rescaling(scale, offset, dtype="float32", name="scaling")(images)
        base = keras.applications.VGG16(include_top=False, weights=None, input_tensor=scaled)
        x = keras.layers.Flatten(name="flatten")(base.output)
        x = keras.layers.Dense(1024, "relu", kernel_initializer="zeros", name="fc1")(x)
        x = keras.layers.Dropout(0.5, seed=seed, name="dropout")(x)
        x = keras.layers.Dense(1024, "relu", kernel_initializer="zeros", name="fc2")(x)
        votes = keras.layers.Dense(OUTPUTS, "sigmoid", kernel_initializer="zeros", dtype="float32", name="vote_fractions")(x)
        return keras.Model(images, votes, name="galaxy_zoo_vgg16")
    finally:
        keras.config.set_dtype_policy(before)


def build(size: int, weights: str, column_means: np.ndarray, precision: str, seed: int) -> Any:
    """The keras.Model at the start of training.

    weights: "imagenet", "none" or a file for the base; column_means: float (37,), where the output starts.
    Raises RunError for images below 32 x 32 and for weights that cannot be had or do not fit.
    """
    if size < MIN_SIZE:
        raise RunError(
            f"images of {size} x {size} are too small for VGG16, which needs {MIN_SIZE}: "
            f"preprocess again with --size {MIN_SIZE} or more"
        )
    pretrained = None if weights == "none" else _pretrained_base(weights)
    model = architecture(size, pretrained is not None, precision, seed)
    base = [weight for layer in model.layers if layer.name.startswith("block") for weight in layer.weights]
    head = [weight for name in ("fc1", "fc2") for weight in model.get_layer(name).weights]
    arrays = [*(pretrained or _he_initialised(base, seed)), *_he_initialised(head, seed + 1)]
    for weight, array in zip([*base, *head], arrays, strict=True):
        weight.assign(array)
    means = np.clip(np.asarray(column_means, np.float64), 1e-4, 1 - 1e-4)
    model.get_layer("vote_fractions").bias.assign(np.log(means / (1 - means)))
    return model


def for_inference(model: Any, weights: Sequence[np.ndarray]) -> Any:
    """A float32 copy of a model without optimizer, with these weights, as `model.keras` keeps it."""
    scaling = model.get_layer("scaling")
    copy = architecture(model.input_shape[1], scaling.scale == 1.0, "float32")
    copy.set_weights(weights)
    return copy
