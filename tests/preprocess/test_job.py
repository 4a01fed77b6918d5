"""A dataset follows from its source and settings alone, and nothing in --out is lost unless the user asks for it."""

import csv
import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from preprocess.job import BuildSettings, build_dataset
from tfrecords import images
from tfrecords.dataset import Dataset, open_dataset
from tfrecords.errors import ConfigError, DatasetError, SettingError, SourceError
from tfrecords.schema import Example

Settings = Callable[..., BuildSettings]
Contents = Callable[[Path], dict[str, bytes]]
Examples = Callable[[Dataset], dict[int, tuple[str, Example]]]
NO_TABLE = (
    "no table of votes (training_solutions_rev1.csv or target_data/targets.csv): all {} galaxies are unlabelled; "
    "if you have one, give it with --solutions FILE"
)


@pytest.fixture
def own_survey(survey: Path, tmp_path: Path) -> Path:
    """A copy of the survey to change."""
    return Path(shutil.copytree(survey, tmp_path / "kaggle"))


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """A function that returns the warnings so far."""
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


def _stored_shape(dataset: Dataset) -> list[str]:
    features = json.loads((dataset.folder / "features.json").read_text())["featuresDict"]["features"]
    shape: list[str] = features["image"]["image"]["shape"]["dimensions"]
    return shape


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "limit"), [("jpeg", 0), ("png", 200), ("raw", 200)])
def test_crops_and_targets_of_real_galaxies_equal_their_source_bit_for_bit(
    kaggle: Path, build_settings: Settings, examples: Examples, tmp_path: Path, encoding: str, limit: int
) -> None:
    settings = build_settings(size=212, encoding=encoding, limit=limit, examples_per_shard=512)
    dataset = build_dataset(kaggle, tmp_path / "out", settings, workers=2).dataset
    with (kaggle / "training_solutions_rev1.csv").open() as file:
        votes = {int(row[0]): np.array([np.float32(text) for text in row[1:]]) for row in list(csv.reader(file))[1:]}
    sources = {int(path.stem): path for path in kaggle.glob("*/*.jpg")}
    assert len(sources) == 4261 and len(votes) == 3064
    found = examples(dataset)
    assert found.keys() <= sources.keys() and len(found) == (limit or len(sources))
    for galaxy_id, (split, example) in found.items():
        with Image.open(sources[galaxy_id]) as image:
            expected = np.asarray(image)[106:318, 106:318]
        pixels = images.decode_stored(example.image, encoding, 212, example.crop_offset)
        assert np.array_equal(pixels, expected), galaxy_id
        if galaxy_id in votes:
            assert split != "unlabelled" and np.array_equal(example.targets, votes[galaxy_id]), galaxy_id
        else:
            assert split == "unlabelled" and np.isnan(example.targets).all(), galaxy_id
    if encoding == "jpeg":
        assert _stored_shape(dataset) == ["224", "224", "3"]


def test_the_order_is_the_plans_and_the_work_folder_is_gone(small_dataset: Dataset, examples: Examples) -> None:
    assert not (small_dataset.folder / ".preprocess").exists()
    counts = Counter(split for split, _ in examples(small_dataset).values())
    assert counts == {split: small_dataset.galaxies(split) for split in ("train", "validation", "test", "unlabelled")}
    assert (small_dataset.folder / "rejected.csv").read_text() == "galaxy_id,source path,reason\n"


def test_a_finished_job_says_so_and_rewrites_nothing(survey: Path, build_settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not build_dataset(survey, out, build_settings()).already_complete
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.iterdir()}
    again = build_dataset(survey, out, build_settings(), workers=2)
    assert again.already_complete and again.dataset == open_dataset(out)
    assert {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"size": 16}, "size was 32, now 16"),
        ({"seed": 1, "encoding": "raw"}, "encoding was png, now raw; seed was 0, now 1"),
        ({"test_fraction": 0.1}, "test_fraction was 0.2, now 0.1"),
    ],
)
def test_other_settings_are_refused_with_what_differs_and_nothing_is_touched(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path, changes: dict[str, Any], difference: str
) -> None:
    out = tmp_path / "out"
    build_dataset(survey, out, build_settings())
    before = contents(out)
    with pytest.raises(ConfigError) as caught:
        build_dataset(survey, out, build_settings(**changes))
    advice = "choose another --out, or replace it with --overwrite"
    assert str(caught.value) == f"{out}: holds a dataset with other settings or source ({difference}): {advice}"
    assert contents(out) == before


