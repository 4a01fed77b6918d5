"""Output and exit status of the command line, as users and scripts see them."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tfrecords import __version__
from tfrecords.dataset import Dataset
from trainer.backends.choose import choose
from trainer.config import RECIPES, TrainConfig
from trainer.run import Run

Main = Callable[..., tuple[int, str, str]]
HEAVY = ("tensorflow", "keras", "matplotlib", "pandas", "tensorflow_datasets")


def test_help_is_quick_and_needs_nothing_heavy() -> None:
    script = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('loaded:', [name for name in {HEAVY} if name in sys.modules]))\n"
        "sys.argv = ['trainer', '--help']\n"
        "from trainer.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.endswith("loaded: []\n")


def test_help_names_every_flag_with_its_default_and_the_other_commands(run_main: Main) -> None:
    code, out, _ = run_main("--help")
    assert code == 0
    defaults = TrainConfig(Path(), Path("runs/vgg16"))
    words = " ".join(out.split())
    for name, value in {**defaults.settings(), "out": defaults.out}.items():
        assert f"--{name} " in words
        assert name == "limit" or f"(default: {value})" in words or f"(default: {value}; article: " in words
    for command in ("evaluate", "predict"):
        assert f"trainer {command}" in out
        code, help_text, _ = run_main(command, "--help")
        assert code == 0 and "--run" in help_text and "--split" in help_text


def test_the_version_is_that_of_the_package(run_main: Main) -> None:
    assert run_main("--version")[:2] == (0, f"galaxy-zoo-vgg16 {__version__}\n")


def test_python_dash_m_is_the_same_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["trainer", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("trainer", run_name="__main__")
    assert ended.value.code == 0 and capsys.readouterr().out == f"galaxy-zoo-vgg16 {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--tfrecords"],
        ["--tfrecords=data", "--epochs=0"],
        ["--tfrecords=data", "--epochs=many"],
        ["--tfrecords=data", "--batch_size=0"],
        ["--tfrecords=data", "--limit=0"],
        ["--tfrecords=data", "--seed=-1"],
        ["--tfrecords=data", "--learning_rate=fast"],
        ["--tfrecords=data", "--learning_rate=0"],
        ["--tfrecords=data", "--precision=float64"],
        ["--tfrecords=data", "--epoch=3"],
        ["--tfrecords=data", "--verbosity=loud"],
        ["evaluate", "--tfrecords=data"],
        ["evaluate", "--tfrecords=data", "--run=run", "--split=unlabelled"],
        ["predict", "--tfrecords=data", "--run=run"],
        ["sing"],
    ],
    ids=" ".join,
)
def test_bad_usage_ends_with_status_2_and_no_traceback(
    arguments: list[str], run_main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run_main(*arguments)
    assert (code, out) == (2, "")
    assert err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def _assert_one_line(answer: tuple[int, str, str], *parts: str | Path) -> None:
    code, out, err = answer
    assert code == 1
    assert err.count("\n") == 1 and err.startswith("error: ")
    assert [part for part in map(str, parts) if part not in err] == []
    assert out == "" or "CPU" in out


def test_a_folder_that_is_no_dataset_is_one_line(run_main: Main, tmp_path: Path, tiny_run: Run) -> None:
    advice = "`preprocess --src IMAGES --out FOLDER`"
    out = f"--out={tmp_path / 'run'}"
    _assert_one_line(run_main("--tfrecords", tmp_path / "gone", out), tmp_path / "gone", "no such folder", advice)
    (tmp_path / "other").mkdir()
    _assert_one_line(run_main("--tfrecords", tmp_path / "other", out), tmp_path / "other", "not a finished dataset", advice)
    answer = run_main("evaluate", "--tfrecords", tmp_path / "other", "--run", tiny_run.folder)
    _assert_one_line(answer, tmp_path / "other", "not a finished dataset", advice)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_the_parent_of_a_dataset_is_one_line_that_names_the_dataset(
    run_main: Main, small_dataset: Dataset, tmp_path: Path
) -> None:
    folder = small_dataset.folder
    for above in (folder.parent, folder.parent.parent):
        _assert_one_line(run_main("--tfrecords", above, f"--out={tmp_path / 'run'}"), above, f"did you mean {folder}?")


@pytest.mark.parametrize("command", [["evaluate"], ["predict", "--out=table.csv"]], ids=["evaluate", "predict"])
def test_a_folder_that_is_no_run_is_one_line(
    command: list[str], run_main: Main, small_dataset: Dataset, tmp_path: Path
) -> None:
    answer = run_main(*command, "--run", tmp_path, "--tfrecords", small_dataset.folder)
    _assert_one_line(answer, tmp_path, "not a run folder", "set --run to the --out folder of a trainer command")
    assert not list(tmp_path.iterdir())


def test_a_dataset_of_another_size_is_one_line_that_names_both(
    run_main: Main, make_dataset: Callable[..., Dataset], tiny_run: Run
) -> None:
    other = make_dataset(size=45)
    answer = run_main("evaluate", "--run", tiny_run.folder, "--tfrecords", other.folder)
    _assert_one_line(answer, other.folder, "its size is 45", tiny_run.folder, "trained with 32")


def test_a_seed_that_does_not_fit_is_refused_by_its_flag(run_main: Main, plain_dataset: Dataset, tmp_path: Path) -> None:
    for seed in (2**63, 10**30):
        code, _, err = run_main(
            "--tfrecords", plain_dataset.folder, "--out", tmp_path / "run", "--seed", seed, "--weights=none", "--limit=8"
        )
        assert code == 2 and "--seed" in err and "Traceback" not in err


@pytest.mark.slow
def test_another_backend_of_keras_is_one_line_with_the_way_out(plain_dataset: Dataset, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "--tfrecords", plain_dataset.folder, "--out", tmp_path / "run"],
        env={**os.environ, "KERAS_BACKEND": "numpy", "KERAS_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "or unset KERAS_BACKEND" in done.stderr.splitlines()[-1]
    _assert_one_line((done.returncode, done.stdout, done.stderr))


def test_images_below_32_pixels_are_one_line(run_main: Main, make_dataset: Callable[..., Dataset], tmp_path: Path) -> None:
    dataset = make_dataset(size=16)
    answer = run_main("--tfrecords", dataset.folder, "--out", tmp_path / "run", "--weights=none")
    _assert_one_line(answer, "images of 16 x 16 are too small", "--size 32")


def test_a_required_gpu_that_is_missing_is_one_line(run_main: Main, small_dataset: Dataset, tmp_path: Path) -> None:
    if choose("float32", require_gpu=False).gpus:
        pytest.skip("this machine has a GPU")
    answer = run_main("--tfrecords", small_dataset.folder, "--out", tmp_path / "run", "--require_gpu")
    _assert_one_line(answer, "no GPU found", "--require_gpu", "omit the flag")


def test_every_flag_reaches_the_run(
    run_main: Main, small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[TrainConfig] = []
    monkeypatch.setattr("trainer.train.train_model", lambda config, overwrite: taken.append(config))
    values = {
        "epochs": 2, "batch_size": 3, "learning_rate": 0.002, "schedule": "constant", "warmup_steps": 5,
        "loss": "cross_entropy", "weight_decay": 0.125, "ema": 0.5, "augment": "full", "backbone": "resnet50",
        "weights": "base.weights.h5", "freeze": 2, "input_scaling": "unit", "pooling": "average", "head": "tree",
        "initialisation": "keras", "precision": "mixed_bfloat16", "patience": 4, "seed": 2**31, "limit": 6,
    }  # fmt: skip
    elsewhere = {"cache": "none", "hosts": "a:1,b:1", "host_index": 1, "hosts_secret": Path("secret")}
    flags = [f"--{name}={value}" for name, value in {**values, **elsewhere}.items()]
    run_main("--tfrecords", small_dataset.folder, "--out", tmp_path / "run", *flags, "--require_gpu")
    [config] = taken
    assert config.settings() == values
    assert config == TrainConfig(small_dataset.folder, tmp_path / "run", require_gpu=True, **values, **elsewhere)


def test_a_recipe_makes_the_choices_that_no_flag_makes(
    run_main: Main, small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[TrainConfig] = []
    monkeypatch.setattr("trainer.train.train_model", lambda config, overwrite: taken.append(config))
    where = ("--tfrecords", small_dataset.folder, "--out", tmp_path)
    run_main(*where)
    run_main(*where, "--recipe", "article")
    run_main(*where, "--recipe", "article", "--epochs", "7", "--head", "tree")
    run_main(*where, "--head", "sigmoid")
    defaults, of_article, changed, sigmoid = taken
    assert defaults == TrainConfig(small_dataset.folder, tmp_path)
    assert of_article == TrainConfig(small_dataset.folder, tmp_path, **RECIPES["article"]())
    assert changed == replace(of_article, epochs=7, head="tree")
    assert sigmoid == replace(defaults, head="sigmoid", loss="mse")
    assert run_main(*where, "--recipe", "mine")[0] == 2
