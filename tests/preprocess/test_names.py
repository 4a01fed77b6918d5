"""Images with names of any kind are joined with their rows by them, and each record holds its own."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.job import BuildSettings, build_dataset
from preprocess.verify.dataset import verify_dataset
from tests.preprocess.dialects import Dialect
from tests.preprocess.people import TABLE, People, build_and_verify
from tests.preprocess.surveys import examples_by_name, refused
from tests.tfrecords.earlier import with_table_of_names
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError

Run = Callable[..., Any]


NAMES: dict[str, list[str]] = {
    "coordinates": [f"J{112953 + 37 * number}.88-{427 + 11 * number:06}.4" for number in range(20)],
    "bricks": [f"{1000123 + 37 * number}_{4567 + 11 * number}" for number in range(20)],
    "leading zeros": [f"{7 + number:03}" for number in range(20)],
    "some leading zeros": [f"{number:02}" for number in range(20)],
    "beyond 64 bits": [str(2**63 + number) for number in range(20)],
    "words": ["M 51", "NGC 4321", "möwe", "星", "a,b", "NA", "null", "-7", "+1", "1e5x", "7.5", "Ring (1)", "x.y", "true",
              "0x1f", "m 51", "#1", "'q'", "1⁄2", "sep="],
}  # fmt: skip


def _assert_holds(data: Dataset, people: People, names: list[str]) -> None:
    """Each galaxy by its name, with the votes of its row and the pixels of its image."""
    examples = examples_by_name(data)
    assert data.named and examples.keys() == {*names} and data.galaxies("unlabelled") == 0
    plain = examples_by_name(people.dataset)
    for name, row in zip(names, people.rows, strict=False):
        np.testing.assert_array_equal(examples[name].targets, np.array([*map(np.float32, row[1:])]))
        assert examples[name].image == plain[row[0]].image


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("coordinates", "iauname"), ("coordinates", "GalaxyID"), ("coordinates", "filename"), ("bricks", "id_str"),
        ("bricks", "path"), ("leading zeros", "GalaxyID"), ("leading zeros", "file"), ("some leading zeros", "id_str"),
        ("beyond 64 bits", "objid"), ("words", "name"), ("words", "image"),
    ],
)  # fmt: skip
def test_images_with_names_are_joined_by_them(
    people: People, tiny: BuildSettings, tmp_path: Path, kind: str, column: str
) -> None:
    names = NAMES[kind]
    source = people.named(tmp_path / "mine", names)
    form = {"filename": "{}.jpg", "file": "{}.png", "path": "mine/{}.jpg", "image": "/data/mine/{}.JPG"}.get(column, "{}")
    (source / TABLE).write_bytes(people.by(column, [form.format(name) for name in names]))
    _assert_holds(build_and_verify(source, tiny), people, names)


@pytest.mark.parametrize("way", ["path", "file", "absolute", "Windows", "without suffix", "--path_column", "--id_column"])
def test_class_folders_with_equal_names_are_different_galaxies_joined_by_path(
    people: People, tiny: BuildSettings, tmp_path: Path, way: str
) -> None:
    names = [f"{kind}/{number:03}" for kind in ("spiral", "disk") for number in range(10)]
    source = people.named(tmp_path / "mine", names)
    ids = [f"{name}.jpg" for name in names]
    if way == "absolute":
        ids = [f"{source}/{name}" for name in ids]
    elif way == "Windows":
        ids = [name.replace("/", "\\") for name in ids]
    elif way == "without suffix":
        ids = names
    column = way if way in ("path", "file") else "where" if way.startswith("--") else "filename"
    rows = [[*row, row[0]] for row in people.rows]
    values = [[name, *row[1:]] for name, row in zip(ids, rows, strict=True)]
    last = ["GalaxyID"] if way.startswith("--") else ["note"]  # would be taken for the ids
    (source / TABLE).write_bytes(Dialect().written([column, *people.header[1:], *last], values, ()))
    options = {way.removeprefix("--"): "where"} if way.startswith("--") else {}
    data = build_and_verify(source, tiny, **options)
    _assert_holds(data, people, names)
    assert {name: data.settings.get(name) for name in options} == options
    assert build_dataset(source, data.folder, tiny, workers=1, **options).already_complete
    for name in options:
        with pytest.raises(ConfigError, match=f"{name} was where, now Where"):
            build_dataset(source, data.folder, tiny, workers=1, **{name: "Where"})


def test_numbers_in_class_folders_with_different_images_need_paths(people: People, tiny: BuildSettings, tmp_path: Path) -> None:
    names = [f"{kind}/{number}" for kind in ("spiral", "disk") for number in range(10)]
    source = people.named(tmp_path / "mine", names)
    (source / TABLE).write_bytes(people.by("GalaxyID", [str(number) for number in range(10)]))
    message = refused(source, tiny, tmp_path / "no")
    assert f"{TABLE}: 0 is the name of several images (" in message and message.endswith("their paths into column GalaxyID")
    (source / TABLE).write_bytes(people.by("file", [f"{name}.jpg" for name in names]))
    _assert_holds(build_and_verify(source, tiny), people, names)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_named_survey_gives_the_same_bytes_as_a_folder_and_a_zip(
    people: People, tiny: BuildSettings, contents: Callable[[Path], dict[str, bytes]], tmp_path: Path, packed: bool
) -> None:
    source = people.named(tmp_path / "a" / "mine", NAMES["coordinates"])
    (source / TABLE).write_bytes(people.by("iauname", NAMES["coordinates"]))
    expected = contents(build_and_verify(source, tiny).folder)
    (tmp_path / "b").mkdir()
    other = tmp_path / "b" / "moved"
    other = Path(shutil.make_archive(str(other), "zip", source)) if packed else Path(shutil.copytree(source, other))
    assert contents(build_and_verify(other, tiny).folder) == expected


def test_the_command_says_by_which_column_rows_were_joined_and_what_was_left_alone(
    people: People, run: Run, tmp_path: Path
) -> None:
    source = people.named(tmp_path / "mine", NAMES["bricks"])
    (source / TABLE).write_bytes(people.by("brick", NAMES["bricks"]))
    (source / "1.gif").write_bytes(b"?")
    flags = ("--src", source, "--out", tmp_path / "out", "--size=16", "--workers=1", "--encoding=png", "--id_column=brick")
    done = run(*flags)
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0, f"{tmp_path}/out: complete, votes of tree kaggle (cumulative) by brick",
    )  # fmt: skip
    assert "1 file left alone: 1 .gif\n" in done.stderr
    verified = run("verify", "--tfrecords", tmp_path / "out", "--src", source)
    assert verified.returncode == 0, verified.stdout


def test_a_dataset_from_before_records_held_names_still_agrees_with_its_source(
    people: People, tiny: BuildSettings, tmp_path: Path
) -> None:
    names = NAMES["coordinates"]
    source = people.named(tmp_path / "mine", names)
    (source / TABLE).write_bytes(people.by("iauname", names))
    data = build_and_verify(source, tiny)
    paths = {one.galaxy_id: f"{name}.jpg" for name, one in examples_by_name(data).items()}
    before = with_table_of_names(data, tmp_path / "before", paths)
    assert (before.named, before.names()) == (False, paths)
    assert verify_dataset(before.folder, source).findings == ()
    wrong = with_table_of_names(data, tmp_path / "wrong", {**paths, min(paths): "other.jpg"})
    assert "names.csv" in {finding.where for finding in verify_dataset(wrong.folder, source).findings}
