"""No command imports a module from the current folder, in no process, whatever the modules there are called."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tfrecords
from tfrecords.children import of_module, safe_children
from trainer.run import Run

# Modules that Python, its workers and ours import.
NAMES = (
    "signal", "random", "json", "multiprocessing", "threading", "pickle", "numpy", "PIL", "pandas", "tensorflow", "keras",
    "jax", "tqdm", "matplotlib", "preprocess", "trainer", "tfrecords", "sitecustomize", "usercustomize",
)  # fmt: skip


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder whose modules leave a trace when they are imported."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'a').write({name + chr(10)!r})\n")
    return folder


def _run(trap: Path, program: str, *arguments: object) -> None:
    """Run a program from the trap, as its console script does."""
    script = f"import sys; sys.argv[0] = {program!r}; from {program}.cli import main; main()"
    command = [sys.executable, "-P", "-c", script, *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(command, cwd=trap, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trace = trap.parent / "trace"
    assert not trace.exists(), f"{program} imported {trace.read_text().split()}"


def test_the_trap_catches_a_child_that_is_not_protected(trap: Path) -> None:
    subprocess.run([sys.executable, "-c", "import random"], cwd=trap, check=False)
    assert (trap.parent / "trace").read_text().split() == ["random"]


@pytest.mark.slow
def test_workers_of_the_demo_a_build_and_verify_import_nothing_from_the_current_folder(trap: Path) -> None:
    _run(trap, "preprocess", "demo", "--out=demo", "--galaxies=20", "--workers=2")
    _run(trap, "preprocess", "--src=demo", "--out=data", "--size=16", "--workers=2")
    _run(trap, "preprocess", "verify", "--tfrecords=data", "--src=demo", "--workers=2")


@pytest.mark.slow
def test_an_export_imports_nothing_from_the_current_folder(trap: Path, tiny_run: Run) -> None:
    _run(trap, "trainer", "export", f"--run={tiny_run.folder}", "--format=savedmodel", "--out=saved")
    assert (trap / "saved" / "saved_model.pb").is_file()


def test_the_environment_is_as_before_once_children_have_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in (None, "", "1"):
        if before is None:
            monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        else:
            monkeypatch.setenv("PYTHONSAFEPATH", before)
        with safe_children():
            assert os.environ["PYTHONSAFEPATH"] == "1"
        assert os.environ.get("PYTHONSAFEPATH") == before


def test_a_module_of_ours_is_that_of_this_checkout_whatever_is_installed(trap: Path) -> None:
    _, environment = of_module("tfrecords.text")
    code = "import tfrecords; print(tfrecords.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=trap, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == Path(tfrecords.__file__)
