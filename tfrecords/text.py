"""Text from outside (file names, messages of other programs) made safe to show: on a terminal, in a table, in Markdown."""

import html
import re

# A spreadsheet evaluates a cell that begins with one of these (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@")
_ESCAPE = re.compile(r"\\(?:\\|[nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_BACKTICKS = re.compile(r"`+")


def printable(text: str) -> str:
    """`text` with every control character, line break and invisible mark written as a Python escape, like \\r or \\x1b.

    Letters of any script stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii") for character in text
    )


def cell(text: str) -> str:
    """`text` as a cell of a CSV table, from which `from_cell` makes it again.

    Control characters and backslashes are written as Python escapes; an apostrophe stands before what a spreadsheet would
    evaluate, and before an apostrophe.
    """
    shown = printable(text.replace("\\", "\\\\"))
    return f"'{shown}" if shown.startswith((*_FORMULA, "'")) else shown


def from_cell(text: str) -> str:
    """What `cell` was given."""
    shown = text[1:] if text.startswith("'") else text
    return _ESCAPE.sub(lambda match: match[0].encode("ascii").decode("unicode_escape"), shown)


def markdown_code(text: str) -> str:
    """`text` as inline code in Markdown, also in a cell of a table: nothing in it is taken as markup."""
    shown = printable(text).replace("|", "\\|")
    fence = "`" * (max(map(len, _BACKTICKS.findall(shown)), default=0) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def markdown(text: str) -> str:
    """`text` as plain words in Markdown, also in a cell of a table: HTML and markup in it are shown as they are."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(printable(text), quote=False))
