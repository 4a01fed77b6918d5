"""Predict galaxies of any number into a table: in parts on disk, from which the same command resumes, joined at the end.

The processes of a job array each predict a share of the parts. Afterwards the command for the whole table joins them.
"""

import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfrecords.dataset import Dataset
from tfrecords.errors import SourceError
from tfrecords.files import local_path, sha256_file
from tfrecords.fits.bands import given_bands
from tfrecords.fits.look import Look, Stretch
from tfrecords.progress import progress_bar
from tfrecords.shares import JobShare
from trainer.backends.base import Devices
from trainer.backends.choose import choose
from trainer.backends.startup import explained
from trainer.blocks import BlockSource, Ensemble, ImageBlocks, PredictedRows, SplitBlocks, several_runs
from trainer.inference import Noticed, image_files
from trainer.parts import PartsFolder, TableParts, locked_parts
from trainer.run import Run
from trainer.tablefolder import KIND, is_folder_of_tables, write_folder
from trainer.tables import ExtraColumns, Predictions, write_blocks, write_rejected

log = logging.getLogger("trainer")
# Galaxies in a part, 2 MB: some minutes of work on a CPU, seconds on a GPU.
PART = 8192
_FORMAT = 1
_STRETCH = Stretch()

# Columns after the fractions: from some predictions and, for images, how each is unlike the training galaxies, str (n,).
Columns = Callable[[Predictions, np.ndarray | None], ExtraColumns]


def no_columns(predictions: Predictions, outside: np.ndarray | None) -> ExtraColumns:
    """No columns after the fractions."""
    return ExtraColumns()


@dataclass(frozen=True)
class PredictedFile:
    """A table of predictions, or a share of it: how many galaxies it lists, and what was noticed about images.

    stretch: that of FITS images; None without any.
    """

    galaxies: int
    noticed: Noticed
    stretch: float | None = None


@explained
def tabulate_split(
    runs: Run | Sequence[Run],
    dataset: Dataset,
    split: str,
    out: str | Path,
    columns: Columns = no_columns,
    limit: int = 0,
    tta: int = 1,
    flag: str = "--out",
    share: JobShare | None = None,
) -> PredictedFile:
    """Write the table of `write_csv` for the predictions of `predict_split`, in constant memory.

    Predictions are kept in parts in the folder `OUT.parts` until the table is written. If this is interrupted, even by a kill,
    the same call resumes. With `share`, the parts of one share are predicted, at the same time as those of others, and the same
    call without `share` writes the table.

    Parameters
    ----------
    runs : Run or sequence of Run
        Of several runs, the mean is predicted.
    dataset : Dataset
        A dataset, from `tfrecords.open_dataset`.
    split : str
        train, validation, test or unlabelled.
    out : str or Path
        CSV file to write; or, if it ends in .parquet, folder of Parquet files with the same rows and columns.
    columns : callable
        From `Predictions` and, for images, their `outside`, to the `ExtraColumns` after the fractions.
    limit : int
        Use only the first `limit` galaxies, as stored; 0 for all.
    tta : int
        Number of views, 1 to 8, as in `predict_split`.
    flag : str
        The flag that names `out` in messages.
    share : tfrecords.shares.JobShare, optional
        The share to predict; by default everything that is missing is predicted, and the table is written.

    Returns
    -------
    PredictedFile
        The number of `galaxies` in the table, or in the share.

    Raises
    ------
    ConfigError
        If the dataset has another tree, crop or size than one of the runs, or another call for `out` is running or unfinished.
    SettingError
        If `tta` is out of range, or there is no run.
    DatasetError
        If the split is absent, or a shard is damaged.
    RunError
        If a run has no model, or it is damaged.

    Examples
    --------
    >>> from tfrecords import open_dataset
    >>> from trainer import open_run, tabulate_split
    >>> tabulate_split(open_run("runs/demo"), open_dataset("data/demo"), "unlabelled", "unlabelled.csv").galaxies
    6
    """
    out = local_path(out)
    several = several_runs(runs, tta)
    source = SplitBlocks(several, dataset, split, limit)
    with locked_parts(out, flag, share) as folder:
        return _tabulate(source, several, tta, _Target(out, folder, columns, share))


