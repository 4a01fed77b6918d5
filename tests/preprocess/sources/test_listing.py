"""A listing, and any part of it, names and reads every image for some 50 bytes of memory, in folders and in zips."""

import os
import pickle
import random
import resource
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess import sources
from preprocess.sources.archives import DEFLATED, STORED
from preprocess.sources.listing import PLAIN, ImageReader, Listing, ListingBuilder, Place
from tests.preprocess.sources.packing import Files, packed
from tfrecords.decoding import MAX_BYTES
from tfrecords.errors import ImageError, SourceError

_RANDOM = random.Random(0)
# In the order of their ids: the last one's is a hash.
FILES: Files = {
    "images_training_rev1/100008.jpg": _RANDOM.randbytes(700),
    "images_test_rev1/100018.jpg": bytes(900),
    "images_training_rev1/100023.JPEG": b"",
    "100053.png": b"a galaxy",
    "spirals/barred/NGC 1300.jpg": _RANDOM.randbytes(300),
}
# The forms of a source, and what messages put before the path of an image.
KINDS = {"folder": "", "zip": ".zip", "stored": ".zip/images.zip", "deflated": ".zip/images.zip"}


def _keep(path: Path, files: Files, kind: str = "folder") -> Path:
    """Write the files to a folder, a zip, or a zip that is stored or deflated in a zip; return the folder or zip."""
    if kind == "folder":
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return path
    content = packed(files)
    if kind != "zip":
        content = packed({"images.zip": content}, STORED if kind == "stored" else DEFLATED)
    path = path.with_suffix(".zip")
    path.write_bytes(content)
    return path


def _find(source: Path) -> Listing:
    scratch = source.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return sources.find_source(source, scratch).images


def _read(images: Listing) -> list[bytes]:
    with ImageReader() as reader:
        return [reader.read(images, row)[0] for row in range(len(images))]


def _paths(images: Listing) -> list[str]:
    return [images.path(row) for row in range(len(images))]


@pytest.mark.parametrize("kind", KINDS)
def test_every_image_is_read_with_its_path_size_and_crc(tmp_path: Path, kind: str) -> None:
    images = _find(_keep(tmp_path / "kaggle", FILES, kind))
    assert _paths(images) == [*FILES]
    assert images.size.tolist() == [len(content) for content in FILES.values()]
    with ImageReader() as reader:
        read = [reader.read(images, row) for row in range(len(images))]
    assert [(content.data, content.crc) for content in read] == [(content, zlib.crc32(content)) for content in FILES.values()]
    changed = [(tmp_path / "kaggle" / path).stat().st_ctime_ns if kind == "folder" else 0 for path in FILES]
    assert [content.changed for content in read] == changed


