"""This project's offline build compared with other tools for the same work, on the same images, in one run.

    python -m benchmarks.preprocess [--src ../shared/kaggle] [--images 12000] [--rounds 5] [--workers 2] [--json FILE]
                                    [--img2dataset PYTHON] [--only NAME ...]

Images: a seeded sample of those with votes, copied to a temporary folder and read once, so that all come from the page
cache. If --images exceeds their number, they recur under new GalaxyIDs.

Every round runs every candidate once, in separate processes, and starts with a different candidate. Start-up is excluded:
- job-*: `python -m preprocess`; images/s = (N - 1) / (seconds of the command - median seconds of the same with --limit 1).
- the others (described in rivals.py) time their own loop after imports and a warm-up; the time before is start-up.
- ceiling-*: the codec calls of an encoding alone, on one core, with freed memory kept, as in the workers of a build;
  ceiling-jpeg-plain: without that, as in a plain Python process. The share of the ceiling is the build's rate over
  workers x this rate; it is lower too if busy cores slow each other down.
Bytes per image: all shards over N. Peak memory: the highest sum of resident memory over the process tree, sampled every
50 ms (its list of processes every 250 ms), so shared pages are counted once for each process.

"not installed" means that a package is missing. None of these is a dependency of this project:
    article      pip install scikit-image
    img2dataset  python -m venv ../i2d && ../i2d/bin/pip install img2dataset, then --img2dataset ../i2d/bin/python
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.children import REPOSITORY, ChildError, interruptible, run_child
from benchmarks.galaxies import SEED, lay_out

# For the ceilings only: depending on the state of the heap, glibc may return memory after every image and fault it in
# again for the next, which makes a codec up to 2.7 times slower.
KEEP_HEAP = ("env", f"MALLOC_TRIM_THRESHOLD_={1 << 28}", f"MALLOC_MMAP_THRESHOLD_={1 << 28}")
MAX_NOISE = 0.2  # spread of the start-up over the seconds of work, above which the row has a note
NOT_INSTALLED = "not installed"
PACKAGES = ("numpy", "pillow", "protobuf", "turbojpeg", "tensorflow", "tensorflow-datasets", "matplotlib", "scikit-image")


@dataclass(frozen=True)
class Candidate:
    """A command to measure, without its --src and --out. encoding: of the build or the ceiling, or empty.

    missing: why it cannot run, or empty.
    """

    name: str
    command: tuple[str, ...]
    workers: int = 1
    encoding: str = ""
    missing: str = ""

    @property
    def kind(self) -> str:
        prefix = self.name.partition("-")[0]
        return prefix if prefix in ("job", "ceiling") else "rival"


@dataclass(frozen=True)
class Measurement:
    """One run. loop_s: seconds for `images` images; None for a build, for which it is wall_s minus the start-up."""

    candidate: str
    round: int
    images: int
    wall_s: float
    startup_s: float
    loop_s: float | None
    shard_bytes: int
    peak_mb: float


@dataclass(frozen=True)
class Row:
    """A row of the table: medians over the rounds, every round's rate, and a note if figures are missing or doubtful."""

    name: str
    rate: float | None = None
    rates: list[float] = field(default_factory=list)
    times_best_other: float | None = None
    share_of_ceiling: float | None = None
    bytes_per_image: float | None = None
    peak_mb: float | None = None
    startup_s: float | None = None
    note: str = ""


def measure(candidate: Candidate, number: int, src: Path, images: int, scratch: Path) -> Measurement:
    """Run a candidate once in the folder `scratch`, which is removed afterwards."""
    scratch.mkdir()
    try:
        out, log = scratch / "out", scratch / "log"
        if candidate.kind == "job":
            options = ("--src", str(src), "--out")
            startup_s, *_ = run_child((*candidate.command, *options, str(scratch / "one"), "--limit", "1"), log)
            wall_s, peak, _, _ = run_child((*candidate.command, *options, str(out)), log)
            done, loop_s = images - 1, None
        else:
            wall_s, peak, began_at, said = run_child((*candidate.command, str(src), str(out)), log)
            timing = json.loads(said)
            done, loop_s, startup_s = timing["images"], timing["seconds"], timing["ready"] - began_at
        shards = [path for path in out.rglob("*") if ".tfrecord" in path.name or path.suffix == ".tar"]
        stored = sum(path.stat().st_size for path in shards)
        return Measurement(candidate.name, number, done, wall_s, startup_s, loop_s, stored, peak / 1e6)
    finally:
        shutil.rmtree(scratch)


