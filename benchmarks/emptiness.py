"""How near galaxies come to the limits of `tfrecords.emptiness` and of a sky that was left in, and what the check costs.

    .venv/bin/preprocess demo --out demo
    .venv/bin/python -m benchmarks.emptiness --src ../shared/kaggle demo

Of the central half of every image: the brightest parts (99.5 %), the contrast (99.5 % less 0.5 %), the share of white
pixels; of the whole image, the median of its border over its brightest parts, as flux: the square of the levels. The cost is
the time of `images.store` with the check over that without, for lossless crops, in alternating rounds.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from preprocess.sources import ImageReader, find_source
from tfrecords import images
from tfrecords.decoding import decode
from tfrecords.emptiness import LEAST_CONTRAST, LEAST_LIGHT, MOST_WHITE, levels_of, light_of
from tfrecords.fits.colour import border_and_bright

_ROUNDS = 7
_TIMED = 500


def measure(source: Path) -> tuple[np.ndarray, list[bytes]]:
    """Dark and bright level, share of white, and border over brightest parts, of each image, float64 (n, 4); and the files."""
    rows, files = [], []
    with tempfile.TemporaryDirectory() as scratch, ImageReader() as reader:
        listing = find_source(source, Path(scratch)).images
        for row in range(len(listing)):
            data = reader.read(listing, row).data
            whole = decode(data)
            top, left, side = images.crop_box(whole.shape[0], whole.shape[1], 0.5)
            dark, bright, white = levels_of(light_of(whole[top : top + side, left : left + side]))
            sky, highest = border_and_bright((whole / 255.0) ** 2)
            rows.append((dark, bright, white, sky / highest))
            files.append(data)
    return np.array(rows), files


def cost(files: list[bytes]) -> float:
    """The time of cropping with the check over that without: the median of paired rounds."""
    settings = images.CropSettings()
    ratios = []
    for _ in range(_ROUNDS):
        seconds = []
        for check in (False, True):
            begin = time.process_time()
            for data in files:
                images.store(data, settings, check)
            seconds.append(time.process_time() - begin)
        ratios.append(seconds[1] / seconds[0])
    return median(ratios)


def main() -> None:
    """Print a table with a row for each source."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--src", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    print(f"limits: bright {LEAST_LIGHT}, contrast {LEAST_CONTRAST}, white {MOST_WHITE}")
    for source in arguments.src:
        measured, files = measure(source)
        dark, bright, white, sky = measured.T
        quantiles = np.percentile(bright, (1, 50, 99)).round(1).tolist()
        print(
            f"{source}: {len(files):,} images; bright {bright.min():.0f} and more, 1, 50 and 99 %: {quantiles}; contrast "
            f"{(bright - dark).min():.0f} and more; white {white.max():.4f} at most; border over brightest parts "
            f"{sky.max():.3f} at most, {np.sort(sky)[-2]:.3f} the next; time with the check "
            f"{cost(files[:_TIMED]):.2f} of that without"
        )


if __name__ == "__main__":
    main()
