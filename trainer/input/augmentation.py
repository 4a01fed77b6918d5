"""Augmentation that galaxies allow: the sky has no up or down, no left or right.

none      images as stored
dihedral  one of the 8 symmetries of the square, pixels exact
full      the same, then a rotation by any angle, a zoom between 1/1.1 and 1.1 and a shift of up to 4 % of the side along
          each axis, in one bilinear interpolation; the sky outside the image is its reflection at the edges

The augmentation of a galaxy depends only on seed, epoch and GalaxyID, not on its place in a batch or the number of machines.
The numbers are drawn in tf.data; the pixels are moved on the accelerator, as the first part of the step. A GPU waits for the
CPU cores that feed it, and these would need nine times as long for `full` as for decoding. Without a GPU, `full` takes less
than a hundredth of a step at 212 x 212 (benchmarks/README.md).
"""

import math
from typing import Any

AUGMENTATIONS = ("none", "dihedral", "full")
DRAWS = 7
MAX_ZOOM = 1.1
MAX_SHIFT = 0.04


def draws(seed: int, epoch: Any, galaxy_ids: Any) -> Any:
    """tf.Tensor float32 (batch, 7) in [0, 1): a function of seed, epoch (int64 scalar) and each id (int64 (batch,)).

    TensorFlow's own stateless generators take one seed per call, and a call per galaxy costs more than decoding it.
    The bits are those of SplitMix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195).
    """
    import tensorflow as tf

    def shifted(value: Any, places: int) -> Any:
        return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(places, tf.uint64)))

    def mixed(bits: Any) -> Any:
        bits = shifted(bits, 30) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
        bits = shifted(bits, 27) * tf.constant(0x94D049BB133111EB, tf.uint64)
        return shifted(bits, 31)

    step = tf.constant(0x9E3779B97F4A7C15, tf.uint64)  # the odd number nearest 2^64 over the golden ratio
    stream = mixed(tf.constant(seed, tf.uint64) * step + tf.cast(epoch, tf.uint64))
    start = mixed(tf.bitwise.bitwise_xor(tf.cast(galaxy_ids, tf.uint64), stream))
    counts = tf.cast(tf.range(1, DRAWS + 1, dtype=tf.int64), tf.uint64)
    bits = mixed(start[:, None] + counts[None, :] * step)
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(40, tf.uint64)), tf.float32) * 2.0**-24


def _dihedral(images: Any, drawn: Any) -> Any:
    """Transpose, flip up and down, flip left and right: each with probability one half for every image."""
    from keras import ops

    chosen = (drawn < 0.5)[:, :, None, None, None]
    images = ops.where(chosen[:, 0], ops.transpose(images, (0, 2, 1, 3)), images)
    images = ops.where(chosen[:, 1], ops.flip(images, 1), images)
    return ops.where(chosen[:, 2], ops.flip(images, 2), images)


def _reflected(places: Any, side: int) -> Any:
    """Coordinates in pixels; those outside 0..side - 1 are mirrored at the outer edges of the image."""
    from keras import ops

    places = ops.mod(ops.abs(places + 0.5), 2 * side)
    return ops.clip(ops.where(places >= side, 2 * side - places, places) - 0.5, 0, side - 1)


def _turned(images: Any, drawn: Any) -> Any:
    """Rotate, zoom and shift about the centre. drawn: (batch, 4), angle, zoom, shift in rows, shift in columns."""
    from keras import ops

    batch, side = images.shape[0], images.shape[1]
    angle = drawn[:, 0] * (2 * math.pi)
    zoom = ops.exp((2 * drawn[:, 1] - 1) * math.log(MAX_ZOOM))
    shift = (2 * drawn[:, 2:4] - 1) * (MAX_SHIFT * side)
    cos, sin = (ops.cos(angle) / zoom)[:, None, None], (ops.sin(angle) / zoom)[:, None, None]
    centre = (side - 1) / 2
    offsets = ops.arange(side, dtype="float32") - centre
    # The coordinates in the input of each pixel of the output.
    rows = cos * offsets[None, :, None] + sin * offsets[None, None, :] + (centre + shift[:, 0, None, None])
    columns = cos * offsets[None, None, :] - sin * offsets[None, :, None] + (centre + shift[:, 1, None, None])
    rows, columns = _reflected(rows, side), _reflected(columns, side)
    top, left = ops.floor(rows), ops.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    top, left = ops.cast(top, "int32"), ops.cast(left, "int32")
    bottom, next_left = ops.minimum(top + 1, side - 1), ops.minimum(left + 1, side - 1)
    pixels = ops.reshape(images, (batch * side * side, 3))
    firsts = (ops.arange(batch, dtype="int32") * (side * side))[:, None, None]

    def at(row: Any, column: Any) -> Any:
        return ops.take(pixels, firsts + row * side + column, axis=0)

    upper = at(top, left) * (1 - right) + at(top, next_left) * right
    lower = at(bottom, left) * (1 - right) + at(bottom, next_left) * right
    return ops.round(upper * (1 - down) + lower * down)


def augment(images: Any, drawn: Any, kind: str) -> Any:
    """Augment images, a tensor of the backend, uint8 (batch, size, size, 3). drawn: (batch, 7), see `draws`."""
    if kind == "none":
        return images
    from keras import ops

    # In float32, which is exact for 256 levels: TensorFlow does not transpose uint8 fast on every CPU. The maximum changes
    # nothing, but keeps TensorFlow from moving the cast behind the transposition.
    images = _dihedral(ops.maximum(ops.cast(images, "float32"), 0), drawn[:, :3])
    images = _turned(images, drawn[:, 3:]) if kind == "full" else images
    return ops.cast(images, "uint8")
