"""Tables and trees that do not belong together are refused in one line that says what to do."""

import logging
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from preprocess.job import BuildSettings, build_dataset
from preprocess.verify.dataset import verify_dataset
from tests.preprocess.surveys import (
    assert_holds,
    expected_of_gz2,
    named_survey,
    refused,
    rows_of,
    write_rows,
)
from tfrecords.builtin import builtin_tree
from tfrecords.errors import ConfigError

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_second_table_of_galaxy_zoo_2_is_needed_once(gz2: Path, small: BuildSettings, tmp_path: Path) -> None:
    mapping = gz2 / "gz2_filename_mapping.csv"
    text = mapping.read_text()
    expected = expected_of_gz2(gz2)
    (gz2 / "copy").mkdir()
    (gz2 / "copy" / mapping.name).write_text(f"{text}1,original,7\n")
    both = f"{gz2}/copy/{mapping.name}, {mapping}"
    several = f"{gz2}: more than one table {mapping.name} ({both}): remove all but one"
    assert refused(gz2, small, tmp_path / "out") == several
    (gz2 / "copy" / mapping.name).write_text(text)  # copies count once
    assert_holds(build_dataset(gz2, tmp_path / "copies", small).dataset, expected)
    shutil.rmtree(gz2 / "copy")
    mapping.write_text(text.replace("asset_id", "file"))
    rule = "which maps the votes of tree gz2 to image files: add it"
    assert refused(gz2, small, tmp_path / "out") == f"{mapping}: lacks the column asset_id, {rule}"
    mapping.unlink()
    what = f"{gz2}: lacks {mapping.name}, which maps the votes of tree gz2 to image files: "
    cure = "put it beside the images, or name the column of the files with --path_column"
    assert refused(gz2, small, tmp_path / "out") == f"{what}{cure}"
    # Of several files of a galaxy, the one that is there counts.
    header, *rows = text.splitlines()
    more = [f"{row.rpartition(',')[0]},{999000 + number}" for number, row in enumerate(rows)]
    mapping.write_text("\n".join([header, *more, *rows, *more]) + "\n")
    assert_holds(build_dataset(gz2, tmp_path / "out", small).dataset, expected)


def test_two_rows_of_one_image_are_refused(gz2: Path, small: BuildSettings, tmp_path: Path) -> None:
    mapping = gz2 / "gz2_filename_mapping.csv"
    mapping.write_text(mapping.read_text().replace("91609", "16126"))
    message = refused(gz2, small, tmp_path / "out")
    assert message.startswith(f"{gz2}/gz2_hart16.csv: galaxies ")
    assert message.endswith(" belong to one image: keep one row per galaxy")
    ids = message.rpartition("galaxies ")[2].partition(" belong")[0].split(", ")
    assert {*ids} == {"587736542560715163", "587726016142835881"}


def test_several_tables_of_votes_are_refused_until_one_is_chosen(decals: Path, small: BuildSettings, tmp_path: Path) -> None:
    table = decals / "gz_decals_volunteers_5.csv"
    rows = rows_of(table)
    write_rows(decals / "half.csv", [dict(row) for row in rows[:3]])
    several = f"{decals}: more than one table of votes ({table}, {decals}/half.csv): choose one with --solutions FILE"
    assert refused(decals, small, tmp_path / "out") == several
    data = build_dataset(decals, tmp_path / "out", small, solutions_file=decals / "half.csv").dataset
    assert (data.galaxies("train"), data.galaxies("unlabelled")) == (3, 3)
    # The usual name of a tree's table counts before others.
    assert build_dataset(decals, tmp_path / "all", small, tree="decals5").dataset.galaxies("train") == 6


