"""A run on several machines, as processes: strangers do not keep it from training, and a signal ends the wait at once."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.trainer import small
from tfrecords.dataset import Dataset
from trainer.run import open_run

pytestmark = pytest.mark.slow
# Compiled without optimisation, which would take most of the time; see test_hosts.py for the cache.
ENVIRONMENT = {
    "KERAS_BACKEND": "jax",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "XLA_FLAGS": "--xla_backend_optimization_level=1",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}


@dataclass(frozen=True)
class Started:
    """A process whose output goes to files."""

    process: "subprocess.Popen[bytes]"
    out: Path
    err: Path

    def wait(self) -> int:
        return self.process.wait(240)

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait for something to happen while the process runs."""
        while not happened():
            assert self.process.poll() is None, self.err.read_text()[-2000:]
            time.sleep(0.05)


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def _trainer(dataset: Dataset, folder: Path, port: int, index: int, name: str, **more: str) -> Iterator[Started]:
    """Process `index` of two of a run in folder/run."""
    flags = {
        "tfrecords": dataset.folder,
        "out": folder / "run",
        "backbone": small.SMALL,
        "weights": "none",
        "epochs": 1,
        "batch_size": 4,
        "limit": 12,
        "hosts": f"127.0.0.1:{port},127.0.0.1:{port + 1 if port < 65535 else 1}",
        "host_index": index,
    }
    command = [*small.PROGRAM, *(f"--{flag}={value}" for flag, value in flags.items())]
    out, err = folder / f"{name}.out", folder / f"{name}.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env={**os.environ, **ENVIRONMENT, **more})
    try:
        yield Started(process, out, err)
    finally:
        process.kill()
        process.wait()


def _accepts(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(20)
        return probe.connect_ex((host, port)) == 0


def _disturb(port: int) -> socket.socket:
    """Send garbage to a port, and leave a silent connection there."""
    for garbage in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(1 << 16), b"galaxy-zoo/1"):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(garbage)
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def test_strangers_and_impostors_do_not_keep_a_run_from_training(plain_dataset: Dataset, tmp_path: Path) -> None:
    port, ours, theirs = _port(), {"GALAXY_ZOO_HOSTS_SECRET": "o" * 16}, {"GALAXY_ZOO_HOSTS_SECRET": "t" * 16}
    with _trainer(plain_dataset, tmp_path, port, 0, "first", **ours, STEP_SECONDS="0.3") as first:
        first.until(lambda: _accepts("127.0.0.1", port))
        assert not _accepts("127.0.0.2", port)
        with _disturb(port), _trainer(plain_dataset, tmp_path, port, 1, "impostor", **theirs) as impostor:
            assert impostor.wait() == 1
            [_, line] = impostor.err.read_text().splitlines()
            assert line.startswith(f"error: 127.0.0.1:{port}: refused, because the secret of this process is not the one there")
            with _trainer(plain_dataset, tmp_path, port, 1, "second", **ours) as second:
                first.until(lambda: "data parallel over 2 devices" in first.out.read_text())
                assert _accepts("127.0.0.1", port) and not _accepts("127.0.0.2", port)  # JAX too
                _disturb(port).close()
                assert (first.wait(), second.wait()) == (0, 0), first.err.read_text()[-2000:]
    said = first.err.read_text()
    assert "it is not a process of this program" in said and "its secret is not that of this run" in said
    assert "Traceback" not in said
    assert [row.epoch for row in open_run(tmp_path / "run").history()] == [1]
    assert not [path for path in (tmp_path / "run").rglob("*.partial")]


@pytest.mark.parametrize(
    ("index", "number", "status"), [(0, signal.SIGTERM, 143), (0, signal.SIGINT, 130), (1, signal.SIGTERM, 143)]
)
def test_a_signal_ends_a_process_that_waits_for_the_others(
    plain_dataset: Dataset, tmp_path: Path, index: int, number: signal.Signals, status: int
) -> None:
    with _trainer(plain_dataset, tmp_path, _port(), index, "waiting") as waiting:
        if index == 0:
            waiting.until(lambda: bool([*tmp_path.rglob(".meeting.partial")]))
        else:
            waiting.until(lambda: "connecting to the other processes" in waiting.err.read_text())
        time.sleep(1)
        waiting.process.send_signal(number)
        assert waiting.process.wait(60) == status  # not after the 300 s for which it would wait
        said = waiting.err.read_text()
        assert said.splitlines()[-1].startswith("interrupted by ") and "Traceback" not in said
    assert not (tmp_path / "run").exists()
