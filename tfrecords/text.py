"""Text from outside (file names, messages of other programs), made safe to show in a terminal, a table or Markdown."""

import html
import re
import shlex
from pathlib import Path

# A spreadsheet evaluates a cell that begins with one of these (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@")
_ESCAPE = re.compile(r"\\(?:\\|[nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_BACKTICKS = re.compile(r"`+")


def printable(text: str) -> str:
    """`text` with every control character, line break and invisible mark written as a Python escape, like \\r or \\x1b.

    Letters of any script are unchanged.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii") for character in text
    )


def shell_word(path: Path | str) -> str:
    """A path as one word of a command to be copied into a shell: quoted if necessary, and never mistaken for a flag."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def cell(text: str) -> str:
    """`text` as a cell of a CSV table; `from_cell` restores it.

    Control characters and backslashes are written as Python escapes. An apostrophe is put before a text that a spreadsheet
    would evaluate, and before one that begins with an apostrophe.
    """
    shown = printable(text.replace("\\", "\\\\"))
    return f"'{shown}" if shown.startswith((*_FORMULA, "'")) else shown


def from_cell(text: str) -> str:
    """The text that `cell` was given."""
    shown = text[1:] if text.startswith("'") else text
    return _ESCAPE.sub(lambda match: match[0].encode("ascii").decode("unicode_escape"), shown)


def markdown_code(text: str) -> str:
    """`text` as inline code in Markdown, also within a table: nothing in it acts as markup."""
    shown = printable(text).replace("|", "\\|")
    fence = "`" * (max(map(len, _BACKTICKS.findall(shown)), default=0) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def markdown(text: str) -> str:
    """`text` as plain text in Markdown, also within a table: HTML and markup in it are shown literally."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(printable(text), quote=False))
