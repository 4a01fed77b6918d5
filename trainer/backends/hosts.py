"""One run on several machines, with JAX: how its processes connect, agree on settings, and notice that one is lost.

Every machine runs the same command with its own --host_index; the processes connect at the first address. The dataset
and the run folder must be on storage that all machines share; only the first process writes.

They meet on connections of our own, see `greeting`, which stay open: the end of one is the end of a process. Only when all
have proved that they belong to the run, JAX starts; its own connections have no such proof.
"""

import atexit
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any, NoReturn

from tfrecords.errors import ConfigError, RunError, SettingError, install_extra, squeezed
from trainer.backends.base import WHOLE, Share
from trainer.backends.gpus import Sight, local_device_ids, machine_id, present_gpus, unused_gpus, visible_gpus
from trainer.backends.greeting import introduce, welcome
from trainer.backends.listening import BIND, address_of, listeners_at, split_address
from trainer.backends.secret import given_key, run_key
from trainer.backends.startup import load_backend, without_native_notes

# How long a killed process or a lost machine may go unnoticed if its connection is not closed.
HEARTBEAT_SECONDS = 30
MEETING_SECONDS = 300
_STEP_MILLISECONDS = 500
GONE = (
    "another process of this run ended or cannot be reached: check its own error message, then run the same command "
    "again on all machines (without --overwrite) to resume from the last checkpoint"
)


_GOODBYE = b"bye"
_leaving = threading.Event()
_stderr = os.dup(2)  # 2 itself may be redirected when another process is lost
_connections: list[socket.socket] = []  # global, like JAX' own client: one set per process


def addresses(hosts: str, index: int | None) -> list[str]:
    """The addresses in `--hosts`, one per process. Raises SettingError if an address or the index is invalid."""
    named = [address.strip() for address in hosts.split(",")]
    for address in named:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise SettingError(
                f"--hosts: '{address}' is not HOST:PORT: give one address per process, like node1:9000,node2:9000"
            )
    if len(set(named)) < len(named):
        raise SettingError(f"--hosts {hosts}: an address is listed twice: give every process its own")
    if len(named) < 2:
        raise SettingError(f"--hosts {hosts}: only one address: omit the flag, or give two or more")
    if index is None:
        raise SettingError(
            f"--hosts {hosts}: --host_index is missing: give the place of this machine in --hosts, 0 to {len(named) - 1}"
        )
    if not 0 <= index < len(named):
        raise SettingError(f"--host_index {index}: --hosts has {len(named)} addresses: give 0 to {len(named) - 1}")
    return named


def join(hosts: str, index: int | None, out: Path, secret: Path | None = None) -> Share:
    """Connect to the other processes; return this one's share of the work, all of it if `hosts` is empty.

    "auto" reads the addresses from the cluster (Slurm, Open MPI, Kubernetes; see jax.distributed.initialize). The secret of the
    run is in the file `secret`, else in the environment, else shared through the run folder `out`. Raises SettingError for
    invalid addresses or secrets, ConfigError on TensorFlow, RunError if the processes cannot connect.
    """
    if not hosts:
        if index is not None:
            raise SettingError(
                f"--host_index {index}: --hosts is missing: give the addresses of all processes, or omit --host_index"
            )
        if secret is not None:
            raise SettingError(f"--hosts_secret {secret}: --hosts is missing: give the addresses, or omit --hosts_secret")
        return WHOLE
    if hosts == "auto" and index is not None:
        raise SettingError(f"--host_index {index}: --hosts auto reads it from the cluster: omit --host_index")
    named = [] if hosts == "auto" else addresses(hosts, index)
    key = given_key(secret)
    if load_backend() != "jax":
        raise ConfigError(
            "--hosts: training on several machines needs Keras' JAX backend (it fails on TensorFlow): "
            f"{install_extra('jax-gpu')} (or [jax] for CPUs), and set KERAS_BACKEND=jax on every machine"
        )
    import jax

    # It would intercept SIGTERM; in `on_jax` the processes agree on the step to stop after.
    jax.config.update("jax_enable_preemption_service", False)
    for address in named:
        try:
            socket.getaddrinfo(split_address(address)[0], None)
        except OSError as error:
            raise RunError(f"--hosts: cannot resolve the host of {address} ({error}): check the spelling") from error
    print(
        f"connecting to the other processes at {named[0] if named else 'the address from the cluster'}",
        file=sys.stderr,
        flush=True,
    )
    place = _from_cluster() if index is None else (named[0], Share(len(named), index))
    try:
        return _connect(*place, named[1:], out, key)
    except BaseException:
        if _connections and not _leaving.is_set():
            _abandon()
        raise


