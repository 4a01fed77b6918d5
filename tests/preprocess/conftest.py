"""The program as its users run it, the processes it starts, images that cannot be used, and surveys of other trees."""

import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess.job import BuildSettings, build_dataset
from tests.conftest import SHARED, SurveyMaker
from tests.preprocess.people import TABLE, People
from tests.preprocess.surveys import RINGS
from tfrecords import framing, schema
from tfrecords.dataset import Dataset

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def command() -> list[str]:
    """The command `preprocess`, run by this Python."""
    return [sys.executable, "-m", "preprocess"]


@pytest.fixture
def run(command: list[str], tmp_path: Path) -> Run:
    """A function that runs `preprocess` with arguments in a folder of its own, and returns status, stdout and stderr."""

    def run(*arguments: Any, before: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*before, *command, *map(str, arguments)], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
        )

    return run


@pytest.fixture(scope="session")
def said() -> Callable[[str], list[str]]:
    """A function that returns the lines of a job's stderr; progress leaves none in a short job."""

    def said(stderr: str) -> list[str]:
        return [line for line in stderr.splitlines() if line.strip()]

    return said


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """A function that returns every file below a folder, hidden ones too: relative path -> bytes."""

    def contents(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    return contents


@pytest.fixture(scope="session")
def examples() -> Callable[[Dataset], dict[int, tuple[str, schema.Example]]]:
    """A function that returns all that a dataset holds: galaxy -> its split and its example."""

    def examples(dataset: Dataset) -> dict[int, tuple[str, schema.Example]]:
        parsed = {}
        for shard in dataset.shards:
            for record in framing.read_records(dataset.folder / shard.name):
                example = schema.parse(record, dataset.tree, dataset.asked, dataset.named)
                parsed[example.galaxy_id] = (shard.split, example)
        assert len(parsed) == sum(shard.examples for shard in dataset.shards)
        return parsed

    return examples


@pytest.fixture(scope="session")
def children() -> Callable[[int], list[int]]:
    """A function that returns the processes that a process has started; none if it has gone."""

    def children(pid: int) -> list[int]:
        try:
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            return []

    return children


def _state(pid: int) -> str:
    """The state of a process as its letter in /proc; X if it has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


@pytest.fixture(scope="session")
def assert_all_end() -> Callable[[list[int]], None]:
    """A function that fails if one of these processes is still running after ten seconds."""

    def assert_all_end(pids: list[int]) -> None:
        until = time.monotonic() + 10
        while alive := [pid for pid in pids if _state(pid) not in "ZX"]:
            assert time.monotonic() < until, f"processes {alive} outlive their job"
            time.sleep(0.01)

    return assert_all_end


def _png(width: int, height: int, bits: int, rows: bytes) -> bytes:
    """A PNG of RGB pixels with `bits` bits per channel, whose header may promise more than `rows` holds."""
    chunks = (
        (b"IHDR", struct.pack(">2I5B", width, height, bits, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    body = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.fixture(scope="session")
def spoil() -> Callable[[Path], dict[str, str]]:
    """A function that adds six images that cannot be used to a folder with readable JPEGs: name -> how the reason begins."""

    def spoil(folder: Path) -> dict[str, str]:
        whole = min(folder.glob("*.jpg")).read_bytes()
        bad = {
            "800001.jpg": (whole[: len(whole) // 2], "not a readable image (Premature end of JPEG file)"),
            "800002.jpg": (b"", "the file is empty"),
            "800003.jpg": (b"a galaxy, in words\n", "is a text, not an image: 'a galaxy, in words'"),
            "800004.png": (
                _png(100_000, 100_000, 8, bytes(100)),
                "not a readable image (Image size (10000000000 pixels)",
            ),
            "800005.png": (_png(64, 64, 16, bytes(64 * 385)), "more than 8 bits per channel: convert it to 8-bit RGB first"),
            "800006.jpg": (
                whole[: len(whole) // 2] + b"\xff\xd9",
                "not a readable image (Corrupt JPEG data: premature end of data segment)",
            ),
        }
        for name, (content, _) in bad.items():
            (folder / name).write_bytes(content)
        return {name: reason for name, (_, reason) in bad.items()}

    return spoil


def _copy(name: str, folder: Path) -> Path:
    """A copy of a real survey that can be changed."""
    source = SHARED / "surveys" / name
    if not source.exists():
        pytest.skip(f"{source} is missing: real surveys are not part of the repository")
    for path in sorted(source.rglob("*")):
        if path.is_file():
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def decals(tmp_path: Path) -> Path:
    """Six real galaxies of GZ DECaLS campaign 5, named by their coordinates."""
    return _copy("decals", tmp_path / "decals")


@pytest.fixture
def gz2(tmp_path: Path) -> Path:
    """Three real galaxies of Galaxy Zoo 2, whose table and images a second table joins."""
    return _copy("gz2", tmp_path / "gz2")


@pytest.fixture
def small(build_settings: Callable[..., BuildSettings]) -> BuildSettings:
    return build_settings(size=16, validation_fraction=0.0, test_fraction=0.0, examples_per_shard=4)


@pytest.fixture
def rings(tmp_path: Path) -> Path:
    path = tmp_path / "rings.toml"
    path.write_text(RINGS)
    return path


@pytest.fixture(scope="session")
def tiny(build_settings: Callable[..., BuildSettings]) -> BuildSettings:
    """Settings for galaxies of 16 x 16 pixels in shards of 10."""
    return build_settings(size=16, examples_per_shard=10)


@pytest.fixture(scope="session")
def people(make_survey: SurveyMaker, tiny: BuildSettings, tmp_path_factory: pytest.TempPathFactory) -> People:
    folder = tmp_path_factory.mktemp("people")
    survey = make_survey(folder / "plain", labelled=20, unlabelled=0, side=48)
    header, *rows = [line.split(",") for line in (survey / TABLE).read_text().splitlines()]
    return People(survey, header, rows, build_dataset(survey, folder / "out", tiny, workers=1).dataset)
