"""What a job costs besides images and training steps, by the number of galaxies, and the plan for two billion of them.

    python -m benchmarks.scale builds --src ../shared/kaggle --galaxies 4000 40000
    python -m benchmarks.scale steps --galaxies 100000 1000000 10000000 --json benchmarks/scale/steps.json
    python -m benchmarks.scale rates --src ../shared/kaggle
    python -m benchmarks.scale plan
    python -m benchmarks.scale document

builds: reruns, resuming and means of targets, on real files. steps: listing, planning, committing, the start of training and
the bookkeeping of predictions, for invented galaxies without pixels. rates: those that the plan needs and no other benchmark
measures. plan: hours, bytes, shards and core hours, from all of these. document: puts the tables into benchmarks/scale.md.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.children import interruptible
from benchmarks.scale import document, measured
from benchmarks.scale.meter import Meter
from benchmarks.scale.rates import measure_rates, save_rates
from benchmarks.scale.steps import STEPS


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1000:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least 1000")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    builds = commands.add_parser("builds", help="reruns, resuming and means of targets, on real files")
    builds.add_argument("--src", type=Path, default=Path("../shared/kaggle"), help="Kaggle's galaxies (default: %(default)s)")
    builds.add_argument("--galaxies", type=_positive, nargs="+", default=[4000, 40_000], metavar="N", help="sizes, ascending")
    builds.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    steps = commands.add_parser("steps", help="the steps of a job for invented galaxies")
    sizes = [10_000, 100_000, 1_000_000]
    steps.add_argument("--galaxies", type=_positive, nargs="+", default=sizes, metavar="N", help="sizes (default: %(default)s)")
    steps.add_argument("--steps", nargs="+", choices=STEPS, default=[*STEPS], help="(default: all)")
    steps.add_argument(
        "--seconds",
        type=float,
        default=150,
        help="from the third size on, no step runs that is expected to take longer (default: %(default)s)",
    )
    steps.add_argument(
        "--gigabytes", type=float, default=18, help="nor one that is expected to need more memory (default: %(default)s)"
    )
    steps.add_argument("--machine", default="", help="for the file: the machine, in words")
    steps.add_argument("--json", type=Path, metavar="FILE", help="file for the figures; those of other phases and sizes stay")
    steps.add_argument("--scratch", type=Path, help="folder for temporary files (default: that of the system)")
    rates = commands.add_parser("rates", help="bytes of files and records, and predictions on the CPU; half a minute")
    rates.add_argument("--src", type=Path, default=Path("../shared/kaggle"), help="Kaggle's galaxies (default: %(default)s)")
    rates.add_argument("--machine", default="two cores", help="in words (default: %(default)s)")
    commands.add_parser("plan", help="what 2 x 10^9 galaxies on 100 nodes take")
    commands.add_parser("document", help="put the tables into benchmarks/scale.md")
    child = commands.add_parser("child")
    child.add_argument("name", choices=STEPS)
    child.add_argument("work", type=Path)
    child.add_argument("galaxies", type=int)
    return parser


def _run(args: argparse.Namespace) -> int:
    if args.command == "child":
        meter = Meter(args.galaxies)
        STEPS[args.name](args.work, meter)
        print(json.dumps([asdict(phase) for phase in meter.phases]))
    elif args.command == "builds":
        from benchmarks.scale.builds import measure_builds

        measure_builds(args.src, sorted(args.galaxies), args.rounds)
    elif args.command == "steps":
        limits = measured.Limits(args.seconds, args.gigabytes * 1e9)
        figures = measured.measure_steps(args.steps, sorted(args.galaxies), limits, args.scratch)
        print(measured.tables(figures))
        if args.json:
            measured.save(args.json, args.machine, figures)
    elif args.command == "rates":
        save_rates(measure_rates(args.src, args.machine))
        print(document.rates_table())
    elif args.command == "plan":
        print(document.plan_table())
    else:
        document.write_page()
    return 0


if __name__ == "__main__":
    arguments = _parser().parse_args()
    sys.exit(interruptible(lambda: _run(arguments)))