@pytest.mark.parametrize("kind", KINDS)
def test_the_crcs_that_are_known_unread_are_those_in_zips(tmp_path: Path, kind: str) -> None:
    images = _find(_keep(tmp_path / "kaggle", FILES, kind))
    assert images.known_crcs().dtype == np.uint32
    assert images.known_crcs().tolist() == [0 if kind == "folder" else zlib.crc32(content) for content in FILES.values()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_shows_the_folder_or_the_zips_that_an_image_lies_in(tmp_path: Path, kind: str) -> None:
    images = _find(_keep(tmp_path / "kaggle", FILES, kind))
    assert [images.shown(row) for row in range(len(images))] == [f"{tmp_path}/kaggle{KINDS[kind]}/{name}" for name in FILES]


def test_an_image_in_no_zip_has_a_file(tmp_path: Path) -> None:
    images = _find(_keep(tmp_path / "kaggle", FILES))
    assert set(images.method) == {PLAIN}
    assert [os.fsdecode(images.file(row)) for row in range(len(images))] == [f"{tmp_path}/kaggle/{name}" for name in FILES]


@pytest.fixture(scope="module")
def listings(tmp_path_factory: pytest.TempPathFactory) -> list[Listing]:
    """The same images in every form."""
    return [_find(_keep(tmp_path_factory.mktemp(kind) / "kaggle", FILES, kind)) for kind in KINDS]


ROWS = st.lists(st.integers(0, len(FILES) - 1), max_size=9).map(lambda rows: np.array(rows, np.int64))


@given(st.integers(0, len(KINDS) - 1), ROWS)
def test_rows_and_a_part_are_the_same_images_in_the_given_order(listings: list[Listing], kind: int, rows: np.ndarray) -> None:
    images = listings[kind]
    chosen = [[*FILES.items()][row] for row in rows]
    for some in (images.rows(rows), images.part(rows), images.rows(rows).part(np.arange(len(rows)))):
        assert [*zip(_paths(some), _read(some), strict=True)] == chosen
        assert some.galaxy_id.tolist() == images.galaxy_id[rows].tolist()
        assert [some.shown(row) for row in range(len(some))] == [images.shown(row) for row in rows]


@given(ROWS)
def test_a_part_has_no_names_but_its_own_and_rows_share_them_all(listings: list[Listing], rows: np.ndarray) -> None:
    names = [[*FILES][row].rpartition("/")[2] for row in rows]
    assert listings[0].part(rows).names == "".join(names).encode()
    assert listings[0].rows(rows).names is listings[0].names


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_a_part_that_was_sent_to_another_process_reads_the_same_bytes(listings: list[Listing], kind: int) -> None:
    part = pickle.loads(pickle.dumps(listings[kind].part(np.array([3, 0]))))
    assert _read(part) == [FILES["100053.png"], FILES["images_training_rev1/100008.jpg"]]


def test_a_part_of_a_large_listing_is_sent_in_few_bytes() -> None:
    images = _large(20_000)
    assert len(pickle.dumps(images.part(np.arange(5_000, 5_100)))) < 100 * 100


def _large(count: int) -> Listing:
    builder = ListingBuilder()
    for galaxy_id in range(100_000, 100_000 + count):
        if galaxy_id % 50_000 == 0:
            builder.enter(Place(Path("kaggle.zip"), "kaggle.zip", b"images_%d/" % galaxy_id, "", training=False))
        builder.add(galaxy_id, b"%d.jpg" % galaxy_id, 15_000 * galaxy_id, 15_000, 15_100, 2**32 - 1, DEFLATED, False)
    return builder.listing()


def test_an_image_takes_less_than_70_bytes_of_memory() -> None:
    images = _large(60_000)
    assert (len(images), len(images.places)) == (60_000, 2)
    assert images.nbytes() / len(images) < 70
    assert images.path(59_999) == "images_150000/159999.jpg"


# Names


@pytest.mark.parametrize("name", [b"\xff7.jpg", b"galaxi\xeb/7.jpg", "größe/ñ.jpg".encode(), "星系/7.png".encode()])
def test_names_of_any_bytes_are_read_from_a_folder_and_shown_with_backslashes(tmp_path: Path, name: bytes) -> None:
    try:
        source = _keep(tmp_path / "kaggle", {os.fsdecode(name): b"M 31"})
    except OSError:
        pytest.skip("this file system allows only names in UTF-8")
    images = _find(source)
    assert _read(images) == _read(images.part(np.array([0]))) == [b"M 31"]
    assert images.path(0) == name.decode("utf-8", "backslashreplace")
    assert images.shown(0) == f"{source}/{images.path(0)}"


@pytest.mark.parametrize("name", [b"\xff\xfe7.jpg", b"galaxi\xff\xfe/7.jpg", "größe/ñ.jpg".encode(), "星系/7.png".encode()])
def test_names_of_any_bytes_are_read_from_a_zip_and_shown_with_backslashes(tmp_path: Path, name: bytes) -> None:
    # A name that is marked as UTF-8 but is not.
    claimed = name.replace(b"\xff\xfe", "ä".encode())
    source = tmp_path / "kaggle.zip"
    source.write_bytes(packed({claimed.decode(): b"M 31"}).replace(claimed, name))
    images = _find(source)
    assert _read(images) == _read(images.part(np.array([0]))) == [b"M 31"]
    assert images.path(0) == name.decode("utf-8", "backslashreplace")


def test_names_in_the_zips_of_old_windows_are_shown_as_windows_did(tmp_path: Path) -> None:
    source = tmp_path / "kaggle.zip"
    source.write_bytes(packed({"gr__e/7.jpg": b"M 31"}).replace(b"gr__e", "größe".encode("cp437")))
    assert _paths(_find(source)) == ["größe/7.jpg"]


# What cannot be read


@pytest.mark.parametrize("content", [b"", b"one galax", b"one galaxy more"])
def test_a_file_that_changed_its_size_since_it_was_listed_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    images = _find(_keep(tmp_path / "kaggle", {"a/7.jpg": b"one galaxy"}))
    (tmp_path / "kaggle" / "a" / "7.jpg").write_bytes(content)
    with ImageReader() as reader, pytest.raises(SourceError) as caught:
        reader.read(images, 0)
    what = "has changed since the source was listed: run the same command again"
    assert str(caught.value) == f"{tmp_path}/kaggle/a/7.jpg: {what}"


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_file_that_has_gone_since_it_was_listed_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    source = _keep(tmp_path / "kaggle", {"a/7.jpg": b"one galaxy"}, kind)
    images = _find(source)
    source.rename(tmp_path / "elsewhere")
    with ImageReader() as reader, pytest.raises(SourceError, match=f"^{tmp_path}/kaggle(/a/7.jpg|.zip).*"):
        reader.read(images, 0)


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_a_zip_that_changed_since_it_was_listed_never_gives_other_bytes(tmp_path: Path, method: int) -> None:
    source = tmp_path / "kaggle.zip"
    source.write_bytes(packed({"7.jpg": b"one galaxy", "8.jpg": b"another"}, method))
    images = _find(source)
    for content in (packed({"7.jpg": b"two galaxy", "8.jpg": b"another"}, method), b"", b"PK\x03\x04" * 99):
        source.write_bytes(content)
        with ImageReader() as reader, pytest.raises(ImageError, match="damaged"):
            reader.read(images, 0)


def test_one_damaged_image_in_a_zip_leaves_the_others_readable(tmp_path: Path) -> None:
    source = tmp_path / "kaggle.zip"
    source.write_bytes(packed({"7.jpg": b"one galaxy", "8.jpg": b"another"}, STORED).replace(b"one galaxy", b"one g!laxy"))
    images = _find(source)
    with ImageReader() as reader:
        with pytest.raises(ImageError, match="is damaged in its zip"):
            reader.read(images, 0)
        assert reader.read(images, 1)[0] == b"another"


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 2**32 - 1, 2**32 + 7])
def test_an_absurdly_large_file_is_refused_unread(tmp_path: Path, size: int) -> None:
    source = _keep(tmp_path / "kaggle", {"7.jpg": b""})
    os.truncate(source / "7.jpg", size)  # a hole, which takes no room on disk
    images = _find(source)
    (source / "7.jpg").unlink()
    listed = min(size, 2**32 - 1)
    with ImageReader() as reader, pytest.raises(ImageError) as caught:
        reader.read(images, 0)
    assert str(caught.value) == f"the file has {listed:,} bytes or more, above {MAX_BYTES:,}"


