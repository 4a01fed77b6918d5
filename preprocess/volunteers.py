"""How volunteers answer the questions of a survey's tree about a drawn galaxy.

Questions and answers are recognised by their words, so surveys that ask the same in other words, or with more answers, share
one rule each: the parameters with which a galaxy was drawn give the probability of every answer. Volunteers then answer at
random, each led through the tree by their own answers.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from preprocess.synthetic import Galaxy
from tfrecords.builtin import builtin_names
from tfrecords.errors import SettingError
from tfrecords.tree import Question, Tree, for_answers

Chances = Callable[[Galaxy, Sequence[str]], np.ndarray]
_STAY = 0.985  # of the volunteers who are led to a question, where a survey publishes counts


def _logistic(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def _near(value: float, centres: Sequence[float] | np.ndarray, width: float) -> np.ndarray:
    """Probabilities of answers on a scale: the closer `value` is to the centre of an answer, the likelier the answer."""
    closeness = np.exp(-0.5 * ((value - np.asarray(centres)) / width) ** 2) + 1e-3
    return closeness / closeness.sum()


def _chosen(answers: Sequence[str], chances: Mapping[str, float]) -> np.ndarray:
    """The chances of these answers, in this order; scaled to add up to 1 if some answers are not offered."""
    values = np.array([chances[answer] for answer in answers])
    return values if len(answers) == len(chances) else values / values.sum()


def _yes_no(answers: Sequence[str], yes: float) -> np.ndarray:
    return _chosen(answers, {"yes": yes, "no": 1 - yes})


def _no_galaxy(g: Galaxy) -> float:
    return 0.92 if g.kind in ("star", "trail") else 0.012


def _spiral_structure(g: Galaxy) -> float:
    return g.arm_contrast if g.arms else 0.0


def _smooth_or_featured(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    edge_on, artifact = g.kind == "edge-on", _no_galaxy(g)
    structure = max(
        0.9 * edge_on, _spiral_structure(g), g.bar, 0.9 * g.ring, 0.9 * g.clumps, 0.5 * g.disturbance, 0.35 * g.companion
    )
    featured = (1 - artifact) * _logistic(7 * (structure - 0.42))
    return _chosen(answers, {"smooth": 1 - artifact - featured, "featured": featured, "artifact": artifact})


def _edge_on(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    return _yes_no(answers, 0.97 if g.kind == "edge-on" else _logistic(22 * (0.34 - g.axis_ratio)))


def _bar(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    return _yes_no(answers, 0.96 * _logistic(9 * (g.bar - 0.38)) + 0.02)


def _bar_strength(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    bar, strong = 0.95 * _logistic(12 * (g.bar - 0.3)) + 0.02, _logistic(10 * (g.bar - 0.62))
    return _chosen(answers, {"strong": bar * strong, "weak": bar * (1 - strong), "no": 1 - bar})


def _spiral(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    return _yes_no(answers, 0.97 * _logistic(9 * (_spiral_structure(g) - 0.28)) + 0.01)


_BULGES = {
    "none": 0.0,
    "small": 0.27,
    "just noticeable": 0.28,
    "moderate": 0.42,
    "obvious": 0.48,
    "large": 0.56,
    "dominant": 0.72,
}


def _bulge(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    return _near(np.sqrt(g.bulge), [_BULGES[answer] for answer in answers], 0.085)


def _bulge_size(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    """Who sees a disk in a spheroid sees a large bulge in it."""
    return _bulge(replace(g, bulge=0.45) if g.kind == "spheroid" else g, answers)


def _oddities(g: Galaxy) -> dict[str, float]:
    dust = (0.6 if g.kind == "edge-on" else 0.9) * g.dust
    return {
        "ring": g.ring,
        "arc": g.arc,
        "disturbed": g.disturbance,
        "irregular": g.clumps,
        "merger": g.companion,
        "dust": dust,
    }


def _odd(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    return _yes_no(answers, 0.95 * _logistic(8 * (max(_oddities(g).values()) - 0.55)) + 0.03)


def _odd_feature(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    shown = {**_oddities(g), "other": 0.15}
    oddness = np.array([shown[answer] for answer in answers]) ** 2 + 0.01
    return np.asarray(oddness / oddness.sum())


def _ring(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    return _yes_no(answers, 0.95 * _logistic(8 * (g.ring - 0.55)) + 0.03)


def _roundness(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    centres = {"round": 0.95, "in between": 0.64, "cigar": 0.3}
    return _near(g.axis_ratio, [centres[answer] for answer in answers], 0.11)


def _edge_on_bulge(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    bulge = 1 - np.exp(-g.bulge / 0.07) if g.kind == "edge-on" else 0.9
    boxy = 0.05 + 0.6 * g.boxiness
    return _chosen(answers, {"rounded": bulge * (1 - boxy), "boxy": bulge * boxy, "none": 1 - bulge})


def _winding(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    centres = {"tight": 9.5, "medium": 18.5, "loose": 33.5}
    return _near(np.log(g.pitch), np.log([centres[answer] for answer in answers]), 0.22)


_COUNTS = ("1", "2", "3", "4", "more than 4")


def _arm_count(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    lost = np.clip(0.08 + 0.75 * g.fuzziness + 0.3 * (0.8 - g.arm_contrast), 0, 0.95) if g.arms else 0.6
    counts = dict(zip(_COUNTS, _near(g.arms or 2, (1, 2, 3, 4, 5.5), 0.45), strict=True))
    return _chosen(answers, {**{count: chance * (1 - lost) for count, chance in counts.items()}, "can't tell": lost})


def _either(merger: float, together: Mapping[str, float], apart: Mapping[str, float]) -> dict[str, float]:
    """The chances of answers to a galaxy that with probability `merger` is seen as one: those `together`, or those `apart`."""
    return {answer: merger * together[answer] + (1 - merger) * apart.get(answer, 0) for answer in together}


def _merger(g: Galaxy) -> float:
    return 0.9 * _logistic(8 * (g.companion - 0.45)) if g.companion else 0.012


def _disorder(g: Galaxy) -> float:
    return max(g.disturbance, 0.4 * g.clumps)


def _merging(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    scale = ("none", "minor disturbance", "major disturbance")
    apart = dict(zip(scale, _near(_disorder(g), (0.0, 0.5, 0.95), 0.25), strict=True))
    together = {"none": 0.02, "minor disturbance": 0.04, "major disturbance": 0.14, "merger": 0.8}
    return _chosen(answers, _either(_merger(g), together, apart))


def _tidal_debris(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    """A merging neighbour is drawn with a tail, a disturbed disk with a tail alone."""
    tidal = 0.9 * _logistic(9 * (_disorder(g) - 0.45)) + 0.015
    together = {"none": 0.02, "tidal debris": 0.03, "merger": 0.65, "both": 0.3}
    return _chosen(answers, _either(_merger(g), together, {"none": 1 - tidal, "tidal debris": tidal}))


def _clumps(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    return _yes_no(answers, 0.93 * _logistic(9 * (g.clumps - 0.45)) + 0.03)


def _problem(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    kinds = {"star": (0.8, 0.15, 0.05), "trail": (0.03, 0.94, 0.03)}
    return _chosen(answers, dict(zip(("star", "artifact", "zoom"), kinds.get(g.kind, (0.2, 0.3, 0.5)), strict=True)))


_ARTIFACTS = ("satellite", "diffraction", "saturation", "scattered light", "cosmic ray", "ghost", "other")


def _artifact(g: Galaxy, answers: Sequence[str]) -> np.ndarray:
    """A trail looks like a satellite's, a bright star is saturated and has spikes."""
    shown = dict.fromkeys(_ARTIFACTS, 0.2)
    if g.kind == "trail":
        shown |= {"satellite": 3.0}
    elif g.kind == "star":
        shown |= {"diffraction": 2.0, "saturation": 1.5}
    total = sum(shown.values())
    return _chosen(answers, {answer: chance / total for answer, chance in shown.items()})


