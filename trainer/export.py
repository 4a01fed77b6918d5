"""Export a run's best model as TensorFlow SavedModel, ONNX or LiteRT.

All three are made with Keras' TensorFlow backend, in a separate process, whichever backend trained the model: `model.keras`
is the same float32 network on both. The separate process also releases the memory that the conversion needs.

In every format the input `image` is float32 (any batch, size, size, 3), levels in 0..255 or 0..1 (see `network.levels`), and
the output `vote_fractions` is float32 (batch, outputs). A SavedModel also accepts uint8 images and whole JPEG files.

`trainer.metadata` is the asset `recipe.json` of a SavedModel, the property `recipe` in ONNX, and for LiteRT the file MODEL.json
beside it. A script that predicts a folder of images (see `beside`) is in the folder of a SavedModel, or beside the file.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfrecords.children import of_module
from tfrecords.errors import ConfigError, GalaxyZooError, RunError, install_extra, one_line
from tfrecords.files import local_path, partial_path, sync_folder
from tfrecords.outputs import Output
from trainer.beside import predicting_script, recipe_name, script_names
from trainer.network.levels import as_levels
from trainer.run import Run, open_run

# The values of --format, and the official names.
FORMATS = {"savedmodel": "SavedModel", "onnx": "ONNX", "litert": "LiteRT"}
_IMAGE, _VOTES, _RECIPE = "image", "vote_fractions", "recipe.json"
_SAID = 3  # exit status of the process if its stdout is the message for the user


def export_model(run: Run, out: str | Path, kind: str = "savedmodel") -> Path:
    """Convert the best model of a run for other programs.

    Parameters
    ----------
    run : Run
        A run, from `open_run` or `train_model`.
    out : str or Path
        New folder (SavedModel) or file (ONNX; LiteRT: FILE.tflite). It appears when it is complete, with `predict.py` in the
        folder or beside the file; if that name is taken, `predict-FILE.py`.
    kind : str
        savedmodel, onnx or litert.

    Returns
    -------
    Path
        The script that predicts a folder of images with this export.

    Raises
    ------
    ConfigError
        If `out` or a file to be written beside it exists, `out` does not end in .tflite for LiteRT, or the package for ONNX is
        missing.
    RunError
        If the run has no model, it is damaged, or the conversion fails.

    Examples
    --------
    >>> from trainer import export_model, open_run
    >>> print(export_model(open_run("runs/demo"), "saved").as_posix())
    saved/predict.py
    """
    out = local_path(out)
    if os.path.lexists(out):
        ours = "remove this export, or " if out.is_dir() and Output(out, "export").exists else ""
        raise ConfigError(f"{out}: already exists: {ours}choose another --out")
    if kind == "litert" and out.suffix != ".tflite":
        raise ConfigError(f"{out}: a LiteRT file must end in .tflite: use --out {out.with_suffix('.tflite')}")
    if kind == "onnx" and importlib.util.find_spec("tf2onnx") is None:
        raise ConfigError(f"--format onnx needs the package tf2onnx, which is not installed: {install_extra('export')}")
    if not run.model_path.is_file():
        raise RunError(f"{run.folder}: has no {run.model_path.name} yet: resume its training first")
    metadata = json.dumps(run.metadata(), indent=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(out)
    partial.mkdir()
    script, placed = out / script_names(out.name)[0], list[Path]()
    try:
        target = partial / out.name
        if kind != "savedmodel":
            script, placed = _place(out, kind, metadata)
        _run_process(run, target, kind, scratch=partial)
        if kind == "savedmodel":
            (target / script.name).write_text(predicting_script(kind, out.name, script.name), "utf-8")
        files = [path for path in (target, *target.rglob("*")) if path.is_file()]
        for path in files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if target.is_dir():
            marker, names = Output(target, "export"), [path.relative_to(target).as_posix() for path in files]
            marker.adopt(*names)
            marker.settle(*names)
        if os.path.lexists(out):  # created in the meantime: the rename would replace a file
            raise ConfigError(f"{out}: already exists: choose another --out")
        target.rename(out)
        sync_folder(out.parent)
        placed = []
    finally:
        for path in placed:
            path.unlink(missing_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
    return script


def _place(out: Path, kind: str, metadata: str) -> tuple[Path, list[Path]]:
    """Write the files beside a model's file; return the script, and those that are new.

    Raises ConfigError if no name is free.
    """
    choices = [{name: predicting_script(kind, out.name, name) for name in script_names(out.name)}]
    if kind == "litert":
        choices.append({recipe_name(out.name): metadata})
    paths: list[Path] = []
    placed: list[Path] = []
    try:
        for texts in choices:
            path, is_new = _place_one(out, texts)
            paths.append(path)
            if is_new:
                placed.append(path)
    except BaseException:
        for path in placed:
            path.unlink()
        raise
    return paths[0], placed


def _place_one(out: Path, texts: Mapping[str, str]) -> tuple[Path, bool]:
    """Write a text beside `out` under the first name that is free, unless one of them holds it already.

    Returns its path, and whether it is new.
    """
    for name, text in texts.items():
        path = out.parent / name
        try:
            with path.open("x", encoding="utf-8") as file:
                try:
                    file.write(text)
                    file.flush()
                except BaseException:
                    path.unlink()
                    raise
            return path, True
        except FileExistsError:
            if path.is_file() and path.read_bytes() == text.encode("utf-8"):
                return path, False
    raise ConfigError(f"{path}: already exists, and would be written beside {out.name}: choose another --out")


def _run_process(run: Run, target: Path, kind: str, scratch: Path) -> None:
    """Export in a separate process. Its temporary files are in `scratch`, so none are left behind."""
    ours = {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(scratch.resolve())}
    command, environment = of_module("trainer.export", str(run.folder), str(target), kind)
    done = subprocess.run(command, env={**environment, **ours}, capture_output=True, text=True, check=False)
    if done.returncode == _SAID:
        raise RunError(done.stdout.strip().splitlines()[-1])
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no error message"])[-1][:200]
        reason = f"killed by signal {-done.returncode}" if done.returncode < 0 else last
        scarce = done.returncode < 0 or any(word in last for word in ("MemoryError", "No space left"))
        way_out = "free memory or disk space and run the same command again, or " if scarce else ""
        error = RunError(
            f"{run.model_path}: the conversion to {FORMATS[kind]} failed ({reason}): {way_out}run with --verbosity=1 to see "
            "the traceback"
        )
        error.add_note(done.stderr)
        raise error


def _served(model: Any, dtype: str) -> Any:
    """The model as a tf.function of images of a dtype, with named input and output."""
    import tensorflow as tf

    def serve(image: Any) -> dict[str, Any]:
        return {_VOTES: model(tf.cast(image, tf.float32), training=False)}

    return tf.function(serve, input_signature=[tf.TensorSpec(model.input_shape, dtype, name=_IMAGE)])


def _for_any_range(model: Any) -> Any:
    """The model for images of any range, as runs of earlier versions were saved for uint8 images alone."""
    import keras

    if model.inputs[0].dtype != "uint8":
        return model
    images = keras.Input(model.input_shape[1:], dtype="float32", name=_IMAGE)
    # The cast to uint8 cuts fractions off, and what overshoots would wrap around.
    cut = keras.layers.ReLU(max_value=255.0, dtype="float32", name="cut_off")(as_levels(images))
    rounded = keras.layers.Rescaling(1.0, 0.5, dtype="float32", name="rounded")(cut)
    return keras.Model(images, model(rounded))


def _resized(pixels: Any, height: Any, width: int) -> Any:
    """uint8 (any, any, 3) as uint8 (height, width, 3)."""
    import tensorflow as tf

    resized = tf.image.resize(pixels, (height, width), "lanczos3", antialias=True)
    return tf.cast(tf.clip_by_value(tf.floor(resized + 0.5), 0, 255), tf.uint8)


def stored_image(jpeg: Any, crop_fraction: float, size: int) -> Any:
    """The crop of an encoded image, uint8 (size, size, 3), as from `tfrecords.images.crop` but in TensorFlow operations.

    Without resizing every pixel is the same; with resizing about one value in 50,000 differs on real galaxies, by one level.
    Like Pillow, it resizes horizontally, rounds to whole levels, then resizes vertically: in one step an eighth of the values
    would differ, in noise by up to 50 levels.
    """
    import tensorflow as tf

    whole = tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")
    height, width = tf.unstack(tf.shape(whole)[:2])
    shorter = tf.cast(tf.minimum(height, width), tf.float64)
    side = tf.cast(tf.floor(tf.constant(crop_fraction, tf.float64) * shorter + 0.5), tf.int32)
    row, column = (height - side) // 2, (width - side) // 2
    centre = whole[row : row + side, column : column + side]
    stored = tf.cond(tf.equal(side, size), lambda: centre, lambda: _resized(_resized(centre, side, size), size, size))
    return tf.ensure_shape(stored, (size, size, 3))


def _savedmodel(model: Any, run: Run, target: Path) -> None:
    """Signatures: serving_default and serve_uint8 for images; serve_jpeg for a vector of whole JPEG files, cropped as ours."""
    import tensorflow as tf

    crop_fraction, size = run.config["dataset"]["crop_fraction"], model.input_shape[1]

    def serve_jpeg(jpegs: Any) -> dict[str, Any]:
        images = tf.map_fn(
            lambda jpeg: stored_image(jpeg, crop_fraction, size),
            jpegs,
            fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8),
        )
        return {_VOTES: model(tf.cast(images, tf.float32), training=False)}

    signatures = {
        "serving_default": _served(model, "float32"),
        "serve_uint8": _served(model, "uint8"),
        "serve_jpeg": tf.function(serve_jpeg, input_signature=[tf.TensorSpec((None,), tf.string, name="jpegs")]),
    }
    # Keras' own export stores every weight twice.
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    recipe = target.with_name(_RECIPE)
    recipe.write_text(json.dumps(run.metadata(), indent=1), "utf-8")
    module.recipe = tf.saved_model.Asset(str(recipe))
    tf.saved_model.save(module, str(target), signatures=signatures)


def _onnx(model: Any, run: Run, target: Path) -> None:
    """Convert the network with its weights as inputs, and insert them afterwards.

    tf2onnx copies its graph dozens of times. With the weights of a 212 x 212 model in it that took 29 s and 8 GB; without
    them it takes 2 s and less than 2 GB.
    """
    import numpy as np
    import onnx
    import tensorflow as tf
    import tf2onnx

    weights = {f"weight_{index:02d}": np.asarray(variable) for index, variable in enumerate(model.trainable_variables)}

    def network(image: Any, *arrays: Any) -> dict[str, Any]:
        votes, _ = model.stateless_call(arrays, model.non_trainable_variables, image, training=False)
        return {_VOTES: votes}

    signature = [
        tf.TensorSpec(model.input_shape, tf.float32, name=_IMAGE),
        *(tf.TensorSpec(array.shape, tf.float32, name=name) for name, array in weights.items()),
    ]
    converted, _ = tf2onnx.convert.from_function(tf.function(network, input_signature=signature), signature)
    graph = converted.graph
    for node in list(graph.node):
        if node.op_type == "Transpose" and node.input[0] in weights:  # ONNX orders the axes of a kernel differently
            weights[node.output[0]] = weights.pop(node.input[0]).transpose(node.attribute[0].ints)
            graph.node.remove(node)
    del graph.input[1:]
    graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    for tensor in (*graph.input, *graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(converted, {"recipe": json.dumps(run.metadata())})
    onnx.checker.check_model(converted)
    onnx.save(converted, str(target))


def _litert(model: Any, run: Run, target: Path) -> None:
    """Convert to LiteRT's built-in operations only: those of TensorFlow would need another runtime."""
    import tensorflow as tf

    # Shorter ways fail: from a function the weights are lost, and Keras' own export allows TensorFlow's operations.
    saved = target.with_name("savedmodel")
    _savedmodel(model, run, saved)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=["serving_default"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    target.write_bytes(converter.convert())


def _export_here(folder: str, target: str, kind: str) -> None:
    run = open_run(Path(folder))
    writers: dict[str, Callable[[Any, Run, Path], None]] = {"savedmodel": _savedmodel, "onnx": _onnx, "litert": _litert}
    writers[kind](_for_any_range(run.load_model()), run, Path(target))


if __name__ == "__main__":
    try:
        _export_here(*sys.argv[1:])
    except (GalaxyZooError, OSError) as error:
        print(one_line(error))
        sys.exit(_SAID)
