"""An exported model predicts like the original, in every format, whichever backend and precision trained it."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from preprocess.job import BuildSettings, build_dataset
from tests.trainer import small
from tfrecords.builtin import builtin_tree
from tfrecords.errors import ConfigError, RunError
from tfrecords.images import crop, decode
from trainer.export import FORMATS, export_model, stored_image
from trainer.run import Run, open_run

Main = Callable[..., tuple[int, str, str]]
NAMES = {"savedmodel": "model", "onnx": "model.onnx", "litert": "model.tflite"}
SIZE = 32
pytestmark = pytest.mark.slow


def _trainer(*arguments: object, **environment: str) -> str:
    """The stdout of `trainer` in a separate process."""
    command = [*small.PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def mixed_run(
    small_survey: Path, build_settings: Callable[..., BuildSettings], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """A run trained on JAX in mixed precision for one step, on crops of half of 64 pixels. Read-only."""
    folder = tmp_path_factory.mktemp("mixed")
    all_for_training = build_settings(validation_fraction=0.0, test_fraction=0.0, limit=8)
    data = build_dataset(small_survey, folder / "data", all_for_training, workers=1).dataset.folder
    flags = f"--backbone={small.SMALL}", "--precision=mixed_bfloat16", "--weights=none", "--epochs=1", "--batch_size=8"
    more = "--learning_rate=1e-3", "--warmup_steps=0", "--schedule=constant", "--head=tree", "--pooling=average"
    _trainer(f"--tfrecords={data}", f"--out={folder / 'run'}", *flags, *more, KERAS_BACKEND="jax")
    run = open_run(folder / "run")
    assert run.settings["precision"] == "mixed_bfloat16"
    yield run
    shutil.rmtree(folder)


@pytest.fixture(scope="module", params=["float32 on TensorFlow", "mixed_bfloat16 on JAX"])
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.getfixturevalue("tiny_run" if request.param.startswith("float32") else "mixed_run")
    return found


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the run's model in every format; each command may create the folder. Read-only."""
    folder = tmp_path_factory.mktemp("exported") / "new"

    def command(kind: str) -> str:
        return _trainer("export", f"--run={run.folder}", f"--format={kind}", f"--out={folder / NAMES[kind]}")

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(command, NAMES))
    assert [lines.splitlines()[0] + "\n" for lines in said] == [
        f"{folder / 'model'}: SavedModel, images (0..255 or 0..1) or JPEG files in, 37 vote fractions out\n",
        f"{folder / 'model.onnx'}: ONNX, images (0..255 or 0..1) in, 37 vote fractions out\n",
        f"{folder / 'model.tflite'}: LiteRT, images (0..255 or 0..1) in, 37 vote fractions out\n",
    ]
    scripts = [lines.splitlines()[1].removeprefix("next: python ").removesuffix(" FOLDER predictions.csv") for lines in said]
    assert all(Path(script).is_file() for script in scripts) and len(set(scripts)) == 3
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def keras_model(run: Run) -> Any:
    """The model that the exports are compared with."""
    return run.load_model()


