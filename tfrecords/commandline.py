"""The command line that both programs share: choice of a command, exit status, errors in one line.

Exit status: 0 success; 1 failure; 2 bad usage; 130 interrupted by Ctrl-C; 143 interrupted by SIGTERM.
"""

import logging
import signal
import sys
from argparse import ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging
from absl.flags import argparse_flags

from tfrecords import __version__
from tfrecords.errors import GalaxyZooError, SettingError, one_line
from tfrecords.interrupts import Terminated
from tfrecords.text import printable


@dataclass(frozen=True)
class Command:
    """One command of a program: a summary in one line, its flags, the function that runs it, and an example.

    `when_interrupted`: the advice printed after Ctrl-C or SIGTERM.
    """

    summary: str
    add_flags: Callable[[Any], None]
    run: Callable[[Any], None]
    example: str
    when_interrupted: str = "run the same command again"


def fraction(text: str) -> float:
    """The value of a flag, from 0 to 1 inclusive."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return value


def between(minimum: int, maximum: int) -> Callable[[str], int]:
    """The type of a flag for whole numbers from `minimum` to `maximum`, inclusive."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if not minimum <= value <= maximum:
            bounds = f"of at least {minimum}" if maximum == sys.maxsize else f"from {minimum} to {maximum}"
            raise ArgumentTypeError(f"{text} is not a whole number {bounds}")
        return value

    return whole_number


def at_least(minimum: int) -> Callable[[str], int]:
    """The type of a flag for whole numbers of at least `minimum`."""
    return between(minimum, sys.maxsize)


def say(text: str) -> None:
    """Print a result. Control characters, which paths may contain, are escaped."""
    print("\n".join(map(printable, text.split("\n"))), flush=True)


class _Lines(logging.Formatter):
    """A log message as one line. Control characters, which file names may contain, are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        record.message = f"{record.levelname}: {printable(record.getMessage())}"
        if not record.exc_info:
            return record.message
        return f"{record.message}\n{self.formatException(record.exc_info)}"


def _parser(program: str, name: str, commands: Mapping[str, Command], default: str) -> Any:
    """The parser of a command. Its help starts with the summary, the other commands (default command only) and an example."""
    command = commands[name]
    others = "\n".join(f"  {program} {other:<10} {commands[other].summary}" for other in commands if other != default)
    listed = f"other commands (each has its own --help):\n{others}\n\n" if name == default and others else ""
    prog = program if name == default else f"{program} {name}"
    parser = argparse_flags.ArgumentParser(
        prog=prog,
        usage=f"{prog} {'[COMMAND] ' if listed else ''}FLAGS",
        description=f"{command.summary}\n\n{listed}example:\n  {command.example}",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"galaxy-zoo-vgg16 {__version__}")
    command.add_flags(parser)
    return parser


def _on_sigterm(signum: int, frame: object) -> NoReturn:
    raise Terminated


def _run(command: Command, args: Any) -> int:
    """Run a command, and turn an exception into an exit status and one line on stderr."""
    handler = absl_logging.get_absl_handler()
    handler.setFormatter(_Lines())
    previous = signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        command.run(args)
        return 0
    except KeyboardInterrupt:
        print(f"\ninterrupted by Ctrl-C: {command.when_interrupted}", file=sys.stderr)
        return 130
    except Terminated:
        print(f"\ninterrupted by SIGTERM: {command.when_interrupted}", file=sys.stderr)
        return 143
    except (GalaxyZooError, OSError, MemoryError) as error:
        if flags.FLAGS.verbosity >= 1:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, SettingError) else 1
    finally:
        signal.signal(signal.SIGTERM, previous)


def run_program(program: str, commands: Mapping[str, Command], default: str) -> NoReturn:
    """Run the command named by the first argument, or else the default one, and exit with its status."""

    def choose(argv: list[str]) -> tuple[Command, Any]:
        name, rest = default, argv[1:]
        if rest and not rest[0].startswith("-"):
            name, rest = rest[0], rest[1:]
        if name not in commands:
            print(f"{program}: unknown command '{name}': choose from {', '.join(commands)}, or see --help", file=sys.stderr)
            sys.exit(2)
        parser = _parser(program, name, commands, default)
        try:
            args = parser.parse_args(rest)
        except flags.Error as error:  # for absl's own flags; for the others argparse exits itself
            parser.error(str(error))
        except GalaxyZooError as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            sys.exit(1)
        return commands[name], args

    app.run(lambda chosen: _run(*chosen), flags_parser=choose)
    raise AssertionError("app.run does not return")
