"""The model card: README.md of a run folder, for whoever is handed the model."""

import shlex
from typing import Any

from tfrecords import __version__
from tfrecords.dataset import SPLITS, Dataset
from tfrecords.files import write_text
from trainer.analysis.metrics import RESAMPLES
from trainer.run import Run


def command(run: Run, dataset_folder: str) -> str:
    """The `trainer` command that makes this run, with every setting spelt out."""
    words = ["trainer", "--tfrecords", dataset_folder, "--out", str(run.folder)]
    for name, value in sorted(run.settings.items()):
        if (name, value) != ("limit", 0):  # which means no limit, and has no flag
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def write_card(run: Run, dataset: Dataset, metrics: dict[str, Any] | None) -> None:
    """Write README.md into the run folder: data, recipe, metrics of the test split, limits, credits.

    metrics: as metrics.json holds them, None where there is no test split.
    """
    import jinja2

    history = run.history()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer.analysis", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    questions = [] if metrics is None else sorted(metrics["per_question"].items(), key=lambda item: int(item[0]))
    text = environment.get_template("card.md").render(
        metrics=metrics,
        dataset=dataset,
        run=run,
        splits=SPLITS,
        questions=questions,
        resamples=f"{RESAMPLES:,}",
        epochs=len(history),
        minutes=sum(row.seconds for row in history) / 60,
        command=command(run, str(dataset.folder)),
        version=__version__,
    )
    write_text(run.folder / "README.md", text)
