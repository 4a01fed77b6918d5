"""Runs side by side: every number against one computed anew, and what a careless user gets."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from tests.trainer.analysis.browser import Look
from tests.trainer.analysis.pages import Read
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, RunError, SettingError
from trainer import compare
from trainer.analysis.classification import differences_of
from trainer.analysis.comparison import Comparison, Measurement
from trainer.analysis.metrics import paired_differences
from trainer.analysis.side_by_side import comparison_page, opening_sentence
from trainer.compare import compare_runs
from trainer.config import TrainConfig
from trainer.run import Run, open_run
from trainer.tables import Predictions

TREE = builtin_tree()
Main = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def other_run(plain_dataset: Dataset, tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run of one epoch, worse than `tiny_run`. Read-only."""
    from trainer.train import train_model

    folder = tmp_path_factory.mktemp("runs") / "other"
    train_model(TrainConfig(plain_dataset.folder, folder, **{**tiny_settings, "epochs": 1, "seed": 8}))
    yield open_run(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def page(tiny_run: Run, other_run: Run, plain_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compare_runs([tiny_run, other_run], plain_dataset, tmp_path_factory.mktemp("compared") / "page")


def _table(run: Run) -> pd.DataFrame:
    return pd.read_csv(run.folder / "predictions-test.csv", index_col="GalaxyID")


def _votes(dataset: Dataset, ids: pd.Index) -> np.ndarray:
    from tfrecords.reader import votes_of

    votes = votes_of(dataset, "test")
    return pd.DataFrame(votes.targets, index=votes.galaxy_ids).loc[ids].to_numpy(np.float64)


def test_the_tables_hold_the_scores_of_each_run(page: Path, tiny_run: Run, other_run: Run, plain_dataset: Dataset) -> None:
    tables = [_table(run) for run in (tiny_run, other_run)]
    votes = _votes(plain_dataset, tables[0].index)
    data = page.parent / "data"
    of_questions, of_answers = pd.read_csv(data / "questions-rmse.csv"), pd.read_csv(data / "answers-rmse.csv")
    accuracy, f1 = pd.read_csv(data / "questions-accuracy.csv"), pd.read_csv(data / "questions-f1.csv")
    mae = pd.read_csv(data / "errors-mae.csv")
    for label, table in zip(("tiny", "other"), tables, strict=True):
        predicted = table.to_numpy(np.float64)
        assert of_answers[label].tolist() == pytest.approx(np.sqrt(((predicted - votes) ** 2).mean(axis=0)))
        assert mae[label].tolist() == pytest.approx(np.abs(predicted - votes).mean(axis=0))
        for question in TREE.questions:
            errors = (predicted - votes)[:, question.columns] ** 2
            assert of_questions[label][question.index] == pytest.approx(np.sqrt(errors.mean()))
            rows = TREE.reached(votes, question) >= 0.5
            assert accuracy["galaxies"][question.index] == rows.sum()
            if rows.any():
                voted, guessed = (array[rows, question.columns].argmax(axis=1) for array in (votes, predicted))
                assert accuracy[label][question.index] == pytest.approx(accuracy_score(voted, guessed))
                assert f1[label][question.index] == pytest.approx(f1_score(voted, guessed, average="macro", zero_division=0))
    for frame in (of_questions, of_answers, accuracy, f1, mae):
        names = [f"other_minus_tiny{end}" for end in ("", "_low", "_high")]
        value, low, high = (frame[name] for name in names)
        assert value.tolist() == pytest.approx((frame["other"] - frame["tiny"]).tolist(), nan_ok=True)
        assert ((low <= value + 1e-12) & (value <= high + 1e-12) | value.isna()).all()
    runs = pd.read_csv(data / "runs.csv")
    overall = [np.sqrt(((table.to_numpy(np.float64) - votes) ** 2).mean()) for table in tables]
    assert runs["rmse"].tolist() == pytest.approx(overall)
    assert runs["minus_base"][1] == pytest.approx(overall[1] - overall[0])


def test_the_page_shows_learning_curves_settings_and_the_galaxies_that_differ_most(
    page: Path, tiny_run: Run, other_run: Run
) -> None:
    tables = [_table(run).to_numpy() for run in (tiny_run, other_run)]
    distances = np.sqrt(((tables[0] - tables[1]) ** 2).mean(axis=1))
    furthest = _table(tiny_run).index[np.argsort(-distances, kind="stable")[:12]].tolist()
    shown = pd.read_csv(page.parent / "data" / "differ-most.csv")
    assert list(dict.fromkeys(shown["GalaxyID"])) == furthest
    curves = pd.read_csv(page.parent / "data" / "learning-curves.csv")
    expected = [("tiny", "validation", row.epoch, row.val_mse) for row in tiny_run.history()]
    expected += [("other", "validation", row.epoch, row.val_mse) for row in other_run.history()]
    assert [*curves.itertuples(index=False, name=None)] == expected
    settings = pd.read_csv(page.parent / "data" / "settings.csv", index_col="setting", dtype=str)
    assert settings.loc[["epochs", "seed", "epochs trained"]].to_numpy().tolist() == [["3", "1"], ["3", "8"], ["3", "1"]]
    assert "batch_size" not in settings.index
    text = Read(page.read_text("utf-8")).text
    assert "Intervals are over galaxies. Training again with another seed would change a run, too." in text
    assert not re.search(r"\bnan\b", text)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_finds_nothing_wrong_with_the_page(page: Path, look: Any, width: int) -> None:
    assert look(page, width) == Look((), (), (), (), ())


def test_intervals_of_differences_are_those_of_galaxies_resampled_together() -> None:
    draws = np.random.default_rng(1)
    hard = draws.gamma(1, size=(300, 1))
    errors, base = 1.1 * hard + draws.gamma(0.1, size=(300, 2)), hard + draws.gamma(0.1, size=(300, 2))
    found = paired_differences(errors, base, resamples=4000)
    by_hand = []
    for _ in range(4000):
        rows = draws.integers(0, 300, 300)
        by_hand.append(np.sqrt(errors[rows].mean(axis=0)) - np.sqrt(base[rows].mean(axis=0)))
    low, high = np.percentile(by_hand, (2.5, 97.5), axis=0)
    assert found[:, 0] == pytest.approx(np.sqrt(errors.mean(axis=0)) - np.sqrt(base.mean(axis=0)))
    assert np.abs(found[:, 1] - low).max() < 0.1 * (high - low).max() > np.abs(found[:, 2] - high).max()
    alone = [np.ptp(np.percentile([np.sqrt(part[draws.integers(0, 300, 300)].mean()) for _ in range(999)], (2.5, 97.5)))
             for part in (errors[:, 0], base[:, 0])]  # fmt: skip
    assert found[0, 2] - found[0, 1] < 0.6 * np.hypot(*alone)
    weights = draws.integers(0, 2, errors.shape).astype(float)
    weighted = paired_differences(errors * weights, base * weights, weights=weights, root=False)
    means = [(part * weights).sum(axis=0) / weights.sum(axis=0) for part in (errors, base)]
    assert weighted[:, 0] == pytest.approx(means[0] - means[1])
    nothing = paired_differences(0 * errors, 0 * base, weights=0 * errors)
    assert np.isnan(nothing).all()


def test_differences_of_scores_are_those_of_galaxies_resampled_together() -> None:
    draws = np.random.default_rng(2)
    voted = draws.integers(0, 3, 250)
    base = np.where(draws.random(250) < 0.6, voted, draws.integers(0, 3, 250))
    guessed = np.where(draws.random(250) < 0.3, voted, base)
    found = differences_of(voted, guessed, base, 3, resamples=4000)
    by_hand = []
    for _ in range(1500):
        rows = draws.integers(0, 250, 250)
        v, g, b = voted[rows], guessed[rows], base[rows]
        by_hand.append([(v == g).mean() - (v == b).mean(), f1_score(v, g, average="macro") - f1_score(v, b, average="macro")])
    ends = np.percentile(by_hand, (2.5, 97.5), axis=0).T
    macro = f1_score(voted, guessed, average="macro") - f1_score(voted, base, average="macro")
    assert found.macro[2].value == pytest.approx(macro)
    for ours, (low, high) in zip((found.accuracy, found.macro[2]), ends, strict=True):
        assert abs(ours.low - low) < 0.15 * (high - low) > abs(ours.high - high)
    same = differences_of(voted, base, base, 3)
    assert (same.accuracy.low, same.accuracy.high, same.macro[2].high) == (0, 0, 0)


def _measured(run: Run, label: str, targets: np.ndarray, noise: float, seed: int = 0) -> Measurement:
    predicted = targets + noise * np.random.default_rng(seed).normal(size=targets.shape).astype(np.float32)
    return Measurement(label, run, Predictions(np.arange(len(targets)), predicted, targets))


def test_the_headline_claims_no_more_than_the_interval_shows(tiny_run: Run, plain_dataset: Dataset) -> None:
    targets = TREE.project(np.random.default_rng(0).gamma(1, size=(40, 37))).astype(np.float32)
    better, worse, alike = (
        _measured(tiny_run, name, targets, *noise) for name, noise in (("a", (0.1,)), ("b", (0.2,)), ("c", (0.1, 5)))
    )

    def said(*several: Measurement) -> str:
        return opening_sentence(Comparison(plain_dataset, "test", several))

    assert re.fullmatch(
        r"On the same 40 galaxies, a has the lower RMSE, 0\.\d{4}: 0\.\d{4} \(0\.\d{4} to 0\.\d{4}\) below that of b\.",
        said(worse, better),
    )
    assert "a has the lowest RMSE" in said(worse, better, _measured(tiny_run, "d", targets, 0.3))
    unclear = said(better, alike)
    assert "it is not clear which run is best" in unclear
    low, high = map(float, re.findall(r"\((-?0\.\d{4}) to (-?0\.\d{4})\)", unclear)[0])
    assert low <= 0 <= high
    alone = [_measured(tiny_run, name, targets[:1], noise) for name, noise in (("a", 0.1), ("b", 0.2))]
    assert "it is not clear which run is best" in said(*alone) and "nan" not in said(*alone)
    with pytest.raises(ValueError, match="not of the same galaxies"):
        Comparison(plain_dataset, "test", [better, alone[0]])
    twice = said(worse, better, replace(better, label="e"))
    assert "it is not clear which run is best: a has" in twice and twice.endswith("a difference of 0.0000 (0.0000 to 0.0000).")
    assert said(better, replace(better, label="e")) == "On the same 40 galaxies, a and e predict the same."


def test_the_page_warns_of_comparisons_that_are_not_fair(tiny_run: Run, plain_dataset: Dataset) -> None:
    targets = TREE.project(np.random.default_rng(0).gamma(1, size=(40, 37))).astype(np.float32)
    elsewhere = {**tiny_run.config, "dataset": {**tiny_run.config["dataset"], "fingerprint": "0" * 64}}
    others = {
        "was trained on another dataset, which may hold some of these galaxies": replace(tiny_run, config=elsewhere),
        "started from another run, which": replace(tiny_run, config={**tiny_run.config, "start": {"run": "x", "model": "0"}}),
    }
    for words, run in others.items():
        several = [_measured(tiny_run, "a", targets, 0.1), _measured(run, "b", targets, 0.2)]
        own_words = {"test": "", "train": "a was trained on these", "validation": "The epoch of a was chosen by these"}
        for split, own in own_words.items():
            # Sections are made without their pictures.
            comparison = Comparison(plain_dataset, split, several)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("trainer.analysis.side_by_side._differing", lambda _: None)
                [cautions] = [section for section in comparison_page(comparison).sections if section.anchor == "cautions"]
            assert f"b {words}" in cautions.paragraphs[0] and own in cautions.paragraphs[0]
            assert ("a was trained on these" in cautions.paragraphs[0]) == (split == "train")


def test_stored_predictions_are_used_and_a_run_folder_is_left_as_it_is(
    tiny_run: Run, other_run: Run, plain_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for run in (tiny_run, other_run) for path in run.folder.rglob("*")}
    compare_runs([tiny_run, other_run], plain_dataset, tmp_path / "validation", "validation")
    assert before == {path: path.stat().st_mtime_ns for run in (tiny_run, other_run) for path in run.folder.rglob("*")}

    def never(*_: object) -> None:
        raise AssertionError("predicted anew")

    monkeypatch.setattr(compare, "predict_split", never)
    compare_runs([tiny_run, other_run], plain_dataset, tmp_path / "test")
    with pytest.raises(AssertionError, match="predicted anew"):
        compare_runs([tiny_run, other_run], plain_dataset, tmp_path / "train", "train")


def test_runs_are_called_by_what_differs_in_their_paths(tmp_path: Path) -> None:
    folders = ("a/vgg16", "b/vgg16", "b/other")
    assert compare._labels([Run(tmp_path / folder, {}) for folder in folders]) == ["a/vgg16", "b/vgg16", "b/other"]
    assert compare._labels([Run(tmp_path / folder, {}) for folder in folders[1:]]) == ["vgg16", "other"]
    assert compare._labels([Run(tmp_path / "a" / name, {}) for name in ("galaxies", "b")]) == ["a/galaxies", "a/b"]
    assert compare._labels([Run(tmp_path / name / name, {}) for name in ("q a", "q_a")])[0] != "q a"


def test_careless_calls_get_one_line_and_leave_nothing(
    tiny_run: Run, other_run: Run, plain_dataset: Dataset, tmp_path: Path, run_main: Main
) -> None:
    with pytest.raises(SettingError, match="give at least two runs"):
        compare_runs([tiny_run], plain_dataset, tmp_path / "page")
    with pytest.raises(SettingError, match="given twice"):
        compare_runs([tiny_run, other_run, tiny_run], plain_dataset, tmp_path / "page")
    with pytest.raises(RunError, match="no votes to compare with"):
        compare_runs([tiny_run, other_run], plain_dataset, tmp_path / "page", "unlabelled")
    for inside in (tiny_run.folder, tiny_run.folder / "compared", plain_dataset.folder / "compared"):
        with pytest.raises(ConfigError, match=r"is in the folder of (a run|the dataset)"):
            compare_runs([tiny_run, other_run], plain_dataset, inside)
    larger = {**other_run.config, "dataset": {**other_run.config["dataset"], "size": 64}}
    with pytest.raises(ConfigError, match="was trained with 64"):
        compare_runs([tiny_run, replace(other_run, config=larger)], plain_dataset, tmp_path / "page")
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "index.html").write_text("mine")
    flags = ("--run", tiny_run.folder, "--run", other_run.folder, "--tfrecords", plain_dataset.folder)
    code, out, error = run_main("compare", *flags, "--out", tmp_path / "theirs")
    assert (code, out) == (1, "") and error.startswith("error: ") and error.count("\n") == 1
    assert (tmp_path / "theirs" / "index.html").read_text() == "mine"
    code, out, error = run_main("compare", *flags[:2], *flags[4:], "--out", tmp_path / "page")
    assert (code, error) == (2, "error: give at least two runs to compare, each with --run\n")
    for _ in range(2):  # again into the same folder
        code, out, error = run_main("compare", *flags, "--out", tmp_path / "page")
        assert (code, out) == (0, f"page: {tmp_path / 'page' / 'index.html'}\n"), error
