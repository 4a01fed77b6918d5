"""`trainer predict --part I/N`: processes that predict shares of a table at the same time, and a last one that joins them."""

import os
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess.job import BuildSettings, build_dataset
from tests.trainer.streamed import batches, ended, start
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError
from tfrecords.shares import JobShare
from trainer import blocks, inference, listings, parts, streaming
from trainer.listings import listed_once
from trainer.parts import SUFFIX, locked_parts
from trainer.run import Run
from trainer.streaming import tabulate_images, tabulate_split

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=["records", "names", "images", "zip"])
def source(
    request: pytest.FixtureRequest,
    plain_survey: Path,
    plain_dataset: Dataset,
    mixed_images: Path,
    build_settings: Callable[..., BuildSettings],
    tmp_path: Path,
) -> list[str]:
    """The flags for a split whose galaxies are numbers or have names, a folder and a zip."""
    if request.param == "records":
        return [f"--tfrecords={plain_dataset.folder}", "--split=train"]
    if request.param == "names":
        return [f"--tfrecords={_named(plain_survey, tmp_path, build_settings(crop_fraction=1.0, examples_per_shard=5))}"]
    return [f"--images={mixed_images if request.param == 'images' else _zipped(mixed_images)}"]


def _named(survey: Path, folder: Path, settings: BuildSettings) -> Path:
    """The survey with names, 10 galaxies with votes and 30 without, as a dataset."""
    (folder / "named").mkdir()
    for number, image in enumerate(sorted(survey.glob("images_*/*.jpg"))[:40]):
        shutil.copy(image, folder / "named" / f"NGC {number * 7919 % 1000}.jpg")
    header, *rows = (survey / "training_solutions_rev1.csv").read_text().splitlines()
    lines = [f"NGC {number * 7919 % 1000},{row.partition(',')[2]}" for number, row in enumerate(rows[:10])]
    (folder / "votes.csv").write_text("\n".join([f"id_str,{header.partition(',')[2]}", *lines, ""]))
    return build_dataset(folder / "named", folder / "data", settings, folder / "votes.csv", workers=1).dataset.folder


def _zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as file:
        for image in sorted(folder.iterdir()):
            file.write(image, image.name)
    return path


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.usefixtures("shrunk")
def test_parts_that_run_at_once_and_are_killed_and_repeated_make_the_table_of_one_command(
    tiny_run: Run, mixed_images: Path, tmp_path: Path, run_main: Main, counted: list[int]
) -> None:
    out, counts = tmp_path / "out", tmp_path / "counts"
    flags = [f"--run={tiny_run.folder}", f"--images={mixed_images}", "--hubble", f"--out={out / 'table.csv'}"]
    assert run_main("predict", *flags)[0] == 0
    expected = _files(out)
    shutil.rmtree(out)
    counted.clear()
    first = start([*flags, "--part=1/2"], tmp_path / "first")
    second = start([*flags, "--part=2/2"], counts, killed_after=3)  # it has two parts of two batches each
    assert ended(second)[0] == -signal.SIGKILL and batches(counts) == 3
    code, said, _ = ended(first)
    assert code == 0 and batches(tmp_path / "first") == 2
    assert said == (
        f"{out}/table.csv: part 1/2 is done: 7 galaxies of {mixed_images} and 1 image that cannot be used\n"
        "when all parts are done, run the same command without --part: it writes the table\n"
    )
    code, said, _ = run_main("predict", *flags, "--part=2/2")
    assert code == 0 and "part 2/2 is done: 11 galaxies" in said and "and 2 images that cannot be used" in said
    assert len(counted) == 2  # the part that the kill left unfinished
    assert [path.name for path in out.iterdir()] == [f"table.csv{SUFFIX}"]
    assert {path.name.split("-")[0] for path in out.glob("*/*")} == {"lock", "job.json", "job.lock", "part", "listing"}
    assert len([*out.glob("*/listing-*.npz")]) == 1
    assert run_main("predict", *flags)[0] == 0
    assert len(counted) == 2 and _files(out) == expected
    assert not [*out.glob(f"*{SUFFIX}*")]


