"""A survey with as many galaxies as a measurement needs, made from the available ones."""

import csv
import random
import shutil
import sys
from pathlib import Path

TABLE, IMAGES = "training_solutions_rev1.csv", "images_training_rev1"
SEED = 0


def lay_out(src: Path, folder: Path, count: int) -> int:
    """Copy `count` galaxies of `src` to `folder` in Kaggle's layout; if there are too few, they recur under new ids.

    Reads each once, so that all come from the page cache. Returns the number of different images.
    """
    if not (src / TABLE).is_file() or not (src / IMAGES).is_dir():
        sys.exit(f"error: {src}: contains no {TABLE} or no {IMAGES}/: give --src the folder of Kaggle's download")
    with (src / TABLE).open(newline="") as file:
        header, *votes = csv.reader(file)
    rows = [row for row in votes if (src / IMAGES / f"{row[0]}.jpg").is_file()]
    if not rows:
        sys.exit(f"error: {src}: no galaxy of {TABLE} has an image in {IMAGES}/: check that both come from the same survey")
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
