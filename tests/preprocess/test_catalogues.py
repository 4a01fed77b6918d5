"""A catalogue gives the shards that a folder with the same galaxies gives, byte for byte."""

import gzip
import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from preprocess import plan, scatter
from preprocess.catalogues import catalogue_survey
from preprocess.fitting import ANYTHING, Wanted
from preprocess.job import BadImages, BuildSettings, build_dataset
from preprocess.verify.dataset import verify_dataset
from tests.conftest import galaxy_image, random_counts, write_votes
from tfrecords import schema
from tfrecords.builtin import builtin_tree
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, SourceError
from tfrecords.framing import read_records

Settings = Callable[..., BuildSettings]
# What an image column of Hugging Face's datasets looks like.
IMAGES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _shards(dataset: Dataset) -> dict[str, bytes]:
    return {shard.name: (dataset.folder / shard.name).read_bytes() for shard in dataset.shards}


def _names(dataset: Dataset) -> set[str | None]:
    """The names in the records."""
    records = (record for shard in dataset.shards for record in read_records(dataset.folder / shard.name))
    return {schema.parse(record, dataset.tree, dataset.asked, dataset.named).name for record in records}


def _rows(survey: Path) -> pd.DataFrame:
    """The galaxies of a folder as the rows of a catalogue, in any order: votes where there are any, and `file`."""
    votes = pd.read_csv(survey / "training_solutions_rev1.csv")
    files = sorted(str(path.relative_to(survey)) for path in survey.rglob("*.jpg"))
    rows = pd.DataFrame({"GalaxyID": [int(Path(file).stem) for file in files], "file": files})
    return rows.merge(votes, "left", on="GalaxyID").sample(frac=1, random_state=0)


def _embedded(rows: pd.DataFrame, folder: Path, kind: Any = IMAGES) -> pa.Table:
    """The same rows with the images in place of their paths."""
    data = [(folder / file).read_bytes() for file in rows.file]
    values = [{"bytes": each, "path": file} for each, file in zip(data, rows.file, strict=True)] if kind == IMAGES else data
    return pa.Table.from_pandas(rows.drop(columns="file"), preserve_index=False).append_column("image", pa.array(values, kind))


def _parquet(rows: pd.DataFrame, folder: Path, out: Path) -> Path:
    rows.to_parquet(folder / "catalogue.parquet", index=False)
    return folder / "catalogue.parquet"


def _packed(rows: pd.DataFrame, folder: Path, out: Path) -> Path:
    """Parquet in gzip."""
    path = folder / "catalogue.parquet.gz"
    path.write_bytes(gzip.compress(_parquet(rows, folder, out).read_bytes()))
    return path


def _zipped(rows: pd.DataFrame, folder: Path, out: Path) -> Path:
    """CSV in a zip."""
    with zipfile.ZipFile(folder / "catalogue.csv.zip", "w") as archive:
        archive.writestr("catalogue.csv", rows.to_csv(index=False))
    return folder / "catalogue.csv.zip"


def _dialect(rows: pd.DataFrame, folder: Path, out: Path) -> Path:
    text = rows.to_csv(index=False, sep=";", decimal=",")
    (folder / "catalogue.txt").write_bytes(gzip.compress(text.encode("utf-16")))
    return folder / "catalogue.txt"


def _elsewhere(rows: pd.DataFrame, folder: Path, out: Path) -> Path:
    """Without ids, with absolute paths, in another folder."""
    rows.drop(columns="GalaxyID").assign(file=[str(folder / file) for file in rows.file]).to_csv(out / "list.csv", index=False)
    return out / "list.csv"


def _fits(rows: pd.DataFrame, folder: Path, out: Path) -> Path:
    table = pytest.importorskip("astropy.table", reason="the extra `fits` is not installed")
    table.Table.from_pandas(rows).write(folder / "catalogue.fits")
    return folder / "catalogue.fits"


def _structs(rows: pd.DataFrame, folder: Path, out: Path) -> Path:
    parquet.write_table(_embedded(rows, folder), out / "images.parquet", row_group_size=5)
    return out / "images.parquet"


def _bytes(rows: pd.DataFrame, folder: Path, out: Path) -> Path:
    parquet.write_table(_embedded(rows, folder, pa.binary()), out / "images.parquet")
    return out / "images.parquet"


def _several_files(rows: pd.DataFrame, folder: Path, out: Path) -> Path:
    (out / "gz" / "data").mkdir(parents=True)
    table = _embedded(rows, folder)
    for number, (start, rows_in_file) in enumerate([(0, 9), (9, 0), (9, None)]):
        parquet.write_table(table.slice(start, rows_in_file), out / "gz" / "data" / f"{number}.parquet")
    return out / "gz"


