"""Several machines as one run, on JAX: who takes part, what they agree on, and what happens where one goes away.

Every machine runs the same command, each with its own --host_index; the first address is where they meet. The dataset
and the run folder must lie on storage that all of them see; only the first process writes.
"""

import atexit
import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from tfrecords.errors import ConfigError, RunError, SettingError, squeezed
from trainer.backends.base import WHOLE, Share
from trainer.backends.startup import load_backend, without_native_notes

# How long a process that was killed, or a machine that is gone, may go unnoticed where the network does not tell.
HEARTBEAT_SECONDS = 30
MEETING_SECONDS = 300
GONE = (
    "another process of this run ended or cannot be reached: see its own message, then start the same command on all "
    "machines again (without --overwrite), and training resumes from the last checkpoint"
)


_GOODBYE = b"bye"
_leaving = threading.Event()
_stderr = os.dup(2)  # 2 itself may be held back when a partner is lost
_connections: list[socket.socket] = []  # of this process, as JAX' own client is


def addresses(hosts: str, index: int | None) -> list[str]:
    """The addresses in `--hosts`, one per process. Raises SettingError, saying what is wrong with them or with the index."""
    named = [address.strip() for address in hosts.split(",")]
    for address in named:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise SettingError(
                f"--hosts: '{address}' is not HOST:PORT: give one address per process, like node1:9000,node2:9000"
            )
    if len(set(named)) < len(named):
        raise SettingError(f"--hosts {hosts}: an address stands there twice: give every process its own")
    if len(named) < 2:
        raise SettingError(f"--hosts {hosts}: is one process: leave the flag out, or name two or more")
    if index is None:
        raise SettingError(
            f"--hosts {hosts}: give --host_index too, 0 to {len(named) - 1}: the place of this machine in --hosts"
        )
    if not 0 <= index < len(named):
        raise SettingError(f"--host_index {index}: --hosts has {len(named)} addresses: give 0 to {len(named) - 1}")
    return named


