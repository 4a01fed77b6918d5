"""The model card, README.md of a run folder: what a recipient of the model needs to know.

It begins with metadata in YAML, which the Hugging Face Hub reads: https://huggingface.co/docs/hub/model-cards. It names no
licence, which is for the publisher to choose. Its dataset is `galaxy_zoo`, as preprocess calls what it builds, and no dataset
of the Hub: nothing shows where a folder of images came from.
"""

import json
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrecords import __version__
from tfrecords.builtin import builtin_names, is_kaggle
from tfrecords.dataset import SPLITS
from tfrecords.text import markdown, markdown_code, printable
from trainer.analysis.metrics import RESAMPLES
from trainer.analysis.wording import assumption, duration, is_assumed, sentences, some_galaxies, survey
from trainer.config import DEFAULTS, SETTINGS
from trainer.run import CARD, Record, Run

# By loss, and whether the votes had counts.
_WEIGHTED = "cross-entropy of each question, weighted by "
_LIKELIHOOD = "-log likelihood of the votes, Dirichlet-multinomial"
_LOSSES = {
    ("mse", False): "mean squared error",
    ("mse", True): "mean squared error over the questions that somebody answered",
    ("cross_entropy", False): f"{_WEIGHTED}the share of volunteers who were asked",
    ("cross_entropy", True): f"{_WEIGHTED}the number of volunteers who answered it",
    ("dirichlet_multinomial", False): f"{_LIKELIHOOD}, for an assumed number of volunteers",
    ("dirichlet_multinomial", True): _LIKELIHOOD,
}
# The same for numbers of answers that are assumed.
_ASSUMED = {
    "cross_entropy": f"{_WEIGHTED}the assumed number of volunteers who answered it",
    "dirichlet_multinomial": _LOSSES["dirichlet_multinomial", False],
}
# Models of the Hub with the ImageNet weights of Keras Applications, by backbone. ConvNeXt: both are Meta's
# convnext_tiny_1k_224_ema. VGG16: none, keras/vgg_16_imagenet has torchvision's weights. ResNet50: none is known. These go by
# the names of their backbones, which are no addresses on the Hub.
_ON_HUB = {"convnext_tiny": "facebook/convnext-tiny-224"}


def command(run: Run) -> str:
    """The `trainer` command that reproduces this run, with every setting spelt out."""
    words = ["trainer", "--tfrecords", run.config["dataset"]["folder"], "--out", str(run.folder)]
    for name, value in sorted(run.settings.items()):
        is_flag = name in SETTINGS and (name, value) != ("limit", 0)  # head_epochs, of earlier versions, is no longer a flag
        if is_flag:
            words += [f"--{name}", str(value)]
    return printable(shlex.join(words))


def _shown(name: str, value: Any) -> Any:
    """A setting as `--help` shows its default: a limit of 0 means all."""
    return (SETTINGS[name].none or value) if name in SETTINGS and value == DEFAULTS[name] else value


def _loss(run: Run, asked: object) -> str:
    """The loss of a run in words. asked: how its dataset came to have numbers of answers; falsy without any."""
    loss = run.settings["loss"]
    return (_ASSUMED.get(loss) if is_assumed(asked) else None) or _LOSSES[loss, bool(asked)]


def _initial_weights(run: Run) -> str:
    """Where the weights of a run come from, in words."""
    if "start" in run.config:
        return "those of the run named above"
    known = {"imagenet": "ImageNet, from Keras Applications", "none": "random"}
    return known.get(run.settings["weights"], "from the file named above")


def _base_model(run: Run) -> str | None:
    """What the model was fine-tuned from, for the metadata; None for random weights, and for those of another run."""
    backbone, weights = run.settings["backbone"], run.settings["weights"]
    if weights == "none" or "start" in run.config:
        return None
    return str(_ON_HUB.get(backbone, backbone) if weights == "imagenet" else backbone)


def _yaml(text: str) -> str:
    """`text` as a quoted string in YAML, on one line: a string of JSON without its escapes of Unicode.

    JSON escapes a character beyond U+FFFF as two, which YAML reads as two characters. So letters and signs of any script are
    written as they are. Control characters and invisible ones become Python escapes first.
    """
    return json.dumps(printable(text), ensure_ascii=False)


def _number(value: float) -> str:
    """A number in YAML, with all its digits and without an exponent: YAML 1.1 reads 1e-05 as a text."""
    return np.format_float_positional(value, trim="0")


def write_card(run: Run, metrics: dict[str, Any] | None, evaluations: Sequence[tuple[Record, dict[str, Any]]]) -> None:
    """Write README.md into the run folder: metadata, data, recipe, metrics of the test split, limits, credits.

    metrics: the run's own, as in metrics.json; None without a test split. evaluations: later ones, of other splits or datasets.
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
    environment.filters |= {"code": lambda value: markdown_code(str(value)), "words": lambda value: markdown(str(value))}
    environment.filters |= {"yaml": _yaml, "number": _number, "galaxies": some_galaxies}
    tree, settings = run.tree, run.settings
    measured = {} if metrics is None else metrics["per_question"]
    questions = [(question, measured[question.key]) for question in tree.questions if question.key in measured]
    asked = run.config["dataset"].get("asked")
    counting = sentences("Questions that nobody answered do not count.", assumption(asked, tree)) if asked else ""
    text = environment.get_template("card.md").render(
        metrics=metrics,
        evaluations=evaluations,
        dataset=run.config["dataset"],
        run=run,
        settings={name: _shown(name, value) for name, value in settings.items()},
        base_model=_base_model(run),
        origin=_initial_weights(run),
        splits=SPLITS,
        questions=questions,
        tree=tree,
        kaggle=is_kaggle(tree),
        galaxy_zoo=is_kaggle(tree) or tree.name in builtin_names(),
        survey=survey(tree),
        outputs=len(tree.columns) + (len(tree.questions) if settings["head"] == "dirichlet" else 0),
        loss=_loss(run, asked),
        counting=f" {counting}" if counting else "",
        resamples=f"{RESAMPLES:,}",
        epochs=len(history),
        time=duration(seconds) if (seconds := sum(row.seconds for row in history)) else "",
        command=command(run),
        predict=printable(shlex.join(["trainer", "predict", "--run", str(run.folder), "--images", "FOLDER_OR_ZIP"])),
        version=__version__,
    )
    run.output.write({CARD: text.encode("utf-8")})
