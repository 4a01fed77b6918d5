"""The training step on TensorFlow with XLA and without, side by side on random images.

Which of the two `trainer.devices` takes on a CPU rests on this table. Each combination of size and batch is a child
process that alternates both, medians over the rounds:

    .venv/bin/python benchmarks/steps.py --sizes 32,64,212 --batch_sizes 32,16,4
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

WARM_UP_STEPS = 2


def _measured(size: int, batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step per round, with and without XLA."""
    import numpy as np
    import tensorflow as tf

    from trainer import devices, model
    from trainer.optimizer import optimizer
    from trainer.schedule import Rate
    from trainer.steps import training_steps

    found = devices.choose("auto", require_gpu=False)
    generator = np.random.default_rng(0)
    batch = (
        tf.constant(generator.integers(0, 256, (batch_size, size, size, 3)), tf.uint8),
        tf.constant(generator.random((batch_size, model.OUTPUTS)), tf.float32),
        tf.constant(generator.random((batch_size, 7)), tf.float32),
    )
    both: dict[str, Any] = {}
    for name, xla in (("plain", False), ("xla", True)):
        net = model.build(model.Design(size, scaling="random"), "none", np.full(model.OUTPUTS, 0.3), found.precision, 0)
        adam = optimizer(net.trainable_variables, Rate(1e-5), found.precision)
        both[name] = training_steps(net, adam, replace(found, xla=xla), "none")
        both[name].start_epoch()
        for _ in range(WARM_UP_STEPS):
            both[name].train(batch)
        both[name].error_sum()
    seconds: dict[str, list[float]] = {"plain": [], "xla": []}
    for number in range(rounds):
        for name in ("plain", "xla") if number % 2 else ("xla", "plain"):
            began = time.perf_counter()
            both[name].train(batch)
            both[name].error_sum()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="32,64,212", help="sides of the images in pixels (default: %(default)s)")
    parser.add_argument("--batch_sizes", default="32,16,4", help="images of a step, one for each size (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each kind (default: %(default)s)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes, batch_sizes = ([int(number) for number in text.split(",")] for text in (args.sizes, args.batch_sizes))
    if args.child:
        print(json.dumps(_measured(sizes[0], batch_sizes[0], args.rounds)))
        return
    print("| size | batch | images/s, oneDNN | images/s, XLA | XLA over oneDNN |\n|---|---|---|---|---|")
    for size, batch_size in zip(sizes, batch_sizes, strict=True):
        child = [
            sys.executable,
            __file__,
            "--child",
            f"--sizes={size}",
            f"--batch_sizes={batch_size}",
            f"--rounds={args.rounds}",
        ]
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True, env=quiet)
        seconds = json.loads(done.stdout.splitlines()[-1])
        plain, xla = (statistics.median(seconds[name]) for name in ("plain", "xla"))
        print(f"| {size} | {batch_size} | {batch_size / plain:.1f} | {batch_size / xla:.1f} | {plain / xla:.2f} |", flush=True)


if __name__ == "__main__":
    main()
