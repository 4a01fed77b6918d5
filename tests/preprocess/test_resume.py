"""However a job ends, the same command resumes it and gives the same bytes; a change of the source is noticed."""

import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess import plan, state, surveys, writing
from preprocess.job import BadImages, BuildSettings, build_dataset
from preprocess.sources.listing import ImageReader
from tfrecords import framing, schema
from tfrecords.dataset import open_dataset
from tfrecords.errors import ConfigError, DatasetError, SourceError

Settings = Callable[..., BuildSettings]
Contents = Callable[[Path], dict[str, bytes]]
Start = Callable[..., "subprocess.Popen[str]"]
Children = Callable[[int], list[int]]
AllEnd = Callable[[list[int]], None]
# Enlarging a galaxy to 424 pixels takes some 30 ms: the job lasts long enough to be stopped after its first shard.
SIZE, PER_SHARD = 424, 2
ADVICE = "choose another --out, or replace it with --overwrite"


@pytest.fixture(scope="module")
def long_settings(build_settings: Settings) -> BuildSettings:
    return build_settings(size=SIZE, examples_per_shard=PER_SHARD)


@pytest.fixture(scope="module")
def undisturbed(
    survey: Path, long_settings: BuildSettings, contents: Contents, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The bytes of the dataset of a job that was not stopped."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    return contents(build_dataset(survey, out, long_settings, workers=2).dataset.folder)


@pytest.fixture
def own_survey(survey: Path, tmp_path: Path) -> Path:
    """A copy of the survey to change."""
    return Path(shutil.copytree(survey, tmp_path / "kaggle"))


def _committed(out: Path) -> dict[str, tuple[int, int]]:
    """Name -> inode and modification time of the shards that have a receipt."""
    names = [path.name.removesuffix(".json") for path in (out / ".preprocess" / "receipts").glob("*.json")]
    return {name: ((out / name).stat().st_ino, (out / name).stat().st_mtime_ns) for name in names}


@pytest.fixture(scope="module")
def start(command: list[str], survey: Path, children: Children) -> Iterator[Start]:
    """A function that starts the same job as a process; it returns after `shards` shards or, for 0, once two workers start."""
    started: list[subprocess.Popen[str]] = []

    def start(out: Path, src: Path = survey, shards: int = 1) -> "subprocess.Popen[str]":
        flags = f"--size={SIZE} --examples_per_shard={PER_SHARD} --encoding=png --validation_fraction=0.2 --test_fraction=0.2"
        arguments = [*command, f"--src={src}", f"--out={out}", "--workers=2", *flags.split()]
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        until = time.monotonic() + 30
        while len(_committed(out)) < shards if shards else len(children(process.pid)) < 3:  # Python's resource tracker too
            assert process.poll() is None and time.monotonic() < until, process.communicate()
            time.sleep(0.005)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def killed(start: Start, children: Children, assert_all_end: AllEnd, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that was killed after its third shard. Read-only."""
    out = tmp_path_factory.mktemp("killed") / "out"
    process = start(out, shards=3)
    workers = children(process.pid)
    process.kill()
    process.communicate()
    assert_all_end(workers)
    return out


@pytest.fixture
def unfinished(killed: Path, tmp_path: Path) -> Path:
    """A copy of `killed` to change."""
    return Path(shutil.copytree(killed, tmp_path / "out"))


def _image_of(survey: Path, shard: Path) -> Path:
    """The source image of the first galaxy in a finished shard."""
    galaxy_id = schema.parse(next(framing.read_records(shard))).galaxy_id
    (path,) = survey.glob(f"*/{galaxy_id}.jpg")
    return path


def _change(path: Path) -> None:
    """Replace an image by another of the same size in bytes."""
    image, buffer = Image.radial_gradient("L").resize((64, 64)).convert("RGB"), io.BytesIO()
    image.save(buffer, "JPEG")
    size = path.stat().st_size
    image.save(path, comment=bytes(size - len(buffer.getvalue()) - 4))
    assert path.stat().st_size == size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "status", "line"),
    [
        (signal.SIGKILL, -9, None),
        (signal.SIGTERM, 143, "interrupted by SIGTERM: run the same command again"),
        (signal.SIGINT, 130, "interrupted by Ctrl-C: run the same command again"),
    ],
    ids=["SIGKILL", "SIGTERM", "Ctrl-C"],
)
def test_an_interrupted_job_leaves_no_process_and_resumes_to_identical_bytes(
    how: signal.Signals, status: int, line: str | None, start: Start, survey: Path, long_settings: BuildSettings,
    undisturbed: dict[str, bytes], contents: Contents, children: Children, assert_all_end: AllEnd,
    said: Callable[[str], list[str]], tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    process = start(out)
    workers = children(process.pid)
    assert workers
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # Ctrl-C reaches every process of the terminal
    else:
        process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert_all_end(workers)
    if line:  # after a SIGKILL only Python's resource tracker may print
        assert said(err) == [line]
    with pytest.raises(DatasetError, match="not a finished dataset"):
        open_dataset(out)
    if how != signal.SIGKILL:
        assert not list(out.rglob("*.partial"))
    committed = _committed(out)
    assert 0 < len(committed) < len(undisturbed) - 4
    result = build_dataset(survey, out, long_settings, workers=2)
    assert not result.already_complete
    assert {name: ((out / name).stat().st_ino, (out / name).stat().st_mtime_ns) for name in committed} == committed
    assert contents(out) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.05, 0.15])
def test_ctrl_c_while_the_workers_start_is_one_line_too(
    seconds: float, start: Start, children: Children, assert_all_end: AllEnd, tmp_path: Path
) -> None:
    process = start(tmp_path / "out", shards=0)
    time.sleep(seconds)
    workers = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert_all_end(workers)


@pytest.mark.slow
def test_a_second_job_on_the_same_folder_is_refused_and_the_first_ends_well(
    start: Start, survey: Path, long_settings: BuildSettings, undisturbed: dict[str, bytes], contents: Contents,
    tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    first = start(out)
    first.send_signal(signal.SIGSTOP)
    try:
        for overwrite in (False, True):
            with pytest.raises(ConfigError) as caught:
                build_dataset(survey, out, long_settings, overwrite=overwrite)
            advice = "wait for it, or choose another --out"
            assert str(caught.value) == f"{out}: another preprocess job is writing here: {advice}"
    finally:
        first.send_signal(signal.SIGCONT)
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert contents(out) == undisturbed


def test_a_folder_is_never_two_jobs_at_once_and_none_stumbles_over_another_that_ends(tmp_path: Path) -> None:
    inside: list[int] = []
    faults: list[str] = []

    def ask(number: int) -> None:
        for _ in range(400):
            try:
                with state.locked_job(tmp_path / "out") as work:
                    inside.append(number)
                    if inside != [number]:
                        faults.append("two at once")
                    inside.remove(number)
                    state.remove_work(work)  # like a complete job
            except ConfigError:  # another one is running
                pass
            except OSError as error:
                faults.append(repr(error))

    with ThreadPoolExecutor(4) as jobs:
        list(jobs.map(ask, range(4)))
    assert Counter(faults) == {}


def test_finished_shards_that_were_damaged_since_are_written_again(
    unfinished: Path, own_survey: Path, long_settings: BuildSettings, undisturbed: dict[str, bytes], contents: Contents
) -> None:
    flipped, cut_off, missing = (unfinished / name for name in sorted(_committed(unfinished))[:3])
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    cut_off.write_bytes(cut_off.read_bytes()[:-1])
    missing.unlink()
    build_dataset(own_survey, unfinished, long_settings, workers=2)
    assert contents(unfinished) == undisturbed


def test_an_unfinished_job_refuses_other_settings_and_another_source_and_stays_resumable(
    unfinished: Path, own_survey: Path, long_settings: BuildSettings, build_settings: Settings,
    undisturbed: dict[str, bytes], contents: Contents, tmp_path: Path,
) -> None:  # fmt: skip
    before = contents(unfinished)
    begun = json.loads(before[".preprocess/job.json"])
    assert begun["settings"] == {**long_settings.flat(), "tree": "kaggle", "votes": "cumulative"}
    with pytest.raises(
        ConfigError, match=r"an unfinished build with other settings or source \(seed was 0, now 5\): choose another --out"
    ):
        build_dataset(own_survey, unfinished, build_settings(size=SIZE, examples_per_shard=PER_SHARD, seed=5))
    other = Path(shutil.copytree(own_survey, tmp_path / "other"))
    (other / "images_test_rev1" / "900000.jpg").unlink()
    with pytest.raises(ConfigError, match=r"the source has changed: images were 28, now 27\)"):
        build_dataset(other, unfinished, long_settings)
    assert contents(unfinished) == before
    build_dataset(own_survey, unfinished, long_settings, workers=2)
    assert contents(unfinished) == undisturbed


@pytest.mark.slow
def test_an_image_that_changed_after_its_shard_was_written_is_named_until_overwritten(
    unfinished: Path, own_survey: Path, long_settings: BuildSettings, contents: Contents, tmp_path: Path
) -> None:
    image = _image_of(own_survey, unfinished / max(_committed(unfinished)))
    _change(image)
    finished = {name: (unfinished / name).read_bytes() for name in _committed(unfinished)}
    with pytest.raises(ConfigError) as caught:
        build_dataset(own_survey, unfinished, long_settings, workers=2)
    assert (
        str(caught.value)
        == f"{unfinished}: holds an unfinished build ({image} has changed since its shard was written): {ADVICE}"
    )
    assert {name: (unfinished / name).read_bytes() for name in _committed(unfinished)} == finished
    build_dataset(own_survey, unfinished, long_settings, workers=2, overwrite=True)
    assert contents(unfinished) == contents(build_dataset(own_survey, tmp_path / "2", long_settings, workers=2).dataset.folder)


def test_a_source_whose_clock_is_behind_ours_hides_no_change(
    unfinished: Path, own_survey: Path, long_settings: BuildSettings
) -> None:
    """As on a network file system: a file that is changed now gets a time before the start of the job."""
    later = time.time() + 600
    for path in (unfinished / ".preprocess").rglob("*"):
        os.utime(path, (later, later))
    image = _image_of(own_survey, unfinished / max(_committed(unfinished)))
    _change(image)
    with pytest.raises(ConfigError, match=f"{image} has changed since its shard was written"):
        build_dataset(own_survey, unfinished, long_settings, workers=2)


def test_no_image_that_was_not_touched_is_read_again(
    unfinished: Path, survey: Path, long_settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = surveys.survey_of(survey, unfinished)
    shards = plan.make(source.galaxies, long_settings.plan)
    receipts = state.receipts(unfinished, unfinished / ".preprocess", [shard.name for shard in shards])
    assert receipts
    monkeypatch.setattr(ImageReader, "read", lambda *_: pytest.fail("an image was read"))
    for shard in shards:
        if shard.name in receipts:
            images = source.part(shard.rows).images
            np.testing.assert_array_equal(receipts[shard.name].times(), images.position)
            assert writing._changed(images, receipts[shard.name], same_place=True) == ""


@pytest.mark.slow
def test_an_image_that_changed_before_it_was_read_counts_as_it_is_now(
    unfinished: Path, own_survey: Path, long_settings: BuildSettings, contents: Contents, undisturbed: dict[str, bytes],
    tmp_path: Path,
) -> None:  # fmt: skip
    other = tmp_path / "unwritten"
    other.write_bytes(
        undisturbed[min(name for name in undisturbed if name.startswith("galaxy") and name not in _committed(unfinished))]
    )
    _change(_image_of(own_survey, other))
    build_dataset(own_survey, unfinished, long_settings, workers=2)
    assert contents(unfinished) == contents(build_dataset(own_survey, tmp_path / "2", long_settings, workers=2).dataset.folder)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["touched", "copied", "zipped"])
def test_other_times_another_place_or_packing_are_no_change_of_the_source(
    unfinished: Path, own_survey: Path, long_settings: BuildSettings, undisturbed: dict[str, bytes], contents: Contents,
    tmp_path: Path, form: str,
) -> None:  # fmt: skip
    src = own_survey
    if form == "touched":
        for path in own_survey.rglob("*"):
            os.utime(path)
    elif form == "copied":
        src = Path(shutil.copytree(own_survey, tmp_path / "elsewhere", copy_function=shutil.copyfile))
    else:
        src = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", own_survey))
    assert not build_dataset(src, unfinished, long_settings, workers=2).already_complete
    assert contents(unfinished) == undisturbed
    assert build_dataset(src, unfinished, long_settings).already_complete
    assert contents(unfinished) == undisturbed


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("image added", "the source has changed: images were 28, now 29"),
        ("image removed", "the source has changed: images were 28, now 27"),
        ("image of another size", "the source has changed"),
        ("image of the same size", "an image of the source has changed"),
        ("image of the same size in a zip", "an image of the source has changed"),
        ("votes changed", "the source has changed"),
    ],
)
def test_a_source_that_changed_since_the_dataset_was_made_is_refused_with_what_changed(
    own_survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path, change: str, difference: str
) -> None:
    out, src = tmp_path / "out", own_survey
    build_dataset(src, out, build_settings())
    galaxy, votes = src / "images_training_rev1" / "100007.jpg", src / "training_solutions_rev1.csv"
    if change == "image added":
        shutil.copy(galaxy, galaxy.with_name("5.jpg"))
    elif change == "image removed":
        galaxy.unlink()
    elif change == "image of another size":
        Image.new("RGB", (64, 64)).save(galaxy)
    elif change == "votes changed":
        votes.write_text(votes.read_text().replace("100007,", "100008,"))
    else:
        _change(galaxy)
    if change.endswith("zip"):
        src = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", src))
    before = contents(out)
    with pytest.raises(ConfigError) as caught:
        build_dataset(src, out, build_settings())
    assert str(caught.value) == f"{out}: holds a dataset with other settings or source ({difference}): {ADVICE}"
    assert contents(out) == before


@pytest.mark.slow
def test_a_dataset_of_a_source_that_changed_is_replaced_when_told_to(
    own_survey: Path, build_settings: Settings, contents: Contents, tmp_path: Path
) -> None:
    build_dataset(own_survey, tmp_path / "out", build_settings())
    _change(own_survey / "images_training_rev1" / "100007.jpg")
    (own_survey / "images_test_rev1" / "900000.jpg").unlink()
    replaced = build_dataset(own_survey, tmp_path / "out", build_settings(), overwrite=True).dataset
    assert contents(replaced.folder) == contents(build_dataset(own_survey, tmp_path / "fresh", build_settings()).dataset.folder)


@pytest.mark.slow
def test_an_image_that_changed_while_the_job_ran_is_noticed_when_it_is_run_again(
    start: Start, own_survey: Path, long_settings: BuildSettings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(out, own_survey)
    process.send_signal(signal.SIGSTOP)
    _change(_image_of(own_survey, out / max(_committed(out))))
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    with pytest.raises(ConfigError, match="an image of the source has changed"):
        build_dataset(own_survey, out, long_settings)


@pytest.mark.slow
def test_more_bad_images_may_be_allowed_for_later_and_fewer_may_not(
    own_survey: Path, build_settings: Settings, spoil: Callable[[Path], dict[str, str]], contents: Contents, tmp_path: Path
) -> None:
    spoil(own_survey / "images_training_rev1")
    out, settings = tmp_path / "out", build_settings(examples_per_shard=4)
    with pytest.raises(SourceError, match=r"of 34 images could not be used, above --max_bad_fraction 0\.01"):
        build_dataset(own_survey, out, settings, bad=BadImages(max_fraction=0.01))
    committed = _committed(out)
    assert committed
    with pytest.raises(SourceError, match=r"of 34 images could not be used, and --on_bad_image is fail"):
        build_dataset(own_survey, out, settings, bad=BadImages(skip=False))
    build_dataset(own_survey, out, settings, bad=BadImages(max_fraction=0.2))
    assert {name: ((out / name).stat().st_ino, (out / name).stat().st_mtime_ns) for name in committed} == committed
    fresh = build_dataset(own_survey, tmp_path / "fresh", settings, workers=2, bad=BadImages(max_fraction=1)).dataset
    assert contents(out) == contents(fresh.folder)
    assert build_dataset(own_survey, out, settings, bad=BadImages(max_fraction=1)).already_complete
