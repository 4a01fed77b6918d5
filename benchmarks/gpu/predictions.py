"""Predictions per second from shards and from image files, without start-up.

The same call is timed on few and on many galaxies: start-up cancels in the difference.
"""

import shutil
import time
from collections.abc import Callable, Sized
from typing import Any

from benchmarks.galaxies import IMAGES, lay_out
from benchmarks.gpu.settings import Settings


def measure(settings: Settings, seconds: float) -> None:
    """Time the model of the run `best`."""
    from tfrecords.dataset import open_dataset
    from trainer.predict import predict_images, predict_split
    from trainer.run import open_run

    run, dataset = open_run(settings.run("best")), open_dataset(settings.dataset)
    few, many = (16, 72) if settings.small else (256, 2400)
    many = min(many, dataset.galaxies("train"))
    images = {count: settings.out / "data" / f"images-{count}" for count in (few, many)}
    for count, folder in images.items():
        shutil.rmtree(folder, ignore_errors=True)
        lay_out(settings.survey, folder, count)

    def rate(call: Callable[[int], Sized], **what: Any) -> None:
        taken = []
        for count in (few, few, many):  # the first call compiles
            began = time.perf_counter()
            if (made := len(call(count))) != count:
                raise SystemExit(f"{made} predictions for {count} galaxies")
            taken.append(round(time.perf_counter() - began, 3))
        per_second = round((many - few) / max(taken[2] - taken[1], 1e-3), 1)
        settings.record("predict", **what, galaxies=[few, many], seconds=taken[1:], images_per_second=per_second)

    rate(lambda count: predict_split(run, dataset, "train", limit=count).galaxy_ids, source="shards", views=1)
    rate(lambda count: predict_images(run, images[count] / IMAGES).galaxy_ids, source="images", views=1)
    if not settings.small:
        rate(lambda count: predict_split(run, dataset, "train", limit=count, tta=8).galaxy_ids, source="shards", views=8)
