"""The network is the article's, starts at the column means, and reads the weights of Keras correctly."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfrecords.dataset import Dataset
from tfrecords.errors import RunError
from trainer.network import model
from trainer.network.model import Design
from trainer.network.optimizer import Rate, build_optimizer
from trainer.run import Run

MEANS = np.linspace(0.01, 0.9, 37)
RANDOM = Design(32, scaling="random")
# Blocks imports of our packages, wherever this Python has them installed.
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("trainer", "tfrecords", "preprocess"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
"""

pytestmark = pytest.mark.usefixtures("loaded_backend")


@pytest.fixture(scope="module")
def fresh() -> Any:
    """A model for 32 x 32 pixels from random weights. Read-only."""
    return model.build_model(RANDOM, "none", MEANS, "float32", seed=0)


def _any_images(size: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    return np.concatenate([noise, np.zeros((1, size, size, 3), np.uint8), np.full((1, size, size, 3), 255, np.uint8)])


def _base(net: Any) -> list[np.ndarray]:
    return [weight.numpy() for layer in net.layers if layer.name.startswith("block") for weight in layer.weights]


def test_at_212_pixels_it_has_the_articles_34677605_parameters() -> None:
    net = model.architecture(Design(212), precision="float32")
    assert net.count_params() == 34_677_605
    names = [layer.name for layer in net.layers][-5:]
    assert names == ["flatten", "fc1", "dropout", "fc2", "vote_fractions"]
    assert [net.get_layer(name).get_config().get("activation") for name in names] == [None, "relu", None, "relu", "sigmoid"]
    assert net.get_layer("dropout").rate == 0.5


@pytest.mark.parametrize("size", [32, 45])
def test_it_takes_uint8_images_of_any_size_from_32_and_gives_37_fractions(size: int) -> None:
    net = model.architecture(Design(size, scaling="random"), precision="float32")
    assert net.input.dtype == "uint8" and net.input_shape == (None, size, size, 3)
    votes = net.predict_on_batch(_any_images(size))
    assert votes.shape == (5, 37) and votes.dtype == np.float32
    assert ((votes >= 0) & (votes <= 1)).all()


def test_below_32_pixels_it_says_what_to_do() -> None:
    with pytest.raises(RunError, match=r"images of 31 x 31 are too small.*--size 32"):
        model.build_model(Design(31), "none", MEANS, "float32", seed=0)


def test_its_output_starts_at_the_column_means_for_any_image(fresh: Any) -> None:
    np.testing.assert_allclose(fresh.predict_on_batch(_any_images(32)), np.tile(MEANS, (5, 1)), atol=1e-6)


def test_columns_that_nobody_or_everybody_chose_still_start_at_finite_weights() -> None:
    means = np.repeat([0.0, 1.0], [20, 17])
    net = model.build_model(RANDOM, "none", means, "float32", seed=0)
    assert np.isfinite(net.get_layer("vote_fractions").bias.numpy()).all()
    np.testing.assert_allclose(net.predict_on_batch(_any_images(32)[:1])[0], means, atol=2e-4)


@pytest.mark.slow
def test_random_weights_are_he_initialised_and_follow_from_the_seed(fresh: Any) -> None:
    kernels = [array for array in _base(fresh) if array.ndim == 4]
    assert len(kernels) == 13
    for kernel in (*kernels, fresh.get_layer("fc1").kernel.numpy(), fresh.get_layer("fc2").kernel.numpy()):
        inputs = np.prod(kernel.shape[:-1])
        assert kernel.std() == pytest.approx(np.sqrt(2 / inputs), rel=0.05)
        assert abs(kernel.mean()) < 0.1 * kernel.std()
    assert all(not array.any() for array in _base(fresh) if array.ndim == 1)
    same, other = (model.build_model(RANDOM, "none", MEANS, "float32", seed=seed) for seed in (0, 1))
    for one, two in zip(fresh.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert all(not np.array_equal(one, two) for one, two in zip(kernels, _base(other)[::2], strict=True))


@pytest.mark.slow
def test_features_from_imagenet_weights_equal_those_of_keras_on_the_same_images(imagenet_weights: Path, kaggle: Path) -> None:
    import keras

    files = sorted((kaggle / "images_training_rev1").iterdir())[:3]
    galaxies = np.stack([np.asarray(Image.open(file).convert("RGB").resize((64, 64))) for file in files])
    images = np.concatenate([galaxies, _any_images(64)])
    net = model.build_model(Design(64), str(imagenet_weights), MEANS, "float32", seed=0)
    ours = keras.Model(net.input, net.get_layer("block5_pool").output).predict_on_batch(images)
    reference = keras.applications.VGG16(include_top=False, weights=str(imagenet_weights), input_shape=(64, 64, 3))
    theirs = reference.predict_on_batch(keras.applications.vgg16.preprocess_input(images.astype(np.float32)))
    assert theirs.max() > 10  # features that are not zero, because equal zeros would prove nothing
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.max())
    swapped = reference.predict_on_batch(keras.applications.vgg16.preprocess_input(images[..., ::-1].astype(np.float32)))
    assert abs(swapped - theirs).max() > 0.1 * theirs.max()  # a wrong order of colours would be noticed


def test_a_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"typo\.h5: no such file: give --weights imagenet, none, or a file"):
        model.build_model(Design(32), str(tmp_path / "typo.h5"), MEANS, "float32", seed=0)


