"""Metrics, figures and page agree with the predictions, and the page is self-contained."""

import argparse
import csv
import hashlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from tests.trainer.analysis.browser import Look
from tests.trainer.analysis.pages import Read
from tfrecords import framing, schema
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, DatasetError, RunError
from trainer.analysis import figures, style, wording
from trainer.analysis.card import write_card
from trainer.analysis.galleries import Candidates, class_choices
from trainer.analysis.galleries import galleries as made_galleries
from trainer.config import RECIPES, TrainConfig
from trainer.evaluate import evaluate_run, record_run, summary
from trainer.history import Epoch
from trainer.origin import dataset_summary
from trainer.predict import predict_split
from trainer.run import OWN, Run
from trainer.tables import Predictions

TREE = builtin_tree()
COLUMNS = TREE.columns
Main = Callable[..., tuple[int, str, str]]
CHARTS = {
    *("confusion", "confusion-confident"),
    *("ladder", "tree", "per-class", "maximum-agreement", "error-against-mean", "calibration", "agreement", "violation"),
    "history",
}
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


@pytest.fixture
def copied(tiny_run: Run, tmp_path: Path) -> Run:
    """A copy of `tiny_run` without its checkpoint, free to change."""
    shutil.copytree(tiny_run.folder, tmp_path / "copied", ignore=shutil.ignore_patterns("checkpoint", "tensorboard"))
    return replace(tiny_run, folder=tmp_path / "copied")


@pytest.fixture
def borrowed(tiny_run: Run, tmp_path: Path) -> Callable[[str], Run]:
    """A function that returns a run in a folder of a given name, with the model and history of `tiny_run`."""

    def make(name: str) -> Run:
        folder = tmp_path / name
        folder.mkdir()
        files = ("model.keras", "history.csv", "config.json")
        for file in files:
            os.link(tiny_run.folder / file, folder / file)
        run = replace(tiny_run, folder=folder)
        output = run.output
        output.adopt(*files)
        output.settle(*files)
        return run

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


@pytest.mark.slow
def test_a_hostile_folder_name_is_shown_and_not_run(borrowed: Callable[[str], Run], plain_dataset: Dataset) -> None:
    name = "a<b>&c<script>alert(1)<"
    run = borrowed(name)
    evaluate_run(run, plain_dataset, "validation")
    page = Read((run.folder / "evaluations" / "validation" / "report" / "index.html").read_text("utf-8"))
    assert name in page.text and "script" not in page.tags and "b" in page.tags


