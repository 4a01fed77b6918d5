"""However a job is ended, the same command goes on from there and leaves the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preprocess.job import BuildSettings, build
from tfrecords.dataset import open_dataset
from tfrecords.errors import ConfigError, DatasetError

Contents = Callable[[Path], dict[str, bytes]]
Start = Callable[..., "subprocess.Popen[str]"]
# Enlarged to 424 pixels a galaxy takes some 30 ms: the job lasts long enough to be stopped after its first shard.
SIZE, PER_SHARD = 424, 3


@pytest.fixture(scope="module")
def long_settings(build_settings: Callable[..., BuildSettings]) -> BuildSettings:
    return build_settings(size=SIZE, examples_per_shard=PER_SHARD)


@pytest.fixture(scope="module")
def undisturbed(
    small_survey: Path, long_settings: BuildSettings, contents: Contents, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The bytes of the dataset of a job that nobody stopped."""
    return contents(build(small_survey, tmp_path_factory.mktemp("undisturbed") / "out", long_settings).dataset.folder)


def _has_receipt(out: Path, pid: int) -> bool:
    return any((out / ".preprocess" / "receipts").glob("*.json"))


def _has_workers(out: Path, pid: int) -> bool:
    return len(_children(pid)) == 3  # two workers and Python's resource tracker


@pytest.fixture
def start(command: list[str], small_survey: Path) -> Iterator[Start]:
    """A function that starts the same job as a process, and returns when it has finished its first shard (or as told)."""
    started: list[subprocess.Popen[str]] = []

    def start(out: Path, ready: Callable[[Path, int], bool] = _has_receipt) -> "subprocess.Popen[str]":
        flags = f"--size={SIZE} --examples_per_shard={PER_SHARD} --encoding=png --validation_fraction=0.2 --test_fraction=0.2"
        arguments = [*command, f"--src={small_survey}", f"--out={out}", "--workers=2", *flags.split()]
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        until = time.monotonic() + 30
        while not ready(out, process.pid):
            assert process.poll() is None and time.monotonic() < until, process.communicate()
            time.sleep(0.005)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _state(pid: int) -> str:
    """A process' letter in /proc, X where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _assert_all_end(pids: list[int]) -> None:
    until = time.monotonic() + 10
    while alive := [pid for pid in pids if _state(pid) not in "ZX"]:
        assert time.monotonic() < until, f"processes {alive} outlive their job"
        time.sleep(0.02)


def _committed(out: Path) -> dict[str, tuple[int, int]]:
    """Name -> inode and time of the shards that have a receipt."""
    names = [path.name.removesuffix(".json") for path in (out / ".preprocess" / "receipts").glob("*.json")]
    return {name: ((out / name).stat().st_ino, (out / name).stat().st_mtime_ns) for name in names}


@pytest.mark.parametrize(
    ("how", "status", "line"),
    [
        (signal.SIGKILL, -9, None),
        (signal.SIGTERM, 143, "interrupted by SIGTERM: run the same command again"),
        (signal.SIGINT, 130, "interrupted by Ctrl-C: run the same command again"),
    ],
    ids=["SIGKILL", "SIGTERM", "Ctrl-C"],
)
def test_an_interrupted_job_leaves_no_process_and_resumes_to_identical_bytes(
    how: signal.Signals, status: int, line: str | None, start: Start, small_survey: Path, long_settings: BuildSettings,
    undisturbed: dict[str, bytes], contents: Contents, tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    process = start(out)
    children = _children(process.pid)
    assert children
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # Ctrl-C reaches every process of the terminal
    else:
        process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status
    _assert_all_end(children)
    if line:  # after a SIGKILL only Python's resource tracker is left to speak
        said = err.replace("\r", "\n").splitlines()
        assert [text for text in said if text.strip() and not text.startswith("writing shards")] == [line]
    with pytest.raises(DatasetError, match="not a finished dataset"):
        open_dataset(out)
    if how != signal.SIGKILL:
        assert not list(out.rglob("*.partial"))
    committed = _committed(out)
    assert 0 < len(committed) < len(undisturbed) - 4
    result = build(small_survey, out, long_settings, workers=2)
    assert not result.already_complete
    assert {name: ((out / name).stat().st_ino, (out / name).stat().st_mtime_ns) for name in committed} == committed
    assert contents(out) == undisturbed


@pytest.mark.parametrize("seconds", [0.05, 0.15])
def test_ctrl_c_while_the_workers_start_is_one_line_too(seconds: float, start: Start, tmp_path: Path) -> None:
    process = start(tmp_path / "out", _has_workers)
    time.sleep(seconds)
    children = _children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    _assert_all_end(children)


def test_a_second_job_on_the_same_folder_is_refused_and_the_first_ends_well(
    start: Start, small_survey: Path, long_settings: BuildSettings, undisturbed: dict[str, bytes], contents: Contents,
    tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    first = start(out)
    first.send_signal(signal.SIGSTOP)
    try:
        for overwrite in (False, True):
            with pytest.raises(ConfigError) as caught:
                build(small_survey, out, long_settings, overwrite=overwrite)
            advice = "wait for it, or choose another --out"
            assert str(caught.value) == f"{out}: another preprocess job is writing here: {advice}"
    finally:
        first.send_signal(signal.SIGCONT)
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert contents(out) == undisturbed


@pytest.fixture
def unfinished(start: Start, tmp_path: Path) -> Path:
    """The folder of a job that was killed after its first shard."""
    process = start(tmp_path / "out")
    children = _children(process.pid)
    process.kill()
    process.communicate()
    _assert_all_end(children)
    return tmp_path / "out"


@pytest.mark.parametrize("damage", ["flipped bit", "cut off", "missing"])
def test_a_finished_shard_that_was_damaged_since_is_written_again(
    damage: str, unfinished: Path, small_survey: Path, long_settings: BuildSettings, undisturbed: dict[str, bytes],
    contents: Contents,
) -> None:  # fmt: skip
    shard = unfinished / sorted(_committed(unfinished))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(content if damage == "flipped bit" else content[:-1])
    build(small_survey, unfinished, long_settings, workers=2)
    assert contents(unfinished) == undisturbed


def test_an_unfinished_job_refuses_other_settings_and_another_source_and_stays_resumable(
    unfinished: Path, small_survey: Path, long_settings: BuildSettings, build_settings: Callable[..., BuildSettings],
    undisturbed: dict[str, bytes], contents: Contents, tmp_path: Path,
) -> None:  # fmt: skip
    before = contents(unfinished)
    job = json.loads(before[".preprocess/job.json"])
    assert job["settings"] == long_settings.flat()
    with pytest.raises(
        ConfigError, match=r"an unfinished job with other settings or source \(seed was 0, now 5\): choose another --out"
    ):
        build(small_survey, unfinished, build_settings(size=SIZE, examples_per_shard=PER_SHARD, seed=5))
    other = Path(shutil.copytree(small_survey, tmp_path / "other"))
    (other / "images_test_rev1" / "900000.jpg").unlink()
    with pytest.raises(ConfigError, match="the source has changed"):
        build(other, unfinished, long_settings)
    assert contents(unfinished) == before
    build(small_survey, unfinished, long_settings, workers=2)
    assert contents(unfinished) == undisturbed


def test_metadata_that_a_killed_job_did_not_finish_is_replaced(
    small_survey: Path, build_settings: Callable[..., BuildSettings], contents: Contents, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json.partial").write_text("{")
    cut = build(small_survey, tmp_path / "out", build_settings()).dataset.folder
    whole = build(small_survey, tmp_path / "whole", build_settings()).dataset.folder
    assert contents(cut) == contents(whole)
