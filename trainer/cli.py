"""The command line of `trainer`: train (the default command), explore, evaluate, predict, export, benchmark."""

import os
import sys
from dataclasses import MISSING
from pathlib import Path
from typing import Any, NoReturn

from tfrecords.commandline import Command, at_least, between, run_program, say
from tfrecords.errors import ConfigError, SettingError, install_extra
from tfrecords.files import local_path
from trainer.config import DEFAULTS, GROUPS, RECIPES, SETTINGS, TrainConfig

_DATASET = "data/galaxy_zoo/1.0.0"
_DEFAULT = "(default: %(default)s)"
_RUN = "run folder, the --out of a training run"


def _add_setting(group: Any, name: str) -> None:
    """Add the flag of a field of TrainConfig, as SETTINGS describes it."""
    setting, default = SETTINGS[name], DEFAULTS[name]
    text = setting.help.replace("%", "%%")
    if setting.kind is bool:
        group.add_argument(f"--{name}", action="store_true", help=text)
        return
    if default is MISSING:
        group.add_argument(f"--{name}", type=setting.kind, required=True, metavar=setting.unit, help=f"{text} (required)")
        return
    shown = setting.none or default
    if setting.in_recipe and (of_article := RECIPES["article"]()[name]) != default:
        shown = f"{shown}; article: {of_article}"
    if setting.choices is not None:
        values: dict[str, Any] = {"choices": tuple(setting.choices)}
    elif setting.kind is int:
        values = {"metavar": setting.unit, "type": between(int(setting.minimum or 0), int(setting.maximum or sys.maxsize))}
    else:
        values = {"metavar": setting.unit, "type": setting.kind}
    group.add_argument(f"--{name}", default=None, help=f"{text} (default: {shown})", **values)


def _add_settings(parser: Any, timed: bool = False) -> dict[str, Any]:
    """Add the flags of TrainConfig, with `timed` only those that affect speed; return their groups by title."""
    groups = {}
    for title in GROUPS:
        names = [name for name, setting in SETTINGS.items() if setting.group == title and (setting.timed or not timed)]
        if names:
            groups[title] = parser.add_argument_group(title)
        if title == "model":
            groups[title].add_argument(
                "--recipe",
                choices=tuple(RECIPES),
                default="best",
                help="defaults of the flags below; best: the most accurate in our measurements; article: as in the article "
                f"{_DEFAULT}",
            )
        for name in names:
            _add_setting(groups[title], name)
    return groups


def _config(args: Any) -> TrainConfig:
    """The settings from the flags; those without a flag are the recipe's."""
    given = {name: getattr(args, name, None) for name in SETTINGS}
    chosen = {name: value for name, value in given.items() if value is not None}
    recipe = RECIPES[args.recipe]()
    # The cross-entropy of a recipe needs --head tree.
    recipe["loss"] = {"sigmoid": "mse", "dirichlet": "dirichlet_multinomial"}.get(chosen.get("head", ""), recipe["loss"])
    return TrainConfig(**{**recipe, **chosen})


def _train_flags(parser: Any) -> None:
    groups = _add_settings(parser)
    groups["data"].add_argument("--overwrite", action="store_true", help="replace the run in --out")
    groups["data"].add_argument(
        "--submission",
        type=local_path,
        default=None,
        metavar="FILE.csv",
        help="finally, write the predictions for the galaxies without votes to this table, as trainer predict does",
    )


def _train(args: Any) -> None:
    from trainer.submission import check_submission, write_submission
    from trainer.train import train_model

    config = _config(args)
    if args.submission is not None:
        _check_above(args.submission)
        check_submission(config, args.submission)
    run = train_model(config, args.overwrite)
    if args.submission is not None:
        write_submission(run, config, args.submission)


def _benchmark_flags(parser: Any) -> None:
    from trainer.benchmark import ROUNDS, STEPS

    _add_settings(parser, timed=True)
    add = parser.add_argument_group("measuring").add_argument
    add("--steps", type=at_least(1), default=STEPS, metavar="N", help=f"batches in each measurement {_DEFAULT}")
    add("--rounds", type=at_least(1), default=ROUNDS, metavar="N", help=f"measurements of each kind {_DEFAULT}")
    add("--json", type=local_path, default=None, metavar="FILE", help="also write the figures to this file, as JSON")


def _benchmark(args: Any) -> None:
    from tfrecords.dataset import to_json
    from tfrecords.files import write_text
    from trainer.benchmark import is_report, measure_speed, table

    if args.json is not None and not args.json.parent.is_dir():
        raise ConfigError(f"{args.json}: the folder {args.json.parent} does not exist: create it first")
    if args.json is not None and not is_report(args.json):
        raise ConfigError(f"{args.json}: already exists and was not written by this command: choose another file")
    speed = measure_speed(_config(args), args.steps, args.rounds)
    say(table(speed))
    if args.json is not None:
        write_text(args.json, to_json(speed.to_dict()))


