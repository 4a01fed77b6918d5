"""Draw the pictures of the documents, from a demo survey and the run that was trained on it.

docs/crop.jpg    galaxies before and after the crop
docs/report.png  the first screen of the run's report, by Debian's Chromium

Usage: python .ci/pictures.py DEMO_FOLDER RUN
"""

import io
import shutil
import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from playwright.sync_api import sync_playwright

from tfrecords.images import crop, crop_box, decode

DOCS = Path(__file__).parents[1] / "docs"
# One clear galaxy for each of these columns: the one with the highest vote fraction.
COLUMNS = ("Class1.1", "Class2.1", "Class4.1", "Class3.1", "Class8.6")
SCREEN = {"width": 1100, "height": 1335}


def draw_crops(source: Path) -> None:
    votes = pd.read_csv(source / "training_solutions_rev1.csv", index_col="GalaxyID")
    ids = [votes[column].idxmax() for column in COLUMNS]
    images = [decode((source / "images_training_rev1" / f"{galaxy_id}.jpg").read_bytes()) for galaxy_id in ids]
    figure = Figure(figsize=(2 * len(images), 4.3), layout="constrained")
    panels = figure.subplots(2, len(images))
    for column, image in enumerate(images):
        row, left, side = crop_box(image.shape[0], image.shape[1], 0.5)
        panels[0, column].imshow(image)
        panels[0, column].add_patch(Rectangle((left, row), side, side, fill=False, color="white", linewidth=0.8))
        panels[1, column].imshow(crop(image, 0.5, side))
        for axes in panels[:, column]:
            axes.set_xticks([])
            axes.set_yticks([])
    panels[0, 0].set_ylabel("424 x 424, original")
    panels[1, 0].set_ylabel("212 x 212, as stored")
    figure.savefig(DOCS / "crop.jpg", dpi=90, pil_kwargs={"quality": 88})


def photograph_report(run: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SCREEN, color_scheme="dark")
        page.goto((run / "report" / "index.html").resolve().as_uri())
        screen = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    screen.convert("RGB").quantize(128).save(DOCS / "report.png", optimize=True)


if __name__ == "__main__":
    draw_crops(Path(sys.argv[1]))
    photograph_report(Path(sys.argv[2]))
