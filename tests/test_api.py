"""The functions behind the commands, imported from `preprocess` and `trainer`: lazy, documented, with examples that run."""

import ast
import doctest
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import preprocess
import tfrecords
import trainer
from preprocess.cli import COMMANDS as PREPROCESS_COMMANDS
from trainer.cli import COMMANDS as TRAINER_COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGES = (preprocess, trainer, tfrecords)
PUBLIC = {f"{package.__name__}.{name}": getattr(package, name) for package in PACKAGES for name in package.__all__}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}
# Which function each command calls. `predict` has two, for a split and for images.
BEHIND = {
    "preprocess build": "build_dataset",
    "preprocess verify": "verify_dataset",
    "preprocess demo": "make_demo",
    "preprocess trees": "find_tree",
    "trainer train": "train_model",
    "trainer evaluate": "evaluate_run",
    "trainer compare": "compare_runs",
    "trainer explore": "explore_dataset",
    "trainer predict": "tabulate_split",
    "trainer embed": "embed_galaxies",
    "trainer similar": "find_similar",
    "trainer export": "export_model",
    "trainer benchmark": "measure_speed",
}


def test_each_command_has_its_function() -> None:
    commands = {f"preprocess {name}" for name in PREPROCESS_COMMANDS} | {f"trainer {name}" for name in TRAINER_COMMANDS}
    assert BEHIND.keys() == commands
    for command, function in BEHIND.items():
        program = command.split()[0]
        assert {f"{program}.{function}", f"tfrecords.{function}"} & FUNCTIONS.keys()
        calls = {
            node.func.id
            for path in (ROOT / program).glob("cli*.py")
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert function in calls, f"the command line of {program} does not call {function}"


def test_importing_the_packages_loads_nothing_of_them_nor_any_large_library() -> None:
    script = (
        "import sys; import preprocess, trainer, tfrecords\n"
        "print(*(name for name in sys.modules if name.split('.')[0] in sys.argv and name not in sys.argv[:3]))"
    )
    large = ("preprocess", "trainer", "tfrecords", "numpy", "pandas", "tensorflow", "keras", "jax", "matplotlib", "astropy")
    command = [sys.executable, "-c", f"import sys; sys.argv.pop(0); exec({script!r})", *large]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split() == []


def test_a_name_that_is_no_part_of_the_api_is_an_attribute_error() -> None:
    for package in PACKAGES:
        with pytest.raises(AttributeError, match="nonsense"):
            package.nonsense  # noqa: B018


def _sections(function: Any) -> dict[str, str]:
    """The sections of a numpydoc docstring by title; what comes before the first is under ''."""
    text = inspect.getdoc(function) or ""
    title, sections = "", {"": ""}
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line and following == "-" * len(line):
            title = line
            sections[title] = ""
        elif line != "-" * len(title) or not title:
            sections[title] += f"{line}\n"
    return sections


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_is_documented_in_numpydoc_form(name: str) -> None:
    function = FUNCTIONS[name]
    signature, sections = inspect.signature(function), _sections(function)
    first = sections[""].splitlines()[0]
    assert first.endswith(".") and len(first) < 128
    described = re.findall(r"^(\w+) : .+\n    \S", sections["Parameters"], re.MULTILINE)
    assert described == list(signature.parameters)
    assert ("Returns" in sections) == (signature.return_annotation not in (None, "None"))
    assert list(sections) == [title for title in ("", "Parameters", "Returns", "Raises", "Examples") if title in sections]
    raised = re.findall(r"^(\w+)$", sections.get("Raises", ""), re.MULTILINE)
    assert raised or name == "trainer.write_csv"
    errors = __import__("tfrecords.errors", fromlist=["errors"])
    assert all(hasattr(errors, error) for error in raised)
    assert ">>> " in sections["Examples"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A current folder with what the examples name: demo/ (60 galaxies), data/demo (32 x 32) and runs/demo (one epoch)."""
    from preprocess import BuildSettings, CropSettings, build_dataset, make_demo
    from trainer import TrainConfig, train_model

    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_demo("demo", galaxies=60)
        build_dataset("demo", "data/demo", BuildSettings(CropSettings(size=32)))
        train_model(TrainConfig("data/demo", "runs/demo", weights="none", epochs=1))
        shutil.copytree("runs/demo", "runs/other")
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_examples_of_a_public_function_run(name: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [example] = doctest.DocTestFinder(recurse=False).find(FUNCTIONS[name], name, globs={})
    assert example.examples
    report: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert outcome.failed == 0, "".join(report)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: preprocess.CropSettings(crop_fraction=0), "--crop_fraction 0: must be above 0 and at most 1"),
        (lambda: preprocess.CropSettings(size=0), "--size 0: must be from 1 to 10,000"),
        (lambda: preprocess.CropSettings(encoding="jpg"), "--encoding jpg: must be one of jpeg, png, raw"),
        (lambda: preprocess.CropSettings(jpeg_quality=101), "--jpeg_quality 101: must be from 1 to 100"),
        (lambda: preprocess.PlanSettings(validation_fraction=-0.5), "--validation_fraction -0.5: must be from 0 to 1"),
        (lambda: preprocess.PlanSettings(test_fraction=2), "--test_fraction 2: must be from 0 to 1"),
        (lambda: preprocess.PlanSettings(examples_per_shard=0), "--examples_per_shard 0: must be at least 1"),
        (lambda: preprocess.PlanSettings(limit=-1), "--limit -1: must be at least 0 (all)"),
        (lambda: preprocess.BadImages(max_fraction=7), "--max_bad_fraction 7: must be from 0 to 1"),
        (lambda: preprocess.build_dataset("source", "out", workers=0), "--workers 0: must be at least 1"),
        (lambda: preprocess.verify_dataset("data", workers=0), "--workers 0: must be at least 1"),
        (lambda: preprocess.make_demo("demo", workers=0), "--workers 0: must be at least 1"),
    ],
)
def test_settings_from_python_are_checked_as_those_of_the_command_line_are(make: Callable[[], object], message: str) -> None:
    with pytest.raises(tfrecords.SettingError) as caught:
        make()
    assert str(caught.value) == message
