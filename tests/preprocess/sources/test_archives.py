"""A zip is read in place, with exactly the bytes that Python's zipfile reads; an unreadable one is refused by name."""

import io
import os
import random
import resource
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.sources import archives
from preprocess.sources.archives import Zip
from tfrecords.errors import SourceError

Files = dict[str, bytes]

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
FILES: Files = {
    "images/100008.jpg": random.Random(0).randbytes(300),
    "images/100023.jpg": bytes(500),
    "images/100053.jpg": b"",
    "votes.csv": b"GalaxyID,Class1.1\n" * 4,
}
LARGE = 5 << 30


class _Stream(io.BytesIO):
    """A pipe or socket: zipfile cannot go back to write sizes into a header, so it writes them after the data."""

    def tell(self) -> int:
        raise io.UnsupportedOperation

    def seek(self, *_: object) -> int:
        raise io.UnsupportedOperation


def _packed(files: Files, method: int = DEFLATED, comment: bytes = b"", into: type[io.BytesIO] = io.BytesIO) -> bytes:
    buffer = into()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.comment = comment
        for name, content in files.items():
            file.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def _mixed() -> bytes:
    """Files packed both ways beside folders, some with 64-bit local headers and with extra fields that readers ignore."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.mkdir("images")
        for number, (name, content) in enumerate(FILES.items()):
            info = zipfile.ZipInfo(name)
            info.compress_type = (STORED, DEFLATED)[number % 2]
            info.extra = struct.pack("<2HBI", 0x5455, 5, 1, 1_390_000_000) * number
            info.comment = b"a comment of its own" * number
            with file.open(info, "w", force_zip64=number > 1) as target:
                target.write(content)
        file.mkdir("images/empty")
    return buffer.getvalue()


def _deflated(*parts: bytes) -> bytes:
    """The parts one after the other, each in its own blocks."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return b"".join(packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH) for part in parts[:-1]) + (
        packer.compress(parts[-1]) + packer.flush()
    )


def _by_hand(
    files: Files,
    wide: tuple[str, ...] = (),
    *,
    start: int = 0,
    flags: int = 0,
    method: int = STORED,
    pack: Callable[[bytes], bytes] = bytes,
    other: bytes = b"",
    disk: int = 0,
    says: int | None = None,
) -> bytes:
    """A zip made byte by byte, whose first header lies at `start`.

    wide: which of size, stored, offset and end are written with 64 bits. other: a field before the 64-bit one.
    says: the size that the list states, if not the true one.
    """
    body, listed = bytearray(), bytearray()
    for name, content in files.items():
        size, packed = len(content) if says is None else says, pack(content)
        values = {"size": size, "stored": len(packed), "offset": start + len(body)}
        large = [value for field, value in values.items() if field in wide]
        fields = other + (struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b"")
        size32, stored32, offset32 = (0xFFFFFFFF if field in wide else value for field, value in values.items())
        encoded, header = name.encode("ascii"), (20, flags, method, 0, 33, zlib.crc32(content))
        lengths = (len(encoded), len(fields), 0, 0, 0, 0)
        listed += struct.pack("<4sH5H3I5HII", b"PK\x01\x02", 45, *header, stored32, size32, *lengths, offset32)
        listed += encoded + fields
        body += struct.pack("<4s5H3I2H", b"PK\x03\x04", *header, len(packed), size, len(encoded), 0) + encoded + packed
    count, at = len(files), start + len(body)
    if "end" not in wide:
        return bytes(body + listed + struct.pack("<4s4H2IH", b"PK\x05\x06", disk, disk, count, count, len(listed), at, 0))
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, disk, disk, count, count, len(listed), at)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", disk, at + len(listed), disk + 1)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", *[0xFFFF] * 4, *[0xFFFFFFFF] * 2, 0)
    return bytes(body + listed + end64 + locator + end)


def _write(path: Path, content: bytes) -> Zip:
    path.write_bytes(content)
    return archives.open_zip(path)


