"""What the columns of a catalogue hold follows from all of its rows, and what cannot be right is named."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from preprocess import plan
from preprocess.catalogue import is_catalogue, open_catalogue
from preprocess.catalogues import catalogue_survey
from preprocess.fitting import ANYTHING, Wanted
from preprocess.job import BadImages, BuildSettings, build_dataset
from preprocess.survey import Survey
from tests.conftest import galaxy_image
from tests.preprocess.surveys import examples_by_name
from tfrecords.builtin import find_tree
from tfrecords.errors import SourceError

Settings = Callable[..., BuildSettings]
COUNTS = '[[votes]]\nkind = "counts"\n[[question]]\nkey = "ring"\nanswers = { yes = "ring", no = "none" }\n'
FRACTIONS = COUNTS.replace("counts", "fractions")


def _folder(folder: Path, names: list[str]) -> Path:
    """Images with these names."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        galaxy_image(np.random.default_rng(number), 48).save(folder / name)
    return folder


def _survey(source: Path, rows: dict[str, list[Any]], tree: str = "", **options: str) -> Survey:
    """The survey of a catalogue of these rows, written as CSV."""
    pd.DataFrame(rows).to_csv(source, index=False)
    text = source.parent / "ring.toml"
    text.write_text(tree)
    return catalogue_survey(source, source.parent, Wanted(find_tree(text) if tree else None, **options))


