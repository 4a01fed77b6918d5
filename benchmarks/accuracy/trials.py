"""The runs to compare: `base` with one change at a time, and whole recipes trained for longer."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

PLAIN = Path(__file__).with_name("plain_keras.py")
SCREEN_EPOCHS, CONFIRM_EPOCHS = 4, 10
SEEDS, CONFIRM_SEEDS = (0, 1, 2), (0, 1)

# Screened changes are made to this recipe: the plain loop's choices, with outputs that start at the column means.
BASE = {
    "batch_size": 32,
    "learning_rate": 1e-4,
    "schedule": "cosine",
    "warmup_steps": 60,
    "loss": "mse",
    "weight_decay": 0.0,
    "ema": 0.0,
    "augment": "dihedral",
    "backbone": "vgg16",
    "input_scaling": "auto",
    "pooling": "flatten",
    "head": "sigmoid",
    "initialisation": "means",
}


@dataclass(frozen=True)
class Trial:
    """One run: its difference from `base`, as label and settings. `plain`: the plain Keras loop, not the trainer."""

    label: str
    changes: Mapping[str, object] = field(default_factory=dict)
    epochs: int = SCREEN_EPOCHS
    seed: int = 0
    plain: bool = False

    def flags(self) -> list[str]:
        values = {"epochs": self.epochs} if self.plain else {**BASE, "epochs": self.epochs, **self.changes}
        return [f"--{name}={value}" for name, value in {**values, "seed": self.seed}.items()]

    @property
    def name(self) -> str:
        """The name of its files. It depends on the flags and on the plain loop's code, so an edited trial is run again."""
        words = " ".join([str(self.plain), *self.flags(), *([PLAIN.read_text()] if self.plain else [])])
        digest = hashlib.sha256(words.encode()).hexdigest()[:8]
        label = "".join(letter if letter.isalnum() else "-" for letter in self.label)
        return f"{label}-{self.epochs}-{self.seed}-{digest}"


def recipe(name: str) -> dict[str, Any]:
    """The trainer's settings for a recipe, without those that each trial sets: epochs, paths and seed."""
    from trainer.config import RECIPES

    return {name: value for name, value in RECIPES[name]().items() if name in BASE}


def _seeds(trial: Trial, seeds: tuple[int, ...] = SEEDS) -> list[Trial]:
    return [replace(trial, seed=seed) for seed in seeds]


def _changed(label: str, **changes: object) -> Trial:
    return Trial(label, changes)


_TREE: dict[str, object] = {"head": "tree", "loss": "cross_entropy"}
SCREEN = (
    *_seeds(Trial("base")),
    _changed("Keras' initialisation", initialisation="keras"),
    _changed("learning rate 5e-5", learning_rate=5e-5),
    _changed("learning rate 2e-4", learning_rate=2e-4),
    _changed("learning rate 5e-4", learning_rate=5e-4),
    # As many galaxies in the warm-up as in `base`.
    _changed("batch 8", batch_size=8, warmup_steps=240),
    _changed("batch 16", batch_size=16, warmup_steps=120),
    _changed("batch 64", batch_size=64, warmup_steps=30),
    _changed("inputs in 0..1", input_scaling="unit"),
    _changed("no warm-up", warmup_steps=0),
    _changed("constant rate after warm-up", schedule="constant"),
    _changed("no augmentation", augment="none"),
    _changed("average pooling", pooling="average"),
    _changed("tree head", head="tree"),
    # A change needs more than one seed before `best` adopts it.
    *_seeds(_changed("tree head, cross-entropy", **_TREE)),
    _changed("tree head, cross-entropy, batch 16", **_TREE, batch_size=16, warmup_steps=120),
    _changed("warm-up twice as long", warmup_steps=120),
    _changed("the output layer as Keras starts it", initialisation="he"),
    _changed("full augmentation", augment="full"),
)
CONFIRM = (
    *_seeds(Trial("article, batch 32", {**recipe("article"), "batch_size": 32}, CONFIRM_EPOCHS), CONFIRM_SEEDS),
    *_seeds(Trial("base", {}, CONFIRM_EPOCHS), CONFIRM_SEEDS),
    *_seeds(Trial("best", recipe("best"), CONFIRM_EPOCHS), CONFIRM_SEEDS),
    *_seeds(Trial("plain Keras loop", {}, CONFIRM_EPOCHS, plain=True), CONFIRM_SEEDS),
    Trial("article, batch 1", recipe("article"), CONFIRM_EPOCHS),
)
