"""The settings of a build, and what it does with images that cannot be read."""

from dataclasses import asdict, dataclass, field
from typing import Any

from preprocess.plan import PlanSettings as PlanSettings
from tfrecords.errors import SettingError, require_setting
from tfrecords.images import CropSettings as CropSettings


@dataclass(frozen=True)
class BuildSettings:
    """The settings that determine a dataset's bytes, together with its source and the codec versions."""

    crop: CropSettings = field(default_factory=CropSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)

    def __post_init__(self) -> None:
        if self.plan.validation_fraction + self.plan.test_fraction > 1:
            raise SettingError(
                f"--validation_fraction {self.plan.validation_fraction} and --test_fraction {self.plan.test_fraction}: "
                "together they must be at most 1"
            )

    def flat(self) -> dict[str, Any]:
        return {**asdict(self.crop), **asdict(self.plan)}


@dataclass(frozen=True)
class BadImages:
    """What to do with unreadable images: omit them (`skip`), up to `max_fraction` of all (0..1), or stop at the first."""

    skip: bool = True
    max_fraction: float = 0.01

    def __post_init__(self) -> None:
        require_setting(0 <= self.max_fraction <= 1, "max_bad_fraction", self.max_fraction, "from 0 to 1")
