"""Which image codec is fastest, and which changes no pixel: Pillow, turbojpeg, simplejpeg, OpenCV, imagecodecs and fpng.

Measures, on a seeded sample of real galaxies (424 x 424 JPEG, 4:2:0) held in memory:
A. decoding a whole JPEG; B. encoding the 212 x 212 centre as JPEG of quality 95, 4:2:0; C. encoding it as PNG;
D. cutting the centre out of the JPEG without decoding to pixels, beside decode, crop and encode.

    python benchmarks/codecs.py --src ../shared/kaggle --images 400 --rounds 7 --json codecs.json

Times are CPU milliseconds per image on one core: the median over rounds, each of which runs every codec over all images.
Codecs that are not installed are listed as such; only Pillow and turbojpeg are needed.
"""

import argparse
import ctypes
import datetime
import importlib
import importlib.metadata
import io
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import turbojpeg
from PIL import Image, JpegImagePlugin, features

SIDE, CENTRE = 424, slice(106, 318)
# A lossless cut begins on a 16-pixel block, so at 96; the centre then lies 10 pixels inside it. 224 is 212 + 10, rounded up.
CUT_AT, CUT_SIDE, INSIDE = 96, 224, slice(10, 222)
QUALITY, YCC_420 = 95, 2  # 2 is what Pillow's get_sampling calls 4:2:0
SEED = 2013
Row = dict[str, str | int | float | None]


def optional(name: str) -> Any:
    """The module of that name, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


cv2, simplejpeg, imagecodecs, fpng = (optional(name) for name in ("cv2", "simplejpeg", "imagecodecs", "fpng"))


@dataclass(frozen=True)
class Codec:
    """A row of a table: `call` turns one input into pixels or bytes; `module` is None where it is not installed."""

    name: str
    module: Any
    call: Callable[[Any], Any]


def pillow_decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def turbojpeg_decode(data: bytes) -> np.ndarray:
    return np.asarray(turbojpeg.decompress(data, turbojpeg.PF.RGB, raise_on_warnings=True))


def cv2_decode(data: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def pillow_encode(pixels: np.ndarray, encoding: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, encoding, **options)
    return buffer.getvalue()


def turbojpeg_encode(pixels: np.ndarray) -> bytes:
    # turbojpeg 0.0.2 ignores strides: a view of a larger image would be encoded as garbage, without an error.
    pixels = np.ascontiguousarray(pixels)
    return turbojpeg.compress(pixels, QUALITY, turbojpeg.SAMP.Y420, pixelformat=turbojpeg.PF.RGB)


def cv2_encode(pixels: np.ndarray, suffix: str, **options: int | str) -> bytes:
    """`options` are OpenCV's IMWRITE_ names and values; a text value is the rest of the name of a constant."""
    flags: list[int] = []
    for name, value in options.items():
        flags += [getattr(cv2, f"IMWRITE_{name}"), getattr(cv2, f"IMWRITE_{value}") if isinstance(value, str) else value]
    return cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), flags)[1].tobytes()


def lossless_cut(data: bytes, **options: bool) -> bytes:
    place = {"x": CUT_AT, "y": CUT_AT, "w": CUT_SIDE, "h": CUT_SIDE}
    return turbojpeg.transform(data, **place, crop=True, copynone=True, perfect=False, **options)


def centre(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels[CENTRE, CENTRE])


pillow_jpeg = partial(pillow_encode, encoding="JPEG", quality=QUALITY, subsampling="4:2:0")
cv2_jpeg = partial(cv2_encode, suffix=".jpg", JPEG_QUALITY=QUALITY, JPEG_SAMPLING_FACTOR="JPEG_SAMPLING_FACTOR_420")
cv2_png = partial(cv2_encode, suffix=".png", PNG_COMPRESSION=1)

