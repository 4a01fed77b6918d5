"""Several processes train as one, and none of them waits for ever for a lost one."""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks.terminal import terminal
from tests.trainer import small
from tfrecords.dataset import Dataset
from tfrecords.errors import RunError, SettingError
from trainer.backends.hosts import GONE, _from_cluster, addresses, join
from trainer.run import OWN, Run, open_run

Main = Callable[..., tuple[int, str, str]]
CHILDREN = Path(__file__).parents[1] / "children.py"
TINY = {
    "backbone": small.SMALL,
    "epochs": 2,
    "batch_size": 4,
    "limit": 12,
    "learning_rate": 1e-4,
    "warmup_steps": 4,
    "weights": "none",
    "seed": 3,
}
# Compile without optimisation, which would take most of the time of these tests.
ON_JAX = {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "2", "XLA_FLAGS": "--xla_backend_optimization_level=1"}
# On CPUs, a program for several processes aborts if it comes from the compilation cache.
PAIRED = {**ON_JAX, "JAX_ENABLE_COMPILATION_CACHE": "false"}


@pytest.mark.parametrize(
    ("hosts", "index", "message"),
    [
        ("node1", 0, "--hosts: 'node1' is not HOST:PORT: give one address per process, like node1:9000,node2:9000"),
        ("node1:9000,", 0, "--hosts: '' is not HOST:PORT: give one address per process, like node1:9000,node2:9000"),
        (":9000,b:9000", 0, "--hosts: ':9000' is not HOST:PORT: give one address per process, like node1:9000,node2:9000"),
        ("a:b,b:9000", 0, "--hosts: 'a:b' is not HOST:PORT: give one address per process, like node1:9000,node2:9000"),
        ("a:0,b:9000", 0, "--hosts: 'a:0' is not HOST:PORT: give one address per process, like node1:9000,node2:9000"),
        ("a:65536,b:1", 0, "--hosts: 'a:65536' is not HOST:PORT: give one address per process, like node1:9000,node2:9000"),
        ("a:-1,b:1", 0, "--hosts: 'a:-1' is not HOST:PORT: give one address per process, like node1:9000,node2:9000"),
        ("a:1, a:1", 0, "--hosts a:1, a:1: an address is listed twice: give every process its own"),
        ("a:1", 0, "--hosts a:1: only one address: omit the flag, or give two or more"),
        ("a:1,b:1", None, "--hosts a:1,b:1: --host_index is missing: give the place of this machine in --hosts, 0 to 1"),
        ("a:1,b:1", 2, "--host_index 2: --hosts has 2 addresses: give 0 to 1"),
        ("a:1,b:1", -1, "--host_index -1: --hosts has 2 addresses: give 0 to 1"),
    ],
)
def test_addresses_that_cannot_be_are_an_error_that_says_what_to_give(hosts: str, index: int | None, message: str) -> None:
    with pytest.raises(SettingError, match=f"^{re.escape(message)}$"):
        addresses(hosts, index)


def test_addresses_are_one_per_process() -> None:
    assert addresses("node1:9000, node2:9000,[::1]:65535", 2) == ["node1:9000", "node2:9000", "[::1]:65535"]


def test_a_place_among_no_hosts_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"--host_index 1: --hosts is missing"):
        join("", 1, Path("run"))


def test_a_secret_among_no_hosts_is_an_error() -> None:
    with pytest.raises(SettingError, match="--hosts_secret secret: --hosts is missing"):
        join("", None, Path("run"), Path("secret"))


def test_auto_without_a_cluster_is_an_error_that_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "KUBERNETES_SERVICE_HOST", "JAX_COORDINATOR_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RunError, match=r"^--hosts auto: no cluster found \(.+\): give the addresses, --hosts A:PORT,B:PORT$"):
        _from_cluster()


