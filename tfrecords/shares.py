"""One of several equal shares of a job, as `--part I/N` names it."""

import argparse
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")
_TEXT = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


class JobShare(NamedTuple):
    """JobShare `number` of `total`, counted from 1."""

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def spread(self, items: Sequence[T]) -> list[T]:
        """Its items: every `total`-th."""
        return [*items[self.number - 1 :: self.total]]

    def span(self, length: int) -> range:
        """Its places among `length`: consecutive ones, of which no share has two more than another."""
        return range(length * (self.number - 1) // self.total, length * self.number // self.total)


def share_of(text: str) -> JobShare:
    """Parse a share such as 3/100. Raises argparse.ArgumentTypeError for anything else."""
    match = _TEXT.fullmatch(text)
    share = JobShare(int(match[1]), int(match[2])) if match else JobShare(0, 0)
    if not 1 <= share.number <= share.total:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: give, for the third of a hundred, 3/100")
    return share
