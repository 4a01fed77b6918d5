"""The parts of a job array share one plan; in any order, and however often they are killed, they give the same dataset."""

import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from preprocess import job, opening, sharing
from preprocess.job import BadImages, BuildSettings, build_dataset, build_share
from tests.conftest import galaxy_image
from tests.tfrecords.fits.files import galaxy, write_bands
from tfrecords import files, locks
from tfrecords.errors import ConfigError, SettingError, SourceError
from tfrecords.shares import JobShare

Settings = Callable[..., BuildSettings]
Contents = Callable[[Path], dict[str, bytes]]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
BAD = BadImages(max_fraction=1)


@pytest.fixture
def settings(build_settings: Settings) -> BuildSettings:
    return build_settings(size=16, examples_per_shard=2)


@pytest.fixture
def plain(survey: Path, settings: BuildSettings, contents: Contents, tmp_path: Path) -> dict[str, bytes]:
    """The dataset of one command."""
    return contents(build_dataset(survey, tmp_path / "plain", settings, workers=1).dataset.folder)


def _packed(survey: Path, tmp_path: Path) -> Path:
    """The survey as a zip in a zip, both deflated: a copy of the inner one is unpacked."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(survey.rglob("*")):
            file.write(path, path.relative_to(survey))
    with zipfile.ZipFile(tmp_path / "survey.zip", "w", zipfile.ZIP_DEFLATED) as outer:
        outer.writestr("images.zip", inner.getvalue())
    return tmp_path / "survey.zip"


def _catalogue(survey: Path, tmp_path: Path) -> Path:
    """A catalogue that holds its images, of which one is missing and one is none."""
    buffer = io.BytesIO()
    galaxy_image(np.random.default_rng(0), 48).save(buffer, "PNG")
    images = [{"bytes": buffer.getvalue(), "path": "1.png"} for _ in range(9)]
    images[1], images[4] = None, {"bytes": b"", "path": "5.png"}  # type: ignore[call-overload]
    parquet.write_table(pa.table({"id_str": [f"J{number}" for number in range(9)], "image": images}), tmp_path / "gz.parquet")
    return tmp_path / "gz.parquet"


def _bands(survey: Path, tmp_path: Path) -> Path:
    for number in range(5):
        write_bands(tmp_path / "bands", f"NGC {number}", galaxy())
    return tmp_path / "bands"


@pytest.mark.parametrize("make", [lambda survey, tmp_path: survey, _packed, _catalogue, _bands])
@pytest.mark.parametrize("total", [1, 3])
def test_parts_give_the_dataset_of_one_command_whatever_the_source(
    make: Callable[[Path, Path], Path], total: int, survey: Path, settings: BuildSettings, contents: Contents, tmp_path: Path
) -> None:
    source = make(survey, tmp_path)
    plain = contents(build_dataset(source, tmp_path / "plain", settings, bad=BAD).dataset.folder)
    out = tmp_path / "out"
    for number in range(total, 0, -1):
        share = build_share(JobShare(number, total), source, out, settings, bad=BAD)
        assert share.shards and not share.already_complete
    assert share.missing == 0
    result = build_dataset(source, out, settings, bad=BAD)
    assert contents(out) == plain and not result.already_complete
    assert build_dataset(source, out, settings, bad=BAD).already_complete


def test_what_parts_have_finished_is_neither_listed_nor_read_again(
    survey: Path, settings: BuildSettings, plain: dict[str, bytes], contents: Contents, tmp_path: Path, monkeypatch: Any
) -> None:
    out = tmp_path / "out"
    build_share(JobShare(1, 2), survey, out, settings)
    monkeypatch.setattr(opening.surveys, "survey_of", lambda *_: pytest.fail("the source was listed again"))
    build_share(JobShare(2, 2), survey, out, settings)
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("galaxy_zoo-*")}
    for number in (1, 2):
        assert build_share(JobShare(number, 2), survey, out, settings).missing == 0
    build_dataset(survey, out, settings)
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("galaxy_zoo-*")} == written
    assert contents(out) == plain


def test_the_plain_command_writes_what_parts_have_not(
    survey: Path, settings: BuildSettings, plain: dict[str, bytes], contents: Contents, tmp_path: Path
) -> None:
    share = build_share(JobShare(2, 3), survey, tmp_path / "out", settings)
    assert 0 < share.missing == share.all_shards - share.shards
    build_dataset(survey, tmp_path / "out", settings)
    assert contents(tmp_path / "out") == plain


def test_more_parts_than_shards_leave_some_with_nothing_to_do(
    survey: Path, settings: BuildSettings, plain: dict[str, bytes], contents: Contents, tmp_path: Path
) -> None:
    shares = [build_share(JobShare(number, 40), survey, tmp_path / "out", settings) for number in range(1, 41)]
    assert {share.shards for share in shares} == {0, 1} and shares[-1].missing == 0
    build_dataset(survey, tmp_path / "out", settings)
    assert contents(tmp_path / "out") == plain


SIZE = ("--size=424", "--examples_per_shard=2", "--encoding=png")
FLAGS = (*SIZE, "--validation_fraction=0.2", "--test_fraction=0.2", "--workers=1")


def _started(command: list[str], survey: Path, out: Path, *flags: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*command, f"--src={survey}", f"--out={out}", *FLAGS, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _until(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.005)


@pytest.mark.slow
def test_parts_run_at_once_are_killed_and_run_again(
    command: list[str], survey: Path, run: Run, contents: Contents, tmp_path: Path
) -> None:
    out, receipts = tmp_path / "out", tmp_path / "out" / ".preprocess" / "receipts"
    assert run(f"--src={survey}", f"--out={tmp_path / 'plain'}", *FLAGS).returncode == 0
    first, second = (_started(command, survey, out, f"--part={number}/2") for number in (1, 2))
    _until(lambda: receipts.is_dir() and len([*receipts.glob("*.json")]) > 1, first)
    for process in (first, second):
        os.killpg(process.pid, signal.SIGSTOP)
    # The same part, the whole job, and another job are refused meanwhile.
    for flags, what in (
        (("--part=1/2",), "part 1/2 is running already: wait until it ends"),
        ((), "another preprocess job is writing here: wait for it, or choose another --out"),
        (("--part=1/2", "--size=400"), "holds an unfinished build with other settings or source (size was 424, now 400)"),
    ):
        refused = run(f"--src={survey}", f"--out={out}", *FLAGS, *flags)
        assert (refused.returncode, refused.stdout) == (1, "") and what in refused.stderr, refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    os.killpg(second.pid, signal.SIGCONT)
    _, stderr = second.communicate(timeout=60)
    assert second.returncode == 0, stderr
    unfinished = run(f"--src={survey}", f"--out={out}", *FLAGS, "--part=1/2")
    assert unfinished.returncode == 0 and "missing" not in unfinished.stdout
    assert unfinished.stdout.endswith("next: when all parts have ended, run the same command without --part\n")
    assert not [*out.glob(".preprocess/share-*")] and not [*out.glob(".preprocess/unfinished-*")]
    assert run(f"--src={survey}", f"--out={out}", *FLAGS).returncode == 0
    assert contents(out) == contents(tmp_path / "plain")
    again = run(f"--src={survey}", f"--out={out}", *FLAGS, "--part=1/2")
    assert (again.returncode, again.stdout) == (0, f"{out}: already complete, nothing to do\n")
    assert contents(out) == contents(tmp_path / "plain")


@pytest.mark.slow
def test_a_part_waits_while_another_plans(command: list[str], survey: Path, contents: Contents, tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "out" / ".preprocess"
    work.mkdir(parents=True)
    locks.make_lock(work)
    with (work / "planning").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        process = _started(command, survey, out, "--part=1/1")
        assert process.stderr is not None
        assert "waiting while another part lists the source" in process.stderr.readline()
        assert not (work / "plan.json").exists()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr


def test_a_plan_that_was_interrupted_is_made_again(
    survey: Path, settings: BuildSettings, plain: dict[str, bytes], contents: Contents, tmp_path: Path, monkeypatch: Any
) -> None:
    out, save = tmp_path / "out", sharing.save_arrays

    def fails_at_the_third(path: Path, arrays: Any) -> None:
        if len([*path.parent.glob("*.npz")]) == 2:
            raise KeyboardInterrupt
        save(path, arrays)

    monkeypatch.setattr(sharing, "save_arrays", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        build_share(JobShare(1, 2), survey, out, settings)
    monkeypatch.setattr(sharing, "save_arrays", save)
    for number in (1, 2):
        build_share(JobShare(number, 2), survey, out, settings)
    assert len([*out.glob(".preprocess/plan-*")]) == 1
    build_dataset(survey, out, settings)
    assert contents(out) == plain


def test_parts_go_on_with_what_one_command_has_begun(
    survey: Path, settings: BuildSettings, plain: dict[str, bytes], contents: Contents, tmp_path: Path, monkeypatch: Any
) -> None:
    out = tmp_path / "out"

    def stops(work: Any, tasks: Any, *arguments: Any) -> Any:
        for number, task in enumerate(tasks):
            if number == 3:
                raise KeyboardInterrupt
            yield work(task, lambda: None)

    with monkeypatch.context() as patch:
        patch.setattr(job, "run_local", stops)
        with pytest.raises(KeyboardInterrupt):
            build_dataset(survey, out, settings)
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("galaxy_zoo-*")}
    assert len(written) == 3
    assert build_share(JobShare(1, 1), survey, out, settings).missing == 0
    assert written.items() <= {path.name: path.stat().st_mtime_ns for path in out.glob("galaxy_zoo-*")}.items()
    build_dataset(survey, out, settings)
    assert contents(out) == plain


def test_other_settings_or_another_source_are_refused_with_what_differs(
    survey: Path, settings: BuildSettings, build_settings: Settings, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", build_settings(size=17, examples_per_shard=2)
    build_share(JobShare(1, 2), survey, out, settings)
    before = sorted(out.rglob("*"))
    for source, chosen, what in ((survey, other, "size was 16, now 17"), (tmp_path, settings, f"now {tmp_path}")):
        with pytest.raises(ConfigError, match=what):
            build_share(JobShare(2, 2), source, out, chosen)
    with pytest.raises(ConfigError, match="size was 16, now 17"):
        build_dataset(survey, out, other)
    assert sorted(out.rglob("*")) == before
    # Told to, the whole command replaces it; afterwards parts of the first settings are others.
    assert build_dataset(survey, out, other, overwrite=True).dataset.size == 17
    with pytest.raises(ConfigError, match=r"a dataset with other settings \(size was 17, now 16\)"):
        build_share(JobShare(1, 2), survey, out, settings)


def test_another_version_is_refused(survey: Path, settings: BuildSettings, tmp_path: Path, monkeypatch: Any) -> None:
    build_share(JobShare(1, 2), survey, tmp_path / "out", settings)
    tool = sharing.versions.tool
    monkeypatch.setattr(sharing.versions, "tool", lambda fits=False: {**tool(fits), "pillow": "0.1"})
    with pytest.raises(ConfigError, match=r"pillow .* instead of 0\.1"):
        build_share(JobShare(2, 2), survey, tmp_path / "out", settings)


def test_a_source_that_has_changed_since_it_was_listed_is_named(survey: Path, settings: BuildSettings, tmp_path: Path) -> None:
    source = Path(shutil.copytree(survey, tmp_path / "source"))
    build_share(JobShare(1, 2), source, tmp_path / "out", settings)
    for path in source.glob("*/*.jpg"):
        path.write_bytes(path.read_bytes() + b"more")
    what = "has changed since the source was listed: build with --overwrite and without --part"
    with pytest.raises(SourceError, match=what):
        build_share(JobShare(2, 2), source, tmp_path / "out", settings)
    with pytest.raises(SourceError, match=what):
        build_dataset(source, tmp_path / "out", settings)
    assert build_dataset(source, tmp_path / "out", settings, overwrite=True).dataset.galaxies("train")


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"shard": 1, "targets": null}', "\udcff"])
def test_a_damaged_receipt_costs_its_shard_and_a_damaged_job_one_line(
    content: str, survey: Path, settings: BuildSettings, plain: dict[str, bytes], contents: Contents, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build_share(JobShare(1, 1), survey, out, settings)
    receipts = sorted((out / ".preprocess" / "receipts").iterdir())
    receipts[0].write_text(content, errors="surrogateescape")
    job_file = out / ".preprocess" / "job.json"
    intact = job_file.read_text()
    job_file.write_text(content, errors="surrogateescape")
    with pytest.raises(ConfigError, match=r"job\.json: damaged \(.*\): remove the folder that holds it, and build again"):
        build_dataset(survey, out, settings)
    job_file.write_text(intact)
    build_dataset(survey, out, settings)
    assert contents(out) == plain


def _damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_plan_is_named_and_nothing_is_built_from_it(
    survey: Path, settings: BuildSettings, plain: dict[str, bytes], contents: Contents, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build_share(JobShare(1, 2), survey, out, settings)
    [folder] = out.glob(".preprocess/plan-*")
    plan = out / ".preprocess" / "plan.json"
    intact = plan.read_bytes()
    plan.write_text(json.dumps({**json.loads(intact), "folder": "../../elsewhere"}))
    with pytest.raises(ConfigError, match=r"plan\.json: damaged .*: build with --overwrite and without --part"):
        build_share(JobShare(2, 2), survey, out, settings)
    plan.write_bytes(intact)
    for path in folder.iterdir():
        _damage(path)
    with pytest.raises(ConfigError, match=r"\.npz: damaged .*: build with --overwrite and without --part"):
        build_share(JobShare(2, 2), survey, out, settings)
    build_dataset(survey, out, settings, overwrite=True)
    assert contents(out) == plain


@pytest.mark.parametrize("when", ["write_plan", "clear_unfinished", "save_arrays"])
def test_without_locks_two_plans_do_no_harm(
    when: str, survey: Path, settings: BuildSettings, plain: dict[str, bytes], contents: Contents, tmp_path: Path,
    monkeypatch: Any,
) -> None:  # fmt: skip
    """While one process plans, at three moments of that, another does all that it has to."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(files, "_warned", set())
    out, original = tmp_path / "out", getattr(sharing, when)

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(sharing, when, original)
        build_share(JobShare(2, 2), survey, out, settings)
        return original(*arguments)

    if when == "clear_unfinished":  # which is not called without locks: others may be planning
        monkeypatch.setattr(sharing, when, lambda work: pytest.fail("the plan of another process was removed"))
    else:
        monkeypatch.setattr(sharing, when, meanwhile)
    build_share(JobShare(1, 2), survey, out, settings)
    assert build_share(JobShare(2, 2), survey, out, settings).missing == 0
    build_dataset(survey, out, settings)
    assert contents(out) == plain


