"""Metrics, figures and page say what the predictions say, and the page needs nothing but itself."""

import argparse
import csv
import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from tests.trainer.browser import Look
from tests.trainer.pages import Read
from tfrecords.dataset import Dataset
from tfrecords.errors import RunError
from tfrecords.taxonomy import COLUMNS, QUESTIONS
from trainer.analysis import figures, style
from trainer.analysis.evaluate import evaluate, summary
from trainer.analysis.galleries import Galaxies, hubble_choices
from trainer.analysis.galleries import galleries as made_galleries
from trainer.config import RECIPES
from trainer.predict import Predictions, predict
from trainer.run import Epoch, Run

Main = Callable[..., tuple[int, str, str]]
CHARTS = {
    *("ladder", "tree", "per-class", "maximum-agreement", "error-against-mean", "calibration", "agreement", "violation"),
    "history",
}
ORDER = ["elliptical-90", "elliptical-60", "spiral-90", "spiral-60", "barred-spiral-90", "barred-spiral-60"]
HUBBLE_GALLERIES = set(ORDER)
GALLERIES = HUBBLE_GALLERIES | {"best", "worst", "surprising"}


@pytest.fixture(scope="module")
def predictions(tiny_run: Run, plain_dataset: Dataset) -> Predictions:
    return predict(tiny_run, plain_dataset, "test")


@pytest.fixture(scope="module")
def page(tiny_run: Run) -> Read:
    return Read((tiny_run.folder / "report" / "index.html").read_text("utf-8"))


@pytest.fixture
def borrowed(tiny_run: Run, tmp_path: Path) -> Callable[[str], Run]:
    """A function that gives a run of another folder name with the model of `tiny_run` and its history."""

    def make(name: str) -> Run:
        folder = tmp_path / name
        folder.mkdir()
        for file in ("model.keras", "history.csv", "config.json"):
            os.link(tiny_run.folder / file, folder / file)
        return replace(tiny_run, folder=folder)

    return make


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
    lines = summary(tiny_run, "test").splitlines()
    assert lines[0] == f"RMSE on test ({tiny_metrics['galaxies']} galaxies)"
    assert f"{tiny_metrics['rmse']:.4f}" in lines[1]
    assert (
        f"{tiny_metrics['baselines']['train_mean']:.4f}" in lines[2] and f"{tiny_metrics['baselines']['zeros']:.4f}" in lines[3]
    )
    assert not any("hardly vary" in line for line in lines)


def test_the_summary_warns_of_predictions_that_hardly_vary(tiny_metrics: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({**tiny_metrics, "spread": 0.0099}))
    run = Run(tmp_path, {"settings": {**RECIPES["article"](), "weights": "none"}})
    assert "the predictions hardly vary: train longer, or try --initialisation means, " in summary(run, "test")
    alone = Run(tmp_path, {"settings": {**RECIPES["best"](), "weights": "imagenet", "warmup_steps": 0, "head_epochs": 50}})
    assert "train longer, or try --head_epochs 0, a higher --learning_rate" in summary(alone, "test")


def test_the_page_and_its_figures_hold_everything_that_is_promised(tiny_run: Run, page: Read) -> None:
    report_folder = tiny_run.folder / "report"
    for folder, endings in (("figures", {"svg": CHARTS, "jpg": GALLERIES}), ("data", {"csv": CHARTS | GALLERIES})):
        names = {path.name for path in (report_folder / folder).iterdir()}
        assert names == {f"test-{name}.{ending}" for ending, some in endings.items() for name in some}
    assert page.ids >= CHARTS | GALLERIES | {f"question-{number}" for number in range(1, 12)}
    assert {link["href"] for link in page.links} == {f"#question-{number}" for number in range(1, 12)}
    assert (report_folder / "index.html").stat().st_size < 8_000_000
    for path in (report_folder / "figures").glob("*.jpg"):
        with Image.open(path) as image:
            assert image.format == "JPEG" and min(image.size) >= 250


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


def test_a_hostile_folder_name_is_shown_and_not_run(borrowed: Callable[[str], Run], plain_dataset: Dataset) -> None:
    name = "a<b>&c<script>alert(1)<"
    run = borrowed(name)
    evaluate(run, plain_dataset, "validation")
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "config.json", "history.csv", "metrics-validation.json", "model.keras", "predictions-validation.csv", "report",
    ]  # fmt: skip
    page = Read((run.folder / "report" / "validation.html").read_text("utf-8"))
    assert name in page.text and "script" not in page.tags and "b" in page.tags
    assert json.loads((run.folder / "metrics-validation.json").read_text())["split"] == "validation"


