"""A real object store on this machine, and a dataset in it."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage import servers
from tfrecords.dataset import Dataset


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a store with the bucket `servers.BUCKET`."""
    with servers.seaweed(tmp_path_factory.mktemp("seaweed")) as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in servers.environment(servers.OWNER, endpoint).items():
            patch.setenv(name, value)
        from tfrecords.objects import Store

        Store(f"s3://{servers.BUCKET}").write("first", b"creates the bucket")
        yield endpoint


@pytest.fixture
def store_url(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new, empty folder in the store; the environment holds what a writer needs."""
    for name, value in servers.environment(servers.WRITER, endpoint).items():
        monkeypatch.setenv(name, value)
    return f"s3://{servers.BUCKET}/{secrets.token_hex(4)}"


@pytest.fixture
def stored(store_url: str, small_dataset: Dataset) -> str:
    """The URL of `small_dataset` in the store."""
    servers.copy_into(small_dataset.folder, store_url)
    return store_url


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