@dataclass(frozen=True)
class Topic:
    """What a question is about. names: those that surveys give it; answers: those that its rule covers, in our words; chances:
    the rule, from a galaxy and some of these answers to their probabilities."""

    names: tuple[str, ...]
    answers: tuple[str, ...]
    chances: Chances


_YES_NO = ("yes", "no")
_TOPICS = (
    Topic(("smooth or featured", "smooth or features"), ("smooth", "featured", "artifact"), _smooth_or_featured),
    Topic(("edge on", "disk edge on"), _YES_NO, _edge_on),
    Topic(("bar",), _YES_NO, _bar),
    Topic(("bar",), ("strong", "weak", "no"), _bar_strength),
    Topic(("spiral", "spiral arms", "has spiral arms"), _YES_NO, _spiral),
    Topic(("bulge", "bulge size"), ("dominant", "large", "obvious", "moderate", "small", "none"), _bulge_size),
    Topic(("bulge", "bulge size", "bulge prominence"), tuple(_BULGES), _bulge),
    Topic(("odd", "something odd"), _YES_NO, _odd),
    Topic(("odd feature",), ("ring", "arc", "disturbed", "irregular", "other", "merger", "dust"), _odd_feature),
    Topic(("ring", "rings"), _YES_NO, _ring),
    Topic(("roundness", "how rounded", "rounded"), ("round", "in between", "cigar"), _roundness),
    Topic(("edge on bulge", "bulge shape"), ("rounded", "boxy", "none"), _edge_on_bulge),
    Topic(("winding", "spiral winding", "arms winding"), ("tight", "medium", "loose"), _winding),
    Topic(("arms", "arms number", "arm count", "spiral arm count"), (*_COUNTS, "can't tell"), _arm_count),
    Topic(("merging",), ("none", "minor disturbance", "major disturbance", "merger"), _merging),
    Topic(("merging",), ("none", "tidal debris", "merger", "both"), _tidal_debris),
    Topic(("clumps", "clumpy appearance"), _YES_NO, _clumps),
    Topic(("problem",), ("star", "artifact", "zoom"), _problem),
    Topic(
        ("artifact",), ("satellite", "diffraction", "saturation", "scattered light", "cosmic ray", "ghost", "other"), _artifact
    ),
)
# Answers in other words than ours. The first that the topic covers is meant.
_OTHER_WORDS = {
    "featured or disk": ("featured",), "features or disk": ("featured",), "features": ("featured",),
    "star or artifact": ("artifact",), "problem": ("artifact",), "bad zoom": ("zoom",),
    "bar": ("yes",), "spiral": ("yes",), "ring": ("yes",), "no bar": ("no",), "no spiral": ("no",),
    "no ring": ("no",), "no bulge": ("none",), "no": ("none",), "none": ("no",), "neither": ("none",),
    "completely round": ("round",), "completely": ("round",), "round": ("rounded",), "cigar shaped": ("cigar",),
    "lens or arc": ("arc",), "dust lane": ("dust",), "cant tell": ("can't tell",), "scattered": ("scattered light",),
    "ray": ("cosmic ray",),
}  # fmt: skip


