"""What the documents tell a user to type is what the commands accept, and --help leads with what to do."""

import re
import shlex
from argparse import SUPPRESS
from pathlib import Path
from typing import Any

import pytest

from preprocess import cli as preprocess_cli
from tfrecords.commandline import Command, _parser
from trainer import cli as trainer_cli
from trainer.config import GROUPS, SETTINGS

ROOT = Path(__file__).parents[1]
PROGRAMS: dict[str, tuple[dict[str, Command], str]] = {
    "preprocess": (preprocess_cli.COMMANDS, "build"),
    "trainer": (trainer_cli.COMMANDS, "train"),
}


def _typed() -> list[str]:
    """The commands of both programs in the shell blocks of the documents, and those that --help gives as examples."""
    lines = [command.example for commands, _ in PROGRAMS.values() for command in commands.values()]
    for name in ("README.md", "BUILD.md", "benchmarks/README.md"):
        for block in re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text("utf-8"), re.DOTALL):
            lines += [line.strip() for line in block.replace("\\\n", " ").splitlines()]
    pattern = re.compile(r"(?:[A-Z_]+=\S+ )?(?:srun )?(?:\.venv/bin/)?((?:preprocess|trainer) .*)")
    return [match[1].split(" && ")[0] for line in lines if (match := pattern.fullmatch(line))]


def _parse(words: list[str]) -> Any:
    program, *rest = words
    commands, name = PROGRAMS[program]
    if not rest[0].startswith("-"):
        name, *rest = rest
    return _parser(program, name, commands, PROGRAMS[program][1]).parse_args(rest)


@pytest.mark.parametrize("line", _typed())
def test_a_command_that_the_documents_show_is_accepted(line: str) -> None:
    _parse(shlex.split(line, comments=True))


def test_the_documents_show_every_command() -> None:
    shown = {" ".join(word for word in line.split()[:2] if not word.startswith("-")) for line in _typed()}
    for program, (commands, default) in PROGRAMS.items():
        assert {program if name == default else f"{program} {name}" for name in commands} <= shown


def _help(program: str, name: str) -> str:
    commands, default = PROGRAMS[program]
    text: str = _parser(program, name, commands, default).format_help()
    return text


@pytest.mark.parametrize(("program", "name"), [(program, name) for program in PROGRAMS for name in PROGRAMS[program][0]])
def test_help_leads_with_what_the_command_does_and_an_example(program: str, name: str) -> None:
    commands, default = PROGRAMS[program]
    text = _help(program, name)
    places = [text.index("usage: "), text.index(commands[name].summary)]
    if name == default:
        places += [text.index(f"  {program} {other} ") for other in commands if other != default]
    places += [text.index(f"example:\n  {commands[name].example}\n"), text.index("\ndata:\n")]
    assert places == sorted(places)


def test_the_settings_of_a_run_stand_in_their_groups() -> None:
    text = _help("trainer", "train")
    assert [title for title in re.findall(r"^([a-z ]+):$", text, re.MULTILINE) if title in GROUPS] == list(GROUPS)
    for title, block in zip(GROUPS, re.split(rf"^(?:{'|'.join(GROUPS)}):$", text, flags=re.MULTILINE)[1:], strict=True):
        flags = set(re.findall(r"^  --(\w+)", block, re.MULTILINE)) - {"overwrite", "recipe"}
        assert flags == {name for name, setting in SETTINGS.items() if setting.group == title}


@pytest.mark.parametrize(("program", "name"), [(program, name) for program in PROGRAMS for name in PROGRAMS[program][0]])
def test_each_flag_is_described_with_its_default_or_is_required_or_a_switch(program: str, name: str) -> None:
    commands, default = PROGRAMS[program]
    for action in _parser(program, name, commands, default)._actions:
        if action.dest in ("help", "helpfull", "version") or action.help == SUPPRESS:  # argparse's and absl's own
            continue
        text = action.help or ""
        assert len(text) > 15 and text[0] == text[0].lower() and not text.endswith("."), action.dest
        assert ("(required)" in text) == action.required, action.dest
        optional = action.nargs != 0 and not action.required
        alternatives = {"tfrecords", "images", "json", "src", "where"}  # one of two, or something more
        assert ("(default: " in text) == (optional and action.dest not in alternatives), action.dest
