"""The bytes of a dataset follow from its source's content and the settings, not from the machine, place or packing."""

import hashlib
import os
import random
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preprocess.job import BadImages, BuildSettings, build_dataset

Settings = Callable[..., BuildSettings]
Contents = Callable[[Path], dict[str, bytes]]
FORMS = (
    "folder", "plain zip", "zips, deflated in a zip", "half unzipped", "zips, stored in a zip", "zips beside their folders",
    "copied in another order at another time",
)  # fmt: skip
BAD = BadImages(max_fraction=0.3)


def _zip(folder: Path, target: Path) -> Path:
    """Zip a folder, under its name as in Kaggle's zips, or a single file."""
    return Path(shutil.make_archive(str(target / folder.stem), "zip", folder.parent, folder.name))


def _pack(src: Path, form: str, target: Path) -> Path:
    """Put the source in another form into a new folder `target`."""
    if form == "folder":
        return src
    target.mkdir()
    parts = sorted(src.iterdir())
    if form.startswith("copied"):
        paths = [path for path in src.rglob("*") if path.is_file()]
        random.Random(1).shuffle(paths)
        for number, path in enumerate(paths):
            copy = target / "elsewhere" / path.relative_to(src)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            os.utime(copy, (1e9 + number, 1e9 + number))
        return target / "elsewhere"
    if form == "plain zip":
        return Path(shutil.make_archive(str(target / "kaggle"), "zip", src))
    if form == "half unzipped":
        _zip(parts[0], target)
        for part in parts[1:]:
            (shutil.copytree if part.is_dir() else shutil.copy)(part, target / part.name)
        return target
    if form == "zips beside their folders":
        shutil.copytree(src, target, dirs_exist_ok=True)
        for part in parts:
            _zip(part, target)
        return target
    method = zipfile.ZIP_STORED if "stored" in form else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(target / "galaxy-zoo-the-galaxy-challenge.zip", "w", method) as outer:
        for part in parts:
            inner = _zip(part, target)
            outer.write(inner, inner.name)
            inner.unlink()
    return target / "galaxy-zoo-the-galaxy-challenge.zip"


@pytest.fixture(scope="module")
def spoiled(survey: Path, spoil: Callable[[Path], dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A survey with six bad images. Read-only."""
    src = Path(shutil.copytree(survey, tmp_path_factory.mktemp("determinism") / "kaggle"))
    spoil(src / "images_training_rev1")
    return src


@pytest.fixture(scope="module")
def forms(spoiled: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The survey with bad images in every form. Read-only."""
    folder = tmp_path_factory.mktemp("forms")
    return {form: _pack(spoiled, form, folder / str(number)) for number, form in enumerate(FORMS)}


def _runs(forms: dict[str, Path], encoding: str) -> Iterator[tuple[str, Path, int]]:
    for form, src in forms.items():
        if encoding == "jpeg" or form in FORMS[:4]:  # how bytes are read does not depend on the encoding
            yield form, src, 1
    for workers in (2, 5):
        yield f"{workers} workers", forms["folder"], workers


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_every_byte_is_the_same_however_the_source_is_packed_and_by_however_many_workers(
    forms: dict[str, Path], build_settings: Settings, contents: Contents, tmp_path: Path, encoding: str
) -> None:
    settings = build_settings(encoding=encoding, examples_per_shard=6)
    datasets = {
        name: contents(build_dataset(src, tmp_path / name, settings, workers=workers, bad=BAD).dataset.folder)
        for name, src, workers in _runs(forms, encoding)
    }
    first = datasets["folder"]
    assert len(first) == 12 and first["rejected.csv"].count(b"\n") == 7
    for name, files in datasets.items():
        assert files == first, name


@pytest.mark.slow
def test_every_byte_is_the_same_for_names_that_are_no_numbers(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path
) -> None:
    src = tmp_path / "galaxies"
    for number, path in enumerate(sorted(survey.glob("*/*.jpg"))):
        copy = src / f"field {number % 3}" / f"NGC {number}é.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    settings, datasets = build_settings(), []
    for form in ("folder", "plain zip", "copied in another order at another time"):
        datasets.append(
            contents(build_dataset(_pack(src, form, tmp_path / form), tmp_path / f"{form}!", settings).dataset.folder)
        )
    shards = b"".join(content for name, content in datasets[0].items() if "-of-" in name)
    assert all(f"NGC {number}é".encode() in shards for number in range(28))
    assert datasets[1:] == datasets[:1] * 2


@pytest.mark.slow
def test_every_byte_is_the_same_whatever_the_processes_hash_seed_folder_time_zone_and_language(
    spoiled: Path, command: list[str], contents: Contents, tmp_path: Path
) -> None:
    flags = ["--size=32", "--examples_per_shard=6", "--max_bad_fraction=0.3", "--out=out", "--workers=2"]
    for number, (seed, zone, language) in enumerate((("0", "UTC", "C"), ("1", "Asia/Tokyo", "C.UTF-8"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": language}
        subprocess.run([*command, f"--src={spoiled}", *flags], check=True, cwd=folder, env=environment, capture_output=True)
    assert contents(tmp_path / "0") == contents(tmp_path / "1")


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.slow
def test_every_byte_is_the_same_for_real_galaxies(kaggle: Path, build_settings: Settings, tmp_path: Path) -> None:
    settings = build_settings(size=212, encoding="jpeg", examples_per_shard=512)
    first = _hashes(build_dataset(kaggle, tmp_path / "folder", settings, workers=2).dataset.folder)
    assert len(first) == 16
    for form, workers in (("zips, deflated in a zip", 1), ("half unzipped", 2)):
        src = _pack(kaggle, form, tmp_path / form)
        assert _hashes(build_dataset(src, tmp_path / str(workers), settings, workers=workers).dataset.folder) == first
        shutil.rmtree(tmp_path / form)