def test_the_command_evaluates_another_split_beside_the_test_split(
    borrowed: Callable[[str], Run], plain_dataset: Dataset, run_main: Main
) -> None:
    run = borrowed("run")
    folder = run.folder
    code, out, _ = run_main("evaluate", "--run", folder, "--tfrecords", plain_dataset.folder, "--split=train")
    assert code == 0
    assert out.startswith(f"RMSE on train ({plain_dataset.galaxies('train')} galaxies)\n")
    assert f"metrics: {folder / 'metrics-train.json'}\n" in out
    assert run.metrics_path("train").is_file() and run.report_path("train").is_file()
    assert not run.metrics_path("test").exists()


def test_a_split_of_a_single_galaxy_without_history_and_train_is_reported_without_noise(
    borrowed: Callable[[str], Run], make_dataset: Any, recwarn: pytest.WarningsRecorder
) -> None:
    dataset = make_dataset(limit=1, validation_fraction=0.0, test_fraction=1.0)
    run = borrowed("run")
    (run.folder / "history.csv").unlink()
    content = evaluate(run, dataset)
    assert content["galaxies"] == 1 and content["best_validation"] is None and list(content["baselines"]) == ["zeros"]
    page = Read((run.folder / "report" / "index.html").read_text("utf-8"))
    assert "history" not in page.ids and not any("history" in path.name for path in (run.folder / "report").rglob("*.svg"))
    everything = [page.text, *(image["alt"] for image in page.images)]
    assert "nan" not in re.split(r"\W+", " ".join(everything))
    assert [str(warning.message) for warning in recwarn if warning.category is RuntimeWarning] == []


def test_galaxies_without_votes_cannot_be_measured(borrowed: Callable[[str], Run], plain_dataset: Dataset) -> None:
    run = borrowed("run")
    with pytest.raises(RunError, match="split 'unlabelled' have no votes to compare with: use trainer predict"):
        evaluate(run, plain_dataset, "unlabelled")
    assert not run.metrics_path("unlabelled").exists()


def _rows(run: Run, name: str) -> list[dict[str, str]]:
    with (run.folder / "report" / "data" / f"test-{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_numbers_beside_the_charts_are_those_of_the_predictions(
    tiny_run: Run, tiny_metrics: dict[str, Any], predictions: Predictions
) -> None:
    predicted, targets = predictions.predicted.astype(np.float64), predictions.targets
    for row, name in zip(_rows(tiny_run, "per-class"), COLUMNS, strict=True):
        assert (row["column"], float(row["rmse"])) == (name, pytest.approx(tiny_metrics["per_class"][name]["rmse"]))
        assert float(row["interval_low"]) <= float(row["rmse"]) <= float(row["interval_high"])
    for row, question in zip(_rows(tiny_run, "tree"), QUESTIONS, strict=True):
        assert float(row["rmse"]) == pytest.approx(tiny_metrics["per_question"][str(question.number)]["rmse"])
    for column, row in enumerate(_rows(tiny_run, "maximum-agreement")):
        assert float(row["voted"]) == targets[:, column].max()
        assert float(row["predicted"]) == pytest.approx(predicted[:, column].max(), rel=1e-6)
    for column, row in enumerate(_rows(tiny_run, "error-against-mean")):
        assert float(row["mean"]) == pytest.approx(targets[:, column].mean())
        assert float(row["mse"]) == pytest.approx(((predicted - targets)[:, column] ** 2).mean(), rel=1e-5)
    ladder = {row["score"]: row for row in _rows(tiny_run, "ladder")}
    assert float(ladder["this model"]["rmse"]) == tiny_metrics["rmse"]
    assert float(ladder["all zeros"]["rmse"]) == tiny_metrics["baselines"]["zeros"]
    assert [name for name, row in ladder.items() if row["published_for_another_test_set"] == "True"] == [
        "central pixel, Kaggle", "the article", "Kaggle 2014, winner",
    ]  # fmt: skip
    counts = {
        number: sum(int(row["galaxies"]) for row in _rows(tiny_run, "agreement") if row["question"] == str(number))
        for number in (1, 6)
    }
    assert counts == {1: len(targets), 6: len(targets)}


