"""What Linux control groups leave to this process: containers limit processors and memory so.

A limit holds for a group and for all groups inside it, so that the least of them counts, from the
process's own group up to what the container shows of the root. Both versions of the interface are
read; where there are none, nothing is limited.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_UNLIMITED_V1 = 1 << 60  # version 1 writes "no limit" as the largest multiple of a page


def cpu_limit(root: Path = Path("/")) -> float | None:
    """Processors' worth of time that may be used, such as 1.5; None where it is not limited.

    Args:
        root: what ``/proc`` and ``/sys`` are in.
    """
    limits = []
    for group in _groups(root, ""):
        quota = _words(group / "cpu.max")
        if len(quota) == 2 and all(map(str.isdigit, quota)) and int(quota[1]):
            limits.append(int(quota[0]) / int(quota[1]))
    for group in _groups(root, "cpu"):
        allowed, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if allowed and period:
            limits.append(allowed / period)
    return min(limits, default=None)


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that may still be allocated; None where they are not limited.

    Cached files that were not used lately count as free, as they do for a container's orchestrator.
    """
    free = []
    for group in _groups(root, ""):
        limits = (_number(group / name) for name in ("memory.max", "memory.high"))
        limit = min((limit for limit in limits if limit is not None), default=None)
        used = _number(group / "memory.current")
        if limit is not None and used is not None:
            free.append(limit - used + _cached(group, "inactive_file"))
    for group in _groups(root, "memory"):
        limit = _number(group / "memory.limit_in_bytes")
        used = _number(group / "memory.usage_in_bytes")
        if limit is not None and limit < _UNLIMITED_V1 and used is not None:
            free.append(limit - used + _cached(group, "total_inactive_file"))
    return max(0, min(free)) if free else None


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the process's group and of those around it, by version 1's controller, or by
    version 2 for ""."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller not in controllers.split(","):
            continue
        for mounted, at in _mounts(root, controller):
            # In a container the path may be the host's, and what is mounted the group itself.
            inside = path[len(mounted.rstrip("/")) :] if path.startswith(mounted) else "/"
            group = at / inside.strip("/") if ".." not in inside else at
            if not group.is_dir():
                group = at
            yield group
            while group != at:
                group = group.parent
                yield group
            return


def _mounts(root: Path, controller: str) -> Iterator[tuple[str, Path]]:
    """Which group is mounted, and where."""
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, system = line.partition(" - ")
        mount_fields, system_fields = mount.split(), system.split()
        if len(mount_fields) < 5 or len(system_fields) < 3:
            continue
        kind, options = system_fields[0], system_fields[2].split(",")
        if (kind == "cgroup2") if not controller else (kind == "cgroup" and controller in options):
            yield mount_fields[3], root / mount_fields[4].lstrip("/")


def _cached(group: Path, name: str) -> int:
    for line in _lines(group / "memory.stat"):
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return 0


def _number(file: Path) -> int | None:
    """The number in a file; None for "max", for -1, and where there is no such file."""
    words = _words(file)
    return int(words[0]) if len(words) == 1 and words[0].isdigit() else None


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
