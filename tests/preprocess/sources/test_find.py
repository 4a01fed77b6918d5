"""Every image is found wherever it lies, and the survey is the same however it is kept."""

import random
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess import sources
from preprocess.sources.listing import PLAIN, ImageReader
from tests.preprocess.sources.finding import (
    DEFLATED,
    EXPECTED,
    JPEG,
    KINDS,
    OTHER,
    STORED,
    VOTES,
    WAYS,
    Contents,
    Find,
    contents_of,
    ids_and_paths,
    keep,
    named_by_path,
    refusal,
    splits_in,
    top_63_bits,
    votes_of,
    write_files,
)
from tests.preprocess.sources.packing import Files, packed
from tfrecords.errors import SourceError


@pytest.mark.parametrize("way", WAYS)
def test_a_survey_is_the_same_however_it_is_kept(tmp_path: Path, find: Find, way: str) -> None:
    source = find(keep(tmp_path / "kaggle", WAYS[way]))
    assert contents_of(source) == EXPECTED
    assert votes_of(source) == VOTES
    training = [source.images.places[place].training for place in source.images.place]
    assert training == [path.startswith("images_training") for _, path, _ in EXPECTED]
    assert {*splits_in(source.images).values()} == {""}
    assert not source.images.named.any()


@pytest.mark.parametrize("way", [way for way, files in WAYS.items() if len(files) == 1])
def test_the_one_zip_is_a_source_itself(tmp_path: Path, find: Find, way: str) -> None:
    ((name, content),) = WAYS[way].items()
    path = write_files(tmp_path, name, content=content) / name
    source = find(path)
    assert (source.path, contents_of(source), votes_of(source)) == (path, EXPECTED, VOTES)


@pytest.mark.parametrize("way", WAYS)
def test_only_a_zip_that_is_deflated_in_a_zip_is_copied(tmp_path: Path, way: str) -> None:
    (tmp_path / "scratch").mkdir()
    source = sources.find_source(keep(tmp_path / "kaggle", WAYS[way]), tmp_path / "scratch")
    copies = {*(tmp_path / "scratch").iterdir()}
    assert bool(copies) == ("deflated" in way or way in ("zips in a zip in a zip", "all of it in every way"))
    assert {place.container for place in source.images.places} - copies <= {tmp_path / "kaggle", *tmp_path.rglob("*.zip")}
    # When they are found again, they are not copied again.
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in copies}
    sources.find_source(tmp_path / "kaggle", tmp_path / "scratch")
    after = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (tmp_path / "scratch").iterdir()}
    assert after == before


@pytest.mark.parametrize("way", ["unzipped beside its zips", "unzipped beside the zip of all", "all of it in every way"])
def test_an_unzipped_copy_is_preferred_to_the_one_in_its_zip(tmp_path: Path, find: Find, way: str) -> None:
    assert set(find(keep(tmp_path / "kaggle", WAYS[way])).images.method) == {PLAIN}


PARTS = st.text("ab1é ", min_size=1, max_size=4).filter(lambda part: part.strip(" .") == part)
TREES = st.dictionaries(
    st.tuples(st.lists(PARTS, max_size=3), st.integers(0, 50) | PARTS, st.sampled_from([".jpg", ".PNG", ".txt"])).map(
        lambda parts: "/".join([*(f"{part}_" for part in parts[0]), f"{parts[1]}{parts[2]}"])
    ),
    st.binary(max_size=40),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@given(TREES)
def test_any_tree_is_the_same_as_a_folder_a_zip_and_a_zip_in_a_zip(
    tmp_path_factory: pytest.TempPathFactory, files: Files
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    zipped = packed(files)
    found: list[Contents | str] = []
    for path in (
        keep(folder / "folder", files),
        write_files(folder, "zip.zip", content=zipped) / "zip.zip",
        write_files(folder, "stored.zip", content=packed({"inner.zip": zipped}, STORED)) / "stored.zip",
        write_files(folder, "deflated.zip", content=packed({"inner.zip": zipped})) / "deflated.zip",
        write_files(folder / "of-zips", "inner.zip", content=zipped),
        keep(folder / "mixture", files | {"inner.zip": zipped}),
    ):
        try:
            found.append(contents_of(sources.find_source(path, folder)))
        except SourceError as error:  # no images, or two for one galaxy: then in every form
            found.append(str(error).removeprefix(f"{path}: ")[:9])
    assert [other == found[0] for other in found] == [True] * 6, found


def test_all_real_galaxies_are_found_with_their_votes(kaggle: Path, find: Find) -> None:
    source = find(kaggle)
    images = source.images
    assert len(images) == 3064 + 1197
    assert [table.path for table in source.solutions] == [f"{kaggle}/training_solutions_rev1.csv"]
    assert votes_of(source) == (kaggle / "training_solutions_rev1.csv").read_bytes()
    assert images.galaxy_id.tolist() == sorted(int(path.stem) for path in kaggle.glob("*/*.jpg"))
    for row in range(0, len(images), 500):
        assert (kaggle / images.path(row)).stem == str(images.galaxy_id[row])
        assert (kaggle / images.path(row)).stat().st_size == images.size[row]


def _as_kaggle_ships(kaggle: Path, folder: Path) -> None:
    """Write Kaggle's zips to `folder`, at level 1 because JPEGs hardly get smaller."""
    for name in ("images_training_rev1", "images_test_rev1"):
        with zipfile.ZipFile(folder / f"{name}.zip", "w", DEFLATED, compresslevel=1) as file:
            for path in sorted((kaggle / name).iterdir()):
                file.write(path, f"{name}/{path.name}")
    with zipfile.ZipFile(folder / "training_solutions_rev1.zip", "w", DEFLATED) as file:
        file.write(kaggle / "training_solutions_rev1.csv", "training_solutions_rev1.csv")


@pytest.mark.slow
@pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])
def test_all_real_galaxies_are_the_same_in_the_zip_that_kaggle_ships(kaggle: Path, tmp_path: Path, method: int) -> None:
    expected = sources.find_source(kaggle, tmp_path)
    with tempfile.TemporaryDirectory(dir=tmp_path) as name:  # 130 MB, which pytest would keep for three runs
        scratch = Path(name)
        _as_kaggle_ships(kaggle, scratch)
        outer = scratch / "galaxy-zoo-the-galaxy-challenge.zip"
        zips = sorted(scratch.glob("*.zip"))
        with zipfile.ZipFile(outer, "w", method, compresslevel=1) as file:
            for path in zips:
                file.write(path, path.name)
                path.unlink()
        source = sources.find_source(outer, scratch)
        images = source.images
        assert images.galaxy_id.tolist() == expected.images.galaxy_id.tolist()
        assert images.size.tolist() == expected.images.size.tolist()
        assert [images.path(row) for row in range(len(images))] == [expected.images.path(row) for row in range(len(images))]
        assert images.nbytes() / len(images) < 70
        assert votes_of(source) == votes_of(expected)
        with ImageReader() as reader:
            for row in random.Random(0).sample(range(len(images)), 50):
                assert reader.read(images, row)[:2] == reader.read(expected.images, row)[:2]


