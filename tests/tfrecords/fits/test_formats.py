"""FITS files are read whatever they are packed with and called; what only has the name is called what it is."""

import bz2
import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits as astrofits

from preprocess.sources import ImageReader, find_images, is_fits, without_suffix
from tests.tfrecords.fits.files import cube, file_of, flux, galaxy, picture
from tfrecords.errors import ImageError
from tfrecords.fits import planes as reading

PLAIN = cube(galaxy())
EXPECTED = picture(PLAIN)


def _compressed(kind: str = "GZIP_1", level: float = 0) -> bytes:
    """A tile-compressed file; without loss by default."""
    packed = astrofits.CompImageHDU(galaxy(), compression_type=kind, quantize_level=level)
    return file_of(astrofits.PrimaryHDU(), packed)


PACKED: dict[str, Callable[[], bytes]] = {
    "": lambda: PLAIN,
    ".gz": lambda: gzip.compress(PLAIN),
    ".bz2": lambda: bz2.compress(PLAIN),
    ".fz": _compressed,
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("suffix", [".fits", ".fit", ".fts", ".FITS", ".Fit"])
def test_every_suffix_in_any_case_and_packed_is_one_galaxy_by_its_plain_name(suffix: str, packed: str, tmp_path: Path) -> None:
    (tmp_path / f"NGC 1{suffix}{packed}").write_bytes(PACKED[packed]())
    (tmp_path / f"12{suffix}{packed.upper()}").write_bytes(PACKED[packed]())
    images, left = find_images(tmp_path, tmp_path)
    assert sorted(images.name(row) for row in range(len(images))) == ["12", "NGC 1"]
    assert not left.files
    with ImageReader() as reader:
        for row in range(2):
            assert is_fits(images.path(row))
            np.testing.assert_array_equal(picture(reader.read(images, row).data), EXPECTED)


def test_packed_files_beside_others_are_not_dropped(tmp_path: Path) -> None:
    for number, (packed, content) in enumerate(PACKED.items()):
        (tmp_path / f"{number}.fits{packed}").write_bytes(content())
    images, left = find_images(tmp_path, tmp_path)
    assert (images.galaxy_id.tolist(), dict(left.files)) == ([0, 1, 2, 3], {})


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("a/b.fits.gz", "a/b"),
        ("b.tar.fits", "b.tar"),
        ("b.FITS.FZ", "b"),
        ("x.jpg", "x"),
        (".fits", ".fits"),
        ("1.2.fts", "1.2"),
    ],
)
def test_a_name_loses_both_suffixes(path: str, stem: str) -> None:
    assert without_suffix(path) == stem


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_packed_file_under_a_plain_name_is_known_by_its_first_bytes(pack: Callable[[bytes], bytes]) -> None:
    np.testing.assert_array_equal(picture(pack(PLAIN)), EXPECTED)
    np.testing.assert_array_equal(picture(pack(_compressed())), EXPECTED)


def test_tiles_quantised_as_fpack_does_by_default_lose_little() -> None:
    lossy = flux(_compressed("RICE_1", 16)).colours
    noise = 0.005 * 2
    assert 0 < np.abs(lossy - flux(PLAIN).colours).max() < noise / 16
    difference = np.abs(picture(_compressed("RICE_1", 16)).astype(int) - EXPECTED)
    assert difference.max() <= 6 and difference.mean() < 0.3  # levels of 255: the most in the sky, where brightness rises fast


def test_packed_files_in_a_zip_are_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for number, (packed, content) in enumerate(PACKED.items()):
            file.writestr(f"cutouts/{number}.fits{packed}", content())
    images, _ = find_images(tmp_path / "all.zip", tmp_path)
    with ImageReader() as reader:
        for row in range(4):
            np.testing.assert_array_equal(picture(reader.read(images, row).data), EXPECTED)


# Damaged, or something else


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_damaged_or_cut_off_packed_file_is_refused_in_one_line(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(PLAIN)
    damaged = bytearray(packed)
    damaged[len(packed) // 2 : len(packed) // 2 + 50] = bytes(50)
    for data in (bytes(damaged), packed[: len(packed) // 2], packed[:3]):
        with pytest.raises(ImageError, match=r"^is packed and damaged \(") as caught:
            flux(data)
        assert "\n" not in str(caught.value)


def test_a_file_that_unpacks_to_an_absurd_size_is_refused_and_not_unpacked_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", len(PLAIN))
    for pack in (gzip.compress, bz2.compress):
        np.testing.assert_array_equal(picture(pack(PLAIN)), EXPECTED)
        with pytest.raises(ImageError, match=rf"^the unpacked file has more than {len(PLAIN):,} bytes$"):
            flux(pack(PLAIN + bytes(1)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "is a web page (HTML) or XML: download it again"),
        (b"\n  <html>busy</html>", "is a web page (HTML) or XML: download it again"),
        (b'<?xml version="1.0"?><Error/>', "is a web page (HTML) or XML"),
        (json.dumps({"error": "no coverage"}).encode(), "is JSON: download it again, or see whether it holds an error message"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "is a Git LFS pointer, not the file itself"),
        (b"", "not a readable FITS image"),
        (b"no fits at all", "not a readable FITS image"),
        (b"SIMPLE", "not a readable FITS image"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "is an HDF5 file"),
    ],
)
def test_what_downloads_leave_under_the_name_of_a_fits_file_is_called_what_it_is(content: bytes, reason: str) -> None:
    for data in (content, gzip.compress(content)):
        with pytest.raises(ImageError, match=f"^{re.escape(reason)}"):
            flux(data)


def test_a_zip_under_the_name_of_a_fits_file_is_called_a_zip() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("1.fits", PLAIN)
    with pytest.raises(ImageError, match=r"^is a zip: unpack it, or give the zip itself$"):
        flux(buffer.getvalue())


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_file_is_not_unpacked_to_far_more_than_its_size(pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ImageError, match=r"^the unpacked file has more than 67,108,864 bytes$"):
        reading.read_planes(pack(bytes(70_000_000)))
