"""The convolutional bases: how each is built, how it wants its input, where its ImageNet weights come from.

vgg16          Simonyan & Zisserman 2015 (arXiv:1409.1556)
resnet50       He et al. 2016 (arXiv:1512.03385)
convnext_tiny  Liu et al. 2022 (arXiv:2201.03545)

Each takes RGB levels, scaled here by a Rescaling layer. Weights that expect BGR have the order folded into their first kernel.
ConvNeXt's layer scale, which Keras cannot load again without being told, is a depthwise 1 x 1 convolution here.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.errors import RunError, lacks_memory, squeezed

MIN_SIZE = 32  # all of them halve the side five times
# Random weights want inputs of order one. Galaxies are dark: the root of their mean square is 28 levels (synthetic
# ones) to 40 (real ones) of 255.
_SCRATCH_SCALE = 1 / 32
_MEAN_RGB = (123.68, 116.779, 103.939)  # of ImageNet, taken off by VGG16 and ResNet50
_TORCH_MEAN = (0.485, 0.456, 0.406)  # of levels in 0..1, and their spread, for ConvNeXt
_TORCH_SPREAD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """name: in keras.applications; source: its paper. scale, offset: from RGB levels 0..255 to what ImageNet weights expect;
    bgr: they expect the blue ones first. plain: made of layers that take part in a model as they are, see `_stock`.
    build: keras.Model without its top, from the options that the functions of keras.applications take."""

    name: str
    source: str
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    bgr: bool
    plain: bool
    build: Callable[..., Any]


def _vgg16(**options: Any) -> Any:
    import keras

    return keras.applications.VGG16(include_top=False, **options)


def _resnet50(**options: Any) -> Any:
    import keras

    return keras.applications.ResNet50(include_top=False, **options)


def _convnext_tiny(**options: Any) -> Any:
    import keras

    return keras.applications.ConvNeXtTiny(include_top=False, include_preprocessing=False, **options)


_CAFFE = ((1.0, 1.0, 1.0), tuple(-mean for mean in _MEAN_RGB))
_TORCH = (
    tuple(1 / (255 * spread) for spread in _TORCH_SPREAD),
    tuple(-mean / spread for mean, spread in zip(_TORCH_MEAN, _TORCH_SPREAD, strict=True)),
)
BACKBONES = {
    "vgg16": Backbone("VGG16", "Simonyan & Zisserman 2015 (arXiv:1409.1556)", *_CAFFE, bgr=True, plain=True, build=_vgg16),
    "resnet50": Backbone("ResNet50", "He et al. 2016 (arXiv:1512.03385)", *_CAFFE, bgr=True, plain=False, build=_resnet50),
    "convnext_tiny": Backbone(
        "ConvNeXtTiny", "Liu et al. 2022 (arXiv:2201.03545)", *_TORCH, bgr=False, plain=False, build=_convnext_tiny
    ),
}


def scaling(backbone: str, kind: str) -> tuple[list[float], list[float]]:
    """Factor and offset for each channel. `kind`: "imagenet", "random" (order one), or "unit" (0..1)."""
    if kind == "imagenet":
        return list(BACKBONES[backbone].scale), list(BACKBONES[backbone].offset)
    return [_SCRATCH_SCALE if kind == "random" else 1 / 255] * 3, [0.0] * 3


def _stock(layer: Any, synchronized: bool) -> Any:
    """A copy of the layer, or where it is ConvNeXt's layer scale, one of Keras' own that does the same.

    synchronized: batch normalization looks at the whole batch although each device sees a part of it.
    """
    import keras

    if isinstance(layer, keras.layers.BatchNormalization) and synchronized:
        return keras.layers.BatchNormalization.from_config({**layer.get_config(), "synchronized": True})
    if type(layer).__name__ != "LayerScale":
        return layer.__class__.from_config(layer.get_config())
    return keras.layers.DepthwiseConv2D(
        1,
        use_bias=False,
        depthwise_initializer=keras.initializers.Constant(layer.init_values),
        name=layer.name,
        dtype=layer.dtype_policy,
    )


def build_maps(backbone: str, images: Any, synchronized: bool = False) -> Any:
    """What the base makes of scaled images: KerasTensors (batch, size, size, 3) -> (batch, rows, columns, channels).

    Its weights are not yet set. synchronized: as in `model.architecture`.
    """
    import keras

    base = BACKBONES[backbone]
    if base.plain:
        return base.build(weights=None, input_tensor=images).output
    model = base.build(weights=None, input_shape=tuple(images.shape[1:]))
    return keras.models.clone_model(model, clone_function=functools.partial(_stock, synchronized=synchronized))(images)


def pretrained(backbone: str, weights: str, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """The arrays of a base, for RGB input, in these shapes. Raises RunError where they cannot be had or do not fit."""
    of_base = f"keras.applications.{BACKBONES[backbone].name}(include_top=False)"
    if weights != "imagenet" and not Path(weights).is_file():
        raise RunError(f"{weights}: no such file: --weights takes imagenet, none, or a file with the weights of {of_base}")
    if Path(weights).suffix == ".keras":  # Keras would take its layers, whose first kernel is in RGB order already
        raise RunError(f"{weights}: is a whole model: give --weights the file of {of_base}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a dozen, one per layer that does not fit, before the error that counts
            arrays = BACKBONES[backbone].build(weights=weights).get_weights()
    except Exception as error:  # Keras raises bare Exception for downloads, and many kinds for files
        if lacks_memory(error):
            raise MemoryError(f"reading {weights}") from error
        reason = squeezed(error)
        if weights == "imagenet":
            raise RunError(
                f"the ImageNet weights cannot be downloaded ({reason}): connect this machine to the internet, fetch "
                "them elsewhere and give --weights FILE, or start from --weights none"
            ) from error
        raise RunError(
            f"{weights}: does not hold the weights of this base ({reason}): give --weights the file of {of_base}"
        ) from error
    if BACKBONES[backbone].bgr:
        arrays[0] = arrays[0][:, :, ::-1, :]
    return [array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True)]


def draw_kernels(weights: Sequence[Any], seed: int, initialisation: str) -> list[np.ndarray]:
    """Random kernels for these variables; whatever is no kernel stays as it is (zero biases, unit scales).

    initialisation: "keras": uniform up to sqrt(6 / (inputs + outputs)) (Glorot & Bengio 2010), Keras' default; others: a
    normal spread of sqrt(2 / inputs) (He et al. 2015, arXiv:1502.01852). Drawn by numpy: the same on every backend, where JAX
    would compile a program for each shape, half a second each.
    """
    generator = np.random.default_rng(seed)

    def draw(weight: Any) -> np.ndarray:
        shape = tuple(weight.shape)
        if weight.name != "kernel" or "layer_scale" in weight.path:
            return np.asarray(weight, np.float32)
        field = int(np.prod(shape[:-2]))
        inputs, outputs = shape[-2] * field, shape[-1] * field
        if initialisation == "keras":
            limit = np.sqrt(6 / (inputs + outputs))
            return generator.uniform(-limit, limit, shape).astype(np.float32)
        return generator.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / inputs))

    return [draw(weight) for weight in weights]