DECODERS = [
    Codec("Pillow", Image, pillow_decode),
    Codec("turbojpeg", turbojpeg, turbojpeg_decode),
    Codec("simplejpeg", simplejpeg, lambda data: simplejpeg.decode_jpeg(data)),
    Codec("OpenCV", cv2, cv2_decode),
    Codec("imagecodecs", imagecodecs, lambda data: imagecodecs.jpeg_decode(data)),
]
JPEG_ENCODERS = [
    Codec("Pillow", Image, pillow_jpeg),
    Codec("turbojpeg", turbojpeg, turbojpeg_encode),
    # Below quality 96 simplejpeg 1.9 takes the fast, coarser DCT even where told not to: hence its other bytes.
    Codec("simplejpeg", simplejpeg, lambda p: simplejpeg.encode_jpeg(p, QUALITY, colorsubsampling="420", fastdct=False)),
    Codec("OpenCV", cv2, cv2_jpeg),
]
PNG_ENCODERS = [
    *(Codec(f"Pillow, level {n}", Image, partial(pillow_encode, encoding="PNG", compress_level=n)) for n in (1, 3, 6, 9)),
    Codec("Pillow, level 1, RLE", Image, partial(pillow_encode, encoding="PNG", compress_level=1, compress_type=3)),
    Codec("OpenCV, defaults", cv2, partial(cv2_encode, suffix=".png")),
    # FIXED is left out: its files are half as large again at no gain in time.
    *(
        Codec(f"OpenCV, level 1, {name}", cv2, partial(cv2_png, PNG_STRATEGY=f"PNG_STRATEGY_{name}"))
        for name in ("FILTERED", "HUFFMAN_ONLY", "RLE")
    ),
    Codec("OpenCV, level 1, RLE, Paeth", cv2, partial(cv2_png, PNG_STRATEGY="PNG_STRATEGY_RLE", PNG_FILTER="PNG_FILTER_PAETH")),
    Codec("imagecodecs, defaults", imagecodecs, lambda pixels: imagecodecs.png_encode(pixels)),
    Codec("fpng", fpng, lambda pixels: fpng.from_ndarray(pixels)),
]
CUTTERS = [
    Codec("lossless cut", turbojpeg, lossless_cut),
    Codec("lossless cut, optimize", turbojpeg, partial(lossless_cut, optimize=True)),
    Codec("lossless cut, progressive", turbojpeg, partial(lossless_cut, progressive=True)),
    Codec("decode, crop, encode: Pillow", Image, lambda data: pillow_jpeg(centre(pillow_decode(data)))),
    Codec("decode, crop, encode: turbojpeg", turbojpeg, lambda data: turbojpeg_encode(centre(turbojpeg_decode(data)))),
]


def median_ms(tasks: Sequence[tuple[Callable[[Any], Any], Sequence[Any]]], rounds: int) -> list[float]:
    """CPU milliseconds per input of each task (call, inputs). Rounds interleave, so that noise hits all tasks alike."""
    seconds: list[list[float]] = [[] for _ in tasks]
    for _ in range(rounds):
        for spent, (call, inputs) in zip(seconds, tasks, strict=True):
            # CPU time of all threads: neither waiting for a shared core nor a codec's own threads can distort it.
            start = time.process_time()
            for one in inputs:
                call(one)
            spent.append((time.process_time() - start) / len(inputs))
    return [1000 * statistics.median(spent) for spent in seconds]


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what is freed; False where the C library is another.

    By its defaults it may hand every freed image back to the kernel, or none: that depends on what the process did before,
    and page faults make the same call up to three times slower (Pillow decodes in 1.6 ms instead of 0.5 to 0.7).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    mmap_threshold, trim_threshold = -3, -1  # malloc.h
    return bool(mallopt(mmap_threshold, 32 << 20) and mallopt(trim_threshold, 1 << 30))


def mean_bytes(outputs: Sequence[bytes]) -> int:
    return round(statistics.mean(map(len, outputs)))


def equal_count(ours: Sequence[Any], theirs: Sequence[Any]) -> str:
    """How many of the images agree in every pixel, or byte, as "3 of 4"."""
    return f"{sum(map(np.array_equal, ours, theirs))} of {len(ours)}"


def file_columns(files: Sequence[bytes], crops: Sequence[np.ndarray]) -> Row:
    """What files of the centre, or of the lossless cut around it, hold of the crops' pixels."""
    decoded = [pillow_decode(data) for data in files]
    found = [pixels[INSIDE, INSIDE] if len(pixels) == CUT_SIDE else pixels for pixels in decoded]
    errors = [np.abs(pixels.astype(int) - crop).mean() for pixels, crop in zip(found, crops, strict=True)]
    return {"bytes": mean_bytes(files), "mean |difference|": float(np.mean(errors)), "exact pixels": equal_count(found, crops)}


def measure(codecs: Sequence[Codec], inputs: Sequence[Any], rounds: int, columns: Callable[[list[Any]], Row]) -> list[Row]:
    """A row per codec: its time, what `columns` finds in its outputs and, of files, Pillow's time to decode them."""
    here = [codec for codec in codecs if codec.module is not None]
    outputs = [[codec.call(one) for one in inputs] for codec in here]  # also the warm-up
    times = median_ms([(codec.call, inputs) for codec in here], rounds)
    rows: dict[str, Row] = {
        codec.name: {"codec": codec.name, "ms": ms, **columns(output)}
        for codec, ms, output in zip(here, times, outputs, strict=True)
    }
    if isinstance(outputs[0][0], bytes):
        for row, ms in zip(rows.values(), median_ms([(pillow_decode, output) for output in outputs], rounds), strict=True):
            row["decode ms"] = ms
    missing: Row = dict.fromkeys(rows[here[0].name])
    return [rows.get(codec.name, {**missing, "codec": codec.name, "ms": "not installed"}) for codec in codecs]


