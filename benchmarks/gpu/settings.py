"""The settings of a check, its folder and its results. Standard library only, so that the PyTorch steps can import it."""

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


class Skip(Exception):
    """A step cannot run here; the message is the reason."""


@dataclass(frozen=True)
class Settings:
    """The settings that all steps share, and the folder `out`, which stores them in settings.json.

    data/          galaxies, and the datasets built from them
    runs/          run folders
    logs/          output of steps and their commands
    results.jsonl  a line of JSON for each result, written immediately

    src: galaxies in Kaggle's layout; tfrecords: dataset to train on; empty if this check makes them. small: 32 x 32 pixels and
    few steps, for a machine without a GPU.
    """

    out: Path
    src: str
    tfrecords: str
    weights: str
    epochs: int
    small: bool

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return 32 if self.small else 212

    @property
    def survey(self) -> Path:
        """The source of the datasets."""
        return Path(self.src) if self.src else self.out / "data" / "demo"

    @property
    def dataset(self) -> Path:
        """The dataset to train on."""
        return Path(self.tfrecords) if self.tfrecords else self.out / "data" / "galaxies"

    def timed_dataset(self, encoding: str) -> Path:
        """The dataset on which the input is timed; large enough for epochs of many steps."""
        return self.out / "data" / f"timed-{encoding}"

    def run(self, name: str) -> Path:
        return self.out / "runs" / name

    def log(self, name: str) -> Path:
        return self.out / "logs" / f"{name}.log"

    def record(self, step: str, status: str = "measured", **values: Any) -> None:
        """Append a result: "measured" by the step itself, or "done", "failed" or "skipped" for how a step ended."""
        line = json.dumps({"step": step, "status": status, **values})
        with (self.out / "results.jsonl").open("a") as file:
            file.write(line + "\n")
        print(line if len(line) < 600 else line[:600] + " ...", flush=True)

    def results(self) -> list[dict[str, Any]]:
        """All results so far, except lines truncated by a kill."""
        path, lines = self.out / "results.jsonl", []
        for line in path.read_text().splitlines() if path.exists() else []:
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
        return lines

    def save(self) -> None:
        """Make the folders in `out`. Exits with a message if it holds a check with other settings."""
        for name in ("data", "runs", "logs"):
            (self.out / name).mkdir(parents=True, exist_ok=True)
        path, text = self.out / "settings.json", json.dumps(asdict(self), default=str)
        if path.exists() and path.read_text() != text:
            raise SystemExit(f"error: {self.out}: holds a check with other settings ({path.name}): choose another --out")
        path.write_text(text)
        results = self.out / "results.jsonl"
        if results.exists() and not results.read_bytes().endswith(b"\n"):  # killed in the middle of a line
            with results.open("a") as file:
                file.write("\n")


def load(out: Path) -> Settings:
    """The settings that `save` stored in `out`."""
    return Settings(**{**json.loads((out / "settings.json").read_text()), "out": out})
