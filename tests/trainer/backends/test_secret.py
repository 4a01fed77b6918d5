"""The secret of a run on several machines is nobody else's, and leaves no trace."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tfrecords.errors import ConfigError, SettingError
from tfrecords.outputs import Output
from trainer.backends.secret import VARIABLE, given_key, run_key

LONG = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def _secret_file(folder: Path, text: str = LONG, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_file_counts_before_the_environment_and_both_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert given_key(None) is None
    path = _secret_file(tmp_path)
    from_file = given_key(path)
    assert from_file is not None and len(from_file) == 32
    monkeypatch.setenv(VARIABLE, f"{LONG}\n")
    assert given_key(None) == from_file
    monkeypatch.setenv(VARIABLE, LONG[::-1])
    assert given_key(path) == from_file != given_key(None)
    monkeypatch.setenv(VARIABLE, "")
    assert given_key(None) is None


@pytest.mark.parametrize("text", ["", "short", " " * 99 + "fifteen letters", "x" * 4097])
def test_a_secret_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(SettingError, match=r"--hosts_secret .*: has .* characters: give 16 to 4,096 random ones"):
        given_key(_secret_file(tmp_path, text))
    if text:
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(SettingError, match=f"^{VARIABLE}: has "):
            given_key(None)


def test_a_secret_that_others_may_read_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given_key(_secret_file(tmp_path))
    assert caplog.text == ""
    given_key(_secret_file(tmp_path, mode=0o640))
    assert "chmod 600" in caplog.text


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        given_key(tmp_path / "nowhere")


def test_the_processes_of_a_run_share_a_new_secret_that_leaves_no_trace(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "new"
    with run_key(out, is_first=False) as theirs:
        with pytest.raises(FileNotFoundError):
            theirs()
        with run_key(out, is_first=True) as ours:
            [path] = (path for path in out.rglob("*") if path.name != "lock" and path.is_file())
            assert path.stat().st_mode & 0o777 == 0o600
            assert re.fullmatch("[0-9a-f]{64}", path.read_text())
            first = ours()
            assert theirs() == first
        assert not (tmp_path / "runs").exists()
        with run_key(out, is_first=True):
            assert theirs() != first


def test_a_run_that_is_resumed_and_files_of_others_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with run_key(tmp_path, is_first=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    run = tmp_path / "run"
    output = Output(run, "run")
    with output.locked("busy"):
        output.write({"config.json": b"{}"})
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with run_key(run, is_first=True):
        assert len([*run.rglob("*")]) == len(before) + 2  # with the private folder
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_that_began_while_its_processes_met_stays(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with run_key(out, is_first=True):
        output = Output(out, "run")
        with output.locked("busy", beside_others=True):
            output.write({"config.json": b"{}"})
    assert Output(out, "run").is_intact("config.json")


def test_the_secret_of_a_killed_process_is_used_again_or_removed(tmp_path: Path) -> None:
    """Others may have read it already. The next command that writes there removes it."""
    script = (
        "import os, sys; from pathlib import Path; from trainer.backends.secret import run_key\n"
        "with run_key(Path(sys.argv[1]), True) as read: print(read().hex(), flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, tmp_path / "run"], capture_output=True, text=True, check=False)
    assert killed.returncode == -9
    with run_key(tmp_path / "run", is_first=True) as read:
        assert read().hex() == killed.stdout.strip()
    assert not [path for path in (tmp_path / "run").rglob("*.partial")]
    subprocess.run([sys.executable, "-c", script, tmp_path / "run"], capture_output=True, check=False)
    with Output(tmp_path / "run", "run").locked("busy"):
        assert not [path for path in (tmp_path / "run").rglob("*.partial")]


@pytest.mark.parametrize(("text", "mode"), [("planted", 0o600), ("a" * 64, 0o644)])
def test_a_secret_that_others_may_have_seen_or_planted_is_replaced(tmp_path: Path, text: str, mode: int) -> None:
    with run_key(tmp_path, is_first=True):
        [path] = tmp_path.rglob("*.partial")
        path.write_text(text)
        path.chmod(mode)
        with run_key(tmp_path, is_first=True):
            assert path.read_text() != text and path.stat().st_mode & 0o777 == 0o600
        _secret_file(path.parent, text)
        (path.parent / "secret").rename(path)
        if len(text) != 64:
            with run_key(tmp_path, is_first=False) as read, pytest.raises(ConfigError, match="is not as process 0 writes it"):
                read()


def test_a_link_in_place_of_the_secret_is_not_followed(tmp_path: Path) -> None:
    with run_key(tmp_path, is_first=True):
        [path] = tmp_path.rglob("*.partial")
        path.unlink()
        path.symlink_to(_secret_file(tmp_path, "a" * 64))
        with run_key(tmp_path, is_first=False) as read, pytest.raises(OSError):
            read()
        with run_key(tmp_path, is_first=True):
            assert not path.is_symlink()
    assert (tmp_path / "secret").read_text() == "a" * 64


@pytest.mark.parametrize("is_first", [True, False])
def test_an_out_that_is_a_file_is_named(tmp_path: Path, is_first: bool) -> None:
    with pytest.raises(ConfigError, match="is a file: choose another --out"), run_key(_secret_file(tmp_path), is_first):
        pass
