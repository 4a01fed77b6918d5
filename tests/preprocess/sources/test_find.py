"""Every image and table of votes is found wherever it lies, and an ambiguous source is refused by name."""

import hashlib
import io
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess import sources
from preprocess.sources import Source
from preprocess.sources.listing import PLAIN, ImageReader, Listing
from preprocess.surveys import survey_of
from tests.preprocess.sources.packing import Files, packed
from tfrecords.decoding import MAX_BYTES
from tfrecords.errors import SourceError

JPEG, OTHER = b"\xff\xd8 one galaxy", b"\xff\xd8 another one"
VOTES = b"GalaxyID,Class1.1\n7,1\n"
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED

Find = Callable[[Path], Source]
Found = list[tuple[int, str, bytes]]
KINDS = "JPEG, PNG, TIFF, WebP, BMP or FITS"


@pytest.fixture
def find(tmp_path_factory: pytest.TempPathFactory) -> Find:
    """A function that finds what is in a folder or zip, always with the same scratch folder."""
    scratch = tmp_path_factory.mktemp("scratch")
    return lambda path: sources.find_source(path, scratch)


def _write(folder: Path, *names: str, content: bytes = JPEG) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _keep(path: Path, files: Files) -> Path:
    """Write these files to a folder, or to a zip if `path` ends in .zip."""
    if path.suffix == ".zip":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(packed(files))
    else:
        path.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _write(path, name, content=content)
    return path


def _found(source: Source) -> Found:
    """Id, path and bytes of every image."""
    images = source.images
    with ImageReader() as reader:
        found = [(int(images.galaxy_id[row]), images.path(row), reader.read(images, row)[0]) for row in range(len(images))]
    assert [len(content) for _, _, content in found] == images.size.tolist()
    return found


def _ids_and_paths(source: Source) -> list[tuple[int, str]]:
    return [(galaxy_id, path) for galaxy_id, path, _ in _found(source)]


def _splits(images: Listing) -> dict[int, str]:
    return {int(galaxy_id): images.places[place].split for galaxy_id, place in zip(images.galaxy_id, images.place, strict=True)}


def _votes(source: Source, given: Path | None = None) -> bytes | None:
    table = sources.solutions_table(source, given, (), lambda table: False)
    return table.read() if table else None


