"""A table of predictions of any size: written in parts, resumed after a kill, joined to the bytes of an undisturbed command."""

import csv
import itertools
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trainer.streamed import batches, ended, start
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, RunError
from trainer import rowfile, streaming
from trainer.blocks import PredictedRows
from trainer.parts import SUFFIX, locked_parts
from trainer.predict import predict_images, predict_split
from trainer.rowfile import merged_files, merged_rows, metadata_of, read_rows, sliced, write_rows
from trainer.run import Run
from trainer.streaming import tabulate_images, tabulate_split
from trainer.tables import table_order, write_csv

Main = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["records", "images"])
def test_a_killed_command_resumes_to_the_same_bytes_and_predicts_no_part_twice(
    source: str, tiny_run: Run, plain_dataset: Dataset, mixed_images: Path, tmp_path: Path
) -> None:
    given = [f"--tfrecords={plain_dataset.folder}", "--split=train"] if source == "records" else [f"--images={mixed_images}"]
    flags = [f"--run={tiny_run.folder}", *given, "--hubble", f"--out={tmp_path / 'out' / 'table.csv'}"]
    out, counts = tmp_path / "out", tmp_path / "counts"
    assert ended(start(flags, counts))[0] == 0
    expected = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {*expected} == {"table.csv"} | ({"table-rejected.csv"} if source == "images" else set())
    every = batches(counts)
    shutil.rmtree(out)
    assert ended(start(flags, counts, killed_after=5))[0] == -signal.SIGKILL and batches(counts) == 5
    assert [path.name for path in out.iterdir()] == [f"table.csv{SUFFIX}"]
    assert len([*out.glob("*/part-*.parquet")]) == 2  # of two batches each; the fifth was in vain
    code, _, err = ended(start(flags, counts))
    assert code == 0 and "resumes with 16 of" in err
    assert batches(counts) == every - 4
    assert {path.name: path.read_bytes() for path in out.iterdir()} == expected


def _interrupted(run: Run, dataset: Dataset, out: Path, tta: int = 1) -> Path:
    """Predict all parts of split train, but fail to write the table; return the folder of the parts."""

    def fail(*arguments: Any) -> Any:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        tabulate_split(run, dataset, "train", out, fail, tta=tta)
    assert [path.name for path in out.parent.iterdir()] == [f"{out.name}{SUFFIX}"]
    return out.with_name(f"{out.name}{SUFFIX}")