def _write_at(path: Path, start: int, content: bytes) -> Zip:
    """A file whose first `start` bytes are a hole that takes no room on disk."""
    with path.open("wb") as file:
        file.seek(start)
        file.write(content)
    return archives.open_zip(path)


def _contents(archive: Zip) -> list[tuple[str, bytes]]:
    return [(entry.name, archives.read_entry(archive, entry)) for entry in archives.entries(archive)]


def _by_zipfile(path: Path) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as file:
        return [(info.filename, file.read(info)) for info in file.infolist() if not info.is_dir()]


def _only(archive: Zip) -> archives.Entry:
    (entry,) = archives.entries(archive)
    return entry


def _refused(archive: Zip) -> str:
    with pytest.raises(SourceError) as caught:
        _contents(archive)
    text = str(caught.value)
    assert text.startswith(f"{archive.name}: ") and "\n" not in text
    return text.removeprefix(f"{archive.name}: ")


KINDS = {
    "stored": _packed(FILES, STORED),
    "deflated": _packed(FILES),
    "mixed": _mixed(),
    "without files": _packed({}),
    "names in UTF-8": _packed({"Nebel/größte.jpg": b"M 31", "星系/1.jpg": b"NGC 1300", "Größe": b""}),
    "names in cp437": _packed({"N_bel/gr__te.jpg": b"M 31", "1.jpg": b""}).replace(b"gr__te", "größte".encode("cp437")),
    "long names": _packed({f"{'deep/' * 60}{number}.jpg": bytes([number]) * 90 for number in range(9)}, STORED),
    "a comment": _packed(FILES, comment=b"images of galaxies"),
    "the longest comment": _packed(FILES, comment=bytes(65_535)),
    "bytes before it": b"#!/bin/sh\nexit\n" * 9 + _packed(FILES),
    "sizes behind the data": _packed(FILES, into=_Stream),
    "sizes behind the stored data": _packed(FILES, STORED, into=_Stream),
    "64-bit end": _by_hand(FILES, ("end",)),
    "64-bit end, bytes before it": b"MZ" * 40 + _by_hand(FILES, ("end",)),
}
# One by one and all together: a list has only those 64-bit fields whose 32-bit ones are full.
ALL_WIDE = ("size", "stored", "offset", "end")
WIDE = [("size",), ("stored",), ("offset",), ("size", "offset"), ("size", "stored", "offset"), ALL_WIDE]


@pytest.mark.parametrize("content", KINDS.values(), ids=KINDS)
def test_every_file_is_listed_and_read_as_pythons_zipfile_does(tmp_path: Path, content: bytes) -> None:
    archive = _write(tmp_path / "galaxies.zip", content)
    assert _contents(archive) == _by_zipfile(archive.path)


@pytest.mark.parametrize("other", [b"", struct.pack("<2HBI", 0x5455, 5, 1, 0)], ids=["alone", "behind another field"])
@pytest.mark.parametrize("wide", WIDE, ids="+".join)
def test_64_bit_fields_of_the_list_are_read_as_pythons_zipfile_does(
    tmp_path: Path, wide: tuple[str, ...], other: bytes
) -> None:
    archive = _write(tmp_path / "galaxies.zip", _by_hand(FILES, wide, other=other))
    assert _contents(archive) == _by_zipfile(archive.path) == list(FILES.items())


