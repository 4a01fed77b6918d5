"""JSON that holds its own SHA-256, so that an edit shows: config.json and progress.json of a run."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tfrecords.dataset import to_json


def seal(content: Mapping[str, Any]) -> str:
    """JSON with the SHA-256 of the rest of it as "sha256", as in a dataset's manifest."""
    return to_json({**content, "sha256": hashlib.sha256(to_json(content).encode("utf-8")).hexdigest()})


def unseal(text: str) -> dict[str, Any]:
    """The content of a text from `seal`. Raises ValueError, KeyError or TypeError if the text was changed."""
    content: dict[str, Any] = json.loads(text)
    if seal({name: value for name, value in content.items() if name != "sha256"}) != text:
        raise ValueError("it has changed since it was written")
    del content["sha256"]
    return content
