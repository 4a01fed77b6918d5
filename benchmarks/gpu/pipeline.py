"""The speed of the input pipeline alone, by number of cores."""

import os
import time

from benchmarks.gpu.processes import must_run, python
from benchmarks.gpu.settings import Settings

_COUNTS = (1, 2, 4, 8)
_CACHED = 8000  # galaxies kept in memory, decoded: 1 GB


def _on_these_cores(settings: Settings) -> None:
    from trainer.backends.startup import load_backend

    load_backend()
    from tfrecords.dataset import open_dataset
    from trainer.input.training import TrainingInput

    batch_size, warm_up, at_least = (8, 3, 0.3) if settings.small else (64, 30, 2.0)
    for encoding, cache in (("jpeg", "none"), ("raw", "none"), ("jpeg", "decoded")):
        dataset, limit = open_dataset(settings.timed_dataset(encoding)), 0 if cache == "none" else _CACHED
        batches = iter(TrainingInput(dataset, batch_size, 0, limit, cache).batches(0, 2**31))
        for _ in range(warm_up):
            next(batches)
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < at_least:
            next(batches)
            count += 1
        rate, cores = round(count * batch_size / (time.perf_counter() - began)), len(os.sched_getaffinity(0))
        settings.record("pipeline", cores=cores, encoding=encoding, cache=cache, images_per_second=rate)


def measure(settings: Settings, seconds: float, cores: str = "") -> None:
    """Measure each number of cores in turn, in a separate process; with `cores`, in this process on that many cores."""
    available, ends = sorted(os.sched_getaffinity(0)), time.monotonic() + seconds
    if cores:
        os.sched_setaffinity(0, available[: int(cores)])  # before any library counts them
        _on_these_cores(settings)
        return
    for count in (*(count for count in _COUNTS if count < len(available)), len(available)):
        command = python("-m", "benchmarks.gpu.child", "pipeline", settings.out, seconds, count)
        must_run(command, settings.log(f"pipeline-{count}"), ends - time.monotonic())