def _refused(find: Find, path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        find(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# One survey, kept in every way


def _images(folder: str, *galaxy_ids: int) -> Files:
    return {f"{folder}/{galaxy_id}.jpg": random.Random(galaxy_id).randbytes(galaxy_id % 900) for galaxy_id in galaxy_ids}


TRAINING = _images("images_training_rev1", 100008, 100023, 100053, 100078)
TEST = _images("images_test_rev1", 100018, 100037, 100042)
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


@pytest.mark.parametrize("way", WAYS)
def test_a_survey_is_the_same_however_it_is_kept(tmp_path: Path, find: Find, way: str) -> None:
    source = find(_keep(tmp_path / "kaggle", WAYS[way]))
    assert _found(source) == EXPECTED
    assert _votes(source) == VOTES
    training = [source.images.places[place].training for place in source.images.place]
    assert training == [path.startswith("images_training") for _, path, _ in EXPECTED]
    assert {*_splits(source.images).values()} == {""}
    assert not source.images.named.any()


@pytest.mark.parametrize("way", [way for way, files in WAYS.items() if len(files) == 1])
def test_the_one_zip_is_a_source_itself(tmp_path: Path, find: Find, way: str) -> None:
    ((name, content),) = WAYS[way].items()
    path = _write(tmp_path, name, content=content) / name
    source = find(path)
    assert (source.path, _found(source), _votes(source)) == (path, EXPECTED, VOTES)


@pytest.mark.parametrize("way", WAYS)
def test_only_a_zip_that_is_deflated_in_a_zip_is_copied(tmp_path: Path, way: str) -> None:
    (tmp_path / "scratch").mkdir()
    source = sources.find_source(_keep(tmp_path / "kaggle", WAYS[way]), tmp_path / "scratch")
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
    assert set(find(_keep(tmp_path / "kaggle", WAYS[way])).images.method) == {PLAIN}


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
    found: list[Found | str] = []
    for path in (
        _keep(folder / "folder", files),
        _write(folder, "zip.zip", content=zipped) / "zip.zip",
        _write(folder, "stored.zip", content=packed({"inner.zip": zipped}, STORED)) / "stored.zip",
        _write(folder, "deflated.zip", content=packed({"inner.zip": zipped})) / "deflated.zip",
        _write(folder / "of-zips", "inner.zip", content=zipped),
        _keep(folder / "mixture", files | {"inner.zip": zipped}),
    ):
        try:
            found.append(_found(sources.find_source(path, folder)))
        except SourceError as error:  # no images, or two for one galaxy: then in every form
            found.append(str(error).removeprefix(f"{path}: ")[:9])
    assert [other == found[0] for other in found] == [True] * 6, found


def test_all_real_galaxies_are_found_with_their_votes(kaggle: Path, find: Find) -> None:
    source = find(kaggle)
    images = source.images
    assert len(images) == 3064 + 1197
    assert [table.path for table in source.solutions] == [f"{kaggle}/training_solutions_rev1.csv"]
    assert _votes(source) == (kaggle / "training_solutions_rev1.csv").read_bytes()
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
        assert _votes(source) == _votes(expected)
        with ImageReader() as reader:
            for row in random.Random(0).sample(range(len(images)), 50):
                assert reader.read(images, row)[:2] == reader.read(expected.images, row)[:2]


# Which files are images, and of which galaxy


def test_images_are_found_at_any_depth_and_by_any_usual_suffix(tmp_path: Path, find: Find) -> None:
    names = ("3.jpg", "a/2.JPG", "a/b/1.jpeg", "c/10.png", "a/notes.txt", "a/b/thumbs.db", "c/11.gif", "12", "jpg")
    expected = [(1, "a/b/1.jpeg"), (2, "a/2.JPG"), (3, "3.jpg"), (10, "c/10.png")]
    assert _ids_and_paths(find(_write(tmp_path / "folder", *names))) == expected
    assert _ids_and_paths(find(_keep(tmp_path / "zip.zip", dict.fromkeys(names, JPEG)))) == expected


HIDDEN = (".2.jpg", "._1.jpg", ".cache/3.jpg", "__MACOSX/1.jpg", "__MACOSX/._1.jpg", "a/__MACOSX/4.jpg", "a/.b/c/5.jpg")


def test_hidden_files_and_macos_shadow_folder_are_no_images(tmp_path: Path, find: Find) -> None:
    _write(_write(tmp_path / "folder", "1.jpg"), *HIDDEN, content=OTHER)
    assert _ids_and_paths(find(tmp_path / "folder")) == [(1, "1.jpg")]


def test_hidden_files_and_macos_shadow_folder_in_zips_are_no_images(tmp_path: Path, find: Find) -> None:
    files = {"1.jpg": JPEG, **dict.fromkeys(HIDDEN, OTHER), "__MACOSX/._images.zip": b"no zip", ".old.zip": b"no zip"}
    assert _ids_and_paths(find(_keep(tmp_path / "zip.zip", files))) == [(1, "1.jpg")]
    outer = _keep(tmp_path / "outer.zip", {"images.zip": packed(files), "__MACOSX/._images.zip": b"no zip"})
    assert _ids_and_paths(find(outer)) == [(1, "1.jpg")]
    _write(tmp_path / "folder", "1.jpg")
    _write(tmp_path / "folder", "._images.zip", "__MACOSX/images.zip", ".old.zip", content=b"no zip")
    assert _ids_and_paths(find(tmp_path / "folder")) == [(1, "1.jpg")]


def test_a_zip_whose_names_begin_with_a_dot_and_a_slash_is_read_as_without(tmp_path: Path, find: Find) -> None:
    # As `tar -acf images.zip ./images` writes them on macOS and Windows.
    path = _keep(tmp_path / "images.zip", {"./": b"", "./images/": b"", "./images/7.jpg": JPEG, "./8.jpg": OTHER})
    assert _ids_and_paths(find(path)) == [(7, "images/7.jpg"), (8, "8.jpg")]


def test_what_is_no_regular_file_is_no_image(tmp_path: Path, find: Find) -> None:
    _write(tmp_path, "7.jpg", "8.jpg/notes.txt")
    os.mkfifo(tmp_path / "9.jpg")
    assert _ids_and_paths(find(tmp_path)) == [(7, "7.jpg")]


def test_paths_and_ids_in_a_zip_do_not_depend_on_the_locale_of_the_machine(tmp_path: Path, find: Find) -> None:
    path = _keep(tmp_path / "kaggle.zip", {"Größe/ñ.jpg": JPEG, "星系/7.jpg": JPEG})
    program = (
        "import sys; from pathlib import Path; from preprocess import sources\n"
        "images = sources.find_source(Path(sys.argv[1]), Path()).images\n"
        "print(ascii([(int(images.galaxy_id[row]), images.path(row)) for row in range(len(images))]))"
    )
    arguments = [sys.executable, "-c", program, str(path)]
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=ascii_only, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (f"{_ids_and_paths(find(path))!a}\n", "")


def test_the_source_does_not_depend_on_where_it_lies(survey: Path, tmp_path: Path, find: Find) -> None:
    shutil.copytree(survey, tmp_path / "train_images" / "images_training_rev1" / "elsewhere")
    source = find(tmp_path / "train_images" / "images_training_rev1" / "elsewhere")
    assert _found(source) == _found(find(survey))
    assert {*_splits(source.images).values()} == {""}
    assert _votes(source) == _votes(find(survey))


def test_ids_are_numbers_up_to_the_largest_int64(tmp_path: Path, find: Find) -> None:
    _write(tmp_path, f"{2**63 - 1}.jpg", "7.jpg", "0.jpg")
    assert _ids_and_paths(find(tmp_path)) == [(0, "0.jpg"), (7, "7.jpg"), (2**63 - 1, f"{2**63 - 1}.jpg")]
    assert not find(tmp_path).images.named.any() and find(tmp_path).images.parts == 0


def _top_63_bits(path: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(path)).digest(), "big") >> (256 - 63)


NO_NUMBERS = [
    "100008galaxy.jpg",
    "galaxy.jpg",
    "-7.jpg",
    "1.5.jpg",
    "²3.jpg",
    "7 (1).jpg",
    "data7.jpg",
    f"{2**63}.jpg",
    "٣.jpg",
    "007.jpg",
    "00.jpg",
]


@pytest.mark.parametrize("name", [*NO_NUMBERS, f"{'9' * 200}.jpg"])
def test_a_name_that_is_no_number_gives_an_id_from_its_relative_path(tmp_path: Path, find: Find, name: str) -> None:
    files = {f"a/{name}": JPEG, "a/7.jpg": OTHER}
    zipped = packed(files)
    expected = sorted([(_top_63_bits(f"a/{name}"), f"a/{name}", JPEG), (7, "a/7.jpg", OTHER)])
    for path in (
        _keep(tmp_path / "folder", files),
        _keep(tmp_path / "elsewhere" / "train_images" / "folder", files),
        _keep(tmp_path / "zip.zip", files),
        _keep(tmp_path / "of-zips", {"b/c/images.zip": zipped}),
        _keep(tmp_path / "outer.zip", {"b/c/images.zip": zipped}),
        _keep(tmp_path / "mixture", files | {"images.zip": zipped}),
    ):
        source = find(path)
        assert _found(source) == expected
        assert source.images.named.tolist() == [galaxy_id != 7 for galaxy_id, _, _ in expected]


def test_a_known_name_never_changes_its_id(tmp_path: Path, find: Find) -> None:
    # Computed once: the first 16 digits of `printf 'spirals/NGC 1300.jpg' | sha256sum`, halved.
    assert _ids_and_paths(find(_write(tmp_path, "spirals/NGC 1300.jpg"))) == [
        (8_166_341_025_793_711_148, "spirals/NGC 1300.jpg")
    ]


def test_a_name_of_thousands_of_digits_is_no_number(tmp_path: Path, find: Find) -> None:
    name = f"{'9' * 5000}.jpg"  # too long a name for a folder, but not for a zip
    assert _ids_and_paths(find(_keep(tmp_path / "zip.zip", {name: JPEG}))) == [(_top_63_bits(name), name)]


def _with_strays(survey: Path, folder: Path, strays: int) -> Path:
    """A copy of 28 images with others whose names are no numbers."""
    shutil.copytree(survey, folder)
    return _write(folder, "images_test_rev1/NGC 1300.jpg", *(f"figures/loss {number}.png" for number in range(1, strays)))


def test_a_few_names_that_are_no_numbers_are_left_out_beside_a_table_of_numbers_and_counted(
    survey: Path, tmp_path: Path
) -> None:
    folder = _with_strays(survey, tmp_path / "kaggle", 3)
    expected, survey_with = survey_of(survey, tmp_path), survey_of(folder, tmp_path)
    assert survey_with.summary() == expected.summary() and not survey_with.named
    left_out = "3 images were left out, because their names are not numbers, unlike the ids in the table, first"
    [warning] = survey_with.warnings()
    strays = ("images_test_rev1/NGC 1300.jpg", "figures/loss 1.png", "figures/loss 2.png")
    assert warning in {f"{left_out} {folder}/{stray}" for stray in strays}
    assert [*expected.warnings()] == []


def test_many_names_that_are_no_numbers_are_refused_only_beside_a_table_of_numbers(survey: Path, tmp_path: Path) -> None:
    folder = _with_strays(survey, tmp_path / "kaggle", 4)
    with pytest.raises(SourceError) as caught:
        survey_of(folder, tmp_path)
    table = f"{folder}/training_solutions_rev1.csv"
    what = (
        f"the name is not a GalaxyID, but there is a table of votes ({table}): name each image by its GalaxyID, like 100000.jpg"
    )
    assert str(caught.value).endswith(f": {what}")
    assert str(caught.value).startswith((f"{folder}/figures/loss ", f"{folder}/images_test_rev1/NGC 1300.jpg: "))
    Path(table).unlink()
    bare = survey_of(folder, tmp_path)
    assert bare.named and (bare.summary()["images"], bare.summary()["images_without_votes"]) == (32, 32)


# The article's folders

ARTICLE = {
    "train_images/data100008.jpg": b"train",
    "train_images/100023.jpg": b"train, without the word",
    "validation_images/data100053.jpg": b"validation",
    "test_images/deep/data100078.jpg": b"test",
    "others/100090.jpg": b"in no split",
    "target_data/targets.csv": VOTES,
}


@pytest.mark.parametrize("kind", ["folder", "plain zip", "zips", "zips in a zip", "flat zips", "flat zips in a zip"])
def test_the_articles_folders_keep_their_split_and_its_names_are_numbers(tmp_path: Path, find: Find, kind: str) -> None:
    zips: dict[str, Files] = {}
    for name, content in ARTICLE.items():
        folder, _, inside = name.partition("/")
        zips.setdefault(f"{folder}.zip", {})[inside if "flat" in kind else name] = content
    archives = {name: packed(files) for name, files in zips.items()}
    path = {
        "folder": lambda: _keep(tmp_path / "article", ARTICLE),
        "plain zip": lambda: _keep(tmp_path / "article.zip", ARTICLE),
        "zips": lambda: _keep(tmp_path / "article", archives),
        "flat zips": lambda: _keep(tmp_path / "article", archives),
        "zips in a zip": lambda: _keep(tmp_path / "article.zip", archives),
        "flat zips in a zip": lambda: _keep(tmp_path / "article.zip", archives),
    }[kind]()
    source = find(path)
    assert _splits(source.images) == {100008: "train", 100023: "train", 100053: "validation", 100078: "test", 100090: ""}
    training = [source.images.places[place].training for place in source.images.place]
    assert training == [True, True, True, False, False]
    assert [content for _, _, content in _found(source)] == [content for name, content in ARTICLE.items() if ".jpg" in name]
    assert not source.images.named.any()
    assert _votes(source) == VOTES


def test_the_word_data_is_part_of_a_number_in_the_articles_folders_only(tmp_path: Path, find: Find) -> None:
    _write(tmp_path, "train_images/data7.jpg", "train_images/data8.jpg/x.txt", "others/data9.jpg", "data10.jpg")
    images = find(tmp_path).images
    named = {images.path(row): bool(images.named[row]) for row in range(len(images))}
    assert named == {"train_images/data7.jpg": False, "others/data9.jpg": True, "data10.jpg": True}


@pytest.mark.parametrize("name", ["mydata7.jpg", "data-7.jpg", "Data7.jpg", "data.jpg", "data7b.jpg", "datadata7.jpg"])
def test_other_words_are_no_part_of_a_number_in_the_articles_folders(tmp_path: Path, find: Find, name: str) -> None:
    assert find(_write(tmp_path, f"train_images/{name}")).images.named.all()


TRAINING_FOLDERS = ("images_training_rev1", "images_train_rev1", "train_images", "validation_images")


@pytest.mark.parametrize("folder", [*TRAINING_FOLDERS, "images_test_rev1", "test_images", "train", "my_train_images", "images"])
def test_only_training_folders_promise_votes(tmp_path: Path, find: Find, folder: str) -> None:
    for path in (
        _keep(tmp_path / "folder", {f"a/{folder}/b/7.jpg": JPEG}),
        _keep(tmp_path / "zip.zip", {f"{folder}/7.jpg": JPEG}),
        _keep(tmp_path / "zips", {f"{folder}.zip": packed({"7.jpg": JPEG})}),
        _keep(tmp_path / "outer.zip", {f"a/{folder}.zip": packed({"b/7.jpg": JPEG})}),
    ):
        images = find(path).images
        assert [images.places[place].training for place in images.place] == [folder in TRAINING_FOLDERS]


def test_a_galaxy_in_two_splits_is_refused_with_both_even_with_the_same_bytes(tmp_path: Path, find: Find) -> None:
    files = {"train_images/data7.jpg": JPEG, "test_images/7.jpg": JPEG}
    both = "is in two splits, {0}/test_images/7.jpg and {0}/train_images/data7.jpg: remove one of them"
    for path in (_keep(tmp_path / "article", files), _keep(tmp_path / "article.zip", files)):
        assert _refused(find, path) == f"{path}: galaxy 7 {both.format(path)}"


# Copies


@pytest.mark.parametrize("twin", ["b/7.jpg", "a/7.jpeg"])
def test_the_same_galaxy_twice_with_the_same_bytes_counts_once(tmp_path: Path, find: Find, twin: str) -> None:
    files = {"a/7.jpg": JPEG, twin: JPEG, "a/8.jpg": OTHER}
    for path in (_keep(tmp_path / "folder", files), _keep(tmp_path / "zip.zip", files)):
        assert _ids_and_paths(find(path)) == [(7, min("a/7.jpg", twin)), (8, "a/8.jpg")]


def test_a_galaxy_many_times_with_the_same_bytes_counts_once(tmp_path: Path, find: Find) -> None:
    _write(tmp_path, *(f"{folder}/{galaxy_id}.jpg" for folder in "edcba" for galaxy_id in (9, 8, 7)))
    assert _ids_and_paths(find(tmp_path)) == [(7, "a/7.jpg"), (8, "a/8.jpg"), (9, "a/9.jpg")]


def _galaxies(*paths: str) -> list[tuple[int, str]]:
    """Images whose ids are hashes of their paths."""
    return sorted((_top_63_bits(path), path) for path in paths)


@pytest.mark.parametrize("twin", ["b/7.jpg", "a/7.png"])
@pytest.mark.parametrize("other", [OTHER, JPEG[:-1] + b"Y", b""], ids=["another", "same size", "empty"])
def test_different_images_of_one_number_are_two_galaxies_and_it_is_said_which(
    tmp_path: Path, find: Find, twin: str, other: bytes
) -> None:
    files = {"a/7.jpg": JPEG, twin: other, "8.jpg": JPEG}
    for path in (_keep(tmp_path / "folder", files), _keep(tmp_path / "zip.zip", files)):
        source = find(path)
        first, second = sorted((f"{path}/a/7.jpg", f"{path}/{twin}"))
        assert source.clash == f"{path}: galaxy 7 has two different images, {first} and {second}: remove one of them"
        assert _ids_and_paths(source) == [(8, "8.jpg"), *_galaxies("a/7.jpg", twin)]
        assert source.images.named.tolist() == [0, 1, 1]


def _refused_survey(folder: Path) -> str:
    with pytest.raises(SourceError) as caught:
        survey_of(folder, folder.parent)
    return str(caught.value)


def test_different_images_of_one_number_are_refused_beside_a_table_of_numbers(survey: Path, tmp_path: Path) -> None:
    folder = _write(Path(shutil.copytree(survey, tmp_path / "kaggle")), "more/900000.jpg")
    both = f"{folder}/images_test_rev1/900000.jpg and {folder}/more/900000.jpg"
    assert _refused_survey(folder) == f"{folder}: galaxy 900000 has two different images, {both}: remove one of them"


def test_different_images_of_a_row_are_refused_with_both(survey: Path, tmp_path: Path) -> None:
    folder = _write(Path(shutil.copytree(survey, tmp_path / "kaggle")), "more/100000.jpg")
    message = _refused_survey(folder)
    what = f"{folder}/training_solutions_rev1.csv: 100000 is the name of several images ("
    assert message.startswith(what) and message.endswith("): remove all but one, or write their paths into column GalaxyID")
    both = message.removeprefix(what).partition(")")[0].split(", ")
    assert {*both} == {f"{folder}/images_training_rev1/100000.jpg", f"{folder}/more/100000.jpg"}


@pytest.mark.parametrize("other", [OTHER, JPEG[:-1] + b"Y"], ids=["another", "same size"])
def test_another_image_of_the_same_path_in_the_zip_beside_is_refused_with_both(
    tmp_path: Path, find: Find, other: bytes
) -> None:
    _keep(tmp_path, {"images/7.jpg": JPEG, "old.zip": packed({"images/7.jpg": other})})
    both = f"{tmp_path}/images/7.jpg and {tmp_path}/old.zip/images/7.jpg"
    assert _refused(find, tmp_path) == f"{tmp_path}: galaxy images/7.jpg has two different images, {both}: remove one of them"


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_two_zips_of_one_name_in_a_zip_keep_their_own_images(tmp_path: Path, find: Find, method: int) -> None:
    path = tmp_path / "outer.zip"
    with zipfile.ZipFile(path, "w", method) as file, pytest.warns(UserWarning, match="Duplicate name"):
        for galaxy_id in (7, 8):
            file.writestr("images.zip", packed({"a.txt": b"text" * galaxy_id, f"{galaxy_id}.jpg": b"galaxy %d" % galaxy_id}))
    assert _found(find(path)) == [(7, "7.jpg", b"galaxy 7"), (8, "8.jpg", b"galaxy 8")]


def test_two_absurdly_large_images_of_one_number_are_no_copies(tmp_path: Path, find: Find) -> None:
    for name in ("7.jpg", "7.png"):
        _write(tmp_path, name)
        os.truncate(tmp_path / name, MAX_BYTES + 1)  # a hole, which takes no room on disk
    assert f"{tmp_path}/7.jpg and {tmp_path}/7.png" in find(tmp_path).clash


def test_loops_of_links_end(tmp_path: Path, find: Find) -> None:
    _write(tmp_path / "kaggle", "a/b/7.jpg", "c/8.jpg")
    (tmp_path / "kaggle" / "a" / "b" / "up").symlink_to(tmp_path / "kaggle", target_is_directory=True)
    (tmp_path / "kaggle" / "c" / "self").symlink_to(".", target_is_directory=True)
    (tmp_path / "kaggle" / "c" / "other").symlink_to("../a", target_is_directory=True)
    assert _ids_and_paths(find(tmp_path / "kaggle")) == [(7, "a/b/7.jpg"), (8, "c/8.jpg")]


def test_links_to_folders_files_and_zips_are_followed(tmp_path: Path, find: Find) -> None:
    _write(tmp_path / "elsewhere", "images/7.jpg", "8.jpg")
    _keep(tmp_path / "elsewhere" / "more.zip", {"9.jpg": JPEG})
    (tmp_path / "kaggle").mkdir()
    (tmp_path / "kaggle" / "a").symlink_to(tmp_path / "elsewhere" / "images", target_is_directory=True)
    (tmp_path / "kaggle" / "8.jpg").symlink_to(tmp_path / "elsewhere" / "8.jpg")
    (tmp_path / "kaggle" / "b.zip").symlink_to(tmp_path / "elsewhere" / "more.zip")
    assert _ids_and_paths(find(tmp_path / "kaggle")) == [(7, "a/7.jpg"), (8, "8.jpg"), (9, "9.jpg")]


# Suffixes


@pytest.mark.parametrize(
    "suffix", [".jpg", ".JPG", ".jpeg", ".jpe", ".Jpe", ".jfif", ".png", ".tif", ".TIFF", ".tiff", ".webp", ".WebP", ".bmp"]
)
def test_a_picture_of_any_suffix_is_an_image_named_without_it(tmp_path: Path, find: Find, suffix: str) -> None:
    names = (f"7{suffix}", f"a/NGC 4321{suffix}")
    for path in (_write(tmp_path / "folder", *names), _keep(tmp_path / "zip.zip", dict.fromkeys(names, JPEG))):
        source = find(path)
        assert [source.images.galaxy(row) for row in range(2)] in (["7", "NGC 4321"], ["NGC 4321", "7"])
        assert {path for _, path in _ids_and_paths(source)} == {*names}
        assert [*source.left.lines()] == []
    assert len(sources.find_images(tmp_path / "folder" / names[0], tmp_path)[0]) == 1


# What is left alone


def test_files_that_are_not_read_are_counted_by_suffix(tmp_path: Path, find: Find) -> None:
    names = ("1.gif", "2.GIF", "a/3.gif", "a/b/4.gif", "5.avif", "6.avif", "7.avif", "8.jpg.gz", "9.jpg.GZ", "10.jpg.1")
    files = {"10.jpg": JPEG, **dict.fromkeys(names, b"?")}
    for path in (_keep(tmp_path / "folder", files), _keep(tmp_path / "zip.zip", files)):
        assert [*find(path).left.lines()] == ["10 files left alone: 4 .gif, 3 .avif, 2 .jpg.gz, 1 .1"]


def test_of_many_suffixes_the_most_frequent_are_shown(tmp_path: Path, find: Find) -> None:
    names = ("a.txt", "b.txt", "README", "a.b", "a.c", "a.d", "a.e", "a.f", "a.very_long_suffix")
    (line,) = find(_write(tmp_path, "7.jpg", *names)).left.lines()
    assert line == "9 files left alone: 2 .txt, 1 .b, 1 .c, 1 .d, 1 .e, 3 others"
    (line,) = find(_write(tmp_path / "two", "7.jpg", "README", "a.very_long_suffix")).left.lines()
    assert line == "2 files left alone: 1 with a long suffix, 1 without a suffix"


def test_what_is_read_or_hidden_is_not_left_alone(tmp_path: Path, find: Find) -> None:
    files = {"7.jpg": JPEG, **TABLE, **BENCHMARKS, "more.zip": packed({"8.png": JPEG, "my.csv": b"a"})}
    folder = _write(_keep(tmp_path / "folder", files), ".DS_Store", ".ipynb_checkpoints/7.gif", "__MACOSX/x.gif")
    assert [*find(folder).left.lines()] == []


ARCHIVES = {
    "a.tar": "tar xf",
    "b.tar.gz": "tar xf",
    "c.TGZ": "tar xf",
    "d.tar.bz2": "tar xf",
    "e.7z": "7z x",
    "f.rar": "unrar x",
}


def test_archives_that_are_no_zip_are_named_with_what_to_do(tmp_path: Path, find: Find) -> None:
    files = {"7.jpg": JPEG, **dict.fromkeys(ARCHIVES, b"?")}
    for path in (_keep(tmp_path / "folder", files), _keep(tmp_path / "zip.zip", files)):
        assert [*find(path).left.lines()] == [
            f"{path}/{name}: this archive is not read: unpack it with `{unpack}`, and give the folder"
            for name, unpack in ARCHIVES.items()
        ]


def test_a_source_without_images_is_refused_with_what_there_is_instead(tmp_path: Path, find: Find) -> None:
    path = _write(tmp_path / "folder", "1.gif", "2.gif", "images.tar.gz")
    unpack = f"{path}/images.tar.gz: this archive is not read: unpack it with `tar xf`, and give the folder"
    rule = f"holds no images ({KINDS}): give --src the folder or zip with them"
    assert _refused(find, path) == f"{path}: {rule} (2 files left alone: 2 .gif; {unpack})"


# What is not a source


def test_a_missing_source_is_refused(tmp_path: Path, find: Find) -> None:
    assert _refused(find, tmp_path / "kagle") == (
        f"{tmp_path}/kagle: no such folder or zip: give --src the folder or zip that holds the images and the table of votes"
    )


def test_a_file_that_is_no_zip_is_refused_as_source(tmp_path: Path, find: Find) -> None:
    _write(tmp_path, "images.tar.gz", "images.zip", "images.jpg")
    assert _refused(find, tmp_path / "images.jpg").startswith(f"{tmp_path}/images.jpg: not a folder or zip: give --src")
    unpack = "this archive is not read: unpack it with `tar xf`, and give the folder"
    assert _refused(find, tmp_path / "images.tar.gz") == f"{tmp_path}/images.tar.gz: {unpack}"
    (tmp_path / "images.tar.gz").unlink()
    text = f"{tmp_path}/images.zip: not a zip, or cut off: copy or download it again"
    assert _refused(find, tmp_path / "images.zip") == _refused(find, tmp_path) == text


def test_a_source_without_images_is_refused(tmp_path: Path, find: Find) -> None:
    for path in (_keep(tmp_path / "folder", TABLE), _keep(tmp_path / "zip.zip", TABLE), _keep(tmp_path / "empty", {})):
        rule = f"holds no images ({KINDS}): give --src the folder or zip with them"
        assert _refused(find, path) == f"{path}: {rule}"


def test_a_zip_that_is_cut_off_is_refused_by_name_wherever_it_lies(tmp_path: Path, find: Find) -> None:
    half = packed(TRAINING)[:-60]
    files = TEST | {"downloads/images_training_rev1.zip": half}
    for path in (_keep(tmp_path / "folder", files), _keep(tmp_path / "zip.zip", files)):
        text = f"{path}/downloads/images_training_rev1.zip: not a zip, or cut off: copy or download it again"
        assert _refused(find, path) == text
    path = _write(tmp_path, "half.zip", content=half) / "half.zip"
    assert _refused(find, path) == f"{path}: not a zip, or cut off: copy or download it again"


@pytest.mark.parametrize("method", [STORED, DEFLATED])
def test_zips_are_read_four_deep_and_refused_below(tmp_path: Path, find: Find, method: int) -> None:
    content = packed({"7.jpg": JPEG})
    for depth in range(2, 5):
        content = packed({f"{depth}.zip": content}, method)
    path = _write(tmp_path, "outer.zip", content=content) / "outer.zip"
    assert _ids_and_paths(find(path)) == _ids_and_paths(find(tmp_path)) == [(7, "7.jpg")]
    _write(tmp_path, "outer.zip", content=packed({"5.zip": content}, method))
    inner = f"{path}/5.zip/4.zip/3.zip/2.zip"
    assert _refused(find, path) == f"{inner}: zips within zips, 5 deep: unzip the outer ones first"


# Votes


@pytest.mark.parametrize("name", ["training_solutions_rev1.csv", "target_data/targets.csv"])
@pytest.mark.parametrize("folder", ["", "kaggle/2014/"])
def test_a_table_of_votes_is_found_zipped_or_not(tmp_path: Path, find: Find, folder: str, name: str) -> None:
    images = {"7.jpg": JPEG}
    above = f"{folder}{name.split('/')[0].removesuffix('.csv')}.zip"
    tables = {
        "folder": {f"{folder}{name}": VOTES},
        "zip": {above: packed({name: VOTES})},
        "flat zip": {above: packed({name.rpartition("/")[2]: VOTES})},
    }
    for kind, table in tables.items():
        for path in (
            _keep(tmp_path / kind, images | table),
            _keep(tmp_path / f"{kind}.zip", images | table),
            _keep(tmp_path / f"{kind} in a folder", {"kaggle.zip": packed(images | table, STORED)}),
        ):
            assert _votes(find(path)) == VOTES


def test_a_table_of_votes_shows_where_it_lies(tmp_path: Path, find: Find) -> None:
    files = {"7.jpg": JPEG, "a/training_solutions_rev1.zip": packed(TABLE)}
    for path in (_keep(tmp_path / "folder", files), _keep(tmp_path / "zip.zip", files)):
        (table,) = find(path).solutions
        assert table.path == f"{path}/a/training_solutions_rev1.zip/training_solutions_rev1.csv"


NO_VOTES = (
    "all_zeros_benchmark.csv", "all_ones_benchmark.csv", "central_pixel_benchmark.csv", "targets.csv", "submission.csv",
    "my_training_solutions_rev1.csv", "training_solutions_rev1.csv.bak", "training_solutions_rev2.csv",
    "my_target_data/targets.csv", "target_data/old/targets.csv", "target_data/my_targets.csv",
    ".training_solutions_rev1.csv", "__MACOSX/training_solutions_rev1.csv", ".old/training_solutions_rev1.csv",
)  # fmt: skip


def test_benchmarks_and_submissions_are_never_votes(tmp_path: Path, find: Find) -> None:
    files = {"7.jpg": JPEG, **dict.fromkeys(NO_VOTES, VOTES)}
    zips = {f"{Path(name).stem}.zip": packed({name: VOTES}) for name in NO_VOTES if name != "targets.csv"}
    for path in (
        _keep(tmp_path / "folder", files),
        _keep(tmp_path / "zip.zip", files),
        _keep(tmp_path / "zips", {"7.jpg": JPEG} | zips),
        _keep(tmp_path / "zips.zip", {"7.jpg": JPEG} | zips),
    ):
        assert find(path).solutions == ()
        assert _votes(find(path)) is None


def test_copies_of_a_table_of_votes_count_once(tmp_path: Path, find: Find) -> None:
    files = {"7.jpg": JPEG, **TABLE, "training_solutions_rev1.zip": packed(TABLE), "target_data/targets.csv": VOTES}
    for path in (_keep(tmp_path / "folder", files), _keep(tmp_path / "zip.zip", files)):
        assert len(find(path).solutions) == 3
        assert _votes(find(path)) == VOTES


def test_different_tables_of_votes_are_refused_with_all_unless_one_is_named(tmp_path: Path, find: Find) -> None:
    _keep(tmp_path, {"7.jpg": JPEG, **TABLE, "old.zip": packed({"training_solutions_rev1.csv": VOTES + b"8,1\n"})})
    source = find(tmp_path)
    with pytest.raises(SourceError) as caught:
        _votes(source)
    both = f"{tmp_path}/old.zip/training_solutions_rev1.csv, {tmp_path}/training_solutions_rev1.csv"
    assert str(caught.value) == f"{tmp_path}: more than one table of votes ({both}): choose one with --solutions FILE"
    assert _votes(source, tmp_path / "training_solutions_rev1.csv") == VOTES
    assert _votes(source, tmp_path / "old.zip") == VOTES + b"8,1\n"


def test_a_damaged_table_of_votes_in_a_zip_is_refused_by_name(tmp_path: Path, find: Find) -> None:
    content = packed(TABLE, STORED).replace(VOTES, VOTES.replace(b"7", b"9"))
    _keep(tmp_path, {"7.jpg": JPEG, "training_solutions_rev1.zip": content})
    with pytest.raises(SourceError) as caught:
        _votes(find(tmp_path))
    text = "training_solutions_rev1.csv is damaged: copy or download it again"
    assert str(caught.value) == f"{tmp_path}/training_solutions_rev1.zip: {text}"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("votes.csv", None),
        ("votes.txt", None),
        ("votes.zip", {"my votes.csv": VOTES}),
        ("votes.ZIP", {"a/b/votes.CSV": VOTES, "readme.txt": b"text", "__MACOSX/a/b/._votes.csv": b"shadow"}),
        ("votes.zip", {"training_solutions_rev1.csv": VOTES, "all_zeros_benchmark.csv": b"zeros"}),
        ("votes.zip", {"a/target_data/targets.csv": VOTES, "targets.csv": b"others"}),
        ("target_data.zip", {"targets.csv": VOTES, "others.csv": b"others"}),
        ("votes.zip", {"votes.FITS": VOTES, "readme.txt": b"text"}),
        ("votes.zip", {"votes.fit.gz": VOTES}),
    ],
)
def test_a_given_table_of_votes_is_taken_as_csv_or_in_a_zip(tmp_path: Path, find: Find, name: str, files: Files | None) -> None:
    source = find(_keep(tmp_path / "kaggle", {"7.jpg": JPEG, "training_solutions_rev1.csv": b"not these"}))
    given = _write(tmp_path, name, content=VOTES if files is None else packed(files)) / name
    assert _votes(source, given) == VOTES


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (
            {"readme.txt": b"text", "__MACOSX/._votes.csv": b"shadow"},
            "holds no table (.csv, .tsv, .parquet or .fits): give --solutions the table of votes",
        ),
        (
            {"a.csv": VOTES, "b.csv": VOTES, "c.csv": VOTES, "d.fits.gz": VOTES},
            "holds 4 tables (a.csv, b.csv, c.csv, ...): unzip it, and give --solutions the one with the votes",
        ),
        (
            {"training_solutions_rev1.csv": VOTES, "target_data/targets.csv": VOTES, "c.csv": VOTES},
            "holds 2 tables (training_solutions_rev1.csv, targets.csv): unzip it, and give --solutions the one with the votes",
        ),
    ],
)
def test_a_given_zip_without_one_table_of_votes_is_refused(tmp_path: Path, find: Find, files: Files, what: str) -> None:
    source = find(_write(tmp_path, "7.jpg", "training_solutions_rev1.csv"))
    given = _keep(tmp_path / "votes.zip", files)
    with pytest.raises(SourceError) as caught:
        _votes(source, given)
    assert str(caught.value) == f"{given}: {what}"


