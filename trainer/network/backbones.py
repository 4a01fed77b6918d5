"""The backbones: how each is built, which input it expects, and where its ImageNet weights come from.

vgg16          Simonyan & Zisserman 2015 (arXiv:1409.1556)
resnet50       He et al. 2016 (arXiv:1512.03385)
convnext_tiny  Liu et al. 2022 (arXiv:2201.03545)

The input of each is RGB levels, scaled by a Rescaling layer. If the weights expect BGR, the channels of their first kernel are
reversed. ConvNeXt's layer scale is a depthwise 1 x 1 convolution here, because Keras loads only stock layers without help.
"""

import functools
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.errors import RunError, lacks_memory, squeezed

MIN_SIZE = 32  # each of them halves the side five times
# Random weights need inputs of order one. Galaxies are dark: their root mean square is 28 (synthetic ones) to 40 (real
# ones) of 255 levels.
_SCRATCH_SCALE = 1 / 32
_MEAN_RGB = (123.68, 116.779, 103.939)  # of ImageNet, subtracted for VGG16 and ResNet50
_TORCH_MEAN = (0.485, 0.456, 0.406)  # of levels in 0..1, and their standard deviation, for ConvNeXt
_TORCH_SPREAD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A backbone, and the input that its ImageNet weights expect.

    name: in keras.applications; source: its paper. scale, offset: from RGB levels 0..255 to that input; bgr: whether its
    channels are in the order blue, green, red. plain: whether its layers can be used unchanged, see `_stock`. build: returns
    the keras.Model without its top, and accepts the options of keras.applications. blocks: for each block, from the input on, a
    regular expression with which the names of its layers begin.
    """

    name: str
    source: str
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    bgr: bool
    plain: bool
    build: Callable[..., Any]
    blocks: tuple[str, ...] = ()


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
    "vgg16": Backbone(
        "VGG16", "Simonyan & Zisserman 2015 (arXiv:1409.1556)", *_CAFFE, bgr=True, plain=True, build=_vgg16,
        blocks=tuple(f"block{number}_" for number in range(1, 6)),
    ),
    "resnet50": Backbone(
        "ResNet50", "He et al. 2016 (arXiv:1512.03385)", *_CAFFE, bgr=True, plain=False, build=_resnet50,
        blocks=tuple(f"conv{number}_" for number in range(1, 6)),
    ),
    "convnext_tiny": Backbone(
        "ConvNeXtTiny", "Liu et al. 2022 (arXiv:2201.03545)", *_TORCH, bgr=False, plain=False, build=_convnext_tiny,
        blocks=(
            r"convnext_tiny_(stem|stage_0_)",
            *(rf"convnext_tiny_(downsampling_[a-z]+_{number}|stage_{number + 1}_)" for number in range(3)),
        ),
    ),
}  # fmt: skip
MAX_BLOCKS = max(len(backbone.blocks) for backbone in BACKBONES.values())


def scaling(backbone: str, kind: str) -> tuple[list[float], list[float]]:
    """Factor and offset for each channel. `kind`: "imagenet", "random" (order one), or "unit" (0..1)."""
    if kind == "imagenet":
        return list(BACKBONES[backbone].scale), list(BACKBONES[backbone].offset)
    return [_SCRATCH_SCALE if kind == "random" else 1 / 255] * 3, [0.0] * 3


def _stock(layer: Any, synchronized: bool) -> Any:
    """A copy of the layer, or for ConvNeXt's layer scale a stock layer of Keras that does the same.

    synchronized: batch normalisation uses the whole batch, although each device gets only a part of it.
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
    """The feature maps of the backbone: KerasTensors (batch, size, size, 3), scaled -> (batch, rows, columns, channels).

    Its weights are not yet set. synchronized: as in `model.architecture`.
    """
    import keras

    chosen = BACKBONES[backbone]
    if chosen.plain:
        return chosen.build(weights=None, input_tensor=images).output
    model = chosen.build(weights=None, input_shape=tuple(images.shape[1:]))
    return keras.models.clone_model(model, clone_function=functools.partial(_stock, synchronized=synchronized))(images)


def freeze_blocks(backbone: str, model: Any, count: int) -> None:
    """Exclude the first blocks of a backbone in this keras.Model from training, with the statistics of their normalisation."""
    beginning = re.compile("|".join(BACKBONES[backbone].blocks[:count]) if count else r"(?!)")
    for layer in model.layers:
        if hasattr(layer, "layers"):
            freeze_blocks(backbone, layer, count)
        elif beginning.match(layer.name):
            layer.trainable = False


def pretrained(backbone: str, weights: str, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """The weights of a backbone for RGB input, in these shapes. Raises RunError if they cannot be loaded or do not fit."""
    of_backbone = f"keras.applications.{BACKBONES[backbone].name}(include_top=False)"
    if weights != "imagenet" and not Path(weights).is_file():
        raise RunError(f"{weights}: no such file: give --weights imagenet, none, or a file with the weights of {of_backbone}")
    if Path(weights).suffix == ".keras":  # Keras would load its layers, but their first kernel is in RGB order already
        raise RunError(
            f"{weights}: is a whole model: give --weights its run folder, or a file with the weights of {of_backbone}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a dozen, one per layer that does not fit, before the error that matters
            arrays = BACKBONES[backbone].build(weights=weights).get_weights()
    except Exception as error:  # Keras raises bare Exception for downloads, and many kinds for files
        if lacks_memory(error):
            raise MemoryError(f"reading {weights}") from error
        reason = squeezed(error)
        if weights == "imagenet":
            raise RunError(
                f"the ImageNet weights cannot be downloaded ({reason}): connect this machine to the internet, fetch "
                "them elsewhere and give --weights FILE, or use --weights none"
            ) from error
        raise RunError(
            f"{weights}: not weights of this backbone ({reason}): give --weights a file with the weights of {of_backbone}"
        ) from error
    if BACKBONES[backbone].bgr:
        arrays[0] = arrays[0][:, :, ::-1, :]
    return [array.reshape(shape) for array, shape in zip(arrays, shapes, strict=True)]


def draw_kernels(weights: Sequence[Any], seed: int, initialisation: str) -> list[np.ndarray]:
    """Random kernels for these variables; those that are not kernels stay unchanged (zero biases, unit scales).

    initialisation: "keras": uniform up to sqrt(6 / (inputs + outputs)) (Glorot & Bengio 2010), Keras' default; others: normal
    with standard deviation sqrt(2 / inputs) (He et al. 2015, arXiv:1502.01852). numpy draws them, so they are the same on
    every backend; JAX would compile a program for each shape, half a second each.
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
