"""What cannot be read exactly is refused with its value and its row, whatever stands beside it."""

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from preprocess.catalogue import is_catalogue
from preprocess.solutions import Ids
from preprocess.tablefile import LOST
from preprocess.tables import open_file, open_table
from tests.preprocess.dialects import DIALECTS, Dialect
from tfrecords.errors import SourceError

NOT_A_NUMBER = "which is not a number: correct it, or leave it blank"


def _ids(texts: list[str], part: int = 100, column: str = "name") -> np.ndarray:
    """A column of ids, read in parts of so many rows."""
    series = pd.Series(texts, pd.RangeIndex(1, len(texts) + 1), dtype=object)
    parts = [series[start : start + part] for start in range(0, len(texts), part)]
    reader = Ids("votes.csv", column)
    for each in parts:
        reader.look(each)
    return np.concatenate([reader.read(each) for each in parts])


def _refused_ids(texts: list[str], part: int = 100, column: str = "name") -> str:
    with pytest.raises(SourceError) as caught:
        _ids(texts, part, column)
    return str(caught.value).removeprefix(f"votes.csv: {column} holds ")


@pytest.mark.parametrize(
    "lost", ["5.87723E+17", "5,87723E+17", "1E+05", "5.87723e17", "587722981736120347.0", "5.87723E+17.jpg"]
)
@pytest.mark.parametrize("others", [["587722981736120347", "spiral"], ["007", "008"], ["J112953.88-000427.4", "M 51"]])
def test_lost_digits_are_refused_whatever_stands_beside_them(lost: str, others: list[str]) -> None:
    assert _refused_ids([others[0], lost, others[1]]) == f"{lost} in row 2 below the header, {LOST}"


def test_names_that_only_resemble_numbers_are_names_among_names() -> None:
    names = ["1.50", "123e4567", "1e99999999999999999999", "deadbeef", "12.5e-3"]
    assert _ids(names).tolist() == names
    assert _refused_ids(names[1:3]) == f"123e4567 in row 1 below the header, {LOST}"
    assert _refused_ids(names[:1]) == "1.50 in row 1 below the header, which is not a whole number: correct it"


FORMS = st.sampled_from(["1.0", "2", "3.jpg", "007", "x", "-4", "1.00014e+05", str(2**63), "1.5"])


@given(st.lists(FORMS, min_size=1, max_size=8), st.integers(1, 8))
def test_what_ids_are_does_not_depend_on_the_parts_in_which_they_are_read(texts: list[str], part: int) -> None:
    def outcome(rows: int) -> Any:
        try:
            ids = _ids(texts, rows, "GalaxyID")
        except SourceError as error:
            return str(error)
        return ids.dtype, ids.tolist()

    assert outcome(part) == outcome(100)


def _parquet(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "exact"), [(np.float16, 2**11), (np.float32, 2**24)])
def test_ids_in_floats_too_short_for_them_are_refused_with_value_and_row(kind: type, exact: int) -> None:
    whole = open_table("votes.parquet", _parquet({"id": np.array([7, exact, -exact], kind)}))
    assert whole.frame(["id"], [])["id"].tolist() == ["7.0", f"{exact}.0", f"-{exact}.0"]
    beyond = open_table("votes.parquet", _parquet({"id": np.array([7, 2 * exact], kind)}))
    with pytest.raises(SourceError) as caught:
        beyond.frame(["id"], [])
    assert str(caught.value) == f"votes.parquet: id holds {2 * exact}.0 in row 2 below the header, {LOST}"


def test_ids_in_short_floats_of_fits_are_refused_too() -> None:
    fits = pytest.importorskip("astropy.io.fits")
    buffer = io.BytesIO()
    column = fits.Column("id", "E", array=np.array([16777216, 16777218], np.float32))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([column])]).writeto(buffer)
    with pytest.raises(SourceError) as caught:
        open_table("votes.fits", buffer.getvalue()).frame(["id"], [])
    assert str(caught.value) == f"votes.fits: id holds 16777218.0 in row 2 below the header, {LOST}"


@pytest.mark.parametrize("cell", ["O.5", "n.a.", '"0,5"', "many", "1_0", "0.5.1"])
@pytest.mark.parametrize("rows", [None, 1, 2])
def test_what_is_neither_blank_nor_a_number_is_refused_with_value_and_row(cell: str, rows: int | None) -> None:
    table = open_table("votes.csv", f"id,ring\n1,0.5\n,\n3, {cell} \n".replace('" ', '"').replace(' "', '"').encode())
    with pytest.raises(SourceError) as caught:
        list(table.frames(["id"], ["ring"], rows))
    assert str(caught.value) == f"votes.csv: ring holds {cell.strip(chr(34))} in row 3 below the header, {NOT_A_NUMBER}"