# Images to predict


def _listed(path: Path, scratch: Path) -> list[tuple[int, str, bytes]]:
    images, _ = sources.find_images(path, scratch)
    with ImageReader() as reader:
        return [(int(images.galaxy_id[row]), images.path(row), reader.read(images, row)[0]) for row in range(len(images))]


@pytest.mark.parametrize("way", WAYS)
def test_the_images_to_predict_are_those_of_the_source_however_it_is_kept(tmp_path: Path, way: str) -> None:
    assert _listed(keep(tmp_path / "kaggle", WAYS[way]), tmp_path) == EXPECTED


def test_fits_files_beside_pictures_are_images_only_where_they_are_to_be_predicted(tmp_path: Path, find: Find) -> None:
    names = ("3.jpg", "a/2.FITS", "a/1.fit", "4.fits.txt", "5.ft")
    for path in (write_files(tmp_path / "folder", *names), keep(tmp_path / "zip.zip", dict.fromkeys(names, JPEG))):
        assert [name for _, name, _ in _listed(path, tmp_path)] == ["a/1.fit", "a/2.FITS", "3.jpg"]
        assert ids_and_paths(find(path)) == [(3, "3.jpg")]
        assert "1 .fit, 1 .fits" in next(find(path).left.lines())


@pytest.mark.parametrize(
    ("name", "named"), [("7.jpg", False), ("7.FITS", False), ("007.FITS", True), ("NGC 7.png", True), ("data7.jpg", True)]
)
def test_a_single_image_is_predicted_by_its_name_whatever_folder_it_lies_in(tmp_path: Path, name: str, named: bool) -> None:
    path = write_files(tmp_path / "train_images", name, "8.jpg") / name
    assert _listed(path, tmp_path) == [(top_63_bits(name) if named else 7, name, JPEG)]
    assert sources.find_images(path, tmp_path)[0].named.tolist() == [named]


def test_a_single_image_is_no_source_to_preprocess(tmp_path: Path, find: Find) -> None:
    assert "not a folder or zip: give --src" in refusal(find, write_files(tmp_path, "7.jpg") / "7.jpg")


def test_a_relative_path_to_a_single_image_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_files(tmp_path, "7.jpg"))
    assert _listed(Path("7.jpg"), tmp_path) == [(7, "7.jpg", JPEG)]


def test_two_different_images_of_a_number_are_two_galaxies_where_they_are_to_be_predicted_too(tmp_path: Path) -> None:
    folder = keep(tmp_path / "folder", {"7.jpg": JPEG, "7.fits": OTHER})
    assert [(galaxy_id, path) for galaxy_id, path, _ in _listed(folder, tmp_path)] == named_by_path("7.jpg", "7.fits")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("gone", "no such file or folder: give --images an image, or a folder or zip of images"),
        ("notes.txt", f"not an image ({KINDS}), folder or zip: give --images an image"),
        ("empty", f"holds no images ({KINDS}): give --images the folder or zip with them"),
        ("broken.zip", "not a zip, or cut off"),
    ],
)
def test_what_holds_no_image_to_predict_is_refused_with_what_to_give(tmp_path: Path, name: str, what: str) -> None:
    (write_files(tmp_path, "notes.txt", "broken.zip") / "empty").mkdir()
    with pytest.raises(SourceError) as caught:
        sources.find_images(tmp_path / name, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / name}: {what}")
