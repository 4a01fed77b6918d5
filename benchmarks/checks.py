"""The cost of two checks: hashing shards before they are read, and checking every coefficient of a lossless crop.

    python -m benchmarks.checks [--src ../shared/kaggle] [--images 2000] [--rounds 7]

Shards: the images are stored as JPEG and as raw crops of 212 x 212. The SHA-256 of all shards of `train`, which `trainer`
checks before it reads them, is compared with one pass of its input pipeline over the same shards, without a model. Medians of
alternating rounds, page cache warm. The ratio is the cost of a first start in passes over the data; later starts hash nothing.

Lossless crops: microseconds per image on one core, for the unchecked crop, for the crop with every coefficient checked (as
`preprocess` does), and for the unchecked crop compared with a full decode (the alternative).
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import turbojpeg

from benchmarks.children import REPOSITORY
from preprocess.job import BuildSettings, build_dataset
from preprocess.plan import PlanSettings
from tfrecords import images
from tfrecords.dataset import Dataset
from tfrecords.images import CropSettings
from tfrecords.integrity import check_shards, read_shards

JPEG = CropSettings(0.5, 212, "jpeg", 95)


def medians(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each function over alternating rounds; the first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, run in work.items():
            began = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _one_pass(dataset: Dataset) -> None:
    from trainer.input.evaluation import evaluation_batches

    for _ in evaluation_batches(dataset, "train", 64, 0):
        pass


def shards(source: Path, count: int, rounds: int) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Yield encoding, megabytes, and the median seconds of hashing and of one pass, for each encoding."""
    with tempfile.TemporaryDirectory() as folder:
        for encoding in ("jpeg", "raw"):
            settings = BuildSettings(CropSettings(0.5, 212, encoding, 95), PlanSettings(0.0, 0.0, 0, 512, count))
            with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):  # the progress bars of the build
                dataset = build_dataset(source, Path(folder) / encoding, settings, workers=2).dataset
            train = read_shards(dataset, "train")
            work: dict[str, Callable[[], object]] = {
                "hash": lambda dataset=dataset, train=train: check_shards(dataset, train),  # type: ignore[misc]
                "pass": lambda dataset=dataset: _one_pass(dataset),  # type: ignore[misc]
            }
            yield encoding, sum(shard.bytes for shard in train) / 1e6, medians(work, rounds)


def cuts(source: Path, count: int, rounds: int) -> dict[str, float]:
    """Seconds that each way of checking lossless crops takes for `count` images."""
    files = [path.read_bytes() for path in sorted(source.glob("*/*.jpg"))[:count]]

    def alone(data: bytes) -> bytes:
        # 424 x 424 in blocks of 16: the crop of 212 and one colour sample around it.
        return bytes(turbojpeg.transform(data, x=96, y=96, w=224, h=224, crop=True, copynone=True, perfect=False))

    def looked_at(data: bytes) -> bytes:
        return images.store(data, JPEG).data

    def compared(data: bytes) -> bytes:
        cut = alone(data)
        if not np.array_equal(images.decode_stored(cut, "jpeg", 212, (10, 10)), images.crop(images.decode(data), 0.5, 212)):
            raise SystemExit("a lossless crop differs from its image")
        return cut

    if any(alone(data) != looked_at(data) for data in files):
        raise SystemExit("the check changes the bytes of a lossless crop")
    ways: dict[str, Callable[[bytes], bytes]] = {
        "unchecked": alone,
        "values checked": looked_at,
        "compared with a full decode": compared,
    }
    return medians({name: lambda way=way: [way(data) for data in files] for name, way in ways.items()}, rounds)  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--src", type=Path, default=REPOSITORY.parent / "shared" / "kaggle")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    print("| shards | MB | hash, s | MB/s | one pass of the input, s | ratio |\n|---|---|---|---|---|---|")
    for encoding, megabytes, seconds in shards(args.src, args.images, args.rounds):
        rate, ratio = megabytes / seconds["hash"], seconds["hash"] / seconds["pass"]
        print(f"| {encoding} | {megabytes:.0f} | {seconds['hash']:.3f} | {rate:,.0f} | {seconds['pass']:.3f} | {ratio:.3f} |")
    from preprocess.engines import _keep_freed_memory

    _keep_freed_memory()  # as the workers of a build do
    count = min(args.images, 500)
    measured = cuts(args.src, count, args.rounds)
    print("\n| lossless crop | us per image | ratio |\n|---|---|---|")
    for name, value in measured.items():
        print(f"| {name} | {value / count * 1e6:.0f} | {value / measured['unchecked']:.2f} |")


if __name__ == "__main__":
    main()
