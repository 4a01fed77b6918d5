"""What it costs not to trust: hashing shards before they are read, and looking at each coefficient of a JPEG that is cut.

    python -m benchmarks.checks [--src ../shared/kaggle] [--images 2000] [--rounds 7]

Shards: the images are preprocessed as JPEG and as raw crops of 212 x 212. Medians of rounds that alternate, page cache warm:
the SHA-256 of all shards of `train`, as `trainer` checks them before it reads, beside one pass of its input pipeline over the
same shards, without a model. The ratio is what a first start costs in passes over the data; later starts hash nothing.

Cuts: microseconds for each of the images on one core, of the cut alone, of the cut with a look at each coefficient (what
`preprocess` does), and of the cut alone with a comparison with a decode of the whole (what it would take instead).
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
    """Median seconds of each piece of work, over rounds in which all alternate; the first round does not count."""
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
    """Encoding, megabytes, and the medians of both ways, for each encoding."""
    with tempfile.TemporaryDirectory() as folder:
        for encoding in ("jpeg", "raw"):
            settings = BuildSettings(CropSettings(0.5, 212, encoding, 95), PlanSettings(0.0, 0.0, 0, 512, count))
            with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):  # the job's bars
                dataset = build_dataset(source, Path(folder) / encoding, settings, workers=2).dataset
            train = read_shards(dataset, "train")
            work: dict[str, Callable[[], object]] = {
                "hash": lambda dataset=dataset, train=train: check_shards(dataset, train),  # type: ignore[misc]
                "pass": lambda dataset=dataset: _one_pass(dataset),  # type: ignore[misc]
            }
            yield encoding, sum(shard.bytes for shard in train) / 1e6, medians(work, rounds)


def cuts(source: Path, count: int, rounds: int) -> dict[str, float]:
    """Seconds of each way to be sure of a cut, over `count` images."""
    files = [path.read_bytes() for path in sorted(source.glob("*/*.jpg"))[:count]]

    def alone(data: bytes) -> bytes:
        # 424 x 424 in blocks of 16: the crop of 212 and one colour sample around it.
        return bytes(turbojpeg.transform(data, x=96, y=96, w=224, h=224, crop=True, copynone=True, perfect=False))

    def looked_at(data: bytes) -> bytes:
        return images.store(data, JPEG).data

    def compared(data: bytes) -> bytes:
        cut = alone(data)
        if not np.array_equal(images.decode_stored(cut, "jpeg", 212, (10, 10)), images.crop(images.decode(data), 0.5, 212)):
            raise SystemExit("a cut differs from its image")
        return cut

    if any(alone(data) != looked_at(data) for data in files):
        raise SystemExit("the look changes the bytes of a cut")
    ways: dict[str, Callable[[bytes], bytes]] = {"alone": alone, "looked at": looked_at, "compared": compared}
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

    _keep_freed_memory()  # as the job's workers do
    count = min(args.images, 500)
    measured = cuts(args.src, count, args.rounds)
    print("\n| cut | us an image | times alone |\n|---|---|---|")
    for name, value in measured.items():
        print(f"| {name} | {value / count * 1e6:.0f} | {value / measured['alone']:.2f} |")


if __name__ == "__main__":
    main()
