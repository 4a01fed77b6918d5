"""The processes of a run on several machines meet: each proves that it holds the secret of the run, both ways.

Process 0 listens and every other process connects to it. The bytes on a connection, of which nothing else is read before the
proof:

    from process 0    "galaxy-zoo/1", nonce (32)
    to process 0      "galaxy-zoo/1", nonce (32), index (4), processes (4), proof (32)
    from process 0    answer (1), proof (32); then "go" as soon as all processes are there

A proof is an HMAC-SHA256 under the key, over the role of its sender, both nonces, index, processes and answer: bytes that were
recorded before, or that are sent back, prove nothing. Proofs are compared in constant time. A connection that proves nothing
is closed and costs a line in the log; the others are not kept waiting by it.
"""

import hmac
import logging
import secrets
import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from tfrecords.errors import RunError, squeezed
from trainer.backends.listening import address_of

# From the connection to the proof; a process of ours needs milliseconds.
PROOF_SECONDS = 10
# Connections without proof at a time: enough for a thousand processes that start at once, fewer than the open files allowed.
_VISITORS = 128
_LINES, _PAUSE_SECONDS = 10, 10
_MAGIC, _NONCE, _PROOF, _GO = b"galaxy-zoo/1", 32, 32, b"go"
_HELLO = len(_MAGIC) + _NONCE
_PLACE = struct.Struct(">II")
_REPLY = _HELLO + _PLACE.size + _PROOF
_YES, _NO, _TAKEN, _OTHER_NUMBER = b"y", b"n", b"t", b"p"
_RETRY_SECONDS = 0.2
_EXPLAIN_SECONDS = 30

log = logging.getLogger("trainer")


def _proof(key: bytes, role: bytes, *parts: bytes) -> bytes:
    """All parts have fixed lengths, so their concatenation is unambiguous."""
    return hmac.digest(key, b"/".join((_MAGIC, role, b"".join(parts))), "sha256")


@dataclass
class _Visitor:
    """A connection that has not proved anything yet."""

    connection: socket.socket
    address: str
    until: float
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(_NONCE))
    received: bytes = b""


