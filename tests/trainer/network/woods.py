"""Trees that are not Kaggle's, and votes and counts of volunteers on any tree."""

import numpy as np

from tfrecords.builtin import builtin_tree
from tfrecords.tree import Tree
from tfrecords.treefile import parse_tree

# A question after two answers, one after a single answer, and one after the question with two parents.
FORK = parse_tree(
    """
    volunteers = 20
    [[question]]
    key = "shape"
    answers = { smooth = "smooth", disk = "disk", star = "star" }
    [[question]]
    key = "arms"
    after = ["disk"]
    answers = { yes = "arms_yes", no = "arms_no" }
    [[question]]
    key = "merging"
    after = ["smooth", "disk"]
    answers = { none = "merging_none", minor = "merging_minor", major = "merging_major", both = "merging_both" }
    [[question]]
    key = "tail"
    after = ["merging_major"]
    answers = { yes = "tail_yes", no = "tail_no" }
    """,
    "fork.toml",
    "fork",
)
SINGLE = parse_tree('[[question]]\nkey = "ring"\nanswers = { yes = "ring_yes", no = "ring_no" }', "single.toml", "single")
TREES = {"kaggle": builtin_tree(), "fork": FORK, "single": SINGLE}


def votes_on(tree: Tree, galaxies: int, generator: np.random.Generator) -> np.ndarray:
    """Votes that obey a tree, float64 (galaxies, n)."""
    votes = np.zeros((galaxies, len(tree.columns)))
    for question in tree.questions:
        shares = generator.dirichlet(np.ones(len(question.answers)), galaxies)
        votes[:, question.columns] = shares * tree.reached(votes, question)[:, None]
    return votes


def counts_on(tree: Tree, galaxies: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Volunteers' answers: counts int (galaxies, n) and how many answered each question, int (galaxies, questions).

    3 to 40 start; at each question after the first a tenth of them leave, so some questions have no answer.
    """
    counts = np.zeros((galaxies, len(tree.columns)), int)
    asked = np.zeros((galaxies, len(tree.questions)), int)
    start = generator.integers(3, 41, galaxies)
    for question in tree.questions:
        reached = counts[:, list(question.parents)].sum(axis=1) if question.parents else start
        asked[:, question.index] = generator.binomial(reached, 0.9) if question.index else reached
        shares = generator.dirichlet(np.ones(len(question.answers)), galaxies)
        counts[:, question.columns] = generator.multinomial(asked[:, question.index], shares)
    return counts, asked


def votes_from(tree: Tree, counts: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """A batch of votes with counts, as datasets hold them: float32 (galaxies, n + questions)."""
    votes = np.zeros(counts.shape)
    for question in tree.questions:
        shares = counts[:, question.columns] / np.maximum(asked[:, question.index, None], 1)
        votes[:, question.columns] = shares * tree.reached(votes, question)[:, None]
    return np.concatenate([votes, asked], axis=1).astype(np.float32)
