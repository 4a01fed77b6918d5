"""Check the trainer on a machine with an NVIDIA GPU: gradients, speed, RMSE of recipes, resuming, exports.

    .venv/bin/python -m benchmarks.gpu --src kaggle --weights FILE --out runs/gpu --seconds 1800

Runs the steps below in order of value, each in a separate process with a time limit, and ends within --seconds. Each
result is immediately written to OUT/results.jsonl as a line of JSON; OUT/summary.txt holds the same as text. Run the same
command again to resume: finished steps are not repeated, failed ones run last. See benchmarks/gpu/README.md.
"""

import argparse
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.children import REPOSITORY
from benchmarks.gpu.child import SKIPPED
from benchmarks.gpu.processes import gpu_watched, python, run
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.summary import summary

_AT_THE_END = 3.0  # seconds for the summary


@dataclass(frozen=True)
class Step:
    """module, argument: benchmarks/gpu/MODULE.py, and the additional argument of its `measure`.

    least, limit: seconds that must be left to start it, and after which it is killed. needs: the step that must be done first.
    """

    name: str
    module: str
    argument: str = ""
    least: float = 40
    limit: float = 300
    needs: str = ""


STEPS = (
    Step("environment", "environment", least=20),
    Step("torch", "torch_step", "eager", 25),
    Step("gradients", "gradients"),
    Step("datasets", "datasets", limit=900),
    Step("benchmark", "speed", "command", needs="datasets"),
    Step("train-best", "training", "best", 120, 1800, "datasets"),
    Step("predict", "predictions", needs="train-best"),
    Step("recipes", "recipes", least=120, limit=3600, needs="datasets"),
    Step("kill-and-resume", "training", "kill-and-resume", 90, 900, "datasets"),
    Step("grid", "speed", "grid", 60, 900, "datasets"),
    Step("torch-compiled", "torch_step", "compiled", 60),
    Step("train-article-32", "training", "article-32", 120, 1800, "datasets"),
    Step("pipeline", "pipeline", needs="datasets"),
    Step("exports", "exports", needs="train-best"),
    Step("train-article", "training", "article", 120, 1800, "datasets"),
    Step("parts", "parts"),
    Step("kernels", "kernels"),
)
NAMES = tuple(step.name for step in STEPS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        epilog=f"steps: {', '.join(NAMES)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, out = parser.add_argument, REPOSITORY / "runs" / "gpu"
    add("--out", type=Path, default=out, metavar="DIR", help="folder for all output (default: %(default)s)")
    add("--src", default="", metavar="DIR", help="Kaggle's galaxies, unpacked (default: draw synthetic ones)")
    add("--tfrecords", default="", metavar="DIR", help="dataset to train on (default: build it from the galaxies)")
    add(
        "--weights",
        default="none",
        metavar="FILE",
        help="initial weights of the backbone, as for trainer (default: none, random)",
    )
    add("--epochs", type=int, default=30, metavar="N", help="epochs for each recipe (default: %(default)s)")
    add("--seconds", type=float, default=3600, metavar="S", help="time limit for the whole check (default: %(default)s)")
    add("--only", nargs="+", choices=NAMES, metavar="STEP", help="steps to run (default: all)")
    add("--again", nargs="+", choices=NAMES, default=[], metavar="STEP", help="finished steps to repeat")
    add("--torch", default=sys.executable, metavar="PYTHON", help="interpreter with PyTorch (default: this one)")
    add("--small", action="store_true", help="32 x 32 pixels and few steps: tests this program on any machine")
    return parser.parse_args()


def _absolute(given: str) -> str:
    """The absolute path. Exits with a message if it does not exist."""
    if given in ("", "none", "imagenet"):
        return given
    if not Path(given).exists():
        sys.exit(f"error: {given}: no such file or folder")
    return str(Path(given).resolve())


def _set_environment(settings: Settings) -> None:
    """Set, for all processes: JAX, GPU memory allocated on demand, a cache of compiled code, no start-up messages."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["PYTHONUNBUFFERED"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(settings.out / "compiled"))


def _measure(settings: Settings, step: Step, seconds: float, torch: str) -> str:
    """Run a step in a separate process; return its status."""
    command = python("-m", "benchmarks.gpu.child", step.module, settings.out, seconds, *filter(None, [step.argument]))
    if step.module == "torch_step":
        command[0] = torch
    with gpu_watched() as gpu:
        ended = run(command, settings.log(step.name), seconds, own_group=True)
    if ended.rc == SKIPPED:
        settings.record(step.name, "skipped", reason=ended.tail.strip().splitlines()[-1])
        return "skipped"
    status = "failed" if ended.rc else "done"
    settings.record(step.name, status, **{name: value for name, value in asdict(ended).items() if value}, **gpu)
    return status


def check(settings: Settings, args: argparse.Namespace, ends: float) -> int:
    """Run the remaining steps until `time.monotonic()` reaches `ends`; return the exit status, 1 if a step failed."""
    ended = {line["step"]: line["status"] for line in settings.results() if line["status"] in ("done", "failed")}
    chosen = [step for step in STEPS if step.name in (args.only or NAMES)]
    to_do = [step for step in chosen if ended.get(step.name) != "done" or step.name in args.again]
    for step in sorted(to_do, key=lambda step: ended.get(step.name) == "failed"):
        left = ends - time.monotonic()
        if step.needs and ended.get(step.needs) != "done":
            settings.record(step.name, "skipped", reason=f"needs step {step.needs} first")
        elif left < step.least:
            settings.record(step.name, "skipped", reason=f"{left:.0f} s left, needs {step.least:.0f}")
        else:
            print(f"-- {step.name}: {left:.0f} s left", flush=True)
            ended[step.name] = _measure(settings, step, min(step.limit, left), args.torch)
            if step.name == "environment" and ended[step.name] == "failed":
                break  # without a GPU, the other steps are pointless
    return int(any(ended.get(step.name) == "failed" for step in chosen))


def main() -> int:
    args = _arguments()
    ends = time.monotonic() + args.seconds - _AT_THE_END
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the current step is ended too
    src, tfrecords, weights = map(_absolute, (args.src, args.tfrecords, args.weights))
    settings = Settings(args.out.resolve(), src, tfrecords, weights, args.epochs, args.small)
    settings.save()
    _set_environment(settings)
    try:
        return check(settings, args, ends)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume", file=sys.stderr)
        return 130
    finally:
        text = summary(settings.results())
        (settings.out / "summary.txt").write_text(text + "\n")
        print(f"\n{text}\n\nresults: {settings.out / 'results.jsonl'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
