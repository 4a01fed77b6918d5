"""The GPU check runs on any machine: its modules import without GPU, PyTorch or network; small steps run on a CPU."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.children import REPOSITORY
from benchmarks.gpu.__main__ import NAMES, STEPS
from benchmarks.gpu.settings import Settings, load
from benchmarks.gpu.summary import summary

MODULES = sorted(path.stem for path in (REPOSITORY / "benchmarks" / "gpu").glob("*.py"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "out", "", "", "none", 2, True)


def _check(settings: Settings, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--small", "--epochs", "2", "--out", str(settings.out), *flags]
    cpu = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=1"}
    return subprocess.run(command, cwd=REPOSITORY, env=cpu, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", MODULES)
def test_each_module_imports_without_gpu_and_torch(name: str) -> None:
    importlib.import_module(f"benchmarks.gpu.{name}")


def test_each_step_is_a_module_that_measures_and_has_a_row_in_the_readme() -> None:
    text = (REPOSITORY / "benchmarks" / "gpu" / "README.md").read_text()
    for step in STEPS:
        assert callable(importlib.import_module(f"benchmarks.gpu.{step.module}").measure)
        assert f"| `{step.name}` |" in text
        assert not step.needs or NAMES.index(step.needs) < NAMES.index(step.name)


@pytest.mark.slow
def test_a_small_step_runs_on_a_cpu_and_is_not_repeated(settings: Settings) -> None:
    done = _check(settings, "--only", "parts", "predict")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = settings.results()
    parts = {line["part"]: line["milliseconds"] for line in lines if "part" in line}
    assert list(parts) == ["augmentation", "forwards", "forwards and backwards", "whole step"]
    assert all(value > 0 for value in parts.values())
    assert [line["status"] for line in lines if line["step"] == "parts"] == ["measured"] * 4 + ["done"]
    [skipped] = [line for line in lines if line["step"] == "predict"]
    assert skipped["status"] == "skipped" and "train-best" in skipped["reason"]
    assert "whole step" in (settings.out / "summary.txt").read_text()

    again = _check(settings, "--only", "parts")
    assert again.returncode == 0 and settings.results() == lines


def test_a_folder_keeps_results_of_one_kind_of_check(settings: Settings) -> None:
    settings.save()
    assert load(settings.out) == settings
    done = _check(settings, "--epochs", "3")
    assert done.returncode == 1 and "holds a check with other settings" in done.stderr


def test_a_result_that_a_kill_cut_short_spoils_no_other(settings: Settings) -> None:
    settings.save()
    settings.record("parts", milliseconds=1.0)
    with (settings.out / "results.jsonl").open("a") as file:
        file.write('{"step": "parts", "sta')
    settings.save()
    settings.record("parts", "done")
    assert [line["status"] for line in settings.results()] == ["measured", "done"]


def test_the_summary_holds_our_step_beside_that_of_pytorch() -> None:
    figures = dict.fromkeys(("pipeline", "together", "lost", "tflops", "matrix_tflops", "utilization"), 1.0)
    ours = {**figures, "devices": "GPU; jax, precision mixed_bfloat16", "batch_size": 64, "step": 1500.0}
    theirs = {"batch_size": 64, "precision": "bfloat16", "compiled": False, "images_per_second": 1000.0}
    lines = [{"step": "benchmark", "status": "measured", "figures": ours}, {"step": "torch", "status": "measured", **theirs}]
    assert summary(json.loads(json.dumps(lines))).endswith(
        "step, batch size 64: 1,500 images/s, PyTorch eager 1,000: ratio 1.50"
    )
