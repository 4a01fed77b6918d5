"""Every image and table of votes is found wherever it lies, and what is ambiguous is refused by name."""

import shutil
from pathlib import Path

import pytest

from preprocess import sources
from tfrecords.errors import SourceError

JPEG, OTHER = b"\xff\xd8 one galaxy", b"\xff\xd8 another one"


def _write(folder: Path, *names: str, content: bytes = JPEG) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _refused(folder: Path) -> str:
    with pytest.raises(SourceError) as caught:
        sources.find(folder)
    return str(caught.value)


def test_all_real_galaxies_are_found_with_their_votes(kaggle: Path) -> None:
    source = sources.find(kaggle)
    assert len(source.images) == 3064 + 1197
    assert source.solutions == ("training_solutions_rev1.csv",)
    assert sources.solutions_path(source, None) == kaggle / "training_solutions_rev1.csv"
    assert [image.galaxy_id for image in source.images] == sorted(int(path.stem) for path in kaggle.glob("*/*.jpg"))
    for image in source.images[::500]:
        assert (kaggle / image.path).stem == str(image.galaxy_id)
        assert (kaggle / image.path).stat().st_size == image.bytes


def test_images_are_found_at_any_depth_and_by_any_usual_suffix(tmp_path: Path) -> None:
    _write(tmp_path, "3.jpg", "a/2.JPG", "a/b/1.jpeg", "c/10.png", "a/notes.txt", "a/b/thumbs.db")
    assert [(image.galaxy_id, image.path) for image in sources.find(tmp_path).images] == [
        (1, "a/b/1.jpeg"),
        (2, "a/2.JPG"),
        (3, "3.jpg"),
        (10, "c/10.png"),
    ]


def test_hidden_files_and_macos_shadow_folder_are_no_images(tmp_path: Path) -> None:
    _write(tmp_path, "1.jpg")
    _write(tmp_path, ".2.jpg", "._1.jpg", ".cache/3.jpg", "__MACOSX/1.jpg", "__MACOSX/._1.jpg", "__MACOSX/4.jpg", content=OTHER)
    assert [image.path for image in sources.find(tmp_path).images] == ["1.jpg"]


def test_the_source_does_not_depend_on_where_it_lies(survey: Path, tmp_path: Path) -> None:
    shutil.copytree(survey, tmp_path / "elsewhere")
    assert sources.find(tmp_path / "elsewhere").images == sources.find(survey).images


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert _refused(tmp_path / "kagle").startswith(f"{tmp_path}/kagle: no such folder: give --src the folder")


def test_a_file_as_source_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "images.zip")
    assert _refused(tmp_path / "images.zip").startswith(f"{tmp_path}/images.zip: not a folder: give --src the folder")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "training_solutions_rev1.csv")
    assert _refused(tmp_path) == f"{tmp_path}: no JPEG or PNG images in it: give --src the folder that holds them"


@pytest.mark.parametrize("name", ["100008galaxy.jpg", "galaxy.jpg", "-7.jpg", "1.5.jpg", "²3.jpg", "7 (1).jpg"])
def test_an_image_whose_name_is_no_number_is_refused_by_name(tmp_path: Path, name: str) -> None:
    _write(tmp_path, "a/7.jpg", f"a/{name}")
    assert _refused(tmp_path) == (
        f"{tmp_path}/a/{name}: the name is no GalaxyID: name each image by its number, like 100008.jpg"
    )


def test_ids_up_to_the_largest_int64_are_taken(tmp_path: Path) -> None:
    _write(tmp_path, f"{2**63 - 1}.jpg")
    assert sources.find(tmp_path).images[0].galaxy_id == 2**63 - 1
    _write(tmp_path, f"{2**63}.jpg")
    assert "the name is no GalaxyID" in _refused(tmp_path)


@pytest.mark.parametrize("twin", ["b/7.jpg", "a/007.jpg", "a/7.jpeg"])
def test_the_same_galaxy_twice_with_the_same_bytes_counts_once(tmp_path: Path, twin: str) -> None:
    _write(tmp_path, "a/7.jpg", twin, "a/8.jpg")
    images = sources.find(tmp_path).images
    assert [image.galaxy_id for image in images] == [7, 8]
    assert images[0].path == min("a/7.jpg", twin)


@pytest.mark.parametrize("twin", ["b/7.jpg", "a/007.jpg", "a/7.png"])
def test_the_same_galaxy_twice_with_different_bytes_is_refused_with_both(tmp_path: Path, twin: str) -> None:
    _write(tmp_path, "a/7.jpg")
    _write(tmp_path, twin, content=OTHER)
    first, second = sorted(["a/7.jpg", twin])
    assert _refused(tmp_path) == f"{tmp_path}: galaxy 7 has two different images, {first} and {second}: remove one of them"


def test_the_articles_table_of_votes_is_found(tmp_path: Path) -> None:
    _write(tmp_path, "train_images/7.jpg", "target_data/targets.csv")
    assert sources.solutions_path(sources.find(tmp_path), None) == tmp_path / "target_data" / "targets.csv"


def test_benchmarks_and_submissions_are_never_votes(tmp_path: Path) -> None:
    _write(tmp_path, "7.jpg", "all_zeros_benchmark.csv", "all_ones_benchmark.csv", "central_pixel_benchmark.csv")
    _write(tmp_path, "targets.csv", "my_training_solutions_rev1.csv", "training_solutions_rev1.csv.bak")
    source = sources.find(tmp_path)
    assert source.solutions == ()
    with pytest.raises(SourceError, match=r"no table of votes in it \(training_solutions_rev1\.csv or.*--solutions FILE"):
        sources.solutions_path(source, None)


def test_two_tables_of_votes_are_refused_with_both_unless_one_is_named(tmp_path: Path) -> None:
    _write(tmp_path, "7.jpg", "training_solutions_rev1.csv", "old/training_solutions_rev1.csv")
    source = sources.find(tmp_path)
    with pytest.raises(SourceError) as caught:
        sources.solutions_path(source, None)
    both = "old/training_solutions_rev1.csv, training_solutions_rev1.csv"
    assert str(caught.value) == f"{tmp_path}: more than one table of votes ({both}): name one with --solutions FILE"
    given = tmp_path / "old" / "training_solutions_rev1.csv"
    assert sources.solutions_path(source, given) == given


def test_a_named_table_of_votes_that_is_missing_is_refused(tmp_path: Path) -> None:
    source = sources.find(_write(tmp_path, "7.jpg", "training_solutions_rev1.csv"))
    for given in (tmp_path / "votes.csv", tmp_path):
        with pytest.raises(SourceError, match=r"(no such file|is a folder): give --solutions the table of votes, a CSV file"):
            sources.solutions_path(source, given)
