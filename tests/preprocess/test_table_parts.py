"""A table of votes that is read in parts gives the votes, and the messages, of one that is read at once."""

import csv
import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess import solutions
from preprocess.fitting import ANYTHING, Wanted
from preprocess.solutions import Ballots
from preprocess.surveys import survey_of
from tests.conftest import random_counts, random_votes
from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.errors import SourceError

ROWS = 7
ALL = 1_000
Table = list[list[str]]


def _kaggle() -> Table:
    """A table with Kaggle's columns, not in the order of its ids."""
    votes = random_votes(ROWS, np.random.default_rng(0))
    return [
        ["GalaxyID", *builtin_tree().columns],
        *([str(900 - 7 * row), *map(repr, line)] for row, line in enumerate(votes.tolist())),
    ]


def _csv(table: Table, delimiter: str = ",") -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter).writerows(table)
    return buffer.getvalue().encode()


def _zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("votes.csv", content)
    return buffer.getvalue()


def _parquet(table: Table) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    ids, *columns = zip(*table[1:], strict=True)
    numbers = {name: [*map(float, column)] for name, column in zip(table[0][1:], columns, strict=True)}
    buffer = io.BytesIO()
    parquet.write_table(pa.table({table[0][0]: ids, **numbers}), buffer, row_group_size=4)
    return buffer.getvalue()


def _fits(table: Table) -> bytes:
    fits = pytest.importorskip("astropy.io.fits")
    ids, *columns = zip(*table[1:], strict=True)
    parts = [fits.Column(table[0][0], "20A", array=np.array(ids))]
    parts += [
        fits.Column(name, "D", array=np.array([*map(float, column)]))
        for name, column in zip(table[0][1:], columns, strict=True)
    ]
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(parts)]).writeto(buffer)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[Table], bytes]] = {
    "csv": _csv,
    "semicolons": lambda table: _csv([table[0], *([cell.replace(".", ",") for cell in line] for line in table[1:])], ";"),
    "UTF-16": lambda table: _csv(table).decode().encode("utf-16"),
    "gzip": lambda table: gzip.compress(_csv(table)),
    "zip": lambda table: _zip(_csv(table)),
    "zip in gzip": lambda table: gzip.compress(_zip(_csv(table))),
    "zip in zip": lambda table: _zip(_zip(_csv(table))),
    "parquet": _parquet,
    "parquet in a zip": lambda table: _zip(_parquet(table)),
    "fits": _fits,
}  # fmt: skip


def _read(monkeypatch: pytest.MonkeyPatch, rows: int, content: Any, wanted: Wanted = ANYTHING) -> Ballots:
    with monkeypatch.context() as patch:
        patch.setattr(solutions, "_ROWS", rows)
        return solutions.read_table("votes", content, wanted)


def _outcome(monkeypatch: pytest.MonkeyPatch, rows: int, content: bytes, wanted: Wanted = ANYTHING) -> Any:
    """All that is read of a table, or the message that refuses it."""
    try:
        ballots = _read(monkeypatch, rows, content, wanted)
    except SourceError as error:
        return str(error)
    asked = None if ballots.asked is None else ballots.asked.tolist()
    ids = (ballots.ids.dtype, ballots.ids.tolist())
    return ids, ballots.targets.tolist(), asked, ballots.estimated, ballots.warnings, ballots.sha256


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_every_format_gives_the_same_votes_in_parts(monkeypatch: pytest.MonkeyPatch, form: str, rows: int) -> None:
    content = FORMATS[form](_kaggle())
    ballots = _read(monkeypatch, rows, content)
    assert _outcome(monkeypatch, rows, content) == _outcome(monkeypatch, ALL, content)
    assert ballots.ids.tolist() == [900 - 7 * row for row in range(ROWS)] and ballots.ids.dtype == np.int64
    votes = ballots.votes(ballots.ids)
    expected = np.array([line[1:] for line in _kaggle()[1:]], np.float64).astype(np.float32)[::-1]
    np.testing.assert_array_equal(votes.targets, expected)


