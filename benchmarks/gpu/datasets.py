"""The datasets for all other steps, built by `preprocess`, and its speed."""

import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks.galaxies import lay_out
from benchmarks.gpu.processes import must_run, python
from benchmarks.gpu.settings import Settings

_DRAWN, _DRAWN_SMALL = 2000, 120  # synthetic galaxies, if none are given
_TIMED, _TIMED_SMALL = {"jpeg": 24_000, "raw": 8_000}, {"jpeg": 120, "raw": 120}


def measure(settings: Settings, seconds: float) -> None:
    """Build the dataset to train on, and two that are large enough to time the input, JPEG and raw."""
    small, log = settings.small, settings.log("datasets-preprocess")
    if not settings.survey.exists():
        count = _DRAWN_SMALL if small else _DRAWN
        must_run(python("-m", "preprocess", "demo", "--out", settings.survey, "--galaxies", count), log, seconds)

    def preprocess(source: Path, out: Path, *flags: object) -> float:
        common = ("--src", source, "--out", out, "--size", settings.size, "--overwrite")
        return must_run(python("-m", "preprocess", *common, *flags), log, seconds)

    if not settings.tfrecords:
        few = ("--limit", _DRAWN_SMALL, "--validation_fraction", 0.2, "--test_fraction", 0.2) if small else ()
        preprocess(settings.survey, settings.dataset, *few)
    timed, repeated = _TIMED_SMALL if small else _TIMED, settings.out / "data" / "repeated"
    shutil.rmtree(repeated, ignore_errors=True)
    different = lay_out(settings.survey, repeated, max(timed.values()))
    for encoding, galaxies in timed.items():
        flags = ("--encoding", encoding, "--limit", galaxies, "--validation_fraction", 0, "--test_fraction", 0)
        rate = galaxies / preprocess(repeated, settings.timed_dataset(encoding), *flags)
        counts: dict[str, Any] = {"galaxies": galaxies, "different": different, "cores": len(os.sched_getaffinity(0))}
        settings.record("datasets", encoding=encoding, **counts, images_per_second=round(rate, 1))
    shutil.rmtree(repeated)
