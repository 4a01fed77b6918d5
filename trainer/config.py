"""Every setting of a training run, described once: flags, help, validation and docs/settings.md are made from it.

A recipe sets all choices of how a run learns together; there are two.
"""

from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tfrecords.errors import SettingError
from tfrecords.files import local_or_store, local_path
from tfrecords.storage import CACHE_DIR, CACHE_HELP, PLACE_HELP
from tfrecords.tree import Tree
from trainer.input.augmentation import AUGMENTATIONS
from trainer.network.backbones import BACKBONES, MAX_BLOCKS
from trainer.network.heads import HEADS
from trainer.network.losses import LOSSES
from trainer.network.model import INITIALISATIONS, INPUT_SCALINGS, POOLINGS, Design
from trainer.network.optimizer import SCHEDULES, Rate
from trainer.setting import Setting

GROUPS = ("data", "model", "learning", "speed", "several machines")
CACHES = ("auto", "memory", "none")
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")


def _setting(group: str, help: str, **more: Any) -> dict[str, Setting]:
    """The metadata of a field of `TrainConfig`."""
    return {"setting": Setting(group, help, **more)}


def _setting_of(described: Field[Any]) -> Setting:
    """The description of a field of `TrainConfig`."""
    setting: Setting = described.metadata["setting"]
    return setting


