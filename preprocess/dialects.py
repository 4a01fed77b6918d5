"""Read a CSV file in whatever dialect it comes.

Its encoding (UTF-8, UTF-16, with or without a byte order mark), its separator (comma, semicolon, tab, vertical bar, spaces)
and, unless that is a comma, its decimal sign follow from its bytes.
"""

import codecs
import csv
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np

from preprocess.tablefile import BLANK, HEAD, Opener, TableFile, blocks_of, floats, head_of, without_blank_rows
from tfrecords.errors import SourceError, lacks_memory, squeezed

_SPACES = r"\s+"
_SEPARATORS = (",", ";", "\t", "|", _SPACES)
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\0\0", "utf-32-le"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
# A cell that holds a number with a decimal sign.
_DECIMAL = re.compile(r'(?:^|[;\t |"])[+-]?\d*([.,])\d+(?:[eE][+-]?\d+)?(?=["; \t|\r\n]|$)', re.MULTILINE)
# Excel's own first line, which names the separator.
_SPREADSHEETS_LINE = re.compile(r'"?sep=.{0,1}"?(?:\r\n|\r|\n)')
_NO_TEXT = "is neither UTF-8 nor UTF-16 text: save it as CSV in UTF-8"
_ALL = 2**31 - 1
_LONGEST_MARK = 16  # characters of the line that names the separator, at most
# Characters: ten thousand columns of a thousand each. A longer line would be in memory several times.
_LONGEST_LINE = 10_000_000


def _encoding(content: bytes) -> tuple[str, int]:
    """The encoding of a text, and the length of its byte order mark."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return encoding, len(mark)
    if len(content) > 1 and 0 in content[:2]:
        return ("utf-16-be" if content[0] == 0 else "utf-16-le"), 0
    return "utf-8", 0


def _first_line(text: str, separator: str) -> list[str]:
    """The first line of a CSV file as cells, without the spaces around them and the comment sign before them."""
    lines = io.StringIO(text, newline=None)
    try:
        cells = lines.readline().split() if separator == _SPACES else next(csv.reader(lines, delimiter=separator), [])
    except csv.Error:
        return []
    cells = [cell.strip() for cell in cells]
    return [cells[0].lstrip("#").strip(), *cells[1:]] if cells else []


def _separator(text: str) -> str:
    """The separator that gives the first line most cells; spaces only if no other one is there."""
    cells = {separator: len(_first_line(text[:HEAD], separator)) for separator in _SEPARATORS}
    best = max(_SEPARATORS[:-1], key=lambda separator: cells[separator])
    return best if cells[best] > 1 else max(best, _SPACES, key=lambda separator: cells[separator])


def _first_row(text: str) -> tuple[str, str, list[str]]:
    """The text without Excel's own first line, its separator, and the names of its columns."""
    if line := _SPREADSHEETS_LINE.match(text):
        text = text[line.end() :]
    separator = _separator(text)
    return text, separator, _first_line(text[:HEAD], separator)


def header_of(content: bytes) -> list[str]:
    """The names of the columns of a table, from its first bytes; none if it is not text. Nothing is checked."""
    head = head_of(content)
    encoding, mark = _encoding(head)
    return _first_row(head[mark:].decode(encoding, "replace"))[2]


