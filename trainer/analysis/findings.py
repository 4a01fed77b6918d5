"""The charts of a measured run, each with its finding in words, a caption, and its numbers."""

from collections.abc import Sequence

import numpy as np

from tfrecords.builtin import is_kaggle
from tfrecords.tree import Tree
from trainer.analysis import figures, metrics, tree, wording
from trainer.analysis.intervals import coverage
from trainer.analysis.page import Chart
from trainer.analysis.subject import Evaluation
from trainer.analysis.table import Table
from trainer.history import best_epoch
from trainer.run import Run

_BASELINES = {"zeros": "all zeros", "train_mean": "column means of train"}
_OURS = "this model"
# What minimises each loss, as tests/trainer/analysis/test_truth.py checks. Without counts of volunteers, cross-entropy has the
# same minimum as squared error: shares weighted by how many were asked make a plain mean of the cumulative fractions.
_MEAN = "minimised by the mean of all galaxies that look alike to it"
_LEARNS = {
    "mse": f"The model was trained on squared error, which is {_MEAN}",
    "cross_entropy": f"The model was trained on cross-entropy, which is {_MEAN}",
    "dirichlet_multinomial": "The model was trained on the likelihood of the votes, Dirichlet-multinomial with its predictions "
    "as means: galaxies that look alike to it get the same prediction",
}
# Above this correlation, one quantity is reported to follow the other.
_FOLLOWS = 0.7
# Rounding takes the sums of float32 fractions, as stored with nine decimals, no further than this from the tree.
_ROUNDING = 1e-5
# Errors of float32 fractions that differ less are equal.
_EQUAL = 1e-6
# So many questions or answers are listed by name in a sentence; of more, it gives the number.
_LISTED = 3


def _largest(values: np.ndarray) -> tuple[list[int], float]:
    """The places of the largest value, and this value; several places if it has equals. NaN does not count."""
    if np.isnan(values).all():
        return [], float("nan")
    largest = float(np.nanmax(values))
    return np.flatnonzero(values >= largest - _EQUAL).tolist(), largest


def _called(tree: Tree, places: Sequence[int]) -> str:
    """Some questions in a sentence: "question 6, odd", "questions 1 and 6", "questions “bar” and “arms”", or "5 questions"."""
    if len(places) == 1:
        return f"question {tree.questions[places[0]].called()}"
    if len(places) > _LISTED:
        return wording.amount(len(places), "question")
    chosen = [tree.questions[place] for place in places]
    return f"questions {wording.enumerated([q.key if q.numbered else f'“{q.title}”' for q in chosen])}"


def ladder(evaluation: Evaluation) -> Chart:
    content = evaluation.content
    rungs = [figures.Rung(_BASELINES[name], value) for name, value in content["baselines"].items()]
    rungs += [figures.Rung(_OURS, content["rmse"]), *(figures.Rung(name, rmse, True) for name, rmse in evaluation.tree.scores)]
    interval = (content["interval"][0], content["interval"][1])
    alone = evaluation.totals.galaxies == 1
    clearly = "" if alone else "clearly "
    baselines = [rung for rung in rungs if not rung.published and rung.label != _OURS]
    parts = []
    for words, chosen in (
        (f"{clearly}better than", [rung for rung in baselines if rung.rmse > interval[1]]),
        (f"{clearly}worse than", [rung for rung in baselines if rung.rmse < interval[0]]),
        (f"neither {clearly}better nor {clearly}worse than", [r for r in baselines if interval[0] <= r.rmse <= interval[1]]),
    ):
        if chosen:
            parts.append(f"{words} {wording.enumerated([rung.label for rung in chosen])}")
    some = not evaluation.totals.all_counted
    values = "galaxies and the questions that somebody answered" if some else "galaxies and columns"
    measure = ", the challenge's measure" if is_kaggle(evaluation.tree) and evaluation.predictions.asked is None else ""
    ends = f", with its 95 % interval from {metrics.RESAMPLES:,} resamples of {evaluation.resampled}"
    ends += "; a baseline outside it is clearly better or worse"
    published = (
        " Open bars were published for other test sets of real galaxies and are shown for reference only."
        if evaluation.tree.scores
        else ""
    )
    return Chart(
        "ladder",
        f"Ladder of scores: RMSE {content['rmse']:.4f}{' of a single galaxy' if alone else ''}, {'; '.join(parts)}",
        f"Root mean squared error over all {values}{measure}{'' if alone else ends}. "
        f"Filled bars were measured on the same {'galaxy' if alone else 'galaxies'}.{published}",
        lambda width: figures.draw_ladder(width, rungs, _OURS, interval),
        Table(
            ("score", "rmse", "interval_low", "interval_high", "published_for_another_test_set"),
            tuple((rung.label, rung.rmse, *(interval if rung.label == _OURS else ("", "")), rung.published) for rung in rungs),
        ),
    )


