"""The command line of `trainer`: train (the default command), evaluate, predict."""

import os
from pathlib import Path
from typing import Any, NoReturn

from tfrecords.commandline import Command, at_least, run_program
from tfrecords.errors import ConfigError
from trainer.config import PRECISIONS, TrainConfig

_ON = "(default: %(default)s)"


def _dataset_flag(parser: Any) -> None:
    parser.add_argument("--tfrecords", type=Path, required=True, metavar="DIR", help="dataset folder that preprocess made")


def _run_flags(parser: Any) -> None:
    parser.add_argument("--run", type=Path, required=True, metavar="RUN", help="run folder, the --out of training")
    _dataset_flag(parser)


def _train_flags(parser: Any) -> None:
    add = parser.add_argument
    defaults = TrainConfig(Path(), Path("runs/vgg16"))
    _dataset_flag(parser)
    add("--out", type=Path, default=defaults.out, metavar="DIR", help=f"run folder {_ON}")
    add("--epochs", type=at_least(1), default=defaults.epochs, metavar="N", help=f"at most {_ON}")
    add("--batch_size", type=at_least(1), default=defaults.batch_size, metavar="N", help=f"galaxies per step {_ON}")
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
    add("--precision", choices=PRECISIONS, default=defaults.precision, help=f"auto: mixed on GPUs, float32 on CPUs {_ON}")
    add(
        "--patience",
        type=at_least(1),
        default=defaults.patience,
        metavar="EPOCHS",
        help=f"without a better validation MSE until training stops {_ON}",
    )
    add("--seed", type=at_least(0), default=defaults.seed, metavar="N", help=f"of weights, order and dropout {_ON}")
    add("--limit", type=at_least(1), default=None, metavar="N", help="the first N galaxies of each split (default: all)")
    add("--require_gpu", action="store_true", help="stop where no GPU is found, instead of training on the CPU")
    add("--overwrite", action="store_true", help="replace the run in --out")


def _train(args: Any) -> None:
    from trainer.analysis.evaluate import summary
    from trainer.train import train

    config = TrainConfig(
        tfrecords=args.tfrecords,
        out=args.out,
        epochs=args.epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        warmup_steps=args.warmup_steps,
        weights=args.weights,
        precision=args.precision,
        patience=args.patience,
        seed=args.seed,
        limit=args.limit or 0,
        require_gpu=args.require_gpu,
    )
    run = train(config, args.overwrite)
    if run.metrics_path("test").is_file():
        print(summary(run, "test"))


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


COMMANDS = {
    "train": Command(
        "Shards -> a trained VGG16 regressor, its metrics and its report (the default command).",
        _train_flags,
        _train,
        "run the same command again to go on after the last finished epoch",
    ),
    "evaluate": Command("Metrics, predictions and report of a run on a split.", _evaluate_flags, _evaluate),
    "predict": Command("A table of predictions, in Kaggle's submission format.", _predict_flags, _predict),
}


def main() -> NoReturn:
    """Entry point of the console command."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes would bury our one line
    run_program("trainer", COMMANDS, "train")