def _dataset_flag(group: Any) -> None:
    _add_setting(group, "tfrecords")


def _explore_flags(parser: Any) -> None:
    data = parser.add_argument_group("data")
    _dataset_flag(data)
    data.add_argument(
        "--out",
        type=local_path,
        required=True,
        metavar="DIR",
        help="folder for the page with its figures and numbers (required)",
    )
    data.add_argument(
        "--src",
        type=local_path,
        default=None,
        metavar="PATH",
        help="source of the dataset, a folder or zip; adds how much of each galaxy's light the crop keeps",
    )
    parser.add_argument_group("page").add_argument(
        "--where",
        default=None,
        metavar="EXPR",
        help='add a gallery of the galaxies that match this expression, such as "Class4.1 > 0.8 and not Class3.1 > 0.5" for '
        "Kaggle's tree",
    )


def _explore(args: Any) -> None:
    from tfrecords.dataset import open_dataset
    from trainer.explore import explore_dataset

    _check_above(args.out)
    say(f"page: {explore_dataset(open_dataset(args.tfrecords), args.out, args.src, args.where)}")


def _evaluate_flags(parser: Any) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--run", type=local_path, required=True, metavar="RUN", help=f"{_RUN} (required)")
    _dataset_flag(data)
    splits = ("train", "validation", "test")
    data.add_argument("--split", choices=splits, default="test", help=f"split to evaluate on {_DEFAULT}")


def _evaluate(args: Any) -> None:
    from tfrecords.dataset import open_dataset
    from trainer.evaluate import evaluate_run, summary
    from trainer.run import open_run

    run = open_run(args.run)
    record, _ = evaluate_run(run, open_dataset(args.tfrecords), args.split)
    say(summary(run, record))


