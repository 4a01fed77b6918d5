"""The command line of `trainer`: train (the default command), explore, evaluate, predict, export, benchmark."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from tfrecords.commandline import Command, at_least, between, run_program, say
from tfrecords.errors import ConfigError, SettingError
from tfrecords.files import local_path
from trainer.config import CHOICES, RECIPES, TrainConfig

_ON = "(default: %(default)s)"


def _dataset_flag(parser: Any) -> None:
    parser.add_argument(
        "--tfrecords", type=local_path, required=True, metavar="DIR", help="dataset folder that preprocess made"
    )


def _run_flags(parser: Any) -> None:
    parser.add_argument("--run", type=local_path, required=True, metavar="RUN", help="run folder, the --out of training")
    _dataset_flag(parser)


def _recipe_flag(parser: Any, name: str, about: str, **options: Any) -> None:
    """A flag for a choice that the recipe makes where it is not given."""
    made = {recipe: choices()[name] for recipe, choices in RECIPES.items()}
    said = f"{made['best']}; article: {made['article']}" if made["best"] != made["article"] else made["best"]
    if name in CHOICES:
        options["choices"] = CHOICES[name]
    parser.add_argument(f"--{name}", default=None, help=f"{about} (default: {said})", **options)


def _work_flags(parser: Any, defaults: TrainConfig) -> None:
    """The flags of a step and its input, which training and its benchmark share."""
    add = parser.add_argument
    _dataset_flag(parser)
    add(
        "--recipe",
        choices=tuple(RECIPES),
        default="best",
        help=f"what the flags below take where they are not given: best, by measurement, or the article's {_ON}",
    )
    _recipe_flag(parser, "batch_size", "galaxies per step", type=at_least(1), metavar="N")
    _recipe_flag(parser, "augment", "dihedral: one of 8 symmetries; full: rotation by any angle, zoom and shift too")
    _recipe_flag(parser, "backbone", "the convolutional base")
    _recipe_flag(parser, "pooling", "flatten: all of the base's last maps go on; average: the mean of each")
    _recipe_flag(parser, "head", "sigmoid: each column for itself; tree: fractions that obey the decision tree")
    _recipe_flag(parser, "loss", "cross_entropy: of every question, weighted by how many were asked; needs --head tree")
    _recipe_flag(parser, "ema", "momentum of a moving average of the weights, the one that is kept; 0: none", type=float)
    add(
        "--precision",
        choices=CHOICES["precision"],
        default=defaults.precision,
        help=f"auto: mixed on GPUs, float32 on CPUs {_ON}",
    )
    add(
        "--cache",
        choices=CHOICES["cache"],
        default=defaults.cache,
        help=f"keep galaxies in memory over the epochs; auto: where that takes at most a quarter of what is free {_ON}",
    )
    add("--seed", type=at_least(0), default=defaults.seed, metavar="N", help=f"of weights, order, augmentation, dropout {_ON}")
    add("--limit", type=at_least(1), default=None, metavar="N", help="the first N galaxies of each split (default: all)")
    add("--require_gpu", action="store_true", help="stop where no GPU is found, instead of using the CPU")


def _weights(text: str) -> str:
    local_path(text)  # may be the path of a file
    return text


def _train_flags(parser: Any) -> None:
    add = parser.add_argument
    defaults = TrainConfig(Path(), Path("runs/vgg16"))
    _work_flags(parser, defaults)
    add("--out", type=local_path, default=defaults.out, metavar="DIR", help=f"run folder {_ON}")
    add(
        "--weights",
        type=_weights,
        default=defaults.weights,
        metavar="imagenet|none|FILE",
        help=f"where the convolutional base starts: downloaded, random, or a file {_ON}",
    )
    _recipe_flag(parser, "epochs", "at most", type=at_least(1), metavar="N")
    _recipe_flag(parser, "learning_rate", "Adam's, after warm-up; --head_epochs take ten times it", type=float, metavar="RATE")
    _recipe_flag(parser, "schedule", "of the learning rate after warm-up: as it is, or falling to zero along a cosine")
    _recipe_flag(parser, "warmup_steps", "of linear growth of the rate", type=at_least(0), metavar="N")
    _recipe_flag(
        parser,
        "head_epochs",
        "the first epochs train only what follows the base, on features computed once: quick where there is no GPU",
        type=at_least(0),
        metavar="N",
    )
    _recipe_flag(parser, "weight_decay", "AdamW's, 0: none", type=float, metavar="RATE")
    _recipe_flag(parser, "input_scaling", "auto: as the weights expect the input; unit: 0..1")
    _recipe_flag(
        parser,
        "initialisation",
        "means: He, outputs start at the column means of train; he, keras (Glorot): outputs too, they start near one half",
    )
    _recipe_flag(
        parser, "patience", "epochs without a better validation MSE until training stops", type=at_least(1), metavar="N"
    )
    add(
        "--hosts",
        default=defaults.hosts,
        metavar="A:PORT,B:PORT|auto",
        help="addresses of all processes of a run on several machines, the first is where they meet; auto: ask the cluster, "
        "Slurm say (JAX only; default: this machine alone)",
    )
    add("--host_index", type=at_least(0), default=None, metavar="I", help="the place of this process in --hosts, from 0")
    add("--overwrite", action="store_true", help="replace the run in --out")


def _config(args: Any, **more: Any) -> TrainConfig:
    """The choices that the flags stand for, and the recipe where they are not given; `more`: those that have no flag here."""
    given = {field.name: getattr(args, field.name, None) for field in fields(TrainConfig)}
    chosen = {name: value for name, value in given.items() if value is not None}
    recipe = RECIPES[args.recipe]()
    if chosen.get("head") == "sigmoid":  # which the cross-entropy of a recipe does not go with
        recipe["loss"] = "mse"
    return TrainConfig(**{**recipe, **chosen, **more})


def _train(args: Any) -> None:
    from trainer.train import train

    train(_config(args), args.overwrite)


def _benchmark_flags(parser: Any) -> None:
    _work_flags(parser, TrainConfig(Path(), Path()))
    add = parser.add_argument
    add("--steps", type=at_least(1), default=10, metavar="N", help=f"batches of each measurement {_ON}")
    add("--rounds", type=at_least(1), default=5, metavar="N", help=f"measurements of each kind {_ON}")
    add("--json", type=local_path, default=None, metavar="FILE", help="write the figures there too")


def _benchmark(args: Any) -> None:
    from tfrecords.dataset import to_json
    from tfrecords.files import write_text
    from trainer.benchmark import benchmark, is_report, table

    if args.json is not None and not args.json.parent.is_dir():
        raise ConfigError(f"{args.json}: there is no folder {args.json.parent}: make it first")
    if args.json is not None and not is_report(args.json):
        raise ConfigError(f"{args.json}: exists and was not written by this command: choose another file")
    speed = benchmark(_config(args, out=Path()), args.steps, args.rounds)
    say(table(speed))
    if args.json is not None:
        write_text(args.json, to_json(speed.to_dict()))


def _explore_flags(parser: Any) -> None:
    _dataset_flag(parser)
    add = parser.add_argument
    add("--out", type=local_path, required=True, metavar="DIR", help="folder for the page, its figures and their numbers")
    add(
        "--src",
        type=local_path,
        default=None,
        metavar="PATH",
        help="the images that were preprocessed, to see what the crop keeps",
    )
    add(
        "--where",
        default=None,
        metavar="EXPR",
        help='a gallery of these galaxies, like "Class4.1 > 0.8 and not Class3.1 > 0.5"',
    )


def _explore(args: Any) -> None:
    from tfrecords.dataset import open_dataset
    from trainer.analysis.explore import explore

    _check_above(args.out)
    say(f"page: {explore(open_dataset(args.tfrecords), args.out, args.src, args.where)}")


def _evaluate_flags(parser: Any) -> None:
    _run_flags(parser)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test", help=_ON)


def _evaluate(args: Any) -> None:
    from tfrecords.dataset import open_dataset
    from trainer.analysis.evaluate import evaluate, summary
    from trainer.run import open_run

    run = open_run(args.run)
    record, _ = evaluate(run, open_dataset(args.tfrecords), args.split)
    say(summary(run, record))


def _predict_flags(parser: Any) -> None:
    from trainer.classes import DEFAULT_THRESHOLD
    from trainer.fits import Stretch

    add = parser.add_argument
    add(
        "--run",
        type=local_path,
        action="append",
        required=True,
        metavar="RUN",
        help="run folder, the --out of training; given several times: the mean of these runs",
    )
    add(
        "--tfrecords", type=local_path, default=None, metavar="DIR", help="predict a split of this dataset that preprocess made"
    )
    add(
        "--images",
        type=local_path,
        default=None,
        metavar="PATH",
        help="or predict the images in a file, folder or zip: JPEG, PNG, and FITS (.fits, .fit) with the extra fits, "
        "pip install '.[fits]'; FITS: planes R, G, B (SDSS: i, r, g), flux on a linear scale, sky subtracted",
    )
    splits = ("train", "validation", "test", "unlabelled")
    add("--split", choices=splits, default=None, help="of --tfrecords (default: unlabelled)")
    add("--out", type=local_path, required=True, metavar="FILE.csv", help="where the table of predictions goes")
    add("--tta", type=between(1, 8), default=1, metavar="N", help=f"mean over the first N of the square's 8 symmetries {_ON}")
    add(
        "--hubble",
        action="store_true",
        help="add the columns hubble (elliptical, spiral, barred spiral, or uncertain) and hubble_detail (roundness, or "
        "winding and number of arms); smooth is called elliptical by convention and includes S0; "
        "with more columns than Kaggle's the table is no submission",
    )
    add(
        "--threshold",
        type=float,
        default=None,
        metavar="T",
        help="of --hubble: a galaxy is in a class when all its columns are at least T, above 0.5 and at most 1 "
        f"(default: {DEFAULT_THRESHOLD})",
    )
    add(
        "--conditional",
        action="store_true",
        help="add the columns Conditional1.1 ...: the fraction of those asked who give each answer, after projection onto the "
        "decision tree, empty where fewer than 5%% are asked; no submission either",
    )
    stretch = Stretch()
    add(
        "--fits_stretch",
        type=float,
        default=None,
        metavar="FLUX",
        help="of FITS images: flux per pixel up to which brightness grows linearly, of Lupton+2004; the default suits SDSS "
        f"frames in nanomaggies (default: {stretch.stretch})",
    )
    add("--fits_q", type=float, default=None, metavar="Q", help=f"of FITS images: softening above it (default: {stretch.q})")


def _check_predict(args: Any) -> None:
    """Raise SettingError for flags that do not go together."""
    if (args.tfrecords is None) == (args.images is None):
        raise SettingError("what to predict is one of --tfrecords DIR (a dataset) and --images PATH (image files)")
    for name, other in (("split", "tfrecords"), ("fits_stretch", "images"), ("fits_q", "images"), ("threshold", "hubble")):
        if getattr(args, name) is not None and getattr(args, other) in (None, False):
            raise SettingError(f"--{name} {getattr(args, name)}: goes with --{other} only: leave it out, or give --{other}")


def _check_above(path: Path) -> None:
    """Raise ConfigError where nothing can be written at `path`: better now than after an hour of work."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        what = "you may not write there" if above.is_dir() else "is a file"
        raise ConfigError(f"{above}: {what}: choose another folder for --out")


