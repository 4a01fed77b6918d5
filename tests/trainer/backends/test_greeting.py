"""No stranger joins a run on several machines, and none keeps its processes from meeting."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tfrecords.errors import RunError
from trainer.backends import greeting
from trainer.backends.greeting import introduce, welcome
from trainer.backends.listening import BIND, listeners_at

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
HELLO, REPLY = greeting._HELLO, greeting._REPLY
Members = dict[int, socket.socket]


@dataclass(frozen=True)
class Meeting:
    """A process 0 that waits for the others in a thread."""

    address: tuple[str, int]
    members: "Future[Members]"
    threads: ThreadPoolExecutor

    def connect(self) -> socket.socket:
        connection = socket.create_connection(self.address, timeout=20)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def come(self, index: int, processes: int = 2, key: bytes = KEY, seconds: float = 20) -> "Future[socket.socket]":
        return self.threads.submit(introduce, self.address, index, processes, lambda: key, seconds)


@contextlib.contextmanager
def _meeting(processes: int = 2, seconds: float = 20) -> Iterator[Meeting]:
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        threads = held.enter_context(ThreadPoolExecutor(12))
        members = threads.submit(welcome, [listener], KEY, processes, seconds)
        yield Meeting(listener.getsockname(), members, threads)
        for connection in members.result(30).values():
            connection.close()


def _message(hello: bytes, key: bytes, index: int = 1, processes: int = 2, role: bytes = b"other") -> bytes:
    """What a process sends after `hello`, as the docstring of the module describes it."""
    place, own = struct.pack(">II", index, processes), b"n" * 32
    return hello[:12] + own + place + greeting._proof(key, role, hello[12:] + own, place)


def _all(connection: socket.socket) -> bytes:
    """All bytes until the other end closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while more := connection.recv(4096):
            received += more
    return received


def _hello(connection: socket.socket) -> bytes:
    return connection.recv(HELLO, socket.MSG_WAITALL)


