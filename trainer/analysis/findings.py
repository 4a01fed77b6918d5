"""The charts of a measured run, each with its finding in words, a caption, and its numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrecords.builtin import is_kaggle
from tfrecords.dataset import Dataset
from tfrecords.tree import Tree, column_means
from trainer.analysis import figures, metrics, tree, votes, wording
from trainer.analysis.intervals import coverage
from trainer.analysis.page import Chart, Table
from trainer.history import best_epoch
from trainer.run import Run
from trainer.tables import Predictions

_BASELINES = {"zeros": "all zeros", "train_mean": "column means of train"}
_OURS = "this model"
# What a model learns from each loss, and whether each head obeys the tree.
_LEARNS = {
    "mse": "The model was trained on squared error, which is minimised by the mean of all galaxies that look alike to it",
    "cross_entropy": "The model was trained on cross-entropy, which is minimised by the mean of all galaxies that look alike "
    "to it, each weighted by how many volunteers were asked",
    "dirichlet_multinomial": "The model was trained on the likelihood of the votes, Dirichlet-multinomial with its predictions "
    "as means; these are close to the mean of all galaxies that look alike to it",
}
_BY_CONSTRUCTION = "This model's outputs obey the tree by construction, so its sums are off by rounding errors only."
_OBEYS = {
    "sigmoid": "This model predicts each column independently; the chart shows how far its sums are off.",
    "tree": _BY_CONSTRUCTION,
    "dirichlet": _BY_CONSTRUCTION,
}
# Above this correlation, one quantity is reported to follow the other.
_FOLLOWS = 0.7


@dataclass(frozen=True)
class Evaluation:
    """The subject of a report. means: column means of train (n,), None without train. content: that of metrics.json."""

    run: Run
    dataset: Dataset
    split: str
    predictions: Predictions
    scores: metrics.Scores
    means: np.ndarray | None
    content: dict[str, Any]

    @property
    def tree(self) -> Tree:
        return self.dataset.tree

    @property
    def counted(self) -> np.ndarray | None:
        """Which values count: bool (galaxies, n); None: all."""
        return self.tree.counted(self.predictions.asked)


def _furthest(values: np.ndarray) -> int:
    """The place of the largest value that is not NaN; 0 if all are."""
    return int(np.argmax(np.where(np.isnan(values), -np.inf, values)))


def ladder(evaluation: Evaluation) -> Chart:
    content = evaluation.content
    rungs = [figures.Rung(_BASELINES[name], value) for name, value in content["baselines"].items()]
    rungs += [figures.Rung(_OURS, content["rmse"]), *(figures.Rung(name, rmse, True) for name, rmse in evaluation.tree.scores)]
    interval = (content["interval"][0], content["interval"][1])
    beaten = [rung.label for rung in rungs if not rung.published and rung.label != _OURS and rung.rmse > interval[1]]
    measure = ", the challenge's measure," if is_kaggle(evaluation.tree) else ""
    published = (
        " Open bars were published for other test sets of real galaxies and are shown for reference only."
        if evaluation.tree.scores
        else ""
    )
    return Chart(
        "ladder",
        f"Ladder of scores: RMSE {content['rmse']:.4f}, better than {' and '.join(beaten) or 'none of the baselines'}",
        f"Root mean squared error over all galaxies and columns{measure} with its 95 % interval from 1,000 "
        f"resamples of the galaxies. Filled bars were measured on the same galaxies.{published}",
        lambda width: figures.draw_ladder(width, rungs, _OURS, interval),
        Table(
            ("score", "rmse", "interval_low", "interval_high", "published_for_another_test_set"),
            tuple((rung.label, rung.rmse, *(interval if rung.label == _OURS else ("", "")), rung.published) for rung in rungs),
        ),
    )


def tree_map(evaluation: Evaluation) -> Chart:
    rmse = np.sqrt(evaluation.scores.per_question)
    notes = [f"RMSE {wording.shown(value, '.3f')}" for value in rmse]
    questions = evaluation.tree.questions
    hardest, clearest = questions[_furthest(rmse)], questions[_furthest(-rmse)]
    low, high = evaluation.scores.question_intervals.T
    return Chart(
        "tree",
        f"Decision tree coloured by RMSE: highest for question {hardest.called()} ({rmse[hardest.index]:.3f}), "
        f"lowest for question {clearest.called()} ({rmse[clearest.index]:.3f})",
        "Each box is a question that volunteers were asked, with its answers and their columns; brighter boxes have larger "
        "errors. Each box links to the section of its question.",
        lambda width: tree.draw(evaluation.tree, width, notes, rmse, "RMSE of the question's columns"),
        Table(
            ("question", "title", "rmse", "interval_low", "interval_high"),
            tuple((q.key, q.title, rmse[n], low[n], high[n]) for n, q in enumerate(questions)),
        ),
        tree.links(evaluation.tree, notes, has_values=True),
    )


def per_class(evaluation: Evaluation) -> Chart:
    scores, targets = evaluation.scores, evaluation.predictions.targets
    rmse = np.sqrt(scores.per_class)
    mean_rmse = None
    if evaluation.means is not None:
        mean_rmse = np.sqrt(metrics.mean_counted(metrics.squared_errors(evaluation.means, targets), evaluation.counted, 0))
    skill = np.nan_to_num(scores.skill, nan=-np.inf)
    best = int(np.argmax(skill))
    learnt = "none is predicted better than by its mean"
    if skill[best] > 0:
        learnt = f"highest skill for {evaluation.tree.columns[best]} ({skill[best]:.2f})"
    means = ""
    if mean_rmse is not None:
        means = " If the blue bar reaches the end of the open one, the model predicts that answer no better than its mean does."
    return Chart(
        "per-class",
        f"RMSE of each answer: {learnt}",
        f"RMSE of each answer with its 95 % interval.{means} Skill, listed with each question, is 1 - MSE / variance.",
        lambda width: figures.draw_per_class(evaluation.tree, width, rmse, scores.class_intervals, mean_rmse, len(targets)),
        Table(
            ("column", "mse", "rmse", "interval_low", "interval_high", "skill", "column_means_rmse"),
            tuple(
                (
                    name,
                    scores.per_class[n],
                    rmse[n],
                    *scores.class_intervals[n],
                    scores.skill[n],
                    "" if mean_rmse is None else mean_rmse[n],
                )
                for n, name in enumerate(evaluation.tree.columns)
            ),
        ),
    )


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation; NaN if either does not vary."""
    return float(np.corrcoef(first, second)[0, 1]) if np.ptp(first) > 0 and np.ptp(second) > 0 else float("nan")


