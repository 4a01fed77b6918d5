"""Centre crop, resize, encode: what becomes of a decoded image before training.

A JPEG whose crop need not be resized is cropped losslessly: its coefficients are copied, not decoded and encoded
again. JPEG stores blocks, and decoders smooth colour across their edges. A lossless crop therefore consists of whole
blocks: those that cover the crop and one colour sample around it. Once decoded, the crop equals that of the whole
image in every pixel. Source: jpegtran's crop, in libjpeg-turbo's doc/usage.txt.
"""

import io
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from tfrecords import decoding
from tfrecords.checks import ENCODINGS as ENCODINGS
from tfrecords.checks import MAX_SIZE
from tfrecords.decoding import Picture, decode, grey_of, is_usual, jpeg_header, read_picture, unreadable
from tfrecords.emptiness import light_of, no_galaxy
from tfrecords.errors import GalaxyZooError, ImageError, require_setting

# Part of libjpeg-turbo's error for a coefficient that no 8-bit image has.
_OUT_OF_RANGE = "out of range"
# An image of which more is transparent is no picture of a galaxy.
_MAX_TRANSPARENT = 0.1


@dataclass(frozen=True)
class CropSettings:
    """How an image becomes a stored crop.

    crop_fraction: side of the centred square over the image's shorter side, in (0, 1].
    size: side of the crop as stored, in pixels. encoding: one of ENCODINGS. jpeg_quality: 1 to 100, for JPEGs that
    must be encoded again. Raises SettingError for a value out of range.
    """

    crop_fraction: float = 0.5
    size: int = 212
    encoding: str = "jpeg"
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        require_setting(0 < self.crop_fraction <= 1, "crop_fraction", self.crop_fraction, "above 0 and at most 1")
        require_setting(1 <= self.size <= MAX_SIZE, "size", self.size, f"from 1 to {MAX_SIZE:,}")
        require_setting(self.encoding in ENCODINGS, "encoding", self.encoding, f"one of {', '.join(ENCODINGS)}")
        require_setting(1 <= self.jpeg_quality <= 100, "jpeg_quality", self.jpeg_quality, "from 1 to 100")


@dataclass(frozen=True)
class StoredImage:
    """An encoded crop as stored in its record.

    offset: row and column at which the size x size crop begins in the stored image. shape: height and width of that image.
    enlarged: the crop had fewer pixels than `size`. lossless: the crop has the pixels of the source.
    """

    data: bytes
    offset: tuple[int, int]
    shape: tuple[int, int]
    enlarged: bool
    lossless: bool


def require_codec(encoding: str) -> None:
    """Raise GalaxyZooError, with the package to install, if this encoding cannot be written on this machine."""
    if encoding == "jpeg" and decoding.turbojpeg is None:
        raise GalaxyZooError(
            "--encoding jpeg needs the package turbojpeg, which is not installed: `pip install turbojpeg`, "
            "or choose --encoding png or raw (turbojpeg has no wheel for 64-bit Arm Linux, Intel Macs or Python 3.14)"
        )


def crop_box(height: int, width: int, crop_fraction: float) -> tuple[int, int, int]:
    """Row, column and side in pixels of the centred square: 424 x 424 at 0.5 gives (106, 106, 212)."""
    side = int(crop_fraction * min(height, width) + 0.5)
    if side < 1:
        raise ImageError(f"{width} x {height} pixels leave nothing to crop at a fraction of {crop_fraction}")
    return (height - side) // 2, (width - side) // 2, side


def crop(image: np.ndarray, crop_fraction: float, size: int) -> np.ndarray:
    """The centre of an image, uint8 (height, width, 3), as uint8 (size, size, 3); resized (Lanczos) only if necessary."""
    row, column, side = crop_box(image.shape[0], image.shape[1], crop_fraction)
    centre = image[row : row + side, column : column + side]
    if side != size:
        centre = np.asarray(Image.fromarray(centre).resize((size, size), Image.Resampling.LANCZOS))
    return centre


def encode(pixels: np.ndarray, encoding: str, jpeg_quality: int = 95) -> bytes:
    """Pixels, uint8 (height, width, 3), as the bytes of a JPEG or PNG file, or as raw bytes in row-major order."""
    if encoding == "raw":
        return pixels.tobytes()
    buffer = io.BytesIO()
    if encoding == "jpeg":
        Image.fromarray(pixels).save(buffer, "JPEG", quality=jpeg_quality)
    else:
        # Run-length encoding only: 5 times faster than Pillow's default for 6 % more bytes (benchmarks/README.md).
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def decode_stored(data: bytes, encoding: str, size: int, offset: tuple[int, int] = (0, 0)) -> np.ndarray:
    """The crop at `offset` (row, column) of a stored image, uint8 (size, size, 3). Raises ImageError if it is incomplete."""
    if encoding == "raw":
        if len(data) != size * size * 3:
            raise ImageError(f"{len(data)} bytes are not a raw image of {size} x {size} x 3")
        return np.frombuffer(data, np.uint8).reshape(size, size, 3)
    row, column = offset
    pixels = decode(data)[row : row + size, column : column + size]
    if pixels.shape != (size, size, 3):
        raise ImageError(f"too small for a crop of {size} x {size} at {row}, {column}")
    return pixels


