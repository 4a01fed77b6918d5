"""The measured recipes are the shipped ones, and verdicts follow from the numbers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import plain_keras, tables
from benchmarks.accuracy.trials import BASE, CONFIRM, SCREEN
from benchmarks.accuracy.work import Work, _rows
from benchmarks.children import REPOSITORY
from tests.conftest import SurveyMaker
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import open_dataset
from tfrecords.reader import votes_of
from trainer.config import RECIPES, TrainConfig

COLUMNS = builtin_tree().columns


@pytest.fixture(scope="module")
def prepared(make_survey: SurveyMaker, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A `Work` on 60 galaxies, with its survey in `survey` and a dummy weights file in `weights`. Read-only."""
    folder = tmp_path_factory.mktemp("accuracy")
    make_survey(folder / "survey", labelled=60, side=128, seed=2)
    (folder / "weights").write_bytes(b"none")
    work = Work(folder / "work")
    work.prepare(folder / "survey", folder / "weights")
    return work


def test_models_learn_from_the_galaxies_of_train_alone(prepared: Any) -> None:
    splits, train = open_dataset(prepared.splits), open_dataset(prepared.train)
    ids = {split: set(votes_of(splits, split)[0].tolist()) for split in ("train", "validation", "test")}
    assert all(ids.values()) and sum(map(len, ids.values())) == 60
    learnt, votes, *_ = votes_of(train, "train")
    assert set(learnt.tolist()) == ids["train"] and votes.shape == (len(ids["train"]), 37)
    assert not train.galaxies("validation") and not train.galaxies("test")
    assert splits.size == train.size == 64


@pytest.mark.slow
def test_a_folder_takes_runs_from_the_same_galaxies_and_weights_alone(prepared: Any, tmp_path: Path) -> None:
    folder = prepared.folder.parent
    prepared.prepare(folder / "survey", folder / "weights")
    (tmp_path / "other").write_bytes(b"others")
    with pytest.raises(SystemExit, match="from other weights: give another --work"):
        prepared.prepare(folder / "survey", tmp_path / "other")
    with pytest.raises(SystemExit, match="missing: no such file: give --weights"):
        prepared.prepare(folder / "survey", tmp_path / "missing")
    with pytest.raises(SystemExit, match="contains no training_solutions_rev1"):
        prepared.prepare(tmp_path, folder / "weights")


def _run_plain(*arguments: object) -> str:
    """Run the plain loop with small batches; return its output. In a separate process, as it sets TensorFlow's global seed."""
    program = "from benchmarks.accuracy import plain_keras as plain; plain.WARMUP_STEPS, plain.BATCH_SIZE = 2, 8; plain.main()"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_plain_loop_learns_and_its_predictions_are_those_of_the_split(prepared: Any, tmp_path: Path) -> None:
    import keras

    generator = np.random.default_rng(0)
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(64, 64, 3))
    for weight in base.weights:
        weight.assign(
            generator.normal(0, (2 / max(1, np.prod(weight.shape[:-1]))) ** 0.5 * (len(weight.shape) > 1), weight.shape)
        )
    weights, run, out = tmp_path / "base.weights.h5", tmp_path / "run", tmp_path / "predictions.csv"
    base.save_weights(weights)
    said = _run_plain("train", "--train", prepared.train, "--weights", weights, "--out", run, "--epochs", 3, "--seed", 0)
    losses = [float(line.split("loss: ")[1]) for line in said.splitlines() if "loss: " in line]
    assert len(losses) == 3 and losses[-1] < losses[0]
    _run_plain("predict", "--run", run, "--tfrecords", prepared.splits, "--split", "validation", "--out", out)
    ids, predicted = _rows(out)
    stored, images, _ = plain_keras._split(prepared.splits, "validation")
    expected = keras.models.load_model(run / "model.keras", compile=False).predict(images.astype(np.float32), verbose=0)
    assert ids.tolist() == sorted(stored.tolist()) and set(ids) == set(votes_of(open_dataset(prepared.splits), "validation")[0])
    np.testing.assert_allclose(predicted, expected[np.argsort(stored)], rtol=1e-4)
    assert out.read_text().splitlines()[0] == ",".join(["GalaxyID", *COLUMNS])
    shutil.rmtree(run)  # pytest keeps the folders of three sessions
    weights.unlink()
    keras.backend.clear_session()


def test_the_trials_of_a_recipe_are_the_recipe() -> None:
    shipped = {"best": RECIPES["best"](), "article, batch 1": RECIPES["article"]()}
    shipped["article, batch 32"] = {**shipped["article, batch 1"], "batch_size": 32}
    for label, expected in shipped.items():
        trials = [trial for trial in CONFIRM if trial.label == label]
        assert trials
        for trial in trials:
            given = dict(flag.removeprefix("--").split("=") for flag in trial.flags())
            assert {name: str(expected[name]) for name in BASE} == {name: given[name] for name in BASE}
            assert given["epochs"] == "10" and set(given) == {*BASE, "epochs", "seed"}


