"""Sources for tests of what lies where: files written to folders and zips, and what is read from them."""

import hashlib
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from preprocess import sources
from preprocess.sources import Source
from preprocess.sources.listing import ImageReader, Listing
from tests.preprocess.sources.packing import Files, packed
from tfrecords.errors import SourceError

JPEG, OTHER = b"\xff\xd8 one galaxy", b"\xff\xd8 another one"
VOTES = b"GalaxyID,Class1.1\n7,1\n"
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED

Find = Callable[[Path], Source]
Contents = list[tuple[int, str, bytes]]
KINDS = "JPEG, PNG, TIFF, WebP, BMP or FITS"


def write_files(folder: Path, *names: str, content: bytes = JPEG) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def keep(path: Path, files: Files) -> Path:
    """Write these files to a folder, or to a zip if `path` ends in .zip."""
    if path.suffix == ".zip":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(packed(files))
    else:
        path.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_files(path, name, content=content)
    return path


def contents_of(source: Source) -> Contents:
    """Id, path and bytes of every image."""
    images = source.images
    with ImageReader() as reader:
        found = [(int(images.galaxy_id[row]), images.path(row), reader.read(images, row)[0]) for row in range(len(images))]
    assert [len(content) for _, _, content in found] == images.size.tolist()
    return found


def ids_and_paths(source: Source) -> list[tuple[int, str]]:
    return [(galaxy_id, path) for galaxy_id, path, _ in contents_of(source)]


def splits_in(images: Listing) -> dict[int, str]:
    return {int(galaxy_id): images.places[place].split for galaxy_id, place in zip(images.galaxy_id, images.place, strict=True)}


def votes_of(source: Source, given: Path | None = None) -> bytes | None:
    table = sources.solutions_table(source, given, (), lambda table: False)
    return table.read() if table else None


def refusal(find: Find, path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        find(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def images_in(folder: str, *galaxy_ids: int) -> Files:
    return {f"{folder}/{galaxy_id}.jpg": random.Random(galaxy_id).randbytes(galaxy_id % 900) for galaxy_id in galaxy_ids}


TRAINING = images_in("images_training_rev1", 100008, 100023, 100053, 100078)
TEST = images_in("images_test_rev1", 100018, 100037, 100042)
TABLE = {"training_solutions_rev1.csv": VOTES}
BENCHMARKS = {f"{name}_benchmark.csv": b"GalaxyID,Class1.1\n7,0\n" for name in ("all_zeros", "all_ones", "central_pixel")}
KAGGLE = TRAINING | TEST | TABLE | BENCHMARKS
ZIPS = {
    "images_training_rev1.zip": packed(TRAINING),
    "images_test_rev1.zip": packed(TEST),
    "training_solutions_rev1.zip": packed(TABLE),
    **{f"{name.removesuffix('.csv')}.zip": packed({name: content}) for name, content in BENCHMARKS.items()},
}
SOME_ZIPS = {name: content for name, content in ZIPS.items() if name != "images_test_rev1.zip"}
WAYS: dict[str, Files] = {
    "a folder": KAGGLE,
    "a plain zip": {"kaggle.zip": packed(KAGGLE)},
    "a stored plain zip": {"kaggle.zip": packed(KAGGLE, STORED)},
    "stored zips in a zip": {"galaxy-zoo.zip": packed(ZIPS, STORED)},
    "deflated zips in a zip": {"galaxy-zoo.zip": packed(ZIPS)},
    "zips in a zip in a zip": {"backup.zip": packed({"2014/galaxy-zoo.zip": packed(ZIPS)}, STORED)},
    "a folder of zips": ZIPS,
    "zips in sub-folders": {f"downloads/{number}/{name}": content for number, (name, content) in enumerate(ZIPS.items())},
    "half unzipped": SOME_ZIPS | TEST,
    "unzipped beside its zips": KAGGLE | ZIPS,
    "unzipped beside the zip of all": KAGGLE | {"galaxy-zoo.zip": packed(ZIPS, STORED)},
    "unzipped beside the deflated zip of all": KAGGLE | {"galaxy-zoo.zip": packed(ZIPS)},
    "all of it in every way": KAGGLE | ZIPS | {"a.zip": packed(ZIPS), "b.zip": packed(ZIPS, STORED), "c.zip": packed(KAGGLE)},
}
EXPECTED = sorted((int(Path(name).stem), name, content) for name, content in (TRAINING | TEST).items())


def top_63_bits(path: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(path)).digest(), "big") >> (256 - 63)


def named_by_path(*paths: str) -> list[tuple[int, str]]:
    """Images whose ids are hashes of their paths."""
    return sorted((top_63_bits(path), path) for path in paths)
