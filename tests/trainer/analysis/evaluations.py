"""Made-up evaluations: each kind of model on votes of each kind, under the settings of each kind of run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import random_counts, random_votes
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from tfrecords.tree import Tree, column_means
from trainer.analysis import findings, metrics
from trainer.analysis.page import Chart
from trainer.analysis.subject import Evaluation
from trainer.config import DEFAULTS, RECIPES
from trainer.history import Epoch
from trainer.run import Run
from trainer.tables import Predictions

KAGGLE, DECALS = builtin_tree(), builtin_tree("decals5")
LOSSES = {"sigmoid": "mse", "tree": "cross_entropy", "dirichlet": "dirichlet_multinomial"}
MODELS = ("good", "perfect", "constant", "wrong", "zeros", "noisy")
# The last two do not obey the tree.
KINDS = [(head, model) for head in LOSSES for model in (MODELS if head == "sigmoid" else MODELS[:4])]


def _predicted(kind: str, targets: np.ndarray, means: np.ndarray, tree: Tree, draws: np.random.Generator) -> np.ndarray:
    """The predictions of a kind of model; all but `zeros` and `noisy` obey the tree as well as the votes do."""
    other = random_votes(len(targets), draws, tree)
    values = {
        "good": 0.8 * targets + 0.2 * means,
        "perfect": targets,
        "constant": np.broadcast_to(means, targets.shape),
        "wrong": other,
        "zeros": np.zeros(targets.shape),
        "noisy": np.clip(targets + draws.normal(0, 0.05, targets.shape), 0, 1),
    }[kind]
    return values.astype(np.float32)


def _softened(predicted: np.ndarray, tree: Tree) -> np.ndarray:
    """Predictions as of a softmax: none is 0."""
    return tree.project(np.maximum(predicted, 1e-6)).astype(np.float32)


def _epochs(number: int, has_validation: bool, seconds: float) -> list[Epoch]:
    """A history whose best epoch is in the middle."""
    best = number // 2 + 1
    return [
        Epoch(epoch, 0.05 / epoch, 0.02 + 0.001 * abs(epoch - best) if has_validation else np.nan, 1e-4, seconds, 50.0)
        for epoch in range(1, number + 1)
    ]


def with_shares(tree: Tree, shares: np.ndarray) -> np.ndarray:
    """Cumulative fractions (galaxies, n) of shares of those asked (galaxies, n)."""
    fractions = np.zeros(shares.shape)
    for question in tree.questions:
        fractions[:, question.columns] = shares[:, question.columns] * tree.reached(fractions, question)[:, None]
    return fractions


def _voted(galaxies: int, draws: np.random.Generator, tree: Tree, counted: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Vote fractions (galaxies, n), and numbers of answers (galaxies, questions) if counted; none to the last question."""
    if not counted:
        return random_votes(galaxies, draws, tree).astype(np.float32), None
    counts = random_counts(galaxies, draws, tree, 6)
    counts[:, tree.questions[-1].columns] = 0
    answered = np.stack([counts[:, question.columns].sum(axis=1) for question in tree.questions], axis=1)
    of_column = answered[:, [tree.question_of(column).index for column in range(len(tree.columns))]]
    return with_shares(tree, counts / np.maximum(of_column, 1)).astype(np.float32), answered


def evaluation_of(
    folder: Path,
    dataset: Dataset,
    model: str = "good",
    tree: Tree = KAGGLE,
    asked: str = "",
    galaxies: int = 40,
    history: tuple[int, bool, float] = (3, True, 12.3),
    has_train: bool = True,
    seed: int = 0,
    **settings: Any,
) -> Evaluation:
    """An evaluation of made-up predictions. asked: "counted" or "assumed" numbers of answers; history: see _epochs."""
    draws = np.random.default_rng(seed)
    settings = {**DEFAULTS, **RECIPES["best"](), **settings}
    targets, answered = _voted(galaxies, draws, tree, bool(asked))
    means = column_means(random_votes(60, draws, tree)) if model != "perfect" else column_means(targets)
    predicted = _predicted(model, targets, means, tree, draws)
    concentrations = None
    if settings["head"] == "dirichlet":
        predicted = _softened(predicted, tree)
        concentrations = draws.uniform(1, 60, (galaxies, len(tree.questions))).astype(np.float32)
    counted = tree.counted(answered)
    dataset = replace(dataset, tree=tree, source={**dataset.source, "asked": asked})
    of_run = {"fingerprint": dataset.fingerprint, "asked": asked or False, "galaxies": {"train": 60, "test": galaxies}}
    run = Run(folder, {"settings": settings, "dataset": of_run}, tree)
    folder.mkdir(parents=True, exist_ok=True)
    run.write_history(_epochs(*history))
    scores = metrics.score(predicted, targets, tree, counted)
    of_train = means if has_train else None
    content = {
        "rmse": scores.rmse,
        "mse": scores.mse,
        "interval": list(scores.interval),
        "galaxies": galaxies,
        "dataset": dataset.fingerprint,
        "model": "0" * 64,
        "baselines": metrics.baselines(targets, of_train, counted),
    }
    predictions = Predictions(np.arange(1, galaxies + 1), predicted, targets, answered, concentrations, tree)
    return Evaluation(run, dataset, "test", predictions, scores, of_train, content)


def charts_of(evaluation: Evaluation) -> list[Chart]:
    return [
        findings.ladder(evaluation),
        findings.tree_map(evaluation),
        findings.per_class(evaluation),
        *findings.extremes_and_errors(evaluation),
        *findings.trust(evaluation),
        findings.history(evaluation.run),
    ]


def texts_of(charts: Sequence[Chart]) -> dict[str, tuple[str, str]]:
    """The alternative text and the caption of each chart, by its name."""
    return {chart.name: (chart.alt, chart.caption) for chart in charts}