@pytest.mark.slow
def test_a_part_that_runs_refuses_itself_and_the_whole_but_not_the_others(
    tiny_run: Run, mixed_images: Path, tmp_path: Path, run_main: Main, shrunk: None, counted: list[int]
) -> None:
    out, counts = tmp_path / "out" / "table.csv", tmp_path / "counts"
    flags = [f"--run={tiny_run.folder}", f"--images={mixed_images}", f"--out={out}"]
    work = out.with_name(f"table.csv{SUFFIX}")
    running = start([*flags, "--part=2/2"], counts, paused_after=3)
    while not (counts.exists() and len(counts.read_text().split()) == 3):
        assert running.poll() is None
        time.sleep(0.1)
    unfinished = work / "share-2-of-2" / ".part-00002.parquet.0123456789abcdef.partial"
    unfinished.write_text("half")
    code, said, err = run_main("predict", *flags, "--part=2/2")
    assert (code, said) == (1, "") and err.splitlines()[-1] == (
        f"error: {work}: another command predicts part 2/2: wait until it ends, or run another part"
    )
    code, said, err = run_main("predict", *flags)
    assert (code, said) == (1, "") and err.splitlines()[-1] == (
        f"error: {out.parent}: another command writes table.csv: wait until it ends, or choose another --out"
    )
    code, said, err = run_main("predict", *flags, "--part=1/2", "--tta=2")
    assert (code, said) == (1, "") and err.splitlines()[-1] == (
        f"error: {work}: holds unfinished predictions of another command (other tta): repeat the command that began it, or "
        "remove this folder, or choose another --out"
    )
    assert not counted
    assert run_main("predict", *flags, "--part=1/2")[0] == 0
    assert len(counted) == 2 and unfinished.exists()
    assert not (work / "share-1-of-2").exists()
    running.send_signal(signal.SIGKILL)
    ended(running)
    assert unfinished.exists()
    assert run_main("predict", *flags, "--part=2/2")[0] == 0
    assert not unfinished.parent.exists() and len(counted) == 6
    assert run_main("predict", *flags)[0] == 0
    assert len(counted) == 6 and {path.name for path in out.parent.iterdir()} == {"table.csv", "table-rejected.csv"}


@pytest.mark.slow
@pytest.mark.usefixtures("shrunk")
@pytest.mark.parametrize("total", [3, 12])
def test_any_number_of_parts_makes_the_table_even_more_than_there_is_work(
    total: int, source: list[str], tiny_run: Run, tmp_path: Path, run_main: Main, counted: list[int]
) -> None:
    flags = ["predict", "--run", tiny_run.folder, *source, "--conditional"]
    assert run_main(*flags, "--out", tmp_path / "expected.csv")[0] == 0
    every = len(counted)
    out = tmp_path / "out" / "expected.csv"
    code, last = 0, ""
    for number in range(total, 0, -1):
        more, last, _ = run_main(*flags, "--out", out, f"--part={number}/{total}")
        code |= more
    assert code == 0 and last.startswith(f"{out}: part 1/{total} is done: {0 if total == 12 else ''}")
    assert len(counted) == 2 * every
    assert run_main(*flags, "--out", out)[0] == 0
    assert len(counted) == 2 * every
    assert out.read_bytes() == (tmp_path / "expected.csv").read_bytes()
    for rejected in tmp_path.glob("*-rejected.csv"):
        assert (out.parent / rejected.name).read_bytes() == rejected.read_bytes()
    assert not [*out.parent.glob(f"*{SUFFIX}*")]


@pytest.mark.slow
@pytest.mark.usefixtures("shrunk")
def test_what_the_parts_lack_is_predicted_when_they_are_joined(
    tiny_run: Run, plain_dataset: Dataset, tmp_path: Path, counted: list[int]
) -> None:
    several, out = [tiny_run, tiny_run], tmp_path / "table.csv"
    tabulate_split(several, plain_dataset, "train", tmp_path / "expected.csv", tta=2)
    every = len(counted)
    share = tabulate_split(several, plain_dataset, "train", out, tta=2, share=JobShare(2, 3))
    alone = len(counted) - every
    assert 0 < alone < every and 0 < share.galaxies < plain_dataset.galaxies("train")
    tabulate_split(several, plain_dataset, "train", out, tta=2)
    assert len(counted) == 2 * every
    assert out.read_bytes() == (tmp_path / "expected.csv").read_bytes()


