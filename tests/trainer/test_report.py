"""Metrics, figures and page say what the predictions say, and the page needs nothing but itself."""

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from tfrecords.dataset import Dataset
from tfrecords.errors import RunError
from tfrecords.taxonomy import COLUMNS, HUBBLE_CLASSES, hubble_score
from trainer.analysis import figures, metrics, report
from trainer.analysis.evaluate import evaluate, summary
from trainer.predict import Predictions, predict
from trainer.run import Epoch, Run

Main = Callable[..., tuple[int, str, str]]
NAMES = {
    "scores", "history", "hubble", "per-class", "maximum-agreement", "error-against-mean", "predicted-against-voted",
    "extremes",
}  # fmt: skip


class Page(HTMLParser):
    """What a browser would load, show and run."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "poster", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def predictions(tiny_run: Run, plain_dataset: Dataset) -> Predictions:
    return predict(tiny_run, plain_dataset, "test")


@pytest.fixture(scope="module")
def page(tiny_run: Run) -> Page:
    return Page((tiny_run.folder / "report" / "index.html").read_text("utf-8"))


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
    assert "the predictions hardly vary: raise --learning_rate" in summary(Run(tmp_path, {}), "test")


def test_the_page_loads_nothing_but_itself_and_runs_nothing(page: Page) -> None:
    assert page.loaded and all(address.startswith("data:image/png;base64,") for address in page.loaded)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)


def test_every_figure_is_a_png_in_the_page_and_beside_it(tiny_run: Run, page: Page) -> None:
    files = {path.name: path.read_bytes() for path in (tiny_run.folder / "report" / "figures").iterdir()}
    assert set(files) == {f"test-{name}.png" for name in NAMES}
    shown = [base64.b64decode(address.partition(",")[2], validate=True) for address in page.loaded]
    assert sorted(shown) == sorted(files.values())
    for content in files.values():
        image = Image.open(io.BytesIO(content))
        assert image.format == "PNG" and min(image.size) >= 250
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 20  # something is drawn


def test_the_page_says_the_score_and_the_settings(
    page: Page, tiny_metrics: dict[str, Any], tiny_settings: dict[str, Any]
) -> None:
    for text in (f"{tiny_metrics['rmse']:.4f}", *tiny_settings, tiny_metrics["model"][:12], "Sloan Digital Sky Survey"):
        assert text in page.text


def test_a_hostile_folder_name_is_shown_and_not_run(borrowed: Callable[[str], Run], plain_dataset: Dataset) -> None:
    name = "a<b>&c<script>alert(1)<"
    run = borrowed(name)
    evaluate(run, plain_dataset, "validation")
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "config.json", "history.csv", "metrics-validation.json", "model.keras", "predictions-validation.csv", "report",
    ]  # fmt: skip
    page = Page((run.folder / "report" / "validation.html").read_text("utf-8"))
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
    page = Page((run.folder / "report" / "index.html").read_text("utf-8"))
    assert len(page.loaded) == len(NAMES) - 1
    assert "nan" not in re.split(r"\W+", page.text)
    assert [str(warning.message) for warning in recwarn if warning.category is RuntimeWarning] == []


def test_galaxies_without_votes_cannot_be_measured(borrowed: Callable[[str], Run], plain_dataset: Dataset) -> None:
    run = borrowed("run")
    with pytest.raises(RunError, match="split 'unlabelled' have no votes to compare with: use trainer predict"):
        evaluate(run, plain_dataset, "unlabelled")
    assert not run.metrics_path("unlabelled").exists()


def _shown(figure: Figure) -> list[tuple[int, str, np.ndarray]]:
    """The galaxies of a gallery in the order of its cells: id, caption, picture."""
    cells = [axes for axes in figure.findobj(lambda artist: hasattr(artist, "get_images")) if axes.get_images()]
    titles = [axes.get_title().split("\n") for axes in cells]
    pictures = [np.asarray(axes.get_images()[0].get_array()) for axes in cells]
    return [(int(title[0]), title[1], picture) for title, picture in zip(titles, pictures, strict=True)]


def test_the_galleries_show_galaxies_of_the_split_with_their_own_pictures(
    plain_dataset: Dataset, predictions: Predictions
) -> None:
    from tfrecords import reader

    pictures = {
        int(example["galaxy_id"]): reader.decode(example, "png", 32).numpy()
        for example in reader.in_order(plain_dataset, "test")
    }
    hubble, extremes = (_shown(figure) for figure in report._galleries(plain_dataset, "test", predictions))
    assert len(hubble) == 3 * 6 and len(extremes) == 2 * 6
    for galaxy_id, _, picture in (*hubble, *extremes):
        np.testing.assert_array_equal(picture, pictures[galaxy_id])
    for place, name in enumerate(HUBBLE_CLASSES):
        score = dict(zip(predictions.galaxy_ids.tolist(), hubble_score(predictions.predicted, name), strict=True))
        cells = hubble[6 * place : 6 * place + 6]
        assert [score[galaxy_id] for galaxy_id, _, _ in cells] == sorted(score.values(), reverse=True)[:6]
        assert all(f"predicted {score[galaxy_id]:.2f}, votes " in caption for galaxy_id, caption, _ in cells)
    errors = np.sqrt(metrics.squared_errors(predictions.predicted, predictions.targets).mean(axis=1))
    of = dict(zip(predictions.galaxy_ids.tolist(), errors, strict=True))
    assert [of[galaxy_id] for galaxy_id, _, _ in extremes] == [*sorted(errors)[:6], *sorted(errors)[::-1][:6]]
    assert all(caption == f"RMSE {of[galaxy_id]:.3f}" for galaxy_id, caption, _ in extremes)


def test_the_figure_of_the_history_marks_the_kept_epoch() -> None:
    epochs = [Epoch(number, 0.3, mse, 1e-5, 1.0, 1.0) for number, mse in enumerate([0.2, 0.1, 0.15], 1)]
    (axes,) = figures.history(epochs).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["validation"].get_ydata()) == [0.2, 0.1, 0.15]
    assert list(lines["kept: epoch 2"].get_xdata()) == [2]
    without = [replace(row, val_mse=np.nan) for row in epochs]
    assert [line.get_label() for line in figures.history(without).axes[0].lines] == ["train (while learning, with dropout)"]


def test_the_figure_of_the_scores_names_published_ones_as_of_another_test_set() -> None:
    figure = figures.scores(0.1, (0.09, 0.11), {"zeros": 0.28, "train_mean": 0.17})
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert {"this model", "all zeros", "column means of train", "0.1000", "0.2800"} <= set(texts)
    assert sum("(other test set)" in text for text in texts) == 3
    assert [bar.get_width() for bar in figure.axes[0].patches][:3] == [0.28, 0.17, 0.1]


def test_the_bars_of_an_answer_are_its_rmse() -> None:
    mse = np.linspace(0.01, 0.09, 37)
    bars = [bar.get_height() for bar in figures.per_class(mse, 2 * mse).axes[0].patches]
    np.testing.assert_allclose(bars, np.sqrt([*2 * mse, *mse]))
    assert len(figures.per_class(mse, None).axes[0].patches) == 37


def test_maximum_agreement_is_the_largest_value_of_each_column(predictions: Predictions) -> None:
    bars = figures.maximum_agreement(predictions.predicted, predictions.targets).axes[0].patches
    expected = [*predictions.targets.max(axis=0), *predictions.predicted.max(axis=0)]
    np.testing.assert_allclose([bar.get_height() for bar in bars], expected)
