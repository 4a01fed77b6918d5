"""The objects below a URL of a store: reading, writing, writing on a condition; each failure is one line.

    s3://BUCKET/FOLDER   gs://BUCKET/FOLDER   az://CONTAINER/FOLDER

Credentials come from the environment of the store's own tools or from the role of the instance, never from an address. No
message holds the address of a request, which may carry a token.
"""

import functools
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from tfrecords.errors import ConfigError, GalaxyZooError, install_extra

# Server errors, dropped connections and timeouts are tried again, with pauses that double from 0.1 s up to 15 s. The payload of
# a request is not renewed, so its signature must still be valid at the end.
RETRIES = 10
RETRY_SECONDS = 180
# Without credentials in the environment, only the instance can have some: it answers at once or not at all.
_ROLE_RETRIES = 1
_CHUNK_BYTES = 8 << 20
# What names or holds credentials, by scheme; the first of each is named in messages.
_CREDENTIALS = {
    "s3": (
        *("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_SKIP_SIGNATURE"),
    ),
    "gs": (
        *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"),
        *("GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_SKIP_SIGNATURE"),
    ),
    "az": (
        *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN", "AZURE_CLIENT_SECRET"),
        *("AZURE_FEDERATED_TOKEN_FILE", "AZURE_SKIP_SIGNATURE"),
    ),
}
_PREFIXES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
_CONNECTION = (
    *("allow_http", "allow_invalid_certificates", "connect_timeout", "read_timeout", "timeout", "user_agent"),
    *("proxy_url", "proxy_ca_certificate", "proxy_excludes"),
)
# The addresses at which instances offer their role.
_ROLES = ("169.254.169.254", "169.254.170.2", "metadata.google.internal", "/metadata/identity")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "bucket does not exist", "container does not exist")
_REGION = ("configured region", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint")


class StoreError(GalaxyZooError):
    """A store cannot be reached, or refuses a request."""


class MissingObjectError(StoreError):
    """There is no object of that name."""


class ConditionError(StoreError):
    """An object was there already, or has been replaced in the meantime."""


def _client_options(scheme: str) -> dict[str, str]:
    """Time limits, and what the environment holds about connections: obstore ignores that where options are given.

    By default a request may take 30 s, which is too short for a shard; instead, a read that stalls for a minute fails.
    """
    prefix = _PREFIXES[scheme]
    set_here = {name: os.environ[prefix + name.upper()] for name in _CONNECTION if prefix + name.upper() in os.environ}
    return {"timeout": "1h", "read_timeout": "60s", **set_here}


def _obstore(url: str) -> Any:
    try:
        import obstore.store
    except ImportError as error:
        raise ConfigError(f"{url}: needs the package obstore, which is not installed: {install_extra('store')}") from error
    return obstore


def _reason(text: str) -> str:
    """The cause of a failure, without the address of the request: its code, its status, or the library's last words."""
    for pattern in (r"<Code>(\w+)</Code>", r"status code: (\d+ [A-Za-z ]+)", r"HTTP error: ([^\n]+)", r"error: ([^\n]+)"):
        if match := re.search(pattern, text):
            return " ".join(re.sub(r"\S*//\S*", "", match[1]).split())[:120]
    return "no reason given"


def _explained(error: Exception, url: str, where: str) -> StoreError:
    """The error of the store at `url` as ours, in one line. where: the URL of the object."""
    scheme, text = url.partition("://")[0], str(error)
    kind, reason = type(error).__name__, _reason(text)
    bucket = "/".join(url.split("/")[:3])
    if any(words in text for words in _NO_BUCKET):
        return StoreError(f"{bucket}: there is no such bucket: check the spelling, or create it first")
    if isinstance(error, FileNotFoundError):
        return MissingObjectError(f"{where}: there is no such object: check the URL")
    if kind in ("AlreadyExistsError", "PreconditionError"):
        return ConditionError(f"{where}: was written by another process: wait for it, or choose another folder")
    if any(words in text for words in _REGION):
        return StoreError(f"{bucket}: is in another region: set AWS_REGION to it")
    role = any(address in text for address in _ROLES)
    if role or "Account must be specified" in text:
        names = "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY" if scheme == "az" else _CREDENTIALS[scheme][0]
        extra = " and AWS_SECRET_ACCESS_KEY" if scheme == "s3" else ""
        return StoreError(f"{url}: no credentials in the environment, and this machine has no role: set {names}{extra}")
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or re.search(r"status code: 40[13]|Access ?Denied", text):
        return StoreError(
            f"{where}: access was refused ({reason}): check the credentials in the environment and what they allow"
        )
    return StoreError(
        f"{where}: the store failed ({reason}), at most {RETRIES + 1} attempts in {RETRY_SECONDS} s: check the network and the "
        "endpoint, and run the same command again"
    )


def _has_credentials(scheme: str) -> bool:
    return any(os.environ.get(name) for name in _CREDENTIALS[scheme])


class Store:
    """The objects below a URL, by their names relative to it. May be used from several threads, and pickled."""

    def __init__(self, url: str) -> None:
        """url: as `files.local_or_store` returns it. Raises ConfigError without obstore, StoreError without credentials."""
        self.url = url
        if not _has_credentials(url.partition("://")[0]):
            self._open(_ROLE_RETRIES)
            with self._errors(), suppress(FileNotFoundError):  # any request will do
                self._objects.head("manifest.json")
        self._open(RETRIES)

    def __reduce__(self) -> tuple[Any, ...]:
        return opened_store, (self.url,)

    def _open(self, retries: int) -> None:
        obstore = _obstore(self.url)
        with self._errors():
            limits = {"max_retries": retries, "retry_timeout": timedelta(seconds=RETRY_SECONDS)}
            self._objects = obstore.store.from_url(
                self.url, retry_config=limits, client_options=_client_options(self.url.partition("://")[0])
            )

    def where(self, name: str) -> str:
        """The URL of an object."""
        return f"{self.url}/{name}" if name else self.url

    @contextmanager
    def _errors(self, name: str = "") -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, FileNotFoundError, ValueError) as error:
            raise _explained(error, self.url, self.where(name)) from None  # its text may hold a token

    def read(self, name: str) -> bytes:
        """The content of an object. Raises MissingObjectError if there is none."""
        with self._errors(name):
            return bytes(self._objects.get(name).bytes())

    def read_tagged(self, name: str) -> tuple[bytes, dict[str, str]]:
        """The content of an object, and the version that `replace` expects. Raises MissingObjectError if there is none."""
        with self._errors(name):
            result = self._objects.get(name)
            return bytes(result.bytes()), _version(result.meta)

    def chunks(self, name: str) -> Iterator[bytes]:
        """The content of an object in pieces of some megabytes. Raises MissingObjectError if there is none."""
        with self._errors(name):
            for chunk in self._objects.get(name).stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(chunk)

    def write(self, name: str, content: bytes) -> None:
        """Write an object in one request: it appears as a whole, or not at all."""
        with self._errors(name):
            self._objects.put(name, content, use_multipart=False)

    def create(self, name: str, content: bytes | memoryview) -> dict[str, str]:
        """Write an object that is not there yet; return its version. Raises ConditionError if it is there."""
        with self._errors(name):
            return _version(self._objects.put(name, content, mode="create"))

    def create_or_confirm(self, name: str, content: bytes | memoryview) -> None:
        """Write an object once. Raises ConditionError if one with another content is there.

        An answer may be lost and the request repeated, which then meets its own object.
        """
        try:
            self.create(name, content)
        except ConditionError:
            if self.read(name) != content:
                raise

    def replace(self, name: str, content: bytes, version: dict[str, str]) -> dict[str, str]:
        """Write an object whose version is still this one; return the new version. Raises ConditionError if it is not.

        The content must never have been that of the object before: the version may depend on the content alone.
        """
        with self._errors(name):
            return _version(self._objects.put(name, content, mode=version))

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there are ignored."""
        names = list(names)
        for begin in range(0, len(names), 1000):  # the most that S3 takes in one request
            together = names[begin : begin + 1000]
            try:
                self._delete(together)
            except MissingObjectError:  # not of S3: there each is deleted by a request of its own
                for name in together:
                    with suppress(MissingObjectError):
                        self._delete([name])

    def _delete(self, names: list[str]) -> None:
        with self._errors(names[0]):
            self._objects.delete(names)

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The objects of a folder and below, by name, with their sizes in bytes."""
        with self._errors():
            return {each["path"]: each["size"] for batch in self._objects.list(folder or None) for each in batch}


@functools.cache
def opened_store(url: str) -> Store:
    """The store at a URL, opened once in a process: its connections are kept."""
    return Store(url)


def _version(result: Any) -> dict[str, str]:
    """What identifies a version of an object: S3 and Azure compare the tag, Google Cloud the number."""
    return {name: result[name] for name in ("e_tag", "version") if result.get(name) is not None}


def is_conditional(store: Store, name: str) -> bool:
    """Whether a store heeds conditions, tried with an object of this name, which is removed; some stores ignore them."""
    first = store.create(name, b"0")
    try:
        store.replace(name, b"1", first)
        for attempt in (lambda: store.create(name, b"2"), lambda: store.replace(name, b"3", first)):
            try:
                attempt()
            except ConditionError:
                continue
            return False
        return True
    finally:
        store.remove([name])
