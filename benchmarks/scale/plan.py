"""The plan for two billion galaxies on a hundred nodes, computed from rates and from the figures of the steps.

Two ways are compared: one dataset, built by the parts of a job array, and a dataset for each node.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.scale.measured import Line
from benchmarks.scale.rates import Rate
from benchmarks.scale.steps import SHARE

_HOUR = 3600.0
BEFORE = ("list a zip", "plan the shards", "write the plan that parts share")
AFTER = ("read the shared plan", "read the receipts", "commit the dataset")
TABLE = "join them, in order, in Parquet files"
CSV = "join them, in order, in a CSV file"
KEPT = "write the parts of a table of predictions"
RECEIPTS = "write the receipts"


@dataclass(frozen=True)
class Row:
    """A row of the plan: the figure for one dataset and for one on each node, and what each follows from."""

    what: str
    one: str
    each: str
    how: str


def _hours(seconds: float) -> str:
    hours = seconds / _HOUR
    if hours >= 0.95:
        return f"{hours:,.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def _size(number: float) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9)):
        if number >= factor:
            return f"{number / factor:,.1f} {unit}"
    return f"{number / 1e6:,.1f} MB"


class _Plan:
    """The rows of the plan, from rates and lines."""

    def __init__(self, rates: Mapping[str, Rate], steps: Mapping[str, Line]) -> None:
        self._steps = steps
        self._value = {name: rate.value for name, rate in rates.items()}
        self._galaxies = self._value["galaxies"]
        self._nodes = self._value["nodes"]
        self._share = self._galaxies / self._nodes

    def _both(self, what: str, how: str, figure: Callable[[float], str]) -> Row:
        return Row(what, figure(self._galaxies), figure(self._share), how)

    def _seconds(self, names: tuple[str, ...], galaxies: float) -> float:
        return sum(self._steps[name].at(galaxies)[0] for name in names)

    def _peak(self, names: tuple[str, ...], galaxies: float) -> float:
        return max(self._steps[name].at(galaxies)[1] for name in names)

    def _disk(self, name: str, galaxies: float) -> str:
        return _size(self._steps[name].at(galaxies)[2])

    def _build_core_seconds(self) -> float:
        return self._galaxies / (self._value["build_two_cores"] / 2)

    def rows(self) -> list[Row]:
        value, nodes = self._value, self._nodes
        cores = nodes * value["cores"]
        build = self._build_core_seconds() / cores
        slow = self._galaxies / (value["build_16_cores"] * nodes)
        gpu = self._galaxies / (value["predict_gpu"] * nodes * value["gpus"])
        cpu = self._galaxies / (value["predict_cpu"] / 2)
        source, data = self._galaxies * value["source_bytes"], self._galaxies * value["record_bytes"]
        per_shard = value["examples_per_shard"]
        largest = value["memory"] / max(self._steps[name].per_galaxy[1] for name in (*BEFORE, *AFTER))
        hashed = data / nodes / value["hash"]
        first, last = self._seconds(BEFORE, self._galaxies), self._seconds(AFTER, self._galaxies)
        first_each, last_each = self._seconds(BEFORE[:2], self._share), self._seconds(AFTER[1:], self._share)
        read = self._seconds((SHARE,), self._share)
        checked = data / value["hash"]
        whole, each = first + read + build + checked + last, first_each + build + last_each
        core_hours = (self._build_core_seconds() + first + nodes * read + 2 * checked + last) / _HOUR
        core_hours_each = (self._build_core_seconds() + nodes * (first_each + last_each)) / _HOUR
        same = "extrapolated from `steps`"
        rate = "extrapolated from images/s on two cores"
        return [
            self._both("galaxies of a dataset", "assumed", lambda n: f"{n:,.0f}"),
            self._both("shards of a dataset", "computed", lambda n: f"{math.ceil(n / per_shard):,}"),
            Row("bytes of the source", _size(source), _size(source / nodes), "extrapolated from 4,261 real files"),
            Row("bytes of the shards", _size(data), _size(data / nodes), "extrapolated from 4,261 real galaxies"),
            self._both("listing a zip, one core", same, lambda n: _hours(self._seconds(BEFORE[:1], n))),
            self._both("planning the shards, one core", same, lambda n: _hours(self._seconds(BEFORE[1:2], n))),
            Row("writing the plan for parts, one core", _hours(self._seconds(BEFORE[2:], self._galaxies)), "not needed", same),
            Row("the plan for parts, on disk", self._disk(BEFORE[2], self._galaxies), "not needed", same),
            Row("reading its shards of it in each part", _hours(read), "not needed", same),
            self._both("peak memory of listing and planning", same, lambda n: _size(self._peak(BEFORE, n))),
            Row("images, all cores", _hours(build), _hours(build), rate),
            Row(
                "the same, as slow as 16 cores of an H200's host were",
                _hours(slow),
                _hours(slow),
                "extrapolated, start-up included",
            ),
            Row(
                "reading and writing meanwhile",
                f"{_size((source + data) / build)}/s",
                f"{_size((source + data) / build / nodes)}/s a node",
                "computed",
            ),
            self._both("receipts, on disk", same, lambda n: self._disk(RECEIPTS, n)),
            Row("hashing all shards before the commit, two cores", _hours(checked), "not needed", "extrapolated from bytes/s"),
            Row("commit, one core", _hours(last), _hours(last_each), same),
            self._both("peak memory of the commit", same, lambda n: _size(self._peak(AFTER, n))),
            Row("**preprocessing, from start to end**", f"**{_hours(whole)}**", f"**{_hours(each)}**", "the sum"),
            Row(
                "**core hours of it**",
                f"**{core_hours:,.0f}**",
                f"**{core_hours_each:,.0f}**",
                "the sum of hours of cores at work",
            ),
            Row("largest dataset in the memory of a node", f"{largest:,.0f}", f"{largest:,.0f}", "extrapolated, galaxies"),
            Row("hashing all shards, two cores of each node", _hours(hashed), _hours(hashed), "extrapolated from bytes/s"),
            Row("predictions, a GPU in each node", _hours(gpu), _hours(gpu), "extrapolated from images/s on one H100"),
            Row("**GPU hours of them**", f"**{gpu * nodes * value['gpus'] / _HOUR:,.0f}**", "the same", "computed"),
            Row(
                "predictions, on all cores instead", _hours(cpu / cores), "the same", "extrapolated from images/s on two cores"
            ),
            Row("core hours of them", f"{cpu / _HOUR:,.0f}", "the same", "computed"),
            self._both("parts of the table, on disk", same, lambda n: self._disk(KEPT, n)),
            self._both("joining them in Parquet files, one core", same, lambda n: _hours(self._seconds((TABLE,), n))),
            self._both("joining them in a CSV file, one core", same, lambda n: _hours(self._seconds((CSV,), n))),
            self._both("the CSV file", same, lambda n: self._disk(CSV, n)),
        ]


def plan_rows(rates: Mapping[str, Rate], steps: Mapping[str, Line]) -> list[Row]:
    """The rows of the plan. steps: the lines of the phases, by name."""
    return _Plan(rates, steps).rows()
