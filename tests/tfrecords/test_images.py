"""Pixels are Pillow's, cut by one formula; what cannot be read exactly is refused with its reason."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tfrecords import images
from tfrecords.errors import ImageError
from tfrecords.images import CropSettings

PNG_212 = CropSettings(0.5, 212, "png", 95)
NOISE = np.random.default_rng(0).integers(0, 256, (61, 47, 3), np.uint8)


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png(width: int, height: int, depth: int, colour_type: int, rows: bytes = b"") -> bytes:
    """A PNG by hand: Pillow writes no 16-bit colour, and no header without its pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def galaxy(kaggle: Path) -> bytes:
    return sorted((kaggle / "images_training_rev1").iterdir())[0].read_bytes()


def test_kaggles_424_pixels_are_cut_to_rows_and_columns_106_up_to_318(galaxy: bytes) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(galaxy)))
    assert pixels.shape == (424, 424, 3)
    stored = images.store(galaxy, PNG_212)
    np.testing.assert_array_equal(images.decode_stored(stored.data, "png", 212), pixels[106:318, 106:318])
    assert (stored.offset, stored.enlarged) == ((0, 0), False)


@pytest.mark.parametrize(
    ("height", "width", "fraction", "expected"),
    [
        (424, 424, 0.5, (106, 106, 212)),
        (424, 424, 1.0, (0, 0, 424)),
        (425, 425, 0.5, (106, 106, 213)),  # 212.5 rounds up
        (423, 423, 0.5, (105, 105, 212)),  # 211.5 rounds up, the odd row is left at the bottom
        (424, 500, 0.5, (106, 144, 212)),
        (501, 424, 0.5, (144, 106, 212)),
        (3, 3, 0.5, (0, 0, 2)),
        (1, 1, 0.5, (0, 0, 1)),
    ],
)
def test_the_crop_follows_its_formula(height: int, width: int, fraction: float, expected: tuple[int, int, int]) -> None:
    assert images.crop_box(height, width, fraction) == expected


@given(st.integers(1, 3000), st.integers(1, 3000), st.floats(0.001, 1))
def test_the_crop_lies_within_the_image_and_in_its_centre(height: int, width: int, fraction: float) -> None:
    if np.floor(fraction * min(height, width) + 0.5) < 1:
        with pytest.raises(ImageError, match="leave nothing to crop"):
            images.crop_box(height, width, fraction)
        return
    row, column, side = images.crop_box(height, width, fraction)
    assert side == np.floor(fraction * min(height, width) + 0.5)
    for start, length in ((row, height), (column, width)):
        after = length - side - start
        assert 0 <= start <= after <= start + 1


def test_an_odd_image_is_cut_where_the_formula_says() -> None:
    pixels = images.crop(Image.fromarray(NOISE), 0.5, 24)  # 61 rows, 47 columns: side 24, row 18, column 11
    np.testing.assert_array_equal(pixels, NOISE[18:42, 11:35])


@pytest.mark.parametrize("size", [8, 23, 25, 100])
def test_another_size_is_pillows_lanczos_of_the_crop(size: int) -> None:
    expected = Image.fromarray(NOISE[18:42, 11:35]).resize((size, size), Image.Resampling.LANCZOS)
    pixels = images.crop(Image.fromarray(NOISE), 0.5, size)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (size, size, 3))
    np.testing.assert_array_equal(pixels, np.asarray(expected))


@pytest.mark.parametrize(("size", "enlarged"), [(23, False), (24, False), (25, True)])
def test_only_a_crop_with_fewer_pixels_than_the_size_counts_as_enlarged(size: int, enlarged: bool) -> None:
    stored = images.store(_file(Image.fromarray(NOISE), "PNG"), CropSettings(0.5, size, "raw", 95))
    assert stored.enlarged is enlarged
    assert len(stored.data) == size * size * 3


@given(st.integers(1, 20), st.integers(0, 2**32 - 1), st.sampled_from(["png", "raw"]))
def test_png_and_raw_lose_nothing(size: int, seed: int, encoding: str) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    decoded = images.decode_stored(images.encode(pixels, encoding), encoding, size)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


def test_raw_is_the_pixels_in_row_major_order() -> None:
    assert images.encode(NOISE, "raw") == NOISE.tobytes()


