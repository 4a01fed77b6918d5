"""A table is read exactly in whatever dialect it comes, and what is no table is called what it is."""

import bz2
import gzip
import io
import lzma
import math
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.dialects import header_of
from preprocess.tables import open_table
from tests.preprocess.dialects import DIALECTS, Dialect
from tfrecords.errors import SourceError

HEADER = ["GalaxyID", "Class1.1", "Class1.2", "note"]
NUMBERS = ["0.383147", "1.0", "5e-324", "0.1", "1.7976931348623157e+308", "0.30000000000000004", "-1e-9", "0"]
NAMES = ["587722984435351614", "J112953.88-000427.4", "spiral/003", "007", "100008.jpg", "1000123_4567", "M 51", "NA"]
ROWS = [[name, number, repr(float(number) / 3), "é — 星"] for name, number in zip(NAMES, NUMBERS, strict=True)]


def _frame(content: bytes, texts: list[str] | None = None, numbers: list[str] | None = None) -> Any:
    return open_table("votes.csv", content).frame(texts or ["GalaxyID"], numbers or ["Class1.1", "Class1.2"])


def _assert_holds(content: bytes, rows: list[list[str]] = ROWS) -> None:
    """These rows, ids as they are written and numbers to the last bit."""
    frame = _frame(content)
    assert frame["GalaxyID"].tolist() == [row[0] for row in rows]
    for place, column in ((1, "Class1.1"), (2, "Class1.2")):
        assert [value.hex() for value in frame[column].tolist()] == [float(row[place]).hex() for row in rows]


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_gives_the_same_ids_and_numbers_to_the_last_bit(name: str) -> None:
    content = DIALECTS[name].written(HEADER, ROWS)
    assert open_table("votes.csv", content).header == tuple(HEADER)
    assert header_of(content) == HEADER
    _assert_holds(content)
    assert _frame(content, ["note"])["note"].tolist() == [row[3] for row in ROWS]


def test_spaces_separate_if_nothing_else_does() -> None:
    rows = [[row[0].replace(" ", "_"), *row[1:3]] for row in ROWS]
    content = "\n".join(["  ".join(HEADER[:3]), *("   ".join(row) for row in rows)]) + "\n"
    _assert_holds(content.encode(), rows)


def _zipped(content: bytes, name: str = "votes.csv", *others: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        for other in others:
            archive.writestr(other, b"shadow")
    return buffer.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip in two parts": lambda content: gzip.compress(content[:100]) + gzip.compress(content[100:]),
    "gzip twice": lambda content: gzip.compress(gzip.compress(content)),
    "zip": _zipped,
    "zip of a folder with what macOS adds": lambda content: _zipped(content, "a/votes.tsv", "__MACOSX/a/._votes.tsv"),
    "gzip in a zip": lambda content: _zipped(gzip.compress(content)),
}


@pytest.mark.parametrize("way", PACKED)
@pytest.mark.parametrize("name", ["plain", "Excel in Germany", "Excel's Unicode text"])
def test_a_packed_table_is_the_one_inside_and_has_a_hash_of_its_own(way: str, name: str) -> None:
    content = DIALECTS[name].written(HEADER, ROWS)
    packed = PACKED[way](content)
    _assert_holds(packed)
    assert open_table("votes.csv", packed).sha256 != open_table("votes.csv", content).sha256


def test_the_header_of_a_table_is_known_from_its_first_bytes() -> None:
    content = Dialect().written(HEADER, ROWS * 2000)
    for start in (content[:50], gzip.compress(content)[:2000]):
        assert header_of(start) == HEADER
    assert header_of(b"\xff\xd8\xff\xe0\0\x10JFIF") != HEADER and header_of(b"") == []


