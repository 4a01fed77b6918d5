"""Begin a run in a folder, or open the one that is there."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from tfrecords import __version__
from tfrecords.dataset import TREE, Dataset
from tfrecords.errors import ConfigError, RunError
from tfrecords.outputs import PRIVATE, Output
from trainer.config import DEFAULTS
from trainer.history import HISTORY
from trainer.origin import dataset_summary
from trainer.run import CARD, CONFIG, MODEL, OWN, Run, open_run
from trainer.sealing import seal

_LATER = ("freeze",)  # settings that runs of earlier versions lack; their defaults change nothing


def _differences(run: Run, new: Run) -> list[str]:
    if head_epochs := run.settings.get("head_epochs"):
        return [f"it was started with --head_epochs {head_epochs}, which this version no longer has"]
    old = {**{name: DEFAULTS[name] for name in new.settings if name in _LATER}, **run.settings}
    changed = [
        f"{name} was {old.get(name)}, now {new.settings.get(name)}"
        for name in sorted({*old, *new.settings} - {"head_epochs"})
        if old.get(name) != new.settings.get(name)
    ]
    if run.config["dataset"]["fingerprint"] != new.config["dataset"]["fingerprint"]:
        changed.append("the dataset is a different one")
    return changed


def start(folder: Path, settings: dict[str, Any], dataset: Dataset, overwrite: bool) -> tuple[Run, bool]:
    """The run of `folder`, and whether it is new; a new run writes nothing before `create`.

    So a run that fails before its first step (weights that do not fit, no GPU) leaves no trace and, with `overwrite`,
    removes nothing. Raises ConfigError, with the differences, if the folder holds another run, and, with its name, if a file
    that no trainer wrote is to be replaced.
    """
    output = Output(folder, "run")
    refuse_lost_marker(output)
    output.refuse_others()
    config = {"settings": settings, "dataset": dataset_summary(dataset), "tool": {"galaxy-zoo-vgg16": __version__}}
    new = Run(folder, config, dataset.tree)
    if overwrite or not (folder / CONFIG).is_file():
        refuse_in_the_way(new)
        output.refuse_others({*output.files, CONFIG})
        return new, True
    run = open_run(folder)
    if changed := _differences(run, new):
        raise ConfigError(
            f"{folder}: holds another run ({'; '.join(changed)}): choose another --out, or replace it with --overwrite"
        )
    return run, False


def refuse_lost_marker(output: Output) -> None:
    """Raise ConfigError for a run that was copied without its marker: nothing shows which of its files are ours."""
    if CONFIG not in output.files and (output.folder / CONFIG).is_file():
        with suppress(RunError):
            open_run(output.folder)
            raise ConfigError(
                f"{output.folder}: is a run without its folder {PRIVATE}, which lists its files: copy the whole folder again "
                "(`cp -r RUN ELSEWHERE`, not RUN/*), or choose another --out"
            )


def refuse_in_the_way(run: Run) -> None:
    """Raise ConfigError, with its name, if a file to be written exists and is not as a trainer wrote it."""
    output = run.output
    output.refuse_others([HISTORY, MODEL, TREE, OWN.metrics, OWN.predictions, OWN.report, CARD])


def create(run: Run) -> None:
    """Create the folder of a new run, replacing the files of an old one."""
    output = run.output
    for path in output.private.glob("features-*"):  # gigabytes, left by an earlier version with --head_epochs
        path.unlink()
    # config.json last, because without it the folder is not a run.
    output.remove(sorted(output.files, key=lambda name: (name == CONFIG, name)))
    output.write({TREE: run.tree.text.encode("utf-8")})
    output.write({CONFIG: seal(run.config).encode("utf-8")})