def test_hosts_on_tensorflow_are_one_line_that_says_jax_and_how(plain_dataset: Dataset, tmp_path: Path, run_main: Main) -> None:
    flags = f"--tfrecords={plain_dataset.folder}", f"--out={tmp_path / 'run'}", "--hosts=a:9000,b:9000", "--host_index=0"
    code, out, err = run_main(*flags)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and err.startswith("error: --hosts: ")
    assert "JAX" in err and "pip install 'galaxy-zoo-vgg16[jax-gpu]'" in err and "KERAS_BACKEND=jax" in err
    assert not (tmp_path / "run").exists()


def _two_addresses() -> str:
    """Two addresses of this machine, with ports that are free now."""
    with socket.create_server(("localhost", 0)) as one, socket.create_server(("localhost", 0)) as two:
        return ",".join(f"localhost:{server.getsockname()[1]}" for server in (one, two))


@dataclass(frozen=True)
class Ended:
    """The exit status, stdout and stderr of a process."""

    status: int
    said: str
    complained: str


def _pair(
    commands: list[list[str]], signalled: int = 0, number: signal.Signals | None = None, shown: bytes = rb" [12]/3 "
) -> list[Ended]:
    """Run two processes at once; one gets a signal when the first process has shown step 1 or 2 of an epoch, or `shown`."""
    environment = {**os.environ, **PAIRED}
    if number is not None:
        environment["STEP_SECONDS"] = "0.3"
    said, complained = ([b"", b""], [b"", b""])
    sent = threading.Event()

    def listen(place: int, read: Callable[[], bytes], heard: list[bytes]) -> None:
        while got := read():
            heard[place] += got
            if number is not None and not sent.is_set() and re.search(shown, complained[0]):
                sent.set()
                pair[signalled].send_signal(number)

    with contextlib.ExitStack() as opened:
        screens = [opened.enter_context(terminal()) for _ in commands]  # in which progress bars are drawn
        pair = [
            opened.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=screen.theirs, env=environment))
            for command, screen in zip(commands, screens, strict=True)
        ]
        listeners = []
        for place, (process, screen) in enumerate(zip(pair, screens, strict=True)):
            screen.started()
            assert process.stdout is not None
            for read, heard in ((functools.partial(os.read, process.stdout.fileno(), 4096), said), (screen.read, complained)):
                listeners.append(threading.Thread(target=listen, args=(place, read, heard)))
        try:
            for listener in listeners:
                listener.start()
            statuses = [process.wait(timeout=240) for process in pair]
        finally:
            for process in pair:
                process.kill()
            for listener in listeners:
                listener.join()
    assert number is None or sent.is_set(), complained
    return [
        Ended(status, out.decode(), err.decode().replace("\r\n", "\n"))
        for status, out, err in zip(statuses, said, complained, strict=True)
    ]


def _trainers(dataset: Dataset, out: Path, seeds: tuple[int, int] = (3, 3)) -> list[list[str]]:
    hosts = _two_addresses()
    base = [*small.PROGRAM, f"--tfrecords={dataset.folder}", f"--out={out}"]
    flags = [f"--{name}={value}" for name, value in TINY.items()]
    return [[*base, *flags, f"--seed={seed}", f"--hosts={hosts}", f"--host_index={index}"] for index, seed in enumerate(seeds)]


@dataclass(frozen=True)
class Together:
    """A run of two processes that was resumed after one was terminated, and a run of one process with the same batches."""

    run: Run
    alone: Run
    terminated: list[Ended]
    checkpoints: list[str]
    ended: list[Ended]


