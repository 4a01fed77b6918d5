"""The bytes of an image file -> its pixels: JPEG, PNG, TIFF, WebP and BMP, as far as they hold 8 bits per channel.

Nothing is chosen in silence: 16 bits would need a stretch, and what lies below transparent pixels is nobody's sky.
"""

import contextlib
import io
import re
import warnings
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from tfrecords.errors import ImageError, lacks_memory, squeezed
from tfrecords.mistaken import START, mistaken, text_of

try:
    import turbojpeg
except ImportError:  # no wheel for 64-bit Arm Linux; png and raw do not need it
    turbojpeg = None
if not hasattr(turbojpeg, "transform"):  # PyTurboJPEG's module has the same name
    turbojpeg = None

# Far above any survey cutout: a larger image or file is a mistake or a decompression bomb.
MAX_PIXELS = 100_000_000
MAX_BYTES = 256_000_000
# What is packed may be so many times larger unpacked: a table, an image in FITS, and all zips inside a zip together. A
# hundred is far above what tables, empty skies and images shrink to. What is small may be emptier.
MOST_UNPACKED, SMALL = 100, 1 << 26
# Modes that Pillow converts to 8-bit RGB without any choice.
_EIGHT_BIT_MODES = ("RGB", "L", "CMYK", "P", "RGBA", "LA", "PA", "RGBa", "La", "RGBX", "1", "YCbCr")
_DEEP_MODES = ("I", "F")  # and I;16, ...: 16-bit and float images would need a stretch first
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "DIB")
_SEVERAL = ("TIFF", "WEBP", "PNG")  # may hold several images
_BITS_PER_SAMPLE = 258  # tag of TIFF
_JPEG_MAGIC = b"\xff\xd8\xff"
# Decoding costs as much as there are scans and pixels. Encoders write some ten scans, and none writes more than a scan for
# each bit of each coefficient; the largest image may have only as many as an encoder writes.
_MOST_SCANS, _SCANS_OF_LARGEST = 100, 16
_SCAN = b"\xff\xda"
# A marker of JPEG: not a stuffed byte, a restart or a filling byte, which lie within a scan.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
# An image of so many pixels for each of its bytes is empty: PNG and JPEG cannot hold more grey or colour pixels, other formats
# could hold a hundred million in fifty bytes. Small images cost little.
_PIXELS_PER_BYTE, _FEW_PIXELS = 1_100, 1_000_000
# Images of one file that are counted for a message: Pillow compares each with all before it.
_MOST_COUNTED = 100
# Upper bound on the memory for decoding one pixel: three colours' coefficients of two bytes, Pillow's four bytes, and two
# copies of three bytes.
_DECODING_BYTES = 16


class Picture(NamedTuple):
    """A decoded image: pixels uint8 (height, width, 3), and alpha uint8 (height, width), 0 where it is transparent.

    alpha is None for an opaque image. Pixels are laid over black, the colour of the sky.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None


def unpacked_limit(packed: int) -> int:
    """The most bytes that so many packed bytes may hold, unpacked."""
    return max(SMALL, MOST_UNPACKED * packed)


def unreadable(error: Exception, width: int = 0, height: int = 0) -> ImageError:
    """The error for an image of this size that a codec refused. Raises MemoryError if the codec lacked memory.

    Codecs hide a lack of memory: libjpeg-turbo's wrapper reports "No error", and Pillow "broken data stream". So if the
    memory for decoding cannot be allocated now, the image is not called unreadable.
    """
    if lacks_memory(error) or str(error) == "No error":
        raise MemoryError(f"{width} x {height} pixels") from error
    try:
        np.empty(width * height * _DECODING_BYTES, np.uint8)
    except MemoryError:
        raise MemoryError(f"{width} x {height} pixels") from error
    return ImageError(f"not a readable image ({squeezed(error, 120)})")


def _check_cost(data: bytes, width: int, height: int) -> None:
    """Raise ImageError for an image that would cost far more to decode than its bytes and pixels are worth."""
    pixels = width * height
    if pixels > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels are more than {MAX_PIXELS:,}")
    if pixels > max(_FEW_PIXELS, _PIXELS_PER_BYTE * len(data)):
        raise ImageError(f"{width} x {height} pixels in {len(data):,} bytes are a decompression bomb, or empty")
    most = min(_MOST_SCANS, _SCANS_OF_LARGEST * MAX_PIXELS // max(pixels, 1))
    # Counted exactly only if need be: thumbnails in the header have scans of their own.
    if data.startswith(_JPEG_MAGIC) and data.count(_SCAN) > most and _has_more_scans(data, most):
        raise ImageError(f"a JPEG of more than {most} scans, which no camera or program writes: save it again")


def _has_more_scans(data: bytes, most: int) -> bool:
    """Whether a JPEG has more than so many scans before its end."""
    place = number = 0
    while number <= most and (marker := _MARKER.search(data, place)):
        place = marker.end()
        kind = marker[1][0]
        if kind == 0xD9:  # the end of the image
            return False
        number += kind == 0xDA
        if kind != 0xD8:  # the start of the image has no length
            place += max(int.from_bytes(data[place : place + 2], "big"), 2)
    return number > most


def _number_of_images(image: Image.Image) -> int:
    """How many images a file holds, as far as they are counted."""
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1)
    number = 1
    with contextlib.suppress(EOFError):
        while number < _MOST_COUNTED:
            image.seek(number)
            number += 1
    image.seek(0)
    return number


def jpeg_header(data: bytes) -> dict[str, Any] | None:
    """The header of an 8-bit lossy JPEG, as libjpeg-turbo reads it; None for other images, or without turbojpeg."""
    if turbojpeg is None or not data.startswith(_JPEG_MAGIC):
        return None
    try:
        header: dict[str, Any] = turbojpeg.decompress_header(data)
    except RuntimeError as error:  # for warnings too
        raise unreadable(error) from error
    _check_cost(data, header["width"], header["height"])
    return header if header["precision"] == 8 and not header["lossless"] else None


def is_usual(header: dict[str, Any]) -> bool:
    """Whether libjpeg-turbo converts the colours of this JPEG to RGB as Pillow does; for CMYK it does not."""
    return header["colorspace"] in (turbojpeg.CS.YCbCr, turbojpeg.CS.GRAY)


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether an image has more than 8 bits per channel. Pillow silently reads some of them as 8-bit."""
    if image.mode.startswith(_DEEP_MODES):
        return True
    if image.format == "PNG":
        return data[24] == 16  # its bit depth
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 8)
    return max(bits) > 8 if isinstance(bits, tuple) else bits > 8


