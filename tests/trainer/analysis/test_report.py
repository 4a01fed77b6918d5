"""Metrics, figures and page agree with the predictions, and the page is self-contained."""

import argparse
import csv
import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trainer.analysis.browser import Look
from tests.trainer.analysis.pages import CHARTS, Read, rows_of
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from trainer.analysis.card import write_card
from trainer.analysis.galleries import Candidates, class_choices
from trainer.analysis.galleries import galleries as made_galleries
from trainer.config import RECIPES, TrainConfig
from trainer.evaluate import summary
from trainer.predict import predict_split
from trainer.run import OWN, Run
from trainer.tables import Predictions

TREE = builtin_tree()
COLUMNS = TREE.columns
Main = Callable[..., tuple[int, str, str]]
# The tiny model predicts no spirals at either threshold: each class has one gallery of the highest scores.
ORDER = ["elliptical-90", "elliptical-60", "spiral-90", "barred-spiral-90"]
TABLES = {"questions", "questions-confident", "answers", "answers-confident", "errors", "classes"}
HUBBLE_GALLERIES = set(ORDER)
GALLERIES = HUBBLE_GALLERIES | {"best", "worst", "surprising"}


@pytest.fixture(scope="module")
def predictions(tiny_run: Run, plain_dataset: Dataset) -> Predictions:
    return predict_split(tiny_run, plain_dataset, "test")


@pytest.fixture(scope="module")
def page(tiny_run: Run) -> Read:
    return Read((tiny_run.folder / "report" / "index.html").read_text("utf-8"))


def test_the_metrics_hold_the_keys_of_the_contract_with_the_right_values(
    tiny_run: Run, plain_dataset: Dataset, tiny_metrics: dict[str, Any], predictions: Predictions
) -> None:
    errors = (predictions.predicted.astype(np.float64) - predictions.targets) ** 2
    assert (tiny_metrics["split"], tiny_metrics["galaxies"]) == ("test", plain_dataset.galaxies("test"))
    assert tiny_metrics["mse"] == pytest.approx(errors.mean()) == pytest.approx(tiny_metrics["rmse"] ** 2)
    assert list(tiny_metrics["per_class"]) == sorted(COLUMNS)
    for column, name in enumerate(COLUMNS):
        mse = pytest.approx(errors[:, column].mean())
        assert tiny_metrics["per_class"][name]["mse"] == mse and tiny_metrics["per_class"][name]["rmse"] ** 2 == mse
    assert sorted(map(int, tiny_metrics["per_question"])) == list(range(1, 12))
    assert tiny_metrics["per_question"]["3"]["mse"] == pytest.approx(errors[:, 5:7].mean())
    assert set(tiny_metrics["baselines"]) == {"zeros", "train_mean"}
    low, high = tiny_metrics["interval"]
    assert low < tiny_metrics["rmse"] < high
    best = min(tiny_run.history(), key=lambda row: row.val_mse)
    assert tiny_metrics["best_validation"] == {"mse": best.val_mse, "rmse": best.val_mse**0.5, "epoch": best.epoch}
    assert tiny_metrics["dataset"] == plain_dataset.fingerprint
    assert tiny_metrics["model"] == hashlib.sha256(tiny_run.model_path.read_bytes()).hexdigest()


def test_the_summary_puts_the_model_beside_the_baselines(tiny_run: Run, tiny_metrics: dict[str, Any]) -> None:
    lines = summary(tiny_run, OWN).splitlines()
    assert lines[0] == f"RMSE on test ({tiny_metrics['galaxies']} galaxies)"
    assert f"{tiny_metrics['rmse']:.4f}" in lines[1]
    assert (
        f"{tiny_metrics['baselines']['train_mean']:.4f}" in lines[2] and f"{tiny_metrics['baselines']['zeros']:.4f}" in lines[3]
    )
    assert not any("hardly vary" in line for line in lines)


def test_the_summary_warns_of_predictions_that_hardly_vary(tiny_metrics: dict[str, Any], tmp_path: Path) -> None:
    run = Run(tmp_path, {"settings": {**RECIPES["article"](), "weights": "none"}})
    run.output.write({"metrics.json": json.dumps({**tiny_metrics, "spread": 0.0099}).encode()})
    assert "the predictions hardly vary: train longer, or try --initialisation means, " in summary(run, OWN)


