"""No table of votes costs more than a stated multiple of its size."""

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from preprocess.solutions import read_table
from preprocess.tablefile import MOST_COLUMNS
from preprocess.tables import open_file, open_table
from tests.preprocess.sources.packing import packed
from tfrecords.builtin import builtin_tree
from tfrecords.decoding import SMALL
from tfrecords.errors import SourceError

BOMB = b"GalaxyID,Class1.1\n" + (b"1,0" + b"0" * 1_000 + b"\n") * (SMALL // 1_000)
TOO_MUCH = "v.csv: has more than 67 MB unpacked, far more than its packed size, as in a zip bomb: check it, and unpack it"


def _refused(work: Callable[[], object]) -> str:
    with pytest.raises(SourceError) as caught:
        work()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    return str(caught.value)


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(BOMB),
        packed({"v.csv": BOMB}),
        gzip.compress(gzip.compress(BOMB)),
        packed({"v.csv.gz": gzip.compress(BOMB)}),
    ],
    ids=["gzip", "zip", "gzip in gzip", "gzip in a zip"],
)
def test_a_packed_table_is_not_unpacked_to_far_more_than_its_size(content: bytes) -> None:
    assert _refused(lambda: open_table("v.csv", content)) == TOO_MUCH


def test_a_packed_table_in_a_file_is_not_unpacked_to_far_more_than_its_size(tmp_path: Path) -> None:
    (path := tmp_path / "v.csv").write_bytes(gzip.compress(BOMB))
    frames = open_file(path).frames(["GalaxyID"], [], 2_048)
    assert _refused(lambda: [*frames]) == f"{tmp_path}/{TOO_MUCH}"


def test_a_small_table_may_be_packed_to_less_than_a_hundredth() -> None:
    content = b"GalaxyID,Class1.1\n" + b"1,0\n" * 200_000
    assert len(content) > 100 * len(gzip.compress(content))
    assert len(open_table("v.csv", gzip.compress(content)).frame(["GalaxyID"], [])) == 200_000


def test_a_table_that_is_packed_again_and_again_is_refused() -> None:
    content = BOMB[:1000]
    for _ in range(3):
        content = gzip.compress(content)
    assert _refused(lambda: open_table("v.csv", content)) == "v.csv: is packed more than 2 times: unpack it"


@pytest.mark.parametrize("kind", ["CSV", "Parquet"])
def test_a_table_of_more_columns_than_any_survey_has_is_refused(kind: str) -> None:
    names = ["GalaxyID", *(f"c{number}" for number in range(MOST_COLUMNS))]
    csv = f"{','.join(names)}\n{','.join('1' for _ in names)}\n".encode()
    content = csv if kind == "CSV" else _parquet(pa.table({name: [1] for name in names}))
    assert _refused(lambda: open_table("v", content)) == (
        "v: has 10,001 columns, more than 10,000: keep the id and the votes alone"
    )


def test_a_table_of_the_most_columns_is_read() -> None:
    names = [f"c{number}" for number in range(MOST_COLUMNS)]
    table = open_table("v", f"{','.join(names)}\n{','.join('1' for _ in names)}\n".encode())
    assert table.frame([names[-1]], [names[0]]).to_numpy().tolist() == [["1", 1.0]]


@pytest.mark.parametrize("start", ["GalaxyID,Class1.1\n1,", "GalaxyID,"], ids=["row", "header"])
def test_a_line_without_end_is_refused(start: str) -> None:
    content = start.encode() + b"0" * 11_000_000
    assert _refused(lambda: open_table("v.csv", content)) == (
        "v.csv: has a line of more than 10,000,000 characters: check how its lines end"
    )


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_many_short_lines_are_no_long_one(end: str) -> None:
    rows = "".join(f"{number:09d},1{end}" for number in range(1_000_000))
    table = open_table("v.csv", f"id,a{end}{rows}".encode())
    assert table.header == ("id", "a")


@pytest.mark.parametrize("digit", ["9", "a"])
def test_an_id_longer_than_any_path_is_refused(digit: str) -> None:
    columns = builtin_tree().columns
    rows = "".join(f"{one},1{',0' * (len(columns) - 1)}\n" for one in ("7", digit * 5_000))
    content = f"GalaxyID,{','.join(columns)}\n{rows}".encode()
    assert _refused(lambda: read_table("v.csv", content)) == (
        f"v.csv: GalaxyID holds {digit * 60}... in row 2 below the header, 5,000 characters, which is no id: correct it"
    )


def test_parquet_of_far_more_rows_than_bytes_is_refused() -> None:
    content = _parquet(pa.table({"GalaxyID": np.zeros(20_000_000, np.uint8)}))
    assert len(content) < 100_000
    assert _refused(lambda: open_table("v", content)) == (
        f"v: has 20,000,000 rows in {len(content):,} bytes, too many for votes: check the table"
    )


def test_parquet_of_consecutive_ids_is_read() -> None:
    """Nothing that differs takes less space."""
    buffer = io.BytesIO()
    table = pa.table({"GalaxyID": pa.array(range(1_500_000), pa.int64())})
    parquet.write_table(table, buffer, use_dictionary=False, column_encoding="DELTA_BINARY_PACKED", compression="zstd")
    assert len(open_table("v", buffer.getvalue()).frame(["GalaxyID"], [])) == 1_500_000


def test_random_bytes_unpack_to_no_more_than_themselves() -> None:
    """Tables that hardly shrink are read, whatever their size."""
    body = b"".join(b"%d,%s\n" % (number, os.urandom(30).hex().encode()) for number in range(1_000_000))
    content = gzip.compress(b"GalaxyID,note\n" + body, 1)
    assert len(body) > SMALL
    assert open_table("v.csv", content).header == ("GalaxyID", "note")
