"""The effect of each choice in a recipe, measured on real galaxies.

The galaxies of --src are cropped to 64 x 64 and split by `preprocess --validation_fraction 0.25 --test_fraction 0.1 --seed 0`.
Models are trained on a dataset with only those of `train`, so no best epoch is chosen and nothing stops early. Choices are
made on `validation`; `test` is scored once, at the end.

    .venv/bin/python -m benchmarks.accuracy --src ../shared/kaggle --weights ../shared/weights/vgg16_imagenet_notop.weights.h5

All runs together take hours on two cores. Finished runs are stored as JSON in --work and skipped next time.
`--stage screen` changes one setting of the recipe `base` at a time; `--stage confirm` trains the article's recipe, `base`,
`best` and a plain Keras loop for longer; `--stage tables` prints the results so far as Markdown. `--stage test`, never part of
the others, scores the longer runs on `test` after all of them have finished, and records the time.
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
    parser.add_argument("--weights", type=Path, required=True, help="ImageNet weights of VGG16's backbone")
    parser.add_argument(
        "--work", type=Path, default=REPOSITORY / "runs" / "accuracy", help="folder for runs (default: %(default)s)"
    )
    stages = {"screen": SCREEN, "confirm": CONFIRM, "tables": (), "test": (), None: SCREEN + CONFIRM}
    parser.add_argument("--stage", choices=[stage for stage in stages if stage], help="stage to run (default: all but test)")
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
