"""This project's input pipeline compared with other loaders of the same galaxies, in one run.

    python -m benchmarks.input [--src ../shared/kaggle] [--images 6128] [--rounds 3] [--json FILE]
                               [--torch PYTHON] [--skimage PYTHON] [--only NAME ...]

Every pipeline (described in loaders.py) delivers shuffled batches of 32 centres of 212 x 212 x 3 with their votes, from the
page cache. Every round runs each pipeline once on one core and once on two, in separate processes, and starts with a
different pipeline. One epoch warms up; then whole batches are counted. A run fails if the mean level of its images differs
from the others'. Peak memory: the highest sum of resident memory over the process tree on two cores, imports included, with
shared pages counted once for each process.

"not installed" means that a package is missing. None of these is a dependency of this project:
    torch, webdataset   python -m venv ../torch && ../torch/bin/pip install torch==2.13.0 pillow webdataset,
                        then --torch ../torch/bin/python
    article             pip install scikit-image, here or in ../torch (there with matplotlib; then
                        --skimage ../torch/bin/python)
FFCV is not included: `pip install ffcv` (1.0.2, 2026-11-22) builds from source, and fails if OpenCV's development files
are missing ("Could not find required package: opencv").
"""

import argparse
import csv
import importlib.metadata
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.children import REPOSITORY, ChildError, interruptible, run_child

TABLE, IMAGES = "training_solutions_rev1.csv", "images_training_rev1"
SIDE = 212
CORES = (1, 2)
TARS = 8
MAX_LEVEL_DIFFERENCE = 1.5  # of 255: TensorFlow's default, a fast inverse DCT, gives 0.7 less than Pillow
OURS, RECORDS, ORIGINALS = "this project", "other reader of the same records", "readers of the original JPEGs"
NOT_INSTALLED = "not installed"
PACKAGES = ("tensorflow", "tensorflow-datasets", "keras", "jax", "matplotlib", "scikit-image", "torch", "webdataset", "pillow")


@dataclass(frozen=True)
class Candidate:
    """A pipeline to measure. missing: why it cannot run, or empty."""

    name: str
    what: str
    group: str
    python: str = sys.executable
    missing: str = ""


@dataclass(frozen=True)
class Measurement:
    """One run on `cores` cores: images/s, the mean level of the images, and peak memory."""

    candidate: str
    round: int
    cores: int
    rate: float
    level: float
    peak_mb: float


@dataclass(frozen=True)
class Row:
    """A row of the table: rates of every round by cores, or the reason why there are none."""

    candidate: Candidate
    rates: dict[int, list[float]] = field(default_factory=dict)
    peak_mb: float = 0.0
    note: str = ""

    def rate(self, cores: int) -> float:
        return statistics.median(self.rates[cores]) if self.rates.get(cores) else 0.0