def _refused(source: Path, rows: dict[str, list[Any]], tree: str = "", **options: str) -> str:
    with pytest.raises(SourceError) as caught:
        _survey(source, rows, tree, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{source}: ")


@pytest.fixture(params=[1, 2, 3, 100])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many rows of a catalogue are read at a time."""
    for name in ("_ROWS", "_IMAGES"):
        monkeypatch.setattr(f"preprocess.catalogue.{name}", request.param)
    return int(request.param)


# Whatever the parts


@pytest.mark.parametrize("ids", [["1.0", "2.0", "3.0", "x"], ["1", "2", "3", "04"], ["x", "1.0", "2", "3"]])
def test_one_name_makes_all_ids_names_in_whatever_part_it_stands(
    ids: list[str], parts: int, build_settings: Settings, tmp_path: Path
) -> None:
    folder = _folder(tmp_path / "folder", [f"{letter}.png" for letter in "abcd"])
    table = pd.DataFrame({"id_str": ids, "file": [f"{letter}.png" for letter in "abcd"]})
    table.to_csv(folder / "list.csv", index=False)
    dataset = build_dataset(folder / "list.csv", tmp_path / "out", build_settings(size=16)).dataset
    assert dataset.named and {*examples_by_name(dataset)} == {*ids}


def test_ids_of_embedded_images_are_names_in_both_passes(
    monkeypatch: pytest.MonkeyPatch, build_settings: Settings, tmp_path: Path
) -> None:
    monkeypatch.setattr("preprocess.catalogue._ROWS", 4)
    monkeypatch.setattr("preprocess.catalogue._IMAGES", 1)
    ids, source = ["1.0", "2.0", "3.0", "x"], tmp_path / "images.parquet"
    data = [path.read_bytes() for path in sorted(_folder(tmp_path / "f", [f"{name}.png" for name in "abcd"]).iterdir())]
    parquet.write_table(pa.table({"id_str": ids, "image": pa.array(data, pa.binary())}), source)
    dataset = build_dataset(source, tmp_path / "out", build_settings(size=16)).dataset
    assert {*examples_by_name(dataset)} == {*ids}


@pytest.mark.parametrize("ring", [[0.5, 0.5, 12, 30.5], [60.5, 39.5, 12, 3]])
def test_weighted_counts_are_counts_even_if_those_of_some_parts_are_small(
    ring: list[float], parts: int, tmp_path: Path
) -> None:
    rows = {"id": [1, 2, 3, 4], "file": [f"{number}.png" for number in range(4)], "ring": ring, "none": [0.25, 60.5, 3, 5]}
    assert _survey(tmp_path / "list.csv", rows, COUNTS).galaxies.labelled.all()


@pytest.mark.parametrize(
    ("ring", "none", "message"),
    [
        ([0.5, 1, 0.25, 0], [0.5, 0, 0.75, 1], "holds fractions, but tree ring expects counts of volunteers: "),
        (
            [50, 60.5, 0, 100],
            [50, 39.5, 0, 0],
            "not all values are whole, and the columns of question ring add up to 100 for all",
        ),
    ],
)
def test_what_is_no_count_is_told_by_all_rows(
    ring: list[float], none: list[float], message: str, parts: int, tmp_path: Path
) -> None:
    rows = {"id": [1, 2, 3, 4], "file": [f"{number}.png" for number in range(4)], "ring": ring, "none": none}
    assert _refused(tmp_path / "list.csv", rows, COUNTS).startswith(message)


def test_warnings_count_galaxies_not_parts(parts: int, tmp_path: Path) -> None:
    files = [f"{number}.png" for number in range(6)]
    rows = {"id": [*range(1, 7)], "file": files, "ring": [0.5, *[0.489] * 5], "none": [0.5] * 6}
    assert [*_survey(tmp_path / "list.csv", rows, FRACTIONS).warnings()] == [
        f"{tmp_path}/list.csv: the columns of question ring do not add up to 1 within 0.01 for galaxies 2, 3, 4 and 2 more"
    ]


@pytest.mark.parametrize("cell", ["O.5", "n.a.", "0,5"])
def test_votes_that_cannot_be_read_are_refused_and_blank_ones_are_unlabelled(cell: str, parts: int, tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = {
        "id": [1, 2, 3, 4], "file": [f"{number}.png" for number in range(4)],
        "ring": ["0.5", "", "NA", "0.25"], "none": ["0.5", "", "NA", "0.75"],
    }  # fmt: skip
    assert _survey(tmp_path / "list.csv", rows, FRACTIONS).galaxies.labelled.tolist() == [True, False, False, True]
    rows["ring"][2] = rows["none"][2] = cell
    message = f"ring holds {cell} in row 3 below the header, which is not a number: correct it, or leave it blank"
    assert _refused(tmp_path / "list.csv", rows, FRACTIONS) == message
    rows["ring"][2] = rows["none"][2] = "inf"
    assert _refused(tmp_path / "list.csv", rows, FRACTIONS).startswith("values missing or not finite for galaxy 3")


# Names


@pytest.mark.parametrize("names", [["a.jpg", "a.png", "b.png"], ["x/a.jpg", "x/a.png", "y/a.png"], ["1.jpg", "1.png", "2.png"]])
def test_images_that_only_suffixes_tell_apart_have_the_names_that_a_folder_gives_them(
    names: list[str], build_settings: Settings, tmp_path: Path
) -> None:
    folder = _folder(tmp_path / "folder", names)
    expected = build_dataset(folder, tmp_path / "expected", build_settings(size=16)).dataset
    pd.DataFrame({"file": names}).to_csv(folder / "list.csv", index=False)
    dataset = build_dataset(folder / "list.csv", tmp_path / "out", build_settings(size=16)).dataset
    assert {*examples_by_name(dataset)} == {*names}
    for shard, same in zip(expected.shards, dataset.shards, strict=True):
        assert shard == same


def test_ids_that_only_suffixes_tell_apart_are_names_with_suffixes(tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = {"id": ["a.jpg", "a.png", "b"], "file": ["1.png", "2.png", "3.png"]}
    survey = _survey(tmp_path / "list.csv", rows)
    (shard,) = plan.make(survey.galaxies, plan.PlanSettings())
    survey.prepare([shard])
    images = survey.part(shard.rows).images
    assert sorted(images.name(row) for row in range(3)) == ["a.jpg", "a.png", "b"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            {"iauname": ["J1", "J2", "J3"], "file": ["a.png", "b.png", "a.png"]},
            "rows 1 and 3 below the header, galaxies J1 and J3, have one image, a.png: correct or remove one",
        ),
        (
            {"iauname": ["J1", "J2", "J1"], "file": ["a.png", "b.png", "c.png"]},
            "rows 1 and 3 below the header are both galaxy J1 by column iauname: remove one, or name another column with "
            "--id_column",
        ),
        (
            {"name": ["galaxy"] * 3, "file": ["a.png", "b.png", "c.png"]},
            "rows 1 and 2 below the header are both galaxy galaxy by column name: remove one, or name another column with "
            "--id_column",
        ),
        (
            {"id": [7, 8, 7], "file": ["a.png", "b.png", "c.png"]},
            "rows 1 and 3 below the header are both galaxy 7 by column id: remove one, or name another column with --id_column",
        ),
        ({"file": ["a.png", "b.png", "b.png"]}, "rows 2 and 3 below the header have one image, b.png: remove one"),
    ],
)
def test_two_rows_of_one_galaxy_or_image_are_both_named(
    rows: dict[str, list[Any]], message: str, parts: int, tmp_path: Path
) -> None:
    assert _refused(tmp_path / "list.csv", rows) == message


# Bytes that are texts


def test_strings_that_astropy_wrote_as_bytes_hold_no_images(build_settings: Settings, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "folder", ["J1.png", "J2.png"])
    expected = build_dataset(folder, tmp_path / "expected", build_settings(size=16)).dataset
    table = pa.table({"iauname": pa.array([b"J1", b"J2"]), "file_loc": pa.array([b"J1.png", b"J2.png"])})
    parquet.write_table(table, folder / "list.parquet")
    assert not is_catalogue(folder)
    catalogue = open_catalogue(folder / "list.parquet", ANYTHING)
    assert (catalogue.id, catalogue.path, catalogue.image) == ("iauname", "file_loc", "")
    dataset = build_dataset(folder / "list.parquet", tmp_path / "out", build_settings(size=16)).dataset
    assert {*examples_by_name(dataset)} == {*examples_by_name(expected)} == {"J1", "J2"}
    parquet.write_table(table.drop_columns(["file_loc"]), folder / "list.parquet")
    assert build_dataset(folder, tmp_path / "again", build_settings(size=16)).dataset.shards == expected.shards


@pytest.mark.parametrize(("column", "values", "expected"), [
    ("image", [b"a/1.png", b"a/2.png"], ""), ("image", [b"garbage", b"1"], "image"), ("image", [None, None], "image"),
    ("cutout", [None, b"\xff\xd8\xff\xe0"], "cutout"), ("cutout", [b"\x89PNG", b"1"], "cutout"), ("cutout", [b"J1", b"J2"], ""),
])  # fmt: skip
def test_bytes_are_images_if_they_begin_like_one_or_the_column_is_called_image(
    column: str, values: list[bytes | None], expected: str, tmp_path: Path
) -> None:
    table = pa.table({"id": ["J1", "J2"], "file": ["1.png", "2.png"], column: pa.array(values, pa.binary())})
    parquet.write_table(table, tmp_path / "list.parquet")
    catalogue = open_catalogue(tmp_path / "list.parquet", ANYTHING)
    assert (catalogue.image, catalogue.path) == (expected, "" if expected else "file")


# Folders of Parquet files


def _hugging_face(folder: Path, files: dict[str, list[str]]) -> Path:
    """Parquet files of images: name -> ids."""
    pixels = _folder(folder.parent / "pixels", ["1.png"]) / "1.png"
    for name, ids in files.items():
        values = [{"bytes": pixels.read_bytes(), "path": f"{each}.png"} for each in ids]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table({"id_str": ids, "image": values}), folder / name)
    return folder


def test_only_the_files_with_images_are_parts_of_a_catalogue_and_the_others_are_named(tmp_path: Path) -> None:
    folder = _hugging_face(tmp_path / "gz", {"data/train-00000-of-00001.parquet": ["J1", "J2"], "data/test-0.parquet": ["J3"]})
    parquet.write_table(pa.table({"id_str": ["J1"], "ring": [0.5]}), folder / "votes.parquet")
    (folder / "data" / "._train-00000-of-00001.parquet").write_bytes(b"\0\5\x16\7")
    (folder / "README.md").write_text("words")
    (folder / ".gitattributes").write_text("words")
    shutil.copy(folder.parent / "pixels" / "1.png", folder / "figure.png")
    assert is_catalogue(folder)
    survey = catalogue_survey(folder, tmp_path, ANYTHING)
    assert len(survey.galaxies.ids) == 3
    assert [*survey.warnings()] == [
        f"{folder}: all its files are one table, whose galaxies are split anew: test (1 file), train (1 file)",
        f"{folder}/votes.parquet is not used",
        "2 files left alone: 1 .md, 1 .png",
        f"{folder}: no row has votes: all 3 galaxies are unlabelled",
    ]


def test_a_part_that_is_damaged_is_refused_not_left_out(tmp_path: Path) -> None:
    folder = _hugging_face(tmp_path / "gz", {"0.parquet": ["J1", "J2"], "1.parquet": ["J3"]})
    (folder / "1.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(SourceError, match=r"1\.parquet: not a readable Parquet file"):
        catalogue_survey(folder, tmp_path, ANYTHING)


STRUCT = pa.struct([("path", pa.string()), ("bytes", pa.large_binary())])


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.null(), STRUCT])
def test_parts_may_write_images_in_different_types(kind: Any, build_settings: Settings, tmp_path: Path) -> None:
    folder = _hugging_face(tmp_path / "gz", {"0.parquet": ["J1", "J2"]})
    data = (tmp_path / "pixels" / "1.png").read_bytes()
    value = None if kind == pa.null() else {"bytes": data} if pa.types.is_struct(kind) else data
    parquet.write_table(pa.table({"id_str": ["J3"], "image": pa.array([value], kind)}), folder / "1.parquet")
    dataset = build_dataset(folder, tmp_path / "out", build_settings(size=16), bad=BadImages(max_fraction=1)).dataset
    assert {*examples_by_name(dataset)} == ({"J1", "J2"} if value is None else {"J1", "J2", "J3"})


def test_a_part_whose_images_are_something_else_is_refused_before_anything_is_written(
    build_settings: Settings, tmp_path: Path
) -> None:
    folder = _hugging_face(tmp_path / "gz", {"0.parquet": ["J1", "J2"]})
    parquet.write_table(pa.table({"id_str": ["J3"], "image": [3.5]}), folder / "1.parquet")
    with pytest.raises(SourceError) as caught:
        build_dataset(folder, tmp_path / "out", build_settings(size=16))
    rule = "column image holds double, not images: give a folder whose files are one table"
    assert str(caught.value) == f"{folder}/1.parquet: {rule}" and not (tmp_path / "out").exists()
