"""TFDS reads the dataset folder, and open_dataset accepts only a finished dataset."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess.job import BadImages, BuildSettings, build_dataset
from tests.tfrecords.earlier import with_table_of_names
from tfrecords import dataset, framing, images, schema
from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.dataset import Dataset, open_dataset
from tfrecords.errors import DatasetError

SurveyMaker = Callable[..., Path]


@pytest.fixture
def copy(small_dataset: Dataset, tmp_path: Path) -> Path:
    """A copy of the small dataset to damage, under the path that TFDS expects."""
    folder = tmp_path / "data" / "galaxy_zoo" / "1.0.0"
    shutil.copytree(small_dataset.folder, folder)
    return folder


def _examples(opened: Dataset, split: str) -> list[schema.Example]:
    return [schema.parse(record) for path in opened.paths(split) for record in framing.read_records(path)]


def _sliced(galaxy: dict[str, np.ndarray]) -> np.ndarray:
    """The crop of 32 x 32 pixels, sliced as docs/formats.md describes for TFDS."""
    row, column = galaxy["crop_offset"]
    return galaxy["image"][row : row + 32, column : column + 32]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_tfds_reads_the_same_galaxies_in_the_same_order(
    small_survey: Path, build_settings: Callable[..., BuildSettings], tmp_path: Path, encoding: str
) -> None:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = tmp_path / "data" / "galaxy_zoo" / "1.0.0"
    opened = build_dataset(small_survey, folder, build_settings(encoding=encoding, seed=1), workers=1).dataset
    builder = tfds.builder_from_directory(folder)
    loaded, info = tfds.load("galaxy_zoo", data_dir=tmp_path / "data", with_info=True)
    assert info.full_name == builder.info.full_name == "galaxy_zoo/1.0.0"
    assert set(loaded) == set(builder.info.splits) == {"train", "validation", "test", "unlabelled"}
    # A lossless crop is stored with the blocks around it: here all 64 x 64 pixels.
    side, offset = (64, (16, 16)) if encoding == "jpeg" else (32, (0, 0))
    assert info.features["image"].shape == (side, side, 3)
    assert info.supervised_keys == ("image", "targets")
    for split in loaded:
        ours = _examples(opened, split)
        assert info.splits[split].num_examples == len(ours) == opened.galaxies(split)
        assert info.splits[split].shard_lengths == [shard.examples for shard in opened.shards if shard.split == split]
        assert info.splits[split].num_bytes == sum(path.stat().st_size for path in opened.paths(split))
        theirs = list(builder.as_dataset(split=split, shuffle_files=False).as_numpy_iterator())
        for galaxy, example in zip(theirs, ours, strict=True):
            assert galaxy["galaxy_id"] == example.galaxy_id
            assert tuple(galaxy["crop_offset"]) == example.crop_offset == offset
            np.testing.assert_array_equal(galaxy["targets"], example.targets)
            assert galaxy["image"].dtype == np.uint8
            crop = _sliced(galaxy)
            pixels = images.decode_stored(example.image, encoding, 32, offset)
            if encoding == "jpeg":
                # TFDS uses TensorFlow's default decoder, which is fast but not exact (most visible in noise).
                assert np.abs(crop.astype(int) - pixels).mean() < 3
                np.testing.assert_array_equal(galaxy["image"], tf.io.decode_jpeg(example.image).numpy())
            else:
                np.testing.assert_array_equal(crop, pixels)


def test_tfds_gives_image_and_targets_as_a_supervised_pair(small_dataset: Dataset) -> None:
    import tensorflow_datasets as tfds

    pairs = tfds.builder_from_directory(small_dataset.folder).as_dataset(split="test", as_supervised=True)
    image, targets = next(iter(pairs))
    assert (image.shape, targets.shape) == ((32, 32, 3), (37,))


@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_images_of_differing_shapes_are_declared_without_their_sides(encoding: str) -> None:
    declared = json.loads(dataset.features_json(encoding, None, builtin_tree(), False))["featuresDict"]["features"]["image"]
    shape = (declared["tensor"] if encoding == "raw" else declared["image"])["shape"]
    assert shape["dimensions"] == ["-1", "-1", "3"]


def test_tfds_reads_stored_images_of_differing_shapes(
    make_survey: SurveyMaker, build_settings: Callable[..., BuildSettings], tmp_path: Path
) -> None:
    import tensorflow_datasets as tfds

    source = make_survey(tmp_path / "kaggle", labelled=8, unlabelled=0)
    shapes = {}
    for path in source.glob("images_training_rev1/*.jpg"):
        shapes[int(path.stem)] = (64, 64, 3)
        if int(path.stem) % 2:  # every second galaxy: its crop is resized, so stored without a margin
            Image.open(path).resize((80, 70)).save(path)
            shapes[int(path.stem)] = (32, 32, 3)
    assert len(set(shapes.values())) == 2
    settings = build_settings(encoding="jpeg", validation_fraction=0.0, test_fraction=0.0)
    opened = build_dataset(source, tmp_path / "galaxy_zoo" / "1.0.0", settings, workers=1).dataset
    builder = tfds.builder_from_directory(opened.folder)
    assert builder.info.features["image"].shape == (None, None, 3)
    galaxies = {int(galaxy["galaxy_id"]): galaxy for galaxy in builder.as_dataset(split="train").as_numpy_iterator()}
    assert {galaxy_id: galaxy["image"].shape for galaxy_id, galaxy in galaxies.items()} == shapes
    for example in _examples(opened, "train"):
        pixels = images.decode_stored(example.image, "jpeg", 32, example.crop_offset)
        assert np.abs(_sliced(galaxies[example.galaxy_id]).astype(int) - pixels).mean() < 3


@pytest.mark.slow
@pytest.mark.parametrize("bad", [(0,), (5,), (1, 2), (0, 3, 5)], ids=str)
def test_tfds_reads_a_split_in_which_a_shard_is_empty(
    make_survey: SurveyMaker, build_settings: Callable[..., BuildSettings], tmp_path: Path, bad: tuple[int, ...]
) -> None:
    """One galaxy per shard, some of them unreadable: their shards exist, but hold no record."""
    import tensorflow_datasets as tfds

    source = make_survey(tmp_path / "kaggle", labelled=6, unlabelled=0)
    settings = build_settings(encoding="jpeg", validation_fraction=0.0, test_fraction=0.0, examples_per_shard=1)
    for number in bad:
        (source / f"images_training_rev1/{100_000 + 7 * number}.jpg").write_bytes(b"no image")
    opened = build_dataset(source, tmp_path / "galaxy_zoo" / "1.0.0", settings, workers=1, bad=BadImages(True, 1.0)).dataset
    assert sorted(shard.examples for shard in opened.shards) == [0] * len(bad) + [1] * (6 - len(bad))
    stored = [example.galaxy_id for example in _examples(opened, "train")]
    assert len(stored) == opened.galaxies("train") == 6 - len(bad)
    builder = tfds.builder_from_directory(opened.folder)
    assert builder.info.splits["train"].num_examples == len(stored)

    def read(split: str, shuffle: bool = False) -> list[int]:
        galaxies = builder.as_dataset(split=split, shuffle_files=shuffle).as_numpy_iterator()
        return [int(galaxy["galaxy_id"]) for galaxy in galaxies]

    assert read("train") == stored
    assert sorted(read("train", shuffle=True)) == sorted(stored)
    assert read("train[1:]") == stored[1:] and read("train[:1]") == stored[:1]
    assert read("train[:50%]") + read("train[50%:]") == stored


@pytest.mark.parametrize("name", builtin_names())
def test_features_name_every_answer_and_question_of_a_tree(name: str) -> None:
    tree = builtin_tree(name)
    declared = json.loads(dataset.features_json("png", (32, 32), tree, asked=True))["featuresDict"]["features"]
    described = declared["targets"]["description"].partition(": ")[2].split(", ")
    assert declared["targets"]["tensor"]["shape"]["dimensions"] == [str(len(tree.columns))]
    assert [name for name in tree.columns if any(text.startswith(f"{name} (") for text in described)] == [*tree.columns]
    assert declared["asked"]["tensor"]["shape"]["dimensions"] == [str(len(tree.questions))]
    assert declared["asked"]["description"].endswith(", ".join(question.key for question in tree.questions))
    assert "asked" not in dataset.features_json("png", (32, 32), tree, asked=False)
    info = json.loads(dataset.dataset_info_json((), tree))
    assert info["citation"] == tree.citation and tree.title in info["description"] and info["location"]["urls"] == [tree.url]


def test_a_dataset_whose_tree_is_missing_or_edited_is_refused_by_name(copy: Path) -> None:
    path = copy / "tree.toml"
    text = path.read_text("utf-8")
    path.write_text(text.replace("spiral", "Spiral"), "utf-8")
    with pytest.raises(DatasetError, match=r"tree\.toml: has changed since it was written: move it elsewhere"):
        open_dataset(copy)
    path.unlink()
    with pytest.raises(DatasetError, match=r"tree\.toml: is missing or damaged: .*build the dataset again"):
        open_dataset(copy)
    path.write_text(text, "utf-8")
    assert open_dataset(copy).tree == builtin_tree("kaggle")


def test_a_manifest_is_compared_with_its_own_hash_before_the_tree_is_with_the_manifest(copy: Path) -> None:
    path = copy / "manifest.json"
    digest = json.loads(path.read_text())["files"]["tree.toml"]
    path.write_text(path.read_text().replace(digest, digest[::-1]))
    with pytest.raises(DatasetError, match=r"manifest\.json: has been edited"):
        open_dataset(copy)


NAMES = {100_000: "M 51, a whirlpool", 100_007: "Möwe", 100_014: "007"}


@pytest.fixture
def named(build_settings: Callable[..., BuildSettings], make_survey: SurveyMaker, tmp_path: Path) -> Dataset:
    """Four galaxies without votes, three of them under names, where TFDS expects a dataset."""
    source = make_survey(tmp_path / "kaggle", labelled=4, unlabelled=0) / "images_training_rev1"
    for number, name in NAMES.items():
        (source / f"{number}.jpg").rename(source / f"{name}.jpg")
    folder = tmp_path / "data" / "galaxy_zoo" / "1.0.0"
    return build_dataset(source, folder, build_settings(encoding="jpeg"), workers=1).dataset


def test_records_hold_the_names_of_their_galaxies_if_not_all_are_numbers(named: Dataset, tmp_path: Path) -> None:
    records = [record for path in named.paths("unlabelled") for record in framing.read_records(path)]
    stored = [schema.parse(record, with_name=True) for record in records]
    assert {example.name for example in stored} == {*NAMES.values(), "100021"}
    assert {example.galaxy_id for example in stored} >= {100_021} and not {*NAMES} & {example.galaxy_id for example in stored}
    assert named.named and named.names() == {} and not (named.folder / dataset.NAMES).exists()
    for example in stored:
        original = np.asarray(Image.open(tmp_path / "kaggle" / "images_training_rev1" / f"{example.name}.jpg"))[16:48, 16:48]
        np.testing.assert_array_equal(images.decode_stored(example.image, "jpeg", 32, example.crop_offset), original)


def test_tfds_reads_the_names(named: Dataset) -> None:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(named.folder)
    galaxies = [*builder.as_dataset(split="unlabelled").as_numpy_iterator()]
    assert {galaxy["name"].decode("utf-8") for galaxy in galaxies} == {*NAMES.values(), "100021"}
    assert {int(galaxy["galaxy_id"]) for galaxy in galaxies if galaxy["name"] == b"100021"} == {100_021}


@pytest.mark.parametrize(
    ("identity", "paths", "shown"),
    [
        ("GalaxyID", ("a/M 51.jpg", "b/007.png"), ("a/M 51.jpg", "b/007.png")),
        ("file", ("a/M 51.jpg", "b/007.png"), ("a/M 51.jpg", "b/007.png")),
        ("iauname", ("J1/J112953.88-000427.4.jpg", "b/=1+1.png"), ("J112953.88-000427.4", "=1+1")),
        ("iauname", ("spiral/3a.jpg", "disk/3a.jpg"), ("spiral/3a.jpg", "disk/3a.jpg")),
    ],
)
def test_a_dataset_with_a_table_of_names_shows_them_as_before(
    named: Dataset, tmp_path: Path, identity: str, paths: tuple[str, str], shown: tuple[str, str]
) -> None:
    from tfrecords import reader

    first, second, *_ = sorted(reader.votes_of(named, "unlabelled").galaxy_ids.tolist(), reverse=True)
    earlier = with_table_of_names(named, tmp_path / "earlier", dict(zip((first, second), paths, strict=True)))
    earlier = replace(earlier, tree=replace(earlier.tree, id=identity))
    assert not earlier.named and earlier.names() == {first: shown[0], second: shown[1]}
    votes = reader.votes_of(earlier, "unlabelled")
    assert votes.names is not None
    numbers = {number: str(number) for number in votes.galaxy_ids.tolist()}  # those without a name are numbers
    assert dict(zip(votes.galaxy_ids.tolist(), votes.names, strict=True)) == {**numbers, first: shown[0], second: shown[1]}


def test_tfds_reads_a_dataset_with_a_table_of_names(named: Dataset, tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    earlier = with_table_of_names(named, tmp_path / "earlier", {7: "M 51.jpg"})
    [*galaxies] = tfds.builder_from_directory(earlier.folder).as_dataset(split="unlabelled").as_numpy_iterator()
    assert len(galaxies) == 4 and "name" not in galaxies[0]


def test_a_finished_dataset_opens_with_what_it_was_made_of(small_dataset: Dataset) -> None:
    opened = open_dataset(small_dataset.folder)
    assert opened == small_dataset
    assert (opened.size, opened.encoding) == (32, "png")
    assert sum(opened.galaxies(split) for split in dataset.SPLITS) == 64
    assert opened.galaxies("unlabelled") == 4
    assert [path.name for path in opened.paths("unlabelled")] == ["galaxy_zoo-unlabelled.tfrecord-00000-of-00001"]


def test_an_absent_split_is_refused_with_those_there_are(small_dataset: Dataset) -> None:
    assert small_dataset.galaxies("all") == 0
    with pytest.raises(DatasetError, match="no galaxies in split 'all': choose from train, validation, test, unlabelled"):
        small_dataset.paths("all")


def test_a_missing_folder_is_refused_with_the_way_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nothing: no such folder: make one with `preprocess --src"):
        open_dataset(tmp_path / "nothing")


@pytest.mark.parametrize("up", [1, 2])
def test_a_folder_above_a_dataset_is_refused_with_the_one_that_was_meant(copy: Path, up: int) -> None:
    with pytest.raises(DatasetError) as caught:
        open_dataset(copy.parents[up - 1])
    assert f"did you mean {copy}?" in str(caught.value)


@pytest.mark.parametrize("name", ["manifest.json", "dataset_info.json"])
def test_an_unfinished_dataset_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(DatasetError, match=rf"not a finished dataset \({name} is missing\)"):
        open_dataset(copy)


@pytest.mark.parametrize(("old", "new"), [('"size": 32', '"size": 33'), ('"seed": 1', '"seed": 2'), ("sha256", "sha257")])
def test_an_edited_manifest_is_refused(copy: Path, old: str, new: str) -> None:
    path = copy / "manifest.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DatasetError, match=r"manifest\.json: (has been edited|not a complete).*build the dataset again"):
        open_dataset(copy)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "7", "{}", '{"sha256": 1, "shards": [{}]}', '{"sha256": "", "shards": 3}']
)
def test_a_damaged_manifest_is_refused(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_text(content)
    with pytest.raises(DatasetError, match=r"manifest\.json: not a complete manifest of preprocess"):
        open_dataset(copy)


def test_a_manifest_that_is_no_text_is_refused(copy: Path) -> None:
    (copy / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"manifest\.json: not a complete manifest of preprocess"):
        open_dataset(copy)


def test_a_missing_shard_is_refused_by_name(copy: Path) -> None:
    shard = sorted(copy.glob("*train*"))[1]
    shard.unlink()
    with pytest.raises(DatasetError, match=f"{shard.name}: this shard is missing"):
        open_dataset(copy)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_shard_of_another_length_is_refused_by_name(copy: Path, change: int) -> None:
    shard = sorted(copy.glob("*train*"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] if change < 0 else content + b"\0")
    with pytest.raises(DatasetError, match=rf"{shard.name}: has {len(content) + change} bytes instead of {len(content)}:"):
        open_dataset(copy)


def test_the_manifest_holds_the_hash_of_every_other_file(small_dataset: Dataset) -> None:
    from tfrecords.files import sha256_file

    manifest = json.loads((small_dataset.folder / "manifest.json").read_text())
    hashes = {**manifest["files"], **{shard["name"]: shard["sha256"] for shard in manifest["shards"]}}
    there = {path.name: sha256_file(path) for path in small_dataset.folder.iterdir() if path.name != "manifest.json"}
    assert hashes == there
    for shard in small_dataset.shards:
        path = small_dataset.folder / shard.name
        assert (path.stat().st_size, len(list(framing.read_records(path)))) == (shard.bytes, shard.examples)


def test_json_depends_on_the_value_alone() -> None:
    expected = '{\n  "a": [\n    "ö"\n  ],\n  "b": 1\n}\n'
    assert dataset.to_json({"b": 1, "a": ["ö"]}) == dataset.to_json({"a": ["ö"], "b": 1}) == expected


@pytest.mark.parametrize("galaxy_id", ["9" * 5_000, str(2**63), "-1", ""])
def test_a_rejected_galaxy_whose_id_is_no_number_below_2_to_the_63_is_refused(copy: Path, galaxy_id: str) -> None:
    (copy / dataset.REJECTED).write_text(f"galaxy_id,source path,reason\n7,a.jpg,b\n{galaxy_id},a.jpg,b\n", "utf-8")
    opened = dataset.read_manifest(copy)
    for read in (opened.rejected, opened.reasons):
        with pytest.raises(DatasetError) as caught:
            read()
        assert str(caught.value) == (
            f"{copy}/rejected.csv: not a table of galaxy_id, source path, reason: build the dataset again with --overwrite"
        )


def test_the_largest_id_of_a_rejected_galaxy_is_read(copy: Path) -> None:
    (copy / dataset.REJECTED).write_text(f"galaxy_id,source path,reason\n{2**63 - 1},a.jpg,b\n", "utf-8")
    assert dataset.read_manifest(copy).rejected() == {2**63 - 1: "a.jpg"}
