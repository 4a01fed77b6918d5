"""A table of votes is found wherever it lies, and an ambiguous one is refused by name."""

from pathlib import Path

import pytest

from tests.preprocess.sources.finding import JPEG, STORED, TABLE, VOTES, Find, keep, votes_of, write_files
from tests.preprocess.sources.packing import Files, packed
from tfrecords.errors import SourceError

# Votes


@pytest.mark.parametrize("name", ["training_solutions_rev1.csv", "target_data/targets.csv"])
@pytest.mark.parametrize("folder", ["", "kaggle/2014/"])
def test_a_table_of_votes_is_found_zipped_or_not(tmp_path: Path, find: Find, folder: str, name: str) -> None:
    images = {"7.jpg": JPEG}
    above = f"{folder}{name.split('/')[0].removesuffix('.csv')}.zip"
    tables = {
        "folder": {f"{folder}{name}": VOTES},
        "zip": {above: packed({name: VOTES})},
        "flat zip": {above: packed({name.rpartition("/")[2]: VOTES})},
    }
    for kind, table in tables.items():
        for path in (
            keep(tmp_path / kind, images | table),
            keep(tmp_path / f"{kind}.zip", images | table),
            keep(tmp_path / f"{kind} in a folder", {"kaggle.zip": packed(images | table, STORED)}),
        ):
            assert votes_of(find(path)) == VOTES


def test_a_table_of_votes_shows_where_it_lies(tmp_path: Path, find: Find) -> None:
    files = {"7.jpg": JPEG, "a/training_solutions_rev1.zip": packed(TABLE)}
    for path in (keep(tmp_path / "folder", files), keep(tmp_path / "zip.zip", files)):
        (table,) = find(path).solutions
        assert table.path == f"{path}/a/training_solutions_rev1.zip/training_solutions_rev1.csv"


NO_VOTES = (
    "all_zeros_benchmark.csv", "all_ones_benchmark.csv", "central_pixel_benchmark.csv", "targets.csv", "submission.csv",
    "my_training_solutions_rev1.csv", "training_solutions_rev1.csv.bak", "training_solutions_rev2.csv",
    "my_target_data/targets.csv", "target_data/old/targets.csv", "target_data/my_targets.csv",
    ".training_solutions_rev1.csv", "__MACOSX/training_solutions_rev1.csv", ".old/training_solutions_rev1.csv",
)  # fmt: skip


def test_benchmarks_and_submissions_are_never_votes(tmp_path: Path, find: Find) -> None:
    files = {"7.jpg": JPEG, **dict.fromkeys(NO_VOTES, VOTES)}
    zips = {f"{Path(name).stem}.zip": packed({name: VOTES}) for name in NO_VOTES if name != "targets.csv"}
    for path in (
        keep(tmp_path / "folder", files),
        keep(tmp_path / "zip.zip", files),
        keep(tmp_path / "zips", {"7.jpg": JPEG} | zips),
        keep(tmp_path / "zips.zip", {"7.jpg": JPEG} | zips),
    ):
        assert find(path).solutions == ()
        assert votes_of(find(path)) is None


def test_copies_of_a_table_of_votes_count_once(tmp_path: Path, find: Find) -> None:
    files = {"7.jpg": JPEG, **TABLE, "training_solutions_rev1.zip": packed(TABLE), "target_data/targets.csv": VOTES}
    for path in (keep(tmp_path / "folder", files), keep(tmp_path / "zip.zip", files)):
        assert len(find(path).solutions) == 3
        assert votes_of(find(path)) == VOTES


def test_different_tables_of_votes_are_refused_with_all_unless_one_is_named(tmp_path: Path, find: Find) -> None:
    keep(tmp_path, {"7.jpg": JPEG, **TABLE, "old.zip": packed({"training_solutions_rev1.csv": VOTES + b"8,1\n"})})
    source = find(tmp_path)
    with pytest.raises(SourceError) as caught:
        votes_of(source)
    both = f"{tmp_path}/old.zip/training_solutions_rev1.csv, {tmp_path}/training_solutions_rev1.csv"
    assert str(caught.value) == f"{tmp_path}: more than one table of votes ({both}): choose one with --solutions FILE"
    assert votes_of(source, tmp_path / "training_solutions_rev1.csv") == VOTES
    assert votes_of(source, tmp_path / "old.zip") == VOTES + b"8,1\n"


