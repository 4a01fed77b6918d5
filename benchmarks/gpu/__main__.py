"""Check the trainer on a machine with an NVIDIA GPU: the numbers of a step, speeds, what recipes reach, kills, exports.

    .venv/bin/python -m benchmarks.gpu --src kaggle --weights FILE --out runs/gpu --seconds 1800

Runs the steps below in order of value, each in a process of its own with a time limit, and ends within --seconds. Each
result is a line of JSON in OUT/results.jsonl at once; OUT/summary.txt holds the same for people. The same command again
resumes: steps that are done are not repeated, those that failed come last. See benchmarks/gpu/README.md.
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
    """module, argument: benchmarks/gpu/MODULE.py, and what its `measure` gets beside the settings.

    least, limit: seconds without which it is not begun, and after which it is killed. needs: a step that must be done before.
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
    Step("kill-and-resume", "training", "kill-and-resume", 90, 900, "datasets"),
    Step("grid", "speed", "grid", 60, 900, "datasets"),
    Step("torch-compiled", "torch_step", "compiled", 60),
    Step("train-article-32", "training", "article-32", 120, 1800, "datasets"),
    Step("pipeline", "pipeline", needs="datasets"),
    Step("exports", "exports", needs="train-best"),
    Step("train-article", "training", "article", 120, 1800, "datasets"),
    Step("parts", "parts"),
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
    add("--out", type=Path, default=out, metavar="DIR", help="folder for all that is made (default: %(default)s)")
    add("--src", default="", metavar="DIR", help="Kaggle's galaxies, unpacked (default: synthetic ones are drawn)")
    add("--tfrecords", default="", metavar="DIR", help="dataset to train on (default: made of the galaxies)")
    add("--weights", default="none", metavar="FILE", help="where the base starts, as for trainer (default: none, random)")
    add("--epochs", type=int, default=30, metavar="N", help="of each trained recipe (default: %(default)s)")
    add("--seconds", type=float, default=3600, metavar="S", help="time for everything (default: %(default)s)")
    add("--only", nargs="+", choices=NAMES, metavar="STEP", help="steps to run (default: all)")
    add("--again", nargs="+", choices=NAMES, default=[], metavar="STEP", help="steps to repeat although they are done")
    add("--torch", default=sys.executable, metavar="PYTHON", help="one that has PyTorch (default: this one)")
    add("--small", action="store_true", help="32 x 32 pixels and few steps: tries this program itself, on any machine")
    return parser.parse_args()


def _absolute(given: str) -> str:
    """Exits with a line where there is no such file or folder."""
    if given in ("", "none", "imagenet"):
        return given
    if not Path(given).exists():
        sys.exit(f"error: {given}: no such file or folder")
    return str(Path(given).resolve())


def _set_environment(settings: Settings) -> None:
    """For all processes: JAX, with GPU memory as it is needed and a cache of what was compiled, and no start-up notes."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["PYTHONUNBUFFERED"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(settings.out / "compiled"))


def _measure(settings: Settings, step: Step, seconds: float, torch: str) -> str:
    """Run a step in a process of its own; returns how it ended."""
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
    """Run what is to do until the clock shows `ends`; returns the exit status, 1 where a step failed."""
    ended = {line["step"]: line["status"] for line in settings.results() if line["status"] in ("done", "failed")}
    chosen = [step for step in STEPS if step.name in (args.only or NAMES)]
    to_do = [step for step in chosen if ended.get(step.name) != "done" or step.name in args.again]
    for step in sorted(to_do, key=lambda step: ended.get(step.name) == "failed"):
        left = ends - time.monotonic()
        if step.needs and ended.get(step.needs) != "done":
            settings.record(step.name, "skipped", reason=f"needs {step.needs} before it")
        elif left < step.least:
            settings.record(step.name, "skipped", reason=f"{left:.0f} s are left of the {step.least:.0f} that it needs")
        else:
            print(f"-- {step.name}: {left:.0f} s left", flush=True)
            ended[step.name] = _measure(settings, step, min(step.limit, left), args.torch)
            if step.name == "environment" and ended[step.name] == "failed":
                break  # without a GPU nothing here is worth the time
    return int(any(ended.get(step.name) == "failed" for step in chosen))


def main() -> int:
    args = _arguments()
    ends = time.monotonic() + args.seconds - _AT_THE_END
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the step under way is ended too
    src, tfrecords, weights = map(_absolute, (args.src, args.tfrecords, args.weights))
    settings = Settings(args.out.resolve(), src, tfrecords, weights, args.epochs, args.small)
    settings.save()
    _set_environment(settings)
    try:
        return check(settings, args, ends)
    except KeyboardInterrupt:
        print("interrupted: the same command resumes", file=sys.stderr)
        return 130
    finally:
        text = summary(settings.results())
        (settings.out / "summary.txt").write_text(text + "\n")
        print(f"\n{text}\n\nresults: {settings.out / 'results.jsonl'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