class _Gate:
    """Process 0 while it waits for the others: `members` have proved that they belong to the run, visitors not yet."""

    def __init__(self, key: bytes, processes: int) -> None:
        self.key, self.processes = key, processes
        self.members: dict[int, socket.socket] = {}
        self.visitors: dict[socket.socket, _Visitor] = {}
        self.selector = selectors.DefaultSelector()
        self._lines, self._left_out, self._last = 0, 0, 0.0

    def _warn(self, text: str) -> None:
        """Log a line; after the first few only one in some seconds, because a stranger may cause thousands."""
        now = time.monotonic()
        if self._lines >= _LINES and now - self._last < _PAUSE_SECONDS:
            self._left_out += 1
            return
        more = f" (and {self._left_out} more lines like this)" if self._left_out else ""
        log.warning("--hosts: %s%s", text, more)
        self._lines, self._left_out, self._last = self._lines + 1, 0, now

    def _close(self, connection: socket.socket) -> None:
        self.selector.unregister(connection)
        connection.close()

    def _refuse(self, visitor: _Visitor, why: str) -> None:
        self._warn(f"refused a connection from {visitor.address}: {why}")
        del self.visitors[visitor.connection]
        self._close(visitor.connection)

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection and send it our nonce."""
        try:
            connection, name = listener.accept()
        except OSError:  # closed again already, or too many open files
            time.sleep(0.01)
            return
        if len(self.visitors) >= _VISITORS:
            self._refuse(next(iter(self.visitors.values())), "too many connections at once")
        connection.setblocking(False)
        visitor = _Visitor(connection, address_of(name), time.monotonic() + PROOF_SECONDS)
        self.visitors[connection] = visitor
        self.selector.register(connection, selectors.EVENT_READ)
        try:
            connection.send(_MAGIC + visitor.nonce)  # fits into any buffer
        except OSError as error:
            self._refuse(visitor, squeezed(error))

    def read(self, connection: socket.socket) -> None:
        """Read what has arrived on a connection."""
        visitor = self.visitors.get(connection)
        try:
            more = connection.recv(_REPLY + 1 - len(visitor.received) if visitor else 1)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        if visitor is None:  # one of ours, which sends nothing now
            [index] = [index for index, member in self.members.items() if member is connection]
            del self.members[index]
            self._close(connection)
            self._warn(f"process {index} has ended: waiting until it is started again")
            return
        visitor.received += more
        if not visitor.received.startswith(_MAGIC[: len(visitor.received)]):
            self._refuse(visitor, "it is not a process of this program")
        elif len(visitor.received) > _REPLY:
            self._refuse(visitor, "it sent more than a proof")
        elif not more:
            self._refuse(visitor, "it ended without a proof")
        elif len(visitor.received) == _REPLY:
            self._judge(visitor)

    def _judge(self, visitor: _Visitor) -> None:
        said, proof = visitor.received[:-_PROOF], visitor.received[-_PROOF:]
        nonces, place = visitor.nonce + said[len(_MAGIC) : _HELLO], said[_HELLO:]
        index, processes = _PLACE.unpack(place)
        if not hmac.compare_digest(proof, _proof(self.key, b"other", nonces, place)):
            answer, why = _NO, "its secret is not that of this run"
        elif processes != self.processes:
            answer, why = _OTHER_NUMBER, f"its --hosts has {processes} processes, not {self.processes}"
        elif not 0 < index < processes or index in self.members:
            answer, why = _TAKEN, f"process {index} is connected already"
        else:
            answer, why = _YES, ""
        evidence = bytes(_PROOF) if answer == _NO else _proof(self.key, b"first", nonces, place, answer)
        try:
            visitor.connection.send(answer + evidence)
        except OSError as error:
            why = why or squeezed(error)
        if why:
            self._refuse(visitor, why)
        else:
            del self.visitors[visitor.connection]
            self.members[index] = visitor.connection

    def expire(self) -> float:
        """Refuse connections whose time is over; return when the next one's is."""
        now = time.monotonic()
        for visitor in [visitor for visitor in self.visitors.values() if visitor.until <= now]:
            self._refuse(visitor, f"it proved nothing within {PROOF_SECONDS} s")
        return min((visitor.until for visitor in self.visitors.values()), default=now + _PAUSE_SECONDS)

    def close(self, members: bool) -> None:
        """Close all connections, those of members only if asked."""
        for connection in (*self.visitors, *(self.members.values() if members else ())):
            connection.close()
        self.selector.close()


def welcome(listeners: Sequence[socket.socket], key: bytes, processes: int, seconds: float) -> dict[int, socket.socket]:
    """Wait for the other processes as process 0; return their connections by index.

    After `seconds` it returns those that are there, closed. Ctrl-C and SIGTERM end it at once.
    """
    gate, end, complete = _Gate(key, processes), time.monotonic() + seconds, False
    try:
        for listener in listeners:
            listener.setblocking(False)
            gate.selector.register(listener, selectors.EVENT_READ)
        while len(gate.members) < processes - 1 and time.monotonic() < end:
            wait = min(end, gate.expire()) - time.monotonic()
            for ready, _ in gate.selector.select(max(wait, 0)):
                if ready.fileobj in listeners:
                    gate.accept(ready.fileobj)  # type: ignore[arg-type]
                elif ready.fileobj in gate.visitors or ready.fileobj in gate.members.values():
                    gate.read(ready.fileobj)  # type: ignore[arg-type]
        complete = len(gate.members) == processes - 1
        for member in gate.members.values() if complete else ():
            member.setblocking(True)
            try:
                member.sendall(_GO)
            except OSError:  # whoever watches this connection will notice
                continue
        return gate.members
    finally:
        gate.close(members=not complete)