def _blocks(start: int, side: int, length: int, colour: int, block: int) -> tuple[int, int]:
    """The first pixel and the end of the whole blocks that cover a crop and one colour sample around it.

    `length`: size of the image along this axis; `colour`: pixels per colour sample; `block`: pixels per block.
    """
    margin = colour if colour > 1 else 0
    first = max(start - margin, 0) // block * block
    stop = -(-(start + side + margin) // block) * block
    return first, min(stop, length)


@lru_cache(maxsize=64)  # the images of a survey have few sizes and samplings
def _cut_box(
    height: int, width: int, sampling: Any, crop_fraction: float, size: int
) -> tuple[tuple[int, int, int, int], tuple[int, int]] | None:
    """Top, left, bottom and right of the blocks to copy, and the row and column of the crop in them.

    None if the crop must be resized, or if the JPEG's colour `sampling` is unusual.
    """
    row, column, side = crop_box(height, width, crop_fraction)
    # Pixels per colour sample, down and across; a block is 8 samples.
    colour = {
        decoding.turbojpeg.SAMP.Y420: (2, 2),
        decoding.turbojpeg.SAMP.Y422: (1, 2),
        decoding.turbojpeg.SAMP.Y444: (1, 1),
        decoding.turbojpeg.SAMP.GRAY: (1, 1),
    }.get(sampling)
    if side != size or colour is None:
        return None
    top, bottom = _blocks(row, side, height, colour[0], 8 * colour[0])
    left, right = _blocks(column, side, width, colour[1], 8 * colour[1])
    return (top, left, bottom, right), (row - top, column - left)


def _cut(data: bytes, header: dict[str, Any], crop_fraction: float, size: int) -> StoredImage | None:
    """The lossless crop of a JPEG, made without decoding it; None if that is impossible."""
    box = _cut_box(header["height"], header["width"], header["subsamp"], crop_fraction, size)
    if box is None:
        return None
    (top, left, bottom, right), offset = box
    try:
        # Optimised Huffman tables, because libjpeg-turbo checks each value only for them. With the standard tables it
        # silently writes nonsense for values that have no code. Only damaged images contain such values, but decoders
        # accept them. copynone drops EXIF and colour profiles, on which no pixel depends.
        checked = decoding.turbojpeg.transform(
            data, x=left, y=top, w=right - left, h=bottom - top, crop=True, copynone=True, perfect=False, optimize=True
        )
        # Back to the standard tables: the bytes of a lossless crop made without the check.
        cut = decoding.turbojpeg.transform(checked, copynone=True, perfect=False)
    except RuntimeError as error:
        if _OUT_OF_RANGE in str(error):
            return None
        raise unreadable(error, header["width"], header["height"]) from error
    # turbojpeg reports some unusual sampling factors as usual ones; with their larger blocks the crop is larger too.
    cut_header = decoding.turbojpeg.decompress_header(cut)
    if (cut_header["height"], cut_header["width"]) != (bottom - top, right - left):
        return None
    stored = StoredImage(cut, offset, (bottom - top, right - left), enlarged=False, lossless=True)
    # Decoders smooth a progressive image whose last scans are missing; its lossless crop would not be smoothed.
    if header["progressive"] and not np.array_equal(
        crop(decode(data), crop_fraction, size), decode_stored(cut, "jpeg", size, stored.offset)
    ):
        return None
    return stored


def check_galaxy(picture: Picture, crop_fraction: float) -> None:
    """Raise ImageError, with the reason, if the crop of a picture shows no galaxy: it is transparent or empty."""
    height, width = picture.pixels.shape[:2]
    row, column, side = crop_box(height, width, crop_fraction)
    box = (slice(row, row + side), slice(column, column + side))
    if picture.alpha is not None:
        clear = float((picture.alpha[box] < 128).mean())
        if clear > _MAX_TRANSPARENT:
            raise ImageError(f"{clear:.0%} of its crop is transparent: give the whole image, without a mask")
    if reason := no_galaxy(light_of(picture.pixels[box])):
        raise ImageError(reason)


def store(data: bytes, settings: CropSettings, check: bool = True) -> StoredImage:
    """The crop of a source image, encoded for its record. Raises ImageError if the image is unreadable or shows no galaxy.

    `data`: the bytes of the image file. With encoding `jpeg`, a JPEG whose crop need not be resized is cropped losslessly;
    call `require_codec` once before. check: whether the crop must show a galaxy.
    """
    if settings.encoding == "jpeg" and (header := jpeg_header(data)) is not None and is_usual(header):
        stored = _cut(data, header, settings.crop_fraction, settings.size)
        if stored is not None:
            row, column = stored.offset
            box = (slice(row, row + settings.size), slice(column, column + settings.size))
            # Colours decide, as for other images; grey, which is decoded in a third of the time, seldom asks for them.
            if check and no_galaxy(grey_of(stored.data)[box]):
                check_galaxy(Picture(decode(stored.data)[box]), 1.0)
            return stored
    return store_picture(read_picture(data), settings, check)


def store_picture(picture: Picture, settings: CropSettings, check: bool = True) -> StoredImage:
    """The crop of a decoded image, encoded for its record. Raises ImageError if it shows no galaxy, unless `check` is False."""
    image = picture.pixels
    if check:
        check_galaxy(picture, settings.crop_fraction)
    _, _, side = crop_box(image.shape[0], image.shape[1], settings.crop_fraction)
    pixels = crop(image, settings.crop_fraction, settings.size)
    shape = (settings.size, settings.size)
    encoded = encode(pixels, settings.encoding, settings.jpeg_quality)
    lossless = side == settings.size and settings.encoding != "jpeg"
    return StoredImage(encoded, (0, 0), shape, side < settings.size, lossless)
