"""A dataset follows from its source and settings alone, and what lies in --out is never lost unasked."""

import csv
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess.job import BuildSettings, build
from tfrecords import framing, images, schema
from tfrecords.dataset import Dataset, open_dataset
from tfrecords.errors import ConfigError, DatasetError, SettingError, SourceError

Settings = Callable[..., BuildSettings]
Contents = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def own_survey(survey: Path, tmp_path: Path) -> Path:
    """A copy of the survey to change."""
    return Path(shutil.copytree(survey, tmp_path / "kaggle"))


def _examples(dataset: Dataset) -> dict[int, tuple[str, schema.Example]]:
    found = {}
    for shard in dataset.shards:
        for record in framing.read_records(dataset.folder / shard.name):
            example = schema.parse(record)
            found[example.galaxy_id] = (shard.split, example)
    return found


def test_png_crops_and_targets_of_all_real_galaxies_equal_their_source_bit_for_bit(
    kaggle: Path, build_settings: Settings, tmp_path: Path
) -> None:
    settings = build_settings(size=212, examples_per_shard=512)
    dataset = build(kaggle, tmp_path / "out", settings, workers=2).dataset
    with (kaggle / "training_solutions_rev1.csv").open() as file:
        votes = {int(row[0]): np.array([np.float32(text) for text in row[1:]]) for row in list(csv.reader(file))[1:]}
    sources = {int(path.stem): path for path in kaggle.glob("*/*.jpg")}
    assert len(sources) == 4261 and len(votes) == 3064
    examples = _examples(dataset)
    assert examples.keys() == sources.keys()
    assert sum(shard.examples for shard in dataset.shards) == len(sources)
    for galaxy_id, (split, example) in examples.items():
        with Image.open(sources[galaxy_id]) as image:
            expected = np.asarray(image)[106:318, 106:318]
        pixels = images.decode_stored(example.image, "png", 212, example.crop_offset)
        assert np.array_equal(pixels, expected), galaxy_id
        if galaxy_id in votes:
            assert split != "unlabelled" and np.array_equal(example.targets, votes[galaxy_id]), galaxy_id
        else:
            assert split == "unlabelled" and np.isnan(example.targets).all(), galaxy_id


@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_the_bytes_do_not_depend_on_workers_or_place(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path, encoding: str
) -> None:
    settings = build_settings(encoding=encoding, examples_per_shard=3)
    moved = shutil.copytree(survey, tmp_path / "moved")
    first = contents(build(survey, tmp_path / "1", settings, workers=1).dataset.folder)
    assert len(first) > 9
    for src, workers in ((survey, 2), (moved, 3)):
        assert contents(build(src, tmp_path / str(workers), settings, workers=workers).dataset.folder) == first


def test_the_order_is_the_plans_and_the_work_folder_is_gone(small_dataset: Dataset) -> None:
    assert not (small_dataset.folder / ".preprocess").exists()
    counts = Counter(split for split, _ in _examples(small_dataset).values())
    assert counts == {split: small_dataset.galaxies(split) for split in ("train", "validation", "test", "unlabelled")}
    assert (small_dataset.folder / "rejected.csv").read_text() == "galaxy_id,source path,reason\n"
    source = small_dataset.source
    assert (source["images"], source["votes"], source["votes_without_image"], source["images_without_votes"]) == (64, 60, 0, 4)


def test_a_finished_job_says_so_and_rewrites_nothing(survey: Path, build_settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not build(survey, out, build_settings()).already_complete
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.iterdir()}
    again = build(survey, out, build_settings(), workers=2)
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
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path, changes: dict, difference: str
) -> None:
    out = tmp_path / "out"
    build(survey, out, build_settings())
    before = contents(out)
    with pytest.raises(ConfigError) as caught:
        build(survey, out, build_settings(**changes))
    advice = "choose another --out, or replace it with --overwrite"
    assert str(caught.value) == f"{out}: holds a dataset made differently ({difference}): {advice}"
    assert contents(out) == before


def test_overwrite_replaces_the_dataset_as_if_it_had_never_been(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path
) -> None:
    fresh = build(survey, tmp_path / "fresh", build_settings(size=16)).dataset
    build(survey, tmp_path / "out", build_settings(examples_per_shard=1))
    replaced = build(survey, tmp_path / "out", build_settings(size=16), overwrite=True).dataset
    assert contents(replaced.folder) == contents(fresh.folder)


@pytest.mark.parametrize("change", ["image added", "image removed", "image changed", "votes changed"])
def test_a_changed_source_is_refused_until_overwritten(
    own_survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path, change: str
) -> None:
    build(own_survey, tmp_path / "out", build_settings())
    galaxy, votes = own_survey / "images_training_rev1" / "100007.jpg", own_survey / "training_solutions_rev1.csv"
    if change == "image added":
        shutil.copy(galaxy, galaxy.with_name("5.jpg"))
    elif change == "image removed":
        galaxy.unlink()
    elif change == "image changed":
        Image.new("RGB", (64, 64)).save(galaxy)
    else:
        votes.write_text(votes.read_text().replace("100007,", "100008,"))
    before = contents(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"holds a dataset made differently \(the source has changed\)"):
        build(own_survey, tmp_path / "out", build_settings())
    assert contents(tmp_path / "out") == before
    replaced = build(own_survey, tmp_path / "out", build_settings(), overwrite=True).dataset
    assert contents(replaced.folder) == contents(build(own_survey, tmp_path / "fresh", build_settings()).dataset.folder)