def _files(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name, without those private to the trainer."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(".galaxy-zoo/")}


@pytest.mark.slow
def test_the_runs_own_record_is_written_by_training_alone(
    copied: Run, tiny_run: Run, plain_dataset: Dataset, make_dataset: Any, run_main: Main
) -> None:
    """Every other measurement is below evaluations/, and the card lists it."""
    other = make_dataset(seed=5)
    before = _files(copied.folder)
    names = [
        ("train", plain_dataset, "train"),
        ("test", plain_dataset, "test"),
        (f"test-of-{other.fingerprint[:12]}", other, "test"),
    ]
    for name, dataset, split in names:
        code, out, _ = run_main("evaluate", "--run", copied.folder, "--tfrecords", dataset.folder, f"--split={split}")
        assert code == 0 and out.startswith(f"RMSE on {split} ({dataset.galaxies(split)} galaxies)\n")
        assert f"metrics: {copied.folder}/evaluations/{name}/metrics.json\n" in out
        assert f"report:  {copied.folder}/evaluations/{name}/report/index.html\n" in out
    after = _files(copied.folder)
    card = after.pop("README.md").decode()
    assert {name: content for name, content in after.items() if not name.startswith("evaluations/")} == {
        name: content for name, content in before.items() if name != "README.md"
    }
    for name, dataset, split in names:
        content = json.loads(after[f"evaluations/{name}/metrics.json"])
        where = "this run's" if dataset is plain_dataset else f"another, fingerprint `{other.fingerprint[:16]}`"
        low, high = content["interval"]
        assert (
            f"| [evaluations/{name}/](evaluations/{name}/report/index.html) | {split} | {content['galaxies']} "
            f"| {content['rmse']:.4f} | {low:.4f} to {high:.4f} | {where} |\n"
        ) in card
        assert f"evaluations/{name}/predictions-{split}.csv" in after
    listing = "".join(card.partition("## Other evaluations")[1:]).partition("## Limits")[0]
    assert card.replace(listing, "") == before["README.md"].decode().replace(str(tiny_run.folder), str(copied.folder))


@pytest.mark.slow
def test_a_card_that_its_user_changed_is_left_as_it_is(
    copied: Run, plain_dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    with (copied.folder / "README.md").open("a") as card:
        card.write("\nTrained for my thesis.\n")
    before = (copied.folder / "README.md").read_bytes()
    evaluate_run(copied, plain_dataset, "validation")
    assert (copied.folder / "README.md").read_bytes() == before
    assert caplog.messages == [f"{copied.folder}/README.md: has changed since it was written, so this evaluation is not added"]


@pytest.mark.slow
def test_a_run_without_its_marker_is_measured_and_not_trained_and_none_of_its_files_is_changed(
    copied: Run, plain_dataset: Dataset, tiny_settings: dict[str, Any]
) -> None:
    """As after `cp -r RUN/* ELSEWHERE`: nothing shows which of its files are ours."""
    from trainer.train import train_model

    shutil.rmtree(copied.folder / ".galaxy-zoo")
    before = _files(copied.folder)
    for _ in ("without a marker", "with one of the evaluation alone"):
        for overwrite in (False, True):
            with pytest.raises(ConfigError, match=r"is a run without its folder \.galaxy-zoo, .*: copy the whole folder again"):
                train_model(TrainConfig(plain_dataset.folder, copied.folder, **tiny_settings), overwrite)
        evaluate_run(copied, plain_dataset, "validation")
        after = _files(copied.folder)
        assert {name: after[name] for name in before} == before
        assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"evaluations"}


@pytest.mark.slow
def test_a_card_that_was_removed_is_made_again(copied: Run, plain_dataset: Dataset) -> None:
    (copied.folder / "README.md").unlink()
    evaluate_run(copied, plain_dataset, "validation")
    assert "evaluations/validation/" in (copied.folder / "README.md").read_text()


@pytest.mark.slow
def test_votes_that_were_changed_in_a_shard_are_noticed_although_the_predictions_are_there(
    copied: Run, make_dataset: Any
) -> None:
    dataset = make_dataset(seed=6)
    evaluate_run(copied, dataset)
    before = _files(copied.folder)
    path = dataset.paths("test")[0]
    examples = [schema.parse(record) for record in framing.read_records(path)]
    turned = [replace(example, targets=example.targets[::-1].copy()) for example in examples]
    path.write_bytes(b"".join(framing.frame(schema.serialize(example)) for example in turned))
    with pytest.raises(DatasetError, match=f"{path.name}: differs from the shard that preprocess wrote"):
        evaluate_run(copied, dataset)
    assert _files(copied.folder) == before


def test_a_folder_of_somebody_else_below_evaluations_is_refused(copied: Run, plain_dataset: Dataset) -> None:
    mine = copied.folder / "evaluations" / "validation" / "metrics.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ConfigError, match=r"evaluations/validation/metrics\.json: was not written by this program"):
        evaluate_run(copied, plain_dataset, "validation")
    assert mine.read_text() == "mine" and [*mine.parent.iterdir()] == [mine]


@pytest.mark.slow
def test_a_split_of_a_single_galaxy_without_history_and_train_is_reported_without_noise(
    borrowed: Callable[[str], Run], make_dataset: Any, recwarn: pytest.WarningsRecorder
) -> None:
    dataset = make_dataset(limit=1, validation_fraction=0.0, test_fraction=1.0)
    run = borrowed("run")
    (run.folder / "history.csv").unlink()
    record, content = evaluate_run(run, dataset)
    assert content["galaxies"] == 1 and content["best_validation"] is None and list(content["baselines"]) == ["zeros"]
    page = Read(run.path(record.report).read_text("utf-8"))
    assert "history" not in page.ids and not any("history" in path.name for path in run.folder.rglob("*.svg"))
    everything = [page.text, *(image["alt"] for image in page.images)]
    assert "nan" not in re.split(r"\W+", " ".join(everything))
    assert [str(warning.message) for warning in recwarn if warning.category is RuntimeWarning] == []


def test_galaxies_without_votes_cannot_be_measured(borrowed: Callable[[str], Run], plain_dataset: Dataset) -> None:
    run = borrowed("run")
    with pytest.raises(RunError, match="split 'unlabelled' have no votes to compare with: use trainer predict"):
        evaluate_run(run, plain_dataset, "unlabelled")
    assert not (run.folder / "evaluations").exists()


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
    for row, question in zip(_rows(tiny_run, "tree"), TREE.questions, strict=True):
        assert float(row["rmse"]) == pytest.approx(tiny_metrics["per_question"][question.key]["rmse"])
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


@pytest.mark.parametrize(("passing", "fallback"), [(3, True), (4, False), (20, False)])
def test_a_gallery_shows_those_that_pass_or_says_that_it_shows_the_highest(
    plain_dataset: Dataset, passing: int, fallback: bool
) -> None:
    votes = np.full((30, 37), 0.1)
    votes[:passing, 0] = 0.95
    votes[passing:, 0] = np.linspace(0.5, 0.8, 30 - passing)
    ids = np.arange(1000, 1030)[::-1].copy()
    choice = class_choices(Candidates(plain_dataset, ("test",), ids, votes))[0]
    shown = ids[choice.rows].tolist()
    if fallback:
        assert choice.title == "Ellipticals at 0.9: 3 pass, 12 highest scores shown"
        assert sorted(votes[choice.rows, 0], reverse=True) == votes[choice.rows, 0].tolist() and len(shown) == 12
    else:
        assert choice.title == f"Ellipticals at 0.9: {min(passing, 12)} of {passing}"
        assert shown == sorted(ids[:passing].tolist())[:12]


def test_a_class_with_too_few_galaxies_at_both_thresholds_falls_back_once(plain_dataset: Dataset) -> None:
    votes = np.full((30, 37), 0.1)
    votes[:3, 0] = (0.95, 0.7, 0.65)
    names = np.array([f"galaxy {number:02}" for number in range(30)][::-1])
    candidates = Candidates(plain_dataset, ("test",), np.arange(30), votes, names=names)
    of_first = [choice for choice in class_choices(candidates) if choice.name.startswith("elliptical")]
    assert [choice.title for choice in of_first] == ["Ellipticals at 0.9 and 0.6: 1 and 3 pass, 12 highest scores shown"]
    assert of_first[0].caption.startswith("Fewer than 4 galaxies have Class1.1 ≥ 0.6 (voted).")
    assert of_first[0].rows.tolist() == [0, 1, 2, *range(29, 20, -1)]  # of the same score, the first by name
    votes[:4, 0] = 0.7
    passing = [choice for choice in class_choices(candidates) if choice.name == "elliptical-60"]
    assert passing[0].caption == "The first galaxies by name with Class1.1 ≥ 0.6 (voted)."
    assert passing[0].rows.tolist() == [3, 2, 1, 0]


@pytest.mark.slow
def test_a_report_is_made_again_without_the_model_as_long_as_nothing_has_changed(
    copied: Run, plain_dataset: Dataset, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _files(copied.folder)
    shutil.rmtree(copied.folder / "report")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "load_model", lambda self: pytest.fail("the model was loaded"))
        record_run(copied, plain_dataset)
    after = _files(copied.folder)
    folder = str(tiny_run.folder).encode()
    assert after.keys() == before.keys()
    # The layout of a chart may differ in the last digit of a number.
    numbers = [name for name in after if not name.endswith((".svg", ".html"))]
    # The model holds the folder in which it was trained.
    expected = {
        name: before[name] if name == "model.keras" else before[name].replace(folder, str(copied.folder).encode())
        for name in numbers
    }
    assert [name for name in numbers if after[name] != expected[name]] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["predictions-test.csv", "metrics.json", "report/index.html"])
