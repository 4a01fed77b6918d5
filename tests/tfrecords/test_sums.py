"""Sums of targets are rounded once, whatever the order and the shards, and a manifest without true sums is refused."""

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preprocess import verify_dataset
from tfrecords import dataset
from tfrecords.dataset import Dataset, open_dataset, sha256_text, to_json
from tfrecords.errors import DatasetError
from tfrecords.reader import target_means, votes_of
from tfrecords.sums import add_up, parse_sums, target_sums
from tfrecords.tree import column_means

_TARGETS = arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(0, 1, width=32))


@given(_TARGETS, st.integers(0, 30), st.randoms(use_true_random=False))
def test_sums_are_exact_but_for_one_rounding_in_any_order_and_in_parts(targets: np.ndarray, cut: int, random: Any) -> None:
    whole = target_sums(targets, None)
    exact = [sum(map(Fraction, map(float, column))) for column in targets.T]
    assert whole.sums == tuple(map(float, exact))
    assert whole.counts == (len(targets),) * 3
    rows = random.sample(range(len(targets)), len(targets))
    assert target_sums(targets[rows], None) == whole
    parts = [target_sums(part, None) for part in (targets[:cut], targets[cut:])]
    np.testing.assert_allclose(add_up(parts).sums, whole.sums, rtol=3e-16)
    assert add_up(parts).counts == whole.counts


@given(_TARGETS, st.integers(0, 2**32 - 1))
def test_means_are_those_of_the_columns_where_they_count(targets: np.ndarray, seed: int) -> None:
    counted = np.random.default_rng(seed).random(targets.shape) < 0.5
    np.testing.assert_allclose(target_sums(targets, counted).means(), column_means(targets, counted), rtol=1e-14)
    np.testing.assert_allclose(target_sums(targets, None).means(), column_means(targets), rtol=1e-14)


def test_the_means_of_a_dataset_are_those_of_its_shards_and_none_is_opened(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "validation", "test"):
        votes = votes_of(small_dataset, split)
        expected = column_means(votes.targets, small_dataset.tree.counted(votes.asked))
        np.testing.assert_allclose(target_means(small_dataset, split), expected, rtol=1e-14)
        np.testing.assert_allclose(target_means(small_dataset, split, 2), column_means(votes.targets[:2]), rtol=1e-14)
    assert "unlabelled" not in small_dataset.targets
    shutil.copytree(small_dataset.folder, tmp_path / "copy")
    copy = open_dataset(tmp_path / "copy")
    for shard in copy.shards:
        (copy.folder / shard.name).unlink()
    assert target_means(copy, "train").tobytes() == target_means(small_dataset, "train").tobytes()


def _rewritten(source: Dataset, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a dataset whose manifest was changed and signed again."""
    shutil.copytree(source.folder, folder)
    content = json.loads((folder / dataset.MANIFEST).read_text("utf-8"))
    del content["sha256"]
    change(content)
    (folder / dataset.MANIFEST).write_text(to_json({**content, "sha256": sha256_text(to_json(content))}), "utf-8")
    return folder


def test_a_dataset_of_an_earlier_version_is_read_for_its_means(small_dataset: Dataset, tmp_path: Path) -> None:
    earlier = open_dataset(_rewritten(small_dataset, tmp_path / "earlier", lambda content: content.pop("targets")))
    assert not earlier.targets
    np.testing.assert_allclose(target_means(earlier, "train"), target_means(small_dataset, "train"), rtol=1e-14)
    assert not verify_dataset(earlier.folder).errors


def test_verify_compares_the_sums_with_the_shards(small_dataset: Dataset, tmp_path: Path) -> None:
    assert not verify_dataset(small_dataset.folder).errors

    def change(content: dict[str, Any]) -> None:
        content["targets"]["train"]["sums"][3] += 1e-9

    [finding] = verify_dataset(_rewritten(small_dataset, tmp_path / "changed", change)).findings
    assert (finding.level, finding.where) == ("error", "manifest.json")
    assert finding.what == "its sums of targets do not agree with the shards"


@pytest.mark.parametrize(
    "sums",
    [
        None, [], {}, {"sums": [0.5]}, {"sums": [0.5], "counts": [True]}, {"sums": ["0.5"], "counts": [1]},
        {"sums": [0.5, 0.5], "counts": [1]}, {"sums": [0.5], "counts": [-1]},
        {"sums": [float("nan")], "counts": [1]}, {"sums": [float("inf")], "counts": [1]}, {"sums": 0.5, "counts": 1},
    ],
)  # fmt: skip
def test_sums_that_are_none_are_refused(sums: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        parse_sums(sums, 1)
    assert parse_sums({"sums": [0.5], "counts": [2]}, 1).means().tolist() == [0.25]


@pytest.mark.parametrize("sums", [None, 5, ["train"], {"train": {}}, {"train": {"sums": [], "counts": []}}])
def test_a_manifest_with_other_sums_ends_with_one_line(small_dataset: Dataset, tmp_path: Path, sums: Any) -> None:
    folder = _rewritten(small_dataset, tmp_path / "changed", lambda content: content.update(targets=sums))
    with pytest.raises(DatasetError, match="not a complete manifest of preprocess") as error:
        open_dataset(folder)
    assert "\n" not in str(error.value)