def _predict(args: Any) -> None:
    from trainer.classes import DEFAULT_THRESHOLD, check_threshold, extra_columns
    from trainer.fits import Stretch
    from trainer.predict import (
        Predictions,
        predict,
        predict_images,
        refuse_other_table,
        rejected_path,
        write_csv,
        write_rejected,
    )
    from trainer.run import open_run

    _check_predict(args)
    threshold = (DEFAULT_THRESHOLD if args.threshold is None else args.threshold) if args.hubble else None
    if threshold is not None:
        check_threshold(threshold)
    defaults = Stretch()
    stretch = Stretch(
        defaults.stretch if args.fits_stretch is None else args.fits_stretch, defaults.q if args.fits_q is None else args.fits_q
    )
    refuse_other_table(args.out)
    _check_above(args.out)
    predictions: Predictions
    rejected: tuple[Any, ...] = ()
    if args.images is None:
        from tfrecords.dataset import open_dataset

        dataset, split = open_dataset(args.tfrecords), args.split or "unlabelled"
        names, what = dataset.names(), f"of split '{split}'"
        predictions = predict([open_run(folder) for folder in args.run], dataset, split, tta=args.tta)
    else:
        found = predict_images([open_run(folder) for folder in args.run], args.images, args.tta, stretch)
        predictions, names, rejected, what = found, dict(found.names), found.rejected, f"of {args.images}"
    write_rejected(rejected, args.out)
    write_csv(predictions, args.out, names, extra_columns(predictions.predicted, threshold, args.conditional))
    left_out = f"; {len(rejected):,} that cannot be read are in {rejected_path(args.out)}" if rejected else ""
    galaxies = len(predictions.galaxy_ids)
    say(f"{args.out}: predictions for {galaxies:,} {'galaxy' if galaxies == 1 else 'galaxies'} {what}{left_out}")


