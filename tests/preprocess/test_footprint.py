"""A job needs only a few light libraries and little memory in each of its processes."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
HEAVY = ("tensorflow", "tensorflow_datasets", "keras", "jax", "torch", "pandas", "matplotlib", "h5py")
# A job whose worker lists the modules that it has imported after writing a shard.
SPY = """
import sys
from pathlib import Path
from preprocess import plan, surveys
from preprocess.engines import run_local
from preprocess.shard import ShardTask, write_shard
from tfrecords.images import CropSettings

def spy(task, on_image):
    assert write_shard(task, on_image).shard.examples == 24
    return sorted(sys.modules)

if __name__ == "__main__":
    out = Path(sys.argv[2])
    survey = surveys.survey_of(Path(sys.argv[1]), out)
    (shard,) = plan.make(survey.galaxies, plan.PlanSettings(0, 0, 0, 100, 24))
    part, crop = survey.part(shard.rows), CropSettings(0.5, 32, "jpeg", 95)
    task = ShardTask(shard.name, shard.split, part.images, part.targets, part.asked, survey.tree, out, out, crop, True)
    (modules,) = run_local(spy, iter([task]), 1, lambda images: None)
    print("\\n".join(modules))
"""


def _imported(code: str) -> set[str]:
    """The modules that Python has imported after this code."""
    code += "\nimport sys; print('IMPORTED', *sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(ended.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "code",
    [
        "import preprocess, preprocess.cli, preprocess.job, preprocess.verify, preprocess.engines",
        "import sys, runpy\nsys.argv = ['preprocess', '--help']\n"
        "try: runpy.run_module('preprocess', run_name='__main__')\nexcept SystemExit: pass",
        "import sys, runpy\nsys.argv = ['preprocess', 'verify', '--help']\n"
        "try: runpy.run_module('preprocess', run_name='__main__')\nexcept SystemExit: pass",
    ],
    ids=["import", "--help", "verify --help"],
)
def test_neither_import_nor_help_loads_a_heavy_library(code: str) -> None:
    imported = _imported(code)
    assert "preprocess.cli" in imported
    assert imported.isdisjoint(HEAVY)


@pytest.mark.slow
def test_a_worker_loads_no_heavy_library(survey: Path, tmp_path: Path) -> None:
    (tmp_path / "spy.py").write_text(SPY)
    (tmp_path / "out").mkdir()
    arguments = [sys.executable, str(tmp_path / "spy.py"), str(survey), str(tmp_path / "out")]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60)
    modules = set(ended.stdout.split())
    assert {"preprocess.shard", "numpy", "PIL.Image"} <= modules
    assert modules.isdisjoint(HEAVY)


@pytest.mark.slow
def test_a_job_and_its_check_import_neither_tensorflow_nor_matplotlib(run: Run, survey: Path, tmp_path: Path) -> None:
    # Modules that cannot be imported hide the real ones: a process that tried to import one would fail the job.
    for name in ("tensorflow", "tensorflow_datasets", "keras", "matplotlib"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    built = run("--src", survey, "--out", "data", "--size=32", "--workers=2", "--examples_per_shard=4")
    assert (built.returncode, "imported" in built.stderr) == (0, False)
    verified = run("verify", "--tfrecords", "data", "--src", survey, "--workers=2")
    assert (verified.returncode, "imported" in verified.stderr) == (0, False)


def _megabytes(pid: int) -> float:
    """The memory that a process holds, including its part of what it shares with others; 0 if it has gone.

    Shared pages count once in all: a child that was forked and runs no program of its own yet has the pages of its parent.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("Pss:")), 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_on_real_galaxies_takes_150_mb_and_120_more_for_each_worker(
    kaggle: Path, command: list[str], children: Callable[[int], list[int]], tmp_path: Path, workers: int
) -> None:
    job = [*command, f"--src={kaggle}", f"--out={tmp_path}/out", f"--workers={workers}"]
    process = subprocess.Popen(job, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most, processes = 0.0, 0
    while process.poll() is None:
        pids = [process.pid, *children(process.pid)]
        most, processes = max(most, sum(map(_megabytes, pids))), max(processes, len(pids))
        time.sleep(0.02)
    assert process.returncode == 0
    assert processes == workers + 2  # Python's resource tracker too
    assert 50 < most < 150 + 120 * workers
