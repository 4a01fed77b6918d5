"""From tables of several surveys to datasets: real galaxies of GZ DECaLS and Galaxy Zoo 2, and trees of one's own."""

import csv
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.job import BuildSettings, build_dataset
from preprocess.plan import PlanSettings
from preprocess.verify.dataset import verify_dataset
from tests.conftest import SHARED, galaxy_image, random_counts
from tfrecords import dataset, framing, schema
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset, open_dataset
from tfrecords.errors import ConfigError, DatasetError, SourceError, TreeError
from tfrecords.files import sha256_file
from tfrecords.images import CropSettings
from tfrecords.treefile import parse_tree

Settings = Callable[..., BuildSettings]
Contents = Callable[[Path], dict[str, bytes]]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
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


def _copy(name: str, folder: Path) -> Path:
    """A copy of a real survey that can be changed."""
    source = SHARED / "surveys" / name
    if not source.exists():
        pytest.skip(f"{source} is missing: real surveys are not part of the repository")
    for path in sorted(source.rglob("*")):
        if path.is_file():
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def decals(tmp_path: Path) -> Path:
    """Six real galaxies of GZ DECaLS campaign 5, named by their coordinates."""
    return _copy("decals", tmp_path / "decals")


@pytest.fixture
def gz2(tmp_path: Path) -> Path:
    """Three real galaxies of Galaxy Zoo 2, whose table and images a second table joins."""
    return _copy("gz2", tmp_path / "gz2")


