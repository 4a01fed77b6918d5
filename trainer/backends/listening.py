"""Where process 0 of a run on several machines listens: at its named address alone."""

import contextlib
import errno
import ipaddress
import os
import socket

from tfrecords.errors import RunError

# JAX' variable for the address at which process 0 listens, if that is not the one by which the others reach it.
BIND = "JAX_COORDINATOR_BIND_ADDRESS"
_ANYWHERE = "192.0.2.1"  # reserved for documentation: the route to it is that to the world


def split_address(address: str) -> tuple[str, int]:
    """The host and the port of an address, HOST:PORT or [HOST]:PORT."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def address_of(name: tuple[object, ...]) -> str:
    """An address of a socket, (host, port, ...), as text."""
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def listeners_at(first: str, others: list[str]) -> list[socket.socket]:
    """Sockets that listen at address `first` alone, on this machine.

    Many systems resolve their own name to a loopback address, which other machines cannot reach: then also at the address from
    which this machine reaches them.
    """
    host, port = split_address(os.environ.get(BIND) or first)
    names = [info[4] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)]
    if host != "localhost" and all(_is_loopback(str(name[0])) and name[0] != host for name in names):
        names += [(own, port) for own in _outer([split_address(other)[0] for other in others] or [_ANYWHERE])]
    listeners: list[socket.socket] = []
    reason: OSError | None = None
    for name in dict.fromkeys(names):
        family = socket.AF_INET6 if ":" in str(name[0]) else socket.AF_INET
        dual = name[0] == "::" and socket.has_dualstack_ipv6()  # somebody asked for all addresses
        try:
            listeners.append(socket.create_server(name, family=family, backlog=128, dualstack_ipv6=dual))
        except OSError as error:
            reason = error
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break
    else:
        if listeners:
            return listeners
    for listener in listeners:
        listener.close()
    raise RunError(
        f"--hosts: cannot listen at {address_of((host, port))} ({reason and (reason.strerror or reason)}): give first the "
        f"address of process 0, with a free port of its machine; set {BIND} if the others reach it by another address"
    ) from reason


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _outer(hosts: list[str]) -> list[str]:
    """The addresses of this machine that `hosts` see when it connects to them, without those that only it can reach."""
    own = set()
    for host in hosts:
        for family, _, _, _, name in socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(name)  # sends nothing
                own.add(str(probe.getsockname()[0]))
    return sorted(address for address in own if not _is_loopback(address))