@pytest.mark.slow
def test_overwrite_replaces_the_dataset_as_if_it_had_never_been(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path
) -> None:
    fresh = build_dataset(survey, tmp_path / "fresh", build_settings(size=16)).dataset
    build_dataset(survey / "images_test_rev1", tmp_path / "out", build_settings(examples_per_shard=1))
    replaced = build_dataset(survey, tmp_path / "out", build_settings(size=16), overwrite=True).dataset
    assert contents(replaced.folder) == contents(fresh.folder)


@pytest.mark.parametrize("name", ["thesis.tex", "images/1.jpg", ".hidden"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_files_is_refused_and_untouched(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path, name: str, overwrite: bool
) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("irreplaceable")
    with pytest.raises(ConfigError) as caught:
        build_dataset(survey, out, build_settings(), overwrite=overwrite)
    first = name.split("/")[0]
    assert str(caught.value) == f"{out}: holds other files ({first}): choose an --out that is empty or new"
    assert contents(out) == {name: b"irreplaceable"}


@pytest.mark.parametrize(
    "name",
    [
        *("rejected.csv", "names.csv", "manifest.json", "dataset_info.json", "features.json", "manifest.json.partial"),
        *("galaxy_zoo-train.tfrecord-00000-of-00001", "galaxy_zoo-notes.txt", ".preprocess-mine/notes.txt"),
        *(".preprocess/notes.txt", ".preprocess-0123456789abcdef/notes.txt"),
    ],
)
@pytest.mark.parametrize("before", ["nothing", "a dataset"])
def test_no_name_of_ours_makes_a_users_file_ours(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path, name: str, before: str
) -> None:
    """A file is ours only if a manifest or a job in progress lists it, never because of its name."""
    out = tmp_path / "out"
    if before == "a dataset":
        build_dataset(survey, out, build_settings())
        if (out / name).exists():
            return  # the dataset's own
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("mine")
    there = contents(out)
    for overwrite in (False, True):
        with pytest.raises(ConfigError) as caught:
            build_dataset(survey, out, build_settings(), overwrite=overwrite)
        assert name.split("/")[0] in str(caught.value) and "--overwrite" not in str(caught.value)
        assert contents(out) == there


def test_a_dataset_of_another_builder_is_left_alone(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path
) -> None:
    """As TFDS lays out a dataset of this name: with the same file names, but without our manifest."""
    out = tmp_path / "galaxy_zoo" / "1.0.0"
    out.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json", "galaxy_zoo-train.tfrecord-00000-of-00001"):
        (out / name).write_text("theirs")
    (out / "manifest.json").write_text('{"dataset": "galaxy_zoo", "files": {"features.json": ""}, "shards": []}')
    there = contents(out)
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"holds other files \(dataset_info\.json\): choose an --out"):
            build_dataset(survey, out, build_settings(), overwrite=overwrite)
    assert contents(out) == there


def test_a_file_of_the_dataset_that_its_user_changed_is_refused_by_name(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path
) -> None:
    out = build_dataset(survey, tmp_path / "out", build_settings()).dataset.folder
    (out / "rejected.csv").write_text("galaxy_id,source path,reason,my notes\n")
    before = contents(out)
    with pytest.raises(ConfigError, match=r"rejected\.csv: has changed since it was written: move it elsewhere"):
        build_dataset(survey, out, build_settings(size=16), overwrite=True)
    assert contents(out) == before
    (out / "rejected.csv").unlink()
    build_dataset(survey, out, build_settings(size=16), overwrite=True)


def test_a_finished_dataset_with_a_damaged_shard_is_not_complete(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path
) -> None:
    out = build_dataset(survey, tmp_path / "out", build_settings()).dataset.folder
    before = contents(out)
    (path, *_) = open_dataset(out).paths("train")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"{path.name}: differs from the shard that preprocess wrote"):
        build_dataset(survey, out, build_settings())
    build_dataset(survey, out, build_settings(), overwrite=True)
    assert contents(out) == before


