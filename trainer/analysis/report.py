"""The report of a run: its scores, its strengths and weaknesses, and galaxies to look at."""

import numpy as np

from tfrecords.dataset import SPLITS
from tfrecords.tree import Question
from trainer.analysis import findings, galleries, metrics, style, tree, wording
from trainer.analysis.galleries import Candidates, Choice
from trainer.analysis.page import Chart, Page, Section, write_page
from trainer.analysis.questions import Questions
from trainer.analysis.subject import Evaluation
from trainer.analysis.table import Table
from trainer.run import Record, Run

_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def _galaxies(evaluation: Evaluation) -> str:
    """What was measured: how many galaxies, and whether the model may have seen them."""
    run, content = evaluation.run, evaluation.content
    number = wording.some_galaxies(content["galaxies"])
    if content["dataset"] != run.config["dataset"]["fingerprint"]:
        return f"{number} of split {evaluation.split} of another dataset"
    # Another run, from which this one started, may have been trained on them.
    unseen = evaluation.split == "test" and "start" not in run.config
    return f"{content['galaxies']:,} unseen {number.split()[1]}" if unseen else f"{number} of split {evaluation.split}"


def headline(evaluation: Evaluation) -> str:
    """The score, its interval and what it beats, in one sentence."""
    content = evaluation.content
    low, high = content["interval"]
    galaxies = _galaxies(evaluation)
    ends = f" ({low:.4f} to {high:.4f})" if content["galaxies"] > 1 else ""
    said = f"On {galaxies}, {evaluation.run.backbone.name} reaches an RMSE of {content['rmse']:.4f}{ends}"
    mean = content["baselines"].get("train_mean")
    if mean is None:
        return f"{said}."
    if content["galaxies"] > 1 and high < mean:
        return f"{said}: {wording.percent(1 - content['rmse'] / mean)} lower than that of the column means of train."
    clearly = "clearly worse" if content["galaxies"] > 1 and low > mean else "not clearly better"
    return f"{said}: {clearly} than the column means of train ({mean:.4f})."


def _class_table(evaluation: Evaluation) -> Table:
    rows = tuple(
        (
            count.name,
            count.threshold,
            " and ".join(count.columns),
            count.predicted,
            count.true,
            count.both,
            count.purity,
            count.completeness,
        )
        for count in evaluation.totals.classes
    )
    return Table(
        ("class", "threshold", "columns", "predicted", "voted", "both", "purity", "completeness"),
        rows,
        "classes",
        "Classes",
        "Purity is the share of the predicted galaxies that were also voted into the class. Completeness is the share of the "
        "galaxies voted into the class that were also predicted.",
        ("", "", "", ",", ",", ",", ".0%", ".0%"),
    )


def _classes(evaluation: Evaluation, galaxies: Candidates) -> Section:
    of_tree = evaluation.tree
    number = len(of_tree.classes)
    classes = "class" if number == 1 else f"{_NUMBERS.get(number, str(number))} classes"
    kind = f"the {classes} of Hubble" if wording.has_hubble_classes(of_tree) else f"the {classes} of the decision tree"
    return Section(
        "hubble",
        "Which galaxies it recognises",
        (
            f"Galaxies of {kind} by the model's predictions: the image and, for each column of the class, "
            "the votes (orange) above the prediction (blue).",
            *_from_sample(evaluation),
        ),
        galleries.galleries(galaxies, galleries.class_choices(galaxies)),
    )


def _from_sample(evaluation: Evaluation) -> tuple[str, ...]:
    """A paragraph for galleries that show a sample."""
    return (f"The galaxies and their numbers here are those of {evaluation.sample}.",) if evaluation.sample else ()


def _extremes(evaluation: Evaluation, galaxies: Candidates) -> Section:
    assert galaxies.predicted is not None
    predicted, voted, counted = galaxies.predicted, galaxies.voted, galaxies.counted
    best, worst = metrics.best_worst(predicted, voted, galleries.CARDS, counted)
    rows, columns = metrics.surprising(predicted, voted, galleries.CARDS, counted)
    column_of = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    error = np.sqrt(metrics.mean_counted(metrics.squared_errors(predicted, voted), counted, 1))
    difference = np.abs(predicted - voted) if counted is None else np.where(counted, np.abs(predicted - voted), 0)

    over = f"the {voted.shape[1]} columns" if counted is None else "the questions that somebody answered"

    def note(row: int) -> str:
        return f"RMSE {error[row]:.3f}"

    choices = [
        Choice(
            "best",
            "Closest to the votes",
            f"Galaxies with the lowest RMSE over {over}, and their three most voted columns.",
            "closest to the votes",
            best,
            lambda row: np.argsort(-voted[row], kind="stable")[:3].tolist(),
            note,
        ),
        Choice(
            "worst",
            "Furthest from the votes",
            f"Galaxies with the highest RMSE over {over}, and the three columns that differ most.",
            "furthest from the votes",
            worst,
            lambda row: np.argsort(-difference[row], kind="stable")[:3].tolist(),
            note,
        ),
        Choice(
            "surprising",
            "Most surprising",
            "Galaxies with the largest difference in a single column. Look at the image and decide who is right.",
            "most surprising",
            rows,
            lambda row: [column_of[row]],
            lambda row: f"off by {difference[row, column_of[row]]:.2f}",
        ),
    ]
    shown = galleries.galleries(galaxies, choices)
    return Section("extremes", "Best, worst, and most surprising", _from_sample(evaluation), shown)


