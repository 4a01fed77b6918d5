"""The rates from which the plan for two billion galaxies follows: where each was measured, or that it is assumed."""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

RATES_FILE = Path(__file__).parent / "rates.json"
_CPU_GALAXIES, _CPU_BATCH = 64, 16


@dataclass(frozen=True)
class Rate:
    """A figure that others follow from. where: how it was measured; empty if it is assumed."""

    value: float
    unit: str
    where: str = ""


# Figures of benchmarks/README.md, as they stand there.
_OF_README = {
    "build_two_cores": Rate(3205, "images/s, `preprocess` on two cores", "benchmarks.preprocess, 2026-11-26"),
    "build_16_cores": Rate(4364, "images/s, `preprocess` on 16 cores, start-up included", "benchmarks.gpu, one H200"),
    "hash": Rate(1505e6, "bytes/s, SHA-256 of shards on two cores", "benchmarks.checks"),
    "predict_gpu": Rate(10_721, "images/s, `trainer predict` of VGG16 on one GPU", "benchmarks.gpu, one H100"),
}
_ASSUMED = {
    "galaxies": Rate(2e9, "galaxies"),
    "nodes": Rate(100, "nodes"),
    "cores": Rate(32, "cores a node"),
    "gpus": Rate(1, "GPU a node"),
    "memory": Rate(128e9, "bytes of memory a node"),
    "examples_per_shard": Rate(32_768, "galaxies a shard, `--examples_per_shard`"),
}


def _record_bytes(src: Path, folder: Path) -> float:
    """Bytes of a record, on average, of the images of `src` as JPEGs of 212 x 212, stored with 224 x 224 pixels."""
    from preprocess import build_dataset

    shards = build_dataset(src, folder / "dataset", workers=2).dataset.shards
    return sum(shard.bytes for shard in shards) / sum(shard.examples for shard in shards)


def _predictions_per_second() -> float:
    """Predictions of VGG16 at 212 x 212 in float32 on the CPU, with random weights and images, after a first batch."""
    import numpy as np

    from tfrecords.builtin import builtin_tree
    from trainer.backends.choose import choose
    from trainer.config import TrainConfig
    from trainer.network.model import architecture

    tree, size = builtin_tree(), 212
    devices = choose("float32", require_gpu=False)
    with devices.scope():
        model = architecture(TrainConfig(Path("data"), Path("run"), weights="none").design(size, tree), devices.precision)
    predictor = devices.predictor(model)
    images = np.random.default_rng(0).integers(0, 256, (_CPU_BATCH, size, size, 3), np.uint8)
    predictor(images, 0)()
    began = time.perf_counter()
    for _ in range(_CPU_GALAXIES // _CPU_BATCH):
        predictor(images, 0)()
    return _CPU_GALAXIES / (time.perf_counter() - began)


def measure_rates(src: Path, machine: str) -> dict[str, Rate]:
    """Measure the rates that no other benchmark has, on real galaxies. machine: in words."""
    where = f"{machine}, {date.today().isoformat()}"
    files = [path.stat().st_size for path in src.rglob("*.jpg")]
    with tempfile.TemporaryDirectory() as folder:
        record = _record_bytes(src, Path(folder))
    number = f"{len(files):,} real galaxies"
    return {
        "source_bytes": Rate(sum(files) / len(files), "bytes a file, JPEGs of 424 x 424", number),
        "record_bytes": Rate(record, "bytes a record, crops of 212 x 212 (224 x 224 stored) as JPEG, with votes", number),
        "predict_cpu": Rate(_predictions_per_second(), "images/s, predictions of VGG16 on two cores", where),
    }


def save_rates(rates: Mapping[str, Rate]) -> None:
    """Keep measured rates for `known_rates`."""
    RATES_FILE.write_text(json.dumps({name: asdict(rate) for name, rate in rates.items()}, indent=1) + "\n")


def known_rates() -> dict[str, Rate]:
    """All rates by name: assumed ones, those of benchmarks/README.md, and those that `measure_rates` measured."""
    measured = {name: Rate(**rate) for name, rate in json.loads(RATES_FILE.read_text("utf-8")).items()}
    return {**_ASSUMED, **_OF_README, **measured}
