"""The records of a run: written by training alone, measured again below evaluations/, and noticed if changed."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.analysis.pages import Read
from tfrecords import framing, schema
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, DatasetError, RunError
from trainer.config import TrainConfig
from trainer.evaluate import evaluate_run, record_run
from trainer.run import Run

Main = Callable[..., tuple[int, str, str]]


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
