"""What each choice of a recipe is worth, measured on real galaxies.

The galaxies of --src are cut to 64 x 64 and split as `preprocess --validation_fraction 0.25 --test_fraction 0.1 --seed 0` does.
Models train on a dataset that holds those of `train` alone, so no epoch is chosen and nothing stops early; choices are made on
`validation`, and `test` is scored once, at the end.

    .venv/bin/python -m benchmarks.accuracy --src ../shared/kaggle --weights ../shared/weights/vgg16_imagenet_notop.weights.h5

Finished runs are kept as JSON in --work and skipped next time: the whole takes hours on two cores and can be spread over days.
`--stage screen` tries one change at a time from a base, `--stage confirm` trains the article's recipe, the base, `best`
and a plain Keras loop for longer, `--stage tables` prints what is there as Markdown. `--stage test`, never part of the others,
scores the longer runs on `test` once all of them are there, and writes down when it did.
"""

import argparse
from pathlib import Path

from benchmarks.accuracy.tables import print_confirmed, print_screen
from benchmarks.accuracy.trials import CONFIRM, SCREEN
from benchmarks.accuracy.work import Work
from benchmarks.children import REPOSITORY


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--src", type=Path, required=True, help="Kaggle's galaxies, unpacked")
    parser.add_argument("--weights", type=Path, required=True, help="file of the ImageNet weights of VGG16's base")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "accuracy", help="(default: %(default)s)")
    stages = {"screen": SCREEN, "confirm": CONFIRM, "tables": (), "test": (), None: SCREEN + CONFIRM}
    parser.add_argument("--stage", choices=[stage for stage in stages if stage], help="(default: all but test)")
    args = parser.parse_args()
    work = Work(args.work)
    work.prepare(args.src, args.weights)
    for trial in stages[args.stage]:
        work.run(trial, args.weights)
    if args.stage == "test":
        work.score_test()
        print_confirmed(work, CONFIRM, "test")
    else:
        print_screen(work, SCREEN)
        print_confirmed(work, CONFIRM, "validation")


if __name__ == "__main__":
    main()