def test_a_record_that_was_changed_is_refused_by_name_and_made_anew_once_that_is_moved(
    copied: Run, plain_dataset: Dataset, name: str
) -> None:
    before = copied.path(name).read_bytes()
    copied.path(name).write_bytes(before.replace(b"0.", b"0.0", 1))
    with pytest.raises(ConfigError, match=rf"{name}: has changed since it was written: move it elsewhere"):
        record_run(copied, plain_dataset)
    copied.path(name).rename(copied.folder.parent / "moved")
    record_run(copied, plain_dataset)
    assert copied.path(name).read_bytes() == before or name.endswith("html")


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


def test_the_figure_of_the_history_marks_the_kept_epoch() -> None:
    epochs = [Epoch(number, 0.3, mse, 1e-5, 1.0, 1.0) for number, mse in enumerate([0.2, 0.1, 0.15], 1)]
    (axes,) = figures.draw_history(9.6, epochs).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["validation"].get_ydata()) == [0.2, 0.1, 0.15]
    assert list(lines["kept: epoch 2"].get_xdata()) == [2]
    without = [replace(row, val_mse=np.nan) for row in epochs]
    assert [line.get_label() for line in figures.draw_history(3.8, without).axes[0].lines] == [
        "train (while learning, with dropout)"
    ]


