"""A saved model opens in older versions of Keras: its configuration holds nothing that the oldest one does not know.

`.ci/keras_versions.py` opens models in real installs; here the arguments are compared with those that Keras 3.6 writes itself.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tfrecords.builtin import builtin_tree
from trainer.network.archive import CONFIG, without_defaults, write_portable
from trainer.network.backbones import BACKBONES
from trainer.network.heads import HEADS
from trainer.network.model import Design, build_model, for_inference
from trainer.run import Run, open_run

# The arguments of each class in the configurations of our models, as Keras 3.6.0 writes them.
# fmt: off
KNOWN = {
    "Activation": "activation",
    "Add": "",
    "BatchNormalization":
        "axis beta_constraint beta_initializer beta_regularizer center epsilon gamma_constraint "
        "gamma_initializer gamma_regularizer momentum moving_mean_initializer moving_variance_initializer "
        "scale synchronized",
    "Concatenate": "axis",
    "Constant": "value",
    "Conv2D":
        "activation activity_regularizer bias_constraint bias_initializer bias_regularizer data_format "
        "dilation_rate filters groups kernel_constraint kernel_initializer kernel_regularizer kernel_size "
        "padding strides use_bias",
    "Cropping1D": "cropping",
    "DTypePolicy": "",
    "Dense":
        "activation bias_constraint bias_initializer bias_regularizer kernel_constraint kernel_initializer "
        "kernel_regularizer units use_bias",
    "DepthwiseConv2D":
        "activation activity_regularizer bias_constraint bias_initializer bias_regularizer data_format "
        "depth_multiplier depthwise_constraint depthwise_initializer depthwise_regularizer dilation_rate "
        "kernel_size padding strides use_bias",
    "Dropout": "noise_shape rate seed",
    "Flatten": "data_format",
    "Functional": "input_layers layers output_layers",
    "GlobalAveragePooling2D": "data_format keepdims",
    "GlobalMaxPooling1D": "data_format keepdims",
    "GlobalMaxPooling2D": "data_format keepdims",
    "GlorotUniform": "seed",
    "InputLayer": "batch_shape sparse optional ragged",
    "LayerNormalization":
        "axis beta_constraint beta_initializer beta_regularizer center epsilon gamma_constraint "
        "gamma_initializer gamma_regularizer rms_scaling scale",
    "MaxPooling2D": "data_format padding pool_size strides",
    "Multiply": "",
    "Ones": "",
    "ReLU": "max_value negative_slope threshold",
    "Rescaling": "offset scale",
    "Reshape": "target_shape",
    "Sequential": "build_input_shape layers",
    "Softmax": "axis",
    "ZeroPadding2D": "data_format padding",
    "Zeros": "",
}
# fmt: on
COMMON = {"name", "trainable", "dtype"}


def _configs(value: Any) -> list[tuple[str, dict[str, Any]]]:
    """Class and arguments of all objects in a configuration."""
    if isinstance(value, list):
        return [each for part in value for each in _configs(part)]
    if not isinstance(value, dict):
        return []
    own = [(value["class_name"], value["config"])] if isinstance(value.get("config"), dict) and "class_name" in value else []
    return own + [each for part in value.values() for each in _configs(part)]


def _config(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(CONFIG))


def _unknown(config: Any) -> set[str]:
    """The classes and arguments that Keras 3.6 does not know."""
    of_classes = [(name, {*arguments}) for name, arguments in _configs(config) if name != "__keras_tensor__"]
    strange = {name for name, _ in of_classes if name not in KNOWN}
    return strange | {
        f"{name}.{argument}"
        for name, arguments in of_classes
        if name in KNOWN
        for argument in arguments - COMMON - {*KNOWN[name].split()}
    }


def _saved(design: Design, folder: Path) -> tuple[Any, Path, Path]:
    """A model, as Keras saves it, and as we do."""
    start = build_model(design, "none", np.full(len(design.tree.columns), 0.3), "float32", 0)
    model = for_inference(design, start.get_weights())
    saved, portable = folder / "saved.keras", folder / "portable.keras"
    model.save(saved)
    write_portable(saved, portable, {"galaxy_zoo": {"size": 32}})
    return model, saved, portable


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_model_holds_nothing_that_the_oldest_keras_does_not_know(backbone: str, tmp_path: Path) -> None:
    _, saved, portable = _saved(Design(32, backbone=backbone, pooling="average", head="tree"), tmp_path)
    assert _unknown(_config(portable)) == set()
    assert _unknown(_config(saved)) != set()  # else nothing is left to do, or the test sees nothing


@pytest.mark.parametrize("head", HEADS)
def test_a_copy_opens_with_the_same_weights_and_predictions(head: str, tmp_path: Path) -> None:
    design = Design(32, pooling="average", head=head, tree=builtin_tree("decals5"))
    model, saved, portable = _saved(design, tmp_path)
    assert _unknown(_config(portable)) == set()
    opened = keras.saving.load_model(portable, compile=False)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(opened.predict(images, verbose=0), model.predict(images, verbose=0))
    with zipfile.ZipFile(saved) as before, zipfile.ZipFile(portable) as after:
        assert after.testzip() is None
        of_keras, ours = (json.loads(archive.read("metadata.json")) for archive in (before, after))
        assert ours == {**of_keras, "galaxy_zoo": {"size": 32}}
        assert [entry.filename for entry in after.infolist()] == [entry.filename for entry in before.infolist()]
    assert [layer.get_config() for layer in opened.layers] == [layer.get_config() for layer in model.layers]


def test_the_model_of_a_run_is_such_a_copy(tiny_run: Run) -> None:
    config = _config(open_run(tiny_run.folder).model_path)
    assert not [argument for _, arguments in _configs(config) for argument, value in arguments.items() if value is None]


def test_only_what_is_a_default_is_left_out() -> None:
    layer = {
        "module": "keras.layers",
        "registered_name": None,
        "config": {"a": None, "renorm": False, "sides": [None, 2], "b": 0},
    }
    expected = {"module": "keras.layers", "registered_name": None, "config": {"sides": [None, 2], "b": 0}}
    assert without_defaults(layer) == expected
    assert without_defaults({"renorm": True, "renorm_momentum": 0.9}) == {"renorm": True, "renorm_momentum": 0.9}
