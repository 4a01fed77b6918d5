"""From tables of several surveys to datasets: real galaxies of GZ DECaLS and Galaxy Zoo 2."""

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.job import BuildSettings, build_dataset
from preprocess.plan import PlanSettings
from preprocess.verify.dataset import verify_dataset
from tests.conftest import galaxy_image, random_counts
from tests.preprocess.surveys import (
    DECALS,
    assert_holds,
    examples_by_name,
    expected_of_decals,
    expected_of_gz2,
    rows_of,
    write_rows,
)
from tfrecords import dataset, framing, schema
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import open_dataset
from tfrecords.errors import ConfigError, DatasetError
from tfrecords.files import sha256_file
from tfrecords.images import CropSettings

Contents = Callable[[Path], dict[str, bytes]]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_records_of_gz_decals_hold_the_votes_of_its_table(decals: Path, small: BuildSettings, tmp_path: Path) -> None:
    data = build_dataset(decals, tmp_path / "out", small).dataset
    assert data.asked and data.tree == builtin_tree("decals5") and data.votes_width == 34 + 10
    assert (data.settings["tree"], data.settings["votes"], data.source["asked"]) == ("decals5", "counts", "counted")
    expected = expected_of_decals(decals)
    assert len(expected) == 6 and len(next(iter(expected.values()))[0]) == 34
    assert_holds(data, expected)


def test_records_of_galaxy_zoo_2_hold_the_votes_of_the_row_that_its_second_table_names(
    gz2: Path, small: BuildSettings, tmp_path: Path
) -> None:
    data = build_dataset(gz2, tmp_path / "out", small).dataset
    assert data.asked and data.tree == builtin_tree("gz2") and data.votes_width == 37 + 11
    expected = expected_of_gz2(gz2)
    assert len(expected) == 3 and len(next(iter(expected.values()))[0]) == 37
    assert_holds(data, expected)


@pytest.mark.parametrize("votes", ["fractions", "debiased"])
def test_fractions_of_galaxy_zoo_2_come_with_the_numbers_of_its_counts(
    gz2: Path, small: BuildSettings, tmp_path: Path, votes: str
) -> None:
    counted = examples_by_name(build_dataset(gz2, tmp_path / "counts", small).dataset)
    data = build_dataset(gz2, tmp_path / "out", small, votes=votes).dataset
    assert data.settings["votes"] == votes and data.asked
    for name, example in examples_by_name(data).items():
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
    ours = {one.galaxy_id: one for one in examples_by_name(data).values()}
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
    # Names do not depend on the folder, but the ids of those that are no numbers do.
    third = build_dataset(both, tmp_path / "third", small).dataset
    assert (contents(third.folder) == contents(data.folder)) == (name == "gz2")
    assert examples_by_name(third).keys() == examples_by_name(data).keys()


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
    first, *others = [schema.parse(record, data.tree, True, True) for record in framing.read_records(path)]
    assert first.asked is not None

    def forge(asked: np.ndarray) -> None:
        changed = replace(first, asked=asked)
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


def test_galaxies_on_which_nobody_voted_are_unlabelled_with_a_warning(
    decals: Path, small: BuildSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = decals / "gz_decals_volunteers_5.csv"
    rows = rows_of(table)
    for name in rows[1]:
        if name.startswith(tuple(DECALS)):
            rows[1][name] = "0"
    write_rows(table, rows)
    with caplog.at_level(logging.WARNING):
        data = build_dataset(decals, tmp_path / "out", small).dataset
    assert f"{table}: no votes, so unlabelled: galaxy {rows[1]['iauname']}" in caplog.messages
    assert (data.galaxies("train"), data.galaxies("unlabelled"), data.source["images_without_votes"]) == (5, 1, 1)
    example = examples_by_name(data)[rows[1]["iauname"]]
    assert np.isnan(example.targets).all() and example.asked is not None and not example.asked.any()
    assert verify_dataset(data.folder, decals).findings == ()


def test_the_command_prints_the_tree_and_the_votes_that_it_used(gz2: Path, run: Run, tmp_path: Path) -> None:
    flags = ("--workers=1", "--size=16", "--encoding=png", "--validation_fraction=0", "--test_fraction=0")
    for state in ("complete", "already complete, nothing to do"):
        done = run("--src", gz2, "--out", tmp_path / "out", *flags)
        assert done.returncode == 0, done.stderr
        joined = "by dr7objid, mapped to asset_id by gz2_filename_mapping.csv"
        assert f"{tmp_path}/out: {state}, votes of tree gz2 (counts) {joined}\n" in done.stdout


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
    write_rows(source / "votes.csv", rows)
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
