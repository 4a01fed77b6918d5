"""Other tools for the offline build, and the codec calls alone; each loop runs in a separate process and times itself.

    python -m benchmarks.preprocess.rivals NAME SRC OUT [--workers N] [--examples_per_shard K]

SRC contains images_training_rev1/ID.jpg (424 x 424) and training_solutions_rev1.csv; OUT is a new folder for the records.
Each loop keeps the centre 212 x 212 of every image and, if it writes, its GalaxyID and 37 vote fractions. A loop runs
once over WARM_UP images, untimed, then over all of them. The last line of stdout is JSON:

    images, seconds   of the timed loop; for img2dataset, from the first start to the last end of a shard in its own
                      statistics, which excludes its start-up
    ready             Unix time in seconds at which imports and warm-up had finished; the time before is start-up

NAME        loop
article     the article's batch loader: matplotlib imread, centre half, skimage resize to floats, in batches; writes nothing
tf-example  TensorFlow's TFRecord tutorial: eager decode, crop, encode at quality 95, tf.train.Example; one thread, one file
tfds        tfds.core.SequentialWriter with galaxy_id, image (cropped by Pillow, encoded by TFDS) and targets; one thread
img2dataset file:// URLs to webdataset tars with N processes. It cannot crop alone: its center_crop first shrinks the whole
            image to 212 x 212, so decoding and encoding are the same work, and shrinking replaces the crop
ceiling-*   the codec calls of an encoding alone, over images held in memory, on one core; writes nothing

Runs in any Python that has the packages of its loop, because it imports nothing from this project.
"""

import argparse
import csv
import io
import json
import math
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

WARM_UP = 20
SIDE, FIRST = 212, 106  # the centre half of 424 pixels
LOSSLESS_FIRST, LOSSLESS_SIDE = 96, 224  # the same, extended to the borders of 16 x 16 blocks
JPEG_QUALITY = 95
ARTICLE_BATCH = 32  # the article's loader fills one array per batch
CEILING_SECONDS = 0.5  # a single pass over a few images is too short to time
DOWNLOAD_THREADS = 2  # per process; img2dataset's default of 256 is for downloads and costs a third of its rate here


@dataclass(frozen=True)
class Galaxy:
    """One image with its GalaxyID and its 37 vote fractions."""

    galaxy_id: int
    path: Path
    targets: list[float]


@dataclass(frozen=True)
class Work:
    """The input of a loop: galaxies, an existing folder for its records, number of processes, records per shard."""

    galaxies: Sequence[Galaxy]
    out: Path
    workers: int
    examples_per_shard: int


@dataclass(frozen=True)
class Timing:
    """Images and seconds of the timed loop, and the Unix time at which start-up had finished."""

    images: int
    seconds: float
    ready: float