@pytest.fixture(scope="module")
def scratch_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path that the examples of a property test overwrite in turn."""
    return tmp_path_factory.mktemp("archives") / "galaxies.zip"


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)


@given(
    st.dictionaries(NAMES, st.tuples(st.binary(max_size=300), st.sampled_from([STORED, DEFLATED]), st.booleans()), max_size=8),
    st.sampled_from([io.BytesIO, _Stream]),
    st.binary(max_size=40),
)
def test_any_set_of_files_is_read_as_pythons_zipfile_does(
    scratch_zip: Path, files: dict[str, tuple[bytes, int, bool]], into: type[io.BytesIO], before: bytes
) -> None:
    buffer = into()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, (content, method, wide) in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with file.open(info, "w", force_zip64=wide) as target:
                target.write(content)
    archive = _write(scratch_zip, b"#" + before + buffer.getvalue())
    expected = [(name.replace("\\", "/"), content) for name, content in _by_zipfile(scratch_zip)]
    assert _contents(archive) == [(name, content) for name, content in expected if not name.endswith("/")]


def test_backslashes_in_names_separate_folders(tmp_path: Path) -> None:
    archive = _write(tmp_path / "windows.zip", _packed({"images\\": b"", "images\\rev1\\1.jpg": b"M 31"}))
    assert _contents(archive) == [("images/rev1/1.jpg", b"M 31")]


def test_a_name_that_is_not_the_utf_8_it_claims_is_kept_byte_by_byte(tmp_path: Path) -> None:
    archive = _write(tmp_path / "galaxies.zip", _packed({"ä.jpg": b"M 31"}).replace("ä".encode(), b"\xff\xfe"))
    ((name, content),) = _contents(archive)
    assert (name.encode("utf-8", "surrogateescape"), content) == (b"\xff\xfe.jpg", b"M 31")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of more files than 16 bits can count."""
    path = tmp_path_factory.mktemp("many") / "many.zip"
    path.write_bytes(_by_hand({f"images/{number}.jpg": b"%d" % number for number in range(66_000)}, ("end",)))
    return path


def test_more_than_65535_files_are_listed_and_read(many: Path) -> None:
    archive = archives.open_zip(many)
    listed = list(archives.entries(archive))
    assert [entry.name for entry in listed] == [f"images/{number}.jpg" for number in range(66_000)]
    for number in (0, 1, 65_535, 65_536, 65_999):
        assert archives.read_entry(archive, listed[number]) == b"%d" % number
    with zipfile.ZipFile(many) as file:
        assert len(file.infolist()) == len(listed)


def test_a_list_takes_a_few_megabytes_of_memory_however_long_it_is(tmp_path: Path) -> None:
    files = {f"{number}.jpg": b"%d" % number for number in range(700)}
    archive = _write(tmp_path / "long.zip", _by_hand(files, other=struct.pack("<2H60000x", 0x9999, 60_000)))
    assert archive.length > 42_000_000
    tracemalloc.start()
    try:
        assert [entry.name for entry in archives.entries(archive)] == [*files]
        assert tracemalloc.get_traced_memory()[1] < 15_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("wide", [("offset",), ("offset", "end"), ALL_WIDE], ids="+".join)
def test_files_that_lie_beyond_4_gb_are_read(tmp_path: Path, wide: tuple[str, ...]) -> None:
    if "end" in wide:
        archive = _write_at(tmp_path / "large.zip", LARGE, _by_hand(FILES, wide, start=LARGE))
    else:  # a position of 32 bits counts from the start of the zip, which follows 5 GB of other bytes
        archive = _write_at(tmp_path / "large.zip", LARGE, _by_hand(FILES, wide))
    assert _contents(archive) == list(FILES.items())


def test_a_list_that_was_read_leaves_no_file_open(tmp_path: Path) -> None:
    archive = _write(tmp_path / "galaxies.zip", _packed(FILES))
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(3):
        _contents(archive)
        next(archives.entries(archive))
    _refused(_write(tmp_path / "cut.zip", _packed(FILES)[:-9]))
    assert len(list(Path("/dev/fd").iterdir())) == before


# Zips in a zip


def _nested(depth: int) -> bytes:
    content = _packed(FILES)
    for level in range(depth):
        content = _packed({"readme.txt": b"zips" * level, f"level-{level}.zip": content}, STORED)
    return content