def _predict_flags(parser: Any) -> None:
    from tfrecords.fits.flags import add_fits_flags
    from trainer.tables import DEFAULT_THRESHOLD

    add = parser.add_argument_group("data").add_argument
    add(
        "--run",
        type=local_path,
        action="append",
        required=True,
        metavar="RUN",
        help=f"{_RUN} (required); repeat the flag to predict the mean of several runs",
    )
    add("--tfrecords", type=local_path, default=None, metavar="DIR", help="dataset folder with the split to predict")
    add(
        "--images",
        type=local_path,
        default=None,
        metavar="PATH",
        help="file, folder or zip of images to predict instead: JPEG, PNG, TIFF, WebP, BMP, or FITS, which needs "
        f"{install_extra('fits')}",
    )
    splits = ("train", "validation", "test", "unlabelled")
    add("--split", choices=splits, default=None, help="split of --tfrecords (default: unlabelled)")
    add("--out", type=local_path, required=True, metavar="FILE.csv", help="table of predictions to write (required)")
    add = parser.add_argument_group("predictions").add_argument
    add(
        "--tta",
        type=between(1, 8),
        default=1,
        metavar="N",
        help=f"average the predictions over N views of each galaxy, the first N of the 8 symmetries of the square {_DEFAULT}",
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


def _check_predict(args: Any) -> None:
    """Raise SettingError for flags that cannot be combined."""
    if (args.tfrecords is None) == (args.images is None):
        raise SettingError("give either --tfrecords DIR (a dataset) or --images PATH (image files)")
    of_images = [(name, "images") for name in ("bands", "fits_stretch", "fits_q")]
    for name, other in (("split", "tfrecords"), *of_images, ("threshold", "hubble")):
        if getattr(args, name) is not None and getattr(args, other) in (None, False):
            raise SettingError(f"--{name} {getattr(args, name)}: needs --{other}: add it, or omit --{name}")


def _check_above(path: Path) -> None:
    """Raise ConfigError if nothing can be written at `path`, before an hour of work is lost."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        what = "is not writable" if above.is_dir() else "is a file"
        raise ConfigError(f"{above}: {what}: choose another folder for --out")


def _predict(args: Any) -> None:
    from tfrecords.fits.flags import look_of
    from trainer.analysis.intervals import intervals
    from trainer.images.ranges import summary_of
    from trainer.predict import predict_images, predict_split
    from trainer.run import open_run
    from trainer.tables import (
        DEFAULT_THRESHOLD,
        Predictions,
        check_classes,
        check_threshold,
        extra_columns,
        refuse_other_table,
        rejected_path,
        write_csv,
        write_rejected,
    )

    _check_predict(args)
    threshold = (DEFAULT_THRESHOLD if args.threshold is None else args.threshold) if args.hubble else None
    if threshold is not None:
        check_threshold(threshold)
    look = look_of(args)
    several = [open_run(folder) for folder in args.run]
    tree = several[0].tree
    refuse_other_table(args.out, tree)
    _check_above(args.out)
    if threshold is not None:
        check_classes(tree)
    for run in several:
        if args.intervals and run.settings["head"] != "dirichlet":
            raise SettingError(
                f"--intervals: {run.folder} was trained with --head {run.settings['head']}, which predicts none: train with "
                "--head dirichlet"
            )
    predictions: Predictions
    rejected: tuple[Any, ...] = ()
    outside, unlike = None, ""
    if args.images is None:
        from tfrecords.dataset import open_dataset

        dataset, split = open_dataset(args.tfrecords), args.split or "unlabelled"
        predictions, what = predict_split(several, dataset, split, tta=args.tta), f"of split '{split}'"
    else:
        of_images = predict_images(several, args.images, args.tta, look.stretch, args.bands or "")
        predictions, rejected, what = of_images, of_images.rejected, f"of {args.images}"
        outside, unlike = of_images.outside, summary_of(of_images.outside, of_images.stretch)
    write_rejected(rejected, args.out)
    ends = None
    if args.intervals and predictions.concentrations is not None:
        ends = intervals(tree, predictions.predicted, predictions.concentrations)
    extra = extra_columns(predictions.predicted, threshold, args.conditional, tree, ends, outside)
    write_csv(predictions, args.out, extra)
    left_out = f"; {len(rejected):,} that cannot be used are listed in {rejected_path(args.out)}" if rejected else ""
    galaxies = len(predictions.galaxy_ids)
    say(f"{args.out}: predictions for {galaxies:,} {'galaxy' if galaxies == 1 else 'galaxies'} {what}{left_out}{unlike}")


def _export_flags(parser: Any) -> None:
    from trainer.export import FORMATS

    add = parser.add_argument_group("data").add_argument
    add("--run", type=local_path, required=True, metavar="RUN", help=f"{_RUN} (required)")
    add(
        "--out",
        type=local_path,
        required=True,
        metavar="PATH",
        help="new folder (savedmodel) or file (onnx; litert: FILE.tflite) to write (required)",
    )
    parser.add_argument_group("output").add_argument(
        "--format",
        choices=FORMATS,
        default="savedmodel",
        help="savedmodel: for TensorFlow, accepts JPEG files too; onnx: for ONNX Runtime and others, needs "
        f"{install_extra('export')}; litert: for phones and small devices {_DEFAULT}",
    )


def _export(args: Any) -> None:
    from trainer.export import FORMATS, export_model
    from trainer.run import open_run

    run = open_run(args.run)
    export_model(run, args.out, args.format)
    takes = "images (0..255 or 0..1) or JPEG files" if args.format == "savedmodel" else "images (0..255 or 0..1)"
    gives = f"{len(run.tree.columns)} vote fractions"
    if run.settings["head"] == "dirichlet":
        gives += f" and a concentration for each of its {len(run.tree.questions)} questions"
    say(f"{args.out}: {FORMATS[args.format]}, {takes} in, {gives} out")


COMMANDS = {
    "train": Command(
        "Train a VGG16 regressor on a dataset, or resume its run, and then evaluate it (the default command).",
        _train_flags,
        _train,
        f"trainer --tfrecords {_DATASET} --out runs/vgg16 --epochs 30",
        "run the same command again (without --overwrite) to resume from the last checkpoint",
    ),
    "evaluate": Command(
        "Evaluate a run on a split: metrics, predictions and a report.",
        _evaluate_flags,
        _evaluate,
        f"trainer evaluate --run runs/vgg16 --tfrecords {_DATASET} --split validation",
    ),
    "explore": Command(
        "Make a page about a dataset: votes, classes, splits and images.",
        _explore_flags,
        _explore,
        f"trainer explore --tfrecords {_DATASET} --out explore --src kaggle",
    ),
    "predict": Command(
        "Write a table of predictions, for Kaggle's tree in its submission format.",
        _predict_flags,
        _predict,
        f"trainer predict --run runs/vgg16 --tfrecords {_DATASET} --out submission.csv",
    ),
    "export": Command(
        "Export the best model of a run as SavedModel, ONNX or LiteRT.",
        _export_flags,
        _export,
        "trainer export --run runs/vgg16 --format onnx --out galaxies.onnx",
    ),
    "benchmark": Command(
        "Measure the speed of the input, the training step, and both together, with random weights; writes no run.",
        _benchmark_flags,
        _benchmark,
        f"trainer benchmark --tfrecords {_DATASET} --batch_size 64",
    ),
}


def main() -> NoReturn:
    """Entry point of the console command."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes would bury our one line
    run_program("trainer", COMMANDS, "train")