def _words(text: str) -> str:
    """A name in lower case, its parts separated by single spaces: How-Rounded -> how rounded."""
    return re.sub(r"[\s_,-]+", " ", text).strip().lower()


def _in_our_words(topic: Topic, answers: Sequence[str]) -> tuple[str, ...] | None:
    """The answers of a question as its topic calls them; None if the topic does not cover each of them once."""
    ours = []
    for answer in map(_words, answers):
        meant = next((word for word in (answer, *_OTHER_WORDS.get(answer, ())) if word in topic.answers), None)
        if meant is None or meant in ours:
            return None
        ours.append(meant)
    return tuple(ours)


def _topic_of(question: Question) -> tuple[Topic, tuple[str, ...]] | None:
    """What a question is about, and its answers in our words; None if no topic fits.

    The longest name that begins its title or key decides, so that a survey's name at the end is no obstacle: bar-euclid.
    """
    for asked in (_words(question.title), _words(question.key)):
        names = [name for topic in _TOPICS for name in topic.names if f"{asked} ".startswith(f"{name} ")]
        longest = max(names, key=len, default="")
        for topic in _TOPICS:
            if longest in topic.names and (answers := _in_our_words(topic, question.answers)):
                return topic, answers
    return None


def refuse_unanswerable(tree: Tree) -> None:
    """Raise SettingError, naming the question, if volunteers cannot answer a tree's questions from how a galaxy is drawn."""
    for question in tree.questions:
        if not _topic_of(question):
            raise SettingError(
                f"--tree {tree.name}: synthetic galaxies give no answer to question '{question.key}' "
                f"({', '.join(question.answers)}): choose from {', '.join(builtin_names())}"
            )


