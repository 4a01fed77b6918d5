"""The steps of `benchmarks.scale` run as the product does them, and its page holds what was measured and computed."""

from pathlib import Path

import pytest

from benchmarks.scale import document, measured
from benchmarks.scale.meter import Meter, Phase
from benchmarks.scale.plan import AFTER, BEFORE, CSV, KEPT, RECEIPTS, TABLE, plan_rows
from benchmarks.scale.rates import Rate, known_rates
from benchmarks.scale.steps import SHARE, STEPS

ENOUGH = measured.Limits(600, 1e12)


@pytest.mark.slow
def test_each_step_runs_after_those_that_it_needs_and_measures_its_phases(tmp_path: Path) -> None:
    phases = measured.measure_steps([*STEPS], [2000], ENOUGH, tmp_path)
    assert {*BEFORE, *AFTER, CSV, KEPT, RECEIPTS, TABLE} < {phase.name for phase in phases}
    assert all(phase.galaxies == 2000 and phase.seconds > 0 and phase.peak > 2000 for phase in phases)
    written = {phase.name for phase in phases if phase.disk}
    assert written == {BEFORE[2], RECEIPTS, KEPT, CSV, TABLE, "evaluation: sort the votes of a split in files"}
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_step_that_would_exceed_a_limit_is_left_out_with_all_that_need_it(tmp_path: Path) -> None:
    names = ["plan", "share"]
    for limits in (measured.Limits(0, 1e12), measured.Limits(600, 0)):
        phases = measured.measure_steps(names, [1000, 2000, 3000], limits, tmp_path)
        assert {phase.galaxies for phase in phases} == {1000, 2000}
    assert not measured.measure_steps(["share"], [1000], ENOUGH, tmp_path)


def test_each_phase_has_a_peak_and_files_of_its_own(tmp_path: Path) -> None:
    meter = Meter(1)
    with meter.phase("large"):
        bytes(range(256)) * (1 << 19)  # 128 MB
    with meter.phase("small", tmp_path):
        (tmp_path / "file").write_bytes(b"12345")
    large, small = meter.phases
    assert large.peak - small.peak > 100e6
    assert (large.disk, small.disk) == (0, 5)


def test_figures_grow_on_a_line_through_the_two_largest_sizes() -> None:
    phases = [Phase("a", 100, 3.0, 1700, 400), Phase("a", 10, 9.9, 50, 0), Phase("a", 200, 5.0, 2700, 800)]
    assert measured.line_through(phases).at(1000) == pytest.approx((21.0, 10_700, 4000))
    assert measured.line_through(phases[:1]).at(1000) == pytest.approx((30.0, 1700, 4000))
    seconds, memory = measured.tables([*phases, Phase("b", 100, 1.0, 9_000_000)]).split("\n\n")
    assert "| a | 9.90 | 3.00 | 5.00 | 2e+04 |" in seconds and "| b | *0* | 1.00 | *2* | 1e+04 |" in seconds
    assert memory.splitlines()[-1] == "| b | *9* | 9 | *9* | 0 |  |"


def test_saved_figures_replace_those_of_the_same_phase_and_size_alone(tmp_path: Path) -> None:
    path = tmp_path / "steps.json"
    measured.save(path, "one", [Phase("a", 10, 1.0, 2), Phase("b", 10, 1.0, 2)])
    measured.save(path, "two", [Phase("a", 10, 3.0, 4), Phase("a", 20, 5.0, 6)])
    assert measured.load(path) == [Phase("a", 10, 3.0, 4), Phase("a", 20, 5.0, 6), Phase("b", 10, 1.0, 2)]


def test_the_plan_is_computed_from_rates_and_lines() -> None:
    values = {
        "galaxies": 4e6, "nodes": 4, "cores": 10, "gpus": 2, "memory": 1e9, "examples_per_shard": 300_000,
        "build_two_cores": 200, "build_16_cores": 100, "hash": 2e6, "predict_gpu": 50, "predict_cpu": 2,
        "source_bytes": 1000, "record_bytes": 500,
    }  # fmt: skip
    rates = {name: Rate(value, "") for name, value in values.items()}
    line = measured.line_through([Phase("", 1000, 0.001, 100, 50), Phase("", 2000, 0.002, 200, 100)])
    lines = dict.fromkeys((*BEFORE, SHARE, *AFTER, CSV, KEPT, RECEIPTS, TABLE), line)
    rows = {row.what.strip("*"): tuple(cell.strip("*") for cell in (row.one, row.each)) for row in plan_rows(rates, lines)}
    assert rows["shards of a dataset"] == ("14", "4")
    assert rows["bytes of the shards"] == ("2.0 GB", "500.0 MB")
    assert rows["listing a zip, one core"] == ("4.0 s", "1.0 s")
    assert rows["peak memory of listing and planning"] == ("0.4 MB", "0.1 MB")
    assert rows["images, all cores"] == ("16.7 min", "16.7 min")
    assert rows["preprocessing, from start to end"] == ("33.8 min", "16.7 min")
    assert rows["core hours of it"] == ("12", "11")
    assert rows["largest dataset in the memory of a node"] == ("10,000,000,000", "10,000,000,000")
    assert rows["GPU hours of them"] == ("22", "the same")


def test_rates_that_the_plan_quotes_stand_in_the_benchmarks() -> None:
    text = (document.PAGE.parent / "README.md").read_text("utf-8")
    for name in ("build_two_cores", "build_16_cores", "predict_gpu"):
        assert f"{known_rates()[name].value:,.0f}" in text, name
    assert f"{known_rates()['hash'].value / 1e6:,.0f}" in text


def test_the_page_holds_the_tables_that_follow_from_the_figures_on_disk() -> None:
    text = document.PAGE.read_text("utf-8")
    assert document.filled(text) == text, "run `python -m benchmarks.scale document`"