@pytest.fixture
def small(build_settings: Settings) -> BuildSettings:
    return build_settings(size=16, validation_fraction=0.0, test_fraction=0.0, examples_per_shard=4)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _expected(counts: Mapping[str, Mapping[str, float]], after: Mapping[str, tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
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


def _examples(data: Dataset) -> dict[str, schema.Example]:
    """Every example by the name of its image."""
    names = data.names() if dataset.NAMES in data.files else {}
    parsed = [
        schema.parse(record, data.tree, data.asked)
        for shard in data.shards
        for record in framing.read_records(data.folder / shard.name)
    ]
    return {Path(names.get(one.galaxy_id, f"{one.galaxy_id}.jpg")).stem: one for one in parsed}


def _assert_holds(data: Dataset, expected: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    examples = _examples(data)
    assert examples.keys() == expected.keys()
    for name, (targets, asked) in expected.items():
        np.testing.assert_allclose(examples[name].targets, targets, rtol=2e-7, err_msg=name)
        np.testing.assert_array_equal(examples[name].asked, asked, err_msg=name)


def _expected_of_decals(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rows = _rows(folder / "gz_decals_volunteers_5.csv")
    return {row["iauname"]: _expected(_decals_counts(row), DECALS) for row in rows}


def _expected_of_gz2(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    files = {row["objid"]: row["asset_id"] for row in _rows(folder / "gz2_filename_mapping.csv")}
    return {files[row["dr7objid"]]: _expected(_gz2_counts(row), GZ2) for row in _rows(folder / "gz2_hart16.csv")}


def test_records_of_gz_decals_hold_the_votes_of_its_table(decals: Path, small: BuildSettings, tmp_path: Path) -> None:
    data = build_dataset(decals, tmp_path / "out", small).dataset
    assert data.asked and data.tree == builtin_tree("decals5") and data.votes_width == 34 + 10
    assert (data.settings["tree"], data.settings["votes"], data.source["asked"]) == ("decals5", "counts", "counted")
    expected = _expected_of_decals(decals)
    assert len(expected) == 6 and len(next(iter(expected.values()))[0]) == 34
    _assert_holds(data, expected)


def test_records_of_galaxy_zoo_2_hold_the_votes_of_the_row_that_its_second_table_names(
    gz2: Path, small: BuildSettings, tmp_path: Path
) -> None:
    data = build_dataset(gz2, tmp_path / "out", small).dataset
    assert data.asked and data.tree == builtin_tree("gz2") and data.votes_width == 37 + 11
    expected = _expected_of_gz2(gz2)
    assert len(expected) == 3 and len(next(iter(expected.values()))[0]) == 37
    _assert_holds(data, expected)


@pytest.mark.parametrize("votes", ["fractions", "debiased"])
def test_fractions_of_galaxy_zoo_2_come_with_the_numbers_of_its_counts(
    gz2: Path, small: BuildSettings, tmp_path: Path, votes: str
) -> None:
    counted = _examples(build_dataset(gz2, tmp_path / "counts", small).dataset)
    data = build_dataset(gz2, tmp_path / "out", small, votes=votes).dataset
    assert data.settings["votes"] == votes and data.asked
    for name, example in _examples(data).items():
        assert example.asked is not None
        assert data.tree.deviation(example.targets[None], example.asked[None]).max() < 1e-6
        if votes == "fractions":
            np.testing.assert_allclose(example.targets, counted[name].targets, atol=2e-3)
            np.testing.assert_allclose(example.asked, counted[name].asked, rtol=1e-6)
        else:
            assert np.abs(example.targets - counted[name].targets).max() > 0.02
    assert verify_dataset(data.folder, gz2).findings == ()


def test_the_tree_lies_in_the_dataset_and_counts_in_its_fingerprint(gz2: Path, small: BuildSettings, tmp_path: Path) -> None:
    data = build_dataset(gz2, tmp_path / "out", small).dataset
    tree = builtin_tree("gz2")
    assert (data.folder / "tree.toml").read_text("utf-8") == tree.text
    assert json.loads((data.folder / "manifest.json").read_text())["files"]["tree.toml"] == dataset.sha256_text(tree.text)
    own = tmp_path / "gz2.toml"
    own.write_text(tree.text.replace("Galaxy Zoo 2", "My Galaxy Zoo"), "utf-8")
    other = build_dataset(gz2, tmp_path / "other", small, tree=own).dataset
    assert other.fingerprint != data.fingerprint
    assert other.settings["tree"].startswith("gz2 (")  # with its hash, as it is not ours
    assert {shard.sha256 for shard in other.shards} == {shard.sha256 for shard in data.shards}


@pytest.mark.parametrize("name", ["decals", "gz2"])
def test_tfds_reads_numbers_of_answers_and_the_name_of_every_answer(
    name: str, small: BuildSettings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    import tensorflow_datasets as tfds

    data = build_dataset(request.getfixturevalue(name), tmp_path / "galaxy_zoo" / "1.0.0", small).dataset
    builder = tfds.builder_from_directory(data.folder)
    tree = data.tree
    features = builder.info.features
    assert features["asked"].shape == (len(tree.questions),) and features["targets"].shape == (len(tree.columns),)
    described = json.loads((data.folder / "features.json").read_text())["featuresDict"]["features"]
    for place, column in enumerate(tree.columns):
        assert f"{column} ({tree.describe(place)})" in described["targets"]["description"]
    assert all(question.key in described["asked"]["description"] for question in tree.questions)
    assert tree.citation == builder.info.citation
    ours = {one.galaxy_id: one for one in _examples(data).values()}
    theirs = list(builder.as_dataset(split="train").as_numpy_iterator())
    assert len(theirs) == len(ours)
    for galaxy in theirs:
        np.testing.assert_array_equal(galaxy["targets"], ours[galaxy["galaxy_id"]].targets)
        np.testing.assert_array_equal(galaxy["asked"], ours[galaxy["galaxy_id"]].asked)


@pytest.mark.parametrize("name", ["decals", "gz2"])
def test_a_folder_and_a_zip_give_the_same_bytes_and_agree_with_the_dataset(
    name: str, small: BuildSettings, contents: Contents, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", folder))
    both = Path(shutil.copytree(folder, tmp_path / "mixed"))
    with zipfile.ZipFile(both / "images.zip", "w") as archive:
        for path in sorted((both / "images").rglob("*.*g")):
            archive.write(path, path.relative_to(both / "images"))
    shutil.rmtree(both / "images")
    data = build_dataset(folder, tmp_path / "out", small).dataset
    again = build_dataset(packed, tmp_path / "again", small).dataset
    assert contents(again.folder) == contents(data.folder)
    for src in (folder, packed):
        assert verify_dataset(data.folder, src).findings == ()
    if name == "gz2":  # names that are numbers do not depend on the folder
        assert contents(build_dataset(both, tmp_path / "third", small).dataset.folder) == contents(data.folder)


def _reseal(out: Path, change: Callable[[dict[str, Any]], object] = lambda content: None) -> None:
    """Change the manifest, and update all hashes in it, including its own."""
    content = json.loads((out / "manifest.json").read_text())
    change(content)
    content["files"] = {name: sha256_file(out / name) for name in content["files"]}
    for shard in content["shards"]:
        shard |= {"bytes": (out / shard["name"]).stat().st_size, "sha256": sha256_file(out / shard["name"])}
    del content["sha256"]
    (out / "manifest.json").write_text(dataset.to_json({**content, "sha256": dataset.sha256_text(dataset.to_json(content))}))


def _errors(out: Path, src: Path | None = None) -> dict[str, str]:
    return {finding.where: finding.what for finding in verify_dataset(out, src).findings if finding.level == "error"}


def test_a_changed_number_of_answers_is_found_with_the_source(decals: Path, small: BuildSettings, tmp_path: Path) -> None:
    data = build_dataset(decals, tmp_path / "out", small).dataset
    path = data.folder / data.shards[0].name
    first, *others = [schema.parse(record, data.tree, True) for record in framing.read_records(path)]
    assert first.asked is not None

    def forge(asked: np.ndarray) -> None:
        changed = schema.Example(first.galaxy_id, first.image, first.crop_offset, first.targets, asked)
        path.write_bytes(b"".join(framing.frame(schema.serialize(example)) for example in (changed, *others)))

    forge(first.asked + np.eye(1, 10, 0, dtype=np.float32)[0])
    assert _errors(data.folder)[path.name] == "its SHA-256 differs from that in the manifest"
    _reseal(data.folder)
    what = f"targets that differ from the source, galaxies: {first.galaxy_id}"
    assert _errors(data.folder) == {} and _errors(data.folder, decals) == {path.name: what}
    forge(-first.asked)
    _reseal(data.folder)
    assert _errors(data.folder) == {path.name: f"numbers of answers that are missing or below 0, galaxies: {first.galaxy_id}"}


def test_a_tree_that_was_removed_or_edited_is_found(gz2: Path, small: BuildSettings, tmp_path: Path) -> None:
    out = build_dataset(gz2, tmp_path / "out", small).dataset.folder
    text = (out / "tree.toml").read_text("utf-8")
    (out / "tree.toml").unlink()
    (what,) = _errors(out).values()
    assert _errors(out).keys() == {"tree.toml"} and what.startswith("is missing or damaged: ")
    with pytest.raises(DatasetError, match=r"tree\.toml: is missing or damaged"):
        open_dataset(out)
    (out / "tree.toml").write_text(text.replace('after = ["t02_edgeon_a05_no"]', "", 1), "utf-8")
    assert _errors(out)["tree.toml"].startswith("has changed since it was written")
    with pytest.raises(DatasetError, match=r"tree\.toml: has changed since it was written"):
        open_dataset(out)
    _reseal(out)
    # Its records do not obey the other tree, and its metadata describe the first.
    assert any("targets that break the decision tree" in what for what in _errors(out).values())
    (out / "tree.toml").write_text("[[question]]\nkey = 7\n", "utf-8")
    _reseal(out)
    assert "key must be a text on one line" in _errors(out)["tree.toml"]


def _before_trees(out: Path) -> None:
    """Make a dataset of Kaggle's survey what it was before trees were data."""
    (out / "tree.toml").unlink()
    described = json.loads((out / "features.json").read_text())
    del described["featuresDict"]["features"]["targets"]["description"]
    (out / "features.json").write_text(dataset.to_json(described))

    def change(content: dict[str, Any]) -> None:
        del content["files"]["tree.toml"], content["settings"]["tree"], content["settings"]["votes"]

    _reseal(out, change)


def test_a_dataset_made_before_trees_were_data_is_kaggles_intact_and_complete(
    survey: Path, small: BuildSettings, contents: Contents, tmp_path: Path
) -> None:
    out = build_dataset(survey, tmp_path / "out", small).dataset.folder
    _before_trees(out)
    before = contents(out)
    data = open_dataset(out)
    assert data.tree == builtin_tree("kaggle") and not data.asked and data.votes_width == 37
    assert verify_dataset(out, survey).findings == ()
    for tree in (None, "kaggle"):
        assert build_dataset(survey, out, small, tree=tree).already_complete
    assert contents(out) == before
    with pytest.raises(ConfigError, match="size was 16, now 32"):
        build_dataset(survey, out, BuildSettings(CropSettings(0.5, 32, "png"), small.plan))


def test_another_tree_or_other_votes_in_the_same_folder_are_refused(gz2: Path, small: BuildSettings, tmp_path: Path) -> None:
    out = build_dataset(gz2, tmp_path / "out", small).dataset.folder
    assert build_dataset(gz2, out, small, tree="gz2", votes="counts").already_complete
    with pytest.raises(ConfigError, match="votes was counts, now debiased"):
        build_dataset(gz2, out, small, votes="debiased")
    own = tmp_path / "own.toml"
    own.write_text(builtin_tree("gz2").text.replace('name = "gz2"', 'name = "own"'), "utf-8")
    with pytest.raises(ConfigError, match=r"tree was gz2, now own \([0-9a-f]{12}\)"):
        build_dataset(gz2, out, small, tree=own)
    data = build_dataset(gz2, out, small, tree=own, overwrite=True).dataset
    assert data.tree.name == "own" and verify_dataset(out, gz2).findings == ()


def _named_survey(folder: Path, galaxies: int = 8) -> Path:
    """Images with names, and a CSV of two columns: the file and the fraction that saw a ring."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(galaxies):
        galaxy_image(generator, 48).save(folder / "images" / f"ngc {number}a.jpg", quality=95)
        rows.append({"file": f"ngc {number}a.jpg", "ring": number / galaxies})
    _write(folder / "votes.csv", rows)
    return folder


@pytest.fixture
def rings(tmp_path: Path) -> Path:
    path = tmp_path / "rings.toml"
    path.write_text(RINGS)
    return path


def test_five_lines_and_a_table_of_two_columns_are_a_survey(rings: Path, small: BuildSettings, tmp_path: Path) -> None:
    source = _named_survey(tmp_path / "mine")
    data = build_dataset(source, tmp_path / "out", small, tree=rings).dataset
    assert (data.tree.name, data.tree.title, data.tree.columns, data.asked) == ("rings", "rings", ("ring", "ring_no"), False)
    examples = _examples(data)
    assert len(examples) == 8
    for number in range(8):
        np.testing.assert_allclose(examples[f"ngc {number}a"].targets, [number / 8, 1 - number / 8])
    assert verify_dataset(data.folder, source).findings == ()
    assert build_dataset(source, data.folder, small, tree=rings).already_complete


def test_an_own_tree_that_was_edited_between_two_runs_is_refused(rings: Path, small: BuildSettings, tmp_path: Path) -> None:
    source = _named_survey(tmp_path / "mine")
    out = build_dataset(source, tmp_path / "out", small, tree=rings).dataset.folder
    rings.write_text(RINGS.replace('"ring"\nanswers', '"halo"\nanswers'))
    with pytest.raises(ConfigError, match=r"tree was rings \([0-9a-f]{12}\), now rings \([0-9a-f]{12}\)"):
        build_dataset(source, out, small, tree=rings)


def test_images_of_the_same_name_are_told_apart_by_their_paths(rings: Path, small: BuildSettings, tmp_path: Path) -> None:
    source = _named_survey(tmp_path / "mine")
    (source / "others").mkdir()
    galaxy_image(np.random.default_rng(5), 48).save(source / "others" / "ngc 3a.jpg")
    with pytest.raises(SourceError) as caught:
        build_dataset(source, tmp_path / "out", small, tree=rings)
    assert str(caught.value) == (
        f"{source}/votes.csv: ngc 3a.jpg is the name of several images: write their paths in {source} into column file, "
        "or remove all but one"
    )
    rows: list[dict[str, Any]] = [{**row, "file": f"images/{row['file']}"} for row in _rows(source / "votes.csv")]
    _write(source / "votes.csv", [*rows, {"file": "others/ngc 3a.jpg", "ring": 0.9}])
    data = build_dataset(source, tmp_path / "out", small, tree=rings).dataset
    names = data.names()
    targets = {
        names[example.galaxy_id]: float(example.targets[0])
        for shard in data.shards
        for example in [schema.parse(record, data.tree) for record in framing.read_records(data.folder / shard.name)]
    }
    assert targets["others/ngc 3a.jpg"] == np.float32(0.9) and targets["images/ngc 3a.jpg"] == np.float32(0.375)


def test_galaxies_on_which_nobody_voted_are_unlabelled_with_a_warning(
    decals: Path, small: BuildSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = decals / "gz_decals_volunteers_5.csv"
    rows = _rows(table)
    for name in rows[1]:
        if name.startswith(tuple(DECALS)):
            rows[1][name] = "0"
    _write(table, rows)
    with caplog.at_level(logging.WARNING):
        data = build_dataset(decals, tmp_path / "out", small).dataset
    assert f"{table}: no votes, so unlabelled: galaxy {rows[1]['iauname']}" in caplog.messages
    assert (data.galaxies("train"), data.galaxies("unlabelled"), data.source["images_without_votes"]) == (5, 1, 1)
    example = _examples(data)[rows[1]["iauname"]]
    assert np.isnan(example.targets).all() and example.asked is not None and not example.asked.any()
    assert verify_dataset(data.folder, decals).findings == ()


def _refused(source: Path, settings: BuildSettings, out: Path, **options: Any) -> str:
    with pytest.raises((SourceError, TreeError)) as caught:
        build_dataset(source, out, settings, **options)
    assert "\n" not in str(caught.value) and not any(out.glob("*.json"))
    return str(caught.value)


def test_the_second_table_of_galaxy_zoo_2_is_needed_once(gz2: Path, small: BuildSettings, tmp_path: Path) -> None:
    mapping = gz2 / "gz2_filename_mapping.csv"
    text = mapping.read_text()
    expected = _expected_of_gz2(gz2)
    (gz2 / "copy").mkdir()
    (gz2 / "copy" / mapping.name).write_text(f"{text}1,original,7\n")
    both = f"{gz2}/copy/{mapping.name}, {mapping}"
    several = f"{gz2}: more than one table {mapping.name} ({both}): remove all but one"
    assert _refused(gz2, small, tmp_path / "out") == several
    (gz2 / "copy" / mapping.name).write_text(text)  # copies count once
    _assert_holds(build_dataset(gz2, tmp_path / "copies", small).dataset, expected)
    shutil.rmtree(gz2 / "copy")
    mapping.write_text(text.replace("asset_id", "file"))
    rule = "which maps the votes of tree gz2 to image files: add it"
    assert _refused(gz2, small, tmp_path / "out") == f"{mapping}: lacks the column asset_id, {rule}"
    mapping.unlink()
    what = f"{gz2}: lacks {mapping.name}, which maps the votes of tree gz2 to image files: put it beside the images"
    assert _refused(gz2, small, tmp_path / "out") == what
    # Of several files of a galaxy, the one that is there counts.
    header, *rows = text.splitlines()
    more = [f"{row.rpartition(',')[0]},{999000 + number}" for number, row in enumerate(rows)]
    mapping.write_text("\n".join([header, *more, *rows, *more]) + "\n")
    _assert_holds(build_dataset(gz2, tmp_path / "out", small).dataset, expected)


def test_two_rows_of_one_image_are_refused(gz2: Path, small: BuildSettings, tmp_path: Path) -> None:
    mapping = gz2 / "gz2_filename_mapping.csv"
    mapping.write_text(mapping.read_text().replace("91609", "16126"))
    message = _refused(gz2, small, tmp_path / "out")
    assert message.startswith(f"{gz2}/gz2_hart16.csv: galaxies ")
    assert message.endswith(" belong to one image: keep one row per galaxy")
    ids = message.rpartition("galaxies ")[2].partition(" belong")[0].split(", ")
    assert {*ids} == {"587736542560715163", "587726016142835881"}


def test_several_tables_of_votes_are_refused_until_one_is_chosen(decals: Path, small: BuildSettings, tmp_path: Path) -> None:
    table = decals / "gz_decals_volunteers_5.csv"
    rows = _rows(table)
    _write(decals / "half.csv", [dict(row) for row in rows[:3]])
    several = f"{decals}: more than one table of votes ({table}, {decals}/half.csv): choose one with --solutions FILE"
    assert _refused(decals, small, tmp_path / "out") == several
    data = build_dataset(decals, tmp_path / "out", small, solutions_file=decals / "half.csv").dataset
    assert (data.galaxies("train"), data.galaxies("unlabelled")) == (3, 3)
    # The usual name of a tree's table counts before others.
    assert build_dataset(decals, tmp_path / "all", small, tree="decals5").dataset.galaxies("train") == 6


def test_a_csv_file_that_is_no_table_of_votes_is_ignored_beside_one_and_named_without(
    decals: Path, small: BuildSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _write(decals / "photometry.csv", [{"iauname": "J1", "g": "17.5"}])
    assert build_dataset(decals, tmp_path / "out", small).dataset.galaxies("train") == 6
    table = decals / "gz_decals_volunteers_5.csv"
    rows = [{("bar_wek" if name == "bar_weak" else name): value for name, value in row.items()} for row in _rows(table)]
    _write(table, rows)
    # Without its counts, the table still has fractions.
    assert build_dataset(decals, tmp_path / "misspelt", small).dataset.settings["votes"] == "fractions"
    rule = "it must have iauname and the 34 columns smooth-or-featured_smooth to merging_merger"
    assert _refused(decals, small, tmp_path / "no", votes="counts") == (
        f"{table}: lacks bar_weak: {rule} of tree decals5, the nearest; for a survey of your own give --tree FILE"
    )
    rows = [{name: value for name, value in row.items() if not name.startswith("bar_")} for row in rows]
    _write(table, rows)
    with caplog.at_level(logging.WARNING):
        assert build_dataset(decals, tmp_path / "without", small).dataset.galaxies("unlabelled") == 6
    (message,) = [message for message in caplog.messages if "no table of votes" in message]
    lacks = "lacks bar_strong, bar_weak, bar_no"
    assert f"; {table} {lacks} of tree decals5, the nearest): all 6 galaxies are unlabelled" in message
    assert _refused(decals, small, tmp_path / "no", tree="decals5") == f"{table}: {lacks}: {rule}"
    table.unlink()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        build_dataset(decals, tmp_path / "bare", small)
    assert any(f"; {decals}/photometry.csv has no columns of a tree): all 6" in message for message in caplog.messages)


def test_a_table_with_kaggles_columns_under_another_name_counts_if_it_is_asked_for(
    survey: Path, small: BuildSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    survey = Path(shutil.copytree(survey, tmp_path / "kaggle"))
    table = (survey / "training_solutions_rev1.csv").rename(survey / "mine.csv")
    (survey / "all_zeros_benchmark.csv").write_bytes(table.read_bytes() + b"\n")  # no table of votes, whatever it holds
    with caplog.at_level(logging.WARNING):
        data = build_dataset(survey, tmp_path / "without", small).dataset
    assert data.galaxies("train") == 0
    (message,) = [message for message in caplog.messages if "no table of votes" in message]
    cure = "give it with --solutions FILE"
    assert f"; {table} has Kaggle's columns, but not the name of its table: {cure}): all " in message
    assert message.count("--solutions") == 1
    named = build_dataset(survey, tmp_path / "out", small, tree="kaggle").dataset
    given = build_dataset(survey, tmp_path / "given", small, solutions_file=table).dataset
    assert named.galaxies("train") > 0 and named.fingerprint == given.fingerprint
    (survey / "predictions.csv").write_bytes(table.read_bytes() + b"\n")
    both = f"{table}, {survey}/predictions.csv"
    several = f"{survey}: more than one table of votes ({both}): choose one with --solutions FILE"
    assert _refused(survey, small, tmp_path / "no", tree="kaggle") == several


def test_a_tree_with_kaggles_name_and_other_questions_is_not_kaggles(small: BuildSettings, tmp_path: Path) -> None:
    source = _named_survey(tmp_path / "mine")
    tree = parse_tree(f'name = "kaggle"\n{RINGS}', "rings.toml", "rings")
    # By the columns of its table, which has no usual name.
    assert build_dataset(source, tmp_path / "out", small, tree=tree).dataset.galaxies("train") == 8
    path = tmp_path / "kaggle.toml"
    path.write_text(RINGS)
    what = f'{path}: its name is that of another tree: give it a name of its own, name = "..."'
    assert _refused(source, small, tmp_path / "no", tree=path) == what


@pytest.mark.parametrize("packed", [False, True])
def test_the_usual_name_of_a_table_may_start_with_a_folder(
    rings: Path, small: BuildSettings, tmp_path: Path, packed: bool
) -> None:
    source = _named_survey(tmp_path / "mine")
    rings.write_text(f'tables = ["votes/final.csv"]\n{RINGS}')
    rows = _rows(source / "votes.csv")
    for name in ("votes", "drafts"):
        (source / name).mkdir()
        _write(source / name / "final.csv", [dict(row) for row in (rows if name == "votes" else rows[:3])])
    (source / "votes.csv").unlink()
    if packed:  # a zip counts as a folder
        shutil.make_archive(str(source / "votes"), "zip", source / "votes")
        shutil.rmtree(source / "votes")
    assert build_dataset(source, tmp_path / "out", small, tree=rings).dataset.galaxies("train") == 8


def test_a_table_that_belongs_to_no_image_is_refused(rings: Path, small: BuildSettings, tmp_path: Path) -> None:
    source = _named_survey(tmp_path / "mine")
    _write(source / "votes.csv", [{"file": "m31.jpg", "ring": 0.5}])
    message = f"{source}: no image has a row in {source}/votes.csv: check that they belong together"
    assert _refused(source, small, tmp_path / "out", tree=rings) == message


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--tree", "gz3"], "--tree gz3: no such tree: did you mean gz2?"),
        (["--tree", "missing.toml"], "missing.toml: no such file: give --tree the TOML file of a tree, or one of kaggle, "),
        (["--tree", "bad.toml"], "bad.toml: holds no decision tree: add [[question]] with key and answers"),
        (["--tree", "circle.toml"], "circle.toml: question 'a' is asked after none, which no answer has as its column: "),
        (["--tree", "kaggle"], "gz2_hart16.csv: lacks GalaxyID, Class1.1, "),
        (["--votes", "biased"], "--votes biased: our trees have no such votes: choose from counts, "),
        (["--tree", "gz2", "--votes", "biased"], "--votes biased: tree gz2 has no such votes: choose from counts, debiased, "),
    ],
)
def test_a_tree_or_votes_that_do_not_exist_are_refused_in_one_line(
    gz2: Path, run: Run, said: Callable[[str], list[str]], tmp_path: Path, flags: list[str], what: str
) -> None:
    (tmp_path / "bad.toml").write_text('title = "no questions"\n')
    (tmp_path / "circle.toml").write_text('[[question]]\nkey = "a"\nafter = ["none"]\nanswers = { x = "x", y = "y" }\n')
    done = run("--src", gz2, "--out", tmp_path / "out", "--workers=1", *flags)
    (line,) = said(done.stderr)
    assert done.returncode == 1 and what in line
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_the_command_prints_the_tree_and_the_votes_that_it_used(gz2: Path, run: Run, tmp_path: Path) -> None:
    flags = ("--workers=1", "--size=16", "--encoding=png", "--validation_fraction=0", "--test_fraction=0")
    for state in ("complete", "already complete, nothing to do"):
        done = run("--src", gz2, "--out", tmp_path / "out", *flags)
        assert done.returncode == 0, done.stderr
        assert f"{tmp_path}/out: {state}, votes of tree gz2 (counts)\n" in done.stdout


@pytest.mark.slow
def test_a_killed_build_of_counts_resumes_to_the_same_bytes(command: list[str], contents: Contents, tmp_path: Path) -> None:
    """As in test_resume.py, for records with numbers of answers."""
    generator, tree = np.random.default_rng(0), builtin_tree("decals5")
    source = tmp_path / "decals"
    (source / "images").mkdir(parents=True)
    rows = []
    for number, counts in enumerate(random_counts(24, generator, tree).tolist()):
        galaxy_image(generator, 64).save(source / "images" / f"J{number}.jpg", quality=95)
        rows.append({"iauname": f"J{number}", **dict(zip(tree.columns, counts, strict=True))})
    random.Random(0).shuffle(rows)
    _write(source / "votes.csv", rows)
    out, settings = tmp_path / "out", BuildSettings(CropSettings(size=424, encoding="png"), PlanSettings(examples_per_shard=2))
    flags = ["--size=424", "--examples_per_shard=2", "--encoding=png", "--workers=2"]
    arguments = [*command, f"--src={source}", f"--out={out}", *flags]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 60
    while len(list(out.glob(".preprocess/receipts/*.json"))) < 2:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (out / "manifest.json").exists() and (out / ".preprocess").is_dir()
    own = tmp_path / "own.toml"
    own.write_text(f"# mine\n{tree.text}", "utf-8")
    with pytest.raises(ConfigError, match=r"holds an unfinished build .*tree was decals5, now decals5 \([0-9a-f]{12}\)"):
        build_dataset(source, out, settings, tree=own)
    subprocess.run(arguments, check=True, capture_output=True, timeout=120)
    whole = build_dataset(source, tmp_path / "whole", settings).dataset
    assert whole.asked and contents(out) == contents(whole.folder)
