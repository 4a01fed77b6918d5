"""Surveys as people bring them: what can be read gives the dataset of the plain survey, anything else a message."""

import gzip
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.job import BuildSettings
from tests.conftest import SurveyMaker
from tests.preprocess.dialects import DIALECTS, Dialect
from tests.preprocess.people import TABLE, People, assert_plain, build_and_verify
from tests.preprocess.surveys import refused

# Tables that give the dataset of the plain one


# The others are read to the same bits, see test_tables.py.
@pytest.mark.parametrize(
    "dialect",
    ["semicolons and decimal commas", "tabs", "quoted", "old Macintosh", "UTF-16", "Excel in Germany", "Excel's first line"],
)
def test_a_table_in_any_dialect_gives_the_plain_dataset(
    people: People, tiny: BuildSettings, tmp_path: Path, dialect: str
) -> None:
    source = people.bring(tmp_path / "mine")
    (source / TABLE).write_bytes(DIALECTS[dialect].written(people.header, people.rows, tuple(range(1, 38))))
    assert_plain(build_and_verify(source, tiny), people)


def _zip_of(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(TABLE, content)
    return buffer.getvalue()


IDS: dict[str, Callable[[str], str]] = {
    "with point zero": lambda name: f"{name}.0",
    "with many zeros": lambda name: f"{name}.000000",
    "with a suffix": lambda name: f"{name}.jpg",
    "with another suffix": lambda name: f"{name}.PNG",
    "written in full with an exponent": lambda name: f"{int(name):.5e}",
    "with spaces around": lambda name: f" {name} ",
}


@pytest.mark.parametrize("kind", IDS)
def test_numbers_written_in_another_way_give_the_plain_dataset(
    people: People, tiny: BuildSettings, tmp_path: Path, kind: str
) -> None:
    source = people.bring(tmp_path / "mine")
    (source / TABLE).write_bytes(people.by("GalaxyID", [IDS[kind](row[0]) for row in people.rows]))
    assert_plain(build_and_verify(source, tiny), people)


@pytest.mark.parametrize(
    "kind",
    ["index column", "lower case", "upper case", "blank rows", "empty lines", "shuffled", "gzip", "zip", "gzip named csv"],
)
def test_a_table_with_more_or_less_around_it_gives_the_plain_dataset(
    people: People, tiny: BuildSettings, tmp_path: Path, kind: str
) -> None:
    source, header, rows = people.bring(tmp_path / "mine"), people.header, people.rows
    name, pack, end = TABLE, bytes, b""
    if kind == "index column":
        header, rows = ["", *header], [[str(number), *row] for number, row in enumerate(rows)]
    elif kind in ("lower case", "upper case"):
        header = [column.lower() if kind == "lower case" else column.upper() for column in header]
    elif kind == "blank rows":
        rows = [*rows, [""] * len(header), [" "] * len(header)]
    elif kind == "shuffled":
        rows = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    elif kind == "empty lines":
        end = b"\r\n\n\n"
    else:
        name = {"gzip": f"{TABLE}.gz", "zip": "training_solutions_rev1.zip", "gzip named csv": TABLE}[kind]
        pack = _zip_of if kind == "zip" else gzip.compress
    (source / name).write_bytes(pack(Dialect().written(header, rows, ()) + end))
    assert_plain(build_and_verify(source, tiny), people)


def _parquet(people: People, path: Path, kind: str) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    ids: Any = np.array([int(row[0]) for row in people.rows])
    if kind == "Parquet of texts":
        ids = [row[0] for row in people.rows]
    elif kind == "Parquet of floats":
        ids = ids.astype(np.float64)
    values = np.array([row[1:] for row in people.rows], np.float64)
    columns = {"GalaxyID": ids, **dict(zip(people.header[1:], values.T, strict=True))}
    parquet.write_table(pa.table(columns), path)


def _fits(people: People, path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    values = np.array([row[1:] for row in people.rows], np.float64)
    columns = [fits.Column("GalaxyID", "K", array=np.array([int(row[0]) for row in people.rows]))]
    columns += [fits.Column(name, "D", array=values[:, place]) for place, name in enumerate(people.header[1:])]
    fits.BinTableHDU.from_columns(columns).writeto(path)


@pytest.mark.parametrize("kind", ["Parquet", "Parquet of texts", "Parquet of floats", "FITS", "a CSV file named .dat"])
def test_a_given_table_is_recognised_by_its_content(people: People, tiny: BuildSettings, tmp_path: Path, kind: str) -> None:
    source, table = people.bring(tmp_path / "mine"), tmp_path / "votes.dat"
    if kind == "FITS":
        _fits(people, table)
    elif kind.startswith("Parquet"):
        _parquet(people, table, kind)
    else:
        shutil.copy(people.folder / TABLE, table)
    assert_plain(build_and_verify(source, tiny, solutions_file=table), people)


@pytest.mark.parametrize("name", ["votes.parquet", "votes.tsv", "sub/votes.csv.gz"])
def test_a_table_in_the_source_may_have_any_format_if_its_tree_is_named(
    people: People, tiny: BuildSettings, tmp_path: Path, name: str
) -> None:
    source = people.bring(tmp_path / "mine")
    (source / name).parent.mkdir(exist_ok=True)
    if name.endswith(".parquet"):
        _parquet(people, source / name, "Parquet")
    else:
        content = Dialect("\t").written(people.header, people.rows, ())
        (source / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert_plain(build_and_verify(source, tiny, tree="kaggle"), people)


# Folders as they are


def _tar(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("7.jpg"))


def _stray(folder: Path, image: Path, kind: str) -> list[str]:
    """Put what does not belong there into a folder; return the warnings that follow."""
    left_out = "1 image was left out, because its name is not a number, unlike the ids in the table, first"
    if kind == "a copy's name":
        shutil.copy(image, folder / "817739 (1).jpg")
        return [f"{left_out} {folder}/817739 (1).jpg"]
    if kind == "a figure":
        (folder / "figures").mkdir()
        shutil.copy(image, folder / "figures" / "loss_curve.png")
        return [f"{left_out} {folder}/figures/loss_curve.png"]
    if kind == "a broken link":
        (folder / "images_training_rev1" / "5.jpg").symlink_to("gone.jpg")
        return [f"1 link leads nowhere and was skipped, first {folder}/images_training_rev1/5.jpg"]
    if kind == "other formats":
        for name in ("1.gif", "2.gif", "3.gif", "4.GIF", "1.avif", "2.avif", "3.avif", "1.jpg.gz", "2.jpg.gz"):
            (folder / name).write_bytes(b"?")
        return ["9 files left alone: 4 .gif, 3 .avif, 2 .jpg.gz"]
    if kind == "an archive":
        _tar(folder / "more.tar.gz")
        return [f"{folder}/more.tar.gz: this archive is not read: unpack it with `tar xf`, and give the folder"]
    if kind == "another table":
        (folder / "photometry.csv").write_text("GalaxyID,g\n100000,17.5\n")
        return [f"{folder}/photometry.csv is not used"]
    if kind == "two other tables":
        for name in ("a.csv", "b.tsv"):
            (folder / name).write_text("GalaxyID,g\n100000,17.5\n")
        return [f"{folder}/a.csv and {folder}/b.tsv are not used"]
    for name in (".DS_Store", "Thumbs.db", ".ipynb_checkpoints/100000.jpg", "__MACOSX/._100000.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"?")
    return ["1 file left alone: 1 .db"]


@pytest.mark.parametrize(
    "kind",
    [
        "a copy's name",
        "a figure",
        "a broken link",
        "other formats",
        "an archive",
        "another table",
        "two other tables",
        "clutter",
    ],
)
def test_what_does_not_belong_to_a_survey_is_left_out_with_one_warning(
    people: People, tiny: BuildSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    source = Path(shutil.copytree(people.folder, tmp_path / "mine"))
    expected = _stray(source, people.images[0], kind)
    assert_plain(build_and_verify(source, tiny), people)
    (warning,) = caplog.messages
    assert warning in expected


@pytest.mark.parametrize("suffix", ["jpg", "PNG"])
def test_many_broken_links_are_counted_and_those_to_a_table_refused(
    people: People, tiny: BuildSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    source = Path(shutil.copytree(people.folder, tmp_path / "mine"))
    for number in range(1, 4):
        os.symlink("gone", source / f"{number}.{suffix}")
    assert_plain(build_and_verify(source, tiny), people)
    assert caplog.messages == [f"3 links lead nowhere and were skipped, first {source}/1.{suffix}"]
    os.symlink("gone", source / "more.csv")
    what = f"{source}/more.csv: is a link that leads nowhere: repair or remove the link"
    assert refused(source, tiny, tmp_path / "no") == what


# What ends in a message


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:919dc2c227\nsize 33045\n"
LOST = "whose last digits are lost, as in a spreadsheet or a float: export the table again with this column as text or as whole"
TOLD: dict[str, tuple[Callable[[People], bytes], str]] = {
    "Excel's numbers": (
        lambda people: people.by("GalaxyID", ["5.87723E+17", *(row[0] for row in people.rows[1:])]),
        f"GalaxyID holds 5.87723E+17 in row 1 below the header, {LOST}",
    ),
    "Excel's numbers in Germany": (
        lambda people: Dialect(";", ",").written(people.header, [["5.87723E+17", *people.rows[0][1:]]], tuple(range(38))),
        f"GalaxyID holds 5,87723E+17 in row 1 below the header, {LOST}",
    ),
    "floats": (
        lambda people: people.by("objid", [f"{587722984435351614 + number}.0" for number in range(20)]),
        f"objid holds 587722984435351614.0 in row 1 below the header, {LOST}",
    ),
    "a word among numbers": (
        lambda people: people.by("GalaxyID", [*(row[0] for row in people.rows[:19]), "spiral"]),
        "GalaxyID holds spiral in row 20 below the header, which is not a whole number as others are: correct it",
    ),
    "a row without votes": (
        lambda people: Dialect().written(
            people.header, [*people.rows[:5], [people.rows[5][0], *[""] * 37], *people.rows[6:]], ()
        ),
        "values missing or not finite for galaxy 100035, first in Class1.1: correct them",
    ),
    "a value far below 0": (
        lambda people: Dialect().written(people.header, [[*people.rows[0][:8], "-2e-3", *people.rows[0][9:]]], ()),
        "values outside 0 to 1 for galaxy 100000, first in Class4.1: correct them",
    ),
    "percentages": (
        lambda people: people.by(
            "GalaxyID", [row[0] for row in people.rows],
            [[row[0], *(repr(100 * float(value)) for value in row[1:])] for row in people.rows],
        ),
        "the columns of question 1 add up to 100 for most galaxies, not to 1: these look like percentages: divide them by 100",
    ),
    "both spellings": (
        lambda people: Dialect().written([*people.header, "galaxyid"], [[*row, row[0]] for row in people.rows], ()),
        "has both a column GalaxyID and a column galaxyid: remove one",
    ),
    "a Git LFS pointer": (
        lambda people: LFS.encode(), "is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`",
    ),
    "a web page": (
        lambda people: b"<!DOCTYPE html><html>Sign in</html>",
        "is a web page (HTML) or XML: download it again, perhaps after signing in",
    ),
    "nothing": (lambda people: b"", "is empty: copy or download it again"),
    "a header alone": (lambda people: Dialect().written(people.header, []), "has no rows: it must have one per galaxy"),
    "a row twice": (
        lambda people: Dialect().written(people.header, [*people.rows, people.rows[3]], ()),
        "more than one row for galaxy 100021: keep one row per galaxy",
    ),
    "a number in two ways": (
        lambda people: people.by("GalaxyID", ["100000", "100000.jpg"]),
        "more than one row for galaxy 100000: keep one row per galaxy",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TOLD)
def test_a_table_that_cannot_be_read_exactly_is_refused_in_one_line(
    people: People, tiny: BuildSettings, tmp_path: Path, kind: str
) -> None:
    source = people.bring(tmp_path / "mine")
    table, what = TOLD[kind]
    (source / TABLE).write_bytes(table(people))
    assert refused(source, tiny, tmp_path / "out").startswith(f"{source / TABLE}: {what}")


@pytest.mark.parametrize("name", ["training_solutions_rev1 (1).csv", "votes.csv", "votes.csv.gz", "votes.parquet"])
def test_a_table_under_another_name_is_refused_by_that_name(
    people: People, tiny: BuildSettings, tmp_path: Path, name: str
) -> None:
    source = people.bring(tmp_path / "mine")
    content = (people.folder / TABLE).read_bytes()
    if name.endswith(".parquet"):
        _parquet(people, source / name, "Parquet")
    else:
        (source / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    cure = "give it with --solutions FILE; if it holds no votes, move it elsewhere"
    what = f"{source / name}: has Kaggle's columns, but not the name of its table: {cure}"
    assert refused(source, tiny, tmp_path / "out") == what
    assert_plain(build_and_verify(source, tiny, solutions_file=source / name), people)


def test_a_few_rows_that_match_by_chance_are_refused_with_both_numbers_and_three_ids_of_each_side(
    make_survey: SurveyMaker, tiny: BuildSettings, tmp_path: Path
) -> None:
    source = make_survey(tmp_path / "mine", labelled=60, unlabelled=0, side=24)
    for number, image in enumerate(sorted((source / "images_training_rev1").iterdir())[3:]):
        image.rename(image.with_stem(str(number)))
    assert refused(source, tiny, tmp_path / "out") == (
        f"{source}: only 3 of 60 images have a row in {source / TABLE}, and only 3 of its 60 rows have an image (without: "
        "images 0, 1, 2; GalaxyID 100021, 100028, 100035): check that they belong together; if they do, remove the other rows"
    )


@pytest.mark.parametrize(("images", "rows"), [(20, 4), (4, 20), (20, 20)])
def test_a_fifth_of_the_images_or_of_the_rows_is_no_chance(
    people: People, tiny: BuildSettings, tmp_path: Path, images: int, rows: int
) -> None:
    source = people.bring(tmp_path / "mine")
    for row in people.rows[images:]:
        (source / "images_training_rev1" / f"{row[0]}.jpg").unlink()
    (source / TABLE).write_bytes(Dialect().written(people.header, people.rows[:rows], ()))
    data = build_and_verify(source, tiny)
    counted = {name: data.source[name] for name in ("images", "votes", "votes_without_image", "images_without_votes")}
    assert [*counted.values()] == [images, rows, max(rows - images, 0), max(images - rows, 0)]
