"""A page that compares runs on the same galaxies: their scores side by side, with the intervals of the differences."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from trainer.analysis import galleries, metrics, pairs, wording
from trainer.analysis.classification import Measures, answers_of, weighted_averages, weighted_errors
from trainer.analysis.comparison import Comparison
from trainer.analysis.page import Bar, Card, Chart, Gallery, Page, Section, safe_names
from trainer.analysis.pairs import Curve
from trainer.analysis.questions import CONFIDENT_RULE, FRACTIONS_RULE, MACRO_RULE, Questions, asked_rule, weighting_rule
from trainer.analysis.table import DASH, Measured, Table

# Names of tables and titles; whether fractions are cumulative (0) or of those asked (1); whether the error is RMS.
_FRACTION_ERRORS = (
    ("errors-mae-asked", "Mean absolute error per answer, of those asked", 1, False),
    ("errors-rmse-asked", "Root mean square error per answer, of those asked", 1, True),
    ("errors-mae", "Mean absolute error per answer, cumulative", 0, False),
    ("errors-rmse", "Root mean square error per answer, cumulative", 0, True),
)
_MEASURES = ("accuracy", "precision", "recall", "F1")
_RANGES = f"Ranges are 95 % intervals from {metrics.RESAMPLES:,} resamples of the galaxies, the same for all runs."


def opening_sentence(comparison: Comparison) -> str:
    """Which run is best, and whether that is clear, in one sentence."""
    order = np.argsort([score.rmse for score in comparison.scores], kind="stable")
    best, second = (comparison.several[place] for place in order[:2])
    changes = comparison.difference(second, best)[0]
    galaxies = wording.some_galaxies(len(comparison.targets))
    if len(order) == 2 and np.array_equal(best.predictions.predicted, second.predictions.predicted):
        return f"On the same {galaxies}, {best.label} and {second.label} predict the same."
    scores = [comparison.scores[place].rmse for place in order[:2]]
    low = "lower" if len(order) == 2 else "lowest"
    ends = f"{changes.value:.4f}"
    ends += "" if np.isnan(changes.low) else f" ({changes.low:.4f} to {changes.high:.4f})"
    if changes.low > 0:
        return f"On the same {galaxies}, {best.label} has the {low} RMSE, {scores[0]:.4f}: {ends} below that of {second.label}."
    return (
        f"On the same {galaxies}, it is not clear which run is best: {best.label} has an RMSE of {scores[0]:.4f}, "
        f"{second.label} one of {scores[1]:.4f}, a difference of {ends}."
    )


def _cautions(comparison: Comparison) -> list[str]:
    """What speaks against a fair comparison."""
    said = ["Intervals are over galaxies. Training again with another seed would change a run, too."]
    for one in comparison.several:
        trained = one.run.config["dataset"]["fingerprint"]
        if trained != comparison.dataset.fingerprint:
            said.append(f"{one.label} was trained on another dataset, which may hold some of these galaxies.")
        if "start" in one.run.config:
            said.append(f"{one.label} started from another run, which may have been trained on some of these galaxies.")
        if trained == comparison.dataset.fingerprint and comparison.split == "train":
            said.append(f"{one.label} was trained on these galaxies.")
        if trained == comparison.dataset.fingerprint and comparison.split == "validation":
            said.append(f"The epoch of {one.label} was chosen by these galaxies.")
    return said


def _runs_chart(comparison: Comparison) -> Chart:
    rmse = [score.rmse for score in comparison.scores]
    intervals = [score.interval for score in comparison.scores]
    differences = [changes[0] for changes in comparison.differences]
    base = comparison.base.label
    best = comparison.labels[int(np.argmin(rmse))]
    values = "galaxies and columns" if comparison.counted is None else "galaxies and the questions that somebody answered"
    beside = [("", "", ""), *((one.value, one.low, one.high) for one in differences)]
    return Chart(
        "runs",
        f"RMSE of each run: lowest for {best} ({min(rmse):.4f})",
        f"Above: root mean square error over all {values}, with its 95 % interval. Below: the same minus that of "
        f"{base}, on the same galaxies; where the interval includes 0, the two cannot be told apart.",
        lambda width: pairs.draw_runs(width, comparison.labels, rmse, intervals, differences),
        Table(
            ("run", "rmse", "interval_low", "interval_high", "minus_base", "difference_low", "difference_high"),
            tuple(
                (label, value, *ends, *difference)
                for label, value, ends, difference in zip(comparison.labels, rmse, intervals, beside, strict=True)
            ),
        ),
    )


def _settings(comparison: Comparison) -> Table:
    """The settings in which the runs differ, and how long they trained."""
    several = comparison.several
    rows: list[tuple[object, ...]] = []
    for name in sorted({name for one in several for name in one.run.settings}):
        values = [str(one.run.settings.get(name, "–")) for one in several]
        if len({*values}) > 1:
            rows.append((name, *values))
    histories = [one.run.history() for one in several]
    rows.append(("epochs trained", *(str(len(history) or DASH) for history in histories)))
    minutes = [sum(row.seconds for row in history) / 60 for history in histories]
    rows.append(("minutes", *(f"{some:.1f}" if some else DASH for some in minutes)))
    rows.append(("dataset", *(one.run.config["dataset"]["fingerprint"][:12] for one in several)))
    return Table(("setting", *comparison.labels), tuple(rows), "settings", "Where their settings differ")


def _minus(comparison: Comparison) -> tuple[str, ...]:
    return tuple(f"{one.label} minus {comparison.base.label}" for one in comparison.others)


def _forms(comparison: Comparison, first: tuple[str, ...], form: str) -> tuple[str, ...]:
    """The formats of the columns: the first, a value for each run, and differences."""
    return (*first, *(form for _ in comparison.several), *(f"+{form}" for _ in comparison.others))


def _question_errors(comparison: Comparison) -> Table:
    rows = tuple(
        (
            question.called("{} {}"),
            *(float(np.sqrt(score.per_question[question.index])) for score in comparison.scores),
            *(changes[1 + question.index] for changes in comparison.differences),
        )
        for question in comparison.tree.questions
    )
    header = ("question", *comparison.labels, *_minus(comparison))
    return Table(header, rows, "questions-rmse", "RMSE per question", _RANGES, _forms(comparison, ("",), ".4f"))


def _answer_errors(comparison: Comparison) -> Table:
    start = 1 + len(comparison.tree.questions)
    rows = tuple(
        (
            comparison.tree.columns[column],
            comparison.tree.describe(column),
            *(float(np.sqrt(score.per_class[column])) for score in comparison.scores),
            *(changes[start + column] for changes in comparison.differences),
        )
        for column in range(len(comparison.tree.columns))
    )
    header = ("column", "answer", *comparison.labels, *_minus(comparison))
    return Table(header, rows, "answers-rmse", "RMSE per answer", _RANGES, _forms(comparison, ("", ""), ".4f"))


def _fraction_errors(comparison: Comparison) -> list[Table]:
    """A table for each error of the vote fractions, per answer."""
    tables = []
    several = [
        weighted_errors(one.predictions.predicted, comparison.targets, comparison.tree, comparison.answered)
        for one in comparison.several
    ]
    tree, header = comparison.tree, ("column", "answer", "galaxies", *comparison.labels, *_minus(comparison))
    for name, title, kind, root in _FRACTION_ERRORS:
        parts = [both[kind] for both in several]
        errors = [part.errors**2 if root else part.errors for part in parts]
        weights = parts[0].weights
        means = [weighted_averages(part.errors, weights)[root] for part in parts]
        base = errors[0] * weights
        changes = [metrics.paired_differences(one * weights, base, weights=weights, root=root) for one in errors[1:]]
        rows = tuple(
            (
                tree.columns[column],
                tree.describe(column),
                int((weights[:, column] > 0).sum()),
                *(float(mean[column]) for mean in means),
                *(Measured(*map(float, differences[column])) for differences in changes),
            )
            for column in range(len(tree.columns))
        )
        rules = FRACTIONS_RULE if kind else "", weighting_rule(comparison.asked), _RANGES
        tables.append(Table(header, rows, name, title, wording.sentences(*rules), _forms(comparison, ("", "", ","), ".4f")))
    return tables


def _classified(comparison: Comparison, confident: bool) -> list[Table]:
    """A table for each measure of the most voted answers, per question."""
    changes = comparison.confident if confident else comparison.everyone
    numbers = [int(comparison.rows(question, confident).sum()) for question in comparison.tree.questions]
    choose: list[Callable[[Measures], Measured]] = [lambda one: one.accuracy]
    choose += [_macro(place) for place in range(3)]
    where, rule = (" where the volunteers are confident", CONFIDENT_RULE) if confident else ("", "")
    tables = []
    for measure, choice in zip(_MEASURES, choose, strict=True):
        rows = tuple(
            (question.called("{} {}"), number, *(choice(one).value for one in scores), *map(choice, differences))
            for question, number, (scores, differences) in zip(comparison.tree.questions, numbers, changes, strict=True)
        )
        header = ("question", "galaxies", *comparison.labels, *_minus(comparison))
        macro = "" if measure == "accuracy" else MACRO_RULE
        tables.append(
            Table(
                header,
                rows,
                f"questions-{measure.lower()}{'-confident' if confident else ''}",
                f"{measure[:1].upper()}{measure[1:]} of the most voted answers{where}",
                wording.sentences(asked_rule(comparison.asked), rule, macro, _RANGES),
                _forms(comparison, ("", ","), ".3f"),
            )
        )
    return tables


def _macro(place: int) -> Callable[[Measures], Measured]:
    return lambda one: one.macro[place]


def _answers(comparison: Comparison, confident: bool) -> list[Table]:
    """A table for each measure of the most voted answers, per answer."""
    changes = comparison.confident if confident else comparison.everyone
    voted = [np.bincount(comparison.voted(q, confident), minlength=len(q.answers)) for q in comparison.tree.questions]
    header = ("column", "answer", "voted", *comparison.labels, *_minus(comparison))
    where, rule = (" where the volunteers are confident", CONFIDENT_RULE) if confident else ("", "")
    tables = []
    for measure, name in (("precision", "precision"), ("recall", "recall"), ("F1", "f1")):
        rows = []
        for question, place, column in answers_of(comparison.tree):
            scores, differences = changes[question.index]
            values = (getattr(one, name)[place] for one in (*scores, *differences))
            shown = [one.value if run < len(scores) else one for run, one in enumerate(values)]
            number = int(voted[question.index][place])
            rows.append((comparison.tree.columns[column], comparison.tree.describe(column), number, *shown))
        title = f"{measure[:1].upper()}{measure[1:]} per answer{where}"
        caption = wording.sentences(asked_rule(comparison.asked), rule, _RANGES)
        file = f"answers-{name}{'-confident' if confident else ''}"
        tables.append(Table(header, tuple(rows), file, title, caption, _forms(comparison, ("", "", ","), ".3f")))
    return tables


def _confusion(comparison: Comparison) -> tuple[Chart, ...]:
    """The confusion matrices of each run."""
    names = safe_names([f"confusion-{label}" for label in comparison.labels])
    charts = []
    for name, one in zip(names, comparison.several, strict=True):
        tables = (one.predictions.predicted, comparison.targets, comparison.answered, comparison.asked)
        chart, _ = Questions(comparison.tree, *tables, one.label).confusion()
        charts.append(replace(chart, name=name, alt=f"{one.label}: {chart.alt}", caption=f"{one.label}: {chart.caption}"))
    return tuple(charts)


def _by_question(comparison: Comparison) -> Chart:
    differences = [changes[1 : 1 + len(comparison.tree.questions)] for changes in comparison.differences]
    labels = [one.label for one in comparison.others]
    clear = (
        [sum(one.high < 0 for one in changes) for changes in differences],
        [sum(one.low > 0 for one in changes) for changes in differences],
    )
    said = "; ".join(
        f"{one.label} is clearly better than {comparison.base.label} for {better or 'none'} and worse for {worse or 'none'} of "
        f"{len(comparison.tree.questions)} questions"
        for one, better, worse in zip(comparison.others, *clear, strict=True)
    )
    return Chart(
        "question-differences",
        f"Difference of RMSE per question: {said}",
        f"RMSE of each question minus that of {comparison.base.label}, with the 95 % interval of the difference. Left of the "
        f"line, a run is better. {said}.",
        lambda width: pairs.draw_differences(comparison.tree, width, labels, differences),
        Table(
            ("question", "run", "minus_base", "low", "high"),
            tuple(
                (question.key, one.label, ends.value, ends.low, ends.high)
                for one, changes in zip(comparison.others, differences, strict=True)
                for question, ends in zip(comparison.tree.questions, changes, strict=True)
            ),
        ),
    )


def _learning(comparison: Comparison) -> tuple[Chart, ...]:
    """The learning curves, by validation MSE where there is a validation split; none without a history."""
    curves = []
    for one in comparison.several:
        history = one.run.history()
        validated = any(not np.isnan(row.val_mse) for row in history)
        values = [row.val_mse if validated else row.mse for row in history]
        if history:
            curves.append(Curve(one.label, [row.epoch for row in history], values, validated))
    if not curves:
        return ()
    trained = "A run without a validation split is shown by the MSE of its training steps. "
    caption = "Mean squared error on the validation split after each epoch. "
    caption += "" if all(curve.validated for curve in curves) else trained
    caption += "Runs of other datasets have other validation galaxies." if _several_datasets(comparison) else ""
    finding = f"Learning curves of {wording.amount(len(curves), 'run')}"
    if all(curve.validated for curve in curves) and not _several_datasets(comparison):
        lowest = min(curves, key=lambda curve: np.nanmin(curve.values))
        finding = f"Learning curves: lowest MSE {np.nanmin(lowest.values):.5f}, of {lowest.label}"
    return (
        Chart(
            "learning-curves",
            finding,
            caption.strip(),
            lambda width: pairs.draw_curves(width, curves),
            Table(
                ("run", "split", "epoch", "mse"),
                tuple(
                    (curve.label, "validation" if curve.validated else "train", *row)
                    for curve in curves
                    for row in zip(curve.epochs, curve.values, strict=True)
                ),
            ),
        ),
    )


def _several_datasets(comparison: Comparison) -> bool:
    return len({one.run.config["dataset"]["fingerprint"] for one in comparison.several}) > 1


def _differing(comparison: Comparison) -> Gallery:
    """The galaxies on which the runs differ most."""
    from tfrecords.reader import stored_pictures

    distances = np.nan_to_num(comparison.distances())
    rows = np.argsort(-distances, kind="stable")[: galleries.CARDS]
    predictions = comparison.base.predictions
    ids = predictions.galaxy_ids
    pictures = stored_pictures(comparison.dataset, (comparison.split,), (int(one) for one in ids[rows]))
    every = np.stack([one.predictions.predicted for one in comparison.several])
    apart = np.ptp(every, axis=0)
    if comparison.counted is not None:
        apart = np.where(comparison.counted, apart, 0)
    errors = np.stack([metrics.mean_counted(comparison.errors_of(one), comparison.counted, 1) for one in comparison.several])
    cards = []
    for row in map(int, rows):
        bars: list[Bar] = []
        for column in np.argsort(-apart[row], kind="stable")[:2]:
            answer = galleries.label(comparison.tree, int(column))
            used = comparison.counted is None or comparison.counted[row, column]
            for place, one in enumerate(comparison.several):
                voted = float(comparison.targets[row, column]) if place == 0 and used else None
                label = f"{answer}: {one.label}" if place == 0 else one.label
                bars.append(Bar(label, voted, float(every[place, row, column])))
        closest = comparison.labels[int(np.argmin(errors[:, row]))]
        note = f"differ by {distances[row]:.3f}; {closest} is closest" if distances[row] else "no difference"
        name = "" if predictions.names is None else predictions.names[row]
        cards.append(Card(int(ids[row]), (pictures[int(ids[row])],), note, tuple(bars), name))
    return Gallery(
        "differ-most",
        "Where the runs differ most",
        f"Galaxies with the largest root mean square difference of a run's predictions from those of {comparison.base.label}, "
        "and the two columns that differ most: the votes (orange) above the prediction of each run (blue).",
        ("runs differ most",),
        tuple(cards),
        wording.id_name(comparison.tree),
    )


def comparison_page(comparison: Comparison) -> Page:
    """The page."""
    dataset, split = comparison.dataset, comparison.split
    weighting = wording.weighting(comparison.asked, comparison.tree)
    sections = (
        Section("cautions", "How to read this page", (" ".join(_cautions(comparison)), *([weighting] if weighting else []))),
        Section("by-question", "Question by question", (), (_by_question(comparison), _question_errors(comparison))),
        Section(
            "classified", "Most voted answers", (), (*_classified(comparison, False), *_answers(comparison, confident=False))
        ),
        Section(
            "confident",
            "Where the volunteers are confident",
            (),
            (*_classified(comparison, True), *_answers(comparison, confident=True)),
        ),
        Section("confusion", "What is mistaken for what", (), _confusion(comparison)),
        Section("by-answer", "Answer by answer", (), (_answer_errors(comparison), *_fraction_errors(comparison))),
        Section("learning", "How they were trained", (), (*_learning(comparison), _settings(comparison))),
        Section("differences", "The galaxies on which they differ", (), (_differing(comparison),)),
    )
    return Page(
        f"{len(comparison.several)} runs on {wording.survey(comparison.tree)}, split {split}",
        opening_sentence(comparison),
        f"runs {', '.join(str(one.run.folder) for one in comparison.several)} · dataset {dataset.folder} · "
        f"{dataset.size} × {dataset.size} pixels",
        sections,
        _runs_chart(comparison),
        (f"dataset {dataset.fingerprint[:12]}",),
        wording.credit(comparison.tree),
    )
