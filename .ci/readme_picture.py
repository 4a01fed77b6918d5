"""Draw the README's picture: synthetic galaxies before and after the crop. Usage: python .ci/readme_picture.py DEMO_FOLDER"""

import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tfrecords.images import crop, crop_box, decode

# One clear galaxy each: the highest of these columns in the table of votes.
COLUMNS = ("Class1.1", "Class2.1", "Class4.1", "Class3.1", "Class8.6")
source = Path(sys.argv[1])
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
panels[0, 0].set_ylabel("424 x 424, as it comes")
panels[1, 0].set_ylabel("212 x 212, as stored")
figure.savefig(Path(__file__).parent.parent / "preprocess" / "crop.jpg", dpi=90, pil_kwargs={"quality": 88})
