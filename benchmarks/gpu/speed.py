"""`trainer benchmark`: as a command, and over batch sizes, precisions, encodings and caches in one process."""

import faulthandler
import gc
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.processes import must_run, python
from benchmarks.gpu.settings import Settings

_BF16, _FP16 = "mixed_bfloat16", "mixed_float16"
# Encoding, cache, batch size, precision; the most important first.
_GRID: tuple[tuple[str, str, int, str], ...] = (
    *(("jpeg", "none", 128, _BF16), ("raw", "none", 128, _BF16), ("jpeg", "memory", 128, _BF16)),
    *(("jpeg", "none", 256, _BF16), ("jpeg", "none", 32, _BF16), ("jpeg", "none", 64, "float32")),
    *(("jpeg", "none", 64, _BF16), ("raw", "none", 64, _BF16), ("jpeg", "none", 128, "float32")),
    *(("jpeg", "none", 64, _FP16), ("jpeg", "none", 256, "float32"), ("jpeg", "none", 32, "float32")),
    *(("jpeg", "none", 128, _FP16), ("raw", "none", 256, _BF16), ("raw", "none", 32, _BF16)),
)
_SMALL_GRID = (("jpeg", "none", 4, _BF16), ("raw", "none", 4, "float32"), ("jpeg", "memory", 8, _FP16))
_LONGEST = 150.0  # seconds for one configuration, after which the process is ended


def _command(settings: Settings, seconds: float) -> None:
    figures, data = settings.out / "benchmark.json", settings.timed_dataset("jpeg")
    flags = ("--batch_size", 4, "--steps", 2, "--rounds", 1) if settings.small else ("--batch_size", 64, "--require_gpu")
    command = python("-m", "trainer", "benchmark", "--tfrecords", data, "--cache", "none", *flags, "--json", figures)
    took = must_run(command, settings.log("benchmark-command"), seconds)
    settings.record("benchmark", command_seconds=took, figures=json.loads(figures.read_text()))


def _grid(settings: Settings) -> None:
    """Measure each configuration that is not in the results. One that was begun but never finished is not repeated either."""
    import jax

    from trainer.benchmark import measure_speed
    from trainer.config import TrainConfig

    def peak_gib() -> float:
        """Of the whole process; 0 if JAX reports none, as on a CPU."""
        return round((jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30, 2)

    tried = {tuple(line["configuration"]) for line in settings.results() if "configuration" in line}
    steps_and_rounds = (2, 1) if settings.small else (20, 3)
    for configuration in _SMALL_GRID if settings.small else _GRID:
        if configuration in tried:
            continue
        encoding, cache, batch_size, precision = configuration
        settings.record("grid", "begun", configuration=configuration)
        faulthandler.dump_traceback_later(_LONGEST, exit=True)
        began, before = time.monotonic(), peak_gib()
        data, gpu = settings.timed_dataset(encoding), not settings.small
        config = TrainConfig(data, Path(), batch_size=batch_size, precision=precision, cache=cache, require_gpu=gpu)
        values: dict[str, Any] = {}
        try:
            values["figures"] = measure_speed(config, *steps_and_rounds).to_dict()
        except Exception as error:  # out of memory, for example: the next may fit
            values["error"] = f"{type(error).__name__}: {error}"[:400]
        faulthandler.cancel_dump_traceback_later()
        # The peak belongs to this configuration only if it rose.
        values["peak_gib" if peak_gib() > before else "peak_gib_at_most"] = peak_gib()
        settings.record("grid", configuration=configuration, seconds=round(time.monotonic() - began, 1), **values)
        gc.collect()


def measure(settings: Settings, seconds: float, which: str) -> None:
    """which: "command" or "grid"."""
    _command(settings, seconds) if which == "command" else _grid(settings)
