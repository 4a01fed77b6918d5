"""Every choice of a training run in one validated dataclass."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfrecords.errors import SettingError

MAX_SEED = 2**32 - 1
AUGMENTATIONS = ("none", "dihedral", "full")
CACHES = ("auto", "memory", "none")
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")


@dataclass(frozen=True)
class TrainConfig:
    """A run: what it reads, where it writes, and how it learns. Defaults are the article's, but for the batch.

    learning_rate: Adam's, reached after `warmup_steps` steps of linear growth from near zero. weights: where the
    convolutional base starts: "imagenet" (Keras downloads them), "none" (He initialisation), or a file.
    augment: see `augmentation`. patience: epochs without a better validation MSE until training stops. limit: galaxies per
    split, 0 for all. cache: see `cache`. hosts: addresses of all processes of a run on several machines, or "auto"; host_index:
    the place of this one among them; see `hosts`.
    """

    tfrecords: Path
    out: Path
    epochs: int = 50
    batch_size: int = 32
    learning_rate: float = 1e-5
    warmup_steps: int = 100
    weights: str = "imagenet"
    augment: str = "none"
    precision: str = "auto"
    patience: int = 10
    seed: int = 0
    limit: int = 0
    cache: str = "auto"
    require_gpu: bool = False
    hosts: str = ""
    host_index: int | None = None

    def __post_init__(self) -> None:
        for name, minimum in (
            ("epochs", 1),
            ("batch_size", 1),
            ("warmup_steps", 0),
            ("patience", 1),
            ("seed", 0),
            ("limit", 0),
        ):
            if getattr(self, name) < minimum:
                raise SettingError(f"--{name} {getattr(self, name)}: must be at least {minimum}")
        if self.seed > MAX_SEED:
            raise SettingError(f"--seed {self.seed}: must be at most {MAX_SEED}")
        if not 0 < self.learning_rate <= 1:
            raise SettingError(f"--learning_rate {self.learning_rate}: must be above 0 and at most 1")
        for name, choices in (("augment", AUGMENTATIONS), ("precision", PRECISIONS), ("cache", CACHES)):
            if getattr(self, name) not in choices:
                raise SettingError(f"--{name} {getattr(self, name)}: choose from {', '.join(choices)}")

    def settings(self) -> dict[str, Any]:
        """What makes a run this run and no other: all but where it reads and writes, and on what it runs how fast."""
        values = asdict(self)
        for name in ("tfrecords", "out", "cache", "require_gpu", "hosts", "host_index"):
            del values[name]
        return values
