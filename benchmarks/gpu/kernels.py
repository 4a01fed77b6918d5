"""The time of a training step by GPU kernel, from JAX's profiler."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from typing import Any

from benchmarks.gpu.settings import Settings

_STEPS, _SHOWN = 5, 15


def _spent(planes: Iterable[Any]) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Nanoseconds and number of the events of a GPU's streams by kernel and XLA operation; of CPU threads without a GPU."""
    spent: Counter[tuple[str, str]] = Counter()
    calls: Counter[tuple[str, str]] = Counter()
    for plane in planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    key = event.name, str(stats["hlo_op"])
                    spent[key] += int(event.duration_ns)
                    calls[key] += 1
    return spent, calls


def measure(settings: Settings, seconds: float) -> None:
    """Record the kernels that take longest, in milliseconds per step; all of them are in OUT/data/kernels.json."""
    import jax
    import tensorflow as tf

    from benchmarks.gpu.step import draw_batch, make_parts

    made, galaxies = make_parts(settings, "auto"), 4 if settings.small else 128
    training = made.devices.steps(made.model, made.optimizer, made.objective)
    batch = next(training.ready(tf.data.Dataset.from_tensors(draw_batch(settings, galaxies))))
    for _ in range(5):
        training.train(batch)
    training.error_sum()
    folder = settings.out / "data" / "profile"
    shutil.rmtree(folder, ignore_errors=True)
    with jax.profiler.trace(str(folder)):
        for _ in range(_STEPS):
            training.train(batch)
        training.error_sum()
    path = sorted(folder.rglob("*.xplane.pb"))[-1]
    planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
    on_gpu = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    spent, calls = _spent(on_gpu or planes)
    rows = [
        {"kernel": name, "operation": operation, "ms_per_step": nanoseconds / _STEPS / 1e6, "calls": calls[name, operation]}
        for (name, operation), nanoseconds in spent.most_common()
    ]
    (settings.out / "data" / "kernels.json").write_text(json.dumps(rows, indent=1))
    total = sum(spent.values())
    what: dict[str, Any] = {"batch_size": galaxies, "precision": made.devices.precision}
    settings.record("kernels", **what, milliseconds_in_kernels=round(total / _STEPS / 1e6, 3), kernels=len(rows))
    for row in rows[:_SHOWN]:
        name = re.sub(r"\s+", " ", row["kernel"])[:80]
        share = round(row["ms_per_step"] * _STEPS * 1e6 / max(total, 1), 4)
        settings.record(
            "kernels", kernel=name, operation=row["operation"], milliseconds=round(row["ms_per_step"], 3), share=share
        )
