"""The regressor: crops -> vote fractions of a decision tree.

A backbone (VGG16 by default) -> Flatten or the mean of each map -> Dense 1024 relu -> Dropout 0.5 -> Dense 1024 relu -> the
fractions, Kaggle's 37 or those of another tree: 34,677,605 parameters for VGG16, Flatten, 212 x 212 and 37. Source of the head:
"Using a Convoluted Neural Network to Classify Galaxy Images" (William Miller).

The model scales its images itself: uint8 ones, and as a saved model those of any range (see `levels`). By default its output
starts at the column means of `train` (zero kernel, their logits as bias): from any other start VGG16 easily collapses to a
constant.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfrecords.builtin import builtin_tree
from tfrecords.errors import RunError
from tfrecords.tree import Tree
from trainer.network import backbones, heads
from trainer.network.levels import as_levels

INITIALISATIONS = ("means", "he", "keras")
INPUT_SCALINGS = ("auto", "unit")
POOLINGS = ("flatten", "average")


@dataclass(frozen=True)
class Design:
    """The architecture of a model; the defaults are those of the article.

    size: side of its images in pixels; scaling: see `backbones.scaling`; tree: the answers that it predicts;
    the rest as in `config.SETTINGS`.
    """

    size: int
    backbone: str = "vgg16"
    scaling: str = "imagenet"
    pooling: str = "flatten"
    head: str = "sigmoid"
    tree: Tree = field(default_factory=builtin_tree)


def architecture(design: Design, precision: str, seed: int = 0, synchronized: bool = False, any_range: bool = False) -> Any:
    """The keras.Model, its weights not yet set: uint8 (batch, size, size, 3) -> float32 (batch, outputs).

    outputs: the fractions of `design.tree.columns`, for head dirichlet followed by concentrations, see `heads.vote_fractions`.
    `precision`: a Keras dtype policy; the output stays float32 under all of them. `seed`: of the dropout. `synchronized`:
    batch normalisation uses the whole batch, although each device gets only a part of it, see `Devices.splits_batches`.
    `any_range`: images may also be floats, in 0..255 or 0..1, see `levels`. The layer named after the pooling outputs the
    features; the layers before it are the backbone.
    """
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)  # keras.applications has no option for it; restored below
    try:
        images = keras.Input((design.size, design.size, 3), dtype="float32" if any_range else "uint8", name="image")
        levels = as_levels(images) if any_range else images
        scale, offset = backbones.scaling(design.backbone, design.scaling)
        scaled = keras.layers.Rescaling(scale, offset, dtype="float32", name="scaling")(levels)
        maps = backbones.build_maps(design.backbone, scaled, synchronized)
        if design.pooling == "average":
            x = keras.layers.GlobalAveragePooling2D(name="average")(maps)
        else:
            x = keras.layers.Flatten(name="flatten")(maps)
        x = keras.layers.Dense(1024, "relu", kernel_initializer="zeros", name="fc1")(x)
        x = keras.layers.Dropout(0.5, seed=seed, name="dropout")(x)
        x = keras.layers.Dense(1024, "relu", kernel_initializer="zeros", name="fc2")(x)
        return keras.Model(images, heads.vote_fractions(x, design.head, design.tree), name=f"galaxy_zoo_{design.backbone}")
    finally:
        keras.config.set_dtype_policy(before)


def build_model(
    design: Design,
    weights: str,
    column_means: np.ndarray,
    precision: str,
    seed: int,
    initialisation: str = "means",
    synchronized: bool = False,
) -> Any:
    """The keras.Model at the start of training.

    weights: "imagenet", "none" or a file for the backbone; column_means: float (n,), the initial output if initialisation
    is "means"; synchronized: as in `architecture`. Raises RunError for images below 32 x 32 and for weights that cannot be
    loaded or do not fit.
    """
    if design.size < backbones.MIN_SIZE:
        name = backbones.BACKBONES[design.backbone].name
        raise RunError(
            f"images of {design.size} x {design.size} are too small for {name}, which needs at least {backbones.MIN_SIZE}: "
            f"build the dataset again with --size {backbones.MIN_SIZE} or more"
        )
    import keras

    model = architecture(design, precision, seed, synchronized)
    of_base = keras.Model(model.input, model.get_layer(design.pooling).output).weights
    output = model.get_layer("vote_fractions")
    hidden = [weight for name in ("fc1", "fc2") for weight in model.get_layer(name).weights]
    if weights == "none":
        arrays = backbones.draw_kernels(of_base, seed, initialisation)
    else:
        arrays = backbones.pretrained(design.backbone, weights, [tuple(weight.shape) for weight in of_base])
    if initialisation == "means":
        output.bias.assign(heads.bias_at(column_means, design.head, design.tree))
    else:
        hidden.append(output.kernel)
    arrays += backbones.draw_kernels(hidden, seed + 1, initialisation)
    for weight, array in zip([*of_base, *hidden], arrays, strict=True):
        weight.assign(array)
    return model


def for_inference(design: Design, weights: Sequence[np.ndarray]) -> Any:
    """The model in float32 with these weights and without optimizer, as saved in `model.keras`: for images of any range."""
    copy = architecture(design, "float32", any_range=True)
    copy.set_weights(weights)
    return copy


def before_head(model: Any) -> tuple[Any, str]:
    """The part of a model before its head: a keras.Model with output (batch, features), and the name of its last layer.

    Its output is what `heads.vote_fractions` gets: that of the last hidden layer, 1,024 values for every backbone and size.
    """
    import keras

    part = keras.Model(model.input, model.get_layer("vote_fractions").input)
    return part, str(part.output_names[0])