def versions_of(python: str, packages: Sequence[str]) -> dict[str, str]:
    """The versions of the packages that are installed for `python`. Exits with a message if it does not run."""
    code = (
        "import importlib.metadata as m, json, sys; found = {d.name.lower(): d.version for d in m.distributions()};"
        "print(json.dumps({name: found[name] for name in sys.argv[1:] if name in found}))"
    )
    try:
        done = subprocess.run((python, "-c", code, *packages), capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        sys.exit(f"error: {python}: not a working Python: give --torch and --skimage the path of one")
    return dict(json.loads(done.stdout))


def all_candidates(torch: str, skimage: str) -> list[Candidate]:
    """Every pipeline in the order of the table, including those that cannot run here."""
    torch_has, skimage_has = versions_of(torch, PACKAGES), versions_of(skimage, PACKAGES)
    no_torch = "" if {"torch", "pillow"} <= torch_has.keys() else NOT_INSTALLED
    no_webdataset = no_torch or ("" if "webdataset" in torch_has else NOT_INSTALLED)
    no_article = "" if {"scikit-image", "matplotlib"} <= skimage_has.keys() else NOT_INSTALLED
    return [
        Candidate("ours-raw", "**`--encoding raw`**", OURS),
        Candidate("ours-jpeg", "**`--encoding jpeg`**", OURS),
        Candidate("ours-png", "`--encoding png`", OURS),
        Candidate("ours-decoded", "jpeg, decoded galaxies in memory", OURS),
        Candidate("ours-stored", "jpeg, stored galaxies in memory", OURS),
        Candidate("tfds", "plain TFDS, jpeg", RECORDS),
        Candidate("tf-data", "tf.data, `decode_and_crop_jpeg`", ORIGINALS),
        Candidate("keras", "`keras.utils.image_dataset_from_directory` (no votes)", ORIGINALS),
        Candidate("torch", "PyTorch `DataLoader`, Pillow", ORIGINALS, torch, no_torch),
        Candidate("webdataset", "WebDataset, Pillow", ORIGINALS, torch, no_webdataset),
        Candidate("article", "the article's generator (one core)", ORIGINALS, skimage, no_article),
    ]


def store(src: Path, folder: Path, names: Sequence[str]) -> int:
    """Write the files that the pipelines `names` read, and read them once; return the number of galaxies."""
    if not (src / TABLE).is_file() or not (src / IMAGES).is_dir():
        sys.exit(f"error: {src}: contains no {TABLE} or no {IMAGES}/: give --src the folder of Kaggle's download")
    with (src / TABLE).open(newline="") as file:
        votes = {row[0]: row[1:] for row in list(csv.reader(file))[1:]}
    # Only galaxies with votes, in a separate folder, because Keras reads every file in it.
    chosen = folder / "kaggle"
    (chosen / IMAGES).mkdir(parents=True)
    (chosen / TABLE).write_bytes((src / TABLE).read_bytes())
    (folder / "tars").mkdir()
    galaxies = [path for path in sorted((src / IMAGES).glob("*.jpg")) if path.stem in votes]
    for number in range(TARS):
        with tarfile.open(folder / "tars" / f"galaxies-{number}.tar", "w") as tar:
            for path in galaxies[number::TARS]:
                jpeg, array = path.read_bytes(), io.BytesIO()
                np.save(array, np.array(votes[path.stem], np.float32))
                (chosen / IMAGES / path.name).write_bytes(jpeg)
                for suffix, content in (("jpg", jpeg), ("npy", array.getvalue())):
                    entry = tarfile.TarInfo(f"{path.stem}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    wanted = {"raw": {"ours-raw"}, "png": {"ours-png"}, "jpeg": {"ours-jpeg", "ours-decoded", "ours-stored", "tfds"}}
    for encoding, readers in wanted.items():
        if readers & set(names):
            flags = ("--encoding", encoding, "--size", str(SIDE), "--validation_fraction", "0", "--test_fraction", "0")
            command = (sys.executable, "-m", "preprocess", "--src", str(chosen), "--out", str(folder / encoding), *flags)
            run_child(command, folder / "log")
    for path in folder.rglob("*"):
        if path.is_file():
            path.read_bytes()
    return len(galaxies)


def measure(candidate: Candidate, number: int, cores: int, images: int, folder: Path) -> Measurement:
    """Run a pipeline once on the files that `store` wrote to `folder`."""
    module, flags = ("-m", "benchmarks.input.loaders"), ("--cores", str(cores), "--images", str(images))
    command = (candidate.python, *module, candidate.name, str(folder / "kaggle"), str(folder), *flags)
    _, peak, _, said = run_child(command, folder / "log")
    timing = json.loads(said)
    return Measurement(candidate.name, number, cores, timing["images"] / timing["seconds"], timing["level"], peak / 1e6)


def run_rounds(
    candidates: Sequence[Candidate], args: argparse.Namespace, folder: Path
) -> tuple[list[Measurement], dict[str, str]]:
    """All measurements, and notes on candidates that are not installed, or failed and were then skipped."""
    measurements: list[Measurement] = []
    notes = {candidate.name: candidate.missing for candidate in candidates if candidate.missing}
    for number in range(args.rounds):
        first = number % len(candidates)
        for candidate in (*candidates[first:], *candidates[:first]):
            for cores in CORES:
                if candidate.name in notes:
                    continue
                print(f"round {number + 1} of {args.rounds}: {candidate.name}, {cores} core(s)", file=sys.stderr)
                try:
                    measurements.append(measure(candidate, number, cores, args.images, folder))
                except ChildError as error:
                    notes[candidate.name] = f"failed: {error}"
    middle = statistics.median(run.level for run in measurements) if measurements else 0.0
    for run in measurements:
        if abs(run.level - middle) > MAX_LEVEL_DIFFERENCE:
            notes[run.candidate] = f"failed: different images: mean level {run.level:.2f}, median of all {middle:.2f}"
    return measurements, notes


def make_rows(candidates: Sequence[Candidate], measurements: Sequence[Measurement], notes: dict[str, str]) -> list[Row]:
    """A row per candidate; within each group, the fastest on two cores first."""
    rows = []
    for candidate in candidates:
        runs = [run for run in measurements if run.candidate == candidate.name]
        if candidate.name in notes or not runs:
            rows.append(Row(candidate, note=notes.get(candidate.name, "")))
            continue
        rates = {cores: [run.rate for run in runs if run.cores == cores] for cores in CORES}
        rows.append(Row(candidate, rates, statistics.median(run.peak_mb for run in runs if run.cores == CORES[-1])))
    groups = (OURS, RECORDS, ORIGINALS)
    return sorted(rows, key=lambda row: (groups.index(row.candidate.group), -row.rate(CORES[-1])))


def format_table(rows: Sequence[Row]) -> str:
    """The rows as Markdown; `-` for a missing figure."""
    most = CORES[-1]
    best = max((row.rate(most) for row in rows if row.candidate.group == ORIGINALS), default=0.0)
    heads = ("pipeline", "images/s, 1 core", "images/s, 2 cores", "min to max (2 cores)")
    lines: list[tuple[str, ...]] = [(*heads, "ratio to the best reader of the original JPEGs", "peak MB"), ("---",) * 6]
    group = ""
    for row in rows:
        if row.candidate.group != group:
            group = row.candidate.group
            lines.append((f"*{group}*", *[""] * 5))
        if not row.rates:
            lines.append((row.candidate.what, row.note or "-", *["-"] * 4))
            continue
        rates = row.rates[most]
        shown = [f"{row.rate(cores):,.0f}" for cores in CORES]
        times = f"{row.rate(most) / best:.1f}" if best else "-"
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        lines.append((row.candidate.what, *shown, spread, times, f"{row.peak_mb:,.0f}"))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def describe_machine(args: argparse.Namespace) -> dict[str, str]:
    """Date, CPU and versions, one line each."""
    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).is_file():
        cpu = next((line.partition(": ")[2] for line in info.read_text().splitlines() if line.startswith("model name")), cpu)
    installed = {dist.name.lower(): dist.version for dist in importlib.metadata.distributions()}
    for python in (args.skimage, args.torch):
        installed = {**versions_of(python, PACKAGES), **installed}
    packages = [f"{name} {installed[name]}" for name in PACKAGES if name in installed]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "CPU": f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run",
        "versions": ", ".join([f"Python {platform.python_version()}", *packages]),
    }


