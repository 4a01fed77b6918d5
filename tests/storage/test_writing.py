"""A dataset in a store has the bytes of a local one, whatever stops the job, and however many write."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preprocess import instore, lease
from preprocess.job import BuildSettings, build_dataset, build_share
from tests.storage import servers
from tests.storage.proxy import stalling
from tfrecords.dataset import MANIFEST, Dataset, open_dataset
from tfrecords.errors import ConfigError, DatasetError, SettingError
from tfrecords.objects import Store, StoreError
from tfrecords.shares import JobShare
from tfrecords.storage import open_anywhere

_PROGRAM = (sys.executable, str(Path(__file__).with_name("building.py")))
_FLAGS = ("--size", "32", "--encoding", "png", "--crop_fraction", "0.5", "--examples_per_shard", "8", "--workers", "1")


@pytest.fixture(scope="module")
def source(make_survey: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_survey(tmp_path_factory.mktemp("source") / "survey", labelled=40, unlabelled=5, side=64, seed=4)


@pytest.fixture(scope="module")
def local(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local dataset of the source, built by the program."""
    out = tmp_path_factory.mktemp("local") / "data"
    _finished(_start(source, out))
    return out


def _start(source: Path, out: str | Path, *more: str, seconds: float = 2, **environment: str) -> subprocess.Popen[str]:
    command = [*_PROGRAM, str(seconds), "--src", str(source), "--out", str(out), *_FLAGS, *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


def _finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out + err


def _refused(process: subprocess.Popen[str]) -> str:
    """The last line of a command that failed."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, out + err
    assert "Traceback" not in err and servers.secret(servers.WRITER) not in out + err
    return err.strip().splitlines()[-1]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _objects(url: str) -> dict[str, bytes]:
    store = Store(url)
    return {name: store.read(name) for name in store.sizes()}


@pytest.mark.slow
def test_a_store_holds_the_bytes_of_a_local_dataset_and_nothing_else(
    store_url: str, source: Path, local: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    printed = _finished(_start(source, store_url, TMPDIR=str(scratch)))
    assert f"{store_url}: complete" in printed and f"next: trainer --tfrecords {store_url}" in printed
    assert _objects(store_url) == _files(local)
    assert list(scratch.iterdir()) == []
    again = _finished(_start(source, store_url))
    assert f"{store_url}: already complete, nothing to do" in again
    assert _objects(store_url) == _files(local)


@pytest.mark.slow
def test_a_killed_build_resumes_to_identical_bytes(store_url: str, source: Path, local: Path, endpoint: str) -> None:
    """The network stops in the middle of the third shard, and then the process is killed."""
    third = sorted(path.name for path in local.glob("galaxy_zoo-train.*"))[2]
    request = f"PUT /{servers.BUCKET}/{store_url.rpartition('/')[2]}/{third} ".encode()
    with stalling(endpoint, request) as proxy:
        process = _start(source, store_url, AWS_ENDPOINT_URL=proxy.endpoint)
        assert proxy.stalled.wait(60)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    there = Store(store_url).sizes()
    written = {name for name in there if "tfrecord" in name and not name.startswith(".")}
    assert third not in written and written and MANIFEST not in there
    receipts = {name for name in there if name.startswith(".preprocess/receipts/")}
    assert {f".preprocess/receipts/{name}.json" for name in written} >= receipts and receipts
    finished = {name: Store(store_url).read_tagged(name)[1] for name in written}
    printed = _finished(_start(source, store_url))
    assert "waiting at most" in printed  # the lease of the killed process
    assert _objects(store_url) == _files(local)
    kept = [name for name in receipts if Store(store_url).read_tagged(Path(name).stem)[1] == finished[Path(name).stem]]
    assert kept == [*receipts]


@pytest.mark.slow
def test_of_two_writers_one_is_refused_and_the_other_undisturbed(store_url: str, source: Path, local: Path) -> None:
    processes = [_start(source, store_url, "--workers", "1", seconds=3) for _ in range(2)]
    ends = [process.communicate(timeout=120) for process in processes]
    codes = sorted(process.returncode for process in processes)
    texts = [err for process, (_, err) in zip(processes, ends, strict=True) if process.returncode]
    assert _objects(store_url) == _files(local)
    # The second may also have come when the first had finished.
    assert codes in ([0, 0], [0, 1])
    for text in texts:
        assert text.strip().splitlines()[-1].startswith(f"error: {store_url}: another preprocess job is writing here, on "), (
            text
        )


@pytest.fixture
def quick_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SECONDS", 1.5)


@pytest.mark.slow
def test_a_lease_that_is_renewed_keeps_others_out_and_one_that_has_expired_does_not(store_url: str, quick_lease: None) -> None:
    store = Store(store_url)
    with lease.leased(store) as held:
        with (
            pytest.raises(ConfigError, match=f"^{store_url}: another preprocess job is writing here, on "),
            lease.leased(store),
        ):
            raise AssertionError("two processes hold the lease")
        time.sleep(2 * lease.SECONDS)
        held.check()
        assert [*store.sizes()] == [lease.LEASE]
    assert store.sizes() == {}
    store.write(lease.LEASE, lease._content("killed", time.time() - 1))
    with lease.leased(store) as held:
        held.check()
    assert store.sizes() == {}
    store.write(lease.LEASE, lease._content("killed", time.time() + 0.8))
    began = time.time()
    with lease.leased(store):
        assert time.time() - began > 0.7


def test_many_that_wait_for_an_expired_lease_get_it_one_at_a_time(store_url: str, quick_lease: None) -> None:
    store = Store(store_url)
    store.write(lease.LEASE, lease._content("killed", time.time() + 0.3))
    inside, most, refused = 0, 0, []
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        try:
            with lease.leased(store):
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.5)
                with lock:
                    inside -= 1
        except ConfigError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and len(refused) < 6 and all("is writing here" in text for text in refused)
    assert store.sizes() == {}


def _build(source: Path, out: str | Path, build_settings: Callable[..., BuildSettings], **more: Any) -> Dataset:
    overwrite = more.pop("overwrite", False)
    return build_dataset(source, out, build_settings(**more), overwrite=overwrite).dataset


@pytest.mark.slow
def test_a_job_that_loses_its_lease_stops_and_writes_no_manifest(
    store_url: str,
    source: Path,
    build_settings: Callable[..., BuildSettings],
    quick_lease: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, saved = Store(store_url), instore.StoredPlace.save_receipt

    def rob(place: instore.StoredPlace, receipt: Any) -> None:
        saved(place, receipt)
        store.write(lease.LEASE, lease._content("thief", time.time() + 60))
        time.sleep(2)

    monkeypatch.setattr(instore.StoredPlace, "save_receipt", rob)
    with pytest.raises(ConfigError, match=f"^{store_url}: this job has lost its lease, which another process has taken"):
        _build(source, store_url, build_settings)
    assert MANIFEST not in store.sizes()
    assert json.loads(store.read(lease.LEASE))["holder"] == "thief"


@pytest.mark.slow
def test_a_receipt_without_its_shard_is_ignored_and_so_is_a_shard_of_another_size(
    store_url: str, source: Path, build_settings: Callable[..., BuildSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _build(source, tmp_path / "local", build_settings)
    with monkeypatch.context() as patch:
        patch.setattr(instore.StoredPlace, "publish", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            _build(source, store_url, build_settings)
    store = Store(store_url)
    names = sorted(name for name in store.sizes() if name.startswith("galaxy_zoo-"))
    store.remove([names[0]])
    store.write(names[1], b"other")
    written: list[str] = []
    with monkeypatch.context() as patch:
        save = instore.StoredPlace.save_receipt
        patch.setattr(
            instore.StoredPlace,
            "save_receipt",
            lambda place, receipt: (written.append(receipt.shard.name), save(place, receipt)),
        )
        _build(source, store_url, build_settings)
    assert sorted(written) == names[:2]
    assert _objects(store_url) == _files(tmp_path / "local")


def _interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_other_settings_are_refused_and_replaced_only_when_asked_to(
    store_url: str, source: Path, build_settings: Callable[..., BuildSettings], tmp_path: Path
) -> None:
    _build(source, store_url, build_settings)
    before = _objects(store_url)
    with pytest.raises(ConfigError, match=rf"^{store_url}: holds a dataset with other settings .*size was 32, now 16"):
        _build(source, store_url, build_settings, size=16)
    assert _objects(store_url) == before
    _build(source, store_url, build_settings, size=16, overwrite=True)
    _build(source, tmp_path / "local", build_settings, size=16)
    assert _objects(store_url) == _files(tmp_path / "local")
    store = Store(store_url)
    store.write("rejected.csv", b"edited")
    with pytest.raises(ConfigError, match=r"rejected\.csv: has changed since it was written: move it elsewhere"):
        _build(source, store_url, build_settings, overwrite=True)
    assert store.sizes().keys() == before.keys() and lease.LEASE not in store.sizes()


@pytest.mark.slow
def test_a_finished_dataset_is_compared_with_its_objects_and_its_source(
    store_url: str, make_survey: Callable[..., Path], build_settings: Callable[..., BuildSettings], tmp_path: Path
) -> None:
    source = make_survey(tmp_path / "survey", labelled=16, unlabelled=2)
    dataset = _build(source, store_url, build_settings)
    assert build_dataset(source, store_url, build_settings()).already_complete
    store, shard = Store(store_url), dataset.shards[0]
    content = store.read(shard.name)
    store.write(shard.name, content[:-1])
    with pytest.raises(DatasetError, match=rf"{shard.name}: has {shard.bytes - 1} bytes instead of {shard.bytes}"):
        _build(source, store_url, build_settings)
    store.remove([shard.name])
    with pytest.raises(DatasetError, match=rf"{shard.name}: is missing"):
        _build(source, store_url, build_settings)
    store.write(shard.name, content)
    image = next((source / "images_training_rev1").iterdir())
    image.write_bytes(image.read_bytes()[:-2] + b"\xff\xd9"[::-1])
    with pytest.raises(ConfigError, match="an image of the source has changed"):
        _build(source, store_url, build_settings)


def test_objects_of_others_are_never_touched(
    store_url: str, source: Path, build_settings: Callable[..., BuildSettings]
) -> None:
    store = Store(store_url)
    for name in ("notes.txt", "galaxy_zoo-train.tfrecord-00000-of-00005", ".preprocess/theirs.json", "below/manifest.json"):
        store.write(name, b"theirs")
        for overwrite in (False, True):
            with pytest.raises(ConfigError, match=re.escape(f"{store_url}: holds other objects ({name})")):
                _build(source, store_url, build_settings, overwrite=overwrite)
        assert _objects(store_url) == {name: b"theirs"}
        store.remove([name])


def test_a_store_without_conditions_a_reader_and_other_ways_to_build_are_refused(
    store_url: str,
    source: Path,
    build_settings: Callable[..., BuildSettings],
    endpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SettingError, match=r"^--dask .*: cannot write to"):
        build_dataset(source, store_url, build_settings(), dask="127.0.0.1:1")
    with pytest.raises(SettingError, match=r"^--part 1/2: cannot write to"):
        build_share(JobShare(1, 2), source, store_url, build_settings())
    assert Store(store_url).sizes() == {}
    for name, value in servers.environment(servers.READER, endpoint).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match="access was refused"):
        _build(source, store_url, build_settings)
    with servers.rclone(tmp_path) as other:
        for name, value in servers.environment(servers.WRITER, other).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ConfigError, match="this store ignores conditions"):
            _build(source, f"s3://{servers.BUCKET}/data", build_settings)
        assert Store(f"s3://{servers.BUCKET}/data").sizes() == {}


@pytest.mark.slow
def test_a_dataset_whose_images_lie_in_a_zip_within_a_zip(
    store_url: str, source: Path, build_settings: Callable[..., BuildSettings], tmp_path: Path
) -> None:
    """Such are copied to this machine, and the copies removed."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "images_training_rev1.zip", "w") as inner:
        for path in sorted((source / "images_training_rev1").iterdir()):
            inner.write(path, f"images_training_rev1/{path.name}")
    with zipfile.ZipFile(tmp_path / "kaggle.zip", "w", zipfile.ZIP_DEFLATED) as outer:
        outer.write(tmp_path / "images_training_rev1.zip", "images_training_rev1.zip")
        outer.write(source / "training_solutions_rev1.csv", "training_solutions_rev1.csv")
    stored = _build(tmp_path / "kaggle.zip", store_url, build_settings)
    assert open_anywhere(store_url, tmp_path / "cache").fingerprint == stored.fingerprint
    assert _build(tmp_path / "kaggle.zip", tmp_path / "local", build_settings).fingerprint == stored.fingerprint
    assert open_dataset(tmp_path / "local").fingerprint == stored.fingerprint
