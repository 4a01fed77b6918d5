"""Images in any of the usual ranges as levels 0..255: the first layers of a saved model.

An image whose largest value is at most 1 is in 0..1 if one of its values is a fraction, and is multiplied by 255. All others
are levels already: even an image of the levels 0 and 1 alone, which is black. The rule consists of stock layers of Keras, so it
is part of model.keras and of every export. Images in 0..1 that overshoot up to 1.375, as after resizing, are recognised too.
"""

from typing import Any

_FRACTION = 1e4  # x (1 - x) of a fraction x is at least 1 over this
_OVERSHOOT = (1.375, 1.5)  # largest values at which an image is surely in 0..1, and surely not


def _largest(images: Any, name: str) -> Any:
    """The largest value of each image, (batch, 1)."""
    from keras import layers

    of_channels = layers.GlobalMaxPooling2D(dtype="float32", name=f"{name}_of_channels")(images)
    column = layers.Reshape((of_channels.shape[-1], 1), dtype="float32", name=f"{name}_column")(of_channels)
    return layers.GlobalMaxPooling1D(dtype="float32", name=name)(column)


def _truth(values: Any, slope: float, offset: float, name: str) -> Any:
    """0 or 1, the line slope * value + offset cut off at both."""
    from keras import layers

    line = layers.Rescaling(slope, offset, dtype="float32", name=f"{name}_line")(values)
    return layers.ReLU(max_value=1.0, dtype="float32", name=name)(line)


def as_levels(images: Any) -> Any:
    """KerasTensor float32 (batch, size, size, 3) in 0..255 or 0..1 -> the same in 0..255."""
    from keras import layers

    surely, no_longer = _OVERSHOOT
    slope = 1 / (surely - no_longer)
    is_low = _truth(_largest(images, "largest"), slope, -slope * no_longer, "is_low")
    # x (1 - x) is positive between 0 and 1 alone.
    others = layers.Rescaling(-1.0, 1.0, dtype="float32", name="one_minus")(images)
    product = layers.Multiply(dtype="float32", name="fractions_are_positive")([images, others])
    has_fractions = _truth(_largest(product, "largest_fraction"), _FRACTION, 0.0, "has_fractions")
    both = layers.Multiply(dtype="float32", name="is_in_unit_range")([is_low, has_fractions])
    factor = layers.Rescaling(254.0, 1.0, dtype="float32", name="factor")(both)
    factor = layers.Reshape((1, 1, 1), dtype="float32", name="factor_of_image")(factor)
    return layers.Multiply(dtype="float32", name="levels")([images, factor])
