"""More galaxies than are kept in memory: the same scores and tables, other intervals, and a page that names its sample."""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.analysis.pages import Read
from tests.trainer.evaluated import evaluate
from tests.trainer.streamed import batches
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError
from trainer import evaluate as command
from trainer.analysis.totals import GROUPS
from trainer.compare import compare_runs
from trainer.evaluate import evaluate_run, stored_predictions, summary
from trainer.parts import SUFFIX
from trainer.run import Record, Run

SAMPLE = 20
# Tables of counts, and those whose intervals resample confusion matrices: the same bytes as in memory.
COUNTS = ("classes", "confusion", "confusion-confident", "questions", "questions-confident", "answers", "answers-confident")
DRAWN = ("calibration", "violation")


def _copy(run: Run, folder: Path) -> Run:
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("checkpoint", "tensorboard", "evaluations"))
    return replace(run, folder=folder)


Measured = tuple[Run, Record, dict[str, Any]]


@pytest.fixture(scope="module")
def exact(tiny_run: Run, plain_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """The evaluation of a run on `train` in memory. Read-only."""
    run = _copy(tiny_run, tmp_path_factory.mktemp("exact") / "run")
    return run, *evaluate_run(run, plain_dataset, "train")


@pytest.fixture(scope="module")
def added_up(tiny_run: Run, plain_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    """The same with room for SAMPLE galaxies in memory. Read-only."""
    run = _copy(tiny_run, tmp_path_factory.mktemp("added") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "IN_MEMORY", SAMPLE)
        yield run, *evaluate_run(run, plain_dataset, "train")


def _data(measured: Measured, name: str) -> bytes:
    run, record, _ = measured
    return (run.path(record.report).parent / "data" / f"{record.split}-{name}.csv").read_bytes()


@pytest.mark.slow
def test_scores_are_those_in_memory_and_intervals_nearly(exact: Measured, added_up: Measured) -> None:
    """To 12 digits; intervals to half a standard error."""
    (run, record, expected), (other, _, content) = exact, added_up
    assert content["bootstrap"] == {"resamples": 1000, "random_groups": GROUPS} and content["sample"] == SAMPLE
    assert expected.keys() == content.keys() - {"bootstrap", "sample"}
    for name in ("split", "galaxies", "best_validation", "dataset", "model", "predictions"):
        assert content[name] == expected[name], name
    assert run.path(record.predictions).read_bytes() == other.path(record.predictions).read_bytes()
    for name in ("mse", "rmse", "spread", "baselines"):
        assert content[name] == pytest.approx(expected[name], rel=1e-12), name
    pairs = [(content, expected)]
    for name in ("per_class", "per_question"):
        assert [*content[name]] == [*expected[name]]
        pairs += zip(content[name].values(), expected[name].values(), strict=True)
    for one, another in pairs:
        for name in {"mse", "rmse", "skill"} & another.keys():
            assert one[name] == pytest.approx(another[name], rel=1e-12)
        low, high = another["interval"]
        assert one["interval"] == pytest.approx([low, high], abs=(high - low) / 3.92 / 2)
    assert content["interval"] != expected["interval"]


@pytest.mark.slow
def test_tables_that_count_galaxies_are_those_in_memory(exact: Measured, added_up: Measured) -> None:
    for name in COUNTS:
        assert _data(added_up, name) == _data(exact, name), name
    for name in ("errors", "agreement", "maximum-agreement", "error-against-mean"):
        numbers = [re.findall(rb"[\d.e-]+", _data(one, name)) for one in (added_up, exact)]
        np.testing.assert_allclose(*(np.array([*map(_number, part)]) for part in numbers), rtol=1e-9)
    assert all(_data(added_up, name) != _data(exact, name) for name in DRAWN)


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:  # of a name
        return 0.0


@pytest.mark.slow
def test_the_page_tells_how_intervals_came_about_and_what_is_a_sample(exact: Measured, added_up: Measured) -> None:
    run, record, content = added_up
    galaxies = content["galaxies"]
    html = run.path(record.report).read_text("utf-8")
    text = Read(html).text
    sample = f"a random sample of {SAMPLE} of the {galaxies} galaxies"
    assert f"On {galaxies} galaxies of split train, SmallNet reaches" in text
    assert f"Scores and counts are those of all {galaxies} galaxies. Intervals of errors are from 1,000 resamples of " in text
    assert f"{GROUPS:,} random groups of the galaxies, in place of single galaxies." in text
    assert f"with its 95 % interval from 1,000 resamples of {GROUPS:,} random groups of the galaxies" in text
    assert text.count(f"Drawn from {sample}.") >= len(DRAWN)
    assert text.count(f"The galaxies and their numbers here are those of {sample}.") == 2
    for chart in (f"Calibration per question in {sample}: ", f"Violation of the tree in {sample}: "):
        assert any(image["alt"].startswith(chart) for image in Read(html).images)
    card = (run.folder / "README.md").read_text("utf-8")
    assert "evaluations/train/report/index.html" in card
    whole = Read(exact[0].path(record.report).read_text("utf-8"))
    assert "sample of" not in whole.text and "random groups" not in whole.text
    assert f"RMSE on train ({galaxies} galaxies)" in summary(run, record)
    folder = run.path(record.metrics).parent
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "predictions-train.csv", "report"}


@pytest.mark.slow
def test_the_runs_own_record_is_made_again_without_the_model_and_the_card_states_its_groups(
    tiny_run: Run, plain_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _copy(tiny_run, tmp_path / "run")
    monkeypatch.setattr(command, "IN_MEMORY", 5)
    monkeypatch.setattr(Run, "load_model", lambda self: pytest.fail("the model was loaded"))
    command.record_run(run, plain_dataset)
    card = (run.folder / "README.md").read_text("utf-8")
    assert f"from 1,000 bootstrap resamples of {GROUPS:,} random groups of the galaxies" in card


@pytest.mark.slow
def test_runs_are_compared_by_their_streamed_predictions(
    added_up: Measured, exact: Measured, plain_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, record, _ = added_up
    several = stored_predictions(run, plain_dataset, "train")
    assert several is not None and len(several.galaxy_ids) == plain_dataset.galaxies("train")
    monkeypatch.setattr(Run, "load_model", lambda self: pytest.fail("the model was loaded"))
    page = compare_runs([exact[0], run], plain_dataset, tmp_path / "compared", "train")
    assert f"{record.split}" in Read(page.read_text("utf-8")).text


def _evaluation(run: Run) -> dict[str, bytes]:
    """The files of an evaluation that must not depend on how often it was interrupted, by name."""
    folder = run.folder / "evaluations" / "train"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in files.items() if not name.endswith((".svg", ".html"))}


@pytest.mark.slow
def test_a_killed_evaluation_resumes_to_the_same_bytes(tiny_run: Run, plain_dataset: Dataset, tmp_path: Path) -> None:
    run, counts = _copy(tiny_run, tmp_path / "run"), tmp_path / "counts"
    flags = [f"--run={run.folder}", f"--tfrecords={plain_dataset.folder}", "--split=train"]
    code, err = evaluate(flags, counts)
    assert code == 0, err
    expected, every = _evaluation(run), batches(counts)
    shutil.rmtree(run.folder)
    _copy(tiny_run, run.folder)
    assert evaluate(flags, counts, killed_after=5)[0] == -signal.SIGKILL and batches(counts) == 5
    assert [path.name for path in (run.folder / "evaluations" / "train").iterdir()] == [f"predictions-train.csv{SUFFIX}"]
    code, err = evaluate(flags, counts)
    assert code == 0 and "resumes with 16 of" in err
    assert batches(counts) == every - 4
    assert _evaluation(run) == expected and "metrics.json" in expected


@pytest.mark.slow
def test_unfinished_predictions_of_another_model_are_dropped_and_other_files_are_not(
    tiny_run: Run, plain_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.trainer import streamed
    from trainer.sealing import seal, unseal

    run, counts = _copy(tiny_run, tmp_path / "run"), tmp_path / "counts"
    flags = [f"--run={run.folder}", f"--tfrecords={plain_dataset.folder}", "--split=train"]
    assert evaluate(flags, counts, killed_after=5)[0] == -signal.SIGKILL
    parts = run.folder / "evaluations" / "train" / f"predictions-train.csv{SUFFIX}"
    job = unseal((parts / "job.json").read_text("utf-8"))
    (parts / "job.json").write_text(seal({**{k: v for k, v in job.items() if k != "sha256"}, "run": ["0" * 64]}))
    streamed.shrink(monkeypatch.setattr)
    monkeypatch.setattr(command, "IN_MEMORY", 5)
    record, content = evaluate_run(run, plain_dataset, "train")
    assert content["galaxies"] == plain_dataset.galaxies("train") and not parts.exists()
    os.unlink(run.path(record.metrics))
    parts.mkdir()
    (parts / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="was not created by this program"):
        evaluate_run(run, plain_dataset, "train")
    assert (parts / "notes.txt").read_text() == "mine"


def test_metrics_in_memory_state_neither_groups_nor_a_sample(tiny_run: Run) -> None:
    assert not {"bootstrap", "sample"} & json.loads((tiny_run.folder / "metrics.json").read_text("utf-8")).keys()