def _export_flags(parser: Any) -> None:
    from trainer.export import FORMATS

    parser.add_argument("--run", type=local_path, required=True, metavar="RUN", help="run folder, the --out of training")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="savedmodel",
        help="savedmodel: for TensorFlow, takes JPEG files too; onnx: for ONNX Runtime and others, needs "
        f"pip install -e '.[export]'; litert: for phones and small machines {_ON}",
    )
    parser.add_argument(
        "--out",
        type=local_path,
        required=True,
        metavar="PATH",
        help="a new folder (savedmodel) or file (onnx; litert: FILE.tflite)",
    )


def _export(args: Any) -> None:
    from trainer.export import FORMATS, export
    from trainer.run import open_run

    export(open_run(args.run), args.out, args.format)
    takes = "uint8 images or JPEG files" if args.format == "savedmodel" else "uint8 images"
    say(f"{args.out}: {FORMATS[args.format]}, {takes} in, 37 vote fractions out")


COMMANDS = {
    "train": Command(
        "Shards -> a trained VGG16 regressor, its metrics and its report (the default command).",
        _train_flags,
        _train,
        "run the same command again (without --overwrite) to go on from the last checkpoint",
    ),
    "benchmark": Command("Speed of the pipeline, of the training step, and of both together.", _benchmark_flags, _benchmark),
    "explore": Command("A page about a dataset: votes, classes, splits, pictures.", _explore_flags, _explore),
    "evaluate": Command("Metrics, predictions and report of a run on a split.", _evaluate_flags, _evaluate),
    "export": Command("The best model of a run for other programs: SavedModel, ONNX, LiteRT.", _export_flags, _export),
    "predict": Command("A table of predictions, in Kaggle's submission format.", _predict_flags, _predict),
}


def main() -> NoReturn:
    """Entry point of the console command."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes would bury our one line
    run_program("trainer", COMMANDS, "train")
