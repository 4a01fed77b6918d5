"""A survey of as many galaxies as a measurement needs, made of those at hand."""

import csv
import random
import shutil
import sys
from pathlib import Path

TABLE, IMAGES = "training_solutions_rev1.csv", "images_training_rev1"
SEED = 0


def lay_out(src: Path, folder: Path, count: int) -> int:
    """Lay out `count` galaxies of `src` in `folder` as Kaggle does, under new ids where there are too few.

    Reads each once, so that all come from the page cache; returns the number of different images.
    """
    if not (src / TABLE).is_file() or not (src / IMAGES).is_dir():
        sys.exit(f"error: {src}: no {TABLE} or no {IMAGES}/ in it: give --src the folder of Kaggle's download")
    with (src / TABLE).open(newline="") as file:
        header, *votes = csv.reader(file)
    rows = [row for row in votes if (src / IMAGES / f"{row[0]}.jpg").is_file()]
    if not rows:
        sys.exit(f"error: {src}: no galaxy of {TABLE} has an image in {IMAGES}/: check that both are of the same survey")
    random.Random(SEED).shuffle(rows)
    rows, next_id = rows[:count], max(int(row[0]) for row in rows) + 1
    (folder / IMAGES).mkdir(parents=True)
    with (folder / TABLE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for index in range(count):
            original, *fractions = rows[index % len(rows)]
            galaxy_id = original if index < len(rows) else str(next_id + index)
            shutil.copyfile(src / IMAGES / f"{original}.jpg", folder / IMAGES / f"{galaxy_id}.jpg")
            writer.writerow([galaxy_id, *fractions])
    for path in (folder / IMAGES).iterdir():
        path.read_bytes()
    return len(rows)
