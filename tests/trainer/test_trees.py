"""Every command follows the decision tree of its dataset: real rows of GZ DECaLS and GZ2, and a question of one's own."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.demo import make_demo
from preprocess.job import BuildSettings, build_dataset
from preprocess.plan import PlanSettings
from tests.trainer import small
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset, open_dataset
from tfrecords.errors import ConfigError, RunError
from tfrecords.images import CropSettings
from tfrecords.reader import votes_of
from trainer import TrainConfig, evaluate_run, explore_dataset, open_run, predict_split, train_model
from trainer.analysis.intervals import coverage
from trainer.run import Run

SURVEYS = Path(__file__).parents[3] / "shared" / "surveys"
# Seeds with which the few real galaxies of each survey fall into all three splits.
SEEDS = {"decals": 2, "gz2": 0}


def _build(source: Path, out: Path, tree: str | None = None, seed: int = 0) -> Dataset:
    plan = PlanSettings(validation_fraction=0.3, test_fraction=0.3, seed=seed)
    settings = BuildSettings(CropSettings(size=32, encoding="png"), plan)
    return build_dataset(source, out, settings, workers=1, tree=tree).dataset


def _config(dataset: Dataset, out: Path, **changes: Any) -> TrainConfig:
    settings = {
        "backbone": small.SMALL,
        "weights": "none",
        "epochs": 3,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "warmup_steps": 1,
    }
    return TrainConfig(dataset.folder, out, **{**settings, **changes})


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", params=["decals", "gz2"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset of the real galaxies of a survey at hand. Read-only."""
    source = SURVEYS / request.param
    if not source.is_dir():
        pytest.skip(f"{source} is missing: real galaxies are not part of the repository")
    return _build(source, tmp_path_factory.mktemp(request.param) / "data", seed=SEEDS[request.param])


@pytest.fixture(scope="module")
def decals(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A synthetic survey of 60 galaxies with the questions of GZ DECaLS. Read-only."""
    folder = tmp_path_factory.mktemp("decals")
    make_demo(folder / "demo", galaxies=60, tree="decals5")
    return _build(folder / "demo", folder / "data")


@pytest.fixture(scope="module")
def own(plain_survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The plain survey with a single question of one's own, from a table of two columns. Read-only."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "smooth.toml").write_text(
        'id = "GalaxyID"\n[[question]]\nkey = "smooth"\nanswers = { yes = "Class1.1" }\nrest = "no"\n'
    )
    rows = _table(plain_survey / "training_solutions_rev1.csv")
    lines = ["GalaxyID,Class1.1", *(f"{row['GalaxyID']},{row['Class1.1']}" for row in rows)]
    (folder / "votes.csv").write_text("\n".join(lines) + "\n")
    settings = BuildSettings(CropSettings(crop_fraction=1.0, size=32, encoding="png"))
    tree = folder / "smooth.toml"
    return build_dataset(plain_survey, folder / "data", settings, folder / "votes.csv", tree=tree).dataset


@pytest.fixture(scope="module")
def sure(decals: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with head dirichlet on the synthetic survey. Read-only."""
    config = _config(
        decals, tmp_path_factory.mktemp("sure") / "run", head="dirichlet", loss="dirichlet_multinomial", batch_size=8
    )
    return train_model(config)


@pytest.mark.slow
def test_real_rows_of_a_survey_are_trained_on_predicted_explored_and_evaluated(
    real: Dataset, tmp_path: Path, run_main: Any
) -> None:
    tree = real.tree
    assert real.asked and all(real.galaxies(split) for split in ("train", "validation", "test"))
    status, _, error = run_main(
        *("--tfrecords", real.folder, "--out", tmp_path / "run", "--weights=none", f"--backbone={small.SMALL}"),
        *("--epochs=3", "--batch_size=1", "--limit=1", "--warmup_steps=1"),
    )
    assert status == 0, error
    run = open_run(tmp_path / "run")
    assert run.tree == tree and (run.folder / "tree.toml").read_text() == tree.text
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert {*metrics["per_class"]} == {*tree.columns} and {*metrics["per_question"]} == {q.key for q in tree.questions}
    assert 0 < metrics["rmse"] < 1
    [first, *_] = _table(run.folder / "predictions-test.csv")
    identity = "asset_id" if tree.name == "gz2" else tree.id
    assert [*first] == [identity, *tree.columns]

    out_file = tmp_path / "predicted.csv"
    assert (
        run_main(
            "predict", "--run", run.folder, "--tfrecords", real.folder, "--split=train", "--out", out_file, "--conditional"
        )[0]
        == 0
    )
    rows = _table(out_file)
    assert len(rows) == real.galaxies("train")
    table = SURVEYS / ("gz2/gz2_filename_mapping.csv" if tree.name == "gz2" else "decals/gz_decals_volunteers_5.csv")
    assert {row[identity] for row in rows} <= {row[identity] for row in _table(table)}
    predicted = np.array([[float(row[column]) for column in tree.columns] for row in rows])
    assert tree.deviation(predicted).max() < 1e-6

    column = tree.columns[0]
    status, _, error = run_main("explore", "--tfrecords", real.folder, "--out", tmp_path / "page", "--where", f"{column} >= 0")
    assert status == 0, error
    page = (tmp_path / "page" / "index.html").read_text()
    assert tree.title in page and column in page and (len(tree.columns) == 37 or "of 37" not in page)
    assert run_main("evaluate", "--run", run.folder, "--tfrecords", real.folder, "--split=validation")[0] == 0
    report = (run.folder / "report" / "index.html").read_text()
    assert "Kaggle" not in report and all(question.title in report for question in tree.questions)


def test_a_dataset_with_counts_gives_the_counts_beside_the_targets(decals: Dataset) -> None:
    ids, targets, asked, _ = votes_of(decals, "train")
    assert asked is not None and asked.shape == (len(ids), 10) and targets.shape == (len(ids), 34)
    assert (asked[:, 0] >= 3).all() and decals.tree.deviation(targets, asked).max() < 1e-6
    unanswered = asked == 0
    assert unanswered.any() and all((targets[unanswered[:, q.index]][:, q.columns] == 0).all() for q in decals.tree.questions)


@pytest.mark.slow
def test_a_model_with_the_dirichlet_head_gives_intervals_and_their_calibration(
    decals: Dataset, sure: Run, tmp_path: Path, run_main: Any
) -> None:
    out = tmp_path / "sure.csv"
    status, _, error = run_main(
        *("predict", "--run", sure.folder, "--tfrecords", decals.folder, "--out", out, "--split=unlabelled", "--intervals"),
    )
    assert status == 0, error
    for row in _table(out):
        for column in decals.tree.columns:
            assert 0 <= float(row[f"{column}_low"]) <= float(row[f"{column}_high"]) <= 1
    predictions = predict_split(sure, decals, "test")
    assert predictions.concentrations is not None and predictions.concentrations.min() >= 1
    expected = coverage(decals.tree, predictions.predicted, predictions.concentrations, predictions.targets, predictions.asked)
    shown = _table(sure.folder / "report" / "data" / "test-intervals.csv")
    assert [row["question"] for row in shown] == [question.key for question in decals.tree.questions]
    assert [int(row["galaxies"]) for row in shown] == expected.galaxies.tolist() and expected.galaxies.any()
    # The report is made again from the table alone, with the same numbers.
    before = json.loads((sure.folder / "metrics.json").read_text())
    record, again = evaluate_run(sure, decals, "test")
    assert again["rmse"] == before["rmse"] and record.folder


@pytest.mark.slow
def test_a_model_of_another_head_is_refused_intervals(decals: Dataset, tmp_path: Path, run_main: Any) -> None:
    train_model(_config(decals, tmp_path / "run", epochs=1))
    flags = ("predict", "--run", tmp_path / "run", "--tfrecords", decals.folder, "--out", tmp_path / "a.csv", "--split=test")
    for flag, what in (("--intervals", "--head dirichlet"), ("--hubble", "no classes")):
        status, _, error = run_main(*flags, flag)
        assert status == 2 and what in error and error.count("\n") == 1
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.slow
def test_a_model_meets_only_datasets_of_its_tree(sure: Run, plain_dataset: Dataset, tiny_run: Run, decals: Dataset) -> None:
    for run, dataset in ((sure, plain_dataset), (tiny_run, decals)):
        for use in (predict_split, evaluate_run):
            with pytest.raises(ConfigError) as caught:
                use(run, dataset, "test")
            assert "decision tree" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="decision tree"):
        predict_split([sure, tiny_run], decals, "test")


