"""The table of `benchmarks.counts` weighs intervals as the page of a run does, over all of its runs."""

import csv
from pathlib import Path

import numpy as np

from benchmarks import counts
from tests.conftest import random_votes
from tfrecords.builtin import builtin_tree
from tfrecords.treefile import parse_tree
from trainer.analysis.intervals import coverage

KAGGLE = builtin_tree()


def _write(path: Path, header: list[str], ids: range, rows: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        lines = [[number, *row] for number, row in zip(ids, rows.tolist(), strict=True)]
        csv.writer(file).writerows([["GalaxyID", *header], *lines])


def test_the_coverage_is_over_all_galaxies_and_answers_and_the_mean_over_the_runs(tmp_path: Path) -> None:
    generator, ids = np.random.default_rng(0), range(1, 13)
    (tmp_path / "counts.toml").write_text(KAGGLE.text.replace('kind = "cumulative"', 'kind = "counts"'))
    voted = random_votes(len(ids), generator)
    voted[:, 0], voted[:, 1], voted[:, 2] = 1, 0, 0  # all are smooth, so that nobody is asked of arms
    drawn = counts.draw_counts(KAGGLE.project(voted), KAGGLE, generator)
    _write(tmp_path / "counts.csv", [*KAGGLE.columns], ids, drawn)
    names = [f"{question.key}_concentration" for question in KAGGLE.questions]
    asked = np.stack([drawn[:, question.columns].sum(axis=1) for question in KAGGLE.questions], axis=1)
    assert not asked.any(axis=0).all()
    runs, sums = [tmp_path / "one", tmp_path / "two"], np.zeros(2)
    for run, concentration in zip(runs, (3.0, 300.0), strict=True):
        predicted, concentrations = random_votes(len(ids), generator), np.full((len(ids), len(names)), concentration)
        _write(run / "predictions-test.csv", [*KAGGLE.columns, *names], ids, np.hstack([predicted, concentrations]))
        tree = parse_tree((tmp_path / "counts.toml").read_text(), "t", "t")
        sums += coverage(tree, predicted, concentrations, drawn / counts.VOLUNTEERS, asked).overall(tree)
    held, expected = sums / 2
    assert counts._coverage(tmp_path, runs) == f"{held:.1%} ({expected:.1%} expected)"
