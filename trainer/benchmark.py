"""Measure what limits training on this machine (the pipeline, the step, or CPU cores that both share) and advise a change.

    pipeline  reading batches from the shards and discarding them
    step      training on one batch that is already on the devices
    together  training as in a run

Rounds of all three alternate, so that noise on the machine affects them alike, and their medians are compared. The work of a
step is counted from the layers: a multiplication and an addition are two FLOPs, and a backward pass costs two forward passes
(as counted for PaLM: Chowdhery et al. 2022, appendix B, arXiv:2204.02311). The rate of this machine is that of one large
matrix product in the same precision.
"""

import itertools
import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from trainer.backends.base import Devices
from trainer.backends.choose import choose
from trainer.backends.startup import explained
from trainer.config import TrainConfig
from trainer.network.model import build_model
from trainer.train import build_steps, open_for_training

STEPS, ROUNDS = 10, 5
WARM_UP_STEPS = 3
# A few batches are ready before the clock starts; over this many seconds they hardly count.
PIPELINE_SECONDS = 1.0
# Below this share of lost time the input does not matter to a user.
NEGLIGIBLE = 0.03


@dataclass(frozen=True)
class Speed:
    """Images per second (medians over the rounds) and figures derived from them; `devices`: the line about the hardware.

    lost: share of training time that the input costs, 1 - time of step / time together, as the median over the rounds;
    negative if noise is larger. lost_range: the lowest and highest of the rounds. gflop: work of one training image; tflops:
    rate of the step, per second; matrix_tflops: rate of one device's matrix product, times the number of devices.
    """

    devices: str
    size: int
    batch_size: int
    steps: int
    rounds: int
    pipeline: float
    step: float
    together: float
    lost: float
    lost_range: tuple[float, float]
    gflop: float
    tflops: float
    matrix_tflops: float

    @property
    def utilization(self) -> float:
        """The step's share of the machine's matrix rate."""
        return self.tflops / self.matrix_tflops

    @property
    def on_cpu(self) -> bool:
        """Whether the step is computed by the CPU cores that also read."""
        return self.devices.startswith("CPU")

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "utilization": self.utilization}


def is_report(path: Path) -> bool:
    """Whether `path` may be written: it does not exist, or contains figures from `Speed.to_dict`."""
    if not os.path.lexists(path):
        return True
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    ours = {*(field.name for field in fields(Speed)), "utilization"}
    return isinstance(content, dict) and ours - {"lost_range"} <= content.keys() <= ours  # which earlier versions lacked


def forward_flops(model: Any) -> int:
    """FLOPs of a model for one image, in its convolutions and dense layers; the other layers cost next to nothing."""
    total = 0
    for layer in model.layers:
        if hasattr(layer, "layers"):
            total += forward_flops(layer)
        elif type(layer).__name__ in ("Conv2D", "Dense"):  # a dense layer may be applied to every position of a map
            total += 2 * int(np.prod(layer.output.shape[1:-1])) * int(np.prod(layer.kernel.shape))
    return total


def _matrix_rate(devices: Devices, side: int, seconds: float = 1.0) -> float:
    """FLOPs per second of a square matrix product on one device, the best of several trials."""
    from keras import ops

    dtype = devices.precision.removeprefix("mixed_")
    values = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    matrix = ops.cast(ops.convert_to_tensor(values), dtype)

    def finish(product: Any) -> None:
        float(ops.cast(product[0, 0], "float32"))  # NumPy does not accept bfloat16 from TensorFlow

    finish(ops.matmul(matrix, matrix))
    best, ends = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < ends:
        began, products = time.perf_counter(), 4
        for _ in range(products):
            product = ops.matmul(matrix, matrix)
        finish(product)
        best = max(best, products * 2 * side**3 / (time.perf_counter() - began))
    return best


def verdict(speed: Speed) -> str:
    """What limits training, and what to change, in a sentence or two."""
    ratio = speed.pipeline / speed.step
    times = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"
    if speed.lost <= NEGLIGIBLE:
        spare = f"{times} times as many images as the step needs"
        return f"the step is the limit: the pipeline can supply {spare}; only a faster device or smaller images would help"
    if speed.lost_range[0] <= NEGLIGIBLE:
        low, high = speed.lost_range
        return (
            f"whether the input costs time is not clear, as the rounds give {low:.0%} to {high:.0%}: repeat with more --rounds "
            "or when nothing else runs"
        )
    if speed.pipeline < 1.2 * speed.step:
        return (
            "the pipeline is the limit: keep the galaxies in memory with --cache memory, preprocess with --encoding raw, or "
            "use a machine with more CPU cores"
        )
    if not speed.on_cpu:
        return (
            f"sending batches and starting steps takes {speed.lost:.0%} of the time, although the pipeline alone is {times} "
            "times as fast as the step: larger batches reduce this share, but change the result"
        )
    return (
        f"the input takes {speed.lost:.0%} of the time although the pipeline alone is {times} times "
        "as fast as the step, because they share CPU cores; --cache memory or --encoding raw leaves more of them to the step"
    )