@dataclass(frozen=True)
class TrainConfig:
    """A run: what it reads, where it writes, and how it learns. Defaults are those of recipe `best`.

    `Setting.help` describes each setting. Raises SettingError for a value that is illegal or contradicts another.
    """

    tfrecords: Path | str = field(
        metadata=_setting(
            "data",
            f"dataset folder that preprocess wrote, {PLACE_HELP}",
            unit="DIR|URL",
            kind=local_or_store,
            of_run=False,
            timed=True,
        )
    )
    out: Path = field(
        default=Path("runs/vgg16"),
        metadata=_setting("data", "run folder to write or resume", unit="DIR", kind=local_path, of_run=False),
    )
    cache_dir: Path = field(
        default=Path(CACHE_DIR),
        metadata=_setting("data", CACHE_HELP, unit="DIR", kind=local_path, of_run=False, timed=True),
    )
    limit: int = field(
        default=0,
        metadata=_setting(
            "data",
            "maximum number of galaxies per split; the first as stored are used",
            unit="GALAXIES",
            kind=int,
            minimum=1,
            none="all",
            timed=True,
        ),
    )
    backbone: str = field(
        default="vgg16",
        metadata=_setting("model", "convolutional part of the model", choices=BACKBONES, in_recipe=True, timed=True),
    )
    weights: str = field(
        default="imagenet",
        metadata=_setting(
            "model",
            "initial weights of the backbone; imagenet: downloaded; none: random; FILE: read from this file; RUN: from the "
            "best model of this run folder, with its hidden and output layers where they fit",
            unit="imagenet|none|FILE|RUN",
        ),
    )
    freeze: int = field(
        default=0,
        metadata=_setting(
            "model",
            "number of blocks of the backbone, from the input on, that keep their initial weights",
            unit="BLOCKS",
            kind=int,
            minimum=0,
            maximum=MAX_BLOCKS,
        ),
    )
    input_scaling: str = field(
        default="auto",
        metadata=_setting(
            "model",
            "scaling of pixels; auto: as the backbone's weights expect, or to order one for random weights; unit: to 0..1",
            choices=INPUT_SCALINGS,
            in_recipe=True,
        ),
    )
    pooling: str = field(
        default="flatten",
        metadata=_setting(
            "model",
            "how the last feature maps of the backbone become a vector; flatten: all values; average: the mean of each map",
            choices=POOLINGS,
            in_recipe=True,
            timed=True,
        ),
    )
    head: str = field(
        default="tree",
        metadata=_setting(
            "model",
            "sigmoid: each column is predicted independently; tree: the columns together obey the decision tree; dirichlet: as "
            "tree, and also how sure the model is of each question, which gives intervals",
            choices=HEADS,
            in_recipe=True,
            timed=True,
        ),
    )
    initialisation: str = field(
        default="means",
        metadata=_setting(
            "model",
            "initialisation of layers without pretrained weights; means: random kernels (He et al. 2015), and outputs that "
            "start at the column means of split train; he: random outputs too; keras: as he, but with the default kernels "
            "of Keras (Glorot & Bengio 2010)",
            choices=INITIALISATIONS,
            in_recipe=True,
        ),
    )
    epochs: int = field(
        default=50,
        metadata=_setting("learning", "maximum number of epochs", unit="EPOCHS", kind=int, minimum=1, in_recipe=True),
    )
    batch_size: int = field(
        default=32,
        metadata=_setting("learning", "galaxies per step", unit="GALAXIES", kind=int, minimum=1, in_recipe=True, timed=True),
    )
    learning_rate: float = field(
        default=1e-4,
        metadata=_setting(
            "learning", "learning rate of Adam after warm-up", unit="RATE", kind=float, above=0, maximum=1, in_recipe=True
        ),
    )
    schedule: str = field(
        default="cosine",
        metadata=_setting(
            "learning",
            "learning rate after warm-up; constant: unchanged; cosine: falls along half a cosine to zero at the end",
            choices=SCHEDULES,
            in_recipe=True,
        ),
    )
    warmup_steps: int = field(
        default=60,
        metadata=_setting(
            "learning",
            "steps over which the learning rate rises linearly from near zero",
            unit="STEPS",
            kind=int,
            minimum=0,
            in_recipe=True,
        ),
    )
    loss: str = field(
        default="cross_entropy",
        metadata=_setting(
            "learning",
            "mse: squared error of the columns; cross_entropy: cross-entropy of the answers to each question, weighted by the "
            "number of its answers, without counts by the share of volunteers who were asked (needs --head tree; with --head "
            "sigmoid the default is mse); dirichlet_multinomial: -log probability of the answers under the predicted "
            "concentrations, without counts for the number of volunteers in the tree's file (default of --head dirichlet)",
            choices=LOSSES,
            in_recipe=True,
            timed=True,
        ),
    )
    weight_decay: float = field(
        default=0.0,
        metadata=_setting(
            "learning", "weight decay of AdamW; 0: none", unit="RATE", kind=float, minimum=0, below=1, in_recipe=True
        ),
    )
    ema: float = field(
        default=0.0,
        metadata=_setting(
            "learning",
            "momentum of a moving average of the weights; the average is then validated and kept; 0: none",
            unit="MOMENTUM",
            kind=float,
            minimum=0,
            below=1,
            in_recipe=True,
            timed=True,
        ),
    )
    augment: str = field(
        default="dihedral",
        metadata=_setting(
            "learning",
            "how images vary between epochs; none: not at all; dihedral: one of the 8 symmetries of the square; full: also "
            "rotated by any angle, and slightly zoomed and shifted",
            choices=AUGMENTATIONS,
            in_recipe=True,
            timed=True,
        ),
    )
    patience: int = field(
        default=10,
        metadata=_setting(
            "learning",
            "training stops after this many epochs without a lower validation MSE",
            unit="EPOCHS",
            kind=int,
            minimum=1,
            in_recipe=True,
        ),
    )
    seed: int = field(
        default=0,
        metadata=_setting(
            "learning",
            "random seed of initial weights, order, augmentation and dropout",
            unit="N",
            kind=int,
            minimum=0,
            maximum=2**32 - 1,
            timed=True,
        ),
    )
    precision: str = field(
        default="auto",
        metadata=_setting(
            "speed",
            "number format of the layers; auto: mixed precision on GPUs, float32 on CPUs",
            choices=PRECISIONS,
            timed=True,
        ),
    )
    cache: str = field(
        default="auto",
        metadata=_setting(
            "speed",
            "keep galaxies in memory between epochs; auto: if they need at most a quarter of the free memory",
            choices=CACHES,
            of_run=False,
            timed=True,
        ),
    )
    checkpoint_minutes: float = field(
        default=0.0,
        metadata=_setting(
            "speed",
            "minutes after which a checkpoint is saved within an epoch, besides those at the end of each; 0: none within",
            unit="MINUTES",
            kind=float,
            minimum=0,
            of_run=False,
        ),
    )
    require_gpu: bool = field(
        default=False,
        metadata=_setting("speed", "stop if no GPU is found, instead of using the CPU", kind=bool, of_run=False, timed=True),
    )
    hosts: str = field(
        default="",
        metadata=_setting(
            "several machines",
            "addresses of all processes of the run, which connect at the first; auto: those from Slurm or another cluster "
            "manager (JAX only)",
            unit="A:PORT,B:PORT|auto",
            none="this machine alone",
            of_run=False,
        ),
    )
    host_index: int | None = field(
        default=None,
        metadata=_setting(
            "several machines",
            "position of this process in --hosts, counted from 0",
            unit="I",
            kind=int,
            minimum=0,
            none="none",
            of_run=False,
        ),
    )
    hosts_secret: Path | None = field(
        default=None,
        metadata=_setting(
            "several machines",
            "file with a secret that all processes of the run share, which keeps out strangers; default: the environment "
            "variable GALAXY_ZOO_HOSTS_SECRET, else a secret that process 0 writes into --out while they connect",
            unit="FILE",
            kind=local_path,
            none="from --out",
            of_run=False,
        ),
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "tfrecords", local_or_store(self.tfrecords))
        for name in ("out", "cache_dir"):  # callers from Python may give a str
            object.__setattr__(self, name, local_path(getattr(self, name)))
        if self.hosts_secret is not None:
            object.__setattr__(self, "hosts_secret", local_path(self.hosts_secret))
        object.__setattr__(self, "weights", str(self.weights))  # or a Path
        for described in fields(self):
            setting, value = _setting_of(described), getattr(self, described.name)
            if not (setting.none and value == described.default):
                setting.check(described.name, value)
        if self.weights not in ("imagenet", "none"):
            local_path(self.weights)
        if self.freeze and self.weights == "none":
            raise SettingError(f"--freeze {self.freeze}: random weights would stay random: choose other --weights, or omit it")
        if self.freeze > (blocks := len(BACKBONES[self.backbone].blocks)):
            raise SettingError(f"--freeze {self.freeze}: {self.backbone} has {blocks} blocks: give at most that number")
        if self.head == "dirichlet" and self.loss != "dirichlet_multinomial":
            raise SettingError(
                f"--head dirichlet: --loss {self.loss} ignores its concentrations: add --loss dirichlet_multinomial"
            )
        if self.loss == "dirichlet_multinomial" and self.head != "dirichlet":
            raise SettingError("--loss dirichlet_multinomial: needs concentrations: add --head dirichlet")
        if self.loss == "cross_entropy" and self.head != "tree":
            raise SettingError("--loss cross_entropy: needs fractions that obey the decision tree: add --head tree")

    def settings(self) -> dict[str, Any]:
        """The settings that define a run: all but its paths, and choices of hardware and speed that may change."""
        of_run = {described.name for described in fields(self) if _setting_of(described).of_run}
        return {name: value for name, value in asdict(self).items() if name in of_run}

    def design(self, size: int, tree: Tree, scaling: str = "") -> Design:
        """The design of the run's model, for images of `size` x `size` pixels and votes on this tree.

        scaling: that of the run whose weights it starts with, if any; see `backbones.scaling`.
        """
        chosen = scaling or scaling_of(self.input_scaling, self.weights)
        return Design(size, self.backbone, chosen, self.pooling, self.head, tree)

    def rate(self, steps: int) -> Rate:
        """The learning rate over the run, for `steps` steps per epoch."""
        return Rate(self.learning_rate, self.warmup_steps, self.epochs * steps if self.schedule == "cosine" else 0)