def _question(evaluation: Evaluation, question: Question) -> Section:
    scores, totals, of_tree = evaluation.scores, evaluation.totals, evaluation.tree
    low, high = scores.question_intervals[question.index]
    leads = wording.enumerated([of_tree.columns[parent] for parent in question.parents]).replace(" and ", " or ")
    reach = f"On average, {wording.percent(totals.reach[question.index])} of a galaxy's volunteers are asked it, after {leads}."
    reach = reach if leads else "All volunteers are asked."
    rows = []
    for column in range(question.start, question.stop):
        ends, mean = scores.class_intervals[column], totals.means[column]
        numbers = (
            (mean, ".3f"),
            (scores.per_class[column], ".5f"),
            (np.sqrt(scores.per_class[column]), ".4f"),
        )
        largest = (totals.largest_voted[column], totals.largest_predicted[column])
        rows.append(
            (
                of_tree.columns[column],
                question.answers[column - question.start],
                *(wording.shown(*number) for number in numbers),
                "–" if np.isnan(ends[0]) else f"{ends[0]:.4f} to {ends[1]:.4f}",
                wording.shown(scores.skill[column], ".2f"),
                *("–" if np.isnan(mean) else f"{value:.2f}" for value in largest),
            )
        )
    rmse = np.sqrt(scores.per_question[question.index])
    score = (
        "Nobody answered this question for these galaxies." if np.isnan(rmse) else f"RMSE {rmse:.4f} ({low:.4f} to {high:.4f})."
    )
    return Section(
        tree.anchors(of_tree)[question.index],
        question.called("{}  {}"),
        (wording.sentences(question.words, reach, score),),
        (
            Table(
                ("column", "answer", "mean", "MSE", "RMSE", "95 % interval", "skill", "max. voted", "max. predicted"),
                tuple(rows),
            ),
        ),
        (question.index + 1) % 2,
    )


def _how_many(evaluation: Evaluation) -> tuple[str, ...]:
    """A paragraph about an evaluation of more galaxies than are kept in memory."""
    if not evaluation.sample:
        return ()
    return (
        f"Scores and counts are those of all {wording.some_galaxies(evaluation.totals.galaxies)}. Intervals of errors are from "
        f"{metrics.RESAMPLES:,} resamples of {evaluation.resampled}, in place of single galaxies. Galleries, and charts that "
        f"name it, show {evaluation.sample}.",
    )


def _making(evaluation: Evaluation) -> Section:
    run = evaluation.run
    trained = run.config["dataset"]["galaxies"]
    rows = [*sorted(run.settings.items()), *((f"galaxies in {split}", f"{trained.get(split, 0):,}") for split in SPLITS)]
    parts: list[Chart | Table] = [findings.history(run)] if run.history() else []
    parts.append(Table(("setting", "value"), tuple((name, str(value)) for name, value in rows)))
    return Section("making", "How it was trained", (), tuple(parts))


def _page(evaluation: Evaluation) -> Page:
    predictions = evaluation.predictions
    galaxies = Candidates(
        evaluation.dataset,
        (evaluation.split,),
        predictions.galaxy_ids,
        predictions.targets,
        predictions.predicted,
        evaluation.counted,
        predictions.names,
    )
    of_tree = evaluation.tree
    asked, trained = (source.get("asked") for source in (evaluation.dataset.source, evaluation.run.config["dataset"]))
    tables = (predictions.predicted, predictions.targets, predictions.asked)
    questions = Questions(of_tree, *tables, asked, _galaxies(evaluation), evaluation.totals)
    weighting = wording.weighting(asked, of_tree, trained, evaluation.run.settings["loss"])
    size = evaluation.dataset.size
    content = evaluation.content
    return Page(
        f"{evaluation.run.backbone.name} on {wording.survey(of_tree)}, split {evaluation.split}",
        headline(evaluation),
        f"MSE {content['mse']:.5f} ({content['interval'][0] ** 2:.5f} to {content['interval'][1] ** 2:.5f}) · "
        f"run {evaluation.run.folder} · dataset {evaluation.dataset.folder} · {size} × {size} pixels",
        (
            questions.section(),
            Section(
                "map",
                "Strengths and weaknesses",
                (
                    "RMSE is the root of the mean squared difference between predicted and voted fractions. An RMSE of 0.1 "
                    "corresponds to ten volunteers in a hundred.",
                    *([weighting] if weighting else []),
                    *_how_many(evaluation),
                ),
                (findings.tree_map(evaluation),),
            ),
            Section(
                "by-answer",
                "Answer by answer",
                (),
                (
                    findings.per_class(evaluation),
                    questions.fractions(),
                    *questions.by_answer(),
                    *findings.extremes_and_errors(evaluation),
                ),
            ),
            Section("trust", "How far to trust it", (), findings.trust(evaluation)),
            *([Section("by-class", "Class by class", (), (_class_table(evaluation),))] if of_tree.classes else []),
            *(_question(evaluation, question) for question in of_tree.questions),
            _making(evaluation),
            *([_classes(evaluation, galaxies)] if of_tree.classes else []),
            _extremes(evaluation, galaxies),
        ),
        findings.ladder(evaluation),
        (f"dataset {content['dataset'][:12]} · model {content['model'][:12]}",),
        wording.credit(of_tree),
    )


def write_history_plot(run: Run) -> None:
    """Write report/figures/history.svg, the only chart of a run without a test split; nothing without a history."""
    if not run.history():
        return
    picture = style.svg(findings.history(run).draw(style.WIDE))
    run.output.write({"report/figures/history.svg": picture.encode("utf-8")})


def write_report(evaluation: Evaluation, record: Record) -> None:
    """Write the report of an evaluation; names in figures/ and data/ beside it begin with the split."""
    write_page(_page(evaluation), evaluation.run.output, record.report, f"{record.split}-")
