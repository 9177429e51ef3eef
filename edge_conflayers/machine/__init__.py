"""What this machine has: cores to compute on and memory to compute in."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from edge_conflayers.limits import check_number
from edge_conflayers.machine import cgroup


def default_threads() -> int:
    """Physical cores that this process may use: performance cores on Apple Silicon, those of its
    affinity or cpuset on Linux, and no more than its control group gives it time on.

    Two threads of one core only wait for each other in matrix kernels, and a thread that has used
    up the group's time makes all others wait at a step's barriers.
    """
    limit = cgroup.cpu_limit()
    cores = _physical_cores()
    return cores if limit is None else max(1, min(cores, int(limit)))


def _physical_cores() -> int:
    if platform.system() == "Darwin":
        for key in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):
            asked = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True)
            if asked.returncode == 0 and asked.stdout.strip().isdigit():
                return int(asked.stdout)
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        cores = set()
        for cpu in allowed:
            siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings")
            try:
                cores.add(siblings.read_text())
            except OSError:
                return len(allowed)
        return len(cores)
    return os.cpu_count() or 1


def threads_to_use(wanted: int | None) -> int:
    """The threads that were asked for; the default for None.

    Raises:
        BadInput: less than one, or more than the machine runs at once: those would wait for each
            other at each of a step's hundreds of barriers.
    """
    if wanted is None:
        return default_threads()
    check_number("threads (-t)", wanted, 1, most_threads(), whole=True)
    return wanted


def most_threads() -> int:
    """Hardware threads of the machine, as far as ggml takes them (GGML_MAX_N_THREADS); at least
    two, so that what is tested with two runs anywhere."""
    return min(max(os.cpu_count() or 1, 2), 512)


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping, in the system and in this process's control
    group; None where the system does not say."""
    known = (_system_memory(), cgroup.free_memory())
    return min((free for free in known if free is not None), default=None)


def _system_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return total_memory()


def total_memory() -> int | None:
    """Bytes of the machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