@dataclass(frozen=True)
class _Csv(TableFile):
    """A CSV file whose dialect is known. `opener`: opens its bytes."""

    opener: Opener
    encoding: str
    mark: int
    separator: str
    decimal: str

    @contextmanager
    def _body(self) -> Iterator[TextIO]:
        """The text below the header."""
        with self.opener() as raw:
            raw.read(self.mark)
            text = io.TextIOWrapper(raw, self.encoding, newline="")
            if _SPREADSHEETS_LINE.match(first := text.readline()):
                first = text.readline()
            while first.count('"') % 2 and (more := text.readline()):  # a quoted name may hold a line break
                first += more
            yield text

    def frames(self, texts: Sequence[str], numbers: Sequence[str], rows: int | None = None) -> Iterator[Any]:
        import pandas as pd

        place = {name: number for number, name in reversed([*enumerate(self.header)])}
        written, values = [place[name] for name in texts], [place[name] for name in numbers]
        beyond = len(self.header)
        # A first row with one cell more than the header, so that longer rows can be noticed; it is dropped again.
        between = " " if self.separator == _SPACES else self.separator
        first = between.join(["nan"] * (beyond + 1)) + "\n"
        start = 0
        words = _Words(self)
        try:
            with self._body() as body:
                for part in pd.read_csv(
                    _After(first, body), sep=self.separator, decimal=self.decimal, header=None, names=range(beyond + 1),
                    usecols=sorted({*written, *values, beyond}), skip_blank_lines=False, low_memory=False,
                    dtype={column: str for column in (*written, beyond)}, keep_default_na=False,
                    na_values={column: [*BLANK] for column in values}, float_precision="round_trip", chunksize=rows or _ALL,
                ):  # fmt: skip
                    frame = part[1:] if start == 0 else part
                    row = max(start, 1)
                    self._refuse_longer(frame[beyond], row)
                    columns = {name: frame[column].str.strip() for name, column in zip(texts, written, strict=True)}
                    for name, column in zip(numbers, values, strict=True):
                        columns[name] = floats(self.path, name, frame[column], row, self.decimal)
                        words.look(name, frame[column])
                    index = pd.RangeIndex(row, row + len(frame))
                    yield without_blank_rows(pd.DataFrame(columns).set_axis(index))
                    start += len(part)
        except (ValueError, UnicodeError, OSError, EOFError, zlib.error) as error:
            if lacks_memory(error):  # pandas reports it as an error in the table
                raise MemoryError(self.path) from error
            if isinstance(error, UnicodeError):
                raise SourceError(f"{self.path}: {_NO_TEXT}") from error
            raise SourceError(f"{self.path}: not a readable table ({squeezed(error)}): check it") from error

    def _refuse_longer(self, beyond: Any, first: int) -> None:
        longer = beyond.str.strip().astype(bool)
        if longer.any():
            raise SourceError(
                f"{self.path}: row {first + int(np.argmax(longer))} below the header has more values than the header has "
                "columns: check the separators"
            )


class _Words:
    """Columns of True and False, which pandas reads as 1 and 0 unless the column holds numbers too: judged over all parts."""

    def __init__(self, table: _Csv) -> None:
        self._table = table
        self._kinds: dict[str, bool] = {}

    def look(self, name: str, column: Any) -> None:
        """Take note of a part, a pandas Series. Raises SourceError for words among the numbers of other parts."""
        if column.isna().all():
            return
        kind = column.dtype.kind == "b" or (column.dtype == object and any(isinstance(value, bool) for value in column))
        if self._kinds.setdefault(name, kind) != kind:
            self._table.frame([], [name])


class _After:
    """A text stream that begins with another text."""

    def __init__(self, first: str, stream: TextIO) -> None:
        self._first, self._stream = first, stream

    def read(self, size: int = -1) -> str:
        """The next characters."""
        first, self._first = self._first, ""
        return first or self._stream.read(size)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)


def _signs(texts: Iterable[str]) -> Counter[str]:
    """How often each decimal sign is in the numbers of a text, which comes in parts."""
    signs: Counter[str] = Counter()
    rest = ""
    for text in texts:
        whole = rest + text
        cut = max(0, *(whole.rfind(mark) for mark in ';\t |"'))  # between two cells
        signs.update(_DECIMAL.findall(whole[:cut]))
        rest = whole[cut:]
    signs.update(_DECIMAL.findall(rest))
    return signs


def csv_table(path: str, opener: Opener, sha256: str, head: bytes | None = None) -> TableFile:
    """A CSV file. Its dialect follows from all of its text; from its start alone, if that is given as `head`."""

    def blocks() -> Iterator[bytes]:
        return blocks_of(opener) if head is None else iter([head])

    encoding, mark = _encoding(next(blocks(), b""))

    def texts() -> Iterator[str]:
        decoder = codecs.getincrementaldecoder(encoding)()
        ahead = mark
        for block in blocks():
            yield decoder.decode(block[ahead:])
            ahead = 0
        if head is None:
            yield decoder.decode(b"", final=True)

    start, zero, line = "", False, 0
    try:
        for text in texts():
            end = max(text.rfind("\n"), text.rfind("\r"))
            line = len(text) - end - 1 if end >= 0 else line + len(text)
            if line > _LONGEST_LINE:
                raise SourceError(f"{path}: has a line of more than {_LONGEST_LINE:,} characters: check how its lines end")
            zero |= "\0" in text
            if len(start) <= HEAD + _LONGEST_MARK:
                start += text
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: {_NO_TEXT}") from error
    if zero:
        raise SourceError(f"{path}: not a readable table (it holds zero bytes): check it")
    _, separator, header = _first_row(start)
    signs = _signs(texts()) if separator != "," else Counter()
    decimal = "," if signs[","] > signs["."] else "."
    return _Csv(path, tuple(header), sha256, opener, encoding, mark, separator, decimal)
