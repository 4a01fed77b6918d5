"""Real inputs to damage: galaxies of ../shared/kaggle where they are at hand, else drawn ones."""

import io
import zipfile
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from preprocess.job import build_dataset
from preprocess.settings import BuildSettings, CropSettings, PlanSettings
from tests.conftest import galaxy_image, random_votes, write_votes
from tests.tfrecords.fits.files import cube, galaxy
from tfrecords import framing
from tfrecords.dataset import open_dataset
from trainer.origin import dataset_summary
from trainer.sealing import seal

_GALAXIES = 12


class Originals:
    """Inputs of every kind, made when they are first used, in a folder of their own."""

    def __init__(self, scratch: Path, kaggle: Path) -> None:
        self._scratch = scratch
        self._kaggle = kaggle

    @cached_property
    def jpegs(self) -> list[bytes]:
        """JPEGs of galaxies: as they are, in grey, progressive, and of other sizes."""
        real = sorted(self._kaggle.glob("images_training_rev1/*.jpg"))[:4]
        images = [Image.open(path).convert("RGB") for path in real]
        images += [galaxy_image(np.random.default_rng(seed), 64 + 7 * seed) for seed in range(2)]
        kinds = ({}, {"progressive": True}, {"subsampling": 0}, {"quality": 20})
        saved = [_saved(image, "JPEG", **kind) for image, kind in zip(images, kinds * 2, strict=False)]  # type: ignore[arg-type]
        saved.append(_saved(images[-1].convert("L"), "JPEG"))
        saved.append(_saved(images[-1].convert("CMYK"), "JPEG"))
        return [path.read_bytes() for path in real] + saved

    def pictures(self, kind: str) -> list[bytes]:
        """A galaxy in this format, in each of the modes that it has."""
        image = galaxy_image(np.random.default_rng(0), 48)
        modes = {
            "PNG": ("RGB", "L", "P", "RGBA", "1"),
            "TIFF": ("RGB", "L", "CMYK"),
            "WEBP": ("RGB", "RGBA"),
            "BMP": ("RGB", "L", "P"),
        }
        return [_saved(image.convert(mode), kind) for mode in modes[kind]]

    @cached_property
    def fits(self) -> list[bytes]:
        """Cubes of three bands."""
        return [cube(galaxy(side, seed)) for side, seed in ((24, 0), (48, 1))]

    @cached_property
    def survey(self) -> Path:
        """A folder of galaxies and the table of their votes."""
        folder = self._scratch / "survey"
        (folder / "images_training_rev1").mkdir(parents=True)
        ids = [100_000 + 7 * index for index in range(_GALAXIES)]
        for galaxy_id in ids:
            picture = galaxy_image(np.random.default_rng(galaxy_id), 48)
            picture.save(folder / "images_training_rev1" / f"{galaxy_id}.jpg")
        write_votes(folder / "training_solutions_rev1.csv", ids, random_votes(_GALAXIES, np.random.default_rng(0)))
        return folder

    @cached_property
    def zips(self) -> list[bytes]:
        """Zips of a few galaxies: stored, deflated, and one in another."""
        pictures = sorted(self.survey.rglob("*.jpg"))[:3]
        packed = []
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", method) as file:
                for path in pictures:
                    file.write(path, f"images/{path.name}")
            packed.append(buffer.getvalue())
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("inner.zip", packed[0])
        return [*packed, buffer.getvalue()]

    def tables(self, kind: str) -> list[bytes]:
        """The table of votes as CSV or Parquet."""
        import pandas as pd

        path = self.survey / "training_solutions_rev1.csv"
        if kind == "csv":
            return [path.read_bytes(), path.read_bytes().replace(b",", b";"), path.read_bytes().replace(b"\n", b"\r\n")]
        buffer = io.BytesIO()
        pd.read_csv(path).to_parquet(buffer)
        return [buffer.getvalue()]

    @cached_property
    def dataset(self) -> Path:
        """A dataset of the survey."""
        settings = BuildSettings(CropSettings(size=16), PlanSettings(examples_per_shard=4))
        return build_dataset(self.survey, self._scratch / "data", settings).dataset.folder

    @cached_property
    def shards(self) -> list[bytes]:
        """The shards of the dataset."""
        return [path.read_bytes() for path in sorted(self.dataset.glob("*.tfrecord-*"))]

    @cached_property
    def records(self) -> list[bytes]:
        """Examples, as shards hold them."""
        return [record for path in sorted(self.dataset.glob("*.tfrecord-*")) for record in framing.read_records(path)][:4]

    @cached_property
    def run(self) -> Path:
        """The description of a run on the dataset, without its model."""
        folder, dataset = self._scratch / "run", open_dataset(self.dataset)
        folder.mkdir()
        settings = {"backbone": "vgg16", "head": "tree", "seed": 0}
        config = {"settings": settings, "dataset": dataset_summary(dataset), "tool": {}, "half_light_radius": [1.0, 2.0]}
        (folder / "config.json").write_text(seal(config), "utf-8")
        (folder / "tree.toml").write_text(dataset.tree.text, "utf-8")
        return folder


def _saved(image: Image.Image, kind: str, **options: bool | int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
