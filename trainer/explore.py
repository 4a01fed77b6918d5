"""A page about a dataset: how volunteers voted, how the splits compare, and what the images look like."""

from pathlib import Path

import numpy as np

from tfrecords.dataset import Dataset
from tfrecords.files import local_path
from tfrecords.integrity import check_shards
from tfrecords.outputs import Output
from tfrecords.tree import Tree
from trainer.analysis import figures, galleries, tree, votes, wording
from trainer.analysis.galleries import Choice
from trainer.analysis.labelled import LabelledGalaxies, labelled_galaxies
from trainer.analysis.light import light
from trainer.analysis.page import Chart, Page, Section, Table, write_page
from trainer.analysis.selection import Selection, parse_selection
from trainer.analysis.splits import compare_splits
from trainer.backends.startup import explained, load_backend

_PAGE = "index.html"
_BUSY = "another trainer explore is writing here: wait for it, or choose another --out"
_QUANTILES = (5, 25, 50, 75, 95)


def _tree(labelled: LabelledGalaxies) -> Section:
    of_tree = labelled.tree
    reach = votes.reach(labelled.voted, of_tree)
    notes = [f"reached by {reach[q.index]:.0%} of votes" if q.parents else "asked of all" for q in of_tree.questions]
    deviation = of_tree.deviation(labelled.voted, labelled.asked).max(axis=0)
    rarest = of_tree.questions[int(np.argmin(reach))]
    chart = Chart(
        "tree",
        f"Decision tree: question {rarest.called('{} ({})')} is reached by the fewest votes, {reach.min():.0%}",
        "The questions for volunteers, and the answers that lead to them. Each box links to the numbers of its question.",
        lambda width: tree.draw(of_tree, width, notes),
        Table(
            ("question", "title", "reached", "largest_violation_of_its_sum"),
            tuple((q.key, q.title, reach[n], deviation[n]) for n, q in enumerate(of_tree.questions)),
        ),
        tree.links(of_tree, notes, has_values=False),
    )
    is_hubble = wording.has_hubble_classes(of_tree)
    kind = "Hubble class" if is_hubble else "class"
    classes = Table(
        (kind, "columns", "subclasses", *(f"at {threshold}" for threshold in of_tree.thresholds)),
        tuple(
            (
                member.name,
                " and ".join(of_tree.columns[column] for column in member.columns),
                member.note,
                *(int(of_tree.in_class(labelled.voted, member, threshold).sum()) for threshold in of_tree.thresholds),
            )
            for member in of_tree.classes
        ),
    )
    bars = any(of_tree.describe(column) == "bar: yes" for column in range(len(of_tree.columns)))
    example = "“bar: yes” may mean a clear bar in a galaxy that few volunteers saw as a disk"
    paragraphs = [
        "A column is cumulative: the fraction of the volunteers asked who gave this answer, times the column that leads to "
        f"the question. So 0.3 for {example if bars else 'an answer may mean that few volunteers were asked, and all agreed'}."
    ]
    if any(len(question.parents) > 1 for question in of_tree.questions):
        paragraphs.append("If several columns lead to a question, it is their sum.")
    if of_tree.classes:
        kinds = "Hubble classes follow" if is_hubble else "Classes follow"
        elliptical = " By convention, smooth galaxies are called elliptical; they include S0." if is_hubble else ""
        paragraphs.append(
            f"{kinds} from the tree: a galaxy is in a class if all columns of the class reach the threshold.{elliptical}"
        )
    if labelled.asked is not None:
        paragraphs.append(wording.weighting(labelled.dataset.source.get("asked"), of_tree))
    return Section(
        "reading",
        "How to read the votes",
        tuple(paragraphs),
        (chart, classes) if of_tree.classes else (chart,),
    )


def readings(voted: np.ndarray, of_tree: Tree, counted: np.ndarray | None = None) -> list[str]:
    """The tree's readings of the box plots, as sentences with the medians and quartiles of these votes (galaxies, n).

    counted: which votes count, bool (galaxies, n). There is no sentence about a question that nobody answered.
    """
    first, median, third = votes.quantiles(voted, (25, 50, 75), counted)
    sentences = []
    for reading in of_tree.readings:
        column = reading.columns[0]
        values = voted[:, column] if counted is None else voted[counted[:, column], column]
        if not len(values):
            continue
        share = float((values > 0.5).mean())
        galaxies = "galaxies" if len(values) == len(voted) else f"the {len(values):,} galaxies whose volunteers were asked"
        figures_of = [
            f"{of_tree.columns[column]} ({of_tree.describe(column)}) has a median of {wording.shown(median[column], '.2f')} "
            f"(quartiles {wording.shown(first[column], '.2f')} to {wording.shown(third[column], '.2f')})"
            for column in reading.columns
        ]
        sentences.append(
            f"In {share:.0%} of {galaxies}, more than half of the volunteers {reading.words}: {' and '.join(figures_of)}."
        )
    return sentences