def test_the_base_names_every_choice_of_a_recipe() -> None:
    assert set(BASE) | {"epochs", "patience"} == set(RECIPES["best"]())
    TrainConfig(Path(), Path(), **BASE)


def test_each_screened_change_has_its_own_name_and_is_a_valid_run() -> None:
    names = [trial.name for trial in (*SCREEN, *CONFIRM)]
    assert len(set(names)) == len(names)
    for trial in SCREEN:
        TrainConfig(Path(), Path(), **{**BASE, "epochs": trial.epochs, **trial.changes})
        assert (trial.label == "base") == (not trial.changes)


@pytest.mark.slow
def test_the_interval_is_that_of_the_same_galaxies_and_holds_the_true_difference() -> None:
    generator = np.random.default_rng(0)
    galaxies = generator.gamma(2.0, 0.006, 800)  # far more spread between galaxies than between models
    assert tables.difference(galaxies, galaxies) == (0.0, 0.0, 0.0)
    found, low, high = tables.difference(1.1 * galaxies + generator.normal(0, 1e-4, 800), galaxies)
    assert found == pytest.approx((1.1**0.5 - 1) * galaxies.mean() ** 0.5, rel=0.02)
    assert low < found < high and high - low < 0.001
    hits = 0
    for _ in range(40):
        noise = generator.normal(0, 0.004, 400)
        drawn = generator.choice(galaxies, 400)
        _, low, high = tables.difference(np.abs(drawn + noise), np.abs(drawn - noise))
        hits += low <= 0 <= high
    assert 34 <= hits <= 40  # 95 % of the intervals contain zero if there is no difference


@pytest.mark.parametrize(
    ("found", "scores", "expected"),
    [
        ((-0.004, -0.005, -0.003), (0.110, 0.111, 0.112), "helps"),
        ((0.004, 0.003, 0.005), (0.110, 0.111, 0.112), "harms"),
        ((-0.001, -0.0015, -0.0005), (0.110, 0.111, 0.112), "no difference shown"),
        ((-0.004, -0.009, 0.001), (0.110, 0.111, 0.112), "no difference shown"),
        ((-0.004, -0.005, -0.003), (0.110, 0.111), "base has too few seeds"),
    ],
)
def test_a_change_helps_only_where_it_exceeds_interval_and_spread(
    found: tuple[float, float, float], scores: tuple[float, ...], expected: str
) -> None:
    assert tables.verdict(found, scores) == expected


def test_finished_runs_are_kept_and_test_waits_for_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    votes = {split: (np.arange(60), generator.random((60, 37))) for split in ("train", "validation", "test")}
    work = Work(tmp_path)
    monkeypatch.setattr(work, "_votes", votes)

    def finish(trial: Any, error: float) -> None:
        for split in ("validation", "test"):
            ids, truth = votes[split]
            predicted = truth + generator.normal(0, error, truth.shape)
            rows = [",".join(map(repr, [number, *row])) for number, row in zip(ids.tolist(), predicted.tolist(), strict=True)]
            text = "\n".join([",".join(["GalaxyID", *COLUMNS]), *reversed(rows)])
            for views in (1, 8):
                work.predictions_path(trial, split, views).write_text(text)
        (tmp_path / f"{trial.name}.json").write_text(json.dumps({"seconds": 100.0}))

    for trial in CONFIRM[:-1]:
        finish(trial, 0.10 if trial.label == "best" else 0.12)
        work.run(trial, tmp_path)  # returns at once: the run is finished
    with pytest.raises(SystemExit, match=r"1 missing \(article, batch 1, seed 0\)"):
        work.score_test()
    assert not (tmp_path / "test.json").exists()
    finish(CONFIRM[-1], 0.12)
    work.score_test()
    tables.print_confirmed(work, CONFIRM, "test")
    said = capsys.readouterr().out
    assert "was first scored on" in said and "for these runs" in said
    blind = np.sqrt(np.mean((votes["train"][1].mean(axis=0) - votes["test"][1]) ** 2))
    assert f"The column means of `train`: {blind:.4f}. Trained at commit unknown." in said
    row = next(line for line in said.splitlines() if line.startswith("| base | 2 |"))
    assert " | -0.0" in row and "| -1" in row and "| 100 |" in row
    path = work.predictions_path(CONFIRM[0], "test", 8)
    path.write_text(path.read_text().replace("0.1", "0.2"))
    work.score_test()
    assert "these were chosen after test was scored" in capsys.readouterr().out
