"""Measure a run on a split: predictions, metrics, report.

`metrics.json` comes last and names model and dataset: a run that was stopped before, or has learnt since, evaluates again.
"""

import json
from typing import Any

import numpy as np

from tfrecords.dataset import Dataset, to_json
from tfrecords.errors import RunError
from tfrecords.files import sha256_file, write_text
from tfrecords.taxonomy import COLUMNS, QUESTIONS
from trainer.analysis import metrics
from trainer.devices import explained
from trainer.predict import Predictions, predict, write_csv
from trainer.run import Run, best_epoch

# Below this mean standard deviation per column the model has learnt nothing but the column means.
CONSTANT_SPREAD = 0.01


def _content(
    run: Run, dataset: Dataset, split: str, predictions: Predictions, scores: metrics.Scores, baselines: dict[str, float]
) -> dict[str, Any]:
    history = run.history()
    best = best_epoch(history) if history else None
    return {
        "split": split,
        "galaxies": len(predictions.galaxy_ids),
        "mse": scores.mse,
        "rmse": scores.rmse,
        "interval": list(scores.interval),
        "per_class": {
            name: {"mse": float(mse), "rmse": float(np.sqrt(mse))} for name, mse in zip(COLUMNS, scores.per_class, strict=True)
        },
        "per_question": {
            str(question.number): {"title": question.title, "mse": float(mse), "rmse": float(np.sqrt(mse))}
            for question, mse in zip(QUESTIONS, scores.per_question, strict=True)
        },
        "baselines": baselines,
        "spread": float(predictions.predicted.std(axis=0).mean()),
        "best_validation": None
        if best is None or np.isnan(best.val_mse)
        else {"mse": best.val_mse, "rmse": float(np.sqrt(best.val_mse)), "epoch": best.epoch},
        "dataset": dataset.fingerprint,
        "model": sha256_file(run.model_path),
    }


@explained
def evaluate(run: Run, dataset: Dataset, split: str = "test", limit: int = 0) -> dict[str, Any]:
    """Predict a labelled split and write predictions-SPLIT.csv, the report and the metrics; returns the metrics.

    The baseline of column means is that of the dataset's own `train`, where it has one.
    """
    predictions = predict(run, dataset, split, limit)
    if np.isnan(predictions.targets).any():
        raise RunError(f"{dataset.folder}: galaxies of split '{split}' have no votes to compare with: use trainer predict")
    from tfrecords.reader import targets_of  # after predict(), which loads TensorFlow quietly
    from trainer.analysis.report import Evaluation, write_report

    means = targets_of(dataset, "train", limit).mean(axis=0) if dataset.galaxies("train") else None
    scores = metrics.score(predictions.predicted, predictions.targets)
    content = _content(run, dataset, split, predictions, scores, metrics.baselines(predictions.targets, means))
    write_csv(predictions, run.predictions_path(split), dataset.names())
    write_report(Evaluation(run, dataset, split, predictions, scores, means, content))
    write_text(run.metrics_path(split), to_json(content))
    return content


def is_current(run: Run, dataset: Dataset, split: str) -> bool:
    """Whether the metrics of a split are those of the run's present model on this dataset."""
    path = run.metrics_path(split)
    if not path.is_file():
        return False
    content = json.loads(path.read_text("utf-8"))
    return bool(content["model"] == sha256_file(run.model_path) and content["dataset"] == dataset.fingerprint)


def summary(run: Run, split: str) -> str:
    """The metrics of a split beside the baselines, for a terminal."""
    path = run.metrics_path(split)
    content = json.loads(path.read_text("utf-8"))
    low, high = content["interval"]
    rows = [
        f"RMSE on {split} ({content['galaxies']:,} galaxies)",
        f"  this model             {content['rmse']:.4f}   95 % interval {low:.4f} to {high:.4f}",
    ]
    for name, label in (("train_mean", "column means of train"), ("zeros", "all zeros")):
        if name in content["baselines"]:
            value = content["baselines"][name]
            rows.append(f"  {label:<22} {value:.4f}   the model has {content['rmse'] / value:.3f} of it")
    rows.append(f"  spread of predictions  {content['spread']:.4f}   standard deviation per column, on average")
    if content["spread"] < CONSTANT_SPREAD:
        rows.append("  the predictions hardly vary: raise --learning_rate, train longer, or start from --weights imagenet")
    rows.append(f"metrics: {path}")
    rows.append(f"report:  {run.report_path(split)}")
    return "\n".join(rows)