@pytest.mark.parametrize("name", ["thesis.tex", "images/1.jpg", ".hidden"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_files_is_refused_and_untouched(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path, name: str, overwrite: bool
) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("irreplaceable")
    with pytest.raises(ConfigError) as caught:
        build(survey, out, build_settings(), overwrite=overwrite)
    first = name.split("/")[0]
    assert str(caught.value) == f"{out}: holds other files ({first}): choose an --out that is empty or new"
    assert contents(out) == {name: b"irreplaceable"}


def test_a_file_as_out_is_refused_and_untouched(survey: Path, build_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("irreplaceable")
    with pytest.raises(ConfigError, match="out: is a file: choose another --out"):
        build(survey, tmp_path / "out", build_settings(), overwrite=True)
    assert (tmp_path / "out").read_text() == "irreplaceable"


def test_shards_of_unknown_origin_are_refused_and_untouched(
    small_dataset: Dataset, survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(small_dataset.folder, tmp_path / "out"))
    (out / "manifest.json").unlink()
    before = contents(out)
    with pytest.raises(ConfigError, match=r"holds shards without a manifest: .*--overwrite"):
        build(survey, out, build_settings())
    assert contents(out) == before


def test_a_damaged_dataset_is_not_taken_for_complete(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shard = out / build(survey, out, build_settings()).dataset.shards[0].name
    before = contents(out)
    shard.unlink()
    with pytest.raises(DatasetError, match=f"{shard.name}: this shard is missing"):
        build(survey, out, build_settings())
    build(survey, out, build_settings(), overwrite=True)
    assert contents(out) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unreadable_image_is_named_and_leaves_no_dataset(
    own_survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path, workers: int
) -> None:
    galaxy = own_survey / "images_training_rev1" / "100007.jpg"
    whole = galaxy.read_bytes()
    galaxy.write_bytes(whole[:900])
    out = tmp_path / "out"
    with pytest.raises(SourceError) as caught:
        build(own_survey, out, build_settings(examples_per_shard=4), workers=workers)
    assert str(caught.value).startswith(f"{galaxy}: not a readable JPEG or PNG (")
    assert str(caught.value).endswith(": replace or remove this image, then run again with --overwrite")
    assert not {"manifest.json", "dataset_info.json", "features.json"} & set(contents(out))
    assert not list(out.rglob("*.partial"))
    with pytest.raises(DatasetError, match="not a finished dataset"):
        open_dataset(out)
    galaxy.write_bytes(whole)
    with pytest.raises(
        ConfigError, match=r"an unfinished job with other settings or source \(the source has changed\).*--overwrite"
    ):
        build(own_survey, out, build_settings(examples_per_shard=4))
    build(own_survey, out, build_settings(examples_per_shard=4), overwrite=True)
    assert contents(out) == contents(build(own_survey, tmp_path / "2", build_settings(examples_per_shard=4)).dataset.folder)


def test_votes_without_image_and_images_without_votes_are_counted(
    own_survey: Path, build_settings: Settings, tmp_path: Path
) -> None:
    (own_survey / "images_training_rev1" / "100007.jpg").unlink()
    shutil.copy(own_survey / "images_training_rev1" / "100000.jpg", own_survey / "images_training_rev1" / "5.jpg")
    dataset = build(own_survey, tmp_path / "out", build_settings()).dataset
    assert (dataset.source["votes_without_image"], dataset.source["images_without_votes"]) == (1, 5)
    assert _examples(dataset)[5][0] == "unlabelled"


def test_images_and_votes_that_do_not_belong_together_are_refused(
    own_survey: Path, build_settings: Settings, tmp_path: Path
) -> None:
    shutil.rmtree(own_survey / "images_training_rev1")
    with pytest.raises(SourceError, match="no image has a row in the table of votes"):
        build(own_survey, tmp_path / "out", build_settings())
    assert not (tmp_path / "out").exists()


def test_odd_but_usable_votes_empty_train_and_enlarged_crops_are_warned_about_once(
    own_survey: Path, build_settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = own_survey / "training_solutions_rev1.csv"
    header, row, *rows = table.read_text().splitlines()
    *values, last = row.split(",")
    table.write_text("\n".join([header, ",".join([*values, repr(float(last) + 0.0005)]), *rows]) + "\n")
    with caplog.at_level(logging.WARNING):
        build(own_survey, tmp_path / "out", build_settings(size=33, validation_fraction=0.5, test_fraction=0.5))
    assert [record.getMessage() for record in caplog.records] == [
        f"{table}: the columns of question 11 do not add up to Class4.1 within 1e-05 for galaxy 100000",
        "split 'train' is empty: a model needs labelled galaxies in it",
        "28 crops had fewer pixels than --size 33 and were enlarged",
    ]


def test_a_limit_takes_that_many_labelled_galaxies(survey: Path, build_settings: Settings, tmp_path: Path) -> None:
    dataset = build(survey, tmp_path / "out", build_settings(limit=10)).dataset
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


def test_the_manifest_says_how_the_dataset_was_made(small_dataset: Dataset, build_settings: Settings) -> None:
    manifest = json.loads((small_dataset.folder / "manifest.json").read_text())
    assert manifest["settings"] == build_settings(seed=1).flat()
    assert manifest["tool"]["pillow"] and manifest["tool"]["galaxy-zoo-vgg16"]
    assert str(small_dataset.folder.parents[3]) not in json.dumps(manifest)
