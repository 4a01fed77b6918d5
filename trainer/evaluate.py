"""Evaluate a run on a split: predictions, metrics, report, model card.

Only training writes the run's own record, at the top of the run folder. Every other evaluation has a folder in `evaluations/`,
and the card lists it. `metrics.json` is written last and identifies model, dataset and predictions. While these are unchanged,
the table of predictions is reused, and the report is made again without the model.

More than IN_MEMORY galaxies are streamed: their table is written from parts on disk, from which a killed evaluation resumes,
and read back in blocks that are added up. Charts that need single galaxies, and galleries, then show a sample.
"""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.commandline import say
from tfrecords.dataset import Dataset, to_json
from tfrecords.errors import RunError
from tfrecords.files import exact_text, sha256_file
from tfrecords.integrity import check_shards, read_shards
from tfrecords.progress import progress_bar
from trainer.advice import CONSTANT_SPREAD, what_to_change
from trainer.analysis import metrics
from trainer.analysis.card import write_card
from trainer.analysis.totals import GROUPS, Sample, Tally, Totals, totals_in_memory
from trainer.backends.startup import explained, load_backend
from trainer.history import best_epoch
from trainer.pairing import paired_blocks
from trainer.parts import SUFFIX
from trainer.predict import predict_split
from trainer.run import CARD, EVALUATIONS, OWN, Record, Run
from trainer.sealing import unseal
from trainer.streaming import tabulate_split
from trainer.tables import ExtraColumns, Predictions, concentration_columns, read_csv, write_csv

log = logging.getLogger("trainer")
# More galaxies than this are streamed. In memory, so many take half a gigabyte (`benchmarks.evaluations`) and some seconds of
# bootstrap; all of Kaggle's are fewer.
IN_MEMORY = 100_000


def _content(
    run: Run, dataset: Dataset, record: Record, predictions: Predictions, scores: metrics.Scores, totals: Totals
) -> dict[str, Any]:
    history = run.history()
    best = best_epoch(history) if history else None

    def measured(mse: float, interval: np.ndarray) -> dict[str, Any]:
        if np.isnan(mse):  # nobody was asked
            return {"mse": None, "rmse": None, "interval": None}
        return {"mse": float(mse), "rmse": float(np.sqrt(mse)), "interval": [float(end) for end in interval]}

    added_up = {}
    if len(predictions.galaxy_ids) < totals.galaxies:
        added_up = {
            "bootstrap": {"resamples": metrics.RESAMPLES, "random_groups": GROUPS},
            "sample": len(predictions.galaxy_ids),
        }
    return {
        "split": record.split,
        "galaxies": totals.galaxies,
        "mse": scores.mse,
        "rmse": scores.rmse,
        "interval": list(scores.interval),
        **added_up,
        "per_class": {
            name: {
                **measured(scores.per_class[column], scores.class_intervals[column]),
                "skill": None if np.isnan(scores.skill[column]) else float(scores.skill[column]),
            }
            for column, name in enumerate(dataset.tree.columns)
        },
        "per_question": {
            question.key: {"title": question.title, **measured(mse, interval)}
            for question, mse, interval in zip(
                dataset.tree.questions, scores.per_question, scores.question_intervals, strict=True
            )
        },
        "baselines": totals.baselines,
        "spread": totals.spread,
        "best_validation": None
        if best is None or np.isnan(best.val_mse)
        else {"mse": best.val_mse, "rmse": float(np.sqrt(best.val_mse)), "epoch": best.epoch},
        "dataset": dataset.fingerprint,
        "model": sha256_file(run.model_path),
        "predictions": sha256_file(run.path(record.predictions)),
    }


def _is_of(run: Run, dataset: Dataset, record: Record, galaxies: int) -> bool:
    """Whether metrics.json and the table of predictions belong to this model, dataset and number of galaxies."""
    content = _measured(run, record)
    try:
        return bool(
            content
            and content["galaxies"] == galaxies
            and content["dataset"] == dataset.fingerprint
            and content["model"] == sha256_file(run.model_path)
            and content["predictions"] == sha256_file(run.path(record.predictions))
        )
    except (OSError, KeyError):
        return False