def tree_map(evaluation: Evaluation) -> Chart:
    rmse = np.sqrt(evaluation.scores.per_question)
    notes = [f"RMSE {wording.shown(value, '.3f')}" for value in rmse]
    of_tree, questions = evaluation.tree, evaluation.tree.questions
    (hardest, high_rmse), (clearest, low_rmse) = _largest(rmse), _largest(-rmse)
    said = (
        f"highest for {_called(of_tree, hardest)} ({high_rmse:.3f}), lowest for {_called(of_tree, clearest)} ({-low_rmse:.3f})"
    )
    if not hardest:
        said = "nobody answered any question"
    elif hardest == clearest:
        said = f"{high_rmse:.3f} for {_called(of_tree, hardest)}"
    columns = all(q.answer_called(c) == of_tree.short(c) for q in questions for c in range(q.start, q.stop))
    low, high = evaluation.scores.question_intervals.T
    return Chart(
        "tree",
        f"Decision tree coloured by RMSE: {said}",
        wording.sentences(
            f"Each box is a question that volunteers were asked, with its answers{' and their columns' if columns else ''}; "
            "brighter boxes have larger errors.",
            "Boxes without colour are questions that nobody answered." if np.isnan(rmse).any() else "",
            "Each box links to the section of its question.",
        ),
        lambda width: tree.draw(of_tree, width, notes, rmse, "RMSE of the question's columns"),
        Table(
            ("question", "title", "rmse", "interval_low", "interval_high"),
            tuple((q.key, q.title, rmse[n], low[n], high[n]) for n, q in enumerate(questions)),
        ),
        tree.links(of_tree, notes, has_values=True),
    )