def _mean(labelled: LabelledGalaxies, column: int, split: str = "") -> float:
    """The mean of the votes of a column that count, of all galaxies or of a split; NaN if none does."""
    voted, counted = labelled.voted, labelled.counted
    if split:
        voted, counted = labelled.voted_in(split), labelled.counted_in(split)
    values = voted[:, column] if counted is None else voted[counted[:, column], column]
    return float(values.mean(dtype=np.float64)) if len(values) else float("nan")


def _distribution(labelled: LabelledGalaxies) -> Section:
    of_tree, counted = labelled.tree, labelled.counted
    columns = of_tree.columns
    quantiles = votes.quantiles(labelled.voted, _QUANTILES, counted)
    largest = votes.maximum_agreement(labelled.voted, counted)
    full = int((largest >= 0.995).sum())
    lowest = int(np.argmin(largest))
    widest = int(np.argmax(np.nan_to_num(quantiles[3] - quantiles[1], nan=-1.0)))
    return Section(
        "distribution",
        "How volunteers voted",
        tuple(readings(labelled.voted, of_tree, counted)),
        (
            Chart(
                "vote-fractions",
                f"Box plots of the {len(columns)} columns: the widest is {columns[widest]} ({of_tree.describe(widest)}), with "
                f"half of the galaxies between {quantiles[1, widest]:.2f} and {quantiles[3, widest]:.2f}",
                "Class distribution by agreement: each box holds the middle half of the galaxies, its line runs from 5 to "
                "95 %, and the stroke marks the median. Columns are cumulative, so those far down the tree are small for most "
                "galaxies.",
                lambda width: figures.draw_boxes(of_tree, width, len(labelled.voted), quantiles),
                Table(
                    ("column", *(f"quantile_{percent}" for percent in _QUANTILES), "mean"),
                    tuple((name, *quantiles[:, n], _mean(labelled, n)) for n, name in enumerate(columns)),
                ),
            ),
            Chart(
                "maximum-agreement",
                f"Maximum agreement: {full} of {len(columns)} answers have a galaxy with all votes; the lowest is "
                f"{largest[lowest]:.2f}, for {columns[lowest]} ({of_tree.describe(lowest)})",
                "The largest value of each column shows how clear the clearest example of its answer is. "
                f"{full} answers have a galaxy with all votes (at least 99.5 %). The least clear answer is "
                f"{of_tree.describe(lowest)} ({columns[lowest]}), with {largest[lowest]:.2f}.",
                lambda width: figures.draw_maximum_agreement(of_tree, width, len(labelled.voted), largest),
                Table(("column", "maximum_agreement"), tuple(zip(columns, largest, strict=True))),
            ),
        ),
    )


def _selected(labelled: LabelledGalaxies, selection: Selection) -> Section:
    rows = np.flatnonzero(selection.matches(labelled.voted, labelled.counted))
    columns = [labelled.tree.index[name] for name in selection.columns]
    choice = Choice(
        "where",
        f"{len(rows):,} of {len(labelled.galaxy_ids):,} galaxies",
        f"The first galaxies by {wording.id_name(labelled.tree)}." if len(rows) else "No galaxy matches: relax the expression.",
        "selected",
        rows[: galleries.CARDS],
        lambda _: columns,
        lambda _: "",
    )
    return Section("where", f"Where {selection}", (), galleries.galleries(labelled.candidates, [choice]))


def _questions(labelled: LabelledGalaxies) -> list[Section]:
    of_tree = labelled.tree
    quantiles = votes.quantiles(labelled.voted, (25, 50, 75), labelled.counted)
    agreement = votes.agreement(labelled.voted, of_tree, labelled.asked)
    violations = of_tree.deviation(labelled.voted, labelled.asked).max(axis=0)
    largest = votes.maximum_agreement(labelled.voted, labelled.counted)
    sections = []
    for question, anchor in zip(of_tree.questions, tree.anchors(of_tree), strict=True):
        asked = agreement[:, question.index]
        asked = asked[~np.isnan(asked)]
        agreed = "There is no galaxy for which at least half of the volunteers were asked this."
        if len(asked):
            agreed = (
                f"Median agreement {np.median(asked):.2f} over the {len(asked):,} galaxies for which at least half of the "
                "volunteers were asked (1: all give the same answer; 0: all answers have equal votes)."
            )
        sums = f"The sum of its columns differs from {of_tree.leads(question)} by at most {violations[question.index]:.1e}."
        rows = tuple(
            (
                of_tree.columns[column],
                question.answers[column - question.start],
                *(wording.shown(_mean(labelled, column, split), ".3f") for split in labelled.splits),
                *(wording.shown(value, ".2f") for value in quantiles[:, column]),
                f"{largest[column]:.2f}",
            )
            for column in range(question.start, question.stop)
        )
        means = (f"mean in {split}" for split in labelled.splits)
        table = Table(("column", "answer", *means, "1st quartile", "median", "3rd quartile", "maximum"), rows)
        text = wording.sentences(question.words, agreed, sums)
        sections.append(Section(anchor, question.called("{}  {}"), (text,), (table,), (question.index + 1) % 2))
    return sections


