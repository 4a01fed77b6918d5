"""8-bit pictures of any format are read without loss and laid over black; what is no such picture is called what it is."""

import gzip
import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tfrecords.decoding import read_picture
from tfrecords.errors import ImageError
from tfrecords.images import CropSettings, store

NOISE = np.random.default_rng(0).integers(0, 256, (61, 47, 3), np.uint8)
# Red, green and blue differ by so much that a swapped or lost channel, and any hidden colour, shows.
COLOURS = np.array([[(200, 30, 90), (255, 255, 255), (1, 2, 3)], [(0, 255, 0), (128, 64, 32), (250, 251, 252)]], np.uint8)
ALPHA = np.array([[0, 255, 128], [1, 127, 254]], np.uint8)


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _tiff(pixels: np.ndarray, photometric: int, extra: int | None = None) -> bytes:
    """A TIFF of one strip made by hand: Pillow cannot write 16-bit colours or alpha of another kind.

    pixels: uint8, uint16 or float32 (height, width, samples). photometric: 0 white is zero, 1 black is zero, 2 RGB.
    extra: what the last sample is: 0 unknown, 1 alpha with which the colours are multiplied already, 2 alpha.
    """
    height, width, samples = pixels.shape
    strip = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    tags: list[tuple[int, list[int]]] = [
        (256, [width]), (257, [height]), (258, [8 * pixels.itemsize] * samples), (259, [1]), (262, [photometric]),
        (273, [0]), (277, [samples]), (278, [height]), (279, [len(strip)]),
    ]  # fmt: skip
    tags += [(338, [extra])] if extra is not None else []
    tags += [(339, [3] * samples)] if pixels.dtype.kind == "f" else []
    behind = 8 + 2 + 12 * len(tags) + 4
    long_values, entries = b"", b""
    for tag, values in tags:
        packed = struct.pack(f"<{len(values)}I", *(values if tag != 273 else [behind + 200]))
        if len(packed) > 4:
            at = behind + len(long_values)
            long_values += packed
            packed = struct.pack("<I", at)
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + long_values.ljust(200, b"\0") + strip