def extremes_and_errors(evaluation: Evaluation) -> tuple[Chart, Chart]:
    """The article's two findings: predictions rarely reach the extremes of the votes; an answer's error grows with its mean."""
    predicted, targets, counted = evaluation.predictions.predicted, evaluation.predictions.targets, evaluation.counted
    largest, largest_voted = (votes.maximum_agreement(table, counted) for table in (predicted, targets))
    columns = evaluation.tree.columns
    learns = _LEARNS[evaluation.run.settings["loss"]]
    if trained := evaluation.run.config["dataset"].get("asked"):
        answered = "are assumed to have answered" if wording.is_assumed(trained) else "answered"
        learns = learns.replace("how many volunteers were asked", f"how many volunteers {answered} each question")
    lower = int((largest < largest_voted).sum())
    mse, means, variances = evaluation.scores.per_class, column_means(targets, counted), metrics.variances(targets, counted)
    measured = ~np.isnan(mse)
    with_variance, with_mean = (_correlation(mse[measured], other[measured]) for other in (variances, means))
    both = f"correlation {with_variance:.2f} with the variance, {with_mean:.2f} with the mean"
    follows = f"The error of an answer follows the spread of its votes ({both})"
    if np.isnan(with_variance):
        follows = "The errors or the spreads of all answers are equal here, so they cannot be related"
    elif with_variance <= _FOLLOWS:
        follows = f"Here the error of an answer does not follow the spread of its votes closely ({both})"
    agreement = Chart(
        "maximum-agreement",
        f"Maximum agreement: lower in the predictions than in the votes for {lower} of {len(columns)} columns",
        "The largest value of each column in the votes and in the predictions; the predicted one is lower for "
        f"{lower} of {len(columns)}. {learns}. A mean is never more extreme than the most extreme galaxy behind it.",
        lambda width: figures.draw_maximum_agreement(evaluation.tree, width, len(targets), largest_voted, largest),
        Table(("column", "voted", "predicted"), tuple(zip(columns, largest_voted, largest, strict=True))),
    )
    error = Chart(
        "error-against-mean",
        follows,
        f"{follows}. The dashes are the errors of a model that predicts only the means of these galaxies; the line from dash "
        "to dot is what this model has learnt beyond them. Answers with a mean near 0 or 1 have little room to spread.",
        lambda width: figures.draw_error_against_mean(evaluation.tree, width, mse, means, variances),
        Table(("column", "mean", "variance", "mse"), tuple(zip(columns, means, variances, mse, strict=True))),
    )
    return agreement, error


