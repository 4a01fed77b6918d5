"""Pixels equal Pillow's, cropped by one formula; an image that cannot be read exactly is refused with the reason."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import turbojpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tfrecords import decoding, images
from tfrecords.errors import GalaxyZooError, ImageError, one_line
from tfrecords.images import CropSettings

PNG_212 = CropSettings(0.5, 212, "png", 95)
NOISE = np.random.default_rng(0).integers(0, 256, (61, 47, 3), np.uint8)


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png(width: int, height: int, depth: int, colour_type: int, rows: bytes = b"") -> bytes:
    """A PNG made by hand: Pillow can write neither 16-bit colour nor a header without its pixels."""

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
    assert (stored.offset, stored.shape, stored.enlarged) == ((0, 0), (212, 212), False)


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
    pixels = images.crop(NOISE, 0.5, 24)  # 61 rows, 47 columns: side 24, row 18, column 11
    np.testing.assert_array_equal(pixels, NOISE[18:42, 11:35])


@pytest.mark.parametrize("size", [8, 23, 25, 100])
def test_another_size_is_pillows_lanczos_of_the_crop(size: int) -> None:
    expected = Image.fromarray(NOISE[18:42, 11:35]).resize((size, size), Image.Resampling.LANCZOS)
    pixels = images.crop(NOISE, 0.5, size)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (size, size, 3))
    np.testing.assert_array_equal(pixels, np.asarray(expected))


@pytest.mark.parametrize(("size", "enlarged"), [(23, False), (24, False), (25, True)])
def test_only_a_crop_with_fewer_pixels_than_the_size_counts_as_enlarged(size: int, enlarged: bool) -> None:
    stored = images.store(_file(Image.fromarray(NOISE), "PNG"), CropSettings(0.5, size, "raw", 95))
    assert stored.enlarged is enlarged
    assert (stored.offset, stored.shape) == ((0, 0), (size, size))
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


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
@pytest.mark.parametrize("offset", [(30, 0), (0, 16), (61, 47)])
def test_a_stored_image_that_ends_before_its_crop_does_is_refused(encoding: str, offset: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=rf"too small for a crop of 32 x 32 at {offset[0]}, {offset[1]}"):
        images.decode_stored(images.encode(NOISE, encoding), encoding, 32, offset)


@pytest.mark.parametrize("change", [-1, 1])
def test_raw_bytes_of_another_length_are_refused(change: int) -> None:
    with pytest.raises(ImageError, match=f"{3072 + change} bytes are not a raw image of 32 x 32 x 3"):
        images.decode_stored(bytes(3072 + change), "raw", 32)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "RGB"])
def test_other_eight_bit_pngs_become_rgb_as_pillow_converts_them(mode: str) -> None:
    image = Image.fromarray(NOISE).convert("L").convert("LA") if mode == "LA" else Image.fromarray(NOISE).convert(mode)
    data = _file(image, "PNG")
    expected = Image.open(io.BytesIO(data))
    assert expected.mode == mode
    _assert_decoded_as_pillow_does(data)


def _assert_decoded_as_pillow_does(data: bytes) -> None:
    decoded = images.decode(data)
    assert (decoded.dtype, decoded.ndim) == (np.uint8, 3)
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def _turbo(**options: Any) -> bytes:
    """A JPEG written by libjpeg-turbo: Pillow can write neither these colour samplings nor arithmetic coding."""
    return turbojpeg.compress(NOISE, options.pop("quality", 90), pixelformat=turbojpeg.PF.RGB, **options)


KINDS = {
    "4:2:0": _file(Image.fromarray(NOISE), "JPEG", subsampling=2),
    "4:2:2": _file(Image.fromarray(NOISE), "JPEG", subsampling=1),
    "4:4:4": _file(Image.fromarray(NOISE), "JPEG", subsampling=0),
    "4:4:0": _turbo(subsamp=turbojpeg.SAMP.Y440),
    "4:1:1": _turbo(subsamp=turbojpeg.SAMP.Y411),
    "4:4:1": _turbo(subsamp=turbojpeg.SAMP.Y441),
    "greyscale": _file(Image.fromarray(NOISE).convert("L"), "JPEG"),
    "CMYK": _file(Image.fromarray(NOISE).convert("CMYK"), "JPEG"),
    "RGB": _file(Image.fromarray(NOISE), "JPEG", keep_rgb=True),
    "progressive": _file(Image.fromarray(NOISE), "JPEG", progressive=True),
    "progressive greyscale": _file(Image.fromarray(NOISE).convert("L"), "JPEG", progressive=True),
    "restart markers by block": _file(Image.fromarray(NOISE), "JPEG", restart_marker_blocks=2),
    "restart markers by row": _file(Image.fromarray(NOISE), "JPEG", restart_marker_rows=1),
    "optimized": _file(Image.fromarray(NOISE), "JPEG", optimize=True),
    "lowest quality": _file(Image.fromarray(NOISE), "JPEG", quality=1),
    "highest quality": _file(Image.fromarray(NOISE), "JPEG", quality=100),
    "arithmetic coding": _turbo(subsamp=turbojpeg.SAMP.Y420, arithmetic=True),
    "lossless": _turbo(subsamp=turbojpeg.SAMP.Y444, lossless=True, quality=1),
    "one pixel": _file(Image.fromarray(NOISE[:1, :1]), "JPEG"),
    "bytes behind its end": _file(Image.fromarray(NOISE), "JPEG") + b"spiral" * 100,
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_jpeg_decodes_as_pillow_decodes_it(kind: str) -> None:
    _assert_decoded_as_pillow_does(KINDS[kind])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_ignored(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees
    turned = _file(Image.fromarray(NOISE), kind, exif=exif)
    assert Image.open(io.BytesIO(turned)).getexif()[0x0112] == 6
    plain = _file(Image.fromarray(NOISE), kind)
    np.testing.assert_array_equal(images.decode(turned), images.decode(plain))


def _rows(channels: int) -> bytes:
    return (b"\0" + b"\x12\x34" * 4 * channels) * 4


TEXT = b"GalaxyID,Class1.1\n100008,0.5\n"
JPEG = _file(Image.fromarray(NOISE), "JPEG")


def _jpeg_that_says(at: int, value: bytes) -> bytes:
    """JPEG with `value` written into its frame header `at` an offset: 4 precision, 5 height, 7 width."""
    begin = JPEG.index(b"\xff\xc0") + at
    return JPEG[:begin] + value + JPEG[begin + len(value) :]


UNUSABLE = {
    "empty": (b"", "the file is empty"),
    "text": (TEXT, "is a text, not an image: 'GalaxyID,Class1.1 100008,0.5'"),
    "GIF": (_file(Image.fromarray(NOISE), "GIF"), "not a readable image"),
    "JPEG cut off": (JPEG[: len(JPEG) // 2], r"not a readable image \(Premature end of JPEG file"),
    "JPEG cut off and ended": (JPEG[: len(JPEG) // 2] + b"\xff\xd9", "premature end of data segment"),
    "JPEG of 12 bits": (_jpeg_that_says(4, b"\x0c"), "not a readable image"),
    "JPEG without rows": (_jpeg_that_says(5, b"\0\0"), "not a readable image"),
    "JPEG without columns": (_jpeg_that_says(7, b"\0\0"), "not a readable image"),
    "JPEG with fewer rows than it says": (_jpeg_that_says(5, b"\0\xff"), "premature end of data segment"),
    "JPEG just too large": (
        _jpeg_that_says(5, struct.pack(">HH", 10_000, 10_001)),
        "10001 x 10000 pixels are more than 100,000,000",
    ),
    "PNG cut off": (_file(Image.fromarray(NOISE), "PNG")[:3000], "not a readable image"),
    "16-bit grey": (_file(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257), "PNG"), "more than 8 bits per channel"),
    "16-bit RGB": (_png(4, 4, 16, 2, _rows(3)), "more than 8 bits per channel"),
    "16-bit RGBA": (_png(4, 4, 16, 6, _rows(4)), "more than 8 bits per channel"),
    "just too large": (_png(10_001, 10_000, 8, 2), "10001 x 10000 pixels are more than 100,000,000"),
    "decompression bomb": (_png(60_000, 60_000, 8, 2), "decompression bomb"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("encoding", ["jpeg", "png"])
@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_image_is_refused_with_its_reason(name: str, encoding: str) -> None:
    data, reason = UNUSABLE[name]
    with pytest.raises(ImageError, match=reason) as caught:
        images.store(data, CropSettings(0.5, 24, encoding, 95))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["RGB", "CMYK"])
@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_a_jpeg_of_unusual_colours_that_was_cut_off_and_ended_is_never_stored_half_grey(kind: str, encoding: str) -> None:
    image = Image.fromarray(NOISE).convert(kind)
    data = _file(image, "JPEG", keep_rgb=True) if kind == "RGB" else _file(image, "JPEG")
    images.store(data, CropSettings(0.5, 24, encoding, 95))
    with pytest.raises(ImageError, match="premature end of data segment"):
        images.store(data[: len(data) * 6 // 10] + b"\xff\xd9", CropSettings(0.5, 24, encoding, 95))


def test_the_reason_is_the_same_every_time() -> None:
    reasons = set()
    for _ in range(5):
        with pytest.raises(ImageError) as caught:
            images.decode(bytes(TEXT))
        reasons.add(str(caught.value))
    assert len(reasons) == 1 and "0x" not in reasons.pop()


def test_the_16_bit_pngs_made_here_are_whole_images() -> None:
    # Otherwise the test above might refuse them for another reason.
    assert Image.open(io.BytesIO(_png(4, 4, 16, 2, _rows(3)))).convert("RGB").getpixel((0, 0)) == (0x12, 0x12, 0x12)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", JPEG[:300]]))
def test_arbitrary_bytes_give_an_image_error_and_nothing_else(data: bytes, start: bytes) -> None:
    with pytest.raises(ImageError):
        images.decode(start + data)


def test_without_the_codec_jpeg_is_refused_with_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "turbojpeg", None)
    with pytest.raises(GalaxyZooError) as caught:
        images.require_codec("jpeg")
    assert "\n" not in str(caught.value) and str(caught.value) == one_line(caught.value)
    assert "`pip install turbojpeg`" in str(caught.value)
    assert "--encoding png or raw" in str(caught.value)


def test_another_package_of_the_codecs_name_counts_as_none(tmp_path: Path) -> None:
    # PyTurboJPEG installs a module of the same name, which contains a class.
    (tmp_path / "turbojpeg.py").write_text("class TurboJPEG: pass\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from tfrecords import decoding; print(decoding.turbojpeg)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "None\n"


@pytest.mark.parametrize("encoding", ["png", "raw"])
@pytest.mark.parametrize("kind", ["4:2:0", "4:2:2", "4:4:4", "greyscale", "CMYK", "progressive"])
def test_png_and_raw_need_no_codec_and_have_the_same_pixels(kind: str, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = CropSettings(0.5, 24, encoding, 95)
    expected = images.store(KINDS[kind], settings)
    monkeypatch.setattr(decoding, "turbojpeg", None)
    images.require_codec(encoding)
    _assert_decoded_as_pillow_does(KINDS[kind])
    assert images.store(KINDS[kind], settings) == expected


def test_the_codec_is_here() -> None:
    for encoding in images.ENCODINGS:
        images.require_codec(encoding)
