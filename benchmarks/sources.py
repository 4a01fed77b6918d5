"""Reading a source: random images from a folder and from zips, and the memory of listings up to ten million names.

    python -m benchmarks.sources [--src ../shared/kaggle] [--reads 3000] [--rounds 7] [--names 100000 1000000 10000000]
                                 [--json FILE]

Reads: the training images of SRC, in random order, from a folder, a plain zip, a zip stored in a zip (read in place),
and a zip packed in a zip (copied once); for comparison, Python's zipfile on a zip opened inside another. Every round
reads from each of them, from the page cache; figures are medians. A zip in a zip should cost at most twice a plain one.

Memory: the listing of a zip with N invented names (no contents) is read in a separate process. Its columns stay in
memory; the peak is the highest resident memory minus that before.
"""

import argparse
import json
import random
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.children import REPOSITORY
from preprocess.sources import ImageReader, find_source

IMAGES = "images_training_rev1"
ZIPFILE_READS = 60  # for zipfile on a zip in a zip, which takes about 0.1 s per read
_ENTRY = struct.Struct("<4s6H3I5H2I")


def _zip(path: Path, files: list[Path], method: int) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in files:
            archive.write(file, f"{IMAGES}/{file.name}" if file.suffix == ".jpg" else file.name)
    return path


def make_sources(src: Path, folder: Path) -> dict[str, Path]:
    """Write the same images as every kind of source; return their paths by their names in the table."""
    images = sorted((src / IMAGES).glob("*.jpg"))
    if not images:
        sys.exit(f"error: {src}: contains no {IMAGES}/*.jpg: give --src the folder of Kaggle's download")
    shutil.copytree(src / IMAGES, folder / "folder" / IMAGES)
    plain = _zip(folder / f"{IMAGES}.zip", images, zipfile.ZIP_DEFLATED)
    return {
        "folder": folder / "folder",
        "zip": plain,
        "zip stored in a zip": _zip(folder / "stored.zip", [plain], zipfile.ZIP_STORED),
        "zip packed in a zip": _zip(folder / "packed.zip", [plain], zipfile.ZIP_DEFLATED),
    }


@contextmanager
def _ours(path: Path, scratch: Path) -> Iterator[Callable[[int], bytes]]:
    scratch.mkdir()
    images = find_source(path, scratch).images
    with ImageReader() as reader:
        yield lambda row: reader.read(images, row)[0]


@contextmanager
def _zipfile(path: Path, scratch: Path) -> Iterator[Callable[[int], bytes]]:
    with zipfile.ZipFile(path) as outer, outer.open(f"{IMAGES}.zip") as file, zipfile.ZipFile(file) as inner:
        names = sorted(inner.namelist(), key=lambda name: int(Path(name).stem))
        yield lambda row: inner.read(names[row])


def measure_reads(src: Path, reads: int, rounds: int) -> list[dict[str, Any]]:
    """Reads per second from each kind of source, and their ratio to a plain zip."""
    with tempfile.TemporaryDirectory(prefix="sources-benchmark-") as name:
        folder = Path(name)
        paths = make_sources(src, folder)
        count = len(list((paths["folder"] / IMAGES).iterdir()))
        rows = random.Random(0).choices(range(count), k=reads)
        kinds: dict[str, Any] = {name: (_ours, path, rows) for name, path in paths.items()}
        for name in ("zip stored in a zip", "zip packed in a zip"):
            kinds[f"{name}, by zipfile"] = (_zipfile, paths[name], rows[:ZIPFILE_READS])
        rates: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(rounds):
            for name, (reader, path, some) in kinds.items():
                scratch = folder / f"scratch-{number}-{len(rates[name])}-{name.replace(' ', '-')}"
                with reader(path, scratch) as read:
                    bytes_read = sum(len(read(row)) for row in some[:20])
                    began = time.perf_counter()
                    bytes_read += sum(len(read(row)) for row in some)
                    rates[name].append(len(some) / (time.perf_counter() - began))
                assert bytes_read
                shutil.rmtree(scratch, ignore_errors=True)
    plain = statistics.median(rates["zip"])
    return [
        {
            "source": name,
            "reads_per_s": round(statistics.median(found)),
            "times_zip": round(statistics.median(found) / plain, 3),
        }
        for name, found in rates.items()
    ]


def write_names(path: Path, count: int) -> None:
    """Write a zip that lists `count` images, in whose place there is a hole in the file."""
    hole = count * (30 + 20 + 15_000)  # local headers, names, contents
    with path.open("wb") as file:
        file.seek(hole)
        for number in range(count):
            # A step coprime to the modulus: distinct ids in no order, as in a real survey.
            name = b"images/%08d.jpg" % (number * 7_368_787 % 100_000_007)
            entry = (b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 15_000, 15_000, len(name), 0, 0, 0, 0, 0, 0)
            file.write(_ENTRY.pack(*entry) + name)
        length = file.tell() - hole
        file.write(struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, hole))
        file.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, hole + length, 1))
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))


def list_names(path: Path) -> dict[str, float]:
    """Read a listing in this process: images, seconds, bytes of its columns, peak increase of resident memory in bytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    images = find_source(path, path.parent).images
    seconds = time.perf_counter() - began
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return {"images": len(images), "seconds": seconds, "bytes": images.nbytes(), "peak_bytes": peak}


def measure_names(counts: list[int]) -> list[dict[str, float]]:
    """Run `list_names` for each number of names, in a separate process."""
    found = []
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="sources-benchmark-") as folder:
            path = Path(folder) / "names.zip"
            write_names(path, count)
            command = [sys.executable, "-m", "benchmarks.sources", "--list", str(path)]
            done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure random reads from sources, and the memory of a listing.")
    parser.add_argument(
        "--src",
        type=Path,
        default=REPOSITORY.parent / "shared/kaggle",
        help="folder of Kaggle's download (default: %(default)s)",
    )
    parser.add_argument("--reads", type=int, default=3000, help="random reads per round and source (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds (default: %(default)s)")
    parser.add_argument(
        "--names",
        type=int,
        nargs="*",
        default=[100_000, 1_000_000, 10_000_000],
        help="numbers of names to list (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the figures")
    parser.add_argument("--list", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.list:
        print(json.dumps(list_names(args.list)))
        return
    reads = measure_reads(args.src, args.reads, args.rounds)
    print(f"{'random reads from':<32} {'images/s':>10} {'ratio to zip':>12}")
    for row in reads:
        print(f"{row['source']:<32} {row['reads_per_s']:>10,} {row['times_zip']:>12}")
    names = measure_names(args.names)
    print(f"\n{'names':>12} {'seconds':>9} {'bytes/name':>11} {'peak MB':>9} {'peak bytes/name':>16}")
    for row in names:
        each, peak = row["bytes"] / row["images"], row["peak_bytes"] / row["images"]
        print(f"{row['images']:>12,} {row['seconds']:>9.1f} {each:>11.1f} {row['peak_bytes'] / 1e6:>9,.0f} {peak:>16.1f}")
    if args.json:
        args.json.write_text(json.dumps({"reads": reads, "names": names}, indent=1) + "\n")


if __name__ == "__main__":
    main()
