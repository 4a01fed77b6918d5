"""Files of features hold what the head of the model reads, for every galaxy once, and appear whole or not at all."""

import csv
import hashlib
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from preprocess.job import BuildSettings, build_dataset
from tests.tfrecords.earlier import with_table_of_names
from tests.tfrecords.fits.files import galaxy, write
from tfrecords.dataset import SPLITS, Dataset
from tfrecords.errors import ConfigError, DatasetError, RunError, SettingError, SourceError
from trainer import featurefile, inference
from trainer import features as features_of
from trainer.embed import embed_galaxies
from trainer.featurefile import StoredFeatures, feature_file
from trainer.features import FeatureBlock, FeatureModel, Labels
from trainer.predict import Stretch, predict_images, predict_split
from trainer.run import Run

Main = Callable[..., tuple[int, str, str]]


def _matrix(path: Path) -> np.ndarray:
    """The features of a file, (galaxies, dimension)."""
    return np.stack(pd.read_parquet(path).features.to_numpy())


def _by_id(path: Path) -> dict[int, np.ndarray]:
    return dict(zip(pd.read_parquet(path).galaxy_id.tolist(), _matrix(path), strict=True))


@pytest.fixture(scope="module")
def embedded(tiny_run: Run, plain_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features of all splits of the plain dataset. Read-only."""
    path = tmp_path_factory.mktemp("embedded") / "features.parquet"
    embed_galaxies(tiny_run, plain_dataset, path)
    return path


@pytest.fixture(scope="module")
def named(
    plain_survey: Path, build_settings: Callable[..., BuildSettings], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Dataset]:
    """Galaxies with names instead of numbers, as images and as a dataset. Read-only."""
    folder = tmp_path_factory.mktemp("named")
    (folder / "images").mkdir()
    for place, image in enumerate(sorted(plain_survey.glob("images_*/*.jpg"))[:20]):
        shutil.copy(image, folder / "images" / f"NGC {place:03d}.jpg")
    settings = build_settings(crop_fraction=1.0, examples_per_shard=7)
    return folder / "images", build_dataset(folder / "images", folder / "data", settings, workers=1).dataset


def test_features_are_what_the_output_layer_reads(tiny_run: Run, plain_dataset: Dataset, embedded: Path) -> None:
    import keras

    from tfrecords import reader

    model = tiny_run.load_model()
    layer = model.get_layer("vote_fractions")
    part = keras.Model(model.input, model.get_layer("fc2").output)
    rows = _by_id(embedded)
    examples = [*reader.in_order(plain_dataset, "test")]
    images = np.stack([reader.decode_example(one, plain_dataset.encoding, plain_dataset.size) for one in examples])
    features = np.stack([rows[int(one["galaxy_id"])] for one in examples])
    assert features.shape == (len(examples), 1024) and features.std() > 0.01
    np.testing.assert_allclose(features, part.predict(images, verbose=0), atol=1e-5)
    predictions = predict_split(tiny_run, plain_dataset, "test")
    of_features = np.asarray(layer(np.stack([rows[galaxy_id] for galaxy_id in predictions.galaxy_ids.tolist()])))
    np.testing.assert_allclose(of_features, predictions.predicted, atol=1e-5)


def test_a_file_lists_every_galaxy_of_every_split_once_as_stored(plain_dataset: Dataset, embedded: Path) -> None:
    from tfrecords.reader import votes_of

    table = pd.read_parquet(embedded)
    expected = [(int(one), split) for split in SPLITS for one in votes_of(plain_dataset, split).galaxy_ids]
    assert [*zip(table.galaxy_id.tolist(), table.split.tolist(), strict=True)] == expected and len(expected) == 85
    assert table.name.isna().all()


def test_the_schema_says_the_dimension_and_what_the_features_are_of(
    tiny_run: Run, plain_dataset: Dataset, embedded: Path
) -> None:
    schema = parquet.read_schema(embedded)
    assert schema.names == ["galaxy_id", "name", "split", "features"]
    assert schema.types == [pa.int64(), pa.string(), pa.string(), pa.list_(pa.field("element", pa.float32()), 1024)]
    assert json.loads(schema.metadata[b"galaxy-zoo-vgg16"]) == {
        "kind": "features",
        "layer": "fc2",
        "dimension": 1024,
        "run": str(tiny_run.folder),
        "model": hashlib.sha256(tiny_run.model_path.read_bytes()).hexdigest(),
        "crop_fraction": 1.0,
        "size": 32,
        "dataset": plain_dataset.fingerprint,
    }


def test_images_and_records_of_the_same_galaxies_have_the_same_features(
    tiny_run: Run, plain_survey: Path, embedded: Path, tmp_path: Path
) -> None:
    embedding = embed_galaxies(tiny_run, plain_survey, tmp_path / "images.parquet")
    assert (embedding.galaxies, embedding.dimension, embedding.layer, embedding.rejected) == (85, 1024, "fc2", ())
    of_images, of_records = _by_id(tmp_path / "images.parquet"), _by_id(embedded)
    assert [*of_images] == sorted(of_records)  # images come by their ids
    for galaxy_id, features in of_images.items():
        np.testing.assert_allclose(features, of_records[galaxy_id], atol=1e-4)
    table = pd.read_parquet(tmp_path / "images.parquet")
    assert table.name.isna().all() and table.split.isna().all()
    assert StoredFeatures(tmp_path / "images.parquet").metadata["images"] == str(plain_survey)


def test_galaxies_with_names_have_them_in_their_own_rows(tiny_run: Run, named: tuple[Path, Dataset], tmp_path: Path) -> None:
    images, dataset = named
    by_name = {}
    for kind, source in (("images", images), ("records", dataset)):
        embed_galaxies(tiny_run, source, tmp_path / f"{kind}.parquet")
        table = pd.read_parquet(tmp_path / f"{kind}.parquet")
        by_name[kind] = dict(zip(table.name, zip(table.galaxy_id, table.features, strict=True), strict=True))
    assert {*by_name["images"]} == {*by_name["records"]} == {f"NGC {place:03d}" for place in range(20)}
    predictions = predict_images(tiny_run, images)
    assert predictions.names is not None
    id_of = dict(zip(predictions.names, predictions.galaxy_ids, strict=True))
    for name, (galaxy_id, features) in by_name["images"].items():
        assert galaxy_id == by_name["records"][name][0] == id_of[name]
        np.testing.assert_allclose(features, by_name["records"][name][1], atol=1e-4)


def test_a_dataset_with_a_table_of_names_gives_them_too(tiny_run: Run, named: tuple[Path, Dataset], tmp_path: Path) -> None:
    from tfrecords.reader import votes_of

    votes = votes_of(named[1], "unlabelled")
    assert votes.names is not None
    paths = {galaxy_id: f"{name}.jpg" for galaxy_id, name in zip(votes.galaxy_ids.tolist(), votes.names, strict=True)}
    earlier = with_table_of_names(named[1], tmp_path / "earlier", paths)
    embed_galaxies(tiny_run, earlier, tmp_path / "features.parquet")
    table = pd.read_parquet(tmp_path / "features.parquet")
    assert dict(zip(table.galaxy_id, table.name, strict=True)) == paths


def test_features_are_streamed_in_batches_and_written_in_row_groups(
    tiny_run: Run, plain_dataset: Dataset, plain_survey: Path, embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(featurefile, "GROUP", 16)
    for module in (inference, features_of):
        monkeypatch.setattr(module, "BATCH_SIZE", 8)
    for source in (plain_dataset, plain_survey):
        embed_galaxies(tiny_run, source, tmp_path / "features.parquet")
        with parquet.ParquetFile(tmp_path / "features.parquet") as file:
            groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        assert sum(groups) == 85 and max(groups) <= 16 + 7 and len(groups) >= 5
        rows = _by_id(tmp_path / "features.parquet")
        for galaxy_id, features in _by_id(embedded).items():
            np.testing.assert_allclose(rows[galaxy_id], features, atol=1e-4)
        blocks = [*StoredFeatures(tmp_path / "features.parquet").blocks()]
        assert [len(block.features) for block in blocks] == groups
        np.testing.assert_array_equal(np.concatenate([block.features for block in blocks]), [*rows.values()])


def test_half_precision_halves_the_file_and_rounds(
    tiny_run: Run, plain_dataset: Dataset, embedded: Path, tmp_path: Path, run_main: Main
) -> None:
    out = tmp_path / "half.parquet"
    flags = ("--run", tiny_run.folder, "--tfrecords", plain_dataset.folder, "--out", out, "--dtype=float16")
    assert run_main("embed", *flags)[:2] == (0, f"{out}: 1,024 features (float16, layer fc2) of each of 85 galaxies\n")
    assert parquet.read_schema(out).field("features").type.value_type == pa.float16()
    half = _matrix(out)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, _matrix(embedded), rtol=1e-3, atol=1e-6)
    assert out.stat().st_size < 0.7 * embedded.stat().st_size
    assert next(StoredFeatures(out).blocks()).features.dtype == np.float32


def test_one_split_can_be_chosen(tiny_run: Run, plain_dataset: Dataset, make_dataset: Any, tmp_path: Path) -> None:
    assert embed_galaxies(tiny_run, plain_dataset, tmp_path / "f.parquet", "unlabelled").galaxies == 5
    table = pd.read_parquet(tmp_path / "f.parquet")
    assert sorted(table.galaxy_id) == [*range(300_000, 300_005)] and {*table.split} == {"unlabelled"}
    with pytest.raises(DatasetError, match="no galaxies in split 'validation': choose from train, test, unlabelled"):
        embed_galaxies(tiny_run, make_dataset(validation_fraction=0.0), tmp_path / "g.parquet", "validation")
    assert not (tmp_path / "g.parquet").exists()


def test_the_command_lists_images_that_cannot_be_used_as_predict_does(
    tiny_run: Run, plain_survey: Path, tmp_path: Path, run_main: Main, caplog: pytest.LogCaptureFixture
) -> None:
    images, out = tmp_path / "images", tmp_path / "out" / "features.parquet"
    shutil.copytree(plain_survey / "images_test_rev1", images)
    (images / "7.jpg").write_text("nothing to see")
    code, said, _ = run_main("embed", "--run", tiny_run.folder, "--images", images, "--out", out)
    listing = tmp_path / "out" / "features-rejected.csv"
    assert code == 0 and said == (
        f"{out}: 1,024 features (float32, layer fc2) of each of 5 galaxies; 1 that cannot be used are listed in {listing}\n"
    )
    assert "1 of 6 images cannot be used and are skipped: 7.jpg (is a text, not an image: 'nothing to see')" in caplog.messages
    with listing.open(newline="") as file:
        assert [row[:2] for row in csv.reader(file)] == [["GalaxyID", "path"], ["7", "7.jpg"]]
    assert sorted(_by_id(out)) == [*range(300_000, 300_005)]
    (images / "7.jpg").unlink()
    assert run_main("embed", "--run", tiny_run.folder, "--images", images, "--out", out)[0] == 0
    assert not listing.exists()


def test_fits_images_are_drawn_as_they_are_predicted(
    tiny_run: Run, tmp_path: Path, run_main: Main, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        write(tmp_path / "fits" / f"{number}.fits", galaxy(40)[::-1])
    flags = ("--run", tiny_run.folder, "--images", tmp_path / "fits", "--bands=grz", "--fits_stretch=0.7")
    assert run_main("embed", *flags, "--out", tmp_path / "f.parquet")[0] == 0
    predictions = predict_images(tiny_run, tmp_path / "fits", bands="grz", stretch=Stretch(0.7))
    layer = tiny_run.load_model().get_layer("vote_fractions")
    np.testing.assert_allclose(np.asarray(layer(_matrix(tmp_path / "f.parquet"))), predictions.predicted, atol=1e-5)


# Errors


class _Broken(Exception):
    pass


@pytest.mark.parametrize("of_images", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_an_error_on_the_way_leaves_no_half_of_a_file(
    tiny_run: Run,
    plain_dataset: Dataset,
    plain_survey: Path,
    embedded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    of_images: bool,
    there: bool,
) -> None:
    out = tmp_path / "features.parquet"
    if there:
        shutil.copy(embedded, out)
    for module in (inference, features_of):
        monkeypatch.setattr(module, "BATCH_SIZE", 8)
    monkeypatch.setattr(featurefile, "GROUP", 8)
    calls: Iterator[int] = iter(range(100))
    predicted = FeatureModel.__call__

    def fail(self: FeatureModel, crops: Any) -> np.ndarray:
        if next(calls) == 5:
            raise _Broken
        return predicted(self, crops)

    monkeypatch.setattr(FeatureModel, "__call__", fail)
    with pytest.raises(_Broken):
        embed_galaxies(tiny_run, plain_survey if of_images else plain_dataset, out)
    assert [path.name for path in tmp_path.iterdir()] == (["features.parquet"] if there else [])
    assert not there or out.read_bytes() == embedded.read_bytes()


def test_a_disk_that_is_full_leaves_no_half_of_a_file(tiny_run: Run, plain_dataset: Dataset, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            embed_galaxies(tiny_run, plain_dataset, tmp_path / "features.parquet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_only_files_of_features_are_replaced(
    tiny_run: Run, plain_dataset: Dataset, embedded: Path, tmp_path: Path, run_main: Main
) -> None:
    flags = ("embed", "--run", tiny_run.folder, "--tfrecords", plain_dataset.folder, "--split=unlabelled", "--out")
    out = tmp_path / "features.parquet"
    assert run_main(*flags, out)[0] == run_main(*flags, out)[0] == 0  # our own file
    pd.DataFrame({"galaxy_id": [1], "mine": [2]}).to_parquet(tmp_path / "mine.parquet")
    (tmp_path / "text.parquet").write_text("mine")
    table = parquet.read_table(embedded)
    parquet.write_table(table.append_column("notes", pa.array(["mine"] * len(table))), tmp_path / "more.parquet")
    (tmp_path / "link.parquet").symlink_to(out)
    (tmp_path / "folder.parquet").mkdir()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for name, what in (
        ("mine.parquet", "exists and is not a file of features: choose another --out, or move it elsewhere"),
        ("text.parquet", "exists and is not a file of features: choose another --out, or move it elsewhere"),
        ("more.parquet", "exists and is not a file of features: choose another --out, or move it elsewhere"),
        ("link.parquet", "exists and is not a file of features: choose another --out, or move it elsewhere"),
        ("folder.parquet", f"is a folder: set --out to a file, such as {tmp_path / 'folder.parquet' / 'features.parquet'}"),
        ("text.parquet/f.parquet", None),
    ):
        code, said, err = run_main(*flags, tmp_path / name)
        assert (code, said) == (1, "")
        assert err == f"error: {tmp_path / name}: {what}\n" if what else "is a file: choose another folder for --out" in err
    code, said, err = run_main(*flags, tmp_path / "features.csv")
    assert (code, said) == (2, "") and err.startswith(
        f"error: --out {tmp_path / 'features.csv'}: a file of features must end in"
    )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ([], "give either --tfrecords DIR (a dataset) or --images PATH (image files)"),
        (["--images=.", "--tfrecords=data"], "give either --tfrecords DIR (a dataset) or --images PATH"),
        (["--images=.", "--split=test"], "--split test: needs --tfrecords"),
        (["--tfrecords=data", "--bands=grz"], "--bands grz: needs --images"),
        (["--images=.", "--fits_stretch=0"], "--fits_stretch 0.0: must be above 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@pytest.mark.parametrize("command", [("embed", "--out=f.parquet"), ("similar", "--out=page", "--to=1")], ids=lambda c: c[0])
def test_flags_that_contradict_each_other_are_one_line_and_status_2(
    command: tuple[str, ...], flags: list[str], what: str, run_main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, err = run_main(*command, "--run=run", *flags)
    assert (code, said) == (2, "") and err.startswith(f"error: {what}") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_used_is_refused_before_anything_is_written(
    tiny_run: Run, make_dataset: Any, plain_dataset: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "features.parquet"
    with pytest.raises(ConfigError, match=r"its size is 45, but .* was trained with 32"):
        embed_galaxies(tiny_run, make_dataset(size=45), out)
    with pytest.raises(SettingError, match="--dtype float64: must be one of float32, float16"):
        embed_galaxies(tiny_run, plain_dataset, out, dtype="float64")
    with pytest.raises(SourceError, match="no such file or folder"):
        embed_galaxies(tiny_run, tmp_path / "gone", out)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "images" / "1.png")
    with pytest.raises(SourceError, match="none of its 1 images can be used"):
        embed_galaxies(tiny_run, tmp_path / "images", out)
    assert [path.name for path in tmp_path.rglob("*.parquet*")] == []


def test_features_beyond_half_precision_are_refused_with_what_to_do(tmp_path: Path) -> None:
    values = np.full((2, 4), 1e6, np.float32)
    block = FeatureBlock(Labels(np.array([5, 6]), None, None), values)
    with feature_file(tmp_path / "f.parquet", 4, "float32", {}) as add:
        add(block)
    for features, dtype, cure in ((values, "float16", "use --dtype float32"), (values * np.nan, "float32", "train again")):
        with (
            pytest.raises(RunError, match=f"not finite {dtype}: {cure}"),
            feature_file(tmp_path / "g.parquet", 4, dtype, {}) as add,
        ):
            add(block._replace(features=features))
    assert [path.name for path in tmp_path.iterdir()] == ["f.parquet"]
