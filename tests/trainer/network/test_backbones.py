"""Every backbone scales its input as its weights expect, can start at random, and is saved as stock layers."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.network.test_model import BLOCKER
from tests.trainer.objective import objective
from tfrecords.errors import RunError
from trainer.backends.choose import choose
from trainer.benchmark import forward_flops
from trainer.network import backbones, model
from trainer.network.backbones import BACKBONES
from trainer.network.model import Design
from trainer.network.optimizer import Rate, build_optimizer

MEANS = np.linspace(0.01, 0.9, 37)
MODULES = {"vgg16": "vgg16", "resnet50": "resnet50", "convnext_tiny": "convnext"}
# From the papers' tables, for 224 x 224: 15.5, 3.8 and 4.5 billion multiplications and additions.
GFLOPS = {"vgg16": 2 * 15.3, "resnet50": 2 * 3.8, "convnext_tiny": 2 * 4.45}

pytestmark = pytest.mark.usefixtures("loaded_backend")


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


def _features(net: Any, pooling: str = "flatten") -> Any:
    """The part of a model before its head."""
    import keras

    return keras.Model(net.input, net.get_layer(pooling).output)


def _application(backbone: str, **options: Any) -> Any:
    import keras

    return getattr(keras.applications, BACKBONES[backbone].name)(include_top=False, **options)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", MODULES)
def test_features_from_a_file_of_weights_are_those_of_keras_on_the_same_images(
    backbone: str, images: np.ndarray, tmp_path: Path
) -> None:
    import keras

    reference = _application(backbone, weights=None, input_shape=(32, 32, 3))
    generator = np.random.default_rng(0)
    for weight, kernel in zip(reference.weights, backbones.draw_kernels(reference.weights, 0, "he"), strict=True):
        # The others away from the zeros and ones that biases, scales and means start with.
        weight.assign(kernel if weight.name == "kernel" else generator.uniform(0.5, 1.5, weight.shape))
    path = str(tmp_path / "base.weights.h5")
    reference.save_weights(path)
    prepared = getattr(keras.applications, MODULES[backbone]).preprocess_input(images.astype(np.float32))
    theirs = reference.predict_on_batch(prepared)
    design = Design(32, backbone)
    net = model.build_model(design, path, MEANS, "float32", seed=0)
    ours = _features(net).predict_on_batch(images).reshape(theirs.shape)
    assert theirs.std() > 0
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * abs(theirs).max())
    swapped = _features(net).predict_on_batch(images[..., ::-1]).reshape(theirs.shape)
    assert abs(swapped - theirs).max() > 2e-3 * abs(theirs).max()  # a wrong order of colours would be noticed


@pytest.mark.slow
@pytest.mark.parametrize("backbone", MODULES)
def test_from_random_weights_it_starts_at_the_means_and_follows_from_the_seed(backbone: str, images: np.ndarray) -> None:
    design = Design(32, backbone, scaling="random", pooling="average")
    net = model.build_model(design, "none", MEANS, "float32", 0)
    np.testing.assert_allclose(net.predict_on_batch(images), np.tile(MEANS, (4, 1)), atol=1e-6)
    of_base = _features(net, "average").weights
    same, other = (backbones.draw_kernels(of_base, seed, "means") for seed in (0, 1))
    kernels = [place for place, weight in enumerate(of_base) if weight.name == "kernel"]
    assert all(np.array_equal(of_base[place], same[place]) for place in kernels)
    alike = [place for place in kernels if np.array_equal(same[place], other[place])]
    assert len(alike) == sum("layer_scale" in weight.path for weight in of_base)  # ConvNeXt's scales are not drawn


@pytest.mark.slow
@pytest.mark.parametrize("backbone", MODULES)
def test_its_work_is_what_the_papers_say(backbone: str) -> None:
    net = model.architecture(Design(224, backbone, pooling="average"), "float32")
    assert forward_flops(net) / 1e9 == pytest.approx(GFLOPS[backbone], rel=0.03)


@pytest.mark.slow
def test_the_file_of_another_base_is_one_error_that_names_the_right_one(imagenet_weights: Path) -> None:
    with pytest.raises(RunError, match=r"a file with the weights of keras\.applications\.ResNet50\(include_top=False\)"):
        model.build_model(Design(32, "resnet50"), str(imagenet_weights), MEANS, "float32", seed=0)


@pytest.fixture
def eager() -> Iterator[None]:
    """Run steps eagerly: tracing hundreds of layers takes longer than running them twice."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def _trains_grouped_convolutions() -> bool:
    """Whether TensorFlow has their gradients here: on a CPU only with oneDNN, which it uses by default on some CPUs alone."""
    import tensorflow as tf

    kernel = tf.Variable(tf.ones((3, 3, 1, 2)))
    with tf.GradientTape() as tape:
        maps = tf.nn.conv2d(tf.ones((1, 4, 4, 2)) * kernel[0, 0, 0, 0], kernel, 1, "SAME")
    try:
        tape.gradient(maps, kernel)
    except tf.errors.InvalidArgumentError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_other_bases_learn_and_are_kept_as_models_that_load_where_this_package_is_not_installed(tmp_path: Path) -> None:
    import tensorflow as tf

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (8, 32, 32, 3), np.uint8)
    batch = [images, generator.random((8, 37), np.float32), np.zeros((8, 7), np.float32)]
    devices = choose("float32", require_gpu=False)
    predicted = {}
    backbones = ("resnet50", "convnext_tiny") if _trains_grouped_convolutions() else ("resnet50",)
    for backbone in backbones:
        design = Design(32, backbone, scaling="random", pooling="average", head="tree")
        net = model.build_model(design, "none", np.full(37, 0.3), "float32", seed=0)
        adam = build_optimizer(net.trainable_variables, Rate(1e-3), "float32", weight_decay=1e-4)
        training = devices.steps(net, adam, objective(loss="cross_entropy"))
        before = training.predict(images)()
        for source in training.ready(tf.data.Dataset.from_tensors(tuple(batch)).repeat(2)):
            training.train(source)
        assert np.isfinite(training.error_sum())
        model.for_inference(design, training.weights()).save(tmp_path / f"{backbone}.keras")
        predicted[backbone] = training.predict(images)()
        assert np.abs(before - predicted[backbone]).max() > 1e-3
    np.save(tmp_path / "images.npy", images)
    script = BLOCKER + (
        "import keras, numpy as np\n"
        f"for name in {backbones}:\n"
        "    net = keras.saving.load_model(f'{name}.keras', safe_mode=True)\n"
        "    np.save(f'{name}.npy', net.predict_on_batch(np.load('images.npy')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for name, expected in predicted.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected, atol=1e-5)


@pytest.mark.slow
def test_he_and_keras_start_the_output_at_random_and_means_does_not() -> None:
    kernels = {}
    for initialisation in ("means", "he", "keras"):
        net = model.build_model(Design(32, scaling="unit"), "none", MEANS, "float32", seed=0, initialisation=initialisation)
        kernels[initialisation] = [np.asarray(net.get_layer(name).kernel) for name in ("fc1", "fc2", "vote_fractions")]
        assert net.get_layer("vote_fractions").bias.numpy().any() == (initialisation == "means")
    hidden = {name: [kernel.std() for kernel in those[:2]] for name, those in kernels.items()}
    assert hidden["means"] == hidden["he"] == pytest.approx([(2 / 512) ** 0.5, (2 / 1024) ** 0.5], rel=0.01)
    assert not kernels["means"][2].any()
    assert kernels["he"][2].std() == pytest.approx((2 / 1024) ** 0.5, rel=0.02)
    assert hidden["keras"][0] == pytest.approx((2 / (512 + 1024)) ** 0.5, rel=0.01)


def test_glorot_draws_what_keras_draws() -> None:
    net = model.build_model(Design(32, scaling="unit"), "none", MEANS, "float32", seed=0, initialisation="keras")
    for name in ("block3_conv1", "fc1", "vote_fractions"):
        kernel = net.get_layer(name).kernel.numpy()
        field = np.prod(kernel.shape[:-2])
        limit = np.sqrt(6 / (field * (kernel.shape[-2] + kernel.shape[-1])))
        assert 0.97 * limit < abs(kernel).max() <= limit and kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
        assert not net.get_layer(name).bias.numpy().any()


@pytest.mark.parametrize(("kind", "low", "high"), [("unit", 0.0, 1.0), ("random", 0.0, 255 / 32)])
def test_inputs_are_scaled_as_asked(kind: str, low: float, high: float) -> None:
    import keras

    net = model.architecture(Design(32, scaling=kind), "float32")
    scaled = keras.Model(net.input, net.get_layer("scaling").output)
    ends = scaled.predict_on_batch(np.stack([np.full((32, 32, 3), level, np.uint8) for level in (0, 255)]))
    np.testing.assert_allclose([ends.min(), ends.max()], [low, high], rtol=1e-6)
    assert backbones.scaling("vgg16", kind)[1] == [0.0] * 3