def read_galaxies(src: Path) -> list[Galaxy]:
    """The rows of the table of votes in SRC, with the paths of their images."""
    with (src / "training_solutions_rev1.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    images = src.resolve() / "images_training_rev1"
    return [Galaxy(int(row[0]), images / f"{row[0]}.jpg", [float(vote) for vote in row[1:]]) for row in rows]


def time_loop(loop: Callable[[Work], None], work: Work) -> Timing:
    """Run `loop` over WARM_UP galaxies, then over all, and time only the latter."""
    # Next to OUT, not in it: the records of the warm-up must not count as output.
    with tempfile.TemporaryDirectory(dir=work.out.parent, prefix="warm-up-") as folder:
        loop(replace(work, galaxies=work.galaxies[:WARM_UP], out=Path(folder)))
    ready, began = time.time(), time.perf_counter()
    loop(work)
    return Timing(len(work.galaxies), time.perf_counter() - began, ready)


def time_article(work: Work) -> Timing:
    """float64 batches of shape (ARTICLE_BATCH, 212, 212, 3), each dropped when the next one is made."""
    import numpy as np
    from matplotlib.image import imread
    from skimage.transform import resize

    def loop(work: Work) -> None:
        for start in range(0, len(work.galaxies), ARTICLE_BATCH):
            galaxies = work.galaxies[start : start + ARTICLE_BATCH]
            batch = np.zeros((len(galaxies), SIDE, SIDE, 3))
            for place, galaxy in enumerate(galaxies):
                centre = imread(galaxy.path)[FIRST : FIRST + SIDE, FIRST : FIRST + SIDE]
                batch[place] = resize(centre, (SIDE, SIDE, 3))

    return time_loop(loop, work)


def time_tf_example(work: Work) -> Timing:
    """One TFRecord file, written as in https://www.tensorflow.org/tutorials/load_data/tfrecord"""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    def example(galaxy: Galaxy) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(str(galaxy.path)), channels=3)
        centre = image[FIRST : FIRST + SIDE, FIRST : FIRST + SIDE]
        jpeg = tf.io.encode_jpeg(centre, quality=JPEG_QUALITY).numpy()
        feature = {
            "galaxy_id": tf.train.Feature(int64_list=tf.train.Int64List(value=[galaxy.galaxy_id])),
            "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[jpeg])),
            "targets": tf.train.Feature(float_list=tf.train.FloatList(value=galaxy.targets)),
        }
        return tf.train.Example(features=tf.train.Features(feature=feature))

    def loop(work: Work) -> None:
        with tf.io.TFRecordWriter(str(work.out / "galaxies.tfrecord")) as writer:
            for galaxy in work.galaxies:
                writer.write(example(galaxy).SerializeToString())

    return time_loop(loop, work)


def time_tfds(work: Work) -> Timing:
    """A TFDS dataset with one split; a shard's galaxies are added in one call, because each call rewrites the metadata."""
    import numpy as np
    import tensorflow_datasets as tfds
    from PIL import Image

    features = tfds.features.FeaturesDict(
        {
            "galaxy_id": np.int64,
            "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="jpeg"),
            "targets": tfds.features.Tensor(shape=(37,), dtype=np.float32),
        }
    )

    def example(galaxy: Galaxy) -> dict[str, Any]:
        with Image.open(galaxy.path) as image:
            centre = np.asarray(image.crop((FIRST, FIRST, FIRST + SIDE, FIRST + SIDE)))
        return {"galaxy_id": galaxy.galaxy_id, "image": centre, "targets": np.asarray(galaxy.targets, np.float32)}

    def loop(work: Work) -> None:
        identity = tfds.core.DatasetIdentity(name="galaxies", version="1.0.0", data_dir=str(work.out), module_name="")
        info = tfds.core.DatasetInfo(builder=identity, features=features)
        writer = tfds.core.SequentialWriter(info, max_examples_per_shard=work.examples_per_shard)
        writer.initialize_splits(["train"])
        for start in range(0, len(work.galaxies), work.examples_per_shard):
            galaxies = work.galaxies[start : start + work.examples_per_shard]
            writer.add_examples({"train": [example(galaxy) for galaxy in galaxies]})
        writer.close_all()

    return time_loop(loop, work)


