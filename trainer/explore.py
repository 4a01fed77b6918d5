"""A page about a dataset: how volunteers voted, how the splits compare, and what the images look like."""

from pathlib import Path

import numpy as np

from tfrecords.dataset import SPLITS, Dataset
from tfrecords.files import local_path
from tfrecords.integrity import check_shards
from tfrecords.outputs import Output
from tfrecords.taxonomy import (
    COLUMN_INDEX,
    COLUMNS,
    HUBBLE_CLASSES,
    HUBBLE_THRESHOLDS,
    QUESTIONS,
    column_means,
    describe,
    hubble_score,
    tree_deviation,
)
from trainer.analysis import figures, galleries, tree, votes
from trainer.analysis.galleries import Choice
from trainer.analysis.labelled import LabelledGalaxies, labelled_galaxies
from trainer.analysis.light import light
from trainer.analysis.page import Chart, Page, Section, Table, write_page
from trainer.analysis.selection import Selection, parse_selection
from trainer.backends.startup import explained, load_backend

# A larger difference between column means is hardly chance; with fewer than _FEWEST galaxies, skewed columns often have it.
STANDARD_ERRORS = 4.0
_FEWEST = 10
_PAGE = "index.html"
_BUSY = "another trainer explore is writing here: wait for it, or choose another --out"
_ARMS = "question 10: how tightly wound, a to c; question 11: how many arms"
_SUBCLASSES = {"elliptical": "question 7: how round, E0 to E7", "spiral": _ARMS, "barred spiral": _ARMS}
_QUANTILES = (5, 25, 50, 75, 95)
# The article's readings of its box plots: columns, and what a majority for the first column means.
_READINGS = (
    (("Class6.2", "Class6.1"), "find nothing odd"),
    (("Class1.2",), "see features or a disk"),
    (("Class2.2", "Class2.1"), "see a disk that is not edge-on"),
    (("Class3.2", "Class3.1"), "see a disk that is not edge-on and has no bar"),
)


def _tree(labelled: LabelledGalaxies) -> Section:
    reach = votes.reach(labelled.voted)
    notes = ["asked of all" if q.parent is None else f"reached by {reach[n]:.0%} of votes" for n, q in enumerate(QUESTIONS)]
    deviation = tree_deviation(labelled.voted).max(axis=0)
    rarest = QUESTIONS[int(np.argmin(reach))]
    chart = Chart(
        "tree",
        f"Decision tree: question {rarest.number} ({rarest.title}) is reached by the fewest votes, {reach.min():.0%}",
        "The questions for volunteers, and the answers that lead to them. Each box links to the numbers of its question.",
        lambda width: tree.draw(width, notes),
        Table(
            ("question", "title", "reached", "largest_violation_of_its_sum"),
            tuple((q.number, q.title, reach[n], deviation[n]) for n, q in enumerate(QUESTIONS)),
        ),
        tree.links(notes, has_values=False),
    )
    hubble = Table(
        ("Hubble class", "columns", "subclasses", *(f"at {threshold}" for threshold in HUBBLE_THRESHOLDS)),
        tuple(
            (
                name,
                " and ".join(columns),
                _SUBCLASSES[name],
                *(int((hubble_score(labelled.voted, name) >= threshold).sum()) for threshold in HUBBLE_THRESHOLDS),
            )
            for name, columns in HUBBLE_CLASSES.items()
        ),
    )
    return Section(
        "reading",
        "How to read the votes",
        (
            "A column is cumulative: the fraction of the volunteers asked who gave this answer, times the column that leads to "
            "the question. So 0.3 for “bar: yes” may mean a clear bar in a galaxy that few volunteers saw as a disk.",
            "Hubble classes follow from the tree: a galaxy is in a class if all columns of the class reach the threshold. By "
            "convention, smooth galaxies are called elliptical; they include S0.",
        ),
        (chart, hubble),
    )


def readings(voted: np.ndarray) -> list[str]:
    """The article's four readings of the box plots, as sentences with the medians and quartiles of these votes (n, 37)."""
    first, median, third = np.percentile(voted, (25, 50, 75), axis=0)
    sentences = []
    for names, what in _READINGS:
        columns = [COLUMN_INDEX[name] for name in names]
        share = float((voted[:, columns[0]] > 0.5).mean())
        figures_of = [
            f"{name} ({describe(column)}) has a median of {median[column]:.2f} (quartiles {first[column]:.2f} to "
            f"{third[column]:.2f})"
            for name, column in zip(names, columns, strict=True)
        ]
        sentences.append(f"In {share:.0%} of galaxies, more than half of the volunteers {what}: {' and '.join(figures_of)}.")
    return sentences


