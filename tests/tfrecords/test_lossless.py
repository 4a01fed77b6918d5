"""A lossless crop of a JPEG has exactly the pixels that Pillow decodes from the whole JPEG.

An image that cannot be cropped losslessly is encoded again from those pixels. A damaged one is refused, never stored half grey.
"""

import io
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import turbojpeg
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from tfrecords import images
from tfrecords.errors import ImageError
from tfrecords.images import CropSettings, StoredImage

SHAPES = ((424, 424), (101, 87), (63, 200), (425, 423), (17, 33), (8, 8), (40, 41))
FRACTIONS = (0.37, 0.5, 0.9, 1.0)
# Pixels per colour sample, down and across, and Pillow's value of `subsampling`.
SAMPLINGS: dict[str, tuple[tuple[int, int], int]] = {
    "4:2:0": ((2, 2), 2),
    "4:2:2": ((1, 2), 1),
    "4:4:4": ((1, 1), 0),
    "greyscale": ((1, 1), -1),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True},
    "restart markers by block": {"restart_marker_blocks": 3},
    "restart markers by row": {"restart_marker_rows": 1},
    "progressive with restart markers": {"progressive": True, "restart_marker_blocks": 5},
    "low quality": {"quality": 3},
}


@cache
def _picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Strong colours that change every few pixels: a wrong colour sample makes a difference."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 5 + 2, width // 5 + 2, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray((pixels + generator.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8))


