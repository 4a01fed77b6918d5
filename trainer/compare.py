"""Compare runs on the same galaxies: a page with their scores side by side and the intervals of the differences."""

import os
from collections.abc import Sequence
from pathlib import Path

from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, RunError, SettingError
from tfrecords.files import local_path
from tfrecords.outputs import Output
from trainer.analysis.page import write_page
from trainer.backends.startup import explained, load_backend
from trainer.evaluate import stored_predictions
from trainer.predict import predict_split
from trainer.run import Run

PAGE = "index.html"
# The other columns of the tables.
_COLUMNS = {"question", "column", "answer", "galaxies", "voted", "setting"}
_BUSY = "another compare is writing here: wait until it ends, or choose another --out"


def _labels(runs: Sequence[Run]) -> list[str]:
    """What to call the runs: the names of their folders, or as much of their paths as sets them and other columns apart."""
    paths = [run.folder.absolute() for run in runs]
    parts = 1
    while True:
        labels = ["/".join(path.parts[-parts:]) for path in paths]
        columns = {label.replace(" ", "_") for label in labels}  # as in the header of a CSV file
        unique = len(columns) == len(labels) and not columns & _COLUMNS
        if unique or parts > max(len(path.parts) for path in paths):
            return [os.fsencode(label).decode("utf-8", "backslashreplace") for label in labels]
        parts += 1


@explained
def compare_runs(runs: Sequence[Run], dataset: Dataset, out: str | Path, split: str = "test") -> Path:
    """Write a page that compares runs on the same galaxies.

    Every score stands beside those of the other runs, with the difference from the first run and its 95 % interval. Resamples
    of the galaxies are the same for all runs, so galaxies that are hard for all do not widen the interval. The page also
    shows the learning curves, the settings that differ, and the galaxies on which the predictions differ most.

    Parameters
    ----------
    runs : sequence of Run
        Two or more runs, from `open_run` or `train_model`; the others are compared with the first. Predictions that a run
        folder holds are used; others are made, and not kept.
    dataset : Dataset
        A dataset with the tree, crop and size of all runs, from `tfrecords.open_dataset`.
    out : str or Path
        Folder for `index.html`, `figures/` and `data/`.
    split : str
        train, validation or test.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    SettingError
        If there are fewer than two runs, or one is given twice.
    ConfigError
        If the dataset has another tree, crop or size than a run, `out` holds something else, or another compare is writing
        there.
    DatasetError
        If the split is absent, or a shard is damaged.
    RunError
        If the galaxies have no votes, or a run has no model, or it is damaged.

    Examples
    --------
    >>> from tfrecords import open_dataset
    >>> from trainer import compare_runs, open_run
    >>> runs = [open_run("runs/demo"), open_run("runs/other")]
    >>> print(compare_runs(runs, open_dataset("data/demo"), "compared").as_posix())
    compared/index.html
    """
    from trainer.analysis.comparison import Comparison, Measurement
    from trainer.analysis.side_by_side import comparison_page

    if len(runs) < 2:
        raise SettingError("give at least two runs to compare, each with --run")
    places = [run.folder.resolve() for run in runs]
    for place, run in zip(places, runs, strict=True):
        if places.count(place) > 1:
            raise SettingError(f"--run {run.folder}: given twice: a run can only be compared with others")
        run.check_dataset(dataset)
    dataset.paths(split)  # raises before anything slow starts
    if split == "unlabelled":
        raise RunError(f"{dataset.folder}: galaxies of split '{split}' have no votes to compare with")
    out = local_path(out)
    for kind, folder in (*(("a run", place) for place in places), ("the dataset", dataset.folder.resolve())):
        if folder in (out.resolve(), *out.resolve().parents):
            raise ConfigError(f"{out}: is in the folder of {kind}: choose a folder of its own for the page")
    output = Output(out, "comparison")
    output.refuse_others()
    output.refuse_others([PAGE, *output.files])
    load_backend()
    with output.locked(_BUSY):
        several = [
            Measurement(label, run, stored_predictions(run, dataset, split) or predict_split(run, dataset, split))
            for label, run in zip(_labels(runs), runs, strict=True)
        ]
        write_page(comparison_page(Comparison(dataset, split, several)), output, PAGE)
    return out / PAGE