@pytest.fixture(scope="module")
def serve_jpeg(exported: Path) -> Callable[[list[bytes]], np.ndarray]:
    """A function that returns the vote fractions of whole JPEG files, using only the SavedModel."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(exported / "model"))  # it must outlive its signature
    return lambda files: loaded.signatures["serve_jpeg"](jpegs=tf.constant(files, tf.string))["vote_fractions"].numpy()


def _images(count: int, size: int = SIZE) -> np.ndarray:
    """Noise at every level of light, so that the votes differ."""
    generator = np.random.default_rng(0)
    light = np.linspace(0.1, 1, count)[:, None, None, None]
    return (generator.integers(0, 256, (count, size, size, 3)) * light).astype(np.uint8)


def _jpeg(height: int, width: int, mode: str = "RGB", **options: Any) -> bytes:
    generator = np.random.default_rng(height * width)
    image = Image.fromarray(generator.integers(0, 256, (height, width, 3)).astype(np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def _our_way(run: Run, keras_model: Any, files: list[bytes]) -> np.ndarray:
    fraction = run.config["dataset"]["crop_fraction"]
    return np.asarray(keras_model.predict_on_batch(np.stack([crop(decode(file), fraction, SIZE) for file in files])))


def _assert_same_votes(votes: np.ndarray, expected: np.ndarray, atol: float) -> None:
    """Assert that votes agree as closely as promised, and far more closely than those of different images."""
    assert votes.dtype == np.float32 and votes.shape == (len(votes), 37)
    spread = expected.std(axis=0).max()
    np.testing.assert_allclose(votes, expected[: len(votes)], rtol=0, atol=min(atol, spread / 10))


def _run_savedmodel(path: Path, images: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    assert set(loaded.signatures) == {"serving_default", "serve_uint8", "serve_jpeg"}
    serve = loaded.signatures["serve_uint8" if images.dtype == np.uint8 else "serving_default"]
    (signature,) = serve.structured_input_signature[1].values()
    assert signature.dtype == images.dtype and signature.shape.as_list() == [None, SIZE, SIZE, 3]
    return np.asarray(serve(image=tf.constant(images))["vote_fractions"])


def _run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.type, taken.shape) == ("tensor(float)", ["batch", SIZE, SIZE, 3])
    return np.asarray(session.run(["vote_fractions"], {"image": images.astype(np.float32)})[0])


def _run_litert(path: Path, images: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    assert not [op for op in interpreter._get_ops_details() if op["op_name"].startswith(("Flex", "CUSTOM"))]
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    images = images.astype(np.float32)
    assert taken["dtype"] == np.float32 and taken["shape_signature"].tolist() == [-1, SIZE, SIZE, 3]
    interpreter.resize_tensor_input(taken["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], images)
    interpreter.invoke()
    by_index = interpreter.get_tensor(given["index"])
    runner = Interpreter(str(path)).get_signature_runner("serving_default")  # it resizes by itself
    np.testing.assert_array_equal(runner(image=images)["vote_fractions"], by_index)
    return np.asarray(by_index)


_RUNTIMES = {"savedmodel": _run_savedmodel, "onnx": _run_onnx, "litert": _run_litert}


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_gives_in_its_own_runtime_the_votes_of_keras_for_any_batch(
    kind: str, exported: Path, keras_model: Any
) -> None:
    images = _images(5)
    expected = keras_model.predict_on_batch(images)
    for batch in (images, images[:1]):
        votes = _RUNTIMES[kind](exported / NAMES[kind], batch)
        assert len(votes) == len(batch)
        _assert_same_votes(votes, expected, 1e-5)


@pytest.mark.parametrize("kind", ["keras", *FORMATS])
def test_no_range_of_the_input_is_misread(kind: str, exported: Path, keras_model: Any) -> None:
    images = np.concatenate([_images(5), np.zeros((1, SIZE, SIZE, 3), np.uint8), _images(1) % 2])  # black, nearly black
    expected = keras_model.predict_on_batch(images)
    for same in (images, images.astype(np.float32), images / np.float32(255)):
        votes = keras_model.predict_on_batch(same) if kind == "keras" else _RUNTIMES[kind](exported / NAMES[kind], same)
        _assert_same_votes(votes, expected, 1e-5)
    one_by_one = np.concatenate([keras_model.predict_on_batch(images[place : place + 1] / 255) for place in range(len(images))])
    _assert_same_votes(one_by_one, expected, 1e-5)


def _metadata(kind: str, exported: Path, run: Run) -> dict[str, Any]:
    path = exported / NAMES.get(kind, "")
    if kind == "keras":
        with zipfile.ZipFile(run.model_path) as archive:
            text = json.dumps(json.loads(archive.read("metadata.json"))["galaxy_zoo"])
    elif kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        text = session.get_modelmeta().custom_metadata_map["recipe"]
    else:
        text = (path / "assets" / "recipe.json" if kind == "savedmodel" else path.with_name("model.tflite.json")).read_text()
    content: dict[str, Any] = json.loads(text)
    return content


@pytest.mark.parametrize("kind", ["keras", *FORMATS])
def test_every_format_holds_the_recipe_of_its_images_and_what_its_outputs_are(kind: str, exported: Path, run: Run) -> None:
    content = _metadata(kind, exported, run)
    assert content["columns"] == list(builtin_tree().columns) and content["id"] == "GalaxyID"
    assert (content["crop_fraction"], content["size"]) == (run.config["dataset"]["crop_fraction"], SIZE)
    assert (content["resize_filter"], content["channels"]) == ("Lanczos", "RGB")
    assert content["tree"] == builtin_tree().text and "Willett et al. 2013" in content["citation"]
    assert content["run"]["settings"] == run.settings and content["run"]["folder"] == str(run.folder)
    assert content["run"]["dataset"] == run.config["dataset"]["fingerprint"]
    card = (run.folder / "README.md").read_text()
    assert "Lanczos" in card and "0..255 or 0..1" in card


@pytest.fixture(scope="module")
def pictures(kaggle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real galaxies as JPEG and PNG, one of them with transparent pixels. Read-only."""
    folder = tmp_path_factory.mktemp("pictures")
    for path in sorted((kaggle / "images_test_rev1").iterdir())[:70]:  # more than one batch of the script
        shutil.copy(path, folder)
    with Image.open(path) as image:
        image.save(folder / "7.png")
        image.putalpha(Image.fromarray(np.where(np.arange(424) < 20, 0, 255).astype(np.uint8)[None].repeat(424, 0)))
        image.save(folder / "8.png")
    return folder


