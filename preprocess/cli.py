"""The command line of `preprocess`: build (the default command), verify, trees and demo."""

import os
from pathlib import Path
from typing import Any, NoReturn

from tfrecords.commandline import Command, at_least, between, fraction, run_program, say
from tfrecords.errors import SettingError
from tfrecords.files import local_or_store, local_path
from tfrecords.shares import share_of
from tfrecords.storage import CACHE_DIR, PLACE_HELP
from tfrecords.text import printable, shell_word

_DATASET = "data/galaxy_zoo/1.0.0"
_DEFAULT = "(default: %(default)s)"
_COPY = "folder with space for a copy of a dataset in an object store, which is removed afterwards"
# What learns within minutes on two cores. From random weights a higher rate than from pretrained ones is better.
_DEMO_SIZE = 32
_DEMO_TRAINING = "--weights none --learning_rate 3e-4 --warmup_steps 40 --epochs 16"


def _workers_flag(group: Any) -> None:
    # The cores that this process may use: in a container or a cluster job, fewer than the machine has.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    group.add_argument(
        "--workers",
        type=at_least(1),
        default=cores,
        metavar="N",
        help="number of processes (default: %(default)s, one per core)",
    )


def _build_flags(parser: Any) -> None:
    from preprocess.settings import BadImages, CropSettings, PlanSettings
    from tfrecords.fits.flags import add_fits_flags

    add = parser.add_argument_group("data").add_argument
    add(
        "--src",
        type=local_path,
        required=True,
        metavar="PATH",
        help="folder or zip that holds the images and the table of votes, or a catalogue, whose rows name or hold the images "
        "(required)",
    )
    add(
        "--out",
        type=local_or_store,
        default=Path(_DATASET),
        metavar="DIR|URL",
        help=f"dataset folder to write, {PLACE_HELP} {_DEFAULT}",
    )
    add(
        "--solutions",
        type=local_path,
        metavar="FILE",
        help="table of votes: CSV, Parquet or FITS, packed or not (default: training_solutions_rev1.csv or "
        "target_data/targets.csv in --src, or its table with the columns of a tree)",
    )
    add(
        "--tree",
        default=None,
        metavar="NAME|FILE",
        help="decision tree of the votes: one that `preprocess trees` lists, or a TOML file (default: found by the table's "
        "columns)",
    )
    add(
        "--votes",
        default="",
        metavar="NAME",
        help="which votes of the table to use, if its tree describes several, such as debiased (default: the first of the tree "
        "that the table has)",
    )
    add(
        "--id_column",
        default="",
        metavar="COLUMN",
        help="column of the table with the number or name of each galaxy (default: that of the tree, else GalaxyID, id_str, "
        "iauname or another usual one)",
    )
    add(
        "--path_column",
        default="",
        metavar="COLUMN",
        help="column of the table that holds the path of each image (default: in a catalogue filename, file or another usual "
        "one, else none)",
    )
    add(
        "--limit",
        type=at_least(1),
        default=None,
        metavar="GALAXIES",
        help="use only this many galaxies, chosen from those with votes if there are any (default: all)",
    )
    add(
        "--overwrite",
        action="store_true",
        help="replace the dataset in --out; an unfinished build with the same settings and source is resumed instead",
    )
    add = parser.add_argument_group("images").add_argument
    add(
        "--crop_fraction",
        type=fraction,
        default=CropSettings.crop_fraction,
        metavar="FRACTION",
        help=f"side of the centred square crop, as a fraction of the image's shorter side {_DEFAULT}",
    )
    add(
        "--size",
        type=between(1, 10_000),
        default=CropSettings.size,
        metavar="PIXELS",
        help=f"side of the stored crop, in pixels {_DEFAULT}",
    )
    add(
        "--encoding",
        choices=("jpeg", "png", "raw"),
        default=CropSettings.encoding,
        help=f"how images are stored; jpeg: crops of JPEGs that need no resizing are lossless {_DEFAULT}",
    )
    add(
        "--jpeg_quality",
        type=between(1, 100),
        default=CropSettings.jpeg_quality,
        metavar="Q",
        help=f"quality of crops that must be re-encoded as JPEG, 1 to 100 {_DEFAULT}",
    )
    add(
        "--on_bad_image",
        choices=("skip", "fail"),
        default="skip",
        help=f"skip: omit unreadable images and list them in rejected.csv; fail: stop at the first {_DEFAULT}",
    )
    add(
        "--max_bad_fraction",
        type=fraction,
        default=BadImages.max_fraction,
        metavar="FRACTION",
        help=f"stop if more than this fraction of all images is unreadable {_DEFAULT}",
    )
    add_fits_flags(parser, "those of SDSS")
    add = parser.add_argument_group("splits and shards").add_argument
    for split in ("validation", "test"):
        add(
            f"--{split}_fraction",
            type=fraction,
            default=getattr(PlanSettings, f"{split}_fraction"),
            metavar="FRACTION",
            help=f"fraction of the labelled galaxies that goes to split {split} {_DEFAULT}",
        )
    add(
        "--seed",
        type=int,
        default=PlanSettings.seed,
        metavar="N",
        help=f"seed of the splits and of the order of galaxies {_DEFAULT}",
    )
    add(
        "--examples_per_shard",
        type=at_least(1),
        default=PlanSettings.examples_per_shard,
        metavar="GALAXIES",
        help=f"maximum number of galaxies in a shard {_DEFAULT}",
    )
    speed = parser.add_argument_group("speed")
    _workers_flag(speed)
    speed.add_argument(
        "--dask",
        metavar="HOST:PORT",
        default="",
        help="build on the Dask cluster at this address, whose workers must see the same files (default: on this machine)",
    )
    speed.add_argument(
        "--part",
        type=share_of,
        default=None,
        metavar="I/N",
        help="write only the I-th of N equal shares of the shards, beside processes that write the others; when all are "
        "complete, run the command without --part (default: write all)",
    )


