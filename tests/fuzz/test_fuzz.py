"""Some seconds of damaged inputs of each kind."""

from pathlib import Path

import pytest

from tests.fuzz import runner
from tests.fuzz.mutate import mutated
from tests.fuzz.runner import Finding, attack
from tests.fuzz.targets import targets

NAMES = tuple(targets(Path()))
# Besides what each process needs to start.
SECONDS = 0.4
SEED = 1


def test_inputs_depend_on_seed_and_number_alone() -> None:
    originals = [b"abc" * 40, bytes(range(256))]
    first = [mutated(7, number, originals) for number in range(200)]
    assert first == [mutated(7, number, originals) for number in range(200)]
    assert len({*first}) > 150 and first != [mutated(8, number, originals) for number in range(200)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_damaged_input_is_more_than_a_refusal(name: str, tmp_path: Path) -> None:
    *findings, inputs = attack(name, SEED, SECONDS, tmp_path)
    assert not findings, "\n".join(map(str, findings))
    assert isinstance(inputs, int) and inputs > 20


def test_a_finding_names_the_command_that_repeats_it() -> None:
    finding = Finding("csv", 1, 2, "other votes")
    assert str(finding) == "csv: other votes; again: python -m tests.fuzz --again 'csv' 1 2"


@pytest.mark.parametrize(
    ("check", "what"),
    [("raise AssertionError('other votes')", "other votes"), ("import os; os.kill(os.getpid(), 11)", "killed by signal 11")],
)
def test_a_wrong_outcome_and_a_crash_are_found(check: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "runner.py"
    script.write_text(f"""
import sys
from tests.fuzz import runner, targets

def check(data):
    global checked
    checked = globals().get("checked", -1) + 1
    if checked == 3:
        {check}

targets.targets = lambda scratch: {{"csv": lambda: targets.Target([b"abc"], check)}}
name, seed, first, seconds, counter = sys.argv[1:]
runner._child(name, int(seed), int(first), float(seconds), runner.Path(counter))
""")
    monkeypatch.setattr(runner, "PROGRAM", [str(script)])
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    findings = []
    for finding in attack("csv", 1, 0.5, tmp_path):
        findings.append(finding)
        if len(findings) == 2:
            break
    first = findings[0]
    assert isinstance(first, Finding) and first.number == 2 and what in first.what