@explained
def tabulate_images(
    runs: Run | Sequence[Run],
    path: str | Path,
    out: str | Path,
    columns: Columns = no_columns,
    tta: int = 1,
    stretch: Stretch = _STRETCH,
    bands: str = "",
    share: JobShare | None = None,
) -> PredictedFile:
    """Write the table of `write_csv` for the predictions of `predict_images`, and the list of images that cannot be used.

    It resumes as `tabulate_split` does, and has the same shares. In memory is the listing of the images, some 50 bytes each;
    calls for shares make it once.

    Parameters
    ----------
    runs : Run or sequence of Run
        Of several runs, the mean is predicted.
    path : str or Path
        File, folder or zip of images, as in `predict_images`.
    out : str or Path
        CSV file to write; or, if it ends in .parquet, folder of Parquet files with the same rows and columns.
    columns : callable
        As in `tabulate_split`.
    tta : int
        Number of views, 1 to 8, as in `predict_split`.
    stretch : Stretch
        Brightness scale of FITS images, as in `predict_images`.
    bands : str
        Bands of the planes of FITS images, as in `predict_images`.
    share : tfrecords.shares.JobShare, optional
        The share to predict, as in `tabulate_split`.

    Returns
    -------
    PredictedFile
        The number of `galaxies` in the table, or in the share, and what was `noticed` about the images.

    Raises
    ------
    SourceError
        If there are no images, or none of them can be read.
    ConfigError
        If FITS images need a package that is not installed, or if another call for `out` is running or unfinished.
    SettingError
        If `tta` is out of range, there is no run, or `bands` are none.
    RunError
        If a run has no model, or it is damaged.

    Examples
    --------
    >>> from trainer import open_run, tabulate_images
    >>> file = tabulate_images(open_run("runs/demo"), "demo/images_test_rev1", "images.csv")
    >>> file.galaxies, file.noticed.rejected
    (6, 0)
    """
    out = local_path(out)
    several, asked = several_runs(runs, tta), Look(given_bands(bands), stretch)
    with locked_parts(out, "--out", share) as folder:
        listing = folder.path if folder.shared else None
        with image_files(several, local_path(path), asked, listing) as files:
            return _tabulate(ImageBlocks(files), several, tta, _Target(out, folder, columns, share))


class _Target(NamedTuple):
    """The table at `out`, and the work folder of its parts. share: the one to predict; None for all parts and the table."""

    out: Path
    folder: PartsFolder
    columns: Columns
    share: JobShare | None


def _job(runs: Sequence[Run], source: BlockSource, ensemble: Ensemble, tta: int) -> dict[str, Any]:
    """What decides the predictions, to the last bit, and how they are cut into parts."""
    return {
        "kind": KIND,
        "format": _FORMAT,
        "run": [sha256_file(run.model_path) for run in runs],
        "tta": tta,
        "backend": ensemble.devices.backend,
        "batch": source.rows(ensemble.devices),
        "part": PART,
        **source.identity(),
    }


def _tabulate(source: BlockSource, runs: Sequence[Run], tta: int, target: _Target) -> PredictedFile:
    ensemble = Ensemble(runs, tta, choose("float32", require_gpu=False))
    parts = TableParts(target.folder, ensemble.width, _job(runs, source, ensemble, tta))
    spans = dict(enumerate(_spans(source, ensemble.devices)))
    if target.share is not None:
        spans = {number: spans[number] for number in target.share.span(len(spans))}
    _predict_parts(source, ensemble, parts, spans)
    noticed = parts.noticed(spans)
    galaxies = sum(map(len, spans.values())) - noticed.rejected
    if target.share is None:
        _join(source, ensemble, parts, noticed, spans, target)
    return PredictedFile(galaxies, noticed, source.stretch(noticed))


def _join(
    source: BlockSource, ensemble: Ensemble, parts: TableParts, noticed: Noticed, numbers: Collection[int], target: _Target
) -> None:
    """Write the table from all its parts, which are then no longer needed."""
    try:
        source.conclude(noticed)
    except SourceError:
        parts.forget()
        raise
    write_rejected(parts.rejected(numbers), target.out)
    blocks = _for_table(parts.joined_rows(numbers, source.ordered), ensemble, target.columns)
    if is_folder_of_tables(target.out):
        write_folder(ensemble.tree, blocks, target.out, parts.folder, parts.job)
    else:
        write_blocks(ensemble.tree, blocks, target.out, parts.folder)
    parts.forget()


def _for_table(
    blocks: Iterator[PredictedRows], ensemble: Ensemble, columns: Columns
) -> Iterator[tuple[Predictions, ExtraColumns]]:
    for ids, outputs, names, outside in blocks:
        predicted, concentrations = ensemble.apart(outputs)
        without = np.full_like(predicted, np.nan)
        predictions = Predictions(ids, predicted, without, None, concentrations, ensemble.tree, names)
        yield predictions, columns(predictions, outside)


def _spans(source: BlockSource, devices: Devices) -> list[range]:
    """The galaxies of each part, by their numbers in the source."""
    rows = source.rows(devices)
    size = max(PART // rows, 1) * rows
    return [range(start, min(start + size, len(source))) for start in range(0, len(source), size)]


def _predict_parts(source: BlockSource, ensemble: Ensemble, parts: TableParts, spans: Mapping[int, range]) -> None:
    """Predict those of some parts that are missing. spans: the galaxies of each."""
    missing = [number for number, span in spans.items() if not parts.finished(number, len(span))]
    total = sum(map(len, spans.values()))
    done = total - sum(len(spans[number]) for number in missing)
    if done:
        log.info("%s: resumes with %s of %s %s done", parts.folder, f"{done:,}", f"{total:,}", source.unit)
    with progress_bar(total, source.doing, source.unit, initial=done) as bar:
        # Consecutive numbers have the same distance from their places in the list.
        for _, group in itertools.groupby(enumerate(missing), lambda pair: pair[1] - pair[0]):
            numbers = [number for _, number in group]
            blocks = source.blocks(ensemble, spans[numbers[0]].start, spans[numbers[-1]].stop)
            for number in numbers:
                several, left = [], len(spans[number])
                while left:
                    several.append(next(blocks))
                    left -= len(several[-1])
                    bar.update(len(several[-1]))
                parts.write(number, several)