def join(hosts: str, index: int | None) -> Share:
    """Meet the other processes; returns this one's share of the work. Nothing is done where `hosts` is empty.

    "auto" asks the cluster (Slurm, Open MPI, Kubernetes; see jax.distributed.initialize). Raises SettingError for bad
    addresses, ConfigError on TensorFlow, RunError where the others do not come.
    """
    if not hosts:
        if index is not None:
            raise SettingError(f"--host_index {index}: only with --hosts, the addresses of all processes")
        return WHOLE
    if hosts == "auto" and index is not None:
        raise SettingError(f"--host_index {index}: not with --hosts auto, where the cluster tells it")
    named = [] if hosts == "auto" else addresses(hosts, index)
    if load_backend() != "jax":
        raise ConfigError(
            "--hosts: training on several machines needs Keras' JAX backend (on TensorFlow, model training fails there): "
            "pip install '.[jax]' or '.[jax-gpu]', and set KERAS_BACKEND=jax on every machine"
        )
    import jax

    # It would take SIGTERM for itself; `on_jax` agrees on the step to stop after.
    jax.config.update("jax_enable_preemption_service", False)
    for address in named:
        try:
            socket.getaddrinfo(address.rpartition(":")[0].strip("[]"), None)
        except OSError as error:
            raise RunError(f"--hosts: {address} is no machine that this one knows ({error}): see its name") from error
    print(
        f"meeting the other processes at {named[0] if named else 'the place that the cluster names'}",
        file=sys.stderr,
        flush=True,
    )
    try:
        jax.distributed.initialize(
            coordinator_address=named[0] if named else None,
            num_processes=len(named) or None,
            process_id=index if named else None,
            initialization_timeout=MEETING_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except Exception as error:  # JAX raises ValueError, RuntimeError and its own for addresses, ports and timeouts
        reason = squeezed(error)
        if not named and isinstance(error, ValueError):
            raise RunError(f"--hosts auto: no cluster found ({reason}): name the addresses, --hosts A:PORT,B:PORT") from error
        raise RunError(
            f"--hosts {hosts}: the processes did not meet ({reason}): start all of them within {MEETING_SECONDS} s, "
            "with the same --hosts and each with its own --host_index"
        ) from error
    share = Share(jax.process_count(), jax.process_index())
    from jax.experimental import multihost_utils

    try:
        _watch(share)
        with without_native_notes():  # the first operation of all devices connects them
            multihost_utils.sync_global_devices("joined")
    except (OSError, RuntimeError) as error:  # JAX' errors are RuntimeErrors
        _abandon()
        reason = squeezed(error)
        raise RunError(
            f"the processes of this run met, but cannot reach each other on other ports ({reason}): see the firewall"
        ) from error
    return share


def _end() -> NoReturn:
    """End this process, whatever its main thread waits for: a collective operation that lost its partner may never return."""
    sys.stdout.flush()
    os.write(_stderr, f"\nerror: {GONE}\n".encode())
    os._exit(1)


def _listen(connection: socket.socket) -> None:
    """Until the process at the other end says goodbye; the system closes the connection of one that was killed."""
    try:
        said = connection.recv(len(_GOODBYE))
    except OSError:
        said = b""
    if said != _GOODBYE and not _leaving.is_set():
        _end()


def _watch(share: Share) -> None:
    """Connect every process with the first, by sockets of our own.

    JAX notices a lost process by missing heartbeats, and ends the others with an abort; operations under way hang until then.
    """
    if share.index == 0:
        server = socket.create_server(("", 0), backlog=share.processes)
        _jax_state().client.key_value_set("watch", str(server.getsockname()[1]))
        server.settimeout(MEETING_SECONDS)
        _connections.extend(server.accept()[0] for _ in range(share.processes - 1))
        server.close()
    else:
        port = int(_jax_state().client.blocking_key_value_get("watch", MEETING_SECONDS * 1000))
        host = _jax_state().coordinator_address.rpartition(":")[0].strip("[]")
        _connections.append(socket.create_connection((host, port), timeout=MEETING_SECONDS))
    for connection in _connections:
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        threading.Thread(target=_listen, args=(connection,), daemon=True).start()


@contextlib.contextmanager
def joined(hosts: str, index: int | None) -> Iterator[Share]:
    """Take part, see `join`, while the block runs; afterwards each process is on its own.

    Where the block fails, the other processes end with the line that they lost this one.
    """
    share = join(hosts, index)
    try:
        yield share
    except BaseException:
        if not _leaving.is_set():
            _abandon()
        raise
    leave(share)


def leave(share: Share) -> None:
    """Part from the other processes. All of them must come here, at the same point of the work: each waits for the others."""
    if share.processes == 1 or _leaving.is_set():
        return
    import jax

    _leaving.set()
    for connection in _connections:
        with contextlib.suppress(OSError):
            connection.sendall(_GOODBYE)
    jax.distributed.shutdown()


def _abandon() -> None:
    """Leave the other processes to themselves, and do not wait for them at the exit of this one."""
    _leaving.set()
    for connection in _connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
    if _connections:
        import jax

        atexit.unregister(jax.distributed.shutdown)


def agree(share: Share, what: str, settings: Mapping[str, Any]) -> None:
    """Wait for all processes. Raises ConfigError, on every one, where their settings (named `what`) differ, saying which."""
    if share.processes == 1:
        return
    import jax

    client = _jax_state().client
    keys = [f"{what}/{index}" for index in range(share.processes)]
    client.key_value_set(keys[share.index], json.dumps(settings, sort_keys=True))
    try:
        every = [json.loads(client.blocking_key_value_get(key, MEETING_SECONDS * 1000)) for key in keys]
    except jax.errors.JaxRuntimeError as error:
        raise RunError(
            f"the other processes of this run did not say their {what} within {MEETING_SECONDS} s: see theirs"
        ) from error
    different = {name: [one[name] for one in every] for name in settings if any(one[name] != settings[name] for one in every)}
    if different:
        listed = "; ".join(f"{name} is {', '.join(map(str, values))}" for name, values in different.items())
        leave(share)
        raise ConfigError(
            f"the processes of this run differ in their {what} ({listed}): give the same flags on all machines, and folders "
            "that all of them see"
        )


def _jax_state() -> Any:
    """JAX' own record of the processes: `client`, its key-value store, and `coordinator_address`.

    A private name, because neither has a public one. Should it move, no run on several machines can start any more:
    `tests/test_house.py` notices before a user does.
    """
    from jax._src.distributed import global_state

    return global_state