def _build_part(args: Any, asked: dict[str, Any]) -> None:
    """Run build with --part; asked: the arguments that are those of `build_dataset` too."""
    from preprocess.job import build_share

    for name in ("overwrite", "dask"):
        if getattr(args, name):
            raise SettingError(f"--{name}: is for the whole job: omit it, or --part {args.part}")
    share = build_share(args.part, args.src, args.out, **asked)
    if share.already_complete:
        say(f"{args.out}: already complete, nothing to do")
        return
    noun = "shard" if share.shards == 1 else "shards"
    say(f"{args.out}: part {args.part} is complete: {share.shards:,} {noun}, {share.galaxies:,} galaxies")
    if share.missing:
        say(f"  {share.missing:,} of {share.all_shards:,} shards are still missing")
    say("next: when all parts have ended, run the same command without --part")


def _build(args: Any) -> None:
    from preprocess.job import build_dataset
    from preprocess.settings import BadImages, BuildSettings, CropSettings, PlanSettings
    from tfrecords.dataset import REJECTED, SPLITS
    from tfrecords.fits.flags import look_of

    settings = BuildSettings(
        CropSettings(args.crop_fraction, args.size, args.encoding, args.jpeg_quality),
        PlanSettings(args.validation_fraction, args.test_fraction, args.seed, args.examples_per_shard, args.limit or 0),
    )
    bad = BadImages(args.on_bad_image == "skip", args.max_bad_fraction)
    asked = {
        "settings": settings,
        "solutions_file": args.solutions,
        "workers": args.workers,
        "bad": bad,
        "tree": args.tree,
        "votes": args.votes,
        "id_column": args.id_column,
        "path_column": args.path_column,
        "look": look_of(args),
    }
    if args.part is not None:
        _build_part(args, asked)
        return
    result = build_dataset(args.src, args.out, overwrite=args.overwrite, dask=args.dask, **asked)
    dataset = result.dataset
    state = "already complete, nothing to do" if result.already_complete else "complete"
    place = dataset.url or dataset.folder
    say(f"{place}: {state}{_votes_in(dataset, result.id_column, args.src)}")
    for split in SPLITS:
        shards = [shard for shard in dataset.shards if shard.split == split]
        if shards:
            megabytes = sum(shard.bytes for shard in shards) / 1e6
            noun = "shard " if len(shards) == 1 else "shards"
            say(f"  {split:<11}{dataset.galaxies(split):>8,} galaxies {len(shards):>5} {noun} {megabytes:>10,.1f} MB")
    for count, what in (
        ("rejected", f"images could not be used: see {place}/{REJECTED}"),
        ("images_without_votes", "images have no votes"),
        ("votes_without_image", "rows of the table of votes have no image and were ignored"),
        ("kept_splits", "images keep the split of their folder"),
    ):
        if dataset.source[count]:
            say(f"  {dataset.source[count]:,} {what}")
    folder = shell_word(place)
    if dataset.galaxies("train"):
        say(f"next: trainer --tfrecords {folder}")
    else:
        split = next(split for split in reversed(SPLITS) if dataset.galaxies(split))
        say(f"split train is empty, so there is nothing to train on: predict {split}, with the folder of a trained run as RUN")
        say(f"next: trainer predict --run RUN --tfrecords {folder} --split {split} --out predictions.csv")


def _votes_in(dataset: Any, id_column: str, src: Path) -> str:
    """Which votes the dataset holds, and how they were joined with images, for the end of a sentence; empty without any."""
    from preprocess.catalogue import is_catalogue

    layout = dataset.settings.get("votes", "")
    if not layout:
        return ""
    files = dataset.tree.files
    mapped = files is not None and id_column == dataset.tree.id and not is_catalogue(src)
    second = f", mapped to {files.file} by {files.table}" if mapped else ""
    return f", votes of tree {dataset.tree.name} ({layout}) by {id_column}{second}"


