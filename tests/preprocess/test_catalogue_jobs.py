"""A catalogue that holds its images is built, resumed and checked like any source, and leaves no copies of them behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from preprocess import plan, scatter
from preprocess.catalogues import catalogue_survey
from preprocess.fitting import ANYTHING
from preprocess.job import BadImages, BuildSettings, build_dataset
from preprocess.verify.dataset import verify_dataset
from tests.conftest import galaxy_image
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, SourceError

Settings = Callable[..., BuildSettings]
BAD = BadImages(max_fraction=0.9)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Nine galaxies in Parquet: the second has no image, the fifth one without bytes."""
    path = tmp_path / "1.png"
    galaxy_image(np.random.default_rng(0), 48).save(path)
    images = [{"bytes": path.read_bytes(), "path": "1.png"} for _ in range(9)]
    images[1], images[4] = None, {"bytes": b"", "path": "5.png"}  # type: ignore[call-overload]
    parquet.write_table(pa.table({"id_str": [f"J{number}" for number in range(9)], "image": images}), tmp_path / "gz.parquet")
    return tmp_path / "gz.parquet"


@pytest.fixture
def settings(build_settings: Settings) -> BuildSettings:
    return build_settings(size=16, examples_per_shard=2)


def _shards(dataset: Dataset) -> dict[str, bytes]:
    return {shard.name: (dataset.folder / shard.name).read_bytes() for shard in dataset.shards}


def _interrupted_after(shards: int) -> Callable[..., Any]:
    """An engine that Ctrl-C stops after so many shards."""

    def run(work: Any, tasks: Any, *arguments: Any) -> Any:
        for number, task in enumerate(tasks):
            if number == shards:
                raise KeyboardInterrupt
            yield work(task, lambda: None)

    return run


def _scattered(out: Path) -> list[Path]:
    return [*out.glob(f".preprocess/{scatter.PREFIX}*")]


def test_a_dataset_with_rejected_rows_is_complete_when_it_is_built_again(
    source: Path, settings: BuildSettings, tmp_path: Path
) -> None:
    first = build_dataset(source, tmp_path / "out", settings, bad=BAD)
    assert len(first.dataset.rejected()) == 2 and not first.already_complete
    assert build_dataset(source, tmp_path / "out", settings, bad=BAD).already_complete
    assert not (tmp_path / "out" / ".preprocess").exists()
    assert verify_dataset(tmp_path / "out", source).findings == ()


def test_images_that_a_table_lacks_and_those_above_the_limit_have_the_checksum_of_their_receipts(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = len((tmp_path / "1.png").read_bytes())
    rows = parquet.read_table(source).to_pylist()
    rows[7]["image"]["bytes"] += bytes(1)
    parquet.write_table(pa.Table.from_pylist(rows), source)
    survey = catalogue_survey(source, tmp_path, ANYTHING)
    shards = plan.make(survey.galaxies, plan.PlanSettings())
    survey.prepare(shards)
    monkeypatch.setattr("preprocess.sources.listing.MAX_BYTES", limit)
    assert [*survey.crcs(shards)].count(0) == 3


@pytest.mark.parametrize("shards", [1, 3])
def test_an_interrupted_build_leaves_no_images_and_resumes_past_rejected_rows(
    shards: int, source: Path, settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = build_dataset(source, tmp_path / "expected", settings, bad=BAD).dataset
    with monkeypatch.context() as patch:
        patch.setattr("preprocess.job.run_local", _interrupted_after(shards))
        with pytest.raises(KeyboardInterrupt):
            build_dataset(source, tmp_path / "out", settings, bad=BAD)
    assert len([*(tmp_path / "out" / ".preprocess" / "receipts").iterdir()]) == shards < len(expected.shards)
    assert _scattered(tmp_path / "out") == []
    assert _shards(build_dataset(source, tmp_path / "out", settings, bad=BAD).dataset) == _shards(expected)


def test_a_refused_build_leaves_no_images(source: Path, settings: BuildSettings, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="of 9 images could not be used"):
        build_dataset(source, tmp_path / "out", settings, bad=BadImages(max_fraction=0))
    assert (tmp_path / "out").is_dir() and _scattered(tmp_path / "out") == []
    build_dataset(source, tmp_path / "out", settings, bad=BAD)
    table = parquet.read_table(source)
    parquet.write_table(table.slice(1), source)
    with pytest.raises(ConfigError, match="other settings or source"):
        build_dataset(source, tmp_path / "out", settings, bad=BAD)
    assert _scattered(tmp_path / "out") == []


def test_rows_that_could_not_be_scattered_are_removed(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey = catalogue_survey(source, tmp_path, ANYTHING)
    shards = plan.make(survey.galaxies, plan.PlanSettings(examples_per_shard=2))

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("preprocess.scatter.Scatter.write", full)
        with pytest.raises(OSError, match="No space left"):
            survey.prepare(shards)
    assert [*tmp_path.glob(f"{scatter.PREFIX}*")] == []
    survey.prepare(shards)
    assert len([*tmp_path.glob(f"{scatter.PREFIX}*")]) == 1
    survey.close()
    survey.close()
    assert [*tmp_path.glob(f"{scatter.PREFIX}*")] == []