def compare(args: argparse.Namespace) -> int:
    """Measure, print and write the table; return the exit status, 1 if a candidate failed."""
    header = describe_machine(args)
    with tempfile.TemporaryDirectory(prefix="input-benchmark-") as name:
        folder = Path(name)
        candidates = all_candidates(args.torch, args.skimage)
        if unknown := set(args.only or ()) - {candidate.name for candidate in candidates}:
            known = " ".join(candidate.name for candidate in candidates)
            sys.exit(f"error: --only {' '.join(sorted(unknown))}: choose from {known}")
        candidates = [candidate for candidate in candidates if not args.only or candidate.name in args.only]
        different = store(args.src, folder, [candidate.name for candidate in candidates])
        header["images"] = f"{different:,} in an epoch, at least {args.images:,} timed, {args.rounds} rounds"
        measurements, notes = run_rounds(candidates, args, folder)
    rows = make_rows(candidates, measurements, notes)
    content = {"rows": [asdict(row) for row in rows], "measurements": [asdict(run) for run in measurements]}
    print("\n".join(f"{name}: {value}" for name, value in header.items()), format_table(rows), sep="\n\n")
    if args.json:
        args.json.write_text(json.dumps({**header, **content}, indent=1) + "\n")
    return int(any(note.startswith("failed") for note in notes.values()))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.input", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    source = REPOSITORY.parent / "shared/kaggle"
    add("--src", type=Path, default=source, help="folder of Kaggle's download (default: %(default)s)")
    add("--images", type=int, default=6128, help="minimum number of images to time (default: %(default)s)")
    add("--rounds", type=int, default=3, help="number of rounds (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="file for the table and all measurements")
    add("--torch", default=sys.executable, metavar="PYTHON", help="Python with torch, pillow, webdataset (default: this one)")
    add("--skimage", default=sys.executable, metavar="PYTHON", help="Python with scikit-image, matplotlib (default: this one)")
    add("--only", nargs="+", metavar="NAME", help="pipelines to run, by their names in loaders.py (default: all)")
    args = parser.parse_args()
    if args.images < 1 or args.rounds < 1:
        parser.error("--images and --rounds must be at least 1")
    if args.json and not args.json.absolute().parent.is_dir():
        parser.error(f"--json {args.json}: no such folder: make it first")
    if len(os.sched_getaffinity(0)) < CORES[-1]:
        parser.error(f"this process is limited to fewer than {CORES[-1]} cores: allow it {CORES[-1]}")
    return interruptible(lambda: compare(args))


if __name__ == "__main__":
    sys.exit(main())
