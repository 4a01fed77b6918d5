"""The command line of `trainer`: its commands, and the flags of train (the default), explore, evaluate, export, benchmark."""

import os
import shlex
import sys
from dataclasses import MISSING
from typing import Any, NoReturn

from tfrecords.commandline import Command, at_least, between, run_program, say
from tfrecords.errors import ConfigError, SettingError, install_extra
from tfrecords.files import local_path
from tfrecords.outputs import refuse_unwritable
from trainer.cli_galaxies import (
    DEFAULT,
    RUN_FOLDER,
    embed_flags,
    predict_flags,
    run_embed,
    run_predict,
    run_similar,
    similar_flags,
)
from trainer.config import DEFAULTS, GROUPS, RECIPES, SETTINGS, TrainConfig

_DATASET = "data/galaxy_zoo/1.0.0"
# Splits with votes.
_MEASURED = ("train", "validation", "test")


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
                f"{DEFAULT}",
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
        refuse_unwritable(args.submission, "--submission")
        check_submission(config, args.submission)
    run = train_model(config, args.overwrite)
    if args.submission is not None:
        write_submission(run, config, args.submission)


def _benchmark_flags(parser: Any) -> None:
    from trainer.benchmark import ROUNDS, STEPS

    _add_settings(parser, timed=True)
    add = parser.add_argument_group("measuring").add_argument
    add("--steps", type=at_least(1), default=STEPS, metavar="N", help=f"batches in each measurement {DEFAULT}")
    add("--rounds", type=at_least(1), default=ROUNDS, metavar="N", help=f"measurements of each kind {DEFAULT}")
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


def _dataset_flags(group: Any) -> None:
    _add_setting(group, "tfrecords")
    _add_setting(group, "cache_dir")


def _dataset(args: Any) -> Any:
    from tfrecords.storage import open_anywhere

    return open_anywhere(args.tfrecords, args.cache_dir or DEFAULTS["cache_dir"])


def _page_flag(group: Any) -> None:
    help = "folder for the page with its figures and numbers (required)"
    group.add_argument("--out", type=local_path, required=True, metavar="DIR", help=help)


def _explore_flags(parser: Any) -> None:
    data = parser.add_argument_group("data")
    _dataset_flags(data)
    _page_flag(data)
    data.add_argument(
        "--src",
        type=local_path,
        default=None,
        metavar="PATH",
        help="source of the dataset, a folder or zip; adds how much of each galaxy's light the crop keeps",
    )
    data.add_argument(
        "--predictions",
        type=local_path,
        default=None,
        metavar="FILE.csv",
        help="table that trainer predict wrote: the page is about these predictions, also for galaxies without votes "
        "(default: about votes)",
    )
    parser.add_argument_group("page").add_argument(
        "--where",
        default=None,
        metavar="EXPR",
        help="add a gallery of the galaxies whose votes, or --predictions, match this expression, such as "
        '"Class4.1 > 0.8 and not Class3.1 > 0.5" for Kaggle\'s tree',
    )


def _explore(args: Any) -> None:
    from trainer.explore import explore_dataset, explore_predictions

    if args.predictions is not None and args.src is not None:
        raise SettingError("--src: a page about --predictions does not use the source: omit one of the two flags")
    refuse_unwritable(args.out)
    dataset = _dataset(args)
    if args.predictions is None:
        page = explore_dataset(dataset, args.out, args.src, args.where)
    else:
        page = explore_predictions(dataset, args.predictions, args.out, args.where)
    say(f"page: {page}")


def _evaluate_flags(parser: Any) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--run", type=local_path, required=True, metavar="RUN", help=f"{RUN_FOLDER} (required)")
    _dataset_flags(data)
    data.add_argument("--split", choices=_MEASURED, default="test", help=f"split to evaluate on {DEFAULT}")


def _evaluate(args: Any) -> None:
    from trainer.evaluate import evaluate_run, summary
    from trainer.run import open_run

    run = open_run(args.run)
    record, _ = evaluate_run(run, _dataset(args), args.split)
    say(summary(run, record))


def _compare_flags(parser: Any) -> None:
    data = parser.add_argument_group("data")
    data.add_argument(
        "--run",
        type=local_path,
        action="append",
        required=True,
        metavar="RUN",
        help=f"{RUN_FOLDER}; repeat the flag for each run, the first is the one that the others are compared with (required)",
    )
    _dataset_flags(data)
    data.add_argument("--split", choices=_MEASURED, default="test", help=f"split to compare on {DEFAULT}")
    _page_flag(data)


def _compare(args: Any) -> None:
    from trainer.compare import compare_runs
    from trainer.run import open_run

    refuse_unwritable(args.out)
    runs = [open_run(folder) for folder in args.run]
    say(f"page: {compare_runs(runs, _dataset(args), args.out, args.split)}")


def _export_flags(parser: Any) -> None:
    from trainer.export import FORMATS

    add = parser.add_argument_group("data").add_argument
    add("--run", type=local_path, required=True, metavar="RUN", help=f"{RUN_FOLDER} (required)")
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
        f"{install_extra('export')}; litert: for phones and small devices {DEFAULT}",
    )


def _export(args: Any) -> None:
    from trainer.export import FORMATS, export_model
    from trainer.run import open_run

    run = open_run(args.run)
    script = export_model(run, args.out, args.format)
    takes = "images (0..255 or 0..1) or JPEG files" if args.format == "savedmodel" else "images (0..255 or 0..1)"
    gives = f"{len(run.tree.columns)} vote fractions"
    if run.settings["head"] == "dirichlet":
        gives += f" and a concentration for each of its {len(run.tree.questions)} questions"
    say(f"{args.out}: {FORMATS[args.format]}, {takes} in, {gives} out")
    say(f"next: python {shlex.quote(str(script))} FOLDER predictions.csv")


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
    "compare": Command(
        "Make a page that compares runs on the same galaxies, with the intervals of their differences.",
        _compare_flags,
        _compare,
        f"trainer compare --run runs/vgg16 --run runs/second --tfrecords {_DATASET} --out compared",
    ),
    "explore": Command(
        "Make a page about a dataset: votes, classes, splits and images; or about predictions of its galaxies.",
        _explore_flags,
        _explore,
        f"trainer explore --tfrecords {_DATASET} --out explore --src kaggle",
    ),
    "predict": Command(
        "Write a table of predictions, for Kaggle's tree in its submission format.",
        predict_flags,
        run_predict,
        f"trainer predict --run runs/vgg16 --tfrecords {_DATASET} --out submission.csv",
        "run the same command again to resume with the last finished part",
    ),
    "embed": Command(
        "Write the features of galaxies before the model's head, as a Parquet file.",
        embed_flags,
        run_embed,
        f"trainer embed --run runs/vgg16 --tfrecords {_DATASET} --out features.parquet",
    ),
    "similar": Command(
        "Make a page of the galaxies most like some others, and a table of their distances.",
        similar_flags,
        run_similar,
        f"trainer similar --run runs/vgg16 --tfrecords {_DATASET} --to 100008 --out similar",
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