@pytest.mark.parametrize("flag", ["--overwrite", "--dask=localhost:1"])
def test_flags_of_the_whole_job_are_refused_beside_a_part(flag: str, survey: Path, run: Run, tmp_path: Path) -> None:
    refused = run(f"--src={survey}", f"--out={tmp_path / 'out'}", "--part=1/2", flag)
    assert refused.returncode == 2 and "is for the whole job: omit it, or --part 1/2" in refused.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["0/2", "3/2", "x", "1"])
def test_what_is_no_part_is_bad_usage(part: str, survey: Path, run: Run, tmp_path: Path) -> None:
    refused = run(f"--src={survey}", f"--out={tmp_path / 'out'}", f"--part={part}")
    assert refused.returncode == 2 and "is no share: give, for the third of a hundred, 3/100" in refused.stderr


def test_too_many_bad_images_of_all_end_a_part_and_fewer_do_not(survey: Path, settings: BuildSettings, tmp_path: Path) -> None:
    source = Path(shutil.copytree(survey, tmp_path / "source"))
    images = sorted(source.glob("*/*.jpg"))
    for path in images[:3]:
        path.write_bytes(b"no image")
    enough = BadImages(max_fraction=3 / len(images))
    for number in range(1, 5):
        build_share(JobShare(number, 4), source, tmp_path / "out", settings, bad=enough)
    assert len(build_dataset(source, tmp_path / "out", settings, bad=enough).dataset.rejected()) == 3
    for path in images:
        path.write_bytes(b"no image")
    with pytest.raises(SourceError, match="images could not be used, above --max_bad_fraction"):
        build_share(JobShare(1, 2), source, tmp_path / "other", settings, bad=enough)


def test_no_worker_is_no_setting(survey: Path, settings: BuildSettings, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="workers"):
        build_share(JobShare(1, 2), survey, tmp_path / "out", settings, workers=0)