def test_a_jpeg_is_pillows_at_the_quality_asked_for(galaxy: bytes) -> None:
    pixels = images.crop(images.decode(galaxy), 0.5, 212)
    for quality in (50, 95):
        expected = _file(Image.fromarray(pixels), "JPEG", quality=quality)
        assert images.encode(pixels, "jpeg", quality) == expected
    levels = np.abs(images.decode_stored(images.encode(pixels, "jpeg", 95), "jpeg", 212).astype(int) - pixels)
    assert 0 < levels.mean() < 2


def test_a_stored_image_is_cut_out_at_its_offset() -> None:
    data = images.encode(NOISE, "png")
    np.testing.assert_array_equal(images.decode_stored(data, "png", 32, (10, 12)), NOISE[10:42, 12:44])


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "RGB"])
def test_other_eight_bit_images_become_rgb_as_pillow_converts_them(mode: str) -> None:
    image = Image.fromarray(NOISE).convert("L").convert("LA") if mode == "LA" else Image.fromarray(NOISE).convert(mode)
    data = _file(image, "JPEG" if mode == "CMYK" else "PNG")
    expected = Image.open(io.BytesIO(data))
    assert expected.mode == mode
    decoded = images.decode(data)
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"quality": 5}])
def test_any_kind_of_jpeg_decodes_as_pillow_decodes_it(options: dict[str, Any]) -> None:
    data = _file(Image.fromarray(NOISE), "JPEG", **options)
    np.testing.assert_array_equal(np.asarray(images.decode(data)), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_ignored(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    turned = _file(Image.fromarray(NOISE), kind, exif=exif)
    assert Image.open(io.BytesIO(turned)).getexif()[0x0112] == 6
    plain = _file(Image.fromarray(NOISE), kind)
    np.testing.assert_array_equal(np.asarray(images.decode(turned)), np.asarray(images.decode(plain)))


def _rows(channels: int) -> bytes:
    return (b"\0" + b"\x12\x34" * 4 * channels) * 4


TEXT = b"GalaxyID,Class1.1\n100008,0.5\n"
JPEG = _file(Image.fromarray(NOISE), "JPEG")
UNUSABLE = {
    "empty": (b"", "the file is empty"),
    "text": (TEXT, "not a readable JPEG or PNG"),
    "GIF": (_file(Image.fromarray(NOISE), "GIF"), "not a readable JPEG or PNG"),
    "TIFF": (_file(Image.fromarray(NOISE), "TIFF"), "not a readable JPEG or PNG"),
    "JPEG cut off": (JPEG[: len(JPEG) // 2], "truncated"),
    "PNG cut off": (_file(Image.fromarray(NOISE), "PNG")[:3000], "not a readable JPEG or PNG"),
    "16-bit grey": (_file(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257), "PNG"), "more than 8 bits per channel"),
    "16-bit RGB": (_png(4, 4, 16, 2, _rows(3)), "more than 8 bits per channel"),
    "16-bit RGBA": (_png(4, 4, 16, 6, _rows(4)), "more than 8 bits per channel"),
    "just too large": (_png(10_001, 10_000, 8, 2), "10001 x 10000 pixels are more than 100,000,000"),
    "decompression bomb": (_png(60_000, 60_000, 8, 2), "decompression bomb"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_image_is_refused_with_its_reason(name: str) -> None:
    data, reason = UNUSABLE[name]
    with pytest.raises(ImageError, match=reason) as caught:
        images.store(data, PNG_212)
    assert "\n" not in str(caught.value)


def test_the_reason_is_the_same_every_time() -> None:
    reasons = set()
    for _ in range(5):
        with pytest.raises(ImageError) as caught:
            images.decode(bytes(TEXT))
        reasons.add(str(caught.value))
    assert len(reasons) == 1 and "0x" not in reasons.pop()


def test_the_16_bit_pngs_made_here_are_whole_images() -> None:
    # Else the test above would see them refused for another reason.
    assert Image.open(io.BytesIO(_png(4, 4, 16, 2, _rows(3)))).convert("RGB").getpixel((0, 0)) == (0x12, 0x12, 0x12)


@given(st.integers(0, len(JPEG) - 1))
def test_a_jpeg_cut_anywhere_before_its_end_mark_is_refused(length: int) -> None:
    if length >= len(JPEG) - 2:  # only the end mark is missing: every pixel is there
        return
    with pytest.raises(ImageError):
        images.decode(JPEG[:length])


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", JPEG[:300]]))
def test_arbitrary_bytes_give_an_image_error_and_nothing_else(data: bytes, start: bytes) -> None:
    with pytest.raises(ImageError):
        images.decode(start + data)
