"""Both programs run the chosen command; a failure is one line and a matching exit status."""

import os
import signal
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tfrecords.commandline import Command, at_least, fraction, run_program
from tfrecords.errors import ConfigError

Program = Callable[..., tuple[int, str, str]]


def _print_galaxies(args: Any) -> None:
    print(f"{args.galaxies} galaxies")


def _fail(args: Any) -> None:
    raise ConfigError("--out: holds\n  other files")


def _miss(args: Any) -> None:
    Path("/nowhere/100008.jpg").read_bytes()


def _interrupt(args: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _terminate(args: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _count_flags(parser: Any) -> None:
    parser.add_argument("--galaxies", type=at_least(1), default=600)
    parser.add_argument("--test_fraction", type=fraction, default=0.1)


def _no_flags(parser: Any) -> None:
    pass


COMMANDS = {
    "count": Command("Count galaxies.", _count_flags, _print_galaxies, "galaxies --galaxies 12"),
    "fail": Command("Fail.", _no_flags, _fail, "galaxies fail"),
    "miss": Command("Read a missing file.", _no_flags, _miss, "galaxies miss"),
    "interrupt": Command("Press Ctrl-C.", _no_flags, _interrupt, "galaxies interrupt", when_interrupted="count again"),
    "terminate": Command("Send SIGTERM.", _no_flags, _terminate, "galaxies terminate"),
}


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Program:
    """A function that runs the program `galaxies` with arguments and returns its exit status, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["galaxies", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_program("galaxies", COMMANDS, "count")
        output = capfd.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else int(code is not None)), output.out, output.err

    return run


def test_without_a_name_the_default_command_runs(program: Program) -> None:
    assert program() == (0, "600 galaxies\n", "")
    assert program("--galaxies", "7") == (0, "7 galaxies\n", "")
    assert program("--galaxies=7") == program("count", "--galaxies=7") == (0, "7 galaxies\n", "")


def test_a_failure_is_one_line_and_status_1(program: Program) -> None:
    assert program("fail") == (1, "", "error: --out: holds other files\n")
    assert program("miss") == (1, "", "error: /nowhere/100008.jpg: No such file or directory: check the path and try again\n")


@pytest.mark.parametrize(
    ("command", "status", "line"),
    [
        ("interrupt", 130, "interrupted by Ctrl-C: count again"),
        ("terminate", 143, "interrupted by SIGTERM: run the same command again"),
    ],
)
def test_an_interrupted_command_says_how_to_go_on(program: Program, command: str, status: int, line: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    code, out, err = program(command)
    assert (code, out, err.strip()) == (status, "", line)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["cont"], "galaxies: unknown command 'cont': choose from count, fail, miss, interrupt, terminate, or see --help"),
        (["--galaxies=0"], "galaxies: error: argument --galaxies: 0 is not a whole number of at least 1"),
        (["--galaxies=many"], "galaxies: error: argument --galaxies: many is not a whole number of at least 1"),
        (["--test_fraction=1.5"], "galaxies: error: argument --test_fraction: 1.5 is not a number from 0 to 1"),
        (["--galax=7"], "galaxies: error: unrecognized arguments: --galax=7"),
        (["fail", "--galaxies=7"], "galaxies fail: error: unrecognized arguments: --galaxies=7"),
        (["count", "fail"], "galaxies: error: unrecognized arguments: fail"),
    ],
)
def test_bad_usage_is_told_in_the_last_line_and_status_2(program: Program, arguments: list[str], line: str) -> None:
    code, out, err = program(*arguments)
    assert (code, out, err.splitlines()[-1]) == (2, "", line)


@pytest.mark.parametrize("arguments", [[], ["fail"]])
def test_every_command_tells_the_version(program: Program, arguments: list[str]) -> None:
    from tfrecords import __version__

    assert program(*arguments, "--version") == (0, f"galaxy-zoo-vgg16 {__version__}\n", "")


def test_the_help_of_the_default_command_lists_the_others(program: Program) -> None:
    code, out, _ = program("--help")
    assert code == 0
    assert "--galaxies" in out
    assert all(f"galaxies {name} " in out and command.summary in out for name, command in COMMANDS.items() if name != "count")


def test_the_help_of_another_command_is_its_own(program: Program) -> None:
    code, out, _ = program("fail", "--help")
    assert code == 0
    assert out.startswith("usage: galaxies fail")
    assert "--galaxies" not in out


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("1", 1), ("0.25", 0.25), ("1e-3", 0.001)])
def test_a_fraction_is_a_number_from_0_to_1(text: str, value: float) -> None:
    assert fraction(text) == value


@pytest.mark.parametrize("text", ["-0.1", "1.0001", "nan", "inf", "half", ""])
def test_nothing_else_is_a_fraction(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not a number from 0 to 1"):
        fraction(text)


@pytest.mark.parametrize("text", ["9", "1.5", "1e2", "nan", "ten", ""])
def test_a_number_below_the_minimum_or_not_whole_is_refused(text: str) -> None:
    assert at_least(10)("10") == 10
    with pytest.raises(ArgumentTypeError, match="is not a whole number of at least 10"):
        at_least(10)(text)
