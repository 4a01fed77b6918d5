"""A folder is used by one process at a time, and somebody else's folder is never mistaken for ours."""

import errno
import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tfrecords import files, locks
from tfrecords.errors import ConfigError

BUSY = "another process is at work: wait"
KNOWN = re.compile(r"job\.json|half")
HOLD = """
import re, sys, time
from pathlib import Path
from tfrecords import locks
with locks.locked(Path(sys.argv[1]), "", re.compile("half")):
    print("held", flush=True)
    time.sleep(60)
"""


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_lock_ends_with_the_process_however_that_ends(tmp_path: Path) -> None:
    work = tmp_path / "out" / ".work"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(work)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=f"{tmp_path}/out: {BUSY}"), locks.locked(work, BUSY, KNOWN):
        pass
    process.kill()
    process.wait()
    with locks.locked(work, BUSY, KNOWN):
        pass
    assert not work.exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_costs_one_warning_and_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(files, "_warned", set())
    for _ in range(2):
        with locks.locked(tmp_path / ".work", BUSY, KNOWN, keep=("job.json",)):
            (tmp_path / ".work" / "job.json").touch()
    (warning,) = caplog.messages
    assert warning.startswith(f"{tmp_path}: this file system has no locks ({os.strerror(number)}): make sure that only one")


def test_another_failure_of_the_lock_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"), locks.locked(tmp_path / ".work", BUSY, KNOWN):
        pass


def test_a_lock_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    thesis, work = tmp_path / "thesis.tex", tmp_path / ".work"
    thesis.write_text("years of work")
    work.mkdir()
    (work / "lock").symlink_to(thesis)
    with pytest.raises(ConfigError, match=r"\.work: was not created by this program"), locks.locked(work, BUSY, KNOWN):
        pass
    assert thesis.read_text() == "years of work"


@pytest.mark.parametrize(
    "files_in_it",
    [
        {"notes.txt": b"mine"},
        {"lock": b"of a bicycle"},
        {"lock": b"x" * 100, "a": b""},
        {"lock": b"", "notes.txt": b"mine"},  # many programs create empty lock files
    ],
)
def test_a_folder_of_somebody_else_is_refused_and_left_alone(tmp_path: Path, files_in_it: dict[str, bytes]) -> None:
    work = tmp_path / ".work"
    work.mkdir()
    for name, content in files_in_it.items():
        (work / name).write_bytes(content)
    with (
        pytest.raises(ConfigError, match="was not created by this program: move it elsewhere"),
        locks.locked(work, BUSY, KNOWN),
    ):
        pass
    assert _tree(work) == files_in_it


def test_leftovers_of_a_killed_removal_go_and_folders_that_only_look_like_them_stay(tmp_path: Path) -> None:
    work = tmp_path / ".work"
    for name, ours in (("0" * 16, True), ("1" * 16, False), ("mine", True), ("2" * 15, True)):
        folder = tmp_path / f".work-{name}"
        folder.mkdir()
        (folder / "lock").write_bytes(b"galaxy-zoo-vgg16\n" if ours else b"of a bicycle")
        (folder / "half").write_bytes(b"content")
    (tmp_path / f".work-{'3' * 16}").mkdir()  # empty: removing it loses nothing
    (tmp_path / f".work-{'4' * 16}").symlink_to(tmp_path / ".work-mine")
    with locks.locked(work, BUSY, KNOWN):
        pass
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted([f".work-{'1' * 16}", ".work-mine", f".work-{'2' * 15}", f".work-{'4' * 16}"])
    assert (tmp_path / ".work-mine" / "half").read_bytes() == b"content"


def test_a_file_of_somebody_else_in_a_folder_of_ours_is_refused_by_name_and_outlives_its_removal(tmp_path: Path) -> None:
    work = tmp_path / ".work"
    with locks.locked(work, BUSY, KNOWN, keep=("job.json",)):
        (work / "job.json").write_bytes(b"{}")
    (work / "notes.txt").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"notes\.txt: was not written by this program"), locks.locked(work, BUSY, KNOWN):
        pass
    (work / "notes.txt").rename(tmp_path / "notes.txt")
    with locks.locked(work, BUSY, KNOWN):
        (tmp_path / "notes.txt").rename(work / "notes.txt")
        locks.remove(work, KNOWN)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".work-") and (left / "notes.txt").read_bytes() == b"mine" and not (left / "job.json").exists()


def test_unfinished_files_of_a_killed_process_go(tmp_path: Path) -> None:
    work = tmp_path / ".work"
    with locks.locked(work, BUSY, KNOWN, keep=("job.json",)):
        (work / "job.json").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").touch()
    (work / ".a.0123.partial").touch()
    (work / ".b.4567.partial").symlink_to(elsewhere)
    known = re.compile(KNOWN.pattern + r"|\..*\.partial")
    with locks.locked(work, BUSY, known, keep=("job.json",)):
        assert sorted(path.name for path in work.iterdir()) == ["job.json", "lock"]
    assert (elsewhere / "mine").exists()


SHARE = """
import re, sys
from pathlib import Path
from tfrecords import locks
with locks.locked(Path(sys.argv[1]), "", re.compile("half"), shared=True):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_shared_lock_is_shared_with_those_that_share_it_and_the_last_removes_the_folder(tmp_path: Path) -> None:
    work = tmp_path / "out" / ".work"
    processes = [
        subprocess.Popen([sys.executable, "-c", SHARE, str(work)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
    (work / "half").touch()
    with locks.locked(work, BUSY, KNOWN, shared=True):
        assert (work / "half").exists()
    assert work.exists()
    with pytest.raises(ConfigError, match=BUSY), locks.locked(work, BUSY, KNOWN):
        pass
    for process in processes:
        process.communicate("")
        assert process.returncode == 0
    assert not work.exists()


def test_no_lock_is_shared_beside_one_that_is_not(tmp_path: Path) -> None:
    work = tmp_path / "out" / ".work"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(work)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=BUSY), locks.locked(work, BUSY, KNOWN, shared=True):
        pass
    process.kill()
    process.wait()


TURN = """
import sys, time
from pathlib import Path
from tfrecords import locks
with locks.one_at_a_time(Path(sys.argv[1]) / "turn", "waits"):
    text = Path(sys.argv[1], "text")
    before = text.read_text() if text.exists() else ""
    time.sleep(0.1)
    text.write_text(before + "x")
"""


def test_each_has_its_turn(tmp_path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", TURN, str(tmp_path)]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert (tmp_path / "text").read_text() == "xxxx"