@pytest.fixture
def folder(survey: Path, tmp_path: Path) -> Path:
    """A copy of the survey to which a catalogue may be added."""
    shutil.copytree(survey, tmp_path / "folder")
    return tmp_path / "folder"


@pytest.mark.parametrize("make", [_parquet, _packed, _zipped, _dialect, _elsewhere, _fits, _structs, _bytes, _several_files])
def test_a_catalogue_over_a_folder_gives_its_shards_and_agrees_with_them(
    make: Callable[[pd.DataFrame, Path, Path], Path], folder: Path, build_settings: Settings, tmp_path: Path
) -> None:
    settings = build_settings(examples_per_shard=3, encoding="jpeg")
    expected = build_dataset(folder, tmp_path / "expected", settings).dataset
    source = make(_rows(folder), folder, tmp_path)
    result = build_dataset(source, tmp_path / "out", settings, workers=2)
    assert _shards(result.dataset) == _shards(expected) and len(expected.shards) > 8
    assert {path.name for path in result.dataset.folder.iterdir()} == {path.name for path in expected.folder.iterdir()}
    assert not result.dataset.named
    assert verify_dataset(tmp_path / "out", source).findings == ()
    assert build_dataset(source, tmp_path / "out", settings).already_complete


def _named(folder: Path, names: list[str]) -> pd.DataFrame:
    """A folder of galaxies with these names, with votes on all but the last, as the rows of a catalogue."""
    generator, tree = np.random.default_rng(0), builtin_tree("decals5")
    for name in names:
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        galaxy_image(generator, 64).save(path)
    counts = random_counts(len(names) - 1, generator, tree)
    rows = pd.DataFrame(counts, columns=[*tree.columns]).reindex(range(len(names)))
    rows.insert(0, "iauname", names)
    rows[:-1].to_csv(folder / "votes.csv", index=False)
    return rows.sample(frac=1, random_state=0)