def _measured(run: Run, record: Record) -> dict[str, Any] | None:
    """The metrics of a record; None if there are none, or if they have changed since they were written."""
    if not run.output.is_intact(record.metrics):
        return None
    try:
        content: dict[str, Any] = json.loads(run.path(record.metrics).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content


def stored_predictions(run: Run, dataset: Dataset, split: str) -> Predictions | None:
    """The predictions for a split that the run folder holds, of its current model and this dataset; None if there are none."""
    from tfrecords.reader import votes_of

    records = [run.evaluation(dataset, split), *([OWN] if split == OWN.split else [])]
    for record in records:
        if _is_of(run, dataset, record, dataset.galaxies(split)):
            return read_csv(run.path(record.predictions), dataset.tree, votes_of(dataset, split))
    return None


def other_evaluations(run: Run) -> list[tuple[Record, dict[str, Any]]]:
    """The records of all evaluations but the run's own, with their metrics, sorted by name."""
    evaluations = []
    for name in sorted(run.output.files):
        folder, slash, rest = name.rpartition("/")
        if folder.startswith(f"{EVALUATIONS}/") and rest == "metrics.json":
            content = _measured(run, Record("", folder + slash))
            if content is not None:
                evaluations.append((Record(content["split"], folder + slash), content))
    return evaluations


def _sure(predictions: Predictions) -> ExtraColumns:
    """The columns after the fractions: the concentrations, if the head predicts them."""
    if predictions.concentrations is None:
        return ExtraColumns()
    return concentration_columns(predictions.concentrations, predictions.tree)


def _forget_others(table: Path, run: Run, dataset: Dataset) -> None:
    """Drop the unfinished predictions of an earlier evaluation if they are of another model or dataset."""
    path = table.with_name(f"{table.name}{SUFFIX}") / "job.json"
    try:
        job = unseal(exact_text(path))
        ours = (job["run"], job["dataset"]) == ([sha256_file(run.model_path)], dataset.fingerprint)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # there are none, or `tabulate_split` refuses them
    if not ours:
        path.unlink()


def _in_memory(
    run: Run, dataset: Dataset, record: Record, limit: int, means: np.ndarray | None
) -> tuple[Predictions, metrics.Scores, Totals]:
    """The predictions, scores and totals of a record; means: the column means of train."""
    from tfrecords.reader import votes_of

    predictions = read_csv(run.path(record.predictions), dataset.tree, votes_of(dataset, record.split, limit))
    counted = dataset.tree.counted(predictions.asked)
    scores = metrics.score(predictions.predicted, predictions.targets, dataset.tree, counted)
    return predictions, scores, totals_in_memory(predictions, means)


def _added_up(
    run: Run, dataset: Dataset, record: Record, limit: int, means: np.ndarray | None
) -> tuple[Predictions, metrics.Scores, Totals]:
    """The same of any number of galaxies, with the predictions of a sample of IN_MEMORY galaxies."""
    galaxies = dataset.galaxies(record.split, limit)
    tally, sample = Tally(dataset.tree, means), Sample(galaxies, IN_MEMORY)
    with progress_bar(galaxies, f"measuring {record.split}", "galaxies") as bar:
        for block in paired_blocks(run.path(record.predictions), dataset, record.split, limit):
            tally.add(block)
            sample.add(block)
            bar.update(len(block.galaxy_ids))
    return sample.predictions(), tally.scores(), tally.totals()


def _measure(run: Run, dataset: Dataset, record: Record, limit: int) -> dict[str, Any]:
    """Write predictions, report and metrics of a record; return the metrics.

    Existing predictions of this model and dataset are reused. The baseline of column means is that of the dataset's own
    `train`, if it has one.
    """
    from tfrecords.reader import target_means

    split, output = record.split, run.output
    galaxies = dataset.galaxies(split, limit)
    ours = (name for name in output.files if name.startswith(f"{record.folder}report/"))
    output.refuse_others([record.metrics, record.predictions, record.report, *ours])
    read = [split] if dataset.has_means("train", limit) else dict.fromkeys((split, "train"))
    shards = [shard for name in read for shard in read_shards(dataset, name, limit)]
    check_shards(dataset, shards, run.checked_shards())
    if not _is_of(run, dataset, record, galaxies):
        if split == "unlabelled":
            raise RunError(f"{dataset.folder}: galaxies of split '{split}' have no votes to compare with: use trainer predict")
        fresh = predict_split(run, dataset, split, limit) if galaxies <= IN_MEMORY else None
        if record.metrics in output.files:  # they belong to other predictions
            output.remove([record.metrics])
        output.claim(record.predictions)
        output.make_folders(record.predictions)
        table = run.path(record.predictions)
        if fresh is None:
            _forget_others(table, run, dataset)
            tabulate_split(run, dataset, split, table, lambda several, _: _sure(several), limit, flag="--run")
        else:
            write_csv(fresh, table, _sure(fresh), output.private)
        output.settle(record.predictions)
    from trainer.analysis.report import write_report
    from trainer.analysis.subject import Evaluation

    means = None
    if dataset.galaxies("train"):
        means = target_means(dataset, "train", limit)
    predictions, scores, totals = (_in_memory if galaxies <= IN_MEMORY else _added_up)(run, dataset, record, limit, means)
    content = _content(run, dataset, record, predictions, scores, totals)
    write_report(Evaluation(run, dataset, split, predictions, scores, means, content, totals), record)
    run.output.write({record.metrics: to_json(content).encode("utf-8")})
    return content


@explained
def record_run(run: Run, dataset: Dataset, limit: int = 0) -> None:
    """Write the run's own record, at the end of training: its evaluation on `test` of its dataset, and the model card.

    Without `test` only the card and the chart of the history are written. The run must be `locked`.
    """
    if not dataset.galaxies(OWN.split):
        from trainer.analysis.report import write_history_plot

        write_history_plot(run)
        write_card(run, None, other_evaluations(run))
        say(f"no split '{OWN.split}': no metrics")
        return
    load_backend()  # quietly, before the reader imports TensorFlow
    content = _measure(run, dataset, OWN, limit)
    write_card(run, content, other_evaluations(run))


@explained
def evaluate_run(run: Run, dataset: Dataset, split: str = "test", limit: int = 0) -> tuple[Record, dict[str, Any]]:
    """Evaluate the model of a run on a split with votes, of any dataset with the same tree, crop and size.

    The metrics, the predictions and the report go to a folder below `evaluations/` of the run, and the model card lists them.
    The run's own evaluation, from the end of training, stays unchanged.

    Parameters
    ----------
    run : Run
        A run, from `open_run` or `train_model`.
    dataset : Dataset
        A dataset, from `tfrecords.open_dataset`.
    split : str
        train, validation or test.
    limit : int
        Use only the first `limit` galaxies, as stored; 0 for all.

    Returns
    -------
    record : Record
        Names of the files, relative to the run folder.
    metrics : dict
        The content of metrics.json: `rmse`, its 95 % `interval`, `per_class`, `baselines` and more.

    Raises
    ------
    ConfigError
        If the dataset has another tree, crop or size, or another command is writing in the run folder.
    DatasetError
        If the split is absent, or a shard is damaged.
    RunError
        If the galaxies have no votes, or the run has no model.

    Examples
    --------
    >>> from tfrecords import open_dataset
    >>> from trainer import evaluate_run, open_run
    >>> record, metrics = evaluate_run(open_run("runs/demo"), open_dataset("data/demo"), "validation")
    >>> record.metrics, metrics["galaxies"], 0 < metrics["rmse"] < 1
    ('evaluations/validation/metrics.json', 4, True)
    """
    run.check_dataset(dataset)
    dataset.paths(split)  # raises before anything slow starts
    with run.locked():
        load_backend()
        record = run.evaluation(dataset, split)
        content = _measure(run, dataset, record, limit)
        if CARD in run.output.files:
            if run.output.is_intact(CARD) or not run.path(CARD).exists():
                write_card(run, _measured(run, OWN), other_evaluations(run))
            else:
                log.warning("%s: has changed since it was written, so this evaluation is not added", run.path(CARD))
    return record, content


def is_current(run: Run, dataset: Dataset, limit: int = 0) -> bool:
    """Whether the run's own record is complete, and of its current model on this dataset."""
    there = run.path(OWN.report).is_file() and run.path(CARD).is_file()
    return there and _is_of(run, dataset, OWN, dataset.galaxies(OWN.split, limit))


def summary(run: Run, record: Record) -> str:
    """The metrics of a record beside the baselines, as text. Raises RunError if they have changed since they were written."""
    path = run.path(record.metrics)
    content = _measured(run, record)
    if content is None:
        raise RunError(f"{path}: has changed since it was written: move it elsewhere and run the same command again")
    low, high = content["interval"]
    rows = [
        f"RMSE on {record.split} ({content['galaxies']:,} galaxies)",
        f"  this model             {content['rmse']:.4f}   95 % interval {low:.4f} to {high:.4f}",
    ]
    for name, label in (("train_mean", "column means of train"), ("zeros", "all zeros")):
        if name in content["baselines"]:
            value = content["baselines"][name]
            rows.append(f"  {label:<22} {value:.4f}   the RMSE of this model is {content['rmse'] / value:.3f} times this")
    rows.append(f"  spread of predictions  {content['spread']:.4f}   standard deviation, mean over the columns")
    if content["spread"] < CONSTANT_SPREAD:
        rows.append(f"  the predictions hardly vary: train longer, or try {what_to_change(run.settings)}")
    rows.append(f"metrics: {path}")
    rows.append(f"report:  {run.path(record.report)}")
    return "\n".join(rows)
