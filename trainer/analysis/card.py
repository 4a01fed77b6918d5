"""The model card: README.md of a run folder, for whoever is handed the model."""

import shlex

from tfrecords import __version__
from tfrecords.dataset import SPLITS
from tfrecords.files import write_text
from trainer.analysis.findings import Evaluation
from trainer.analysis.metrics import RESAMPLES
from trainer.run import Run


def command(run: Run, dataset_folder: str) -> str:
    """The `trainer` command that makes this run, with every setting spelt out."""
    words = ["trainer", "--tfrecords", dataset_folder, "--out", str(run.folder)]
    for name, value in sorted(run.settings.items()):
        if (name, value) != ("limit", 0):  # which means no limit, and has no flag
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def write_card(evaluation: Evaluation) -> None:
    """Write README.md into the run folder: data, recipe, metrics, limits, credits."""
    import jinja2

    run, content = evaluation.run, evaluation.content
    history = run.history()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("trainer.analysis", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template("card.md").render(
        metrics=content,
        dataset=evaluation.dataset,
        settings=run.settings,
        splits=SPLITS,
        questions=sorted(content["per_question"].items(), key=lambda item: int(item[0])),
        resamples=f"{RESAMPLES:,}",
        epochs=len(history),
        minutes=sum(row.seconds for row in history) / 60,
        radii=run.config.get("half_light_radius"),
        command=command(run, str(evaluation.dataset.folder)),
        run_folder=run.folder,
        version=__version__,
    )
    write_text(run.folder / "README.md", text)
