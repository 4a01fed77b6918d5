"""A fault of the machine costs time but never a byte; a bad image costs only that image, and is reported."""

import csv
import os
import random
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from preprocess.job import BadImages, BuildSettings, build_dataset
from tfrecords.dataset import Dataset, open_dataset
from tfrecords.errors import SourceError
from tfrecords.schema import Example

Settings = Callable[..., BuildSettings]
Contents = Callable[[Path], dict[str, bytes]]
Examples = Callable[[Dataset], dict[int, tuple[str, Example]]]
Children = Callable[[int], list[int]]
AllEnd = Callable[[list[int]], None]
Spoil = Callable[[Path], dict[str, str]]
Said = Callable[[str], list[str]]
Ready = Callable[[list[int]], bool]
Killed = Callable[[list[str], Ready], bool]
MOMENTS = 12
# Runs a job again and again, each time in a new folder, and kills it before its first, second, third ... change of the
# file system, which Python reports to an audit hook. Ends when a run is not killed, or has removed the old dataset.
KILLER = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from preprocess.job import BadImages, BuildSettings, build_dataset
from preprocess.plan import PlanSettings
from tfrecords.images import CropSettings

src, before, outs, settings = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), eval(sys.argv[4])
for step in itertools.count():
    out = outs / str(step)
    if before.exists():
        shutil.copytree(before, out)
    child = os.fork()
    if child:
        if os.waitpid(child, 0)[1] == 0 or (before.exists() and (out / ".preprocess" / "job.json").exists()):
            break
        continue
    left, pid = step, os.getpid()

    def hook(event, arguments):
        global left
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR) and str(arguments[0]).startswith(str(out))
        if os.getpid() == pid and (writes or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir")):
            if left == 0:
                os.kill(pid, signal.SIGKILL)
            left -= 1

    sys.addaudithook(hook)
    build_dataset(src, out, settings, overwrite=before.exists())
    os._exit(0)
"""


def _seconds(job: list[str]) -> float:
    """Run a job; return the processor time of all its processes in seconds, which unlike clock time depends little on load."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(job, check=True, capture_output=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _used(pid: int) -> float:
    """The processor time of a process so far in seconds; 0 if it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def killed(children: Children, assert_all_end: AllEnd) -> Killed:
    """A function that starts a job, kills it as soon as `ready` is true of its processes, and returns whether it was killed."""

    def killed(job: list[str], ready: Ready) -> bool:
        process = subprocess.Popen(job, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while process.poll() is None:
            assert time.monotonic() < until, f"the job (process {process.pid}) does not end"
            workers = children(process.pid)
            if ready([process.pid, *workers]):
                process.kill()
                process.wait()
                assert_all_end(workers)
                return True
            time.sleep(0.004)
        assert process.returncode == 0
        return False

    return killed


def _has_used(seconds: float) -> Ready:
    """A function that tests whether a job's processes have used this much processor time."""
    return lambda pids: sum(map(_used, pids)) >= seconds


def _receipts(out: Path) -> int:
    """The number of finished shards of an unfinished job."""
    return len(list(out.glob(".preprocess/receipts/*.json")))


def _has_finished(out: Path, shards: int) -> Ready:
    """A function that tests whether a job has finished this many shards."""
    return lambda pids: _receipts(out) >= shards


@pytest.fixture(scope="module")
def job(command: list[str], survey: Path) -> list[str]:
    """A job of 15 shards, without its --out; enlarging the crops makes it slow enough to be killed."""
    flags = "--size=800 --encoding=png --examples_per_shard=2 --validation_fraction=0.2 --test_fraction=0.2 --workers=2"
    return [*command, f"--src={survey}", *flags.split()]


@pytest.fixture(scope="module")
def settings(build_settings: Settings) -> BuildSettings:
    """The settings of `job`."""
    return build_settings(size=800, examples_per_shard=2)


@pytest.fixture(scope="module")
def undisturbed(job: list[str], contents: Contents, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """The bytes of the dataset of `job` when it is not disturbed, and its processor time in seconds."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    seconds = _seconds([*job, f"--out={out}"])
    return contents(out), seconds


def _assert_final_names_are_whole(out: Path, contents: Contents, expected: dict[str, bytes]) -> None:
    for name, content in contents(out).items() if out.exists() else ():
        if not name.startswith(".preprocess") and not name.endswith(".partial"):
            assert content == expected[name], name


def _progress(out: Path, expected: dict[str, bytes]) -> str:
    shards = sum(name.startswith("galaxy_zoo-") for name in expected)
    receipts = _receipts(out)
    return "before the first shard" if not receipts else "amid the shards" if receipts < shards else "after the last shard"


@pytest.mark.slow
def test_a_job_killed_at_any_moment_and_run_again_leaves_the_bytes_of_an_undisturbed_one(
    job: list[str], settings: BuildSettings, survey: Path, undisturbed: tuple[dict[str, bytes], float],
    killed: Killed, contents: Contents, tmp_path: Path,
) -> None:  # fmt: skip
    expected, seconds = undisturbed
    generator = random.Random(20)
    reached: Counter[str] = Counter()
    for moment in range(MOMENTS):
        out = tmp_path / str(moment)
        # In each twelfth of the job one moment at random; every other one amid the shards, however long the start takes.
        after = _has_used(seconds * (moment + generator.random()) / MOMENTS)
        ended = not killed([*job, f"--out={out}"], after if moment % 2 else _has_finished(out, generator.randrange(1, 14)))
        reached["the end" if ended else _progress(out, expected)] += 1
        _assert_final_names_are_whole(out, contents, expected)
        complete = (out / "manifest.json").exists()
        assert build_dataset(survey, out, settings).already_complete == complete
        assert contents(out) == expected, f"killed {moment + 1} twelfths into the job"
    assert reached["before the first shard"] and reached["amid the shards"] >= 3, reached


@pytest.mark.slow
def test_a_job_killed_again_and_again_comes_to_the_same_end(
    job: list[str], undisturbed: tuple[dict[str, bytes], float], killed: Killed, contents: Contents, tmp_path: Path
) -> None:
    out, generator, kills = tmp_path / "out", random.Random(3), 0
    while killed([*job, f"--out={out}"], _has_finished(out, _receipts(out) + generator.randrange(1, 5))):
        _assert_final_names_are_whole(out, contents, undisturbed[0])
        kills += 1
    assert 3 <= kills < 15
    assert contents(out) == undisturbed[0]


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True], ids=["in a new folder", "overwriting another dataset"])
def test_a_job_killed_before_any_single_change_of_the_file_system_comes_to_the_same_end(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path, overwrite: bool
) -> None:
    src = Path(shutil.copytree(survey / "images_test_rev1", tmp_path / "galaxies"))
    (src / "900000.jpg").rename(src / "NGC 4321.jpg")
    settings = build_settings(examples_per_shard=28)
    expected = contents(build_dataset(src, tmp_path / "undisturbed", settings).dataset.folder)
    before = contents(build_dataset(survey, tmp_path / "before", settings).dataset.folder) if overwrite else {}
    (tmp_path / "outs").mkdir()
    arguments = [str(src), str(tmp_path / "before"), str(tmp_path / "outs"), repr(settings)]
    subprocess.run([sys.executable, "-c", KILLER, *arguments], check=True, capture_output=True, timeout=120)
    outs = sorted((tmp_path / "outs").iterdir(), key=lambda out: int(out.name))
    unfinished = 0
    for out in outs:
        there = {name: content for name, content in contents(out).items() if not name.startswith(".preprocess")}
        if "manifest.json" in there:
            assert there in (expected, before), out.name
        elif not overwrite:
            _assert_final_names_are_whole(out, contents, expected)
        unfinished += "manifest.json" not in there and not there.keys() <= {"galaxy_zoo-unlabelled.tfrecord-00000-of-00001"}
        build_dataset(src, out, settings, overwrite=overwrite)
        assert contents(out) == expected, out.name
    assert unfinished >= 7  # during the commit, or during the removal of the old dataset


@pytest.mark.slow
def test_a_job_on_real_galaxies_killed_several_times_comes_to_the_same_end(
    kaggle: Path, command: list[str], killed: Killed, contents: Contents, tmp_path: Path
) -> None:
    job = [*command, f"--src={kaggle}", "--examples_per_shard=128", "--workers=2"]
    subprocess.run([*job, f"--out={tmp_path}/undisturbed"], check=True, capture_output=True)
    out = tmp_path / "out"
    for shards in (1, 12, 24):
        assert killed([*job, f"--out={out}"], _has_finished(out, shards))
    subprocess.run([*job, f"--out={out}"], check=True, capture_output=True)
    assert contents(out) == contents(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_killed_worker_ends_the_job_with_one_line_and_the_job_can_go_on(
    job: list[str], settings: BuildSettings, survey: Path, undisturbed: tuple[dict[str, bytes], float],
    contents: Contents, children: Children, assert_all_end: AllEnd, said: Said, tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    process = subprocess.Popen([*job, f"--out={out}"], stderr=subprocess.PIPE, text=True)
    while not _receipts(out):
        assert process.poll() is None
        time.sleep(0.005)
    workers = children(process.pid)
    subprocess.run(["kill", "-KILL", str(workers[-1])], check=True)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    (line,) = said(err)
    assert line.startswith("error: a worker process was killed, most likely for lack of memory: run the same command again")
    assert_all_end(workers)
    build_dataset(survey, out, settings, workers=2)
    assert contents(out) == undisturbed[0]


@pytest.mark.slow
def test_a_job_killed_while_it_copies_a_zip_out_of_a_zip_comes_to_the_same_end(
    survey: Path, command: list[str], contents: Contents, tmp_path: Path
) -> None:
    inner = Path(shutil.make_archive(str(tmp_path / "kaggle"), "zip", survey))
    noise = random.Random(0).randbytes(1_000_000)  # what packs too well is refused
    with zipfile.ZipFile(inner, "a") as file, file.open("notes.txt", "w") as notes:
        for _ in range(100):
            notes.write(noise)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.write(inner, "kaggle.zip")
    job = [*command, "--size=32", "--workers=1", "--examples_per_shard=8"]
    out = tmp_path / "out"
    process = subprocess.Popen([*job, f"--src={tmp_path}/outer.zip", f"--out={out}"], stderr=subprocess.DEVNULL)
    while not (partial := list(out.glob(".preprocess/.inner-*.partial"))) or not partial[0].stat().st_size:
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert 0 < partial[0].stat().st_size < inner.stat().st_size
    subprocess.run([*job, f"--src={tmp_path}/outer.zip", f"--out={out}"], check=True, capture_output=True)
    subprocess.run([*job, f"--src={survey}", f"--out={tmp_path}/plain"], check=True, capture_output=True)
    assert contents(out) == contents(tmp_path / "plain")


@pytest.mark.slow
def test_of_two_jobs_at_once_one_makes_the_dataset_and_the_other_says_that_it_is_being_made(
    job: list[str], undisturbed: tuple[dict[str, bytes], float], contents: Contents, said: Said, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    both = [subprocess.Popen([*job, f"--out={out}"], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = sorted((process.returncode, said(err)) for process in both for err in [process.communicate(timeout=60)[1]])
    refused = f"error: {out}: another preprocess job is writing here: wait for it, or choose another --out"
    assert [status for status, _ in ended] == [0, 1]
    assert ended[1][1] == [refused]
    assert contents(out) == undisturbed[0]


@pytest.mark.slow
def test_a_job_stopped_by_a_full_disk_leaves_no_partial_file_and_goes_on_when_there_is_room(
    job: list[str], undisturbed: tuple[dict[str, bytes], float], contents: Contents, said: Said, tmp_path: Path
) -> None:
    # A file system of 1 MB for these processes alone, in a user namespace if those are allowed.
    disk = tmp_path / "disk"
    disk.mkdir()
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespace to mount a small disk in")
    script = """
        disk=$0; mount -t tmpfs -o size=1m none "$disk" || exit 99
        "$@"; echo status $?; find "$disk" -name "*.partial"; ls "$disk/out" | grep -c tfrecord
        mount -o remount,size=50m "$disk" || exit 99
        "$@" > /dev/null 2>&1 && cp -r "$disk/out" "$disk/../copy"
    """
    arguments = [*namespace, "sh", "-c", script, str(disk), *job, f"--out={disk}/out"]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    if ended.returncode == 99:
        pytest.skip("no small disk can be mounted here")
    status, shards = ended.stdout.splitlines()
    assert status == "status 1" and 0 < int(shards) < 15
    *_, error = said(ended.stderr)
    assert error.startswith(f"error: the disk is full while writing {disk}/out/")
    assert error.endswith(": free some space, or choose another --out, and run the same command again")
    assert ended.returncode == 0
    assert contents(tmp_path / "copy") == undisturbed[0]


@pytest.fixture
def spoiled(survey: Path, spoil: Spoil, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A survey with six bad images among those without votes, and why each is bad."""
    src = Path(shutil.copytree(survey, tmp_path / "kaggle"))
    return src, spoil(src / "images_test_rev1")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["jpeg", "png", "raw"])
def test_images_that_cannot_be_used_are_left_out_and_listed_with_their_reason(
    survey: Path, spoiled: tuple[Path, dict[str, str]], build_settings: Settings, examples: Examples, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, encoding: str,
) -> None:  # fmt: skip
    src, bad = spoiled
    settings = build_settings(encoding=encoding, examples_per_shard=4)
    dataset = build_dataset(src, tmp_path / "out", settings, workers=2, bad=BadImages(max_fraction=0.2)).dataset
    with (dataset.folder / "rejected.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["galaxy_id", "source path", "reason"]
    assert [row[:2] for row in rows] == [[name.split(".")[0], f"images_test_rev1/{name}"] for name in sorted(bad)]
    assert all(reason.startswith(bad[path.rpartition("/")[2]]) for _, path, reason in rows)
    found = examples(dataset)
    assert found.keys() == {int(path.stem) for path in survey.glob("*/*.jpg")}
    assert (dataset.source["images"], dataset.source["rejected"], len(found)) == (34, 6, 28)
    assert caplog.messages[-1].startswith("6 of 34 images could not be used and are listed in ")
    whole = examples(build_dataset(survey, tmp_path / "whole", settings).dataset)
    assert {galaxy_id: example.image for galaxy_id, (_, example) in found.items()} == {
        galaxy_id: example.image for galaxy_id, (_, example) in whole.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("bad", [BadImages(max_fraction=0.17), BadImages(skip=False)], ids=["too many", "none allowed"])
def test_more_bad_images_than_allowed_end_the_job_without_a_dataset(
    spoiled: tuple[Path, dict[str, str]], build_settings: Settings, contents: Contents, tmp_path: Path, workers: int,
    bad: BadImages,
) -> None:  # fmt: skip
    src, out = spoiled[0], tmp_path / "out"
    with pytest.raises(SourceError) as caught:
        build_dataset(src, out, build_settings(examples_per_shard=40), workers=workers, bad=bad)
    said = "6 of 34 images could not be used, above --max_bad_fraction 0.17; first images_test_rev1/80000"
    assert str(caught.value).startswith(said if bad.skip else f"{src}/images_test_rev1/80000")
    assert bad.skip or "or omit such images with --on_bad_image skip" in str(caught.value)
    assert not {"manifest.json", "dataset_info.json", "features.json", "rejected.csv"} & set(contents(out))
    assert not list(out.rglob("*.partial"))


def test_a_split_whose_images_are_all_bad_is_absent(
    survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path
) -> None:
    src = Path(shutil.copytree(survey, tmp_path / "kaggle"))
    for image in (src / "images_test_rev1").iterdir():
        image.write_bytes(b"")
    dataset = build_dataset(
        src, tmp_path / "out", build_settings(examples_per_shard=2), bad=BadImages(max_fraction=0.2)
    ).dataset
    assert dataset.galaxies("unlabelled") == 0 and dataset.source["rejected"] == 4
    assert not [name for name in contents(dataset.folder) if "unlabelled" in name]
    assert open_dataset(dataset.folder) == dataset


def test_a_source_without_one_usable_image_is_refused(build_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "galaxies").mkdir()
    for name in ("1.jpg", "2.png"):
        (tmp_path / "galaxies" / name).write_bytes(b"")
    with pytest.raises(SourceError) as caught:
        build_dataset(tmp_path / "galaxies", tmp_path / "out", build_settings(), bad=BadImages(max_fraction=1))
    assert str(caught.value) == f"{tmp_path}/galaxies: no image could be used; first 1.jpg: the file is empty"
    assert not (tmp_path / "out" / "manifest.json").exists()
