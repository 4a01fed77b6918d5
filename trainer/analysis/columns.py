"""What pages about votes and about predictions share: the columns as a tree, as box plots, as classes, in a sentence."""

from dataclasses import dataclass

import numpy as np

from tfrecords.tree import Tree
from trainer.analysis import figures, tree, votes, wording
from trainer.analysis.page import Chart
from trainer.analysis.style import PREDICTED, VOTED
from trainer.analysis.table import Table

_QUANTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True)
class ColumnValues:
    """ColumnValues of the answers of a tree, for some galaxies: values (galaxies, n), votes or, if `predicted`, predictions.

    asked: (galaxies, questions), how many volunteers answered each question; None without counts, and for predictions.
    """

    tree: Tree
    values: np.ndarray
    asked: np.ndarray | None = None
    predicted: bool = False

    @property
    def counted(self) -> np.ndarray | None:
        """Which values count: bool (galaxies, n); None: all."""
        return self.tree.counted(self.asked)

    @property
    def kind(self) -> str:
        """Before a noun: "predicted ", or nothing for votes."""
        return "predicted " if self.predicted else ""


def tree_chart(fractions: ColumnValues) -> Chart:
    """The decision tree with the share of the votes that reach each question; each box links to its question's section."""
    of_tree = fractions.tree
    reach = votes.reach(fractions.values, of_tree)
    share = "predicted to be reached by {:.0%}" if fractions.predicted else "reached by {:.0%} of votes"
    notes = [share.format(reach[q.index]) if q.parents else "asked of all" for q in of_tree.questions]
    deviation = of_tree.deviation(fractions.values, fractions.asked).max(axis=0)
    rarest = of_tree.questions[int(np.argmin(reach))]
    return Chart(
        "tree",
        f"Decision tree: question {rarest.called('{} ({})')} is reached by the fewest {fractions.kind}votes, {reach.min():.0%}",
        "The questions for volunteers, and the answers that lead to them. Each box links to the numbers of its question.",
        lambda width: tree.draw(of_tree, width, notes),
        Table(
            (
                "question",
                "title",
                "predicted_to_be_reached" if fractions.predicted else "reached",
                "largest_violation_of_its_sum",
            ),
            tuple((q.key, q.title, reach[n], deviation[n]) for n, q in enumerate(of_tree.questions)),
        ),
        tree.links(of_tree, notes, has_values=False),
    )


def class_table(fractions: ColumnValues) -> Table:
    """How many galaxies are in each class of the tree, at each of its thresholds."""
    of_tree = fractions.tree
    kind = "Hubble class" if wording.has_hubble_classes(of_tree) else "class"
    return Table(
        (kind, "columns", "subclasses", *(f"{fractions.kind}at {threshold}" for threshold in of_tree.thresholds)),
        tuple(
            (
                member.name,
                " and ".join(of_tree.columns[column] for column in member.columns),
                member.note,
                *(int(of_tree.in_class(fractions.values, member, threshold).sum()) for threshold in of_tree.thresholds),
            )
            for member in of_tree.classes
        ),
    )


def how_to_read(of_tree: Tree) -> list[str]:
    """Paragraphs on what columns and classes of a tree are."""
    is_hubble = wording.has_hubble_classes(of_tree)
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
    return paragraphs


def box_chart(fractions: ColumnValues) -> Chart:
    """Box plots of all columns."""
    of_tree, predicted, galaxies = fractions.tree, fractions.predicted, len(fractions.values)
    names = of_tree.columns
    quantiles = votes.quantiles(fractions.values, _QUANTILES, fractions.counted)
    means = votes.means(fractions.values, fractions.counted)
    widest = int(np.argmax(np.nan_to_num(quantiles[3] - quantiles[1], nan=-1.0)))
    label = f"{'predicted' if predicted else 'vote fraction'} ({galaxies:,} galaxies)"
    return Chart(
        "predicted-fractions" if predicted else "vote-fractions",
        f"Box plots of the {len(names)} {fractions.kind}columns: the widest is {names[widest]} ({of_tree.describe(widest)}), "
        f"with half of the galaxies between {quantiles[1, widest]:.2f} and {quantiles[3, widest]:.2f}",
        f"{'Distribution of the predictions' if predicted else 'Class distribution by agreement'}: each box holds the middle "
        "half of the galaxies, its line runs from 5 to 95 %, and the stroke marks the median. Columns are cumulative, so those "
        "far down the tree are small for most galaxies.",
        lambda width: figures.draw_boxes(of_tree, width, label, quantiles, PREDICTED if predicted else VOTED),
        Table(
            ("column", *(f"quantile_{percent}" for percent in _QUANTILES), "mean"),
            tuple((name, *quantiles[:, n], means[n]) for n, name in enumerate(names)),
        ),
    )


def sentence(fractions: ColumnValues, galaxies: str) -> str:
    """The opening sentence: how many galaxies there are, by their class or their answer to the first question.

    galaxies: what they are, "galaxies with votes".
    """
    of_tree, values = fractions.tree, fractions.values
    number = f"{len(values):,} {galaxies}"
    if not of_tree.classes:
        first, counted = of_tree.questions[0], fractions.counted
        answered = values if counted is None else values[counted[:, first.start]]
        answers = np.bincount(answered[:, first.columns].argmax(axis=1), minlength=len(first.answers))
        order = np.argsort(-answers, kind="stable").tolist()
        said = wording.enumerated([f"{answers[place]:,} {first.answers[place]}" for place in order])
        unanswered = len(values) - len(answered)
        others = f"; nobody answered it for {unanswered:,}" if unanswered else ""
        most = "answer with the highest prediction" if fractions.predicted else "most voted answer"
        return f"{number}; by the {most} to “{first.title}”: {said}{others}."
    threshold = min(of_tree.thresholds)
    passes = [of_tree.in_class(values, member, threshold) for member in of_tree.classes]
    said = wording.enumerated(
        [f"{int(inside.sum()):,} {member.plural}" for inside, member in zip(passes, of_tree.classes, strict=True)]
    )
    rest = int((~np.logical_or.reduce(passes)).sum())
    least = f"at least {100 * threshold:g} %"
    according = f"by predictions of {least}" if fractions.predicted else f"according to {least} of the volunteers"
    return f"{number}: {said} {according}, and {rest:,} others."
