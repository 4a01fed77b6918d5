"""What a run says is true of its present model, and what TensorFlow raises becomes a line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tfrecords.dataset import Dataset
from tfrecords.errors import DatasetError
from trainer.analysis.evaluate import evaluate, is_current
from trainer.predict import predict
from trainer.run import Run


@pytest.fixture
def copied(tiny_run: Run, tmp_path: Path) -> Run:
    """A copy of the tiny run without its checkpoint, to be changed."""
    shutil.copytree(tiny_run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint", "tensorboard"))
    return Run(tmp_path / "run", tiny_run.config)


def test_metrics_of_an_earlier_model_or_another_dataset_do_not_count(
    copied: Run, plain_dataset: Dataset, make_dataset: Callable[..., Dataset]
) -> None:
    assert is_current(copied, plain_dataset, "test")
    path = copied.metrics_path("test")
    content: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "model": "0" * 64}))
    assert not is_current(copied, plain_dataset, "test")
    evaluate(copied, plain_dataset)
    assert is_current(copied, plain_dataset, "test")
    assert not is_current(copied, make_dataset(seed=1), "test")
    path.unlink()
    assert not is_current(copied, plain_dataset, "test")


def test_a_damaged_shard_is_one_error_with_the_way_out(tiny_run: Run, make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset()
    shard = dataset.paths("test")[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a shard is damaged .*: run preprocess again with --overwrite"):
        predict(tiny_run, dataset, "test")
