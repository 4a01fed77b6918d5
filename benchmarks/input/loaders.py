"""Input pipelines that deliver the same batches of galaxies; each runs in a separate process and times itself.

    python -m benchmarks.input.loaders NAME SRC STORED [--cores K] [--images N]

SRC is Kaggle's folder; STORED holds the files that __main__.py made from it: datasets jpeg/, png/ and raw/, and tars/ for
webdataset. A batch is 32 images of 212 x 212 x 3, the centre of 424 x 424, with 37 votes each, in the library's own tensors.
One epoch warms up, and gives the mean level of the images; then batches are counted for at least N images and MIN_SECONDS.
The last line of stdout is JSON: images and seconds of the timed part; level, the mean of the images in 0..255.

NAME          pipeline (all shuffle, as their documentation recommends)
ours-*        trainer.input of this project; -decoded and -stored: with its cache of that kind, from the JPEG dataset
tfds          the JPEG dataset by tfds.builder_from_directory: shuffled files, shuffle(1024), cropped at crop_offset, prefetch
tf-data       TensorFlow's guide for a folder of files, with decode_and_crop_jpeg; shuffles all paths
keras         keras.utils.image_dataset_from_directory, centre cropped afterwards; float32; no votes (it supports classes only)
torch         torch.utils.data.DataLoader, Pillow in one worker process per core
webdataset    8 tars of the original files and votes, Pillow in one worker process per core
article       the article's generator in batches of 32: matplotlib imread, centre half, skimage resize to float64; one core

Runs in any Python that has the packages of its pipeline: only ours-* import this project.
"""

import argparse
import csv
import functools
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BATCH, SIDE, FIRST, VOTES = 32, 212, 106, 37
SHUFFLE = 1024
MIN_SECONDS = 2.0  # the fastest deliver 6,128 images in less than one second
SEED = 0
Batches = Iterator[tuple[Any, Any]]


@dataclass(frozen=True)
class Work:
    """The input of a pipeline: Kaggle's folder, the folder of files made from it, and the number of cores."""

    src: Path
    stored: Path
    cores: int

    @property
    def images(self) -> Path:
        return self.src / "images_training_rev1"

    def galaxies(self) -> tuple[list[str], list[list[float]]]:
        """The paths of the images and their votes."""
        with (self.src / "training_solutions_rev1.csv").open(newline="") as file:
            rows = [row for row in list(csv.reader(file))[1:] if (self.images / f"{row[0]}.jpg").is_file()]
        paths = [str(self.images / f"{row[0]}.jpg") for row in rows]
        return paths, [[float(vote) for vote in row[1:]] for row in rows]


def _tensorflow(cores: int) -> Any:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(cores)
    return tf


def ours(encoding: str, cache: str, work: Work) -> Batches:
    _tensorflow(work.cores)
    from tfrecords.dataset import open_dataset
    from trainer.input.training import TrainingInput

    source = TrainingInput(open_dataset(work.stored / encoding), BATCH, SEED, cache=cache, augmented=False)
    for images, votes, _ in source.batches(0, 1 << 30):
        yield images, votes


def tfds(work: Work) -> Batches:
    tf = _tensorflow(work.cores)
    import tensorflow_datasets

    def cut(example: dict[str, Any]) -> tuple[Any, Any]:
        begin = tf.concat([example["crop_offset"], [0]], 0)
        return tf.slice(example["image"], begin, (SIDE, SIDE, 3)), example["targets"]

    builder = tensorflow_datasets.builder_from_directory(work.stored / "jpeg")
    # By default it keeps datasets below 250 MB in memory; all pipelines are to read from the page cache.
    config = tensorflow_datasets.ReadConfig(try_autocache=False)
    epoch = builder.as_dataset(split="train", shuffle_files=True, read_config=config).shuffle(SHUFFLE)
    epoch = epoch.map(cut, num_parallel_calls=tf.data.AUTOTUNE)
    yield from epoch.batch(BATCH, drop_remainder=True).repeat().prefetch(tf.data.AUTOTUNE)


def tf_data(work: Work) -> Batches:
    tf = _tensorflow(work.cores)

    def read(path: Any, votes: Any) -> tuple[Any, Any]:
        return tf.io.decode_and_crop_jpeg(tf.io.read_file(path), [FIRST, FIRST, SIDE, SIDE], channels=3), votes

    paths, votes = work.galaxies()
    files = tf.data.Dataset.from_tensor_slices((paths, votes)).shuffle(len(paths))
    epoch = files.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH, drop_remainder=True)
    yield from epoch.repeat().prefetch(tf.data.AUTOTUNE)


def keras(work: Work) -> Batches:
    tf = _tensorflow(work.cores)
    from keras.utils import image_dataset_from_directory

    epoch = image_dataset_from_directory(work.images, labels=None, image_size=(2 * SIDE, 2 * SIDE), batch_size=BATCH)
    epoch = epoch.map(lambda images: images[:, FIRST : FIRST + SIDE, FIRST : FIRST + SIDE], num_parallel_calls=tf.data.AUTOTUNE)
    for images in epoch.prefetch(tf.data.AUTOTUNE).repeat():
        yield images, None