def test_a_damaged_table_of_votes_in_a_zip_is_refused_by_name(tmp_path: Path, find: Find) -> None:
    content = packed(TABLE, STORED).replace(VOTES, VOTES.replace(b"7", b"9"))
    keep(tmp_path, {"7.jpg": JPEG, "training_solutions_rev1.zip": content})
    with pytest.raises(SourceError) as caught:
        votes_of(find(tmp_path))
    text = "training_solutions_rev1.csv is damaged: copy or download it again"
    assert str(caught.value) == f"{tmp_path}/training_solutions_rev1.zip: {text}"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("votes.csv", None),
        ("votes.txt", None),
        ("votes.zip", {"my votes.csv": VOTES}),
        ("votes.ZIP", {"a/b/votes.CSV": VOTES, "readme.txt": b"text", "__MACOSX/a/b/._votes.csv": b"shadow"}),
        ("votes.zip", {"training_solutions_rev1.csv": VOTES, "all_zeros_benchmark.csv": b"zeros"}),
        ("votes.zip", {"a/target_data/targets.csv": VOTES, "targets.csv": b"others"}),
        ("target_data.zip", {"targets.csv": VOTES, "others.csv": b"others"}),
        ("votes.zip", {"votes.FITS": VOTES, "readme.txt": b"text"}),
        ("votes.zip", {"votes.fit.gz": VOTES}),
    ],
)
def test_a_given_table_of_votes_is_taken_as_csv_or_in_a_zip(tmp_path: Path, find: Find, name: str, files: Files | None) -> None:
    source = find(keep(tmp_path / "kaggle", {"7.jpg": JPEG, "training_solutions_rev1.csv": b"not these"}))
    given = write_files(tmp_path, name, content=VOTES if files is None else packed(files)) / name
    assert votes_of(source, given) == VOTES


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (
            {"readme.txt": b"text", "__MACOSX/._votes.csv": b"shadow"},
            "holds no table (.csv, .tsv, .parquet or .fits): give --solutions the table of votes",
        ),
        (
            {"a.csv": VOTES, "b.csv": VOTES, "c.csv": VOTES, "d.fits.gz": VOTES},
            "holds 4 tables (a.csv, b.csv, c.csv, ...): unzip it, and give --solutions the one with the votes",
        ),
        (
            {"training_solutions_rev1.csv": VOTES, "target_data/targets.csv": VOTES, "c.csv": VOTES},
            "holds 2 tables (training_solutions_rev1.csv, targets.csv): unzip it, and give --solutions the one with the votes",
        ),
    ],
)
def test_a_given_zip_without_one_table_of_votes_is_refused(tmp_path: Path, find: Find, files: Files, what: str) -> None:
    source = find(write_files(tmp_path, "7.jpg", "training_solutions_rev1.csv"))
    given = keep(tmp_path / "votes.zip", files)
    with pytest.raises(SourceError) as caught:
        votes_of(source, given)
    assert str(caught.value) == f"{given}: {what}"


def test_a_given_table_of_votes_that_is_missing_is_refused(tmp_path: Path, find: Find) -> None:
    source = find(write_files(tmp_path, "7.jpg", "training_solutions_rev1.csv"))
    for path, what in ((tmp_path / "votes.csv", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(SourceError) as caught:
            votes_of(source, path)
        assert str(caught.value) == f"{path}: {what}: give --solutions the table of votes: CSV, Parquet or FITS, zipped or not"


def test_a_given_zip_that_is_none_is_refused_by_name(tmp_path: Path, find: Find) -> None:
    source = find(write_files(tmp_path, "7.jpg"))
    given = write_files(tmp_path / "votes", "votes.zip", content=VOTES) / "votes.zip"
    with pytest.raises(SourceError, match=f"^{given}: not a zip, or cut off"):
        votes_of(source, given)
