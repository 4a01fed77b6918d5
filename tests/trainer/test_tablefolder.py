"""Predictions as a folder of Parquet files: the rows and columns of the CSV, and never in place of files of others."""

import csv
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pytest
from pyarrow import parquet

from tests.conftest import random_votes
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError
from tfrecords.shares import JobShare
from trainer import tablefolder
from trainer.parts import SUFFIX
from trainer.predictedtable import read_predicted
from trainer.run import Run
from trainer.streaming import no_columns, tabulate_split
from trainer.tablefolder import refuse_other_predictions, write_folder
from trainer.tables import ExtraColumns, Predictions, extra_columns, write_blocks

Main = Callable[..., tuple[int, str, str]]
TREE = builtin_tree()
Block = tuple[Predictions, ExtraColumns]


def _predictions(galaxies: int, named: bool) -> Predictions:
    generator = np.random.default_rng(galaxies)
    predicted = random_votes(galaxies, generator, TREE).astype(np.float32)
    ids = np.sort(generator.choice(10**12, galaxies, replace=False))
    names = np.sort(np.array([f"=J{number:+d}é" for number in ids], object)) if named else None
    return Predictions(ids, predicted, np.full_like(predicted, np.nan), tree=TREE, names=names)


def _in_blocks(whole: Predictions, size: int) -> Iterator[Block]:
    """With every column that the flags of predict can add."""
    for start in range(0, len(whole.galaxy_ids), size):
        rows = slice(start, start + size)
        names = None if whole.names is None else whole.names[rows]
        block = replace(whole, galaxy_ids=whole.galaxy_ids[rows], predicted=whole.predicted[rows], names=names)
        ends = (block.predicted * np.float32(0.9), block.predicted * np.float32(1.1))
        outside = np.array(["", "scale"], object)[np.arange(len(block.predicted)) % 2]
        yield block, extra_columns(block.predicted, 0.6, True, TREE, ends, outside)


