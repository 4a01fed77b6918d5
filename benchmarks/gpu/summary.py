"""The results of a check as text."""

from collections.abc import Sequence
from typing import Any

_OF_SPEED = ("batch_size", "pipeline", "step", "together", "lost", "tflops", "matrix_tflops", "utilization")
_LONGEST = 400
Line = dict[str, Any]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items())
    return f"[{', '.join(map(_shown, value))}]" if isinstance(value, list) else str(value)


def _line(line: Line) -> str:
    values = {name: value for name, value in line.items() if name not in ("step", "status")}
    if "tail" in values:  # its last line is the reason
        values["tail"] = values["tail"].strip().rpartition("\n")[2]
    if figures := values.pop("figures", None):
        values |= {name: figures[name] for name in _OF_SPEED}
    status = "" if line["status"] == "measured" else f" {line['status']}"
    return f"{line['step']}{status}: {_shown(values)}"[:_LONGEST]


def _beside_torch(lines: Sequence[Line]) -> list[str]:
    """The ratio of our step's speed to PyTorch's, in bfloat16, for each batch size at which both were timed."""
    ours: dict[int, float] = {}
    theirs: dict[tuple[int, str], float] = {}
    for line in lines:
        figures = line.get("figures", {})
        if "mixed_bfloat16" in figures.get("devices", ""):
            ours.setdefault(figures["batch_size"], figures["step"])
        if line["step"] == "torch" and line.get("precision") == "bfloat16":
            theirs[line["batch_size"], "compiled" if line["compiled"] else "eager"] = line["images_per_second"]
    return [
        f"step, batch size {size}: {ours[size]:,.0f} images/s, PyTorch {how} {rate:,.0f}: ratio {ours[size] / rate:.2f}"
        for (size, how), rate in sorted(theirs.items())
        if size in ours
    ]


def summary(lines: Sequence[Line]) -> str:
    """A line for each result, then the comparisons with PyTorch."""
    return "\n".join([*(_line(line) for line in lines if line["status"] != "begun"), *_beside_torch(lines)])
