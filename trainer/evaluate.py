"""Measure a run on a split: predictions, metrics, report, model card.

The run's own record, in its root, is written by training alone. Every other measurement has a folder below `evaluations/`, and
the card lists it. `metrics.json` comes last and names model, dataset and predictions: while they are as it says, the table of
predictions is used as it is, and the report is made again without the model.
"""

import json
import logging
from typing import Any

import numpy as np

from tfrecords.commandline import say
from tfrecords.dataset import Dataset, to_json
from tfrecords.errors import RunError
from tfrecords.files import sha256_file
from tfrecords.integrity import check_shards, read_shards
from tfrecords.taxonomy import COLUMNS, QUESTIONS, column_means
from trainer.advice import CONSTANT_SPREAD, what_to_change
from trainer.analysis import metrics
from trainer.analysis.card import write_card
from trainer.backends.startup import explained, load_backend
from trainer.history import best_epoch
from trainer.predict import predict_split
from trainer.run import CARD, EVALUATIONS, OWN, Record, Run
from trainer.tables import Predictions, read_csv, write_csv

log = logging.getLogger("trainer")


def _content(
    run: Run, dataset: Dataset, record: Record, predictions: Predictions, scores: metrics.Scores, baselines: dict[str, float]
) -> dict[str, Any]:
    history = run.history()
    best = best_epoch(history) if history else None

    def measured(mse: float, interval: np.ndarray) -> dict[str, Any]:
        return {"mse": float(mse), "rmse": float(np.sqrt(mse)), "interval": [float(end) for end in interval]}

    return {
        "split": record.split,
        "galaxies": len(predictions.galaxy_ids),
        "mse": scores.mse,
        "rmse": scores.rmse,
        "interval": list(scores.interval),
        "per_class": {
            name: {
                **measured(scores.per_class[column], scores.class_intervals[column]),
                "skill": None if np.isnan(scores.skill[column]) else float(scores.skill[column]),
            }
            for column, name in enumerate(COLUMNS)
        },
        "per_question": {
            str(question.number): {"title": question.title, **measured(mse, interval)}
            for question, mse, interval in zip(QUESTIONS, scores.per_question, scores.question_intervals, strict=True)
        },
        "baselines": baselines,
        "spread": float(predictions.predicted.std(axis=0, dtype=np.float64).mean()),
        "best_validation": None
        if best is None or np.isnan(best.val_mse)
        else {"mse": best.val_mse, "rmse": float(np.sqrt(best.val_mse)), "epoch": best.epoch},
        "dataset": dataset.fingerprint,
        "model": sha256_file(run.model_path),
        "predictions": sha256_file(run.path(record.predictions)),
    }