def _connect(first: str, share: Share, others: list[str], out: Path, key: bytes | None) -> Share:
    """Meet the other processes at address `first`, then start JAX."""
    import jax
    from jax.experimental import multihost_utils

    bind = None
    with contextlib.ExitStack() as held:
        if share.index == 0:
            listeners = [held.enter_context(listener) for listener in listeners_at(first, others)]
            read_key = held.enter_context(run_key(out, True)) if key is None else lambda: key
            members = welcome(listeners, read_key(), share.processes, MEETING_SECONDS)
            missing = [number for number in range(1, share.processes) if number not in members]
            if missing:
                raise RunError(
                    f"--hosts: process {', '.join(map(str, missing))} of {share.processes} did not connect to {first}: start "
                    f"all within {MEETING_SECONDS} s, with the same --hosts, and each with its own --host_index"
                )
            _connections.extend(members.values())
            # JAX listens where the others have connected, on the port that is free again; at all addresses of this machine
            # only if the others needed several.
            used = {address_of(connection.getsockname()) for connection in _connections or listeners[:1]}
            coordinator = used.pop() if len(used) == 1 and not os.environ.get(BIND) else first
            bind = os.environ.get(BIND) or (f"[::]:{split_address(first)[1]}" if used else coordinator)
        else:
            read_key = held.enter_context(run_key(out, False)) if key is None else lambda: key
            _connections.append(introduce(split_address(first), share.index, share.processes, read_key, MEETING_SECONDS))
            coordinator = address_of(_connections[0].getpeername())
    _watch()
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator,
            num_processes=share.processes,
            process_id=share.index,
            # Without a list, JAX uses one GPU per process on Slurm and Open MPI; an empty list restricts nothing.
            local_device_ids=None if os.environ.get("JAX_LOCAL_DEVICE_IDS") else [],
            coordinator_bind_address=bind,
            initialization_timeout=MEETING_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except Exception as error:  # JAX raises ValueError, RuntimeError and its own for addresses, ports and timeouts
        raise RunError(
            f"--hosts: the processes met, but JAX did not connect them at {coordinator} ({squeezed(error)}): check the "
            "firewall, then start all of them again"
        ) from error
    try:
        _divide_gpus(share)
        with without_native_notes():  # the first operation of all devices connects them
            multihost_utils.sync_global_devices("joined")
    except (OSError, RuntimeError) as error:  # JAX' errors are RuntimeErrors
        raise RunError(
            f"the processes of this run connected, but cannot reach each other on other ports ({squeezed(error)}): check the "
            "firewall"
        ) from error
    return share


def _from_cluster() -> tuple[str, Share]:
    """The address of process 0 and the share of this one, from the cluster manager. Raises RunError if there is none."""
    environment = _jax_state().clusters.ClusterEnv
    wanted: tuple[Any, ...] = os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None, []
    reason = "no Slurm, Open MPI or other cluster manager started this process"
    try:
        address, processes, index, _ = environment.auto_detect_unset_distributed_params(*wanted, None, MEETING_SECONDS)
    except Exception as error:  # JAX' own and those of environment variables that it expects
        address, processes, index, reason = None, None, None, squeezed(error)
    if address is None or processes is None or index is None:
        raise RunError(f"--hosts auto: no cluster found ({reason}): give the addresses, --hosts A:PORT,B:PORT")
    return address, Share(processes, index)


def _end() -> NoReturn:
    """End this process at once: its main thread may wait for ever in a collective operation with the lost process."""
    sys.stdout.flush()
    os.write(_stderr, f"\nerror: {GONE}\n".encode())
    os._exit(1)


def _listen(connection: socket.socket) -> None:
    """Wait until the process at the other end says goodbye; end this one if the connection closes without that.

    The system closes the connections of a killed process.
    """
    try:
        said = connection.recv(len(_GOODBYE))
    except OSError:
        said = b""
    if said != _GOODBYE and not _leaving.is_set():
        _end()