def test_a_link_in_the_work_folder_is_not_followed(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path
) -> None:
    thesis, elsewhere, out = tmp_path / "thesis.tex", tmp_path / "elsewhere", tmp_path / "out"
    thesis.write_text("years of work")
    elsewhere.mkdir()
    (out / ".preprocess").mkdir(parents=True)
    (out / ".preprocess" / "lock").symlink_to(thesis)
    with pytest.raises(ConfigError, match=r"\.preprocess: was not created by this program"):
        build_dataset(survey, out, build_settings())
    (out / ".preprocess" / "lock").unlink()
    (out / ".preprocess" / "lock").write_text("galaxy-zoo-vgg16\n")
    (out / ".preprocess" / "receipts").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="receipts: is a link to another folder"):
        build_dataset(survey, out, build_settings())
    shutil.rmtree(out)
    out.mkdir()
    (out / ".preprocess").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match=r"\.preprocess: is a link to another folder"):
        build_dataset(survey, out, build_settings())
    assert thesis.read_text() == "years of work" and not [*elsewhere.iterdir()]


def test_a_file_as_out_is_refused_and_untouched(survey: Path, build_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("irreplaceable")
    with pytest.raises(ConfigError, match="out: is a file: choose another --out"):
        build_dataset(survey, tmp_path / "out", build_settings(), overwrite=True)
    assert (tmp_path / "out").read_text() == "irreplaceable"


def test_shards_of_unknown_origin_are_refused_and_untouched(
    small_dataset: Dataset, survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(small_dataset.folder, tmp_path / "out"))
    (out / "manifest.json").unlink()
    before = contents(out)
    for overwrite in (False, True):
        with pytest.raises(
            ConfigError, match=r"holds other files \(dataset_info\.json\): choose an --out that is empty or new"
        ):
            build_dataset(survey, out, build_settings(), overwrite=overwrite)
    assert contents(out) == before


def test_a_damaged_dataset_is_not_taken_for_complete(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shard = out / build_dataset(survey, out, build_settings()).dataset.shards[0].name
    before = contents(out)
    shard.unlink()
    with pytest.raises(DatasetError, match=f"{shard.name}: this shard is missing"):
        build_dataset(survey, out, build_settings())
    build_dataset(survey, out, build_settings(), overwrite=True)
    assert contents(out) == before


def test_votes_without_image_and_images_without_votes_are_counted_and_warned_about_in_training_folders_alone(
    own_survey: Path, build_settings: Settings, examples: Examples, tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    training = own_survey / "images_training_rev1"
    (training / "100007.jpg").unlink()
    dataset = build_dataset(own_survey, tmp_path / "1", build_settings()).dataset
    expected = {"images": 27, "votes": 24, "votes_without_image": 1, "images_without_votes": 4, "kept_splits": 0, "rejected": 0}
    assert {name: dataset.source[name] for name in expected} == expected
    assert warnings() == []
    shutil.copy(training / "100000.jpg", training / "5.jpg")
    dataset = build_dataset(own_survey, tmp_path / "2", build_settings()).dataset
    assert dataset.source["images_without_votes"] == 5
    assert warnings() == [f"1 images in training folders have no votes and are unlabelled, first {training}/5.jpg"]
    assert examples(dataset)[5][0] == "unlabelled"


@pytest.mark.parametrize("packed", [False, True], ids=["bare folder", "bare zip"])
def test_images_without_a_table_of_votes_are_all_unlabelled_and_it_is_said_how_to_name_one(
    survey: Path, build_settings: Settings, examples: Examples, tmp_path: Path, packed: bool,
    warnings: Callable[[], list[str]],
) -> None:  # fmt: skip
    src = survey / "images_training_rev1"
    if packed:
        src = Path(shutil.make_archive(str(tmp_path / "galaxies"), "zip", src))
    dataset = build_dataset(src, tmp_path / "out", build_settings()).dataset
    assert warnings() == [f"{src}: {NO_TABLE.format(24)}"]
    assert {shard.split for shard in dataset.shards} == {"unlabelled"}
    assert (dataset.source["votes"], dataset.source["images_without_votes"]) == (0, 24)
    assert all(np.isnan(example.targets).all() for _, example in examples(dataset).values())
    assert not dataset.named and dataset.names() == {}


def test_names_that_are_no_numbers_are_in_the_records_beside_ids_that_follow_from_them(
    survey: Path, build_settings: Settings, examples: Examples, tmp_path: Path
) -> None:
    taken = ["NGC 4321.jpg", "m51,whirlpool.jpg", "sombréro/M104.jpg", "123456789012345678901234.jpg", "42.jpg"]
    for name, path in zip(taken, sorted(survey.glob("images_training_rev1/*")), strict=False):
        (tmp_path / "named" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "named" / name)
    dataset = build_dataset(tmp_path / "named", tmp_path / "out", build_settings()).dataset
    expected = {int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1: Path(name).stem for name in taken[:-1]}
    assert {galaxy_id: one.name for galaxy_id, (_, one) in examples(dataset).items()} == {42: "42", **expected}
    assert dataset.named and dataset.source["named"] and dataset.names() == {}
    assert not (dataset.folder / "names.csv").exists()
    described = json.loads((dataset.folder / "features.json").read_text())["featuresDict"]["features"]
    assert described["name"]["pythonClassName"] == "tensorflow_datasets.core.features.text_feature.Text"


def test_a_dataset_whose_names_are_numbers_has_no_names(small_dataset: Dataset, examples: Examples) -> None:
    assert not small_dataset.named and "named" not in small_dataset.source
    assert {one.name for _, one in examples(small_dataset).values()} == {None}
    assert '"name":' not in (small_dataset.folder / "features.json").read_text()


def test_many_names_that_are_no_numbers_are_refused_beside_a_table_of_numbers(
    own_survey: Path, build_settings: Settings, tmp_path: Path
) -> None:
    images = [own_survey / "images_test_rev1" / f"NGC {number}.jpg" for number in range(4)]
    for image in images:
        shutil.copy(own_survey / "images_test_rev1" / "900000.jpg", image)
    with pytest.raises(SourceError) as caught:
        build_dataset(own_survey, tmp_path / "out", build_settings())
    table = own_survey / "training_solutions_rev1.csv"
    what = (
        f"the name is not a GalaxyID, but there is a table of votes ({table}): name each image by its GalaxyID, like 100000.jpg"
    )
    assert str(caught.value) in {f"{image}: {what}" for image in images}
    assert not (tmp_path / "out").exists()


def test_a_source_in_the_articles_layout_keeps_its_splits(
    survey: Path, build_settings: Settings, examples: Examples, tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    labelled, bare = sorted(survey.glob("images_training_rev1/*")), sorted(survey.glob("images_test_rev1/*"))
    folders = {"train": labelled[:12] + bare[:1], "validation": labelled[12:17], "test": labelled[17:] + bare[1:]}
    for split, paths in folders.items():
        (tmp_path / "article" / f"{split}_images").mkdir(parents=True)
        for path in paths:
            shutil.copy(path, tmp_path / "article" / f"{split}_images" / f"data{path.name}")
    (tmp_path / "article" / "target_data").mkdir()
    shutil.copy(survey / "training_solutions_rev1.csv", tmp_path / "article" / "target_data" / "targets.csv")
    dataset = build_dataset(tmp_path / "article", tmp_path / "out", build_settings()).dataset
    expected = {int(path.stem): split for split, paths in folders.items() for path in paths}
    expected.update({int(path.stem): "unlabelled" for path in bare})
    assert {galaxy_id: split for galaxy_id, (split, _) in examples(dataset).items()} == expected
    assert dataset.source["kept_splits"] == 28 and dataset.source["images_without_votes"] == 4
    odd = tmp_path / "article" / "train_images" / "data900000.jpg"
    assert warnings() == [f"1 images in training folders have no votes and are unlabelled, first {odd}"]


def test_images_and_votes_that_do_not_belong_together_are_refused(
    own_survey: Path, build_settings: Settings, tmp_path: Path
) -> None:
    shutil.rmtree(own_survey / "images_training_rev1")
    ids = r"images: 4, such as 900000, 900011, 900022; rows: 24, such as GalaxyID 100000, "
    what = rf"no image has a row in .*/training_solutions_rev1\.csv \({ids}"
    with pytest.raises(SourceError, match=what):
        build_dataset(own_survey, tmp_path / "out", build_settings())
    assert not (tmp_path / "out").exists()


def test_odd_but_usable_votes_empty_train_and_enlarged_crops_are_warned_about_once(
    own_survey: Path, build_settings: Settings, tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    table = own_survey / "training_solutions_rev1.csv"
    header, row, *rows = table.read_text().splitlines()
    *values, last = row.split(",")
    table.write_text("\n".join([header, ",".join([*values, repr(float(last) + 0.0005)]), *rows]) + "\n")
    settings = build_settings(size=33, validation_fraction=0.5, test_fraction=0.5)
    dataset = build_dataset(own_survey, tmp_path / "out", settings).dataset
    assert warnings() == [
        f"{table}: the columns of question 11 do not add up to Class4.1 within 1e-05 for galaxy 100000",
        "split 'train' is empty: a model needs labelled galaxies in it",
        "28 crops had fewer pixels than --size 33 and were enlarged",
    ]
    assert dataset.source["enlarged"] == 28


def test_a_limit_takes_that_many_labelled_galaxies(survey: Path, build_settings: Settings, tmp_path: Path) -> None:
    dataset = build_dataset(survey, tmp_path / "out", build_settings(limit=10)).dataset
    assert sum(shard.examples for shard in dataset.shards) == 10
    assert dataset.galaxies("unlabelled") == 0 and not list((tmp_path / "out").glob("*unlabelled*"))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"crop_fraction": 0.0}, r"--crop_fraction 0\.0: must be above 0 and at most 1"),
        ({"crop_fraction": 1.5}, r"--crop_fraction 1\.5: must be"),
        ({"validation_fraction": 0.6, "test_fraction": 0.5}, r"--validation_fraction 0\.6 and --test_fraction 0\.5: together"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(build_settings: Settings, changes: dict, line: str) -> None:
    with pytest.raises(SettingError, match=line):
        build_settings(**changes)


@pytest.mark.slow
def test_the_stored_shape_is_stated_where_all_images_share_it_and_open_where_they_do_not(
    make_survey: Callable[..., Path], build_settings: Settings, examples: Examples, tmp_path: Path
) -> None:
    # The crop of 48 pixels begins at 24: with a colour sample around it, whole blocks reach from 16 to 80.
    src = make_survey(tmp_path / "kaggle", labelled=12, unlabelled=1, side=96)
    uniform = build_dataset(src, tmp_path / "uniform", build_settings(size=48, encoding="jpeg")).dataset
    assert _stored_shape(uniform) == ["64", "64", "3"]
    assert {example.crop_offset for _, example in examples(uniform).values()} == {(8, 8)}
    galaxy = src / "images_training_rev1" / "100007.jpg"
    Image.open(galaxy).save(galaxy.with_suffix(".png"))
    galaxy.unlink()
    mixed = build_dataset(src, tmp_path / "mixed", build_settings(size=48, encoding="jpeg")).dataset
    assert _stored_shape(mixed) == ["-1", "-1", "3"]
    assert {example.crop_offset for _, example in examples(mixed).values()} == {(8, 8), (0, 0)}
    assert _stored_shape(build_dataset(src, tmp_path / "png", build_settings(size=48)).dataset) == ["48", "48", "3"]


def test_the_manifest_says_how_the_dataset_was_made(small_dataset: Dataset, build_settings: Settings) -> None:
    manifest = json.loads((small_dataset.folder / "manifest.json").read_text())
    assert manifest["settings"] == {**build_settings(seed=1).flat(), "tree": "kaggle", "votes": "cumulative"}
    assert manifest["tool"].keys() == {"galaxy-zoo-vgg16", "pillow", "jpeg", "turbojpeg", "zlib"}
    assert all(manifest["tool"].values())
    source = manifest["source"]
    assert (source["images"], source["votes"], source["votes_without_image"], source["images_without_votes"]) == (64, 60, 0, 4)
    assert str(small_dataset.folder.parents[3]) not in json.dumps(manifest)


def test_another_source_of_the_same_names_and_sizes_is_refused(survey: Path, build_settings: Settings, tmp_path: Path) -> None:
    other = Path(shutil.copytree(survey, tmp_path / "other"))
    image = other / "images_training_rev1" / "100007.jpg"
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    build_dataset(survey, tmp_path / "out", build_settings())  # newer than every file of the other source
    with pytest.raises(ConfigError, match="an image of the source has changed"):
        build_dataset(other, tmp_path / "out", build_settings())


@pytest.mark.slow
def test_a_cluster_that_cannot_be_reached_costs_no_dataset(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preprocess.engines._DASK_SECONDS", 1)
    before = contents(build_dataset(survey, tmp_path / "out", build_settings()).dataset.folder)
    with pytest.raises(ConfigError, match="no Dask scheduler"):
        build_dataset(survey, tmp_path / "out", build_settings(seed=3), overwrite=True, dask="127.0.0.1:1")
    assert contents(tmp_path / "out") == before