def all_tables(jpegs: Sequence[bytes], rounds: int) -> dict[str, list[Row]]:
    """The four tables of the module's docstring, by title, from the bytes of 424 x 424 JPEGs."""
    whole = [pillow_decode(data) for data in jpegs]
    crops = [centre(pixels) for pixels in whole]
    pillow_files = [pillow_jpeg(crop) for crop in crops]

    def pixel_columns(outputs: list[np.ndarray]) -> Row:
        return {"equal to Pillow": equal_count(outputs, whole)}

    def crop_columns(outputs: list[bytes]) -> Row:
        return file_columns(outputs, crops)

    def jpeg_columns(outputs: list[bytes]) -> Row:
        return {**file_columns(outputs, crops), "bytes equal to Pillow's": equal_count(outputs, pillow_files)}

    return {
        "A. Decode 424 x 424 JPEG to RGB": measure(DECODERS, jpegs, rounds, pixel_columns),
        "B. Encode 212 x 212 as JPEG, quality 95, 4:2:0": measure(JPEG_ENCODERS, crops, rounds, jpeg_columns),
        "C. Encode 212 x 212 as PNG": measure(PNG_ENCODERS, crops, rounds, crop_columns),
        "D. From the whole JPEG to one of its centre": measure(CUTTERS, jpegs, rounds, crop_columns),
    }


def sample(source: Path, count: int) -> list[bytes]:
    """The bytes of `count` JPEGs below `source`, chosen by SEED; all where there are fewer. Exits if one is of another kind."""
    paths = sorted(source.rglob("*.jpg"))
    if not paths:
        raise SystemExit(f"{source}: no *.jpg below it; point --src at the folder of Kaggle's images")
    chosen = [(path, path.read_bytes()) for path in random.Random(SEED).sample(paths, min(count, len(paths)))]
    for path, data in chosen:
        image = Image.open(io.BytesIO(data))
        if image.size != (SIDE, SIDE) or image.format != "JPEG" or JpegImagePlugin.get_sampling(image) != YCC_420:
            raise SystemExit(f"{path}: not a {SIDE} x {SIDE} JPEG with 4:2:0; point --src at Kaggle's images only")
    return [data for _, data in chosen]


def environment() -> dict[str, str]:
    """Date, processor and versions: without them no number of the tables can be compared."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
    zlib = f"zlib-ng {features.version('zlib_ng')}" if features.check("zlib_ng") else f"zlib {features.version('zlib')}"
    others = {"simplejpeg": simplejpeg, "OpenCV": cv2, "imagecodecs": imagecodecs, "fpng": fpng}
    return {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "CPU": model or "unknown",
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "Pillow": f"{PIL.__version__} (libjpeg-turbo {features.version('libjpeg_turbo')}, {zlib})",
        "turbojpeg": importlib.metadata.version("turbojpeg"),
        **{name: module.__version__ if module else "not installed" for name, module in others.items()},
    }


def text_table(title: str, rows: list[Row]) -> str:
    """The rows as aligned text: names to the left, everything else to the right."""
    formats = {float: "{:.3f}", int: "{:,}", str: "{}", type(None): "-"}
    lines = [list(rows[0]), *([formats[type(value)].format(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    body = ("  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines)
    return "\n".join([title, "", *body])


def main() -> None:
    default = Path(__file__).resolve().parents[2] / "shared" / "kaggle"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--src", type=Path, default=default, help="folder with 424 x 424 JPEGs below it (default: %(default)s)")
    parser.add_argument("--images", type=int, default=400, help="size of the sample (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of which the median counts (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file that also gets the numbers (default: none)")
    options = parser.parse_args()
    if min(options.images, options.rounds) < 1:
        parser.error("--images and --rounds must be at least 1")
    if cv2 is not None:
        cv2.setNumThreads(1)
    kept = keep_freed_memory()
    about = environment()
    print(about["date"], *(f"{name} {version}" for name, version in about.items() if name != "date"), sep=" | ")
    jpegs = sample(options.src, options.images)
    memory = "malloc keeps freed memory" if kept else "malloc as it is: times include page faults"
    print(f"{len(jpegs)} galaxies of {mean_bytes(jpegs):,} bytes on average; {memory}")
    print(f"ms: CPU time per image, median of {options.rounds} rounds; decode ms: Pillow's time to read the result")
    tables = all_tables(jpegs, options.rounds)
    for title, rows in tables.items():
        print(f"\n{text_table(title, rows)}")
    if options.json:
        run = {
            "environment": about,
            "images": len(jpegs),
            "rounds": options.rounds,
            "kept_memory": kept,
            "seed": SEED,
            "tables": tables,
        }
        options.json.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
