"""The page and the table of similar galaxies are those of a plain computation over the features of all of them."""

import csv
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from preprocess.job import BuildSettings, build_dataset
from tests.trainer.analysis.browser import Look
from tests.trainer.analysis.pages import Read
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, DatasetError, RunError, SettingError, SourceError
from tfrecords.outputs import Output
from trainer import featurefile, inference, similar
from trainer import features as features_of
from trainer.embed import embed_galaxies
from trainer.featurefile import StoredFeatures, feature_file
from trainer.features import FeatureModel
from trainer.run import Run
from trainer.similar import Neighbour, find_similar

Main = Callable[..., tuple[int, str, str]]
QUERIES = ["200003", "300002"]


@pytest.fixture(scope="module")
def embedded(tiny_run: Run, plain_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features of the plain dataset. Read-only."""
    path = tmp_path_factory.mktemp("embedded") / "features.parquet"
    embed_galaxies(tiny_run, plain_dataset, path)
    return path


def _distances(path: Path) -> dict[str, dict[str, float]]:
    """Query -> galaxy -> distance, of all pairs in a file of features, by numpy alone."""
    table = pd.read_parquet(path)
    features = np.stack(table.features.to_numpy()).astype(np.float64)
    lengths = np.linalg.norm(features, axis=1)
    called = table.galaxy_id.astype(str).where(table.name.isna(), table.name).tolist()
    pairs = 1 - features @ features.T / np.outer(lengths, lengths)
    return {query: dict(zip(called, row.tolist(), strict=True)) for query, row in zip(called, pairs, strict=True)}


def _assert_nearest(rows: list[Neighbour], pairs: dict[str, dict[str, float]], queries: list[str], count: int) -> None:
    """Each query has its `count` nearest galaxies; where distances differ by rounding alone, in any order."""
    assert [row.query for row in rows] == [query for query in queries for _ in range(count)]
    for query in queries:
        near = [row for row in rows if row.query == query]
        assert [row.rank for row in near] == [*range(1, count + 1)]
        expected = sorted(value for name, value in pairs[query].items() if name != query)[:count]
        np.testing.assert_allclose([row.distance for row in near], expected, atol=1e-5)
        np.testing.assert_allclose([pairs[query][row.galaxy] for row in near], expected, atol=1e-5)
        assert len({row.galaxy for row in near} - {query}) == count


def _table(folder: Path) -> list[Neighbour]:
    with (folder / "similar.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["query", "rank", "galaxy", "distance"]
    return [Neighbour(query, int(rank), galaxy, float(distance)) for query, rank, galaxy, distance in rows]


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 8, 64])
@pytest.mark.parametrize("stored", [False, True])
def test_the_nearest_are_those_of_all_features_whatever_the_blocks(
    tiny_run: Run,
    plain_dataset: Dataset,
    embedded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    stored: bool,
) -> None:
    for module, name in ((inference, "BATCH_SIZE"), (features_of, "BATCH_SIZE"), (featurefile, "GROUP")):
        monkeypatch.setattr(module, name, batch_size)
    path = tmp_path / "features.parquet"
    if stored:
        embed_galaxies(tiny_run, plain_dataset, path)
        monkeypatch.setattr(FeatureModel, "__init__", None)  # the features are not computed again
    rows = find_similar(tiny_run, plain_dataset, QUERIES, tmp_path / "page", 20, features=path if stored else None)
    _assert_nearest(rows, _distances(embedded), QUERIES, 20)
    written = _table(tmp_path / "page")
    assert [row[:3] for row in written] == [row[:3] for row in rows]
    np.testing.assert_allclose([row.distance for row in written], [row.distance for row in rows], atol=1e-9)


def test_images_give_what_their_records_give(
    tiny_run: Run, plain_dataset: Dataset, plain_survey: Path, embedded: Path, tmp_path: Path
) -> None:
    rows = find_similar(tiny_run, plain_survey, [300_002, 200_003], tmp_path / "page", 10)
    _assert_nearest(rows, _distances(embedded), ["300002", "200003"], 10)
    embed_galaxies(tiny_run, plain_survey, tmp_path / "f.parquet")
    again = find_similar(tiny_run, plain_survey, [300_002, 200_003], tmp_path / "page", 10, features=tmp_path / "f.parquet")
    assert [row[:3] for row in again] == [row[:3] for row in rows]


@pytest.mark.slow
def test_similar_galaxies_are_of_the_same_kind(tiny_run: Run, plain_dataset: Dataset, tmp_path: Path) -> None:
    """The plain survey has two kinds, large disks with even ids and faint dots with odd ones."""
    rows = find_similar(tiny_run, plain_dataset, ["200004", "200005"], tmp_path / "page", 11)
    assert all((int(row.query) - int(row.galaxy)) % 2 == 0 for row in rows)


def test_the_search_can_be_within_one_split(
    tiny_run: Run, plain_dataset: Dataset, embedded: Path, tmp_path: Path, run_main: Main
) -> None:
    expected = [row for row in range(300_000, 300_005) if row != 300_002]
    flags = ("similar", "--run", tiny_run.folder, "--tfrecords", plain_dataset.folder, "--split=unlabelled")
    for more in ([], ["--features", embedded]):
        out = tmp_path / "page"
        code, said, _ = run_main(*flags, "--to", 300_002, "--out", out, *more)
        assert (code, said) == (0, f"page:  {out / 'index.html'}\ntable: {out / 'similar.csv'}, 4 rows\n")
        assert sorted(int(row.galaxy) for row in _table(out)) == expected
        code, _, err = run_main(*flags, "--to", 200_003, "--out", tmp_path / "other", *more)
        where = embedded if more else f"{plain_dataset.folder}, split unlabelled"
        assert code == 2 and err.startswith(f"error: --to 200003: is none of the 5 galaxies of {where}: give a number or name")
    with pytest.raises(DatasetError, match="no galaxies in split 'validation'"):
        find_similar(tiny_run, _without_validation(plain_dataset), QUERIES, tmp_path / "other", split="validation")
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def _without_validation(dataset: Dataset) -> Dataset:
    return replace(dataset, shards=tuple(shard for shard in dataset.shards if shard.split != "validation"))


# The page


@pytest.fixture(scope="module")
def page(tiny_run: Run, plain_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page about two galaxies. Read-only."""
    folder = tmp_path_factory.mktemp("similar") / "page"
    find_similar(tiny_run, plain_dataset, QUERIES, folder)
    return folder


@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_finds_nothing_wrong_with_the_page(page: Path, look: Any, width: int) -> None:
    assert look(page / "index.html", width) == Look((), (), (), (), ())


def test_the_page_shows_each_galaxy_and_the_nearest_ones_in_the_order_of_the_table(page: Path) -> None:
    read = Read((page / "index.html").read_text("utf-8"))
    rows = _table(page)
    assert "The galaxies most like 200003 and 300002, among 85." in read.text
    assert "Galaxy 300002 (split unlabelled)" in read.text and "1 minus the cosine" in read.text
    shown = [image["alt"] for image in read.images]
    expected = []
    for query in QUERIES:
        expected.append(f"similar: galaxy {query}, the galaxy itself")
        expected += [f"similar: galaxy {row.galaxy}, distance {row.distance:.4f}" for row in rows if row.query == query]
    assert shown == expected and len(shown) == 24
    assert {path.name for path in page.iterdir()} == {"index.html", "similar.csv", "figures", "data", ".galaxy-zoo"}
    assert {path.name for path in (page / "figures").iterdir()} == {f"nearest-{query}.jpg" for query in QUERIES}
    for query in QUERIES:
        lines = (page / "data" / f"nearest-{query}.csv").read_text().splitlines()
        both = (page / "similar.csv").read_text().splitlines()
        assert lines == [both[0], *(line for line in both if line.startswith(f"{query},"))]


def test_a_page_shows_the_first_galaxies_of_a_long_table(
    tiny_run: Run, plain_dataset: Dataset, embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "_SHOWN", 5)
    rows = find_similar(tiny_run, plain_dataset, ["200003"], tmp_path / "page", 1000, features=embedded)
    assert len(rows) == 84
    read = Read((tmp_path / "page" / "index.html").read_text("utf-8"))
    assert len(read.images) == 6 and "Nearest first, of which the first 5 are shown" in read.text
    assert "The 84 nearest of 84 galaxies" in read.text


def test_an_earlier_page_leaves_nothing_and_files_of_somebody_else_stay(
    tiny_run: Run, plain_dataset: Dataset, embedded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page"
    find_similar(tiny_run, plain_dataset, QUERIES, out, features=embedded)
    (out / "notes.txt").write_text("mine")
    find_similar(tiny_run, plain_dataset, ["200010"], out, features=embedded)
    assert [path.name for path in (out / "figures").iterdir()] == ["nearest-200010.jpg"]
    assert {row.query for row in _table(out)} == {"200010"} and (out / "notes.txt").read_text() == "mine"
    (out / "similar.csv").write_text("my own table")
    with pytest.raises(ConfigError, match=r"similar\.csv: has changed since it was written"):
        find_similar(tiny_run, plain_dataset, QUERIES, out, features=embedded)
    assert (out / "similar.csv").read_text() == "my own table"
    explored = Output(tmp_path / "explored", "page")
    with explored.locked("busy"):
        explored.write({"index.html": b"a page of explore"})
    with pytest.raises(ConfigError, match="holds a page of explore: choose another folder"):
        find_similar(tiny_run, plain_dataset, QUERIES, tmp_path / "explored", features=embedded)
    with pytest.raises(ConfigError, match=r"holds other files .* and is not a page of similar galaxies"):
        find_similar(tiny_run, plain_dataset, QUERIES, tmp_path)


@pytest.mark.slow
def test_names_are_searched_and_shown_as_tables_show_them(
    tiny_run: Run,
    plain_survey: Path,
    build_settings: Callable[..., BuildSettings],
    tmp_path: Path,
    run_main: Main,
    look: Any,
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    names = ["NGC 4321", "=1+1", "007", "<b>x", "a, b", "M 51", "J1234+56"]
    for name, path in zip(names, sorted(plain_survey.glob("images_*/*.jpg")), strict=False):
        shutil.copy(path, images / f"{name}.jpg")
    dataset = build_dataset(images, tmp_path / "data", build_settings(crop_fraction=1.0), workers=1).dataset
    tables = []
    for source in (("--images", images), ("--tfrecords", dataset.folder)):
        out = tmp_path / f"page of {source[0]}"
        code, _, err = run_main("similar", "--run", tiny_run.folder, *source, "--to", "NGC 4321", "=1+1", "007", "--out", out)
        assert code == 0, err
        tables.append(_table(out))
        assert [row.query for row in tables[-1]] == [*["NGC 4321"] * 6, *["'=1+1"] * 6, *["007"] * 6]
        assert {row.galaxy for row in tables[-1]} == {"'=1+1" if name == "=1+1" else name for name in names}
        assert look(out / "index.html", 1400) == Look((), (), (), (), ())
    assert [row[:3] for row in tables[0]] == [row[:3] for row in tables[1]]
    code, _, err = run_main("similar", "--run", tiny_run.folder, "--images", images, "--to", "7", "--out", tmp_path / "x")
    assert code == 2 and "--to 7: is none of the 7 galaxies of" in err and err.count("\n") == 1


# Errors


def test_an_unknown_galaxy_is_one_line_that_says_what_there_is_and_writes_nothing(
    tiny_run: Run, plain_dataset: Dataset, plain_survey: Path, tmp_path: Path, run_main: Main
) -> None:
    images = plain_survey / "images_test_rev1"
    flags = ("similar", "--run", tiny_run.folder, "--images", images, "--out", tmp_path / "page", "--to", "300001", "300009")
    assert run_main(*flags) == (
        2, "",
        f"error: --to 300009: is none of the 5 galaxies of {images}: give a number or name as tables show it, such as 300000, "
        "300001, 300002\n",
    )  # fmt: skip
    with pytest.raises(SettingError, match="--to 0200003: is none of the 85 galaxies"):
        find_similar(tiny_run, plain_dataset, ["0200003"], tmp_path / "page")
    with pytest.raises(SettingError, match="--count 0: must be at least 1"):
        find_similar(tiny_run, plain_dataset, QUERIES, tmp_path / "page", 0)
    with pytest.raises(SettingError, match="give at least one with --to"):
        find_similar(tiny_run, plain_dataset, [], tmp_path / "page")
    assert list(tmp_path.iterdir()) == []


def test_images_that_cannot_be_used_are_left_out_and_cannot_be_compared_with(
    tiny_run: Run, plain_survey: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(plain_survey / "images_test_rev1", tmp_path / "images"))
    (images / "7.jpg").write_text("nothing to see")
    rows = find_similar(tiny_run, images, ["300001"], tmp_path / "page")
    assert sorted(row.galaxy for row in rows) == ["300000", "300002", "300003", "300004"]
    with pytest.raises(SourceError, match=r"cannot use 7\.jpg \(is a text, .*\): choose another galaxy"):
        find_similar(tiny_run, images, ["7"], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_features_of_another_model_or_of_other_galaxies_are_refused(
    tiny_run: Run, plain_dataset: Dataset, plain_survey: Path, embedded: Path, make_dataset: Any, tmp_path: Path
) -> None:
    out = tmp_path / "page"
    other = Path(shutil.copytree(tiny_run.folder, tmp_path / "run"))
    with (other / "model.keras").open("ab") as file:
        file.write(b" ")
    with pytest.raises(ConfigError, match=r"was made with another model than that of .*run: give its own run, or embed again"):
        find_similar(Run(other, tiny_run.config), plain_dataset, QUERIES, out, features=embedded)
    with pytest.raises(ConfigError, match="was made of other galaxies than"):
        find_similar(tiny_run, make_dataset(examples_per_shard=5), QUERIES, out, features=embedded)
    with pytest.raises(ConfigError, match="was made of other galaxies than"):
        find_similar(tiny_run, plain_survey, QUERIES, out, features=embedded)
    embed_galaxies(tiny_run, plain_survey, tmp_path / "all.parquet")
    with pytest.raises(ConfigError, match="has no galaxy 200003, which the file of features lists: embed again"):
        find_similar(tiny_run, plain_survey / "images_test_rev1", QUERIES, out, features=tmp_path / "all.parquet")
    (tmp_path / "text.parquet").write_text("text")
    for path, what in ((tmp_path / "gone.parquet", "no such file"), (tmp_path / "text.parquet", "is not a file of features")):
        with pytest.raises(ConfigError, match=f"{what}: give --features a file that trainer embed wrote"):
            find_similar(tiny_run, plain_dataset, QUERIES, out, features=path)
    assert not out.exists()


def test_a_damaged_file_of_features_is_one_line(tiny_run: Run, plain_dataset: Dataset, embedded: Path, tmp_path: Path) -> None:
    content = bytearray(embedded.read_bytes())
    content[50:4000] = os.urandom(3950)
    (tmp_path / "f.parquet").write_bytes(content)
    with pytest.raises(ConfigError, match=r"f\.parquet: damaged \(.*\): run trainer embed again"):
        find_similar(tiny_run, plain_dataset, QUERIES, tmp_path / "page", features=tmp_path / "f.parquet")
    assert not (tmp_path / "page").exists()


def test_a_galaxy_without_features_is_refused(tiny_run: Run, plain_dataset: Dataset, embedded: Path, tmp_path: Path) -> None:
    stored = StoredFeatures(embedded)
    with feature_file(tmp_path / "f.parquet", 1024, "float32", stored.metadata) as add:
        for block in stored.blocks():
            add(block._replace(features=np.zeros_like(block.features)))
    with pytest.raises(RunError, match="all features of galaxy 200003 are zero: train the run for longer"):
        find_similar(tiny_run, plain_dataset, QUERIES, tmp_path / "page", features=tmp_path / "f.parquet")
    assert not (tmp_path / "page").exists()
