"""A page about a dataset: how volunteers voted, how the splits compare, and what the images look like.

Or about a table of predictions of its galaxies, which need no votes.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tfrecords.dataset import Dataset
from tfrecords.files import local_path
from tfrecords.integrity import check_shards
from tfrecords.outputs import Output
from tfrecords.tree import Tree
from trainer.analysis import figures, galleries, tree, votes, wording
from trainer.analysis.columns import box_chart, class_table, how_to_read, sentence, tree_chart
from trainer.analysis.labelled import LabelledGalaxies, labelled_galaxies
from trainer.analysis.light import light
from trainer.analysis.page import Chart, Page, Section, write_page
from trainer.analysis.predicted import predicted_galaxies, predictions_page
from trainer.analysis.selection import Selection, parse_selection
from trainer.analysis.splits import compare_splits
from trainer.analysis.table import Table
from trainer.backends.startup import explained, load_backend

_PAGE = "index.html"
_BUSY = "another trainer explore is writing here: wait for it, or choose another --out"


def _tree(labelled: LabelledGalaxies) -> Section:
    paragraphs = how_to_read(labelled.tree)
    if labelled.asked is not None:
        paragraphs.append(wording.weighting(labelled.dataset.source.get("asked"), labelled.tree))
    classes = (class_table(labelled.fractions),) if labelled.tree.classes else ()
    return Section("reading", "How to read the votes", tuple(paragraphs), (tree_chart(labelled.fractions), *classes))


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


def _distribution(labelled: LabelledGalaxies) -> Section:
    of_tree, counted = labelled.tree, labelled.counted
    columns = of_tree.columns
    largest = votes.maximum_agreement(labelled.voted, counted)
    full = int((largest >= 0.995).sum())
    lowest = int(np.argmin(largest))
    return Section(
        "distribution",
        "How volunteers voted",
        tuple(readings(labelled.voted, of_tree, counted)),
        (
            box_chart(labelled.fractions),
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


def _questions(labelled: LabelledGalaxies) -> list[Section]:
    of_tree = labelled.tree
    quantiles = votes.quantiles(labelled.voted, (25, 50, 75), labelled.counted)
    agreement = votes.agreement(labelled.voted, of_tree, labelled.asked)
    violations = of_tree.deviation(labelled.voted, labelled.asked).max(axis=0)
    largest = votes.maximum_agreement(labelled.voted, labelled.counted)
    means = [votes.means(labelled.voted_in(split), labelled.counted_in(split)) for split in labelled.splits]
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
                *(wording.shown(mean[column], ".3f") for mean in means),
                *(wording.shown(value, ".2f") for value in quantiles[:, column]),
                f"{largest[column]:.2f}",
            )
            for column in range(question.start, question.stop)
        )
        of_splits = (f"mean in {split}" for split in labelled.splits)
        table = Table(("column", "answer", *of_splits, "1st quartile", "median", "3rd quartile", "maximum"), rows)
        text = wording.sentences(question.words, agreed, sums)
        sections.append(Section(anchor, question.called("{}  {}"), (text,), (table,), (question.index + 1) % 2))
    return sections


def survey_headline(labelled: LabelledGalaxies) -> str:
    """The opening sentence: how many galaxies there are, by their class or their answer to the first question."""
    return sentence(labelled.fractions, "galaxies with votes")


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
    source = None if source is None else local_path(source)
    return _written(local_path(out), dataset, where, lambda selection: _page(dataset, source, selection))


@explained
def explore_predictions(dataset: Dataset, predictions: str | Path, out: str | Path, where: str | None = None) -> Path:
    """Write a page about a table of predictions: the galaxies that a model puts into each class and gives each answer.

    Parameters
    ----------
    dataset : Dataset
        A dataset with the galaxies of the table, from `tfrecords.open_dataset`. They need no votes.
    predictions : str or Path
        A table that `trainer predict` or `write_csv` wrote. Galaxies of it that are not in the dataset are left out, with a
        warning.
    out : str or Path
        Folder for `index.html`, `figures/` and `data/`.
    where : str, optional
        Adds a gallery of the galaxies whose predictions match this expression, as in "Class3.1 > 0.6".

    Returns
    -------
    Path
        The page.

    Raises
    ------
    SettingError
        If `where` cannot be parsed.
    ConfigError
        If `out` holds something else, another explore is writing there, or the table is of another tree or other galaxies, or
        damaged.
    DatasetError
        If a shard is damaged.

    Examples
    --------
    >>> from tfrecords import open_dataset
    >>> from trainer import explore_predictions, open_run, predict_split, write_csv
    >>> dataset = open_dataset("data/demo")
    >>> write_csv(predict_split(open_run("runs/demo"), dataset, "unlabelled"), "unlabelled.csv")
    >>> print(explore_predictions(dataset, "unlabelled.csv", "predicted", where="Class3.1 > 0.2").as_posix())
    predicted/index.html
    """
    table = local_path(predictions)

    def page(selection: Selection | None) -> Page:
        load_backend()
        return predictions_page(predicted_galaxies(dataset, table), selection)

    return _written(local_path(out), dataset, where, page)


def _written(out: Path, dataset: Dataset, where: str | None, page: Callable[[Selection | None], Page]) -> Path:
    """Write what `page` returns for the selection `where` to a folder."""
    selection = None if where is None else parse_selection(where, dataset.tree)
    output = Output(out, "page")
    output.refuse_others()
    output.refuse_others([_PAGE, *output.files])
    with output.locked(_BUSY):
        write_page(page(selection), output, _PAGE)
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
    chosen = []
    if selection:
        [gallery] = galleries.galleries(labelled.candidates, [galleries.selected_choice(labelled.candidates, selection)])
        chosen.append(Section("where", f"Where {selection}", (), (gallery,)))
    opening = (*chosen, _tree(labelled), _distribution(labelled), *classes)
    sections = (*opening, pictures, compare_splits(labelled), *_questions(labelled))
    facts = f"dataset {dataset.folder} · {dataset.size} × {dataset.size} pixels · fingerprint {dataset.fingerprint[:12]}"
    title = f"{wording.survey(of_tree)}: exploring the data"
    return Page(title, survey_headline(labelled), facts, sections, credit=wording.credit(of_tree))