def _trees_flags(parser: Any) -> None:
    add = parser.add_argument_group("data").add_argument
    add("name", nargs="?", default=None, metavar="NAME|FILE", help="tree to draw, ours or a TOML file (default: list ours)")


def _trees(args: Any) -> None:
    from tfrecords.builtin import builtin_names, builtin_tree, find_tree
    from tfrecords.tree import drawing

    if args.name is not None:
        say(drawing(find_tree(args.name)))
        return
    for name in builtin_names():
        tree = builtin_tree(name)
        say(f"{name:<10}{len(tree.questions):>3} questions {len(tree.columns):>3} answers  {tree.title}; id {tree.id}")


def _verify_flags(parser: Any) -> None:
    add = parser.add_argument_group("data").add_argument
    add(
        "--tfrecords",
        type=local_or_store,
        required=True,
        metavar="DIR|URL",
        help=f"dataset folder to check, {PLACE_HELP} (required)",
    )
    add("--cache_dir", type=local_path, default=Path(CACHE_DIR), metavar="DIR", help=f"{_COPY} {_DEFAULT}")
    add("--src", type=local_path, metavar="PATH", help="source of the dataset, to compare every galaxy with")
    add("--solutions", type=local_path, metavar="FILE", help="table of votes (default: the one in --src)")
    _workers_flag(parser.add_argument_group("speed"))


def _verify(args: Any) -> None:
    from preprocess.verify.dataset import verify_dataset
    from tfrecords.errors import BUILD_AGAIN, DatasetError

    if args.solutions and not args.src:
        raise SettingError("--solutions is compared only together with its source: give --src too")
    report = verify_dataset(args.tfrecords, args.src, args.solutions, args.workers, args.cache_dir)
    if report.findings:
        rows = [(finding.level, printable(finding.where), finding.what) for finding in report.findings]
        width = max(len(where) for _, where, _ in rows)
        say(f"{'level':<8} {'where':<{width}} what")
        for level, where, what in rows:
            say(f"{level:<8} {where:<{width}} {what}")
    if report.errors:
        errors = f"{report.errors} error{'s' * (report.errors > 1)}"
        raise DatasetError(f"{args.tfrecords}: {errors} found, listed above: {BUILD_AGAIN}")
    assert report.dataset is not None
    galaxies = sum(shard.examples for shard in report.dataset.shards)
    against = f", and agrees with {args.src}" if args.src else ""
    say(f"{args.tfrecords}: intact: {galaxies:,} galaxies in {len(report.dataset.shards)} shards{against}")


def _demo_flags(parser: Any) -> None:
    add = parser.add_argument_group("data").add_argument
    add("--out", type=local_path, required=True, metavar="DIR", help="folder for the images and the table of votes (required)")
    add(
        "--galaxies",
        type=at_least(10),
        default=600,
        metavar="GALAXIES",
        help=f"number of galaxies with votes; a tenth as many are added without votes {_DEFAULT}",
    )
    add("--seed", type=int, default=0, metavar="N", help=f"seed of the galaxies and their votes {_DEFAULT}")
    add(
        "--tree",
        default="kaggle",
        metavar="NAME|FILE",
        help=f"survey whose questions the volunteers answer: one that `preprocess trees` lists, or a TOML file {_DEFAULT}",
    )
    _workers_flag(parser.add_argument_group("speed"))


def _demo(args: Any) -> None:
    from preprocess.demo import make_demo
    from tfrecords.builtin import builtin_names

    make_demo(args.out, args.galaxies, args.seed, args.workers, args.tree)
    say(f"{args.out}: {args.galaxies:,} synthetic galaxies with votes, {args.galaxies // 10:,} without")
    dataset, run = (shell_word(Path(parent) / args.out.resolve().name) for parent in ("data", "runs"))
    tree = "" if args.tree in builtin_names() else f" --tree {shell_word(Path(args.tree))}"  # ours are found by their columns
    say(f"next: preprocess --src {shell_word(args.out)} --out {dataset}{tree} --size {_DEMO_SIZE}")
    say(f"then: trainer --tfrecords {dataset} --out {run} {_DEMO_TRAINING}")


COMMANDS = {
    "build": Command(
        "Crop images and pack them with their votes into TFRecord shards (the default command).",
        _build_flags,
        _build,
        "preprocess --src kaggle",
    ),
    "verify": Command(
        "Check a dataset from end to end, and compare it with its source.",
        _verify_flags,
        _verify,
        f"preprocess verify --tfrecords {_DATASET} --src kaggle",
    ),
    "trees": Command(
        "List the decision trees of surveys, or draw one as text.",
        _trees_flags,
        _trees,
        "preprocess trees decals5",
    ),
    "demo": Command(
        "Draw synthetic galaxies and votes in a survey's layout, to try everything without a download.",
        _demo_flags,
        _demo,
        "preprocess demo --out demo",
    ),
}


def main() -> NoReturn:
    """Entry point of the console command."""
    run_program("preprocess", COMMANDS, "build")
