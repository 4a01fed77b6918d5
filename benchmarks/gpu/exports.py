"""The run `best` as SavedModel and ONNX, and the ONNX file's predictions compared with the run's."""

import importlib.util
import shutil
import time

import numpy as np

from benchmarks.gpu.processes import must_run, python
from benchmarks.gpu.settings import Settings, Skip
from tfrecords.errors import install_extra

_TOLERANCE = 0.01  # of a vote fraction: on a GPU the run predicts in TensorFloat-32, ONNX Runtime on the CPU in float32


def measure(settings: Settings, seconds: float) -> None:
    """Exits with a message if the largest difference exceeds the tolerance."""
    ends, folder = time.monotonic() + seconds, settings.out / "data" / "exports"
    shutil.rmtree(folder, ignore_errors=True)
    for kind in ("savedmodel", "onnx"):
        if kind == "onnx" and (missing := [name for name in ("tf2onnx", "onnxruntime") if not importlib.util.find_spec(name)]):
            raise Skip(f"the ONNX file needs {' and '.join(missing)}: {install_extra('export')}")
        command = python("-m", "trainer", "export", "--run", settings.run("best"), "--format", kind, "--out", folder / kind)
        took = must_run(command, settings.log(f"exports-{kind}"), ends - time.monotonic())
        settings.record("exports", format=kind, command_seconds=took)
    import onnxruntime

    from tfrecords.dataset import open_dataset
    from trainer.predict import predict_split
    from trainer.run import open_run

    dataset, count = open_dataset(settings.dataset), 16 if settings.small else 64
    expected = predict_split(open_run(settings.run("best")), dataset, "train", limit=count).predicted
    from trainer.input.evaluation import evaluation_batches

    ids, images, _ = next(evaluation_batches(dataset, "train", count, count).as_numpy_iterator())
    session = onnxruntime.InferenceSession(str(folder / "onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": images.astype(np.float32)})[0][np.argsort(ids, kind="stable")]
    off = float(np.abs(found - expected).max())
    settings.record("exports", format="onnx", galaxies=count, largest_difference=off, tolerance=_TOLERANCE)
    if off > _TOLERANCE:
        raise SystemExit("the predictions of the ONNX file differ from those of the run")
