"""A shard holds exactly the galaxies of its task, in order, or is not written; its receipt states what went into it."""

import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess import sources
from preprocess.shard import Receipt, Rejected, ShardTask, write_shard
from preprocess.sources.listing import Listing
from tfrecords import framing, images, schema
from tfrecords.builtin import builtin_tree
from tfrecords.errors import RecordError, SourceError
from tfrecords.files import sha256_file
from tfrecords.images import CropSettings

IDS = (100021, 900011, 100000)
PATHS = ("images_training_rev1/100021.jpg", "images_test_rev1/900011.jpg", "images_training_rev1/100000.jpg")
TARGETS = np.stack([np.full(37, 0.25, np.float32), np.full(37, np.nan, np.float32), np.arange(37, dtype=np.float32) / 37])
SurveyMaker = Callable[..., Path]
Make = Callable[..., ShardTask]


def _listing(source: Path, scratch: Path, galaxy_ids: tuple[int, ...] = IDS) -> Listing:
    """These galaxies of a folder or zip, in this order, as a worker receives them."""
    scratch.mkdir(exist_ok=True)
    found = sources.find_source(source, scratch).images
    rows = np.searchsorted(found.galaxy_id, galaxy_ids)
    assert found.galaxy_id[rows].tolist() == list(galaxy_ids)
    return found.part(rows)


@pytest.fixture
def make_task(survey: Path, tmp_path: Path) -> Make:
    """A function that returns a task of three galaxies: make_task(source=survey, size=32, encoding="png", skip_bad=True)."""

    def make(source: Path = survey, size: int = 32, encoding: str = "png", skip_bad: bool = True) -> ShardTask:
        folder, work = tmp_path / "out", tmp_path / "work"
        folder.mkdir(exist_ok=True)
        work.mkdir(exist_ok=True)
        listed = _listing(source, tmp_path / "scratch")
        crop = CropSettings(0.5, size, encoding, 95)
        return ShardTask("shard", "train", listed, TARGETS, None, builtin_tree(), folder, work, crop, skip_bad)

    return make


@pytest.fixture
def own_survey(make_survey: SurveyMaker, tmp_path: Path) -> Path:
    """A survey to damage: its galaxies are those of `survey`."""
    return make_survey(tmp_path / "own")


def _write(task: ShardTask) -> Receipt:
    return write_shard(task, lambda: None)


def _examples(task: ShardTask) -> list[schema.Example]:
    return [schema.parse(record) for record in framing.read_records(task.folder / "shard")]


def _assert_nothing_left(task: ShardTask) -> None:
    assert list(task.folder.iterdir()) == list(task.work.iterdir()) == []


@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_a_shard_holds_the_galaxies_of_its_task_in_order(make_task: Make, survey: Path, encoding: str) -> None:
    task = make_task(encoding=encoding)
    calls: list[None] = []
    receipt = write_shard(task, lambda: calls.append(None))
    examples = _examples(task)
    assert tuple(example.galaxy_id for example in examples) == IDS
    for example, path, targets in zip(examples, PATHS, TARGETS, strict=True):
        stored = images.store((survey / path).read_bytes(), task.crop)
        assert (example.image, example.crop_offset) == (stored.data, stored.offset)
        np.testing.assert_array_equal(example.targets, targets)
    assert len(calls) == 3
    assert list(task.work.iterdir()) == []
    shard = receipt.shard
    assert (shard.name, shard.split, shard.examples) == ("shard", "train", 3)
    assert shard.bytes == (task.folder / "shard").stat().st_size
    assert shard.sha256 == sha256_file(task.folder / "shard")


def test_a_shard_of_counts_holds_the_numbers_of_answers_of_each_galaxy(make_task: Make) -> None:
    asked = np.array([[11] * 11, [0] * 11, range(11)], np.float32)
    task = replace(make_task(), asked=asked)
    _write(task)
    records = [schema.parse(record, with_asked=True) for record in framing.read_records(task.folder / "shard")]
    for example, expected, targets in zip(records, asked, TARGETS, strict=True):
        np.testing.assert_array_equal(example.asked, expected)
        np.testing.assert_array_equal(example.targets, targets)
    with pytest.raises(RecordError, match=r"asked\[11\]"):
        task = make_task()
        _write(task)
        schema.parse(next(framing.read_records(task.folder / "shard")), with_asked=True)