def _distribution(labelled: LabelledGalaxies) -> Section:
    quantiles = np.percentile(labelled.voted, _QUANTILES, axis=0)
    largest = votes.maximum_agreement(labelled.voted)
    full = int((largest >= 0.995).sum())
    lowest = int(np.argmin(largest))
    widest = int(np.argmax(quantiles[3] - quantiles[1]))
    return Section(
        "distribution",
        "How volunteers voted",
        tuple(readings(labelled.voted)),
        (
            Chart(
                "vote-fractions",
                f"Box plots of the 37 columns: the widest is {COLUMNS[widest]} ({describe(widest)}), with half of the galaxies "
                f"between {quantiles[1, widest]:.2f} and {quantiles[3, widest]:.2f}",
                "Class distribution by agreement: each box holds the middle half of the galaxies, its line runs from 5 to "
                "95 %, and the stroke marks the median. Columns are cumulative, so those far down the tree are small for most "
                "galaxies.",
                lambda width: figures.draw_boxes(width, len(labelled.voted), quantiles),
                Table(
                    ("column", *(f"quantile_{percent}" for percent in _QUANTILES), "mean"),
                    tuple(
                        (name, *quantiles[:, n], labelled.voted[:, n].mean(dtype=np.float64)) for n, name in enumerate(COLUMNS)
                    ),
                ),
            ),
            Chart(
                "maximum-agreement",
                f"Maximum agreement: {full} of 37 answers have a galaxy with all votes; the lowest is "
                f"{largest[lowest]:.2f}, for {COLUMNS[lowest]} ({describe(lowest)})",
                "The largest value of each column shows how clear the clearest example of its answer is. "
                f"{full} answers have a galaxy with all votes (at least 99.5 %). The least clear answer is "
                f"{describe(lowest)} ({COLUMNS[lowest]}), with {largest[lowest]:.2f}.",
                lambda width: figures.draw_maximum_agreement(width, len(labelled.voted), largest),
                Table(("column", "maximum_agreement"), tuple(zip(COLUMNS, largest, strict=True))),
            ),
        ),
    )


def _splits(labelled: LabelledGalaxies) -> Section:
    train = labelled.voted_in("train") if "train" in labelled.splits else None
    means = {split: column_means(labelled.voted_in(split)) for split in labelled.splits}
    others = [split for split in labelled.splits if split != "train" and len(labelled.voted_in(split)) >= _FEWEST]
    if train is None or len(train) < _FEWEST:
        others = []
    errors = {split: votes.differing_means(train, labelled.voted_in(split))[1] for split in others} if train is not None else {}
    flagged = [
        f"{COLUMNS[column]} in {split} ({means[split][column]:.3f} against {means['train'][column]:.3f})"
        for split in others
        for column in np.flatnonzero(np.abs(errors[split]) > STANDARD_ERRORS)
    ]
    if not others:
        said = (
            "There is nothing to compare: that needs train and another split, each with at least "
            f"{_FEWEST} galaxies with votes."
        )
    elif flagged:
        said = f"More than {STANDARD_ERRORS:.0f} standard errors from train, unlikely to be chance: {'; '.join(flagged)}."
    else:
        said = f"No column mean is more than {STANDARD_ERRORS:.0f} standard errors from that in train: no sign of a difference."
    deviation = tree_deviation(labelled.voted).max(axis=0)
    worst = int(np.argmax(deviation))
    sums = (
        "Each question's columns must add up to the column that leads to it; the largest violation is "
        f"{deviation[worst]:.1e}, in question {QUESTIONS[worst].number} ({QUESTIONS[worst].title})."
    )
    parts: list[Chart | Table] = [
        Table(
            ("split", "galaxies", "share"),
            tuple(
                (
                    split,
                    labelled.dataset.galaxies(split),
                    f"{labelled.dataset.galaxies(split) / sum(map(labelled.dataset.galaxies, SPLITS)):.1%}",
                )
                for split in SPLITS
                if labelled.dataset.galaxies(split)
            ),
        )
    ]
    if others:
        parts.append(
            Chart(
                "splits",
                f"Column means of each split: {len(flagged)} differ from train by more than {STANDARD_ERRORS:.0f} "
                "standard errors",
                "Each mark compares the mean of a column in a split with that in train. Differences within the band of "
                f"{STANDARD_ERRORS:.0f} standard errors may be chance.",
                lambda width: figures.draw_split_differences(width, errors, STANDARD_ERRORS),
                Table(
                    ("split", "column", "mean", "train_mean", "difference_in_standard_errors", "flagged"),
                    tuple(
                        (
                            split,
                            name,
                            means[split][n],
                            means["train"][n],
                            errors[split][n],
                            bool(abs(errors[split][n]) > STANDARD_ERRORS),
                        )
                        for split in others
                        for n, name in enumerate(COLUMNS)
                    ),
                ),
            )
        )
    return Section("splits", "The splits", (said, sums), tuple(parts))