def test_the_ladder_stands_in_order_and_tells_published_scores_from_measured_ones() -> None:
    rungs = [figures.Rung("all zeros", 0.28), figures.Rung("ours", 0.1), figures.Rung("theirs", 0.2, published=True)]
    figure = figures.draw_ladder(9.6, rungs, "ours", (0.09, 0.11))
    bars = [bar for bar in figure.axes[0].patches if bar.get_width()]
    assert [bar.get_width() for bar in bars] == [0.28, 0.2, 0.1]
    assert [bar.get_facecolor()[3] for bar in bars] == [1, 0, 1]  # only the published one is open
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert {"ours", "all zeros", "0.1000", "0.2800", "0.2000  other test set"} <= set(texts)


@pytest.mark.parametrize("width", [9.6, 3.8])
def test_the_bars_of_an_answer_are_its_rmse(width: float) -> None:
    rmse = np.linspace(0.1, 0.3, 37)
    intervals = np.stack([rmse - 0.01, rmse + 0.01], axis=1)
    bars = [
        bar.get_width()
        for axes in figures.draw_per_class(TREE, width, rmse, intervals, 2 * rmse, 9).axes
        for bar in axes.patches
    ]
    expected = [value for q in TREE.questions for value in (*2 * rmse[q.columns], *rmse[q.columns])]
    np.testing.assert_allclose(bars, expected)
    assert sum(len(axes.patches) for axes in figures.draw_per_class(TREE, width, rmse, intervals, None, 9).axes) == 37


def test_bins_of_few_galaxies_are_grey() -> None:
    bins = np.zeros((11, 10, 2))
    bins[..., 0], bins[..., 1] = 0.5, [19, 20] * 5
    axes = figures.draw_agreement(TREE, 9.6, bins).axes[0]
    colours = (style.PREDICTED, style.QUIET)
    heights = [[bar.get_height() for bar in axes.patches if to_hex(bar.get_facecolor()) == colour] for colour in colours]
    assert [[height for height in part if height] for part in heights] == [[0.5] * 5] * 2


@pytest.mark.slow
def test_another_dataset_is_named(borrowed: Callable[[str], Run], make_dataset: Any) -> None:
    run = borrowed("run")
    record, _ = evaluate_run(run, make_dataset(seed=5))
    page = Read(run.path(record.report).read_text("utf-8"))
    assert "of split test of another dataset, SmallNet reaches" in page.text


@pytest.mark.slow
@pytest.mark.parametrize("lines", [0.5, 1.5, 1.99])
def test_a_damaged_history_is_one_error_with_the_way_out(
    borrowed: Callable[[str], Run], plain_dataset: Dataset, lines: float
) -> None:
    run = borrowed("run")
    whole = (run.folder / "history.csv").read_text().splitlines(keepends=True)
    (run.folder / "history.csv").unlink()
    cut = whole[int(lines)]
    (run.folder / "history.csv").write_text("".join(whole[: int(lines)]) + cut[: int(len(cut) * (lines % 1))].rstrip("\n"))
    run.output.settle("history.csv")  # so that its hash, which is checked first, is right
    with pytest.raises(RunError, match=r"history\.csv: damaged .*: remove it"):
        evaluate_run(run, plain_dataset)
    assert not list(run.folder.glob("evaluations/*/metrics.json"))