class _Ended(Exception):
    """The connection closed, or sent nothing in time."""


def _receive(connection: socket.socket, size: int, until: float) -> bytes:
    """Exactly `size` bytes. However slowly they come, it ends at `until`, a time of `time.monotonic`."""
    received = b""
    while len(received) < size:
        left = until - time.monotonic()
        if left <= 0:
            raise _Ended("it does not answer")
        connection.settimeout(left)
        try:
            more = connection.recv(size - len(received))
        except TimeoutError:
            continue
        except OSError as error:
            raise _Ended(squeezed(error)) from error
        if not more:
            raise _Ended("it closed the connection")
        received += more
    return received


def _refused(answer: bytes, is_proved: bool, address: str, index: int) -> NoReturn:
    if is_proved and answer == _TAKEN:
        raise RunError(f"{address}: process {index} of this run is connected already: give each its own --host_index")
    if is_proved and answer == _OTHER_NUMBER:
        raise RunError(f"{address}: its --hosts has another number of addresses: give all processes the same --hosts")
    raise RunError(
        f"{address}: refused, because the secret of this process is not the one there: give all processes the same --out, on "
        "storage that they share, or the same --hosts_secret"
    )


def introduce(
    address: tuple[str, int], index: int, processes: int, read_key: Callable[[], bytes], seconds: float
) -> socket.socket:
    """Connect to process 0 as another process, and wait until all are there.

    read_key: reads the secret, anew for each attempt; raises FileNotFoundError as long as there is none. Raises RunError if
    process 0 does not hold the same one, refuses this process or ends, and after `seconds`.
    """
    began, place = time.monotonic(), _PLACE.pack(index, processes)
    end, named, reason, explained = began + seconds, address_of(address), "", False
    while time.monotonic() < end:
        connection = None
        try:
            key = read_key()
            left = max(end - time.monotonic(), 0.001)
            connection = socket.create_connection(address, timeout=min(PROOF_SECONDS, left))
            if connection.getsockname() == connection.getpeername():
                raise _Ended("nothing listens there")  # a free port may connect to itself
            until = min(end, time.monotonic() + PROOF_SECONDS)
            hello = _receive(connection, _HELLO, until)
            if not hello.startswith(_MAGIC):
                raise _Ended("what listens there is not this program")
            nonces = hello[len(_MAGIC) :] + (own := secrets.token_bytes(_NONCE))
            connection.sendall(_MAGIC + own + place + _proof(key, b"other", nonces, place))
            answer, evidence = (reply := _receive(connection, 1 + _PROOF, until))[:1], reply[1:]
            is_proved = hmac.compare_digest(evidence, _proof(key, b"first", nonces, place, answer))
            if not is_proved and read_key() != key:
                raise _Ended("its secret has changed")  # process 0 has been started again
            if not is_proved or answer != _YES:
                _refused(answer, is_proved, named, index)
        except (OSError, _Ended) as error:
            if connection is not None:
                connection.close()
            is_missing = isinstance(error, FileNotFoundError)
            reason = f"process 0 has not written {error.filename}" if is_missing else squeezed(error)  # type: ignore[union-attr]
            if not explained and time.monotonic() - began > _EXPLAIN_SECONDS:
                explained = True
                log.warning("--hosts: waiting for process 0 at %s (%s)", named, reason)
            time.sleep(_RETRY_SECONDS)
            continue
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        try:
            if _receive(connection, len(_GO), end) != _GO:
                raise _Ended("it sent something else")
        except _Ended as error:
            connection.close()
            raise RunError(
                f"{named}: process 0 ended, or other processes did not come, before all had connected ({error}): check their "
                "messages, then start all again"
            ) from error
        except BaseException:
            connection.close()
            raise
        return connection
    raise RunError(
        f"{named}: process 0 cannot be reached ({reason}): start all processes within {seconds:.0f} s, with the same --hosts "
        "and --out, and each with its own --host_index"
    )
