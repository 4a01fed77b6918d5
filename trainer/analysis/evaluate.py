"""Measure a run on a split: predictions, metrics, report, model card.

`metrics.json` comes last and names model, dataset and predictions: while they are as it says, the table of predictions is
taken as it is, and the report is made again without the model.
"""

import json
from typing import Any

import numpy as np

from tfrecords.dataset import Dataset, to_json
from tfrecords.errors import RunError
from tfrecords.files import sha256_file, write_text
from tfrecords.taxonomy import COLUMNS, QUESTIONS
from trainer.analysis import metrics
from trainer.collapse import CONSTANT_SPREAD, what_to_change
from trainer.devices import explained, load_backend
from trainer.predict import Predictions, predict, read_csv, write_csv
from trainer.run import Run, best_epoch


def _content(
    run: Run, dataset: Dataset, split: str, predictions: Predictions, scores: metrics.Scores, baselines: dict[str, float]
) -> dict[str, Any]:
    history = run.history()
    best = best_epoch(history) if history else None

    def measured(mse: float, interval: np.ndarray) -> dict[str, Any]:
        return {"mse": float(mse), "rmse": float(np.sqrt(mse)), "interval": [float(end) for end in interval]}

    return {
        "split": split,
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
        "spread": float(predictions.predicted.std(axis=0).mean()),
        "best_validation": None
        if best is None or np.isnan(best.val_mse)
        else {"mse": best.val_mse, "rmse": float(np.sqrt(best.val_mse)), "epoch": best.epoch},
        "dataset": dataset.fingerprint,
        "model": sha256_file(run.model_path),
        "predictions": sha256_file(run.predictions_path(split)),
    }


def _is_of(run: Run, dataset: Dataset, split: str, galaxies: int) -> bool:
    """Whether metrics.json and the table of predictions are of this model, this dataset, and so many galaxies."""
    try:
        content = json.loads(run.metrics_path(split).read_text("utf-8"))
        return bool(
            content["galaxies"] == galaxies
            and content["dataset"] == dataset.fingerprint
            and content["model"] == sha256_file(run.model_path)
            and content["predictions"] == sha256_file(run.predictions_path(split))
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _galaxies(dataset: Dataset, split: str, limit: int) -> int:
    return min(dataset.galaxies(split), limit) if limit else dataset.galaxies(split)


@explained
def evaluate(run: Run, dataset: Dataset, split: str = "test", limit: int = 0) -> dict[str, Any]:
    """Predict a labelled split and write predictions-SPLIT.csv, the report, the model card and the metrics; returns these.

    Predictions that are there already, of this model and dataset, are not made again. The baseline of column means is that
    of the dataset's own `train`, where it has one.
    """
    run.check_dataset(dataset)
    dataset.paths(split)  # complains before anything slow begins
    load_backend()  # quietly, before the reader imports TensorFlow
    from tfrecords.reader import votes_of

    path = run.predictions_path(split)
    if not _is_of(run, dataset, split, _galaxies(dataset, split, limit)):
        if split == "unlabelled":
            raise RunError(f"{dataset.folder}: galaxies of split '{split}' have no votes to compare with: use trainer predict")
        made = predict(run, dataset, split, limit)
        run.metrics_path(split).unlink(missing_ok=True)  # what follows belongs to other predictions
        write_csv(made, path, dataset.names())
    galaxy_ids, targets = votes_of(dataset, split, limit)
    predictions = read_csv(path, galaxy_ids, targets)
    from trainer.analysis.card import write_card
    from trainer.analysis.report import Evaluation, write_report

    means = votes_of(dataset, "train", limit)[1].mean(axis=0) if dataset.galaxies("train") else None
    scores = metrics.score(predictions.predicted, predictions.targets)
    content = _content(run, dataset, split, predictions, scores, metrics.baselines(predictions.targets, means))
    write_report(Evaluation(run, dataset, split, predictions, scores, means, content))
    if split == "test" and dataset.fingerprint == run.config["dataset"]["fingerprint"]:
        write_card(run, dataset, content)
    write_text(run.metrics_path(split), to_json(content))
    return content


def is_current(run: Run, dataset: Dataset, split: str, limit: int = 0) -> bool:
    """Whether the metrics of a split are those of the run's present model on this dataset, and all else is there."""
    there = run.report_path(split).is_file() and (split != "test" or (run.folder / "README.md").is_file())
    return there and _is_of(run, dataset, split, _galaxies(dataset, split, limit))


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
        advice = what_to_change(run.settings, head_alone=run.settings["head_epochs"] == run.settings["epochs"])
        rows.append(f"  the predictions hardly vary: train longer, or try {advice}")
    rows.append(f"metrics: {path}")
    rows.append(f"report:  {run.report_path(split)}")
    return "\n".join(rows)