def test_a_history_that_was_changed_is_one_error_with_the_way_out(copied: Run, plain_dataset: Dataset) -> None:
    text = (copied.folder / "history.csv").read_text()
    (copied.folder / "history.csv").write_text(text.replace("0.", "0.0", 1))
    with pytest.raises(RunError, match=r"history\.csv: has changed since it was written: move it elsewhere"):
        evaluate_run(copied, plain_dataset)


def test_a_gallery_of_the_highest_scores_does_not_call_them_predicted(plain_dataset: Dataset) -> None:
    votes = np.full((30, 37), 0.1)
    choices = class_choices(Candidates(plain_dataset, ("test",), np.arange(30), votes, votes))
    assert {choice.alt for choice in choices} == {
        f"among the highest scores for {name}" for name in ("elliptical", "spiral", "barred spiral")
    }


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


@pytest.fixture(scope="module")
def of_decals(build_settings: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Dataset]]:
    """A measured run with head dirichlet on 80 synthetic galaxies with votes as in DECaLS, and its dataset. Read-only."""
    from preprocess.demo import make_demo
    from preprocess.job import build_dataset
    from trainer.train import train_model

    folder = tmp_path_factory.mktemp("of_decals")
    make_demo(folder / "source", 80, tree="decals5")
    dataset = build_dataset(folder / "source", folder / "data", build_settings(), workers=1).dataset
    settings = {**RECIPES["best"](), "epochs": 1, "batch_size": 16, "warmup_steps": 0, "weights": "none", "backbone": "small"}
    dirichlet = {"head": "dirichlet", "loss": "dirichlet_multinomial"}
    yield train_model(TrainConfig(dataset.folder, folder / "run", **{**settings, **dirichlet})), dataset
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_report_on_another_survey_has_its_questions_and_nothing_of_kaggles(of_decals: tuple[Run, Dataset], look: Any) -> None:
    run, dataset = of_decals
    tree = dataset.tree
    path = run.folder / "report" / "index.html"
    page = Read(path.read_text("utf-8"))
    assert page.ids >= CHARTS | {"intervals", "best", "worst", "surprising"} | {f"question-{q.key}" for q in tree.questions}
    everything = " ".join([page.text, *(image["alt"] for image in page.images)])
    card = (run.folder / "README.md").read_text("utf-8")
    for text in (everything, card):
        for of_kaggle in ("Class1", "Hubble", "elliptical", "Kaggle", "37 columns", "of 37", "challenge", "Galaxy Zoo 2"):
            assert of_kaggle not in text, of_kaggle
        assert tree.citation in text
    assert "each question of a galaxy was weighted by the number of its answers" in everything
    assert "Each vote fraction counts the same, however many volunteers are behind it, unless a table" in everything
    assert "are assumed" not in everything and "assumed" not in card and "GalaxyID" not in everything
    assert "Dirichlet-multinomial" in everything and "obey the tree by construction" in everything
    assert "nan" not in re.split(r"\W+", everything)
    assert "Dense 44 and a softmax for each question" in card and "Output: 34 fractions" in card
    assert [name for name in dataset.tree.index if f"| {name} |" in card] == []
    for width in (390, 1400):
        assert look(path, width) == Look((), (), (), (), ())


@pytest.mark.slow
def test_the_scores_of_a_survey_with_counts_are_over_the_questions_that_were_answered(of_decals: tuple[Run, Dataset]) -> None:
    from tfrecords.reader import votes_of
    from trainer.analysis.intervals import coverage

    run, dataset = of_decals
    content = json.loads((run.folder / "metrics.json").read_text())
    predictions = predict_split(run, dataset, "test")
    asked = predictions.asked
    assert asked is not None and predictions.concentrations is not None and (asked == 0).any()
    counted = np.repeat(asked > 0, [len(question.answers) for question in dataset.tree.questions], axis=1)
    errors = (predictions.predicted.astype(np.float64) - predictions.targets) ** 2
    assert content["mse"] == pytest.approx(errors[counted].mean(), rel=1e-6)
    assert content["best_validation"]["mse"] > 0
    assert [*content["per_question"]] == sorted(question.key for question in dataset.tree.questions)
    train = votes_of(dataset, "train")
    assert train.asked is not None
    of_train = np.repeat(train.asked > 0, [len(question.answers) for question in dataset.tree.questions], axis=1)
    means = (train.targets * of_train).sum(axis=0) / of_train.sum(axis=0)
    expected = np.sqrt(((means - predictions.targets) ** 2)[counted].mean())
    assert content["baselines"]["train_mean"] == pytest.approx(expected, rel=1e-5)
    covered = coverage(dataset.tree, predictions.predicted, predictions.concentrations, predictions.targets, asked)
    rows = _rows(run, "intervals")
    assert [row["question"] for row in rows] == [question.key for question in dataset.tree.questions]
    np.testing.assert_allclose([float(row["held"]) for row in rows], covered.held, atol=0.02)
    assert [int(row["galaxies"]) for row in rows] == covered.galaxies.tolist()