@pytest.mark.parametrize("blank", ["", "\n\n", ",,,\n", " , ,,\n,,,\n", "\r\n,,,\r\n"])
def test_blank_rows_are_dropped_and_the_others_keep_their_numbers(blank: str) -> None:
    first, second = Dialect().written(HEADER, ROWS[:2]), Dialect().written(HEADER, ROWS[2:]).partition(b"\n")[2]
    content = first + blank.encode() + second + blank.encode()
    _assert_holds(content)
    assert _frame(content).index.tolist()[:2] == [1, 2]
    assert _frame(b"GalaxyID,Class1.1,Class1.2\n1,0,0\n,,\n2,0,0\n").index.tolist() == [1, 3]


@pytest.mark.parametrize("cell", ["", "NA", "nan", "NaN", "null", "N/A", " ", "#N/A", "--", " NA "])
def test_a_blank_is_no_number(cell: str) -> None:
    frame = _frame(f"GalaxyID,Class1.1,Class1.2\n1,{cell},0.5\n2,0.25,0.5\n".encode())
    assert math.isnan(frame["Class1.1"].iloc[0]) and frame["Class1.1"].iloc[1] == 0.25


def test_words_that_mean_blank_elsewhere_are_ids_as_they_are_written() -> None:
    frame = _frame(b'GalaxyID,Class1.1,Class1.2\nNA,0,1\n nan ,1,0\n"None",1,0\n1e5,1,0\n100008.0,1,0\n')
    assert frame["GalaxyID"].tolist() == ["NA", "nan", "None", "1e5", "100008.0"]


@pytest.mark.parametrize("row", [1, 3])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_row_with_more_values_than_columns_is_refused_with_its_number(row: int, separator: str) -> None:
    lines = Dialect(separator).written(HEADER, ROWS).decode().splitlines()
    lines[row] += f"{separator}1"
    what = f"votes.csv: row {row} below the header has more values than the header has columns: check the separators"
    with pytest.raises(SourceError) as caught:
        _frame("\n".join(lines).encode())
    assert str(caught.value) == what


def test_a_separator_too_many_at_the_end_of_rows_does_no_harm() -> None:
    header, *rows = Dialect().written(HEADER, ROWS).decode().splitlines()
    _assert_holds("\n".join([header, *(f"{row}," for row in rows)]).encode())


def test_a_column_that_comes_twice_is_the_first_of_the_two() -> None:
    frame = _frame(b"GalaxyID,Class1.1,Class1.2,Class1.1\n1,0.25,0.5,0.75\n")
    assert frame["Class1.1"].tolist() == [0.25]


# What is no table

HTML = "is a web page (HTML) or XML: download it again, perhaps after signing in"
EXCEL = "is an Excel workbook: save it as CSV"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:919dc2c227\nsize 33045\n"
OTHERS = {
    "Git LFS": (LFS, "is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"),
    "Git LFS after a mark": (b"\xef\xbb\xbf" + LFS, "is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"),
    "HTML": (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>\n", HTML),
    "XML": (b'<?xml version="1.0"?>\n<VOTABLE/>\n', HTML),
    "JSON": (b'{"GalaxyID": 100008}\n', "is JSON, not a table: save it as CSV or Parquet"),
    "Excel": (_zipped(b"<sheet/>", "xl/worksheets/sheet1.xml", "[Content_Types].xml"), EXCEL),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), EXCEL),
    "bzip2": (bz2.compress(b"GalaxyID,Class1.1\n"), "is packed with bzip2: unpack it first"),
    "xz": (lzma.compress(b"GalaxyID,Class1.1\n"), "is packed with xz: unpack it first"),
    "zstd": (b"(\xb5/\xfd\x04X" + bytes(20), "is packed with zstd: unpack it first"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(500), "is an HDF5 file: save it as CSV or Parquet"),
    "nothing": (b"", "is empty: copy or download it again"),
    "a mark alone": (b"\xef\xbb\xbf", "is empty: copy or download it again"),
    "blank lines": (b"\n \r\n\n", "is empty: copy or download it again"),
    "JPEG": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "is neither UTF-8 nor UTF-16 text: save it as CSV in UTF-8"),
    "Latin-1": ("GalaxyID,é\n".encode("latin-1"), "is neither UTF-8 nor UTF-16 text: save it as CSV in UTF-8"),
    "zero bytes": (b"GalaxyID,Class1.1\n1,\0\n", "not a readable table (it holds zero bytes): check it"),
    "two files": (_zipped(b"a,b\n", "a.csv", "b.csv"), "is a zip of 2 files: unzip it, and give the table of votes"),
    "an empty zip": (_zipped(b"", "__MACOSX/x"), "is a zip of 0 files: unzip it, and give the table of votes"),
}  # fmt: skip


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_table_is_called_what_it_is(kind: str, pack: Callable[[bytes], bytes]) -> None:
    content, what = OTHERS[kind]
    with pytest.raises(SourceError) as caught:
        open_table("votes.csv", pack(content))
    assert str(caught.value) == f"votes.csv: {what}"