@pytest.mark.slow
def test_the_tree_of_a_run_cannot_be_changed_or_lost(decals: Dataset, tmp_path: Path) -> None:
    folder = train_model(_config(decals, tmp_path / "run", epochs=1)).folder
    path = folder / "tree.toml"
    text = path.read_text()
    path.write_text(text.replace('"bar_strong"', '"bar_weak_"'))
    with pytest.raises(RunError, match=r"tree\.toml: not the decision tree of this run"):
        open_run(folder)
    path.unlink()
    assert open_run(folder).tree == builtin_tree("decals5")  # config.json shows that it was ours


@pytest.mark.slow
def test_the_lost_tree_of_a_run_on_a_survey_of_ones_own_is_named(own: Dataset, tmp_path: Path) -> None:
    folder = train_model(_config(own, tmp_path / "run", epochs=1)).folder
    (folder / "tree.toml").unlink()
    with pytest.raises(RunError, match=r"tree\.toml: not the decision tree of this run"):
        open_run(folder)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["sigmoid", "tree", "dirichlet"])
def test_a_single_question_of_ones_own_goes_from_images_and_two_columns_to_a_page(
    head: str, own: Dataset, tmp_path: Path
) -> None:
    assert own.tree.columns == ("Class1.1", "smooth_no") and not own.asked
    losses = {"sigmoid": "mse", "tree": "cross_entropy", "dirichlet": "dirichlet_multinomial"}
    run = train_model(_config(own, tmp_path / "run", head=head, loss=losses[head], batch_size=8, epochs=6))
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["rmse"] < metrics["baselines"]["train_mean"]
    page = explore_dataset(own, tmp_path / "page", where="Class1.1 > 0.5 and smooth_no < 0.5")
    assert "smooth" in page.read_text()
    assert open_dataset(own.folder).tree == run.tree


@pytest.mark.slow
def test_a_model_of_a_synthetic_decals_survey_beats_the_column_means_by_a_tenth(tmp_path: Path) -> None:
    make_demo(tmp_path / "demo", galaxies=240, workers=2, tree="decals5")
    dataset = _build(tmp_path / "demo", tmp_path / "data")
    flags = {"epochs": 30, "batch_size": 16, "patience": 30, "warmup_steps": 10}
    run = train_model(_config(dataset, tmp_path / "run", **flags))
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["rmse"] < 0.9 * metrics["baselines"]["train_mean"]