def test_a_long_value_or_one_with_line_breaks_is_shown_in_one_line() -> None:
    for cell, shown in (("a\nb", "a\\nb"), ("long " * 30, f"{'long ' * 12}...")):
        with pytest.raises(SourceError) as caught:
            open_table("votes.csv", f'id,ring\n1,"{cell}"\n'.encode()).frame(["id"], ["ring"])
        assert str(caught.value) == f"votes.csv: ring holds {shown} in row 1 below the header, {NOT_A_NUMBER}"


@pytest.mark.parametrize("values", [["0.5", "O.5"], [b"0.5", b"O.5"]], ids=["text", "bytes"])
def test_texts_of_parquet_are_numbers_or_refused_as_those_of_csv(values: list[Any]) -> None:
    table = open_table("votes.parquet", _parquet({"ring": [None, values[0], values[0][:0]]}))
    np.testing.assert_array_equal(table.frame([], ["ring"])["ring"], [0.5])
    with pytest.raises(SourceError) as caught:
        open_table("votes.parquet", _parquet({"ring": values})).frame([], ["ring"])
    assert str(caught.value) == f"votes.parquet: ring holds O.5 in row 2 below the header, {NOT_A_NUMBER}"


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("use", [(["name"], []), ([], ["name"])], ids=["text", "number"])
def test_text_of_parquet_that_is_not_utf_8_is_refused_in_one_line(kind: Any, use: tuple[list[str], list[str]]) -> None:
    offsets = np.array([0, 1, 6], np.int32 if kind == pa.string() else np.int64)
    names = pa.Array.from_buffers(kind, 2, [None, pa.py_buffer(offsets), pa.py_buffer("aM\xf6we".encode("latin-1") + b"!")])
    table = open_table("votes.parquet", _parquet({"name": names}))
    with pytest.raises(SourceError) as caught:
        table.frame(*use)
    where = "votes.parquet: name holds M\\xf6we! in row 2 below the header"
    assert str(caught.value) == f"{where}, which is not UTF-8 text: write the table again in UTF-8"


# Packed tables as files

HEADER, ROWS = ["id", "ring"], [["1", "0.5"], ["2", "0.25"]]


def _zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _fits() -> bytes:
    table = pytest.importorskip("astropy.table", reason="the extra `fits` is not installed")
    buffer = io.BytesIO()
    table.Table({"id": [1, 2], "ring": [0.5, 0.25]}).write(buffer, format="fits")
    return buffer.getvalue()


@pytest.mark.parametrize("pack", ["gzip", "gzip twice", "zip", "zip in gzip"])
@pytest.mark.parametrize("kind", ["csv", "UTF-16", "parquet", "fits"])
def test_a_packed_file_of_any_format_is_the_table_inside(kind: str, pack: str, tmp_path: Path) -> None:
    content = {
        "csv": lambda: Dialect().written(HEADER, ROWS),
        "UTF-16": lambda: DIALECTS["UTF-16"].written(HEADER, ROWS),
        "parquet": lambda: _parquet({"id": [1, 2], "ring": [0.5, 0.25]}),
        "fits": _fits,
    }[kind]()
    packed = {
        "gzip": gzip.compress,
        "gzip twice": lambda content: gzip.compress(gzip.compress(content)),
        "zip": lambda content: _zipped({"votes": content}),
        "zip in gzip": lambda content: gzip.compress(_zipped({"votes": content})),
    }[pack](content)
    path = tmp_path / "table"
    path.write_bytes(packed)
    table = open_file(path)
    assert table.header == ("id", "ring") and table.sha256 == open_table("table", packed).sha256
    frame = table.frame(["id"], ["ring"])
    assert frame["id"].tolist() == ["1", "2"] and frame["ring"].tolist() == [0.5, 0.25]


@pytest.mark.parametrize(("files", "expected"), [
    ({"votes.csv": b"id\n1\n"}, True),
    ({"a/votes": b"id\n1\n", "__MACOSX/a/._votes": b""}, True),
    ({"votes.csv.gz": gzip.compress(b"id\n1\n"), "README.md": b"words"}, True),
    ({"votes.csv": b"id\n1\n", "1.jpg": b""}, False),
    ({"votes.csv": b"id\n1\n", "images.zip": b""}, False),
    ({"votes.csv": b"id\n1\n", "more.csv": b"id\n1\n"}, False),
    ({"1.jpg": b""}, False),
    ({"images.zip": b""}, False),
    ({}, False),
])  # fmt: skip
def test_a_zip_is_a_catalogue_if_it_holds_one_table_and_no_images(
    files: dict[str, bytes], expected: bool, tmp_path: Path
) -> None:
    path = tmp_path / "source.zip"
    path.write_bytes(_zipped(files))
    assert is_catalogue(path) == expected
    if expected:
        assert open_file(path).frame(["id"], [])["id"].tolist() == ["1"]
    path.write_bytes(_zipped(files)[:-10])
    assert not is_catalogue(path)