@pytest.mark.parametrize("cut", [20, -8, -1])
@pytest.mark.parametrize("pack", [gzip.compress, _zipped], ids=["gzip", "zip"])
def test_a_packed_table_that_is_cut_off_is_refused(pack: Callable[[bytes], bytes], cut: int) -> None:
    with pytest.raises(SourceError, match=r"^votes\.csv: is packed and damaged \(.*\): copy or download it again$"):
        open_table("votes.csv", pack(Dialect().written(HEADER, ROWS))[:cut])


def test_a_packed_table_with_a_changed_byte_is_refused() -> None:
    content = bytearray(gzip.compress(Dialect().written(HEADER, ROWS), 0))
    content[len(content) // 2] ^= 1
    with pytest.raises(SourceError, match="is packed and damaged"):
        open_table("votes.csv", bytes(content))


# Any table in any dialect

TEXTS = st.text(st.characters(codec="utf-8", categories=["L", "N", "S", "P", "Zs"]), min_size=1, max_size=12).map(str.strip)
CELLS = TEXTS.filter(lambda text: text and not {*text} & {*'",;\t|'} and not text.startswith(("#", "<", "{", "sep=")))
FLOATS = st.floats(allow_nan=False, allow_infinity=False).map(repr)
ANY_ROWS = st.lists(st.tuples(CELLS, FLOATS, FLOATS).map(list), min_size=1, max_size=12)
ANY_DIALECT = st.builds(
    Dialect, st.sampled_from(";\t|,"), st.just("."), st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]), quote=st.booleans(), last_end=st.booleans(),
) | st.builds(
    Dialect, st.sampled_from(";\t|"), st.just(","), st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["utf-8", "utf-16"]),
    quote=st.booleans(), last_end=st.booleans(),
)  # fmt: skip


@given(ANY_ROWS, ANY_DIALECT, st.sampled_from([bytes, *PACKED.values()]))
def test_any_table_in_any_dialect_reads_back_exactly(
    rows: list[list[str]], dialect: Dialect, pack: Callable[[bytes], bytes]
) -> None:
    _assert_holds(pack(dialect.written(HEADER[:3], rows)), rows)


# Parquet and FITS

IDS = np.array([587722984435351614, 0, 2**63 - 1])
FRACTIONS = np.array([0.1, 5e-324, 1.7976931348623157e308])
SINGLE = np.array([0.1, 1e-45, 3.4028235e38], np.float32)
LABELS = ["J112953.88-000427.4", "007", "Möwe"]


def _parquet(columns: dict[str, Any], **options: Any) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{}, {"compression": "zstd", "row_group_size": 1}, {"use_dictionary": False}])
def test_parquet_is_read_exactly(options: dict[str, Any]) -> None:
    content = _parquet({"GalaxyID": IDS, "name": LABELS, "a": FRACTIONS, "b": SINGLE}, **options)
    for one in (content, gzip.compress(content)):
        table = open_table("votes.parquet", one)
        assert table.header == ("GalaxyID", "name", "a", "b")
        frame = table.frame(["GalaxyID", "name"], ["a", "b", "GalaxyID"][:2])
        assert frame["GalaxyID"].tolist() == [*map(str, IDS)] and frame["name"].tolist() == LABELS
        np.testing.assert_array_equal(frame["a"], FRACTIONS)
        np.testing.assert_array_equal(frame["b"], SINGLE.astype(np.float64))


