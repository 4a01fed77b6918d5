"""The features of galaxies before the head of a run's model, as a Parquet file.

Features are the 1,024 values that the output layer reads (layer fc2). The maps of the backbone would depend on its size, have
up to 18,432 values for VGG16, and know less about galaxies: the hidden layers alone have learnt from votes.
"""

from dataclasses import dataclass
from pathlib import Path

from tfrecords.dataset import Dataset
from tfrecords.errors import require_setting
from tfrecords.files import local_path, sha256_file
from tfrecords.fits.bands import given_bands
from tfrecords.fits.look import Look, Stretch
from trainer.backends.startup import explained
from trainer.featurefile import DTYPES, feature_file, refuse_other_features
from trainer.features import FeatureModel, galaxies_of
from trainer.images.cutouts import UnreadableImage
from trainer.run import Run
from trainer.tables import write_rejected

_STRETCH = Stretch()


@dataclass(frozen=True)
class Embedding:
    """What a file of features holds: `galaxies` rows of `dimension` values of type `dtype`, the output of layer `layer`.

    rejected: images that could not be read, or show no galaxy.
    """

    path: Path
    galaxies: int
    dimension: int
    dtype: str
    layer: str
    rejected: tuple[UnreadableImage, ...]


@explained
def embed_galaxies(
    run: Run,
    source: Dataset | str | Path,
    out: str | Path,
    split: str | None = None,
    dtype: str = "float32",
    stretch: Stretch = _STRETCH,
    bands: str = "",
) -> Embedding:
    """Write the features of galaxies before the head of a run's model to a Parquet file.

    The columns are `galaxy_id`, `name` (null if galaxies are numbers), `split` (null for images) and `features`, lists of a
    fixed length. Records are in the order in which they are stored, images in that of their ids. Galaxies are streamed, so
    memory does not grow with their number. Images that cannot be used are listed in a table beside the file, as for a table of
    predictions.

    Parameters
    ----------
    run : Run
        A run, from `open_run` or `train_model`.
    source : Dataset, str or Path
        A dataset, from `tfrecords.open_dataset`, or a file, folder or zip of images as in `predict_images`.
    out : str or Path
        File to write, FILE.parquet. It appears when it is complete, in place of an earlier file of features.
    split : str, optional
        train, validation, test or unlabelled; by default all splits of the dataset.
    dtype : str
        float32, or float16 for half the size.
    stretch : Stretch
        Brightness scale of FITS images, as in `predict_images`.
    bands : str
        Bands of the planes of FITS images, as in `predict_images`.

    Returns
    -------
    Embedding
        The number of galaxies, the dimension, and the images that were left out.

    Raises
    ------
    ConfigError
        If the dataset has another tree, crop or size than the run, or `out` is something else than a file of features.
    SettingError
        If `dtype` is neither, `out` does not end in .parquet, or `bands` are none.
    DatasetError
        If the split is absent, or a shard is damaged.
    SourceError
        If there are no images, or none of them can be read.
    RunError
        If the run has no model, it is damaged, or its features are not finite.

    Examples
    --------
    >>> from tfrecords import open_dataset
    >>> from trainer import embed_galaxies, open_run
    >>> embedding = embed_galaxies(open_run("runs/demo"), open_dataset("data/demo"), "features.parquet", "test")
    >>> embedding.galaxies, embedding.dimension
    (5, 1024)
    """
    path = local_path(out)
    require_setting(dtype in DTYPES, "dtype", dtype, f"one of {', '.join(DTYPES)}")
    refuse_other_features(path)
    with galaxies_of(run, source, split, Look(given_bands(bands), stretch)) as galaxies:
        model = FeatureModel(run)
        trained = {name: run.config["dataset"][name] for name in ("crop_fraction", "size")}
        ours = {"run": run.metadata()["run"]["folder"], "model": sha256_file(run.model_path), "layer": model.layer}
        number = 0
        with feature_file(path, model.dimension, dtype, {**ours, **trained, **galaxies.origin}) as add:
            for block in galaxies.blocks(model):
                add(block)
                number += len(block.features)
        write_rejected(galaxies.rejected, path)
    return Embedding(path, number, model.dimension, dtype, model.layer, tuple(galaxies.rejected))
