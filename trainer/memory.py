"""How much memory this process may still take."""

from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def _number(path: Path) -> int | None:
    """The number in a file of the kernel; None where there is no such file, or it says "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _inactive_files(path: Path) -> int:
    """Bytes of the page cache that give way first, from memory.stat; 0 where there is no such file."""
    try:
        lines = dict(line.split() for line in path.read_text().splitlines())
        return int(lines.get("total_inactive_file", lines.get("inactive_file", 0)))
    except (OSError, ValueError):
        return 0


def _left_in_cgroups(own: str, root: Path) -> list[int]:
    """Bytes left under each limit that a container or Slurm set; `own`: the text of /proc/self/cgroup.

    Lines are "0::/path" for version 2 and "4:memory:/path" for version 1; a limit holds for all folders below.
    """
    left = []
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, names = root, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = top / path.lstrip("/")
        for place in (folder, *folder.parents):
            limit, used = (_number(place / name) for name in names)
            if limit is not None and used is not None:
                used -= _inactive_files(place / "memory.stat")  # files just read count as used
                left.append(max(0, limit - used))
            if place == top:
                break
    return left


def available() -> int:
    """Bytes: what the machine has free (the page cache gives way), or less where a container or Slurm sets a limit."""
    import psutil

    own = _OWN.read_text() if _OWN.is_file() else ""
    return min([int(psutil.virtual_memory().available), *_left_in_cgroups(own, _CGROUPS)])
