"""The saved form of a model, without what only young versions of Keras know.

A `.keras` file is a zip: the configuration of the layers as JSON, metadata, and the weights as HDF5. Keras refuses a
configuration with an argument that it does not know, even if its value is the default. Most arguments that new versions add are
None by default; without these and the others below, the archive opens in Keras 3.6 and later.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG, METADATA = "config.json", "metadata.json"
# Entries of Keras' own around each configuration, which it looks up by name.
_ENVELOPE = ("module", "class_name", "registered_name", "build_config")
# Other arguments that Keras 3.6 does not know, with their defaults: those of batch normalisation.
_YOUNG = {"renorm": False, "renorm_momentum": 0.99}


def without_defaults(config: Any) -> Any:
    """A configuration without the arguments that are None, and those that are young and have their default, at any depth."""
    if isinstance(config, dict):
        return {
            key: without_defaults(value) for key, value in config.items() if key in _ENVELOPE or not _is_default(key, value)
        }
    return [without_defaults(value) for value in config] if isinstance(config, list) else config


def _is_default(key: str, value: Any) -> bool:
    return value is None or (key in _YOUNG and value == _YOUNG[key])


def write_portable(saved: Path, target: Path, metadata: Mapping[str, Any]) -> None:
    """Copy a model as Keras saved it to a new file, with a configuration that older versions accept too.

    metadata: entries to add to those of Keras in metadata.json.
    """
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(target, "x") as out:
        for entry in source.infolist():
            if entry.filename == CONFIG:
                out.writestr(entry, json.dumps(without_defaults(json.loads(source.read(entry)))))
                continue
            if entry.filename == METADATA:
                out.writestr(entry, json.dumps({**json.loads(source.read(entry)), **metadata}))
                continue
            with source.open(entry) as content, out.open(entry, "w") as copy:
                while block := content.read(1 << 20):
                    copy.write(block)


def require_shapes(model: Any, size: int, outputs: int) -> None:
    """Raise ValueError unless a model takes images of this size, in pixels, and gives so many values for each."""
    here, expected = (model.input_shape, model.output_shape), ((None, size, size, 3), (None, outputs))
    if here != expected:
        raise ValueError(f"images and outputs are {here}, where those of this run are {expected}")
