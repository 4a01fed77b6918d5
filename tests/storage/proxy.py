"""A proxy before a store that stops in the middle of a request, as a network does."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


class Proxy:
    """Forwards connections to `endpoint`, until a request begins with `stalls`: of that, half is forwarded, and no more."""

    def __init__(self, endpoint: str, stalls: bytes) -> None:
        self._target, self._stalls = (urlsplit(endpoint).hostname, urlsplit(endpoint).port), stalls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.stalled = threading.Event()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, requests: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if requests and data.startswith(self._stalls):
                    while b"\r\n\r\n" not in data or len(data) < data.index(b"\r\n\r\n") + 1000:
                        data += source.recv(1 << 16)
                    sink.sendall(data[: data.index(b"\r\n\r\n") + 500])
                    self.stalled.set()
                    return
                sink.sendall(data)
        except OSError:
            pass

    def close(self) -> None:
        for each in [self._listener, *self._sockets]:
            each.close()


@contextmanager
def stalling(endpoint: str, stalls: bytes) -> Iterator[Proxy]:
    proxy = Proxy(endpoint, stalls)
    try:
        yield proxy
    finally:
        proxy.close()