def img2dataset_version(python: str) -> str:
    """The version of img2dataset that is installed for `python`. Exits with a message if there is none."""
    command = (python, "-c", "import importlib.metadata as m; print(m.version('img2dataset'))")
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        sys.exit(f"error: --img2dataset {python}: not a Python with img2dataset: run {python} -m pip install img2dataset")


def all_candidates(args: argparse.Namespace) -> list[Candidate]:
    """Every candidate in the order of the table, including those that cannot run here."""
    # Eight shards per worker, as builds usually have many: with one or two, a worker waits for the other's last shard.
    per_shard = ("--examples_per_shard", str(max(1, args.images // (8 * args.workers))))
    rivals, python = ("-m", "benchmarks.preprocess.rivals"), sys.executable
    job = (python, "-m", "preprocess", *per_shard)

    def rival(name: str, missing: str = "") -> Candidate:
        return Candidate(name, (python, *rivals, name, *per_shard), missing=missing)

    return [
        *(
            Candidate(f"job-{encoding}", (*job, "--encoding", encoding, "--workers", str(args.workers)), args.workers, encoding)
            for encoding in ("jpeg", "png", "raw")
        ),
        Candidate("job-jpeg-1-worker", (*job, "--encoding", "jpeg", "--workers", "1"), 1, "jpeg"),
        rival("article", "" if importlib.util.find_spec("skimage") else NOT_INSTALLED),
        rival("tf-example"),
        rival("tfds"),
        Candidate(
            "img2dataset",
            (args.img2dataset or python, *rivals, "img2dataset", "--workers", str(args.workers)),
            args.workers,
            missing="" if args.img2dataset else NOT_INSTALLED,
        ),
        *(
            Candidate(f"ceiling-{encoding}", (*KEEP_HEAP, python, *rivals, f"ceiling-{encoding}"), 1, encoding)
            for encoding in ("jpeg", "png", "raw")
        ),
        Candidate("ceiling-jpeg-plain", (python, *rivals, "ceiling-jpeg"), 1, "jpeg-plain"),
    ]


def run_rounds(
    candidates: Sequence[Candidate], args: argparse.Namespace, folder: Path
) -> tuple[list[Measurement], dict[str, str]]:
    """All measurements, and notes on candidates that are not installed, or failed and were then skipped."""
    measurements: list[Measurement] = []
    notes = {candidate.name: candidate.missing for candidate in candidates if candidate.missing}
    for number in range(args.rounds):
        first = number % len(candidates)
        for candidate in (*candidates[first:], *candidates[:first]):
            if candidate.name in notes:
                continue
            print(f"round {number + 1} of {args.rounds}: {candidate.name}", file=sys.stderr)
            try:
                measurements.append(measure(candidate, number, folder / "source", args.images, folder / "run"))
            except ChildError as error:
                notes[candidate.name] = f"failed: {error}"
    return measurements, notes


def _doubt(work_s: float, startups_s: Sequence[float]) -> str:
    """The note on the rate of a build, if start-up or its noise is too large compared with the work."""
    low, high = min(startups_s), max(startups_s)
    if work_s > statistics.median(startups_s) and high - low < MAX_NOISE * work_s:
        return ""
    return f"noisy: {work_s:.2f} s of work after {low:.2f}..{high:.2f} s of start-up: use more --images"


def _row(candidate: Candidate, runs: Sequence[Measurement], note: str, images: int) -> Row:
    if note or not runs:
        return Row(candidate.name, note=note)
    startup_s = statistics.median(run.startup_s for run in runs)
    seconds = [run.wall_s - startup_s if run.loop_s is None else run.loop_s for run in runs]
    rates = [run.images / took for run, took in zip(runs, seconds, strict=True)] if min(seconds) > 0 else []
    if candidate.kind == "job":
        note = _doubt(statistics.median(seconds), [run.startup_s for run in runs])
    return Row(
        candidate.name,
        statistics.median(rates) if rates else None,
        rates,
        bytes_per_image=statistics.median(run.shard_bytes for run in runs) / images or None,
        peak_mb=statistics.median(run.peak_mb for run in runs),
        startup_s=startup_s,
        note=note,
    )


def make_rows(
    candidates: Sequence[Candidate], measurements: Sequence[Measurement], notes: dict[str, str], images: int
) -> list[Row]:
    """A row per candidate, with its ratios to the other candidates of this run."""
    runs = {candidate.name: [run for run in measurements if run.candidate == candidate.name] for candidate in candidates}
    rows = [_row(candidate, runs[candidate.name], notes.get(candidate.name, ""), images) for candidate in candidates]
    rate = {row.name: row.rate for row in rows if row.rate}
    best = max(
        (rate[candidate.name] for candidate in candidates if candidate.kind == "rival" and candidate.name in rate), default=None
    )
    compared = []
    for candidate, row in zip(candidates, rows, strict=True):
        ceiling = rate.get(f"ceiling-{candidate.encoding}")
        times = row.rate / best if row.rate and best and candidate.kind != "ceiling" else None
        share = row.rate / (candidate.workers * ceiling) if row.rate and ceiling and candidate.kind == "job" else None
        compared.append(replace(row, times_best_other=times, share_of_ceiling=share))
    return compared


def describe_machine(args: argparse.Namespace, distinct: int, version: str) -> dict[str, str]:
    """Date, CPU, versions and number of images, one line each."""
    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).is_file():
        cpu = next((line.partition(": ")[2] for line in info.read_text().splitlines() if line.startswith("model name")), cpu)
    installed = {dist.name.lower(): dist.version for dist in importlib.metadata.distributions()}
    packages = [f"{name} {installed[name]}" for name in PACKAGES if name in installed]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "CPU": f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *packages, *([f"img2dataset {version}"] if version else [])]
        ),
        "images": f"{args.images:,} ({distinct:,} different), {args.rounds} rounds, {args.workers} workers",
    }


