"""Centre crop, resize, encode, decode: the only place that touches pixels before training."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from tfrecords.errors import ImageError

ENCODINGS = ("jpeg", "png", "raw")
# Far above any survey cutout; a larger header is a mistake or a decompression bomb.
MAX_PIXELS = 100_000_000
# What Pillow opens and converts to 8-bit RGB without a choice of ours; 16-bit and float images need a stretch first.
_EIGHT_BIT_MODES = ("RGB", "L", "CMYK", "P", "RGBA", "LA", "1", "YCbCr")


@dataclass(frozen=True)
class CropSettings:
    """How an image becomes a stored crop.

    crop_fraction: side of the centred square over the image's shorter side, in (0, 1].
    size: side of the stored image in pixels. encoding: one of ENCODINGS. jpeg_quality: 1 to 100.
    """

    crop_fraction: float
    size: int
    encoding: str
    jpeg_quality: int


def decode(data: bytes) -> Image.Image:
    """A JPEG or PNG file as an 8-bit RGB image, pixels as stored (EXIF orientation is ignored).

    Raises ImageError, with the reason, for anything else: damaged, cut off, absurdly large or 16-bit.
    """
    if not data:
        raise ImageError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the next check says it better
            opened = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        with opened as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
            # Pillow reads 16-bit colour PNGs as 8-bit without a word; byte 24 of a PNG is its bit depth.
            if image.mode not in _EIGHT_BIT_MODES or (image.format == "PNG" and data[24] == 16):
                raise ImageError("more than 8 bits per channel: convert it to 8-bit RGB first")
            return image.convert("RGB")
    except ImageError:
        raise
    except UnidentifiedImageError as error:  # its own text holds a memory address
        raise ImageError("not a readable JPEG or PNG") from error
    except Exception as error:  # Pillow raises many kinds for damaged files: OSError, SyntaxError, ValueError, ...
        raise ImageError(f"not a readable JPEG or PNG ({' '.join(str(error).split())[:120]})") from error


def crop_box(height: int, width: int, crop_fraction: float) -> tuple[int, int, int]:
    """Row, column and side in pixels of the centred square: 424 x 424 at 0.5 gives (106, 106, 212)."""
    side = int(crop_fraction * min(height, width) + 0.5)
    if side < 1:
        raise ImageError(f"{width} x {height} pixels leave nothing to crop at a fraction of {crop_fraction}")
    return (height - side) // 2, (width - side) // 2, side


def crop(image: Image.Image, crop_fraction: float, size: int) -> np.ndarray:
    """The centre of an RGB image as uint8 (size, size, 3); resized with Lanczos only where the crop is not `size`."""
    row, column, side = crop_box(image.height, image.width, crop_fraction)
    centre = image.crop((column, row, column + side, row + side))
    if side != size:
        centre = centre.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(centre)


def encode(pixels: np.ndarray, encoding: str, jpeg_quality: int = 95) -> bytes:
    """uint8 (height, width, 3) as the bytes of a JPEG or PNG file, or its raw bytes in row-major order."""
    if encoding == "raw":
        return pixels.tobytes()
    buffer = io.BytesIO()
    if encoding == "jpeg":
        Image.fromarray(pixels).save(buffer, "JPEG", quality=jpeg_quality)
    else:
        Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def decode_stored(data: bytes, encoding: str, size: int, offset: tuple[int, int] = (0, 0)) -> np.ndarray:
    """A stored image as uint8 (size, size, 3), cut out at `offset` (row, column). Raises ImageError if it is too small."""
    if encoding == "raw":
        if len(data) != size * size * 3:
            raise ImageError(f"{len(data)} bytes are no raw image of {size} x {size} x 3")
        return np.frombuffer(data, np.uint8).reshape(size, size, 3)
    row, column = offset
    pixels = np.asarray(decode(data))[row : row + size, column : column + size]
    if pixels.shape != (size, size, 3):
        raise ImageError(f"holds no crop of {size} x {size} at {row}, {column}")
    return pixels


@dataclass(frozen=True)
class StoredImage:
    """An encoded crop and where in it the size x size crop begins; `enlarged`: the crop had fewer pixels than `size`."""

    data: bytes
    offset: tuple[int, int]
    enlarged: bool


def store(data: bytes, settings: CropSettings) -> StoredImage:
    """The bytes of a source image as the crop that goes into its record. Raises ImageError where it is unreadable."""
    image = decode(data)
    _, _, side = crop_box(image.height, image.width, settings.crop_fraction)
    pixels = crop(image, settings.crop_fraction, settings.size)
    return StoredImage(encode(pixels, settings.encoding, settings.jpeg_quality), (0, 0), side < settings.size)