def _selected(labelled: LabelledGalaxies, selection: Selection) -> Section:
    rows = np.flatnonzero(selection.matches(labelled.voted))
    columns = [COLUMN_INDEX[name] for name in selection.columns]
    choice = Choice(
        "where",
        f"{len(rows):,} of {len(labelled.galaxy_ids):,} galaxies",
        "The first galaxies by GalaxyID." if len(rows) else "No galaxy matches: relax the expression.",
        "selected",
        rows[: galleries.CARDS],
        lambda _: columns,
        lambda _: "",
    )
    return Section("where", f"Where {selection}", (), galleries.galleries(labelled.candidates, [choice]))


def _questions(labelled: LabelledGalaxies) -> list[Section]:
    quantiles = np.percentile(labelled.voted, (25, 50, 75), axis=0)
    agreement = votes.agreement(labelled.voted)
    violations = tree_deviation(labelled.voted).max(axis=0)
    sections = []
    for question in QUESTIONS:
        asked = agreement[:, question.number - 1]
        asked = asked[~np.isnan(asked)]
        agreed = "There is no galaxy for which at least half of the volunteers were asked this."
        if len(asked):
            agreed = (
                f"Median agreement {np.median(asked):.2f} over the {len(asked):,} galaxies for which at least half of the "
                "volunteers were asked (1: all give the same answer; 0: all answers have equal votes)."
            )
        total = "1" if question.parent is None else COLUMNS[question.parent]
        sums = f"The sum of its columns differs from {total} by at most {violations[question.number - 1]:.1e}."
        rows = tuple(
            (
                COLUMNS[column],
                describe(column).partition(": ")[2],
                *(f"{labelled.voted_in(split)[:, column].mean(dtype=np.float64):.3f}" for split in labelled.splits),
                *(f"{value:.2f}" for value in quantiles[:, column]),
                f"{labelled.voted[:, column].max():.2f}",
            )
            for column in range(question.start, question.stop)
        )
        means = (f"mean in {split}" for split in labelled.splits)
        table = Table(("column", "answer", *means, "1st quartile", "median", "3rd quartile", "maximum"), rows)
        title = f"{question.number}  {question.title}"
        sections.append(
            Section(f"question-{question.number}", title, (f"{question.words} {agreed} {sums}",), (table,), question.number % 2)
        )
    return sections


def _headline(labelled: LabelledGalaxies) -> str:
    scores = {name: hubble_score(labelled.voted, name) >= 0.6 for name in HUBBLE_CLASSES}
    said = [f"{int(passes.sum()):,} {galleries.PLURAL[name]}" for name, passes in scores.items()]
    rest = int((~np.logical_or.reduce(list(scores.values()))).sum())
    return (
        f"{len(labelled.galaxy_ids):,} galaxies with votes: {said[0]}, {said[1]} and {said[2]} according to at least "
        f"60 % of the volunteers, and {rest:,} others."
    )


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
    selection = None if where is None else parse_selection(where)
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
    classes = Section(
        "hubble",
        "Ellipticals, spirals, barred spirals",
        (),
        galleries.galleries(labelled.candidates, galleries.hubble_choices(labelled.candidates)),
    )
    chosen = [_selected(labelled, selection)] if selection else []
    sections = (*chosen, _tree(labelled), _distribution(labelled), classes, pictures, _splits(labelled), *_questions(labelled))
    facts = f"dataset {dataset.folder} · {dataset.size} × {dataset.size} pixels · fingerprint {dataset.fingerprint[:12]}"
    return Page("Galaxy Zoo: exploring the data", _headline(labelled), facts, sections)