def test_an_image_that_says_it_is_absurdly_large_in_its_zip_is_refused_unread(tmp_path: Path) -> None:
    content = bytearray(packed({"7.jpg": b"one galaxy"}))
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, MAX_BYTES + 1)
    source = tmp_path / "kaggle.zip"
    source.write_bytes(content)
    images = _find(source)
    source.unlink()
    with ImageReader() as reader, pytest.raises(ImageError, match=f"bytes or more, above {MAX_BYTES:,}"):
        reader.read(images, 0)
    assert images.known_crcs().tolist() == [0]


def test_an_image_beyond_4_gb_of_its_zip_is_read(tmp_path: Path) -> None:
    source = tmp_path / "kaggle.zip"
    with source.open("wb") as file:
        file.seek(5 << 30)
        file.write(packed(FILES))
    images = _find(source)
    assert images.position.min() >= 5 << 30
    assert _read(images.part(np.arange(len(images)))) == [*FILES.values()]


# Files on disk


def _open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_keeps_one_file_open_for_a_zip_and_none_when_it_is_done(tmp_path: Path, kind: str) -> None:
    images = _find(_keep(tmp_path / "kaggle", FILES, kind))
    before = _open_files()
    with ImageReader() as reader:
        for row in range(len(images)):
            reader.read(images, row)
        assert _open_files() == before + (kind != "folder")
    assert _open_files() == before
    with pytest.raises(ImageError), ImageReader() as reader:
        reader.read(images, 0)
        raise ImageError("stop")
    assert _open_files() == before


@pytest.fixture
def few_files() -> Iterator[int]:
    """A limit of 40 more open files for this process; macOS allows 256 in all, Linux 1,024."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(int(path.name) for path in Path("/dev/fd").iterdir()) + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_zips_than_a_process_may_open_are_read(tmp_path: Path, few_files: int) -> None:
    contents = [b"galaxy %d" % number for number in range(few_files + 20)]
    zips = {f"{number}.zip": packed({f"{number}.jpg": content}) for number, content in enumerate(contents)}
    assert _read(_find(_keep(tmp_path / "kaggle", zips))) == contents
