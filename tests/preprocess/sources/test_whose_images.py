"""Which files are images, of which galaxy, and of which split."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from preprocess.surveys import survey_of
from tests.preprocess.sources.finding import (
    JPEG,
    OTHER,
    VOTES,
    Find,
    contents_of,
    ids_and_paths,
    keep,
    refusal,
    splits_in,
    top_63_bits,
    votes_of,
    write_files,
)
from tests.preprocess.sources.packing import Files, packed
from tfrecords.errors import SourceError

# Which files are images, and of which galaxy


def test_images_are_found_at_any_depth_and_by_any_usual_suffix(tmp_path: Path, find: Find) -> None:
    names = ("3.jpg", "a/2.JPG", "a/b/1.jpeg", "c/10.png", "a/notes.txt", "a/b/thumbs.db", "c/11.gif", "12", "jpg")
    expected = [(1, "a/b/1.jpeg"), (2, "a/2.JPG"), (3, "3.jpg"), (10, "c/10.png")]
    assert ids_and_paths(find(write_files(tmp_path / "folder", *names))) == expected
    assert ids_and_paths(find(keep(tmp_path / "zip.zip", dict.fromkeys(names, JPEG)))) == expected


HIDDEN = (".2.jpg", "._1.jpg", ".cache/3.jpg", "__MACOSX/1.jpg", "__MACOSX/._1.jpg", "a/__MACOSX/4.jpg", "a/.b/c/5.jpg")


def test_hidden_files_and_macos_shadow_folder_are_no_images(tmp_path: Path, find: Find) -> None:
    write_files(write_files(tmp_path / "folder", "1.jpg"), *HIDDEN, content=OTHER)
    assert ids_and_paths(find(tmp_path / "folder")) == [(1, "1.jpg")]


def test_hidden_files_and_macos_shadow_folder_in_zips_are_no_images(tmp_path: Path, find: Find) -> None:
    files = {"1.jpg": JPEG, **dict.fromkeys(HIDDEN, OTHER), "__MACOSX/._images.zip": b"no zip", ".old.zip": b"no zip"}
    assert ids_and_paths(find(keep(tmp_path / "zip.zip", files))) == [(1, "1.jpg")]
    outer = keep(tmp_path / "outer.zip", {"images.zip": packed(files), "__MACOSX/._images.zip": b"no zip"})
    assert ids_and_paths(find(outer)) == [(1, "1.jpg")]
    write_files(tmp_path / "folder", "1.jpg")
    write_files(tmp_path / "folder", "._images.zip", "__MACOSX/images.zip", ".old.zip", content=b"no zip")
    assert ids_and_paths(find(tmp_path / "folder")) == [(1, "1.jpg")]


def test_a_zip_whose_names_begin_with_a_dot_and_a_slash_is_read_as_without(tmp_path: Path, find: Find) -> None:
    # As `tar -acf images.zip ./images` writes them on macOS and Windows.
    path = keep(tmp_path / "images.zip", {"./": b"", "./images/": b"", "./images/7.jpg": JPEG, "./8.jpg": OTHER})
    assert ids_and_paths(find(path)) == [(7, "images/7.jpg"), (8, "8.jpg")]


def test_what_is_no_regular_file_is_no_image(tmp_path: Path, find: Find) -> None:
    write_files(tmp_path, "7.jpg", "8.jpg/notes.txt")
    os.mkfifo(tmp_path / "9.jpg")
    assert ids_and_paths(find(tmp_path)) == [(7, "7.jpg")]


def test_paths_and_ids_in_a_zip_do_not_depend_on_the_locale_of_the_machine(tmp_path: Path, find: Find) -> None:
    path = keep(tmp_path / "kaggle.zip", {"Größe/ñ.jpg": JPEG, "星系/7.jpg": JPEG})
    program = (
        "import sys; from pathlib import Path; from preprocess import sources\n"
        "images = sources.find_source(Path(sys.argv[1]), Path()).images\n"
        "print(ascii([(int(images.galaxy_id[row]), images.path(row)) for row in range(len(images))]))"
    )
    arguments = [sys.executable, "-c", program, str(path)]
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=ascii_only, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (f"{ids_and_paths(find(path))!a}\n", "")


def test_the_source_does_not_depend_on_where_it_lies(survey: Path, tmp_path: Path, find: Find) -> None:
    shutil.copytree(survey, tmp_path / "train_images" / "images_training_rev1" / "elsewhere")
    source = find(tmp_path / "train_images" / "images_training_rev1" / "elsewhere")
    assert contents_of(source) == contents_of(find(survey))
    assert {*splits_in(source.images).values()} == {""}
    assert votes_of(source) == votes_of(find(survey))


def test_ids_are_numbers_up_to_the_largest_int64(tmp_path: Path, find: Find) -> None:
    write_files(tmp_path, f"{2**63 - 1}.jpg", "7.jpg", "0.jpg")
    assert ids_and_paths(find(tmp_path)) == [(0, "0.jpg"), (7, "7.jpg"), (2**63 - 1, f"{2**63 - 1}.jpg")]
    assert not find(tmp_path).images.named.any() and find(tmp_path).images.parts == 0


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
    expected = sorted([(top_63_bits(f"a/{name}"), f"a/{name}", JPEG), (7, "a/7.jpg", OTHER)])
    for path in (
        keep(tmp_path / "folder", files),
        keep(tmp_path / "elsewhere" / "train_images" / "folder", files),
        keep(tmp_path / "zip.zip", files),
        keep(tmp_path / "of-zips", {"b/c/images.zip": zipped}),
        keep(tmp_path / "outer.zip", {"b/c/images.zip": zipped}),
        keep(tmp_path / "mixture", files | {"images.zip": zipped}),
    ):
        source = find(path)
        assert contents_of(source) == expected
        assert source.images.named.tolist() == [galaxy_id != 7 for galaxy_id, _, _ in expected]


def test_a_known_name_never_changes_its_id(tmp_path: Path, find: Find) -> None:
    # Computed once: the first 16 digits of `printf 'spirals/NGC 1300.jpg' | sha256sum`, halved.
    assert ids_and_paths(find(write_files(tmp_path, "spirals/NGC 1300.jpg"))) == [
        (8_166_341_025_793_711_148, "spirals/NGC 1300.jpg")
    ]


def test_a_name_of_thousands_of_digits_is_no_number(tmp_path: Path, find: Find) -> None:
    name = f"{'9' * 5000}.jpg"  # too long a name for a folder, but not for a zip
    assert ids_and_paths(find(keep(tmp_path / "zip.zip", {name: JPEG}))) == [(top_63_bits(name), name)]


def _with_strays(survey: Path, folder: Path, strays: int) -> Path:
    """A copy of 28 images with others whose names are no numbers."""
    shutil.copytree(survey, folder)
    return write_files(folder, "images_test_rev1/NGC 1300.jpg", *(f"figures/loss {number}.png" for number in range(1, strays)))


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
        "folder": lambda: keep(tmp_path / "article", ARTICLE),
        "plain zip": lambda: keep(tmp_path / "article.zip", ARTICLE),
        "zips": lambda: keep(tmp_path / "article", archives),
        "flat zips": lambda: keep(tmp_path / "article", archives),
        "zips in a zip": lambda: keep(tmp_path / "article.zip", archives),
        "flat zips in a zip": lambda: keep(tmp_path / "article.zip", archives),
    }[kind]()
    source = find(path)
    assert splits_in(source.images) == {100008: "train", 100023: "train", 100053: "validation", 100078: "test", 100090: ""}
    training = [source.images.places[place].training for place in source.images.place]
    assert training == [True, True, True, False, False]
    pictures = [content for name, content in ARTICLE.items() if ".jpg" in name]
    assert [content for _, _, content in contents_of(source)] == pictures
    assert not source.images.named.any()
    assert votes_of(source) == VOTES


def test_the_word_data_is_part_of_a_number_in_the_articles_folders_only(tmp_path: Path, find: Find) -> None:
    write_files(tmp_path, "train_images/data7.jpg", "train_images/data8.jpg/x.txt", "others/data9.jpg", "data10.jpg")
    images = find(tmp_path).images
    named = {images.path(row): bool(images.named[row]) for row in range(len(images))}
    assert named == {"train_images/data7.jpg": False, "others/data9.jpg": True, "data10.jpg": True}


@pytest.mark.parametrize("name", ["mydata7.jpg", "data-7.jpg", "Data7.jpg", "data.jpg", "data7b.jpg", "datadata7.jpg"])
def test_other_words_are_no_part_of_a_number_in_the_articles_folders(tmp_path: Path, find: Find, name: str) -> None:
    assert find(write_files(tmp_path, f"train_images/{name}")).images.named.all()


TRAINING_FOLDERS = ("images_training_rev1", "images_train_rev1", "train_images", "validation_images")


@pytest.mark.parametrize("folder", [*TRAINING_FOLDERS, "images_test_rev1", "test_images", "train", "my_train_images", "images"])
def test_only_training_folders_promise_votes(tmp_path: Path, find: Find, folder: str) -> None:
    for path in (
        keep(tmp_path / "folder", {f"a/{folder}/b/7.jpg": JPEG}),
        keep(tmp_path / "zip.zip", {f"{folder}/7.jpg": JPEG}),
        keep(tmp_path / "zips", {f"{folder}.zip": packed({"7.jpg": JPEG})}),
        keep(tmp_path / "outer.zip", {f"a/{folder}.zip": packed({"b/7.jpg": JPEG})}),
    ):
        images = find(path).images
        assert [images.places[place].training for place in images.place] == [folder in TRAINING_FOLDERS]


def test_a_galaxy_in_two_splits_is_refused_with_both_even_with_the_same_bytes(tmp_path: Path, find: Find) -> None:
    files = {"train_images/data7.jpg": JPEG, "test_images/7.jpg": JPEG}
    both = "is in two splits, {0}/test_images/7.jpg and {0}/train_images/data7.jpg: remove one of them"
    for path in (keep(tmp_path / "article", files), keep(tmp_path / "article.zip", files)):
        assert refusal(find, path) == f"{path}: galaxy 7 {both.format(path)}"