def _innermost(archive: Zip, depth: int) -> Zip:
    for _ in range(depth):
        (entry,) = [entry for entry in archives.entries(archive) if entry.name.endswith(".zip")]
        archive = archives.window(archive, entry)
    return archive


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_a_stored_inner_zip_is_read_where_it_lies(tmp_path: Path, depth: int) -> None:
    outer = _write(tmp_path / "outer.zip", _nested(depth))
    inner = _innermost(outer, depth)
    assert _contents(inner) == list(FILES.items())
    assert inner.path == outer.path
    assert inner.name == "/".join([str(outer.path), *(f"level-{level}.zip" for level in reversed(range(depth)))])
    assert outer.path.read_bytes()[inner.start : inner.start + inner.length] == _packed(FILES)
    assert list(tmp_path.iterdir()) == [outer.path]


@pytest.mark.parametrize("content", KINDS.values(), ids=KINDS)
def test_a_window_gives_what_the_zip_alone_gives(tmp_path: Path, content: bytes) -> None:
    alone = _write(tmp_path / "alone.zip", content)
    outer = _write(tmp_path / "outer.zip", b"MZ" + _packed({"a.txt": b"text", "inner.zip": content, "z.txt": b"text"}, STORED))
    assert _contents(_innermost(outer, 1)) == _contents(alone)


def test_a_window_beyond_4_gb_gives_what_the_zip_alone_gives(tmp_path: Path) -> None:
    outer = _by_hand({"inner.zip": _packed(FILES)}, ("offset", "end"), start=LARGE)
    assert _contents(_innermost(_write_at(tmp_path / "outer.zip", LARGE, outer), 1)) == list(FILES.items())


def test_a_deflated_inner_zip_is_copied_once(tmp_path: Path) -> None:
    outer = _write(tmp_path / "outer.zip", _packed({"images/inner.zip": _packed(FILES)}))
    folder = tmp_path / "scratch"
    folder.mkdir()
    first = archives.unpack(outer, _only(outer), folder)
    assert _contents(first) == list(FILES.items())
    assert first.name == f"{outer.path}/images/inner.zip"
    assert list(folder.iterdir()) == [first.path]
    before = first.path.stat()
    assert archives.unpack(outer, _only(outer), folder) == first
    after = first.path.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, len(_packed(FILES)))


def test_a_copy_that_was_interrupted_is_made_again(tmp_path: Path) -> None:
    outer = _write(tmp_path / "outer.zip", _packed({"inner.zip": _packed(FILES)}))
    copy = archives.unpack(outer, _only(outer), tmp_path)
    copy.path.rename(copy.path.with_name(copy.path.name + ".partial"))
    copy.path.with_name(copy.path.name + ".partial").write_bytes(b"half of it")
    assert _contents(archives.unpack(outer, _only(outer), tmp_path)) == list(FILES.items())


def test_inner_zips_of_one_name_keep_a_copy_each(tmp_path: Path) -> None:
    copies = []
    for number in range(2):
        outer = _write(tmp_path / f"outer-{number}.zip", _packed({"inner.zip": _packed({"1.jpg": b"%d" % number}, STORED)}))
        copies.append(archives.unpack(outer, _only(outer), tmp_path))
    assert [_contents(copy) for copy in copies] == [[("1.jpg", b"0")], [("1.jpg", b"1")]]


@pytest.mark.parametrize("more", [-1, 0, 1, 2, 20, 200, 400, 800])
def test_an_inner_zip_of_any_length_is_copied_whole(tmp_path: Path, more: int) -> None:
    # It is unpacked in pieces of 4 MiB: here a piece ends when all input has been read but much output is still to come.
    empty = len(_packed({"1.jpg": b""}, STORED, comment=bytes(60_000)))
    inner = _packed({"1.jpg": bytes((4 << 20) + more - empty)}, STORED, comment=bytes(60_000))
    outer = _by_hand({"inner.zip": inner}, method=DEFLATED, pack=lambda all: _deflated(all[:-60_000], all[-60_000:]))
    archive = _write(tmp_path / "outer.zip", outer)
    assert archives.unpack(archive, _only(archive), tmp_path).path.read_bytes() == inner


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_a_damaged_inner_zip_is_refused_and_leaves_no_partial_copy(tmp_path: Path, part: float) -> None:
    content = bytearray(_packed({"inner.zip": _packed({"1.jpg": random.Random(1).randbytes(9000)})}))
    begin, end = 30 + len("inner.zip"), content.index(b"PK\x01\x02")
    content[begin + int(part * (end - begin))] ^= 0x55
    outer = _write(tmp_path / "outer.zip", bytes(content))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(SourceError) as caught:
        archives.unpack(outer, _only(outer), scratch)
    assert str(caught.value) == f"{outer.path}: inner.zip is damaged: copy or download it again"
    assert list(scratch.iterdir()) == []