def scaling_of(input_scaling: str, weights: str) -> str:
    """The input scaling that these settings of a run mean, see `backbones.scaling`."""
    return "unit" if input_scaling == "unit" else ("random" if weights == "none" else "imagenet")


SETTINGS: Mapping[str, Setting] = {described.name: _setting_of(described) for described in fields(TrainConfig)}
DEFAULTS: Mapping[str, Any] = {described.name: described.default for described in fields(TrainConfig)}


def article() -> dict[str, Any]:
    """The recipe of the article, as in its code.

    One galaxy per step, inputs in 0..1, Keras' default initialisation, Adam at 1e-5, no augmentation, sigmoids, 50 epochs,
    early stopping. The article gives neither the steps per epoch nor the patience: here an epoch is one pass over `train`,
    and training stops after 10 epochs without a lower validation error. One difference is deliberate: the article's code
    passes red first; here the weights get the colours in the order that they were trained with, blue first.

    RMSE 0.1092 (one seed) on 316 galaxies of `test` after 10 epochs of 2,000 others at 64 x 64, and 0.1195 with
    --batch_size 32 (two seeds): `benchmarks.accuracy --stage confirm`, then `--stage test`. It runs
    `trainer --weights FILE --recipe article --epochs 10` on these 2,000 galaxies without validation, so the last epoch counts.
    """
    return {
        "epochs": 50,
        "batch_size": 1,
        "learning_rate": 1e-5,
        "schedule": "constant",
        "warmup_steps": 0,
        "loss": "mse",
        "weight_decay": 0.0,
        "ema": 0.0,
        "augment": "none",
        "backbone": "vgg16",
        "input_scaling": "unit",
        "pooling": "flatten",
        "head": "sigmoid",
        "initialisation": "keras",
        "patience": 10,
    }


def best() -> dict[str, Any]:
    """The recipe that was most accurate in our measurements: the defaults of `TrainConfig`.

    RMSE 0.1003 on 316 galaxies of `test` after 10 epochs of 2,000 others at 64 x 64 (two seeds: 0.1002 and 0.1004; the
    article's recipe 0.1092, a plain Keras loop 0.1100): `benchmarks.accuracy --stage confirm`, then `--stage test`. It runs
    `trainer --weights FILE --epochs 10` on these 2,000 galaxies without validation, so the last epoch counts.
    0.0933 with --epochs 30 at 212 x 212 (two seeds, 2,456 galaxies): benchmarks/README.md, "Recipes at the article's size".
    """
    return {name: DEFAULTS[name] for name, setting in SETTINGS.items() if setting.in_recipe}


RECIPES: dict[str, Callable[[], dict[str, Any]]] = {"best": best, "article": article}
