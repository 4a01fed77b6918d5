"""The model card begins with metadata that the Hugging Face Hub reads, and each entry is true of the run."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from hypothesis import given
from hypothesis import strategies as st

from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.text import printable
from tfrecords.tree import Tree
from tfrecords.treefile import parse_tree
from trainer.analysis import card as cards
from trainer.analysis.card import write_card
from trainer.config import TrainConfig
from trainer.network.backbones import BACKBONES
from trainer.run import CARD, Run

TREE = builtin_tree()
FINGERPRINT = "0123456789abcdef" * 4
MakeCard = Callable[..., ModelCard]
# Texts as a user's tree may hold them, and worse: unquoted, each would end the metadata, add an entry, or be no text.
HOSTILE = (
    *("---", "a\n---\nlicense: mit", "a\r---\r# b", "...", '"', "'", "a: b", "- a", "# a", "{a: [b", "&a *b !c |", "%TAG"),
    *("yes", "null", "1e3", "", " a ", "\\n", "\\u0041", "a\x00\x1b[31m\x7f\x85\u2028\ufeff", "\ud800", "\u202eevil"),
    *("Galaxien in Köln 🌌", "<script>alert(1)</script>", "{{ run.folder }}", "{% endif %}", "a | b ```"),
)


def _metrics(tree: Tree, mse: float) -> dict[str, Any]:
    """What the card shows of metrics.json."""
    score = {"mse": mse, "rmse": mse**0.5, "interval": [0.1, 0.2]}
    return {
        **score, "split": "test", "galaxies": 71, "baselines": {"zeros": 0.3}, "best_validation": None, "model": "f" * 64,
        "dataset": FINGERPRINT, "per_question": {question.key: score for question in tree.questions},
    }  # fmt: skip


@pytest.fixture
def make_card(tmp_path: Path) -> MakeCard:
    """A function that writes the card of a run that was never trained, and reads it as the Hub does.

    mse: on `test`, None without that split. settings: those that are not the defaults.
    """

    def make(tree: Tree = TREE, mse: float | None = 0.0301, start: dict[str, str] | None = None, **settings: Any) -> ModelCard:
        dataset = {
            "folder": "data/demo", "galaxies": {"train": 400, "validation": 50}, "fingerprint": FINGERPRINT,
            "crop_fraction": 0.5, "size": 64, "encoding": "jpeg", "asked": False,
        }  # fmt: skip
        config = {"settings": TrainConfig(Path("data"), tmp_path, **settings).settings(), "dataset": dataset}
        run = Run(tmp_path, config | ({"start": start} if start else {}), tree)
        write_card(run, None if mse is None else _metrics(tree, mse), [])
        return ModelCard((tmp_path / CARD).read_text("utf-8"))

    return make


def _own(**texts: str) -> Tree:
    """A user's tree with one question."""
    tree = parse_tree('[[question]]\nkey = "smooth"\nanswers = { yes = "a", no = "b" }\n', "own.toml", "own")
    return replace(tree, **texts)  # type: ignore[arg-type]


def test_the_metadata_of_a_trained_run_are_those_of_its_settings_and_metrics(tiny_run: Run) -> None:
    card = ModelCard.load(tiny_run.folder / CARD)
    metrics = json.loads((tiny_run.folder / "metrics.json").read_text())
    fingerprint = tiny_run.config["dataset"]["fingerprint"]
    where = {"task_type": "image-regression", "dataset_type": "kaggle", "dataset_split": "test"}
    where["dataset_name"] = f"questions of Galaxy Zoo, dataset {fingerprint[:16]}"
    expected = ModelCardData(
        license="other",
        license_name="see-credits",
        library_name="keras",
        tags=["astronomy", "galaxy-morphology", "galaxy-zoo", "image-regression", "small"],
        datasets=["galaxy_zoo"],
        metrics=["rmse", "mse"],
        model_name="SmallNet on Galaxy Zoo",
        eval_results=[EvalResult(metric_type=name, metric_value=metrics[name], **where) for name in ("rmse", "mse")],
    )
    assert card.data.to_dict() == expected.to_dict()
    assert card.text.startswith("\n# Model card: SmallNet on Galaxy Zoo\n")


def test_the_metadata_are_written_again_without_loss(make_card: MakeCard) -> None:
    """As when somebody edits them on the Hub, or adds a licence with `metadata_update`."""
    card = make_card()
    again = ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict() and again.text == card.text
    block = re.match(r"---\n(.+?)\n---\n", card._content, re.DOTALL)
    assert block and card.data.to_dict() == yaml.safe_load(block[1])  # the Hub's classes drop no entry


