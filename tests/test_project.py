"""The files that describe the project agree with each other, and with the code."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tfrecords import __version__

ROOT = Path(__file__).parents[1]
SETUP = (ROOT / "setup.py").read_text("utf-8")
SUPPORTED = re.findall(r"Programming Language :: Python :: (3\.\d+)", SETUP)


def _yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def test_the_version_is_the_same_wherever_it_stands() -> None:
    assert _yaml("CITATION.cff")["version"] == __version__
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_ci_runs_every_supported_python() -> None:
    jobs = _yaml(".github/workflows/ci.yml")["jobs"]
    assert jobs["linux"]["strategy"]["matrix"]["python"] == SUPPORTED
    assert f'python_requires=">={SUPPORTED[0]}"' in SETUP
    steps = {name: [step.get("run") for step in job["steps"]] for name, job in jobs.items()}
    assert ".ci/run" in steps["linux"] and './run_all.sh test -m "not slow"' in steps["macos"]


def test_every_dependency_has_its_reason_in_build_md() -> None:
    names = set(re.findall(r'^ +"([a-z][\w-]*)(?:\[[\w-]+\])?>=', SETUP, re.MULTILINE))
    names |= set(re.findall(r'"([a-z][\w-]*)(?:\[[\w-]+\])?>=', SETUP))
    assert len(names) > 25
    table = (ROOT / "BUILD.md").read_text("utf-8").split("\n## Dependencies\n")[1]
    explained = {name for row in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE) for name in row.split(", ")}
    assert sorted(names - explained) == []


@pytest.mark.parametrize("copied", ["setup.py", "pyproject.toml", "README.md", "LICENSE", "tfrecords", "preprocess", "trainer"])
def test_the_image_holds_what_the_install_needs(copied: str) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert copied in " ".join(re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE)).split()
    assert f"!{copied}" in (ROOT / ".dockerignore").read_text("utf-8").splitlines()


def test_the_hooks_run_what_the_tests_install() -> None:
    [repository] = _yaml(".pre-commit-config.yaml")["repos"]
    programs = {hook["entry"].split()[0] for hook in repository["hooks"]}
    assert programs == {".venv/bin/ruff", ".venv/bin/mypy"}
    assert all(f'"{Path(program).name}>=' in SETUP for program in programs)