def per_class(evaluation: Evaluation) -> Chart:
    scores, totals = evaluation.scores, evaluation.totals
    rmse = np.sqrt(scores.per_class)
    mean_rmse = None if totals.train_errors is None else np.sqrt(totals.train_errors)
    best, skill = _largest(scores.skill)
    learnt = "none is predicted better than by its mean"
    if not best:
        learnt = "the votes on each are all equal here, so skill is undefined"
    elif skill > 0:
        names = wording.enumerated([evaluation.tree.columns[place] for place in best])
        learnt = f"highest skill for {names if len(best) <= _LISTED else f'{len(best)} answers'} ({wording.positive(skill)})"
    means = ""
    if mean_rmse is not None:
        shorter, measured = int((rmse < mean_rmse).sum()), int((~np.isnan(rmse)).sum())
        means = (
            f" The blue bar is shorter than the open one, of the column means of train, for {shorter} of {measured} answers."
        )
    return Chart(
        "per-class",
        f"RMSE of each answer: {learnt}",
        f"RMSE of each answer{' with its 95 % interval' if totals.galaxies > 1 else ''}.{means} Skill, listed with each "
        "question, is 1 - MSE / variance of its votes.",
        lambda width: figures.draw_per_class(evaluation.tree, width, rmse, scores.class_intervals, mean_rmse, totals.galaxies),
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
    varies = len(first) > 1 and np.ptp(first) > 0 and np.ptp(second) > 0
    return float(np.corrcoef(first, second)[0, 1]) if varies else float("nan")


def _learns(run: Run, is_lower: bool) -> str:
    """What a model learns from its loss. is_lower: whether most maxima are lower in the predictions, as means would explain."""
    loss, asked = run.settings["loss"], run.config["dataset"].get("asked")
    weighted = ", where somebody answered the question" if loss == "mse" and asked else ""
    if loss == "cross_entropy" and asked:
        answered = "are assumed to have answered" if wording.is_assumed(asked) else "answered"
        weighted = f", each weighted by how many volunteers {answered} each question"
    explains = is_lower and loss != "dirichlet_multinomial"  # its means may be beyond all votes that are close to 0
    bound = "A mean is never more extreme than the most extreme galaxy behind it." if explains else ""
    return wording.sentences(f"{_LEARNS[loss]}{weighted}.", bound)


def extremes_and_errors(evaluation: Evaluation) -> tuple[Chart, Chart]:
    """The article's two findings: predictions rarely reach the extremes of the votes; an answer's error grows with its mean."""
    totals, columns = evaluation.totals, evaluation.tree.columns
    largest, largest_voted = totals.largest_predicted, totals.largest_voted
    mse, means, variances = evaluation.scores.per_class, np.nan_to_num(totals.means), totals.variances
    measured = ~np.isnan(mse)
    number = int(measured.sum())
    lower = int((largest < largest_voted)[measured].sum())
    below = int((mse < variances)[measured].sum())
    with_variance, with_mean = (_correlation(mse[measured], other[measured]) for other in (variances, means))
    both = f"correlation {with_variance:.2f} with the variance, {wording.shown(with_mean, '.2f')} with the mean"
    follows = f"The error of an answer follows the spread of its votes ({both})"
    if np.isnan(with_variance):
        follows = "The errors or the spreads of all answers are equal here, so they cannot be related"
    elif with_variance <= _FOLLOWS:
        follows = f"Here the error of an answer does not follow the spread of its votes closely ({both})"
    agreement = Chart(
        "maximum-agreement",
        f"Maximum agreement: lower in the predictions than in the votes for {lower} of {number} columns",
        "The largest value of each column in the votes and in the predictions; the predicted one is lower for "
        f"{lower} of {number}. {_learns(evaluation.run, lower > number / 2)}",
        lambda width: figures.draw_maximum_agreement(evaluation.tree, width, totals.galaxies, largest_voted, largest),
        Table(("column", "voted", "predicted"), tuple(zip(columns, largest_voted, largest, strict=True))),
    )
    error = Chart(
        "error-against-mean",
        follows,
        f"{follows}. The dashes are the errors of a model that predicts only the means of these galaxies; the dots of this "
        f"model are lower for {below} of {number} answers. Answers with a mean near 0 or 1 have little room to spread.",
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
    furthest, gap = _largest(gaps)
    off = f"furthest from the diagonal for {_called(of_tree, furthest)}, by {gap:.3f} on average"
    few = any(0 < table[:, 2].sum() < metrics.BINS for table in tables)
    calibration = Chart(
        "calibration",
        f"Calibration per question{evaluation.in_sample}: "
        f"{off if furthest else 'of no galaxy were half of the volunteers asked'}",
        "Voted against predicted fraction: on the diagonal, answers with a predicted 0.7 have 0.7 of the votes on average. "
        "Fractions are of the volunteers who were asked; galaxies count if at least half were"
        f"{'' if answered is None else ' and somebody answered'}. Each dot is a tenth of a question's answers"
        f"{', or one of fewer than ten' if few else ''}.{evaluation.drawn}",
        lambda width: figures.draw_calibration(of_tree, width, tables),
        Table(
            ("question", "predicted", "voted", "answers"),
            tuple((q.key, *row) for q, table in zip(questions, tables, strict=True) for row in table.tolist()),
        ),
    )
    bins = evaluation.totals.agreement
    clear = bins[:, bins.shape[1] * 4 // 5 :]  # agreement of 0.8 and more
    unclear = bins[:, : bins.shape[1] * 4 // 5]
    right, otherwise = (
        float(np.nansum(part[..., 0] * part[..., 1]) / part[..., 1].sum()) if part[..., 1].sum() else np.nan
        for part in (clear, unclear)
    )
    clearly = "No galaxy has an agreement of 0.8 or more"
    if not np.isnan(right):
        clearly = f"At an agreement of 0.8 or more, the most voted answer is predicted in {wording.percent(right)} of cases"
        if not np.isnan(otherwise):
            clearly += f", below in {wording.percent(otherwise)}"
    grey = ((bins[..., 1] > 0) & (bins[..., 1] < figures.FEW)).any()
    agreement = Chart(
        "agreement",
        clearly,
        "The more the volunteers agree, the easier their most voted answer should be to predict. "
        f"{clearly}. Agreement is 1 - entropy / maximum entropy (Dieleman et al. 2015)."
        f"{f' Grey bars hold fewer than {figures.FEW} galaxies.' if grey else ''}",
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
    worst, median = _largest(broken[:, 0])
    largest = float(broken[:, 2].max())
    by_construction = evaluation.run.settings["head"] != "sigmoid"
    obeys = "This model predicts each column independently; the chart shows how far its sums are off."
    if by_construction:
        obeys = "This model's outputs obey the tree by construction, so its sums are off by rounding errors only, at most "
        obeys += f"{wording.upper_bound(largest)}."
        if largest > _ROUNDING:
            obeys = "This model's outputs should obey the tree by construction, but these predictions are off by up to "
            obeys += f"{wording.upper_bound(largest)}."
    in_votes = evaluation.totals.deviation
    violation = Chart(
        "violation",
        f"Violation of the tree{evaluation.in_sample}: rounding errors only, at most {wording.upper_bound(largest)}"
        if by_construction and largest <= _ROUNDING
        else f"Violation of the tree{evaluation.in_sample}: highest median for {_called(of_tree, worst)}, {median:.2g}",
        "The columns of a question must add up to 1, or to the columns that lead to it. Those of the votes do, "
        f"{f'to within {wording.upper_bound(in_votes)}' if in_votes else 'exactly'}. {obeys}{evaluation.drawn}",
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
    furthest, _ = _largest(np.abs(covered.held - covered.expected))
    finding = f"{wording.percent(held)} of the 90 % intervals hold the votes"
    assumed = off = ""
    if len(furthest) == 1:
        instead = " instead of ".join(wording.percent(float(part[furthest[0]])) for part in (covered.held, covered.expected))
        off = f"; furthest from what the model expects for {_called(of_tree, furthest)}, {instead}"
    if not furthest:
        finding = "nobody answered any question"
    if predictions.asked is None or wording.is_assumed(evaluation.dataset.source.get("asked")):
        assumed = f" As the votes have no counts, {of_tree.volunteers} volunteers are assumed."
    return Chart(
        "intervals",
        f"Intervals{evaluation.in_sample}: {finding}{off}",
        f"{finding[:1].upper()}{finding[1:]}: for each question, the share of galaxies and answers whose number of votes lies "
        "in the interval that the model predicts. The strokes are the shares that it expects, above 90 % because votes are "
        f"whole numbers. A dot to the left of its stroke is a question of which the model is too sure.{assumed}"
        f"{evaluation.drawn}",
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
    epochs, settings = run.history(), run.settings
    best = best_epoch(epochs)
    number = wording.amount(len(epochs), "epoch")
    augmented = " and augmentation" if settings["augment"] != "none" else ""
    average = "moving average of the weights" if settings.get("ema") else ""
    measured = f"The MSE on train is measured during an epoch, with dropout{augmented}"
    finding = f"Training history over {number}"
    if np.isnan(best.val_mse):
        kept = (
            f"Without a validation split, the {average or 'weights'} after the last epoch {'was' if average else 'were'} kept."
        )
    else:
        kept = f"Lowest validation MSE {best.val_mse:.5f} (RMSE {np.sqrt(best.val_mse):.4f}) in epoch {best.epoch}, "
        kept += f"whose {average or 'weights'} {'was' if average else 'were'} kept."
        measured += f"; that on validation after it, without{f', and with the {average}' if average else ''}"
        finding += f": lowest validation MSE {best.val_mse:.5f} in epoch {best.epoch}"
    return Chart(
        "history",
        finding,
        f"{number} in {wording.duration(sum(row.seconds for row in epochs))}, counting neither saving nor the part of an epoch "
        f"before an interruption. {kept} {measured}.",
        lambda width: figures.draw_history(width, epochs),
        Table(
            ("epoch", "mse", "val_mse", "learning_rate", "seconds"),
            tuple((row.epoch, row.mse, row.val_mse, row.learning_rate, row.seconds) for row in epochs),
        ),
    )
