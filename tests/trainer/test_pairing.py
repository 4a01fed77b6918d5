"""A table read beside the votes of its galaxies, a block at a time, gives what the whole table gives in memory."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer import streamed
from tfrecords.dataset import Dataset
from tfrecords.errors import RunError
from trainer import pairing
from trainer.pairing import paired_blocks
from trainer.tables import ExtraColumns, Predictions, concentration_columns, read_csv, table_order, write_csv

pytestmark = pytest.mark.usefixtures("loaded_backend")


@pytest.fixture(scope="module")
def counted_dataset(build_settings: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """60 synthetic galaxies with names, and numbers of answers as in DECaLS, in small shards. Read-only."""
    from preprocess.demo import make_demo
    from preprocess.job import build_dataset

    folder = tmp_path_factory.mktemp("counted")
    make_demo(folder / "source", 60, tree="decals5")
    dataset = build_dataset(folder / "source", folder / "data", build_settings(examples_per_shard=8), workers=1).dataset
    assert dataset.asked and dataset.named
    return dataset


@pytest.fixture(params=["numbers", "names and counts"])
def dataset(request: pytest.FixtureRequest, plain_dataset: Dataset) -> Dataset:
    named: Dataset = plain_dataset if request.param == "numbers" else request.getfixturevalue("counted_dataset")
    return named


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and sorted files of a few galaxies, of which two are merged at a time."""
    streamed.shrink(monkeypatch.setattr)
    monkeypatch.setattr(pairing, "_SORTED", 10)
    monkeypatch.setattr(pairing, "_BLOCK", 7)


def _write(path: Path, dataset: Dataset, limit: int = 0, with_concentrations: bool = False) -> None:
    """A table of random predictions for the galaxies of split train."""
    from tfrecords.reader import votes_of

    galaxies, draws = votes_of(dataset, "train", limit), np.random.default_rng(0)
    order = table_order(galaxies.galaxy_ids, galaxies.names)
    predicted = draws.random((len(order), len(dataset.tree.columns)), np.float32)
    sure = ExtraColumns()
    if with_concentrations:
        sure = concentration_columns(draws.uniform(1, 99, (len(order), len(dataset.tree.questions))), dataset.tree)
    names = None if galaxies.names is None else galaxies.names[order]
    galaxy_ids = galaxies.galaxy_ids[order]
    write_csv(Predictions(galaxy_ids, predicted, predicted, tree=dataset.tree, names=names), path, sure)


@pytest.mark.parametrize("limit", [0, 11])
@pytest.mark.parametrize("with_concentrations", [False, True])
def test_blocks_together_are_the_whole_table(dataset: Dataset, limit: int, with_concentrations: bool, tmp_path: Path) -> None:
    from tfrecords.reader import votes_of

    path = tmp_path / "table.csv"
    _write(path, dataset, limit, with_concentrations)
    expected = read_csv(path, dataset.tree, votes_of(dataset, "train", limit))
    blocks = [*paired_blocks(path, dataset, "train", limit)]
    assert len(blocks) > 1 and sum(len(block.galaxy_ids) for block in blocks) == dataset.galaxies("train", limit)
    for name in (field.name for field in fields(Predictions) if field.name != "tree"):
        parts = [getattr(block, name) for block in blocks]
        if getattr(expected, name) is None:
            assert parts == [None] * len(blocks), name
        else:
            np.testing.assert_array_equal(np.concatenate(parts), getattr(expected, name), name)
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def _without(lines: list[bytes], place: int) -> list[bytes]:
    return [*lines[:place], *lines[place + 1 :]]


OTHERS = "does not list the galaxies of this split"
CHANGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "a galaxy too few": (lambda lines: lines[:-1], OTHERS),
    "a galaxy missing": (lambda lines: _without(lines, 9), OTHERS),
    "a galaxy twice": (lambda lines: [*lines, lines[-1]], OTHERS),
    "another order": (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], OTHERS),
    "a column missing": (
        lambda lines: [line.rpartition(b",")[0] + b"\n" for line in lines],
        OTHERS,
    ),
    "a value cut off": (lambda lines: [*lines[:-1], lines[-1].rpartition(b",")[0] + b"\n"], "damaged"),
    "a value that is none": (lambda lines: [*lines[:3], lines[3].replace(b"0.", b"x.", 1), *lines[4:]], "damaged"),
    "nothing": (lambda lines: [], OTHERS),
    "no rows": (lambda lines: lines[:1], "damaged"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_table_is_one_error_with_the_way_out_and_leaves_nothing(
    plain_dataset: Dataset, change: str, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    _write(path, plain_dataset)
    alter, reason = CHANGES[change]
    path.write_bytes(b"".join(alter(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(RunError, match=f"table.csv: {reason}.*: remove it, and run the same command again"):
        [*paired_blocks(path, plain_dataset, "train")]
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_files_of_a_killed_process_are_written_again(plain_dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    _write(path, plain_dataset)
    blocks = paired_blocks(path, plain_dataset, "train")
    first = next(blocks)
    work = tmp_path / "table.csv.votes"
    left = {file.name: file.read_bytes() for file in work.iterdir()}
    assert any(name.startswith("votes-") for name in left)
    blocks.close()
    assert not work.exists()
    work.mkdir()
    for name, content in left.items():
        (work / name).write_bytes(content[:-1] if name != "lock" else content)
    again = next(paired_blocks(path, plain_dataset, "train"))
    assert again.galaxy_ids.tolist() == first.galaxy_ids.tolist()
    np.testing.assert_array_equal(again.targets, first.targets)


def test_a_dataset_of_one_shard_needs_no_others(plain_dataset: Dataset, tmp_path: Path) -> None:
    shards = tuple(shard for shard in plain_dataset.shards if shard.split == "train")[:1]
    dataset = replace(plain_dataset, shards=shards)
    _write(tmp_path / "table.csv", dataset)
    [block, *rest] = paired_blocks(tmp_path / "table.csv", dataset, "train")
    assert len(block.galaxy_ids) + sum(len(one.galaxy_ids) for one in rest) == shards[0].examples