def _centre(image: Any) -> Any:
    """A Pillow image -> uint8 array (212, 212, 3)."""
    import numpy as np

    return np.array(image.crop((FIRST, FIRST, FIRST + SIDE, FIRST + SIDE)))


class TorchGalaxies:
    """A map-style dataset for DataLoader; at module level, because worker processes may have to unpickle it."""

    def __init__(self, work: Work) -> None:
        self._paths, self._votes = work.galaxies()

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        import torch
        from PIL import Image

        with Image.open(self._paths[index]) as image:
            return torch.from_numpy(_centre(image)), torch.tensor(self._votes[index])


def pytorch(work: Work) -> Batches:
    import torch
    from torch.utils.data import DataLoader

    torch.set_num_threads(work.cores)
    galaxies: Any = TorchGalaxies(work)
    loader = DataLoader(galaxies, BATCH, shuffle=True, num_workers=work.cores, drop_last=True, persistent_workers=True)
    while True:
        yield from loader


def webdataset(work: Work) -> Batches:
    import torch
    import webdataset as wds

    torch.set_num_threads(work.cores)
    urls = sorted(str(path) for path in (work.stored / "tars").glob("*.tar"))
    samples = wds.WebDataset(urls, shardshuffle=len(urls)).shuffle(SHUFFLE).decode("pil").to_tuple("jpg", "npy")
    batches = samples.map_tuple(_centre, lambda votes: votes).batched(BATCH, partial=False)
    # Without persistent_workers, every epoch starts its processes again.
    loader = wds.WebLoader(batches, batch_size=None, num_workers=work.cores, persistent_workers=True)
    while True:
        yield from loader


def article(work: Work) -> Batches:
    import numpy as np
    from matplotlib.image import imread
    from skimage.transform import resize

    paths, votes = work.galaxies()
    order = list(range(len(paths)))
    while True:
        random.shuffle(order)
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            images = np.zeros((BATCH, SIDE, SIDE, 3))
            for place, index in enumerate(chosen):
                centre = imread(paths[index])[FIRST : FIRST + SIDE, FIRST : FIRST + SIDE]
                images[place] = resize(centre, (SIDE, SIDE, 3))
            yield images, np.array([votes[index] for index in chosen])


LOADERS: dict[str, Callable[[Work], Batches]] = {
    "ours-raw": functools.partial(ours, "raw", "none"),
    "ours-jpeg": functools.partial(ours, "jpeg", "none"),
    "ours-png": functools.partial(ours, "png", "none"),
    "ours-decoded": functools.partial(ours, "jpeg", "decoded"),
    "ours-stored": functools.partial(ours, "jpeg", "stored"),
    "tfds": tfds,
    "tf-data": tf_data,
    "keras": keras,
    "torch": pytorch,
    "webdataset": webdataset,
    "article": article,
}


def level_of(batch: tuple[Any, Any]) -> float:
    """The mean of a batch's images in 0..255. Exits with a message if the shapes are wrong."""
    import numpy as np

    images, votes = np.asarray(batch[0]), batch[1]
    if images.shape != (BATCH, SIDE, SIDE, 3) or (votes is not None and tuple(votes.shape) != (BATCH, VOTES)):
        raise SystemExit(f"images {images.shape}, votes {getattr(votes, 'shape', None)}: wrong shape of batch")
    return float(images.mean()) * (255 if images.dtype == np.float64 else 1)  # the article's images are in 0..1


def time_loader(batches: Batches, epoch: int, images: int) -> dict[str, float]:
    """Warm up with one epoch of whole batches, then time at least `images` images and MIN_SECONDS."""
    levels = [level_of(batch) for batch in itertools.islice(batches, epoch // BATCH)]
    done, began = 0, time.perf_counter()
    while done < images or time.perf_counter() - began < MIN_SECONDS:
        done += len(next(batches)[0])
    return {"images": done, "seconds": time.perf_counter() - began, "level": sum(levels) / len(levels)}


def use_cores(cores: int) -> None:
    """Limit this process and its children to `cores` cores. Call it before importing any library that counts cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    os.environ.update(OMP_NUM_THREADS=str(cores), CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one pipeline; the last line of stdout is JSON.")
    parser.add_argument("name", choices=LOADERS, metavar="NAME", help=", ".join(LOADERS))
    parser.add_argument("src", type=Path, metavar="SRC", help="folder of Kaggle's download")
    parser.add_argument("stored", type=Path, metavar="STORED", help="folder with jpeg/, png/, raw/ and tars/")
    parser.add_argument("--cores", type=int, default=1, metavar="K", help="cores to use (default: 1)")
    parser.add_argument(
        "--images", type=int, default=6128, metavar="N", help="minimum number of images to time (default: 6128)"
    )
    args = parser.parse_args()
    use_cores(args.cores)
    work = Work(args.src, args.stored, args.cores)
    timing = time_loader(LOADERS[args.name](work), len(work.galaxies()[0]), args.images)
    print(json.dumps(timing), flush=True)


if __name__ == "__main__":
    main()