@pytest.mark.parametrize("kind", FORMATS)
def test_the_script_beside_a_model_predicts_as_trainer_does_without_this_package(
    kind: str, run: Run, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "away" / NAMES[kind]
    export_model(run, out, kind)
    script = (out if kind == "savedmodel" else out.parent) / "predict.py"
    moved = tmp_path / "moved"
    out.parent.rename(moved)
    script = moved / script.relative_to(out.parent)
    assert len(script.read_text().splitlines()) <= 50
    blocked = "import runpy, sys; sys.modules.update(trainer=None, tfrecords=None, preprocess=None); "
    arguments = [str(script), str(pictures), str(tmp_path / "theirs.csv")]
    code = f"{blocked}sys.argv = {arguments!r}; runpy.run_path(sys.argv[0])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    _trainer("predict", f"--run={run.folder}", f"--images={pictures}", f"--out={tmp_path / 'ours.csv'}")
    ours, theirs = (pd.read_csv(tmp_path / name) for name in ("ours.csv", "theirs.csv"))
    assert list(ours.columns[: len(theirs.columns)]) == list(theirs.columns)
    assert ours.iloc[:, 0].tolist() == theirs.iloc[:, 0].tolist()
    difference = abs(ours.iloc[:, 1:38].to_numpy() - theirs.iloc[:, 1:].to_numpy())
    assert difference.max() <= 1e-4
    assert theirs.iloc[:, 1:].std().max() > 1e-3  # else every image gets the same votes


def test_a_script_of_someone_else_is_left_as_it_is(tiny_run: Run, tmp_path: Path) -> None:
    (tmp_path / "predict.py").write_text("print('mine')\n")
    export_model(tiny_run, tmp_path / "model.onnx", "onnx")
    assert (tmp_path / "predict.py").read_text() == "print('mine')\n"
    assert "predict-model.onnx.py FOLDER" in (tmp_path / "predict-model.onnx.py").read_text()
    (tmp_path / "model.onnx").unlink()
    export_model(tiny_run, tmp_path / "model.onnx", "onnx")  # our own script may stay
    (tmp_path / "model.onnx").unlink()
    (tmp_path / "predict-model.onnx.py").write_text("print('mine too')\n")
    before = {path: path.read_text() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"predict-model\.onnx\.py: already exists, and would be written beside model\.onnx"):
        export_model(tiny_run, tmp_path / "model.onnx", "onnx")
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


def test_a_litert_recipe_of_someone_else_is_left_and_nothing_is_half_written(tiny_run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.tflite.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"model\.tflite\.json: already exists"):
        export_model(tiny_run, tmp_path / "model.tflite", "litert")
    assert [path.name for path in tmp_path.iterdir()] == ["model.tflite.json"]


def test_models_of_earlier_versions_for_uint8_alone_are_exported_for_any_range(tiny_run: Run, tmp_path: Path) -> None:
    import keras

    from trainer.network.model import Design, architecture

    folder = tmp_path / "old"
    shutil.copytree(tiny_run.folder, folder)
    old = architecture(Design(SIZE, small.SMALL, "random", head="sigmoid"), "float32")
    old.set_weights(tiny_run.load_model().get_weights())
    assert old.inputs[0].dtype == "uint8"
    run = open_run(folder)
    (folder / "model.keras").unlink()
    old.save(folder / "model.keras")
    run.output.settle("model.keras")
    export_model(run, tmp_path / "model.onnx", "onnx")
    images = _images(4)
    expected = keras.saving.load_model(folder / "model.keras", compile=False).predict_on_batch(images)
    for same in (images, images / np.float32(255)):
        _assert_same_votes(_run_onnx(tmp_path / "model.onnx", same), expected, 1e-5)
    beyond = np.where(images == images.max(), 1.1, images / np.float32(255)).astype(np.float32)  # as after resizing
    cut = keras.saving.load_model(folder / "model.keras", compile=False).predict_on_batch(
        np.where(images == images.max(), 255, images).astype(np.uint8)
    )
    _assert_same_votes(_run_onnx(tmp_path / "model.onnx", beyond), cut, 1e-5)


def test_an_export_holds_every_weight_once_and_only_its_script_and_recipe_lie_beside_it(exported: Path, run: Run) -> None:
    scripts = {"predict.py", "predict-model.onnx.py", "predict-model.tflite.py"}
    there = {path.name for path in exported.iterdir()}
    assert there - scripts == {*NAMES.values(), "model.tflite.json"}
    assert len(there & scripts) == 2 and "predict.py" in there and (exported / "model" / "predict.py").is_file()
    for name in NAMES.values():
        made = exported / name
        total = sum(path.stat().st_size for path in (made, *made.rglob("*")) if path.is_file())
        assert total < 1.05 * run.model_path.stat().st_size


def test_jpegs_whose_crop_is_not_resized_give_the_votes_of_our_own_path(
    run: Run, keras_model: Any, serve_jpeg: Callable[[list[bytes]], np.ndarray]
) -> None:
    side = round(SIZE / run.config["dataset"]["crop_fraction"])
    rotated = Image.Exif()
    rotated[0x0112] = 6  # an orientation that viewers would apply
    files = [
        _jpeg(side, side), _jpeg(side, side + 9), _jpeg(side + 50, side, quality=95, subsampling=0),
        _jpeg(side, side, "L"), _jpeg(side, side, progressive=True), _jpeg(side, side, exif=rotated),
    ]  # fmt: skip
    _assert_same_votes(serve_jpeg(files), _our_way(run, keras_model, files), 1e-5)


def test_a_vector_may_hold_jpegs_of_any_size_and_number(
    run: Run, keras_model: Any, serve_jpeg: Callable[[list[bytes]], np.ndarray]
) -> None:
    files = [_jpeg(*shape) for shape in ((200, 301), (33, 31), (64, 64), (9, 40), (424, 424))]
    expected = _our_way(run, keras_model, files)
    for chosen in (files, files[:1]):
        votes = serve_jpeg(chosen)
        assert len(votes) == len(chosen)
        _assert_same_votes(votes, expected, 1e-2)


def test_real_jpegs_give_the_votes_of_our_own_path(
    run: Run, keras_model: Any, serve_jpeg: Callable[[list[bytes]], np.ndarray], kaggle: Path
) -> None:
    files = [path.read_bytes() for path in sorted((kaggle / "images_test_rev1").iterdir())[:8]]
    _assert_same_votes(serve_jpeg(files), _our_way(run, keras_model, files), 1e-2)


def test_a_jpeg_that_was_cut_off_is_refused_not_filled_with_grey(serve_jpeg: Callable[[list[bytes]], np.ndarray]) -> None:
    import tensorflow as tf

    whole = _jpeg(64, 64)
    for bad in (whole[: len(whole) // 2], b"", b"no image"):
        with pytest.raises(tf.errors.InvalidArgumentError):
            serve_jpeg([whole, bad])


@pytest.mark.parametrize(("fraction", "size"), [(0.5, 212), (0.5, 64), (0.75, 128), (1.0, 512), (0.29, 50)])
def test_tensorflow_cuts_and_resizes_as_pillow_does(fraction: float, size: int) -> None:
    side = round(size / fraction)
    shapes = ((50, 70), (33, 31), (301, 200), (424, 424), (side, side + 7), (side + 13, side))
    files = [*(_jpeg(*shape) for shape in shapes), _jpeg(90, 120, "L"), _jpeg(90, 120, "CMYK")]
    for file in files:
        whole = decode(file)
        ours, tensorflows = crop(whole, fraction, size), np.asarray(stored_image(file, fraction, size))
        difference = abs(ours.astype(int) - tensorflows)
        resized = int(fraction * min(whole.shape[:2]) + 0.5) != size
        assert difference.max() <= (1 if resized else 0)
        assert (difference > 0).mean() < 1e-3


def test_real_galaxies_are_cut_in_every_pixel_as_our_own_path_cuts_them(kaggle: Path) -> None:
    for path in sorted((kaggle / "images_training_rev1").iterdir())[:20]:
        file = path.read_bytes()
        np.testing.assert_array_equal(stored_image(file, 0.5, 212), crop(decode(file), 0.5, 212))


@pytest.mark.parametrize("name", ["file.onnx", "folder"])
def test_a_path_that_exists_is_refused_and_left_as_it_is(name: str, tiny_run: Run, tmp_path: Path) -> None:
    out = tmp_path / name
    if name == "folder":
        out.mkdir()
    else:
        out.write_text("someone's")
    with pytest.raises(ConfigError, match="already exists: choose another --out"):
        export_model(tiny_run, out, "onnx")
    assert list(tmp_path.iterdir()) == [out]
    assert name == "folder" or out.read_text() == "someone's"


def test_a_litert_file_of_another_ending_is_one_line_with_the_right_one(tiny_run: Run, run_main: Main, tmp_path: Path) -> None:
    code, out, err = run_main("export", "--run", tiny_run.folder, "--format=litert", "--out", tmp_path / "model.lite")
    assert (code, out) == (1, "")
    right = tmp_path / "model.tflite"
    assert err == f"error: {tmp_path / 'model.lite'}: a LiteRT file must end in .tflite: use --out {right}\n"
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_one_line_that_says_what_to_install(
    tiny_run: Run, run_main: Main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    code, out, err = run_main("export", "--run", tiny_run.folder, "--format=onnx", "--out", tmp_path / "new" / "model.onnx")
    assert (code, out) == (1, "")
    assert (
        err
        == "error: --format onnx needs the package tf2onnx, which is not installed: pip install 'galaxy-zoo-vgg16[export]'\n"
    )
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_model_and_a_damaged_model_are_one_line_and_leave_nothing(
    tiny_run: Run, run_main: Main, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny_run.folder / "config.json").read_bytes())
    with pytest.raises(RunError, match=r"has no model\.keras yet"):
        export_model(open_run(folder), tmp_path / "out")
    (folder / "model.keras").write_bytes(b"no model")
    code, out, err = run_main("export", "--run", folder, "--out", tmp_path / "out")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert err.startswith(f"error: {folder / 'model.keras'}: cannot be loaded (")
    assert err.endswith("): train again in another --out\n")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_conversion_that_fails_is_one_line_and_leaves_nothing(
    tiny_run: Run, run_main: Main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "packages"
    broken.mkdir()
    (broken / "tf2onnx.py").write_text("raise ImportError('built for another numpy')\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    code, out, err = run_main("export", "--run", tiny_run.folder, "--format=onnx", "--out", tmp_path / "model.onnx")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert "the conversion to ONNX failed (ImportError: built for another numpy): " in err
    assert list(tmp_path.iterdir()) == [broken]


def test_an_export_that_is_killed_leaves_nothing(tiny_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "model.tflite"
    command = [sys.executable, "-m", "trainer", "export", f"--run={tiny_run.folder}", "--format=litert", f"--out={out}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob(".model.tflite.*.partial/savedmodel")):  # in the middle of its work
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err == "\ninterrupted by SIGTERM: run the same command again\n"
    assert not list(tmp_path.iterdir())


def test_help_names_the_formats_the_default_and_the_extra(run_main: Main) -> None:
    code, out, _ = run_main("export", "--help")
    words = " ".join(out.split())
    assert code == 0 and "{savedmodel,onnx,litert}" in words and "(default: savedmodel)" in words
    assert "pip install 'galaxy-zoo-vgg16[export]'" in words and "FILE.tflite" in words