def _over_black(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.floor(colours * (alpha[..., None] / 255) + 0.5)


def _assert_laid_over_black(data: bytes, colours: np.ndarray, alpha: np.ndarray, tolerance: int = 1) -> None:
    """Within a level of rounding; exactly black or the colour itself where nothing is mixed."""
    picture = read_picture(data)
    assert (picture.pixels.dtype, picture.pixels.shape) == (np.uint8, colours.shape)
    assert picture.alpha is not None
    np.testing.assert_array_equal(picture.alpha, alpha)
    np.testing.assert_allclose(picture.pixels, _over_black(colours, alpha), atol=tolerance)
    assert not picture.pixels[alpha == 0].any()
    np.testing.assert_array_equal(picture.pixels[alpha == 255], colours[alpha == 255])


RGB, GREY = Image.fromarray(NOISE), Image.fromarray(NOISE[..., 0])
GREY_PIXELS = np.repeat(NOISE[..., :1], 3, axis=2)
LOSSLESS = {
    "TIFF": (_file(RGB, "TIFF"), NOISE),
    "TIFF made by hand": (_tiff(NOISE, 2), NOISE),
    "grey TIFF": (_file(GREY, "TIFF"), GREY_PIXELS),
    "grey TIFF in which white is zero": (_tiff(255 - NOISE[..., :1], 0), GREY_PIXELS),
    "TIFF with a sample of unknown use": (_tiff(np.dstack([NOISE, np.zeros((61, 47), np.uint8)]), 2, 0), NOISE),
    **{f"TIFF, {how}": (_file(RGB, "TIFF", compression=how), NOISE) for how in ("tiff_lzw", "tiff_adobe_deflate", "packbits")},
    "WebP": (_file(RGB, "WEBP", lossless=True), NOISE),
    "grey WebP": (_file(GREY, "WEBP", lossless=True), GREY_PIXELS),
    "BMP": (_file(RGB, "BMP"), NOISE),
    "grey BMP": (_file(GREY, "BMP"), GREY_PIXELS),
    "DIB": (_file(RGB, "DIB"), NOISE),
    "PNG": (_file(RGB, "PNG"), NOISE),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_lossless_picture_has_its_own_pixels_and_is_opaque(kind: str) -> None:
    data, expected = LOSSLESS[kind]
    picture = read_picture(data)
    assert picture.pixels.dtype == np.uint8 and picture.alpha is None
    np.testing.assert_array_equal(picture.pixels, expected)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_the_crop_does_not_depend_on_the_format(kind: str) -> None:
    data, pixels = LOSSLESS[kind]
    for encoding in ("jpeg", "png", "raw"):
        settings = CropSettings(0.5, 20, encoding)
        assert store(data, settings) == store(_file(Image.fromarray(pixels), "PNG"), settings)


def test_a_lossy_webp_is_decoded_as_pillow_decodes_it() -> None:
    data = _file(RGB, "WEBP", quality=80)
    decoded = read_picture(data)
    np.testing.assert_array_equal(decoded.pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert decoded.alpha is None and 0 < np.abs(decoded.pixels.astype(int) - NOISE).mean() < 60


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_is_turned_as_its_tag_says(compression: str) -> None:
    data = _file(RGB, "TIFF", compression=compression, tiffinfo={0x0112: 6})
    np.testing.assert_array_equal(read_picture(data).pixels, np.rot90(NOISE, -1))


DEEP = np.random.default_rng(1).integers(0, 65536, (16, 16, 4), np.uint16)
TOO_DEEP = {
    "16-bit RGB TIFF": _tiff(DEEP[..., :3], 2),
    "16-bit RGBA TIFF": _tiff(DEEP, 2, 2),
    "16-bit RGBA TIFF, multiplied": _tiff(DEEP, 2, 1),
    "16-bit grey TIFF": _tiff(DEEP[..., :1], 1),
    "16-bit grey TIFF by Pillow": _file(Image.fromarray(DEEP[..., 0]), "TIFF"),
    "32-bit TIFF": _file(Image.fromarray(DEEP[..., 0].astype(np.int32)), "TIFF"),
    "float TIFF": _tiff(DEEP[..., :1].astype(np.float32), 1),
    "float TIFF by Pillow": _file(Image.fromarray(DEEP[..., 0].astype(np.float32)), "TIFF"),
}


@pytest.mark.parametrize("kind", TOO_DEEP)
def test_more_than_8_bits_are_refused(kind: str) -> None:
    with pytest.raises(ImageError, match=r"^more than 8 bits per channel: convert it to 8-bit RGB first$"):
        read_picture(TOO_DEEP[kind])


def test_the_16_bit_colours_made_here_are_whole_images() -> None:
    # Pillow reads them as 8-bit RGB without a word: the refusal is needed.
    with Image.open(io.BytesIO(TOO_DEEP["16-bit RGB TIFF"])) as image:
        assert image.mode == "RGB"
        np.testing.assert_allclose(np.asarray(image), DEEP[..., :3] >> 8, atol=1)


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG"])
def test_a_file_of_several_images_is_refused_with_their_number(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = _file(RGB, kind, save_all=True, append_images=[RGB.rotate(180), GREY.convert("RGB")], **options)
    with pytest.raises(ImageError, match=r"^holds 3 images: save the one that is meant alone$"):
        read_picture(data)


def test_a_lab_tiff_is_refused_by_its_colours_not_its_bits() -> None:
    with pytest.raises(ImageError, match=r"^colours of the kind LAB: convert it to 8-bit RGB first$"):
        read_picture(_file(Image.fromarray(NOISE, "LAB"), "TIFF"))


# Transparency


def _paletted(transparent: bytes | int) -> bytes:
    """A PNG of the six colours as a palette, with the alpha of each entry, or the number of the one that is transparent."""
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3), "P")
    image.putpalette(COLOURS.tobytes())
    return _file(image, "PNG", transparency=transparent)


RGBA = np.dstack([COLOURS, ALPHA])
ONE_CLEAR = np.where(np.arange(6).reshape(2, 3) == 3, 0, 255).astype(np.uint8)
GREYS = np.repeat(COLOURS[..., :1], 3, axis=2)
TRANSPARENT = {
    "RGBA PNG": (_file(Image.fromarray(RGBA), "PNG"), COLOURS, ALPHA),
    "grey PNG with alpha": (_file(Image.fromarray(np.dstack([COLOURS[..., 0], ALPHA]), "LA"), "PNG"), GREYS, ALPHA),
    "PNG with a palette and alphas": (_paletted(ALPHA.tobytes()), COLOURS, ALPHA),
    "PNG with a palette and a transparent entry": (_paletted(3), COLOURS, ONE_CLEAR),
    "RGB PNG with a transparent colour": (
        _file(Image.fromarray(COLOURS), "PNG", transparency=(0, 255, 0)), COLOURS, ONE_CLEAR,
    ),
    "grey PNG with a transparent grey": (
        _file(Image.fromarray(COLOURS[..., 0]), "PNG", transparency=0), GREYS, ONE_CLEAR,
    ),
    "RGBA TIFF": (_file(Image.fromarray(RGBA), "TIFF"), COLOURS, ALPHA),
    "grey TIFF with alpha": (_tiff(np.dstack([COLOURS[..., 0], ALPHA]), 1, 2), GREYS, ALPHA),
    "RGBA TIFF made by hand": (_tiff(RGBA, 2, 2), COLOURS, ALPHA),
    "WebP": (_file(Image.fromarray(RGBA), "WEBP", lossless=True, exact=True), COLOURS, ALPHA),
}  # fmt: skip


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_transparent_pixels_are_laid_over_black(kind: str) -> None:
    _assert_laid_over_black(*TRANSPARENT[kind])


def test_a_black_and_white_png_with_transparent_white_is_black() -> None:
    picture = read_picture(_file(Image.fromarray(ONE_CLEAR == 0), "PNG", transparency=1))
    assert picture.alpha is not None and not picture.pixels.any()
    np.testing.assert_array_equal(picture.alpha, ONE_CLEAR)


def test_colours_multiplied_by_alpha_already_stay_as_they_are() -> None:
    multiplied = _over_black(COLOURS, ALPHA).astype(np.uint8)
    picture = read_picture(_tiff(np.dstack([multiplied, ALPHA]), 2, 1))
    np.testing.assert_allclose(picture.pixels, multiplied, atol=2)
    np.testing.assert_array_equal(picture.alpha, ALPHA)


def test_grey_that_is_multiplied_by_alpha_already_stays_as_it_is() -> None:
    multiplied = _over_black(GREYS, ALPHA).astype(np.uint8)
    picture = read_picture(_tiff(np.dstack([multiplied[..., 0], ALPHA]), 1, 1))
    np.testing.assert_allclose(picture.pixels, multiplied, atol=2)
    np.testing.assert_array_equal(picture.alpha, ALPHA)


def test_a_lossy_webp_with_alpha_is_black_where_it_is_transparent() -> None:
    alpha = np.where(np.arange(47) < 20, 0, 255).astype(np.uint8) * np.ones((61, 1), np.uint8)
    picture = read_picture(_file(Image.fromarray(np.dstack([NOISE, alpha])), "WEBP", quality=80))
    assert not picture.pixels[:, :20].any() and picture.pixels[:, 20:].mean() > 100
    np.testing.assert_array_equal(picture.alpha, alpha)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["PNG", "TIFF", "WEBP"]))