def _text(path: Path) -> list[list[str]]:
    """A folder as the rows of a CSV file: fractions with nine decimals."""
    table = pa.dataset.dataset(path).to_table()
    columns = []
    for column in table.columns:
        values = column.to_pylist()
        is_number = pa.types.is_floating(column.type)
        columns.append([("" if value is None else f"{value:.9f}") if is_number else str(value) for value in values])
    return [table.column_names, *map(list, zip(*columns, strict=True))]


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [*csv.reader(file)]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder, as `locked_parts` makes it."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("galaxies", [1, 16, 21, 400])
def test_a_folder_has_the_rows_and_columns_of_the_csv(
    named: bool, galaxies: int, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tablefolder, "FILE", 16)
    monkeypatch.setattr(tablefolder, "GROUP", 4)
    whole, path = _predictions(galaxies, named), tmp_path / "table.parquet"
    write_blocks(TREE, _in_blocks(whole, 5), tmp_path / "table.csv")
    write_folder(TREE, _in_blocks(whole, 5), path, work, {"tta": 2})
    expected = _rows(tmp_path / "table.csv")
    if named:  # the CSV protects spreadsheets
        assert whole.names is not None and expected[1][0].startswith("'=J")
        expected[1:] = [[name, *row[1:]] for name, row in zip(whole.names, expected[1:], strict=True)]
    assert _text(path) == expected
    frame = pd.read_parquet(path)
    assert frame.columns.tolist() == expected[0] and len(frame) == galaxies
    assert frame.GalaxyID.tolist() == (whole.galaxy_ids if whole.names is None else whole.names).tolist()
    np.testing.assert_array_equal(frame[[*TREE.columns]].to_numpy(), whole.predicted)
    assert {str(frame[name].dtype) for name in TREE.columns} == {"float32"}
    files = sorted(path.iterdir())
    assert [file.name for file in files] == [f"part-{number:05d}.parquet" for number in range(-(-galaxies // 16))]
    assert [parquet.read_metadata(file).num_rows for file in files[:-1]] == [16] * (len(files) - 1)
    assert parquet.read_metadata(files[0]).num_row_groups == min(4, -(-galaxies // 4))
    assert b'"tta": 2' in parquet.read_schema(files[0]).metadata[b"galaxy-zoo-vgg16"]
    assert not [*work.iterdir()]


def test_blocks_are_written_before_later_ones_are_read(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tablefolder, "FILE", 16)
    monkeypatch.setattr(tablefolder, "GROUP", 4)
    written = []

    def blocks() -> Iterator[Block]:
        for block in _in_blocks(_predictions(64, False), 2):
            written.append(len([*work.glob("table/part-*")]))
            yield block

    write_folder(TREE, blocks(), tmp_path / "table.parquet", work, {})
    assert written == sorted(written) and written[-1] == 3


def test_a_folder_of_ours_is_replaced_as_a_whole_and_a_kill_in_between_loses_nothing(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rename = tmp_path / "table.parquet", Path.rename
    monkeypatch.setattr(tablefolder, "FILE", 16)
    monkeypatch.setattr(tablefolder, "GROUP", 4)
    write_folder(TREE, _in_blocks(_predictions(50, False), 5), path, work, {})
    assert len([*path.iterdir()]) == 4

    def fail(self: Path, target: Path) -> Path:
        if target == path:
            raise OSError("killed")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="killed"):
        write_folder(TREE, _in_blocks(_predictions(20, False), 5), path, work, {})
    assert not path.exists() and {folder.name for folder in work.iterdir()} == {"table", "replaced"}
    monkeypatch.setattr(Path, "rename", rename)
    write_folder(TREE, _in_blocks(_predictions(20, False), 5), path, work, {})
    assert len(pd.read_parquet(path)) == 20 and not [*work.iterdir()]
    path.rename(tmp_path / "moved")
    path.mkdir()
    write_folder(TREE, _in_blocks(_predictions(20, False), 5), path, work, {})  # an empty folder holds nothing of others
    assert len(pd.read_parquet(path)) == 20


def _with_notes(path: Path) -> None:
    (path / "notes.txt").write_text("mine")


def _with_marker(path: Path) -> None:
    (path / "_SUCCESS").touch()


def _without_metadata(path: Path) -> None:
    file = path / "part-00000.parquet"
    parquet.write_table(parquet.read_table(file).replace_schema_metadata(None), file)


def _with_a_column(path: Path) -> None:
    file = path / "part-00000.parquet"
    table = parquet.read_table(file)
    parquet.write_table(table.append_column("redshift", pa.array([0.1] * len(table))), file)


def _truncated(path: Path) -> None:
    file = path / "part-00000.parquet"
    file.write_bytes(file.read_bytes()[:1000])


def _linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _with_a_linked_file(path: Path) -> None:
    (path / "part-00000.parquet").rename(path.with_name("elsewhere"))
    (path / "part-00000.parquet").symlink_to(path.with_name("elsewhere"))


def _a_file(path: Path) -> None:
    shutil.rmtree(path)
    pd.DataFrame({"GalaxyID": [1]}).to_parquet(path)


CHANGES = {
    _with_notes: r"notes\.txt: is not a table of predictions that this program wrote",
    _with_marker: r"_SUCCESS: is not",
    _without_metadata: r"part-00000\.parquet: is not",
    _with_a_column: r"part-00000\.parquet: is not",
    _truncated: r"part-00000\.parquet: is not",
    _with_a_linked_file: r"part-00000\.parquet: is not",
    _linked: r"table\.parquet: exists and is not a folder of predictions",
    _a_file: r"table\.parquet: exists and is not a folder of predictions",
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_that_others_wrote_is_replaced(change: Callable[[Path], None], tmp_path: Path, work: Path) -> None:
    path = tmp_path / "table.parquet"
    write_folder(TREE, _in_blocks(_predictions(20, False), 5), path, work, {})
    refuse_other_predictions(path, TREE)
    change(path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    refused = pytest.raises(ConfigError, match=rf"{CHANGES[change]}.*: choose another --out, or move it elsewhere")
    with refused:
        refuse_other_predictions(path, TREE)
    with refused:
        write_folder(TREE, _in_blocks(_predictions(20, False), 5), path, work, {})
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and work not in file.parents} == before


def test_the_list_of_images_beside_a_folder_is_not_anothers(tmp_path: Path) -> None:
    (tmp_path / "table-rejected.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"table-rejected\.csv: exists and is not a list of unreadable images"):
        refuse_other_predictions(tmp_path / "table.parquet")


@pytest.mark.slow
@pytest.mark.usefixtures("shrunk")
def test_the_command_writes_a_folder_with_the_rows_of_the_csv_and_the_same_list_of_images(
    tiny_run: Run, mixed_images: Path, tmp_path: Path, run_main: Main
) -> None:
    flags = ["predict", "--run", tiny_run.folder, "--images", mixed_images, "--hubble", "--conditional"]
    assert run_main(*flags, "--out", tmp_path / "csv" / "table.csv")[0] == 0
    out = tmp_path / "out" / "table.parquet"
    for _ in range(2):  # the second replaces the first
        code, said, _ = run_main(*flags, "--out", out)
        assert code == 0
        assert said.startswith(f"{out}: predictions for 18 galaxies of {mixed_images}; 3 that cannot be used are listed in ")
        assert _text(out) == _rows(tmp_path / "csv" / "table.csv")
        assert {path.name for path in out.parent.iterdir()} == {"table.parquet", "table-rejected.csv"}
    names = ["table-rejected.csv"]
    assert [(out.parent / name).read_bytes() for name in names] == [(tmp_path / "csv" / name).read_bytes() for name in names]
    (out / "notes.txt").write_text("mine")
    code, said, err = run_main(*flags, "--out", out)
    assert (code, said) == (1, "") and err.splitlines()[-1] == (
        f"error: {out / 'notes.txt'}: is not a table of predictions that this program wrote: choose another --out, or move it "
        "elsewhere"
    )
    assert len([*out.iterdir()]) == 2


@pytest.mark.parametrize("named", [False, True])
def test_a_folder_is_read_as_its_csv(named: bool, tmp_path: Path, work: Path) -> None:
    whole, path = _predictions(30, named), tmp_path / "table.parquet"
    write_blocks(TREE, _in_blocks(whole, 8), tmp_path / "table.csv")
    write_folder(TREE, _in_blocks(whole, 8), path, work, {})
    folder, file = (read_predicted(one, TREE) for one in (path, tmp_path / "table.csv"))
    assert (folder.galaxies, folder.others) == (file.galaxies, file.others) and "hubble" in folder.others
    np.testing.assert_array_equal(folder.predicted, file.predicted)
    with pytest.raises(ConfigError, match=r"table\.parquet: lacks the column .* of the decision tree decals5: give a table"):
        read_predicted(path, builtin_tree("decals5"))
    _truncated(path)
    with pytest.raises(ConfigError, match=r"table\.parquet: is not a folder of predictions, or is damaged .*: give a table"):
        read_predicted(path, TREE)
    (tmp_path / "empty.parquet").mkdir()
    with pytest.raises(ConfigError, match=r"empty\.parquet: lacks the column Class1"):
        read_predicted(tmp_path / "empty.parquet", TREE)


@pytest.mark.usefixtures("shrunk")
def test_an_interrupted_folder_leaves_its_parts_and_is_joined_from_shares_too(
    tiny_run: Run, plain_dataset: Dataset, tmp_path: Path, counted: list[int]
) -> None:
    def fail(*arguments: Any) -> Any:
        raise OSError("no space left")

    out = tmp_path / "table.parquet"
    tabulate_split(tiny_run, plain_dataset, "train", tmp_path / "table.csv")
    for number in (2, 1):
        tabulate_split(tiny_run, plain_dataset, "train", out, share=JobShare(number, 2))
    every = len(counted)
    with pytest.raises(OSError, match="no space left"):
        tabulate_split(tiny_run, plain_dataset, "train", out, fail)
    assert not out.exists() and out.with_name(f"{out.name}{SUFFIX}").exists()
    tabulate_split(tiny_run, plain_dataset, "train", out, no_columns)
    assert len(counted) == every
    assert _text(out) == _rows(tmp_path / "table.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"table.csv", "table.parquet"}
