"""Pictures of any format become galaxies; what is no picture of a galaxy is counted and named with the reason."""

import csv
import gzip
import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from preprocess.job import BadImages, BuildSettings, build_dataset
from preprocess.verify.dataset import verify_dataset
from tests.conftest import SurveyMaker, galaxy_image
from tests.preprocess.conftest import Run
from tests.preprocess.people import TABLE
from tfrecords import framing, images, schema
from tfrecords.dataset import Dataset
from tfrecords.errors import SourceError

Settings = Callable[..., BuildSettings]
SIDE = 64
GALAXY = galaxy_image(np.random.default_rng(5), SIDE)


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _plain(level: int) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), (level,) * 3)


def _masked(radius: int, under: str) -> Image.Image:
    """The galaxy, transparent outside a circle, with another colour hidden there."""
    seen = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(seen).ellipse((SIDE // 2 - radius, SIDE // 2 - radius, SIDE // 2 + radius, SIDE // 2 + radius), fill=255)
    masked = Image.composite(GALAXY, Image.new("RGB", (SIDE, SIDE), under), seen)
    masked.putalpha(seen)
    return masked


def _build(folder: Path, settings: BuildSettings, **options: Any) -> Dataset:
    options = {"bad": BadImages(max_fraction=1), **options}
    return build_dataset(folder, folder.parent / "out", settings, overwrite=True, **options).dataset


def _examples(dataset: Dataset) -> dict[str, schema.Example]:
    """Name of a galaxy -> its example."""
    records = (record for shard in dataset.shards for record in framing.read_records(dataset.folder / shard.name))
    examples = (schema.parse(record, dataset.tree, dataset.asked, dataset.named) for record in records)
    return {example.name or str(example.galaxy_id): example for example in examples}


def _rejected(dataset: Dataset) -> dict[str, str]:
    """Path of a rejected image -> the reason."""
    with (dataset.folder / "rejected.csv").open(newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    return {path: reason for _, path, reason in rows}


# Formats

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "a.tif": ("TIFF", {}),
    "b.TIFF": ("TIFF", {"compression": "tiff_lzw"}),
    "c.webp": ("WEBP", {"lossless": True}),
    "d.bmp": ("BMP", {}),
    "e.png": ("PNG", {}),
    # The name of one format, the content of another.
    "f.jpg": ("WEBP", {"lossless": True}),
    "g.tif": ("PNG", {}),
}
JPEGS = ("h.jpg", "i.JPEG", "j.jpe", "k.jfif", "l.png", "m.tif")


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_picture_of_any_format_is_a_galaxy_with_its_own_pixels(
    build_settings: Settings, tmp_path: Path, packed: bool
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, (kind, options) in FORMATS.items():
        GALAXY.save(folder / name, kind, **options)
    for name in JPEGS:
        GALAXY.save(folder / name, "JPEG", quality=90)
    if packed:
        folder = Path(shutil.make_archive(str(folder), "zip", folder))
    dataset = _build(folder, build_settings(encoding="raw"), bad=BadImages(skip=False))
    examples = _examples(dataset)
    assert examples.keys() == {Path(name).stem for name in (*FORMATS, *JPEGS)}
    pixels = np.asarray(GALAXY)[16:48, 16:48]
    for name in FORMATS:
        assert examples[name[0]].image == pixels.tobytes(), name
    lossy = Image.open(io.BytesIO(_file(GALAXY, "JPEG", quality=90)))
    for name in JPEGS:
        assert examples[name[0]].image == np.asarray(lossy)[16:48, 16:48].tobytes(), name


@pytest.mark.parametrize("suffix", [".tif", ".webp", ".bmp", ".png"])
def test_a_survey_in_another_lossless_format_gives_the_same_shards(
    make_survey: SurveyMaker, build_settings: Settings, tmp_path: Path, suffix: str
) -> None:
    """Votes are joined to the numbers in the names, written with the suffix in the table or not."""
    source = make_survey(tmp_path / "jpeg", labelled=6, unlabelled=2)
    paths = sorted(source.glob("*/*.jpg"))
    shards = []
    for kind, name in ((".png", "png"), (suffix, "other")):
        for path in paths:
            target = tmp_path / name / path.parent.name / f"{path.stem}{kind}"
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:
                image.save(target, **({"lossless": True} if kind == ".webp" else {}))
        header, *rows = (source / TABLE).read_text().splitlines()
        if name == "other":
            rows = [row.replace(",", f"{kind},", 1) for row in rows]
        (tmp_path / name / TABLE).write_text("\n".join([header, *rows]) + "\n")
        dataset = build_dataset(tmp_path / name, tmp_path / f"{name}_out", build_settings()).dataset
        assert dataset.galaxies("train") + dataset.galaxies("validation") + dataset.galaxies("test") == 6
        shards.append([(shard.name, shard.sha256) for shard in dataset.shards])
    assert shards[0] == shards[1]


@pytest.mark.parametrize("suffix", [".jpe", ".jfif", ".jpeg", ".JPG"])
def test_jpegs_of_another_suffix_give_the_same_bytes(
    make_survey: SurveyMaker, build_settings: Settings, tmp_path: Path, suffix: str
) -> None:
    shards = []
    for name in (".jpg", suffix):
        source = make_survey(tmp_path / name / "survey", labelled=6, unlabelled=2)
        for path in sorted(source.glob("*/*.jpg")):
            path.rename(path.with_suffix(name))
        shards.append(_build(source, build_settings(encoding="jpeg")).shards)
    assert shards[0] == shards[1]


# What is no picture of a galaxy

CLEAR = (np.asarray(_masked(14, "white"))[16:48, 16:48, 3] == 0).mean()
NO_GALAXY = {
    "black.jpg": (_file(_plain(0), "JPEG"), "no galaxy: its crop is nearly black, with brightest parts at 0 of 255"),
    "nearly.png": (_file(_plain(12), "PNG"), "no galaxy: its crop is nearly black, with brightest parts at 12 of 255"),
    "white.webp": (_file(_plain(255), "WEBP", lossless=True), "no galaxy: 100% of its crop is white"),
    "grey.tif": (_file(_plain(127), "TIFF"), "no galaxy: its crop is of one brightness, 127 to 127 of 255"),
    "placeholder.jpg": (_file(_plain(127), "JPEG"), "no galaxy: its crop is of one brightness, 127 to 127 of 255"),
    "saturated.png": (
        _file(Image.fromarray(np.asarray(GALAXY) | np.uint8(255) * (np.indices((SIDE, SIDE))[0] < 27)[..., None]), "PNG"),
        "no galaxy: 34% of its crop is white",
    ),
    "masked.png": (
        _file(_masked(14, "white"), "PNG"), f"{CLEAR:.0%} of its crop is transparent: give the whole image, without a mask",
    ),
    "deep.tif": (
        _file(Image.fromarray(np.asarray(GALAXY.convert("L")).astype(np.uint16) * 257), "TIFF"),
        "more than 8 bits per channel: convert it to 8-bit RGB first",
    ),
    "pages.tiff": (
        _file(GALAXY, "TIFF", save_all=True, append_images=[GALAXY]), "holds 2 images: save the one that is meant alone",
    ),
    "moving.webp": (
        _file(GALAXY, "WEBP", save_all=True, append_images=[GALAXY.rotate(90), GALAXY.rotate(180)]),
        "holds 3 images: save the one that is meant alone",
    ),
    "html.jpg": (
        b"<!DOCTYPE html><html><head><title>503</title></head></html>",
        "is a web page (HTML) or XML: download it again, perhaps after signing in",
    ),
    "json.jpeg": (b'{"error": "no coverage"}', "is JSON: download it again, or see whether it holds an error message"),
    "lfs.png": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`",
    ),
    "words.jpg": (b"404 page not found\n", "is a text, not an image: '404 page not found'"),
    "packed.jpg": (gzip.compress(_file(GALAXY, "JPEG"), mtime=0), "is packed with gzip: unpack it first"),
    "flux.jpg": (b"SIMPLE  =                    T".ljust(2880), "is a FITS file: let its name end in .fits"),
    "paper.png": (b"%PDF-1.7\n", "is a PDF: convert it first"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two galaxies among pictures without one and files that are no pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, (data, _) in NO_GALAXY.items():
        (folder / name).write_bytes(data)
    (folder / "good.jpg").write_bytes(_file(GALAXY, "JPEG", quality=95))
    (folder / "faint.png").write_bytes(_file(Image.fromarray((np.asarray(GALAXY) // 6 + 4).astype(np.uint8)), "PNG"))
    return folder


@pytest.mark.parametrize(("encoding", "size"), [("jpeg", 32), ("png", 32), ("raw", 32), ("jpeg", 24), ("png", 48)])
def test_what_shows_no_galaxy_is_listed_with_its_reason_and_the_rest_is_stored(
    folder: Path, build_settings: Settings, caplog: pytest.LogCaptureFixture, encoding: str, size: int
) -> None:
    dataset = _build(folder, build_settings(encoding=encoding, size=size))
    assert _rejected(dataset) == {name: reason for name, (_, reason) in NO_GALAXY.items()}
    assert _examples(dataset).keys() == {"good", "faint"}
    assert dataset.source["images"] == len(NO_GALAXY) + 2 and dataset.source["rejected"] == len(NO_GALAXY)
    said = f"{len(NO_GALAXY)} of {len(NO_GALAXY) + 2} images could not be used and are listed in"
    assert any(message.startswith(said) for message in caplog.messages)
    assert verify_dataset(dataset.folder, folder).findings == ()


@pytest.mark.parametrize("name", NO_GALAXY)
def test_where_bad_images_must_fail_the_first_is_named_with_its_reason(
    folder: Path, build_settings: Settings, name: str
) -> None:
    for other in NO_GALAXY.keys() - {name}:
        (folder / other).unlink()
    with pytest.raises(SourceError) as caught:
        _build(folder, build_settings(encoding="jpeg"), bad=BadImages(skip=False))
    assert str(caught.value).startswith(f"{folder}/{name}: {NO_GALAXY[name][1]}: replace or remove this image, ")
    assert not (folder.parent / "out" / "manifest.json").exists()


def test_more_than_a_hundredth_without_a_galaxy_stops_the_job(folder: Path, build_settings: Settings) -> None:
    with pytest.raises(SourceError) as caught:
        _build(folder, build_settings(), bad=BadImages())
    said = str(caught.value)
    assert " of 19 images could not be used, above --max_bad_fraction 0.01; first " in said
    assert any(f"first {name}: {reason}: " in said for name, (_, reason) in NO_GALAXY.items())


@pytest.mark.parametrize("under", ["white", "red", "black"])
def test_what_is_hidden_below_a_mask_is_in_no_shard(build_settings: Settings, tmp_path: Path, under: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    _masked(19, under).save(folder / "masked.png")  # the corners of the crop are transparent: 4 %
    example = _examples(_build(folder, build_settings(encoding="raw")))["masked"]
    pixels = images.decode_stored(example.image, "raw", 32)
    expected = np.where(np.asarray(_masked(19, under))[16:48, 16:48, 3:] == 255, np.asarray(GALAXY)[16:48, 16:48], 0)
    np.testing.assert_array_equal(pixels, expected)
    assert not pixels[0, 0].any() and pixels[16, 16].any()


def test_a_folder_as_downloads_leave_it_ends_with_everything_counted_and_named(run: Run, tmp_path: Path) -> None:
    """As ../shared/cases/pictures.py makes it, from other galaxies."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, kind in (("real.tif", "TIFF"), ("real.webp", "WEBP"), ("short.jpe", "JPEG"), ("plain.jpg", "JPEG")):
        galaxy_image(generator, SIDE).save(folder / name, kind)
    jpeg = _file(GALAXY, "JPEG")
    with zipfile.ZipFile(folder / "more.zip", "w") as file:
        file.writestr("zipped.jfif", jpeg)
        file.writestr("notes.txt", "nothing")
    (folder / "packed.jpg.gz").write_bytes(gzip.compress(jpeg))
    (folder / "plain.jpg.1").write_bytes(jpeg)
    bad = {name: NO_GALAXY[name] for name in ("html.jpg", "black.jpg", "white.webp", "placeholder.jpg", "masked.png")}
    for name, (data, _) in bad.items():
        (folder / name).write_bytes(data)

    flags = ("--src", folder, "--size=32", "--workers=1")
    refused = run(*flags, "--out", tmp_path / "refused")
    assert refused.returncode == 1 and "error: 5 of 10 images could not be used, above" in refused.stderr
    strict = run(*flags, "--out", tmp_path / "strict", "--on_bad_image=fail")
    assert strict.returncode == 1
    assert any(f"error: {folder}/{name}: {reason}: replace" in strict.stderr for name, (_, reason) in bad.items())

    done = run(*flags, "--out", tmp_path / "out", "--max_bad_fraction=0.5")
    assert done.returncode == 0, done.stderr
    assert "WARNING: 3 files left alone: 1 .1, 1 .jpg.gz, 1 .txt\n" in done.stderr
    assert "WARNING: 5 of 10 images could not be used and are listed in" in done.stderr
    assert "5 images could not be used: see " in done.stdout
    with (tmp_path / "out" / "rejected.csv").open(newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    assert {path: reason for _, path, reason in rows} == {name: reason for name, (_, reason) in bad.items()}
    verified = run("verify", "--tfrecords", tmp_path / "out", "--src", folder)
    assert verified.returncode == 0, verified.stdout
