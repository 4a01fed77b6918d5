"""Servers of objects on this machine: SeaweedFS, which heeds conditions, and rclone, which ignores them."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

BUCKET = "galaxies"
READER, WRITER, OWNER = "reader", "writer", "owner"
_SECONDS = 60


def environment(user: str, endpoint: str) -> dict[str, str]:
    """The environment in which a user of a server works."""
    return {
        "AWS_ACCESS_KEY_ID": user,
        "AWS_SECRET_ACCESS_KEY": secret(user),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
    }


def secret(user: str) -> str:
    return f"hidden-{user}-0123456789"


def program(name: str) -> str:
    """A program of the test extra; without it, its tests are skipped."""
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.is_file():
        pytest.skip(f"{path} is missing: install the test extra")
    return str(path)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def running(command: list[str], endpoint: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server while the block runs, from its first answer on."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)})
    try:
        ends = time.monotonic() + _SECONDS
        while not _answers(endpoint):
            assert process.poll() is None and time.monotonic() < ends, (folder / "log").read_text("utf-8", "replace")[-3000:]
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[str]:
    """The endpoint of a SeaweedFS server; its owner may create buckets, its writer write, its reader only read."""
    rights = {READER: ["Read", "List"], WRITER: ["Read", "List", "Write"], OWNER: ["Admin", "Read", "List", "Write"]}
    identities = [
        {"name": user, "credentials": [{"accessKey": user, "secretKey": secret(user)}], "actions": actions}
        for user, actions in rights.items()
    ]
    (folder / "users.json").write_text(json.dumps({"identities": identities}))
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    ports = dict(zip((*names, "s3.port", "s3.port.grpc"), free_ports(8), strict=True))
    (folder / "objects").mkdir()
    flags = [
        *("-dir=objects", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-master.electionTimeout=1s"),
        *("-volume.max=20", "-master.volumeSizeLimitMB=64", "-filer", "-filer.localSocket=", "-s3", "-s3.config=users.json"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.localSocket={folder}/socket"),
    ]
    command = [program("weed"), "-logtostderr", "server", *flags, *(f"-{name}={port}" for name, port in ports.items())]
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    with running(command, endpoint, folder):
        yield endpoint


@contextlib.contextmanager
def rclone(folder: Path) -> Iterator[str]:
    """The endpoint of an rclone server with the bucket `BUCKET`, which ignores the conditions of requests."""
    [port] = free_ports(1)
    (folder / "objects" / BUCKET).mkdir(parents=True)
    keys = f"{WRITER},{secret(WRITER)}"
    command = [program("rclone"), "serve", "s3", "--auth-key", keys, "--addr", f"127.0.0.1:{port}", "objects"]
    with running(command, f"http://127.0.0.1:{port}", folder):
        yield f"http://127.0.0.1:{port}"


def copy_into(folder: Path, url: str) -> None:
    """Put the files of a folder into a store."""
    from tfrecords.objects import Store

    store = Store(url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.write(str(path.relative_to(folder)), path.read_bytes())


def download(url: str, folder: Path) -> None:
    """Copy the objects of a store into a folder."""
    from tfrecords.objects import Store

    store = Store(url)
    shutil.rmtree(folder, ignore_errors=True)
    for name in store.sizes():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(store.read(name))