@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_every_crop_is_found_at_its_offset_with_the_pixels_of_the_source(make_task: Make, survey: Path, encoding: str) -> None:
    task = make_task(encoding=encoding)
    _write(task)
    for example, path in zip(_examples(task), PATHS, strict=True):
        original = np.asarray(Image.open(survey / path))[16:48, 16:48]
        pixels = images.decode_stored(example.image, encoding, 32, example.crop_offset)
        np.testing.assert_array_equal(pixels, original)


@pytest.mark.parametrize(("size", "enlarged"), [(31, 0), (32, 0), (33, 3)])
def test_the_receipt_counts_enlarged_crops(make_task: Make, size: int, enlarged: int) -> None:
    assert _write(make_task(size=size)).enlarged == enlarged


@pytest.mark.parametrize(
    ("encoding", "size", "shape"),
    [("jpeg", 32, (64, 64)), ("jpeg", 31, (31, 31)), ("png", 32, (32, 32)), ("raw", 33, (33, 33))],
)
def test_the_receipt_says_the_shape_that_all_stored_images_share(
    make_task: Make, encoding: str, size: int, shape: tuple[int, int]
) -> None:
    assert _write(make_task(encoding=encoding, size=size)).shape == shape


def test_the_receipt_says_no_shape_where_stored_images_differ(make_task: Make, own_survey: Path) -> None:
    path = own_survey / PATHS[1]
    Image.open(path).resize((96, 96)).save(path)
    task = make_task(own_survey, encoding="jpeg")
    receipt = _write(task)
    shapes = [Image.open(io.BytesIO(example.image)).size for example in _examples(task)]
    assert shapes == [(64, 64), (32, 32), (64, 64)]
    assert receipt.shape is None
    assert _write(replace(task, crop=replace(task.crop, encoding="png"))).shape == (32, 32)


def _damage(survey: Path, *numbers: int) -> None:
    """Replace the second image by text, and cut the others off: two ways in which a file can be bad."""
    for number in numbers:
        path = survey / PATHS[number]
        path.write_bytes(b"GalaxyID,Class1.1\n" if number == 1 else path.read_bytes()[:700])


BAD_REASON = ("not a readable image (Premature end of JPEG file)", "is a text, not an image: 'GalaxyID,Class1.1'")


@pytest.mark.parametrize("bad", [(0,), (1,), (0, 1), (0, 1, 2)], ids=str)
def test_bad_images_are_left_out_and_listed_in_order(make_task: Make, own_survey: Path, bad: tuple[int, ...]) -> None:
    good = make_task(own_survey)
    _write(good)
    kept = [example for number, example in enumerate(_examples(good)) if number not in bad]
    _damage(own_survey, *bad)
    task = make_task(own_survey, skip_bad=True)
    calls: list[None] = []
    receipt = write_shard(task, lambda: calls.append(None))
    assert len(calls) == 3
    assert receipt.rejected == tuple(Rejected(IDS[number], PATHS[number], BAD_REASON[number % 2]) for number in bad)
    examples = _examples(task)
    assert [(example.galaxy_id, example.image) for example in examples] == [
        (example.galaxy_id, example.image) for example in kept
    ]
    for example, expected in zip(examples, kept, strict=True):
        np.testing.assert_array_equal(example.targets, expected.targets)
    assert receipt.shard.examples == len(kept)
    assert receipt.shard.bytes == (task.folder / "shard").stat().st_size
    assert receipt.shard.sha256 == sha256_file(task.folder / "shard")
    assert receipt.shape == ((32, 32) if kept else None)


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_bad_image_that_must_not_be_skipped_is_named_with_both_ways_out(
    make_task: Make, own_survey: Path, number: int, encoding: str
) -> None:
    _damage(own_survey, number)
    task = make_task(own_survey, encoding=encoding, skip_bad=False)
    with pytest.raises(SourceError) as caught:
        _write(task)
    message = str(caught.value)
    assert message.startswith(f"{own_survey}/{PATHS[number]}: {BAD_REASON[number % 2]}: ")
    assert "replace or remove this image, then run again with --overwrite" in message
    assert "--on_bad_image skip" in message
    assert "\n" not in message
    _assert_nothing_left(task)