@pytest.mark.slow
def test_the_page_and_the_card_say_that_numbers_of_answers_are_assumed(of_decals: tuple[Run, Dataset], tmp_path: Path) -> None:
    run, dataset = of_decals
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint"))
    assumed = replace(dataset, source={**dataset.source, "asked": "assumed"})
    copy = replace(run, folder=tmp_path / "run", config={**run.config, "dataset": dataset_summary(assumed)})
    record, _ = evaluate_run(copy, assumed, "validation")
    page = Read((copy.folder / record.report).read_text("utf-8"))
    said = "The numbers of answers were not counted: 40 volunteers are assumed for each galaxy."
    assert f"questions that nobody answered do not count. {said} In training" in page.text
    assert "was weighted by the assumed number of its answers, less than in proportion." in page.text
    assert "As the votes have no counts, 40 volunteers are assumed." in page.text
    card = (copy.folder / "README.md").read_text("utf-8")
    assert said in card and "Dirichlet-multinomial, for an assumed number of volunteers" in card


def test_the_sentence_on_training_follows_the_dataset_of_the_run() -> None:
    scores = "Each vote fraction counts the same, however many volunteers are behind it, unless a table states otherwise; "
    scores += "questions that nobody answered "
    trained = "In training, each question of a galaxy was weighted by the number of its answers."
    decals = builtin_tree("decals5")
    assert wording.weighting("counted", decals, False, "cross_entropy") == f"{scores}do not count."
    assert wording.weighting(None, decals, "counted", "cross_entropy") == trained
    assert wording.weighting("counted", decals, "counted", "mse") == f"{scores}do not count."
    assert wording.weighting(None, TREE, False, "cross_entropy") == ""


@pytest.mark.slow
def test_an_export_of_the_dirichlet_head_says_what_the_model_gives(
    of_decals: tuple[Run, Dataset], tmp_path: Path, run_main: Main
) -> None:
    code, out, error = run_main("export", "--run", of_decals[0].folder, "--out", tmp_path / "model")
    assert code == 0, error
    assert "in, 34 vote fractions and a concentration for each of its 10 questions out\n" in out


@pytest.mark.slow
def test_few_real_galaxies_of_decals_are_measured_without_noise(
    build_settings: Any, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """A test split of one or two galaxies, in which nobody was asked some questions."""
    from preprocess.job import build_dataset
    from trainer.train import train_model

    source = Path(__file__).parents[4] / "shared" / "surveys" / "decals"
    if not source.exists():
        pytest.skip(f"{source} is missing: real galaxies are not part of the repository")
    dataset = build_dataset(
        source, tmp_path / "data", build_settings(test_fraction=0.5, validation_fraction=0.0), workers=1
    ).dataset
    assert dataset.galaxies("train") and dataset.galaxies("test")
    settings = {**RECIPES["best"](), "epochs": 1, "batch_size": 2, "warmup_steps": 0, "weights": "none", "backbone": "small"}
    run = train_model(TrainConfig(dataset.folder, tmp_path / "run", **settings))
    page = Read((run.folder / "report" / "index.html").read_text("utf-8"))
    everything = [page.text, *(image["alt"] for image in page.images), (run.folder / "README.md").read_text()]
    assert "nan" not in re.split(r"\W+", " ".join(everything))
    questions = json.loads((run.folder / "metrics.json").read_text())["per_question"].values()
    unanswered = sum(question["rmse"] is None for question in questions)
    assert everything[0].count("Nobody answered this question for these galaxies.") == unanswered
    assert "NaN" not in (run.folder / "metrics.json").read_text()
    assert [str(warning.message) for warning in recwarn if warning.category is RuntimeWarning] == []
