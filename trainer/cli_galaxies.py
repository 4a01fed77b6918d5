"""The flags of the commands that put galaxies through finished runs: predict, embed, similar."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfrecords.commandline import at_least, between, say
from tfrecords.errors import SettingError, install_extra
from tfrecords.files import local_or_store, local_path
from tfrecords.outputs import refuse_unwritable
from tfrecords.storage import CACHE_DIR, CACHE_HELP, PLACE_HELP, open_anywhere

DEFAULT = "(default: %(default)s)"
RUN_FOLDER = "run folder, the --out of a training run"
_SPLITS = ("train", "validation", "test", "unlabelled")


def _add_source(add: Callable[..., Any], records: str, images: str, splits: str) -> None:
    """Add the flags for records or images. records, images: what these are for, in words; splits: the default of --split."""
    add(
        "--tfrecords",
        type=local_or_store,
        default=None,
        metavar="DIR|URL",
        help=f"dataset folder with the {records}, {PLACE_HELP}",
    )
    add("--cache_dir", type=local_path, default=Path(CACHE_DIR), metavar="DIR", help=f"{CACHE_HELP} {DEFAULT}")
    add(
        "--images",
        type=local_path,
        default=None,
        metavar="PATH",
        help=f"file, folder or zip of images {images} instead: JPEG, PNG, TIFF, WebP, BMP, or FITS, which needs "
        f"{install_extra('fits')}",
    )
    add("--split", choices=_SPLITS, default=None, help=f"split of --tfrecords (default: {splits})")


def predict_flags(parser: Any) -> None:
    """Add the flags of predict."""
    from tfrecords.fits.flags import add_fits_flags
    from tfrecords.shares import share_of
    from trainer.tables import DEFAULT_THRESHOLD

    add = parser.add_argument_group("data").add_argument
    add(
        "--run",
        type=local_path,
        action="append",
        required=True,
        metavar="RUN",
        help=f"{RUN_FOLDER} (required); repeat the flag to predict the mean of several runs",
    )
    _add_source(add, "split to predict", "to predict", "unlabelled")
    add(
        "--out",
        type=local_path,
        required=True,
        metavar="FILE.csv",
        help="table of predictions to write (required); a name that ends in .parquet is that of a folder of Parquet files with "
        "the same rows and columns",
    )
    add(
        "--part",
        type=share_of,
        default=None,
        metavar="I/N",
        help="predict only the I-th of N shares of the galaxies, for job arrays: all N may run at the same time; then the "
        "same command without --part writes the table (default: none, predict all and write it)",
    )
    add = parser.add_argument_group("predictions").add_argument
    add(
        "--tta",
        type=between(1, 8),
        default=1,
        metavar="N",
        help=f"average the predictions over N views of each galaxy, the first N of the 8 symmetries of the square {DEFAULT}",
    )
    add(
        "--hubble",
        action="store_true",
        help="add the columns hubble (elliptical, spiral, barred spiral, or uncertain) and hubble_detail (roundness, or "
        "winding and number of arms), for trees with classes; by convention elliptical means smooth, and includes S0; "
        "a table with these columns is not a valid submission",
    )
    add(
        "--threshold",
        type=float,
        default=None,
        metavar="FRACTION",
        help="smallest value that all columns of a --hubble class must reach; above 0.5 and at most 1 "
        f"(default: {DEFAULT_THRESHOLD})",
    )
    add(
        "--intervals",
        action="store_true",
        help="add the columns COLUMN_low and COLUMN_high: the interval that holds the fraction of each answer with a "
        "probability of 90%%, for runs with --head dirichlet; likewise not a valid submission; of several runs the "
        "concentrations are averaged, so intervals do not widen if the runs disagree",
    )
    add(
        "--conditional",
        action="store_true",
        help="add the columns Conditional1.1 ... (for other trees than Kaggle's COLUMN_conditional): the fraction of those "
        "asked who give each answer, after projection onto the decision tree; empty if fewer than 5%% are asked; likewise not "
        "a valid submission",
    )
    add_fits_flags(parser, "the training images")


def _check_source(args: Any, *pairs: tuple[str, str]) -> None:
    """Raise SettingError for flags that cannot be combined. pairs: flags, each with the one that it needs."""
    if (args.tfrecords is None) == (args.images is None):
        raise SettingError("give either --tfrecords DIR (a dataset) or --images PATH (image files)")
    of_images = [(name, "images") for name in ("bands", "fits_stretch", "fits_q")]
    for name, other in (("split", "tfrecords"), *of_images, *pairs):
        if getattr(args, name) is not None and getattr(args, other) in (None, False):
            raise SettingError(f"--{name} {getattr(args, name)}: needs --{other}: add it, or omit --{name}")


def run_predict(args: Any) -> None:
    """Run predict."""
    from tfrecords.fits.flags import look_of
    from trainer.analysis.intervals import intervals
    from trainer.images.ranges import summary_of
    from trainer.run import open_run
    from trainer.streaming import tabulate_images, tabulate_split
    from trainer.tablefolder import refuse_other_predictions
    from trainer.tables import (
        DEFAULT_THRESHOLD,
        ExtraColumns,
        Predictions,
        check_classes,
        check_threshold,
        extra_columns,
    )

    _check_source(args, ("threshold", "hubble"))
    threshold = (DEFAULT_THRESHOLD if args.threshold is None else args.threshold) if args.hubble else None
    if threshold is not None:
        check_threshold(threshold)
    look = look_of(args)
    several = [open_run(folder) for folder in args.run]
    tree = several[0].tree
    refuse_other_predictions(args.out, tree)
    refuse_unwritable(args.out)
    if threshold is not None:
        check_classes(tree)
    for run in several:
        if args.intervals and run.settings["head"] != "dirichlet":
            raise SettingError(
                f"--intervals: {run.folder} was trained with --head {run.settings['head']}, which predicts none: train with "
                "--head dirichlet"
            )

    def columns(predictions: Predictions, outside: Any) -> ExtraColumns:
        ends = None
        if args.intervals and predictions.concentrations is not None:
            ends = intervals(tree, predictions.predicted, predictions.concentrations)
        return extra_columns(predictions.predicted, threshold, args.conditional, tree, ends, outside)

    if args.images is None:
        dataset, split = open_anywhere(args.tfrecords, args.cache_dir), args.split or "unlabelled"
        what = f"of split '{split}'"
        table = tabulate_split(several, dataset, split, args.out, columns, tta=args.tta, share=args.part)
    else:
        what = f"of {args.images}"
        bands = args.bands or ""
        table = tabulate_images(several, args.images, args.out, columns, args.tta, look.stretch, bands, args.part)
    if args.part is not None:
        rejected = table.noticed.rejected
        unusable = f" and {rejected:,} {'image' if rejected == 1 else 'images'} that cannot be used" if rejected else ""
        say(
            f"{args.out}: part {args.part} is done: {_galaxies(table.galaxies)} {what}{unusable}\n"
            "when all parts are done, run the same command without --part: it writes the table"
        )
        return
    left_out = _left_out(table.noticed.rejected, args.out)
    unlike = summary_of(table.noticed.outside, table.stretch)
    say(f"{args.out}: predictions for {_galaxies(table.galaxies)} {what}{left_out}{unlike}")


def _galaxies(number: int) -> str:
    return f"{number:,} {'galaxy' if number == 1 else 'galaxies'}"


def _left_out(rejected: int, out: Path) -> str:
    """How many images are missing from a file, and where they are listed; empty if none is."""
    from trainer.tables import rejected_path

    return f"; {rejected:,} that cannot be used are listed in {rejected_path(out)}" if rejected else ""


def embed_flags(parser: Any) -> None:
    """Add the flags of embed."""
    from tfrecords.fits.flags import add_fits_flags
    from trainer.featurefile import DTYPES

    add = parser.add_argument_group("data").add_argument
    add("--run", type=local_path, required=True, metavar="RUN", help=f"{RUN_FOLDER} (required)")
    _add_source(add, "galaxies", "to use", "all")
    add("--out", type=local_path, required=True, metavar="FILE.parquet", help="file of features to write (required)")
    parser.add_argument_group("features").add_argument(
        "--dtype", choices=DTYPES, default=DTYPES[0], help=f"float16 makes the file half as large {DEFAULT}"
    )
    add_fits_flags(parser, "the training images")


def _opened(args: Any) -> Any:
    """The dataset of --tfrecords, or the path of --images."""
    return args.images if args.tfrecords is None else open_anywhere(args.tfrecords, args.cache_dir)


def run_embed(args: Any) -> None:
    """Run embed."""
    from tfrecords.fits.flags import look_of
    from trainer.embed import embed_galaxies
    from trainer.featurefile import refuse_other_features
    from trainer.run import open_run

    _check_source(args)
    look = look_of(args)
    run = open_run(args.run)
    refuse_other_features(args.out)
    refuse_unwritable(args.out)
    source = _opened(args)
    embedding = embed_galaxies(run, source, args.out, args.split, args.dtype, look.stretch, args.bands or "")
    say(
        f"{args.out}: {embedding.dimension:,} features ({embedding.dtype}, layer {embedding.layer}) of each of "
        f"{_galaxies(embedding.galaxies)}{_left_out(len(embedding.rejected), args.out)}"
    )


def similar_flags(parser: Any) -> None:
    """Add the flags of similar."""
    from tfrecords.fits.flags import add_fits_flags
    from trainer.similar import COUNT

    add = parser.add_argument_group("data").add_argument
    add("--run", type=local_path, required=True, metavar="RUN", help=f"{RUN_FOLDER} (required)")
    _add_source(add, "galaxies to search", "to search", "all")
    add(
        "--to",
        nargs="+",
        required=True,
        metavar="GALAXY",
        help="galaxies to compare the others with, one or more of those that are searched: by name, or by number if they have "
        "no names (required)",
    )
    add("--out", type=local_path, required=True, metavar="DIR", help="folder for the page and the table (required)")
    add = parser.add_argument_group("search").add_argument
    add(
        "--count",
        type=at_least(1),
        default=COUNT,
        metavar="N",
        help=f"how many to find for each galaxy; the default fills two rows of the page {DEFAULT}",
    )
    add(
        "--features",
        type=local_path,
        default=None,
        metavar="FILE.parquet",
        help="file that trainer embed wrote for this run and these galaxies (default: none, the features are computed)",
    )
    add_fits_flags(parser, "the training images")


def run_similar(args: Any) -> None:
    """Run similar."""
    from tfrecords.fits.flags import look_of
    from trainer.run import open_run
    from trainer.similar import PAGE, TABLE, find_similar

    _check_source(args)
    look = look_of(args)
    run = open_run(args.run)
    refuse_unwritable(args.out)
    rows = find_similar(
        run, _opened(args), args.to, args.out, args.count, args.split, args.features, look.stretch, args.bands or ""
    )
    say(f"page:  {args.out / PAGE}\ntable: {args.out / TABLE}, {len(rows):,} {'row' if len(rows) == 1 else 'rows'}")