@pytest.mark.parametrize("kind", ["notes.txt", "text.weights.h5", "text.h5", "other.weights.h5", "other.keras", "other.h5"])
def test_a_file_without_the_weights_of_the_base_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    import keras

    path = tmp_path / kind
    if kind.startswith("other"):
        other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
        (other.save_weights if "weights" in kind else other.save)(path)
    else:
        path.write_text("these are no weights\n" * 100)
    with warnings.catch_warnings(record=True) as warned, pytest.raises(RunError) as caught:
        model.build_model(Design(32), str(path), MEANS, "float32", seed=0)
    assert not warned  # warnings would bury the line
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 500
    assert message.endswith("a file with the weights of keras.applications.VGG16(include_top=False)")


def test_a_model_of_our_own_is_no_file_of_weights_for_its_first_kernel_takes_the_colours_in_another_order(
    tiny_run: Run,
) -> None:
    with pytest.raises(RunError, match=r"model\.keras: .*give --weights its run folder, or a file with the weights"):
        model.build_model(Design(32), str(tiny_run.model_path), MEANS, "float32", seed=0)


@pytest.mark.slow
def test_imagenet_weights_that_cannot_be_downloaded_are_one_line_with_the_ways_out(
    plain_dataset: Dataset, tmp_path: Path
) -> None:
    nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    arguments = ["--tfrecords", plain_dataset.folder, "--out", tmp_path / "run", "--epochs=1", "--limit=8"]
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments)],
        env={**os.environ, **nowhere, "KERAS_HOME": str(tmp_path), "no_proxy": ""},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: the ImageNet weights cannot be downloaded")
    assert "--weights FILE" in done.stderr and "--weights none" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_under_mixed_precision_scaling_weights_and_output_stay_float32(precision: str, fresh: Any) -> None:
    import keras

    before = keras.config.dtype_policy().name
    net = model.build_model(RANDOM, "none", MEANS, precision, seed=0)
    assert keras.config.dtype_policy().name == before
    assert net.get_layer("block1_conv1").compute_dtype == precision.removeprefix("mixed_")
    assert {weight.dtype for weight in net.weights} == {"float32"}
    assert net.get_layer("scaling").compute_dtype == net.get_layer("vote_fractions").compute_dtype == "float32"
    assert net.output.dtype == "float32"
    assert isinstance(build_optimizer([], Rate(1e-4), precision), keras.optimizers.LossScaleOptimizer) == (
        precision == "mixed_float16"
    )
    plain = model.for_inference(RANDOM, net.get_weights())
    assert {layer.compute_dtype for layer in plain.layers if layer.weights} == {"float32"}
    np.testing.assert_allclose(plain.predict_on_batch(_any_images(32)), fresh.predict_on_batch(_any_images(32)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_the_kept_model_loads_in_safe_mode_where_this_package_is_not_installed(
    backend: str, tiny_run: Run, tmp_path: Path
) -> None:
    script = BLOCKER + (
        "import contextlib, importlib, keras, numpy as np\n"
        "net = keras.saving.load_model(sys.argv[1], safe_mode=True)\n"
        "assert keras.backend.backend() == sys.argv[2]\n"
        "assert getattr(net, 'build_optimizer', None) is None\n"
        "assert net.input.dtype == 'float32', net.input.dtype\n"
        "np.save('votes.npy', net.predict_on_batch(np.load('images.npy')))\n"
        "for ours in ('trainer', 'tfrecords', 'preprocess'):\n"
        "    assert ours not in sys.modules\n"
        "    with contextlib.suppress(ModuleNotFoundError):\n"
        "        sys.exit(f'{importlib.import_module(ours)} can be imported here')\n"
    )
    np.save(tmp_path / "images.npy", _any_images(32))
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(tiny_run.model_path), backend],
        cwd=tmp_path, env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = tiny_run.load_model().predict_on_batch(_any_images(32))
    np.testing.assert_allclose(np.load(tmp_path / "votes.npy"), ours, atol=1e-6 if backend == "tensorflow" else 1e-5)
    assert ours.std(axis=0).max() > 1e-3  # it was trained: different images give different votes
    assert tiny_run.model_path.stat().st_size < 1.05 * 4 * tiny_run.load_model().count_params()  # Adam's is twice that
