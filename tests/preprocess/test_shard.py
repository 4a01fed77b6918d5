"""One shard: exactly the galaxies of its task, in order, or nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from preprocess.shard import ShardTask, write_shard
from tfrecords import framing, images, schema
from tfrecords.errors import SourceError
from tfrecords.files import sha256_file
from tfrecords.images import CropSettings

PATHS = ("images_training_rev1/100021.jpg", "images_test_rev1/900011.jpg", "images_training_rev1/100000.jpg")
TARGETS = np.stack([np.full(37, 0.25, np.float32), np.full(37, np.nan, np.float32), np.arange(37, dtype=np.float32) / 37])
Make = Callable[..., ShardTask]


@pytest.fixture
def make_task(survey: Path, tmp_path: Path) -> Make:
    """A function that gives a task of three galaxies: make_task(paths=PATHS, size=32)."""

    def make(paths: tuple[str, ...] = PATHS, size: int = 32) -> ShardTask:
        folder, work = tmp_path / "out", tmp_path / "work"
        folder.mkdir()
        work.mkdir()
        crop = CropSettings(0.5, size, "png", 95)
        return ShardTask("shard", "train", survey, folder, work, (100021, 900011, 100000), paths, TARGETS, crop)

    return make


def test_a_shard_holds_the_galaxies_of_its_task_in_order(make_task: Make) -> None:
    task = make_task()
    calls: list[None] = []
    receipt = write_shard(task, lambda: calls.append(None))
    examples = [schema.parse(record) for record in framing.read_records(task.folder / "shard")]
    assert tuple(example.galaxy_id for example in examples) == task.galaxy_ids
    for example, path, targets in zip(examples, PATHS, TARGETS, strict=True):
        assert example.image == images.store((task.source / path).read_bytes(), task.crop).data
        np.testing.assert_array_equal(example.targets, targets)
    assert len(calls) == 3
    assert list(task.work.iterdir()) == []
    shard = receipt.shard
    assert (shard.name, shard.split, shard.examples) == ("shard", "train", 3)
    assert shard.bytes == (task.folder / "shard").stat().st_size
    assert shard.sha256 == sha256_file(task.folder / "shard")


@pytest.mark.parametrize(("size", "enlarged"), [(31, 0), (32, 0), (33, 3)])
def test_the_receipt_counts_enlarged_crops(make_task: Make, size: int, enlarged: int) -> None:
    assert write_shard(make_task(size=size), lambda: None).enlarged == enlarged


def test_an_unreadable_image_is_named_and_no_file_is_left(make_task: Make) -> None:
    task = make_task((PATHS[0], "training_solutions_rev1.csv", PATHS[2]))
    with pytest.raises(SourceError) as caught:
        write_shard(task, lambda: None)
    assert str(caught.value).startswith(f"{task.source}/training_solutions_rev1.csv: not a readable JPEG or PNG")
    assert list(task.folder.iterdir()) == list(task.work.iterdir()) == []


def test_an_image_that_vanished_is_named_and_no_file_is_left(make_task: Make) -> None:
    task = make_task((PATHS[0], "gone.jpg", PATHS[2]))
    with pytest.raises(FileNotFoundError) as caught:
        write_shard(task, lambda: None)
    assert caught.value.filename == str(task.source / "gone.jpg")
    assert list(task.folder.iterdir()) == list(task.work.iterdir()) == []


def test_a_job_that_is_stopped_between_two_images_leaves_no_file(make_task: Make) -> None:
    task = make_task()

    def stop() -> None:
        assert [path.name for path in task.work.iterdir()] == ["shard.partial"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(task, stop)
    assert list(task.folder.iterdir()) == list(task.work.iterdir()) == []


def test_galaxies_paths_and_targets_must_be_as_many(make_task: Make) -> None:
    with pytest.raises(ValueError):
        write_shard(make_task(PATHS[:2]), lambda: None)