def _timed(batches: Iterator[Any], steps: int, take: Any, finish: Any, at_least: float = 0.0) -> float:
    """Seconds per batch, over at least `steps` batches and `at_least` seconds."""
    began, count = time.perf_counter(), 0
    while count < steps or time.perf_counter() - began < at_least:
        take(next(batches))
        count += 1
    finish()
    return (time.perf_counter() - began) / count


@explained
def measure_speed(config: TrainConfig, steps: int = STEPS, rounds: int = ROUNDS) -> Speed:
    """Measure the speed of the input pipeline, of the training step, and of both together, from random weights.

    Nothing is written.

    Parameters
    ----------
    config : TrainConfig
        Dataset and settings.
    steps : int
        Number of batches in each measurement.
    rounds : int
        Number of measurements of each kind.

    Returns
    -------
    Speed
        Images per second as medians over the rounds, and what follows from them.

    Raises
    ------
    DatasetError
        If the dataset is damaged.
    ConfigError
        If the settings do not fit the dataset or the devices.
    RunError
        If a required GPU is missing, or memory does not suffice.

    Examples
    --------
    >>> from trainer import TrainConfig, measure_speed
    >>> speed = measure_speed(TrainConfig("data/demo", batch_size=8), steps=1, rounds=1)
    >>> speed.batch_size, speed.step > 0
    (8, True)
    """
    dataset = open_for_training(config)
    devices = choose(config.precision, config.require_gpu)
    from trainer.input import cache
    from trainer.input.training import TrainingInput, steps_per_epoch

    steps_an_epoch, batch_size = steps_per_epoch(dataset, config.batch_size, config.limit, devices.replicas)
    cached = cache.plan(config.cache, dataset, steps_an_epoch * batch_size, cache.available_memory())
    with devices.scope():
        start = (np.full(len(dataset.tree.columns), 0.3), devices.precision, config.seed)
        net = build_model(config.design(dataset.size, dataset.tree), "none", *start)
        stepper = build_steps(net, config, devices, config.rate(steps_an_epoch), dataset)
    stepper.start_epoch()
    source = TrainingInput(dataset, batch_size, config.seed, config.limit, cached, augmented=config.augment != "none")
    batches = source.batches(0, 2**31)
    fed = iter(stepper.ready(batches))
    batch = next(fed)
    alone = iter(batches)
    for _ in range(WARM_UP_STEPS):
        stepper.train(batch)
        stepper.train(next(fed))
        next(alone)
    stepper.error_sum()
    taken: dict[str, list[float]] = {"pipeline": [], "step": [], "together": []}
    for number in range(rounds):
        taken["pipeline"].append(_timed(alone, steps, lambda batch: None, lambda: None, PIPELINE_SECONDS))
        pair = [("step", itertools.repeat(batch)), ("together", fed)]
        for name, supply in pair if number % 2 else reversed(pair):
            taken[name].append(_timed(supply, steps, stepper.train, stepper.error_sum))
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    lost = [1 - step / both for both, step in zip(taken["together"], taken["step"], strict=True)]
    gflop = 3 * forward_flops(net) / 1e9
    matrix = _matrix_rate(devices, 8192 if devices.gpus else 2048) * devices.replicas
    return Speed(
        devices=devices.describe(batch_size),
        size=dataset.size,
        batch_size=batch_size,
        steps=steps,
        rounds=rounds,
        pipeline=batch_size / seconds["pipeline"],
        step=batch_size / seconds["step"],
        together=batch_size / seconds["together"],
        lost=statistics.median(lost),
        lost_range=(min(lost), max(lost)),
        gflop=gflop,
        tflops=gflop / 1e3 * batch_size / seconds["step"],
        matrix_tflops=matrix / 1e12,
    )


def table(speed: Speed) -> str:
    """The figures as text."""
    return "\n".join(
        (
            speed.devices,
            f"images/s at {speed.size} x {speed.size}, medians of {speed.rounds} rounds of {speed.steps} steps",
            f"  pipeline alone         {speed.pipeline:12,.1f}",
            f"  training step alone    {speed.step:12,.1f}",
            f"  both together          {speed.together:12,.1f}   {speed.lost:.1%} of the time is lost to input "
            f"({speed.lost_range[0]:.1%} to {speed.lost_range[1]:.1%})",
            f"  work of the step       {speed.tflops:12.3f} TFLOP/s ({speed.gflop:.1f} GFLOP per image), "
            f"{speed.utilization:.0%} of this machine's matrix product ({speed.matrix_tflops:.3f})",
            verdict(speed),
        )
    )
