"""Where a job writes: a folder of this machine, or one of an object store (`instore`)."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from preprocess import state
from preprocess.shard import Receipt
from tfrecords.objects import Store


class JobPlace(Protocol):
    """What the writing of shards needs of the place. `str` gives its path or URL for messages."""

    @property
    def target(self) -> Path | Store:
        """Where workers write shards."""

    def begun(self) -> dict[str, Any] | None:
        """The record of an interrupted job; None if there is none."""

    def receipts(self, shards: Iterable[str]) -> dict[str, Receipt]:
        """The receipts of these shards that are there and unchanged since they were written, by name."""

    def save_receipt(self, receipt: Receipt) -> None:
        """Record that a shard is complete."""


@dataclass(frozen=True)
class LocalPlace:
    """A folder, and the work folder of its job."""

    target: Path
    work: Path

    def __str__(self) -> str:
        return str(self.target)

    def begun(self) -> dict[str, Any] | None:
        return state.begun(self.work)

    def receipts(self, shards: Iterable[str]) -> dict[str, Receipt]:
        return state.receipts(self.target, self.work, shards)

    def save_receipt(self, receipt: Receipt) -> None:
        state.save_receipt(self.work, receipt)