@pytest.mark.parametrize(
    "names",
    [
        [f"J{number:06d}.00-0{number}" for number in range(8)],
        [f"{kind}/{number:03d}" for kind in ("disk", "spiral") for number in range(4)],
        [f"{kind}/{number}" for kind in ("disk", "spiral") for number in range(4)],
        ["007", "7", *map(str, range(10, 16))],
    ],
)
@pytest.mark.parametrize("with_id", [False, True])
def test_names_and_counts_are_those_of_a_folder(
    names: list[str], with_id: bool, build_settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    rows = _named(folder, names)
    expected = build_dataset(folder, tmp_path / "expected", build_settings()).dataset
    rows = rows.assign(file=[f"{name}.png" for name in rows.iauname])
    source = folder / "catalogue.parquet"
    (rows if with_id else rows.drop(columns="iauname")).to_parquet(source)
    dataset = build_dataset(source, tmp_path / "out", build_settings(), id_column="iauname" if with_id else "").dataset
    assert _shards(dataset) == _shards(expected) and dataset.named and dataset.asked
    assert _names(dataset) == {*names}
    assert verify_dataset(tmp_path / "out", source).findings == ()


def test_galaxies_are_called_by_their_ids_whatever_their_files_are_called(
    folder: Path, build_settings: Settings, tmp_path: Path
) -> None:
    rows = _rows(folder)
    rows["GalaxyID"] = [f"J{number}" for number in rows.GalaxyID]
    rows.rename(columns={"GalaxyID": "iauname"}).to_csv(folder / "catalogue.csv", index=False)
    dataset = build_dataset(folder / "catalogue.csv", tmp_path / "out", build_settings()).dataset
    assert _names(dataset) == {*rows.GalaxyID}
    assert verify_dataset(tmp_path / "out", folder / "catalogue.csv").findings == ()


def test_images_that_are_missing_damaged_or_null_are_rejected_by_their_rows(
    folder: Path, build_settings: Settings, tmp_path: Path
) -> None:
    rows = _rows(folder)
    missing, damaged = rows.file.iloc[3], rows.file.iloc[5]
    (folder / missing).unlink()
    (folder / damaged).write_bytes(b"no image")
    rows.to_parquet(folder / "catalogue.parquet")
    bad = BadImages(max_fraction=0.5)
    dataset = build_dataset(folder / "catalogue.parquet", tmp_path / "files", build_settings(), bad=bad).dataset
    assert dataset.rejected() == {int(Path(file).stem): file for file in (missing, damaged)}
    assert f"{missing},there is no such file\n" in (dataset.folder / "rejected.csv").read_text()
    assert verify_dataset(dataset.folder, folder / "catalogue.parquet").findings == ()

    held = _embedded(rows.drop(rows.index[3]), folder).to_pylist()
    held[0]["image"] = None
    source = tmp_path / "images.parquet"
    parquet.write_table(pa.Table.from_pylist(held), source)
    dataset = build_dataset(source, tmp_path / "held", build_settings(), bad=bad).dataset
    assert dataset.rejected() == {int(held[0]["GalaxyID"]): "row 1", int(held[4]["GalaxyID"]): "row 5"}
    assert "row 1,the table holds no image for it\n" in (dataset.folder / "rejected.csv").read_text()
    assert verify_dataset(dataset.folder, source).findings == ()


def test_fractions_with_blanks_assume_volunteers_for_all_rows_as_in_a_folder(
    build_settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The catalogue is read in parts, of which only some have a question that nobody answered."""
    monkeypatch.setattr("preprocess.catalogue._ROWS", 2)
    tree = tmp_path / "ring.toml"
    tree.write_text(
        '[[question]]\nkey = "ring"\nanswers = { yes = "ring", no = "none" }\n'
        '[[question]]\nkey = "odd"\nanswers = { yes = "odd", no = "plain" }\n'
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    rows = []
    for number in range(6):
        galaxy_image(np.random.default_rng(number), 64).save(folder / f"{number}.png")
        rows.append({"id": number, "file": f"{number}.png", "ring": 0.5, "none": 0.5, "odd": 0.25, "plain": 0.75})
    rows[5] |= {"odd": None, "plain": None}
    table = pd.DataFrame(rows)
    table.to_csv(folder / "votes.csv", index=False)
    expected = build_dataset(folder, tmp_path / "expected", build_settings(), tree=tree).dataset
    source = tmp_path / "folder" / "catalogue.parquet"
    table.to_parquet(source)
    dataset = build_dataset(source, tmp_path / "out", build_settings(), tree=tree).dataset
    assert expected.source["asked"] == dataset.source["asked"] == "assumed" and _shards(dataset) == _shards(expected)


def _refused(source: Path, tmp_path: Path, settings: BuildSettings, **options: Any) -> str:
    with pytest.raises((SourceError, ConfigError)) as caught:
        build_dataset(source, tmp_path / "out", settings, **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    return str(caught.value).removeprefix(f"{source}: ")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda rows: rows.drop(columns="file"), {}, "names no images: it needs a column with their paths (filename, "),
        (
            lambda rows: rows,
            {"path_column": "where"},
            "has no column where: give --path_column one of GalaxyID, file, ",
        ),
        (lambda rows: rows, {"id_column": "iau"}, "has no column iau: give --id_column one of GalaxyID, file, "),
        (lambda rows: rows.drop(columns="Class3.1"), {}, "lacks Class3.1 of tree kaggle: add it, or remove"),
        (lambda rows: pd.concat([rows, rows[:1]]), {}, "rows 1 and 29 below the header are both galaxy "),
        (
            lambda rows: pd.concat([rows, rows[:1]]).drop(columns="GalaxyID"),
            {},
            "rows 1 and 29 below the header have one image, images_",
        ),
        (lambda rows: rows.assign(file=[*rows.file[:-1], ""]), {}, "file is missing in row 28 below the header: correct it"),
        (lambda rows: rows[:0], {}, "has no rows: it must have one per galaxy"),
        (lambda rows: rows.assign(GalaxyID=[*map(str, rows.GalaxyID[:-1]), "5.8E+17"]), {}, "GalaxyID holds 5.8E+17 in row 28"),
        (lambda rows: rows.assign(**{"Class2.1": -rows["Class2.1"]}), {}, "values outside 0 to 1"),
        (lambda rows: rows, {"solutions_file": "votes.csv"}, "is a catalogue, which must hold the votes itself"),
    ],
)
def test_a_catalogue_that_cannot_be_used_is_refused_in_one_line(
    change: Callable[[pd.DataFrame], pd.DataFrame],
    options: dict[str, Any],
    message: str,
    folder: Path,
    build_settings: Settings,
    tmp_path: Path,
) -> None:
    change(_rows(folder)).to_csv(folder / "catalogue.csv", index=False)
    assert _refused(folder / "catalogue.csv", tmp_path, build_settings(), **options).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer, not the file itself"),
        (b"", "is empty"),
        (b"PAR1 cut off", "not a readable Parquet file"),
        (b"some words", "names no images"),
    ],
)
def test_a_file_that_is_no_catalogue_is_called_what_it_is(
    content: bytes, message: str, build_settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "catalogue.csv").write_bytes(content)
    assert _refused(tmp_path / "catalogue.csv", tmp_path, build_settings()).startswith(message)


def test_images_without_ids_are_refused(folder: Path, build_settings: Settings, tmp_path: Path) -> None:
    source = _structs(_rows(folder).rename(columns={"GalaxyID": "number"}), folder, tmp_path)
    assert _refused(source, tmp_path, build_settings()) == ("has no column with the ids of galaxies: name it with --id_column")
    assert build_dataset(source, tmp_path / "out", build_settings(), id_column="number").id_column == "number"


def test_files_that_are_parts_of_different_tables_are_refused(folder: Path, build_settings: Settings, tmp_path: Path) -> None:
    source = _several_files(_rows(folder), folder, tmp_path)
    table = _embedded(_rows(folder), folder)
    parquet.write_table(table.drop_columns(["Class1.1"]), source / "data" / "1.parquet")
    message = _refused(source, tmp_path, build_settings())
    assert message == (
        f"{source}/data/1.parquet: has other columns than {source}/data/0.parquet: give a folder whose files are one table"
    )


def test_an_unfinished_build_of_a_changed_catalogue_is_refused_and_of_the_same_one_resumed(
    folder: Path, build_settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = build_settings(examples_per_shard=3)
    source = _parquet(_rows(folder), folder, tmp_path)
    expected = build_dataset(source, tmp_path / "expected", settings).dataset

    def interrupted(work: Any, tasks: Any, *arguments: Any) -> Any:
        for number, task in enumerate(tasks):
            if number == 2:
                raise KeyboardInterrupt
            yield work(task, lambda: None)

    with monkeypatch.context() as patch:
        patch.setattr("preprocess.job.run_local", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_dataset(source, tmp_path / "out", settings)
    assert len([*(tmp_path / "out" / ".preprocess" / "receipts").iterdir()]) == 2
    _rows(folder)[1:].to_parquet(source, index=False)
    with pytest.raises(ConfigError, match="holds an unfinished build with other settings or source"):
        build_dataset(source, tmp_path / "out", settings)
    _parquet(_rows(folder), folder, tmp_path)
    assert _shards(build_dataset(source, tmp_path / "out", settings).dataset) == _shards(expected)
    assert not (tmp_path / "out" / ".preprocess").exists()


def test_the_rows_of_more_shards_than_files_are_read_without_the_others(tmp_path: Path) -> None:
    number = 3 * scatter.GROUPS + 7
    source = tmp_path / "catalogue.csv"
    write_votes(source, [*range(number)], np.tile(_a_vote(), (number, 1)))
    frame = pd.read_csv(source)
    frame["file"] = [f"{galaxy}.png" for galaxy in frame.GalaxyID]
    frame.to_csv(source, index=False)
    survey = catalogue_survey(source, tmp_path, ANYTHING)
    shards = plan.make(survey.galaxies, plan.PlanSettings(examples_per_shard=1, limit=number - 5))
    assert len(shards) == number - 5
    survey.prepare(shards)
    (folder,) = tmp_path.glob("rows-*")
    assert len([*folder.iterdir()]) == scatter.GROUPS
    for shard in shards:
        part = survey.part(shard.rows)
        (galaxy,) = part.images.galaxy_id.tolist()
        assert galaxy == survey.galaxies.ids[shard.rows[0]] and part.images.path(0) == f"{galaxy}.png"
    together = np.concatenate([shard.rows for shard in shards])[::-1]
    assert survey.part(together).images.galaxy_id.tolist() == survey.galaxies.ids[together].tolist()


def _a_vote() -> np.ndarray:
    """Votes that obey Kaggle's tree: all volunteers say smooth, round, nothing odd."""
    tree = builtin_tree()
    votes = np.zeros(len(tree.columns))
    votes[[tree.index[name] for name in ("Class1.1", "Class6.2", "Class7.1")]] = 1
    return votes


def test_a_catalogue_without_votes_is_unlabelled(folder: Path, build_settings: Settings, tmp_path: Path) -> None:
    _rows(folder)[["file"]].to_csv(folder / "catalogue.csv", index=False)
    result = build_dataset(folder / "catalogue.csv", tmp_path / "out", build_settings())
    assert {shard.split for shard in result.dataset.shards} == {"unlabelled"} and result.id_column == ""


def test_columns_are_found_in_other_case_and_a_path_column_may_have_any_name(
    folder: Path, build_settings: Settings, tmp_path: Path
) -> None:
    expected = build_dataset(folder, tmp_path / "expected", build_settings()).dataset
    rows = _rows(folder).rename(columns=str.lower).rename(columns={"file": "Where it Is"})
    buffer = io.BytesIO()
    rows.to_csv(buffer, index=False)
    (folder / "catalogue.csv").write_bytes(buffer.getvalue())
    dataset = build_dataset(folder / "catalogue.csv", tmp_path / "out", build_settings(), path_column="Where it is").dataset
    assert _shards(dataset) == _shards(expected)
    assert dataset.settings["path_column"] == "Where it is"
    assert verify_dataset(dataset.folder, folder / "catalogue.csv").findings == ()
    assert catalogue_survey(folder / "catalogue.csv", tmp_path, Wanted(path_column="Where it is")).id_column == "galaxyid"
