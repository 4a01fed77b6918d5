"""Initial weights from another run: its backbone, and its hidden and output layers where they fit.

config.json of the new run holds, as `start`, the other run's folder, the SHA-256 of its model and its input scaling. Once it
has a checkpoint, the new run resumes without the other.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfrecords.errors import ConfigError, RunError
from tfrecords.files import sha256_file
from trainer.config import TrainConfig, scaling_of
from trainer.network.model import Design
from trainer.run import CONFIG, Run, open_run


@dataclass(frozen=True)
class Start:
    """The run whose best model another one starts with. scaling: of its input, see `backbones.scaling`."""

    run: Run
    scaling: str

    def config(self) -> dict[str, Any]:
        """The entry `start` of config.json."""
        folder = os.fsencode(self.run.folder).decode("utf-8", "backslashreplace")
        start = {"run": folder, "model": sha256_file(self.run.model_path), "scaling": self.scaling}
        return {"start": start}


def open_start(config: TrainConfig) -> Start | None:
    """The run that --weights names, None if it names none.

    Raises RunError if it is a folder but not a run, or has no model; ConfigError if it is the run to be trained, or has another
    backbone or input scaling.
    """
    folder = Path(config.weights)
    if config.weights in ("imagenet", "none") or not folder.is_dir():
        return None
    if not (folder / CONFIG).is_file():
        raise RunError(
            f"{folder}: not a run folder ({CONFIG} is missing): give --weights imagenet, none, a file, or another run's --out"
        )
    if folder.resolve() == config.out.resolve():
        raise ConfigError(f"{folder}: is the run to be trained (--out): give --weights another run")
    run = open_run(folder)
    if (backbone := run.settings["backbone"]) != config.backbone:
        raise ConfigError(f"{folder}: was trained with --backbone {backbone}, not {config.backbone}: use the same backbone")
    scaling = trained_scaling(run)
    if config.input_scaling == "unit" and scaling != "unit":
        raise ConfigError(f"{folder}: was trained with another input scaling: omit --input_scaling unit")
    if not run.model_path.is_file():
        raise RunError(f"{folder}: has no {run.model_path.name} yet: resume its training first")
    return Start(run, scaling)


def trained_scaling(run: Run) -> str:
    """The input scaling that a run was trained with: that of the run it started with, if any."""
    start = run.config.get("start") or {}
    return start.get("scaling") or scaling_of(run.settings["input_scaling"], run.settings["weights"])


def transfer(source: Start, model: Any, design: Design) -> str:
    """Copy the weights that fit into a new model; return a sentence about what was copied and what was not.

    A layer fits if all layers before it do and its weights have the same shapes; the output layer, if head and tree are too.
    """
    other, old = source.run.load_model(), source.run.settings
    copied, new = _backbone(other, old["pooling"]), _backbone(model, design.pooling)
    for weight, value in zip(new, copied, strict=True):
        weight.assign(value)
    fits, reason = ["the backbone"], ""
    for name, title in (("fc1", "hidden layer fc1"), ("fc2", "hidden layer fc2"), ("vote_fractions", "the output layer")):
        values, weights = other.get_layer(name).get_weights(), model.get_layer(name).weights
        if name == "vote_fractions" and (old["head"], source.run.tree.structure) != (
            design.head,
            design.tree.structure,
        ):
            reason = "the head differs" if old["head"] != design.head else "the decision tree differs"
        elif [value.shape for value in values] != [tuple(weight.shape) for weight in weights]:
            size = source.run.config["dataset"]["size"]
            of_size = f"that run's images have {size} x {size} pixels"
            reason = of_size if old["pooling"] == design.pooling else "the pooling differs"
        if reason:
            break
        for weight, value in zip(weights, values, strict=True):
            weight.assign(value)
        fits.append(title)
    sentence = f"{source.run.folder}: initial weights of {_listed(fits)}"
    rest = title if name == "vote_fractions" else f"{title} and later layers"
    return f"{sentence}; new: {rest}, because {reason}" if reason else sentence


def _backbone(model: Any, pooling: str) -> list[Any]:
    """The weights of the layers before the head."""
    import keras

    return list(keras.Model(model.input, model.get_layer(pooling).output).weights)


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]