@pytest.mark.parametrize("bad", [(), (1,), (0, 1, 2)], ids=str)
def test_the_receipt_holds_the_crc_of_every_source_file_bad_ones_too(
    make_task: Make, own_survey: Path, bad: tuple[int, ...]
) -> None:
    _damage(own_survey, *bad)
    crcs = _write(make_task(own_survey)).crcs()
    assert crcs.dtype == np.uint32
    assert crcs.tolist() == [zlib.crc32((own_survey / path).read_bytes()) for path in PATHS]


def _zipped(source: Path, target: Path, method: int) -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for path in sorted(source.rglob("*.jpg")):
            archive.write(path, path.relative_to(source))
    return target


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("bad", [(), (1,)], ids=["all good", "one bad"])
def test_a_shard_from_a_zip_has_the_bytes_of_one_from_its_folder(
    make_task: Make, own_survey: Path, tmp_path: Path, bad: tuple[int, ...], method: int, encoding: str
) -> None:
    _damage(own_survey, *bad)
    task = make_task(own_survey, encoding=encoding)
    from_folder = _write(task)
    content = (task.folder / "shard").read_bytes()
    (task.folder / "shard").unlink()
    from_zip = _write(make_task(_zipped(own_survey, tmp_path / "kaggle.zip", method), encoding=encoding))
    assert (task.folder / "shard").read_bytes() == content
    # also the paths of rejected images and the sources' CRCs; files in a zip have no change time
    assert replace(from_zip, changed=from_folder.changed, targets=None) == replace(from_folder, targets=None)
    assert repr(from_zip.targets) == repr(from_folder.targets)  # one galaxy has no votes: its nan equals no other
    assert not from_zip.times().any() and from_folder.times().all()


def test_an_image_that_is_damaged_in_its_zip_is_a_bad_image(make_task: Make, survey: Path, tmp_path: Path) -> None:
    packed = _zipped(survey, tmp_path / "kaggle.zip", zipfile.ZIP_STORED)
    content = bytearray(packed.read_bytes())
    content[content.index((survey / PATHS[1]).read_bytes()) + 900] ^= 1
    packed.write_bytes(content)
    receipt = _write(make_task(packed))
    assert receipt.rejected == (Rejected(IDS[1], PATHS[1], "is damaged in its zip"),)
    assert receipt.crcs().tolist() == [zlib.crc32((survey / path).read_bytes()) for path in PATHS]  # as the zip lists it
    assert receipt.shard.examples == 2
    task = make_task(packed, skip_bad=False)
    (task.folder / "shard").unlink()
    with pytest.raises(SourceError) as caught:
        _write(task)
    assert str(caught.value).startswith(f"{packed}/{PATHS[1]}: is damaged in its zip: ")
    _assert_nothing_left(task)


@pytest.mark.parametrize("skip_bad", [True, False])
def test_an_image_that_vanished_is_named_and_no_file_is_left(make_task: Make, own_survey: Path, skip_bad: bool) -> None:
    task = make_task(own_survey, skip_bad=skip_bad)
    gone = own_survey / PATHS[1]
    gone.unlink()
    with pytest.raises(SourceError) as caught:
        _write(task)
    assert str(caught.value) == f"{gone}: has disappeared since the source was listed: run the same command again"
    _assert_nothing_left(task)


@pytest.mark.parametrize("skip_bad", [True, False])
@pytest.mark.parametrize("change", [-1, 1])
def test_an_image_of_another_length_than_was_listed_is_named_and_no_file_is_left(
    make_task: Make, own_survey: Path, change: int, skip_bad: bool
) -> None:
    task = make_task(own_survey, skip_bad=skip_bad)
    path = own_survey / PATHS[1]
    content = path.read_bytes()
    path.write_bytes(content[:-1] if change < 0 else content + b"\0")
    with pytest.raises(SourceError, match="has changed since the source was listed: run the same command again") as caught:
        _write(task)
    assert str(caught.value).startswith(f"{path}: ")
    _assert_nothing_left(task)


def test_a_job_that_is_stopped_between_two_images_leaves_no_file(make_task: Make) -> None:
    task = make_task()

    def stop() -> None:
        (unfinished,) = task.work.iterdir()
        assert unfinished.name.startswith(".shard.") and unfinished.name.endswith(".partial")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(task, stop)
    _assert_nothing_left(task)


def test_images_and_targets_must_be_as_many(make_task: Make) -> None:
    task = make_task()
    for targets in (TARGETS[:2], np.concatenate([TARGETS, TARGETS])):
        with pytest.raises((ValueError, IndexError)):
            _write(replace(task, targets=targets))
        _assert_nothing_left(task)
