"""Tables beside images are found in any format and packing, joined by what they hold, and named if they are not used."""

import gzip
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess.job import BuildSettings, build_dataset
from preprocess.verify.dataset import verify_dataset
from tests.preprocess.dialects import Dialect
from tests.preprocess.people import TABLE, People, assert_plain, build_and_verify
from tests.preprocess.surveys import assert_holds, expected_of_gz2, named_survey, refused, rows_of, write_rows

Contents = Callable[[Path], dict[str, bytes]]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def _as_parquet(csv: Path, name: str) -> None:
    """Write a table of two columns as Parquet, packed with gzip if its name ends in .gz, in place of the CSV file."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = rows_of(csv)
    columns = {"file": [row["file"] for row in rows], "ring": [float(row["ring"]) for row in rows]}
    path = csv.with_name("votes.parquet")
    parquet.write_table(pa.table(columns), path)
    content = path.read_bytes()
    path.unlink()
    csv.unlink()
    csv.with_name(name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


@pytest.mark.parametrize("name", ["votes.parquet", "votes.parquet.gz", "votes.csv"])
def test_a_parquet_table_in_a_folder_or_a_zip_gives_the_same_shards(
    rings: Path, small: BuildSettings, contents: Contents, tmp_path: Path, name: str
) -> None:
    source = named_survey(tmp_path / "mine")
    shards = {shard.sha256 for shard in build_dataset(source, tmp_path / "csv", small, tree=rings).dataset.shards}
    _as_parquet(source / "votes.csv", name)
    data = build_dataset(source, tmp_path / "folder", small, tree=rings).dataset
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", source))
    zipped = build_dataset(packed, tmp_path / "zip", small, tree=rings).dataset
    assert contents(zipped.folder) == contents(data.folder)
    assert {shard.sha256 for shard in data.shards} == shards and data.galaxies("unlabelled") == 0


def test_a_damaged_parquet_table_that_is_not_used_does_no_harm(
    people: People, tiny: BuildSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = Path(shutil.copytree(people.folder, tmp_path / "mine"))
    (source / TABLE).rename(source / "votes.csv")
    for name, content in (("a.parquet", b"PAR1"), ("b.parquet.gz", gzip.compress(b"PAR1"))):
        (source / name).write_bytes(content)
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", source))
    for place, out in ((source, tmp_path / "folder"), (packed, tmp_path / "zip")):
        assert_plain(build_dataset(place, out, tiny, tree="kaggle").dataset, people)
        assert caplog.messages.pop() == f"{place}/a.parquet and {place}/b.parquet.gz are not used"


@pytest.mark.parametrize("kind", ["point zero", "suffix", "another row without a file"])
def test_a_second_table_may_write_files_in_other_ways(gz2: Path, small: BuildSettings, tmp_path: Path, kind: str) -> None:
    expected, plain = expected_of_gz2(gz2), build_dataset(gz2, tmp_path / "plain", small).dataset
    table = gz2 / "gz2_filename_mapping.csv"
    rows: list[dict[str, Any]] = [*rows_of(table)]
    for row in rows:
        if kind == "suffix":
            row["asset_id"] += ".jpg"
        elif kind == "point zero":
            row["asset_id"] += ".0"
    if kind == "another row without a file":
        rows.insert(0, {"objid": "1", "sample": "extra", "asset_id": ""})
    write_rows(table, rows)
    data = build_dataset(gz2, tmp_path / "out", small).dataset
    assert_holds(data, expected)
    assert {shard.sha256 for shard in data.shards} == {shard.sha256 for shard in plain.shards}
    assert verify_dataset(data.folder, gz2).findings == ()


def test_a_second_table_may_write_its_ids_with_point_zero(gz2: Path, small: BuildSettings, tmp_path: Path) -> None:
    mapping, votes = gz2 / "gz2_filename_mapping.csv", gz2 / "gz2_hart16.csv"
    expected = expected_of_gz2(gz2)
    # Real ids have too many digits for a float.
    short = {row["objid"]: str(100008 + 7 * place) for place, row in enumerate(rows_of(mapping))}
    write_rows(votes, [{**row, "dr7objid": short[row["dr7objid"]]} for row in rows_of(votes)])
    write_rows(mapping, [{**row, "objid": f"{short[row['objid']]}.0"} for row in rows_of(mapping)])
    assert_holds(build_dataset(gz2, tmp_path / "out", small).dataset, expected)


def test_the_last_digits_of_an_id_in_a_second_table_are_not_guessed(gz2: Path, small: BuildSettings, tmp_path: Path) -> None:
    table = gz2 / "gz2_filename_mapping.csv"
    rows = rows_of(table)
    rows[1]["objid"] = "5.87726E+17"
    write_rows(table, rows)
    message = refused(gz2, small, tmp_path / "out")
    assert message.startswith(f"{table}: objid holds 5.87726E+17 in row 2 below the header, whose last digits are lost")


def test_the_closing_line_names_the_second_table(gz2: Path, run: Run, tmp_path: Path) -> None:
    done = run("--src", gz2, "--out", tmp_path / "out", "--workers=1", "--size=16", "--encoding=png")
    expected = "complete, votes of tree gz2 (counts) by dr7objid, mapped to asset_id by gz2_filename_mapping.csv"
    assert done.stdout.splitlines()[0] == f"{tmp_path}/out: {expected}", done.stderr


# Tables that are not used


def test_the_table_in_use_is_not_said_to_be_unused_however_it_is_written(
    people: People, tiny: BuildSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = people.bring(tmp_path / "mine")
    shutil.copy(people.folder / TABLE, source / "votes.csv")
    (tmp_path / "link").symlink_to(source)
    monkeypatch.chdir(source)
    for place, src in enumerate((".", "../mine", source)):
        for solutions in ("votes.csv", "./votes.csv", source / "votes.csv", tmp_path / "link" / "votes.csv"):
            build_dataset(src, tmp_path / f"out{place}", tiny, solutions)
    assert caplog.messages == []


def test_the_sources_own_table_is_named_where_another_one_is_given(
    people: People, tiny: BuildSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = Path(shutil.copytree(people.folder, tmp_path / "mine"))
    given = shutil.copy(source / TABLE, tmp_path / "same.csv")
    assert_plain(build_and_verify(source, tiny, solutions_file=given), people)
    assert caplog.messages == []  # a copy of the one in use
    other = tmp_path / "other.csv"
    other.write_bytes(Dialect(";").written(people.header, people.rows, ()))
    build_dataset(source, tmp_path / "other", tiny, other)
    assert caplog.messages == [f"{source / TABLE} is not used"]


def test_of_many_tables_that_are_not_used_three_are_named(
    people: People, tiny: BuildSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = Path(shutil.copytree(people.folder, tmp_path / "mine"))
    for number in range(5):
        (source / f"{number}.csv").write_text("GalaxyID,g\n100000,17.5\n")
    build_dataset(source, tmp_path / "out", tiny)
    assert caplog.messages == [f"{source}/0.csv, {source}/1.csv, {source}/2.csv and 2 other tables are not used"]


# Columns


def test_both_columns_together_are_for_a_catalogue_alone(people: People, tiny: BuildSettings, tmp_path: Path) -> None:
    source = people.bring(tmp_path / "mine")
    (source / TABLE).write_bytes(people.by("file", [f"{row[0]}.jpg" for row in people.rows]))
    assert_plain(build_and_verify(source, tiny, id_column="file"), people)
    for id_column in ("file", "nmae"):
        assert refused(source, tiny, tmp_path / "no", id_column=id_column, path_column="file") == (
            f"{source}: is joined with its table by one column: give --id_column or --path_column, not both, which are for a "
            "catalogue"
        )


@pytest.mark.parametrize("column", ["filename", "name"])
@pytest.mark.parametrize("ids", ["objid", "GalaxyID"])
def test_a_column_in_which_the_images_are_named_is_the_cure(
    people: People, tiny: BuildSettings, tmp_path: Path, ids: str, column: str
) -> None:
    names = [f"J{number}" for number in range(20)]
    source = people.named(tmp_path / "mine", names)
    table = Dialect().written(
        [ids, *people.header[1:], column], [[*row, f"{name}.jpg"] for row, name in zip(people.rows, names, strict=True)], ()
    )
    (source / TABLE).write_bytes(table)
    article = "an objid" if ids == "objid" else "a GalaxyID"
    there = f": the name is not {article}, but there is a table of votes ({source / TABLE})"
    cure = f"give --id_column {column}, in which the images are named"
    assert refused(source, tiny, tmp_path / "no").endswith(f"{there}: {cure}")
    data = build_and_verify(source, tiny, id_column=column)
    assert data.galaxies("unlabelled") == 0 and data.named


def test_the_cure_is_told_where_names_do_not_match_either(people: People, tiny: BuildSettings, tmp_path: Path) -> None:
    names = [f"J{number}" for number in range(20)]
    source = people.named(tmp_path / "mine", names)
    rows = [[f"K{place}", *row[1:], f"{name}.jpg"] for place, (row, name) in enumerate(zip(people.rows, names, strict=True))]
    (source / TABLE).write_bytes(Dialect().written(["iauname", *people.header[1:], "image_path"], rows, ()))
    message = refused(source, tiny, tmp_path / "no")
    assert f"no image has a row in {source / TABLE} (images: 20, such as J" in message
    assert message.endswith("): give --id_column image_path, in which the images are named")
    assert "; rows: 20, such as iauname K0, K1, K2)" in message


def test_a_link_to_a_source_is_the_source(people: People, tiny: BuildSettings, tmp_path: Path) -> None:
    os.symlink(people.folder, tmp_path / "link")
    assert_plain(build_and_verify(tmp_path / "link", tiny, solutions_file=people.folder / TABLE), people)