def test_a_csv_file_that_is_no_table_of_votes_is_ignored_beside_one_and_named_without(
    decals: Path, small: BuildSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_rows(decals / "photometry.csv", [{"iauname": "J1", "g": "17.5"}])
    assert build_dataset(decals, tmp_path / "out", small).dataset.galaxies("train") == 6
    table = decals / "gz_decals_volunteers_5.csv"
    rows = [{("bar_wek" if name == "bar_weak" else name): value for name, value in row.items()} for row in rows_of(table)]
    write_rows(table, rows)
    # Without its counts, the table still has fractions.
    assert build_dataset(decals, tmp_path / "misspelt", small).dataset.settings["votes"] == "fractions"
    rule = "it must have iauname and the 34 columns smooth-or-featured_smooth to merging_merger"
    assert refused(decals, small, tmp_path / "no", votes="counts") == (
        f"{table}: lacks bar_weak: {rule} of tree decals5, the nearest; for a survey of your own give --tree FILE"
    )
    rows = [{name: value for name, value in row.items() if not name.startswith("bar_")} for row in rows]
    write_rows(table, rows)
    with caplog.at_level(logging.WARNING):
        assert build_dataset(decals, tmp_path / "without", small).dataset.galaxies("unlabelled") == 6
    (message,) = [message for message in caplog.messages if "no table of votes" in message]
    lacks = "lacks bar_strong, bar_weak, bar_no"
    assert f"; {table} {lacks} of tree decals5, the nearest): all 6 galaxies are unlabelled" in message
    assert refused(decals, small, tmp_path / "no", tree="decals5") == f"{table}: {lacks}: {rule}"
    table.unlink()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        build_dataset(decals, tmp_path / "bare", small)
    assert any(f"; {decals}/photometry.csv has no columns of a tree): all 6" in message for message in caplog.messages)


def test_a_table_with_kaggles_columns_under_another_name_counts_if_it_is_asked_for(
    survey: Path, small: BuildSettings, tmp_path: Path
) -> None:
    survey = Path(shutil.copytree(survey, tmp_path / "kaggle"))
    table = (survey / "training_solutions_rev1.csv").rename(survey / "mine.csv")
    (survey / "all_zeros_benchmark.csv").write_bytes(table.read_bytes() + b"\n")  # no table of votes, whatever it holds
    cure = "give it with --solutions FILE; if it holds no votes, move it elsewhere"
    what = f"{table}: has Kaggle's columns, but not the name of its table: {cure}"
    assert refused(survey, small, tmp_path / "without") == what
    named = build_dataset(survey, tmp_path / "out", small, tree="kaggle").dataset
    given = build_dataset(survey, tmp_path / "given", small, solutions_file=table).dataset
    assert named.galaxies("train") > 0 and named.fingerprint == given.fingerprint
    (survey / "predictions.csv").write_bytes(table.read_bytes() + b"\n")
    both = f"{table}, {survey}/predictions.csv"
    several = f"{survey}: more than one table of votes ({both}): choose one with --solutions FILE"
    assert refused(survey, small, tmp_path / "no", tree="kaggle") == several


def test_a_table_that_belongs_to_no_image_is_refused(rings: Path, small: BuildSettings, tmp_path: Path) -> None:
    source = named_survey(tmp_path / "mine")
    write_rows(source / "votes.csv", [{"file": "m31.jpg", "ring": 0.5}])
    message = refused(source, small, tmp_path / "out", tree=rings)
    assert re.fullmatch(
        rf"{source}: no image has a row in {source}/votes\.csv \(images: 8, such as (ngc \da, ){{2}}ngc \da; rows: 1, such as "
        r"file m31\.jpg\): "
        "check that they belong together, or name the column of their names with --id_column or --path_column",
        message,
    )


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


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--tree", "gz3"], "--tree gz3: no such tree: did you mean gz2?"),
        (["--tree", "missing.toml"], "missing.toml: no such file: give --tree the TOML file of a tree, or one of kaggle, "),
        (["--tree", "bad.toml"], "bad.toml: holds no decision tree: add [[question]] with key and answers"),
        (["--tree", "circle.toml"], "circle.toml: question 'a' is asked after none, which no answer has as its column: "),
        (["--tree", "kaggle"], "gz2_hart16.csv: lacks Class1.1, Class1.2, "),
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