def test_a_table_in_a_file_or_in_a_zip_of_the_source_is_read_from_there(tmp_path: Path) -> None:
    table = _csv(_kaggle())
    images = tmp_path / "images"
    images.mkdir()
    for line in _kaggle()[1:]:
        (images / f"{line[0]}.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "votes.csv").write_bytes(table)
    (tmp_path / "votes.zip").write_bytes(_zip(table))
    summaries = [survey_of(images, tmp_path, tmp_path / name).summary() for name in ("votes.csv", "votes.zip")]
    assert summaries[0] == summaries[1] and summaries[0]["votes"] == ROWS


@pytest.mark.parametrize("at", ["middle", "header"])
def test_a_table_that_is_damaged_in_a_zip_of_the_source_is_refused(tmp_path: Path, at: str) -> None:
    content = bytearray(_zip(_csv(_kaggle())))
    content[0 if at == "header" else len(content) // 3] ^= 0x55
    (tmp_path / "votes.zip").write_bytes(content)
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(SourceError) as caught:
        survey_of(tmp_path, tmp_path, tmp_path / "votes.zip")
    assert str(caught.value) == f"{tmp_path}/votes.zip: votes.csv is damaged: copy or download it again"


NO_NUMBER = "which is not a number: correct it, or leave it blank"
LOST = (
    "whose last digits are lost, as in a spreadsheet or a float: export the table again with this column as text or as whole "
    "numbers"
)

# Faults in the second part of rows. Row and column of a cell, what it becomes, and the message.
FAULTS = {
    "no number": (5, 3, "x", f"Class1.3 holds x in row 5 below the header, {NO_NUMBER}"),
    "a word": (7, 1, "True", f"Class1.1 holds True in row 7 below the header, {NO_NUMBER}"),
    "no id": (6, 0, "", "GalaxyID is missing in row 6 below the header: correct it"),
    "a name": (6, 0, "J", "GalaxyID holds J in row 6 below the header, which is not a whole number as others are: correct it"),
    "not whole": (5, 0, "1.50", "GalaxyID holds 1.50 in row 5 below the header, which is not a whole number: correct it"),
    "lost digits": (5, 0, "5.87E+17", f"GalaxyID holds 5.87E+17 in row 5 below the header, {LOST}"),
    "twice": (6, 0, "900", "more than one row for galaxy 900: keep one row per galaxy"),
    "missing": (5, 2, "", "values missing or not finite for galaxy 872, first in Class1.2: correct them"),
    "out of range": (7, 1, "-0.5", "values outside 0 to 1 for galaxy 858, first in Class1.1: correct them"),
    "too long": (7, 37, "0.5,1", "row 7 below the header has more values than the header has columns: check the separators"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("rows", [1, 4, ALL])
def test_a_fault_in_the_second_part_is_named_with_its_row(monkeypatch: pytest.MonkeyPatch, fault: str, rows: int) -> None:
    row, column, cell, message = FAULTS[fault]
    table = _kaggle()
    table[row][column] = cell
    content = "\n".join(",".join(line) for line in table).encode()
    assert _outcome(monkeypatch, rows, content) == f"votes: {message}"


@pytest.mark.parametrize("rows", [1, 4, ALL])
def test_a_message_names_the_galaxies_of_all_parts_and_the_first_check(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    table = _kaggle()
    for row in (1, 3, 4, 6):
        table[row][5] = "1.5"
    message = "votes: values outside 0 to 1 for galaxies 900, 886, 879 and 1 more, first in Class2.2: correct them"
    assert _outcome(monkeypatch, rows, _csv(table)) == message
    table[7][9] = "inf"  # checked first
    message = "votes: values missing or not finite for galaxy 858, first in Class4.2: correct them"
    assert _outcome(monkeypatch, rows, _csv(table)) == message


@pytest.mark.parametrize("rows", [1, 3, ALL])
def test_what_percentages_are_follows_from_all_parts(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    table = _kaggle()
    percent = [table[0], *([line[0], *(repr(100 * float(cell)) for cell in line[1:])] for line in table[1:])]
    mixed = [*percent[:3], *table[3:]]
    assert "add up to 100 for most galaxies, not to 1: these look like percentages" in _outcome(
        monkeypatch, rows, _csv(percent)
    )
    assert "values outside 0 to 1 for galaxies 900, 893, first in Class1.1" in _outcome(monkeypatch, rows, _csv(mixed))


def test_ids_are_names_if_one_of_any_part_is(monkeypatch: pytest.MonkeyPatch) -> None:
    table = _kaggle()
    table[0][0] = "objid"
    for last, ids in (
        ("J7", [*("900", "893", "886", "879", "872", "865"), "J7"]),
        ("7.jpg", [900, 893, 886, 879, 872, 865, 7]),
    ):
        table[-1][0] = last
        for rows in (1, 3, ALL):
            assert _read(monkeypatch, rows, _csv(table), Wanted(id_column="objid")).ids.tolist() == ids


@pytest.mark.parametrize("name", builtin_names())
@given(
    seed=st.integers(0, 2**16),
    rows=st.integers(1, 5),
    faults=st.lists(st.sampled_from(["", "-1", "0.5", "3", "99", "inf"]), max_size=3),
)
@settings(max_examples=6)
def test_counts_of_any_tree_are_read_or_refused_alike_in_parts(name: str, seed: int, rows: int, faults: list[str]) -> None:
    tree = builtin_tree(name)
    layout = next((one for one in tree.layouts if one.kind == "counts"), None)
    if layout is None:
        return
    generator = np.random.default_rng(seed)
    counts = random_counts(ROWS, generator, tree)
    columns = [place for place, column in enumerate(tree.columns) if column not in tree.rest]
    table = [[tree.id, *(f"{tree.columns[place]}{layout.suffix}" for place in columns)]]
    table += [[str(7 + row), *map(str, line)] for row, line in enumerate(counts[:, columns].tolist())]
    if tree.rest:
        table[0] += [f"{question.key}{layout.total}" for question in tree.questions]
        for line, count in zip(table[1:], counts, strict=True):
            line += [str(count[question.columns].sum()) for question in tree.questions]
    for fault in faults:
        table[int(generator.integers(1, ROWS + 1))][int(generator.integers(1, len(columns) + 1))] = fault
    with pytest.MonkeyPatch.context() as patch:
        wanted = Wanted(tree, layout.name)
        assert _outcome(patch, rows, _csv(table), wanted) == _outcome(patch, ALL, _csv(table), wanted)