def test_the_galleries_show_galaxies_of_the_split_with_their_own_pictures_and_votes(
    plain_dataset: Dataset, predictions: Predictions
) -> None:
    from tfrecords import reader

    pictures = {
        int(example["galaxy_id"]): reader.decode(example, "png", 32).numpy()
        for example in reader.in_order(plain_dataset, "test")
    }
    galaxies = Galaxies(plain_dataset, ("test",), predictions.galaxy_ids, predictions.targets, predictions.predicted)
    row_of = {int(galaxy_id): row for row, galaxy_id in enumerate(predictions.galaxy_ids)}
    shown = made_galleries(galaxies, hubble_choices(galaxies))
    assert [gallery.name for gallery in shown] == sorted(HUBBLE_GALLERIES, key=ORDER.index)
    for gallery in shown:
        assert gallery.cards
        for card in gallery.cards:
            row = row_of[card.galaxy_id]
            np.testing.assert_array_equal(card.pictures[0], pictures[card.galaxy_id])
            columns = [COLUMNS.index(f"Class{bar.label.rpartition('(')[2].rstrip(')')}") for bar in card.bars]
            assert [bar.voted for bar in card.bars] == predictions.targets[row, columns].tolist()
            assert [bar.predicted for bar in card.bars] == predictions.predicted[row, columns].tolist()


@pytest.mark.parametrize(("passing", "fallback"), [(3, True), (4, False), (20, False)])
def test_a_gallery_shows_those_that_pass_or_says_that_it_shows_the_highest(
    plain_dataset: Dataset, passing: int, fallback: bool
) -> None:
    votes = np.full((30, 37), 0.1)
    votes[:passing, 0] = 0.95
    votes[passing:, 0] = np.linspace(0.5, 0.8, 30 - passing)
    ids = np.arange(1000, 1030)[::-1].copy()
    choice = hubble_choices(Galaxies(plain_dataset, ("test",), ids, votes))[0]
    shown = ids[choice.rows].tolist()
    if fallback:
        assert choice.title == "Ellipticals at 0.9: 3 pass, so the 12 highest scores"
        assert sorted(votes[choice.rows, 0], reverse=True) == votes[choice.rows, 0].tolist() and len(shown) == 12
    else:
        assert choice.title == f"Ellipticals at 0.9: {min(passing, 12)} of {passing}"
        assert shown == sorted(ids[:passing].tolist())[:12]


def test_a_report_is_made_again_without_the_model_as_long_as_nothing_has_changed(
    tiny_run: Run, plain_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = replace(tiny_run, folder=tmp_path / "run")
    shutil.copytree(tiny_run.folder, run.folder, ignore=shutil.ignore_patterns("checkpoint", "tensorboard"))
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    shutil.rmtree(run.folder / "report")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "load_model", lambda self: pytest.fail("the model was loaded"))
        evaluate(run, plain_dataset)
    after = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    folder = str(tiny_run.folder).encode()
    assert after.keys() == before.keys()
    # The layout of a chart may differ in the last digit of a number.
    numbers = [path for path in after if path.suffix not in (".svg", ".html")]
    assert [path.name for path in numbers if after[path] != before[path].replace(folder, str(run.folder).encode())] == []
    table = run.predictions_path("test")
    table.write_bytes(table.read_bytes().replace(b"0.", b"0.0", 1))  # no longer what metrics.json speaks of
    evaluate(run, plain_dataset)
    assert table.read_bytes() == before[table]


def test_the_model_card_says_what_a_user_must_know(tiny_run: Run, plain_dataset: Dataset, tiny_metrics: dict[str, Any]) -> None:
    card = (tiny_run.folder / "README.md").read_text("utf-8")
    for text in (
        f"RMSE **{tiny_metrics['rmse']:.4f}** on {tiny_metrics['galaxies']} galaxies of split `test`",
        f"| galaxies in train | {plain_dataset.galaxies('train')} |",
        "| learning_rate | 0.0003 |",
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
    assert config.settings() == tiny_run.settings and config.out == tiny_run.folder  # the command makes this very run


def test_the_figure_of_the_history_marks_the_kept_epoch() -> None:
    epochs = [Epoch(number, 0.3, mse, 1e-5, 1.0, 1.0) for number, mse in enumerate([0.2, 0.1, 0.15], 1)]
    (axes,) = figures.history(9.6, epochs).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["validation"].get_ydata()) == [0.2, 0.1, 0.15]
    assert list(lines["kept: epoch 2"].get_xdata()) == [2]
    without = [replace(row, val_mse=np.nan) for row in epochs]
    assert [line.get_label() for line in figures.history(3.8, without).axes[0].lines] == [
        "train (while learning, with dropout)"
    ]