def _file(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _jpeg(height: int, width: int, sampling: str = "4:2:0", seed: int = 0, **options: Any) -> bytes:
    picture = _picture(height, width, seed)
    if sampling == "greyscale":
        return _file(picture.convert("L"), **{"quality": 90, **options})
    return _file(picture, **{"quality": 90, "subsampling": SAMPLINGS[sampling][1], **options})


def _as_pillow_sees(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _crop_as_pillow_sees(data: bytes, fraction: float) -> np.ndarray:
    whole = _as_pillow_sees(data)
    row, column, side = images.crop_box(whole.shape[0], whole.shape[1], fraction)
    return whole[row : row + side, column : column + side]


def _store(data: bytes, fraction: float, encoding: str = "jpeg", quality: int = 95) -> StoredImage:
    """Store without resizing: the size is the side of the crop. A crop of a few pixels need not show a galaxy."""
    height, width = _as_pillow_sees(data).shape[:2]
    return images.store(
        data, CropSettings(fraction, images.crop_box(height, width, fraction)[2], encoding, quality), check=False
    )


def _assert_same_pixels(data: bytes, fraction: float, stored: StoredImage) -> None:
    """The stored crop, decoded by this package and by Pillow, equals the crop of the whole JPEG decoded by Pillow."""
    expected = _crop_as_pillow_sees(data, fraction)
    side = len(expected)
    np.testing.assert_array_equal(images.decode_stored(stored.data, "jpeg", side, stored.offset), expected)
    whole = _as_pillow_sees(stored.data)
    assert whole.shape == (*stored.shape, 3)
    row, column = stored.offset
    np.testing.assert_array_equal(whole[row : row + side, column : column + side], expected)


def _assert_fewest_blocks(start: int, side: int, length: int, sample: int, offset: int, stored: int) -> None:
    """Along one axis: whole blocks, as few as cover the crop and one colour sample around it."""
    block, around = 8 * sample, sample if sample > 1 else 0
    first, stop = start - offset, start - offset + stored
    assert first % block == 0 and (stop % block == 0 or stop == length)
    assert first <= max(start - around, 0) < first + block
    assert (stop - 1) // block * block < min(start + side + around, length) <= stop <= length


def _encoded_again(data: bytes, fraction: float, size: int | None = None, quality: int = 95) -> StoredImage:
    """The crop of the image as Pillow decodes it, encoded by Pillow: only the codec loses anything."""
    crop = Image.fromarray(_crop_as_pillow_sees(data, fraction))
    side = crop.width
    if size is not None:
        crop = crop.resize((size, size), Image.Resampling.LANCZOS)
    return StoredImage(_file(crop, quality=quality), (0, 0), crop.size, enlarged=side < crop.width, lossless=False)


def _assert_same_pixels_or_encoded_again(data: bytes, fraction: float, stored: StoredImage) -> None:
    if stored != _encoded_again(data, fraction):
        _assert_same_pixels(data, fraction, stored)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_cut_jpeg_has_the_pixels_of_the_whole_and_the_fewest_blocks(sampling: str, variant: str) -> None:
    down, across = SAMPLINGS[sampling][0]
    for height, width in SHAPES:
        data = _jpeg(height, width, sampling, **VARIANTS[variant])
        for fraction in FRACTIONS:
            stored = _store(data, fraction)
            _assert_same_pixels(data, fraction, stored)
            row, column, side = images.crop_box(height, width, fraction)
            _assert_fewest_blocks(row, side, height, down, stored.offset[0], stored.shape[0])
            _assert_fewest_blocks(column, side, width, across, stored.offset[1], stored.shape[1])
            assert not stored.enlarged


@given(
    st.integers(1, 130), st.integers(1, 130), st.floats(0.02, 1), st.sampled_from(list(SAMPLINGS)), st.integers(1, 100),
    st.integers(0, 9), st.booleans(),
)  # fmt: skip
@settings(max_examples=200)
def test_any_jpeg_that_is_only_cut_loses_nothing(
    height: int, width: int, fraction: float, sampling: str, quality: int, seed: int, progressive: bool
) -> None:
    assume(int(fraction * min(height, width) + 0.5) >= 1)
    data = _jpeg(height, width, sampling, seed, quality=quality, progressive=progressive)
    _assert_same_pixels(data, fraction, _store(data, fraction))


@pytest.mark.slow
def test_every_real_galaxy_is_stored_without_loss_in_a_third_of_its_bytes(kaggle: Path) -> None:
    paths = sorted(kaggle.glob("images_*/*.jpg"))
    assert len(paths) == 4261
    sizes = []
    for path in paths:
        data = path.read_bytes()
        stored = images.store(data, CropSettings(0.5, 212, "jpeg", 95))
        assert (stored.offset, stored.shape, stored.enlarged) == ((10, 10), (224, 224), False), path
        decoded = images.decode_stored(stored.data, "jpeg", 212, stored.offset)
        assert np.array_equal(decoded, np.asarray(Image.open(io.BytesIO(data)))[106:318, 106:318]), path
        sizes.append(len(stored.data))
    assert np.mean(sizes) < 5200


def test_what_is_stored_carries_nothing_but_the_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees
    exif[0x010E] = "a spiral"
    data = _jpeg(101, 87, exif=exif, icc_profile=b"profile" * 50, comment=b"seen by a volunteer")
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == 6
    for fraction in FRACTIONS:
        stored = _store(data, fraction)
        assert stored.data == _store(_jpeg(101, 87), fraction).data
        _assert_same_pixels(data, fraction, stored)
        for gone in (b"Exif", b"a spiral", b"ICC_PROFILE", b"profile", b"volunteer"):
            assert gone in data and gone not in stored.data


def test_what_lies_behind_the_end_mark_is_left_out() -> None:
    data = _jpeg(101, 87)
    assert _store(data + b"another picture" * 50, 0.5) == _store(data + data, 0.5) == _store(data, 0.5)


def test_the_same_jpeg_gives_the_same_bytes() -> None:
    for sampling in SAMPLINGS:
        data = _jpeg(101, 87, sampling)
        assert _store(data, 0.5) == _store(bytes(bytearray(data)), 0.5)


def _turbo(**options: Any) -> bytes:
    """A JPEG written by libjpeg-turbo: Pillow can write neither these samplings nor arithmetic coding."""
    return turbojpeg.compress(np.asarray(_picture(101, 87)), 90, pixelformat=turbojpeg.PF.RGB, **options)


NOT_CUT = {
    "CMYK": _file(_picture(101, 87).convert("CMYK")),
    "4:4:0": _turbo(subsamp=turbojpeg.SAMP.Y440),
    "4:1:1": _turbo(subsamp=turbojpeg.SAMP.Y411),
    "4:4:1": _turbo(subsamp=turbojpeg.SAMP.Y441),
    "RGB": _file(_picture(101, 87), keep_rgb=True),
    "lossless": _turbo(subsamp=turbojpeg.SAMP.Y444, lossless=True),
    "PNG": _file(_picture(101, 87), "PNG"),
    "greyscale PNG": _file(_picture(101, 87).convert("L"), "PNG"),
}


@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("kind", NOT_CUT)
def test_what_cannot_be_cut_is_encoded_again_from_pillows_pixels(kind: str, fraction: float) -> None:
    for quality in (60, 95):
        assert _store(NOT_CUT[kind], fraction, quality=quality) == _encoded_again(NOT_CUT[kind], fraction, quality=quality)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", [20, 43, 45, 60])
def test_what_is_resized_is_encoded_again_from_pillows_pixels(size: int, sampling: str) -> None:
    data = _jpeg(101, 87, sampling)  # the crop's side at 0.5 is 44
    stored = images.store(data, CropSettings(0.5, size, "jpeg", 95))
    assert stored == _encoded_again(data, 0.5, size)
    assert stored.enlarged is (size > 44)


@pytest.mark.parametrize("progressive", [False, True])
def test_arithmetic_coding_becomes_huffman_coding_without_loss(progressive: bool) -> None:
    data = _turbo(subsamp=turbojpeg.SAMP.Y420, arithmetic=True, progressive=progressive)
    stored = _store(data, 0.5)
    _assert_same_pixels(data, 0.5, stored)
    assert b"\xff\xc0" in stored.data and b"\xff\xcc" not in stored.data  # baseline, which TensorFlow decodes


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _sampled(height: int, width: int, factors: list[tuple[int, int]]) -> bytes:
    """A JPEG whose frame header has these sampling factors (across, down), one pair for each component.

    A scan of one component does not depend on the component's factors. So the scans of greyscale JPEGs can be joined into
    one JPEG of any sampling.
    """
    most_across, most_down = np.max(factors, axis=0)
    frame, scans, tables = b"", b"", b""
    for number, (across, down) in enumerate(factors, 1):
        rows, columns = -(-height * down // most_down), -(-width * across // most_across)
        plane = _file(_picture(rows, columns, number).convert("L"), quality=90)
        quantization, header, huffman, scan = (plane.index(bytes((0xFF, marker))) for marker in (0xDB, 0xC0, 0xC4, 0xDA))
        tables = plane[quantization:header] + plane[huffman:scan]
        frame += bytes((number, across << 4 | down, 0))
        scans += _segment(0xDA, bytes((1, number, 0, 0, 63, 0))) + plane[scan + 10 : -2]
    size = struct.pack(">BHHB", 8, height, width, len(factors))
    return b"\xff\xd8" + _segment(0xC0, size + frame) + tables + scans + b"\xff\xd9"


@pytest.mark.parametrize("factors", ["11 11 11", "21 11 11", "22 11 11", "22", "42"])
def test_each_component_in_a_scan_of_its_own_is_cut_as_if_in_one(factors: str) -> None:
    for height, width in ((101, 87), (61, 73)):
        data = _sampled(height, width, [(int(pair[0]), int(pair[1])) for pair in factors.split()])
        for fraction in FRACTIONS:
            stored = _store(data, fraction)
            _assert_same_pixels(data, fraction, stored)
            assert stored.offset != (0, 0)  # cropped losslessly, not encoded again


@pytest.mark.parametrize(
    "factors",
    [
        "22 12 12",  # 4:2:2, but in blocks as high as those of 4:2:0: some cameras write this
        "12 12 12", "21 21 21", "31 31 31", "22 22 22",  # 4:4:4
        "22 21 21",  # 4:4:0
        "42 21 21", "22 11 21", "11 22 22", "11 11 22", "44 22 22", "41 11 11", "14 11 11",
    ],
)  # fmt: skip
def test_unusual_sampling_factors_cost_no_more_than_encoding_again(factors: str) -> None:
    for height, width in ((101, 87), (61, 73), (100, 96)):
        data = _sampled(height, width, [(int(pair[0]), int(pair[1])) for pair in factors.split()])
        np.testing.assert_array_equal(images.decode(data), _as_pillow_sees(data))
        for fraction in FRACTIONS:
            _assert_same_pixels_or_encoded_again(data, fraction, _store(data, fraction))


def _scans(data: bytes) -> list[tuple[int, int]]:
    """Positions of the first byte of each scan's header, and of the byte after the scan."""
    scans, at = [], 2
    while data[at + 1] != 0xD9:
        marker, begin = data[at + 1], at
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            while data[at] != 0xFF or data[at + 1] == 0 or 0xD0 <= data[at + 1] <= 0xD7:
                at += 1
            scans.append((begin, at))
    return scans


INCOMPLETE = [(sampling, missing) for sampling in ("4:2:0", "4:4:4") for missing in (1, 3, 6, 9)] + [
    ("greyscale", missing) for missing in (1, 3, 5)
]


@pytest.mark.parametrize(("sampling", "missing"), INCOMPLETE)
@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_an_incomplete_progressive_jpeg_is_stored_as_smooth_as_pillow_shows_it(
    sampling: str, missing: int, encoding: str
) -> None:
    for height, width in ((101, 87), (96, 96), (212, 212)):
        whole = _jpeg(height, width, sampling, progressive=True)
        data = whole[: _scans(whole)[-missing][0]] + b"\xff\xd9"
        for fraction in (0.37, 0.5, 1.0):
            stored = _store(data, fraction, encoding)
            expected = _crop_as_pillow_sees(data, fraction)
            again = _as_pillow_sees(_file(Image.fromarray(expected), quality=95))
            lost = np.abs(again.astype(int) - expected).mean()
            decoded = images.decode_stored(stored.data, encoding, len(expected), stored.offset)
            assert np.abs(decoded.astype(int) - expected).mean() <= lost + 1  # without smoothing, the blocks alone differ by 10


@pytest.mark.parametrize(("sampling", "missing"), INCOMPLETE)
def test_an_incomplete_progressive_jpeg_decodes_as_pillow_decodes_it(sampling: str, missing: int) -> None:
    for height, width in ((101, 87), (96, 96)):
        whole = _jpeg(height, width, sampling, progressive=True)
        data = whole[: _scans(whole)[-missing][0]] + b"\xff\xd9"
        np.testing.assert_array_equal(images.decode(data), _as_pillow_sees(data))


WHOLE = {
    f"{sampling}, {variant}": _jpeg(101, 87, sampling, **VARIANTS[variant])
    for sampling in SAMPLINGS
    for variant in ("baseline", "progressive", "restart markers by row")
}


@given(
    st.sampled_from(list(WHOLE)), st.floats(0, 1, exclude_max=True), st.booleans(), st.sampled_from(["jpeg", "png"]),
    st.sampled_from(FRACTIONS),
)  # fmt: skip
@settings(max_examples=400)
def test_a_jpeg_that_was_cut_off_is_never_stored(
    kind: str, length: float, end_mark: bool, encoding: str, fraction: float
) -> None:
    """Nor with an end mark appended, unless whole scans are left: that is an incomplete JPEG, not one cut off."""
    data = WHOLE[kind]
    kept = int(length * (len(data) - 2))
    between = {place for begin, stop in _scans(data) for place in (begin, begin + 1, stop, stop + 1)}
    assume(not (end_mark and kept in between))
    side = images.crop_box(101, 87, fraction)[2]
    with pytest.raises(ImageError):
        images.store(data[:kept] + b"\xff\xd9" * end_mark, CropSettings(fraction, side, encoding, 95))


@pytest.mark.parametrize("kind", WHOLE)
def test_a_jpeg_that_lacks_its_end_mark_alone_is_refused_or_whole(kind: str) -> None:
    data = WHOLE[kind]
    for kept in (len(data) - 1, len(data) - 2):
        try:
            stored = images.store(data[:kept], CropSettings(0.5, 44, "jpeg", 95))
        except ImageError:
            continue
        _assert_same_pixels(data, 0.5, stored)


SEGMENTS = {"DQT": (0xDB,), "SOF": (0xC0, 0xC2), "DHT": (0xC4,), "SOS": (0xDA,)}


def _with_extraneous(data: bytes, segment: str) -> bytes:
    """The JPEG with three stray bytes before the first segment of a kind."""
    at = max(data.find(bytes((0xFF, marker))) for marker in SEGMENTS[segment])
    assert at > 0
    return data[:at] + b"\0\0\0" + data[at:]


@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_jpeg_that_the_decoder_warns_of_is_refused_with_the_warning(sampling: str, segment: str) -> None:
    data = _with_extraneous(_jpeg(101, 87, sampling), segment)
    for encoding in images.ENCODINGS:
        with pytest.raises(ImageError, match="extraneous bytes before marker"):
            images.store(data, CropSettings(0.5, 44, encoding, 95))


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize("variant", ["baseline", "progressive", "restart markers by row"])
def test_extraneous_bytes_do_not_hide_that_a_jpeg_was_cut_off(variant: str, segment: str, encoding: str) -> None:
    whole = _with_extraneous(_jpeg(101, 87, **VARIANTS[variant]), segment)
    at = whole.index(b"\xff\xda")
    for kept in (at + 3 * (len(whole) - at) // 10, at + 7 * (len(whole) - at) // 10):
        with pytest.raises(ImageError):
            images.store(whole[:kept] + b"\xff\xd9", CropSettings(0.5, 44, encoding, 95))


# Numbers of canonical Huffman codes of 1, 2, 3 ... bits, as in Annex K.3 of ITU-T T.81.
_DC_COUNTS = (0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0)


def _codes(counts: tuple[int, ...], symbols: tuple[int, ...]) -> dict[int, str]:
    codes, code, at = {}, 0, 0
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            codes[symbols[at]] = format(code, f"0{length}b")
            code, at = code + 1, at + 1
        code <<= 1
    return codes


def _with_size(value: int) -> tuple[int, str]:
    """The size of a coefficient in bits, and the bits."""
    size = abs(value).bit_length()
    return size, format(value if value > 0 else value + (1 << size) - 1, f"0{size}b") if size else ""


def _grey_jpeg(blocks: list[list[int]], ac_symbols: tuple[int, ...]) -> bytes:
    """A grey JPEG of 64 x 64 pixels. blocks: for each of the 64, the step in DC from the block before, and the first AC values.

    ac_symbols: the two symbols in the AC table besides "end of block".
    """
    symbols = (0x00, *ac_symbols)
    dc, ac = _codes(_DC_COUNTS, tuple(range(12))), _codes((0, 3, *(0,) * 14), symbols)
    bits = ""
    for difference, *values in blocks:
        size, extra = _with_size(difference)
        bits += dc[size] + extra
        for value in values:
            size, extra = _with_size(value)
            bits += ac[size] + extra
        bits += ac[0x00]
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    return (
        b"\xff\xd8"
        + _segment(0xDB, bytes([0] + [1] * 64))
        + _segment(0xC0, struct.pack(">BHHB3B", 8, 64, 64, 1, 1, 0x11, 0))
        + _segment(0xC4, bytes([0x00, *_DC_COUNTS, *range(12)]))
        + _segment(0xC4, bytes([0x10, 0, 3, *(0,) * 14, *symbols]))
        + _segment(0xDA, bytes([1, 1, 0x00, 0, 63, 0]))
        + scan
        + b"\xff\xd9"
    )


def _flat(**changes: list[int]) -> list[list[int]]:
    blocks = [[0] for _ in range(64)]
    for place, block in changes.items():
        blocks[int(place.removeprefix("at"))] = block
    return blocks


def test_values_that_no_8_bit_image_has_are_never_cut_to_others() -> None:
    """A value of 11 bits: decoders accept it, but libjpeg-turbo has no code for it, and would write nonsense."""
    usual = _grey_jpeg(_flat(at27=[100, 900]), (10, 9))
    assert _store(usual, 0.5).lossless
    _assert_same_pixels(usual, 0.5, _store(usual, 0.5))
    damaged = _grey_jpeg(_flat(at27=[100, 1500]), (11, 9))
    _as_pillow_sees(damaged)  # without a warning
    assert _store(damaged, 0.5) == _encoded_again(damaged, 0.5)
    unused = _grey_jpeg(_flat(at27=[100, 300]), (11, 9))  # a table with an unused code for 11 bits
    assert _store(unused, 0.5).lossless
    _assert_same_pixels(unused, 0.5, _store(unused, 0.5))


def test_a_step_between_neighbours_of_the_cut_alone_that_no_code_can_write_is_noticed() -> None:
    """In the whole image each step in brightness has a code. The crop makes blocks neighbours that are two such steps apart."""
    damaged = _grey_jpeg(_flat(at22=[1500], at23=[1500]), (10, 9))
    _as_pillow_sees(damaged)
    assert _store(damaged, 0.5) == _encoded_again(damaged, 0.5)


def test_the_damaged_jpeg_that_both_decoders_accept_is_encoded_again_from_its_pixels() -> None:
    path = Path(__file__).parents[3] / "shared" / "cases" / "cut-differs.jpg"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    data = path.read_bytes()
    for fraction in (0.25, 0.5, 0.75, 1.0):
        assert _store(data, fraction) == _encoded_again(data, fraction)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_look_at_each_value_changes_no_byte_of_a_cut(sampling: str, variant: str) -> None:
    data = _jpeg(64, 80, sampling, **VARIANTS[variant])
    stored = _store(data, 0.5)
    (top, left), (height, width) = stored.offset, stored.shape
    row, column, _ = images.crop_box(64, 80, 0.5)
    box = {"x": column - left, "y": row - top, "w": width, "h": height}
    assert not stored.lossless or stored.data == turbojpeg.transform(data, **box, crop=True, copynone=True, perfect=False)


@settings(max_examples=150)
@given(st.integers(0, 3), st.lists(st.tuples(st.integers(20, 700), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_jpeg_is_refused_or_has_its_own_pixels(seed: int, damage: list[tuple[int, int]]) -> None:
    content = bytearray(_jpeg(64, 64, "4:2:0", seed))
    for place, value in damage:
        content[place % len(content)] = value
    data = bytes(content)
    try:
        stored = images.store(data, CropSettings(0.5, 32, "jpeg", 95))
        expected = images.crop(images.decode(data), 0.5, 32)
    except ImageError:
        return
    if stored.lossless:
        np.testing.assert_array_equal(images.decode_stored(stored.data, "jpeg", 32, stored.offset), expected)
