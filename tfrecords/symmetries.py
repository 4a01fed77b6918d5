"""The 8 symmetries of the square: the sky has no up or down, no left or right.

Number 0 is the identity; 1 flips left and right, 2 flips up and down, 3 does both (half a turn); 4 to 7 are the same after
a transposition. The first 1, 2, 4 and 8 of them are therefore groups.
"""

import numpy as np

COUNT = 8


def transformed(images: np.ndarray, number: int) -> np.ndarray:
    """A view of images (..., height, width, channels) under a symmetry; those from 4 up swap height and width."""
    if number & 4:
        images = images.swapaxes(-3, -2)
    if number & 2:
        images = images[..., ::-1, :, :]
    return images[..., ::-1, :] if number & 1 else images


def steps(number: int) -> tuple[np.ndarray, np.ndarray]:
    """One pixel to the right and one pixel down in a transformed image, as (columns, rows) in the original."""
    right, down = np.array([-1 if number & 1 else 1, 0]), np.array([0, -1 if number & 2 else 1])
    return (right[::-1], down[::-1]) if number & 4 else (right, down)
