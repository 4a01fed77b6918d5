"""Find the images and the table of votes in a folder.

A galaxy's id is its file's name; the path relative to the source tells files apart and goes into the fingerprint,
so that a dataset does not depend on where its source lay.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfrecords.errors import SourceError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
SOLUTIONS_NAMES = ("training_solutions_rev1.csv", "target_data/targets.csv")
_NUMBER = re.compile(r"\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image: its galaxy, its path relative to the source with forward slashes, its size in bytes."""

    galaxy_id: int
    path: str
    bytes: int


@dataclass(frozen=True)
class Source:
    """A folder's images in the order of their galaxies, one each, and its tables of votes (relative paths)."""

    folder: Path
    images: tuple[ImageFile, ...]
    solutions: tuple[str, ...]


def _walk(folder: Path, relative: str = "") -> Iterator[tuple[str, int]]:
    """Relative path and size of every file below `folder`, without hidden ones and macOS' shadow folder."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{relative}{entry.name}/")
            elif entry.is_file():
                yield f"{relative}{entry.name}", entry.stat().st_size


def _galaxy_id(folder: Path, path: str) -> int:
    stem = Path(path).stem
    if not _NUMBER.fullmatch(stem) or int(stem) >= 2**63:
        raise SourceError(f"{folder / path}: the name is no GalaxyID: name each image by its number, like 100008.jpg")
    return int(stem)


def _one_each(folder: Path, images: list[ImageFile]) -> Iterator[ImageFile]:
    """One file per galaxy: copies with the same bytes count once, others are an error that names both."""
    kept: ImageFile | None = None
    for image in sorted(images, key=lambda image: (image.galaxy_id, image.path)):
        if kept is None or image.galaxy_id != kept.galaxy_id:
            kept = image
            yield image
        elif (folder / image.path).read_bytes() != (folder / kept.path).read_bytes():
            raise SourceError(
                f"{folder}: galaxy {image.galaxy_id} has two different images, {kept.path} and {image.path}: remove one of them"
            )


def find(folder: Path) -> Source:
    """The images (JPEG, PNG) and tables of votes anywhere below `folder`.

    Raises SourceError where the folder is missing or has no images, a name is no number, or two different images
    carry the same id.
    """
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise SourceError(f"{folder}: {what}: give --src the folder that holds the images and the table of votes")
    images: list[ImageFile] = []
    solutions: list[str] = []
    zipped = False
    for path, size in _walk(folder):
        if path.lower().endswith(IMAGE_SUFFIXES):
            images.append(ImageFile(_galaxy_id(folder, path), path, size))
        elif any(f"/{path}".endswith(f"/{name}") for name in SOLUTIONS_NAMES):
            solutions.append(path)
        zipped |= path.lower().endswith(".zip")
    if not images:
        hint = "unzip the archives in it first" if zipped else "give --src the folder that holds them"
        raise SourceError(f"{folder}: no JPEG or PNG images in it: {hint}")
    return Source(folder, tuple(_one_each(folder, images)), tuple(solutions))


def solutions_path(source: Source, given: Path | None) -> Path:
    """The table of votes: the one `given`, else the only one in the source. Raises SourceError otherwise."""
    if given is not None:
        if not given.is_file():
            what = "is a folder" if given.is_dir() else "no such file"
            raise SourceError(f"{given}: {what}: give --solutions the table of votes, a CSV file")
        return given
    if not source.solutions:
        raise SourceError(
            f"{source.folder}: no table of votes in it ({' or '.join(SOLUTIONS_NAMES)}): name it with --solutions FILE"
        )
    if len(source.solutions) > 1:
        raise SourceError(
            f"{source.folder}: more than one table of votes ({', '.join(source.solutions)}): name one with --solutions FILE"
        )
    return source.folder / source.solutions[0]
