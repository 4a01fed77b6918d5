"""Versions, hardware, and whether JAX computes on a GPU."""

import importlib.metadata
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.settings import Settings
from tfrecords.errors import install_extra

_PACKAGES = {"jax", "jaxlib", "keras", "tensorflow", "numpy", "torch", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"}
_OF_GPU = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv,noheader")


def _printed(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"{command[0]} failed ({type(error).__name__})"


def measure(settings: Settings, seconds: float) -> None:
    """Record versions and hardware. Exits with a message if JAX finds no GPU, except with --small."""
    versions = {each.name.lower(): each.version for each in importlib.metadata.distributions() if each.name in _PACKAGES}
    cpu = [line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    settings.record("environment", python=sys.version.split()[0], **versions)
    settings.record("environment", gpu=_printed(*_OF_GPU), cpu=cpu[:1], cores=len(os.sched_getaffinity(0)))
    began = time.monotonic()
    from trainer.backends.startup import load_backend

    load_backend()
    import jax

    device, total = jax.devices()[0], float(jax.numpy.ones((256, 256)).sum())
    started = round(time.monotonic() - began, 1)
    settings.record("environment", devices=list(map(str, jax.devices())), kind=device.device_kind, start_seconds=started)
    if total != 256 * 256:
        raise SystemExit(f"JAX computes a wrong sum: 65,536 ones add up to {total}")
    if device.platform != "gpu" and not settings.small:
        raise SystemExit(f"JAX finds no GPU: check nvidia-smi, and run {install_extra('jax-gpu')}")