def test_an_inner_zip_without_room_for_its_copy_is_refused_with_the_room_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = _write(tmp_path / "outer.zip", _packed({"inner.zip": bytes(7_000_000)}))
    free = os.statvfs_result((4096, 4096, 10**6, 10**6, 3_000_000 // 4096, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: free)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(SourceError) as caught:
        archives.unpack(outer, _only(outer), scratch)
    assert str(caught.value) == (
        f"{outer.path}/inner.zip: is compressed inside a zip and needs 7 MB for a copy in {scratch}, which has 3 MB free: "
        f"free some space, or unzip {outer.path} elsewhere and give that folder"
    )
    assert list(scratch.iterdir()) == []


@pytest.fixture
def small_files_only() -> Iterator[int]:
    """A limit of 16 MiB on every file that this process writes."""
    limit, before = 16 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_inner_zip_that_unpacks_to_more_than_it_says_does_not_fill_the_disk(tmp_path: Path, small_files_only: int) -> None:
    bomb = {"inner.zip": bytes(8 * small_files_only)}
    outer = _write(tmp_path / "outer.zip", _by_hand(bomb, method=DEFLATED, pack=_deflated, says=1000))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(SourceError, match=r"inner\.zip is damaged: copy or download it again"):
        archives.unpack(outer, _only(outer), scratch)
    assert list(scratch.iterdir()) == []


def test_a_file_that_unpacks_to_more_than_it_says_does_not_fill_the_memory(tmp_path: Path) -> None:
    bomb = _by_hand({"1.jpg": bytes(64_000_000)}, method=DEFLATED, pack=_deflated, says=1000)
    archive = _write(tmp_path / "bomb.zip", bomb)
    tracemalloc.start()
    try:
        assert _refused(archive) == "1.jpg is damaged: copy or download it again"
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


# What cannot be read


def test_an_encrypted_file_is_refused_by_name(tmp_path: Path) -> None:
    archive = _write(tmp_path / "galaxies.zip", _by_hand(FILES, flags=1))
    assert _refused(archive) == "images/100008.jpg is encrypted: unzip it first"


@pytest.mark.parametrize(("method", "number"), [(zipfile.ZIP_BZIP2, 12), (zipfile.ZIP_LZMA, 14)])
def test_another_method_is_refused_by_name(tmp_path: Path, method: int, number: int) -> None:
    archive = _write(tmp_path / "galaxies.zip", _packed(FILES, method))
    assert _refused(archive) == f"images/100008.jpg is compressed with method {number}, which is not supported: unzip it first"


@pytest.mark.parametrize("wide", [(), ("end",)], ids=["32-bit", "64-bit"])
def test_one_of_several_parts_is_refused_with_the_way_out(tmp_path: Path, wide: tuple[str, ...]) -> None:
    archive = _write(tmp_path / "galaxies.zip", _by_hand(FILES, wide, disk=2))
    assert _refused(archive) == ("is one part of a split zip: join the parts first, with `zip -s 0 PART --out WHOLE`")


@pytest.mark.parametrize("content", [b"", b"GalaxyID,Class1.1\n", b"PK\x05\x06", b"PK\x03\x04" * 30, bytes(100_000)])
def test_a_file_that_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    assert _refused(_write(tmp_path / "galaxies.zip", content)) == "not a zip, or cut off: copy or download it again"


@pytest.mark.parametrize("kind", ["stored", "deflated", "mixed", "bytes before it", "sizes behind the data", "64-bit end"])
def test_a_zip_that_is_cut_off_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    archive = _write(tmp_path / "galaxies.zip", KINDS[kind])
    for length in reversed(range(archive.length)):
        os.truncate(archive.path, length)
        _refused(archives.open_zip(archive.path))


@pytest.mark.parametrize("depth", [1, 2])
def test_a_zip_of_zips_that_is_cut_off_anywhere_is_never_taken_for_one_of_its_zips(tmp_path: Path, depth: int) -> None:
    archive = _write(tmp_path / "outer.zip", _nested(depth))
    for length in reversed(range(archive.length)):
        os.truncate(archive.path, length)
        _refused(archives.open_zip(archive.path))


def _flipped(path: Path, content: bytes, positions: range) -> Iterator[Zip]:
    """Yield the zip with one bit changed, for every bit at these positions."""
    path.write_bytes(content)
    with path.open("r+b", buffering=0) as file:
        for position in positions:
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([content[position] ^ 1 << bit]), position)
                yield archives.open_zip(path)
            os.pwrite(file.fileno(), content[position : position + 1], position)


FLIPPED = {
    "deflated": KINDS["deflated"],
    "mixed": KINDS["mixed"],
    "bytes before it": KINDS["bytes before it"],
    "64-bit": _by_hand(FILES, ALL_WIDE),
}


@pytest.mark.parametrize("content", FLIPPED.values(), ids=FLIPPED)
def test_a_flipped_bit_in_the_files_gives_the_same_bytes_or_is_refused(tmp_path: Path, content: bytes) -> None:
    expected = _contents(_write(tmp_path / "galaxies.zip", content))
    refused = 0
    for archive in _flipped(tmp_path / "galaxies.zip", content, range(content.index(b"PK\x01\x02"))):
        for entry, (name, original) in zip(archives.entries(archive), expected, strict=True):
            assert entry.name == name
            try:
                assert archives.read_entry(archive, entry) == original
            except SourceError:
                refused += 1
    assert refused > 0


@pytest.mark.parametrize("content", FLIPPED.values(), ids=FLIPPED)
def test_a_flipped_bit_in_the_list_never_gives_other_bytes(tmp_path: Path, content: bytes) -> None:
    files = {*FILES.values()}
    for archive in _flipped(tmp_path / "galaxies.zip", content, range(content.index(b"PK\x01\x02"), len(content))):
        try:
            for entry in archives.entries(archive):
                assert archives.read_entry(archive, entry) in files
        except SourceError:
            pass


@pytest.mark.parametrize("content", FLIPPED.values(), ids=FLIPPED)
def test_a_flipped_bit_in_the_list_never_hides_a_file(tmp_path: Path, content: bytes) -> None:
    for archive in _flipped(tmp_path / "galaxies.zip", content, range(content.index(b"PK\x01\x02"), len(content))):
        try:
            names = [entry.name for entry in archives.entries(archive)]
        except SourceError:
            continue
        assert len(names) >= len(FILES)


CHANGES = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9)), max_size=4)


@given(st.sampled_from([*FLIPPED.values()]), CHANGES)
def test_a_zip_with_other_bytes_anywhere_gives_its_files_or_is_refused(
    scratch_zip: Path, content: bytes, changes: list[tuple[float, bytes]]
) -> None:
    damaged = bytearray(content)
    for part, other in changes:
        at = int(part * (len(content) - len(other)))
        damaged[at : at + len(other)] = other
    archive = _write(scratch_zip, bytes(damaged))
    try:
        for entry in archives.entries(archive):
            assert archives.read_entry(archive, entry) in {*FILES.values()}
    except SourceError:
        pass
