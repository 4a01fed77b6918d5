"""What the command line prints and its exit status, as users and scripts see them."""

import csv
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from preprocess.cli import main
from preprocess.job import BuildSettings, build_dataset
from tfrecords import __version__
from tfrecords.builtin import builtin_names, builtin_tree
from tfrecords.dataset import Dataset, open_dataset
from tfrecords.schema import Example
from tfrecords.tree import drawing

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Examples = Callable[[Dataset], dict[int, tuple[str, Example]]]
Main = Callable[..., tuple[int, str, str]]
Said = Callable[[str], list[str]]
SMALL = ("--size=32", "--encoding=png", "--workers=1")


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Main:
    """A function that runs main() in this process and returns its exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["preprocess", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, output.out, output.err

    return run


def test_the_next_commands_of_the_demo_work_in_a_shell_whatever_its_folder_is_called(run: Run, tmp_path: Path) -> None:
    """In a folder whose name needs quotes: build what `next:` names, and read `then:` as `trainer` reads it."""
    name = "my demo's $galaxies"
    lines = run("demo", "--out", name, "--galaxies=12").stdout.splitlines()
    [following], [last] = (
        [line.removeprefix(word) for line in lines if line.startswith(word)] for word in ("next: ", "then: ")
    )
    command = f"{shlex.join([sys.executable, '-m', 'preprocess'])} {following.removeprefix('preprocess ')}"
    built = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path, check=True)
    dataset = open_dataset(tmp_path / "data" / name)
    assert dataset.size == 32 and sum(dataset.galaxies(split) for split in ("train", "validation", "test")) == 12
    assert shlex.split(last)[:5] == ["trainer", "--tfrecords", f"data/{name}", "--out", f"runs/{name}"]
    assert shlex.split(built.stdout.splitlines()[-1]) == ["next:", "trainer", "--tfrecords", f"data/{name}"]


def test_the_next_command_of_a_demo_names_a_tree_of_ones_own(run: Run, tmp_path: Path) -> None:
    """Without it, the columns of the table would not be found."""
    (tmp_path / "my rings.toml").write_text('[[question]]\nkey = "ring"\nanswers = { yes = "ring" }\nrest = "no"\n')
    lines = run("demo", "--out=demo", "--galaxies=12", "--tree=my rings.toml").stdout.splitlines()
    [following] = [line.removeprefix("next: preprocess ") for line in lines if line.startswith("next: ")]
    built = run(*shlex.split(following))
    assert built.returncode == 0 and ", votes of tree my rings (fractions)" in built.stdout, built.stderr
    assert "--tree" not in run("demo", "--out=decals", "--galaxies=12", "--tree=decals5").stdout


def test_a_dataset_without_votes_is_for_prediction_and_the_next_command_says_so(
    run_main: Main, survey: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, said, _ = run_main("--src", survey / "images_test_rev1", "--out", out, *SMALL)
    assert code == 0
    assert said.splitlines()[-2:] == [
        "split train is empty, so there is nothing to train on: predict unlabelled, with the folder of a trained run as RUN",
        f"next: trainer predict --run RUN --tfrecords {out} --split unlabelled --out predictions.csv",
    ]


def test_a_job_ends_with_status_0_and_what_it_made(run_main: Main, survey: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, _ = run_main("--src", survey, "--out", out, *SMALL, "--validation_fraction=0", "--examples_per_shard=10")
    dataset = open_dataset(out)
    lines = said.splitlines()
    assert code == 0
    assert lines[0] == f"{out}: complete, votes of tree kaggle (cumulative) by GalaxyID"
    assert lines[-2:] == ["  4 images have no votes", f"next: trainer --tfrecords {out}"]
    table = {words[0]: (int(words[1]), int(words[3])) for words in map(str.split, lines[1:-2])}
    assert table == {split: (dataset.galaxies(split), len(dataset.paths(split))) for split in ("train", "test", "unlabelled")}
    again = run_main("build", "--src", survey, "--out", out, *SMALL, "--validation_fraction=0", "--examples_per_shard=10")
    assert again == (0, said.replace("complete", "already complete, nothing to do"), "")


def test_what_was_left_out_or_kept_is_told(
    run_main: Main, survey: Path, spoil: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    src = Path(shutil.copytree(survey, tmp_path / "kaggle"))
    (src / "images_training_rev1").rename(src / "train_images")
    spoil(src / "images_test_rev1")
    for name in ("100000", "100007"):
        (src / "train_images" / f"{name}.jpg").unlink()
    _, said, _ = run_main("--src", src, "--out", tmp_path / "out", *SMALL, "--max_bad_fraction=0.2")
    assert [line for line in said.splitlines() if line.startswith("  ") and " MB" not in line] == [
        f"  6 images could not be used: see {tmp_path}/out/rejected.csv",
        "  10 images have no votes",
        "  2 rows of the table of votes have no image and were ignored",
        "  22 images keep the split of their folder",
    ]


def test_every_flag_reaches_the_job(run_main: Main, survey: Path, tmp_path: Path) -> None:
    votes = shutil.copy(survey / "training_solutions_rev1.csv", tmp_path / "votes.csv")
    values = {
        "crop_fraction": 0.75, "size": 16, "encoding": "jpeg", "jpeg_quality": 60, "validation_fraction": 0.3,
        "test_fraction": 0.4, "seed": -3, "examples_per_shard": 5, "limit": 20,
    }  # fmt: skip
    out = tmp_path / "out"
    flags = [f"--{name}={value}" for name, value in values.items()]
    flags += ["--tree=kaggle", "--votes=cumulative"]
    assert run_main(f"--src={survey}", f"--out={out}", f"--solutions={votes}", "--workers=2", *flags)[0] == 0
    assert open_dataset(out).settings == {**values, "tree": "kaggle", "votes": "cumulative"}
    code, _, err = run_main(f"--src={survey}", f"--out={out}", *SMALL)
    assert code == 1 and err.startswith(
        f"error: {out}: holds a dataset with other settings or source (crop_fraction was 0.75, now 0.5; "
    )
    assert run_main(f"--src={survey}", f"--out={out}", "--overwrite", *SMALL)[0] == 0
    assert open_dataset(out).size == 32


@pytest.mark.slow
def test_the_defaults_are_the_articles(run: Run, survey: Path, tmp_path: Path) -> None:
    assert run("--src", survey).returncode == 0
    assert open_dataset(tmp_path / "data" / "galaxy_zoo" / "1.0.0").settings == {
        "crop_fraction": 0.5, "size": 212, "encoding": "jpeg", "jpeg_quality": 95, "validation_fraction": 0.1,
        "test_fraction": 0.1, "seed": 0, "examples_per_shard": 2048, "limit": 0, "tree": "kaggle", "votes": "cumulative",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "preprocess: error: the following arguments are required: --src"),
        (["bild"], "preprocess: unknown command 'bild': choose from "),
        (["--src=.", "--size=0"], "preprocess: error: argument --size: 0 is not a whole number from 1 to 10000"),
        (["--src=.", "--crop_fraction=1.5"], "preprocess: error: argument --crop_fraction: 1.5 is not a number from 0 to 1"),
        (["--src=.", "--jpeg_quality=101"], "preprocess: error: argument --jpeg_quality: 101 is not a whole number"),
        (["--src=.", "--encoding=gif"], "preprocess: error: argument --encoding: invalid choice: 'gif'"),
        (["--src=.", "--on_bad_image=ask"], "preprocess: error: argument --on_bad_image: invalid choice: 'ask'"),
        (["--src=.", "--max_bad_fraction=2"], "preprocess: error: argument --max_bad_fraction: 2 is not a number from 0 to 1"),
        (["--src=.", "--verbosity=foo"], "preprocess: error: "),
        (["--sr=."], "preprocess: error: the following arguments are required: --src"),
        (["--src=.", "--over"], "preprocess: error: unrecognized arguments: --over"),
        (["verify"], "preprocess verify: error: the following arguments are required: --tfrecords"),
        (
            ["verify", "--tfrecords=.", "--solutions=votes.csv"],
            "error: --solutions is compared only together with its source: give --src",
        ),
        (["demo"], "preprocess demo: error: the following arguments are required: --out"),
        (
            ["demo", "--out=x", "--galaxies=0"],
            "preprocess demo: error: argument --galaxies: 0 is not a whole number of at least 10",
        ),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_bad_usage_is_status_2_and_a_line_that_names_the_flag(run: Run, arguments: list[str], line: str) -> None:
    ended = run(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].startswith(line)
    assert "Traceback" not in ended.stderr


def _text(path: Path) -> None:
    path.write_text("a zip, in words")


def _cut_off(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images_training_rev1/1.jpg", bytes(5000))
    path.write_bytes(path.read_bytes()[:-50])


def _empty_zip(path: Path) -> None:
    zipfile.ZipFile(path, "w").close()


def _broken_inside(path: Path) -> None:
    path.mkdir()
    _empty_zip(path / "images_test_rev1.zip")
    _cut_off(path / "images_training_rev1.zip")


GIVE = "give --src the folder or zip that holds"
NO_IMAGES = "holds no images (JPEG, PNG, TIFF, WebP, BMP or FITS): give --src the folder or zip with them"


@pytest.mark.parametrize(
    ("name", "make", "line"),
    [
        ("kagle", lambda path: None, f"no such folder or zip: {GIVE} the images and the table of votes"),
        ("kagle.zip", lambda path: None, f"no such folder or zip: {GIVE} the images and the table of votes"),
        ("kaggle.tar", _text, "this archive is not read: unpack it with `tar xf`, and give the folder"),
        ("kaggle.jpg", _text, f"not a folder or zip: {GIVE} the images and the table of votes"),
        ("kaggle.zip", _text, "not a zip, or cut off: copy or download it again"),
        ("kaggle.zip", _cut_off, "not a zip, or cut off: copy or download it again"),
        ("kaggle.zip", _empty_zip, NO_IMAGES),
        ("kaggle", Path.mkdir, NO_IMAGES),
        ("kaggle", _broken_inside, "not a zip, or cut off: copy or download it again"),
    ],
)
def test_a_source_that_cannot_be_used_is_status_1_and_exactly_one_line_that_names_it(
    run: Run, tmp_path: Path, name: str, make: Callable[[Path], None], line: str
) -> None:
    make(tmp_path / name)
    ended = run("--src", name)
    assert (ended.returncode, ended.stdout) == (1, "")
    inner = "/images_training_rev1.zip" if make is _broken_inside else ""
    assert ended.stderr == f"error: {name}{inner}: {line}\n"


def test_a_source_that_is_refused_leaves_no_folder(run: Run, tmp_path: Path) -> None:
    assert run("--src", "kagle").returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_the_traceback_comes_only_when_asked_for(run: Run) -> None:
    ended = run("--src", "kagle", "--verbosity=1")
    assert ended.returncode == 1
    assert "Traceback (most recent call last)" in ended.stderr
    assert "SourceError: kagle: no such folder" in ended.stderr


def test_fractions_that_add_up_to_more_than_1_fail_with_one_line(run: Run, survey: Path, tmp_path: Path) -> None:
    ended = run("--src", survey, "--validation_fraction=0.6", "--test_fraction=0.5")
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert last.endswith("--validation_fraction 0.6 and --test_fraction 0.5: together they must be at most 1")
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            ["--max_bad_fraction=0.03"],
            "1 of 28 images could not be used, above --max_bad_fraction 0.03; first images_training_rev1/100007.jpg: "
            "the file is empty: replace these images and run again with --overwrite, or with a higher --max_bad_fraction",
        ),
        (
            ["--on_bad_image=fail"],
            "{galaxy}: the file is empty: replace or remove this image, then run again with --overwrite, "
            "or omit such images with --on_bad_image skip",
        ),
    ],
)
def test_an_unreadable_image_fails_with_one_line_that_names_it_unless_it_may_be_left_out(
    run: Run, said: Said, survey: Path, tmp_path: Path, flags: list[str], line: str
) -> None:
    src = Path(shutil.copytree(survey, tmp_path / "kaggle"))
    galaxy = src / "images_training_rev1" / "100007.jpg"
    galaxy.write_bytes(b"")
    ended = run("--src", src, *SMALL, *flags)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert said(ended.stderr) == [f"error: {line.format(galaxy=galaxy)}"]
    ended = run("--src", src, *SMALL, "--max_bad_fraction=0.04")
    assert ended.returncode == 0
    (warning,) = said(ended.stderr)
    assert warning.startswith("WARNING: 1 of 28 images could not be used and are listed in ")


@pytest.fixture
def made(survey: Path, build_settings: Callable[..., BuildSettings], tmp_path: Path) -> Path:
    """A dataset of four shards."""
    return build_dataset(survey, tmp_path / "out", build_settings(examples_per_shard=28)).dataset.folder


@pytest.mark.slow
def test_a_dataset_is_verified_with_status_0_and_a_line(run_main: Main, made: Path, survey: Path) -> None:
    assert run_main("verify", "--tfrecords", made)[:2] == (0, f"{made}: intact: 28 galaxies in 4 shards\n")
    line = f"{made}: intact: 28 galaxies in 4 shards, and agrees with {survey}\n"
    assert run_main("verify", "--tfrecords", made, "--src", survey, "--workers=2")[:2] == (0, line)
    votes = survey / "training_solutions_rev1.csv"
    assert run_main("verify", "--tfrecords", made, "--src", survey, "--solutions", votes)[:2] == (0, line)
    (made / "notes.txt").write_text("the good one")
    code, table, _ = run_main("verify", "--tfrecords", made)
    assert code == 0
    assert table.splitlines() == [
        "level    where     what",
        "warning  notes.txt does not belong to the dataset",
        f"{made}: intact: 28 galaxies in 4 shards",
    ]


def test_a_damaged_dataset_is_verified_with_status_1_a_table_and_a_line(run_main: Main, said: Said, made: Path) -> None:
    shard = made / "galaxy_zoo-unlabelled.tfrecord-00000-of-00001"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    (made / "rejected.csv").unlink()
    code, table, err = run_main("verify", "--tfrecords", made)
    assert code == 1
    assert table.splitlines() == [
        "level    where                                         what",
        f"error    {shard.name} has {len(whole) - 1:,} bytes instead of {len(whole):,}",
        f"error    {shard.name} its SHA-256 differs from that in the manifest",
        f"error    {shard.name} record 3 is cut off",
        "error    rejected.csv                                  is missing",
    ]
    assert said(err) == [f"error: {made}: 4 errors found, listed above: build the dataset again with --overwrite"]


@pytest.mark.parametrize("name", ["nowhere", "kaggle"])
def test_what_is_no_dataset_is_not_verified(run_main: Main, survey: Path, tmp_path: Path, name: str) -> None:
    folder = survey if name == "kaggle" else tmp_path / name
    what = "not a finished dataset (manifest.json is missing)" if name == "kaggle" else "no such folder"
    line = f"error: {folder}: {what}: make one with `preprocess --src IMAGES --out FOLDER`\n"
    assert run_main("verify", "--tfrecords", folder) == (1, "", line)


# The flags that accept a folder in an object store, and those that accept none.
STORED = (["--src", "{survey}", "--out", "{address}"], ["verify", "--tfrecords", "{address}"])
LOCAL = (
    ["--src", "{address}", "--out", "out"],
    ["--src", "{survey}", "--out", "out", "--solutions", "{address}"],
    ["verify", "--tfrecords", "out", "--src", "{address}"],
    ["demo", "--out", "{address}"],
)


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        *((arguments, address) for arguments in LOCAL for address in ("gs://bucket/ds", "s3://bucket/ds")),
        *(
            (arguments, address)
            for arguments in (*LOCAL, *STORED)
            for address in ("https://zenodo.org/ds.zip", "hdfs://host/ds")
        ),
    ],
)
def test_an_address_in_place_of_a_path_is_refused_with_what_to_do(
    run_main: Main, survey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run_main(*(argument.format(survey=survey, address=address) for argument in arguments))
    assert (code, out) == (1, "")
    assert err == (
        f"error: {address}: is an address, but this program reads and writes only local files: "
        "copy or mount it (gcsfuse, s3fs, rclone) and give the local path\n"
    )
    assert not [*tmp_path.iterdir()]


HOSTILE = {
    "a\rb.jpg": "a\\rb.jpg",
    "c\nd.jpg": "c\\nd.jpg",
    "=HYPERLINK(1).jpg": "'=HYPERLINK(1).jpg",
    "+1.jpg": "'+1.jpg",
    "-1.jpg": "'-1.jpg",
    "@sum.jpg": "'@sum.jpg",
    "\x1b[31mred.jpg": "\\x1b[31mred.jpg",
    "\x9b2J.jpg": "\\x9b2J.jpg",
    "<script>.jpg": "<script>.jpg",
    'comma, "quote".jpg': 'comma, "quote".jpg',
    "Möwe.jpg": "Möwe.jpg",
}


def test_file_names_break_no_table_no_terminal_and_no_spreadsheet(
    run_main: Main, said: Said, survey: Path, examples: Examples, tmp_path: Path
) -> None:
    source, out = tmp_path / "galaxies", tmp_path / "out"
    source.mkdir()
    picture = (survey / "images_test_rev1" / "900000.jpg").read_bytes()
    for name in HOSTILE:
        (source / name).write_bytes(picture)
    bad = source / "\x1b[2Jbad\r.jpg"
    bad.write_bytes(b"")
    arguments = ("--src", source, "--out", out, "--size=32", "--max_bad_fraction=0.5", "--workers=1")
    code, _, err = run_main(*arguments)
    assert code == 0
    assert not any(character in line for line in said(err) for character in "\x1b\x9b\a")
    header, row = (out / "rejected.csv").read_bytes().decode().splitlines()
    assert (header, next(csv.reader([row]))[1]) == ("galaxy_id,source path,reason", "\\x1b[2Jbad\\r.jpg")
    assert len(pd.read_csv(out / "rejected.csv")) == 1
    assert {example.name for _, example in examples(open_dataset(out)).values()} == {Path(name).stem for name in HOSTILE}
    code, table, _ = run_main("verify", "--tfrecords", out, "--src", source)
    assert (code, table) == (0, f"{out}: intact: {len(HOSTILE)} galaxies in 1 shards, and agrees with {source}\n")
    (out / "\x1b[2Jnotes").touch()
    code, table, _ = run_main("verify", "--tfrecords", out)
    assert code == 0 and "\\x1b[2Jnotes" in table and "\x1b" not in table


def test_trees_lists_our_trees_or_draws_one(run_main: Main, tmp_path: Path) -> None:
    code, out, _ = run_main("trees")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [*builtin_names()]
    assert "decals5    10 questions  34 answers  " in out and "id iauname" in out
    code, out, _ = run_main("trees", "decals5")
    assert (code, out) == (0, f"{drawing(builtin_tree('decals5'))}\n")
    assert all(column in out for column in builtin_tree("decals5").columns)
    own = tmp_path / "rings.toml"
    own.write_text('[[question]]\nkey = "ring"\nanswers = { yes = "ring" }\nrest = "no"\n')
    code, out, _ = run_main("trees", own)
    assert code == 0 and out.startswith("rings\n") and "no   ring_no (the rest)" in out
    code, out, err = run_main("trees", "decal5")
    assert (code, out, err) == (1, "", "error: --tree decal5: no such tree: did you mean decals5?\n")


@pytest.mark.parametrize("arguments", [["--version"], ["demo", "--version"], ["build", "--version"]])
def test_every_command_tells_the_version(run_main: Main, arguments: list[str]) -> None:
    assert run_main(*arguments) == (0, f"galaxy-zoo-vgg16 {__version__}\n", "")


def test_python_m_preprocess_is_the_same_program(run_main: Main, capfd: pytest.CaptureFixture[str]) -> None:
    expected = run_main("--help")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("preprocess", run_name="__main__")
    assert (ended.value.code, *capfd.readouterr()) == expected


@pytest.mark.parametrize(
    ("command", "defaults"),
    [
        (
            [],
            {
                "--src": None, "--out": "data/galaxy_zoo/1.0.0", "--solutions": None, "--crop_fraction": "0.5", "--size": "212",
                "--encoding": "jpeg", "--jpeg_quality": "95", "--validation_fraction": "0.1", "--test_fraction": "0.1",
                "--seed": "0", "--examples_per_shard": "2048", "--workers": None, "--limit": "all", "--on_bad_image": "skip",
                "--max_bad_fraction": "0.01", "--overwrite": None, "--dask": None,
                "--part": "write all",
                "--id_column": "that of the tree, else GalaxyID, id_str, iauname or another usual one",
                "--path_column": "in a catalogue filename, file or another usual one, else none",
                "--tree": "found by the table's columns", "--votes": "the first of the tree that the table has",
                "--bands": "as the headers name them", "--fits_q": "10",
                "--fits_stretch": "auto, one for all files, with which they are as bright as those of SDSS",
            },
        ),
        (
            ["verify"],
            {
                "--tfrecords": None, "--src": None, "--solutions": "the one in --src", "--workers": None,
                "--cache_dir": "~/.cache/galaxy-zoo-vgg16/datasets",
            },
        ),
        (["demo"], {"--out": None, "--galaxies": "600", "--seed": "0", "--workers": None, "--tree": "kaggle"}),
        (["trees"], {}),
    ],
    ids=["build", "verify", "demo", "trees"],
)  # fmt: skip
def test_help_lists_every_flag_with_its_default(run_main: Main, command: list[str], defaults: dict[str, str | None]) -> None:
    code, out, _ = run_main(*command, "--help")
    assert code == 0
    # Each flag begins a line, two characters in, and its text may be broken anywhere.
    parts = re.split(r"^  (--\w+)", out, flags=re.MULTILINE)
    told = {flag: " ".join(text.split()) for flag, text in zip(parts[1::2], parts[2::2], strict=True)}
    assert told.keys() - {"--version", "--helpfull"} == defaults.keys()
    for flag, default in defaults.items():
        assert default is None or f"(default: {default})" in told[flag].replace("- ", "-")  # broken at hyphens too
    assert command or all(f"  preprocess {other} " in out for other in ("verify", "demo", "trees"))