def survey_headline(labelled: LabelledGalaxies) -> str:
    """The opening sentence: how many galaxies there are, by their class or their answer to the first question."""
    of_tree = labelled.tree
    number = f"{len(labelled.galaxy_ids):,} galaxies with votes"
    if not of_tree.classes:
        first = of_tree.questions[0]
        counted = labelled.counted
        voted = labelled.voted if counted is None else labelled.voted[counted[:, first.start]]
        answers = np.bincount(voted[:, first.columns].argmax(axis=1), minlength=len(first.answers))
        order = np.argsort(-answers, kind="stable").tolist()
        said = wording.enumerated([f"{answers[place]:,} {first.answers[place]}" for place in order])
        unanswered = len(labelled.voted) - len(voted)
        others = f"; nobody answered it for {unanswered:,}" if unanswered else ""
        return f"{number}; by the most voted answer to “{first.title}”: {said}{others}."
    threshold = min(of_tree.thresholds)
    passes = [of_tree.in_class(labelled.voted, member, threshold) for member in of_tree.classes]
    said = wording.enumerated(
        [f"{int(inside.sum()):,} {member.plural}" for inside, member in zip(passes, of_tree.classes, strict=True)]
    )
    rest = int((~np.logical_or.reduce(passes)).sum())
    return f"{number}: {said} according to at least {100 * threshold:g} % of the volunteers, and {rest:,} others."


@explained
def explore_dataset(dataset: Dataset, out: str | Path, source: str | Path | None = None, where: str | None = None) -> Path:
    """Write a page about a dataset: its votes, classes, splits and images.

    Parameters
    ----------
    dataset : Dataset
        A dataset, from `tfrecords.open_dataset`.
    out : str or Path
        Folder for `index.html`, `figures/` and `data/`.
    source : str or Path, optional
        The images that were preprocessed; adds how much of each galaxy's light the crop keeps.
    where : str, optional
        Adds a gallery of the galaxies that match this expression, as in "Class4.1 > 0.8 and not Class3.1 > 0.5".

    Returns
    -------
    Path
        The page.

    Raises
    ------
    SettingError
        If `where` cannot be parsed.
    ConfigError
        If `out` holds something else, another explore is writing there, or `source` holds other images.
    SourceError
        If `source` cannot be read.
    DatasetError
        If no galaxy has votes, or a shard is damaged.

    Examples
    --------
    >>> from tfrecords import open_dataset
    >>> from trainer import explore_dataset
    >>> print(explore_dataset(open_dataset("data/demo"), "page").as_posix())
    page/index.html
    """
    selection = None if where is None else parse_selection(where, dataset.tree)
    out, source = local_path(out), None if source is None else local_path(source)
    output = Output(out, "page")
    output.refuse_others()
    output.refuse_others([_PAGE, *output.files])
    with output.locked(_BUSY):
        write_page(_page(dataset, source, selection), output, _PAGE)
    return out / _PAGE


def _page(dataset: Dataset, source: Path | None, selection: Selection | None) -> Page:
    load_backend()
    check_shards(dataset, [shard for shard in dataset.shards if shard.split != "unlabelled"])
    labelled = labelled_galaxies(dataset)
    pictures = light(labelled, source)
    of_tree = dataset.tree
    classes = []
    if of_tree.classes:
        plurals = ", ".join(member.plural for member in of_tree.classes)
        shown = galleries.galleries(labelled.candidates, galleries.class_choices(labelled.candidates))
        classes.append(Section("hubble", plurals[:1].upper() + plurals[1:], (), shown))
    chosen = [_selected(labelled, selection)] if selection else []
    opening = (*chosen, _tree(labelled), _distribution(labelled), *classes)
    sections = (*opening, pictures, compare_splits(labelled), *_questions(labelled))
    facts = f"dataset {dataset.folder} · {dataset.size} × {dataset.size} pixels · fingerprint {dataset.fingerprint[:12]}"
    title = f"{wording.survey(of_tree)}: exploring the data"
    return Page(title, survey_headline(labelled), facts, sections, credit=wording.credit(of_tree))