def format_table(rows: Sequence[Row]) -> str:
    """The rows in aligned columns; `-` if a figure does not apply."""

    def show(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:,.{digits}f}"

    lines = [("name", "images/s", "min..max", "x best other", "share of ceiling", "bytes/image", "peak MB", "start-up s")]
    for row in rows:
        spread = f"{min(row.rates):,.0f}..{max(row.rates):,.0f}" if row.rates else "-"
        compared = (show(row.times_best_other, 2), show(row.share_of_ceiling, 2), show(row.bytes_per_image, 0))
        lines.append((row.name, show(row.rate, 0), spread, *compared, show(row.peak_mb, 0), show(row.startup_s, 2)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    return "\n".join([text[0], *(f"{line}  {row.note}".rstrip() for line, row in zip(text[1:], rows, strict=True))])


def compare(args: argparse.Namespace) -> int:
    """Measure, print and write the table; return the exit status, 1 if a candidate failed."""
    version = img2dataset_version(args.img2dataset) if args.img2dataset else ""
    candidates = all_candidates(args)
    if args.only:
        known = {candidate.name for candidate in candidates}
        if unknown := set(args.only) - known:
            sys.exit(f"error: --only {' '.join(sorted(unknown))}: choose from {', '.join(sorted(known))}")
        candidates = [candidate for candidate in candidates if candidate.name in args.only]
    with tempfile.TemporaryDirectory(prefix="preprocess-benchmark-") as folder:
        distinct = lay_out(args.src, Path(folder) / "source", args.images)
        header = describe_machine(args, distinct, version)
        measurements, notes = run_rounds(candidates, args, Path(folder))
    rows = make_rows(candidates, measurements, notes, args.images)
    print("\n".join(f"{name}: {value}" for name, value in header.items()), format_table(rows), sep="\n\n")
    if args.json:
        settings = {"images": args.images, "different": distinct, "rounds": args.rounds, "workers": args.workers, "seed": SEED}
        content = {
            **header,
            "settings": settings,
            "rows": [asdict(row) for row in rows],
            "measurements": [asdict(run) for run in measurements],
        }
        args.json.write_text(json.dumps(content, indent=1) + "\n")
    return int(any(note.startswith("failed") for note in notes.values()))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.preprocess", description="Compare this project's offline build with other tools."
    )
    add = parser.add_argument
    add(
        "--src",
        type=Path,
        default=REPOSITORY.parent / "shared/kaggle",
        help="folder of Kaggle's download (default: %(default)s)",
    )
    add("--images", type=int, default=12_000, help="number of images, at least 100 (default: %(default)s)")
    add("--rounds", type=int, default=5, help="number of rounds (default: %(default)s)")
    add("--workers", type=int, default=2, help="processes of the build and of img2dataset (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="file for the table and all measurements")
    add("--img2dataset", metavar="PYTHON", help="Python with img2dataset (default: not measured)")
    add("--only", nargs="+", metavar="NAME", help="candidates to run, by their names in the table (default: all)")
    args = parser.parse_args()
    if args.images < 100 or args.rounds < 1 or args.workers < 1:
        parser.error("--images must be at least 100, --rounds and --workers at least 1")
    if args.json and not args.json.absolute().parent.is_dir():
        parser.error(f"--json {args.json}: no such folder: make it first")
    return interruptible(lambda: compare(args))


if __name__ == "__main__":
    sys.exit(main())