def trust(evaluation: Evaluation) -> tuple[Chart, ...]:
    """Whether fractions are calibrated, clear cases are recognised, predictions obey the tree, and intervals hold the votes."""
    of_tree, questions, answered = evaluation.tree, evaluation.tree.questions, evaluation.predictions.asked
    predicted, targets = evaluation.predictions.predicted, evaluation.predictions.targets
    tables = metrics.calibration(predicted, targets, of_tree, answered)
    gaps = np.array([float(np.average(np.abs(t[:, 0] - t[:, 1]), weights=t[:, 2])) if len(t) else np.nan for t in tables])
    furthest = questions[_furthest(gaps)]
    calibration = Chart(
        "calibration",
        f"Calibration per question: furthest from the diagonal for question {furthest.called()}, by {gaps[furthest.index]:.3f}",
        "Voted against predicted fraction: on the diagonal, answers with a predicted 0.7 have 0.7 of the votes on average. "
        "Fractions are of the volunteers who were asked; galaxies count if at least half were. Each dot is a tenth of the "
        "answers.",
        lambda width: figures.draw_calibration(of_tree, width, tables),
        Table(
            ("question", "predicted", "voted", "answers"),
            tuple((q.key, *row) for q, table in zip(questions, tables, strict=True) for row in table.tolist()),
        ),
    )
    bins = metrics.agreement_bins(predicted, targets, of_tree, answered)
    clear = bins[:, bins.shape[1] * 4 // 5 :]  # agreement of 0.8 and more
    counted = clear[..., 1].sum()
    right = float(np.nansum(clear[..., 0] * clear[..., 1]) / counted) if counted else float("nan")
    clearly = f"At an agreement of 0.8 or more, the most voted answer is predicted in {right:.0%} of cases"
    if not counted:
        clearly = "No galaxy has an agreement of 0.8 or more"
    agreement = Chart(
        "agreement",
        clearly,
        "The more the volunteers agree, the easier their most voted answer should be to predict. "
        f"{clearly}. Agreement is 1 - entropy / maximum entropy (Dieleman et al. 2015). Grey bars hold fewer than "
        f"{figures.FEW} galaxies.",
        lambda width: figures.draw_agreement(of_tree, width, bins),
        Table(
            ("question", "agreement_from", "agreement_to", "share_right", "galaxies"),
            tuple(
                (q.key, n / bins.shape[1], (n + 1) / bins.shape[1], share, int(count))
                for q in questions
                for n, (share, count) in enumerate(bins[q.index].tolist())
            ),
        ),
    )
    broken = metrics.tree_violation(predicted, of_tree)
    worst = questions[int(np.argmax(broken[:, 0]))]
    in_votes = float(of_tree.deviation(targets, answered).max())
    violation = Chart(
        "violation",
        f"Violation of the tree: largest for question {worst.called()}, with a median of {broken[:, 0].max():.3f}",
        "The columns of a question must add up to the column that leads to it. Those of the votes do, to "
        f"within {in_votes:.1g}. {_OBEYS[evaluation.run.settings['head']]}",
        lambda width: figures.draw_violation(of_tree, width, broken),
        Table(
            ("question", "median", "quantile_95", "largest"),
            tuple((q.key, *row) for q, row in zip(questions, broken.tolist(), strict=True)),
        ),
    )
    if evaluation.predictions.concentrations is None:
        return calibration, agreement, violation
    return calibration, agreement, violation, _intervals(evaluation, evaluation.predictions.concentrations)


def _intervals(evaluation: Evaluation, concentrations: np.ndarray) -> Chart:
    """How many of the predicted intervals hold the votes, per question."""
    of_tree, predictions = evaluation.tree, evaluation.predictions
    covered = coverage(of_tree, predictions.predicted, concentrations, predictions.targets, predictions.asked)
    held, _ = covered.overall(of_tree)
    furthest = of_tree.questions[_furthest(np.abs(covered.held - covered.expected))]
    finding = f"{held:.0%} of the 90 % intervals hold the votes"
    assumed = ""
    if predictions.asked is None or wording.is_assumed(evaluation.dataset.source.get("asked")):
        assumed = f" As the votes have no counts, {of_tree.volunteers} volunteers are assumed."
    return Chart(
        "intervals",
        f"Intervals: {finding}; furthest from what the model expects for question {furthest.called()}, "
        f"{covered.held[furthest.index]:.0%} instead of {covered.expected[furthest.index]:.0%}",
        f"{finding}: for each question, the share of galaxies and answers whose number of votes lies in the interval that the "
        "model predicts. The strokes are the shares that it expects, above 90 % because votes are whole numbers. A dot to the "
        f"left of its stroke is a question of which the model is too sure.{assumed}",
        lambda width: figures.draw_intervals(of_tree, width, covered.held, covered.expected, covered.galaxies),
        Table(
            ("question", "held", "expected", "galaxies"),
            tuple(
                (q.key, covered.held[q.index], covered.expected[q.index], int(covered.galaxies[q.index]))
                for q in of_tree.questions
            ),
        ),
    )


def history(run: Run) -> Chart:
    """The MSE over the epochs, and which epoch was kept."""
    epochs = run.history()
    best = best_epoch(epochs)
    minutes = sum(row.seconds for row in epochs) / 60
    text = f"{len(epochs)} epochs in {minutes:.1f} minutes. "
    finding = f"Training history over {len(epochs)} epochs"
    if not np.isnan(best.val_mse):
        text += f"Lowest validation MSE {best.val_mse:.5f} (RMSE {np.sqrt(best.val_mse):.4f}) in epoch {best.epoch}, "
        text += "whose weights were kept."
        finding += f": lowest validation MSE {best.val_mse:.5f} in epoch {best.epoch}"
    return Chart(
        "history",
        finding,
        text,
        lambda width: figures.draw_history(width, epochs),
        Table(
            ("epoch", "mse", "val_mse", "learning_rate", "seconds"),
            tuple((row.epoch, row.mse, row.val_mse, row.learning_rate, row.seconds) for row in epochs),
        ),
    )