def _decode_with_pillow(data: bytes) -> Picture:
    size = (0, 0)
    try:
        with warnings.catch_warnings():
            # Of large images, for which the next check has a better message, and of odd tags, without the name of the file.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                size = image.size
                _check_cost(data, image.width, image.height)
                if _is_deep(image, data):
                    raise ImageError("more than 8 bits per channel: convert it to 8-bit RGB first")
                if image.mode not in _EIGHT_BIT_MODES:
                    raise ImageError(f"colours of the kind {image.mode}: convert it to 8-bit RGB first")
                if image.format in _SEVERAL and (number := _number_of_images(image)) > 1:
                    several = f"{number} or more" if number == _MOST_COUNTED else str(number)
                    raise ImageError(f"holds {several} images: save the one that is meant alone")
                if image.has_transparency_data:
                    # Pillow converts grey that is multiplied by its alpha in two steps only.
                    return _over_black((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
                return Picture(np.asarray(image.convert("RGB")))
    except ImageError:
        raise
    except UnidentifiedImageError as error:  # its text contains a memory address
        raise ImageError(_what_it_is(data)) from error
    except Exception as error:  # Pillow raises many kinds for damaged files: OSError, SyntaxError, ValueError, ...
        raise unreadable(error, *size) from error


def _what_it_is(data: bytes) -> str:
    """What a file is that is no image, in words."""
    start = data[:START]
    if kind := mistaken(start):
        return f"is {kind}"
    text = text_of(start)
    return f"is a text, not an image: {text}" if text else "not a readable image"


def _over_black(image: Image.Image) -> Picture:
    """An image of mode RGBA laid over black; opaque images have no alpha."""
    alpha = np.asarray(image.getchannel("A"))
    if alpha.min() == 255:
        return Picture(np.asarray(image.convert("RGB")))
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Picture(np.asarray(Image.alpha_composite(black, image).convert("RGB")), alpha)


def read_picture(data: bytes) -> Picture:
    """The pixels of an image file: 8-bit RGB, as stored (EXIF orientation is ignored, but a TIFF is turned as its tag says).

    libjpeg-turbo decodes what it can. It gives the same pixels as Pillow in half the time, and warns about a JPEG that
    is cut off, which Pillow fills up with grey. Any warning is an error: only the first is reported, and a harmless one
    may hide another. Raises ImageError, with the reason, for other files: damaged, cut off, absurdly large, 16-bit, with
    several images, or no image at all.
    """
    if not data:
        raise ImageError("the file is empty")
    if (header := jpeg_header(data)) is not None:
        try:
            wanted = turbojpeg.PF.RGB if is_usual(header) else turbojpeg.PF.UNKNOWN
            pixels = np.asarray(turbojpeg.decompress(data, wanted, raise_on_warnings=True))
        except RuntimeError as error:
            raise unreadable(error, header["width"], header["height"]) from error
        # Versions of libjpeg-turbo differ in how they smooth a progressive image whose last scans are missing.
        if is_usual(header) and not header["progressive"]:
            return Picture(pixels)
    return _decode_with_pillow(data)


def decode(data: bytes) -> np.ndarray:
    """The pixels of an image file as uint8 (height, width, 3). Raises ImageError as `read_picture` does."""
    return read_picture(data).pixels


def grey_of(jpeg: bytes) -> np.ndarray:
    """The brightness of an intact JPEG, uint8 (height, width): quicker than its colours."""
    grey = np.asarray(turbojpeg.decompress(jpeg, turbojpeg.PF.GRAY))
    return grey.reshape(grey.shape[:2])
