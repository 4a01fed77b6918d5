"""The report of a run: its scores, its strengths and weaknesses, and galaxies to look at."""

import numpy as np

from tfrecords.dataset import SPLITS
from tfrecords.tree import Question
from trainer.analysis import findings, galleries, metrics, style, tree, wording
from trainer.analysis.findings import Evaluation
from trainer.analysis.galleries import Candidates, Choice
from trainer.analysis.page import Chart, Page, Section, Table, write_page
from trainer.run import Record, Run

_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def headline(evaluation: Evaluation) -> str:
    """The score, its interval and what it beats, in one sentence."""
    content = evaluation.content
    low, high = content["interval"]
    galaxies = f"{content['galaxies']:,} galaxies of split {evaluation.split}"
    if content["dataset"] != evaluation.run.config["dataset"]["fingerprint"]:
        galaxies += " of another dataset"
    elif evaluation.split == "test":
        galaxies = f"{content['galaxies']:,} unseen galaxies"
    said = f"On {galaxies}, {evaluation.run.backbone.name} reaches an RMSE of {content['rmse']:.4f} ({low:.4f} to {high:.4f})"
    mean = content["baselines"].get("train_mean")
    if mean is None:
        return f"{said}."
    share = 1 - content["rmse"] / mean
    if high < mean:
        return f"{said}: {share:.0%} lower than the column means of train."
    return f"{said}: not clearly better than the column means of train ({mean:.4f})."


def _classes(evaluation: Evaluation, galaxies: Candidates) -> Section:
    of_tree = evaluation.tree
    counts = metrics.class_counts(evaluation.predictions.predicted, evaluation.predictions.targets, of_tree)
    number = _NUMBERS.get(len(of_tree.classes), str(len(of_tree.classes)))
    kind = (
        f"the {number} Hubble classes" if wording.has_hubble_classes(of_tree) else f"the {number} classes of the decision tree"
    )

    def share(value: float) -> str:
        return "–" if np.isnan(value) else f"{value:.0%}"

    table = Table(
        ("class", "threshold", "columns", "predicted", "voted", "both", "purity", "completeness"),
        tuple(
            (
                count.name,
                count.threshold,
                " and ".join(count.columns),
                count.predicted,
                count.true,
                count.both,
                share(count.purity),
                share(count.completeness),
            )
            for count in counts
        ),
    )
    return Section(
        "hubble",
        "Which galaxies it recognises",
        (
            f"Galaxies of {kind} by the model's predictions: the image and, for each column of the class, "
            "the votes (orange) above the prediction (blue). Purity is the share of the predicted galaxies that were also "
            "voted into the class. Completeness is the share of the galaxies voted into the class that were also predicted.",
        ),
        (table, *galleries.galleries(galaxies, galleries.class_choices(galaxies))),
    )


def _extremes(galaxies: Candidates) -> Section:
    assert galaxies.predicted is not None
    predicted, voted, counted = galaxies.predicted, galaxies.voted, galaxies.counted
    best, worst = metrics.best_worst(predicted, voted, galleries.CARDS, counted)
    rows, columns = metrics.surprising(predicted, voted, galleries.CARDS, counted)
    column_of = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    error = np.sqrt(metrics.mean_counted(metrics.squared_errors(predicted, voted), counted, 1))
    difference = np.abs(predicted - voted) if counted is None else np.where(counted, np.abs(predicted - voted), 0)

    def note(row: int) -> str:
        return f"RMSE {error[row]:.3f}"

    choices = [
        Choice(
            "best",
            "Closest to the votes",
            f"Galaxies with the lowest RMSE over the {voted.shape[1]} columns, and their three most voted columns.",
            "closest to the votes",
            best,
            lambda row: np.argsort(-voted[row], kind="stable")[:3].tolist(),
            note,
        ),
        Choice(
            "worst",
            "Furthest from the votes",
            "Galaxies with the highest RMSE, and the three columns that differ most.",
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
    return Section("extremes", "Best, worst, and most surprising", (), galleries.galleries(galaxies, choices))


def _question(evaluation: Evaluation, question: Question) -> Section:
    scores, of_tree = evaluation.scores, evaluation.tree
    predicted, targets, counted = evaluation.predictions.predicted, evaluation.predictions.targets, evaluation.counted
    low, high = scores.question_intervals[question.index]
    asked = of_tree.reached(targets, question).mean(dtype=np.float64)
    leads = wording.enumerated([of_tree.columns[parent] for parent in question.parents]).replace(" and ", " or ")
    reach = f"It is reached by {asked:.0%} of the votes, after {leads}." if leads else "All volunteers are asked."
    rows = []
    for column in range(question.start, question.stop):
        used = slice(None) if counted is None else counted[:, column]
        voted = targets[used, column]
        ends = scores.class_intervals[column]
        numbers = (
            (voted.mean(dtype=np.float64) if len(voted) else np.nan, ".3f"),
            (scores.per_class[column], ".5f"),
            (np.sqrt(scores.per_class[column]), ".4f"),
        )
        largest = (voted.max(initial=0), predicted[used, column].max(initial=0))
        rows.append(
            (
                of_tree.columns[column],
                question.answers[column - question.start],
                *(wording.shown(*number) for number in numbers),
                "–" if np.isnan(ends[0]) else f"{ends[0]:.4f} to {ends[1]:.4f}",
                wording.shown(scores.skill[column], ".2f"),
                *(f"{value:.2f}" if len(voted) else "–" for value in largest),
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


def _making(evaluation: Evaluation) -> Section:
    run, dataset = evaluation.run, evaluation.dataset
    rows = [*sorted(run.settings.items()), *((f"galaxies in {split}", f"{dataset.galaxies(split):,}") for split in SPLITS)]
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
    weighting = wording.weighting(asked, of_tree, trained, evaluation.run.settings["loss"])
    size = evaluation.dataset.size
    content = evaluation.content
    return Page(
        f"{evaluation.run.backbone.name} on {wording.survey(of_tree)}, split {evaluation.split}",
        headline(evaluation),
        f"MSE {content['mse']:.5f} ({content['interval'][0] ** 2:.5f} to {content['interval'][1] ** 2:.5f}) · "
        f"run {evaluation.run.folder} · dataset {evaluation.dataset.folder} · {size} × {size} pixels",
        (
            Section(
                "map",
                "Strengths and weaknesses",
                (
                    "RMSE is the root of the mean squared difference between predicted and voted fractions. An RMSE of 0.1 "
                    "corresponds to ten volunteers in a hundred.",
                    *([weighting] if weighting else []),
                ),
                (findings.tree_map(evaluation),),
            ),
            *([_classes(evaluation, galaxies)] if of_tree.classes else []),
            Section(
                "answers", "Answer by answer", (), (findings.per_class(evaluation), *findings.extremes_and_errors(evaluation))
            ),
            Section("trust", "How far to trust it", (), findings.trust(evaluation)),
            _extremes(galaxies),
            *(_question(evaluation, question) for question in of_tree.questions),
            _making(evaluation),
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
