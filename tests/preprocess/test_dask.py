"""A Dask cluster writes the same bytes as this machine, and its faults are reported in one line."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from preprocess.engines import run_dask
from preprocess.job import BadImages, BuildSettings, build_dataset
from tfrecords import __version__
from tfrecords.errors import ConfigError, GalaxyZooError, SourceError

distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")
Contents = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two worker processes on this machine."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


def _twice(task: int, on_image: Callable[[], None]) -> int:
    for _ in range(task):
        on_image()
    if task == 13:
        raise SourceError("galaxy 13 is unlucky")
    return 2 * task


def _nothing() -> None:
    return None


def _process() -> int:
    import os

    return os.getpid()


def test_a_cluster_writes_the_same_bytes(
    cluster: str, survey: Path, build_settings: Callable[..., BuildSettings], contents: Contents, tmp_path: Path
) -> None:
    settings = build_settings(examples_per_shard=3, encoding="jpeg")
    here = build_dataset(survey, tmp_path / "here", settings, workers=2).dataset.folder
    there = build_dataset(survey, tmp_path / "there", settings, dask=cluster).dataset.folder
    assert contents(there) == contents(here)


def test_a_cluster_reads_the_images_that_a_catalogue_holds(
    cluster: str, survey: Path, build_settings: Callable[..., BuildSettings], contents: Contents, tmp_path: Path
) -> None:
    rows = [{"id": path.stem, "image": path.read_bytes()} for path in sorted(survey.rglob("*.jpg"))]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "images.parquet")
    settings = build_settings(examples_per_shard=3)
    here = build_dataset(tmp_path / "images.parquet", tmp_path / "here", settings, workers=2).dataset.folder
    there = build_dataset(tmp_path / "images.parquet", tmp_path / "there", settings, dask=cluster).dataset.folder
    assert contents(there) == contents(here) and len(contents(here)) > 10


def test_results_and_progress_come_back_and_tasks_are_made_as_they_are_needed(cluster: str) -> None:
    made: list[int] = []

    def tasks() -> Iterator[int]:
        for task in range(12):
            made.append(task)
            yield task

    images: list[int] = []
    results = run_dask(_twice, tasks(), cluster, _nothing, images.append)
    first = next(results)
    assert len(made) <= 4
    assert sorted([first, *results]) == [2 * task for task in range(12)]
    assert sum(images) == sum(range(12))


def test_an_error_of_a_worker_comes_back_as_it_is(cluster: str) -> None:
    with pytest.raises(SourceError, match="galaxy 13 is unlucky"):
        list(run_dask(_twice, [13], cluster, _nothing, lambda images: None))


def test_a_bad_image_is_refused_as_on_this_machine(
    cluster: str, survey: Path, build_settings: Callable[..., BuildSettings], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    (source / "a" / "7.jpg").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"a/7\.jpg: is a text, not an image"):
        build_dataset(source, tmp_path / "out", build_settings(), dask=cluster, bad=BadImages(skip=False))


def test_workers_that_see_something_else_are_refused(cluster: str) -> None:
    with pytest.raises(ConfigError, match=r"Dask worker tcp://\S+ has \d+, but this process has \d+: make both the same"):
        list(run_dask(_twice, [1], cluster, _process, lambda images: None))


def test_a_job_whose_workers_are_refused_leaves_nothing_behind_and_costs_no_dataset(
    cluster: str,
    survey: Path,
    build_settings: Callable[..., BuildSettings],
    contents: Contents,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("preprocess.job._seen_by_a_worker", lambda work: _process())
    with pytest.raises(ConfigError, match="make both the same"):
        build_dataset(survey, tmp_path / "new" / "out", build_settings(), dask=cluster)
    assert not (tmp_path / "new").exists()
    build_dataset(survey, tmp_path / "out", build_settings(), workers=1)
    before = contents(tmp_path / "out")
    with pytest.raises(ConfigError, match="make both the same"):
        build_dataset(survey, tmp_path / "out", build_settings(size=48), overwrite=True, dask=cluster)
    assert contents(tmp_path / "out") == before


@pytest.mark.slow
def test_a_scheduler_that_dies_ends_the_job_with_one_line(make_survey: Callable[..., Path], tmp_path: Path) -> None:
    """Without the tracebacks that Dask logs while it tries to connect again."""
    source, out = make_survey(tmp_path / "kaggle", labelled=400, unlabelled=0), tmp_path / "out"
    with socket.create_server(("localhost", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    dask = [sys.executable, "-m", "dask"]
    quiet: dict[str, Any] = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen([*dask, "scheduler", "--port", address.rpartition(":")[2], "--no-dashboard"], **quiet)
    worker = subprocess.Popen([*dask, "worker", address, "--nthreads=1", "--no-nanny", "--no-dashboard"], **quiet)
    try:
        with distributed.Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
        flags = ["--src", source, "--out", out, "--dask", address, "--examples_per_shard", "1", "--size", "900"]
        command = [sys.executable, "-m", "preprocess", *map(str, flags)]
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while job.poll() is None and len(list(out.glob(".preprocess/receipts/*.json"))) < 2:
            time.sleep(0.05)
        scheduler.kill()
        _, complaint = job.communicate(timeout=120)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    assert job.returncode == 1
    assert "Traceback" not in complaint
    [line] = [line for line in complaint.splitlines() if "shards" not in line]
    assert line.startswith(f"error: the Dask cluster at {address} lost its workers or its scheduler")


@pytest.mark.slow
def test_a_worker_of_another_version_that_joins_late_ends_the_job_before_it_writes_a_shard(
    make_survey: Callable[..., Path], build_settings: Callable[..., BuildSettings], tmp_path: Path
) -> None:
    """A worker that joins after the first check of all workers is checked with its first shard."""
    root = Path(__file__).parents[2]
    for name in ("preprocess", "tfrecords"):
        shutil.copytree(root / name, tmp_path / "other" / name)
    version = tmp_path / "other" / "tfrecords" / "__init__.py"
    version.write_text(version.read_text().replace(f'"{__version__}"', '"9.9.9"'))
    source = make_survey(tmp_path / "kaggle", labelled=400, unlabelled=0)
    settings, out = build_settings(examples_per_shard=1, size=900), tmp_path / "out"
    late: list[subprocess.Popen[bytes]] = []

    def join(address: str) -> None:
        while not list(out.glob(".preprocess/receipts/*.json")):
            time.sleep(0.01)
        command = [sys.executable, "-m", "dask", "worker", address, "--nthreads=1", "--no-nanny", "--no-dashboard"]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "other")}
        late.append(
            subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )

    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        joining = threading.Thread(target=join, args=(cluster.scheduler_address,))
        joining.start()
        try:
            with pytest.raises(ConfigError) as caught:
                build_dataset(source, out, settings, dask=cluster.scheduler_address)
        finally:
            joining.join()
            late[0].kill()
            late[0].wait()
    message = str(caught.value)
    assert message.startswith("Dask worker tcp://") and "'galaxy-zoo-vgg16': '9.9.9'" in message
    assert message.endswith(": make both the same")
    receipts = [json.loads(path.read_text()) for path in out.glob(".preprocess/receipts/*.json")]
    assert receipts and {receipt["tool"]["galaxy-zoo-vgg16"] for receipt in receipts} == {__version__}


@pytest.mark.slow
def test_an_adaptive_cluster_starts_its_workers_for_the_job_and_writes_the_same_bytes(
    make_survey: Callable[..., Path],
    build_settings: Callable[..., BuildSettings],
    contents: Contents,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = make_survey(tmp_path / "kaggle", labelled=60, unlabelled=6)
    settings = build_settings(examples_per_shard=2, size=300, encoding="png")
    here = build_dataset(source, tmp_path / "here", settings, workers=2).dataset.folder
    with distributed.LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=":0") as cluster:
        cluster.adapt(minimum=0, maximum=2, interval="100ms", target_duration="10ms")
        there = build_dataset(source, tmp_path / "there", settings, dask=cluster.scheduler_address).dataset.folder
    assert contents(there) == contents(here) and len(contents(here)) > 30
    [line] = {record.getMessage() for record in caplog.records if "workers yet" in record.getMessage()}
    assert line.startswith(f"the Dask scheduler at {cluster.scheduler_address} has no workers yet: waiting")


@pytest.mark.slow
def test_workers_may_come_and_go() -> None:
    results: list[tuple[int, int]] = []
    alone_again: list[int] = []

    def tasks() -> Iterator[int]:
        for task in range(5000):
            if alone_again and len(results) > alone_again[0] + 10:
                return
            yield task

    def work(task: int, on_image: Callable[[], None]) -> tuple[int, int]:
        time.sleep(0.02)
        return task, os.getpid()

    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        for result in run_dask(work, tasks(), cluster.scheduler_address, _nothing, lambda images: None):
            results.append(result)
            both = len({process for _, process in results}) == 2
            if len(results) == 5:
                cluster.scale(2)
            elif both and len(cluster.plan) == 2:
                cluster.scale(1)
            elif both and len(cluster.scheduler.workers) == 1 and not alone_again:
                alone_again.append(len(results))
    assert sorted(task for task, _ in results) == [*range(len(results))]
    assert alone_again and len({process for _, process in results[-8:]}) == 1


def test_a_cluster_that_gets_no_workers_is_refused_and_leaves_nothing_behind(
    survey: Path, build_settings: Callable[..., BuildSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preprocess.engines._WORKERS_SECONDS", 0.5)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        address = empty.scheduler_address
        with pytest.raises(ConfigError) as caught:
            build_dataset(survey, tmp_path / "new" / "out", build_settings(), dask=address)
    assert str(caught.value) == (
        f"the Dask scheduler at {address} has no workers: start some with `dask worker {address}`, "
        "and run the same command again"
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_worker_that_joins_late_and_sees_other_files_ends_the_job_before_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functions within the test are sent by value, so the late worker needs nothing of ours."""
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "here" / "seen").touch()
    monkeypatch.chdir(tmp_path / "here")
    late: list[subprocess.Popen[bytes]] = []

    def probe() -> bool:
        return Path("seen").exists()

    def work(task: int, on_image: Callable[[], None]) -> bool:
        time.sleep(0.05)
        return Path("seen").exists()

    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        address = cluster.scheduler_address
        command = [sys.executable, "-m", "dask", "worker", address, "--nthreads=1", "--no-nanny", "--no-dashboard"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            with pytest.raises(ConfigError, match=r"Dask worker tcp://\S+ has False, but this process has True: make both"):
                for right in run_dask(work, range(2000), address, probe, lambda images: None):
                    assert right
                    if not late:
                        late.append(subprocess.Popen(command, cwd=tmp_path / "elsewhere", **quiet))
        finally:
            late[0].kill()
            late[0].wait()


@pytest.mark.slow
def test_a_cluster_that_loses_all_its_workers_ends_the_job_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.engines._WORKERS_SECONDS", 1)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        results = run_dask(_twice, [1] * 100, cluster.scheduler_address, _nothing, lambda images: None)
        assert next(results) == 2
        cluster.scale(0)
        with pytest.raises(GalaxyZooError, match="lost its workers or its scheduler: check their logs"):
            for _ in results:
                time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_a_missing_scheduler_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.engines._DASK_SECONDS", 2)
    with pytest.raises(ConfigError, match=f"no Dask scheduler at {address}: start one with `dask scheduler`"):
        list(run_dask(_twice, [1], address, _nothing, lambda images: None))


def _die(task: int, on_image: Callable[[], None]) -> int:
    import os

    os._exit(1)


@pytest.mark.slow
def test_workers_that_die_end_the_job_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask gives a task up after some deaths, or the worker, if the machine is busy: then none is left."""
    monkeypatch.setattr("preprocess.engines._WORKERS_SECONDS", 10)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        pytest.raises(GalaxyZooError, match="lost its workers or its scheduler: check their logs"),
    ):
        list(run_dask(_die, [1], cluster.scheduler_address, _nothing, lambda images: None))