def test_any_alpha_is_laid_over_black_within_a_level(seed: int, kind: str) -> None:
    rgba = np.random.default_rng(seed).integers(0, 256, (9, 7, 4), np.uint8)
    rgba[0, 0, 3] = 0
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    _assert_laid_over_black(_file(Image.fromarray(rgba), kind, **options), rgba[..., :3], rgba[..., 3])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_colour_hidden_below_transparent_pixels_changes_nothing(kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    alpha = np.full((61, 47), 255, np.uint8)
    alpha[20:24, 20:27] = 0
    crops = set()
    for hidden in ((255, 255, 255), (255, 0, 0), (0, 0, 0)):
        colours = np.where(alpha[..., None] == 0, np.array(hidden, np.uint8), NOISE)
        data = _file(Image.fromarray(np.dstack([colours, alpha])), kind, **options)
        crops.add(tuple(store(data, CropSettings(0.5, 24, encoding)).data for encoding in ("jpeg", "png", "raw")))
    assert len(crops) == 1


OPAQUE = {
    "RGBA PNG": _file(RGB.convert("RGBA"), "PNG"),
    "RGBA TIFF": _file(RGB.convert("RGBA"), "TIFF"),
    "RGBA WebP": _file(RGB.convert("RGBA"), "WEBP", lossless=True),
    "RGB PNG with a transparent colour that it lacks": _file(RGB, "PNG", transparency=(0, 0, 0)),
}


@pytest.mark.parametrize("kind", OPAQUE)
def test_opaque_alpha_gives_the_same_bytes_as_none(kind: str) -> None:
    assert read_picture(OPAQUE[kind]).alpha is None
    for encoding in ("jpeg", "png", "raw"):
        settings = CropSettings(0.5, 24, encoding)
        assert store(OPAQUE[kind], settings) == store(_file(RGB, "PNG"), settings)


# Files that are something else

WEB_PAGE = "is a web page (HTML) or XML: download it again, perhaps after signing in"
JSON = "is JSON: download it again, or see whether it holds an error message"
MISTAKEN = {
    "HTML": (b"<!DOCTYPE html><html><head><title>503 Service Unavailable</title></head></html>", WEB_PAGE),
    "HTML after blanks": (b"\n\n  <html>\n<body>Sign in</body></html>", WEB_PAGE),
    "HTML after a byte order mark": (b"\xef\xbb\xbf<HTML></HTML>", WEB_PAGE),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', WEB_PAGE),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', WEB_PAGE),
    "JSON": (b'{"message": "no coverage at this position"}', JSON),
    "a list in JSON": (b'[{"error": 404}]', JSON),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`",
    ),
    "text": (b"no coverage\nat this position\n", "is a text, not an image: 'no coverage at this position'"),
    "text after a byte order mark": (b"\xef\xbb\xbfnot here", "is a text, not an image: 'not here'"),
    # Its 60th byte is the first half of a letter.
    "text of other letters": (
        "Für diese Galaxie gibt es kein Bild in unserer Durchmusterungü, leider".encode(),
        "is a text, not an image: 'Für diese Galaxie gibt es kein Bild in unserer Durchmusteru'",
    ),
    "long text": (b"galaxy " * 1000, f"is a text, not an image: {('galaxy ' * 9)[:60]!r}"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "is a PDF: convert it first"),
    "gzip": (gzip.compress(_file(RGB, "JPEG")), "is packed with gzip: unpack it first"),
    "zip": (b"PK\x03\x04\x14\0\0\0", "is a zip: unpack it, or give the zip itself"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file: convert it first"),
    "FITS": (b"SIMPLE  =                    T".ljust(2880), "is a FITS file: let its name end in .fits"),
    "GIF": (_file(GREY, "GIF"), "not a readable image"),
    "noise": (bytes(range(256)) * 8, "not a readable image"),
    "blanks": (b" \n" * 100, "not a readable image"),
    "zeros": (bytes(1000), "not a readable image"),
    "nothing": (b"", "the file is empty"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISTAKEN)
@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_a_file_that_is_something_else_is_called_that(kind: str, encoding: str) -> None:
    data, reason = MISTAKEN[kind]
    with pytest.raises(ImageError) as caught:
        store(data, CropSettings(0.5, 24, encoding))
    assert str(caught.value) == reason


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_picture_that_is_cut_off_is_refused(kind: str) -> None:
    data, _ = LOSSLESS[kind]
    for share in (0.02, 0.5, 0.9):
        with pytest.raises(ImageError, match=r"^not a readable image"):
            read_picture(data[: int(share * len(data))])


@given(st.binary(max_size=120), st.sampled_from(sorted(LOSSLESS)), st.integers(4, 300))
def test_a_damaged_picture_gives_a_picture_or_an_image_error_and_nothing_else(damage: bytes, kind: str, at: int) -> None:
    data, _ = LOSSLESS[kind]
    try:
        picture = read_picture(data[:at] + damage + data[at + len(damage) :])
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert (picture.pixels.dtype, picture.pixels.ndim) == (np.uint8, 3)
