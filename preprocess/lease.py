"""A lease: the lock of a job in an object store, an object that its holder renews and that expires without it.

    .preprocess/lease.json    {"expires": seconds since 1970, "holder": RANDOM, "host": NAME}

It is created only if there is none, and replaced only if nobody else has replaced it since it was read: the store decides who
was first. A process that is killed leaves it behind, and the next one takes it over when it has expired.
"""

import json
import logging
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tfrecords.dataset import to_json
from tfrecords.errors import ConfigError
from tfrecords.objects import ConditionError, MissingObjectError, Store, StoreError, is_conditional

LEASE = ".preprocess/lease.json"
# Longer than a request takes that is tried again a few times; clocks of the machines may differ by half of it.
SECONDS = 90.0
_RENEWED_EVERY = 6  # times in that time
_LAST_SECONDS = 5.0  # that the end of a job waits for a renewal in progress
log = logging.getLogger("preprocess")


class Lease:
    """A lease that this process holds. `check` it before each step that others must not take too."""

    def __init__(self, store: Store, version: dict[str, str], holder: str, expires: float) -> None:
        self._store, self._version, self._holder, self._expires = store, version, holder, expires
        self._lost = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise ConfigError if another process may be writing by now."""
        if not self._lost and time.time() > self._expires:
            self._lost = f"could not be renewed for {SECONDS:.0f} s"
        if self._lost:
            raise ConfigError(
                f"{self._store.url}: this job has lost its lease, which {self._lost}: check that no other job writes "
                "there, and run the same command again to resume"
            )

    def _renew(self) -> None:
        while not self._ended.wait(SECONDS / _RENEWED_EVERY) and not self._lost:
            expires = time.time() + SECONDS
            try:
                self._version = self._store.replace(LEASE, _content(self._holder, expires), self._version)
                self._expires = expires
            except (ConditionError, MissingObjectError):
                # An answer may have been lost, and the request repeated.
                if not self._is_ours():
                    self._lost = "another process has taken"
            except StoreError as error:
                log.warning("%s: the lease could not be renewed and is tried again (%s)", self._store.url, error)

    def _is_ours(self) -> bool:
        try:
            content, version = self._store.read_tagged(LEASE)
            held = _parsed(content)
        except StoreError:
            return False
        if held["holder"] != self._holder:
            return False
        self._version, self._expires = version, held["expires"]
        return True

    def release(self) -> None:
        """End the lease, unless another process has it by now."""
        self._ended.set()
        self._thread.join(_LAST_SECONDS)
        if not self._lost and self._is_ours():
            with suppress(StoreError):  # it expires
                self._store.remove([LEASE])


def _content(holder: str, expires: float) -> bytes:
    return to_json({"expires": expires, "holder": holder, "host": platform.node()}).encode()


def _parsed(content: bytes) -> dict[str, Any]:
    """A lease as JSON; one that is damaged never ends by itself."""
    try:
        held = json.loads(content)
        return {"expires": float(held["expires"]), "holder": str(held["holder"]), "host": str(held["host"])}
    except (ValueError, KeyError, TypeError):
        return {"expires": float("inf"), "holder": "", "host": "an unknown machine"}


def _expired(store: Store) -> dict[str, str] | None:
    """Wait until the lease of another process has expired; return its version, None if it is gone.

    Raises ConfigError as soon as that process renews it.
    """
    first, told = "", False
    while True:
        try:
            content, version = store.read_tagged(LEASE)
        except MissingObjectError:
            return None
        held = _parsed(content)
        left = held["expires"] - time.time()
        if left <= 0:
            return version
        first = first or content.decode("utf-8", "replace")
        if left > 2 * SECONDS:
            raise ConfigError(
                f"{store.where(LEASE)}: is damaged, or from a machine whose clock is ahead: if no job writes there, remove it"
            )
        if content.decode("utf-8", "replace") != first:
            raise ConfigError(
                f"{store.url}: another preprocess job is writing here, on {held['host']}: wait for it, or choose another --out"
            )
        if not told:
            told = True
            log.warning("%s: waiting at most %.0f s for the lease of a job on %s to end", store.url, left + 1, held["host"])
        time.sleep(min(1.0, SECONDS / _RENEWED_EVERY / 2))


def _acquire(store: Store) -> Lease:
    holder = secrets.token_hex(8)
    while True:
        expires = time.time() + SECONDS
        try:
            return Lease(store, store.create(LEASE, _content(holder, expires)), holder, expires)
        except ConditionError:
            version = _expired(store)
        if version is None:
            continue
        expires = time.time() + SECONDS
        try:
            return Lease(store, store.replace(LEASE, _content(holder, expires), version), holder, expires)
        except ConditionError:  # another process was faster
            continue


@contextmanager
def leased(store: Store) -> Iterator[Lease]:
    """Hold the lease of a job in a store while the block runs.

    Raises ConfigError if another process holds it, and if the store ignores conditions, so that no lease is safe.
    """
    if not is_conditional(store, f".preprocess/probe-{secrets.token_hex(8)}"):
        raise ConfigError(
            f"{store.url}: this store ignores conditions (If-None-Match), so two jobs could write at once: build in a local "
            "folder and copy it, the manifest last"
        )
    lease = _acquire(store)
    try:
        yield lease
    finally:
        lease.release()