def _http(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: node1\r\n\r\n")


def _binary(connection: socket.socket) -> None:
    connection.sendall(b"\x16\x03\x01\x02\x00\x01" + bytes(range(256)))


def _scanner(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def _half(connection: socket.socket) -> None:
    connection.sendall(_message(_hello(connection), KEY)[:-1])
    connection.shutdown(socket.SHUT_WR)


def _oversized(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):
        connection.sendall(_message(_hello(connection), KEY) + bytes(1 << 20))


def _impostor(connection: socket.socket) -> None:
    connection.sendall(_message(_hello(connection), OTHER_KEY))


def _other_role(connection: socket.socket) -> None:
    connection.sendall(_message(_hello(connection), KEY, role=b"first"))


def _mirror(connection: socket.socket) -> None:
    hello = _hello(connection)
    connection.sendall(hello + struct.pack(">II", 1, 2) + hello[12:])


NO_PROGRAM, NO_SECRET = "it is not a process of this program", "its secret is not that of this run"


@pytest.mark.parametrize(
    ("stranger", "why"),
    [
        (_http, NO_PROGRAM),
        (_binary, NO_PROGRAM),
        (_scanner, "it ended without a proof"),
        (_half, "it ended without a proof"),
        (_oversized, "it sent more than a proof"),
        (_impostor, NO_SECRET),
        (_other_role, NO_SECRET),
        (_mirror, NO_SECRET),
    ],
)
def test_a_stranger_is_refused_with_one_line_and_the_processes_still_meet(
    stranger: Callable[[socket.socket], None], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with _meeting() as meeting:
        with meeting.connect() as connection:
            place = "{}:{}".format(*connection.getsockname())
            stranger(connection)
            answer = _all(connection)
        assert answer in (b"", b"n" + bytes(32)) or (answer[HELLO:] == b"" and answer.startswith(b"galaxy-zoo/1"))
        with meeting.come(1).result(20):
            assert meeting.members.result(20).keys() == {1}
    assert [record.getMessage() for record in caplog.records] == [f"--hosts: refused a connection from {place}: {why}"]


def test_bytes_that_were_recorded_before_prove_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with _meeting(processes=3) as meeting, meeting.connect() as genuine, meeting.connect() as replayed:
        recorded = _message(_hello(genuine), KEY, processes=3)
        _hello(replayed)
        replayed.sendall(recorded)
        assert _all(replayed) == b"n" + bytes(32)
        genuine.sendall(recorded)
        assert genuine.recv(33, socket.MSG_WAITALL)[:1] == b"y"
        with meeting.come(2, 3).result(20):
            assert meeting.members.result(20).keys() == {1, 2}
            assert genuine.recv(2, socket.MSG_WAITALL) == b"go"
    assert NO_SECRET in caplog.text


def test_no_bit_of_a_proof_may_differ() -> None:
    """Of every byte of a genuine message in turn, one bit is flipped: its connection is never that of a process."""
    with _meeting() as meeting:
        for place in range(REPLY):
            with meeting.connect() as connection:
                message = bytearray(_message(_hello(connection), KEY))
                message[place] ^= 1 << place % 8
                connection.sendall(message)
                assert _all(connection) in (b"", b"n" + bytes(32)), place
        assert not meeting.members.done()
        meeting.come(1).result(20).close()


def test_silent_and_slow_connections_keep_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their time is not over when the processes have met."""
    monkeypatch.setattr(greeting, "PROOF_SECONDS", 3600)
    with _meeting() as meeting, contextlib.ExitStack() as held:
        for count in range(30):
            connection = held.enter_context(meeting.connect())
            connection.sendall(b"galaxy-zoo/1"[:count])
        with meeting.come(1).result(20):
            assert meeting.members.result(20).keys() == {1}


def test_whoever_proves_nothing_in_time_is_refused_however_slowly_it_sends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(greeting, "PROOF_SECONDS", 0.5)
    with _meeting() as meeting:
        with meeting.connect() as silent, meeting.connect() as dripping:
            message = _message(_hello(dripping), KEY)
            with contextlib.suppress(ConnectionError):
                for number in range(REPLY):
                    dripping.sendall(message[number : number + 1])
                    time.sleep(0.05)
            assert _all(dripping) == b""
            assert len(_all(silent)) == HELLO
        meeting.come(1).result(20).close()
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["it proved nothing within 0.5 s"] * 2


def test_a_flood_of_connections_costs_few_lines_and_the_processes_still_meet(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(greeting, "_PAUSE_SECONDS", 3600)
    with _meeting() as meeting, contextlib.ExitStack() as held:
        for _ in range(2 * greeting._VISITORS):
            held.enter_context(meeting.connect())
        for _ in range(300):
            meeting.connect().close()
        meeting.come(1).result(20).close()
        assert meeting.members.result(20).keys() == {1}
    assert len(caplog.records) == greeting._LINES
    assert "too many connections at once" in caplog.text


def test_a_process_with_another_secret_ends_and_the_others_still_meet(caplog: pytest.LogCaptureFixture) -> None:
    with _meeting() as meeting:
        with pytest.raises(RunError, match=r"the secret of this process is not the one there: give all .* --hosts_secret"):
            meeting.come(1, key=OTHER_KEY).result(20)
        meeting.come(1).result(20).close()
    assert len(caplog.records) == 1 and NO_SECRET in caplog.text


def test_a_process_with_a_wrong_place_ends_with_the_reason_and_the_others_still_meet() -> None:
    with _meeting(processes=3) as meeting, meeting.connect() as first:
        first.sendall(_message(_hello(first), KEY, processes=3))
        assert first.recv(33, socket.MSG_WAITALL)[:1] == b"y"
        with pytest.raises(RunError, match="process 1 of this run is connected already: give each its own --host_index"):
            meeting.come(1, 3).result(20)
        with pytest.raises(RunError, match="another number of addresses: give all processes the same --hosts"):
            meeting.come(2, 4).result(20)
        meeting.come(2, 3).result(20).close()
        assert meeting.members.result(20).keys() == {1, 2}


def test_a_process_that_ended_while_it_waited_may_come_again(caplog: pytest.LogCaptureFixture) -> None:
    with _meeting(processes=3) as meeting:
        with meeting.connect() as killed:
            killed.sendall(_message(_hello(killed), KEY, processes=3))
            assert killed.recv(33, socket.MSG_WAITALL)[:1] == b"y"
        again, other = meeting.come(1, 3), meeting.come(2, 3)
        again.result(20).close()
        other.result(20).close()
    assert [record.getMessage() for record in caplog.records] == [
        "--hosts: process 1 has ended: waiting until it is started again"
    ]


def test_after_its_time_process_0_returns_who_is_there_and_they_end_with_the_reason() -> None:
    with _meeting(processes=3, seconds=1) as meeting:
        waiting = meeting.come(2, 3)
        assert meeting.members.result(20).keys() == {2}
        with pytest.raises(RunError, match="process 0 ended, or other processes did not come"):
            waiting.result(20)


def _pretend(serve: Callable[[socket.socket], None], key: Callable[[], bytes] = lambda: KEY, seconds: float = 20) -> str:
    """Connect to somebody who only pretends to be process 0; return the error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def pretend() -> None:
            listener.settimeout(0.1)
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(20)
                        serve(connection)

        thread = threading.Thread(target=pretend)
        thread.start()
        try:
            with pytest.raises(RunError) as caught:
                introduce(listener.getsockname(), 1, 2, key, seconds)
        finally:
            ended.set()
            thread.join()
    return str(caught.value)


def _lie(connection: socket.socket) -> None:
    connection.sendall(b"galaxy-zoo/1" + b"s" * 32)
    connection.recv(REPLY, socket.MSG_WAITALL)
    connection.sendall(b"y" + b"?" * 32 + b"go")


def _reflect(connection: socket.socket) -> None:
    connection.sendall(b"galaxy-zoo/1" + b"s" * 32)
    said = connection.recv(REPLY, socket.MSG_WAITALL)
    connection.sendall(b"y" + said[-32:] + b"go")


@pytest.mark.parametrize("serve", [_lie, _reflect])
def test_a_process_0_that_proves_nothing_is_not_believed(serve: Callable[[socket.socket], None]) -> None:
    assert "the secret of this process is not the one there" in _pretend(serve)


def test_whoever_listens_in_place_of_process_0_is_tried_again_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "(what listens there is not this program)" in _pretend(lambda it: it.sendall(b"SSH-2.0-OpenSSH" * 9), seconds=1)
    assert "(it closed the connection)" in _pretend(lambda it: it.sendall(b"galaxy"), seconds=1)
    monkeypatch.setattr(greeting, "PROOF_SECONDS", 0.3)
    assert "(it does not answer)" in _pretend(lambda it: time.sleep(0.5), seconds=1)


def test_a_secret_that_is_not_there_yet_is_waited_for() -> None:
    def read() -> bytes:
        raise FileNotFoundError(2, "No such file or directory", "OUT/secret")

    assert "(process 0 has not written OUT/secret): start all processes within 1 s" in _pretend(_lie, read, seconds=1)


def test_a_secret_that_changed_is_read_again() -> None:
    """Process 0 was killed and started again between the two."""
    keys = iter([OTHER_KEY])
    with _meeting() as meeting, introduce(meeting.address, 1, 2, lambda: next(keys, KEY), 20):
        assert meeting.members.result(20).keys() == {1}


def test_process_0_listens_at_its_address_alone() -> None:
    [listener] = listeners_at("127.0.0.1:0", [])
    with listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=20).close()
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.2", port), timeout=20)


def test_an_address_at_which_process_0_cannot_listen_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"cannot listen at 192\.0\.2\.1:9000 \(.+\): give first the address of process 0"):
        listeners_at("192.0.2.1:9000", [])
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(RunError, match=r"cannot listen at .*\(.*in use"):
        listeners_at(f"127.0.0.1:{taken.getsockname()[1]}", [])
    monkeypatch.setenv(BIND, "127.0.0.1:0")
    [listener] = listeners_at("192.0.2.1:9000", [])
    listener.close()


def test_a_name_of_its_own_that_is_a_loopback_address_is_not_all_that_process_0_listens_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Debian's /etc/hosts has 127.0.1.1 for the machine itself; to reach the others it uses another address."""
    resolve = socket.getaddrinfo

    def resolved(host: str, *rest: object, **more: object) -> object:
        return resolve({"node1": "127.0.1.1", "node2": "192.0.2.1"}.get(host, host), *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no route to others")
        outer = probe.getsockname()[0]
    listeners = listeners_at("node1:0", ["node2:0"])
    assert [listener.getsockname()[0] for listener in listeners] == ["127.0.1.1", outer]
    for listener in listeners:
        listener.close()
    [alone] = listeners_at("node1:0", ["localhost:0"])
    assert alone.getsockname()[0] == "127.0.1.1"
    alone.close()
