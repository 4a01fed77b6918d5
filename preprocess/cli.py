"""The command line of `preprocess`: build (the default command), verify and demo."""

import os
from pathlib import Path
from typing import Any, NoReturn

from tfrecords.commandline import Command, at_least, between, fraction, run_program, say
from tfrecords.files import local_path
from tfrecords.text import printable


def _workers_flag(add: Any) -> None:
    # Those that this process may use: in a container or a cluster job fewer than the machine has.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    add("--workers", type=at_least(1), default=cores, metavar="N", help="processes (default: the %(default)s cores)")


def _build_flags(parser: Any) -> None:
    add = parser.add_argument
    add(
        "--src",
        type=local_path,
        required=True,
        metavar="PATH",
        help="folder or zip that holds the images and the table of votes",
    )
    add(
        "--out",
        type=local_path,
        default=Path("data/galaxy_zoo/1.0.0"),
        metavar="DIR",
        help="dataset folder (default: %(default)s)",
    )
    add(
        "--solutions",
        type=local_path,
        metavar="FILE",
        help="table of votes, zipped or not (default: the one training_solutions_rev1.csv or target_data/targets.csv in --src)",
    )
    add(
        "--crop_fraction",
        type=fraction,
        default=0.5,
        metavar="F",
        help="side of the centred square crop over the image's shorter side (default: %(default)s)",
    )
    add(
        "--size",
        type=between(1, 10_000),
        default=212,
        metavar="PIXELS",
        help="side of the stored image in pixels (default: %(default)s)",
    )
    add(
        "--encoding",
        choices=("jpeg", "png", "raw"),
        default="jpeg",
        help="how images are stored; jpeg cuts losslessly a JPEG that is not resized (default: %(default)s)",
    )
    add(
        "--jpeg_quality",
        type=between(1, 100),
        default=95,
        metavar="Q",
        help="1 to 100, of crops that must be encoded as JPEG again (default: %(default)s)",
    )
    add(
        "--validation_fraction", type=fraction, default=0.1, metavar="F", help="of the labelled galaxies (default: %(default)s)"
    )
    add("--test_fraction", type=fraction, default=0.1, metavar="F", help="of the labelled galaxies (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of the split and the order (default: %(default)s)")
    add("--examples_per_shard", type=at_least(1), default=2048, metavar="N", help="at most (default: %(default)s)")
    _workers_flag(add)
    add(
        "--dask",
        metavar="ADDRESS",
        default="",
        help="write on this Dask cluster, like HOST:8786, whose workers see the same files (default: on this machine)",
    )
    add(
        "--limit",
        type=at_least(1),
        default=None,
        metavar="N",
        help="take N galaxies, labelled ones if there are any (default: all)",
    )
    add(
        "--on_bad_image",
        choices=("skip", "fail"),
        default="skip",
        help="leave unreadable images out and list them in rejected.csv, or stop at the first (default: %(default)s)",
    )
    add(
        "--max_bad_fraction",
        type=fraction,
        default=0.01,
        metavar="F",
        help="unreadable images that may be skipped, of all (default: %(default)s)",
    )
    add(
        "--overwrite",
        action="store_true",
        help="replace what is in --out; an unfinished job of the same settings and source goes on",
    )


def _build(args: Any) -> None:
    from preprocess.job import BadImages, BuildSettings, build
    from preprocess.plan import PlanSettings
    from tfrecords.dataset import REJECTED, SPLITS
    from tfrecords.images import CropSettings

    settings = BuildSettings(
        CropSettings(args.crop_fraction, args.size, args.encoding, args.jpeg_quality),
        PlanSettings(args.validation_fraction, args.test_fraction, args.seed, args.examples_per_shard, args.limit or 0),
    )
    bad = BadImages(args.on_bad_image == "skip", args.max_bad_fraction)
    result = build(args.src, args.out, settings, args.solutions, args.workers, args.overwrite, bad, args.dask)
    dataset = result.dataset
    say(f"{dataset.folder}: {'already complete, nothing to do' if result.already_complete else 'complete'}")
    for split in SPLITS:
        shards = [shard for shard in dataset.shards if shard.split == split]
        if shards:
            megabytes = sum(shard.bytes for shard in shards) / 1e6
            say(f"  {split:<11}{dataset.galaxies(split):>8,} galaxies {len(shards):>5} shards {megabytes:>10,.1f} MB")
    for count, what in (
        ("rejected", f"images could not be used: see {dataset.folder / REJECTED}"),
        ("images_without_votes", "images have no votes"),
        ("votes_without_image", "rows of votes have no image and were left out"),
        ("kept_splits", "images keep the split of their folder"),
    ):
        if dataset.source[count]:
            say(f"  {dataset.source[count]:,} {what}")
    say(f"next: trainer --tfrecords {dataset.folder}")


def _verify_flags(parser: Any) -> None:
    add = parser.add_argument
    add("--tfrecords", type=local_path, required=True, metavar="DIR", help="dataset folder")
    add("--src", type=local_path, metavar="PATH", help="the folder or zip it was made from: compare every galaxy with it too")
    add("--solutions", type=local_path, metavar="FILE", help="table of votes (default: the one in --src)")
    _workers_flag(add)


def _verify(args: Any) -> None:
    from preprocess.verify import verify
    from tfrecords.errors import DatasetError, SettingError

    if args.solutions and not args.src:
        raise SettingError("--solutions is the table of votes of a source: give --src too")
    report = verify(args.tfrecords, args.src, args.solutions, args.workers)
    if report.findings:
        rows = [(finding.level, printable(finding.where), finding.what) for finding in report.findings]
        width = max(len(where) for _, where, _ in rows)
        say(f"{'level':<8} {'where':<{width}} what")
        for level, where, what in rows:
            say(f"{level:<8} {where:<{width}} {what}")
    if report.errors:
        errors = f"{report.errors} error{'s' * (report.errors > 1)}"
        raise DatasetError(f"{args.tfrecords}: {errors} found, listed above: build the dataset again with --overwrite")
    assert report.dataset is not None
    galaxies = sum(shard.examples for shard in report.dataset.shards)
    against = f", and agrees with {args.src}" if args.src else ""
    say(f"{args.tfrecords}: intact: {galaxies:,} galaxies in {len(report.dataset.shards)} shards{against}")


def _demo_flags(parser: Any) -> None:
    add = parser.add_argument
    add("--out", type=local_path, required=True, metavar="DIR", help="folder for the images and the table of votes")
    add(
        "--galaxies",
        type=at_least(10),
        default=600,
        metavar="N",
        help="with votes; a tenth as many without (default: %(default)s)",
    )
    add("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    _workers_flag(add)


def _demo(args: Any) -> None:
    from preprocess.demo import write_survey

    write_survey(args.out, args.galaxies, args.seed, args.workers)
    say(f"{args.out}: {args.galaxies:,} synthetic galaxies with votes, {args.galaxies // 10:,} without")
    say(f"next: preprocess --src {args.out}")


COMMANDS = {
    "build": Command("Images and votes -> cropped TFRecord shards (the default command).", _build_flags, _build),
    "verify": Command("Check a dataset from end to end, and against its source.", _verify_flags, _verify),
    "demo": Command("Synthetic galaxies in Kaggle's layout, to try everything without a download.", _demo_flags, _demo),
}


def main() -> NoReturn:
    """Entry point of the console command."""
    run_program("preprocess", COMMANDS, "build")
