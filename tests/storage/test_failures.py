"""Every failure of a store is one line that names the place and the next step, and holds no secret."""

import http.server
import json
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.storage import servers
from tfrecords import objects
from tfrecords.dataset import Dataset
from tfrecords.errors import ConfigError, DatasetError, GalaxyZooError, one_line
from tfrecords.files import local_or_store, local_path
from tfrecords.integrity import check_shards
from tfrecords.objects import ConditionError, Store, StoreError
from tfrecords.storage import open_anywhere

_ALL = [f"{prefix}{name.upper()}" for prefix in objects._PREFIXES.values() for name in objects._CONNECTION]
_ALL += ["AWS_ENDPOINT_URL", "AWS_REGION", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ENDPOINT"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between attempts worth waiting for, and an environment without anything about stores."""
    monkeypatch.setattr(objects, "RETRIES", 1)
    monkeypatch.setattr(objects, "_ROLE_RETRIES", 0)
    for name in {*_ALL, *(name for names in objects._CREDENTIALS.values() for name in names)}:
        monkeypatch.delenv(name, raising=False)


def _line(call: Callable[[], object]) -> str:
    with pytest.raises(GalaxyZooError) as raised:
        call()
    line = one_line(raised.value)
    assert "\n" not in line and len(line) < 400
    for user in (servers.READER, servers.WRITER, servers.OWNER):
        assert servers.secret(user) not in line
    assert raised.value.__cause__ is None or isinstance(raised.value.__cause__, GalaxyZooError)
    return line


def _as(monkeypatch: pytest.MonkeyPatch, user: str, endpoint: str, **changes: str) -> None:
    for name, value in {**servers.environment(user, endpoint), **changes}.items():
        monkeypatch.setenv(name, value)


def test_a_missing_bucket_and_a_missing_dataset_differ(
    endpoint: str, quick: None, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    _as(monkeypatch, servers.READER, endpoint)
    line = _line(lambda: open_anywhere("s3://no-such-bucket/data", cache))
    assert line == "s3://no-such-bucket: there is no such bucket: check the spelling, or create it first"
    line = _line(lambda: open_anywhere(f"s3://{servers.BUCKET}/nothing", cache))
    assert line.startswith(f"s3://{servers.BUCKET}/nothing: not a finished dataset (manifest.json is missing): check the URL")
    assert not cache.exists()


def test_a_wrong_key_and_a_missing_right_are_refusals(endpoint: str, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"s3://{servers.BUCKET}/data"
    _as(monkeypatch, servers.READER, endpoint, AWS_SECRET_ACCESS_KEY="hidden-wrong")
    line = _line(lambda: Store(url).read("manifest.json"))
    assert line.startswith(f"{url}/manifest.json: access was refused (SignatureDoesNotMatch): check the credentials")
    assert "access was refused" in _line(lambda: Store(url).sizes())
    _as(monkeypatch, servers.READER, endpoint)
    assert "access was refused (AccessDenied)" in _line(lambda: Store(url).write("x", b""))


def test_no_credentials_are_named_with_the_way_to_give_them(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with _server(lambda path: (403, {}, b"")) as (role, _):
        monkeypatch.setattr(objects, "_ROLES", (role,))
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", role)
        line = _line(lambda: Store("s3://bucket/data"))
    assert line == (
        "s3://bucket/data: no credentials in the environment, and this machine has no role: set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY"
    )
    assert "AZURE_STORAGE_ACCOUNT_NAME" in _line(lambda: Store("az://container/data"))


def test_a_store_that_does_not_answer(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    [port] = servers.free_ports(1)
    _as(monkeypatch, servers.READER, f"http://127.0.0.1:{port}")
    line = _line(lambda: Store("s3://bucket/data").read("x"))
    assert line == (
        "s3://bucket/data/x: the store failed (error sending request), at most 2 attempts in 180 s: check the network and the "
        "endpoint, and run the same command again"
    )


def test_a_bucket_of_another_region(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with _server(lambda path: (301, {"x-amz-bucket-region": "eu-west-1"}, b"")) as (endpoint, _):
        _as(monkeypatch, servers.READER, endpoint)
        assert _line(lambda: Store("s3://bucket/data").read("x")) == ("s3://bucket: is in another region: set AWS_REGION to it")


@pytest.mark.parametrize("failure", ["closed", "500"])
def test_a_server_that_goes_away_in_the_middle_leaves_nothing_half_written(
    quick: None, monkeypatch: pytest.MonkeyPatch, cache: Path, small_dataset: Dataset, failure: str
) -> None:
    fails = threading.Event()

    def serve(path: str) -> tuple[int, dict[str, str], bytes]:
        content = (small_dataset.folder / path.rpartition("/")[2]).read_bytes()
        headers = {"Content-Length": str(len(content)), "ETag": '"x"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if not fails.is_set():
            return 200, headers, content
        return (500, {}, b"") if failure == "500" else (200, headers, content[:1000])

    with _server(serve) as (endpoint, requests):
        _as(monkeypatch, servers.READER, endpoint)
        dataset = open_anywhere("s3://bucket/data", cache)
        fails.set()
        line = _line(lambda: check_shards(dataset, dataset.shards[:1]))
        assert line.startswith(f"s3://bucket/data/{dataset.shards[0].name}: the store failed (")
        assert sum(dataset.shards[0].name in path for path in requests) == 2  # tried again once
        assert not (dataset.folder / dataset.shards[0].name).exists()
        assert not list(dataset.folder.rglob("*.partial"))
        fails.clear()
        check_shards(dataset, dataset.shards)


@pytest.mark.parametrize(
    ("url", "path", "variables"),
    [
        ("gs://bucket/data", "/bucket/data/", {"GOOGLE_SERVICE_ACCOUNT_KEY": "KEY"}),
        (
            "az://container/data",
            "/account/container/data/",
            {"AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_ACCOUNT_KEY": "aGlkZGVu", "AZURE_ALLOW_HTTP": "true"},
        ),
    ],
)
def test_google_and_azure_are_read_with_their_own_requests(
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
    small_dataset: Dataset,
    url: str,
    path: str,
    variables: dict[str, str],
) -> None:
    """From a server that only answers requests for files."""

    def serve(path: str) -> tuple[int, dict[str, str], bytes]:
        content = (small_dataset.folder / path.rpartition("/")[2]).read_bytes()
        headers = {"ETag": '"x"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        return 200, {"Content-Length": str(len(content)), **headers}, content

    with _server(serve) as (endpoint, requests):
        account = {"gcs_base_url": endpoint, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        key = json.dumps(account)
        for name, value in variables.items():
            monkeypatch.setenv(name, value.replace("KEY", key) if value == "KEY" else value)
        monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{endpoint}/account")
        dataset = open_anywhere(url, cache)
        check_shards(dataset, dataset.shards)
        assert dataset.fingerprint == small_dataset.fingerprint and dataset.url == url
        assert {requested for requested in requests} >= {f"{path}{shard.name}" for shard in dataset.shards}


@contextmanager
def _server(serve: Callable[[str], tuple[int, dict[str, str], bytes]]) -> Iterator[tuple[str, list[str]]]:
    """A server of HTTP; serve: status, headers and content for a path. Yields its address, and the paths asked for."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            path = urllib.parse.unquote(self.path.partition("?")[0])
            requests.append(path)
            status, headers, content = serve(path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_POST = _answer

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()


def test_without_obstore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ConfigError, match=r"needs the package obstore.*pip install 'galaxy-zoo-vgg16\[store\]'"):
        open_anywhere("s3://bucket/data")


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@bucket/data",
        "az://container/data?sv=secret",
        "gs://bucket/data#secret",
        "s3:///data",
        "s3://",
        "s3://b/%2e",
    ],
)
def test_a_url_with_anything_but_a_bucket_and_a_folder_is_refused_unseen(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^(s3|gs|az)://\.\.\.: is not .*BUCKET/FOLDER") as raised:
        local_or_store(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["s3://bucket/a//b", "s3://bucket/../b", "gs://bucket/./b"])
def test_a_folder_of_a_url_has_a_name(url: str) -> None:
    with pytest.raises(ConfigError, match="has a folder without a name"):
        local_or_store(url)


def test_urls_of_three_kinds_are_kept_as_text_and_others_refused_as_before(tmp_path: Path) -> None:
    assert [local_or_store(f"{kind}://bucket/a b/c/") for kind in ("s3", "gs", "az")] == [
        f"{kind}://bucket/a b/c" for kind in ("s3", "gs", "az")
    ]
    assert local_or_store("s3://bucket") == "s3://bucket"
    assert local_or_store(str(tmp_path)) == local_or_store(tmp_path) == tmp_path
    for other in ("https://host/data", "hdfs://host/data", "file:///data", "S3://bucket/data", Path("s3://bucket/data")):
        with pytest.raises(ConfigError) as raised:
            local_or_store(other)
        with pytest.raises(ConfigError) as before:
            local_path(other)
        assert str(raised.value) == str(before.value)


def test_writing_on_a_condition(store_url: str) -> None:
    store = Store(store_url)
    first = store.create("object", b"1")
    with pytest.raises(ConditionError, match="was written by another process"):
        store.create("object", b"2")
    second = store.replace("object", b"2", first)
    with pytest.raises(ConditionError):
        store.replace("object", b"3", first)
    assert store.read_tagged("object") == (b"2", second)
    store.remove(["object", "never there"])
    with pytest.raises(ConditionError):
        store.replace("object", b"3", second)
    assert store.sizes() == {}


def test_a_store_that_ignores_conditions_is_recognised(store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert objects.is_conditional(Store(store_url), "probe")
    with servers.rclone(tmp_path) as endpoint:
        _as(monkeypatch, servers.WRITER, endpoint)
        store = Store(f"s3://{servers.BUCKET}/data")
        assert not objects.is_conditional(store, "probe")
        assert store.sizes() == {}


def test_a_store_reaches_worker_processes(store_url: str) -> None:
    import pickle

    store = Store(store_url)
    assert servers.secret(servers.WRITER).encode() not in pickle.dumps(store)
    pickle.loads(pickle.dumps(store)).write("x", b"1")
    assert store.sizes() == {"x": 1}
    with pytest.raises(StoreError):
        store.read("y")
    assert issubclass(StoreError, GalaxyZooError) and not issubclass(StoreError, DatasetError)


def test_a_user_without_a_home_folder_gives_another_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(ConfigError, match="--cache_dir ~/x: this user has no home folder: give another --cache_dir"):
        open_anywhere("s3://bucket/data", "~/x")
