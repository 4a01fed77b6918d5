"""The command line of `trainer`: train (the default command), benchmark, evaluate, predict, export."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from tfrecords.commandline import Command, at_least, run_program
from tfrecords.errors import ConfigError
from trainer.config import AUGMENTATIONS, CACHES, PRECISIONS, TrainConfig

_ON = "(default: %(default)s)"


def _dataset_flag(parser: Any) -> None:
    parser.add_argument("--tfrecords", type=Path, required=True, metavar="DIR", help="dataset folder that preprocess made")


def _run_flags(parser: Any) -> None:
    parser.add_argument("--run", type=Path, required=True, metavar="RUN", help="run folder, the --out of training")
    _dataset_flag(parser)


def _work_flags(parser: Any, defaults: TrainConfig) -> None:
    """The flags of a step and its input, which training and its benchmark share."""
    add = parser.add_argument
    _dataset_flag(parser)
    add("--batch_size", type=at_least(1), default=defaults.batch_size, metavar="N", help=f"galaxies per step {_ON}")
    add(
        "--augment",
        choices=AUGMENTATIONS,
        default=defaults.augment,
        help=f"dihedral: one of 8 symmetries; full: rotation by any angle, zoom and shift too {_ON}",
    )
    add("--precision", choices=PRECISIONS, default=defaults.precision, help=f"auto: mixed on GPUs, float32 on CPUs {_ON}")
    add(
        "--cache",
        choices=CACHES,
        default=defaults.cache,
        help=f"keep galaxies in memory over the epochs; auto: where that takes at most a quarter of what is free {_ON}",
    )
    add("--seed", type=at_least(0), default=defaults.seed, metavar="N", help=f"of weights, order, augmentation, dropout {_ON}")
    add("--limit", type=at_least(1), default=None, metavar="N", help="the first N galaxies of each split (default: all)")
    add("--require_gpu", action="store_true", help="stop where no GPU is found, instead of using the CPU")


def _train_flags(parser: Any) -> None:
    add = parser.add_argument
    defaults = TrainConfig(Path(), Path("runs/vgg16"))
    _work_flags(parser, defaults)
    add("--out", type=Path, default=defaults.out, metavar="DIR", help=f"run folder {_ON}")
    add("--epochs", type=at_least(1), default=defaults.epochs, metavar="N", help=f"at most {_ON}")
    add("--learning_rate", type=float, default=defaults.learning_rate, metavar="RATE", help=f"Adam's, after warm-up {_ON}")
    add(
        "--warmup_steps",
        type=at_least(0),
        default=defaults.warmup_steps,
        metavar="N",
        help=f"of linear growth of the rate {_ON}",
    )
    add(
        "--weights",
        default=defaults.weights,
        metavar="imagenet|none|FILE",
        help=f"where the convolutional base starts: downloaded, random, or a file {_ON}",
    )
    add(
        "--patience",
        type=at_least(1),
        default=defaults.patience,
        metavar="EPOCHS",
        help=f"without a better validation MSE until training stops {_ON}",
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
    """The choices that the flags stand for; `more`: those that have no flag here."""
    chosen = {field.name: getattr(args, field.name) for field in fields(TrainConfig) if hasattr(args, field.name)}
    return TrainConfig(**{**chosen, "limit": args.limit or 0, **more})


def _train(args: Any) -> None:
    from trainer.train import train

    train(_config(args), args.overwrite)


def _benchmark_flags(parser: Any) -> None:
    _work_flags(parser, TrainConfig(Path(), Path()))
    add = parser.add_argument
    add("--steps", type=at_least(1), default=10, metavar="N", help=f"batches of each measurement {_ON}")
    add("--rounds", type=at_least(1), default=5, metavar="N", help=f"measurements of each kind {_ON}")
    add("--json", type=Path, default=None, metavar="FILE", help="write the figures there too")


def _benchmark(args: Any) -> None:
    from tfrecords.dataset import to_json
    from tfrecords.files import write_text
    from trainer.benchmark import benchmark, table

    if args.json is not None and not args.json.parent.is_dir():
        raise ConfigError(f"{args.json}: there is no folder {args.json.parent}: make it first")
    speed = benchmark(_config(args, out=Path()), args.steps, args.rounds)
    print(table(speed))
    if args.json is not None:
        write_text(args.json, to_json(speed.to_dict()))


def _evaluate_flags(parser: Any) -> None:
    _run_flags(parser)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test", help=_ON)


def _evaluate(args: Any) -> None:
    from tfrecords.dataset import open_dataset
    from trainer.analysis.evaluate import evaluate, summary
    from trainer.run import open_run

    run = open_run(args.run)
    evaluate(run, open_dataset(args.tfrecords), args.split)
    print(summary(run, args.split))


def _predict_flags(parser: Any) -> None:
    _run_flags(parser)
    parser.add_argument("--split", choices=("train", "validation", "test", "unlabelled"), default="unlabelled", help=_ON)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="where the table of predictions goes")


def _predict(args: Any) -> None:
    from tfrecords.dataset import open_dataset
    from trainer.predict import predict, write_csv
    from trainer.run import open_run

    if args.out.is_dir():
        raise ConfigError(f"{args.out}: is a folder: give --out a file, like {args.out / 'submission.csv'}")
    dataset = open_dataset(args.tfrecords)
    predictions = predict(open_run(args.run), dataset, args.split)
    write_csv(predictions, args.out, dataset.names())
    print(f"{args.out}: predictions for {len(predictions.galaxy_ids):,} galaxies of split '{args.split}'")


def _export_flags(parser: Any) -> None:
    parser.add_argument("--run", type=Path, required=True, metavar="RUN", help="run folder, the --out of training")
    parser.add_argument("--format", choices=("savedmodel",), default="savedmodel", help=_ON)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")


def _export(args: Any) -> None:
    from trainer.export import export
    from trainer.run import open_run

    export(open_run(args.run), args.out)
    print(f"{args.out}: SavedModel, uint8 images in, 37 vote fractions out")


COMMANDS = {
    "train": Command(
        "Shards -> a trained VGG16 regressor, its metrics and its report (the default command).",
        _train_flags,
        _train,
        "run the same command again (without --overwrite) to go on from the last checkpoint",
    ),
    "benchmark": Command("Speed of the pipeline, of the training step, and of both together.", _benchmark_flags, _benchmark),
    "evaluate": Command("Metrics, predictions and report of a run on a split.", _evaluate_flags, _evaluate),
    "export": Command("The best model of a run as a TensorFlow SavedModel.", _export_flags, _export),
    "predict": Command("A table of predictions, in Kaggle's submission format.", _predict_flags, _predict),
}


def main() -> NoReturn:
    """Entry point of the console command."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes would bury our one line
    run_program("trainer", COMMANDS, "train")