def _watch() -> None:
    """End this process when the connection to another one closes without goodbye.

    JAX notices a lost process only by missing heartbeats, then aborts the others; running operations hang until then.
    """
    for connection in _connections:
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        threading.Thread(target=_listen, args=(connection,), daemon=True).start()


def _divide_gpus(share: Share) -> None:
    """Restrict this process to its part of the GPUs; print which are left. Raises RunError if they cannot be divided."""
    import jax

    chosen, platforms = jax.config.read("jax_cuda_visible_devices"), getattr(jax.config, "jax_platforms", None)
    present = present_gpus() if not platforms or {"cuda", "gpu"} & {*platforms.split(",")} else ()
    visible = visible_gpus(os.environ, present, chosen)
    own = Sight(machine_id(), socket.gethostname(), present, visible, chosen != "all")
    sights = [
        Sight(machine, host, tuple(present), tuple(visible), chosen)
        for machine, host, present, visible, chosen in _exchange(share, "GPUs", astuple(own))
    ]
    try:
        numbers = [local_device_ids(index, sights) for index in range(share.processes)]
    except RunError:  # in every process
        leave(share)
        raise
    if (mine := numbers[share.index]) is not None:
        for vendor in ("cuda", "rocm"):
            jax.config.update(f"jax_{vendor}_visible_devices", ",".join(map(str, mine)))
    if share.index == 0 and (line := unused_gpus(sights)):
        print(line, flush=True)


def processes_here(share: Share) -> int:
    """The number of processes of this run on this machine. All must call this at the same point of the work, once."""
    if share.processes == 1:
        return 1
    machines = _exchange(share, "machines", machine_id())
    return machines.count(machines[share.index])


@contextlib.contextmanager
def joined(hosts: str, index: int | None, out: Path, secret: Path | None = None) -> Iterator[Share]:
    """Connect to the other processes for the block, see `join`, and disconnect after it.

    If the block fails, the other processes end with the message that they lost this one.
    """
    share = join(hosts, index, out, secret)
    try:
        yield share
    except BaseException:
        if not _leaving.is_set():
            _abandon()
        raise
    leave(share)


def leave(share: Share) -> None:
    """Disconnect from the other processes. All must call this at the same point of the work: each waits for the others."""
    if share.processes == 1 or _leaving.is_set():
        return
    import jax

    _leaving.set()
    for connection in _connections:
        with contextlib.suppress(OSError):
            connection.sendall(_GOODBYE)
    jax.distributed.shutdown()


def _abandon() -> None:
    """Disconnect from the other processes without waiting for them, now or at exit."""
    _leaving.set()
    for connection in _connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
    if _connections:
        import jax

        atexit.unregister(jax.distributed.shutdown)


def agree(share: Share, what: str, settings: Mapping[str, Any]) -> None:
    """Wait for all processes. Raises ConfigError in each if their settings differ; `what` names these in messages."""
    if share.processes == 1:
        return
    every = _exchange(share, what, settings)
    different = {name: [one[name] for one in every] for name in settings if any(one[name] != settings[name] for one in every)}
    if different:
        listed = "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in different.items())
        leave(share)
        raise ConfigError(
            f"the processes of this run differ in their {what} ({listed}): give the same flags on all machines, and folders "
            "that they share"
        )


def _exchange(share: Share, what: str, value: Any) -> list[Any]:
    """The values of all processes, in their order, once all have sent theirs; `what` names them in messages."""
    client, end = _jax_state().global_state.client, time.monotonic() + MEETING_SECONDS
    keys = [f"{what}/{index}" for index in range(share.processes)]
    client.key_value_set(keys[share.index], json.dumps(value, sort_keys=True))
    return [json.loads(_value(client, key, what, end)) for key in keys]


def _value(client: Any, key: str, what: str, end: float) -> str:
    """Wait for a value, in steps: a signal is handled only between calls of JAX."""
    import jax

    while True:
        try:
            return str(client.blocking_key_value_get(key, _STEP_MILLISECONDS))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" in str(error) and time.monotonic() < end:
                continue
            raise RunError(
                f"the other processes of this run did not send their {what} within {MEETING_SECONDS} s: check their messages"
            ) from error


def _jax_state() -> Any:
    """JAX' module of its processes: `global_state.client`, its key-value store, and `clusters`, the cluster managers.

    The name is private, because neither has a public one. Should it move, no run on several machines can start;
    `tests/test_house.py` fails first.
    """
    from jax._src import distributed

    return distributed