def test_the_ladder_stands_in_order_and_tells_published_scores_from_measured_ones() -> None:
    rungs = [figures.Rung("all zeros", 0.28), figures.Rung("ours", 0.1), figures.Rung("theirs", 0.2, published=True)]
    figure = figures.ladder(9.6, rungs, "ours", (0.09, 0.11))
    bars = [bar for bar in figure.axes[0].patches if bar.get_width()]
    assert [bar.get_width() for bar in bars] == [0.28, 0.2, 0.1]
    assert [bar.get_facecolor()[3] for bar in bars] == [1, 0, 1]  # only the published one is open
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert {"ours", "all zeros", "0.1000", "0.2800", "0.2000  other test set"} <= set(texts)


@pytest.mark.parametrize("width", [9.6, 3.8])
def test_the_bars_of_an_answer_are_its_rmse(width: float) -> None:
    rmse = np.linspace(0.1, 0.3, 37)
    intervals = np.stack([rmse - 0.01, rmse + 0.01], axis=1)
    bars = [bar.get_width() for axes in figures.per_class(width, rmse, intervals, 2 * rmse, 9).axes for bar in axes.patches]
    expected = [value for q in QUESTIONS for value in (*2 * rmse[q.columns], *rmse[q.columns])]
    np.testing.assert_allclose(bars, expected)
    assert sum(len(axes.patches) for axes in figures.per_class(width, rmse, intervals, None, 9).axes) == 37


def test_bins_of_few_galaxies_are_grey() -> None:
    bins = np.zeros((11, 10, 2))
    bins[..., 0], bins[..., 1] = 0.5, [19, 20] * 5
    axes = figures.agreement(9.6, bins).axes[0]
    colours = (style.PREDICTED, style.QUIET)
    heights = [[bar.get_height() for bar in axes.patches if to_hex(bar.get_facecolor()) == colour] for colour in colours]
    assert [[height for height in part if height] for part in heights] == [[0.5] * 5] * 2


def test_another_dataset_is_named_and_leaves_the_model_card_alone(
    borrowed: Callable[[str], Run], make_dataset: Any, tmp_path: Path
) -> None:
    run = borrowed("run")
    (run.folder / "README.md").write_text("mine")
    evaluate(run, make_dataset(seed=5))
    assert (run.folder / "README.md").read_text() == "mine"
    page = Read((run.folder / "report" / "index.html").read_text("utf-8"))
    assert "of split test of another dataset, VGG16 reaches" in page.text


@pytest.mark.parametrize("lines", [0.5, 1.5, 1.99])
def test_a_damaged_history_is_one_error_with_the_way_out(
    borrowed: Callable[[str], Run], plain_dataset: Dataset, lines: float
) -> None:
    run = borrowed("run")
    whole = (run.folder / "history.csv").read_text().splitlines(keepends=True)
    (run.folder / "history.csv").unlink()
    cut = whole[int(lines)]
    (run.folder / "history.csv").write_text("".join(whole[: int(lines)]) + cut[: int(len(cut) * (lines % 1))].rstrip("\n"))
    with pytest.raises(RunError, match=r"history\.csv: damaged .*: remove it"):
        evaluate(run, plain_dataset)
    assert not run.metrics_path("test").exists()


def test_a_gallery_of_the_highest_scores_does_not_call_them_predicted(plain_dataset: Dataset) -> None:
    votes = np.full((30, 37), 0.1)
    choices = hubble_choices(Galaxies(plain_dataset, ("test",), np.arange(30), votes, votes))
    assert {choice.alt for choice in choices} == {
        f"among the highest scores for {name}" for name in ("elliptical", "spiral", "barred spiral")
    }
