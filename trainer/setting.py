"""What describes a setting of a run: its help, unit and legal values."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from tfrecords.errors import SettingError


@dataclass(frozen=True)
class Setting:
    """The description of a setting, without its name and default.

    group: one of `config.GROUPS`. help: its text in --help and docs/settings.md. unit: what a number counts, or what a text
    stands for; shown in place of a value. kind: converts the text of a flag to a value; bool for a switch. choices: all
    legal values, if they are few. minimum, maximum: the legal range of a number, inclusive; above, below: likewise,
    exclusive. none: the meaning of a default that stands for no value, which is legal whatever the range. in_recipe: its
    default depends on the recipe. of_run: part of what defines a run; the other settings are paths, and choices of hardware
    and speed. timed: it affects the speed of training, so `trainer benchmark` has it too.
    """

    group: str
    help: str
    unit: str = ""
    kind: Callable[[str], Any] = str
    choices: Collection[str] | None = None
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    none: str = ""
    in_recipe: bool = False
    of_run: bool = True
    timed: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raise SettingError for an illegal value."""
        if self.choices is not None and value not in self.choices:
            raise SettingError(f"--{name} {value}: choose from {', '.join(self.choices)}")
        wrong = (
            (self.minimum is not None and not value >= self.minimum)
            or (self.maximum is not None and not value <= self.maximum)
            or (self.above is not None and not value > self.above)
            or (self.below is not None and not value < self.below)
        )
        if wrong:
            raise SettingError(f"--{name} {value}: must be {self.range}")

    @property
    def range(self) -> str:
        """The legal range in words; empty if there is none."""
        bounds = (
            ("at least", self.minimum),
            ("above", self.above),
            ("at most", self.maximum),
            ("below", self.below),
        )
        return " and ".join(f"{words} {bound:,}" for words, bound in bounds if bound is not None)
