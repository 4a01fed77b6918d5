"""The table that ends a training: predictions for split `unlabelled`, for Kaggle's tree a submission."""

from pathlib import Path

from tfrecords.commandline import say
from tfrecords.errors import ConfigError, DatasetError, SettingError
from tfrecords.storage import open_anywhere
from trainer.config import TrainConfig
from trainer.run import Run
from trainer.streaming import tabulate_split
from trainer.tablefolder import refuse_other_predictions

_SPLIT = "unlabelled"


def check_submission(config: TrainConfig, path: Path) -> None:
    """Raise an error now, not after the training, if this table cannot be written then.

    DatasetError: the dataset has no galaxies without votes. ConfigError: `path` is something else. SettingError: several
    machines train, each of which would write it.
    """
    if config.hosts:
        raise SettingError(f"--submission {path}: not with --hosts: run trainer predict after the training")
    dataset = open_anywhere(config.tfrecords, config.cache_dir)
    if not dataset.galaxies(_SPLIT):
        raise DatasetError(
            f"{dataset.folder}: has no galaxies without votes (split {_SPLIT}) for --submission: omit the flag, or preprocess "
            "images without votes too"
        )
    if config.out.resolve() in path.resolve().parents:
        raise ConfigError(f"{path}: is in the run folder: choose another --submission")
    refuse_other_predictions(path, dataset.tree, "--submission")


def write_submission(run: Run, config: TrainConfig, path: Path) -> None:
    """Predict the galaxies without votes of a run's dataset, and write the table."""
    refuse_other_predictions(path, run.tree, "--submission")  # hours may have passed
    table = tabulate_split(run, open_anywhere(config.tfrecords, config.cache_dir), _SPLIT, path, flag="--submission")
    say(f"{path}: predictions for {table.galaxies:,} galaxies of split '{_SPLIT}'")