@pytest.mark.usefixtures("shrunk")
def test_only_the_shards_of_a_part_are_hashed(
    tiny_run: Run, plain_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    check = blocks.check_shards

    def checking(dataset: Dataset, shards: list[Any], checked: Any) -> Any:
        hashed.extend(shard.name for shard in shards)
        return check(dataset, shards, checked)

    monkeypatch.setattr(blocks, "check_shards", checking)
    shards = [shard.name for shard in plain_dataset.shards if shard.split == "train"]
    starts = {0}
    for number in (1, 2, 3):
        hashed.clear()
        tabulate_split(tiny_run, plain_dataset, "train", tmp_path / "table.csv", share=JobShare(number, 3))
        assert 0 < len(hashed) < len(shards)
        starts |= {shards.index(name) for name in hashed}
    assert starts == {*range(len(shards))}
    hashed.clear()
    tabulate_split(tiny_run, plain_dataset, "train", tmp_path / "table.csv")
    assert not hashed


@pytest.mark.usefixtures("shrunk")
def test_images_are_listed_once_for_all_parts_and_once_more_to_see_that_they_are_the_same(
    tiny_run: Run, mixed_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists: list[Path] = []
    for module in (listings, inference):
        listed = module.listed
        monkeypatch.setattr(module, "listed", lambda path, listed=listed: lists.append(path) or listed(path))
    out = tmp_path / "table.csv"
    for number in (1, 2):
        tabulate_images(tiny_run, mixed_images, out, share=JobShare(number, 2))
    assert lists == [mixed_images]
    other = shutil.copytree(mixed_images, tmp_path / "other")
    os.utime(other / "7.jpg")
    with pytest.raises(ConfigError, match=r"of another command \(other images\)"):
        tabulate_images(tiny_run, other, out, share=JobShare(2, 2))
    (mixed_images / "broken.jpg").unlink()
    with pytest.raises(ConfigError, match=r"of another command \(other images\)"):
        tabulate_images(tiny_run, mixed_images, out)
    assert lists == [mixed_images, other, mixed_images]


def test_zips_that_are_compressed_in_a_zip_are_listed_by_each_part(mixed_images: Path, tmp_path: Path) -> None:
    inner = _zipped(mixed_images)
    outer = tmp_path / "outer.zip"
    for method, shared in ((zipfile.ZIP_DEFLATED, 0), (zipfile.ZIP_STORED, 1)):
        with zipfile.ZipFile(outer, "w", method) as file:
            file.write(inner, inner.name)
        folder = tmp_path / f"work-{method}"
        folder.mkdir()
        for _ in range(2):
            with listed_once(outer, folder) as images:
                assert len(images) == 21
        assert len([*folder.glob("listing-*.npz")]) == shared


@pytest.mark.usefixtures("shrunk")
def test_a_fits_image_is_predicted_in_a_part_as_in_the_whole(tiny_run: Run, tmp_path: Path) -> None:
    from tests.tfrecords.fits.files import galaxy, write

    folder = tmp_path / "fits"
    folder.mkdir()
    for number in range(9):
        write(folder / f"{number}.fits", galaxy(32 + number))
    tabulate_images(tiny_run, folder, tmp_path / "expected.csv")
    for number in (1, 2):
        tabulate_images(tiny_run, folder, tmp_path / "table.csv", share=JobShare(number, 2))
    tabulate_images(tiny_run, folder, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_parts_without_locks_still_make_the_table(
    tiny_run: Run, plain_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shrunk: None
) -> None:
    def no_locks(*arguments: object) -> None:
        raise OSError(38, "Function not implemented")

    tabulate_split(tiny_run, plain_dataset, "train", tmp_path / "expected.csv")
    monkeypatch.setattr("fcntl.flock", no_locks)
    out = tmp_path / "table.csv"
    for number in (2, 1):
        tabulate_split(tiny_run, plain_dataset, "train", out, share=JobShare(number, 2))
    tabulate_split(tiny_run, plain_dataset, "train", out)
    assert out.read_bytes() == (tmp_path / "expected.csv").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"table.csv", "expected.csv"}


def test_a_refused_part_leaves_nothing(tmp_path: Path) -> None:
    table = tmp_path / "out" / "table.csv"
    with pytest.raises(ZeroDivisionError), locked_parts(table, share=JobShare(1, 2)):
        assert parts.SUFFIX in str(next(table.parent.iterdir()))
        raise ZeroDivisionError
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("part", ["0/3", "4/3", "x", "1", "-1/3"])
def test_a_part_that_is_none_is_a_usage_error(part: str, tiny_run: Run, tmp_path: Path, run_main: Main) -> None:
    code, _, err = run_main("predict", "--run", tiny_run.folder, "--images", tmp_path, "--out", "t.csv", f"--part={part}")
    assert code == 2 and "argument --part" in err and "3/100" in err


def test_the_parts_of_a_share_are_consecutive() -> None:
    assert streaming.PART == 8192
    assert [number for share in range(1, 8) for number in JobShare(share, 7).span(12_208)] == [*range(12_208)]