def test_the_page_and_its_figures_hold_everything_that_is_promised(tiny_run: Run, page: Read) -> None:
    report_folder = tiny_run.folder / "report"
    of_data = {"csv": CHARTS | GALLERIES | TABLES, "tex": TABLES}
    for folder, endings in (("figures", {"svg": CHARTS, "jpg": GALLERIES}), ("data", of_data)):
        names = {path.name for path in (report_folder / folder).iterdir()}
        assert names == {f"test-{name}.{ending}" for ending, some in endings.items() for name in some}
    assert page.ids >= CHARTS | GALLERIES | {f"question-{number}" for number in range(1, 12)}
    inside = {link["href"] for link in page.links if link["href"].startswith("#")}
    assert inside >= {f"#question-{number}" for number in range(1, 12)} and {href[1:] for href in inside} <= page.ids
    beside = {link["href"] for link in page.links} - inside
    assert beside == {f"{path.parent.name}/{path.name}" for path in report_folder.glob("*/*")}
    assert (report_folder / "index.html").stat().st_size < 8_000_000
    for path in (report_folder / "figures").glob("*.jpg"):
        with Image.open(path) as image:
            assert image.format == "JPEG" and min(image.size) >= 250


def test_numbers_come_first_and_galleries_last(tiny_run: Run) -> None:
    text = (tiny_run.folder / "report" / "index.html").read_text("utf-8")
    order = ["ladder", "scores", "map", "by-answer", "trust", "by-class", "question-1", "making", "hubble", "extremes"]
    places = [text.index(f' id="{name}"') for name in order]
    assert places == sorted(places)
    assert all(text.index(f' id="{name}"') > places[-2] for name in GALLERIES)


@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_finds_nothing_wrong_with_the_page(tiny_run: Run, look: Any, width: int) -> None:
    seen = look(tiny_run.folder / "report" / "index.html", width)
    assert seen == Look((), (), (), (), ())


def test_the_page_says_the_score_and_the_settings(
    page: Read, tiny_metrics: dict[str, Any], tiny_settings: dict[str, Any]
) -> None:
    settings = [f"{name}{value}" for name, value in tiny_settings.items()]
    text = re.sub(r"\s+", "", page.text)
    for part in (f"{tiny_metrics['rmse']:.4f}", *settings, tiny_metrics["model"][:12], "SloanDigitalSkySurvey"):
        assert part in text


def test_the_numbers_beside_the_charts_are_those_of_the_predictions(
    tiny_run: Run, tiny_metrics: dict[str, Any], predictions: Predictions
) -> None:
    predicted, targets = predictions.predicted.astype(np.float64), predictions.targets
    for row, name in zip(rows_of(tiny_run, "per-class"), COLUMNS, strict=True):
        assert (row["column"], float(row["rmse"])) == (name, pytest.approx(tiny_metrics["per_class"][name]["rmse"]))
        assert float(row["interval_low"]) <= float(row["rmse"]) <= float(row["interval_high"])
    for row, question in zip(rows_of(tiny_run, "tree"), TREE.questions, strict=True):
        assert float(row["rmse"]) == pytest.approx(tiny_metrics["per_question"][question.key]["rmse"])
    for column, row in enumerate(rows_of(tiny_run, "maximum-agreement")):
        assert float(row["voted"]) == targets[:, column].max()
        assert float(row["predicted"]) == pytest.approx(predicted[:, column].max(), rel=1e-6)
    for column, row in enumerate(rows_of(tiny_run, "error-against-mean")):
        assert float(row["mean"]) == pytest.approx(targets[:, column].mean())
        assert float(row["mse"]) == pytest.approx(((predicted - targets)[:, column] ** 2).mean(), rel=1e-5)
    ladder = {row["score"]: row for row in rows_of(tiny_run, "ladder")}
    assert float(ladder["this model"]["rmse"]) == tiny_metrics["rmse"]
    assert float(ladder["all zeros"]["rmse"]) == tiny_metrics["baselines"]["zeros"]
    assert [name for name, row in ladder.items() if row["published_for_another_test_set"] == "True"] == [
        "central pixel, Kaggle", "the article", "Kaggle 2014, winner",
    ]  # fmt: skip
    counts = {
        number: sum(int(row["galaxies"]) for row in rows_of(tiny_run, "agreement") if row["question"] == str(number))
        for number in (1, 6)
    }
    assert counts == {1: len(targets), 6: len(targets)}


def test_the_galleries_show_galaxies_of_the_split_with_their_own_pictures_and_votes(
    plain_dataset: Dataset, predictions: Predictions
) -> None:
    from tfrecords import reader

    pictures = {
        int(example["galaxy_id"]): reader.decode_example(example, "png", 32).numpy()
        for example in reader.in_order(plain_dataset, "test")
    }
    galaxies = Candidates(plain_dataset, ("test",), predictions.galaxy_ids, predictions.targets, predictions.predicted)
    row_of = {int(galaxy_id): row for row, galaxy_id in enumerate(predictions.galaxy_ids)}
    shown = made_galleries(galaxies, class_choices(galaxies))
    assert [gallery.name for gallery in shown] == sorted(HUBBLE_GALLERIES, key=ORDER.index)
    for gallery in shown:
        assert gallery.cards
        for card in gallery.cards:
            row = row_of[card.galaxy_id]
            np.testing.assert_array_equal(card.pictures[0], pictures[card.galaxy_id])
            columns = [COLUMNS.index(f"Class{bar.label.rpartition('(')[2].rstrip(')')}") for bar in card.bars]
            assert [bar.voted for bar in card.bars] == predictions.targets[row, columns].tolist()
            assert [bar.predicted for bar in card.bars] == predictions.predicted[row, columns].tolist()


