"""The report: one self-contained page with every figure, and the figures as files beside it."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from tfrecords import __version__
from tfrecords.dataset import Dataset
from tfrecords.files import write_bytes, write_text
from tfrecords.taxonomy import HUBBLE_CLASSES, QUESTIONS, hubble_score
from trainer.analysis import figures, metrics
from trainer.predict import Predictions
from trainer.run import Run, best_epoch

_GALLERY = 6
_SCATTER = ("Class1.1", "Class2.1", "Class3.1", "Class4.1", "Class6.1")


@dataclass(frozen=True)
class Evaluation:
    """What a report is about. means: column means of train (37,), None where there is no such split; content: metrics.json."""

    run: Run
    dataset: Dataset
    split: str
    predictions: Predictions
    scores: metrics.Scores
    means: np.ndarray | None
    content: dict[str, Any]


@dataclass(frozen=True)
class Section:
    """A figure of the page: its file name without ending, a heading, what it shows, and the PNG as base64."""

    name: str
    title: str
    text: str
    png: str


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _cutouts(dataset: Dataset, split: str, galaxy_ids: np.ndarray) -> dict[int, np.ndarray]:
    """The stored crops of a few galaxies, uint8 (size, size, 3) each."""
    from tfrecords import reader

    wanted = {int(galaxy_id) for galaxy_id in galaxy_ids}
    found: dict[int, np.ndarray] = {}
    for example in reader.in_order(dataset, split):
        galaxy_id = int(example["galaxy_id"])
        if galaxy_id in wanted:
            found[galaxy_id] = reader.decode(example, dataset.encoding, dataset.size).numpy()
            if len(found) == len(wanted):
                break
    return found


def _galleries(dataset: Dataset, split: str, predictions: Predictions) -> tuple[Figure, Figure]:
    """Galaxies predicted most clearly in each Hubble class, and those predicted best and worst."""
    errors = np.sqrt(metrics.squared_errors(predictions.predicted, predictions.targets).mean(axis=1))
    by_error = np.argsort(errors, kind="stable")
    chosen: dict[str, np.ndarray] = {}
    for name in HUBBLE_CLASSES:
        chosen[name] = np.argsort(-hubble_score(predictions.predicted, name), kind="stable")[:_GALLERY]
    best, worst = by_error[:_GALLERY], by_error[::-1][:_GALLERY]
    rows_used = np.concatenate([*chosen.values(), best, worst])
    cutouts = _cutouts(dataset, split, predictions.galaxy_ids[rows_used])

    def cells(rows: np.ndarray, caption: Any) -> list[tuple[np.ndarray, str]]:
        return [(cutouts[int(predictions.galaxy_ids[row])], f"{predictions.galaxy_ids[row]}\n{caption(row)}") for row in rows]

    hubble_rows = []
    for name, rows in chosen.items():
        predicted, voted = hubble_score(predictions.predicted, name), hubble_score(predictions.targets, name)
        title = f"{name} ({' and '.join(HUBBLE_CLASSES[name])})"
        hubble_rows.append(
            (title, cells(rows, lambda row, p=predicted, v=voted: f"predicted {p[row]:.2f}, votes {v[row]:.2f}"))
        )
    extremes = [
        ("closest to the votes", cells(best, lambda row: f"RMSE {errors[row]:.3f}")),
        ("furthest from the votes", cells(worst, lambda row: f"RMSE {errors[row]:.3f}")),
    ]
    return figures.gallery(hubble_rows, _GALLERY), figures.gallery(extremes, _GALLERY)


def _sections(evaluation: Evaluation) -> list[tuple[str, str, str, Figure]]:
    """Name, title, text and figure of every section, in the order of the page."""
    predictions, scores, means = evaluation.predictions, evaluation.scores, evaluation.means
    predicted, targets = predictions.predicted, predictions.targets
    mean_mse = None if means is None else metrics.squared_errors(means, targets).mean(axis=0)
    hubble, extremes = _galleries(evaluation.dataset, evaluation.split, predictions)
    smaller = int((predicted.max(axis=0) < targets.max(axis=0)).sum())
    follows = "of a column (dashes)"
    if (variance := targets.var(axis=0)).any():  # not of a single galaxy
        with_mean, with_variance = (np.corrcoef(scores.per_class, other)[0, 1] for other in (targets.mean(axis=0), variance))
        follows += f" with a correlation of {with_variance:.2f}, its mean with {with_mean:.2f}"
    clearest = QUESTIONS[int(np.argmin(scores.per_question))]
    hardest = QUESTIONS[int(np.argmax(scores.per_question))]
    history = evaluation.run.history()
    sections = [
        (
            "scores",
            "How good it is",
            "Root mean squared error over all galaxies and columns, with its 95 % interval (1,000 resamples of galaxies). "
            "Filled bars are measured on the same galaxies; dashed ones are published scores on other sets of real galaxies.",
            figures.scores(scores.rmse, scores.interval, evaluation.content["baselines"]),
        ),
        (
            "hubble",
            "What it recognises",
            "For each Hubble class the galaxies with the highest prediction, that is the smaller of the class's columns, "
            "beside what the volunteers said.",
            hubble,
        ),
        (
            "per-class",
            "Error per answer",
            f"Lowest for question {clearest.number} ({clearest.title}), highest for question {hardest.number} "
            f"({hardest.title}). Where the blue bar reaches the grey one, the model knows no more than the column's mean.",
            figures.per_class(scores.per_class, mean_mse),
        ),
        (
            "maximum-agreement",
            "Maximum agreement",
            f"The largest value of each column. The model's is below the votes' in {smaller} of 37 columns: a model trained "
            "on squared error predicts the mean of what it cannot tell apart, so it seldom goes as far as single galaxies do.",
            figures.maximum_agreement(predicted, targets),
        ),
        (
            "error-against-mean",
            "Error and mean",
            "Answers that are given often have higher errors than rare ones, because their votes spread more. The error "
            f"follows the variance {follows}; the gap from dash to dot is what was learnt.",
            figures.error_against_mean(scores.per_class, targets),
        ),
        (
            "predicted-against-voted",
            "Galaxy by galaxy",
            "Each dot is a galaxy; on the line, prediction and votes agree.",
            figures.predicted_against_voted(predicted, targets, _SCATTER),
        ),
        (
            "extremes",
            "Best and worst",
            "The galaxies whose 37 predictions are closest to and furthest from the votes.",
            extremes,
        ),
    ]
    if history:
        best = best_epoch(history)
        text = f"{len(history)} epochs in {sum(row.seconds for row in history) / 60:.1f} minutes. "
        if not np.isnan(best.val_mse):
            text += f"Lowest validation MSE {best.val_mse:.5f} in epoch {best.epoch}, whose weights are the ones kept."
        sections.insert(1, ("history", "How it learnt", text, figures.history(history)))
    return sections


def _per_question(scores: metrics.Scores) -> list[dict[str, Any]]:
    return [
        {"number": question.number, "title": question.title, "rmse": float(np.sqrt(mse))}
        for question, mse in zip(QUESTIONS, scores.per_question, strict=True)
    ]


def write_history_plot(run: Run) -> None:
    """Write report/figures/history.png: all there is to show where no split was measured."""
    folder = run.report_path("test").parent / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "history.png", _png(figures.history(run.history())))


def write_report(evaluation: Evaluation) -> None:
    """Write report/index.html (or report/SPLIT.html) and report/figures/SPLIT-NAME.png."""
    page = evaluation.run.report_path(evaluation.split)
    (page.parent / "figures").mkdir(parents=True, exist_ok=True)
    sections = []
    for name, title, text, figure in _sections(evaluation):
        png = _png(figure)
        write_bytes(page.parent / "figures" / f"{evaluation.split}-{name}.png", png)
        sections.append(Section(name, title, text, base64.b64encode(png).decode("ascii")))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer.analysis", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    html = environment.get_template("report.html").render(
        run=evaluation.run,
        dataset=evaluation.dataset,
        split=evaluation.split,
        metrics=evaluation.content,
        questions=_per_question(evaluation.scores),
        sections=sections,
        version=__version__,
    )
    write_text(page, html)