def answer_probabilities(galaxy: Galaxy, tree: Tree) -> tuple[np.ndarray, ...]:
    """The probability of each answer by a volunteer who is asked: one array per question, each adding up to 1.

    Raises SettingError for a question that is about something that is not drawn.
    """
    refuse_unanswerable(tree)
    return tuple(topic.chances(galaxy, answers) for topic, answers in filter(None, map(_topic_of, tree.questions)))


def publishes_counts(tree: Tree) -> bool:
    """Whether a tree's survey publishes how many volunteers gave each answer: in its tables' first layout."""
    return tree.layouts[0].kind == "counts" or bool(tree.layouts[0].total)


@dataclass(frozen=True)
class Answers:
    """The answers to a galaxy. counts: int64 (n,), by answer; asked: int64 (questions,), their sum by question."""

    counts: np.ndarray
    asked: np.ndarray

    def shares(self, tree: Tree) -> np.ndarray:
        """The fraction of those asked who gave each answer, float64 (n,); 0 if nobody was asked."""
        return self.counts / np.maximum(for_answers(self.asked[None], tree.questions)[0], 1)

    def votes(self, tree: Tree) -> np.ndarray:
        """Cumulative vote fractions along the tree, float64 (n,)."""
        votes = self.shares(tree)[None]
        for question in tree.questions:
            votes[:, question.columns] *= tree.reached(votes, question)[:, None]
        return np.asarray(votes[0])


def draw_answers(galaxy: Galaxy, tree: Tree, generator: np.random.Generator) -> Answers:
    """Draw the answers of volunteers to a galaxy: a question is put to those whose answer leads to it.

    36 to 50 volunteers answer every question. A survey with counts is like GZ DECaLS: mostly 3 to 7 volunteers, for a third of
    the galaxies 30 to 40, and now and then one leaves half-way.
    """
    with_counts = publishes_counts(tree)
    if not with_counts:
        volunteers = int(generator.integers(36, 51))
    elif generator.random() < 1 / 3:
        volunteers = int(generator.integers(30, 41))
    else:
        volunteers = int(generator.choice((3, 4, 5, 6, 7), p=(0.1, 0.2, 0.5, 0.12, 0.08)))
    counts = np.zeros(len(tree.columns), np.int64)
    asked = np.zeros(len(tree.questions), np.int64)
    for question, probabilities in zip(tree.questions, answer_probabilities(galaxy, tree), strict=True):
        led = int(counts[list(question.parents)].sum()) if question.parents else volunteers
        asked[question.index] = generator.binomial(led, _STAY) if with_counts and question.index else led
        counts[question.columns] = generator.multinomial(asked[question.index], probabilities)
    return Answers(counts, asked)