def time_img2dataset(work: Work) -> Timing:
    """One tar per process: img2dataset ends a process after five shards, and a new one takes seconds to import."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise each process checks online for a newer version
    import pyarrow as pa
    from img2dataset import download
    from pyarrow import parquet

    columns = {
        "url": [galaxy.path.as_uri() for galaxy in work.galaxies],
        "galaxy_id": [galaxy.galaxy_id for galaxy in work.galaxies],
        "targets": pa.array([galaxy.targets for galaxy in work.galaxies], pa.list_(pa.float32())),
    }
    urls = work.out.with_name(f"{work.out.name}-urls.parquet")
    parquet.write_table(pa.table(columns), urls)
    download(
        url_list=str(urls),
        input_format="parquet",
        save_additional_columns=["galaxy_id", "targets"],
        output_folder=str(work.out),
        output_format="webdataset",
        resize_mode="center_crop",
        image_size=SIDE,
        encode_quality=JPEG_QUALITY,
        processes_count=work.workers,
        thread_count=DOWNLOAD_THREADS,
        number_sample_per_shard=math.ceil(len(work.galaxies) / work.workers),
        # Off, as no other loop does this: a hash of each image, its EXIF, a check for opt-out headers.
        compute_hash=None,
        extract_exif=False,
        disallowed_header_directives=[],
    )
    stats = [json.loads(path.read_text()) for path in work.out.glob("*_stats.json")]
    stored = sum(shard["successes"] for shard in stats)
    if stored != len(work.galaxies):
        raise SystemExit(f"img2dataset stored {stored} of {len(work.galaxies)} images: see its messages above")
    began = min(shard["start_time"] for shard in stats)
    return Timing(stored, max(shard["end_time"] for shard in stats) - began, began)


def _codecs() -> dict[str, Callable[[bytes], bytes]]:
    """For each encoding, the minimum that a build must do to an image, and nothing else."""
    import numpy as np
    import turbojpeg
    from PIL import Image

    def cut(data: bytes) -> Any:
        pixels = np.asarray(turbojpeg.decompress(data, turbojpeg.PF.RGB, raise_on_warnings=True))
        return pixels[FIRST : FIRST + SIDE, FIRST : FIRST + SIDE]

    def jpeg(data: bytes) -> bytes:
        turbojpeg.decompress_header(data)
        first, side = LOSSLESS_FIRST, LOSSLESS_SIDE
        return turbojpeg.transform(data, x=first, y=first, w=side, h=side, crop=True, copynone=True, perfect=False)

    def png(data: bytes) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(cut(data)).save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
        return buffer.getvalue()

    def raw(data: bytes) -> bytes:
        return cut(data).tobytes()

    return {"jpeg": jpeg, "png": png, "raw": raw}


def time_codec(encoding: str, work: Work) -> Timing:
    """Time passes over all images in memory until CEILING_SECONDS have elapsed; at least one."""
    codec = _codecs()[encoding]
    images = [galaxy.path.read_bytes() for galaxy in work.galaxies]
    for data in images[:WARM_UP]:
        codec(data)
    done, ready, began = 0, time.time(), time.perf_counter()
    while (seconds := time.perf_counter() - began) < CEILING_SECONDS:
        for data in images:
            codec(data)
        done += len(images)
    return Timing(done, seconds, ready)


LOOPS: dict[str, Callable[[Work], Timing]] = {
    "article": time_article,
    "tf-example": time_tf_example,
    "tfds": time_tfds,
    "img2dataset": time_img2dataset,
    "ceiling-jpeg": lambda work: time_codec("jpeg", work),
    "ceiling-png": lambda work: time_codec("png", work),
    "ceiling-raw": lambda work: time_codec("raw", work),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one loop over SRC; the last line of stdout is JSON.")
    parser.add_argument("name", choices=LOOPS, metavar="NAME", help=", ".join(LOOPS))
    parser.add_argument(
        "src", type=Path, metavar="SRC", help="folder with images_training_rev1/ and training_solutions_rev1.csv"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="new folder for the records")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, for img2dataset (default: 1)")
    parser.add_argument("--examples_per_shard", type=int, default=2048, metavar="K", help="for tfds (default: 2048)")
    args = parser.parse_args()
    os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3")  # before TensorFlow is imported
    args.out.mkdir(parents=True)
    timing = LOOPS[args.name](Work(read_galaxies(args.src), args.out, args.workers, args.examples_per_shard))
    print(json.dumps({"images": timing.images, "seconds": timing.seconds, "ready": timing.ready}), flush=True)


if __name__ == "__main__":  # img2dataset's processes import this module again
    main()
