"""The commands and Python blocks of README and docs/ run, on demo galaxies and small: what they print is what the pages show.

They run in this process, page after page in one folder. The blocks that take long are shortened by flags that are appended.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from PIL import Image

from preprocess.demo import IDS
from preprocess.plan import PlanSettings, splits_of
from tests.test_documents import COMMAND, PAGES, blocks, parse
from tests.trainer import small
from tfrecords.dataset import SPLITS

pytestmark = pytest.mark.slow
# Commands that are only parsed: what they need is not here.
_NEEDS = {
    "--dask": "a cluster",
    "--hosts": "several machines",
    "--require_gpu": "a GPU",
    " DIR": "a folder of the reader's",
    "s3://": "an object store",
    "docker ": "Docker",
}
# Appended to what a page shows, so that it ends soon; the last of two flags counts.
_SHORTER = {
    "preprocess demo": ("--galaxies=60",),
    "trainer benchmark": (f"--backbone={small.SMALL}", "--batch_size=8", "--steps=1", "--rounds=1"),
    "trainer similar": ("--to=112026",),  # a galaxy of the demo; the pages have one of Kaggle's
    "trainer train": (f"--backbone={small.SMALL}", "--weights=none", "--freeze=0", "--epochs=1"),
}


@pytest.fixture(scope="module", autouse=True)
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A current folder as a reader has it: 60 demo galaxies in kaggle/, the dataset of README, its run, and another run."""
    from preprocess import build_dataset, make_demo
    from trainer import TrainConfig, train_model

    small.register()
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_demo("kaggle", galaxies=60)
        votes = pd.read_csv("kaggle/training_solutions_rev1.csv")  # as the block of docs/images.md does
        votes.assign(file=[f"images_training_rev1/{galaxy}.jpg" for galaxy in votes.GalaxyID]).to_parquet(
            "kaggle/catalogue.parquet"
        )
        _cutouts(Path("kaggle/images_test_rev1"), Path("cutouts"))
        dataset = build_dataset("kaggle", "data/galaxy_zoo/1.0.0").dataset
        for run in ("vgg16", "second"):
            train_model(TrainConfig(dataset.folder, Path("runs") / run, weights="none", epochs=1, backbone=small.SMALL))
        yield folder


def _cutouts(pictures: Path, folder: Path) -> None:
    """FITS cutouts of bands g, r and z, with the light of these pictures."""
    folder.mkdir()
    for path in pictures.glob("*.jpg"):
        light = (np.asarray(Image.open(path), np.float32)[::-1] / 255) ** 2 * 2
        planes = np.ascontiguousarray(light.transpose(2, 0, 1)[::-1])
        fits.PrimaryHDU(planes, fits.Header({"BANDS": "grz"})).writeto(folder / f"{path.stem}.fits")


def _run(line: str, environment: str) -> None:
    words = shlex.split(line, comments=True)
    command, name, _ = parse(words)
    _, _, args = parse([*words, *_SHORTER.get(f"{words[0]} {name}", ())])
    assert not environment, f"{line}: a test in this process cannot set {environment}"
    command.run(args)


def _masked(text: str) -> list[str]:
    """Lines without what differs from run to run: numbers, and which epoch is the best."""
    text = re.sub(r"\(best[^)]*\)", "(best)", text)
    return [" ".join(re.sub(r"[\d.,]*\d", "#", line).split()) for line in text.strip().splitlines()]


def _shows(shown: list[str], printed: list[str]) -> bool:
    """Whether the printed lines are those shown, where `...` stands for any number of lines."""
    if not shown:
        return True
    if shown[0] == "...":
        return any(_shows(shown[1:], printed[start:]) for start in range(len(printed) + 1))
    return bool(printed) and shown[0] == printed[0] and _shows(shown[1:], printed[1:])


def test_an_output_that_differs_would_be_noticed() -> None:
    assert _shows(["a", "...", "c"], ["a", "b", "b", "c", "d"]) and not _shows(["a", "c"], ["a", "b", "c"])
    assert _masked("epoch 3/9: MSE 0.1 (best so far), 2 s") == _masked("epoch 16/16: MSE 0.03 (best is epoch 15), 15 s")
    assert _masked("  train   477 galaxies") != _masked("  train   477 stars")


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed = ""
    for block in blocks([page], "sh"):
        for name, text in block.files.items():
            Path(name).write_text(text)
        for line in block.lines:
            match = COMMAND.fullmatch(line)
            if line.startswith("cut "):
                subprocess.run(line, shell=True, check=True)
            if match and not any(need in line for need in _NEEDS):
                _run(match["words"], match["environment"])
        printed += capsys.readouterr().out
    for block in blocks([page], "text"):
        lines = _masked(printed)
        assert any(_shows(_masked(block.text), lines[start:]) for start in range(len(lines))), printed


def _script(text: str, name: str) -> Path:
    path = Path(name).absolute()
    path.write_text(text)
    return path


@pytest.mark.parametrize("page", [page for page in PAGES if blocks([page], "python")])
def test_the_python_blocks_of_a_page_run(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of README as a script of their own, because worker processes import it."""
    for number, block in enumerate(blocks([page], "python")):
        if "__main__" in block.text:
            path = _script(block.text, f"{Path(page).stem}_{number}.py")
            assert len([line for line in block.text.splitlines() if line.strip()]) <= 10, "ten lines"
            done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert Path("sky.csv").read_text().count("\n") == 11
        else:
            names: dict[str, Any] = {"__name__": "block"}
            exec(compile(block.text, f"{page}, block {number}", "exec"), names)
    if page == "docs/formats.md":
        assert "(212, 212, 3) (37,)\n" in (out := capsys.readouterr().out) and out.endswith("(1, 37)\n")


def test_the_counts_in_readme_are_those_of_the_demo() -> None:
    [block] = blocks(["README.md"], "text")
    shown = dict(re.findall(r"^  (\w+) +(\d+) galaxies", block.text, re.MULTILINE))
    ids = np.random.default_rng([0]).permutation(IDS) + 100_000
    counts = np.bincount(splits_of(ids[:600], PlanSettings()), minlength=len(SPLITS))
    expected = {split: str(count) for split, count in zip(SPLITS, counts.tolist(), strict=False) if count}
    assert shown == {**expected, "unlabelled": "60"}


def test_the_quick_start_is_what_the_demo_and_run_all_do() -> None:
    """The command that `preprocess demo` prints is that of README, and ./run_all.sh has the same settings."""
    from preprocess.cli import _DEMO_SIZE, _DEMO_TRAINING

    [lines] = [block.lines for block in blocks(["README.md"], "sh") if block.lines[0].startswith("preprocess demo")]
    assert lines[1:] == [
        f"preprocess --src demo --out data/demo --size {_DEMO_SIZE}",
        f"trainer --tfrecords data/demo --out runs/demo {_DEMO_TRAINING}",
    ]
    script = (Path(__file__).parents[1] / "run_all.sh").read_text("utf-8")
    values = dict(zip(_DEMO_TRAINING.split()[::2], _DEMO_TRAINING.split()[1::2], strict=True))
    assert f'size="${{size:-{_DEMO_SIZE}}}" epochs="${{epochs:-{values["--epochs"]}}}"' in script
    assert f"--learning_rate {values['--learning_rate']} --warmup_steps {values['--warmup_steps']}" in script
