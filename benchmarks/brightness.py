"""The time of the brightness of images, by sums of colours and their counts, compared with NumPy's mean and percentile.

    .venv/bin/python -m benchmarks.brightness [--images 256] [--rounds 7]

Crops of synthetic galaxies, uint8 (images, 212, 212, 3), 8 at a time as `trainer predict --images` passes them. Both give the
same bits.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from preprocess.demo import draw_galaxy
from preprocess.synthetic import draw_cutout
from tfrecords.brightness import colour_sum, mean_of_colours
from tfrecords.fits.look import BRIGHT
from tfrecords.images import crop
from trainer.images.photometry import brightness

_SIDE, _AT_ONCE, _DRAWN = 212, 8, 32


def _mean(images: np.ndarray) -> np.ndarray:
    return images.mean(axis=3, dtype=np.float32)


def _percentiles(images: np.ndarray) -> np.ndarray:
    return np.percentile(_mean(images).reshape(len(images), -1), (50, BRIGHT), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256, help="number of images in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, in turn (default: %(default)s)")
    args = parser.parse_args()
    generator = np.random.default_rng(0)
    drawn = [crop(np.asarray(draw_cutout(draw_galaxy(generator), generator)), 0.5, _SIDE) for _ in range(_DRAWN)]
    images = np.stack([drawn[place % _DRAWN] for place in range(args.images)])
    pairs: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
        "mean of R, G and B": (_mean, lambda some: mean_of_colours(colour_sum(some))),
        "median and 99.5 %": (_percentiles, brightness),
    }
    print("| | NumPy, ms per image | ours | ratio |\n|---|---|---|---|")
    for label, both in pairs.items():
        assert both[0](images[:_AT_ONCE]).tobytes() == both[1](images[:_AT_ONCE]).tobytes()
        taken: tuple[list[float], list[float]] = [], []
        for _ in range(args.rounds):
            for function, times in zip(both, taken, strict=True):
                began = time.perf_counter()
                for start in range(0, len(images), _AT_ONCE):
                    function(images[start : start + _AT_ONCE])
                times.append(1e3 * (time.perf_counter() - began) / len(images))
        old, new = map(statistics.median, taken)
        print(f"| {label} | {old:.3f} | {new:.3f} | {old / new:.1f} |")


if __name__ == "__main__":
    main()
