"""Which GPUs of a machine each process of a run uses: one process uses all, several use equal parts."""

import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfrecords.errors import RunError

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Sight:
    """What a process sees of its machine.

    machine: the same for all processes on it; host: its name. present: its GPUs, by the driver's names. visible: those that
    this process may use, in JAX's order. chosen: whether JAX was told by its own settings which ones to use.
    """

    machine: str
    host: str
    present: tuple[str, ...] = ()
    visible: tuple[str, ...] = ()
    chosen: bool = False


def machine_id() -> str:
    """A text that all processes on this machine share, in containers too, and no other machine has."""
    try:
        return _BOOT.read_text().strip()
    except OSError:  # macOS
        return str(uuid.getnode())


def present_gpus() -> tuple[str, ...]:
    """The names of the NVIDIA GPUs that the system lets this process see; empty without nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        return tuple(subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split())
    except (OSError, subprocess.SubprocessError):
        return ()


def visible_gpus(environment: Mapping[str, str], present: Sequence[str], chosen: str = "all") -> tuple[str, ...]:
    """Those of the present GPUs that CUDA_VISIBLE_DEVICES leaves, and of these the `chosen`: numbers with commas, or "all"."""
    visible = tuple(present)
    if (named := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        visible = ()
        for name in map(str.strip, named.split(",")):
            if name.isdecimal():
                gpus = tuple(present[int(name) : int(name) + 1])
            else:  # a name may be shortened; a part of a GPU has its own, which nvidia-smi does not list
                gpus = (name,) if name.startswith("MIG-") else tuple(gpu for gpu in present if name and gpu.startswith(name))
            if len(gpus) != 1:  # CUDA ignores this entry and all after it
                break
            visible += gpus
    if chosen == "all":
        return visible
    return tuple(visible[number] for number in map(int, chosen.split(",")) if number < len(visible))


def local_device_ids(index: int, sights: Sequence[Sight]) -> tuple[int, ...] | None:
    """The numbers, among the GPUs visible to process `index`, of those that it uses; None: all of them.

    sights: those of all processes. Processes that see the same GPUs divide them equally. Raises RunError if they cannot.
    """
    own = sights[index]
    here = [number for number, other in enumerate(sights) if other.machine == own.machine]
    if not own.visible:  # none, or of another vendor: one each, as JAX does on Slurm and Open MPI
        return None if own.chosen or len(here) == 1 else (here.index(index),)
    sharers = [number for number in here if set(sights[number].visible) & set(own.visible)]
    if len(sharers) == 1:
        return None
    if any(sights[number].visible != own.visible or sights[number].chosen for number in sharers):
        raise RunError(
            f"{own.host}: {len(sharers)} processes of this run see partly the same GPUs: give each its own "
            "(CUDA_VISIBLE_DEVICES), or all of them the same"
        )
    each = len(own.visible) // len(sharers)
    if not each:
        raise RunError(
            f"{own.host}: {len(sharers)} processes of this run share {len(own.visible)} GPUs: start one process per machine, "
            "or at most one per GPU; to train on CPUs, set JAX_PLATFORMS=cpu"
        )
    first = sharers.index(index) * each
    return tuple(range(first, first + each))


def unused_gpus(sights: Sequence[Sight]) -> str:
    """One line that names the GPUs that no process uses, and what to do; empty if there are none."""
    used: set[tuple[str, str]] = set()
    for index, sight in enumerate(sights):
        numbers = local_device_ids(index, sights)
        names = sight.visible if numbers is None or not sight.visible else [sight.visible[number] for number in numbers]
        used |= {(sight.machine, name) for name in names}
    in_parts = {sight.machine for sight in sights if any(name.startswith("MIG-") for name in sight.visible)}
    left = {
        (sight.host, name): None
        for sight in sights
        for name in sight.present
        if (sight.machine, name) not in used and sight.machine not in in_parts
    }
    if not left:
        return ""
    named = ", ".join(f"{name[:12]} of {host}" for host, name in left)
    return (
        f"not used by this run: {named}: to use all GPUs of a machine, start one process on it, or a number that divides "
        "them equally, and let each see them (CUDA_VISIBLE_DEVICES; on Slurm --gpus-per-node)"
    )
