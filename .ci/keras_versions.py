"""Opens our models in real installs of older and newer versions of Keras, on TensorFlow and JAX, in throw-away environments.

    .venv/bin/python .ci/keras_versions.py [VERSION ...]

Prints, for each backbone and head, the largest difference of its predictions from ours and the seconds to load it. Needs uv.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Keras, with the TensorFlow of its time; JAX has an environment of its own, because their protocol buffers clash.
VERSIONS = {"3.6.0": "2.18.0", "3.10.0": "2.19.0", "3.13.0": "2.20.0", "3.15.1": "2.21.0"}
_OPEN = """
import json, os, sys, time
import keras, numpy as np
rows = {}
for name in json.loads(sys.argv[1]):
    begin = time.monotonic()
    model = keras.saving.load_model(f"{name}.keras", compile=False)
    seconds = time.monotonic() - begin
    images, expected = np.load("images.npy"), np.load(f"{name}.npy")
    ranges = (images, images.astype("float32"), images / np.float32(255))
    difference = max(np.abs(model.predict(each, verbose=0) - expected).max() for each in ranges)
    rows[name] = (float(difference), seconds)
print(json.dumps(rows))
"""


def make_models(folder: Path) -> list[str]:
    """Save a model of every backbone and head, and its predictions for noise; return their names."""
    import numpy as np

    from trainer.network.archive import write_portable
    from trainer.network.backbones import BACKBONES
    from trainer.network.heads import HEADS
    from trainer.network.model import Design, build_model, for_inference

    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    names = []
    for backbone in BACKBONES:
        for head in HEADS:
            design = Design(64, backbone=backbone, pooling="average", head=head, scaling="random")
            weights = build_model(design, "none", np.full(37, 0.3), "float32", 0).get_weights()
            model = for_inference(design, weights)
            name = f"{backbone}-{head}"
            model.save(folder / "saved.keras")
            write_portable(folder / "saved.keras", folder / f"{name}.keras", {"galaxy_zoo": {"size": 64}})
            np.save(folder / f"{name}.npy", model.predict(images, verbose=0))
            names.append(name)
    return names


def environment(folder: Path, packages: list[str]) -> Path:
    """Install packages in a new environment; return its Python."""
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run(["uv", "pip", "install", "-q", "--python", str(python), *packages], check=True)
    return python


def main() -> None:
    """Print a line for each version, backend and model."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        names = make_models(folder)
        for version in sys.argv[1:] or VERSIONS:
            for backend, package in (("tensorflow", f"tensorflow-cpu=={VERSIONS[version]}"), ("jax", "jax")):
                python = environment(folder / f"{version}-{backend}", [f"keras=={version}", package])
                variables = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
                command = [str(python), "-c", _OPEN, json.dumps(names)]
                done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"Keras {version} on {backend}: {done.stderr.strip().splitlines()[-1]}")
                    continue
                for name, (difference, seconds) in json.loads(done.stdout.splitlines()[-1]).items():
                    print(
                        f"Keras {version} on {backend}: {name:<24} differs by {difference:.1e}, loads in {seconds:.1f} s",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
