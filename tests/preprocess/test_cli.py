"""What the command line says and the status it ends with, as a user and a script see them."""

import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from preprocess.cli import main
from tfrecords import __version__
from tfrecords.dataset import open_dataset

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Main = Callable[..., tuple[int, str, str]]
SMALL = ("--size=32", "--encoding=png", "--workers=1")
HEAVY = ("tensorflow", "tensorflow_datasets", "pandas", "matplotlib", "keras")


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Main:
    """A function that runs main() in this process and gives its exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["preprocess", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, output.out, output.err

    return run


def test_a_job_ends_with_status_0_and_what_it_made(run_main: Main, survey: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, _ = run_main("--src", survey, "--out", out, *SMALL, "--validation_fraction=0", "--examples_per_shard=10")
    dataset = open_dataset(out)
    lines = said.splitlines()
    assert code == 0
    assert lines[0] == f"{out}: complete" and lines[-1] == f"next: trainer --tfrecords {out}"
    table = {words[0]: (int(words[1]), int(words[3])) for words in map(str.split, lines[1:-1])}
    assert table == {split: (dataset.galaxies(split), len(dataset.paths(split))) for split in ("train", "test", "unlabelled")}
    again = run_main("build", "--src", survey, "--out", out, *SMALL, "--validation_fraction=0", "--examples_per_shard=10")
    assert again == (0, said.replace("complete", "already complete, nothing to do"), "")


def test_votes_without_image_are_told(run_main: Main, survey: Path, tmp_path: Path) -> None:
    src = Path(shutil.copytree(survey, tmp_path / "kaggle"))
    for name in ("100000", "100007"):
        (src / "images_training_rev1" / f"{name}.jpg").unlink()
    _, out, _ = run_main("--src", src, "--out", tmp_path / "out", *SMALL)
    assert "  2 rows of votes have no image and were left out" in out.splitlines()


def test_every_flag_reaches_the_job(run_main: Main, survey: Path, tmp_path: Path) -> None:
    votes = shutil.copy(survey / "training_solutions_rev1.csv", tmp_path / "votes.csv")
    values = {
        "crop_fraction": 0.75, "size": 16, "encoding": "jpeg", "jpeg_quality": 60, "validation_fraction": 0.3,
        "test_fraction": 0.4, "seed": -3, "examples_per_shard": 5, "limit": 20,
    }  # fmt: skip
    out = tmp_path / "out"
    flags = [f"--{name}={value}" for name, value in values.items()]
    assert run_main(f"--src={survey}", f"--out={out}", f"--solutions={votes}", "--workers=2", *flags)[0] == 0
    assert open_dataset(out).settings == values
    code, _, err = run_main(f"--src={survey}", f"--out={out}", *SMALL)
    assert code == 1 and err.startswith(f"error: {out}: holds a dataset made differently (crop_fraction was 0.75, now 0.5; ")
    assert run_main(f"--src={survey}", f"--out={out}", "--overwrite", *SMALL)[0] == 0
    assert open_dataset(out).size == 32


def test_the_defaults_are_the_articles(run: Run, survey: Path, tmp_path: Path) -> None:
    assert run("--src", survey).returncode == 0
    assert open_dataset(tmp_path / "data" / "galaxy_zoo" / "1.0.0").settings == {
        "crop_fraction": 0.5, "size": 212, "encoding": "jpeg", "jpeg_quality": 95, "validation_fraction": 0.1,
        "test_fraction": 0.1, "seed": 0, "examples_per_shard": 2048, "limit": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "preprocess: error: the following arguments are required: --src"),
        (["bild"], "preprocess: no command 'bild': choose from "),
        (["--src=.", "--size=0"], "preprocess: error: argument --size: 0 is not a whole number from 1 up"),
        (["--src=.", "--crop_fraction=1.5"], "preprocess: error: argument --crop_fraction: 1.5 is not a number from 0 to 1"),
        (["--src=.", "--jpeg_quality=101"], "preprocess: error: argument --jpeg_quality: invalid choice: 101"),
        (["--src=.", "--encoding=gif"], "preprocess: error: argument --encoding: invalid choice: 'gif'"),
        (["--src=.", "--verbosity=foo"], "preprocess: error: "),
        (["--sr=."], "preprocess: error: the following arguments are required: --src"),
        (["--src=.", "--over"], "preprocess: error: unrecognized arguments: --over"),
        (["demo"], "preprocess demo: error: the following arguments are required: --out"),
        (
            ["demo", "--out=x", "--galaxies=0"],
            "preprocess demo: error: argument --galaxies: 0 is not a whole number from 10 up",
        ),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_bad_usage_is_status_2_and_a_line_that_names_the_flag(run: Run, arguments: list[str], line: str) -> None:
    ended = run(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].startswith(line)
    assert "Traceback" not in ended.stderr


def test_a_failure_is_status_1_and_exactly_one_line(run: Run, tmp_path: Path) -> None:
    ended = run("--src", "kagle")
    assert (ended.returncode, ended.stdout) == (1, "")
    advice = "give --src the folder that holds the images and the table of votes"
    assert ended.stderr == f"error: kagle: no such folder: {advice}\n"
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


def test_an_unreadable_image_fails_with_one_line_that_names_it(run: Run, survey: Path, tmp_path: Path) -> None:
    src = Path(shutil.copytree(survey, tmp_path / "kaggle"))
    galaxy = src / "images_training_rev1" / "100007.jpg"
    galaxy.write_bytes(b"")
    ended = run("--src", src, *SMALL)
    errors = [line for line in ended.stderr.replace("\r", "\n").splitlines() if line and not line.startswith("writing shards")]
    assert (ended.returncode, ended.stdout) == (1, "")
    assert errors == [f"error: {galaxy}: the file is empty: replace or remove this image, then run again with --overwrite"]


def test_a_full_disk_fails_with_one_line_that_names_the_file_and_leaves_no_partial_one(
    run: Run, survey: Path, tmp_path: Path
) -> None:
    # A file system of 400 kB for this process alone, in a user namespace where those are allowed.
    disk = tmp_path / "disk"
    disk.mkdir()
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here to mount a small disk in")
    script = 'mount -t tmpfs -o size=400k none "$0" || exit 99; "$@"; status=$?; find "$0" -name "*.partial"; exit $status'
    before = (*namespace, "sh", "-c", script, str(disk))
    ended = run("--src", survey, "--out", disk / "out", "--size=212", "--encoding=raw", "--workers=2", before=before)
    if ended.returncode == 99:
        pytest.skip("no small disk can be mounted here")
    errors = [line for line in ended.stderr.replace("\r", "\n").splitlines() if line and not line.startswith("writing shards")]
    assert (ended.returncode, ended.stdout) == (1, "")
    (error,) = errors
    assert error.startswith(f"error: the disk is full while writing {disk}/out/galaxy_zoo-")
    assert error.endswith(": free some space, or choose another --out, and run the same command again")


@pytest.mark.parametrize("arguments", [["--version"], ["demo", "--version"], ["build", "--version"]])
def test_every_command_tells_the_version(run_main: Main, arguments: list[str]) -> None:
    assert run_main(*arguments) == (0, f"galaxy-zoo-vgg16 {__version__}\n", "")


def test_python_m_preprocess_is_the_same_program(run_main: Main, capfd: pytest.CaptureFixture[str]) -> None:
    expected = run_main("--help")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("preprocess", run_name="__main__")
    assert (ended.value.code, *capfd.readouterr()) == expected


@pytest.mark.parametrize("code", ["import preprocess, preprocess.cli, preprocess.job, preprocess.engines", "HELP"])
def test_neither_import_nor_help_loads_a_heavy_library(code: str) -> None:
    if code == "HELP":
        code = "import sys; sys.argv = ['preprocess', '--help']\ntry: import runpy; runpy.run_module('preprocess')\n"
        code = code.replace("runpy.run_module('preprocess')", "runpy.run_module('preprocess', run_name='__main__')")
        code += "except SystemExit: pass"
    code += f"\nimport sys\nprint('LOADED', [name for name in {HEAVY} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.splitlines()[-1] == "LOADED []"


def test_a_job_and_its_workers_load_no_tensorflow(run: Run, survey: Path, tmp_path: Path) -> None:
    # A tensorflow that cannot be imported, before the real one: a worker that tried would fail the job.
    for name in ("tensorflow", "tensorflow_datasets", "keras", "matplotlib"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    ended = run("--src", survey, "--size=32", "--workers=2", "--examples_per_shard=4")
    assert (ended.returncode, "imported" in ended.stderr) == (0, False)


def test_help_lists_every_flag_with_its_default(run_main: Main) -> None:
    code, out, _ = run_main("--help")
    text = " ".join(out.split())
    assert code == 0
    for flag, default in (("--size", "212"), ("--encoding", "jpeg"), ("--examples_per_shard", "2048"), ("--seed", "0")):
        assert flag in text and f"(default: {default})" in text
    assert "preprocess demo" in text