def test_a_given_table_of_votes_that_is_missing_is_refused(tmp_path: Path, find: Find) -> None:
    source = find(_write(tmp_path, "7.jpg", "training_solutions_rev1.csv"))
    for path, what in ((tmp_path / "votes.csv", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(SourceError) as caught:
            _votes(source, path)
        assert str(caught.value) == f"{path}: {what}: give --solutions the table of votes: CSV, Parquet or FITS, zipped or not"


def test_a_given_zip_that_is_none_is_refused_by_name(tmp_path: Path, find: Find) -> None:
    source = find(_write(tmp_path, "7.jpg"))
    given = _write(tmp_path / "votes", "votes.zip", content=VOTES) / "votes.zip"
    with pytest.raises(SourceError, match=f"^{given}: not a zip, or cut off"):
        _votes(source, given)


def test_of_copies_the_one_in_a_split_folder_gives_the_split(tmp_path: Path) -> None:
    _write(tmp_path, "train_images/data7.jpg")
    (tmp_path / "images_training_rev1.zip").write_bytes(packed({"images_training_rev1/7.jpg": JPEG}))
    images = sources.find_source(tmp_path, tmp_path).images
    assert images.galaxy_id.tolist() == [7] and _splits(images) == {7: "train"}


def test_a_name_that_a_zip_holds_as_utf_8_without_saying_so_is_that_of_the_folder(tmp_path: Path) -> None:
    name = "galaxi\u00e9.jpg"
    content = packed({name: JPEG})  # zipfile sets the flag of UTF-8 names, bit 11; Info-ZIP does not
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(signature) + flags
        content = (
            content[:at] + (int.from_bytes(content[at : at + 2], "little") & ~0x800).to_bytes(2, "little") + content[at + 2 :]
        )
    (tmp_path / "images.zip").write_bytes(content)
    folder = _write(tmp_path / "images", name)
    zipped, plain = (sources.find_source(path, tmp_path).images for path in (tmp_path / "images.zip", folder))
    assert zipped.path(0) == plain.path(0) == name
    assert zipped.galaxy_id.tolist() == plain.galaxy_id.tolist()


# Images to predict


def _listed(path: Path, scratch: Path) -> list[tuple[int, str, bytes]]:
    images, _ = sources.find_images(path, scratch)
    with ImageReader() as reader:
        return [(int(images.galaxy_id[row]), images.path(row), reader.read(images, row)[0]) for row in range(len(images))]


@pytest.mark.parametrize("way", WAYS)
def test_the_images_to_predict_are_those_of_the_source_however_it_is_kept(tmp_path: Path, way: str) -> None:
    assert _listed(_keep(tmp_path / "kaggle", WAYS[way]), tmp_path) == EXPECTED


def test_fits_files_beside_pictures_are_images_only_where_they_are_to_be_predicted(tmp_path: Path, find: Find) -> None:
    names = ("3.jpg", "a/2.FITS", "a/1.fit", "4.fits.txt", "5.ft")
    for path in (_write(tmp_path / "folder", *names), _keep(tmp_path / "zip.zip", dict.fromkeys(names, JPEG))):
        assert [name for _, name, _ in _listed(path, tmp_path)] == ["a/1.fit", "a/2.FITS", "3.jpg"]
        assert _ids_and_paths(find(path)) == [(3, "3.jpg")]
        assert "1 .fit, 1 .fits" in next(find(path).left.lines())


@pytest.mark.parametrize(
    ("name", "named"), [("7.jpg", False), ("7.FITS", False), ("007.FITS", True), ("NGC 7.png", True), ("data7.jpg", True)]
)
def test_a_single_image_is_predicted_by_its_name_whatever_folder_it_lies_in(tmp_path: Path, name: str, named: bool) -> None:
    path = _write(tmp_path / "train_images", name, "8.jpg") / name
    assert _listed(path, tmp_path) == [(_top_63_bits(name) if named else 7, name, JPEG)]
    assert sources.find_images(path, tmp_path)[0].named.tolist() == [named]


def test_a_single_image_is_no_source_to_preprocess(tmp_path: Path, find: Find) -> None:
    assert "not a folder or zip: give --src" in _refused(find, _write(tmp_path, "7.jpg") / "7.jpg")


def test_a_relative_path_to_a_single_image_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_write(tmp_path, "7.jpg"))
    assert _listed(Path("7.jpg"), tmp_path) == [(7, "7.jpg", JPEG)]


def test_two_different_images_of_a_number_are_two_galaxies_where_they_are_to_be_predicted_too(tmp_path: Path) -> None:
    folder = _keep(tmp_path / "folder", {"7.jpg": JPEG, "7.fits": OTHER})
    assert [(galaxy_id, path) for galaxy_id, path, _ in _listed(folder, tmp_path)] == _galaxies("7.jpg", "7.fits")


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
    (_write(tmp_path, "notes.txt", "broken.zip") / "empty").mkdir()
    with pytest.raises(SourceError) as caught:
        sources.find_images(tmp_path / name, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / name}: {what}")


def _forged(content: bytes, crc: int) -> bytes:
    """`content` and four bytes that give the whole this CRC-32, which is linear in the bits of the four."""
    empty = zlib.crc32(content + bytes(4))
    columns = [zlib.crc32(content + (1 << bit).to_bytes(4, "little")) ^ empty for bit in range(32)]
    wanted, basis = empty ^ crc, {}
    for bit, column in enumerate(columns):
        mask = 1 << bit
        while column:
            top = column.bit_length()
            if top not in basis:
                basis[top] = (column, mask)
                break
            column, mask = column ^ basis[top][0], mask ^ basis[top][1]
    patch = 0
    while wanted:
        column, mask = basis[wanted.bit_length()]
        wanted, patch = wanted ^ column, patch ^ mask
    return content + patch.to_bytes(4, "little")


def _zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(zipfile.ZipInfo(name), content)
        file.comment = b"four"
    return buffer.getvalue()


def test_two_inner_zips_with_the_same_size_and_crc_are_two(tmp_path: Path) -> None:
    """CRC-32 detects damage but does not identify a file: two files can be given the same one."""
    first, second = (_zip_of({f"{galaxy}.jpg": b"galaxy %d" % galaxy}) for galaxy in (7, 8))
    second = _forged(second[:-4], zlib.crc32(first))  # the four bytes of its comment
    assert len(first) == len(second) and zlib.crc32(first) == zlib.crc32(second)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("first.zip", first)
        file.writestr("second.zip", second)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for _ in range(2):  # the second time the copies already exist
        images = sources.find_source(tmp_path / "outer.zip", scratch).images
        with ImageReader() as reader:
            found = {int(images.galaxy_id[row]): reader.read(images, row).data for row in range(len(images))}
        assert found == {7: b"galaxy 7", 8: b"galaxy 8"}
    assert len([*scratch.iterdir()]) == 2


def test_a_copy_of_an_inner_zip_is_made_again_where_the_zip_around_it_changed(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    first = _zip_of({"7.jpg": b"galaxy 7"})
    second = _forged(_zip_of({"8.jpg": b"galaxy 8"})[:-4], zlib.crc32(first))
    for content, galaxy in ((first, 7), (second, 8)):
        with zipfile.ZipFile(tmp_path / "outer.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(zipfile.ZipInfo("inner.zip"), content, zipfile.ZIP_DEFLATED)
        assert sources.find_source(tmp_path / "outer.zip", scratch).images.galaxy_id.tolist() == [galaxy]


@pytest.mark.parametrize("kind", ["folders", "zip"])
def test_two_different_images_of_a_number_with_the_same_crc_are_no_copies(tmp_path: Path, kind: str) -> None:
    first = b"a galaxy as it was"
    second = _forged(b"another galaxy"[: len(first) - 4], zlib.crc32(first))
    assert len(first) == len(second) and zlib.crc32(first) == zlib.crc32(second)
    source = tmp_path / "kaggle"
    for name, content in (("a", first), ("b", second)):
        (source / name).mkdir(parents=True)
        (source / name / "7.jpg").write_bytes(content)
    if kind == "zip":
        (source / "b.zip").write_bytes(_zip_of({"b/7.jpg": second}))
        shutil.rmtree(source / "b")
    clash = sources.find_source(source, tmp_path).clash
    assert re.search(r"galaxy 7 has two different images, .*a/7\.jpg and .*b/7\.jpg: remove one of them", clash)