def test_without_a_test_split_nothing_is_claimed_to_be_measured(make_card: MakeCard) -> None:
    card = make_card(mse=None)
    assert card.data.eval_results is None and card.data.metrics is None
    assert {*card.data.to_dict()} == {"license", "license_name", "library_name", "tags", "datasets", "base_model"}
    assert "**Not measured**" in card.text


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name != "small"])
@pytest.mark.parametrize("weights", ["imagenet", "none", "file.weights.h5", "RUN"])
def test_the_base_model_is_that_of_the_hub_only_if_it_has_these_weights(
    make_card: MakeCard, backbone: str, weights: str
) -> None:
    start = {"run": "runs/other", "model": "e" * 64, "scaling": "imagenet"} if weights == "RUN" else None
    card = make_card(weights="runs/other" if start else weights, backbone=backbone, start=start)
    of_meta = (backbone, weights) == ("convnext_tiny", "imagenet")
    expected = None if weights in ("none", "RUN") else backbone
    assert card.data.base_model == ("facebook/convnext-tiny-224" if of_meta else expected)
    assert card.data.datasets == ["galaxy_zoo"]
    assert backbone in card.data.tags
    words = {"imagenet": "ImageNet, from Keras Applications", "none": "random", "RUN": "those of the run named above"}
    assert f"Initial weights: {words.get(weights, 'from the file named above')}.\n" in card.text
    assert ("ImageNet weights are under Creative Commons" in card.text) == (backbone == "vgg16" and weights != "none")
    assert ("It started with the weights of the run `runs/other`" in card.text) == (weights == "RUN")
    assert ("and of the initial weights." in card.text) == (weights != "none")


@pytest.mark.parametrize("name", builtin_names())
def test_the_results_name_the_tree_and_the_dataset_and_no_other_survey(make_card: MakeCard, name: str) -> None:
    tree = builtin_tree(name)
    card = make_card(tree)
    survey = "Galaxy Zoo" if name == "kaggle" else tree.title
    assert card.data.model_name == f"VGG16 on {survey}"
    for result in card.data.eval_results:
        assert (result.dataset_type, result.dataset_name) == (name, f"questions of {survey}, dataset {FINGERPRINT[:16]}")
    assert "galaxy-zoo" in card.data.tags
    assert ("for Kaggle's galaxies, the rules of the challenge" in card.text) == (name == "kaggle")


def test_a_survey_of_ones_own_is_not_tagged_as_galaxy_zoo(make_card: MakeCard) -> None:
    card = make_card(_own(title="Rings"))
    assert card.data.tags == ["astronomy", "galaxy-morphology", "image-regression", "vgg16"]
    assert card.data.model_name == "VGG16 on Rings" and "Kaggle" not in str(card)


def test_the_dirichlet_head_has_the_same_metadata(make_card: MakeCard) -> None:
    """Its concentrations are not measured by RMSE and MSE, which are those of the fractions."""
    tree = builtin_tree("decals5")
    card, other = make_card(tree, head="dirichlet", loss="dirichlet_multinomial"), make_card(tree)
    assert card.data.to_dict() == other.data.to_dict()
    assert "then a concentration for each question" in card.text and "concentration" not in other.text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_stays_a_text(make_card: MakeCard, text: str) -> None:
    expected = make_card(_own())
    card = make_card(_own(name=text, title=text, citation=text, url=text))
    shown = printable(text)
    [name] = {result.dataset_name for result in card.data.eval_results}
    assert card.data.model_name == f"VGG16 on {shown}"
    assert name == f"questions of {shown}, dataset {FINGERPRINT[:16]}"
    assert {result.dataset_type for result in card.data.eval_results} == {shown}
    assert card.data.to_dict().keys() == expected.data.to_dict().keys() and card.data.license == "other"
    assert card.text.count("\n") == expected.text.count("\n")
    assert re.findall("^(?:#|---|```).*", card.text, re.M)[1:] == re.findall("^(?:#|---|```).*", expected.text, re.M)[1:]


@given(st.text())
def test_any_text_is_one_line_of_yaml_that_reads_as_shown(text: str) -> None:
    line = cards._yaml(text)
    assert line.isprintable() and yaml.safe_load(f"- name: {line}\n  type: a") == [{"name": printable(text), "type": "a"}]


@given(st.floats(0, 1) | st.sampled_from([1e-5, 1e-300, 5e-324, 1 / 3]))
def test_a_number_is_read_as_the_same_number(value: float) -> None:
    assert yaml.safe_load(cards._number(value)) == value


def test_small_errors_are_numbers_too(make_card: MakeCard) -> None:
    card = make_card(mse=1e-10)
    assert [(result.metric_type, result.metric_value) for result in card.data.eval_results] == [("rmse", 1e-5), ("mse", 1e-10)]
