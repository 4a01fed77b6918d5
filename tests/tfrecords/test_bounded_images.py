"""No image costs more to decode than its pixels and bytes are worth."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tfrecords import decoding
from tfrecords.decoding import read_picture
from tfrecords.errors import ImageError
from tfrecords.images import CropSettings, store

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _scans(number: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan comes again, so that it has this number of them."""
    jpeg = _file(Image.new("L", (side, side), 128), "JPEG", progressive=True)[:-2]
    last = jpeg[jpeg.rfind(b"\xff\xda") :]
    return jpeg + last * (number - jpeg.count(b"\xff\xda")) + b"\xff\xd9"


def _reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read_picture(data)
    return str(caught.value)


@pytest.mark.parametrize("turbo", [True, False], ids=["turbojpeg", "Pillow"])
def test_a_jpeg_of_a_thousand_scans_is_refused_before_it_is_decoded(turbo: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not turbo:
        monkeypatch.setattr(decoding, "turbojpeg", None)
    assert _reason(_scans(1_000)) == "a JPEG of more than 100 scans, which no camera or program writes: save it again"
    assert "scans" not in _reason(_scans(100)) if turbo else read_picture(_scans(100)).pixels.any()


def test_a_jpeg_of_a_thousand_scans_is_not_cropped() -> None:
    with pytest.raises(ImageError, match="more than 100 scans"):
        store(_scans(1_000), CropSettings(0.5, 32))


def test_a_large_jpeg_may_have_as_many_scans_as_programs_write() -> None:
    assert decoding.jpeg_header(_scans(16, 8_000)) is not None
    with pytest.raises(ImageError, match="a JPEG of more than 25 scans"):
        decoding.jpeg_header(_scans(26, 8_000))


def test_scans_of_a_thumbnail_do_not_count() -> None:
    jpeg = _file(Image.fromarray(NOISE), "JPEG", progressive=True)
    thumbnail = b"\xff\xda" * 200
    with_one = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail + jpeg[2:]
    assert np.array_equal(read_picture(with_one + thumbnail).pixels, read_picture(jpeg).pixels)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [("WEBP", "RGB", {"lossless": True}), ("PNG", "1", {})],
    ids=["WebP", "PNG of one bit"],
)
def test_a_bomb_is_refused_before_it_is_decoded(kind: str, mode: str, options: dict[str, Any]) -> None:
    data = _file(Image.new(mode, (9_000, 9_000)), kind, **options)
    assert _reason(data) == f"9000 x 9000 pixels in {len(data):,} bytes are a decompression bomb, or empty"


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_emptiest_picture_is_no_bomb(kind: str, mode: str) -> None:
    """A galaxy in a large black frame is a picture."""
    options: dict[str, Any] = {"compress_level": 9} if kind == "PNG" else {"quality": 1, "progressive": True}
    assert not read_picture(_file(Image.new(mode, (1_500, 1_500)), kind, **options)).pixels.max() > 1


def test_small_pictures_may_be_of_one_colour() -> None:
    assert read_picture(_file(Image.new("RGB", (900, 900)), "WEBP", lossless=True)).pixels.shape == (900, 900, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP"])
def test_a_picture_of_more_pixels_than_any_cutout_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 64 * 64 - 1)
    options = {"lossless": True} if kind == "WEBP" else {}
    assert _reason(_file(Image.fromarray(NOISE), kind, **options)) == "64 x 64 pixels are more than 4,095"


@pytest.mark.parametrize(("pages", "said"), [(3, "3"), (99, "99"), (100, "100 or more"), (5_000, "100 or more")])
def test_the_images_of_a_tiff_are_counted_to_a_hundred(pages: int, said: str) -> None:
    """Pillow compares the place of each with those of all before it."""
    tiff = bytearray(_file(Image.new("L", (16, 16)), "TIFF"))
    at = struct.unpack_from("<I", tiff, 4)[0]
    number = struct.unpack_from("<H", tiff, at)[0]
    directory = bytes(tiff[at : at + 2 + 12 * number])
    for _ in range(pages - 1):
        tiff += bytes(len(tiff) % 2)
        struct.pack_into("<I", tiff, at + len(directory), len(tiff))
        at = len(tiff)
        tiff += directory + bytes(4)
    assert _reason(bytes(tiff)) == f"holds {said} images: save the one that is meant alone"
