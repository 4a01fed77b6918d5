"""A finished job that is run again compares the times of files, and reads images only if one of them has changed."""

import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess import BuildSettings, build_dataset
from preprocess.plan import ShardPlan
from preprocess.survey import Survey
from preprocess.times import has_time, set_time, stamp
from tfrecords.errors import ConfigError

Settings = Callable[..., BuildSettings]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each reading of a source."""
    counts: list[int] = []
    crcs = Survey.crcs

    def counted(self: Survey, shards: Sequence[ShardPlan]) -> Iterator[int]:
        counts.append(sum(len(shard.rows) for shard in shards))
        return crcs(self, shards)

    monkeypatch.setattr(Survey, "crcs", counted)
    return counts


@pytest.fixture
def own(survey: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(survey, tmp_path / "own"))


def test_a_finished_job_reads_no_image_again(own: Path, build_settings: Settings, tmp_path: Path, reads: list[int]) -> None:
    build_dataset(own, tmp_path / "out", build_settings())
    for _ in range(2):
        assert build_dataset(own, tmp_path / "out", build_settings()).already_complete
    assert reads == []


def test_a_file_that_was_touched_is_read_once_more(
    own: Path, build_settings: Settings, tmp_path: Path, reads: list[int]
) -> None:
    build_dataset(own, tmp_path / "out", build_settings())
    time.sleep(0.02)  # file systems count time in ticks
    os.utime(own / "images_training_rev1" / "100007.jpg")
    for _ in range(3):
        assert build_dataset(own, tmp_path / "out", build_settings()).already_complete
    assert reads == [28]


def test_an_image_with_the_size_and_the_time_of_before_is_noticed(own: Path, build_settings: Settings, tmp_path: Path) -> None:
    image = own / "images_training_rev1" / "100007.jpg"
    build_dataset(own, tmp_path / "out", build_settings())
    before, content = image.stat(), bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    time.sleep(0.02)
    image.write_bytes(content)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(ConfigError, match="an image of the source has changed"):
            build_dataset(own, tmp_path / "out", build_settings())


def test_a_source_or_a_dataset_that_has_moved_is_read_once_more(
    own: Path, build_settings: Settings, tmp_path: Path, reads: list[int]
) -> None:
    build_dataset(own, tmp_path / "out", build_settings())
    shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.copytree(own, tmp_path / "moved")
    for source, out in ((own, "copy"), (own, "copy"), (tmp_path / "moved", "out"), (tmp_path / "moved", "out")):
        assert build_dataset(source, tmp_path / out, build_settings()).already_complete
    assert reads == [28, 28]


def test_a_zip_is_compared_by_the_checksums_that_it_lists(
    own: Path, build_settings: Settings, tmp_path: Path, reads: list[int]
) -> None:
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as packed:
        for path in sorted(own.rglob("*.*")):
            packed.write(path, path.relative_to(own))
    build_dataset(tmp_path / "own.zip", tmp_path / "out", build_settings())
    assert build_dataset(tmp_path / "own.zip", tmp_path / "out", build_settings()).already_complete
    assert reads == [28]


_TIMES = st.integers(1, 2**62).filter(lambda number: number % 1_000_000_000)


@given(st.lists(_TIMES, min_size=1, max_size=20), st.data())
def test_another_time_of_any_file_is_another_stamp(times: list[int], data: st.DataObject) -> None:
    before = stamp([np.array(times)])
    assert before is not None and before // 10**9 == max(times) // 10**9
    cut = data.draw(st.integers(0, len(times)))
    assert stamp([np.array(times[:cut], np.int64), np.array(times[cut:], np.int64)]) == before
    place = data.draw(st.integers(0, len(times) - 1))
    assert (
        stamp([np.array([*times[:place], data.draw(_TIMES.filter(lambda other: other != times[place])), *times[place + 1 :]])])
        != before
    )


def test_times_without_a_fraction_and_no_times_prove_nothing(tmp_path: Path) -> None:
    assert stamp([]) is None
    assert stamp([np.array([5_000_000_001, 7_000_000_000])]) is None
    assert stamp([np.zeros(3, np.int64)]) is None
    file = tmp_path / "file"
    file.write_bytes(b"")
    set_time(file, None)
    assert not has_time(file, None)
    set_time(file, 5_000_000_001)
    assert has_time(file, 5_000_000_001) and not has_time(file, 5_000_000_002)
    set_time(tmp_path / "missing", 1)
