"""The dialects in which people write CSV files."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written."""

    separator: str = ","
    decimal: str = "."
    end: str = "\n"
    encoding: str = "utf-8"
    first: str = ""
    quote: bool = False
    last_end: bool = True

    def written(self, header: list[str], rows: list[list[str]], numbers: tuple[int, ...] = (1, 2)) -> bytes:
        """A table as text. numbers: the places of the columns that get this decimal sign."""

        def cell(place: int, text: str) -> str:
            text = text.replace(".", self.decimal) if place in numbers else text
            return f'"{text}"' if self.quote or (text and self.separator in text) else text

        lines = [self.separator.join(header)]
        lines += [self.separator.join(cell(place, text) for place, text in enumerate(row)) for row in rows]
        return (self.first + self.end.join(lines) + self.end * self.last_end).encode(self.encoding)


DIALECTS = {
    "plain": Dialect(),
    "semicolons": Dialect(";"),
    "semicolons and decimal commas": Dialect(";", ","),
    "tabs": Dialect("\t"),
    "tabs and decimal commas": Dialect("\t", ","),
    "vertical bars": Dialect("|"),
    "quoted": Dialect(quote=True),
    "quoted, semicolons and decimal commas": Dialect(";", ",", quote=True),
    "Windows": Dialect(end="\r\n"),
    "old Macintosh": Dialect(end="\r"),
    "no end of the last line": Dialect(last_end=False),
    "UTF-8 with a mark": Dialect(encoding="utf-8-sig"),
    "UTF-16": Dialect(encoding="utf-16"),
    "UTF-16, little-endian without a mark": Dialect(encoding="utf-16-le"),
    "UTF-16, big-endian without a mark": Dialect(encoding="utf-16-be"),
    "UTF-16, big-endian with a mark": Dialect(first="\ufeff", encoding="utf-16-be"),
    "UTF-32": Dialect(encoding="utf-32"),
    "Excel in Germany": Dialect(";", ",", "\r\n", "utf-8-sig"),
    "Excel's Unicode text": Dialect("\t", ".", "\r\n", "utf-16"),
    "Excel's first line": Dialect(";", ",", "\r\n", first="sep=;\r\n"),
    "Excel's first line in quotes": Dialect(";", first='"sep=;"\n'),
    "Excel's first line, a tab": Dialect("\t", first="sep=\t\n"),
    "a comment sign": Dialect(first="# "),
    "a comment sign and tabs": Dialect("\t", first="#"),
}  # fmt: skip
