"""A plain Keras loop on the same galaxies, for comparison with the recipes: an afternoon's careful work.

VGG16 from ImageNet, the article's head, the usual input scaling, dihedral augmentation, Adam at 1e-4 with warm-up and cosine,
batches of 32. The images come from the dataset; everything else is standard Keras.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE, PEAK, WARMUP_STEPS = 32, 1e-4, 60


def _split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """GalaxyIDs (n,), images uint8 (n, size, size, 3) and votes (n, 37)."""
    from tfrecords.dataset import open_dataset
    from trainer.input.evaluation import evaluation_batches

    parts = list(evaluation_batches(open_dataset(folder), split, 256).as_numpy_iterator())
    ids, images, votes = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ids, images, votes


def _model(size: int, weights: str, steps: int) -> Any:
    import keras

    images = keras.Input((size, size, 3))
    base = keras.applications.VGG16(include_top=False, weights=weights, input_shape=(size, size, 3))
    x = keras.layers.Flatten()(base(keras.applications.vgg16.preprocess_input(images)))
    x = keras.layers.Dense(1024, "relu")(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Dense(1024, "relu")(x)
    model = keras.Model(images, keras.layers.Dense(37, "sigmoid")(x))
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps - WARMUP_STEPS, warmup_target=PEAK, warmup_steps=WARMUP_STEPS)
    model.compile(keras.optimizers.Adam(rate), "mse")
    return model


def train(args: argparse.Namespace) -> None:
    """Train on split `train`, and save the model of the last epoch."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(args.seed)
    _, images, votes = _split(args.train, "train")

    def symmetry(image: Any, target: Any) -> tuple[Any, Any]:
        image = tf.image.random_flip_left_right(tf.image.random_flip_up_down(image))
        image = tf.cond(tf.random.uniform([]) < 0.5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        return tf.cast(image, tf.float32), target

    galaxies = tf.data.Dataset.from_tensor_slices((images, votes)).shuffle(len(images))
    batches = galaxies.map(symmetry).batch(BATCH_SIZE, drop_remainder=True).prefetch(2)
    model = _model(images.shape[1], str(args.weights), args.epochs * (len(images) // BATCH_SIZE))
    model.fit(batches, epochs=args.epochs, verbose=2)
    args.out.mkdir(parents=True)
    model.save(args.out / "model.keras")


def predict(args: argparse.Namespace) -> None:
    """Write the predictions for a split as CSV."""
    import keras

    from tfrecords.builtin import builtin_tree

    ids, images, _ = _split(args.tfrecords, args.split)
    model = keras.models.load_model(args.run / "model.keras", compile=False)
    predicted = model.predict(images.astype(np.float32), verbose=0)
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["GalaxyID", *builtin_tree().columns])
        writer.writerows([number, *row] for number, row in zip(ids.tolist(), predicted.tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train")
    for name in ("train", "weights", "out"):
        training.add_argument(f"--{name}", type=Path, required=True)
    for name in ("epochs", "seed"):
        training.add_argument(f"--{name}", type=int, required=True)
    training.set_defaults(command=train)
    predicting = commands.add_parser("predict")
    for name in ("run", "tfrecords", "out"):
        predicting.add_argument(f"--{name}", type=Path, required=True)
    predicting.add_argument("--split", required=True)
    predicting.set_defaults(command=predict)
    args = parser.parse_args()
    args.command(args)


if __name__ == "__main__":
    main()