def _is_of(run: Run, dataset: Dataset, record: Record, galaxies: int) -> bool:
    """Whether metrics.json and the table of predictions are of this model, this dataset, and so many galaxies."""
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
    """The metrics of a record as they were written; None where there are none, or they were changed since."""
    if not run.output.is_intact(record.metrics):
        return None
    try:
        content: dict[str, Any] = json.loads(run.path(record.metrics).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content


def other_evaluations(run: Run) -> list[tuple[Record, dict[str, Any]]]:
    """What was measured beside the run's own record, and the metrics of it, by name."""
    evaluations = []
    for name in sorted(run.output.files):
        folder, slash, rest = name.rpartition("/")
        if folder.startswith(f"{EVALUATIONS}/") and rest == "metrics.json":
            content = _measured(run, Record("", folder + slash))
            if content is not None:
                evaluations.append((Record(content["split"], folder + slash), content))
    return evaluations


def _measure(run: Run, dataset: Dataset, record: Record, limit: int) -> dict[str, Any]:
    """Write predictions, report and metrics of a record; returns the metrics.

    Predictions that are there already, of this model and dataset, are not made again. The baseline of column means is that
    of the dataset's own `train`, where it has one.
    """
    from tfrecords.reader import votes_of

    split, output = record.split, run.output
    ours = (name for name in output.files if name.startswith(f"{record.folder}report/"))
    output.refuse_others([record.metrics, record.predictions, record.report, *ours])
    shards = [shard for name in dict.fromkeys((split, "train")) for shard in read_shards(dataset, name, limit)]
    check_shards(dataset, shards, run.checked_shards())
    if not _is_of(run, dataset, record, dataset.galaxies(split, limit)):
        if split == "unlabelled":
            raise RunError(f"{dataset.folder}: galaxies of split '{split}' have no votes to compare with: use trainer predict")
        fresh = predict_split(run, dataset, split, limit)
        if record.metrics in output.files:  # what follows belongs to other predictions
            output.remove([record.metrics])
        output.claim(record.predictions)
        output.make_folders(record.predictions)
        write_csv(fresh, run.path(record.predictions), dataset.names(), beside=output.private)
        output.settle(record.predictions)
    galaxy_ids, targets = votes_of(dataset, split, limit)
    predictions = read_csv(run.path(record.predictions), galaxy_ids, targets)
    from trainer.analysis.report import Evaluation, write_report

    means = None
    if dataset.galaxies("train"):
        means = column_means(votes_of(dataset, "train", limit)[1])
    scores = metrics.score(predictions.predicted, predictions.targets)
    content = _content(run, dataset, record, predictions, scores, metrics.baselines(predictions.targets, means))
    write_report(Evaluation(run, dataset, split, predictions, scores, means, content), record)
    run.output.write({record.metrics: to_json(content).encode("utf-8")})
    return content


@explained
def record_run(run: Run, dataset: Dataset, limit: int = 0) -> None:
    """The run's own record, which training ends with: its measurement on `test` of its dataset, and the model card.

    Without `test` the card and the history's plot are all there is. The run must be `locked`.
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
    """Measure a run on a labelled split of any dataset of its crop and size; returns where it is kept, and the metrics.

    Written are predictions-SPLIT.csv, report/index.html and metrics.json in a folder below `evaluations/` of the run; its own
    record stays as training wrote it. The model card then lists the new measurement too. Raises ConfigError for a dataset of
    another crop or size and while another command writes in the run, RunError for a split without votes.
    """
    run.check_dataset(dataset)
    dataset.paths(split)  # complains before anything slow begins
    with run.locked():
        load_backend()
        record = run.evaluation(dataset, split)
        content = _measure(run, dataset, record, limit)
        if CARD in run.output.files:
            if run.output.is_intact(CARD) or not run.path(CARD).exists():
                write_card(run, _measured(run, OWN), other_evaluations(run))
            else:
                log.warning("%s: was changed since it was written, so this evaluation is not added", run.path(CARD))
    return record, content


def is_current(run: Run, dataset: Dataset, limit: int = 0) -> bool:
    """Whether the run's own record is that of its present model on this dataset, and all of it is there."""
    there = run.path(OWN.report).is_file() and run.path(CARD).is_file()
    return there and _is_of(run, dataset, OWN, dataset.galaxies(OWN.split, limit))


def summary(run: Run, record: Record) -> str:
    """The metrics of a record beside the baselines, for a terminal. Raises RunError where they were changed since."""
    path = run.path(record.metrics)
    content = _measured(run, record)
    if content is None:
        raise RunError(f"{path}: was changed since it was written: move it elsewhere and run the same command again")
    low, high = content["interval"]
    rows = [
        f"RMSE on {record.split} ({content['galaxies']:,} galaxies)",
        f"  this model             {content['rmse']:.4f}   95 % interval {low:.4f} to {high:.4f}",
    ]
    for name, label in (("train_mean", "column means of train"), ("zeros", "all zeros")):
        if name in content["baselines"]:
            value = content["baselines"][name]
            rows.append(f"  {label:<22} {value:.4f}   the model has {content['rmse'] / value:.3f} of it")
    rows.append(f"  spread of predictions  {content['spread']:.4f}   standard deviation per column, on average")
    if content["spread"] < CONSTANT_SPREAD:
        rows.append(f"  the predictions hardly vary: train longer, or try {what_to_change(run.settings)}")
    rows.append(f"metrics: {path}")
    rows.append(f"report:  {run.path(record.report)}")
    return "\n".join(rows)
