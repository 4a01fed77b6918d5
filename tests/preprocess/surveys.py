"""Surveys of other trees than Kaggle's: real ones with what their tables say, and small ones of one's own."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.job import BuildSettings, build_dataset
from tests.conftest import galaxy_image
from tfrecords import framing, schema
from tfrecords.dataset import Dataset
from tfrecords.errors import SourceError, TreeError

# The answers after which each question is asked, written down here once more.
DECALS = {
    "smooth-or-featured": (), "disk-edge-on": ("smooth-or-featured_featured-or-disk",), "has-spiral-arms": ("disk-edge-on_no",),
    "bar": ("disk-edge-on_no",), "bulge-size": ("disk-edge-on_no",), "how-rounded": ("smooth-or-featured_smooth",),
    "edge-on-bulge": ("disk-edge-on_yes",), "spiral-winding": ("has-spiral-arms_yes",),
    "spiral-arm-count": ("has-spiral-arms_yes",),
    "merging": ("smooth-or-featured_smooth", "smooth-or-featured_featured-or-disk"),
}  # fmt: skip
GZ2 = {
    "t01": (), "t02": ("a02",), "t03": ("a05",), "t04": ("a05",), "t05": ("a05",), "t06": ("a01", "a02"), "t07": ("a01",),
    "t08": ("a14",), "t09": ("a04",), "t10": ("a08",), "t11": ("a08",),
}  # fmt: skip
RINGS = """
[[question]]
key = "ring"
answers = { yes = "ring" }
rest = "no"
"""


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def targets_and_asked(
    counts: Mapping[str, Mapping[str, float]], after: Mapping[str, tuple[str, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """Targets and numbers of answers of one galaxy, from the counts by question and answer."""
    fractions: dict[str, float] = {}
    for question, answers in counts.items():
        reached = sum(fractions[answer] for answer in after[question]) if after[question] else 1.0
        total = sum(answers.values())
        fractions |= {answer: count / total * reached if total else 0.0 for answer, count in answers.items()}
    asked = [sum(answers.values()) for answers in counts.values()]
    return np.array([*fractions.values()], np.float32), np.array(asked, np.float32)


def _decals_counts(row: Mapping[str, str]) -> dict[str, dict[str, float]]:
    return {
        key: {
            name: float(text)
            for name, text in row.items()
            if name.startswith(f"{key}_") and not name.endswith(("_fraction", "_debiased", "_total-votes"))
        }
        for key in DECALS
    }


def _gz2_counts(row: Mapping[str, str]) -> dict[str, dict[str, float]]:
    answers = [(name[:3], next(part for part in name.split("_")[1:] if part[0] == "a" and part[1:].isdecimal()), text)
               for name, text in row.items() if name.startswith("t") and name.endswith("_count")]  # fmt: skip
    return {key: {answer: float(text) for task, answer, text in answers if task == key} for key in GZ2}


def examples_by_name(data: Dataset) -> dict[str, schema.Example]:
    """Every example by the name of its galaxy, or its number if it has none."""
    parsed = [
        schema.parse(record, data.tree, data.asked, data.named)
        for shard in data.shards
        for record in framing.read_records(data.folder / shard.name)
    ]
    return {one.name or str(one.galaxy_id): one for one in parsed}


def assert_holds(data: Dataset, expected: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    examples = examples_by_name(data)
    assert examples.keys() == expected.keys()
    for name, (targets, asked) in expected.items():
        np.testing.assert_allclose(examples[name].targets, targets, rtol=2e-7, err_msg=name)
        np.testing.assert_array_equal(examples[name].asked, asked, err_msg=name)


def expected_of_decals(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rows = rows_of(folder / "gz_decals_volunteers_5.csv")
    return {row["iauname"]: targets_and_asked(_decals_counts(row), DECALS) for row in rows}


def expected_of_gz2(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    files = {row["objid"]: row["asset_id"] for row in rows_of(folder / "gz2_filename_mapping.csv")}
    return {files[row["dr7objid"]]: targets_and_asked(_gz2_counts(row), GZ2) for row in rows_of(folder / "gz2_hart16.csv")}


def named_survey(folder: Path, galaxies: int = 8) -> Path:
    """Images with names, and a CSV of two columns: the file and the fraction that saw a ring."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(galaxies):
        galaxy_image(generator, 48).save(folder / "images" / f"ngc {number}a.jpg", quality=95)
        rows.append({"file": f"ngc {number}a.jpg", "ring": number / galaxies})
    write_rows(folder / "votes.csv", rows)
    return folder


def refused(source: Path, settings: BuildSettings, out: Path, **options: Any) -> str:
    with pytest.raises((SourceError, TreeError)) as caught:
        build_dataset(source, out, settings, **options)
    assert "\n" not in str(caught.value) and not any(out.glob("*.json"))
    return str(caught.value)
