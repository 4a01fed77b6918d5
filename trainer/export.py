"""A run's best model for other programs: TensorFlow's SavedModel, ONNX, LiteRT.

All three come from Keras' TensorFlow backend, in a process of its own, whichever backend trained the model: `model.keras`
is the same float32 network on both. A process of its own also gives back the memory that the conversion took.

Every format takes uint8 images (any batch, size, size, 3) under the name `image` and gives float32 (batch, 37) under
the name `vote_fractions`. A SavedModel also takes whole JPEG files.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfrecords.errors import ConfigError, GalaxyZooError, RunError, one_line
from tfrecords.files import local_path, partial_path, sync_folder
from tfrecords.outputs import Output
from trainer.run import Run, open_run

# As on the command line, and as their makers write them.
FORMATS = {"savedmodel": "SavedModel", "onnx": "ONNX", "litert": "LiteRT"}
_IMAGE, _VOTES = "image", "vote_fractions"
_SAID = 3  # exit status of the process where its stdout is the line for the user


def export_model(run: Run, out: Path, kind: str = "savedmodel") -> None:
    """Write the run's best model to the new folder (SavedModel) or file `out`; it appears when it is complete.

    kind: one of FORMATS. Raises ConfigError where `out` exists, is no .tflite for LiteRT, or the package for ONNX is
    missing; RunError where the run has no model, or it is damaged, or the conversion fails.
    """
    if os.path.lexists(local_path(out)):
        ours = "remove this export, or " if out.is_dir() and Output(out, "export").exists else ""
        raise ConfigError(f"{out}: exists already: {ours}choose another --out")
    if kind == "litert" and out.suffix != ".tflite":
        raise ConfigError(f"{out}: a LiteRT file ends in .tflite: give --out {out.with_suffix('.tflite')}")
    if kind == "onnx" and importlib.util.find_spec("tf2onnx") is None:
        raise ConfigError("--format onnx needs the package tf2onnx, which is not installed: pip install -e '.[export]'")
    if not run.model_path.is_file():
        raise RunError(f"{run.folder}: has no {run.model_path.name} yet: train it first with the same trainer command")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(out)
    partial.mkdir()
    try:
        target = partial / out.name
        _run_process(run, target, kind, scratch=partial)
        files = [path for path in (target, *target.rglob("*")) if path.is_file()]
        for path in files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if target.is_dir():
            marker, names = Output(target, "export"), [path.relative_to(target).as_posix() for path in files]
            marker.adopt(*names)
            marker.settle(*names)
        if os.path.lexists(out):  # by now: a rename would replace a file
            raise ConfigError(f"{out}: exists already: choose another --out")
        target.rename(out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _run_process(run: Run, target: Path, kind: str, scratch: Path) -> None:
    """Make the export in a process that keeps what it writes on the way in `scratch`, so that none of it is left behind."""
    ours = {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(scratch.resolve())}
    command = [sys.executable, "-m", "trainer.export", str(run.folder), str(target), kind]
    done = subprocess.run(command, env={**os.environ, **ours}, capture_output=True, text=True, check=False)
    if done.returncode == _SAID:
        raise RunError(done.stdout.strip().splitlines()[-1])
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1][:200]
        reason = f"killed by signal {-done.returncode}" if done.returncode < 0 else last
        scarce = done.returncode < 0 or any(word in last for word in ("MemoryError", "No space left"))
        way_out = "free memory or disk space and run the same command again, or " if scarce else ""
        error = RunError(
            f"{run.model_path}: the conversion to {FORMATS[kind]} failed ({reason}): {way_out}see the whole of it with "
            "--verbosity=1"
        )
        error.add_note(done.stderr)
        raise error


def _served(model: Any) -> Any:
    """The model as a tf.function of uint8 images that says the names of what goes in and comes out."""
    import tensorflow as tf

    def serve(image: Any) -> dict[str, Any]:
        return {_VOTES: model(image, training=False)}

    return tf.function(serve, input_signature=[tf.TensorSpec(model.input_shape, tf.uint8, name=_IMAGE)])


def _resized(pixels: Any, height: Any, width: int) -> Any:
    """uint8 (any, any, 3) as uint8 (height, width, 3)."""
    import tensorflow as tf

    resized = tf.image.resize(pixels, (height, width), "lanczos3", antialias=True)
    return tf.cast(tf.clip_by_value(tf.floor(resized + 0.5), 0, 255), tf.uint8)


def stored_image(jpeg: Any, crop_fraction: float, size: int) -> Any:
    """An encoded image as the uint8 (size, size, 3) that `tfrecords.images.crop` makes of it, in TensorFlow's operations.

    Not resized, it is the same in every pixel; resized, of real galaxies about one value in 50,000 differs, by one level.
    As Pillow does, it resizes first across, rounds to whole levels, then down: in one step an eighth of the values would
    differ, in noise by up to 50 levels.
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
    """Signatures: serving_default, uint8 images; serve_jpeg, a vector of whole JPEG files, cut as the run's images were."""
    import tensorflow as tf

    crop_fraction, size = run.config["dataset"]["crop_fraction"], model.input_shape[1]

    def serve_jpeg(jpegs: Any) -> dict[str, Any]:
        images = tf.map_fn(
            lambda jpeg: stored_image(jpeg, crop_fraction, size),
            jpegs,
            fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8),
        )
        return {_VOTES: model(images, training=False)}

    signatures = {
        "serving_default": _served(model),
        "serve_jpeg": tf.function(serve_jpeg, input_signature=[tf.TensorSpec((None,), tf.string, name="jpegs")]),
    }
    # Keras' own export stores every weight twice.
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    tf.saved_model.save(module, str(target), signatures=signatures)


def _onnx(model: Any, run: Run, target: Path) -> None:
    """Convert the network with its weights as inputs, and put them in afterwards.

    tf2onnx copies its graph dozens of times: with the weights of a 212 x 212 model in it that took 29 s and 8 GB, so it
    takes 2 s and less than 2 GB.
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
        tf.TensorSpec(model.input_shape, tf.uint8, name=_IMAGE),
        *(tf.TensorSpec(array.shape, tf.float32, name=name) for name, array in weights.items()),
    ]
    converted, _ = tf2onnx.convert.from_function(tf.function(network, input_signature=signature), signature)
    graph = converted.graph
    for node in list(graph.node):
        if node.op_type == "Transpose" and node.input[0] in weights:  # ONNX has the axes of a kernel in another order
            weights[node.output[0]] = weights.pop(node.input[0]).transpose(node.attribute[0].ints)
            graph.node.remove(node)
    del graph.input[1:]
    graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    for tensor in (*graph.input, *graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(converted)
    onnx.save(converted, str(target))


def _litert(model: Any, run: Run, target: Path) -> None:
    """Convert with LiteRT's built-in operations alone: those of TensorFlow would need another runtime."""
    import tensorflow as tf

    # Shorter ways do not serve: from a function the weights are lost, and Keras' own export lets TensorFlow's operations in.
    saved = target.with_name("savedmodel")
    _savedmodel(model, run, saved)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=["serving_default"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    target.write_bytes(converter.convert())


def _export_here(folder: str, target: str, kind: str) -> None:
    run = open_run(Path(folder))
    writers: dict[str, Callable[[Any, Run, Path], None]] = {"savedmodel": _savedmodel, "onnx": _onnx, "litert": _litert}
    writers[kind](run.load_model(), run, Path(target))


if __name__ == "__main__":
    try:
        _export_here(*sys.argv[1:])
    except (GalaxyZooError, OSError) as error:
        print(one_line(error))
        sys.exit(_SAID)