def test_missing_values_and_categories_of_parquet_are_blank_and_texts() -> None:
    import pyarrow as pa

    names = pa.array(["a", None, "a", None]).dictionary_encode()
    content = _parquet({"name": names, "a": [0.5, 0.25, None, None], "n": pa.array([1, None, 2**53 - 1, None])})
    frame = open_table("votes.parquet", content).frame(["name"], ["a", "n"])
    assert frame.index.tolist() == [1, 2, 3]  # the last row is blank
    assert frame["name"].tolist() == ["a", "", "a"]
    np.testing.assert_array_equal(frame["a"], [0.5, 0.25, np.nan])
    np.testing.assert_array_equal(frame["n"], [1, np.nan, 2**53 - 1])


def test_a_nested_column_of_parquet_is_refused_and_a_cut_off_file_too() -> None:
    content = _parquet({"image": [{"bytes": b"x"}], "a": [0.5]})
    table = open_table("votes.parquet", content)
    with pytest.raises(SourceError, match=r"^votes\.parquet: column image holds struct<.*>, not names or numbers: choose an"):
        table.frame(["image"], ["a"])
    with pytest.raises(SourceError, match=r"^votes\.parquet: not a readable Parquet file \(.*\): copy or download it again"):
        open_table("votes.parquet", content[:-20])


def _fits(columns: list[Any], text: bool = False) -> bytes:
    fits = pytest.importorskip("astropy.io.fits")
    make = fits.TableHDU if text else fits.BinTableHDU
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), make.from_columns(columns)]).writeto(buffer)
    return buffer.getvalue()


def test_a_fits_table_is_read_exactly_with_big_endian_columns_and_blank_values() -> None:
    fits = pytest.importorskip("astropy.io.fits")
    columns = [
        fits.Column("GalaxyID", "K", array=IDS),
        fits.Column("name", "20A", array=np.array(["J112953.88-000427.4", "007", ""])),
        fits.Column("a", "D", array=FRACTIONS),
        fits.Column("b", "E", array=np.array([0.1, np.nan, 1], np.float32)),
        fits.Column("n", "J", null=-99, array=np.array([1, -99, 3])),
        fits.Column("spectrum", "2D", array=np.zeros((3, 2))),
    ]
    content = _fits(columns)
    assert IDS.astype(">i8").tobytes()[:8] in content
    for one in (content, gzip.compress(content)):
        table = open_table("votes.fits", one)
        assert table.header == ("GalaxyID", "name", "a", "b", "n")  # no columns of several values
        frame = table.frame(["GalaxyID", "name"], ["a", "b", "n"])
        assert frame["GalaxyID"].tolist() == [*map(str, IDS)] and frame["name"].tolist() == ["J112953.88-000427.4", "007", ""]
        np.testing.assert_array_equal(frame["a"], FRACTIONS)
        np.testing.assert_array_equal(frame["b"], np.array([0.1, np.nan, 1], np.float32).astype(np.float64))
        np.testing.assert_array_equal(frame["n"], [1, np.nan, 3])


def test_a_fits_file_without_a_table_or_cut_off_is_refused() -> None:
    fits = pytest.importorskip("astropy.io.fits")
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(np.zeros((4, 4), np.float32))]).writeto(buffer)
    with pytest.raises(SourceError) as caught:
        open_table("votes.fits", buffer.getvalue())
    assert str(caught.value) == "votes.fits: holds an image, not a table: give a table of votes"
    content = _fits([fits.Column("a", "D", array=np.arange(5000.0))])
    with pytest.raises(SourceError, match=r"^votes\.fits: "):
        open_table("votes.fits", content[: len(content) // 2])