@pytest.mark.usefixtures("shrunk")
def test_a_table_in_parts_is_that_of_predictions_in_memory(
    tiny_run: Run, plain_dataset: Dataset, mixed_images: Path, tmp_path: Path
) -> None:
    for limit in (0, 13):
        write_csv(predict_split(tiny_run, plain_dataset, "train", limit), tmp_path / "expected.csv")
        table = tabulate_split(tiny_run, plain_dataset, "train", tmp_path / "table.csv", limit=limit)
        assert (tmp_path / "table.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()
        assert table.galaxies == plain_dataset.galaxies("train", limit)
    in_memory = predict_images(tiny_run, mixed_images)
    write_csv(in_memory, tmp_path / "expected.csv")
    table = tabulate_images(tiny_run, mixed_images, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()
    assert (table.galaxies, table.noticed.rejected) == (18, 3)
    assert sorted(table.noticed.outside) == sorted(in_memory.outside)
    with (tmp_path / "table-rejected.csv").open(newline="") as file:
        assert [row[1] for row in csv.reader(file)][1:] == [image.path for image in in_memory.rejected]
    assert not [*tmp_path.glob(f"*{SUFFIX}*")]


@pytest.mark.usefixtures("shrunk")
def test_finished_parts_serve_other_columns_and_only_damaged_missing_or_foreign_ones_are_predicted_again(
    tiny_run: Run, plain_dataset: Dataset, tmp_path: Path, counted: list[int]
) -> None:
    out = tmp_path / "out" / "table.csv"
    tabulate_split(tiny_run, plain_dataset, "train", out)
    expected, every = out.read_bytes(), len(counted)
    out.unlink()
    work = _interrupted(tiny_run, plain_dataset, out)
    parts = sorted(work.glob("part-*.parquet"))
    content = bytearray(parts[1].read_bytes())
    content[len(content) // 3] ^= 255
    parts[1].write_bytes(content)
    parts[2].write_bytes(parts[2].read_bytes()[:100])
    parts[3].unlink()
    rows = [*read_rows(parts[4])]
    write_rows(parts[4], rows, 37, {**metadata_of(parts[4]), "job": "another"})
    (work / ".part-00000.parquet.0123456789abcdef.partial").write_text("half")
    counted.clear()
    tabulate_split(tiny_run, plain_dataset, "train", out)
    assert out.read_bytes() == expected
    assert len(counted) == 4 * 2 < every
    assert [path.name for path in out.parent.iterdir()] == ["table.csv"]
    out.unlink()
    _interrupted(tiny_run, plain_dataset, out)
    counted.clear()
    tabulate_split(tiny_run, plain_dataset, "train", out)
    assert not counted and out.read_bytes() == expected


@pytest.mark.usefixtures("shrunk")
def test_the_parts_of_another_job_are_refused_in_one_line(
    tiny_run: Run, plain_dataset: Dataset, tmp_path: Path, run_main: Main
) -> None:
    out = tmp_path / "out" / "table.csv"
    work = _interrupted(tiny_run, plain_dataset, out)
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    flags = ["predict", "--run", tiny_run.folder, "--tfrecords", plain_dataset.folder, "--out", out]
    code, said, err = run_main(*flags, "--split=test", "--tta=2")
    assert (code, said) == (1, "") and err.splitlines()[-1] == (
        f"error: {work}: holds unfinished predictions of another command (other galaxies, split, tta): repeat the command that "
        "began it, or remove this folder, or choose another --out"
    )
    assert {path.name: path.read_bytes() for path in work.iterdir()} == before and not out.exists()
    (work / "job.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"job\.json: damaged .*: remove the folder"):
        tabulate_split(tiny_run, plain_dataset, "train", out)
    (work / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt: was not written by this program"):
        tabulate_split(tiny_run, plain_dataset, "train", out)


def test_two_commands_never_write_the_same_parts(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    busy = pytest.raises(ConfigError, match=r"another command writes table\.csv: wait until it ends")
    with locked_parts(table), busy, locked_parts(table):
        raise AssertionError
    assert not [*tmp_path.iterdir()]


@pytest.mark.usefixtures("shrunk")
def test_images_of_which_none_can_be_used_leave_nothing(tiny_run: Run, tmp_path: Path, run_main: Main) -> None:
    (tmp_path / "images").mkdir()
    for number in range(9):
        (tmp_path / "images" / f"{number}.jpg").write_text("nothing to see")
    code, _, err = run_main("predict", "--run", tiny_run.folder, "--images", tmp_path / "images", "--out", tmp_path / "t.csv")
    assert code == 1 and "none of its 9 images can be used; the first is 0.jpg" in err
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.usefixtures("shrunk")
def test_an_old_table_stays_until_the_new_one_is_complete(tiny_run: Run, plain_dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "table.csv"
    out.write_text("old")

    def fail(*arguments: Any) -> Any:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        tabulate_split(tiny_run, plain_dataset, "train", out, fail)
    assert out.read_text() == "old" and {path.name for path in tmp_path.iterdir()} == {"table.csv", f"table.csv{SUFFIX}"}
    tabulate_split(tiny_run, plain_dataset, "train", out)
    assert out.read_bytes().startswith(b"GalaxyID") and [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.usefixtures("shrunk")
def test_changed_images_are_another_job(tiny_run: Run, mixed_images: Path, tmp_path: Path) -> None:
    def fail(*arguments: Any) -> Any:
        raise OSError("no space left")

    out = tmp_path / "table.csv"
    with pytest.raises(OSError, match="no space left"):
        tabulate_images(tiny_run, mixed_images, out, fail)
    Image.new("RGB", (40, 40)).save(mixed_images / "7.jpg")
    with pytest.raises(ConfigError, match=r"holds unfinished predictions of another command \(other images\)"):
        tabulate_images(tiny_run, mixed_images, out)


# Merging


def _some(count: int, seed: int, named: bool) -> PredictedRows:
    generator = np.random.default_rng(seed)
    ids = generator.choice(10**9, count, replace=False)
    names = np.array([f"J{number * 7919 % 10**9:09d}é" for number in ids], object) if named else None
    return PredictedRows(ids, generator.random((count, 3), np.float32), names, np.array(["", "scale"], object)[ids % 2])


def _in_blocks(rows: PredictedRows, size: int, held: list[int]) -> Iterator[PredictedRows]:
    for first in range(0, len(rows.galaxy_ids), size):
        held[0] += 1
        yield rows.take(slice(first, first + size))
        held[0] -= 1


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("sources", [1, 2, 7])
def test_sorted_sources_are_merged_a_block_of_each_at_a_time(named: bool, sources: int) -> None:
    whole = _some(5000, 1, named)
    held, most = [0], 0
    cuts = np.sort(np.random.default_rng(2).choice(5000, sources - 1, replace=False))
    parts = [whole.take(slice(*pair)).in_table_order() for pair in itertools.pairwise([0, *cuts, 5000])]
    merged = []
    for block in merged_rows([_in_blocks(part, 50, held) for part in parts]):
        most = max(most, held[0])
        assert 0 < len(block.galaxy_ids) <= rowfile.GROUP
        merged.append(block)
    expected = whole.take(table_order(whole.galaxy_ids, whole.names))
    for column, values in zip(zip(*merged, strict=True), expected, strict=True):
        assert (values is None and {*column} == {None}) or np.concatenate(column).tolist() == values.tolist()
    assert most <= sources
    assert [*merged_rows([iter([whole.take(slice(0, 0))])])] == []


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("files", [1, 2, 3, 9])
def test_more_files_than_are_opened_at_a_time_are_merged_in_levels(
    named: bool, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rowfile, "FAN", 2)
    monkeypatch.setattr(rowfile, "GROUP", 16)
    whole = _some(40 * files, 3, named)
    paths = [tmp_path / f"{number}.parquet" for number in range(files)]
    for number, path in enumerate(paths):
        write_rows(path, sliced(whole.take(slice(40 * number, 40 * number + 40)).in_table_order()), 3, {})
    merged = [*merged_files(paths, tmp_path, 3)]
    expected = whole.in_table_order()
    assert np.concatenate([block.outputs for block in merged]).tobytes() == expected.outputs.tobytes()
    assert np.concatenate([block.keys for block in merged]).tolist() == expected.keys.tolist()
    assert max(len(block.galaxy_ids) for block in merged) <= 16
    assert len([*tmp_path.glob("merged-*")]) <= 2 + (files > 4)


def test_a_damaged_file_of_rows_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    write_rows(path, [_some(100, 1, False)], 3, {})
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"part\.parquet: damaged \(.*\): run the same command again") as caught:
        [*read_rows(path)]
    assert "\n" not in str(caught.value)
    assert metadata_of(tmp_path / "gone.parquet") == {}


def test_a_part_holds_whole_batches(tiny_run: Run) -> None:
    assert streaming.PART % 64 == 0