@pytest.fixture(scope="module")
def together(plain_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    folder = tmp_path_factory.mktemp("together")
    terminated = _pair(_trainers(plain_dataset, folder / "run"), 1, signal.SIGTERM)
    checkpoints = sorted(path.name for path in (folder / "run" / "checkpoint").glob("*"))
    ended = _pair(_trainers(plain_dataset, folder / "run"))
    assert [process.status for process in ended] == [0, 0], ended[0].complained[-2000:] + ended[1].complained[-2000:]
    alone = [*small.PROGRAM, f"--tfrecords={plain_dataset.folder}", f"--out={folder / 'alone'}"]
    flags = [f"--{name}={value}" for name, value in TINY.items()]
    subprocess.run([*alone, *flags], env={**os.environ, **ON_JAX}, capture_output=True, check=True)
    yield Together(open_run(folder / "run"), open_run(folder / "alone"), terminated, checkpoints, ended)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_sigterm_to_one_ends_both_with_a_checkpoint(together: Together) -> None:
    assert [process.status for process in together.terminated] == [143, 143]
    name = together.checkpoints[-1]
    assert re.fullmatch(r"epoch-0000(0-step-000000[1-3]|1-step-000000[1-3])", name)
    assert all("Traceback" not in process.complained for process in together.terminated)


@pytest.mark.slow
def test_both_go_on_to_the_end_and_only_the_first_speaks(together: Together) -> None:
    first, second = together.ended
    assert f"{together.run.folder}: resuming after epoch " in first.said
    assert "data parallel over 2 devices of 2 processes, 2 images each per step" in first.said
    assert "RMSE on test" in first.said
    assert second.said == ""
    assert re.fullmatch(r"connecting to the other processes at localhost:\d+\n", second.complained)


@pytest.mark.slow
def test_two_processes_learn_what_one_with_the_same_batch_learns(together: Together) -> None:
    rows, others = together.run.history(), together.alone.history()
    assert [row.epoch for row in rows] == [1, 2]
    for row, other in zip(rows, others, strict=True):
        np.testing.assert_allclose([row.mse, row.val_mse], [other.mse, other.val_mse], rtol=5e-3)
        assert row.learning_rate == other.learning_rate
    for mine, other in zip(together.run.checkpoint_arrays(), together.alone.checkpoint_arrays(), strict=True):
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
    for mine, other in zip(*(run.load_model().get_weights() for run in (together.run, together.alone)), strict=True):
        # Adam moves a weight by about its rate even if the gradient is as small as a rounding error: few weights differ so.
        assert np.abs(mine - other).mean() <= 1e-3 * np.abs(other).mean() + 1e-5
    metrics = [json.loads(run.path(OWN.metrics).read_text("utf-8")) for run in (together.run, together.alone)]
    assert metrics[0]["rmse"] == pytest.approx(metrics[1]["rmse"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_whose_partner_was_killed_ends_with_one_line(plain_dataset: Dataset, tmp_path: Path, killed: int) -> None:
    ended = _pair(_trainers(plain_dataset, tmp_path / "run"), killed, signal.SIGKILL)
    assert ended[killed].status == -signal.SIGKILL
    left = ended[1 - killed]
    # The first process also runs JAX' coordinator: if JAX notices its end before we do, it aborts the second.
    assert left.status == 1 or (killed == 0 and left.status == -signal.SIGABRT)
    assert f"error: {GONE}" in left.complained.splitlines() or left.status != 1
    assert "Traceback" not in left.complained
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


def _on_slurm(folder: Path, gpus: int, nodes: int) -> list[list[str]]:
    """Two tasks as Slurm starts them on one or two nodes, each with two CPU devices; nvidia-smi lists `gpus` GPUs."""
    lines = "".join(f"echo GPU-{number}{number}{number}{number}aaaa-rest\n" for number in range(gpus))
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{lines}")
    (folder / "nvidia-smi").chmod(0o755)
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    shared = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "XLA_FLAGS": f"{ON_JAX['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
        "JAX_COORDINATOR_PORT": port,
        "SLURM_JOB_ID": 7,
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": 2,
        "OUT": folder / "run",
    }
    tasks = (
        {**shared, "SLURM_PROCID": number, "SLURM_LOCALID": number // nodes, "MACHINE": f"node{number % nodes}"}
        for number in range(2)
    )
    child = [sys.executable, str(CHILDREN), "devices"]
    return [["env", *(f"{name}={value}" for name, value in task.items()), *child] for task in tasks]


def _without_gloo(ended: Ended) -> list[str]:
    """The lines of stdout but those of JAX' library Gloo, which may come in the middle of another."""
    notes = r"\[Gloo\] Rank \d is connected to \d peer ranks\. Expected number of connected peer ranks is : \d"
    return [line for line in re.sub(notes, "", ended.said).splitlines() if line]


@pytest.mark.slow
@pytest.mark.parametrize(("gpus", "parts"), [(5, ["0,1", "2,3"]), (0, ["0", "1"])])
def test_tasks_of_one_node_divide_its_gpus_and_name_what_is_left(tmp_path: Path, gpus: int, parts: list[str]) -> None:
    """Without nvidia-smi they use one each, as JAX does."""
    first, second = _pair(_on_slurm(tmp_path, gpus, nodes=1))
    assert (first.status, second.status) == (0, 0), first.complained[-2000:] + second.complained[-2000:]
    lines = [f"4 devices, GPUs {part}, 2 processes here" for part in parts]
    assert _without_gloo(second) == lines[1:]
    *left, last = _without_gloo(first)
    assert last == lines[0]
    if gpus:
        assert len(left) == 1 and left[0].startswith(f"not used by this run: GPU-4444aaaa of {socket.gethostname()}: ")
    else:
        assert left == []


@pytest.mark.slow
def test_one_task_on_each_node_uses_all_its_gpus(tmp_path: Path) -> None:
    """JAX alone would use GPU 0 of each."""
    for ended in _pair(_on_slurm(tmp_path, 4, nodes=2)):
        assert ended.status == 0, ended.complained[-2000:]
        assert _without_gloo(ended) == ["4 devices, GPUs all, 1 processes here"]


@pytest.mark.slow
def test_kill_9_within_an_epoch_of_two_processes_loses_only_the_steps_since_the_checkpoint(
    together: Together, plain_dataset: Dataset, tmp_path: Path
) -> None:
    """Only the first process saves; the other waits in its next step."""
    often = [[*command, "--checkpoint_minutes=0.001"] for command in _trainers(plain_dataset, tmp_path / "run")]
    killed = _pair(often, 0, signal.SIGKILL, shown=rb" 2/3 ")
    assert killed[0].status == -signal.SIGKILL and killed[1].status in (1, -signal.SIGABRT)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoint").glob("*"))
    assert re.fullmatch(r"epoch-0000[01]-step-000000[1-3]", names[-1])
    resumed = _pair(_trainers(plain_dataset, tmp_path / "run"))
    assert [process.status for process in resumed] == [0, 0], resumed[0].complained[-2000:]
    assert re.search(r"resuming after epoch [01] of 2 and [1-3] of 3 steps", resumed[0].said)
    run = open_run(tmp_path / "run")
    for mine, other in zip(run.checkpoint_arrays(), together.run.checkpoint_arrays(), strict=True):
        assert mine.tobytes() == other.tobytes()
    shutil.rmtree(run.folder)


@pytest.mark.slow
def test_processes_with_other_settings_end_with_one_line_each(plain_dataset: Dataset, tmp_path: Path) -> None:
    for ended in _pair(_trainers(plain_dataset, tmp_path / "run", seeds=(3, 4))):
        assert ended.status == 1
        assert "error: the processes of this run differ in their settings" in ended.complained
        assert "(seed: 3, 4)" in ended.complained
        assert "Traceback" not in ended.complained
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_each_process_trains_on_its_own_galaxies_and_both_end_with_the_same_state(
    plain_dataset: Dataset, tmp_path: Path
) -> None:
    hosts = _two_addresses()
    child = [sys.executable, str(CHILDREN), "host", str(plain_dataset.folder), str(tmp_path), hosts]
    for ended in _pair([[*child, "0"], [*child, "1"]]):
        assert ended.status == 0, ended.complained[-2000:]
    with np.load(tmp_path / "0.npz") as first, np.load(tmp_path / "1.npz") as second:
        assert sorted(first.files) == sorted(second.files)
        for name in first.files:
            if name != "own":
                assert first[name].dtype == second[name].dtype
                assert first[name].tobytes() == second[name].tobytes(), name
        assert len(set(first["ids"].tolist())) == len(first["ids"]) == plain_dataset.galaxies("test")
        assert len(first["votes"]) == len(first["ids"])
        own, others = ({row.tobytes() for row in arrays["own"]} for arrays in (first, second))
        assert len(own) == len(others) == 24
        assert not own & others
