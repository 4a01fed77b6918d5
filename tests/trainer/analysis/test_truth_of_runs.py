"""Each sentence, headline and table of the finished page of a trained run is true of the predictions in its folder."""

import html
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from tests.trainer.analysis.claims import assert_rounded, check_texts
from tests.trainer.analysis.evaluations import charts_of, evaluation_of
from tests.trainer.analysis.facts import Facts, facts_of
from tfrecords.dataset import Dataset
from trainer.analysis import wording
from trainer.config import RECIPES, TrainConfig
from trainer.run import OWN, Run
from trainer.tables import read_csv


class Tables(HTMLParser):
    """The tables of a page: rows of cells; the first row is the header."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.tables[-1][-1][-1] += data

    def of(self, *header: str) -> list[list[dict[str, str]]]:
        """The rows of the tables that begin with these columns."""
        chosen = [table for table in self.tables if tuple(table[0][: len(header)]) == header]
        return [[dict(zip(table[0], row, strict=True)) for row in table[1:]] for table in chosen]


@dataclass(frozen=True)
class Trained:
    """A run with its page, its dataset, and the facts of its record."""

    run: Run
    dataset: Dataset
    page: str
    facts: Facts

    @property
    def texts(self) -> dict[str, tuple[str, str]]:
        """Alternative text and caption of each chart on the page."""
        figure = r'<figure id="([^"]+)"[^>]*>.*?<img alt="([^"]+)".*?<figcaption>([^<]*)'
        parts = re.findall(figure, self.page, re.DOTALL)
        return {name: (html.unescape(alt), html.unescape(caption).strip()) for name, alt, caption in parts}


def trained(run: Run, dataset: Dataset) -> Trained:
    from tfrecords.reader import votes_of

    predictions = read_csv(run.path(OWN.predictions), dataset.tree, votes_of(dataset, "test"))
    content = json.loads(run.path(OWN.metrics).read_text("utf-8"))
    train = votes_of(dataset, "train")
    means = np.zeros(len(dataset.tree.columns))
    for column in range(len(means)):
        question = dataset.tree.question_of(column)
        rows = slice(None) if train.asked is None else train.asked[:, question.index] > 0
        means[column] = train.targets[rows, column].mean(dtype=np.float64) if len(train.targets[rows, column]) else 0
    facts = facts_of(run, dataset, predictions, means, content)
    return Trained(run, dataset, run.path(OWN.report).read_text("utf-8"), facts)


@pytest.fixture(scope="module")
def runs(
    tiny_run: Run, plain_dataset: Dataset, build_settings: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Trained]]:
    """Trained runs of both recipes, on two trees, from random weights and from another run, for one epoch and several."""
    from preprocess.demo import make_demo
    from preprocess.job import build_dataset
    from trainer.train import train_model

    folder = tmp_path_factory.mktemp("truth")
    make_demo(folder / "source", 60, tree="decals5")
    decals = build_dataset(folder / "source", folder / "data", build_settings(), workers=1).dataset
    small = {"batch_size": 16, "warmup_steps": 0, "backbone": "small", "learning_rate": 1e-3}
    best, article = ({**RECIPES[name](), **small} for name in ("best", "article"))
    first = "article, decals5, 1 epoch"
    plans: dict[str, tuple[Dataset, dict[str, Any]]] = {
        "best from a run, 2 epochs": (plain_dataset, {**best, "weights": str(tiny_run.folder), "epochs": 2, "ema": 0.5}),
        first: (decals, {**article, "weights": "none", "epochs": 1}),
        "best from a run, decals5, 2 epochs": (decals, {**best, "weights": str(folder / first), "epochs": 2}),
    }
    yield {
        "article, 3 epochs": trained(tiny_run, plain_dataset),
        **{
            name: trained(train_model(TrainConfig(dataset.folder, folder / name, **settings)), dataset)
            for name, (dataset, settings) in plans.items()
        },
    }
    shutil.rmtree(folder)


@pytest.mark.slow
def test_every_sentence_beside_the_charts_of_a_trained_run_is_true(runs: dict[str, Trained]) -> None:
    for each in runs.values():
        ours = {chart.name for chart in charts_of(evaluation_of(each.run.folder.parent / "made-up", each.dataset))}
        assert ours <= each.texts.keys()
        check_texts(each.facts, {name: parts for name, parts in each.texts.items() if name in ours})


@pytest.mark.slow
def test_the_headline_of_a_trained_run_is_true(runs: dict[str, Trained]) -> None:
    for name, each in runs.items():
        heading = re.search(r"<h1>(.*?)</h1>", each.page, re.DOTALL)
        assert heading is not None
        headline, facts = html.unescape(heading[1]), each.facts
        number = len(facts.targets)
        assert headline.startswith(f"On {number} {'unseen galax' if 'from a run' not in name else 'galax'}")
        low, high = facts.interval
        assert f"RMSE of {facts.rmse:.4f} ({low:.4f} to {high:.4f})" in headline
        mean = facts.baselines["column means of train"]
        lower = re.search(r"(\d+)% lower than that of", headline)
        assert (lower is not None) == (high < mean) != ("not clearly better" in headline or "worse" in headline)
        assert "worse" not in headline or low > mean
        if lower:
            assert float(lower[1]) == pytest.approx(100 * (1 - facts.rmse / mean), abs=0.5001)


@pytest.mark.slow
def test_the_tables_of_a_trained_run_hold_the_numbers_of_its_predictions(runs: dict[str, Trained]) -> None:
    for each in runs.values():
        facts, tables, columns = each.facts, Tables(each.page), each.dataset.tree.columns
        rows = [row for table in tables.of("column", "answer", "mean") for row in table]
        assert [row["column"] for row in rows] == list(columns)
        for column, row in enumerate(rows):
            if np.isnan(facts.mse[column]):
                assert {row[name] for name in ("mean", "MSE", "RMSE", "skill", "max. voted")} == {"–"}
                continue
            mse, (predicted, voted) = facts.mse[column], facts.largest
            assert_rounded(row["mean"], facts.mean[column], 3)
            assert_rounded(row["MSE"], mse, 5)
            assert_rounded(row["RMSE"], np.sqrt(mse), 4)
            assert_rounded(row["max. voted"], voted[column], 2)
            assert_rounded(row["max. predicted"], predicted[column], 2)
            if row["skill"] != "–":
                assert_rounded(row["skill"], 1 - mse / facts.variance[column], 2)
        _check_classes(facts, [row for table in tables.of("class", "threshold") for row in table])


def _check_classes(facts: Facts, rows: list[dict[str, str]]) -> None:
    """Numbers, purity and completeness of each class at each threshold."""
    members = {member.name: member for member in facts.tree.classes}
    assert len(rows) == len(members) * len(facts.tree.thresholds)
    for row in rows:
        places, threshold = list(members[row["class"]].columns), float(row["threshold"])
        guessed, voted = (table[:, places].min(axis=1) >= threshold for table in (facts.predicted, facts.targets))
        both = (guessed & voted).sum()
        numbers = [int(row[name].replace(",", "")) for name in ("predicted", "voted", "both")]
        assert numbers == [guessed.sum(), voted.sum(), both]
        for name, whole in (("purity", guessed.sum()), ("completeness", voted.sum())):
            expected = pytest.approx(100 * both / whole, abs=0.5001) if whole else None
            assert (None if row[name] == "–" else float(row[name].strip("%"))) == expected


@pytest.mark.slow
def test_the_sentence_of_each_question_is_true(runs: dict[str, Trained]) -> None:
    for each in runs.values():
        facts, text = each.facts, html.unescape(re.sub(r"<[^>]+>", " ", each.page))
        for question in facts.tree.questions:
            rmse = facts.by_question[question.index]
            if question.parents:
                reached = facts.targets[:, list(question.parents)].sum(axis=1, dtype=np.float64).mean()
                leads = " or ".join(facts.tree.columns[parent] for parent in question.parents)
                assert f"On average, {wording.percent(reached)} of a galaxy's volunteers are asked it, after {leads}." in text
            assert np.isnan(rmse) or f"RMSE {rmse:.4f} (" in text
