"""Ways to augment a batch of galaxies, timed in a process of its own.

    python benchmarks/augmenters.py NAME [--cores K]

A batch is 32 uint8 images of 212 x 212 x 3. The last line of stdout is JSON: microseconds an image by kind, dihedral and full.

NAME            what runs
jax             trainer.augmentation.augment in one jitted function of JAX
tensorflow      the same in a tf.function; tensorflow-xla: with jit_compile
tf-data         operations of TensorFlow on one image in Dataset.map on all cores: flips and a transposition; for full
                also tf.raw_ops.ImageProjectiveTransformV3, bilinear, reflected at the edges; then batch
"""

import argparse
import functools
import json
import math
import os
import time
from collections.abc import Callable
from typing import Any

BATCH, SIDE, DRAWS = 32, 212, 7
MIN_SECONDS = 1.5
KINDS = ("dihedral", "full")


def microseconds(step: Callable[[], Any]) -> float:
    """Microseconds an image of a step that augments a batch and waits for it, after two to warm up."""
    for _ in range(2):
        step()
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < MIN_SECONDS:
        step()
        steps += 1
    return (time.perf_counter() - began) / steps / BATCH * 1e6


def _random() -> tuple[Any, Any]:
    import numpy as np

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8)
    return images, generator.random((BATCH, DRAWS), np.float32)


def jax(kind: str, cores: int) -> float:
    os.environ["KERAS_BACKEND"] = "jax"
    import jax as library

    from trainer.augmentation import augment

    images, drawn = (library.numpy.asarray(array) for array in _random())
    compiled = library.jit(functools.partial(augment, kind=kind))
    return microseconds(lambda: compiled(images, drawn).block_until_ready())


def _tensorflow(cores: int) -> Any:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(cores)
    return tf


def tensorflow(kind: str, cores: int, xla: bool) -> float:
    tf = _tensorflow(cores)
    from trainer.augmentation import augment

    images, drawn = (tf.constant(array) for array in _random())
    compiled = tf.function(functools.partial(augment, kind=kind), jit_compile=xla, autograph=False)
    return microseconds(lambda: compiled(images, drawn).numpy())


def tf_data(kind: str, cores: int) -> float:
    tf = _tensorflow(cores)
    from trainer.augmentation import MAX_SHIFT, MAX_ZOOM

    def moved(image: Any, drawn: Any) -> Any:
        image = tf.cond(drawn[0] < 0.5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        image = tf.cond(drawn[1] < 0.5, lambda: tf.reverse(image, (0,)), lambda: image)
        image = tf.cond(drawn[2] < 0.5, lambda: tf.reverse(image, (1,)), lambda: image)
        if kind == "dihedral":
            return image
        angle, zoom = drawn[3] * 2 * math.pi, tf.exp((2 * drawn[4] - 1) * math.log(MAX_ZOOM))
        cos, sin, centre = tf.cos(angle) / zoom, tf.sin(angle) / zoom, (SIDE - 1) / 2
        rows, columns = ((2 * drawn[number] - 1) * MAX_SHIFT * SIDE + centre for number in (5, 6))
        # Output (x, y) comes from (a x + b y + c, d x + e y + f) of the input, about the centre.
        first = (cos, -sin, columns - (cos - sin) * centre, sin, cos, rows - (sin + cos) * centre, 0.0, 0.0)
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=image[None], transforms=tf.stack(first)[None], output_shape=(SIDE, SIDE), fill_value=0.0,
            interpolation="BILINEAR", fill_mode="REFLECT",
        )[0]  # fmt: skip

    images, drawn = _random()
    # All from memory; its rate without `map` is about that of copying the batch.
    source = tf.data.Dataset.from_tensor_slices((images, drawn)).repeat()
    batches = iter(source.map(moved, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(2))
    for _ in range(20):  # until AUTOTUNE has found its threads
        next(batches)
    return microseconds(lambda: next(batches))


WAYS: dict[str, Callable[[str, int], float]] = {
    "jax": jax,
    "tensorflow": functools.partial(tensorflow, xla=False),
    "tensorflow-xla": functools.partial(tensorflow, xla=True),
    "tf-data": tf_data,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one way to augment; the last line of stdout is JSON.")
    parser.add_argument("name", choices=WAYS, metavar="NAME", help=", ".join(WAYS))
    parser.add_argument("--cores", type=int, default=1, metavar="K", help="(default: 1)")
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])  # before any library counts them
    os.environ.update(OMP_NUM_THREADS=str(args.cores), CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3")
    print(json.dumps({kind: WAYS[args.name](kind, args.cores) for kind in KINDS}), flush=True)


if __name__ == "__main__":
    main()