def test_the_model_card_says_what_a_user_must_know(tiny_run: Run, plain_dataset: Dataset, tiny_metrics: dict[str, Any]) -> None:
    card = (tiny_run.folder / "README.md").read_text("utf-8")
    for text in (
        f"RMSE **{tiny_metrics['rmse']:.4f}** on {tiny_metrics['galaxies']} galaxies of split `test`",
        f"| galaxies in train | {plain_dataset.galaxies('train')} |",
        "| learning_rate | 0.001 |",
        "## Limits",
        "Sloan Digital Sky Survey",
        "Willett et al. 2013",
    ):
        assert text in card
    [line] = [line for line in card.splitlines() if line.startswith("trainer --tfrecords")]
    from trainer.cli import _config, _train_flags

    parser = argparse.ArgumentParser()
    _train_flags(parser)
    config = _config(parser.parse_args(shlex.split(line)[1:]))
    assert config.settings() == tiny_run.settings and config.out == tiny_run.folder  # the command reproduces this run


@pytest.fixture(scope="module")
def best_run(plain_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A measured run with recipe `best` from random weights. Read-only."""
    from trainer.train import train_model

    folder = tmp_path_factory.mktemp("best") / "run"
    settings = {**RECIPES["best"](), "epochs": 1, "batch_size": 16, "warmup_steps": 0, "weights": "none", "backbone": "small"}
    yield train_model(TrainConfig(plain_dataset.folder, folder, **settings))
    shutil.rmtree(folder)


def _violation(run: Run) -> float:
    """The largest violation of the tree by a run's predictions, from the numbers beside its page."""
    with (run.folder / "report" / "data" / "test-violation.csv").open(newline="") as file:
        return max(float(row["largest"]) for row in csv.DictReader(file))


@pytest.mark.slow
def test_the_page_says_of_the_head_and_the_loss_what_the_run_has(best_run: Run, tiny_run: Run) -> None:
    """Recipe best: tree head and cross-entropy; tiny_run, as in the article: sigmoid head and squared error."""
    of_best, of_tiny = (Read((run.folder / "report" / "index.html").read_text("utf-8")).text for run in (best_run, tiny_run))
    assert (best_run.settings["head"], best_run.settings["loss"]) == ("tree", "cross_entropy")
    assert (tiny_run.settings["head"], tiny_run.settings["loss"]) == ("sigmoid", "mse")
    for text, obeys, loss, other_loss in (
        (of_best, True, "trained on cross-entropy", "squared error, which"),
        (of_tiny, False, "trained on squared error", "cross-entropy"),
    ):
        assert loss in text and other_loss not in text
        assert ("obey the tree by construction, so its sums are off by rounding errors only" in text) == obeys
        assert ("predicts each column independently" in text) == (not obeys)
    assert _violation(best_run) < 1e-5 < 1e-2 < _violation(tiny_run)


@pytest.mark.parametrize(("weight_decay", "optimizer"), [(0.0, "Adam"), (0.01, "AdamW")])
def test_the_card_names_the_optimizer_of_the_run(
    tiny_run: Run, tiny_metrics: dict[str, Any], tmp_path: Path, weight_decay: float, optimizer: str
) -> None:
    config = {**tiny_run.config, "settings": {**tiny_run.settings, "weight_decay": weight_decay}}
    write_card(Run(tmp_path, config), tiny_metrics, [])
    assert f"; {optimizer}, mean squared error." in (tmp_path / "README.md").read_text()


def test_hostile_names_are_words_in_the_card(tiny_run: Run, tiny_metrics: dict[str, Any], tmp_path: Path) -> None:
    folder = "data|`x`<script>\x1b[31m\n# no heading"
    config = {
        **tiny_run.config,
        "settings": {**tiny_run.settings, "weights": "<img src=x onerror=alert(1)>|.h5"},
        "dataset": {**tiny_run.config["dataset"], "folder": folder},
    }
    write_card(Run(tmp_path, config), tiny_metrics, [])
    card = (tmp_path / "README.md").read_text()
    assert "\x1b" not in card and "\n# no heading" not in card
    assert "| dataset | ``data\\|`x`<script>\\x1b[31m\\n# no heading``, fingerprint" in card
    assert "| weights | &lt;img src=x onerror=alert(1)&gt;\\|.h5 |" in card
    assert card.count("```") == 4
